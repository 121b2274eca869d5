//! The report of one scenario, played once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{CheckReport, FrameKind, FrameReport, HookCallReport, PreconditionFailure, Verdict, WaitReport};
use crate::deviation::SightingsByEntry;
use crate::deviation::proposal::{DeviationEvidence, MissedExpectation};
use crate::scenario::Program;
use crate::scenario::model::Need;
use crate::syntax::source::Span;

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
    /// The subprotocols that an opening offered when the hub selected none of them.
    pub unselected: Option<String>,
}

/// A scenario that a hub served before, but no longer serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedProbe {
    pub id: String,
    pub missing: HubAnswer,
}

/// The first answer that the hub gave before, but no longer gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubAnswer {
    /// It accepts the connection, but answers no upgrade.
    Upgrade,
    Message(MessageKind),
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
    /// Whether one of them mentioned a limit of the hub, such as a rate limit.
    pub dropped_limit: bool,
    /// The calls of hooks; `None` if they were too large to keep.
    pub hook_calls: Option<Vec<HookCallReport>>,
    /// The claims of tokens, as JSON; `None` if they were too long to keep.
    pub claims: Option<String>,
    /// When the scenario began, counted from the start of the run.
    pub begun: Duration,
    /// What the hub itself sent.
    pub activity: HubActivity,
    /// The scenario that the hub no longer served when it was played again after this one.
    pub unserved: Option<UnservedProbe>,
    pub duration: Duration,
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
            dropped_limit: false,
            hook_calls: Some(Vec::new()),
            claims: Some(String::new()),
            begun: Duration::ZERO,
            activity: HubActivity::default(),
            unserved: None,
            duration: Duration::ZERO,
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

    /// Whether a check may accuse the hub only because something was late: its step received nothing in time, or it judges
    /// a step of a conversation in which the hub or this machine was slow. Frames that are wrong by themselves are wrong at
    /// any time.
    pub fn rests_on_time(&self, check: &CheckReport) -> bool {
        self.waits.silent_checks.contains(&check.name) || self.waits.was_late && check.is_of_step()
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
