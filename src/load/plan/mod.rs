//! What a plan says, as data: who there is, when things begin, how long it takes, and what must be true at the end.

mod overrides;
mod parse;
pub mod schedule;
pub mod script;
pub mod threshold;

use std::time::Duration;

use crate::syntax::source::Span;

pub use overrides::{BadOverride, Overrides};
pub use parse::{Files, read};
pub use script::Script;

/// A plan for any protocol: clients that connect, and stay.
pub const IDLE: &str = include_str!("idle.yaml");

/// A load run, as its file says or as flags have changed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `<protocol>/load/<name>`, or the file's path.
    pub id: String,
    pub title: String,
    pub phases: Phases,
    pub roles: Vec<Role>,
    /// Messages of one sender must reach each receiver in the order they were published in.
    pub ordered: bool,
    pub thresholds: Vec<Threshold>,
}

/// The parts of a run, one after another, behind the ramps of its populations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// Everything goes on as it will, and is not counted.
    pub warm_up: Duration,
    /// What is measured.
    pub duration: Duration,
    /// Nothing new is begun: at most this long for what is under way.
    pub drain: Duration,
}

/// A population of clients that do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Role {
    pub name: String,
    pub population: Population,
    /// Connects only when every client of this role has joined: its place in [`Plan::roles`].
    pub after: Option<usize>,
    /// Journeys by schedule; without them a client begins the next one when it is done with the last.
    pub arrivals: Option<Arrivals>,
    /// Most journeys of one client that are under way at a time.
    pub at_a_time: u32,
    /// Goes on with journeys of its own in the drain, because others wait for what it does.
    pub drains: bool,
    pub reconnect: Reconnect,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Population {
    pub number: u32,
    pub ramp: Ramp,
}

/// How fast a population connects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ramp {
    /// Evenly, the last one at the end of this time.
    Over(Duration),
    /// So many in a second.
    Rate(f64),
}

impl Population {
    /// When one of its clients is to connect, from when the first one does.
    pub fn start(&self, client: u32) -> Duration {
        let client = f64::from(client.min(self.number));
        match self.ramp {
            Ramp::Over(time) => time.mul_f64(client / f64::from(self.number.max(1))),
            Ramp::Rate(rate) => Duration::from_secs_f64(client / rate),
        }
    }

    /// Until the last one is to connect.
    pub fn ramp(&self) -> Duration {
        self.start(self.number.saturating_sub(1))
    }
}

/// An open schedule: what is due is due, whether anybody is free or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrivals {
    pub spacing: Spacing,
    /// One after another from the beginning of the warm-up; the last one goes on until the drain.
    pub stages: Vec<Stage>,
    /// On top of the stages.
    pub spikes: Vec<Spike>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// The same time between any two at one rate.
    Constant,
    /// As if they knew nothing of each other.
    Poisson,
}

/// A rate in a second that goes evenly from one value to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    pub from: f64,
    pub to: f64,
    pub time: Duration,
}

/// A rate in a second that is added for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spike {
    pub at: Duration,
    pub time: Duration,
    pub rate: f64,
}

/// What a client does when its connection ends and was not meant to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reconnect {
    Never,
    /// Again after this time, twice as long after every failure up to `most`; half of it at random.
    After {
        first: Duration,
        most: Duration,
    },
}

/// What a step notes about an item in the ledger, by its name in plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkName {
    Attempted,
    Published,
    Acknowledged,
    Refused,
    Assigned,
    Released,
    Cancelled,
    Delivered,
    Completed,
    Failed,
}

impl MarkName {
    pub const ALL: [(&str, Self); 10] = [
        ("attempted", Self::Attempted),
        ("published", Self::Published),
        ("acknowledged", Self::Acknowledged),
        ("refused", Self::Refused),
        ("assigned", Self::Assigned),
        ("released", Self::Released),
        ("cancelled", Self::Cancelled),
        ("delivered", Self::Delivered),
        ("completed", Self::Completed),
        ("failed", Self::Failed),
    ];
}

/// Something that must be true of what was measured; [text](Threshold::text) is the business of who measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    pub text: String,
    pub span: Span,
    /// The run ends when it has been broken for this long.
    pub abort_after: Option<Duration>,
}
