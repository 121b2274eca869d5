//! How promptly a hub answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How promptly the hub answered in a conversation. An awaited event has a name: the name of a message, or a phrase
/// such as `the answer to the upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitReport {
    /// Names of the events that arrived while a step waited for them, or later.
    pub arrived: BTreeSet<String>,
    /// Whether the hub sent a documented message that steps do not ignore.
    pub answered: bool,
    /// Names of the events that did not arrive within a full wait.
    pub missed: BTreeSet<String>,
    pub speed: HubSpeed,
    /// The successful wait that took the largest share of its time limit.
    pub slimmest: Option<TimingMargin>,
    /// The shortened waits that ran out, by the name of the awaited event.
    pub shortened: BTreeMap<String, ShortenedWaits>,
    /// The names of checks that accuse the hub because their step received nothing in time.
    pub silent_checks: BTreeSet<String>,
    /// Whether a step went on because none of its messages came.
    pub chose_silence: bool,
    /// Whether an answer took longer than silence is usually observed for, or hubproof itself was late by as much.
    pub was_late: bool,
}

/// Answers are counted by how many bits their milliseconds have; the last count is that of all slower ones.
const BUCKETS: usize = 18;

/// How fast a hub is, measured by waits that ended with an arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubSpeed {
    pub slowest_answer: Duration,
    /// The number of answers that took less than a millisecond, less than two, less than four, and so on.
    answers: [u32; BUCKETS],
    /// Shows how slow the network is. The slowest upgrade does not: simultaneous upgrades delay each other.
    pub quickest_upgrade: Option<Duration>,
}

impl HubSpeed {
    /// A wait is ample if it lasts this many times as long as the slowest answer, of fifty the slowest but one.
    const SLOWNESS: u32 = 4;
    const RARE: u32 = 50;

    /// Returns the speed that one upgrade shows.
    pub fn of_upgrade(took: Duration) -> Self {
        Self { quickest_upgrade: Some(took), ..Self::default() }
    }

    /// Returns the speed that one answer shows.
    pub fn of_answer(took: Duration) -> Self {
        let mut answers = [0; BUCKETS];
        let bits = u128::BITS - took.as_millis().leading_zeros();
        answers[(bits as usize).min(BUCKETS - 1)] = 1;
        Self { slowest_answer: took, answers, quickest_upgrade: None }
    }

    pub fn add(&mut self, other: Self) {
        self.slowest_answer = self.slowest_answer.max(other.slowest_answer);
        for (own, other) in self.answers.iter_mut().zip(other.answers) {
            *own = own.saturating_add(other);
        }
        self.quickest_upgrade = self.quickest_upgrade.into_iter().chain(other.quickest_upgrade).min();
    }

    /// Returns how long a wait is ample. An upgrade takes at least two round trips, and an answer one.
    pub fn ample_wait(self) -> Duration {
        (self.slow_answer() * Self::SLOWNESS).max(self.quickest_upgrade.unwrap_or_default())
    }

    /// Returns how long a slow answer takes. Few that take much longer, because they depend on others, do not count.
    fn slow_answer(self) -> Duration {
        let mut rare = self.answers.iter().fold(0_u32, |all, count| all.saturating_add(*count)) / Self::RARE;
        for (bits, count) in self.answers.into_iter().enumerate().rev() {
            match rare.checked_sub(count) {
                Some(left) => rare = left,
                None => return self.slowest_answer.min(Duration::from_millis(1 << bits)),
            }
        }
        self.slowest_answer
    }
}

/// Waits that were shortened because earlier conversations waited for the same event in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShortenedWaits {
    pub times: usize,
    /// Total time by which they were shortened.
    pub saved: Duration,
}

impl ShortenedWaits {
    pub fn plus(self, other: Self) -> Self {
        Self { times: self.times + other.times, saved: self.saved + other.saved }
    }
}

/// How close a successful wait came to its time limit, and thus a slow machine to a false alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimingMargin {
    /// The step that waited.
    pub step: String,
    pub waited: Duration,
    /// How long the step would have waited; never zero.
    pub bound: Duration,
}

impl TimingMargin {
    /// Returns the share of the time limit that passed: 0 if the wait ended at once, 1 if it ended at the last moment.
    pub fn used_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.bound.as_secs_f64()
    }

    pub fn remaining(&self) -> Duration {
        self.bound.saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_answer_among_fifty_says_little_about_the_hub() {
        let mut speed = HubSpeed::default();
        assert_eq!(speed.ample_wait(), Duration::ZERO);
        speed.add(HubSpeed::of_answer(Duration::from_millis(1300)));
        assert_eq!(speed.ample_wait(), Duration::from_millis(5200));
        (0..49).for_each(|_| speed.add(HubSpeed::of_answer(Duration::from_millis(20))));
        assert_eq!(speed.ample_wait(), Duration::from_millis(128));
        speed.add(HubSpeed::of_answer(Duration::from_secs(900)));
        assert_eq!((speed.slowest_answer, speed.ample_wait()), (Duration::from_secs(900), Duration::from_millis(8192)));
    }
}
