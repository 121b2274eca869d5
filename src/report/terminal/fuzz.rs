//! The findings of fuzzing: the first case of each cause in full, then the figures.

use std::collections::{BTreeMap, BTreeSet};

use super::super::causes::{BlockedChecks, FailureGroup};
use super::super::fuzz::{CellTally, FindingTally, FuzzReport, OmittedMutation, PauseTally, UnusedStep};
use super::super::text::{escape_unprintable, format_count, format_time};
use super::super::{ProtocolReport, RunReport};
use super::{DIM, Page};
use crate::outcome::Verdict;

/// Most findings that are shown in full; each further one takes one line.
const FULL_CAUSES: usize = 10;
/// Most reasons for which something was not used that are listed, and most names listed for each.
const SHOWN_REASONS: usize = 4;
const SHOWN_NAMES: usize = 4;
/// Most obstacles that are listed.
const SHOWN_OBSTACLES: usize = 5;

/// Returns the parts of the verdict line: `2 findings in 40 cases (seed 1)`, `1 warning`. What fails the run comes
/// first.
pub(super) fn verdict_parts(protocol: &ProtocolReport, fuzzed: &FuzzReport, strict: bool) -> Vec<String> {
    let alike = group_findings(protocol, fuzzed);
    let of = |verdict| alike.iter().filter(|(one, _)| one.check.verdict == verdict).count();
    let cases = format_count(usize::try_from(fuzzed.cases).unwrap_or(usize::MAX), "case");
    let warnings = match of(Verdict::Warn) {
        0 => None,
        n => Some(format_count(n, "warning")),
    };
    let mut parts = super::verdict::other_failures(protocol);
    parts.extend(warnings.clone().filter(|_| strict));
    match of(Verdict::Fail) {
        0 => parts.push(format!("no finding in {cases} (seed {})", fuzzed.seed)),
        n => parts.insert(0, format!("{} in {cases} (seed {})", format_count(n, "finding"), fuzzed.seed)),
    }
    parts.extend(warnings.filter(|_| !strict));
    if protocol.expected_count() > 0 {
        parts.push(format_count(protocol.expected_count(), "known failure"));
    }
    let undecided = fuzzed.cases - fuzzed.decided;
    if undecided > 0 {
        parts.push(format!("{undecided} undecided"));
    }
    parts
}

impl Page<'_, RunReport> {
    pub(super) fn write_fuzz_report(&mut self, protocol: &ProtocolReport, fuzzed: &FuzzReport) {
        if fuzzed.decided == 0
            && let Some(obstacle) = fuzzed.obstacles.iter().find(|obstacle| obstacle.unreachable)
        {
            let cases = fuzzed.obstacles.iter().filter(|obstacle| obstacle.unreachable).map(|obstacle| obstacle.cases);
            self.gap();
            self.write_unreachable(&obstacle.message, &format_count(cases.sum::<u64>() as usize, "case"), true);
        }
        self.write_crashes(protocol);
        for scenario in protocol.scenarios.iter().filter(|scenario| scenario.mistake().is_some()) {
            self.gap();
            self.write_mistake(scenario);
        }
        let (found, warned): (Vec<_>, Vec<_>) =
            group_findings(protocol, fuzzed).into_iter().partition(|(one, _)| one.check.verdict == Verdict::Fail);
        let in_full = self.limit(FULL_CAUSES);
        for (one, finding) in found.iter().take(in_full) {
            self.write_failures(protocol, std::slice::from_ref(one));
            if finding.cases > 1 {
                let numbers: Vec<String> = finding.numbers.iter().map(u64::to_string).collect();
                let dots = if finding.cases as usize > numbers.len() { ", ..." } else { "" };
                self.field("seen", &format!("in {} cases: {}{dots}", finding.cases, numbers.join(", ")));
            }
        }
        if found.len() > in_full {
            self.gap();
            for (one, _) in found.iter().take(self.most().saturating_add(in_full)).skip(in_full) {
                self.write_brief(one.check.verdict.name(), one);
            }
            self.more(found.len().saturating_sub(in_full), "finding");
        }
        if !warned.is_empty() {
            self.gap();
        }
        for (one, _) in warned.iter().take(self.most()) {
            self.write_brief("warn", one);
        }
        self.more(warned.len(), "warning");
        self.write_known_failures(protocol);
        self.write_log(protocol);
        self.write_fuzz_notes(fuzzed);
        self.gap();
        self.write_tried_cases(protocol, fuzzed);
    }

    /// Says what limits what the run shows: that it ended early, that the hub was silent, and the like.
    fn write_fuzz_notes(&mut self, fuzzed: &FuzzReport) {
        if let Some(why) = &fuzzed.ended {
            self.gap();
            self.wrapped("", &format!("The run ended early: {}.", escape_unprintable(why)));
        }
        if fuzzed.is_silent() && fuzzed.decided > 0 {
            self.gap();
            self.wrapped(
                "",
                "The hub sent no message in answer to any client, so this run shows only that it survived. Is it the hub of \
                this document, and does it speak the protocol at this address?",
            );
        }
        if fuzzed.cut > 0 {
            self.gap();
            let cases = format_count(usize::try_from(fuzzed.cut).unwrap_or(usize::MAX), "case");
            let (were, count) = if fuzzed.cut == 1 { ("was", "counts") } else { ("were", "count") };
            self.wrapped(
                "",
                &format!(
                    "{cases} {were} being played when the run ended, and {count} neither as passed nor as failed."
                ),
            );
        }
        if fuzzed.unconfirmed > 0 {
            self.gap();
            let findings = format_count(usize::try_from(fuzzed.unconfirmed).unwrap_or(usize::MAX), "finding");
            let were = if fuzzed.unconfirmed == 1 { "was" } else { "were" };
            let due = "may be due to a hub that hung, was gone or is slow, and";
            self.wrapped("", &format!("{findings} {due} {were} not confirmed by a replay."));
        }
        for (who, pauses) in [("the hub served no client", fuzzed.pauses), ("this machine stalled", fuzzed.stalls)] {
            let Some(PauseTally { count, longest }) = pauses else { continue };
            self.gap();
            let times = if count == 1 { "Once".to_owned() } else { format!("{count} times") };
            self.wrapped(
                "",
                &format!("{times}, {who} for up to {}; what was being played was played again.", format_time(longest)),
            );
        }
        if let Some(number) = fuzzed.stuck {
            self.gap();
            self.wrapped(
                "",
                &format!(
                    "At the end of the run, the conversation of case {number} cannot be completed even without its \
                    mutation. The cause may be a message of this run, or the state the hub was in before it: restart the \
                    hub, then replay the cases in the warnings one at a time (`--case {number}`)."
                ),
            );
        }
        if let Some(slower) = fuzzed.slower {
            self.gap();
            self.wrapped(
                "",
                &format!(
                    "At the end of this run, a new client waits {:.2} s to connect and receive an answer; at the start, \
                    it waited {:.2} s. Messages of this run may be the cause; to find out which, narrow the run with \
                    `--message` and `--mutation`. A hub may become slower, so this is not a failure.",
                    slower.after.as_secs_f64(),
                    slower.before.as_secs_f64()
                ),
            );
        }
    }

    fn write_tried_cases(&mut self, protocol: &ProtocolReport, fuzzed: &FuzzReport) {
        for (rule, oracle) in &fuzzed.oracles {
            let broken = if oracle.broken > 0 { format!(", broken in {}", oracle.broken) } else { String::new() };
            self.field("oracle", &format!("{rule} held in {}{broken}", oracle.held));
        }
        for process in &protocol.processes {
            self.field("hub", &super::process::describe_starts(process));
        }
        let undecided = fuzzed.cases - fuzzed.decided;
        if undecided > 0 {
            self.field(
                "undecided",
                &format!("{} whose prefix could not be played:", format_count(undecided as usize, "case")),
            );
            for obstacle in fuzzed.obstacles.iter().take(self.limit(SHOWN_OBSTACLES)) {
                let (step, message) = (escape_unprintable(&obstacle.step), escape_unprintable(&obstacle.message));
                self.field("", &format!("{} `{step}`: {message}", obstacle.cases));
            }
        }
        // What a single case leaves out says nothing.
        if fuzzed.cases == 1 && !self.style.verbose {
            return;
        }
        if fuzzed.decided > 0 {
            self.write_cell_table(fuzzed);
        }
        let mut omitted: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for OmittedMutation { message, mutation, why } in &fuzzed.omitted {
            omitted.entry((mutation, why)).or_default().push(message);
        }
        let omitted = omitted
            .into_iter()
            .map(|((mutation, why), messages)| format!("{mutation}: {why} ({})", shorten_list(&messages)));
        self.write_reasons("no case", omitted.collect(), "mutation");
        let mut unused: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for UnusedStep { scenario, step, why, .. } in &fuzzed.unused_steps {
            unused.entry(why).or_default().push(format!("{scenario}: step {step}"));
        }
        unused.values_mut().for_each(Vec::dedup);
        let unused = unused.into_iter().map(|(why, steps)| {
            let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
            format!("{why} ({})", shorten_list(&steps))
        });
        self.write_reasons("unused steps", unused.collect(), "reason");
    }

    /// Shows reasons why something was not used.
    fn write_reasons(&mut self, label: &str, reasons: Vec<String>, noun: &str) {
        let shown = self.limit(SHOWN_REASONS);
        for (index, reason) in reasons.iter().take(shown).enumerate() {
            self.field(if index == 0 { label } else { "" }, &escape_unprintable(reason));
        }
        if let Some(more) = reasons.len().checked_sub(shown).filter(|more| *more > 0) {
            self.field("", &format!("and {}; -v lists all", format_count(more, &format!("more {noun}"))));
        }
    }

    /// Shows how many cases were decided, and how many of these tested more than the opening and survival.
    pub(super) fn cases(&mut self, fuzzed: &FuzzReport) {
        let share = |percent: f64| format!("{percent:.1} %");
        self.field(
            "cases",
            &format!(
                "{} of {} decided; of these {} after the opening, {} judged by more than survival",
                fuzzed.decided,
                fuzzed.cases,
                share(fuzzed.after_opening_percent),
                share(fuzzed.judged_percent)
            ),
        );
    }

    /// Shows a table of messages and mutations that marks at how many moments each combination was played.
    fn write_cell_table(&mut self, fuzzed: &FuzzReport) {
        let mut rows: BTreeMap<&str, BTreeMap<&str, (usize, usize)>> = BTreeMap::new();
        for CellTally { message, mutation, cases, .. } in &fuzzed.cells {
            let (seen, of) = rows.entry(message).or_default().entry(mutation).or_default();
            *seen += usize::from(*cases > 0);
            *of += 1;
        }
        let mutations: BTreeSet<&str> = fuzzed.cells.iter().map(|cell| &*cell.mutation).collect();
        let seen = fuzzed.cells.iter().filter(|cell| cell.cases > 0).count();
        let least = fuzzed.cells.iter().map(|cell| cell.cases).min().unwrap_or(0);
        let cells =
            format!("{seen} of {} (message x mutation x moment), each at least {least} times", fuzzed.cells.len());
        self.field("cells", &cells);
        let names = rows.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        let legend: Vec<String> =
            mutations.iter().enumerate().map(|(index, mutation)| format!("{} {mutation}", index + 1)).collect();
        self.field("", &legend.join(", "));
        let digits = |of: fn(usize) -> usize| -> String {
            (1..=mutations.len()).map(|index| char::from_digit((of(index) % 10) as u32, 10).unwrap_or(' ')).collect()
        };
        for head in [digits(|index| index / 10), digits(|index| index)] {
            self.line(&self.paint(DIM, &format!("  {:<names$}  {head}", "")));
        }
        for (message, row) in &rows {
            let mark = |mutation: &&str| match row.get(*mutation) {
                None => ' ',
                Some((0, _)) => '.',
                Some((seen, of)) if seen < of => '-',
                Some(_) => '#',
            };
            let marks: String = mutations.iter().map(mark).collect();
            self.line(&format!("  {message:<names$}  {marks}"));
        }
        self.line(&self.paint(DIM, "  # at every moment, - at some, . not yet; blank: no such case"));
    }
}

/// Joins names, and counts those that are too many.
fn shorten_list(names: &[&str]) -> String {
    let shown = names.iter().take(SHOWN_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Groups the unexpected findings with the same oracle and the same structure of the answer. Returns the first of each
/// group, which lists the others.
fn group_findings<'a>(
    protocol: &'a ProtocolReport,
    fuzzed: &'a FuzzReport,
) -> Vec<(FailureGroup<'a>, &'a FindingTally)> {
    let mut all: Vec<(FailureGroup<'a>, &'a FindingTally)> = Vec::new();
    let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (scenario, finding) in protocol.scenarios.iter().zip(&fuzzed.causes) {
        for check in scenario.checks.iter().filter(|check| check.known.is_none()) {
            match places.get(&(check.name.as_str(), finding.shape.as_str())).and_then(|at| all.get_mut(*at)) {
                Some((first, _)) => first.also.push(scenario.id.clone()),
                None => {
                    places.insert((&check.name, &finding.shape), all.len());
                    all.push((
                        FailureGroup { scenario, check, also: Vec::new(), blocks: BlockedChecks::default() },
                        finding,
                    ));
                }
            }
        }
    }
    all
}
