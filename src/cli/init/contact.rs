//! Connects to the hub, tries the messages of the candidates, and compares what the hub sent with their packs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::protocol_files::ValidProtocol;
use super::super::{CliError, hub};
use crate::check::first_contact::{ContactRecord, PlainConnection, TriedPack, try_packs};
use crate::check::stamp;
use crate::config::Target;
use crate::deviation::Deviations;
use crate::deviation::proposal::upgrade_candidates;
use crate::hub::prepare::{PreparedHub, TestedHub, prepare_hub};
use crate::outcome::{FrameKind, FrameReport, HistoryDirection};
use crate::protocol::Pack;
use crate::protocol::recognition::{FrameOccasion, HubFrame, PackEvidence, Recognition, recognise_protocol};
use crate::syntax::source::{Sources, Span};
use crate::syntax::yaml::SyntaxNode;

/// The most frames that are compared with the packs.
const MAX_COMPARED: usize = 32;
/// How long `init` looks for the place of credentials and role.
const MAX_SEARCH: Duration = Duration::from_secs(15);

/// Everything that happened at the first contact with a hub.
pub struct Contact {
    /// The connection that requested the URL itself; empty if the protocol was given.
    pub plain: ContactRecord,
    /// The connections for each candidate.
    pub tries: Vec<Vec<ContactRecord>>,
    pub frames: Vec<SeenFrame>,
    pub evidence: Vec<PackEvidence>,
    /// The entry of a target file without which the hub refuses the clients of the given protocol.
    pub upgrade: Option<Value>,
    finding: Finding,
}

/// A frame of the hub that was compared with the packs.
pub struct SeenFrame {
    pub text: String,
    /// The message that was sent before.
    pub sent: Option<String>,
    pub frame: HubFrame,
}

/// The result of the contact. Numbers are indices of candidates.
pub enum Finding {
    Recognised {
        protocol: usize,
        certain: bool,
    },
    Tied(Vec<usize>),
    /// The hub answers, but not like a hub of a known protocol.
    Unknown,
    /// There was no connection at all.
    NoContact,
}

impl Contact {
    pub fn finding(&self) -> &Finding {
        &self.finding
    }

    pub fn records(&self) -> impl Iterator<Item = &ContactRecord> {
        std::iter::once(&self.plain).chain(self.tries.iter().flatten())
    }
}

/// Connects to the hub of a target. With `named`, only tries the single candidate.
///
/// # Errors
///
/// The certificates cannot be read.
pub async fn make_contact(candidates: &[ValidProtocol], target: &Target, named: bool) -> Result<Contact, CliError> {
    let packs: Vec<TriedPack> = candidates
        .iter()
        .map(|protocol| {
            let hub = prepare(protocol, target, Deviations::default())?;
            let programs = protocol.scenarios.programs.clone();
            Ok(TriedPack { hub, shared: Arc::clone(&protocol.scenarios.shared), programs })
        })
        .collect::<Result<_, CliError>>()?;
    let Some(first) = packs.first() else { return Err(CliError::new("there are no protocols to recognise")) };
    let mut plain = ContactRecord::default();
    if !named {
        eprintln!("connecting, and listening to what the hub sends first ...");
        let mut connection = PlainConnection::open(&first.hub).await;
        let greeted = compare(candidates, connection.record(), &[]);
        let certain = matches!(greeted.finding, Finding::Recognised { certain: true, .. });
        let unreachable = connection.record().last_of(&[FrameKind::NoUpgrade, FrameKind::Unreachable]).is_some();
        if certain || unreachable {
            let record = connection.close().await;
            let mut contact = Contact { plain: record, ..greeted };
            if unreachable {
                contact.finding = Finding::NoContact;
            }
            return Ok(contact);
        }
        connection.send_nonsense().await;
        plain = connection.close().await;
    }
    let names: Vec<&str> = candidates.iter().map(|protocol| protocol.pack.name.as_str()).collect();
    eprintln!("sending the first messages of {} ...", names.join(", "));
    let known: Vec<Arc<Pack>> = candidates.iter().map(|protocol| Arc::clone(&protocol.pack)).collect();
    let convincing = move |index: usize, record: &ContactRecord| {
        let frames = record_frames(record, false);
        let frames: Vec<HubFrame> = frames.into_iter().map(|seen| seen.frame).collect();
        matches!(recognise_protocol(&[&known[index]], &frames).0, Recognition::Certain(_))
    };
    let mut tries = try_packs(&packs, &stamp(), hub::now_ms(), convincing).await;
    if named && tries.iter().all(Vec::is_empty) {
        // No scenario can be played without settings or hooks: only connects.
        tries = vec![vec![PlainConnection::open(&first.hub).await.close().await]];
    }
    let mut upgrade = None;
    if named && let Some((entry, admitted)) = find_upgrade(&candidates[0], target, &tries[0]).await? {
        (upgrade, tries) = (Some(entry), vec![admitted]);
    }
    Ok(Contact { upgrade, ..compare(candidates, &plain, &tries) })
}

/// Returns the entry with which a hub accepts clients that it refused, and what happened on their connections: tries the
/// usual places of credentials and role.
async fn find_upgrade(
    protocol: &ValidProtocol,
    target: &Target,
    refused: &[ContactRecord],
) -> Result<Option<(Value, Vec<ContactRecord>)>, CliError> {
    let is_refusal = |frame: &&FrameReport| matches!(frame.status, Some(400 | 401 | 403 | 404 | 426));
    let refusals: Vec<&FrameReport> = refused.iter().filter_map(ContactRecord::refusal).filter(is_refusal).collect();
    // Invented credentials are right nowhere.
    let is_known = refused.iter().any(|record| !record.invented_secrets);
    if refused.iter().any(ContactRecord::is_open) || refusals.is_empty() || !is_known {
        return Ok(None);
    }
    let until = Instant::now() + MAX_SEARCH;
    let (shared, programs) = (&protocol.scenarios.shared, &protocol.scenarios.programs);
    let candidates = upgrade_candidates(shared, programs, refusals.iter().map(|one| one.text.as_str()));
    for proposal in candidates.into_iter().flatten().take_while(|_| Instant::now() < until) {
        let mut sources = Sources::default();
        let node = SyntaxNode::from_json(&proposal.entry, Span::new(sources.add("entry", ""), 0..0));
        let Ok(deviations) = Deviations::parse(&[node], &protocol.pack, shared, true) else { continue };
        let hub = prepare(protocol, target, deviations)?;
        let pack = TriedPack { hub, shared: Arc::clone(shared), programs: programs.clone() };
        let is_open = |_: usize, record: &ContactRecord| record.is_open();
        let records = try_packs(&[pack], &stamp(), hub::now_ms(), is_open).await.swap_remove(0);
        if records.iter().any(ContactRecord::is_open) {
            return Ok(Some((proposal.entry, records)));
        }
    }
    Ok(None)
}

/// Prepares the hub with those settings that the protocol has.
fn prepare(protocol: &ValidProtocol, target: &Target, deviations: Deviations) -> Result<Arc<PreparedHub>, CliError> {
    let mut target = target.clone();
    for instance in &mut target.instances {
        instance.settings.retain(|name, _| protocol.scenarios.shared.settings.contains_key(name));
    }
    let hub = TestedHub::new(Arc::clone(&protocol.pack), Arc::clone(&protocol.scenarios.shared), target);
    Ok(prepare_hub(&TestedHub { deviations: Arc::new(deviations), ..hub })?)
}

fn compare(candidates: &[ValidProtocol], plain: &ContactRecord, tries: &[Vec<ContactRecord>]) -> Contact {
    let mut frames: Vec<SeenFrame> = record_frames(plain, true);
    for record in tries.iter().flatten() {
        for seen in record_frames(record, false) {
            // Most hubs greet every client in the same way.
            if frames.len() < MAX_COMPARED && !frames.iter().any(|known| known.text == seen.text) {
                frames.push(seen);
            }
        }
    }
    let packs: Vec<&Pack> = candidates.iter().map(|protocol| &*protocol.pack).collect();
    let compared: Vec<HubFrame> = frames.iter().map(|seen| seen.frame.clone()).collect();
    let (recognition, evidence) = recognise_protocol(&packs, &compared);
    let mut records = std::iter::once(plain).chain(tries.iter().flatten());
    let finding = match recognition {
        Recognition::Certain(protocol) => Finding::Recognised { protocol, certain: true },
        Recognition::Likely(protocol) => Finding::Recognised { protocol, certain: false },
        Recognition::Tied(tied) => Finding::Tied(tied),
        Recognition::Unknown if records.any(ContactRecord::is_open) => Finding::Unknown,
        Recognition::Unknown => Finding::NoContact,
    };
    Contact { plain: plain.clone(), tries: tries.to_vec(), frames, evidence, upgrade: None, finding }
}

/// Returns the hub's frames that reveal its protocol, without echoes of sent texts and frames too long to keep. `plain`
/// if the client sent nonsense.
fn record_frames(record: &ContactRecord, plain: bool) -> Vec<SeenFrame> {
    let mut sent: Vec<&str> = Vec::new();
    let mut frames = Vec::new();
    for frame in &record.frames {
        if frame.direction == HistoryDirection::Sent && frame.kind == FrameKind::Text {
            sent.push(&frame.text);
        }
        let data = frame.kind.is_message() && frame.direction == HistoryDirection::Received;
        if !data || frame.hash.is_some() {
            continue;
        }
        let payload: Option<Value> = serde_json::from_str(&frame.text).ok().filter(|_| frame.kind == FrameKind::Text);
        let repeats =
            |sent: &&str| **sent == frame.text || payload.is_some() && serde_json::from_str(sent).ok() == payload;
        if sent.iter().any(repeats) {
            continue;
        }
        let occasion = match sent.is_empty() {
            true => FrameOccasion::Unasked,
            false if plain => FrameOccasion::AfterNonsense,
            false => FrameOccasion::AfterMessage,
        };
        let sent = sent.last().map(|text| (*text).to_owned());
        frames.push(SeenFrame { text: frame.text.clone(), sent, frame: HubFrame { payload, occasion } });
    }
    frames
}
