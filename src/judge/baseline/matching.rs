//! Applies the entries of a baseline to a report.

use super::BaselineEntry;
use crate::hub::supervisor::PROCESS_CHECK;
use crate::outcome::{PreconditionFailure, Verdict};
use crate::report::{
    BaselineMatch, CheckResult, EntryStanding, KnownFailure, ProtocolReport, RunReport, ScenarioResult, causes,
};

/// Marks the failing and warning checks that the baseline lists and the scenarios that a known failure stopped, and
/// records the standing of each entry. Ignores entries for protocols that are not in the report.
pub fn apply_baseline(report: &mut RunReport, entries: &[BaselineEntry]) {
    for protocol in &mut report.protocols {
        let of_protocol = |entry: &&BaselineEntry| entry.scenario().split('/').next() == Some(protocol.name.as_str());
        let own: Vec<&BaselineEntry> = entries.iter().filter(of_protocol).collect();
        let whole = !report.options.selected && !report.interrupted;
        let judged = own.iter().map(|entry| {
            let standing = match entry.precondition() {
                Some(_) => precondition_standing(entry, protocol, whole),
                None => scenario_standing(entry, protocol),
            };
            let BaselineEntry { failure, reason, span, .. } = (*entry).clone();
            BaselineMatch { failure, reason, standing, span }
        });
        protocol.baseline = judged.collect();
        for scenario in &mut protocol.scenarios {
            let id = scenario.id.clone();
            for check in scenario.checks.iter_mut().filter(|check| is_failing(check)) {
                let mut naming: Vec<&&BaselineEntry> =
                    own.iter().filter(|entry| entry.covers_check(&id, &check.name)).collect();
                // An entry that names the check takes precedence over one that names the scenario.
                naming.sort_by_key(|entry| entry.check().is_none());
                let known = naming.first().map(|entry| KnownFailure {
                    reason: entry.reason.clone(),
                    flaky: entry.flaky || check.flaky.is_some(),
                });
                // A declared deviation is known without an entry.
                check.known = known.or(check.known.take());
            }
            let listed = |cause: &PreconditionFailure| {
                let entry = own.iter().find(|entry| entry.covers_precondition(cause))?;
                Some(KnownFailure { reason: entry.reason.clone(), flaky: entry.flaky })
            };
            if scenario.verdict == Verdict::Inconclusive {
                scenario.known_cause = causes::known_stop(scenario, &listed);
            }
        }
    }
}

/// Returns the standing of an entry that names a scenario or a check, over all results of that scenario.
fn scenario_standing(entry: &BaselineEntry, protocol: &ProtocolReport) -> EntryStanding {
    let named = protocol.scenarios.iter().filter(|scenario| scenario.id == entry.scenario());
    let standings: Vec<EntryStanding> = named.map(|scenario| entry_standing(entry, Some(scenario))).collect();
    let fails = |standing: &&EntryStanding| matches!(standing, EntryStanding::Expected | EntryStanding::Flaky);
    match standings.iter().find(fails).or(standings.first()).copied().unwrap_or(EntryStanding::NotPlayed) {
        // Fuzzing is random: it may not have reproduced the failure this time.
        EntryStanding::Stale if protocol.fuzzed.is_some() => EntryStanding::NotPlayed,
        other => other,
    }
}

/// Returns the standing of an entry that names a failed precondition. Only a `whole` run can show that the precondition
/// no longer fails.
pub fn precondition_standing(entry: &BaselineEntry, protocol: &ProtocolReport, whole: bool) -> EntryStanding {
    let undecided = || protocol.scenarios.iter().any(|scenario| scenario.verdict == Verdict::Inconclusive);
    if causes::failed_preconditions(protocol).any(|(_, cause)| entry.covers_precondition(cause)) {
        EntryStanding::Expected
    } else if protocol.fuzzed.is_some() || !whole || !protocol.unplayed.is_empty() {
        EntryStanding::NotPlayed
    } else if undecided() {
        // Another failure may have stopped the scenario before it.
        EntryStanding::Undecided
    } else if entry.flaky {
        EntryStanding::Flaky
    } else {
        EntryStanding::Stale
    }
}

/// Returns the standing of an entry; `scenario` is the scenario it names, if that was played.
pub fn entry_standing(entry: &BaselineEntry, scenario: Option<&ScenarioResult>) -> EntryStanding {
    let Some(scenario) = scenario else { return EntryStanding::NotPlayed };
    let named: Vec<&CheckResult> =
        scenario.checks.iter().filter(|check| entry.covers_check(&scenario.id, &check.name)).collect();
    let mut failed = named.iter().filter(|check| is_failing(check)).peekable();
    if failed.peek().is_some() {
        let flaky = entry.flaky || failed.any(|check| check.flaky.is_some());
        return if flaky { EntryStanding::Flaky } else { EntryStanding::Expected };
    }
    let open = |verdict| matches!(verdict, Verdict::Inconclusive | Verdict::NotTestable);
    let undecided = match (entry.check(), named.as_slice()) {
        // The entry covers any check of the scenario, so the failure may be among the undecided ones.
        (None, checks) => open(scenario.verdict) || checks.iter().any(|check| check.verdict == Verdict::Inconclusive),
        // Frames are checked only if they arrive, and a process only if the run started it.
        (Some(PROCESS_CHECK), []) => true,
        (Some(_), []) => {
            open(scenario.verdict) || scenario.checks.iter().any(|check| check.verdict == Verdict::Inconclusive)
        }
        (Some(_), checks) => checks.iter().any(|check| open(check.verdict)),
    };
    match undecided {
        true => EntryStanding::Undecided,
        false if entry.flaky => EntryStanding::Flaky,
        false => EntryStanding::Stale,
    }
}

fn is_failing(check: &CheckResult) -> bool {
    matches!(check.verdict, Verdict::Fail | Verdict::Warn)
}
