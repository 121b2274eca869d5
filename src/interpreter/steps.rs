//! Begins and polls the steps.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::active_step::{Active, Failure, Open, Waiting};
use super::actor::Link;
use super::blocks::{Progress, Values};
use super::checks::{compute, eval_failure, evaluate, value_failure};
use super::clock::only_may;
use super::finding::Finding;
use super::hooks::HOOK_PAUSE;
use super::{Conversation, Output};
use crate::event::Outcome;
use crate::scenario::model::{Act, ActorId, ExpectNothing, Program, Step, Who, duration};
use crate::scenario::template::Template;
use crate::scenario::value::{Bound, EvalError};

pub(super) type StepResult = Result<Progress, Failure>;

impl Conversation {
    pub(super) fn begin(&mut self, program: &Arc<Program>, step: &Step) -> StepResult {
        if let Some(name) = &step.if_ {
            use crate::scenario::template::Names;
            if self.names(None).lookup(name).is_none() {
                self.skip(program, step, format!("not reached: `{name}` was not bound"));
                return Ok(Progress::Done(None));
            }
        }
        let members = self.blocks.members(&step.who);
        match &step.act {
            Act::Join { .. } => {
                self.opening(program, members, None);
                Ok(Progress::Entered)
            }
            Act::Connect(connect) => {
                for id in &members {
                    let dial = self.dial(*id, connect)?;
                    self.connect(*id, dial);
                }
                self.wait_until(None, Waiting::Upgrade { members, tries: connect.tries })
            }
            Act::Accept { within } => {
                // The hub may have connected already.
                let time = self.time(within.as_ref())?.unwrap_or(self.clock.patience);
                let waiting = Waiting::Upgrade { members, tries: false };
                self.poll(step, self.clock.wait(self.clock.stretched(time), waiting))
            }
            Act::Send(compose) => self.each_sends(&members, step, |c, id| c.send(id, compose)),
            Act::SendRaw(template) => {
                let instead = step.as_.as_deref().and_then(|name| self.instead_of(name));
                self.each_sends(&members, step, |c, id| c.send_raw(id, instead.as_deref().unwrap_or(template)))
            }
            Act::Close { code, reason } => self.each_sends(&members, step, |c, id| c.close(id, code, reason.as_ref())),
            Act::Drop { reset } => {
                for id in members {
                    self.drop_connection(id, *reset);
                }
                Ok(Progress::Done(None))
            }
            Act::StopReading | Act::ReadAgain => {
                for id in members {
                    if let Some(connection) = self.actors.open_connection(id) {
                        let stops = matches!(step.act, Act::StopReading);
                        self.out.push(if stops {
                            Output::StopReading { connection }
                        } else {
                            Output::ReadAgain { connection }
                        });
                    }
                }
                Ok(Progress::Done(None))
            }
            Act::Expect(expect) => self.begin_expect(step, expect, members),
            Act::ExpectEnd { within, .. } => {
                let time = self.time(within.as_ref())?.unwrap_or(self.clock.patience);
                self.poll(step, self.clock.wait(self.clock.stretched(time), Waiting::StreamEnd { members }))
            }
            Act::ExpectNothing(nothing) => {
                let ExpectNothing { message, pattern, after, for_ } = &**nothing;
                let after = self.after(after.as_deref())?;
                let mut wanted = Vec::new();
                for id in members {
                    let one = self.wanted_message(program, id, message, pattern.as_ref(), after)?;
                    wanted.push((id, one.ignoring()));
                }
                let end = self.clock.now + self.time(for_.as_ref())?.unwrap_or(self.clock.quiet);
                let members = wanted.into_iter().map(|(id, wanted)| (id, wanted.until(end))).collect();
                let active =
                    Active { since: self.clock.now, deadline: Some(end), waiting: Waiting::Silence { members } };
                self.poll(step, active)
            }
            Act::ExpectOneOf { alternatives, after, within } => {
                let after = self.after(after.as_deref())?;
                let mut open = Vec::new();
                for id in members {
                    let wanted = self.alternatives(program, id, alternatives, after)?;
                    open.push(Open { id, wanted, chosen: None });
                }
                let patience =
                    if only_may(program, step) { self.clock.quiet } else { self.clock.stretched(self.patience()) };
                let time = self.time(within.as_ref())?.map_or(patience, |time| self.clock.stretched(time));
                self.poll(step, self.clock.wait(time, Waiting::OneOf { members: open }))
            }
            Act::Play { .. } => {
                let group = matches!(step.who, Who::Group { .. });
                self.enter_scene(program, members, group);
                Ok(Progress::Entered)
            }
            Act::Compose(compose) => {
                let composed = self.compose(members.first().copied(), compose)?;
                Ok(Progress::Done(Some(Bound::One { value: composed.value, wire: composed.wire })))
            }
            Act::Hook(hook) => {
                let time = self.time(hook.within.as_ref())?.unwrap_or(self.clock.patience);
                let deadline = self.clock.now + self.clock.stretched(time);
                self.call_hook(hook, deadline)
            }
            Act::Wait { time } => {
                let time = self.time(Some(time))?.unwrap_or_default();
                self.out.push(Output::Waiting { because: step.text.clone(), time });
                Ok(Progress::Waiting(self.clock.wait(time, Waiting::Time)))
            }
            Act::Check { value, test } => {
                let finding = compute(value, test, &self.names(None));
                self.record_check(program, step, finding)
            }
            Act::Order(order) => {
                let finding = self.order(step, order)?;
                self.record_check(program, step, finding)
            }
            Act::Each { name, values, bodies, fresh } => {
                let instead = self.instead_of(name);
                let values = match instead.as_deref().unwrap_or(values) {
                    Template::List(items) => Values::Written(Arc::clone(items)),
                    computed => Values::Known(self.values(computed)?),
                };
                self.enter_each(program, name, values, bodies, fresh);
                Ok(Progress::Entered)
            }
            Act::Either { name, values, body } => {
                let values = self.values(values)?;
                if values.is_empty() {
                    return Err(Failure::mistake("`either` needs at least one value"));
                }
                self.enter_either(name, values, *body);
                Ok(Progress::Entered)
            }
            Act::Retry { time, body } => {
                let time = self.time(Some(time))?.unwrap_or_default();
                let time = self.clock.stretched(time);
                self.enter_retry(time, *body);
                Ok(Progress::Entered)
            }
        }
    }

    /// Records the result of a `check` or `order`. If it does not hold, that is a finding; it ends the attempt around
    /// it, if there is one, but not the scenario.
    pub(super) fn record_check(&mut self, program: &Program, step: &Step, finding: Finding) -> StepResult {
        let Some(check) = step.check else { return Ok(Progress::Done(None)) };
        match finding {
            Finding::Broken { expected, found, message } if self.blocks.is_in_attempt() => {
                Err(Failure::broken(message, self.detail(None, expected, found, None)))
            }
            Finding::NotReached(why) => {
                self.miss(program, step, why);
                Ok(Progress::Done(None))
            }
            finding => {
                self.note(check, &step.text, None, "", finding);
                Ok(Progress::Done(None))
            }
        }
    }

    pub(super) fn wait_until(&mut self, within: Option<Duration>, waiting: Waiting) -> StepResult {
        let time = self.clock.stretched(within.unwrap_or(self.clock.patience));
        Ok(Progress::Waiting(self.clock.wait(time, waiting)))
    }

    pub(super) fn poll(&mut self, step: &Step, mut active: Active) -> StepResult {
        let over = active.deadline.is_some_and(|deadline| self.clock.now >= deadline);
        let program = Arc::clone(&self.program);
        match &mut active.waiting {
            Waiting::Time if over => Ok(Progress::Done(None)),
            Waiting::Pause if over => self.begin(&program, step),
            Waiting::Time | Waiting::Pause => Ok(Progress::Waiting(active)),
            Waiting::Upgrade { members, tries } => {
                let (members, tries) = (std::mem::take(members), *tries);
                self.poll_upgrade(step, active, members, tries, over)
            }
            Waiting::Frames(_) => self.poll_frames(step, active, over),
            Waiting::End { members, codes, refusal } => {
                let (members, codes, refusal) = (std::mem::take(members), std::mem::take(codes), *refusal);
                self.poll_end(step, active, members, codes, refusal, over)
            }
            Waiting::StreamEnd { members } => {
                let members = std::mem::take(members);
                self.poll_stream_end(step, active, members, over)
            }
            Waiting::Silence { .. } => self.poll_silence(step, active, over),
            Waiting::OneOf { .. } => self.poll_one_of(step, active, over),
            Waiting::Hook { call } => match self.hooks.answers.remove(call) {
                Some(answer) => self.hook_answered(step, &active, answer),
                None if over => Err(Failure::undecided("the hook did not answer in time", None)),
                None => Ok(Progress::Waiting(active)),
            },
            Waiting::HookAgain => match &step.act {
                Act::Hook(hook) if self.clock.now >= active.since + HOOK_PAUSE => self.call_hook(hook, self.hooks.end),
                _ => Ok(Progress::Waiting(active)),
            },
        }
    }

    pub(super) fn poll_upgrade(
        &mut self,
        step: &Step,
        active: Active,
        members: Vec<ActorId>,
        tries: bool,
        over: bool,
    ) -> StepResult {
        let mut bound = Vec::new();
        for id in &members {
            let waited = Some(self.clock.since(active.since));
            match &self.actors[*id].link {
                Link::Open { upgrade } => bound.push(Bound::plain(upgrade.clone())),
                Link::Refused { refusal, .. } if tries => bound.push(Bound::plain(refusal.clone())),
                Link::Refused { text, undecided, .. } => {
                    let what = format!("the connection was refused: {text}");
                    let detail =
                        self.detail(Some(*id), "an accepted upgrade (HTTP 101)".to_owned(), text.clone(), waited);
                    // A step with only may rules records the refusal, whatever its reason.
                    return Err(if *undecided && !only_may(&self.program, step) {
                        Failure::undecided(what, Some(detail))
                    } else {
                        Failure::broken(what, detail)
                    });
                }
                Link::Unreachable { reason } => {
                    let detail = self.detail(Some(*id), "a connection".to_owned(), reason.clone(), waited);
                    return Err(Failure::unreachable(reason, detail));
                }
                Link::Ended(_) => bound.push(Bound::plain(Value::Null)),
                Link::Idle | Link::Connecting if over => {
                    let what = if matches!(step.act, Act::Accept { .. }) {
                        "the hub did not connect in time"
                    } else {
                        "no answer to the upgrade request in time"
                    };
                    let detail = self.detail(Some(*id), "an open connection".to_owned(), "nothing".to_owned(), waited);
                    return Err(Failure::broken(what, detail));
                }
                Link::Idle | Link::Connecting => {
                    return Ok(Progress::Waiting(Active { waiting: Waiting::Upgrade { members, tries }, ..active }));
                }
            }
        }
        self.clock.add_wait(&self.program, step, &active);
        self.holds(step);
        Ok(Progress::Done(Some(self.group(step, bound))))
    }

    pub(super) fn holds(&mut self, step: &Step) {
        if let Some(check) = step.check {
            self.judgement.answer(check, &step.text, Outcome::Holds, "", None);
        }
    }

    /// Returns the value that a step binds: that of a single actor, or the list of those of a group's members.
    #[allow(clippy::unused_self)]
    pub(super) fn group(&self, step: &Step, mut items: Vec<Bound>) -> Bound {
        match step.who {
            Who::Group { .. } => Bound::Many { items, ordered: false },
            _ if items.len() == 1 => items.remove(0),
            _ => Bound::Many { items, ordered: false },
        }
    }

    pub(super) fn time(&self, template: Option<&Template>) -> Result<Option<Duration>, Failure> {
        let Some(template) = template else { return Ok(None) };
        let names = self.names(None);
        let time = match evaluate(template, &names)? {
            Value::String(text) => duration(&text).map_err(|error| error.message),
            other => Err(format!("`{other}` is not a time with a unit, such as 300ms or 5s")),
        };
        time.map(Some).map_err(|what| value_failure(what, template, &names))
    }

    /// Returns the override for the step or loop with this name (see [`super::Config::instead`]).
    pub(super) fn instead_of(&self, name: &str) -> Option<Arc<Template>> {
        let (of, instead) = self.instead.as_ref()?;
        (*of == name).then(|| Arc::clone(instead))
    }

    /// Returns the values of an `each` or `either`. Those from the hub keep their wire.
    pub(super) fn values(&self, template: &Template) -> Result<Vec<Bound>, Failure> {
        let names = self.names(None);
        let list = template.eval_bound(&names).map_err(|error| eval_failure(error, template, &names))?;
        match list {
            Bound::Many { items, .. } => Ok(items),
            Bound::One { value: Value::Array(values), wire } => {
                Ok(values.into_iter().map(|value| Bound::One { value, wire: wire.clone() }).collect())
            }
            Bound::One { value: Value::Number(n), .. } if n.as_u64().is_some_and(|n| n <= 100_000) => {
                Ok((0..n.as_u64().unwrap_or(0)).map(|n| Bound::plain(Value::from(n))).collect())
            }
            other => {
                let other = crate::syntax::matcher::show(&other.to_json());
                Err(value_failure(format!("`in` takes a list or a number up to 100000, not {other}"), template, &names))
            }
        }
    }

    /// Returns the position of the frame bound to `name`, the first if there are several; only later frames count.
    /// Returns 0 without a name.
    pub(super) fn after(&self, name: Option<&str>) -> Result<u64, Failure> {
        use crate::scenario::template::Names;
        let Some(name) = name else { return Ok(0) };
        let bound = self.names(None).lookup(name).ok_or_else(|| EvalError::Unbound(name.to_owned()))?;
        bound.wires().iter().map(|wire| wire.sequence).min().ok_or_else(|| {
            Failure::mistake(format!("`after: {name}` names a value that was neither sent nor received"))
        })
    }
}
