//! Puts frames into the inboxes of a conversation, which have a size limit together.

use std::sync::Arc;

use super::Conversation;
use super::actor::{Actor, Entry, EntryKind, MOST_BYTES};
use crate::event::Direction;
use crate::scenario::model::ActorId;

impl Conversation {
    pub(super) fn take_control(&mut self, id: ActorId, connection: u32, sequence: u64, pong: bool, data: &[u8]) {
        let text = String::from_utf8_lossy(data).into_owned();
        let kind = if pong { "pong" } else { "ping" };
        self.record(id, connection, Direction::Received, kind, &text, data.len());
        self.judge_frame(id, kind, data.len());
        if self.actors[id].connection == Some(connection) {
            let wire = self.wire(id, connection, sequence, kind, &text, data.len());
            let kind = EntryKind::Control { pong, data: data.to_vec() };
            self.keep(id, Entry { weight: 2 * wire.size, wire: Arc::new(wire), kind, claimed: false });
        }
    }

    /// Puts a frame into an inbox. Where all inboxes are full, the oldest frames of any are dropped, but never this one.
    pub(super) fn keep(&mut self, id: ActorId, entry: Entry) {
        let newest = entry.wire.sequence;
        self.actors[id].push(entry);
        while self.actors.iter().map(|actor| actor.inbox_bytes).sum::<usize>() > MOST_BYTES {
            let front = |actor: &Actor| actor.inbox.front().map_or(u64::MAX, |entry| entry.wire.sequence);
            match self.actors.iter_mut().min_by_key(|actor| front(actor)) {
                Some(actor) if front(actor) < newest => actor.lose_oldest(),
                _ => break,
            }
        }
    }

    /// Counts the frames of an actor's current connection that no step claimed, and those dropped from a full inbox.
    pub(super) fn keep_leftovers(&mut self, id: ActorId) {
        let actor = &mut self.actors[id];
        let overflowed = std::mem::take(&mut actor.overflowed);
        if overflowed > 0 {
            *self.leftovers.entry("(dropped from a full inbox)".to_owned()).or_default() += overflowed;
        }
        for entry in actor.inbox.iter().filter(|entry| !entry.claimed) {
            let name = entry.name(&self.program.pack);
            let control = matches!(entry.kind, EntryKind::Control { .. });
            if !control && !self.program.shared.ignore.iter().any(|ignored| ignored == name) {
                *self.leftovers.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
}
