//! Long walks as scenarios of `check`, whose plays are compared with those on the models.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Campaign;
use super::second_hub::{MAX_COMPARED_CHARS, compare_reports, was_served};
use crate::check::comparison::{COMPARISON_CHECK, PlayComparer, PlayComparison, VariedAnswer};
use crate::check::{PlayOptions, ScenarioJob};
use crate::event::{CheckReport, ScenarioReport, Verdict};
use crate::fuzz::differential::compare::{self, HubDifference};
use crate::fuzz::stateful::long_walk::make_long_walk;
use crate::fuzz::stateful::model::WalkModel;
use crate::protocol::Pack;
use crate::reference::model::ReferenceModel;
use crate::scenario::Program;

/// How often a difference is shown again by a second play, and how many differences of a protocol are.
const MAX_SECOND_PLAYS: usize = 6;
const MAX_DIFFERENCES: usize = 24;

/// Returns the long walks of a protocol as programs, `NAME/walk-1` and so on: the same for the same seed. Walks that do
/// not compile are left out.
pub fn walk_programs(campaign: &Campaign, seed: u64, count: u64) -> Vec<Arc<Program>> {
    let model = WalkModel::from_corpus(&campaign.corpus);
    let program = |number: u64| {
        let scenario = make_long_walk(&campaign.corpus, &model, seed, number)?;
        let id = format!("{}/{}{number}", campaign.pack().name, WALK_PREFIX);
        campaign.program(&id, &scenario).ok().map(Arc::new)
    };
    (1..=count).filter_map(program).collect()
}

/// The beginning of the name of a walk.
const WALK_PREFIX: &str = "walk-";

/// Compares the plays of walks with the models of their protocols.
#[derive(Default)]
pub struct WalkComparer {
    protocols: HashMap<String, (Arc<Campaign>, Option<Arc<ReferenceModel>>)>,
    /// How many second plays each difference had.
    taken_up: Mutex<HashMap<String, usize>>,
}

impl fmt::Debug for WalkComparer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.protocols.keys()).finish()
    }
}

impl WalkComparer {
    /// Adds a protocol, with its model if there is one.
    pub fn add(&mut self, campaign: Arc<Campaign>, model: Option<Arc<ReferenceModel>>) {
        self.protocols.insert(campaign.pack().name.clone(), (campaign, model));
    }
}

impl PlayComparer for WalkComparer {
    fn concerns(&self, program: &Program) -> bool {
        let name = program.id.strip_prefix(&program.pack.name).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| name.starts_with(WALK_PREFIX)) && self.protocols.contains_key(&program.pack.name)
    }

    fn kept(&self) -> usize {
        MAX_COMPARED_CHARS
    }

    fn compare(
        &self,
        job: &ScenarioJob,
        number: usize,
        options: &PlayOptions,
        report: &ScenarioReport,
    ) -> Option<PlayComparison> {
        let (campaign, model) = self.protocols.get(&job.program().pack.name)?;
        // What a rule decides needs no model.
        let fails = report.checks.iter().any(|check| check.verdict == Verdict::Fail);
        if fails || !was_served(report) {
            return None;
        }
        let right = job.play_on_model(number, options, model.as_ref()?)?;
        let comparison = compare_reports(campaign, report, &right);
        let differences = comparison.differences.iter().map(HubDifference::describe).collect();
        let check = compare::comparison_check(&comparison, campaign.pack(), report, &right);
        let check = check.map(|check| named_check(check, &comparison.differences, campaign.pack(), &job.program().id));
        Some(PlayComparison { differences, check })
    }

    fn differences(&self, varied: &ScenarioReport, plain: &ScenarioReport) -> Vec<VariedAnswer> {
        let Some((campaign, _)) = self.protocols.get(&plain.protocol) else { return Vec::new() };
        let found = compare_reports(campaign, varied, plain).differences.into_iter();
        found
            .map(|found| VariedAnswer {
                words: found.describe_varied(),
                actor: found.actor,
                varied: found.left,
                plain: found.right,
            })
            .collect()
    }

    fn takes_up(&self, difference: &str) -> bool {
        let mut taken_up = self.taken_up.lock().unwrap_or_else(PoisonError::into_inner);
        if taken_up.len() >= MAX_DIFFERENCES && !taken_up.contains_key(difference) {
            return false;
        }
        let times = taken_up.entry(difference.to_owned()).or_default();
        *times += 1;
        *times <= MAX_SECOND_PLAYS
    }
}

/// Returns the check of a comparison as `check` reports it: under a name of its own, without the oracle, which no pack
/// of `check` has.
fn named_check(check: CheckReport, differences: &[HubDifference], pack: &Pack, id: &str) -> CheckReport {
    let rules = differences.first().map(|first| first.rules(pack)).unwrap_or_default();
    let about = if rules.is_empty() { String::new() } else { format!(", see {}", rules.join(", ")) };
    let message = match check.message.as_str() {
        "" => String::new(),
        words => format!("{words}{about}; only this walk: hubproof check ... --depth thorough --scenario '{id}'"),
    };
    CheckReport {
        name: COMPARISON_CHECK.to_owned(),
        rules: Vec::new(),
        step: "the model receives the same input".to_owned(),
        message,
        ..check
    }
}
