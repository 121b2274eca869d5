//! `hubproof report`: pages made from JSON reports.

use rstest::rstest;

use crate::support::process::{hubproof, start};

/// Writes a JSON report and a page of a short run, and returns their texts.
fn run_with_reports(folder: &std::path::Path) -> (String, String) {
    let (json, html) = (folder.join("run.json"), folder.join("direct.html"));
    let [to_json, to_html] =
        [("json", &json), ("html", &html)].map(|(format, path)| format!("{format}={}", path.display()));
    hubproof(["check", "--scenario", "qi/base", "--report", &to_json, "--report", &to_html]).assert_exit_code(0);
    (std::fs::read_to_string(json).unwrap(), std::fs::read_to_string(html).unwrap())
}

#[test]
fn a_page_from_a_report_equals_the_page_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (_, direct) = run_with_reports(folder.path());
    let json = folder.path().join("run.json");
    let done = hubproof(["report", json.to_str().unwrap()]).assert_exit_code(0);
    let page = folder.path().join("run.html");
    assert_eq!(done.out.trim(), page.to_str().unwrap());
    // Only the name of the run differs: the hub, or the file.
    let later = std::fs::read_to_string(page).unwrap();
    assert_eq!(later.replace(">run</th>", ">embedded reference server</th>"), direct);
    assert!(direct.contains("<title>PASS qi"), "{direct}");
}

#[test]
fn the_page_goes_to_stdout_on_request() {
    let folder = tempfile::tempdir().unwrap();
    run_with_reports(folder.path());
    let json = folder.path().join("run.json");
    let done = hubproof(["report", json.to_str().unwrap(), "--format", "html", "-o", "-"]).assert_exit_code(0);
    assert!(done.out.starts_with("<!doctype html>"), "{}", done.out);
    let refused = hubproof(["report", json.to_str().unwrap(), "-o", "-", "--open"]).assert_exit_code(2);
    assert!(refused.err.contains("`--open` needs a file"), "{}", refused.err);
}

#[cfg(target_os = "linux")]
#[test]
fn the_page_is_opened_with_the_program_of_the_platform() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    run_with_reports(folder.path());
    let (json, seen) = (folder.path().join("run.json"), folder.path().join("seen"));
    // Renamed at the end, so that the file is complete when it is there.
    let script = format!("#!/bin/sh\necho \"$1\" > {0}.new\nmv {0}.new {0}\n", seen.display());
    let opener = folder.path().join("xdg-open");
    std::fs::write(&opener, script).unwrap();
    std::fs::set_permissions(&opener, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    start(["report", json.to_str().unwrap(), "--open"], &[("PATH", &path)]).wait_for_end().assert_exit_code(0);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !seen.exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let opened = std::fs::read_to_string(seen).unwrap();
    assert_eq!(opened.trim(), folder.path().join("run.html").to_str().unwrap());
    let failed = start(["report", json.to_str().unwrap(), "--open"], &[("PATH", "/nowhere")]).wait_for_end();
    let failed = failed.assert_exit_code(2);
    assert!(failed.err.contains("open ") && failed.err.contains("run.html in a browser"), "{}", failed.err);
}

#[rstest]
#[case::not_json("{", "it is not JSON")]
#[case::other_json("{}", "not a report of hubproof")]
#[case::later(r#"{"format": "hubproof-report", "format_version": 99}"#, "format version 99")]
fn a_file_that_is_not_a_report_is_an_error(#[case] text: &str, #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    std::fs::write(&file, text).unwrap();
    let done = hubproof(["report", file.to_str().unwrap()]).assert_exit_code(2);
    assert!(done.err.contains(expected), "{}", done.err);
    assert!(!folder.path().join("a.html").exists());
}
