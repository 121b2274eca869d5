//! What is due in a shard: connections by their ramp, alarms, journeys by their schedule.

use super::{DUE, LONGEST_WAIT, Shard, Stage};
use crate::load::Nanos;
use crate::load::client::io::Input;

impl Shard {
    /// Does what is due; whether more is.
    pub(super) fn due(&mut self) -> bool {
        let mut left = DUE;
        self.starts(&mut left);
        self.dial();
        while left > 0 {
            let now = self.course.clock.now();
            let Some((seat, entry)) = self.parts.desk.timers.pop(now) else { break };
            let alarm = &mut self.seats[seat as usize].alarm;
            if let Some(since) = self.parts.desk.timers.fires(seat, alarm, entry, now) {
                self.parts.desk.recorder.lag(now - since, now);
                self.drive(seat, Input::Wake);
                left -= 1;
            }
        }
        for role in 0..self.populations.len() {
            self.arrivals(role, &mut left);
        }
        left == 0 || !self.parts.desk.dials.is_empty()
    }

    /// Those whose turn to connect has come.
    pub(super) fn starts(&mut self, left: &mut usize) {
        let now = self.course.clock.now();
        for index in 0..self.populations.len() {
            let planned = &self.parts.plan.roles[index];
            let ready = planned
                .after
                .is_none_or(|other| self.course.joined(other) >= self.parts.plan.roles[other].population.number);
            let population = &mut self.populations[index];
            if population.since.is_none() && ready {
                population.since = Some(now);
            }
            while *left > 0 && self.stage == Stage::Running && self.start_of(index).is_some_and(|start| start <= now) {
                let population = &mut self.populations[index];
                let seat = population.seats.start + population.started;
                population.started += 1;
                *left -= 1;
                self.drive(seat, Input::Start);
            }
        }
    }

    /// When the next client of a role is to connect.
    pub(super) fn start_of(&self, index: usize) -> Option<Nanos> {
        let population = &self.populations[index];
        if population.started >= population.seats.len() as u32 {
            return None;
        }
        let number = self.parts.number as u32 + population.started * self.parts.shards as u32;
        let start = self.parts.plan.roles[index].population.start(number);
        Some(population.since? + start.as_nanos() as Nanos)
    }

    /// Journeys of a role that are due, each for whoever is free.
    pub(super) fn arrivals(&mut self, role: usize, left: &mut usize) {
        let begin = self.course.begin();
        if begin == Nanos::MAX {
            return;
        }
        let drain = self.course.drain();
        while *left > 0 {
            let now = self.course.clock.now();
            let population = &mut self.populations[role];
            let Some(offset) = population.coming else { return };
            let due = begin.saturating_add(offset);
            if due > now {
                return;
            }
            population.coming = population.arrivals.as_mut().and_then(Iterator::next);
            if due >= drain {
                continue;
            }
            *left -= 1;
            self.parts.desk.recorder.lag(now - due, now);
            match self.free(role) {
                Some(seat) => {
                    self.drive(seat, Input::Arrival { due });
                    self.requeue(role, seat);
                }
                None => self.parts.desk.recorder.no_client(now),
            }
        }
    }

    /// Somebody with room for a journey: whoever has waited longest.
    pub(super) fn free(&mut self, role: usize) -> Option<u32> {
        while let Some(number) = self.parts.desk.free[role].pop_front() {
            let seat = &mut self.seats[number as usize];
            seat.queued = false;
            if seat.client.has_room(&self.parts.prepared.roles[role]) {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn requeue(&mut self, role: usize, number: u32) {
        let seat = &mut self.seats[number as usize];
        if !seat.queued && seat.client.has_room(&self.parts.prepared.roles[role]) {
            seat.queued = true;
            self.parts.desk.free[role].push_back(number);
        }
    }

    /// When something is due next.
    pub(super) fn next_due(&self, now: Nanos) -> Nanos {
        let mut next = now + LONGEST_WAIT;
        next = next.min(self.parts.desk.timers.next().unwrap_or(Nanos::MAX));
        let begin = self.course.begin();
        for (index, population) in self.populations.iter().enumerate() {
            if self.stage == Stage::Running {
                next = next.min(self.start_of(index).unwrap_or(Nanos::MAX));
            }
            next = next.min(begin.saturating_add(population.coming.unwrap_or(Nanos::MAX)));
        }
        next.max(now)
    }
}
