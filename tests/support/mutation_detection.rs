//! Mutation detection: applies every computed change of the frames of a correct hub, without sockets, and measures
//! which ones the scenarios detect. The changes follow from the packs' facts, not from a choice.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hubproof::event::{ScenarioReport, Verdict};
use hubproof::reference::relay_facts;
use hubproof_reference::fault::injector::{self, Injector};
use hubproof_reference::machine::{EventError, Input, Machine, Output};
use hubproof_reference::relay::mutation::{Kind, Message, Mutation, Property, changes};
use serde_json::Value;

use super::sim_connection::{Manner, Protocol};

/// A correct state machine that records every text.
struct Recorded {
    inner: Box<dyn Machine>,
    texts: Arc<Mutex<Vec<String>>>,
}

impl Recorded {
    fn record(&self, out: &[Output]) {
        let texts = out.iter().filter_map(|output| match output {
            Output::Text { text, .. } => Some(text.to_string()),
            _ => None,
        });
        self.texts.lock().unwrap().extend(texts);
    }
}

impl Machine for Recorded {
    fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
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

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<Output>) -> Result<Value, EventError> {
        let before = out.len();
        let answer = self.inner.event(now, event, out);
        self.record(&out[before..]);
        answer
    }
}

/// The number of frames per message that a correct hub sends in each scenario.
pub struct SentFrames {
    pub protocol: Protocol,
    pub messages: Vec<Message>,
    /// Per scenario, in their order.
    pub counts: Vec<BTreeMap<String, u64>>,
}

impl SentFrames {
    pub fn of(name: &str) -> Self {
        let protocol = Protocol::load(name);
        let known = relay_facts::of(&protocol.pack);
        assert_eq!(known.strange, [""; 0], "{name}: the relay cannot tell these messages from others");
        let mut counts = Vec::new();
        for program in &protocol.scenarios.programs {
            let texts = Arc::new(Mutex::new(Vec::new()));
            let around = |inner| Box::new(Recorded { inner, texts: Arc::clone(&texts) }) as Box<dyn Machine>;
            protocol.play_on(program, None, &around, Manner::default());
            let mut count: BTreeMap<String, u64> = BTreeMap::new();
            for text in texts.lock().unwrap().iter() {
                let Ok(frame) = serde_json::from_str::<Value>(text) else { continue };
                let fitting: Vec<&str> = known
                    .messages
                    .iter()
                    .filter(|message| injector::holds(message.when, Some(&frame)))
                    .map(|message| message.name.as_str())
                    .collect();
                let pack = protocol.pack.recognise(&frame, hubproof::protocol::Way::FromHub).map(|m| m.name.as_str());
                assert_eq!(fitting, pack.into_iter().collect::<Vec<_>>(), "{frame}");
                *count.entry(fitting[0].to_owned()).or_default() += 1;
            }
            counts.push(count);
        }
        Self { protocol, messages: known.messages, counts }
    }

    /// Plays one scenario with a change; returns how often it was applied, and the report.
    fn play(&self, scenario: usize, change: &Mutation) -> (u64, ScenarioReport) {
        let changes = vec![change.change()].leak();
        let applied = Arc::new(AtomicU64::new(0));
        let around = |inner| Box::new(Injector::counting(inner, changes, Arc::clone(&applied))) as Box<dyn Machine>;
        let program = &self.protocol.scenarios.programs[scenario];
        let report = self.protocol.play_on(program, None, &around, Manner::default()).unwrap();
        assert_eq!(report.mistake, None, "{} with {change}", report.id);
        (applied.load(Ordering::Relaxed), report)
    }

    /// Plays the scenarios with the message until one of them detects the change.
    fn outcome(&self, change: &Mutation) -> Outcome {
        let mut outcome = Outcome::NeverApplied;
        for (scenario, count) in self.counts.iter().enumerate() {
            if count.get(&change.message).copied().unwrap_or(0) < change.nth.unwrap_or(1) {
                continue;
            }
            let (applied, report) = self.play(scenario, change);
            if applied > 0 && notices(change, &report) {
                return Outcome::Noticed;
            } else if applied > 0 {
                outcome = Outcome::Survived;
            }
        }
        outcome
    }
}

/// The outcome of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Noticed,
    Survived,
    /// No scenario has such a frame, or no frame has the member.
    NeverApplied,
}

/// Whether the change is detected: a change that breaks a must has to cause a failure. Inconclusive does not count.
fn notices(change: &Mutation, report: &ScenarioReport) -> bool {
    let enough = |verdict| verdict == Verdict::Fail || (verdict == Verdict::Warn && !change.must);
    report.checks.iter().any(|check| enough(check.verdict))
}

/// Calls `work` for every item on all processors and returns the results in order.
fn on_all<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
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
pub struct Detection {
    pub sent: SentFrames,
    pub results: Vec<(Mutation, Outcome)>,
    exempt: Vec<Exemption>,
}

impl Detection {
    pub fn measure(protocol: &str) -> Self {
        let sent = SentFrames::of(protocol);
        let all: Vec<Mutation> = changes(&sent.messages).into_iter().filter(|change| change.kind.corrupts()).collect();
        let outcomes = on_all(&all, |change| sent.outcome(change));
        Self { sent, results: all.into_iter().zip(outcomes).collect(), exempt: exemptions(protocol) }
    }

    fn count(&self, takes: impl Fn(&Mutation) -> bool, outcome: Outcome) -> usize {
        self.results.iter().filter(|(change, became)| takes(change) && *became == outcome).count()
    }

    fn is_exempt(&self, change: &Mutation) -> bool {
        let name = change.to_string();
        self.exempt.iter().any(|exempt| exempt.changes.contains(&name))
    }

    /// Returns undetected changes without exemption.
    pub fn gaps(&self) -> Vec<String> {
        let open =
            self.results.iter().filter(|(change, became)| *became == Outcome::Survived && !self.is_exempt(change));
        open.map(|(change, _)| change.to_string()).collect()
    }

    /// Returns stale exemptions: the change is detected, never applied or does not exist.
    pub fn stale(&self) -> Vec<&str> {
        let survives = |name: &str| {
            self.results.iter().any(|(change, became)| *became == Outcome::Survived && change.to_string() == name)
        };
        self.exempt
            .iter()
            .flat_map(|exempt| &exempt.changes)
            .map(String::as_str)
            .filter(|name| !survives(name))
            .collect()
    }

    /// Returns the share of applied, non-exempt changes that was detected, in percent.
    pub fn share(&self) -> f64 {
        let noticed = self.count(|_| true, Outcome::Noticed);
        percent(noticed, noticed + self.gaps().len())
    }

    pub fn numbers(&self) -> String {
        let (noticed, survived) = (self.count(|_| true, Outcome::Noticed), self.count(|_| true, Outcome::Survived));
        let exempt = survived - self.gaps().len();
        format!(
            "{}: {} changes computed, {} applied, {noticed} noticed, {exempt} exempt, {} not noticed: {:.1} % \
             ({:.1} % with the exempt ones)",
            self.sent.protocol.pack.name,
            self.results.len(),
            noticed + survived,
            survived - exempt,
            self.share(),
            percent(noticed, noticed + survived),
        )
    }

    /// Formats the output of `cargo run --example detection` for this protocol.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}.\n\n", self.sent.protocol.pack.name, self.numbers());
        text +=
            "| change | computed | applied | noticed | exempt | not noticed | share |\n|---|---|---|---|---|---|---|\n";
        for (title, kind, of) in ROWS {
            let row = |change: &Mutation| change.kind == *kind && change.of == *of;
            let (noticed, survived) = (self.count(row, Outcome::Noticed), self.count(row, Outcome::Survived));
            let exempt = self
                .results
                .iter()
                .filter(|(change, became)| row(change) && *became == Outcome::Survived && self.is_exempt(change));
            let exempt = exempt.count();
            let never = self.count(row, Outcome::NeverApplied);
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
            let _ = writeln!(text, "\nExempt: {} ({})", exempt.reason, quoted(&exempt.changes));
        }
        let gaps = self.gaps();
        if !gaps.is_empty() {
            let _ = writeln!(text, "\nNot noticed: {}.", quoted(&gaps));
        }
        let sent = |name: &String| self.sent.counts.iter().any(|count| count.contains_key(name));
        let silent: Vec<String> =
            self.sent.messages.iter().map(|message| message.name.clone()).filter(|name| !sent(name)).collect();
        if !silent.is_empty() {
            let _ = writeln!(text, "\nThe reference server says this in no scenario: {}.", quoted(&silent));
        }
        let never =
            self.results.iter().filter(|(change, became)| *became == Outcome::NeverApplied && sent(&change.message));
        let never: Vec<String> = never.map(|(change, _)| change.to_string()).collect();
        if !never.is_empty() {
            let _ = writeln!(text, "\nNo scenario has a frame for this: {}.", quoted(&never));
        }
        text
    }
}

/// Rows of the table: the change, and the facts of the changed members.
const ROWS: &[(&str, Kind, Option<Property>)] = &[
    ("a frame is dropped", Kind::Drop, None),
    ("a frame is doubled", Kind::Double, None),
    ("a required member is removed", Kind::Remove, Some(Property::Required)),
    ("a required constant is removed", Kind::Remove, Some(Property::Constant)),
    ("a required member with few values is removed", Kind::Remove, Some(Property::Closed)),
    ("an echoed id is removed", Kind::Remove, Some(Property::Echoed)),
    ("a required member is retyped", Kind::Retype, Some(Property::Required)),
    ("a constant is retyped", Kind::Retype, Some(Property::Constant)),
    ("a member with few values is retyped", Kind::Retype, Some(Property::Closed)),
    ("an echoed id is retyped", Kind::Retype, Some(Property::Echoed)),
    ("a required member is altered", Kind::Alter, Some(Property::Required)),
    ("a constant is altered", Kind::Alter, Some(Property::Constant)),
    ("a member with few values is altered", Kind::Alter, Some(Property::Closed)),
    ("an echoed id is altered", Kind::Alter, Some(Property::Echoed)),
];

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// Measures changes of timing and of single frames, which are not part of the share.
pub fn beside(sent: &SentFrames) -> String {
    let mut text = String::new();
    let all = changes(&sent.messages);
    for kind in [Kind::Delay, Kind::Reorder] {
        let of_kind: Vec<&Mutation> = all.iter().filter(|change| change.kind == kind).collect();
        let outcomes = on_all(&of_kind, |change| sent.outcome(change));
        let count = |outcome| outcomes.iter().filter(|became| **became == outcome).count();
        let (noticed, survived) = (count(Outcome::Noticed), count(Outcome::Survived));
        let _ = writeln!(text, "* {}: noticed for {noticed} of {} messages", kind.name(), noticed + survived);
    }
    for kind in [Kind::Drop, Kind::Double] {
        let mut single = Vec::new();
        for (scenario, count) in sent.counts.iter().enumerate() {
            for (message, times) in count {
                let change = all.iter().find(|change| change.kind == kind && change.message == *message).unwrap();
                single.extend((1..=*times).map(|nth| (scenario, change.only(nth))));
            }
        }
        let verdicts = on_all(&single, |(scenario, change)| {
            let (_, report) = sent.play(*scenario, change);
            (notices(change, &report), report.verdict == Verdict::Inconclusive)
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
pub fn measurable() -> Vec<&'static str> {
    let names = hubproof_reference::protocols().iter().copied();
    names.filter(|name| !Protocol::load(name).pack.messages.is_empty()).collect()
}
