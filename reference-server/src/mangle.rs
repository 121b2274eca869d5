//! A machine between a machine and the world that changes what the inner one says, as a fault demands.
//!
//! Frames keep the raw text of every member that a change does not name, so a fault damages only what it
//! says it damages.

mod rehearsal;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fault::{Act, Cause, Change, Cond, Nth, Subject, To};
use crate::json;
use crate::machine::{Conn, EventError, Input, Machine, Output};

pub use self::rehearsal::Rehearsal;

/// A machine whose outputs are changed on their way out.
pub struct Mangled {
    inner: Box<dyn Machine>,
    matching: Matching,
    /// Delayed outputs by due time, then order.
    delayed: BTreeMap<(Duration, u64), Output>,
    order: u64,
    /// Connections that have been sent a frame and are still there.
    greeted: BTreeSet<Conn>,
}

/// What made the inner machine speak, as far as conditions ask.
enum Spoken {
    Frame(Conn, Option<Value>),
    Leaving,
    Other(Option<Conn>),
}

impl Mangled {
    /// `inner` with `changes` made to its outputs.
    pub fn new(inner: Box<dyn Machine>, changes: &'static [Change]) -> Mangled {
        Mangled {
            inner,
            matching: Matching::new(changes),
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
            out.push(entry.remove());
        }
    }

    /// Mangles what the inner machine said, and what it says to the closes that mangling adds.
    fn pass(&mut self, now: Duration, cause: &Spoken, mut said: Vec<Output>, out: &mut Vec<Output>) {
        let mut closed = Vec::new();
        for output in said.drain(..) {
            self.mangle(now, cause, output, out, &mut closed);
        }
        // What follows from a close of ours is the inner machine's honest reaction to a leaving client.
        while let Some(conn) = closed.pop() {
            self.greeted.remove(&conn);
            self.inner.handle(now, Input::Closed { conn }, &mut said);
            for output in said.drain(..) {
                self.mangle(now, &Spoken::Leaving, output, out, &mut closed);
            }
        }
    }

    fn mangle(&mut self, now: Duration, cause: &Spoken, output: Output, out: &mut Vec<Output>, closed: &mut Vec<Conn>) {
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
        let Some(act) = self.matching.act_on(cause, &output, &mut None) else {
            out.push(output);
            return;
        };
        match act {
            Act::Drop => {}
            Act::Double => out.extend([output.clone(), output]),
            Act::Delay(by) => {
                self.order += 1;
                self.delayed.insert((now + by, self.order), output);
            }
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
            Act::Set(..) | Act::Remove(_) | Act::Retype(_) | Act::Rename(..) => out.push(match output {
                Output::Text { conn, text } => Output::Text { conn, text: edit(&text, act).map_or(text, Into::into) },
                other => other,
            }),
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
    }
}

/// Which change acts on which output.
struct Matching {
    changes: &'static [Change],
    /// How many outputs each change has matched.
    matched: Vec<u64>,
}

impl Matching {
    fn new(changes: &'static [Change]) -> Matching {
        Matching { changes, matched: vec![0; changes.len()] }
    }

    /// `parsed` is the frame, read once and only if a change looks inside.
    fn act_on(&mut self, cause: &Spoken, output: &Output, parsed: &mut Option<Option<Value>>) -> Option<Act> {
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
                To::Anybody => true,
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

impl Machine for Mangled {
    fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        self.release(now, out);
        let looks_inside = self.matching.changes.iter().any(|change| matches!(change.cause, Cause::Frame(_)));
        let cause = Spoken::of(&input, looks_inside);
        if let Input::Closed { conn } = &input {
            self.greeted.remove(conn);
        }
        let mut said = Vec::new();
        self.inner.handle(now, input, &mut said);
        self.pass(now, &cause, said, out);
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
        let mut said = Vec::new();
        let answer = self.inner.event(now, event, &mut said)?;
        self.pass(now, &Spoken::Other(None), said, out);
        Ok(answer)
    }

    fn shutdown(&mut self, now: Duration, out: &mut Vec<Output>) {
        let mut said = Vec::new();
        self.inner.shutdown(now, &mut said);
        self.pass(now, &Spoken::Other(None), said, out);
    }
}

impl Spoken {
    fn of(input: &Input, looks_inside: bool) -> Spoken {
        match input {
            Input::Text { conn, text } => {
                Spoken::Frame(*conn, if looks_inside { serde_json::from_str(text).ok() } else { None })
            }
            Input::Closed { .. } => Spoken::Leaving,
            other => Spoken::Other(other.conn()),
        }
    }

    fn conn(&self) -> Option<Conn> {
        match self {
            Spoken::Frame(conn, _) => Some(*conn),
            Spoken::Leaving => None,
            Spoken::Other(conn) => *conn,
        }
    }

    fn fits(&self, cause: Cause) -> bool {
        match (cause, self) {
            (Cause::Any, _) | (Cause::Leaving, Spoken::Leaving) => true,
            (Cause::Frame(conditions), Spoken::Frame(_, value)) => holds(conditions, value.as_ref()),
            _ => false,
        }
    }
}

/// Whether all conditions hold of a frame; of one that is not JSON none but the empty list does.
fn holds(conditions: &[Cond], frame: Option<&Value>) -> bool {
    conditions.iter().all(|condition| {
        frame.is_some_and(|frame| match *condition {
            Cond::Is(pointer, text) => frame.pointer(pointer).and_then(Value::as_str) == Some(text),
            Cond::Has(pointer) => frame.pointer(pointer).is_some(),
            Cond::Lacks(pointer) => frame.pointer(pointer).is_none(),
        })
    })
}

/// The frame after an edit, or `None` where the edit finds nothing to change.
fn edit(text: &str, act: Act) -> Option<String> {
    let (Act::Set(pointer, _) | Act::Remove(pointer) | Act::Retype(pointer) | Act::Rename(pointer, _)) = act else {
        return None;
    };
    let path: Vec<&str> = pointer.strip_prefix('/')?.split('/').collect();
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
    // Only the member that the pointer enters is read as a value; the others keep their text.
    let mut value: Value = match members.get(*first) {
        Some(raw) => serde_json::from_str(raw.get()).ok()?,
        None => Value::Null,
    };
    change(&mut value, rest, act, members.contains_key(*first))?;
    members.insert((*first).to_owned(), serde_json::value::to_raw_value(&value).ok()?);
    serde_json::to_string(&members).ok()
}

/// Edits `value` at `path`; `None` where there is nothing to edit.
fn change(value: &mut Value, path: &[&str], act: Act, present: bool) -> Option<()> {
    let Some((name, rest)) = path.split_first() else {
        *value = match act {
            Act::Set(_, json) => serde_json::from_str(json).ok()?,
            Act::Retype(_) if present => match value.take() {
                Value::String(text) => Value::Array(vec![Value::String(text)]),
                other => Value::String(other.to_string()),
            },
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
                if !present && !matches!(act, Act::Set(..)) {
                    return None;
                }
                change(members.entry(*name).or_insert(Value::Null), rest, act, present)
            }
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::fault::{accept, close, frame};

    #[rstest]
    #[case(Act::Set("/a", "1"), r#"{"a":1,"big":9007199254740993.5}"#)]
    #[case(Act::Set("/new", "[]"), r#"{"a":{"b":"x"},"big":9007199254740993.5,"new":[]}"#)]
    #[case(Act::Set("/a/c", "null"), r#"{"a":{"b":"x","c":null},"big":9007199254740993.5}"#)]
    #[case(Act::Remove("/a"), r#"{"big":9007199254740993.5}"#)]
    #[case(Act::Remove("/a/b"), r#"{"a":{},"big":9007199254740993.5}"#)]
    #[case(Act::Remove("/nothing"), "same")]
    #[case(Act::Retype("/a/b"), r#"{"a":{"b":["x"]},"big":9007199254740993.5}"#)]
    #[case(Act::Retype("/a"), r#"{"a":"{\"b\":\"x\"}","big":9007199254740993.5}"#)]
    #[case(Act::Rename("/a", "z"), r#"{"z":{"b":"x"},"big":9007199254740993.5}"#)]
    #[case(Act::Rename("/a/b", "z"), r#"{"a":{"z":"x"},"big":9007199254740993.5}"#)]
    fn edits_touch_what_they_name(#[case] act: Act, #[case] want: &str) {
        let text = r#"{"a":{"b":"x"},"big":9007199254740993.5}"#;
        assert_eq!(edit(text, act).unwrap_or_else(|| "same".to_owned()), want);
    }

    #[test]
    fn a_star_is_every_element() {
        let edited = edit(r#"{"l":[{"a":1,"b":2},{"b":3},{"a":4}]}"#, Act::Remove("/l/*/a")).unwrap();
        assert_eq!(edited, r#"{"l":[{"b":2},{"b":3},{}]}"#);
    }

    /// Accepts everybody, sends every text on to all, closes with 4000 on binary, and greets nobody.
    #[derive(Default)]
    struct Echo(BTreeSet<Conn>);

    impl Machine for Echo {
        fn handle(&mut self, _: Duration, input: Input, out: &mut Vec<Output>) {
            match input {
                Input::Open { conn, .. } => {
                    self.0.insert(conn);
                    out.push(Output::Accept { conn, subprotocol: Some("echo".to_owned()) });
                }
                Input::Text { text, .. } => {
                    out.extend(self.0.iter().map(|&conn| Output::Text { conn, text: text.clone() }));
                }
                Input::Binary { conn, .. } => {
                    self.0.remove(&conn);
                    out.push(Output::Close { conn, code: 4000, reason: String::new() });
                }
                Input::Closed { conn } => {
                    if self.0.remove(&conn) {
                        let text = Utf8Bytes::from(format!("{{\"left\":{conn}}}"));
                        out.extend(self.0.iter().map(|&conn| Output::Text { conn, text: text.clone() }));
                    }
                }
                Input::Ping { .. } | Input::Connected { .. } | Input::ConnectFailed { .. } | Input::Tick => {}
            }
        }
        fn deadline(&self) -> Option<Duration> {
            None
        }
        fn state(&self) -> Value {
            json!(self.0)
        }
        fn event(&mut self, _: Duration, _: &Value, _: &mut Vec<Output>) -> Result<Value, EventError> {
            Err(EventError::Unsupported("echo"))
        }
    }

    use crate::machine::Utf8Bytes;

    /// What connections 1, 2 and 3 get when 1 says `{"t":"x"}` at time 0 and time reaches one second.
    fn heard(changes: &'static [Change]) -> Vec<String> {
        let mut machine = Mangled::new(Box::new(Echo::default()), changes);
        let mut out = Vec::new();
        for conn in 1..=3 {
            machine.handle(Duration::ZERO, Input::Open { conn, handshake: Default::default() }, &mut out);
        }
        out.clear();
        machine.handle(Duration::ZERO, Input::Text { conn: 1, text: r#"{"t":"x"}"#.into() }, &mut out);
        if machine.deadline().is_some_and(|due| due <= Duration::from_secs(1)) {
            machine.handle(Duration::from_secs(1), Input::Tick, &mut out);
        }
        out.into_iter()
            .map(|output| match output {
                Output::Text { conn, text } => format!("{conn} {text}"),
                Output::Close { conn, code, .. } => format!("{conn} close {code}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    const X: &[Cond] = &[Cond::Is("/t", "x")];
    const DROP: &[Change] = &[frame(X).to_initiator().does(Act::Drop)];
    const OTHERS: &[Change] = &[frame(X).to_others().does(Act::Drop)];
    const CAUSED: &[Change] = &[frame(&[]).after(&[Cond::Lacks("/t")]).does(Act::Drop)];
    const THIRD: &[Change] = &[frame(X).only(3).does(Act::Double)];
    const SECOND: &[Change] = &[frame(X).every(2).does(Act::Drop)];
    const LATE: &[Change] = &[frame(X).only(1).does(Act::Delay(Duration::from_millis(500)))];
    const CUT: &[Change] = &[frame(X).only(2).does(Act::CloseInstead(4009))];
    const STRAY: &[Change] = &[frame(X).only(2).does(Act::Misroute)];

    #[rstest]
    #[case::initiator(DROP, &["2 {\"t\":\"x\"}", "3 {\"t\":\"x\"}"])]
    #[case::others(OTHERS, &["1 {\"t\":\"x\"}"])]
    #[case::other_cause(CAUSED, &["1 {\"t\":\"x\"}", "2 {\"t\":\"x\"}", "3 {\"t\":\"x\"}"])]
    #[case::only(THIRD, &["1 {\"t\":\"x\"}", "2 {\"t\":\"x\"}", "3 {\"t\":\"x\"}", "3 {\"t\":\"x\"}"])]
    #[case::every(SECOND, &["1 {\"t\":\"x\"}", "3 {\"t\":\"x\"}"])]
    #[case::delay(LATE, &["2 {\"t\":\"x\"}", "3 {\"t\":\"x\"}", "1 {\"t\":\"x\"}"])]
    #[case::close(CUT, &["1 {\"t\":\"x\"}", "2 close 4009", "3 {\"t\":\"x\"}", "1 {\"left\":2}", "3 {\"left\":2}"])]
    #[case::misroute_to_nobody(STRAY, &["1 {\"t\":\"x\"}", "3 {\"t\":\"x\"}"])]
    fn changes_choose_their_outputs(#[case] changes: &'static [Change], #[case] want: &[&str]) {
        assert_eq!(heard(changes), want);
    }

    #[test]
    fn closes_and_upgrades_are_outputs_too() {
        const CHANGES: &[Change] = &[accept().does(Act::NoSubprotocol), close(4000).does(Act::Code(1000))];
        let mut machine = Mangled::new(Box::new(Echo::default()), CHANGES);
        let mut out = Vec::new();
        machine.handle(Duration::ZERO, Input::Open { conn: 1, handshake: Default::default() }, &mut out);
        machine.handle(Duration::ZERO, Input::Binary { conn: 1, data: Vec::new() }, &mut out);
        assert_eq!(
            out,
            [
                Output::Accept { conn: 1, subprotocol: None },
                Output::Close { conn: 1, code: 1000, reason: String::new() }
            ]
        );
    }
}
