//! Control runs: whether the mutation is the reason why a conversation fails. Another client can be the reason, too, by
//! state that it left on the hub (such as a job that matches every worker) or by messages that it sends at the same
//! time. Then the conversation also fails without the mutated message, or does not fail again with it.

use std::collections::HashSet;

use super::fingerprint;
use crate::fuzz::case_scenario::CaseScenario;
use crate::fuzz::shrink;
use crate::judge::Ruling;
use crate::outcome::{CheckReport, HistoryDirection, ScenarioReport, Verdict};
use crate::protocol::Pack;
use crate::report::scenario_verdict;

/// Oracles that check whether a conversation continues.
const CONTINUATION_ORACLES: [&str; 2] = ["FUZZ-UNDISTURBED", "FUZZ-KEEPS"];

fn is_continuation_check(check: &CheckReport) -> bool {
    check.rules.iter().any(|(rule, _)| CONTINUATION_ORACLES.contains(&rule.id.as_str()))
}

/// Returns the case without its mutated message; `None` unless an oracle of [`CONTINUATION_ORACLES`] is broken.
pub fn control_scenario(scenario: &CaseScenario, report: &ScenarioReport) -> Option<CaseScenario> {
    let found = fingerprint::broken_checks(report).find(|check| is_continuation_check(check))?;
    shrink::control_run(scenario, fingerprint::oracle_name(found))
}

/// Whether an oracle of [`CONTINUATION_ORACLES`] is broken; `None` where the case did not get that far.
pub fn continuation_is_broken(report: &ScenarioReport) -> Option<bool> {
    let is_stuck = fingerprint::broken_checks(report).any(is_continuation_check);
    (is_stuck || scenario_verdict(report) != Verdict::Inconclusive).then_some(is_stuck)
}

/// Lowers a finding to a warning, and a warning, which the conversation itself has a step for, to nothing. Adds to the
/// message why the mutation may not be the cause.
pub fn lower_finding(report: &mut ScenarioReport, doubt: Ruling) {
    for check in report.checks.iter_mut().filter(|check| is_continuation_check(check)) {
        match check.verdict {
            Verdict::Fail => lower_to_warning(check),
            Verdict::Warn => check.make_inconclusive(),
            _ => continue,
        }
        check.message.push_str("; ");
        check.message.push_str(&doubt.describe());
    }
    report.verdict = scenario_verdict(report);
}

/// Lowers findings that the fuzzer itself may have caused. The hub may have passed on a message that clients send, too,
/// perhaps one of another case. And if a client sends the same message twice, what the hub derives from it, such as an
/// id, may come twice.
pub fn lower_self_inflicted(report: &mut ScenarioReport, pack: &Pack) {
    let ScenarioReport { history, checks, .. } = &mut *report;
    let (mut sent, mut repeating) = (HashSet::new(), HashSet::new());
    for frame in history.iter().filter(|frame| frame.direction == HistoryDirection::Sent) {
        if !sent.insert((&frame.actor, &frame.text, &frame.hash)) {
            repeating.insert(&frame.actor);
        }
    }
    let is_both_ways = |check: &CheckReport| {
        let name = check.name.strip_prefix("schema:").and_then(|rest| rest.split(':').next());
        let directions = name.and_then(|name| pack.message(name)).map(|message| &message.directions);
        directions.is_some_and(|directions| directions.to_hub && directions.from_hub)
    };
    let is_of_repeating =
        |check: &CheckReport| check.always && check.detail.iter().any(|detail| repeating.contains(&detail.actor));
    let mut lowered = false;
    for check in checks.iter_mut().filter(|check| check.verdict == Verdict::Fail) {
        let why = if is_both_ways(check) {
            "; the hub may have passed on what a client sent"
        } else if is_of_repeating(check) {
            "; the client sent the same message twice"
        } else {
            continue;
        };
        lower_to_warning(check);
        check.message.push_str(why);
        lowered = true;
    }
    if lowered {
        report.verdict = scenario_verdict(report);
    }
}

fn lower_to_warning(check: &mut CheckReport) {
    check.verdict = Verdict::Warn;
    check.rules.iter_mut().for_each(|(_, verdict)| *verdict = (*verdict).min(Verdict::Warn));
}

/// Makes a finding inconclusive whose control run the end of the run prevented.
pub fn leave_undecided(report: &mut ScenarioReport) {
    for check in report.checks.iter_mut().filter(|check| is_continuation_check(check)) {
        if matches!(check.verdict, Verdict::Fail | Verdict::Warn) {
            check.make_inconclusive();
            check.message.push_str("; the run ended before its control run");
        }
    }
    report.verdict = scenario_verdict(report);
    report.interrupted = true;
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::outcome::FrameReport;
    use crate::report::fixture::RunFixture;

    #[rstest]
    #[case::message_of_the_hub_alone(false, false, None, Verdict::Fail)]
    #[case::message_of_clients_too(true, false, None, Verdict::Warn)]
    #[case::repeated_by_this_client(false, true, Some("anna"), Verdict::Warn)]
    #[case::repeated_by_another_client(false, true, Some("ben"), Verdict::Fail)]
    #[case::nothing_repeated(false, true, None, Verdict::Fail)]
    #[case::step_after_repeated_input(false, false, Some("anna"), Verdict::Fail)]
    fn findings_that_the_fuzzer_may_have_caused_only_warn(
        #[case] to_hub: bool,
        #[case] always: bool,
        #[case] repeated_by: Option<&str>,
        #[case] expected: Verdict,
    ) {
        let mut fixture = RunFixture::schema_broken();
        let mut report = fixture.reports.remove(0);
        fixture.programs.clear();
        let pack = std::sync::Arc::get_mut(&mut fixture.pack).unwrap();
        pack.messages.iter_mut().filter(|one| one.name == "welcome").for_each(|one| one.directions.to_hub = to_hub);
        for check in &mut report.checks {
            check.always = always;
            check.detail.iter_mut().for_each(|detail| detail.actor = "anna".to_owned());
        }
        let sent = report.history.iter().find(|frame| frame.direction == HistoryDirection::Sent).cloned().unwrap();
        if let Some(actor) = repeated_by {
            let again = FrameReport { actor: actor.to_owned(), ..sent.clone() };
            report.history.extend([again.clone(), again]);
        }
        assert_eq!(scenario_verdict(&report), Verdict::Fail);
        lower_self_inflicted(&mut report, pack);
        assert_eq!(scenario_verdict(&report), expected, "{:#?}", report.checks);
    }
}
