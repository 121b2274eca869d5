//! Events and results of a run: verdicts, findings, frames. All reports are made from these.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::deviation::SightingsByEntry;
use crate::deviation::proposal::{DeviationEvidence, MissedExpectation};
use crate::protocol::{RuleBasis, RuleLevel};
use crate::scenario::Program;
use crate::scenario::model::{Need, RuleUse};
use crate::syntax::explanation::Explanation;
use crate::syntax::source::Span;

/// The verdict of a check or a scenario. A failure of the harness itself is a `Result::Err` instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Pass,
    /// Only recorded: the rule is a MAY, or the document is silent.
    Info,
    /// Not checked: the target lacks something that the check needs.
    NotTestable,
    /// A SHOULD is broken, or a tolerated form was used.
    Warn,
    /// The harness could not decide.
    Inconclusive,
    /// A MUST is broken.
    Fail,
}

impl Verdict {
    pub const ALL: [Self; 6] = [Self::Pass, Self::Fail, Self::Warn, Self::Info, Self::NotTestable, Self::Inconclusive];

    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Info => "info",
            Self::NotTestable => "not-testable",
            Self::Warn => "warn",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        }
    }

    pub fn explanation(self) -> Explanation {
        let means = match self {
            Self::Pass => "The hub did what the rule demands, each time the check was evaluated.",
            Self::Info => {
                "Recorded only: the rule is a MAY, or the document is silent. Nothing follows from it for the exit code."
            }
            Self::NotTestable => {
                "Not checked, because the target lacks something that the check needs, or because the situation that the check is about did not occur. This says nothing about the hub."
            }
            Self::Warn => {
                "The hub broke a SHOULD, or used a form that the document tolerates. Only `--strict` makes the run fail."
            }
            Self::Inconclusive => {
                "Not decided: something that the check depends on did not work. This says nothing about the rule of the check."
            }
            Self::Fail => "The hub broke a MUST. The run fails with exit code 1.",
        };
        let (usually, next) = match self {
            Self::Pass | Self::Info => ("", ""),
            Self::NotTestable => (
                "A setting, a secret or a hook is missing in the target. The report names it after `unmet need`.",
                "List what the target can provide: hubproof check URL --protocol NAME --list",
            ),
            Self::Warn => ("", "Explain the rule of the check: hubproof explain RULE"),
            Self::Inconclusive => (
                "A step before the check failed: the hub cannot be reached, refuses the client, or does not send an earlier message. The report names that cause first.",
                "Correct the cause that blocks most checks, and run again. If the machine or the hub is slow, use `--patience 2`.",
            ),
            Self::Fail => (
                "",
                "Explain the rule of the check with `hubproof explain RULE`, and play the scenario alone with the command after `reproduce`.",
            ),
        };
        Explanation::new(self.name(), means).usually(usually).next(next)
    }
}

/// The outcome of a check, before the level of its rule is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    Holds,
    /// The hub did not do what the document demands.
    Broken,
    /// Accepted with this warning.
    Tolerated(String),
    /// Accepted and recorded with this note.
    Noted(String),
    /// The check was never evaluated, or the harness could not decide.
    Undecided(String),
    /// The scenario skipped the step: its `if` was false, or it uses a name that only another branch binds.
    NotReached(String),
}

/// Returns the verdict on a rule. A broken MUST fails, stated or implied; a broken SHOULD warns; a MAY is only
/// recorded, and so is everything on which the document is silent. With `stated_only`, a broken MUST that is only
/// implied warns.
pub fn rule_verdict(outcome: &CheckOutcome, level: RuleLevel, basis: RuleBasis, stated_only: bool) -> Verdict {
    match outcome {
        CheckOutcome::Holds => Verdict::Pass,
        CheckOutcome::Noted(_) => Verdict::Info,
        CheckOutcome::Tolerated(_) if level == RuleLevel::May || basis == RuleBasis::Silent => Verdict::Info,
        CheckOutcome::Tolerated(_) => Verdict::Warn,
        CheckOutcome::Undecided(_) => Verdict::Inconclusive,
        CheckOutcome::NotReached(_) => Verdict::NotTestable,
        CheckOutcome::Broken => match (level, basis) {
            (_, RuleBasis::Silent) | (RuleLevel::May, _) => Verdict::Info,
            (RuleLevel::Should, _) => Verdict::Warn,
            (RuleLevel::Must, RuleBasis::Implied) if stated_only => Verdict::Warn,
            (RuleLevel::Must, _) => Verdict::Fail,
        },
    }
}

/// A deviation that the target declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDeviation {
    /// Index of the entry.
    pub entry: usize,
    /// The reason that the target gives.
    pub reason: String,
}

/// The result of one check of one scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckReport {
    /// Unique within its scenario and stable between runs; `schema:MESSAGE` and `websocket` are the checks of every
    /// frame.
    pub name: String,
    /// The rules of the check, each with the verdict at its own level. Empty if the document has no rule for it.
    pub rules: Vec<(RuleUse, Verdict)>,
    /// The worst verdict of the check's rules.
    pub verdict: Verdict,
    /// The position of the check in the scenario file.
    pub span: Option<Span>,
    /// Whether it is an entry of `always`, which judges frames whatever the steps do.
    pub always: bool,
    /// The step as written.
    pub step: String,
    /// How often the check was evaluated: once per round of an `each`, or once per frame.
    pub asked: usize,
    /// What was wrong, in one line; empty if nothing was.
    pub message: String,
    pub detail: Option<FindingDetail>,
    /// The declared deviation because of which the check does not hold, which makes its verdict known.
    pub deviation: Option<KnownDeviation>,
}

impl CheckReport {
    /// Creates the report of a check without rules and without a place in a scenario, evaluated once.
    pub fn new(name: impl Into<String>, verdict: Verdict) -> Self {
        Self {
            name: name.into(),
            rules: Vec::new(),
            verdict,
            span: None,
            always: false,
            step: String::new(),
            asked: 1,
            message: String::new(),
            detail: None,
            deviation: None,
        }
    }

    /// Whether it belongs to a step: schemas, framing and `always` also judge frames that no step expects.
    pub fn is_of_step(&self) -> bool {
        self.span.is_some() && !self.always
    }

    /// Returns the rules with the verdict of the check: another one, which it names at a lower level, may hold.
    pub fn rules_of_verdict(&self) -> impl Iterator<Item = &RuleUse> {
        self.rules.iter().filter(|(_, verdict)| *verdict == self.verdict).map(|(used, _)| used)
    }

    /// Returns what was wrong; the step if nothing was.
    pub fn message_or_step(&self) -> &str {
        if self.message.is_empty() { &self.step } else { &self.message }
    }

    /// Returns the reason of the declared deviation because of which the check does not hold.
    pub fn known_reason(&self) -> Option<&str> {
        self.deviation.as_ref().map(|known| known.reason.as_str())
    }

    /// Whether it accuses the hub.
    pub fn accuses_hub(&self) -> bool {
        matches!(self.verdict, Verdict::Fail | Verdict::Warn)
    }

    /// Makes the check inconclusive.
    pub fn make_inconclusive(&mut self) {
        self.verdict = Verdict::Inconclusive;
        self.rules.iter_mut().for_each(|(_, verdict)| *verdict = Verdict::Inconclusive);
    }
}

/// The evidence of a finding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FindingDetail {
    pub actor: String,
    /// When the finding was made, counted from the start of the scenario; null if that is not known.
    #[serde(rename = "at_ms", with = "optional_milliseconds", default)]
    #[cfg_attr(test, schemars(with = "Option<f64>"))]
    pub at: Option<Duration>,
    /// A JSON pointer to the wrong member of the received message; null if the finding is not about one member.
    pub place: Option<String>,
    /// The last message this actor sent, shortened; for a step without an actor, that of any actor.
    pub sent: Option<String>,
    pub expected: String,
    /// The frame, shortened, or a text such as "nothing, connection still open".
    pub received: String,
    /// The rounds of the loops around the step, with their values.
    pub round: Option<String>,
    /// How long the step waited.
    #[serde(rename = "waited_ms", with = "optional_milliseconds", default)]
    #[cfg_attr(test, schemars(with = "Option<f64>"))]
    pub waited: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HistoryDirection {
    Sent,
    Received,
    /// Neither sent nor received: the connection opened or ended.
    Neither,
}

/// What a line of the history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    Open,
    /// The server refused the upgrade.
    Refused,
    /// The server does not speak WebSocket, or did not answer.
    #[serde(rename = "no upgrade")]
    NoUpgrade,
    Unreachable,
    Text,
    Binary,
    /// Raw frames that a step lists.
    Frames,
    /// Raw bytes that a step lists.
    Bytes,
    Ping,
    Pong,
    Close,
    /// Bytes that break RFC 6455.
    #[serde(rename = "broken frame")]
    Broken,
    /// The client closed its side of the TCP connection.
    Fin,
    /// The client reset the TCP connection.
    Reset,
    /// The connection ended without a close frame.
    End,
    /// A message that the hub did not send, but that a declared deviation allows to assume.
    Assumed,
}

impl FrameKind {
    /// Returns the name that reports show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Refused => "refused",
            Self::NoUpgrade => "no upgrade",
            Self::Unreachable => "unreachable",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Frames => "frames",
            Self::Bytes => "bytes",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Close => "close",
            Self::Broken => "broken frame",
            Self::Fin => "fin",
            Self::Reset => "reset",
            Self::End => "end",
            Self::Assumed => "assumed",
        }
    }

    /// Whether it is a whole message that the codec assembled.
    pub fn is_message(self) -> bool {
        matches!(self, Self::Text | Self::Binary)
    }
}

/// A line of the history: a frame that was sent or received, or a change of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FrameReport {
    /// The time since the scenario began.
    #[serde(rename = "at_ms", with = "milliseconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub at: Duration,
    pub actor: String,
    pub connection: u32,
    pub direction: HistoryDirection,
    /// open, refused, no upgrade, unreachable, text, binary, frames, bytes, ping, pong, close, broken frame, fin, reset,
    /// end, assumed.
    #[cfg_attr(test, schemars(with = "String"))]
    pub kind: FrameKind,
    /// The payload, shortened, with secrets masked.
    pub text: String,
    /// The size of the whole payload in bytes.
    pub size: usize,
    /// The first twelve digits of the SHA-256 of the whole payload, if it was shortened.
    pub hash: Option<String>,
    /// The HTTP status with which a connection was refused.
    #[serde(skip)]
    pub status: Option<u16>,
}

impl FrameReport {
    /// Whether a connection was not established, or refused for the number of clients rather than for this one.
    pub fn is_lack_of_capacity(&self) -> bool {
        const TOO_MANY_REQUESTS: u16 = 429;
        self.kind == FrameKind::NoUpgrade || self.is_server_error() || self.status == Some(TOO_MANY_REQUESTS)
    }

    /// Whether a connection was refused with HTTP 5xx, by the hub or by a proxy in front of it.
    pub fn is_server_error(&self) -> bool {
        matches!(self.status, Some(500..600))
    }
}

/// A need of a scenario that the target does not meet; ordered by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnmetNeed {
    /// The name under which it is counted and shown.
    pub name: String,
    pub lacks: Lack,
}

/// What a target lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    Hook,
    /// A setting, or another value of one.
    Setting,
    /// A property of the hub that no setting describes.
    Property,
}

impl From<&Need> for UnmetNeed {
    fn from(need: &Need) -> Self {
        let lacks = match need {
            Need::Hook(_) => Lack::Hook,
            Need::Setting(_) | Need::Expression { .. } => Lack::Setting,
            Need::Word(_) => Lack::Property,
        };
        Self { name: need.name(), lacks }
    }
}

/// Converts to milliseconds, to the microsecond.
pub fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// A time in JSON, in milliseconds; a negative one is read as zero.
pub mod milliseconds {
    use super::*;

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        ms(*time).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        f64::deserialize(deserializer).map(|ms| Duration::from_micros((ms * 1000.0).round() as u64))
    }
}

/// Like [`milliseconds`], or null.
pub mod optional_milliseconds {
    use super::*;

    pub fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(ms).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Milliseconds(#[serde(with = "milliseconds")] Duration);
        Ok(Option::<Milliseconds>::deserialize(deserializer)?.map(|time| time.0))
    }
}

/// The kind of a message: its index in the pack; `None` if it matches no message of the pack.
pub type MessageKind = Option<usize>;

/// When a hub sent messages of one kind, counted from the start of the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTimes {
    /// The last one.
    pub last: Duration,
    /// The latest one that was the first of its kind on a connection.
    pub greeting: Duration,
}

/// What a hub itself sent in a scenario, without close frames, pings, pongs, and messages that are only assumed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubActivity {
    pub answers: BTreeMap<MessageKind, AnswerTimes>,
    /// When a connection first ended without a close frame or was not made, counted from the start of the scenario.
    pub cut: Option<Duration>,
}

/// A scenario that a hub served before, but no longer serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedProbe {
    pub id: String,
    /// The first message that the hub sent before, but no longer sends.
    pub missing: MessageKind,
}

/// The report of one scenario, played once.
#[derive(Clone, Debug, PartialEq)]
pub struct ScenarioReport {
    pub protocol: String,
    pub id: String,
    pub title: String,
    pub span: Span,
    /// The instance of the target on which the scenario ran; empty if it could not run.
    pub instance: String,
    /// The number of the repetition, from 1; above 1 only with `--repeat`.
    pub repetition: usize,
    pub verdict: Verdict,
    pub checks: Vec<CheckReport>,
    /// The needs the target did not meet: nothing ran.
    pub unmet: Vec<UnmetNeed>,
    /// The precondition that failed, so that checks after it were not evaluated.
    pub cause: Option<PreconditionFailure>,
    /// A mistake in the scenario that only running it revealed; the exit code is 2.
    pub mistake: Option<String>,
    /// The step with the mistake, or the expression.
    pub mistake_at: Option<Span>,
    /// Received frames that no step expected, counted by message.
    pub leftovers: Vec<(String, usize)>,
    pub history: Vec<FrameReport>,
    /// The number of frames dropped from the bounded history.
    pub history_dropped: usize,
    /// When the scenario began, counted from the start of the run.
    pub begun: Duration,
    /// What the hub itself sent.
    pub activity: HubActivity,
    /// The scenario that the hub no longer served when it was played again after this one.
    pub unserved: Option<UnservedProbe>,
    pub duration: Duration,
    /// The successful wait that took the largest share of its time limit.
    pub slimmest: Option<TimingMargin>,
    pub waits: WaitReport,
    /// The declared deviations that applied.
    pub deviations: SightingsByEntry,
    /// What the failed precondition expected but did not get, if the hub was reachable.
    pub missed: Option<MissedExpectation>,
    pub evidence: DeviationEvidence,
    /// Whether the run ended while the scenario was played.
    pub interrupted: bool,
}

impl ScenarioReport {
    /// Creates the report of a scenario in which nothing has happened.
    pub fn new(protocol: &str, id: &str, title: &str, span: Span) -> Self {
        Self {
            protocol: protocol.to_owned(),
            id: id.to_owned(),
            title: title.to_owned(),
            span,
            instance: String::new(),
            repetition: 1,
            verdict: Verdict::Pass,
            checks: Vec::new(),
            unmet: Vec::new(),
            cause: None,
            mistake: None,
            mistake_at: None,
            leftovers: Vec::new(),
            history: Vec::new(),
            history_dropped: 0,
            begun: Duration::ZERO,
            activity: HubActivity::default(),
            unserved: None,
            duration: Duration::ZERO,
            slimmest: None,
            waits: WaitReport::default(),
            deviations: SightingsByEntry::new(),
            missed: None,
            evidence: DeviationEvidence::default(),
            interrupted: false,
        }
    }

    /// Creates the report of a program that has not been played.
    pub fn of(program: &Program) -> Self {
        Self::new(&program.pack.name, &program.id, &program.title, program.span)
    }

    /// Whether all its connections were refused with HTTP 5xx. (429 stands for too many attempts, so more of them show
    /// nothing.)
    pub fn is_refused_by_proxy(&self) -> bool {
        self.history.iter().any(FrameReport::is_server_error) && !self.has_frame(FrameKind::Open)
    }

    pub fn has_frame(&self, kind: FrameKind) -> bool {
        self.history.iter().any(|frame| frame.kind == kind)
    }
}

/// How promptly the hub answered in a conversation. An awaited event has a name: the name of a message, or a phrase
/// such as `the answer to the upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitReport {
    /// Names of the events that arrived while a step waited for them, or later.
    pub arrived: BTreeSet<String>,
    /// Whether the hub sent a documented message that steps do not ignore.
    pub answered: bool,
    /// Names of the events that did not arrive within a full wait.
    pub missed: BTreeSet<String>,
    pub speed: HubSpeed,
    /// The shortened waits that ran out, by the name of the awaited event.
    pub shortened: BTreeMap<String, ShortenedWaits>,
    /// The names of checks that failed because their step received nothing within a full wait.
    pub silent_checks: BTreeSet<String>,
}

/// How fast a hub is, measured by waits that ended with an arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubSpeed {
    pub slowest_answer: Duration,
    /// Shows how slow the network is. The slowest upgrade does not: simultaneous upgrades delay each other.
    pub quickest_upgrade: Option<Duration>,
}

impl HubSpeed {
    /// A wait is ample if it lasts this many times as long as the slowest answer.
    const SLOWNESS: u32 = 4;

    pub fn add(&mut self, other: Self) {
        self.slowest_answer = self.slowest_answer.max(other.slowest_answer);
        self.quickest_upgrade = self.quickest_upgrade.into_iter().chain(other.quickest_upgrade).min();
    }

    /// Returns how long a wait is ample. An upgrade takes at least two round trips, and an answer one.
    pub fn ample_wait(self) -> Duration {
        (self.slowest_answer * Self::SLOWNESS).max(self.quickest_upgrade.unwrap_or_default())
    }
}

/// Waits that were shortened because earlier conversations waited for the same event in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShortenedWaits {
    pub times: usize,
    /// Total time by which they were shortened.
    pub saved: Duration,
}

impl ShortenedWaits {
    pub fn plus(self, other: Self) -> Self {
        Self { times: self.times + other.times, saved: self.saved + other.saved }
    }
}

/// How close a successful wait came to its time limit, and thus a slow machine to a false alarm.
#[derive(Clone, Debug, PartialEq)]
pub struct TimingMargin {
    /// The step that waited.
    pub step: String,
    pub waited: Duration,
    /// How long the step would have waited; never zero.
    pub bound: Duration,
}

impl TimingMargin {
    /// Returns the share of the time limit that passed: 0 if the wait ended at once, 1 if it ended at the last moment.
    pub fn used_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.bound.as_secs_f64()
    }

    pub fn remaining(&self) -> Duration {
        self.bound.saturating_sub(self.waited)
    }
}

/// The process of a hub that hubproof started with a command, over a whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessReport {
    /// The command as written, with secrets masked.
    pub command: String,
    /// The instances of the target that the hub serves.
    pub instances: Vec<String>,
    /// How often the hub was started: once, and again after each end of its process, after each destructive scenario,
    /// and whenever a fresh hub was needed.
    pub starts: usize,
    pub crashes: Vec<HubCrash>,
    /// Why the hub was not started again although scenarios still needed it.
    pub given_up: Option<String>,
    /// The last lines that the last process printed.
    pub log: LogExcerpt,
    /// Whether the hub runs elsewhere, so that its output is not known.
    pub elsewhere: bool,
}

/// An end of a hub's process that hubproof did not cause, or a hang after which the hub was started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HubCrash {
    /// `exit status 3` or `killed by signal 11 (SIGSEGV)`; for a hang, how it was noticed.
    pub status: String,
    /// Whether the process still ran but no longer sent anything.
    pub hung: bool,
    /// The scenarios that were being played on the hub when it ended.
    pub during: Vec<String>,
    /// The scenario that was the last to end before the crash, if any had ended.
    pub after: Option<String>,
    /// The scenario that caused the crash: no other was played on this process, or at the same time.
    pub blamed: Option<String>,
    /// The last frame that was sent before: `ACTOR of SCENARIO: FRAME`.
    pub last_sent: Option<String>,
    pub log: LogExcerpt,
}

impl HubCrash {
    /// Returns what the hub did: `ended by itself` or `hung`.
    pub fn describe_end(&self) -> &'static str {
        if self.hung { "hung" } else { "ended by itself" }
    }
}

/// Lines of stdout and stderr of a hub's process, secrets masked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogExcerpt {
    pub lines: Vec<String>,
    /// The number of earlier lines that are not shown.
    pub left_out: usize,
}

impl ProcessReport {
    /// Returns the crashes without a known cause: no scenario is blamed for them, and no scenario that was being played
    /// during them is blamed for a crash when played again alone.
    pub fn unexplained_crashes(&self) -> impl Iterator<Item = &HubCrash> {
        let blamed = |id: &String| self.crashes.iter().any(|crash| crash.blamed.as_ref() == Some(id));
        self.crashes.iter().filter(move |crash| crash.blamed.is_none() && !crash.during.iter().any(blamed))
    }
}

/// A precondition that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct PreconditionFailure {
    pub span: Option<Span>,
    /// The step that failed; empty if the scenario was stopped for another reason.
    pub step: String,
    pub message: String,
    pub detail: Option<FindingDetail>,
    /// Whether no connection could be made at all.
    pub unreachable: bool,
    /// Whether the step waited for less time than it states.
    pub shortened: bool,
    /// Whether the hub refused the client's credentials: with HTTP 401 or 403, or with a documented message about it.
    pub unauthenticated: bool,
}

impl PreconditionFailure {
    /// Creates the cause of a scenario that was not stopped by one of its steps.
    pub fn without_step(message: String) -> Self {
        Self {
            span: None,
            step: String::new(),
            message,
            detail: None,
            unreachable: false,
            shortened: false,
            unauthenticated: false,
        }
    }

    /// Formats `STEP: MESSAGE`.
    pub fn with_step(&self) -> String {
        if self.step.is_empty() { self.message.clone() } else { format!("{}: {}", self.step, self.message) }
    }

    /// Formats `ACTOR: STEP: MESSAGE`.
    pub fn with_actor(&self) -> String {
        match self.detail.as_ref().map(|detail| detail.actor.as_str()) {
            None | Some("") => self.with_step(),
            Some(actor) => format!("{actor}: {}", self.with_step()),
        }
    }
}

/// An event that the runs send to the loop that shows progress and collects reports.
#[derive(Debug)]
pub enum ScenarioEvent {
    Started {
        id: String,
    },
    /// A frame was sent or received; reported only with `--trace`.
    Frame {
        id: String,
        frame: FrameReport,
    },
    /// A `wait` step began; it is shown while it lasts.
    Waiting {
        id: String,
        because: String,
        time: Duration,
    },
    Finished(Box<ScenarioReport>),
    /// A scenario was played with a variation, which made no difference; `id` names both.
    Varied {
        id: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const BROKEN: fn() -> CheckOutcome = || CheckOutcome::Broken;
    const TOLERATED: fn() -> CheckOutcome = || CheckOutcome::Tolerated(String::new());
    const NOTED: fn() -> CheckOutcome = || CheckOutcome::Noted(String::new());
    const HOLDS: fn() -> CheckOutcome = || CheckOutcome::Holds;
    const UNDECIDED: fn() -> CheckOutcome = || CheckOutcome::Undecided(String::new());
    const NOT_REACHED: fn() -> CheckOutcome = || CheckOutcome::NotReached(String::new());

    /// Every outcome at every level on every basis: the verdict, and the verdict with `stated_only`.
    #[rstest]
    #[case(BROKEN, RuleLevel::Must, RuleBasis::Stated, Verdict::Fail, Verdict::Fail)]
    #[case(BROKEN, RuleLevel::Must, RuleBasis::Implied, Verdict::Fail, Verdict::Warn)]
    #[case(BROKEN, RuleLevel::Must, RuleBasis::Silent, Verdict::Info, Verdict::Info)]
    #[case(BROKEN, RuleLevel::Should, RuleBasis::Stated, Verdict::Warn, Verdict::Warn)]
    #[case(BROKEN, RuleLevel::Should, RuleBasis::Implied, Verdict::Warn, Verdict::Warn)]
    #[case(BROKEN, RuleLevel::Should, RuleBasis::Silent, Verdict::Info, Verdict::Info)]
    #[case(BROKEN, RuleLevel::May, RuleBasis::Stated, Verdict::Info, Verdict::Info)]
    #[case(BROKEN, RuleLevel::May, RuleBasis::Implied, Verdict::Info, Verdict::Info)]
    #[case(BROKEN, RuleLevel::May, RuleBasis::Silent, Verdict::Info, Verdict::Info)]
    #[case(TOLERATED, RuleLevel::Must, RuleBasis::Stated, Verdict::Warn, Verdict::Warn)]
    #[case(TOLERATED, RuleLevel::Must, RuleBasis::Implied, Verdict::Warn, Verdict::Warn)]
    #[case(TOLERATED, RuleLevel::Must, RuleBasis::Silent, Verdict::Info, Verdict::Info)]
    #[case(TOLERATED, RuleLevel::Should, RuleBasis::Stated, Verdict::Warn, Verdict::Warn)]
    #[case(TOLERATED, RuleLevel::May, RuleBasis::Stated, Verdict::Info, Verdict::Info)]
    fn outcome_level_and_basis_determine_the_verdict(
        #[case] outcome: fn() -> CheckOutcome,
        #[case] level: RuleLevel,
        #[case] basis: RuleBasis,
        #[case] expected: Verdict,
        #[case] stated_only: Verdict,
    ) {
        assert_eq!(rule_verdict(&outcome(), level, basis, false), expected);
        assert_eq!(rule_verdict(&outcome(), level, basis, true), stated_only);
    }

    #[rstest]
    #[case(HOLDS, Verdict::Pass)]
    #[case(NOTED, Verdict::Info)]
    #[case(UNDECIDED, Verdict::Inconclusive)]
    #[case(NOT_REACHED, Verdict::NotTestable)]
    fn outcomes_other_than_broken_have_the_same_verdict_at_every_level(
        #[case] outcome: fn() -> CheckOutcome,
        #[case] expected: Verdict,
        #[values(RuleLevel::Must, RuleLevel::Should, RuleLevel::May)] level: RuleLevel,
        #[values(RuleBasis::Stated, RuleBasis::Implied, RuleBasis::Silent)] basis: RuleBasis,
        #[values(true, false)] stated_only: bool,
    ) {
        assert_eq!(rule_verdict(&outcome(), level, basis, stated_only), expected);
    }
}
