//! Applies the declared deviations of a hub to the messages that a conversation sends and receives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Conversation;
use super::actor::{ActorState, ConnectionState, FrameJson, InboxFrame, InboxFrameKind};
use super::blocks::StepProgress;
use crate::deviation::proposal::{DeviationEvidence, MissedExpectation};
use crate::deviation::{
    Deviation, DeviationChange, Deviations, SightingsByEntry, TranslatedMessage, contains_place, entry_name,
};
use crate::outcome::{CheckOutcome, FindingDetail, FrameKind, HistoryDirection};
use crate::protocol::{FrameDirection, Pack};
use crate::scenario::functions::FunctionContext;
use crate::scenario::model::{ActorId, CheckId, RuleUse, Step};
use crate::scenario::value::{AssumedPlaces, BoundValue, Provenance, RawMessage, Wire};
use crate::websocket::codec::{ConnectionSide, FrameDecoder, PeerLimits, encode};
use crate::websocket::frame::{ConnectionEvent, Frame, Opcode};

use super::decode::{member_texts, memory_weight};
use super::finding::ComparisonOutcome;
use super::matching::ExpectedFrame;
use super::steps::StepResult;

/// A message that the hub never sends. The actor treats it as received when it is due.
pub(super) struct AssumedMessage {
    due: Duration,
    id: ActorId,
    connection: u32,
    /// Index of the deviation.
    index: usize,
    /// The position of the event after which the message should have come.
    due_after: u64,
    json: Value,
}

/// The declared deviations of the hub, how often the conversation saw them, and evidence of undeclared ones.
pub(super) struct AppliedDeviations {
    pub declared: Arc<Deviations>,
    pub seen: SightingsByEntry,
    /// The messages assumed to come that are not due yet.
    assumed: Vec<AssumedMessage>,
    /// The connections that the hub may close instead of sending a message, each with the index of the entry with
    /// `after` that says so.
    closable: BTreeSet<(u32, usize)>,
    /// The rules that demand a message that the hub does not send, by the index of the entry that says so.
    demanding: BTreeMap<usize, Vec<RuleUse>>,
    /// Evidence of deviations that are not declared.
    pub evidence: DeviationEvidence,
    /// The message or upgrade that the first failed step expected.
    pub missed: Option<MissedExpectation>,
}

impl AppliedDeviations {
    pub fn new(declared: Arc<Deviations>) -> Self {
        Self {
            declared,
            seen: SightingsByEntry::new(),
            assumed: Vec::new(),
            closable: BTreeSet::new(),
            demanding: BTreeMap::new(),
            evidence: DeviationEvidence::default(),
            missed: None,
        }
    }

    pub fn observe(&mut self, index: usize) {
        self.seen.entry(index).or_default().observed += 1;
    }

    /// Returns a message in the form that the hub expects; `None` if that is the documented form.
    pub fn sent(&mut self, pack: &Pack, documented: &Value, functions: &Arc<FunctionContext>) -> Option<Value> {
        let translated = self.declared.translate_sent(pack, documented, functions)?;
        Some(self.count_sent(pack, translated))
    }

    /// Returns a text to send in the form that the hub expects.
    pub fn sent_text(&mut self, pack: &Pack, text: &str, functions: &Arc<FunctionContext>) -> String {
        match self.declared.translate_sent_text(pack, text, functions) {
            Some(translated) => self.count_sent(pack, translated).to_string(),
            None => text.to_owned(),
        }
    }

    fn count_sent(&mut self, pack: &Pack, TranslatedMessage { json, by }: TranslatedMessage) -> Value {
        // A message sent in the declared form proves nothing about the hub; it counts only if the hub itself never
        // sends such a message.
        for index in by {
            if self.declared.is_only_sent(pack, index) {
                self.observe(index);
            }
        }
        json
    }

    /// Translates a received message to its documented form. If it differs, also returns the message as the hub sent it,
    /// and the places in the documented form that are only assumed, each with the index of its deviation.
    pub fn documented(
        &mut self,
        pack: &Pack,
        json: Value,
        functions: &Arc<FunctionContext>,
    ) -> (Value, Option<(RawMessage, AssumedPlaces)>) {
        if self.declared.is_empty() {
            return (json, None);
        }
        let translated = self.declared.translate_received(pack, &json, functions);
        let by = translated.as_ref().map_or(&[][..], |translated| &translated.by);
        let documented = translated.as_ref().map_or(&json, |translated| &translated.json);
        self.declared.count_sightings(pack, documented, by, functions, &mut self.seen);
        match translated {
            Some(translated) => {
                let assumed = self.declared.assumed_members(&json, &translated);
                let places = assumed.into_iter().map(|(index, place)| (place, index)).collect();
                (translated.json, Some((RawMessage { json, by: translated.by }, places)))
            }
            None => (json, None),
        }
    }

    /// Returns when the next assumed message is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.assumed.iter().map(|assumed| assumed.due).min()
    }

    /// Returns whether a message assumed to come on a connection is not due yet.
    pub fn provenance_of_next(&self, connection: Option<u32>) -> Provenance {
        let next = self.assumed.iter().find(|assumed| Some(assumed.connection) == connection);
        next.map_or(Provenance::Observed, |assumed| Provenance::assumed(assumed.index))
    }

    /// Drops an assumed message if the hub itself sends such a message on the connection.
    pub fn not_absent(&mut self, pack: &Pack, connection: u32, json: &Value) {
        let found = pack.recognise(json, FrameDirection::FromHub).and_then(|found| pack.message_index(&found.name));
        let is_it = |assumed: &AssumedMessage| {
            let mut messages = self.declared.entries()[assumed.index].messages();
            assumed.connection == connection && messages.any(|message| pack.messages[message].matcher.fits(json))
        };
        if let Some(place) = self.assumed.iter().position(is_it) {
            let index = self.assumed.remove(place).index;
            let is_same = found.is_some_and(|found| self.declared.entries()[index].names(found));
            self.seen.entry(index).or_default().contradicted += usize::from(is_same);
        }
        let (declared, seen) = (&self.declared, &mut self.seen);
        self.closable.retain(|(of, index)| {
            let mut messages = declared.entries()[*index].messages();
            let comes = *of == connection && messages.any(|message| pack.messages[message].matcher.fits(json));
            if comes {
                seen.entry(*index).or_default().contradicted += 1;
            }
            !comes
        });
    }

    /// Returns the index of the entry by which the hub never sends an expected message.
    pub fn never_sent(&self, pack: &Pack, awaited: &ExpectedFrame) -> Option<usize> {
        self.declared.entries().iter().position(|entry| match &entry.change {
            DeviationChange::NeverSent { message } => awaited.may_be(*message, pack),
            _ => false,
        })
    }

    /// Returns the index of an entry by which the hub never, or not always, sends a message of this name.
    pub fn absence_of(&self, pack: &Pack, awaited: &ExpectedFrame) -> Option<usize> {
        let declares = |entry: &Arc<Deviation>| {
            entry.declares_absence() && entry.messages().any(|message| awaited.may_be(message, pack))
        };
        self.declared.entries().iter().position(|entry| !awaited.is_any() && declares(entry))
    }

    /// Returns the index of the entry that explains why the connection has ended: it says that the hub closes instead of
    /// sending the expected message.
    pub fn closed_instead(&self, pack: &Pack, awaited: &ExpectedFrame, actor: &ActorState) -> Option<usize> {
        let (Some(connection), ConnectionState::Ended(end)) = (actor.connection, &actor.link) else { return None };
        let entries = self.declared.entries().iter().enumerate();
        let found = entries.filter(|_| !end.by_us).find(|(index, entry)| match &entry.change {
            DeviationChange::Closes { message, codes, after, .. } => {
                let due = after.is_none() || self.closable.contains(&(connection, *index));
                due && codes.accepts(end) && awaited.may_be(*message, pack)
            }
            _ => false,
        });
        found.map(|(index, _)| index)
    }
}

/// Why an expected message does not come, with the index of the deviation that declares it.
pub(super) enum DeclaredAbsence {
    NeverSent(usize),
    /// The hub closed the connection instead.
    Closed(usize),
}

impl DeclaredAbsence {
    pub fn describe(&self) -> String {
        match self {
            Self::NeverSent(index) => format!("never sent: deviation {}", index + 1),
            Self::Closed(index) => format!("closed instead: deviation {}", index + 1),
        }
    }
}

impl Conversation {
    /// Schedules the messages that, by its declared deviations, the hub never sends after a connection opens.
    pub(super) fn assume_after_connection(&mut self, id: ActorId, connection: u32) {
        let declared = Arc::clone(&self.deviations.declared);
        std::mem::take(&mut self.actors[id].latest.upgrade_deviations)
            .into_iter()
            .for_each(|index| self.deviations.observe(index));
        let closes = declared.closes_after(&self.program.pack, None);
        self.deviations.closable.extend(closes.map(|index| (connection, index)));
        let absent = declared.absent_messages_after_connection(&self.program.pack, &self.environment.functions);
        self.schedule_assumed(id, connection, absent);
    }

    /// Schedules the messages that, by its declared deviations, the hub never sends after this request.
    pub(super) fn assume_after(&mut self, id: ActorId, request: &Value) {
        let declared = Arc::clone(&self.deviations.declared);
        if let (false, Some(connection)) = (declared.is_empty(), self.actors[id].connection) {
            let closes = declared.closes_after(&self.program.pack, Some(request));
            self.deviations.closable.extend(closes.map(|index| (connection, index)));
            let absent = declared.absent_messages_after(&self.program.pack, request, &self.environment.functions);
            self.schedule_assumed(id, connection, absent);
        }
    }

    pub(super) fn assume_after_text(&mut self, id: ActorId, text: &str) {
        if self.deviations.declared.is_empty() {
            return;
        }
        // JSON beyond the limits of a value is recognised by the texts of its members.
        let texts = || member_texts(text, &|_| true).ok().map(|texts| json!(texts));
        if let Some(request) = serde_json::from_str(text).ok().or_else(texts) {
            self.assume_after(id, &request);
        }
    }

    /// Returns the complete texts of these frames, as a hub with declared deviations receives them. A text may begin in
    /// an earlier step.
    pub(super) fn texts_in_frames(&mut self, id: ActorId, frames: &[Frame]) -> Vec<String> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| encode(frame, [0; 4], &mut bytes));
        self.texts_in_bytes(id, &bytes)
    }

    /// Returns the complete texts in raw bytes; see [`Conversation::texts_in_frames`].
    pub(super) fn texts_in_bytes(&mut self, id: ActorId, mut bytes: &[u8]) -> Vec<String> {
        if self.deviations.declared.is_empty() {
            return Vec::new();
        }
        let side = if self.program.is_server(id) { ConnectionSide::Client } else { ConnectionSide::Server };
        let new = || FrameDecoder::new(side, PeerLimits::default());
        let decoder = self.actors[id].latest.sent_frames.get_or_insert_with(new);
        let events = std::iter::from_fn(|| decoder.next_event(&mut bytes));
        let text = |event| match event {
            ConnectionEvent::Message(message) if !message.binary => String::from_utf8(message.payload).ok(),
            _ => None,
        };
        events.filter_map(text).collect()
    }

    /// Translates the complete texts in raw frames to the form that the hub expects: the same frames, with other payloads.
    /// Frames that need no translation come back unchanged, as an error.
    pub(super) fn translate_frames(&mut self, mut frames: Vec<Frame>) -> Result<Vec<Frame>, Vec<Frame>> {
        let data: Vec<usize> = (0..frames.len()).filter(|at| !frames[*at].opcode.is_control()).collect();
        let messages: Vec<&[usize]> = data.split_inclusive(|at| frames[*at].fin).collect();
        let mut translated = false;
        for message in messages {
            translated |= self.translate_message(&mut frames, message);
        }
        if translated { Ok(frames) } else { Err(frames) }
    }

    /// Translates the text in the frames at these places. Returns whether it is a complete text that is sent otherwise.
    fn translate_message(&mut self, frames: &mut [Frame], data: &[usize]) -> bool {
        let opcodes = std::iter::once(Opcode::Text).chain(std::iter::repeat(Opcode::Continuation));
        let is_text = data.iter().zip(opcodes).all(|(at, opcode)| frames[*at].opcode == opcode);
        let is_complete = data.last().is_some_and(|at| frames[*at].fin);
        let text = String::from_utf8(data.iter().flat_map(|at| frames[*at].payload.clone()).collect());
        let (true, Ok(text)) = (is_text && is_complete, text) else { return false };
        let of_hub = self.deviations.sent_text(&self.program.pack, &text, &self.environment.functions);
        if of_hub == text {
            return false;
        }
        // Cut the new text in the same proportions.
        let (mut end, mut cut) = (0, 0);
        for at in data {
            end += frames[*at].payload.len();
            let next = of_hub.len() * end / text.len();
            frames[*at].payload = of_hub.as_bytes()[cut..next].to_vec();
            cut = next;
        }
        true
    }

    /// Returns the declared deviation that explains why an actor does not receive an expected message.
    pub(super) fn declared_absence(&self, id: ActorId, awaited: &ExpectedFrame) -> Option<DeclaredAbsence> {
        let pack = &self.program.pack;
        let closed = self.deviations.closed_instead(pack, awaited, &self.actors[id]).map(DeclaredAbsence::Closed);
        closed.or_else(|| self.deviations.never_sent(pack, awaited).map(DeclaredAbsence::NeverSent))
    }

    /// Ends a step whose message, by a declared deviation, does not come. Steps that need the message are not reached.
    /// That nothing came proves nothing; a close instead of the message breaks the rules that demand it.
    pub(super) fn end_declared_absence(&mut self, step: &Step, id: ActorId, declared: DeclaredAbsence) -> StepResult {
        let why = declared.describe();
        let index = match declared {
            DeclaredAbsence::NeverSent(index) => {
                if let Some(check) = step.check {
                    self.judgement.record_declared(check, &step.text, why.clone(), index);
                }
                index
            }
            DeclaredAbsence::Closed(index) => {
                self.actors[id].latest.end_noticed = true;
                if let Some(check) = step.check {
                    self.record_undemanded(check, &step.text, why.clone(), index);
                }
                index
            }
        };
        self.deviations.observe(index);
        self.blocks.miss(&why);
        self.judgement.leave_unbound(Provenance::assumed(index));
        Ok(StepProgress::Done(None))
    }

    /// Schedules assumed messages. The delay gives the hub time to handle the request, or to send the messages after
    /// all.
    fn schedule_assumed(&mut self, id: ActorId, connection: u32, absent: Vec<(usize, Value)>) {
        let (due, due_after) = (self.clock.now + self.clock.quiet, self.history.position());
        let scheduled =
            absent.into_iter().map(|(index, json)| AssumedMessage { due, id, connection, index, due_after, json });
        self.deviations.assumed.extend(scheduled);
    }

    /// Puts the assumed messages that are due into their inboxes.
    pub(super) fn deliver_assumed(&mut self) {
        let now = self.clock.now;
        let due = |assumed: &mut AssumedMessage| assumed.due <= now;
        for AssumedMessage { id, connection, index, due_after, json, .. } in
            self.deviations.assumed.extract_if(.., due).collect::<Vec<_>>()
        {
            if self.actors[id].connection != Some(connection) || !self.actors[id].is_open() {
                continue;
            }
            self.deviations.observe(index);
            let text = json.to_string();
            self.record_frame(id, connection, HistoryDirection::Neither, FrameKind::Assumed, &text, text.len());
            let sequence = self.history.next_event();
            let wire = Arc::new(Wire {
                provenance: Provenance::assumed(index),
                due_after: Some(due_after),
                ..self.new_wire(id, connection, sequence, "text", &text, text.len())
            });
            // Play no reactions: the hub did not send the message, so it expects no answer.
            let pack = &self.program.pack;
            let recognised = pack.recognise(&json, FrameDirection::FromHub);
            let message = recognised.and_then(|message| pack.message_index(&message.name));
            let kind = InboxFrameKind::Message { json: FrameJson::Decoded(json), message };
            let entry = InboxFrame { wire, kind, claimed: false, weight: memory_weight(&text) };
            self.actors.keep(id, entry, &self.program.pack);
        }
    }

    /// Records that a step holds, with the frames it received. A step that asks for a number of frames (`counted`) is
    /// undecided if one of them is only assumed; of any other step, the deviation breaks the rules that demand it. A
    /// step whose frames matched only by assumed members (`matched_by`) is undecided, too.
    pub(super) fn record_held_by_claims<'b>(
        &mut self,
        step: &Step,
        outcome: CheckOutcome,
        claims: impl Iterator<Item = &'b BoundValue>,
        counted: bool,
        matched_by: Provenance,
    ) {
        let claims: Vec<&BoundValue> = claims.collect();
        let provenance = Provenance::join_all(claims.iter().map(|claim| claim.provenance()));
        if let Provenance::Assumed { deviation } = provenance {
            return self.record_held_by_assumption(step, deviation, counted);
        }
        let Some(check) = step.check else { return };
        if let Provenance::Assumed { deviation } = matched_by {
            return self.judgement.record_assumed(check, &step.text, deviation);
        }
        // The end of a connection may follow from an earlier failure; a frame does not.
        let came = claims.iter().flat_map(|claim| claim.wires()).any(|wire| wire.opcode != "close");
        let outcome = self.judgement.doubt_outcome().filter(|_| !came).unwrap_or(outcome);
        self.judgement.record_answer(check, &step.text, outcome, "", None);
    }

    /// Records that a step holds only because a deviation assumes the message that it expects.
    fn record_held_by_assumption(&mut self, step: &Step, deviation: u16, counted: bool) {
        let why = Provenance::Assumed { deviation }.doubt().unwrap_or_default();
        // The rules of the steps around it rest on the assumption, too.
        self.blocks.miss(&why);
        let Some(check) = step.check else { return };
        match self.judgement.doubt_outcome() {
            Some(doubted) => self.judgement.record_answer(check, &step.text, doubted, "", None),
            None if counted => self.judgement.record_assumed(check, &step.text, deviation),
            None => self.record_undemanded(check, &step.text, why, usize::from(deviation)),
        }
    }

    /// Records a check whose message, by a declared deviation, the hub does not send. The rules that demand the message
    /// are broken. That it is missing proves nothing about others, such as how a request may be written.
    fn record_undemanded(&mut self, check: CheckId, step: &str, why: String, index: usize) {
        let (pack, entry) = (&self.program.pack, &self.deviations.declared.entries()[index]);
        let rules = &self.program.checks[check].rules;
        let demanding = |used: &&RuleUse| entry.messages().any(|message| pack.demands(&used.id, message));
        let demanding: Vec<RuleUse> = rules.iter().filter(demanding).cloned().collect();
        if demanding.len() == rules.len() {
            return self.judgement.record_deviation(check, step, entry.describe(pack), None, index);
        }
        let known = self.deviations.demanding.entry(index).or_default();
        demanding.into_iter().for_each(|used| {
            if !known.contains(&used) {
                known.push(used)
            }
        });
        self.judgement.record_declared(check, step, why, index);
    }

    /// Records a check that holds because a message did not come that, by a declared deviation, the hub does not send.
    pub(super) fn record_absence(&mut self, step: &Step, index: usize) {
        if let (Some(check), Provenance::Assumed { deviation }) = (step.check, Provenance::assumed(index)) {
            self.judgement.record_assumed(check, &step.text, deviation);
        }
    }

    /// Records that nothing came where nothing may come. That proves something only if no expected frame was missing
    /// before, and if the hub sends such messages at all.
    pub(super) fn record_held_silence(&mut self, step: &Step, awaited: &[(ActorId, ExpectedFrame)]) {
        let Some(check) = step.check else { return };
        let absent = awaited.iter().find_map(|(_, awaited)| self.deviations.absence_of(&self.program.pack, awaited));
        match absent {
            Some(index) => self.record_absence(step, index),
            None => {
                let outcome = self.judgement.doubt_outcome().unwrap_or(CheckOutcome::Holds);
                self.judgement.record_answer(check, &step.text, outcome, "", None);
            }
        }
    }

    /// Returns what a comparison finds in the members that the hub itself sent, with the index of a deviation, if the
    /// finding rests on members that the deviation made: it assumed or converted them.
    pub(super) fn finding_of_hub(
        &self,
        wire: &Wire,
        value: &Value,
        finding: &ComparisonOutcome,
        compared: impl Fn(&Value) -> ComparisonOutcome,
    ) -> Option<(ComparisonOutcome, usize)> {
        let raw = wire.raw.as_ref()?;
        let assumed = wire.assumed_places.first().map(|(_, index)| *index);
        match finding {
            ComparisonOutcome::Holds => {
                let of_hub = compared(&wire.observed_part(value)?);
                matches!(of_hub, ComparisonOutcome::Broken { .. }).then_some((of_hub, assumed?))
            }
            ComparisonOutcome::Broken { place: Some(place), .. } => {
                if wire.assumed_places.iter().any(|(outer, _)| contains_place(outer, place)) {
                    return Some((compared(&wire.observed_part(value)?), assumed?));
                }
                let index = self.deviations.declared.converting_entry(value, raw, place)?;
                Some((compared(&raw.json), index))
            }
            _ => None,
        }
    }

    /// Records a check that the frame breaks only in the form the hub sent, not in its documented form.
    pub(super) fn record_raw_deviation(
        &mut self,
        check: CheckId,
        step: &str,
        actor: Option<ActorId>,
        frame: &str,
        of_hub: ComparisonOutcome,
        deviation: usize,
    ) {
        let ComparisonOutcome::Broken { expected, found, message, place } = of_hub else { return };
        let received = format!("{} in {}", self.history.shown(&found, 200), self.history.shown(frame, 400));
        let detail = FindingDetail { place, ..self.finding_detail(actor, expected, received, None) };
        let message = self.history.shown(&message, 400);
        self.judgement.record_deviation(check, step, message, Some(detail), deviation);
    }

    /// Returns the deviation because of which a message breaks a check in the form that the hub sent: the first one
    /// after whose translation it no longer does.
    pub(super) fn responsible_deviation(&self, raw: &RawMessage, breaks: impl Fn(&Value) -> bool) -> usize {
        let (declared, functions) = (&self.deviations.declared, &self.environment.functions);
        declared.responsible_entry(&self.program.pack, &raw.json, &raw.by, functions, breaks)
    }

    /// Records each deviation that applied as a separate finding against the rules that its entry names.
    pub(super) fn record_deviations(&mut self) {
        let declared = Arc::clone(&self.deviations.declared);
        for (index, entry) in declared.entries().iter().enumerate() {
            if matches!(entry.change, DeviationChange::Setting { .. }) && !self.actors.connections.is_empty() {
                self.deviations.observe(index);
            }
            if self.deviations.seen.get(&index).is_some_and(|seen| seen.observed > 0) {
                let message = entry.describe(&self.program.pack);
                let mut rules = entry.rules.clone();
                let demanding = self.deviations.demanding.remove(&index).into_iter().flatten();
                rules.extend(demanding.filter(|used| entry.rules.iter().all(|known| known.id != used.id)));
                self.judgement.record_frame_deviation(&entry_name(index), rules, message, index);
            }
        }
    }
}
