//! The queue: waiting jobs by priority, found by a worker's capabilities without a scan.
//!
//! Jobs with the same needs form a class. A claim checks only the first job of each class that needs one
//! of the worker's services, best first, and stops at the first that fits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::needs::{Amount, JobNeeds};

/// A job's number, in the order of submission; never reused.
pub type JobNumber = u64;

/// A job's place: by priority, then by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobRank {
    priority: Reverse<Amount>,

    pub number: JobNumber,
}

impl JobRank {
    /// The place of a job with this priority.
    pub fn new(priority: Amount, number: JobNumber) -> JobRank {
        JobRank { priority: Reverse(priority), number }
    }

    pub fn priority(self) -> Amount {
        self.priority.0
    }
}

/// The jobs that can be claimed.
#[derive(Debug, Default)]
pub struct JobQueue {
    classes: HashMap<Arc<JobNeeds>, BTreeSet<JobRank>>,
    /// The first job of each set of jobs with equal needs, by the service that they need.
    heads: HashMap<Option<Arc<str>>, BTreeMap<JobRank, Arc<JobNeeds>>>,
    /// The number of jobs with each priority.
    waiting: BTreeMap<Amount, usize>,
    len: usize,
}

impl JobQueue {
    /// Counts the jobs.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a job.
    pub fn push(&mut self, rank: JobRank, needs: &Arc<JobNeeds>) {
        let class = self.classes.entry(needs.clone()).or_default();
        let head = class.first().copied();
        if !class.insert(rank) {
            return;
        }
        self.len += 1;
        *self.waiting.entry(rank.priority()).or_default() += 1;
        if head.is_none_or(|head| rank < head) {
            let heads = self.heads.entry(needs.service.clone()).or_default();
            if let Some(head) = head {
                heads.remove(&head);
            }
            heads.insert(rank, needs.clone());
        }
    }

    /// Removes a job and returns whether it was in the queue.
    pub fn remove(&mut self, rank: JobRank, needs: &Arc<JobNeeds>) -> bool {
        let Some(class) = self.classes.get_mut(needs) else { return false };
        let head = class.first().copied();
        if !class.remove(&rank) {
            return false;
        }
        let next = class.first().copied();
        if next.is_none() {
            self.classes.remove(needs);
        }
        self.len -= 1;
        if let Some(count) = self.waiting.get_mut(&rank.priority()) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&rank.priority());
            }
        }
        if head == Some(rank)
            && let Some(heads) = self.heads.get_mut(&needs.service)
        {
            heads.remove(&rank);
            if let Some(next) = next {
                heads.insert(next, needs.clone());
            } else if heads.is_empty() {
                self.heads.remove(&needs.service);
            }
        }
        true
    }

    /// For faults: returns the first job that fits, after a scan of all different needs.
    pub fn first_fitting(&self, fits: impl Fn(&JobNeeds) -> bool) -> Option<(JobRank, Arc<JobNeeds>)> {
        let heads = self.heads.values().flatten().filter(|(_, needs)| fits(needs));
        heads.min_by_key(|(rank, _)| **rank).map(|(rank, needs)| (*rank, needs.clone()))
    }

    /// Counts the jobs that will be claimed before a new one with this priority.
    pub fn count_ahead(&self, priority: Amount) -> usize {
        self.waiting.range(priority..).map(|(_, count)| count).sum()
    }

    /// Returns the best job that fits and needs no service or one of these: highest priority first, then preferred,
    /// then oldest. A worker without preferences prefers every type.
    pub fn best_fitting<'a>(
        &self,
        services: impl Iterator<Item = &'a Arc<str>>,
        fits: impl Fn(&JobNeeds) -> bool,
        preferred: impl Fn(&JobNeeds) -> bool,
    ) -> Option<(JobRank, Arc<JobNeeds>)> {
        let mut best: Option<(JobRank, bool, &Arc<JobNeeds>)> = None;
        for service in std::iter::once(None).chain(services.map(|service| Some(service.clone()))) {
            let Some(heads) = self.heads.get(&service) else { continue };
            for (&rank, needs) in heads {
                // Neither this nor any later job is better than the best so far.
                if best.is_some_and(|(found, liked, _)| rank.priority > found.priority || (liked && rank > found)) {
                    break;
                }
                if !fits(needs) {
                    continue;
                }
                let likes = preferred(needs);
                let better = best.is_none_or(|(found, liked, _)| {
                    (rank.priority, !likes, rank.number) < (found.priority, !liked, found.number)
                });
                if better {
                    best = Some((rank, likes, needs));
                }
            }
        }
        best.map(|(rank, _, needs)| (rank, needs.clone()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn needs(service: u8, kind: u8) -> Arc<JobNeeds> {
        Arc::new(JobNeeds {
            job_type: format!("t{kind}").into(),
            service: (service > 0).then(|| format!("s{service}").into()),
            ..JobNeeds::default()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// The queue finds the same job as a scan of all jobs.
        #[test]
        fn the_queue_finds_the_same_best_job_as_a_scan_of_all_jobs(
            jobs in prop::collection::vec((0u8..4, 0u8..3, 0u8..4), 0..60),
            removed in prop::collection::vec(0usize..60, 0..30),
            offered in prop::collection::btree_set(1u8..4, 0..3),
            liked in prop::option::of(0u8..3),
            unfit in prop::option::of(0u8..3),
        ) {
            let mut queue = JobQueue::default();
            let mut all = Vec::new();
            for (number, (service, kind, priority)) in jobs.into_iter().enumerate() {
                let (rank, needs) = (JobRank::new(Amount::new(priority.into()), number as u64), needs(service, kind));
                queue.push(rank, &needs);
                queue.push(rank, &needs);
                all.push((rank, needs));
            }
            for index in removed {
                if index < all.len() {
                    let (rank, needs) = all.swap_remove(index);
                    prop_assert!(queue.remove(rank, &needs));
                    prop_assert!(!queue.remove(rank, &needs));
                }
            }
            let offered: BTreeSet<Arc<str>> = offered.into_iter().map(|service| format!("s{service}").into()).collect();
            let fits = |needs: &JobNeeds| unfit.is_none_or(|kind| *needs.job_type != format!("t{kind}"));
            let prefers = |needs: &JobNeeds| liked.is_none_or(|kind| *needs.job_type == format!("t{kind}"));
            let want = all
                .iter()
                .filter(|(_, needs)| needs.service.as_ref().is_none_or(|service| offered.contains(service)))
                .filter(|(_, needs)| fits(needs))
                .min_by_key(|(rank, needs)| (rank.priority, !prefers(needs), rank.number));
            prop_assert_eq!(queue.best_fitting(offered.iter(), fits, prefers), want.cloned());
            prop_assert_eq!(queue.len(), all.len());
            let middling = Amount::new(2.0);
            let ahead = all.iter().filter(|(rank, _)| rank.priority() >= middling).count();
            prop_assert_eq!(queue.count_ahead(middling), ahead);
            for (rank, needs) in &all {
                queue.remove(*rank, needs);
            }
            prop_assert!(queue.classes.is_empty() && queue.heads.is_empty() && queue.waiting.is_empty());
        }
    }
}
