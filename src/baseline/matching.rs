//! Applies the entries of a baseline to a report.

use super::Entry;
use crate::event::{Cause, Verdict};
use crate::hub::supervisor::PROCESS_CHECK;
use crate::report::{self, CheckResult, Known, ProtocolReport, RunReport, ScenarioResult, Standing, causes};

/// Marks the failing and warning checks that the baseline expects and the scenarios that a known failure stopped, and
/// records the standing of each entry. Leaves out entries for protocols that are not in the report.
pub fn apply(report: &mut RunReport, entries: &[Entry]) {
    for protocol in &mut report.protocols {
        let of_protocol = |entry: &&Entry| entry.scenario().split('/').next() == Some(protocol.name.as_str());
        let own: Vec<&Entry> = entries.iter().filter(of_protocol).collect();
        let whole = !report.options.selected && !report.interrupted;
        let judged = own.iter().map(|entry| {
            if entry.precondition().is_some() {
                let standing = of_precondition(entry, protocol, whole);
                let Entry { failure, reason, span, .. } = (*entry).clone();
                return report::Entry { failure, reason, standing, span };
            }
            let named = protocol.scenarios.iter().filter(|scenario| scenario.id == entry.scenario());
            let standings: Vec<Standing> = named.map(|scenario| standing(entry, Some(scenario))).collect();
            let fails = |standing: &&Standing| matches!(standing, Standing::Expected | Standing::Flaky);
            let judged = standings.iter().find(fails).or(standings.first());
            report::Entry {
                failure: entry.failure.clone(),
                reason: entry.reason.clone(),
                standing: match judged.copied().unwrap_or(Standing::NotPlayed) {
                    // Fuzzing is random: it may not have reproduced the failure this time.
                    Standing::Stale if protocol.fuzzed.is_some() => Standing::NotPlayed,
                    other => other,
                },
                span: entry.span,
            }
        });
        protocol.baseline = judged.collect();
        for scenario in &mut protocol.scenarios {
            let id = scenario.id.clone();
            for check in scenario.checks.iter_mut().filter(|check| fails(check)) {
                let mut naming: Vec<&&Entry> = own.iter().filter(|entry| entry.names(&id, &check.name)).collect();
                // An entry that names the check takes precedence over one that names the scenario.
                naming.sort_by_key(|entry| entry.check().is_none());
                let known = naming
                    .first()
                    .map(|entry| Known { reason: entry.reason.clone(), flaky: entry.flaky || check.flaky.is_some() });
                // A declared deviation is known without an entry.
                check.known = known.or(check.known.take());
            }
            let listed = |cause: &Cause| {
                let entry = own.iter().find(|entry| entry.names_precondition(cause))?;
                Some(Known { reason: entry.reason.clone(), flaky: entry.flaky })
            };
            if scenario.verdict == Verdict::Inconclusive {
                scenario.known_cause = causes::explanation(scenario, &listed);
            }
        }
    }
}

/// Returns the standing of an entry that names a failed precondition. Only a `whole` run can show that the precondition
/// no longer fails.
pub fn of_precondition(entry: &Entry, protocol: &ProtocolReport, whole: bool) -> Standing {
    let undecided = || protocol.scenarios.iter().any(|scenario| scenario.verdict == Verdict::Inconclusive);
    if causes::preconditions(protocol).any(|(_, cause)| entry.names_precondition(cause)) {
        Standing::Expected
    } else if protocol.fuzzed.is_some() || !whole || !protocol.unplayed.is_empty() {
        Standing::NotPlayed
    } else if undecided() {
        // Another failure may have stopped the scenario before it.
        Standing::Undecided
    } else if entry.flaky {
        Standing::Flaky
    } else {
        Standing::Stale
    }
}

/// Returns the standing of an entry; `scenario` is the one that the entry names, if it was played.
pub fn standing(entry: &Entry, scenario: Option<&ScenarioResult>) -> Standing {
    let Some(scenario) = scenario else { return Standing::NotPlayed };
    let named: Vec<&CheckResult> =
        scenario.checks.iter().filter(|check| entry.names(&scenario.id, &check.name)).collect();
    let mut failed = named.iter().filter(|check| fails(check)).peekable();
    if failed.peek().is_some() {
        let flaky = entry.flaky || failed.any(|check| check.flaky.is_some());
        return if flaky { Standing::Flaky } else { Standing::Expected };
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
        true => Standing::Undecided,
        false if entry.flaky => Standing::Flaky,
        false => Standing::Stale,
    }
}

fn fails(check: &CheckResult) -> bool {
    matches!(check.verdict, Verdict::Fail | Verdict::Warn)
}
