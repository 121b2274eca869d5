//! Checks and preconditions of a scenario, with their evidence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Verdict, optional_milliseconds};
use crate::scenario::model::RuleUse;
use crate::syntax::source::Span;

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
    /// The names of actors on which the check rests although no message shows that the hub had taken note of their
    /// connection, message or departure by then.
    pub rests_on_unfenced: Vec<String>,
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
            rests_on_unfenced: Vec::new(),
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
    /// The request that the finding is about, or else the last message this actor sent, shortened.
    pub sent: Option<String>,
    /// The actor that sent it, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
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
    /// As in [`CheckReport::rests_on_unfenced`].
    pub rests_on_unfenced: Vec<String>,
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
            rests_on_unfenced: Vec::new(),
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
