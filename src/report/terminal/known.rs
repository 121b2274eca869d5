//! The baseline on the page: expected failures and stale entries.

use annotate_snippets::Level;

use super::super::causes::group_failures;
use super::super::text::{escape_unprintable, format_count};
use super::super::{CheckResult, EntryStanding, ProtocolReport, RunReport, ScenarioResult, entry_covers};
use super::{Page, list};
use crate::deviation::proposal::to_toml;
use crate::outcome::Verdict;

impl Page<'_, RunReport> {
    /// Shows the target-file entries that would let more rules be judged.
    pub(super) fn write_proposals(&mut self, protocol: &ProtocolReport) {
        for proposed in protocol.proposals.iter().take(self.most()) {
            self.gap();
            let rules = format_count(proposed.unblocks.len(), "more rule");
            let effect = if proposed.unblocks.is_empty() {
                "declares the deviation".to_owned()
            } else {
                format!("might let {rules} be judged")
            };
            self.wrapped(
                "",
                &format!("If the hub differs from its document on purpose, this entry in a target file {effect}:"),
            );
            for line in to_toml(&[&proposed.proposal.entry]).trim_end().lines() {
                self.line(&format!("  {}", escape_unprintable(line)));
            }
        }
        self.more(protocol.proposals.len(), "proposal");
        if !protocol.proposals.is_empty() {
            self.gap();
            let untried = if protocol.proposals.iter().any(|proposed| proposed.proposal.complete) {
                "These entries were not tried; --explore tries each."
            } else {
                "Only you know the values of these entries."
            };
            self.wrapped("", &format!("{untried} --write-deviations FILE saves them."));
        }
    }

    /// Shows expected failures with their reasons, and stale entries with their places.
    pub(super) fn write_known_failures(&mut self, protocol: &ProtocolReport) {
        let checks = protocol.scenarios.iter().flat_map(|scenario| scenario.checks.iter().map(move |c| (scenario, c)));
        let known: Vec<(&ScenarioResult, &CheckResult)> = checks
            .filter(|(scenario, check)| check.known.is_some() && scenario.check_report(check).deviation.is_none())
            .collect();
        for (scenario, check) in known.iter().take(self.most()) {
            let Some(known) = &check.known else { continue };
            self.gap();
            let report = scenario.check_report(check);
            let word = if known.flaky { "flaky" } else { "expected" };
            let place = self.sources.path_and_line(report.span.unwrap_or(scenario.span));
            let what = escape_unprintable(report.message_or_step());
            self.wrapped("", &format!("{word}[{}]: {}: {what} ({place})", check.name, scenario.id));
            if let Some(flaky) = check.flaky {
                self.field("flaky", &format!("{} {}", check.verdict.name(), flaky.shown()));
            }
            self.field("reason", &escape_unprintable(&known.reason));
            let [one] = &group_failures(vec![(*scenario, *check)])[..] else { continue };
            self.write_blocked(&one.blocks);
        }
        self.more(known.len(), "known failure");
        self.write_known_causes(protocol);
        let quiet = protocol.baseline.iter().filter(|entry| {
            let seen = || known.iter().any(|(scenario, check)| entry_covers(&entry.failure, &scenario.id, &check.name));
            entry.standing == EntryStanding::Flaky && !seen()
        });
        let quiet: Vec<&str> = quiet.map(|entry| entry.failure.as_str()).collect();
        if !quiet.is_empty() {
            self.gap();
            self.wrapped("", &format!("Declared flaky, but did not fail in this run: {}.", quiet.join(", ")));
        }
        let stale: Vec<_> = protocol.stale_entries().collect();
        for entry in stale.iter().take(self.most()) {
            self.gap();
            let title = format!("{} no longer fails", escape_unprintable(&entry.failure));
            self.snippet(Level::ERROR.with_name("stale"), None, &title, Some(entry.span));
            let (first, last) = self.sources.lines(entry.span);
            let lines = if first == last { format!("line {first}") } else { format!("lines {first} to {last}") };
            self.field("delete", &format!("{lines} of {}", self.sources.file(entry.span.file).path));
        }
        self.more(stale.len(), "stale line");
    }

    /// Shows the scenarios that known causes stopped, grouped by the reason in the baseline.
    fn write_known_causes(&mut self, protocol: &ProtocolReport) {
        let mut reasons = std::collections::BTreeMap::<&str, (Vec<String>, usize)>::new();
        for scenario in &protocol.scenarios {
            let Some(known) = &scenario.known_cause else { continue };
            let (stopped, checks) = reasons.entry(&known.reason).or_default();
            stopped.push(scenario.id.clone());
            *checks += scenario.checks.iter().filter(|check| check.verdict == Verdict::Inconclusive).count();
        }
        for (reason, (stopped, checks)) in reasons {
            self.gap();
            let what = format_count(stopped.len(), "scenario");
            self.wrapped(
                "",
                &format!("{what} could not continue, as expected; not judged: {}.", format_count(checks, "check")),
            );
            self.field("reason", &escape_unprintable(reason));
            self.field("stopped", &list(&stopped, self.names()));
        }
    }
}
