//! Declared deviations: a hub that deviates from its document is judged beyond them, and they count as known, never as
//! passed.

use hubproof::outcome::{ScenarioReport, Verdict};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, play_deviating, proposed_deviations, text_received, worst_verdict,
};

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

/// Returns the reason of the deviation by which the check of a rule is known to fail.
fn known_reason(report: &ScenarioReport, rule: &str) -> Option<String> {
    let mut checks = report.checks.iter().filter(|check| check.rules.iter().any(|(used, _)| used.id == rule));
    checks.find_map(|check| check.known_reason().map(str::to_owned).filter(|_| check.verdict == Verdict::Fail))
}

#[rstest]
#[case::message(
    "{ message: answer, instead: { type: reply } }",
    None,
    r#"{"type":"reply","n":7}"#,
    r#"{"type":"answer","n":7}"#
)]
#[case::message_under_another_member(
    "{ message: answer, instead: { kind: reply } }",
    None,
    r#"{"kind":"reply","n":7}"#,
    r#"{"type":"answer","n":7}"#
)]
#[case::value(
    "{ member: /type, value: answer, spelled: ANSWER }",
    None,
    r#"{"type":"ANSWER","n":7}"#,
    r#"{"type":"answer","n":7}"#
)]
#[case::member(
    "{ message: answer, member: /n, renamed: /number }",
    None,
    r#"{"type":"answer","number":7}"#,
    r#"{"type":"answer","n":7}"#
)]
#[case::discriminator(
    "{ member: /type, renamed: /kind }",
    Some(r#"{"n":7,"kind":"ask"}"#),
    r#"{"kind":"answer","n":7}"#,
    r#"{"type":"answer","n":7}"#
)]
#[case::missing(
    "{ message: answer, member: /n, missing: true, assume: 1 }",
    None,
    r#"{"type":"answer"}"#,
    r#"{"type":"answer","n":7}"#
)]
#[case::converted(
    "{ message: answer, member: /n, from_hub: \"${value | int}\" }",
    None,
    r#"{"type":"answer","n":"7"}"#,
    r#"{"type":"answer","n":7}"#
)]
#[case::renamed_in_items(
    "{ message: answer, member: /all/*/id, renamed: /all/*/ref }",
    None,
    r#"{"type":"answer","n":7,"all":[{"ref":1},{"ref":2}]}"#,
    r#"{"type":"answer","n":7,"all":[{"id":1},{"id":2}]}"#
)]
#[case::spelled_in_items(
    "{ member: /all/*, value: one, spelled: ONE }",
    None,
    r#"{"type":"answer","n":7,"all":["two","ONE"]}"#,
    r#"{"type":"answer","n":7,"all":["two","one"]}"#
)]
#[case::missing_in_items(
    "{ message: answer, member: /all/*/id, missing: true, assume: 1 }",
    None,
    r#"{"type":"answer","n":7,"all":[{}]}"#,
    r#"{"type":"answer","n":7,"all":[{"id":2}]}"#
)]
#[case::converted_in_items(
    "{ message: answer, member: /all/*/id, from_hub: \"${value | int}\" }",
    None,
    r#"{"type":"answer","n":7,"all":[{"id":"1"},{}]}"#,
    r#"{"type":"answer","n":7,"all":[{"id":1},{}]}"#
)]
fn received_messages_are_translated_to_the_documented_form(
    #[case] entry: &str,
    #[case] wants: Option<&str>,
    #[case] answers: &str,
    #[case] documented: &str,
) {
    let entry = entry.replacen('{', "[{ reason: as it is,", 1) + "]";
    let report = play_deviating(&entry, PLAIN_ROLES, ASKING_SCENARIO, hub_that_understands(wants, answers));
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.checks);
    let own = report.checks.iter().find(|check| check.name == "deviation:1").unwrap();
    assert_eq!((own.verdict, own.known_reason()), (Verdict::Fail, Some("as it is")));
    let seen = report.deviations[&0];
    assert!((seen.observed, seen.contradicted) == (1, 0), "{seen:?}");
    // A hub that follows its document makes the entry stale.
    let report = play_deviating(&entry, PLAIN_ROLES, ASKING_SCENARIO, hub_that_understands(None, documented));
    let seen = report.deviations[&0];
    assert!((seen.observed, seen.contradicted) == (0, 1), "{seen:?}");
    assert!(report.checks.iter().all(|check| check.deviation.is_none()), "{:#?}", report.checks);
}

#[rstest]
#[case::member("{ message: ask, member: /n, renamed: /number }", r#"{"type":"ask","number":7}"#)]
#[case::message("{ message: ask, instead: { type: question } }", r#"{"type":"question","n":7}"#)]
#[case::value("{ member: /type, value: ask, spelled: ASK }", r#"{"type":"ASK","n":7}"#)]
#[case::missing("{ message: ask, member: /n, missing: true }", r#"{"type":"ask"}"#)]
#[case::added("{ message: ask, member: /trace, added: x }", r#"{"type":"ask","n":7,"trace":"x"}"#)]
#[case::converted("{ message: ask, member: /n, to_hub: \"${value | string}\" }", r#"{"type":"ask","n":"7"}"#)]
#[case::undocumented_value("{ member: /n, value: 8, spelled: 7 }", r#"{"type":"ask","n":8}"#)]
#[case::only_received("{ member: /n, value: 7, spelled: 8, direction: from-hub }", r#"{"type":"ask","n":7}"#)]
fn sent_messages_are_translated_to_the_hubs_form(#[case] entry: &str, #[case] wants: &str) {
    let entry = entry.replacen('{', "[{ reason: as it is,", 1) + "]";
    let report = play_deviating(
        &entry,
        PLAIN_ROLES,
        ASKING_SCENARIO,
        hub_that_understands(Some(wants), r#"{"type":"answer","n":1}"#),
    );
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.history);
    // Raw texts are sent in this form, too, unless they have a member twice.
    let raw = |text: &str| {
        ASKING_SCENARIO.replace("sends: ask\n    with: { n: 7 }", &format!("sends raw: {{ text: '{text}' }}"))
    };
    let report = play_deviating(
        &entry,
        PLAIN_ROLES,
        &raw(r#"{"type":"ask","n":7}"#),
        hub_that_understands(Some(wants), r#"{"type":"answer","n":1}"#),
    );
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.history);
    let twice = r#"{"type":"ask","n":7,"n":7}"#;
    let report = play_deviating(
        &entry,
        PLAIN_ROLES,
        &raw(twice),
        hub_that_understands(Some(twice), r#"{"type":"answer","n":1}"#),
    );
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.history);
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
    let report =
        play_deviating(entry, PLAIN_ROLES, ASKING_SCENARIO, hub_that_understands(None, r#"{"type":"answer","n":"7"}"#));
    assert_eq!(known_reason(&report, "MUST-2").as_deref(), Some("a text"), "{:#?}", report.checks);
    // Other mistakes in the message are not part of the deviation.
    let scenario = ASKING_SCENARIO.replace("/n: { type: integer }", "/n: { type: integer }, /m: true");
    let report =
        play_deviating(entry, PLAIN_ROLES, &scenario, hub_that_understands(None, r#"{"type":"answer","n":"7"}"#));
    assert_eq!(
        (worst_verdict(&report, "MUST-2"), known_reason(&report, "MUST-2")),
        (Verdict::Fail, None),
        "{:#?}",
        report.checks
    );
    // An entry may name more rules.
    let entry = "[{ reason: a reply, rules: [MUST], message: answer, instead: { type: reply } }]";
    let report =
        play_deviating(entry, PLAIN_ROLES, ASKING_SCENARIO, hub_that_understands(None, r#"{"type":"reply","n":7}"#));
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
    let report =
        play_deviating(entry, PLAIN_ROLES, &scenario, hub_that_understands(None, r#"{"type":"answer","n":7}"#));
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.checks);
}

#[rstest]
#[case::of_the_message("${message.m + 1}", "6")]
#[case::of_the_time("${now_ms() // 1000 - now_s() + 6}", "6")]
#[case::that_fails("${message.other + 1}", "null")]
fn a_missing_member_is_assumed_by_an_expression(#[case] assume: &str, #[case] n: &str) {
    let entry = format!("[{{ reason: none, message: answer, member: /n, missing: true, assume: \"{assume}\" }}]");
    let scenario = ASKING_SCENARIO.replace("{ type: integer }", &format!("{{ const: {n} }}"));
    let report =
        play_deviating(&entry, PLAIN_ROLES, &scenario, hub_that_understands(None, r#"{"type":"answer","m":5}"#));
    assert_eq!(known_reason(&report, "MUST-2").as_deref(), Some("none"), "{:#?}", report.checks);
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.checks);
}

/// The hub's form of an answer whose documented form is `{ type: answer, count: 7, state: done, data: { id: a, note: b
/// } }`.
#[rstest]
#[case::another_name(
    r#"{"type":"reply","count":7,"state":"done","data":{"id":"a"}}"#,
    json!({ "message": "answer", "instead": { "type": "reply" } })
)]
// The message is not an answer, but a misspelt notice.
#[case::another_message(
    r#"{"type":"notise","count":7,"data":{"id":"a"}}"#,
    json!({ "message": "notice", "instead": { "type": "notise" } })
)]
#[case::renamed_member(
    r#"{"type":"answer","counted":7,"state":"done","data":{"id":"a"}}"#,
    // No message of this hub has the documented name.
    json!({ "member": "/count", "renamed": "/counted" })
)]
#[case::renamed_member_in_an_object(
    r#"{"type":"answer","count":7,"state":"done","data":{"answerId":"a"}}"#,
    json!({ "message": "answer", "member": "/data/id", "renamed": "/data/answerId" })
)]
#[case::renamed_member_in_items(
    r#"{"type":"answer","count":7,"state":"done","data":{"id":"a"},"parts":[{"size":3,"partNo":1}]}"#,
    json!({ "message": "answer", "member": "/parts/*/part_no", "renamed": "/parts/*/partNo" })
)]
#[case::retyped_member(
    r#"{"type":"answer","count":"7","state":"done","data":{"id":"a"}}"#,
    json!({ "message": "answer", "member": "/count", "from_hub": "${value | int}", "to_hub": "${value | string}" })
)]
#[case::retyped_member_with_a_fraction(
    r#"{"type":"answer","count":7,"state":"done","data":{"id":"a"},"load":"3"}"#,
    json!({ "message": "answer", "member": "/load", "from_hub": "${value | float}", "to_hub": "${value | string}" })
)]
#[case::retyped_member_in_an_object(
    r#"{"type":"answer","count":7,"state":"done","data":{"id":5}}"#,
    json!({ "message": "answer", "member": "/data/id", "from_hub": "${value | string}", "to_hub": "${value | int}" })
)]
#[case::missing_member(
    r#"{"type":"answer","state":"done","data":{"id":"a"}}"#,
    json!({ "message": "answer", "member": "/count", "missing": true })
)]
#[case::value(
    r#"{"type":"answer","count":7,"state":"DONE","data":{"id":"a"}}"#,
    json!({ "message": "answer", "member": "/state", "value": "done", "spelled": "DONE" })
)]
// An object whose members are not documented may have any.
#[case::other_members_of_an_open_object(
    r#"{"type":"answer","count":7,"state":"done","data":{"id":"a"},"open":{"other":"c"}}"#,
    Value::Null
)]
// It is not a spelling of any documented value.
#[case::other_value(r#"{"type":"answer","count":7,"state":"lost","data":{"id":"a"}}"#, Value::Null)]
fn an_unexpected_answer_leads_to_a_proposed_deviation(#[case] received: &'static str, #[case] entry: Value) {
    assert_eq!(proposed_entries(&[received]), if entry.is_null() { json!([]) } else { json!([entry]) });
}

/// Any value may stand for the only documented one, unless the hub uses that, too.
#[rstest]
#[case::another_word(
    &[r#"{"type":"answer","only":"failure"}"#],
    json!([{ "message": "answer", "member": "/only", "value": "success", "spelled": "failure" }])
)]
#[case::both_words(&[r#"{"type":"answer","only":"success"}"#, r#"{"type":"answer","only":"failure"}"#], json!([]))]
fn the_only_documented_value_may_be_another_word(#[case] texts: &[&str], #[case] entries: Value) {
    let payload = "{ properties: { only: { const: success } }, examples: [ { type: answer, only: success } ] }";
    let document = |text: &str| text.replace("{ examples: [ { type: answer } ] }", payload);
    let hub = |input: &HubInput<'_>| match input.text {
        Some(_) => texts.iter().map(|sent| (0, input.connection, text_received(*sent))).collect(),
        None => Vec::new(),
    };
    let waits = format!("count: {}", texts.len());
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: answer\n    {waits}\n"
    );
    assert_eq!(without_reasons(proposed_deviations(document, &scenario, hub)), entries);
}

/// A hub that uses the documented name in another message has renamed the member only in this one.
#[test]
fn a_member_documented_elsewhere_is_renamed_in_one_message_only() {
    let found = proposed_entries(&[
        r#"{"type":"notice","count":7}"#,
        r#"{"type":"answer","counted":7,"state":"done","data":{"id":"a"}}"#,
    ]);
    assert_eq!(found, json!([{ "message": "answer", "member": "/count", "renamed": "/counted" }]));
}

/// All renamed members show at once, even if no step needs them. A missing member may be a mistake.
#[rstest]
#[case::names(
    r#"{"type":"answer","theCount":7,"Data":{"id":"a"}}"#,
    json!([{ "member": "/data", "renamed": "/Data" }, { "member": "/count", "renamed": "/theCount" }])
)]
#[case::missing(r#"{"type":"answer","data":{"id":"a"}}"#, json!([]))]
// An optional member is absent, and another has a similar name.
#[case::similar(r#"{"type":"answer","data":{"id":"a"},"status":"done"}"#, json!([]))]
#[case::no_violation(r#"{"type":"answer","count":7,"data":{"id":"a"},"status":"done"}"#, json!([]))]
fn renamed_members_are_proposed_even_if_no_step_needs_them(#[case] received: &'static str, #[case] entries: Value) {
    assert_eq!(proposed_entries_for("", &[received]), entries);
}

/// In this document `answer` and `notice` have the same type and different codes.
#[rstest]
#[case::of_all(&[r#"{"type":"REPLY","code":"ok"}"#], json!([{ "member": "/type", "value": "reply", "spelled": "REPLY" }]))]
#[case::of_one(
    &[r#"{"type":"reply","code":"note"}"#, r#"{"type":"REPLY","code":"ok"}"#],
    json!([{ "message": "answer", "instead": { "type": "REPLY", "code": "ok" } }])
)]
fn a_word_shared_by_several_messages_is_respelled_in_all_of_them(
    #[case] texts: &[&str],
    #[case] entries: Value,
    #[values("expects: answer", "expects one of: [ { message: answer }, { message: tick } ]")] step: &str,
) {
    let document = |text: &str| {
        let text = text.replace("{ type: answer }", "{ type: reply, code: ok }");
        text.replace("{ type: notice }", "{ type: reply, code: note }")
    };
    let hub = |input: &HubInput<'_>| match input.text {
        Some(_) => texts.iter().map(|sent| (0, input.connection, text_received(*sent))).collect(),
        None => Vec::new(),
    };
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna {step}\n"
    );
    assert_eq!(without_reasons(proposed_deviations(document, &scenario, hub)), entries);
}

/// An answer of one kind in another spelling is not an answer of a special kind with another code.
#[test]
fn a_message_that_differs_only_in_spelling_is_preferred() {
    let document = |text: &str| {
        let text = text.replace("{ type: answer }", "{ type: fault, code: auth }");
        text.replace("{ type: notice }", "{ type: fault }")
    };
    let hub = |input: &HubInput<'_>| match input.text {
        Some(_) => vec![(0, input.connection, text_received(r#"{"type":"FAULT","code":"other"}"#))],
        None => Vec::new(),
    };
    let scenario =
        "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: answer\n";
    let entries = json!([{ "member": "/type", "value": "fault", "spelled": "FAULT" }]);
    assert_eq!(without_reasons(proposed_deviations(document, scenario, hub)), entries);
}

/// A member missing in every message is one deviation; a renamed member is not missing.
#[rstest]
#[case::missing(r#"{"type":"answer"}"#, r#"{"type":"notice","other":1}"#, json!([{ "member": "/count", "missing": true, "direction": "from-hub" }]))]
#[case::sent_by_one(r#"{"type":"answer","count":7}"#, r#"{"type":"notice"}"#, json!([]))]
#[case::renamed(r#"{"type":"answer","Count":7}"#, r#"{"type":"notice","Count":7}"#, json!([{ "member": "/count", "renamed": "/Count" }]))]
fn a_member_never_sent_is_proposed_as_missing_in_all_messages(
    #[case] answer: &str,
    #[case] notice: &str,
    #[case] entries: Value,
) {
    let counts = |name: &str| {
        format!("{{ required: [count], properties: {{ count: true }}, examples: [ {{ type: {name}, count: 7 }} ] }}")
    };
    let document = |text: &str| {
        let text = text.replace("{ examples: [ { type: answer } ] }", &counts("answer"));
        text.replace("{ examples: [ { type: notice } ] }", &counts("notice"))
    };
    let hub = |input: &HubInput<'_>| match input.text {
        Some(_) => vec![(0, input.connection, text_received(answer)), (0, input.connection, text_received(notice))],
        None => Vec::new(),
    };
    let scenario =
        "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: answer
  - anna expects: notice\n";
    assert_eq!(without_reasons(proposed_deviations(document, scenario, hub)), entries);
}

/// A member that only a check requires, not the schema.
#[rstest]
#[case::renamed(r#"{"type":"tick","turnNo":5}"#, json!([{ "member": "/turn_no", "renamed": "/turnNo", "rules": ["MUST"] }]))]
#[case::in_an_object(
    r#"{"type":"tick","turn_no":5,"in":{"theTurn":5}}"#,
    json!([{ "message": "tick", "member": "/in/the_turn", "renamed": "/in/theTurn", "rules": ["MUST-2"] }])
)]
#[case::absent(r#"{"type":"tick","another":5}"#, json!([]))]
#[case::there(r#"{"type":"tick","turn_no":6,"turnNo":5}"#, json!([]))]
fn a_renamed_member_that_a_check_needs_is_proposed(#[case] received: &str, #[case] entries: Value) {
    let hub = |input: &HubInput<'_>| match input.text {
        Some(_) => vec![(0, input.connection, text_received(received))],
        None => Vec::new(),
    };
    let scenario =
        "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: any
    has: { MUST: { turn_no: 5 }, MUST-2: { /in: true, /in/the_turn: true } }\n";
    assert_eq!(without_reasons(proposed_deviations(str::to_owned, scenario, hub)), entries);
}

/// Returns the entries that are proposed for a hub that answers with these texts.
fn proposed_entries(texts: &[&str]) -> Value {
    proposed_entries_for(
        "where: { count: 7, state: done, /data/id: { const: a }, /open/note or absent: { const: b } }",
        texts,
    )
}

/// Returns the entries that are proposed if a client expects an answer in this way.
fn proposed_entries_for(awaits: &str, texts: &[&str]) -> Value {
    let payload = "payload: { type: object, required: [type, count, data], \
        properties: { count: { type: integer }, load: { type: number }, state: { enum: [queued, active, done] }, open: { type: object }, \
        parts: { items: { required: [size, part_no], properties: { size: true, part_no: { type: integer } } } }, \
        data: { type: object, required: [id], properties: { id: { type: string } } } }, \
        examples: [ { type: answer, count: 7, load: 3, state: done, data: { id: a }, open: { note: b }, parts: [ { size: 3, part_no: 1 } ] } ] }";
    let document = |text: &str| text.replace("payload: { examples: [ { type: answer } ] }", payload);
    let scenario = format!(
        "title: T
actors: {{ anna: client }}
steps:
  - anna joins:
  - anna sends: ask
  - anna expects: answer
    {awaits}
"
    );
    let hub = |input: &HubInput<'_>| match input.text {
        Some(_) => texts.iter().map(|sent| (0, input.connection, text_received(*sent))).collect(),
        None => Vec::new(),
    };
    without_reasons(proposed_deviations(document, &scenario, hub))
}

fn without_reasons(mut entries: Vec<Value>) -> Value {
    entries.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| {
        entry.remove("reason");
    });
    Value::from(entries)
}

/// In this document, a `notice` is only sent as an answer, and a `tick` unsolicited.
#[rstest]
#[case::another_answer(r#"{"type":"notice"}"#, json!([]))]
#[case::something_unasked(
    r#"{"type":"tick"}"#,
    json!([{ "message": "answer", "absent": true, "after": "ask" }])
)]
fn a_message_is_proposed_as_absent_only_without_another_answer(#[case] sent: &str, #[case] entries: Value) {
    let notice = "      - { $ref: '#/channels/hub/messages/notice' }\n";
    let receives = "messages: [ { $ref: '#/channels/hub/messages/ask' } ] }";
    let replies = "messages: [ { $ref: '#/channels/hub/messages/ask' } ], \
        reply: { channel: { $ref: '#/channels/hub' }, messages: [ { $ref: '#/channels/hub/messages/notice' } ] } }";
    let document = |text: &str| text.replace(notice, "").replace(receives, replies);
    let hub = |input: &HubInput<'_>| match input.text {
        Some(_) => vec![(0, input.connection, text_received(sent))],
        None => Vec::new(),
    };
    let scenario =
        "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: answer\n";
    assert_eq!(without_reasons(proposed_deviations(document, scenario, hub)), entries);
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
    let report = play_deviating(
        entries,
        PLAIN_ROLES,
        ASKING_SCENARIO,
        hub_that_understands(None, r#"{"type":"reply","n":"7"}"#),
    );
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
    let report =
        play_deviating(entry, PLAIN_ROLES, &scenario, hub_that_understands(None, r#"{"type":"answer","m":5}"#));
    assert_eq!(worst_verdict(&report, "MUST"), verdict, "{:#?}", report.checks);
}
