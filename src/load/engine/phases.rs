//! The phases of a run as all threads know them: when each begins, and who has joined. A few atomics, read once per
//! turn.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::load::Nanos;
use crate::load::holds::Holds;

/// The clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunClock(Instant);

impl RunClock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Starts a clock whose origin is the last whole second of Unix time, so that the seconds of several machines begin
    /// together. Returns also that time in nanoseconds. `offset`: the clock of all machines minus this one's, in
    /// nanoseconds.
    pub fn start_at_whole_second(offset: i64) -> (Self, i64) {
        let (now, unix) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let moved = i64::try_from(unix.as_nanos()).unwrap_or(i64::MAX).saturating_add(offset);
        let unix = Duration::from_nanos(u64::try_from(moved).unwrap_or_default());
        let part = Duration::from_nanos(unix.subsec_nanos().into());
        let origin = (unix - part).as_nanos() as i64;
        now.checked_sub(part).map_or((Self(now), unix.as_nanos() as i64), |begun| (Self(begun), origin))
    }

    pub fn now(self) -> Nanos {
        // 64 bits of nanoseconds are enough for 584 years.
        self.0.elapsed().as_nanos() as Nanos
    }
}

/// The beginnings of a run's phases, set by the aggregator; `Nanos::MAX` until they are known.
///
/// A shard may learn of a value one turn later. A shard that knows the measured time also knows when the drain begins;
/// the other values are independent. Beginnings are stored as times of the plan, which holds move.
#[derive(Debug)]
pub struct PhaseTimeline {
    pub clock: RunClock,
    /// The beginning of arrivals and of the warm-up.
    begin: AtomicU64,
    /// The beginning of the measured time.
    measured: AtomicU64,
    /// The beginning of the drain.
    drain: AtomicU64,
    /// The beginning of a drain that an interruption has brought forward.
    cut: AtomicU64,
    pub holds: Holds,
    /// When all clients close their connections.
    finish: AtomicU64,
    /// Whether all connections are dropped at once.
    stop: AtomicBool,
    /// How many clients of each role have joined so far, each counted once.
    joined: Vec<AtomicU32>,
    /// How many clients of each role have failed to join, each counted once, whether they joined later or not.
    failed: Vec<AtomicU32>,
}

impl PhaseTimeline {
    pub fn new(clock: RunClock, roles: usize) -> Self {
        let never = || AtomicU64::new(Nanos::MAX);
        let none = || (0..roles).map(|_| AtomicU32::new(0)).collect();
        Self {
            clock,
            begin: never(),
            measured: never(),
            drain: never(),
            cut: never(),
            holds: Holds::default(),
            finish: never(),
            stop: AtomicBool::new(false),
            joined: none(),
            failed: none(),
        }
    }

    pub fn begin(&self) -> Nanos {
        self.begin.load(Relaxed)
    }

    /// Returns the beginning of the measured time; `Nanos::MAX` also while it is held back.
    pub fn measured(&self) -> Nanos {
        self.holds.shifted(self.measured.load(Acquire))
    }

    /// Returns the beginning of the drain; `Nanos::MAX` also while it is held back.
    pub fn drain(&self) -> Nanos {
        self.holds.shifted(self.drain.load(Relaxed)).min(self.cut.load(Relaxed))
    }

    /// Whether the drain was brought forward.
    pub fn is_cut_short(&self) -> bool {
        self.cut.load(Relaxed) < self.holds.shifted(self.drain.load(Relaxed))
    }

    /// Returns the length of the warm-up without holds, once the measured time is known.
    pub fn warm_up(&self) -> Option<Nanos> {
        let measured = self.measured.load(Acquire);
        (measured != Nanos::MAX).then(|| measured.saturating_sub(self.begin()))
    }

    pub fn finish(&self) -> Nanos {
        self.finish.load(Relaxed)
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Sets the beginning of the warm-up after the populations have joined.
    pub fn set_begin(&self, begin: Nanos) {
        self.begin.store(begin, Relaxed);
    }

    /// Sets the measured time; must be called before it begins, and early enough for every shard to learn of it, and
    /// not during a hold.
    pub fn set_measured(&self, measured: std::ops::Range<Nanos>) {
        let passed = self.holds.total();
        self.drain.store(measured.end.saturating_sub(passed), Relaxed);
        self.measured.store(measured.start.saturating_sub(passed), Release);
    }

    /// Brings the drain forward to `at`.
    pub fn cut_short(&self, at: Nanos) {
        self.cut.fetch_min(at, Relaxed);
    }

    pub fn set_finish(&self, at: Nanos) {
        self.finish.fetch_min(at, Relaxed);
    }

    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub fn joined(&self, role: usize) -> u32 {
        self.joined[role].load(Relaxed)
    }

    pub fn count_joined(&self, role: usize) {
        self.joined[role].fetch_add(1, Relaxed);
    }

    pub fn failed(&self, role: usize) -> u32 {
        self.failed[role].load(Relaxed)
    }

    pub fn count_failed(&self, role: usize) {
        self.failed[role].fetch_add(1, Relaxed);
    }
}
