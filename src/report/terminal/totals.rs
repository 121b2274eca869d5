//! The totals of a protocol on the page.

use std::collections::BTreeMap;

use super::super::terminal_page::{BOLD, Page, list};
use super::super::text::{escape_unprintable, format_count, format_time, quote_for_shell};
use super::super::{PreludeShare, ProtocolReport, RuleStatus, RunReport, VerdictTally};
use super::process;
use crate::outcome::{ShortenedWaits, Verdict};

/// The machine may be too slow if a successful wait had less time left than this.
const SLIM_MARGIN: std::time::Duration = std::time::Duration::from_millis(250);

impl Page<'_, RunReport> {
    pub(super) fn write_totals(&mut self, protocol: &ProtocolReport) {
        let rules = protocol.rule_totals();
        self.field("scenarios", &describe_tally(&protocol.scenario_tally()));
        self.field(
            "rules",
            &format!(
                "{} of {} testable proven; {} in the pack{}",
                rules.proven,
                rules.testable,
                rules.total,
                self.other_rules(protocol)
            ),
        );
        for (need, waiting) in protocol.unmet_needs() {
            let what = [(waiting.scenarios, "scenario"), (waiting.checks, "check"), (waiting.rules, "rule")];
            let what: Vec<String> =
                what.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format_count(*n, what)).collect();
            self.field("not tested", &format!("{}: unmet need `{}`", what.join(", "), escape_unprintable(&need.name)));
        }
        if !protocol.unmet_needs().is_empty() {
            let words =
                self.report.options.command.iter().map(String::as_str).chain(["--protocol", &protocol.name, "--list"]);
            let command = words.map(quote_for_shell).collect::<Vec<_>>().join(" ");
            self.field("", "To list the settings and hooks this protocol can use:");
            self.field("", &self.paint(BOLD, &command));
        }
        let not_reached = protocol
            .scenarios
            .iter()
            .filter(|scenario| scenario.unmet_needs().is_empty())
            .flat_map(|scenario| &scenario.checks);
        let not_reached = not_reached.filter(|check| check.verdict == Verdict::NotTestable).count();
        if not_reached > 0 {
            self.field(
                "not reached",
                &format!(
                    "{}: the situation they test did not occur, as the document allows",
                    format_count(not_reached, "check")
                ),
            );
        }
        for process in &protocol.processes {
            self.field("hub", &process::describe_starts(process));
        }
        if !protocol.unplayed.is_empty() {
            self.field("not played", &list(&protocol.unplayed, self.names()));
        }
        if self.style.verbose || protocol.exit_code(&self.report.options) != 0 {
            self.write_leftovers(protocol);
        }
        let PreludeShare { played, possible } = protocol.preludes;
        if possible > 0 && self.style.verbose {
            self.field("preludes", &format!("{played} of {possible} pairs of a scenario and a prelude were played"));
        }
        self.write_shortened_waits(protocol);
        if let Some((scenario, margin)) = protocol.slimmest_margin() {
            let slim = margin.remaining() < SLIM_MARGIN && margin.used_share() > 0.5;
            if slim || self.style.verbose {
                let advice = if slim { "; on a slow machine use `--stretch 2`" } else { "" };
                let (step, waited, bound) =
                    (escape_unprintable(&margin.step), format_time(margin.waited), format_time(margin.bound));
                self.field("closest", &format!("`{step}` of {scenario} took {waited} of {bound}{advice}"));
            }
        }
    }

    fn write_shortened_waits(&mut self, protocol: &ProtocolReport) {
        let waits = protocol.shortened_waits();
        if waits.is_empty() {
            return;
        }
        let all = waits.values().fold(ShortenedWaits::default(), |sum, one| sum.plus(*one));
        let names: Vec<String> =
            waits.iter().map(|(name, one)| format!("{} ({})", escape_unprintable(name), one.times)).collect();
        let (times, saved) = (format_count(all.times, "wait"), format_time(all.saved));
        let what = format!("{times}, by {saved} in all, for what earlier scenarios awaited in vain: ");
        self.field("shortened", &(what + &list(&names, self.names())));
    }

    fn other_rules(&self, protocol: &ProtocolReport) -> String {
        let of = |wanted: fn(&RuleStatus) -> bool| protocol.rules.values().filter(|rule| wanted(&rule.status)).count();
        let kinds = [
            (of(|status| matches!(status, RuleStatus::NotTestable { .. })), "not testable here"),
            (of(|status| matches!(status, RuleStatus::NotOffered)), "not offered"),
            (of(|status| matches!(status, RuleStatus::NotAsked)), "not asked"),
            (of(|status| matches!(status, RuleStatus::OutOfScope(_))), "out of scope"),
            (of(|status| matches!(status, RuleStatus::NoCheck)), "without a check"),
        ];
        let kinds: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) }
    }

    fn write_leftovers(&mut self, protocol: &ProtocolReport) {
        let mut by_message = BTreeMap::<&str, usize>::new();
        for (message, n) in protocol.scenarios.iter().flat_map(|scenario| &scenario.deciding_run().leftovers) {
            *by_message.entry(message).or_default() += n;
        }
        if !by_message.is_empty() {
            let total = by_message.values().sum();
            let each: Vec<String> =
                by_message.iter().map(|(message, n)| format!("{n} {}", escape_unprintable(message))).collect();
            self.field(
                "unmatched",
                &format!("{} that no step expected: {}", format_count(total, "frame"), list(&each, self.names())),
            );
        }
    }

    /// Shows the counts below the verdict line.
    pub(super) fn counts(&mut self, protocol: &ProtocolReport) {
        if let Some(fuzzed) = &protocol.fuzzed {
            return self.cases(fuzzed);
        }
        let flaky = protocol.scenarios.iter().flat_map(|scenario| &scenario.checks).filter(|one| one.flaky.is_some());
        let flaky = match flaky.count() {
            0 => String::new(),
            flaky => format!("; {flaky} flaky"),
        };
        self.field("checks", &format!("{}{flaky}", describe_tally(&protocol.check_tally())));
        if let Some(reach) = protocol.reach().describe() {
            self.field("musts", &reach);
        }
    }
}

fn describe_tally(tally: &VerdictTally) -> String {
    let parts: Vec<String> = Verdict::ALL
        .into_iter()
        .filter(|verdict| tally.count(*verdict) > 0)
        .map(|verdict| format!("{} {}", tally.count(verdict), verdict.name()))
        .collect();
    match parts.len() {
        0 => "none".to_owned(),
        1 if tally.total() > 1 => format!("all {}", parts[0]),
        1 => parts[0].clone(),
        _ => format!("{}: {}", tally.total(), parts.join(", ")),
    }
}
