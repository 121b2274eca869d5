//! Fences: before a step relies on what another actor did, the hub gets time to take note of it. No ping helps: a pong
//! shows that the hub's WebSocket library has read the connection, not that the hub knows it.

use std::time::Duration;

use super::Conversation;
use super::actor::ConnectionState;
use crate::scenario::model::{ActorId, Step};

/// How long a hub gets by default to take note of a connection.
pub const SETTLE_AFTER_CONNECT: Duration = Duration::from_millis(30);
/// How long it gets before a finding that rests on a fence stands.
pub const AMPLE_SETTLE: Duration = Duration::from_millis(300);

impl Conversation {
    /// Returns until when a step waits because it relies on what other actors did just now; `None` if it need not wait.
    pub(super) fn fence_end(&self, step: &Step) -> Option<Duration> {
        let settle = self.clock.stretched(self.clock.settle);
        let changed = step.fences.iter().filter_map(|id| self.changed_at(*id)).max()?;
        Some(changed + settle).filter(|until| self.clock.now < *until)
    }

    /// Returns when an actor last connected, sent something or left, unless a message shows that the hub knows it.
    fn changed_at(&self, id: ActorId) -> Option<Duration> {
        let actor = &self.actors[id];
        match &actor.link {
            ConnectionState::Open { .. } if actor.latest.first_message.is_some() && !actor.latest.has_sent => None,
            ConnectionState::Open { .. } => Some(actor.opened_at.max(actor.latest.last_sent_at)),
            ConnectionState::Ended(end) if end.by_us => Some(end.at),
            _ => None,
        }
    }
}
