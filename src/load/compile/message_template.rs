//! A compiled message: constant bytes with slots between them that are filled by copying.
//!
//! A slot is filled with JSON text, captured from a frame or computed in advance, so that sending a message parses,
//! escapes and builds nothing. Only an expression over values of the latest frames is evaluated then, before the
//! message that needs it; `--check` lists these.

use std::cell::Cell;
use std::io::Write as _;
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::SmallRng;
use serde_json::Value;

use super::json_scan;
use crate::load::Nanos;
use crate::load::provenance::{Provenance, SourcedText};
use crate::redact::SecretMasker;
use crate::scenario::compose;
use crate::scenario::functions::FunctionContext;
use crate::scenario::template::{EvalContext, TemplateExpression};
use crate::scenario::value::BoundValue;

/// Bytes and slots in order.
#[derive(Debug, Default)]
pub struct MessageTemplate {
    pub pieces: Vec<TemplatePiece>,
}

#[derive(Debug)]
pub enum TemplatePiece {
    Bytes(Box<[u8]>),
    Slot {
        source: SlotSource,
        /// Whether the slot is within a string, so that its text is written without quotes.
        inside: bool,
    },
}

/// The source of a slot's text.
#[derive(Clone, Debug)]
pub enum SlotSource {
    /// A text of the journey: captured or computed.
    Text(u16),
    /// A text of the client: part of its identity, or captured in its opening.
    Own(u16),
    /// The number of the client in its role.
    Index,
    /// The number of the journey of this client, from 1.
    Turn,
    Unique(Arc<str>),
    Uuid,
    NowMs,
    NowS,
    NowIso,
    /// The due time of the message as Unix time in nanoseconds, which is the same for all shares of a run.
    DueNs,
}

/// An expression that is evaluated at run time.
#[derive(Debug)]
pub struct RuntimeExpression {
    pub expr: TemplateExpression,
    /// Names that are constant throughout the run.
    pub constants: Vec<(String, Value)>,
    /// Each used member of a name: the name, the member and its source.
    pub members: Vec<(String, String, SlotSource)>,
}

/// Texts by slot number in one buffer, each with its source.
#[derive(Clone, Debug, Default)]
pub struct SlotTexts {
    bytes: Vec<u8>,
    spans: Box<[SlotSpan]>,
}

/// The place of a slot's text in the buffer.
#[derive(Clone, Copy, Debug)]
struct SlotSpan {
    start: u32,
    length: u32,
    /// The source of the text, or of the frame that left the slot empty.
    source: Provenance,
}

/// Bytes of replaced texts beyond which compaction pays off.
const COMPACTION_BYTES: usize = 512;
/// The span of a slot without text.
const EMPTY_SPAN: SlotSpan = SlotSpan { start: u32::MAX, length: 0, source: Provenance::Observed };

impl SlotSpan {
    fn is_empty(&self) -> bool {
        self.start == EMPTY_SPAN.start
    }

    fn end(&self) -> usize {
        self.start.saturating_add(self.length) as usize
    }
}

impl SlotTexts {
    pub fn new(slots: usize) -> Self {
        Self { bytes: Vec::new(), spans: vec![EMPTY_SPAN; slots].into() }
    }

    pub fn get(&self, slot: u16) -> Option<SourcedText<'_>> {
        let span = self.spans.get(usize::from(slot))?;
        let bytes = self.bytes.get(span.start as usize..)?.get(..span.length as usize)?;
        Some(SourcedText { bytes, source: span.source })
    }

    /// Returns the source of a slot's text, or of the frame that left the slot empty.
    pub fn source(&self, slot: u16) -> Provenance {
        self.spans.get(usize::from(slot)).map(|span| span.source).unwrap_or_default()
    }

    /// Returns the source of the assumed text that this text repeats.
    pub fn repeated_assumption(&self, text: &[u8]) -> Option<Provenance> {
        let repeated = |span: &&SlotSpan| {
            let known = || self.bytes.get(span.start as usize..span.end());
            span.source.is_assumed() && known().is_some_and(|known| json_scan::have_equal_values(known, text))
        };
        self.spans.iter().find(repeated).map(|span| span.source)
    }

    pub fn set(&mut self, slot: u16, text: SourcedText<'_>) {
        let slot = usize::from(slot);
        // The last text may grow or shrink in place, so that replacing it repeatedly takes no more space.
        if self.spans[slot].end() == self.bytes.len() {
            self.bytes.truncate(self.spans[slot].start as usize);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text.bytes);
        self.spans[slot] = SlotSpan { start: start as u32, length: text.bytes.len() as u32, source: text.source };
        if start > COMPACTION_BYTES {
            self.compact();
        }
    }

    /// Drops replaced texts once they take more space than the live ones.
    fn compact(&mut self) {
        let used: usize = self.spans.iter().map(|span| span.length as usize).sum();
        if self.bytes.len() < 2 * used + COMPACTION_BYTES {
            return;
        }
        let mut bytes = Vec::with_capacity(used);
        for span in self.spans.iter_mut().filter(|span| !span.is_empty()) {
            let text = span.start as usize..span.end();
            span.start = bytes.len() as u32;
            bytes.extend_from_slice(&self.bytes[text]);
        }
        self.bytes = bytes;
    }

    /// Empties a slot; `source` is the source of the frame that lacks the text.
    pub fn unset(&mut self, slot: u16, source: Provenance) {
        self.spans[usize::from(slot)] = SlotSpan { source, ..EMPTY_SPAN };
    }

    /// Drops all texts but keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.fill(EMPTY_SPAN);
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends an empty reusable buffer, so that computing the text of a slot allocates nothing. A nested call gets a new
/// one.
pub fn with_scratch_buffer<T>(make: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = SCRATCH.take();
    buffer.clear();
    let made = make(&mut buffer);
    SCRATCH.set(buffer);
    made
}

/// The values that fill the slots of one client at one time.
pub struct SlotValues<'a> {
    pub own: &'a SlotTexts,
    pub texts: &'a SlotTexts,
    pub index: u32,
    pub turn: u32,
    pub party: u32,
    pub due: Nanos,
    pub now: Nanos,
    pub run: &'a RunConstants,
    pub random: &'a mut SmallRng,
    /// The number of unique texts that this client has generated.
    pub uniques: &'a mut u32,
}

/// Data shared by all clients of a run.
#[derive(Debug)]
pub struct RunConstants {
    /// Distinguishes this run from all others; letters and digits.
    pub stamp: String,
    /// Unix time of the origin of the run, in milliseconds.
    pub epoch_ms: i64,
    pub world: Arc<FunctionContext>,
}

impl RunConstants {
    pub fn new(stamp: &str, epoch_ms: i64, masker: Arc<SecretMasker>) -> Self {
        let world = Arc::new(FunctionContext::new(stamp).with_masker(masker));
        Self { stamp: stamp.to_owned(), epoch_ms, world }
    }

    /// Returns the Unix time of the origin of the run in nanoseconds.
    pub fn origin_ns(&self) -> u64 {
        u64::try_from(self.epoch_ms).unwrap_or(0).saturating_mul(1_000_000)
    }

    fn unix_ms_at(&self, now: Nanos) -> i64 {
        self.epoch_ms + (now / 1_000_000) as i64
    }
}

/// A slot is empty, because the frame for it did not come or its expression failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a slot is empty")]
pub struct EmptySlotError;

impl MessageTemplate {
    /// Appends the message. On an error the caller must discard what was appended.
    pub fn write(&self, slot_values: &mut SlotValues<'_>, out: &mut Vec<u8>) -> Result<(), EmptySlotError> {
        for piece in &self.pieces {
            match piece {
                TemplatePiece::Bytes(bytes) => out.extend_from_slice(bytes),
                TemplatePiece::Slot { source, inside } => source.write(*inside, slot_values, out)?,
            }
        }
        Ok(())
    }

    /// Whether all slots of the message can be filled.
    pub fn is_ready(&self, own: &SlotTexts, texts: &SlotTexts) -> bool {
        self.pieces.iter().all(|piece| match piece {
            TemplatePiece::Slot { source: SlotSource::Text(slot), .. } => texts.get(*slot).is_some(),
            TemplatePiece::Slot { source: SlotSource::Own(slot), .. } => own.get(*slot).is_some(),
            _ => true,
        })
    }

    /// Returns the joint source of the texts in the slots.
    pub fn source(&self, own: &SlotTexts, texts: &SlotTexts) -> Provenance {
        Provenance::join_all(self.pieces.iter().map(|piece| match piece {
            TemplatePiece::Slot { source, .. } => source.provenance(own, texts),
            TemplatePiece::Bytes(_) => Provenance::Observed,
        }))
    }
}

impl SlotSource {
    /// Returns the source of the text.
    pub fn provenance(&self, own: &SlotTexts, texts: &SlotTexts) -> Provenance {
        match self {
            Self::Text(slot) => texts.source(*slot),
            Self::Own(slot) => own.source(*slot),
            _ => Provenance::Observed,
        }
    }

    /// Appends the JSON text; `inside` a string, without quotes.
    pub fn write(
        &self,
        inside: bool,
        slot_values: &mut SlotValues<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EmptySlotError> {
        let copied = match self {
            Self::Text(slot) => Some(slot_values.texts.get(*slot).ok_or(EmptySlotError)?),
            Self::Own(slot) => Some(slot_values.own.get(*slot).ok_or(EmptySlotError)?),
            _ => None,
        };
        if let Some(text) = copied {
            out.extend_from_slice(if inside { json_scan::quoted_content(text.bytes) } else { text.bytes });
            return Ok(());
        }
        let quoted = matches!(self, Self::Unique(_) | Self::Uuid | Self::NowIso) && !inside;
        if quoted {
            out.push(b'"');
        }
        match self {
            Self::Text(_) | Self::Own(_) => {}
            Self::Index => write_digits(slot_values.index.into(), out),
            Self::Turn => write_digits(slot_values.turn.into(), out),
            Self::Unique(prefix) => {
                *slot_values.uniques += 1;
                for text in [prefix, &*slot_values.run.stamp, "x"] {
                    out.extend_from_slice(text.as_bytes());
                }
                write_digits(slot_values.party.into(), out);
                out.push(b'x');
                write_digits((*slot_values.uniques).into(), out);
            }
            Self::Uuid => {
                let uuid = uuid::Builder::from_random_bytes(slot_values.random.random()).into_uuid();
                out.extend_from_slice(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
            }
            Self::NowMs => write_signed(slot_values.run.unix_ms_at(slot_values.now), out),
            Self::NowS => write_signed(slot_values.run.unix_ms_at(slot_values.now) / 1000, out),
            Self::NowIso => match jiff::Timestamp::from_millisecond(slot_values.run.unix_ms_at(slot_values.now)) {
                // Writing to memory cannot fail.
                Ok(time) => drop(write!(out, "{time}")),
                Err(_) => return Err(EmptySlotError),
            },
            Self::DueNs => write_digits(slot_values.due + slot_values.run.origin_ns(), out),
        }
        if quoted {
            out.push(b'"');
        }
        Ok(())
    }
}

/// Appends a number; `write!` would take longer than the rest of a message.
fn write_digits(mut number: u64, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let mut start = text.len();
    loop {
        start -= 1;
        text[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&text[start..]);
        }
    }
}

fn write_signed(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    write_digits(number.unsigned_abs(), out);
}

impl RuntimeExpression {
    /// Returns the joint source of the texts that the expression uses.
    pub fn source(&self, own: &SlotTexts, texts: &SlotTexts) -> Provenance {
        Provenance::join_all(self.members.iter().map(|(.., source)| source.provenance(own, texts)))
    }

    /// Evaluates the expression, which takes microseconds.
    pub fn eval(&self, slot_values: &mut SlotValues<'_>) -> Result<Value, EmptySlotError> {
        let mut names: Vec<(&str, Value)> = self.constants.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
        for (name, pointer, source) in &self.members {
            let mut text = Vec::new();
            source.write(false, slot_values, &mut text)?;
            let value: Value = serde_json::from_slice(&text).map_err(|_| EmptySlotError)?;
            let place = names.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                names.push((name, Value::Null));
                names.len() - 1
            });
            compose::put_at_pointer(&mut names[place].1, pointer, value);
        }
        slot_values.run.world.set_now_ms(slot_values.run.unix_ms_at(slot_values.now));
        let names = names.into_iter().map(|(name, value)| (name, BoundValue::from_value(value))).collect();
        self.expr.eval(&RunNames { names, world: &slot_values.run.world }).map_err(|_| EmptySlotError)
    }
}

struct RunNames<'a> {
    names: Vec<(&'a str, BoundValue)>,
    world: &'a Arc<FunctionContext>,
}

impl EvalContext for RunNames<'_> {
    fn lookup(&self, name: &str) -> Option<BoundValue> {
        self.names.iter().find(|(known, _)| *known == name).map(|(_, bound)| bound.clone())
    }

    fn function_context(&self) -> &Arc<FunctionContext> {
        self.world
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rstest::rstest;

    fn observed(bytes: &[u8]) -> SourcedText<'_> {
        SourcedText { bytes, source: Provenance::Observed }
    }

    fn written(source: SlotSource, inside: bool) -> Result<String, EmptySlotError> {
        let (mut own, mut texts) = (SlotTexts::new(1), SlotTexts::new(3));
        own.set(0, observed(br#""me \"myself\"""#));
        texts.set(1, observed(b"[1, 2]"));
        let run = RunConstants::new("run", 1_700_000_000_000, Arc::default());
        let mut slot_values = SlotValues {
            own: &own,
            texts: &texts,
            index: 3,
            turn: 4,
            party: 17,
            due: 5,
            now: 2_000_000_000,
            run: &run,
            random: &mut SmallRng::seed_from_u64(1),
            uniques: &mut 0,
        };
        let mut out = Vec::new();
        source.write(inside, &mut slot_values, &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[rstest]
    #[case(SlotSource::Own(0), false, Ok(r#""me \"myself\"""#))]
    #[case(SlotSource::Own(0), true, Ok(r#"me \"myself\""#))]
    #[case(SlotSource::Text(1), false, Ok("[1, 2]"))]
    #[case(SlotSource::Text(0), false, Err(EmptySlotError))]
    #[case(SlotSource::Index, false, Ok("3"))]
    #[case(SlotSource::Unique("job".into()), false, Ok(r#""jobrunx17x1""#))]
    #[case(SlotSource::Unique("job".into()), true, Ok("jobrunx17x1"))]
    #[case(SlotSource::NowMs, false, Ok("1700000002000"))]
    #[case(SlotSource::NowS, false, Ok("1700000002"))]
    #[case(SlotSource::NowIso, false, Ok(r#""2023-11-14T22:13:22Z""#))]
    #[case(SlotSource::DueNs, false, Ok("1700000000000000005"))]
    fn slots_of_a_message_are_filled_with_json_text(
        #[case] source: SlotSource,
        #[case] inside: bool,
        #[case] expected: Result<&str, EmptySlotError>,
    ) {
        assert_eq!(written(source, inside), expected.map(str::to_owned));
    }

    #[rstest]
    #[case(0)]
    #[case(9)]
    #[case(10)]
    #[case(-1_234_567)]
    #[case(i64::MAX)]
    #[case(i64::MIN)]
    fn numbers_are_written_with_all_their_digits(#[case] number: i64) {
        let mut out = b"n".to_vec();
        write_signed(number, &mut out);
        assert_eq!(String::from_utf8(out), Ok(format!("n{number}")));
    }

    #[test]
    fn replaced_texts_do_not_accumulate_memory() {
        let mut texts = SlotTexts::new(2);
        texts.set(0, observed(b"first"));
        for n in 0..100 {
            texts.set(1, observed(format!("\"{n}\"").as_bytes()));
        }
        assert_eq!((texts.get(0), texts.get(1)), (Some(observed(b"first")), Some(observed(b"\"99\""))));
        assert!(texts.bytes.len() < 20);
        for n in 0..10_000 {
            texts.set(n % 2, observed(format!("\"text {n}\"").as_bytes()));
        }
        let expected = (Some(observed(b"\"text 9998\"")), Some(observed(b"\"text 9999\"")));
        assert_eq!((texts.get(0), texts.get(1)), expected);
        assert!(texts.bytes.len() < 2 * COMPACTION_BYTES, "{}", texts.bytes.len());
        texts.clear();
        assert_eq!(texts.get(0), None);
    }
}
