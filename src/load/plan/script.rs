//! The behaviour of a plan's clients: parsed steps and templates, before they are compiled for a target.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::schedule::{RateSegment, segments};
use super::{MarkName, Plan, PlanRole};
use crate::load::metrics::{MetricSubjects, OperationTable};
use crate::protocol::Pack;
pub use crate::report::document::load::Workload;
use crate::scenario::model::{MatchPattern, MessageName, SharedDefinitions, Step, StepAction};
use crate::scenario::parse::journeys::JourneyParts;
use crate::scenario::template::Template;
use crate::syntax::source::Span;

/// The parsed steps of a plan, by role.
pub struct PlanScript {
    pub pack: Arc<Pack>,
    pub shared: Arc<SharedDefinitions>,
    /// Values of the whole run.
    pub lets: Vec<(String, Template)>,
    pub feeders: Vec<Feeder>,
    /// The default timeout for answers.
    pub patience: Duration,
    pub parts: Vec<RoleScript>,
    /// The scenes, roles and reactions of shared.yaml that steps refer to.
    pub shared_parts: JourneyParts,
}

impl PlanScript {
    /// Returns when the journeys of each role with steps begin.
    pub fn workloads(&self, plan: &Plan) -> Vec<JourneyWorkload> {
        let roles = plan.roles.iter().zip(&self.parts).filter(|(_, part)| !part.journey.is_empty());
        let workload = |(role, part): (&PlanRole, &RoleScript)| JourneyWorkload {
            journey: part.journey_name.clone(),
            workload: match part.pace {
                _ if role.arrivals.is_some() => Workload::Open,
                JourneyPace::Every { missed: MissedTicks::CaughtUp, .. } => Workload::Paced,
                JourneyPace::Every { missed: MissedTicks::Skipped, .. } => Workload::Skipping,
                JourneyPace::Again if part.times == Some(1) || begins_with_a_wait(&part.journey) => Workload::Triggered,
                JourneyPace::Again => Workload::Closed,
            },
        };
        roles.map(workload).collect()
    }

    /// Returns the scheduled rate of the journeys that begin by a schedule, until `end` after the beginning of the warm-up.
    pub fn schedules(&self, plan: &Plan, end: Duration) -> Vec<(String, Vec<RateSegment>)> {
        let roles = plan.roles.iter().zip(&self.parts).filter(|(_, part)| !part.journey.is_empty());
        let schedule = |(role, part): (&PlanRole, &RoleScript)| {
            Some((part.journey_name.clone(), segments(role.arrivals.as_ref()?, end.as_secs_f64())))
        };
        roles.filter_map(schedule).collect()
    }

    /// Returns the names of the messages and journeys that a run measures: all messages of the protocol, and the
    /// journeys of roles with steps.
    pub fn metric_subjects(&self) -> MetricSubjects {
        let journeys = self.parts.iter().filter(|part| !part.journey.is_empty());
        MetricSubjects {
            messages: self.pack.messages.iter().map(|message| message.name.clone()).collect(),
            journeys: journeys.map(|part| part.journey_name.clone()).collect(),
            operations: OperationTable::new(self.labelled_messages()),
        }
    }
}

fn begins_with_a_wait(journey: &[PlanLine]) -> bool {
    matches!(journey.first(), Some(PlanLine::Step { step, .. }) if matches!(step.act, StepAction::Expect(_)))
}

/// When the journeys of a role begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JourneyWorkload {
    pub journey: String,
    pub workload: Workload,
}

impl PlanScript {
    /// Returns the indexes of the messages to which a step gives a label.
    pub fn labelled_messages(&self) -> Vec<usize> {
        let mut names = Vec::new();
        let mut collect = |step: &'_ Step, options: &MeasurementOptions| {
            if let StepAction::Send(send) = &step.act
                && let (MessageName::Named(name), Some(_)) = (&send.message, &options.label)
            {
                names.push(name.clone());
            }
        };
        self.parts.iter().flat_map(RoleScript::lines).for_each(|line| line.visit_steps(&mut collect));
        let messages = self.pack.messages.iter().enumerate();
        messages.filter(|(_, message)| names.contains(&message.name)).map(|(index, _)| index).collect()
    }
}

/// Rows of data from a file, one for each journey.
#[derive(Clone, Debug, PartialEq)]
pub struct Feeder {
    pub name: String,
    pub span: Span,
    pub columns: Vec<String>,
    /// JSON values, one per column.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// Whether rows are taken at random instead of in turn.
    pub random: bool,
}

/// The parsed steps of one role.
pub struct RoleScript {
    /// The role of shared.yaml that clients of this role play, by its name in [`JourneyParts::roles`].
    pub plays: String,
    pub with: Vec<(String, Template)>,
    pub opening: Vec<PlanLine>,
    /// Values of each journey, evaluated once per journey.
    pub lets: Vec<(String, Template)>,
    pub journey: Vec<PlanLine>,
    /// Steps that a waiting journey runs after its client has reconnected, before it waits again.
    pub resumes: Vec<PlanLine>,
    pub journey_name: String,
    /// The key of the journey's item.
    pub item: Option<Template>,
    /// The id of a client as a party of the ledger, if messages name it; otherwise the ledger uses its number.
    pub party: Option<Template>,
    /// When a client begins its journeys; ignored with arrivals.
    pub pace: JourneyPace,
    /// The number of journeys per client; `None` for no limit.
    pub times: Option<u32>,
    pub periodic: Vec<PeriodicActivity>,
    pub reactions: Vec<PlanReaction>,
}

impl RoleScript {
    /// Returns the lines of all that a client does.
    pub fn lines(&self) -> impl Iterator<Item = &PlanLine> {
        let periodic = self.periodic.iter().map(|periodic| &periodic.steps);
        let reactions = self.reactions.iter().map(|reaction| &reaction.steps);
        [&self.opening, &self.journey, &self.resumes].into_iter().chain(periodic).chain(reactions).flatten()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum JourneyPace {
    /// A client begins its next journey when the last one has finished.
    Again,
    /// A client begins journeys on ticks this far apart, each moved at random by up to `jitter` of the interval.
    Every { interval: Duration, jitter: f64, missed: MissedTicks },
}

/// What a client does with ticks that pass while it is still busy with an earlier journey, or not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissedTicks {
    /// It works them off, one after another. Each counts from when it was due.
    CaughtUp,
    /// It leaves them out and waits for the next tick.
    Skipped,
}

/// A periodic activity alongside the journeys.
pub struct PeriodicActivity {
    pub span: Span,
    pub every: Duration,
    pub jitter: f64,
    pub steps: Vec<PlanLine>,
}

/// A reaction to a message that no step waits for.
pub struct PlanReaction {
    pub span: Span,
    pub message: String,
    pub pattern: Option<MatchPattern>,
    pub as_: Option<String>,
    /// Measurements of the message.
    pub options: Box<MeasurementOptions>,
    pub steps: Vec<PlanLine>,
}

/// One step of a journey.
pub enum PlanLine {
    Step {
        step: Box<Step>,
        options: Box<MeasurementOptions>,
    },
    Think {
        think: ThinkTime,
        span: Span,
    },
    Repeat {
        times: u32,
        steps: Vec<PlanLine>,
        span: Span,
    },
    /// Steps for a random share of the journeys, and others for the rest.
    Sometimes {
        share: f64,
        steps: Vec<PlanLine>,
        otherwise: Vec<PlanLine>,
        span: Span,
    },
}

impl PlanLine {
    /// Visits all steps, with their options.
    pub fn visit_steps<'a>(&'a self, visit: &mut dyn FnMut(&'a Step, &'a MeasurementOptions)) {
        match self {
            Self::Step { step, options } => visit(step, options),
            Self::Think { .. } => {}
            Self::Repeat { steps, .. } => steps.iter().for_each(|line| line.visit_steps(visit)),
            Self::Sometimes { steps, otherwise, .. } => {
                steps.iter().chain(otherwise).for_each(|line| line.visit_steps(visit));
            }
        }
    }
}

/// A pause before the next step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ThinkTime {
    Constant(Duration),
    Uniform(Duration, Duration),
    /// A random pause with an exponential distribution, by its mean.
    Exponential(Duration),
    /// A random pause with a log-normal distribution, by its median and the standard deviation of its logarithm.
    LogNormal {
        median: Duration,
        sigma: f64,
    },
}

/// Options of a step that concern measurement and the ledger.
#[derive(Default)]
pub struct MeasurementOptions {
    pub marks: Option<(MarkName, Span)>,
    pub item: Option<Template>,
    pub to: Option<Template>,
    pub by: Option<Template>,
    /// How long the hub may wait before it reassigns a released item.
    pub back_within: Option<Template>,
    /// The name, bound by `as`, of the request that this answers.
    pub answers: Option<(String, Span)>,
    /// An alternative message.
    pub or: Option<(String, Option<MatchPattern>)>,
    /// Messages that may come before the expected one, which is the last of a reply of several messages.
    pub carries: Vec<String>,
    /// The message of another client that this frame delivers.
    pub delivers: Option<(String, Span)>,
    pub sent_at: Option<Template>,
    pub may_stay_unanswered: bool,
    /// The operation that a sent message stands for, where one message has several.
    pub label: Option<(Template, Span)>,
}
