//! The comparison as text.

use std::fmt::Write;

use super::{Better, Comparison, Difference, Kind};
use crate::load::format::{grouped, nanos, rate};
use crate::report::text::printable;

/// Renders one line per metric, regressions marked; ends with a newline.
pub fn render(comparison: &Comparison) -> String {
    let mut out = String::new();
    for note in &comparison.notes {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "note: {}", printable(note));
    }
    if comparison.differences.is_empty() {
        out.push_str("the runs have no metric in common\n");
        return out;
    }
    let widest = comparison.differences.iter().map(|difference| difference.metric.len()).max().unwrap_or(0);
    let _ = writeln!(out, "{:widest$} {:>10} {:>10} {:>9}  95 % interval", "metric", "A", "B", "change");
    for difference in &comparison.differences {
        let interval = match difference.interval {
            Some((low, high)) => format!("{} to {}", signed(low), signed(high)),
            None if difference.kind == Kind::Count => String::new(),
            None => "unknown".to_owned(),
        };
        let _ = writeln!(
            out,
            "{:widest$} {:>10} {:>10} {:>9}  {interval:<22}{}",
            printable(&difference.metric),
            value(difference, difference.a),
            value(difference, difference.b),
            difference.change.map_or_else(|| "new".to_owned(), signed),
            remark(difference)
        );
    }
    // Removes trailing spaces.
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn value(difference: &Difference, value: f64) -> String {
    match difference.kind {
        Kind::Time => nanos(value * 1e6),
        Kind::PerSecond => rate(value),
        Kind::Count => grouped(value as u64),
    }
}

fn signed(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

fn remark(difference: &Difference) -> &'static str {
    let worse = match (difference.better, difference.b > difference.a) {
        (Better::Neither, _) => None,
        (Better::Lower, up) => Some(up),
        (Better::Higher, up) => Some(!up),
    };
    match worse {
        _ if difference.regression => "REGRESSION",
        Some(true) if difference.is_significant() => "worse",
        Some(false) if difference.is_significant() => "better",
        _ => "",
    }
}
