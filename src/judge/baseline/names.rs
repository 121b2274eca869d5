//! The names of all scenarios and checks, to find entries that name anything else.

use std::collections::{BTreeMap, BTreeSet};

use super::BaselineEntry;
use crate::protocol::Pack;
use crate::scenario::Program;
use crate::syntax::diagnostic::{Diagnostic, suggest};

/// The scenarios of some protocols, and the checks that can fail in each.
#[derive(Default)]
pub struct FailureNames {
    /// The checks of each scenario.
    scenarios: BTreeMap<String, BTreeSet<String>>,
}

impl FailureNames {
    /// Adds the scenarios of a protocol with their own checks and the checks of every frame. `more` are further checks
    /// that any scenario may have.
    pub fn add_protocol<'p>(&mut self, pack: &Pack, programs: impl IntoIterator<Item = &'p Program>, more: &[&str]) {
        let everywhere = checks_of_every_frame(pack, more);
        for program in programs {
            let own = program.checks.iter().map(|check| check.name.clone());
            self.scenarios.insert(program.id.clone(), own.chain(everywhere.iter().cloned()).collect());
        }
    }

    /// Adds the possible findings of the fuzzer: for each of `ids`, every rule and schema check of the pack, and
    /// `more`.
    pub fn add_findings(&mut self, pack: &Pack, ids: impl IntoIterator<Item = String>, more: &[&str]) {
        let mut checks = checks_of_every_frame(pack, more);
        checks.extend(pack.rules.keys().cloned());
        self.scenarios.extend(ids.into_iter().map(|id| (id, checks.clone())));
    }

    /// Returns an error for each entry that names a scenario or check that does not exist.
    pub fn unknown_name_errors(&self, entries: &[BaselineEntry]) -> Vec<Diagnostic> {
        entries.iter().filter_map(|entry| self.unknown_name_error(entry)).collect()
    }

    fn unknown_name_error(&self, entry: &BaselineEntry) -> Option<Diagnostic> {
        let scenario = entry.scenario();
        let of_protocol = |id: &String| id.split_once('/').is_some_and(|(protocol, _)| protocol == scenario);
        if entry.precondition().is_some() && self.scenarios.keys().any(of_protocol) {
            // Steps and messages are not names that can be looked up.
            return None;
        }
        let Some(checks) = self.scenarios.get(scenario) else {
            let help = suggest(
                scenario,
                self.scenarios.keys().map(String::as_str),
                "`hubproof check --list` lists all scenarios",
            );
            let span = entry.place.subspan(0..scenario.len());
            return Some(Diagnostic::error(span, format!("there is no scenario `{scenario}`")).help(help));
        };
        let check = entry.check().filter(|check| !checks.contains(*check))?;
        // Suggest the scenario's own checks first: a frame check is rarely meant.
        let own = || checks.iter().map(String::as_str).filter(|name| !name.starts_with("schema:"));
        let all = || checks.iter().map(String::as_str);
        let help = match check.starts_with("schema:") {
            true => suggest(check, all(), "reports show the name of every check"),
            false => suggest(check, own(), "reports show the name of every check"),
        };
        let span = entry.place.subspan(scenario.len() + 1..entry.failure.len());
        Some(Diagnostic::error(span, format!("{scenario} has no check `{check}`")).help(help))
    }
}

/// Returns the checks of every frame, and `more`.
fn checks_of_every_frame(pack: &Pack, more: &[&str]) -> BTreeSet<String> {
    let mut everywhere: BTreeSet<String> = more.iter().map(|name| (*name).to_owned()).collect();
    for message in &pack.messages {
        everywhere.insert(format!("schema:{}", message.name));
        let schema = &message.schema;
        everywhere.extend(schema.rules.iter().map(|rule| format!("schema:{}:{rule}", message.name)));
        everywhere.extend(schema.should_rules.iter().map(|rule| format!("schema:{}:{rule}:should", message.name)));
    }
    everywhere
}
