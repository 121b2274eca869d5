//! Times in files: `300ms`, `5s`, `2m`, `1h`. A number without a unit is an error.

use std::time::Duration;

use crate::syntax::diagnostic::ValueError;

/// A hint about the form of a time.
pub const EXAMPLE: &str = "write a number and a unit, such as 300ms, 5s or 2m";

/// The longest time that any file may state.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// The units, in seconds.
const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Parses a number, whole or with a decimal point, and its unit (`ms`, `s`, `m` or `h`), up to 24 hours.
///
/// # Errors
/// No number, a missing or unknown unit, or a time that is too long.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let not_a_time = || ValueError::new(format!("`{text}` is not a time"), EXAMPLE);
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let well_formed = match number.split_once('.') {
        Some((whole, part)) => !whole.is_empty() && !part.is_empty() && !part.contains('.'),
        None => !number.is_empty(),
    };
    if !well_formed {
        return Err(not_a_time());
    }
    if unit.is_empty() {
        let help = format!("write {text}s for seconds or {text}ms for milliseconds");
        return Err(ValueError::new(format!("`{text}` has no unit"), help));
    }
    let Some((_, seconds)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let help = "use ms, s, m or h, as in 300ms, 5s or 2m";
        return Err(ValueError::new(format!("`{unit}` is not a unit of time"), help));
    };
    let number: f64 = number.parse().map_err(|_| not_a_time())?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(duration) if duration <= MAX_DURATION => Ok(duration),
        _ => Err(ValueError::new(format!("`{text}` is too long"), "write a time of at most 24h")),
    }
}

/// Formats a time for [`parse_duration`]: whole seconds in seconds, anything else in milliseconds.
pub fn format_duration(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        return format!("{}s", duration.as_secs());
    }
    let part = format!("{:06}", duration.subsec_nanos() % 1_000_000);
    match part.trim_end_matches('0') {
        "" => format!("{}ms", duration.as_millis()),
        part => format!("{}.{part}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("300ms", 300_000)]
    #[case("5s", 5_000_000)]
    #[case("2m", 120_000_000)]
    #[case("24h", 86_400_000_000)]
    #[case("0s", 0)]
    #[case("1.5s", 1_500_000)]
    #[case("8.0s", 8_000_000)]
    #[case("0.25ms", 250)]
    fn times_with_units_are_parsed(#[case] text: &str, #[case] microseconds: u64) {
        let duration = Duration::from_micros(microseconds);
        assert_eq!(parse_duration(text), Ok(duration));
        assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[rstest]
    #[case("5", "`5` has no unit", "write 5s for seconds or 5ms for milliseconds")]
    #[case("5sec", "`sec` is not a unit of time", "use ms, s, m or h, as in 300ms, 5s or 2m")]
    #[case("5 s", "` s` is not a unit of time", "use ms, s, m or h, as in 300ms, 5s or 2m")]
    #[case("", "`` is not a time", "write a number and a unit, such as 300ms, 5s or 2m")]
    #[case("-5s", "`-5s` is not a time", "write a number and a unit, such as 300ms, 5s or 2m")]
    #[case("soon", "`soon` is not a time", "write a number and a unit, such as 300ms, 5s or 2m")]
    #[case("1.2.3s", "`1.2.3s` is not a time", "write a number and a unit, such as 300ms, 5s or 2m")]
    #[case(".5s", "`.5s` is not a time", "write a number and a unit, such as 300ms, 5s or 2m")]
    #[case("25h", "`25h` is too long", "write a time of at most 24h")]
    fn times_without_a_known_unit_are_refused_with_advice(
        #[case] text: &str,
        #[case] message: &str,
        #[case] help: &str,
    ) {
        assert_eq!(parse_duration(text), Err(ValueError::new(message, help)));
    }

    #[test]
    fn a_time_with_ten_thousand_digits_is_refused() {
        assert!(parse_duration(&format!("{}s", "9".repeat(10_000))).is_err());
    }
}
