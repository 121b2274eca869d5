//! The circular block bootstrap: estimates from the runs' own intervals how far a metric of two runs may differ by
//! chance.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::MIN_INTERVALS;
use crate::load::metrics::RunPhase;
use crate::load::report::json::{LoadReportError, decode_histogram};
use crate::report::document::load::LoadDocument;

/// Draws per comparison: the 95 % bounds are the 13th and the 13th last of them.
const DRAW_COUNT: usize = 500;
const TAIL_SHARE: f64 = 0.025;

/// The times of one interval: values and their counts, in order of value.
pub type IntervalSamples = Vec<(u64, u64)>;

/// Returns the samples of a timing per measured interval.
///
/// # Errors
///
/// [`LoadReportError::Histogram`].
pub fn interval_samples(document: &LoadDocument, name: &str) -> Result<Vec<IntervalSamples>, LoadReportError> {
    let measured = document.intervals.iter().filter(|interval| interval.phase == RunPhase::Measured);
    measured
        .map(|interval| {
            let Some(times) = interval.times.get(name) else { return Ok(IntervalSamples::new()) };
            let histogram = decode_histogram(name, &times.histogram)?.histogram();
            Ok(histogram.map_or_else(IntervalSamples::new, |histogram| {
                histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
            }))
        })
        .collect()
}

/// Returns the bounds of the relative change of each quantile; `None` if there are too few intervals.
pub fn quantile_changes(
    a: &[IntervalSamples],
    b: &[IntervalSamples],
    quantiles: &[f64],
    seed: u64,
) -> Option<Vec<(f64, f64)>> {
    let (mut a, mut b) = (Resampler::new(a, seed)?, Resampler::new(b, seed.wrapping_add(1))?);
    let mut changes: Vec<Vec<f64>> = vec![Vec::with_capacity(DRAW_COUNT); quantiles.len()];
    for _ in 0..DRAW_COUNT {
        a.draw();
        b.draw();
        for (changes, quantile) in changes.iter_mut().zip(quantiles) {
            if let (Some(before), Some(after)) = (a.quantile(*quantile), b.quantile(*quantile)) {
                changes.push((after - before) / before.max(1.0));
            }
        }
    }
    Some(changes.into_iter().map(confidence_bounds).collect())
}

/// Returns the bounds of the relative change of a mean.
pub fn mean_change(a: &[f64], b: &[f64], seed: u64) -> Option<(f64, f64)> {
    if a.len() < MIN_INTERVALS || b.len() < MIN_INTERVALS {
        return None;
    }
    let (mut dice_a, mut dice_b) = (StdRng::seed_from_u64(seed), StdRng::seed_from_u64(seed.wrapping_add(1)));
    let mean = |values: &[f64], dice: &mut StdRng| {
        let drawn = draw_indexes(values.len(), dice);
        drawn.iter().map(|at| values[*at]).sum::<f64>() / values.len() as f64
    };
    let changes = (0..DRAW_COUNT)
        .map(|_| (mean(a, &mut dice_a), mean(b, &mut dice_b)))
        .filter(|(before, _)| *before > 0.0)
        .map(|(before, after)| (after - before) / before);
    let changes: Vec<f64> = changes.collect();
    (!changes.is_empty()).then(|| confidence_bounds(changes))
}

/// The intervals of a run, and the histogram of a draw.
struct Resampler<'a> {
    intervals: &'a [IntervalSamples],
    dice: StdRng,
    /// Every value of any interval, in order, and its count in the draw.
    values: Vec<u64>,
    counts: Vec<u64>,
    /// For every interval the indexes of its values in `values`.
    places: Vec<Vec<u32>>,
}

impl<'a> Resampler<'a> {
    fn new(intervals: &'a [IntervalSamples], seed: u64) -> Option<Self> {
        if intervals.len() < MIN_INTERVALS {
            return None;
        }
        let mut values: Vec<u64> = intervals.iter().flatten().map(|(value, _)| *value).collect();
        values.sort_unstable();
        values.dedup();
        let place = |(value, _): &(u64, u64)| values.partition_point(|known| known < value) as u32;
        let places = intervals.iter().map(|interval| interval.iter().map(place).collect()).collect();
        let counts = vec![0; values.len()];
        Some(Self { intervals, dice: StdRng::seed_from_u64(seed), values, counts, places })
    }

    fn draw(&mut self) {
        self.counts.fill(0);
        for at in draw_indexes(self.intervals.len(), &mut self.dice) {
            for (place, (_, count)) in self.places[at].iter().zip(&self.intervals[at]) {
                let drawn = &mut self.counts[*place as usize];
                *drawn = drawn.saturating_add(*count);
            }
        }
    }

    fn quantile(&self, quantile: f64) -> Option<f64> {
        // A corrupted report may contain any counts.
        let all: u64 = self.counts.iter().fold(0, |all, count| all.saturating_add(*count));
        let rank = ((quantile * all as f64).ceil() as u64).max(1);
        let mut seen = 0u64;
        let reaches = |count: &u64| {
            seen = seen.saturating_add(*count);
            seen >= rank
        };
        self.counts.iter().position(reaches).filter(|_| all > 0).map(|at| self.values[at] as f64)
    }
}

/// Draws as many indexes as there are intervals, in circular blocks of neighbours. The block length is the cube root of
/// their number, the usual choice when the correlation of neighbours is unknown.
fn draw_indexes(all: usize, dice: &mut StdRng) -> Vec<usize> {
    let block = (all as f64).cbrt().ceil() as usize;
    let mut drawn = Vec::with_capacity(all + block);
    while drawn.len() < all {
        let start = dice.random_range(0..all);
        drawn.extend((start..start + block).map(|at| at % all));
    }
    drawn.truncate(all);
    drawn
}

fn confidence_bounds(mut changes: Vec<f64>) -> (f64, f64) {
    changes.sort_by(f64::total_cmp);
    let at = |share: f64| changes.get((share * changes.len() as f64) as usize).copied().unwrap_or(0.0);
    (at(TAIL_SHARE), at(1.0 - TAIL_SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::metrics::new_dense_histogram;

    /// For independent intervals with the same mean, the confidence interval of the change should seldom miss 0.
    #[test]
    fn a_95_percent_confidence_interval_misses_the_truth_about_once_in_twenty() {
        let mut dice = StdRng::seed_from_u64(7);
        let rounds = 200;
        let missed = (0..rounds).filter(|round| {
            let mut run = || (0..60).map(|_| 100.0 + dice.random_range(-10.0..10.0)).collect::<Vec<f64>>();
            let (low, high) = mean_change(&run(), &run(), *round).unwrap();
            low > 0.0 || high < 0.0
        });
        let missed = missed.count();
        assert!((2..=25).contains(&missed), "{missed} of {rounds}");
    }

    #[test]
    fn the_quantile_of_a_draw_equals_that_of_its_histogram() {
        let intervals: Vec<IntervalSamples> = (0..10).map(|n| vec![(1_000 * (n + 1), 3), (2_000_000, 1)]).collect();
        let mut draws = Resampler::new(&intervals, 1).unwrap();
        draws.draw();
        let mut histogram = new_dense_histogram::<u64>();
        for (value, count) in draws.values.iter().zip(&draws.counts) {
            histogram.record_n(*value, *count).unwrap();
        }
        for quantile in [0.1, 0.5, 0.75, 0.9, 1.0] {
            let of_draws = draws.quantile(quantile).unwrap() as u64;
            assert_eq!(histogram.highest_equivalent(of_draws), histogram.value_at_quantile(quantile));
        }
    }
}
