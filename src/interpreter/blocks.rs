//! The stack of blocks that a conversation plays, and what happens at the end of each: rounds, attempts, scenes, openings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::active_step::{Active, Failure, Kind as FailureKind};
use super::actor::{Entry, EntryKind, Link};
use super::checks::{Snapshot, eval_failure};
use super::{Conversation, Output, Phase};
use crate::deviation::proposal::{Missed, MissedKind};
use crate::event::{Cause, Outcome};
use crate::protocol::Level;
use crate::scenario::model::{Act, ActorId, BlockId, MessageName, Program, Role, Step, Want, Who};
use crate::scenario::template::Template;
use crate::scenario::value::Bound;

/// Most messages of an actor that are noted as having come in the place of an expected one.
const MOST_INSTEAD: usize = 8;
/// Pause between two attempts of a `retry`, so that the hub is not flooded with requests.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

pub struct Frame {
    pub block: BlockId,
    pub position: usize,
    pub names: BTreeMap<String, Bound>,
    pub kind: Kind,
    /// The actor of the steps that name none, and of `self`.
    pub me: Option<ActorId>,
    /// Why a step inside the block was skipped, if one was: then the check of the step around the block is not decided.
    pub missed: Option<String>,
}

pub enum Kind {
    Body,
    Each {
        name: String,
        values: Values,
        round: usize,
        bodies: Vec<BlockId>,
        fresh: Vec<ActorId>,
        collected: BTreeMap<String, Vec<Bound>>,
    },
    Either {
        name: String,
        values: Vec<Bound>,
        try_: usize,
        before: Snapshot,
    },
    Retry {
        since: Duration,
        until: Duration,
        before: Snapshot,
    },
    Scene {
        rest: Vec<ActorId>,
        done: Vec<Bound>,
        group: bool,
    },
    Opening {
        rest: Vec<ActorId>,
    },
}

/// What a loop goes through.
pub enum Values {
    Known(Vec<Bound>),
    /// Templates of a literal list: each is evaluated when its round begins.
    Written(Arc<[Template]>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Known(values) => values.len(),
            Self::Written(items) => items.len(),
        }
    }
}

impl Frame {
    pub fn body(block: BlockId) -> Self {
        Self { block, position: 0, names: BTreeMap::new(), kind: Kind::Body, me: None, missed: None }
    }

    /// Whether names of outer blocks are not in scope.
    pub fn is_isolated(&self) -> bool {
        matches!(self.kind, Kind::Scene { .. } | Kind::Opening { .. })
    }
}

/// Whether the conversation goes on at once.
enum Flow {
    Continue,
    Waiting,
}

impl Conversation {
    pub(super) fn push(&mut self, frame: Frame) {
        self.stack.push(frame);
    }

    /// Returns the actor of the innermost block that has one.
    pub(super) fn myself(&self) -> Option<ActorId> {
        self.stack.iter().rev().find_map(|frame| frame.me)
    }

    pub(super) fn bind(&mut self, name: &str, bound: Bound) {
        if let Some(frame) = self.stack.last_mut() {
            frame.names.insert(name.to_owned(), bound);
        }
    }

    /// Plays until a step has to wait.
    pub(super) fn run(&mut self) {
        let program = Arc::clone(&self.program);
        // A scenario cannot loop without waiting; the bound guards against an error of hubproof.
        for _ in 0..10_000_000u32 {
            if self.mistake.is_some() && self.phase == Phase::Main {
                self.stop();
            }
            if let Flow::Waiting = self.advance(&program) {
                return;
            }
        }
        self.mistake = Some("the scenario never waits and never ends".to_owned());
        self.stop();
        self.phase = Phase::Done;
    }

    /// Ends the main part at once; `finally` is still played, and is ended by the next call.
    pub(super) fn stop(&mut self) {
        if self.phase != Phase::Done {
            if let Some(outermost) = self.stack.first_mut() {
                self.lets.append(&mut outermost.names);
            }
            self.stack.clear();
            self.active = None;
        }
    }

    fn advance(&mut self, program: &Arc<Program>) -> Flow {
        let Some(frame) = self.stack.last() else {
            self.phase = match self.phase {
                Phase::Main => {
                    self.push(Frame::body(program.finally));
                    Phase::Finally
                }
                Phase::Finally | Phase::Done => {
                    self.close_all();
                    Phase::Done
                }
            };
            return if self.phase == Phase::Done { Flow::Waiting } else { Flow::Continue };
        };
        let Some(step) = program.blocks[frame.block].get(frame.position) else {
            return self.end_of_block(program);
        };
        let begun = match self.active.take() {
            Some(active) => self.poll(step, active),
            None => self.begin(program, step),
        };
        match begun {
            Ok(Progress::Done(bound)) => {
                self.complete(step, bound);
                Flow::Continue
            }
            Ok(Progress::Entered) => Flow::Continue,
            Ok(Progress::Waiting(active)) => {
                self.active = Some(active);
                Flow::Waiting
            }
            Err(failure) => {
                self.fail(program, step, failure);
                Flow::Continue
            }
        }
    }

    /// Binds the name of a completed step, and moves on to the next one.
    pub(super) fn complete(&mut self, step: &Step, bound: Option<Bound>) {
        if let (Some(name), Some(bound)) = (&step.as_, bound) {
            self.bind(name, bound);
        }
        if let Some(frame) = self.stack.last_mut() {
            frame.position += 1;
        }
    }

    fn end_of_block(&mut self, program: &Arc<Program>) -> Flow {
        let Some(mut frame) = self.stack.pop() else { return Flow::Continue };
        // Neither was the block around it played completely.
        if let (Some(why), Some(outer)) = (&frame.missed, self.stack.last_mut()) {
            outer.missed.get_or_insert_with(|| why.clone());
        }
        match frame.kind {
            // `finally` sees the names that were bound.
            Kind::Body => self.lets.append(&mut frame.names),
            Kind::Each { name, values, round, bodies, fresh, mut collected } => {
                for (bound_name, bound) in frame.names {
                    if bound_name != name && bound_name != "index" {
                        collected.entry(bound_name).or_default().push(bound);
                    }
                }
                for id in &fresh {
                    self.disconnect(*id);
                }
                self.round(program, Round { name, values, round: round + 1, bodies, fresh, collected });
            }
            Kind::Either { name, values, try_, .. } => {
                let mut names = frame.names;
                names.insert(name, values[try_].clone());
                self.leave_block(program, names, None, frame.missed);
            }
            Kind::Retry { since, until, .. } => {
                if let Some(outer) = self.stack.last() {
                    let step = &program.blocks[outer.block][outer.position];
                    self.margin_of(step, self.now.saturating_sub(since), until.saturating_sub(since));
                }
                self.leave_block(program, frame.names, None, frame.missed);
            }
            Kind::Scene { rest, mut done, group } => {
                done.push(Bound::Scene(frame.names));
                self.scene(program, rest, done, group);
            }
            Kind::Opening { rest } => {
                if let Some(id) = frame.me {
                    self.actors[id].opened = frame.names;
                }
                self.opening(program, rest, frame.missed);
            }
        }
        Flow::Continue
    }

    /// Completes the step around a block; the names bound inside belong to the block around it. Its check holds, unless a
    /// step inside was skipped (`missed`): then it is not decided.
    fn leave_block(
        &mut self,
        program: &Program,
        names: BTreeMap<String, Bound>,
        bound: Option<Bound>,
        missed: Option<String>,
    ) {
        let Some(outer) = self.stack.last_mut() else { return };
        outer.names.extend(names);
        let (block, position) = (outer.block, outer.position);
        let step = &program.blocks[block][position];
        if let Some(check) = step.check {
            let missed = missed.map(|why| self.judgement.doubted().unwrap_or(Outcome::NotReached(why)));
            self.judgement.answer(check, &step.text, missed.unwrap_or(Outcome::Holds), "", None);
        }
        self.complete(step, bound);
    }

    pub(super) fn enter_each(
        &mut self,
        program: &Arc<Program>,
        name: &str,
        values: Values,
        bodies: &[BlockId],
        fresh: &[ActorId],
    ) {
        self.round(
            program,
            Round {
                name: name.to_owned(),
                values,
                round: 0,
                bodies: bodies.to_vec(),
                fresh: fresh.to_vec(),
                collected: BTreeMap::new(),
            },
        );
    }

    fn round(&mut self, program: &Arc<Program>, round: Round) {
        let Round { name, values, round, bodies, fresh, collected } = round;
        if round == values.len() {
            let lists =
                collected.into_iter().map(|(name, items)| (name, Bound::Many { items, ordered: true })).collect();
            self.leave_block(program, lists, None, None);
            return;
        }
        if round > 0 {
            for id in &fresh {
                self.give_initial(*id);
            }
        }
        let value = match &values {
            Values::Known(values) => values[round].clone(),
            Values::Written(items) => {
                let names = self.names(None);
                match items[round].eval_bound(&names) {
                    Ok(value) => value,
                    Err(error) => {
                        let failure = eval_failure(error, &items[round], &names);
                        let Some(outer) = self.stack.last() else { return };
                        return self.fail(program, &program.blocks[outer.block][outer.position], failure);
                    }
                }
            }
        };
        let block = *bodies.get(round).or(bodies.last()).unwrap_or(&0);
        let names = [(name.clone(), value), ("index".to_owned(), Bound::plain(Value::from(round)))].into();
        let kind = Kind::Each { name, values, round, bodies, fresh, collected };
        self.push(Frame { names, kind, ..Frame::body(block) });
    }

    pub(super) fn enter_either(&mut self, name: &str, values: Vec<Bound>, body: BlockId) {
        let names = [(name.to_owned(), values[0].clone())].into();
        let before = self.judgement.snapshot();
        let kind = Kind::Either { name: name.to_owned(), values, try_: 0, before };
        self.push(Frame { names, kind, ..Frame::body(body) });
    }

    pub(super) fn enter_retry(&mut self, time: Duration, body: BlockId) {
        let before = self.judgement.snapshot();
        let until = self.now + time;
        self.push(Frame { kind: Kind::Retry { since: self.now, until, before }, ..Frame::body(body) });
    }

    /// Plays a scene for each of `members`, one after another; if there are none (the step `play`), once without an
    /// actor.
    pub(super) fn enter_scene(&mut self, program: &Arc<Program>, members: Vec<ActorId>, group: bool) {
        if members.is_empty() {
            self.scene_frame(program, None, Vec::new(), Vec::new(), group);
        } else {
            self.scene(program, members, Vec::new(), group);
        }
    }

    fn scene(&mut self, program: &Arc<Program>, mut rest: Vec<ActorId>, done: Vec<Bound>, group: bool) {
        if rest.is_empty() {
            let bound = if group {
                Bound::Many { items: done, ordered: false }
            } else {
                done.into_iter().next().unwrap_or(Bound::Scene(BTreeMap::new()))
            };
            self.leave_block(program, BTreeMap::new(), Some(bound), None);
            return;
        }
        let id = rest.remove(0);
        self.scene_frame(program, Some(id), rest, done, group);
    }

    fn scene_frame(
        &mut self,
        program: &Arc<Program>,
        me: Option<ActorId>,
        rest: Vec<ActorId>,
        done: Vec<Bound>,
        group: bool,
    ) {
        let Some(outer) = self.stack.last() else { return };
        let step = &program.blocks[outer.block][outer.position];
        let Act::Play { scene, given, with } = &step.act else { return };
        let mut names = BTreeMap::new();
        for (name, template) in given {
            let overriding = with.iter().find(|(known, _)| known == name);
            let eval = |c: &Self, template: &Template| {
                let names = c.names(me);
                template.eval_bound(&names).map_err(|error| eval_failure(error, template, &names))
            };
            let value = match overriding {
                // With its wire, so that values from the hub are known as such.
                Some((_, template)) => eval(self, template),
                // A given value may use those before it.
                None => {
                    let kind = Kind::Scene { rest: Vec::new(), done: Vec::new(), group };
                    self.push(Frame { names: names.clone(), kind, me, ..Frame::body(*scene) });
                    let value = eval(self, template);
                    self.stack.pop();
                    value
                }
            };
            match value {
                Ok(value) => {
                    names.insert(name.clone(), value);
                }
                Err(failure) => {
                    self.fail(program, step, failure);
                    return;
                }
            }
        }
        self.push(Frame { names, kind: Kind::Scene { rest, done, group }, me, ..Frame::body(*scene) });
    }

    /// Plays the openings of these actors, one after another.
    pub(super) fn opening(&mut self, program: &Arc<Program>, mut rest: Vec<ActorId>, missed: Option<String>) {
        if rest.is_empty() {
            self.leave_block(program, BTreeMap::new(), None, missed);
            return;
        }
        let id = rest.remove(0);
        let Some(outer) = self.stack.last() else { return };
        let step = &program.blocks[outer.block][outer.position];
        if let Act::Join { with } = &step.act {
            let mut overrides = BTreeMap::new();
            for (name, template) in with {
                let names = self.names(Some(id));
                match template.eval_bound(&names).map_err(|error| eval_failure(error, template, &names)) {
                    Ok(value) => {
                        overrides.insert(name.clone(), value);
                    }
                    Err(failure) => {
                        self.fail(program, step, failure);
                        return;
                    }
                }
            }
            if let Err(failure) = self.give(id, &overrides, false) {
                self.fail(program, step, failure);
                return;
            }
        }
        let Some(role) = program.roles.get(&program.actors[id].role) else { return };
        self.push(Frame { kind: Kind::Opening { rest }, me: Some(id), missed, ..Frame::body(role.opening) });
    }

    /// Evaluates the `given` values of an actor: all of them, or those that are overridden and those that use these.
    pub(super) fn give(&mut self, id: ActorId, overrides: &BTreeMap<String, Bound>, all: bool) -> Result<(), Failure> {
        let program = Arc::clone(&self.program);
        let Some(Role { given, .. }) = program.roles.get(&program.actors[id].role) else { return Ok(()) };
        for (name, template) in given {
            let value = match overrides.get(name) {
                Some(value) => value.clone(),
                None if all || depends_on(template, overrides) => {
                    let names = self.names(Some(id));
                    self.world.set_actor(Some(id));
                    let value = template.eval_bound(&names);
                    self.world.set_actor(None);
                    value.map_err(|error| {
                        let failure = eval_failure(error, template, &names);
                        let message = format!("`given: {name}` of `{}`: {}", program.actors[id].name, failure.message);
                        Failure { message, ..failure }
                    })?
                }
                None => continue,
            };
            self.actors[id].given.insert(name.clone(), value);
        }
        Ok(())
    }

    /// Evaluates the initial `given` values of an actor, which use nothing that the hub sent.
    pub(super) fn give_initial(&mut self, id: ActorId) {
        if let Err(failure) = self.give(id, &BTreeMap::new(), true) {
            self.mistake.get_or_insert(failure.message);
        }
    }

    /// Disconnects an actor that is new in every round, and resets it.
    fn disconnect(&mut self, id: ActorId) {
        if self.actors[id].is_open()
            && let Some(connection) = self.actors[id].connection
        {
            self.send_close(id, connection);
            self.out.push(Output::End { connection, reset: false });
        }
        self.judge_connection(id);
        self.keep_leftovers(id);
        self.actors[id] = super::Actor::default();
    }

    /// Closes all open connections with code 1000.
    fn close_all(&mut self) {
        for id in 0..self.actors.len() {
            if self.actors[id].is_open()
                && let Some(connection) = self.actors[id].connection
            {
                self.send_close(id, connection);
            }
        }
    }

    fn send_close(&mut self, id: ActorId, connection: u32) {
        let frame = crate::websocket::frame::Frame::close(Some(1000), "");
        let frame = if self.is_server(id) { frame.unmasked() } else { frame };
        self.out.push(Output::Send { connection, frames: vec![frame] });
    }

    pub(super) fn is_server(&self, id: ActorId) -> bool {
        self.program.roles.get(&self.program.actors[id].role).is_some_and(|role| role.server)
    }

    // ---- failures

    /// Handles a failed step: its check is answered, and the conversation goes on, repeats the attempt, or ends.
    pub(super) fn fail(&mut self, program: &Arc<Program>, step: &Step, mut failure: Failure) {
        failure.message = self.shown(&failure.message, 400);
        match &failure.kind {
            FailureKind::Mistake => {
                self.mistake.get_or_insert(format!("{}: {}", step.text, failure.message));
                self.stop();
                return;
            }
            FailureKind::NotReached => {
                self.miss(program, step, failure.message);
                self.complete(step, None);
                return;
            }
            FailureKind::Broken | FailureKind::Undecided => {}
        }
        if self.phase == Phase::Finally {
            // `finally` has no checks, and goes on after a failure.
            self.complete(step, None);
            return;
        }
        let (undecided, outcome) = self.outcome_of(&failure);
        let mut accuses = false;
        let mut must = false;
        if let Some(check) = step.check {
            accuses = !undecided;
            must = program.checks[check].rules.iter().any(|rule| rule.level == Level::Must);
            self.judgement.answer(
                check,
                &step.text,
                outcome,
                failure.message.clone(),
                failure.detail.as_deref().cloned(),
            );
        }
        if accuses && !must && !self.is_trying() {
            self.complete(step, None);
            return;
        }
        if self.goes_on(program, step) {
            self.go_on(program, step, failure);
        } else {
            self.unwind(program, step, failure);
        }
    }

    /// Returns the outcome of a check whose step failed, and whether it is undecided.
    fn outcome_of(&self, failure: &Failure) -> (bool, Outcome) {
        match (&failure.kind, self.judgement.doubted()) {
            (FailureKind::Undecided, _) => (true, Outcome::Undecided(failure.message.clone())),
            (_, Some(doubted)) => (true, doubted),
            _ => (false, Outcome::Broken),
        }
    }

    /// Whether the conversation goes on behind a failed step: what was expected did not come, but the connection is open.
    /// A hub may serve a client all the same, whose greeting or confirmation is another than documented.
    fn goes_on(&self, program: &Program, step: &Step) -> bool {
        let awaits = match &step.act {
            Act::Expect(expect) => matches!(expect.want, Want::Message { .. } | Want::Control { .. }),
            Act::ExpectOneOf { .. } => true,
            _ => false,
        };
        let opening = || self.stack.iter().any(|frame| matches!(frame.kind, Kind::Opening { .. }));
        let may = self.config.persistent || (step.check.is_none() && opening());
        let is_open = |id: &ActorId| self.actors[*id].is_open();
        // A hub that sends nothing at all serves no client, and one that stays silent costs no more than this.
        let in_time = self.doubted_since.is_none_or(|since| self.now < since + self.stretched(self.config.patience));
        let serves = self.actors.iter().any(|actor| !actor.inbox.is_empty());
        awaits && may && serves && in_time && !self.is_attempt(program) && self.members(&step.who).iter().all(is_open)
    }

    /// Whether a failure ends an attempt, or a block whose rules may be broken.
    fn is_attempt(&self, program: &Program) -> bool {
        self.stack.windows(2).any(|pair| match pair[1].kind {
            Kind::Retry { .. } | Kind::Either { .. } => true,
            Kind::Opening { .. } => {
                let check = program.blocks[pair[0].block][pair[0].position].check;
                check.is_some_and(|check| program.checks[check].rules.iter().all(|rule| rule.level != Level::Must))
            }
            _ => false,
        })
    }

    /// Returns what a failed step expected and did not get, and what came in its place.
    fn missed(&self, program: &Program, step: &Step) -> Option<Missed> {
        let rules = || step.check.iter().flat_map(|check| &program.checks[*check].rules).map(|used| used.id.clone());
        for id in self.members(&step.who) {
            let what = match (&step.act, &self.actors[id].link) {
                (Act::Expect(_) | Act::ExpectOneOf { .. }, Link::Open { .. }) => {
                    let Some(message) = first_awaited(program, &step.act) else { continue };
                    let unknown = |entry: &Entry| match &entry.kind {
                        // An envelope matches whatever has its form.
                        EntryKind::Message { json: Some(json), message }
                            if !entry.claimed && message.is_none_or(|index| program.pack.messages[index].abstract_) =>
                        {
                            Some(json.clone())
                        }
                        _ => None,
                    };
                    let actor = &self.actors[id];
                    let instead = actor.inbox.iter().filter_map(unknown).take(MOST_INSTEAD).collect();
                    let same = |entry: &Entry| match &entry.kind {
                        EntryKind::Message { json: Some(json), message: Some(found) }
                            if !entry.claimed && *found == message =>
                        {
                            Some(json.clone())
                        }
                        _ => None,
                    };
                    let near = actor.inbox.iter().filter_map(same).take(MOST_INSTEAD).collect();
                    let answers = |entry: &Entry| match &entry.kind {
                        EntryKind::Message { json: Some(_), message: Some(other) } if !entry.claimed => {
                            let known = &program.pack.messages[*other];
                            *other != message && !known.abstract_ && !known.directions.unasked
                        }
                        _ => false,
                    };
                    // Of several answers none is the one that never comes.
                    let answered = actor.inbox.iter().any(answers) || matches!(step.act, Act::ExpectOneOf { .. });
                    let sent = actor.last_message.as_ref();
                    let after = sent.and_then(|name| program.pack.messages.iter().position(|m| m.name == *name));
                    MissedKind::Message { message, after, instead, near, answered }
                }
                (Act::Connect(_), Link::Refused { refusal, text, .. }) => {
                    let status = refusal.get("status").and_then(Value::as_u64).unwrap_or(0);
                    let answer = self.shown(&format!("{text} {refusal}"), 1000);
                    MissedKind::Upgrade { status, answer }
                }
                _ => continue,
            };
            return Some(Missed { what, rules: rules().collect() });
        }
        None
    }

    /// Goes on behind a failed step. From now on, only what comes proves something.
    fn go_on(&mut self, program: &Arc<Program>, step: &Step, failure: Failure) {
        let message = format!("{}: {}", step.text, failure.message);
        let (_, outcome) = self.outcome_of(&failure);
        for inner in (1..self.stack.len()).rev() {
            let outer = &self.stack[inner - 1];
            let holder = &program.blocks[outer.block][outer.position];
            if let (Some(check), Kind::Opening { .. }) = (holder.check, &self.stack[inner].kind) {
                let detail = failure.detail.as_deref().cloned();
                self.judgement.answer(check, &holder.text, outcome.clone(), message.clone(), detail);
            }
        }
        for frame in &mut self.stack {
            frame.missed.get_or_insert_with(|| message.clone());
        }
        self.judgement.doubt(&message);
        self.doubted_since.get_or_insert(self.now);
        let missed = self.missed(program, step);
        self.set_cause(step, failure, missed);
        self.complete(step, None);
    }

    /// Records why checks after this step are not decided; the first such failure counts.
    fn set_cause(&mut self, step: &Step, failure: Failure, missed: Option<Missed>) {
        if self.cause.is_some() {
            return;
        }
        self.missed = missed;
        self.cause = Some(Cause {
            span: Some(step.span),
            step: step.text.clone(),
            message: failure.message,
            detail: failure.detail.map(|detail| *detail),
            unreachable: failure.unreachable,
        });
    }

    /// Whether the step is inside an attempt that may be repeated: then any failure ends the attempt.
    fn is_trying(&self) -> bool {
        self.stack.iter().any(|frame| match &frame.kind {
            Kind::Retry { until, .. } => self.now < *until,
            Kind::Either { values, try_, .. } => try_ + 1 < values.len(),
            _ => false,
        })
    }

    fn unwind(&mut self, program: &Arc<Program>, step: &Step, failure: Failure) {
        self.active = None;
        // Whose step it is, only the stack knows.
        let missed = self.missed(program, step);
        while let Some(mut frame) = self.stack.pop() {
            match &mut frame.kind {
                Kind::Retry { until, before, .. } if self.now < *until => {
                    self.judgement.restore(before);
                    let pause = (self.now + RETRY_PAUSE).min(*until);
                    frame.position = 0;
                    frame.missed = None;
                    frame.names.clear();
                    self.push(frame);
                    self.active = Some(Active::pause(pause));
                    return;
                }
                Kind::Either { name, values, try_, before } if *try_ + 1 < values.len() => {
                    *try_ += 1;
                    self.judgement.restore(before);
                    let (name, value) = (name.clone(), values[*try_].clone());
                    frame.position = 0;
                    frame.missed = None;
                    frame.names = [(name, value)].into();
                    self.push(frame);
                    return;
                }
                Kind::Each { fresh, .. } => {
                    for id in fresh.clone() {
                        self.disconnect(id);
                    }
                }
                Kind::Body => self.lets.append(&mut frame.names),
                _ => {}
            }
            // The step around the block may have rules of its own, or only ones that cannot fail.
            let Some(outer) = self.stack.last() else { break };
            let holder = &program.blocks[outer.block][outer.position];
            if let Some(check) = holder.check
                && matches!(frame.kind, Kind::Retry { .. } | Kind::Opening { .. })
            {
                let (undecided, outcome) = self.outcome_of(&failure);
                let message = format!("{}: {}", step.text, failure.message);
                self.judgement.answer(check, &holder.text, outcome, message, failure.detail.as_deref().cloned());
                let must = program.checks[check].rules.iter().any(|rule| rule.level == Level::Must);
                if !must && !undecided && !self.is_trying() {
                    self.complete(holder, None);
                    return;
                }
            }
        }
        self.set_cause(step, failure, missed);
    }

    /// Answers the check of a skipped step and those of its details.
    fn answer_all(&mut self, program: &Program, step: &Step, outcome: &Outcome) {
        let mut checks = Vec::new();
        checks_of(program, step, &mut checks);
        for check in checks {
            self.judgement.answer(check, &step.text, outcome.clone(), "", None);
        }
    }

    /// Skips a step, for its `if`.
    pub(super) fn skip(&mut self, program: &Program, step: &Step, why: String) {
        self.answer_all(program, step, &Outcome::NotReached(why));
    }

    /// Skips a step that uses a name never bound; then the check of the step around its block is not decided.
    pub(super) fn miss(&mut self, program: &Program, step: &Step, why: String) {
        if let Some(frame) = self.stack.last_mut() {
            frame.missed.get_or_insert_with(|| why.clone());
        }
        let outcome = self.judgement.doubted().unwrap_or(Outcome::NotReached(why));
        self.answer_all(program, step, &outcome);
    }

    /// Returns the actors a step is about.
    pub(super) fn members(&self, who: &Who) -> Vec<ActorId> {
        match who {
            Who::NoActor => Vec::new(),
            Who::Myself => self.myself().into_iter().collect(),
            Who::One(id) => vec![*id],
            Who::Group { members, .. } => members.clone(),
        }
    }
}

/// The state of a step that was begun or polled.
pub enum Progress {
    Done(Option<Bound>),
    /// A block was pushed; the step completes when it ends.
    Entered,
    Waiting(Active),
}

struct Round {
    name: String,
    values: Values,
    round: usize,
    bodies: Vec<BlockId>,
    fresh: Vec<ActorId>,
    collected: BTreeMap<String, Vec<Bound>>,
}

/// Returns the message that a step awaits, the first one of several answers, by its index in the pack.
fn first_awaited(program: &Program, act: &Act) -> Option<usize> {
    let index = |want: &Want| match want {
        Want::Message { message: MessageName::Named(name), .. } => {
            program.pack.messages.iter().position(|message| message.name == *name)
        }
        _ => None,
    };
    match act {
        Act::Expect(expect) => index(&expect.want),
        Act::ExpectOneOf { alternatives, .. } => {
            let good = alternatives.iter().filter(|alternative| alternative.fail.is_none());
            good.filter_map(|alternative| alternative.want.as_ref()).find_map(index)
        }
        _ => None,
    }
}

/// Collects the checks of a step, of its details, and of the blocks in it.
fn checks_of(program: &Program, step: &Step, checks: &mut Vec<usize>) {
    checks.extend(step.check);
    let bodies = match &step.act {
        Act::Each { bodies, .. } => bodies.as_slice(),
        Act::Either { body, .. } | Act::Retry { body, .. } => std::slice::from_ref(body),
        act => {
            let has = match act {
                Act::Expect(expect) => expect.has.as_slice(),
                Act::ExpectEnd { has, .. } => has,
                Act::Hook(hook) => &hook.has,
                _ => &[],
            };
            return checks.extend(has.iter().map(|has| has.check));
        }
    };
    bodies.iter().flat_map(|body| &program.blocks[*body]).for_each(|step| checks_of(program, step, checks));
}

/// Whether a given value uses one that is overridden.
fn depends_on(template: &Template, overrides: &BTreeMap<String, Bound>) -> bool {
    let mut depends = false;
    template.expressions(&mut |expression| {
        depends |= expression
            .uses
            .iter()
            .filter_map(|name| name.strip_prefix("self."))
            .any(|name| overrides.contains_key(name));
    });
    depends
}
