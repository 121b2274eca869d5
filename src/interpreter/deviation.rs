//! Applies the declared deviations of a hub to what a conversation sends and receives.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Conversation;
use super::actor::{Entry, EntryKind};
use crate::deviation::proposal::{Evidence, Missed};
use crate::deviation::{Change, Deviations, Seen, Translated, name};
use crate::event::{Direction, Outcome};
use crate::protocol::{Pack, Way};
use crate::scenario::functions::World;
use crate::scenario::model::{ActorId, CheckId, Step};
use crate::scenario::value::{Bound, Deviating, Wire};

use super::decode::weight;
use super::finding::Finding;

/// A message that the hub never sends, and that an actor takes as received when it is due.
pub(super) struct Assumed {
    due: Duration,
    id: ActorId,
    connection: u32,
    /// Index of the deviation.
    index: usize,
    json: Value,
}

/// The declared deviations of the hub, and what the conversation has seen of them and of others.
pub(super) struct AppliedDeviations {
    pub declared: Arc<Deviations>,
    pub seen: Seen,
    /// Messages that are assumed to come.
    assumed: Vec<Assumed>,
    /// What shows deviations that are not declared.
    pub evidence: Evidence,
    /// What the step expected that stopped the conversation.
    pub missed: Option<Missed>,
}

impl AppliedDeviations {
    pub fn new(declared: Arc<Deviations>) -> Self {
        Self { declared, seen: Seen::new(), assumed: Vec::new(), evidence: Evidence::default(), missed: None }
    }

    fn observe(&mut self, index: usize) {
        self.seen.entry(index).or_default().observed += 1;
    }

    /// Returns a message as the hub wants it; `None` where that is the documented form.
    pub fn sent(&mut self, pack: &Pack, documented: &Value, world: &Arc<World>) -> Option<Value> {
        let translated = self.declared.sent(pack, documented, world)?;
        Some(self.count_sent(pack, translated))
    }

    /// Returns a text to be sent as the hub wants it.
    pub fn sent_text(&mut self, pack: &Pack, text: &str, world: &Arc<World>) -> String {
        match self.declared.sent_text(pack, text, world) {
            Some(translated) => self.count_sent(pack, translated).to_string(),
            None => text.to_owned(),
        }
    }

    fn count_sent(&mut self, pack: &Pack, Translated { json, by }: Translated) -> Value {
        // What is sent as declared shows nothing, unless the hub sends none of it itself.
        for index in by {
            if self.declared.is_only_sent(pack, index) {
                self.observe(index);
            }
        }
        json
    }

    /// Translates a received message to its documented form. Returns it with what the hub really sent, if that differs.
    pub fn documented(&mut self, pack: &Pack, json: Value, world: &Arc<World>) -> (Value, Option<Deviating>) {
        if self.declared.is_empty() {
            return (json, None);
        }
        let translated = self.declared.received(pack, &json, world);
        let by = translated.as_ref().map_or(&[][..], |translated| &translated.by);
        let documented = translated.as_ref().map_or(&json, |translated| &translated.json);
        self.declared.count(pack, documented, by, world, &mut self.seen);
        match translated {
            Some(Translated { json: documented, by }) => {
                (documented, by.first().map(|index| Deviating { index: *index, raw: Some(json) }))
            }
            None => (json, None),
        }
    }

    /// Returns when the next assumed message is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.assumed.iter().map(|assumed| assumed.due).min()
    }

    /// Drops the assumed messages on a connection that one of the hub's own makes up for.
    pub fn not_absent(&mut self, pack: &Pack, connection: u32, json: &Value) {
        let is_it = |assumed: &Assumed| {
            let message = self.declared.entries()[assumed.index].message();
            assumed.connection == connection && message.is_some_and(|message| pack.messages[message].matcher.fits(json))
        };
        if let Some(place) = self.assumed.iter().position(is_it) {
            let index = self.assumed.remove(place).index;
            self.seen.entry(index).or_default().contradicted += 1;
        }
    }
}

impl Conversation {
    /// Puts the messages into the inbox that the hub never sends after a connection has opened.
    pub(super) fn assume_after_connection(&mut self, id: ActorId, connection: u32) {
        let declared = Arc::clone(&self.deviations.declared);
        declared.upgrades().for_each(|index| self.deviations.observe(index));
        let absent = declared.absent_after_connection(&self.program.pack, &self.environment.world);
        self.assume(id, connection, absent);
    }

    /// Puts the messages into the inbox that the hub never sends after this one.
    pub(super) fn assume_after(&mut self, id: ActorId, request: &Value) {
        let declared = &self.deviations.declared;
        if let (false, Some(connection)) = (declared.is_empty(), self.actors[id].connection) {
            let absent = declared.absent_after(&self.program.pack, request, &self.environment.world);
            self.assume(id, connection, absent);
        }
    }

    pub(super) fn assume_after_text(&mut self, id: ActorId, text: &str) {
        if !self.deviations.declared.is_empty()
            && let Ok(request) = serde_json::from_str::<Value>(text)
        {
            self.assume_after(id, &request);
        }
    }

    /// Lets messages come after a moment, in which the hub does what it would have answered, or sends them after all.
    fn assume(&mut self, id: ActorId, connection: u32, absent: Vec<(usize, Value)>) {
        let due = self.clock.now + self.clock.quiet;
        let assumed = &mut self.deviations.assumed;
        assumed.extend(absent.into_iter().map(|(index, json)| Assumed { due, id, connection, index, json }));
    }

    /// Puts the assumed messages into their inboxes whose time has come.
    pub(super) fn take_assumed(&mut self) {
        let now = self.clock.now;
        let due = |assumed: &mut Assumed| assumed.due <= now;
        for Assumed { id, connection, index, json, .. } in
            self.deviations.assumed.extract_if(.., due).collect::<Vec<_>>()
        {
            if self.actors[id].connection != Some(connection) || !self.actors[id].is_open() {
                continue;
            }
            self.deviations.observe(index);
            let text = json.to_string();
            self.record(id, connection, Direction::Neither, "assumed", &text, text.len());
            let sequence = self.history.next_event();
            let deviation = Some(Arc::new(Deviating { index, raw: None }));
            let wire = Arc::new(Wire { deviation, ..self.wire(id, connection, sequence, "text", &text, text.len()) });
            // A reaction to what never came would be an answer to nothing.
            let recognised = self.program.pack.recognise(&json, Way::FromHub).map(|message| &message.name);
            let message = recognised.and_then(|name| self.program.pack.messages.iter().position(|m| m.name == *name));
            let kind = EntryKind::Message { json: Some(json), message };
            self.actors.keep(id, Entry { wire, kind, claimed: false, weight: weight(&text) });
        }
    }

    /// Records that a step holds; where it does only because a message is assumed, the rule is broken by the deviation.
    pub(super) fn holds_by<'b>(&mut self, step: &Step, claims: impl Iterator<Item = &'b Bound>) {
        let Some(check) = step.check else { return };
        let claims: Vec<&Bound> = claims.collect();
        if !self.deviates(check, &step.text, claims.iter().copied()) {
            // The end of a connection may follow from an earlier failure; a frame does not.
            let came = claims.iter().flat_map(|claim| claim.wires()).any(|wire| wire.opcode != "close");
            let outcome = self.judgement.doubted().filter(|_| !came).unwrap_or(Outcome::Holds);
            self.judgement.answer(check, &step.text, outcome, "", None);
        }
    }

    /// Records that nothing came where nothing may come: it proves something only where everything else came.
    pub(super) fn holds_silent(&mut self, step: &Step) {
        if let Some(check) = step.check {
            let outcome = self.judgement.doubted().unwrap_or(Outcome::Holds);
            self.judgement.answer(check, &step.text, outcome, "", None);
        }
    }

    /// Records a check as broken by a deviation, if one of these frames is only assumed. Returns whether one is.
    pub(super) fn deviates<'b>(&mut self, check: CheckId, step: &str, claims: impl Iterator<Item = &'b Bound>) -> bool {
        let assumed = claims.flat_map(Bound::wires).find_map(|wire| wire.assumed());
        if let Some(index) = assumed {
            let entry = &self.deviations.declared.entries()[index];
            self.judgement.deviates(check, step, entry.describe(&self.program.pack), None, index);
        }
        assumed.is_some()
    }

    /// Records a check that only what the hub really sent breaks, and not its documented form.
    pub(super) fn note_deviating(
        &mut self,
        check: CheckId,
        step: &str,
        actor: Option<ActorId>,
        frame: &str,
        of_hub: Finding,
        index: usize,
    ) {
        let Finding::Broken { expected, found, message } = of_hub else { return };
        let received = format!("{} in {}", self.history.shown(&found, 200), self.history.shown(frame, 400));
        let detail = self.detail(actor, expected, received, None);
        let message = self.history.shown(&message, 400);
        self.judgement.deviates(check, step, message, Some(detail), index);
    }

    /// Records each deviation that applied as a finding of its own, against the rules that its entry names.
    pub(super) fn record_deviations(&mut self) {
        let declared = Arc::clone(&self.deviations.declared);
        for (index, entry) in declared.entries().iter().enumerate() {
            if matches!(entry.change, Change::Setting { .. }) && !self.actors.connections.is_empty() {
                self.deviations.observe(index);
            }
            if self.deviations.seen.get(&index).is_some_and(|seen| seen.observed > 0) {
                let message = entry.describe(&self.program.pack);
                self.judgement.deviates_everywhere(&name(index), entry.rules.clone(), message, index);
            }
        }
    }
}
