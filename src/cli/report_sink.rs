//! `--report FORMAT=PATH`, with a table of formats for each kind of report. Paths are checked before the run and
//! written after it; the format `events` is written during the run.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use parking_lot::Mutex;

use super::report::{open_page, render_reports};
use super::{CliError, page_style, print_document, print_to_stderr, print_to_stdout};
use crate::load::compare::CompareOptions;
use crate::load::report::{self as load, LoadReport};
use crate::observe::report::ObservedRun;
use crate::outcome::Verdict;
use crate::report::document::check::{Protocol, RunDocument};
use crate::report::html::{self, NamedReport};
use crate::report::terminal_page::Style;
use crate::report::test_results::TestResults;
use crate::report::{RunReport, badge, ctrf, events, github, json, junit, markdown, sarif, tap, terminal};
use crate::syntax::diagnostic::suggest;
use crate::syntax::source::Sources;

/// Renders a report of type `R`.
type ReportRenderer<R> = fn(&R, &Sources) -> Result<String, CliError>;

/// A format of reports of type `R`.
pub struct ReportFormat<R> {
    /// The name of the format, before the `=` in `--report`.
    name: &'static str,
    /// An example path, for help texts.
    example: &'static str,
    render: ReportRenderer<R>,
    writing: ReportWriting,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReportWriting {
    /// After the run.
    AtEnd,
    /// After the run, with paths relative to the root of the repository, as code hosts expect.
    InRepository,
    /// Line by line during the run. `render` returns the last line.
    Live,
}

/// Returns a format that is written after the run.
const fn at_end<R>(name: &'static str, example: &'static str, render: ReportRenderer<R>) -> ReportFormat<R> {
    ReportFormat { name, example, render, writing: ReportWriting::AtEnd }
}

impl<R> ReportFormat<R> {
    const fn in_repository(self) -> Self {
        Self { writing: ReportWriting::InRepository, ..self }
    }

    const fn live(self) -> Self {
        Self { writing: ReportWriting::Live, ..self }
    }
}

/// The report formats of `check` and `fuzz`.
pub const RUN_FORMATS: &[ReportFormat<RunReport>] = &[
    at_end("json", "report.json", |report, sources| Ok(json::render(report, sources))),
    at_end("junit", "-", |report, sources| Ok(junit::render(&TestResults::from_run(report, sources)))),
    at_end("html", "report.html", |report, sources| render_page(&report.options.target, json::render(report, sources))),
    at_end("sarif", "report.sarif", |report, sources| Ok(sarif::render(report, sources))).in_repository(),
    at_end("github", "-", |report, sources| Ok(github::render(&TestResults::from_run(report, sources))))
        .in_repository(),
    at_end("markdown", "summary.md", |report, sources| Ok(markdown::render(report, sources))),
    at_end("tap", "-", |report, sources| Ok(tap::render(&TestResults::from_run(report, sources)))),
    at_end("ctrf", "ctrf.json", |report, sources| Ok(ctrf::render(&TestResults::from_run(report, sources))))
        .in_repository(),
    at_end("badge", "badge.json", |report, _| Ok(badge::render(report))),
    at_end("events", "events.jsonl", |report, _| Ok(events::render(report))).live(),
];

/// The report formats of `load`.
pub const LOAD_FORMATS: &[ReportFormat<LoadReport>] = &[
    at_end("json", "report.json", |report, _| Ok(load::json::render(report))),
    at_end("junit", "-", |report, sources| Ok(junit::render(&TestResults::from_load(report, sources)))),
    at_end("html", "report.html", |report, _| render_page(&report.about.target, load::json::render(report))),
    at_end("csv", "intervals.csv", |report, _| Ok(load::csv::render(report))),
    at_end("hlog", "report.hlog", |report, _| Ok(load::hlog::render(report))),
    at_end("github", "-", |report, sources| Ok(github::render(&TestResults::from_load(report, sources))))
        .in_repository(),
    at_end("markdown", "summary.md", |report, sources| Ok(load::markdown::render(report, sources))),
    at_end("tap", "-", |report, sources| Ok(tap::render(&TestResults::from_load(report, sources)))),
    at_end("ctrf", "ctrf.json", |report, sources| Ok(ctrf::render(&TestResults::from_load(report, sources))))
        .in_repository(),
    at_end("badge", "badge.json", |report, _| Ok(load::badge::render(report))),
    at_end("events", "events.jsonl", |report, _| Ok(load::events::render(report))).live(),
    at_end("otlp", "metrics.json", |report, _| Ok(load::otlp::render(report))),
    at_end("influx", "metrics.line", |report, _| Ok(load::influx::render(report))),
];

/// The report formats of `observe`.
pub const OBSERVE_FORMATS: &[ReportFormat<ObservedRun>] = &[
    at_end("junit", "-", |run: &ObservedRun, _| Ok(junit::render(&run.test_results()))),
    at_end("html", "report.html", |run: &ObservedRun, _| Ok(html::observed::page(&run.view(false))?)),
    at_end("github", "-", |run: &ObservedRun, _| Ok(github::render(&run.test_results()))),
    at_end("tap", "-", |run: &ObservedRun, _| Ok(tap::render(&run.test_results()))),
    at_end("ctrf", "ctrf.json", |run: &ObservedRun, _| Ok(ctrf::render(&run.test_results()))),
    at_end("events", "events.jsonl", |run: &ObservedRun, _| Ok(run.last_event())).live(),
];

/// The report formats of the joined shares of `check` or `fuzz`.
pub const JOINED_FORMATS: &[ReportFormat<RunDocument>] = &[
    at_end("json", "report.json", |report, _| Ok(json::render_document(report))),
    at_end("html", "report.html", |report, _| render_page(&report.run.target, json::render_document(report))),
];

/// Two load reports that `compare` has read.
pub struct ComparedRuns {
    pub reports: [NamedReport; 2],
    pub options: CompareOptions,
}

/// The report formats of `compare`.
pub const COMPARE_FORMATS: &[ReportFormat<ComparedRuns>] =
    &[at_end("html", "report.html", |runs, _| render_reports(&runs.reports, runs.options))];

/// The destinations of a run's reports.
pub struct ReportSinks<R: 'static> {
    sinks: Vec<(&'static ReportFormat<R>, ReportSink)>,
    events: EventLog,
    /// Whether to print only verdict lines instead of the page.
    quiet: bool,
    /// Whether to open the HTML page once it is written.
    open: bool,
}

enum ReportSink {
    Stdout,
    File(PathBuf),
}

/// The destinations of the lines that are written during a run.
#[derive(Clone, Default)]
pub struct EventLog(Arc<Mutex<Vec<EventSink>>>);

enum EventSink {
    Stdout,
    File(PathBuf, File),
    /// A file in which a line could not be written.
    Failed(CliError),
}

impl EventLog {
    /// Writes a line to every destination; `line` ends with a newline, and is made only if there is a destination.
    pub fn write(&self, line: impl FnOnce() -> String) {
        // Nothing panics while the lock is held.
        let mut sinks = self.0.lock();
        if sinks.is_empty() {
            return;
        }
        let line = line();
        for sink in sinks.iter_mut() {
            match sink {
                EventSink::Stdout => print_document(&line),
                // A file has no buffer, so a reader sees every line at once.
                EventSink::File(path, file) => {
                    if let Err(error) = file.write_all(line.as_bytes()) {
                        *sink = EventSink::Failed(write_error(path, error));
                    }
                }
                EventSink::Failed(_) => {}
            }
        }
    }
}

fn write_error(path: &Path, error: std::io::Error) -> CliError {
    CliError::failed(format!("failed to write {}", path.display()), error)
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
            let (name, path) =
                text.split_once('=').ok_or_else(|| CliError::usage(format!("`{text}` is not FORMAT=PATH"), &help))?;
            let Some(format) = formats.iter().find(|format| format.name == name) else {
                let help = suggest(name, formats.iter().map(|format| format.name), &help);
                return Err(CliError::usage(format!("there is no report format `{name}`"), help));
            };
            if path == "-" {
                sinks.push((format, ReportSink::Stdout));
                continue;
            }
            let path = PathBuf::from(path);
            check_writable(&path).map_err(|error| {
                CliError::failed(format!("a report cannot be written to {}", path.display()), error)
            })?;
            sinks.push((format, ReportSink::File(path)));
        }
        let sinks = Self { sinks, events: EventLog::default(), quiet: false, open: false };
        if sinks.stdout_sinks().count() > 1 {
            return Err(CliError::new("only one report can go to stdout"));
        }
        Ok(sinks)
    }

    /// Returns the same destinations, with `--quiet` or without.
    pub fn with_quiet(self, quiet: bool) -> Self {
        Self { quiet, ..self }
    }

    /// Whether a report goes to stdout.
    pub fn takes_stdout(&self) -> bool {
        self.stdout_sinks().next().is_some()
    }

    fn stdout_sinks(&self) -> impl Iterator<Item = &ReportSink> {
        self.sinks.iter().map(|(_, sink)| sink).filter(|sink| matches!(sink, ReportSink::Stdout))
    }

    /// Prints the page, and writes all reports. The page goes to stderr if a report goes to stdout.
    fn print_and_write(&self, report: &R, sources: &Sources, page: impl Fn(Style) -> String) -> Result<(), CliError> {
        if self.takes_stdout() {
            let text = page(page_style(true));
            print_to_stderr(text.trim_end_matches('\n'));
        } else {
            print_to_stdout(&page(page_style(false)));
        }
        // A report that cannot be written takes no other with it.
        let mut failures: Vec<CliError> = Vec::new();
        for (format, sink) in &self.sinks {
            let text = match format.writing {
                ReportWriting::AtEnd => (format.render)(report, sources),
                ReportWriting::InRepository => {
                    (format.render)(report, &sources.with_paths(|path| repository_path(Path::new(path))))
                }
                ReportWriting::Live => continue,
            };
            let written = text.and_then(|text| match sink {
                ReportSink::Stdout => {
                    print_document(&text);
                    Ok(())
                }
                ReportSink::File(path) => write_file(path, &text).map_err(|error| write_error(path, error)),
            });
            failures.extend(written.err());
        }
        if let Some(format) = self.live_formats().next() {
            match (format.render)(report, sources) {
                Ok(line) => self.events.write(|| line),
                Err(error) => failures.push(error),
            }
        }
        if self.open
            && let Some(path) = self.page_file()
            && let Err(error) = open_page(path)
        {
            // The page is written, and the result of the run counts.
            eprintln!("{}", error.render());
        }
        let mut sinks = self.events.0.lock();
        failures.extend(sinks.drain(..).filter_map(|sink| match sink {
            EventSink::Failed(error) => Some(error),
            EventSink::Stdout | EventSink::File(..) => None,
        }));
        CliError::from_all(failures).map_or(Ok(()), Err)
    }

    /// Returns the same destinations; if `open`, the page is opened in the browser once it is written.
    ///
    /// # Errors
    ///
    /// No page is written to a file.
    pub fn with_open(self, open: bool) -> Result<Self, CliError> {
        match open && self.page_file().is_none() {
            true => Err(CliError::new("`--open` needs a page to open: add `--report html=report.html`")),
            false => Ok(Self { open, ..self }),
        }
    }

    /// Returns the file of the HTML page.
    fn page_file(&self) -> Option<&Path> {
        self.sinks.iter().find_map(|(format, sink)| match sink {
            ReportSink::File(path) if format.name == "html" => Some(path.as_path()),
            _ => None,
        })
    }

    fn live_formats(&self) -> impl Iterator<Item = &'static ReportFormat<R>> {
        self.sinks.iter().map(|(format, _)| *format).filter(|format| format.writing == ReportWriting::Live)
    }

    /// Opens the reports that are written during the run.
    ///
    /// # Errors
    ///
    /// A file cannot be created.
    pub fn start_events(&self) -> Result<EventLog, CliError> {
        let mut sinks = self.events.0.lock();
        for (_, sink) in self.sinks.iter().filter(|(format, _)| format.writing == ReportWriting::Live) {
            sinks.push(match sink {
                ReportSink::Stdout => EventSink::Stdout,
                ReportSink::File(path) => {
                    EventSink::File(path.clone(), File::create(path).map_err(|error| write_error(path, error))?)
                }
            });
        }
        drop(sinks);
        Ok(self.events.clone())
    }
}

/// Writes a report. The job summary of GitHub Actions is appended to, since all commands of a step share the file.
fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    let is_summary = std::env::var_os("GITHUB_STEP_SUMMARY").is_some_and(|summary| Path::new(&summary) == path);
    let mut options = File::options();
    options.create(true).write(true).append(is_summary).truncate(!is_summary);
    options.open(path)?.write_all(text.as_bytes())
}

/// Returns the path of an existing file relative to the root of the repository: the folder that GitHub Actions names, or
/// else the working directory.
fn repository_path(path: &Path) -> Option<String> {
    let folder = std::env::current_dir().ok()?;
    let root = std::env::var_os("GITHUB_WORKSPACE").map_or_else(|| folder.clone(), PathBuf::from);
    path.exists().then(|| relative_path(path, &folder, &root))?
}

/// Returns a path in `folder` relative to `root`, with slashes; `None` if it is elsewhere.
fn relative_path(path: &Path, folder: &Path, root: &Path) -> Option<String> {
    let mut parts = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let relative = parts.strip_prefix(root).ok()?;
    Some(relative.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/"))
}

impl ReportSinks<RunReport> {
    /// Prints the page of a run and writes its reports.
    ///
    /// # Errors
    ///
    /// A file could not be written.
    pub fn write(&self, report: &RunReport, sources: &Sources, verbose: bool) -> Result<(), CliError> {
        self.print_and_write(report, sources, |style| match self.quiet {
            true => report.protocols.iter().map(|one| terminal::verdict_line(one, &report.options) + "\n").collect(),
            false => terminal::summary(report, sources, Style { verbose, ..style }),
        })
    }
}

impl ReportSinks<ObservedRun> {
    /// Prints the page of observed traffic and writes its reports.
    ///
    /// # Errors
    ///
    /// A file could not be written.
    pub fn write(&self, run: &ObservedRun) -> Result<(), CliError> {
        let sources = Sources::default();
        self.print_and_write(run, &sources, |style| match self.quiet {
            true => run.verdict_line() + "\n",
            false => run.page(&sources, style),
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
        self.print_and_write(report, sources, |style| match self.quiet {
            true => load::terminal::verdict_line(report) + "\n",
            false => load::terminal::summary(report, sources, style),
        })
    }
}

/// Renders the page of a single report from its JSON.
fn render_page(name: &str, text: String) -> Result<String, CliError> {
    let report = NamedReport { name: name.to_owned(), text };
    Ok(html::render(&[report], |_, _| Err("two load reports are needed".to_owned()))?)
}

impl ReportSinks<RunDocument> {
    /// Prints a line for each protocol and each finding, and writes the reports.
    ///
    /// # Errors
    ///
    /// A file could not be written.
    pub fn write(&self, report: &RunDocument) -> Result<(), CliError> {
        let lines = |protocol: &Protocol| {
            let found = protocol.findings.iter().filter(|one| one.verdict == Verdict::Fail && !self.quiet);
            let found = found
                .map(|one| format!("fail[{}] {}: {}\n  {}\n", one.check, one.scenario, one.message, one.reproduce));
            found.chain([protocol.summary.clone() + "\n"]).collect::<String>()
        };
        self.print_and_write(report, &Sources::default(), |_| report.protocols.iter().map(lines).collect())
    }
}

impl ReportSinks<ComparedRuns> {
    /// Prints the comparison and writes its reports.
    ///
    /// # Errors
    ///
    /// A file could not be written.
    pub fn write(&self, runs: &ComparedRuns, page: &str) -> Result<(), CliError> {
        self.print_and_write(runs, &Sources::default(), |_| page.to_owned())
    }
}

/// What a run of `check` or `fuzz` prints and writes.
#[derive(Args)]
pub struct RunOutputArgs {
    /// Fail the run on warnings
    #[arg(long)]
    pub strict: bool,
    #[arg(long = "report", value_name = "FORMAT=PATH", help = report_help(RUN_FORMATS))]
    reports: Vec<String>,
    /// Open the page of `--report html=PATH` in the browser
    #[arg(long)]
    open: bool,
    /// Print one line per frame on stderr
    #[arg(long)]
    pub trace: bool,
    /// List items that are normally only counted
    #[arg(short, long)]
    pub verbose: bool,
    /// Print only errors and the verdict line of each protocol
    #[arg(short, long, conflicts_with_all = ["trace", "verbose"])]
    pub quiet: bool,
}

impl RunOutputArgs {
    /// Returns where the reports go.
    ///
    /// # Errors
    ///
    /// As for [`ReportSinks::parse`], and if `--open` has no page to open.
    pub fn parse_sinks(&self) -> Result<ReportSinks<RunReport>, CliError> {
        ReportSinks::parse(&self.reports, RUN_FORMATS)?.with_quiet(self.quiet).with_open(self.open)
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("pack/a.yaml", "/repo", Some("pack/a.yaml"))]
    #[case("./pack/../a.yaml", "/repo", Some("a.yaml"))]
    #[case("a.yaml", "/repo/sub", Some("sub/a.yaml"))]
    #[case("../a.yaml", "/repo/sub", Some("a.yaml"))]
    #[case("/repo/b/a.yaml", "/tmp", Some("b/a.yaml"))]
    #[case("/elsewhere/a.yaml", "/repo", None)]
    fn paths_are_relative_to_the_root_of_the_repository(
        #[case] path: &str,
        #[case] folder: &str,
        #[case] expected: Option<&str>,
    ) {
        let found = relative_path(Path::new(path), Path::new(folder), Path::new("/repo"));
        assert_eq!(found.as_deref(), expected);
    }
}
