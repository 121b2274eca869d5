//! Clients of every kind get a verdict: those that never come, come twice, run elsewhere, or do only some things.

use std::time::Duration;

use rstest::rstest;

use crate::support::disk::root;
use crate::support::process::{ProcessResult, free_port, hubproof};

const HUBPROOF: &str = env!("CARGO_BIN_EXE_hubproof");

fn check_client(protocol: &str, more: &[&str]) -> ProcessResult {
    hubproof(["check-client", "--protocol", protocol].iter().chain(more))
}

#[rstest]
#[case::that_ends("sh -c 'echo no such host >&2; exit 7' ${url}", &["it ended (exit status 7)", "output: no such host"])]
#[case::that_waits("sleep 100", &["did not connect to ws://127.0.0.1:", "within 300 ms"])]
#[case::that_does_not_exist("./no-such-worker ${url}", &["`./no-such-worker` cannot be started"])]
fn a_client_that_never_connects_is_not_judged(#[case] command: &str, #[case] said: &[&str]) {
    let run = check_client("concierge", &["--exec", command, "--wait", "300ms"]).assert_exit_code(3);
    let text = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.iter().all(|words| text.contains(words)), "{text}");
}

#[test]
fn a_client_that_connects_twice_is_judged_by_its_first_connection() {
    let one = format!("{HUBPROOF} client qi $0 --do request");
    let command = format!("sh -c '{one} & {one}; wait' ${{url}}");
    let run = check_client("qi", &["--exec", &command, "--does", "request", "--scenario", "base"]);
    run.assert_exit_code(0);
}

/// A client that upgrades, and then goes on as `THEN` says.
const HOSTILE: &str = r"
import socket, sys
host, port = sys.argv[1].removeprefix('ws://').rstrip('/').split(':')
hub = socket.create_connection((host, int(port)))
hub.sendall(b'GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n')
hub.recv(4096)
THEN
while hub.recv(4096): pass
";

#[rstest]
#[case::floods("while True: hub.sendall(b'\\x81\\x82\\0\\0\\0\\0{}' * 1000)", "fail[")]
#[case::sends_half_a_frame("hub.sendall(b'\\x81\\xfe\\x10')", "scenario")]
#[case::announces_a_giant("hub.sendall(b'\\x81\\xff\\x7f\\xff\\xff\\xff\\xff\\xff\\xff\\xff')", "scenario")]
#[case::sends_escapes("hub.sendall(b'\\x81\\x8b\\0\\0\\0\\0\\x1b]0;title\\x07\\x9b')", "fail[")]
fn a_hostile_client_gets_a_verdict(#[case] then: &str, #[case] shown: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.py");
    std::fs::write(&file, HOSTILE.replace("THEN", then)).unwrap();
    let command = format!("python3 {} ${{url}}", file.display());
    let run =
        check_client("concierge", &["--exec", &command, "--scenario", "{greeting,unasked}", "--set", "patience=1s"]);
    assert!(matches!(run.code, Some(1 | 3)), "{:?}: {}", run.code, run.err);
    assert!(run.out.contains(shown) && !run.out.contains('\u{1b}'), "{}", run.out);
    assert!(run.took < Duration::from_secs(60), "{:?}", run.took);
}

#[test]
fn a_client_that_runs_elsewhere_reconnects_for_each_scenario() {
    let port = free_port();
    let script =
        format!("for try in $(seq 300); do {HUBPROOF} client qi ws://127.0.0.1:{port} --do request; sleep 0.1; done");
    let mut client =
        std::process::Command::new("sh").args(["-c", &script]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let address = format!("127.0.0.1:{port}");
    let run = check_client("qi", &["--listen", &address, "--does", "request", "--scenario", "{base,replies*}"]);
    client.kill().unwrap();
    client.wait().unwrap();
    let run = run.assert_exit_code(0);
    assert!(run.out.contains(&format!("clients that connect to ws://{address}")), "{}", run.out);
}

#[test]
fn words_that_the_client_does_not_do_are_not_testable() {
    let command = format!("{HUBPROOF} client qi ${{url}} --do request");
    let run = check_client("qi", &["--exec", &command, "--does", "request", "--min-judged", "0"]).assert_exit_code(0);
    assert!(run.out.contains("unmet need `session`"), "{}", run.out);
    assert!(!run.out.contains("unmet need `request`"), "{}", run.out);
}

#[rstest]
#[case::a_placeholder(&["--protocol", "qi", "--exec", "./worker ${ur}"], "did you mean `${url}`?")]
#[case::no_command(&["--protocol", "qi", "--exec", ""], "names no program")]
#[case::no_protocol(&["--exec", "./worker"], "the protocol of the client is not given")]
#[case::no_clients(&["--pack", "examples/packs/json-rpc-2.0"], "add clients/rules.yaml")]
#[case::no_such_protocol(&["--protocol", "concierg"], "did you mean `concierge`?")]
fn a_mistake_says_what_to_do(#[case] arguments: &[&str], #[case] help: &str) {
    let pack = root().join("examples/packs/json-rpc-2.0").display().to_string();
    let arguments = arguments.iter().map(|word| if word.starts_with("examples/") { pack.as_str() } else { word });
    let run = hubproof(["check-client"].into_iter().chain(arguments)).assert_exit_code(2);
    assert!(run.err.contains(help), "{}", run.err);
}

#[test]
fn a_failure_names_the_client_and_a_command_that_reproduces_it() {
    let fault = ["--fault", "concierge-client-identifies-second"];
    let run = check_client("concierge", &[&fault[..], &["--scenario", "greeting"]].concat()).assert_exit_code(1);
    assert!(run.out.contains("fail[CON-C02"), "{}", run.out);
    let command = run.out.lines().find_map(|line| line.trim().strip_prefix("reproduce"));
    let words: Vec<&str> = command.unwrap().split_whitespace().collect();
    assert_eq!(words[..3], ["hubproof", "check-client", "--fault"], "{words:?}");
    hubproof(&words[1..]).assert_exit_code(1);
}
