//! Writes a baseline for the current failures and keeps what its author wrote.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::BaselineEntry;
use super::matching::{entry_standing, precondition_standing};
use crate::outcome::Verdict;
use crate::report::text::without_variable_parts;
use crate::report::{EntryStanding, ProtocolReport, RunReport, ScenarioResult, causes};

/// The placeholder reason of a new entry.
pub const REASON_PLACEHOLDER: &str = "TODO: why does this fail, and what will fix it?";

const FILE_HEADER: &str = "\
# Known failures: hubproof check --baseline FILE
# Their checks still run. An expected failure does not fail the run; an entry that no longer fails does, until you
# delete it. `failure` is a scenario, or scenario:check as reports name it, or protocol: step: message for a step that
# stops scenarios before their checks. `flaky = true` means that the check fails only sometimes.
";

/// A `[[known]]` table to write.
#[derive(Serialize)]
struct Known {
    failure: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    flaky: Option<bool>,
}

/// Returns the updated file: keeps entries that still fail verbatim, with their reasons and comments, removes stale
/// entries and appends new failures. `before` is the existing file's text with its entries. Warnings count as failures
/// if the run is strict.
pub fn rewrite_baseline(report: &RunReport, before: Option<(&str, &[BaselineEntry])>) -> String {
    let (text, entries) = before.unwrap_or((FILE_HEADER, &[]));
    let scenarios = || report.protocols.iter().flat_map(|protocol| &protocol.scenarios);
    // A finding that fuzzing did not reproduce this time may still exist.
    let found = |protocol: &&ProtocolReport| protocol.fuzzed.is_none();
    let played = |entry: &BaselineEntry| {
        let mut scenarios = report.protocols.iter().filter(found).flat_map(|protocol| &protocol.scenarios);
        scenarios.find(|scenario| scenario.id == entry.scenario())
    };
    let whole = !report.options.selected && !report.interrupted;
    let standing = |entry: &BaselineEntry| match entry.precondition() {
        None => entry_standing(entry, played(entry)),
        Some(_) => {
            let own = report.protocols.iter().find(|protocol| protocol.name == entry.scenario());
            own.map_or(EntryStanding::NotPlayed, |protocol| precondition_standing(entry, protocol, whole))
        }
    };
    let stale: Vec<&BaselineEntry> = entries.iter().filter(|entry| standing(entry) == EntryStanding::Stale).collect();
    let mut out = remove_entries(text, &stale);
    let mut append = |failure: String, flaky: bool| {
        let entry = Known { failure, reason: REASON_PLACEHOLDER, flaky: flaky.then_some(true) };
        if !out.is_empty() && !out.ends_with("\n\n") {
            out.push_str(if out.ends_with('\n') { "\n" } else { "\n\n" });
        }
        // TOML can represent all texts and flags, so this cannot fail.
        out.push_str(&toml::to_string(&BTreeMap::from([("known", [entry])])).unwrap_or_default());
    };
    let mut written = BTreeSet::new();
    let counts = |verdict| verdict == Verdict::Fail || (report.options.strict && verdict == Verdict::Warn);
    for scenario in scenarios() {
        for check in scenario.checks.iter().filter(|check| counts(check.verdict)) {
            let deviates = scenario.check_report(check).deviation.is_some();
            if deviates || entries.iter().any(|entry| entry.covers_check(&scenario.id, &check.name)) {
                continue;
            }
            // Fuzzing may find the same failure in several cases.
            if !written.insert((&scenario.id, &check.name)) {
                continue;
            }
            append(format!("{}:{}", scenario.id, check.name), check.flaky.is_some());
        }
    }
    let mut preconditions = BTreeSet::new();
    for protocol in report.protocols.iter().filter(found) {
        let undecided = |(scenario, _): &(&ScenarioResult, _)| scenario.verdict == Verdict::Inconclusive;
        for (_, cause) in causes::failed_preconditions(protocol).filter(undecided) {
            let failure = format!("{}: {}", protocol.name, cause.with_step());
            let known =
                entries.iter().any(|entry| entry.scenario() == protocol.name && entry.covers_precondition(cause));
            if !known && preconditions.insert(without_variable_parts(&failure)) {
                append(failure, false);
            }
        }
    }
    out
}

/// Returns the text without the lines of some entries.
fn remove_entries(text: &str, entries: &[&BaselineEntry]) -> String {
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
