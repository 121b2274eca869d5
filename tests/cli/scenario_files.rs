//! `hubproof check --scenario FILE`: scenario files outside a pack.

use rstest::rstest;

use crate::support::process::{ProcessResult, hubproof};

/// A scenario that checks an oracle of the fuzzer, which is not a rule of the pack.
const ORACLE_SCENARIO: &str = "\
title: Whoever connects is served
steps:
  - client joins:
    rules: [FUZZ-SERVES-NEW]
  - client sends: self_fetch
  - client expects: self_fetch_result
    rules: [CON-105]
";

fn check(text: &str, more: &[&str]) -> (ProcessResult, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (hubproof(["check", "--scenario", &path].iter().chain(more)), path)
}

#[test]
fn a_scenario_file_outside_the_pack_is_played_like_any_other() {
    let done = check(ORACLE_SCENARIO, &["--protocol", "concierge"]).0.assert_exit_code(0);
    assert!(done.out.contains("scenarios   1 pass\n"), "{}", done.out);
    let more = ["--protocol", "concierge", "--scenario", "message-to-one"];
    let done = check(ORACLE_SCENARIO, &more).0.assert_exit_code(0);
    assert!(done.out.contains("scenarios   2: 1 pass, 1 info\n"), "{}", done.out);
}

#[test]
fn the_reproduction_command_replays_the_file() {
    let fault = ["--protocol", "concierge", "--fault", "concierge-self-fetch-without-seq"];
    let (done, path) = check(ORACLE_SCENARIO, &fault);
    let done = done.assert_exit_code(1);
    let again = format!("--scenario {path} --protocol concierge --scenario concierge/mine");
    assert!(done.out.contains(&again), "{}", done.out);
}

#[rstest]
#[case::whose(ORACLE_SCENARIO, &[], "mine.yaml is not known")]
#[case::whose_of_two(ORACLE_SCENARIO, &["--protocol", "qi", "--protocol", "concierge"], "mine.yaml is not known")]
#[case::another_protocol(ORACLE_SCENARIO, &["--protocol", "qi"], "mine.yaml:5")]
#[case::no_rule("title: t\nsteps:\n  - client joins:\n    rules: [FUZZ-NOTHING]\n", &["--protocol", "concierge"], "mine.yaml:4")]
#[case::no_yaml("title: [", &["--protocol", "concierge"], "mine.yaml:")]
fn an_invalid_scenario_file_is_an_error(#[case] text: &str, #[case] more: &[&str], #[case] expected: &str) {
    let done = check(text, more).0.assert_exit_code(2);
    assert!(done.err.contains(expected), "{}", done.err);
}

#[test]
fn a_missing_scenario_file_is_an_error() {
    let done = hubproof(["check", "--protocol", "qi", "--scenario", "no/such.yaml"]).assert_exit_code(2);
    assert!(done.err.contains("failed to read no/such.yaml"), "{}", done.err);
}
