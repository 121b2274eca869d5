//! Findings of the fuzzer: shrunk, saved, and replayed.

use std::path::{Path, PathBuf};

use rstest::rstest;
use serde_json::Value;

use crate::support::process::{ProcessResult, hubproof};

/// Fuzzes qi with one case that waits for its answer, and so always shows the fault.
fn fuzz(folder: &Path, more: &[&str]) -> ProcessResult {
    let (regressions, report) = (folder.join("regressions"), folder.join("run.json"));
    let kept = ["--regressions".to_owned(), regressions.display().to_string()];
    let written = ["--report".to_owned(), format!("json={}", report.display())];
    let case = ["fuzz", "--protocol", "qi", "--case", "9", "--seed", "1"].map(str::to_owned);
    hubproof(case.into_iter().chain(kept).chain(written).chain(more.iter().map(|&word| word.to_owned())))
}

/// Returns the only file with a saved finding.
fn saved_file(folder: &Path) -> PathBuf {
    let mut files: Vec<_> =
        std::fs::read_dir(folder.join("regressions")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn a_finding_is_shrunk_saved_and_replayed_by_fuzz_and_check() {
    const FAULT: [&str; 2] = ["--fault", "qi-reply-version-number"];
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let done = fuzz(folder, &FAULT).assert_exit_code(1);
    let path = saved_file(folder);
    assert!(done.err.contains(&format!("saved {}: 1 step after the opening", path.display())), "{}", done.err);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("qi-schema-base_reply_failure-qi-010-"), "{name}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("with seed 1 in case 9.\n# schema:base_reply_failure:QI-010\n"), "{text}");
    let (_, steps) = text.split_once("steps:\n  - sender joins:\n").unwrap();
    assert!(steps.starts_with("  - sender sends raw: ") && steps.matches("\n  - ").count() == 1, "{text}");
    // The report has the last play, and the command that replays it.
    let report: Value = serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
    let shrunk = &report["protocols"][0]["fuzzed"]["causes"][0]["shrunk"];
    assert_eq!(shrunk["path"], path.display().to_string());
    let history = shrunk["history"].as_array().unwrap().iter();
    let sent = history.filter(|frame| frame["direction"] == "sent" && frame["kind"] == "frames");
    assert_eq!(sent.count(), 1, "{shrunk}");
    assert!(text.contains(&format!("#   {}\n", shrunk["reproduce"].as_str().unwrap())), "{text}");
    // The commands in its header work.
    let commands: Vec<Vec<&str>> =
        text.lines().filter_map(|line| Some(line.strip_prefix("#   hubproof ")?.split(' ').collect())).collect();
    assert_eq!(commands.iter().map(|words| words[0]).collect::<Vec<_>>(), ["fuzz", "check"]);
    let broken = hubproof(&commands[0]).assert_exit_code(1);
    assert!(broken.out.contains(&format!("  still fails        {}\n", path.display())), "{}", broken.out);
    hubproof(&commands[1]).assert_exit_code(1);
    // A saved finding is played first, and not saved twice.
    let again = fuzz(folder, &FAULT).assert_exit_code(1);
    assert!(again.out.starts_with("1 saved finding replayed\n  still fails "), "{}", again.out);
    assert!(again.out.contains("\nFAIL qi: "), "{}", again.out);
    assert_eq!(std::fs::read_to_string(saved_file(folder)).unwrap(), text);
    // A hub without the fault.
    let shown = path.display().to_string();
    let fixed = fuzz(folder, &[]).assert_exit_code(0);
    assert!(
        fixed.out.starts_with(&format!("1 saved finding replayed\n  fixed              {shown}\n")),
        "{}",
        fixed.out
    );
    assert!(fixed.out.contains("\nPASS qi: "), "{}", fixed.out);
    hubproof(["check", "--protocol", "qi", "--scenario", &shown]).assert_exit_code(0);
    // All files of a folder.
    let all = ["fuzz", "--protocol", "qi", "--replay", path.parent().unwrap().to_str().unwrap()];
    let all = hubproof(all).assert_exit_code(0);
    assert!(all.out.starts_with("1 saved finding replayed\n"), "{}", all.out);
}

#[rstest]
#[case::unreachable(None, &["ws://127.0.0.1:1"], "the hub cannot be reached: ")]
#[case::no_yaml(Some("title: ["), &[], "it can no longer be read: ")]
#[case::no_scenario(Some("[]"), &[], "it can no longer be read: it is not a scenario")]
#[case::unknown_step(Some("title: t\nsteps:\n  - sender flies:\n"), &[], "{\"sender flies\":null} is not a step")]
#[case::nothing_to_judge(Some("title: t\nsteps:\n  - wait: 1ms\n    because: no check\n"), &[], "none of its checks was reached")]
fn an_undecided_replay_is_inconclusive(#[case] text: Option<&str>, #[case] hub: &[&str], #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qi-mine.yaml");
    std::fs::write(&path, text.unwrap_or("title: t\nactors: { a: caller }\nsteps:\n  - a joins:\n")).unwrap();
    let replay = ["--protocol", "qi", "--replay", path.to_str().unwrap(), "--plays", "1"];
    let done = hubproof([&["fuzz"], hub, &replay].concat()).assert_exit_code(3);
    assert!(done.out.contains("  not reproducible   ") && done.out.contains(expected), "{}", done.out);
}

#[rstest]
#[case::missing(&["fuzz", "--protocol", "qi", "--replay", "no/such.yaml"], "failed to read no/such.yaml")]
#[case::whose(&["fuzz", "--protocol", "qi", "--protocol", "gator", "--replay", "Cargo.toml"], "the name of Cargo.toml does not tell its protocol")]
fn a_file_that_is_not_a_saved_finding_is_an_error(#[case] arguments: &[&str], #[case] expected: &str) {
    let done = hubproof(arguments).assert_exit_code(2);
    assert!(done.err.contains(expected), "{}", done.err);
}

/// A wrong broadcast is a finding of all cases that run at the same time. Only findings that fail alone are
/// saved, once there is one.
#[test]
#[ignore = "thorough: many minutes of CPU"]
fn findings_caused_by_other_cases_are_not_saved() {
    let base = ["fuzz", "--protocol", "qi", "--fault", "qi-fuzz-emoji-leaks"];
    let folder = tempfile::tempdir().unwrap();
    let regressions = folder.path().display().to_string();
    let run = ["--seed", "1", "--cases", "400", "--shrink-time", "5m", "--stretch", "3", "--regressions", &regressions];
    let found = hubproof(base.iter().chain(&run)).assert_exit_code(1);
    assert!(found.err.contains("after the opening"), "{}", found.err);
    assert!(found.err.contains("that did not fail again when replayed alone"), "{}", found.err);
    let again = hubproof(base.iter().chain(&["--stretch", "3", "--replay", &regressions])).assert_exit_code(1);
    assert!(
        !again.out.contains("  fixed ") && !again.out.contains("  not reproducible "),
        "{}\n{}",
        again.out,
        found.err
    );
}
