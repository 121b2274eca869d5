//! Requests of workers: claims, reports, heartbeats; and their timeouts.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::job::{JobState, JobStatus};
use super::jobs::UpdateOptions;
use super::needs::{Amount, JobNeeds};
use super::queue::JobNumber;
use super::reply::EmpropsReply;
use super::request::{CapabilityChanges, ClaimJob, JobReport, ReportContent, WorkerState};
use super::request_error::{FieldError, RequestError};
use super::{Emprops, MessageContext, TimerPurpose};
use crate::machine::{ConnectionId, MachineOutput};

/// For a fault: claims within this time count as a race.
const RACE_WINDOW: Duration = Duration::from_millis(20);

impl Emprops {
    /// Assigns the best jobs that fit (line 221). If none does, there is no answer.
    pub(super) fn handle_claim(&mut self, turn: &mut MessageContext<'_>, claim: &ClaimJob) -> Result<(), RequestError> {
        let worker_id = self.own_worker_id(turn.conn, &claim.worker_id)?;
        let max_jobs = match claim.max_jobs {
            _ if self.broken.is("emprops-max-jobs-ignored") => usize::MAX,
            most if self.broken.is("emprops-max-jobs-one-more") => most.saturating_add(1),
            most => most,
        };
        let most = max_jobs.min(self.config.max_jobs_per_claim).min(claim.slots.unwrap_or(usize::MAX));
        let (echo, timeout) = claim.timeout.clone().unwrap_or_else(|| {
            let timeout = self.config.claim_timeout;
            (Number::from(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)), timeout)
        });
        let mut assigned = 0;
        for _ in 0..most {
            let Some(number) = self.take_best_job(turn.conn, claim) else { break };
            assigned += 1;
            let until = turn.now + self.claim_timeout(timeout);
            self.jobs.set_state(number, JobState::Claimed { worker: turn.conn, until });
            if !self.broken.is("emprops-claim-timeout-never") {
                self.timers.insert((until, TimerPurpose::Claim(number)));
            }
            self.workers.assign_job(turn.conn, number);
            let Some(job) = self.jobs.get_mut(number) else { break };
            job.worker_id = Some(worker_id.clone());
            self.send_assignment(turn, number, &worker_id, &echo);
            if self.broken.is("emprops-assigned-told-early") {
                self.send_update(turn.now, number, &UpdateOptions::default(), turn.out);
            }
            self.faults.given = Some((turn.now, number));
        }
        if assigned == 0
            && let Some(number) = self.faulty_assignment(turn)
        {
            self.send_assignment(turn, number, &worker_id, &echo);
        }
        if assigned == 0 && self.broken.is("emprops-vain-claim-acknowledged") {
            self.send_ack(turn, "claim_job");
        }
        self.check_queue_depth(turn.now, turn.out);
        Ok(())
    }

    /// Sends an assignment to a worker (line 236).
    fn send_assignment(
        &self,
        turn: &mut MessageContext<'_>,
        number: JobNumber,
        worker_id: &str,
        claim_timeout: &Number,
    ) {
        let Some(job) = self.jobs.get(number) else { return };
        let altered = job.payload.as_deref().and_then(|payload| self.faulty_payload(payload));
        let reply = EmpropsReply::JobAssigned {
            job_id: &job.id,
            worker_id,
            job_type: &job.needs.job_type,
            priority: &job.priority,
            payload: altered.as_deref().or(job.payload.as_deref()),
            requirements: job.requirements.as_deref(),
            claim_timeout,
        };
        self.send_reply(turn, &reply);
    }

    /// Returns the job that a fault assigns when a claim finds none.
    fn faulty_assignment(&mut self, turn: &MessageContext<'_>) -> Option<JobNumber> {
        if let Some(index) = self.faults.ghosts.iter().position(|(to, _)| to.is_none_or(|conn| conn == turn.conn)) {
            return Some(self.faults.ghosts.remove(index).1);
        }
        let (when, number) = self.faults.given?;
        let job = self.jobs.get(number)?;
        let racing =
            turn.now.saturating_sub(when) < RACE_WINDOW && job.state.holder().is_some_and(|conn| conn != turn.conn);
        let fit = self.workers.get(turn.conn)?.capabilities.meet(&job.needs);
        (racing && fit && self.broken.is("emprops-racing-claims-both-win")).then_some(number)
    }

    /// Returns the claim timeout, as changed by a fault.
    fn claim_timeout(&self, timeout: Duration) -> Duration {
        match timeout {
            timeout if self.broken.is("emprops-claim-timeout-late") => timeout * 3,
            timeout if self.broken.is("emprops-claim-timeout-early") => timeout / 4,
            _ if self.broken.is("emprops-claim-timeout-own-ignored") => self.config.claim_timeout,
            timeout => timeout,
        }
    }

    /// Returns a payload as changed by a fault; `None` if no fault changes it.
    fn faulty_payload(&self, payload: &RawValue) -> Option<Box<RawValue>> {
        if self.broken.is("emprops-payload-basic-plane") {
            let text: String =
                payload.get().chars().map(|letter| if letter > '\u{ffff}' { '\u{fffd}' } else { letter }).collect();
            return serde_json::value::RawValue::from_string(text).ok();
        }
        let mut value: Value = if self.broken.is("emprops-payload-without-nulls") {
            let mut members: serde_json::Map<String, Value> = serde_json::from_str(payload.get()).ok()?;
            members.retain(|_, value| !value.is_null());
            members.into()
        } else if self.broken.is("emprops-payload-abbreviated") {
            let mut members: serde_json::Map<String, Value> = serde_json::from_str(payload.get()).ok()?;
            let last = members.keys().next_back()?.clone();
            members.shift_remove(&last);
            members.into()
        } else if self.broken.is("emprops-payload-as-text") {
            serde_json::from_str(payload.get()).ok()?
        } else {
            return None;
        };
        if let Value::Object(members) = &mut value
            && self.broken.is("emprops-payload-as-text")
        {
            members.values_mut().filter(|value| !value.is_string()).for_each(|value| *value = value.to_string().into());
        }
        serde_json::value::to_raw_value(&value).ok()
    }

    /// Removes the best job for a claim from the queue.
    fn take_best_job(&mut self, conn: ConnectionId, claim: &ClaimJob) -> Option<JobNumber> {
        let capabilities = &self.workers.get(conn)?.capabilities;
        let fits = |needs: &JobNeeds| {
            let free = self.broken.is("emprops-resources-ignored")
                || claim.gpu_memory.is_none_or(|free| needs.gpu_memory().is_none_or(|needed| needed <= free));
            free && capabilities.meet(needs)
                && !(needs.gpu_memory() == Some(capabilities.gpu_memory())
                    && self.broken.is("emprops-hardware-exclusive"))
        };
        if self.broken.is("emprops-claim-ignores-service")
            || self.broken.is("emprops-claim-ignores-component")
            || self.broken.is("emprops-claim-ignores-hardware")
        {
            let (rank, needs) = self.queue.first_fitting(|needs| {
                (capabilities.has_service(needs) || self.broken.is("emprops-claim-ignores-service"))
                    && (capabilities.has_component(needs) || self.broken.is("emprops-claim-ignores-component"))
                    && (capabilities.has_sufficient_hardware(needs) || self.broken.is("emprops-claim-ignores-hardware"))
            })?;
            self.queue.remove(rank, &needs);
            return Some(rank.number);
        }
        let preferred = |needs: &JobNeeds| {
            claim.preferred.is_empty() || claim.preferred.iter().any(|preferred| **preferred == *needs.job_type)
        };
        let (rank, needs) = self.queue.best_fitting(capabilities.services.iter(), fits, preferred)?;
        if !self.broken.is("emprops-job-assigned-twice") {
            self.queue.remove(rank, &needs);
        }
        Some(rank.number)
    }

    /// Returns the id of the worker on a connection, if it is the id in the message.
    fn own_worker_id(&self, conn: ConnectionId, claimed: &str) -> Result<Arc<str>, RequestError> {
        match self.workers.get(conn) {
            Some(worker) if *worker.id == *claimed => Ok(worker.id.clone()),
            Some(worker) => Err(RequestError::Invalid(FieldError::new(
                "worker_id",
                format!("Must be {}, as this connection is registered", worker.id),
            ))),
            None => Err(RequestError::NotRegistered("register_worker")),
        }
    }

    /// Handles a worker's report on a job that it must hold.
    pub(super) fn handle_report(
        &mut self,
        turn: &mut MessageContext<'_>,
        kind: &str,
        report: JobReport<'_>,
    ) -> Result<(), RequestError> {
        let worker_id = match self.workers.find_by_id(&report.worker_id) {
            Some(_) if self.broken.is("emprops-completion-by-name") => report.worker_id.as_str().into(),
            _ => self.own_worker_id(turn.conn, &report.worker_id)?,
        };
        let Some(number) = self.jobs.find_by_id(&report.job_id) else {
            return Err(RequestError::JobNotFound { job_id: report.job_id });
        };
        let Some(job) = self.jobs.get(number) else { return Ok(()) };
        let (id, state) = (job.id.clone(), job.state);
        if state.holder() != Some(turn.conn) {
            let ended = matches!(state, JobState::Ended(_));
            if self.faulty_report(turn, number, state, &report) {
                return Ok(());
            }
            if let ReportContent::Completed { processing_time, result } = &report.what
                && !ended
                && self.broken.is("emprops-foreign-completion-refused-but-done")
            {
                self.complete_job(turn, number, processing_time.as_ref(), result);
            }
            if ended || !self.broken.is("emprops-foreign-reports-taken") {
                return Err(RequestError::JobNotHeld { job_id: id, worker_id });
            }
        }
        match report.what {
            ReportContent::Accepted { estimated_completion } => {
                if let (Some(job), Some(_)) = (self.jobs.get_mut(number), &estimated_completion) {
                    job.estimated_completion = estimated_completion;
                }
                self.mark_accepted(turn, number);
                self.send_ack(turn, kind);
            }
            ReportContent::Progress { progress, mut message, estimated_completion } => {
                self.mark_accepted(turn, number);
                if self.broken.is("emprops-message-of-earlier-job") {
                    let known = self.faults.reported.entry(turn.conn).or_default();
                    message = message.or_else(|| known.clone());
                    known.clone_from(&message);
                }
                let nothing = progress.as_f64() == Some(0.0);
                let whole = progress.as_f64().filter(|_| self.broken.is("emprops-progress-whole"));
                let progress = whole.map_or(progress, |progress| Number::from(progress as u64));
                if let Some(job) = self.jobs.get_mut(number) {
                    job.progress = Some(progress);
                    job.message.clone_from(&message);
                    job.estimated_completion = estimated_completion.or(job.estimated_completion.take());
                }
                self.jobs.set_state(number, JobState::InProgress { worker: turn.conn });
                self.send_ack(turn, kind);
                if nothing && self.broken.is("emprops-progress-zero-untold") {
                    return Ok(());
                }
                let options = UpdateOptions { message: message.as_deref(), ..UpdateOptions::default() };
                self.send_update(turn.now, number, &options, turn.out);
            }
            ReportContent::Completed { processing_time, result } => {
                self.mark_accepted(turn, number);
                self.send_reply(turn, &EmpropsReply::JobCompletedAck { job_id: &id, worker_id: &worker_id });
                self.complete_job(turn, number, processing_time.as_ref(), result);
            }
            ReportContent::Failed { error, retry } => {
                self.mark_accepted(turn, number);
                self.fail_job(turn, number, &worker_id, error, retry);
            }
        }
        Ok(())
    }

    /// Handles the report of a worker that does not hold the job, if a fault accepts it; returns whether it does.
    fn faulty_report(
        &mut self,
        turn: &mut MessageContext<'_>,
        number: JobNumber,
        state: JobState,
        report: &JobReport<'_>,
    ) -> bool {
        let Some(job) = self.jobs.get_mut(number) else { return false };
        match &report.what {
            ReportContent::Progress { progress, .. }
                if state.holder().is_some() && self.faults.former.contains(&(turn.conn, number)) =>
            {
                job.progress = Some(progress.clone());
                self.send_update(turn.now, number, &UpdateOptions::default(), turn.out);
            }
            ReportContent::Completed { processing_time, result } => {
                let named = job.worker_id.as_deref() == Some(&*report.worker_id);
                let id = job.id.clone();
                let by_name = state.holder().is_some() && self.broken.is("emprops-completion-by-name");
                let again = match state {
                    JobState::Ended(JobStatus::Completed) => self.broken.is("emprops-completion-told-again"),
                    JobState::Ended(JobStatus::Cancelled) => self.broken.is("emprops-cancelled-completed"),
                    _ => false,
                };
                if !named || !(by_name || again) {
                    return false;
                }
                self.send_reply(turn, &EmpropsReply::JobCompletedAck { job_id: &id, worker_id: &report.worker_id });
                if by_name {
                    self.complete_job(turn, number, processing_time.as_ref(), result);
                    return true;
                }
                let reply = EmpropsReply::JobCompleted {
                    job_id: &id,
                    status: JobStatus::Completed,
                    worker_id: Some(&report.worker_id),
                    priority: &0.into(),
                    processing_time: processing_time.as_ref(),
                    result,
                };
                let to = self.faults.completion_recipients.get(&number).cloned().unwrap_or_default();
                self.send_to(turn.now, to.into_iter(), &reply, turn.out);
            }
            _ => return false,
        }
        true
    }

    /// Marks a claimed job as accepted (line 254), by its acceptance or by its first report.
    fn mark_accepted(&mut self, turn: &mut MessageContext<'_>, number: JobNumber) {
        let started_at = self.clock.unix_ms(turn.now);
        let Some(job) = self.jobs.get_mut(number) else { return };
        let JobState::Claimed { until, .. } = job.state else { return };
        job.started_at = Some(started_at);
        // Only with a fault, the job is still in the queue here.
        self.queue.remove(job.rank, &job.needs);
        if !self.broken.is("emprops-claim-timeout-outlives-acceptance") {
            self.timers.remove(&(until, TimerPurpose::Claim(number)));
        }
        let tried = job.failures > 0;
        self.jobs.set_state(number, JobState::Accepted { worker: turn.conn });
        let unreported =
            self.broken.is("emprops-assigned-told-early") || (tried && self.broken.is("emprops-assigned-told-once"));
        if !unreported {
            self.send_update(turn.now, number, &UpdateOptions::default(), turn.out);
        }
    }

    /// Completes a job (line 287) and sends the result to its recipients (line 516).
    fn complete_job(
        &mut self,
        turn: &mut MessageContext<'_>,
        number: JobNumber,
        time: Option<&Number>,
        result: &RawValue,
    ) {
        self.jobs.set_state(number, JobState::Ended(JobStatus::Completed));
        self.workers.release_job(turn.conn, number);
        self.completed.count(turn.now);
        let earlier = self.faults.result.take().filter(|_| !result.get().contains("output_files"));
        let result = earlier.as_deref().unwrap_or(result);
        if self.broken.is("emprops-result-of-earlier-job") {
            self.faults.result = Some(result.to_owned());
        }
        let Some(job) = self.jobs.get(number) else { return };
        let reply = EmpropsReply::JobCompleted {
            job_id: &job.id,
            status: JobStatus::Completed,
            worker_id: job.worker_id.as_deref(),
            priority: &job.priority,
            processing_time: time,
            result,
        };
        let filtered = if self.broken.is("emprops-filter-status-before") { job.reported } else { JobStatus::Completed };
        let mut to = self.update_recipients(job, filtered);
        if self.broken.is("emprops-monitors-not-told-of-completion") {
            to.retain(|conn| !self.all_jobs.contains(conn));
        }
        if self.broken.is("emprops-completion-told-again") {
            self.faults.completion_recipients.insert(number, to.clone());
        }
        self.send_to(turn.now, to.iter().copied(), &reply, turn.out);
        self.send_to(turn.now, self.double_recipients(number), &reply, turn.out);
        if self.broken.is("emprops-update-after-completed") {
            let late = job.update(JobStatus::InProgress, Some(job.reported), None);
            self.send_to(turn.now, to.iter().copied(), &late, turn.out);
        }
        self.end_job(number);
    }

    /// Handles the failure of a job (line 330): the job is retried later, or has failed permanently.
    fn fail_job(
        &mut self,
        turn: &mut MessageContext<'_>,
        number: JobNumber,
        worker_id: &str,
        error: String,
        retry: bool,
    ) {
        let Some(job) = self.jobs.get_mut(number) else { return };
        job.failures += 1;
        let secretly = !retry && self.broken.is("emprops-no-retry-retried");
        let retry = retry && job.failures < self.config.max_attempts;
        let second = job.failures > 1;
        let id = job.id.clone();
        job.message = Some(error.clone());
        let delay = self.config.retry_delay;
        let until = match delay {
            _ if secretly || self.broken.is("emprops-retry-early") => turn.now,
            delay if self.broken.is("emprops-retry-late") => turn.now + delay * 4,
            delay => turn.now + delay,
        };
        if retry || secretly {
            job.progress = None;
            job.started_at = None;
            job.estimated_completion = None;
            self.faults.retried += 1;
            let never = self.broken.is("emprops-retry-never") || (second && self.broken.is("emprops-retry-only-once"));
            if !never {
                self.timers.insert((until, TimerPurpose::Retry(number)));
            }
            self.jobs.set_state(number, JobState::Delayed { until });
        } else {
            self.jobs.set_state(number, JobState::Ended(JobStatus::Failed));
            if self.broken.is("emprops-failed-counts-completed") {
                self.completed.count(turn.now);
            }
            if self.broken.is("emprops-failed-job-returns-to-worker") {
                self.faults.ghosts.push((Some(turn.conn), number));
            }
        }
        self.workers.release_job(turn.conn, number);
        let reply = EmpropsReply::JobFailedAck {
            job_id: &id,
            worker_id,
            retry_scheduled: retry,
            retry_delay: retry.then(|| Amount::new(delay.as_secs_f64())),
        };
        self.send_reply(turn, &reply);
        self.send_update(
            turn.now,
            number,
            &UpdateOptions { message: Some(&error), ..UpdateOptions::default() },
            turn.out,
        );
        if !retry && !secretly {
            self.end_job(number);
        }
        self.check_queue_depth(turn.now, turn.out);
    }
}

/// How jobs return to the queue.
impl Emprops {
    /// Returns a job to the queue whose claim was not accepted in time.
    pub(super) fn expire_claim(&mut self, now: Duration, number: JobNumber, out: &mut Vec<MachineOutput>) {
        if let Some(worker) = self.jobs.get(number).and_then(|job| job.state.holder()) {
            self.workers.release_job(worker, number);
            if self.broken.is("emprops-former-worker-believed") {
                self.faults.former.insert((worker, number));
            }
            if !self.broken.is("emprops-claim-timeout-loses-job") {
                self.return_to_queue(now, number, out);
            }
        }
    }

    /// Returns a job to the queue after its worker lost it.
    pub(super) fn return_to_queue(&mut self, now: Duration, number: JobNumber, out: &mut Vec<MachineOutput>) {
        if let Some(job) = self.jobs.get_mut(number) {
            if let JobState::Claimed { until, .. } = job.state {
                self.timers.remove(&(until, TimerPurpose::Claim(number)));
            }
            job.worker_id = None;
            job.progress = None;
            job.message = None;
            job.started_at = None;
            job.estimated_completion = None;
        }
        self.requeue_job(now, number, out);
    }

    /// Queues a job again; clients get an update if they know that it was assigned.
    pub(super) fn requeue_job(&mut self, now: Duration, number: JobNumber, out: &mut Vec<MachineOutput>) {
        // Only with a fault, an ended job gets here.
        if self.jobs.get(number).is_none_or(|job| matches!(job.state, JobState::Ended(_))) {
            return;
        }
        self.jobs.set_state(number, JobState::Queued);
        let Some(job) = self.jobs.get(number) else { return };
        self.queue.push(job.rank, &job.needs);
        if job.reported != JobStatus::Queued {
            self.send_update(now, number, &UpdateOptions::default(), out);
        }
        self.offer_job(now, number, out);
        self.check_queue_depth(now, out);
    }
}

/// How messages about the state of a worker are handled.
impl Emprops {
    /// Answers a heartbeat with the time of the next one (line 367).
    pub(super) fn answer_heartbeat(
        &mut self,
        turn: &mut MessageContext<'_>,
        state: WorkerState,
    ) -> Result<(), RequestError> {
        let worker_id = self.own_worker_id(turn.conn, &state.worker_id)?;
        self.set_idle(turn.conn, state.idle);
        let registered = self.faults.registered.get(&turn.conn).copied();
        let from = registered.unwrap_or(turn.now);
        let reply = EmpropsReply::WorkerHeartbeatAck {
            worker_id: &worker_id,
            status: "acknowledged",
            next_heartbeat_expected: self.clock.unix_ms(from + self.config.heartbeat_interval),
        };
        self.send_reply(turn, &reply);
        Ok(())
    }

    /// Updates a worker's state and capabilities (line 404).
    pub(super) fn update_worker_status(
        &mut self,
        turn: &mut MessageContext<'_>,
        kind: &str,
        state: WorkerState,
    ) -> Result<(), RequestError> {
        self.own_worker_id(turn.conn, &state.worker_id)?;
        self.set_idle(turn.conn, state.idle);
        let CapabilityChanges { services, components, hardware } = match state.capabilities {
            _ if self.broken.is("emprops-worker-status-ignored") => CapabilityChanges::default(),
            changes => changes,
        };
        self.workers.change_worker(turn.conn, |worker| {
            let has = &mut worker.capabilities;
            has.services = services.unwrap_or_else(|| std::mem::take(&mut has.services));
            has.components = components.unwrap_or_else(|| std::mem::take(&mut has.components));
            has.hardware = hardware.unwrap_or_else(|| std::mem::take(&mut has.hardware));
        });
        self.send_ack(turn, kind);
        Ok(())
    }

    fn set_idle(&mut self, conn: ConnectionId, idle: bool) {
        if self.workers.get(conn).is_some_and(|worker| worker.idle != idle) {
            self.workers.change_worker(conn, |worker| worker.idle = idle);
        }
    }

    /// Records a message from a worker; a lost worker becomes active again.
    pub(super) fn mark_alive(&mut self, now: Duration, conn: ConnectionId) {
        if self.workers.mark_alive(conn, now) {
            self.schedule_heartbeat_check(conn, now + self.heartbeat_timeout());
        }
    }

    fn heartbeat_timeout(&self) -> Duration {
        self.config.heartbeat_interval * self.config.missed_heartbeats.max(1)
    }

    fn schedule_heartbeat_check(&mut self, conn: ConnectionId, due: Duration) {
        if self.workers.set_heartbeat_due(conn, due) {
            self.timers.insert((due, TimerPurpose::Worker(conn)));
        }
    }

    /// Checks whether a worker has sent a message recently. If not, it is lost and its jobs return to the queue.
    pub(super) fn check_heartbeat(&mut self, now: Duration, conn: ConnectionId, out: &mut Vec<MachineOutput>) {
        let Some(worker) = self.workers.get(conn) else { return };
        let due = worker.seen + self.heartbeat_timeout();
        if due > now {
            return self.schedule_heartbeat_check(conn, due);
        }
        let held = worker.held.clone();
        self.workers.change_worker(conn, |worker| worker.lost = true);
        if self.broken.is("emprops-lost-worker-frees-all") {
            let of_others: Vec<_> = (self.workers.iter().filter(|(other, _)| *other != conn))
                .flat_map(|(other, worker)| worker.held.iter().map(move |job| (other, *job)))
                .collect();
            for (other, job) in of_others {
                self.workers.release_job(other, job);
                self.return_to_queue(now, job, out);
            }
        }
        for job in held {
            self.workers.release_job(conn, job);
            self.return_to_queue(now, job, out);
        }
    }
}
