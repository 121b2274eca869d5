//! `hubproof observe` between `hubproof serve` and `hubproof check`, over real sockets; and replays of its recordings.

mod judging;

use std::io::{Read as _, Write as _};
use std::path::Path;

use rstest::rstest;
use serde_json::Value;

use crate::support::disk;
use crate::support::live_page::{EventReader, ask, live_page_of};
use crate::support::process::{ServeProcess, answer_to, free_port, hubproof, start};

/// Starts to observe a hub, with more arguments.
fn observe(url: &str, protocol: &str, arguments: &[&str]) -> ServeProcess {
    ServeProcess::start_as([&["observe", "--upstream", url, "--protocol", protocol], arguments].concat(), 2)
}

/// What `observe` prints about scenarios that `check` plays through it, and its exit code.
fn observe_check(served: &[&str], protocol: &str, scenarios: &str, arguments: &[&str]) -> (i32, String) {
    let hub = ServeProcess::start(served, 1);
    let observer = observe(hub.url(protocol), protocol, arguments);
    let mut check = vec!["check", observer.url("observe"), "--protocol", protocol, "--scenario", scenarios];
    if protocol == "airavata" {
        check.extend(["--set", "secrets.jwt_secret=key"]);
    }
    let done = hubproof(check);
    assert!(matches!(done.code, Some(0 | 1 | 3)), "{}", done.err);
    let (code, out) = observer.stop("TERM");
    (code.unwrap(), out)
}

/// A correct hub is not blamed, whatever clients send. They are, where they break their schemas on purpose.
#[rstest]
#[case::airavata(&["airavata", "--set", "airavata.jwt_secret=key"], "airavata", "airavata/[ms]*")]
#[case::concierge(&["concierge"], "concierge", "concierge/[gu]*")]
#[case::emprops(&["emprops"], "emprops", "emprops/[gs]*")]
#[case::gator(&["gator"], "gator", "gator/[rs]*")]
#[case::qi(&["qi"], "qi", "qi/[abcm]*")]
#[ignore = "thorough: many minutes of CPU"]
#[case::all_of_airavata(&["airavata", "--set", "airavata.jwt_secret=key"], "airavata", "airavata/*")]
#[ignore = "thorough: many minutes of CPU"]
#[case::all_of_concierge(&["concierge"], "concierge", "concierge/*")]
#[ignore = "thorough: many minutes of CPU"]
#[case::all_of_emprops(&["emprops"], "emprops", "emprops/*")]
#[ignore = "thorough: many minutes of CPU"]
#[case::all_of_gator(&["gator"], "gator", "gator/*")]
#[ignore = "thorough: many minutes of CPU"]
#[case::all_of_qi(&["qi"], "qi", "qi/*")]
fn a_correct_hub_is_not_blamed_for_what_passes(
    #[case] served: &[&str],
    #[case] protocol: &str,
    #[case] scenarios: &str,
) {
    let (code, out) = observe_check(served, protocol, scenarios, &["--side", "hub", "--strict"]);
    assert_eq!(code, 0, "{out}");
    let verdict = format!("\nPASS {protocol}: no finding about the hub, ");
    assert!(out.contains(&verdict) && !out.contains(" 0 frames "), "{out}");
}

#[rstest]
#[case::schema("qi-failure-payload-number", "qi", "qi/failures", "fail[QI-")]
#[case::repeated("qi-extended-reply-twice", "qi", "qi/sessions", "warn[QI-034]")]
#[case::binary("gator-success-binary", "gator", "gator/requests", "warn[GAT-002]")]
#[case::audience("emprops-assigned-worker-wrong", "emprops", "emprops/job-lifecycle", "fail[EMP-057]")]
#[case::job("emprops-completion-twice", "emprops", "emprops/job-lifecycle", "warn[doubled-job]")]
fn a_faulty_hub_is_accused_live_and_in_a_replay(
    #[case] fault: &str,
    #[case] protocol: &str,
    #[case] scenario: &str,
    #[case] expected: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let (code, live) =
        observe_check(&[protocol, "--fault", fault], protocol, scenario, &["--strict", "--record", path]);
    assert_eq!(code, 1, "{live}");
    let accusation = format!("\n{expected}");
    assert!(live.contains(&accusation) && live.contains(" hub, connection "), "{live}");
    let replay = hubproof(["observe", "--replay", path, "--protocol", protocol, "--strict"]).assert_exit_code(1);
    let without_head = |page: &str| page.split_once("\n\n").unwrap().1.to_owned();
    assert_eq!(without_head(&replay.out), without_head(&live));
}

/// The rules for jobs are those of the pack's load plans.
#[test]
fn jobs_are_followed_as_they_pass() {
    let (code, out) = observe_check(&["emprops"], "emprops", "emprops/job-lifecycle", &["--side", "hub"]);
    let jobs = out.lines().find(|line| line.trim_start().starts_with("jobs ")).unwrap_or_else(|| panic!("{out}"));
    for part in [" submitted, ", " accepted, ", " assigned, ", " completed, ", ", 0 doubled"] {
        assert!(jobs.contains(part), "{jobs}");
    }
    assert!(code == 0 && !jobs.contains("lost") && !jobs.contains("earlier"), "{out}");
}

/// What a check sends on purpose is the client's fault.
#[test]
fn broken_messages_of_a_client_are_the_clients_fault() {
    let (code, out) = observe_check(&["qi"], "qi", "qi/malformed", &[]);
    assert!(out.contains(" client, connection ") && !out.contains(" hub, connection "), "{out}");
    assert!(out.contains("no finding about the hub, ") && matches!(code, 0 | 1), "{code} {out}");
}

#[test]
fn a_recording_of_record_is_judged_and_reported_like_live_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("qi.jsonl");
    let file = file.to_str().unwrap();
    let hub = ServeProcess::start(["qi", "--fault", "qi-failure-payload-number"], 1);
    let record = ServeProcess::start_as(["record", hub.url("qi"), "--to", file], 2);
    hubproof(["check", record.url("record"), "--protocol", "qi", "--scenario", "qi/failures"]).assert_exit_code(1);
    record.stop("INT");
    let replay = ["observe", "--replay", file, "--protocol", "qi"];
    let page = hubproof(replay).assert_exit_code(1);
    assert!(
        page.out.contains("\nfail[QI-") && page.out.contains("\nFAIL qi: 1 failure about the hub, "),
        "{}",
        page.out
    );
    let events = hubproof(replay.iter().chain(&["--report", "events=-"])).assert_exit_code(1);
    let events: Vec<Value> = events.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let schema = std::fs::read_to_string(disk::root().join("schemas/hubproof/observe-events.schema.json")).unwrap();
    let schema = jsonschema::draft202012::new(&serde_json::from_str(&schema).unwrap()).unwrap();
    assert!(events.iter().all(|event| schema.is_valid(event)), "{events:#?}");
    assert_eq!((&events[0]["event"], &events[0]["target"]), (&"observing-started".into(), &file.into()));
    assert!(events.iter().any(|event| event["event"] == "finding" && event["side"] == "hub"));
    assert_eq!(events.last().unwrap()["exit_code"], 1);
    let junit = hubproof(replay.iter().chain(&["--report", "junit=-"])).assert_exit_code(1);
    assert!(junit.out.contains("<failure ") && junit.out.contains("name=\"qi: hub\""), "{}", junit.out);
    // Only what is asked for is judged.
    let client = hubproof(replay.iter().chain(&["--side", "client"])).assert_exit_code(0);
    assert!(!client.out.contains(" about the hub"), "{}", client.out);
}

/// Returns the texts of all files in a folder.
fn recorded(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn secrets_are_masked_in_what_is_printed_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let hub = ServeProcess::start(["concierge"], 1);
    let url = format!("{}/?token=hunter1", hub.url("concierge"));
    let server = observe(&url, "concierge", &["--record", folder.path().to_str().unwrap()]);
    let address = server.url("observe").strip_prefix("ws://").unwrap().to_owned();
    assert!(!server.url("hub").contains("hunter1"));
    let mut stream = upgraded(&address);
    // Unmasked, which is a finding that shows the frames before it.
    stream.write_all(&masked(br#"{"type":"IDENTIFY","name":"a","version":"0.1.0","secret":"hunter2"}"#)).unwrap();
    stream.write_all(b"\x81\x02{}").unwrap();
    drop(stream);
    let (code, out) = stop_after_ends(server, &folder.path().join("traffic-000001.jsonl"));
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("***") && !out.contains("hunter"), "{out}");
    let recorded = recorded(folder.path());
    assert!(recorded.contains("***") && !recorded.contains("hunter"), "{recorded}");
}

/// Waits until the recording has the violation, and ends the run.
fn stop_after_ends(server: ServeProcess, recording: &Path) -> (Option<i32>, String) {
    let begun = std::time::Instant::now();
    while !std::fs::read_to_string(recording).is_ok_and(|text| text.contains("\"broken\"")) {
        assert!(begun.elapsed().as_secs() < 60, "nothing is recorded");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    server.stop("INT")
}

/// Connects, and waits for the upgrade.
fn upgraded(address: &str) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: ert-concierge\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stream
}

/// A short text frame of a client.
fn masked(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend(text);
    frame
}

/// Peers that speak no protocol, send half a frame or never end do not keep others from being observed.
#[test]
fn hostile_peers_do_not_stop_the_relay() {
    let hub = ServeProcess::start(["qi"], 1);
    let metrics = format!("127.0.0.1:{}", free_port());
    let server = observe(hub.url("qi"), "qi", &["--metrics", &metrics]);
    let address = server.url("observe").strip_prefix("ws://").unwrap().to_owned();
    let mut kept: Vec<std::net::TcpStream> = (0..20).map(|_| upgraded(&address)).collect();
    for (number, stream) in kept.iter_mut().enumerate() {
        // A message without end, garbage, and half a header.
        let bytes: &[u8] = match number % 3 {
            0 => b"\x01\xff\0\0\0\0\0\xf0\0\0\0\0\0\0",
            1 => b"\xff\xff\xff\xff\xff\xff",
            _ => b"\x81",
        };
        let _ = stream.write_all(bytes);
        let flood = vec![b'x'; 1 << 20];
        let _ = stream.set_write_timeout(Some(std::time::Duration::from_millis(200)));
        let _ = (number % 3 == 0).then(|| (0..4).map(|_| stream.write_all(&flood).is_ok()).count());
    }
    assert!(answer_to(&address, "nonsense\r\n\r\n").len() < 1000);
    let check = ["check", server.url("observe"), "--protocol", "qi", "--scenario", "qi/base"];
    hubproof(check).assert_exit_code(0);
    let page = answer_to(&metrics, "GET /metrics HTTP/1.1\r\n\r\n");
    assert!(page.contains("\nhubproof_observed_frames_total{side=\"hub\"} "), "{page}");
    let (code, out) = server.stop("TERM");
    assert!(code == Some(1) && out.contains("fail[websocket] client, "), "{out}");
}

#[rstest]
#[case::nothing(&["--protocol", "qi"], "--upstream <URL>")]
#[case::both(&["--protocol", "qi", "--upstream", "ws://h", "--replay", "x"], "cannot be used with")]
#[case::no_recording(&["--protocol", "qi", "--replay", "README.md"], "this line is not a recorded frame")]
#[case::no_file(&["--protocol", "qi", "--replay", "no-such.jsonl"], "failed to read no-such.jsonl")]
#[case::format(&["--protocol", "qi", "--replay", "x", "--report", "csv=x"], "there is no report format `csv`")]
fn a_wrong_argument_is_a_mistake(#[case] arguments: &[&str], #[case] expected: &str) {
    let done = hubproof(["observe"].iter().chain(arguments)).assert_exit_code(2);
    assert!(done.err.contains(expected), "{}", done.err);
}

#[test]
fn a_run_that_observed_nothing_is_inconclusive() {
    let server = observe("ws://127.0.0.1:1", "qi", &[]);
    let (code, out) = server.stop("INT");
    assert!(code == Some(3) && out.contains("INCONCLUSIVE qi: no finding about the hub, "), "{out}");
}

#[test]
fn a_page_shows_what_is_observed_and_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("report.html");
    let report = format!("html={}", html.display());
    let hub = ServeProcess::start(["qi", "--fault", "qi-failure-payload-number"], 1);
    let words = ["observe", "--upstream", hub.url("qi"), "--protocol", "qi", "--live", "0", "--report", "tap=-"];
    let run = start(words.iter().chain(&["--report", &report]), &[]);
    let (address, token) = live_page_of(&run);
    let printed = run.wait_for_stderr("observe ws://");
    let url = printed.lines().find_map(|line| line.strip_prefix("observe ")).unwrap();
    let press = |button: &str| ask(&address, "POST", &format!("/{button}?token={token}"), &[]).0;
    let mut reader = EventReader::open(&address, &token);
    let body = |update: &Value| update["body"].as_str().unwrap().to_owned();
    let first = reader.next().unwrap();
    assert!(body(&first).contains("qi: observing") && body(&first).contains("None so far"), "{first}");
    hubproof(["check", url, "--protocol", "qi", "--scenario", "qi/failures"]).assert_exit_code(1);
    let found = reader.find("a finding", |update| body(update).contains("breaks its schema"));
    assert!(body(&found).contains("<strong>&gt; ") && body(&found).contains("data-live=\"stop\""), "{found}");
    assert_eq!((press("hold"), press("stop")), (409, 200));
    let last = reader.find("the last", |update| update["ended"] == true);
    assert!(body(&last).contains("FAIL qi: 1 failure about the hub, ") && !body(&last).contains("data-live"), "{last}");
    run.wait_for_end().assert_exit_code(1);
    assert!(std::fs::read_to_string(&html).unwrap().contains(&body(&last)), "{last}");
}
