//! Compares the play of a generated scenario with a play of the same elsewhere. A difference counts if a second play,
//! alone on the hub and with longer waits, shows it again.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::PlayOptions;
use super::job::ScenarioJob;
use super::variations::settle;
use crate::hub::prepare::PreparedHub;
use crate::interpreter::WEBSOCKET_CHECK;
use crate::judge::memory::DifferenceMemory;
use crate::judge::{Evidence, PlayId};
use crate::outcome::{CheckReport, ScenarioReport};
use crate::reference::model::ReferenceModel;
use crate::report::events::ScenarioEvent;
use crate::scenario::Program;

/// The name of the check that compares a play.
pub const COMPARISON_CHECK: &str = "as-the-model";

/// What a hub is compared with.
#[derive(Clone)]
pub enum SecondHub {
    Hub(Arc<PreparedHub>),
    /// The reference server's state machine, new for each play.
    Model(Arc<ReferenceModel>),
}

/// Something that compares plays.
pub trait PlayComparer: Send + Sync + Debug {
    /// Whether plays of this program are compared.
    fn concerns(&self, program: &Program) -> bool;

    /// The number of characters of a payload that plays have to keep.
    fn kept_chars(&self) -> usize;

    /// Returns what this play is compared with, if anything.
    fn second_hub(&self, report: &ScenarioReport) -> Option<&SecondHub>;

    /// Compares the reports of the plays of one program on the hub and on the second one.
    fn compare(&self, report: &ScenarioReport, other: &ScenarioReport) -> PlayComparison;

    /// Returns the differences between two plays of a scenario on one hub, with a variation and as it is written.
    fn differences(&self, varied: &ScenarioReport, plain: &ScenarioReport) -> Vec<VariedAnswer>;

    /// Returns what trials of differences have shown so far.
    fn memory(&self) -> &DifferenceMemory;
}

/// An answer that a variation changed.
pub struct VariedAnswer {
    /// What is different, in words.
    pub words: String,
    pub actor: String,
    /// What the hub sent with the variation, and as the scenario is written; empty if it sent nothing.
    pub varied: String,
    pub plain: String,
}

/// The result of a comparison.
#[derive(Default)]
pub struct PlayComparison {
    /// Each difference in words.
    pub differences: Vec<String>,
    /// The check that reports the first of them, or that there is none; `None` if nothing could be compared.
    pub check: Option<CheckReport>,
    /// Whether both plays stopped at the same step, such as a join with a name that another client has taken since.
    pub stopped_alike: bool,
}

impl ScenarioJob {
    /// Waits for the scenario's turn, plays it, and compares the play if the options say so; these keep payloads as whole
    /// as the comparer needs. `id` is unique within the run. Returns `None` if the run was interrupted before its turn.
    pub async fn play(
        self,
        id: PlayId,
        options: &PlayOptions,
        events: &mpsc::Sender<ScenarioEvent>,
        interrupt: watch::Receiver<bool>,
    ) -> Option<ScenarioReport> {
        let comparer = options.comparer.as_ref().filter(|comparer| comparer.concerns(self.program()));
        let Some(comparer) = comparer else { return self.play_once(id, options, events, interrupt).await };
        // Waits must not depend on what the hub did in other scenarios.
        let job = self.with_full_waits();
        let mut report = job.clone().play_once(id, options, events, interrupt.clone()).await?;
        let compare = async |report: &ScenarioReport, id, options: &PlayOptions| {
            let second_hub = comparer.second_hub(report)?;
            let other = job.play_elsewhere(second_hub, id, options, interrupt.clone()).await?;
            Some(comparer.compare(report, &other)).filter(|_| !*interrupt.borrow())
        };
        let mut compared = compare(&report, id, options).await;
        let stopped_alike = compared.as_ref().is_some_and(|compared| compared.stopped_alike);
        let before = compared.as_ref().map(|compared| compared.differences.clone()).unwrap_or_default();
        if let Some(first) = before.first() {
            let mut trial = Evidence::Difference.trial(id);
            let known = comparer.memory().ruling(first);
            while let Some(replay) = trial.next_replay().filter(|_| known.is_none()) {
                let patient = PlayOptions { stretch: options.stretch * f64::from(replay.patience), ..options.clone() };
                let unread = mpsc::channel(1).0;
                let again = job.clone().alone().play_once(replay.id, &patient, &unread, interrupt.clone()).await;
                let Some(again) = again else {
                    // The run ended before the replay had its turn.
                    report.interrupted = true;
                    return Some(report);
                };
                compared = compare(&again, replay.id, &patient).await;
                let shown = compared.iter().flat_map(|compared| compared.differences.first());
                let was_seen = shown.into_iter().any(|difference| before.contains(difference));
                trial.record(was_seen);
                if was_seen {
                    (report.history, report.history_dropped) = (again.history, again.history_dropped);
                }
            }
            comparer.memory().record(first, trial.ruling());
            compared = compared.filter(|_| known.unwrap_or(trial.ruling().stands()));
        }
        // What scenarios check of all frames may rest on what they do not do, such as to use an id twice.
        report.checks.retain(|check| check.name.starts_with("schema:") || check.name == WEBSOCKET_CHECK);
        report.checks.extend(compared.and_then(|compared| compared.check));
        if stopped_alike {
            settle(&mut report);
        }
        Some(report)
    }
}
