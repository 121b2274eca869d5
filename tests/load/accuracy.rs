//! Load reports against known truth: simulated servers in virtual time that stall or have service times of a known
//! distribution. Counts must be exact, times exact to the histogram's resolution.

use std::time::Duration;

use hubproof::load::ids::MessageId;
use hubproof::load::ledger::LedgerTotals;
use hubproof::load::metrics::selector::RunMeasurements;
use hubproof::load::metrics::{
    Measurement, MetricRecorder, MetricRegistry, MetricSeries, MetricSubjects, RunPhases, new_dense_histogram,
};
use hubproof::load::report::{LoadReport, LoadRunMetadata, json};
use hubproof::load::validity::{RunCircumstances, RunValidity, judge_run};
use hubproof::load::{Nanos, SECOND};
use rstest::rstest;
use serde_json::Value;

const MS: Nanos = 1_000_000;
/// A message every millisecond: 2 s of warm-up, 20 s measured.
const MESSAGES: u64 = 22_000;
const WARMUP: Nanos = 2 * SECOND;
const MEASURED: Nanos = 20 * SECOND;

/// The true times of one message.
#[derive(Clone, Copy)]
struct TrueTimes {
    due: Nanos,
    sent: Nanos,
    answered: Nanos,
}

fn layout() -> MetricRegistry {
    MetricRegistry::new(MetricSubjects { messages: vec!["ask".to_owned()], ..MetricSubjects::default() })
}

/// The report of a generator with two shards.
fn report_of(truths: &[TrueTimes]) -> LoadReport {
    report_with_utilisation(truths, 0.1)
}

/// The report of a generator whose cores have this utilisation.
fn report_with_utilisation(truths: &[TrueTimes], busy: f64) -> LoadReport {
    let mut series = MetricSeries::new(layout(), 2);
    let mut shards = Vec::new();
    for shard in 0..2 {
        let mut recorder = MetricRecorder::new(layout(), RunPhases::new(SECOND, WARMUP, Some(MEASURED)));
        let mut events: Vec<(Nanos, bool, TrueTimes)> = Vec::new();
        for truth in truths.iter().skip(shard).step_by(2) {
            events.extend([(truth.sent, false, *truth), (truth.answered, true, *truth)]);
        }
        events.sort_by_key(|(at, ..)| *at);
        let mut figures = 0;
        for (at, answered, truth) in events {
            if at / SECOND > figures {
                figures = at / SECOND;
                recorder.core(shard, busy, at);
            }
            if answered {
                let (message, due) = (MessageId(0), truth.due);
                recorder.record(Measurement::Answered { message, due, delay: truth.sent - due }, at);
            } else {
                let (message, due) = (MessageId(0), truth.due);
                recorder.record(Measurement::Sent { message, due, ready: due }, at);
            }
        }
        shards.push(recorder.finish(40 * SECOND));
    }
    shards.into_iter().flatten().for_each(|interval| {
        series.add(interval);
    });
    let account = LedgerTotals::default();
    let state = RunMeasurements {
        layout: &series.layout,
        total: series.total(),
        account: &account,
        intervals: series.intervals(),
        validated: None,
        changing_load: false,
    };
    let judgement = judge_run(state, &[], RunCircumstances::default());
    let about = LoadRunMetadata { duration: Duration::from_secs(40), ..LoadRunMetadata::default() };
    LoadReport::new(about, series, account, Vec::new(), judgement)
}

/// Compares all figures of a JSON report with the sorted times.
fn assert_exact(report: &Value, timing: &str, truths: &[TrueTimes], time: impl Fn(&TrueTimes) -> Nanos) {
    let measured = truths.iter().filter(|truth| (WARMUP..WARMUP + MEASURED).contains(&truth.due));
    let mut times: Vec<Nanos> = measured.map(time).collect();
    times.sort_unstable();
    let step = new_dense_histogram::<u64>();
    let figures = &report["times"][timing];
    assert_eq!(figures["count"], times.len(), "{timing}");
    for (figure, quantile) in
        [("p50_ms", 0.5), ("p90_ms", 0.9), ("p95_ms", 0.95), ("p99_ms", 0.99), ("p999_ms", 0.999), ("max_ms", 1.0)]
    {
        let rank = ((quantile * times.len() as f64).ceil() as usize).max(1);
        let exact = step.highest_equivalent(times[rank - 1]);
        assert_eq!(figures[figure].as_f64(), Some(exact as f64 / 1e6), "{timing}, {figure}");
        let width = step.equivalent_range(times[rank - 1]);
        assert!(width <= 512 || width * 1_000 <= times[rank - 1], "{width} at {}", times[rank - 1]);
    }
}

/// One connection that waits for each answer, and a server that stalls for half a second at 10 s.
fn sequential_requests(service: impl Fn(u64) -> Nanos) -> Vec<TrueTimes> {
    let stall = 10 * SECOND..10 * SECOND + 500 * MS;
    let mut free = 0;
    let truths = (0..MESSAGES).map(|n| {
        let due = n * MS;
        let sent = due.max(free);
        let begun = if stall.contains(&sent) { stall.end } else { sent };
        free = begun + service(n);
        TrueTimes { due, sent, answered: free }
    });
    truths.collect()
}

/// A stall counts in the response time of every message due while it lasted (no coordinated omission), though the
/// server itself answered only one message late.
#[test]
fn a_stall_lengthens_the_response_of_every_message_due_in_it() {
    let truths = sequential_requests(|n| MS / 4 + (n % 7) * MS / 50);
    let report: Value = serde_json::from_str(&json::render(&report_of(&truths))).unwrap();
    assert_exact(&report, "ask.response", &truths, |truth| truth.answered - truth.due);
    assert_exact(&report, "ask.service", &truths, |truth| truth.answered - truth.sent);
    assert_exact(&report, "ask.send_delay", &truths, |truth| truth.sent - truth.due);
    let p99 = |timing: &str| report["times"][timing]["p99_ms"].as_f64().unwrap();
    assert!(p99("ask.response") > 300.0, "the response time includes the stall");
    assert!(p99("ask.service") < 0.5, "the service time of a closed loop does not");
    assert_eq!(report["validity"]["reasons"][0]["code"], "send-delay", "the generator reports its own delay");
}

/// Exponentially distributed times with a mean of 5 ms, evenly drawn: the percentiles match the distribution.
#[test]
fn measured_percentiles_match_the_known_distribution() {
    let golden = 0.618_033_988_749_895;
    let truths: Vec<TrueTimes> = (0..MESSAGES)
        .map(|n| {
            let share = (n as f64 * golden).fract();
            let took = (-(1.0 - share).ln() * 5e6) as Nanos;
            TrueTimes { due: n * MS, sent: n * MS, answered: n * MS + took }
        })
        .collect();
    let report = report_of(&truths);
    assert_eq!(report.validity(), RunValidity::Valid, "{:?}", report.judgement.reasons);
    let report: Value = serde_json::from_str(&json::render(&report)).unwrap();
    assert_exact(&report, "ask.response", &truths, |truth| truth.answered - truth.due);
    for (figure, quantile) in [("p50_ms", 0.5f64), ("p90_ms", 0.9), ("p99_ms", 0.99)] {
        let expected = -(1.0 - quantile).ln() * 5.0;
        let figures = report["times"]["ask.response"][figure].as_f64().unwrap();
        assert!((figures - expected).abs() < expected * 0.01, "{figure}: {figures}, and not {expected}");
    }
    assert_eq!(report["counts"]["ask.sent"]["per_second"], 1_000.0);
}

/// A fast hub on a busy machine: one message in fifty is sent 82 µs late, compared with a response of 231 µs. The
/// report states that, and the run stays valid.
#[test]
fn a_slightly_late_generator_reports_its_own_delay() {
    let late = |n: u64| if n.is_multiple_of(50) { 82_000 } else { 5_000 };
    let truth = |n: u64| TrueTimes { due: n * MS, sent: n * MS + late(n), answered: n * MS + late(n) + 231_000 };
    let truths: Vec<TrueTimes> = (0..MESSAGES).map(truth).collect();
    let report = report_of(&truths);
    assert_eq!(report.validity(), RunValidity::Valid, "{:?}", report.judgement.reasons);
    let report: Value = serde_json::from_str(&json::render(&report)).unwrap();
    assert_exact(&report, "ask.response", &truths, |truth| truth.answered - truth.due);
    let (times, service) = (&report["times"]["ask.response"], &report["times"]["ask.service"]);
    for (figure, own) in [("p50_ms", 0.005), ("p99_ms", 0.082), ("max_ms", 0.082)] {
        let stated = times["uncertainty"][figure].as_f64().unwrap();
        assert!((stated - own).abs() < 0.001, "{figure}: {stated}");
        let (response, hub) = (times[figure].as_f64().unwrap(), service[figure].as_f64().unwrap());
        assert!((response - stated..=response).contains(&hub), "{figure}: {response} - {stated}, and {hub}");
    }
}

/// A generator that needs this long per message, while one is due every millisecond, and a hub that needs two
/// milliseconds.
#[rstest]
#[case::at_ease(MS / 3, RunValidity::Valid, &[])]
#[case::with_no_time_to_spare(MS * 97 / 100, RunValidity::Valid, &["core"])]
#[case::overloaded(MS * 12 / 10, RunValidity::Invalid, &["send-delay", "core", "trend"])]
fn an_overloaded_generator_reports_its_overload(
    #[case] cost: Nanos,
    #[case] validity: RunValidity,
    #[case] codes: &[&str],
) {
    let mut free = 0;
    let truths: Vec<TrueTimes> = (0..MESSAGES)
        .map(|n| {
            let due = n * MS;
            let sent = due.max(free);
            free = sent + cost;
            TrueTimes { due, sent, answered: sent + 2 * MS }
        })
        .collect();
    let report = report_with_utilisation(&truths, (cost as f64 / MS as f64).min(1.0));
    assert_eq!(report.validity(), validity, "{:?}", report.judgement);
    let reasons = report.judgement.reasons.iter().map(|reason| reason.code.name());
    let mut found: Vec<&str> = reasons.chain(report.judgement.notes.iter().map(|note| note.code.name())).collect();
    found.dedup();
    assert_eq!(found, codes);
}
