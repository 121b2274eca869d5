//! When which seat wants to be woken: a heap with two entries per seat that count, and few that have fallen behind.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::load::Nanos;

/// What a seat keeps of its alarm.
#[derive(Clone, Copy, Debug)]
pub struct Alarm {
    /// When it wants to be woken.
    wanted: Nanos,
    /// Its earliest entry in the heap; a later wish waits for that one to come up.
    queued: Nanos,
    /// The next entry behind that, for a client that now wants to be woken soon and now, while it waits for an answer, late:
    /// without it every change from soon to late would leave another entry behind.
    behind: Nanos,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { wanted: Nanos::MAX, queued: Nanos::MAX, behind: Nanos::MAX }
    }
}

/// The alarms of a shard.
///
/// A client that waits for answers moves its alarm with every message, mostly to later; that costs nothing here: the heap
/// is touched only for an earlier time, or when the earlier entry comes up.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Nanos, u32)>>,
}

impl Timers {
    /// Wakes `seat` at this time and at no other.
    pub fn set(&mut self, seat: u32, alarm: &mut Alarm, at: Nanos) {
        alarm.wanted = at;
        if at < alarm.queued {
            // Of three, the one farthest away falls behind: it was made seldom.
            alarm.behind = std::mem::replace(&mut alarm.queued, at);
            self.heap.push(Reverse((at, seat)));
        }
    }

    /// The next entry, which may turn out to be stale.
    pub fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes an entry that has come up by `now`: its seat, to be asked by [`Timers::fires`].
    pub fn pop(&mut self, now: Nanos) -> Option<(u32, Nanos)> {
        let Reverse((at, seat)) = *self.heap.peek()?;
        (at <= now).then(|| {
            self.heap.pop();
            (seat, at)
        })
    }

    /// Whether the seat of an entry that was taken wants to be woken by now; since when.
    pub fn fires(&mut self, seat: u32, alarm: &mut Alarm, entry: Nanos, now: Nanos) -> Option<Nanos> {
        if entry != alarm.queued {
            // An earlier entry has taken its place.
            return None;
        }
        alarm.queued = std::mem::replace(&mut alarm.behind, Nanos::MAX);
        if alarm.wanted <= now {
            return Some(std::mem::replace(&mut alarm.wanted, Nanos::MAX));
        }
        if alarm.wanted != Nanos::MAX {
            self.set(seat, alarm, alarm.wanted);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All that fires until `now`: seat and time.
    fn due(timers: &mut Timers, alarms: &mut [Alarm], now: Nanos) -> Vec<(u32, Nanos)> {
        let mut fired = Vec::new();
        while let Some((seat, entry)) = timers.pop(now) {
            let since = timers.fires(seat, &mut alarms[seat as usize], entry, now);
            fired.extend(since.map(|since| (seat, since)));
        }
        fired
    }

    #[test]
    fn a_later_wish_costs_no_entry() {
        let (mut timers, mut alarms) = (Timers::default(), [Alarm::default()]);
        for at in 10..100_000 {
            timers.set(0, &mut alarms[0], at);
        }
        assert_eq!(timers.heap.len(), 1);
        assert_eq!(due(&mut timers, &mut alarms, 50_000), []);
        assert_eq!(due(&mut timers, &mut alarms, 99_999), [(0, 99_999)]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn soon_and_late_in_turn_leave_nothing_behind() {
        let (mut timers, mut alarms) = (Timers::default(), [Alarm::default()]);
        for now in 0..10_000 {
            timers.set(0, &mut alarms[0], now);
            assert_eq!(due(&mut timers, &mut alarms, now), [(0, now)]);
            timers.set(0, &mut alarms[0], now + 30_000);
            timers.set(0, &mut alarms[0], now + 10_000);
            assert!(timers.heap.len() <= 2, "{}", timers.heap.len());
        }
        assert_eq!(due(&mut timers, &mut alarms, 19_998), []);
        assert_eq!(due(&mut timers, &mut alarms, 19_999), [(0, 19_999)]);
    }

    proptest! {
        #[test]
        fn every_seat_fires_once_when_it_last_wished(wishes in proptest::collection::vec((0..4_u32, 1..50_u64), 0..40), step in 1..20_u64) {
            let (mut timers, mut alarms) = (Timers::default(), [Alarm::default(); 4]);
            let mut last = std::collections::BTreeMap::new();
            for (seat, at) in wishes {
                timers.set(seat, &mut alarms[seat as usize], at);
                last.insert(seat, at);
            }
            let mut fired = Vec::new();
            for now in (0..=60).step_by(step as usize) {
                for (seat, since) in due(&mut timers, &mut alarms, now) {
                    prop_assert!(since <= now && since + step > now);
                    fired.push((seat, since));
                }
            }
            fired.sort_unstable();
            let late = 60 / step * step;
            prop_assert_eq!(fired, last.into_iter().filter(|(_, at)| *at <= late).collect::<Vec<_>>());
        }
    }
}
