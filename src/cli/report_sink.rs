//! `--report FORMAT=PATH`, with a table of formats for each kind of report. Paths are checked before the run and
//! written after it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use super::{CliError, print};
use crate::load::report::{self as load, LoadReport};
use crate::report::terminal_page::Style;
use crate::report::{RunReport, json, junit, terminal};
use crate::syntax::diagnostic::suggest;
use crate::syntax::source::Sources;

/// A format of reports of type `R`.
pub struct Format<R> {
    /// The name of the format, before the `=` in `--report`.
    name: &'static str,
    /// An example path, for help texts.
    example: &'static str,
    render: fn(&R, &Sources) -> String,
}

/// The report formats of `check` and `fuzz`.
pub const RUN: &[Format<RunReport>] = &[
    Format { name: "json", example: "report.json", render: json::render },
    Format { name: "junit", example: "-", render: junit::render },
];

/// The report formats of `load`.
pub const LOAD: &[Format<LoadReport>] = &[
    Format { name: "json", example: "report.json", render: |report, _| load::json::render(report) },
    Format { name: "junit", example: "-", render: |report, _| load::junit::render(report) },
    Format { name: "csv", example: "intervals.csv", render: |report, _| load::csv::render(report) },
    Format { name: "hlog", example: "report.hlog", render: |report, _| load::hlog::render(report) },
];

/// The destinations of a run's reports.
pub struct Sinks<R: 'static>(Vec<(&'static Format<R>, Sink)>);

enum Sink {
    Stdout,
    File(PathBuf),
}

impl<R> Sinks<R> {
    /// Parses every `FORMAT=PATH`, and checks that each path can be written.
    ///
    /// # Errors
    ///
    /// An unknown format, a path that cannot be written, or two reports for stdout.
    pub fn parse(texts: &[String], formats: &'static [Format<R>]) -> Result<Self, CliError> {
        let help = listed("--report ", formats, |format| format.example);
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
                sinks.push((format, Sink::Stdout));
                continue;
            }
            let path = PathBuf::from(path);
            writable(&path)
                .map_err(|error| CliError::new(format!("a report cannot be written to {}: {error}", path.display())))?;
            sinks.push((format, Sink::File(path)));
        }
        let sinks = Self(sinks);
        if sinks.on_stdout().count() > 1 {
            return Err(CliError::new("only one report can go to stdout"));
        }
        Ok(sinks)
    }

    fn on_stdout(&self) -> impl Iterator<Item = &Sink> {
        self.0.iter().map(|(_, sink)| sink).filter(|sink| matches!(sink, Sink::Stdout))
    }

    /// Prints the page, and writes all reports. The page goes to stderr if a report goes to stdout.
    fn write_after(&self, report: &R, sources: &Sources, page: impl Fn(bool) -> String) -> Result<(), CliError> {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if self.on_stdout().next().is_some() {
            let _ = std::io::stderr().write_all(page(!plain && std::io::stderr().is_terminal()).as_bytes());
        } else {
            print(&page(!plain && std::io::stdout().is_terminal()));
        }
        for (format, sink) in &self.0 {
            let text = (format.render)(report, sources);
            match sink {
                Sink::Stdout => print(&text),
                Sink::File(path) => std::fs::write(path, text)
                    .map_err(|error| CliError::new(format!("failed to write {}: {error}", path.display())))?,
            }
        }
        Ok(())
    }
}

impl Sinks<RunReport> {
    /// Prints the page of a run and writes its reports.
    ///
    /// # Errors
    ///
    /// A file could not be written.
    pub fn write(&self, report: &RunReport, sources: &Sources, verbose: bool) -> Result<(), CliError> {
        self.write_after(report, sources, |color| {
            terminal::summary(report, sources, Style { color, verbose, ..Style::default() })
        })
    }
}

impl Sinks<LoadReport> {
    /// Prints the page of a load run and writes its reports.
    ///
    /// # Errors
    ///
    /// A file could not be written.
    pub fn write(&self, report: &LoadReport, sources: &Sources) -> Result<(), CliError> {
        self.write_after(report, sources, |color| {
            load::terminal::summary(report, sources, Style { color, ..Style::default() })
        })
    }
}

/// Returns the help text of `--report`.
pub fn help<R>(formats: &[Format<R>]) -> String {
    listed("Write a report: ", formats, |_| "PATH") + "; - is stdout"
}

/// Lists `FORMAT=PATH` for every format: "json=report.json or junit=-".
fn listed<R>(before: &str, formats: &[Format<R>], path: fn(&Format<R>) -> &str) -> String {
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
pub fn writable(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return std::fs::OpenOptions::new().append(true).open(path).map(drop);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(folder).map(drop)
}
