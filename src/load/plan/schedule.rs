//! The open-model schedule: absolute due times computed from a rate and a seed, never from when the last journey
//! finished, so that a slow hub does not reduce its own load (no coordinated omission).

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::{ArrivalSpacing, Arrivals};
use crate::load::Nanos;
use crate::syntax::share::Share;

/// One of the threads of one of the shares of a run, and so which clients and arrivals are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    pub share: Share,
    /// The shard's index within its share, starting at 0.
    pub number: u32,
    /// How many shards the share has; shares may differ in that.
    pub shards: u32,
}

/// Every `step`th of the things that are numbered from 0, beginning with `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EveryNth {
    pub first: u32,
    pub step: u32,
}

impl EveryNth {
    /// Returns the number of the thing at this place.
    pub fn at(self, place: u32) -> u32 {
        self.first + place * self.step
    }
}

impl ShardPlace {
    /// Returns which clients of a role belong to the shard.
    pub fn clients(self) -> EveryNth {
        let of = self.share.of();
        EveryNth { first: self.share.index() + of * self.number, step: of * self.shards }
    }

    /// Returns which arrivals of a role belong to the shard; `None` if it has no client that could start a journey.
    pub fn arrivals(self, population: u32) -> Option<EveryNth> {
        let shares = self.share.of().min(population.max(1));
        let shards = self.shards.min(self.share.count(population).max(1));
        let takes_any = self.share.index() < shares && self.number < shards;
        takes_any.then(|| EveryNth { first: self.share.index() + shares * self.number, step: shares * shards })
    }
}

/// The due times of journeys, from the beginning of the warm-up to the beginning of the drain.
///
/// Every shard iterates over the whole schedule and takes its own arrivals, so that the schedule depends neither on the
/// number of shards nor on the number of shares.
pub struct ArrivalSchedule {
    segments: Vec<RateSegment>,
    spacing: ArrivalSpacing,
    random: SmallRng,
    /// The expected number of arrivals so far, the next one included.
    expected: f64,
    /// The segment of the next arrival, and the expected arrivals before it.
    segment: usize,
    before: f64,
    /// The number of arrivals passed so far.
    count: u64,
    own: EveryNth,
}

/// A time over which the rate changes linearly: times in seconds from the beginning of the warm-up, rates per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateSegment {
    pub start: f64,
    pub length: f64,
    pub from: f64,
    pub to: f64,
}

impl RateSegment {
    fn arrivals(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.length
    }

    /// Returns the time by which this number of arrivals is expected.
    fn time_of(&self, arrivals: f64) -> f64 {
        if arrivals <= 0.0 {
            return 0.0;
        }
        let slope = (self.to - self.from) / self.length;
        let root = (self.from * self.from + 2.0 * slope * arrivals).max(0.0).sqrt();
        (2.0 * arrivals / (self.from + root)).min(self.length)
    }
}

/// Returns the rate at a time, in seconds from the beginning of the warm-up.
pub fn rate_at(segments: &[RateSegment], at: f64) -> f64 {
    let segment = segments.iter().find(|segment| (segment.start..segment.start + segment.length).contains(&at));
    segment.map_or(0.0, |one| one.from + (one.to - one.from) * (at - one.start) / one.length)
}

impl ArrivalSchedule {
    /// Creates the schedule of a shard that takes every nth arrival, from the beginning of the warm-up until `end` after
    /// it.
    pub fn new(arrivals: &Arrivals, end: Duration, seed: u64, own: EveryNth) -> Self {
        let mut schedule = Self {
            segments: segments(arrivals, end.as_secs_f64()),
            spacing: arrivals.spacing,
            random: SmallRng::seed_from_u64(seed),
            expected: 0.0,
            segment: 0,
            before: 0.0,
            count: 0,
            own,
        };
        if arrivals.spacing == ArrivalSpacing::Poisson {
            schedule.expected = exponential(&mut schedule.random);
        }
        schedule
    }

    /// Returns the expected number of arrivals of all shards.
    pub fn expected_arrivals(arrivals: &Arrivals, end: Duration) -> f64 {
        segments(arrivals, end.as_secs_f64()).iter().map(RateSegment::arrivals).sum()
    }

    /// Returns the next arrival of any shard.
    fn next_arrival(&mut self) -> Option<Nanos> {
        loop {
            let segment = self.segments.get(self.segment)?;
            let arrivals = segment.arrivals();
            // The first arrival of a constant rate is due immediately, so an arrival at the end of a segment belongs to
            // the next segment.
            if self.expected - self.before >= arrivals {
                self.before += arrivals;
                self.segment += 1;
                continue;
            }
            let due = segment.start + segment.time_of(self.expected - self.before);
            self.expected += match self.spacing {
                ArrivalSpacing::Constant => 1.0,
                ArrivalSpacing::Poisson => exponential(&mut self.random),
            };
            self.count += 1;
            return Some((due * 1e9).round() as Nanos);
        }
    }
}

impl Iterator for ArrivalSchedule {
    type Item = Nanos;

    fn next(&mut self) -> Option<Nanos> {
        loop {
            let number = self.count;
            let due = self.next_arrival()?;
            if number % u64::from(self.own.step) == u64::from(self.own.first) {
                return Some(due);
            }
        }
    }
}

/// Splits the rate over time into linear segments, spikes included, until `end`; times without arrivals are left out.
pub fn segments(arrivals: &Arrivals, end: f64) -> Vec<RateSegment> {
    let mut stages: Vec<RateSegment> = Vec::new();
    let mut start = 0.0;
    for stage in &arrivals.stages {
        let length = stage.time.as_secs_f64();
        stages.push(RateSegment { start, length, from: stage.from, to: stage.to });
        start += length;
    }
    // The last stage continues at its final rate.
    let last = arrivals.stages.last().map_or(0.0, |stage| stage.to);
    stages.push(RateSegment { start, length: (end - start).max(0.0), from: last, to: last });
    let spikes = arrivals.spikes.iter().map(|spike| (spike.at.as_secs_f64(), spike.time.as_secs_f64(), spike.rate));
    let spikes: Vec<(f64, f64, f64)> = spikes.map(|(at, time, rate)| (at, at + time, rate)).collect();
    let mut bends: Vec<f64> = stages.iter().flat_map(|stage| [stage.start, stage.start + stage.length]).collect();
    bends.extend(spikes.iter().flat_map(|(from, to, _)| [*from, *to]));
    bends.push(0.0);
    bends.push(end);
    bends.retain(|bend| (0.0..=end).contains(bend));
    bends.sort_by(f64::total_cmp);
    bends.dedup();
    let pieces = bends.windows(2).filter_map(|pair| {
        let (from, to) = (pair[0], pair[1]);
        let middle = f64::midpoint(from, to);
        let stage = stages.iter().find(|stage| (stage.start..=stage.start + stage.length).contains(&middle))?;
        let slope = if stage.length > 0.0 { (stage.to - stage.from) / stage.length } else { 0.0 };
        let extra: f64 =
            spikes.iter().filter(|(first, last, _)| (*first..*last).contains(&middle)).map(|(.., rate)| rate).sum();
        let rate = |at: f64| stage.from + slope * (at - stage.start) + extra;
        Some(RateSegment { start: from, length: to - from, from: rate(from), to: rate(to) })
    });
    pieces.filter(|piece| piece.arrivals() > 0.0).collect()
}

/// Draws from the exponential distribution with mean 1.
pub fn exponential(random: &mut SmallRng) -> f64 {
    -(1.0 - random.random::<f64>()).ln()
}

/// Draws from the standard normal distribution.
pub fn normal(random: &mut SmallRng) -> f64 {
    let angle = std::f64::consts::TAU * random.random::<f64>();
    (2.0 * exponential(random)).sqrt() * angle.cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::plan::{RateSpike, RateStage};
    use proptest::prelude::*;
    use rstest::rstest;

    const END: Duration = Duration::from_secs(10);

    fn at(rate: f64) -> RateStage {
        RateStage { from: rate, to: rate, time: Duration::ZERO }
    }

    fn arrivals(spacing: ArrivalSpacing, stages: &[RateStage], spikes: &[RateSpike]) -> Arrivals {
        Arrivals { spacing, stages: stages.to_vec(), spikes: spikes.to_vec() }
    }

    fn all(arrivals: &Arrivals, shards: u32) -> Vec<Nanos> {
        let own = |first| EveryNth { first, step: shards };
        let mut all: Vec<Nanos> =
            (0..shards).flat_map(|shard| ArrivalSchedule::new(arrivals, END, 7, own(shard))).collect();
        all.sort_unstable();
        all
    }

    /// Returns the number of arrivals due between two seconds.
    fn between(dues: &[Nanos], from: f64, to: f64) -> usize {
        dues.iter().filter(|due| (from..to).contains(&(**due as f64 / 1e9))).count()
    }

    proptest! {
        /// Each share has threads of its own number.
        #[test]
        fn all_shares_together_have_the_clients_and_arrivals_of_one_machine(
            threads in proptest::collection::vec(1_u32..5, 1..9),
            population in 0_u32..40,
            rate in 1_u32..60,
            poisson: bool,
        ) {
            let spacing = if poisson { ArrivalSpacing::Poisson } else { ArrivalSpacing::Constant };
            let arrivals = arrivals(spacing, &[at(f64::from(rate))], &[]);
            let (mut clients, mut dues) = (Vec::new(), Vec::new());
            for (share, shards) in Share::all(threads.len() as u32).zip(&threads) {
                for number in 0..*shards {
                    let place = ShardPlace { share, number, shards: *shards };
                    let EveryNth { first, step } = place.clients();
                    let own: Vec<u32> = (first..population).step_by(step as usize).collect();
                    let arriving = place.arrivals(population);
                    // Arrivals without a client count as missed once, in the first shard.
                    prop_assert!(arriving.is_none() || !own.is_empty() || population == 0);
                    clients.extend(own);
                    dues.extend(arriving.into_iter().flat_map(|own| ArrivalSchedule::new(&arrivals, END, 7, own)));
                }
            }
            clients.sort_unstable();
            dues.sort_unstable();
            prop_assert_eq!(clients, (0..population).collect::<Vec<_>>());
            prop_assert_eq!(dues, all(&arrivals, 1));
        }
    }

    #[test]
    fn arrivals_at_a_constant_rate_are_evenly_spaced() {
        let dues = all(&arrivals(ArrivalSpacing::Constant, &[at(1000.0)], &[]), 1);
        assert_eq!(dues.len(), 10_000);
        assert!(dues.iter().enumerate().all(|(n, due)| *due == n as u64 * 1_000_000), "{:?}", &dues[..3]);
    }

    #[rstest]
    #[case(arrivals(ArrivalSpacing::Constant, &[RateStage { from: 0.0, to: 1000.0, time: Duration::from_secs(10) }], &[]), &[(0.0, 5.0, 1250), (5.0, 10.0, 3750)])]
    #[case(arrivals(ArrivalSpacing::Constant, &[RateStage { from: 100.0, to: 100.0, time: Duration::from_secs(4) }, at(300.0)], &[]), &[(0.0, 4.0, 400), (4.0, 10.0, 1800)])]
    #[case(arrivals(ArrivalSpacing::Constant, &[at(100.0)], &[RateSpike { at: Duration::from_secs(2), time: Duration::from_secs(1), rate: 900.0 }]), &[(0.0, 2.0, 200), (2.0, 3.0, 1000), (3.0, 10.0, 700)])]
    #[case(arrivals(ArrivalSpacing::Constant, &[RateStage { from: 50.0, to: 50.0, time: Duration::from_secs(60) }], &[]), &[(0.0, 10.0, 500), (10.0, 100.0, 0)])]
    #[case(arrivals(ArrivalSpacing::Constant, &[at(0.0)], &[]), &[(0.0, 10.0, 0)])]
    fn stages_and_spikes_give_the_expected_numbers_of_arrivals(
        #[case] arrivals: Arrivals,
        #[case] expected: &[(f64, f64, usize)],
    ) {
        let dues = all(&arrivals, 1);
        for (from, to, count) in expected {
            let found = between(&dues, *from, *to);
            assert!(found.abs_diff(*count) <= 1, "{from} to {to}: {found}, not {count}");
        }
    }

    #[test]
    fn times_between_poisson_arrivals_are_exponentially_distributed() {
        let dues = all(&arrivals(ArrivalSpacing::Poisson, &[at(5000.0)], &[]), 1);
        let gaps: Vec<f64> = dues.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 200_000.0 - 1.0).abs() < 0.02, "{mean}");
        assert!((variance / mean.powi(2) - 1.0).abs() < 0.05, "{variance}");
    }

    #[rstest]
    #[case(ArrivalSpacing::Constant)]
    #[case(ArrivalSpacing::Poisson)]
    fn the_schedule_does_not_depend_on_the_number_of_shards(#[case] spacing: ArrivalSpacing) {
        let stages = [RateStage { from: 10.0, to: 500.0, time: Duration::from_secs(3) }, at(200.0)];
        let arrivals = arrivals(spacing, &stages, &[]);
        let alone = all(&arrivals, 1);
        assert_eq!(all(&arrivals, 2), alone);
        assert_eq!(all(&arrivals, 7), alone);
        let expected = ArrivalSchedule::expected_arrivals(&arrivals, END);
        assert!((alone.len() as f64 / expected - 1.0).abs() < 0.1, "{} of {expected}", alone.len());
    }
}
