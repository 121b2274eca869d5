//! A job, and the store of all jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Number;
use serde_json::value::RawValue;

use super::needs::{Amount, JobNeeds};
use super::queue::{JobNumber, JobRank};
use super::reply::EmpropsReply;
use crate::machine::ConnectionId;

/// The `status` of a job. The document never names `failed`, although jobs fail (lines 311 to 344).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    Queued,
    Assigned,
    InProgress,
    Completed,
    Failed,
    Cancelled,
}

impl JobStatus {
    /// Returns the name of the status in messages.
    pub fn name(self) -> &'static str {
        match self {
            JobStatus::Queued => "queued",
            JobStatus::Assigned => "assigned",
            JobStatus::InProgress => "in_progress",
            JobStatus::Completed => "completed",
            JobStatus::Failed => "failed",
            JobStatus::Cancelled => "cancelled",
        }
    }
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// In the queue.
    Queued,
    /// Failed; the job returns to the queue at `until`.
    Delayed { until: Duration },
    /// Assigned; the job returns to the queue at `until` unless the worker accepts.
    Claimed { worker: ConnectionId, until: Duration },
    /// Accepted by its worker.
    Accepted { worker: ConnectionId },
    /// Being worked on.
    InProgress { worker: ConnectionId },
    /// Completed, failed or cancelled.
    Ended(JobStatus),
}

impl JobState {
    /// Returns the status that clients see.
    pub fn status(self) -> JobStatus {
        match self {
            JobState::Queued | JobState::Delayed { .. } => JobStatus::Queued,
            JobState::Claimed { .. } | JobState::Accepted { .. } => JobStatus::Assigned,
            JobState::InProgress { .. } => JobStatus::InProgress,
            JobState::Ended(status) => status,
        }
    }

    /// Returns the worker that holds the job.
    pub fn holder(self) -> Option<ConnectionId> {
        match self {
            JobState::Claimed { worker, .. } | JobState::Accepted { worker } | JobState::InProgress { worker } => {
                Some(worker)
            }
            JobState::Queued | JobState::Delayed { .. } | JobState::Ended(_) => None,
        }
    }
}

/// A job.
#[derive(Debug)]
pub struct Job {
    pub id: Arc<str>,
    /// The job's place in the queue.
    pub rank: JobRank,

    pub needs: Arc<JobNeeds>,

    pub priority: Number,
    /// `priority`, for comparisons.
    pub amount: Amount,
    pub customer: Option<Arc<str>>,
    /// `payload` as submitted, until the job ends.
    pub payload: Option<Box<RawValue>>,
    /// `requirements` as submitted, until the job ends.
    pub requirements: Option<Box<RawValue>>,

    pub state: JobState,
    /// The status last sent to clients.
    pub reported: JobStatus,
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
    pub watchers: BTreeSet<ConnectionId>,
    /// The length of the submission in bytes, until the job ends.
    pub size: usize,
}

impl Job {
    /// Makes an update about this job.
    pub fn update<'a>(
        &'a self,
        status: JobStatus,
        previous_status: Option<JobStatus>,
        message: Option<&'a str>,
    ) -> EmpropsReply<'a> {
        EmpropsReply::JobUpdate {
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
    jobs: BTreeMap<JobNumber, Job>,
    names: HashMap<Arc<str>, JobNumber>,
    ended: VecDeque<JobNumber>,
    /// The number of jobs that workers hold.
    active: usize,
    /// The size of all unfinished jobs in bytes.
    bytes: usize,
}

impl Jobs {
    /// Finds a job by its id.
    pub fn find_by_id(&self, id: &str) -> Option<JobNumber> {
        self.names.get(id).copied()
    }

    /// Returns a job.
    pub fn get(&self, number: JobNumber) -> Option<&Job> {
        self.jobs.get(&number)
    }

    /// Returns a job, to change anything except its state.
    pub fn get_mut(&mut self, number: JobNumber) -> Option<&mut Job> {
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
    pub fn set_state(&mut self, number: JobNumber, state: JobState) -> Option<JobState> {
        let job = self.jobs.get_mut(&number)?;
        let before = std::mem::replace(&mut job.state, state);
        self.active -= usize::from(before.holder().is_some());
        self.active += usize::from(state.holder().is_some());
        Some(before)
    }

    /// Marks a job as ended and drops the oldest ended jobs beyond `keep`.
    pub fn end_job(&mut self, number: JobNumber, keep: usize) {
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
