//! Long walks as scenarios of `check`, whose plays are compared with those on the models or on a second hub.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Campaign;
use super::second_hub::{MAX_COMPARED_CHARS, compare_reports, was_served};
use crate::check::comparison::{COMPARISON_CHECK, Counterpart, PlayComparer, PlayComparison, VariedAnswer};
use crate::fuzz::differential::compare::{self, HubDifference, HubDifferenceKind};
use crate::fuzz::stateful::long_walk::make_long_walk;
use crate::fuzz::stateful::model::WalkModel;
use crate::outcome::{CheckReport, ScenarioReport, Verdict};
use crate::protocol::Pack;
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

/// Compares the plays of walks with those on the counterparts of the hubs.
#[derive(Default)]
pub struct WalkComparer {
    protocols: HashMap<String, (Arc<Campaign>, Option<Counterpart>)>,
    /// How many second plays each difference had.
    taken_up: Mutex<HashMap<String, usize>>,
}

impl fmt::Debug for WalkComparer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.protocols.keys()).finish()
    }
}

impl WalkComparer {
    /// Adds a protocol.
    pub fn add(&mut self, campaign: Arc<Campaign>) {
        self.protocols.insert(campaign.pack().name.clone(), (campaign, None));
    }

    /// Sets what the hub of a protocol is compared with.
    pub fn set_counterpart(&mut self, protocol: &str, counterpart: Counterpart) {
        if let Some(entry) = self.protocols.get_mut(protocol) {
            entry.1 = Some(counterpart);
        }
    }
}

impl PlayComparer for WalkComparer {
    fn concerns(&self, program: &Program) -> bool {
        let name = program.id.strip_prefix(&program.pack.name).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| name.starts_with(WALK_PREFIX)) && self.protocols.contains_key(&program.pack.name)
    }

    fn kept_chars(&self) -> usize {
        MAX_COMPARED_CHARS
    }

    fn counterpart(&self, report: &ScenarioReport) -> Option<&Counterpart> {
        // What a rule decides needs no counterpart.
        let fails = report.checks.iter().any(|check| check.verdict == Verdict::Fail);
        self.protocols.get(&report.protocol)?.1.as_ref().filter(|_| !fails && was_served(report))
    }

    fn compare(&self, report: &ScenarioReport, other: &ScenarioReport) -> PlayComparison {
        let Some((campaign, _)) = self.protocols.get(&report.protocol) else { return PlayComparison::default() };
        let comparison = compare_reports(campaign, report, other);
        let differences = comparison.differences.iter().map(HubDifference::describe).collect();
        let check = compare::comparison_check(&comparison, campaign.pack(), report, other);
        let check = check.map(|check| named_check(check, &comparison.differences, campaign.pack(), &report.id));
        let stop = |report: &ScenarioReport| report.cause.as_ref().map(|cause| cause.step.clone());
        let stopped_alike = stop(report).is_some_and(|step| stop(other) == Some(step));
        PlayComparison { differences, check, stopped_alike }
    }

    fn differences(&self, varied: &ScenarioReport, plain: &ScenarioReport) -> Vec<VariedAnswer> {
        let Some((campaign, _)) = self.protocols.get(&plain.protocol) else { return Vec::new() };
        let found = compare_reports(campaign, varied, plain).differences.into_iter();
        // When something comes unasked, or after the last step, depends on the time and on other conversations.
        let is_timely = |found: &HubDifference| match &found.kind {
            HubDifferenceKind::OnlyLeft(_) | HubDifferenceKind::OnlyRight(_) => false,
            HubDifferenceKind::Answer(varied, plain) => !varied.is_empty() && !plain.is_empty(),
            HubDifferenceKind::Member(_) | HubDifferenceKind::Connection => true,
        };
        found
            .filter(is_timely)
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

/// Turns the check of a comparison into the one that `check` reports: with a name of its own and no rules, since only
/// `fuzz` knows the oracle [`compare::DIFFERS_RULE`].
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
        step: "the model, or the other hub, receives the same input".to_owned(),
        message,
        ..check
    }
}
