//! What became of each job, on all connections together.
//!
//! Which messages are about jobs comes from outside. A job of which the beginning was not observed is followed, too, but
//! never counts as lost.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::explanations::{DOUBLED_JOB, LOST_JOB};
use super::findings::Fault;
use super::judge::noted;
use crate::import::recording::Side;
use crate::outcome::Verdict;
use crate::redact::MASK;
use crate::report::text::format_time;

/// The most jobs that are remembered, and the longest id in bytes.
const MAX_JOBS: usize = 100_000;
const MAX_ID_BYTES: usize = 256;
/// The most clients to which the end of one job is known to have been reported.
const MAX_NOTIFIED: usize = 16;
/// The largest difference in milliseconds between the times at which two connections show one event.
const SLACK: i64 = 1_000;

/// What a message says about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobMark {
    Submitted,
    Accepted,
    Assigned,
    /// The worker does not have it any more.
    Released,
    Completed,
    /// It failed, was cancelled, or was refused.
    Ended,
}

/// A kind of message that is about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRule {
    /// The index of the message in the pack.
    pub message: usize,
    pub by: Side,
    pub mark: JobMark,
    /// A JSON pointer to the id of the job; `None` if it has none yet.
    pub id: Option<String>,
}

/// What one message says about one job.
pub struct JobEvent {
    mark: JobMark,
    id: Option<String>,
}

/// How many jobs were observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobTotals {
    /// Requests for a job.
    pub submitted: usize,
    pub accepted: usize,
    pub assigned: usize,
    pub completed: usize,
    /// Jobs that failed or were cancelled or refused.
    pub ended_otherwise: usize,
    /// Jobs that have not ended.
    pub open: usize,
    /// Jobs that were assigned after their completion, or completed twice for one client.
    pub doubled: usize,
    /// Accepted jobs that no worker has, and about which there was no message for long.
    pub lost: usize,
    /// Jobs that were accepted before they were observed.
    pub earlier: usize,
}

#[derive(Default)]
struct ObservedJob {
    /// The connection on which the hub accepted it.
    accepted: Option<u64>,
    /// The connection of its worker.
    holder: Option<u64>,
    was_assigned: bool,
    has_ended: bool,
    completed: Option<i64>,
    /// The connections to which its completion was reported.
    notified: Vec<u64>,
    last: i64,
}

/// All jobs.
#[derive(Default)]
pub struct JobLedger {
    rules: Vec<JobRule>,
    /// Milliseconds without a message after which a job may be lost.
    patience: i64,
    jobs: HashMap<String, ObservedJob>,
    /// The ids in the order in which they were observed first.
    order: VecDeque<String>,
    counts: JobTotals,
    latest: i64,
}

impl JobLedger {
    pub fn new(rules: Vec<JobRule>, patience: i64) -> Self {
        Self { rules, patience, ..Self::default() }
    }

    /// Returns what a message, by its index, says about a job.
    pub fn event(&self, by: Side, message: usize, json: &Value) -> Option<JobEvent> {
        let rule = self.rules.iter().find(|rule| rule.message == message && rule.by == by)?;
        let id = match &rule.id {
            None => None,
            Some(place) => match json.pointer(place)? {
                Value::String(id) if id.len() <= MAX_ID_BYTES && !id.contains(MASK) => Some(id.clone()),
                Value::Number(id) => Some(id.to_string()),
                _ => return None,
            },
        };
        Some(JobEvent { mark: rule.mark, id })
    }

    /// Adds what a message says. Returns what the hub did wrong with the job.
    pub fn add(&mut self, event: JobEvent, connection: u64, time: i64) -> Option<Fault> {
        self.latest = self.latest.max(time);
        let counts = &mut self.counts;
        counts.submitted += usize::from(event.mark == JobMark::Submitted);
        let id = event.id?;
        if !self.jobs.contains_key(&id) {
            self.order.push_back(id.clone());
            if self.order.len() > MAX_JOBS
                && let Some(oldest) = self.order.pop_front()
            {
                self.jobs.remove(&oldest);
            }
        }
        let job = self.jobs.entry(id.clone()).or_default();
        job.last = time;
        let fault = match event.mark {
            JobMark::Submitted => None,
            JobMark::Accepted => {
                counts.accepted += usize::from(job.accepted.is_none());
                job.accepted.get_or_insert(connection);
                None
            }
            JobMark::Assigned => {
                counts.assigned += usize::from(!std::mem::replace(&mut job.was_assigned, true));
                job.holder = Some(connection);
                let again = job.completed.is_some_and(|completed| time > completed.saturating_add(SLACK));
                again.then(|| format!("job {id} was assigned after its completion"))
            }
            JobMark::Released => {
                job.holder = None;
                None
            }
            JobMark::Completed => {
                job.holder = None;
                counts.completed += usize::from(job.completed.is_none());
                job.completed.get_or_insert(time);
                job.has_ended = true;
                if job.notified.contains(&connection) {
                    Some(format!("job {id} was completed a second time for one client"))
                } else {
                    job.notified.extend((job.notified.len() < MAX_NOTIFIED).then_some(connection));
                    None
                }
            }
            JobMark::Ended => {
                job.holder = None;
                counts.ended_otherwise += usize::from(!std::mem::replace(&mut job.has_ended, true));
                None
            }
        };
        counts.doubled += usize::from(fault.is_some());
        fault.map(|text| noted(DOUBLED_JOB, Verdict::Warn, "", text))
    }

    /// Returns the jobs that may be lost at the end, each with the connection of its client. `is_open`: whether a worker
    /// is still connected.
    pub fn take_lost(&mut self, is_open: impl Fn(u64) -> bool) -> Vec<(u64, Fault)> {
        let mut lost = Vec::new();
        for id in &self.order {
            let Some(job) = self.jobs.get(id) else { continue };
            let silent = self.latest.saturating_sub(job.last);
            let Some(client) = job.accepted.filter(|_| !job.has_ended && silent > self.patience) else { continue };
            if job.holder.is_some_and(&is_open) {
                continue;
            }
            let silent = format_time(Duration::from_millis(u64::try_from(silent).unwrap_or_default()));
            let done = if job.was_assigned { "its worker has left or given it back" } else { "no worker got it" };
            let text = format!("job {id} was accepted, {done}, and no message about it came in the last {silent}");
            lost.push((client, Fault { in_frame: false, ..noted(LOST_JOB, Verdict::Info, "", text) }));
        }
        self.counts.lost = lost.len();
        lost
    }

    /// Returns the numbers so far; `None` if no message of the pack is about jobs.
    pub fn totals(&self) -> Option<JobTotals> {
        let open = self.jobs.values().filter(|job| !job.has_ended).count();
        let earlier = self.jobs.values().filter(|job| job.accepted.is_none()).count();
        (!self.rules.is_empty()).then_some(JobTotals { open, earlier, ..self.counts })
    }
}

impl JobTotals {
    /// Formats the numbers, without zeros except that of doubled jobs.
    pub fn describe(&self) -> String {
        let shown = self.named().into_iter().filter(|(name, number)| *number > 0 || *name == "doubled");
        shown.map(|(name, number)| format!("{number} {name}")).collect::<Vec<_>>().join(", ")
    }

    /// Returns each number with its name.
    pub fn named(&self) -> [(&'static str, usize); 9] {
        let Self { submitted, accepted, assigned, completed, ended_otherwise, open, doubled, lost, earlier } = *self;
        [
            ("submitted", submitted),
            ("accepted", accepted),
            ("assigned", assigned),
            ("completed", completed),
            ("ended otherwise", ended_otherwise),
            ("open", open),
            ("doubled", doubled),
            ("perhaps lost", lost),
            ("from earlier", earlier),
        ]
    }
}
