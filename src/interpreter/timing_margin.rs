//! How near the waits of a conversation came to their bounds: how near a slow machine is to a false alarm.
//!
//! Measured is what was met in time: frames, ends, upgrades, hooks, `retry`, and how far an `order` used its `slack`.
//! Not measured is what cannot be late (silence, `wait`, what is merely allowed), and a `check` that compares times.

use std::time::Duration;

use super::Conversation;
use super::active_step::Active;
use crate::event::Margin;
use crate::protocol::Level;
use crate::scenario::model::{Program, Step};

impl Conversation {
    /// What was awaited has come.
    pub(super) fn margin(&mut self, step: &Step, active: &Active) {
        let program = std::sync::Arc::clone(&self.program);
        if let Some(deadline) = active.deadline
            && !only_may(&program, step)
        {
            self.margin_of(step, self.now.saturating_sub(active.since), deadline.saturating_sub(active.since));
        }
    }

    /// Kept if nothing took a larger share of its bound so far.
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

/// A step that asserts nothing but what is allowed: it never accuses.
pub(super) fn only_may(program: &Program, step: &Step) -> bool {
    step.check.is_some_and(|check| program.checks[check].rules.iter().all(|rule| rule.level == Level::May))
}
