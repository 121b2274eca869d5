//! A wrapper around a machine that changes its outputs according to a fault.
//!
//! Members that a change does not name keep their raw text.

mod rehearsal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::fault::{Act, Cause, Change, Cond, Nth, Subject, To};
use crate::machine::{Conn, EventError, Input, Machine, Output, json};

pub use self::rehearsal::Rehearsal;

/// How long a text waits for the next one, with which it is swapped.
pub(crate) const SWAP_TIME: Duration = Duration::from_millis(200);

/// A machine whose outputs are changed on their way out.
pub struct Injector {
    inner: Box<dyn Machine>,
    choice: Choice,
    applied: Arc<AtomicU64>,
    /// Delayed outputs by due time, then order.
    delayed: BTreeMap<(Duration, u64), Late>,
    order: u64,
    /// Open connections that have been sent a frame.
    greeted: BTreeSet<Conn>,
}

/// A delayed output.
struct Late {
    output: Output,
    /// Whether the output is sent after the next text to its connection (a swap).
    swapped: bool,
}

/// Selects the outputs to change.
pub(crate) struct Choice {
    changes: &'static [Change],
    /// The number of outputs that each change has matched.
    matched: Vec<u64>,
}

/// The input that led to an output, as far as conditions need it.
pub(crate) enum Trigger {
    Frame(Conn, Option<Value>),
    Leaving,
    Other(Option<Conn>),
}

impl Injector {
    /// `inner` with `changes` made to its outputs.
    pub fn new(inner: Box<dyn Machine>, changes: &'static [Change]) -> Injector {
        Injector::counting(inner, changes, Arc::default())
    }

    /// `inner` with `changes` made to its outputs; `applied` counts the outputs that were in fact changed.
    pub fn counting(inner: Box<dyn Machine>, changes: &'static [Change], applied: Arc<AtomicU64>) -> Injector {
        Injector {
            inner,
            choice: Choice::new(changes),
            applied,
            delayed: BTreeMap::new(),
            order: 0,
            greeted: BTreeSet::new(),
        }
    }

    fn release(&mut self, now: Duration, out: &mut Vec<Output>) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            out.push(entry.remove().output);
        }
    }

    /// Changes the outputs of the inner machine, and its outputs for closes that a change has added.
    fn pass(&mut self, now: Duration, cause: &Trigger, mut outputs: Vec<Output>, out: &mut Vec<Output>) {
        let mut closed = Vec::new();
        for output in outputs.drain(..) {
            self.inject(now, cause, output, out, &mut closed);
        }
        // The inner machine sees a connection closed by the fault as a client that left.
        while let Some(conn) = closed.pop() {
            self.greeted.remove(&conn);
            self.inner.handle(now, Input::Closed { conn }, &mut outputs);
            for output in outputs.drain(..) {
                self.inject(now, &Trigger::Leaving, output, out, &mut closed);
            }
        }
    }

    fn inject(
        &mut self,
        now: Duration,
        cause: &Trigger,
        output: Output,
        out: &mut Vec<Output>,
        closed: &mut Vec<Conn>,
    ) {
        let conn = output.conn();
        match output {
            Output::Text { .. } | Output::Binary { .. } => {
                self.greeted.insert(conn);
            }
            Output::Close { .. } | Output::Drop { .. } | Output::Refuse { .. } => {
                self.greeted.remove(&conn);
            }
            Output::Accept { .. } | Output::Connect { .. } => {}
        }
        let overtaken = if matches!(output, Output::Text { .. }) { self.swapped(conn) } else { Vec::new() };
        match self.choice.act_on(cause, &output, &mut None) {
            None => out.push(output),
            // The two have been swapped already.
            Some(Act::Swap) if !overtaken.is_empty() => out.push(output),
            Some(act) => self.act(now, cause, act, output, out, closed),
        }
        out.extend(overtaken);
    }

    /// Takes the delayed outputs that follow the next text to this connection.
    fn swapped(&mut self, conn: Conn) -> Vec<Output> {
        let waits = |late: &Late| late.swapped && late.output.conn() == conn;
        let keys: Vec<_> = self.delayed.iter().filter(|(_, late)| waits(late)).map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| self.delayed.remove(key)).map(|late| late.output).collect()
    }

    fn act(
        &mut self,
        now: Duration,
        cause: &Trigger,
        act: Act,
        output: Output,
        out: &mut Vec<Output>,
        closed: &mut Vec<Conn>,
    ) {
        let conn = output.conn();
        let mut applied = true;
        match act {
            Act::Drop => {}
            Act::Double => out.extend([output.clone(), output]),
            Act::Delay(by) => self.keep(now + by, Late { output, swapped: false }),
            Act::Swap => self.keep(now + SWAP_TIME, Late { output, swapped: true }),
            Act::Misroute => {
                let initiator = cause.conn();
                let other = self.greeted.iter().find(|other| **other != conn && Some(**other) != initiator);
                if let (Some(other), Output::Text { text, .. }) = (other, output) {
                    out.push(Output::Text { conn: *other, text });
                }
            }
            Act::AsBinary => out.push(match output {
                Output::Text { conn, text } => Output::Binary { conn, data: text.as_bytes().to_vec() },
                other => other,
            }),
            Act::Also(text) => out.extend([output, Output::Text { conn, text: text.into() }]),
            Act::Before(text) => out.extend([Output::Text { conn, text: text.into() }, output]),
            Act::Set(..) | Act::Fill(..) | Act::Remove(_) | Act::Retype(_) | Act::Alter(_) | Act::Rename(..) => {
                let edited = if let Output::Text { text, .. } = &output { edit(text, act) } else { None };
                applied = edited.is_some();
                out.push(edited.map_or(output, |text| Output::Text { conn, text: text.into() }));
            }
            Act::Code(code) => out.push(match output {
                Output::Close { conn, reason, .. } => Output::Close { conn, code, reason },
                other => other,
            }),
            Act::CloseInstead(code) => {
                out.push(Output::Close { conn, code, reason: String::new() });
                closed.push(conn);
            }
            Act::ThenClose(code) => {
                out.extend([output, Output::Close { conn, code, reason: String::new() }]);
                closed.push(conn);
            }
            Act::NoSubprotocol => out.push(Output::Accept { conn, subprotocol: None }),
        }
        self.applied.fetch_add(u64::from(applied), Ordering::Relaxed);
    }

    fn keep(&mut self, due: Duration, late: Late) {
        self.order += 1;
        self.delayed.insert((due, self.order), late);
    }
}

impl Choice {
    /// A choice that has matched no output yet.
    pub fn new(changes: &'static [Change]) -> Choice {
        Choice { changes, matched: vec![0; changes.len()] }
    }

    /// Returns the act for an output that `cause` has led to, if any.
    /// `parsed` is the frame, parsed once and only if a condition needs it.
    pub fn act_on(&mut self, cause: &Trigger, output: &Output, parsed: &mut Option<Option<Value>>) -> Option<Act> {
        for (change, matched) in self.changes.iter().zip(&mut self.matched) {
            let subject = match (change.subject, output) {
                (Subject::Frame(conditions), Output::Text { text, .. }) => {
                    let value = parsed.get_or_insert_with(|| serde_json::from_str(text).ok());
                    holds(conditions, value.as_ref())
                }
                (Subject::Close(code), Output::Close { code: actual, .. }) => code == *actual,
                (Subject::Accept, Output::Accept { .. }) => true,
                _ => false,
            };
            let to = match change.to {
                To::Any => true,
                To::Initiator => cause.conn() == Some(output.conn()),
                To::Others => cause.conn() != Some(output.conn()),
            };
            if !(subject && to && cause.fits(change.cause)) {
                continue;
            }
            *matched += 1;
            let turn = match change.nth {
                Nth::Each => true,
                Nth::Only(n) => *matched == n,
                Nth::Every(n) => matched.is_multiple_of(n),
            };
            if turn {
                return Some(change.act);
            }
        }
        None
    }
}

impl Machine for Injector {
    fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        self.release(now, out);
        let parse = self.choice.changes.iter().any(|change| matches!(change.cause, Cause::Frame(_)));
        let cause = Trigger::of(&input, parse);
        if let Input::Closed { conn } = &input {
            self.greeted.remove(conn);
        }
        let mut outputs = Vec::new();
        self.inner.handle(now, input, &mut outputs);
        self.pass(now, &cause, outputs, out);
    }

    fn deadline(&self) -> Option<Duration> {
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        [delayed, self.inner.deadline()].into_iter().flatten().min()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<Output>) -> Result<Value, EventError> {
        self.release(now, out);
        let mut outputs = Vec::new();
        let answer = self.inner.event(now, event, &mut outputs)?;
        self.pass(now, &Trigger::Other(None), outputs, out);
        Ok(answer)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<Output>) {
        let mut outputs = Vec::new();
        self.inner.shutdown(now, &mut outputs);
        self.pass(now, &Trigger::Other(None), outputs, out);
    }
}

impl Trigger {
    fn of(input: &Input, parse: bool) -> Trigger {
        match input {
            Input::Text { conn, text } => {
                Trigger::Frame(*conn, if parse { serde_json::from_str(text).ok() } else { None })
            }
            Input::Closed { .. } => Trigger::Leaving,
            other => Trigger::Other(other.conn()),
        }
    }

    fn conn(&self) -> Option<Conn> {
        match self {
            Trigger::Frame(conn, _) => Some(*conn),
            Trigger::Leaving => None,
            Trigger::Other(conn) => *conn,
        }
    }

    fn fits(&self, cause: Cause) -> bool {
        match (cause, self) {
            (Cause::Any, _) | (Cause::Leaving, Trigger::Leaving) => true,
            (Cause::Frame(conditions), Trigger::Frame(_, value)) => holds(conditions, value.as_ref()),
            _ => false,
        }
    }
}

/// Whether a frame meets all conditions; one that is not JSON meets only the empty list.
pub fn holds(conditions: &[Cond], frame: Option<&Value>) -> bool {
    conditions.iter().all(|condition| {
        frame.is_some_and(|frame| match *condition {
            Cond::Is(pointer, text) => frame.pointer(pointer).and_then(Value::as_str) == Some(text),
            Cond::Equals(pointer, value) => frame.pointer(pointer) == Some(value),
            Cond::Type(pointer, name) => frame.pointer(pointer).is_some_and(|value| has_type(value, name)),
            Cond::Matches(pointer, regex) => {
                frame.pointer(pointer).and_then(Value::as_str).is_some_and(|text| regex.is_match(text))
            }
            Cond::Not(conditions) => !holds(conditions, Some(frame)),
            Cond::Has(pointer) => frame.pointer(pointer).is_some(),
            Cond::Lacks(pointer) => frame.pointer(pointer).is_none(),
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
pub(crate) fn edit(text: &str, act: Act) -> Option<String> {
    let (Act::Set(pointer, _)
    | Act::Fill(pointer, _)
    | Act::Remove(pointer)
    | Act::Retype(pointer)
    | Act::Alter(pointer)
    | Act::Rename(pointer, _)) = act
    else {
        return None;
    };
    let names: Vec<String> =
        pointer.strip_prefix('/')?.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect();
    let path: Vec<&str> = names.iter().map(String::as_str).collect();
    if let ([name], Act::Rename(_, new)) = (&*path, act) {
        let members = json::members(text).ok()?;
        let renamed: IndexMap<_, _> =
            members.iter().map(|(key, value)| (if key == name { new } else { key }, *value)).collect();
        return serde_json::to_string(&renamed).ok();
    }
    let mut members: IndexMap<String, Box<RawValue>> = serde_json::from_str(text).ok()?;
    let (first, rest) = path.split_first()?;
    if let ([], Act::Remove(_)) = (rest, act) {
        members.shift_remove(*first)?;
        return serde_json::to_string(&members).ok();
    }
    // Only the first member of the pointer is parsed; the others keep their text.
    let mut value: Value = match members.get(*first) {
        Some(raw) => serde_json::from_str(raw.get()).ok()?,
        None => Value::Null,
    };
    change(&mut value, rest, act, members.contains_key(*first))?;
    members.insert((*first).to_owned(), serde_json::value::to_raw_value(&value).ok()?);
    serde_json::to_string(&members).ok()
}

/// Edits `value` at `path`; `None` if there is nothing to edit.
fn change(value: &mut Value, path: &[&str], act: Act, present: bool) -> Option<()> {
    let Some((name, rest)) = path.split_first() else {
        *value = match act {
            Act::Set(_, json) => serde_json::from_str(json).ok()?,
            Act::Fill(_, length) => Value::String("A".repeat(length)),
            Act::Retype(_) if present => match value.take() {
                Value::String(text) => Value::Array(vec![Value::String(text)]),
                other => Value::String(other.to_string()),
            },
            Act::Alter(_) if present => another(value.take())?,
            _ => return None,
        };
        return Some(());
    };
    match value {
        Value::Array(elements) if *name == "*" => {
            let edited = elements.iter_mut().filter_map(|element| change(element, rest, act, true)).count();
            (edited > 0).then_some(())
        }
        Value::Object(members) => match (rest, act) {
            ([], Act::Remove(_)) => members.shift_remove(*name).map(drop),
            ([], Act::Rename(_, new)) => {
                let value = members.shift_remove(*name)?;
                members.insert(new.to_owned(), value);
                Some(())
            }
            _ => {
                let present = members.contains_key(*name);
                if !present && !matches!(act, Act::Set(..) | Act::Fill(..)) {
                    return None;
                }
                change(members.entry(*name).or_insert(Value::Null), rest, act, present)
            }
        },
        _ => None,
    }
}

/// Returns a different value of the same JSON type, if there is one.
fn another(value: Value) -> Option<Value> {
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
