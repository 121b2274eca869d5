//! The comparison as text.

use std::fmt::Write;

use crate::load::format::{format_grouped, format_nanos, format_rate};
use crate::report::document::comparison::{BetterDirection, LoadComparison, MetricDifference, MetricKind};
use crate::report::text::escape_unprintable;
use crate::syntax::explanation::Explanation;

const REGRESSION: Explanation = Explanation::new(
    "REGRESSION",
    "A metric of the second load run is significantly worse, and by more than `--fail-on-regression` allows. The exit code is 1.",
)
.next("Repeat both runs to see whether it stays, and look at the plots: hubproof compare A.json B.json --report html=compare.html");
const WORSE: Explanation = Explanation::new(
    "worse",
    "A metric of the second load run is worse, and chance does not explain it, but no limit was set or exceeded.",
);
const BETTER: Explanation =
    Explanation::new("better", "A metric of the second load run is better, and chance does not explain it.");

/// Explains the remarks of a comparison.
pub const REMARK_EXPLANATIONS: [Explanation; 3] = [REGRESSION, WORSE, BETTER];

/// Renders one line per metric, regressions marked; ends with a newline.
pub fn render(comparison: &LoadComparison) -> String {
    let mut out = String::new();
    for note in &comparison.notes {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "note: {}", escape_unprintable(note));
    }
    if comparison.differences.is_empty() {
        out.push_str("the runs have no metric in common\n");
        return out;
    }
    let widest = comparison.differences.iter().map(|difference| difference.metric.len()).max().unwrap_or(0);
    let _ = writeln!(out, "{:widest$} {:>10} {:>10} {:>9}  95 % interval", "metric", "A", "B", "change");
    for difference in &comparison.differences {
        let interval = match difference.interval {
            Some((low, high)) => format!("{} to {}", format_signed_share(low), format_signed_share(high)),
            None if difference.kind == MetricKind::Count => String::new(),
            None => "unknown".to_owned(),
        };
        let _ = writeln!(
            out,
            "{:widest$} {:>10} {:>10} {:>9}  {interval:<22}{}",
            escape_unprintable(&difference.metric),
            format_value(difference, difference.a),
            format_value(difference, difference.b),
            difference.change.map_or_else(|| "new".to_owned(), format_signed_share),
            difference_remark(difference)
        );
    }
    // Removes trailing spaces.
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn format_value(difference: &MetricDifference, value: f64) -> String {
    match difference.kind {
        MetricKind::Time => format_nanos(value * 1e6),
        MetricKind::PerSecond => format_rate(value),
        MetricKind::Count => format_grouped(value as u64),
    }
}

fn format_signed_share(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

fn difference_remark(difference: &MetricDifference) -> String {
    if let Some(why) = difference.undecided {
        return format!("undecided: {why}");
    }
    let worse = match (difference.better, difference.b > difference.a) {
        (BetterDirection::Neither, _) => None,
        (BetterDirection::Lower, up) => Some(up),
        (BetterDirection::Higher, up) => Some(!up),
    };
    let word = match worse {
        _ if difference.regression => REGRESSION.name,
        Some(true) if difference.is_significant() => WORSE.name,
        Some(false) if difference.is_significant() => BETTER.name,
        _ => "",
    };
    word.to_owned()
}
