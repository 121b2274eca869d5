//! Long walks as scenarios of `check`, whose plays are compared with those on the models or on a second hub.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Campaign;
use super::second_hub::{MAX_COMPARED_CHARS, compare_reports, was_served};
use crate::check::comparison::{COMPARISON_CHECK, PlayComparer, PlayComparison, SecondHub, VariedAnswer};
use crate::fuzz::corpus::Corpus;
use crate::fuzz::differential::compare::{self, ComparisonFacts, HubComparison, HubDifference, HubDifferenceKind};
use crate::fuzz::stateful::long_walk::{WalkCoverage, make_long_walk};
use crate::fuzz::stateful::model::WalkModel;
use crate::judge::memory::DifferenceMemory;
use crate::outcome::{CheckReport, ScenarioReport, Verdict};
use crate::protocol::Pack;
use crate::scenario::Program;

/// The long walks of a protocol.
pub struct WalkPrograms {
    /// `NAME/walk-1` and so on: the same for the same seed and count. Walks that do not compile are left out.
    pub programs: Vec<Arc<Program>>,
    /// How many pairs of messages the walks cover, and how many there are.
    pub covered: usize,
    pub coverable: usize,
}

/// Makes the long walks of a protocol.
pub fn walk_programs(campaign: &Campaign, seed: u64, count: u64) -> WalkPrograms {
    let (model, mut coverage) = (WalkModel::from_corpus(&campaign.corpus), WalkCoverage::default());
    let program = |number: u64| {
        let scenario = make_long_walk(&campaign.corpus, &model, seed, number, &mut coverage)?;
        let id = format!("{}/{}{number}", campaign.pack().name, WALK_PREFIX);
        campaign.program(&id, &scenario).ok().map(Arc::new)
    };
    let programs = (1..=count).filter_map(program).collect();
    WalkPrograms { programs, covered: coverage.covered(), coverable: WalkCoverage::coverable(&model) }
}

/// The beginning of the name of a walk.
const WALK_PREFIX: &str = "walk-";

/// What the comparison of plays needs to know about a protocol.
struct ComparedProtocol {
    corpus: Arc<Corpus>,
    facts: ComparisonFacts,
    second_hub: Option<SecondHub>,
}

impl ComparedProtocol {
    fn compare(&self, left: &ScenarioReport, right: &ScenarioReport) -> HubComparison {
        compare_reports(&self.corpus, &self.facts, left, right)
    }
}

/// Compares each play of a walk with its play on the second hub.
#[derive(Default)]
pub struct WalkComparer {
    protocols: HashMap<String, ComparedProtocol>,
    memory: DifferenceMemory,
}

impl fmt::Debug for WalkComparer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.protocols.keys()).finish()
    }
}

impl WalkComparer {
    /// Adds the protocol of a corpus.
    pub fn add(&mut self, corpus: Arc<Corpus>) {
        let (name, facts) = (corpus.pack.name.clone(), ComparisonFacts::for_corpus(&corpus));
        self.protocols.insert(name, ComparedProtocol { corpus, facts, second_hub: None });
    }

    /// Sets what the hub of a protocol is compared with.
    pub fn set_second_hub(&mut self, protocol: &str, second_hub: SecondHub) {
        if let Some(entry) = self.protocols.get_mut(protocol) {
            entry.second_hub = Some(second_hub);
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

    fn second_hub(&self, report: &ScenarioReport) -> Option<&SecondHub> {
        // What a rule decides needs no second_hub.
        let fails = report.checks.iter().any(|check| check.verdict == Verdict::Fail);
        self.protocols.get(&report.protocol)?.second_hub.as_ref().filter(|_| !fails && was_served(report))
    }

    fn compare(&self, report: &ScenarioReport, other: &ScenarioReport) -> PlayComparison {
        let Some(protocol) = self.protocols.get(&report.protocol) else { return PlayComparison::default() };
        let (comparison, pack) = (protocol.compare(report, other), &protocol.corpus.pack);
        let differences = comparison.differences.iter().map(HubDifference::describe).collect();
        let check = compare::comparison_check(&comparison, pack, report, other);
        let check = check.map(|check| named_check(check, &comparison.differences, pack, &report.id));
        let stop = |report: &ScenarioReport| report.cause.as_ref().map(|cause| cause.step.clone());
        let stopped_alike = stop(report).is_some_and(|step| stop(other) == Some(step));
        PlayComparison { differences, check, stopped_alike }
    }

    fn differences(&self, varied: &ScenarioReport, plain: &ScenarioReport) -> Vec<VariedAnswer> {
        let Some(protocol) = self.protocols.get(&plain.protocol) else { return Vec::new() };
        let found = protocol.compare(varied, plain).differences.into_iter();
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

    fn memory(&self) -> &DifferenceMemory {
        &self.memory
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
