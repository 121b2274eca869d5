//! One member of a run: announces itself, follows or leads, starts with the others, and ends with them.

use std::time::Duration;

use super::SILENCE;
use super::deltas::{DeltaBuffer, Measured};
use super::message::{HoldRequest, Message, Pong, Status, StopRequest, Tick};
use super::roster::{KnownMember, Roster, StatusOutcome};
use crate::load::holds::MAX_HOLDS;
use crate::load::shares::record::{CommonFacts, LostShare, ShareProgress};
use crate::load::{Nanos, SECOND};
use crate::report::text::{format_count, format_time};
use crate::syntax::share::Share;

/// How long a member waits for a tick before it leads, at first; members of higher shares wait longer.
const FIRST_PATIENCE: Nanos = SECOND * 3 / 2;
const STAGGER: Nanos = SECOND / 20;
const MAX_STAGGER: Nanos = 10 * SECOND;
/// How long a leader leads before it starts the run, so that of two leaders only one does.
const SETTLING: Nanos = 2 * SECOND;
/// How long a run with `--quorum` waits for the other shares.
const QUORUM_PATIENCE: Nanos = 10 * SECOND;
/// How long members wait for each other.
const PATIENCE: Nanos = 600 * SECOND;
/// How many answers of the leader are compared to measure the clock.
const CLOCK_SAMPLES: u32 = 3;
/// An error of the clock that is worth a warning.
const WIDE_CLOCK_ERROR: Nanos = SECOND / 4;
/// How far ahead a start may be, in nanoseconds: longer than any ramp.
const MAX_AHEAD: i64 = 86_400 * SECOND as i64;
/// The most characters of a conflict that are shown.
const MAX_CONFLICT: usize = 500;
/// How long before a hold begins or ends all members learn of it, at most: ticks are a second apart, and one may be lost.
const HOLD_AHEAD: i64 = 4 * SECOND as i64;
const MAX_HOLD_AHEAD: i64 = 60 * SECOND as i64;
/// The most deltas in one second: more are unpublished only after an outage.
const MAX_DELTAS: usize = 16;
/// The most shares that a message names.
const MAX_NAMED: usize = 10;

/// What a member is.
#[derive(Clone, Debug)]
pub struct MemberSettings {
    pub share: Share,
    /// A random number.
    pub member: u64,
    pub place: String,
    pub facts: CommonFacts,
    /// How many shares suffice.
    pub quorum: u32,
    /// How long members need from the agreement to the start.
    pub preparation: Nanos,
}

/// When a member's run begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreedStart {
    /// Unix time in nanoseconds by the common clock, which is the leader's.
    pub at: i64,
    /// The common clock minus the member's, in nanoseconds, and by how much that may be wrong.
    pub offset: i64,
    pub error: Nanos,
    /// The number of shares without which the run begins.
    pub absent: usize,
}

/// What a member does next.
#[derive(Clone, Debug)]
pub enum Output<D> {
    Publish(Message<D>),
    /// Receive the status of all members, or no longer.
    Lead(bool),
    /// To add to the measurements of the whole run.
    Add(D),
    Begin(AgreedStart),
    /// The run does not begin for this member.
    Refuse(String),
    Stop(StopRequest),
    Hold(HoldChange),
    Warn(String),
    /// All members have ended, or are these.
    Over(Vec<LostShare>),
}

/// The beginning or the end of a hold, at a Unix time of the common clock in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldChange {
    pub at: i64,
    pub begins: bool,
}

#[derive(Clone, Copy, Debug)]
struct ClockOffset {
    leader: u64,
    offset: i64,
    error: Nanos,
    samples: u32,
}

/// What only the leader knows.
#[derive(Debug)]
struct Lead {
    roster: Roster,
    since: Nanos,
    /// Since when enough members are ready.
    quorum_since: Option<Nanos>,
    /// What earlier leaders knew of lost members.
    earlier: Vec<LostShare>,
    conflict: Option<String>,
}

/// The state of a member. Times are of its own clock, since any origin; `unix` is its Unix time in nanoseconds.
#[derive(Debug)]
pub struct Member<D> {
    settings: MemberSettings,
    /// Since when messages could come.
    connected: Option<Nanos>,
    began: Option<Nanos>,
    lead: Option<Lead>,
    /// The last tick of the leader, and when it came.
    tick: Option<(Nanos, Tick)>,
    clock: Option<ClockOffset>,
    start: Option<i64>,
    absent: Vec<u32>,
    deltas: DeltaBuffer<D>,
    done: ShareProgress,
    ended: bool,
    stop: Option<StopRequest>,
    /// When holds began and ended, in turn.
    hold_changes: Vec<i64>,
    is_over: bool,
}

impl<D: Measured> Member<D> {
    pub fn new(settings: MemberSettings) -> Self {
        Self {
            settings,
            connected: None,
            began: None,
            lead: None,
            tick: None,
            clock: None,
            start: None,
            absent: Vec::new(),
            deltas: DeltaBuffer::default(),
            done: ShareProgress::default(),
            ended: false,
            stop: None,
            hold_changes: Vec::new(),
            is_over: false,
        }
    }

    pub fn is_leading(&self) -> bool {
        self.lead.is_some()
    }

    /// Adds what the member measured in a second, and what it has done so far.
    pub fn measure(&mut self, delta: D, done: ShareProgress) {
        self.deltas.push(delta);
        self.done = done;
    }

    /// Notes that the member's load has ended.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Ends the whole run, if the member leads.
    pub fn stop_all(&mut self, request: StopRequest) -> Vec<Output<D>> {
        match self.lead {
            Some(_) => self.take_stop(request),
            None => Vec::new(),
        }
    }

    /// Does what is due every second. `is_connected`: whether messages can be published and received.
    pub fn on_second(&mut self, now: Nanos, unix: i64, is_connected: bool) -> Vec<Output<D>> {
        if !is_connected {
            self.connected = None;
            return Vec::new();
        }
        if self.connected.is_none() {
            self.connected = Some(now);
            if let Some(lead) = &mut self.lead {
                lead.roster.resume(now);
            }
        }
        let began = *self.began.get_or_insert(now);
        let mut outputs = self.report(unix);
        if self.lead.is_none() && now >= self.leads_from() {
            let earlier = self.tick.as_ref().map_or_else(Vec::new, |(_, tick)| {
                let leader = LostShare { share: tick.share, place: tick.place.clone(), done: Some(tick.done) };
                let others = tick.lost.iter().filter(|lost| lost.share != tick.share).cloned();
                others.chain(Some(leader).filter(|leader| leader.share != self.settings.share)).collect()
            });
            let roster = Roster::new(now);
            self.lead = Some(Lead { roster, since: now, quorum_since: None, earlier, conflict: None });
            outputs.push(Output::Lead(true));
            if self.start.is_none() {
                self.clock = None;
            }
        }
        if let Some(lead) = &mut self.lead {
            if self.start.is_none() && now >= began + PATIENCE {
                lead.conflict.get_or_insert_with(|| missing_text(&lead.roster, self.settings.share.of(), now));
            }
            outputs.extend(self.lead_on(now, unix));
        }
        if self.start.is_none() && now >= began + PATIENCE + SILENCE {
            let waited = format_time(Duration::from_nanos(PATIENCE));
            outputs.push(Output::Refuse(format!("the run has not begun within {waited}")));
        }
        outputs
    }

    pub fn receive(&mut self, now: Nanos, unix: i64, message: Message<D>) -> Vec<Output<D>> {
        match message {
            Message::Status(status) => self.take_status(now, unix, *status),
            Message::Tick(tick) => self.take_tick(now, unix, *tick),
            Message::Pong(pong) => {
                self.take_pong(unix, pong);
                Vec::new()
            }
            Message::Resend(resend) if resend.share == self.settings.share => {
                let again = self.deltas.published_from(resend.from).cloned();
                again.map(|delta| Output::Publish(self.status(unix, Some(delta)))).collect()
            }
            Message::Stop(request) => self.take_stop(request),
            Message::Hold(request) => self.lead_hold(unix, request),
            Message::Resend(_) | Message::Facts(_) => Vec::new(),
        }
    }

    /// Returns when the member leads, unless a tick comes.
    fn leads_from(&self) -> Nanos {
        let stagger = (Nanos::from(self.settings.share.index()) * STAGGER).min(MAX_STAGGER);
        let connected = self.connected.unwrap_or_default();
        match &self.tick {
            Some((at, _)) => (*at).max(connected) + SILENCE + stagger,
            None => connected + FIRST_PATIENCE + stagger,
        }
    }

    fn status(&self, unix: i64, delta: Option<super::message::Delta<D>>) -> Message<D> {
        let MemberSettings { share, member, place, facts, .. } = &self.settings;
        let leader = self.tick.as_ref().map(|(_, tick)| tick.member);
        let measured = self.clock.filter(|clock| Some(clock.leader) == leader && clock.samples >= CLOCK_SAMPLES);
        Message::Status(Box::new(Status {
            share: *share,
            member: *member,
            place: place.clone(),
            sent: unix,
            clock_error: if self.lead.is_some() { Some(0) } else { measured.map(|clock| clock.error) },
            facts: self.start.is_none().then(|| Box::new(facts.clone())),
            ended: self.ended,
            done: self.done,
            delta,
        }))
    }

    /// Returns the member's status, with what is to be reported.
    fn report(&mut self, unix: i64) -> Vec<Output<D>> {
        let deltas = self.deltas.take_unpublished(MAX_DELTAS);
        if deltas.is_empty() {
            return vec![Output::Publish(self.status(unix, None))];
        }
        deltas.into_iter().map(|delta| Output::Publish(self.status(unix, Some(delta)))).collect()
    }

    /// Decides what only the leader does, and publishes a tick.
    fn lead_on(&mut self, now: Nanos, unix: i64) -> Vec<Output<D>> {
        let of = self.settings.share.of();
        let Some(lead) = &mut self.lead else { return Vec::new() };
        let ready: Vec<u32> = lead
            .roster
            .present(now)
            .filter(|known| known.clock_error.is_some())
            .map(|known| known.share.index())
            .collect();
        let mut outputs = Vec::new();
        if self.start.is_none() && self.stop.is_none() && lead.conflict.is_none() {
            let is_enough = ready.len() >= self.settings.quorum as usize;
            lead.quorum_since = lead.quorum_since.filter(|_| is_enough).or(is_enough.then_some(now));
            let waited = lead.quorum_since.is_some_and(|since| now >= since + QUORUM_PATIENCE);
            if now >= lead.since + SETTLING && (ready.len() == of as usize || waited) {
                let begins = unix.saturating_add(i64::try_from(self.settings.preparation).unwrap_or(i64::MAX));
                let at = begins.saturating_add(SECOND as i64 - 1) / SECOND as i64 * SECOND as i64;
                self.start = Some(at);
                self.absent = (0..of).filter(|index| !ready.contains(index)).collect();
                let wide = lead.roster.present(now).filter(|known| known.clock_error > Some(WIDE_CLOCK_ERROR));
                outputs.extend(wide.map(|known| Output::Warn(wide_clock_text(known))));
                outputs.push(Output::Begin(AgreedStart { at, offset: 0, error: 0, absent: self.absent.len() }));
            }
        }
        let own = lead.roster.get(self.settings.share);
        // A leader that does not hear itself hears no other member.
        let hears =
            own.is_some() && !lead.roster.lost(of, now, &[]).iter().any(|lost| lost.share == self.settings.share);
        let lost = if self.start.is_some() && hears { lead.roster.lost(of, now, &lead.earlier) } else { Vec::new() };
        let ended = lead.roster.present(now).filter(|known| known.ended).count();
        let over = self.start.is_some() && hears && self.ended && ended + lost.len() == of as usize;
        let tick = Tick {
            share: self.settings.share,
            member: self.settings.member,
            place: self.settings.place.clone(),
            ready: ready.len() as u32,
            start: self.start,
            absent: self.absent.clone(),
            lost: lost.clone(),
            refused: lead
                .conflict
                .as_ref()
                .filter(|_| now >= lead.since + SETTLING)
                .map(|text| text.chars().take(MAX_CONFLICT).collect()),
            stop: self.stop.clone(),
            hold_changes: self.hold_changes.clone(),
            over,
            done: self.done,
        };
        let refused = tick.refused.clone();
        self.tick = Some((now, tick.clone()));
        outputs.push(Output::Publish(Message::Tick(Box::new(tick))));
        outputs.extend(refused.map(Output::Refuse));
        if over && !self.is_over {
            self.is_over = true;
            outputs.push(Output::Over(lost));
        }
        outputs
    }

    fn take_status(&mut self, now: Nanos, unix: i64, status: Status<D>) -> Vec<Output<D>> {
        let Some(lead) = &mut self.lead else { return Vec::new() };
        let MemberSettings { share: own, facts, place, member, .. } = &self.settings;
        let (share, other_place, is_own) = (status.share, status.place.clone(), status.member == *member);
        let (own_name, other_name) = (format!("share {own} on {place}"), format!("share {share} on {other_place}"));
        let mut outputs = Vec::new();
        if self.start.is_none() && !is_own {
            let (leader, echo) = (*member, status.sent);
            let pong = Pong { share, member: status.member, leader, echo, at: unix };
            outputs.push(Output::Publish(Message::Pong(pong)));
        }
        let differ = status.facts.as_deref().filter(|_| self.start.is_none());
        let differ = differ.and_then(|other| facts.difference(other));
        if let Some((what, one, other)) = differ {
            let text = format!("{own_name} and {other_name} differ in {what}: {one} and {other}");
            lead.conflict.get_or_insert(text);
            return outputs;
        }
        if share.of() != own.of() {
            if self.start.is_none() {
                let text = format!("{own_name} and {other_name} differ in the number of shares");
                lead.conflict.get_or_insert(text);
            }
            return outputs;
        }
        match lead.roster.take_status(now, status, self.start.is_none()) {
            StatusOutcome::Known(added, request) => {
                outputs.extend(added.map(Output::Add));
                outputs.extend(request.map(Output::Publish));
            }
            StatusOutcome::Twice(known) if self.start.is_none() => {
                let text = format!("{} and on {other_place} runs twice", known.describe());
                lead.conflict.get_or_insert(text);
            }
            // The run goes on with the first of them; the other one sees that it began without it.
            StatusOutcome::Twice(_) => {}
        }
        outputs
    }

    fn take_tick(&mut self, now: Nanos, unix: i64, tick: Tick) -> Vec<Output<D>> {
        let MemberSettings { share, member, .. } = &self.settings;
        if tick.member == *member || tick.share.of() != share.of() {
            return Vec::new();
        }
        let rank = |start: Option<i64>, share: Share, member: u64| (start.is_none(), share, member);
        let theirs = rank(tick.start, tick.share, tick.member);
        let mut outputs = Vec::new();
        if self.lead.is_some() {
            if theirs > rank(self.start, *share, *member) {
                return outputs;
            }
            self.lead = None;
            outputs.push(Output::Lead(false));
        } else if let Some((at, last)) = &self.tick
            && now < at + SILENCE
            && theirs > rank(last.start, last.share, last.member)
        {
            return outputs;
        }
        if let Some(text) = &tick.refused
            && self.start.is_none()
        {
            outputs.push(Output::Refuse(text.clone()));
        }
        if let (Some(at), None) = (tick.start, self.start) {
            outputs.push(self.adopt_start(unix, at, &tick));
        }
        if let Some(stop) = tick.stop.clone() {
            outputs.extend(self.take_stop(stop));
        }
        outputs.extend(self.adopt_hold_changes(unix, &tick.hold_changes));
        if tick.over && self.ended && !self.is_over {
            self.is_over = true;
            outputs.push(Output::Over(tick.lost.clone()));
        }
        self.tick = Some((now, tick));
        outputs
    }

    fn adopt_start(&mut self, unix: i64, at: i64, tick: &Tick) -> Output<D> {
        let share = self.settings.share;
        let clock = self.clock.filter(|clock| clock.leader == tick.member && clock.samples >= CLOCK_SAMPLES);
        let (Some(clock), false) = (clock, tick.absent.contains(&share.index())) else {
            return Output::Refuse(format!(
                "the run has begun without this process as share {share} on {}",
                self.settings.place
            ));
        };
        let local = at.saturating_sub(clock.offset);
        if local > unix.saturating_add(MAX_AHEAD) {
            return Output::Refuse(format!("share {} on {} sets a start that is days ahead", tick.share, tick.place));
        }
        if local < unix {
            return Output::Refuse(format!(
                "the run has begun before share {share} on {} was ready",
                self.settings.place
            ));
        }
        self.start = Some(at);
        self.absent.clone_from(&tick.absent);
        let ClockOffset { offset, error, .. } = clock;
        Output::Begin(AgreedStart { at, offset, error, absent: tick.absent.len() })
    }

    fn take_pong(&mut self, unix: i64, pong: Pong) {
        let Some(took) = unix.checked_sub(pong.echo).and_then(|took| Nanos::try_from(took).ok()) else { return };
        if pong.member != self.settings.member || self.start.is_some() {
            return;
        }
        let middle = pong.echo.saturating_add_unsigned(took / 2);
        let (offset, error) = (pong.at.saturating_sub(middle), took.div_ceil(2));
        let known = self.clock.filter(|clock| clock.leader == pong.leader);
        let samples = known.map_or(0, |clock| clock.samples) + 1;
        let best = known.filter(|clock| clock.error <= error);
        let measured = best.unwrap_or(ClockOffset { leader: pong.leader, offset, error, samples });
        self.clock = Some(ClockOffset { samples, ..measured });
    }

    /// Sets when all members begin or end a hold, if this one leads.
    fn lead_hold(&mut self, unix: i64, request: HoldRequest) -> Vec<Output<D>> {
        let common = self.common_time(unix);
        let is_held = self.hold_changes.len() % 2 == 1;
        let runs = self.lead.is_some() && self.stop.is_none() && self.start.is_some_and(|start| common >= start);
        if !runs || is_held == request.begins || self.hold_changes.len() >= 2 * MAX_HOLDS {
            return Vec::new();
        }
        let second = SECOND as i64;
        let next = common.saturating_add(HOLD_AHEAD) / second * second;
        let at = self.hold_changes.last().map_or(next, |last| next.max(last + second));
        let mut changes = self.hold_changes.clone();
        changes.push(at);
        self.adopt_hold_changes(unix, &changes)
    }

    /// Adopts the changes that are new. Strangers could set a time at which the run never goes on.
    fn adopt_hold_changes(&mut self, unix: i64, all: &[i64]) -> Vec<Output<D>> {
        let latest = self.common_time(unix).saturating_add(MAX_HOLD_AHEAD);
        let known = self.hold_changes.len();
        self.hold_changes.extend(all.iter().skip(known).take_while(|at| **at <= latest));
        let change = |(number, at): (usize, &i64)| Output::Hold(HoldChange { at: *at, begins: number % 2 == 0 });
        self.hold_changes.iter().enumerate().skip(known).map(change).collect()
    }

    fn common_time(&self, unix: i64) -> i64 {
        unix.saturating_add(self.clock.map_or(0, |clock| clock.offset))
    }

    fn take_stop(&mut self, request: StopRequest) -> Vec<Output<D>> {
        let is_new = self.stop.as_ref().is_none_or(|known| request.at_once && !known.at_once);
        if !is_new {
            return Vec::new();
        }
        self.stop = Some(request.clone());
        match self.start {
            Some(_) => vec![Output::Stop(request)],
            None => vec![Output::Refuse(format!("the run was stopped before it began: {}", request.reason))],
        }
    }
}

/// Says which shares have not announced themselves.
fn missing_text(roster: &Roster, of: u32, now: Nanos) -> String {
    let present: Vec<&KnownMember> = roster.present(now).collect();
    let missing = Share::all(of).filter(|share| present.iter().all(|known| known.share != *share));
    let missing: Vec<String> = missing.map(|share| share.to_string()).collect();
    let there: Vec<String> = present.iter().map(|known| known.describe()).collect();
    let list = |all: &[String]| {
        let more = if all.len() > MAX_NAMED { ", ..." } else { "" };
        all[..all.len().min(MAX_NAMED)].join(", ") + more
    };
    let (number, waited) = (format_count(missing.len(), "share"), format_time(Duration::from_nanos(PATIENCE)));
    format!("{number} did not appear within {waited}: {}; there are {}", list(&missing), list(&there))
}

fn wide_clock_text(known: &KnownMember) -> String {
    let error = format_time(Duration::from_nanos(known.clock_error.unwrap_or_default()));
    format!("the clock of {} is known only within {error}, so it may begin that much early or late", known.describe())
}
