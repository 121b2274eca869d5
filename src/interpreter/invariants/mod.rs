//! Checks every frame, whatever the steps expect, against its schema and the entries of `always`.

mod connection_frames;
pub mod exchange;
mod frame_rules;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use self::connection_frames::{ConnectionFrames, DroppedMessages, FramesUsed};
use super::Conversation;
use super::actor::{ConnectionEnd, FrameJson, InboxFrame, InboxFrameKind};
use super::checks::{ALWAYS_STEP, compare, compute};
use super::decode::{JsonDecodeError, decode_json, member_texts, memory_weight};
use super::finding::ComparisonOutcome;
use super::scope::SettingsContext;
use crate::deviation::proposal::MAX_BYTES;
use crate::outcome::{CheckOutcome, FindingDetail};
use crate::protocol::{FrameDirection, MessageType, Pack, RuleLevel, SchemaViolation};
use crate::scenario::Program;
use crate::scenario::model::{ActorId, AlwaysEntry, CheckId, MatchPattern, RuleUse, ValueTest};
use crate::scenario::template::{EvalContext, Template};
use crate::scenario::value::{RawMessage, Traced, Wire};

/// The most characters of a frame that any report shows.
const MAX_SHOWN_CHARS: usize = 1000;

impl Conversation {
    /// Checks a received message against its schema and `always`, plays reactions to it, and puts it into the inbox.
    pub(super) fn receive_message(&mut self, id: ActorId, mut wire: Arc<Wire>, binary: bool) {
        let program = Arc::clone(&self.program);
        let mut decoded = if binary {
            Err(JsonDecodeError::Binary)
        } else {
            decode_json(&wire.text, &program.pack.extension.numbers)
        };
        if let Err(JsonDecodeError::Beyond(why)) = &decoded {
            self.judgement.record_websocket_undecided(
                &program.actors[id].name,
                &format!("a received frame is JSON, but hubproof cannot decode it: {why}"),
            );
        }
        if let Ok(json) = &mut decoded {
            let (documented, deviating) =
                self.deviations.documented(&program.pack, json.take(), &self.environment.functions);
            *json = documented;
            if self.values.as_ref().is_some_and(|values| values.restore(json)) {
                wire = Arc::new(Wire { text: json.to_string().into(), ..Wire::clone(&wire) });
            }
            self.deviations.not_absent(&program.pack, wire.connection, json);
            if let Some((raw, assumed_places)) = deviating {
                wire = Arc::new(Wire { raw: Some(Arc::new(raw)), assumed_places, ..Wire::clone(&wire) });
            }
        }
        let raw = wire.raw.clone();
        let json = decoded.as_ref().ok();
        let way = if self.program.is_above_hub(id) { FrameDirection::ToHub } else { FrameDirection::FromHub };
        // The hub may send a listening actor messages of a client as well as messages of a hub.
        let message = json.and_then(|json| {
            let requests = |asked: &str| self.actors[id].latest.exchange.requests(asked);
            let recognise = |way| program.pack.recognise_reply(json, way, &program.actors[id].role, &requests);
            recognise(way)
                .or_else(|| (way == FrameDirection::ToHub).then(|| recognise(FrameDirection::FromHub)).flatten())
        });
        let index = message.and_then(|message| program.pack.message_index(&message.name));
        self.contact.add_message(wire.connection, index, self.clock.now);
        let is_answer = |message: &MessageType| !message.abstract_ && !program.shared.ignore.contains(&message.name);
        self.waits.add_message(message.map(|message| message.name.as_str()), message.is_some_and(is_answer));
        if let Some(json) = raw.as_deref().map(|raw| &raw.json).or(json) {
            self.add_evidence(id, index, json, wire.sequence);
        }
        if let (Some(json), Some(index)) = (json, index) {
            self.judge_schema(id, index, json, &wire);
            if let Some(raw) = &raw {
                self.judge_schema_of_hub(index, json, raw);
            }
        }
        match json {
            Some(json) => self.judge_lifecycles(id, index, json, &wire),
            // The frame may be a message that opens an id.
            None => self.actors[id].latest.exchange.unknown |= matches!(decoded, Err(JsonDecodeError::Beyond(_))),
        }
        self.judge_always(id, index, &mut decoded, &wire);
        if let Ok(json) = &decoded {
            self.play_reactions(id, index, json, &wire, way);
        }
        let kind = match decoded {
            Ok(json) => InboxFrameKind::Message { json: FrameJson::Decoded(json), message: index },
            Err(JsonDecodeError::Beyond(why)) => {
                let names = |name: &str| program.pack.messages.iter().any(|message| message.matcher.has_text(name));
                let texts = member_texts(&wire.text, &names).ok();
                // Only reports use the text, and they shorten it.
                let text = crate::syntax::matcher::shorten(&wire.text, MAX_SHOWN_CHARS).into();
                wire = Arc::new(Wire { text, ..Wire::clone(&wire) });
                InboxFrameKind::Undecodable { why, texts }
            }
            Err(JsonDecodeError::Binary | JsonDecodeError::NotJson(_)) => {
                InboxFrameKind::Message { json: FrameJson::No, message: None }
            }
        };
        // A frame that was not decoded takes no more memory than its text.
        let decoded = matches!(kind, InboxFrameKind::Message { json: FrameJson::Decoded(_), .. });
        let weight = if decoded { memory_weight(&wire.text) } else { wire.text.len() };
        self.actors.keep(id, InboxFrame { wire, kind, claimed: false, weight }, &self.program.pack);
    }

    /// Keeps a message as the hub sent it, for proposals of deviations.
    fn add_evidence(&mut self, id: ActorId, index: Option<usize>, json: &Value, sequence: u64) {
        let (evidence, latest) = (&mut self.deviations.evidence, &mut self.actors[id].latest);
        evidence.add_message(index, json);
        if latest.first_message.is_some() {
            evidence.add_later(json);
        } else {
            evidence.add_first(&self.program.pack, index, json, latest.has_sent);
            latest.first_message = Some(sequence);
        }
    }

    /// Evaluates the entries of `always` for a received frame; `index` is that of its message.
    fn judge_always(
        &mut self,
        id: ActorId,
        index: Option<usize>,
        decoded: &mut Result<Value, JsonDecodeError>,
        wire: &Wire,
    ) {
        let program = Arc::clone(&self.program);
        // What the entries for every frame see; `json` is its message.
        let mut frame = Value::Null;
        for entry in &program.always {
            match entry {
                AlwaysEntry::Message { message: name, check, pattern } => {
                    let Ok(json) = &*decoded else { continue };
                    let is = |named| program.pack.is_message(named, index, json, FrameDirection::FromHub);
                    if program.pack.message_index(name).is_some_and(is) {
                        let compared = |conversation: &Self, json: &Value| {
                            compare(pattern, Traced::observed(json), &conversation.eval_context(Some(id)))
                        };
                        self.record_always(id, *check, wire, compared(self, json), compared);
                    }
                }
                AlwaysEntry::Frame { check, pattern } if !matches!(decoded, Err(JsonDecodeError::Beyond(_))) => {
                    if frame.is_null() {
                        frame = serde_json::json!({ "opcode": wire.opcode, "size": wire.size, "text": &*wire.text });
                    }
                    let finding = compare_frame(pattern, &mut frame, decoded, &self.eval_context(Some(id)));
                    self.record_always(id, *check, wire, finding, |conversation, json| {
                        let mut frame = frame.clone();
                        frame["json"] = json.clone();
                        compare(pattern, Traced::observed(&frame), &conversation.eval_context(Some(id)))
                    });
                }
                _ => {}
            }
        }
    }

    /// Records the finding of an entry of `always`. If only the message as the hub sent it, before deviations translated
    /// it, breaks the entry, records that too; `compared` evaluates the entry for another form of the message.
    fn record_always(
        &mut self,
        id: ActorId,
        check: CheckId,
        wire: &Wire,
        finding: ComparisonOutcome,
        compared: impl Fn(&Self, &Value) -> ComparisonOutcome,
    ) {
        if let (ComparisonOutcome::Holds, Some(raw)) = (&finding, &wire.raw) {
            let breaks = |json: &Value| matches!(compared(self, json), ComparisonOutcome::Broken { .. });
            let (of_hub, entry) = (compared(self, &raw.json), self.responsible_deviation(raw, breaks));
            self.record_raw_deviation(check, ALWAYS_STEP, Some(id), &wire.text, of_hub, entry);
        }
        self.record_outcome(check, ALWAYS_STEP, Some(id), &wire.text, finding);
    }

    fn judge_schema(&mut self, id: ActorId, index: usize, json: &Value, wire: &Wire) {
        let program = Arc::clone(&self.program);
        let message = &program.pack.messages[index];
        let schema = &message.schema;
        let mut violations = schema.violations(json);
        if let Some(raw) = &wire.raw {
            let declared = &self.deviations.declared;
            violations.retain(|wrong| declared.converting_entry(json, raw, &wrong.path).is_none());
        }
        if violations.is_empty() {
            self.judgement.record_valid(index);
            self.deviations.evidence.conforming.insert(index);
            return;
        }
        if wire.size < MAX_BYTES {
            self.deviations.evidence.add_broken(index, json);
        }
        // Each rule that is not violated holds and gets a separate check.
        let used = |name: &String, should: bool| schema_rule_use(&program.pack, name, should);
        let broken =
            |name: &String, should: bool| violations.iter().any(|v| v.should == should && v.rules.contains(name));
        for (names, should) in [(&schema.rules, false), (&schema.should_rules, true)] {
            for name in names {
                if !broken(name, should)
                    && (should || violations.iter().all(|v| v.should))
                    && let Some(rule) = used(name, should)
                {
                    let label = schema_check_name(&message.name, name, should);
                    self.judgement.record_invariant(&label, vec![rule], CheckOutcome::Holds, String::new(), None);
                }
            }
        }
        for (label, rules, SchemaViolation { path, expected, found, .. }) in
            broken_schema_checks(&program.pack, message, &violations)
        {
            let place = if path.is_empty() { "the message" } else { path.as_str() };
            let found = self.history.shown(found, 200);
            let text = format!("`{}` breaks its schema at {place}: expected {expected}, found {found}", message.name);
            let received = self.history.shown(&wire.text, 400);
            let detail = self.finding_detail(Some(id), format!("{place}: {expected}"), received, None);
            let detail = FindingDetail { place: Some(path.clone()), ..detail };
            self.judgement.record_invariant(&label, rules, CheckOutcome::Broken, text, Some(detail));
        }
    }

    /// Records violations of a message's schema that occur only in the form the hub sent, not in the documented form.
    fn judge_schema_of_hub(&mut self, index: usize, documented: &Value, raw: &RawMessage) {
        let program = Arc::clone(&self.program);
        let message = &program.pack.messages[index];
        let declared = Arc::clone(&self.deviations.declared);
        let converting = |path: &str| declared.converting_entry(documented, raw, path);
        let mut known = message.schema.violations(documented);
        known.retain(|wrong| converting(&wrong.path).is_none());
        for SchemaViolation { path, expected, found, rules, should, .. } in message.schema.violations(&raw.json) {
            if known.iter().any(|other| other.path == path && other.should == should) {
                continue;
            }
            // Another type is another message, not a type that is not a text.
            let is_type = message.matcher.required_texts().any(|(name, _)| path == format!("/{name}"));
            if is_type && raw.json.pointer(&path).is_some_and(Value::is_string) {
                continue;
            }
            let same = |other: SchemaViolation| other.path == path && other.should == should;
            let responsible =
                || self.responsible_deviation(raw, |json| message.schema.violations(json).into_iter().any(same));
            let deviation = converting(&path).unwrap_or_else(responsible);
            let place = if path.is_empty() { "the message" } else { path.as_str() };
            let found = self.history.shown(&found, 200);
            let text = format!("`{}` breaks its schema at {place}: expected {expected}, found {found}", message.name);
            if rules.is_empty() {
                let label = format!("schema:{}", message.name);
                self.judgement.record_frame_deviation(&label, Vec::new(), text.clone(), deviation);
            }
            for name in &rules {
                let label = schema_check_name(&message.name, name, should);
                let used = schema_rule_use(&program.pack, name, should).into_iter().collect();
                self.judgement.record_frame_deviation(&label, used, text.clone(), deviation);
            }
        }
    }

    /// Checks the end of a connection against the entries of `always`. If none of them fails, checks the code of a
    /// close frame against RFC 6455: the codec checks the form of the frame, but accepts any code.
    pub(super) fn judge_close(&mut self, id: ActorId, end: &ConnectionEnd) {
        let program = Arc::clone(&self.program);
        let mut blamed = false;
        for entry in &program.always {
            if let AlwaysEntry::Close { check, pattern } = entry {
                let finding = compare(pattern, Traced::observed(&end.to_json()), &self.eval_context(Some(id)));
                blamed |= matches!(finding, ComparisonOutcome::Broken { .. });
                self.record_outcome(*check, ALWAYS_STEP, Some(id), &end.describe(), finding);
            }
        }
        if let Some(code) = end.code.filter(|code| end.close_frame && !blamed && is_never_sent(*code)) {
            let found = format!("a close frame with code {code}");
            let expected = "a close frame has a code that may be sent (RFC 6455, section 7.4)";
            self.judgement.record_websocket_violation(&program.actors[id].name, expected, &found);
        }
    }

    /// Judges an actor's connection and counts its leftovers, when the connection ends or is replaced.
    pub(super) fn leave_connection(&mut self, id: ActorId) {
        self.judge_connection(id);
        self.actors.keep_leftovers(id, &self.program);
    }

    /// Evaluates the `check` entries of `always` over all frames of an actor's connection. Takes the decoded JSON out
    /// of the inbox; the entries keep the index of their message.
    fn judge_connection(&mut self, id: ActorId) {
        let program = Arc::clone(&self.program);
        if !program.always.iter().any(|entry| matches!(entry, AlwaysEntry::Check { .. })) {
            return;
        }
        let actor = &mut self.actors[id];
        let received = actor.latest.inbox.take_messages(&program.pack);
        let unread = actor.latest.inbox.frames.iter().find_map(InboxFrame::undecodable_reason);
        let dropped = DroppedMessages {
            received: actor.latest.inbox.has_dropped,
            sent: std::mem::take(&mut actor.latest.exchange.dropped),
            messages: actor.latest.inbox.dropped_messages.clone(),
        };
        if received.is_empty() && unread.is_none() && !dropped.received && dropped.sent.is_empty() {
            return;
        }
        let unknown = actor.latest.exchange.unknown;
        let sent = std::mem::take(&mut actor.latest.exchange.sent);
        let used = Arc::new(Mutex::new(FramesUsed::default()));
        let (pack, declared) = (Arc::clone(&program.pack), Arc::clone(&self.deviations.declared));
        let frames = ConnectionFrames::new(received, sent, dropped, pack, declared, Arc::clone(&used));
        self.environment.functions.set_frames(Box::new(move |which, name| frames.find(which, name)));
        for entry in &program.always {
            let AlwaysEntry::Check { check, value, test, says, .. } = entry else { continue };
            if unknown && uses_sent(value, test) {
                let why = "a step sent raw data, or a message that is wrong on purpose, on this connection".to_owned();
                self.record_outcome(*check, ALWAYS_STEP, Some(id), "", ComparisonOutcome::NotReached(why));
                continue;
            }
            let names = self.eval_context(Some(id));
            let finding = compute(value, test, &names, &program.pack).saying(says.as_ref(), &names);
            let FramesUsed { received, deviation, dropped } = std::mem::take(&mut *used.lock());
            let hidden = unread.clone().or_else(|| dropped.then(|| super::matching::FRAMES_DROPPED.to_owned()));
            if let Some(why) = hidden {
                let undecided = CheckOutcome::Undecided(why.clone());
                self.judgement.record_answer(*check, ALWAYS_STEP, undecided, why, None);
                continue;
            }
            let outcome = finding.of(deviation);
            // What the hub has not sent proves nothing.
            if received || !matches!(outcome, ComparisonOutcome::Holds) {
                self.record_outcome(*check, ALWAYS_STEP, Some(id), "", outcome);
            }
        }
    }
}

/// A message that was observed on a connection.
pub struct ObservedMessage {
    pub by_client: bool,
    pub json: Value,
    /// The index of the message, if the pack has it.
    pub message: Option<usize>,
}

/// Whether a check of `always` rests on nothing but what both sides sent on a connection. Checks that do not use what a
/// client sent may rest on what scenarios never send.
pub fn rests_on_connection(entry: &AlwaysEntry) -> bool {
    let AlwaysEntry::Check { value, test, says, .. } = entry else { return false };
    let mut names = false;
    for template in [Some(value), says.as_ref(), test.template()].into_iter().flatten() {
        template.visit_expressions(&mut |expression| {
            let root = |name: &String| name.split('.').next().is_some_and(|root| matches!(root, "self" | "hub"));
            names |= expression.uses.iter().any(root) || expression.calls("wire");
        });
    }
    uses_sent(value, test) && !names
}

/// Evaluates the checks of `always` that [rest on a connection](rests_on_connection) for all its messages, in order.
pub fn judge_messages(
    program: &Program,
    names: &SettingsContext,
    messages: Vec<ObservedMessage>,
) -> Vec<(CheckId, ComparisonOutcome)> {
    let wire = |number: usize, by_client: bool| Arc::new(Wire::observed(number as u64, !by_client));
    let (mut received, mut sent) = (Vec::new(), VecDeque::new());
    for (number, ObservedMessage { by_client, json, message }) in messages.into_iter().enumerate() {
        match message {
            Some(message) if by_client => {
                sent.push_back(exchange::SentMessage { message, value: json, wire: wire(number, true) });
            }
            // The check may count messages that the pack does not have only if the hub sent them.
            None if by_client => {}
            message => received.push((json, message, wire(number, false))),
        }
    }
    let dropped = DroppedMessages { received: false, messages: BTreeSet::new(), sent: BTreeSet::new() };
    let frames =
        ConnectionFrames::new(received, sent, dropped, Arc::clone(&program.pack), Arc::default(), Arc::default());
    names.function_context().set_frames(Box::new(move |which, name| frames.find(which, name)));
    let judge = |entry: &AlwaysEntry| match entry {
        AlwaysEntry::Check { check, value, test, says, .. } if rests_on_connection(entry) => {
            Some((*check, compute(value, test, names, &program.pack).saying(says.as_ref(), names)))
        }
        _ => None,
    };
    program.always.iter().filter_map(judge).collect()
}

/// Compares a frame with the pattern of an entry for every frame; moves the JSON to `frame` and back.
pub fn compare_frame(
    pattern: &MatchPattern,
    frame: &mut Value,
    decoded: &mut Result<Value, JsonDecodeError>,
    names: &dyn EvalContext,
) -> ComparisonOutcome {
    // The JSON may be large, so it is not copied.
    if let Ok(json) = decoded {
        frame["json"] = json.take();
    }
    let finding = compare(pattern, Traced::observed(&*frame), names);
    if let Ok(json) = decoded {
        *json = frame["json"].take();
    }
    match (finding, &*decoded) {
        (ComparisonOutcome::Broken { expected, message, .. }, Err(JsonDecodeError::NotJson(why))) => {
            let only = expected.ends_with("any value") || expected.starts_with("the value");
            let before = if only { String::new() } else { format!("{message}; ") };
            ComparisonOutcome::Broken {
                expected: if only { "JSON".to_owned() } else { expected },
                found: format!("not JSON ({why})"),
                message: format!("{before}the frame is not JSON: {why}"),
                place: None,
            }
        }
        (ComparisonOutcome::Broken { expected, found, message, place }, _) => {
            let place = place.and_then(|place| Some(place.strip_prefix("/json")?.to_owned()));
            ComparisonOutcome::Broken { expected, found, message, place }
        }
        (finding, _) => finding,
    }
}

/// Returns the checks of a message's schema that these violations break, each with its rules.
pub fn broken_schema_checks<'v>(
    pack: &Pack,
    message: &MessageType,
    violations: &'v [SchemaViolation],
) -> Vec<(String, Vec<RuleUse>, &'v SchemaViolation)> {
    let mut broken = Vec::new();
    for violation in violations {
        let should = violation.should;
        // A broken must at the same place covers the should.
        if should && violations.iter().any(|other| !other.should && other.path == violation.path) {
            continue;
        }
        if violation.rules.is_empty() {
            broken.push((format!("schema:{}", message.name), Vec::new(), violation));
        }
        for name in &violation.rules {
            let used = schema_rule_use(pack, name, should).into_iter().collect();
            broken.push((schema_check_name(&message.name, name, should), used, violation));
        }
    }
    broken
}

/// Whether a check depends on what the client has sent.
pub(super) fn uses_sent(value: &Template, test: &ValueTest) -> bool {
    let mut uses = false;
    for template in std::iter::once(value).chain(test.template()) {
        template.visit_expressions(&mut |expression| {
            uses |= expression.calls("sent_frames") || expression.calls("all_frames");
        });
    }
    uses
}

/// Whether RFC 6455 forbids an endpoint to send this close code: codes below 1000 are not used (7.4.2), and three codes
/// stand for ends without a code in a frame (7.4.1).
pub fn is_never_sent(code: u16) -> bool {
    matches!(code, 0..1000 | 1005 | 1006 | 1015)
}

/// Returns the checks that hold for a frame that conforms to the schema of its message, each with its rule.
pub(super) fn schema_checks(pack: &Pack, message: &MessageType) -> Vec<(String, Vec<RuleUse>)> {
    let schema = &message.schema;
    let mut checks = Vec::new();
    for (names, should) in [(&schema.rules, false), (&schema.should_rules, true)] {
        for name in names {
            if let Some(rule) = schema_rule_use(pack, name, should) {
                checks.push((schema_check_name(&message.name, name, should), vec![rule]));
            }
        }
    }
    if schema.rules.is_empty() {
        checks.push((format!("schema:{}", message.name), Vec::new()));
    }
    checks
}

fn schema_rule_use(pack: &Pack, name: &String, should: bool) -> Option<RuleUse> {
    let rule = pack.rules.get(name)?;
    let level = if should { rule.level.min(RuleLevel::Should) } else { rule.level };
    Some(RuleUse { id: name.clone(), level, basis: rule.basis, lowered: level < rule.level })
}

fn schema_check_name(message: &str, rule: &str, should: bool) -> String {
    format!("schema:{message}:{rule}{}", if should { ":should" } else { "" })
}
