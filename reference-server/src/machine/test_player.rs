//! Conversations with machines for tests: no sockets, no clock, a line per thing said.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::machine::settings::Settings;
use crate::machine::{Conn, EventError, Handshake, Input, Machine, Output};

/// A machine, the time, and what each connection has heard and not yet looked at.
pub struct Play {
    machine: Box<dyn Machine>,
    now: Duration,
    heard: BTreeMap<Conn, Vec<String>>,
    /// Everything ever said, with its time in milliseconds.
    pub said: Vec<String>,
}

impl Play {
    /// A hub with settings (`KEY=VALUE`) and possibly a fault. Ids and times are reproducible.
    pub fn new(protocol: &str, sets: &[&str], fault: Option<&str>) -> Play {
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
        let machine = crate::machine(protocol, &settings, fault).unwrap();
        Play { machine, now: Duration::ZERO, heard: BTreeMap::new(), said: Vec::new() }
    }

    /// Gives the machine an input.
    pub fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.machine.handle(self.now, input, &mut out);
        self.hear(out);
    }

    /// Gives the machine an event from the admin side.
    pub fn event(&mut self, event: &Value) -> Result<Value, EventError> {
        let mut out = Vec::new();
        let answer = self.machine.event(self.now, event, &mut out);
        self.hear(out);
        answer
    }

    fn hear(&mut self, out: Vec<Output>) {
        for output in out {
            let conn = output.conn();
            let line = match output {
                Output::Accept { subprotocol, .. } => {
                    format!("accept {}", subprotocol.unwrap_or_default())
                }
                Output::Refuse { status, .. } => format!("refuse {status}"),
                Output::Text { text, .. } => text.to_string(),
                Output::Binary { data, .. } => format!("binary {}", String::from_utf8_lossy(&data)),
                Output::Close { code, .. } => format!("close {code}"),
                Output::Drop { .. } => "drop".to_owned(),
                Output::Connect { url, .. } => format!("connect {url}"),
            };
            self.said.push(format!("{} {conn} {line}", self.now.as_millis()));
            self.heard.entry(conn).or_default().push(line);
        }
    }

    /// Opens a connection, offering `ert-concierge`, and forgets that it was accepted.
    pub fn open(&mut self, conn: Conn) {
        let handshake = Handshake { subprotocols: vec!["ert-concierge".to_owned()], ..Handshake::default() };
        self.input(Input::Open { conn, handshake });
        self.heard(conn);
    }

    /// Says a text.
    pub fn say(&mut self, conn: Conn, text: &str) {
        self.input(Input::Text { conn, text: text.into() });
    }

    /// Says a text and looks at everything heard since.
    pub fn ask(&mut self, conn: Conn, text: &str) -> Vec<String> {
        self.heard(conn);
        self.say(conn, text);
        self.heard(conn)
    }

    /// Says a text that has one answer, JSON.
    pub fn answer(&mut self, conn: Conn, text: &str) -> Value {
        let heard = self.ask(conn, text);
        assert_eq!(heard.len(), 1, "{text} is answered by {heard:?}");
        serde_json::from_str(&heard[0]).unwrap_or_else(|error| panic!("{text} is answered by {heard:?}: {error}"))
    }

    /// What a connection has heard since it last looked.
    pub fn heard(&mut self, conn: Conn) -> Vec<String> {
        self.heard.remove(&conn).unwrap_or_default()
    }

    /// Moves time, ticking the machine whenever it asks for it.
    pub fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(deadline) = self.machine.deadline()
            && deadline <= until
        {
            self.now = self.now.max(deadline);
            self.input(Input::Tick);
            assert!(self.machine.deadline() != Some(deadline), "a tick at the deadline settles it");
        }
        self.now = until;
    }

    /// What the machine shows the admin side.
    pub fn state(&self) -> Value {
        self.machine.state()
    }
}
