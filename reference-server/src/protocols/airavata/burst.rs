//! For faults: events that come so closely together that a careless hub loses, confuses or misnames some of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::event::AiravataEvent;
use super::topic::ResourceKind;

/// The longest time between two events of a burst.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The latest burst of each kind of events.
#[derive(Default)]
pub struct EventBursts(BTreeMap<ResourceKind, EventBurst>);

/// A burst, as of its latest event.
#[derive(Clone, Default)]
pub struct EventBurst {
    latest: Duration,
    /// The number of events.
    pub size: usize,
    /// The id of the resource of the first event.
    pub first_id: String,
    /// The data of the latest event and of the one before it.
    pub data: Value,
    pub previous_data: Value,
}

impl EventBursts {
    /// Adds an event to the burst of its kind, which it may begin, and returns the burst.
    pub fn add(&mut self, now: Duration, event: &AiravataEvent<'_>) -> EventBurst {
        let burst = self.0.entry(event.kind).or_default();
        if burst.size == 0 || now.saturating_sub(burst.latest) > LONGEST_PAUSE {
            *burst = EventBurst { first_id: event.id.to_owned(), ..EventBurst::default() };
        }
        burst.latest = now;
        burst.size += 1;
        burst.previous_data = std::mem::replace(&mut burst.data, event.data.clone());
        burst.clone()
    }
}
