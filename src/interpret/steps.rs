//! What each step does, and what it waits for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::actor::Link;
use super::judge::Finding;
use super::stack::Progress;
use super::wants::{Fit, Wanted};
use super::{Conversation, Dial, Output};
use crate::event::{Detail, Direction, Outcome};
use crate::frame::{Frame, Opcode};
use crate::pack::Level;
use crate::scenario::compose;
use crate::scenario::model::{
    Act, ActorId, Alternative, Codes, Compose, Count, Expect, Has, Hook, MessageName, Order, Program, Quantity, Step,
    Want, Who, duration,
};
use crate::scenario::template::Template;
use crate::scenario::value::{Bound, EvalError, Wire};

/// Pause before a hook whose answer does not fit is asked again.
const HOOK_PAUSE: Duration = Duration::from_millis(100);

/// Why a step did not go through.
pub struct Failure {
    pub kind: Kind,
    pub message: String,
    pub detail: Option<Box<Detail>>,
    pub unreachable: bool,
}

pub enum Kind {
    /// The hub did not do what the step says.
    Broken,
    /// It cannot be known.
    Undecided,
    /// A name that another branch would have bound.
    NotReached,
    /// The scenario is wrong.
    Mistake,
}

impl Failure {
    fn broken(message: impl Into<String>, detail: Detail) -> Self {
        Self { kind: Kind::Broken, message: message.into(), detail: Some(Box::new(detail)), unreachable: false }
    }

    fn undecided(message: impl Into<String>, detail: Option<Detail>) -> Self {
        Self { kind: Kind::Undecided, message: message.into(), detail: detail.map(Box::new), unreachable: false }
    }

    fn mistake(message: impl Into<String>) -> Self {
        Self { kind: Kind::Mistake, message: message.into(), detail: None, unreachable: false }
    }

    pub fn from_eval(error: &EvalError) -> Self {
        match error {
            EvalError::Unbound(name) => Self {
                kind: Kind::NotReached,
                message: format!("not reached: `{name}` was never bound"),
                detail: None,
                unreachable: false,
            },
            EvalError::Missing(what) => Self::undecided(format!("{what} is not there"), None),
            EvalError::Failed(what) => Self::mistake(what.clone()),
        }
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        Self::from_eval(&error)
    }
}

/// What the current step waits for.
pub struct Active {
    since: Duration,
    deadline: Option<Duration>,
    waiting: Waiting,
}

enum Waiting {
    /// Nothing but time; then the step is done.
    Time,
    /// Nothing but time; then the step begins.
    Pause,
    Upgrade {
        members: Vec<ActorId>,
        tries: bool,
    },
    Frames(Box<Frames>),
    End {
        members: Vec<ActorId>,
        codes: Codes,
        refusal: bool,
    },
    Silence {
        members: Vec<(ActorId, Wanted)>,
    },
    OneOf {
        members: Vec<Open>,
    },
    Hook {
        call: u32,
    },
    /// The hook's answer did not fit; it is asked again then.
    HookAgain,
}

/// Frames that several actors await.
struct Frames {
    members: Vec<Member>,
    count: Option<Count>,
    quantity: Option<(Quantity, usize)>,
    /// Collected until the deadline, rather than until there are enough.
    collecting: bool,
}

struct Member {
    id: ActorId,
    wanted: Wanted,
    claims: Vec<Bound>,
}

/// One actor that awaits one of several things.
struct Open {
    id: ActorId,
    wanted: Vec<Option<Wanted>>,
    chosen: Option<(usize, Bound)>,
}

impl Active {
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    pub fn pause(until: Duration) -> Self {
        Self { since: until, deadline: Some(until), waiting: Waiting::Pause }
    }
}

type Stepped = Result<Progress, Failure>;

impl Conversation {
    pub(super) fn begin(&mut self, program: &Arc<Program>, step: &Step) -> Stepped {
        if let Some(name) = &step.if_ {
            use crate::scenario::template::Names;
            if self.names(None).lookup(name).is_none() {
                self.pass_over(program, step, format!("not reached: `{name}` was not bound"));
                return Ok(Progress::Done(None));
            }
        }
        let members = self.members(&step.who);
        match &step.act {
            Act::Join { .. } => {
                self.opening(program, members);
                Ok(Progress::Entered)
            }
            Act::Connect(connect) => {
                for id in &members {
                    let dial = self.dial(*id, connect)?;
                    self.connect(*id, dial);
                }
                self.wait_until(None, Waiting::Upgrade { members, tries: connect.tries })
            }
            Act::Accept => self.wait_until(None, Waiting::Upgrade { members, tries: false }),
            Act::Send(compose) => self.each_sends(&members, step, |c, id| c.send(id, compose)),
            Act::SendRaw(template) => self.each_sends(&members, step, |c, id| c.send_raw(id, template)),
            Act::Close { code, reason } => self.each_sends(&members, step, |c, id| c.close(id, code, reason.as_ref())),
            Act::Drop { reset } => {
                for id in members {
                    self.drop_connection(id, *reset);
                }
                Ok(Progress::Done(None))
            }
            Act::StopReading | Act::ReadAgain => {
                for id in members {
                    if let (Some(connection), true) = (self.actors[id].connection, self.actors[id].is_open()) {
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
            Act::ExpectNothing { message, pattern, after, for_ } => {
                let after = self.after(after.as_deref())?;
                let mut wanted = Vec::new();
                for id in members {
                    let names = self.names(Some(id));
                    wanted.push((
                        id,
                        Wanted::message(&program.pack, message, pattern.as_ref(), after, &names)?.ignoring(),
                    ));
                }
                let time = self.time(for_.as_ref())?.unwrap_or(self.config.quiet);
                let active = Active {
                    since: self.now,
                    deadline: Some(self.now + time),
                    waiting: Waiting::Silence { members: wanted },
                };
                self.poll(step, active)
            }
            Act::ExpectOneOf { alternatives, after, within } => {
                let after = self.after(after.as_deref())?;
                let mut open = Vec::new();
                for id in members {
                    let wanted = self.alternatives(program, id, alternatives, after)?;
                    open.push(Open { id, wanted, chosen: None });
                }
                let only_may = step
                    .check
                    .is_some_and(|check| program.checks[check].rules.iter().all(|rule| rule.level == Level::May));
                let patience = if only_may { self.config.quiet } else { self.stretched(self.config.patience) };
                let time = self.time(within.as_ref())?.map_or(patience, |time| self.stretched(time));
                let active = Active {
                    since: self.now,
                    deadline: Some(self.now + time),
                    waiting: Waiting::OneOf { members: open },
                };
                self.poll(step, active)
            }
            Act::Play { .. } => {
                let group = matches!(step.who, Who::Group { .. });
                self.enter_scene(program, members, group);
                Ok(Progress::Entered)
            }
            Act::Compose(compose) => {
                let value = self.compose(members.first().copied(), compose)?;
                Ok(Progress::Done(Some(Bound::plain(value))))
            }
            Act::Hook(hook) => {
                let time = self.time(hook.within.as_ref())?.unwrap_or(self.config.patience);
                let deadline = self.now + self.stretched(time);
                self.call_hook(hook, deadline)
            }
            Act::Wait { time } => {
                let time = self.time(Some(time))?.unwrap_or_default();
                self.out.push(Output::Waiting { because: step.text.clone(), time });
                Ok(Progress::Waiting(Active {
                    since: self.now,
                    deadline: Some(self.now + time),
                    waiting: Waiting::Time,
                }))
            }
            Act::Check { value, test } => {
                let finding = self.compute(value, test, &self.names(None));
                self.settle(program, step, finding)
            }
            Act::Order(order) => {
                let finding = self.order(order)?;
                self.settle(program, step, finding)
            }
            Act::Each { name, values, bodies, fresh } => {
                let values = self.values(values)?;
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
                let time = self.stretched(time);
                self.enter_retry(time, *body);
                Ok(Progress::Entered)
            }
        }
    }

    /// A `check` that does not hold is a finding, but never ends the scenario - unless an attempt is being made.
    fn settle(&mut self, program: &Program, step: &Step, finding: Finding) -> Stepped {
        let Some(check) = step.check else { return Ok(Progress::Done(None)) };
        let trying = self
            .stack
            .iter()
            .any(|frame| matches!(frame.kind, super::stack::Kind::Retry { .. } | super::stack::Kind::Either { .. }));
        match finding {
            Finding::Broken { expected, found, message } if trying => {
                Err(Failure::broken(message, self.detail(None, expected, found, None)))
            }
            Finding::NotReached(why) => {
                self.pass_over(program, step, why);
                Ok(Progress::Done(None))
            }
            finding => {
                self.note(check, &step.text, None, "", finding);
                Ok(Progress::Done(None))
            }
        }
    }

    // ---- waiting

    fn wait_until(&mut self, within: Option<Duration>, waiting: Waiting) -> Stepped {
        let time = self.stretched(within.unwrap_or(self.config.patience));
        Ok(Progress::Waiting(Active { since: self.now, deadline: Some(self.now + time), waiting }))
    }

    pub(super) fn poll(&mut self, step: &Step, mut active: Active) -> Stepped {
        let over = active.deadline.is_some_and(|deadline| self.now >= deadline);
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
            Waiting::Silence { .. } => self.poll_silence(step, active, over),
            Waiting::OneOf { .. } => self.poll_one_of(step, active, over),
            Waiting::Hook { call } => match self.hook_answers.remove(call) {
                Some(answer) => self.hook_answered(step, &active, answer),
                None if over => Err(Failure::undecided("the hook did not answer in time", None)),
                None => Ok(Progress::Waiting(active)),
            },
            Waiting::HookAgain => match &step.act {
                Act::Hook(hook) if self.now >= active.since + HOOK_PAUSE => {
                    // `since` was moved when the hook was put off; the end of the wait is kept beside it.
                    let end = self.hook_end.unwrap_or(self.now);
                    self.call_hook(hook, end)
                }
                _ => Ok(Progress::Waiting(active)),
            },
        }
    }

    fn margin(&mut self, step: &Step, active: &Active) {
        if let Some(left) = active.deadline.map(|deadline| deadline.saturating_sub(self.now))
            && self.slimmest.as_ref().is_none_or(|(least, _)| left < *least)
        {
            self.slimmest = Some((left, step.text.clone()));
        }
    }

    fn poll_upgrade(&mut self, step: &Step, active: Active, members: Vec<ActorId>, tries: bool, over: bool) -> Stepped {
        let mut bound = Vec::new();
        for id in &members {
            let waited = Some(self.now.saturating_sub(active.since));
            match &self.actors[*id].link {
                Link::Open { upgrade } => bound.push(Bound::plain(upgrade.clone())),
                Link::Refused { refusal, .. } if tries => bound.push(Bound::plain(refusal.clone())),
                Link::Refused { text, .. } => {
                    let detail =
                        self.detail(Some(*id), "an accepted upgrade (HTTP 101)".to_owned(), text.clone(), waited);
                    return Err(Failure::broken(format!("the connection was refused: {text}"), detail));
                }
                Link::Unreachable { reason } => {
                    let detail = self.detail(Some(*id), "a connection".to_owned(), reason.clone(), waited);
                    return Err(Failure {
                        kind: Kind::Undecided,
                        message: reason.clone(),
                        detail: Some(Box::new(detail)),
                        unreachable: true,
                    });
                }
                Link::Ended(_) => bound.push(Bound::plain(Value::Null)),
                Link::Idle | Link::Connecting if over => {
                    let what = if matches!(step.act, Act::Accept) {
                        "the hub did not connect"
                    } else {
                        "no answer to the upgrade"
                    };
                    let detail = self.detail(Some(*id), "an open connection".to_owned(), "nothing".to_owned(), waited);
                    return Err(Failure::broken(what, detail));
                }
                Link::Idle | Link::Connecting => {
                    return Ok(Progress::Waiting(Active { waiting: Waiting::Upgrade { members, tries }, ..active }));
                }
            }
        }
        self.margin(step, &active);
        self.holds(step);
        Ok(Progress::Done(Some(self.group(step, bound))))
    }

    fn holds(&mut self, step: &Step) {
        if let Some(check) = step.check {
            self.judgement.answer(check, &step.text, Outcome::Holds, "", None);
        }
    }

    /// One actor binds what it got, a group the list over its members.
    #[allow(clippy::unused_self)]
    fn group(&self, step: &Step, mut items: Vec<Bound>) -> Bound {
        match step.who {
            Who::Group { .. } => Bound::Many { items, ordered: false },
            _ if items.len() == 1 => items.remove(0),
            _ => Bound::Many { items, ordered: false },
        }
    }

    // ---- expects

    fn begin_expect(&mut self, step: &Step, expect: &Expect, members: Vec<ActorId>) -> Stepped {
        let program = Arc::clone(&self.program);
        let after = self.after(expect.after.as_deref())?;
        let for_ = self.time(expect.for_.as_ref())?;
        let within = match self.time(expect.within.as_ref())? {
            Some(time) => Some(time),
            // What is merely allowed is not waited for.
            None => step
                .check
                .is_some_and(|check| program.checks[check].rules.iter().all(|rule| rule.level == Level::May))
                .then_some(self.config.quiet),
        };
        let time = for_.unwrap_or_else(|| self.stretched(within.unwrap_or(self.config.patience)));
        let deadline = Some(self.now + time);
        let quantity = match &step.who {
            Who::Group { quantity, .. } => *quantity,
            _ => None,
        };
        let waiting = match &expect.want {
            Want::Message { .. } | Want::Control { .. } => {
                let mut awaiting = Vec::new();
                for id in members {
                    awaiting.push(Member {
                        id,
                        wanted: self.wanted(&program, id, &expect.want, after)?,
                        claims: Vec::new(),
                    });
                }
                Waiting::Frames(Box::new(Frames {
                    members: awaiting,
                    count: expect.count,
                    quantity,
                    collecting: for_.is_some(),
                }))
            }
            Want::Close(codes) => Waiting::End { members, codes: codes.clone(), refusal: false },
            Want::Refusal(codes) => Waiting::End { members, codes: codes.clone(), refusal: true },
        };
        self.poll(step, Active { since: self.now, deadline, waiting })
    }

    fn wanted(&self, program: &Program, id: ActorId, want: &Want, after: u64) -> Result<Wanted, Failure> {
        let names = self.names(Some(id));
        Ok(match want {
            Want::Control { pong, pattern } => Wanted::control(*pong, pattern.as_ref(), after, &names)?,
            Want::Message { message, pattern } => {
                Wanted::message(&program.pack, message, pattern.as_ref(), after, &names)?
            }
            Want::Close(_) | Want::Refusal(_) => {
                Wanted::message(&program.pack, &MessageName::Any, None, u64::MAX, &names)?
            }
        })
    }

    fn poll_frames(&mut self, step: &Step, mut active: Active, over: bool) -> Stepped {
        let Waiting::Frames(frames) = &mut active.waiting else { return Ok(Progress::Waiting(active)) };
        let most = match frames.count {
            Some(count) => count.max.unwrap_or(usize::MAX),
            None => 1,
        };
        // One more than allowed is claimed too, so that "too many" can be seen while collecting.
        let most = if frames.collecting { most.saturating_add(1) } else { most };
        for member in &mut frames.members {
            while member.claims.len() < most {
                let Some(bound) = self.claim(member.id, &member.wanted) else { break };
                member.claims.push(bound);
            }
        }
        let least = frames.count.map_or(1, |count| count.min);
        let got = frames.members.iter().filter(|member| member.claims.len() >= least).count();
        if let Some((quantity, number)) = frames.quantity {
            if !over {
                return Ok(Progress::Waiting(active));
            }
            let right = match quantity {
                Quantity::Exactly => got == number,
                Quantity::AtLeast => got >= number,
                Quantity::AtMost => got <= number,
            };
            let items: Vec<Bound> = frames.members.iter().filter_map(|member| member.claims.first().cloned()).collect();
            if !right {
                let words = match quantity {
                    Quantity::Exactly => "exactly",
                    Quantity::AtLeast => "at least",
                    Quantity::AtMost => "at most",
                };
                let waited = Some(self.now.saturating_sub(active.since));
                let detail =
                    self.detail(None, format!("{words} {number} of them get it"), format!("{got} got it"), waited);
                return Err(Failure::broken(format!("{got} of them got it, not {words} {number}"), detail));
            }
            self.holds(step);
            return Ok(Progress::Done(Some(Bound::Many { items, ordered: false })));
        }
        let collecting = frames.collecting && !over;
        let everyone = got == frames.members.len();
        if everyone && !collecting {
            let counted = frames.count.is_some();
            let excess = frames.collecting
                && frames
                    .count
                    .and_then(|count| count.max)
                    .is_some_and(|max| frames.members.iter().any(|m| m.claims.len() > max));
            if excess {
                let waited = Some(self.now.saturating_sub(active.since));
                let detail = self.detail(
                    frames.members.first().map(|m| m.id),
                    format!("at most {} of them", most - 1),
                    format!("{most} or more"),
                    waited,
                );
                return Err(Failure::broken("more came than allowed", detail));
            }
            let results: Vec<(ActorId, Vec<Bound>)> =
                frames.members.drain(..).map(|member| (member.id, member.claims)).collect();
            if !frames.collecting {
                self.margin(step, &active);
            }
            return self.got(step, results, counted);
        }
        // Somebody got nothing yet. If the connection has ended, nothing can come any more.
        for member in &frames.members {
            if member.claims.len() >= least {
                continue;
            }
            let ended = match &self.actors[member.id].link {
                Link::Ended(end) => Some(end.describe()),
                Link::Idle | Link::Refused { .. } | Link::Unreachable { .. } => {
                    Some("this actor has no connection".to_owned())
                }
                Link::Open { .. } | Link::Connecting => None,
            };
            if ended.is_none() && !over {
                continue;
            }
            let id = member.id;
            let waited = Some(self.now.saturating_sub(active.since));
            let expected = self.expectation(step);
            let received = self.instead(id, &member.wanted);
            let count = member.claims.len();
            let detail = self.detail(Some(id), expected, received, waited);
            let known = self.actors[id].end_noticed
                || matches!(self.actors[id].link, Link::Idle | Link::Refused { .. } | Link::Unreachable { .. });
            return Err(match ended {
                // Somebody was blamed for this end already, or it was foreseen.
                Some(how) if known => Failure::undecided(format!("cannot be asked: {how}"), Some(detail)),
                Some(how) => {
                    self.actors[id].end_noticed = true;
                    Failure::broken(format!("it did not come: {how}"), detail)
                }
                None if count > 0 => Failure::broken(format!("only {count} of them came"), detail),
                None => Failure::broken("it did not come", detail),
            });
        }
        Ok(Progress::Waiting(active))
    }

    /// What was awaited has come: the details are judged.
    fn got(&mut self, step: &Step, results: Vec<(ActorId, Vec<Bound>)>, counted: bool) -> Stepped {
        self.holds(step);
        let mut items = Vec::new();
        for (id, claims) in results {
            if let Act::Expect(expect) = &step.act {
                for claim in &claims {
                    self.judge_has(step, Some(id), &expect.has, claim);
                }
            }
            items.push(match (counted, claims.into_iter().collect::<Vec<_>>()) {
                (true, claims) => Bound::Many { items: claims, ordered: true },
                (false, claims) => claims.into_iter().next().unwrap_or(Bound::plain(Value::Null)),
            });
        }
        Ok(Progress::Done(Some(self.group(step, items))))
    }

    fn judge_has(&mut self, step: &Step, actor: Option<ActorId>, has: &[Has], bound: &Bound) {
        let (value, text) = match bound {
            Bound::One { value, wire } => {
                (value.clone(), wire.as_ref().map_or_else(|| value.to_string(), |wire| wire.text.to_string()))
            }
            other => (other.to_json(), other.to_json().to_string()),
        };
        for has in has {
            let finding = self.compare(&has.pattern, &value, &self.names(actor));
            self.note(has.check, &step.text, actor, &text, finding);
        }
    }

    fn claim(&mut self, id: ActorId, wanted: &Wanted) -> Option<Bound> {
        let program = Arc::clone(&self.program);
        let found = self.actors[id].inbox.iter().enumerate().find_map(|(i, entry)| {
            match wanted.fit(entry, &program.pack, &program.shared.ignore) {
                Fit::Yes(value) => Some((i, value)),
                _ => None,
            }
        });
        let (index, value) = found?;
        let entry = &mut self.actors[id].inbox[index];
        entry.claimed = true;
        Some(Bound::One { value, wire: Some(Arc::clone(&entry.wire)) })
    }

    fn poll_end(
        &mut self,
        step: &Step,
        active: Active,
        members: Vec<ActorId>,
        codes: Codes,
        refusal: bool,
        over: bool,
    ) -> Stepped {
        let waited = Some(self.now.saturating_sub(active.since));
        let mut items = Vec::new();
        for id in &members {
            let expected = self.expectation(step);
            match &self.actors[*id].link {
                Link::Refused { refusal: answer, text, .. } if refusal => {
                    let status = answer.get("status").and_then(Value::as_u64).unwrap_or(0) as u16;
                    if !codes.any && !codes.codes.contains(&status) {
                        let detail = self.detail(Some(*id), expected, text.clone(), waited);
                        return Err(Failure::broken(format!("refused, but so: {text}"), detail));
                    }
                    items.push((*id, Bound::plain(answer.clone())));
                }
                Link::Open { .. } if refusal => {
                    let detail = self.detail(Some(*id), expected, "the upgrade was accepted".to_owned(), waited);
                    return Err(Failure::broken("the upgrade was not refused", detail));
                }
                Link::Ended(end) if !refusal && !end.by_us => {
                    let (end, how) = (end.clone(), end.describe());
                    let right = if end.close_frame {
                        codes.any || end.code.is_some_and(|code| codes.codes.contains(&code))
                    } else {
                        codes.drop
                    };
                    self.actors[*id].end_noticed = true;
                    if !right {
                        let detail = self.detail(Some(*id), expected, how.clone(), waited);
                        return Err(Failure::broken(format!("{how}, not as expected"), detail));
                    }
                    if let Link::Ended(end) = &mut self.actors[*id].link {
                        end.claimed = true;
                    }
                    let wire = self.end_wire(*id, &end);
                    items.push((*id, Bound::One { value: end.to_json(), wire: Some(wire) }));
                }
                Link::Unreachable { reason } => {
                    let detail = self.detail(Some(*id), expected, reason.clone(), waited);
                    return Err(Failure {
                        kind: Kind::Undecided,
                        message: reason.clone(),
                        detail: Some(Box::new(detail)),
                        unreachable: true,
                    });
                }
                Link::Open { .. } | Link::Connecting if !over => {
                    return Ok(Progress::Waiting(Active {
                        waiting: Waiting::End { members, codes, refusal },
                        ..active
                    }));
                }
                _ => {
                    let wanted =
                        Wanted::message(&self.program.pack, &MessageName::Any, None, 0, &self.names(Some(*id)))?;
                    let received = self.instead(*id, &wanted);
                    let detail = self.detail(Some(*id), expected, received, waited);
                    let what = if refusal { "the upgrade was not refused" } else { "the connection was not closed" };
                    return Err(Failure::broken(what, detail));
                }
            }
        }
        self.margin(step, &active);
        let results = items.into_iter().map(|(id, bound)| (id, vec![bound])).collect();
        self.got(step, results, false)
    }

    fn end_wire(&self, id: ActorId, end: &super::End) -> Arc<Wire> {
        let unix_ms = self.config.epoch_ms as f64 + end.at.as_secs_f64() * 1000.0;
        let connection = self.actors[id].connection.unwrap_or_default();
        Arc::new(Wire {
            sequence: end.sequence,
            at: end.at,
            unix_ms,
            after: end.after,
            connection,
            opcode: "close",
            text: end.reason.as_str().into(),
            size: 0,
        })
    }

    fn poll_silence(&mut self, step: &Step, mut active: Active, over: bool) -> Stepped {
        let program = Arc::clone(&self.program);
        let Waiting::Silence { members } = &mut active.waiting else { return Ok(Progress::Waiting(active)) };
        for (id, wanted) in members.iter() {
            let found = self.actors[*id]
                .inbox
                .iter()
                .find(|entry| matches!(wanted.fit(entry, &program.pack, &program.shared.ignore), Fit::Yes(_)));
            if let Some(entry) = found {
                let text = crate::matcher::cut(&entry.wire.text, 400);
                let waited = Some(self.now.saturating_sub(active.since));
                let detail = self.detail(Some(*id), self.expectation(step), text, waited);
                return Err(Failure::broken("it came, though nothing of the kind should", detail));
            }
            let ended = match &self.actors[*id].link {
                Link::Ended(end) if !end.claimed && !end.by_us => Some(end.describe()),
                _ => None,
            };
            if let Some(how) = ended {
                let known = std::mem::replace(&mut self.actors[*id].end_noticed, true);
                let detail = self.detail(Some(*id), "the connection stays open".to_owned(), how.clone(), None);
                return Err(if known {
                    Failure::undecided(format!("silence proves nothing: {how}"), Some(detail))
                } else {
                    Failure::broken(how, detail)
                });
            }
        }
        if over {
            self.holds(step);
            return Ok(Progress::Done(None));
        }
        Ok(Progress::Waiting(active))
    }

    fn alternatives(
        &self,
        program: &Program,
        id: ActorId,
        alternatives: &[Alternative],
        after: u64,
    ) -> Result<Vec<Option<Wanted>>, Failure> {
        alternatives
            .iter()
            .map(|alternative| match &alternative.want {
                Some(want @ Want::Message { .. }) => self.wanted(program, id, want, after).map(Some),
                _ => Ok(None),
            })
            .collect()
    }

    fn poll_one_of(&mut self, step: &Step, mut active: Active, over: bool) -> Stepped {
        let program = Arc::clone(&self.program);
        let Act::ExpectOneOf { alternatives, .. } = &step.act else { return Ok(Progress::Waiting(active)) };
        let Waiting::OneOf { members } = &mut active.waiting else { return Ok(Progress::Waiting(active)) };
        for open in members.iter_mut().filter(|open| open.chosen.is_none()) {
            open.chosen = self.choose(&program, open.id, alternatives, &open.wanted, over);
        }
        if members.iter().all(|open| open.chosen.is_some()) {
            let silent = members
                .iter()
                .any(|open| open.chosen.as_ref().is_some_and(|(index, _)| alternatives[*index].want.is_none()));
            let chosen: Vec<(usize, Bound)> = members.iter_mut().filter_map(|open| open.chosen.take()).collect();
            if !silent {
                self.margin(step, &active);
            }
            let mut items = Vec::new();
            for (index, bound) in chosen {
                let alternative = &alternatives[index];
                let outcome = match (&alternative.warn, &alternative.info) {
                    (Some(warn), _) => Outcome::Tolerated(warn.clone()),
                    (None, Some(info)) => Outcome::Noted(info.clone()),
                    (None, None) => Outcome::Holds,
                };
                if let Some(check) = step.check {
                    self.judgement.answer(check, &step.text, outcome, "", None);
                }
                if let Some(name) = &alternative.as_ {
                    self.bind(name, bound.clone());
                }
                items.push(bound);
            }
            return Ok(Progress::Done(Some(self.group(step, items))));
        }
        for open in members.iter().filter(|open| open.chosen.is_none()) {
            let (id, ended) = match &self.actors[open.id].link {
                Link::Ended(end) => (open.id, Some(end.describe())),
                Link::Refused { text, .. } => (open.id, Some(text.clone())),
                Link::Unreachable { reason } => {
                    let detail = self.detail(Some(open.id), self.expectation(step), reason.clone(), None);
                    return Err(Failure {
                        kind: Kind::Undecided,
                        message: reason.clone(),
                        detail: Some(Box::new(detail)),
                        unreachable: true,
                    });
                }
                _ => (open.id, None),
            };
            if ended.is_none() && !over {
                continue;
            }
            let waited = Some(self.now.saturating_sub(active.since));
            let wanted = open.wanted.iter().flatten().next();
            let received = match wanted {
                Some(wanted) => self.instead(id, wanted),
                None => ended.clone().unwrap_or_else(|| "nothing, connection still open".to_owned()),
            };
            let detail = self.detail(Some(id), self.expectation(step), received, waited);
            let known = std::mem::replace(&mut self.actors[id].end_noticed, ended.is_some());
            return Err(match ended {
                Some(how) if known => Failure::undecided(format!("cannot be asked: {how}"), Some(detail)),
                Some(how) => Failure::broken(format!("none of these came: {how}"), detail),
                None => Failure::broken("none of these came", detail),
            });
        }
        Ok(Progress::Waiting(active))
    }

    /// The alternative that came first, if any has come.
    fn choose(
        &mut self,
        program: &Program,
        id: ActorId,
        alternatives: &[Alternative],
        wanted: &[Option<Wanted>],
        over: bool,
    ) -> Option<(usize, Bound)> {
        let actor = &self.actors[id];
        // By order of arrival; of one frame the first alternative listed.
        let message = actor.inbox.iter().enumerate().find_map(|(position, entry)| {
            wanted.iter().enumerate().find_map(|(index, wanted)| {
                match wanted.as_ref()?.fit(entry, &program.pack, &program.shared.ignore) {
                    Fit::Yes(value) => Some((entry.wire.sequence, position, index, value)),
                    _ => None,
                }
            })
        });
        let end =
            alternatives.iter().enumerate().find_map(|(index, alternative)| match (&alternative.want, &actor.link) {
                (Some(Want::Close(codes)), Link::Ended(end)) if !end.by_us && !end.claimed => {
                    let right = if end.close_frame {
                        codes.any || end.code.is_some_and(|code| codes.codes.contains(&code))
                    } else {
                        codes.drop
                    };
                    right.then(|| (end.sequence, index, end.to_json()))
                }
                (Some(Want::Refusal(codes)), Link::Refused { sequence, refusal, .. }) => {
                    let status = refusal.get("status").and_then(Value::as_u64).unwrap_or(0) as u16;
                    (codes.any || codes.codes.contains(&status)).then(|| (*sequence, index, refusal.clone()))
                }
                _ => None,
            });
        match (message, end) {
            (Some((came, position, index, value)), end) if end.as_ref().is_none_or(|(ended, _, _)| came < *ended) => {
                let entry = &mut self.actors[id].inbox[position];
                entry.claimed = true;
                Some((index, Bound::One { value, wire: Some(Arc::clone(&entry.wire)) }))
            }
            (_, Some((_, index, value))) => {
                let mut wire = None;
                if let Link::Ended(end) = &mut self.actors[id].link {
                    end.claimed = true;
                    let end = end.clone();
                    wire = Some(self.end_wire(id, &end));
                }
                self.actors[id].end_noticed = true;
                Some((index, Bound::One { value, wire }))
            }
            _ if over => {
                let index = alternatives.iter().position(|alternative| alternative.want.is_none())?;
                Some((index, Bound::plain(Value::Null)))
            }
            _ => None,
        }
    }

    /// A step's head and `where` in words, for "expected".
    fn expectation(&self, step: &Step) -> String {
        let pattern = match &step.act {
            Act::Expect(expect) => match &expect.want {
                Want::Message { pattern, .. } | Want::Control { pattern, .. } => pattern.as_ref(),
                _ => None,
            },
            Act::ExpectNothing { pattern, .. } => pattern.as_ref(),
            Act::ExpectOneOf { alternatives, .. } => {
                let list: Vec<&str> = alternatives.iter().map(|alternative| alternative.text.as_str()).collect();
                return format!("one of: {}", list.join(", "));
            }
            _ => None,
        };
        let place = pattern.and_then(|pattern| pattern.template.eval(&self.names(None)).ok());
        match place {
            Some(place) => format!("{} where {}", step.text, crate::matcher::cut(&place.to_string(), 300)),
            None => step.text.clone(),
        }
    }

    // ---- connecting

    fn dial(&self, id: ActorId, connect: &crate::scenario::model::Connect) -> Result<Dial, Failure> {
        let names = self.names(Some(id));
        let text = |template: &Option<Template>| -> Result<Option<String>, Failure> {
            match template.as_ref().map(|template| template.eval(&names)).transpose()? {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text)),
                Some(other) => Ok(Some(other.to_string())),
            }
        };
        let pairs = |template: &Option<Template>| -> Result<Vec<(String, String)>, Failure> {
            match template.as_ref().map(|template| template.eval(&names)).transpose()? {
                None => Ok(Vec::new()),
                Some(Value::Object(members)) => Ok(members
                    .into_iter()
                    .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
                    .collect()),
                Some(other) => Err(Failure::mistake(format!("a mapping belongs here, not {other}"))),
            }
        };
        let subprotocols = match connect.subprotocols.as_ref().map(|template| template.eval(&names)).transpose()? {
            None => Vec::new(),
            Some(Value::Array(items)) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
            Some(Value::String(one)) => vec![one],
            Some(other) => return Err(Failure::mistake(format!("`subprotocols` is a list, not {other}"))),
        };
        Ok(Dial {
            path: text(&connect.path)?,
            query: pairs(&connect.query)?,
            headers: pairs(&connect.headers)?,
            subprotocols,
            from: text(&connect.from)?,
        })
    }

    fn connect(&mut self, id: ActorId, dial: Dial) {
        if let (Some(connection), true) = (self.actors[id].connection, self.actors[id].is_open()) {
            self.out.push(Output::End { connection, reset: false });
        }
        let connection = self.connections.len() as u32;
        self.connections.insert(connection, id);
        self.actors[id].reset_connection(connection);
        self.out.push(Output::Open { connection, dial });
    }

    // ---- sending

    fn each_sends(
        &mut self,
        members: &[ActorId],
        step: &Step,
        mut send: impl FnMut(&mut Self, ActorId) -> Result<Option<Bound>, Failure>,
    ) -> Stepped {
        let mut items = Vec::new();
        for id in members {
            // Members that are gone are passed over; what they should have said cannot be answered either.
            if self.actors[*id].is_open() {
                items.extend(send(self, *id)?);
            }
        }
        if items.is_empty() && step.as_.is_some() {
            return Ok(Progress::Done(None));
        }
        Ok(Progress::Done(Some(self.group(step, items))))
    }

    fn send(&mut self, id: ActorId, compose: &Compose) -> Result<Option<Bound>, Failure> {
        let value = self.compose(Some(id), compose)?;
        let text = value.to_string();
        let mut frames = fragments(text.as_bytes(), compose.fragments);
        if self.is_server(id) {
            frames = frames.into_iter().map(Frame::unmasked).collect();
        }
        Ok(self.transmit(id, frames, "text", &text, text.len()).map(|wire| Bound::One { value, wire: Some(wire) }))
    }

    fn transmit(
        &mut self,
        id: ActorId,
        frames: Vec<Frame>,
        kind: &'static str,
        text: &str,
        size: usize,
    ) -> Option<Arc<Wire>> {
        let connection = self.actors[id].connection?;
        let sequence = self.next_sequence();
        self.record(id, connection, Direction::Sent, kind, text, size);
        self.actors[id].last_sent = Some(crate::matcher::cut(&(self.config.mask)(text), 400));
        self.out.push(Output::Send { connection, frames });
        Some(self.wire(id, connection, sequence, kind, text, size))
    }

    /// A message of ours: the example, renewed by `fills`, changed by `with`, less what `without` takes away.
    pub(super) fn compose(&self, id: Option<ActorId>, compose: &Compose) -> Result<Value, Failure> {
        let names = self.names(id);
        let name = match &compose.message {
            MessageName::Any => return Err(Failure::mistake("`any` cannot be sent")),
            MessageName::Named(name) => name.clone(),
            MessageName::Computed(template) => match template.eval(&names)? {
                Value::String(name) => name,
                other => return Err(Failure::mistake(format!("{other} is not the name of a message"))),
            },
        };
        let Some(message) = self.program.pack.message(&name) else {
            return Err(Failure::mistake(format!("{} has no message `{name}`", self.program.pack.name)));
        };
        let mut value = message.template();
        let role = id.or_else(|| self.myself()).and_then(|id| self.program.roles.get(&self.program.actors[id].role));
        for (place, template) in role.map(|role| role.fills.as_slice()).unwrap_or_default() {
            let pointer =
                if place.starts_with('/') { place.clone() } else { format!("/{}", crate::matcher::escape(place)) };
            if value.pointer(&pointer).is_some() {
                compose::put(&mut value, &pointer, template.eval(&names)?);
            }
        }
        let mut from_hub = false;
        if let Some(with) = &compose.with {
            from_hub = super::judge::from_hub(with, &names);
            match with.eval(&names) {
                Ok(with) => compose::merge(&mut value, &with),
                Err(EvalError::Failed(what)) if from_hub => return Err(Failure::undecided(what, None)),
                Err(error) => return Err(error.into()),
            }
        }
        compose::remove(&mut value, &compose.without);
        let broken = message.schema.judge(&value).into_iter().find(|violation| !violation.should);
        match (&compose.breaks, broken) {
            (None, Some(violation)) if from_hub => {
                let what = format!(
                    "what the hub sent cannot be used in `{name}`: {}: expected {}, found {}",
                    violation.path, violation.expected, violation.found
                );
                Err(Failure::undecided(what, None))
            }
            (None, Some(violation)) => Err(Failure::mistake(format!(
                "`{name}` as it would be sent breaks its schema at `{}`: expected {}, found {}; say why with `breaks` if that is meant",
                violation.path, violation.expected, violation.found
            ))),
            (Some(_), None) if message.directions.to_hub && !id.is_some_and(|id| self.is_server(id)) => {
                Err(Failure::mistake(format!("`{name}` is right as it would be sent, so `breaks` is wrong")))
            }
            _ => Ok(value),
        }
    }

    fn send_raw(&mut self, id: ActorId, template: &Template) -> Result<Option<Bound>, Failure> {
        let value = template.eval(&self.names(Some(id)))?;
        let connection = self.actors[id].connection.unwrap_or_default();
        let Some((kind, content)) = value.as_object().and_then(|members| members.iter().next()) else {
            return Err(Failure::mistake("`sends raw` takes text, binary, frames or bytes"));
        };
        let server = self.is_server(id);
        let mut shown = String::new();
        let mut opcode = "text";
        let mut frames = match (kind.as_str(), content) {
            ("text", Value::String(text)) => {
                shown.clone_from(text);
                vec![Frame::text(text.as_bytes())]
            }
            ("binary", Value::String(text)) => {
                opcode = "binary";
                shown.clone_from(text);
                vec![Frame::binary(unhex(text)?)]
            }
            ("frames", Value::Array(items)) => {
                opcode = "frames";
                shown = content.to_string();
                items.iter().map(raw_frame).collect::<Result<_, _>>()?
            }
            ("bytes", Value::String(text)) => {
                let bytes = unhex(text)?;
                self.record(id, connection, Direction::Sent, "bytes", text, bytes.len());
                self.out.push(Output::SendBytes { connection, bytes });
                return Ok(None);
            }
            _ => return Err(Failure::mistake("`sends raw` takes text, binary, frames or bytes")),
        };
        if server && kind != "frames" {
            frames = frames.into_iter().map(Frame::unmasked).collect();
        }
        let size = frames.iter().map(|frame| frame.payload.len()).sum();
        let wire = self.transmit(id, frames, opcode, &shown, size);
        Ok(wire.map(|wire| Bound::One { value, wire: Some(wire) }))
    }

    fn close(&mut self, id: ActorId, code: &Template, reason: Option<&Template>) -> Result<Option<Bound>, Failure> {
        let names = self.names(Some(id));
        let code = match code.eval(&names)? {
            Value::Null => None,
            Value::Number(code) => code.as_u64().and_then(|code| u16::try_from(code).ok()),
            other => return Err(Failure::mistake(format!("{other} is not a close code"))),
        };
        let reason = match reason.map(|reason| reason.eval(&names)).transpose()? {
            Some(Value::String(reason)) => reason,
            _ => String::new(),
        };
        let frame = Frame::close(code, &reason);
        let frame = if self.is_server(id) { frame.unmasked() } else { frame };
        let text = code.map_or_else(String::new, |code| format!("{code} {reason}"));
        let wire = self.transmit(id, vec![frame], "close", text.trim_end(), text.len());
        self.gone(id);
        Ok(wire.map(|wire| Bound::One { value: Value::Null, wire: Some(wire) }))
    }

    fn drop_connection(&mut self, id: ActorId, reset: bool) {
        if let (Some(connection), true) = (self.actors[id].connection, self.actors[id].is_open()) {
            self.record(id, connection, Direction::Sent, if reset { "reset" } else { "fin" }, "", 0);
            self.out.push(Output::End { connection, reset });
            self.gone(id);
        }
    }

    /// We ended the connection ourselves.
    fn gone(&mut self, id: ActorId) {
        let sequence = self.next_sequence();
        let actor = &mut self.actors[id];
        let after = self.now.saturating_sub(actor.opened_at);
        actor.end_noticed = true;
        actor.link = Link::Ended(super::End {
            sequence,
            at: self.now,
            after,
            close_frame: false,
            code: None,
            reason: String::new(),
            claimed: true,
            by_us: true,
        });
    }

    /// The reflexes of an actor's role.
    pub(super) fn react(&mut self, id: ActorId, json: &Value, way: crate::pack::Way) {
        let program = Arc::clone(&self.program);
        let Some(role) = program.roles.get(&program.actors[id].role) else { return };
        for reaction in role.reacts.iter().filter_map(|name| program.reactions.get(name)) {
            let Some(message) = program.pack.message(&reaction.whenever) else { continue };
            if !(message.is(json, way) || message.is(json, crate::pack::Way::FromHub)) || !self.actors[id].is_open() {
                continue;
            }
            let mut frame = super::stack::Frame::body(reaction.block);
            frame.me = Some(id);
            frame.kind = super::stack::Kind::Opening { rest: Vec::new() };
            if let Some(name) = &reaction.as_ {
                frame.names.insert(name.clone(), Bound::plain(json.clone()));
            }
            self.push(frame);
            let fits = reaction
                .pattern
                .as_ref()
                .is_none_or(|pattern| matches!(self.compare(pattern, json, &self.names(Some(id))), Finding::Holds));
            if fits {
                for step in &program.blocks[reaction.block] {
                    let done = match &step.act {
                        Act::Send(compose) => self.send(id, compose),
                        Act::SendRaw(template) => self.send_raw(id, template),
                        Act::Close { code, reason } => self.close(id, code, reason.as_ref()),
                        Act::Drop { reset } => {
                            self.drop_connection(id, *reset);
                            Ok(None)
                        }
                        _ => Ok(None),
                    };
                    if let Err(failure) = done {
                        self.mistake.get_or_insert(format!("reaction to {}: {}", reaction.whenever, failure.message));
                    }
                }
            }
            self.stack.pop();
        }
    }

    // ---- hooks

    fn call_hook(&mut self, hook: &Hook, deadline: Duration) -> Stepped {
        let names = self.names(None);
        let args = hook
            .args
            .as_ref()
            .map(|args| args.eval(&names))
            .transpose()?
            .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let message = hook.message.as_ref().map(|message| self.compose_event(message)).transpose()?;
        self.next_call += 1;
        let call = self.next_call;
        self.out.push(Output::Hook { call, name: hook.name.clone(), args, message });
        self.hook_end = Some(deadline);
        Ok(Progress::Waiting(Active { since: self.now, deadline: Some(deadline), waiting: Waiting::Hook { call } }))
    }

    /// A message a hook carries is the hub's own.
    fn compose_event(&self, compose: &Compose) -> Result<Value, Failure> {
        self.compose(None, compose)
    }

    fn hook_answered(&mut self, step: &Step, active: &Active, answer: Result<Value, String>) -> Stepped {
        let Act::Hook(hook) = &step.act else { return Ok(Progress::Done(None)) };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(Failure::undecided(format!("the hook `{}` failed: {error}", hook.name), None)),
        };
        if let Some(pattern) = &hook.pattern
            && let Finding::Broken { expected, found, message } = self.compare(pattern, &answer, &self.names(None))
        {
            let end = active.deadline.unwrap_or(self.now);
            if self.now + HOOK_PAUSE >= end {
                let detail = self.detail(None, expected, found, Some(self.now.saturating_sub(active.since)));
                return Err(Failure::broken(format!("the answer of `{}` does not fit: {message}", hook.name), detail));
            }
            self.hook_end = Some(end);
            return Ok(Progress::Waiting(Active {
                since: self.now,
                deadline: Some(self.now + HOOK_PAUSE),
                waiting: Waiting::HookAgain,
            }));
        }
        let sequence = self.next_sequence();
        let unix_ms = self.config.epoch_ms as f64 + self.now.as_secs_f64() * 1000.0;
        let text = answer.to_string();
        let wire = Wire {
            sequence,
            at: self.now,
            unix_ms,
            after: Duration::ZERO,
            connection: u32::MAX,
            opcode: "hook",
            size: text.len(),
            text: text.into(),
        };
        let bound = Bound::One { value: answer, wire: Some(Arc::new(wire)) };
        self.holds(step);
        self.judge_has(step, None, &hook.has, &bound);
        Ok(Progress::Done(Some(bound)))
    }

    // ---- values

    fn time(&self, template: Option<&Template>) -> Result<Option<Duration>, Failure> {
        let Some(template) = template else { return Ok(None) };
        match template.eval(&self.names(None))? {
            Value::String(text) => duration(&text).map(Some).map_err(Failure::mistake),
            other => Err(Failure::mistake(format!("`{other}` is not a time with a unit"))),
        }
    }

    fn values(&self, template: &Template) -> Result<Vec<Value>, Failure> {
        match template.eval(&self.names(None))? {
            Value::Array(values) => Ok(values),
            Value::Number(n) if n.as_u64().is_some_and(|n| n <= 100_000) => {
                Ok((0..n.as_u64().unwrap_or(0)).map(Value::from).collect())
            }
            other => Err(Failure::mistake(format!(
                "`in` takes a list or a number up to 100000, not {}",
                crate::matcher::show(&other)
            ))),
        }
    }

    /// The position after which frames count.
    fn after(&self, name: Option<&str>) -> Result<u64, Failure> {
        use crate::scenario::template::Names;
        let Some(name) = name else { return Ok(0) };
        let bound = self.names(None).lookup(name).ok_or_else(|| EvalError::Unbound(name.to_owned()))?;
        bound
            .wires()
            .first()
            .map(|wire| wire.sequence)
            .ok_or_else(|| Failure::mistake(format!("`after: {name}`: that never crossed a wire")))
    }

    fn order(&self, order: &Order) -> Result<Finding, Failure> {
        use crate::scenario::template::Names;
        let slack = self.time(order.slack.as_ref())?;
        let mut last: Option<(String, Vec<Arc<Wire>>)> = None;
        for name in &order.names {
            let Some(bound) = self.names(None).lookup(name) else {
                return Ok(Finding::NotReached(format!("not reached: `{name}` was never bound")));
            };
            let wires = bound.wires();
            if let Bound::Many { ordered: true, .. } = bound {
                for pair in wires.windows(2) {
                    if !before(&pair[0], &pair[1], slack) {
                        return Ok(out_of_order(name, &pair[0], name, &pair[1]));
                    }
                }
            }
            if let Some((earlier, firsts)) = &last {
                for first in firsts {
                    for second in &wires {
                        if first.connection != second.connection && slack.is_none() {
                            return Err(Failure::mistake("an order over several connections needs `slack`"));
                        }
                        if !before(first, second, slack) {
                            return Ok(out_of_order(earlier, first, name, second));
                        }
                    }
                }
            }
            last = Some((name.clone(), wires));
        }
        Ok(Finding::Holds)
    }
}

/// On one connection the order of arrival counts, across connections the time, with slack.
fn before(first: &Wire, second: &Wire, slack: Option<Duration>) -> bool {
    if first.connection == second.connection {
        first.sequence < second.sequence
    } else {
        first.at <= second.at + slack.unwrap_or_default()
    }
}

fn out_of_order(earlier: &str, first: &Wire, later: &str, second: &Wire) -> Finding {
    Finding::Broken {
        expected: format!("`{earlier}` before `{later}`"),
        found: format!(
            "{} at {:?}, {} at {:?}",
            crate::matcher::cut(&first.text, 150),
            first.at,
            crate::matcher::cut(&second.text, 150),
            second.at
        ),
        message: format!("`{earlier}` came after `{later}`"),
    }
}

/// A text over several frames, cut anywhere, even inside a character.
fn fragments(bytes: &[u8], count: usize) -> Vec<Frame> {
    if count <= 1 {
        return vec![Frame::text(bytes)];
    }
    (0..count)
        .map(|i| {
            let piece = &bytes[bytes.len() * i / count..bytes.len() * (i + 1) / count];
            let mut frame = Frame::text(piece);
            frame.fin = i + 1 == count;
            if i > 0 {
                frame.opcode = Opcode::Continuation;
            }
            frame
        })
        .collect()
}

fn unhex(text: &str) -> Result<Vec<u8>, Failure> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bad = || Failure::mistake(format!("`{}` is not a row of bytes in hexadecimal", crate::matcher::cut(text, 60)));
    if digits.len() % 2 != 0 {
        return Err(bad());
    }
    digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(bad))
        .collect()
}

fn raw_frame(value: &Value) -> Result<Frame, Failure> {
    let opcode = match value.get("opcode") {
        Some(Value::String(name)) => match name.as_str() {
            "continuation" => Opcode::Continuation,
            "text" => Opcode::Text,
            "binary" => Opcode::Binary,
            "close" => Opcode::Close,
            "ping" => Opcode::Ping,
            "pong" => Opcode::Pong,
            other => return Err(Failure::mistake(format!("`{other}` is not an opcode"))),
        },
        Some(Value::Number(n)) => Opcode::from_bits(n.as_u64().unwrap_or(0) as u8),
        _ => {
            return Err(Failure::mistake(
                "a frame has an opcode: text, binary, continuation, close, ping, pong or a number",
            ));
        }
    };
    let payload = match (value.get("data"), value.get("hex")) {
        (Some(Value::String(text)), None) => text.clone().into_bytes(),
        (None, Some(Value::String(text))) => unhex(text)?,
        (None, None) => Vec::new(),
        _ => return Err(Failure::mistake("a frame has `data` (text) or `hex`")),
    };
    let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(true);
    let rsv = value.get("rsv").and_then(Value::as_u64).unwrap_or(0) as u8;
    Ok(Frame { fin: flag("fin"), rsv, opcode, masked: flag("mask"), payload })
}
