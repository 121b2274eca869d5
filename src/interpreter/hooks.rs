//! Calls hooks and checks their answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::active_step::{Active, Failure, Waiting};
use super::blocks::Progress;
use super::checks::{compare, evaluate};
use super::finding::Finding;
use super::steps::StepResult;
use super::{Conversation, Output};
use crate::scenario::model::{Act, Hook, Step};
use crate::scenario::value::{Bound, Wire};

/// The pause before a hook is called again because its answer did not match.
pub(super) const HOOK_PAUSE: Duration = Duration::from_millis(100);

/// The calls of hooks and their answers.
#[derive(Default)]
pub(super) struct HookCalls {
    latest: u32,
    pub answers: BTreeMap<u32, Result<Value, String>>,
    /// When to stop waiting for a matching answer of the current hook.
    pub end: Duration,
}

impl Conversation {
    /// Calls a hook. Until `end`, the hook is called again if its answer does not match. A call begun before `end` may
    /// answer after it.
    pub(super) fn call_hook(&mut self, hook: &Hook, end: Duration) -> StepResult {
        let names = self.names(None);
        let args = hook
            .args
            .as_ref()
            .map(|args| evaluate(args, &names))
            .transpose()?
            .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let message = hook.message.as_ref().map(|message| self.compose(None, message)).transpose()?;
        self.hooks.latest += 1;
        let call = self.hooks.latest;
        self.out.push(Output::Hook {
            call,
            name: hook.name.clone(),
            args,
            message: message.map(|message| message.value),
        });
        self.hooks.end = end;
        let deadline = Some(end.max(self.clock.now + self.clock.stretched(self.clock.patience)));
        Ok(Progress::Waiting(Active { since: self.clock.now, deadline, waiting: Waiting::Hook { call } }))
    }

    pub(super) fn hook_answered(&mut self, step: &Step, active: &Active, answer: Result<Value, String>) -> StepResult {
        let Act::Hook(hook) = &step.act else { return Ok(Progress::Done(None)) };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(Failure::undecided(format!("the hook `{}` failed: {error}", hook.name), None)),
        };
        match hook.pattern.as_ref().map(|pattern| compare(pattern, &answer, &self.names(None))) {
            Some(Finding::Broken { expected, found, message }) => {
                let end = self.hooks.end;
                if self.clock.now + HOOK_PAUSE >= end {
                    let detail = self.detail(None, expected, found, Some(self.clock.since(active.since)));
                    let what = format!("unexpected answer from the hook `{}`: {message}", hook.name);
                    return Err(Failure::broken(what, detail));
                }
                return Ok(Progress::Waiting(self.clock.wait(HOOK_PAUSE, Waiting::HookAgain)));
            }
            Some(Finding::NotReached(why)) => return Err(Failure::not_reached(why)),
            Some(Finding::Mistake(what)) => return Err(Failure::mistake(what)),
            Some(Finding::Holds) | None => {}
        }
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
            deviation: None,
        };
        let bound = Bound::One { value: answer, wire: Some(Arc::new(wire)) };
        let most = self.clock.stretched(self.time(hook.within.as_ref())?.unwrap_or(self.clock.patience));
        let left = self.hooks.end.saturating_sub(self.clock.now);
        self.clock.add_margin(step, most.saturating_sub(left), most);
        self.holds(step);
        self.judge_has(step, None, &hook.has, &bound);
        Ok(Progress::Done(Some(bound)))
    }
}
