//! A simulated connection to the hub of the WebSocket protocol itself, on bytes: the harness's upgrade and codec on one
//! side, the hub's on the other, with a queue instead of sockets, so that faults in framing are deterministic and fast,
//! too.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hubproof::event::ScenarioReport;
use hubproof::interpreter::{Conversation, Input, Output};
use hubproof::transport::{Limits, Role};
use hubproof::websocket::codec::{Decoder, encode};
use hubproof::websocket::frame::{Frame, Received};
use hubproof::websocket::handshake::{self, Dial};
use hubproof_reference::protocols::websocket::Session;

/// A conversation with more turns than this hangs.
const MOST_TURNS: usize = 100_000;
/// A key of 16 bytes, different for each connection.
const KEYS: [&str; 3] = ["MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA==", "YWFhYWFhYWFhYWFhYWFhYQ=="];
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Behaviour that RFC 6455 permits but the reference hub does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Habit {
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
const CHATTER: &[u8] = b"\x81\x02{}\x01\x02\"\xc3\x89\x02ok\x00\x00\x8a\x03hey\x80\x02\xb6\"\x82\x00";

pub fn play(conversation: Conversation, fault: Option<&str>, habit: Habit) -> ScenarioReport {
    Wire { conversation, fault, habit, now: Duration::ZERO, inputs: VecDeque::new(), connections: BTreeMap::new() }
        .play()
}

struct Wire<'a> {
    conversation: Conversation,
    fault: Option<&'a str>,
    habit: Habit,
    now: Duration,
    inputs: VecDeque<Input>,
    connections: BTreeMap<u32, Connection>,
}

/// Both ends of one connection.
struct Connection {
    session: Session,
    decoder: Decoder,
    close_sent: bool,
    /// Whether its end was reported.
    over: bool,
}

impl Wire<'_> {
    fn play(mut self) -> ScenarioReport {
        let outputs = self.conversation.start(self.now);
        self.carry(outputs);
        for _ in 0..MOST_TURNS {
            if let Some(input) = self.inputs.pop_front() {
                let outputs = self.conversation.handle(self.now, input);
                self.carry(outputs);
            } else if self.conversation.is_finished() {
                return self.conversation.into_report();
            } else {
                // Nothing is queued: advance the clock to the next deadline.
                self.now = self.now.max(self.conversation.deadline().expect("the conversation has a deadline"));
                self.inputs.push_back(Input::Tick);
            }
        }
        panic!("the conversation never ends");
    }

    fn carry(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Open { connection, dial } => self.open(connection, &dial),
                Output::Send { connection, frames } => self.send(connection, &frames),
                Output::SendBytes { connection, bytes } => self.pass(connection, &bytes),
                Output::End { connection, .. } => self.end(connection, true, "this side ended it"),
                Output::Trace(_) | Output::Waiting { .. } => {}
                other => panic!("not supported by this connection: {other:?}"),
            }
        }
    }

    fn tell(&mut self, connection: u32, what: Received) {
        self.inputs.push_back(Input::Received { connection, what });
    }

    fn open(&mut self, number: u32, dial: &Dial) {
        let fresh = KEYS[number as usize % KEYS.len()];
        let key = dial.key(fresh);
        let request = Dial { path: None, query: Vec::new(), ..dial.clone() }.request("virtual", "/", key);
        let mut session = Session::new(self.fault).unwrap();
        let mut answer = Vec::new();
        session.receive(&request.unwrap(), &mut answer);
        let first = match handshake::response_head(&answer) {
            Ok(Some(head)) => {
                answer.drain(..head.length);
                handshake::judge_response(head, key, &dial.subprotocols)
            }
            Ok(None) => Received::NoUpgrade {
                reason: "the hub closed the connection before answering".to_owned(),
                bound: false,
            },
            Err(error) => Received::NoUpgrade { reason: error.to_string(), bound: error.is_bound() },
        };
        let first = match self.habit {
            Habit::Refuses => {
                let reason = "HTTP 401 instead of 101".to_owned();
                Received::Refused { status: 401, headers: Vec::new(), body: Vec::new(), reason }
            }
            _ => first,
        };
        let over = !matches!(first, Received::Upgraded { .. });
        self.tell(number, first);
        let decoder = Decoder::new(Role::Client, Limits::default());
        self.connections.insert(number, Connection { session, decoder, close_sent: false, over });
        match self.habit {
            Habit::Chatty => self.pass(number, &[]),
            Habit::SendsAway => self.close(number, Some(4001)),
            _ => {}
        }
    }

    fn close(&mut self, number: u32, code: Option<u16>) {
        if self.connections.get(&number).is_some_and(|connection| !connection.over) {
            if code.is_some() {
                self.tell(number, Received::Close { code, reason: String::new() });
            }
            self.end(number, false, "the hub ended the stream");
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
            Habit::DislikesMessages if message => self.close(number, Some(1008)),
            Habit::CutsOnMessages if message => self.close(number, None),
            _ => self.pass(number, &bytes),
        }
    }

    /// Passes bytes to the hub and returns its answer.
    fn pass(&mut self, number: u32, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&number).filter(|connection| !connection.over) else { return };
        let speaks = self.habit == Habit::Chatty && !connection.session.is_over();
        let mut answer = if speaks { CHATTER.to_vec() } else { Vec::new() };
        let mut events = Vec::new();
        connection.session.receive(bytes, &mut answer);
        let mut rest = answer.as_slice();
        while let Some(event) = connection.decoder.next(&mut rest) {
            events.push(event);
        }
        let (hung_up, close_sent) = (connection.session.is_over(), connection.close_sent);
        for event in events {
            let violated = matches!(event, Received::Violation { .. });
            let closed = matches!(event, Received::Close { .. });
            self.tell(number, event);
            if violated {
                return self.end(number, true, "dropped after the violation");
            }
            if closed && !close_sent {
                self.send(number, &[Frame::close(Some(1000), "")]);
            }
        }
        if hung_up {
            self.end(number, false, "the hub ended the stream");
        }
    }

    fn end(&mut self, number: u32, reset: bool, reason: &str) {
        let open =
            self.connections.get_mut(&number).is_some_and(|connection| !std::mem::replace(&mut connection.over, true));
        if open {
            self.tell(number, Received::End { reset, reason: reason.to_owned() });
        }
    }
}
