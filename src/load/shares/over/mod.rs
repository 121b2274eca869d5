//! Shares of a run that agree on its start, and report while it runs, over a message server.
//!
//! All members are equal. One of them leads: it receives what the others report, and publishes a [`message::Tick`] every
//! second, which all receive. So a run costs two messages per member and second, not one per pair of members. If ticks
//! stay away, the next member leads, and asks the others for what they have reported so far. What a leader does wrong or
//! too late can only delay the run: the files of the shares hold all that was measured, and `merge` judges them.
//!
//! Everything here is pure: time and messages come in, messages and decisions go out. [`crate::load::nats`] carries them.
//!
//! ```text
//! message     what members, leader and watchers send to each other
//! deltas      what a member has reported, kept for those who missed it
//! roster      what a leader or a watcher knows of the members
//! member      one member: announces itself, follows or leads, starts, ends
//! totals      the measurements of all shares so far
//! simulation  a thousand members in simulated time
//! ```

pub mod deltas;
pub mod member;
pub mod message;
pub mod roster;
pub mod totals;

#[cfg(test)]
mod simulation;

use std::time::Duration;

use member::{AgreedStart, HoldChange, MemberSettings};
use message::StopRequest;

use super::name::RunName;
use super::record::{PackedInterval, ShareProgress};
use crate::load::plan::threshold::MetricThreshold;
use crate::load::{Nanos, SECOND};

/// How long a member may be silent before it counts as lost.
pub const SILENCE: Nanos = 3 * SECOND;
/// How long a run may be without a leader before a watcher takes it for dead.
pub const MAX_LEADERLESS: Nanos = 20 * SECOND;
/// Shares report times since this long before their start, in nanoseconds, so that none is negative.
pub const EARLIEST: i64 = 3_600 * SECOND as i64;

/// Takes what a share measured in a second, and what it has done so far.
pub type MeasurementReporter = Box<dyn FnMut(PackedInterval, ShareProgress) + Send>;

/// What a run learns from the others.
#[derive(Debug)]
pub enum MemberEvent {
    /// How many shares are ready to begin.
    Ready(u32),
    Begin(AgreedStart),
    Refuse(String),
    Stop(StopRequest),
    Hold(HoldChange),
    Warn(String),
}

/// What a share needs to run together with others.
pub struct ParticipationSettings {
    pub run: RunName,
    pub member: MemberSettings,
    /// How long the plan measures.
    pub duration: Duration,
    /// Thresholds that end the run when all shares together break them.
    pub thresholds: Vec<MetricThreshold>,
    /// Whether the plan's load changes by itself.
    pub changing_load: bool,
}
