//! `cases`: one scenario for each row of a table.

use hubproof::outcome::Verdict;
use rstest::rstest;
use serde_json::Value;

use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, RoundOptions, mini_scenario_diagnostics, run_rounds, text_received,
};

const SCENARIO: &str = "title: A number is answered
cases:
  one: { number: 1, reply: answer, rule: MUST }
  two: { number: 2, reply: answer, rule: MUST-2 }
  none: { number: 3, reply: notice, rule: SHOULD }
let: { twice: \"${number * 2}\" }
actors: { anna: client }
steps:
  - anna joins:
  - anna sends: ask
    with: { n: \"${twice}\" }
  - anna expects: \"${reply}\"
    rules: [\"${rule}\"]
";

/// Answers `{n}` with an answer, or with a notice above 4; wrong numbers are not answered.
fn answer_except(wrong: &'static [u64]) -> impl FnMut(&HubInput<'_>) -> HubActions {
    move |input| {
        let Some(number) = input.text.and_then(|text| serde_json::from_str::<Value>(text).unwrap()["n"].as_u64())
        else {
            return Vec::new();
        };
        let kind = if number > 4 { "notice" } else { "answer" };
        let reply = text_received(format!(r#"{{"type":"{kind}"}}"#));
        if wrong.contains(&number) { Vec::new() } else { vec![(0, input.connection, reply)] }
    }
}

#[rstest]
#[case::right(&[], [Verdict::Pass, Verdict::Pass, Verdict::Pass])]
#[case::one_is_wrong(&[4], [Verdict::Pass, Verdict::Fail, Verdict::Pass])]
#[case::only_one_is_right(&[2, 4], [Verdict::Fail, Verdict::Fail, Verdict::Pass])]
fn each_case_is_a_scenario_with_its_own_verdict(#[case] wrong: &'static [u64], #[case] expected: [Verdict; 3]) {
    let played = run_rounds(str::to_owned, &[SCENARIO], &RoundOptions::default(), answer_except(wrong));
    let scenarios = &played.report.protocols[0].scenarios;
    let found: Vec<(&str, Verdict)> =
        scenarios.iter().map(|scenario| (scenario.id.as_str(), scenario.verdict)).collect();
    let ids = ["small/talk0/none", "small/talk0/one", "small/talk0/two"];
    let by_id = [ids[1], ids[2], ids[0]].into_iter().zip(expected);
    for (id, verdict) in by_id {
        assert!(found.contains(&(id, verdict)), "{id} {verdict:?}: {found:?}");
    }
    let checked = |id: &str| {
        let run = &scenarios.iter().find(|scenario| scenario.id == id).unwrap().runs[0];
        run.checks.iter().flat_map(|check| &check.rules).map(|(rule, _)| rule.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!([checked(ids[1]), checked(ids[2]), checked(ids[0])], [["MUST"], ["MUST-2"], ["SHOULD"]]);
}

#[rstest]
#[case::member_missing(
    "  one: { number: 1, reply: answer }\n  two: { number: 2 }\n",
    &["the case `two` has no `reply`", "the case `one` has it"]
)]
#[case::member_too_many(
    "  one: { number: 1 }\n  two: { number: 2, reply: answer }\n",
    &["the case `one` has no `reply`", "the case `two` has it"]
)]
#[case::no_rows("  {}\n", &["`cases` has no rows"])]
#[case::list("  - { number: 1 }\n", &["`cases` must be a mapping, not a list"])]
#[case::empty_row("  one: {}\n", &["the case `one` has no members"])]
#[case::no_row("  one: 3\n", &["the case `one` must be a mapping, not a number"])]
#[case::name_with_a_slash("  a/b: { number: 1 }\n", &["a case cannot be called `a/b`"])]
#[case::member_that_is_bound("  one: { twice: 1 }\n", &["`twice` is already bound"])]
#[case::unknown_rule(
    "  one: { number: 1, reply: answer, rule: MIST }\n",
    &["small has no rule `MIST`", "did you mean `MUST`?"]
)]
#[case::unknown_message(
    "  one: { number: 1, reply: anser, rule: MUST }\n",
    &["small has no message `anser`", "did you mean `answer`?"]
)]
#[case::computed_rule(
    "  one: { number: 1, reply: answer, rule: \"${unique('a')}\" }\n",
    &["a rule id must be written out, or come from a case"]
)]
fn mistakes_in_cases_are_reported_once(#[case] cases: &str, #[case] expected: &[&str]) {
    let start = SCENARIO.find("  one:").unwrap();
    let end = SCENARIO.find("let:").unwrap();
    let scenario = format!("{}{cases}{}", &SCENARIO[..start], &SCENARIO[end..]);
    let found = mini_scenario_diagnostics(PLAIN_ROLES, &scenario);
    for text in expected {
        assert_eq!(found.matches(text).count(), 1, "{text}:\n{found}");
    }
}

#[test]
fn rules_of_cases_may_be_used_in_a_loop() {
    let scenario = SCENARIO.replace(
        "  - anna sends: ask\n    with: { n: \"${twice}\" }\n  - anna expects: \"${reply}\"\n    rules: [\"${rule}\"]\n",
        "  - each: i\n    in: 2\n    do:\n      - anna sends: ask\n        with: { n: \"${twice}\" }\n      - anna expects: \"${reply}\"\n        rules: [\"${rule}\"]\n",
    );
    let played = run_rounds(str::to_owned, &[&scenario], &RoundOptions::default(), answer_except(&[2]));
    let scenarios = &played.report.protocols[0].scenarios;
    let failed = scenarios.iter().find(|scenario| scenario.verdict == Verdict::Fail).unwrap();
    assert_eq!((failed.id.as_str(), failed.runs[0].checks.len()), ("small/talk0/one", 1));
    let detail = failed.runs[0].checks[0].detail.as_ref().unwrap();
    assert_eq!(detail.round.as_deref(), Some("1 of 2, i = 0"));
    assert_eq!(detail.sent.as_deref(), Some(r#"{"type":"ask","n":2}"#));
}
