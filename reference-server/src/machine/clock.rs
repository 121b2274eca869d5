//! Wall-clock time: machines count from the hub's start, messages carry Unix time or ISO 8601.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The wall-clock time at which the hub started, in Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct HubClock(u64);

impl HubClock {
    /// The clock of a hub that started at this time, or now if there is none.
    pub fn new(epoch_ms: Option<u64>) -> HubClock {
        HubClock(epoch_ms.unwrap_or_else(|| {
            // A system clock before 1970 shows as 1970.
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
        }))
    }

    /// Returns the Unix milliseconds of a time since the start.
    pub fn unix_ms(self, at: Duration) -> u64 {
        self.0.saturating_add(millis(at))
    }

    /// Formats a time since the start as ISO 8601 in UTC.
    pub fn iso_at(self, at: Duration) -> String {
        format_iso(self.unix_ms(at))
    }
}

/// Formats Unix milliseconds as ISO 8601 in UTC.
pub fn format_iso(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(Timestamp::MAX).to_string()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_adds_elapsed_time_to_the_start_time() {
        let clock = HubClock::new(Some(1_705_312_345_000));
        assert_eq!(clock.unix_ms(Duration::from_millis(1500)), 1_705_312_346_500);
        assert_eq!(format_iso(clock.unix_ms(Duration::ZERO)), "2024-01-15T09:52:25Z");
        assert_eq!(format_iso(clock.unix_ms(Duration::from_millis(1))), "2024-01-15T09:52:25.001Z");
        assert!(format_iso(HubClock::new(Some(u64::MAX)).unix_ms(Duration::MAX)).starts_with("9999-"));
        assert!(HubClock::new(None).unix_ms(Duration::ZERO) > 1_700_000_000_000);
    }
}
