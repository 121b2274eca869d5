//! With the variation `ping`, clients ping the hub once more before they leave. Whatever happened before, the hub must
//! send the bytes of each ping back in a pong (RFC 6455, sections 5.5.2 and 5.5.3).

use std::time::Duration;

use crate::interpreter::Conversation;
use crate::outcome::FrameKind;
use crate::scenario::model::ActorId;
use crate::scenario::variation::Variation;
use crate::syntax::matcher::shorten;
use crate::websocket::frame::Frame;

/// The bytes of the pings: none, and as many as a control frame can carry. We wait for a pong before we send the next
/// ping, because a hub may answer only the latest one.
const LAST_PINGS: [&[u8]; 2] = [b"", &[b'~'; 125]];

/// An unanswered ping.
pub struct LastPing {
    /// Its index in [`LAST_PINGS`].
    number: usize,
    since: Duration,
    /// The bytes of the latest pong that does not match it.
    other: Option<Vec<u8>>,
}

impl Conversation {
    /// Pings the hub on every open connection, if the variation asks for it and each ping has to be answered.
    pub(in crate::interpreter) fn send_last_pings(&mut self) {
        if self.variation != Some(Variation::Ping) || self.judgement.interrupted || self.judgement.mistake.is_some() {
            return;
        }
        for id in self.actors.ids() {
            if self.actors.open_connection(id).is_some() && !self.actors[id].latest.may_leave_pings {
                self.send_last_ping(id, 0);
            }
        }
    }

    fn send_last_ping(&mut self, id: ActorId, number: usize) {
        let frame = self.frame_of(id, Frame::ping(LAST_PINGS[number]));
        let text = String::from_utf8_lossy(LAST_PINGS[number]);
        self.transmit(id, vec![frame], FrameKind::Ping, &text, text.len(), None);
        self.actors[id].latest.last_ping = Some(LastPing { number, since: self.clock.now, other: None });
    }

    /// Takes a pong. Hubs may send pongs that answer no ping.
    pub(in crate::interpreter) fn answer_last_ping(&mut self, id: ActorId, data: &[u8]) {
        let Some(ping) = &mut self.actors[id].latest.last_ping else { return };
        if data != LAST_PINGS[ping.number] {
            ping.other = Some(data.to_vec());
            return;
        }
        let next = ping.number + 1;
        self.actors[id].latest.last_ping = None;
        if next < LAST_PINGS.len() {
            self.send_last_ping(id, next);
        }
    }

    /// Records the pings that were not answered in time. Returns whether all are answered, or never will be.
    pub(in crate::interpreter) fn are_last_pings_over(&mut self) -> bool {
        let limit = self.last_ping_limit();
        for id in self.actors.ids() {
            let closed = self.judgement.interrupted || self.actors.open_connection(id).is_none();
            let now = self.clock.now;
            let Some(ping) = self.actors[id].latest.last_ping.take_if(|ping| closed || now >= ping.since + limit)
            else {
                continue;
            };
            if !closed {
                let length = LAST_PINGS[ping.number].len();
                let expected = format!(
                    "a ping of length {length} is answered with a pong of the same bytes (RFC 6455, section 5.5.3)"
                );
                let found = match &ping.other {
                    Some(other) => {
                        format!(
                            "only a pong of length {}: {:?}",
                            other.len(),
                            shorten(&String::from_utf8_lossy(other), 40)
                        )
                    }
                    None => format!("no pong within {:.1} s", limit.as_secs_f64()),
                };
                self.judgement.record_websocket_violation(&self.program.actors[id].name, &expected, &found);
            }
        }
        self.actors.iter().all(|actor| actor.latest.last_ping.is_none())
    }

    /// Returns when the next of these pings is late.
    pub(in crate::interpreter) fn last_ping_deadline(&self) -> Option<Duration> {
        let sent = self.actors.iter().filter_map(|actor| actor.latest.last_ping.as_ref()).map(|ping| ping.since).min();
        Some(sent? + self.last_ping_limit())
    }

    fn last_ping_limit(&self) -> Duration {
        self.clock.stretched(self.clock.patience)
    }
}
