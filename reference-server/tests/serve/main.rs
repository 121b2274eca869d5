//! The server over real sockets: upgrades, ends, limits, TLS, the admin side, the program itself.

#![allow(clippy::unwrap_used)]

mod tree;
mod zeromq;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hubproof_reference::{HubCertificate, HubConfig, RunningHub, RunningServer, ServeConfig, ServeError, start_server};
use rstest::rstest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type WebSocketClient = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A hub with settings (`KEY=VALUE`), with the admin side.
async fn hub(protocol: &str, sets: &[&str]) -> RunningServer {
    let mut config = HubConfig::new(protocol);
    for set in sets {
        config.settings.set_pair(set).unwrap();
    }
    start(vec![config]).await
}

async fn start(hubs: Vec<HubConfig>) -> RunningServer {
    start_server(ServeConfig { hubs, admin: Some(SocketAddr::from(([127, 0, 0, 1], 0))), admin_token: None })
        .await
        .unwrap()
}

async fn connect(running: &RunningServer, index: usize) -> WebSocketClient {
    let mut request = running.hubs[index].url.as_str().into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("ert-concierge"));
    match running.hubs[index].protocol.as_str() {
        "concierge" => connect_async(request).await.unwrap().0,
        "airavata" => {
            // {"sub":"u"}, signed with the hub's default key.
            let token =
                "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.V8IrrCE9HOkpwVnOwn0mXzCTwpZge3ca3FL2B7kI0yI";
            let url = format!("{}/ws/user?token={token}", running.hubs[index].url);
            connect_async(url).await.unwrap().0
        }
        "emprops" => {
            let mut client = connect_async(running.hubs[index].url.as_str()).await.unwrap().0;
            receive(&mut client).await;
            client
        }
        _ => connect_async(running.hubs[index].url.as_str()).await.unwrap().0,
    }
}

async fn join(running: &RunningServer, name: &str) -> WebSocketClient {
    let mut client = connect(running, 0).await;
    send(&mut client, &json!({ "type": "IDENTIFY", "name": name, "version": "0.1.0" }).to_string()).await;
    assert_eq!(receive(&mut client).await["type"], "HELLO");
    client
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(client: &mut WebSocketStream<S>, text: &str) {
    client.send(Message::text(text)).await.unwrap();
}

/// Waits for the next message, at most ten seconds.
async fn next_message<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut WebSocketStream<S>,
) -> Option<Result<Message, WsError>> {
    timeout(Duration::from_secs(10), client.next()).await.expect("the hub sends nothing")
}

async fn receive<S: AsyncRead + AsyncWrite + Unpin>(client: &mut WebSocketStream<S>) -> Value {
    match next_message(client).await {
        Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
        other => panic!("expected a text, got {other:?}"),
    }
}

/// Receives a close and the end of the stream, and returns the close code.
async fn receive_close(client: &mut WebSocketClient) -> u16 {
    let code = match next_message(client).await {
        Some(Ok(Message::Close(Some(frame)))) => frame.code.into(),
        other => panic!("expected a close, got {other:?}"),
    };
    assert!(matches!(next_message(client).await, None | Some(Err(_))));
    code
}

/// Makes an HTTP request and returns status and body.
async fn http_exchange(url: &str, request: &str) -> (u16, String) {
    let address = url.split("//").nth(1).unwrap();
    let mut stream = TcpStream::connect(address.split('/').next().unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("no answer").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn admin_request(running: &RunningServer, method: &str, path: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let admin = running.admin.as_deref().unwrap();
    let path = format!("/{}{path}", admin.rsplit('/').next().unwrap());
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let (status, body) = http_exchange(admin, &request).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn all_protocols_are_served_and_shut_down() {
    // An address that no other test uses, so that no test takes the port once it is free again.
    let ip = if cfg!(target_os = "linux") { [127, 0, 0, 7] } else { [127, 0, 0, 1] };
    let listen = SocketAddr::from((ip, 0));
    let hubs = hubproof_reference::protocols().iter().map(|name| HubConfig { listen, ..HubConfig::new(*name) });
    let running = start(hubs.collect()).await;
    let mut clients = Vec::new();
    for index in 0..running.hubs.len() {
        let start = format!("{} ws://{}:", running.hubs[index].protocol, listen.ip());
        assert!(running.address_lines()[index].starts_with(&start), "{:?}", running.address_lines());
        clients.push((connect(&running, index).await, running.hubs[index].protocol.clone()));
    }
    assert!(running.address_lines().last().unwrap().starts_with("admin http://127.0.0.1:"));
    let addr = running.hubs[0].addr;
    let codes = tokio::spawn(async move {
        let mut codes = Vec::new();
        for (client, protocol) in &mut clients {
            if *protocol == "emprops" {
                assert_eq!(receive(client).await["type"], "server_disconnect");
            }
            codes.push(receive_close(client).await);
        }
        codes
    });
    timeout(Duration::from_secs(5), running.shutdown()).await.expect("shutdown ends");
    assert!(codes.await.unwrap().iter().all(|code| *code == 1001));
    if cfg!(target_os = "linux") {
        // A child process started by another test holds this process's sockets for a moment.
        let refused = async { while TcpStream::connect(addr).await.is_ok() {} };
        timeout(Duration::from_secs(10), refused).await.expect("the port is closed");
    }
}

#[tokio::test]
async fn dropping_the_server_ends_its_hubs() {
    let running = hub("concierge", &[]).await;
    let mut client = join(&running, "a").await;
    drop(running);
    assert!(matches!(next_message(&mut client).await, None | Some(Err(_)) | Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn the_admin_side_distinguishes_hubs() {
    let mut secret = HubConfig::new("concierge");
    secret.settings.set_pair("secret=canary").unwrap();
    let running = start(vec![HubConfig::new("concierge"), secret, HubConfig::new("qi")]).await;
    let mut client = join(&running, "a").await;
    let names: Vec<&str> = running.hubs.iter().map(|hub| hub.name.as_str()).collect();
    assert_eq!(names, ["concierge", "concierge-2", "qi"]);
    assert_eq!(admin_request(&running, "GET", "/health", "").await, (200, json!({ "status": "ok" })));
    let (_, state) = admin_request(&running, "GET", "/state/concierge", "").await;
    assert_eq!(state["clients"][0]["name"], "a");
    let (_, states) = admin_request(&running, "GET", "/state", "").await;
    assert_eq!(states["concierge"], state);
    assert_eq!(states["concierge-2"]["secret_required"], true);
    assert!(!states.to_string().contains("canary"));
    client.close(None).await.unwrap();
    while let Some(Ok(_)) = next_message(&mut client).await {}
    let (_, state) = admin_request(&running, "GET", "/state/concierge", "").await;
    assert_eq!(state["clients"], json!([]), "the machine handles the end before the client sees the close");
    running.shutdown().await;
}

/// Everything but `/health` needs the token that the printed address has.
#[rstest]
#[case::none("GET", "/state", 403)]
#[case::other("GET", "/0123456789abcdef0123456789abcdef/state", 403)]
#[case::empty("GET", "//state", 403)]
#[case::event("POST", "/events/qi", 403)]
#[case::health("GET", "/health", 200)]
#[tokio::test]
async fn admin_requests_need_the_token(#[case] method: &str, #[case] path: &str, #[case] status: u16) {
    let running = start(vec![HubConfig::new("qi")]).await;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
    let (got, answer) = http_exchange(running.admin.as_deref().unwrap(), &request).await;
    assert_eq!((got, answer.contains("token")), (status, status == 403), "{answer}");
    assert_eq!(admin_request(&running, "GET", "/state", "").await.0, 200);
}

#[rstest]
#[case("GET", "/nothing", "", 404, "GET /health")]
#[case("GET", "/state/gator", "", 404, "the hubs are qi")]
#[case("POST", "/state", "", 405, "GET")]
#[case("GET", "/events/qi", "", 405, "POST")]
#[case("POST", "/events/concierge", "{}", 404, "no events")]
#[case("POST", "/events/qi", "{}", 400, "expected")]
#[case("POST", "/events/qi", "{", 400, "not JSON")]
#[tokio::test]
async fn wrong_admin_requests_are_explained(
    #[case] method: &str,
    #[case] path: &str,
    #[case] body: &str,
    #[case] status: u16,
    #[case] why: &str,
) {
    let running = start(vec![HubConfig::new("qi"), HubConfig::new("concierge")]).await;
    let (got, answer) = admin_request(&running, method, path, body).await;
    assert_eq!(got, status);
    assert!(answer["error"].as_str().unwrap().contains(why), "{answer}");
}

#[rstest]
#[case::no_upgrade("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426)]
#[case::no_key(
    "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
    426
)]
#[case::garbage("garbage\r\n\r\n", 400)]
#[tokio::test]
async fn requests_other_than_upgrades_are_refused(#[case] request: &str, #[case] status: u16) {
    let running = hub("qi", &[]).await;
    assert_eq!(http_exchange(&running.hubs[0].url, request).await.0, status);
}

#[rstest]
#[case::oversize(Message::text("x".repeat(2000)), 1009)]
#[case::oversize_binary(Message::binary(vec![0; 100_000]), 1009)]
#[case::not_utf8(frame(0x1, b"\xff\xfe"), 1007)]
#[case::reserved_opcode(frame(0x3, b"x"), 1002)]
#[tokio::test]
async fn invalid_messages_close_the_connection(#[case] message: Message, #[case] code: u16) {
    let running = start(vec![HubConfig { max_message: 1000, ..HubConfig::new("concierge") }]).await;
    let mut other = join(&running, "other").await;
    let mut client = join(&running, "a").await;
    client.send(message).await.unwrap();
    assert_eq!(receive_close(&mut client).await, code);
    send(&mut other, r#"{"type":"CLIENT_FETCH_ALL"}"#).await;
    assert_eq!(
        receive(&mut other).await["clients"].as_array().unwrap().len(),
        1,
        "the machine knows that the client has gone"
    );
}

fn frame(opcode: u8, payload: &'static [u8]) -> Message {
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
    let opcode = match opcode {
        1 => OpCode::Data(Data::Text),
        other => OpCode::Data(Data::Reserved(other)),
    };
    let header = FrameHeader { opcode, mask: Some([0; 4]), ..FrameHeader::default() };
    Message::Frame(Frame::from_payload(header, payload.into()))
}

/// emprops announces its end, by an event or at shutdown, and applies the protocol's message limit, not the socket's.
#[rstest]
#[case::event(true)]
#[case::shutdown(false)]
#[tokio::test]
async fn a_hub_announces_its_shutdown_before_closing(#[case] by_event: bool) {
    let running = hub("emprops", &["epoch_ms=1705312345000"]).await;
    let mut client = connect(&running, 0).await;
    send(&mut client, &format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(11 << 20))).await;
    assert_eq!(receive(&mut client).await["error_code"], "MESSAGE_TOO_LARGE");
    let down = async {
        if by_event {
            let (status, answer) =
                admin_request(&running, "POST", "/events/emprops", r#"{"type":"server_disconnect"}"#).await;
            assert_eq!((status, answer), (200, json!({ "disconnected": 1 })));
        }
        running.shutdown().await;
    };
    let goodbye = async {
        assert_eq!(receive(&mut client).await["type"], "server_disconnect");
        assert_eq!(receive_close(&mut client).await, 1001);
    };
    tokio::join!(down, goodbye);
}

#[tokio::test]
async fn deadlines_pass_without_any_input() {
    let running = hub("concierge", &["identify_timeout_ms=20"]).await;
    assert_eq!(receive_close(&mut connect(&running, 0).await).await, 4004);
}

#[tokio::test]
async fn pings_are_answered_and_forwarded() {
    let config = HubConfig { fault: Some("concierge-seq-counts-pings".to_owned()), ..HubConfig::new("concierge") };
    let running = start(vec![config]).await;
    let mut client = join(&running, "a").await;
    client.send(Message::Ping("x".into())).await.unwrap();
    assert!(matches!(next_message(&mut client).await, Some(Ok(Message::Pong(data))) if data == "x"));
    send(&mut client, r#"{"type":"SELF_FETCH"}"#).await;
    assert_eq!(receive(&mut client).await["seq"], 2);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_without_delaying_others() {
    let running = hub("concierge", &[]).await;
    let _deaf = join(&running, "deaf").await;
    let mut client = join(&running, "a").await;
    let data = "x".repeat(1 << 20);
    let message = json!({ "type": "MESSAGE", "target": { "type": "NAME", "name": "deaf" }, "data": data }).to_string();
    // The outbox holds 64 MiB, the sockets a few more.
    for _ in 0..200 {
        send(&mut client, &message).await;
        if receive(&mut client).await["code"] == "NO_SUCH_NAME" {
            return;
        }
    }
    panic!("the hub keeps 200 MiB for a client that does not read");
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order() {
    let running = hub("qi", &[]).await;
    let mut client = connect(&running, 0).await;
    for number in 0..1000 {
        let request = json!({ "session_id": number.to_string(), "command": "ping", "version": "0.1.0" });
        client.feed(Message::text(request.to_string())).await.unwrap();
    }
    client.flush().await.unwrap();
    for number in 0..1000 {
        assert_eq!(receive(&mut client).await["session_id"], number.to_string());
    }
}

/// Connects to a qi hub over TLS and sends a request; returns `false` if the certificate is not trusted.
async fn ask_securely(hub: &RunningHub, trusted: Option<CertificateDer<'static>>) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(certificate) = trusted {
        roots.add(certificate).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(hub.addr).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let Ok(stream) = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await else {
        return false;
    };
    assert!(hub.url.starts_with("wss://127.0.0.1:"));
    let (mut client, _) = tokio_tungstenite::client_async(hub.url.as_str(), stream).await.unwrap();
    send(&mut client, r#"{"command":"ping","version":"0.1.0"}"#).await;
    receive(&mut client).await["status"] == "success"
}

#[tokio::test]
async fn self_signed_hubs_share_one_ca() {
    let config = HubConfig { tls: Some(HubCertificate::SelfSigned), ..HubConfig::new("qi") };
    let running = start(vec![config.clone(), config]).await;
    let ca = CertificateDer::from_pem_slice(running.ca.as_deref().unwrap().as_bytes()).unwrap();
    assert!(ask_securely(&running.hubs[0], Some(ca.clone())).await);
    assert!(ask_securely(&running.hubs[1], Some(ca)).await, "all hubs have the same CA");
    assert!(!ask_securely(&running.hubs[0], None).await);
    running.shutdown().await;
}

/// Returns a path for this test.
fn scratch_path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

#[tokio::test]
async fn certificates_are_read_from_files() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (scratch_path("cert.pem"), scratch_path("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = HubCertificate::Files { cert: cert.clone(), key: key.clone() };
    let running = start(vec![HubConfig { tls: Some(tls), ..HubConfig::new("qi") }]).await;
    assert!(ask_securely(&running.hubs[0], Some(made.cert.der().clone())).await);
    assert!(running.ca.is_none());
    let swapped = HubCertificate::Files { cert: key.clone(), key: cert.clone() };
    let config =
        ServeConfig { hubs: vec![HubConfig { tls: Some(swapped), ..HubConfig::new("qi") }], ..ServeConfig::default() };
    assert!(start_server(config).await.is_err(), "a key is not a certificate");
    for file in [cert, key] {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn startup_errors_are_explained() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let missing = HubCertificate::Files { cert: "no/such/cert.pem".into(), key: "no/such/key.pem".into() };
    for (config, why) in [
        (HubConfig { listen: taken.local_addr().unwrap(), ..HubConfig::new("qi") }, "failed to listen on"),
        (HubConfig::new("nothing"), "there is no protocol \"nothing\""),
        (HubConfig { fault: Some("x".to_owned()), ..HubConfig::new("qi") }, "qi has no fault \"x\""),
        (HubConfig { tls: Some(missing), ..HubConfig::new("qi") }, "no/such/cert.pem"),
    ] {
        let error: ServeError =
            start_server(ServeConfig { hubs: vec![config], ..ServeConfig::default() }).await.map(drop).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubproof-reference"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    command
}

#[cfg(unix)]
#[rstest]
#[case("INT")]
#[case("TERM")]
fn the_program_prints_addresses_and_ends_on_signals(#[case] signal: &str) {
    let mut child = program(&["concierge", "qi", "--admin", "localhost:0"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for start in ["concierge ws://127.0.0.1:", "qi ws://127.0.0.1:", "admin http://127.0.0.1:"] {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let port = line.strip_prefix(start).unwrap_or_else(|| panic!("{line}"));
        let port = port.trim_end().split('/').next().unwrap();
        std::net::TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    }
    assert!(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[rstest]
#[case(&["nothing"], "there is no protocol \"nothing\"; the reference server speaks qi, concierge")]
#[case(&["qi", "qi"], "qi is named twice")]
#[case(&["--set", "qi.version=one"], "settings of qi: version \"one\" is not a semantic version")]
#[case(&["--set", "gateway.version=one"], "there is no protocol \"gateway\"")]
#[case(&["--set", "version"], "is not KEY=VALUE")]
#[case(&["--fault", "qi-nothing"], "there is no fault \"qi-nothing\"")]
#[case(&["concierge", "--fault", "qi-extra-array"], "belongs to qi, which is not served")]
#[case(&["--config", "no/such/file.toml"], "failed to read no/such/file.toml")]
#[case(&["--listen", "nowhere"], "expected IP:PORT")]
#[case(&["--admin-token", "a/b"], "letters, digits")]
#[case(&["--tls-cert", "x"], "--tls-key")]
#[case(&["--listen", "127.0.0.1:65535"], "not enough ports")]
fn usage_errors_exit_with_code_2(#[case] arguments: &[&str], #[case] why: &str) {
    let output = program(arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(why), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn faults_are_listed_as_text_and_as_json() {
    let text = program(&["--list-faults"]).output().unwrap();
    assert!(text.status.success());
    let text = String::from_utf8(text.stdout).unwrap();
    let list = program(&["--list-faults", "--format", "json"]).output().unwrap();
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let list = list["faults"].as_array().unwrap();
    assert_eq!(list.len(), hubproof_reference::faults().count());
    for fault in list {
        assert!(text.contains(fault["id"].as_str().unwrap()));
        assert!(!fault["rules"].as_array().unwrap().is_empty());
    }
}

#[cfg(unix)]
#[test]
fn the_program_reads_settings_and_writes_its_ca_certificate() {
    let (config, ca) = (scratch_path("hubs.toml"), scratch_path("ca.pem"));
    std::fs::write(&config, "[qi]\nversion = \"0.3.0\"\n[concierge]\nsecret = \"canary\"\n").unwrap();
    let tls = format!("--tls-self-signed={}", ca.display());
    let mut child =
        program(&["qi", "--config", config.to_str().unwrap(), &tls, "--admin", "127.0.0.1", "--admin-token", "t-1"])
            .spawn()
            .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(stdout.next().unwrap().unwrap().starts_with("qi wss://127.0.0.1:"));
    let admin = stdout.next().unwrap().unwrap().strip_prefix("admin http://").unwrap().to_owned();
    assert!(std::fs::read_to_string(&ca).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    let mut stream = std::net::TcpStream::connect(admin.strip_suffix("/t-1").unwrap()).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /t-1/state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(r#""version":"0.3.0""#) && !answer.contains("concierge"), "{answer}");
    child.kill().unwrap();
    child.wait().unwrap();
    for file in [config, ca] {
        std::fs::remove_file(file).unwrap();
    }
}
