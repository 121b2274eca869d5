//! Measures the machine: its clock and timers, the round trips of the load engine, and what else keeps it busy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::check;
use crate::hub::prepare::{self, SetupError, TestedHub};
use crate::load::compile::{self, PlanTarget};
use crate::load::engine::{self, EngineError, LoadRunSetup, RunClock, RunEnd, ValidationMode, WatchDecision};
use crate::load::ledger;
use crate::load::metrics::{CounterId, MessageCount, MessageTime, RunPhase, TimingId};
use crate::load::plan::{Plan, PlanScript};
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::share::Share;

/// The length of the sleeps whose lateness is measured, and their number.
const SLEEP: Duration = Duration::from_millis(1);
const SLEEPS: usize = 300;
/// Readings of the clock.
const CLOCK_READINGS: usize = 2_000;
/// The plan, under `plan`, and its `protocol`.
pub const ROUND_TRIPS: &str = include_str!("round-trips.yaml");

/// How much too late a sleep ends.
#[derive(Clone, Copy, Debug)]
pub struct TimerLateness {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// What the load engine achieves against the reference server in the same process.
#[derive(Clone, Copy, Debug)]
pub struct RoundTrips {
    pub per_second: f64,
    pub connections: u64,
    /// Nanoseconds.
    pub p50: f64,
    pub p99: f64,
    /// How many cores the engine's threads kept busy; 0 where the system does not report it.
    pub busy_cores: f64,
}

/// Returns the shortest time between two different readings of the clock.
pub fn clock_step() -> Duration {
    let step = |_| {
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            if now > begun {
                return now - begun;
            }
        }
    };
    (0..CLOCK_READINGS).map(step).min().unwrap_or_default()
}

/// Sleeps repeatedly. Takes about a third of a second.
pub fn timer_lateness() -> TimerLateness {
    let sleep = |_| {
        let begun = Instant::now();
        std::thread::sleep(SLEEP);
        begun.elapsed().saturating_sub(SLEEP)
    };
    let mut late: Vec<Duration> = (0..SLEEPS).map(sleep).collect();
    late.sort_unstable();
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    TimerLateness { p50: at(0.5), p99: at(0.99), max: at(1.0) }
}

/// Why round trips were not measured.
#[derive(Debug, thiserror::Error)]
pub enum RoundTripError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("the plan of `doctor` does not compile: {}", .0.message)]
    Plan(Box<Diagnostic>),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("hubproof failed: {0}; please report this")]
    Panic(#[from] tokio::task::JoinError),
    #[error("the built-in server answered no request, so round trips cannot be measured")]
    NoAnswer,
}

/// Plays a plan against a hub. The plan of this folder takes about two seconds.
///
/// # Errors
///
/// The load engine did not start, or no request was answered.
pub async fn round_trips(
    hub: &TestedHub,
    plan: Plan,
    script: &PlanScript,
    threads: usize,
    epoch_ms: i64,
) -> Result<RoundTrips, RoundTripError> {
    let prepared = prepare::prepare_hub(hub)?;
    let instance = prepared.first_instance();
    let target = PlanTarget {
        settings: instance.settings.clone(),
        stamp: check::stamp(),
        epoch_ms,
        seed: 1,
        keys: ledger::IdHasher::random(),
        deviations: Arc::default(),
        masker: Arc::default(),
    };
    let clock = RunClock::start();
    let compiled = compile::compile_plan(&plan, script, &target);
    let compiled = compiled.map_err(|mut found| RoundTripError::Plan(Box::new(found.swap_remove(0))))?;
    let setup = LoadRunSetup {
        plan: Arc::new(plan),
        prepared: Arc::new(compiled),
        clock,
        epoch_ms,
        endpoint: instance.endpoint.clone(),
        deviations: Arc::default(),
        tls: instance.tls.clone(),
        sources: Vec::new(),
        shards: threads,
        share: Share::WHOLE,
        start_at: 0,
        seed: 1,
        validate: ValidationMode::None,
        pack: None,
        ledger: ledger::LedgerConfig::default(),
    };
    // The plan calls no hooks.
    let (to, _calls) = engine::hooks::hook_call_queue();
    let run = engine::start_run(setup, to)?;
    let outcome = tokio::task::spawn_blocking(move || run.aggregate(|_| WatchDecision::Continue)).await;
    let outcome = outcome??;
    let (layout, total) = (&outcome.series.layout, outcome.series.total());
    let messages = 0..layout.names.messages.len();
    let per_second =
        messages.clone().map(|at| total.rate(layout, CounterId::Message(at, MessageCount::Answered))).sum();
    let mut timings = messages.filter_map(|at| total.timing(layout, TimingId::Message(at, MessageTime::Service)));
    let Some(timing) = timings.next().filter(|_| outcome.ending == RunEnd::Complete && per_second > 0.0) else {
        return Err(RoundTripError::NoAnswer);
    };
    let mut cores: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    let measured = outcome.series.intervals().iter().filter(|interval| interval.phase == RunPhase::Measured);
    for core in measured.flat_map(|interval| &interval.cores) {
        let (sum, times) = cores.entry(core.core).or_default();
        *sum += core.busy;
        *times += 1.0;
    }
    Ok(RoundTrips {
        per_second,
        connections: outcome.joined,
        p50: timing.value_at_quantile(0.5) as f64,
        p99: timing.value_at_quantile(0.99) as f64,
        busy_cores: cores.values().map(|(sum, times)| sum / times).sum(),
    })
}

/// System counters that never decrease.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemCounters {
    /// CPU time in seconds of all cores: in all, not idle, and taken by other virtual machines.
    all: f64,
    busy: f64,
    stolen: f64,
    /// CPU time in seconds of this process.
    own: f64,
    /// Pages written to and read from swap space.
    swapped: Option<u64>,
    /// How often a core was slowed down because of its temperature.
    throttled: Option<u64>,
}

/// What disturbed the machine between two readings of the counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disturbance {
    /// The share of the CPU time that other processes used.
    pub others: Option<f64>,
    /// The share of the CPU time that other virtual machines took.
    pub stolen: Option<f64>,
    pub swapped: Option<u64>,
    pub throttled: Option<u64>,
}

impl SystemCounters {
    pub fn read() -> Self {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let vmstat = std::fs::read_to_string("/proc/vmstat").ok();
        let swapped = vmstat.map(|text| sum_of_lines(&text, &["pswpin", "pswpout"]));
        Self { swapped, throttled: throttle_count(), own: own_cpu_time(), ..parse_cpu_line(&text) }
    }

    /// Returns what happened since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Disturbance {
        let all = self.all - earlier.all;
        let share = |time: f64| (all > 0.0).then(|| (time / all).clamp(0.0, 1.0));
        let rise = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Disturbance {
            others: share(self.busy - earlier.busy - (self.own - earlier.own)),
            stolen: share(self.stolen - earlier.stolen),
            swapped: rise(self.swapped, earlier.swapped),
            throttled: rise(self.throttled, earlier.throttled),
        }
    }
}

/// Parses the first line of /proc/stat: `cpu user nice system idle iowait irq softirq steal ...`.
fn parse_cpu_line(text: &str) -> SystemCounters {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let times: Vec<f64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
    let [user, nice, system, idle, waiting, interrupts, soft, stolen] = times[..] else {
        return SystemCounters::default();
    };
    let busy = user + nice + system + interrupts + soft;
    let second = ticks_per_second();
    let all = (busy + idle + waiting + stolen) / second;
    SystemCounters { all, busy: busy / second, stolen: stolen / second, ..SystemCounters::default() }
}

/// Returns the sum of the numbers in the lines that begin with one of these names.
fn sum_of_lines(text: &str, names: &[&str]) -> u64 {
    let number = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        names.contains(&name).then(|| number.trim().parse::<u64>().ok()).flatten()
    };
    text.lines().filter_map(number).sum()
}

/// Returns how often cores were throttled; `None` if the system does not report it.
fn throttle_count() -> Option<u64> {
    let cores = std::fs::read_dir("/sys/devices/system/cpu").ok()?.flatten();
    let counts = cores.filter_map(|core| {
        let text = std::fs::read_to_string(core.path().join("thermal_throttle/core_throttle_count")).ok()?;
        text.trim().parse::<u64>().ok()
    });
    counts.reduce(|sum, count| sum + count)
}

#[cfg(unix)]
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[cfg(not(unix))]
fn ticks_per_second() -> f64 {
    100.0
}

/// Returns the CPU time of this process in seconds.
#[cfg(unix)]
fn own_cpu_time() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

#[cfg(not(unix))]
fn own_cpu_time() -> f64 {
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_other_processes_leaves_out_this_one() {
        let of = |busy: f64, own: f64| SystemCounters { all: busy * 4.0, busy, own, ..SystemCounters::default() };
        let seen = of(30.0, 12.0).since(&of(10.0, 2.0));
        // 20 of 80 seconds, 10 of them our own.
        assert_eq!(seen.others, Some(0.125));
        assert_eq!(of(1.0, 0.0).since(&of(1.0, 0.0)).others, None);
    }

    #[test]
    fn counters_of_the_system_are_parsed() {
        let second = ticks_per_second();
        let read = parse_cpu_line("cpu  100 0 50 800 30 5 15 20 0 0\ncpu0 1 2 3\n");
        assert_eq!((read.all, read.busy, read.stolen), (1020.0 / second, 170.0 / second, 20.0 / second));
        assert_eq!(parse_cpu_line("").all, 0.0);
        assert_eq!(sum_of_lines("pswpin 3\npswpout 4\npgpgin 9\n", &["pswpin", "pswpout"]), 7);
    }
}
