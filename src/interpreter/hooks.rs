//! Calls hooks and checks their answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::active_step::{ActiveStep, StepFailure, WaitCondition};
use super::blocks::StepProgress;
use super::checks::{compare, evaluate_for_step};
use super::finding::ComparisonOutcome;
use super::send::ComposedMessage;
use super::steps::StepResult;
use super::{Conversation, ConversationOutput};
use crate::scenario::model::{HookStep, Step, StepAction};
use crate::scenario::value::{BoundValue, Provenance, Traced, Wire};

/// The pause before a hook is called again because its answer did not match.
pub(super) const HOOK_PAUSE: Duration = Duration::from_millis(100);

/// The calls of hooks and their answers.
#[derive(Default)]
pub(super) struct HookCalls {
    latest: u32,
    pub answers: BTreeMap<u32, Result<Value, String>>,
    /// Position of the latest call among all events of the conversation.
    pub called: u64,
    /// When to stop waiting for a matching answer of the current hook.
    pub end: Duration,
    /// When to stop if the wait was not shortened.
    pub full: Option<Duration>,
}

/// Returns the name of a wait for an answer of a hook that matches.
fn hook_wait(hook: &str) -> String {
    format!("the expected answer of the hook {hook}")
}

impl Conversation {
    /// Returns the shortened end of a hook's wait, if it is probably in vain.
    fn shortened_hook(&self, hook: &str, end: Duration) -> Option<Duration> {
        let short = self.clock.now + self.least_wait().max(self.waits.ample_wait());
        // A wait that is already short stays as it is.
        let is_repeated = self.hooks.full.is_some();
        (self.waits.is_in_vain_here(&hook_wait(hook)) && (short < end || is_repeated)).then(|| short.min(end))
    }

    /// Records that a hook never gave an answer that matches.
    fn record_hook_run_out(&mut self, step: &Step, hook: &str, failure: &mut StepFailure) {
        let name = hook_wait(hook);
        match self.hooks.full.take() {
            Some(full) => {
                let left = full.saturating_sub(self.clock.now);
                let is_known = self.only_warns_again(step);
                self.waits.add_shortened([name].into(), Duration::ZERO, left, failure, is_known);
            }
            None => self.add_missed(None, &name),
        }
    }

    fn add_hook_arrival(&mut self, hook: &str) {
        self.hooks.full = None;
        self.waits.add_arrival(&hook_wait(hook));
    }

    /// Calls a hook. Until `end`, the hook is called again if its answer does not match. A call begun before `end` may
    /// answer after it.
    pub(super) fn call_hook(&mut self, hook: &HookStep, end: Duration) -> StepResult {
        let names = self.eval_context(None);
        let args = hook
            .args
            .as_ref()
            .map(|args| evaluate_for_step(args, &names))
            .transpose()?
            .unwrap_or_else(|| Traced::observed(Value::Object(serde_json::Map::new())));
        let message = hook.message.as_ref().map(|message| self.compose_message(None, message)).transpose()?;
        let of_message = message.as_ref().map_or(Provenance::Observed, ComposedMessage::provenance);
        let provenance = args.provenance.join(of_message);
        self.judgement.rest_on(provenance);
        self.hooks.latest += 1;
        let call = self.hooks.latest;
        self.hooks.called = self.history.next_event();
        self.out.push(ConversationOutput::Hook {
            call,
            name: hook.name.clone(),
            args: args.value,
            message: message.map(|message| message.value),
        });
        let short = self.shortened_hook(&hook.name, end);
        self.hooks.full = short.map(|_| self.hooks.full.unwrap_or(end));
        let end = short.unwrap_or(end);
        self.hooks.end = end;
        let deadline = Some(end.max(self.clock.now + self.clock.stretched(self.clock.patience)));
        let waiting = WaitCondition::Hook { call };
        Ok(StepProgress::Waiting(ActiveStep { since: self.clock.now, deadline, full: None, waiting }))
    }

    pub(super) fn handle_hook_answer(
        &mut self,
        step: &Step,
        active: &ActiveStep,
        answer: Result<Value, String>,
    ) -> StepResult {
        let StepAction::Hook(hook) = &step.act else { return Ok(StepProgress::Done(None)) };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return Err(StepFailure::undecided(format!("the hook `{}` failed: {error}", hook.name), None));
            }
        };
        match hook.pattern.as_ref().map(|pattern| compare(pattern, Traced::observed(&answer), &self.eval_context(None)))
        {
            Some(ComparisonOutcome::Broken { expected, found, message, .. }) => {
                let end = self.hooks.end;
                if self.clock.now + HOOK_PAUSE >= end {
                    let detail = self.finding_detail(None, expected, found, Some(self.clock.since(active.since)));
                    self.record_silence();
                    let what = format!("unexpected answer from the hook `{}`: {message}", hook.name);
                    let mut failure = StepFailure::broken(what, detail);
                    self.record_hook_run_out(step, &hook.name, &mut failure);
                    return Err(failure);
                }
                return Ok(StepProgress::Waiting(self.clock.wait(HOOK_PAUSE, WaitCondition::HookAgain)));
            }
            Some(ComparisonOutcome::NotReached(why)) => return Err(StepFailure::not_reached(why)),
            Some(ComparisonOutcome::Undecided(why)) => return Err(StepFailure::undecided(why, None)),
            Some(ComparisonOutcome::Assumed { deviation }) => return Err(StepFailure::assumed(deviation)),
            Some(ComparisonOutcome::Mistake(what)) => return Err(StepFailure::mistake(what)),
            Some(ComparisonOutcome::Holds) | None => {}
        }
        self.add_hook_arrival(&hook.name);
        let sequence = self.history.next_event();
        let unix_ms = self.clock.unix_ms(self.clock.now);
        let text = answer.to_string();
        let wire = Wire {
            sequence,
            at: self.clock.now,
            unix_ms,
            after: Duration::ZERO,
            connection: u32::MAX,
            from_hub: true,
            opcode: "hook",
            size: text.len(),
            text: text.into(),
            provenance: self.judgement.provenance(),
            due_after: None,
            raw: None,
            assumed_places: Vec::new(),
        };
        let bound = BoundValue::One { value: answer, wire: Some(Arc::new(wire)) };
        let most = self.clock.stretched(self.evaluate_time(hook.within.as_ref())?.unwrap_or(self.clock.patience));
        let left = self.hooks.end.saturating_sub(self.clock.now);
        self.clock.add_margin(step, most.saturating_sub(left), most);
        self.record_held(step);
        self.judge_has(step, None, &hook.has, &bound);
        // What clients have sent may not have reached what the hook sees.
        let broken = hook.has.iter().filter(|has| self.judgement.is_broken(has.check));
        let broken = broken.map(|has| self.program.checks[has.check].name.clone());
        self.waits.report.silent_checks.extend(broken);
        Ok(StepProgress::Done(Some(bound)))
    }
}
