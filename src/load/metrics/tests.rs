use hdrhistogram::Histogram;
use proptest::prelude::*;
use rstest::rstest;

use super::histogram::HistogramDecodeError;
use super::*;
use crate::load::ids::MessageId;
use crate::load::{Nanos, SECOND};

const MS: Nanos = 1_000_000;

fn layout() -> MetricRegistry {
    MetricRegistry::new(MetricSubjects {
        messages: vec!["submit".to_owned(), "claim".to_owned()],
        journeys: vec!["jobs".to_owned()],
        ..MetricSubjects::default()
    })
}

fn recorder(warmup: Nanos, duration: Option<Nanos>) -> MetricRecorder {
    MetricRecorder::new(layout(), RunPhases::new(SECOND, warmup, duration))
}

fn record_sent(recorder: &mut MetricRecorder, due: Nanos, ready: Nanos, at: Nanos) {
    recorder.record(Measurement::Sent { message: MessageId(0), due, ready }, at);
}

fn record_answer(recorder: &mut MetricRecorder, due: Nanos, delay: Nanos, at: Nanos) {
    recorder.record(Measurement::Answered { message: MessageId(0), due, delay }, at);
}

const RESPONSE: TimingId = TimingId::Message(0, MessageTime::Response);
const SENT: CounterId = CounterId::Message(0, MessageCount::Sent);

#[test]
fn every_timing_and_count_has_a_unique_index_and_name() {
    let layout = layout();
    for (place, timing) in layout.timings().into_iter().enumerate() {
        assert_eq!(layout.timing(timing), place, "{timing:?}");
    }
    for (place, count) in layout.counts().into_iter().enumerate() {
        assert_eq!(layout.count(count), place, "{count:?}");
    }
    let mut names: Vec<String> = layout.timings().into_iter().map(|timing| layout.timing_name(timing)).collect();
    names.extend(layout.counts().into_iter().map(|count| layout.count_name(count)));
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn a_threshold_can_name_every_registered_metric() {
    let layout = layout();
    let times = layout.timings().into_iter().map(|timing| format!("{}.p50", layout.timing_name(timing)));
    let counts = layout.counts().into_iter().map(|count| layout.count_name(count));
    let levels = Gauge::ALL.iter().map(|gauge| format!("levels.{}", gauge.name()));
    for name in times.chain(counts).chain(levels) {
        assert!(selector::Metric::parse(&name, &layout).is_ok(), "{name}");
    }
}

#[test]
fn intervals_end_on_time_and_empty_ones_are_included() {
    let mut recorder = recorder(0, None);
    record_sent(&mut recorder, 0, 0, 10);
    record_sent(&mut recorder, 2 * SECOND, 2 * SECOND, 3 * SECOND - 1);
    record_sent(&mut recorder, 3 * SECOND, 3 * SECOND, 3 * SECOND);
    let intervals = recorder.take_intervals(4 * SECOND);
    let ends: Vec<(Nanos, Nanos)> = intervals.iter().map(|interval| (interval.from, interval.to)).collect();
    assert_eq!(ends, (0..4).map(|n| (n * SECOND, (n + 1) * SECOND)).collect::<Vec<_>>());
    let sent: Vec<u64> = intervals.iter().map(|interval| interval.counts[layout().count(SENT)]).collect();
    assert_eq!(sent, [1, 0, 1, 1], "counted when it was sent");
    assert!(recorder.take_intervals(4 * SECOND).is_empty());
    let last = recorder.finish(4 * SECOND + 5);
    assert_eq!(
        last.iter().map(|interval| (interval.from, interval.to)).collect::<Vec<_>>(),
        [(4 * SECOND, 4 * SECOND + 5)]
    );
}

/// A sample belongs to the total if it was due in the measured time, 2 s to 4 s; it is answered 300 ms later.
#[rstest]
#[case::warmup(1_500 * MS, 0)]
#[case::answered_in_it_but_due_before(1_900 * MS, 0)]
#[case::first(2_000 * MS, 1)]
#[case::answered_in_the_drain(3_900 * MS, 1)]
#[case::drain(4_000 * MS, 0)]
fn the_total_includes_every_message_due_in_the_measured_time(#[case] due: Nanos, #[case] counted: u64) {
    let mut recorder = recorder(2 * SECOND, Some(2 * SECOND));
    record_answer(&mut recorder, due, 0, due + 300 * MS);
    let mut series = MetricSeries::new(layout(), 1);
    recorder.finish(6 * SECOND).into_iter().for_each(|interval| {
        series.add(interval);
    });
    assert_eq!(series.total().timing(&layout(), RESPONSE).map_or(0, |histogram| histogram.len()), counted);
    assert_eq!(series.total().time, 2 * SECOND);
    let phases: Vec<RunPhase> = series.intervals().iter().map(|interval| interval.phase).collect();
    assert_eq!(
        phases,
        [RunPhase::Warmup, RunPhase::Warmup, RunPhase::Measured, RunPhase::Measured, RunPhase::Drain, RunPhase::Drain]
    );
}

#[test]
fn an_interruption_ends_the_measured_time_with_its_last_whole_interval() {
    let mut recorder = recorder(0, Some(60 * SECOND));
    for n in 0..25 {
        record_sent(&mut recorder, n * 100 * MS, n * 100 * MS, n * 100 * MS);
    }
    recorder.drain_from(2_500 * MS);
    record_answer(&mut recorder, 2_400 * MS, 0, 3_000 * MS);
    let mut series = MetricSeries::new(layout(), 1);
    recorder.finish(4 * SECOND).into_iter().for_each(|interval| {
        series.add(interval);
    });
    assert_eq!(series.total().time, 2 * SECOND);
    assert_eq!(series.total().rate(&layout(), SENT), 10.0);
    assert_eq!(series.total().count(&layout(), SENT), 25);
    assert_eq!(series.total().timing(&layout(), RESPONSE).map(|histogram| histogram.len()), Some(1));
}

/// A client that was busy until a second after the message was due waited for the hub; then the generator took 2 ms.
#[test]
fn the_wait_of_a_busy_client_is_not_the_delay_of_the_generator() {
    let mut recorder = recorder(0, None);
    record_sent(&mut recorder, 100 * MS, 1_100 * MS, 1_102 * MS);
    record_answer(&mut recorder, 100 * MS, 2 * MS, 1_110 * MS);
    let mut series = MetricSeries::new(layout(), 1);
    recorder.finish(2 * SECOND).into_iter().for_each(|interval| {
        series.add(interval);
    });
    let milliseconds = |time| {
        let histogram = series.total().timing(&layout(), TimingId::Message(0, time)).unwrap();
        (histogram.max() as f64 / 1e6).round()
    };
    let times = [MessageTime::Response, MessageTime::Service, MessageTime::SendDelay];
    assert_eq!(times.map(milliseconds), [1_010.0, 1_008.0, 2.0]);
}

/// A message every 10 ms. The hub answers after `first` in the first two seconds, and after 5 ms from then on.
#[rstest]
#[case::cold(50 * MS, 0, false)]
#[case::cold_at_first(50 * MS, 3, true)]
#[case::warm(5 * MS, 0, true)]
#[case::a_little_cold(5 * MS + MS / 4, 0, true)]
fn a_hub_has_warmed_up_when_successive_windows_agree(
    #[case] first: Nanos,
    #[case] from: usize,
    #[case] expected: bool,
) {
    let mut recorder = recorder(0, None);
    for n in 0..600 {
        let due = n * 10 * MS;
        record_sent(&mut recorder, due, due, due);
        record_answer(&mut recorder, due, 0, due + if n < 200 { first } else { 5 * MS });
    }
    let mut series = MetricSeries::new(layout(), 1);
    recorder.finish(6 * SECOND).into_iter().for_each(|interval| {
        series.add(interval);
    });
    let windows = &series.intervals()[from..from + 3];
    assert_eq!(is_steady(&layout(), windows), expected);
    assert!(!is_steady(&layout(), &windows[..2]), "too few windows");
}

/// Throughput that still grows is not steady, whatever the response times are.
#[rstest]
#[case::grows(&[50, 80, 100], false)]
#[case::steady(&[100, 98, 103], true)]
#[case::within_chance(&[10, 16, 12], true)]
#[case::stalls(&[100, 0, 100], false)]
#[case::idle(&[0, 0, 0], true)]
fn throughput_must_be_steady_as_well(#[case] counts: &[u64], #[case] expected: bool) {
    let mut recorder = recorder(0, None);
    for (second, count) in counts.iter().enumerate() {
        for n in 0..*count {
            let due = second as u64 * SECOND + n * MS;
            record_sent(&mut recorder, due, due, due);
            record_answer(&mut recorder, due, 0, due + MS / 2);
        }
    }
    let mut series = MetricSeries::new(layout(), 1);
    recorder.finish(3 * SECOND).into_iter().for_each(|interval| {
        series.add(interval);
    });
    assert_eq!(is_steady(&layout(), series.intervals()), expected);
}

#[test]
fn times_above_the_upper_bound_are_counted_as_clamped() {
    let mut recorder = recorder(0, None);
    record_answer(&mut recorder, 0, 10, HIGHEST_TIME + SECOND);
    let mut series = MetricSeries::new(layout(), 1);
    recorder.finish(HIGHEST_TIME + 2 * SECOND).into_iter().for_each(|interval| {
        series.add(interval);
    });
    assert_eq!(series.total().count(&layout(), CounterId::Run(GeneratorCount::Clamped)), 2, "response and service");
    let response = series.total().timing(&layout(), RESPONSE).unwrap();
    assert!(response.equivalent(response.max(), HIGHEST_TIME));
}

#[test]
fn a_gauge_keeps_its_value_until_it_is_set_again_and_shards_add_up() {
    let shard = |levels: &[(Nanos, u64)]| {
        let mut recorder = recorder(0, None);
        levels.iter().for_each(|(at, level)| recorder.gauge(Gauge::Connections, *level, *at));
        recorder.core(0, 0.5, 1_500 * MS);
        recorder.take_intervals(2 * SECOND)
    };
    let mut series = MetricSeries::new(layout(), 2);
    for interval in shard(&[(0, 5), (1, 3)]).into_iter().chain(shard(&[(SECOND, 10)])) {
        series.add(interval);
    }
    let levels: Vec<GaugeLevel> =
        series.intervals().iter().map(|interval| interval.gauges[Gauge::Connections as usize]).collect();
    assert_eq!(levels, [GaugeLevel { last: 3, highest: 5 }, GaugeLevel { last: 13, highest: 13 }]);
    assert_eq!(series.intervals()[1].cores, [CoreUtilisation { core: 0, busy: 0.5 }]);
}

#[test]
fn an_interval_is_complete_when_every_shard_has_reported_it() {
    let mut series = MetricSeries::new(layout(), 2);
    let (mut one, mut other) = (recorder(0, None), recorder(0, None));
    let ahead = one.take_intervals(3 * SECOND);
    assert!(ahead.into_iter().all(|interval| series.add(interval).is_none()));
    let behind: Vec<bool> = other.take_intervals(2 * SECOND).into_iter().map(|i| series.add(i).is_some()).collect();
    assert_eq!(behind, [true, true]);
    while series.finish_next().is_some() {}
    assert_eq!(series.intervals().len(), 3, "the series does not wait for a shard that has died");
}

#[test]
fn a_long_run_has_longer_intervals_but_the_same_total() {
    let mut recorder = recorder(SECOND, None);
    let seconds = 3 * MAX_INTERVALS as u64;
    let mut series = MetricSeries::new(layout(), 1);
    for second in 0..seconds {
        let at = second * SECOND;
        if second % 10 == 1 {
            record_answer(&mut recorder, at, 0, at + (second % 7) * MS);
        }
        recorder.take_intervals(at + SECOND).into_iter().for_each(|interval| {
            series.add(interval);
        });
    }
    assert!(series.intervals().len() <= MAX_INTERVALS);
    let covered: Nanos = series.intervals().iter().map(|interval| interval.to - interval.from).sum();
    assert_eq!(covered, seconds * SECOND);
    let index = layout().timing(RESPONSE);
    let mut merged = new_dense_histogram::<u64>();
    for histogram in series.intervals()[1..].iter().filter_map(|interval| interval.timings[index].histogram()) {
        merged.add(histogram).unwrap();
    }
    assert_eq!(merged.len(), seconds / 10);
    assert_eq!(Some(&merged), series.total().timing(&layout(), RESPONSE));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// The merged intervals of all shards are the histogram of all samples: its percentiles equal those of the samples
    /// to within one step of the histogram.
    #[test]
    fn histogram_percentiles_match_the_samples(
        samples in prop::collection::vec((0..3_000u64, prop_oneof![0..3 * SECOND, 0..20 * MS], 0..2usize), 1..300),
        quantile in 0.0..=1.0f64,
    ) {
        let mut shards: Vec<MetricRecorder> = (0..2).map(|_| recorder(0, None)).collect();
        let mut by_end = samples.clone();
        by_end.sort_by_key(|(due, took, _)| due * MS + took);
        for (due, took, shard) in by_end {
            record_answer(&mut shards[shard], due * MS, due * MS, due * MS + took);
        }
        let mut series = MetricSeries::new(layout(), 2);
        let end = 7 * SECOND;
        for interval in shards.into_iter().flat_map(|shard| shard.finish(end)) {
            series.add(interval);
        }
        let total = series.total().timing(&layout(), RESPONSE).unwrap();
        let mut sorted: Vec<Nanos> = samples.iter().map(|(_, took, _)| *took).collect();
        sorted.sort_unstable();
        let rank = ((quantile * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
        prop_assert_eq!(total.len(), samples.len() as u64);
        prop_assert_eq!(total.value_at_quantile(quantile), total.highest_equivalent(sorted[rank - 1]));
        let step = total.equivalent_range(sorted[rank - 1]);
        prop_assert!(step <= 512 || step * 1_000 <= sorted[rank - 1], "a step of {} at {}", step, sorted[rank - 1]);
    }

    #[test]
    fn bytes_that_are_not_an_encoded_histogram_are_rejected(bytes in prop::collection::vec(any::<u8>(), 1..200), flip in 0usize..200) {
        prop_assert!(CompactHistogram::decode(&bytes).is_err());
        let mut one = new_dense_histogram::<u64>();
        one.record_n(5 * MS, 7).unwrap();
        one.record_n(9 * MS, 3).unwrap();
        let mut spoilt = CompactHistogram::new(&one).bytes().to_vec();
        let at = flip % spoilt.len();
        spoilt[at] ^= 0x55;
        // Whatever the bytes encode now, decoding returns, and a decoded histogram is usable.
        if let Ok(read) = CompactHistogram::decode(&spoilt) {
            read.histogram().map(|histogram| histogram.max());
        }
    }
}

#[test]
fn a_histogram_with_other_bounds_is_refused_before_its_counts_are_read() {
    let mut other = Histogram::<u64>::new_with_bounds(1, u64::MAX / 2, 5).unwrap();
    other.record(3).unwrap();
    assert_eq!(CompactHistogram::decode(CompactHistogram::new(&other).bytes()), Err(HistogramDecodeError::Bounds));
}
