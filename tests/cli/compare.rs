//! `hubproof compare`: errors about files that are not load reports, and its arguments.

use rstest::rstest;

use crate::support::process::hubproof;

#[rstest]
#[case::not_json("{", "it is not JSON")]
#[case::other_json("{}", "it has no `format: hubproof-load-report`")]
#[case::check_report(r#"{"format": "hubproof-report", "format_version": 1}"#, "a report of `hubproof check`")]
#[case::later(r#"{"format": "hubproof-load-report", "format_version": 99}"#, "format version 99")]
fn a_file_that_is_not_a_load_report_is_an_error(#[case] text: &str, #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let done = hubproof(["compare", file, file]).assert_exit_code(2);
    assert!(done.err.contains(&format!("failed to read {file}: ")), "{}", done.err);
    assert!(done.err.contains(expected), "{}", done.err);
    assert!(done.err.contains("--report json="), "{}", done.err);
}

#[test]
fn a_missing_load_report_is_an_error() {
    let done = hubproof(["compare", "nowhere.json", "nowhere.json"]).assert_exit_code(2);
    assert!(done.err.contains("failed to read nowhere.json"), "{}", done.err);
}

#[test]
fn the_regression_limit_is_a_percentage() {
    let done = hubproof(["compare", "a", "b", "--fail-on-regression", "0.05"]).assert_exit_code(2);
    assert!(done.err.contains("write a percentage, such as 5%"), "{}", done.err);
}
