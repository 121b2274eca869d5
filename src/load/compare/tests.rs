use rstest::rstest;

use super::*;
use crate::load::report::fixture::{MS, SyntheticRun};
use crate::load::report::json::build_document;

fn compared(a: &SyntheticRun, b: &SyntheticRun, percent: Option<f64>) -> LoadComparison {
    let options = CompareOptions { seed: 1, fail_on_regression: percent.map(|percent| percent / 100.0) };
    compare(&build_document(&a.report()), &build_document(&b.report()), options).unwrap()
}

fn find<'a>(comparison: &'a LoadComparison, metric: &str) -> &'a MetricDifference {
    comparison.differences.iter().find(|difference| difference.metric == metric).unwrap()
}

#[test]
fn a_run_compared_with_itself_shows_no_difference() {
    let comparison = compared(&SyntheticRun::calm(), &SyntheticRun::calm(), Some(0.0));
    assert!(!comparison.has_regression());
    assert!(comparison.differences.len() > 10);
    for difference in &comparison.differences {
        assert_eq!(difference.change, Some(0.0), "{}", difference.metric);
        assert!(!difference.is_significant(), "{}", difference.metric);
    }
}

/// Every answer of the hub takes a quarter of a millisecond longer.
#[rstest]
#[case::more_than_allowed(Some(3.0), true)]
#[case::as_much_as_is_allowed(Some(30.0), false)]
#[case::not_asked(None, false)]
fn a_slower_run_is_a_regression_if_it_is_slower_than_allowed(#[case] percent: Option<f64>, #[case] expected: bool) {
    let slower = SyntheticRun { hub: MS / 4, ..SyntheticRun::calm() };
    let comparison = compared(&SyntheticRun::calm(), &slower, percent);
    let p50 = find(&comparison, "submit_job.response.p50");
    assert!(p50.is_significant());
    let (low, high) = p50.interval.unwrap();
    assert!(low <= p50.change.unwrap() + 0.01 && high >= p50.change.unwrap() - 0.01, "{p50:?}");
    assert_eq!(p50.regression, expected);
    assert_eq!(comparison.has_regression(), expected);
    assert!(!find(&comparison, "submit_job.send_delay.p50").regression, "a metric of the generator");
    assert!(!compared(&slower, &SyntheticRun::calm(), percent).has_regression(), "faster is not a regression");
}

/// The generator of the later run sends a millisecond late, and its hub is as fast as before.
#[test]
fn a_slower_generator_is_no_regression_of_the_hub() {
    let late = SyntheticRun { delay: MS, ..SyntheticRun::calm() };
    let comparison = compared(&SyntheticRun::calm(), &late, Some(3.0));
    let p50 = find(&comparison, "submit_job.response.p50");
    assert!(p50.is_significant() && !p50.regression, "{p50:?}");
    assert_eq!(p50.undecided, Some(DECIDED_BY_OUR_DELAY));
    assert!(render(&comparison).contains("undecided: not worse without the generator's own delay"));
}

/// Runs of five seconds: whether the difference is chance is unknown.
#[rstest]
#[case(Some(3.0), true)]
#[case(Some(30.0), false)]
#[case(None, false)]
fn a_comparison_of_short_runs_is_undecided_if_a_difference_exceeds_the_limit(
    #[case] percent: Option<f64>,
    #[case] expected: bool,
) {
    let short = |run: SyntheticRun| {
        let mut document = build_document(&run.report());
        document.intervals.truncate(7);
        document
    };
    let (a, b) = (short(SyntheticRun::calm()), short(SyntheticRun { hub: MS / 2, ..SyntheticRun::calm() }));
    let options = CompareOptions { seed: 1, fail_on_regression: percent.map(|percent| percent / 100.0) };
    let comparison = compare(&a, &b, options).unwrap();
    assert_eq!((comparison.is_undecided(), comparison.has_regression()), (expected, false));
}

#[test]
fn a_ledger_violation_in_the_later_run_only_is_a_regression() {
    let faulty = SyntheticRun { faulty: true, ..SyntheticRun::calm() };
    let comparison = compared(&SyntheticRun::calm(), &faulty, Some(50.0));
    assert!(find(&comparison, "ledger.lost").regression);
    assert!(comparison.has_regression());
    assert!(!compared(&faulty, &SyntheticRun::calm(), Some(50.0)).has_regression());
}

#[test]
fn the_same_seed_gives_the_same_confidence_intervals() {
    let slower = SyntheticRun { slower: MS / 30, ..SyntheticRun::calm() };
    assert_eq!(compared(&SyntheticRun::calm(), &slower, None), compared(&SyntheticRun::calm(), &slower, None));
}

#[test]
fn the_comparison_text_matches_the_snapshot() {
    let other = SyntheticRun { hub: MS / 4, delay: MS / 4, faulty: true, missed: 412, ..SyntheticRun::calm() };
    insta::assert_snapshot!("comparison", render(&compared(&SyntheticRun::calm(), &other, Some(2.0))));
}

#[test]
fn the_notes_list_deviations_of_both_runs() {
    let [a, b] = [vec![(5, 0)], vec![(0, 2)]].map(|deviations| SyntheticRun { deviations, ..SyntheticRun::calm() });
    let notes = compared(&a, &b, None).notes;
    assert_eq!(notes, ["deviation: `welcome` is recognised by {\"say\":\"hi\"}: A 5 times, B stale"]);
    let notes = compared(&SyntheticRun::calm(), &a, None).notes;
    assert_eq!(notes, ["deviation: `welcome` is recognised by {\"say\":\"hi\"}: A not declared, B 5 times"]);
}

#[test]
fn a_report_with_a_corrupted_histogram_is_an_error() {
    let a = build_document(&SyntheticRun::calm().report());
    let mut b = build_document(&SyntheticRun::calm().report());
    b.times.get_mut("submit_job.response").unwrap().histogram = "AAAA".to_owned();
    let error = compare(&a, &b, CompareOptions { seed: 1, fail_on_regression: None }).unwrap_err().to_string();
    assert!(error.contains("the histogram of submit_job.response is invalid"), "{error}");
}
