//! Requests for subscriptions to jobs, to notifications and to statistics.

use std::time::Duration;

use super::job::JobState;
use super::needs::Amount;
use super::reply::EmpropsReply;
use super::request::{StatsSections, SubscribeNotifications, SubscribeStats};
use super::request_error::{FieldError, RequestError};
use super::watch::NotificationFilters;
use super::{Emprops, MessageContext, StatsSubscription, TimerPurpose};
use crate::machine::{ConnectionId, MachineOutput};

impl Emprops {
    /// Subscribes a connection to a job (line 423).
    pub(super) fn subscribe_job(
        &mut self,
        turn: &mut MessageContext<'_>,
        kind: &str,
        job_id: String,
    ) -> Result<(), RequestError> {
        let Some(number) = self.jobs.find_by_id(&job_id) else { return Err(RequestError::JobNotFound { job_id }) };
        let watching = self.peers.get(&turn.conn).map_or(0, |peer| peer.watching.len());
        if watching >= self.config.max_watched_jobs {
            return Err(RequestError::Limit("too many subscriptions to jobs"));
        }
        if let Some(job) = self.jobs.get_mut(number)
            && !matches!(job.state, JobState::Ended(_))
            && !self.broken.is("emprops-subscribe-job-ignored")
        {
            if self.broken.is("emprops-subscribe-job-takes-over") {
                job.watchers.clear();
            }
            if self.broken.is("emprops-subscribe-job-tells-twice") && job.watchers.contains(&turn.conn) {
                self.double_recipients.insert((turn.conn, number));
            }
            self.add_watcher(turn.conn, number);
        }
        if self.broken.is("emprops-subscribe-job-all") {
            self.subscriptions.insert(turn.conn, NotificationFilters::default());
        }
        self.send_ack(turn, kind);
        Ok(())
    }

    /// Starts or ends a subscription to all jobs that pass filters (line 430).
    pub(super) fn subscribe_notifications(
        &mut self,
        turn: &mut MessageContext<'_>,
        kind: &str,
        wish: SubscribeNotifications<'_>,
    ) {
        if !wish.enabled {
            if !self.broken.is("emprops-notifications-not-ended") {
                self.subscriptions.remove(turn.conn);
            }
            return self.send_ack(turn, kind);
        }
        if !self.broken.is("emprops-notifications-never") {
            let filters = self.faulty_filters(wish.filters);
            self.subscriptions.insert(turn.conn, filters);
        }
        let subscription_id = format!("sub-{}", self.ids.next_uuid());
        self.send_reply(
            turn,
            &EmpropsReply::JobNotificationsSubscribed { subscription_id, filters_applied: &wish.applied },
        );
    }

    /// Returns the filters as changed by a fault.
    fn faulty_filters(&self, mut filters: NotificationFilters) -> NotificationFilters {
        if self.broken.is("emprops-filter-customer-ignored") {
            filters.customer = None;
        }
        if self.broken.is("emprops-filter-types-ignored") {
            filters.job_types = None;
        }
        if self.broken.is("emprops-filter-priority-ignored") {
            filters.priority_min = None;
        }
        if self.broken.is("emprops-filter-priority-exclusive") {
            filters.priority_min = filters.priority_min.map(Amount::next_larger);
        }
        if self.broken.is("emprops-filter-status-ignored") {
            filters.status = None;
        }
        filters
    }

    /// Starts or ends a subscription to statistics (line 459).
    pub(super) fn subscribe_stats(
        &mut self,
        turn: &mut MessageContext<'_>,
        kind: &str,
        wish: SubscribeStats,
    ) -> Result<(), RequestError> {
        let least = self.config.min_stats_interval;
        if wish.interval.is_some_and(|interval| interval < least) {
            return Err(RequestError::Invalid(FieldError::new(
                "interval_seconds",
                format!("Must be at least {}", least.as_secs_f64()),
            )));
        }
        let Some(peer) = self.peers.get_mut(&turn.conn) else { return Ok(()) };
        if let Some(stats) = peer.stats.take() {
            self.timers.remove(&(stats.next, TimerPurpose::Stats(turn.conn)));
            let first_stays = self.faults.twice.contains(&turn.conn);
            if wish.enabled && self.broken.is("emprops-stats-first-stays") {
                self.faults.twice.insert(turn.conn);
            }
            if !wish.enabled && (first_stays || self.broken.is("emprops-stats-not-ended")) {
                self.timers.insert((stats.next, TimerPurpose::Stats(turn.conn)));
                peer.stats = Some(stats);
            }
        }
        if !wish.enabled {
            self.faults.stopped.insert(turn.conn);
            self.send_ack(turn, kind);
            return Ok(());
        }
        let mut interval = wish.interval.unwrap_or(self.config.stats_interval);
        if self.broken.is("emprops-first-interval-stays") {
            interval = *self.faults.intervals.entry(turn.conn).or_insert(interval);
        }
        let next = turn.now + interval;
        let real = match interval {
            interval if self.broken.is("emprops-stats-slow") => interval * 3,
            interval if self.broken.is("emprops-stats-fast") => interval / 4,
            interval => interval,
        };
        let first = turn.now + real;
        peer.stats = Some(StatsSubscription { interval: real, sections: wish.sections, next: first });
        let renewed = self.faults.stopped.contains(&turn.conn) && self.broken.is("emprops-stats-not-renewed");
        if !renewed && !self.broken.is("emprops-stats-never") {
            self.timers.insert((first, TimerPurpose::Stats(turn.conn)));
        }
        let reply = EmpropsReply::SubscriptionConfirmed {
            subscription_type: "stats",
            update_interval: Amount::new(interval.as_secs_f64()),
            next_broadcast: self.clock.unix_ms(next),
        };
        self.send_reply(turn, &reply);
        Ok(())
    }

    /// Sends the statistics that are due and schedules the next. Statistics that are late by an interval are skipped.
    pub(super) fn broadcast_stats(
        &mut self,
        now: Duration,
        due: Duration,
        conn: ConnectionId,
        out: &mut Vec<MachineOutput>,
    ) {
        let Some(stats) = self.peers.get_mut(&conn).and_then(|peer| peer.stats.as_mut()) else { return };
        let next = due + stats.interval;
        stats.next = if next > now { next } else { now + stats.interval };
        if !self.broken.is("emprops-stats-once") {
            self.timers.insert((stats.next, TimerPurpose::Stats(conn)));
        }
        let sections = stats.sections;
        self.send_stats(now, conn, sections, out);
    }

    /// Sends statistics (line 535), in the only message that the document has for them.
    pub(super) fn send_stats(
        &mut self,
        now: Duration,
        conn: ConnectionId,
        sections: StatsSections,
        out: &mut Vec<MachineOutput>,
    ) {
        let completed = self.completed.sum(now);
        let drift = |fault, by: usize| if self.broken.is(fault) { by } else { 0 };
        let workers = drift("emprops-registered-again-counts", self.faults.again);
        let pending = drift("emprops-cancelled-counts", self.faults.cancelled);
        let active = drift("emprops-retried-counts", self.faults.retried);
        let reply = EmpropsReply::SystemStatus {
            active_workers: sections.workers.then(|| self.workers.active_count() + workers),
            pending_jobs: sections.jobs.then(|| self.jobs.pending() + pending),
            active_jobs: sections.jobs.then(|| self.jobs.active() + active),
            completed_jobs_last_hour: sections.jobs.then_some(completed),
            system_health: sections.system.then_some(if self.alert.is_some() { "degraded" } else { "healthy" }),
            alerts: sections.system.then(|| self.alert.iter().map(String::as_str).collect()),
        };
        self.send_to(now, [conn].into_iter(), &reply, out);
    }
}
