//! What members, leader and watchers of a run send to each other. All of it may come from a stranger.

use serde::{Deserialize, Serialize};

use crate::load::Nanos;
use crate::load::holds::MAX_HOLDS;
use crate::load::shares::record::{CommonFacts, LostShare, ShareProgress};
use crate::syntax::share::Share;

/// The longest text in a message, in bytes.
const MAX_TEXT: usize = 2_000;
/// The most deltas of one second each that a run can have: more than a century.
const MAX_SEQUENCE: u64 = 1 << 32;

/// A message; `D` is what a share measures in a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Message<D> {
    Status(Box<Status<D>>),
    Tick(Box<Tick>),
    Pong(Pong),
    Resend(Resend),
    Stop(StopRequest),
    Hold(HoldRequest),
    Facts(Box<RunFacts>),
}

/// What a member reports every second, to the leader and to watchers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status<D> {
    pub share: Share,
    /// Distinguishes processes that have the same share.
    pub member: u64,
    /// Where the member runs, for people.
    pub place: String,
    /// Unix time of the member's clock in nanoseconds; the leader's answer returns it.
    pub sent: i64,
    /// By how much the member may be wrong about the leader's clock; `None` until it was measured.
    pub clock_error: Option<Nanos>,
    /// Until the run begins.
    pub facts: Option<Box<CommonFacts>>,
    /// Whether the member's load has ended.
    pub ended: bool,
    pub done: ShareProgress,
    pub delta: Option<Delta<D>>,
}

/// What a share measured in consecutive seconds, numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta<D> {
    pub first: u64,
    pub count: u64,
    pub content: D,
}

/// What the leader publishes every second, to all members and watchers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    pub share: Share,
    pub member: u64,
    pub place: String,
    /// How many members are ready.
    pub ready: u32,
    /// When the run begins: Unix time of the leader's clock in nanoseconds.
    pub start: Option<i64>,
    /// The shares without which the run began, as indexes.
    pub absent: Vec<u32>,
    /// The shares that are silent.
    pub lost: Vec<LostShare>,
    /// Why the run cannot begin.
    pub refused: Option<String>,
    pub stop: Option<StopRequest>,
    /// When holds began and ended, in turn: Unix time of the common clock in nanoseconds.
    pub hold_changes: Vec<i64>,
    /// Whether all members have ended or are lost.
    pub over: bool,
    /// What the leader itself has done, in case that it is lost.
    pub done: ShareProgress,
}

/// The leader's answer to a member's status.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Pong {
    pub share: Share,
    pub member: u64,
    pub leader: u64,
    /// The time that the member sent.
    pub echo: i64,
    /// Unix time of the leader's clock in nanoseconds.
    pub at: i64,
}

/// A request to a member to send its deltas again, beginning with this one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Resend {
    pub share: Share,
    pub from: u64,
}

/// A request to all members to end the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// Whether running journeys are dropped instead of finished.
    pub at_once: bool,
    /// Whether the hub broke a threshold, and no user ended the run.
    pub by_threshold: bool,
    pub reason: String,
}

/// A request to hold back new journeys in all shares, or to end that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRequest {
    pub begins: bool,
}

/// What a watcher has to know of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFacts {
    pub common: CommonFacts,
    pub shares: u32,
    /// How long the plan measures, in seconds.
    pub seconds: u64,
}

impl<D> Message<D> {
    /// Returns the last words of the subject on which the message is published.
    pub fn subject(&self) -> String {
        match self {
            Self::Status(status) => format!("share.{}", status.share.index() + 1),
            Self::Pong(Pong { share, .. }) | Self::Resend(Resend { share, .. }) => format!("to.{}", share.index() + 1),
            Self::Tick(_) => "tick".to_owned(),
            Self::Stop(_) | Self::Hold(_) => "control".to_owned(),
            Self::Facts(_) => "facts".to_owned(),
        }
    }

    /// Whether texts and numbers are within their limits.
    pub fn is_acceptable(&self) -> bool {
        let text = |text: &str| text.len() <= MAX_TEXT;
        match self {
            Self::Status(status) => {
                let delta = status.delta.as_ref();
                let counted = |delta: &Delta<D>| delta.first < MAX_SEQUENCE && (1..MAX_SEQUENCE).contains(&delta.count);
                text(&status.place) && delta.is_none_or(counted)
            }
            Self::Tick(tick) => {
                let stop = tick.stop.as_ref().is_none_or(|stop| text(&stop.reason));
                let held = tick.hold_changes.len() <= 2 * MAX_HOLDS;
                text(&tick.place) && stop && held && tick.refused.as_deref().is_none_or(text)
            }
            Self::Stop(stop) => text(&stop.reason),
            Self::Facts(facts) => facts.common.has_place_for(&[]),
            Self::Hold(_) | Self::Pong(_) | Self::Resend(_) => true,
        }
    }
}
