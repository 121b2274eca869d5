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
use crate::protocol::FrameDirection;
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
        let first = self.hooks.latest + 1;
        match hook.times {
            None => self.make_call(hook)?,
            Some(times) => self.make_calls(hook, times)?,
        }
        let calls = first..self.hooks.latest + 1;
        self.hooks.called = self.history.next_event();
        let short = self.shortened_hook(&hook.name, end);
        self.hooks.full = short.map(|_| self.hooks.full.unwrap_or(end));
        let end = short.unwrap_or(end);
        self.hooks.end = end;
        let deadline = Some(end.max(self.clock.now + self.clock.stretched(self.clock.patience)));
        let waiting = WaitCondition::Hook { calls, answered: 0 };
        Ok(StepProgress::Waiting(ActiveStep { since: self.clock.now, deadline, full: None, waiting }))
    }

    /// Calls a hook several times at once, with `index` as the number of each call.
    fn make_calls(&mut self, hook: &HookStep, times: u32) -> Result<(), StepFailure> {
        let outer = self.blocks.replace_binding("index", None);
        let made = (0..times).try_for_each(|index| {
            self.blocks.bind("index", BoundValue::from_value(Value::from(index)));
            self.make_call(hook)
        });
        self.blocks.replace_binding("index", outer);
        made
    }

    fn make_call(&mut self, hook: &HookStep) -> Result<(), StepFailure> {
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
        let (call, name) = (self.hooks.latest, hook.name.clone());
        let message = message.map(|message| message.value);
        self.history.add_hook_call(&args.value, message.as_ref());
        // What a hook publishes is a message of the hub.
        let unusual = message.as_ref().and_then(|message| self.swap_values(FrameDirection::FromHub, message));
        let message = unusual.or(message);
        self.out.push(ConversationOutput::Hook { call, name, args: args.value, message });
        Ok(())
    }

    /// Waits for the answers to all calls. Each answer extends the wait: a driver makes only some calls at a time.
    pub(super) fn poll_hook(&mut self, step: &Step, mut active: ActiveStep, over: bool) -> StepResult {
        let (StepAction::Hook(hook), WaitCondition::Hook { calls, answered }) = (&step.act, &mut active.waiting) else {
            return Ok(StepProgress::Done(None));
        };
        let came = self.hooks.answers.range(calls.clone()).count();
        if came < calls.len() {
            if came > *answered {
                *answered = came;
                active.deadline = active.deadline.max(Some(self.clock.now + self.clock.stretched(self.clock.patience)));
            } else if over {
                return Err(StepFailure::undecided("the hook did not answer in time", None));
            }
            return Ok(StepProgress::Waiting(active));
        }
        let answers: Vec<_> = calls.clone().filter_map(|call| self.hooks.answers.remove(&call)).collect();
        let mut values = Vec::new();
        for (index, answer) in answers.into_iter().enumerate() {
            let which = hook.times.map(|times| format!(" in call {} of {times}", index + 1)).unwrap_or_default();
            let failed = |error| format!("the hook `{}` failed{which}: {error}", hook.name);
            let mut answer = answer.map_err(|error| StepFailure::undecided(failed(error), None))?;
            if let Some(swap) = &self.values {
                swap.restore(&mut answer);
            }
            values.push(answer);
        }
        match hook.times {
            Some(_) => {
                let items = values.into_iter().map(|answer| self.bind_answer(answer)).collect();
                Ok(StepProgress::Done(Some(BoundValue::Many { items, ordered: false })))
            }
            None => self.handle_hook_answer(step, hook, &active, values.pop().unwrap_or_default()),
        }
    }

    fn handle_hook_answer(&mut self, step: &Step, hook: &HookStep, active: &ActiveStep, answer: Value) -> StepResult {
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
        let bound = self.bind_answer(answer);
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

    /// Returns what a step binds to an answer, which came now.
    fn bind_answer(&mut self, answer: Value) -> BoundValue {
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
        BoundValue::One { value: answer, wire: Some(Arc::new(wire)) }
    }
}
