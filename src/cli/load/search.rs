//! `--find-max`: runs the plan repeatedly at different rates.

use super::super::hub::StartedHubs;
use super::super::{CliError, exit, print_to_stdout};
use super::run::{LoadAttempt, LoadSession};
use crate::cli::report_sink::ReportSinks;
use crate::load::engine::RunEnd;
use crate::load::max_rate::{RateSearch, RateTrial};
use crate::load::metrics::MetricRegistry;
use crate::load::plan::threshold::{self, MetricThreshold, ThresholdOutcome};
use crate::load::plan::{self, Plan, PlanOverrides, PlanScript};
use crate::load::report::LoadReport;
use crate::syntax::source::{Sources, Span};

/// The goal of a search.
pub struct SearchGoal {
    /// The highest rate of the plan, at which the search begins.
    first: f64,
    threshold: MetricThreshold,
}

/// Parses the argument of `--find-max`, before anything is started.
///
/// # Errors
///
/// It is not a threshold, or the plan has no rate.
pub fn parse_goal(text: &str, plan: &Plan, script: &PlanScript, sources: &mut Sources) -> Result<SearchGoal, CliError> {
    let Some(first) = highest_rate(plan) else {
        return Err(CliError::usage(
            format!("{} has no arrivals, so there is no rate to search for", plan.id),
            "each client starts its next journey when the last one finishes",
        ));
    };
    let span = Span::new(sources.add("--find-max", text.to_owned()), 0..text.len());
    let written = plan::ThresholdText { text: text.to_owned(), span, abort_after: None };
    let read =
        threshold::parse_plan_thresholds(&[written], plan.ordered, &MetricRegistry::new(script.metric_subjects()));
    let mut read = read.map_err(|found| CliError::from_diagnostics(&found, sources))?;
    Ok(SearchGoal { first, threshold: read.remove(0) })
}

/// Searches for the highest rate, prints the search, and reports the best run. Returns the exit code.
///
/// # Errors
///
/// Mistakes that the user has to correct.
pub async fn find_max_rate(
    mut session: LoadSession<'_>,
    goal: &SearchGoal,
    started: &mut StartedHubs,
    sources: &mut Sources,
    sinks: &ReportSinks<LoadReport>,
) -> Result<u8, CliError> {
    let text = &goal.threshold.text;
    // Only roles with arrivals have an offered load.
    let roles = session.plan.roles.iter().zip(&session.script.parts).filter(|(role, _)| role.arrivals.is_some());
    let scheduled: Vec<&str> = roles.map(|(_, part)| part.journey_name.as_str()).collect();
    let mut search = RateSearch::new(goal.first);
    let mut best: Option<Box<LoadReport>> = None;
    let (mut violated, mut interrupted) = (false, false);
    while let Some(rate) = search.next_rate() {
        let plan = session.plan.clone().with_overrides(&PlanOverrides { rate: Some(rate), ..PlanOverrides::default() });
        let plan = plan?;
        let tell = |text: String| {
            if !session.arguments.quiet {
                eprintln!("{text}");
            }
        };
        tell(format!("trying {rate:.1}/s"));
        let LoadAttempt::Report(report, ending) = session.run_plan(&plan, started, sources, false).await? else {
            return Ok(super::NOT_STARTED);
        };
        if ending == RunEnd::NotJoined {
            return session.finish(&report, sources, sinks).await;
        }
        if report.about.interrupted {
            interrupted = true;
            tell("the search was interrupted".to_owned());
            break;
        }
        violated |= report.thresholds.iter().any(ThresholdOutcome::is_violated);
        let done = RateTrial::of(rate, &goal.threshold, &report, &plan, &scheduled);
        tell(format!("  {} ({})", done.failed.as_deref().unwrap_or("sustained"), done.observed));
        let sustained = done.failed.is_none();
        search.tries.push(done);
        if sustained && search.highest_sustained().is_some_and(|found| found.rate == rate) {
            best = Some(report);
        }
    }
    let Some(mut best) = best else {
        print_to_stdout(&search.summary(text));
        return Ok(if violated { exit::FAILED } else { exit::INCONCLUSIVE });
    };
    best.about.interrupted = interrupted;
    best.about.facts.push(("search".to_owned(), search.summary(text)));
    session.finish(&best, sources, sinks).await
}

/// Returns the highest rate of a plan.
fn highest_rate(plan: &Plan) -> Option<f64> {
    let stages = plan.roles.iter().filter_map(|role| role.arrivals.as_ref()).flat_map(|arrivals| &arrivals.stages);
    stages.map(|stage| stage.from.max(stage.to)).reduce(f64::max).filter(|rate| *rate > 0.0)
}
