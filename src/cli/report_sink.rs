//! `--report`: where a report goes, found out before the run; and all of them, written after it.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::{CliError, print};
use crate::report::{RunReport, json, junit, terminal};
use crate::syntax::diagnostic::suggest;
use crate::syntax::source::Sources;

/// Where a report goes.
pub enum Sink {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy)]
pub enum Format {
    Json,
    Junit,
}

/// Reads `FORMAT=PATH`, and sees to it that each can be written.
///
/// # Errors
///
/// What is wrong with one of them.
pub fn sinks(texts: &[String]) -> Result<Vec<(Format, Sink)>, CliError> {
    let mut sinks = Vec::new();
    for text in texts {
        let help = "--report json=report.json or --report junit=-";
        let (format, path) = text
            .split_once('=')
            .ok_or_else(|| CliError::new(format!("`{text}` is not FORMAT=PATH\n  help: {help}")))?;
        let format = match format {
            "json" => Format::Json,
            "junit" => Format::Junit,
            other => {
                return Err(CliError::new(format!(
                    "there is no report format `{other}`\n  help: {}",
                    suggest(other, ["json", "junit"], help)
                )));
            }
        };
        let sink = if path == "-" { Sink::Stdout } else { Sink::File(PathBuf::from(path)) };
        if let Sink::File(path) = &sink {
            // Found now rather than after the run.
            writable(path)
                .map_err(|error| CliError::new(format!("a report cannot be written to {}: {error}", path.display())))?;
        }
        sinks.push((format, sink));
    }
    if sinks.iter().filter(|(_, sink)| matches!(sink, Sink::Stdout)).count() > 1 {
        return Err(CliError::new("only one report can go to stdout"));
    }
    Ok(sinks)
}

/// Whether the file could be written, without touching it.
pub fn writable(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return std::fs::OpenOptions::new().append(true).open(path).map(drop);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(folder).map(drop)
}

/// Prints the summary and writes all reports.
///
/// # Errors
///
/// A file could not be written.
pub fn write_out(
    report: &RunReport,
    sources: &Sources,
    sinks: &[(Format, Sink)],
    verbose: bool,
) -> Result<(), CliError> {
    let to_stdout = sinks.iter().any(|(_, sink)| matches!(sink, Sink::Stdout));
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = !plain && if to_stdout { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
    let style = terminal::Style { color, verbose, ..terminal::Style::default() };
    let summary = terminal::summary(report, sources, style);
    if to_stdout {
        let _ = std::io::stderr().write_all(summary.as_bytes());
    } else {
        print(&summary);
    }
    for (format, sink) in sinks {
        let text = match format {
            Format::Json => json::render(report, sources),
            Format::Junit => junit::render(report, sources),
        };
        match sink {
            Sink::Stdout => print(&text),
            Sink::File(path) => std::fs::write(path, text.as_bytes())
                .map_err(|error| CliError::new(format!("failed to write {}: {error}", path.display())))?,
        }
    }
    Ok(())
}
