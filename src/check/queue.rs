//! The order in which jobs are played: basic ones first, then those with the longest waits, skipping jobs whose resource is
//! in use. Jobs that may bring the hub down come after all others. Spare jobs are played only in slots that no other job
//! can use.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::play_in_order;

/// A resource that only one job at a time may use: the address of its subject, and the name in `exclusive` of its
/// scenarios.
pub type Resource = (usize, String);

pub struct Queued<T> {
    pub item: T,
    /// How long the item is known to wait.
    pub wait: Duration,
    pub resource: Option<Resource>,
    /// Whether the item is played before others, whatever these wait.
    pub basic: bool,
    /// Whether the item is played after others, because it may bring the hub down.
    pub rough: bool,
    /// Whether the item is played only in a slot that would be idle.
    pub spare: bool,
}

struct Queue<T> {
    /// Basic items first, rough ones and then spare ones last, otherwise the longest wait first.
    pending: Vec<Queued<T>>,
    in_use: BTreeSet<Resource>,
    /// The number of items that are not spare and have not ended.
    unfinished: usize,
    /// The number of spare items that are being played.
    spares_playing: usize,
    /// Whether spare items are played when no other item is left.
    to_the_end: bool,
    spares: SpareTime,
}

/// How long spare items are played even if no other item is left.
#[derive(Clone, Copy)]
pub struct SpareTime {
    pub until: Instant,
    /// How long they are played at least after the last other item, which may have ended late.
    pub least: Duration,
}

impl<T> Queue<T> {
    fn new(mut pending: Vec<Queued<T>>, to_the_end: bool, spares: SpareTime) -> Self {
        pending.sort_by_key(|queued| {
            // Where some spare items may never be played, they keep their order.
            let moved = (!queued.spare || to_the_end).then_some((queued.rough, !queued.basic, Reverse(queued.wait)));
            (queued.spare, moved)
        });
        let unfinished = pending.iter().filter(|queued| !queued.spare).count();
        Self { pending, in_use: BTreeSet::new(), unfinished, spares_playing: 0, to_the_end, spares }
    }

    /// Takes the next item whose resource is free and that is ready, and reserves the resource.
    fn take(&mut self, is_ready: &dyn Fn(&T, usize) -> bool) -> Option<Queued<T>> {
        let spares = self.unfinished > 0 || self.to_the_end || Instant::now() < self.spares.until;
        let fits = |queued: &Queued<T>| {
            let is_free = queued.resource.iter().all(|one| !self.in_use.contains(one));
            is_free && (!queued.spare || spares && is_ready(&queued.item, self.spares_playing))
        };
        let next = self.pending.remove(self.pending.iter().position(fits)?);
        self.in_use.extend(next.resource.clone());
        self.spares_playing += usize::from(next.spare);
        Some(next)
    }

    fn release(&mut self, resource: Option<&Resource>, spare: bool) {
        self.in_use.retain(|one| Some(one) != resource);
        if !spare {
            self.unfinished -= 1;
            if self.unfinished == 0 {
                self.spares.until = self.spares.until.max(Instant::now() + self.spares.least);
            }
        }
        self.spares_playing -= usize::from(spare);
    }
}

/// How a queue is drained.
pub struct Draining<'a, T> {
    /// How many items are played at a time.
    pub at_once: usize,
    /// Whether spare items are played when no other item is left.
    pub to_the_end: bool,
    pub spares: SpareTime,
    /// Whether a spare item may be played by now, beside this number of others.
    pub is_ready: &'a (dyn Fn(&T, usize) -> bool + Sync),
}

/// Plays the items of a queue until all have ended or `interrupt` is true.
pub async fn drain<T, F>(
    items: Vec<Queued<T>>,
    draining: Draining<'_, T>,
    interrupt: &watch::Receiver<bool>,
    play: impl Fn(T) -> F,
) where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let queue = Arc::new(Mutex::new(Queue::new(items, draining.to_the_end, draining.spares)));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).take(draining.is_ready);
    let play = |Queued { item, resource, spare, .. }: Queued<T>| {
        let (queue, playing) = (Arc::clone(&queue), play(item));
        async move {
            playing.await;
            queue.lock().unwrap_or_else(PoisonError::into_inner).release(resource.as_ref(), spare);
        }
    };
    play_in_order(next, draining.at_once, interrupt, play).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays items that take as long as they wait, on virtual time. Returns when each began, by position, and how long
    /// all took, in seconds.
    fn play(items: &[(u64, Option<&str>)], at_once: usize) -> (Vec<u64>, u64) {
        let plain: Vec<_> = items.iter().map(|&(wait, resource)| (wait, resource, false)).collect();
        play_with_spares(&plain, at_once, false, usize::MAX)
    }

    /// The same with spare items, which are marked by `true`, and of which at most `spares` are played at a time.
    fn play_with_spares(
        items: &[(u64, Option<&str>, bool)],
        at_once: usize,
        to_the_end: bool,
        spares: usize,
    ) -> (Vec<u64>, u64) {
        let queued = |(number, &(wait, resource, spare)): (usize, &(u64, Option<&str>, bool))| Queued {
            item: number,
            wait: Duration::from_secs(wait),
            resource: resource.map(|name| (0, name.to_owned())),
            basic: false,
            rough: resource == Some("rough"),
            spare,
        };
        let mut queue = Queue::new(items.iter().enumerate().map(queued).collect(), to_the_end, spare_time(0, 0));
        let (mut starts, mut now, mut playing) = (vec![u64::MAX; items.len()], 0, Vec::new());
        loop {
            while playing.len() < at_once {
                let Some(taken) = queue.take(&|_, playing| playing < spares) else { break };
                starts[taken.item] = now;
                playing.push((now + taken.wait.as_secs(), taken.resource, taken.spare));
            }
            playing.sort();
            if playing.is_empty() {
                return (starts, now);
            }
            let (end, resource, spare) = playing.remove(0);
            now = end;
            queue.release(resource.as_ref(), spare);
        }
    }

    /// Gives spare items this many seconds from now, and at least so many once the last other item has ended.
    fn spare_time(from_now: u64, least: u64) -> SpareTime {
        SpareTime { until: Instant::now() + Duration::from_secs(from_now), least: Duration::from_secs(least) }
    }

    #[test]
    fn the_longest_wait_starts_first() {
        assert_eq!(play(&[(1, None), (1, None), (5, None)], 2), (vec![0, 1, 0], 5));
    }

    #[test]
    fn a_job_whose_resource_is_in_use_leaves_its_slot_to_the_next() {
        let items = [(5, Some("queue")), (4, Some("queue")), (3, None), (2, Some("list"))];
        assert_eq!(play(&items, 2), (vec![0, 5, 0, 3], 9));
    }

    #[test]
    fn a_job_that_may_bring_the_hub_down_starts_last() {
        assert_eq!(play(&[(3, Some("rough")), (1, None), (2, None)], 1), (vec![3, 2, 0], 6));
    }

    #[test]
    fn spare_jobs_fill_idle_slots_and_do_not_prolong_the_run() {
        const NEVER: u64 = u64::MAX;
        let items =
            [(1, None, true), (2, None, true), (5, None, false), (1, None, true), (1, None, true), (4, None, false)];
        assert_eq!(play_with_spares(&items, 2, false, 2), (vec![4, NEVER, 0, NEVER, NEVER, 0], 5));
        assert_eq!(play_with_spares(&items, 2, true, 2), (vec![5, 4, 0, 6, 6, 0], 7));
    }

    #[test]
    fn a_slow_hub_gets_one_spare_job_at_a_time() {
        let items = [(4, None, false), (2, None, true), (1, None, true), (1, None, true)];
        assert_eq!(play_with_spares(&items, 4, false, 3), (vec![0, 0, 0, 0], 4));
        assert_eq!(play_with_spares(&items, 4, false, 1), (vec![0, 0, 2, 3], 4));
    }

    #[test]
    fn spare_jobs_are_played_until_a_time_even_if_no_other_is_left() {
        let item = |item, spare| {
            let wait = Duration::ZERO;
            Queued { item, wait, resource: None, basic: false, rough: false, spare }
        };
        let taken = |spares| {
            // Not even one of a basic scenario comes before its turn: it has many variations.
            let items = vec![item(1, false), item(2, true), Queued { basic: true, ..item(3, true) }];
            let mut queue = Queue::new(items, false, spares);
            queue.take(&|_, _| true).unwrap();
            queue.release(None, false);
            std::iter::from_fn(|| queue.take(&|_, _| true)).map(|queued| queued.item).collect::<Vec<_>>()
        };
        assert_eq!(taken(spare_time(3600, 0)), [2, 3]);
        assert_eq!(taken(spare_time(0, 3600)), [2, 3]);
        assert!(taken(spare_time(0, 0)).is_empty());
    }
}
