//! `hubproof merge`: makes one report of the shares of a load run.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use super::report_sink::{self, ReportSinks};
use crate::load::metrics::MetricRegistry;
use crate::load::plan::ThresholdText;
use crate::load::plan::threshold::{MetricThreshold, parse_plan_thresholds};
use crate::load::report::LoadReport;
use crate::load::shares::merge::{MergeError, RunShares, find_files};
use crate::syntax::source::{Sources, Span};

/// Make one report of a load run that several generators shared
#[derive(Args)]
pub struct MergeArgs {
    /// Folder with the files that `load --share` has written, or the files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[arg(long = "report", value_name = "FORMAT=PATH", help = report_sink::report_help(report_sink::LOAD_FORMATS))]
    reports: Vec<String>,
    /// Open the page of `--report html=PATH` in the browser
    #[arg(long)]
    open: bool,
    /// Print only errors and the verdict line
    #[arg(short, long)]
    quiet: bool,
}

pub fn run_merge(arguments: &MergeArgs) -> Result<u8, CliError> {
    let sinks = ReportSinks::parse(&arguments.reports, report_sink::LOAD_FORMATS)?
        .with_quiet(arguments.quiet)
        .with_open(arguments.open)?;
    write_merged(&arguments.paths, &sinks)
}

/// Merges the shares in these files and folders, and writes the report. Returns the exit code.
///
/// # Errors
/// The files are not the shares of one run, or a report could not be written.
pub fn write_merged(paths: &[PathBuf], sinks: &ReportSinks<LoadReport>) -> Result<u8, CliError> {
    let refuse = |error: MergeError| {
        let help = error.help();
        CliError::usage(error.to_string(), help)
    };
    let mut files = Vec::new();
    for path in paths {
        files.extend(find_files(path).map_err(refuse)?);
    }
    let shares = RunShares::read(&files).map_err(refuse)?;
    let mut sources = Sources::default();
    let thresholds = parse_thresholds(&shares, &mut sources)?;
    let report = shares.merge(thresholds).map_err(refuse)?;
    let _log = sinks.start_events()?;
    sinks.write(&report, &sources)?;
    Ok(report.exit_code())
}

/// Parses the thresholds that the shares were given.
fn parse_thresholds(shares: &RunShares, sources: &mut Sources) -> Result<Vec<MetricThreshold>, CliError> {
    let common = shares.common();
    let texts = common.thresholds.iter().map(|text| {
        let span = Span::new(sources.add("--threshold", text.clone()), 0..text.len());
        ThresholdText { text: text.clone(), span, abort_after: None }
    });
    let texts: Vec<ThresholdText> = texts.collect();
    let layout: MetricRegistry = common.layout(&[]);
    parse_plan_thresholds(&texts, common.ordered, &layout).map_err(|found| CliError::from_diagnostics(&found, sources))
}
