//! Whether it is the odd thing that keeps a conversation from going on. What another client left behind on a hub, such as a
//! job that fits everybody, can do so as well; then it does where nothing odd is said.

use serde_json::{Map, Value};

use super::{cause, shrink};
use crate::event::{CheckReport, ScenarioReport, Verdict};

/// Oracles that a conversation is asked by which goes on.
const GOING_ON: [&str; 2] = ["FUZZ-UNDISTURBED", "FUZZ-KEEPS"];

fn is_of_going_on(check: &CheckReport) -> bool {
    check.rules.iter().any(|(rule, _)| GOING_ON.contains(&rule.id.as_str()))
}

/// The case without what is odd; `None` where nothing was found that it could tell of.
pub fn of(scenario: &Map<String, Value>, report: &ScenarioReport) -> Option<Map<String, Value>> {
    let is_found = |check: &&CheckReport| check.verdict == Verdict::Fail && is_of_going_on(check);
    shrink::control(scenario, cause::oracle(report.checks.iter().find(is_found)?))
}

/// The conversation did not go on without anything odd either: whatever the reason, it may be that of the finding, too, which
/// only warns then.
pub fn doubt(report: &mut ScenarioReport, control: &ScenarioReport) {
    let went_on = control.cause.is_none()
        && control.mistake.is_none()
        && control.checks.iter().filter(|check| is_of_going_on(check)).all(|check| check.verdict == Verdict::Pass);
    if went_on {
        return;
    }
    for check in report.checks.iter_mut().filter(|check| check.verdict == Verdict::Fail && is_of_going_on(check)) {
        check.verdict = Verdict::Warn;
        check.rules.iter_mut().for_each(|(_, verdict)| *verdict = (*verdict).min(Verdict::Warn));
        check.message.push_str(", and so it is now where nothing odd is said");
    }
    let worst = report.checks.iter().map(|check| check.verdict).max();
    report.verdict = worst.unwrap_or(report.verdict);
}
