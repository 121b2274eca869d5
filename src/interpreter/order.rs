//! Checks the order in which frames were received.

use std::sync::Arc;
use std::time::Duration;

use super::Conversation;
use super::active_step::StepFailure;
use super::finding::ComparisonOutcome;
use crate::scenario::model::{OrderCheck, Step};
use crate::scenario::template::EvalContext;
use crate::scenario::value::{BoundValue, Provenance, Wire};

impl Conversation {
    pub(super) fn check_order(&mut self, step: &Step, order: &OrderCheck) -> Result<ComparisonOutcome, StepFailure> {
        let slack = self.evaluate_time(order.slack.as_ref())?;
        let mut last: Option<(String, Vec<Arc<Wire>>)> = None;
        let mut provenance = Provenance::Observed;
        for name in &order.names {
            let Some(bound) = self.eval_context(None).lookup(name) else {
                return Ok(ComparisonOutcome::NotReached(format!("not reached: `{name}` was never bound")));
            };
            let wires = bound.wires();
            provenance = provenance.join(bound.provenance());
            if wires.is_empty() {
                return Ok(ComparisonOutcome::NotReached(format!(
                    "`{name}` is an empty list, so there is nothing to order"
                )));
            }
            if let BoundValue::Many { ordered: true, .. } = bound {
                for pair in wires.windows(2) {
                    if !self.came_before(step, &pair[0], &pair[1], slack) {
                        return Ok(order_violation(name, &pair[0], name, &pair[1]).of(provenance));
                    }
                }
            }
            if let Some((earlier, firsts)) = &last {
                for first in firsts {
                    for second in &wires {
                        if first.connection != second.connection && slack.is_none() {
                            return Err(StepFailure::mistake("an order across several connections needs `slack`"));
                        }
                        if !self.came_before(step, first, second, slack) {
                            return Ok(order_violation(earlier, first, name, second).of(provenance));
                        }
                    }
                }
            }
            last = Some((name.clone(), wires));
        }
        Ok(ComparisonOutcome::Holds.of(provenance))
    }

    /// Whether `first` came before `second`. On one connection the order of arrival decides, across connections the
    /// time with slack.
    fn came_before(&mut self, step: &Step, first: &Wire, second: &Wire, slack: Option<Duration>) -> bool {
        if first.connection == second.connection {
            return first.sequence < second.sequence;
        }
        let (used, slack) = (first.at.saturating_sub(second.at), slack.unwrap_or_default());
        let right = used <= slack;
        if right {
            self.clock.add_margin(step, used, slack);
        }
        right
    }
}

fn order_violation(earlier: &str, first: &Wire, later: &str, second: &Wire) -> ComparisonOutcome {
    ComparisonOutcome::Broken {
        expected: format!("`{earlier}` before `{later}`"),
        found: format!("{} at {:?}, {} at {:?}", first.text, first.at, second.text, second.at),
        message: format!("`{earlier}` was received after `{later}`"),
        place: None,
    }
}
