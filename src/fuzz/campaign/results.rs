//! What came of many cases: a fold over their reports, in whatever order they end. It keeps the first case of every cause
//! and counts the rest, so its size does not grow with the run.

use std::collections::{BTreeMap, HashMap};

use super::Campaign;
use super::fingerprint::{Fingerprint, broken};
use crate::event::{CheckReport, Detail, ProcessReport, ScenarioReport, Verdict};
use crate::fuzz::case::Cell;
use crate::fuzz::placement::Placement;
use crate::report::fuzzed::{self, Fuzzed, Oracle, Slower};
use crate::report::{ProtocolReport, fold};
use crate::scenario::model::RuleUse;
use crate::syntax::source::Sources;

/// Numbers that are kept of each cause.
const NUMBERS: usize = 8;
/// Causes that are kept; a hub with more is not helped by more.
const CAUSES: usize = 1000;
/// Cases of which none could be played, when that is no chance any more.
const HOPELESS: u64 = 500;
/// Steps that are kept of those that could not be passed.
const OBSTACLES: usize = 200;
/// Oracles that ask whether a hub is there, and no more.
const SURVIVAL: [&str; 3] = ["FUZZ-SERVES-OLD", "FUZZ-SERVES-NEW", LIVES];
/// The oracle that a hub's own process is asked by.
pub const LIVES: &str = "FUZZ-LIVES";

/// Cases as they end.
#[derive(Default)]
pub struct Outcome {
    cases: u64,
    decided: u64,
    after_opening: u64,
    judged: u64,
    oracles: BTreeMap<String, Oracle>,
    cells: HashMap<Cell, u64>,
    causes: BTreeMap<Fingerprint, Group>,
    obstacles: BTreeMap<(String, String, bool), u64>,
    /// Cases that need something that the target does not have.
    unmet: u64,
    mistakes: Vec<ScenarioReport>,
    pub ended: Option<String>,
    /// The case whose conversation does not go on at the end, though nothing odd is said.
    pub stuck: Option<u64>,
    pub slower: Option<Slower>,
}

struct Group {
    /// Of a case that says one thing, if there is one, and of these of the lowest number that was seen, so that it is the
    /// same whichever case ended first.
    first: ScenarioReport,
    order: (bool, u64),
    numbers: Vec<u64>,
    cases: u64,
}

impl Outcome {
    /// Takes the report of a case.
    pub fn feed(&mut self, campaign: &Campaign, report: ScenarioReport) {
        let Some((number, cell)) = number(&report.id).and_then(|n| Some((n, campaign.plan.cell(n)?))) else { return };
        self.cases += 1;
        if report.mistake.is_some() {
            return if self.mistakes.len() < NUMBERS {
                self.mistakes.push(report)
            };
        }
        self.unmet += u64::from(!report.unmet.is_empty());
        let is_decided = |verdict: &Verdict| matches!(verdict, Verdict::Pass | Verdict::Fail | Verdict::Warn);
        let mut seen: BTreeMap<&str, Verdict> = BTreeMap::new();
        // What one step of a case did not come to, as it was not needed, another has seen.
        let asked =
            |(used, verdict): &&(RuleUse, Verdict)| *verdict != Verdict::NotTestable && campaign.is_oracle(&used.id);
        for (used, verdict) in report.checks.iter().flat_map(|check| &check.rules).filter(asked) {
            let worst = seen.entry(used.id.as_str()).or_insert(*verdict);
            *worst = (*worst).max(*verdict);
        }
        seen.retain(|_, verdict| is_decided(verdict));
        for (rule, verdict) in &seen {
            self.oracles.entry((*rule).to_owned()).or_default().see(*verdict);
        }
        // That its process is there says nothing of a case that was never played.
        if seen.iter().any(|(rule, verdict)| *rule != LIVES || *verdict != Verdict::Pass) {
            self.decided += 1;
            self.after_opening += u64::from(cell.placement != Placement::First);
            self.judged += u64::from(seen.keys().any(|rule| !SURVIVAL.contains(rule)));
            *self.cells.entry(cell).or_default() += 1;
        } else if let Some(obstacle) = obstacle(&report)
            && (self.obstacles.len() < OBSTACLES || self.obstacles.contains_key(&obstacle))
        {
            *self.obstacles.entry(obstacle).or_default() += 1;
        }
        let mut causes: Vec<(Fingerprint, String)> =
            broken(&report).map(|check| (Fingerprint::of(campaign.pack(), cell, check), check.name.clone())).collect();
        causes.sort();
        causes.dedup_by(|a, b| a.0 == b.0);
        for (cause, check) in causes {
            self.group(cause, &check, (cell.placement.is_of_many(), number), &report);
        }
    }

    fn group(&mut self, cause: Fingerprint, check: &str, order: (bool, u64), report: &ScenarioReport) {
        if self.causes.len() >= CAUSES && !self.causes.contains_key(&cause) {
            return;
        }
        let alone = || {
            let mut alone = report.clone();
            alone.checks.retain(|one| one.name == check);
            // As the baseline knows it.
            alone.checks.iter_mut().for_each(|check| check.name = cause.oracle.clone());
            alone
        };
        let new = || Group { first: alone(), order, numbers: Vec::new(), cases: 0 };
        let group = self.causes.entry(cause.clone()).or_insert_with(new);
        group.cases += 1;
        if order < group.order {
            (group.first, group.order) = (alone(), order);
        }
        let at = group.numbers.partition_point(|known| *known < order.1);
        group.numbers.insert(at, order.1);
        group.numbers.truncate(NUMBERS);
    }

    /// What was found: the number of the first case of each cause, and its check that failed.
    pub fn found(&self) -> impl Iterator<Item = (&Fingerprint, u64, &CheckReport)> {
        let first = |(cause, group)| {
            let Group { first, .. }: &Group = group;
            Some((cause, number(&first.id)?, first.checks.first()?))
        };
        self.causes.iter().filter_map(first)
    }

    /// The hub is gone, and cannot be started again: `report` is of the first case that found nobody there. What others
    /// that were under way then say of its survival is the same finding.
    pub fn gone(&mut self, campaign: &Campaign, mut report: ScenarioReport, under_way: &[u64]) {
        let Some(cell) = number(&report.id).and_then(|number| campaign.plan.cell(number)) else { return };
        let of_these = |group: &Group| group.numbers.iter().all(|number| under_way.contains(number));
        self.causes.retain(|cause, group| !(SURVIVAL.contains(&cause.oracle.as_str()) && of_these(group)));
        let numbers: Vec<String> = under_way.iter().map(u64::to_string).collect();
        let received = match report.cause.as_ref() {
            Some(cause) => cause.message.clone(),
            None => "nobody can connect any more".to_owned(),
        };
        let check = lives(campaign, Verdict::Fail, "the hub is gone".to_owned(), Some(received));
        let cause = Fingerprint::of(campaign.pack(), cell, &check);
        report.checks = vec![check];
        let cases = under_way.len() as u64;
        let group = Group { first: report, order: (false, 0), numbers: under_way.to_vec(), cases };
        self.causes.insert(cause, group);
        self.ended = Some(format!("the hub is gone; under way were the cases {}", numbers.join(", ")));
    }

    /// Every case needs something that the target does not have, and more of them would not help.
    pub fn is_hopeless(&self) -> bool {
        self.cases >= HOPELESS && self.unmet == self.cases
    }

    /// How many causes were found.
    pub fn findings(&self) -> usize {
        self.causes.len()
    }

    pub fn cases(&self) -> u64 {
        self.cases
    }

    /// Cells of which at least one case was decided.
    pub fn covered(&self) -> usize {
        self.cells.len()
    }

    /// What there is to report; the files of the cases that are shown come to `sources`.
    pub fn finish(self, campaign: &Campaign, processes: Vec<ProcessReport>, sources: &mut Sources) -> ProtocolReport {
        let pack = campaign.pack();
        let mut findings = Vec::new();
        let mut first = Vec::new();
        let mut add = |mut report: ScenarioReport, name: Option<String>, sources: &mut Sources| {
            let number = number(&report.id).unwrap_or_default();
            if let Some(case) = campaign.plan.case(&campaign.material, number) {
                campaign.placed(&mut report, &case.scenario, sources);
            }
            report.id = name.unwrap_or(report.id);
            first.push((report, vec!["--case".to_owned(), number.to_string()]));
        };
        for (cause, group) in self.causes {
            add(group.first, Some(cause.scenario(&pack.name)), sources);
            findings.push(fuzzed::Finding { shape: cause.shape, cases: group.cases, numbers: group.numbers });
        }
        for report in self.mistakes {
            let numbers = number(&report.id).into_iter().collect();
            add(report, None, sources);
            findings.push(fuzzed::Finding { shape: String::new(), cases: 1, numbers });
        }
        let cells = campaign.plan.cells.iter().map(|cell| fuzzed::Cell {
            message: pack.messages[cell.message].name.clone(),
            oddity: cell.oddity.name(),
            placement: cell.placement.name(),
            cases: self.cells.get(cell).copied().unwrap_or(0),
        });
        let obstacles = self.obstacles.into_iter();
        let obstacles = obstacles.map(|((step, message, unreachable), cases)| fuzzed::Obstacle {
            step,
            message,
            unreachable,
            cases,
        });
        let mut fuzzed = Fuzzed {
            seed: campaign.plan.seed,
            cases: self.cases,
            decided: self.decided,
            after_opening: self.after_opening,
            judged: self.judged,
            oracles: self.oracles,
            cells: cells.collect(),
            findings,
            obstacles: obstacles.collect(),
            ended: self.ended,
            stuck: self.stuck,
            slower: self.slower,
        };
        fuzzed.obstacles.sort_by_key(|obstacle| std::cmp::Reverse(obstacle.cases));
        fold::fuzzed(pack, first, processes, fuzzed)
    }
}

/// The check that a hub lives, as it came out.
pub fn lives(campaign: &Campaign, verdict: Verdict, message: String, received: Option<String>) -> CheckReport {
    let used = campaign.pack().rules.get(LIVES).map(|rule| RuleUse {
        id: rule.id.clone(),
        level: rule.level,
        basis: rule.basis,
        lowered: false,
    });
    CheckReport {
        name: LIVES.to_owned(),
        rules: used.into_iter().map(|used| (used, verdict)).collect(),
        verdict,
        span: None,
        step: "the hub goes on".to_owned(),
        asked: 1,
        message,
        detail: received.map(|received| Detail {
            expected: "a hub that goes on, whatever it is told".to_owned(),
            received,
            ..Detail::default()
        }),
    }
}

/// The number of the case that an id of [`Campaign::id`] names.
pub fn number(id: &str) -> Option<u64> {
    id.rsplit_once("/case-")?.1.parse().ok()
}

/// The step that could not be passed, or what the target would have to have for that; and whether nobody was there.
fn obstacle(report: &ScenarioReport) -> Option<(String, String, bool)> {
    match &report.cause {
        Some(cause) => Some((cause.step.clone(), cause.message.clone(), cause.unreachable)),
        None => {
            let unmet = report.unmet.first()?.clone();
            let lacks = match unmet.starts_with("hook ") {
                true => "the target has none: give it in a target file, under [hooks]",
                false => "the target has none: give it with --set NAME=VALUE",
            };
            Some((unmet, lacks.to_owned(), false))
        }
    }
}
