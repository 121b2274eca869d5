//! Plays a scenario on an instance of a hub: alone if the scenario asks for that, and a second time, alone, if the hub
//! crashed or hung during the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::comparison::SecondHub;
use super::permits::wait_for_turn;
use super::queue::Resource;
use super::{PlayOptions, driver};
use crate::deviation::Deviations;
use crate::hub::prepare::{PreparedHub, PreparedInstance, PromptnessByInstance, SetupError};
use crate::hub::supervisor::{self, ActivePlay, HubProcess, HubUse, ProcessEnd};
use crate::interpreter::{
    AMPLE_SETTLE, ConversationConfig, EarlyEnd, HubPromptness, MOST_PAUSES, SETTLE_AFTER_CONNECT, name_pool,
    planned_wait, unmet_needs,
};
use crate::judge::service::{ServiceLoss, ServiceProbe, UnservedScenario};
use crate::judge::{Evidence, PlayId, Replay, has_passed};
use crate::outcome::{
    CheckReport, FrameKind, Lack, MessageKind, PreconditionFailure, ScenarioReport, UnmetNeed, Verdict,
};
use crate::redact::SecretMasker;
use crate::reference::model::{ModelPlay, ReferenceModel};
use crate::report::events::ScenarioEvent;
use crate::report::scenario_verdict;
use crate::scenario::template::Template;
use crate::scenario::variation::Variation;
use crate::scenario::{Isolation, Program};
use crate::transport::CarrierKind;

/// The longest planned wait of a scenario that is compared with the model. In a longer one, timers of the hub decide.
const MAX_MODEL_WAIT: Duration = Duration::from_secs(20);

/// A scenario with the instance on which it will run.
#[derive(Clone)]
pub struct ScenarioJob {
    program: Arc<Program>,
    place: JobPlacement,
    repetition: usize,
    /// The number of the scenario in the run.
    turn: usize,
    subject: Arc<PreparedHub>,
    /// The scenario's id in reports.
    id: String,
    injected_input: Option<(&'static str, Arc<Template>)>,
    /// The hang detectors of the instances, if the run is to detect hangs.
    service_probes: Option<Arc<Vec<ServiceProbe>>>,
    /// How promptly the instances answer, if waits are to be shortened.
    promptness: Option<PromptnessByInstance>,
    /// If it only shows whether the hub still serves clients: the kinds of messages that show it.
    probed_for: Option<Vec<MessageKind>>,
    /// The declared deviations.
    deviations: Arc<Deviations>,
    variation: Option<Variation>,
    /// See [`ConversationConfig::early_end`].
    early_end: Option<EarlyEnd>,
    /// Whether it has the hub to itself, whatever the program says.
    alone: bool,
    /// The replay for which it is played, if any.
    replay: Option<Replay>,
}

/// The phase of a run in which a scenario is played; one phase starts when the previous one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlayPhase {
    Shared,
    Alone,
    Destructive,
}

#[derive(Clone)]
enum JobPlacement {
    Instance(usize),
    /// No instance meets these needs.
    Nowhere(Vec<UnmetNeed>),
}

impl ScenarioJob {
    /// Places the scenario on the first instance of a hub that meets its needs. `repetition` counts from 1.
    ///
    /// # Errors
    ///
    /// [`SetupError::Need`]: a need of the scenario cannot be read.
    pub fn new(
        program: &Arc<Program>,
        repetition: usize,
        subject: &Arc<PreparedHub>,
        options: &PlayOptions,
    ) -> Result<Self, SetupError> {
        let place = choose_instance(program, subject, options)?;
        let (program, subject) = (Arc::clone(program), Arc::clone(subject));
        let id = program.id.clone();
        let deviations = Arc::clone(&subject.deviations);
        Ok(Self {
            program,
            place,
            repetition,
            turn: 0,
            subject,
            id,
            injected_input: None,
            service_probes: None,
            promptness: None,
            probed_for: None,
            deviations,
            variation: None,
            early_end: None,
            alone: false,
            replay: None,
        })
    }

    /// Returns the same job, after which a hang is detected; `service_probes` are the detectors of the instances.
    pub fn with_service_probes(self, service_probes: &Arc<Vec<ServiceProbe>>) -> Self {
        Self { service_probes: Some(Arc::clone(service_probes)), ..self }
    }

    /// Returns the same job, with waits that are shortened where the hub does not answer.
    pub fn with_shortened_waits(self, promptness: &PromptnessByInstance) -> Self {
        Self { promptness: Some(Arc::clone(promptness)), ..self }
    }

    /// Returns the same job, with waits as the scenario states them.
    pub(super) fn with_full_waits(self) -> Self {
        Self { promptness: None, ..self }
    }

    /// Returns the same job, with the hub to itself.
    pub(super) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Returns the same job as a trial wants it replayed, with waits in full until something is missing.
    pub(super) fn for_replay(self, replay: &Replay) -> Self {
        let job = Self { replay: Some(*replay), ..self };
        if replay.is_alone { job.alone() } else { job }
    }

    /// Returns how promptly an instance has answered so far.
    fn promptness_of(&self, instance: &str) -> Arc<HubPromptness> {
        let known =
            self.promptness.as_ref().and_then(|promptness| lock(promptness).get(instance).cloned()).unwrap_or_default();
        match (&self.probed_for, &self.replay) {
            (Some(kinds), _) => Arc::new(known.for_probe(kinds.clone())),
            (None, Some(_)) => Arc::new(known.for_replay()),
            (None, None) => known,
        }
    }

    /// Whether this is a message that the hub has never sent, though scenarios waited for it in full.
    pub(super) fn has_never_come(&self, name: &str) -> bool {
        let JobPlacement::Instance(index) = self.place else { return false };
        self.promptness_of(&self.subject.instances[index].name).has_never_come(name)
    }

    /// Returns the same job under another id, in which the `sends raw` step bound to `name` sends `input`, or the
    /// loop over `name` goes through it.
    pub fn with_input(self, id: &str, name: &'static str, input: Template) -> Self {
        Self { id: id.to_owned(), injected_input: Some((name, Arc::new(input))), ..self }
    }

    /// Returns the same job under another id, with other deviations.
    pub(super) fn with_deviations(self, id: String, deviations: Arc<Deviations>) -> Self {
        Self { id, deviations, ..self }
    }

    /// Returns the same job under another id, played with a variation.
    pub(super) fn with_variation(self, id: String, variation: Variation) -> Self {
        Self { id, variation: Some(variation), ..self }
    }

    /// Returns the same job, whose clients leave before the end.
    pub(super) fn leaving_early(self, end: EarlyEnd) -> Self {
        Self { early_end: Some(end), service_probes: None, ..self }
    }

    /// Returns the job of the scenario as it is written.
    pub(super) fn as_written(&self) -> Self {
        Self { id: self.program.id.clone(), variation: None, ..self.clone() }
    }

    pub(super) fn variation(&self) -> Option<&Variation> {
        self.variation.as_ref()
    }

    /// Returns the settings of the instance on which it is played, if messages are sent there as documented.
    pub(super) fn settings_as_documented(&self) -> Option<&BTreeMap<String, Value>> {
        let JobPlacement::Instance(index) = self.place else { return None };
        self.deviations.is_empty().then_some(&self.subject.instances[index].settings)
    }

    /// Returns how long the pauses of its variation may take.
    pub(super) fn pauses(&self) -> Duration {
        match self.variation {
            Some(Variation::Pauses(time)) => time * MOST_PAUSES,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn repetition(&self) -> usize {
        self.repetition
    }

    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Whether some instance meets the scenario's needs.
    pub(super) fn has_place(&self) -> bool {
        matches!(self.place, JobPlacement::Instance(_))
    }

    /// Plays the scenario on the second hub; `id` is that of its play on the hub. Returns `None` if it cannot be
    /// played there, or the run was interrupted before.
    pub(super) async fn play_elsewhere(
        &self,
        second_hub: &SecondHub,
        id: PlayId,
        options: &PlayOptions,
        interrupt: watch::Receiver<bool>,
    ) -> Option<ScenarioReport> {
        match second_hub {
            SecondHub::Model(model) => self.play_on_model(id, options, model),
            SecondHub::Hub(hub) => {
                let there = Self::new(&self.program, self.repetition, hub, options).ok()?;
                // Its events are not reported.
                let unread = mpsc::channel(1).0;
                there.play_once(id, options, &unread, interrupt).await
            }
        }
    }

    /// Plays the scenario on the model of its protocol.
    pub fn play_on_model(&self, id: PlayId, options: &PlayOptions, model: &ReferenceModel) -> Option<ScenarioReport> {
        let waits = match self.place {
            JobPlacement::Instance(index) => planned_wait(&self.program, &self.subject.instances[index].settings),
            JobPlacement::Nowhere(_) => return None,
        };
        if waits > MAX_MODEL_WAIT || self.program.isolation == Isolation::Destructive {
            return None;
        }
        let play = ModelPlay {
            stamp: format!("{}{id}", options.stamp),
            turn: turn_of(id),
            stretch: options.stretch,
            kept_chars: options.kept_chars,
            persistent: options.persistent,
            injected_input: self.injected_input.clone(),
        };
        model.play(&self.program, play)
    }

    /// Returns the scenario's id in reports.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the phase in which the scenario is played. A scenario that gets a hub of its own disturbs no other.
    pub(super) fn phase(&self) -> PlayPhase {
        match self.program.isolation {
            _ if self.subject.is_renewable() => PlayPhase::Shared,
            Isolation::Destructive => PlayPhase::Destructive,
            _ if self.is_alone() => PlayPhase::Alone,
            _ => PlayPhase::Shared,
        }
    }

    /// Returns the resource that the scenario needs exclusively, if any.
    pub(super) fn resource(&self) -> Option<Resource> {
        let JobPlacement::Instance(index) = self.place else { return None };
        match self.isolation(&self.subject.instances[index]) {
            Isolation::Exclusive(word) if !self.subject.is_renewable() => {
                Some((Arc::as_ptr(&self.subject).addr(), word))
            }
            _ => None,
        }
    }

    /// Returns how long the scenario is known to wait.
    pub(super) fn planned_wait(&self) -> Duration {
        match self.place {
            JobPlacement::Instance(index) => planned_wait(&self.program, &self.subject.instances[index].settings),
            JobPlacement::Nowhere(_) => Duration::ZERO,
        }
    }

    fn isolation(&self, site: &PreparedInstance) -> Isolation {
        if self.alone {
            return Isolation::Exclusive("hub".to_owned());
        }
        let alone = self.is_alone() || self.program.isolation == Isolation::Destructive;
        match name_pool(&self.program, &site.settings).filter(|_| !alone) {
            Some(pool) => Isolation::Exclusive(pool),
            None => self.program.isolation.clone(),
        }
    }

    /// Whether the scenario must be the only one on the hub while it is played.
    fn is_alone(&self) -> bool {
        matches!(&self.program.isolation, Isolation::Exclusive(word) if word == "hub") && !self.subject.is_renewable()
    }

    /// Waits for the scenario's turn and plays it. Returns `None` if the run was interrupted before. `id` must be unique
    /// within the run.
    pub(super) async fn play_once(
        mut self,
        id: PlayId,
        options: &PlayOptions,
        events: &mpsc::Sender<ScenarioEvent>,
        interrupt: watch::Receiver<bool>,
    ) -> Option<ScenarioReport> {
        let index = match self.place {
            JobPlacement::Nowhere(unmet) => return Some(not_testable_report(&self.program, unmet, self.repetition)),
            JobPlacement::Instance(index) => index,
        };
        self.turn = turn_of(id);
        let _ = events.send(ScenarioEvent::Started { id: self.id.clone() }).await;
        self.play_at(index, id, options, events, interrupt).await
    }

    /// Returns what the failure of a scenario rests on, if it rests on what did not come in time: it may still have come
    /// from a slow hub, or be late because of other scenarios.
    pub(super) fn evidence_of_failure(&self, report: &ScenarioReport, options: &PlayOptions) -> Option<Evidence> {
        let JobPlacement::Instance(index) = self.place else { return None };
        let as_written = self.variation.is_none() && self.injected_input.is_none() && self.early_end.is_none();
        // Repetitions show by themselves what fails only sometimes.
        let plays_again = as_written
            && options.repeat == 1
            && self.probed_for.is_none()
            && self.program.isolation != Isolation::Destructive;
        if !plays_again {
            return None;
        }
        let accusing = || report.checks.iter().filter(|check| check.accuses_hub());
        if accusing().next().is_none() && crowding_refusal(report).is_some() {
            return Some(Evidence::Refusal);
        }
        if accusing().any(|check| !check.rests_on_unfenced.is_empty()) {
            return Some(Evidence::UnknownClient);
        }
        let waits = &report.waits;
        let is_silent_check = |check: &CheckReport| waits.silent_checks.contains(&check.name);
        let is_slow = self.slowness(index).max(waits.speed.ample_wait()) > self.patience(options)
            || waits.was_late && waits.chose_silence;
        let is_whole = !report.interrupted && report.mistake.is_none() && report.unserved.is_none();
        if is_whole && accusing().any(|check| report.rests_on_time(check) && !is_silent_check(check)) {
            return Some(Evidence::Haste);
        }
        if is_whole && accusing().any(is_silent_check) || is_slow && is_silent(report) {
            return Some(if is_slow { Evidence::Lateness } else { Evidence::Silence });
        }
        self.is_blocked(report, options).then_some(Evidence::Blockage)
    }

    /// Whether a scenario stopped because a message did not come that the hub has sent in other scenarios, and accuses
    /// the hub of nothing. Scenarios that ran at the same time may be the reason.
    pub(super) fn is_blocked(&self, report: &ScenarioReport, options: &PlayOptions) -> bool {
        let waits = &report.waits;
        let mut awaited = waits.missed.iter().chain(waits.shortened.keys()).peekable();
        let is_whole = report.unserved.is_none() && report.mistake.is_none() && !report.interrupted;
        // Trials of deviations have ids of their own.
        let is_beside_others = options.jobs > 1 && self.id == self.program.id;
        let is_stopped = report.cause.as_ref().is_some_and(|cause| !cause.unreachable);
        (is_beside_others && is_whole && is_stopped && report.verdict == Verdict::Inconclusive)
            && !report.checks.iter().any(CheckReport::accuses_hub)
            && awaited.peek().is_some()
            && !awaited.any(|name| self.has_never_come(name))
    }

    fn patience(&self, options: &PlayOptions) -> Duration {
        self.subject.target.patience.mul_f64(options.stretch)
    }

    /// Returns a wait that is long enough for this instance, judging by its answers so far.
    fn slowness(&self, index: usize) -> Duration {
        self.promptness_of(&self.subject.instances[index].name).ample_wait()
    }

    /// Whether the hub has lately been so slow that many more conversations could make it miss its deadlines.
    pub(super) fn is_on_slow_hub(&self, options: &PlayOptions) -> bool {
        let lately = |index: usize| self.promptness_of(&self.subject.instances[index].name).recent_ample_wait();
        matches!(self.place, JobPlacement::Instance(index) if lately(index) > self.patience(options))
    }

    /// Whether other scenarios can be played after one that destroys the hub.
    pub(super) fn is_on_hub_that_comes_back(&self) -> bool {
        let JobPlacement::Instance(index) = self.place else { return true };
        let process = self.subject.instances[index].process.as_ref();
        self.subject.is_renewable() || process.is_some_and(|process| process.is_restartable())
    }

    /// Waits for the scenario's turn and plays it on an instance. Names made by the scenario contain `id`.
    async fn play_at(
        self,
        index: usize,
        id: PlayId,
        options: &PlayOptions,
        events: &mpsc::Sender<ScenarioEvent>,
        mut interrupt: watch::Receiver<bool>,
    ) -> Option<ScenarioReport> {
        let site = &self.subject.instances[index];
        let isolation = self.isolation(site);
        let destructive = self.program.isolation == Isolation::Destructive;
        if let Some(process) = &site.process
            && (process.is_restartable() || !destructive)
        {
            return self.play_on_process(process, index, id, options, events, interrupt).await;
        }
        let turn = wait_for_turn(&self.subject, &self.program, &isolation, &mut interrupt).await?;
        let mut report = play_job(&self, index, id, options, events, interrupt.clone()).await;
        self.try_without_upgrades(index, &mut report, id, options, &interrupt).await;
        let unserved = self.find_unserved(index, &report, id, options, interrupt).await;
        report.unserved = unserved.and_then(UnservedScenario::into_hang);
        turn.release(&self.subject);
        Some(report)
    }

    /// Plays the scenario on a hub whose process is known: once more, alone, if the hub ended during it.
    async fn play_on_process(
        &self,
        process: &Arc<HubProcess>,
        index: usize,
        id: PlayId,
        options: &PlayOptions,
        events: &mpsc::Sender<ScenarioEvent>,
        mut interrupt: watch::Receiver<bool>,
    ) -> Option<ScenarioReport> {
        let isolation = self.isolation(&self.subject.instances[index]);
        let destructive = self.program.isolation == Isolation::Destructive;
        let first = if destructive { HubUse::Destructive } else { HubUse::Shared };
        let alone = Isolation::Exclusive("hub".to_owned());
        let mut trial = Evidence::Crash.trial(id);
        let (mut id, mut crashes): (PlayId, Vec<ProcessEnd>) = (id, Vec::new());
        loop {
            let again = !crashes.is_empty();
            // A hub that was restarted may be slow at first.
            let job = Self { promptness: self.promptness.clone().filter(|_| !again), ..self.clone() };
            let mut kind = if again { HubUse::Alone } else { first };
            let begun = async {
                let needed = if again { &alone } else { &isolation };
                let mut turn = wait_for_turn(&self.subject, &self.program, needed, &mut interrupt).await?;
                // By now all scenarios that were played beside it have ended.
                if let [crash] = crashes.as_slice()
                    && !process.is_suspect(crash, &self.id)
                {
                    turn.release(&self.subject);
                    turn = wait_for_turn(&self.subject, &self.program, &isolation, &mut interrupt).await?;
                    kind = HubUse::Shared;
                }
                let begun = tokio::select! {
                    begun = process.begin_play(&self.id, kind) => begun,
                    _ = interrupt.wait_for(|stop| *stop) => return None,
                };
                Some((turn, begun))
            };
            let why = match begun.await {
                Some((turn, Ok(play))) => {
                    let mut report = play_job(&job, index, id, options, events, interrupt.clone()).await;
                    self.try_without_upgrades(index, &mut report, id, options, &interrupt).await;
                    if let Some(unserved) = self.find_unserved(index, &report, id, options, interrupt.clone()).await {
                        self.record_unserved(unserved, &mut report, process, &play, index).await;
                    }
                    let wrong = matches!(scenario_verdict(&report), Verdict::Fail | Verdict::Inconclusive);
                    let end = process.end_play(play, &report, wrong).await;
                    turn.release(&self.subject);
                    match end {
                        // Another scenario may have caused the crash, so this one is played again.
                        Some(end) if !end.alone && kind != HubUse::Alone => {
                            id = trial.next_replay()?.id;
                            trial.record(false);
                            crashes.push(end);
                            continue;
                        }
                        // The hub crashed before this scenario sent anything.
                        Some(end) if !end.alone => {
                            "it ended by itself again, before the scenario sent anything".to_owned()
                        }
                        end => {
                            // For a hub that runs elsewhere, only the end is known.
                            if kind != HubUse::Destructive && (end.is_some() || process.is_by_command()) {
                                supervisor::add_process_check(&mut report, end);
                            }
                            return Some(report);
                        }
                    }
                }
                Some((_, Err(why))) => why,
                None if again => "the run was interrupted".to_owned(),
                None => return None,
            };
            let message = if again {
                format!("the hub ended by itself during this scenario, which was not played again alone: {why}")
            } else {
                format!("the hub is not running: {why}")
            };
            return Some(failed_report(&self.program, message, self.repetition));
        }
    }

    /// Records that the hub no longer serves this scenario or others: as a hang if it cannot be started again.
    async fn record_unserved(
        &self,
        unserved: UnservedScenario,
        report: &mut ScenarioReport,
        process: &HubProcess,
        play: &ActivePlay,
        index: usize,
    ) {
        let hung = unserved.lost != ServiceLoss::Gone;
        if hung && !process.is_restartable() {
            report.unserved = unserved.into_hang();
            return;
        }
        process.record_unserved_play(play, report, hung).await;
        if let Some(service_probe) = self.service_probe(index) {
            service_probe.reset().await;
        }
    }

    fn service_probe(&self, index: usize) -> Option<&ServiceProbe> {
        self.service_probes.as_ref()?.get(index)
    }

    /// Replays the first conversation that passed with an upgrade deviation, this time without the deviation. If the
    /// replay passes, too, the hub no longer needs the deviation.
    async fn try_without_upgrades(
        &self,
        index: usize,
        report: &mut ScenarioReport,
        id: PlayId,
        options: &PlayOptions,
        interrupt: &watch::Receiver<bool>,
    ) {
        let Some(service_probe) = self.service_probe(index) else { return };
        let followed = |index: &usize| report.deviations.get(index).is_some_and(|seen| seen.observed > 0);
        let followed = self.deviations.upgrade_entries().filter(followed);
        for upgrade in service_probe.untried_upgrades(&self.program, report, followed).await {
            let deviations = Arc::new(self.deviations.without_entry(upgrade));
            let job = Self { service_probes: None, promptness: None, deviations, ..self.clone() };
            let (events, _) = mpsc::channel(1);
            let id = id.without_deviation(upgrade);
            let again = play_job(&job, index, id, options, &events, interrupt.clone()).await;
            if has_passed(&again) && !*interrupt.borrow() {
                report.deviations.entry(upgrade).or_default().contradicted += 1;
            }
        }
    }

    /// Returns the scenario that the hub no longer serves after this one, see [`ServiceProbe::record_play`].
    async fn find_unserved(
        &self,
        index: usize,
        report: &ScenarioReport,
        id: PlayId,
        options: &PlayOptions,
        interrupt: watch::Receiver<bool>,
    ) -> Option<UnservedScenario> {
        let service_probe = self.service_probe(index)?;
        // Silence after a scenario that may leave the hub unusable, or on a hub of its own, does not prove a hang.
        if self.program.isolation == Isolation::Destructive
            || (self.subject.is_renewable() && self.program.isolation != Isolation::Shared)
            // Only a scenario as it is written may become a probe.
            || (self.variation.is_some() && has_passed(report))
        {
            return None;
        }
        let play = |program: Arc<Program>, id: PlayId, kinds: Vec<MessageKind>| {
            let job = Self {
                program,
                service_probes: None,
                probed_for: Some(kinds),
                injected_input: None,
                variation: None,
                ..self.clone()
            };
            let interrupt = interrupt.clone();
            async move {
                let (events, _) = mpsc::channel(1);
                let stopped = interrupt.clone();
                let report = play_job(&job, index, id, options, &events, interrupt).await;
                (!*stopped.borrow()).then_some(report)
            }
        };
        service_probe.record_play(&self.program, id, report, play).await
    }
}

/// Returns the first instance that meets the scenario's needs, or else the needs that the closest instance does not
/// meet.
fn choose_instance(
    program: &Program,
    subject: &PreparedHub,
    options: &PlayOptions,
) -> Result<JobPlacement, SetupError> {
    let spared = program.isolation == Isolation::Destructive
        && !subject.is_renewable()
        && !subject.target.restartable
        && !options.destructive;
    let mut nearest: Option<Vec<UnmetNeed>> = None;
    let fit = |site: &PreparedInstance| !spared || site.process.as_ref().is_some_and(|process| process.is_by_command());
    if !subject.instances.iter().any(|site| fit(site)) {
        let name = "a hub that may be destroyed (--exec, --destructive, or `restartable = true`)".to_owned();
        return Ok(JobPlacement::Nowhere(vec![UnmetNeed { name, lacks: Lack::Property }]));
    }
    let fits_carrier = |site: &PreparedInstance| {
        let is_websocket = site.endpoint.carrier == CarrierKind::WebSocket;
        is_websocket || options.on_any_carrier || !program.needs_websocket()
    };
    if !subject.instances.iter().any(|site| fits_carrier(site)) {
        let name = "WebSocket".to_owned();
        return Ok(JobPlacement::Nowhere(vec![UnmetNeed { name, lacks: Lack::Property }]));
    }
    for (index, site) in subject.instances.iter().enumerate().filter(|(_, site)| fit(site) && fits_carrier(site)) {
        let does = |word: &str| site.client.as_ref().is_some_and(|client| client.does(word));
        let provides = |word: &str| site.provides.contains(word) || does(word);
        let hooks = |name: &str| site.hooks.contains_key(name);
        let missing = unmet_needs(program, &site.settings, &provides, &hooks)
            .map_err(|source| SetupError::Need { scenario: program.id.clone(), source })?;
        if missing.is_empty() {
            return Ok(JobPlacement::Instance(index));
        }
        if nearest.as_ref().is_none_or(|known| missing.len() < known.len()) {
            nearest = Some(missing);
        }
    }
    Ok(JobPlacement::Nowhere(nearest.unwrap_or_default()))
}

/// Plays a scenario whose turn it is.
async fn play_job(
    job: &ScenarioJob,
    index: usize,
    id: PlayId,
    options: &PlayOptions,
    events: &mpsc::Sender<ScenarioEvent>,
    interrupt: watch::Receiver<bool>,
) -> ScenarioReport {
    let subject = &job.subject;
    let mut site = Arc::clone(&subject.instances[index]);
    let mut own = None;
    if let (Some(embedded), false) = (&subject.embedded, job.program.isolation == Isolation::Shared && !job.alone) {
        match embedded.start_one(index).await {
            Ok((url, hub)) => {
                if let Ok(endpoint) = url.parse() {
                    site = Arc::new(site.moved(endpoint, hub.redirect_hooks(&site.hooks)));
                }
                own = Some(hub);
            }
            Err(error) => {
                let message = format!("cannot start a separate hub for this scenario: {error}");
                return failed_report(&job.program, message, job.repetition);
            }
        }
    }
    let promptness = job.promptness_of(&site.name);
    let is_late = subject.begun.elapsed() >= options.replay_time / 3 * 2;
    let is_first = job.replay.is_none() && job.probed_for.is_none() && job.variation.is_none();
    let promptness = if is_late && is_first { Arc::new(promptness.hurried()) } else { promptness };
    let masker = Arc::new(subject.masker.for_conversation());
    let config = ConversationConfig {
        hub: site.endpoint.clone(),
        settings: site.settings.clone(),
        stamp: format!("{}{id}", options.stamp),
        turn: job.turn,
        // A conversation's clock starts at its own beginning, which may come late in the run.
        epoch_ms: options.now_ms + i64::try_from(subject.begun.elapsed().as_millis()).unwrap_or(0),
        patience: subject.target.patience,
        quiet: subject.target.quiet,
        settle_after_connect: match job.replay {
            Some(replay) if replay.settles => AMPLE_SETTLE,
            _ => SETTLE_AFTER_CONNECT,
        },
        stretch: options.stretch * job.replay.map_or(1.0, |replay| f64::from(replay.patience)),
        stated_only: options.stated_only,
        trace: options.trace,
        kept_chars: options.kept_chars,
        injected_input: job.injected_input.clone(),
        masker: Arc::clone(&masker),
        deviations: Arc::clone(&job.deviations),
        persistent: options.persistent,
        promptness,
        variation: job.variation.clone(),
        early_end: job.early_end,
    };
    let name = site.name.clone();
    let begun = subject.begun.elapsed();
    let mut report =
        driver::play_conversation(Arc::clone(&job.program), config, site, options.limit, events.clone(), interrupt)
            .await;
    if let Some(promptness) = job.promptness.as_ref().filter(|_| job.probed_for.is_none()) {
        Arc::make_mut(lock(promptness).entry(name.clone()).or_default()).add(&report);
    }
    report.instance = name;
    report.begun = begun;
    report.repetition = job.repetition;
    mask_report(&mut report, &masker);
    if subject.client.is_some() {
        name_client(&mut report);
    }
    if let Some(hub) = own {
        hub.shutdown().await;
    }
    report
}

/// Returns what is known about how promptly instances answer, for a trial in which these messages may come.
pub(super) fn promptness_for_trial(
    promptness: &PromptnessByInstance,
    awaited: &BTreeSet<String>,
) -> PromptnessByInstance {
    let of_trial =
        |(name, promptness): (&String, &Arc<HubPromptness>)| (name.clone(), Arc::new(promptness.for_trial(awaited)));
    Arc::new(Mutex::new(lock(promptness).iter().map(of_trial).collect()))
}

fn lock(promptness: &PromptnessByInstance) -> MutexGuard<'_, BTreeMap<String, Arc<HubPromptness>>> {
    promptness.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns which of several users a play uses.
fn turn_of(id: PlayId) -> usize {
    usize::try_from(id.number()).unwrap_or(usize::MAX / 2)
}

/// Whether a conversation failed, and all that accuses the hub is that frames did not come in time.
pub(super) fn is_silent(report: &ScenarioReport) -> bool {
    let is_silent = |check: &CheckReport| report.waits.silent_checks.contains(&check.name);
    let mut broken = report.checks.iter().filter(|check| check.accuses_hub());
    !report.interrupted
        && report.mistake.is_none()
        && report.unserved.is_none()
        && (report.checks.iter().any(CheckReport::accuses_hub) || scenario_verdict(report) == Verdict::Inconclusive)
        && !(report.waits.silent_checks.is_empty() && report.waits.missed.is_empty())
        && broken.all(is_silent)
}

/// Returns how many connections a scenario would have had after one for which the hub was too busy, if it was.
pub(super) fn crowding_refusal(report: &ScenarioReport) -> Option<usize> {
    let refused = report.history.iter().position(|frame| matches!(frame.status, Some(429 | 503)))?;
    let mut open = BTreeSet::new();
    for frame in &report.history[..refused] {
        match frame.kind {
            FrameKind::Open => drop(open.insert(frame.connection)),
            FrameKind::End | FrameKind::Fin => drop(open.remove(&frame.connection)),
            _ => {}
        }
    }
    (scenario_verdict(report) == Verdict::Inconclusive).then_some(open.len() + 1)
}

/// Returns the report of a scenario that the hub refuses to serve even alone, because it needs this many connections.
pub(super) fn too_many_connections_report(job: &ScenarioJob, connections: usize) -> ScenarioReport {
    let name = format!("a hub that accepts {connections} connections at a time");
    not_testable_report(&job.program, vec![UnmetNeed { name, lacks: Lack::Property }], job.repetition)
}

fn not_testable_report(program: &Program, unmet: Vec<UnmetNeed>, repetition: usize) -> ScenarioReport {
    ScenarioReport { unmet, repetition, verdict: Verdict::NotTestable, ..ScenarioReport::of(program) }
}

fn failed_report(program: &Program, message: String, repetition: usize) -> ScenarioReport {
    let cause = Some(PreconditionFailure::without_step(message));
    ScenarioReport { cause, repetition, verdict: Verdict::Inconclusive, ..ScenarioReport::of(program) }
}

/// Calls the party under test a client in the texts of a report that begin with it.
fn name_client(report: &mut ScenarioReport) {
    let of_checks = report.checks.iter_mut().map(|check| (&mut check.message, check.detail.as_mut()));
    let of_cause = report.cause.iter_mut().map(|cause| (&mut cause.message, cause.detail.as_mut()));
    for (message, detail) in of_checks.chain(of_cause) {
        let detail = detail.into_iter().flat_map(|detail| [&mut detail.expected, &mut detail.received]);
        for text in std::iter::once(message).chain(detail) {
            if let Some(rest) = text.strip_prefix("the hub ") {
                *text = format!("the client {rest}");
            }
        }
    }
}

/// Masks secrets in every text of a report, except in frames, which were masked before they were shortened.
fn mask_report(report: &mut ScenarioReport, masker: &SecretMasker) {
    let clean = |text: &mut String| *text = masker.mask_frame(text).into_owned();
    report.checks.iter_mut().for_each(|check| clean(&mut check.message));
    report.cause.iter_mut().for_each(|cause| clean(&mut cause.message));
    report.mistake.iter_mut().for_each(clean);
    let of_checks = report.checks.iter_mut().filter_map(|check| check.detail.as_mut());
    let of_cause = report.cause.iter_mut().filter_map(|cause| cause.detail.as_mut());
    for detail in of_checks.chain(of_cause) {
        clean(&mut detail.expected);
        clean(&mut detail.received);
        detail.sent.iter_mut().chain(&mut detail.round).for_each(clean);
    }
}
