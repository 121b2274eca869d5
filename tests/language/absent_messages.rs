//! What the absence of a declared message, or a part of one that hubproof made, proves: only the rule that demands the
//! message is broken.

use hubproof::outcome::{ScenarioReport, Verdict};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, deviation_diagnostics, play_changed_deviating, play_deviating,
    proposed_deviations, text_received, worst_verdict,
};

const NO_ANSWER: &str = "[{ reason: never, message: answer, absent: true, after: ask }]";
const NEVER: &str = "[{ reason: never, message: answer, absent: true }]";

/// Plays steps after a question, with a hub that answers with these texts.
fn play_asking(entries: &str, steps: &str, answers: &[&str]) -> ScenarioReport {
    play_deviating(entries, PLAIN_ROLES, &asking(steps), |input| answer(input, answers))
}

fn asking(steps: &str) -> String {
    format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna sends: ask\n    with: {{ n: 7 }}\n    as: asked\n{steps}"
    )
}

fn answer(input: &HubInput<'_>, answers: &[&str]) -> HubActions {
    let sent = |_| answers.iter().map(|text| (1, input.connection, text_received(*text))).collect();
    input.text.map(sent).unwrap_or_default()
}

/// Returns the verdict of each check of a rule, and whether a declared deviation explains it.
fn checks_of(report: &ScenarioReport, rule: &str) -> Vec<(String, Verdict, bool)> {
    let of_rule = report.checks.iter().filter(|check| check.rules.iter().any(|(used, _)| used.id == rule));
    of_rule.map(|check| (check.name.clone(), check.verdict, check.deviation.is_some())).collect()
}

/// MUST demands an answer; MUST-2 is about something else, such as how a question may be written.
#[rstest]
#[case::assumed(NO_ANSWER)]
#[case::never_sent("[{ reason: never, message: answer, absent: true, rules: [MUST] }]")]
fn an_absent_message_breaks_only_the_rules_that_demand_it(#[case] entry: &str) {
    let report = play_asking(entry, "  - anna expects: answer\n    rules: [MUST, MUST-2]\n", &[]);
    let own = ("deviation:1".to_owned(), Verdict::Fail, true);
    let step = ("MUST,MUST-2".to_owned(), Verdict::Inconclusive, true);
    assert_eq!(checks_of(&report, "MUST"), [step.clone(), own], "{:#?}", report.checks);
    assert_eq!((checks_of(&report, "MUST-2"), report.verdict), (vec![step], Verdict::Pass));
}

/// A proposal names the rules that the entry will break.
#[test]
fn a_proposed_absence_breaks_only_the_rules_that_demand_the_message() {
    let steps = asking("  - anna expects: answer\n    rules: [MUST, MUST-2]\n");
    let found = proposed_deviations(str::to_owned, &steps, |_| Vec::new());
    let rules: Vec<&Value> = found.iter().map(|entry| &entry["rules"]).collect();
    assert_eq!(rules, [&json!(["MUST"])], "{found:?}");
}

#[rstest]
#[case::after_a_request(NO_ANSWER, "  - anna expects nothing: answer\n    where: { n: 8 }\n    rules: [MUST-2]\n")]
#[case::at_all(NEVER, "  - anna expects nothing: answer\n    rules: [MUST-2]\n")]
#[case::instead_of_a_close(
    "[{ reason: it closes, message: answer, closes: true }]",
    "  - anna expects nothing: answer\n    rules: [MUST-2]\n"
)]
#[case::as_an_alternative(
    NEVER,
    "  - anna expects one of: [ { message: answer, fail: answered }, nothing: ]\n    rules: [MUST-2]\n"
)]
#[case::as_a_warning(
    NEVER,
    "  - anna expects one of: [ { message: tick }, { message: answer, fail: answered }, { nothing: , warn: silent } ]\n    rules: [MUST-2]\n"
)]
fn silence_proves_nothing_about_an_absent_message(#[case] entry: &str, #[case] steps: &str) {
    let report = play_asking(entry, steps, &[]);
    let verdicts: Vec<_> =
        checks_of(&report, "MUST-2").into_iter().map(|(_, verdict, known)| (verdict, known)).collect();
    assert_eq!(verdicts, [(Verdict::Inconclusive, true)], "{:#?}", report.checks);
    // Silence about other messages still does.
    let others = steps.replace("answer\n", "tick\n").replace("message: answer", "message: notice");
    let report = play_asking(entry, &others, &[]);
    assert!(worst_verdict(&report, "MUST-2") < Verdict::Inconclusive, "{:#?}", report.checks);
}

/// A list is about replies that the document names, and nothing else goes with it.
#[rstest]
#[case::no_reply("[notice]", "", "`notice` is not a documented reply")]
#[case::unknown("[answr]", "", "has no message `answr`")]
#[case::empty("[]", "", "`absent` names no message")]
#[case::after_one_request("[answer]", ", after: ask", "`after` does not go with a list of messages")]
fn a_list_of_absent_messages_names_replies(#[case] names: &str, #[case] more: &str, #[case] expected: &str) {
    let found = deviation_diagnostics(&format!("[{{ reason: never, absent: {names}{more} }}]"));
    assert!(found.contains(expected), "{found}");
}

const NO_NUMBER: &str = "[{ reason: none, message: answer, member: /n, missing: true, assume: 7 }]";

/// The hub's answer lacks `n`; hubproof assumes 7, which is right by chance, or wrong.
#[rstest]
#[case::compared_with_a_request("has: { MUST-2: { n: \"${asked.n}\" } }", Verdict::Fail, true)]
#[case::compared_with_another_value("has: { MUST-2: { n: \"${asked.n + 1}\" } }", Verdict::Fail, true)]
#[case::optional("has: { MUST-2: { /n or absent: { const: \"${asked.n + 1}\" } } }", Verdict::Pass, false)]
#[case::another_member("has: { MUST-2: { m: \"${asked.n - 2}\" } }", Verdict::Pass, false)]
#[case::another_wrong_member("has: { MUST-2: { m: \"${asked.n}\" } }", Verdict::Fail, false)]
#[case::matched("where: { n: 7 }\n    rules: [MUST-2]", Verdict::Inconclusive, true)]
#[case::matched_by_another_member("where: { m: 5 }\n    rules: [MUST-2]", Verdict::Pass, false)]
fn a_missing_member_is_judged_as_missing(#[case] check: &str, #[case] verdict: Verdict, #[case] known: bool) {
    let steps = format!("  - anna expects: answer\n    after: asked\n    {check}\n");
    let report = play_asking(NO_NUMBER, &steps, &[r#"{"type":"answer","m":5}"#]);
    let found =
        checks_of(&report, "MUST-2").into_iter().map(|(_, verdict, known)| (verdict, known)).collect::<Vec<_>>();
    assert_eq!(found, [(verdict, known)], "{:#?}", report.checks);
}

#[test]
fn a_message_that_matches_by_an_assumed_member_does_not_break_silence() {
    let steps = "  - anna expects nothing: answer\n    where: { n: 7 }\n    rules: [MUST-2]\n";
    let report = play_asking(NO_NUMBER, steps, &[r#"{"type":"answer","m":5}"#]);
    assert_eq!(worst_verdict(&report, "MUST-2"), Verdict::Inconclusive, "{:#?}", report.checks);
}

/// The conversion of null is not of the type that the document wants. The hub did not send its result.
#[rstest]
#[case::null_is_allowed("[integer, 'null']", None)]
#[case::null_is_not_allowed("integer", Some(true))]
fn a_converted_value_is_not_the_hubs(#[case] types: &str, #[case] known: Option<bool>) {
    let change = |text: &str| {
        let payload = format!(
            "payload: {{ x-rules: [MUST-2], properties: {{ n: {{ type: {types} }} }}, examples: [ {{ type: answer }} ] }}"
        );
        text.replace("payload: { examples: [ { type: answer } ] }", &payload)
    };
    let entry = "[{ reason: a text, message: answer, member: /n, from_hub: \"${value | string}\" }]";
    let steps = asking("  - anna expects: answer\n    has: { MUST: { /n: { enum: [7, null] } } }\n");
    let report =
        play_changed_deviating(change, entry, &steps, |input| answer(input, &[r#"{"type":"answer","n":null}"#]));
    let failed = |name: &str| {
        let check = report.checks.iter().find(|check| check.name == name).unwrap();
        (check.verdict == Verdict::Fail).then_some(check.deviation.is_some())
    };
    assert_eq!((failed("schema:answer:MUST-2"), failed("MUST")), (known, None), "{:#?}", report.checks);
}

/// Only a message of the same name shows that an entry is stale: a special form of it is another message.
#[test]
fn another_message_does_not_make_an_entry_stale() {
    let change = |text: &str| {
        text.replace("match: { type: notice } } }", "match: { type: answer, kind: notice } } }")
            .replace("[ { type: notice } ]", "[ { type: answer, kind: notice } ]")
    };
    let notice = r#"{"type":"answer","kind":"notice","n":1}"#;
    let contradicted = |entry: &str, sent: &'static str| {
        let steps = asking("  - anna expects: notice\n");
        let report = play_changed_deviating(change, entry, &steps, |input| answer(input, &[sent]));
        report.deviations.get(&0).map_or(0, |seen| seen.contradicted)
    };
    for entry in [NEVER, NO_ANSWER, NO_NUMBER] {
        assert_eq!(contradicted(entry, notice), 0, "{entry}");
        assert_eq!(contradicted(entry, r#"{"type":"answer","n":1}"#), 1, "{entry}");
    }
}
