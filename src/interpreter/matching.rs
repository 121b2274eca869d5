//! Finds the frame that a step expects in an inbox.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Conversation;
use super::actor::{ActorState, ConnectionState, InboxFrame, InboxFrameKind};
use super::promptness::{ANY, CONTROL};
use crate::protocol::{FrameDirection, Pack};
use crate::scenario::model::{ActorId, CompiledPattern, MatchPattern, MessageName};
use crate::scenario::template::EvalContext;
use crate::scenario::value::{EvalError, Provenance, Traced};
use crate::syntax::matcher::{MatchDifference, Matcher};

/// Evaluates the expressions of a pattern and compiles it.
pub fn compile_pattern(pattern: &MatchPattern, names: &dyn EvalContext) -> Result<Traced<CompiledPattern>, EvalError> {
    let Traced { value, provenance } = pattern.template.eval_traced(names)?;
    let compiled = if pattern.schema {
        crate::syntax::json_schema::build_validator(&value)
            .map(|validator| CompiledPattern::Schema(Box::new(validator)))
            .map_err(EvalError::Failed)?
    } else {
        let compiled = Matcher::compile(&value).map(|matcher| CompiledPattern::Matcher(Arc::new(matcher)));
        compiled.map_err(|error| EvalError::Failed(format!("`{}`: {error}", error.key)))?
    };
    Ok(Traced { value: compiled, provenance })
}

/// Why nothing can be decided after frames were dropped.
pub const FRAMES_DROPPED: &str = "cannot be decided: more frames were received than hubproof keeps";

/// An expected message or control frame, with its conditions.
pub struct ExpectedFrame {
    kind: ExpectedFrameKind,
    matcher: Option<Arc<Matcher>>,
    /// Whether the message's name and the conditions rest only on observed values.
    provenance: Provenance,
    /// Only frames after this position in the conversation match.
    after: u64,
    /// Only frames received by this time match: the end of the window, even if the timer fires late.
    until: Option<Duration>,
    /// Whether `any` skips the messages on the `ignore` list.
    ignoring: bool,
    /// Frames up to this position have been compared and do not match.
    scanned: u64,
    /// Whether frames that might match were dropped before they were compared.
    missed: bool,
    /// Whether a frame matched only by members that it lacks and that a deviation assumes.
    matched_by: Provenance,
}

enum ExpectedFrameKind {
    Any,
    Message(usize),
    Control { pong: bool },
}

impl ExpectedFrame {
    pub fn message(
        pack: &Pack,
        message: &MessageName,
        pattern: Option<&MatchPattern>,
        after: u64,
        names: &dyn EvalContext,
    ) -> Result<Self, EvalError> {
        let kind = match message {
            MessageName::Any => Traced::observed(ExpectedFrameKind::Any),
            MessageName::Named(name) => Traced::observed(Self::kind_by_name(pack, name)?),
            MessageName::Computed(template) => {
                let Traced { value, provenance } = template.eval_traced(names)?;
                let value = match value {
                    Value::String(name) if name == "any" => ExpectedFrameKind::Any,
                    Value::String(name) => Self::kind_by_name(pack, &name)?,
                    other => return Err(EvalError::Failed(format!("{other} is not the name of a message"))),
                };
                Traced { value, provenance }
            }
        };
        Ok(Self::new(kind, compile_matcher(pattern, names)?, after))
    }

    pub fn control(
        pong: bool,
        pattern: Option<&MatchPattern>,
        after: u64,
        names: &dyn EvalContext,
    ) -> Result<Self, EvalError> {
        let kind = Traced::observed(ExpectedFrameKind::Control { pong });
        Ok(Self::new(kind, compile_matcher(pattern, names)?, after))
    }

    fn new(kind: Traced<ExpectedFrameKind>, matcher: Option<Traced<Arc<Matcher>>>, after: u64) -> Self {
        let provenance = matcher.as_ref().map_or(kind.provenance, |matcher| kind.provenance.join(matcher.provenance));
        let (kind, matcher) = (kind.value, matcher.map(|matcher| matcher.value));
        let matched_by = Provenance::Observed;
        Self { kind, matcher, provenance, after, until: None, ignoring: false, scanned: 0, missed: false, matched_by }
    }

    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// Returns whether the frames found so far matched by observed members only.
    pub fn matched_by(&self) -> Provenance {
        self.matched_by
    }

    /// Sets the actor whose inbox is searched.
    pub fn for_actor(mut self, actor: &ActorState) -> Self {
        self.missed = actor.latest.inbox.dropped_up_to > self.after;
        self
    }

    pub fn until(mut self, end: Duration) -> Self {
        self.until = Some(end);
        self
    }

    pub fn without_end(&mut self) {
        self.until = None;
    }

    /// Returns the expected frame as findings name it: `hello`, `matching hello` if it has conditions, `message` for
    /// any.
    pub fn name(&self, pack: &Pack) -> String {
        let name = match self.kind {
            ExpectedFrameKind::Any => "message",
            ExpectedFrameKind::Message(index) => &pack.messages[index].name,
            ExpectedFrameKind::Control { pong: true } => "pong",
            ExpectedFrameKind::Control { pong: false } => "ping",
        };
        if self.matcher.is_some() { format!("matching {name}") } else { name.to_owned() }
    }

    /// Whether this hub message may be the expected frame. Only conditions on members that identify a message can
    /// exclude it.
    pub fn may_be(&self, number: usize, pack: &Pack) -> bool {
        let message = &pack.messages[number];
        let example = message.starting_value();
        let is_kind = match self.kind {
            ExpectedFrameKind::Any => true,
            ExpectedFrameKind::Message(index) => {
                pack.is_message(index, Some(number), &example, FrameDirection::FromHub)
            }
            ExpectedFrameKind::Control { .. } => false,
        };
        let places = message.matcher.places();
        is_kind && !self.matcher.as_ref().is_some_and(|matcher| matcher.excludes(&example, &places))
    }

    /// Returns the name under which waits for it are counted.
    pub fn awaited_name<'p>(&self, pack: &'p Pack) -> &'p str {
        match self.kind {
            ExpectedFrameKind::Any => ANY,
            ExpectedFrameKind::Message(index) => &pack.messages[index].name,
            ExpectedFrameKind::Control { .. } => CONTROL,
        }
    }

    /// Returns why it is unknown whether the expected frame was received: frames were dropped, or the expected frame
    /// may be one that could not be decoded. `None` if it is known.
    pub fn undecidable_reason(&self, actor: &ActorState, pack: &Pack) -> Option<String> {
        if self.missed {
            return Some(FRAMES_DROPPED.to_owned());
        }
        let in_question = |entry: &&InboxFrame| {
            !entry.claimed
                && entry.wire.sequence > self.after
                && self.until.is_none_or(|end| entry.wire.at <= end)
                && match self.kind {
                    ExpectedFrameKind::Any => true,
                    ExpectedFrameKind::Message(index) => !entry.cannot_be(&pack.messages[index]),
                    ExpectedFrameKind::Control { .. } => false,
                }
        };
        actor.latest.inbox.frames.iter().filter(in_question).find_map(InboxFrame::undecodable_reason)
    }

    pub fn ignoring(mut self) -> Self {
        self.ignoring = true;
        self
    }

    fn kind_by_name(pack: &Pack, name: &str) -> Result<ExpectedFrameKind, EvalError> {
        pack.message_index(name)
            .map(ExpectedFrameKind::Message)
            .ok_or_else(|| EvalError::Failed(format!("{} has no message `{name}`", pack.name)))
    }

    /// Returns the index and value of the oldest frame of an inbox that matches. No frame is compared twice, so a flood
    /// of other frames costs only linear time.
    pub fn find(&mut self, inbox: &VecDeque<InboxFrame>, pack: &Pack, ignore: &[String]) -> Option<(usize, Value)> {
        let start = inbox.partition_point(|entry| entry.wire.sequence <= self.scanned.max(self.after));
        for (place, entry) in inbox.iter().enumerate().skip(start) {
            if self.until.is_some_and(|end| entry.wire.at > end) {
                break;
            }
            if let Some(value) = self.candidate_value(entry, pack, ignore)
                && self.matcher.as_ref().is_none_or(|matcher| matcher.fits(&value))
            {
                let observed = entry.wire.observed_part(&value);
                let assumed = self.matcher.as_ref().zip(observed).filter(|(matcher, part)| !matcher.fits(part));
                if let (Some(_), Some((_, index))) = (assumed, entry.wire.assumed_places.first()) {
                    self.matched_by = Provenance::assumed(*index);
                }
                return Some((place, value.into_owned()));
            }
            self.scanned = entry.wire.sequence;
        }
        None
    }

    /// Whether a frame matches.
    pub fn fits(&self, entry: &InboxFrame, pack: &Pack, ignore: &[String]) -> bool {
        let value = self.candidate_value(entry, pack, ignore);
        value.is_some_and(|value| self.matcher.as_ref().is_none_or(|matcher| matcher.fits(&value)))
    }

    /// Returns whether a frame of the expected kind that is only assumed may be the one that did not match.
    pub fn provenance_of_absence(&self, actor: &ActorState, pack: &Pack, ignore: &[String]) -> Provenance {
        let mut assumed = actor.latest.inbox.frames.iter().filter(|entry| entry.wire.is_assumed());
        let candidate = assumed.find(|entry| self.candidate_value(entry, pack, ignore).is_some());
        candidate.map_or(Provenance::Observed, |entry| entry.wire.provenance)
    }

    /// Whether any message is expected, so that the order of messages decides which.
    pub fn is_any(&self) -> bool {
        matches!(self.kind, ExpectedFrameKind::Any)
    }

    /// Returns how a frame of the expected kind differs from `where`.
    fn near_miss(&self, entry: &InboxFrame, pack: &Pack, ignore: &[String]) -> Option<MatchDifference> {
        self.matcher.as_ref()?.difference(&*self.candidate_value(entry, pack, ignore)?)
    }

    /// Returns the value of a frame of the expected kind, whether `where` matches or not.
    fn candidate_value<'a>(&self, entry: &'a InboxFrame, pack: &Pack, ignore: &[String]) -> Option<Cow<'a, Value>> {
        if entry.claimed || entry.wire.sequence <= self.after {
            return None;
        }
        // A frame that is only assumed does not break silence.
        if self.ignoring && entry.wire.is_assumed() {
            return None;
        }
        let text = || Cow::Owned(Value::String(entry.wire.text.to_string()));
        match (&self.kind, &entry.kind) {
            (ExpectedFrameKind::Control { pong }, InboxFrameKind::Control { pong: found, data }) if pong == found => {
                let hex = crate::scenario::functions::to_hex(data);
                let (opcode, text, size) = (entry.wire.opcode, &*entry.wire.text, entry.wire.size);
                Some(Cow::Owned(serde_json::json!({ "opcode": opcode, "data": text, "hex": hex, "size": size })))
            }
            (ExpectedFrameKind::Any, InboxFrameKind::Message { message, .. }) => {
                if self.ignoring && message.is_some_and(|index| ignore.contains(&pack.messages[index].name)) {
                    return None;
                }
                Some(entry.json(pack).unwrap_or_else(text))
            }
            // The frame may be an ignored message.
            (ExpectedFrameKind::Any, InboxFrameKind::Undecodable { .. }) if self.ignoring && !ignore.is_empty() => None,
            (ExpectedFrameKind::Any, InboxFrameKind::Undecodable { .. }) => Some(text()),
            (ExpectedFrameKind::Message(index), InboxFrameKind::Message { message, .. }) => {
                let json = entry.json(pack)?;
                let awaited = &pack.messages[*index];
                let is = pack.is_message(*index, *message, &json, FrameDirection::FromHub)
                    || !awaited.directions.from_hub && pack.is_message(*index, *message, &json, FrameDirection::ToHub);
                let special =
                    message.is_some_and(|found| found != *index && ignore.contains(&pack.messages[found].name));
                (is && !(self.ignoring && special)).then_some(json)
            }
            _ => None,
        }
    }
}

fn compile_matcher(
    pattern: Option<&MatchPattern>,
    names: &dyn EvalContext,
) -> Result<Option<Traced<Arc<Matcher>>>, EvalError> {
    let no_matcher = || Err(EvalError::Failed("expected a matcher, found a schema".to_owned()));
    let Some(pattern) = pattern else { return Ok(None) };
    match &pattern.ready {
        Some(CompiledPattern::Matcher(matcher)) => Ok(Some(Traced::observed(Arc::clone(matcher)))),
        Some(CompiledPattern::Schema(_)) => no_matcher(),
        None => match compile_pattern(pattern, names)? {
            Traced { value: CompiledPattern::Matcher(value), provenance } => Ok(Some(Traced { value, provenance })),
            Traced { value: CompiledPattern::Schema(_), .. } => no_matcher(),
        },
    }
}

impl Conversation {
    /// Describes what was received instead of the expected frame: a frame that nearly matches, or else the unclaimed
    /// frames, or else the state of the connection.
    pub(super) fn received_instead(&self, id: ActorId, awaited: &ExpectedFrame) -> String {
        let actor = &self.actors[id];
        let pack = &self.program.pack;
        let near = actor.latest.inbox.frames.iter().rev().filter(|entry| !entry.wire.is_assumed()).find_map(|entry| {
            let difference = awaited.near_miss(entry, pack, &self.program.shared.ignore)?;
            let (text, difference) = (&entry.wire.text, difference.to_string());
            Some(format!("{} (differs at {})", self.history.shown(text, 300), self.history.shown(&difference, 300)))
        });
        if let Some(near) = near {
            return near;
        }
        let others: Vec<String> = actor
            .latest
            .inbox
            .frames
            .iter()
            .filter(|entry| !entry.claimed && !entry.wire.is_assumed() && entry.wire.sequence > awaited.after)
            .filter_map(|entry| match &entry.kind {
                InboxFrameKind::Message { .. } | InboxFrameKind::Undecodable { .. } => {
                    Some(self.history.shown(&entry.wire.text, 200))
                }
                InboxFrameKind::Control { .. } => None,
            })
            .collect();
        let state = match &actor.link {
            ConnectionState::Ended(end) => end.describe(),
            ConnectionState::Open { .. } => "connection still open".to_owned(),
            ConnectionState::Idle => "not connected".to_owned(),
            ConnectionState::Connecting => "still connecting".to_owned(),
            ConnectionState::Refused { text, .. } => text.clone(),
            ConnectionState::Unreachable { reason } => reason.clone(),
        };
        match others.len() {
            0 => format!("nothing, {state}"),
            1..=3 => format!("{} ({state})", others.join(" and ")),
            more => format!("{} and {} more frames ({state})", others[..2].join(" and "), more - 2),
        }
    }
}
