//! Formats numbers, times and untrusted text.

use std::borrow::Cow;
use std::time::Duration;

pub use crate::syntax::printable::{escape_unprintable, is_unprintable};

/// Cuts a text to at most `most` characters; an ellipsis replaces the rest.
pub fn shorten(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let end = text.char_indices().nth(most.saturating_sub(1)).map_or(0, |(at, _)| at);
            Cow::Owned(format!("{}…", &text[..end]))
        }
    }
}

/// Formats `1 check`, `2 checks`.
pub fn format_count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Formats a time with few digits: `3 ms`, `1.25 s`, `2 min 5 s`.
pub fn format_time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if time < Duration::from_millis(1) {
        format!("{} µs", time.as_micros())
    } else if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else if time < Duration::from_secs(60) {
        format!("{seconds:.2} s")
    } else {
        format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

/// Formats Unix time in milliseconds as RFC 3339, UTC.
pub fn format_timestamp(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// Quotes a word for a POSIX shell.
pub fn quote_for_shell(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

/// Most characters of a text by which failures are compared.
const MAX_COMPARED_LENGTH: usize = 160;

/// Removes the parts of a text that differ from case to case: numbers, and everything in quotes.
pub fn without_variable_parts(text: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '"' => {
                quoted = !quoted;
                out.push('"');
            }
            _ if quoted => {}
            digit if digit.is_ascii_digit() => {
                if !out.ends_with('#') {
                    out.push('#');
                }
            }
            other => out.push(other),
        }
    }
    shorten(&out, MAX_COMPARED_LENGTH).into_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("abc", 3, "abc")]
    #[case("äöü!", 3, "äö…")]
    #[case("", 0, "")]
    fn long_text_is_cut_with_an_ellipsis(#[case] text: &str, #[case] most: usize, #[case] expected: &str) {
        assert_eq!(shorten(text, most), expected);
    }

    #[rstest]
    #[case("it did not come in 5.00 s", "it did not come in #.# s")]
    #[case(r#"/a is "x1 y" here"#, r#"/a is "" here"#)]
    #[case("", "")]
    fn numbers_and_quoted_parts_are_removed(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(without_variable_parts(text), expected);
    }

    #[rstest]
    #[case(12, "12 µs")]
    #[case(999_000, "999 ms")]
    #[case(5_000_000, "5.00 s")]
    #[case(125_000_000, "2 min 5 s")]
    fn times_are_formatted_with_few_digits(#[case] micros: u64, #[case] expected: &str) {
        assert_eq!(format_time(Duration::from_micros(micros)), expected);
    }
}
