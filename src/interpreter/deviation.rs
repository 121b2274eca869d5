//! Applies the declared deviations of a hub to what a conversation sends and receives.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Conversation;
use super::actor::{Entry, EntryKind};
use crate::deviation::{Change, Translated, name};
use crate::event::{Direction, Outcome};
use crate::protocol::Way;
use crate::scenario::model::{ActorId, CheckId, Step};
use crate::scenario::value::{Bound, Deviating, Wire};

use super::decode::weight;
use super::finding::Finding;

/// A message that the hub never sends, and that an actor takes as received when it is due.
pub(super) struct Assumed {
    pub due: Duration,
    id: ActorId,
    connection: u32,
    /// Index of the deviation.
    index: usize,
    json: Value,
}

impl Conversation {
    /// Returns a message as the hub wants it; `None` where that is the documented form.
    pub(super) fn of_hub(&mut self, documented: &Value) -> Option<Value> {
        let translated = self.config.deviations.sent(&self.program.pack, documented, &self.world)?;
        Some(self.sent(translated))
    }

    fn sent(&mut self, Translated { json, by }: Translated) -> Value {
        // What is sent as declared shows nothing, unless the hub sends none of it itself.
        let deviations = Arc::clone(&self.config.deviations);
        for index in by.into_iter().filter(|index| deviations.is_only_sent(&self.program.pack, *index)) {
            self.deviations.entry(index).or_default().observed += 1;
        }
        json
    }

    /// Returns a text to be sent as the hub wants it.
    pub(super) fn text_of_hub(&mut self, text: &str) -> String {
        let deviations = Arc::clone(&self.config.deviations);
        match deviations.sent_text(&self.program.pack, text, &self.world) {
            Some(translated) => self.sent(translated).to_string(),
            None => text.to_owned(),
        }
    }

    /// Translates a received message to its documented form. Returns it with what the hub really sent, if that differs.
    pub(super) fn documented(&mut self, json: Value) -> (Value, Option<Deviating>) {
        let deviations = Arc::clone(&self.config.deviations);
        if deviations.is_empty() {
            return (json, None);
        }
        let translated = deviations.received(&self.program.pack, &json, &self.world);
        let by = translated.as_ref().map_or(&[][..], |translated| &translated.by);
        let documented = translated.as_ref().map_or(&json, |translated| &translated.json);
        deviations.count(&self.program.pack, documented, by, &self.world, &mut self.deviations);
        match translated {
            Some(Translated { json: documented, by }) => {
                (documented, by.first().map(|index| Deviating { index: *index, raw: Some(json) }))
            }
            None => (json, None),
        }
    }

    /// Puts the messages into the inbox that the hub never sends after a connection has opened.
    pub(super) fn assume_after_connection(&mut self, id: ActorId, connection: u32) {
        let deviations = Arc::clone(&self.config.deviations);
        for index in deviations.upgrades() {
            self.deviations.entry(index).or_default().observed += 1;
        }
        let absent = deviations.absent_after_connection(&self.program.pack, &self.world);
        self.assume(id, connection, absent);
    }

    /// Puts the messages into the inbox that the hub never sends after this one.
    pub(super) fn assume_after(&mut self, id: ActorId, request: &Value) {
        let deviations = Arc::clone(&self.config.deviations);
        if let (false, Some(connection)) = (deviations.is_empty(), self.actors[id].connection) {
            let absent = deviations.absent_after(&self.program.pack, request, &self.world);
            self.assume(id, connection, absent);
        }
    }

    pub(super) fn assume_after_text(&mut self, id: ActorId, text: &str) {
        if !self.config.deviations.is_empty()
            && let Ok(request) = serde_json::from_str::<Value>(text)
        {
            self.assume_after(id, &request);
        }
    }

    /// Lets messages come after a moment, in which the hub does what it would have answered, or sends them after all.
    fn assume(&mut self, id: ActorId, connection: u32, absent: Vec<(usize, Value)>) {
        let due = self.now + self.config.quiet;
        self.assumed.extend(absent.into_iter().map(|(index, json)| Assumed { due, id, connection, index, json }));
    }

    /// Puts the assumed messages into their inboxes whose time has come.
    pub(super) fn take_assumed(&mut self) {
        let due = |assumed: &mut Assumed| assumed.due <= self.now;
        for Assumed { id, connection, index, json, .. } in self.assumed.extract_if(.., due).collect::<Vec<_>>() {
            if self.actors[id].connection != Some(connection) || !self.actors[id].is_open() {
                continue;
            }
            self.deviations.entry(index).or_default().observed += 1;
            let text = json.to_string();
            self.record(id, connection, Direction::Neither, "assumed", &text, text.len());
            let sequence = self.next_sequence();
            let deviation = Some(Arc::new(Deviating { index, raw: None }));
            let wire = Arc::new(Wire { deviation, ..self.wire(id, connection, sequence, "text", &text, text.len()) });
            // A reaction to what never came would be an answer to nothing.
            let recognised = self.program.pack.recognise(&json, Way::FromHub).map(|message| &message.name);
            let message = recognised.and_then(|name| self.program.pack.messages.iter().position(|m| m.name == *name));
            let kind = EntryKind::Message { json: Some(json), message };
            self.keep(id, Entry { wire, kind, claimed: false, weight: weight(&text) });
        }
    }

    /// Drops the assumed messages on a connection that one of the hub's own makes up for.
    pub(super) fn not_absent(&mut self, connection: u32, json: &Value) {
        let (pack, deviations) = (&self.program.pack, &self.config.deviations);
        let is_it = |assumed: &Assumed| {
            let message = deviations.entries()[assumed.index].message();
            assumed.connection == connection && message.is_some_and(|message| pack.messages[message].matcher.fits(json))
        };
        if let Some(place) = self.assumed.iter().position(is_it) {
            let index = self.assumed.remove(place).index;
            self.deviations.entry(index).or_default().contradicted += 1;
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
            let entry = &self.config.deviations.entries()[index];
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
        let received = format!("{} in {}", self.shown(&found, 200), self.shown(frame, 400));
        let detail = self.detail(actor, expected, received, None);
        let message = self.shown(&message, 400);
        self.judgement.deviates(check, step, message, Some(detail), index);
    }

    /// Records each deviation that applied as a finding of its own, against the rules that its entry names.
    pub(super) fn record_deviations(&mut self) {
        let deviations = Arc::clone(&self.config.deviations);
        let connected = !self.connections.is_empty();
        for (index, entry) in deviations.entries().iter().enumerate() {
            if matches!(entry.change, Change::Setting { .. }) && connected {
                self.deviations.entry(index).or_default().observed += 1;
            }
            if self.deviations.get(&index).is_some_and(|seen| seen.observed > 0) {
                let message = entry.describe(&self.program.pack);
                self.judgement.deviates_everywhere(&name(index), entry.rules.clone(), message, index);
            }
        }
    }
}
