//! The timers of a shard: a heap with at most two live entries per slot and few stale ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::load::Nanos;

/// The timer state of a slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotTimer {
    /// When the slot wants to be woken.
    wanted: Nanos,
    /// The slot's earliest entry in the heap; a later time waits for that entry to come up.
    queued: Nanos,
    /// The slot's second entry in the heap, for a client that alternates between an early and a late time while it
    /// waits for an answer: without it every change from early to late would leave a stale entry.
    queued_later: Nanos,
}

impl Default for SlotTimer {
    fn default() -> Self {
        Self { wanted: Nanos::MAX, queued: Nanos::MAX, queued_later: Nanos::MAX }
    }
}

/// The timers of a shard.
///
/// A waiting client moves its timer with every message, mostly to a later time. That costs nothing here: the heap
/// changes only for an earlier time, or when the earlier entry comes up.
#[derive(Debug, Default)]
pub struct ShardTimers {
    heap: BinaryHeap<Reverse<(Nanos, u32)>>,
}

impl ShardTimers {
    /// Sets the timer of `slot`, replacing an earlier setting.
    pub fn set(&mut self, slot: u32, alarm: &mut SlotTimer, at: Nanos) {
        alarm.wanted = at;
        if at < alarm.queued {
            // Of three entries the latest one becomes stale: late times are rarely set.
            alarm.queued_later = std::mem::replace(&mut alarm.queued, at);
            self.heap.push(Reverse((at, slot)));
        }
    }

    /// Returns the time of the next entry, which may be stale.
    pub fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes an entry that is due by `now`; [`ShardTimers::fires`] tells whether it is live.
    pub fn pop(&mut self, now: Nanos) -> Option<(u32, Nanos)> {
        let Reverse((at, slot)) = *self.heap.peek()?;
        (at <= now).then(|| {
            self.heap.pop();
            (slot, at)
        })
    }

    /// Returns the time that the slot wanted to be woken at, if the entry is live and that time has come.
    pub fn fires(&mut self, slot: u32, alarm: &mut SlotTimer, entry: Nanos, now: Nanos) -> Option<Nanos> {
        if entry != alarm.queued {
            // An earlier entry has replaced it.
            return None;
        }
        alarm.queued = std::mem::replace(&mut alarm.queued_later, Nanos::MAX);
        if alarm.wanted <= now {
            return Some(std::mem::replace(&mut alarm.wanted, Nanos::MAX));
        }
        if alarm.wanted != Nanos::MAX {
            self.set(slot, alarm, alarm.wanted);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the slot and time of every timer that fires until `now`.
    fn due(timers: &mut ShardTimers, alarms: &mut [SlotTimer], now: Nanos) -> Vec<(u32, Nanos)> {
        let mut fired = Vec::new();
        while let Some((slot, entry)) = timers.pop(now) {
            let since = timers.fires(slot, &mut alarms[slot as usize], entry, now);
            fired.extend(since.map(|since| (slot, since)));
        }
        fired
    }

    #[test]
    fn moving_a_timer_to_a_later_time_adds_no_entry_to_the_heap() {
        let (mut timers, mut alarms) = (ShardTimers::default(), [SlotTimer::default()]);
        for at in 10..100_000 {
            timers.set(0, &mut alarms[0], at);
        }
        assert_eq!(timers.heap.len(), 1);
        assert_eq!(due(&mut timers, &mut alarms, 50_000), []);
        assert_eq!(due(&mut timers, &mut alarms, 99_999), [(0, 99_999)]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_timer_that_alternates_between_early_and_late_leaves_no_stale_entries() {
        let (mut timers, mut alarms) = (ShardTimers::default(), [SlotTimer::default()]);
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
        fn every_timer_fires_once_at_the_time_set_last(wishes in proptest::collection::vec((0..4_u32, 1..50_u64), 0..40), step in 1..20_u64) {
            let (mut timers, mut alarms) = (ShardTimers::default(), [SlotTimer::default(); 4]);
            let mut last = std::collections::BTreeMap::new();
            for (slot, at) in wishes {
                timers.set(slot, &mut alarms[slot as usize], at);
                last.insert(slot, at);
            }
            let mut fired = Vec::new();
            for now in (0..=60).step_by(step as usize) {
                for (slot, since) in due(&mut timers, &mut alarms, now) {
                    prop_assert!(since <= now && since + step > now);
                    fired.push((slot, since));
                }
            }
            fired.sort_unstable();
            let late = 60 / step * step;
            prop_assert_eq!(fired, last.into_iter().filter(|(_, at)| *at <= late).collect::<Vec<_>>());
        }
    }
}
