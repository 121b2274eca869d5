//! Begins and polls the steps.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::active_step::{ActiveStep, AwaitedAlternatives, AwaitingActor, StepFailure, StepFailureKind, WaitCondition};
use super::actor::{ActorState, ConnectionState};
use super::blocks::{LoopValues, StepProgress};
use super::checks::{compute, eval_failure, evaluate_for_step, value_failure};
use super::clock::only_may;
use super::finding::ComparisonOutcome;
use super::hooks::HOOK_PAUSE;
use super::{Conversation, ConversationOutput, MOST_PATIENCES};
use crate::outcome::CheckOutcome;
use crate::scenario::model::{
    ActorId, ExpectedAlternative, Program, SilenceExpectation, Step, StepAction, StepActors, duration,
};
use crate::scenario::template::{EvalContext, Template};
use crate::scenario::value::{BoundValue, EvalError, Provenance, Wire};

pub(super) type StepResult = Result<StepProgress, StepFailure>;

impl Conversation {
    pub(super) fn begin_step(&mut self, program: &Arc<Program>, step: &Step) -> StepResult {
        let before = self.check_preconditions(program, step)?;
        Ok(match before.map_or_else(|| self.enter_step(program, step), Ok)? {
            StepProgress::Waiting(active) => StepProgress::Waiting(self.shorten_wait(step, active)),
            progress => progress,
        })
    }

    /// Returns the progress of a step that is skipped or must wait before it begins.
    fn check_preconditions(&mut self, program: &Program, step: &Step) -> Result<Option<StepProgress>, StepFailure> {
        if let Some(name) = &step.if_
            && self.eval_context(None).lookup(name).is_none()
        {
            self.skip_step(program, step, format!("not reached: `{name}` was not bound"));
            return Ok(Some(StepProgress::Done(None)));
        }
        // After a failure, silence proves nothing, and a hub that sends nothing needs no time.
        let passes_time = matches!(step.act, StepAction::Wait { .. } | StepAction::ExpectNothing(_));
        if passes_time && self.judgement.doubt().is_some() && self.waits.is_unanswered() {
            return Err(StepFailure::undecided("not waited: the hub sends nothing of its document", None));
        }
        Ok(self.fence_end(step).map(|until| StepProgress::Waiting(ActiveStep::pause(until))))
    }

    fn enter_step(&mut self, program: &Arc<Program>, step: &Step) -> StepResult {
        let members = self.blocks.members(&step.who);
        match &step.act {
            StepAction::Join { .. }
            | StepAction::Play { .. }
            | StepAction::Each { .. }
            | StepAction::Either { .. }
            | StepAction::Retry { .. } => self.enter_block(program, step, members),
            StepAction::Connect(connect) => {
                for id in &members {
                    let dial = self.connect_options(*id, connect)?;
                    let offered = if connect.in_opening { dial.0.subprotocols.join(", ") } else { String::new() };
                    self.connect_actor(*id, dial);
                    self.actors[*id].latest.offered = offered;
                }
                self.wait_until(None, WaitCondition::Upgrade { members, tries: connect.tries })
            }
            StepAction::Accept { within, .. } => {
                // The hub may have connected already.
                for id in &members {
                    let actor = &mut self.actors[*id];
                    if actor.accepted.is_some() && actor.accepted == actor.connection && !actor.is_open() {
                        actor.link = ConnectionState::Idle;
                    }
                }
                let time = self.evaluate_time(within.as_ref())?.unwrap_or(self.clock.patience);
                let waiting = WaitCondition::Upgrade { members, tries: false };
                self.poll_step(step, self.clock.wait(self.clock.stretched(time), waiting))
            }
            StepAction::Send(compose) => self.send_for_each(&members, step, |c, id| c.send_message(id, compose)),
            StepAction::SendRaw(template) => {
                let instead = step.as_.as_deref().and_then(|name| self.override_for(name));
                self.send_for_each(&members, step, |c, id| c.send_raw(id, instead.as_deref().unwrap_or(template)))
            }
            StepAction::Close { code, reason } => {
                self.send_for_each(&members, step, |c, id| c.close_connection(id, code, reason.as_ref()))
            }
            StepAction::Drop { reset } => {
                for id in members {
                    self.drop_connection(id, *reset);
                }
                Ok(StepProgress::Done(None))
            }
            StepAction::StopReading => {
                Ok(self.toggle_reading(&members, |connection| ConversationOutput::StopReading { connection }))
            }
            StepAction::ReadAgain => {
                Ok(self.toggle_reading(&members, |connection| ConversationOutput::ReadAgain { connection }))
            }
            StepAction::Expect(expect) => self.begin_expect(step, expect, members),
            StepAction::ExpectEnd { within, .. } => {
                let time = self.evaluate_time(within.as_ref())?.unwrap_or(self.clock.patience);
                self.poll_step(step, self.clock.wait(self.clock.stretched(time), WaitCondition::StreamEnd { members }))
            }
            StepAction::ExpectNothing(nothing) => self.begin_silence(program, step, nothing, members),
            StepAction::ExpectOneOf { alternatives, after, within } => {
                let after = self.position_after(after.as_deref())?;
                let within = self.evaluate_time(within.as_ref())?;
                self.begin_one_of(program, step, alternatives, members, after, within)
            }
            StepAction::Compose(compose) => {
                let composed = self.compose_message(members.first().copied(), compose)?;
                Ok(StepProgress::Done(Some(BoundValue::One { value: composed.value, wire: composed.wire })))
            }
            StepAction::Hook(hook) => {
                let time = self.evaluate_time(hook.within.as_ref())?.unwrap_or(self.clock.patience);
                let deadline = self.clock.now + self.clock.stretched(time);
                self.hooks.full = None;
                self.call_hook(hook, deadline)
            }
            StepAction::Wait { time } => {
                let time = self.evaluate_time(Some(time))?.unwrap_or_default();
                self.out.push(ConversationOutput::Waiting { because: step.text.clone(), time });
                Ok(StepProgress::Waiting(self.clock.wait(time, WaitCondition::Time)))
            }
            StepAction::Check { value, test, says } => {
                let names = self.eval_context(None);
                let finding = compute(value, test, &names, &program.pack).saying(says.as_ref(), &names);
                self.record_check(program, step, finding)
            }
            StepAction::Order(order) => {
                let finding = self.check_order(step, order)?;
                self.record_check(program, step, finding)
            }
        }
    }

    /// Begins a step that plays blocks.
    fn enter_block(&mut self, program: &Arc<Program>, step: &Step, members: Vec<ActorId>) -> StepResult {
        match &step.act {
            StepAction::Join { .. } => self.play_opening(program, members, None),
            StepAction::Play { .. } => {
                let group = matches!(step.who, StepActors::Group { .. });
                self.enter_scene(program, members, group);
            }
            StepAction::Each { name, values, bodies, fresh } => {
                let instead = self.override_for(name);
                let values = match instead.as_deref().unwrap_or(values) {
                    Template::List(items) => LoopValues::Written(Arc::clone(items)),
                    computed => LoopValues::Known(self.loop_values(computed)?),
                };
                self.enter_each(program, name, values, bodies, fresh);
            }
            StepAction::Either { name, values, body } => {
                let values = self.loop_values(values)?;
                if values.is_empty() {
                    return Err(StepFailure::mistake("`either` needs at least one value"));
                }
                self.enter_either(name, values, *body);
            }
            StepAction::Retry { time, body } => {
                let time = self.evaluate_time(Some(time))?.unwrap_or_default();
                let time = self.clock.stretched(time);
                self.enter_retry(time, *body);
            }
            _ => {}
        }
        Ok(StepProgress::Entered)
    }

    fn toggle_reading(&mut self, members: &[ActorId], output: fn(u32) -> ConversationOutput) -> StepProgress {
        for id in members {
            if let Some(connection) = self.actors.open_connection(*id) {
                self.actors[*id].latest.may_leave_pings = true;
                self.out.push(output(connection));
            }
        }
        StepProgress::Done(None)
    }

    fn begin_silence(
        &mut self,
        program: &Program,
        step: &Step,
        SilenceExpectation { message, pattern, after, for_ }: &SilenceExpectation,
        members: Vec<ActorId>,
    ) -> StepResult {
        let after = self.position_after(after.as_deref())?;
        let mut ignored = Vec::new();
        for id in members {
            ignored.push((id, self.expected_message(program, id, message, pattern.as_ref(), after)?.ignoring()));
        }
        let time = self.evaluate_time(for_.as_ref())?.unwrap_or(self.clock.quiet);
        let end = self.clock.now + time;
        let members = ignored.into_iter().map(|(id, frame)| (id, frame.until(end))).collect();
        self.poll_step(step, self.clock.wait(time, WaitCondition::Silence { members }))
    }

    fn begin_one_of(
        &mut self,
        program: &Program,
        step: &Step,
        alternatives: &[ExpectedAlternative],
        members: Vec<ActorId>,
        after: u64,
        within: Option<Duration>,
    ) -> StepResult {
        let mut open = Vec::new();
        for id in members {
            let awaited = self.expected_alternatives(program, id, alternatives, after)?;
            open.push(AwaitedAlternatives { id, awaited, chosen: None });
        }
        let patience = if only_may(program, step) { self.clock.quiet } else { self.default_wait() };
        let mut time = within.map_or(patience, |time| self.clock.stretched(time));
        if self.awaits_only_unsent(alternatives, &open) {
            time = time.min(self.clock.quiet);
        }
        self.poll_step(step, self.clock.wait(time, WaitCondition::OneOf { members: open }))
    }

    /// Records the result of a `check` or `order`. If it does not hold, that is a finding; it ends the attempt around
    /// it, if there is one, but not the scenario.
    pub(super) fn record_check(&mut self, program: &Program, step: &Step, finding: ComparisonOutcome) -> StepResult {
        let Some(check) = step.check else { return Ok(StepProgress::Done(None)) };
        match finding {
            ComparisonOutcome::Broken { expected, found, message, .. } if self.blocks.is_in_attempt() => {
                Err(StepFailure::broken(message, self.finding_detail(None, expected, found, None)))
            }
            ComparisonOutcome::Undecided(why) if self.blocks.is_in_attempt() => Err(StepFailure::undecided(why, None)),
            ComparisonOutcome::NotReached(why) => {
                self.skip_unreached_step(program, step, why);
                Ok(StepProgress::Done(None))
            }
            finding => {
                self.record_outcome(check, &step.text, None, "", finding);
                Ok(StepProgress::Done(None))
            }
        }
    }

    pub(super) fn wait_until(&mut self, within: Option<Duration>, waiting: WaitCondition) -> StepResult {
        let time = self.clock.stretched(within.unwrap_or(self.clock.patience));
        Ok(StepProgress::Waiting(self.clock.wait(time, waiting)))
    }

    pub(super) fn poll_step(&mut self, step: &Step, mut active: ActiveStep) -> StepResult {
        let mut over = active.deadline.is_some_and(|deadline| self.clock.now >= deadline);
        if matches!(active.waiting, WaitCondition::Pause) {
            return self.poll_waiting(step, active, over);
        }
        if over && self.is_still_served(step, &active) {
            active.deadline = Some(self.clock.now + self.clock.quiet);
            over = false;
        }
        let (since, full) = (active.since, active.full);
        self.waits.begin_poll();
        let mut result = self.poll_provenance(step, active, over);
        match &mut result {
            Err(failure) if over && !matches!(failure.kind, StepFailureKind::Assumed { .. }) => {
                self.record_run_out(step, since, full, failure);
            }
            Ok(StepProgress::Done(_)) => self.waits.add_speed(step, self.clock.since(since)),
            _ => {}
        }
        result
    }

    /// Whether an expected frame may come after others that a slow hub is still sending: the document states no time, and
    /// every actor that misses a frame is receiving messages.
    fn is_still_served(&self, step: &Step, active: &ActiveStep) -> bool {
        let missing: Vec<ActorId> = match (&step.act, &active.waiting) {
            (StepAction::Expect(expect), WaitCondition::Frames(frames))
                if expect.within.is_none() && expect.for_.is_none() && frames.quantity.is_none() =>
            {
                let least = frames.count.map_or(1, |count| count.min);
                let lacks = |member: &&AwaitingActor| member.claims.len() < least;
                frames.members.iter().filter(lacks).map(|member| member.id).collect()
            }
            (StepAction::ExpectOneOf { alternatives, within: None, .. }, WaitCondition::OneOf { members })
                if alternatives.iter().all(|alternative| alternative.want.is_some()) =>
            {
                members.iter().filter(|member| member.chosen.is_none()).map(|member| member.id).collect()
            }
            _ => return false,
        };
        let patience = self.clock.stretched(self.clock.patience);
        let waited = self.clock.since(active.since);
        let is_served = |id: &ActorId| {
            let latest = self.actors[*id].latest.last_message_at();
            latest.is_some_and(|at| at > active.since && self.clock.since(at) < self.clock.quiet)
        };
        // Shortened waits, and waits of steps that cannot fail, end before the patience is over.
        let waits_in_full = active.full.is_none() && waited >= patience && self.waits.ample_wait() > patience;
        waits_in_full && waited < patience * MOST_PATIENCES && !missing.is_empty() && missing.iter().all(is_served)
    }

    /// Polls a step whose expectation may rest on an assumed message.
    fn poll_provenance(&mut self, step: &Step, active: ActiveStep, over: bool) -> StepResult {
        let provenance = active.waiting.provenance();
        let result = self.poll_waiting(step, active, over).map_err(|failure| failure.of(provenance));
        match (provenance, result) {
            // A frame that was expected on an assumption proves nothing by coming.
            (Provenance::Assumed { deviation }, Ok(StepProgress::Done(_))) => Err(StepFailure::assumed(deviation)),
            // Nothing can be judged, so a long wait is not worth its time.
            (Provenance::Assumed { .. }, Ok(StepProgress::Waiting(active))) => {
                let deadline = active.deadline.min(Some(active.since + self.clock.quiet));
                Ok(StepProgress::Waiting(ActiveStep { deadline, ..active }))
            }
            (_, result) => result,
        }
    }

    fn poll_waiting(&mut self, step: &Step, mut active: ActiveStep, over: bool) -> StepResult {
        let program = Arc::clone(&self.program);
        match &mut active.waiting {
            WaitCondition::Time if over => Ok(StepProgress::Done(None)),
            WaitCondition::Pause if over => self.begin_step(&program, step),
            WaitCondition::Time | WaitCondition::Pause => Ok(StepProgress::Waiting(active)),
            WaitCondition::Upgrade { members, tries } => {
                let (members, tries) = (std::mem::take(members), *tries);
                self.poll_upgrade(step, active, members, tries, over)
            }
            WaitCondition::Frames(_) => self.poll_frames(step, active, over),
            WaitCondition::End { members, codes, refusal } => {
                let (members, codes, refusal) = (std::mem::take(members), std::mem::take(codes), *refusal);
                self.poll_end(step, active, members, codes, refusal, over)
            }
            WaitCondition::StreamEnd { members } => {
                let members = std::mem::take(members);
                self.poll_stream_end(step, active, members, over)
            }
            WaitCondition::Silence { .. } => self.poll_silence(step, active, over),
            WaitCondition::OneOf { .. } => self.poll_one_of(step, active, over),
            WaitCondition::Hook { .. } => self.poll_hook(step, active, over),
            WaitCondition::HookAgain => match &step.act {
                StepAction::Hook(hook) if self.clock.now >= active.since + HOOK_PAUSE => {
                    self.call_hook(hook, self.hooks.end)
                }
                _ => Ok(StepProgress::Waiting(active)),
            },
        }
    }

    pub(super) fn poll_upgrade(
        &mut self,
        step: &Step,
        active: ActiveStep,
        members: Vec<ActorId>,
        tries: bool,
        over: bool,
    ) -> StepResult {
        let mut bound = Vec::new();
        let is_optional = matches!(step.act, StepAction::Accept { optional: true, .. });
        for id in &members {
            self.take_waiting_connection(*id);
            let waited = Some(self.clock.since(active.since));
            match &self.actors[*id].link {
                ConnectionState::Open { upgrade } => bound.push(self.upgrade_value(*id, upgrade)),
                ConnectionState::Refused { refusal, .. } if tries => {
                    bound.push(BoundValue::from_value(refusal.clone()))
                }
                ConnectionState::Refused { text, undecided, .. } => {
                    let what = format!("the connection was refused: {text}");
                    let address = self.actors[*id].latest.address.iter().map(|address| format!(" at {address}"));
                    let detail = self.finding_detail(
                        Some(*id),
                        format!("an accepted upgrade (HTTP 101){}", address.collect::<String>()),
                        text.clone(),
                        waited,
                    );
                    // A step with only may rules records the refusal, whatever its reason.
                    return Err(if *undecided && !only_may(&self.program, step) {
                        StepFailure::undecided(what, Some(detail))
                    } else {
                        StepFailure::broken(what, detail)
                    });
                }
                ConnectionState::Unreachable { reason } => {
                    let detail = self.finding_detail(Some(*id), "a connection".to_owned(), reason.clone(), waited);
                    return Err(StepFailure::unreachable(reason, detail));
                }
                ConnectionState::Ended(_) => bound.push(BoundValue::from_value(Value::Null)),
                ConnectionState::Idle if over && is_optional => return Ok(StepProgress::Done(None)),
                ConnectionState::Idle | ConnectionState::Connecting if over => {
                    let what = if matches!(step.act, StepAction::Accept { .. }) {
                        "the hub did not connect in time"
                    } else {
                        "no answer to the upgrade request in time"
                    };
                    let detail =
                        self.finding_detail(Some(*id), "an open connection".to_owned(), "nothing".to_owned(), waited);
                    return Err(StepFailure::broken(what, detail));
                }
                ConnectionState::Idle | ConnectionState::Connecting => {
                    return Ok(StepProgress::Waiting(ActiveStep {
                        waiting: WaitCondition::Upgrade { members, tries },
                        ..active
                    }));
                }
            }
        }
        for id in members.iter().filter(|id| self.program.is_server(**id)) {
            self.actors[*id].accepted = self.actors[*id].connection;
        }
        self.clock.add_wait(&self.program, step, &active);
        self.record_held(step);
        Ok(StepProgress::Done(Some(group_values(step, bound))))
    }

    /// Returns what a step binds to an open connection: the upgrade, and when it came.
    fn upgrade_value(&self, id: ActorId, upgrade: &Value) -> BoundValue {
        let ActorState { connection, opened_at, opened_event, .. } = &self.actors[id];
        let Some(connection) = connection.filter(|_| self.program.is_server(id)) else {
            return BoundValue::from_value(upgrade.clone());
        };
        let wire = self.new_wire(id, connection, *opened_event, "upgrade", "", 0);
        let wire = Wire { at: *opened_at, unix_ms: self.clock.unix_ms(*opened_at), after: Duration::ZERO, ..wire };
        BoundValue::One { value: upgrade.clone(), wire: Some(Arc::new(wire)) }
    }

    pub(super) fn record_held(&mut self, step: &Step) {
        if let Some(check) = step.check {
            self.judgement.record_answer(check, &step.text, CheckOutcome::Holds, "", None);
        }
    }

    pub(super) fn evaluate_time(&self, template: Option<&Template>) -> Result<Option<Duration>, StepFailure> {
        let Some(template) = template else { return Ok(None) };
        let names = self.eval_context(None);
        let time = match evaluate_for_step(template, &names)?.value {
            Value::String(text) => duration(&text).map_err(|error| error.message),
            other => Err(format!("`{other}` is not a time with a unit, such as 300ms or 5s")),
        };
        time.map(Some).map_err(|what| value_failure(what, template, &names))
    }

    /// Returns the override for the step or loop with this name (see [`super::ConversationConfig::injected_input`]).
    pub(super) fn override_for(&self, name: &str) -> Option<Arc<Template>> {
        let (of, instead) = self.injected_input.as_ref()?;
        (*of == name).then(|| Arc::clone(instead))
    }

    /// Evaluates a value that a step needs. A value from the hub keeps its wire.
    pub(super) fn evaluate_bound(&self, me: Option<ActorId>, template: &Template) -> Result<BoundValue, StepFailure> {
        let names = self.eval_context(me);
        template.eval_bound(&names).map_err(|error| eval_failure(error, template, &names))
    }

    /// Returns the values of an `each` or `either`. Those from the hub keep their wire.
    pub(super) fn loop_values(&self, template: &Template) -> Result<Vec<BoundValue>, StepFailure> {
        match self.evaluate_bound(None, template)? {
            BoundValue::Many { items, .. } => Ok(items),
            BoundValue::One { value: Value::Array(values), wire } => {
                Ok(values.into_iter().map(|value| BoundValue::One { value, wire: wire.clone() }).collect())
            }
            BoundValue::One { value: Value::Number(n), .. } if n.as_u64().is_some_and(|n| n <= 100_000) => {
                Ok((0..n.as_u64().unwrap_or(0)).map(|n| BoundValue::from_value(Value::from(n))).collect())
            }
            other => {
                let other = crate::syntax::matcher::to_json_text(&other.to_json());
                let what = format!("`in` takes a list or a number up to 100000, not {other}");
                Err(value_failure(what, template, &self.eval_context(None)))
            }
        }
    }

    /// Returns the position of the frame bound to `name`, the first if there are several; only later frames count.
    /// Returns 0 without a name.
    pub(super) fn position_after(&self, name: Option<&str>) -> Result<u64, StepFailure> {
        let Some(name) = name else { return Ok(0) };
        let bound = self.eval_context(None).lookup(name).ok_or_else(|| EvalError::Unbound(name.to_owned()))?;
        bound.wires().iter().map(|wire| wire.position()).min().ok_or_else(|| {
            StepFailure::mistake(format!("`after: {name}` names a value that was neither sent nor received"))
        })
    }
}

/// Returns the value that a step binds: the value of a single actor, or a list of the values of a group's members.
pub(super) fn group_values(step: &Step, mut items: Vec<BoundValue>) -> BoundValue {
    match step.who {
        StepActors::NoActor | StepActors::Myself | StepActors::One(_) if items.len() == 1 => items.remove(0),
        _ => BoundValue::Many { items, ordered: false },
    }
}
