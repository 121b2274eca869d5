//! A count over the last hour (line 539), in memory for 3600 seconds.

use std::collections::VecDeque;
use std::time::Duration;

const WINDOW_SECONDS: u64 = 3600;

/// Counts per second over the last hour.
#[derive(Debug, Default)]
pub struct HourlyCounter {
    seconds: VecDeque<(u64, u64)>,
    sum: u64,
}

impl HourlyCounter {
    /// Adds one to the count of the second of `now`.
    pub fn count(&mut self, now: Duration) {
        self.drop_old(now);
        self.sum += 1;
        match self.seconds.back_mut() {
            Some((second, count)) if *second == now.as_secs() => *count += 1,
            _ => self.seconds.push_back((now.as_secs(), 1)),
        }
    }

    /// Returns the count over the hour before `now`.
    pub fn sum(&mut self, now: Duration) -> u64 {
        self.drop_old(now);
        self.sum
    }

    fn drop_old(&mut self, now: Duration) {
        while let Some((second, count)) = self.seconds.front()
            && second + WINDOW_SECONDS <= now.as_secs()
        {
            self.sum -= count;
            self.seconds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_older_than_an_hour_are_not_counted() {
        let mut window = HourlyCounter::default();
        for second in [0, 0, 10, 3599] {
            window.count(Duration::from_secs(second));
        }
        assert_eq!(window.sum(Duration::from_secs(3599)), 4);
        assert_eq!(window.sum(Duration::from_secs(3600)), 2);
        assert_eq!(window.sum(Duration::from_secs(3610)), 1);
        assert_eq!(window.sum(Duration::from_secs(10_000)), 0);
    }
}
