//! What a run shows while it lasts: `load --live` (who is answered, the events of a run, hold and stop), and `--quiet`.

use rstest::rstest;
use serde_json::Value;

use crate::support::live_page::{EventReader, ask, live_page_of};
use crate::support::process::{RunningProcess, hubproof, start};

/// Starts a long run with a page; returns its address and token.
fn start_run(more: &[&str]) -> (RunningProcess, String, String) {
    let base = ["load", "--protocol", "qi", "--rate", "50", "--warm-up", "0s", "--duration", "10m", "--drain", "5s"];
    let run = start(base.iter().chain(&["--live", "0"]).chain(more), &[]);
    let (address, token) = live_page_of(&run);
    (run, address, token)
}

#[test]
#[cfg(unix)]
fn only_requests_with_the_token_from_the_page_itself_are_answered() {
    let (run, address, token) = start_run(&[]);
    let with_token = |path: &str| format!("{path}?token={token}");
    let status = |method: &str, path: &str, headers: &[(&str, &str)]| ask(&address, method, path, headers).0;
    let page = ask(&address, "GET", &with_token("/"), &[]);
    assert_eq!(page.0, 200);
    assert!(page.1.contains("connect-src 'self'") && page.1.contains("default-src 'none'"), "{}", page.1);
    assert!(page.1.to_lowercase().contains("cache-control: no-store"), "{}", page.1);
    for path in ["/", "/events", "/hold"] {
        assert_eq!(status("GET", path, &[]), 403, "{path} without a token");
        assert_eq!(status("GET", &format!("{path}?token={}", &token[1..]), &[]), 403, "{path} with another token");
    }
    // A name that resolves to this machine may belong to a stranger's page.
    let rebound = [("Host", "stranger.example:80")];
    assert_eq!(status("GET", &with_token("/"), &rebound), 403);
    assert_eq!(status("POST", &with_token("/stop"), &[("Origin", "http://stranger.example")]), 403);
    assert_eq!(status("POST", &with_token("/stop"), &[("Origin", "null")]), 403);
    assert_eq!(status("GET", &with_token("/stop"), &[]), 405);
    assert_eq!(status("GET", &with_token("/other"), &[]), 404);
    let own = format!("http://{address}");
    assert_eq!(status("POST", &with_token("/resume"), &[("Origin", &own)]), 409, "it is not held");
    // At most 16 readers have a place.
    let mut readers: Vec<EventReader> = (0..16).map(|_| EventReader::open(&address, &token)).collect();
    readers.iter_mut().for_each(|reader| drop(reader.next().unwrap()));
    assert_eq!(status("GET", &with_token("/events"), &[]), 503);
    // All of them see the end, although most of them do not read meanwhile.
    assert_eq!(status("POST", &with_token("/stop"), &[("Origin", &own)]), 200);
    let mut last = readers.pop().unwrap();
    last.find("the last", |update| update["ended"] == true);
    assert_eq!(last.next(), None);
    run.wait_for_end().assert_exit_code(3);
}

#[test]
#[cfg(unix)]
fn a_reader_sees_the_whole_run_and_then_each_second_and_can_hold_and_stop_it() {
    let folder = tempfile::tempdir().unwrap();
    let [json, events] = ["run.json", "run.jsonl"].map(|name| folder.path().join(name));
    let reports = [format!("json={}", json.display()), format!("events={}", events.display())];
    let (run, address, token) = start_run(&["--report", &reports[0], "--report", &reports[1]]);
    let press = |button: &str| ask(&address, "POST", &format!("/{button}?token={token}"), &[]).0;
    let mut reader = EventReader::open(&address, &token);
    let first = reader.next().unwrap();
    assert_eq!(first["next"], false, "the first update has the whole run");
    let plots = |update: &Value| update["plots"].as_array().unwrap().clone();
    let second = reader.find("the next interval", |update| update["next"] == true);
    for plot in plots(&second).iter().filter(|plot| plot["kind"] == "lines" && plot["xUnit"] == "s") {
        assert_eq!(plot["x"].as_array().unwrap().len(), 1, "{plot}");
    }
    let text = second["body"].as_str().unwrap();
    for part in ["qi/load/sessions: running", "data-live=\"hold\"", "Latency", "Ledger", "no errors"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let begun = reader.find("measured", |update| update["phase"] == "measured");
    assert_eq!(press("hold"), 200);
    assert_eq!(press("hold"), 409, "it is held already");
    let held = reader.find("held", |update| update["phase"] == "held");
    assert!(held["from"].as_f64() >= begun["to"].as_f64(), "{held}");
    assert!(held["body"].as_str().unwrap().contains("data-live=\"resume\""));
    assert_eq!(press("resume"), 200);
    reader.find("measured again", |update| {
        update["phase"] == "measured" && update["from"].as_f64() > held["from"].as_f64()
    });
    assert_eq!(press("stop"), 200);
    let last = reader.find("the last", |update| update["ended"] == true);
    assert_eq!(reader.next(), None, "the stream ends with the final page");
    let done = run.wait_for_end().assert_exit_code(3);
    // The page has become that of `--report html=`.
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let (body, summary) = (last["body"].as_str().unwrap(), report["run"]["summary"].as_str().unwrap());
    assert!(body.contains(summary) && !body.contains("data-live"), "{body}");
    assert_eq!(report["run"]["interrupted"], true);
    let [hold] = &report["run"]["holds"].as_array().unwrap()[..] else { panic!("{}", report["run"]["holds"]) };
    assert_eq!(hold["from_s"], held["from"]);
    let notes = report["validity"]["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note["code"] == "held"), "{notes:?}");
    assert!(done.out.contains("new journeys were held back from"), "{}", done.out);
    // The held time is not measured, and nothing begins in it but what was due just before.
    let intervals = report["intervals"].as_array().unwrap();
    let of = |phase: &str| intervals.iter().filter(|one| one["phase"] == phase).collect::<Vec<_>>();
    let length = |one: &&Value| one["to_s"].as_f64().unwrap() - one["from_s"].as_f64().unwrap();
    let measured: f64 = of("measured").iter().map(length).sum();
    assert!((measured - report["run"]["measured_s"].as_f64().unwrap()).abs() < 1e-6, "{measured}");
    let started = of("held").iter().filter_map(|one| one["counts"]["session.started"].as_u64()).sum::<u64>();
    assert!(started < 10, "50 per second would be due: {:?}", of("held"));
    // Page and events are made from the same intervals.
    let lines = std::fs::read_to_string(&events).unwrap();
    assert!(lines.lines().any(|line| line.contains(r#""phase":"held""#)), "{lines}");
}

#[test]
fn an_address_must_be_a_port_or_an_ip_address_and_a_port() {
    let base = ["load", "--protocol", "qi", "--live"];
    for address in ["example.com:80", "127.0.0.1", ":80"] {
        let done = hubproof(base.iter().chain(&[address])).assert_exit_code(2);
        assert!(done.err.contains("write PORT for this machine alone, or IP:PORT"), "{}", done.err);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let done = hubproof(base.iter().chain(&[address.as_str()])).assert_exit_code(2);
    assert!(done.err.contains("failed to serve the live page on"), "{}", done.err);
}

/// Only errors and verdict lines are printed, and all reports are written.
#[rstest]
#[case::check(&["check", "--scenario", "concierge/message-to-one", "--fault", "concierge-name-broadcast"], "FAIL concierge: ", 1)]
#[case::fuzz(&["fuzz", "--protocol", "qi", "--cases", "20", "--seed", "1"], "PASS qi: ", 0)]
#[case::load(&["load", "--protocol", "qi", "--rate", "20", "--warm-up", "0s", "--duration", "1s", "--drain", "5s", "--seed", "1"], " qi/load/sessions: ", 0)]
fn a_quiet_run_prints_the_verdict_alone_and_writes_its_reports(
    #[case] arguments: &[&str],
    #[case] verdict: &str,
    #[case] code: i32,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let report = format!("json={}", path.display());
    for option in ["-q", "--quiet"] {
        let done = hubproof(arguments.iter().chain(&[option, "--report", &report])).assert_exit_code(code);
        assert_eq!(done.err, "");
        assert_eq!(done.out.lines().count(), 1, "{}", done.out);
        assert!(done.out.contains(verdict), "{}", done.out);
        let _: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_report_on_stdout_moves_the_verdict_to_stderr() {
    let done = hubproof(["check", "--scenario", "qi/base", "-q", "--report", "json=-"]).assert_exit_code(0);
    let _: Value = serde_json::from_str(&done.out).unwrap();
    assert!(done.err.starts_with("PASS qi: ") && done.err.lines().count() == 1, "{}", done.err);
}

#[test]
fn errors_are_printed_and_options_that_print_more_are_refused() {
    let done = hubproof(["check", "ws://127.0.0.1:1", "--protocol", "qi", "--scenario", "qi/base", "-q"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.out.starts_with("INCONCLUSIVE qi: "), "{}", done.out);
    for other in ["--trace", "--verbose"] {
        let done = hubproof(["check", "-q", other]).assert_exit_code(2);
        assert!(done.err.contains("cannot be used with"), "{}", done.err);
    }
}

/// A run says how much is to come before anything is played.
#[test]
fn the_number_of_scenarios_is_shown_first() {
    let done = hubproof(["check", "--protocol", "qi", "--scenario", "base", "--scenario", "jobs"]).assert_exit_code(0);
    assert_eq!(done.err.lines().next(), Some("playing 2 scenarios"), "{}", done.err);
}
