//! `hubproof fuzz`: findings, output and exit codes.

pub mod saved;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::hostile_servers::ScriptedHub;
use crate::support::process::{ServeProcess, free_port, hubproof, start};

fn fuzz(arguments: &[&str]) -> crate::support::process::ProcessResult {
    hubproof(std::iter::once("fuzz").chain(arguments.iter().copied()))
}

#[rstest]
#[case::message(&["--protocol", "qi", "--message", "base_reqest"], "no case has the message `base_reqest`")]
#[case::mutation(&["--protocol", "qi", "--mutation", "mising"], "no case has the mutation `mising`")]
#[case::no_place(&["--protocol", "qi", "--mutation", "foreign-id"], "qi/base_request: the observer's role identifies itself in no")]
#[case::no_protocol(&["ws://127.0.0.1:1"], "the protocol of the hub is not given")]
#[case::no_messages(&["--protocol", "websocket"], "no case can be made for websocket")]
#[case::elsewhere(&["ws://192.0.2.1:80", "--protocol", "qi"], "--yes")]
#[case::no_cases(&["--protocol", "qi", "--cases", "0"], "invalid value")]
#[case::whose_case(&["--protocol", "qi", "--protocol", "gator", "--case", "1"], "choose one with --protocol")]
fn a_wrong_argument_is_an_error(#[case] arguments: &[&str], #[case] words: &str) {
    let done = fuzz(arguments).assert_exit_code(2);
    assert!(done.err.contains(words), "{}", done.err);
}

/// An emprops hub with a pending job of another client: the worker of every case is assigned that one.
fn serve_with_pending_job() -> ServeProcess {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leaves.yaml");
    let job = "{ priority: 99, /requirements: {} }";
    let steps =
        format!("  - client joins:\n  - client sends: submit_job\n    with: {job}\n  - client expects: job_accepted\n");
    let text = format!("title: A job is left\nactors: {{ client: client }}\nsteps:\n{steps}    rules: [EMP-028]\n");
    std::fs::write(&file, text).unwrap();
    let hub = ServeProcess::start(["emprops"], 1);
    let url = hub.url("emprops");
    hubproof(["check", url, "--protocol", "emprops", "--scenario", file.to_str().unwrap()]).assert_exit_code(0);
    hub
}

#[test]
#[ignore = "thorough: waits for real time"]
fn hub_state_from_before_the_run_is_not_a_finding() {
    let hub = serve_with_pending_job();
    // Cases run one after the other, so that one of them is assigned the job. The job is not in the model.
    let arguments = [hub.url("emprops"), "--protocol", "emprops", "--seed", "7", "-j", "1", "--stretch", "0.5"];
    let cases = ["--message", "job_accepted_by_worker", "--mutation", "invalid-utf8", "--cases", "12"];
    let done = fuzz(&[&arguments[..], &["--against", "none"], &cases].concat()).assert_exit_code(3);
    let output = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    let shows = [
        "warn[FUZZ-UNDISTURBED]",
        "received; it also fails without the mutation (control run)",
        "cannot be completed even without its mutation. The cause may be a message of this run, or the state the hub \
         was in before it",
    ];
    assert!(shows.iter().all(|words| output.contains(words)) && !output.contains("fail["), "{}", done.out);
}

/// Each finding shows whole frames until all of them take two megabytes.
#[test]
fn reports_of_large_wrong_frames_stay_small() {
    let hub = ScriptedHub::start(|_, _, text| {
        let asked: Value = serde_json::from_str(text).unwrap_or_default();
        let large = "wrong ".repeat(20_000);
        vec![json!({ "status": large, "session_id": asked["session_id"] }).to_string()]
    });
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let reports: Vec<String> = ["json", "html", "junit", "events"]
        .into_iter()
        .flat_map(|format| ["--report".to_owned(), format!("{format}={}", file(format))])
        .collect();
    let url = hub.url();
    let cases = [&url, "--protocol", "qi", "--cases", "60", "--seed", "1", "-j", "8", "--set", "patience=500ms"];
    fuzz(&cases.into_iter().chain(reports.iter().map(String::as_str)).collect::<Vec<_>>()).assert_exit_code(1);
    for format in ["json", "html", "junit", "events"] {
        let size = std::fs::metadata(file(format)).unwrap().len();
        assert!((1000..4_000_000).contains(&size), "{format}: {size} bytes");
    }
}

/// All cases share one hub, so mutations of other cases also disturb the control runs.
#[rstest]
#[case::half_done("concierge-fuzz-half-group", "group_create", "missing")]
#[ignore = "thorough: waits for real time"]
#[case::others("concierge-fuzz-subscriptions-lost", "group_delete", "truncated")]
fn concurrent_cases_do_not_hide_a_finding(#[case] fault: &str, #[case] message: &str, #[case] mutation: &str) {
    let hub = ServeProcess::start(["concierge", "--fault", fault], 1);
    let odd = ["--message", message, "--mutation", mutation, "--cases", "120", "--seed", "1", "-j", "8"];
    let arguments: Vec<&str> = [hub.url("concierge"), "--protocol", "concierge"].into_iter().chain(odd).collect();
    let done = fuzz(&arguments).assert_exit_code(1);
    assert!(done.out.contains("fail[FUZZ-KEEPS]"), "{}", done.out);
}

/// A case with one mutated message is shown rather than one with dozens, even if that has a lower number (as in seed 4).
#[test]
fn a_finding_shows_a_case_with_one_mutated_message_over_one_with_many() {
    let base = ["--protocol", "qi", "--seed", "4"];
    let all = |more: &[&str]| fuzz(&base.iter().chain(more).copied().collect::<Vec<_>>());
    let done = all(&["--case", "157", "--case", "190", "--fault", "qi-failure-payload-number"]).assert_exit_code(1);
    let cases = |words: &str, until: char| -> Vec<String> {
        let named = done.out.lines().filter_map(|line| line.split_once(words)).map(|(_, rest)| rest);
        named.map(|rest| rest.split(until).next().unwrap().trim().to_owned()).collect()
    };
    let placement = |case: &str| {
        let printed = all(&["--case", case, "--print-cases"]).assert_exit_code(0).out;
        serde_json::from_str::<Value>(printed.lines().next().unwrap()).unwrap()["placement"].clone()
    };
    let of_many = |case: &String| ["kept", "anew"].iter().any(|name| placement(case) == *name);
    let (shown, first) = (cases(" --case ", ' '), cases(" cases: ", ','));
    assert!(!shown.is_empty() && !shown.iter().any(of_many), "{shown:?}");
    assert!(first.iter().any(of_many), "{first:?}");
}

/// Without a reachable hub there is no table of cells.
#[test]
fn an_unreachable_hub_is_inconclusive() {
    let done = fuzz(&["ws://127.0.0.1:1", "--protocol", "qi", "--seed", "1", "--cases", "5"]).assert_exit_code(3);
    let output = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        output.contains("nothing listens at 127.0.0.1:1") && output.contains("is this its address?"),
        "{}",
        done.out
    );
    assert!(!output.contains("at every moment"), "{}", done.out);
    let lead = output.split("seed ").next().unwrap();
    assert!(lead.contains("The hub at ws://127.0.0.1:1 could not be reached: nothing listens"), "{}", done.out);
    assert!(lead.contains("5 cases needed a connection; nothing was checked."), "{}", done.out);
    // Cases with an unmet need do not connect, so they do not find the hub gone.
    let done = fuzz(&["ws://127.0.0.1:1", "--protocol", "qi", "--seed", "640126", "--cases", "40"]).assert_exit_code(3);
    assert!(done.out.contains("`setting ") && !done.out.contains("FUZZ-LIVES"), "{}", done.out);
}

/// A hub that was never reachable has not crashed, whatever else its cases need.
#[rstest]
#[ignore = "thorough: many minutes of CPU"]
#[case::airavata("airavata")]
#[ignore = "thorough: many minutes of CPU"]
#[case::gator("gator")]
#[case::qi("qi")]
#[ignore = "thorough: many minutes of CPU"]
#[case::concierge("concierge")]
#[ignore = "thorough: many minutes of CPU"]
#[case::emprops("emprops")]
fn a_hub_that_was_never_reached_is_not_reported_as_lost(#[case] protocol: &str) {
    let done = fuzz(&["ws://127.0.0.1:1", "--protocol", protocol, "--seed", "1", "--cases", "150"]).assert_exit_code(3);
    assert!(!done.out.contains("FUZZ-LIVES") && !done.out.contains("is gone"), "{}", done.out);
    assert!(done.verdict().starts_with(&format!("INCONCLUSIVE {protocol}: no finding in 150 cases ")), "{}", done.out);
}

/// One JSON object per line, with values of the hub left as expressions, and the same for every `-j`.
#[rstest]
#[case::qi("qi")]
#[ignore = "thorough: many minutes of CPU"]
#[case::emprops("emprops")]
fn cases_are_printed_without_a_hub(#[case] protocol: &str) {
    let print = |jobs: &str, seed: &str| {
        fuzz(&["--protocol", protocol, "--cases", "150", "--seed", seed, "--print-cases", "-j", jobs])
            .assert_exit_code(0)
            .out
    };
    let cases = print("1", "7");
    assert_eq!(cases, print("32", "7"));
    assert_ne!(cases, print("1", "8"));
    let cases: Vec<Value> = cases.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() > 130, "{}", cases.len());
    assert!(cases.iter().any(|case| case["scenario"].to_string().contains("${")));
    assert!(cases.iter().all(|case| case["scenario"]["steps"].is_array() && case["seed"] == 7));
}

/// A case depends only on seed and number, not on the selection.
#[test]
fn selecting_cases_does_not_change_what_they_send() {
    let print = |more: &[&str]| {
        let all: Vec<&str> = ["--protocol", "qi", "--seed", "7", "--print-cases"].iter().chain(more).copied().collect();
        fuzz(&all).assert_exit_code(0).out
    };
    let chosen = print(&["--mutation", "missing", "--cases", "5"]);
    assert_eq!(chosen.lines().count(), 5);
    for line in chosen.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        assert_eq!(case["mutation"], "missing");
        assert_eq!(print(&["--case", &case["case"].to_string()]).trim(), line);
    }
}

/// A fault that scenarios find as well: its finding in all report formats.
const FAULTY_HUB_ARGUMENTS: [&str; 8] =
    ["--fault", FAULT, "--protocol", "qi", "--seed", "1", "--mutation", "wrong-type"];
const FAULT: &str = "qi-failure-payload-number";

#[test]
fn a_fault_is_found_and_reported_in_all_formats() {
    let folder = tempfile::tempdir().unwrap();
    let (json, known) = (folder.path().join("report.json"), folder.path().join("known.toml"));
    let (report, known) = (format!("json={}", json.display()), known.display().to_string());
    let run = |more: &[&str]| {
        fuzz(&FAULTY_HUB_ARGUMENTS.iter().chain(&["--cases", "30"]).chain(more).copied().collect::<Vec<_>>())
    };
    let done = run(&["--report", &report, "--write-baseline", &known]).assert_exit_code(1);
    assert!(
        done.verdict().starts_with("FAIL qi: ") && done.verdict().contains(" in 30 cases (seed 1)"),
        "{}",
        done.out
    );
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let fuzzed = &report["protocols"][0]["fuzzed"];
    assert_eq!((&fuzzed["cases"], &fuzzed["seed"]), (&Value::from(30), &Value::from(1)));
    let finding = &report["protocols"][0]["findings"][0];
    // The reproduction command finds the same again.
    let command = finding["reproduce"].as_str().unwrap();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    assert!(words.contains(&"--case"), "{command}");
    hubproof(&words).assert_exit_code(1);
    // With a baseline of all findings it passes.
    run(&["--baseline", &known]).assert_exit_code(0);
}

/// A fault that every conversation shows is not blamed on mutations.
#[test]
fn a_finding_in_ordinary_conversation_has_no_mutation() {
    let arguments = ["--fault", "qi-reply-version-number", "--protocol", "qi", "--seed", "1", "--cases", "16"];
    let done = fuzz(&arguments).assert_exit_code(1);
    let named: Vec<&str> = done.out.lines().filter(|line| line.starts_with("fail[schema:base_reply_success")).collect();
    assert!(!named.is_empty() && named.iter().all(|line| line.contains("/no-mutation: ")), "{}", done.out);
    let output = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(output.contains("it also fails without the mutation (control run)"), "{}", done.out);
}

/// The hub accepts a connection and never answers.
#[test]
fn an_interrupted_run_ends_with_a_report() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let running = start(["fuzz", &url, "--protocol", "qi", "--seed", "1", "--time", "100s"], &[]);
    // Wait until it runs.
    let _connection = listener.accept().unwrap();
    running.signal("INT");
    let done = running.wait_for_end().assert_exit_code(3);
    assert!(done.out.contains("Interrupted after"), "{}", done.out);
}

/// Starts a proxy to a hub that ends, with all its connections, after a number of connections.
fn start_dying_hub_proxy(hub: &str, connections: usize) -> String {
    // Keeps the port bound, so that no other process gets it.
    let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let hub = hub.to_owned();
    thread::spawn(move || serve_until_death(listener, &hub, connections));
    url
}

/// The same with a proxy that keeps running and answers with this status.
fn start_dying_hub_behind_proxy(hub: &str, connections: usize, status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let hub = hub.to_owned();
    thread::spawn(move || {
        let ends = accept_and_forward(&listener, &hub, connections);
        // With 429, existing connections stay open.
        let gone = status.starts_with('5');
        ends.iter().filter(|_| gone).for_each(|end| drop(end.shutdown(Shutdown::Both)));
        listener.incoming().for_each(|asked| answer_with_status(asked.unwrap(), status));
    });
    url
}

fn serve_until_death(listener: TcpListener, hub: &str, connections: usize) {
    let ends = accept_and_forward(&listener, hub, connections);
    drop(listener);
    ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
}

fn accept_and_forward(listener: &TcpListener, hub: &str, connections: usize) -> Vec<TcpStream> {
    listener.incoming().take(connections).flat_map(|client| forward_connection(client.unwrap(), hub)).collect()
}

fn forward_connection(client: TcpStream, hub: &str) -> [TcpStream; 2] {
    let server = TcpStream::connect(hub.strip_prefix("ws://").unwrap().trim_end_matches('/')).unwrap();
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    [client, server]
}

/// Starts a proxy that passes this many connections to a hub at once, and delays all later ones by a second.
fn start_slowing_proxy(hub: &str, connections: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let hub = hub.to_owned();
    thread::spawn(move || {
        accept_and_forward(&listener, &hub, connections);
        for client in listener.incoming() {
            thread::sleep(Duration::from_secs(1));
            forward_connection(client.unwrap(), &hub);
        }
    });
    url
}

/// Starts a proxy to a hub that freezes for all clients for a while: after each binary frame, or when the
/// connections with these numbers are opened.
fn start_freezing_proxy(hub: &str, freeze: Duration, times: &'static [usize]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let hub = hub.strip_prefix("ws://").unwrap().trim_end_matches('/').to_owned();
    let frozen = Arc::new(Mutex::new(Instant::now()));
    let thaw = |frozen: &Mutex<Instant>| {
        let left = || frozen.lock().saturating_duration_since(Instant::now());
        while !left().is_zero() {
            thread::sleep(left());
        }
    };
    let pump = move |mut from: TcpStream, mut to: TcpStream, frozen: Arc<Mutex<Instant>>| {
        let mut bytes = [0; 1 << 16];
        while let Some(count) = from.read(&mut bytes).ok().filter(|count| *count > 0) {
            thaw(&frozen);
            if times.is_empty() && bytes[0] == 0x82 {
                *frozen.lock() = Instant::now() + freeze;
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    };
    thread::spawn(move || {
        let clients = listener.incoming().flatten();
        for (index, client) in clients.enumerate() {
            if times.contains(&index) {
                *frozen.lock() = Instant::now() + freeze;
            }
            thaw(&frozen);
            let server = TcpStream::connect(&hub).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to, frozen) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&frozen));
                thread::spawn(move || pump(from, to, frozen));
            }
        }
    });
    url
}

/// One frame stops the hub for everyone: one finding that names it, no other case is blamed, and all cases are played.
#[test]
fn a_frame_that_freezes_the_hub_for_everyone_is_the_only_finding() {
    let hub = ServeProcess::start(["qi"], 1);
    let url = start_freezing_proxy(hub.url("qi"), Duration::from_secs(5), &[]);
    let cases: Vec<String> = (110..140).map(|number: u64| number.to_string()).collect();
    let mut arguments = vec![url.as_str(), "--protocol", "qi", "--seed", "1", "-j", "8", "--set", "patience=2s"];
    arguments.extend(cases.iter().flat_map(|number| ["--case", number.as_str()]));
    let done = fuzz(&arguments).assert_exit_code(1);
    assert_eq!(done.out.matches("fail[").count(), 1, "{}", done.out);
    let output = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(output.contains(r#" sent by sender: [{"opcode":"binary""#), "{}", done.out);
    assert!(done.out.contains("fail[FUZZ-LIVES]") && done.out.contains("the hub froze for everyone "), "{}", done.out);
    assert!(done.verdict().contains(" 1 finding in 30 cases"), "{}", done.out);
    assert!(!done.out.contains("ended early") && !done.out.contains("confirmed"), "{}", done.out);
}

/// A hub that pauses for everyone accuses no case.
#[test]
fn a_correct_hub_that_pauses_does_not_fail() {
    let hub = ServeProcess::start(["qi"], 1);
    let url = start_freezing_proxy(hub.url("qi"), Duration::from_secs(5), &[60, 180]);
    let arguments = [&url, "--protocol", "qi", "--seed", "1", "--cases", "80", "-j", "8", "--set", "patience=2s"];
    let done = fuzz(&arguments);
    assert!(done.code == Some(0) || done.code == Some(3), "{}", done.out);
    assert!(!done.out.contains("fail["), "{}", done.out);
    assert!(done.out.contains("the hub served no client for up to "), "{}", done.out);
}

/// A slower hub is reported, but is not a failure.
#[test]
fn a_hub_that_slows_down_during_the_run_is_reported() {
    let hub = ServeProcess::start(["qi"], 1);
    let run =
        |url: &str| fuzz(&[url, "--protocol", "qi", "--seed", "1", "--cases", "5", "-j", "1"]).assert_exit_code(0).out;
    let words = "At the end of this run, a new client waits";
    let output = run(&start_slowing_proxy(hub.url("qi"), 15));
    assert!(output.contains(words), "{output}");
    let output = run(hub.url("qi"));
    assert!(!output.contains(words), "{output}");
}

/// Answers a request with a status.
fn answer_with_status(mut asked: TcpStream, status: &str) {
    let _ = std::io::Read::read(&mut asked, &mut [0; 4096]);
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let _ = std::io::Write::write_all(&mut asked, answer.as_bytes());
}

/// Starts an HTTP server that restarts the hub for each request and answers with the status.
fn start_restart_server(url: &str, hub: &str, status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, hub) = (url.strip_prefix("ws://").unwrap().to_owned(), hub.to_owned());
    let hook = format!("hooks.restart.http.url=http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for asked in listener.incoming() {
            if status.starts_with('2') {
                // A running hub continues.
                if let (Ok(listener), hub) = (TcpListener::bind(&address), hub.clone()) {
                    thread::spawn(move || serve_until_death(listener, &hub, usize::MAX));
                }
            }
            answer_with_status(asked.unwrap(), status);
        }
    });
    hook
}

#[test]
fn a_lost_hub_is_restarted_by_the_targets_hook() {
    let hub = ServeProcess::start(["qi"], 1);
    let url = start_dying_hub_proxy(hub.url("qi"), 60);
    let hook = start_restart_server(&url, hub.url("qi"), "204 No Content");
    let cases = ["--protocol", "qi", "--seed", "1", "--cases", "60", "-j", "4", "--set", &hook];
    let done = fuzz(&[&[url.as_str()], &cases[..]].concat()).assert_exit_code(1);
    // It ends on its own after some connections, so no case reproduces it.
    assert!(done.out.contains("The hub ended by itself (it accepts no connections) while"), "{}", done.out);
    assert!(!done.out.contains("The run ended early"), "{}", done.out);
    assert!(done.verdict().starts_with("FAIL qi: the hub ended by itself "), "{}", done.out);
    assert!(done.verdict().contains(", no finding in 60 cases (seed 1)"), "{}", done.out);
}

/// Starts a proxy that passes this many connections to a hub at once, and sends nothing on later ones.
fn start_hanging_proxy(hub: &str, connections: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let hub = hub.to_owned();
    thread::spawn(move || {
        accept_and_forward(&listener, &hub, connections);
        let _held: Vec<_> = listener.incoming().collect();
    });
    url
}

/// Messages missing after a hang cause no other findings.
#[test]
fn a_hub_that_hangs_ends_the_run_with_one_finding() {
    let hub = ServeProcess::start(["qi"], 1);
    let url = start_hanging_proxy(hub.url("qi"), 60);
    let more = ["--protocol", "qi", "--seed", "1", "--time", "100s", "-j", "4", "--set", "patience=1s"];
    let done = fuzz(&[&[url.as_str()], &more[..]].concat()).assert_exit_code(1);
    assert!(done.out.contains("fail[FUZZ-LIVES]"), "{}", done.out);
    assert!(done.out.contains("The run ended early: the hub is unresponsive"), "{}", done.out);
    assert_eq!(done.out.matches("fail[").count(), 1, "{}", done.out);
    assert!(done.took < Duration::from_secs(60), "{:?}", done.took);
}

/// The hub hangs, and the cases would wait for half a minute. What the end of the time cuts off is no result.
#[test]
fn cases_that_the_end_of_the_time_cuts_off_neither_pass_nor_fail() {
    let hub = ServeProcess::start(["qi"], 1);
    let url = start_hanging_proxy(hub.url("qi"), 60);
    let more =
        ["--protocol", "qi", "--seed", "1", "--time", "4s", "-j", "4", "--set", "patience=30s", "--report", "json=-"];
    let done = fuzz(&[&[url.as_str()], &more[..]].concat());
    assert!(matches!(done.code, Some(0 | 3)), "{done:?}");
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let fuzzed = &report["protocols"][0]["fuzzed"];
    assert!(fuzzed["cut"].as_u64() > Some(0), "{fuzzed}");
    assert_eq!((&report["run"]["interrupted"], &fuzzed["causes"]), (&false.into(), &Value::Array(Vec::new())));
    assert!(done.err.contains("being played when the run ended"), "{}", done.err);
}

#[test]
fn a_failing_hook_ends_the_run() {
    let hub = ServeProcess::start(["qi"], 1);
    let url = start_dying_hub_proxy(hub.url("qi"), 60);
    let hook = start_restart_server(&url, hub.url("qi"), "500 No");
    let done = fuzz(&[&url, "--protocol", "qi", "--seed", "1", "--time", "100s", "-j", "4", "--set", &hook])
        .assert_exit_code(1);
    let output = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(output.contains("the hook `restart` was answered with status 500"), "{}", done.out);
}

/// Failures of the baseline, and the same cause found with other messages, do not count towards the limit.
#[test]
fn a_run_ends_at_the_limit_of_new_findings() {
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("known.toml").display().to_string();
    let run = |more: &[&str]| {
        let base = [&FAULTY_HUB_ARGUMENTS[..], &["--cases", "30", "--report", "json=-"]].concat();
        let done = fuzz(&[&base, more].concat());
        let report: Value = serde_json::from_str(&done.out).unwrap();
        let ended = done.err.contains("the limit of --max-findings is reached");
        (done.code, report["protocols"][0]["fuzzed"]["cases"].as_u64().unwrap(), ended)
    };
    let (code, cases, ended) = run(&["--max-findings", "1"]);
    assert!(code == Some(1) && cases < 30 && ended, "{code:?} {cases}");
    assert_eq!(run(&["--write-baseline", &known]), (Some(1), 30, false));
    assert_eq!(run(&["--baseline", &known, "--max-findings", "1"]), (Some(0), 30, false));
}

/// Cells with new kinds of answers get more cases, and other cells get fewer.
#[test]
fn an_answer_with_a_new_shape_gives_its_cell_more_cases() {
    let of = |more: &[&str]| {
        let base = ["--protocol", "qi", "--seed", "1", "--cases", "60", "--report", "json=-"];
        let done = fuzz(&[&base, more].concat()).assert_exit_code(0);
        let report: Value = serde_json::from_str(&done.out).unwrap();
        let fuzzed = &report["protocols"][0]["fuzzed"];
        let cells = fuzzed["cells"].as_array().unwrap().iter().map(|cell| cell["cases"].as_u64().unwrap());
        (fuzzed["cases"].as_u64().unwrap(), cells.max().unwrap())
    };
    assert_eq!(of(&[]), (60, 1));
    let (cases, most) = of(&["--adaptive"]);
    assert_eq!(cases, 60);
    assert!(most > 1, "{most}");
}

#[test]
fn a_lost_hub_ends_the_run() {
    let hub = ServeProcess::start(["qi"], 1);
    let url = start_dying_hub_proxy(hub.url("qi"), 60);
    let done = fuzz(&[&url, "--protocol", "qi", "--seed", "1", "--time", "100s", "-j", "4"]).assert_exit_code(1);
    assert!(done.out.contains("fail[FUZZ-LIVES]"), "{}", done.out);
    assert!(done.out.contains("The run ended early: the hub is gone"), "{}", done.out);
    assert!(done.took < Duration::from_secs(60), "{:?}", done.took);
}

/// A proxy answers after its hub has gone. HTTP 429 only means too many attempts, so it is inconclusive.
#[rstest]
#[case::gone("502 Bad Gateway", 1, "fail[FUZZ-LIVES]")]
#[case::tired("429 Too Many Requests", 3, "HTTP 429 instead of 101")]
fn http_502_from_a_proxy_means_a_lost_hub_but_http_429_does_not(
    #[case] status: &'static str,
    #[case] code: i32,
    #[case] output: &str,
) {
    let hub = ServeProcess::start(["qi"], 1);
    let url = start_dying_hub_behind_proxy(hub.url("qi"), 60, status);
    let done = fuzz(&[&url, "--protocol", "qi", "--seed", "1", "--time", "14s", "-j", "4"]).assert_exit_code(code);
    assert!(done.out.split_whitespace().collect::<Vec<_>>().join(" ").contains(output), "{}", done.out);
    assert_eq!(done.out.contains("The run ended early: the hub is gone"), code == 1, "{}", done.out);
}

#[rstest]
#[ignore = "thorough: many minutes of CPU"]
#[case::airavata("airavata", "200")]
#[ignore = "thorough: many minutes of CPU"]
#[case::gator("gator", "200")]
#[case::qi("qi", "50")]
#[ignore = "thorough: many minutes of CPU"]
#[case::more_of_qi("qi", "200")]
#[ignore = "thorough: many minutes of CPU"]
#[case::concierge("concierge", "200")]
#[ignore = "thorough: many minutes of CPU"]
#[case::emprops("emprops", "200")]
fn the_correct_server_does_not_differ_from_the_model(#[case] protocol: &str, #[case] cases: &str) {
    let done = hubproof(["fuzz", "--protocol", protocol, "--cases", cases, "--seed", "1"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("FUZZ-DIFFERS held in"), "{done:?}");
    assert!(!done.out.contains("warn[FUZZ-DIFFERS]"), "{done:?}");
}

#[test]
fn a_fault_that_no_oracle_sees_is_a_difference_from_the_model() {
    // Some requests are answered twice.
    let run = ["fuzz", "--protocol", "qi", "--cases", "30", "--seed", "1", "--fault", "qi-base-reply-twice"];
    let done = hubproof(run);
    assert!(done.out.contains("warn[FUZZ-DIFFERS]"), "{done:?}");
    let done = hubproof(run.into_iter().chain(["--against", "none"]));
    assert!(!done.out.contains("FUZZ-DIFFERS"), "{done:?}");
}

#[test]
fn answers_are_compared_with_those_of_another_hub() {
    let done = hubproof(["fuzz", "--protocol", "qi", "--cases", "10", "--seed", "1", "--against"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("FUZZ-DIFFERS held in"), "{done:?}");
    // Some requests are answered twice: no oracle checks further frames, but the other hub sends one.
    let fault =
        ["fuzz", "--protocol", "qi", "--cases", "30", "--seed", "1", "--against", "--fault", "qi-base-reply-twice"];
    let done = hubproof(fault);
    assert!(done.out.contains("warn[FUZZ-DIFFERS]"), "{done:?}");
}
