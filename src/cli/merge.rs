//! `hubproof merge`: makes one report of the shares of a load run.

use std::path::{Path, PathBuf};

use clap::Args;

use super::CliError;
use super::report::read_report;
use super::report_sink::{self, ReportSinks};
use crate::load::metrics::MetricRegistry;
use crate::load::plan::ThresholdText;
use crate::load::plan::threshold::{MetricThreshold, parse_plan_thresholds};
use crate::load::report::LoadReport;
use crate::load::shares::merge::{MergeError, RunShares, find_files};
use crate::load::shares::record::CommonFacts;
use crate::report::html::{self, NamedReport};
use crate::report::joined::join;
use crate::syntax::source::{Sources, Span};

/// Make one report of the shares of a run (`--share 3/16`)
#[derive(Args)]
pub struct MergeArgs {
    /// Folder with the files that `load --share` has written, or the files; a NATS server and the name of a run; or JSON
    /// reports of `check --share` or `fuzz --share`
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[cfg(feature = "nats")]
    #[command(flatten)]
    credentials: super::load::over::NatsCredentials,
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
    if let Some(paths) = find_run_reports(&arguments.paths) {
        return join_run_reports(&paths, arguments);
    }
    let sinks = ReportSinks::parse(&arguments.reports, report_sink::LOAD_FORMATS)?
        .with_quiet(arguments.quiet)
        .with_open(arguments.open)?;
    #[cfg(feature = "nats")]
    if let Some(address) = arguments.paths[0].to_str().filter(|path| path.contains("://")) {
        let folder = fetch_files(address, arguments)?;
        return write_merged(&[folder.path().to_owned()], &sinks);
    }
    write_merged(&arguments.paths, &sinks)
}

/// Returns the JSON reports among these files and in these folders; `None` if there is a file of another kind.
fn find_run_reports(paths: &[PathBuf]) -> Option<Vec<PathBuf>> {
    let is_json = |path: &Path| path.extension().is_some_and(|extension| extension == "json");
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(Some(path.clone()).filter(|path| is_json(path))?);
            continue;
        }
        if find_files(path).is_ok() {
            return None;
        }
        found.extend(
            std::fs::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path())).filter(|one| is_json(one)),
        );
    }
    found.sort();
    (!found.is_empty()).then_some(found)
}

/// Joins the JSON reports of all shares of a run of `check` or `fuzz`. Returns the exit code.
fn join_run_reports(paths: &[PathBuf], arguments: &MergeArgs) -> Result<u8, CliError> {
    let sinks = ReportSinks::parse(&arguments.reports, report_sink::JOINED_FORMATS)?
        .with_quiet(arguments.quiet)
        .with_open(arguments.open)?;
    let mut documents = Vec::new();
    for path in paths {
        let NamedReport { name, text } = read_report(path)?;
        let document = html::read_run(&text).map_err(|reason| {
            CliError::usage(format!("{}: {reason}", path.display()), "name the JSON reports of all shares of one run")
        })?;
        documents.push((name, document));
    }
    let joined = join(documents).map_err(|error| CliError::usage(error.to_string(), error.help()))?;
    sinks.write(&joined)?;
    Ok(joined.run.exit_code)
}

/// Copies the files of a run from a NATS server to a folder, which is deleted when it is dropped.
#[cfg(feature = "nats")]
fn fetch_files(address: &str, arguments: &MergeArgs) -> Result<tempfile::TempDir, CliError> {
    use super::load::over::refuse;
    use crate::load::shares::name::RunName;

    let help = "write the server and the name of the run: hubproof merge nats://HOST NAME";
    let name = match &arguments.paths[1..] {
        [name] => name.to_str().unwrap_or_default(),
        _ => return Err(CliError::usage("a NATS server keeps the files of several runs", help)),
    };
    let run: RunName = name.parse().map_err(|error| CliError::usage(error, help))?;
    let folder = tempfile::tempdir();
    let folder = folder.map_err(|error| CliError::failed("failed to create a folder for the shares", error))?;
    super::build_runtime()?.block_on(async {
        let server = arguments.credentials.connect(address).await?;
        server.fetch(&run, folder.path()).await.map_err(refuse)
    })?;
    Ok(folder)
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
    let thresholds = parse_thresholds(shares.common(), &mut sources)?;
    let report = shares.merge(thresholds).map_err(refuse)?;
    let _log = sinks.start_events()?;
    sinks.write(&report, &sources)?;
    Ok(report.exit_code())
}

/// Parses the thresholds that the shares were given.
///
/// # Errors
/// There is no such metric.
pub fn parse_thresholds(common: &CommonFacts, sources: &mut Sources) -> Result<Vec<MetricThreshold>, CliError> {
    let texts = common.thresholds.iter().map(|text| {
        let span = Span::new(sources.add("--threshold", text.clone()), 0..text.len());
        ThresholdText { text: text.clone(), span, abort_after: None }
    });
    let texts: Vec<ThresholdText> = texts.collect();
    let layout: MetricRegistry = common.layout(&[]);
    parse_plan_thresholds(&texts, common.ordered, &layout).map_err(|found| CliError::from_diagnostics(&found, sources))
}
