//! Which scenarios and checks there are, so that an entry for something else is found out.

use std::collections::{BTreeMap, BTreeSet};

use super::Entry;
use crate::protocol::Pack;
use crate::scenario::Program;
use crate::syntax::diagnostic::{Diagnostic, suggest};

/// All that can fail in some protocols.
#[derive(Default)]
pub struct Names {
    /// The checks of each scenario.
    scenarios: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    /// Adds the scenarios of a protocol with their own checks and those that are made of every frame; `more` are checks
    /// that any scenario may have beside them.
    pub fn add<'p>(&mut self, pack: &Pack, programs: impl IntoIterator<Item = &'p Program>, more: &[&str]) {
        let everywhere = everywhere(pack, more);
        for program in programs {
            let own = program.checks.iter().map(|check| check.name.clone());
            self.scenarios.insert(program.id.clone(), own.chain(everywhere.iter().cloned()).collect());
        }
    }

    /// Adds what fuzzing may find: in each of `ids`, a broken rule of the pack, a frame that breaks its schema, or one of
    /// `more`.
    pub fn add_findings(&mut self, pack: &Pack, ids: impl IntoIterator<Item = String>, more: &[&str]) {
        let mut checks = everywhere(pack, more);
        checks.extend(pack.rules.keys().cloned());
        self.scenarios.extend(ids.into_iter().map(|id| (id, checks.clone())));
    }

    /// What is wrong with entries that name what does not exist.
    pub fn unknown(&self, entries: &[Entry]) -> Vec<Diagnostic> {
        entries.iter().filter_map(|entry| self.complaint(entry)).collect()
    }

    fn complaint(&self, entry: &Entry) -> Option<Diagnostic> {
        let scenario = entry.scenario();
        let Some(checks) = self.scenarios.get(scenario) else {
            let help =
                suggest(scenario, self.scenarios.keys().map(String::as_str), "`hubproof check --list` names all");
            let span = entry.place.part(0..scenario.len());
            return Some(Diagnostic::error(span, format!("there is no scenario `{scenario}`")).help(help));
        };
        let check = entry.check().filter(|check| !checks.contains(*check))?;
        // Its own checks are meant far more often than those of every frame.
        let own = || checks.iter().map(String::as_str).filter(|name| !name.starts_with("schema:"));
        let all = || checks.iter().map(String::as_str);
        let help = match check.starts_with("schema:") {
            true => suggest(check, all(), "reports name every check"),
            false => suggest(check, own(), "reports name every check"),
        };
        let span = entry.place.part(scenario.len() + 1..entry.failure.len());
        Some(Diagnostic::error(span, format!("{scenario} has no check `{check}`")).help(help))
    }
}

/// Checks that are made of every frame, and `more`.
fn everywhere(pack: &Pack, more: &[&str]) -> BTreeSet<String> {
    let mut everywhere: BTreeSet<String> = more.iter().map(|name| (*name).to_owned()).collect();
    for message in &pack.messages {
        everywhere.insert(format!("schema:{}", message.name));
        let schema = &message.schema;
        everywhere.extend(schema.rules.iter().map(|rule| format!("schema:{}:{rule}", message.name)));
        everywhere.extend(schema.should_rules.iter().map(|rule| format!("schema:{}:{rule}:should", message.name)));
    }
    everywhere
}
