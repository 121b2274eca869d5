//! What the entries of a baseline mean for a run.

use super::Entry;
use crate::event::Verdict;
use crate::hub::supervisor::PROCESS_CHECK;
use crate::report::{self, CheckResult, Known, RunReport, ScenarioResult, Standing};

/// Marks the checks that fail, or warn, as the baseline says, and puts down what became of each entry. Entries for
/// protocols that are not in the report have no place in it.
pub fn apply(report: &mut RunReport, entries: &[Entry]) {
    for protocol in &mut report.protocols {
        let speaks_of = |entry: &&Entry| entry.scenario().split('/').next() == Some(protocol.name.as_str());
        let own: Vec<&Entry> = entries.iter().filter(speaks_of).collect();
        let judged = own.iter().map(|entry| {
            let named = protocol.scenarios.iter().filter(|scenario| scenario.id == entry.scenario());
            let standings: Vec<Standing> = named.map(|scenario| standing(entry, Some(scenario))).collect();
            let fails = |standing: &&Standing| matches!(standing, Standing::Expected | Standing::Flaky);
            let judged = standings.iter().find(fails).or(standings.first());
            report::Entry {
                failure: entry.failure.clone(),
                reason: entry.reason.clone(),
                standing: match judged.copied().unwrap_or(Standing::NotPlayed) {
                    // Chance may not have come by this time.
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
                // Who names the check says more than who names the scenario.
                naming.sort_by_key(|entry| entry.check().is_none());
                check.known = naming
                    .first()
                    .map(|entry| Known { reason: entry.reason.clone(), flaky: entry.flaky || check.flaky.is_some() });
            }
        }
    }
}

/// What became of an entry; `scenario` is that of which it speaks, where that was played.
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
        // Whatever fails in the scenario: it may have been what was not decided.
        (None, checks) => open(scenario.verdict) || checks.iter().any(|check| check.verdict == Verdict::Inconclusive),
        // Frames are judged only where they come, and a process only where it was started for the run.
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
