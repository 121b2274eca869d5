//! One rule for paths: every command requests the same address, and shows it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rstest::rstest;

use crate::support::hostile_servers::ScriptedHub;
use crate::support::process::{ProcessResult, ServeProcess, hubproof};

/// A hub that answers each text with `{"news":"x"}`, and knows what was requested of it.
struct ObservedHub {
    hub: ScriptedHub,
    targets: Arc<Mutex<BTreeSet<String>>>,
}

impl ObservedHub {
    /// Refuses requests for other targets than these, with 401.
    fn admitting(admits: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let targets = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&targets);
        let admits = move |head: &str| {
            let target = head.split(' ').nth(1).unwrap_or_default();
            seen.lock().unwrap().insert(target.to_owned());
            admits(head)
        };
        Self { hub: ScriptedHub::guarded(admits, |_, _, _| vec![r#"{"news":"x"}"#.to_owned()]), targets }
    }

    fn start() -> Self {
        Self::admitting(|_| true)
    }

    fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap().iter().cloned().collect()
    }
}

/// A document whose only channel has this address, and whose server has this URL.
fn document(server: &str, channel: &str) -> String {
    format!(
        "asyncapi: 2.6.0
info: {{ title: News, version: '1' }}
servers: {{ hub: {{ url: '{server}', protocol: ws, variables: {{ version: {{ default: '2' }} }} }} }}
channels:
  '{channel}':
    publish: {{ message: {{ name: ask, payload: {{ type: object, required: [ask], properties: {{ ask: {{ type: string }} }} }} }} }}
    subscribe: {{ message: {{ name: news, payload: {{ type: object, required: [news], properties: {{ news: {{ type: string }} }} }} }} }}
"
    )
}

/// Runs a command on a hub with a document and a plan in the current folder.
fn run_with_document(command: &[&str], url: &str, document: &str) -> ProcessResult {
    let folder = tempfile::tempdir().unwrap();
    let (pack, plan) = (folder.path().join("news.yaml"), folder.path().join("plan.yaml"));
    fs::write(&pack, document).unwrap();
    fs::write(
        &plan,
        "title: t\nroles: { r: { plays: client, population: 2, steps: [ { sends: ask }, { expects: news }, { thinks: 200ms } ] } }\nphases: { warm_up: 0s, duration: 1s, drain: 1s }\n",
    )
    .unwrap();
    let plan = plan.to_str().unwrap();
    let command = command.iter().map(|word| if *word == "PLAN" { plan } else { *word });
    hubproof([command.collect(), vec![url, "--pack", pack.to_str().unwrap()]].concat())
}

#[rstest]
#[case::the_prefix_of_the_user("/rt/ws", "ws://x", "/ws", "/rt/ws")]
#[case::before_the_channel("/prefix", "ws://x", "/ws", "/prefix/ws")]
#[case::no_path("", "ws://x", "/ws", "/ws")]
#[case::of_the_server("", "ws://x/v1/realtime", "/", "/v1/realtime")]
#[case::of_server_and_channel("/prefix", "ws://x/v1", "/ws", "/prefix/v1/ws")]
#[case::given_like_the_server("/v1", "ws://x/v1", "/ws", "/v1/ws")]
#[case::repeated("", "ws://x/v1/realtime", "/v1/realtime", "/v1/realtime")]
#[case::both_queries("/rt?user=1&v=1", "ws://x/ws?v={version}", "/", "/rt/ws?user=1&v=2")]
#[case::query_alone("?user=1", "ws://x?v={version}", "/ws?a=b", "/ws?user=1&a=b&v=2")]
#[case::whole_url("/prefix", "ws://x/v1", "wss://example.com/ws?a=b", "/prefix/ws?a=b")]
fn every_command_requests_the_same_address(
    #[case] base: &str,
    #[case] server: &str,
    #[case] channel: &str,
    #[case] expected: &str,
    #[values(
        &["check", "--stretch", "0.5"],
        &["fuzz", "--cases", "3", "--seed", "1", "--mutation", "wrong-type"],
        &["load", "--plan", "PLAN"]
    )]
    command: &[&str],
) {
    let hub = ObservedHub::start();
    let done = run_with_document(command, &format!("{}{base}", hub.hub.url()), &document(server, channel));
    assert_eq!(hub.targets(), [expected], "{}{}", done.out, done.err);
    assert!(done.out.contains(&format!("against {}{expected}\n", hub.hub.url())), "{}", done.out);
}

/// A full address replaces the hub's own, but never leads to another machine.
#[test]
fn a_scenario_may_name_a_full_address() {
    let (hub, other) = (ObservedHub::start(), ObservedHub::start());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("news.yaml"), document("ws://x", "/ws")).unwrap();
    hubproof(["packs", "init", &path("news.yaml"), "--to", &path("news")]).assert_exit_code(0);
    let shared = fs::read_to_string(path("news/scenarios/shared.yaml")).unwrap();
    let check = |address: &str| {
        fs::write(path("news/scenarios/shared.yaml"), shared.replace("/ws", address)).unwrap();
        hubproof(["check", &format!("{}/prefix", hub.hub.url()), "--pack", &path("news"), "--stretch", "0.5"])
    };
    let done = check(&format!("{}/other?a=1", other.hub.url()));
    assert_eq!((hub.targets(), other.targets()), (vec![], vec!["/other?a=1".to_owned()]), "{}", done.out);
    let done = check("wss://example.com/other").assert_exit_code(2);
    assert!(done.out.contains("is on another machine, but the hub is on this one"), "{}", done.out);
}

/// Connects a client to a proxy and requests a target; returns the beginning of the answer.
fn request(proxy: &str, target: &str) -> String {
    let address = proxy.strip_prefix("ws://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(format!("GET {target} HTTP/1.1\r\n{head}").as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[rstest]
#[case::the_same("/graphql", "/graphql", "/graphql")]
#[case::root("/graphql/", "/", "/graphql/")]
#[case::further("/graphql", "/graphql/stream?a=1", "/graphql/stream?a=1")]
#[case::prefix("/rt?token=1", "/ws?token=2&b=3", "/rt/ws?token=2&b=3")]
#[case::no_path("", "/a%20b/?x=y", "/a%20b/?x=y")]
fn a_proxy_joins_the_path_of_the_client_to_that_of_the_hub(
    #[case] base: &str,
    #[case] target: &str,
    #[case] expected: &str,
    #[values("relay", "record")] command: &str,
) {
    let hub = ObservedHub::start();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("x.jsonl");
    let url = format!("{}{base}", hub.hub.url());
    let more = if command == "relay" { ["--protocol", "qi"] } else { ["--to", to.to_str().unwrap()] };
    let proxy = ServeProcess::start_as([&[command, url.as_str()], &more[..]].concat(), 2);
    assert_eq!(request(proxy.url(command), target), "HTTP/1.1 101");
    assert_eq!(hub.targets(), [expected]);
}

/// What was requested is shown, without the values of secrets.
#[test]
fn the_requested_address_is_shown_without_secrets() {
    let refuses = ObservedHub::admitting(|_| false);
    let binding = "publish: { message: { name: ask,";
    let document = document("ws://x", "/ws").replacen(
        "    publish:",
        "    bindings: { ws: { query: { required: [api_token], properties: { api_token: {}, v: { const: 3 } } } } }\n    publish:",
        1,
    );
    assert!(document.contains(binding) && document.contains("bindings"));
    let url = format!("{}/prefix", refuses.hub.url());
    let command = ["check", "--set", "api_token=s3cr3t", "--trace", "--stretch", "0.5"];
    let done = run_with_document(&command, &url, &document);
    assert_eq!(refuses.targets(), ["/prefix/ws?api_token=s3cr3t&v=3"]);
    let shown = format!("{url}/ws?api_token=***&v=3");
    assert!(done.err.contains(&format!("refused     {shown}: HTTP 401")) || done.err.contains(&shown), "{}", done.err);
    assert!(done.out.contains(&format!("an accepted upgrade (HTTP 101) at {shown}")), "{}", done.out);
    assert!(!done.out.contains("s3cr3t") && !done.err.contains("s3cr3t"), "{}{}", done.out, done.err);

    let accepts = ObservedHub::start();
    let url = format!("{}/prefix", accepts.hub.url());
    let done = run_with_document(&command, &url, &document);
    assert!(done.err.contains(&format!("{url}/ws?api_token=***&v=3")), "{}", done.err);
}

/// A token in the URL is masked in all output, even if no setting has it.
#[test]
fn the_secrets_of_an_address_are_masked() {
    let hub = ObservedHub::start();
    let url = format!("{}/ws?access_token=s3%20cr3t&v=1", hub.hub.url());
    let command = ["check", "--trace", "--verbose", "--report", "json=-", "--stretch", "0.5"];
    let done = run_with_document(&command, &url, &document("ws://x", "/ws"));
    assert_eq!(hub.targets(), ["/ws?access_token=s3%20cr3t&v=1"]);
    let shown = format!("{}/ws?access_token=***&v=1", hub.hub.url());
    assert!(done.out.contains(&format!("\"target\": \"{shown}\"")), "{}", done.out);
    assert!(done.err.contains(&shown), "{}", done.err);
    let said = format!("{}{}", done.out, done.err);
    assert!(!said.contains("cr3t"), "{said}");
}

/// An optional member of the query is the user's, and no example of the document replaces it.
#[rstest]
#[case::left_out("", &[], "/ws")]
#[case::of_the_url("?token=mine", &[], "/ws?token=mine")]
#[case::of_the_target("", &["--set", "token=mine"], "/ws?token=mine")]
fn an_optional_query_member_is_sent_only_with_a_value_of_the_user(
    #[case] base: &str,
    #[case] set: &[&str],
    #[case] expected: &str,
    #[values(&["check", "--stretch", "0.5"], &["load", "--plan", "PLAN"])] command: &[&str],
) {
    let document = document("ws://x", "/ws").replacen(
        "    publish:",
        "    bindings: { ws: { query: { properties: { token: { type: string, examples: [invented] } } } } }\n    publish:",
        1,
    );
    let hub = ObservedHub::start();
    let done = run_with_document(&[command, set].concat(), &format!("{}{base}", hub.hub.url()), &document);
    assert_eq!(hub.targets(), [expected], "{}{}", done.out, done.err);
}

/// Path, query and subprotocol of a recording are those of the draft, which the recorded hub passes.
#[test]
fn a_draft_connects_as_the_recorded_clients_did() {
    let admits = |head: &str| {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let subprotocol = head.to_ascii_lowercase().contains("sec-websocket-protocol: v2.news");
        path == "/rt/ws" && query.split('&').any(|part| part == "token=a%20b") && subprotocol
    };
    let hub = ObservedHub::admitting(admits);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let client = document("ws://x", "/ws").replacen(
        "    publish:",
        "    bindings: { ws: { query: { required: [token], properties: { token: { default: a b } } }, headers: { properties: { Sec-WebSocket-Protocol: { const: v2.news } } } } }\n    publish:",
        1,
    );
    let record = ServeProcess::start_as(["record", &format!("{}/rt", hub.hub.url()), "--to", &path("x.jsonl")], 2);
    run_with_document(&["check", "--stretch", "0.5"], record.url("record"), &client).assert_exit_code(0);
    assert_eq!(record.stop("INT").0, Some(0));
    let recorded = fs::read_to_string(path("x.jsonl")).unwrap();
    assert!(recorded.contains(r#""target":"/rt/ws?token=a%20b""#), "{recorded}");
    assert!(recorded.contains(r#""subprotocols":["v2.news"]"#), "{recorded}");
    hubproof(["packs", "init", "--from-recording", &path("x.jsonl"), "--to", &path("draft")]).assert_exit_code(0);
    let shared = fs::read_to_string(path("draft/scenarios/shared.yaml")).unwrap();
    assert!(shared.contains("secret: true"), "{shared}");
    for base in ["", "/rt", "/rt/ws"] {
        let url = format!("{}{base}", hub.hub.url());
        let done = hubproof(["check", &url, "--pack", &path("draft"), "--stretch", "0.5"]).assert_exit_code(0);
        assert!(done.out.contains("RECORDED") || done.out.contains("PASS"), "{}", done.out);
    }
}

/// The path of the server and the address of a channel say the same twice.
#[rstest]
#[case::the_whole_path("ws://x/v1/realtime", "/v1/realtime", Some("/v1/realtime"))]
#[case::the_beginning("ws://x/api/", "/api/feed", Some("/api/feed"))]
#[case::nothing("ws://x/v1", "/ws", None)]
#[case::root("ws://x/v1", "/", None)]
#[case::whole_url("ws://x/v1", "ws://x/v1/ws", None)]
fn lint_warns_of_a_repeated_path(#[case] server: &str, #[case] channel: &str, #[case] connects: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("news.yaml");
    fs::write(&file, document(server, channel)).unwrap();
    let done = hubproof(["packs", "lint", file.to_str().unwrap()]).assert_exit_code(0);
    let said = format!("{}{}", done.out, done.err);
    assert_eq!(said.contains("repeats the path of its server"), connects.is_some(), "{said}");
    assert!(connects.is_none_or(|path| said.contains(&format!("connects to `{path}`"))), "{said}");
}
