//! `hubproof doctor`: how much load this machine can generate, and what limits it.

use std::io::IsTerminal as _;
use std::time::Duration;

use anstyle::AnsiColor;
use clap::Args;
use indicatif::ProgressBar;

use super::hub::{now_ms, start_reference_server};
use super::{CliError, build_runtime, exit, page_style, print_to_stdout, protocol_files};
use crate::hub::prepare::TestedHub;
use crate::load::machine::findings::{
    Finding, MachineFacts, Measurements, WantedLoad, conclusion, findings, shares_needed,
};
use crate::load::machine::measure::{self, ROUND_TRIPS, RoundTrips, SystemCounters};
use crate::load::plan;
use crate::report::terminal_page::{BOLD, Page, Style};
use crate::scenario;
use crate::syntax::source::Sources;
use crate::syntax::yaml;

/// Measure how much load this machine can generate, and say what limits it
#[derive(Args)]
#[command(
    after_help = "Takes about three seconds, and needs no hub: requests go to the built-in reference server.\nExit codes: 0 measured, with or without warnings; 3 the machine could not be measured"
)]
pub struct DoctorArgs {
    /// Say how many machines like this one you need for this many connections
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    connections: u64,
    /// Say how many machines like this one you need for this many messages per second
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    messages: u64,
}

/// Widths of the columns of the table.
const FOUND_WIDTH: usize = 36;
const ALLOWS_WIDTH: usize = 36;

pub fn run_doctor(arguments: &DoctorArgs) -> Result<u8, CliError> {
    let facts = MachineFacts::read();
    let progress = Progress::start();
    let measured = take_measurements(&facts, &progress);
    progress.finish();
    let measured = match measured {
        Ok(measured) => measured,
        Err(error) => {
            eprintln!("{}", error.render());
            return Ok(exit::INCONCLUSIVE);
        }
    };
    let mut text = conclusion(&facts, &measured);
    let wanted = WantedLoad { connections: arguments.connections, messages_per_second: arguments.messages };
    if wanted.connections.max(wanted.messages_per_second) > 0 {
        text.push('\n');
        text.push_str(&shares_needed(&facts, &measured, wanted));
    }
    print_to_stdout(&render(&findings(&facts, &measured), &text, page_style(false)));
    Ok(0)
}

fn take_measurements(facts: &MachineFacts, progress: &Progress) -> Result<Measurements, CliError> {
    let before = SystemCounters::read();
    progress.show("measuring the clock and timers");
    let clock_step = measure::clock_step();
    let timers = measure::timer_lateness();
    progress.show("measuring round trips through the built-in server, for two seconds");
    let runtime = build_runtime()?;
    let round_trips = runtime.block_on(measure_round_trips(facts.cores, &mut Sources::default()));
    runtime.shutdown_timeout(Duration::from_millis(200));
    let disturbance = SystemCounters::read().since(&before);
    Ok(Measurements { clock_step, timers, round_trips: round_trips?, disturbance })
}

/// Plays the plan of `doctor` against the reference server.
async fn measure_round_trips(threads: usize, sources: &mut Sources) -> Result<RoundTrips, CliError> {
    let file = sources.add("round-trips.yaml", ROUND_TRIPS);
    let root = yaml::parse(sources, file).map_err(|found| CliError::from_diagnostics(&[found], sources))?;
    let (name, written) = (root.get("protocol").and_then(yaml::SyntaxNode::text), root.get("plan"));
    let (Some(name), Some(written)) = (name, written) else { return Err(CliError::new("there is no plan")) };
    let protocol = protocol_files::load_built_in(name, sources)?.into_valid(sources)?;
    let shared = scenario::load_shared(&protocol.folder, sources, &protocol.pack, &mut Vec::new());
    let no_files = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let (read, found) = plan::parse_load_plan("round-trips", written, &shared, &protocol.pack, &no_files);
    let (plan, script) = read.ok_or_else(|| CliError::from_diagnostics(&found, sources))?;
    let (target, server) = start_reference_server(&protocol, None, &[], sources).await?;
    let hub = TestedHub {
        embedded: Some(server.clone()),
        ..TestedHub::new(protocol.pack, protocol.scenarios.shared, target)
    };
    let measured = measure::round_trips(&hub, plan, &script, threads, now_ms()).await;
    server.shutdown().await;
    Ok(measured?)
}

/// Renders the table and the conclusion.
fn render(findings: &[Finding], conclusion: &str, style: Style) -> String {
    let sources = Sources::default();
    let mut page = Page { out: String::new(), style, sources: &sources, report: &() };
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    page.line(&page.paint(BOLD, &format!("hubproof {} on {system}", env!("CARGO_PKG_VERSION"))));
    page.gap();
    page.line(&format!("  {:<8} {:<12} {:<FOUND_WIDTH$}  allows", "", "what", "found"));
    for finding in findings {
        let (found, allows) = (cell(&finding.found, FOUND_WIDTH), cell(&finding.allows, ALLOWS_WIDTH));
        for line in 0..found.len().max(allows.len()) {
            let part = |cell: &[String]| cell.get(line).cloned().unwrap_or_default();
            let (word, color) =
                if finding.advice.is_empty() { ("ok", AnsiColor::Green) } else { ("warning", AnsiColor::Yellow) };
            let (word, what) = if line == 0 { (word, finding.what) } else { ("", "") };
            let word = page.paint(BOLD.fg_color(Some(color.into())), &format!("{word:<8}"));
            page.line(&format!("  {word} {what:<12} {:<FOUND_WIDTH$}  {}", part(&found), part(&allows)));
        }
        if !finding.advice.is_empty() {
            for line in cell(&format!("-> {}", finding.advice), FOUND_WIDTH + 2 + ALLOWS_WIDTH) {
                page.line(&format!("  {:<8} {:<12} {line}", "", ""));
            }
        }
    }
    page.gap();
    cell(conclusion, style.width).iter().for_each(|line| page.line(line));
    page.out
}

/// Wraps the text of a cell.
fn cell(text: &str, width: usize) -> Vec<String> {
    textwrap::wrap(text, width).into_iter().map(std::borrow::Cow::into_owned).collect()
}

/// Shows on stderr what is being measured.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn start() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    fn show(&self, what: &'static str) {
        match &self.0 {
            Some(bar) => bar.set_message(what),
            None => eprintln!("{what}"),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_its_cells_side_by_side_and_its_advice_below() {
        let finding = |advice: &str| Finding {
            what: "timers",
            found: "a sleep of 1 ms ends late by 55 µs (p50), 120 µs (p99)".to_owned(),
            allows: "messages on time to within 120 µs".to_owned(),
            advice: advice.to_owned(),
        };
        let text = render(&[finding(""), finding("use another machine")], "It can.", Style::default());
        let expected = "  ok       timers       a sleep of 1 ms ends late by 55 µs    messages on time to within 120 µs
                        (p50), 120 µs (p99)
  warning  timers       a sleep of 1 ms ends late by 55 µs    messages on time to within 120 µs
                        (p50), 120 µs (p99)
                        -> use another machine

It can.
";
        assert!(text.ends_with(expected), "{text}");
    }
}
