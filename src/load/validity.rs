//! Whether the numbers of a run can be trusted. A generator that sent late, ran out of CPU or was cut short measures
//! itself instead of the hub; [`judge`] lists the reasons to suspect that.

use super::format::{grouped, nanos, percent};
use super::ledger::Totals;
use super::metrics::selector::{Stat, State, own_delay, supports};
use super::metrics::{
    Count, Dense, ErrorKind, Gauge, Interval, MessageCount, MessageTime, MetricRegistry, Phase, RunCount, Timing, Total,
};
use serde::{Deserialize, Serialize};

use super::opening::HopelessRole;
use super::plan::threshold::{Outcome, Standing};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Validity {
    /// The numbers describe the hub.
    Valid,
    /// The numbers may describe the generator instead of the hub.
    Suspect,
    /// The numbers must not be used.
    Invalid,
}

impl Validity {
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
pub struct Reason {
    /// A stable code for this kind of reason, such as `send-delay`.
    pub code: &'static str,
    pub validity: Validity,
    /// One sentence for the reader of the report.
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    pub reasons: Vec<Reason>,
}

impl Judgement {
    pub fn validity(&self) -> Validity {
        self.reasons.iter().map(|reason| reason.validity).max().unwrap_or(Validity::Valid)
    }

    fn add(&mut self, validity: Validity, code: &'static str, text: String) {
        self.reasons.push(Reason { code, validity, text });
    }
}

/// Facts that the judgement needs in addition to the measurements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
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
const OURS: f64 = 0.5;
/// A core busier than this in more than a tenth of the measured intervals makes a run suspect.
const BUSY: f64 = 0.9;
const BUSY_INTERVALS: f64 = 0.1;
/// If the generator's own errors exceed this share of the sent messages, the run is invalid.
const OWN_ERRORS: f64 = 0.01;

/// Judges a run by its own measurements.
pub fn judge(state: State<'_>, outcomes: &[Outcome], circumstances: Circumstances) -> Judgement {
    let mut judgement = Judgement::default();
    let State { layout, total, account, intervals } = state;
    measured(&mut judgement, state);
    send_delays(&mut judgement, layout, total, outcomes);
    cores(&mut judgement, intervals);
    lateness(&mut judgement, layout, total);
    joining(&mut judgement, &circumstances);
    samples(&mut judgement, outcomes);
    if !circumstances.changing_load {
        stationary(&mut judgement, layout, intervals);
    }
    backlog(&mut judgement, account, intervals, circumstances.undrained);
    own_errors(&mut judgement, layout, total);
    ledger(&mut judgement, account);
    judgement
}

fn sent(layout: &MetricRegistry, total: &Total) -> u64 {
    let messages = 0..layout.names.messages.len();
    messages.map(|message| total.count(layout, Count::Message(message, MessageCount::Sent))).sum()
}

fn measured(judgement: &mut Judgement, state: State<'_>) {
    if state.total.time == 0 {
        judgement.add(Validity::Invalid, "unmeasured", "the run ended before a whole interval was measured".to_owned());
    } else if state.is_idle() {
        // Clients that only stay connected send nothing.
        judgement.add(Validity::Invalid, "unmeasured", "no message was sent and no client was connected".to_owned());
    }
}

fn send_delays(judgement: &mut Judgement, layout: &MetricRegistry, total: &Total, outcomes: &[Outcome]) {
    for (message, name) in layout.names.messages.iter().enumerate() {
        let timing = |kind| total.timing(layout, Timing::Message(message, kind));
        let (Some(delay), Some(response)) = (timing(MessageTime::SendDelay), timing(MessageTime::Response)) else {
            continue;
        };
        // With fewer samples, a p99 is one outlier.
        if !supports(delay.len(), 0.9) || !supports(response.len(), 0.9) {
            continue;
        }
        let p99 = Stat::Quantile(0.99);
        let own = own_delay(layout, total, Timing::Message(message, MessageTime::Response), p99).unwrap_or_default();
        let response = p99.of(response);
        let share = own / response.max(1.0);
        if share > OURS {
            let text = format!(
                "{name}: up to {} of the p99 response time of {} ({}) is the generator's own delay, so this figure says nothing about the hub",
                nanos(own),
                nanos(response),
                percent(share)
            );
            judgement.add(Validity::Invalid, "send-delay", text);
        }
    }
    for outcome in outcomes.iter().filter(|outcome| outcome.uncertain) {
        let otherwise = if outcome.standing == Standing::Holds { "not hold" } else { "hold" };
        let text = format!(
            "`{}`: observed {}; without the generator's own delay it might {otherwise}",
            outcome.threshold.text,
            outcome.explained()
        );
        judgement.add(Validity::Suspect, "send-delay", text);
    }
}

fn cores(judgement: &mut Judgement, intervals: &[Interval]) {
    let measured: Vec<&Interval> = intervals.iter().filter(|interval| interval.phase == Phase::Measured).collect();
    let mut known: Vec<usize> = measured.iter().flat_map(|interval| &interval.cores).map(|core| core.core).collect();
    known.sort_unstable();
    known.dedup();
    for core in known {
        let shares = measured.iter().flat_map(|interval| &interval.cores).filter(|share| share.core == core);
        let busy: Vec<f64> = shares.map(|core| core.busy).collect();
        let over = busy.iter().filter(|busy| **busy > BUSY).count();
        if over as f64 > busy.len() as f64 * BUSY_INTERVALS {
            let highest = busy.iter().copied().fold(0.0, f64::max);
            let text = format!(
                "core {core} was over {} busy in {over} of {} intervals (peak {}): the run may measure the generator, not the hub",
                percent(BUSY),
                busy.len(),
                percent(highest)
            );
            judgement.add(Validity::Suspect, "core", text);
        }
    }
}

fn lateness(judgement: &mut Judgement, layout: &MetricRegistry, total: &Total) {
    let counts = [
        (
            RunCount::Missed,
            "missed-ticks",
            "scheduled arrivals or ticks were skipped because the generator fell behind",
        ),
        (RunCount::NoClient, "no-client", "arrivals found no free client, so the load was lower than planned"),
        (RunCount::Clamped, "clamped", "times exceeded the upper bound of the histograms"),
    ];
    for (count, code, text) in counts {
        let number = total.count(layout, Count::Run(count));
        if number > 0 {
            judgement.add(Validity::Suspect, code, format!("{} {text}", grouped(number)));
        }
    }
}

fn joining(judgement: &mut Judgement, circumstances: &Circumstances) {
    let Circumstances { unjoined, hopeless, failed_openings, .. } = circumstances;
    if *unjoined == 0 {
        return;
    }
    for HopelessRole { name, failed, population } in hopeless {
        let text =
            format!("the run ended because no client of {name} joined; {failed} of {population} tried and failed");
        judgement.add(Validity::Invalid, "unjoined", text);
    }
    let validity = if hopeless.is_empty() { Validity::Suspect } else { Validity::Invalid };
    if hopeless.is_empty() {
        let text = format!("{} clients had not joined when the measured time began", grouped(*unjoined));
        judgement.add(validity, "unjoined", text);
    }
    for text in failed_openings {
        judgement.add(validity, "unjoined", text.clone());
    }
}

fn samples(judgement: &mut Judgement, outcomes: &[Outcome]) {
    for outcome in outcomes.iter().filter(|outcome| outcome.is_thin() && outcome.observed.is_some()) {
        let text = format!("`{}` has fewer than ten samples beyond its percentile", outcome.threshold.text);
        judgement.add(Validity::Suspect, "samples", text);
    }
}

/// Intervals needed for a trend test, and samples needed in each of them.
const TREND_INTERVALS: usize = 10;
const INTERVAL_SAMPLES: u64 = 10;
/// The test compares every pair of intervals; if there are more intervals than this, it takes every second, third and
/// so on.
const MOST_COMPARED: usize = 300;
/// A trend counts when its Mann-Kendall statistic exceeds this many standard deviations, and when its size over the
/// measured time exceeds this share of the median.
const TREND_DEVIATIONS: f64 = 3.0;
const TREND_SIZE: f64 = 0.25;

/// Applies the Mann-Kendall trend test to the median response of the intervals, together with the size of Sen's slope:
/// with many intervals the test alone finds trends too small to matter, and neighbouring intervals are not independent.
fn stationary(judgement: &mut Judgement, layout: &MetricRegistry, intervals: &[Interval]) {
    let measured: Vec<&Interval> = intervals.iter().filter(|interval| interval.phase == Phase::Measured).collect();
    for (message, name) in layout.names.messages.iter().enumerate() {
        let place = layout.timing(Timing::Message(message, MessageTime::Response));
        let histograms = measured.iter().filter_map(|interval| interval.timings[place].histogram());
        let medians: Vec<f64> = histograms
            .filter(|histogram: &Dense| histogram.len() >= INTERVAL_SAMPLES)
            .map(|histogram| histogram.value_at_quantile(0.5) as f64)
            .collect();
        let medians: Vec<f64> = medians.iter().step_by(medians.len().div_ceil(MOST_COMPARED).max(1)).copied().collect();
        if let Some(change) = trend(&medians) {
            let text = format!(
                "the median response time of {name} went {} by {} over the measured time (Mann-Kendall over {} intervals, z above {TREND_DEVIATIONS:.0}), so it was not stationary",
                if change > 0.0 { "up" } else { "down" },
                percent(change.abs()),
                medians.len()
            );
            judgement.add(Validity::Suspect, "trend", text);
        }
    }
}

/// Returns the change of a series from beginning to end, as a share of its median, if it is significant and large
/// enough.
pub fn trend(series: &[f64]) -> Option<f64> {
    let n = series.len();
    if n < TREND_INTERVALS {
        return None;
    }
    let pairs = || (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    let s: f64 = pairs().map(|(i, j)| (series[j] - series[i]).partial_cmp(&0.0).map_or(0, |o| o as i32) as f64).sum();
    let mut sorted = series.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Ties reduce the variance of the statistic.
    let ties: f64 = sorted.chunk_by(|a, b| a == b).map(|tied| tied.len() as f64).map(spread).sum();
    let deviation = ((spread(n as f64) - ties) / 18.0).sqrt();
    if deviation == 0.0 || (s.abs() - 1.0) / deviation < TREND_DEVIATIONS {
        return None;
    }
    let mut slopes: Vec<f64> = pairs().map(|(i, j)| (series[j] - series[i]) / (j - i) as f64).collect();
    slopes.sort_by(f64::total_cmp);
    let change = slopes[slopes.len() / 2] * (n - 1) as f64 / sorted[n / 2].max(f64::MIN_POSITIVE);
    (change.abs() > TREND_SIZE).then_some(change)
}

fn spread(n: f64) -> f64 {
    n * (n - 1.0) * (2.0 * n + 5.0)
}

/// Up to this many unread bytes are not a backlog: they have just arrived, or belong to close frames.
const UNREAD: u64 = 64 << 10;

fn backlog(judgement: &mut Judgement, account: &Totals, intervals: &[Interval], undrained: u64) {
    let last = |gauge: Gauge| intervals.last().map_or(0, |interval| interval.gauges[gauge as usize].last);
    let unread = last(Gauge::Unread);
    let counts = [
        (
            account.unfinished,
            "items were unfinished when the run ended: the hub was still completing others, or a worker still had them",
        ),
        (undrained, "journeys were unfinished at the end of the drain"),
        (if unread > UNREAD { unread } else { 0 }, "bytes had arrived but were unread when the run ended"),
    ];
    for (number, text) in counts.iter().filter(|(number, _)| *number > 0) {
        judgement.add(Validity::Suspect, "backlog", format!("{} {text}", grouped(*number)));
    }
}

fn own_errors(judgement: &mut Judgement, layout: &MetricRegistry, total: &Total) {
    let all = sent(layout, total).max(1);
    for kind in ErrorKind::ALL.iter().filter(|kind| kind.is_ours()) {
        let number = total.count(layout, Count::Error(*kind));
        if number == 0 {
            continue;
        }
        let many = number as f64 > all as f64 * OWN_ERRORS;
        let text = match kind {
            ErrorKind::Resources => "times the generator's machine ran out of file descriptors, ports or memory",
            _ => "internal errors of the generator",
        };
        let validity = if many { Validity::Invalid } else { Validity::Suspect };
        judgement.add(validity, "own-errors", format!("{} {text}", grouped(number)));
    }
}

fn ledger(judgement: &mut Judgement, account: &Totals) {
    let counts = [
        (account.late, "ledger entries arrived too late to be processed in order"),
        (account.unfollowed, "ledger entries were dropped because the ledger was full"),
    ];
    for (number, text) in counts.iter().filter(|(number, _)| *number > 0) {
        judgement.add(Validity::Suspect, "ledger", format!("{} {text}", grouped(*number)));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::load::report::fixture::{MS, Run};

    fn circumstances(change: impl Fn(&mut Circumstances)) -> Run {
        let mut run = Run::default();
        change(&mut run.circumstances);
        run
    }

    #[rstest]
    #[case::calm(Run::calm(), Validity::Valid, &[])]
    #[case::a_little_late(Run { delay: MS * 9 / 10, ..Run::default() }, Validity::Valid, &[])]
    #[case::late(Run { delay: 2 * MS, ..Run::default() }, Validity::Valid, &[])]
    #[case::late_and_it_decides(Run { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 < 11ms"], ..Run::default() }, Validity::Suspect, &["send-delay"])]
    #[case::late_and_it_decides_that_it_holds(Run { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 > 11ms"], ..Run::default() }, Validity::Suspect, &["send-delay"])]
    #[case::late_and_it_holds(Run { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 < 13ms"], ..Run::default() }, Validity::Valid, &[])]
    #[case::late_and_it_is_broken(Run { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 < 9ms"], ..Run::default() }, Validity::Valid, &[])]
    #[case::service_does_not_hold_it(Run { delay: 2 * MS, thresholds: vec!["submit_job.service.p99 < 11ms"], ..Run::default() }, Validity::Valid, &[])]
    #[case::far_too_late(Run { delay: 30 * MS, ..Run::default() }, Validity::Invalid, &["send-delay"])]
    #[case::core(Run { busy: 0.95, ..Run::default() }, Validity::Suspect, &["core"])]
    #[case::missed(Run { missed: 1, ..Run::default() }, Validity::Suspect, &["missed-ticks"])]
    #[case::no_client(Run { no_client: 1, ..Run::default() }, Validity::Suspect, &["no-client"])]
    #[case::unread(Run { unread: 70_000, ..Run::default() }, Validity::Suspect, &["backlog"])]
    #[case::just_come(Run { unread: 700, ..Run::default() }, Validity::Valid, &[])]
    #[case::own_error(Run { internal: 1, ..Run::default() }, Validity::Suspect, &["own-errors"])]
    #[case::own_errors(Run { internal: 300, ..Run::default() }, Validity::Invalid, &["own-errors"])]
    #[case::trend(Run { slower: MS, ..Run::default() }, Validity::Suspect, &["trend"])]
    #[case::undrained(circumstances(|c| c.undrained = 4), Validity::Suspect, &["backlog"])]
    #[case::unjoined(circumstances(|c| c.unjoined = 4), Validity::Suspect, &["unjoined"])]
    #[case::failed_to_join(circumstances(|c| (c.unjoined, c.failed_openings) = (4, vec!["a".to_owned(), "b".to_owned()])), Validity::Suspect, &["unjoined"; 3])]
    #[case::joined_later(circumstances(|c| c.failed_openings = vec!["a".to_owned()]), Validity::Valid, &[])]
    #[case::hopeless(circumstances(|c| (c.unjoined, c.hopeless) = (4, vec![HopelessRole { name: "worker".to_owned(), failed: 3, population: 4 }])), Validity::Invalid, &["unjoined"])]
    #[case::trend_on_purpose(Run { slower: MS, ..circumstances(|c| c.changing_load = true) }, Validity::Valid, &[])]
    #[case::samples(Run { thresholds: vec!["submit_job.response.p99.99 < 1s"], ..Run::default() }, Validity::Suspect, &["samples"])]
    #[case::enough_samples(Run { thresholds: vec!["submit_job.response.p99.9 < 1s"], ..Run::default() }, Validity::Valid, &[])]
    fn measurements_decide_the_validity(#[case] run: Run, #[case] validity: Validity, #[case] codes: &[&str]) {
        let judgement = run.report().judgement;
        assert_eq!(judgement.reasons.iter().map(|reason| reason.code).collect::<Vec<_>>(), codes);
        assert_eq!(judgement.validity(), validity);
    }

    #[rstest]
    #[case::flat(&[5.0; 20], None)]
    #[case::short(&[1.0, 2.0, 3.0, 4.0, 5.0], None)]
    #[case::noise(&[5.0, 6.0, 4.0, 5.5, 4.5, 6.5, 3.5, 5.0, 6.0, 4.0, 5.5, 4.5], None)]
    #[case::certain_but_small(&[100.0, 100.1, 100.2, 100.3, 100.4, 100.5, 100.6, 100.7, 100.8, 100.9, 101.0, 101.1], None)]
    fn short_noisy_or_small_changes_are_no_trend(#[case] series: &[f64], #[case] expected: Option<f64>) {
        assert_eq!(trend(series), expected);
    }

    #[test]
    fn the_size_of_a_trend_is_the_change_along_its_line() {
        let series: Vec<f64> = (0..21).map(|n| 10.0 + f64::from(n)).collect();
        assert_eq!(trend(&series), Some(1.0));
        let falling: Vec<f64> = series.iter().rev().copied().collect();
        assert_eq!(trend(&falling), Some(-1.0));
    }
}
