//! A plan as data: populations, schedules, phases and thresholds.

mod jobs;
mod overrides;
mod parse;
pub mod schedule;
pub mod script;
pub mod threshold;

use std::time::Duration;

use crate::syntax::diagnostic::ValueError;
use crate::syntax::duration::{format_duration, parse_duration};
use crate::syntax::source::Span;

pub use overrides::{PlanOverrideError, PlanOverrides};
pub use parse::{PlanFileReader, parse_load_plan};
pub use script::PlanScript;

/// A plan for any protocol: clients that connect and stay connected.
pub const IDLE_PLAN: &str = include_str!("idle.yaml");

/// A plan as read from its file, with overrides from flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `<protocol>/load/<name>`, or the file's path.
    pub id: String,
    pub title: String,
    pub phases: PhaseDurations,
    pub roles: Vec<PlanRole>,
    /// Whether messages of one sender must reach each receiver in the order of publication.
    pub ordered: bool,
    /// How many shares of a run may be lost without making it inconclusive.
    pub lost_shares: u32,
    pub thresholds: Vec<ThresholdText>,
}

impl Plan {
    /// Whether the plan changes its load on purpose.
    pub fn changes_load(&self) -> bool {
        self.roles.iter().filter_map(|role| role.arrivals.as_ref()).any(|arrivals| {
            arrivals.stages.len() > 1
                || !arrivals.spikes.is_empty()
                || arrivals.stages.iter().any(|stage| stage.from != stage.to)
        })
    }

    /// Returns how many threads with connections the plan needs on a machine with `cores`: one per
    /// [`JOURNEYS_PER_THREAD`], if every client begins its journeys by a schedule, and otherwise one per core.
    ///
    /// More threads than needed cost CPU: a thread with few messages sleeps after each, and waking it up costs several
    /// times as much as the message (`reports/peers`).
    pub fn needed_threads(&self, cores: usize) -> usize {
        let clients: u64 = self.roles.iter().map(|role| u64::from(role.population.number)).sum();
        let rates = self.roles.iter().map(|role| role.arrivals.as_ref().map(Arrivals::highest_rate));
        match rates.sum::<Option<f64>>() {
            // The rate of a role without arrivals is unknown, and many clients connect faster with many threads.
            Some(rate) if clients <= CLIENTS_PER_THREAD => {
                ((rate / JOURNEYS_PER_THREAD).ceil() as usize).clamp(1, cores.max(1))
            }
            _ => cores.max(1),
        }
    }
}

/// The journeys per second that one thread is given. A thread can handle over 100,000 messages a second
/// (`reports/floor`), so that a journey may have ten of them.
const JOURNEYS_PER_THREAD: f64 = 10_000.0;
/// With more clients than this, there is a thread per core.
const CLIENTS_PER_THREAD: u64 = 2_000;

/// The phases of a run, after the ramps of its populations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseDurations {
    /// Runs the full load without measuring.
    pub warm_up: WarmUp,
    /// The measured time.
    pub duration: Duration,
    /// How long running journeys may take to finish; no new ones begin.
    pub drain: Duration,
}

/// When the warm-up ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmUp {
    /// After this time.
    Fixed(Duration),
    /// When throughput and response times are steady, or after [`PhaseDurations::longest_warm_up`].
    Auto,
}

/// A warm-up that ends by itself may take this long, or half the measured time, if that is longer.
const LONGEST_AUTO_WARM_UP: Duration = Duration::from_secs(10);

impl WarmUp {
    /// Parses `auto`, or a time.
    ///
    /// # Errors
    ///
    /// The text is neither.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if text == "auto" { Ok(Self::Auto) } else { parse_duration(text).map(Self::Fixed) }
    }
}

impl std::fmt::Display for WarmUp {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(time) => out.write_str(&format_duration(*time)),
            Self::Auto => out.write_str("auto"),
        }
    }
}

impl PhaseDurations {
    /// Returns how long the warm-up takes, at most.
    pub fn longest_warm_up(&self) -> Duration {
        match self.warm_up {
            WarmUp::Fixed(time) => time,
            WarmUp::Auto => LONGEST_AUTO_WARM_UP.max(self.duration / 2),
        }
    }
}

/// A population of clients that all run the same steps.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRole {
    pub name: String,
    pub population: Population,
    /// The role that this role waits for, as an index into [`Plan::roles`]: it connects after every client of that role
    /// has joined.
    pub after: Option<usize>,
    /// The schedule of journeys; without one, a client begins its next journey when the last one finishes.
    pub arrivals: Option<Arrivals>,
    /// The most concurrent journeys per client.
    pub at_a_time: u32,
    /// Whether the role's own journeys continue in the drain, because other roles depend on them.
    pub drains: bool,
    pub reconnect: ReconnectPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Population {
    pub number: u32,
    pub ramp: Ramp,
}

/// The rate at which a population connects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ramp {
    /// Evenly over this time.
    Over(Duration),
    /// At this rate per second.
    Rate(f64),
}

impl Population {
    /// Returns how long after the first client this one is due to connect.
    pub fn connect_time(&self, client: u32) -> Duration {
        let client = f64::from(client.min(self.number));
        match self.ramp {
            Ramp::Over(time) => time.mul_f64(client / f64::from(self.number.max(1))),
            Ramp::Rate(rate) => Duration::from_secs_f64(client / rate),
        }
    }

    /// Returns how long after the first client the last one is due to connect.
    pub fn ramp_time(&self) -> Duration {
        self.connect_time(self.number.saturating_sub(1))
    }
}

/// An open-model schedule: journeys are due whether clients are free or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrivals {
    pub spacing: ArrivalSpacing,
    /// Stages in order, from the beginning of the warm-up; the last one continues until the drain.
    pub stages: Vec<RateStage>,
    /// Temporary rates, added to those of the stages.
    pub spikes: Vec<RateSpike>,
}

impl Arrivals {
    /// Returns an upper bound of the journeys due per second: the highest stage with all spikes.
    pub fn highest_rate(&self) -> f64 {
        let highest = self.stages.iter().map(|stage| stage.from.max(stage.to)).fold(0.0, f64::max);
        highest + self.spikes.iter().map(|spike| spike.rate).sum::<f64>()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrivalSpacing {
    /// Equal times between arrivals at one rate.
    Constant,
    /// Independent arrivals, with exponentially distributed times between them.
    Poisson,
}

/// A rate per second that changes linearly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateStage {
    pub from: f64,
    pub to: f64,
    pub time: Duration,
}

/// A temporary additional rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateSpike {
    pub at: Duration,
    pub time: Duration,
    pub rate: f64,
}

/// The reaction of a client to an unexpected end of its connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReconnectPolicy {
    Never,
    /// Reconnects after this time, doubled after every failure up to `most`, half of it random.
    After {
        first: Duration,
        most: Duration,
    },
}

/// A mark that a plan can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkName {
    Attempted,
    Published,
    Acknowledged,
    Refused,
    Assigned,
    Released,
    Cancelled,
    Delivered,
    Completed,
    Failed,
}

impl MarkName {
    pub const ALL: [(&str, Self); 10] = [
        ("attempted", Self::Attempted),
        ("published", Self::Published),
        ("acknowledged", Self::Acknowledged),
        ("refused", Self::Refused),
        ("assigned", Self::Assigned),
        ("released", Self::Released),
        ("cancelled", Self::Cancelled),
        ("delivered", Self::Delivered),
        ("completed", Self::Completed),
        ("failed", Self::Failed),
    ];
}

/// A condition on a metric as text; [`threshold`] parses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThresholdText {
    pub text: String,
    pub span: Span,
    /// Ends the run when the threshold has been broken for this time.
    pub abort_after: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const fn steady(rate: f64) -> RateStage {
        RateStage { from: rate, to: rate, time: Duration::ZERO }
    }

    fn role(number: u32, stages: &[RateStage], spikes: &[RateSpike]) -> PlanRole {
        let arrivals = Arrivals { spacing: ArrivalSpacing::Poisson, stages: stages.to_vec(), spikes: spikes.to_vec() };
        PlanRole {
            name: "caller".to_owned(),
            population: Population { number, ramp: Ramp::Over(Duration::ZERO) },
            after: None,
            arrivals: (!stages.is_empty()).then_some(arrivals),
            at_a_time: 1,
            drains: false,
            reconnect: ReconnectPolicy::Never,
        }
    }

    fn plan(roles: Vec<PlanRole>) -> Plan {
        let phases = PhaseDurations {
            warm_up: WarmUp::Fixed(Duration::ZERO),
            duration: Duration::from_secs(1),
            drain: Duration::ZERO,
        };
        let (id, title) = ("plan".to_owned(), String::new());
        Plan { id, title, phases, roles, ordered: false, lost_shares: 0, thresholds: Vec::new() }
    }

    const SPIKE: RateSpike = RateSpike { at: Duration::ZERO, time: Duration::ZERO, rate: 10_000.0 };
    const RAMP: RateStage = RateStage { from: 0.0, to: 25_000.0, time: Duration::from_secs(1) };

    #[rstest]
    #[case::a_low_rate(vec![role(100, &[steady(100.0)], &[])], 1)]
    #[case::the_most_for_one(vec![role(2_000, &[steady(10_000.0)], &[])], 1)]
    #[case::rates_of_all_roles(vec![role(10, &[steady(6_000.0)], &[]), role(10, &[steady(6_000.0)], &[])], 2)]
    #[case::the_highest_stage(vec![role(100, &[steady(1.0), RAMP, steady(1.0)], &[])], 3)]
    #[case::a_spike(vec![role(100, &[steady(1.0)], &[SPIKE])], 2)]
    #[case::more_than_cores(vec![role(100, &[steady(1e6)], &[])], 4)]
    #[case::a_role_without_arrivals(vec![role(100, &[steady(100.0)], &[]), role(1, &[], &[])], 4)]
    #[case::many_clients(vec![role(2_001, &[steady(100.0)], &[])], 4)]
    fn a_plan_needs_as_many_threads_as_its_rate(#[case] roles: Vec<PlanRole>, #[case] threads: usize) {
        assert_eq!(plan(roles).needed_threads(4), threads);
    }
}
