//! Findings of the fuzzer: shrunk, saved, and replayed.

use std::path::{Path, PathBuf};

use rstest::rstest;
use serde_json::Value;

use crate::support::process::{ProcessResult, hubproof};

const FAULT: [&str; 2] = ["--fault", "concierge-hello-missing-uuid"];

fn fuzz(more: &[&str]) -> ProcessResult {
    hubproof(["fuzz", "--protocol", "concierge"].iter().chain(more))
}

fn saved_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs one case and returns the folder with its saved finding, and that file.
fn save_one_finding() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let regressions = folder.path().join("regressions");
    let regressions_ = regressions.display().to_string();
    let report = format!("json={}", folder.path().join("run.json").display());
    let run = ["--case", "3", "--seed", "1", "--regressions", &regressions_, "--report", &report, FAULT[0], FAULT[1]];
    let done = fuzz(&run).assert_exit_code(1);
    let files = saved_files(&regressions);
    assert_eq!(files.len(), 1, "{files:?}\n{}", done.err);
    assert!(done.err.contains(&format!("saved {}: 0 steps after the opening", files[0].display())), "{}", done.err);
    (folder, files[0].clone())
}

#[test]
fn a_finding_is_shrunk_saved_and_replayed_by_fuzz_and_check() {
    let (folder, path) = save_one_finding();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("concierge-schema-hello-con-025-"), "{name}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("with seed 1 in case 3.\n# schema:hello:CON-025\n"), "{text}");
    let steps = text.split_once("steps:\n").unwrap().1;
    let joins = steps.split_once(":\n").filter(|(first, _)| first.ends_with(" joins") || first.ends_with(" join"));
    assert!(joins.is_some_and(|(_, rest)| rest.starts_with("  - wait:")), "{text}");
    // The report has the last play, in which the client only joins, and the command that replays it.
    let report: Value = serde_json::from_slice(&std::fs::read(folder.path().join("run.json")).unwrap()).unwrap();
    let shrunk = &report["protocols"][0]["fuzzed"]["causes"][0]["shrunk"];
    assert_eq!(shrunk["path"], path.display().to_string());
    let sent: Vec<&str> = shrunk["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|frame| frame["direction"] == "sent" && frame["kind"] == "text")
        .filter_map(|frame| frame["text"].as_str())
        .collect();
    assert!(sent.len() == 1 && sent[0].contains("IDENTIFY"), "{sent:?}");
    assert!(text.contains(&format!("#   {}\n", shrunk["reproduce"].as_str().unwrap())), "{text}");
    // The commands in its header work.
    let commands: Vec<Vec<&str>> =
        text.lines().filter_map(|line| Some(line.strip_prefix("#   hubproof ")?.split(' ').collect())).collect();
    assert_eq!(commands.iter().map(|words| words[0]).collect::<Vec<_>>(), ["fuzz", "check"]);
    let broken = hubproof(&commands[0]).assert_exit_code(1);
    assert!(broken.out.contains(&format!("  still fails        {}\n", path.display())), "{}", broken.out);
    hubproof(&commands[1]).assert_exit_code(1);
    // A hub without the fault.
    let shown = path.display().to_string();
    let fixed = fuzz(&["--replay", &shown]).assert_exit_code(0);
    assert!(fixed.out.contains(&format!("  fixed              {shown}\n")), "{}", fixed.out);
    hubproof(["check", "--protocol", "concierge", "--scenario", &shown]).assert_exit_code(0);
    // All files of a folder.
    let all = fuzz(&["--replay", folder.path().join("regressions").to_str().unwrap()]).assert_exit_code(0);
    assert!(all.out.starts_with("1 saved finding replayed\n"), "{}", all.out);
}

#[test]
fn regressions_are_played_first_and_not_saved_twice() {
    let (_folder, path) = save_one_finding();
    let regressions = path.parent().unwrap().display().to_string();
    let before = std::fs::read_to_string(&path).unwrap();
    let run = ["--case", "3", "--seed", "1", "--regressions", &regressions];
    let again = fuzz(&[&run[..], &FAULT].concat()).assert_exit_code(1);
    assert!(again.out.starts_with("1 saved finding replayed\n  still fails "), "{}", again.out);
    assert!(again.out.contains("\nFAIL concierge: "), "{}", again.out);
    assert_eq!(saved_files(path.parent().unwrap()), std::slice::from_ref(&path));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    let fixed = fuzz(&run).assert_exit_code(0);
    assert!(fixed.out.starts_with("1 saved finding replayed\n  fixed "), "{}", fixed.out);
    assert!(fixed.out.contains("\nPASS concierge: "), "{}", fixed.out);
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
