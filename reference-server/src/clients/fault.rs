//! The faults of clients, read from `faults/clients.yaml`.

use std::sync::LazyLock;

use indexmap::IndexMap;
use serde::Deserialize;

use super::ClientError;
use super::reaction::{Reaction, Understood, WrongReaction};
use super::tampering::FrameTampering;
use crate::fault::{ChangeAction, FrameCondition, OutputChange, OutputSelector, parse};

/// The protocol of the faults that break only RFC 6455, which clients of every protocol can have.
pub const ANY_PROTOCOL: &str = "websocket";
/// The section of the file with faults of the same kind in several protocols.
const EACH: &str = "each";

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
    /// A wrong reaction of a client that is otherwise correct to some of the hub's texts.
    Reaction(WrongReaction),
    /// A change to the frames of a correct client, or to those that it gets.
    Frames(FrameTampering),
    /// This part of a correct upgrade request becomes another one.
    Upgrade(String, String),
}

impl ClientFault {
    /// Whether clients of this protocol can have the fault.
    pub fn fits(&self, protocol: &str) -> bool {
        self.protocol == protocol || self.protocol == ANY_PROTOCOL
    }
}

/// A fault as written in the file.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultEntry {
    text: String,
    says: String,
    when: Option<OutputSelector>,
    act: Option<ChangeAction>,
    by: Option<FaultImplementation>,
    frames: Option<FrameTampering>,
    upgrade: Option<(String, String)>,
    then: Option<Reaction>,
    /// What the protocols with this fault add.
    #[serde(default)]
    of: IndexMap<String, FaultPlace>,
    #[serde(default)]
    at: String,
    #[serde(default)]
    breaks: Vec<String>,
    #[serde(default, deserialize_with = "parse::conditions")]
    on: &'static [FrameCondition],
    unless: Option<Understood>,
}

/// What one of the protocols with the same fault adds to it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultPlace {
    at: String,
    breaks: Vec<String>,
    #[serde(default, deserialize_with = "parse::conditions")]
    on: &'static [FrameCondition],
    unless: Option<Understood>,
    then: Option<Reaction>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FaultImplementation {
    Code,
}

static FAULTS: LazyLock<Vec<ClientFault>> = LazyLock::new(|| {
    // The file is compiled in, so a mistake in it is a bug of the program.
    parse_faults(include_str!("../../faults/clients.yaml")).unwrap_or_else(|error| panic!("{error}"))
});

/// Returns all faults of clients, first those that several protocols share.
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
    for (section, entries) in file {
        for (name, entry) in entries {
            if section != EACH {
                all.push(entry.into_fault(section.clone(), name)?);
                continue;
            }
            for (protocol, place) in entry.of.clone() {
                let FaultPlace { at, breaks, on, unless, then } = place;
                let (unless, then) = (unless.or_else(|| entry.unless.clone()), then.or_else(|| entry.then.clone()));
                let entry = FaultEntry { at, breaks, on, unless, then, ..entry.clone() };
                all.push(entry.into_fault(protocol, name.clone())?);
            }
        }
    }
    Ok(all)
}

impl FaultEntry {
    fn into_fault(self, protocol: String, name: String) -> Result<ClientFault, String> {
        let effect = match (self.when, self.act, self.by, self.frames, self.upgrade, self.then) {
            (Some(when), Some(act), None, None, None, None) => ClientFaultEffect::Outside(vec![when.with_action(act)]),
            (None, None, Some(FaultImplementation::Code), None, None, None) => ClientFaultEffect::Inside,
            (None, None, None, Some(frames), None, None) => ClientFaultEffect::Frames(frames),
            (None, None, None, None, Some((from, to)), None) => ClientFaultEffect::Upgrade(from, to),
            (None, None, None, None, None, Some(then)) => {
                ClientFaultEffect::Reaction(WrongReaction { on: self.on, unless: self.unless, then })
            }
            _ => {
                return Err(format!(
                    "{protocol} {name}: give `when` and `act`, or `by`, `frames`, `upgrade` or `then`"
                ));
            }
        };
        Ok(ClientFault {
            id: format!("{protocol}-client-{name}"),
            protocol: protocol.leak(),
            name: name.leak(),
            text: self.text,
            statement: self.says,
            rules: self.breaks,
            place: self.at,
            effect,
        })
    }
}
