//! The order in which jobs are played: those that wait longest first, and none that would only wait for a resource in use.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

/// What only one job at a time may use: the address of its subject, and the name that scenarios give it (`exclusive`).
pub type Resource = (usize, String);

pub struct Queued<T> {
    pub item: T,
    /// How long the item is known to wait.
    pub wait: Duration,
    pub resource: Option<Resource>,
}

/// Plays items, at most `at_once` at a time, and returns when all that were started have ended. Each is played with its
/// position in `queue`. Starts no more once `interrupt` is true.
///
/// # Panics
///
/// If `play` panics.
pub async fn drain<T, F>(
    queue: Vec<Queued<T>>,
    at_once: usize,
    interrupt: &watch::Receiver<bool>,
    play: impl Fn(usize, T) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pending: Vec<_> = queue.into_iter().enumerate().collect();
    pending.sort_by_key(|(_, queued)| Reverse(queued.wait));
    let mut in_use = BTreeSet::new();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < at_once.max(1) && !*interrupt.borrow() {
            let is_free = |(_, queued): &(_, Queued<T>)| queued.resource.iter().all(|one| !in_use.contains(one));
            let Some(next) = pending.iter().position(is_free) else { break };
            let (number, Queued { item, resource, .. }) = pending.remove(next);
            in_use.extend(resource.clone());
            let playing = play(number, item);
            tasks.spawn(async move {
                playing.await;
                resource
            });
        }
        match tasks.join_next().await {
            None => return,
            Some(Ok(resource)) => in_use.retain(|one| Some(one) != resource.as_ref()),
            Some(Err(error)) => {
                if let Ok(panic) = error.try_into_panic() {
                    resume_unwind(panic);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Plays items that take as long as they wait, on virtual time. Returns when each began, by position, and the time
    /// that all took, in seconds.
    async fn played(items: &[(u64, Option<&str>)], at_once: usize) -> (Vec<u64>, u64) {
        let queued = |&(wait, resource): &(u64, Option<&str>)| Queued {
            item: wait,
            wait: wait as u32 * SECOND,
            resource: resource.map(|name| (0, name.to_owned())),
        };
        let begun = tokio::time::Instant::now();
        let starts = Arc::new(Mutex::new(vec![u64::MAX; items.len()]));
        let (_keep, interrupt) = watch::channel(false);
        drain(items.iter().map(queued).collect(), at_once, &interrupt, |number, wait| {
            let starts = Arc::clone(&starts);
            async move {
                starts.lock().unwrap()[number] = begun.elapsed().as_secs();
                tokio::time::sleep(wait as u32 * SECOND).await;
            }
        })
        .await;
        let starts = starts.lock().unwrap().clone();
        (starts, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_comes_first() {
        assert_eq!(played(&[(1, None), (1, None), (5, None)], 2).await, (vec![0, 1, 0], 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_whose_resource_is_in_use_leaves_its_slot_to_the_next() {
        let items = [(5, Some("queue")), (4, Some("queue")), (3, None), (2, Some("list"))];
        assert_eq!(played(&items, 2).await, (vec![0, 5, 0, 3], 9));
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupted_queue_starts_no_more_jobs() {
        let (stop, interrupt) = watch::channel(false);
        let played = Arc::new(Mutex::new(Vec::new()));
        let queue = [3, 2, 1].map(|item| Queued { item, wait: item * SECOND, resource: None });
        drain(queue.into(), 1, &interrupt, |_, item| {
            let _ = stop.send(item == 2);
            let played = Arc::clone(&played);
            async move { played.lock().unwrap().push(item) }
        })
        .await;
        assert_eq!(*played.lock().unwrap(), [3, 2]);
    }
}
