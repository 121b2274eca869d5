//! Defects that only unheard-of input brings out: a hub that is right in everything that anybody says, and dies, hangs, leaks
//! or tires when it hears what nobody does. A script that says what a document says never meets them.

mod list;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::Value;

pub use self::list::SLIPS;
use crate::machine::{Conn, EventError, Input, Machine, Output, Utf8Bytes};

/// One such defect.
#[derive(Debug, Clone, Copy)]
pub struct Slip {
    /// What brings it out.
    pub when: fn(&Input) -> bool,
    /// What happens then.
    pub does: Does,
}

/// What a hub does that slips.
#[derive(Debug, Clone, Copy)]
pub enum Does {
    /// Every connection is cut, and nobody is let in any more.
    Dies,
    /// Nothing is ever said again, to anybody.
    Hangs,
    /// What is said to whoever brought it out, everybody else is told as well.
    Leaks,
    /// Whoever brought it out is told nothing.
    Swallows,
    /// From now on everything is said so much later than before.
    Slows(Duration),
    /// This member of the answers quotes what somebody else said last.
    Quotes(&'static str),
    /// It is read as if another text had been said.
    Reads(fn(&str) -> Option<String>),
    /// Whoever brought it out is never answered again.
    Wedges,
}

/// How much of what somebody said is kept for others to be told.
const QUOTED: usize = 200;

/// A machine that slips.
pub struct Slipping {
    inner: Box<dyn Machine>,
    slip: Slip,
    state: State,
    /// Connections that have been let in.
    open: BTreeSet<Conn>,
    wedged: BTreeSet<Conn>,
    /// The beginning of what each connection said last.
    last: BTreeMap<Conn, String>,
    /// How much later everything is said, and what is still to be said, by due time.
    later: Duration,
    waiting: VecDeque<(Duration, Output)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    Dead,
    Hanging,
}

impl Slipping {
    /// `inner` with this defect.
    pub fn new(inner: Box<dyn Machine>, slip: Slip) -> Slipping {
        Slipping {
            inner,
            slip,
            state: State::Well,
            open: BTreeSet::new(),
            wedged: BTreeSet::new(),
            last: BTreeMap::new(),
            later: Duration::ZERO,
            waiting: VecDeque::new(),
        }
    }

    fn release(&mut self, now: Duration, out: &mut Vec<Output>) {
        while self.waiting.front().is_some_and(|(due, _)| *due <= now) {
            out.extend(self.waiting.pop_front().map(|(_, output)| output));
        }
    }

    /// Hands on what the inner machine said, late if that has come to be so.
    fn pass(&mut self, now: Duration, said: Vec<Output>, out: &mut Vec<Output>) {
        for output in said {
            match output {
                Output::Accept { conn, .. } => drop(self.open.insert(conn)),
                Output::Close { conn, .. } | Output::Drop { conn } => self.forget(conn),
                _ => {}
            }
            if self.wedged.contains(&output.conn()) {
                continue;
            }
            if self.later.is_zero() && self.waiting.is_empty() {
                out.push(output);
            } else {
                self.waiting.push_back((now + self.later, output));
            }
        }
    }

    fn forget(&mut self, conn: Conn) {
        self.open.remove(&conn);
        self.wedged.remove(&conn);
        self.last.remove(&conn);
    }

    /// What becomes of the answers to what brought it out.
    fn slip(&mut self, conn: Conn, said: Vec<Output>, out: &mut Vec<Output>) -> Vec<Output> {
        let answer = |output: &Output| matches!(output, Output::Text { .. }) && output.conn() == conn;
        match self.slip.does {
            Does::Dies => {
                self.state = State::Dead;
                out.extend(std::mem::take(&mut self.open).into_iter().map(|conn| Output::Drop { conn }));
                Vec::new()
            }
            Does::Hangs => {
                self.state = State::Hanging;
                Vec::new()
            }
            Does::Wedges => {
                self.wedged.insert(conn);
                said
            }
            Does::Slows(by) => {
                self.later += by;
                said
            }
            Does::Swallows => said.into_iter().filter(|output| !answer(output)).collect(),
            Does::Leaks => {
                let mut more = Vec::new();
                for output in said.iter().filter(|output| answer(output)) {
                    let Output::Text { text, .. } = output else { continue };
                    let others = self.open.iter().filter(|other| **other != conn);
                    more.extend(others.map(|other| Output::Text { conn: *other, text: text.clone() }));
                }
                said.into_iter().chain(more).collect()
            }
            Does::Quotes(pointer) => {
                let others = self.last.iter().filter(|(other, _)| **other != conn);
                let quoted: Vec<&str> = others.map(|(_, text)| text.as_str()).collect();
                let quoted = quoted.join(" ");
                said.into_iter()
                    .map(|output| if answer(&output) { quoting(output, pointer, &quoted) } else { output })
                    .collect()
            }
            Does::Reads(_) => said,
        }
    }
}

/// A text whose member at `pointer` quotes something.
fn quoting(output: Output, pointer: &str, quoted: &str) -> Output {
    let Output::Text { conn, text } = output else { return output };
    let edited = serde_json::from_str::<Value>(&text).ok().and_then(|mut value| {
        *value.pointer_mut(pointer)? = Value::String(format!("not understood; the last thing heard was {quoted}"));
        Some(Utf8Bytes::from(value.to_string()))
    });
    Output::Text { conn, text: edited.unwrap_or(text) }
}

impl Machine for Slipping {
    fn handle(&mut self, now: Duration, mut input: Input, out: &mut Vec<Output>) {
        self.release(now, out);
        match (self.state, &input) {
            (State::Dead, Input::Open { conn, .. }) => {
                return out.push(Output::Refuse { conn: *conn, status: 503, body: String::new() });
            }
            (State::Dead | State::Hanging, _) => return,
            (State::Well, Input::Closed { conn }) => self.forget(*conn),
            (State::Well, _) => {}
        }
        let slips = (self.slip.when)(&input);
        if let (true, Does::Reads(read), Input::Text { text, .. }) = (slips, self.slip.does, &mut input)
            && let Some(instead) = read(text)
        {
            *text = instead.into();
        }
        let conn = input.conn();
        if let Input::Text { conn, text } = &input {
            let cut = text.floor_char_boundary(QUOTED);
            self.last.insert(*conn, text[..cut].to_owned());
        }
        let mut said = Vec::new();
        self.inner.handle(now, input, &mut said);
        if let (true, Some(conn)) = (slips, conn) {
            said = self.slip(conn, said, out);
        }
        self.pass(now, said, out);
    }

    fn deadline(&self) -> Option<Duration> {
        let waiting = self.waiting.front().map(|(due, _)| *due);
        let inner = if self.state == State::Well { self.inner.deadline() } else { None };
        [waiting, inner].into_iter().flatten().min()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<Output>) -> Result<Value, EventError> {
        self.release(now, out);
        let mut said = Vec::new();
        let answer = self.inner.event(now, event, &mut said)?;
        if self.state == State::Well {
            self.pass(now, said, out);
        }
        Ok(answer)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<Output>) {
        out.extend(std::mem::take(&mut self.waiting).into_iter().map(|(_, output)| output));
        if self.state == State::Well {
            self.inner.shutdown(now, out);
        }
    }
}
