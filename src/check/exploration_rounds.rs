//! A run of `check` in rounds. With `explore`, each further round assumes the deviations that the earlier rounds
//! propose, and replays the scenarios in which the hub departed from its document, until no round proposes a new
//! deviation.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PlayOptions, hang, stamp};
use crate::deviation::Deviations;
use crate::event::{ProcessReport, ScenarioReport};
use crate::hub::prepare::TestSubject;
use crate::report::{ProtocolOutline, ReportAggregator, RunOptions, RunReport};
use crate::scenario::Isolation;
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::{Sources, Span};
use crate::syntax::yaml::SyntaxNode;

/// Most rounds that assume further deviations.
const MAX_FURTHER_ROUNDS: usize = 8;

/// The rounds of a run, with the reports so far.
pub struct Rounds {
    /// The protocols and scenarios of the next round.
    subjects: Vec<TestSubject>,
    options: PlayOptions,
    explore: bool,
    /// Number of rounds so far.
    played: usize,
    begun: Instant,
    /// When the current round began, relative to the start of the run.
    round_begun: Duration,
    reports: ReportAggregator,
    /// Ids of scenarios that may leave the hub unusable.
    destructive: BTreeSet<String>,
}

impl Rounds {
    pub fn new(
        subjects: Vec<TestSubject>,
        outlines: Vec<ProtocolOutline>,
        options: PlayOptions,
        explore: bool,
    ) -> Self {
        let programs = subjects.iter().flat_map(|subject| &subject.programs);
        let destructive = programs.filter(|program| program.isolation == Isolation::Destructive);
        let destructive = destructive.map(|program| program.id.clone()).collect();
        let (begun, reports) = (Instant::now(), ReportAggregator::new(outlines));
        Self { subjects, options, explore, played: 0, begun, round_begun: Duration::ZERO, reports, destructive }
    }

    /// Returns the arguments of [`super::run_scenarios`] for the next round; `None` after the last round.
    ///
    /// # Errors
    ///
    /// A proposed deviation is not valid.
    pub fn next_round(
        &mut self,
        sources: &mut Sources,
    ) -> Result<Option<(Vec<TestSubject>, PlayOptions)>, Vec<Diagnostic>> {
        let first = self.played == 0;
        let is_due = first || (self.explore && self.played <= MAX_FURTHER_ROUNDS && self.assume_proposals(sources)?);
        if !is_due {
            return Ok(None);
        }
        for subject in &self.subjects {
            self.reports.set_deviations(&subject.pack.name, Arc::clone(&subject.deviations));
        }
        // A hub may remember the names of earlier rounds.
        let stamp = if first { self.options.stamp.clone() } else { stamp() };
        self.played += 1;
        self.round_begun = self.begun.elapsed();
        Ok(Some((self.subjects.clone(), PlayOptions { stamp, ..self.options.clone() })))
    }

    /// Assumes the deviations that all rounds so far propose. Returns whether any scenario must be replayed with them.
    fn assume_proposals(&mut self, sources: &mut Sources) -> Result<bool, Vec<Diagnostic>> {
        let so_far = self.reports.clone().finish(RunOptions::default(), 0, Duration::ZERO, false);
        for (subject, protocol) in self.subjects.iter_mut().zip(&so_far.protocols) {
            let found = protocol.proposals.iter().filter(|proposed| proposed.proposal.complete);
            let entries: Vec<Value> = found.map(|proposed| proposed.proposal.entry.clone()).collect();
            let own = self.reports.reports_mut(&protocol.name);
            let departs =
                |report: &&&mut ScenarioReport| report.cause.is_some() || report.evidence.shows_another_form();
            let again: BTreeSet<&str> = own.iter().filter(departs).map(|report| report.id.as_str()).collect();
            subject.programs.retain(|program| !entries.is_empty() && again.contains(program.id.as_str()));
            if !subject.programs.is_empty() {
                let file = sources.add("assumed deviations", "");
                let nodes: Vec<SyntaxNode> =
                    entries.iter().map(|entry| SyntaxNode::from_json(entry, Span::new(file, 0..0))).collect();
                let assumed = Deviations::parse(&nodes, &subject.pack, &subject.shared, true)?;
                subject.deviations = Arc::new(subject.deviations.chain(assumed));
            }
        }
        Ok(self.subjects.iter().any(|subject| !subject.programs.is_empty()))
    }

    /// Adds the report of a scenario of the current round.
    pub fn add(&mut self, mut report: ScenarioReport) {
        report.begun += self.round_begun;
        self.reports.add_report(report);
    }

    /// Detects hangs of the hub, and returns the report of the run. `processes` are the reports of the hubs that the
    /// run started, each with its protocol.
    pub fn finish(
        mut self,
        processes: Vec<(String, ProcessReport)>,
        shown: RunOptions,
        interrupted: bool,
    ) -> RunReport {
        for subject in &self.subjects {
            let mut own = self.reports.reports_mut(&subject.pack.name);
            // Silence after a scenario that may leave the hub unusable does not prove a hang.
            own.retain(|report| !self.destructive.contains(&report.id));
            hang::report_hangs(&mut own);
        }
        for (protocol, process) in processes {
            self.reports.add_process(&protocol, process);
        }
        let started = u64::try_from(self.options.now_ms).unwrap_or(0);
        self.reports.finish(shown, started, self.begun.elapsed(), interrupted)
    }
}
