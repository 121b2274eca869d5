//! What observed conversations show about both sides.

use std::sync::Arc;
use std::time::Duration;

use hubproof::import::recording::{RecordedEvent, RecordedLine, SentFrame, Side};
use hubproof::observe::judge::TrafficJudge;
use hubproof::observe::report::{ObservedRun, ObservedTraffic};
use hubproof::redact::SecretMasker;
use hubproof::report::terminal_page::Style;
use hubproof::scenario::Program;
use hubproof::syntax::source::Sources;
use rstest::rstest;

use crate::support::mini_protocol::{PLAIN_ROLES, program};

const CALLS: &str = include_str!("../../fixtures/documents/calls.yaml");
const OPERATIONS: &str = include_str!("../../fixtures/documents/operations.yaml");
const SCENARIO: &str = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n";

/// Two calls with results that only their ids connect with them; every frame of the hub is a list.
fn calls() -> Arc<Program> {
    let always = "always:
  - every: frame
    has: { MUST-2: { /json: { type: array } } }
  - every: close
    has: { SHOULD: { /code or absent: { not: { const: 4001 } } } }
  - every: booted
    has: { SHOULD: { /2/status or absent: { not: { pattern: '^old' } } } }
  - every: beaten
    has: { MUST: { /1: \"${hub.only}\" } }
";
    let setting = "hub: { only: { default: never, about: an expression is not judged } }\n";
    program(CALLS, &format!("{setting}{PLAIN_ROLES}{always}"), SCENARIO)
}

/// `ask` opens an id, `tick` carries it, `answer` closes it, and so does `stop` of a client.
fn operations() -> Arc<Program> {
    let always = "always:\n  - opens: ask\n    carries: tick\n    closes: [answer, stop]\n    opened: [MUST]\n    ended: [MUST-2]\n";
    program(OPERATIONS, &format!("{PLAIN_ROLES}{always}"), SCENARIO)
}

fn sent(by: Side, what: SentFrame) -> RecordedEvent {
    RecordedEvent::Sent { by, what }
}

fn client(text: &str) -> RecordedEvent {
    sent(Side::Client, SentFrame::Text(text.to_owned()))
}

fn hub(text: &str) -> RecordedEvent {
    sent(Side::Hub, SentFrame::Text(text.to_owned()))
}

fn close(by: Side, code: u16) -> RecordedEvent {
    sent(by, SentFrame::Close { code: Some(code), reason: String::new() })
}

fn broken(by: Side, bound: bool) -> RecordedEvent {
    sent(by, SentFrame::Broken { what: "a masked text frame".to_owned(), section: "5.1".to_owned(), bound })
}

fn opened() -> RecordedEvent {
    RecordedEvent::Opened { target: "/".to_owned(), subprotocols: Vec::new() }
}

fn judge(program: &Arc<Program>, lines: &[RecordedLine]) -> ObservedTraffic {
    let (pack, patience) = (Arc::clone(&program.pack), Duration::from_secs(30));
    let mut judge = TrafficJudge::new(pack, Some(Arc::clone(program)), None, patience, SecretMasker::default());
    lines.iter().for_each(|line| drop(judge.judge_line(line)));
    judge.traffic()
}

/// Judges the events of one connection, each a second after the one before, and the same read from a recording.
fn observe(program: &Arc<Program>, events: Vec<(i64, RecordedEvent)>) -> ObservedTraffic {
    let lines: Vec<RecordedLine> =
        events.into_iter().map(|(time, event)| RecordedLine { time, connection: 1, event }).collect();
    let traffic = judge(program, &lines);
    let read: Vec<RecordedLine> =
        lines.iter().map(|line| RecordedLine::parse(&line.render()).expect("a line")).collect();
    assert_eq!(judge(program, &read).findings, traffic.findings);
    traffic
}

/// The beginning of each headline: `fail[MUST] hub`.
fn found(traffic: &ObservedTraffic) -> Vec<String> {
    let mut found: Vec<String> = traffic
        .findings
        .iter()
        .map(|finding| finding.headline().split_once(", connection").expect("a headline").0.to_owned())
        .collect();
    found.sort();
    found
}

fn observed(program: &Arc<Program>, events: Vec<RecordedEvent>) -> Vec<String> {
    let timed = events.into_iter().enumerate().map(|(second, event)| (1000 * second as i64, event)).collect();
    found(&observe(program, timed))
}

const BOOT: &str = r#"[2,"a","Boot",{}]"#;
const BOOTED: &str = r#"[3,"a",{"status":"Accepted"}]"#;

#[rstest]
#[case::right(vec![opened(), client(BOOT), hub(BOOTED), close(Side::Client, 1000), close(Side::Hub, 1000)], &[])]
#[case::id_used_again(vec![opened(), client(BOOT), hub(BOOTED), client(BOOT), hub(BOOTED)], &[])]
#[case::two_at_once(vec![opened(), client(BOOT), client(BOOT), hub(BOOTED), hub(BOOTED)], &[])]
#[case::expression(vec![opened(), client(r#"[2,"b","Beat",{}]"#), hub(r#"[3,"b",{"time":1}]"#)], &[])]
#[case::schema(vec![opened(), client(BOOT), hub(r#"[3,"a",{"time":1}]"#)], &["fail[MUST] hub"])]
#[case::pattern(vec![opened(), client(BOOT), hub(r#"[3,"a",{"status":"older"}]"#)], &["warn[SHOULD] hub"])]
#[case::unasked(vec![opened(), client(BOOT), hub(r#"[3,"b",{"status":"x"}]"#)], &["warn[unasked-reply] hub"])]
#[case::repeated(vec![opened(), client(BOOT), hub(BOOTED), hub(BOOTED)], &["warn[repeated-reply] hub"])]
#[case::unknown_of_hub(vec![opened(), hub(r#"[9,"a"]"#)], &["info[unknown-message] hub"])]
#[case::every_frame(vec![opened(), hub("{}")], &["fail[MUST-2] hub", "info[unknown-message] hub"])]
#[case::text_of_hub(vec![opened(), hub("hello")], &["fail[MUST-2] hub"])]
#[case::binary_of_hub(vec![opened(), sent(Side::Hub, SentFrame::Binary(3))], &["fail[MUST-2] hub"])]
#[case::unknown_of_client(vec![opened(), client("{}")], &["info[unknown-message] client"])]
#[case::text_of_client(vec![opened(), client("hello")], &["warn[not-json] client"])]
#[case::binary_of_client(vec![opened(), sent(Side::Client, SentFrame::Binary(3))], &["warn[not-json] client"])]
#[case::frames_of_client(vec![opened(), broken(Side::Client, false)], &["fail[websocket] client"])]
#[case::frames_of_hub(vec![opened(), broken(Side::Hub, false)], &["fail[websocket] hub"])]
#[case::limit(vec![opened(), broken(Side::Hub, true), broken(Side::Client, true)], &[])]
#[case::close_of_hub(vec![opened(), close(Side::Hub, 1005)], &["fail[websocket] hub"])]
#[case::close_of_client(vec![opened(), close(Side::Client, 999)], &["fail[websocket] client"])]
#[case::close_by_rule(vec![opened(), close(Side::Hub, 4001)], &["warn[SHOULD] hub"])]
#[case::repeated_close(vec![opened(), close(Side::Client, 4001), close(Side::Hub, 4001)], &[])]
fn a_fault_is_found_for_its_reason(#[case] events: Vec<RecordedEvent>, #[case] expected: &[&str]) {
    assert_eq!(observed(&calls(), events), expected);
}

/// What was not observed, or not understood, is no reason for a finding.
#[rstest]
#[case::reply_after_joining(vec![hub(BOOTED), hub(BOOTED)], &[])]
#[case::unknown_reply_after_joining(vec![hub(r#"[3,"z",{}]"#)], &[])]
#[case::joined_and_wrong(vec![client(BOOT), hub(r#"[3,"a",{"time":1}]"#)], &["fail[MUST] hub"])]
#[case::reply_to_what_is_unknown(vec![opened(), client(r#"[2,"q","Other",{}]"#), hub(r#"[3,"q",{"status":"x"}]"#)], &["info[unknown-message] client"])]
#[case::reply_to_what_is_not_json(vec![opened(), client("[2,"), hub(BOOTED)], &["warn[not-json] client"])]
#[case::reply_to_what_is_too_deep(vec![opened(), client(&format!("{}{}", "[".repeat(200), "]".repeat(200))), hub(BOOTED)], &[])]
#[case::reply_to_what_is_too_long(vec![opened(), broken(Side::Client, true), hub(BOOTED)], &[])]
fn what_is_unknown_is_not_wrong(#[case] events: Vec<RecordedEvent>, #[case] expected: &[&str]) {
    assert_eq!(observed(&calls(), events), expected);
}

#[rstest]
#[case::silence(vec![(0, opened()), (0, client(BOOT)), (31_000, client(r#"[2,"b","Beat",{}]"#))], &["warn[unanswered] hub"])]
#[case::in_time(vec![(0, opened()), (0, client(BOOT)), (29_000, client(r#"[2,"b","Beat",{}]"#))], &[])]
#[case::late(vec![(0, opened()), (0, client(BOOT)), (60_000, hub(BOOTED))], &[])]
#[case::failed(vec![(0, opened()), (0, client(BOOT)), (10, hub(r#"[4,"a","Wrong"]"#)), (60_000, client(BOOT))], &[])]
#[case::perhaps_answered(vec![(0, opened()), (0, client(BOOT)), (10, hub("[9]")), (60_000, client(BOOT))], &["info[unknown-message] hub"])]
#[case::nothing_after_it(vec![(0, opened()), (0, client(BOOT))], &[])]
fn a_request_that_nothing_answers_is_found(#[case] events: Vec<(i64, RecordedEvent)>, #[case] expected: &[&str]) {
    assert_eq!(found(&observe(&calls(), events)), expected);
}

fn message(kind: &str, id: u32) -> String {
    format!(r#"{{"type":"{kind}","id":{id}}}"#)
}

#[rstest]
#[case::right(vec![opened(), client(&message("ask", 1)), hub(&message("tick", 1)), hub(&message("answer", 1))], &[])]
#[case::never_opened(vec![opened(), client(&message("ask", 1)), hub(&message("tick", 2))], &["fail[MUST] hub"])]
#[case::ended(vec![opened(), client(&message("ask", 1)), hub(&message("answer", 1)), hub(&message("tick", 1))], &["fail[MUST-2] hub"])]
#[case::stopped(vec![opened(), client(&message("ask", 1)), client(&message("stop", 1)), hub(&message("tick", 1))], &[])]
#[case::joined_later(vec![hub(&message("tick", 2))], &[])]
#[case::after_an_unknown_message(vec![opened(), client("[]"), hub(&message("tick", 2))], &["info[unknown-message] client"])]
fn lifecycles_are_judged_by_both_directions(#[case] events: Vec<RecordedEvent>, #[case] expected: &[&str]) {
    assert_eq!(observed(&operations(), events), expected);
}

#[test]
fn a_finding_shows_the_frames_around_it_once_and_no_secret() {
    let secret = r#"[2,"s","Boot",{"password":"hunter2"}]"#;
    let wrong = r#"[3,"s",{"time":1}]"#;
    let mut events = vec![opened(), client(secret), hub(wrong)];
    events.extend((0..9).flat_map(|_| [client(secret), hub(wrong)]));
    let timed = events.into_iter().enumerate().map(|(second, event)| (1000 * second as i64, event)).collect();
    let traffic = observe(&calls(), timed);
    let [finding] = traffic.findings.as_slice() else { panic!("{traffic:?}") };
    assert_eq!((finding.times, finding.connections, finding.frames.len()), (10, 1, 5));
    let lines = finding.frame_lines();
    assert_eq!(lines[2], format!("> 00:00:02.000 from hub {wrong}"));
    assert!(lines[1].ends_with(r#"to hub   [2,"s","Boot",{"password":"***"}]"#), "{lines:?}");
    assert!(!format!("{traffic:?}").contains("hunter2"));
    let (started, duration, target) = (0, Duration::ZERO, "ws://hub".to_owned());
    let run = ObservedRun { traffic, target, started, duration, strict: false, failure: None };
    let page = run.page(&Sources::default(), Style::default());
    assert!(page.contains("\nfail[MUST] hub, connection 1: `booted` breaks its schema at /2: "), "{page}");
    let verdict = "FAIL small: 1 failure about the hub, no finding about the client, 20 frames on 1 connection\n";
    assert!(page.ends_with(verdict), "{page}");
    assert_eq!((run.exit_code(), run.test_results().suites.len()), (1, 2));
    assert!(!run.last_event().contains("hunter2"));
}

#[test]
fn kinds_of_findings_are_limited_however_many_a_client_invents() {
    let events: Vec<RecordedEvent> = (0..600).map(|kind| client(&format!(r#"[2,"a","Kind{kind}",{{}}]"#))).collect();
    let timed = events.into_iter().map(|event| (0, event)).collect();
    let traffic = observe(&calls(), timed);
    assert_eq!((traffic.findings.len(), traffic.dropped_findings), (500, 100));
}

/// Many ids on many connections are forgotten, and what was forgotten is unknown.
#[test]
fn ids_of_many_connections_are_limited() {
    let program = calls();
    let line = |connection, event| RecordedLine { time: 0, connection, event };
    let mut lines = Vec::new();
    for connection in 1..=30 {
        lines.push(line(connection, opened()));
        lines.extend((0..9_000).map(|id| line(connection, client(&format!(r#"[2,"{id}","Boot",{{}}]"#)))));
        lines.push(line(connection, hub(r#"[3,"8999",{"status":"x"}]"#)));
        lines.push(line(connection, hub(r#"[3,"8999",{"status":"x"}]"#)));
    }
    let traffic = judge(&program, &lines);
    let [finding] = traffic.findings.as_slice() else { panic!("{:?}", traffic.findings) };
    assert!(finding.check == "repeated-reply" && (15..30).contains(&finding.times), "{finding:?}");
}
