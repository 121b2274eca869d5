//! The grid of rules and runs, and every rule with its checks.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::PageBuilder;
use crate::outcome::Verdict;
use crate::report::document::check::{Check, Protocol, Rule, Scenario, Status};

#[derive(Serialize)]
pub struct RuleGroup {
    title: String,
    rows: Vec<RuleRow>,
}

#[derive(Serialize)]
struct RuleRow {
    id: String,
    anchor: String,
    text: String,
    place: String,
    level: String,
    implied: bool,
    cells: Vec<Option<RuleCell>>,
    /// Whether the runs differ.
    differs: bool,
    /// The statuses of the cells, for filters.
    status_words: String,
}

#[derive(Serialize)]
struct RuleCell {
    status: &'static str,
    anchor: String,
    run: String,
    failed: usize,
    checks: usize,
}

/// A rule with its checks in each run.
#[derive(Serialize)]
pub struct RuleView {
    id: String,
    anchor: String,
    text: String,
    about: String,
    link: Option<String>,
    runs: Vec<RuleRun>,
}

#[derive(Serialize)]
struct RuleRun {
    run: String,
    anchor: String,
    status: &'static str,
    why: String,
    /// Checks that did not pass.
    open: Vec<CheckRow>,
    /// Scenarios in which checks passed, with their numbers of checks.
    passed: Vec<(String, usize)>,
}

#[derive(Serialize)]
struct CheckRow {
    verdict: &'static str,
    scenario: String,
    check: String,
    message: String,
    place: String,
    anchor: Option<String>,
    lowered: bool,
}

impl PageBuilder<'_> {
    pub(super) fn rules(&mut self, name: &str, runs: &[(usize, &Protocol)]) -> Vec<RuleView> {
        type ChecksOfRule<'a> = BTreeMap<&'a str, Vec<(&'a Scenario, &'a Check)>>;
        let mut by_run: Vec<ChecksOfRule<'_>> = Vec::new();
        for (_, protocol) in runs {
            let mut checks = ChecksOfRule::new();
            for scenario in &protocol.scenarios.list {
                for check in &scenario.checks {
                    for rule in &check.rules {
                        checks.entry(&rule.id).or_default().push((scenario, check));
                    }
                }
            }
            by_run.push(checks);
        }
        let ids: BTreeSet<&String> = runs.iter().flat_map(|(_, protocol)| protocol.rules.by_id.keys()).collect();
        let mut views = Vec::new();
        for id in ids {
            let Some((rule, pack)) =
                runs.iter().find_map(|(_, protocol)| Some((protocol.rules.by_id.get(id)?, &protocol.pack)))
            else {
                continue;
            };
            let anchor = self.anchors.id(&format!("rule.{name}.{id}"));
            let mut of_runs = Vec::new();
            for ((at, protocol), checks) in runs.iter().zip(&by_run) {
                let Some(rule) = protocol.rules.by_id.get(id) else { continue };
                let (mut open, mut passed) = (Vec::new(), BTreeMap::<&str, usize>::new());
                for (scenario, check) in checks.get(id.as_str()).into_iter().flatten() {
                    let used = check.rules.iter().find(|used| used.id == *id);
                    let verdict = used.map_or(check.verdict, |used| used.verdict);
                    if verdict == Verdict::Pass {
                        *passed.entry(&scenario.id).or_default() += 1;
                        continue;
                    }
                    let listed = !matches!(check.verdict, Verdict::Pass | Verdict::NotTestable);
                    open.push(CheckRow {
                        verdict: verdict.name(),
                        scenario: scenario.id.clone(),
                        check: check.name.clone(),
                        message: check.message.clone(),
                        place: check.place.describe(),
                        anchor: listed.then(|| self.finding_anchor(*at, &scenario.id, &check.name)),
                        lowered: used.is_some_and(|used| used.lowered),
                    });
                }
                of_runs.push(RuleRun {
                    run: self.labels[*at].clone(),
                    anchor: self.anchors.id(&format!("{}checks.{name}.{id}", self.prefix(*at))),
                    status: rule.status.name(),
                    why: why_not_judged(rule),
                    open,
                    passed: passed.into_iter().map(|(scenario, checks)| (scenario.to_owned(), checks)).collect(),
                });
            }
            let (id, text, about) = (id.clone(), rule.text.clone(), about_rule(rule, &pack.document));
            let link = rule_link(rule, pack.link.as_deref());
            views.push(RuleView { id, anchor, text, about, link, runs: of_runs });
        }
        views
    }

    pub(super) fn groups(&mut self, name: &str, runs: &[(usize, &Protocol)], views: &[RuleView]) -> Vec<RuleGroup> {
        let mut groups: BTreeMap<GroupKey, Vec<(SectionKey, RuleRow)>> = BTreeMap::new();
        for view in views {
            let of_rule = |protocol: &'_ Protocol| protocol.rules.by_id.contains_key(&view.id);
            let Some((_, first)) = runs.iter().find(|(_, protocol)| of_rule(protocol)) else { continue };
            let rule = &first.rules.by_id[&view.id];
            let cells: Vec<Option<RuleCell>> = runs
                .iter()
                .map(|(at, _)| {
                    let run = view.runs.iter().find(|run| run.run == self.labels[*at])?;
                    let passed: usize = run.passed.iter().map(|(_, checks)| checks).sum();
                    Some(RuleCell {
                        status: run.status,
                        anchor: run.anchor.clone(),
                        run: run.run.clone(),
                        failed: run.open.iter().filter(|row| row.verdict == run.status).count(),
                        checks: passed + run.open.len(),
                    })
                })
                .collect();
            let statuses: BTreeSet<&str> =
                cells.iter().map(|cell| cell.as_ref().map_or("none", |cell| cell.status)).collect();
            let row = RuleRow {
                id: view.id.clone(),
                anchor: self.anchors.id(&format!("rule.{name}.{}", view.id)),
                text: view.text.clone(),
                place: short_place(rule),
                level: rule.level.clone(),
                implied: rule.basis == "implied",
                differs: statuses.len() > 1,
                status_words: statuses.into_iter().collect::<Vec<_>>().join(" "),
                cells,
            };
            groups.entry(group_of(rule)).or_default().push((section_key(rule), row));
        }
        groups
            .into_iter()
            .map(|(key, mut rows)| {
                rows.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.id.cmp(&other.id)));
                RuleGroup { title: key.title(), rows: rows.into_iter().map(|(_, row)| row).collect() }
            })
            .collect()
    }
}

/// Returns the statuses that occur, with their numbers of rules.
pub(super) fn count_statuses(groups: &[RuleGroup]) -> BTreeMap<&'static str, usize> {
    let mut statuses = BTreeMap::new();
    for cell in groups.iter().flat_map(|group| &group.rows).flat_map(|row| row.cells.iter().flatten()) {
        *statuses.entry(cell.status).or_default() += 1;
    }
    statuses
}

/// Formats `must, stated in line 12 of "DOCUMENT"`.
pub(super) fn about_rule(rule: &Rule, document: &str) -> String {
    let place = match (&rule.section, rule.line) {
        (Some(section), _) => format!("section {section} of “{document}”"),
        (None, Some(line)) => format!("line {line} of “{document}”"),
        (None, None) => return format!("{}, an oracle of hubproof", rule.level),
    };
    let how = match rule.basis.as_str() {
        "stated" => "stated in",
        "implied" => "implied by",
        _ => "the document is silent; see",
    };
    let from = rule.from.as_ref().map(|from| format!(", from: {from}")).unwrap_or_default();
    format!("{}, {how} {place}{from}", rule.level)
}

/// Returns the address of a rule's place in the document. A report may come from anywhere.
pub(super) fn rule_link(rule: &Rule, link: Option<&str>) -> Option<String> {
    let link = link.filter(|link| link.starts_with("https://") || link.starts_with("http://"))?;
    let mut link = link.to_owned();
    let line = rule.line.map(|line| line.to_string());
    for (word, value) in [("{line}", line), ("{section}", rule.section.clone())] {
        if link.contains(word) {
            link = link.replace(word, &value?);
        }
    }
    Some(link)
}

fn short_place(rule: &Rule) -> String {
    match (&rule.section, rule.line) {
        (Some(section), _) => format!("§ {section}"),
        (None, Some(line)) => format!("line {line}"),
        (None, None) => String::new(),
    }
}

fn why_not_judged(rule: &Rule) -> String {
    match (rule.status, &rule.reason) {
        (Status::NotTestable, _) if !rule.needs.is_empty() => format!("needs {}", rule.needs.join(", ")),
        (Status::NotTestable, _) => "the situation it is about did not occur".to_owned(),
        (Status::NotOffered, _) => "the messages of its checks are declared absent".to_owned(),
        (Status::NotAsked, _) => "its scenarios were not selected or not played".to_owned(),
        (Status::NoCheck, _) => "no check of the pack names it".to_owned(),
        (_, Some(reason)) => reason.clone(),
        _ => String::new(),
    }
}

/// A group of rules in the grid.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GroupKey {
    /// Lines of a document, from the first to the last.
    Lines(usize, usize),
    /// The first part of the number of a section.
    Section(SectionKey),
    Oracles,
}

/// The number of lines that form a group, in documents without sections.
const LINES_OF_GROUP: usize = 25;

impl GroupKey {
    fn title(&self) -> String {
        match self {
            Self::Lines(first, last) => format!("Lines {first}–{last}"),
            Self::Section(SectionKey(parts)) => {
                let text: String = parts.iter().map(SectionPart::text).collect();
                format!("Section {}", text.trim())
            }
            Self::Oracles => "Oracles of hubproof".to_owned(),
        }
    }
}

fn group_of(rule: &Rule) -> GroupKey {
    match (&rule.section, rule.line) {
        (Some(section), _) => {
            // `J 3.1.1` belongs to `J 3`; a title belongs to itself.
            let numbered = section.split('.').skip(1).all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
            let first = section.split('.').next().unwrap_or_default();
            let group = if numbered && first.ends_with(|c: char| c.is_ascii_digit()) { first } else { section };
            GroupKey::Section(SectionKey::new(group))
        }
        (None, Some(line)) => {
            let first = line.saturating_sub(1) / LINES_OF_GROUP * LINES_OF_GROUP + 1;
            GroupKey::Lines(first, first + LINES_OF_GROUP - 1)
        }
        (None, None) => GroupKey::Oracles,
    }
}

fn section_key(rule: &Rule) -> SectionKey {
    match (&rule.section, rule.line) {
        (Some(section), _) => SectionKey::new(section),
        (None, line) => SectionKey(vec![SectionPart::Number(line.unwrap_or(0))]),
    }
}

/// The number or title of a section: numbers in it are ordered by value, so that 10 follows 9.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SectionKey(Vec<SectionPart>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SectionPart {
    Text(String),
    Number(usize),
}

impl SectionPart {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

impl SectionKey {
    fn new(section: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = section;
        while let Some(first) = rest.chars().next() {
            let number = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != number).unwrap_or(rest.len());
            let part = &rest[..end];
            parts.push(match part.parse() {
                Ok(value) if number => SectionPart::Number(value),
                _ => SectionPart::Text(part.to_owned()),
            });
            rest = &rest[end..];
        }
        Self(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_ordered_by_their_numbers() {
        let mut sections = ["10.1", "9.2", "9.10", "J 3.1", "J 10"].map(SectionKey::new);
        sections.sort();
        let text = |key: &SectionKey| key.0.iter().map(SectionPart::text).collect::<String>();
        assert_eq!(sections.iter().map(text).collect::<Vec<_>>(), ["J 3.1", "J 10", "9.2", "9.10", "10.1"]);
    }
}
