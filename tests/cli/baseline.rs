//! `hubproof check --baseline` and `--write-baseline`: known failures do not fail a run, stale entries do.

use std::path::Path;

use serde_json::Value;

use crate::support::process::{ProcessResult, hubproof, with_steady_text};

const FAULT: &str = "concierge-name-broadcast";

/// A baseline file in a temporary folder.
struct BaselineFile(tempfile::TempDir);

impl BaselineFile {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("known.toml"), text).unwrap();
        Self(folder)
    }

    fn path(&self) -> String {
        self.0.path().join("known.toml").display().to_string()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.0.path().join("known.toml")).unwrap()
    }

    /// Checks one scenario of the built-in server with this baseline.
    fn check(&self, more: &[&str]) -> ProcessResult {
        let path = self.path();
        let base = ["check", "--scenario", "concierge/message-to-one", "--baseline", &path];
        hubproof(base.iter().chain(more))
    }
}

fn json(done: &ProcessResult) -> Value {
    let report: Value = serde_json::from_str(&done.out).unwrap();
    crate::cli::serve::assert_valid_report(&report);
    report
}

#[test]
fn a_written_baseline_expects_a_failure_until_it_is_fixed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.toml");
    let text = || std::fs::read_to_string(&path).unwrap();
    let path = path.to_str().unwrap();
    let broken = ["check", "--scenario", "concierge/message-to-one", "--fault", FAULT];
    hubproof(broken.iter().chain(&["--write-baseline", path])).assert_exit_code(1);
    let written = text();
    assert!(written.contains("failure = \"concierge/message-to-one:CON-042#5\""), "{written}");
    assert!(written.contains("reason = \"TODO: why does this fail"), "{written}");
    // Reasons, comments and flags are kept when the baseline is rewritten.
    let ours = written.replace("TODO: why does this fail, and what will fix it?", "names are broadcast until 2.0");
    std::fs::write(path, format!("# of our hub\n{ours}")).unwrap();
    hubproof(broken.iter().chain(&["--write-baseline", path])).assert_exit_code(1);
    assert_eq!(text(), format!("# of our hub\n{ours}"));

    let junit = folder.path().join("report.xml");
    let reports = ["--baseline", path, "--report", "json=-", "--report", &format!("junit={}", junit.display())];
    let done = hubproof(broken.iter().chain(&reports)).assert_exit_code(0);
    assert!(done.err.contains("expected[CON-042#5]: concierge/message-to-one: "), "{}", done.err);
    assert!(done.err.contains("reason      names are broadcast until 2.0"), "{}", done.err);
    let report = json(&done);
    let protocol = &report["protocols"][0];
    assert_eq!(protocol["expected"], 1);
    assert_eq!(protocol["baseline"][0]["standing"], "expected");
    let finding = &protocol["findings"].as_array().unwrap().iter().find(|one| one["verdict"] == "fail").unwrap();
    assert_eq!(
        (&finding["expected"], &finding["reason"]),
        (&Value::from(true), &"names are broadcast until 2.0".into())
    );
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(!xml.contains("<failure") && !xml.contains("<error type=\"fail\""), "{xml}");
    assert!(xml.contains("expected: names are broadcast until 2.0"), "{xml}");

    // The hub is fixed: the entry is stale, and a rewrite removes it.
    let mended = ["check", "--scenario", "concierge/message-to-one"];
    let done = hubproof(mended.iter().chain(&["--baseline", path])).assert_exit_code(1);
    assert!(done.out.contains("stale: concierge/message-to-one:CON-042#5 no longer fails"), "{}", done.out);
    let (at, _) = text().lines().enumerate().find(|(_, line)| *line == "[[known]]").unwrap();
    assert!(done.out.contains(&format!("delete      lines {} to {} of ", at + 1, at + 3)), "{}", done.out);
    hubproof(mended.iter().chain(&["--write-baseline", path])).assert_exit_code(0);
    assert!(!text().contains("[[known]]") && text().starts_with("# of our hub\n"), "{}", text());
    hubproof(mended.iter().chain(&["--baseline", path])).assert_exit_code(0);
}

fn entry(failure: &str, more: &str) -> String {
    format!("[[known]]\nfailure = \"{failure}\"\nreason = \"known\"\n{more}")
}

#[test]
fn a_flaky_entry_may_fail_or_pass() {
    let known = BaselineFile::new(&entry("concierge/message-to-one:CON-042#5", "flaky = true\n"));
    known.check(&[]).assert_exit_code(0);
    let done = known.check(&["--fault", FAULT]).assert_exit_code(0);
    assert!(done.out.contains("flaky[CON-042#5]"), "{}", done.out);
}

#[test]
fn an_entry_may_cover_a_whole_scenario() {
    let known = BaselineFile::new(&entry("concierge/message-to-one", ""));
    known.check(&["--fault", FAULT]).assert_exit_code(0);
    let done = known.check(&[]).assert_exit_code(1);
    assert!(done.verdict().contains("1 stale line in the baseline"), "{}", done.out);
}

#[test]
fn entries_of_unplayed_scenarios_are_neither_expected_nor_stale() {
    let known = BaselineFile::new(&(entry("concierge/greeting:CON-001", "") + &entry("qi/base", "")));
    let text = known.text();
    let done = known.check(&["--write-baseline", &known.path()]).assert_exit_code(0);
    assert_eq!(known.text(), text, "{}", done.err);
}

#[test]
fn warnings_that_fail_a_strict_run_can_be_expected() {
    let fault =
        ["check", "--scenario", "concierge/greeting", "--fault", "concierge-subprotocol-not-selected", "--strict"];
    let known = BaselineFile::new("");
    let path = known.path();
    hubproof(fault.iter().chain(&["--write-baseline", &path])).assert_exit_code(1);
    hubproof(fault.iter().chain(&["--baseline", &path])).assert_exit_code(0);
}

#[test]
fn an_entry_with_an_unknown_name_is_an_error() {
    let known = BaselineFile::new(
        &(entry("concierge/mesage-to-one:CON-042", "") + &entry("concierge/message-to-one:CON-42#3", "")),
    );
    let done = known.check(&[]).assert_exit_code(2);
    with_steady_text(|| insta::assert_snapshot!("unknown", done.err));
    let folder = Path::new(&known.path()).parent().unwrap().to_owned();
    let missing = folder.join("no.toml").display().to_string();
    let done = hubproof(["check", "--scenario", "qi/base", "--baseline", &missing]).assert_exit_code(2);
    assert!(done.err.contains("failed to read"), "{}", done.err);
}

/// The reproduction command includes the baseline, so that it gives the same result.
#[test]
fn failures_without_an_entry_still_fail() {
    let known = BaselineFile::new(&entry("concierge/message-to-one:CON-051", "flaky = true\n"));
    let done = known.check(&["--fault", FAULT]).assert_exit_code(1);
    assert!(done.out.contains("fail[CON-042#5]"), "{}", done.out);
    assert!(done.out.contains("--baseline"), "{}", done.out);
}
