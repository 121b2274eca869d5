//! What steps prove and what their failures show: rules of scenes, the text of a check, close codes, rounds.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hubproof::config::HookSpec;
use hubproof::interpreter::{Conversation, ConversationConfig, name_pool, unmet_needs};
use hubproof::outcome::{CheckReport, ScenarioReport, Verdict};
use hubproof::websocket::frame::ConnectionEvent;
use rstest::rstest;

use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, RoundOptions, answering_hub, check_with_hooks, converse, mini_program,
    mini_scenario_diagnostics, play, run_rounds, text_received, worst_verdict,
};
use crate::support::sim_connection::conversation_config;

const SCENES: &str = "roles: { client: { opening: [ { connects: } ] } }
scenes:
  greeting:
    steps:
      - sends: ask
      - expects: answer
        as: came
  shout: { steps: [ { sends: ask } ] }
";

const ANSWER: &str = r#"{"type":"answer"}"#;
const NOTICE: &str = r#"{"type":"notice"}"#;

#[rstest]
#[case::scene_succeeds("MUST", ANSWER, Verdict::Pass, Verdict::Pass)]
#[case::scene_fails("MUST", NOTICE, Verdict::Fail, Verdict::Pass)]
#[case::recommendation_fails("SHOULD", NOTICE, Verdict::Warn, Verdict::Pass)]
fn rules_of_a_scene_are_proven_when_it_succeeds(
    #[case] rule: &str,
    #[case] frame: &'static str,
    #[case] of_scene: Verdict,
    #[case] of_next: Verdict,
) {
    let scenario = format!(
        "title: T\nactors: {{ anna: client, crowd: {{ role: client, count: 2 }} }}\nsteps:\n  - anna joins:\n  - crowd join:\n  - anna plays: greeting\n    rules: [{rule}]\n  - crowd send: ask\n  - crowd expect: any\n    rules: [MUST-2]\n"
    );
    let report = play(SCENES, &scenario, answering_hub(frame));
    assert_eq!((worst_verdict(&report, rule), worst_verdict(&report, "MUST-2")), (of_scene, of_next), "{report:#?}");
}

#[rstest]
#[case::all_members(2, Verdict::Pass)]
#[case::one_member(1, Verdict::Fail)]
fn a_scene_of_a_group_must_succeed_for_every_member(#[case] answered: u32, #[case] expected: Verdict) {
    let scenario = "title: T\nactors: { crowd: { role: client, count: 2 } }\nsteps:\n  - crowd join:\n  - crowd play: greeting\n    rules: [MUST]\n";
    let report = play(SCENES, scenario, |input| {
        let answer = input.text.filter(|_| input.connection < answered);
        answer.map(|_| (0, input.connection, text_received(ANSWER))).into_iter().collect()
    });
    assert_eq!(worst_verdict(&report, "MUST"), expected, "{:#?}", report.checks);
}

#[rstest]
#[case::cannot_fail(
    "  - anna plays: shout\n    rules: [MUST]\n",
    "the scene `shout` expects nothing, so it cannot fail"
)]
#[case::text_of_a_check(
    "  - check: \"${1 == 2}\"\n    says: [a]\n    rules: [MUST]\n",
    "`says` must be text, not a list"
)]
#[case::no_text("  - check: \"${1 == 2}\"\n    says: ''\n    rules: [MUST]\n", "`says` is empty")]
fn mistakes_in_these_options_are_reported(#[case] step: &str, #[case] expected: &str) {
    let scenario = format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n{step}");
    let found = mini_scenario_diagnostics(SCENES, &scenario);
    assert!(found.contains(expected), "{found}");
}

/// Returns the only check that failed.
fn failed_check(report: &ScenarioReport) -> &CheckReport {
    let mut failed = report.checks.iter().filter(|check| check.verdict == Verdict::Fail);
    let check = failed.next().unwrap_or_else(|| panic!("nothing failed: {report:#?}"));
    assert!(failed.next().is_none(), "{report:#?}");
    check
}

#[test]
fn a_failed_check_shows_its_text_with_values() {
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: answer\n    as: came\n  - check: \"${came.n}\"\n    equals: 1\n    says: \"the hub counts to ${came.n}\"\n    rules: [MUST]\n";
    let report = play(PLAIN_ROLES, scenario, answering_hub(r#"{"type":"answer","n":2}"#));
    let check = failed_check(&report);
    assert_eq!(check.message, "the hub counts to 2 (expected 1, found 2)");
    // A step without an actor shows what was sent before it.
    assert_eq!(check.detail.as_ref().unwrap().sent.as_deref(), Some(r#"{"type":"ask","n":1}"#));
    // A text that cannot be computed does not hide the result.
    let report = play(
        PLAIN_ROLES,
        &scenario.replace("to ${came.n}", "to ${came.m}"),
        answering_hub(r#"{"type":"answer","n":2}"#),
    );
    assert_eq!(failed_check(&report).message, "expected 1, found 2");
}

#[rstest]
#[case::number("4409", "anna expects close: 4409")]
#[case::list("[4409, 4000-4002, drop]", "anna expects close: 4409 or 4000-4002 or drop")]
fn an_unexpected_close_shows_both_codes(#[case] codes: &str, #[case] expected: &str) {
    let scenario = format!(
        "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects close: {codes}\n    rules: [MUST]\n"
    );
    let hub = |input: &HubInput<'_>| -> HubActions {
        let close = || ConnectionEvent::Close { code: Some(4400), reason: "no such subscriber".to_owned() };
        input.text.map(|_| (0, input.connection, close())).into_iter().collect()
    };
    let report = play(PLAIN_ROLES, &scenario, hub);
    let detail = failed_check(&report).detail.as_ref().unwrap();
    assert_eq!(detail.expected, expected);
    assert_eq!(detail.received, "the hub closed the connection with 4400 (no such subscriber)");
}

#[test]
fn a_failure_in_a_loop_names_its_rounds() {
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - each: outer\n    in: [a, b]\n    do:\n      - each: inner\n        in: [{ n: 1 }, { n: 2 }]\n        do:\n          - anna sends: ask\n            with: { n: \"${inner.n}\", of: \"${outer}\" }\n          - anna expects: answer\n            rules: [MUST]\n";
    let hub = |input: &HubInput<'_>| -> HubActions {
        let right = input.text.filter(|text| *text != r#"{"type":"ask","n":2,"of":"b"}"#);
        right.map(|_| (0, input.connection, text_received(ANSWER))).into_iter().collect()
    };
    let report = play(PLAIN_ROLES, scenario, hub);
    let detail = failed_check(&report).detail.as_ref().unwrap();
    assert_eq!(detail.round.as_deref(), Some(r#"2 of 2, outer = "b"; 2 of 2, inner = {"n":2}"#));
    assert_eq!(detail.sent.as_deref(), Some(r#"{"type":"ask","n":2,"of":"b"}"#));
}

#[test]
fn a_rule_that_failed_anywhere_is_not_proven() {
    let scenario = |message: &str| {
        format!(
            "title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: {message}\n    rules: [MUST]\n"
        )
    };
    let (right, wrong) = (scenario("answer"), scenario("notice"));
    for (scenarios, expected) in [(vec![right.as_str()], (1, 1)), (vec![right.as_str(), wrong.as_str()], (1, 0))] {
        let played = run_rounds(str::to_owned, &scenarios, &RoundOptions::default(), answering_hub(ANSWER));
        let totals = played.report.protocols[0].rule_totals();
        assert_eq!((totals.decided, totals.proven), expected);
    }
}

const POOL: &str = "hub: { points: { about: the names that the hub knows } }
roles:
  client:
    given: { name: \"${next_of(hub.points)}\" }
    opening: [ { connects: \"/${self.name}\" } ]
";

/// Returns the paths of the upgrade requests of a conversation with this number, whose target knows three names.
fn connected_paths(turn: usize, steps: &str) -> Vec<String> {
    let scenario = format!("title: T\nactors: {{ anna: client, ben: client }}\nsteps:\n{steps}");
    let settings = [("points".to_owned(), serde_json::json!(["P1", "P2", "P3"]))].into();
    let program = mini_program(POOL, &scenario);
    let config = ConversationConfig { turn, ..conversation_config(settings) };
    let mut paths = Vec::new();
    let report = converse(Conversation::new(program, config), Duration::ZERO, |input| {
        paths.extend(input.dial.and_then(|dial| dial.path.clone()));
        Vec::new()
    });
    assert_eq!(report.mistake, None);
    paths
}

#[rstest]
#[case::first(0, "  - anna joins:\n  - ben joins:\n", &["/P1", "/P2"])]
#[case::next_scenario(1, "  - anna joins:\n  - ben joins:\n", &["/P2", "/P3"])]
#[case::from_the_beginning_again(2, "  - anna joins:\n  - ben joins:\n", &["/P3", "/P1"])]
#[case::same_client(0, "  - anna joins:\n  - anna closes: 1000\n  - anna joins:\n", &["/P1", "/P1"])]
#[case::new_clients(0, "  - each: i\n    in: 3\n    do:\n      - anna joins:\n", &["/P1", "/P3", "/P1"])]
fn actors_and_scenarios_take_the_names_of_a_list_in_turn(
    #[case] turn: usize,
    #[case] steps: &str,
    #[case] expected: &[&str],
) {
    assert_eq!(connected_paths(turn, steps), expected);
}

#[rstest]
#[case::enough(&["P1", "P2"], &[])]
#[case::too_few(&["P1"], &["setting points"])]
fn a_list_with_fewer_names_than_actors_is_an_unmet_need(#[case] names: &[&str], #[case] expected: &[&str]) {
    let scenario = "title: T\nactors: { anna: client, ben: client }\nsteps:\n  - anna joins:\n  - ben joins:\n";
    let program = mini_program(POOL, scenario);
    let settings = [("points".to_owned(), serde_json::json!(names))].into();
    let unmet = unmet_needs(&program, &settings, &|_| false, &|_| false).unwrap();
    assert_eq!(unmet.iter().map(|need| need.name.as_str()).collect::<Vec<_>>(), expected);
    // Two scenarios that take names from the same list never run at the same time.
    assert_eq!(name_pool(&program, &settings).as_deref(), Some("points"));
    let other = mini_program(PLAIN_ROLES, scenario);
    assert_eq!(name_pool(&other, &settings), None);
}

/// A server for hooks that answers each request with the number of requests in flight, as soon as this many have come.
fn start_counting_server(least: usize) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // How many requests have come, and how many of them are answered.
    let counts = Arc::new((Mutex::new((0, 0)), Condvar::new()));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let counts = Arc::clone(&counts);
            std::thread::spawn(move || {
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                let (counts, change) = &*counts;
                counts.lock().unwrap().0 += 1;
                change.notify_all();
                let enough = |counts: &mut (usize, usize)| counts.0 < least;
                let in_flight = {
                    let mut counts = change.wait_while(counts.lock().unwrap(), enough).unwrap();
                    counts.1 += 1;
                    counts.0 - counts.1 + 1
                };
                let body = in_flight.to_string();
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            });
        }
    });
    url
}

/// Calls at once are in flight together, up to a limit, which is lower for commands.
#[rstest]
#[case::requests(65, 32)]
#[case::commands(17, 8)]
fn calls_of_a_hook_are_in_flight_together(#[case] times: usize, #[case] limit: usize) {
    let folder = tempfile::tempdir().unwrap();
    let hook = if limit == 32 {
        let (method, headers) = ("POST".to_owned(), BTreeMap::new());
        HookSpec::Http { method, url: start_counting_server(limit), headers, body: None, timeout: None }
    } else {
        // Answers with the number of commands in flight, as soon as `limit` have begun.
        let script = format!(
            "cd {}; touch running-$$ begun-$$; until [ $(ls | grep -c begun) -ge {limit} ]; do sleep 0.01; done; \
             ls | grep -c running; rm running-$$",
            folder.path().display()
        );
        HookSpec::Command { words: ["sh".to_owned(), "-c".to_owned(), script].into(), timeout: None }
    };
    let shared = format!("{PLAIN_ROLES}hooks: {{ emit: {{ about: counts its calls }} }}\n");
    let scenario = format!(
        "title: t\nsteps:\n  - hook: emit\n    times: {times}\n    as: answers\n  - check: \"${{[answers | length, answers | max]}}\"\n    equals: [{times}, {limit}]\n    rules: [MUST]\n"
    );
    let reports =
        check_with_hooks("ws://127.0.0.1:9", &shared, &[&scenario], BTreeMap::from([("emit".to_owned(), hook)]));
    assert_eq!(worst_verdict(&reports[0], "MUST"), Verdict::Pass, "{reports:#?}");
}
