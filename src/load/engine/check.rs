//! Validation of what comes under load, off the timed path: a shard copies, a thread of its own judges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::load::program::MessageId;
use crate::pack::{MessageType, Pack, Way};

/// How much of what comes is validated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Validate {
    All,
    /// This share, from 0 to 1, chosen evenly.
    Sample(f64),
    None,
}

/// Bytes that are handed over together.
const BATCH: usize = 128 << 10;
/// Batches that may wait; what finds no place is not validated, and counted.
const BATCHES: usize = 64;
/// Different complaints that are kept.
const COMPLAINTS: usize = 20;

/// Messages to be judged, end to end.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// What each was recognised as, and how long it is.
    messages: Vec<(Option<MessageId>, usize)>,
}

/// A shard's side: chooses and copies.
pub struct Sampler {
    share: f64,
    owed: f64,
    batch: Batch,
    to: Option<SyncSender<Work>>,
}

enum Work {
    Batch(Batch),
    /// So many found no place.
    Skipped(u64),
}

/// What validation has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub checked: u64,
    pub invalid: u64,
    /// Chosen, but the judge could not keep up.
    pub skipped: u64,
    /// What is wrong with how many, by message and place; the first [`COMPLAINTS`] kinds.
    pub complaints: BTreeMap<String, u64>,
}

/// The judging thread.
pub struct Judge {
    to: SyncSender<Work>,
    thread: std::thread::JoinHandle<Checked>,
}

impl Judge {
    /// # Errors
    /// No thread can be had.
    pub fn start(pack: Arc<Pack>, names: &[String]) -> std::io::Result<Self> {
        let (to, work) = sync_channel(BATCHES);
        let names = names.to_vec();
        let thread = std::thread::Builder::new().name("judge".to_owned()).spawn(move || judge(&pack, &names, &work))?;
        Ok(Self { to, thread })
    }

    pub fn sampler(&self, validate: Validate) -> Sampler {
        let share = match validate {
            Validate::All => 1.0,
            Validate::Sample(share) => share,
            Validate::None => 0.0,
        };
        Sampler { share, owed: 0.0, batch: Batch::default(), to: (share > 0.0).then(|| self.to.clone()) }
    }

    /// Waits for the judgement of everything that was handed over; the samplers must be gone.
    pub fn finish(self) -> Checked {
        drop(self.to);
        self.thread.join().unwrap_or_default()
    }
}

impl Sampler {
    /// One that never looks.
    pub fn blind() -> Self {
        Self { share: 0.0, owed: 0.0, batch: Batch::default(), to: None }
    }

    /// A message has come.
    pub fn see(&mut self, message: Option<MessageId>, bytes: &[u8]) {
        if self.to.is_none() {
            return;
        }
        self.owed += self.share;
        if self.owed < 1.0 {
            return;
        }
        self.owed -= 1.0;
        self.batch.bytes.extend_from_slice(bytes);
        self.batch.messages.push((message, bytes.len()));
        if self.batch.bytes.len() >= BATCH {
            self.hand_over();
        }
    }

    /// Hands over what has been chosen so far.
    pub fn hand_over(&mut self) {
        let Some(to) = &self.to else { return };
        if self.batch.messages.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        if let Err(TrySendError::Full(Work::Batch(batch))) = to.try_send(Work::Batch(batch)) {
            // A word about it must not be lost, too; it is short, and waits.
            drop(to.send(Work::Skipped(batch.messages.len() as u64)));
        }
    }
}

fn judge(pack: &Pack, names: &[String], work: &Receiver<Work>) -> Checked {
    let known: Vec<Option<&MessageType>> = names.iter().map(|name| pack.message(name)).collect();
    let mut checked = Checked::default();
    while let Ok(work) = work.recv() {
        let batch = match work {
            Work::Batch(batch) => batch,
            Work::Skipped(count) => {
                checked.skipped += count;
                continue;
            }
        };
        let mut rest = &batch.bytes[..];
        for (message, length) in batch.messages {
            let (bytes, later) = rest.split_at(length);
            rest = later;
            checked.checked += 1;
            let message = message.and_then(|id| known.get(usize::from(id.0)).copied().flatten());
            if let Some(complaint) = complaint(pack, message, bytes) {
                checked.invalid += 1;
                if checked.complaints.len() < COMPLAINTS || checked.complaints.contains_key(&complaint) {
                    *checked.complaints.entry(complaint).or_default() += 1;
                }
            }
        }
    }
    checked
}

/// What is wrong with a message, if anything is.
fn complaint(pack: &Pack, message: Option<&MessageType>, bytes: &[u8]) -> Option<String> {
    let Ok(payload) = serde_json::from_slice(bytes) else { return Some("a frame that is no JSON".to_owned()) };
    let Some(message) = message.or_else(|| pack.recognise(&payload, Way::FromHub)) else {
        return Some("a frame that is no message of the protocol".to_owned());
    };
    if message.schema.is_valid(&payload) {
        return None;
    }
    let violations = message.schema.judge(&payload);
    let first = violations.iter().find(|violation| !violation.should);
    let place = first.map_or_else(String::new, |violation| {
        format!(": {}: {}, not {}", violation.place(), violation.expected, violation.found)
    });
    Some(format!("{}{place}", message.name))
}
