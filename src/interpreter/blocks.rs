//! The stack of blocks that a conversation plays, and what happens at the end of each kind: rounds, attempts, scenes
//! and openings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::active_step::{ActiveStep, StepFailure};
use super::actor::{ActorState, Batch};
use super::checks::CheckSnapshot;
use super::{Conversation, ConversationOutput};
use crate::outcome::{CheckOutcome, FrameKind, HistoryDirection};
use crate::protocol::RuleLevel;
use crate::scenario::model::{ActorId, BlockId, CheckId, Program, Role, Step, StepAction, StepActors};
use crate::scenario::template::Template;
use crate::scenario::value::BoundValue;
use crate::scenario::variation::{PreludePlace, Variation};
use crate::syntax::matcher::to_json_text;
use crate::websocket::frame::Frame;

/// How many times an actor plays a prelude. Some scenarios open dozens of connections, and a prelude may take seconds.
const MOST_PRELUDES: usize = 8;

pub struct BlockFrame {
    pub block: BlockId,
    pub position: usize,
    pub names: BTreeMap<String, BoundValue>,
    pub kind: BlockKind,
    /// The actor of `self` and of steps that name no actor.
    pub me: Option<ActorId>,
    /// Why a step inside the block was skipped, if one was. Then the check of the step around the block is undecided.
    pub missed: Option<String>,
}

pub enum BlockKind {
    Body,
    Each(LoopRound),
    Either {
        name: String,
        values: Vec<BoundValue>,
        try_: usize,
        before: CheckSnapshot,
    },
    Retry {
        since: Duration,
        until: Duration,
        before: CheckSnapshot,
    },
    Scene {
        rest: Vec<ActorId>,
        done: Vec<BoundValue>,
        group: bool,
    },
    Opening {
        rest: Vec<ActorId>,
    },
    /// The steps that a variation plays after an opening.
    Prelude {
        rest: Vec<ActorId>,
        /// How many times it is played again.
        left: usize,
    },
    /// The steps that a variation plays before a step, or many times at once.
    Interlude,
    /// A prelude that is played many times at once.
    Batch(Batch),
}

/// A loop, with the number of the round being played.
pub struct LoopRound {
    name: String,
    values: LoopValues,
    round: usize,
    bodies: Vec<BlockId>,
    /// The actors that are new in every round.
    pub fresh: Vec<ActorId>,
    /// The values that the rounds so far have bound, by name.
    collected: BTreeMap<String, Vec<BoundValue>>,
}

/// The values that a loop iterates over.
pub enum LoopValues {
    Known(Vec<BoundValue>),
    /// The templates of a literal list. Each is evaluated when its round begins.
    Written(Arc<[Template]>),
}

impl LoopValues {
    fn len(&self) -> usize {
        match self {
            Self::Known(values) => values.len(),
            Self::Written(items) => items.len(),
        }
    }
}

impl BlockFrame {
    pub fn body(block: BlockId) -> Self {
        Self { block, position: 0, names: BTreeMap::new(), kind: BlockKind::Body, me: None, missed: None }
    }

    /// Whether the step around the block fails, with its rules, if a step inside does.
    pub fn fails_step(&self) -> bool {
        matches!(self.kind, BlockKind::Retry { .. } | BlockKind::Opening { .. } | BlockKind::Scene { .. })
    }

    /// Whether the names of outer blocks are out of scope.
    fn is_isolated(&self) -> bool {
        matches!(self.kind, BlockKind::Scene { .. } | BlockKind::Opening { .. }) || self.is_prelude()
    }

    fn is_prelude(&self) -> bool {
        matches!(self.kind, BlockKind::Prelude { .. } | BlockKind::Interlude | BlockKind::Batch(_))
    }
}

/// Whether the conversation continues at once.
pub(super) enum ConversationFlow {
    Continue,
    Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Main,
    Finally,
    LastPings,
    Done,
}

/// The position of a conversation: the blocks being played, innermost last, and the names bound in them.
pub struct BlockStack {
    pub phase: Phase,
    pub stack: Vec<BlockFrame>,
    /// What the current step waits for.
    pub active: Option<ActiveStep>,
    /// The prelude that waits until the scenario has sent the requests that are written together with its own.
    pub held: Option<BlockFrame>,
    /// The names bound by `let` and by the blocks that have ended.
    pub lets: BTreeMap<String, BoundValue>,
}

impl BlockStack {
    pub fn new(block: BlockId) -> Self {
        let stack = vec![BlockFrame::body(block)];
        Self { phase: Phase::Main, stack, active: None, held: None, lets: BTreeMap::new() }
    }

    pub fn push(&mut self, frame: BlockFrame) {
        self.stack.push(frame);
    }

    /// Records why the check of the step around the innermost block is undecided.
    pub fn miss(&mut self, why: &str) {
        if let Some(frame) = self.stack.last_mut() {
            frame.missed.get_or_insert_with(|| why.to_owned());
        }
    }

    /// Returns the actor of the innermost block that has one.
    pub fn myself(&self) -> Option<ActorId> {
        self.stack.iter().rev().find_map(|frame| frame.me)
    }

    /// Returns the actors that a step applies to.
    pub fn members(&self, who: &StepActors) -> Vec<ActorId> {
        match who {
            StepActors::NoActor => Vec::new(),
            StepActors::Myself => self.myself().into_iter().collect(),
            StepActors::One(id) => vec![*id],
            StepActors::Group { members, .. } => members.clone(),
        }
    }

    pub fn bind(&mut self, name: &str, bound: BoundValue) {
        if let Some(frame) = self.stack.last_mut() {
            frame.names.insert(name.to_owned(), bound);
        }
    }

    /// Binds a name in the innermost block, or with `None` unbinds it, and returns the value that it had there.
    pub fn replace_binding(&mut self, name: &str, bound: Option<BoundValue>) -> Option<BoundValue> {
        let names = &mut self.stack.last_mut()?.names;
        match bound {
            Some(bound) => names.insert(name.to_owned(), bound),
            None => names.remove(name),
        }
    }

    /// Returns the value that a name is bound to in the innermost visible block.
    pub fn name(&self, name: &str) -> Option<&BoundValue> {
        for frame in self.stack.iter().rev() {
            if let Some(bound) = frame.names.get(name) {
                return Some(bound);
            }
            if frame.is_isolated() {
                return None;
            }
        }
        self.lets.get(name)
    }

    /// Returns the current step of the innermost block.
    pub fn step<'p>(&self, program: &'p Program) -> Option<&'p Step> {
        let frame = self.stack.last()?;
        program.blocks[frame.block].get(frame.position)
    }

    /// Binds the name of a completed step and moves on to the next step.
    pub fn complete(&mut self, step: &Step, bound: Option<BoundValue>) {
        if let (Some(name), Some(bound)) = (&step.as_, bound) {
            self.bind(name, bound);
        }
        if let Some(frame) = self.stack.last_mut() {
            frame.position += 1;
        }
    }

    /// Ends the main part at once. `finally` is still played; a second call ends that too.
    pub fn stop(&mut self) {
        if self.phase != Phase::Done {
            if let Some(outermost) = self.stack.first_mut() {
                self.lets.append(&mut outermost.names);
            }
            self.stack.clear();
            self.active = None;
            self.held = None;
        }
    }

    /// Whether the current step is an attempt at something that may also be done in another way.
    pub fn is_in_either(&self) -> bool {
        self.stack.iter().any(|frame| matches!(frame.kind, BlockKind::Either { .. }))
    }

    /// Returns the rounds of the loops around the current step, with their values; `None` outside loops.
    pub fn rounds(&self) -> Option<String> {
        let rounds = self.stack.iter().filter_map(|frame| match &frame.kind {
            BlockKind::Each(LoopRound { name, values, round, .. }) => {
                let value = frame.names.get(name).map(BoundValue::to_json).unwrap_or_default();
                Some(format!("{} of {}, {name} = {}", round + 1, values.len(), to_json_text(&value)))
            }
            _ => None,
        });
        let rounds: Vec<String> = rounds.collect();
        (!rounds.is_empty()).then(|| rounds.join("; "))
    }

    pub fn is_in_opening(&self) -> bool {
        self.stack.iter().any(|frame| matches!(frame.kind, BlockKind::Opening { .. }))
    }

    /// Whether the step is one that a variation adds.
    pub fn is_in_prelude(&self) -> bool {
        self.stack.iter().any(BlockFrame::is_prelude)
    }

    /// Whether the step is inside a `retry` or `either`, where failures are not findings.
    pub fn is_in_attempt(&self) -> bool {
        self.stack.iter().any(|frame| matches!(frame.kind, BlockKind::Retry { .. } | BlockKind::Either { .. }))
    }

    /// Whether the step is inside an attempt that may be repeated, so that any failure ends the attempt.
    pub fn is_trying(&self, now: Duration) -> bool {
        self.stack.iter().any(|frame| match &frame.kind {
            BlockKind::Retry { until, .. } => now < *until,
            BlockKind::Either { values, try_, .. } => try_ + 1 < values.len(),
            _ => false,
        })
    }

    /// Returns the checks that fail if the current step fails: its own check, and the checks of enclosing steps.
    pub fn failing_checks<'p>(&'p self, program: &'p Program) -> impl Iterator<Item = CheckId> + 'p {
        let fails = |pair: &&[BlockFrame]| pair[1].fails_step();
        let around = self.stack.windows(2).filter(fails);
        let around = around.filter_map(|pair| program.blocks[pair[0].block][pair[0].position].check);
        self.step(program).and_then(|step| step.check).into_iter().chain(around)
    }

    /// Whether a failure ends an attempt, or an opening or scene whose rules are all below must.
    pub fn is_attempt(&self, program: &Program) -> bool {
        self.stack.windows(2).any(|pair| match pair[1].kind {
            BlockKind::Retry { .. } | BlockKind::Either { .. } => true,
            BlockKind::Opening { .. } | BlockKind::Scene { .. } => {
                let check = program.blocks[pair[0].block][pair[0].position].check;
                check.is_some_and(|check| program.checks[check].rules.iter().all(|rule| rule.level != RuleLevel::Must))
            }
            _ => false,
        })
    }
}

impl Conversation {
    /// Plays until a step has to wait.
    pub(super) fn run_steps(&mut self) {
        let program = Arc::clone(&self.program);
        // A scenario cannot loop without waiting; the bound guards against a bug in hubproof.
        for _ in 0..10_000_000u32 {
            if self.judgement.mistake.is_some() && self.blocks.phase == Phase::Main {
                self.blocks.stop();
            }
            if let ConversationFlow::Waiting = self.advance_block(&program) {
                return;
            }
        }
        self.judgement.mistake = Some("the scenario never waits and never ends".to_owned());
        self.blocks.stop();
        self.blocks.phase = Phase::Done;
    }

    fn advance_block(&mut self, program: &Arc<Program>) -> ConversationFlow {
        if self.resume_overlap(program) {
            return ConversationFlow::Continue;
        }
        if self.blocks.stack.is_empty() {
            match self.blocks.phase {
                Phase::Main => {
                    self.blocks.push(BlockFrame::body(program.finally));
                    self.blocks.phase = Phase::Finally;
                }
                Phase::Finally => {
                    self.send_last_pings();
                    self.blocks.phase = Phase::LastPings;
                }
                Phase::LastPings | Phase::Done => {
                    if self.are_last_pings_over() {
                        self.close_all();
                        self.blocks.phase = Phase::Done;
                    }
                    return ConversationFlow::Waiting;
                }
            }
            return ConversationFlow::Continue;
        }
        let Some(step) = self.blocks.step(program) else { return self.end_block(program) };
        let begun = match self.blocks.active.take() {
            Some(active) => self.poll_step(step, active),
            None if self.blocks.park_round(step) => return ConversationFlow::Continue,
            None => match self.begin_interlude(program, step) {
                Some(flow) => return flow,
                None => self.begin_step(program, step),
            },
        };
        match begun {
            Ok(StepProgress::Done(bound)) => {
                self.record_exchange_of_step(step);
                self.blocks.record_answer_of_round(step);
                self.blocks.complete(step, bound);
                ConversationFlow::Continue
            }
            Ok(StepProgress::Entered) => ConversationFlow::Continue,
            Ok(StepProgress::Waiting(active)) => {
                let later = self.waits.may_shorten_later();
                self.blocks.active = Some(if later { self.shorten_wait(step, active) } else { active });
                ConversationFlow::Waiting
            }
            Err(failure) => {
                self.fail_step(program, step, failure);
                ConversationFlow::Continue
            }
        }
    }

    fn end_block(&mut self, program: &Arc<Program>) -> ConversationFlow {
        let Some(mut frame) = self.blocks.stack.pop() else { return ConversationFlow::Continue };
        // The enclosing block was not played completely either.
        if let (Some(why), Some(outer)) = (&frame.missed, self.blocks.stack.last_mut()) {
            outer.missed.get_or_insert_with(|| why.clone());
        }
        match frame.kind {
            // `finally` sees the names bound here.
            BlockKind::Body => self.blocks.lets.append(&mut frame.names),
            BlockKind::Each(mut each) => {
                for (bound_name, bound) in frame.names {
                    if bound_name != each.name && bound_name != "index" {
                        each.collected.entry(bound_name).or_default().push(bound);
                    }
                }
                for id in &each.fresh {
                    self.disconnect(*id);
                }
                each.round += 1;
                self.play_round(program, each);
            }
            BlockKind::Either { name, values, try_, .. } => {
                let mut names = frame.names;
                names.insert(name, values[try_].clone());
                self.leave_block(program, names, None, frame.missed);
            }
            BlockKind::Retry { since, until, .. } => {
                if let Some(step) = self.blocks.step(program) {
                    self.clock.add_margin(step, self.clock.since(since), until.saturating_sub(since));
                }
                self.leave_block(program, frame.names, None, frame.missed);
            }
            BlockKind::Scene { rest, mut done, group } => {
                done.push(BoundValue::Scene(frame.names));
                self.play_scene(program, rest, done, group, frame.missed);
            }
            BlockKind::Opening { rest } => {
                let Some(id) = frame.me else { return ConversationFlow::Continue };
                self.actors[id].opened = frame.names;
                if self.variation == Some(Variation::Ping) {
                    self.send_ping(id);
                }
                self.allow_overlap(id);
                match self.prelude_after_opening(program, id) {
                    Some((block, Some(times))) => {
                        let since = self.history.position();
                        self.blocks.push(Batch::block(block, times, (id, rest), since, frame.missed));
                    }
                    Some((block, None)) => {
                        let left = self.variation.as_ref().map_or(0, |one| one.repeats_of_prelude(&program.id));
                        let (kind, missed) = (BlockKind::Prelude { rest, left }, frame.missed);
                        self.blocks.push(BlockFrame { kind, me: Some(id), missed, ..BlockFrame::body(block) });
                    }
                    None => self.play_opening(program, rest, frame.missed),
                }
            }
            BlockKind::Batch(batch) => self.continue_batch(program, batch, frame.me, frame.missed),
            BlockKind::Prelude { rest, left: 0 } => self.play_opening(program, rest, frame.missed),
            BlockKind::Prelude { rest, left } => {
                let (kind, missed) = (BlockKind::Prelude { rest, left: left - 1 }, frame.missed);
                self.blocks.push(BlockFrame { kind, me: frame.me, missed, ..BlockFrame::body(frame.block) });
            }
            BlockKind::Interlude => {}
        }
        ConversationFlow::Continue
    }

    /// Returns the prelude that an actor plays after its opening, and how many times at once, if several times.
    fn prelude_after_opening(&mut self, program: &Program, id: ActorId) -> Option<(BlockId, Option<usize>)> {
        let Some(Variation::Prelude(place, name)) = &self.variation else { return None };
        let role = &program.actors[id].role;
        let block = *program.roles.get(role)?.preludes.get(&**name)?;
        let plays = match place {
            PreludePlace::After | PreludePlace::Amid => self.actors.connection_count(id) <= MOST_PRELUDES,
            PreludePlace::Many | PreludePlace::Hundreds => self.interludes.begins_batch(role),
            PreludePlace::Pipelined | PreludePlace::Before | PreludePlace::Beside => false,
        };
        plays.then_some((block, place.times()))
    }

    /// Completes the step around a block and gives the names bound inside to the enclosing block. The step's check
    /// holds, or is undecided if a step inside was skipped (`missed`).
    fn leave_block(
        &mut self,
        program: &Program,
        names: BTreeMap<String, BoundValue>,
        bound: Option<BoundValue>,
        missed: Option<String>,
    ) {
        let Some(outer) = self.blocks.stack.last_mut() else { return };
        outer.names.extend(names);
        let Some(step) = self.blocks.step(program) else { return };
        if let Some(check) = step.check {
            let missed = missed.map(|why| self.judgement.doubt_outcome().unwrap_or(CheckOutcome::NotReached(why)));
            self.judgement.record_answer(check, &step.text, missed.unwrap_or(CheckOutcome::Holds), "", None);
        }
        self.blocks.complete(step, bound);
    }

    pub(super) fn enter_each(
        &mut self,
        program: &Arc<Program>,
        name: &str,
        values: LoopValues,
        bodies: &[BlockId],
        fresh: &[ActorId],
    ) {
        self.play_round(
            program,
            LoopRound {
                name: name.to_owned(),
                values,
                round: 0,
                bodies: bodies.to_vec(),
                fresh: fresh.to_vec(),
                collected: BTreeMap::new(),
            },
        );
    }

    fn play_round(&mut self, program: &Arc<Program>, each: LoopRound) {
        let round = each.round;
        if round == each.values.len() {
            let collected = each.collected.into_iter();
            let lists = collected.map(|(name, items)| (name, BoundValue::Many { items, ordered: true })).collect();
            self.leave_block(program, lists, None, None);
            return;
        }
        if round > 0 {
            for id in &each.fresh {
                self.evaluate_initial_given(*id);
            }
        }
        let value = match &each.values {
            LoopValues::Known(values) => values[round].clone(),
            LoopValues::Written(items) => match self.evaluate_bound(None, &items[round]) {
                Ok(value) => value,
                Err(failure) => {
                    let Some(step) = self.blocks.step(program) else { return };
                    return self.fail_step(program, step, failure);
                }
            },
        };
        let block = *each.bodies.get(round).or(each.bodies.last()).unwrap_or(&0);
        let index = BoundValue::from_value(Value::from(round));
        let names = [(each.name.clone(), value), ("index".to_owned(), index)].into();
        self.blocks.push(BlockFrame { names, kind: BlockKind::Each(each), ..BlockFrame::body(block) });
    }

    pub(super) fn enter_either(&mut self, name: &str, values: Vec<BoundValue>, body: BlockId) {
        let names = [(name.to_owned(), values[0].clone())].into();
        let before = self.judgement.snapshot();
        let kind = BlockKind::Either { name: name.to_owned(), values, try_: 0, before };
        self.blocks.push(BlockFrame { names, kind, ..BlockFrame::body(body) });
    }

    pub(super) fn enter_retry(&mut self, time: Duration, body: BlockId) {
        let before = self.judgement.snapshot();
        let until = self.clock.now + time;
        self.blocks.push(BlockFrame {
            kind: BlockKind::Retry { since: self.clock.now, until, before },
            ..BlockFrame::body(body)
        });
    }

    /// Plays a scene for each of `members`, one after another, or once without an actor if there are none (the step
    /// `play`).
    pub(super) fn enter_scene(&mut self, program: &Arc<Program>, members: Vec<ActorId>, group: bool) {
        if members.is_empty() {
            self.push_scene_frame(program, None, BlockKind::Scene { rest: Vec::new(), done: Vec::new(), group }, None);
        } else {
            self.play_scene(program, members, Vec::new(), group, None);
        }
    }

    fn play_scene(
        &mut self,
        program: &Arc<Program>,
        mut rest: Vec<ActorId>,
        done: Vec<BoundValue>,
        group: bool,
        missed: Option<String>,
    ) {
        if rest.is_empty() {
            let bound = if group {
                BoundValue::Many { items: done, ordered: false }
            } else {
                done.into_iter().next().unwrap_or(BoundValue::Scene(BTreeMap::new()))
            };
            self.leave_block(program, BTreeMap::new(), Some(bound), missed);
            return;
        }
        let id = rest.remove(0);
        self.push_scene_frame(program, Some(id), BlockKind::Scene { rest, done, group }, missed);
    }

    fn push_scene_frame(
        &mut self,
        program: &Arc<Program>,
        me: Option<ActorId>,
        kind: BlockKind,
        missed: Option<String>,
    ) {
        let Some(step) = self.blocks.step(program) else { return };
        let StepAction::Play { scene, given, with } = &step.act else { return };
        match self.scene_names(*scene, me, given, with) {
            Ok(names) => self.blocks.push(BlockFrame { names, kind, me, missed, ..BlockFrame::body(*scene) }),
            Err(failure) => self.fail_step(program, step, failure),
        }
    }

    /// Evaluates the `given` values of a scene, in which the step may override some.
    fn scene_names(
        &mut self,
        scene: BlockId,
        me: Option<ActorId>,
        given: &[(String, Template)],
        with: &[(String, Template)],
    ) -> Result<BTreeMap<String, BoundValue>, StepFailure> {
        let mut names = BTreeMap::new();
        for (name, template) in given {
            let value = match with.iter().find(|(known, _)| known == name) {
                // Keep the wire, so that values from the hub are recognised as such.
                Some((_, template)) => self.evaluate_bound(me, template),
                // A given value may use the values given before it.
                None => {
                    let kind = BlockKind::Scene { rest: Vec::new(), done: Vec::new(), group: false };
                    self.blocks.push(BlockFrame { names: names.clone(), kind, me, ..BlockFrame::body(scene) });
                    let value = self.evaluate_bound(me, template);
                    self.blocks.stack.pop();
                    value
                }
            };
            names.insert(name.clone(), value?);
        }
        Ok(names)
    }

    /// Plays the openings of these actors, one after another.
    pub(super) fn play_opening(&mut self, program: &Arc<Program>, mut rest: Vec<ActorId>, missed: Option<String>) {
        if rest.is_empty() {
            self.leave_block(program, BTreeMap::new(), None, missed);
            return;
        }
        let id = rest.remove(0);
        let Some(step) = self.blocks.step(program) else { return };
        if let StepAction::Join { with } = &step.act {
            let overrides =
                with.iter().map(|(name, template)| Ok((name.clone(), self.evaluate_bound(Some(id), template)?)));
            let overrides: Result<BTreeMap<_, _>, _> = overrides.collect();
            if let Err(failure) = overrides.and_then(|overrides| self.evaluate_given(id, &overrides, false)) {
                return self.fail_step(program, step, failure);
            }
        }
        let Some(role) = program.roles.get(&program.actors[id].role) else { return };
        self.blocks.push(BlockFrame {
            kind: BlockKind::Opening { rest },
            me: Some(id),
            missed,
            ..BlockFrame::body(role.opening)
        });
    }

    /// Evaluates an actor's `given` values: either all values, or only the overridden values and the values that use
    /// them.
    pub(super) fn evaluate_given(
        &mut self,
        id: ActorId,
        overrides: &BTreeMap<String, BoundValue>,
        all: bool,
    ) -> Result<(), StepFailure> {
        let program = Arc::clone(&self.program);
        let Some(Role { given, .. }) = program.roles.get(&program.actors[id].role) else { return Ok(()) };
        for (name, template) in given {
            let value = match overrides.get(name) {
                Some(value) => value.clone(),
                None if all || depends_on(template, overrides) => {
                    self.environment.functions.set_actor(Some(id));
                    let value = self.evaluate_bound(Some(id), template);
                    self.environment.functions.set_actor(None);
                    value.map_err(|failure| {
                        let message = format!("`given: {name}` of `{}`: {}", program.actors[id].name, failure.message);
                        StepFailure { message, ..failure }
                    })?
                }
                None => continue,
            };
            self.actors[id].given.insert(name.clone(), value);
        }
        Ok(())
    }

    /// Evaluates the initial `given` values of an actor, which cannot use anything that the hub sent.
    pub(super) fn evaluate_initial_given(&mut self, id: ActorId) {
        if let Err(failure) = self.evaluate_given(id, &BTreeMap::new(), true) {
            let given =
                self.program.roles.get(&self.program.actors[id].role).map(|role| &role.given).into_iter().flatten();
            let mut spans = given.filter_map(|(name, template)| {
                failure.message.starts_with(&format!("`given: {name}`")).then(|| template.first_span()).flatten()
            });
            let span = spans.next();
            self.judgement.record_mistake(failure.message, span);
        }
    }

    /// Disconnects and resets an actor that is new in every round.
    pub(super) fn disconnect(&mut self, id: ActorId) {
        if let Some(connection) = self.actors.open_connection(id) {
            self.record_frame(id, connection, HistoryDirection::Sent, FrameKind::Close, "1000", 4);
            self.send_close(id, connection);
            self.out.push(ConversationOutput::End { connection, reset: false });
        }
        self.leave_connection(id);
        self.actors[id] = ActorState::default();
    }

    /// Closes all open connections with code 1000.
    fn close_all(&mut self) {
        for id in self.actors.ids() {
            if let Some(connection) = self.actors.open_connection(id) {
                self.send_close(id, connection);
            }
        }
    }

    fn send_close(&mut self, id: ActorId, connection: u32) {
        let frame = self.frame_of(id, Frame::close(Some(1000), ""));
        self.out.push(ConversationOutput::Send { connection, frames: vec![frame] });
    }
}

/// The state of a step after it was begun or polled.
pub enum StepProgress {
    Done(Option<BoundValue>),
    /// A block was pushed; the step completes when it ends.
    Entered,
    Waiting(ActiveStep),
}

/// Whether a given value uses an overridden one.
fn depends_on(template: &Template, overrides: &BTreeMap<String, BoundValue>) -> bool {
    let mut depends = false;
    template.visit_expressions(&mut |expression| {
        depends |= expression
            .uses
            .iter()
            .filter_map(|name| name.strip_prefix("self."))
            .any(|name| overrides.contains_key(name));
    });
    depends
}
