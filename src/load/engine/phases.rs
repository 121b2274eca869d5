//! What all threads of a run know of its course: when it began, when its parts begin, who has joined. A few atomics, read
//! once a turn.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::load::Nanos;

/// The clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now(self) -> Nanos {
        // A run does not last 584 years.
        self.0.elapsed().as_nanos() as Nanos
    }
}

/// The course of a run, as whoever coordinates it decides. Times that are not decided yet are `Nanos::MAX`.
///
/// Relaxed everywhere: each value means something by itself, and a shard that sees one a turn later is right, too.
#[derive(Debug)]
pub struct Course {
    pub clock: Clock,
    /// Arrivals begin, and with them the warm-up.
    begin: AtomicU64,
    /// What is due is measured from here.
    measured: AtomicU64,
    /// Nothing new is due from here on.
    drain: AtomicU64,
    /// Everybody leaves.
    finish: AtomicU64,
    /// Everybody is gone at once.
    stop: AtomicBool,
    /// How many clients of each role have joined so far, each once.
    joined: Vec<AtomicU32>,
}

impl Course {
    pub fn new(clock: Clock, roles: usize) -> Self {
        let never = || AtomicU64::new(Nanos::MAX);
        Self {
            clock,
            begin: never(),
            measured: never(),
            drain: never(),
            finish: never(),
            stop: AtomicBool::new(false),
            joined: (0..roles).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    pub fn begin(&self) -> Nanos {
        self.begin.load(Relaxed)
    }

    pub fn measured(&self) -> Nanos {
        self.measured.load(Relaxed)
    }

    pub fn drain(&self) -> Nanos {
        self.drain.load(Relaxed)
    }

    pub fn finish(&self) -> Nanos {
        self.finish.load(Relaxed)
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Everybody is there.
    pub fn set_begin(&self, begin: Nanos, measured: Nanos, drain: Nanos) {
        self.measured.store(measured, Relaxed);
        // An interruption may have come first.
        self.drain.fetch_min(drain, Relaxed);
        self.begin.store(begin, Relaxed);
    }

    /// Brings the drain forward to `at`.
    pub fn set_drain(&self, at: Nanos) {
        self.drain.fetch_min(at, Relaxed);
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

    pub fn joins(&self, role: usize) {
        self.joined[role].fetch_add(1, Relaxed);
    }
}
