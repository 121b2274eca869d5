//! Verdicts of the interpreter: each case is a short scenario, a scripted hub, and the expected verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use hubproof::outcome::Verdict;
use hubproof::websocket::frame::ConnectionEvent;
use rstest::rstest;
use serde::Deserialize;

use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, answering_hub, mini_pack_diagnostics, mini_scenario_diagnostics, play,
    play_changed, play_late, text_received, worst_verdict,
};

#[derive(Deserialize)]
struct VerdictGroup {
    about: String,
    #[serde(default)]
    shared: String,
    steps: String,
    #[serde(default)]
    joined: Vec<(u64, String)>,
    answer: Option<String>,
    late: Option<u64>,
    cases: BTreeMap<String, (String, String)>,
}

#[test]
fn a_scenario_has_the_verdict_of_the_table() {
    let mut table: BTreeMap<String, Vec<VerdictGroup>> =
        toml::from_str(include_str!("../fixtures/verdicts.toml")).unwrap();
    for group in table.remove("group").unwrap() {
        let shared = format!("{PLAIN_ROLES}{}\n", group.shared);
        for (name, (expected, steps)) in &group.cases {
            let scenario = format!("title: T\nactors: {{ anna: client }}\nsteps:\n{}{steps}", group.steps);
            for late in [0].into_iter().chain(group.late) {
                let report = play_late(Duration::from_millis(late), &shared, &scenario, |input| {
                    let send = |at, text: &String| (at, input.connection, text_received(text));
                    match input.text {
                        None => group.joined.iter().map(|(at, text)| send(*at, text)).collect(),
                        Some(_) => group.answer.iter().map(|text| send(0, text)).collect(),
                    }
                });
                let verdict = worst_verdict(&report, "MUST").name();
                assert_eq!(verdict, expected, "{name}, {late}: {}: {:#?}", group.about, report.checks);
            }
        }
    }
}

/// Sends every connection the same number, twice.
fn send_number_twice(input: &HubInput<'_>) -> HubActions {
    let notice = || text_received(r#"{"type":"notice","n":1}"#);
    match input.text {
        None => vec![(1, input.connection, notice()), (1, input.connection, notice())],
        Some(_) => vec![(0, input.connection, text_received(r#"{"type":"answer"}"#))],
    }
}

#[rstest]
#[case::new_in_every_round(
    "  - each: i\n    in: 2\n    do:\n      - anna joins:\n      - anna expects: notice\n        count: 2\n"
)]
#[case::connects_again(
    "  - anna joins:\n  - anna expects: notice\n    count: 2\n  - anna closes: 1000\n  - anna connects: /quiet\n"
)]
fn always_judges_every_connection_an_actor_ever_had(#[case] steps: &str) {
    let shared = format!(
        "{PLAIN_ROLES}always:\n  - check: \"${{frames('notice') | map(attribute='n')}}\"\n    fits: {{ uniqueItems: true }}\n    rules: [MUST]\n"
    );
    let scenario = format!("title: T\nactors: {{ anna: client }}\nsteps:\n{steps}");
    let mut times = 0;
    let report = play(&shared, &scenario, |input| {
        times += 1;
        // The last connection receives no number: that must not hide the numbers of the first.
        if times == 1 { send_number_twice(input) } else { answering_hub(r#"{"type":"notice"}"#)(input) }
    });
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Fail, "{:#?}", report.checks);
}

/// Returns a scenario with these steps, in which anna and a crowd of three have joined.
fn crowd_scenario(steps: &str) -> String {
    format!(
        "title: T\nactors: {{ anna: client, crowd: {{ role: client, count: 3 }} }}\nsteps:\n  - anna joins:\n  - crowd join:\n{steps}"
    )
}

/// Sends each member of the crowd (connections 1 to 3) a number, after its time.
fn crowd_hub(times: [Option<u64>; 3]) -> impl FnMut(&HubInput<'_>) -> HubActions {
    move |input| match (input.text, input.connection) {
        (None, c @ 1..=3) => {
            let notice = text_received(format!(r#"{{"type":"notice","n":{c}}}"#));
            times[c as usize - 1].map(|time| (time, c, notice)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

#[rstest]
#[case::every_detail_is_judged("at least 2", [Some(1), Some(2), None], Verdict::Pass, Verdict::Fail)]
#[case::under_exactly_too("exactly 2", [Some(1), Some(2), None], Verdict::Pass, Verdict::Fail)]
#[case::and_under_at_most("at most 2", [Some(1), Some(2), None], Verdict::Pass, Verdict::Fail)]
#[case::right_details_hold("exactly 1", [Some(1), None, None], Verdict::Pass, Verdict::Pass)]
#[case::nothing_to_judge("at most 2", [None, None, None], Verdict::Pass, Verdict::NotTestable)]
#[case::too_many("exactly 1", [Some(1), Some(2), None], Verdict::Fail, Verdict::Inconclusive)]
#[case::too_few("at least 2", [Some(1), None, None], Verdict::Fail, Verdict::Inconclusive)]
#[case::missing_members_have_the_patience("at least 1", [Some(3000), None, None], Verdict::Pass, Verdict::Pass)]
#[case::under_exactly_as_well("exactly 1", [Some(3000), None, None], Verdict::Pass, Verdict::Pass)]
#[case::but_not_for_ever("at least 1", [Some(6000), None, None], Verdict::Fail, Verdict::Inconclusive)]
fn every_frame_received_by_a_number_of_actors_is_checked(
    #[case] number: &str,
    #[case] times: [Option<u64>; 3],
    #[case] came: Verdict,
    #[case] is_right: Verdict,
) {
    let steps = format!(
        "  - {number} of crowd expect: notice\n    for: 500ms\n    rules: [MUST]\n    has: {{ MUST-2: {{ n: 1 }} }}\n"
    );
    let report = play(PLAIN_ROLES, &crowd_scenario(&steps), crowd_hub(times));
    assert_eq!(
        (worst_verdict(&report, "MUST"), worst_verdict(&report, "MUST-2")),
        (came, is_right),
        "{:#?}",
        report.checks
    );
}

/// A slow hub that works off its messages in order is not late with what stands behind many others, since the document
/// states no time.
#[rstest]
#[case::behind_others(2000, 6000, 6000, Verdict::Pass)]
#[case::of_a_quick_hub(100, 6000, 6000, Verdict::Fail)]
#[case::behind_nothing(2000, 6000, 0, Verdict::Fail)]
#[case::for_ever(2000, 20_000, 20_000, Verdict::Fail)]
fn what_comes_behind_other_messages_is_not_late(
    #[case] first: u64,
    #[case] second: u64,
    #[case] notices_until: u64,
    #[case] expected: Verdict,
) {
    let asks = "  - anna sends: ask\n  - anna expects: answer\n";
    let scenario =
        format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n{asks}{asks}    rules: [MUST]\n");
    let mut times = [first, second].into_iter();
    let hub = |input: &HubInput<'_>| {
        let send = |at, text| (at, input.connection, text_received(text));
        let Some(at) = input.text.and_then(|_| times.next()) else { return Vec::new() };
        let notices = (0..notices_until).step_by(300).map(|at| send(at, r#"{"type":"notice"}"#));
        notices.chain([send(at, r#"{"type":"answer"}"#)]).collect()
    };
    let report = play(PLAIN_ROLES, &scenario, hub);
    assert_eq!(worst_verdict(&report, "MUST"), expected, "{:#?}", report.checks);
}

/// A wrong type that the scenario itself sent is a mistake of the scenario.
#[test]
fn a_wrong_type_from_the_scenario_is_a_scenario_mistake() {
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n    with: { n: seven }\n    as: sent\n  - check: \"${sent.n + 1}\"\n    fits: true\n    rules: [MUST]\n";
    let report = play(PLAIN_ROLES, scenario, |_| Vec::new());
    assert!(report.mistake.is_some(), "{:#?}", report.checks);
}

#[test]
fn a_reaction_that_cannot_be_evaluated_is_inconclusive() {
    let shared = "reactions:\n  echo: { whenever: notice, as: came, do: [ { sends: ask, with: { n: \"${came.n + 1}\" } } ] }\nroles: { client: { opening: [ { connects: } ], reacts: [echo] } }\n";
    let scenario =
        "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna expects: notice\n    rules: [MUST]\n";
    let report = play(shared, scenario, |input| match input.text {
        None => vec![(1, input.connection, text_received(r#"{"type":"notice","n":"seven"}"#))],
        Some(_) => Vec::new(),
    });
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass);
    assert_eq!(report.verdict, Verdict::Inconclusive, "{:#?}", report.checks);
}

#[rstest]
#[case("${unkown[:4]}", "no name `unkown` is in scope")]
#[case("${sha256(unkown)[:4]}", "no name `unkown` is in scope")]
#[case("${'abc'[unkown:]}", "no name `unkown` is in scope")]
#[case("${known[:4]}", "")]
fn names_in_slices_are_checked_to_be_in_scope(#[case] expression: &str, #[case] complaint: &str) {
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nlet: {{ known: abcdef, cut: \"{expression}\" }}\nsteps:\n  - anna joins:\n"
    );
    let found = mini_scenario_diagnostics(PLAIN_ROLES, &scenario);
    assert!(if complaint.is_empty() { found.is_empty() } else { found.contains(complaint) }, "{found}");
}

#[test]
fn expecting_a_close_does_not_allow_an_actor_count() {
    let found = mini_scenario_diagnostics(
        PLAIN_ROLES,
        &crowd_scenario("  - at least 1 of crowd expect close: any\n    rules: [MUST]\n"),
    );
    assert!(found.contains("this step cannot count actors"), "{found}");
}

/// If the pack allows NaN, it is read as null; otherwise it is not JSON.
#[rstest]
#[case("numbers: [NaN]", Verdict::Pass)]
#[case("numbers: [Infinity]", Verdict::Fail)]
#[case("connections: 3", Verdict::Fail)]
fn nan_and_infinity_are_accepted_only_where_the_pack_allows_them(#[case] extension: &str, #[case] expected: Verdict) {
    let shared =
        format!("{PLAIN_ROLES}always:\n  - every: frame\n    has: {{ MUST: {{ /json: {{ type: object }} }} }}\n");
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: any\n    rules: [MUST-2]\n";
    let hub = answering_hub(r#"{"type":"answer","n":NaN}"#);
    let report = play_changed(|pack| format!("{pack}x-hubproof: {{ {extension} }}\n"), &shared, scenario, hub);
    assert_eq!(worst_verdict(&report, "MUST"), expected, "{:#?}", report.checks);
    assert_eq!(worst_verdict(&report, "MUST-2"), Verdict::Pass, "a frame was received");
}

#[rstest]
#[case(400, Verdict::Fail)]
#[case(600, Verdict::Pass)]
fn a_close_after_the_window_does_not_count(#[case] time: u64, #[case] expected: Verdict) {
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna expects nothing: notice\n    for: 500ms\n    rules: [MUST]\n";
    let report = play_late(Duration::from_millis(300), PLAIN_ROLES, scenario, |input| {
        vec![(time, input.connection, ConnectionEvent::Close { code: Some(1000), reason: String::new() })]
    });
    assert_eq!(worst_verdict(&report, "MUST"), expected, "{:#?}", report.checks);
}

/// Repeating an attempt does not undo findings of `always` on frames received in it.
#[test]
fn repeating_an_attempt_keeps_the_findings_of_always() {
    let shared = format!("{PLAIN_ROLES}always:\n  - every: notice\n    has: {{ MUST: {{ n: 1 }} }}\n");
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - retry: 3s\n    do:\n      - anna sends: ask\n      - anna expects: answer\n        within: 500ms\n    rules: [MUST-2]\n";
    let mut asked = 0;
    let report = play(&shared, scenario, |input| {
        asked += usize::from(input.text.is_some());
        let sent = match (input.text, asked) {
            (None, _) => return Vec::new(),
            (_, 1) => r#"{"type":"notice","n":2}"#,
            _ => r#"{"type":"answer"}"#,
        };
        vec![(0, input.connection, text_received(sent))]
    });
    assert_eq!(
        (worst_verdict(&report, "MUST-2"), worst_verdict(&report, "MUST")),
        (Verdict::Pass, Verdict::Fail),
        "{:#?}",
        report.checks
    );
}

/// `after` a group's frames is after the first of them, whichever actor received it.
#[test]
fn after_a_group_means_after_its_first_frame() {
    let steps =
        "  - crowd expect: notice\n    as: notices\n  - anna expects: answer\n    after: notices\n    rules: [MUST]\n";
    let report = play(PLAIN_ROLES, &crowd_scenario(steps), |input| match (input.text, input.connection) {
        (None, 0) => vec![(200, 0, text_received(r#"{"type":"answer"}"#))],
        (None, c) => vec![(400 - 100 * u64::from(c), c, text_received(r#"{"type":"notice"}"#))],
        _ => Vec::new(),
    });
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.checks);
}

/// If frames were dropped from a full inbox, a missing one is not decided.
#[test]
fn a_dropped_frame_may_have_been_any_message() {
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - wait: 1s\n    because: b\n  - anna expects: answer\n    rules: [MUST]\n";
    let report = play(PLAIN_ROLES, scenario, |input| {
        let notices = std::iter::repeat_n(r#"{"type":"notice"}"#, 10_000);
        let sent = std::iter::once(r#"{"type":"answer"}"#).chain(notices);
        if input.text.is_some() {
            Vec::new()
        } else {
            sent.map(|sent| (1, input.connection, text_received(sent))).collect()
        }
    });
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Inconclusive, "{:#?}", report.checks);
}

/// The texts of large replies to many clients fit into what hubproof keeps, so all of them are judged.
#[test]
fn large_replies_to_many_clients_are_kept() {
    let scenario = "title: T\nactors: { crowd: { role: client, count: 60 } }\nsteps:\n  - crowd join:\n  - crowd expect: notice\n    where: { last: true }\n    rules: [MUST]\n";
    let shared =
        format!("{PLAIN_ROLES}always:\n  - every: notice\n    has: {{ MUST-2: {{ /part: {{ type: number }} }} }}\n");
    let body = "x".repeat(80_000);
    let report = play(&shared, scenario, |input| {
        let sent =
            (0..10).map(|part| format!(r#"{{"type":"notice","part":{part},"last":{},"body":"{body}"}}"#, part == 9));
        if input.text.is_some() {
            Vec::new()
        } else {
            sent.map(|sent| (1, input.connection, text_received(sent))).collect()
        }
    });
    for rule in ["MUST", "MUST-2"] {
        assert_eq!(worst_verdict(&report, rule), Verdict::Pass, "{:#?}", report.checks);
    }
}

/// A check of `always` that got no frame of the hub has judged nothing.
#[rstest]
#[case::read_one("frames('notice')", Verdict::Pass)]
#[case::read_any("frames('any')", Verdict::Pass)]
#[case::read_none("frames('answer')", Verdict::NotTestable)]
#[case::read_what_clients_sent("sent_frames('ask')", Verdict::NotTestable)]
fn silence_proves_nothing(#[case] asked: &str, #[case] expected: Verdict) {
    let shared = format!(
        "{PLAIN_ROLES}always:\n  - check: \"${{{asked} | map(attribute='n') | list}}\"\n    fits: {{ uniqueItems: true }}\n    rules: [MUST]\n"
    );
    let scenario =
        "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: notice\n";
    let report = play(&shared, scenario, answering_hub(r#"{"type":"notice","n":1}"#));
    assert_eq!(worst_verdict(&report, "MUST"), expected, "{:#?}", report.checks);
}

/// A check of `always` is undecided only if frames that it asks for were dropped.
#[rstest]
#[case::others_were_dropped("frames('notice')", Verdict::Pass)]
#[case::these_were_dropped("frames('answer')", Verdict::Inconclusive)]
#[case::any_was_asked_for("frames('any')", Verdict::Inconclusive)]
fn a_dropped_frame_hides_only_the_message_that_it_was(#[case] asked: &str, #[case] expected: Verdict) {
    let shared = format!(
        "{PLAIN_ROLES}always:\n  - check: \"${{{asked} | map(attribute='type') | list}}\"\n    fits: {{ minItems: 1 }}\n    rules: [MUST]\n"
    );
    let scenario =
        "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna expects: notice\n    count: 3\n";
    let report = play(&shared, scenario, |input| {
        let answers = std::iter::repeat_n(r#"{"type":"answer"}"#, 10_000);
        let notices = std::iter::repeat_n(r#"{"type":"notice"}"#, 3);
        let all = answers.chain(notices).map(|text| (1, input.connection, text_received(text)));
        if input.text.is_some() { Vec::new() } else { all.collect() }
    });
    assert_eq!(worst_verdict(&report, "MUST"), expected, "{:#?}", report.checks);
}

/// The same holds for messages that were sent and are too large to be kept.
#[rstest]
#[case::others_were_dropped("sent_frames('tick')", Verdict::Pass)]
#[case::these_were_dropped("sent_frames('ask')", Verdict::Inconclusive)]
fn a_large_message_that_was_sent_hides_only_its_kind(#[case] asked: &str, #[case] expected: Verdict) {
    let shared = format!(
        "{PLAIN_ROLES}always:\n  - check: \"${{frames('answer') | length + {asked} | length}}\"\n    fits: {{ minimum: 1 }}\n    rules: [MUST]\n"
    );
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n    with: { /filler: \"${repeat('x', 17000000)}\" }\n  - anna expects: answer\n  - anna sends: ask\n  - anna expects: answer\n";
    let report = play(&shared, scenario, answering_hub(r#"{"type":"answer"}"#));
    assert_eq!(worst_verdict(&report, "MUST"), expected, "{:#?}", report.checks);
}

#[rstest]
#[case::nothing_to_try("  - retry: 5s\n    do: []\n    rules: [MUST]\n", "`retry` has no steps")]
#[case::nothing_to_open("  - idler joins:\n    rules: [MUST]\n", "this role has no opening")]
fn a_check_that_cannot_fail_is_refused(#[case] steps: &str, #[case] complaint: &str) {
    let shared = "roles: { client: { opening: [ { connects: } ] }, idler: {} }\n";
    let found = mini_scenario_diagnostics(
        shared,
        &format!("title: T\nactors: {{ anna: client, idler: idler }}\nsteps:\n  - anna joins:\n{steps}"),
    );
    assert!(found.contains(complaint), "{found}");
}

/// `within` is how long a listening actor waits for the hub to connect.
#[rstest]
#[case("", 5)]
#[case("    within: 2s\n", 2)]
fn a_listening_actor_waits_as_long_as_its_step_says(#[case] within: &str, #[case] seconds: u64) {
    let shared = "roles: { parent: { side: server } }\n";
    let scenario =
        format!("title: T\nactors: {{ anna: parent }}\nsteps:\n  - anna accepts:\n{within}    rules: [MUST]\n");
    let report = play(shared, &scenario, |_| Vec::new());
    assert_eq!((worst_verdict(&report, "MUST"), report.duration), (Verdict::Fail, Duration::from_secs(seconds)));
}

/// The `x-hubproof` extension of a document is checked.
#[rstest]
#[case("connections: 0", "`connections` must be a whole number from 1 to 1000000")]
#[case("connection: 5", "`x-hubproof` has no key `connection`")]
#[case("numbers: [nan]", "an entry of `numbers` cannot be `nan`")]
#[case("connections: 40", "")]
fn mistakes_in_the_x_hubproof_extension_are_reported(#[case] extension: &str, #[case] complaint: &str) {
    let found = mini_pack_diagnostics(|pack| format!("{pack}x-hubproof: {{ {extension} }}\n"));
    assert!(if complaint.is_empty() { found.is_empty() } else { found.contains(complaint) }, "{found}");
}

/// A difference from a schema reads like one from a matcher.
#[rstest]
#[case("[1]", "{ items: { const: x } }", r#"expected "x", found 1 at /0"#)]
#[case("[1]", "{ items: { type: [string, 'null'] } }", "expected type string or null, found 1 at /0")]
#[case("{'a': {}}", "{ properties: { a: { required: [b] } } }", "expected a member `b`, found no such member at /a")]
#[case("3", "{ enum: [1, 2] }", "expected one of [1,2], found 3")]
#[case("3", "{ minimum: 4.5 }", "expected minimum 4.5, found 3")]
#[case("['a', 'a']", "{ uniqueItems: true }", r#"expected uniqueItems true, found ["a","a"]"#)]
fn a_difference_from_a_schema_says_what_was_expected_and_found(
    #[case] value: &str,
    #[case] schema: &str,
    #[case] expected: &str,
) {
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - check: \"${{{value}}}\"\n    fits: {schema}\n    rules: [MUST]\n"
    );
    let report = play(PLAIN_ROLES, &scenario, |_| HubActions::new());
    assert_eq!(report.checks[0].message, expected);
}

/// A refused upgrade, or a documented message that says so, in place of what a step expects.
#[rstest]
#[case::documented(r#"{"type":"error_authentication"}"#, true)]
#[case::other(r#"{"type":"notice"}"#, false)]
fn refused_credentials_are_recognised(#[case] says: &'static str, #[case] expected: bool) {
    let rename = |document: &str| document.replace("tick", "error_authentication");
    let scenario =
        "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: answer\n";
    let report = play_changed(rename, PLAIN_ROLES, scenario, answering_hub(says));
    assert_eq!(report.cause.unwrap().unauthenticated, expected);
}
