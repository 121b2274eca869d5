//! The thread that is not a shard: decides the course of a run, and folds what the shards tell into its result.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::shard::outbox::Parcel;
use super::validator::Checked;
use super::{EngineError, Run, Stopper};
use crate::load::ledger::Totals;
use crate::load::metrics::{Interval, Series};
use crate::load::plan::Plan;
use crate::load::{Nanos, SECOND};

/// How often the course is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The ledger goes on in steps of this time at least: what it knows is in the cache while it does.
const STEP: Nanos = SECOND / 10;
/// How long the populations may take to join beyond their ramps, before the run goes on without the rest.
const JOINING: Nanos = 60 * SECOND;
/// How long shards have to close their connections.
const LEAVING: Nanos = 5 * SECOND;
/// Nothing is under way: we still listen for so long, for what should not come.
const QUIET: Nanos = 2 * SECOND;

/// Where a run stands, told each second.
pub struct Live<'a> {
    /// The second that has just become complete.
    pub interval: &'a Interval,
    pub series: &'a Series,
    pub account: &'a Totals,
    /// How many clients have joined, of how many.
    pub joined: u64,
    pub clients: u64,
    /// Bytes that the ledger takes.
    pub ledger_bytes: usize,
    /// Where the measured time begins, once that is known.
    pub measured: Option<Nanos>,
}

/// What whoever watches wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    GoOn,
    /// Nothing new from now on.
    Drain,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As planned.
    Complete,
    /// Its drain was brought forward.
    Interrupted,
    /// It was stopped at once.
    Stopped,
}

/// What a run has come to.
pub struct Outcome {
    pub series: Series,
    pub account: Totals,
    pub checked: Option<Checked>,
    pub ending: Ending,
    /// How many clients had joined when the measured time began, of how many.
    pub joined: u64,
    pub clients: u64,
    /// Journeys that were still under way when the drain was over.
    pub undrained: u64,
    /// How long it took, from the first connection to the last.
    pub took: Nanos,
}

/// The parts of a run that the fold has to go through.
#[derive(Clone, Copy)]
enum Part {
    Joining,
    /// Until the drain, which an interruption may bring forward.
    Running {
        planned_drain: Nanos,
    },
    /// Until it is over at the latest.
    Draining {
        until: Nanos,
        quiet_since: Option<Nanos>,
    },
    Leaving {
        until: Nanos,
    },
}

impl Run {
    pub fn stopper(&self) -> Stopper {
        Stopper(self.threads.course.clone())
    }

    /// Folds until the run is over; `watch` is called for each second. The calling thread stands behind the shards from
    /// then on.
    ///
    /// # Errors
    /// [`EngineError::Thread`], [`EngineError::System`]: a shard could not go on.
    pub fn fold(mut self, mut watch: impl FnMut(&Live<'_>) -> Order) -> Result<Outcome, EngineError> {
        super::affinity::give_way();
        let clients: u64 = self.plan.roles.iter().map(|role| u64::from(role.population.number)).sum();
        let mut part = Part::Joining;
        let mut under_way = vec![0; self.threads.shards.len()];
        let mut told = vec![0; self.threads.shards.len()];
        let mut reached: Nanos = 0;
        let mut running = self.threads.shards.len();
        let mut ending = Ending::Complete;
        let mut joined = 0;
        let mut undrained = 0;
        while running > 0 {
            match self.threads.parcels.recv_timeout(LOOK) {
                Ok(Parcel::Entries { shard, entries, names, upto }) => {
                    self.ledger.learn(names);
                    self.ledger.fold(&entries);
                    told[shard] = upto;
                    let least = told.iter().copied().min().unwrap_or_default();
                    if least >= reached.saturating_add(STEP) {
                        self.ledger.reach(least);
                        reached = least;
                    }
                }
                Ok(Parcel::Intervals(tallies)) => {
                    for tally in tallies {
                        if self.series.add(tally).is_none() {
                            continue;
                        }
                        let Some(interval) = self.series.intervals().last() else { continue };
                        let measured = Some(self.threads.course.measured()).filter(|at| *at != Nanos::MAX);
                        let live = Live {
                            interval,
                            series: &self.series,
                            account: self.ledger.account(),
                            joined: self.joined(),
                            clients,
                            ledger_bytes: self.ledger.bytes(),
                            measured,
                        };
                        if watch(&live) == Order::Drain {
                            self.threads.course.set_drain(self.threads.course.clock.now());
                        }
                    }
                }
                Ok(Parcel::UnderWay { shard, journeys }) => under_way[shard] = journeys,
                Ok(Parcel::Ended) => running -= 1,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = self.threads.course.clock.now();
            if self.threads.course.stopped() {
                ending = Ending::Stopped;
            }
            part = match part {
                Part::Joining => {
                    let ready = self.joined() >= clients || now >= ramps(&self.plan) + JOINING;
                    let interrupted = self.threads.course.drain() != Nanos::MAX;
                    if ready || interrupted {
                        joined = self.joined();
                        let (begin, measured, drain) = times(&self.plan, now);
                        self.threads.course.set_begin(begin, measured, drain);
                        Part::Running { planned_drain: drain }
                    } else {
                        part
                    }
                }
                Part::Running { planned_drain } if now >= self.threads.course.drain() => {
                    if self.threads.course.drain() < planned_drain && ending == Ending::Complete {
                        ending = Ending::Interrupted;
                    }
                    let until = self.threads.course.drain().saturating_add(nanos(self.plan.phases.drain));
                    Part::Draining { until, quiet_since: None }
                }
                Part::Draining { until, quiet_since } => {
                    undrained = under_way.iter().sum();
                    let quiet = undrained == 0 && self.ledger.account().open == 0;
                    let quiet_since = if quiet { quiet_since.or(Some(now)) } else { None };
                    if now >= until || quiet_since.is_some_and(|since| now >= since + QUIET) {
                        self.threads.course.set_finish(now);
                        Part::Leaving { until: now + LEAVING }
                    } else {
                        Part::Draining { until, quiet_since }
                    }
                }
                Part::Leaving { until } if now >= until => {
                    self.threads.course.stop();
                    part
                }
                part => part,
            };
        }
        for shard in self.threads.shards.drain(..) {
            shard.join().map_err(|_| EngineError::Thread)??;
        }
        let checked = self.judge.take().map(super::validator::Judge::finish);
        let now = self.threads.course.clock.now();
        self.series.finish();
        Ok(Outcome {
            series: self.series,
            account: self.ledger.finish(now),
            checked,
            ending,
            joined,
            clients,
            undrained,
            took: now,
        })
    }

    fn joined(&self) -> u64 {
        (0..self.plan.roles.len()).map(|role| u64::from(self.threads.course.joined(role))).sum()
    }
}

/// How long all populations take to be told to connect.
fn ramps(plan: &Plan) -> Nanos {
    // Those that wait for others come after them; more than all of them together it cannot be.
    plan.roles.iter().map(|role| nanos(role.population.ramp())).fold(0, Nanos::saturating_add)
}

/// When arrivals begin, what is measured begins, and the drain: the second begins with a whole interval.
fn times(plan: &Plan, now: Nanos) -> (Nanos, Nanos, Nanos) {
    let warm_up = nanos(plan.phases.warm_up);
    // A little later, so that every shard has heard of it.
    let soon = now + SECOND / 10;
    let measured = soon.saturating_add(warm_up).div_ceil(SECOND) * SECOND;
    (measured - warm_up, measured, measured.saturating_add(nanos(plan.phases.duration)))
}

fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}
