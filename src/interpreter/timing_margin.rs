//! Measures how near the waits of a conversation came to their timeouts: how near a slow machine is to a false finding.
//!
//! Measured are waits that ended in time: for frames, ends, upgrades, hooks, `retry`, and the `slack` an `order` used.
//! Not measured is what cannot be late (silence, `wait`, what is only allowed), and a `check` that compares times.

use std::time::Duration;

use super::Conversation;
use super::active_step::Active;
use crate::event::Margin;
use crate::protocol::Level;
use crate::scenario::model::{Program, Step};

impl Conversation {
    /// Records the margin of a wait that ended in time.
    pub(super) fn margin(&mut self, step: &Step, active: &Active) {
        let program = std::sync::Arc::clone(&self.program);
        if let Some(deadline) = active.deadline
            && !only_may(&program, step)
        {
            self.margin_of(step, self.now.saturating_sub(active.since), deadline.saturating_sub(active.since));
        }
    }

    /// Keeps the margin if no other wait used a larger share of its bound.
    pub(super) fn margin_of(&mut self, step: &Step, waited: Duration, bound: Duration) {
        if bound.is_zero() {
            return;
        }
        let margin = Margin { step: step.text.clone(), waited, bound };
        if self.slimmest.as_ref().is_none_or(|slimmest| margin.share() > slimmest.share()) {
            self.slimmest = Some(margin);
        }
    }
}

/// Whether a step has only rules of level may, so that it cannot fail.
pub(super) fn only_may(program: &Program, step: &Step) -> bool {
    step.check.is_some_and(|check| program.checks[check].rules.iter().all(|rule| rule.level == Level::May))
}
