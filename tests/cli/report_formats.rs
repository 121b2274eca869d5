//! What report formats do beyond rendering: lines during the run, the job summary of a step, paths in a repository.

use rstest::rstest;
use serde_json::Value;

use crate::support::process::{hubproof, start};

#[test]
fn only_the_job_summary_of_a_step_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let [summary, other] = ["summary.md", "other.md"].map(|name| folder.path().join(name).display().to_string());
    let written = [&summary, &other].map(|path| {
        std::fs::write(path, "before\n").unwrap();
        let report = format!("markdown={path}");
        let arguments = ["check", "--scenario", "qi/base", "--report", &report];
        start(arguments, &[("GITHUB_STEP_SUMMARY", &summary)]).wait_for_end().assert_exit_code(0);
        std::fs::read_to_string(path).unwrap()
    });
    assert!(written[0].starts_with("before\n## hubproof check: PASS\n"), "{}", written[0]);
    assert!(written[1].starts_with("## hubproof check: PASS\n"), "{}", written[1]);
}

#[test]
fn events_begin_and_end_a_run_and_agree_with_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let json = format!("json={}", path.display());
    let arguments = ["check", "--scenario", "qi/*", "--fault", "qi-arguments-lost", "--report", &json];
    let done = hubproof(arguments.iter().chain(&["--report", "events=-"])).assert_exit_code(1);
    let events: Vec<Value> = done.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let report: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(events[0]["event"], "run-started");
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["exit_code"]), (&"run-finished".into(), &1.into()));
    assert_eq!(last["protocols"][0]["checks"], report["protocols"][0]["checks"]["verdicts"]);
    for scenario in report["protocols"][0]["scenarios"]["list"].as_array().unwrap() {
        let finished = |event: &&Value| event["event"] == "scenario-finished" && event["scenario"] == scenario["id"];
        let event = events.iter().find(finished).unwrap_or_else(|| panic!("{scenario}"));
        assert_eq!(event["verdict"], scenario["verdict"]);
    }
}

#[test]
fn annotations_name_files_relative_to_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let file = root.join("sub/mine.yaml");
    std::fs::create_dir(root.join("sub")).unwrap();
    std::fs::write(&file, "title: The hub is there\nactors: { anna: caller }\nsteps:\n  - anna connects:\n").unwrap();
    let (file, root) = (file.display().to_string(), root.display().to_string());
    let arguments = ["check", "ws://127.0.0.1:1", "--protocol", "qi", "--scenario", &file, "--report", "github=-"];
    let done = start(arguments, &[("GITHUB_WORKSPACE", &root)]).wait_for_end().assert_exit_code(3);
    assert!(done.out.starts_with("::error file=sub/mine.yaml,line=4,title="), "{}", done.out);
}

#[test]
#[cfg(target_os = "linux")]
fn a_report_that_cannot_be_written_takes_no_other_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.xml");
    let junit = format!("junit={}", path.display());
    // A device that is always full.
    let arguments = ["check", "--scenario", "qi/base", "--report", "json=/dev/full", "--report", &junit];
    let done = hubproof(arguments).assert_exit_code(2);
    assert!(done.err.contains("failed to write /dev/full: "), "{}", done.err);
    assert!(std::fs::read_to_string(path).unwrap().contains("<testsuite "));
}

#[rstest]
#[case::check(&["check", "--scenario", "qi/base"])]
#[case::fuzz(&["fuzz", "--protocol", "qi", "--cases", "1"])]
#[case::load(&["load", "--protocol", "qi"])]
#[case::compare(&["compare", "a.json", "b.json"])]
fn there_must_be_a_page_to_open(#[case] command: &[&str]) {
    let done = hubproof(command.iter().chain(&["--open"])).assert_exit_code(2);
    let expected = "error: `--open` needs a page to open: add `--report html=report.html`";
    assert!(done.err.contains(expected), "{}", done.err);
}
