//! What observed conversations show about both sides.

use std::sync::Arc;
use std::time::Duration;

use hubproof::import::recording::{RecordedEvent, RecordedLine, SentFrame, Side};
use hubproof::observe::jobs::{JobMark, JobRule};
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
    judge_jobs(program, Vec::new(), lines)
}

fn judge_jobs(program: &Arc<Program>, rules: Vec<JobRule>, lines: &[RecordedLine]) -> ObservedTraffic {
    let (pack, patience) = (Arc::clone(&program.pack), Duration::from_secs(30));
    let judge = TrafficJudge::new(pack, Some(Arc::clone(program)), None, patience, SecretMasker::default());
    let mut judge = judge.with_jobs(rules);
    lines.iter().for_each(|line| drop(judge.judge_line(line)));
    judge.finish();
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

/// A `tick` goes only to clients that asked with its id; what scenarios never send is not judged.
fn audience() -> Arc<Program> {
    let ids = |frames: &str| format!("{frames} | map(attribute='id')");
    let always = format!(
        "always:
  - check: \"${{{} | reject('in', {} | list) | list}}\"
    fits: {{ maxItems: 0 }}
    says: a tick for another client
    rules: [SHOULD]
  - check: \"${{{} | list}}\"
    fits: {{ uniqueItems: true }}
    rules: [MUST]
  - check: \"${{sent_frames('ask') | length < 1 or self.name is defined}}\"
    rules: [MUST-2]
",
        ids("frames('tick')"),
        ids("sent_frames('ask')"),
        ids("frames('notice')"),
    );
    program(OPERATIONS, &format!("{PLAIN_ROLES}{always}"), SCENARIO)
}

#[rstest]
#[case::asked(vec![opened(), client(&message("ask", 1)), hub(&message("tick", 1)), close(Side::Client, 1000)], &[])]
#[case::for_another(vec![opened(), client(&message("ask", 1)), hub(&message("tick", 2)), close(Side::Client, 1000)], &["warn[SHOULD] hub"])]
#[case::without_a_close(vec![opened(), hub(&message("tick", 2))], &["warn[SHOULD] hub"])]
#[case::after_the_close(vec![opened(), close(Side::Client, 1000), hub(&message("tick", 2))], &[])]
#[case::joined_later(vec![hub(&message("tick", 2)), close(Side::Client, 1000)], &[])]
#[case::after_an_unknown_message(vec![opened(), client("[]"), hub(&message("tick", 2))], &["info[unknown-message] client"])]
#[case::masked(vec![opened(), client(r#"{"type":"ask","id":"***"}"#), hub(&message("tick", 2))], &[])]
#[case::what_scenarios_never_send(vec![opened(), hub(&message("notice", 1)), hub(&message("notice", 1))], &[])]
fn an_audience_is_judged_by_all_that_passed(#[case] events: Vec<RecordedEvent>, #[case] expected: &[&str]) {
    assert_eq!(observed(&audience(), events), expected);
}

/// The first thousand messages of a connection are judged, and take no memory after that.
#[test]
fn a_long_connection_is_judged_by_its_beginning() {
    let ticks = |last: u32| {
        let mut events = vec![opened(), client(&message("ask", 1))];
        events.extend((0..1_500).map(|_| hub(&message("tick", 1))));
        events.insert(last as usize, hub(&message("tick", 2)));
        observe(&audience(), events.into_iter().map(|event| (0, event)).collect())
    };
    assert_eq!((found(&ticks(900)), found(&ticks(1_400))), (vec!["warn[SHOULD] hub".to_owned()], Vec::new()));
    let traffic = ticks(900);
    assert!(traffic.findings[0].message.starts_with("a tick for another client ("), "{traffic:?}");
    assert!(traffic.findings[0].frames.iter().all(|frame| !frame.is_judged), "{traffic:?}");
}

/// Judges lines of several connections by rules for jobs: `ask` submits, `notice` accepts, `tick` assigns, `done` gives
/// back and `answer` completes. Each line has a time in seconds, a connection and an event.
fn observe_jobs(lines: Vec<(i64, u64, RecordedEvent)>) -> ObservedTraffic {
    let program = operations_without_rules();
    let rule = |name: &str, by, mark, id: Option<&str>| {
        let message = program.pack.message_index(name).unwrap();
        JobRule { message, by, mark, id: id.map(str::to_owned) }
    };
    let rules = vec![
        rule("ask", Side::Client, JobMark::Submitted, None),
        rule("notice", Side::Hub, JobMark::Accepted, Some("/id")),
        rule("tick", Side::Hub, JobMark::Assigned, Some("/id")),
        rule("done", Side::Client, JobMark::Released, Some("/id")),
        rule("answer", Side::Hub, JobMark::Completed, Some("/id")),
    ];
    let line = |(time, connection, event)| RecordedLine { time: 1000 * time, connection, event };
    judge_jobs(&program, rules, &lines.into_iter().map(line).collect::<Vec<_>>())
}

fn operations_without_rules() -> Arc<Program> {
    program(OPERATIONS, PLAIN_ROLES, SCENARIO)
}

#[rstest]
#[case::right(vec![(2, 2, hub(&message("tick", 1))), (3, 1, hub(&message("answer", 1)))], &[])]
#[case::two_clients_are_told(vec![(3, 1, hub(&message("answer", 1))), (3, 3, hub(&message("answer", 1)))], &[])]
#[case::assigned_before_but_seen_later(vec![(3, 1, hub(&message("answer", 1))), (4, 2, hub(&message("tick", 1)))], &[])]
#[case::completed_twice(vec![(3, 1, hub(&message("answer", 1))), (9, 1, hub(&message("answer", 1)))], &["warn[doubled-job] hub, connection 1: job 1 was completed a second time for one client"])]
#[case::assigned_after_completion(vec![(3, 1, hub(&message("answer", 1))), (5, 2, hub(&message("tick", 1)))], &["warn[doubled-job] hub, connection 2: job 1 was assigned after its completion"])]
#[case::assigned_again_after_a_release(vec![(2, 2, hub(&message("tick", 1))), (3, 2, client(&message("done", 1))), (4, 2, hub(&message("tick", 1)))], &[])]
#[case::nothing_for_long(vec![(60, 2, close(Side::Client, 1000)), (60, 1, client(&message("stop", 9)))], &[])]
#[case::lost(vec![(2, 2, hub(&message("tick", 1))), (3, 2, close(Side::Client, 1000)), (60, 1, hub(&message("notice", 9)))], &["info[lost-job] hub, connection 1: job 1 was accepted, its worker has left or given it back, and no message about it came in the last 58.00 s"])]
#[case::being_worked_on(vec![(2, 2, hub(&message("tick", 1))), (60, 1, hub(&message("notice", 9)))], &[])]
#[case::from_earlier(vec![(2, 1, hub(&message("answer", 1))), (3, 2, hub(&message("tick", 8))), (60, 1, hub(&message("answer", 1)))], &["warn[doubled-job] hub, connection 1: job 1 was completed a second time for one client"])]
fn a_job_that_is_doubled_or_lost_is_named(#[case] more: Vec<(i64, u64, RecordedEvent)>, #[case] expected: &[&str]) {
    let mut lines = vec![(0, 1, opened()), (0, 2, opened()), (0, 3, opened())];
    lines.extend([(0, 1, client(&message("ask", 1))), (1, 1, hub(&message("notice", 1)))]);
    lines.extend(more);
    let traffic = observe_jobs(lines);
    let found: Vec<String> = traffic.findings.iter().map(|finding| finding.headline()).collect();
    assert_eq!(found.iter().filter(|one| !one.contains("unanswered")).collect::<Vec<_>>(), expected);
}

#[test]
fn jobs_are_counted_by_what_became_of_them() {
    let mut lines = vec![(0, 1, opened()), (0, 2, opened())];
    for id in 1..=3 {
        lines.extend([(1, 1, client(&message("ask", id))), (1, 1, hub(&message("notice", id)))]);
    }
    lines.extend([
        (2, 2, hub(&message("tick", 1))),
        (2, 2, hub(&message("tick", 2))),
        (3, 1, hub(&message("answer", 1))),
    ]);
    lines.push((3, 2, hub(&message("tick", 77))));
    let traffic = observe_jobs(lines);
    let jobs = traffic.jobs.unwrap();
    assert_eq!((jobs.submitted, jobs.accepted, jobs.assigned, jobs.completed), (3, 3, 3, 1));
    assert_eq!((jobs.open, jobs.earlier, jobs.doubled, jobs.lost), (3, 1, 0, 0));
    assert!(
        traffic.metrics().contains("hubproof_observed_jobs_total{state=\"accepted\"} 3\n"),
        "{}",
        traffic.metrics()
    );
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
