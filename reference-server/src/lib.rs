//! The reference hub of hubproof: a server that speaks its protocols as their documents say, and breaks
//! them on demand, one named defect at a time.
//!
//! In reading order:
//!
//! * [`mod@machine`]: what a protocol hears and says, without sockets or clocks;
//! * `airavata`, `concierge`, `emprops`, `gator`, `qi`: one state machine per protocol;
//! * [`protocols::websocket`]: a hub below all of them, bytes in and bytes out;
//! * [`fault`] and [`fault::injector`]: deliberate defects, read from `faults/`, most of them changes to the outputs of a correct
//!   machine;
//! * [`fault::fuzz_only`]: those that only fuzzing brings out;
//! * [`machine::settings`]: what can be configured;
//! * [`serve()`], [`server::admin`], [`server::tls`]: the io shell, one task per connection around one machine (`hub`);
//! * [`relay`]: the same changes made to the frames of any hub, at places computed from facts about its messages;
//! * [`server::args`]: the command line, shared by this crate's binary and whoever embeds it.
//!
//! What is absent: anything of the judge. This crate shares no code, schema or scenario with the harness that
//! tests it; both read the same documents.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod fault;
pub mod machine;
pub mod protocols;
pub mod relay;
pub mod server;

pub use fault::Fault;
pub use machine::Machine;
pub use machine::settings::Settings;
pub use server::args::{ServeArgs, run};
pub use server::serve::{Error, HubConfig, Running, RunningHub, ServeConfig, serve};
pub use server::tls::Tls;

use std::sync::{LazyLock, OnceLock};

use fault::{Broken, Effect};
use machine::settings::SettingsError;

/// Builds a protocol's machine.
type Build = fn(&Settings, Broken) -> Result<Box<dyn Machine>, SettingsError>;

/// A protocol of the hub.
struct Protocol {
    name: &'static str,
    build: Build,
    /// How the ids of its rules begin.
    rules: &'static str,
    /// Its deliberate defects: the file, and what was read from it.
    file: &'static str,
    faults: OnceLock<Vec<Fault>>,
}

/// All protocols: one line each.
static PROTOCOLS: [Protocol; 6] = [
    Protocol::new(protocols::qi::PROTOCOL, protocols::qi::build, "QI", include_str!("../faults/qi.yaml")),
    Protocol::new(
        protocols::concierge::PROTOCOL,
        protocols::concierge::build,
        "CON",
        include_str!("../faults/concierge.yaml"),
    ),
    Protocol::new(
        protocols::emprops::PROTOCOL,
        protocols::emprops::build,
        "EMP",
        include_str!("../faults/emprops.yaml"),
    ),
    Protocol::new(
        protocols::airavata::PROTOCOL,
        protocols::airavata::build,
        "AIR",
        include_str!("../faults/airavata.yaml"),
    ),
    Protocol::new(protocols::gator::PROTOCOL, protocols::gator::build, "GAT", include_str!("../faults/gator.yaml")),
    Protocol::new(
        protocols::websocket::PROTOCOL,
        protocols::websocket::build,
        "WS",
        include_str!("../faults/websocket.yaml"),
    ),
];

impl Protocol {
    const fn new(name: &'static str, build: Build, rules: &'static str, file: &'static str) -> Protocol {
        Protocol { name, build, rules, file, faults: OnceLock::new() }
    }

    /// Its faults, read once.
    fn faults(&'static self) -> &'static [Fault] {
        // The file is part of the program: a mistake in it is a mistake in the program.
        let read = || fault::parse::faults(self.name, self.rules, self.file).unwrap_or_else(|error| panic!("{error}"));
        self.faults.get_or_init(read)
    }

    /// Its fault of that id, where one is asked for.
    fn fault(&'static self, id: Option<&str>) -> Result<Option<&'static Fault>, MachineError> {
        let Some(id) = id else { return Ok(None) };
        let fault = self.faults().iter().find(|fault| fault.id == id);
        fault.map(Some).ok_or_else(|| MachineError::UnknownFault { protocol: self.name, id: id.to_owned() })
    }
}

/// The protocol of that name.
fn protocol(name: &str) -> Result<&'static Protocol, MachineError> {
    let known = PROTOCOLS.iter().find(|known| known.name == name);
    known.ok_or_else(|| MachineError::UnknownProtocol(name.to_owned()))
}

static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| PROTOCOLS.iter().map(|protocol| protocol.name).collect());

/// The names of the protocols.
pub fn protocols() -> &'static [&'static str] {
    &NAMES
}

/// All deliberate defects, protocol by protocol.
pub fn faults() -> impl Iterator<Item = &'static Fault> {
    PROTOCOLS.iter().flat_map(Protocol::faults)
}

/// Why a machine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No such protocol.
    #[error("there is no protocol {0:?}; the reference hub speaks {names}", names = protocols().join(", "))]
    UnknownProtocol(String),
    /// No such fault in this protocol.
    #[error("{protocol} has no fault {id:?}{hint}", hint = hint(protocol, id))]
    UnknownFault {
        /// The protocol.
        protocol: &'static str,
        /// What was asked for.
        id: String,
    },
    /// The protocol does not understand its settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

fn hint(protocol: &str, id: &str) -> String {
    match faults().find(|fault| fault.id == id) {
        Some(fault) => format!(": it belongs to {}", fault.protocol),
        None => format!("; --list-faults shows all {} of them", faults().filter(|f| f.protocol == protocol).count()),
    }
}

/// Builds the state machine of a protocol, correct or with one deliberate defect.
///
/// # Errors
/// [`MachineError`]: an unknown protocol or fault, or settings that the protocol refuses.
pub fn machine(protocol: &str, settings: &Settings, fault: Option<&str>) -> Result<Box<dyn Machine>, MachineError> {
    let known = self::protocol(protocol)?;
    let fault = known.fault(fault)?;
    let correct = (known.build)(settings, Broken::with(fault))?;
    Ok(match fault.map(|fault| fault.effect) {
        Some(Effect::Outside(changes)) => Box::new(fault::injector::Mangled::new(correct, changes)),
        Some(Effect::FuzzOnly(fault)) => Box::new(fault::fuzz_only::FuzzOnlyMachine::new(correct, fault)),
        _ => correct,
    })
}
