//! Makes one report of the files that the shares of a run have written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{EXTENSION, ShareFile, ShareFileError, ShareReader};
use super::record::{CommonFacts, LostShare, ShareProgress, ShareRecord, UnpackError};
use crate::load::details::{ConnectionEnds, RunDetails};
use crate::load::engine::ValidationSummary;
use crate::load::ledger::{ItemLedger, LEDGER_STEP, LedgerConfig, LedgerEntry, LedgerTotals, NameTable};
use crate::load::metrics::selector::RunMeasurements;
use crate::load::metrics::{MetricInterval, MetricRegistry, MetricSeries};
use crate::load::plan::threshold::{MetricThreshold, ThresholdWatch};
use crate::load::report::{LoadReport, LoadRunMetadata};
use crate::load::validity::{self, RunCircumstances, RunValidity, ValidityCode, ValidityReason};
use crate::load::{Nanos, SECOND};
use crate::report::DeviationReport;
use crate::report::document::load::Wait;
use crate::report::text::{format_count, format_time};
use crate::syntax::share::Share;

/// The most examples of failed openings that are kept.
const MAX_EXAMPLES: usize = 10;
/// Shares that begin further apart than this share of the measured time did not load the hub together.
const ACCEPTED_SPREAD: f64 = 0.01;

/// Why files cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("failed to read {}: {source}", path.display())]
    File { path: PathBuf, source: ShareFileError },
    #[error("{} has no files of shares (NAME.1-of-4.{EXTENSION})", .0.display())]
    NoFiles(PathBuf),
    #[error("{} and {} differ in {what}: {one} and {other}", paths.0.display(), paths.1.display())]
    Disagree { paths: Box<(PathBuf, PathBuf)>, what: &'static str, one: String, other: String },
    #[error("{} and {} are both share {share}", paths.0.display(), paths.1.display())]
    Twice { paths: Box<(PathBuf, PathBuf)>, share: Share },
    #[error("the run has {of} shares, and these are missing: {missing}")]
    Missing { of: u32, missing: String },
    #[error("{} has changed while it was read", .0.display())]
    Changed(PathBuf),
}

impl MergeError {
    /// Returns what to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::File { source: ShareFileError::Read(_), .. } => {
                "name the folder or the files that `load --share` has written"
            }
            Self::File { source: ShareFileError::NoEnd, .. } => "wait until the share has ended, or run it again",
            Self::File { .. } | Self::Changed(_) => "copy the file again, or run the share again",
            Self::NoFiles(_) => "`hubproof load ... --run NAME --share 1/4 --to FOLDER` writes them",
            Self::Disagree { .. } => {
                "all shares of a run need the same plan, options, name (--run), seed and version of hubproof"
            }
            Self::Twice { .. } => "give each generator another number: --share 1/4, 2/4, 3/4, 4/4",
            Self::Missing { .. } => "copy the files of all shares into one folder, or run the missing ones",
        }
    }
}

/// Returns the files of a folder that belong to shares, or the file itself.
///
/// # Errors
/// There are none, or the folder cannot be read.
pub fn find_files(path: &Path) -> Result<Vec<PathBuf>, MergeError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |source: std::io::Error| MergeError::File { path: path.to_owned(), source: source.into() };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(failed)?.collect();
    let found = entries.map_err(failed)?.into_iter().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = found.filter(|path| path.extension().is_some_and(|ext| ext == EXTENSION)).collect();
    found.sort();
    if found.is_empty() { Err(MergeError::NoFiles(path.to_owned())) } else { Ok(found) }
}

/// The shares of one run, complete and in order, and those that were lost.
pub struct RunShares(Vec<ShareFile>, Vec<LostShare>);

impl RunShares {
    /// Reads all files and checks that they are the shares of one run.
    ///
    /// # Errors
    /// A file is damaged, or the files do not belong together.
    pub fn read(paths: &[PathBuf]) -> Result<Self, MergeError> {
        let read =
            |path: &PathBuf| ShareFile::verify(path).map_err(|source| MergeError::File { path: path.clone(), source });
        let mut files = paths.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        files.sort_by_key(|file| file.header.share);
        let Some((first, others)) = files.split_first() else { return Err(MergeError::NoFiles(PathBuf::new())) };
        for other in others {
            check_agreement(first, other)?;
        }
        if let Some(pair) = files.windows(2).find(|pair| pair[0].header.share == pair[1].header.share) {
            let paths = Box::new((pair[0].path.clone(), pair[1].path.clone()));
            return Err(MergeError::Twice { paths, share: pair[0].header.share });
        }
        let of = first.header.share.of();
        let missing = Share::all(of).filter(|share| files.iter().all(|file| file.header.share != *share));
        // What one of the others knows of them.
        let known = |share: &Share| files.iter().flat_map(|file| &file.end.lost).find(|lost| lost.share == *share);
        let (lost, missing): (Vec<Share>, Vec<Share>) = missing.partition(|share| known(share).is_some());
        let lost = lost.iter().filter_map(known).cloned().collect();
        if !missing.is_empty() {
            let missing: Vec<String> = missing.iter().map(Share::to_string).collect();
            let more = if missing.len() > MAX_EXAMPLES { ", ..." } else { "" };
            let shown = missing[..missing.len().min(MAX_EXAMPLES)].join(", ");
            return Err(MergeError::Missing { of, missing: shown + more });
        }
        Ok(Self(files, lost))
    }

    pub fn common(&self) -> &CommonFacts {
        &self.0[0].header.common
    }

    /// Makes one report of all shares, judged by these thresholds.
    ///
    /// # Errors
    /// A file was changed meanwhile.
    pub fn merge(self, thresholds: Vec<MetricThreshold>) -> Result<LoadReport, MergeError> {
        let files = &self.0;
        let (layout, places) = self.layout();
        let timing = RunTiming::of(files);
        let (series, mut account) = self.replay(&layout, &places, &timing)?;
        if !self.1.is_empty() {
            // Items of lost shares' clients would look unexpected, or lost.
            account = LedgerTotals::default();
        }
        let validated = merge_validated(files);
        let interrupted = files.iter().any(|file| file.end.about.interrupted);
        let about = self.metadata(&timing, interrupted);
        let mut report = LoadReport::new(about, series, account, Vec::new(), Default::default());
        let measurements = RunMeasurements { validated: validated.as_ref(), ..report.measurements() };
        report.thresholds = ThresholdWatch::new(thresholds, &layout).finish(measurements, None, interrupted);
        report.judgement = validity::judge_run(report.measurements(), &report.thresholds, self.circumstances(&timing));
        report.judgement.reasons.extend(self.generator_reasons());
        if let Some((validity, text)) = timing.spread_doubt() {
            report.judgement.reasons.push(ValidityReason { code: ValidityCode::Shares, validity, text });
        }
        report.judgement.reasons.extend(self.loss());
        report.deviations = self.deviations();
        report.ends = self.connection_ends();
        report.waits = self.waits();
        Ok(report)
    }

    /// Returns the metrics of the whole run, and for each share where its own operations are among them.
    fn layout(&self) -> (MetricRegistry, Vec<Vec<usize>>) {
        let mut all: Vec<(usize, String)> = Vec::new();
        for operation in self.0.iter().flat_map(|file| &file.end.operations) {
            if !all.contains(operation) {
                all.push(operation.clone());
            }
        }
        let layout = self.common().layout(&all);
        let table = &layout.names.operations;
        let place = |(message, label): &(usize, String)| table.find_or_add(*message, label);
        let places = |file: &ShareFile| file.end.operations.iter().map(place).collect();
        let places = self.0.iter().map(places).collect();
        (layout, places)
    }

    /// Passes the entries of all shares to one ledger, and their intervals to one series.
    fn replay(
        &self,
        layout: &MetricRegistry,
        places: &[Vec<usize>],
        timing: &RunTiming,
    ) -> Result<(MetricSeries, LedgerTotals), MergeError> {
        let config = LedgerConfig { ordered: self.common().ordered, ..LedgerConfig::default() };
        let (mut ledger, mut reached) = (ItemLedger::new(config), 0);
        let mut series = MetricSeries::new(layout.clone(), 1);
        // Intervals that some share has not reached.
        let mut awaited: BTreeMap<Nanos, Vec<MetricInterval>> = BTreeMap::new();
        let mut cursors = Vec::new();
        for (number, file) in self.0.iter().enumerate() {
            cursors.push(ShareCursor::open(file, places[number].clone(), timing.offsets[number])?);
        }
        let running = |cursors: &[ShareCursor]| (0..cursors.len()).filter(|at| !cursors[*at].ended).collect::<Vec<_>>();
        while let Some(at) = running(&cursors).into_iter().min_by_key(|at| cursors[*at].reported()) {
            let cursor = &mut cursors[at];
            match cursor.replay_next(layout)? {
                ReplayedRecord::Entries => {
                    ledger.add_names(std::mem::take(&mut cursor.names));
                    ledger.queue_entries(&cursor.entries);
                    let least = running(&cursors).into_iter().map(|at| cursors[at].reported()).min();
                    if let Some(least) = least.filter(|least| *least >= reached + LEDGER_STEP && *least < Nanos::MAX) {
                        ledger.process_until(least);
                        reached = least;
                    }
                }
                ReplayedRecord::Interval(mut interval) => {
                    let shift = timing.shift(&self.0[at]);
                    interval.from = interval.from.saturating_add_signed(shift);
                    interval.to = interval.to.saturating_add_signed(shift);
                    cursor.reached = interval.from;
                    awaited.entry(interval.from).or_default().push(interval);
                    // All shares have passed what is earlier than the slowest.
                    let passed = running(&cursors).into_iter().map(|at| cursors[at].reached).min();
                    let later = awaited.split_off(&passed.unwrap_or(Nanos::MAX));
                    for parts in std::mem::replace(&mut awaited, later).into_values() {
                        series.add_merged(parts);
                    }
                }
                ReplayedRecord::End => {}
            }
        }
        for parts in awaited.into_values() {
            series.add_merged(parts);
        }
        if self.0.iter().any(|file| file.end.was_stopped) {
            ledger.mark_cut_short();
        }
        Ok((series, ledger.finish(timing.ended)))
    }

    fn metadata(&self, timing: &RunTiming, interrupted: bool) -> LoadRunMetadata {
        let first = &self.0[0].end.about;
        let mut targets: Vec<&str> = self.0.iter().map(|file| file.end.about.target.as_str()).collect();
        targets.sort_unstable();
        targets.dedup();
        LoadRunMetadata {
            target: targets.join(", "),
            started: (timing.origin_ns / 1_000_000).unsigned_abs(),
            duration: Duration::from_nanos(timing.ended),
            interrupted,
            warm_up: self.0.iter().map(|file| file.end.about.warm_up).max().unwrap_or_default(),
            facts: self.facts(timing),
            ..first.clone()
        }
    }

    /// Returns the facts of all shares: once what they have in common, and the others by share.
    fn facts(&self, timing: &RunTiming) -> Vec<(String, String)> {
        let shares = format_count(self.0.len(), "share");
        let mut machines: Vec<&str> = self.0.iter().map(|file| file.header.machine.as_str()).collect();
        machines.sort_unstable();
        machines.dedup();
        let clocks = match machines.len() {
            1 => "on one machine".to_owned(),
            more => match self.clock_difference() {
                Some(error) => {
                    format!("on {more} machines, whose clocks were measured to within {}", format_time(error))
                }
                None => format!("on {more} machines, whose clocks are taken to agree within a second"),
            },
        };
        let begins = match timing.spread {
            0 => "together".to_owned(),
            spread => format!("within {}", format_time(Duration::from_nanos(spread))),
        };
        let mut facts = vec![("shares".to_owned(), format!("{shares} {clocks}; the measured times began {begins}"))];
        if !self.1.is_empty() {
            let text = format!(
                "{}; items are not followed, since the entries of these shares are missing",
                self.describe_lost()
            );
            facts.push(("lost".to_owned(), text));
        }
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.0.iter().flat_map(|file| &file.end.about.facts) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        for name in names {
            let of = |file: &'_ ShareFile| {
                let found = file.end.about.facts.iter().find(|(other, _)| other == name);
                Some((file.header.share, found?.1.clone()))
            };
            let all: Vec<(Share, String)> = self.0.iter().filter_map(of).collect();
            let text = match all.iter().all(|(_, text)| *text == all[0].1) {
                true => all[0].1.clone(),
                false => {
                    let more = if all.len() > MAX_EXAMPLES { "; ..." } else { "" };
                    let shown = all.iter().take(MAX_EXAMPLES).map(|(share, text)| format!("share {share}: {text}"));
                    shown.collect::<Vec<_>>().join("; ") + more
                }
            };
            facts.push((name.to_owned(), text));
        }
        facts
    }

    /// Returns by how much times of two shares may be apart, if all have measured their clocks.
    fn clock_difference(&self) -> Option<Duration> {
        let errors: Option<Vec<Nanos>> = self.0.iter().map(|file| file.header.clock_error).collect();
        let mut errors = errors?;
        errors.sort_unstable();
        Some(Duration::from_nanos(errors.iter().rev().take(2).fold(0, |sum, error| sum.saturating_add(*error))))
    }

    fn circumstances(&self, timing: &RunTiming) -> RunCircumstances {
        let mut all = RunCircumstances::default();
        for file in &self.0 {
            let own = file.end.circumstances.clone();
            all.workloads = own.workloads;
            all.clients = all.clients.saturating_add(own.clients);
            all.unjoined = all.unjoined.saturating_add(own.unjoined);
            all.hopeless.extend(own.hopeless);
            all.failed_openings.extend(own.failed_openings);
            all.unsteady_warm_up = all.unsteady_warm_up.max(own.unsteady_warm_up);
            let shift = timing.shift(file);
            let shifted = |at: Nanos| at.saturating_add_signed(shift);
            all.holds.extend(own.holds.iter().map(|hold| shifted(hold.start)..shifted(hold.end)));
        }
        all.failed_openings.truncate(MAX_EXAMPLES);
        all.holds = joined_holds(all.holds);
        all
    }

    /// Returns what each generator says against its own figures.
    fn generator_reasons(&self) -> impl Iterator<Item = ValidityReason> {
        self.0.iter().flat_map(|file| {
            let text = |reason: &ValidityReason| format!("share {}: {}", file.header.share, reason.text);
            file.end.generator.iter().map(move |reason| ValidityReason { text: text(reason), ..reason.clone() })
        })
    }

    /// Returns why the run does not count, if more shares were lost than the plan allows.
    fn loss(&self) -> Option<ValidityReason> {
        let allowed = self.common().lost_shares as usize;
        (self.1.len() > allowed).then(|| ValidityReason {
            code: ValidityCode::Shares,
            validity: RunValidity::Invalid,
            text: format!(
                "{} lost, and the plan allows {allowed} (`lost_shares`): {}",
                format_count(self.1.len(), "share was"),
                self.describe_lost()
            ),
        })
    }

    fn describe_lost(&self) -> String {
        let describe = |lost: &LostShare| {
            let on = if lost.place.is_empty() { String::new() } else { format!(" on {}", lost.place) };
            let done = match lost.done {
                Some(ShareProgress { seconds, journeys, sent }) => format!(
                    "fell silent after {seconds} s, {} and {}",
                    format_count(journeys as usize, "journey"),
                    format_count(sent as usize, "sent message")
                ),
                None => "left no trace of what it did".to_owned(),
            };
            format!("share {}{on} {done}", lost.share)
        };
        let more = if self.1.len() > MAX_EXAMPLES { "; ..." } else { "" };
        self.1.iter().take(MAX_EXAMPLES).map(describe).collect::<Vec<_>>().join("; ") + more
    }

    fn deviations(&self) -> Vec<DeviationReport> {
        let mut all: Vec<DeviationReport> = Vec::new();
        for own in self.0.iter().flat_map(|file| &file.end.deviations) {
            match all.iter_mut().find(|known| known.name == own.name) {
                Some(known) => known.add(own.clone()),
                None => all.push(own.clone()),
            }
        }
        all
    }

    fn connection_ends(&self) -> ConnectionEnds {
        let mut all = RunDetails::default();
        for file in &self.0 {
            all.add(RunDetails {
                ends: ConnectionEnds::of(file.end.ends.iter().cloned(), file.end.other_ends),
                waits: BTreeMap::new(),
            });
        }
        all.ends
    }

    fn waits(&self) -> Vec<Wait> {
        let mut all: Vec<Wait> = Vec::new();
        for own in self.0.iter().flat_map(|file| &file.end.waits) {
            match all.iter_mut().find(|known| Wait { journeys: own.journeys, ..(*known).clone() } == *own) {
                Some(known) => known.journeys += own.journeys,
                None => all.push(own.clone()),
            }
        }
        all
    }
}

/// Checks that two files are shares of one run.
fn check_agreement(one: &ShareFile, other: &ShareFile) -> Result<(), MergeError> {
    let of = |file: &ShareFile| file.header.share.of().to_string();
    let differ = one.header.common.difference(&other.header.common);
    let differ = differ.or_else(|| (of(one) != of(other)).then(|| ("the number of shares", of(one), of(other))));
    let paths = || Box::new((one.path.clone(), other.path.clone()));
    differ.map_or(Ok(()), |(what, one, other)| Err(MergeError::Disagree { paths: paths(), what, one, other }))
}

fn merge_validated(files: &[ShareFile]) -> Option<ValidationSummary> {
    let mut all = files.iter().filter_map(|file| file.end.validated.clone());
    let mut sum = all.next()?;
    all.for_each(|one| sum.add(one));
    Some(sum)
}

/// How the times of the shares relate to each other.
struct RunTiming {
    /// Unix time of the earliest origin, which is the origin of the merged run.
    origin_ns: i64,
    /// How much later than that each share has its origin.
    offsets: Vec<Nanos>,
    /// When the last connection of any share ended.
    ended: Nanos,
    /// When the measured time of the merged run begins.
    measured_from: Nanos,
    /// How far apart the measured times of the shares began, and how long they are planned to be.
    spread: Nanos,
    measured: Nanos,
}

/// Joins the times in which any share held back journeys: shares hold at the same time.
fn joined_holds(mut holds: Vec<Range<Nanos>>) -> Vec<Range<Nanos>> {
    holds.sort_unstable_by_key(|hold| (hold.start, hold.end));
    let mut joined: Vec<Range<Nanos>> = Vec::new();
    for hold in holds {
        match joined.last_mut().filter(|last| hold.start <= last.end) {
            Some(last) => last.end = last.end.max(hold.end),
            None => joined.push(hold),
        }
    }
    joined
}

impl RunTiming {
    fn of(files: &[ShareFile]) -> Self {
        let origin_ns = files.iter().map(|file| file.header.origin_ns).min().unwrap_or_default();
        let offset = |file: &ShareFile| file.header.origin_ns.abs_diff(origin_ns);
        let begins = files.iter().filter_map(|file| Some(offset(file).saturating_add(file.end.measured_from?)));
        let begins: Vec<Nanos> = begins.collect();
        let (first, last) = (begins.iter().min().copied(), begins.iter().max().copied());
        let took = |file: &ShareFile| offset(file).saturating_add(file.end.about.duration.as_nanos() as Nanos);
        let about = &files[0].end.about;
        let schedule_end = about.schedules.iter().flat_map(|(_, segments)| segments.last());
        let planned =
            schedule_end.map(|last| last.start + last.length).fold(0.0, f64::max) - about.warm_up.as_secs_f64();
        Self {
            origin_ns,
            offsets: files.iter().map(offset).collect(),
            ended: files.iter().map(took).max().unwrap_or_default(),
            measured_from: first.unwrap_or_default().div_ceil(SECOND) * SECOND,
            spread: last.unwrap_or_default() - first.unwrap_or_default(),
            measured: (planned.max(1.0) * SECOND as f64) as Nanos,
        }
    }

    /// Returns by how much intervals of a share move, so that the measured times of all shares begin together: figures
    /// are by second of the plan.
    fn shift(&self, file: &ShareFile) -> i64 {
        let own = file.end.measured_from.unwrap_or(self.measured_from);
        i64::try_from(self.measured_from).unwrap_or_default() - i64::try_from(own).unwrap_or_default()
    }

    /// Returns why the load on the hub was not that of the plan, if the shares did not run at the same time.
    fn spread_doubt(&self) -> Option<(RunValidity, String)> {
        let apart = format_time(Duration::from_nanos(self.spread));
        (self.spread as f64 > self.measured as f64 * ACCEPTED_SPREAD).then(|| {
            let text = format!(
                "the measured times of the shares began {apart} apart, so the hub did not have the whole load; give all shares the same --start-at"
            );
            (RunValidity::Suspect, text)
        })
    }
}

/// How far a share's file has been replayed.
struct ShareCursor {
    path: PathBuf,
    reader: ShareReader,
    /// Where the share's operations are among those of all.
    places: Vec<usize>,
    offset: Nanos,
    /// Up to when each thread has reported its entries.
    threads: Vec<Nanos>,
    /// The beginning of the last interval.
    reached: Nanos,
    ended: bool,
    entries: Vec<LedgerEntry>,
    names: NameTable,
}

enum ReplayedRecord {
    Entries,
    Interval(MetricInterval),
    End,
}

impl ShareCursor {
    fn open(file: &ShareFile, places: Vec<usize>, offset: Nanos) -> Result<Self, MergeError> {
        let opened = ShareReader::open(&file.path);
        let (reader, _) = opened.map_err(|source| MergeError::File { path: file.path.clone(), source })?;
        Ok(Self {
            path: file.path.clone(),
            reader,
            places,
            offset,
            threads: vec![0; usize::from(file.header.threads.max(1))],
            reached: 0,
            ended: false,
            entries: Vec::new(),
            names: Default::default(),
        })
    }

    /// Returns up to when the share has reported everything, since the origin of the merged run.
    fn reported(&self) -> Nanos {
        self.threads.iter().min().map_or(0, |least| least.saturating_add(self.offset))
    }

    fn replay_next(&mut self, all: &MetricRegistry) -> Result<ReplayedRecord, MergeError> {
        let damaged = |_: UnpackError| MergeError::Changed(self.path.clone());
        let record =
            self.reader.read_record().map_err(|source| MergeError::File { path: self.path.clone(), source })?;
        match record {
            Some(ShareRecord::Entries(packed)) => {
                (self.entries, self.names) = packed.unpack().map_err(damaged)?;
                for entry in &mut self.entries {
                    entry.at = entry.at.saturating_add(self.offset);
                }
                let Some(thread) = self.threads.get_mut(usize::from(packed.thread)) else {
                    return Err(MergeError::Changed(self.path.clone()));
                };
                *thread = (*thread).max(packed.upto);
                Ok(ReplayedRecord::Entries)
            }
            Some(ShareRecord::Interval(packed)) => {
                let interval = packed.unpack(all).map_err(damaged)?;
                Ok(ReplayedRecord::Interval(all.move_operations(interval, &self.places)))
            }
            Some(ShareRecord::End(_)) => {
                self.ended = true;
                Ok(ReplayedRecord::End)
            }
            Some(ShareRecord::Header(_)) | None => Err(MergeError::Changed(self.path.clone())),
        }
    }
}
