//! Mutation detection: applies every computed change of the frames of a correct hub, without sockets, and measures
//! which ones the scenarios detect. The changes follow from the packs' facts, not from a choice.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hubproof::outcome::{ScenarioReport, Verdict};
use hubproof::reference::relay_facts;
use hubproof_reference::fault::injector::{self, Injector};
use hubproof_reference::machine::{EventError, Machine, MachineInput, MachineOutput};
use hubproof_reference::relay::mutation::{HubMessage, MemberProperty, Mutation, MutationKind, possible_mutations};
use serde_json::Value;

use super::sim_connection::{SendingManner, SimulatedProtocol};

/// A correct state machine that records every text.
struct RecordingMachine {
    inner: Box<dyn Machine>,
    texts: Arc<Mutex<Vec<String>>>,
}

impl RecordingMachine {
    fn record(&self, out: &[MachineOutput]) {
        let texts = out.iter().filter_map(|output| match output {
            MachineOutput::Text { text, .. } => Some(text.to_string()),
            _ => None,
        });
        self.texts.lock().unwrap().extend(texts);
    }
}

impl Machine for RecordingMachine {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        let before = out.len();
        self.inner.handle(now, input, out);
        self.record(&out[before..]);
    }

    fn deadline(&self) -> Option<Duration> {
        self.inner.deadline()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        let before = out.len();
        let answer = self.inner.event(now, event, out);
        self.record(&out[before..]);
        answer
    }
}

/// The number of frames per message that a correct hub sends in each scenario.
pub struct SentFrames {
    pub protocol: SimulatedProtocol,
    pub messages: Vec<HubMessage>,
    /// Per scenario, in their order.
    pub counts: Vec<BTreeMap<String, u64>>,
}

impl SentFrames {
    pub fn play_correct_hub(name: &str) -> Self {
        let protocol = SimulatedProtocol::load(name);
        let known = relay_facts::relay_facts(&protocol.pack);
        assert_eq!(known.strange, [""; 0], "{name}: the relay cannot tell these messages from others");
        let mut counts = Vec::new();
        for program in &protocol.scenarios.programs {
            let texts = Arc::new(Mutex::new(Vec::new()));
            let around = |inner| Box::new(RecordingMachine { inner, texts: Arc::clone(&texts) }) as Box<dyn Machine>;
            protocol.play_on(program, None, &around, SendingManner::default());
            let mut count: BTreeMap<String, u64> = BTreeMap::new();
            for text in texts.lock().unwrap().iter() {
                let Ok(frame) = serde_json::from_str::<Value>(text) else { continue };
                let fitting: Vec<&str> = known
                    .messages
                    .iter()
                    .filter(|message| injector::conditions_hold(&message.when, Some(&frame)))
                    .map(|message| message.name.as_str())
                    .collect();
                let pack = protocol
                    .pack
                    .recognise(&frame, hubproof::protocol::FrameDirection::FromHub)
                    .map(|m| m.name.as_str());
                assert_eq!(fitting, pack.into_iter().collect::<Vec<_>>(), "{frame}");
                match fitting.first() {
                    Some(name) => *count.entry((*name).to_owned()).or_default() += 1,
                    // No message describes what an operator of qi publishes: a command, not a reply.
                    None => assert!(frame.get("command").is_some(), "{name}: a correct hub sends {frame}"),
                }
            }
            counts.push(count);
        }
        Self { protocol, messages: known.messages, counts }
    }

    /// Plays one scenario with a change; returns how often it was applied, and the report.
    fn play(&self, scenario: usize, change: &Mutation) -> (u64, ScenarioReport) {
        let changes = vec![change.to_change()];
        let applied = Arc::new(AtomicU64::new(0));
        let around =
            |inner| Box::new(Injector::with_counter(inner, changes.clone(), Arc::clone(&applied))) as Box<dyn Machine>;
        let program = &self.protocol.scenarios.programs[scenario];
        let report = self.protocol.play_on(program, None, &around, SendingManner::default()).unwrap();
        assert_eq!(report.mistake, None, "{} with {change}", report.id);
        (applied.load(Ordering::Relaxed), report)
    }

    /// Plays the scenarios with the message until one of them detects the change.
    fn outcome(&self, change: &Mutation) -> ChangeOutcome {
        let mut outcome = ChangeOutcome::NeverApplied;
        for (scenario, count) in self.counts.iter().enumerate() {
            if count.get(&change.message).copied().unwrap_or(0) < change.nth.unwrap_or(1) {
                continue;
            }
            let (applied, report) = self.play(scenario, change);
            if applied > 0 && is_detected_by(change, &report) {
                return ChangeOutcome::Noticed;
            } else if applied > 0 {
                outcome = ChangeOutcome::Survived;
            }
        }
        outcome
    }
}

/// The outcome of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeOutcome {
    Noticed,
    Survived,
    /// No scenario has such a frame, or no frame has the member.
    NeverApplied,
}

/// Whether the change is detected: a change that breaks a must has to cause a failure. Inconclusive does not count.
fn is_detected_by(change: &Mutation, report: &ScenarioReport) -> bool {
    let enough = |verdict| verdict == Verdict::Fail || (verdict == Verdict::Warn && !change.must);
    report.checks.iter().any(|check| enough(check.verdict))
}

/// Calls `work` for every item on all processors and returns the results in order.
fn map_in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Changes that need not be detected, with the reason: `tests/fixtures/detection.toml`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Exemptions {
    exempt: Vec<Exemption>,
}

#[derive(Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exemption {
    protocol: String,
    reason: String,
    changes: Vec<String>,
}

fn exemptions(protocol: &str) -> Vec<Exemption> {
    let text = std::fs::read_to_string(super::disk::root().join("tests/fixtures/detection.toml")).unwrap();
    let all: Exemptions = toml::from_str(&text).unwrap();
    let known = hubproof_reference::protocols();
    let stranger = all.exempt.iter().find(|exempt| !known.contains(&exempt.protocol.as_str()));
    assert!(stranger.is_none(), "tests/fixtures/detection.toml: {:?} is not a protocol", stranger.unwrap().protocol);
    all.exempt.into_iter().filter(|exempt| exempt.protocol == protocol).collect()
}

/// All changes of a protocol with their outcomes.
pub struct ChangeDetection {
    pub sent: SentFrames,
    pub results: Vec<(Mutation, ChangeOutcome)>,
    exempt: Vec<Exemption>,
}

impl ChangeDetection {
    pub fn measure(protocol: &str) -> Self {
        let sent = SentFrames::play_correct_hub(protocol);
        let all: Vec<Mutation> =
            possible_mutations(&sent.messages).into_iter().filter(|change| change.kind.breaks_document()).collect();
        let outcomes = map_in_parallel(&all, |change| sent.outcome(change));
        Self { sent, results: all.into_iter().zip(outcomes).collect(), exempt: exemptions(protocol) }
    }

    fn count(&self, takes: impl Fn(&Mutation) -> bool, outcome: ChangeOutcome) -> usize {
        self.results.iter().filter(|(change, became)| takes(change) && *became == outcome).count()
    }

    fn is_exempt(&self, change: &Mutation) -> bool {
        let name = change.to_string();
        self.exempt.iter().any(|exempt| exempt.changes.contains(&name))
    }

    /// Returns undetected changes without exemption.
    pub fn gaps(&self) -> Vec<String> {
        let open = self
            .results
            .iter()
            .filter(|(change, became)| *became == ChangeOutcome::Survived && !self.is_exempt(change));
        open.map(|(change, _)| change.to_string()).collect()
    }

    /// Returns stale exemptions: the change is detected, never applied or does not exist.
    pub fn stale(&self) -> Vec<&str> {
        let survives = |name: &str| {
            self.results.iter().any(|(change, became)| *became == ChangeOutcome::Survived && change.to_string() == name)
        };
        self.exempt
            .iter()
            .flat_map(|exempt| &exempt.changes)
            .map(String::as_str)
            .filter(|name| !survives(name))
            .collect()
    }

    /// Returns the share of applied, non-exempt changes that was detected, in percent.
    pub fn detected_percent(&self) -> f64 {
        let noticed = self.count(|_| true, ChangeOutcome::Noticed);
        percent(noticed, noticed + self.gaps().len())
    }

    pub fn summary_line(&self) -> String {
        let (noticed, survived) =
            (self.count(|_| true, ChangeOutcome::Noticed), self.count(|_| true, ChangeOutcome::Survived));
        let exempt = survived - self.gaps().len();
        format!(
            "{}: {} changes computed, {} applied, {noticed} noticed, {exempt} exempt, {} not noticed: {:.1} % \
             ({:.1} % with the exempt ones)",
            self.sent.protocol.pack.name,
            self.results.len(),
            noticed + survived,
            survived - exempt,
            self.detected_percent(),
            percent(noticed, noticed + survived),
        )
    }

    /// Formats the output of `cargo run --example detection` for this protocol.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}.\n\n", self.sent.protocol.pack.name, self.summary_line());
        text +=
            "| change | computed | applied | noticed | exempt | not noticed | share |\n|---|---|---|---|---|---|---|\n";
        for (title, kind, of) in TABLE_ROWS {
            let row = |change: &Mutation| change.kind == *kind && change.of == *of;
            let (noticed, survived) =
                (self.count(row, ChangeOutcome::Noticed), self.count(row, ChangeOutcome::Survived));
            let exempt = self
                .results
                .iter()
                .filter(|(change, became)| row(change) && *became == ChangeOutcome::Survived && self.is_exempt(change));
            let exempt = exempt.count();
            let never = self.count(row, ChangeOutcome::NeverApplied);
            if noticed + survived + never == 0 {
                continue;
            }
            let _ = writeln!(
                text,
                "| {title} | {} | {} | {noticed} | {exempt} | {} | {:.1} % |",
                noticed + survived + never,
                noticed + survived,
                survived - exempt,
                percent(noticed, noticed + survived - exempt)
            );
        }
        for exempt in &self.exempt {
            let _ = writeln!(text, "\nExempt: {} ({})", exempt.reason, quote_names(&exempt.changes));
        }
        let gaps = self.gaps();
        if !gaps.is_empty() {
            let _ = writeln!(text, "\nNot noticed: {}.", quote_names(&gaps));
        }
        let sent = |name: &String| self.sent.counts.iter().any(|count| count.contains_key(name));
        let silent: Vec<String> =
            self.sent.messages.iter().map(|message| message.name.clone()).filter(|name| !sent(name)).collect();
        if !silent.is_empty() {
            let _ =
                writeln!(text, "\nMessages that the reference server sends in no scenario: {}.", quote_names(&silent));
        }
        let never = self
            .results
            .iter()
            .filter(|(change, became)| *became == ChangeOutcome::NeverApplied && sent(&change.message));
        let never: Vec<String> = never.map(|(change, _)| change.to_string()).collect();
        if !never.is_empty() {
            let _ = writeln!(text, "\nChanges that apply to no frame of any scenario: {}.", quote_names(&never));
        }
        text
    }
}

/// Rows of the table: the change, and the facts of the changed members.
const TABLE_ROWS: &[(&str, MutationKind, Option<MemberProperty>)] = &[
    ("a frame is dropped", MutationKind::Drop, None),
    ("a frame is doubled", MutationKind::Double, None),
    ("a required member is removed", MutationKind::Remove, Some(MemberProperty::Required)),
    ("a required constant is removed", MutationKind::Remove, Some(MemberProperty::Constant)),
    ("a required member with few values is removed", MutationKind::Remove, Some(MemberProperty::Closed)),
    ("an echoed id is removed", MutationKind::Remove, Some(MemberProperty::Echoed)),
    ("a required member is retyped", MutationKind::Retype, Some(MemberProperty::Required)),
    ("a constant is retyped", MutationKind::Retype, Some(MemberProperty::Constant)),
    ("a member with few values is retyped", MutationKind::Retype, Some(MemberProperty::Closed)),
    ("an echoed id is retyped", MutationKind::Retype, Some(MemberProperty::Echoed)),
    ("a required member is altered", MutationKind::Alter, Some(MemberProperty::Required)),
    ("a constant is altered", MutationKind::Alter, Some(MemberProperty::Constant)),
    ("a member with few values is altered", MutationKind::Alter, Some(MemberProperty::Closed)),
    ("an echoed id is altered", MutationKind::Alter, Some(MemberProperty::Echoed)),
];

fn quote_names(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// Measures changes of timing and of single frames, which are not part of the share.
pub fn other_change_outcomes(sent: &SentFrames) -> String {
    let mut text = String::new();
    let all = possible_mutations(&sent.messages);
    for kind in [MutationKind::Delay, MutationKind::Reorder] {
        let of_kind: Vec<&Mutation> = all.iter().filter(|change| change.kind == kind).collect();
        let outcomes = map_in_parallel(&of_kind, |change| sent.outcome(change));
        let count = |outcome| outcomes.iter().filter(|became| **became == outcome).count();
        let (noticed, survived) = (count(ChangeOutcome::Noticed), count(ChangeOutcome::Survived));
        let _ = writeln!(text, "* {}: noticed for {noticed} of {} messages", kind.name(), noticed + survived);
    }
    for kind in [MutationKind::Drop, MutationKind::Double] {
        let mut single = Vec::new();
        for (scenario, count) in sent.counts.iter().enumerate() {
            for (message, times) in count {
                let change = all.iter().find(|change| change.kind == kind && change.message == *message).unwrap();
                single.extend((1..=*times).map(|nth| (scenario, change.for_nth_frame(nth))));
            }
        }
        let verdicts = map_in_parallel(&single, |(scenario, change)| {
            let (_, report) = sent.play(*scenario, change);
            (is_detected_by(change, &report), report.verdict == Verdict::Inconclusive)
        });
        let noticed = verdicts.iter().filter(|(noticed, _)| *noticed).count();
        let undecided = verdicts.iter().filter(|(noticed, undecided)| !noticed && *undecided).count();
        let _ = writeln!(
            text,
            "* {} a single frame, of {} in all scenarios: {noticed} noticed, {undecided} left the scenario inconclusive, \
             {} unseen",
            kind.name(),
            single.len(),
            single.len() - noticed - undecided
        );
    }
    text
}

/// Returns the protocols with messages; for others no change can be computed.
pub fn measurable_protocols() -> Vec<&'static str> {
    let names = hubproof_reference::protocols().iter().copied();
    names.filter(|name| !SimulatedProtocol::load(name).pack.messages.is_empty()).collect()
}
