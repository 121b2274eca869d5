//! A job: what it asks for, what became of it, and the store of all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Number;
use serde_json::value::RawValue;

use super::needs::{Amount, Needs};
use super::queue::{JobNo, Rank};
use crate::machine::Conn;

/// What a job's `status` says. The document never names `failed`, although jobs fail (lines 311 to 344).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Queued,
    Assigned,
    InProgress,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Assigned => "assigned",
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In the queue.
    Queued,
    /// Failed, and back in the queue at that time.
    Delayed { until: Duration },
    /// Assigned; back in the queue at that time unless the worker accepts.
    Claimed { worker: Conn, until: Duration },
    /// Accepted by its worker.
    Accepted { worker: Conn },
    /// Being worked on.
    InProgress { worker: Conn },
    /// At its end.
    Ended(Status),
}

impl State {
    /// What clients are told.
    pub fn status(self) -> Status {
        match self {
            State::Queued | State::Delayed { .. } => Status::Queued,
            State::Claimed { .. } | State::Accepted { .. } => Status::Assigned,
            State::InProgress { .. } => Status::InProgress,
            State::Ended(status) => status,
        }
    }

    /// The worker that has the job.
    pub fn holder(self) -> Option<Conn> {
        match self {
            State::Claimed { worker, .. } | State::Accepted { worker } | State::InProgress { worker } => Some(worker),
            State::Queued | State::Delayed { .. } | State::Ended(_) => None,
        }
    }
}

/// A job.
#[derive(Debug)]
pub struct Job {
    /// `job_id`.
    pub id: Arc<str>,
    /// Its place among the waiting.
    pub rank: Rank,
    /// What it needs of a worker.
    pub needs: Arc<Needs>,
    /// `priority` as submitted.
    pub priority: Number,
    /// `priority` as a number to compare.
    pub amount: Amount,
    /// `customer_id`.
    pub customer: Option<Arc<str>>,
    /// `payload` as submitted, until the job ends.
    pub payload: Option<Box<RawValue>>,
    /// `requirements` as submitted, until the job ends.
    pub requirements: Option<Box<RawValue>>,
    /// Where it is.
    pub state: State,
    /// What its clients were last told of its state.
    pub told: Status,
    /// How often it has failed.
    pub failures: u32,
    /// The worker that has or last had it.
    pub worker_id: Option<Arc<str>>,
    /// The worker's last `progress`.
    pub progress: Option<Number>,
    /// The worker's last `message`.
    pub message: Option<String>,
    /// The worker's last `estimated_completion`.
    pub estimated_completion: Option<String>,
    /// When a worker accepted it, in Unix milliseconds.
    pub started_at: Option<u64>,
    /// Who is told of it: the submitter and who subscribed to it.
    pub watchers: BTreeSet<Conn>,
    /// The bytes that the submission takes up until the job ends.
    pub size: usize,
}

/// All jobs, of those that have ended only the latest.
#[derive(Debug, Default)]
pub struct Jobs {
    jobs: BTreeMap<JobNo, Job>,
    names: HashMap<Arc<str>, JobNo>,
    ended: VecDeque<JobNo>,
    /// How many are assigned or worked on.
    active: usize,
    /// The bytes of all jobs that have not ended.
    bytes: usize,
}

impl Jobs {
    /// The job with this id.
    pub fn named(&self, id: &str) -> Option<JobNo> {
        self.names.get(id).copied()
    }

    /// A job.
    pub fn get(&self, number: JobNo) -> Option<&Job> {
        self.jobs.get(&number)
    }

    /// A job, to change anything but its state.
    pub fn get_mut(&mut self, number: JobNo) -> Option<&mut Job> {
        self.jobs.get_mut(&number)
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// How many wait for a worker or for their retry.
    pub fn pending(&self) -> usize {
        self.unfinished().saturating_sub(self.active)
    }

    /// How many a worker has.
    pub fn active(&self) -> usize {
        self.active
    }

    /// How many have not ended.
    pub fn unfinished(&self) -> usize {
        self.jobs.len() - self.ended.len()
    }

    /// The bytes of those that have not ended.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a job that has not ended.
    pub fn insert(&mut self, job: Job) {
        self.names.insert(job.id.clone(), job.rank.number);
        self.active += usize::from(job.state.holder().is_some());
        self.bytes += job.size;
        self.jobs.insert(job.rank.number, job);
    }

    /// Moves a job that has not ended to another state, and returns the one it was in.
    pub fn set_state(&mut self, number: JobNo, state: State) -> Option<State> {
        let job = self.jobs.get_mut(&number)?;
        let before = std::mem::replace(&mut job.state, state);
        self.active -= usize::from(before.holder().is_some());
        self.active += usize::from(state.holder().is_some());
        Some(before)
    }

    /// A job has ended, in the state it is in. Of those that ended before it only `keep` stay known.
    pub fn end(&mut self, number: JobNo, keep: usize) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        self.bytes -= job.size;
        job.size = 0;
        job.payload = None;
        job.requirements = None;
        self.ended.push_back(number);
        while self.ended.len() > keep.max(1) {
            if let Some(oldest) = self.ended.pop_front()
                && let Some(job) = self.jobs.remove(&oldest)
            {
                self.names.remove(&job.id);
            }
        }
    }
}
