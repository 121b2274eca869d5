//! The expectation of the current step, and the reasons why a step fails.

use std::ops::Range;
use std::time::Duration;

use super::matching::ExpectedFrame;
use crate::outcome::FindingDetail;
use crate::scenario::model::{ActorId, CountRange, ExpectedCodes, GroupQuantity};
use crate::scenario::value::{BoundValue, EvalError, Provenance};

/// Why a step failed.
pub struct StepFailure {
    pub kind: StepFailureKind,
    pub message: String,
    pub detail: Option<Box<FindingDetail>>,
    pub unreachable: bool,
    /// Whether an alternative happened that the step names as wrong, so that the hub is known to be at work.
    pub answered: bool,
    /// How long the step waited, if its wait was shortened.
    pub shortened: Option<Duration>,
    /// Whether the hub refused the credentials of an actor of the step.
    pub unauthenticated: bool,
}

pub enum StepFailureKind {
    /// The hub did not do what the step expects.
    Broken,
    /// It is unknown whether the hub did what the step expects.
    Undecided,
    /// The step uses a name that only another branch binds.
    NotReached,
    /// What the step expects depends on a message that the deviation with this index assumes.
    Assumed { deviation: u16 },
    /// The scenario is wrong.
    Mistake,
}

impl StepFailure {
    fn new(kind: StepFailureKind, message: impl Into<String>, detail: Option<FindingDetail>) -> Self {
        Self {
            kind,
            message: message.into(),
            detail: detail.map(Box::new),
            unreachable: false,
            answered: false,
            shortened: None,
            unauthenticated: false,
        }
    }

    pub(super) fn broken(message: impl Into<String>, detail: FindingDetail) -> Self {
        Self::new(StepFailureKind::Broken, message, Some(detail))
    }

    pub(super) fn undecided(message: impl Into<String>, detail: Option<FindingDetail>) -> Self {
        Self::new(StepFailureKind::Undecided, message, detail)
    }

    /// Returns the failure of a step whose actor could not connect to the hub.
    pub(super) fn unreachable(reason: &str, detail: FindingDetail) -> Self {
        Self { unreachable: true, ..Self::undecided(reason, Some(detail)) }
    }

    /// Returns the failure of a step whose expectation has this provenance: nothing assumed can be broken.
    pub(super) fn of(self, provenance: Provenance) -> Self {
        match (provenance, &self.kind) {
            (Provenance::Assumed { deviation }, StepFailureKind::Broken | StepFailureKind::Undecided) => {
                Self { kind: StepFailureKind::Assumed { deviation }, ..self }
            }
            _ => self,
        }
    }

    pub(super) fn mistake(message: impl Into<String>) -> Self {
        Self::new(StepFailureKind::Mistake, message, None)
    }

    pub(super) fn assumed(deviation: u16) -> Self {
        let message = Provenance::Assumed { deviation }.doubt().unwrap_or_default();
        Self::new(StepFailureKind::Assumed { deviation }, message, None)
    }

    pub(super) fn not_reached(message: impl Into<String>) -> Self {
        Self::new(StepFailureKind::NotReached, message, None)
    }
}

impl From<EvalError> for StepFailure {
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Unbound(name) => Self::not_reached(format!("not reached: `{name}` was never bound")),
            EvalError::Missing(what) => Self::undecided(format!("{what} is missing"), None),
            EvalError::Failed(what) | EvalError::Mistake(what) => Self::mistake(what),
        }
    }
}

/// What the current step waits for.
pub struct ActiveStep {
    pub(super) since: Duration,
    pub(super) deadline: Option<Duration>,
    /// When the wait would have ended if it had not been shortened.
    pub(super) full: Option<Duration>,
    pub(super) waiting: WaitCondition,
}

impl WaitCondition {
    /// Returns whether the expectation rests only on observed values.
    pub(super) fn provenance(&self) -> Provenance {
        let all = |awaited: &mut dyn Iterator<Item = &ExpectedFrame>| {
            awaited.fold(Provenance::Observed, |all, awaited| all.join(awaited.provenance()))
        };
        match self {
            Self::Frames(frames) => all(&mut frames.members.iter().map(|member| &member.awaited)),
            Self::Silence { members } => all(&mut members.iter().map(|(_, awaited)| awaited)),
            Self::OneOf { members } => all(&mut members.iter().flat_map(|member| member.awaited.iter().flatten())),
            _ => Provenance::Observed,
        }
    }
}

pub(super) enum WaitCondition {
    /// The deadline, at which the step is done.
    Time,
    /// The deadline, at which the step begins.
    Pause,
    Upgrade {
        members: Vec<ActorId>,
        tries: bool,
    },
    Frames(Box<AwaitedFrames>),
    End {
        members: Vec<ActorId>,
        codes: ExpectedCodes,
        refusal: bool,
    },
    /// The end of the TCP stream.
    StreamEnd {
        members: Vec<ActorId>,
    },
    Silence {
        members: Vec<(ActorId, ExpectedFrame)>,
    },
    OneOf {
        members: Vec<AwaitedAlternatives>,
    },
    /// The answers to these calls of a hook, of which this many have come.
    Hook {
        calls: Range<u32>,
        answered: usize,
    },
    /// The pause after a hook's answer that did not match. Then the hook is called again.
    HookAgain,
}

/// Frames that one or several actors expect.
pub(super) struct AwaitedFrames {
    pub(super) members: Vec<AwaitingActor>,
    pub(super) count: Option<CountRange>,
    pub(super) quantity: Option<(GroupQuantity, usize)>,
    /// Whether frames are collected until the deadline, rather than until there are enough.
    pub(super) collecting: bool,
    /// Whether the first deadline (of `for`) has passed with frames missing, and the step waits until the target's
    /// patience ends.
    pub(super) late: bool,
}

impl AwaitedFrames {
    /// Returns how many frames each member must receive.
    pub(super) fn least(&self) -> usize {
        self.count.map_or(1, |count| count.min)
    }

    /// Returns whether all frames so far were received.
    pub(super) fn provenance(&self) -> Provenance {
        let claims = self.members.iter().flat_map(|member| &member.claims);
        claims.fold(Provenance::Observed, |all, claim| all.join(claim.provenance()))
    }

    /// Returns whether all frames so far matched by observed members.
    pub(super) fn matched_by(&self) -> Provenance {
        Provenance::join_all(self.members.iter().map(|member| member.awaited.matched_by()))
    }
}

pub(super) struct AwaitingActor {
    pub(super) id: ActorId,
    pub(super) awaited: ExpectedFrame,
    pub(super) claims: Vec<BoundValue>,
}

/// An actor that expects one of several alternatives.
pub(super) struct AwaitedAlternatives {
    pub(super) id: ActorId,
    pub(super) awaited: Vec<Option<ExpectedFrame>>,
    pub(super) chosen: Option<(usize, BoundValue)>,
}

impl ActiveStep {
    pub fn pause(until: Duration) -> Self {
        Self { since: until, deadline: Some(until), full: None, waiting: WaitCondition::Pause }
    }
}
