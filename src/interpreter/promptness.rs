//! How promptly a hub answers, learned from conversations that have ended. A wait for what has not arrived in three
//! conversations is shortened. A failure after a shortened wait is undecided, so that no slow hub is accused. A wait
//! that could show that the hub breaks a further rule is not shortened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Conversation;
use super::active_step::{ActiveStep, StepFailure, StepFailureKind};
use crate::outcome::{CheckReport, HubSpeed, ScenarioReport, ShortenedWaits, WaitReport};
use crate::protocol::RuleLevel;
use crate::scenario::model::{
    Expectation, ExpectedEvent, GroupQuantity, MessageName, RuleUse, Step, StepAction, StepActors,
};

/// Number of conversations in a row without an arrival after which waits for it are shortened.
const MISSES: usize = 3;
/// Names of awaited events that are not messages. The name of a message contains no space.
pub(super) const UPGRADE: &str = "the answer to the upgrade";
pub(super) const END: &str = "the end of the connection";
pub(super) const CONTROL: &str = "a control frame";
pub(super) const ANY: &str = "any message";

/// How promptly a hub answers, according to the conversations that have ended.
#[derive(Clone, Debug, Default)]
pub struct HubPromptness {
    /// By the name of the awaited event.
    awaited: BTreeMap<String, Arrivals>,
    /// Number of consecutive conversations, up to the latest, in which the hub sent nothing documented during a full
    /// wait.
    unanswered: usize,
    speed: HubSpeed,
    /// The rules that the hub has been found to break.
    accused: BTreeSet<String>,
    /// See [`Self::for_probe`].
    for_probe: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    arrived: bool,
    /// Number of consecutive conversations, up to the latest, in which a full wait ended without an arrival.
    missed: usize,
}

impl HubPromptness {
    /// Adds a conversation that has ended.
    pub fn add(&mut self, report: &ScenarioReport) {
        let accusing = report.checks.iter().filter(|check| check.accuses_hub());
        self.accused.extend(accusing.flat_map(CheckReport::rules_of_verdict).map(|used| used.id.clone()));
        self.add_waits(&report.waits);
    }

    fn add_waits(&mut self, report: &WaitReport) {
        for name in &report.arrived {
            self.awaited.insert(name.clone(), Arrivals { arrived: true, missed: 0 });
        }
        let missed: Vec<&String> = report.missed.difference(&report.arrived).collect();
        for name in &missed {
            self.awaited.entry((*name).clone()).or_default().missed += 1;
        }
        if is_answered(report) {
            self.unanswered = 0;
        } else if missed.iter().any(|name| *name != UPGRADE) {
            self.unanswered += 1;
        }
        self.speed.add(report.speed);
    }

    /// Returns how long a wait is ample for this hub.
    pub fn ample_wait(&self) -> Duration {
        self.speed.ample_wait()
    }

    /// Returns this promptness for a probe: a conversation that shows whether the hub still serves clients. Its waits are full
    /// until the hub sends something. Waits for events that the hub has ever sent stay full after that.
    pub fn for_probe(&self) -> Self {
        let mut promptness = Self { for_probe: true, ..self.clone() };
        promptness.awaited.values_mut().filter(|arrivals| arrivals.arrived).for_each(|arrivals| arrivals.missed = 0);
        promptness
    }

    /// Returns this promptness for a trial of a deviation that may make these messages come. Waits for them are full.
    pub fn for_trial(&self, awaited: &BTreeSet<String>) -> Self {
        let mut promptness = self.clone();
        for name in awaited {
            promptness.awaited.insert(name.clone(), Arrivals { arrived: true, missed: 0 });
        }
        promptness
    }

    /// Whether this did not arrive in three conversations that waited for it in full.
    fn is_missing(&self, name: &str) -> bool {
        self.awaited.get(name).is_some_and(|arrivals| arrivals.missed >= MISSES)
    }

    /// Whether the hub sent nothing documented in three conversations.
    fn is_unanswering(&self) -> bool {
        self.unanswered >= MISSES
    }

    /// Whether a wait for this is probably in vain.
    fn is_in_vain(&self, name: &str) -> bool {
        let never = || self.awaited.get(name).is_none_or(|arrivals| !arrivals.arrived);
        self.is_missing(name) || (self.is_unanswering() && name != UPGRADE && never())
    }
}

/// The waits of a conversation, and what is known about the hub from earlier ones.
pub(super) struct ConversationWaits {
    promptness: Arc<HubPromptness>,
    /// Whether the hub sent a message in this conversation.
    received: bool,
    /// Whether an event arrived for the step being polled. An assumed message is not an arrival.
    arrived_now: bool,
    pub report: WaitReport,
}

impl ConversationWaits {
    pub fn new(promptness: Arc<HubPromptness>) -> Self {
        Self { promptness, received: false, arrived_now: false, report: WaitReport::default() }
    }

    /// Prepares to poll a step.
    pub fn begin_poll(&mut self) {
        self.arrived_now = false;
    }

    /// Records how long a step waited if it ended in time. A step with its own time limit may wait for a later event,
    /// so it does not count.
    pub fn add_speed(&mut self, step: &Step, waited: Duration) {
        let is_answer = match &step.act {
            StepAction::Expect(expect) => expect.within.is_none() && expect.for_.is_none(),
            StepAction::ExpectOneOf { within, .. } => within.is_none(),
            _ => false,
        };
        let speed = &mut self.report.speed;
        if matches!(step.act, StepAction::Connect(_)) {
            speed.add(HubSpeed { quickest_upgrade: Some(waited), ..HubSpeed::default() });
        } else if is_answer && self.arrived_now {
            speed.add(HubSpeed { slowest_answer: waited, ..HubSpeed::default() });
        }
    }

    pub fn add_arrival(&mut self, name: &str) {
        self.arrived_now = true;
        if !self.report.arrived.contains(name) {
            self.report.arrived.insert(name.to_owned());
        }
    }

    /// Records that the hub sent a message. It is an arrival if an earlier step waited for it in vain.
    pub fn add_message(&mut self, name: Option<&str>, is_answer: bool) {
        self.received = true;
        self.report.answered |= is_answer;
        let Some(name) = name else { return };
        if self.report.missed.contains(name) || self.report.shortened.contains_key(name) {
            self.add_arrival(name);
        }
    }

    pub fn add_missed(&mut self, name: &str) {
        self.report.missed.insert(name.to_owned());
    }

    /// Whether a wait that has begun may still be shortened, because the hub has sent something.
    pub fn may_shorten_later(&self) -> bool {
        self.promptness.for_probe && self.received
    }

    /// Whether nothing documented has come in this conversation, nor in three before it.
    pub fn is_unanswered(&self) -> bool {
        self.promptness.is_unanswering() && !is_answered(&self.report)
    }

    /// Whether the failure of a step shows that the hub does not send the awaited message. A wait that was shortened
    /// only because the hub sends nothing at all shows nothing about this message.
    fn is_evidence(&self, names: &BTreeSet<String>, failure: &StepFailure) -> bool {
        failure.shortened.is_none() || names.iter().all(|name| self.promptness.is_missing(name))
    }

    /// Returns how long a wait is ample for this hub, as far as its answers have shown.
    pub fn ample_wait(&self) -> Duration {
        let mut speed = self.promptness.speed;
        speed.add(self.report.speed);
        speed.ample_wait()
    }

    /// Returns the shortened length of a wait for all of these, if it is probably in vain.
    fn shortened(&self, names: &BTreeSet<String>, documented: Duration, least: Duration) -> Option<Duration> {
        let short = least.max(self.promptness.speed.ample_wait());
        let in_vain = |name: &String| !self.report.arrived.contains(name) && self.promptness.is_in_vain(name);
        (short < documented && !names.is_empty() && names.iter().all(in_vain)).then_some(short)
    }

    /// Records a shortened wait that ran out. The failure after it proves nothing.
    fn add_shortened(
        &mut self,
        names: BTreeSet<String>,
        waited: Duration,
        documented: Duration,
        failure: &mut StepFailure,
    ) {
        failure.kind = StepFailureKind::Undecided;
        failure.shortened = Some(waited);
        let why = if names.iter().all(|name| self.promptness.is_missing(name)) {
            "it did not arrive in three conversations"
        } else {
            "the hub sent nothing of its document in three conversations"
        };
        failure.message = format!("{}, but not waited for in full: {why}", failure.message);
        for name in names {
            let one = self.report.shortened.entry(name).or_default();
            *one = one.plus(ShortenedWaits { times: 1, saved: documented.saturating_sub(waited) });
        }
    }
}

impl Conversation {
    /// Returns the least length of a shortened wait. Messages that a deviation assumes come within it.
    fn least_wait(&self) -> Duration {
        self.clock.quiet.max(self.clock.stretched(self.clock.quiet))
    }

    /// Shortens a wait that is probably in vain.
    pub(super) fn shorten_wait(&self, step: &Step, active: ActiveStep) -> ActiveStep {
        let Some(deadline) = active.deadline.filter(|_| active.full.is_none()) else { return active };
        match self.shortened(step, deadline.saturating_sub(active.since)) {
            Some(short) => ActiveStep { deadline: Some(active.since + short), full: Some(deadline), ..active },
            None => active,
        }
    }

    /// Returns the shortened length of a step's wait, if it is probably in vain and a failure would show nothing new.
    fn shortened(&self, step: &Step, documented: Duration) -> Option<Duration> {
        let short = self.waits.shortened(&self.awaited(step), documented, self.least_wait())?;
        let may_be_short = match self.waits.promptness.for_probe {
            true => self.waits.received,
            false => self.accuses_of_nothing_new(step),
        };
        may_be_short.then_some(short)
    }

    /// Whether the hub has been found to break all rules that a failure of this step would break.
    fn accuses_of_nothing_new(&self, step: &Step) -> bool {
        let program = &self.program;
        let can_be_accused =
            |rule: &RuleUse| rule.level != RuleLevel::May && !self.waits.promptness.accused.contains(&rule.id);
        let around = self.blocks.failing_checks(program);
        let mut checks = step.check.into_iter().chain(around).map(|check| &program.checks[check].rules);
        // After a failure, or once something assumed was sent, a missing frame proves nothing.
        let proves_nothing = self.judgement.doubt().is_some() || self.judgement.provenance().is_assumed();
        proves_nothing || checks.all(|rules| !rules.is_empty() && !rules.iter().any(can_be_accused))
    }

    /// Records a wait that ran out, from `since`. If it was shortened, `full` is when it should have ended.
    pub(super) fn record_run_out(
        &mut self,
        step: &Step,
        since: Duration,
        full: Option<Duration>,
        failure: &mut StepFailure,
    ) {
        let (names, waited) = (self.awaited(step), self.clock.since(since));
        if let Some(full) = full {
            self.waits.add_shortened(names, waited, full.saturating_sub(since), failure);
            return;
        }
        let checks = self.blocks.failing_checks(&self.program).map(|check| self.program.checks[check].name.clone());
        self.waits.report.silent_checks.extend(checks);
        if waited >= self.clock.stretched(self.clock.patience) {
            names.iter().for_each(|name| self.waits.add_missed(name));
        }
    }

    /// See [`ConversationWaits::is_evidence`].
    pub(super) fn is_evidence(&self, step: &Step, failure: &StepFailure) -> bool {
        self.waits.is_evidence(&self.awaited(step), failure)
    }

    /// Ends a `retry` that is probably in vain, or that has run out. Returns whether it may continue.
    pub(super) fn may_retry(
        &mut self,
        step: &Step,
        since: Duration,
        until: Duration,
        failure: &mut StepFailure,
    ) -> bool {
        let short = self.shortened(step, until.saturating_sub(since));
        if self.clock.now >= until {
            self.record_run_out(step, since, None, failure);
        } else if short.is_some_and(|short| self.clock.since(since) >= short) {
            if failure.shortened.is_none() {
                self.record_run_out(step, since, Some(until), failure);
            }
        } else {
            return true;
        }
        false
    }

    /// Returns the names of what a step awaits, if a wait for it can be shortened: it can be judged by an arrival, and
    /// not only by silence.
    fn awaited(&self, step: &Step) -> BTreeSet<String> {
        match &step.act {
            StepAction::Connect(_) | StepAction::Accept { .. } => [UPGRADE.to_owned()].into(),
            StepAction::ExpectEnd { .. } => [END.to_owned()].into(),
            StepAction::Expect(expect) if is_judged_by_arrival(step, expect) => {
                self.awaited_name(&expect.want).into_iter().collect()
            }
            StepAction::ExpectOneOf { alternatives, .. } => {
                if alternatives.iter().any(|alternative| alternative.want.is_none()) {
                    return BTreeSet::new();
                }
                let right = alternatives.iter().filter(|alternative| alternative.fail.is_none());
                right.filter_map(|alternative| self.awaited_name(alternative.want.as_ref()?)).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    fn awaited_name(&self, want: &ExpectedEvent) -> Option<String> {
        match want {
            ExpectedEvent::Message { message: MessageName::Any, .. } => Some(ANY.to_owned()),
            ExpectedEvent::Message { message: MessageName::Named(name), .. } => Some(name.clone()),
            ExpectedEvent::Message { message: MessageName::Computed(template), .. } => {
                let name = template.eval(&self.eval_context(None)).ok()?;
                let name = name.as_str()?;
                Some(if name == "any" { ANY } else { name }.to_owned())
            }
            ExpectedEvent::Control { .. } => Some(CONTROL.to_owned()),
            ExpectedEvent::Close(_) => Some(END.to_owned()),
            ExpectedEvent::Refusal(_) => Some(UPGRADE.to_owned()),
        }
    }
}

/// Whether the hub did anything documented but accept connections.
fn is_answered(report: &WaitReport) -> bool {
    report.answered || report.arrived.iter().any(|name| name != UPGRADE)
}

/// Whether the end of a wait shows only that something did not arrive. With `for` and `at most`, it also shows that no
/// more arrived.
fn is_judged_by_arrival(step: &Step, expect: &Expectation) -> bool {
    let quantity = match &step.who {
        StepActors::Group { quantity, .. } => quantity.as_ref(),
        _ => None,
    };
    expect.for_.is_none() && !matches!(quantity, Some((GroupQuantity::AtMost, _)))
}
