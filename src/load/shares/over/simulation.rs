//! A thousand members in simulated time: late ones, lost ones, slow clocks, and a message server that restarts.

use std::collections::{BTreeMap, BTreeSet};

use super::deltas::Measured;
use super::member::{AgreedStart, HoldChange, Member, MemberSettings, Output};
use super::message::{HoldRequest, Message, Status, StopRequest};
use super::roster::{Roster, StatusOutcome};
use crate::load::shares::record::{CommonFacts, LostShare, ShareProgress};
use crate::load::shares::tests::common;
use crate::load::{Nanos, SECOND};
use crate::syntax::share::Share;

/// The step of the simulation, and how long a message takes.
const STEP: Nanos = SECOND / 50;
const LEAD_TIME: Nanos = 5 * SECOND;
/// Unix time at the beginning of the simulation.
const UNIX: i64 = 1_795_984_068 * SECOND as i64;

/// What a simulated share measures: a number of journeys in a phase.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
struct Counted {
    phase: u64,
    journeys: u64,
}

impl Measured for Counted {
    fn absorb(&mut self, next: &Self) -> bool {
        let fits = self.phase == next.phase;
        self.journeys += if fits { next.journeys } else { 0 };
        fits
    }
}

fn facts(seed: u64) -> CommonFacts {
    CommonFacts { seed, messages: vec!["submit".to_owned()], labelled: Vec::new(), ..common() }
}

struct SimulatedMember {
    state: Member<Counted>,
    /// When it starts, and when it is killed.
    from: Nanos,
    until: Nanos,
    /// By how much its clock differs.
    offset: i64,
    begun: Option<AgreedStart>,
    refused: Option<String>,
    stopped: bool,
    holds: Vec<HoldChange>,
    warned: Vec<String>,
    over: Option<Vec<LostShare>>,
    measured: u64,
    /// What it knows of the whole run, as the leader.
    known: u64,
}

/// A run of some seconds on a server that is down for a while.
struct Simulation {
    members: Vec<SimulatedMember>,
    now: Nanos,
    down: std::ops::Range<Nanos>,
    /// How long the load takes from the start on.
    load: Nanos,
    /// Messages that arrive in the next step, with their senders' subjects.
    travelling: Vec<Message<Counted>>,
    published: u64,
    delivered: u64,
    /// A watcher since a point in time, and what it knows.
    watcher: Option<(Nanos, Roster, u64)>,
    /// What users ask of the run, and when.
    requests: Vec<(Nanos, Message<Counted>)>,
}

impl Simulation {
    fn new(of: u32, load: Nanos) -> Self {
        let member = |share: Share| {
            let settings = MemberSettings {
                share,
                member: 1_000 + u64::from(share.index()),
                place: format!("host-{}", share.index()),
                facts: facts(7),
                quorum: of,
                preparation: LEAD_TIME,
            };
            SimulatedMember {
                state: Member::new(settings),
                from: 0,
                until: Nanos::MAX,
                offset: 0,
                begun: None,
                refused: None,
                stopped: false,
                holds: Vec::new(),
                warned: Vec::new(),
                over: None,
                measured: 0,
                known: 0,
            }
        };
        let members = Share::all(of).map(member).collect();
        Self {
            members,
            now: 0,
            down: 0..0,
            load,
            travelling: Vec::new(),
            published: 0,
            delivered: 0,
            watcher: None,
            requests: Vec::new(),
        }
    }

    fn change(&mut self, index: usize, change: impl FnOnce(&mut MemberSettings)) {
        let share: Share = format!("{}/{}", index + 1, self.members.len()).parse().unwrap();
        let mut settings = MemberSettings {
            share,
            member: 1_000 + index as u64,
            place: format!("host-{index}"),
            facts: facts(7),
            quorum: self.members.len() as u32,
            preparation: LEAD_TIME,
        };
        change(&mut settings);
        self.members[index].state = Member::new(settings);
    }

    fn is_up(&self) -> bool {
        !self.down.contains(&self.now)
    }

    /// Runs until all members have ended, at most this long.
    fn run(&mut self, most: Nanos) -> &mut Self {
        while self.now < most && self.members.iter().any(|member| member.until > self.now && member.is_running()) {
            self.step();
        }
        self
    }

    fn step(&mut self) {
        self.now += STEP;
        let (now, is_up) = (self.now, self.is_up());
        let mut sent = Vec::new();
        for message in std::mem::take(&mut self.travelling) {
            if is_up {
                self.deliver(&message, &mut sent);
            }
        }
        sent.extend(self.requests.iter().filter(|(at, _)| *at == now).map(|(_, request)| request.clone()));
        for (index, member) in self.members.iter_mut().enumerate() {
            // Each has its own beginning of a second.
            let is_due = (now / STEP) % 50 == (index % 50) as u64;
            if now < member.from || now >= member.until || !member.is_running() || !is_due {
                continue;
            }
            member.work(now, self.load);
            let outputs = member.state.on_second(now, UNIX + now as i64 + member.offset, is_up);
            member.take(outputs, &mut sent);
        }
        self.published += sent.len() as u64;
        if is_up {
            self.travelling = sent;
        }
    }

    fn deliver(&mut self, message: &Message<Counted>, sent: &mut Vec<Message<Counted>>) {
        if let Some((from, roster, known)) = &mut self.watcher
            && self.now >= *from
            && let Message::Status(status) = message
        {
            self.delivered += 1;
            let status: Status<Counted> = (**status).clone();
            if let StatusOutcome::Known(added, request) = roster.take_status(self.now, status, false) {
                *known += added.map_or(0, |added| added.journeys);
                sent.extend(request);
            }
        }
        let to = match message {
            Message::Pong(pong) => Some(pong.share.index() as usize),
            Message::Resend(resend) => Some(resend.share.index() as usize),
            _ => None,
        };
        let now = self.now;
        for (index, member) in self.members.iter_mut().enumerate() {
            let receives = to.is_none_or(|to| to == index)
                && (!matches!(message, Message::Status(_)) || member.state.is_leading());
            if !receives || now < member.from || now >= member.until || !member.is_running() {
                continue;
            }
            self.delivered += 1;
            let outputs = member.state.receive(now, UNIX + now as i64 + member.offset, message.clone());
            member.take(outputs, sent);
        }
    }

    /// Returns by how much members begin apart, in true time.
    fn spread(&self) -> Nanos {
        let begun = self.members.iter().filter_map(|member| {
            let begun = member.begun.as_ref()?;
            Some(begun.at - begun.offset - member.offset)
        });
        let begun: BTreeSet<i64> = begun.collect();
        begun.last().zip(begun.first()).map_or(0, |(last, first)| last.abs_diff(*first))
    }
}

impl SimulatedMember {
    fn is_running(&self) -> bool {
        self.refused.is_none() && self.over.is_none()
    }

    /// Measures a second of the load, if it runs.
    fn work(&mut self, now: Nanos, load: Nanos) {
        let Some(begun) = &self.begun else { return };
        let local = UNIX + now as i64 + self.offset;
        let passed = local - (begun.at - begun.offset);
        if passed < 0 {
            return;
        }
        if passed as Nanos >= load || self.stopped {
            return self.state.end();
        }
        self.measured += 7;
        let done = ShareProgress { seconds: self.measured / 7, journeys: self.measured, sent: 2 * self.measured };
        self.state.measure(Counted { phase: passed as u64 / (20 * SECOND), journeys: 7 }, done);
    }

    fn take(&mut self, outputs: Vec<Output<Counted>>, sent: &mut Vec<Message<Counted>>) {
        for output in outputs {
            match output {
                Output::Publish(message) => sent.push(message),
                Output::Lead(begins) => self.known = if begins { 0 } else { self.known },
                Output::Add(counted) => self.known += counted.journeys,
                Output::Begin(start) => self.begun = Some(start),
                Output::Refuse(text) => self.refused = Some(text),
                Output::Stop(_) => self.stopped = true,
                Output::Hold(change) => self.holds.push(change),
                Output::Warn(text) => self.warned.push(text),
                Output::Over(lost) => self.over = Some(lost),
            }
        }
    }
}

#[test]
fn a_thousand_members_start_together_report_and_end_with_messages_for_each() {
    let mut run = Simulation::new(1_000, 45 * SECOND);
    // Late members, slow and fast clocks, a server that restarts in mid-run, lost members, the leader among them.
    for index in (0..1_000).step_by(97) {
        run.members[index].from = 8 * SECOND + index as Nanos * SECOND / 100;
        run.members[index].offset = index as i64 * 40_000_000 - 9_000_000_000;
    }
    run.down = 35 * SECOND..41 * SECOND;
    let lost = [1, 3, 500, 701];
    lost.iter().for_each(|index| run.members[*index].until = if *index == 1 { 54 } else { 47 } * SECOND);
    run.watcher = Some((60 * SECOND, Roster::new(0), 0));
    run.run(200 * SECOND);
    assert!(run.spread() <= 2 * STEP, "{}", run.spread());
    let mut ended = 0;
    for (index, member) in run.members.iter().enumerate() {
        assert_eq!((member.begun.is_some(), &member.refused), (true, &None), "{index}");
        let Some(over) = &member.over else { continue };
        ended += 1;
        let named: Vec<usize> = over.iter().map(|lost| lost.share.index() as usize).collect();
        assert_eq!(named, lost, "{index}");
        assert!(over.iter().all(|lost| lost.done.is_some_and(|done| done.journeys > 0)), "{over:?}");
    }
    assert_eq!(ended, 996);
    // Nothing measured is missing in what the last leader and the late watcher know, but of lost members.
    let measured: u64 = run.members.iter().filter(|member| member.over.is_some()).map(|member| member.measured).sum();
    let all: u64 = run.members.iter().map(|member| member.measured).sum();
    let leader = run.members.iter().filter(|member| member.over.is_some()).map(|member| member.known).max().unwrap();
    assert!((measured..=all).contains(&leader), "{measured} {leader} {all}");
    let (_, roster, known) = run.watcher.as_ref().unwrap();
    assert_eq!((*known, roster.missed), (measured, 0));
    // Members, seconds, and a few messages of each.
    let bound = 1_000 * (run.now / SECOND) * 4;
    assert!(run.published < bound && run.delivered < bound, "{} {} {bound}", run.published, run.delivered);
}

#[test]
fn a_lost_leader_is_replaced_and_named_with_what_it_had_done() {
    let mut run = Simulation::new(8, 40 * SECOND);
    let index = 1;
    run.members[index].until = 30 * SECOND;
    run.run(120 * SECOND);
    for (_, member) in run.members.iter().enumerate().filter(|(other, _)| *other != index) {
        let over = member.over.as_ref().unwrap();
        assert_eq!(over.len(), 1);
        assert_eq!((over[0].share.index(), over[0].place.as_str()), (1, "host-1"));
        assert!(over[0].done.unwrap().journeys + 14 >= run.members[index].measured, "{over:?}");
    }
    let known: BTreeMap<u64, usize> =
        run.members.iter().enumerate().map(|(index, member)| (member.known, index)).collect();
    let measured: u64 = run.members.iter().map(|member| member.measured).sum::<u64>() - run.members[index].measured;
    assert!(known.last_key_value().is_some_and(|(known, _)| *known >= measured), "{known:?} {measured}");
}

#[test]
fn shares_that_disagree_end_before_the_run_and_both_are_named() {
    let mut run = Simulation::new(4, 10 * SECOND);
    run.change(2, |settings| settings.facts = facts(8));
    run.run(60 * SECOND);
    for member in &run.members {
        assert_eq!(
            member.refused.as_deref(),
            Some("share 2/4 on host-1 and share 3/4 on host-2 differ in the seed: 7 and 8")
        );
    }
}

#[test]
fn a_share_that_runs_twice_ends_the_run_before_it_begins() {
    let mut run = Simulation::new(4, 10 * SECOND);
    run.change(2, |settings| {
        settings.share = "2/4".parse().unwrap();
        settings.place = "elsewhere".to_owned();
    });
    run.run(60 * SECOND);
    let text = run.members[0].refused.as_deref().unwrap();
    assert!(text.contains("share 2/4 on host-1") && text.contains("elsewhere runs twice"), "{text}");
    assert!(run.members.iter().all(|member| member.begun.is_none()));
}

#[test]
fn a_missing_share_is_named_when_patience_ends() {
    let mut run = Simulation::new(4, 10 * SECOND);
    run.members[3].from = Nanos::MAX;
    run.members[3].until = 0;
    run.run(1_000 * SECOND);
    for member in &run.members[..3] {
        let text = member.refused.as_deref().unwrap();
        assert!(
            text.starts_with("1 share did not appear within 10 min 0 s: 4/4; there are share 1/4 on host-0, "),
            "{text}"
        );
    }
}

#[test]
fn a_quorum_begins_without_the_rest_and_a_late_share_is_refused() {
    let mut run = Simulation::new(4, 20 * SECOND);
    for index in 0..4 {
        run.change(index, |settings| settings.quorum = 3);
    }
    run.members[1].from = 30 * SECOND;
    run.run(120 * SECOND);
    let text = run.members[1].refused.as_deref().unwrap();
    assert!(text.starts_with("the run has begun without this process as share 2/4"), "{text}");
    let over = run.members[0].over.as_ref().unwrap();
    assert_eq!((over.len(), over[0].share.index(), run.members[0].begun.as_ref().unwrap().absent), (1, 1, 1));
}

#[test]
fn a_stop_reaches_all_members() {
    let mut run = Simulation::new(8, 60 * SECOND);
    let reason = "watch --stop".to_owned();
    let stop = Message::Stop(StopRequest { at_once: false, by_threshold: false, reason });
    run.requests.push((20 * SECOND, stop));
    run.run(200 * SECOND);
    assert!(
        run.now < 30 * SECOND && run.members.iter().all(|member| member.stopped && member.over == Some(Vec::new()))
    );
}

#[test]
fn all_members_hold_at_the_same_seconds_also_under_another_leader() {
    let mut run = Simulation::new(8, 60 * SECOND);
    run.members[3].offset = -4_321_000_000;
    run.members[0].until = 30 * SECOND;
    let hold = |begins: bool| Message::Hold(HoldRequest { begins });
    // Before the start, and a second time, a request changes nothing.
    run.requests = vec![
        (SECOND, hold(true)),
        (20 * SECOND, hold(true)),
        (25 * SECOND, hold(true)),
        (40 * SECOND, hold(false)),
        (41 * SECOND, hold(true)),
    ];
    run.run(200 * SECOND);
    let holds = &run.members[3].holds;
    assert_eq!(holds.iter().map(|change| change.begins).collect::<Vec<_>>(), [true, false, true]);
    let asked = [20, 40, 41].map(|at| UNIX + at * SECOND as i64);
    for (change, asked) in holds.iter().zip(asked) {
        let later = change.at - asked;
        assert!(change.at % SECOND as i64 == 0 && (SECOND as i64..=4 * SECOND as i64).contains(&later), "{later}");
    }
    assert!(run.members[1..].iter().all(|member| member.holds == *holds), "{holds:?}");
    assert_eq!(run.members[0].holds, holds[..1]);
}

#[test]
fn messages_of_strangers_neither_panic_nor_stop_a_run() {
    let (far, text) = (i64::MAX, "x".repeat(3_000));
    let status = |sent: i64, first: u64, place: &str| {
        format!(
            r#"{{"kind":"status","share":"2/2","member":5,"place":"{place}","sent":{sent},"clock_error":null,"facts":null,"ended":true,
            "done":{{"seconds":0,"journeys":0,"sent":0}},"delta":{{"first":{first},"count":1,"content":{{"phase":0,"journeys":1}}}}}}"#
        )
    };
    let tick = format!(
        r#"{{"kind":"tick","share":"1/3","member":5,"place":"{text}","ready":9,"start":{far},"absent":[],"lost":[],"refused":"{text}",
        "stop":null,"hold_changes":[],"over":true,"done":{{"seconds":0,"journeys":0,"sent":0}}}}"#
    );
    let pong = format!(r#"{{"kind":"pong","share":"1/2","member":1000,"leader":5,"echo":{},"at":{far}}}"#, i64::MIN);
    let resend = format!(r#"{{"kind":"resend","share":"1/2","from":{}}}"#, u64::MAX);
    let deep = format!("{}{}", "[".repeat(9_000), "]".repeat(9_000));
    let messages = [
        status(far, u64::MAX, "x"),
        status(i64::MIN, 1 << 31, "x"),
        status(i64::MIN, 3, &text),
        tick,
        pong,
        resend,
        deep,
        "{}".to_owned(),
    ];
    let mut member = Simulation::new(2, SECOND).members.remove(0).state;
    let mut accepted = 0;
    for second in 0..20_u64 {
        for message in &messages {
            let Ok(message) = serde_json::from_str::<Message<Counted>>(message) else { continue };
            if message.is_acceptable() {
                accepted += 1;
                member.receive(second * SECOND, UNIX, message);
            }
        }
        member.on_second(second * SECOND, UNIX + second as i64, true);
    }
    assert_eq!(accepted, 3 * 20, "a status, a pong and a resend are acceptable");
}
