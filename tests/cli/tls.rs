//! `wss://`: trusted certificates, and errors about others.

use crate::support::process::{ServeProcess, hubproof, with_steady_text};

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
    let wrong = |url: String| hubproof(["check".to_owned(), url, "--protocol=qi".to_owned()]);
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
