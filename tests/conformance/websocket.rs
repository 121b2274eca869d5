//! The pack of WebSocket itself: over real sockets against every hub of the reference server, and simulated against
//! hubs that use permissions of RFC 6455 that the reference server does not use.

use hubproof::outcome::Verdict;
use rstest::rstest;

use crate::support::hostile_servers::{HostileHub, Misbehaviour};
use crate::support::process::{ServeProcess, hubproof};
use crate::support::sim_connection::SimulatedProtocol;
use crate::support::sim_connection::websocket::WebSocketHabit;

const PASS: &str = "PASS websocket: 53 rules hold\n";

#[test]
fn the_websocket_protocol_is_checked_when_named() {
    let done = hubproof(["check", "--protocol", "websocket", "--strict"]).assert_exit_code(0);
    assert!(done.verdict().starts_with(PASS), "{}", done.out);
}

/// A token for airavata: {"sub":"ws"}, signed with `key`.
const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ3cyJ9.5YxMHwdSCXSw8fBpMdWyeKN5vhzEPhpMHidVU9XO1G0";

/// Settings besides the address: a message after which the hub does not close, and the needs of its upgrade.
#[rstest]
#[case("qi", "", &[])]
#[ignore = "thorough: repeats the proof against other hubs"]
#[case("gator", "", &[])]
#[ignore = "thorough: repeats the proof against other hubs"]
#[case("emprops", "", &[])]
#[ignore = "thorough: repeats the proof against other hubs"]
#[case("concierge", "", &["subprotocols=['ert-concierge']", "text={\"type\":\"IDENTIFY\",\"name\":\"UNIQUE\",\"version\":\"0.1.0\"}"])]
#[ignore = "thorough: repeats the proof against other hubs"]
#[case("airavata", "/ws/user", &["connections=4"])]
fn every_hub_of_the_reference_server_passes(#[case] name: &str, #[case] path: &str, #[case] sets: &[&str]) {
    let server = ServeProcess::start([name, "--set", "airavata.jwt_secret=key"], 1);
    let mut url = format!("{}{path}", server.url(name));
    if name == "airavata" {
        url += &format!("?token={TOKEN}");
    }
    let mut arguments = vec!["check", url.as_str(), "--protocol", "websocket", "--strict", "--set", "settle=50ms"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
    let done = hubproof(arguments).assert_exit_code(0);
    assert!(done.verdict().starts_with(PASS), "{}", done.out);
}

/// A sample over sockets; the matrix plays all faults in the simulation.
#[rstest]
#[case("websocket-accept-of-another-key", "WS-4.2.2-accept")]
#[ignore = "thorough: repeats the fault matrix over sockets"]
#[case("websocket-http-1.0-upgraded", "WS-4.2.1-http")]
#[ignore = "thorough: repeats the fault matrix over sockets"]
#[case("websocket-unmasked-taken", "WS-5.1-unmasked")]
#[case("websocket-pongs-as-text", "WS-5.5.3-echo")]
#[ignore = "thorough: repeats the fault matrix over sockets"]
#[case("websocket-close-unanswered", "WS-5.5.1-answer")]
#[ignore = "thorough: repeats the fault matrix over sockets"]
#[case("websocket-stream-kept", "WS-5.5.1-stream")]
#[ignore = "thorough: repeats the fault matrix over sockets"]
#[case("websocket-data-after-close", "WS-5.5.1-last")]
#[case("websocket-sends-invalid-text-split", "WS-5.6-sent")]
fn faults_are_detected_over_sockets(#[case] fault: &str, #[case] rule: &str) {
    let done = hubproof(["check", "--protocol", "websocket", "--fault", fault, "--stretch", "0.2"]).assert_exit_code(1);
    assert!(done.out.contains(&format!("fail[{rule}")) || done.out.contains(&format!(",{rule}")), "{}", done.out);
}

/// Headers of the target may be tokens.
#[test]
fn headers_of_the_target_are_masked() {
    let server = ServeProcess::start(["websocket", "--fault", "websocket-pongs-cut"], 1);
    let set = "headers={ Authorization = 'Bearer s3cr3t' }";
    let arguments = ["check", server.url("websocket"), "--protocol", "websocket", "--stretch", "0.2", "--set", set];
    let done = hubproof(arguments.into_iter().chain(["--trace", "--report", "json=-"])).assert_exit_code(1);
    assert!(done.out.contains("headers=***"), "{}", done.out);
    assert!(!done.out.contains("s3cr3t") && !done.err.contains("s3cr3t"), "{}{}", done.out, done.err);
}

/// A table that is not TOML counts as text. The value may be a token, so only its kind is shown.
#[test]
fn headers_that_are_not_a_table_are_an_error() {
    let set = "headers={ Authorization: Bearer s3cr3t }";
    let done = hubproof(["check", "ws://127.0.0.1:1", "--protocol", "websocket", "--set", set]).assert_exit_code(2);
    assert!(done.err.contains("the setting `headers` must be a mapping, not text"), "{}", done.err);
    assert!(done.err.contains("--set 'headers={"), "{}", done.err);
    assert!(!done.err.contains("***") && !done.err.contains("s3cr3t"), "{}", done.err);
}

/// This hub upgrades every connection, which is wrong, and closes it, which is allowed.
#[test]
fn a_hub_that_closes_every_connection_fails_only_for_its_upgrades() {
    let hub = HostileHub::start(Misbehaviour::Closes, "{}");
    let done = hubproof(["check", &hub.url(), "--protocol", "websocket"]).assert_exit_code(1);
    let findings: Vec<&str> = done.out.lines().filter(|line| line.starts_with("fail[")).collect();
    assert_eq!(findings, ["fail[WS-4.2.1-method]: websocket/refusals: the upgrade was not refused"], "{}", done.out);
}

/// No rule fails, and at least this many are proven.
#[rstest]
#[case(WebSocketHabit::None, 53)]
#[case(WebSocketHabit::Chatty, 53)]
#[case(WebSocketHabit::DislikesMessages, 40)]
#[case(WebSocketHabit::CutsOnMessages, 40)]
#[case(WebSocketHabit::SendsAway, 6)]
#[case(WebSocketHabit::Refuses, 0)]
fn behaviour_that_the_rfc_permits_passes(#[case] habit: WebSocketHabit, #[case] least: usize) {
    let mut protocol = SimulatedProtocol::load("websocket");
    protocol.habit = habit;
    let mut proven = std::collections::BTreeSet::new();
    for program in &protocol.scenarios.programs {
        let report = protocol.play(program, None).unwrap();
        assert_eq!(report.mistake, None, "{}", report.id);
        for check in &report.checks {
            // A connection should not be cut, but that breaks no must.
            let warned = check.verdict == Verdict::Warn && habit != WebSocketHabit::CutsOnMessages;
            let blamed = check.verdict == Verdict::Fail || warned;
            assert!(!blamed, "{habit:?}: {} {}: {}", report.id, check.name, check.message);
            if matches!(check.verdict, Verdict::Pass | Verdict::Info) {
                proven.extend(check.rules.iter().map(|(rule, _)| rule.id.clone()));
            }
        }
    }
    assert!(proven.len() >= least, "{habit:?}: {} {proven:?}", proven.len());
}
