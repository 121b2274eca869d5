//! The lines of a share's file, each a JSON object: a header, then entries and intervals in the order of the run, then
//! the end. Entries and names are packed, since there are millions of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::load::Nanos;
use crate::load::details::ConnectionEnd;
use crate::load::engine::ValidationSummary;
use crate::load::ledger::{LedgerEntry, LedgerMark, NameOwner, NameTable};
use crate::load::metrics::{
    CompactHistogram, CoreUtilisation, Gauge, GaugeLevel, MetricInterval, MetricRegistry, MetricSubjects,
    OperationTable, RunPhase,
};
use crate::load::report::{LoadReport, LoadRunMetadata};
use crate::load::shares::over::deltas::Measured;
use crate::load::validity::{self, RunCircumstances, ValidityReason};
use crate::report::DeviationReport;
use crate::report::document::load::Wait;
use crate::syntax::share::Share;

pub const FORMAT: &str = "hubproof-share";
pub const FORMAT_VERSION: u32 = 1;

/// A line of a share's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum ShareRecord {
    Header(Box<ShareHeader>),
    Entries(PackedEntries),
    Interval(PackedInterval),
    End(Box<ShareEnd>),
}

/// What a share knows before it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareHeader {
    pub format: String,
    pub format_version: u32,
    pub share: Share,
    #[serde(flatten)]
    pub common: CommonFacts,
    /// Unix time of the origin of the share's times, in nanoseconds.
    pub origin_ns: i64,
    /// Distinguishes machines; shares of one machine have one clock.
    pub machine: String,
    /// By how much the origin may be wrong, by the clock that the shares agreed on; `None` if they did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_error: Option<Nanos>,
    /// How many threads add entries.
    pub threads: u16,
}

/// What all shares of a run have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommonFacts {
    pub version: String,
    pub run: String,
    pub seed: u64,
    pub protocol: String,
    pub plan: String,
    /// A hash of the plan with its final numbers.
    pub plan_hash: String,
    /// Whether messages of one sender must reach each receiver in the order of publication.
    pub ordered: bool,
    /// How many shares may be lost.
    #[serde(default)]
    pub lost_shares: u32,
    pub thresholds: Vec<String>,
    pub messages: Vec<String>,
    pub journeys: Vec<String>,
    /// The indexes of the messages that have labels.
    pub labelled: Vec<usize>,
}

impl CommonFacts {
    /// Returns in what two shares of a run differ, and what each has; `None` if they belong together.
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let (a, b) = (self, other);
        let differ = |what, one: &str, other: &str| Some((what, one.to_owned(), other.to_owned()));
        match () {
            () if a.version != b.version => differ("the version of hubproof", &a.version, &b.version),
            () if a.run != b.run => differ("the name of the run", &a.run, &b.run),
            () if a.seed != b.seed => differ("the seed", &a.seed.to_string(), &b.seed.to_string()),
            () if a.plan != b.plan => differ("the plan", &a.plan, &b.plan),
            () if a.thresholds != b.thresholds => {
                differ("the thresholds", &a.thresholds.join(", "), &b.thresholds.join(", "))
            }
            () if a != b => differ("the content of the plan", &a.plan_hash, &b.plan_hash),
            () => None,
        }
    }

    /// Whether the file, which may be a stranger's, names only messages that it lists, and no more operations than there is
    /// room for.
    pub fn has_place_for(&self, operations: &[(usize, String)]) -> bool {
        let known = self.labelled.iter().all(|message| *message < self.messages.len());
        let labelled = operations.iter().all(|(message, _)| self.labelled.contains(message));
        known && labelled && operations.len() <= OperationTable::new(self.labelled.clone()).capacity()
    }

    /// Returns the names of the metrics of a run with these operations.
    pub fn layout(&self, operations: &[(usize, String)]) -> MetricRegistry {
        let table = OperationTable::new(self.labelled.clone());
        for (message, label) in operations {
            table.find_or_add(*message, label);
        }
        let (messages, journeys) = (self.messages.clone(), self.journeys.clone());
        MetricRegistry::new(MetricSubjects { messages, journeys, operations: table })
    }
}

/// What a share knows at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareEnd {
    /// The number of records before this one, and the SHA-256 of their lines.
    pub records: u64,
    pub sha256: String,
    pub about: LoadRunMetadata,
    /// When the measured time began, since the share's origin.
    pub measured_from: Option<Nanos>,
    /// The operations by their place: message and label.
    pub operations: Vec<(usize, String)>,
    pub circumstances: RunCircumstances,
    pub joined: u64,
    pub validated: Option<ValidationSummary>,
    pub ends: Vec<(ConnectionEnd, u64)>,
    pub other_ends: u64,
    pub waits: Vec<Wait>,
    pub deviations: Vec<DeviationReport>,
    /// Why the share's own figures cannot be trusted: its generator was too slow, or failed.
    pub generator: Vec<ValidityReason>,
    /// Whether the share was stopped at once, so that open items are unfinished and not lost.
    pub was_stopped: bool,
    /// The shares that were silent when the run ended, as far as this one knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostShare>,
}

/// What a share has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareProgress {
    /// How many seconds it has measured.
    pub seconds: u64,
    /// How many journeys it has begun, and how many messages it has sent.
    pub journeys: u64,
    pub sent: u64,
}

/// A share that was silent when the run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostShare {
    pub share: Share,
    /// Where it ran, for people; empty if that is unknown.
    pub place: String,
    /// What it had done; `None` if it never reported.
    pub done: Option<ShareProgress>,
}

impl ShareEnd {
    /// Returns what a share's own measurements say; the run adds what they do not.
    pub fn of(report: LoadReport, circumstances: RunCircumstances) -> Self {
        let table = &report.layout.names.operations;
        let operations = (0..table.capacity()).filter_map(|operation| table.get(operation));
        let generator = validity::judge_generator(report.measurements()).reasons;
        Self {
            records: 0,
            sha256: String::new(),
            measured_from: None,
            operations: operations.map(|(message, label)| (message, label.to_owned())).collect(),
            circumstances,
            joined: 0,
            validated: None,
            ends: report.ends.by_frequency().into_iter().map(|(end, count)| (end.clone(), count)).collect(),
            other_ends: report.ends.others(),
            waits: report.waits,
            deviations: report.deviations,
            generator,
            was_stopped: false,
            lost: Vec::new(),
            about: report.about,
        }
    }
}

/// A batch of entries of one thread, which has now reported everything before `upto`.
#[derive(Debug, Serialize, Deserialize)]
pub struct PackedEntries {
    pub thread: u16,
    pub upto: Nanos,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    entries: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    names: String,
}

/// More than any share counts in an interval; the sum of all shares and intervals stays in 64 bits.
const MAX_COUNT: u64 = 1 << 40;

/// The packed data of a line cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its packed data is damaged")]
pub struct UnpackError;

impl PackedEntries {
    pub fn pack(thread: u16, upto: Nanos, entries: &[LedgerEntry], names: &NameTable) -> Self {
        let mut bytes = Vec::with_capacity(entries.len() * 16);
        let mut last = 0;
        for entry in entries {
            // Times of a thread do not decrease.
            put_number(&mut bytes, entry.at.wrapping_sub(last));
            last = entry.at;
            bytes.extend_from_slice(&entry.item.to_le_bytes());
            put_number(&mut bytes, entry.party.into());
            let (code, more) = mark_code(entry.what);
            bytes.push(code);
            if let Some(more) = more {
                put_number(&mut bytes, more);
            }
        }
        let mut named = Vec::new();
        for (owner, name) in names.iter() {
            let (code, number) = match owner {
                NameOwner::Item(key) => (0, key),
                NameOwner::Party(number) => (1, number.into()),
                NameOwner::Receiver(number) => (2, number.into()),
            };
            named.push(code);
            put_number(&mut named, number);
            put_number(&mut named, name.len() as u64);
            named.extend_from_slice(name);
        }
        Self { thread, upto, entries: BASE64.encode(bytes), names: BASE64.encode(named) }
    }

    /// # Errors
    /// The line was changed.
    pub fn unpack(&self) -> Result<(Vec<LedgerEntry>, NameTable), UnpackError> {
        let bytes = BASE64.decode(&self.entries).map_err(|_| UnpackError)?;
        let (mut rest, mut entries, mut at) = (&bytes[..], Vec::new(), 0_u64);
        while !rest.is_empty() {
            at = at.wrapping_add(take_number(&mut rest)?);
            let (item, behind) = rest.split_first_chunk().ok_or(UnpackError)?;
            rest = behind;
            let party = u32::try_from(take_number(&mut rest)?).map_err(|_| UnpackError)?;
            let what = take_mark(&mut rest)?;
            entries.push(LedgerEntry { at, item: u64::from_le_bytes(*item), party, what });
        }
        let bytes = BASE64.decode(&self.names).map_err(|_| UnpackError)?;
        let (mut rest, mut names) = (&bytes[..], NameTable::default());
        while let Some((code, behind)) = rest.split_first() {
            rest = behind;
            let number = take_number(&mut rest)?;
            let party = || u32::try_from(number).map_err(|_| UnpackError);
            let owner = match code {
                0 => NameOwner::Item(number),
                1 => NameOwner::Party(party()?),
                2 => NameOwner::Receiver(party()?),
                _ => return Err(UnpackError),
            };
            let length = usize::try_from(take_number(&mut rest)?).map_err(|_| UnpackError)?;
            let (name, behind) = rest.split_at_checked(length).ok_or(UnpackError)?;
            names.push(owner, name);
            rest = behind;
        }
        Ok((entries, names))
    }
}

/// Appends a number: seven bits a byte, the lowest first.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Result<u64, UnpackError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().ok_or(UnpackError)?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(UnpackError)
}

/// Returns the code of a mark, and its number if it has one.
fn mark_code(mark: LedgerMark) -> (u8, Option<u64>) {
    match mark {
        LedgerMark::Attempted => (0, None),
        LedgerMark::Requested => (1, None),
        LedgerMark::Published { receivers } => (2, Some(receivers.into())),
        LedgerMark::Named(key) => (3, Some(key)),
        LedgerMark::Assumed { deviation } => (4, Some(deviation.into())),
        LedgerMark::ProgressAssumed { deviation } => (5, Some(deviation.into())),
        LedgerMark::Acknowledged => (6, None),
        LedgerMark::Refused => (7, None),
        LedgerMark::Unsure => (8, None),
        LedgerMark::Assigned => (9, None),
        LedgerMark::NotTaken => (10, None),
        LedgerMark::Released { back_ms } => (11, Some(back_ms.into())),
        LedgerMark::Held => (12, None),
        LedgerMark::Cancelled => (13, None),
        LedgerMark::Delivered => (14, None),
        LedgerMark::Completed => (15, None),
        LedgerMark::Failed => (16, None),
    }
}

fn take_mark(rest: &mut &[u8]) -> Result<LedgerMark, UnpackError> {
    let (code, behind) = rest.split_first().ok_or(UnpackError)?;
    *rest = behind;
    let mut number = || take_number(rest);
    let small = |number: u64| u16::try_from(number).map_err(|_| UnpackError);
    let middle = |number: u64| u32::try_from(number).map_err(|_| UnpackError);
    Ok(match code {
        0 => LedgerMark::Attempted,
        1 => LedgerMark::Requested,
        2 => LedgerMark::Published { receivers: middle(number()?)? },
        3 => LedgerMark::Named(number()?),
        4 => LedgerMark::Assumed { deviation: small(number()?)? },
        5 => LedgerMark::ProgressAssumed { deviation: small(number()?)? },
        6 => LedgerMark::Acknowledged,
        7 => LedgerMark::Refused,
        8 => LedgerMark::Unsure,
        9 => LedgerMark::Assigned,
        10 => LedgerMark::NotTaken,
        11 => LedgerMark::Released { back_ms: middle(number()?)? },
        12 => LedgerMark::Held,
        13 => LedgerMark::Cancelled,
        14 => LedgerMark::Delivered,
        15 => LedgerMark::Completed,
        16 => LedgerMark::Failed,
        _ => return Err(UnpackError),
    })
}

/// An interval without its zeros.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PackedInterval {
    pub from: Nanos,
    to: Nanos,
    phase: RunPhase,
    /// Histograms in HdrHistogram's V2 encoding, by their place.
    timings: Vec<(usize, String)>,
    counts: Vec<(usize, u64)>,
    /// The last and the highest value of each gauge.
    gauges: Vec<(u64, u64)>,
    cores: Vec<(usize, f64)>,
}

impl PackedInterval {
    pub fn pack(interval: &MetricInterval) -> Self {
        let timed = interval.timings.iter().enumerate().filter(|(_, timing)| !timing.is_empty());
        let counts = interval.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0);
        Self {
            from: interval.from,
            to: interval.to,
            phase: interval.phase,
            timings: timed.map(|(place, timing)| (place, BASE64.encode(timing.bytes()))).collect(),
            counts: counts.collect(),
            gauges: interval.gauges.iter().map(|gauge| (gauge.last, gauge.highest)).collect(),
            cores: interval.cores.iter().map(|core| (core.core, core.busy)).collect(),
        }
    }

    /// Moves the interval by this many nanoseconds.
    pub fn shift(&mut self, by: i64) {
        self.from = self.from.saturating_add_signed(by);
        self.to = self.to.saturating_add_signed(by);
    }

    /// Drops all histograms.
    pub fn drop_timings(&mut self) {
        self.timings.clear();
    }

    /// Unpacks the interval for a share with this layout.
    ///
    /// # Errors
    /// The line was changed.
    pub fn unpack(&self, layout: &MetricRegistry) -> Result<MetricInterval, UnpackError> {
        let mut timings = vec![CompactHistogram::default(); layout.timings().len()];
        for (place, text) in &self.timings {
            let bytes = BASE64.decode(text).map_err(|_| UnpackError)?;
            *timings.get_mut(*place).ok_or(UnpackError)? = CompactHistogram::decode(&bytes).map_err(|_| UnpackError)?;
        }
        let mut counts = vec![0; layout.counts().len()];
        for (place, count) in &self.counts {
            *counts.get_mut(*place).filter(|_| *count < MAX_COUNT).ok_or(UnpackError)? = *count;
        }
        let mut gauges = [GaugeLevel::default(); Gauge::ALL.len()];
        for (gauge, (last, highest)) in gauges.iter_mut().zip(&self.gauges) {
            if (*last).max(*highest) >= MAX_COUNT {
                return Err(UnpackError);
            }
            *gauge = GaugeLevel { last: *last, highest: *highest };
        }
        let cores = self.cores.iter().map(|(core, busy)| CoreUtilisation { core: *core, busy: *busy }).collect();
        let (from, to, phase) = (self.from, self.to, self.phase);
        if to <= from {
            return Err(UnpackError);
        }
        Ok(MetricInterval { from, to, phase, timings, counts, gauges, cores })
    }
}

impl Measured for PackedInterval {
    fn absorb(&mut self, next: &Self) -> bool {
        if self.phase != next.phase {
            return false;
        }
        self.to = next.to;
        let decode =
            |text: &str| CompactHistogram::decode(&BASE64.decode(text).unwrap_or_default()).unwrap_or_default();
        for (place, text) in &next.timings {
            match self.timings.iter_mut().find(|(own, _)| own == place) {
                Some((_, own)) => *own = BASE64.encode(decode(own).merged(&decode(text)).bytes()),
                None => self.timings.push((*place, text.clone())),
            }
        }
        for (place, count) in &next.counts {
            match self.counts.iter_mut().find(|(own, _)| own == place) {
                Some((_, own)) => *own += count,
                None => self.counts.push((*place, *count)),
            }
        }
        for (own, (last, highest)) in self.gauges.iter_mut().zip(&next.gauges) {
            *own = (*last, own.1.max(*highest));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marks() -> impl Strategy<Value = LedgerMark> {
        prop_oneof![
            Just(LedgerMark::Attempted),
            Just(LedgerMark::Requested),
            any::<u32>().prop_map(|receivers| LedgerMark::Published { receivers }),
            any::<u64>().prop_map(LedgerMark::Named),
            any::<u16>().prop_map(|deviation| LedgerMark::Assumed { deviation }),
            any::<u16>().prop_map(|deviation| LedgerMark::ProgressAssumed { deviation }),
            Just(LedgerMark::Acknowledged),
            Just(LedgerMark::Refused),
            Just(LedgerMark::Unsure),
            Just(LedgerMark::Assigned),
            Just(LedgerMark::NotTaken),
            any::<u32>().prop_map(|back_ms| LedgerMark::Released { back_ms }),
            Just(LedgerMark::Held),
            Just(LedgerMark::Cancelled),
            Just(LedgerMark::Delivered),
            Just(LedgerMark::Completed),
            Just(LedgerMark::Failed),
        ]
    }

    proptest! {
        #[test]
        fn entries_and_names_are_unpacked_as_they_were(
            written in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u32>(), marks()), 0..20),
            named in proptest::collection::vec((any::<u64>(), "[a-z]{0,20}"), 0..5),
        ) {
            let entry = |(at, item, party, what)| LedgerEntry { at, item, party, what };
            let entries: Vec<LedgerEntry> = written.into_iter().map(entry).collect();
            let mut names = NameTable::default();
            for (key, name) in &named {
                names.push(NameOwner::Item(*key), name.as_bytes());
            }
            names.push(NameOwner::Receiver(3), b"listener 3");
            names.push(NameOwner::Party(4), b"worker 4");
            let (read, read_names) = PackedEntries::pack(1, 9, &entries, &names).unpack().unwrap();
            prop_assert_eq!(read, entries);
            prop_assert_eq!(read_names.iter().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
        }

        #[test]
        fn damaged_data_never_panics(entries: Vec<u8>, names: Vec<u8>) {
            let (entries, names) = (BASE64.encode(entries), BASE64.encode(names));
            let _ = PackedEntries { thread: 0, upto: 0, entries, names }.unpack();
        }
    }
}
