//! Faults that particular input triggers: a hub that is correct otherwise, and crashes, hangs, leaks data, slows down or
//! misreads when it receives that input. Most are for the fuzzer: no document describes what triggers them.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use regex::{Captures, Regex};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::fault::FrameCondition;
use crate::fault::injector::conditions_hold;
use crate::fault::parse::{MapEntries, StaticText, conditions, pattern, static_pointer, static_text, texts, time};
use crate::machine::{ConnectionId, EventError, Machine, MachineInput, MachineOutput, Utf8Bytes};

/// A fault that particular input triggers.
#[derive(Debug, Clone, Copy)]
pub struct InputFault {
    /// The trigger: input that meets all of these conditions.
    pub received: &'static [InputCondition],
    /// The hub's reaction to the trigger.
    pub then: FaultReaction,
}

impl InputFault {
    /// Whether this input triggers the fault.
    pub fn is_triggered_by(&self, input: &MachineInput) -> bool {
        self.received.iter().all(|received| received.is_met_by(input))
    }
}

/// A condition on what the hub receives.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputCondition {
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
    Frame(#[serde(deserialize_with = "conditions")] &'static [FrameCondition]),
    /// An object with a member other than these.
    MemberBesides(#[serde(deserialize_with = "texts")] &'static [StaticText]),
    /// An object with a duplicate member.
    MemberTwice,
    /// Input that meets at least one of these conditions.
    Any(#[serde(deserialize_with = "several")] &'static [InputCondition]),
    /// Input that does not meet all of these conditions.
    Not(#[serde(deserialize_with = "several")] &'static [InputCondition]),
}

fn several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static [InputCondition], D::Error> {
    Vec::deserialize(deserializer).map(|all| &*all.leak())
}

impl InputCondition {
    fn is_met_by(self, input: &MachineInput) -> bool {
        match (self, input) {
            (InputCondition::Any(some), _) => some.iter().any(|received| received.is_met_by(input)),
            (InputCondition::Not(all), _) => !all.iter().all(|received| received.is_met_by(input)),
            (InputCondition::Binary, MachineInput::Binary { .. })
            | (InputCondition::Ping, MachineInput::Ping { .. }) => true,
            (InputCondition::Text(regex), MachineInput::Text { text, .. }) => regex.is_match(text),
            (InputCondition::NotJsonOver(length), MachineInput::Text { text, .. }) => {
                text.len() > length && serde_json::from_str::<IgnoredAny>(text).is_err()
            }
            (InputCondition::NestedOver(most), MachineInput::Text { text, .. }) => nesting_depth(text) > most,
            (InputCondition::CommasOver(most), MachineInput::Text { text, .. }) => {
                text.bytes().filter(|b| *b == b',').count() > most
            }
            (InputCondition::Frame(conditions), MachineInput::Text { text, .. }) => {
                conditions_hold(conditions, serde_json::from_str(text).ok().as_ref())
            }
            (InputCondition::MemberBesides(known), MachineInput::Text { text, .. }) => {
                let Ok(Value::Object(members)) = serde_json::from_str(text) else { return false };
                !members.keys().all(|name| known.contains(&name.as_str()))
            }
            (InputCondition::MemberTwice, MachineInput::Text { text, .. }) => {
                serde_json::from_str::<MapEntries<String, IgnoredAny>>(text).is_ok_and(|MapEntries(members)| {
                    let names: HashSet<_> = members.iter().map(|(name, _)| name).collect();
                    names.len() < members.len()
                })
            }
            _ => false,
        }
    }
}

/// Returns the largest number of brackets and braces that are open at once.
fn nesting_depth(text: &str) -> usize {
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
pub enum FaultReaction {
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
    QuoteOthers(#[serde(deserialize_with = "static_pointer")] StaticText),
    /// The first match of the pattern is read as this text.
    ReadAs(
        #[serde(deserialize_with = "pattern")] &'static Regex,
        #[serde(deserialize_with = "static_text")] StaticText,
    ),
    /// The first match of the pattern is read in lower case.
    ReadInSmallLetters(#[serde(deserialize_with = "pattern")] &'static Regex),
    /// Nothing more is sent on the connection that triggered the fault.
    Mute,
}

impl FaultReaction {
    /// Returns the text that is read instead of `text`, if the reaction replaces it.
    pub fn replaced_text(self, text: &str) -> Option<String> {
        let read = match self {
            FaultReaction::ReadAs(pattern, instead) => pattern.replace(text, instead),
            FaultReaction::ReadInSmallLetters(pattern) => {
                pattern.replace(text, |found: &Captures<'_>| found[0].to_lowercase())
            }
            _ => return None,
        };
        Some(read.into_owned())
    }
}

/// How much of a client's last message is kept to be quoted, in bytes.
const MAX_QUOTED_BYTES: usize = 200;

/// A state machine with a fault that particular input triggers.
pub struct InputFaultMachine {
    inner: Box<dyn Machine>,
    fault: InputFault,
    state: HubHealth,
    /// Accepted connections.
    open: BTreeSet<ConnectionId>,
    muted: BTreeSet<ConnectionId>,
    /// The beginning of each client's last message.
    last: BTreeMap<ConnectionId, String>,
    /// The delay of all outputs, and the delayed outputs by due time.
    later: Duration,
    waiting: VecDeque<(Duration, MachineOutput)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HubHealth {
    Healthy,
    Dead,
    Hanging,
}

impl InputFaultMachine {
    /// `inner` with this fault.
    pub fn new(inner: Box<dyn Machine>, fault: InputFault) -> InputFaultMachine {
        InputFaultMachine {
            inner,
            fault,
            state: HubHealth::Healthy,
            open: BTreeSet::new(),
            muted: BTreeSet::new(),
            last: BTreeMap::new(),
            later: Duration::ZERO,
            waiting: VecDeque::new(),
        }
    }

    fn release_delayed(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        while self.waiting.front().is_some_and(|(due, _)| *due <= now) {
            out.extend(self.waiting.pop_front().map(|(_, output)| output));
        }
    }

    /// Passes on the outputs of the inner machine, delayed if the hub has become slow.
    fn pass_outputs(&mut self, now: Duration, outputs: Vec<MachineOutput>, out: &mut Vec<MachineOutput>) {
        for output in outputs {
            match output {
                MachineOutput::Accept { conn, .. } => drop(self.open.insert(conn)),
                MachineOutput::Close { conn, .. } | MachineOutput::Drop { conn } => self.forget(conn),
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

    fn forget(&mut self, conn: ConnectionId) {
        self.open.remove(&conn);
        self.muted.remove(&conn);
        self.last.remove(&conn);
    }

    /// Applies the reaction to the outputs for the input that triggered it, and returns those to pass on.
    fn react(
        &mut self,
        conn: ConnectionId,
        outputs: Vec<MachineOutput>,
        out: &mut Vec<MachineOutput>,
    ) -> Vec<MachineOutput> {
        let answer = |output: &MachineOutput| matches!(output, MachineOutput::Text { .. }) && output.conn() == conn;
        match self.fault.then {
            FaultReaction::Crash => {
                self.state = HubHealth::Dead;
                out.extend(std::mem::take(&mut self.open).into_iter().map(|conn| MachineOutput::Drop { conn }));
                Vec::new()
            }
            FaultReaction::Hang => {
                self.state = HubHealth::Hanging;
                Vec::new()
            }
            FaultReaction::Mute => {
                self.muted.insert(conn);
                outputs
            }
            FaultReaction::SlowDown(by) => {
                self.later += by;
                outputs
            }
            FaultReaction::DropReplies => outputs.into_iter().filter(|output| !answer(output)).collect(),
            FaultReaction::BroadcastReplies => {
                let mut more = Vec::new();
                for output in outputs.iter().filter(|output| answer(output)) {
                    let MachineOutput::Text { text, .. } = output else { continue };
                    let others = self.open.iter().filter(|other| **other != conn);
                    more.extend(others.map(|other| MachineOutput::Text { conn: *other, text: text.clone() }));
                }
                outputs.into_iter().chain(more).collect()
            }
            FaultReaction::QuoteOthers(pointer) => {
                let others = self.last.iter().filter(|(other, _)| **other != conn);
                let quoted: Vec<&str> = others.map(|(_, text)| text.as_str()).collect();
                let quoted = quoted.join(" ");
                outputs
                    .into_iter()
                    .map(|output| if answer(&output) { quote_member(output, pointer, &quoted) } else { output })
                    .collect()
            }
            FaultReaction::ReadAs(..) | FaultReaction::ReadInSmallLetters(_) => outputs,
        }
    }
}

/// Replaces the member at `pointer` by a text that quotes `quoted`.
fn quote_member(output: MachineOutput, pointer: &str, quoted: &str) -> MachineOutput {
    let MachineOutput::Text { conn, text } = output else { return output };
    let edited = serde_json::from_str::<Value>(&text).ok().and_then(|mut value| {
        *value.pointer_mut(pointer)? = Value::String(format!("not understood; the last message received was {quoted}"));
        Some(Utf8Bytes::from(value.to_string()))
    });
    MachineOutput::Text { conn, text: edited.unwrap_or(text) }
}

impl Machine for InputFaultMachine {
    fn handle(&mut self, now: Duration, mut input: MachineInput, out: &mut Vec<MachineOutput>) {
        self.release_delayed(now, out);
        match (self.state, &input) {
            (HubHealth::Dead, MachineInput::Open { conn, .. }) => {
                return out.push(MachineOutput::Refuse { conn: *conn, status: 503, body: String::new() });
            }
            (HubHealth::Dead | HubHealth::Hanging, _) => return,
            (HubHealth::Healthy, MachineInput::Closed { conn }) => self.forget(*conn),
            (HubHealth::Healthy, _) => {}
        }
        let triggered = self.fault.is_triggered_by(&input);
        if let (true, MachineInput::Text { text, .. }) = (triggered, &mut input)
            && let Some(instead) = self.fault.then.replaced_text(text)
        {
            *text = instead.into();
        }
        let conn = input.conn();
        if let MachineInput::Text { conn, text } = &input {
            let cut = text.floor_char_boundary(MAX_QUOTED_BYTES);
            self.last.insert(*conn, text[..cut].to_owned());
        }
        let mut outputs = Vec::new();
        self.inner.handle(now, input, &mut outputs);
        if let (true, Some(conn)) = (triggered, conn) {
            outputs = self.react(conn, outputs, out);
        }
        self.pass_outputs(now, outputs, out);
    }

    fn deadline(&self) -> Option<Duration> {
        let waiting = self.waiting.front().map(|(due, _)| *due);
        let inner = if self.state == HubHealth::Healthy { self.inner.deadline() } else { None };
        [waiting, inner].into_iter().flatten().min()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        self.release_delayed(now, out);
        let mut outputs = Vec::new();
        let answer = self.inner.event(now, event, &mut outputs)?;
        if self.state == HubHealth::Healthy {
            self.pass_outputs(now, outputs, out);
        }
        Ok(answer)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        out.extend(std::mem::take(&mut self.waiting).into_iter().map(|(_, output)| output));
        if self.state == HubHealth::Healthy {
            self.inner.shutdown(now, out);
        }
    }
}
