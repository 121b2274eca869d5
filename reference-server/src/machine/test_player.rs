//! Conversations with machines for tests: no sockets, no clock, a line per output.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::machine::settings::Settings;
use crate::machine::{ConnectionId, EventError, Handshake, Machine, MachineInput, MachineOutput};

/// A machine, the time, and the outputs to each connection that the test has not read yet.
pub struct TestPlayer {
    machine: Box<dyn Machine>,
    now: Duration,
    received: BTreeMap<ConnectionId, Vec<String>>,
}

impl TestPlayer {
    /// A hub with settings (`KEY=VALUE`), with reproducible ids and times.
    pub fn new(protocol: &str, sets: &[&str]) -> TestPlayer {
        let mut settings = Settings::default();
        match protocol {
            "concierge" => settings.set("seed", "1").unwrap(),
            // 2024-01-15T10:30:00Z
            "airavata" | "gator" => settings.set("epoch_ms", "1705314600000").unwrap(),
            _ => {}
        }
        for set in sets {
            settings.set_pair(set).unwrap();
        }
        let machine = crate::build_machine(protocol, &settings, None).unwrap();
        TestPlayer { machine, now: Duration::ZERO, received: BTreeMap::new() }
    }

    /// Gives the machine an input.
    pub fn input(&mut self, input: MachineInput) {
        let mut out = Vec::new();
        self.machine.handle(self.now, input, &mut out);
        self.record(out);
    }

    /// Gives the machine an event from the admin side.
    pub fn event(&mut self, event: &Value) -> Result<Value, EventError> {
        let mut out = Vec::new();
        let answer = self.machine.event(self.now, event, &mut out);
        self.record(out);
        answer
    }

    fn record(&mut self, out: Vec<MachineOutput>) {
        for output in out {
            let conn = output.conn();
            let line = match output {
                MachineOutput::Accept { subprotocol, .. } => {
                    format!("accept {}", subprotocol.unwrap_or_default())
                }
                MachineOutput::Refuse { status, .. } => format!("refuse {status}"),
                MachineOutput::Text { text, .. } => text.to_string(),
                MachineOutput::Binary { data, .. } => format!("binary {}", String::from_utf8_lossy(&data)),
                MachineOutput::Close { code, .. } => format!("close {code}"),
                MachineOutput::Drop { .. } => "drop".to_owned(),
                MachineOutput::Connect { url, .. } => format!("connect {url}"),
            };
            self.received.entry(conn).or_default().push(line);
        }
    }

    /// Opens a connection, offering `ert-concierge`, and skips its acceptance.
    pub fn open(&mut self, conn: ConnectionId) {
        let handshake = Handshake { subprotocols: vec!["ert-concierge".to_owned()], ..Handshake::default() };
        self.input(MachineInput::Open { conn, handshake });
        self.received(conn);
    }

    /// Sends a text.
    pub fn send(&mut self, conn: ConnectionId, text: &str) {
        self.input(MachineInput::Text { conn, text: text.into() });
    }

    /// Sends a text and returns what the connection receives for it.
    pub fn send_and_receive(&mut self, conn: ConnectionId, text: &str) -> Vec<String> {
        self.received(conn);
        self.send(conn, text);
        self.received(conn)
    }

    /// Sends a text that has one answer, and returns it parsed.
    pub fn only_answer(&mut self, conn: ConnectionId, text: &str) -> Value {
        let received = self.send_and_receive(conn, text);
        assert_eq!(received.len(), 1, "{text} is answered by {received:?}");
        serde_json::from_str(&received[0]).unwrap_or_else(|error| panic!("{text} is answered by {received:?}: {error}"))
    }

    /// Returns what a connection has received since the last call.
    pub fn received(&mut self, conn: ConnectionId) -> Vec<String> {
        self.received.remove(&conn).unwrap_or_default()
    }

    /// Returns the JSON texts that a connection has received since the last call.
    pub fn received_json(&mut self, conn: ConnectionId) -> Vec<Value> {
        self.received(conn).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Sends a text and returns the JSON texts that the connection receives for it.
    pub fn send_and_receive_json(&mut self, conn: ConnectionId, text: &str) -> Vec<Value> {
        self.received(conn);
        self.send(conn, text);
        self.received_json(conn)
    }

    /// Lets time pass, with a tick at each of the machine's deadlines.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(deadline) = self.machine.deadline()
            && deadline <= until
        {
            self.now = self.now.max(deadline);
            self.input(MachineInput::Tick);
            assert!(self.machine.deadline() != Some(deadline), "a tick at the deadline moves the deadline");
        }
        self.now = until;
    }

    /// Returns what the machine shows the admin side.
    pub fn state(&self) -> Value {
        self.machine.state()
    }
}
