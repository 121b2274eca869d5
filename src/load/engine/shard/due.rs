//! Due events of a shard: connections by their ramp, timers, journeys by their schedule.

use super::{MAX_DUE_PER_TURN, MAX_WAIT, Shard, ShardStage};
use crate::load::Nanos;
use crate::load::client::io::ClientEvent;
use crate::load::metrics::{JourneyCount, Measurement, MessageCount};

impl Shard {
    /// Handles due events; returns whether more are due.
    pub(super) fn handle_due_events(&mut self) -> bool {
        let mut left = MAX_DUE_PER_TURN;
        self.start_due_clients(&mut left);
        self.open_requested();
        while left > 0 {
            let now = self.timeline.clock.now();
            let Some((slot, entry)) = self.parts.context.timers.pop(now) else { break };
            let alarm = &mut self.slots[slot as usize].alarm;
            if let Some(since) = self.parts.context.timers.fires(slot, alarm, entry, now) {
                self.parts.context.recorder.lag(now - since, now);
                self.handle_event(slot, ClientEvent::Wake);
                left -= 1;
            }
        }
        for role in 0..self.populations.len() {
            self.assign_arrivals(role, &mut left);
        }
        left == 0 || !self.parts.context.dials.is_empty()
    }

    /// Starts clients that are due to connect.
    pub(super) fn start_due_clients(&mut self, left: &mut usize) {
        let now = self.timeline.clock.now();
        for index in 0..self.populations.len() {
            let planned = &self.parts.plan.roles[index];
            let ready = planned.after.is_none_or(|other| {
                self.timeline.joined(other)
                    >= self.parts.place.share.count(self.parts.plan.roles[other].population.number)
            });
            let population = &mut self.populations[index];
            if population.since.is_none() && ready {
                population.since = Some(now);
            }
            while *left > 0
                && self.stage == ShardStage::Running
                && self.next_start(index).is_some_and(|start| start <= now)
            {
                let population = &mut self.populations[index];
                let slot = population.slots.start + population.started;
                population.started += 1;
                *left -= 1;
                self.handle_event(slot, ClientEvent::Start);
            }
        }
    }

    /// Returns when the next client of a role is due to connect.
    pub(super) fn next_start(&self, index: usize) -> Option<Nanos> {
        let population = &self.populations[index];
        if population.started >= population.slots.len() as u32 {
            return None;
        }
        let number = self.parts.place.clients().at(population.started);
        let start = self.parts.plan.roles[index].population.connect_time(number);
        Some(population.since? + start.as_nanos() as Nanos)
    }

    /// Assigns due journeys of a role to free clients.
    pub(super) fn assign_arrivals(&mut self, role: usize, left: &mut usize) {
        let begin = self.timeline.begin();
        if begin == Nanos::MAX {
            return;
        }
        let drain = self.timeline.drain();
        while *left > 0 {
            let now = self.timeline.clock.now();
            let population = &mut self.populations[role];
            let Some(offset) = population.coming else { return };
            let due = self.timeline.holds.shifted(begin.saturating_add(offset));
            if due > now {
                return;
            }
            population.coming = population.arrivals.as_mut().and_then(Iterator::next);
            if due >= drain {
                continue;
            }
            *left -= 1;
            self.parts.context.recorder.lag(now - due, now);
            match self.take_free_client(role) {
                Some(slot) => {
                    self.handle_event(slot, ClientEvent::Arrival { due });
                    self.requeue(role, slot);
                }
                None => self.miss_arrival(role, now),
            }
        }
    }

    /// Counts a journey that was due while no client was free, and the messages that it would have sent.
    fn miss_arrival(&mut self, role: usize, now: Nanos) {
        let role = &self.parts.prepared.roles[role];
        let Some(program) = role.journey.map(|journey| &role.programs[journey]) else { return };
        let recorder = &mut self.parts.context.recorder;
        if let Some(journey) = program.journey {
            recorder.record(Measurement::Journeys(journey, JourneyCount::Missed, 1), now);
        }
        for message in program.sent_messages() {
            recorder.record(Measurement::Messages(message, MessageCount::Missed, 1), now);
        }
    }

    /// Returns the client that has been free longest.
    pub(super) fn take_free_client(&mut self, role: usize) -> Option<u32> {
        while let Some(number) = self.parts.context.free[role].pop_front() {
            let slot = &mut self.slots[number as usize];
            slot.queued = false;
            if slot.client.has_room(&self.parts.prepared.roles[role]) {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn requeue(&mut self, role: usize, number: u32) {
        let slot = &mut self.slots[number as usize];
        if !slot.queued && slot.client.has_room(&self.parts.prepared.roles[role]) {
            slot.queued = true;
            self.parts.context.free[role].push_back(number);
        }
    }

    /// Returns when the next event is due.
    pub(super) fn next_due(&self, now: Nanos) -> Nanos {
        let mut next = now + MAX_WAIT;
        next = next.min(self.parts.context.timers.next().unwrap_or(Nanos::MAX));
        let begin = self.timeline.begin();
        for (index, population) in self.populations.iter().enumerate() {
            if self.stage == ShardStage::Running {
                next = next.min(self.next_start(index).unwrap_or(Nanos::MAX));
            }
            next = next.min(self.timeline.holds.shifted(begin.saturating_add(population.coming.unwrap_or(Nanos::MAX))));
        }
        next.max(now)
    }
}
