//! Load on hostile servers: the run ends in bounded time and memory, whatever they send.

use std::time::Duration;

use rstest::rstest;
use serde_json::Value;

use crate::support::hostile_servers::{HostileHub, Misbehaviour};
use crate::support::process::{ServeProcess, hubproof};

/// The limit on a busy machine; on an idle one a run takes some seconds.
const LONGEST: Duration = Duration::from_secs(110);
/// MiB that a run may use: per shard (one per core) 250 for incomplete messages, 16 for queued validation, the tree of
/// the longest message, and the allocator's overhead.
fn max_memory() -> u64 {
    300 * shards() + 300
}

fn shards() -> u64 {
    std::thread::available_parallelism().map_or(1, usize::from) as u64
}

/// `counted`: the metric that must be above 0.
#[rstest]
#[case::silent(Misbehaviour::Silent, "session.unfinished")]
#[case::closes(Misbehaviour::Closes, "errors.lost")]
#[case::resets(Misbehaviour::Resets, "errors.lost")]
#[case::garbage_bytes(Misbehaviour::GarbageBytes, "errors.protocol")]
#[case::no_utf8(Misbehaviour::NoUtf8, "errors.protocol")]
#[case::garbage_text(Misbehaviour::GarbageText, "errors.invalid")]
#[case::echo(Misbehaviour::Echo, "frames.undocumented")]
#[case::deep(Misbehaviour::Deep, "errors.invalid")]
#[case::shreds(Misbehaviour::Shreds, "session.unfinished")]
#[ignore = "thorough: waits for real time"]
#[case::flood(Misbehaviour::Flood, "session.unfinished")]
#[ignore = "thorough: waits for real time"]
#[case::giants(Misbehaviour::Giants, "errors.invalid")]
#[ignore = "thorough: waits for real time"]
#[case::numerous(Misbehaviour::Numerous, "errors.invalid")]
#[ignore = "thorough: waits for real time"]
#[case::giant(Misbehaviour::Giant, "errors.protocol")]
#[ignore = "thorough: waits for real time"]
#[case::endless(Misbehaviour::Endless, "errors.protocol")]
#[ignore = "thorough: waits for real time"]
#[case::fragments(Misbehaviour::Fragments, "errors.protocol")]
fn a_load_run_survives_a_hostile_hub(#[case] habit: Misbehaviour, #[case] counted: &str) {
    let unrelated = r#"{"session_id":"nobody","status":"success","payload":{},"version":"0.1.0"}"#;
    let hub = HostileHub::start(habit, unrelated);
    let arguments = ["load", &hub.url(), "--protocol", "qi", "--plan", "sessions"];
    let numbers = ["--rate", "40", "--warm-up", "0s", "--duration", "2s", "--drain", "2s", "--ramp", "100ms"];
    let outputs = ["--validate", "all", "--report", "json=-", "--seed", "7"];
    // What breaks its schema fails the run, as no such frame may be received.
    let code = if counted == "errors.invalid" { 1 } else { 3 };
    let done = hubproof(arguments.into_iter().chain(numbers).chain(outputs)).assert_exit_code(code);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert!(report["counts"][counted]["whole_run"].as_u64() > Some(0), "{}", report["counts"]);
    assert!(done.took < LONGEST, "{:?}", done.took);
    assert!(done.peak.map_or(!cfg!(target_os = "linux"), |peak| peak < max_memory()), "{:?} MiB", done.peak);
}

/// The run ends when the first clients have failed to join, and reports why; `text` is in the example.
#[rstest]
#[case::refuses(
    Misbehaviour::NotFound,
    " tried to connect: the connection was refused: HTTP 404 instead of 101: is the path right? Its body begins with `not here`"
)]
#[case::redirects(
    Misbehaviour::Redirect,
    " tried to connect: the connection was refused: HTTP 302 redirects to https://elsewhere.example/ws, but"
)]
#[case::wrong_key(
    Misbehaviour::WrongKey,
    " tried to connect: the connection was refused: 101, but with `Sec-WebSocket-Accept: "
)]
#[case::ends(
    Misbehaviour::TcpCloses,
    " tried to connect: the connection was not opened (the connection ended before the upgrade)"
)]
fn a_run_ends_if_no_client_can_join_the_hub(#[case] habit: Misbehaviour, #[case] text: &str) {
    let hub = HostileHub::start(habit, "");
    let plan = "title: t\nroles: { caller: { population: 100, ramp: 20s, steps: [ { sends: base_request } ] } }\n";
    let (report, _) = run_plan(&hub.url(), "qi", plan, 3);
    let reasons = report["validity"]["reasons"].as_array().unwrap();
    let unjoined: Vec<&str> =
        reasons.iter().filter(|one| one["code"] == "unjoined").map(|one| one["text"].as_str().unwrap()).collect();
    assert!(unjoined[0].starts_with("the run ended because no client of caller joined; "), "{unjoined:?}");
    assert!(unjoined.iter().any(|one| one.starts_with("caller ") && one.contains(text)), "{unjoined:?}");
    assert_eq!((&report["validity"]["verdict"], &report["run"]["interrupted"]), (&"invalid".into(), &false.into()));
    // Five of them are enough, at five a second.
    assert!(report["run"]["duration_s"].as_f64().unwrap() < 15.0, "{}", report["run"]);
}

#[rstest]
#[case::check(&["check", "--scenario", "qi/base"])]
#[case::fuzz(&["fuzz", "--cases", "3", "--seed", "1"])]
#[case::load(&["load", "--plan", "sessions", "--ramp", "100ms"])]
fn every_command_describes_a_refused_upgrade_in_the_same_words(#[case] command: &[&str]) {
    let hub = HostileHub::start(Misbehaviour::Unauthorized, "");
    let url = hub.url();
    let done = hubproof(command.iter().chain(&[url.as_str(), "--protocol", "qi"])).assert_exit_code(3);
    let expected = "HTTP 401 instead of 101: is a token or a secret missing or wrong? The hub asks for `Bearer realm=\"hub\"` (WWW-Authenticate). Its body begins with `not here`. If the hub needs a header, a query or a subprotocol, declare it in the target file: `upgrade = { headers = { NAME = \"VALUE\" } }` under `[[deviation]]`";
    let shown = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains(expected), "{}", done.out);
}

/// Why connections were lost is in the report of every format; `text` is in the terminal's and in JUnit's.
#[rstest]
#[case::code_and_reason(
    Misbehaviour::Closes,
    "closed",
    Some(1011),
    "out of order",
    "× closed by the hub, 1011 (out of order)"
)]
#[case::without_a_code(Misbehaviour::ClosesWithHalfACode, "closed", None, "", "× closed by the hub, without a code")]
#[case::reset(Misbehaviour::Resets, "reset", None, "", "× reset by the hub")]
#[case::ended(Misbehaviour::Hangs, "dropped", None, "", "× ended by the hub without a close frame")]
fn lost_connections_are_counted_by_code_and_reason(
    #[case] habit: Misbehaviour,
    #[case] how: &str,
    #[case] code: Option<u16>,
    #[case] reason: &str,
    #[case] text: &str,
) {
    let hub = HostileHub::start(habit, r#"{"news":"unrelated","padding":"more"}"#);
    let folder = tempfile::tempdir().unwrap();
    let junit = folder.path().join("report.xml");
    let arguments = ["load", &hub.url(), "--protocol", "qi", "--plan", "sessions", "--rate", "40", "--seed", "7"];
    let numbers = ["--warm-up", "0s", "--duration", "1s", "--drain", "1s", "--ramp", "100ms", "--report", "json=-"];
    let second = ["--report".to_owned(), format!("junit={}", junit.display())];
    let done = hubproof(arguments.into_iter().chain(numbers).chain(second.iter().map(String::as_str)));
    let done = done.assert_exit_code(3);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let ended = &report["connections"][0];
    let expected = (&Value::from(how), &Value::from(code), &Value::from(reason));
    assert_eq!((&ended["how"], &ended["code"], &ended["reason"]), expected, "{}", report["connections"]);
    assert!(ended["count"].as_u64() <= report["counts"]["errors.lost"]["whole_run"].as_u64(), "{report}");
    assert!(done.err.contains(text), "{}", done.err);
    let junit = std::fs::read_to_string(&junit).unwrap();
    assert!(junit.contains(text), "{junit}");
}

/// A hub may send undocumented messages: they are counted, but are not errors.
#[test]
fn undocumented_messages_from_the_hub_are_not_errors() {
    let hub = HostileHub::start(Misbehaviour::Unrelated, r#"{"news":"unrelated"}"#);
    let arguments = ["load", &hub.url(), "--protocol", "qi", "--plan", "sessions", "--rate", "40", "--validate", "all"];
    let numbers = ["--warm-up", "0s", "--duration", "2s", "--drain", "1s", "--ramp", "100ms", "--report", "json=-"];
    let done = hubproof(arguments.into_iter().chain(numbers)).assert_exit_code(3);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let count = |name: &str| report["counts"][name]["whole_run"].as_u64().unwrap_or(0);
    assert!(count("frames.undocumented") > 0 && count("errors.invalid") == 0, "{}", report["counts"]);
    let validated = report["run"]["facts"]["validated"].as_str().unwrap();
    assert!(
        validated.contains(", 0 invalid, ") && validated.ends_with("that match no message of the protocol"),
        "{validated}"
    );
}

/// Twenty connections that each stay below their limit of unwritten bytes, but together exceed the total limit.
const LONG_MESSAGES: &str = include_str!("../fixtures/plans/long_messages.yaml");

#[test]
#[ignore = "thorough: waits for real time"]
fn connections_to_a_hub_that_does_not_read_are_lost_and_memory_is_limited() {
    let hub = HostileHub::start(Misbehaviour::Deaf, "");
    let (report, peak) = run_plan(&hub.url(), "qi", LONG_MESSAGES, 3);
    assert!(report["counts"]["errors.lost"]["whole_run"].as_u64() > Some(0), "{}", report["counts"]);
    // 64 MiB may be unwritten per shard. Each session keeps its text until it ends: the unwritten messages, those in
    // the system's buffers (4 MiB per connection), and the next one of each client.
    assert!(peak < (64 + 64) * shards() + 20 * (4 + 1) + 100 && (peak > 0 || !cfg!(target_os = "linux")), "{peak} MiB");
}

/// More computation than any machine can do in time.
const OVERLOADING_PLAN: &str = include_str!("../fixtures/plans/overloading.yaml");

/// The hub is then not the cause of the lateness, and the report marks the run.
#[test]
fn a_run_with_an_overloaded_generator_is_not_valid() {
    let hub = ServeProcess::start(["gator"], 1);
    let (report, _) = run_plan(hub.url("gator"), "gator", OVERLOADING_PLAN, 3);
    let reasons = report["validity"]["reasons"].as_array().unwrap();
    let reasons: Vec<&str> = reasons.iter().map(|reason| reason["code"].as_str().unwrap()).collect();
    assert_ne!(report["validity"]["verdict"], "valid");
    assert!(reasons.contains(&"send-delay"), "{}", report["validity"]);
}

/// Runs a plan: returns its report, and its peak memory in MiB; 0 if the system does not report it.
fn run_plan(url: &str, protocol: &str, plan: &str, code: i32) -> (Value, u64) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.yaml");
    std::fs::write(&file, plan).unwrap();
    let arguments = ["load", url, "--protocol", protocol, "--plan", file.to_str().unwrap()];
    let numbers = ["--ramp", "100ms", "--seed", "7", "--report", "json=-"];
    let done = hubproof(arguments.into_iter().chain(numbers)).assert_exit_code(code);
    (serde_json::from_str(&done.out).unwrap(), done.peak.unwrap_or(0))
}
