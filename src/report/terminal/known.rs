//! The baseline on the page: expected failures and stale entries.

use annotate_snippets::Level as Title;

use super::super::text::{count, printable};
use super::super::{CheckResult, ProtocolReport, ScenarioResult, Standing, covers};
use super::{Page, or_step};

impl Page<'_> {
    /// Shows expected failures with their reasons, and stale entries with their places.
    pub(super) fn known(&mut self, protocol: &ProtocolReport) {
        let checks = protocol.scenarios.iter().flat_map(|scenario| scenario.checks.iter().map(move |c| (scenario, c)));
        let known: Vec<(&ScenarioResult, &CheckResult)> = checks.filter(|(_, check)| check.known.is_some()).collect();
        for (scenario, check) in known.iter().take(self.most()) {
            let Some(known) = &check.known else { continue };
            self.gap();
            let report = scenario.report(check);
            let word = if known.flaky { "flaky" } else { "expected" };
            let place = self.sources.place(report.span.unwrap_or(scenario.span));
            let what = printable(or_step(report));
            self.wrapped("", &format!("{word}[{}]: {}: {what} ({place})", check.name, scenario.id));
            if let Some(flaky) = check.flaky {
                let all = count(flaky.decided, "repetition");
                self.field("flaky", &format!("{} in {} of {all}", check.verdict.name(), flaky.broken));
            }
            self.field("reason", &printable(&known.reason));
        }
        self.more(known.len(), "known failure");
        let quiet = protocol.baseline.iter().filter(|entry| {
            let seen = || known.iter().any(|(scenario, check)| covers(&entry.failure, &scenario.id, &check.name));
            entry.standing == Standing::Flaky && !seen()
        });
        let quiet: Vec<&str> = quiet.map(|entry| entry.failure.as_str()).collect();
        if !quiet.is_empty() {
            self.gap();
            self.wrapped("", &format!("Flaky, and did not fail in this run: {}.", quiet.join(", ")));
        }
        let stale: Vec<_> = protocol.stale().collect();
        for entry in stale.iter().take(self.most()) {
            self.gap();
            let title = format!("{} does not fail any more", printable(&entry.failure));
            self.snippet(Title::ERROR.with_name("stale"), None, &title, Some(entry.span));
            let (first, last) = self.sources.lines(entry.span);
            let lines = if first == last { format!("line {first}") } else { format!("lines {first} to {last}") };
            self.field("delete", &format!("{lines} of {}", self.sources.file(entry.span.file).path));
        }
        self.more(stale.len(), "stale line");
    }
}
