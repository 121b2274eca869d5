//! What the clients of a plan do, as it was read: steps and templates, before they are prepared for a target.

use std::sync::Arc;
use std::time::Duration;

use super::MarkName;
use crate::protocol::Pack;
use crate::scenario::model::{Pattern, Shared, Step};
use crate::scenario::parse::journeys::Parts;
use crate::scenario::template::Template;
use crate::syntax::source::Span;

/// The journeys of a plan, in the order of its roles.
pub struct Script {
    pub pack: Arc<Pack>,
    pub shared: Arc<Shared>,
    /// Values of the whole run.
    pub lets: Vec<(String, Template)>,
    pub feeders: Vec<Feeder>,
    /// How long an answer is waited for, where nothing else is said.
    pub patience: Duration,
    pub parts: Vec<Part>,
    /// What the steps refer to: scenes, roles and reactions of shared.yaml.
    pub shared_parts: Parts,
}

/// Rows of data from a file, a row for each journey.
#[derive(Clone, Debug, PartialEq)]
pub struct Feeder {
    pub name: String,
    pub span: Span,
    pub columns: Vec<String>,
    /// JSON values, as many as there are columns.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// Rows are taken at random, and not one after another.
    pub random: bool,
}

/// What a client of one role does.
pub struct Part {
    /// The role of shared.yaml that it plays, by its name in [`Parts::roles`].
    pub plays: String,
    pub with: Vec<(String, Template)>,
    pub opening: Vec<Line>,
    /// Values of each journey, the same wherever it uses them.
    pub lets: Vec<(String, Template)>,
    pub journey: Vec<Line>,
    /// What a journey does that waits while its client gets another connection, before it waits again.
    pub resumes: Vec<Line>,
    pub journey_name: String,
    /// The key of the item that a journey is about.
    pub item: Option<Template>,
    /// Who a client is in the ledger, where messages name it: else a number.
    pub party: Option<Template>,
    /// When a client begins its journeys by itself; meaningless with arrivals.
    pub pace: Pace,
    /// How many journeys a client makes; without a number until the drain.
    pub times: Option<u32>,
    pub periodic: Vec<Periodic>,
    pub reactions: Vec<Whenever>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The next one when the last one is done.
    Again,
    /// On ticks that are this far apart, each earlier or later by up to `jitter` of that at random.
    Every { interval: Duration, jitter: f64 },
}

/// Something a client does beside its journeys.
pub struct Periodic {
    pub span: Span,
    pub every: Duration,
    pub jitter: f64,
    pub steps: Vec<Line>,
}

/// What a client does when something comes that it did not wait for.
pub struct Whenever {
    pub span: Span,
    pub message: String,
    pub pattern: Option<Pattern>,
    pub as_: Option<String>,
    /// What is measured of what comes.
    pub options: Box<Options>,
    pub steps: Vec<Line>,
}

/// One step of a journey.
pub enum Line {
    Step {
        step: Box<Step>,
        options: Box<Options>,
    },
    Think {
        think: Think,
        span: Span,
    },
    Repeat {
        times: u32,
        steps: Vec<Line>,
        span: Span,
    },
    /// Steps for a share of the journeys, by chance, and others for the rest.
    Sometimes {
        share: f64,
        steps: Vec<Line>,
        otherwise: Vec<Line>,
        span: Span,
    },
}

/// Time that a client takes before it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Think {
    Constant(Duration),
    Uniform(Duration, Duration),
    /// By its mean.
    Exponential(Duration),
    /// By its median, and by the standard deviation of its logarithm.
    LogNormal {
        median: Duration,
        sigma: f64,
    },
}

/// What stands beside a step and concerns what is measured.
#[derive(Default)]
pub struct Options {
    pub marks: Option<(MarkName, Span)>,
    pub item: Option<Template>,
    pub to: Option<Template>,
    pub by: Option<Template>,
    /// How long the hub may keep what is released until it gives it to somebody again.
    pub back_within: Option<Template>,
    /// The name, bound by `as`, of what this is the answer to.
    pub answers: Option<(String, Span)>,
    /// Another message that will do as well.
    pub or: Option<(String, Option<Pattern>)>,
    /// The message of ours that another client sent and this one gets.
    pub delivers: Option<(String, Span)>,
    pub sent_at: Option<Template>,
    pub may_stay_unanswered: bool,
}
