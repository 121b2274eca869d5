//! `--report` of a load run: formats of its own.

use std::io::Write as _;
use std::path::PathBuf;

use super::super::{CliError, print, report_sink};
use crate::load::report::{LoadReport, csv, hlog, json, junit, terminal};
use crate::syntax::diagnostic::suggest;

pub use super::super::report_sink::Sink;

#[derive(Clone, Copy)]
pub enum Format {
    Json,
    Junit,
    Csv,
    Hlog,
}

const FORMATS: [(&str, Format); 4] =
    [("json", Format::Json), ("junit", Format::Junit), ("csv", Format::Csv), ("hlog", Format::Hlog)];

/// Reads `FORMAT=PATH`, and sees to it that each can be written.
///
/// # Errors
///
/// What is wrong with one of them.
pub fn sinks(texts: &[String]) -> Result<Vec<(Format, Sink)>, CliError> {
    let help = "--report json=report.json, junit=-, csv=intervals.csv or hlog=report.hlog";
    let mut sinks = Vec::new();
    for text in texts {
        let (name, path) = text
            .split_once('=')
            .ok_or_else(|| CliError::new(format!("`{text}` is not FORMAT=PATH\n  help: {help}")))?;
        let Some((_, format)) = FORMATS.iter().find(|(known, _)| *known == name) else {
            return Err(CliError::new(format!(
                "there is no report format `{name}`\n  help: {}",
                suggest(name, FORMATS.map(|(name, _)| name), help)
            )));
        };
        let sink = if path == "-" { Sink::Stdout } else { Sink::File(PathBuf::from(path)) };
        if let Sink::File(path) = &sink {
            report_sink::writable(path)
                .map_err(|error| CliError::new(format!("a report cannot be written to {}: {error}", path.display())))?;
        }
        sinks.push((*format, sink));
    }
    if sinks.iter().filter(|(_, sink)| matches!(sink, Sink::Stdout)).count() > 1 {
        return Err(CliError::new("only one report can go to stdout"));
    }
    Ok(sinks)
}

/// Prints the summary and writes all reports.
///
/// # Errors
///
/// A file could not be written.
pub fn write_out(report: &LoadReport, sinks: &[(Format, Sink)]) -> Result<(), CliError> {
    let summary = terminal::summary(report);
    if sinks.iter().any(|(_, sink)| matches!(sink, Sink::Stdout)) {
        let _ = std::io::stderr().write_all(summary.as_bytes());
    } else {
        print(&summary);
    }
    for (format, sink) in sinks {
        let text = match format {
            Format::Json => json::render(report),
            Format::Junit => junit::render(report),
            Format::Csv => csv::render(report),
            Format::Hlog => hlog::render(report),
        };
        match sink {
            Sink::Stdout => print(&text),
            Sink::File(path) => std::fs::write(path, text.as_bytes())
                .map_err(|error| CliError::new(format!("failed to write {}: {error}", path.display())))?,
        }
    }
    Ok(())
}
