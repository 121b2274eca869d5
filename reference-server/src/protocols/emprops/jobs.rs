//! Requests of clients about jobs (submit, status, cancel), and the updates that clients get.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::job::{Job, JobState, JobStatus};
use super::needs::Amount;
use super::queue::{JobNumber, JobRank};
use super::reply::{EmpropsReply, NeedsSummary};
use super::request::SubmitJob;
use super::request_error::RequestError;
use super::watch::NotificationSubject;
use super::{Emprops, MessageContext, TimerPurpose};
use crate::machine::{ConnectionId, MachineOutput};

/// The estimated duration of a job.
const ESTIMATED_JOB_TIME: Duration = Duration::from_secs(10);

impl Emprops {
    /// Adds a job to the queue (line 136).
    pub(super) fn submit_job(
        &mut self,
        turn: &mut MessageContext<'_>,
        request: SubmitJob<'_>,
        size: usize,
    ) -> Result<(), RequestError> {
        if self.jobs.unfinished() >= self.config.max_jobs || self.jobs.bytes() + size > self.config.max_job_bytes {
            return Err(RequestError::QueueFull);
        }
        self.submitted += 1;
        let number = self.submitted;
        let id: Arc<str> = self.faults.freed.take().unwrap_or_else(|| format!("job-{}", self.ids.next_uuid()).into());
        let rank = match request.amount {
            _ if self.broken.is("emprops-priority-ignored") => JobRank::new(Amount::new(0.0), number),
            amount if self.broken.is("emprops-priority-reversed") => JobRank::new(amount.negated(), number),
            amount if self.broken.is("emprops-newest-first") => {
                JobRank::new((0..number).fold(amount, |amount, _| amount.next_larger()), number)
            }
            amount => JobRank::new(amount, number),
        };
        let needs = Arc::new(request.needs);
        let ever = self.broken.is("emprops-position-of-all-time");
        let position = if ever { number as usize } else { self.queue.count_ahead(request.amount) + 1 };
        let backwards = self.broken.is("emprops-position-backwards");
        let position = if backwards { 10_000_usize.saturating_sub(position).max(1) } else { position };
        let mut requirements = request.requirements.map(ToOwned::to_owned);
        if self.broken.is("emprops-requirements-of-earlier-job") {
            requirements = requirements.or_else(|| self.faults.requirements.take());
            self.faults.requirements.clone_from(&requirements);
        }
        self.queue.push(rank, &needs);
        self.jobs.insert(Job {
            id: id.clone(),
            rank,
            needs,
            priority: request.priority,
            amount: request.amount,
            customer: request.customer.map(Into::into),
            payload: Some(request.payload.to_owned()),
            requirements,
            state: JobState::Queued,
            reported: JobStatus::Queued,
            failures: 0,
            worker_id: None,
            progress: None,
            message: None,
            estimated_completion: None,
            started_at: None,
            watchers: BTreeSet::new(),
            size,
        });
        let before = self.peers.get(&turn.conn).and_then(|peer| peer.watching.last().copied());
        let before = before.filter(|_| self.broken.is("emprops-job-id-reused")).and_then(|job| self.jobs.get(job));
        let shown = before.map_or(id, |job| job.id.clone());
        if !self.broken.is("emprops-submitter-not-told") {
            self.add_watcher(turn.conn, number);
        }
        let mut offers = Vec::new();
        let mut notified_workers = self.offer_job(turn.now, number, &mut offers);
        if self.broken.is("emprops-notified-counts-all") {
            notified_workers = self.workers.active_count();
        }
        let servers = u32::try_from(self.workers.active_count().max(1)).unwrap_or(u32::MAX);
        let wait = ESTIMATED_JOB_TIME.saturating_mul(u32::try_from(position).unwrap_or(u32::MAX)) / servers;
        let request_id = turn.id.take();
        let reply = EmpropsReply::JobAccepted {
            job_id: &shown,
            status: JobStatus::Queued,
            position,
            estimated_start: self.clock.iso_at(turn.now + wait),
            notified_workers,
            request_id: request_id.as_deref(),
        };
        self.send_reply(turn, &reply);
        turn.out.append(&mut offers);
        self.announce_job(turn.now, turn.conn, number, turn.out);
        self.check_queue_depth(turn.now, turn.out);
        Ok(())
    }

    /// Adds a connection to the watchers of a job.
    pub(super) fn add_watcher(&mut self, conn: ConnectionId, number: JobNumber) {
        if let (Some(peer), Some(job)) = (self.peers.get_mut(&conn), self.jobs.get_mut(number)) {
            job.watchers.insert(conn);
            peer.watching.insert(number);
        }
    }

    /// Offers a job to the workers that could do it (line 491), and returns their number.
    pub(super) fn offer_job(&self, now: Duration, number: JobNumber, out: &mut Vec<MachineOutput>) -> usize {
        let Some(job) = self.jobs.get(number) else { return 0 };
        let reply = EmpropsReply::JobAvailable {
            job_id: &job.id,
            job_type: &job.needs.job_type,
            priority: &job.priority,
            requirements_summary: NeedsSummary {
                service_type: job.needs.service.as_deref(),
                component: job.needs.component.as_deref(),
                gpu_memory_min: job.needs.gpu_memory(),
            },
        };
        if let Some(to) = self.faulty_offer(job) {
            return self.send_to(now, to.into_iter(), &reply, out);
        }
        let sent = self.send_to(now, self.workers.workers_listening_for(&job.needs), &reply, out);
        if self.broken.is("emprops-assigned-unclaimed") {
            self.push_unclaimed(now, job, out);
        }
        sent
    }

    /// Returns the workers to which a fault offers a job instead.
    fn faulty_offer(&self, job: &Job) -> Option<Vec<ConnectionId>> {
        if self.broken.is("emprops-available-first-only") {
            return Some(self.workers.workers_listening_for(&job.needs).take(1).collect());
        }
        let unsubscribed = self.broken.is("emprops-available-unsubscribed");
        let unfit = self.broken.is("emprops-offer-ignores-service")
            || self.broken.is("emprops-offer-ignores-component")
            || self.broken.is("emprops-offer-ignores-hardware")
            || self.broken.is("emprops-hardware-exclusive");
        (unsubscribed || unfit).then(|| {
            let all = self
                .workers
                .iter()
                .filter(|(_, worker)| (worker.subscribed || unsubscribed) && worker.idle && !worker.lost);
            all.filter(|(_, worker)| {
                let has = &worker.capabilities;
                let needs = &job.needs;
                (has.has_service(needs) || self.broken.is("emprops-offer-ignores-service"))
                    && (has.has_component(needs) || self.broken.is("emprops-offer-ignores-component"))
                    && (has.has_sufficient_hardware(needs) || self.broken.is("emprops-offer-ignores-hardware"))
                    && !(needs.gpu_memory() == Some(has.gpu_memory()) && self.broken.is("emprops-hardware-exclusive"))
            })
            .map(|(conn, _)| conn)
            .collect()
        })
    }

    /// As a fault: assigns a job to every worker that it is offered to.
    fn push_unclaimed(&self, now: Duration, job: &Job, out: &mut Vec<MachineOutput>) {
        for conn in self.workers.workers_listening_for(&job.needs) {
            let Some(worker) = self.workers.get(conn) else { continue };
            let reply = EmpropsReply::JobAssigned {
                job_id: &job.id,
                worker_id: &worker.id,
                job_type: &job.needs.job_type,
                priority: &job.priority,
                payload: job.payload.as_deref(),
                requirements: job.requirements.as_deref(),
                claim_timeout: &30_000.into(),
            };
            self.send_to(now, [conn].into_iter(), &reply, out);
        }
    }

    /// Answers `request_job_status` (line 174).
    pub(super) fn answer_job_status(
        &mut self,
        turn: &mut MessageContext<'_>,
        job_id: String,
    ) -> Result<(), RequestError> {
        let known = self.jobs.find_by_id(&job_id).and_then(|number| self.jobs.get(number));
        let forgotten =
            |job: &&Job| matches!(job.state, JobState::Ended(_)) && self.broken.is("emprops-finished-forgotten");
        let Some(job) = known.filter(|job| !forgotten(job)) else {
            if self.broken.is("emprops-unknown-job-made-up") {
                let status = JobStatus::Queued;
                self.send_reply(
                    turn,
                    &EmpropsReply::ResponseJobStatus {
                        job_id: &job_id,
                        status,
                        progress: None,
                        worker_id: None,
                        started_at: None,
                        estimated_completion: None,
                        message: None,
                    },
                );
                return Ok(());
            }
            return Err(RequestError::JobNotFound { job_id });
        };
        let (mut progress, mut message) = (job.progress.as_ref(), job.message.as_deref());
        if matches!(job.state, JobState::InProgress { .. }) && self.broken.is("emprops-status-first-asked") {
            let now = || (job.progress.clone(), job.message.clone());
            self.faults.asked.entry(job.rank.number).or_insert_with(now);
            if let Some(first) = self.faults.asked.get(&job.rank.number) {
                (progress, message) = (first.0.as_ref(), first.1.as_deref());
            }
        }
        let reply = EmpropsReply::ResponseJobStatus {
            job_id: &job.id,
            status: job.state.status(),
            progress,
            worker_id: job.worker_id.as_deref(),
            started_at: job.started_at,
            estimated_completion: job.estimated_completion.as_deref(),
            message,
        };
        self.send_reply(turn, &reply);
        Ok(())
    }

    /// Cancels a job in any state (line 196).
    pub(super) fn cancel_job(
        &mut self,
        turn: &mut MessageContext<'_>,
        job_id: String,
        why: Option<&str>,
    ) -> Result<(), RequestError> {
        let cancelled_at = self.clock.unix_ms(turn.now);
        let Some(number) = self.jobs.find_by_id(&job_id) else {
            if self.broken.is("emprops-cancel-unknown-confirmed") {
                let reply = EmpropsReply::JobCancelled { job_id: &job_id, status: JobStatus::Cancelled, cancelled_at };
                self.send_reply(turn, &reply);
                return Ok(());
            }
            return Err(RequestError::JobNotFound { job_id });
        };
        let Some(job) = self.jobs.get(number) else { return Ok(()) };
        let reply = EmpropsReply::JobCancelled { job_id: &job.id, status: JobStatus::Cancelled, cancelled_at };
        let confirmed = match job.state {
            JobState::Ended(_) => self.broken.is("emprops-cancel-ended-confirmed"),
            JobState::Queued => self.broken.is("emprops-cancelled-stays-queued"),
            _ => false,
        };
        if confirmed {
            self.send_reply(turn, &reply);
            return Ok(());
        }
        if let Some(worker) = job.state.holder()
            && self.broken.is("emprops-cancelled-goes-back")
        {
            self.send_reply(turn, &reply);
            self.workers.release_job(worker, number);
            self.return_to_queue(turn.now, number, turn.out);
            return Ok(());
        }
        let (id, state, rank, needs) = (job.id.clone(), job.state, job.rank, job.needs.clone());
        match state {
            JobState::Ended(status) => return Err(RequestError::JobEnded { job_id: id, status: status.name() }),
            JobState::Queued => {
                self.queue.remove(rank, &needs);
                self.faults.cancelled += 1;
            }
            JobState::Delayed { until } => {
                self.timers.remove(&(until, TimerPurpose::Retry(number)));
                if self.broken.is("emprops-cancelled-retry-returns") {
                    let last = job.worker_id.as_ref().and_then(|id| self.workers.find_by_id(id));
                    self.faults.ghosts.push((last, number));
                }
            }
            JobState::Claimed { until, .. } => {
                self.timers.remove(&(until, TimerPurpose::Claim(number)));
                // Only with a fault, the job is still in the queue here.
                self.queue.remove(rank, &needs);
            }
            JobState::Accepted { .. } | JobState::InProgress { .. } => {}
        }
        self.jobs.set_state(number, JobState::Ended(JobStatus::Cancelled));
        if self.broken.is("emprops-cancelled-id-again") {
            self.faults.freed = Some(id.clone());
        }
        if self.broken.is("emprops-cancelled-job-returns") {
            self.faults.ghosts.push((None, number));
        }
        self.send_reply(turn, &EmpropsReply::JobCancelled { job_id: &id, status: JobStatus::Cancelled, cancelled_at });
        if self.broken.is("emprops-cancelled-completed")
            && let Some(job) = self.jobs.get(number)
        {
            self.faults.completion_recipients.insert(number, self.update_recipients(job, JobStatus::Completed));
        }
        let options = UpdateOptions { message: why, also: state.holder(), except: Some(turn.conn) };
        self.send_update(turn.now, number, &options, turn.out);
        if let Some(worker) = state.holder() {
            self.workers.release_job(worker, number);
        }
        self.end_job(number);
        self.check_queue_depth(turn.now, turn.out);
        Ok(())
    }
}

/// Options of an update.
#[derive(Default)]
pub(super) struct UpdateOptions<'a> {
    pub message: Option<&'a str>,
    /// An additional recipient.
    pub also: Option<ConnectionId>,
    /// A connection that gets no update.
    pub except: Option<ConnectionId>,
}

/// How updates of jobs are sent.
impl Emprops {
    /// Returns the recipients of an update: the job's watchers, matching subscribers, monitors of all jobs.
    pub(super) fn update_recipients(&self, job: &Job, status: JobStatus) -> BTreeSet<ConnectionId> {
        let subject = NotificationSubject {
            customer: job.customer.as_ref(),
            job_type: &job.needs.job_type,
            priority: job.amount,
            status,
        };
        let mut all = match self.peers.last_key_value() {
            Some((newest, _)) if self.broken.is("emprops-updates-to-newest") => [*newest].into(),
            _ => job.watchers.clone(),
        };
        let own_only = self.broken.is("emprops-notifications-own-only");
        all.extend(
            self.subscriptions.matching_subscribers(subject).filter(|conn| !own_only || job.watchers.contains(conn)),
        );
        if self.broken.is("emprops-filters-together-ignored") {
            all.extend(self.subscriptions.subscribers_matching_status_only(subject));
        }
        if job.customer.is_none() && self.broken.is("emprops-filter-customer-absent") {
            all.extend(self.subscriptions.customer_only_subscribers());
        }
        all.extend(&self.all_jobs);
        all
    }

    /// Sends the current state of a job to each of its recipients once (line 504).
    pub(super) fn send_update(
        &mut self,
        now: Duration,
        number: JobNumber,
        options: &UpdateOptions<'_>,
        out: &mut Vec<MachineOutput>,
    ) {
        let Some(job) = self.jobs.get_mut(number) else { return };
        let status = job.state.status();
        let previous = std::mem::replace(&mut job.reported, status);
        let Some(job) = self.jobs.get(number) else { return };
        let filtered = if self.broken.is("emprops-filter-status-before") { previous } else { status };
        let mut to = self.update_recipients(job, filtered);
        to.extend(options.also);
        let reply = job.update(status, Some(previous), options.message);
        let to = to.into_iter().filter(|conn| Some(*conn) != options.except);
        self.send_to(now, to, &reply, out);
        self.send_to(now, self.double_recipients(number), &reply, out);
    }

    /// Returns the connections to which a fault sends a second update.
    pub(super) fn double_recipients(&self, number: JobNumber) -> impl Iterator<Item = ConnectionId> + '_ {
        self.double_recipients.iter().filter(move |(_, job)| *job == number).map(|(conn, _)| *conn)
    }

    /// Announces a new job to subscribers other than the submitter.
    fn announce_job(&self, now: Duration, submitter: ConnectionId, number: JobNumber, out: &mut Vec<MachineOutput>) {
        let Some(job) = self.jobs.get(number) else { return };
        let to = self.update_recipients(job, JobStatus::Queued).into_iter().filter(|conn| *conn != submitter);
        self.send_to(now, to, &job.update(JobStatus::Queued, None, None), out);
    }

    /// Marks a job as ended and removes its watchers.
    pub(super) fn end_job(&mut self, number: JobNumber) {
        let Some(job) = self.jobs.get_mut(number) else { return };
        for conn in std::mem::take(&mut job.watchers) {
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.watching.remove(&number);
            }
        }
        self.jobs.end_job(number, self.config.max_finished_jobs);
    }

    /// Sends an alert if too many jobs wait (line 547), and no further one until half of them have left the queue.
    pub(super) fn check_queue_depth(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        let (depth, threshold) = (self.jobs.pending(), self.config.alert_queue_depth);
        if self.alert.is_some() {
            if depth <= threshold / 2 {
                self.alert = None;
            }
        } else if depth > threshold {
            let message = "Queue depth exceeding normal capacity";
            self.alert = Some(message.to_owned());
            let alert = EmpropsReply::SystemAlert {
                severity: "warning",
                category: "resource_constraint",
                message,
                details: json!({
                    "current_queue_depth": depth,
                    "normal_threshold": threshold,
                    "available_workers": self.workers.active_count(),
                }),
                actions_recommended: vec!["Consider scaling up workers", "Review job priorities"],
            };
            self.send_alert(now, &alert, out);
        }
    }

    /// Sends an alert to monitors and returns their number.
    pub(super) fn send_alert(&self, now: Duration, alert: &EmpropsReply<'_>, out: &mut Vec<MachineOutput>) -> usize {
        self.send_to(now, self.alerted_monitors.iter().copied(), alert, out)
    }
}
