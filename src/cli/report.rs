//! `hubproof report`: renders JSON reports as a page.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};

use super::error::BoxedError;
use super::report_sink::check_writable;
use super::{CliError, print_document, print_to_stdout};
use crate::load::compare::{CompareOptions, compare};
use crate::report::html::{self, NamedReport};
use crate::transport::files::read_text;

/// Render JSON reports as a page for people
#[derive(Args)]
pub struct ReportArgs {
    /// JSON reports from `--report json=FILE`: any number from `check` or from `fuzz`, one from `load`, or two from
    /// `load` to compare
    #[arg(required = true, value_name = "RUN.json")]
    reports: Vec<PathBuf>,
    /// Format to render
    #[arg(long, value_enum, default_value = "html")]
    format: PageFormat,
    /// File to write; - is stdout [default: the first report, with the extension .html]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Open the page in the browser
    #[arg(long)]
    open: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PageFormat {
    Html,
}

/// The largest report, in bytes, that is read.
const MAX_BYTES: usize = 128 << 20;

pub fn run_report(arguments: ReportArgs) -> Result<u8, CliError> {
    let PageFormat::Html = arguments.format;
    let output = arguments.output.unwrap_or_else(|| arguments.reports[0].with_extension("html"));
    let to_stdout = output == Path::new("-");
    if to_stdout && arguments.open {
        return Err(CliError::new("`--open` needs a file: pass `--output FILE`"));
    }
    if !to_stdout {
        let shown = output.display();
        check_writable(&output).map_err(|error| CliError::failed(format!("{shown} cannot be written"), error))?;
        if arguments.reports.contains(&output) {
            return Err(CliError::new(format!(
                "{shown} is a report, which the page would overwrite: pass `--output FILE`"
            )));
        }
    }
    let reports: Vec<NamedReport> = arguments.reports.iter().map(|path| read_report(path)).collect::<Result<_, _>>()?;
    let page = render_reports(&reports, CompareOptions { seed: 1, fail_on_regression: None })?;
    if to_stdout {
        print_document(&page);
        return Ok(0);
    }
    std::fs::write(&output, page)
        .map_err(|error| CliError::failed(format!("failed to write {}", output.display()), error))?;
    print_to_stdout(&format!("{}\n", output.display()));
    if arguments.open {
        open_page(&output)?;
    }
    Ok(0)
}

/// Renders a page from reports. Two load reports are compared with `options`.
pub fn render_reports(reports: &[NamedReport], options: CompareOptions) -> Result<String, CliError> {
    let comparison = |a: &_, b: &_| compare(a, b, options).map_err(|error| error.to_string());
    Ok(html::render(reports, comparison)?)
}

/// Reads a report. Its name on the page is that of the file.
pub fn read_report(path: &Path) -> Result<NamedReport, CliError> {
    let shown = path.display();
    let failed = |reason: BoxedError| {
        let help = format!("`hubproof check ... --report json={shown}` writes a report");
        CliError::failed_with_help(format!("failed to read {shown}"), reason, help)
    };
    let text = read_text(path, MAX_BYTES).map_err(|error| failed(error.into()))?;
    let name = path.file_stem().map_or_else(|| shown.to_string(), |stem| stem.to_string_lossy().into_owned());
    Ok(NamedReport { name, text })
}

/// Opens a file with the program that the platform uses for it, and does not wait for that program.
pub fn open_page(path: &Path) -> Result<(), CliError> {
    let (program, before): (&str, &[&str]) = match std::env::consts::OS {
        "macos" => ("open", &[]),
        "windows" => ("cmd", &["/C", "start", ""]),
        _ => ("xdg-open", &[]),
    };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let quiet = || Stdio::null();
    let opened = Command::new(program).args(before).arg(&path).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
    opened.map(drop).map_err(|error| {
        let help = format!("open {} in a browser; the page is complete", path.display());
        CliError::failed_with_help(format!("failed to run `{program}`"), error, help)
    })
}
