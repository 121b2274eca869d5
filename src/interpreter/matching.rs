//! Which frame of an inbox a step wants.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Conversation;
use super::actor::{Actor, Entry, EntryKind};
use crate::protocol::{Pack, Way};
use crate::scenario::model::{ActorId, MessageName, Pattern, Ready};
use crate::scenario::template::Names;
use crate::scenario::value::EvalError;
use crate::syntax::matcher::{Difference, Matcher};

/// A pattern with its holes filled.
pub fn build(pattern: &Pattern, names: &dyn Names) -> Result<Ready, EvalError> {
    let value = pattern.template.eval(names)?;
    if pattern.schema {
        crate::syntax::json_schema::validator(&value)
            .map(|validator| Ready::Schema(Box::new(validator)))
            .map_err(EvalError::Failed)
    } else {
        let compiled = Matcher::compile(&value).map(|matcher| Ready::Matcher(Arc::new(matcher)));
        compiled.map_err(|bad| EvalError::Failed(format!("`{}`: {bad}", bad.key)))
    }
}

/// A message or a control frame, with what must be true of it to be the one.
pub struct Wanted {
    kind: Kind,
    matcher: Option<Arc<Matcher>>,
    /// Only frames behind this position.
    after: u64,
    /// Only frames that had come by then: the end of a window that was listened to, however late we look.
    until: Option<Duration>,
    /// General names do not see the messages on the `ignore` list.
    ignoring: bool,
    /// Frames up to this position were looked at and did not fit; they never will.
    scanned: u64,
    /// Frames that it might have wanted went before it could look.
    missed: bool,
}

enum Kind {
    Any,
    Message(usize),
    Control { pong: bool },
}

impl Wanted {
    pub fn message(
        pack: &Pack,
        message: &MessageName,
        pattern: Option<&Pattern>,
        after: u64,
        names: &dyn Names,
    ) -> Result<Self, EvalError> {
        let kind = match message {
            MessageName::Any => Kind::Any,
            MessageName::Named(name) => Self::named(pack, name)?,
            MessageName::Computed(template) => match template.eval(names)? {
                Value::String(name) if name == "any" => Kind::Any,
                Value::String(name) => Self::named(pack, &name)?,
                other => return Err(EvalError::Failed(format!("{other} is not the name of a message"))),
            },
        };
        let matcher = matcher(pattern, names)?;
        Ok(Self { kind, matcher, after, until: None, ignoring: false, scanned: 0, missed: false })
    }

    pub fn control(pong: bool, pattern: Option<&Pattern>, after: u64, names: &dyn Names) -> Result<Self, EvalError> {
        let (kind, matcher) = (Kind::Control { pong }, matcher(pattern, names)?);
        Ok(Self { kind, matcher, after, until: None, ignoring: false, scanned: 0, missed: false })
    }

    /// In whose inbox it will look.
    pub fn of(mut self, actor: &Actor) -> Self {
        self.missed = actor.lost > self.after;
        self
    }

    pub fn until(mut self, end: Duration) -> Self {
        self.until = Some(end);
        self
    }

    pub fn whenever(&mut self) {
        self.until = None;
    }

    /// Why it cannot be known that nothing of the kind has come, if it cannot: frames went unseen, or one that is not decoded
    /// may have been it. (No control frame is.)
    pub fn blind(&self, actor: &Actor, pack: &Pack) -> Option<String> {
        if self.missed {
            return Some("cannot be told: more frames came than are kept here".to_owned());
        }
        let in_question = |entry: &&Entry| {
            !entry.claimed
                && entry.wire.sequence > self.after
                && self.until.is_none_or(|end| entry.wire.at <= end)
                && match self.kind {
                    Kind::Any => true,
                    Kind::Message(index) => !entry.is_not(&pack.messages[index]),
                    Kind::Control { .. } => false,
                }
        };
        actor.inbox.iter().filter(in_question).find_map(Entry::unread)
    }

    pub fn ignoring(mut self) -> Self {
        self.ignoring = true;
        self
    }

    fn named(pack: &Pack, name: &str) -> Result<Kind, EvalError> {
        let index = pack.messages.iter().position(|message| message.name == name);
        index.map(Kind::Message).ok_or_else(|| EvalError::Failed(format!("{} has no message `{name}`", pack.name)))
    }

    /// The oldest frame of an inbox that fits, with its place. What was looked at once is not looked at again, so that a
    /// flood of other frames costs no more than its length.
    pub fn find(&mut self, inbox: &VecDeque<Entry>, pack: &Pack, ignore: &[String]) -> Option<(usize, Value)> {
        let start = inbox.partition_point(|entry| entry.wire.sequence <= self.scanned.max(self.after));
        for (place, entry) in inbox.iter().enumerate().skip(start) {
            if self.until.is_some_and(|end| entry.wire.at > end) {
                break;
            }
            if let Some(value) = self.candidate(entry, pack, ignore)
                && self.matcher.as_ref().is_none_or(|matcher| matcher.fits(&value))
            {
                return Some((place, value.into_owned()));
            }
            self.scanned = entry.wire.sequence;
        }
        None
    }

    /// How a frame differs that is the message, but that `where` does not fit.
    fn near(&self, entry: &Entry, pack: &Pack, ignore: &[String]) -> Option<Difference> {
        self.matcher.as_ref()?.difference(&*self.candidate(entry, pack, ignore)?)
    }

    /// The value of a frame that is of the right kind, whatever `where` says of it.
    fn candidate<'a>(&self, entry: &'a Entry, pack: &Pack, ignore: &[String]) -> Option<Cow<'a, Value>> {
        if entry.claimed || entry.wire.sequence <= self.after {
            return None;
        }
        let text = || Cow::Owned(Value::String(entry.wire.text.to_string()));
        match (&self.kind, &entry.kind) {
            (Kind::Control { pong }, EntryKind::Control { pong: found, data }) if pong == found => {
                let hex = crate::scenario::functions::hex(data);
                let (opcode, text, size) = (entry.wire.opcode, &*entry.wire.text, entry.wire.size);
                Some(Cow::Owned(serde_json::json!({ "opcode": opcode, "data": text, "hex": hex, "size": size })))
            }
            (Kind::Any, EntryKind::Message { json, message }) => {
                if self.ignoring && message.is_some_and(|index| ignore.contains(&pack.messages[index].name)) {
                    return None;
                }
                Some(json.as_ref().map_or_else(text, Cow::Borrowed))
            }
            // It may be one of those on the list.
            (Kind::Any, EntryKind::Undecodable { .. }) if self.ignoring && !ignore.is_empty() => None,
            (Kind::Any, EntryKind::Undecodable { .. }) => Some(text()),
            (Kind::Message(index), EntryKind::Message { json: Some(json), message }) => {
                let wanted = &pack.messages[*index];
                let is = wanted.is(json, Way::FromHub) || wanted.is(json, Way::ToHub) && !wanted.directions.from_hub;
                let special =
                    message.is_some_and(|found| found != *index && ignore.contains(&pack.messages[found].name));
                (is && !(self.ignoring && special)).then_some(Cow::Borrowed(json))
            }
            _ => None,
        }
    }
}

fn matcher(pattern: Option<&Pattern>, names: &dyn Names) -> Result<Option<Arc<Matcher>>, EvalError> {
    let no_matcher = || Err(EvalError::Failed("a schema where a matcher belongs".to_owned()));
    let Some(pattern) = pattern else { return Ok(None) };
    match &pattern.ready {
        Some(Ready::Matcher(matcher)) => Ok(Some(Arc::clone(matcher))),
        Some(Ready::Schema(_)) => no_matcher(),
        None => match build(pattern, names)? {
            Ready::Matcher(matcher) => Ok(Some(matcher)),
            Ready::Schema(_) => no_matcher(),
        },
    }
}

impl Conversation {
    /// What came instead, for a report: near misses first, else the frames nobody wanted, else the state of the connection.
    pub(super) fn instead(&self, id: ActorId, wanted: &Wanted) -> String {
        let actor = &self.actors[id];
        let pack = &self.program.pack;
        let near = actor.inbox.iter().rev().find_map(|entry| {
            let difference = wanted.near(entry, pack, &self.program.shared.ignore)?;
            let (text, difference) = (&entry.wire.text, difference.to_string());
            Some(format!("{} (differs at {})", self.shown(text, 300), self.shown(&difference, 300)))
        });
        if let Some(near) = near {
            return near;
        }
        let others: Vec<String> = actor
            .inbox
            .iter()
            .filter(|entry| !entry.claimed && entry.wire.sequence > wanted.after)
            .filter_map(|entry| match &entry.kind {
                EntryKind::Message { .. } | EntryKind::Undecodable { .. } => Some(self.shown(&entry.wire.text, 200)),
                EntryKind::Control { .. } => None,
            })
            .collect();
        let state = match &actor.link {
            super::Link::Ended(end) => end.describe(),
            super::Link::Open { .. } => "connection still open".to_owned(),
            super::Link::Idle => "not connected".to_owned(),
            super::Link::Connecting => "still connecting".to_owned(),
            super::Link::Refused { text, .. } => text.clone(),
            super::Link::Unreachable { reason } => reason.clone(),
        };
        match others.len() {
            0 => format!("nothing, {state}"),
            1..=3 => format!("{} ({state})", others.join(" and ")),
            more => format!("{} and {} more frames ({state})", others[..2].join(" and "), more - 2),
        }
    }
}
