//! What happens after a step has failed or is skipped: its checks are answered, and the conversation continues, repeats
//! an attempt, or ends.

use std::sync::Arc;
use std::time::Duration;

use super::Conversation;
use super::active_step::{ActiveStep, StepFailure, StepFailureKind};
use super::actor::{ActorState, ConnectionState, InboxFrame, InboxFrameKind};
use super::blocks::{BlockKind, Phase};
use crate::deviation::proposal::MissedExpectation;
use crate::outcome::CheckOutcome;
use crate::protocol::RuleLevel;
use crate::scenario::model::{ActorId, ExpectedEvent, Program, Step, StepAction};
use crate::scenario::value::Provenance;
use crate::scenario::variation::Variation;

/// The pause between two attempts of a `retry`, so that the hub is not flooded with requests.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

impl Conversation {
    /// Handles a failed step: answers its check, then continues, repeats the attempt, or ends the conversation.
    pub(super) fn fail_step(&mut self, program: &Arc<Program>, step: &Step, mut failure: StepFailure) {
        failure.message = self.history.shown(&failure.message, 400);
        failure.unauthenticated = self.is_unauthenticated(program, step);
        if let Some(message) = self.lack_of_answer(program, step, &failure) {
            failure.message = message;
            self.judgement.set_cause(program, step, failure);
            self.blocks.stop();
            return;
        }
        // If the prelude was not played, later steps would be judged without it.
        if self.blocks.is_in_prelude() || matches!(failure.kind, StepFailureKind::Mistake) {
            self.judgement.record_mistake(format!("{}: {}", step.text, failure.message), Some(step.span));
            self.blocks.stop();
            return;
        }
        match &failure.kind {
            StepFailureKind::NotReached => {
                self.skip_unreached_step(program, step, failure.message);
                self.blocks.complete(step, None);
                return;
            }
            StepFailureKind::Assumed { deviation } => {
                self.blocks.miss(&failure.message);
                self.judgement.leave_unbound(Provenance::Assumed { deviation: *deviation });
                let mut checks = Vec::new();
                collect_checks(program, step, &mut checks);
                checks.into_iter().for_each(|check| self.judgement.record_assumed(check, &step.text, *deviation));
                self.blocks.complete(step, None);
                return;
            }
            StepFailureKind::Broken | StepFailureKind::Undecided | StepFailureKind::Mistake => {}
        }
        if self.blocks.phase == Phase::Finally {
            // `finally` has no checks, and continues after a failure.
            self.blocks.complete(step, None);
            return;
        }
        let (undecided, outcome) = self.judgement.outcome_of(&failure);
        let mut accuses = false;
        let mut must = false;
        if let Some(check) = step.check {
            accuses = !undecided;
            must = program.checks[check].rules.iter().any(|rule| rule.level == RuleLevel::Must);
            self.judgement.record_answer(
                check,
                &step.text,
                outcome,
                failure.message.clone(),
                failure.detail.as_deref().cloned(),
            );
        }
        if accuses && !must && !self.blocks.is_trying(self.clock.now) {
            self.blocks.complete(step, None);
            return;
        }
        if self.continues_after_failure(program, step, &failure) {
            self.continue_after_failure(program, step, failure);
        } else {
            self.unwind_failure(program, step, failure);
        }
    }

    /// Whether the conversation continues after a failed step: a wrong alternative happened, or the expected frame did
    /// not come, but the connection is open. A hub may serve a client even if its greeting or confirmation differs from
    /// the document.
    fn continues_after_failure(&self, program: &Program, step: &Step, failure: &StepFailure) -> bool {
        let awaits = match &step.act {
            StepAction::Expect(expect) => {
                matches!(expect.want, ExpectedEvent::Message { .. } | ExpectedEvent::Control { .. })
            }
            StepAction::ExpectOneOf { .. } => true,
            _ => false,
        };
        let may = self.persistent || (step.check.is_none() && self.blocks.is_in_opening());
        let is_open = |id: &ActorId| self.actors[*id].is_open();
        // A hub that never sent anything serves no client, and a flood of frames decides little. Waiting for a hub that
        // falls silent takes at most twice as long as the first wait.
        let in_time = self.judgement.doubt().is_none_or(|doubt| self.clock.now < doubt.until);
        let is_served = |actor: &ActorState| {
            !actor.latest.inbox.has_dropped && actor.latest.inbox.frames.iter().any(|frame| !frame.wire.is_assumed())
        };
        let serves = self.actors.iter().any(is_served);
        let missed = || serves && in_time && self.blocks.members(&step.who).iter().all(is_open);
        awaits && may && !self.blocks.is_attempt(program) && (failure.answered || missed())
    }

    /// Whether the hub refused the credentials of an actor of this step.
    fn is_unauthenticated(&self, program: &Program, step: &Step) -> bool {
        let says_so = |entry: &InboxFrame| match &entry.kind {
            InboxFrameKind::Message { message: Some(index), .. } if !entry.claimed && entry.is_observed() => {
                is_refusal_of_credentials(&program.pack.messages[*index].name)
            }
            _ => false,
        };
        self.blocks.members(&step.who).iter().map(|id| &self.actors[*id]).any(|actor| match &actor.link {
            ConnectionState::Refused { refusal, .. } => matches!(refusal["status"].as_u64(), Some(401 | 403)),
            _ => actor.latest.inbox.frames.iter().any(says_so),
        })
    }

    /// Continues after a failed step. From now on, only received frames prove something.
    fn continue_after_failure(&mut self, program: &Arc<Program>, step: &Step, failure: StepFailure) {
        let message = format!("{}: {}", step.text, failure.message);
        let (_, outcome) = self.judgement.outcome_of(&failure);
        for inner in (1..self.blocks.stack.len()).rev() {
            let outer = &self.blocks.stack[inner - 1];
            let holder = &program.blocks[outer.block][outer.position];
            if let Some(check) = holder.check.filter(|_| self.blocks.stack[inner].fails_step()) {
                let detail = failure.detail.as_deref().cloned();
                self.judgement.record_answer(check, &holder.text, outcome.clone(), message.clone(), detail);
            }
        }
        for frame in &mut self.blocks.stack {
            frame.missed.get_or_insert_with(|| message.clone());
        }
        let wait = failure.shortened.unwrap_or_else(|| self.clock.stretched(self.clock.patience));
        self.judgement.set_doubt(&message, self.clock.now, wait);
        let missed = self.missed_expectation(program, step);
        self.set_cause(step, failure, missed);
        self.blocks.complete(step, None);
    }

    fn set_cause(&mut self, step: &Step, failure: StepFailure, missed: Option<MissedExpectation>) {
        // The hub may have refused a request that came together with another.
        if self.variation.as_ref().is_some_and(Variation::is_pipelined) {
            return;
        }
        let missed = missed.filter(|_| self.is_evidence(step, &failure));
        if self.judgement.set_cause(&self.program, step, failure) {
            self.deviations.missed = missed;
        }
    }

    fn unwind_failure(&mut self, program: &Arc<Program>, step: &Step, mut failure: StepFailure) {
        self.blocks.active = None;
        // Look before unwinding: only the stack knows the actor of the step.
        let missed = self.missed_expectation(program, step);
        while let Some(mut frame) = self.blocks.stack.pop() {
            match &mut frame.kind {
                BlockKind::Retry { since, until, before } if self.may_retry(step, *since, *until, &mut failure) => {
                    self.judgement.restore(before);
                    let pause = (self.clock.now + RETRY_PAUSE).min(*until);
                    frame.position = 0;
                    frame.missed = None;
                    frame.names.clear();
                    self.blocks.push(frame);
                    self.blocks.active = Some(ActiveStep::pause(pause));
                    return;
                }
                BlockKind::Either { name, values, try_, before } if *try_ + 1 < values.len() => {
                    *try_ += 1;
                    self.judgement.restore(before);
                    let (name, value) = (name.clone(), values[*try_].clone());
                    frame.position = 0;
                    frame.missed = None;
                    frame.names = [(name, value)].into();
                    self.blocks.push(frame);
                    return;
                }
                BlockKind::Each(each) => {
                    for id in &each.fresh {
                        self.disconnect(*id);
                    }
                }
                BlockKind::Body => self.blocks.lets.append(&mut frame.names),
                _ => {}
            }
            // The step around the block may have rules itself, perhaps only rules that cannot fail.
            let Some(holder) = self.blocks.step(program) else { break };
            if let Some(check) = holder.check
                && frame.fails_step()
            {
                let (undecided, outcome) = self.judgement.outcome_of(&failure);
                let message = format!("{}: {}", step.text, failure.message);
                self.judgement.record_answer(check, &holder.text, outcome, message, failure.detail.as_deref().cloned());
                let must = program.checks[check].rules.iter().any(|rule| rule.level == RuleLevel::Must);
                if !must && !undecided && !self.blocks.is_trying(self.clock.now) {
                    self.blocks.complete(holder, None);
                    return;
                }
            }
        }
        self.set_cause(step, failure, missed);
    }

    /// Answers the check of a skipped step and the checks of its details.
    fn answer_checks(&mut self, program: &Program, step: &Step, outcome: &CheckOutcome) {
        let mut checks = Vec::new();
        collect_checks(program, step, &mut checks);
        for check in checks {
            self.judgement.record_answer(check, &step.text, outcome.clone(), "", None);
        }
    }

    /// Skips a step because of its `if`.
    pub(super) fn skip_step(&mut self, program: &Program, step: &Step, why: String) {
        self.answer_checks(program, step, &CheckOutcome::NotReached(why));
    }

    /// Skips a step that uses a name that was never bound. The check of the step around its block is then undecided.
    pub(super) fn skip_unreached_step(&mut self, program: &Program, step: &Step, why: String) {
        self.blocks.miss(&why);
        if step.act.tells_hub() {
            self.judgement.rest_on_unbound();
        }
        let outcome = self.judgement.doubt_outcome().unwrap_or(CheckOutcome::NotReached(why));
        self.answer_checks(program, step, &outcome);
    }
}

/// Whether a message with this name probably refuses a client's credentials, such as `error_authentication`.
fn is_refusal_of_credentials(message: &str) -> bool {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    has(&["unauthori", "forbidden"])
        || has(&["auth", "credential", "token", "login"])
            && has(&["error", "fail", "required", "denied", "refused", "reject", "invalid", "expired"])
}

/// Collects the checks of a step, of its details, and of the blocks in it.
fn collect_checks(program: &Program, step: &Step, checks: &mut Vec<usize>) {
    checks.extend(step.check);
    let bodies = match &step.act {
        StepAction::Each { bodies, .. } => bodies.as_slice(),
        StepAction::Either { body, .. } | StepAction::Retry { body, .. } => std::slice::from_ref(body),
        act => {
            let has = match act {
                StepAction::Expect(expect) => expect.has.as_slice(),
                StepAction::ExpectEnd { has, .. } => has,
                StepAction::Hook(hook) => &hook.has,
                _ => &[],
            };
            return checks.extend(has.iter().map(|has| has.check));
        }
    };
    bodies.iter().flat_map(|body| &program.blocks[*body]).for_each(|step| collect_checks(program, step, checks));
}
