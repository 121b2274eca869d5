//! How promptly a hub answers, learned from conversations that have ended. Conversations wait only briefly for what did
//! not arrive in two others, and for answers after a failure of their own. A failure after such a shortened wait is
//! undecided, so a slow hub is not accused. A wait whose failure would break a further rule lasts in full, unless the hub
//! has never sent the awaited message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Conversation;
use super::active_step::{ActiveStep, StepFailure, StepFailureKind};
use super::matching::ExpectedFrame;
use crate::outcome::{
    AnswerTimes, CheckReport, HubSpeed, MessageKind, ScenarioReport, ShortenedWaits, TimingMargin, WaitReport,
};
use crate::protocol::RuleLevel;
use crate::scenario::model::{
    ActorId, Expectation, ExpectedEvent, GroupQuantity, MessageName, RuleUse, Step, StepAction, StepActors,
};

/// Number of conversations in a row without an arrival after which waits for it are shortened.
const MISSES: usize = 2;
/// How many waits of any kind end in vain before a conversation no longer waits in full.
const MOST_MISSES: usize = 4;
/// How many of the latest conversations show how fast the hub is now. A run begins with many at once, which slows it down.
const RECENT: usize = 8;
/// In how many conversations waits are in vain before later ones are [hurried](HubPromptness::hurried).
const MANY_IN_VAIN: usize = 10;
/// Names of awaited events that are not messages. The name of a message contains no space.
pub(super) const UPGRADE: &str = "the answer to the upgrade";
pub(super) const HUB_CONNECTION: &str = "a connection from the hub";
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
    /// Number of conversations in which a full wait ended in vain.
    vain: usize,
    /// See [`Self::hurried`].
    is_hurried: bool,
    speed: HubSpeed,
    /// How fast the hub was in each of the latest conversations.
    recent: VecDeque<HubSpeed>,
    /// The rules that the hub has been found to break.
    accused: BTreeSet<String>,
    /// See [`Self::for_probe`].
    probed_for: Option<Vec<MessageKind>>,
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
        } else if missed.iter().any(|name| !is_connection(name)) {
            self.unanswered += 1;
        }
        self.vain += usize::from(!missed.is_empty());
        self.speed.add(report.speed);
        self.recent.push_back(report.speed);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// Returns this promptness for a conversation that comes late in a run: on a hub that has left many without an answer,
    /// it waits for answers only as long as the slowest one took, since most of the rest would wait in vain, too.
    pub fn hurried(&self) -> Self {
        Self { is_hurried: self.vain >= MANY_IN_VAIN, ..self.clone() }
    }

    /// Returns how long a wait is ample for this hub.
    pub fn ample_wait(&self) -> Duration {
        self.speed.ample_wait()
    }

    /// Returns how long a wait would be ample, judging by the latest conversations.
    pub fn recent_ample_wait(&self) -> Duration {
        let mut speed = HubSpeed::default();
        self.recent.iter().for_each(|recent| speed.add(*recent));
        speed.ample_wait()
    }

    /// Returns this promptness for a probe: a conversation that shows whether the hub still serves clients, and that ends
    /// once the hub has sent messages of these kinds. Its waits are full until the hub sends something. Waits for events
    /// that the hub has ever sent stay full after that.
    pub fn for_probe(&self, kinds: Vec<MessageKind>) -> Self {
        let mut promptness = Self { probed_for: Some(kinds), ..self.clone() };
        promptness.awaited.values_mut().filter(|arrivals| arrivals.arrived).for_each(|arrivals| arrivals.missed = 0);
        promptness
    }

    /// Returns this promptness for a replay: only how fast the hub is. The replay shows for itself what the hub does not send.
    pub fn for_replay(&self) -> Self {
        Self { speed: self.speed, ..Self::default() }
    }

    /// Returns this promptness for a trial of a deviation that may make these messages come. Waits for them are full.
    pub fn for_trial(&self, awaited: &BTreeSet<String>) -> Self {
        let mut promptness = self.clone();
        for name in awaited {
            promptness.awaited.insert(name.clone(), Arrivals { arrived: true, missed: 0 });
        }
        promptness
    }

    /// Whether this did not arrive in the last conversations that waited for it in full.
    fn is_missing(&self, name: &str) -> bool {
        self.awaited.get(name).is_some_and(|arrivals| arrivals.missed >= MISSES)
    }

    /// Whether this has never arrived, though conversations waited for it in full. What may be missing for a different reason
    /// each time, such as the end of a connection after no message, does not count.
    pub fn has_never_come(&self, name: &str) -> bool {
        !matches!(name, END | CONTROL | ANY)
            && self.awaited.get(name).is_some_and(|arrivals| !arrivals.arrived && arrivals.missed >= MISSES)
    }

    /// Whether the hub sent nothing documented in the last conversations.
    fn is_unanswering(&self) -> bool {
        self.unanswered >= MISSES
    }

    /// Whether a wait for this is probably in vain.
    fn is_in_vain(&self, name: &str) -> bool {
        let never = || self.awaited.get(name).is_none_or(|arrivals| !arrivals.arrived);
        self.is_missing(name) || (self.is_unanswering() && !is_connection(name) && never())
    }
}

/// The waits of a conversation, and what is known about the hub from earlier ones.
pub(super) struct ConversationWaits {
    promptness: Arc<HubPromptness>,
    /// Whether the hub sent a message in this conversation.
    received: bool,
    /// Whether an event arrived for the step being polled. An assumed message is not an arrival.
    arrived_now: bool,
    /// How many waits of each actor for each name ended in vain, without shortened ones and those in `either`. Another actor
    /// may have asked for something else.
    misses: BTreeMap<(Option<ActorId>, String), usize>,
    /// How long, at most, hubproof itself or the end of a connection was late. Answers are not included.
    longest_delay: Duration,
    pub report: WaitReport,
}

impl ConversationWaits {
    pub fn new(promptness: Arc<HubPromptness>) -> Self {
        Self {
            promptness,
            received: false,
            arrived_now: false,
            misses: BTreeMap::new(),
            longest_delay: Duration::ZERO,
            report: WaitReport::default(),
        }
    }

    /// Whether the hub has sent all that a probe is to show.
    pub fn is_probe_over(&self, sent: &BTreeMap<MessageKind, AnswerTimes>) -> bool {
        self.promptness.probed_for.as_ref().is_some_and(|kinds| kinds.iter().all(|kind| sent.contains_key(kind)))
    }

    /// Records that something took this long that usually takes no time.
    pub fn add_delay(&mut self, delay: Duration) {
        self.longest_delay = self.longest_delay.max(delay);
    }

    /// Returns the report; `least` is how long a delay has to be at least to count.
    pub fn finish(self, least: Duration, slimmest: Option<TimingMargin>) -> WaitReport {
        let was_late = self.longest_delay.max(self.report.speed.slowest_answer) >= least;
        WaitReport { was_late, slimmest, ..self.report }
    }

    /// Prepares to poll a step.
    pub fn begin_poll(&mut self) {
        self.arrived_now = false;
    }

    /// Records how long a step waited if it ended in time. A step with its own time limit may wait for a later event,
    /// so it does not count.
    pub fn add_speed(&mut self, step: &Step, waited: Duration) {
        let speed = &mut self.report.speed;
        if matches!(step.act, StepAction::Connect(_)) {
            speed.add(HubSpeed::of_upgrade(waited));
        } else if is_plain_answer(step) && self.arrived_now {
            speed.add(HubSpeed::of_answer(waited));
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

    /// Whether this actor has waited for this in full, again and again, or the conversation for so much that it lacks all
    /// that it rests on.
    fn is_hopeless(&self, actor: Option<ActorId>, name: &str) -> bool {
        let misses = self.misses.get(&(actor, name.to_owned())).copied().unwrap_or_default();
        let all: usize = self.misses.values().sum();
        (misses >= MISSES || all >= MOST_MISSES) && !self.report.arrived.contains(name)
    }

    /// Whether a hook's wait for this is in vain, whatever a failure would show.
    pub fn is_in_vain_here(&self, name: &str) -> bool {
        let is_probe = self.promptness.probed_for.is_some();
        !is_probe && (self.is_hopeless(None, name) || self.promptness.has_never_come(name))
    }

    /// Records a wait in full that ended in vain; `is_telling`: whether later waits for this are probably in vain, too.
    fn add_missed(&mut self, actor: Option<ActorId>, name: &str, is_telling: bool) {
        *self.misses.entry((actor, name.to_owned())).or_default() += usize::from(is_telling);
        self.report.missed.insert(name.to_owned());
    }

    /// Whether a wait that has begun may still be shortened, because the hub has sent something.
    pub fn may_shorten_later(&self) -> bool {
        self.promptness.probed_for.is_some() && self.received
    }

    /// Whether nothing documented has come in this conversation, nor in the last ones before it.
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

    /// Returns the shortened length of a wait for all of these, if it is probably in vain, or if the conversation need not
    /// go on: `is_moot`.
    fn shortened(
        &self,
        names: &BTreeSet<String>,
        documented: Duration,
        least: Duration,
        is_moot: bool,
    ) -> Option<Duration> {
        let short = least.max(self.ample_wait());
        let in_vain =
            |name: &String| is_moot || !self.report.arrived.contains(name) && self.promptness.is_in_vain(name);
        (short < documented && !names.is_empty() && names.iter().all(in_vain)).then_some(short)
    }

    /// Records a shortened wait that ran out. The failure after it proves nothing, unless it `is_known`.
    pub fn add_shortened(
        &mut self,
        names: BTreeSet<String>,
        waited: Duration,
        documented: Duration,
        failure: &mut StepFailure,
        is_known: bool,
    ) {
        if !is_known {
            failure.kind = StepFailureKind::Undecided;
        }
        failure.shortened = Some(waited);
        let why = if names.iter().all(|name| self.promptness.is_missing(name)) {
            "it did not arrive in two conversations"
        } else if self.promptness.is_unanswering() {
            "the hub sent nothing of its document in two conversations"
        } else {
            "the conversation had failed before, or had missed it before"
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
    pub(super) fn least_wait(&self) -> Duration {
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
        let names = self.awaited(step);
        let proves_nothing = self.proves_nothing();
        let is_probe = self.waits.promptness.probed_for.is_some();
        // What was missing before in the same conversation is missing again.
        let is_missed = names.iter().all(|name| self.waits.report.missed.contains(name));
        let actor = self.blocks.members(&step.who).first().copied();
        let is_hopeless =
            !is_probe && !names.is_empty() && names.iter().all(|name| self.waits.is_hopeless(actor, name));
        let is_hurried = self.waits.promptness.is_hurried && is_plain_answer(step);
        let is_moot = !is_probe && (proves_nothing || is_missed) && is_plain_answer(step) || is_hopeless || is_hurried;
        let short = self.waits.shortened(&names, documented, self.least_wait(), is_moot)?;
        let may_be_short = match is_probe {
            true => self.waits.received,
            false => {
                proves_nothing
                    || is_hopeless
                    || is_hurried
                    || names.iter().all(|name| self.waits.promptness.has_never_come(name))
                    || self.accuses_of_nothing_new(step)
            }
        };
        may_be_short.then_some(short)
    }

    /// Whether a missing frame proves nothing from now on: after a failure, or once something assumed was sent.
    fn proves_nothing(&self) -> bool {
        self.judgement.doubt().is_some() || self.judgement.provenance().is_assumed()
    }

    /// Whether the hub has been found to break all rules that a failure of this step would break.
    fn accuses_of_nothing_new(&self, step: &Step) -> bool {
        let program = &self.program;
        let broken = self.judgement.broken_rules(program);
        let is_known = |rule: &RuleUse| self.waits.promptness.accused.contains(&rule.id) || broken.contains(&*rule.id);
        let can_be_accused = |rule: &RuleUse| rule.level != RuleLevel::May && !is_known(rule);
        let around = self.blocks.failing_checks(program);
        let mut checks = step.check.into_iter().chain(around).map(|check| &program.checks[check].rules);
        checks.all(|rules| !rules.is_empty() && !rules.iter().any(can_be_accused))
    }

    /// Whether a failure of this step would only warn of rules that this conversation has broken before, after waits in full.
    pub(super) fn only_warns_again(&self, step: &Step) -> bool {
        let broken = self.judgement.broken_rules(&self.program);
        let rules = step.check.map(|check| self.program.checks[check].rules.as_slice()).unwrap_or_default();
        let is_known = |rule: &RuleUse| rule.level != RuleLevel::Must && broken.contains(&*rule.id);
        !rules.is_empty() && rules.iter().all(is_known)
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
        self.record_silence();
        if let Some(full) = full {
            let is_known = self.only_warns_again(step);
            self.waits.add_shortened(names, waited, full.saturating_sub(since), failure, is_known);
            return;
        }
        if waited >= self.clock.stretched(self.clock.patience) {
            let actor = self.blocks.members(&step.who).first().copied();
            names.iter().for_each(|name| self.add_missed(actor, name));
        }
    }

    /// Records that the checks which fail because of the current step rest on what has not happened yet.
    pub(super) fn record_silence(&mut self) {
        let checks = self.blocks.failing_checks(&self.program).map(|check| self.program.checks[check].name.clone());
        self.waits.report.silent_checks.extend(checks);
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
        let actor = self.blocks.members(&step.who).first().copied();
        match &step.act {
            StepAction::Connect(_) => [UPGRADE.to_owned()].into(),
            StepAction::Accept { .. } => [HUB_CONNECTION.to_owned()].into(),
            StepAction::ExpectEnd { .. } => [self.name_after(END, self.actors.last_sender())].into(),
            StepAction::Expect(expect) if is_judged_by_arrival(step, expect) => {
                self.awaited_name(&expect.want, actor).into_iter().collect()
            }
            StepAction::ExpectOneOf { alternatives, .. } => {
                if alternatives.iter().any(|alternative| alternative.want.is_none()) {
                    return BTreeSet::new();
                }
                let right = alternatives.iter().filter(|alternative| alternative.fail.is_none());
                right.filter_map(|alternative| self.awaited_name(alternative.want.as_ref()?, actor)).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    /// Returns the name of a wait of this actor for any message. A hub may answer one kind of request and not another.
    fn any_message(&self, actor: Option<ActorId>) -> String {
        self.name_after(ANY, actor)
    }

    /// Returns the name of an event after the latest message of this actor.
    fn name_after(&self, event: &str, actor: Option<ActorId>) -> String {
        let last = actor.and_then(|id| self.actors[id].latest.requests.back()).and_then(|request| request.message);
        match last {
            Some(message) => format!("{event} after {}", self.program.pack.messages[message].name),
            None => event.to_owned(),
        }
    }

    /// Records a wait in full that ended in vain. That one way of `either` failed says nothing about the others.
    pub(super) fn add_missed(&mut self, actor: Option<ActorId>, name: &str) {
        let is_telling = !self.blocks.is_in_either();
        self.waits.add_missed(actor, name, is_telling);
    }

    /// Records that the hub has ended a connection.
    pub(super) fn add_end(&mut self) {
        let name = self.name_after(END, self.actors.last_sender());
        self.waits.add_arrival(END);
        self.waits.add_arrival(&name);
    }

    /// Records that an awaited frame has arrived.
    pub(super) fn add_arrival(&mut self, id: ActorId, awaited: &ExpectedFrame) {
        let name = awaited.awaited_name(&self.program.pack);
        self.waits.add_arrival(name);
        if name != CONTROL {
            let any = self.any_message(Some(id));
            self.waits.add_arrival(&any);
        }
    }

    fn awaited_name(&self, want: &ExpectedEvent, actor: Option<ActorId>) -> Option<String> {
        match want {
            ExpectedEvent::Message { message: MessageName::Any, .. } => Some(self.any_message(actor)),
            ExpectedEvent::Message { message: MessageName::Named(name), .. } => Some(name.clone()),
            ExpectedEvent::Message { message: MessageName::Computed(template), .. } => {
                let name = template.eval(&self.eval_context(None)).ok()?;
                let name = name.as_str()?;
                Some(if name == "any" { self.any_message(actor) } else { name.to_owned() })
            }
            ExpectedEvent::Control { .. } => Some(CONTROL.to_owned()),
            ExpectedEvent::Close(_) => Some(self.name_after(END, self.actors.last_sender())),
            ExpectedEvent::Refusal(_) => Some(UPGRADE.to_owned()),
        }
    }
}

/// Whether this is the name of a connection rather than of what is sent on it.
fn is_connection(name: &str) -> bool {
    matches!(name, UPGRADE | HUB_CONNECTION)
}

/// Whether the hub did anything documented but make connections.
fn is_answered(report: &WaitReport) -> bool {
    report.answered || report.arrived.iter().any(|name| !is_connection(name))
}

/// Whether a step waits for an answer. A step with a time limit of its own may wait for a later event.
pub(super) fn is_plain_answer(step: &Step) -> bool {
    match &step.act {
        StepAction::Expect(expect) => expect.within.is_none() && expect.for_.is_none(),
        StepAction::ExpectOneOf { within, .. } => within.is_none(),
        _ => false,
    }
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
