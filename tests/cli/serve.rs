//! `hubproof serve` as a separate process, and `hubproof check` against it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rstest::rstest;
use serde_json::Value;
use tokio_tungstenite::tungstenite;

use crate::support::disk;
use crate::support::process::{ServeProcess, answer_to, free_port, hubproof, start};

/// Returns the protocols of the reference server that are tested by default.
fn default_protocols() -> Vec<&'static str> {
    let scenarios = |name: &&&str| **name != hubproof_reference::protocols::websocket::PROTOCOL;
    let spoken: Vec<&str> = hubproof_reference::protocols().iter().filter(scenarios).copied().collect();
    assert!(spoken.len() >= 2, "{spoken:?}");
    spoken
}

/// Parses a JUnit file strictly and checks its counts; returns the number of test cases.
fn count_junit_cases(text: &str) -> usize {
    let mut reader = quick_xml::Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let (mut cases, mut failures, mut announced) = (0, 0, None);
    loop {
        use quick_xml::events::Event;
        match reader.read_event().expect("well-formed XML") {
            Event::Eof => break,
            Event::Start(tag) | Event::Empty(tag) => {
                for attribute in tag.attributes() {
                    let attribute = attribute.expect("well-formed attributes");
                    let value =
                        attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).expect("well-formed text");
                    if tag.name().as_ref() == b"testsuites" && attribute.key.as_ref() == b"tests" {
                        announced = Some(value.parse::<usize>().unwrap());
                    }
                }
                cases += usize::from(tag.name().as_ref() == b"testcase");
                failures += usize::from(tag.name().as_ref() == b"failure");
            }
            Event::Text(text) => {
                text.xml10_content().expect("legal text");
            }
            _ => {}
        }
    }
    assert_eq!(announced, Some(cases), "{text}");
    assert_eq!(failures, 0, "{text}");
    cases
}

pub fn assert_valid_report(report: &Value) {
    let schema = std::fs::read_to_string(disk::root().join("schemas/hubproof/report.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(report).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn without_a_url_every_protocol_of_the_embedded_server_passes() {
    let done = hubproof(["check"]).assert_exit_code(0);
    for name in default_protocols() {
        assert!(done.out.contains(&format!("PASS {name}: ")), "{}", done.out);
    }
    assert!(!done.out.contains("fail["), "{}", done.out);
}

#[rstest]
#[case::qi("qi", "qi/*")]
#[case::concierge("concierge", "concierge/[gms]e*")]
#[ignore = "thorough: many minutes of CPU"]
#[case::whole_concierge("concierge", "concierge/*")]
fn the_target_file_of_serve_makes_every_check_testable(#[case] name: &str, #[case] scenarios: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.toml");
    let file = file.to_str().unwrap();
    let _server = ServeProcess::start([name, "--target-file", file], 1);
    let done = hubproof(["check", "--target", file, "--scenario", scenarios]).assert_exit_code(0);
    assert!(done.verdict().starts_with(&format!("PASS {name}: ")), "{}", done.out);
    assert!(!done.out.contains("unmet need"), "{}", done.out);
}

#[rstest]
#[case::qi("qi", "qi/*")]
#[case::concierge("concierge", "concierge/[gms]e*")]
#[ignore = "thorough: many minutes of CPU"]
#[case::whole_concierge("concierge", "concierge/*")]
fn checks_by_url_alone_do_not_fail_and_list_unmet_needs(#[case] name: &str, #[case] scenarios: &str) {
    let server = ServeProcess::start([name], 1);
    let folder = tempfile::tempdir().unwrap();
    let (json, xml) = (folder.path().join("r.json"), folder.path().join("r.xml"));
    let reports = [format!("--report=json={}", json.display()), format!("--report=junit={}", xml.display())];
    let chosen = ["check", server.url(name), "--protocol", name, "--scenario", scenarios];
    let done = hubproof(chosen.into_iter().chain(reports.iter().map(String::as_str))).assert_exit_code(0);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_valid_report(&report);
    let cases = count_junit_cases(&std::fs::read_to_string(xml).unwrap());
    let protocol = &report["protocols"][0];
    assert_eq!(protocol["scenarios"]["verdicts"]["fail"], 0, "{protocol:#}");
    assert!(cases > 0);
    if name == "concierge" {
        assert!(done.out.contains("unmet need `hub.secret is defined`"), "{}", done.out);
        assert!(report.to_string().contains("hub.secret is defined"));
    }
}

#[rstest]
fn serve_shuts_down_cleanly(#[values("TERM", "INT")] signal: &str) {
    let server = ServeProcess::start(["--admin", "127.0.0.1:0"], hubproof_reference::protocols().len() + 1);
    assert!(server.url("admin").starts_with("http://127.0.0.1:"));
    for name in default_protocols() {
        assert!(server.url(name).starts_with("ws://127.0.0.1:"));
    }
    assert_eq!(server.stop(signal), (Some(0), String::new()));
}

#[rstest]
#[case("Host: 127.0.0.1:1\r\n", "200 OK")]
#[case("Host: localhost\r\n", "200 OK")]
#[case("Host: evil.example\r\n", "403 Forbidden")]
#[case("Host: 127.0.0.1:1\r\nOrigin: http://evil.example\r\n", "403 Forbidden")]
fn the_admin_side_refuses_web_pages(#[case] headers: &str, #[case] status: &str) {
    let server = ServeProcess::start(["qi", "--admin", "127.0.0.1:0"], 2);
    let address = server.url("admin").strip_prefix("http://").unwrap().split('/').next().unwrap();
    // Idle connections do not keep others out.
    let _idle: Vec<_> = (0..300).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let answer = answer_to(address, &format!("GET /health HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"));
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
}

#[test]
fn only_qi_is_served_over_zeromq_and_checked_as_over_websocket() {
    let port = free_port();
    let server = ServeProcess::start(["qi", "--zeromq", &port.to_string()], 3);
    assert_eq!(server.url("zeromq"), format!("tcp://127.0.0.1:{port}"));
    assert_eq!(server.url("zeromq-publishes"), format!("tcp://127.0.0.1:{}", port + 1));
    let address = format!("tcp://127.0.0.1:{port}?publishes={}", port + 1);
    let scenarios = ["base", "sessions", "leavers"].map(|name| format!("--scenario=qi/{name}"));
    let words =
        ["check", &address, "--protocol", "qi", "--set", "ok_command=get_static", "--set", "plain_command=ping"];
    let checked = hubproof(words.into_iter().chain(scenarios.iter().map(String::as_str))).assert_exit_code(0);
    assert!(checked.out.contains("PASS qi") && checked.out.contains("unmet need `WebSocket`"), "{}", checked.out);
    assert_eq!(server.stop("TERM"), (Some(0), String::new()));
    for (names, why) in [(&["qi", "concierge"][..], "concierge cannot be served over ZeroMQ"), (&["qi"], "65535")] {
        let port = if names.len() > 1 { "0" } else { "65535" };
        let done = hubproof(["serve", "--zeromq", port].iter().chain(names)).assert_exit_code(2);
        assert!(done.err.contains(why), "{}", done.err);
    }
}

/// Runs a Python script that needs pyzmq, which `.ci/run` installs.
fn zeromq_script(name: &str) -> Command {
    let installed = disk::root().join("target/zeromq/bin/python");
    let python = if installed.exists() { installed.into_os_string() } else { "python3".into() };
    let mut command = Command::new(python);
    command.arg(disk::root().join("tests/fixtures").join(name)).stdout(Stdio::piped());
    command
}

/// Lets a client of libzmq converse with a hub, given the addresses of its REP and PUB sockets, and of its events.
#[track_caller]
fn assert_served_over_zeromq(addresses: [&str; 3]) {
    let done = zeromq_script("clients/qi_zeromq.py").args(addresses).stderr(Stdio::inherit()).output().unwrap();
    let expected = r#"{"session_id": "short", "status": "success", "same": true}
{"session_id": "long", "status": "success", "same": true}
{"published": true}
"#;
    assert_eq!(String::from_utf8(done.stdout).unwrap(), expected, "python3 -m venv target/zeromq needs pyzmq");
    assert!(done.status.success());
}

#[test]
#[ignore = "thorough: waits for real time"]
fn a_client_of_libzmq_gets_replies_and_published_messages() {
    let server = ServeProcess::start(["qi", "--zeromq", "0", "--admin", "127.0.0.1:0"], 4);
    let events = format!("{}/events/qi", server.url("admin"));
    assert_served_over_zeromq([server.url("zeromq"), server.url("zeromq-publishes"), &events]);
    assert_eq!(server.stop("TERM"), (Some(0), String::new()));
}

/// The service and the client that others would write understand each other, and hubproof finds nothing wrong with the service.
#[test]
#[ignore = "thorough: waits for real time"]
fn the_service_of_libzmq_serves_the_client_of_libzmq() {
    let mut service = zeromq_script("hubs/qi_zeromq.py").args(["--port", &free_port().to_string()]).spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(service.stdout.take().unwrap()).lines().take(3).map(Result::unwrap).collect();
    let served = std::panic::catch_unwind(|| {
        assert_served_over_zeromq([&lines[0], &lines[1], &lines[2]]);
        // And hubproof finds nothing wrong with the service.
        let address = format!("{}?publishes={}", lines[0], lines[1].rsplit(':').next().unwrap());
        let commands = ["ok_command=execute", "plain_command=abort", "echo_command=echo"];
        let sets = commands.iter().flat_map(|set| ["--set", set]);
        let checked = hubproof(["check", &address, "--protocol", "qi"].into_iter().chain(sets.clone()));
        assert_eq!(checked.code, Some(0), "{}", checked.out);
        let words = ["fuzz", &address, "--protocol", "qi", "--cases", "100", "--seed", "1", "--yes"];
        let fuzzed = hubproof(words.into_iter().chain(sets));
        assert_eq!(fuzzed.code, Some(0), "{}", fuzzed.out);
    });
    service.kill().unwrap();
    service.wait().unwrap();
    served.unwrap();
}

#[rstest]
#[case::correct(&["--do", "request,session", "--leave"], 0, "")]
#[case::nothing_to_do(&["--do", "", "--leave"], 0, "")]
#[case::broken(&["--do", "request", "--fault", "websocket-client-unmasked"], 1, "closed the connection with 1002")]
fn a_client_process_reports_how_its_connection_ended(#[case] options: &[&str], #[case] code: i32, #[case] why: &str) {
    let server = ServeProcess::start(["qi"], 1);
    let done = hubproof([&["client", "qi", server.url("qi")], options].concat()).assert_exit_code(code);
    assert!(done.err.contains(why) && done.err.is_empty() == why.is_empty(), "{}", done.err);
}

#[test]
fn a_client_process_closes_its_connection_when_it_is_terminated() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let client = start(["client", "emprops", &url], &[]);
    let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
    // The pong shows that the client knows it is connected.
    socket.send(tungstenite::Message::Ping(b"there".as_slice().into())).unwrap();
    let pong = socket.read().unwrap();
    assert!(pong.is_pong(), "{pong:?}");
    client.signal("TERM");
    let disconnect = socket.read().unwrap().into_text().unwrap();
    assert!(disconnect.contains(r#""type":"disconnect""#), "{disconnect}");
    let close = socket.read().unwrap();
    assert!(matches!(&close, tungstenite::Message::Close(Some(frame)) if u16::from(frame.code) == 1000), "{close:?}");
    let _ = socket.read();
    drop(socket);
    client.wait_for_end().assert_exit_code(0);
}
