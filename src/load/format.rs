//! Number formats of load reports.

/// Formats nanoseconds in a suitable unit with three or four digits: `812 µs`, `12.3 ms`, `1.25 s`.
pub fn format_nanos(time: f64) -> String {
    let (value, unit) = match time {
        t if t < 999_500.0 => (t / 1e3, "µs"),
        t if t < 999_500_000.0 => (t / 1e6, "ms"),
        t => (t / 1e9, "s"),
    };
    match value {
        v if v < 9.995 && unit != "µs" => format!("{v:.2} {unit}"),
        v if v < 99.95 && unit != "µs" => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

/// Formats a number in groups of three digits: `1 234 567`.
pub fn format_grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Formats a share: `93 %`, `0.4 %`.
pub fn format_percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent != 0.0 && percent.abs() < 9.95 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// Formats a rate per second: `1 042/s`, `3.2/s`.
pub fn format_rate(rate: f64) -> String {
    if rate < 99.95 { format!("{rate:.1}/s") } else { format!("{}/s", format_grouped(rate.round() as u64)) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0.0, "0 µs")]
    #[case(812_400.0, "812 µs")]
    #[case(999_600.0, "1.00 ms")]
    #[case(12_345_678.0, "12.3 ms")]
    #[case(123_456_789.0, "123 ms")]
    #[case(1_250_000_000.0, "1.25 s")]
    #[case(61_000_000_000.0, "61.0 s")]
    fn times_are_formatted_with_three_digits_and_a_unit(#[case] time: f64, #[case] expected: &str) {
        assert_eq!(format_nanos(time), expected);
    }

    #[rstest]
    #[case(7, "7")]
    #[case(1_000, "1 000")]
    #[case(1_234_567, "1 234 567")]
    fn numbers_are_formatted_in_groups_of_three_digits(#[case] number: u64, #[case] expected: &str) {
        assert_eq!(format_grouped(number), expected);
    }

    #[rstest]
    #[case(0.0, "0 %")]
    #[case(0.004, "0.4 %")]
    #[case(0.934, "93 %")]
    fn shares_are_formatted_as_percentages(#[case] share: f64, #[case] expected: &str) {
        assert_eq!(format_percent(share), expected);
    }
}
