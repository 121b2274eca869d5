use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use super::{HookCall, HookError, HookSpec, MAX_ANSWER, TrustedCertificates, run_hook};
use crate::config::TlsOptions;

/// Long enough for a busy machine; no test waits that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers one request with `response` and returns the request. With `None` it never answers.
async fn start_server(response: Option<String>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut asked = Vec::new();
        let mut buffer = [0; 4096];
        let complete = |asked: &[u8]| {
            let text = String::from_utf8_lossy(asked).into_owned();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let lengths = head
                .lines()
                .filter_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
            (body.len() >= lengths.sum::<usize>()).then_some(text)
        };
        let asked = loop {
            let n = stream.read(&mut buffer).await.expect("a request");
            asked.extend(&buffer[..n]);
            if let Some(text) = complete(&asked) {
                break text;
            }
            assert!(n > 0, "the request ended early: {}", String::from_utf8_lossy(&asked));
        };
        match response {
            // The client may close before it has read all of it.
            Some(response) => drop(stream.write_all(response.as_bytes()).await),
            None => while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {},
        }
        asked
    });
    (address, asked)
}

fn response(status: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()))
}

fn http_hook(method: &str, url: String, headers: &[(&str, &str)], body: Option<&str>) -> HookSpec {
    HookSpec::Http {
        method: method.to_owned(),
        url,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.map(str::to_owned),
        timeout: None,
    }
}

fn command_hook(words: &[&str]) -> HookSpec {
    HookSpec::Command { words: words.iter().map(|word| (*word).to_owned()).collect(), timeout: None }
}

fn settings() -> Map<String, Value> {
    BTreeMap::from([("key".to_owned(), json!("k-1"))]).into_iter().collect()
}

async fn call_hook(
    spec: &HookSpec,
    args: Value,
    message: Option<Value>,
    timeout: Duration,
) -> Result<Value, HookError> {
    let settings = settings();
    run_hook(
        spec,
        &HookCall { name: "emit", args: &args, message: message.as_ref(), settings: &settings, trust: None },
        timeout,
    )
    .await
}

#[rstest]
#[case::the_message("POST", None, Some(json!({"z": 1, "a": 2})), r#"{"z":1,"a":2}"#)]
#[case::else_the_args("PUT", None, None, r#"{"project":"p 1"}"#)]
#[case::a_template("PATCH", Some("n=${message.n}"), Some(json!({"n": 7})), "n=7")]
#[case::none_with_get("GET", None, Some(json!({})), "")]
#[case::none_with_delete("DELETE", None, None, "")]
#[case::one_with_delete("DELETE", Some("x"), None, "x")]
#[tokio::test]
async fn an_http_hook_sends_the_request_with_its_templates_filled_in(
    #[case] method: &str,
    #[case] body: Option<&str>,
    #[case] message: Option<Value>,
    #[case] expected: &str,
) {
    let (address, asked) = start_server(response("200 OK", "")).await;
    let spec =
        http_hook(method, format!("{address}/to/${{args.project | urlencode}}?a=b"), &[("x-key", "${hub.key}")], body);
    call_hook(&spec, json!({ "project": "p 1" }), message, PATIENCE).await.expect("an answer");
    let asked = asked.await.expect("asked");
    let (head, body) = asked.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with(&format!("{method} /to/p%201?a=b HTTP/1.1\r\n")), "{head}");
    assert!(head.contains("x-key: k-1"), "{head}");
    assert_eq!(head.contains("content-type: application/json"), !expected.is_empty(), "{head}");
    assert_eq!(body, expected);
}

#[rstest]
#[case(r#"{"path": "/tasks/1"}"#, json!({"path": "/tasks/1"}))]
#[case("[1, 2]\n", json!([1, 2]))]
#[case("done\n", json!("done"))]
#[case("", Value::Null)]
#[tokio::test]
async fn an_http_answer_is_parsed_as_json_or_else_taken_as_text(#[case] body: &str, #[case] expected: Value) {
    let (address, _asked) = start_server(response("201 Created", body)).await;
    let answer = call_hook(&http_hook("POST", address, &[], None), json!({}), None, PATIENCE).await;
    assert_eq!(answer.expect("an answer"), expected);
}

#[rstest]
#[case::refused("500 Oops", "no such project".to_owned(), ": no such project")]
#[case::long("404 Gone", "ä".repeat(500), &format!(": {}…", "ä".repeat(200)))]
#[case::redirect("302 Found", String::new(), "")]
#[tokio::test]
async fn the_error_of_a_refused_http_hook_shows_status_and_body(
    #[case] status: &str,
    #[case] body: String,
    #[case] shown: &str,
) {
    let (address, _asked) = start_server(response(status, &body)).await;
    let error = call_hook(&http_hook("POST", address.clone(), &[], None), json!({}), None, PATIENCE)
        .await
        .expect_err("refused");
    let code = &status[..3];
    assert_eq!(error.to_string(), format!("the hook `emit` was answered with status {code} to POST {address}{shown}"));
}

#[tokio::test]
async fn http_answers_to_hooks_are_limited_in_length() {
    let (address, _asked) = start_server(response("200 OK", &"x".repeat(MAX_ANSWER + 1))).await;
    let error =
        call_hook(&http_hook("POST", address, &[], None), json!({}), None, PATIENCE).await.expect_err("too long");
    assert_eq!(error.to_string(), "the hook `emit` answered with more than 1024 KiB");
    let (address, _asked) = start_server(response("200 OK", &"x".repeat(MAX_ANSWER))).await;
    let answer = call_hook(&http_hook("POST", address, &[], None), json!({}), None, PATIENCE).await.expect("just fits");
    assert_eq!(answer.as_str().map(str::len), Some(MAX_ANSWER));
}

#[tokio::test]
async fn an_http_hook_times_out_and_its_own_timeout_takes_precedence() {
    let (address, _asked) = start_server(None).await;
    let mut spec = http_hook("POST", address, &[], None);
    if let HookSpec::Http { timeout, .. } = &mut spec {
        *timeout = Some(Duration::from_millis(50));
    }
    let error = call_hook(&spec, json!({}), None, PATIENCE).await.expect_err("silence");
    assert_eq!(error.to_string(), "the hook `emit` did not answer within 50ms");
}

#[tokio::test]
async fn an_http_hook_times_out_in_the_middle_of_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let hub = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.ok();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
    });
    let error = call_hook(&http_hook("POST", address, &[], None), json!({}), None, Duration::from_millis(300)).await;
    assert_eq!(error.expect_err("half an answer").to_string(), "the hook `emit` did not answer within 300ms");
    hub.await.expect("the connection was given up");
}

#[tokio::test]
async fn an_http_hook_reports_a_refused_connection() {
    // Bound but not listening, so that no other process can take the port.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let address = format!("http://{}", socket.local_addr().expect("bound"));
    let error =
        call_hook(&http_hook("POST", address.clone(), &[], None), json!({}), None, PATIENCE).await.expect_err("closed");
    assert!(error.to_string().starts_with(&format!("the hook `emit` cannot reach {address}: ")), "{error}");
}

#[rstest]
#[case("http://127.0.0.1:1/${args.nothing}", &[], "the url of the hook `emit` cannot be evaluated: `args.nothing` is missing")]
#[case("http://127.0.0.1:1/a b", &[], "is not a URL")]
#[case("${hub.key}", &[], "`k-1` does not begin with http:// or https://")]
#[case("http://127.0.0.1:1", &[("x", "${args.line}")], "the value of `x` is not a valid header value")]
#[tokio::test]
async fn an_http_hook_that_cannot_be_sent_is_an_error(
    #[case] url: &str,
    #[case] headers: &[(&str, &str)],
    #[case] message: &str,
) {
    let error =
        call_hook(&http_hook("POST", url.to_owned(), headers, None), json!({ "line": "a\nb" }), None, PATIENCE).await;
    let error = error.expect_err("not sent").to_string();
    assert!(error.contains(message), "{error}");
}

#[cfg(unix)]
mod unix {
    use super::*;

    #[tokio::test]
    async fn a_command_hook_gets_args_and_message_and_answers_in_json() {
        let answer =
            call_hook(&command_hook(&["cat"]), json!({"project": "p"}), Some(json!({"z": 1, "a": 2})), PATIENCE).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.to_string(), r#"{"args":{"project":"p"},"message":{"z":1,"a":2}}"#);
    }

    #[tokio::test]
    async fn command_hook_words_are_templates_and_bypass_the_shell() {
        let spec = command_hook(&["printf", "%s|", "${args.name}", "$HOME", "${hub.key} *"]);
        let answer = call_hook(&spec, json!({ "name": "a; b" }), None, PATIENCE).await.expect("an answer");
        assert_eq!(answer, json!("a; b|$HOME|k-1 *|"));
    }

    #[rstest]
    #[case::quiet("exit 0", Ok(Value::Null))]
    #[case::deaf("exec <&-; echo 7", Ok(json!(7)))]
    #[case::talkative_on_the_side("head -c 1000000 /dev/zero >&2; echo done", Ok(json!("done")))]
    #[case::refusing("echo no such hub >&2; exit 3", Err("the hook `emit` ended with exit status: 3: no such hub"))]
    #[case::endless("cat /dev/zero", Err("the hook `emit` answered with more than 1024 KiB"))]
    #[tokio::test]
    async fn the_output_of_a_command_hook_is_its_answer(#[case] script: &str, #[case] expected: Result<Value, &str>) {
        let message = Value::from("x".repeat(200_000));
        let answer = call_hook(&command_hook(&["sh", "-c", script]), json!({}), Some(message), PATIENCE).await;
        assert_eq!(answer.map_err(|e| e.to_string()), expected.map_err(str::to_owned));
    }

    #[tokio::test]
    async fn a_command_hook_may_leave_a_server_running() {
        let begun = Instant::now();
        let answer =
            call_hook(&command_hook(&["sh", "-c", "sleep 20 & echo started $!"]), json!({}), None, PATIENCE).await;
        let answer = answer.expect("an answer");
        let pid = answer.as_str().and_then(|text| text.strip_prefix("started ")).expect("the pid").to_owned();
        std::process::Command::new("kill").arg(pid).status().expect("what was left is ended");
        assert!(begun.elapsed() < Duration::from_secs(15), "the pipe was awaited");
    }

    #[tokio::test]
    async fn a_command_hook_times_out() {
        let spec = command_hook(&["sleep", "60"]);
        let error = call_hook(&spec, json!({}), None, Duration::from_millis(50)).await;
        assert_eq!(error.expect_err("too slow").to_string(), "the hook `emit` did not answer within 50ms");
    }

    #[tokio::test]
    async fn a_command_hook_is_killed_when_its_call_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 60", file.display());
        let spec = command_hook(&["sh", "-c", &script]);
        let begun = async {
            loop {
                match std::fs::read_to_string(&file) {
                    Ok(pid) if pid.ends_with('\n') => return pid,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        let pid = tokio::select! {
            answer = call_hook(&spec, json!({}), None, PATIENCE) => panic!("answered {answer:?}"),
            pid = begun => pid,
        };
        let deadline = Instant::now() + PATIENCE;
        while is_running(pid.trim()) {
            assert!(Instant::now() < deadline, "still running");
            tokio::task::yield_now().await;
        }
    }

    /// Whether the process runs; a zombie, killed and not yet reaped, does not.
    fn is_running(pid: &str) -> bool {
        let output = std::process::Command::new("ps").args(["-o", "stat=", "-p", pid]).output().expect("ps");
        let state = String::from_utf8_lossy(&output.stdout);
        !state.trim().is_empty() && !state.trim().starts_with('Z')
    }

    #[tokio::test]
    async fn a_command_hook_whose_program_does_not_exist_is_an_error() {
        let error =
            call_hook(&command_hook(&["./no-such-program"]), json!({}), None, PATIENCE).await.expect_err("not there");
        assert!(error.to_string().starts_with("the hook `emit` cannot start `./no-such-program`: "), "{error}");
    }
}

/// Starts a web server with a self-signed certificate, which demands a client certificate of `asks`; returns its
/// address, and a file with that certificate.
async fn start_tls_server(asks: Option<&rcgen::Certificate>) -> (String, tempfile::NamedTempFile) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let ca = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(ca.path(), own.cert.pem()).expect("written");
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = match asks {
        None => config.expect("versions").with_no_client_auth(),
        Some(root) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(root.der().clone()).expect("a root");
            let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            config.expect("versions").with_client_cert_verifier(clients.build().expect("a verifier"))
        }
    };
    let config = config.with_single_cert(vec![own.cert.der().clone()], key).expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut asked = [0; 4096];
            drop(stream.read(&mut asked).await);
            drop(stream.write_all(response("200 OK", "1").unwrap_or_default().as_bytes()).await);
            drop(stream.shutdown().await);
        }
    });
    (address, ca)
}

#[rstest]
#[case::unknown_issuer(false, false, Err("UnknownIssuer"))]
#[case::ca_of_the_target(true, false, Ok(json!(1)))]
#[case::insecure(false, true, Ok(json!(1)))]
#[tokio::test]
async fn hooks_trust_the_certificates_of_the_target(
    #[case] with_ca: bool,
    #[case] insecure: bool,
    #[case] expected: Result<Value, &str>,
) {
    let (address, ca) = start_tls_server(None).await;
    let options = TlsOptions { ca: with_ca.then(|| ca.path().to_owned()), insecure, ..TlsOptions::default() };
    let trust = TrustedCertificates::new(&options).expect("certificates");
    let (args, settings) = (json!({}), settings());
    let asked = HookCall { name: "emit", args: &args, message: None, settings: &settings, trust: Some(&trust) };
    let answer =
        run_hook(&http_hook("GET", address, &[], None), &asked, PATIENCE).await.map_err(|error| error.to_string());
    match expected {
        Ok(expected) => assert_eq!(answer, Ok(expected)),
        Err(why) => assert!(answer.as_ref().is_err_and(|error| error.contains(why)), "{answer:?}"),
    }
}

#[rstest]
#[tokio::test]
async fn hooks_present_the_client_certificate_of_the_target(#[values(true, false)] given: bool) {
    let client = rcgen::generate_simple_self_signed(["client".to_owned()]).expect("a certificate");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), client.cert.pem() + &client.signing_key.serialize_pem()).expect("written");
    let (address, ca) = start_tls_server(Some(&client.cert)).await;
    let cert = given.then(|| file.path().to_owned());
    let options = TlsOptions { ca: Some(ca.path().to_owned()), cert, ..TlsOptions::default() };
    let trust = TrustedCertificates::new(&options).expect("certificates");
    let (args, settings) = (json!({}), settings());
    let asked = HookCall { name: "emit", args: &args, message: None, settings: &settings, trust: Some(&trust) };
    let answer = run_hook(&http_hook("GET", address, &[], None), &asked, PATIENCE).await;
    assert_eq!(answer.is_ok(), given, "{answer:?}");
}
