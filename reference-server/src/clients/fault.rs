//! The faults of clients, read from `faults/clients.yaml`.

use std::sync::LazyLock;

use indexmap::IndexMap;
use serde::Deserialize;

use super::ClientError;
use super::tampering::FrameTampering;
use crate::fault::{ChangeAction, OutputChange, OutputSelector};

/// The protocol of the faults that break only RFC 6455, which clients of every protocol can have.
pub const ANY_PROTOCOL: &str = "websocket";

/// A deliberate fault of a client.
#[derive(Debug)]
pub struct ClientFault {
    /// The fault's name: `qi-client-version-missing`.
    pub id: String,
    /// The protocol whose client has the fault, or [`ANY_PROTOCOL`].
    pub protocol: &'static str,
    /// The name within its protocol: `version-missing`.
    pub(super) name: &'static str,
    /// What the client does wrong, in one sentence.
    pub text: String,
    /// The statement that it breaks, in words.
    pub statement: String,
    /// The ids of the rules that it breaks.
    pub rules: Vec<String>,
    /// Where that statement is: a line of the protocol's document, or a section of RFC 6455.
    pub place: String,
    /// The implementation of the fault.
    pub(super) effect: ClientFaultEffect,
}

/// The implementation of a fault.
#[derive(Debug)]
pub(super) enum ClientFaultEffect {
    /// The machine checks for the fault's name.
    Inside,
    /// Changes to the texts of a correct client; the first change that matches a text is made.
    Outside(Vec<OutputChange>),
    /// A change to the frames of a correct client.
    Frames(FrameTampering),
}

impl ClientFault {
    /// Whether clients of this protocol can have the fault.
    pub fn fits(&self, protocol: &str) -> bool {
        self.protocol == protocol || self.protocol == ANY_PROTOCOL
    }
}

/// A fault as written in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultEntry {
    text: String,
    at: String,
    says: String,
    #[serde(default)]
    breaks: Vec<String>,
    when: Option<OutputSelector>,
    act: Option<ChangeAction>,
    by: Option<FaultImplementation>,
    frames: Option<FrameTampering>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FaultImplementation {
    Code,
}

static FAULTS: LazyLock<Vec<ClientFault>> = LazyLock::new(|| {
    // The file is compiled in, so a mistake in it is a bug of the program.
    parse_faults(include_str!("../../faults/clients.yaml")).unwrap_or_else(|error| panic!("{error}"))
});

/// Returns all faults of clients, protocol by protocol.
pub fn faults() -> &'static [ClientFault] {
    &FAULTS
}

/// Finds a fault of a protocol's client by its id; `None` without an id.
pub(super) fn find_fault(protocol: &str, id: Option<&str>) -> Result<Option<&'static ClientFault>, ClientError> {
    let Some(id) = id else { return Ok(None) };
    let fault = faults().iter().find(|fault| fault.id == id && fault.fits(protocol));
    fault.map(Some).ok_or_else(|| ClientError::UnknownFault { protocol: protocol.to_owned(), id: id.to_owned() })
}

fn parse_faults(yaml: &str) -> Result<Vec<ClientFault>, String> {
    let file: IndexMap<String, IndexMap<String, FaultEntry>> =
        serde_saphyr::from_str(yaml).map_err(|error| format!("reference-server/faults/clients.yaml: {error}"))?;
    let mut all = Vec::new();
    for (protocol, entries) in file {
        let protocol: &'static str = protocol.leak();
        for (name, entry) in entries {
            let effect = match (entry.when, entry.act, entry.by, entry.frames) {
                (Some(when), Some(act), None, None) => ClientFaultEffect::Outside(vec![when.with_action(act)]),
                (None, None, Some(FaultImplementation::Code), None) => ClientFaultEffect::Inside,
                (None, None, None, Some(frames)) => ClientFaultEffect::Frames(frames),
                _ => return Err(format!("{protocol} {name}: give `when` and `act`, or `by`, or `frames`")),
            };
            all.push(ClientFault {
                id: format!("{protocol}-client-{name}"),
                protocol,
                name: name.leak(),
                text: entry.text,
                statement: entry.says,
                rules: entry.breaks,
                place: entry.at,
                effect,
            });
        }
    }
    Ok(all)
}
