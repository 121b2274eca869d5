//! What the current step waits for, and why a step fails.

use std::time::Duration;

use super::matching::Wanted;
use crate::event::Detail;
use crate::scenario::model::{ActorId, Codes, Count, Quantity};
use crate::scenario::value::{Bound, EvalError};

/// Why a step failed.
pub struct Failure {
    pub kind: Kind,
    pub message: String,
    pub detail: Option<Box<Detail>>,
    pub unreachable: bool,
}

pub enum Kind {
    /// The hub did not do what the step expects.
    Broken,
    /// It is unknown whether the hub did what the step expects.
    Undecided,
    /// The step uses a name that only another branch binds.
    NotReached,
    /// The scenario is wrong.
    Mistake,
}

impl Failure {
    pub(super) fn broken(message: impl Into<String>, detail: Detail) -> Self {
        Self { kind: Kind::Broken, message: message.into(), detail: Some(Box::new(detail)), unreachable: false }
    }

    pub(super) fn undecided(message: impl Into<String>, detail: Option<Detail>) -> Self {
        Self { kind: Kind::Undecided, message: message.into(), detail: detail.map(Box::new), unreachable: false }
    }

    /// Returns the failure of a step whose actor could not connect to the hub.
    pub(super) fn unreachable(reason: &str, detail: Detail) -> Self {
        Self { unreachable: true, ..Self::undecided(reason, Some(detail)) }
    }

    pub(super) fn mistake(message: impl Into<String>) -> Self {
        Self { kind: Kind::Mistake, message: message.into(), detail: None, unreachable: false }
    }

    pub(super) fn not_reached(message: impl Into<String>) -> Self {
        Self { kind: Kind::NotReached, message: message.into(), detail: None, unreachable: false }
    }

    pub fn from_eval(error: &EvalError) -> Self {
        match error {
            EvalError::Unbound(name) => Self::not_reached(format!("not reached: `{name}` was never bound")),
            EvalError::Missing(what) => Self::undecided(format!("{what} is missing"), None),
            EvalError::Failed(what) => Self::mistake(what.clone()),
        }
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        Self::from_eval(&error)
    }
}

/// What the current step waits for.
pub struct Active {
    pub(super) since: Duration,
    pub(super) deadline: Option<Duration>,
    pub(super) waiting: Waiting,
}

pub(super) enum Waiting {
    /// The deadline, at which the step is done.
    Time,
    /// The deadline, at which the step begins.
    Pause,
    Upgrade {
        members: Vec<ActorId>,
        tries: bool,
    },
    Frames(Box<Frames>),
    End {
        members: Vec<ActorId>,
        codes: Codes,
        refusal: bool,
    },
    /// The end of the TCP stream.
    StreamEnd {
        members: Vec<ActorId>,
    },
    Silence {
        members: Vec<(ActorId, Wanted)>,
    },
    OneOf {
        members: Vec<Open>,
    },
    Hook {
        call: u32,
    },
    /// The pause after a hook's answer that did not match. Then the hook is called again.
    HookAgain,
}

/// Frames that one or several actors expect.
pub(super) struct Frames {
    pub(super) members: Vec<Member>,
    pub(super) count: Option<Count>,
    pub(super) quantity: Option<(Quantity, usize)>,
    /// Whether frames are collected until the deadline, rather than until there are enough.
    pub(super) collecting: bool,
    /// Whether the first deadline (of `for`) has passed with frames missing, and the step waits until the target's
    /// patience ends.
    pub(super) late: bool,
}

pub(super) struct Member {
    pub(super) id: ActorId,
    pub(super) wanted: Wanted,
    pub(super) claims: Vec<Bound>,
}

/// An actor that expects one of several alternatives.
pub(super) struct Open {
    pub(super) id: ActorId,
    pub(super) wanted: Vec<Option<Wanted>>,
    pub(super) chosen: Option<(usize, Bound)>,
}

impl Active {
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    pub fn pause(until: Duration) -> Self {
        Self { since: until, deadline: Some(until), waiting: Waiting::Pause }
    }
}
