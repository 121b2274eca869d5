//! How connections end where this side had a part in it: what a hub answers to a close frame of ours, and what becomes of
//! the stream below.

use std::time::Duration;

use super::Conversation;
use super::active_step::{Active, Failure, Waiting};
use super::actor::{Closing, End, Link};
use super::blocks::Progress;
use super::steps::Stepped;
use crate::scenario::model::{ActorId, Codes, Step};
use crate::scenario::value::Bound;

impl Conversation {
    /// What the hub made of a close frame of ours: its own, or the end of the stream without one.
    pub(super) fn answered(
        &mut self,
        id: ActorId,
        sequence: u64,
        close: Option<Option<u16>>,
        reason: String,
        by_us: bool,
    ) {
        let Closing::Asked = self.actors[id].closing else { return };
        let after = self.now.saturating_sub(self.actors[id].opened_at);
        let (close_frame, code) = (close.is_some(), close.flatten());
        let end = End { sequence, at: self.now, after, close_frame, code, reason, claimed: false, by_us };
        self.judge_close(id, &end);
        self.actors[id].closing = Closing::Answered(end);
    }

    /// What came of a closing handshake that a step of this actor began; `Ok(None)` while nothing has. `None` where none did.
    pub(super) fn answer_to_close(
        &self,
        id: ActorId,
        codes: &Codes,
        refusal: bool,
        expected: &str,
        waited: Option<Duration>,
    ) -> Option<Result<Option<Bound>, Failure>> {
        let end = match &self.actors[id].closing {
            _ if refusal => return None,
            Closing::No => return None,
            Closing::Asked => return Some(Ok(None)),
            Closing::Answered(end) => end,
        };
        let how = end.describe();
        let detail = || self.detail(Some(id), expected.to_owned(), how.clone(), waited);
        Some(if end.by_us {
            Err(Failure::undecided(format!("cannot be seen: {how}"), Some(detail())))
        } else if codes.take(end) {
            Ok(Some(Bound::One { value: end.to_json(), wire: Some(self.end_wire(id, end)) }))
        } else {
            Err(Failure::broken(format!("{how}, not as expected"), detail()))
        })
    }

    pub(super) fn poll_stream_end(
        &mut self,
        step: &Step,
        active: Active,
        members: Vec<ActorId>,
        over: bool,
    ) -> Stepped {
        let mut results = Vec::new();
        for id in &members {
            let actor = &self.actors[*id];
            match (&actor.stream_end, &actor.link) {
                (Some(end), _) => results.push((*id, vec![Bound::plain(end.clone())])),
                (None, Link::Open { .. } | Link::Ended(_)) if !over => {
                    return Ok(Progress::Waiting(Active { waiting: Waiting::StreamEnd { members }, ..active }));
                }
                (None, Link::Open { .. } | Link::Ended(_)) => {
                    let waited = Some(self.now.saturating_sub(active.since));
                    let found = "the stream is still there".to_owned();
                    let detail = self.detail(Some(*id), self.expectation(step), found, waited);
                    return Err(Failure::broken("the hub did not end the TCP connection", detail));
                }
                (None, _) => return Err(Failure::undecided("this actor has no connection", None)),
            }
        }
        self.margin(step, &active);
        self.got(step, results, false)
    }
}

impl Codes {
    /// A close frame without a code counts as 1005 (RFC 6455, section 7.1.5).
    pub(super) fn take(&self, end: &End) -> bool {
        if end.close_frame { self.any || self.codes.contains(&end.code.unwrap_or(1005)) } else { self.drop }
    }
}
