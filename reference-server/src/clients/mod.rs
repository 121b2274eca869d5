//! Clients and workers that do what their protocols' documents demand of that side, and break it on demand, one named
//! fault at a time.
//!
//! A client is a state machine without sockets or clocks ([`ClientMachine`]); [`run()`] connects it to a hub. Words such
//! as `request` say what it does. Most faults change what a correct client sends ([`fault`]).

mod airavata;
pub mod args;
mod concierge;
mod emprops;
pub mod fault;
mod gator;
mod qi;
mod reaction;
mod reconnection;
mod runner;
mod tampering;
#[cfg(test)]
mod tests;
mod websocket;

use std::cell::RefCell;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::fault::{ClientFault, ClientFaultEffect};
use self::reaction::{Reaction, WrongReaction};
use crate::fault::ChangeAction;
use crate::fault::injector::{ChangeMatcher, Trigger, edit_frame};
use crate::machine::clock::HubClock;
use crate::machine::ids::UuidStream;
use crate::machine::json::{Members, optional_member, split_members};
use crate::machine::settings::{Settings, SettingsError};
use crate::machine::{ConnectionId, MachineOutput};

pub use self::fault::faults;
pub use self::runner::run;

/// What a client is, what it does, and at which hub.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The protocol that it speaks.
    pub protocol: String,
    /// The hub's address, `ws://...`.
    pub url: String,
    /// The words for what it does, see [`words`].
    pub does: Vec<String>,
    /// The id of its fault, if it has one.
    pub fault: Option<String>,
    /// The settings of its protocol.
    pub settings: Settings,
    /// Whether it leaves once it has done everything, instead of waiting for the hub to close.
    pub leaves: bool,
}

/// An error of a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("there is no client for {0:?}; there are clients for {names}", names = protocols().join(", "))]
    UnknownProtocol(String),
    #[error("a client of {protocol} cannot do {word:?}; it can do {words}", words = words(protocol).join(", "))]
    UnknownWord { protocol: String, word: String },
    #[error("clients of {protocol} have no fault {id:?}; --list-faults lists all faults")]
    UnknownFault { protocol: String, id: String },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("failed to {what}: {source}")]
    System { what: &'static str, source: std::io::Error },
    /// The connection ended before everything was done, or could not be made.
    #[error("{0}")]
    Ended(String),
}

/// An input of a client's machine.
#[derive(Debug, Clone, Copy)]
pub enum ClientInput<'a> {
    /// The connection is established.
    Opened,
    /// A whole text message.
    Text(&'a str),
    /// The hub has closed the connection with this code; or the connection was lost, or could not be made, for this
    /// reason.
    Closed(Result<u16, &'a str>),
    /// The machine's deadline has come.
    Tick,
    /// The client is about to close the connection.
    Leaving,
}

/// An output of a client's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOutput {
    /// Connect to the hub, offering the subprotocol. [`ClientInput::Opened`] or [`ClientInput::Closed`] follows.
    Connect { url: String, subprotocol: Option<&'static str> },
    /// Send a text message.
    Text(String),
    /// Drop the connection without a close, and end.
    Die,
}

/// One protocol's client as a state machine. It starts with a connection.
pub(crate) trait ClientMachine: Send {
    /// Returns the request for a connection.
    fn connect(&self) -> ClientOutput;

    /// Handles one input at `now` (time since the start) and appends the resulting outputs to `out`.
    fn handle(&mut self, now: Duration, input: ClientInput<'_>, out: &mut Vec<ClientOutput>);

    /// Returns when the machine next needs a [`ClientInput::Tick`], if ever. After the end of a connection, the machine
    /// has a deadline exactly if it is going to connect again.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// Whether the client has done everything that its words ask for.
    fn is_done(&self) -> bool;
}

type ClientBuilder = fn(ClientSetup) -> Result<Box<dyn ClientMachine>, SettingsError>;

struct ClientProtocol {
    name: &'static str,
    words: &'static [&'static str],
    build: ClientBuilder,
}

static PROTOCOLS: [ClientProtocol; 6] = [
    ClientProtocol { name: qi::PROTOCOL, words: qi::WORDS, build: qi::build },
    ClientProtocol { name: concierge::PROTOCOL, words: concierge::WORDS, build: concierge::build },
    ClientProtocol { name: emprops::PROTOCOL, words: emprops::WORDS, build: emprops::build },
    ClientProtocol { name: airavata::PROTOCOL, words: airavata::WORDS, build: airavata::build },
    ClientProtocol { name: gator::PROTOCOL, words: gator::WORDS, build: gator::build },
    ClientProtocol { name: websocket::PROTOCOL, words: websocket::WORDS, build: websocket::build },
];

/// The settings in seconds that the document leaves to the client: a test of the client has to know them as well.
pub const TIMES: [&str; 2] = ["heartbeat", "reconnect"];

/// Returns the names of the protocols that have a client.
pub fn protocols() -> Vec<&'static str> {
    PROTOCOLS.iter().map(|protocol| protocol.name).collect()
}

/// Returns the words for what a client of this protocol can do.
pub fn words(protocol: &str) -> &'static [&'static str] {
    PROTOCOLS.iter().find(|known| known.name == protocol).map_or(&[], |known| known.words)
}

/// What every client's machine is built from.
pub(crate) struct ClientSetup {
    url: String,
    does: Vec<String>,
    fault: Option<&'static ClientFault>,
    settings: Settings,
    clock: HubClock,
    ids: RefCell<UuidStream>,
}

impl ClientSetup {
    fn does(&self, word: &str) -> bool {
        self.does.iter().any(|does| does == word)
    }

    /// Whether the client has the fault of this name, which the machine itself implements.
    fn is_broken(&self, name: &str) -> bool {
        self.fault.is_some_and(|fault| fault.name == name && matches!(fault.effect, ClientFaultEffect::Inside))
    }

    fn next_uuid(&self) -> String {
        self.ids.borrow_mut().next_uuid().to_string()
    }
}

/// The settings of a client that has none.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoSettings {}

/// A received message, whose members keep their raw text.
struct ReceivedMessage<'a>(Members<'a>);

impl<'a> ReceivedMessage<'a> {
    /// Splits a text into its members; a text that is not a JSON object has none.
    fn read(text: &'a str) -> ReceivedMessage<'a> {
        ReceivedMessage(split_members(text).unwrap_or_default())
    }

    /// Reads a member; `None` if it is absent or of another type.
    fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        optional_member(&self.0, name).ok().flatten()
    }

    /// Reads a string, empty if it is absent or of another type.
    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default()
    }
}

fn send(message: &Value) -> ClientOutput {
    ClientOutput::Text(message.to_string())
}

/// The number that stands for the client's only connection where changes to outputs need one.
const CONNECTION: ConnectionId = 0;

/// A client's machine with its fault.
pub(crate) struct Client {
    machine: Box<dyn ClientMachine>,
    changes: ChangeMatcher,
    reaction: Option<&'static WrongReaction>,
    /// Delayed texts with the times at which they are due.
    delayed: Vec<(Duration, ClientOutput)>,
}

impl Client {
    /// Builds the machine that the options ask for. `seed` makes its ids and times reproducible.
    ///
    /// # Errors
    /// [`ClientError`]: an unknown protocol, word or fault, or settings that the protocol refuses.
    pub fn build(options: &ClientOptions, seed: Option<u64>) -> Result<Client, ClientError> {
        let protocol = PROTOCOLS
            .iter()
            .find(|known| known.name == options.protocol)
            .ok_or_else(|| ClientError::UnknownProtocol(options.protocol.clone()))?;
        if let Some(word) = options.does.iter().find(|word| !protocol.words.contains(&word.as_str())) {
            return Err(ClientError::UnknownWord { protocol: options.protocol.clone(), word: word.clone() });
        }
        let fault = fault::find_fault(protocol.name, options.fault.as_deref())?;
        let setup = ClientSetup {
            url: options.url.clone(),
            does: options.does.clone(),
            fault,
            settings: options.settings.clone(),
            clock: HubClock::new(seed.map(|_| 1_705_312_345_000)),
            ids: RefCell::new(UuidStream::new(seed)),
        };
        let (changes, reaction) = match fault.map(|fault| &fault.effect) {
            Some(ClientFaultEffect::Outside(changes)) => (changes.as_slice(), None),
            Some(ClientFaultEffect::Reaction(reaction)) => (&[][..], Some(reaction)),
            _ => (&[][..], None),
        };
        let (machine, changes) = ((protocol.build)(setup)?, ChangeMatcher::new(changes));
        Ok(Client { machine, changes, reaction, delayed: Vec::new() })
    }

    /// Returns the request for the first connection.
    pub fn connect(&self) -> ClientOutput {
        self.machine.connect()
    }

    /// Handles an input, and returns the outputs as the fault changes them.
    pub fn handle(&mut self, now: Duration, input: ClientInput<'_>) -> Vec<ClientOutput> {
        if let ClientInput::Closed(_) = input {
            self.delayed.clear();
        }
        let mut out: Vec<_> = self.delayed.extract_if(.., |(due, _)| *due <= now).map(|(_, output)| output).collect();
        let cause = match input {
            ClientInput::Text(text) => Trigger::Frame(CONNECTION, serde_json::from_str(text).ok()),
            _ => Trigger::Other(Some(CONNECTION)),
        };
        let mut made = Vec::new();
        self.machine.handle(now, input, &mut made);
        if let (ClientInput::Text(text), Some(wrong)) = (input, self.reaction)
            && wrong.is_due(text)
        {
            match &wrong.then {
                Reaction::Die => made = vec![ClientOutput::Die],
                Reaction::Send(answer) => made.push(ClientOutput::Text(answer.clone())),
            }
        }
        for output in made {
            match output {
                ClientOutput::Text(text) => self.change_text(now, &cause, text, &mut out),
                other => out.push(other),
            }
        }
        out
    }

    fn change_text(&mut self, now: Duration, cause: &Trigger, text: String, out: &mut Vec<ClientOutput>) {
        let output = MachineOutput::Text { conn: CONNECTION, text: text.as_str().into() };
        match self.changes.next_action(cause, &output, &mut None) {
            None => out.push(ClientOutput::Text(text)),
            Some(ChangeAction::Drop) => {}
            Some(ChangeAction::Double) => out.extend([ClientOutput::Text(text.clone()), ClientOutput::Text(text)]),
            Some(ChangeAction::Also(more)) => {
                out.extend([ClientOutput::Text(text), ClientOutput::Text(more.into_owned())]);
            }
            Some(ChangeAction::Before(more)) => {
                out.extend([ClientOutput::Text(more.into_owned()), ClientOutput::Text(text)]);
            }
            Some(ChangeAction::Delay(by)) => self.delayed.push((now + by, ClientOutput::Text(text))),
            Some(edit) => out.push(ClientOutput::Text(edit_frame(&text, &edit).unwrap_or(text))),
        }
    }

    /// Returns when the client next needs a tick, if ever.
    pub fn deadline(&self) -> Option<Duration> {
        self.delayed.iter().map(|(due, _)| *due).chain(self.machine.deadline()).min()
    }

    /// Whether the client has done everything that its words ask for.
    pub fn is_done(&self) -> bool {
        self.machine.is_done()
    }
}
