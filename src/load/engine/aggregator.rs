//! The aggregating thread: controls the phases of a run and combines the shards' reports into its result.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::shard::outbox::ShardReport;
use super::validator::ValidationSummary;
use super::{EngineError, LoadRun, RunControl};
use crate::deviation::{SightingsByEntry, add_seen};
use crate::load::details::RunDetails;
use crate::load::ledger::{LEDGER_STEP, LedgerTotals};
use crate::load::metrics::{MetricInterval, MetricSeries, RunPhase, is_steady};
use crate::load::opening::{FailedOpening, HopelessRole, is_hopeless};
use crate::load::plan::{Plan, PlanRole, WarmUp};
use crate::load::shares::file::ShareWriter;
use crate::load::{Nanos, SECOND};

/// How often phases are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// How long populations may take to join after their ramps before the run begins without the remaining clients.
const MAX_JOINING_TIME: Nanos = 60 * SECOND;
/// How long shards have to close their connections.
const MAX_LEAVING_TIME: Nanos = 5 * SECOND;
/// How long the run waits for unexpected messages at its end when no journey is running.
const QUIET_TIME: Nanos = 2 * SECOND;

/// The state of a run, passed to the watcher every second.
pub struct RunSnapshot<'a> {
    /// The latest complete interval.
    pub interval: &'a MetricInterval,
    pub series: &'a MetricSeries,
    pub account: &'a LedgerTotals,
    /// The number of clients that have joined, out of `clients`.
    pub joined: u64,
    pub clients: u64,
    /// Details so far.
    pub details: &'a RunDetails,
    /// The beginning of the warm-up, once it is known.
    pub begin: Option<Nanos>,
    /// The beginning of the measured time, once it is known.
    pub measured: Option<Nanos>,
    /// The beginning of the drain, once it is known; unknown during a hold.
    pub drain: Option<Nanos>,
    /// The times in which new journeys were held back; the end of an open hold is `Nanos::MAX`.
    pub holds: Vec<Range<Nanos>>,
}

impl RunSnapshot<'_> {
    /// Whether new journeys are held back, or will be from the next interval on.
    pub fn is_held(&self) -> bool {
        self.holds.last().is_some_and(|hold| hold.end == Nanos::MAX)
    }

    /// Returns the time of the plan at the middle of the interval, in seconds from the beginning of the warm-up; `None`
    /// if the interval was held or the plan has not begun.
    pub fn plan_time(&self) -> Option<f64> {
        let at = self.interval.from.midpoint(self.interval.to);
        let held: Nanos = self.holds.iter().map(|hold| at.min(hold.end).saturating_sub(hold.start)).sum();
        let begun = at.checked_sub(held + self.begin?)?;
        (self.interval.phase != RunPhase::Held).then_some(begun as f64 / SECOND as f64)
    }
}

/// The reaction of the watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchDecision {
    Continue,
    /// Begin the drain.
    Drain,
}

/// What the shards have reported so far, beside what is in the ledger and in the series.
struct CollectedReports {
    clients: u64,
    /// The journeys that are running, by shard.
    under_way: Vec<u64>,
    /// Up to when each shard has reported its ledger entries, and up to when all are processed.
    reported: Vec<Nanos>,
    reached: Nanos,
    /// The number of shards that have not ended.
    running: usize,
    failed_openings: Vec<FailedOpening>,
    deviations: SightingsByEntry,
    details: RunDetails,
}

impl CollectedReports {
    fn of_shards(shards: usize, clients: u64) -> Self {
        Self {
            clients,
            under_way: vec![0; shards],
            reported: vec![0; shards],
            reached: 0,
            running: shards,
            failed_openings: Vec::new(),
            deviations: SightingsByEntry::new(),
            details: RunDetails::default(),
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// The run ended as planned.
    Complete,
    /// An interruption brought the drain of the run forward.
    Interrupted,
    /// The run was stopped at once.
    Stopped,
    /// The run ended before it began, because the clients of a role did not join.
    NotJoined,
}

/// The result of a run.
pub struct LoadRunOutcome {
    pub series: MetricSeries,
    pub account: LedgerTotals,
    pub checked: Option<ValidationSummary>,
    pub ending: RunEnd,
    /// The number of clients that had joined when the measured time began, out of `clients`.
    pub joined: u64,
    pub clients: u64,
    /// How long the warm-up took, and whether throughput and response times were steady by then, if it ended by itself.
    pub warm_up: Duration,
    pub steady: Option<bool>,
    /// The roles that ended the run before it began, because none of their clients joined.
    pub hopeless: Vec<HopelessRole>,
    /// Examples of clients that did not join at their first attempt.
    pub failed_openings: Vec<FailedOpening>,
    /// The times in which new journeys were held back.
    pub holds: Vec<Range<Nanos>>,
    /// How often each deviation of the hub was observed.
    pub deviations: SightingsByEntry,
    /// How connections ended, and where journeys waited.
    pub details: RunDetails,
    /// The time from the origin to the end of the last connection.
    pub took: Nanos,
    /// When the measured time began, unless the run ended before.
    pub measured_from: Option<Nanos>,
    /// The file of the share, whose end is still to be written.
    pub writer: Option<ShareWriter>,
}

/// The stages of a run as the aggregator controls them.
#[derive(Clone, Copy)]
enum AggregatorStage {
    Joining,
    /// A warm-up that ends when throughput and response times are steady, at `latest` at the latest. `checked` is the
    /// number of intervals that were complete at the last check.
    WarmingUp {
        latest: Nanos,
        checked: usize,
    },
    /// The time until the drain, which an interruption may bring forward.
    Running,
    /// The drain, which ends at `until` at the latest.
    Draining {
        until: Nanos,
        quiet_since: Option<Nanos>,
    },
    Leaving {
        until: Nanos,
    },
}

/// How far a run has come.
struct RunCourse {
    stage: AggregatorStage,
    ending: RunEnd,
    /// The number of clients that had joined when the joining ended.
    joined: u64,
    /// Whether an automatic warm-up ended because the load was steady.
    steady: Option<bool>,
}

impl LoadRun {
    pub fn control(&self) -> RunControl {
        RunControl(self.threads.timeline.clone())
    }

    /// Aggregates until the run is over; calls `watch` once per second. Lowers the priority of the calling thread below
    /// the shards.
    ///
    /// # Errors
    ///
    /// [`EngineError::Thread`], [`EngineError::System`]: a shard failed.
    pub fn aggregate(
        mut self,
        mut watch: impl FnMut(&RunSnapshot<'_>) -> WatchDecision,
    ) -> Result<LoadRunOutcome, EngineError> {
        super::affinity::lower_priority();
        let own = |role: &PlanRole| u64::from(self.share.count(role.population.number));
        let clients: u64 = self.plan.roles.iter().map(own).sum();
        let mut course =
            RunCourse { stage: AggregatorStage::Joining, ending: RunEnd::Complete, joined: 0, steady: None };
        let mut collected = CollectedReports::of_shards(self.threads.shards.len(), clients);
        while collected.running > 0 {
            match self.threads.reports.recv_timeout(CHECK_INTERVAL) {
                Ok(report) => self.take_report(report, &mut collected, &mut watch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = self.threads.timeline.clock.now();
            if self.threads.timeline.stopped() && !matches!(course.stage, AggregatorStage::Leaving { .. }) {
                course.ending = RunEnd::Stopped;
            }
            // Other shares may still need the clients of this one.
            let quiet =
                self.writer.is_none() && collected.under_way.iter().sum::<u64>() == 0 && self.ledger.totals().open == 0;
            self.advance(&mut course, now, clients, quiet);
        }
        for shard in self.threads.shards.drain(..) {
            shard.join().map_err(|_| EngineError::Thread)??;
        }
        Ok(self.conclude(course, collected))
    }

    /// Adds what a shard reports, and shows each interval that is now complete to `watch`.
    fn take_report(
        &mut self,
        report: ShardReport,
        collected: &mut CollectedReports,
        watch: &mut impl FnMut(&RunSnapshot<'_>) -> WatchDecision,
    ) {
        match report {
            ShardReport::Entries { shard, entries, names, upto } => {
                if let Some(writer) = &mut self.writer {
                    return writer.write_entries(shard, upto, &entries, &names);
                }
                self.ledger.add_names(names);
                self.ledger.queue_entries(&entries);
                collected.reported[shard] = upto;
                let least = collected.reported.iter().copied().min().unwrap_or_default();
                if least >= collected.reached.saturating_add(LEDGER_STEP) {
                    self.ledger.process_until(least);
                    collected.reached = least;
                }
            }
            ShardReport::Intervals(tallies) => {
                for tally in tallies {
                    let Some(interval) = self.series.add(tally) else { continue };
                    if let Some(writer) = &mut self.writer {
                        writer.write_interval(interval);
                    }
                    if self.watch_interval(collected, watch) == WatchDecision::Drain {
                        self.threads.timeline.cut_short(self.threads.timeline.clock.now());
                    }
                }
            }
            ShardReport::UnderWay { shard, journeys } => collected.under_way[shard] = journeys,
            ShardReport::Details(more) => collected.details.add(*more),
            ShardReport::NotJoined(failure) => collected.failed_openings.push(failure),
            ShardReport::Ended { deviations: seen } => {
                add_seen(&mut collected.deviations, &seen);
                collected.running -= 1;
            }
        }
    }

    /// Shows the latest interval to `watch`.
    fn watch_interval(
        &self,
        collected: &CollectedReports,
        watch: &mut impl FnMut(&RunSnapshot<'_>) -> WatchDecision,
    ) -> WatchDecision {
        let Some(interval) = self.series.intervals().last() else { return WatchDecision::Continue };
        let known = |at: Nanos| Some(at).filter(|at| *at != Nanos::MAX);
        let timeline = &self.threads.timeline;
        watch(&RunSnapshot {
            interval,
            series: &self.series,
            account: self.ledger.totals(),
            joined: self.joined_clients(),
            clients: collected.clients,
            details: &collected.details,
            begin: known(timeline.begin()),
            measured: known(timeline.measured()),
            drain: known(timeline.drain()),
            holds: timeline.holds.all(),
        })
    }

    /// Returns the result of a run whose shards have ended.
    fn conclude(mut self, course: RunCourse, collected: CollectedReports) -> LoadRunOutcome {
        let RunCourse { ending, joined, steady, .. } = course;
        let checked = self.judge.take().map(super::validator::ValidatorThread::finish);
        let now = self.threads.timeline.clock.now();
        if ending == RunEnd::Stopped {
            self.ledger.mark_cut_short();
        }
        while let Some(interval) = self.series.finish_next() {
            if let Some(writer) = &mut self.writer {
                writer.write_interval(interval);
            }
        }
        let timeline = Arc::clone(&self.threads.timeline);
        let warm_up = timeline.warm_up().unwrap_or(0);
        let last = timeline.drain().min(now);
        let holds = timeline.holds.all().into_iter().filter(|hold| hold.start < last);
        let holds = holds.map(|hold| hold.start..hold.end.min(last)).collect();
        let hopeless = if ending == RunEnd::NotJoined { self.hopeless_roles() } else { Vec::new() };
        LoadRunOutcome {
            series: self.series,
            account: self.ledger.finish(now),
            checked,
            ending,
            joined,
            clients: collected.clients,
            warm_up: Duration::from_nanos(warm_up),
            steady,
            hopeless,
            failed_openings: collected.failed_openings,
            holds,
            deviations: collected.deviations,
            details: collected.details,
            took: now,
            measured_from: Some(timeline.measured()).filter(|at| *at != Nanos::MAX),
            writer: self.writer,
        }
    }

    /// Moves the run to its next stage, if it is time. `quiet`: no journey is running and no item is open.
    fn advance(&self, course: &mut RunCourse, now: Nanos, clients: u64, quiet: bool) {
        course.stage = match course.stage {
            AggregatorStage::Joining => {
                let ready = self.joined_clients() >= clients || now >= longest_ramp(&self.plan) + MAX_JOINING_TIME;
                let interrupted = self.threads.timeline.drain() != Nanos::MAX;
                if ready || interrupted {
                    course.joined = self.joined_clients();
                    self.begin_phases(now.max(self.start_at))
                } else if !self.hopeless_roles().is_empty() {
                    course.joined = self.joined_clients();
                    course.ending = RunEnd::NotJoined;
                    self.threads.timeline.set_finish(now);
                    AggregatorStage::Leaving { until: now + MAX_LEAVING_TIME }
                } else {
                    AggregatorStage::Joining
                }
            }
            // An interruption has come first.
            AggregatorStage::WarmingUp { .. } if self.threads.timeline.drain() != Nanos::MAX => {
                AggregatorStage::Running
            }
            AggregatorStage::WarmingUp { .. } if self.threads.timeline.holds.open().is_some() => course.stage,
            AggregatorStage::WarmingUp { latest, checked } => {
                let complete = self.series.intervals().len();
                // Times after a hold are not compared with those before it.
                let holds = self.threads.timeline.holds.all();
                let begin = holds.last().map_or(self.threads.timeline.begin(), |hold| hold.end);
                let from = self.series.intervals().partition_point(|interval| interval.from < begin);
                let is_steady = complete > checked && is_steady(&self.series.layout, &self.series.intervals()[from..]);
                let end = self.threads.timeline.holds.shifted(latest);
                let measured = next_whole_interval(now).min(end);
                if is_steady || measured == end {
                    course.steady = Some(is_steady);
                    let planned_drain = measured.saturating_add(nanos(self.plan.phases.duration));
                    self.threads.timeline.set_measured(measured..planned_drain);
                    AggregatorStage::Running
                } else {
                    AggregatorStage::WarmingUp { latest, checked: complete }
                }
            }
            AggregatorStage::Running if now >= self.threads.timeline.drain() => {
                if self.threads.timeline.is_cut_short() && course.ending == RunEnd::Complete {
                    course.ending = RunEnd::Interrupted;
                }
                let until = self.threads.timeline.drain().saturating_add(nanos(self.plan.phases.drain));
                AggregatorStage::Draining { until, quiet_since: None }
            }
            AggregatorStage::Draining { until, quiet_since } => {
                let quiet_since = if quiet { quiet_since.or(Some(now)) } else { None };
                if now >= until || quiet_since.is_some_and(|since| now >= since + QUIET_TIME) {
                    self.threads.timeline.set_finish(now);
                    AggregatorStage::Leaving { until: now + MAX_LEAVING_TIME }
                } else {
                    AggregatorStage::Draining { until, quiet_since }
                }
            }
            AggregatorStage::Leaving { until } if now >= until => {
                self.threads.timeline.stop();
                course.stage
            }
            stage => stage,
        };
    }

    /// Sets the times of the phases, now that the clients have joined.
    fn begin_phases(&self, now: Nanos) -> AggregatorStage {
        let timeline = &self.threads.timeline;
        match self.plan.phases.warm_up {
            WarmUp::Fixed(time) => {
                let warm_up = nanos(time);
                let measured = next_whole_interval(now.saturating_add(warm_up));
                let planned_drain = measured.saturating_add(nanos(self.plan.phases.duration));
                timeline.set_measured(measured..planned_drain);
                timeline.set_begin(measured - warm_up);
                AggregatorStage::Running
            }
            WarmUp::Auto => {
                let begin = next_whole_interval(now);
                timeline.set_begin(begin);
                let latest = begin + nanos(self.plan.phases.longest_warm_up());
                AggregatorStage::WarmingUp { latest: next_whole_interval(latest), checked: 0 }
            }
        }
    }

    /// Returns the roles whose clients cannot be expected to join.
    fn hopeless_roles(&self) -> Vec<HopelessRole> {
        let timeline = &self.threads.timeline;
        let roles = self.plan.roles.iter().enumerate().map(|(place, role)| {
            let (joined, failed) = (timeline.joined(place), timeline.failed(place));
            let population = self.share.count(role.population.number);
            (joined, HopelessRole { name: role.name.clone(), failed, population })
        });
        roles
            .filter(|(joined, role)| is_hopeless(role.population, *joined, role.failed))
            .map(|(_, role)| role)
            .collect()
    }

    fn joined_clients(&self) -> u64 {
        (0..self.plan.roles.len()).map(|role| u64::from(self.threads.timeline.joined(role))).sum()
    }
}

/// Returns the time until the last client is due to connect, at most.
fn longest_ramp(plan: &Plan) -> Nanos {
    // Roles with `after` connect one after another, so that the sum is an upper bound.
    plan.roles.iter().map(|role| nanos(role.population.ramp_time())).fold(0, Nanos::saturating_add)
}

/// Returns when the next whole interval begins, with a margin so that every shard learns of it in time.
pub(super) fn next_whole_interval(now: Nanos) -> Nanos {
    (now.saturating_add(SECOND / 10)).div_ceil(SECOND) * SECOND
}

fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}
