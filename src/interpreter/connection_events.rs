//! What happens on connections: upgrades, frames and ends.

use std::sync::Arc;

use serde_json::Value;

use super::Conversation;
use super::actor::{ClosingHandshake, ConnectionEnd, ConnectionState, InboxFrame, InboxFrameKind};
use super::checks::WEBSOCKET_CHECK;
use super::promptness::{HUB_CONNECTION, UPGRADE};
use crate::outcome::{FrameKind, FrameReport, HistoryDirection};
use crate::scenario::model::ActorId;
use crate::websocket::frame::{AssembledMessage, ConnectionEvent, NO_ANSWER};

/// Where an event belongs.
#[derive(Clone, Copy)]
struct EventPlace {
    id: ActorId,
    connection: u32,
    /// Whether this is the actor's latest connection.
    current: bool,
    /// Position among all events of the conversation.
    sequence: u64,
}

impl Conversation {
    pub(super) fn receive(&mut self, connection: u32, what: ConnectionEvent) {
        let Some(id) = self.actors.connections.get(&connection).copied() else {
            return self.keep_waiting(connection, what);
        };
        let current = self.actors[id].connection == Some(connection);
        let place = EventPlace { id, connection, current, sequence: self.history.next_event() };
        match what {
            ConnectionEvent::Upgraded { status, headers, subprotocol } => {
                self.receive_upgrade(place, status, &headers, subprotocol);
            }
            ConnectionEvent::Refused { status, headers, body, reason } => {
                self.receive_refusal(place, status, &headers, &body, &reason);
            }
            ConnectionEvent::NoUpgrade { reason, bound } => self.receive_no_upgrade(place, reason, bound),
            ConnectionEvent::Unreachable { reason } => {
                self.add_missed(Some(id), UPGRADE);
                self.record_frame(id, connection, HistoryDirection::Neither, FrameKind::Unreachable, &reason, 0);
                self.contact.add_cut(self.clock.now);
                if current {
                    self.actors[id].link = ConnectionState::Unreachable { reason };
                }
            }
            ConnectionEvent::Message(message) => self.receive_data(place, message),
            ConnectionEvent::Ping(data) => self.take_control(place, false, &data),
            ConnectionEvent::Pong(data) => self.take_control(place, true, &data),
            ConnectionEvent::Close { code, reason } => self.receive_close(place, code, reason),
            ConnectionEvent::Violation { what, section, bound } => self.receive_violation(place, what, section, bound),
            ConnectionEvent::End { reset, reason } => self.receive_end(place, reset, reason),
        }
    }

    /// Handles an accepted upgrade.
    fn receive_upgrade(
        &mut self,
        place: EventPlace,
        status: u16,
        headers: &[(String, String)],
        subprotocol: Option<String>,
    ) {
        let EventPlace { id, connection, current, sequence } = place;
        let is_from_hub = self.program.is_server(id);
        self.waits.add_arrival(if is_from_hub { HUB_CONNECTION } else { UPGRADE });
        self.record_frame(
            id,
            connection,
            HistoryDirection::Neither,
            FrameKind::Open,
            &self.actors[id].latest.address.iter().chain(&subprotocol).cloned().collect::<Vec<_>>().join(" "),
            0,
        );
        if subprotocol.is_none() && !self.actors[id].latest.offered.is_empty() {
            self.contact.activity.unselected = Some(self.actors[id].latest.offered.clone());
        }
        let upgrade =
            serde_json::json!({ "status": status, "headers": header_object(headers), "subprotocol": subprotocol });
        self.judge_wire(id, &upgrade, true);
        if current {
            self.actors[id].opened_at = self.clock.now;
            self.actors[id].opened_event = sequence;
            self.actors[id].link = ConnectionState::Open { upgrade };
            self.assume_after_connection(id, connection);
        }
    }

    /// Handles an answer to the upgrade that does not accept it.
    fn receive_refusal(
        &mut self,
        place: EventPlace,
        status: u16,
        headers: &[(String, String)],
        body: &[u8],
        reason: &str,
    ) {
        let EventPlace { id, connection, current, sequence } = place;
        self.waits.add_arrival(UPGRADE);
        let shown = self.with_address(id, reason);
        let masked = self.history.masker.mask(&shown).into_owned();
        let frame = self.frame_report(id, connection, HistoryDirection::Neither, FrameKind::Refused, &masked, 0);
        self.add_frame(FrameReport { status: Some(status), ..frame });
        // Any other status is a refusal, and the document may require a refusal.
        if status == 101 && self.actors[id].latest.standard_upgrade {
            self.judgement.record_websocket_violation(
                &self.program.actors[id].name,
                "an accepted upgrade is complete (RFC 6455, section 4.2.2)",
                reason,
            );
        }
        if current {
            let body = String::from_utf8_lossy(body);
            let refusal = serde_json::json!({ "status": status, "headers": header_object(headers), "body": body });
            if status == 101 {
                let mut upgrade = refusal.clone();
                upgrade["wrong"] = Value::from(reason);
                self.judge_wire(id, &upgrade, true);
            }
            // A redirect, or a busy or broken server: the hub's own answer is unknown.
            let undecided = matches!(status, 300..400 | 429 | 500..600);
            self.actors[id].link = ConnectionState::Refused { sequence, refusal, text: masked, undecided };
        }
    }

    /// Handles a missing answer to the upgrade, or one that is not HTTP or exceeds a limit (`bound`).
    fn receive_no_upgrade(&mut self, place: EventPlace, reason: String, bound: bool) {
        let EventPlace { id, connection, current, sequence } = place;
        if reason.starts_with(NO_ANSWER) {
            self.add_missed(Some(id), UPGRADE);
            self.waits.report.silent_checks.insert(WEBSOCKET_CHECK.to_owned());
        }
        let shown = self.with_address(id, &reason);
        self.record_frame(id, connection, HistoryDirection::Neither, FrameKind::NoUpgrade, &shown, 0);
        if bound {
            self.judgement.record_websocket_undecided(&self.program.actors[id].name, &reason);
        } else if !self.judge_wire(id, &serde_json::json!({ "wrong": reason }), true) {
            let expected = "a WebSocket server answers the upgrade (RFC 6455, section 4.2.2)";
            self.judgement.record_websocket_violation(&self.program.actors[id].name, expected, &reason);
        }
        if !bound && !reason.starts_with(NO_ANSWER) {
            self.contact.add_cut(self.clock.now);
        }
        if current {
            let refusal = serde_json::json!({});
            self.actors[id].link = ConnectionState::Refused { sequence, refusal, text: reason, undecided: bound };
        }
    }

    /// Handles a whole message.
    fn receive_data(&mut self, place: EventPlace, message: AssembledMessage) {
        let EventPlace { id, connection, current, sequence } = place;
        let size = message.payload.len();
        let text = if message.binary {
            to_hex(&message.payload)
        } else {
            // The codec guarantees UTF-8. The payload may be long, so avoid a copy.
            String::from_utf8(message.payload)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
        };
        let kind = if message.binary { FrameKind::Binary } else { FrameKind::Text };
        self.record_frame(id, connection, HistoryDirection::Received, kind, &text, size);
        self.judge_frame(id, kind, size);
        if current {
            let wire = self.new_wire(id, connection, sequence, kind.name(), &text, size);
            drop(text);
            self.receive_message(id, Arc::new(wire), message.binary);
        }
    }

    /// Handles a close frame.
    fn receive_close(&mut self, place: EventPlace, code: Option<u16>, reason: String) {
        let EventPlace { id, connection, current, sequence } = place;
        let text = code.map_or_else(String::new, |code| format!("{code} {reason}"));
        self.record_frame(id, connection, HistoryDirection::Received, FrameKind::Close, text.trim_end(), text.len());
        self.judge_frame(id, FrameKind::Close, code.map_or(0, |_| reason.len() + 2));
        if current && self.actors[id].is_open() {
            self.record_end(id, sequence, true, code, reason);
        } else if current {
            self.record_close_answer(id, sequence, Some(code), reason, false);
        }
    }

    /// Handles a violation of RFC 6455, or of a limit of hubproof (`bound`).
    fn receive_violation(&mut self, place: EventPlace, what: String, section: &str, bound: bool) {
        let EventPlace { id, connection, current, sequence } = place;
        self.record_frame(id, connection, HistoryDirection::Received, FrameKind::Broken, &what, 0);
        let name = &self.program.actors[id].name;
        let mut blamed = false;
        if bound {
            self.judgement.record_websocket_undecided(name, &format!("{what}: exceeds the limits of hubproof"));
        } else {
            let name = name.clone();
            let wire = serde_json::json!({ "kind": "broken", "size": 0, "section": section, "wrong": what });
            blamed = self.judge_wire(id, &wire, false);
            if !blamed {
                self.judgement.record_websocket_violation(
                    &name,
                    &format!("frames conform to RFC 6455, section {section}"),
                    &what,
                );
            }
        }
        // Do not blame the hub again for the frames that hubproof did not read after the broken one.
        let by_us = bound || blamed;
        if current && self.actors[id].is_open() {
            if by_us {
                self.record_own_end(id, sequence, what, false);
            } else {
                self.record_end(id, sequence, false, None, what);
            }
        } else if current {
            self.record_close_answer(id, sequence, None, what, by_us);
        }
    }

    /// Handles the end of the stream.
    fn receive_end(&mut self, place: EventPlace, reset: bool, reason: String) {
        let EventPlace { id, connection, current, sequence } = place;
        if current {
            let after = self.clock.since(self.actors[id].opened_at).as_secs_f64();
            self.actors[id].latest.stream_end =
                Some(serde_json::json!({ "reset": reset, "reason": reason, "after": after }));
        }
        let text = if reset { format!("reset: {reason}") } else { reason };
        if current && self.actors[id].is_open() {
            self.record_frame(id, connection, HistoryDirection::Neither, FrameKind::End, &text, 0);
            self.contact.add_cut(self.clock.now);
            self.record_end(id, sequence, false, None, text);
        } else if current {
            if matches!(self.actors[id].latest.closing, ClosingHandshake::Sent) {
                self.contact.add_cut(self.clock.now);
            }
            self.record_close_answer(id, sequence, None, text, false);
        }
    }

    fn take_control(&mut self, place: EventPlace, pong: bool, data: &[u8]) {
        let EventPlace { id, connection, current, sequence } = place;
        let text = String::from_utf8_lossy(data).into_owned();
        let kind = if pong { FrameKind::Pong } else { FrameKind::Ping };
        self.record_frame(id, connection, HistoryDirection::Received, kind, &text, data.len());
        self.judge_frame(id, kind, data.len());
        if current {
            let wire = self.new_wire(id, connection, sequence, kind.name(), &text, data.len());
            if pong {
                self.answer_last_ping(id, data);
            }
            let kind = InboxFrameKind::Control { pong, data: data.to_vec() };
            let entry = InboxFrame { weight: 2 * wire.size, wire: Arc::new(wire), kind, claimed: false };
            self.actors.keep(id, entry, &self.program.pack);
        }
    }

    fn record_end(&mut self, id: ActorId, sequence: u64, close_frame: bool, code: Option<u16>, reason: String) {
        let actor = &mut self.actors[id];
        let after = self.clock.since(actor.opened_at);
        let end = ConnectionEnd {
            sequence,
            at: self.clock.now,
            after,
            close_frame,
            code,
            reason,
            claimed: false,
            by_us: false,
        };
        // The hub may have closed instead of sending the assumed message.
        self.judgement.rest_on(self.deviations.provenance_of_next(self.actors[id].connection));
        self.judge_close(id, &end);
        self.add_end();
        self.actors[id].link = ConnectionState::Ended(end);
    }

    /// Records that hubproof ended the connection: in a step (`foreseen`), or because of a limit of hubproof. In the
    /// latter case it is unknown what the hub would have sent.
    pub(super) fn record_own_end(&mut self, id: ActorId, sequence: u64, reason: String, foreseen: bool) {
        let actor = &mut self.actors[id];
        let after = self.clock.since(actor.opened_at);
        actor.latest.end_noticed = true;
        actor.link = ConnectionState::Ended(ConnectionEnd {
            sequence,
            at: self.clock.now,
            after,
            close_frame: false,
            code: None,
            reason,
            claimed: foreseen,
            by_us: true,
        });
    }
}

fn header_object(headers: &[(String, String)]) -> Value {
    let mut members = serde_json::Map::new();
    for (name, value) in headers {
        members.insert(name.to_ascii_lowercase(), Value::from(value.clone()));
    }
    Value::Object(members)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().take(4096).map(|byte| format!("{byte:02x} ")).collect::<String>().trim_end().to_owned()
}
