//! How far a figure of a run may be from the truth.
//!
//! A percentile of a run is one of chance: another run of the same hub has other samples. The 95 % confidence interval
//! of a quantile needs no assumption about the distribution: it runs from one order statistic to another, whose ranks
//! follow from the binomial distribution. Other sources are specific to this run: the generator's own delay, messages
//! that were due and have no time, and a trend. [`Metric::uncertainty`] lists them, and a threshold whose result could
//! differ because of one of them is uncertain.

use super::selector::{Metric, RunMeasurements, Statistic, own_delay};
use super::trend::significant_trend;
use super::{
    CounterId, DenseHistogram, JourneyCount, LoadErrorKind, MessageCount, MessageTime, MetricInterval, RunPhase,
    TimingId, new_dense_histogram,
};

/// The quantile of the standard normal distribution for two-sided 95 %.
const Z: f64 = 1.959_964;
/// The probability of a miss on either side.
const TAIL: f64 = 0.025;

/// The bounds of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FigureBounds {
    pub low: f64,
    /// `None` if there are too few samples for an upper bound.
    pub high: Option<f64>,
}

impl FigureBounds {
    fn exact(value: f64) -> Self {
        Self { low: value, high: Some(value) }
    }

    /// Returns the smallest range that includes both.
    fn union(self, other: Self) -> Self {
        let high = self.high.zip(other.high).map(|(high, other)| high.max(other));
        Self { low: self.low.min(other.low), high }
    }
}

/// Why a figure may be different from the truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UncertaintySource {
    /// Up to this much of the value, in nanoseconds, may be the generator's own delay.
    OwnDelay(f64),
    /// The run has this number of samples; an upper bound of the figure requires at least `needed`.
    Sampling { samples: u64, needed: u64 },
    /// This number of messages or journeys were due and have no time: never begun, or unfinished when the run ended.
    Untimed(u64),
    /// The value changed over the measured time, between its first and second half.
    Trend { first: f64, second: f64 },
    /// This number of errors are the generator's own.
    OwnErrors(u64),
}

/// How far the value of a metric may be from the truth, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricUncertainty {
    pub bounds: FigureBounds,
    /// The sources, each with the bounds that it alone gives.
    pub sources: Vec<(UncertaintySource, FigureBounds)>,
}

impl MetricUncertainty {
    fn of_sources(value: f64, sources: Vec<(UncertaintySource, FigureBounds)>) -> Self {
        let bounds = sources.iter().fold(FigureBounds::exact(value), |all, (_, bounds)| all.union(*bounds));
        Self { bounds, sources }
    }
}

impl Metric {
    /// Returns how far the metric's value may be from the truth; `None` if there is no value, or it is exact.
    pub fn uncertainty(&self, state: RunMeasurements<'_>) -> Option<MetricUncertainty> {
        let value = self.value(state)?;
        let up_to = |high: f64| FigureBounds { low: value, high: Some(high) };
        let found = match *self {
            Self::Time(timing, stat @ (Statistic::Quantile(_) | Statistic::Mean)) => {
                let histogram = state.total.timing(state.layout, timing)?;
                let mut sources = Vec::new();
                if let Some(own) = own_delay(state, timing, stat).filter(|own| *own > 0.0) {
                    let bounds = FigureBounds { low: value - own, high: Some(value) };
                    sources.push((UncertaintySource::OwnDelay(own), bounds));
                }
                let sampling = UncertaintySource::Sampling { samples: histogram.len(), needed: samples_needed(stat) };
                sources.push((sampling, sampling_bounds(histogram, stat, 0)));
                let untimed = untimed_count(state, timing);
                if untimed > 0 {
                    sources.push((UncertaintySource::Untimed(untimed), sampling_bounds(histogram, stat, untimed)));
                }
                if let Some((first, second)) = trend_of(state, timing, stat) {
                    let bounds = FigureBounds { low: first.min(second), high: Some(first.max(second)) };
                    sources.push((UncertaintySource::Trend { first, second }, bounds));
                }
                let mut found = MetricUncertainty::of_sources(value, sources);
                found.bounds.low = found.bounds.low.min(figure_bounds(state, timing, stat)?.low);
                return Some(found);
            }
            Self::Time(timing, stat @ (Statistic::Min | Statistic::Max)) => {
                let own = own_delay(state, timing, stat)?;
                (UncertaintySource::OwnDelay(own), FigureBounds { low: value - own, high: Some(value) })
            }
            Self::Count(CounterId::Journey(journey, JourneyCount::Completed | JourneyCount::Failed)) => {
                let count = CounterId::Journey(journey, JourneyCount::Unfinished);
                let unfinished = state.total.count(state.layout, count);
                (UncertaintySource::Untimed(unfinished), up_to(value + unfinished as f64))
            }
            Self::Count(CounterId::Message(message, MessageCount::Answered | MessageCount::Unanswered)) => {
                let pending = state.total.count(state.layout, CounterId::Message(message, MessageCount::Pending));
                (UncertaintySource::Untimed(pending), up_to(value + pending as f64))
            }
            Self::Errors => {
                let own = own_error_count(state);
                (UncertaintySource::OwnErrors(own), FigureBounds { low: value - own as f64, high: Some(value) })
            }
            _ => return None,
        };
        (found.1 != FigureBounds::exact(value)).then(|| MetricUncertainty::of_sources(value, vec![found]))
    }
}

/// Returns the bounds of a figure of a histogram, by chance and by the generator's own delay.
pub fn figure_bounds(state: RunMeasurements<'_>, timing: TimingId, stat: Statistic) -> Option<FigureBounds> {
    let histogram = state.total.timing(state.layout, timing)?;
    let bounds = sampling_bounds(histogram, stat, untimed_count(state, timing));
    let at = match stat {
        Statistic::Quantile(quantile) if quantile < 1.0 => {
            let rank = rank_bounds(histogram.len(), quantile).0.unwrap_or(1);
            Statistic::Quantile((rank as f64 - 0.5) / histogram.len().max(1) as f64)
        }
        stat => stat,
    };
    let own = own_delay(state, timing, at).unwrap_or_default();
    Some(FigureBounds { low: (bounds.low - own).max(0.0), ..bounds })
}

/// Returns the 95 % confidence interval of a figure. `untimed` samples are missing, and may be any time above those
/// that were measured.
fn sampling_bounds(histogram: &DenseHistogram, stat: Statistic, untimed: u64) -> FigureBounds {
    match stat {
        Statistic::Quantile(quantile) if quantile < 1.0 => quantile_bounds(histogram, quantile, untimed),
        Statistic::Mean => {
            let error = Z * histogram.stdev() / (histogram.len().max(1) as f64).sqrt();
            let high = (untimed == 0).then_some(histogram.mean() + error);
            FigureBounds { low: (histogram.mean() - error).max(0.0), high }
        }
        stat => FigureBounds { low: stat.value(histogram), high: (untimed == 0).then(|| stat.value(histogram)) },
    }
}

/// Returns the 95 % confidence interval of a quantile below 1.
pub fn quantile_bounds(histogram: &DenseHistogram, quantile: f64, untimed: u64) -> FigureBounds {
    let samples = histogram.len();
    // In the middle of a rank, so that rounding cannot reach the next one.
    let at_rank = |rank: u64| histogram.value_at_quantile((rank as f64 - 0.5) / samples as f64) as f64;
    let low = rank_bounds(samples, quantile).0.map_or(0.0, at_rank);
    let high = rank_bounds(samples + untimed, quantile).1.filter(|rank| *rank <= samples).map(at_rank);
    FigureBounds { low, high }
}

/// Up to this number of expected samples beyond a quantile, ranks are exact; above it, Wilson's approximation is close.
const MAX_EXACT: f64 = 100.0;

/// Returns the ranks, from 1, of the samples that enclose a quantile with 95 % probability; `None` if there are too few
/// samples for one.
fn rank_bounds(samples: u64, quantile: f64) -> (Option<u64>, Option<u64>) {
    if samples == 0 {
        return (None, None);
    }
    if quantile < 0.5 {
        let (low, high) = rank_bounds(samples, 1.0 - quantile);
        return (high.map(|rank| samples + 1 - rank), low.map(|rank| samples + 1 - rank));
    }
    let n = samples as f64;
    let beyond = n * (1.0 - quantile);
    if beyond > MAX_EXACT {
        let (middle, whole) = (quantile + Z * Z / (2.0 * n), 1.0 + Z * Z / n);
        let error = Z * (quantile * (1.0 - quantile) / n + Z * Z / (4.0 * n * n)).sqrt();
        let rank = |share: f64| ((share * n).ceil() as u64).clamp(1, samples);
        return (Some(rank((middle - error) / whole)), Some(rank((middle + error) / whole)));
    }
    // The number of samples beyond the quantile has a binomial distribution. `below` is the probability of fewer than
    // `count` of them.
    let (mut probability, mut below) = (quantile.powf(n), 0.0);
    let (mut low, mut high) = (None, None);
    for count in 0..=samples {
        let up_to = below + probability;
        if up_to <= TAIL {
            high = Some(samples - count);
        }
        if 1.0 - up_to <= TAIL {
            low = Some(samples - count).filter(|rank| *rank > 0);
            break;
        }
        below = up_to;
        probability *= (n - count as f64) / (count as f64 + 1.0) * (1.0 - quantile) / quantile;
    }
    (low, high)
}

/// Returns the fewest samples of which the highest is above the quantile with 97.5 % probability.
fn samples_needed(stat: Statistic) -> u64 {
    match stat {
        Statistic::Quantile(quantile) if quantile < 1.0 => (TAIL.ln() / quantile.ln()).ceil() as u64,
        _ => 1,
    }
}

/// Returns the 95 % confidence interval of the expected value of a count.
pub fn count_bounds(count: u64) -> FigureBounds {
    let (middle, error) = (count as f64 + Z * Z / 2.0, Z * (count as f64 + Z * Z / 4.0).sqrt());
    FigureBounds { low: middle - error, high: Some(middle + error) }
}

/// Returns the number of messages or journeys that were due and have no time.
fn untimed_count(state: RunMeasurements<'_>, timing: TimingId) -> u64 {
    let count = |count| state.total.count(state.layout, count);
    match timing {
        TimingId::Message(message, MessageTime::Response | MessageTime::Service) => {
            let kinds = [MessageCount::Missed, MessageCount::Pending];
            kinds.iter().map(|kind| count(CounterId::Message(message, *kind))).sum()
        }
        TimingId::Journey(journey) => {
            let kinds = [JourneyCount::Missed, JourneyCount::Unfinished];
            kinds.iter().map(|kind| count(CounterId::Journey(journey, *kind))).sum()
        }
        _ => 0,
    }
}

/// Returns the number of errors of the generator itself.
pub fn own_error_count(state: RunMeasurements<'_>) -> u64 {
    let own = LoadErrorKind::ALL.iter().filter(|kind| kind.is_generator_error());
    own.map(|kind| state.total.count(state.layout, CounterId::Error(*kind))).sum()
}

/// A core busier than this in more than a tenth of the measured intervals is saturated.
const BUSY_CORE: f64 = 0.9;
const MAX_BUSY_INTERVALS: f64 = 0.1;

/// A core that was too busy for the generator to read and send in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaturatedCore {
    pub core: usize,
    /// The number of intervals in which it was too busy, out of `intervals`.
    pub busy: usize,
    pub intervals: usize,
    /// Its highest utilisation, 0 to 1.
    pub peak: f64,
}

/// Returns the cores that were too busy.
pub fn saturated_cores(intervals: &[MetricInterval]) -> Vec<SaturatedCore> {
    let mut cores: Vec<SaturatedCore> = Vec::new();
    let measured = intervals.iter().filter(|interval| interval.phase == RunPhase::Measured);
    for share in measured.flat_map(|interval| &interval.cores) {
        let place = cores.iter().position(|known| known.core == share.core).unwrap_or_else(|| {
            cores.push(SaturatedCore { core: share.core, busy: 0, intervals: 0, peak: 0.0 });
            cores.len() - 1
        });
        let core = &mut cores[place];
        core.intervals += 1;
        core.busy += usize::from(share.busy > BUSY_CORE);
        core.peak = core.peak.max(share.busy);
    }
    cores.retain(|core| core.busy as f64 > core.intervals as f64 * MAX_BUSY_INTERVALS);
    cores.sort_by_key(|core| core.core);
    cores
}

/// Samples that an interval needs for a trend test.
const MIN_INTERVAL_SAMPLES: u64 = 10;
/// The trend test compares every pair of intervals; if there are more intervals than this, it takes every second, third
/// and so on.
const MAX_COMPARED: usize = 300;

/// Returns the change of a timing's median over the measured time, as a share of it, and the number of intervals, if
/// the load was meant to be steady and the change is significant.
pub fn timing_trend(state: RunMeasurements<'_>, timing: TimingId) -> Option<(f64, usize)> {
    if state.changing_load || matches!(timing, TimingId::Run(_) | TimingId::Message(_, MessageTime::SendDelay)) {
        return None;
    }
    let place = state.layout.timing(timing);
    let histograms = measured_intervals(state).filter_map(|interval| interval.timings[place].histogram());
    let medians: Vec<f64> = histograms
        .filter(|histogram: &DenseHistogram| histogram.len() >= MIN_INTERVAL_SAMPLES)
        .map(|histogram| histogram.value_at_quantile(0.5) as f64)
        .collect();
    let medians: Vec<f64> = medians.iter().step_by(medians.len().div_ceil(MAX_COMPARED).max(1)).copied().collect();
    Some((significant_trend(&medians)?, medians.len()))
}

/// Returns the values of a figure in the first and the second half of the measured time, if there is a trend.
fn trend_of(state: RunMeasurements<'_>, timing: TimingId, stat: Statistic) -> Option<(f64, f64)> {
    timing_trend(state, timing)?;
    let place = state.layout.timing(timing);
    let measured: Vec<&MetricInterval> = measured_intervals(state).collect();
    let (first, second) = measured.split_at(measured.len() / 2);
    let value = |half: &[&MetricInterval]| {
        let mut all = new_dense_histogram::<u64>();
        for histogram in half.iter().filter_map(|interval| interval.timings[place].histogram()) {
            // The bounds are the same.
            let _ = all.add(histogram);
        }
        stat.value(&all)
    };
    Some((value(first), value(second)))
}

fn measured_intervals(state: RunMeasurements<'_>) -> impl Iterator<Item = &MetricInterval> {
    state.intervals.iter().filter(|interval| interval.phase == RunPhase::Measured)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use rstest::rstest;

    use super::*;

    fn histogram_of(values: impl Iterator<Item = u64>) -> DenseHistogram {
        let mut histogram = new_dense_histogram();
        values.for_each(|value| histogram.saturating_record(value));
        histogram
    }

    /// The quantile of an exponential distribution is known.
    #[rstest]
    #[case(1_000, 0.5)]
    #[case(1_000, 0.9)]
    #[case(1_000, 0.99)]
    #[case(20_000, 0.999)]
    fn the_interval_contains_the_true_quantile_in_about_19_of_20_runs(#[case] samples: u64, #[case] quantile: f64) {
        let mut random = StdRng::seed_from_u64(3);
        let hits = (0..400).filter(|_| {
            let mut draw = |_| (-(1.0 - random.random::<f64>()).ln() * 1e8) as u64;
            let histogram = histogram_of((0..samples).map(&mut draw));
            let FigureBounds { low, high } = quantile_bounds(&histogram, quantile, 0);
            let truth = -(1.0 - quantile).ln() * 1e8;
            // A histogram rounds a value by up to a thousandth.
            low * 0.999 <= truth && high.is_some_and(|high| truth <= high * 1.001)
        });
        let hits = hits.count();
        assert!((366..=399).contains(&hits), "{hits} of 400");
    }

    #[rstest]
    #[case::few(367, 0.99, None)]
    #[case::enough(368, 0.99, Some(368.0))]
    #[case::ten_beyond(1_000, 0.99, Some(997.0))]
    #[case::many_beyond(20_000, 0.99, Some(19_826.0))]
    #[case::median_of_five(5, 0.5, None)]
    #[case::median_of_six(6, 0.5, Some(6.0))]
    fn a_percentile_has_an_upper_bound_from_enough_samples_on(
        #[case] samples: u64,
        #[case] quantile: f64,
        #[case] high: Option<f64>,
    ) {
        assert_eq!(rank_bounds(samples, quantile).1.map(|rank| rank as f64), high);
        let histogram = histogram_of((1..=samples).map(|n| n * 1_000_000));
        let bounds = quantile_bounds(&histogram, quantile, 0);
        assert_eq!(bounds.high.is_some(), high.is_some(), "{bounds:?}");
        assert!(bounds.low <= histogram.value_at_quantile(quantile) as f64, "{bounds:?}");
    }

    /// Samples that are missing may be longer than any other.
    #[test]
    fn missing_samples_raise_the_upper_bound_and_never_the_lower() {
        let histogram = histogram_of((1..=1_000).map(|n| n * 1_000_000));
        let bounds = |untimed| quantile_bounds(&histogram, 0.9, untimed);
        assert_eq!(bounds(10).low, bounds(0).low);
        assert!(bounds(10).high > bounds(0).high, "{:?} {:?}", bounds(10), bounds(0));
        assert_eq!(bounds(200).high, None);
    }

    #[test]
    fn bounds_of_counts_become_relatively_narrow_with_the_count() {
        assert_eq!(count_bounds(0).low, 0.0);
        let FigureBounds { low, high } = count_bounds(10_000);
        assert!((9_800.0..9_810.0).contains(&low) && (10_190.0..10_200.0).contains(&high.unwrap()), "{low} {high:?}");
    }
}
