//! The steps that expect something: frames, silence, the end of a connection, or one of several alternatives.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Conversation;
use super::active_step::{Active, Failure, Frames, Member, Waiting};
use super::actor::{End, Link};
use super::blocks::Progress;
use super::checks::{compare, eval_failure};
use super::clock::only_may;
use super::finding::Finding;
use super::matching::{Wanted, build};
use super::steps::StepResult;
use crate::deviation::proposal::MOST_BYTES;
use crate::event::Outcome;
use crate::protocol::Way;
use crate::scenario::model::{
    Act, ActorId, Alternative, Codes, Expect, Has, MessageName, Pattern, Program, Quantity, Ready, Step, Want, Who,
};
use crate::scenario::template::{Names, Template};
use crate::scenario::value::{Bound, Deviating, EvalError, Wire};

/// Returns the failure of a step whose expectation cannot be evaluated from one of these templates.
fn expectation_failure<'t>(
    error: EvalError,
    from: impl IntoIterator<Item = &'t Template>,
    names: &dyn Names,
) -> Failure {
    let blame = from.into_iter().find(|template| super::checks::from_hub(template, names));
    blame.map_or_else(|| error.clone().into(), |template| eval_failure(error.clone(), template, names))
}

/// The share of the patience that a frame gets after a failure, when it may well never come.
const IN_DOUBT: f64 = 0.2;

impl Conversation {
    /// Returns how long to wait for an expected frame if the step states no time.
    pub(super) fn patience(&self) -> Duration {
        let share = if self.judgement.doubted().is_some() { IN_DOUBT } else { 1.0 };
        self.clock.patience.mul_f64(share)
    }

    pub(super) fn begin_expect(&mut self, step: &Step, expect: &Expect, members: Vec<ActorId>) -> StepResult {
        let program = Arc::clone(&self.program);
        let after = self.after(expect.after.as_deref())?;
        let for_ = self.time(expect.for_.as_ref())?;
        let within = match self.time(expect.within.as_ref())? {
            Some(time) => Some(time),
            // A step with only may rules waits only briefly.
            None => only_may(&program, step).then_some(self.clock.quiet),
        };
        let patience = self.patience();
        let time = for_.unwrap_or_else(|| self.clock.stretched(within.unwrap_or(patience)));
        let end = self.clock.now + time;
        let deadline = Some(end);
        let quantity = match &step.who {
            Who::Group { quantity, .. } => *quantity,
            _ => None,
        };
        let waiting = match &expect.want {
            Want::Message { .. } | Want::Control { .. } => {
                let mut awaiting = Vec::new();
                for id in members {
                    let wanted = self.wanted(&program, id, &expect.want, after)?;
                    let wanted = if for_.is_some() { wanted.until(end) } else { wanted };
                    awaiting.push(Member { id, wanted, claims: Vec::new() });
                }
                Waiting::Frames(Box::new(Frames {
                    members: awaiting,
                    count: expect.count,
                    quantity,
                    collecting: for_.is_some(),
                    late: false,
                }))
            }
            Want::Close(codes) => Waiting::End { members, codes: codes.clone(), refusal: false },
            Want::Refusal(codes) => Waiting::End { members, codes: codes.clone(), refusal: true },
        };
        self.poll(step, Active { since: self.clock.now, deadline, waiting })
    }

    pub(super) fn wanted(&self, program: &Program, id: ActorId, want: &Want, after: u64) -> Result<Wanted, Failure> {
        match want {
            Want::Control { pong, pattern } => {
                let names = self.names(Some(id));
                Wanted::control(*pong, pattern.as_ref(), after, &names)
                    .map(|wanted| wanted.of(&self.actors[id]))
                    .map_err(|error| {
                        expectation_failure(error, pattern.as_ref().map(|pattern| &pattern.template), &names)
                    })
            }
            Want::Message { message, pattern } => self.wanted_message(program, id, message, pattern.as_ref(), after),
            Want::Close(_) | Want::Refusal(_) => self.wanted_message(program, id, &MessageName::Any, None, u64::MAX),
        }
    }

    pub(super) fn wanted_message(
        &self,
        program: &Program,
        id: ActorId,
        message: &MessageName,
        pattern: Option<&Pattern>,
        after: u64,
    ) -> Result<Wanted, Failure> {
        let names = self.names(Some(id));
        let wanted = Wanted::message(&program.pack, message, pattern, after, &names).map_err(|error| {
            let name = match message {
                MessageName::Computed(template) => Some(template),
                MessageName::Any | MessageName::Named(_) => None,
            };
            expectation_failure(error, name.into_iter().chain(pattern.map(|pattern| &pattern.template)), &names)
        });
        wanted.map(|wanted| wanted.of(&self.actors[id]))
    }

    pub(super) fn poll_frames(&mut self, step: &Step, mut active: Active, over: bool) -> StepResult {
        let Waiting::Frames(frames) = &mut active.waiting else { return Ok(Progress::Waiting(active)) };
        let most = match frames.count {
            Some(count) => count.max.unwrap_or(usize::MAX),
            None => 1,
        };
        // While collecting, also claim one frame more than allowed, to detect too many.
        let most = if frames.collecting { most.saturating_add(1) } else { most };
        for member in &mut frames.members {
            while member.claims.len() < most {
                let Some(bound) = self.claim(member.id, &mut member.wanted) else { break };
                member.claims.push(bound);
            }
        }
        let least = frames.count.map_or(1, |count| count.min);
        let got = frames.members.iter().filter(|member| member.claims.len() >= least).count();
        if let Some((quantity, number)) = frames.quantity {
            // `for` limits how long to look for too many frames. Frames still missing then may come until the target's
            // patience ends.
            let missing = got < number && quantity != Quantity::AtMost;
            if !over && (missing || !frames.late) {
                return Ok(Progress::Waiting(active));
            }
            if missing && frames.collecting && !frames.late {
                frames.late = true;
                frames.members.iter_mut().for_each(|member| member.wanted.without_end());
                active.deadline = Some(self.clock.now.max(active.since + self.clock.stretched(self.clock.patience)));
                return self.poll(step, active);
            }
            let right = match quantity {
                Quantity::Exactly => got == number,
                Quantity::AtLeast => got >= number,
                Quantity::AtMost => got <= number,
            };
            let blind = |member: &Member| {
                (member.claims.len() < least)
                    .then(|| member.wanted.undecidable(&self.actors[member.id], &self.program.pack))
            };
            if let Some(why) = frames.members.iter().filter_map(blind).flatten().next() {
                return Err(Failure::undecided(why, None));
            }
            let items: Vec<Bound> = frames.members.iter().filter_map(|member| member.claims.first().cloned()).collect();
            if !right {
                let bound = match quantity {
                    Quantity::Exactly => "exactly",
                    Quantity::AtLeast => "at least",
                    Quantity::AtMost => "at most",
                };
                let waited = Some(self.clock.since(active.since));
                let name = frames.members.first().map_or_else(String::new, |m| m.wanted.name(&self.program.pack));
                let expected = format!("{bound} {number} actors receive it");
                let detail = self.detail(None, expected, format!("{got} actors received it"), waited);
                let message = format!("{name} received by {got} actors, expected {bound} {number}");
                return Err(Failure::broken(message, detail));
            }
            let claimed: Vec<_> = frames.members.drain(..).map(|member| (member.id, member.claims)).collect();
            self.holds_by(step, claimed.iter().flat_map(|(_, claims)| claims));
            self.judge_claims(step, &claimed);
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
                let waited = Some(self.clock.since(active.since));
                let over = frames.members.iter().find(|m| m.claims.len() >= most);
                let name = over.map_or_else(String::new, |m| m.wanted.name(&self.program.pack));
                let expected = format!("at most {}", most - 1);
                let detail = self.detail(
                    frames.members.first().map(|m| m.id),
                    expected.clone(),
                    format!("{most} or more"),
                    waited,
                );
                return Err(Failure::broken(format!("too many {name} received, expected {expected}"), detail));
            }
            let results: Vec<(ActorId, Vec<Bound>)> =
                frames.members.drain(..).map(|member| (member.id, member.claims)).collect();
            if !frames.collecting {
                self.clock.add_wait(&self.program, step, &active);
            }
            return self.got(step, results, counted);
        }
        // Some member still lacks frames. If its connection has ended, it can no longer receive any.
        for member in &frames.members {
            if member.claims.len() >= least {
                continue;
            }
            let ended = match &self.actors[member.id].link {
                Link::Ended(end) => Some(end.describe()),
                Link::Idle | Link::Refused { .. } | Link::Unreachable { .. } => Some("no connection".to_owned()),
                Link::Open { .. } | Link::Connecting => None,
            };
            if ended.is_none() && !over {
                continue;
            }
            let id = member.id;
            let waited = Some(self.clock.since(active.since));
            let expected = self.expectation(step);
            let received = self.received_instead(id, &member.wanted);
            let count = member.claims.len();
            let detail = self.detail(Some(id), expected, received, waited);
            if let Some(why) = member.wanted.undecidable(&self.actors[id], &self.program.pack) {
                return Err(Failure::undecided(why, Some(detail)));
            }
            let known = self.actors[id].end_noticed
                || matches!(self.actors[id].link, Link::Idle | Link::Refused { .. } | Link::Unreachable { .. });
            let name = member.wanted.name(&self.program.pack);
            // The message does not name the actor, so that reports can group equal failures; the detail does.
            let missing = format!("no {name} received");
            return Err(match ended {
                // Another check has already blamed the hub for this end, or a step expected it.
                Some(how) if known => Failure::undecided(format!("{missing}: {how}"), Some(detail)),
                Some(how) => {
                    self.actors[id].end_noticed = true;
                    Failure::broken(format!("{missing}: {how}"), detail)
                }
                None if count > 0 => {
                    Failure::broken(format!("{count} {name} received, expected at least {least}"), detail)
                }
                None => Failure::broken(missing, detail),
            });
        }
        Ok(Progress::Waiting(active))
    }

    /// Checks the details of all claimed frames.
    fn judge_claims(&mut self, step: &Step, results: &[(ActorId, Vec<Bound>)]) {
        let has = match &step.act {
            Act::Expect(expect) => &expect.has,
            Act::ExpectEnd { has, .. } => has,
            _ => return,
        };
        for (id, claims) in results {
            for claim in claims {
                self.judge_has(step, Some(*id), has, claim);
            }
        }
    }

    /// Completes a step that received everything it expects, and checks the details.
    pub(super) fn got(&mut self, step: &Step, results: Vec<(ActorId, Vec<Bound>)>, counted: bool) -> StepResult {
        self.holds_by(step, results.iter().flat_map(|(_, claims)| claims));
        let mut items = Vec::new();
        self.judge_claims(step, &results);
        for (_, claims) in results {
            items.push(match (counted, claims.into_iter().collect::<Vec<_>>()) {
                (true, claims) => Bound::Many { items: claims, ordered: true },
                (false, claims) => claims.into_iter().next().unwrap_or(Bound::plain(Value::Null)),
            });
        }
        Ok(Progress::Done(Some(self.group(step, items))))
    }

    pub(super) fn judge_has(&mut self, step: &Step, actor: Option<ActorId>, has: &[Has], bound: &Bound) {
        let (value, text) = match bound {
            Bound::One { value, wire } => {
                (value.clone(), wire.as_ref().map_or_else(|| value.to_string(), |wire| wire.text.to_string()))
            }
            other => (other.to_json(), other.to_json().to_string()),
        };
        let deviating = match bound {
            Bound::One { wire: Some(wire), .. } => wire.deviation.clone(),
            _ => None,
        };
        for has in has {
            let finding = match deviating.as_deref() {
                Some(Deviating { raw: None, .. }) => {
                    Finding::NotReached("the message was not received, only assumed by a declared deviation".to_owned())
                }
                _ => compare(&has.pattern, &value, &self.names(actor)),
            };
            // A pattern of constants is also compared with the message as the hub sent it.
            if let (Finding::Holds, Some(Deviating { index, raw: Some(raw) }), Some(_)) =
                (&finding, deviating.as_deref(), &has.pattern.ready)
            {
                let of_hub = compare(&has.pattern, raw, &self.names(actor));
                self.note_deviating(has.check, &step.text, actor, &text, of_hub, *index);
            }
            if matches!(finding, Finding::Broken { .. }) && text.len() < MOST_BYTES {
                self.note_unfit(has, &value, actor);
            }
            self.note(has.check, &step.text, actor, &text, finding);
        }
    }

    /// Records a member of a message that does not fit a check: the hub may use another name or type for it.
    fn note_unfit(&mut self, has: &Has, json: &Value, actor: Option<ActorId>) {
        let difference = match build(&has.pattern, &self.names(actor)) {
            Ok(Ready::Matcher(matcher)) => matcher.difference(json),
            _ => None,
        };
        let Some(place) = difference.map(|one| one.path) else { return };
        let program = Arc::clone(&self.program);
        let recognised = program.pack.recognise(json, Way::FromHub).map(|message| &message.name);
        let index = recognised.and_then(|name| program.pack.messages.iter().position(|m| m.name == *name));
        let Some(message) = index else { return };
        let rules = program.checks[has.check].rules.iter().map(|used| used.id.clone());
        self.deviations.evidence.add_unfit(place, message, json, rules);
    }

    pub(super) fn claim(&mut self, id: ActorId, wanted: &mut Wanted) -> Option<Bound> {
        let program = Arc::clone(&self.program);
        let found = wanted.find(&self.actors[id].inbox, &program.pack, &program.shared.ignore);
        let (index, value) = found?;
        let entry = &mut self.actors[id].inbox[index];
        entry.claimed = true;
        Some(Bound::One { value, wire: Some(Arc::clone(&entry.wire)) })
    }

    pub(super) fn poll_end(
        &mut self,
        step: &Step,
        active: Active,
        members: Vec<ActorId>,
        codes: Codes,
        refusal: bool,
        over: bool,
    ) -> StepResult {
        let waited = Some(self.clock.since(active.since));
        let mut items = Vec::new();
        for id in &members {
            let expected = self.expectation(step);
            match self.answer_to_close(*id, &codes, refusal, &expected, waited) {
                Some(Err(failure)) => return Err(failure),
                Some(Ok(Some(bound))) => {
                    items.push((*id, bound));
                    continue;
                }
                Some(Ok(None)) if over => {
                    let detail = self.detail(Some(*id), expected, "nothing".to_owned(), waited);
                    return Err(Failure::broken("no answer to the close frame in time", detail));
                }
                Some(Ok(None)) => {
                    let waiting = Waiting::End { members, codes, refusal };
                    return Ok(Progress::Waiting(Active { waiting, ..active }));
                }
                None => {}
            }
            match &self.actors[*id].link {
                Link::Refused { refusal: answer, text, .. } if refusal => {
                    let status = answer.get("status").and_then(Value::as_u64).unwrap_or(0) as u16;
                    if !codes.any && !codes.codes.contains(&status) {
                        let detail = self.detail(Some(*id), expected, text.clone(), waited);
                        return Err(Failure::broken(format!("unexpected refusal: {text}"), detail));
                    }
                    items.push((*id, Bound::plain(answer.clone())));
                }
                Link::Open { .. } if refusal => {
                    let detail = self.detail(Some(*id), expected, "the upgrade was accepted".to_owned(), waited);
                    return Err(Failure::broken("the upgrade was not refused", detail));
                }
                Link::Ended(end) if !refusal && !end.by_us => {
                    let (end, how) = (end.clone(), end.describe());
                    let right = codes.accept(&end);
                    self.actors[*id].end_noticed = true;
                    if !right {
                        let detail = self.detail(Some(*id), expected, how.clone(), waited);
                        return Err(Failure::broken(format!("unexpected close: {how}"), detail));
                    }
                    if let Link::Ended(end) = &mut self.actors[*id].link {
                        end.claimed = true;
                    }
                    let wire = self.end_wire(*id, &end);
                    items.push((*id, Bound::One { value: end.to_json(), wire: Some(wire) }));
                }
                // hubproof ended the connection at a limit of its own, so it is unknown what the hub would have done.
                Link::Ended(end) if end.by_us && !end.claimed => {
                    let how = end.describe();
                    let detail = self.detail(Some(*id), expected, how.clone(), waited);
                    return Err(Failure::undecided(
                        format!("it is unknown how the hub would have closed: {how}"),
                        Some(detail),
                    ));
                }
                Link::Idle => {
                    let detail = self.detail(Some(*id), expected, "no connection".to_owned(), None);
                    return Err(Failure::undecided("there is no connection", Some(detail)));
                }
                Link::Unreachable { reason } => {
                    let detail = self.detail(Some(*id), expected, reason.clone(), waited);
                    return Err(Failure::unreachable(reason, detail));
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
                    let received = self.received_instead(*id, &wanted);
                    let detail = self.detail(Some(*id), expected, received, waited);
                    let what = if refusal { "the upgrade was not refused" } else { "the connection was not closed" };
                    return Err(Failure::broken(what, detail));
                }
            }
        }
        self.clock.add_wait(&self.program, step, &active);
        let results = items.into_iter().map(|(id, bound)| (id, vec![bound])).collect();
        self.got(step, results, false)
    }

    pub(super) fn end_wire(&self, id: ActorId, end: &End) -> Arc<Wire> {
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
            deviation: None,
        })
    }

    pub(super) fn poll_silence(&mut self, step: &Step, mut active: Active, over: bool) -> StepResult {
        let program = Arc::clone(&self.program);
        let Waiting::Silence { members } = &mut active.waiting else { return Ok(Progress::Waiting(active)) };
        for (id, wanted) in members.iter_mut() {
            let inbox = &self.actors[*id].inbox;
            if let Some((place, _)) = wanted.find(inbox, &program.pack, &program.shared.ignore) {
                let entry = &inbox[place];
                let text = self.history.shown(&entry.wire.text, 400);
                let waited = Some(self.clock.since(active.since));
                let detail = self.detail(Some(*id), self.expectation(step), text, waited);
                let name = entry.name(&program.pack);
                let frame = if matches!(name, "undocumented" | "undecodable") { " frame" } else { "" };
                let who = &program.actors[*id].name;
                return Err(Failure::broken(format!("unexpected {name}{frame} received by {who}"), detail));
            }
            let ended = match &self.actors[*id].link {
                Link::Ended(end) if !end.claimed && active.deadline.is_none_or(|over| end.at <= over) => {
                    Some(end.describe())
                }
                Link::Idle | Link::Unreachable { .. } => {
                    let detail = self.detail(Some(*id), "a connection".to_owned(), "none".to_owned(), None);
                    return Err(Failure::undecided("silence proves nothing: there is no connection", Some(detail)));
                }
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
            for (id, wanted) in members.iter() {
                if let Some(why) = wanted.undecidable(&self.actors[*id], &self.program.pack) {
                    let detail =
                        self.detail(Some(*id), self.expectation(step), self.received_instead(*id, wanted), None);
                    return Err(Failure::undecided(why, Some(detail)));
                }
            }
            self.holds_silent(step);
            return Ok(Progress::Done(None));
        }
        Ok(Progress::Waiting(active))
    }

    pub(super) fn alternatives(
        &self,
        program: &Program,
        id: ActorId,
        alternatives: &[Alternative],
        after: u64,
    ) -> Result<Vec<Option<Wanted>>, Failure> {
        alternatives
            .iter()
            .map(|alternative| match &alternative.want {
                Some(want @ (Want::Message { .. } | Want::Control { .. })) => {
                    self.wanted(program, id, want, after).map(Some)
                }
                _ => Ok(None),
            })
            .collect()
    }

    pub(super) fn poll_one_of(&mut self, step: &Step, mut active: Active, over: bool) -> StepResult {
        let program = Arc::clone(&self.program);
        let Act::ExpectOneOf { alternatives, .. } = &step.act else { return Ok(Progress::Waiting(active)) };
        let Waiting::OneOf { members } = &mut active.waiting else { return Ok(Progress::Waiting(active)) };
        for open in members.iter_mut().filter(|open| open.chosen.is_none()) {
            open.chosen = self.choose(&program, open.id, alternatives, &mut open.wanted, over);
        }
        if members.iter().all(|open| open.chosen.is_some()) {
            let silent = members
                .iter()
                .any(|open| open.chosen.as_ref().is_some_and(|(index, _)| alternatives[*index].want.is_none()));
            let first = members.first().map(|open| open.id);
            let waited = Some(self.clock.since(active.since));
            let chosen: Vec<(usize, Bound)> = members.iter_mut().filter_map(|open| open.chosen.take()).collect();
            if !silent {
                self.clock.add_wait(&self.program, step, &active);
            }
            let mut items = Vec::new();
            for (index, bound) in chosen {
                let alternative = &alternatives[index];
                if let Some(why) = &alternative.fail {
                    let text = match &bound {
                        Bound::One { wire: Some(wire), .. } => format!("{} {}", wire.opcode, wire.text),
                        other => other.to_json().to_string(),
                    };
                    let detail = self.detail(first, self.expectation(step), text, waited);
                    return Err(Failure::broken(why.clone(), detail));
                }
                let outcome = match (&alternative.warn, &alternative.info) {
                    (Some(warn), _) => Outcome::Tolerated(warn.clone()),
                    (None, Some(info)) => Outcome::Noted(info.clone()),
                    (None, None) => Outcome::Holds,
                };
                if let Some(check) = step.check
                    && !self.deviates(check, &step.text, std::iter::once(&bound))
                {
                    // After a failure, only a received frame proves something.
                    let came = bound.wires().iter().any(|wire| wire.opcode != "close");
                    let outcome = self.judgement.doubted().filter(|_| !came).unwrap_or(outcome);
                    self.judgement.answer(check, &step.text, outcome, "", None);
                }
                if let Some(name) = &alternative.as_ {
                    self.blocks.bind(name, bound.clone());
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
                    return Err(Failure::unreachable(reason, detail));
                }
                _ => (open.id, None),
            };
            if ended.is_none() && !over {
                continue;
            }
            let waited = Some(self.clock.since(active.since));
            let wanted = open.wanted.iter().flatten().next();
            let received = match wanted {
                Some(wanted) => self.received_instead(id, wanted),
                None => ended.clone().unwrap_or_else(|| "nothing, connection still open".to_owned()),
            };
            let detail = self.detail(Some(id), self.expectation(step), received, waited);
            if let Some(why) =
                open.wanted.iter().flatten().find_map(|wanted| wanted.undecidable(&self.actors[id], &self.program.pack))
            {
                return Err(Failure::undecided(why, Some(detail)));
            }
            let known = std::mem::replace(&mut self.actors[id].end_noticed, ended.is_some());
            let missing = "none of the expected alternatives received";
            return Err(match ended {
                Some(how) if known => Failure::undecided(format!("{missing}: {how}"), Some(detail)),
                Some(how) => Failure::broken(format!("{missing}: {how}"), detail),
                None => Failure::broken(missing, detail),
            });
        }
        Ok(Progress::Waiting(active))
    }

    /// Returns the alternative that happened first, if any has.
    pub(super) fn choose(
        &mut self,
        program: &Program,
        id: ActorId,
        alternatives: &[Alternative],
        wanted: &mut [Option<Wanted>],
        over: bool,
    ) -> Option<(usize, Bound)> {
        let actor = &self.actors[id];
        // The earliest frame counts, and for one frame the first matching alternative.
        let message = wanted
            .iter_mut()
            .enumerate()
            .filter_map(|(index, wanted)| {
                let (place, value) = wanted.as_mut()?.find(&actor.inbox, &program.pack, &program.shared.ignore)?;
                Some((actor.inbox[place].wire.sequence, place, index, value))
            })
            .min_by_key(|(sequence, _, index, _)| (*sequence, *index));
        let end =
            alternatives.iter().enumerate().find_map(|(index, alternative)| match (&alternative.want, &actor.link) {
                (Some(Want::Close(codes)), Link::Ended(end)) if !end.by_us && !end.claimed => {
                    codes.accept(end).then(|| (end.sequence, index, end.to_json()))
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
            // Silence is certain only if all received frames could be decoded.
            _ if over
                && wanted
                    .iter()
                    .flatten()
                    .all(|wanted| wanted.undecidable(&self.actors[id], &self.program.pack).is_none()) =>
            {
                let index = alternatives.iter().position(|alternative| alternative.want.is_none())?;
                Some((index, Bound::plain(Value::Null)))
            }
            _ => None,
        }
    }

    /// Describes what a step expects, by its head and its `where`.
    pub(super) fn expectation(&self, step: &Step) -> String {
        let pattern = match &step.act {
            Act::Expect(expect) => match &expect.want {
                Want::Message { pattern, .. } | Want::Control { pattern, .. } => pattern.as_ref(),
                _ => None,
            },
            Act::ExpectNothing(nothing) => nothing.pattern.as_ref(),
            Act::ExpectOneOf { alternatives, .. } => {
                let right = alternatives.iter().filter(|alternative| alternative.fail.is_none());
                let list: Vec<&str> = right.map(|alternative| alternative.text.as_str()).collect();
                return format!("one of: {}", list.join(", "));
            }
            _ => None,
        };
        let place = pattern.and_then(|pattern| pattern.template.eval(&self.names(None)).ok());
        match place {
            Some(place) => format!("{} where {}", step.text, self.history.shown(&place.to_string(), 300)),
            None => step.text.clone(),
        }
    }
}
