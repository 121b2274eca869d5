//! A test for a trend in a series of intervals.

/// The fewest intervals in which a trend can be found.
const MIN_TREND_INTERVALS: usize = 10;
/// A trend counts when its Mann-Kendall statistic exceeds this many standard deviations, and when its size over the
/// measured time exceeds this share of the median.
const MIN_TREND_DEVIATIONS: f64 = 3.0;
const MIN_TREND_SIZE: f64 = 0.25;

/// Returns the change of a series from beginning to end, as a share of its median, if it is significant and large
/// enough: by the Mann-Kendall trend test, together with the size of Sen's slope. With many intervals the test alone
/// finds trends too small to matter, and neighbouring intervals are not independent.
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

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
