//! The order in which jobs are played: longest waits first, skipping jobs whose resource is in use.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
}

struct Queue<T> {
    /// The longest wait first.
    pending: Vec<Queued<T>>,
    in_use: BTreeSet<Resource>,
}

impl<T> Queue<T> {
    fn new(mut pending: Vec<Queued<T>>) -> Self {
        pending.sort_by_key(|queued| Reverse(queued.wait));
        Self { pending, in_use: BTreeSet::new() }
    }

    /// Takes the next item whose resource is free, and reserves the resource.
    fn take(&mut self) -> Option<Queued<T>> {
        let is_free = |queued: &Queued<T>| queued.resource.iter().all(|one| !self.in_use.contains(one));
        let next = self.pending.remove(self.pending.iter().position(is_free)?);
        self.in_use.extend(next.resource.clone());
        Some(next)
    }

    fn release(&mut self, resource: Option<&Resource>) {
        self.in_use.retain(|one| Some(one) != resource);
    }
}

/// Plays the items of a queue, at most `at_once` at a time, until all have ended or `interrupt` is true.
pub async fn drain<T, F>(
    items: Vec<Queued<T>>,
    at_once: usize,
    interrupt: &watch::Receiver<bool>,
    play: impl Fn(T) -> F,
) where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let queue = Arc::new(Mutex::new(Queue::new(items)));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    let play = |Queued { item, resource, .. }: Queued<T>| {
        let (queue, playing) = (Arc::clone(&queue), play(item));
        async move {
            playing.await;
            queue.lock().unwrap_or_else(PoisonError::into_inner).release(resource.as_ref());
        }
    };
    play_in_order(next, at_once, interrupt, play).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays items that take as long as they wait, on virtual time. Returns when each began, by position, and how long
    /// all took, in seconds.
    fn play(items: &[(u64, Option<&str>)], at_once: usize) -> (Vec<u64>, u64) {
        let queued = |(number, &(wait, resource)): (usize, &(u64, Option<&str>))| Queued {
            item: number,
            wait: Duration::from_secs(wait),
            resource: resource.map(|name| (0, name.to_owned())),
        };
        let mut queue = Queue::new(items.iter().enumerate().map(queued).collect());
        let (mut starts, mut now, mut playing) = (vec![u64::MAX; items.len()], 0, Vec::new());
        loop {
            while playing.len() < at_once {
                let Some(taken) = queue.take() else { break };
                starts[taken.item] = now;
                playing.push((now + taken.wait.as_secs(), taken.resource));
            }
            playing.sort();
            if playing.is_empty() {
                return (starts, now);
            }
            let (end, resource) = playing.remove(0);
            now = end;
            queue.release(resource.as_ref());
        }
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
}
