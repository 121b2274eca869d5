//! The reference hub of hubproof: a server that speaks its protocols as their documents say, and breaks
//! them on demand, one named defect at a time.
//!
//! In reading order:
//!
//! * [`mod@machine`]: what a protocol hears and says, without sockets or clocks;
//! * `airavata`, `concierge`, `emprops`, `gator`, `qi`: one state machine per protocol;
//! * [`websocket`]: a hub below all of them, bytes in and bytes out;
//! * [`fault`] and [`mangle`]: deliberate defects, most of them changes to the outputs of a correct machine;
//! * [`slips`]: those that only unheard-of input brings out;
//! * [`settings`]: what can be configured;
//! * [`serve()`], [`admin`], [`tls`]: the io shell, one task per connection around one machine (`hub`);
//! * [`relay`]: the same changes made to the frames of any hub, at places computed from facts about its messages;
//! * [`args`]: the command line, shared by this crate's binary and whoever embeds it.
//!
//! What is absent: anything of the judge. This crate shares no code, schema or scenario with the harness that
//! tests it; both read the same documents.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod admin;
mod airavata;
pub mod args;
mod clock;
mod concierge;
mod connection;
mod emprops;
#[cfg(test)]
mod every_fault;
pub mod fault;
mod gator;
mod hub;
mod ids;
mod json;
pub mod machine;
pub mod mangle;
mod outbox;
#[cfg(test)]
mod play;
mod qi;
pub mod relay;
mod serve;
pub mod settings;
pub mod slips;
pub mod tls;
pub mod websocket;

pub use args::{ServeArgs, run};
pub use fault::Fault;
pub use machine::Machine;
pub use serve::{Error, HubConfig, Running, RunningHub, ServeConfig, serve};
pub use settings::Settings;
pub use tls::Tls;

use std::sync::LazyLock;

use fault::{Broken, Effect};
use settings::SettingsError;

/// Builds a protocol's machine.
type Build = fn(&Settings, Broken) -> Result<Box<dyn Machine>, SettingsError>;

/// A protocol of the hub.
struct Protocol {
    name: &'static str,
    build: Build,
    /// The defects of the document's order, those of some occasions only, those of single members.
    faults: [&'static [Fault]; 3],
}

/// All protocols: one line each.
static PROTOCOLS: &[Protocol] = &[
    Protocol { name: qi::PROTOCOL, build: qi::build, faults: [qi::FAULTS, qi::LAPSES, qi::MEMBERS] },
    Protocol {
        name: concierge::PROTOCOL,
        build: concierge::build,
        faults: [concierge::FAULTS, concierge::LAPSES, concierge::MEMBERS],
    },
    Protocol {
        name: emprops::PROTOCOL,
        build: emprops::build,
        faults: [emprops::FAULTS, emprops::LAPSES, emprops::MEMBERS],
    },
    Protocol {
        name: airavata::PROTOCOL,
        build: airavata::build,
        faults: [airavata::FAULTS, airavata::LAPSES, airavata::MEMBERS],
    },
    Protocol { name: gator::PROTOCOL, build: gator::build, faults: [gator::FAULTS, gator::LAPSES, gator::MEMBERS] },
    Protocol { name: websocket::PROTOCOL, build: websocket::build, faults: [websocket::FAULTS, &[], &[]] },
];

static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| PROTOCOLS.iter().map(|protocol| protocol.name).collect());

/// The names of the protocols.
pub fn protocols() -> &'static [&'static str] {
    &NAMES
}

/// All deliberate defects, protocol by protocol.
pub fn faults() -> impl Iterator<Item = &'static Fault> {
    PROTOCOLS.iter().flat_map(|protocol| {
        let slips = slips::SLIPS.iter().filter(|fault| fault.protocol == protocol.name);
        protocol.faults.into_iter().flatten().chain(slips)
    })
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
    let Some(known) = PROTOCOLS.iter().find(|known| known.name == protocol) else {
        return Err(MachineError::UnknownProtocol(protocol.to_owned()));
    };
    let fault = match fault {
        None => None,
        Some(id) => Some(
            (faults().find(|fault| fault.protocol == known.name && fault.id == id))
                .ok_or_else(|| MachineError::UnknownFault { protocol: known.name, id: id.to_owned() })?,
        ),
    };
    let correct = (known.build)(settings, Broken::with(fault))?;
    Ok(match fault.map(|fault| fault.effect) {
        Some(Effect::Outside(changes)) => Box::new(mangle::Mangled::new(correct, changes)),
        Some(Effect::Slips(slip)) => Box::new(slips::Slipping::new(correct, slip)),
        _ => correct,
    })
}
