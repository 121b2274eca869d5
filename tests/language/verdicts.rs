//! What the judge makes of what a hub does: each case is a scenario of a few lines, a hub of a few more, and a verdict.

use std::time::Duration;

use hubproof::event::Verdict;
use hubproof::websocket::frame::Received;
use rstest::rstest;

use crate::support::mini_protocol::{
    Deeds, Heard, PLAIN, answers, complaints, complaints_of_pack, of, play, play_changed, play_late, text,
};

/// Every connection is told the same number, twice.
fn repeats_itself(heard: &Heard<'_>) -> Deeds {
    let notice = || text(r#"{"type":"notice","n":1}"#);
    match heard.text {
        None => vec![(1, heard.connection, notice()), (1, heard.connection, notice())],
        Some(_) => vec![(0, heard.connection, text(r#"{"type":"answer"}"#))],
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
        "{PLAIN}always:\n  - check: \"${{frames('notice') | map(attribute='n')}}\"\n    fits: {{ uniqueItems: true }}\n    rules: [MUST]\n"
    );
    let scenario = format!("title: T\nactors: {{ anna: client }}\nsteps:\n{steps}");
    let mut times = 0;
    let report = play(&shared, &scenario, |heard| {
        times += 1;
        // The last connection is told nothing at all: it must not hide what the first was told.
        if times == 1 { repeats_itself(heard) } else { answers(r#"{"type":"notice"}"#)(heard) }
    });
    assert_eq!(of(&report, "MUST"), Verdict::Fail, "{:#?}", report.checks);
}

/// Steps for anna and a crowd of three that have joined, in a shared.yaml with nothing in it.
fn crowd(steps: &str) -> String {
    format!(
        "title: T\nactors: {{ anna: client, crowd: {{ role: client, count: 3 }} }}\nsteps:\n  - anna joins:\n  - crowd join:\n{steps}"
    )
}

/// Members of the crowd (connections 1 to 3) are told a number, each after its time.
fn tells(times: [Option<u64>; 3]) -> impl FnMut(&Heard<'_>) -> Deeds {
    move |heard| match (heard.text, heard.connection) {
        (None, c @ 1..=3) => {
            let notice = text(format!(r#"{{"type":"notice","n":{c}}}"#));
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
#[case::whoever_is_missing_has_patience("at least 1", [Some(3000), None, None], Verdict::Pass, Verdict::Pass)]
#[case::under_exactly_as_well("exactly 1", [Some(3000), None, None], Verdict::Pass, Verdict::Pass)]
#[case::but_not_for_ever("at least 1", [Some(6000), None, None], Verdict::Fail, Verdict::Inconclusive)]
fn a_number_of_a_group(
    #[case] number: &str,
    #[case] times: [Option<u64>; 3],
    #[case] came: Verdict,
    #[case] is_right: Verdict,
) {
    let steps = format!(
        "  - {number} of crowd expect: notice\n    for: 500ms\n    rules: [MUST]\n    has: {{ MUST-2: {{ n: 1 }} }}\n"
    );
    let report = play(PLAIN, &crowd(&steps), tells(times));
    assert_eq!((of(&report, "MUST"), of(&report, "MUST-2")), (came, is_right), "{:#?}", report.checks);
}

#[rstest]
#[case::a_step_that_cannot_be_played("      - check: \"${never.n}\"\n        rules: [MUST-2]\n", Verdict::NotTestable)]
#[case::deep_inside(
    "      - each: i\n        in: 2\n        do:\n          - anna sends: ask\n            with: { n: \"${never.n}\" }\n",
    Verdict::NotTestable
)]
#[case::one_that_if_passes_over("      - anna sends: ask\n        if: never\n      - anna sends: ask\n", Verdict::Pass)]
#[case::all_played("      - anna sends: ask\n      - anna expects: answer\n", Verdict::Pass)]
fn a_retry_holds_when_its_steps_were_played(#[case] inside: &str, #[case] expected: Verdict) {
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna expects one of:\n      - message: notice\n        as: never\n      - nothing:\n  - retry: 1s\n    do:\n{inside}    rules: [MUST]\n"
    );
    let report = play(PLAIN, &scenario, answers(r#"{"type":"answer"}"#));
    assert_eq!(of(&report, "MUST"), expected, "{:#?}", report.checks);
}

const NO_NUMBER: &str = r#"{"type":"answer","n":"seven","list":["a","b"]}"#;

/// What the hub said is no number where the scenario computes with one. That is never a mistake of the scenario.
#[rstest]
#[case::in_a_check("  - check: \"${came.n + 1}\"\n    fits: true\n    rules: [MUST]\n", Verdict::Fail)]
#[case::in_what_it_equals("  - check: \"${1}\"\n    equals: \"${came.n + 1}\"\n    rules: [MUST]\n", Verdict::Fail)]
#[case::by_each(
    "  - each: one\n    in: \"${came.list}\"\n    do:\n      - check: \"${one + 1}\"\n        fits: true\n        rules: [MUST]\n",
    Verdict::Fail
)]
#[case::by_each_that_computes(
    "  - each: one\n    in: \"${came.list | reverse | list}\"\n    do:\n      - check: \"${one + 1}\"\n        fits: true\n        rules: [MUST]\n",
    Verdict::Fail
)]
#[case::by_each_in_a_row(
    "  - each: one\n    in: [{ n: \"${came.n}\" }]\n    do:\n      - check: \"${one.n + 1}\"\n        fits: true\n        rules: [MUST]\n",
    Verdict::Fail
)]
#[case::by_either(
    "  - either: one\n    in: [\"${came.n}\"]\n    do:\n      - check: \"${one + 1}\"\n        fits: true\n        rules: [MUST]\n",
    Verdict::Fail
)]
#[case::in_the_number_of_rounds(
    "  - each: i\n    in: \"${came.n + 1}\"\n    do:\n      - check: \"${i}\"\n        fits: true\n        rules: [MUST]\n",
    Verdict::Inconclusive
)]
#[case::in_what_is_sent(
    "  - anna sends: ask\n    with: { n: \"${came.n + 1}\" }\n  - anna expects: answer\n    rules: [MUST]\n",
    Verdict::Inconclusive
)]
#[case::in_what_is_sent_raw(
    "  - anna sends raw: { text: \"${came.n + 1}\" }\n  - anna expects: answer\n    rules: [MUST]\n",
    Verdict::Inconclusive
)]
#[case::in_what_must_not_come(
    "  - anna expects nothing: notice\n    where: { n: \"${came.n + 1}\" }\n    rules: [MUST]\n",
    Verdict::Inconclusive
)]
#[case::in_a_time(
    "  - wait: \"${came.n + 1}s\"\n    because: b\n  - anna expects: answer\n    rules: [MUST]\n",
    Verdict::Inconclusive
)]
#[case::said_again_by_us(
    "  - anna sends: ask\n    with: { n: \"${came.n}\" }\n    as: sent\n  - check: \"${sent.n + 1}\"\n    fits: true\n    rules: [MUST]\n",
    Verdict::Fail
)]
fn what_the_hub_said_cannot_be_computed_with(#[case] steps: &str, #[case] expected: Verdict) {
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: answer\n    as: came\n{steps}"
    );
    let mut said = false;
    let report = play(PLAIN, &scenario, |heard| {
        let first = heard.text.is_some() && !std::mem::replace(&mut said, heard.text.is_some());
        first.then(|| (0, heard.connection, text(NO_NUMBER))).into_iter().collect()
    });
    assert_eq!(of(&report, "MUST"), expected, "{:#?}", report.checks);
}

/// And what we said ourselves is none of the hub's faults.
#[test]
fn what_we_said_cannot_be_computed_with() {
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n    with: { n: seven }\n    as: sent\n  - check: \"${sent.n + 1}\"\n    fits: true\n    rules: [MUST]\n";
    let report = play(PLAIN, scenario, |_| Vec::new());
    assert!(report.mistake.is_some(), "{:#?}", report.checks);
}

#[test]
fn a_reflex_that_cannot_be_done_is_nobodys_mistake() {
    let shared = "reactions:\n  echo: { whenever: notice, as: came, do: [ { sends: ask, with: { n: \"${came.n + 1}\" } } ] }\nroles: { client: { opening: [ { connects: } ], reacts: [echo] } }\n";
    let scenario =
        "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna expects: notice\n    rules: [MUST]\n";
    let report = play(shared, scenario, |heard| match heard.text {
        None => vec![(1, heard.connection, text(r#"{"type":"notice","n":"seven"}"#))],
        Some(_) => Vec::new(),
    });
    assert_eq!(of(&report, "MUST"), Verdict::Pass);
    assert_eq!(report.verdict, Verdict::Inconclusive, "{:#?}", report.checks);
}

/// `expects nothing` sees what is on the ignore list only under its own name.
#[rstest]
#[case("any", "tick", Verdict::Pass)]
#[case("any", "notice", Verdict::Fail)]
#[case("notice", "tick", Verdict::Pass)]
#[case("tick", "tick", Verdict::Fail)]
fn what_is_ignored_is_never_unexpected(#[case] unwanted: &str, #[case] said: &str, #[case] expected: Verdict) {
    let shared = format!("ignore: [tick]\n{PLAIN}");
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna expects nothing: {unwanted}\n    rules: [MUST]\n"
    );
    let report =
        play(&shared, &scenario, |heard| vec![(100, heard.connection, text(format!(r#"{{"type":"{said}"}}"#)))]);
    assert_eq!(of(&report, "MUST"), expected, "{:#?}", report.checks);
}

#[rstest]
#[case("${unkown[:4]}", "nothing here is called `unkown`")]
#[case("${sha256(unkown)[:4]}", "nothing here is called `unkown`")]
#[case("${'abc'[unkown:]}", "nothing here is called `unkown`")]
#[case("${known[:4]}", "")]
fn names_that_are_sliced_are_looked_for(#[case] expression: &str, #[case] complaint: &str) {
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nlet: {{ known: abcdef, cut: \"{expression}\" }}\nsteps:\n  - anna joins:\n"
    );
    let said = complaints(PLAIN, &scenario);
    assert!(if complaint.is_empty() { said.is_empty() } else { said.contains(complaint) }, "{said}");
}

#[rstest]
#[case(r#"{"type":"answer","n":1}"#, Verdict::Pass)]
#[case(r#"{"type":"answer","n":1,"m":2}"#, Verdict::Fail)]
fn the_whole_has_a_pointer(#[case] said: &'static str, #[case] expected: Verdict) {
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: answer\n    where: { \"\": { type: object } }\n    has: { MUST: { \"\": { maxProperties: 2 } } }\n";
    assert_eq!(of(&play(PLAIN, scenario, answers(said)), "MUST"), expected);
}

#[test]
fn ends_of_connections_are_not_counted() {
    let said = complaints(PLAIN, &crowd("  - at least 1 of crowd expect close: any\n    rules: [MUST]\n"));
    assert!(said.contains("this is not counted"), "{said}");
}

/// A frame that cannot be decoded within our bounds may be anything: nobody is accused of what it may have been.
#[rstest]
#[case::awaited("  - anna expects: answer\n    rules: [MUST]\n")]
#[case::not_to_come("  - anna expects nothing: answer\n    rules: [MUST]\n")]
#[case::one_of("  - anna expects one of:\n      - message: answer\n      - nothing:\n    rules: [MUST]\n")]
#[case::one_of_others(
    "  - anna expects one of:\n      - message: answer\n      - message: notice\n    rules: [MUST]\n"
)]
fn what_cannot_be_decoded_may_be_anything(#[case] steps: &str) {
    let scenario =
        format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna sends: ask\n{steps}");
    let report = play(PLAIN, &scenario, answers(r#"{"type":"answer","n":1e400}"#));
    assert_eq!(of(&report, "MUST"), Verdict::Inconclusive, "{:#?}", report.checks);
}

#[test]
fn always_cannot_say_more_than_could_be_decoded() {
    let shared =
        format!("{PLAIN}always:\n  - check: \"${{frames('answer') | length}}\"\n    equals: 1\n    rules: [MUST]\n");
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - wait: 1s\n    because: b\n";
    let report = play(&shared, scenario, answers(r#"{"type":"answer","n":1e400}"#));
    assert_eq!(of(&report, "MUST"), Verdict::Inconclusive, "{:#?}", report.checks);
}

/// Nor does it break a silence that it may be no part of: it may be what may always come, or it came when that was over.
#[rstest]
#[case::perhaps_ignored("ignore: [notice]\n", 100, Verdict::Inconclusive)]
#[case::nothing_is_ignored("", 100, Verdict::Fail)]
#[case::too_late("", 600, Verdict::Pass)]
#[case::too_late_to_be_ignored("ignore: [notice]\n", 600, Verdict::Pass)]
fn what_cannot_be_decoded_in_a_silence(#[case] ignore: &str, #[case] time: u64, #[case] expected: Verdict) {
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna expects nothing: any\n    for: 500ms\n    rules: [MUST]\n";
    let report =
        play_late(Duration::from_millis(300), &format!("{PLAIN}{ignore}"), scenario, |heard| match heard.text {
            None => vec![(time, heard.connection, text(r#"{"type":"answer","n":1e400}"#))],
            Some(_) => Vec::new(),
        });
    assert_eq!(of(&report, "MUST"), expected, "{:#?}", report.checks);
}

/// Where the protocol says that hubs write NaN, it is read, and what it is worth is the scenarios' affair; elsewhere it
/// is no JSON.
#[rstest]
#[case("numbers: [NaN]", Verdict::Pass)]
#[case("numbers: [Infinity]", Verdict::Fail)]
#[case("connections: 3", Verdict::Fail)]
fn words_that_are_no_json(#[case] ours: &str, #[case] expected: Verdict) {
    let shared = format!("{PLAIN}always:\n  - every: frame\n    has: {{ MUST: {{ /json: {{ type: object }} }} }}\n");
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: any\n    rules: [MUST-2]\n";
    let hub = answers(r#"{"type":"answer","n":NaN}"#);
    let report = play_changed(|pack| format!("{pack}x-hubproof: {{ {ours} }}\n"), &shared, scenario, hub);
    assert_eq!(of(&report, "MUST"), expected, "{:#?}", report.checks);
    assert_eq!(of(&report, "MUST-2"), Verdict::Pass, "it came, whatever it is");
}

/// What comes after a window was not within it, however late the timer of this machine strikes.
#[rstest]
#[case::silence("expects nothing: notice\n    for: 500ms", &[600], Verdict::Pass)]
#[case::no_silence("expects nothing: notice\n    for: 500ms", &[500], Verdict::Fail)]
#[case::as_many_as_allowed("expects: notice\n    count: { min: 1, max: 2 }\n    for: 500ms", &[100, 200, 600], Verdict::Pass)]
#[case::more_than_allowed("expects: notice\n    count: { min: 1, max: 2 }\n    for: 500ms", &[100, 200, 500], Verdict::Fail)]
#[case::too_late_to_count("expects: notice\n    count: { min: 2, max: 2 }\n    for: 500ms", &[100, 600], Verdict::Fail)]
fn a_window_ends_when_it_ends(#[case] step: &str, #[case] times: &[u64], #[case] expected: Verdict) {
    let scenario =
        format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna {step}\n    rules: [MUST]\n");
    for late in [Duration::ZERO, Duration::from_millis(300)] {
        let report = play_late(late, PLAIN, &scenario, |heard| match heard.text {
            None => times.iter().map(|time| (*time, heard.connection, text(r#"{"type":"notice"}"#))).collect(),
            Some(_) => Vec::new(),
        });
        assert_eq!(of(&report, "MUST"), expected, "{late:?} {:#?}", report.checks);
    }
}

#[rstest]
#[case(400, Verdict::Fail)]
#[case(600, Verdict::Pass)]
fn so_does_the_time_for_which_a_connection_stays_open(#[case] time: u64, #[case] expected: Verdict) {
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna expects nothing: notice\n    for: 500ms\n    rules: [MUST]\n";
    let report = play_late(Duration::from_millis(300), PLAIN, scenario, |heard| {
        vec![(time, heard.connection, Received::Close { code: Some(1000), reason: String::new() })]
    });
    assert_eq!(of(&report, "MUST"), expected, "{:#?}", report.checks);
}

/// An attempt that is made again does not undo what a frame was found to be in the meantime.
#[test]
fn what_stands_for_every_frame_outlives_an_attempt() {
    let shared = format!("{PLAIN}always:\n  - every: notice\n    has: {{ MUST: {{ n: 1 }} }}\n");
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - retry: 3s\n    do:\n      - anna sends: ask\n      - anna expects: answer\n        within: 500ms\n    rules: [MUST-2]\n";
    let mut asked = 0;
    let report = play(&shared, scenario, |heard| {
        asked += usize::from(heard.text.is_some());
        let said = match (heard.text, asked) {
            (None, _) => return Vec::new(),
            (_, 1) => r#"{"type":"notice","n":2}"#,
            _ => r#"{"type":"answer"}"#,
        };
        vec![(0, heard.connection, text(said))]
    });
    assert_eq!((of(&report, "MUST-2"), of(&report, "MUST")), (Verdict::Pass, Verdict::Fail), "{:#?}", report.checks);
}

/// Who never had a connection cannot be silent, nor be sent away.
#[rstest]
#[case("expects nothing: notice")]
#[case("expects close: any")]
fn nobody_is_asked_without_a_connection(#[case] step: &str) {
    let scenario = format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna {step}\n    rules: [MUST]\n");
    let report = play(PLAIN, &scenario, |_| Vec::new());
    assert_eq!(of(&report, "MUST"), Verdict::Inconclusive, "{:#?}", report.checks);
}

/// `after` a group's frames is after the first of them that came, whoever got it.
#[test]
fn after_a_group_is_after_its_first() {
    let steps =
        "  - crowd expect: notice\n    as: told\n  - anna expects: answer\n    after: told\n    rules: [MUST]\n";
    let report = play(PLAIN, &crowd(steps), |heard| match (heard.text, heard.connection) {
        (None, 0) => vec![(200, 0, text(r#"{"type":"answer"}"#))],
        (None, c) => vec![(400 - 100 * u64::from(c), c, text(r#"{"type":"notice"}"#))],
        _ => Vec::new(),
    });
    assert_eq!(of(&report, "MUST"), Verdict::Pass, "{:#?}", report.checks);
}

/// Frames that this harness does not keep are no reason to accuse anybody of not having sent them.
#[test]
fn what_was_not_kept_may_be_anything() {
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - wait: 1s\n    because: b\n  - anna expects: answer\n    rules: [MUST]\n";
    let report = play(PLAIN, scenario, |heard| {
        let notices = std::iter::repeat_n(r#"{"type":"notice"}"#, 10_000);
        let said = std::iter::once(r#"{"type":"answer"}"#).chain(notices);
        if heard.text.is_some() { Vec::new() } else { said.map(|said| (1, heard.connection, text(said))).collect() }
    });
    assert_eq!(of(&report, "MUST"), Verdict::Inconclusive, "{:#?}", report.checks);
}

#[rstest]
#[case::of_something("count: { min: 1 }\n    for: 500ms", Verdict::Pass)]
#[case::of_nothing("where: { n: 7 }\n    count: { min: 0 }\n    for: 500ms", Verdict::NotTestable)]
fn an_order_is_of_what_came(#[case] which: &str, #[case] expected: Verdict) {
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna sends: ask\n    as: first\n  - anna expects: answer\n    {which}\n    as: second\n  - order: [first, second]\n    rules: [MUST]\n"
    );
    let report = play(PLAIN, &scenario, answers(r#"{"type":"answer"}"#));
    assert_eq!(of(&report, "MUST"), expected, "{:#?}", report.checks);
}

#[rstest]
#[case::nothing_to_try("  - retry: 5s\n    do: []\n    rules: [MUST]\n", "there is nothing to try")]
#[case::nothing_to_open("  - idler joins:\n    rules: [MUST]\n", "this role has no opening")]
fn what_holds_whatever_the_hub_does_is_refused(#[case] steps: &str, #[case] complaint: &str) {
    let shared = "roles: { client: { opening: [ { connects: } ] }, idler: {} }\n";
    let said = complaints(
        shared,
        &format!("title: T\nactors: {{ anna: client, idler: idler }}\nsteps:\n  - anna joins:\n{steps}"),
    );
    assert!(said.contains(complaint), "{said}");
}

/// `within` is how long a listening actor waits to be connected to.
#[rstest]
#[case("", 5)]
#[case("    within: 2s\n", 2)]
fn an_actor_that_listens_waits_as_long_as_it_says(#[case] within: &str, #[case] seconds: u64) {
    let shared = "roles: { parent: { side: server } }\n";
    let scenario =
        format!("title: T\nactors: {{ anna: parent }}\nsteps:\n  - anna accepts:\n{within}    rules: [MUST]\n");
    let report = play(shared, &scenario, |_| Vec::new());
    assert_eq!((of(&report, "MUST"), report.duration), (Verdict::Fail, Duration::from_secs(seconds)));
}

/// What a document says to this harness beside AsyncAPI is checked like the rest of it.
#[rstest]
#[case("connections: 0", "this is a whole number from 1 to 1000000")]
#[case("connection: 5", "`x-hubproof` of the document has no `connection`")]
#[case("numbers: [nan]", "this is a word that JSON has not")]
#[case("connections: 40", "")]
fn what_a_document_says_to_us(#[case] ours: &str, #[case] complaint: &str) {
    let said = complaints_of_pack(|pack| format!("{pack}x-hubproof: {{ {ours} }}\n"));
    assert!(if complaint.is_empty() { said.is_empty() } else { said.contains(complaint) }, "{said}");
}
