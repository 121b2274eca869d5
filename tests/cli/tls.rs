//! The ways to a hub: TLS and its certificates, proxies, Unix sockets; and closed outputs.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use rstest::rstest;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::support::process::{ServeProcess, hubproof, start, with_steady_text};

#[test]
fn a_certificate_is_trusted_only_with_its_ca() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let ca = ca.to_str().unwrap();
    let server = ServeProcess::start(["concierge".to_owned(), format!("--tls-self-signed={ca}")], 1);
    let url = server.url("concierge");
    assert!(url.starts_with("wss://"), "{url}");
    let check = |more: &[&str]| {
        let arguments = ["check", url, "--protocol", "concierge", "--scenario", "greeting"];
        hubproof(arguments.iter().chain(more))
    };
    // The greeting scenario offers the subprotocol, so the upgrade over TLS has it.
    check(&["--ca", ca]).assert_exit_code(0);
    check(&["--insecure"]).assert_exit_code(0);
    let done = check(&[]).assert_exit_code(3);
    with_steady_text(|| insta::assert_snapshot!("untrusted", done.out));
    let wrong = check(&["--ca", "Cargo.toml"]);
    assert_eq!(wrong.code, Some(2), "{}{}", wrong.out, wrong.err);
    with_steady_text(|| insta::assert_snapshot!("no_certificate", wrong.err));
}

#[test]
fn the_target_file_of_serve_contains_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, ca) = (path("hub.toml"), path("ca.pem"));
    let _server = ServeProcess::start(
        ["qi".to_owned(), "--target-file".to_owned(), file.clone(), format!("--tls-self-signed={ca}")],
        1,
    );
    hubproof(["check", "--target", &file]).assert_exit_code(0);
}

#[test]
fn plain_text_to_a_tls_port_and_tls_to_a_plain_port_are_explained() {
    let secure = ServeProcess::start(["qi", "--tls-self-signed"], 1);
    let plain = ServeProcess::start(["qi"], 1);
    let chosen = ["--protocol", "qi", "--scenario", "qi/base", "--scenario", "qi/burst"];
    let wrong = |url: String| hubproof([&["check", &url], &chosen[..]].concat());
    let to_tls = wrong(secure.url("qi").replace("wss://localhost", "ws://127.0.0.1").replace("wss", "ws"));
    let to_plain = wrong(plain.url("qi").replace("ws://", "wss://"));
    assert_ne!(to_tls.code, Some(0));
    assert_ne!(to_plain.code, Some(0));
    let lead =
        |done: &crate::support::process::ProcessResult| done.out.split("\n  scenarios ").next().unwrap().to_owned();
    with_steady_text(|| {
        insta::assert_snapshot!("plain_to_tls", lead(&to_tls));
        insta::assert_snapshot!("tls_to_plain", lead(&to_plain));
    });
}

/// Returns the host and port of a hub.
fn address_of(hub: &ServeProcess) -> String {
    hub.url("qi").split_once("://").unwrap().1.trim_end_matches('/').to_owned()
}

/// Starts a proxy that answers the first request of each connection with this status, and opens a tunnel to the hub
/// after 200. Returns its address and the requests.
fn start_proxy(hub: &ServeProcess, status: &'static str) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (hub, (sender, requests)) = (address_of(hub), mpsc::channel());
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if client.read(&mut byte).unwrap_or_default() == 0 {
                    break;
                }
                head.extend(byte);
            }
            let _ = sender.send(String::from_utf8(head).unwrap());
            let _ = write!(client, "HTTP/1.1 {status}\r\n\r\n");
            if status.starts_with("200") {
                connect_streams(client, TcpStream::connect(&hub).unwrap());
            }
        }
    });
    (address, requests)
}

/// Copies between two connections until one ends.
fn connect_streams(client: TcpStream, hub: TcpStream) {
    let pairs = [(client.try_clone().unwrap(), hub.try_clone().unwrap()), (hub, client)];
    for (mut from, mut to) in pairs {
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}

const PLAYED: [&str; 4] = ["--protocol", "qi", "--scenario", "base"];

#[test]
fn a_hub_is_checked_through_the_proxy_of_the_environment() {
    let hub = ServeProcess::start(["qi"], 1);
    let (proxy, requests) = start_proxy(&hub, "200 OK");
    let environment =
        [("HTTP_PROXY", format!("http://anna:s3cret-word@{proxy}")), ("NO_PROXY", "other.test".to_owned())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let check = ["check", "ws://hub.invalid:8080"].iter().chain(&PLAYED);
    let done = start(check, &environment).wait_for_end().assert_exit_code(0);
    let first = format!("against ws://hub.invalid:8080 through the proxy http://{proxy} (HTTP_PROXY)");
    assert!(done.out.lines().next().unwrap().ends_with(&first), "{}", done.out);
    assert!(!(done.out + &done.err).contains("s3cret-word"));
    let request = requests.recv().unwrap();
    assert!(request.starts_with("CONNECT hub.invalid:8080 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("Proxy-Authorization: Basic YW5uYTpzM2NyZXQtd29yZA=="), "{request}");
    // A hub on this machine is reached without the proxy.
    start(["check", hub.url("qi")].iter().chain(&PLAYED), &environment).wait_for_end().assert_exit_code(0);
    assert!(requests.try_iter().all(|request| request.contains("hub.invalid")));
}

#[rstest]
#[case("403 Forbidden", "opens no tunnel to hub.invalid:80: it answered with HTTP 403")]
#[case("407 Proxy Authentication Required", "it asks for a user and a password (HTTP 407)")]
fn a_proxy_that_refuses_is_reported_and_no_hub_is_blamed(#[case] status: &'static str, #[case] says: &str) {
    let hub = ServeProcess::start(["qi"], 1);
    let (proxy, _requests) = start_proxy(&hub, status);
    let done = start(["check", "ws://hub.invalid"].iter().chain(&PLAYED), &[("all_proxy", &proxy)]).wait_for_end();
    let all = (done.out + &done.err).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(done.code, Some(3), "{all}");
    assert!(all.contains(says), "{all}");
}

#[cfg(unix)]
#[test]
fn a_hub_that_listens_on_a_unix_socket_is_checked_and_cannot_be_loaded() {
    let hub = ServeProcess::start(["qi"], 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let address = address_of(&hub);
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            // A stream socket of either kind.
            let client = TcpStream::from(std::os::fd::OwnedFd::from(client));
            connect_streams(client, TcpStream::connect(&address).unwrap());
        }
    });
    let url = format!("ws+unix:{}", path.display());
    hubproof(["check", &url].iter().chain(&PLAYED)).assert_exit_code(0);
    let load = hubproof(["load", &url, "--protocol", "qi"]).assert_exit_code(2);
    assert!(load.err.contains("load does not connect to Unix sockets"), "{}", load.err);
    let missing = hubproof(["check", &format!("{url}.gone:/path")].iter().chain(&PLAYED)).assert_exit_code(3);
    let words = missing.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("no connection to the Unix socket"), "{words}");
}

/// A server in front of a hub that demands a client certificate; with the files that a client needs.
struct GuardedHub {
    url: String,
    folder: tempfile::TempDir,
    _hub: ServeProcess,
}

impl GuardedHub {
    fn start() -> Self {
        let hub = ServeProcess::start(["qi"], 1);
        let folder = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let client = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", own.cert.pem());
        write("client.pem", client.cert.pem() + &client.signing_key.serialize_pem());
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(client.cert.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_client_cert_verifier(clients.build().unwrap());
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = config.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("wss://localhost:{}", listener.local_addr().unwrap().port());
        let address = address_of(&hub);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((client, _)) = listener.accept().await {
                    let (acceptor, address) = (acceptor.clone(), address.clone());
                    tokio::spawn(async move {
                        let mut client = acceptor.accept(client).await.ok()?;
                        let mut hub = tokio::net::TcpStream::connect(address).await.ok()?;
                        tokio::io::copy_bidirectional(&mut client, &mut hub).await.ok()
                    });
                }
            });
        });
        Self { url, folder, _hub: hub }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

#[rstest]
#[case::check(&["check", "--scenario", "base"])]
#[case::fuzz(&["fuzz", "--cases", "2", "--yes"])]
#[case::load(&["load", "--duration", "1s", "--warm-up", "0s", "--drain", "1s", "--rate", "5"])]
fn every_command_presents_the_client_certificate(#[case] command: &[&str]) {
    let hub = GuardedHub::start();
    let (ca, certificate) = (hub.file("ca.pem"), hub.file("client.pem"));
    let given = [&hub.url, "--protocol", "qi", "--ca", &ca];
    let done = hubproof(command.iter().chain(&given).chain(&["--cert", &certificate]));
    assert!(done.out.contains("\nPASS "), "{}{}", done.out, done.err);
    let without = hubproof(command.iter().chain(&given));
    let all = without.out + &without.err;
    assert_eq!(without.code, Some(3), "{all}");
    assert!(all.contains("client certificate"), "{all}");
}

#[test]
fn a_client_certificate_in_another_format_is_refused_with_the_command_that_converts_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client.p12");
    // The head of a PKCS#12 file: a sequence that begins with the version 3.
    std::fs::write(&path, [0x30, 0x82, 0x09, 0x4a, 0x02, 0x01, 0x03, 0x30]).unwrap();
    let path = path.to_str().unwrap();
    let done = hubproof(["check", "wss://localhost:1", "--protocol", "qi", "--cert", path]).assert_exit_code(2);
    let converts = format!("openssl pkcs12 -in {path} -nodes -out client.pem");
    assert!(done.err.contains(&converts), "{}", done.err);
}

/// A closed or full stdout or stderr costs neither the verdict nor a report in a file.
#[cfg(target_os = "linux")]
#[rstest]
#[case::check(&["check", "--protocol", "qi", "--scenario", "base"], &[">&-", "2>&-", ">/dev/full", "2>/dev/full"])]
#[case::fuzz(&["fuzz", "--protocol", "qi", "--cases", "2"], &[">/dev/full 2>/dev/full"])]
#[case::load(&["load", "--protocol", "qi", "--duration", "1s", "--warm-up", "0s", "--drain", "1s", "--rate", "5"], &["2>/dev/full", "2>&1 | head -1"])]
#[case::lint(&["packs", "lint", "qi"], &[">&-", ">/dev/full"])]
fn closed_and_full_outputs_cost_no_report(#[case] command: &[&str], #[case] outputs: &[&str]) {
    for output in outputs {
        play_with_output(command, output);
    }
}

#[cfg(target_os = "linux")]
fn play_with_output(command: &[&str], output: &str) {
    let reports = command[0] != "packs";
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let mut words = command.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    if reports {
        words.extend(["--report".to_owned(), format!("json={}", report.display())]);
    }
    let script = format!("{{ \"$@\"; echo $? > code; }} {output}");
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_hubproof")]).args(&words).current_dir(folder.path());
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let code = std::fs::read_to_string(folder.path().join("code")).unwrap();
    // A slow machine may make a load run suspect.
    assert!(code == "0\n" || command[0] == "load" && code == "3\n", "{output}: {code}");
    if reports {
        let written = std::fs::read(&report).unwrap();
        serde_json::from_slice::<serde_json::Value>(&written).unwrap();
    }
}

#[test]
fn pages_are_as_wide_as_the_terminal_up_to_100_columns() {
    let widest = |columns: &str| {
        let done = start(["explain", "FUZZ-ANSWERS"], &[("COLUMNS", columns)]).wait_for_end().assert_exit_code(0);
        done.out.lines().map(|line| line.chars().count()).max().unwrap()
    };
    assert!((41..=70).contains(&widest("60")));
    assert!((71..=100).contains(&widest("300")));
    assert_eq!(widest("nonsense"), widest("100"));
}

/// A hub that refuses the client may be tried again with a certificate.
#[test]
fn the_commands_that_init_prints_repeat_the_tls_options() {
    let hub = GuardedHub::start();
    let ca = hub.file("ca.pem");
    let done = hubproof(["init", &hub.url, "--ca", &ca, "--to", hub.folder.path().to_str().unwrap()]);
    let done = done.assert_exit_code(3);
    assert!(done.out.contains("client certificate"), "{}", done.out);
    let words = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&format!("hubproof init {} --ca {ca}", hub.url)), "{}", done.out);
    assert!(words.contains(&format!("hubproof init {} --ca {ca} --protocol", hub.url)), "{}", done.out);
}
