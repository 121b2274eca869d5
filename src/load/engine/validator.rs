//! Validation of what comes under load, off the timed path: a shard copies, a thread of its own judges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde_json::Value;

use super::json_reuse::renew;
use crate::load::buffer_pool::PooledVec;
use crate::load::ids::MessageId;
use crate::protocol::{MessageType, Pack, Way};

/// How much of what comes is validated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Validate {
    All,
    /// This share, from 0 to 1, chosen evenly.
    Sample(f64),
    None,
}

/// Bytes that are handed over together: still in the cache when they are judged.
const BATCH: usize = 32 << 10;
/// Batches that may wait, and bytes in them, as one message may be as long as all others together; what finds no place is not
/// validated, and counted.
const BATCHES: usize = 1024;
const WAITING: usize = 16 << 20;
/// Longer messages are not kept as the tree for the next one.
const KEPT: usize = 64 << 10;
/// Different complaints that are kept.
const COMPLAINTS: usize = 20;

/// Messages to be judged, end to end.
#[derive(Default)]
struct Batch {
    bytes: PooledVec<u8>,
    /// What each was recognised as, and how long it is.
    messages: PooledVec<(Option<MessageId>, usize)>,
    /// How many before them found no place.
    skipped: u64,
}

/// A shard's side: chooses and copies.
pub struct Sampler {
    share: f64,
    owed: f64,
    batch: Batch,
    to: Option<SyncSender<Batch>>,
    /// Bytes that wait, of all shards.
    waiting: Arc<AtomicUsize>,
}

/// What validation has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub checked: u64,
    pub invalid: u64,
    /// Of no kind that the pack has, so nothing says what they should be like.
    pub undocumented: u64,
    /// Chosen, but the judge could not keep up.
    pub skipped: u64,
    /// What is wrong with how many, by message and place; the first [`COMPLAINTS`] kinds.
    pub complaints: BTreeMap<String, u64>,
}

/// The judging thread.
pub struct Judge {
    to: SyncSender<Batch>,
    waiting: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Checked>,
}

impl Judge {
    /// # Errors
    /// No thread can be had.
    pub fn start(pack: Arc<Pack>, names: &[String]) -> std::io::Result<Self> {
        let (to, work) = sync_channel(BATCHES);
        let names = names.to_vec();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        let thread = std::thread::Builder::new().name("judge".to_owned());
        let thread = thread.spawn(move || {
            super::affinity::give_way();
            judge(&pack, &names, &work, &left)
        })?;
        Ok(Self { to, waiting, thread })
    }

    pub fn sampler(&self, validate: Validate) -> Sampler {
        let share = match validate {
            Validate::All => 1.0,
            Validate::Sample(share) => share,
            Validate::None => 0.0,
        };
        let to = (share > 0.0).then(|| self.to.clone());
        Sampler { share, owed: 0.0, batch: Batch::default(), to, waiting: Arc::clone(&self.waiting) }
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
        Self { share: 0.0, owed: 0.0, batch: Batch::default(), to: None, waiting: Arc::default() }
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
        if self.batch.bytes.len() + bytes.len() > BATCH {
            self.hand_over();
        }
        if self.batch.bytes.capacity() == 0 {
            self.batch.bytes.reserve(BATCH);
        }
        self.batch.bytes.extend_from_slice(bytes);
        self.batch.messages.push((message, bytes.len()));
    }

    /// Hands over what has been chosen so far, if it finds a place; nobody waits for one.
    pub fn hand_over(&mut self) {
        let Some(to) = &self.to else { return };
        if self.batch.messages.is_empty() {
            return;
        }
        let Batch { bytes, messages, skipped } = &mut self.batch;
        let batch = Batch { bytes: bytes.take(), messages: messages.take(), skipped: std::mem::take(skipped) };
        let (skipped, length) = (batch.skipped + batch.messages.len() as u64, batch.bytes.len());
        let fits = self.waiting.fetch_add(length, Relaxed) + length <= WAITING;
        if !fits || to.try_send(batch).is_err() {
            self.waiting.fetch_sub(length, Relaxed);
            self.batch.skipped = skipped;
        }
    }

    /// The last of it, for which the judge takes its time.
    pub fn close(mut self) {
        self.waiting.fetch_add(self.batch.bytes.len(), Relaxed);
        if let Some(to) = self.to.take() {
            // A judge that is gone wants to hear nothing.
            drop(to.send(self.batch));
        }
    }
}

fn judge(pack: &Pack, names: &[String], work: &Receiver<Batch>, waiting: &AtomicUsize) -> Checked {
    // What each message was like the last time; the last place is for those that were not recognised.
    let mut known: Vec<(Option<&MessageType>, Value)> =
        names.iter().map(|name| (pack.message(name), Value::Null)).chain([(None, Value::Null)]).collect();
    let mut checked = Checked::default();
    while let Ok(batch) = work.recv() {
        checked.skipped += batch.skipped;
        waiting.fetch_sub(batch.bytes.len(), Relaxed);
        let mut rest = &batch.bytes[..];
        for (message, length) in batch.messages.iter().copied() {
            let (bytes, later) = rest.split_at(length);
            rest = later;
            checked.checked += 1;
            let place = message.map_or(names.len(), |id| usize::from(id.0).min(names.len()));
            let (message, tree) = &mut known[place];
            let judged = look(pack, *message, bytes, tree);
            if bytes.len() > KEPT {
                *tree = Value::Null;
            }
            match judged {
                Judged::Valid => {}
                Judged::Undocumented => checked.undocumented += 1,
                Judged::Invalid(complaint) => {
                    checked.invalid += 1;
                    if checked.complaints.len() < COMPLAINTS || checked.complaints.contains_key(&complaint) {
                        *checked.complaints.entry(complaint).or_default() += 1;
                    }
                }
            }
        }
    }
    checked
}

enum Judged {
    Valid,
    Undocumented,
    /// With what is wrong.
    Invalid(String),
}

/// Judges a message. `tree`: where it is read to.
fn look(pack: &Pack, message: Option<&MessageType>, bytes: &[u8], tree: &mut Value) -> Judged {
    if renew(tree, bytes).is_err() {
        return Judged::Invalid("a frame that is no JSON".to_owned());
    }
    let Some(message) = message.or_else(|| pack.recognise(tree, Way::FromHub)) else {
        return if tree.is_object() {
            Judged::Undocumented
        } else {
            Judged::Invalid("a frame that is no JSON object".to_owned())
        };
    };
    if message.schema.is_valid(tree) {
        return Judged::Valid;
    }
    let violations = message.schema.judge(tree);
    let first = violations.iter().find(|violation| !violation.should);
    let place = first.map_or_else(String::new, |violation| {
        format!(": {}: {}, not {}", violation.place(), violation.expected, violation.found)
    });
    Judged::Invalid(format!("{}{place}", message.name))
}
