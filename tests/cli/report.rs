//! `hubproof report` and `merge`: what is made from JSON reports.

use std::collections::BTreeMap;
use std::path::Path;

use rstest::rstest;
use serde_json::{Value, json};

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

/// Runs a command with a JSON report, and returns its exit code and the report.
fn run(folder: &Path, name: &str, words: &[&str]) -> (Option<i32>, Value) {
    let path = folder.join(name);
    let report = format!("json={}", path.display());
    let done = hubproof(words.iter().copied().chain(["-q", "--report", &report]));
    assert!(path.exists(), "{words:?}: {}", done.err);
    (done.code, read(&path))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs all shares of a command, joins their reports, and returns what `run` would of the whole.
fn run_shares(folder: &Path, of: usize, words: &[&str]) -> (Option<i32>, Value) {
    let shares = folder.join("shares");
    std::fs::create_dir(&shares).unwrap();
    for number in 1..=of {
        let share = format!("{number}/{of}");
        let words: Vec<&str> = words.iter().copied().chain(["--share", &share]).collect();
        let (_, report) = run(&shares, &format!("{number}.json"), &words);
        assert_eq!(report["run"]["share"], share);
    }
    run(folder, "joined.json", &["merge", shares.to_str().unwrap()])
}

/// Returns what the protocol's report says of every rule, and which scenarios had which verdict.
fn results(report: &Value) -> Value {
    let protocol = &report["protocols"][0];
    let scenarios = protocol["scenarios"]["list"].as_array().unwrap();
    let verdicts: Vec<Value> = scenarios.iter().map(|one| json!([one["id"], one["verdict"]])).collect();
    let findings = protocol["findings"].as_array().unwrap();
    let found: Vec<Value> = findings.iter().map(|one| json!([one["scenario"], one["check"], one["verdict"]])).collect();
    let rules = protocol["rules"]["by_id"].as_object().unwrap();
    let statuses: BTreeMap<&String, &Value> = rules.iter().map(|(id, rule)| (id, &rule["status"])).collect();
    let scenarios: BTreeMap<&String, &Value> = rules.iter().map(|(id, rule)| (id, &rule["scenarios"])).collect();
    let [reach, checks, summary] = ["reach", "checks", "summary"].map(|name| &protocol[name]);
    let tally = &protocol["scenarios"]["verdicts"];
    json!({
        "verdicts": verdicts, "found": found, "statuses": statuses, "scenarios": scenarios, "reach": reach,
        "checks": checks, "summary": summary, "tally": tally,
    })
}

#[rstest]
#[case::right(&[], 0)]
#[case::broken(&["--fault", "qi-arguments-lost"], 1)]
fn shares_of_a_check_are_joined_to_the_report_of_the_whole(#[case] fault: &[&str], #[case] code: i32) {
    let folder = tempfile::tempdir().unwrap();
    // Repeated scenarios are not varied; variations depend on the time that is left over.
    let words: Vec<&str> =
        ["check", "--scenario", "qi/b*", "--scenario", "qi/c*", "--repeat", "2"].iter().chain(fault).copied().collect();
    let (expected, whole) = run(folder.path(), "whole.json", &words);
    let (found, joined) = run_shares(folder.path(), 3, &words);
    assert_eq!((expected, found), (Some(code), Some(code)));
    let (joined, whole) = (results(&joined), results(&whole));
    for (part, of_joined) in joined.as_object().unwrap() {
        assert_eq!(of_joined, &whole[part], "{part}");
    }
}

#[test]
fn shares_of_a_fuzz_run_play_each_case_once() {
    let cases = |more: &[&str]| {
        let words = ["fuzz", "--protocol", "gator", "--seed", "5", "--cases", "31", "--print-cases"];
        let done = hubproof([&words, more].concat()).assert_exit_code(0);
        let number = |line: &str| serde_json::from_str::<Value>(line).unwrap()["case"].as_u64().unwrap();
        done.out.lines().map(number).collect::<Vec<u64>>()
    };
    let mut dealt: Vec<u64> = ["1/3", "2/3", "3/3"].iter().flat_map(|share| cases(&["--share", share])).collect();
    dealt.sort_unstable();
    let mut all = cases(&[]);
    all.sort_unstable();
    assert_eq!((dealt.len(), dealt), (31, all));
}

#[test]
fn shares_of_a_fuzz_run_are_joined_with_their_findings() {
    let folder = tempfile::tempdir().unwrap();
    let words =
        ["fuzz", "--protocol", "qi", "--seed", "5", "--cases", "80", "--mutation", "missing", "--against", "none"];
    let words: Vec<&str> = words.iter().chain(&["--fault", "qi-command-optional"]).copied().collect();
    let (code, joined) = run_shares(folder.path(), 2, &words);
    let fuzzed = |report: &Value| report["protocols"][0]["fuzzed"].clone();
    let sum = |fuzzed: &Value| {
        let causes = fuzzed["causes"].as_array().unwrap().iter();
        causes.map(|cause| cause["cases"].as_u64().unwrap()).sum::<u64>()
    };
    let shares = ["1.json", "2.json"].map(|name| fuzzed(&read(&folder.path().join("shares").join(name))));
    let joined_fuzz = fuzzed(&joined);
    assert_eq!((code, &joined_fuzz["cases"]), (Some(1), &json!(80)));
    assert_eq!(sum(&joined_fuzz), shares.iter().map(sum).sum::<u64>());
    assert!(joined["protocols"][0]["summary"].as_str().unwrap().contains("in 80 cases (seed 5)"));
}

#[test]
fn reports_that_are_not_all_shares_of_one_run_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let share = |name: &str, share: &str, more: &[&str]| {
        let words = ["check", "--protocol", "qi", "--scenario", "qi/b*", "--share", share];
        run(folder.path(), name, &[&words, more].concat())
    };
    run(folder.path(), "whole.json", &["check", "--scenario", "qi/base"]);
    share("one.json", "1/2", &[]);
    share("again.json", "1/2", &[]);
    share("third.json", "2/3", &[]);
    share("strict.json", "2/2", &["--strict"]);
    for (names, why) in [
        (["one.json", "whole.json"], "whole is the report of a whole run"),
        (["one.json", "again.json"], "again and one are both share 1/2"),
        (["one.json", "third.json"], "one and third differ in the number of shares: 1/2 and 2/3"),
        (["one.json", "strict.json"], "one and strict differ in their command"),
        (["one.json", "one.json"], "one and one are both share 1/2"),
    ] {
        let done = hubproof(["merge", &at(names[0]), &at(names[1])]).assert_exit_code(2);
        assert!(done.err.contains(why), "{names:?}: {}", done.err);
    }
    let done = hubproof(["merge", &at("one.json")]).assert_exit_code(2);
    assert!(done.err.contains("the run has 2 shares, and these are missing: 2/2"), "{}", done.err);
}

#[test]
fn a_share_of_a_fuzz_run_needs_the_seed_that_all_have() {
    let done = hubproof(["fuzz", "--protocol", "qi", "--share", "1/2"]).assert_exit_code(2);
    assert!(done.err.contains("--seed"), "{}", done.err);
}
