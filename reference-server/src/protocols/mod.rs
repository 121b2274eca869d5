//! The protocols, one folder each.

pub(crate) mod airavata;
pub(crate) mod concierge;
pub(crate) mod emprops;
pub(crate) mod gator;
pub(crate) mod qi;
pub mod websocket;

use std::sync::{LazyLock, OnceLock};

use crate::fault::{Fault, FaultEffect, MachineFault};
use crate::machine::Machine;
use crate::machine::settings::{Settings, SettingsError};

type MachineBuilder = fn(&Settings, MachineFault) -> Result<Box<dyn Machine>, SettingsError>;

struct Protocol {
    name: &'static str,
    build: MachineBuilder,
    /// The prefix of the ids of the protocol's rules.
    rules: &'static str,
    /// The text of the protocol's fault file.
    file: &'static str,
    faults: OnceLock<Vec<Fault>>,
}

/// All protocols: one line each.
static PROTOCOLS: LazyLock<Vec<Protocol>> = LazyLock::new(|| {
    vec![
        Protocol::new(qi::PROTOCOL, qi::build, "QI", include_str!("../../faults/qi.yaml")),
        Protocol::new(concierge::PROTOCOL, concierge::build, "CON", include_str!("../../faults/concierge.yaml")),
        Protocol::new(emprops::PROTOCOL, emprops::build, "EMP", include_str!("../../faults/emprops.yaml")),
        Protocol::new(airavata::PROTOCOL, airavata::build, "AIR", include_str!("../../faults/airavata.yaml")),
        Protocol::new(gator::PROTOCOL, gator::build, "GAT", include_str!("../../faults/gator.yaml")),
        Protocol::new(websocket::PROTOCOL, websocket::build, "WS", include_str!("../../faults/websocket.yaml")),
    ]
});

impl Protocol {
    fn new(name: &'static str, build: MachineBuilder, rules: &'static str, file: &'static str) -> Protocol {
        Protocol { name, build, rules, file, faults: OnceLock::new() }
    }

    /// Returns the protocol's faults, which are read once.
    fn faults(&'static self) -> &'static [Fault] {
        // The file is compiled in, so a mistake in it is a bug of the program.
        let read = || {
            crate::fault::parse::parse_faults(self.name, self.rules, self.file)
                .unwrap_or_else(|error| panic!("{error}"))
        };
        self.faults.get_or_init(read)
    }

    /// Returns the protocol's fault with this id; `None` without an id.
    fn fault(&'static self, id: Option<&str>) -> Result<Option<&'static Fault>, MachineError> {
        let Some(id) = id else { return Ok(None) };
        let fault = self.faults().iter().find(|fault| fault.id == id);
        fault.map(Some).ok_or_else(|| MachineError::UnknownFault { protocol: self.name, id: id.to_owned() })
    }
}

/// Finds a protocol by its name.
fn find_protocol(name: &str) -> Result<&'static Protocol, MachineError> {
    let known = PROTOCOLS.iter().find(|known| known.name == name);
    known.ok_or_else(|| MachineError::UnknownProtocol(name.to_owned()))
}

static PROTOCOL_NAMES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| PROTOCOLS.iter().map(|protocol| protocol.name).collect());

/// Returns the names of the protocols.
pub fn protocols() -> &'static [&'static str] {
    &PROTOCOL_NAMES
}

/// Returns all faults, protocol by protocol.
pub fn faults() -> impl Iterator<Item = &'static Fault> {
    PROTOCOLS.iter().flat_map(Protocol::faults)
}

/// A machine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("there is no protocol {0:?}; the reference server speaks {names}", names = protocols().join(", "))]
    UnknownProtocol(String),
    #[error("{protocol} has no fault {id:?}{hint}", hint = unknown_fault_hint(protocol, id))]
    UnknownFault { protocol: &'static str, id: String },
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

fn unknown_fault_hint(protocol: &str, id: &str) -> String {
    match faults().find(|fault| fault.id == id) {
        Some(fault) => format!(": it belongs to {}", fault.protocol),
        None => format!("; --list-faults lists all {} of them", faults().filter(|f| f.protocol == protocol).count()),
    }
}

/// Builds the state machine of a protocol, correct or with one fault.
///
/// # Errors
/// [`MachineError`]: an unknown protocol or fault, or settings that the protocol refuses.
pub fn build_machine(
    protocol: &str,
    settings: &Settings,
    fault: Option<&str>,
) -> Result<Box<dyn Machine>, MachineError> {
    let known = self::find_protocol(protocol)?;
    let fault = known.fault(fault)?;
    let correct = (known.build)(settings, MachineFault::if_implemented_by_machine(fault))?;
    Ok(match fault.map(|fault| fault.effect) {
        Some(FaultEffect::Outside(changes)) => Box::new(crate::fault::injector::Injector::new(correct, changes)),
        Some(FaultEffect::OnInput(fault)) => Box::new(crate::fault::on_input::InputFaultMachine::new(correct, fault)),
        _ => correct,
    })
}
