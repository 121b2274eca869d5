//! Checks the order in which frames were received.

use std::sync::Arc;
use std::time::Duration;

use super::Conversation;
use super::active_step::Failure;
use super::finding::Finding;
use crate::scenario::model::{Order, Step};
use crate::scenario::template::Names;
use crate::scenario::value::{Bound, Wire};

impl Conversation {
    pub(super) fn order(&mut self, step: &Step, order: &Order) -> Result<Finding, Failure> {
        let slack = self.time(order.slack.as_ref())?;
        let mut last: Option<(String, Vec<Arc<Wire>>)> = None;
        for name in &order.names {
            let Some(bound) = self.names(None).lookup(name) else {
                return Ok(Finding::NotReached(format!("not reached: `{name}` was never bound")));
            };
            let wires = bound.wires();
            if wires.is_empty() {
                return Ok(Finding::NotReached(format!("`{name}` is an empty list, so there is nothing to order")));
            }
            if let Bound::Many { ordered: true, .. } = bound {
                for pair in wires.windows(2) {
                    if !self.before(step, &pair[0], &pair[1], slack) {
                        return Ok(out_of_order(name, &pair[0], name, &pair[1]));
                    }
                }
            }
            if let Some((earlier, firsts)) = &last {
                for first in firsts {
                    for second in &wires {
                        if first.connection != second.connection && slack.is_none() {
                            return Err(Failure::mistake("an order across several connections needs `slack`"));
                        }
                        if !self.before(step, first, second, slack) {
                            return Ok(out_of_order(earlier, first, name, second));
                        }
                    }
                }
            }
            last = Some((name.clone(), wires));
        }
        Ok(Finding::Holds)
    }

    /// Whether `first` came before `second`. On one connection the order of arrival decides, across connections the
    /// time with slack.
    fn before(&mut self, step: &Step, first: &Wire, second: &Wire, slack: Option<Duration>) -> bool {
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

fn out_of_order(earlier: &str, first: &Wire, later: &str, second: &Wire) -> Finding {
    Finding::Broken {
        expected: format!("`{earlier}` before `{later}`"),
        found: format!("{} at {:?}, {} at {:?}", first.text, first.at, second.text, second.at),
        message: format!("`{earlier}` was received after `{later}`"),
    }
}
