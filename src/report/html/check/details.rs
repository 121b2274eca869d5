//! What a page shows of a run besides rules and findings: scenarios, the hub's process, deviations and the baseline.

use minijinja::value::Value;

use super::super::page::{PageError, format_ms, view};
use super::PageBuilder;
use crate::report::document::check::{Protocol, Scenario};

impl PageBuilder<'_> {
    pub(super) fn details(&mut self, at: usize, protocol: &Protocol) -> Result<Value, PageError> {
        let prefix = self.prefix(at);
        let scenario = |scenario: &Scenario| {
            view! {
                anchor => self.anchors.element(&format!("{prefix}scenario.{}", scenario.id)),
                id => scenario.id, title => scenario.title, verdict => scenario.verdict, checks => scenario.checks.len(),
                why => why_not_completed(scenario), place => scenario.place.describe(),
                duration => format_ms(scenario.duration_ms),
            }
        };
        let scenarios: Vec<_> = protocol.scenarios.list.iter().map(scenario).collect();
        let proposals: Vec<_> = protocol
            .proposals
            .iter()
            .map(|one| {
                let entry = serde_json::to_string_pretty(&one.entry).unwrap_or_default();
                view! { entry => entry, unblocks => one.unblocks }
            })
            .collect();
        self.templates.part(
            "run",
            view! {
                run => self.run_name(at), protocol => protocol.name, scenarios, processes => protocol.processes,
                deviations => protocol.deviations, proposals, baseline => protocol.baseline,
                shortened => protocol.shortened_waits, unplayed => protocol.scenarios.unplayed,
                is_fuzz => protocol.fuzzed.is_some(), total => protocol.scenarios.totals.total,
            },
        )
    }
}

/// Returns why a scenario was not completed, or an empty text if it was.
fn why_not_completed(scenario: &Scenario) -> String {
    match (&scenario.mistake, &scenario.cause) {
        (Some(mistake), _) => mistake.clone(),
        (None, Some(cause)) => cause.message.clone(),
        _ if !scenario.needs.is_empty() => format!("needs {}", scenario.needs.join(", ")),
        _ => String::new(),
    }
}
