//! Whether it is the odd thing that keeps a conversation from going on. What another client left behind on a hub, such as a
//! job that fits everybody, can do so as well; then it does where nothing odd is said.

use serde_json::{Map, Value};

use super::case::ODD;
use super::oracle::TOLD;
use crate::event::{CheckReport, ScenarioReport, Verdict};

/// Oracles that a conversation is asked by which goes on.
const GOING_ON: [&str; 2] = ["FUZZ-UNDISTURBED", "FUZZ-KEEPS"];

fn is_of_going_on(check: &CheckReport) -> bool {
    check.rules.iter().any(|(rule, _)| GOING_ON.contains(&rule.id.as_str()))
}

/// The case without what is odd, and what asks about that; `None` where nothing was found that it could tell of.
pub fn of(scenario: &Map<String, Value>, report: &ScenarioReport) -> Option<Map<String, Value>> {
    let is_found = |check: &CheckReport| check.verdict == Verdict::Fail && is_of_going_on(check);
    report.checks.iter().any(is_found).then(|| quiet(scenario))?
}

fn quiet(scenario: &Map<String, Value>) -> Option<Map<String, Value>> {
    let is_odd = |step: &Value| {
        let text = step.to_string();
        [ODD, TOLD].iter().any(|name| text.contains(name))
    };
    let mut control = scenario.clone();
    let steps = control.get_mut("steps")?.as_array_mut()?;
    for step in steps.iter_mut().filter_map(Value::as_object_mut) {
        if step.get("if").is_some_and(|told| told == TOLD) {
            step.remove("if");
        }
    }
    steps.retain(|step| !is_odd(step));
    Some(control)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What was odd is gone, and whatever speaks of it; the rest is there, whether it had to be told or not.
    #[test]
    fn a_control_says_nothing_odd() {
        let scenario = json!({ "title": "Case 1", "steps": [
            { "client joins": null },
            { "sender sends raw": { "text": "{" }, "as": ODD },
            { "sender expects one of": [{ "message": "any", "as": TOLD }], "after": ODD },
            { "check": format!("${{client.id in json({TOLD})}}"), "equals": false, "if": TOLD },
            { "client sends": "ping", "if": TOLD },
            { "client expects": "pong", "rules": ["FUZZ-KEEPS"], "if": TOLD },
        ]});
        let expected = json!([
            { "client joins": null },
            { "client sends": "ping" },
            { "client expects": "pong", "rules": ["FUZZ-KEEPS"] },
        ]);
        assert_eq!(quiet(scenario.as_object().unwrap()).unwrap()["steps"], expected);
    }
}
