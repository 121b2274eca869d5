//! Whether the numbers of a run can be trusted. A generator that sent late, ran out of CPU or was cut short measures
//! itself instead of the hub; [`judge_run`] lists the reasons to suspect that.

use super::format::{format_grouped, format_nanos, format_percent};
use super::ledger::LedgerTotals;
use super::metrics::selector::{RunMeasurements, Statistic, is_sample_sufficient, own_delay};
use super::metrics::{
    CounterId, DenseHistogram, Gauge, GeneratorCount, LoadErrorKind, MessageCount, MessageTime, MetricInterval,
    MetricRegistry, MetricTotals, RunPhase, TimingId,
};
use serde::{Deserialize, Serialize};

use super::opening::HopelessRole;
use super::plan::threshold::{ThresholdOutcome, ThresholdStanding};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RunValidity {
    /// The numbers describe the hub.
    Valid,
    /// The numbers may describe the generator instead of the hub.
    Suspect,
    /// The numbers must not be used.
    Invalid,
}

impl RunValidity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Suspect => "suspect",
            Self::Invalid => "invalid",
        }
    }
}

/// A reason why a run is suspect or invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidityReason {
    /// A stable code for this kind of reason, such as `send-delay`.
    pub code: &'static str,
    pub validity: RunValidity,
    /// One sentence for the reader of the report.
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidityJudgement {
    pub reasons: Vec<ValidityReason>,
}

impl ValidityJudgement {
    pub fn validity(&self) -> RunValidity {
        self.reasons.iter().map(|reason| reason.validity).max().unwrap_or(RunValidity::Valid)
    }

    fn add(&mut self, validity: RunValidity, code: &'static str, text: String) {
        self.reasons.push(ValidityReason { code, validity, text });
    }
}

/// Facts that the judgement needs in addition to the measurements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunCircumstances {
    /// Whether the plan changes its load on purpose (stages, spikes); if so, response times are not tested for a trend.
    pub changing_load: bool,
    /// Journeys that were still running when the drain ended.
    pub undrained: u64,
    /// Clients that had not joined when the measured time began.
    pub unjoined: u64,
    /// The roles that ended the run before it began, because none of their clients joined.
    pub hopeless: Vec<HopelessRole>,
    /// Examples of clients that failed to join: what they waited for, and what happened.
    pub failed_openings: Vec<String>,
}

/// If the generator's own delay is a larger share of a p99 response time, that figure says nothing about the hub. A
/// smaller share is an uncertainty of the figure and makes a run suspect only if it decides a threshold.
const MAX_OWN_DELAY_SHARE: f64 = 0.5;
/// A core busier than this in more than a tenth of the measured intervals makes a run suspect.
const BUSY_CORE: f64 = 0.9;
const MAX_BUSY_INTERVALS: f64 = 0.1;
/// If the generator's own errors exceed this share of the sent messages, the run is invalid.
const MAX_OWN_ERRORS: f64 = 0.01;

/// Judges a run by its own measurements.
pub fn judge_run(
    state: RunMeasurements<'_>,
    outcomes: &[ThresholdOutcome],
    circumstances: RunCircumstances,
) -> ValidityJudgement {
    let mut judgement = ValidityJudgement::default();
    let RunMeasurements { layout, total, account, intervals } = state;
    judge_measured_time(&mut judgement, state);
    judge_send_delays(&mut judgement, layout, total, outcomes);
    judge_cores(&mut judgement, intervals);
    judge_lateness(&mut judgement, layout, total);
    judge_joining(&mut judgement, &circumstances);
    judge_sample_counts(&mut judgement, outcomes);
    if !circumstances.changing_load {
        judge_stationarity(&mut judgement, layout, intervals);
    }
    judge_backlog(&mut judgement, account, intervals, circumstances.undrained);
    judge_own_errors(&mut judgement, layout, total);
    judge_ledger(&mut judgement, account);
    judgement
}

fn sent_messages(layout: &MetricRegistry, total: &MetricTotals) -> u64 {
    let messages = 0..layout.names.messages.len();
    messages.map(|message| total.count(layout, CounterId::Message(message, MessageCount::Sent))).sum()
}

fn judge_measured_time(judgement: &mut ValidityJudgement, state: RunMeasurements<'_>) {
    if state.total.time == 0 {
        judgement.add(
            RunValidity::Invalid,
            "unmeasured",
            "the run ended before a whole interval was measured".to_owned(),
        );
    } else if state.is_idle() {
        // Clients that only stay connected send nothing.
        judgement.add(RunValidity::Invalid, "unmeasured", "no message was sent and no client was connected".to_owned());
    }
}

fn judge_send_delays(
    judgement: &mut ValidityJudgement,
    layout: &MetricRegistry,
    total: &MetricTotals,
    outcomes: &[ThresholdOutcome],
) {
    for (message, name) in layout.names.messages.iter().enumerate() {
        let timing = |kind| total.timing(layout, TimingId::Message(message, kind));
        let (Some(delay), Some(response)) = (timing(MessageTime::SendDelay), timing(MessageTime::Response)) else {
            continue;
        };
        // With fewer samples, a p99 is one outlier.
        if !is_sample_sufficient(delay.len(), 0.9) || !is_sample_sufficient(response.len(), 0.9) {
            continue;
        }
        let p99 = Statistic::Quantile(0.99);
        let own = own_delay(layout, total, TimingId::Message(message, MessageTime::Response), p99).unwrap_or_default();
        let response = p99.value(response);
        let share = own / response.max(1.0);
        if share > MAX_OWN_DELAY_SHARE {
            let text = format!(
                "{name}: up to {} of the p99 response time of {} ({}) is the generator's own delay, so this figure says nothing about the hub",
                format_nanos(own),
                format_nanos(response),
                format_percent(share)
            );
            judgement.add(RunValidity::Invalid, "send-delay", text);
        }
    }
    for outcome in outcomes.iter().filter(|outcome| outcome.uncertain) {
        let otherwise = if outcome.standing == ThresholdStanding::Holds { "not hold" } else { "hold" };
        let text = format!(
            "`{}`: observed {}; without the generator's own delay it might {otherwise}",
            outcome.threshold.text,
            outcome.format_observed_with_uncertainty()
        );
        judgement.add(RunValidity::Suspect, "send-delay", text);
    }
}

fn judge_cores(judgement: &mut ValidityJudgement, intervals: &[MetricInterval]) {
    let measured: Vec<&MetricInterval> =
        intervals.iter().filter(|interval| interval.phase == RunPhase::Measured).collect();
    let mut known: Vec<usize> = measured.iter().flat_map(|interval| &interval.cores).map(|core| core.core).collect();
    known.sort_unstable();
    known.dedup();
    for core in known {
        let shares = measured.iter().flat_map(|interval| &interval.cores).filter(|share| share.core == core);
        let busy: Vec<f64> = shares.map(|core| core.busy).collect();
        let over = busy.iter().filter(|busy| **busy > BUSY_CORE).count();
        if over as f64 > busy.len() as f64 * MAX_BUSY_INTERVALS {
            let highest = busy.iter().copied().fold(0.0, f64::max);
            let text = format!(
                "core {core} was over {} busy in {over} of {} intervals (peak {}): the run may measure the generator, not the hub",
                format_percent(BUSY_CORE),
                busy.len(),
                format_percent(highest)
            );
            judgement.add(RunValidity::Suspect, "core", text);
        }
    }
}

fn judge_lateness(judgement: &mut ValidityJudgement, layout: &MetricRegistry, total: &MetricTotals) {
    let counts = [
        (
            GeneratorCount::Missed,
            "missed-ticks",
            "scheduled arrivals or ticks were skipped because the generator fell behind",
        ),
        (GeneratorCount::NoClient, "no-client", "arrivals found no free client, so the load was lower than planned"),
        (GeneratorCount::Clamped, "clamped", "times exceeded the upper bound of the histograms"),
    ];
    for (count, code, text) in counts {
        let number = total.count(layout, CounterId::Run(count));
        if number > 0 {
            judgement.add(RunValidity::Suspect, code, format!("{} {text}", format_grouped(number)));
        }
    }
}

fn judge_joining(judgement: &mut ValidityJudgement, circumstances: &RunCircumstances) {
    let RunCircumstances { unjoined, hopeless, failed_openings, .. } = circumstances;
    if *unjoined == 0 {
        return;
    }
    for HopelessRole { name, failed, population } in hopeless {
        let text =
            format!("the run ended because no client of {name} joined; {failed} of {population} tried and failed");
        judgement.add(RunValidity::Invalid, "unjoined", text);
    }
    let validity = if hopeless.is_empty() { RunValidity::Suspect } else { RunValidity::Invalid };
    if hopeless.is_empty() {
        let text = format!("{} clients had not joined when the measured time began", format_grouped(*unjoined));
        judgement.add(validity, "unjoined", text);
    }
    for text in failed_openings {
        judgement.add(validity, "unjoined", text.clone());
    }
}

fn judge_sample_counts(judgement: &mut ValidityJudgement, outcomes: &[ThresholdOutcome]) {
    for outcome in outcomes.iter().filter(|outcome| outcome.has_too_few_samples() && outcome.observed.is_some()) {
        let text = format!("`{}` has fewer than ten samples beyond its percentile", outcome.threshold.text);
        judgement.add(RunValidity::Suspect, "samples", text);
    }
}

/// Intervals needed for a trend test, and samples needed in each of them.
const MIN_TREND_INTERVALS: usize = 10;
const MIN_INTERVAL_SAMPLES: u64 = 10;
/// The test compares every pair of intervals; if there are more intervals than this, it takes every second, third and
/// so on.
const MAX_COMPARED: usize = 300;
/// A trend counts when its Mann-Kendall statistic exceeds this many standard deviations, and when its size over the
/// measured time exceeds this share of the median.
const MIN_TREND_DEVIATIONS: f64 = 3.0;
const MIN_TREND_SIZE: f64 = 0.25;

/// Applies the Mann-Kendall trend test to the median response of the intervals, together with the size of Sen's slope:
/// with many intervals the test alone finds trends too small to matter, and neighbouring intervals are not independent.
fn judge_stationarity(judgement: &mut ValidityJudgement, layout: &MetricRegistry, intervals: &[MetricInterval]) {
    let measured: Vec<&MetricInterval> =
        intervals.iter().filter(|interval| interval.phase == RunPhase::Measured).collect();
    for (message, name) in layout.names.messages.iter().enumerate() {
        let place = layout.timing(TimingId::Message(message, MessageTime::Response));
        let histograms = measured.iter().filter_map(|interval| interval.timings[place].histogram());
        let medians: Vec<f64> = histograms
            .filter(|histogram: &DenseHistogram| histogram.len() >= MIN_INTERVAL_SAMPLES)
            .map(|histogram| histogram.value_at_quantile(0.5) as f64)
            .collect();
        let medians: Vec<f64> = medians.iter().step_by(medians.len().div_ceil(MAX_COMPARED).max(1)).copied().collect();
        if let Some(change) = significant_trend(&medians) {
            let text = format!(
                "the median response time of {name} went {} by {} over the measured time (Mann-Kendall over {} intervals, z above {MIN_TREND_DEVIATIONS:.0}), so it was not stationary",
                if change > 0.0 { "up" } else { "down" },
                format_percent(change.abs()),
                medians.len()
            );
            judgement.add(RunValidity::Suspect, "trend", text);
        }
    }
}

/// Returns the change of a series from beginning to end, as a share of its median, if it is significant and large
/// enough.
pub fn significant_trend(series: &[f64]) -> Option<f64> {
    let n = series.len();
    if n < MIN_TREND_INTERVALS {
        return None;
    }
    let pairs = || (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    let s: f64 = pairs().map(|(i, j)| (series[j] - series[i]).partial_cmp(&0.0).map_or(0, |o| o as i32) as f64).sum();
    let mut sorted = series.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Ties reduce the variance of the statistic.
    let ties: f64 = sorted.chunk_by(|a, b| a == b).map(|tied| tied.len() as f64).map(kendall_variance_term).sum();
    let deviation = ((kendall_variance_term(n as f64) - ties) / 18.0).sqrt();
    if deviation == 0.0 || (s.abs() - 1.0) / deviation < MIN_TREND_DEVIATIONS {
        return None;
    }
    let mut slopes: Vec<f64> = pairs().map(|(i, j)| (series[j] - series[i]) / (j - i) as f64).collect();
    slopes.sort_by(f64::total_cmp);
    let change = slopes[slopes.len() / 2] * (n - 1) as f64 / sorted[n / 2].max(f64::MIN_POSITIVE);
    (change.abs() > MIN_TREND_SIZE).then_some(change)
}

fn kendall_variance_term(n: f64) -> f64 {
    n * (n - 1.0) * (2.0 * n + 5.0)
}

/// Up to this many unread bytes are not a backlog: they have just arrived, or belong to close frames.
const MAX_UNREAD_BYTES: u64 = 64 << 10;

fn judge_backlog(
    judgement: &mut ValidityJudgement,
    account: &LedgerTotals,
    intervals: &[MetricInterval],
    undrained: u64,
) {
    let last = |gauge: Gauge| intervals.last().map_or(0, |interval| interval.gauges[gauge as usize].last);
    let unread = last(Gauge::Unread);
    let counts = [
        (
            account.unfinished,
            "items were unfinished when the run ended: the hub was still completing others, or a worker still had them",
        ),
        (undrained, "journeys were unfinished at the end of the drain"),
        (if unread > MAX_UNREAD_BYTES { unread } else { 0 }, "bytes had arrived but were unread when the run ended"),
    ];
    for (number, text) in counts.iter().filter(|(number, _)| *number > 0) {
        judgement.add(RunValidity::Suspect, "backlog", format!("{} {text}", format_grouped(*number)));
    }
}

fn judge_own_errors(judgement: &mut ValidityJudgement, layout: &MetricRegistry, total: &MetricTotals) {
    let all = sent_messages(layout, total).max(1);
    for kind in LoadErrorKind::ALL.iter().filter(|kind| kind.is_generator_error()) {
        let number = total.count(layout, CounterId::Error(*kind));
        if number == 0 {
            continue;
        }
        let many = number as f64 > all as f64 * MAX_OWN_ERRORS;
        let text = match kind {
            LoadErrorKind::Resources => "times the generator's machine ran out of file descriptors, ports or memory",
            _ => "internal errors of the generator",
        };
        let validity = if many { RunValidity::Invalid } else { RunValidity::Suspect };
        judgement.add(validity, "own-errors", format!("{} {text}", format_grouped(number)));
    }
}

fn judge_ledger(judgement: &mut ValidityJudgement, account: &LedgerTotals) {
    let counts = [
        (account.late, "ledger entries arrived too late to be processed in order"),
        (account.unfollowed, "ledger entries were dropped because the ledger was full"),
    ];
    for (number, text) in counts.iter().filter(|(number, _)| *number > 0) {
        judgement.add(RunValidity::Suspect, "ledger", format!("{} {text}", format_grouped(*number)));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::load::report::fixture::{MS, SyntheticRun};

    fn run_with_circumstances(change: impl Fn(&mut RunCircumstances)) -> SyntheticRun {
        let mut run = SyntheticRun::default();
        change(&mut run.circumstances);
        run
    }

    #[rstest]
    #[case::calm(SyntheticRun::calm(), RunValidity::Valid, &[])]
    #[case::a_little_late(SyntheticRun { delay: MS * 9 / 10, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::late(SyntheticRun { delay: 2 * MS, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::late_and_it_decides(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 < 11ms"], ..SyntheticRun::default() }, RunValidity::Suspect, &["send-delay"])]
    #[case::late_and_it_decides_that_it_holds(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 > 11ms"], ..SyntheticRun::default() }, RunValidity::Suspect, &["send-delay"])]
    #[case::late_and_it_holds(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 < 13ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::late_and_it_is_broken(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 < 9ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::service_does_not_hold_it(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.service.p99 < 11ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::far_too_late(SyntheticRun { delay: 30 * MS, ..SyntheticRun::default() }, RunValidity::Invalid, &["send-delay"])]
    #[case::core(SyntheticRun { busy: 0.95, ..SyntheticRun::default() }, RunValidity::Suspect, &["core"])]
    #[case::missed(SyntheticRun { missed: 1, ..SyntheticRun::default() }, RunValidity::Suspect, &["missed-ticks"])]
    #[case::no_client(SyntheticRun { no_client: 1, ..SyntheticRun::default() }, RunValidity::Suspect, &["no-client"])]
    #[case::unread(SyntheticRun { unread: 70_000, ..SyntheticRun::default() }, RunValidity::Suspect, &["backlog"])]
    #[case::just_come(SyntheticRun { unread: 700, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::own_error(SyntheticRun { internal: 1, ..SyntheticRun::default() }, RunValidity::Suspect, &["own-errors"])]
    #[case::own_errors(SyntheticRun { internal: 300, ..SyntheticRun::default() }, RunValidity::Invalid, &["own-errors"])]
    #[case::trend(SyntheticRun { slower: MS, ..SyntheticRun::default() }, RunValidity::Suspect, &["trend"])]
    #[case::undrained(run_with_circumstances(|c| c.undrained = 4), RunValidity::Suspect, &["backlog"])]
    #[case::unjoined(run_with_circumstances(|c| c.unjoined = 4), RunValidity::Suspect, &["unjoined"])]
    #[case::failed_to_join(run_with_circumstances(|c| (c.unjoined, c.failed_openings) = (4, vec!["a".to_owned(), "b".to_owned()])), RunValidity::Suspect, &["unjoined"; 3])]
    #[case::joined_later(run_with_circumstances(|c| c.failed_openings = vec!["a".to_owned()]), RunValidity::Valid, &[])]
    #[case::hopeless(run_with_circumstances(|c| (c.unjoined, c.hopeless) = (4, vec![HopelessRole { name: "worker".to_owned(), failed: 3, population: 4 }])), RunValidity::Invalid, &["unjoined"])]
    #[case::trend_on_purpose(SyntheticRun { slower: MS, ..run_with_circumstances(|c| c.changing_load = true) }, RunValidity::Valid, &[])]
    #[case::samples(SyntheticRun { thresholds: vec!["submit_job.response.p99.99 < 1s"], ..SyntheticRun::default() }, RunValidity::Suspect, &["samples"])]
    #[case::enough_samples(SyntheticRun { thresholds: vec!["submit_job.response.p99.9 < 1s"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    fn measurements_determine_the_validity(
        #[case] run: SyntheticRun,
        #[case] validity: RunValidity,
        #[case] codes: &[&str],
    ) {
        let judgement = run.report().judgement;
        assert_eq!(judgement.reasons.iter().map(|reason| reason.code).collect::<Vec<_>>(), codes);
        assert_eq!(judgement.validity(), validity);
    }

    #[rstest]
    #[case::flat(&[5.0; 20], None)]
    #[case::short(&[1.0, 2.0, 3.0, 4.0, 5.0], None)]
    #[case::noise(&[5.0, 6.0, 4.0, 5.5, 4.5, 6.5, 3.5, 5.0, 6.0, 4.0, 5.5, 4.5], None)]
    #[case::certain_but_small(&[100.0, 100.1, 100.2, 100.3, 100.4, 100.5, 100.6, 100.7, 100.8, 100.9, 101.0, 101.1], None)]
    fn short_noisy_or_small_changes_are_not_a_trend(#[case] series: &[f64], #[case] expected: Option<f64>) {
        assert_eq!(significant_trend(series), expected);
    }

    #[test]
    fn the_size_of_a_trend_is_measured_along_its_fitted_line() {
        let series: Vec<f64> = (0..21).map(|n| 10.0 + f64::from(n)).collect();
        assert_eq!(significant_trend(&series), Some(1.0));
        let falling: Vec<f64> = series.iter().rev().copied().collect();
        assert_eq!(significant_trend(&falling), Some(-1.0));
    }
}
