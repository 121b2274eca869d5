//! One load run, from the preflight checks to its reports.

use std::sync::Arc;

use super::super::CliError;
use super::super::hub::{Started, now_ms};
use super::progress::Watcher;
use super::{LoadArgs, metrics};
use crate::check;
use crate::cli::report_sink::Sinks;
use crate::hub::prepare::{self, Site};
use crate::load::compile::program::Prepared;
use crate::load::compile::{self, lint};
use crate::load::engine::{self, Clock, Ending, Setup, Validate};
use crate::load::ledger;
use crate::load::metrics::MetricRegistry;
use crate::load::opening::MOST_EXAMPLES;
use crate::load::plan::threshold::{self, Threshold};
use crate::load::plan::{self, Plan, Script};
use crate::load::report::{About, LoadReport};
use crate::load::validity::{self, Circumstances};
use crate::report::{Deviating, RunOptions};
use crate::syntax::source::{Sources, Span};

/// A plan with its final numbers, and the hub it runs against.
pub struct Place<'a> {
    pub arguments: &'a LoadArgs,
    pub plan: Plan,
    pub script: Script,
    /// The thresholds of the plan and of the command line.
    pub thresholds: Vec<Threshold>,
    pub seed: u64,
    pub shown: RunOptions,
}

/// The result of an attempt to run.
pub enum Attempt {
    Report(Box<LoadReport>, Ending),
    /// The run could not begin; the reason has been printed.
    NotStarted,
}

impl Place<'_> {
    /// Runs the plan and writes its reports. Returns the exit code.
    ///
    /// # Errors
    ///
    /// Mistakes that the user has to correct.
    pub async fn once(
        &self,
        started: &mut Started,
        sources: &mut Sources,
        sinks: &Sinks<LoadReport>,
    ) -> Result<u8, CliError> {
        match self.play(&self.plan, started, sources, true).await? {
            Attempt::NotStarted => Ok(super::NOT_STARTED),
            Attempt::Report(report, _) => {
                sinks.write(&report, sources)?;
                Ok(report.exit_code())
            }
        }
    }

    /// Compiles the plan for `--check` without sending a message. Returns a list of the expressions that would be
    /// evaluated during the run.
    ///
    /// # Errors
    ///
    /// Mistakes that the user has to correct.
    pub fn check(&self, started: &Started, sources: &Sources) -> Result<String, CliError> {
        let Some(subject) = started.subjects.first() else { return Err(CliError::new("there is no hub to load")) };
        let target = prepare::prepare(subject).map_err(|error| CliError::new(error.to_string()))?;
        let lines = lint::lint(&self.prepared(&self.plan, target.first(), now_ms(), sources)?, sources);
        let head = match lines.len() {
            0 => "the plan is valid; no expression is evaluated during the run\n".to_owned(),
            _ => "the plan is valid; these expressions are evaluated during the run:\n".to_owned(),
        };
        Ok(lines.iter().fold(head, |text, line| text + "  " + line + "\n"))
    }

    fn prepared(&self, plan: &Plan, site: &Site, epoch_ms: i64, sources: &Sources) -> Result<Prepared, CliError> {
        let (stamp, keys) = (check::stamp(), ledger::Keys::default());
        let target = compile::Target { settings: site.settings.clone(), stamp, epoch_ms, seed: self.seed, keys };
        compile::prepare(plan, &self.script, &target).map_err(|found| CliError::from_diagnostics(&found, sources))
    }

    /// Runs a plan.
    ///
    /// # Errors
    ///
    /// Mistakes that the user has to correct.
    pub async fn play(
        &self,
        plan: &Plan,
        started: &mut Started,
        sources: &mut Sources,
        lines: bool,
    ) -> Result<Attempt, CliError> {
        let Some(subject) = started.subjects.first() else { return Err(CliError::new("there is no hub to load")) };
        let prepared_target = prepare::prepare(subject).map_err(|error| CliError::new(error.to_string()))?;
        let site = Arc::clone(prepared_target.first());
        let masker = prepare::masker(subject);
        let (embedded, pack) = (subject.embedded.is_some(), Arc::clone(&subject.pack));
        let deviations = Arc::clone(&subject.deviations);
        let clock = Clock::start();
        let epoch_ms = now_ms();
        let prepared = Arc::new(self.prepared(plan, &site, epoch_ms, sources)?);
        let setup = Setup {
            plan: Arc::new(plan.clone()),
            prepared: Arc::clone(&prepared),
            clock,
            epoch_ms,
            endpoint: site.endpoint.clone(),
            deviations: Arc::clone(&deviations),
            tls: site.tls.clone(),
            sources: self.arguments.source.as_ref().map(|list| list.0.clone()).unwrap_or_default(),
            shards: self.shards(),
            seed: self.seed,
            validate: self.arguments.validate,
            pack: Some(Arc::clone(&pack)),
            ledger: ledger::Config { ordered: plan.ordered, ..ledger::Config::default() },
        };
        if self.lacks(&setup, embedded)? {
            return Ok(Attempt::NotStarted);
        }
        let (to, calls) = engine::hooks::queue();
        let hooks = tokio::spawn(engine::hooks::carry_out(calls, Arc::clone(&prepared), site));
        let run = engine::start(setup, to).map_err(|error| CliError::new(error.to_string()))?;
        let stopper = run.stopper();
        let served = match self.arguments.metrics {
            Some(address) => Some(metrics::Served::start(address).await?),
            None => None,
        };
        let mut watcher =
            Watcher::new(plan, self.thresholds.clone(), lines, served.as_ref().map(metrics::Served::page));
        let mut folding = tokio::task::spawn_blocking(move || {
            let outcome = run.aggregate(|live| watcher.see(live));
            watcher.finish();
            (outcome, watcher)
        });
        let mut asked = 0;
        let folded = loop {
            tokio::select! {
                folded = &mut folding => break folded,
                () = started.signals.next() => {
                    asked += 1;
                    if asked == 1 {
                        eprintln!("draining: no new journeys begin, running ones finish; press Ctrl-C again to stop at once");
                        stopper.drain();
                    } else {
                        stopper.stop();
                    }
                }
            }
        };
        hooks.abort();
        let (outcome, watcher) =
            folded.map_err(|error| CliError::new(format!("hubproof failed: {error}; please report this")))?;
        let outcome = outcome.map_err(|error| CliError::new(error.to_string()))?;
        let mut failed = outcome.failed_openings.clone();
        failed.sort_by_key(|failed| (failed.role, failed.client));
        failed.truncate(MOST_EXAMPLES);
        let failed = failed.iter().map(|failed| failed.text(&prepared, |span| sources.place(span)));
        let failed = failed.map(|text| masker.mask(&text).into_owned()).collect();
        let circumstances = Circumstances {
            changing_load: plan.changes_load(),
            undrained: outcome.undrained,
            unjoined: outcome.clients - outcome.joined,
            hopeless: outcome.hopeless.clone(),
            failed_openings: failed,
        };
        let ending = outcome.ending;
        let about = About {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: self.script.pack.name.clone(),
            plan: plan.id.clone(),
            title: plan.title.clone(),
            target: self.shown.target.clone(),
            command: self.shown.command.clone(),
            started: u64::try_from(epoch_ms).unwrap_or(0),
            seed: self.seed,
            duration: std::time::Duration::from_nanos(outcome.took),
            interrupted: matches!(ending, Ending::Interrupted | Ending::Stopped),
            facts: self.facts(plan, embedded, &outcome),
        };
        let seen = outcome.deviations;
        let mut report = LoadReport::new(about, outcome.series, outcome.account, Vec::new(), Default::default());
        report.thresholds = watcher.outcomes(report.state());
        report.judgement = validity::judge(report.state(), &report.thresholds, circumstances);
        report.deviations = Deviating::all(&deviations, &pack, &seen);
        Ok(Attempt::Report(Box::new(report), ending))
    }

    pub fn shards(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.arguments.threads.map_or(cores, usize::from)
    }

    /// Prints which resources the machine lacks, or that the hub is unreachable. Returns whether the run must not
    /// begin.
    fn lacks(&self, setup: &Setup, embedded: bool) -> Result<bool, CliError> {
        let lacks = engine::lacks(setup, embedded).map_err(|error| CliError::new(error.to_string()))?;
        if let Err(error) = engine::probe(setup) {
            eprintln!("error: {error}\n  help: is the hub running, and is this its address?");
            return Ok(true);
        }
        for lack in &lacks {
            eprintln!("{}: {}", if self.arguments.force { "warning" } else { "error" }, lack.text);
        }
        if !lacks.is_empty() && !self.arguments.force {
            eprintln!("  help: --force runs the plan anyway");
        }
        Ok(!lacks.is_empty() && !self.arguments.force)
    }

    fn facts(&self, plan: &Plan, embedded: bool, outcome: &engine::Outcome) -> Vec<(String, String)> {
        let roles: Vec<String> =
            plan.roles.iter().map(|role| format!("{} {}", role.population.number, role.name)).collect();
        let mut facts = vec![
            (
                "populations".to_owned(),
                format!(
                    "{}; {} of {} joined before the measured time",
                    roles.join(", "),
                    outcome.joined,
                    outcome.clients
                ),
            ),
            ("threads".to_owned(), format!("{} with connections, one for aggregation", self.shards())),
        ];
        if embedded {
            facts.push(("hub".to_owned(), "runs in threads of this process".to_owned()));
        }
        if let Some(checked) = &outcome.checked {
            let share = match self.arguments.validate {
                Validate::Sample(share) => format!("{} % of the received messages", share * 100.0),
                _ => "all received messages".to_owned(),
            };
            let some = |number: u64, what: &str| if number > 0 { format!(", {number} {what}") } else { String::new() };
            let (skipped, undocumented) =
                (some(checked.skipped, "skipped"), some(checked.undocumented, "that match no message of the protocol"));
            facts.push((
                "validated".to_owned(),
                format!("{share}: {} messages, {} invalid{undocumented}{skipped}", checked.checked, checked.invalid),
            ));
            if !checked.complaints.is_empty() {
                let complaints =
                    checked.complaints.iter().map(|(complaint, count)| format!("{count} times {complaint}"));
                facts.push(("invalid".to_owned(), complaints.collect::<Vec<_>>().join("; ")));
            }
        }
        if self.arguments.source.is_some() {
            facts.push(("source addresses".to_owned(), "several, used in turn".to_owned()));
        }
        facts
    }
}

/// Parses the thresholds of the plan and of the command line, before anything is started.
///
/// # Errors
///
/// A metric, message or journey that does not exist, or one that the plan never counts.
pub fn thresholds(
    texts: &[String],
    plan: &Plan,
    script: &Script,
    sources: &mut Sources,
) -> Result<Vec<Threshold>, CliError> {
    let on_command_line = texts.iter().map(|text| {
        let span = Span::new(sources.add("--threshold", text.clone()), 0..text.len());
        plan::Threshold { text: text.clone(), span, abort_after: None }
    });
    let written: Vec<plan::Threshold> = plan.thresholds.iter().cloned().chain(on_command_line).collect();
    let layout = MetricRegistry::new(script.names());
    threshold::read_all(&written, plan.ordered, &layout).map_err(|found| CliError::from_diagnostics(&found, sources))
}
