//! Validates received messages against their schemas in a separate thread: a shard only copies them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::load::buffer_pool::PooledVec;
use crate::load::ids::MessageId;
use crate::protocol::{FrameDirection, MessageType, Pack};

/// Which received messages are validated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValidationMode {
    All,
    /// This share, from 0 to 1, evenly spaced.
    Sample(f64),
    None,
}

/// Bytes per batch: still in the cache when they are validated.
const BATCH_BYTES: usize = 32 << 10;
/// Limits of queued batches and of their bytes, since one message may be long; what exceeds them is skipped and
/// counted.
const MAX_QUEUED_BATCHES: usize = 1024;
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// The most distinct complaints that are kept.
const MAX_COMPLAINTS: usize = 20;
/// How many of each kind of message are selected on each shard, however small the share is.
pub const LEAST_PER_MESSAGE: u32 = 100;

/// Messages to validate, concatenated.
#[derive(Default)]
struct ValidationBatch {
    bytes: PooledVec<u8>,
    /// Of each message, the kind it was classified as, and its length in bytes.
    messages: PooledVec<(Option<MessageId>, usize)>,
    /// How many messages before this batch were skipped.
    skipped: u64,
}

/// A shard's end: selects and copies messages.
pub struct MessageSampler {
    share: f64,
    owed: f64,
    /// How many messages of each kind were selected beyond the share. The first entry counts messages of no known kind.
    extra: Vec<u32>,
    batch: ValidationBatch,
    to: Option<SyncSender<ValidationBatch>>,
    /// Queued bytes of all shards.
    waiting: Arc<AtomicUsize>,
}

/// The result of validation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidationSummary {
    pub checked: u64,
    pub invalid: u64,
    /// How many messages of each type are invalid, by its name.
    pub invalid_by_message: BTreeMap<String, u64>,
    /// Messages of no type in the pack, which cannot be validated.
    pub undocumented: u64,
    /// Messages that were selected, but not validated because the queue was full.
    pub skipped: u64,
    /// Counts of violations by message and place; the first [`MAX_COMPLAINTS`] kinds.
    pub complaints: BTreeMap<String, u64>,
}

impl ValidationSummary {
    /// Adds the result of another share of the run.
    pub fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.invalid += other.invalid;
        self.undocumented += other.undocumented;
        self.skipped += other.skipped;
        let sums = [(&mut self.invalid_by_message, other.invalid_by_message), (&mut self.complaints, other.complaints)];
        for (sum, more) in sums {
            more.into_iter().for_each(|(name, count)| *sum.entry(name).or_default() += count);
        }
    }
}

/// The validating thread.
pub struct ValidatorThread {
    to: SyncSender<ValidationBatch>,
    waiting: Arc<AtomicUsize>,
    /// The number of kinds of messages.
    kinds: usize,
    thread: std::thread::JoinHandle<ValidationSummary>,
}

impl ValidatorThread {
    /// # Errors
    /// The thread cannot be started.
    pub fn start(pack: Arc<Pack>, names: &[String]) -> std::io::Result<Self> {
        let (to, work) = sync_channel(MAX_QUEUED_BATCHES);
        let (names, kinds) = (names.to_vec(), names.len());
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        let thread = std::thread::Builder::new().name("validator".to_owned());
        let thread = thread.spawn(move || {
            super::affinity::lower_priority();
            validate_batches(&pack, &names, &work, &left)
        })?;
        Ok(Self { to, waiting, kinds, thread })
    }

    pub fn sampler(&self, validate: ValidationMode) -> MessageSampler {
        let share = match validate {
            ValidationMode::All => 1.0,
            ValidationMode::Sample(share) => share,
            ValidationMode::None => 0.0,
        };
        let to = (share > 0.0).then(|| self.to.clone());
        let (extra, waiting) = (vec![0; self.kinds + 1], Arc::clone(&self.waiting));
        MessageSampler { share, owed: 0.0, extra, batch: ValidationBatch::default(), to, waiting }
    }

    /// Waits until everything queued is validated; the samplers must have been dropped.
    pub fn finish(self) -> ValidationSummary {
        drop(self.to);
        self.thread.join().unwrap_or_default()
    }
}

impl MessageSampler {
    /// Returns a sampler that selects nothing.
    pub fn disabled() -> Self {
        Self {
            share: 0.0,
            owed: 0.0,
            extra: Vec::new(),
            batch: ValidationBatch::default(),
            to: None,
            waiting: Arc::default(),
        }
    }

    /// Passes on a received message.
    pub fn offer(&mut self, message: Option<MessageId>, bytes: &[u8]) {
        if self.to.is_none() {
            return;
        }
        self.owed += self.share;
        match self.extra.get_mut(message.map_or(0, |id| usize::from(id.0) + 1)) {
            _ if self.owed >= 1.0 => self.owed -= 1.0,
            Some(extra) if *extra < LEAST_PER_MESSAGE => *extra += 1,
            _ => return,
        }
        if self.batch.bytes.len() + bytes.len() > BATCH_BYTES {
            self.queue_batch();
        }
        if self.batch.bytes.capacity() == 0 {
            self.batch.bytes.reserve(BATCH_BYTES);
        }
        self.batch.bytes.extend_from_slice(bytes);
        self.batch.messages.push((message, bytes.len()));
    }

    /// Queues the selected messages if there is room, without waiting.
    pub fn queue_batch(&mut self) {
        let Some(to) = &self.to else { return };
        if self.batch.messages.is_empty() {
            return;
        }
        let ValidationBatch { bytes, messages, skipped } = &mut self.batch;
        let batch =
            ValidationBatch { bytes: bytes.take(), messages: messages.take(), skipped: std::mem::take(skipped) };
        let (skipped, length) = (batch.skipped + batch.messages.len() as u64, batch.bytes.len());
        let fits = self.waiting.fetch_add(length, Relaxed) + length <= MAX_QUEUED_BYTES;
        if !fits || to.try_send(batch).is_err() {
            self.waiting.fetch_sub(length, Relaxed);
            self.batch.skipped = skipped;
        }
    }

    /// Queues the rest of the selected messages, waiting for room.
    pub fn close(mut self) {
        self.waiting.fetch_add(self.batch.bytes.len(), Relaxed);
        if let Some(to) = self.to.take() {
            // The thread may have ended.
            drop(to.send(self.batch));
        }
    }
}

fn validate_batches(
    pack: &Pack,
    names: &[String],
    work: &Receiver<ValidationBatch>,
    waiting: &AtomicUsize,
) -> ValidationSummary {
    let known: Vec<Option<&MessageType>> = names.iter().map(|name| pack.message(name)).collect();
    let mut checked = ValidationSummary::default();
    while let Ok(batch) = work.recv() {
        checked.skipped += batch.skipped;
        waiting.fetch_sub(batch.bytes.len(), Relaxed);
        let mut rest = &batch.bytes[..];
        for (message, length) in batch.messages.iter().copied() {
            let (bytes, later) = rest.split_at(length);
            rest = later;
            checked.checked += 1;
            let message = message.and_then(|id| known.get(usize::from(id.0)).copied().flatten());
            match validate_message(pack, message, bytes) {
                MessageValidity::Valid => {}
                MessageValidity::Undocumented => checked.undocumented += 1,
                MessageValidity::Invalid { name, complaint } => {
                    checked.invalid += 1;
                    if let Some(name) = name {
                        *checked.invalid_by_message.entry(name).or_default() += 1;
                    }
                    if checked.complaints.len() < MAX_COMPLAINTS || checked.complaints.contains_key(&complaint) {
                        *checked.complaints.entry(complaint).or_default() += 1;
                    }
                }
            }
        }
    }
    checked
}

enum MessageValidity {
    Valid,
    Undocumented,
    /// The message is invalid: its name, if it has one, and the violation.
    Invalid {
        name: Option<String>,
        complaint: String,
    },
}

fn validate_message(pack: &Pack, message: Option<&MessageType>, bytes: &[u8]) -> MessageValidity {
    let Ok(tree) = serde_json::from_slice::<Value>(bytes) else {
        return MessageValidity::Invalid { name: None, complaint: "a frame that is not JSON".to_owned() };
    };
    // A reply that only its request identifies is valid if it meets the schema of one request's reply.
    let known = message.filter(|message| !message.typed_by_request);
    let Some(message) = known.or_else(|| pack.recognise(&tree, FrameDirection::FromHub)) else {
        return if tree.is_object() {
            MessageValidity::Undocumented
        } else {
            MessageValidity::Invalid { name: None, complaint: "a frame that is not a JSON object".to_owned() }
        };
    };
    if message.schema.is_valid(&tree) {
        return MessageValidity::Valid;
    }
    let violations = message.schema.violations(&tree);
    let first = violations.iter().find(|violation| !violation.should);
    let place = first.map_or_else(String::new, |violation| {
        format!(": {}: {}, not {}", violation.describe_place(), violation.expected, violation.found)
    });
    MessageValidity::Invalid { name: Some(message.name.clone()), complaint: format!("{}{place}", message.name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Two calls whose results contain only the id of the call, recognised as `booted`.
    const CALLS: &str = r"asyncapi: 3.1.0
info: { title: Calls, version: 0.1.0 }
channels: { hub: { address: / } }
operations:
  boot: { action: receive, messages: [{ $ref: '#/components/messages/boot' }], reply: { messages: [{ $ref: '#/components/messages/booted' }] } }
  beat: { action: receive, messages: [{ $ref: '#/components/messages/beat' }], reply: { messages: [{ $ref: '#/components/messages/beaten' }] } }
components:
  messages:
    boot: { correlationId: { location: '$message.payload#/id' }, payload: { examples: [{ id: 1, call: boot }] }, x-hubproof: { match: { call: boot } } }
    beat: { correlationId: { location: '$message.payload#/id' }, payload: { examples: [{ id: 1, call: beat }] }, x-hubproof: { match: { call: beat } } }
    booted: { correlationId: { location: '$message.payload#/id' }, payload: { required: [status], examples: [{ id: 1, status: ok }] }, x-hubproof: { match: { /id: true } } }
    beaten: { correlationId: { location: '$message.payload#/id' }, payload: { required: [time], examples: [{ id: 1, time: 1 }] }, x-hubproof: { match: { /id: true } } }
";

    #[rstest]
    #[case::first(r#"{"id":1,"status":"ok"}"#, true)]
    #[case::second(r#"{"id":1,"time":7}"#, true)]
    #[case::neither(r#"{"id":1}"#, false)]
    fn a_reply_that_looks_like_another_is_valid_as_either(#[case] text: &str, #[case] expected: bool) {
        let mut sources = crate::syntax::source::Sources::default();
        let file = sources.add("asyncapi.yaml", CALLS);
        let folder = crate::protocol::PackFolder::from_files("calls", [("asyncapi.yaml".to_owned(), file)]);
        let pack = Pack::load(&folder, &sources).0.expect("a valid pack");
        let found = validate_message(&pack, pack.message("booted"), text.as_bytes());
        assert_eq!(matches!(found, MessageValidity::Valid), expected);
    }
}
