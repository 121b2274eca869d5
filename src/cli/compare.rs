//! `hubproof compare`: compares two load reports.

use std::path::{Path, PathBuf};

use clap::Args;

use super::CliError;
use super::error::BoxedError;
use super::report_sink::{COMPARE_FORMATS, ComparedRuns, ReportSinks, report_help};
use crate::load::compare::{CompareOptions, compare, exit_code, render};
use crate::load::report::json;
use crate::report::document::load::LoadDocument;
use crate::report::html::NamedReport;
use crate::transport::files::read_text;

/// Compare two runs of `hubproof load`, metric by metric
#[derive(Args)]
pub struct CompareArgs {
    /// Report of the earlier run, written with `--report json=FILE`
    a: PathBuf,
    /// Report of the later run
    b: PathBuf,
    /// Exit with code 1 if a metric is significantly worse, by more than this percentage, such as 5%
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    fail_on_regression: Option<f64>,
    #[arg(long, value_name = "FORMAT=PATH", help = report_help(COMPARE_FORMATS))]
    report: Vec<String>,
    /// Open the page of `--report html=PATH` in the browser
    #[arg(long)]
    open: bool,
    /// Seed of the bootstrap that computes the confidence intervals
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The largest report, in bytes, that is read. A day of one-second intervals with a dozen messages is far smaller.
const MAX_BYTES: usize = 128 << 20;

pub fn run_compare(arguments: CompareArgs) -> Result<u8, CliError> {
    let sinks = ReportSinks::parse(&arguments.report, COMPARE_FORMATS)?.with_open(arguments.open)?;
    let ((a, a_text), (b, b_text)) = (read_report(&arguments.a)?, read_report(&arguments.b)?);
    let options = CompareOptions { seed: arguments.seed, fail_on_regression: arguments.fail_on_regression };
    let comparison = compare(&a, &b, options)?;
    let named = |path: &Path, text| NamedReport { name: path.display().to_string(), text };
    let reports = [named(&arguments.a, a_text), named(&arguments.b, b_text)];
    sinks.write(&ComparedRuns { reports, options }, &render(&comparison))?;
    Ok(exit_code(&comparison, [&a, &b]))
}

/// Reads a load report; returns also its text.
fn read_report(path: &Path) -> Result<(LoadDocument, String), CliError> {
    let shown = path.display();
    let failed = |reason: BoxedError| {
        let help = format!("`hubproof load ... --report json={shown}` writes a load report");
        CliError::failed_with_help(format!("failed to read {shown}"), reason, help)
    };
    let text = read_text(path, MAX_BYTES).map_err(|error| failed(error.into()))?;
    let document = json::parse_load_report(&text).map_err(|error| failed(error.into()))?;
    Ok((document, text))
}

/// Parses `5%` as 0.05. A bare number is rejected, since it could be a share or a percentage.
fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    match number {
        Some(percent) if (0.0..=1_000.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write a percentage, such as 5%".to_owned()),
    }
}
