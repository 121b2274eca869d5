//! `--report FORMAT=PATH`, with a table of formats for each kind of report. Paths are checked before the run and
//! written after it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use super::{CliError, print_to_stdout};
use crate::load::report::{self as load, LoadReport};
use crate::report::terminal_page::Style;
use crate::report::{RunReport, json, junit, terminal};
use crate::syntax::diagnostic::suggest;
use crate::syntax::source::Sources;

/// A format of reports of type `R`.
pub struct ReportFormat<R> {
    /// The name of the format, before the `=` in `--report`.
    name: &'static str,
    /// An example path, for help texts.
    example: &'static str,
    render: fn(&R, &Sources) -> String,
}

/// The report formats of `check` and `fuzz`.
pub const RUN_FORMATS: &[ReportFormat<RunReport>] = &[
    ReportFormat { name: "json", example: "report.json", render: json::render },
    ReportFormat { name: "junit", example: "-", render: junit::render },
];

/// The report formats of `load`.
pub const LOAD_FORMATS: &[ReportFormat<LoadReport>] = &[
    ReportFormat { name: "json", example: "report.json", render: |report, _| load::json::render(report) },
    ReportFormat { name: "junit", example: "-", render: |report, _| load::junit::render(report) },
    ReportFormat { name: "csv", example: "intervals.csv", render: |report, _| load::csv::render(report) },
    ReportFormat { name: "hlog", example: "report.hlog", render: |report, _| load::hlog::render(report) },
];

/// The destinations of a run's reports.
pub struct ReportSinks<R: 'static>(Vec<(&'static ReportFormat<R>, ReportSink)>);

enum ReportSink {
    Stdout,
    File(PathBuf),
}

impl<R> ReportSinks<R> {
    /// Parses every `FORMAT=PATH`, and checks that each path can be written.
    ///
    /// # Errors
    ///
    /// An unknown format, a path that cannot be written, or two reports for stdout.
    pub fn parse(texts: &[String], formats: &'static [ReportFormat<R>]) -> Result<Self, CliError> {
        let help = list_formats("--report ", formats, |format| format.example);
        let mut sinks = Vec::new();
        for text in texts {
            let (name, path) = text
                .split_once('=')
                .ok_or_else(|| CliError::new(format!("`{text}` is not FORMAT=PATH\n  help: {help}")))?;
            let Some(format) = formats.iter().find(|format| format.name == name) else {
                let help = suggest(name, formats.iter().map(|format| format.name), &help);
                return Err(CliError::new(format!("there is no report format `{name}`\n  help: {help}")));
            };
            if path == "-" {
                sinks.push((format, ReportSink::Stdout));
                continue;
            }
            let path = PathBuf::from(path);
            check_writable(&path)
                .map_err(|error| CliError::new(format!("a report cannot be written to {}: {error}", path.display())))?;
            sinks.push((format, ReportSink::File(path)));
        }
        let sinks = Self(sinks);
        if sinks.stdout_sinks().count() > 1 {
            return Err(CliError::new("only one report can go to stdout"));
        }
        Ok(sinks)
    }

    fn stdout_sinks(&self) -> impl Iterator<Item = &ReportSink> {
        self.0.iter().map(|(_, sink)| sink).filter(|sink| matches!(sink, ReportSink::Stdout))
    }

    /// Prints the page, and writes all reports. The page goes to stderr if a report goes to stdout.
    fn print_and_write(&self, report: &R, sources: &Sources, page: impl Fn(bool) -> String) -> Result<(), CliError> {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if self.stdout_sinks().next().is_some() {
            let _ = std::io::stderr().write_all(page(!plain && std::io::stderr().is_terminal()).as_bytes());
        } else {
            print_to_stdout(&page(!plain && std::io::stdout().is_terminal()));
        }
        for (format, sink) in &self.0 {
            let text = (format.render)(report, sources);
            match sink {
                ReportSink::Stdout => print_to_stdout(&text),
                ReportSink::File(path) => std::fs::write(path, text)
                    .map_err(|error| CliError::new(format!("failed to write {}: {error}", path.display())))?,
            }
        }
        Ok(())
    }
}

impl ReportSinks<RunReport> {
    /// Prints the page of a run and writes its reports.
    ///
    /// # Errors
    ///
    /// A file could not be written.
    pub fn write(&self, report: &RunReport, sources: &Sources, verbose: bool) -> Result<(), CliError> {
        self.print_and_write(report, sources, |color| {
            terminal::summary(report, sources, Style { color, verbose, ..Style::default() })
        })
    }
}

impl ReportSinks<LoadReport> {
    /// Prints the page of a load run and writes its reports.
    ///
    /// # Errors
    ///
    /// A file could not be written.
    pub fn write(&self, report: &LoadReport, sources: &Sources) -> Result<(), CliError> {
        self.print_and_write(report, sources, |color| {
            load::terminal::summary(report, sources, Style { color, ..Style::default() })
        })
    }
}

/// Returns the help text of `--report`.
pub fn report_help<R>(formats: &[ReportFormat<R>]) -> String {
    list_formats("Write a report: ", formats, |_| "PATH") + "; - is stdout"
}

/// Lists `FORMAT=PATH` for every format: "json=report.json or junit=-".
fn list_formats<R>(before: &str, formats: &[ReportFormat<R>], path: fn(&ReportFormat<R>) -> &str) -> String {
    let mut text = before.to_owned();
    for (index, format) in formats.iter().enumerate() {
        let between = if index == 0 {
            ""
        } else if index + 1 == formats.len() {
            " or "
        } else {
            ", "
        };
        let _ = write!(text, "{between}{}={}", format.name, path(format));
    }
    text
}

/// Checks that a file can be written, without changing it.
pub fn check_writable(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return std::fs::OpenOptions::new().append(true).open(path).map(drop);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(folder).map(drop)
}
