//! `hubproof relay` between `hubproof serve` and `hubproof check`, over real sockets.

use rstest::rstest;
use serde_json::Value;

use crate::support::process::{ServeProcess, answer_to, hubproof};

/// Starts a relay to the concierge at `url`, with more arguments.
fn start_relay(url: &str, arguments: &[&str]) -> ServeProcess {
    ServeProcess::start_as([&["relay", url, "--protocol", "concierge"], arguments].concat(), 2)
}

/// Checks the concierge with these scenarios through a relay: exit code, number of changes, and output.
fn check_through_relay(scenarios: &str, arguments: &[&str]) -> (i32, u64, String) {
    let hub = ServeProcess::start(["concierge"], 1);
    let relay = start_relay(hub.url("concierge"), arguments);
    let done = hubproof(["check", relay.url("relay"), "--protocol", "concierge", "--scenario", scenarios]);
    let (code, rest) = relay.stop("TERM");
    assert_eq!(code, Some(0));
    let applied = rest.trim().strip_prefix("applied ").and_then(|rest| rest.strip_suffix(" times")).unwrap();
    (done.code.unwrap(), applied.parse().unwrap(), done.out)
}

#[rstest]
#[case("concierge/[gm]*")]
#[ignore = "thorough: many minutes of CPU"]
#[case("concierge/*")]
fn a_relay_without_a_change_is_transparent(#[case] scenarios: &str) {
    let (code, applied, out) = check_through_relay(scenarios, &[]);
    assert_eq!((code, applied), (0, 0), "{out}");
}

/// Each of these changes is detected by a scenario.
#[rstest]
#[case::seed("concierge/greeting", &["--seed", "1", "--change", "remove", "--message", "hello"])]
#[case::seed("concierge/message-to-one", &["--seed", "2", "--change", "remove", "--message", "message_relayed"])]
#[case::seed("concierge/message-to-one", &["--seed", "3", "--change", "retype", "--message", "status_message_sent"])]
#[case::named("concierge/message-to-one", &["--change", "drop", "--message", "status_message_sent"])]
#[case::named("concierge/group-*", &["--change", "double", "--message", "group_fetch_result"])]
fn a_change_made_by_the_relay_is_detected_by_a_check(#[case] scenario: &str, #[case] arguments: &[&str]) {
    let (code, applied, out) = check_through_relay(scenario, arguments);
    assert!(applied > 0 && (code == 1 || out.contains("warn[")), "{code}, {applied} times\n{out}");
}

#[test]
fn a_hub_behind_tls_is_relayed() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let ca = ca.to_str().unwrap();
    let hub = ServeProcess::start(["concierge", &format!("--tls-self-signed={ca}")], 1);
    assert!(hub.url("concierge").starts_with("wss://"));
    let relay = start_relay(
        hub.url("concierge"),
        &["--ca", ca, "--change", "remove", "--message", "hello", "--member", "/uuid"],
    );
    let check = ["check", relay.url("relay"), "--protocol", "concierge", "--scenario", "concierge/seq"];
    let done = hubproof(check).assert_exit_code(1);
    assert!(done.out.contains("expected a member `uuid`, found no such member"), "{}", done.out);
}

#[test]
fn the_same_seed_gives_the_same_change_of_the_relay() {
    // The relay does not connect before a client does, so no hub is needed.
    let change = |seed: &str| start_relay("ws://127.0.0.1:1", &["--seed", seed]).url("change").to_owned();
    let changes: Vec<String> = ["1", "2", "3", "1"].map(change).to_vec();
    assert_eq!(changes[0], changes[3]);
    assert!(changes[1] != changes[0] || changes[2] != changes[0], "{changes:?}");
}

#[test]
fn relay_list_shows_every_possible_change() {
    let list = ["relay", "--protocol", "concierge", "--message", "hello", "--list"];
    let text = hubproof(list).assert_exit_code(0).out;
    for line in ["drop hello", "double hello #2", "remove hello /uuid", "alter hello /type"] {
        assert!(text.lines().any(|known| known == line), "{text}");
    }
    let json = hubproof([&list[..], &["--format", "json"]].concat()).assert_exit_code(0).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["changes"].as_array().unwrap().len(), text.lines().count());
}

#[rstest]
#[case::no_such_message(&["--message", "helo"], "did you mean `hello`?")]
#[case::no_such_member(&["--message", "hello", "--member", "/uid"], "did you mean `/uuid`?")]
#[case::many(&["--message", "hello"], "pick one at random with --seed N")]
#[case::no_such_kind(&["--change", "spoil"], "expected one of drop, double")]
#[case::no_address(&["--seed", "1"], "is not a WebSocket address")]
fn a_wrong_argument_is_an_error(#[case] arguments: &[&str], #[case] expected: &str) {
    let done =
        hubproof([&["relay", "127.0.0.1:4000", "--protocol", "concierge"], arguments].concat()).assert_exit_code(2);
    assert!(done.err.contains(expected), "{}", done.err);
}

/// A page must not use the credentials that the relay adds.
#[rstest]
#[case("https://evil.example", "403 Forbidden")]
#[case("http://localhost:3000", "502 Bad Gateway")]
fn a_relay_with_credentials_refuses_pages_of_other_machines(#[case] origin: &str, #[case] status: &str) {
    let relay = start_relay("ws://127.0.0.1:1/?token=k", &[]);
    let address = relay.url("relay").strip_prefix("ws://").unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\n\r\n");
    let answer = answer_to(address, &request);
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
}

/// Nothing listens there: it is an address of documentation.
#[rstest]
#[case(&["relay", "--protocol", "qi"])]
#[case(&["record", "--to", "/no/such/recording"])]
fn an_address_that_other_machines_reach_is_warned_of(#[case] command: &[&str]) {
    let done = hubproof([command, &["ws://127.0.0.1:1/?token=k", "--listen", "192.0.2.1:1"]].concat());
    assert!(done.err.contains("warning: everyone who reaches 192.0.2.1:1 can use the hub"), "{}", done.err);
}
