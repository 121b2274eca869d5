//! A simulated connection to the hub of the WebSocket protocol itself, on bytes: the harness's upgrade and codec on one
//! side, the hub's on the other, with a queue instead of sockets, so that faults in framing are deterministic and fast,
//! too.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hubproof::interpreter::{Conversation, ConversationInput, ConversationOutput};
use hubproof::outcome::ScenarioReport;
use hubproof::transport::{ConnectionSide, PeerLimits};
use hubproof::websocket::codec::{FrameDecoder, encode};
use hubproof::websocket::dial::Dial;
use hubproof::websocket::frame::{ConnectionEvent, Frame};
use hubproof::websocket::handshake;
use hubproof_reference::protocols::websocket::Session;

/// A conversation with more turns than this hangs.
const MAX_TURNS: usize = 100_000;
/// A key of 16 bytes, different for each connection.
const KEYS: [&str; 3] = ["MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA==", "YWFhYWFhYWFhYWFhYWFhYQ=="];
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Behaviour that RFC 6455 permits but the reference hub does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebSocketHabit {
    #[default]
    None,
    /// Sends continuously: messages, also fragmented, with pings between them, and unsolicited pongs.
    Chatty,
    /// Closes every connection at once, with an application-specific code.
    SendsAway,
    /// Closes on every message, with an application-specific code.
    DislikesMessages,
    /// Cuts the connection on every message.
    CutsOnMessages,
    /// Refuses every upgrade.
    Refuses,
}

/// A text, a text in three frames with a ping and a pong between them, an empty binary message.
const CHATTY_FRAMES: &[u8] = b"\x81\x02{}\x01\x02\"\xc3\x89\x02ok\x00\x00\x8a\x03hey\x80\x02\xb6\"\x82\x00";

pub fn play(conversation: Conversation, fault: Option<&str>, habit: WebSocketHabit) -> ScenarioReport {
    WebSocketConversation {
        conversation,
        fault,
        habit,
        now: Duration::ZERO,
        inputs: VecDeque::new(),
        connections: BTreeMap::new(),
    }
    .play()
}

struct WebSocketConversation<'a> {
    conversation: Conversation,
    fault: Option<&'a str>,
    habit: WebSocketHabit,
    now: Duration,
    inputs: VecDeque<ConversationInput>,
    connections: BTreeMap<u32, WebSocketConnection>,
}

/// Both ends of one connection.
struct WebSocketConnection {
    session: Session,
    decoder: FrameDecoder,
    close_sent: bool,
    /// Whether its end was reported.
    over: bool,
}

impl WebSocketConversation<'_> {
    fn play(mut self) -> ScenarioReport {
        let outputs = self.conversation.start(self.now);
        self.carry_out(outputs);
        for _ in 0..MAX_TURNS {
            if let Some(input) = self.inputs.pop_front() {
                let outputs = self.conversation.handle(self.now, input);
                self.carry_out(outputs);
            } else if self.conversation.is_finished() {
                return self.conversation.into_report();
            } else {
                // Nothing is queued: advance the clock to the next deadline.
                self.now = self.now.max(self.conversation.deadline().expect("the conversation has a deadline"));
                self.inputs.push_back(ConversationInput::Tick);
            }
        }
        panic!("the conversation never ends");
    }

    fn carry_out(&mut self, outputs: Vec<ConversationOutput>) {
        for output in outputs {
            match output {
                ConversationOutput::Open { connection, dial } => self.open(connection, &dial),
                ConversationOutput::Send { connection, frames } => self.send(connection, &frames),
                ConversationOutput::SendBytes { connection, bytes } => self.exchange_bytes(connection, &bytes),
                ConversationOutput::End { connection, .. } => {
                    self.end_connection(connection, true, "this side ended it")
                }
                ConversationOutput::Trace(_) | ConversationOutput::Waiting { .. } => {}
                other => panic!("not supported by this connection: {other:?}"),
            }
        }
    }

    fn send_to_conversation(&mut self, connection: u32, what: ConnectionEvent) {
        self.inputs.push_back(ConversationInput::Received { connection, what });
    }

    fn open(&mut self, number: u32, dial: &Dial) {
        let fresh = KEYS[number as usize % KEYS.len()];
        let key = dial.key(fresh);
        let request =
            Dial { path: None, query: Vec::new(), ..dial.clone() }.request(&"ws://virtual".parse().unwrap(), key);
        let mut session = Session::new(self.fault).unwrap();
        let mut answer = Vec::new();
        session.receive(&request.unwrap(), &mut answer);
        let first = match handshake::parse_response_head(&answer) {
            Ok(Some(head)) => {
                answer.drain(..head.length);
                handshake::judge_response(head, key, &dial.subprotocols)
            }
            Ok(None) => ConnectionEvent::NoUpgrade {
                reason: "the hub closed the connection before answering".to_owned(),
                bound: false,
            },
            Err(error) => ConnectionEvent::NoUpgrade { reason: error.to_string(), bound: error.exceeds_limit() },
        };
        let first = match self.habit {
            WebSocketHabit::Refuses => {
                let reason = "HTTP 401 instead of 101".to_owned();
                ConnectionEvent::Refused { status: 401, headers: Vec::new(), body: Vec::new(), reason }
            }
            _ => first,
        };
        let over = !matches!(first, ConnectionEvent::Upgraded { .. });
        self.send_to_conversation(number, first);
        let decoder = FrameDecoder::new(ConnectionSide::Client, PeerLimits::default());
        self.connections.insert(number, WebSocketConnection { session, decoder, close_sent: false, over });
        match self.habit {
            WebSocketHabit::Chatty => self.exchange_bytes(number, &[]),
            WebSocketHabit::SendsAway => self.close(number, Some(4001)),
            _ => {}
        }
    }

    fn close(&mut self, number: u32, code: Option<u16>) {
        if self.connections.get(&number).is_some_and(|connection| !connection.over) {
            if code.is_some() {
                self.send_to_conversation(number, ConnectionEvent::Close { code, reason: String::new() });
            }
            self.end_connection(number, false, "the hub ended the stream");
        }
    }

    fn send(&mut self, number: u32, frames: &[Frame]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| encode(frame, MASK, &mut bytes));
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.close_sent |=
                frames.iter().any(|frame| frame.opcode == hubproof::websocket::frame::Opcode::Close);
        }
        let message = frames.iter().any(|frame| !frame.opcode.is_control() && frame.fin);
        match self.habit {
            WebSocketHabit::DislikesMessages if message => self.close(number, Some(1008)),
            WebSocketHabit::CutsOnMessages if message => self.close(number, None),
            _ => self.exchange_bytes(number, &bytes),
        }
    }

    /// Passes bytes to the hub and returns its answer.
    fn exchange_bytes(&mut self, number: u32, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&number).filter(|connection| !connection.over) else { return };
        let speaks = self.habit == WebSocketHabit::Chatty && !connection.session.is_over();
        let mut answer = if speaks { CHATTY_FRAMES.to_vec() } else { Vec::new() };
        let mut events = Vec::new();
        connection.session.receive(bytes, &mut answer);
        let mut rest = answer.as_slice();
        while let Some(event) = connection.decoder.next_event(&mut rest) {
            events.push(event);
        }
        let (hung_up, close_sent) = (connection.session.is_over(), connection.close_sent);
        for event in events {
            let violated = matches!(event, ConnectionEvent::Violation { .. });
            let closed = matches!(event, ConnectionEvent::Close { .. });
            self.send_to_conversation(number, event);
            if violated {
                return self.end_connection(number, true, "dropped after the violation");
            }
            if closed && !close_sent {
                self.send(number, &[Frame::close(Some(1000), "")]);
            }
        }
        if hung_up {
            self.end_connection(number, false, "the hub ended the stream");
        }
    }

    fn end_connection(&mut self, number: u32, reset: bool, reason: &str) {
        let open =
            self.connections.get_mut(&number).is_some_and(|connection| !std::mem::replace(&mut connection.over, true));
        if open {
            self.send_to_conversation(number, ConnectionEvent::End { reset, reason: reason.to_owned() });
        }
    }
}
