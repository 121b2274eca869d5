//! Faults that only fuzzing triggers: a hub that handles every documented message correctly, and crashes, hangs, leaks
//! data or slows down when it receives a message that no document describes.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use regex::{Captures, Regex};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::fault::Cond;
use crate::fault::injector::holds;
use crate::fault::parse::{Entries, Str, conditions, pattern, pointer, text, texts, time};
use crate::machine::{Conn, EventError, Input, Machine, Output, Utf8Bytes};

/// A fault that only fuzzing triggers.
#[derive(Debug, Clone, Copy)]
pub struct FuzzOnly {
    /// The trigger: input that meets all of these conditions.
    pub received: &'static [Received],
    /// The hub's reaction to the trigger.
    pub then: Reaction,
}

impl FuzzOnly {
    /// Whether this input triggers the fault.
    pub fn is_triggered_by(&self, input: &Input) -> bool {
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
    /// A text that contains a match.
    Text(#[serde(deserialize_with = "pattern")] &'static Regex),
    /// A text that is not JSON and longer than this, in bytes.
    NotJsonOver(usize),
    /// A text nested deeper than this; brackets within strings count, too.
    NestedOver(usize),
    /// A text with more commas than this.
    CommasOver(usize),
    /// A JSON value that meets all of these conditions.
    Frame(#[serde(deserialize_with = "conditions")] &'static [Cond]),
    /// An object with a member other than these.
    MemberBesides(#[serde(deserialize_with = "texts")] &'static [Str]),
    /// An object with a duplicate member.
    MemberTwice,
    /// Input that meets at least one of these conditions.
    Any(#[serde(deserialize_with = "several")] &'static [Received]),
    /// Input that does not meet all of these conditions.
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
                serde_json::from_str::<Entries<String, IgnoredAny>>(text).is_ok_and(|Entries(members)| {
                    let names: HashSet<_> = members.iter().map(|(name, _)| name).collect();
                    names.len() < members.len()
                })
            }
            _ => false,
        }
    }
}

/// Returns the largest number of brackets and braces that are open at once.
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

/// What a hub does once its fuzz-only fault has been triggered.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reaction {
    /// Every connection is cut, and further ones are refused with 503.
    Crash,
    /// Nothing more is sent on any connection.
    Hang,
    /// The replies also go to all other connections.
    BroadcastReplies,
    /// The replies are not sent.
    DropReplies,
    /// The hub delays all further outputs by this time.
    SlowDown(#[serde(deserialize_with = "time")] Duration),
    /// This member of the replies quotes the last message of other clients.
    QuoteOthers(#[serde(deserialize_with = "pointer")] Str),
    /// The first match of the pattern is read as this text.
    ReadAs(#[serde(deserialize_with = "pattern")] &'static Regex, #[serde(deserialize_with = "text")] Str),
    /// The first match of the pattern is read in lower case.
    ReadInSmallLetters(#[serde(deserialize_with = "pattern")] &'static Regex),
    /// Nothing more is sent on the connection that triggered the fault.
    Mute,
}

impl Reaction {
    /// Returns the text that is read instead of `text`, if the reaction replaces it.
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

/// How much of a client's last message is kept to be quoted, in bytes.
const QUOTED: usize = 200;

/// A state machine with a fault that only fuzzing triggers.
pub struct FuzzOnlyMachine {
    inner: Box<dyn Machine>,
    fault: FuzzOnly,
    state: State,
    /// Accepted connections.
    open: BTreeSet<Conn>,
    muted: BTreeSet<Conn>,
    /// The beginning of each client's last message.
    last: BTreeMap<Conn, String>,
    /// The delay of all outputs, and the delayed outputs by due time.
    later: Duration,
    waiting: VecDeque<(Duration, Output)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Healthy,
    Dead,
    Hanging,
}

impl FuzzOnlyMachine {
    /// `inner` with this fault.
    pub fn new(inner: Box<dyn Machine>, fault: FuzzOnly) -> FuzzOnlyMachine {
        FuzzOnlyMachine {
            inner,
            fault,
            state: State::Healthy,
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

    /// Passes on the outputs of the inner machine, delayed if the hub has become slow.
    fn pass(&mut self, now: Duration, outputs: Vec<Output>, out: &mut Vec<Output>) {
        for output in outputs {
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

    /// Applies the reaction to the outputs for the input that triggered it, and returns those to pass on.
    fn react(&mut self, conn: Conn, outputs: Vec<Output>, out: &mut Vec<Output>) -> Vec<Output> {
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
                outputs
            }
            Reaction::SlowDown(by) => {
                self.later += by;
                outputs
            }
            Reaction::DropReplies => outputs.into_iter().filter(|output| !answer(output)).collect(),
            Reaction::BroadcastReplies => {
                let mut more = Vec::new();
                for output in outputs.iter().filter(|output| answer(output)) {
                    let Output::Text { text, .. } = output else { continue };
                    let others = self.open.iter().filter(|other| **other != conn);
                    more.extend(others.map(|other| Output::Text { conn: *other, text: text.clone() }));
                }
                outputs.into_iter().chain(more).collect()
            }
            Reaction::QuoteOthers(pointer) => {
                let others = self.last.iter().filter(|(other, _)| **other != conn);
                let quoted: Vec<&str> = others.map(|(_, text)| text.as_str()).collect();
                let quoted = quoted.join(" ");
                outputs
                    .into_iter()
                    .map(|output| if answer(&output) { quoting(output, pointer, &quoted) } else { output })
                    .collect()
            }
            Reaction::ReadAs(..) | Reaction::ReadInSmallLetters(_) => outputs,
        }
    }
}

/// Replaces the member at `pointer` by a text that quotes `quoted`.
fn quoting(output: Output, pointer: &str, quoted: &str) -> Output {
    let Output::Text { conn, text } = output else { return output };
    let edited = serde_json::from_str::<Value>(&text).ok().and_then(|mut value| {
        *value.pointer_mut(pointer)? = Value::String(format!("not understood; the last message received was {quoted}"));
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
            (State::Healthy, Input::Closed { conn }) => self.forget(*conn),
            (State::Healthy, _) => {}
        }
        let triggered = self.fault.is_triggered_by(&input);
        if let (true, Input::Text { text, .. }) = (triggered, &mut input)
            && let Some(instead) = self.fault.then.reads(text)
        {
            *text = instead.into();
        }
        let conn = input.conn();
        if let Input::Text { conn, text } = &input {
            let cut = text.floor_char_boundary(QUOTED);
            self.last.insert(*conn, text[..cut].to_owned());
        }
        let mut outputs = Vec::new();
        self.inner.handle(now, input, &mut outputs);
        if let (true, Some(conn)) = (triggered, conn) {
            outputs = self.react(conn, outputs, out);
        }
        self.pass(now, outputs, out);
    }

    fn deadline(&self) -> Option<Duration> {
        let waiting = self.waiting.front().map(|(due, _)| *due);
        let inner = if self.state == State::Healthy { self.inner.deadline() } else { None };
        [waiting, inner].into_iter().flatten().min()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<Output>) -> Result<Value, EventError> {
        self.release(now, out);
        let mut outputs = Vec::new();
        let answer = self.inner.event(now, event, &mut outputs)?;
        if self.state == State::Healthy {
            self.pass(now, outputs, out);
        }
        Ok(answer)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<Output>) {
        out.extend(std::mem::take(&mut self.waiting).into_iter().map(|(_, output)| output));
        if self.state == State::Healthy {
            self.inner.shutdown(now, out);
        }
    }
}
