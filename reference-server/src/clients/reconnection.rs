//! When a client connects again.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// The attempts to connect again after a connection was lost. The delay before each doubles until one succeeds.
#[derive(Debug)]
pub(super) struct Reconnection {
    /// The delay before the first attempt.
    delay: Duration,
    /// The largest number of attempts without success.
    most: u32,
    attempts: u32,
    due: Option<Duration>,
}

impl Reconnection {
    pub fn new(delay: Duration, most: u32) -> Reconnection {
        Reconnection { delay, most, attempts: 0, due: None }
    }

    /// Schedules the next attempt, not before `earliest`; none if all have failed.
    pub fn schedule(&mut self, now: Duration, earliest: Duration) {
        if self.attempts < self.most {
            let factor = 2_u32.saturating_pow(self.attempts);
            self.attempts += 1;
            self.due = Some(now.saturating_add(self.delay.saturating_mul(factor)).max(earliest));
        }
    }

    /// Begins to count anew after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Returns when the next attempt is due, if one is scheduled.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Takes the attempt that is due now, if any.
    pub fn take(&mut self, now: Duration) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

/// Reads a time given in seconds.
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}
