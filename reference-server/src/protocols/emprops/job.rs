//! A job, and the store of all jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Number;
use serde_json::value::RawValue;

use super::needs::{Amount, Needs};
use super::queue::{JobNo, Rank};
use super::reply::Reply;
use crate::machine::Conn;

/// The `status` of a job. The document never names `failed`, although jobs fail (lines 311 to 344).
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
    /// Returns the name of the status in messages.
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

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In the queue.
    Queued,
    /// Failed; the job returns to the queue at `until`.
    Delayed { until: Duration },
    /// Assigned; the job returns to the queue at `until` unless the worker accepts.
    Claimed { worker: Conn, until: Duration },
    /// Accepted by its worker.
    Accepted { worker: Conn },
    /// Being worked on.
    InProgress { worker: Conn },
    /// Completed, failed or cancelled.
    Ended(Status),
}

impl State {
    /// Returns the status that clients see.
    pub fn status(self) -> Status {
        match self {
            State::Queued | State::Delayed { .. } => Status::Queued,
            State::Claimed { .. } | State::Accepted { .. } => Status::Assigned,
            State::InProgress { .. } => Status::InProgress,
            State::Ended(status) => status,
        }
    }

    /// Returns the worker that holds the job.
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
    pub id: Arc<str>,
    /// The job's place in the queue.
    pub rank: Rank,

    pub needs: Arc<Needs>,

    pub priority: Number,
    /// `priority`, for comparisons.
    pub amount: Amount,
    pub customer: Option<Arc<str>>,
    /// `payload` as submitted, until the job ends.
    pub payload: Option<Box<RawValue>>,
    /// `requirements` as submitted, until the job ends.
    pub requirements: Option<Box<RawValue>>,

    pub state: State,
    /// The status last sent to clients.
    pub reported: Status,
    /// The number of failures so far.
    pub failures: u32,
    /// The worker that holds the job, or held it last.
    pub worker_id: Option<Arc<str>>,
    /// The worker's last `progress`.
    pub progress: Option<Number>,
    /// The worker's last `message`.
    pub message: Option<String>,
    /// The worker's last `estimated_completion`.
    pub estimated_completion: Option<String>,
    /// When a worker accepted the job, in Unix milliseconds.
    pub started_at: Option<u64>,
    /// The connections that get updates of the job: the submitter and its subscribers.
    pub watchers: BTreeSet<Conn>,
    /// The length of the submission in bytes, until the job ends.
    pub size: usize,
}

impl Job {
    /// Makes an update about this job.
    pub fn update<'a>(
        &'a self,
        status: Status,
        previous_status: Option<Status>,
        message: Option<&'a str>,
    ) -> Reply<'a> {
        Reply::JobUpdate {
            job_id: &self.id,
            status,
            previous_status,
            worker_id: self.worker_id.as_deref(),
            progress: self.progress.as_ref(),
            message,
        }
    }
}

/// All jobs; of the ended ones, only the latest.
#[derive(Debug, Default)]
pub struct Jobs {
    jobs: BTreeMap<JobNo, Job>,
    names: HashMap<Arc<str>, JobNo>,
    ended: VecDeque<JobNo>,
    /// The number of jobs that workers hold.
    active: usize,
    /// The size of all unfinished jobs in bytes.
    bytes: usize,
}

impl Jobs {
    /// Finds a job by its id.
    pub fn named(&self, id: &str) -> Option<JobNo> {
        self.names.get(id).copied()
    }

    /// Returns a job.
    pub fn get(&self, number: JobNo) -> Option<&Job> {
        self.jobs.get(&number)
    }

    /// Returns a job, to change anything except its state.
    pub fn get_mut(&mut self, number: JobNo) -> Option<&mut Job> {
        self.jobs.get_mut(&number)
    }

    /// Returns all jobs, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// Counts the jobs that wait for a worker or for their retry.
    pub fn pending(&self) -> usize {
        self.unfinished().saturating_sub(self.active)
    }

    /// Counts the jobs that workers hold.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Counts the unfinished jobs.
    pub fn unfinished(&self) -> usize {
        self.jobs.len() - self.ended.len()
    }

    /// Returns the size of all unfinished jobs in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an unfinished job.
    pub fn insert(&mut self, job: Job) {
        self.names.insert(job.id.clone(), job.rank.number);
        self.active += usize::from(job.state.holder().is_some());
        self.bytes += job.size;
        self.jobs.insert(job.rank.number, job);
    }

    /// Changes the state of an unfinished job and returns the previous one.
    pub fn set_state(&mut self, number: JobNo, state: State) -> Option<State> {
        let job = self.jobs.get_mut(&number)?;
        let before = std::mem::replace(&mut job.state, state);
        self.active -= usize::from(before.holder().is_some());
        self.active += usize::from(state.holder().is_some());
        Some(before)
    }

    /// Marks a job as ended and drops the oldest ended jobs beyond `keep`.
    pub fn end(&mut self, number: JobNo, keep: usize) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
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
