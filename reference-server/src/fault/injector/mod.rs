//! A wrapper around a machine that changes its outputs according to a fault.
//!
//! Members that a change does not name keep their raw text.

mod rehearsal;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::fault::{Addressees, ChangeAction, ChangeSubject, FrameCondition, Occurrence, OutputCause, OutputChange};
use crate::machine::{ConnectionId, EventError, Machine, MachineInput, MachineOutput, json};

pub use self::rehearsal::RehearsalMachine;

/// How long a text waits for the next one, with which it is swapped.
pub(crate) const SWAP_TIME: Duration = Duration::from_millis(200);

/// A machine whose outputs are changed on their way out.
pub struct Injector {
    inner: Box<dyn Machine>,
    choice: ChangeMatcher,
    applied: Arc<AtomicU64>,
    /// Delayed outputs by due time, then order.
    delayed: BTreeMap<(Duration, u64), DelayedOutput>,
    order: u64,
    /// Open connections that have been sent a frame.
    greeted: BTreeSet<ConnectionId>,
}

/// A delayed output.
struct DelayedOutput {
    output: MachineOutput,
    /// Whether the output is sent after the next text to its connection (a swap).
    swapped: bool,
}

/// Selects the outputs to change.
pub(crate) struct ChangeMatcher {
    changes: Cow<'static, [OutputChange]>,
    /// The number of outputs that each change has matched.
    matched: Vec<u64>,
}

/// The input that led to an output, as far as conditions need it.
pub(crate) enum Trigger {
    Frame(ConnectionId, Option<Value>),
    Leaving,
    Other(Option<ConnectionId>),
}

impl Injector {
    /// `inner` with `changes` made to its outputs.
    pub fn new(inner: Box<dyn Machine>, changes: impl Into<Cow<'static, [OutputChange]>>) -> Injector {
        Injector::with_counter(inner, changes, Arc::default())
    }

    /// `inner` with `changes` made to its outputs; `applied` counts the outputs that were in fact changed.
    pub fn with_counter(
        inner: Box<dyn Machine>,
        changes: impl Into<Cow<'static, [OutputChange]>>,
        applied: Arc<AtomicU64>,
    ) -> Injector {
        Injector {
            inner,
            choice: ChangeMatcher::new(changes),
            applied,
            delayed: BTreeMap::new(),
            order: 0,
            greeted: BTreeSet::new(),
        }
    }

    fn release_delayed(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            out.push(entry.remove().output);
        }
    }

    /// Changes the outputs of the inner machine, and its outputs for closes that a change has added.
    fn change_outputs(
        &mut self,
        now: Duration,
        cause: &Trigger,
        mut outputs: Vec<MachineOutput>,
        out: &mut Vec<MachineOutput>,
    ) {
        let mut closed = Vec::new();
        for output in outputs.drain(..) {
            self.inject(now, cause, output, out, &mut closed);
        }
        // The inner machine sees a connection closed by the fault as a client that left.
        while let Some(conn) = closed.pop() {
            self.greeted.remove(&conn);
            self.inner.handle(now, MachineInput::Closed { conn }, &mut outputs);
            for output in outputs.drain(..) {
                self.inject(now, &Trigger::Leaving, output, out, &mut closed);
            }
        }
    }

    fn inject(
        &mut self,
        now: Duration,
        cause: &Trigger,
        output: MachineOutput,
        out: &mut Vec<MachineOutput>,
        closed: &mut Vec<ConnectionId>,
    ) {
        let conn = output.conn();
        match output {
            MachineOutput::Text { .. } | MachineOutput::Binary { .. } => {
                self.greeted.insert(conn);
            }
            MachineOutput::Close { .. } | MachineOutput::Drop { .. } | MachineOutput::Refuse { .. } => {
                self.greeted.remove(&conn);
            }
            MachineOutput::Accept { .. } | MachineOutput::Connect { .. } => {}
        }
        let overtaken = if matches!(output, MachineOutput::Text { .. }) { self.take_swapped(conn) } else { Vec::new() };
        match self.choice.next_action(cause, &output, &mut None) {
            None => out.push(output),
            // The two have been swapped already.
            Some(ChangeAction::Swap) if !overtaken.is_empty() => out.push(output),
            Some(act) => self.apply_action(now, cause, act, output, out, closed),
        }
        out.extend(overtaken);
    }

    /// Takes the delayed outputs that follow the next text to this connection.
    fn take_swapped(&mut self, conn: ConnectionId) -> Vec<MachineOutput> {
        let waits = |late: &DelayedOutput| late.swapped && late.output.conn() == conn;
        let keys: Vec<_> = self.delayed.iter().filter(|(_, late)| waits(late)).map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| self.delayed.remove(key)).map(|late| late.output).collect()
    }

    fn apply_action(
        &mut self,
        now: Duration,
        cause: &Trigger,
        act: ChangeAction,
        output: MachineOutput,
        out: &mut Vec<MachineOutput>,
        closed: &mut Vec<ConnectionId>,
    ) {
        let conn = output.conn();
        let mut applied = true;
        match act {
            ChangeAction::Drop => {}
            ChangeAction::Double => out.extend([output.clone(), output]),
            ChangeAction::Delay(by) => self.delay_output(now + by, DelayedOutput { output, swapped: false }),
            ChangeAction::Swap => self.delay_output(now + SWAP_TIME, DelayedOutput { output, swapped: true }),
            ChangeAction::Misroute => {
                let initiator = cause.conn();
                let other = self.greeted.iter().find(|other| **other != conn && Some(**other) != initiator);
                if let (Some(other), MachineOutput::Text { text, .. }) = (other, output) {
                    out.push(MachineOutput::Text { conn: *other, text });
                }
            }
            ChangeAction::AsBinary => out.push(match output {
                MachineOutput::Text { conn, text } => MachineOutput::Binary { conn, data: text.as_bytes().to_vec() },
                other => other,
            }),
            ChangeAction::Also(text) => out.extend([output, MachineOutput::Text { conn, text: (&*text).into() }]),
            ChangeAction::Before(text) => out.extend([MachineOutput::Text { conn, text: (&*text).into() }, output]),
            ChangeAction::Set(..)
            | ChangeAction::Fill(..)
            | ChangeAction::Remove(_)
            | ChangeAction::Retype(_)
            | ChangeAction::Alter(_)
            | ChangeAction::Rename(..) => {
                let edited = if let MachineOutput::Text { text, .. } = &output { edit_frame(text, &act) } else { None };
                applied = edited.is_some();
                out.push(edited.map_or(output, |text| MachineOutput::Text { conn, text: text.into() }));
            }
            ChangeAction::Code(code) => out.push(match output {
                MachineOutput::Close { conn, reason, .. } => MachineOutput::Close { conn, code, reason },
                other => other,
            }),
            ChangeAction::CloseInstead(code) => {
                out.push(MachineOutput::Close { conn, code, reason: String::new() });
                closed.push(conn);
            }
            ChangeAction::ThenClose(code) => {
                out.extend([output, MachineOutput::Close { conn, code, reason: String::new() }]);
                closed.push(conn);
            }
            ChangeAction::NoSubprotocol => out.push(MachineOutput::Accept { conn, subprotocol: None }),
        }
        self.applied.fetch_add(u64::from(applied), Ordering::Relaxed);
    }

    fn delay_output(&mut self, due: Duration, late: DelayedOutput) {
        self.order += 1;
        self.delayed.insert((due, self.order), late);
    }
}

impl ChangeMatcher {
    /// A choice that has matched no output yet.
    pub fn new(changes: impl Into<Cow<'static, [OutputChange]>>) -> ChangeMatcher {
        let changes = changes.into();
        ChangeMatcher { matched: vec![0; changes.len()], changes }
    }

    /// Returns the act for an output that `cause` has led to, if any.
    /// `parsed` is the frame, parsed once and only if a condition needs it.
    pub fn next_action(
        &mut self,
        cause: &Trigger,
        output: &MachineOutput,
        parsed: &mut Option<Option<Value>>,
    ) -> Option<ChangeAction> {
        for (change, matched) in self.changes.iter().zip(&mut self.matched) {
            let subject = match (&change.subject, output) {
                (ChangeSubject::Frame(conditions), MachineOutput::Text { text, .. }) => {
                    let value = parsed.get_or_insert_with(|| serde_json::from_str(text).ok());
                    conditions_hold(conditions, value.as_ref())
                }
                (ChangeSubject::Close(code), MachineOutput::Close { code: actual, .. }) => code == actual,
                (ChangeSubject::Accept, MachineOutput::Accept { .. }) => true,
                _ => false,
            };
            let to = match change.to {
                Addressees::Any => true,
                Addressees::Initiator => cause.conn() == Some(output.conn()),
                Addressees::Others => cause.conn() != Some(output.conn()),
            };
            if !(subject && to && cause.matches_cause(&change.cause)) {
                continue;
            }
            *matched += 1;
            let turn = match change.nth {
                Occurrence::Each => true,
                Occurrence::Only(n) => *matched == n,
                Occurrence::Every(n) => matched.is_multiple_of(n),
            };
            if turn {
                return Some(change.act.clone());
            }
        }
        None
    }
}

impl Machine for Injector {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        self.release_delayed(now, out);
        let parse = self.choice.changes.iter().any(|change| matches!(change.cause, OutputCause::Frame(_)));
        let cause = Trigger::from_input(&input, parse);
        if let MachineInput::Closed { conn } = &input {
            self.greeted.remove(conn);
        }
        let mut outputs = Vec::new();
        self.inner.handle(now, input, &mut outputs);
        self.change_outputs(now, &cause, outputs, out);
    }

    fn deadline(&self) -> Option<Duration> {
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        [delayed, self.inner.deadline()].into_iter().flatten().min()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        self.release_delayed(now, out);
        let mut outputs = Vec::new();
        let answer = self.inner.event(now, event, &mut outputs)?;
        self.change_outputs(now, &Trigger::Other(None), outputs, out);
        Ok(answer)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        let mut outputs = Vec::new();
        self.inner.shutdown(now, &mut outputs);
        self.change_outputs(now, &Trigger::Other(None), outputs, out);
    }
}

impl Trigger {
    fn from_input(input: &MachineInput, parse: bool) -> Trigger {
        match input {
            MachineInput::Text { conn, text } => {
                Trigger::Frame(*conn, if parse { serde_json::from_str(text).ok() } else { None })
            }
            MachineInput::Closed { .. } => Trigger::Leaving,
            other => Trigger::Other(other.conn()),
        }
    }

    fn conn(&self) -> Option<ConnectionId> {
        match self {
            Trigger::Frame(conn, _) => Some(*conn),
            Trigger::Leaving => None,
            Trigger::Other(conn) => *conn,
        }
    }

    fn matches_cause(&self, cause: &OutputCause) -> bool {
        match (cause, self) {
            (OutputCause::Any, _) | (OutputCause::Leaving, Trigger::Leaving) => true,
            (OutputCause::Frame(conditions), Trigger::Frame(_, value)) => conditions_hold(conditions, value.as_ref()),
            _ => false,
        }
    }
}

/// Whether a frame meets all conditions; one that is not JSON meets only the empty list.
pub fn conditions_hold(conditions: &[FrameCondition], frame: Option<&Value>) -> bool {
    conditions.iter().all(|condition| {
        frame.is_some_and(|frame| match condition {
            FrameCondition::Is(pointer, text) => frame.pointer(pointer).and_then(Value::as_str) == Some(&**text),
            FrameCondition::Equals(pointer, value) => frame.pointer(pointer) == Some(value),
            FrameCondition::Type(pointer, name) => frame.pointer(pointer).is_some_and(|value| has_type(value, name)),
            FrameCondition::Matches(pointer, regex) => {
                frame.pointer(pointer).and_then(Value::as_str).is_some_and(|text| regex.is_match(text))
            }
            FrameCondition::Not(conditions) => !conditions_hold(conditions, Some(frame)),
            FrameCondition::Has(pointer) => frame.pointer(pointer).is_some(),
            FrameCondition::Lacks(pointer) => frame.pointer(pointer).is_none(),
        })
    })
}

fn has_type(value: &Value, name: &str) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => name == "number" || (name == "integer" && !number.is_f64()),
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    }
}

/// Returns the edited frame, or `None` if there is nothing to edit.
pub(crate) fn edit_frame(text: &str, act: &ChangeAction) -> Option<String> {
    let (ChangeAction::Set(pointer, _)
    | ChangeAction::Fill(pointer, _)
    | ChangeAction::Remove(pointer)
    | ChangeAction::Retype(pointer)
    | ChangeAction::Alter(pointer)
    | ChangeAction::Rename(pointer, _)) = act
    else {
        return None;
    };
    let names: Vec<String> =
        pointer.strip_prefix('/')?.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect();
    let path: Vec<&str> = names.iter().map(String::as_str).collect();
    if let ([name], ChangeAction::Rename(_, new)) = (&*path, act) {
        let members = json::split_members(text).ok()?;
        let renamed: IndexMap<_, _> =
            members.iter().map(|(key, value)| (if key == name { &**new } else { &**key }, *value)).collect();
        return serde_json::to_string(&renamed).ok();
    }
    let (first, rest) = path.split_first()?;
    if text.trim_start().starts_with('[') {
        return edit_array(text, first, rest, act);
    }
    let mut members: IndexMap<String, Box<RawValue>> = serde_json::from_str(text).ok()?;
    if let ([], ChangeAction::Remove(_)) = (rest, act) {
        members.shift_remove(*first)?;
        return serde_json::to_string(&members).ok();
    }
    // Only the first member of the pointer is parsed; the others keep their text.
    let mut value: Value = match members.get(*first) {
        Some(raw) => serde_json::from_str(raw.get()).ok()?,
        None => Value::Null,
    };
    edit_value(&mut value, rest, act, members.contains_key(*first))?;
    members.insert((*first).to_owned(), serde_json::value::to_raw_value(&value).ok()?);
    serde_json::to_string(&members).ok()
}

/// Returns a frame that is an array, edited at `rest` in the element `first`, or in each element for `*`. The other
/// elements keep their text.
fn edit_array(text: &str, first: &str, rest: &[&str], act: &ChangeAction) -> Option<String> {
    let mut elements: Vec<Box<RawValue>> = serde_json::from_str(text).ok()?;
    let edited =
        if first == "*" { 0..elements.len() } else { element_index(first, elements.len()).map(|i| i..i + 1)? };
    if let ([], ChangeAction::Remove(_)) = (rest, act) {
        elements.drain(edited);
        return serde_json::to_string(&elements).ok();
    }
    let mut edits = 0;
    for element in &mut elements[edited] {
        let mut value: Value = serde_json::from_str(element.get()).ok()?;
        if edit_value(&mut value, rest, act, true).is_some() {
            *element = serde_json::value::to_raw_value(&value).ok()?;
            edits += 1;
        }
    }
    (edits > 0).then(|| serde_json::to_string(&elements).ok()).flatten()
}

/// Returns the index of an element of an array with `length` elements.
fn element_index(name: &str, length: usize) -> Option<usize> {
    name.parse().ok().filter(|index| *index < length)
}

/// Edits `value` at `path`; `None` if there is nothing to edit.
fn edit_value(value: &mut Value, path: &[&str], act: &ChangeAction, present: bool) -> Option<()> {
    let Some((name, rest)) = path.split_first() else {
        *value = match act {
            ChangeAction::Set(_, json) => serde_json::from_str(json).ok()?,
            ChangeAction::Fill(_, length) => Value::String("A".repeat(*length)),
            ChangeAction::Retype(_) if present => match value.take() {
                Value::String(text) => Value::Array(vec![Value::String(text)]),
                other => Value::String(other.to_string()),
            },
            ChangeAction::Alter(_) if present => different_value(value.take())?,
            _ => return None,
        };
        return Some(());
    };
    match value {
        Value::Array(elements) if *name == "*" => {
            let edited = elements.iter_mut().filter_map(|element| edit_value(element, rest, act, true)).count();
            (edited > 0).then_some(())
        }
        Value::Array(elements) => {
            let index = element_index(name, elements.len())?;
            match (rest, act) {
                ([], ChangeAction::Remove(_)) => {
                    elements.remove(index);
                    Some(())
                }
                _ => edit_value(&mut elements[index], rest, act, true),
            }
        }
        Value::Object(members) => match (rest, act) {
            ([], ChangeAction::Remove(_)) => members.shift_remove(*name).map(drop),
            ([], ChangeAction::Rename(_, new)) => {
                let value = members.shift_remove(*name)?;
                members.insert(new.clone().into_owned(), value);
                Some(())
            }
            _ => {
                let present = members.contains_key(*name);
                if !present && !matches!(act, ChangeAction::Set(..) | ChangeAction::Fill(..)) {
                    return None;
                }
                edit_value(members.entry(*name).or_insert(Value::Null), rest, act, present)
            }
        },
        _ => None,
    }
}

/// Returns a different value of the same JSON type, if there is one.
fn different_value(value: Value) -> Option<Value> {
    Some(match value {
        Value::Bool(value) => Value::Bool(!value),
        Value::String(text) => Value::String(format!("x{text}")),
        Value::Number(number) => match number.as_i64() {
            // -n - 1, which no integer overflows.
            Some(number) => Value::from(!number),
            None => Value::from(-number.as_f64()? - 1.0),
        },
        Value::Array(elements) if !elements.is_empty() => Value::Array(Vec::new()),
        Value::Object(members) if !members.is_empty() => Value::Object(Map::new()),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests;
