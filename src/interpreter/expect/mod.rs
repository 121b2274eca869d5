//! The steps that expect something: frames, silence, the end of a connection, or one of several alternatives.

mod alternatives;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Conversation;
use super::active_step::{ActiveStep, AwaitedFrames, AwaitingActor, StepFailure, WaitCondition};
use super::actor::{ConnectionEnd, ConnectionState};
use super::blocks::StepProgress;
use super::checks::{compare, eval_failure};
use super::clock::only_may;
use super::deviation::DeclaredAbsence;
use super::finding::ComparisonOutcome;
use super::matching::{ExpectedFrame, compile_pattern};
use super::missed::demanded_message;
use super::promptness::is_plain_answer;
use super::steps::{StepResult, group_values};
use crate::deviation::proposal::MAX_BYTES;
use crate::outcome::CheckOutcome;
use crate::protocol::FrameDirection;
use crate::scenario::model::{
    ActorId, CompiledPattern, Expectation, ExpectedAlternative, ExpectedCodes, ExpectedEvent, GroupQuantity, HasCheck,
    MatchPattern, MessageName, Program, Step, StepAction, StepActors,
};
use crate::scenario::template::{EvalContext, Template};
use crate::scenario::value::{BoundValue, EvalError, Provenance, Traced, Wire};

/// Returns the failure of a step whose expectation cannot be evaluated from one of these templates.
fn expectation_failure<'t>(
    error: EvalError,
    from: impl IntoIterator<Item = &'t Template>,
    names: &dyn EvalContext,
) -> StepFailure {
    let blame = from.into_iter().find(|template| super::checks::uses_hub_values(template, names));
    blame.map_or_else(|| error.clone().into(), |template| eval_failure(error.clone(), template, names))
}

/// The share of the patience that a frame gets after a failure, when it may well never come.
const DOUBTED_PATIENCE: f64 = 0.2;

impl Conversation {
    /// Returns how long to wait for an expected frame if the step states no time.
    pub(in crate::interpreter) fn default_wait(&self) -> Duration {
        let patience = self.clock.stretched(self.clock.patience);
        self.judgement.doubt().map_or(patience, |doubt| doubt.wait.min(patience.mul_f64(DOUBTED_PATIENCE)))
    }

    pub(in crate::interpreter) fn begin_expect(
        &mut self,
        step: &Step,
        expect: &Expectation,
        members: Vec<ActorId>,
    ) -> StepResult {
        let program = Arc::clone(&self.program);
        let after = self.position_after(expect.after.as_deref())?;
        let for_ = self.evaluate_time(expect.for_.as_ref())?;
        let within = match self.evaluate_time(expect.within.as_ref())? {
            Some(time) => Some(time),
            // A step with only may rules waits only briefly.
            None => only_may(&program, step).then_some(self.clock.quiet),
        };
        let wait = within.map_or_else(|| self.default_wait(), |time| self.clock.stretched(time));
        let time = for_.unwrap_or(wait);
        let end = self.clock.now + time;
        let mut deadline = Some(end);
        let quantity = match &step.who {
            StepActors::Group { quantity, .. } => *quantity,
            _ => None,
        };
        let waiting = match &expect.want {
            ExpectedEvent::Message { .. } | ExpectedEvent::Control { .. } => {
                let mut awaiting = Vec::new();
                for id in members {
                    let awaited = self.expected_frame(&program, id, &expect.want, after)?;
                    let awaited = if for_.is_some() { awaited.until(end) } else { awaited };
                    awaiting.push(AwaitingActor { id, awaited, claims: Vec::new() });
                }
                let never =
                    |member: &AwaitingActor| self.deviations.never_sent(&program.pack, &member.awaited).is_some();
                if for_.is_none() && awaiting.iter().all(never) {
                    deadline = Some(end.min(self.clock.now + self.clock.quiet));
                }
                WaitCondition::Frames(Box::new(AwaitedFrames {
                    members: awaiting,
                    count: expect.count,
                    quantity,
                    collecting: for_.is_some(),
                    late: false,
                }))
            }
            ExpectedEvent::Close(codes) => WaitCondition::End { members, codes: codes.clone(), refusal: false },
            ExpectedEvent::Refusal(codes) => WaitCondition::End { members, codes: codes.clone(), refusal: true },
        };
        self.poll_step(step, ActiveStep { since: self.clock.now, deadline, full: None, waiting })
    }

    pub(in crate::interpreter) fn expected_frame(
        &self,
        program: &Program,
        id: ActorId,
        want: &ExpectedEvent,
        after: u64,
    ) -> Result<ExpectedFrame, StepFailure> {
        match want {
            ExpectedEvent::Control { pong, pattern } => {
                let names = self.eval_context(Some(id));
                ExpectedFrame::control(*pong, pattern.as_ref(), after, &names)
                    .map(|awaited| awaited.for_actor(&self.actors[id]))
                    .map_err(|error| {
                        expectation_failure(error, pattern.as_ref().map(|pattern| &pattern.template), &names)
                    })
            }
            ExpectedEvent::Message { message, pattern } => {
                self.expected_message(program, id, message, pattern.as_ref(), after)
            }
            ExpectedEvent::Close(_) | ExpectedEvent::Refusal(_) => {
                self.expected_message(program, id, &MessageName::Any, None, u64::MAX)
            }
        }
    }

    pub(in crate::interpreter) fn expected_message(
        &self,
        program: &Program,
        id: ActorId,
        message: &MessageName,
        pattern: Option<&MatchPattern>,
        after: u64,
    ) -> Result<ExpectedFrame, StepFailure> {
        let names = self.eval_context(Some(id));
        let awaited = ExpectedFrame::message(&program.pack, message, pattern, after, &names).map_err(|error| {
            let name = match message {
                MessageName::Computed(template) => Some(template),
                MessageName::Any | MessageName::Named(_) => None,
            };
            expectation_failure(error, name.into_iter().chain(pattern.map(|pattern| &pattern.template)), &names)
        });
        awaited.map(|awaited| awaited.for_actor(&self.actors[id]))
    }

    pub(in crate::interpreter) fn poll_frames(
        &mut self,
        step: &Step,
        mut active: ActiveStep,
        over: bool,
    ) -> StepResult {
        let WaitCondition::Frames(frames) = &mut active.waiting else { return Ok(StepProgress::Waiting(active)) };
        let most = match frames.count {
            Some(count) => count.max.unwrap_or(usize::MAX),
            None => 1,
        };
        // While collecting, also claim one frame more than allowed, to detect too many.
        let most = if frames.collecting { most.saturating_add(1) } else { most };
        for member in &mut frames.members {
            while member.claims.len() < most {
                let Some(bound) = self.claim_frame(member.id, &mut member.awaited) else { break };
                member.claims.push(bound);
            }
        }
        if let Some((quantity, number)) = frames.quantity {
            return self.poll_quantity(step, active, over, (quantity, number));
        }
        let least = frames.least();
        let everyone = frames.members.iter().all(|member| member.claims.len() >= least);
        if everyone && (over || !frames.collecting) {
            return self.end_frames(step, active, most);
        }
        // Some member may still lack frames. If its connection has ended, it can no longer receive any.
        for place in 0..frames.members.len() {
            let member = &frames.members[place];
            let ended = match &self.actors[member.id].link {
                ConnectionState::Ended(end) => Some(end.describe()),
                ConnectionState::Idle | ConnectionState::Refused { .. } | ConnectionState::Unreachable { .. } => {
                    Some("no connection".to_owned())
                }
                ConnectionState::Open { .. } | ConnectionState::Connecting => None,
            };
            if member.claims.len() < least && (over || ended.is_some()) {
                return self.end_without_frames(step, frames, place, active.since, ended);
            }
        }
        Ok(StepProgress::Waiting(active))
    }

    /// Polls a step that expects frames from a number of the members.
    fn poll_quantity(
        &mut self,
        step: &Step,
        mut active: ActiveStep,
        over: bool,
        (quantity, number): (GroupQuantity, usize),
    ) -> StepResult {
        let WaitCondition::Frames(frames) = &mut active.waiting else { return Ok(StepProgress::Waiting(active)) };
        let least = frames.least();
        let got = frames.members.iter().filter(|member| member.claims.len() >= least).count();
        // `for` limits how long to look for too many frames. Frames still missing then may come until the target's
        // patience ends.
        let missing = got < number && quantity != GroupQuantity::AtMost;
        if !over && (missing || !frames.late) {
            return Ok(StepProgress::Waiting(active));
        }
        // Only a full wait shows that no further actor receives the message.
        if let (false, Some(full)) = (missing, active.full.take()) {
            active.deadline = Some(full);
            return self.poll_step(step, active);
        }
        if missing && frames.collecting && !frames.late {
            frames.late = true;
            frames.members.iter_mut().for_each(|member| member.awaited.without_end());
            active.deadline = Some(self.clock.now.max(active.since + self.clock.stretched(self.clock.patience)));
            return self.poll_step(step, active);
        }
        let lacks = |member: &&AwaitingActor| member.claims.len() < least;
        let pack = &self.program.pack;
        let mut blind = frames.members.iter().filter(lacks);
        if let Some(why) = blind.find_map(|member| member.awaited.undecidable_reason(&self.actors[member.id], pack)) {
            return Err(StepFailure::undecided(why, None));
        }
        let never = |member: &AwaitingActor| Some((member.id, self.deviations.never_sent(pack, &member.awaited)?));
        let never = frames.members.iter().filter(lacks).filter(|_| missing).find_map(never);
        if let Some((id, index)) = never {
            return self.end_declared_absence(step, id, DeclaredAbsence::NeverSent(index));
        }
        let (right, bound) = match quantity {
            GroupQuantity::Exactly => (got == number, "exactly"),
            GroupQuantity::AtLeast => (got >= number, "at least"),
            GroupQuantity::AtMost => (got <= number, "at most"),
        };
        if !right {
            let waited = Some(self.clock.since(active.since));
            let name = frames.members.first().map_or_else(String::new, |m| m.awaited.name(pack));
            let expected = format!("{bound} {number} actors receive it");
            let detail = self.finding_detail(None, expected, format!("{got} actors received it"), waited);
            let message = format!("{name} received by {got} actors, expected {bound} {number}");
            let absent =
                |member: &AwaitingActor| self.provenance_of_absence(member.id, std::iter::once(&member.awaited));
            let absent = frames.members.iter().map(absent).fold(Provenance::Observed, Provenance::join);
            return Err(StepFailure::broken(message, detail).of(frames.provenance().join(absent)));
        }
        let absent = |member: &AwaitingActor| self.deviations.absence_of(pack, &member.awaited);
        let never_enough =
            frames.members.iter().filter(lacks).filter(|_| quantity == GroupQuantity::AtMost).find_map(absent);
        let matched_by = frames.matched_by();
        let items = frames.members.iter().filter_map(|member| member.claims.first().cloned()).collect();
        let claimed: Vec<_> = frames.members.drain(..).map(|member| (member.id, member.claims)).collect();
        let claims = claimed.iter().flat_map(|(_, claims)| claims);
        match never_enough {
            Some(index) => self.record_absence(step, index),
            None => self.record_held_by_claims(step, CheckOutcome::Holds, claims, true, matched_by),
        }
        self.judge_claims(step, &claimed);
        Ok(StepProgress::Done(Some(BoundValue::Many { items, ordered: false })))
    }

    /// Ends a step whose members all received as many frames as they must, unless one received `most`, which is one
    /// more than the step allows.
    fn end_frames(&mut self, step: &Step, mut active: ActiveStep, most: usize) -> StepResult {
        let WaitCondition::Frames(frames) = &mut active.waiting else { return Ok(StepProgress::Waiting(active)) };
        // The step allows the message to be missing, but the steps that use the list may not.
        let unsent = frames.members.iter().find(|member| member.claims.is_empty());
        if let Some(declared) = unsent.and_then(|member| self.declared_absence(member.id, &member.awaited)) {
            self.blocks.miss(&declared.describe());
            return Ok(StepProgress::Done(None));
        }
        let allowed = frames.count.and_then(|count| count.max).filter(|_| frames.collecting);
        if let Some(max) = allowed
            && let Some(over) = frames.members.iter().find(|member| member.claims.len() > max)
        {
            let waited = Some(self.clock.since(active.since));
            let name = over.awaited.name(&self.program.pack);
            let expected = format!("at most {max}");
            let first = frames.members.first().map(|member| member.id);
            let detail = self.finding_detail(first, expected.clone(), format!("{most} or more"), waited);
            let message = format!("too many {name} received, expected {expected}");
            return Err(StepFailure::broken(message, detail).of(frames.provenance()));
        }
        let (counted, matched_by) = (frames.count.is_some(), frames.matched_by());
        let results: Vec<(ActorId, Vec<BoundValue>)> =
            frames.members.drain(..).map(|member| (member.id, member.claims)).collect();
        if !frames.collecting {
            self.clock.add_wait(&self.program, step, &active);
        }
        self.complete_expectation(step, results, counted, matched_by)
    }

    /// Ends a step that one of its members, at this place, leaves unfulfilled; `ended` is how its connection ended.
    fn end_without_frames(
        &mut self,
        step: &Step,
        frames: &AwaitedFrames,
        place: usize,
        since: Duration,
        ended: Option<String>,
    ) -> StepResult {
        let AwaitingActor { id, awaited, claims } = &frames.members[place];
        let id = *id;
        if let Some(declared) = self.declared_absence(id, awaited) {
            return self.end_declared_absence(step, id, declared);
        }
        let waited = Some(self.clock.since(since));
        let received = self.received_instead(id, awaited);
        let detail = self.finding_detail(Some(id), self.describe_expectation(step), received, waited);
        if let Some(why) = awaited.undecidable_reason(&self.actors[id], &self.program.pack) {
            return Err(StepFailure::undecided(why, Some(detail)));
        }
        let known = self.actors[id].latest.end_noticed
            || matches!(
                self.actors[id].link,
                ConnectionState::Idle | ConnectionState::Refused { .. } | ConnectionState::Unreachable { .. }
            );
        let name = awaited.name(&self.program.pack);
        // The message does not name the actor, so that reports can group equal failures; the detail does.
        let missing = format!("no {name} received");
        Err(match ended {
            // Another check has already blamed the hub for this end, or a step expected it.
            Some(how) if known => StepFailure::undecided(format!("{missing}: {how}"), Some(detail)),
            Some(how) => {
                self.actors[id].latest.end_noticed = true;
                StepFailure::broken(format!("{missing}: {how}"), detail)
            }
            None if !claims.is_empty() => {
                let message = format!("{} {name} received, expected at least {}", claims.len(), frames.least());
                StepFailure::broken(message, detail).of(frames.provenance())
            }
            None => StepFailure::broken(missing, detail),
        }
        .of(self.provenance_of_absence(id, std::iter::once(awaited))))
    }

    /// Returns whether one of the frames that an actor did not receive is only assumed.
    fn provenance_of_absence<'w>(&self, id: ActorId, awaited: impl Iterator<Item = &'w ExpectedFrame>) -> Provenance {
        let Program { pack, shared, .. } = &*self.program;
        let absent = |awaited: &ExpectedFrame| awaited.provenance_of_absence(&self.actors[id], pack, &shared.ignore);
        awaited.map(absent).fold(Provenance::Observed, Provenance::join)
    }

    /// Checks the details of all claimed frames.
    fn judge_claims(&mut self, step: &Step, results: &[(ActorId, Vec<BoundValue>)]) {
        let has = match &step.act {
            StepAction::Expect(expect) => &expect.has,
            StepAction::ExpectEnd { has, .. } => has,
            _ => return,
        };
        for (id, claims) in results {
            for claim in claims {
                self.judge_has(step, Some(*id), has, claim);
            }
        }
    }

    /// Completes a step that received everything it expects, and checks the details.
    pub(in crate::interpreter) fn complete_expectation(
        &mut self,
        step: &Step,
        results: Vec<(ActorId, Vec<BoundValue>)>,
        counted: bool,
        matched_by: Provenance,
    ) -> StepResult {
        let claims = results.iter().flat_map(|(_, claims)| claims);
        self.record_held_by_claims(step, CheckOutcome::Holds, claims, counted, matched_by);
        let mut items = Vec::new();
        self.judge_claims(step, &results);
        for (_, claims) in results {
            items.push(if counted {
                BoundValue::Many { items: claims, ordered: true }
            } else {
                claims.into_iter().next().unwrap_or(BoundValue::from_value(Value::Null))
            });
        }
        Ok(StepProgress::Done(Some(group_values(step, items))))
    }

    pub(in crate::interpreter) fn judge_has(
        &mut self,
        step: &Step,
        actor: Option<ActorId>,
        has: &[HasCheck],
        bound: &BoundValue,
    ) {
        let (value, text) = match bound {
            BoundValue::One { value, wire } => {
                (value.clone(), wire.as_ref().map_or_else(|| value.to_string(), |wire| wire.text.to_string()))
            }
            other => (other.to_json(), other.to_json().to_string()),
        };
        let raw = match bound {
            BoundValue::One { wire: Some(wire), .. } => wire.raw.clone(),
            _ => None,
        };
        let provenance = bound.provenance();
        for has in has {
            let compared =
                |c: &Self, value: &Value| compare(&has.pattern, Traced { value, provenance }, &c.eval_context(actor));
            let finding = compared(self, &value);
            if let BoundValue::One { wire: Some(wire), .. } = bound
                && let Some((of_hub, entry)) =
                    self.finding_of_hub(wire, &value, &finding, |value| compared(self, value))
            {
                match of_hub {
                    ComparisonOutcome::Broken { .. } => {
                        self.record_raw_deviation(has.check, &step.text, actor, &text, of_hub, entry);
                    }
                    holds => self.record_outcome(has.check, &step.text, actor, &text, holds),
                }
                continue;
            }
            // A pattern of constants is also compared with the message as the hub sent it.
            if let (ComparisonOutcome::Holds, Some(raw), Some(_)) = (&finding, &raw, &has.pattern.ready) {
                let breaks = |json: &Value| matches!(compared(self, json), ComparisonOutcome::Broken { .. });
                let (of_hub, entry) = (compared(self, &raw.json), self.responsible_deviation(raw, breaks));
                self.record_raw_deviation(has.check, &step.text, actor, &text, of_hub, entry);
            }
            if matches!(finding, ComparisonOutcome::Broken { .. }) && text.len() < MAX_BYTES {
                self.record_unfit(has, bound, &value, actor);
            }
            self.record_outcome(has.check, &step.text, actor, &text, finding);
        }
    }

    /// Records a member of a message that does not fit a check: the hub may use another name or type for it.
    fn record_unfit(&mut self, has: &HasCheck, bound: &BoundValue, json: &Value, actor: Option<ActorId>) {
        let Ok(Traced { value: CompiledPattern::Matcher(matcher), provenance: Provenance::Observed }) =
            compile_pattern(&has.pattern, &self.eval_context(actor))
        else {
            return;
        };
        let Some(place) = matcher.difference(json).map(|one| one.path) else { return };
        let program = Arc::clone(&self.program);
        let rules = || program.checks[has.check].rules.iter().map(|used| used.id.clone());
        let first = actor.and_then(|id| self.actors[id].latest.first_message);
        if first.is_some() && bound.wires().iter().any(|wire| Some(wire.sequence) == first) {
            let demanded = demanded_message(&program.pack, &matcher, json);
            demanded.into_iter().for_each(|message| self.deviations.evidence.add_ungreeted(message, rules()));
        }
        let recognised = program.pack.recognise(json, FrameDirection::FromHub);
        let index = recognised.and_then(|message| program.pack.message_index(&message.name));
        let Some(message) = index else { return };
        self.deviations.evidence.add_unfit(place, message, json, rules());
    }

    pub(in crate::interpreter) fn claim_frame(
        &mut self,
        id: ActorId,
        awaited: &mut ExpectedFrame,
    ) -> Option<BoundValue> {
        let program = Arc::clone(&self.program);
        let found = awaited.find(&self.actors[id].latest.inbox.frames, &program.pack, &program.shared.ignore);
        let (index, value) = found?;
        if awaited.is_any() {
            // The assumed message might have come first.
            self.judgement.rest_on(self.deviations.provenance_of_next(self.actors[id].connection));
        }
        let entry = &mut self.actors[id].latest.inbox.frames[index];
        entry.claimed = true;
        let wire = Arc::clone(&entry.wire);
        if !wire.is_assumed() {
            self.add_arrival(id, awaited);
        }
        Some(BoundValue::One { value, wire: Some(wire) })
    }

    pub(in crate::interpreter) fn poll_end(
        &mut self,
        step: &Step,
        active: ActiveStep,
        members: Vec<ActorId>,
        codes: ExpectedCodes,
        refusal: bool,
        over: bool,
    ) -> StepResult {
        let waited = Some(self.clock.since(active.since));
        let mut items = Vec::new();
        for id in &members {
            let expected = self.describe_expectation(step);
            let ended = match self.answer_to_close(*id, &codes, refusal, &expected, waited) {
                Some(answered) => match answered? {
                    None if over => {
                        let detail = self.finding_detail(Some(*id), expected, "nothing".to_owned(), waited);
                        return Err(StepFailure::broken("no answer to the close frame in time", detail));
                    }
                    bound => bound,
                },
                None => {
                    self.require_known_code(*id, step, &codes, &expected, waited)?;
                    self.judge_end(*id, &codes, refusal, over, expected, waited)?
                }
            };
            let Some(bound) = ended else {
                let waiting = WaitCondition::End { members, codes, refusal };
                return Ok(StepProgress::Waiting(ActiveStep { waiting, ..active }));
            };
            items.push((*id, bound));
        }
        self.clock.add_wait(&self.program, step, &active);
        if is_plain_answer(step) {
            self.waits.add_delay(self.clock.since(active.since));
        }
        let results = items.into_iter().map(|(id, bound)| (id, vec![bound])).collect();
        self.complete_expectation(step, results, false, Provenance::Observed)
    }

    /// Returns an error if a step needs the code of a close frame that could not be read.
    fn require_known_code(
        &mut self,
        id: ActorId,
        step: &Step,
        codes: &ExpectedCodes,
        expected: &str,
        waited: Option<Duration>,
    ) -> Result<(), StepFailure> {
        let ConnectionState::Ended(end) = &self.actors[id].link else { return Ok(()) };
        let compares = matches!(&step.act, StepAction::Expect(expect) if !expect.has.is_empty());
        if end.by_us || !end.is_unread_close() || (!compares && codes.accepts(end)) {
            return Ok(());
        }
        let how = end.describe();
        self.actors[id].latest.end_noticed = true;
        let detail = self.finding_detail(Some(id), expected.to_owned(), how.clone(), waited);
        Err(StepFailure::undecided(format!("the close code is unknown: {how}"), Some(detail)))
    }

    /// Returns the end of an actor's connection, or its refusal; `None` if the step has to wait for it.
    fn judge_end(
        &mut self,
        id: ActorId,
        codes: &ExpectedCodes,
        refusal: bool,
        over: bool,
        expected: String,
        waited: Option<Duration>,
    ) -> Result<Option<BoundValue>, StepFailure> {
        let detail =
            |conversation: &Self, found: String| conversation.finding_detail(Some(id), expected.clone(), found, waited);
        match &self.actors[id].link {
            ConnectionState::Refused { refusal: answer, text, .. } if refusal => {
                let status = answer.get("status").and_then(Value::as_u64).unwrap_or(0) as u16;
                if !codes.any && !codes.codes.contains(&status) {
                    return Err(StepFailure::broken(format!("unexpected refusal: {text}"), detail(self, text.clone())));
                }
                Ok(Some(BoundValue::from_value(answer.clone())))
            }
            ConnectionState::Open { .. } if refusal => {
                let detail = detail(self, "the upgrade was accepted".to_owned());
                Err(StepFailure::broken("the upgrade was not refused", detail))
            }
            ConnectionState::Ended(end) if !refusal && !end.by_us => {
                let (end, how) = (end.clone(), end.describe());
                self.actors[id].latest.end_noticed = true;
                if !codes.accepts(&end) {
                    return Err(StepFailure::broken(format!("unexpected close: {how}"), detail(self, how)));
                }
                if let ConnectionState::Ended(end) = &mut self.actors[id].link {
                    end.claimed = true;
                }
                let wire = self.end_wire(id, &end);
                Ok(Some(BoundValue::One { value: end.to_json(), wire: Some(wire) }))
            }
            // hubproof ended the connection at a limit of its own, so it is unknown what the hub would have done.
            ConnectionState::Ended(end) if end.by_us && !end.claimed => {
                let how = end.describe();
                let why = format!("it is unknown how the hub would have closed: {how}");
                Err(StepFailure::undecided(why, Some(detail(self, how))))
            }
            ConnectionState::Idle => {
                let detail = self.finding_detail(Some(id), expected, "no connection".to_owned(), None);
                Err(StepFailure::undecided("the actor is not connected", Some(detail)))
            }
            ConnectionState::Unreachable { reason } => {
                Err(StepFailure::unreachable(reason, detail(self, reason.clone())))
            }
            ConnectionState::Open { .. } | ConnectionState::Connecting if !over => Ok(None),
            _ => {
                let names = self.eval_context(Some(id));
                let any = ExpectedFrame::message(&self.program.pack, &MessageName::Any, None, 0, &names)?;
                let what = if refusal { "the upgrade was not refused" } else { "the connection was not closed" };
                Err(StepFailure::broken(what, detail(self, self.received_instead(id, &any))))
            }
        }
    }

    pub(in crate::interpreter) fn end_wire(&self, id: ActorId, end: &ConnectionEnd) -> Arc<Wire> {
        let unix_ms = self.clock.unix_ms(end.at);
        let connection = self.actors[id].connection.unwrap_or_default();
        Arc::new(Wire {
            sequence: end.sequence,
            at: end.at,
            unix_ms,
            after: end.after,
            connection,
            from_hub: true,
            opcode: "close",
            text: end.reason.as_str().into(),
            size: 0,
            provenance: Provenance::Observed,
            due_after: None,
            raw: None,
            assumed_places: Vec::new(),
        })
    }

    pub(in crate::interpreter) fn poll_silence(
        &mut self,
        step: &Step,
        mut active: ActiveStep,
        over: bool,
    ) -> StepResult {
        let program = Arc::clone(&self.program);
        let WaitCondition::Silence { members } = &mut active.waiting else { return Ok(StepProgress::Waiting(active)) };
        for (id, awaited) in members.iter_mut() {
            let inbox = &self.actors[*id].latest.inbox.frames;
            if let Some((place, _)) = awaited.find(inbox, &program.pack, &program.shared.ignore) {
                let entry = &inbox[place];
                let text = self.history.shown(&entry.wire.text, 400);
                let waited = Some(self.clock.since(active.since));
                let detail = self.finding_detail(Some(*id), self.describe_expectation(step), text, waited);
                let name = entry.name(&program.pack);
                let frame = if matches!(name, "undocumented" | "undecodable") { " frame" } else { "" };
                let who = &program.actors[*id].name;
                let failure = StepFailure::broken(format!("unexpected {name}{frame} received by {who}"), detail);
                return Err(failure.of(awaited.matched_by()));
            }
            let ended = match &self.actors[*id].link {
                ConnectionState::Ended(end) if !end.claimed && active.deadline.is_none_or(|over| end.at <= over) => {
                    Some(end.describe())
                }
                ConnectionState::Idle | ConnectionState::Unreachable { .. } => {
                    let detail = self.finding_detail(Some(*id), "a connection".to_owned(), "none".to_owned(), None);
                    return Err(StepFailure::undecided(
                        "silence proves nothing: the actor is not connected",
                        Some(detail),
                    ));
                }
                _ => None,
            };
            if let Some(how) = ended {
                let known = std::mem::replace(&mut self.actors[*id].latest.end_noticed, true);
                let detail = self.finding_detail(Some(*id), "the connection stays open".to_owned(), how.clone(), None);
                return Err(if known {
                    StepFailure::undecided(format!("silence proves nothing: {how}"), Some(detail))
                } else {
                    StepFailure::broken(how, detail)
                });
            }
        }
        if over {
            for (id, awaited) in members.iter() {
                if let Some(why) = awaited.undecidable_reason(&self.actors[*id], &self.program.pack) {
                    let detail = self.finding_detail(
                        Some(*id),
                        self.describe_expectation(step),
                        self.received_instead(*id, awaited),
                        None,
                    );
                    return Err(StepFailure::undecided(why, Some(detail)));
                }
            }
            self.record_held_silence(step, members);
            return Ok(StepProgress::Done(None));
        }
        Ok(StepProgress::Waiting(active))
    }

    pub(in crate::interpreter) fn expected_alternatives(
        &self,
        program: &Program,
        id: ActorId,
        alternatives: &[ExpectedAlternative],
        after: u64,
    ) -> Result<Vec<Option<ExpectedFrame>>, StepFailure> {
        alternatives
            .iter()
            .map(|alternative| match &alternative.want {
                Some(want @ (ExpectedEvent::Message { .. } | ExpectedEvent::Control { .. })) => {
                    self.expected_frame(program, id, want, after).map(Some)
                }
                _ => Ok(None),
            })
            .collect()
    }

    /// Describes what a step expects, by its head and its `where`.
    pub(in crate::interpreter) fn describe_expectation(&self, step: &Step) -> String {
        let pattern = match &step.act {
            StepAction::Expect(expect) => match &expect.want {
                ExpectedEvent::Message { pattern, .. } | ExpectedEvent::Control { pattern, .. } => pattern.as_ref(),
                _ => None,
            },
            StepAction::ExpectNothing(nothing) => nothing.pattern.as_ref(),
            StepAction::ExpectOneOf { alternatives, .. } => {
                let right = alternatives.iter().filter(|alternative| alternative.fail.is_none());
                let list: Vec<&str> = right.map(|alternative| alternative.text.as_str()).collect();
                return format!("one of: {}", list.join(", "));
            }
            _ => None,
        };
        let place = pattern.and_then(|pattern| pattern.template.eval(&self.eval_context(None)).ok());
        match place {
            Some(place) => format!("{} where {}", step.text, self.history.shown(&place.to_string(), 300)),
            None => step.text.clone(),
        }
    }
}
