//! The time of a conversation: how long it waits, and how close its waits came to their timeouts. The closer they came,
//! the closer a slow machine is to a false finding.
//!
//! The clock measures waits that ended in time: for frames, ends, upgrades, hooks and `retry`, and the `slack` that an
//! `order` used. It does not measure waits that cannot be late (silence, `wait`, steps with only may rules), nor a
//! `check` that compares times.

use std::time::Duration;

use super::ConversationConfig;
use super::active_step::{ActiveStep, WaitCondition};
use crate::outcome::TimingMargin;
use crate::protocol::RuleLevel;
use crate::scenario::model::{Program, Step};

pub(super) struct Clock {
    pub now: Duration,
    /// Unix time in milliseconds at time zero.
    epoch_ms: i64,
    pub patience: Duration,
    pub quiet: Duration,
    /// See [`ConversationConfig::settle_after_connect`].
    pub settle: Duration,
    stretch: f64,
    /// The margin of the wait that used the largest share of its bound.
    pub slimmest: Option<TimingMargin>,
}

impl Clock {
    pub fn new(config: &ConversationConfig) -> Self {
        let ConversationConfig { epoch_ms, patience, quiet, settle_after_connect: settle, stretch, .. } = *config;
        Self { now: Duration::ZERO, epoch_ms, patience, quiet, settle, stretch, slimmest: None }
    }

    /// Moves the clock forward, never back. Returns the Unix time in milliseconds.
    pub fn advance(&mut self, now: Duration) -> i64 {
        self.now = self.now.max(now);
        self.epoch_ms + i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// Returns the Unix time in milliseconds at a time of the conversation.
    pub fn unix_ms(&self, at: Duration) -> f64 {
        self.epoch_ms as f64 + at.as_secs_f64() * 1000.0
    }

    pub fn stretched(&self, time: Duration) -> Duration {
        time.mul_f64(self.stretch)
    }

    pub fn since(&self, start: Duration) -> Duration {
        self.now.saturating_sub(start)
    }

    /// Returns a wait that begins now.
    pub fn wait(&self, time: Duration, waiting: WaitCondition) -> ActiveStep {
        ActiveStep { since: self.now, deadline: Some(self.now + time), full: None, waiting }
    }

    /// Records the margin of a wait that ended in time.
    pub fn add_wait(&mut self, program: &Program, step: &Step, active: &ActiveStep) {
        if let Some(deadline) = active.deadline
            && !only_may(program, step)
        {
            let waited = self.since(active.since);
            let deadline = active.full.unwrap_or(deadline);
            self.add_margin(step, waited, deadline.saturating_sub(active.since));
        }
    }

    /// Keeps the margin if no other wait used a larger share of its bound.
    pub fn add_margin(&mut self, step: &Step, waited: Duration, bound: Duration) {
        if bound.is_zero() {
            return;
        }
        let margin = TimingMargin { step: step.text.clone(), waited, bound };
        if self.slimmest.as_ref().is_none_or(|slimmest| margin.used_share() > slimmest.used_share()) {
            self.slimmest = Some(margin);
        }
    }
}

/// Whether a step has only rules of level may, and so cannot fail.
pub(super) fn only_may(program: &Program, step: &Step) -> bool {
    step.check.is_some_and(|check| program.checks[check].rules.iter().all(|rule| rule.level == RuleLevel::May))
}
