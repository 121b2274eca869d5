//! Declared deviations: a hub that deviates from its document is judged beyond them, and they count as known, never as
//! passed.

use std::collections::BTreeMap;

use hubproof::outcome::{ScenarioReport, Verdict};
use rstest::rstest;
use serde::Deserialize;
use serde_json::Value;

use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, play_deviating, proposed_deviations, text_received, worst_verdict,
};
use crate::support::samples::samples;

/// Expects an answer to a question, by the rule MUST, with its number, by MUST-2.
const ASKING_SCENARIO: &str = "title: T
actors: { anna: client }
steps:
  - anna joins:
  - anna sends: ask
    with: { n: 7 }
    as: asked
  - anna expects: answer
    after: asked
    rules: [MUST]
    has: { MUST-2: { /n: { type: integer } } }
";

/// A hub that understands only `wants` and answers with `answers`; without the former, it answers anything.
fn hub_that_understands<'h>(wants: Option<&'h str>, answers: &'h str) -> impl FnMut(&HubInput<'_>) -> HubActions + 'h {
    move |input| match input.text {
        Some(sent) if wants.is_none_or(|wants| wants == sent) => vec![(1, input.connection, text_received(answers))],
        _ => Vec::new(),
    }
}

/// Plays a scenario with a deviating hub that answers everything in the same way.
fn play_answering(entries: &str, scenario: &str, answers: &str) -> ScenarioReport {
    play_deviating(entries, PLAIN_ROLES, scenario, hub_that_understands(None, answers))
}

/// Returns the reason of the deviation by which the check of a rule is known to fail.
fn known_reason(report: &ScenarioReport, rule: &str) -> Option<String> {
    let mut checks = report.checks.iter().filter(|check| check.rules.iter().any(|(used, _)| used.id == rule));
    checks.find_map(|check| check.known_reason().map(str::to_owned).filter(|_| check.verdict == Verdict::Fail))
}

/// The table has the hub's form of an answer, its documented form, and what the hub understands, if that matters.
#[test]
fn received_messages_are_translated_to_the_documented_form() {
    for (entry, texts) in samples(include_str!("../fixtures/deviations/received.txt")) {
        let mut texts = texts.lines();
        let (answers, documented, wants) = (texts.next().unwrap(), texts.next().unwrap(), texts.next());
        let entry = entry.replacen('{', "[{ reason: as it is,", 1) + "]";
        let report = play_deviating(&entry, PLAIN_ROLES, ASKING_SCENARIO, hub_that_understands(wants, answers));
        assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{entry}: {:#?}", report.checks);
        let own = report.checks.iter().find(|check| check.name == "deviation:1").unwrap();
        assert_eq!((own.verdict, own.known_reason()), (Verdict::Fail, Some("as it is")), "{entry}");
        let seen = report.deviations[&0];
        assert!((seen.observed, seen.contradicted) == (1, 0), "{entry}: {seen:?}");
        // A hub that follows its document makes the entry stale.
        let report = play_answering(&entry, ASKING_SCENARIO, documented);
        let seen = report.deviations[&0];
        assert!((seen.observed, seen.contradicted) == (0, 1), "{entry}: {seen:?}");
        assert!(report.checks.iter().all(|check| check.deviation.is_none()), "{entry}: {:#?}", report.checks);
    }
}

#[test]
fn sent_messages_are_translated_to_the_hubs_form() {
    for (entry, wants) in samples(include_str!("../fixtures/deviations/sent.txt")) {
        let entry = entry.replacen('{', "[{ reason: as it is,", 1) + "]";
        let raw = |text: &str| {
            ASKING_SCENARIO.replace("sends: ask\n    with: { n: 7 }", &format!("sends raw: {{ text: '{text}' }}"))
        };
        // Raw texts are sent in this form, too, unless they have a member twice.
        let twice = r#"{"type":"ask","n":7,"n":7}"#;
        for (scenario, wants) in [
            (ASKING_SCENARIO, wants.trim_end()),
            (&raw(r#"{"type":"ask","n":7}"#), wants.trim_end()),
            (&raw(twice), twice),
        ] {
            let hub = hub_that_understands(Some(wants), r#"{"type":"answer","n":1}"#);
            let report = play_deviating(&entry, PLAIN_ROLES, scenario, hub);
            assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{entry}: {:#?}", report.history);
        }
    }
}

/// The places refer to the document, so the order of the entries does not matter.
#[rstest]
#[case::items(
    "[{ reason: a, member: /all, renamed: /list }, { reason: b, member: /all/*/id, renamed: /all/*/ref }]",
    r#"{"type":"ask","n":7,"list":[{"ref":1},{"ref":2}]}"#
)]
#[case::name_and_type(
    "[{ reason: a, member: /n, renamed: /number }, { reason: b, member: /n, to_hub: \"${value | string}\" }]",
    r#"{"type":"ask","number":"7","all":[{"id":1},{"id":2}]}"#
)]
#[case::form_and_name(
    "[{ reason: a, member: /type, renamed: /kind }, { reason: b, message: ask, instead: { type: question } }]",
    r#"{"kind":"question","n":7,"all":[{"id":1},{"id":2}]}"#
)]
fn several_deviations_apply_to_the_same_sent_message(#[case] entries: &str, #[case] wants: &str) {
    let asks = ASKING_SCENARIO.replace("with: { n: 7 }", "with: { n: 7, all: [ { id: 1 }, { id: 2 } ] }");
    let hub = |input: &HubInput<'_>| match input.text {
        Some(sent) if serde_json::from_str::<Value>(sent).unwrap() == serde_json::from_str::<Value>(wants).unwrap() => {
            let answer =
                if wants.contains("kind") { r#"{"kind":"answer","n":1}"# } else { r#"{"type":"answer","n":1}"# };
            vec![(1, input.connection, text_received(answer))]
        }
        _ => Vec::new(),
    };
    let report = play_deviating(entries, PLAIN_ROLES, &asks, hub);
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.history);
}

#[test]
fn a_declared_deviation_makes_its_rule_failures_known() {
    // The type of a member is the rule MUST-2.
    let entry = "[{ reason: a text, message: answer, member: /n, from_hub: \"${value | int}\" }]";
    let report = play_answering(entry, ASKING_SCENARIO, r#"{"type":"answer","n":"7"}"#);
    assert_eq!(known_reason(&report, "MUST-2").as_deref(), Some("a text"), "{:#?}", report.checks);
    // Other mistakes in the message are not part of the deviation.
    let scenario = ASKING_SCENARIO.replace("/n: { type: integer }", "/n: { type: integer }, /m: true");
    let report = play_answering(entry, &scenario, r#"{"type":"answer","n":"7"}"#);
    assert_eq!(
        (worst_verdict(&report, "MUST-2"), known_reason(&report, "MUST-2")),
        (Verdict::Fail, None),
        "{:#?}",
        report.checks
    );
    // An entry may name more rules.
    let entry = "[{ reason: a reply, rules: [MUST], message: answer, instead: { type: reply } }]";
    let report = play_answering(entry, ASKING_SCENARIO, r#"{"type":"reply","n":7}"#);
    assert_eq!(known_reason(&report, "MUST").as_deref(), Some("a reply"), "{:#?}", report.checks);
}

#[test]
fn always_also_judges_the_message_as_the_hub_sent_it() {
    let shared = format!("{PLAIN_ROLES}always:\n  - every: answer\n    has: {{ MUST-2: {{ /kind: false }} }}\n");
    let scenario = ASKING_SCENARIO.replace("    has: { MUST-2: { /n: { type: integer } } }\n", "");
    let entry = "[{ reason: more, message: answer, member: /kind, added: x }]";
    let report =
        play_deviating(entry, &shared, &scenario, hub_that_understands(None, r#"{"type":"answer","kind":"x"}"#));
    assert_eq!(known_reason(&report, "MUST-2").as_deref(), Some("more"), "{:#?}", report.checks);
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass);
}

#[test]
fn an_absent_message_is_assumed_and_its_rule_is_broken() {
    let scenario = format!("{ASKING_SCENARIO}  - anna sends: ask\n    with: {{ n: \"${{asked.n}}\" }}\n    as: again\n  - anna expects: notice\n    after: again\n    rules: [SHOULD]\n")
        .replace("    has: { MUST-2: { /n: { type: integer } } }", "    as: came\n    has: { MUST-2: { /n: { type: integer } } }");
    let entry = "[{ reason: never, message: answer, absent: true, after: ask, assume: { n: \"${request.n}\" } }]";
    let mut asked = 0;
    let report = play_deviating(entry, PLAIN_ROLES, &scenario, |input| {
        asked += usize::from(input.text.is_some());
        let notice = || vec![(1, input.connection, text_received(r#"{"type":"notice"}"#))];
        if asked == 2 { notice() } else { Vec::new() }
    });
    assert_eq!(known_reason(&report, "MUST").as_deref(), Some("never"), "{:#?}", report.checks);
    assert_eq!(worst_verdict(&report, "MUST-2"), Verdict::Inconclusive, "{:#?}", report.checks);
    assert_eq!(report.verdict, Verdict::Pass, "{:#?}", report.checks);
    assert_eq!(worst_verdict(&report, "SHOULD"), Verdict::Pass, "{:#?}", report.checks);
    let sent = report.history.iter().filter(|frame| frame.text.contains(r#""ask","n":7"#)).count();
    assert_eq!(sent, 2, "{:#?}", report.history);
    // Only if the request matches.
    let entry = "[{ reason: never, message: answer, absent: true, after: ask, where: { n: 8 } }]";
    let report = play_deviating(entry, PLAIN_ROLES, ASKING_SCENARIO, |_| Vec::new());
    assert_eq!(
        (worst_verdict(&report, "MUST"), known_reason(&report, "MUST")),
        (Verdict::Fail, None),
        "{:#?}",
        report.checks
    );
    // A greeting.
    let scenario = ASKING_SCENARIO.replace("  - anna sends", "  - anna expects: notice\n  - anna sends");
    let entry = "[{ reason: no greeting, message: notice, absent: true, after: connection }]";
    let report = play_answering(entry, &scenario, r#"{"type":"answer","n":7}"#);
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.checks);
}

#[rstest]
#[case::of_the_message("${message.m + 1}", "6")]
#[case::of_the_time("${now_ms() // 1000 - now_s() + 6}", "6")]
#[case::that_fails("${message.other + 1}", "null")]
fn a_missing_member_is_assumed_by_an_expression(#[case] assume: &str, #[case] n: &str) {
    let entry = format!("[{{ reason: none, message: answer, member: /n, missing: true, assume: \"{assume}\" }}]");
    let scenario = ASKING_SCENARIO.replace("{ type: integer }", &format!("{{ const: {n} }}"));
    let report = play_answering(&entry, &scenario, r#"{"type":"answer","m":5}"#);
    assert_eq!(known_reason(&report, "MUST-2").as_deref(), Some("none"), "{:#?}", report.checks);
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.checks);
}

#[derive(Deserialize)]
struct ProposalGroup {
    about: String,
    document: Vec<(String, String)>,
    steps: Vec<String>,
    cases: BTreeMap<String, ProposalCase>,
}

#[derive(Deserialize)]
struct ProposalCase {
    received: Vec<String>,
    #[serde(default)]
    proposed: Vec<Value>,
}

#[test]
fn an_unexpected_answer_leads_to_the_right_proposals() {
    let mut table: BTreeMap<String, Vec<ProposalGroup>> =
        toml::from_str(include_str!("../fixtures/deviations/proposed.toml")).unwrap();
    for group in table.remove("group").unwrap() {
        let document = |text: &str| {
            group.document.iter().fold(text.to_owned(), |text, (documented, changed)| text.replace(documented, changed))
        };
        for (steps, (name, case)) in
            group.steps.iter().flat_map(|steps| group.cases.iter().map(move |case| (steps, case)))
        {
            let hub = |input: &HubInput<'_>| match input.text {
                Some(_) => case.received.iter().map(|sent| (0, input.connection, text_received(sent))).collect(),
                None => Vec::new(),
            };
            let scenario =
                format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna sends: ask\n{steps}");
            let mut found = proposed_deviations(document, &scenario, hub);
            found.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| {
                entry.remove("reason");
            });
            assert_eq!(found, case.proposed, "{name} of {}", group.about);
        }
    }
}

/// A queue whose confirmations never come: `notice` has the id of each, which only `answer` tells.
const SILENT_QUEUE: &str = "[{ reason: never, message: answer, absent: true, after: ask, assume: { id: job-1 } }]";

/// Plays steps after two questions whose answers are only assumed. The hub sends a notice for each question.
fn play_on_assumptions(steps: &str) -> ScenarioReport {
    let asks = ["first", "second"].map(|name| {
        format!("  - anna sends: ask\n    as: {name}_asked\n  - anna expects: answer\n    after: {name}_asked\n    as: {name}\n")
    });
    let scenario =
        format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n{}{}{steps}", asks[0], asks[1]);
    let mut asked = 0;
    play_deviating(SILENT_QUEUE, PLAIN_ROLES, &scenario, move |input| {
        let Some(text) = input.text else { return Vec::new() };
        asked += 1;
        let notice = format!(r#"{{"type":"notice","id":"real-{asked}","echo":{text}}}"#);
        vec![(1, input.connection, text_received(notice))]
    })
}

#[rstest]
#[case::that_would_fail("  - check: \"${first.id != second.id}\"\n    rules: [MUST]\n")]
#[case::that_would_hold("  - check: \"${first.id == second.id}\"\n    rules: [MUST]\n")]
#[case::of_the_time("  - check: \"${wire(first).after < 0}\"\n    rules: [MUST]\n")]
#[case::equal("  - check: \"${first.id}\"\n    equals: other\n    rules: [MUST]\n")]
#[case::expected_by_id("  - anna expects: notice\n    where: { id: \"${first.id}\" }\n    rules: [MUST]\n")]
#[case::unexpected_by_id("  - anna expects nothing: notice\n    where: { id: \"${first.id}\" }\n    rules: [MUST]\n")]
#[case::detail_by_id("  - anna expects: notice\n    has: { MUST: { id: \"${first.id}\" } }\n")]
#[case::in_order("  - order: [first, second]\n    rules: [MUST]\n")]
#[case::counted(
    "  - anna sends: ask\n    as: third\n  - anna expects: answer\n    after: third\n    count: 1\n    rules: [MUST]\n"
)]
#[case::after_an_assumed_value_was_sent(
    "  - anna sends: ask\n    with: { id: \"${first.id}\" }\n    as: again\n  - anna expects: notice\n    after: again\n    rules: [MUST]\n"
)]
#[case::silence_after_an_assumed_value_was_sent(
    "  - anna sends: ask\n    with: { id: \"${first.id}\" }\n    as: again\n  - anna expects nothing: tick\n    rules: [MUST]\n"
)]
fn a_check_that_depends_on_an_assumed_message_is_inconclusive(#[case] steps: &str) {
    let report = play_on_assumptions(steps);
    let own = report.checks.iter().find(|check| check.rules.iter().any(|(used, _)| used.id == "MUST")).unwrap();
    assert_eq!((own.verdict, own.message.as_str()), (Verdict::Inconclusive, "assumed by deviation 1"), "{report:#?}");
    // The deviation is declared, so it does not make the scenario inconclusive.
    assert_eq!((report.verdict, report.mistake.as_deref()), (Verdict::Pass, None), "{report:#?}");
}

#[rstest]
#[case::of_the_hub("  - anna expects: notice\n    where: { id: real-2 }\n    rules: [MUST]\n")]
#[case::sent_before_an_assumed_one("  - anna expects: notice\n    after: second\n    rules: [MUST]\n")]
#[case::with_what_was_sent("  - check: \"${second_asked.n == 1}\"\n    rules: [MUST]\n")]
fn what_was_observed_is_judged_beside_assumed_messages(#[case] steps: &str) {
    let report = play_on_assumptions(steps);
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{report:#?}");
}

#[test]
fn an_assumed_message_is_never_shown_as_received() {
    let report = play_on_assumptions("  - anna expects: tick\n    rules: [MUST]\n  - anna sends: ask\n");
    let own = report.checks.iter().find(|check| check.rules.iter().any(|(used, _)| used.id == "MUST")).unwrap();
    let received = &own.detail.as_ref().unwrap().received;
    assert!(received.contains("real-1") && !received.contains("job-1"), "{received}");
    assert!(report.leftovers.iter().all(|(name, _)| name != "answer"), "{:?}", report.leftovers);
}

/// Frames that hold only for a client that was answered are incomplete.
#[test]
fn an_entry_for_all_frames_is_inconclusive_about_absent_messages() {
    let always = |check: &str| format!("{PLAIN_ROLES}always:\n  - check: \"${{{check}}}\"\n    rules: [MUST-2]\n");
    let play = |check: &str| {
        let scenario = ASKING_SCENARIO.replace("    has: { MUST-2: { /n: { type: integer } } }\n", "");
        play_deviating(SILENT_QUEUE, &always(check), &scenario, hub_that_understands(None, r#"{"type":"notice"}"#))
    };
    let report = play("frames('answer') | length == frames('notice') | length");
    assert_eq!(worst_verdict(&report, "MUST-2"), Verdict::Inconclusive, "{:#?}", report.checks);
    let report = play("frames('notice') | length == 2");
    assert_eq!(worst_verdict(&report, "MUST-2"), Verdict::Fail, "{:#?}", report.checks);
}

/// Each of two entries that translate one message breaks the rule that it breaks alone.
#[test]
fn a_rule_is_broken_by_the_entry_that_translates_its_member() {
    let entries = "[{ reason: kind, message: answer, instead: { type: reply } }, { reason: number, message: answer, member: /n, from_hub: \"${value | int}\" }]";
    let report = play_answering(entries, ASKING_SCENARIO, r#"{"type":"reply","n":"7"}"#);
    assert_eq!(known_reason(&report, "MUST-2").as_deref(), Some("number"), "{:#?}", report.checks);
}

/// The value of a member that the hub leaves out is assumed; the rest of the message is not.
#[rstest]
#[case::of_the_member("${asked.n == came.n}", Verdict::Inconclusive)]
#[case::of_another_member("${came.m == 5}", Verdict::Pass)]
#[case::of_both("${came.m + came.n > 5}", Verdict::Inconclusive)]
fn a_check_of_a_missing_member_is_inconclusive(#[case] check: &str, #[case] verdict: Verdict) {
    let entry = "[{ reason: none, message: answer, member: /n, missing: true, assume: 7 }]";
    let scenario = ASKING_SCENARIO.replace(
        "    rules: [MUST]\n    has: { MUST-2: { /n: { type: integer } } }\n",
        &format!("    as: came\n  - check: \"{check}\"\n    rules: [MUST]\n"),
    );
    let report = play_answering(entry, &scenario, r#"{"type":"answer","m":5}"#);
    assert_eq!(worst_verdict(&report, "MUST"), verdict, "{:#?}", report.checks);
}
