//! Whether a hub under load has warmed up.

use super::uncertainty::{FigureBounds, count_bounds, quantile_bounds};
use super::{CounterId, MessageCount, MessageTime, MetricInterval, MetricRegistry, TimingId};

/// The number of successive windows that must agree.
const WINDOWS: usize = 3;
/// The difference that is accepted on top of chance.
const TOLERANCE: f64 = 0.1;

/// Whether throughput and median response of every message agree in the last windows (a second each): they differ by
/// no more than chance, or by no more than a tenth.
pub fn is_steady(layout: &MetricRegistry, windows: &[MetricInterval]) -> bool {
    let Some(from) = windows.len().checked_sub(WINDOWS) else { return false };
    let last = &windows[from..];
    (0..layout.names.messages.len()).all(|message| {
        let counts = [MessageCount::Sent, MessageCount::Answered, MessageCount::Received];
        let times = [MessageTime::Response, MessageTime::Delivery];
        counts.iter().all(|kind| {
            let place = layout.count(CounterId::Message(message, *kind));
            agree(last.iter().map(|window| count_bounds(window.counts[place])))
        }) && times.iter().all(|kind| {
            let place = layout.timing(TimingId::Message(message, *kind));
            let histograms = last.iter().filter_map(|window| window.timings[place].histogram());
            agree(histograms.map(|histogram| quantile_bounds(&histogram, 0.5, 0)))
        })
    })
}

/// Whether ranges overlap, or miss each other by no more than the tolerance.
fn agree(ranges: impl Iterator<Item = FigureBounds> + Clone) -> bool {
    let highest_low = ranges.clone().map(|range| range.low).fold(0.0, f64::max);
    let lowest_high = ranges.filter_map(|range| range.high).fold(f64::INFINITY, f64::min);
    highest_low <= lowest_high * (1.0 + TOLERANCE)
}
