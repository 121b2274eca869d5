//! Wrong arguments and files: exit code 2, with the mistake, its place and a remedy, before any socket is opened.

use rstest::rstest;

use crate::support::hostile_servers::{HostileHub, Misbehaviour};
use crate::support::process::{hubproof, start, with_steady_text};

#[rstest]
#[case("option", &["check", "--protcol", "qi"])]
#[case("command", &["chekc"])]
#[case("protocol", &["check", "--protocol", "concirge"])]
#[case("protocol_with_url", &["check", "ws://127.0.0.1:1", "--protocol", "quu"])]
#[case("no_protocol", &["check", "ws://127.0.0.1:1"])]
#[case("two_protocols", &["check", "ws://127.0.0.1:1", "--protocol", "qi", "--protocol", "concierge"])]
#[case("url", &["check", "127.0.0.1:1", "--protocol", "qi"])]
#[case("url_scheme", &["check", "http://127.0.0.1:1", "--protocol", "qi"])]
#[case("rule", &["check", "--rule", "CON-0001"])]
#[case("glob", &["check", "--scenario", "a[b"])]
#[case("fault", &["check", "--fault", "qi-extra-aray"])]
#[case("fault_with_url", &["check", "ws://127.0.0.1:1", "--protocol", "qi", "--fault", "qi-extra-array"])]
#[case("fault_of_another", &["check", "--protocol", "concierge", "--fault", "qi-extra-array"])]
#[case("setting", &["check", "ws://127.0.0.1:1", "--protocol", "qi", "--set", "versoin=1.0.0"])]
#[case("setting_embedded", &["check", "--protocol", "qi", "--set", "versoin=1.0.0"])]
#[case("setting_nothing", &["check", "ws://127.0.0.1:1", "--protocol", "qi", "--set", "version"])]
#[case("stretch", &["check", "--stretch", "0"])]
#[case("timeout", &["check", "--timeout", "5"])]
#[case("repeat", &["check", "--repeat", "0"])]
#[case("jobs", &["check", "--jobs", "0"])]
#[case::report_format("report_format", &["check", "--report", "jsn=x"])]
#[case::report_nothing("report_nothing", &["check", "--report", "r.json"])]
#[case("report_twice", &["check", "--report", "json=-", "--report", "junit=-"])]
#[case("report_folder", &["check", "--report", "json=no/such/folder/r.json"])]
#[case("report_is_folder", &["check", "--report", "json=src"])]
#[case("target_missing", &["check", "--target", "no-such.toml"])]
#[case("target_not_toml", &["check", "--target", "LICENSE-MIT"])]
#[case("pack_missing", &["check", "--pack", "no-such-folder"])]
#[case("pack_none", &["check", "--pack", "src"])]
#[case("pack_without_url", &["check", "--pack", "schemas/no-such-pack"])]
#[case("serve_protocol", &["serve", "concirge"])]
#[case("serve_fault", &["serve", "--fault", "qi-extra-aray"])]
#[case("serve_setting", &["serve", "--set", "concierge.sercet=x"])]
#[case("serve_target_file", &["serve", "--target-file", "x.toml"])]
#[case("client_protocol", &["client", "concirge", "ws://127.0.0.1:1"])]
#[case("client_word", &["client", "qi", "ws://127.0.0.1:1", "--do", "request,sesion"])]
#[case("client_fault", &["client", "qi", "ws://127.0.0.1:1", "--fault", "qi-client-version-mising"])]
#[case("client_setting", &["client", "qi", "ws://127.0.0.1:1", "--set", "colour=red"])]
#[case("packs_protocol", &["packs", "show", "concirge"])]
#[case("packs_message", &["packs", "validate", "concierge", "identfy", "-"])]
fn a_wrong_argument_is_reported_with_help(#[case] name: &str, #[case] arguments: &[&str]) {
    let done = hubproof(arguments);
    let done = done.assert_exit_code(2);
    assert_eq!(done.out, "", "mistakes belong on stderr");
    with_steady_text(|| insta::assert_snapshot!(name, done.err));
}

#[cfg(unix)]
#[test]
fn an_unwritable_report_is_reported_before_the_run() {
    let hub = HostileHub::start(Misbehaviour::Silent, "");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.json");
    std::fs::write(&file, "the report of yesterday").unwrap();
    let path = format!("json={}/r.json/r.json", folder.path().display());
    let done = hubproof(["check", &hub.url(), "--protocol", "qi", "--report", &path]).assert_exit_code(2);
    assert_eq!(hub.clients(), 0, "{}", done.err);
    // Another error leaves an existing report unchanged.
    let path = format!("json={}", file.display());
    hubproof(["check", &hub.url(), "--protocol", "no-such-protocol", "--report", &path]).assert_exit_code(2);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "the report of yesterday");
}

#[test]
fn an_invalid_scenario_is_reported_before_any_socket_opens() {
    let hub = HostileHub::start(Misbehaviour::Silent, "");
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("qi");
    crate::support::disk::copy_pack("qi", &pack);
    let shown = pack.to_str().unwrap();
    let lint = hubproof(["packs", "lint", shown]).assert_exit_code(0);
    assert!(lint.out.contains("0 errors, 0 warnings"), "{}", lint.out);
    std::fs::write(
        pack.join("scenarios/mistyped.yaml"),
        "title: A reply comes\nsteps:\n  - caller joins:\n  - caller sends: base_requst\n  - caller expcts: any\n    rules: [QI-999]\n",
    )
    .unwrap();
    let done = hubproof(["check", &hub.url(), "--pack", shown]).assert_exit_code(2);
    assert_eq!(hub.clients(), 0);
    with_steady_text(|| insta::assert_snapshot!("broken_scenario", done.err));
    let lint = hubproof(["packs", "lint", shown]).assert_exit_code(2);
    assert!(lint.out.contains(done.err.trim_end()), "lint reports the same: {}", lint.out);
}

#[test]
fn an_invalid_target_file_is_reported_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.toml");
    std::fs::write(
        &file,
        "protocol = \"qi\"\nurl = \"ws://127.0.0.1:1\"\npatiense = \"5s\"\n\n[settings]\nversion = [1]\n",
    )
    .unwrap();
    let done = start(["check", "--target", file.to_str().unwrap()], &[]).wait_for_end().assert_exit_code(2);
    with_steady_text(|| insta::assert_snapshot!("broken_target", done.err));
}
