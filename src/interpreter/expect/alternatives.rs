//! Expecting one of several alternatives.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::interpreter::Conversation;
use crate::interpreter::active_step::{ActiveStep, AwaitedAlternatives, StepFailure, WaitCondition};
use crate::interpreter::actor::ConnectionState;
use crate::interpreter::blocks::StepProgress;
use crate::interpreter::deviation::DeclaredAbsence;
use crate::interpreter::matching::ExpectedFrame;
use crate::interpreter::steps::{StepResult, group_values};
use crate::outcome::CheckOutcome;
use crate::scenario::model::{ActorId, ExpectedAlternative, ExpectedEvent, Program, Step, StepAction};
use crate::scenario::value::{BoundValue, Provenance};

impl Conversation {
    pub(in crate::interpreter) fn poll_one_of(
        &mut self,
        step: &Step,
        mut active: ActiveStep,
        over: bool,
    ) -> StepResult {
        let program = Arc::clone(&self.program);
        let StepAction::ExpectOneOf { alternatives, .. } = &step.act else { return Ok(StepProgress::Waiting(active)) };
        let WaitCondition::OneOf { members } = &mut active.waiting else { return Ok(StepProgress::Waiting(active)) };
        for open in members.iter_mut().filter(|open| open.chosen.is_none()) {
            open.chosen = self.choose_alternative(&program, open.id, alternatives, &mut open.awaited, over);
        }
        if members.iter().all(|open| open.chosen.is_some()) {
            return self.complete_alternatives(step, active, alternatives);
        }
        for open in members.iter().filter(|open| open.chosen.is_none()) {
            let ended = match &self.actors[open.id].link {
                ConnectionState::Ended(end) => Some(end.describe()),
                ConnectionState::Refused { text, .. } => Some(text.clone()),
                ConnectionState::Unreachable { reason } => {
                    let expected = self.describe_expectation(step);
                    let detail = self.finding_detail(Some(open.id), expected, reason.clone(), None);
                    return Err(StepFailure::unreachable(reason, detail));
                }
                _ => None,
            };
            if over || ended.is_some() {
                return self.end_without_alternative(step, open, alternatives, active.since, ended);
            }
        }
        Ok(StepProgress::Waiting(active))
    }

    /// Ends a step for whose members alternatives have happened.
    fn complete_alternatives(
        &mut self,
        step: &Step,
        mut active: ActiveStep,
        alternatives: &[ExpectedAlternative],
    ) -> StepResult {
        let program = Arc::clone(&self.program);
        let WaitCondition::OneOf { members } = &mut active.waiting else { return Ok(StepProgress::Waiting(active)) };
        let declared = members.iter().find_map(|open| {
            let (index, _) = open.chosen.as_ref()?;
            Some((open.id, self.declared_alternative(open.id, alternatives, &open.awaited, Some(*index))?))
        });
        if let Some((id, declared)) = declared {
            return self.end_declared_absence(step, id, declared);
        }
        let silent = members
            .iter()
            .any(|open| open.chosen.as_ref().is_some_and(|(index, _)| alternatives[*index].want.is_none()));
        let first = members.first().map(|open| open.id);
        let waited = Some(self.clock.since(active.since));
        let awaited = || {
            members
                .iter()
                .flat_map(|open| open.awaited.iter().zip(alternatives))
                .filter_map(|(a, b)| Some((a.as_ref()?, b)))
        };
        // Silence proves nothing if only a message would count against the hub that it does not send anyway.
        let wrong = awaited().filter(|(_, alternative)| alternative.fail.is_some() || alternative.warn.is_some());
        let mut wrong = wrong.map(|(awaited, _)| awaited);
        let unsent = wrong.find_map(|awaited| self.deviations.absence_of(&self.program.pack, awaited));
        let matched_by = Provenance::join_all(awaited().map(|(awaited, _)| awaited.matched_by()));
        let chosen: Vec<(usize, BoundValue)> = members.iter_mut().filter_map(|open| open.chosen.take()).collect();
        if silent {
            self.waits.report.chose_silence = true;
        } else {
            self.clock.add_wait(&self.program, step, &active);
        }
        let mut items = Vec::new();
        for (index, bound) in chosen {
            let alternative = &alternatives[index];
            if let Some(why) = &alternative.fail {
                let text = match &bound {
                    BoundValue::One { wire: Some(wire), .. } => format!("{} {}", wire.opcode, wire.text),
                    other => other.to_json().to_string(),
                };
                let detail = self.finding_detail(first, self.describe_expectation(step), text, waited);
                let failure = StepFailure { answered: true, ..StepFailure::broken(why.clone(), detail) };
                return Err(failure.of(bound.provenance()));
            }
            let outcome = match (&alternative.warn, &alternative.info) {
                (Some(warn), _) => CheckOutcome::Tolerated(warn.clone()),
                (None, Some(info)) => CheckOutcome::Noted(info.clone()),
                (None, None) => CheckOutcome::Holds,
            };
            if let (None, Some(_), Some(check)) = (&alternative.want, &alternative.warn, step.check) {
                self.waits.report.silent_checks.insert(program.checks[check].name.clone());
            }
            match alternative.want.is_none().then_some(unsent).flatten() {
                Some(index) => self.record_absence(step, index),
                None => self.record_held_by_claims(step, outcome, std::iter::once(&bound), false, matched_by),
            }
            if let Some(name) = &alternative.as_ {
                self.blocks.bind(name, bound.clone());
            }
            items.push(bound);
        }
        Ok(StepProgress::Done(Some(group_values(step, items))))
    }

    /// Ends a step for one of whose members no alternative happened; `ended` is how its connection ended.
    fn end_without_alternative(
        &mut self,
        step: &Step,
        open: &AwaitedAlternatives,
        alternatives: &[ExpectedAlternative],
        since: Duration,
        ended: Option<String>,
    ) -> StepResult {
        let id = open.id;
        if let Some(declared) = self.declared_alternative(id, alternatives, &open.awaited, None) {
            return self.end_declared_absence(step, id, declared);
        }
        let waited = Some(self.clock.since(since));
        let awaited = open.awaited.iter().flatten().next();
        let received = match awaited {
            Some(awaited) => self.received_instead(id, awaited),
            None => ended.clone().unwrap_or_else(|| "nothing, connection still open".to_owned()),
        };
        let detail = self.finding_detail(Some(id), self.describe_expectation(step), received, waited);
        if let Some(why) = open
            .awaited
            .iter()
            .flatten()
            .find_map(|awaited| awaited.undecidable_reason(&self.actors[id], &self.program.pack))
        {
            return Err(StepFailure::undecided(why, Some(detail)));
        }
        let known = std::mem::replace(&mut self.actors[id].latest.end_noticed, ended.is_some());
        let missing = "none of the expected alternatives received";
        Err(match ended {
            Some(how) if known => StepFailure::undecided(format!("{missing}: {how}"), Some(detail)),
            Some(how) => StepFailure::broken(format!("{missing}: {how}"), detail),
            None => StepFailure::broken(missing, detail),
        }
        .of(self.provenance_of_absence(id, open.awaited.iter().flatten())))
    }

    /// Returns the declared deviation that explains why none of the messages came that the step accepts. If the
    /// alternative `chosen` happened instead, it must count against the hub, and be the silence or the close that the
    /// deviation declares.
    fn declared_alternative(
        &self,
        id: ActorId,
        alternatives: &[ExpectedAlternative],
        awaited: &[Option<ExpectedFrame>],
        chosen: Option<usize>,
    ) -> Option<DeclaredAbsence> {
        let right = alternatives.iter().zip(awaited).filter(|(alternative, _)| alternative.fail.is_none());
        let declared = right.filter_map(|(_, awaited)| self.declared_absence(id, awaited.as_ref()?)).next()?;
        let Some(chosen) = chosen.map(|index| &alternatives[index]) else { return Some(declared) };
        let counts = chosen.fail.is_some() || chosen.warn.is_some();
        let is_declared = matches!(
            (&chosen.want, &declared),
            (None, DeclaredAbsence::NeverSent(_)) | (Some(ExpectedEvent::Close(_)), DeclaredAbsence::Closed(_))
        );
        (counts && is_declared).then_some(declared)
    }

    /// Whether a step waits only for messages that, by declared deviations, the hub never sends.
    pub(in crate::interpreter) fn awaits_only_unsent(
        &self,
        alternatives: &[ExpectedAlternative],
        open: &[AwaitedAlternatives],
    ) -> bool {
        let pack = &self.program.pack;
        open.iter().all(|open| {
            let mut right =
                alternatives.iter().zip(&open.awaited).filter(|(alternative, _)| alternative.fail.is_none());
            right.all(|(_, awaited)| {
                awaited.as_ref().is_some_and(|awaited| self.deviations.never_sent(pack, awaited).is_some())
            })
        })
    }

    /// Returns the alternative that happened first, if any has.
    pub(in crate::interpreter) fn choose_alternative(
        &mut self,
        program: &Program,
        id: ActorId,
        alternatives: &[ExpectedAlternative],
        awaited: &mut [Option<ExpectedFrame>],
        over: bool,
    ) -> Option<(usize, BoundValue)> {
        let actor = &self.actors[id];
        // The earliest frame counts, and for one frame the first matching alternative.
        let message = awaited
            .iter_mut()
            .enumerate()
            .filter_map(|(index, awaited)| {
                let (place, value) =
                    awaited.as_mut()?.find(&actor.latest.inbox.frames, &program.pack, &program.shared.ignore)?;
                Some((actor.latest.inbox.frames[place].wire.sequence, place, index, value))
            })
            .min_by_key(|(sequence, _, index, _)| (*sequence, *index));
        let end =
            alternatives.iter().enumerate().find_map(|(index, alternative)| match (&alternative.want, &actor.link) {
                (Some(ExpectedEvent::Close(codes)), ConnectionState::Ended(end)) if !end.by_us && !end.claimed => {
                    codes.accepts(end).then(|| (end.sequence, index, end.to_json()))
                }
                (Some(ExpectedEvent::Refusal(codes)), ConnectionState::Refused { sequence, refusal, .. }) => {
                    let status = refusal.get("status").and_then(Value::as_u64).unwrap_or(0) as u16;
                    (codes.any || codes.codes.contains(&status)).then(|| (*sequence, index, refusal.clone()))
                }
                _ => None,
            });
        match (message, end) {
            (Some((came, position, index, value)), end) if end.as_ref().is_none_or(|(ended, _, _)| came < *ended) => {
                let entry = &mut self.actors[id].latest.inbox.frames[position];
                entry.claimed = true;
                let wire = Arc::clone(&entry.wire);
                if let (false, Some(awaited)) = (wire.is_assumed(), &awaited[index]) {
                    self.add_arrival(id, awaited);
                }
                Some((index, BoundValue::One { value, wire: Some(wire) }))
            }
            (_, Some((_, index, value))) => {
                let mut wire = None;
                if let ConnectionState::Ended(end) = &mut self.actors[id].link {
                    end.claimed = true;
                    let end = end.clone();
                    wire = Some(self.end_wire(id, &end));
                }
                self.actors[id].latest.end_noticed = true;
                Some((index, BoundValue::One { value, wire }))
            }
            // Silence is certain only if all received frames could be decoded.
            _ if over
                && awaited
                    .iter()
                    .flatten()
                    .all(|awaited| awaited.undecidable_reason(&self.actors[id], &self.program.pack).is_none()) =>
            {
                let index = alternatives.iter().position(|alternative| alternative.want.is_none())?;
                Some((index, BoundValue::from_value(Value::Null)))
            }
            _ => None,
        }
    }
}
