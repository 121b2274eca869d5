//! A count over the last hour (line 539), in memory for 3600 seconds.

use std::collections::VecDeque;
use std::time::Duration;

const SPAN: u64 = 3600;

/// Counts per second over the last hour.
#[derive(Debug, Default)]
pub struct Window {
    seconds: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Window {
    /// Adds one to the count of the second of `now`.
    pub fn count(&mut self, now: Duration) {
        self.forget(now);
        self.sum += 1;
        match self.seconds.back_mut() {
            Some((second, count)) if *second == now.as_secs() => *count += 1,
            _ => self.seconds.push_back((now.as_secs(), 1)),
        }
    }

    /// Returns the count over the hour before `now`.
    pub fn sum(&mut self, now: Duration) -> u64 {
        self.forget(now);
        self.sum
    }

    fn forget(&mut self, now: Duration) {
        while let Some((second, count)) = self.seconds.front()
            && second + SPAN <= now.as_secs()
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
    fn events_older_than_an_hour_are_no_longer_counted() {
        let mut window = Window::default();
        for second in [0, 0, 10, 3599] {
            window.count(Duration::from_secs(second));
        }
        assert_eq!(window.sum(Duration::from_secs(3599)), 4);
        assert_eq!(window.sum(Duration::from_secs(3600)), 2);
        assert_eq!(window.sum(Duration::from_secs(3610)), 1);
        assert_eq!(window.sum(Duration::from_secs(10_000)), 0);
    }
}
