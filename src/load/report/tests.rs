use std::collections::{BTreeMap, BTreeSet};

use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use openmetrics_parser::{MetricNumber, PrometheusValue};
use rstest::rstest;
use serde_json::{Value, json};

use super::fixture::{self, SyntheticRun};
use super::*;
use crate::load::compare::{CompareOptions, compare};
use crate::load::metrics::{
    CounterId, DenseHistogram, MessageCount, MessageTime, RunPhase, TimingId, new_dense_histogram,
};
use crate::load::plan::threshold::ThresholdStanding;
use crate::report::document::load::LoadDocument;
use crate::report::fixture::assert_schema_is_derived;
use crate::report::html::{self, NamedReport};
use crate::report::junit;
use crate::report::test_results::TestResults;
use crate::syntax::source::{Sources, Span};

const SCHEMA: &str = include_str!("../../../schemas/hubproof/load-report.schema.json");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

#[test]
fn the_published_schema_is_derived_from_the_types_of_the_report() {
    assert_schema_is_derived::<LoadDocument>("load-report.schema.json");
}

#[rstest]
#[case(SyntheticRun::calm())]
#[case(SyntheticRun::troubled())]
#[case(SyntheticRun { assumed: 83, ..SyntheticRun::calm() })]
fn every_load_report_conforms_to_the_schema_and_round_trips(#[case] run: SyntheticRun) {
    let text = json::render(&run.report());
    let value: Value = serde_json::from_str(&text).unwrap();
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let again = json::parse_load_report(&text).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), value);
}

#[test]
fn a_json_report_has_lost_connections_waits_and_operations() {
    let report = serde_json::to_value(json::build_document(&SyntheticRun::troubled().report())).unwrap();
    let expected = json!([
        { "how": "closed", "code": 1011, "reason": "oops", "count": 100 },
        { "how": "reset", "code": null, "reason": "", "count": 2 }
    ]);
    assert_eq!(report["connections"], expected);
    assert_eq!(report["waits"][0]["message"], "job_completed");
    let [fast, slow] = ["fast", "slow"].map(|label| &report["times"][format!("submit_job[{label}].service")]);
    assert!(fast["max_ms"].as_f64() < slow["min_ms"].as_f64(), "{fast} {slow}");
    assert_eq!(report["times"]["submit_job[other].service"], Value::Null);
}

/// An interrupted run proves nothing, even if it is valid and its thresholds hold.
#[test]
fn an_interrupted_run_is_inconclusive() {
    let complete = SyntheticRun::calm();
    let interrupted = SyntheticRun { interrupted: true, ..complete.clone() };
    assert_eq!((complete.report().exit_code(), interrupted.report().exit_code()), (0, 3));
    assert!(interrupted.page().contains("INCONCLUSIVE emprops/load/queue: interrupted, "), "{}", interrupted.page());
    assert!(junit::render(&interrupted.results()).contains("the run was interrupted"));
}

/// The totals of a run are the merge of its intervals.
#[test]
fn the_intervals_of_a_json_report_add_up_to_its_totals() {
    let document = json::build_document(&SyntheticRun::calm().report());
    let mut merged = new_dense_histogram::<u64>();
    for interval in document.intervals.iter().filter(|interval| interval.phase != RunPhase::Warmup) {
        if let Some(times) = interval.times.get("submit_job.response") {
            let histogram = json::decode_histogram("it", &times.histogram).unwrap().histogram().unwrap();
            merged.add(histogram).unwrap();
        }
    }
    let times = &document.times["submit_job.response"];
    assert_eq!(json::decode_histogram("it", &times.histogram).unwrap().histogram(), Some(merged.clone()));
    assert_eq!((times.count, merged.len()), (20_000, 20_000));
    assert_eq!(times.p99_ms, Some(merged.value_at_quantile(0.99) as f64 / 1e6));
    assert_eq!(document.counts["submit_job.sent"].whole_run, fixture::JOBS);
    assert_eq!(document.counts["submit_job.sent"].per_second, 1_000.0);
}

#[rstest]
#[case("{", "it is not JSON")]
#[case("[]", "it has no `format: hubproof-load-report`")]
#[case(r#"{"format": "hubproof-report", "format_version": 1}"#, "a report of `hubproof check`")]
#[case(
    r#"{"format": "hubproof-load-report", "format_version": 2}"#,
    "format version 2, but this hubproof reads version 1"
)]
#[case(r#"{"format": "hubproof-load-report", "format_version": 1}"#, "hubproof did not write it: missing field `tool`")]
fn files_that_are_not_load_reports_are_rejected_with_a_reason(#[case] text: &str, #[case] expected: &str) {
    let error = json::parse_load_report(text).err().unwrap().to_string();
    assert!(error.contains(expected), "{error}");
}

#[rstest]
#[case("/format", json!("hubproof"))]
#[case("/format_version", json!(99))]
#[case("/validity/verdict", json!("good"))]
#[case("/intervals/0/phase", json!("ramp"))]
#[case("/times/submit_job.response/count", json!(-1))]
fn a_report_with_a_wrong_value_violates_the_published_schema(#[case] pointer: &str, #[case] wrong: Value) {
    let mut value = serde_json::to_value(json::build_document(&SyntheticRun::calm().report())).unwrap();
    *value.pointer_mut(pointer).unwrap() = wrong;
    assert!(!jsonschema::draft202012::new(&schema()).unwrap().is_valid(&value));
}

#[rstest]
#[case::calm(SyntheticRun::calm(), 0)]
#[case::broken(SyntheticRun { thresholds: vec!["ledger.attempted < 5"], ..SyntheticRun::calm() }, 1)]
#[case::broken_and_suspect(SyntheticRun { missed: 412, thresholds: vec!["ledger.attempted < 5"], ..SyntheticRun::calm() }, 1)]
#[case::suspect(SyntheticRun { missed: 412, ..SyntheticRun::calm() }, 3)]
#[case::invalid_breaks_nothing(SyntheticRun { internal: 9_000, thresholds: vec!["ledger.attempted < 5"], ..SyntheticRun::calm() }, 3)]
#[case::not_observed(SyntheticRun { thresholds: vec!["claim_job.response.p50 < 1s"], ..SyntheticRun::calm() }, 3)]
#[case::nothing_to_count(SyntheticRun { thresholds: vec!["claim_job.unanswered == 0"], ..SyntheticRun::calm() }, 3)]
#[case::broken_and_not_observed(SyntheticRun { thresholds: vec!["ledger.attempted < 5", "claim_job.answered > 5"], ..SyntheticRun::calm() }, 1)]
#[case::broken_by_the_generator(SyntheticRun { delay: 2 * fixture::MS, thresholds: vec!["submit_job.response.p99 < 11ms"], ..SyntheticRun::calm() }, 3)]
#[case::broken_by_the_hub(SyntheticRun { delay: 2 * fixture::MS, thresholds: vec!["submit_job.response.p99 < 9ms"], ..SyntheticRun::calm() }, 1)]
#[case::holds_though_late(SyntheticRun { delay: 2 * fixture::MS, thresholds: vec!["submit_job.response.p99 < 13ms"], ..SyntheticRun::calm() }, 0)]
#[case::violations(SyntheticRun { faulty: true, ..SyntheticRun::default() }, 1)]
#[case::violations_of_an_invalid_run(SyntheticRun { faulty: true, internal: 9_000, ..SyntheticRun::default() }, 1)]
#[case::violations_of_a_suspect_run(SyntheticRun { faulty: true, missed: 412, ..SyntheticRun::default() }, 1)]
#[case::one_class_of_two_is_permitted(SyntheticRun { faulty: true, thresholds: vec!["ledger.lost < 500"], ..SyntheticRun::default() }, 1)]
#[case::both_classes_are_permitted(SyntheticRun { faulty: true, thresholds: vec!["ledger.lost < 500", "ledger.duplicated <= 22"], ..SyntheticRun::default() }, 0)]
#[case::deviates_as_declared(SyntheticRun { deviations: vec![(5, 0), (4, 1), (0, 0)], ..SyntheticRun::calm() }, 0)]
#[case::stale_deviation(SyntheticRun { deviations: vec![(5, 0), (0, 1)], ..SyntheticRun::calm() }, 1)]
#[case::stale_deviation_of_an_invalid_run(SyntheticRun { internal: 9_000, deviations: vec![(0, 1)], ..SyntheticRun::calm() }, 1)]
fn thresholds_and_validity_determine_the_exit_code(#[case] run: SyntheticRun, #[case] expected: u8) {
    assert_eq!(run.report().exit_code(), expected);
}

/// Whatever was on its way to a hub that ended may be lost.
#[test]
fn a_ledger_is_not_clean_if_connections_were_lost() {
    let page = SyntheticRun { connections_lost: 40, ..SyntheticRun::calm() }.page();
    assert!(page.contains("              40 connections lost: what was on its way on them is unknown\n"), "{page}");
    assert!(!page.contains("clean"), "{page}");
}

#[test]
fn assumed_messages_and_items_are_shown_on_their_own() {
    let run = SyntheticRun { assumed: 83, ..SyntheticRun::calm() };
    let page = run.page();
    for line in [
        "  assumed     83 job_accepted, which the hub never sends\n",
        "  jobs: 83 continued past assumed messages, not timed\n",
        "              83 cannot be followed: id or progress assumed by deviation:2\n",
        "              clean: nothing lost, duplicated, unexpected or out of order\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
    assert!(
        page.contains("  ledger      22 000 attempted, 21 917 acknowledged, 21 917 completed, 83 assumed\n"),
        "{page}"
    );
    let document = json::build_document(&run.report());
    assert_eq!(document.ledger.assumed, BTreeMap::from([("deviation:2".to_owned(), 83)]));
    let whole_run = |name: &str| document.counts.get(name).map(|count| count.whole_run);
    let counts = ["job_accepted.assumed", "submit_job.answers_assumed", "jobs.assumed", "job_accepted.received"];
    assert_eq!(counts.map(whole_run), [Some(83), Some(83), Some(83), None]);
    let nothing_followed = SyntheticRun { assumed: fixture::JOBS, ..SyntheticRun::default() }.page();
    assert!(!nothing_followed.contains("clean"), "{nothing_followed}");
    assert!(nothing_followed.contains("no item could be followed"), "{nothing_followed}");
}

/// Every class of the ledger has the threshold 0 unless the plan states one.
#[test]
fn a_broken_default_threshold_names_its_class_and_first_items() {
    let run = SyntheticRun { faulty: true, thresholds: vec!["ledger.lost < 500"], ..SyntheticRun::default() };
    let report = run.report();
    let text = run.page();
    let line = "  BROKEN      ledger.duplicated == 0   observed: 22; first 0000000000000002, 00000000000003ea\n";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("  holds       ledger.lost < 500   observed: 220\n"), "{text}");
    let document = serde_json::to_value(json::build_document(&report)).unwrap();
    let broken = &document["thresholds"][1];
    assert_eq!((&broken["text"], &broken["standing"]), (&json!("ledger.duplicated == 0"), &json!("broken")));
    assert_eq!((&broken["default"], &document["thresholds"][0]["default"]), (&json!(true), &json!(false)));
    assert_eq!(broken["items"], json!(["0000000000000002", "00000000000003ea"]));
    let xml = junit::render(&run.results());
    assert!(xml.contains("the first items: 0000000000000002, 00000000000003ea"), "{xml}");
    // Default thresholds that hold are not listed.
    assert_eq!(document["thresholds"].as_array().unwrap().len(), 2, "{document}");
}

#[test]
fn declared_deviations_are_listed_with_their_observation_counts() {
    let run = SyntheticRun { deviations: vec![(5, 0), (0, 3), (0, 0)], ..SyntheticRun::calm() };
    let (report, text) = (run.report(), run.page());
    for line in [
        "known[deviation:1]: `welcome` is recognised by {\"say\":\"hi\"} (hub.yaml:1)\n  reason      as it is\n",
        "  breaks      GRE-001\n  seen        5 times\n",
        "stale[deviation:2]: `welcome` is recognised by {\"say\":\"hi\"}: the hub behaves as documented\n",
        "  received    3 messages as documented; 0 as declared\n  delete      this entry\n",
        "known[deviation:3]: `welcome` is recognised by {\"say\":\"hi\"} (hub.yaml:1)\n  reason      as it is\n",
        "  seen        not in this run\n",
        ": 1 stale deviation in the target file, 2 thresholds hold",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    let document = serde_json::to_value(json::build_document(&report)).unwrap();
    let known = &document["deviations"][0];
    assert_eq!((&known["name"], &known["standing"]), (&json!("deviation:1"), &json!("expected")), "{known}");
    assert_eq!((&known["observed"], &known["rules"]), (&json!(5), &json!(["GRE-001"])), "{known}");
    let standings = ["expected", "stale", "not-played"].map(|word| json!(word));
    assert_eq!([0, 1, 2].map(|at| document["deviations"][at]["standing"].clone()), standings);
    let xml = junit::render(&run.results());
    assert_eq!(xml.matches("type=\"stale\"").count(), 1, "{xml}");
    // Reports of earlier versions have no deviations.
    let mut earlier = document;
    earlier.as_object_mut().unwrap().remove("deviations");
    assert!(json::parse_load_report(&earlier.to_string()).unwrap().deviations.is_empty());
}

/// The hub's own p99 is 10 ms, and every message is sent 2 ms late.
#[test]
fn generator_delay_is_reported_as_the_uncertainty_of_each_figure() {
    let run = SyntheticRun {
        delay: 2 * fixture::MS,
        thresholds: vec!["submit_job.response.p99 < 11ms"],
        ..SyntheticRun::default()
    };
    let report = run.report();
    let text = run.page();
    assert!(text.contains("ours up to                      2.00 ms  2.00 ms  2.0"), "{text}");
    let line = "  uncertain   submit_job.response.p99 < 11ms   observed: 12.0 ms (10.0 ms to 12.0 ms; up to 2.0";
    assert!(text.contains(line), "{text}");
    let document = json::build_document(&report);
    let uncertainty = |name: &str| document.times[name].uncertainty;
    let own = uncertainty("submit_job.response").unwrap();
    for (figure, name) in
        [(own.mean_ms, "mean"), (own.p50_ms, "p50"), (own.p99_ms.unwrap(), "p99"), (own.max_ms, "max")]
    {
        assert!((2.0..2.02).contains(&figure), "{name}: {figure}");
    }
    assert_eq!((uncertainty("submit_job.service"), uncertainty("submit_job.send_delay")), (None, None));
    let [threshold] = &document.thresholds[..] else { panic!("{text}") };
    assert!(threshold.uncertain && threshold.standing == ThresholdStanding::Broken);
    let range = threshold.range.unwrap();
    assert!(range.low < 10.02 && range.high.unwrap() > 12.0, "{range:?}");
    let p99 = document.times["submit_job.response"].ranges.p99_ms.unwrap();
    assert!(p99.low < 10.02 && p99.high.unwrap() > 12.0, "{p99:?}");
    assert!((2.0..2.02).contains(&threshold.uncertainty.unwrap()), "{:?}", threshold.uncertainty);
    assert!(junit::render(&run.results()).contains("type=\"uncertain\""));
}

#[test]
fn the_summary_of_a_run_without_problems_matches_the_snapshot() {
    insta::assert_snapshot!("calm", SyntheticRun::calm().page());
}

#[test]
fn the_summary_of_a_run_with_every_problem_matches_the_snapshot() {
    insta::assert_snapshot!("troubled", SyntheticRun::troubled().page());
}

#[test]
fn junit_has_a_test_case_per_threshold() {
    let xml = junit::render(&SyntheticRun::troubled().results());
    insta::assert_snapshot!("junit", xml);
}

#[test]
fn tap_and_annotations_agree_with_the_thresholds() {
    let results = SyntheticRun::troubled().results();
    insta::assert_snapshot!("tap", crate::report::tap::render(&results));
    insta::assert_snapshot!("github", crate::report::github::render(&results));
    let ctrf: Value = serde_json::from_str(&crate::report::ctrf::render(&results)).unwrap();
    let counts = ["tests", "passed", "failed", "other"].map(|name| ctrf["results"]["summary"][name].as_u64().unwrap());
    assert_eq!(counts, [6, 0, 3, 3]);
    assert_eq!(crate::report::github::render(&SyntheticRun::calm().results()), "");
}

#[rstest]
#[case(SyntheticRun::calm(), "2 thresholds hold", "brightgreen")]
#[case(SyntheticRun::troubled(), "3 of 5 thresholds broken (submit_job.response.p99 < 5ms and 2 more)", "red")]
fn a_badge_has_the_verdict_of_the_run(#[case] run: SyntheticRun, #[case] message: &str, #[case] color: &str) {
    let badge: Value = serde_json::from_str(&badge::render(&run.report())).unwrap();
    assert_eq!((badge["message"].as_str(), badge["color"].as_str()), (Some(message), Some(color)));
}

/// A threshold of a plan has a place; one of the command line has none.
#[test]
fn annotations_of_thresholds_point_into_the_plan() {
    let mut report = SyntheticRun::troubled().report();
    let mut sources = Sources::default();
    let plan = sources.add("load/queue.yaml", "title: x\nthresholds:\n  - ledger.lost == 0\n");
    let option = sources.add("--threshold", "ledger.lost == 0");
    report.thresholds[0].threshold.span = Some(Span::new(plan, 24..40));
    report.thresholds[1].threshold.span = Some(Span::new(option, 0..16));
    let results = TestResults::from_load(&report, &sources);
    let places: Vec<_> = results.cases().map(|(_, case)| case.place.clone()).collect();
    assert_eq!(places[..2], [Some(("load/queue.yaml".to_owned(), 3)), None]);
}

#[test]
fn the_live_line_of_an_interval_matches_the_snapshot() {
    let report = SyntheticRun::troubled().report();
    let lines: Vec<String> = [3, 12, 22]
        .map(|second: usize| live::interval_line(&report.layout, &report.intervals[second], &report.account))
        .to_vec();
    insta::assert_snapshot!("live", lines.join("\n"));
}

#[test]
fn the_intervals_of_a_csv_report_add_up_to_its_totals() {
    let report = SyntheticRun::calm().report();
    let table = csv::render(&report);
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    assert!(table.starts_with("from_s,to_s,phase,metric,value\r\n"));
    for line in ::csv::Reader::from_reader(table.as_bytes()).into_deserialize() {
        let (_, _, phase, metric, value): (f64, f64, String, String, f64) = line.unwrap();
        if phase != RunPhase::Warmup.name() {
            *sums.entry(metric).or_default() += value;
        }
    }
    assert_eq!(sums["submit_job.response.count"], 20_000.0);
    let sent = CounterId::Message(0, MessageCount::Sent);
    assert_eq!(sums["submit_job.sent"], report.total.measured(&report.layout, sent) as f64);
}

/// Read by the library's own reader, tag by tag, and merged.
#[test]
fn the_interval_log_contains_every_histogram() {
    let report = SyntheticRun::calm().report();
    let log = hlog::render(&report);
    let mut merged: BTreeMap<String, DenseHistogram> = BTreeMap::new();
    let mut starts = Vec::new();
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, interval.encoded_histogram());
        let histogram: DenseHistogram = Deserializer::new().deserialize(&mut &bytes.unwrap()[..]).unwrap();
        starts.push(interval.start_timestamp());
        // The warm-up is in the log, but in no total.
        if interval.start_timestamp().as_secs() >= 2 {
            let tag = interval.tag().unwrap().as_str().to_owned();
            merged.entry(tag).or_insert_with(new_dense_histogram).add(histogram).unwrap();
        }
    }
    assert!(starts.is_sorted());
    for (timing, name) in [
        (TimingId::Message(0, MessageTime::Response), "submit_job.response"),
        (TimingId::Message(0, MessageTime::SendDelay), "submit_job.send_delay"),
        (TimingId::Journey(0), "jobs.duration"),
    ] {
        assert_eq!(report.total.timing(&report.layout, timing), merged.get(name), "{name}");
    }
}

/// Read by a strict parser: contiguous families, types, escapes, buckets that increase up to the count.
#[test]
fn the_prometheus_exposition_is_well_formed() {
    let report = SyntheticRun::troubled().report();
    let text = prometheus::render(report.measurements(), &report.ends);
    let read =
        openmetrics_parser::prometheus::parse_prometheus(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let value = |family: &str, labels: &[(&str, &str)]| {
        let family = &read.families[family];
        let sample = family.iter_samples().find(|sample| {
            let known = sample.get_labelset().unwrap();
            labels.iter().all(|(name, value)| known.get_label_value(name) == Some(value))
        });
        sample.unwrap_or_else(|| panic!("{labels:?} in {text}")).value.clone()
    };
    assert_eq!(value("hubproof_ledger", &[("what", "lost")]), PrometheusValue::Gauge(MetricNumber::Int(220)));
    let sent = report.total.count(&report.layout, CounterId::Message(0, MessageCount::Sent));
    let labels = [("message", "submit_job"), ("what", "sent")];
    let PrometheusValue::Counter(counted) = value("hubproof_messages_total", &labels) else { panic!("{text}") };
    assert_eq!(counted.value.as_f64(), sent as f64);
    let labels = [("how", "closed"), ("code", "1011"), ("reason", "oops")];
    let PrometheusValue::Counter(ended) = value("hubproof_connections_ended_total", &labels) else { panic!("{text}") };
    assert_eq!(ended.value.as_f64(), 100.0);
    let labels = [("message", "submit_job"), ("label", "slow"), ("kind", "service")];
    assert!(matches!(value("hubproof_operation_seconds", &labels), PrometheusValue::Histogram(_)));
    let labels = [("message", "submit_job"), ("label", "fast"), ("what", "answered")];
    assert!(matches!(value("hubproof_operations_total", &labels), PrometheusValue::Counter(_)));
    let response = report.total.timing(&report.layout, TimingId::Message(0, MessageTime::Response)).unwrap();
    let labels = [("message", "submit_job"), ("kind", "response")];
    let PrometheusValue::Histogram(histogram) = value("hubproof_message_seconds", &labels) else { panic!("{text}") };
    assert_eq!(histogram.count, Some(response.len()));
    assert!(histogram.buckets.iter().map(|bucket| bucket.count.as_f64()).is_sorted());
    let within = histogram.buckets.iter().find(|bucket| bucket.upper_bound == 0.1).unwrap();
    assert_eq!(within.count.as_f64(), response.count_between(0, 100_000_000) as f64);
}

fn page_of(runs: &[&SyntheticRun]) -> Result<String, String> {
    let named = |(at, run): (usize, &&SyntheticRun)| NamedReport {
        name: format!("run{at}"),
        text: json::render(&run.report()),
    };
    let reports: Vec<NamedReport> = runs.iter().enumerate().map(named).collect();
    let options = CompareOptions { seed: 1, fail_on_regression: Some(0.03) };
    html::render(&reports, |a, b| compare(a, b, options).map_err(|error| error.to_string()))
        .map_err(|error| error.to_string())
}

fn plots_of(page: &str) -> Vec<Value> {
    let (_, rest) = page.split_once("id=\"plot-data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn the_page_of_a_run_plots_its_times_schedule_and_thresholds() {
    let run = SyntheticRun { thresholds: vec!["submit_job.response.p99 < 1ms"], faulty: true, ..SyntheticRun::calm() };
    let page = page_of(&[&run]).unwrap();
    let plots = plots_of(&page);
    let plot = |title: &str| plots.iter().find(|plot| plot["title"] == title).unwrap_or_else(|| panic!("{title}"));
    let labels = |plot: &Value| -> Vec<String> {
        plot["series"].as_array().unwrap().iter().map(|line| line["label"].as_str().unwrap().to_owned()).collect()
    };
    let over_time = plot("submit_job.response over time");
    assert_eq!(labels(over_time), ["median", "p99", "longest"]);
    assert_eq!(over_time["thresholds"][0]["value"], json!(1.0));
    assert_eq!(over_time["thresholds"][0]["broken"], json!(true));
    let phases: Vec<&str> =
        over_time["phases"].as_array().unwrap().iter().map(|phase| phase[2].as_str().unwrap()).collect();
    assert_eq!(phases, ["warmup", "measured", "drain"]);
    let journeys = plot("Journeys per second, and the schedule");
    assert!(labels(journeys).iter().any(|label| label.ends_with(" scheduled")), "{:?}", labels(journeys));
    let heat = plot("submit_job.response: how many samples took how long");
    let samples: u64 = heat["cells"].as_array().unwrap().iter().map(|cell| cell[2].as_u64().unwrap()).sum();
    let document = json::build_document(&run.report());
    let answered: u64 =
        document.intervals.iter().filter_map(|one| Some(one.times.get("submit_job.response")?.count)).sum();
    assert_eq!(samples, answered, "the heatmap has every sample");
    for words in
        ["How late the generator was", "Utilisation of the cores", "Histories of the first violations", "duplicated"]
    {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn the_page_of_two_runs_shows_regressions_with_their_confidence() {
    let slower = SyntheticRun { hub: fixture::MS / 4, ..SyntheticRun::calm() };
    let page = page_of(&[&SyntheticRun::calm(), &slower]).unwrap();
    assert!(page.contains("✗ regression") && page.contains("no difference shown"), "{page}");
    let plots = plots_of(&page);
    let percentiles = plots.iter().find(|plot| plot["title"] == "submit_job.response by percentile").unwrap();
    assert_eq!(percentiles["series"].as_array().unwrap().len(), 2);
    assert_eq!(page_of(&[&SyntheticRun::calm(); 3]).unwrap_err(), "3 load reports cannot be compared: pass one or two");
}

/// The dashboard in `examples/` shows every metric of the page, and only labels that the metrics have.
#[test]
fn the_grafana_dashboard_uses_the_names_of_the_prometheus_metrics() {
    let dashboard: Value = serde_json::from_str(include_str!("../../../examples/grafana/hubproof-load.json")).unwrap();
    let report = SyntheticRun::troubled().report();
    let text = prometheus::render(report.measurements(), &report.ends);
    let labels = regex::Regex::new(r#"([a-z]+)(?:=~|!=|=)""#).unwrap();
    let labels_in = |text: &str| labels.captures_iter(text).map(|found| found[1].to_owned()).collect::<BTreeSet<_>>();
    // Families with their labels.
    let mut known: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(line) => drop(known.insert(line.split(' ').next().unwrap(), BTreeSet::new())),
            None if line.starts_with('#') => {}
            None => {
                let family = line.split(['{', ' ']).next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end));
                known.get_mut(base.unwrap_or(family)).unwrap().extend(labels_in(line));
            }
        }
    }
    let metric = regex::Regex::new(r"(hubproof_[a-z_]+?)(?:_bucket)?\{([^}]*)\}").unwrap();
    let grouping = regex::Regex::new(r"by \(([^)]*)\)").unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array());
    let mut shown = BTreeSet::new();
    for target in targets.flatten() {
        let expression = target["expr"].as_str().unwrap();
        let found = metric.captures(expression).unwrap_or_else(|| panic!("{expression}"));
        let family = found.get(1).unwrap().as_str().to_owned();
        let mut used = labels_in(&found[2]);
        let groups = grouping.captures(expression).map(|groups| groups[1].to_owned()).unwrap_or_default();
        used.extend(groups.split(", ").filter(|name| !name.is_empty()).map(str::to_owned));
        // Prometheus adds this label to every series.
        used.remove("instance");
        let of_family = known.get(family.as_str()).unwrap_or_else(|| panic!("{family} of {expression}"));
        assert!(used.is_subset(of_family), "{expression}: {of_family:?}");
        shown.insert(family);
    }
    assert_eq!(shown, known.into_keys().map(str::to_owned).collect::<BTreeSet<_>>());
}
