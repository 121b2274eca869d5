//! Writes a baseline for the current failures, keeping what its author wrote.

use std::collections::BTreeSet;

use super::{Entry, matching::standing};
use crate::event::Verdict;
use crate::report::{ProtocolReport, RunReport, Standing};

/// The placeholder reason of a new entry.
pub const REASON: &str = "TODO: why does this fail, and what will end it?";

const HEAD: &str = "\
# Failures that are known: hubproof check --baseline FILE
# They are played like all others. One that fails as expected does not fail the run; one that does not fail any more does,
# until its entry is deleted. `failure` is a scenario, or scenario:check as reports name it; `flaky = true` says that it
# fails only now and then.
";

/// Returns the updated file: entries that still fail are kept verbatim, with reasons and comments; stale ones are
/// removed; new failures are appended. `before` is the existing file's text with its entries. Warnings count as
/// failures if the run is strict.
pub fn rewritten(report: &RunReport, before: Option<(&str, &[Entry])>) -> String {
    let (text, entries) = before.unwrap_or((HEAD, &[]));
    let scenarios = || report.protocols.iter().flat_map(|protocol| &protocol.scenarios);
    // A finding that fuzzing did not reproduce this time may still exist.
    let found = |protocol: &&ProtocolReport| protocol.fuzzed.is_none();
    let played = |entry: &Entry| {
        let mut scenarios = report.protocols.iter().filter(found).flat_map(|protocol| &protocol.scenarios);
        scenarios.find(|scenario| scenario.id == entry.scenario())
    };
    let stale: Vec<&Entry> = entries.iter().filter(|e| standing(e, played(e)) == Standing::Stale).collect();
    let mut out = without(text, &stale);
    let mut written = BTreeSet::new();
    let counts = |verdict| verdict == Verdict::Fail || (report.options.strict && verdict == Verdict::Warn);
    for scenario in scenarios() {
        for check in scenario.checks.iter().filter(|check| counts(check.verdict)) {
            let deviates = scenario.report(check).deviation.is_some();
            if deviates || entries.iter().any(|entry| entry.names(&scenario.id, &check.name)) {
                continue;
            }
            // Fuzzing may find the same failure in several cases.
            if !written.insert((&scenario.id, &check.name)) {
                continue;
            }
            let flaky = if check.flaky.is_some() { "flaky = true\n" } else { "" };
            let failure = toml::Value::from(format!("{}:{}", scenario.id, check.name));
            if !out.is_empty() && !out.ends_with("\n\n") {
                out.push_str(if out.ends_with('\n') { "\n" } else { "\n\n" });
            }
            out.push_str(&format!("[[known]]\nfailure = {failure}\nreason = {}\n{flaky}", toml::Value::from(REASON)));
        }
    }
    out
}

/// Returns the text without the lines of some entries.
fn without(text: &str, entries: &[&Entry]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for entry in entries {
        let range = entry.span.range();
        out.push_str(text.get(at..range.start).unwrap_or_default());
        // Also remove the line end and the empty line that separated it from the next entry.
        let rest = text.get(range.end..).unwrap_or_default();
        at = range.end + rest.len().min(rest.len() - rest.trim_start_matches(['\n', '\r']).len()).min(2);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}
