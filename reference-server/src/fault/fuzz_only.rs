//! Faults that only fuzzing brings out: a hub that answers every expected message as it should, and crashes, hangs, leaks or
//! slows down when it receives what no document describes. A script that sends what a document describes never meets them.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use regex::{Captures, Regex};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::fault::Cond;
use crate::fault::injector::holds;
use crate::fault::parse::{Str, conditions, pattern, pointer, text, texts, time};
use crate::machine::{Conn, EventError, Input, Machine, Output, Utf8Bytes};

/// How such a fault works.
#[derive(Debug, Clone, Copy)]
pub struct FuzzOnly {
    /// What brings it out: input for which all of this holds.
    pub received: &'static [Received],
    /// What happens then.
    pub then: Reaction,
}

impl FuzzOnly {
    /// Whether this input brings it out.
    pub fn is_brought_out_by(&self, input: &Input) -> bool {
        self.received.iter().all(|received| received.holds(input))
    }
}

/// A condition on what the hub receives.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Received {
    /// A binary message.
    Binary,
    /// A WebSocket ping.
    Ping,
    /// A text in which this is found.
    Text(#[serde(deserialize_with = "pattern")] &'static Regex),
    /// A text that is no JSON, and longer than so many bytes.
    NotJsonOver(usize),
    /// A text with more brackets and braces open at a time; those within strings count, too.
    NestedOver(usize),
    /// A text with more commas.
    CommasOver(usize),
    /// A JSON value of which all of this holds.
    Frame(#[serde(deserialize_with = "conditions")] &'static [Cond]),
    /// An object with a member besides these.
    MemberBesides(#[serde(deserialize_with = "texts")] &'static [Str]),
    /// An object in which a member comes twice.
    MemberTwice,
    /// One of these at least.
    Any(#[serde(deserialize_with = "several")] &'static [Received]),
    /// Not all of these.
    Not(#[serde(deserialize_with = "several")] &'static [Received]),
}

fn several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static [Received], D::Error> {
    Vec::deserialize(deserializer).map(|all| &*all.leak())
}

impl Received {
    fn holds(self, input: &Input) -> bool {
        match (self, input) {
            (Received::Any(some), _) => some.iter().any(|received| received.holds(input)),
            (Received::Not(all), _) => !all.iter().all(|received| received.holds(input)),
            (Received::Binary, Input::Binary { .. }) | (Received::Ping, Input::Ping { .. }) => true,
            (Received::Text(regex), Input::Text { text, .. }) => regex.is_match(text),
            (Received::NotJsonOver(length), Input::Text { text, .. }) => {
                text.len() > length && serde_json::from_str::<IgnoredAny>(text).is_err()
            }
            (Received::NestedOver(most), Input::Text { text, .. }) => depth(text) > most,
            (Received::CommasOver(most), Input::Text { text, .. }) => {
                text.bytes().filter(|b| *b == b',').count() > most
            }
            (Received::Frame(conditions), Input::Text { text, .. }) => {
                holds(conditions, serde_json::from_str(text).ok().as_ref())
            }
            (Received::MemberBesides(known), Input::Text { text, .. }) => {
                let Ok(Value::Object(members)) = serde_json::from_str(text) else { return false };
                !members.keys().all(|name| known.contains(&name.as_str()))
            }
            (Received::MemberTwice, Input::Text { text, .. }) => {
                serde_json::from_str::<Twice>(text).is_ok_and(|Twice(twice)| twice)
            }
            _ => false,
        }
    }
}

/// The most brackets and braces that are open at a time.
fn depth(text: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// Whether a member of the outermost object comes twice.
struct Twice(bool);

impl<'de> Deserialize<'de> for Twice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Twice, D::Error> {
        deserializer.deserialize_map(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Twice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Twice, A::Error> {
        let mut names = HashSet::new();
        let mut twice = false;
        while let Some((name, IgnoredAny)) = members.next_entry::<String, IgnoredAny>()? {
            twice |= !names.insert(name);
        }
        Ok(Twice(twice))
    }
}

/// What the hub does when such a fault has been brought out.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reaction {
    /// Every connection is cut, and no further one is let in.
    Crash,
    /// Nothing is ever sent again, on any connection.
    Hang,
    /// The replies go to all other connections as well.
    BroadcastReplies,
    /// The replies are not sent.
    DropReplies,
    /// From now on everything is sent so much later than before.
    SlowDown(#[serde(deserialize_with = "time")] Duration),
    /// This member of the replies quotes what another client sent last.
    QuoteOthers(#[serde(deserialize_with = "pointer")] Str),
    /// The first match of the pattern is read as this text.
    ReadAs(#[serde(deserialize_with = "pattern")] &'static Regex, #[serde(deserialize_with = "text")] Str),
    /// The first match of the pattern is read in small letters.
    ReadInSmallLetters(#[serde(deserialize_with = "pattern")] &'static Regex),
    /// Nothing is ever sent again on the connection that brought it out.
    Mute,
}

impl Reaction {
    /// What is read instead of a text, where something is.
    pub fn reads(self, text: &str) -> Option<String> {
        let read = match self {
            Reaction::ReadAs(pattern, instead) => pattern.replace(text, instead),
            Reaction::ReadInSmallLetters(pattern) => {
                pattern.replace(text, |found: &Captures<'_>| found[0].to_lowercase())
            }
            _ => return None,
        };
        Some(read.into_owned())
    }
}

/// How much of what a client sent is kept, to be quoted to others.
const QUOTED: usize = 200;

/// A machine with such a fault.
pub struct FuzzOnlyMachine {
    inner: Box<dyn Machine>,
    fault: FuzzOnly,
    state: State,
    /// Connections that have been let in.
    open: BTreeSet<Conn>,
    muted: BTreeSet<Conn>,
    /// The beginning of what each client sent last.
    last: BTreeMap<Conn, String>,
    /// How much later everything is sent, and what is still to be sent, by due time.
    later: Duration,
    waiting: VecDeque<(Duration, Output)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    Dead,
    Hanging,
}

impl FuzzOnlyMachine {
    /// `inner` with this fault.
    pub fn new(inner: Box<dyn Machine>, fault: FuzzOnly) -> FuzzOnlyMachine {
        FuzzOnlyMachine {
            inner,
            fault,
            state: State::Well,
            open: BTreeSet::new(),
            muted: BTreeSet::new(),
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

    /// Hands on what the inner machine sends, late if that has come to be so.
    fn pass(&mut self, now: Duration, said: Vec<Output>, out: &mut Vec<Output>) {
        for output in said {
            match output {
                Output::Accept { conn, .. } => drop(self.open.insert(conn)),
                Output::Close { conn, .. } | Output::Drop { conn } => self.forget(conn),
                _ => {}
            }
            if self.muted.contains(&output.conn()) {
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
        self.muted.remove(&conn);
        self.last.remove(&conn);
    }

    /// What becomes of the answers to what brought it out.
    fn react(&mut self, conn: Conn, said: Vec<Output>, out: &mut Vec<Output>) -> Vec<Output> {
        let answer = |output: &Output| matches!(output, Output::Text { .. }) && output.conn() == conn;
        match self.fault.then {
            Reaction::Crash => {
                self.state = State::Dead;
                out.extend(std::mem::take(&mut self.open).into_iter().map(|conn| Output::Drop { conn }));
                Vec::new()
            }
            Reaction::Hang => {
                self.state = State::Hanging;
                Vec::new()
            }
            Reaction::Mute => {
                self.muted.insert(conn);
                said
            }
            Reaction::SlowDown(by) => {
                self.later += by;
                said
            }
            Reaction::DropReplies => said.into_iter().filter(|output| !answer(output)).collect(),
            Reaction::BroadcastReplies => {
                let mut more = Vec::new();
                for output in said.iter().filter(|output| answer(output)) {
                    let Output::Text { text, .. } = output else { continue };
                    let others = self.open.iter().filter(|other| **other != conn);
                    more.extend(others.map(|other| Output::Text { conn: *other, text: text.clone() }));
                }
                said.into_iter().chain(more).collect()
            }
            Reaction::QuoteOthers(pointer) => {
                let others = self.last.iter().filter(|(other, _)| **other != conn);
                let quoted: Vec<&str> = others.map(|(_, text)| text.as_str()).collect();
                let quoted = quoted.join(" ");
                said.into_iter()
                    .map(|output| if answer(&output) { quoting(output, pointer, &quoted) } else { output })
                    .collect()
            }
            Reaction::ReadAs(..) | Reaction::ReadInSmallLetters(_) => said,
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

impl Machine for FuzzOnlyMachine {
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
        let brought_out = self.fault.is_brought_out_by(&input);
        if let (true, Input::Text { text, .. }) = (brought_out, &mut input)
            && let Some(instead) = self.fault.then.reads(text)
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
        if let (true, Some(conn)) = (brought_out, conn) {
            said = self.react(conn, said, out);
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
