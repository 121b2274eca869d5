//! Declared deviations of messages that never come, of connections that are closed instead, of upgrades that differ from
//! client to client, and of values that TOML cannot write.

use hubproof::config;
use hubproof::deviation::Deviations;
use hubproof::outcome::{CheckReport, ScenarioReport, Verdict};
use hubproof::syntax::diagnostic::render_all;
use hubproof::websocket::frame::ConnectionEvent;
use rstest::rstest;

use crate::support::disk::CONCIERGE;
use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, closing, deviation_diagnostics, deviation_diagnostics_for, play, play_deviating,
    text_received, worst_verdict,
};
use crate::support::samples::samples;

fn check_of<'r>(report: &'r ScenarioReport, rule: &str) -> &'r CheckReport {
    report.checks.iter().find(|check| check.rules.iter().any(|(used, _)| used.id == rule)).unwrap()
}

fn sightings(report: &ScenarioReport) -> (usize, usize) {
    report.deviations.get(&0).map_or((0, 0), |seen| (seen.observed, seen.contradicted))
}

fn scenario(steps: &str) -> String {
    format!("title: T\nactors: {{ anna: client, ben: client }}\nsteps:\n  - anna joins:\n  - ben joins:\n{steps}")
}

/// A hub that only answers: `answer` to a text that contains `n`, and nothing else.
fn answering(input: &HubInput<'_>) -> HubActions {
    let asks = input.text.is_some_and(|text| text.contains(r#""n""#));
    let answer = (0, input.connection, text_received(r#"{"type":"answer","n":7}"#));
    if asks { vec![answer] } else { Vec::new() }
}

#[rstest]
#[case::in_one_frame("sends raw: { text: '{\"type\":\"ask\",\"n\":7}' }")]
#[case::in_fragments(
    "sends raw: { frames: [ { opcode: text, fin: false, data: '{\"type\":\"ask\",' }, { opcode: ping }, { opcode: continuation, data: '\"n\":7}' } ] }"
)]
#[case::in_two_steps(
    "sends raw: { frames: [ { opcode: text, fin: false, data: '{\"type\":\"ask\",' } ] }\n  - anna sends raw: { frames: [ { opcode: continuation, data: '\"n\":7}' } ] }"
)]
// {"type":"ask","n":7}, masked with zeros.
#[case::in_bytes(
    "sends raw: { bytes: '81 94 00 00 00 00 7b 22 74 79 70 65 22 3a 22 61 73 6b 22 2c 22 6e 22 3a 37 7d' }"
)]
fn a_reply_to_a_raw_request_is_absent_too(#[case] sends: &str) {
    let steps = format!("  - anna {sends}\n  - anna expects: answer\n    rules: [MUST]\n  - ben sends: ask\n");
    let entry = "[{ reason: never, message: answer, absent: true, after: ask }]";
    let report = play_deviating(entry, PLAIN_ROLES, &scenario(&steps), |_| Vec::new());
    assert_eq!(check_of(&report, "MUST").known_reason(), Some("never"), "{:#?}", report.history);
    assert_eq!(report.cause, None);
    // A request that is not complete is not a request.
    let unfinished = "  - anna sends raw: { frames: [ { opcode: text, fin: false, data: '{\"type\":\"ask\"}' } ] }\n  - anna expects: answer\n    rules: [MUST]\n";
    let report = play_deviating(entry, PLAIN_ROLES, &scenario(unfinished), |_| Vec::new());
    assert_eq!((worst_verdict(&report, "MUST"), sightings(&report)), (Verdict::Fail, (0, 0)));
}

#[test]
fn every_text_in_raw_frames_is_sent_in_the_hubs_form() {
    let steps = "  - anna sends raw: { frames: [ { opcode: text, data: '{\"type\":\"ask\",\"n\":7}' }, { opcode: text, data: '{\"type\":\"ask\",\"n\":8}' } ] }\n";
    let entry = "[{ reason: as it is, message: ask, member: /n, renamed: /number }]";
    let mut received = Vec::new();
    play_deviating(entry, PLAIN_ROLES, &scenario(steps), |input| {
        received.extend(input.text.map(str::to_owned));
        Vec::new()
    });
    assert_eq!(received, [r#"{"type":"ask","number":7}"#, r#"{"type":"ask","number":8}"#]);
}

#[test]
fn raw_frames_are_sent_in_the_hubs_form() {
    let steps = "  - anna sends raw: { frames: [ { opcode: text, fin: false, data: '{\"type\":\"ask\",' }, { opcode: ping, data: x }, { opcode: continuation, data: '\"n\":7}' } ] }
  - anna expects: answer
    rules: [MUST]\n";
    let entry = "[{ reason: as it is, message: ask, member: /n, renamed: /number }]";
    let mut received = String::new();
    let report = play_deviating(entry, PLAIN_ROLES, &scenario(steps), |input| {
        received += input.text.unwrap_or_default();
        if received == r#"{"type":"ask","number":7}"# {
            answering(&HubInput { text: Some("\"n\""), ..*input })
        } else {
            Vec::new()
        }
    });
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{received} {:#?}", report.history);
}

const EXPECTS_NOTICE: &str = "  - ben sends: ask
  - anna expects: notice
    as: noticed
    rules: [MUST]
  - check: \"${noticed.type}\"
    equals: notice
    rules: [MUST-2]
  - ben expects: answer
    rules: [SHOULD]
";

#[test]
fn a_step_that_expects_a_message_that_is_never_sent_is_inconclusive_and_known() {
    let entry = "[{ reason: never, message: notice, absent: true, rules: [MUST-2] }]";
    let report = play_deviating(entry, PLAIN_ROLES, &scenario(EXPECTS_NOTICE), answering);
    let step = check_of(&report, "MUST");
    assert_eq!((step.verdict, step.message.as_str()), (Verdict::Inconclusive, "never sent: deviation 1"));
    assert_eq!(step.known_reason(), Some("never"));
    // What needs the message is not reached; everything else is judged.
    let needs = report.checks.iter().find(|check| check.name.starts_with("MUST-2")).unwrap();
    assert_eq!(needs.verdict, Verdict::NotTestable, "{:#?}", report.checks);
    assert_eq!(worst_verdict(&report, "SHOULD"), Verdict::Pass);
    let own = report.checks.iter().find(|check| check.name == "deviation:1").unwrap();
    assert_eq!((own.verdict, own.deviation.as_ref().map(|known| known.entry)), (Verdict::Fail, Some(0)));
    assert_eq!((sightings(&report), report.cause, report.verdict), ((1, 0), None, Verdict::Pass));
    // No wait is as long as for a message that may come.
    assert!(report.duration < hubproof::config::DEFAULT_PATIENCE / 2, "{:?}", report.duration);
}

#[test]
fn a_message_that_comes_makes_its_entry_stale() {
    let entry = "[{ reason: never, message: notice, absent: true }]";
    let notices = |input: &HubInput<'_>| {
        let mut actions = answering(input);
        if !actions.is_empty() {
            actions.push((0, 0, text_received(r#"{"type":"notice"}"#)));
        }
        actions
    };
    let report = play_deviating(entry, PLAIN_ROLES, &scenario(EXPECTS_NOTICE), notices);
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass, "{:#?}", report.checks);
    assert_eq!(sightings(&report), (0, 1));
}

/// The other messages are expected as before.
#[rstest]
#[case::of_two("expects one of: [ { message: notice }, { message: tick } ]", Verdict::Inconclusive)]
#[case::another("expects: tick", Verdict::Fail)]
#[case::any_with_its_type("expects: any\n    where: { type: notice }", Verdict::Inconclusive)]
#[case::any_with_another_type("expects: any\n    where: { type: tick }", Verdict::Fail)]
#[case::silence_is_allowed("expects one of: [ { message: notice }, { nothing: } ]", Verdict::Pass)]
#[case::silence_is_a_warning("expects one of: [ { message: notice }, { nothing: , warn: x } ]", Verdict::Inconclusive)]
#[case::a_list_that_may_be_empty("expects: notice\n    count: { min: 0 }\n    for: 1s", Verdict::NotTestable)]
fn a_message_that_is_never_sent_excuses_only_steps_that_expect_it(#[case] step: &str, #[case] verdict: Verdict) {
    let entry = "[{ reason: never, message: notice, absent: true }]";
    let steps = match verdict {
        Verdict::NotTestable => format!(
            "  - anna {step}\n    as: list\n  - check: \"${{list | length}}\"\n    equals: 1\n    rules: [MUST]\n"
        ),
        _ => format!("  - anna {step}\n    rules: [MUST]\n"),
    };
    let report = play_deviating(entry, PLAIN_ROLES, &scenario(&steps), answering);
    assert_eq!(worst_verdict(&report, "MUST"), verdict, "{:#?}", report.checks);
}

fn closing_hub(code: u16) -> impl FnMut(&HubInput<'_>) -> HubActions {
    move |input| match input.text {
        Some(text) if text.contains("bad") => closing(input.connection, code),
        _ => answering(input),
    }
}

const EXPECTS_TICK: &str = "  - anna sends: ask
    with: { bad: true }
  - anna expects: tick
    as: ticked
    rules: [MUST]
  - check: \"${ticked.type}\"
    equals: tick
    rules: [MUST-2]
  - ben sends: ask
  - ben expects: answer
    rules: [SHOULD]
";

#[rstest]
#[case::any("closes: true")]
#[case::this_code("closes: 1008")]
#[case::one_of_these("closes: [4000, 1008]")]
#[case::after_a_request("closes: true, after: ask")]
#[case::after_this_request("closes: true, after: ask, where: { bad: true }")]
#[case::after_the_connection("closes: true, after: connection")]
fn a_close_stands_in_for_a_message(#[case] closes: &str) {
    let entry = format!("[{{ reason: it closes, message: tick, {closes} }}]");
    let report = play_deviating(&entry, PLAIN_ROLES, &scenario(EXPECTS_TICK), closing_hub(1008));
    let step = check_of(&report, "MUST");
    assert_eq!((step.verdict, step.known_reason()), (Verdict::Fail, Some("it closes")), "{:#?}", report.checks);
    assert!(step.message.starts_with("the hub closes instead of sending `tick`"), "{}", step.message);
    let needs = report.checks.iter().find(|check| check.name.starts_with("MUST-2")).unwrap();
    assert_eq!(needs.verdict, Verdict::NotTestable);
    // The conversation of the other client continues.
    assert_eq!((worst_verdict(&report, "SHOULD"), sightings(&report)), (Verdict::Pass, (1, 0)));
    assert_eq!((report.cause, report.verdict), (None, Verdict::Pass));
}

#[rstest]
#[case::another_code("closes: 1008", 1011)]
#[case::another_request("closes: true, after: ask, where: { bad: false }", 1008)]
fn another_close_is_a_failure(#[case] closes: &str, #[case] code: u16) {
    let entry = format!("[{{ reason: it closes, message: tick, {closes} }}]");
    let report = play_deviating(&entry, PLAIN_ROLES, &scenario(EXPECTS_TICK), closing_hub(code));
    let step = check_of(&report, "MUST");
    assert_eq!((step.verdict, step.known_reason()), (Verdict::Fail, None), "{:#?}", report.checks);
    assert_eq!(sightings(&report), (0, 0));
}

#[rstest]
#[case::at_any_time("closes: true")]
#[case::after_a_request("closes: true, after: ask")]
fn a_message_instead_of_a_close_makes_the_entry_stale(#[case] closes: &str) {
    let entry = format!("[{{ reason: it closes, message: tick, {closes} }}]");
    let ticking = |input: &HubInput<'_>| match input.text {
        Some(text) if text.contains("bad") => vec![(0, input.connection, text_received(r#"{"type":"tick"}"#))],
        _ => answering(input),
    };
    let report = play_deviating(&entry, PLAIN_ROLES, &scenario(EXPECTS_TICK), ticking);
    assert_eq!((worst_verdict(&report, "MUST"), sightings(&report)), (Verdict::Pass, (0, 1)), "{:#?}", report.checks);
}

/// A warning for the close is that of the declared deviation.
#[test]
fn a_close_that_a_step_warns_about_is_known() {
    let steps = "  - anna sends: ask
    with: { bad: true }
  - anna expects one of: [ { message: tick }, { close: any, warn: closed without a word } ]
    rules: [MUST]\n";
    let entry = "[{ reason: it closes, message: tick, closes: true }]";
    let report = play_deviating(entry, PLAIN_ROLES, &scenario(steps), closing_hub(1008));
    assert_eq!(check_of(&report, "MUST").known_reason(), Some("it closes"), "{:#?}", report.checks);
}

const UPGRADING_ROLES: &str =
    "hub: { key: { about: the key of the gateway, default: k }, none: { about: x, optional: true } }
roles:
  client: { given: { user: anna, token: t1, unset: null }, opening: [ { connects: } ] }
  admin: { given: { user: root }, opening: [ { connects: /admin } ] }
  guest: {}
";

/// Returns the upgrade requests of a client, an admin, a guest, and a guest that the hub has to refuse.
fn requests(upgrade: &str) -> Vec<String> {
    let scenario = "title: T
actors: { anna: client, root: admin, gus: guest, eve: guest }
steps:
  - anna joins:
  - root joins:
  - gus connects:
    headers: { X-User: gus }
  - eve tries to connect: /
";
    let mut found = Vec::new();
    let entry = format!("[{{ reason: x, upgrade: {upgrade} }}]");
    play_deviating(&entry, UPGRADING_ROLES, scenario, |input| {
        found.extend(input.dial.map(|dial| {
            let pairs = |pairs: &[(String, String)]| {
                pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
            };
            let path = dial.path.as_deref().unwrap_or("-");
            format!("{path} {} {}", pairs(&dial.query), pairs(&dial.headers)).trim().to_owned()
        }));
        Vec::new()
    });
    found
}

#[rstest]
#[case::text("{ headers: { X-Key: k } }", &["-  X-Key=k", "/admin  X-Key=k", "-  X-User=gus&X-Key=k", "/"])]
#[case::everyone(
    "{ everyone: true, headers: { X-Key: \"${hub.key}\" } }",
    &["-  X-Key=k", "/admin  X-Key=k", "-  X-User=gus&X-Key=k", "/  X-Key=k"]
)]
#[case::per_client(
    "{ headers: { X-User: \"${self.user}\" }, query: { token: \"a ${self.token}\" } }",
    &["- token=a t1 X-User=anna", "/admin  X-User=root", "-  X-User=gus", "/"]
)]
#[case::values_that_are_missing(
    "{ headers: { A: \"${self.unset}\", B: \"${hub.none}\", C: \"x${self.unset}\" } }",
    &["-", "/admin", "-  X-User=gus", "/"]
)]
#[case::the_role("{ query: { role: \"${self.role}\" } }", &["- role=client", "/admin role=admin", "- role=guest X-User=gus", "/"])]
#[case::one_role("{ role: admin, query: { role: boss } }", &["-", "/admin role=boss", "-  X-User=gus", "/"])]
#[case::a_path(
    "{ path: \"/ws/${self.role}\" }",
    &["/ws/client", "/admin", "/ws/guest  X-User=gus", "/"]
)]
fn each_client_sends_what_its_upgrade_needs(#[case] upgrade: &str, #[case] expected: &[&str]) {
    assert_eq!(requests(upgrade), expected);
}

/// A guest that registers like a client is a client to the hub.
#[test]
fn a_guest_upgrades_like_the_role_as_which_it_registers() {
    let roles = "roles:\n  client: { opening: [ { connects: }, { sends: ask } ] }\n  guest: {}\n";
    let scenario = "title: T\nactors: { gus: guest, eve: guest }\nsteps:\n  - gus connects:\n  - gus sends: ask\n  - eve connects:\n";
    let entry = "[{ reason: x, upgrade: { role: client, path: /ws/client } }]";
    let mut paths = Vec::new();
    play_deviating(entry, roles, scenario, |input| {
        paths.extend(input.dial.map(|dial| dial.path.clone().unwrap_or_default()));
        Vec::new()
    });
    assert_eq!(paths, ["/ws/client", ""]);
}

/// Only the upgrades that followed an entry are sightings of it.
#[test]
fn an_upgrade_entry_is_observed_where_it_applies() {
    let scenario = "title: T\nactors: { anna: client, root: admin }\nsteps:\n  - anna joins:\n  - root joins:\n";
    let observed = |upgrade: &str| {
        let entry = format!("[{{ reason: x, upgrade: {upgrade} }}]");
        sightings(&play_deviating(&entry, UPGRADING_ROLES, scenario, |_| Vec::new()))
    };
    assert_eq!(observed("{ headers: { A: b } }"), (2, 0));
    assert_eq!(observed("{ role: admin, headers: { A: b } }"), (1, 0));
    assert_eq!(observed("{ role: guest, headers: { A: b } }"), (0, 0));
}

#[rstest]
#[case::spelled(
    "{ message: answer, member: /n, value: 7, spelled: { json: 'null' } }",
    r#"{"type":"answer","n":null}"#
)]
#[case::instead("{ message: answer, instead: { type: { json: 'null' } } }", r#"{"type":null,"n":7}"#)]
#[case::instead_as_a_whole("{ message: answer, instead: { json: '{\"type\": null}' } }", r#"{"type":null,"n":7}"#)]
fn values_may_be_written_as_json(#[case] entry: &str, #[case] answer: &'static str) {
    let steps = "  - anna sends: ask\n  - anna expects: answer\n    where: { n: 7 }\n    rules: [MUST]\n";
    let entry = format!("[{}]", entry.replacen('{', "{ reason: as it is,", 1));
    let hub =
        |input: &HubInput<'_>| input.text.map(|_| (0, input.connection, text_received(answer))).into_iter().collect();
    let report = play_deviating(&entry, PLAIN_ROLES, &scenario(steps), hub);
    assert_eq!((worst_verdict(&report, "MUST"), sightings(&report)), (Verdict::Pass, (1, 0)), "{:#?}", report.checks);
}

/// A title is the expected message.
#[test]
fn deviation_mistakes_are_reported_with_place_and_advice() {
    for (message, entries) in samples(include_str!("../fixtures/mistakes/deviations.txt")) {
        let found = deviation_diagnostics_for(UPGRADING_ROLES, entries);
        assert!(found.contains(message) && found.contains("hub.yaml:1:") && found.contains("help: "), "{found}");
    }
}

#[test]
fn the_text_null_can_be_written() {
    assert_eq!(deviation_diagnostics("[{ reason: x, member: /a, value: a, spelled: { json: '\"null\"' } }]"), "");
}

const WRONG_ALTERNATIVE: &str = "  - anna sends: ask
  - anna expects one of:
      - message: notice
      - message: tick
        fail: a tick
      - close: any
        fail: closed
    as: noticed
    rules: [MUST]
  - check: \"${noticed.type}\"
    equals: notice
    rules: [MUST-2]
  - ben sends: ask
  - ben expects: answer
    rules: [SHOULD]
";

/// The failure is recorded once; steps that need the right alternative are not reached.
#[rstest]
#[case::of_a_message(None, "a tick")]
#[case::of_a_close(Some(1008), "closed")]
fn a_conversation_continues_after_a_wrong_alternative(#[case] code: Option<u16>, #[case] why: &str) {
    let mut asked = 0;
    let hub = |input: &HubInput<'_>| {
        asked += usize::from(input.text.is_some());
        match (input.text, asked, code) {
            (Some(_), 1, Some(code)) => closing(input.connection, code),
            (Some(_), 1, None) => vec![(0, input.connection, text_received(r#"{"type":"tick"}"#))],
            _ => answering(input),
        }
    };
    let report = play(PLAIN_ROLES, &scenario(WRONG_ALTERNATIVE), hub);
    let step = check_of(&report, "MUST");
    assert_eq!((step.verdict, step.message.as_str()), (Verdict::Fail, why), "{:#?}", report.checks);
    let needs = report.checks.iter().find(|check| check.name.starts_with("MUST-2")).unwrap();
    assert_eq!(needs.verdict, Verdict::Inconclusive);
    assert_eq!(worst_verdict(&report, "SHOULD"), Verdict::Pass, "{:#?}", report.checks);
}

/// The end of a connection that a deviation explains is not an answer to a later step.
#[test]
fn a_client_whose_connection_was_closed_instead_is_not_judged_again() {
    let steps = format!("{EXPECTS_TICK}  - anna expects: answer\n    rules: [MUST as should]\n");
    let entry = "[{ reason: it closes, message: tick, closes: true }]";
    let mut ends = closing_hub(1008);
    let hub = |input: &HubInput<'_>| {
        let mut actions = ends(input);
        if let [(_, connection, ConnectionEvent::Close { .. })] = actions[..] {
            actions.push((0, connection, ConnectionEvent::End { reset: false, reason: String::new() }));
        }
        actions
    };
    let report = play_deviating(entry, PLAIN_ROLES, &scenario(&steps), hub);
    let failed =
        |check: &&CheckReport| check.deviation.is_none() && matches!(check.verdict, Verdict::Fail | Verdict::Warn);
    assert_eq!(report.checks.iter().filter(failed).count(), 0, "{:#?}", report.checks);
}

/// The entries in the book are valid, by the parser and by the schema for editors.
#[test]
fn the_entries_in_the_book_are_valid() {
    let page = std::fs::read_to_string("docs/src/deviations.md").unwrap();
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let text = std::iter::once("url = \"ws://127.0.0.1:4000\"\n").chain(blocks).collect::<String>();
    let mut sources = CONCIERGE.sources.clone();
    let file = sources.add("hub.toml", text.as_str());
    let environment = |name: &str| Some(format!("the value of {name}"));
    let target = config::parse(&mut sources, file, &[], &environment, &|_| Ok(String::new()));
    let target = target.unwrap_or_else(|found| panic!("{}", render_all(&found, &sources, false)));
    let nodes: Vec<_> = target.deviations.iter().map(|declared| declared.0.clone()).collect();
    let declared = Deviations::parse(&nodes, &CONCIERGE.pack, &CONCIERGE.shared.shared, false);
    let declared = declared.unwrap_or_else(|found| panic!("{}", render_all(&found, &sources, false)));
    assert!(declared.entries().len() >= 8, "{declared:?}");
    let schema = std::fs::read_to_string("schemas/hubproof/target.schema.json").unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let written: toml::Value = toml::from_str(&text).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&serde_json::to_value(written).unwrap()).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
}
