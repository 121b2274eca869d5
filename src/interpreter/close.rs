//! Closing handshakes that a step begins: the hub's answer to the close frame, and the end of the TCP stream.

use std::time::Duration;

use super::Conversation;
use super::active_step::{ActiveStep, StepFailure, WaitCondition};
use super::actor::{ClosingHandshake, ConnectionEnd, ConnectionState};
use super::blocks::StepProgress;
use super::steps::StepResult;
use crate::scenario::model::{ActorId, ExpectedCodes, Step};
use crate::scenario::value::{BoundValue, Provenance};

impl Conversation {
    /// Records the hub's answer to an actor's close frame: a close frame, or the end of the stream without one.
    pub(super) fn record_close_answer(
        &mut self,
        id: ActorId,
        sequence: u64,
        close: Option<Option<u16>>,
        reason: String,
        by_us: bool,
    ) {
        let ClosingHandshake::Sent = self.actors[id].latest.closing else { return };
        let after = self.clock.since(self.actors[id].opened_at);
        let (close_frame, code) = (close.is_some(), close.flatten());
        let end =
            ConnectionEnd { sequence, at: self.clock.now, after, close_frame, code, reason, claimed: false, by_us };
        self.judge_close(id, &end);
        if !by_us {
            self.add_end();
        }
        self.actors[id].latest.closing = ClosingHandshake::Answered(end);
    }

    /// Returns the answer to the close frame that a step of this actor sent: `Ok(None)` before the answer is received,
    /// and `None` if no step sent a close frame.
    pub(super) fn answer_to_close(
        &self,
        id: ActorId,
        codes: &ExpectedCodes,
        refusal: bool,
        expected: &str,
        waited: Option<Duration>,
    ) -> Option<Result<Option<BoundValue>, StepFailure>> {
        let end = match &self.actors[id].latest.closing {
            _ if refusal => return None,
            ClosingHandshake::No => return None,
            ClosingHandshake::Sent => return Some(Ok(None)),
            ClosingHandshake::Answered(end) => end,
        };
        let how = end.describe();
        let detail = || self.finding_detail(Some(id), expected.to_owned(), how.clone(), waited);
        Some(if end.by_us {
            Err(StepFailure::undecided(format!("it is unknown how the hub would have closed: {how}"), Some(detail())))
        } else if codes.accepts(end) {
            Ok(Some(BoundValue::One { value: end.to_json(), wire: Some(self.end_wire(id, end)) }))
        } else {
            Err(StepFailure::broken(format!("unexpected close: {how}"), detail()))
        })
    }

    pub(super) fn poll_stream_end(
        &mut self,
        step: &Step,
        active: ActiveStep,
        members: Vec<ActorId>,
        over: bool,
    ) -> StepResult {
        let mut results = Vec::new();
        for id in &members {
            let actor = &self.actors[*id];
            match (&actor.latest.stream_end, &actor.link) {
                (Some(end), _) => results.push((*id, vec![BoundValue::from_value(end.clone())])),
                (None, ConnectionState::Open { .. } | ConnectionState::Ended(_)) if !over => {
                    return Ok(StepProgress::Waiting(ActiveStep {
                        waiting: WaitCondition::StreamEnd { members },
                        ..active
                    }));
                }
                (None, ConnectionState::Open { .. } | ConnectionState::Ended(_)) => {
                    let waited = Some(self.clock.since(active.since));
                    let found = "the TCP connection is still open".to_owned();
                    let detail = self.finding_detail(Some(*id), self.describe_expectation(step), found, waited);
                    return Err(StepFailure::broken("the hub did not end the TCP connection in time", detail));
                }
                (None, _) => return Err(StepFailure::undecided("the actor is not connected", None)),
            }
        }
        self.clock.add_wait(&self.program, step, &active);
        self.complete_expectation(step, results, false, Provenance::Observed)
    }
}

impl ExpectedCodes {
    /// Whether these codes accept this end. A close frame without a code counts as 1005 (RFC 6455, section 7.1.5).
    pub(super) fn accepts(&self, end: &ConnectionEnd) -> bool {
        if end.close_frame { self.any || self.codes.contains(&end.code.unwrap_or(1005)) } else { self.drop }
    }
}
