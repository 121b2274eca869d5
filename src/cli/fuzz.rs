//! `hubproof fuzz`: says what no script foresees to a hub, and sees whether it stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::{mpsc, watch};

use super::files::Protocol;
use super::hub::{self, Heard, HubArgs, Started};
use super::progress::Progress;
use super::{Trouble, output, runtime};
use crate::check::{self, Options, SetupError, Subject};
use crate::event::Event;
use crate::exec::GRACE;
use crate::fuzz::against;
use crate::fuzz::campaign::{self, Campaign, Stage};
use crate::fuzz::outcome::Outcome;
use crate::interpret::KEPT;
use crate::report::{self, ProtocolReport, RunOptions, RunReport};
use crate::source::Sources;

/// Say what nobody foresees to a hub, and see whether it stands; without a URL, to the reference server that is built in
#[derive(Args)]
pub struct FuzzArgs {
    #[command(flatten)]
    hub: HubArgs,
    /// Cases of each protocol
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    cases: u64,
    /// What the cases are drawn from: the same seed, the same cases
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Only the case of this number, as findings name it
    #[arg(long, value_name = "N")]
    case: Vec<u64>,
    /// Cases at a time
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Warnings fail the run
    #[arg(long)]
    strict: bool,
    /// Write a report: json=PATH or junit=PATH; - is stdout
    #[arg(long = "report", value_name = "FORMAT=PATH")]
    reports: Vec<String>,
    /// Tell another hub the same, case by case, and warn where both differ; without a URL, the reference server
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    against: Option<String>,
    /// One line per frame, on stderr
    #[arg(long)]
    trace: bool,
    /// List what is otherwise only counted
    #[arg(short, long)]
    verbose: bool,
}

pub fn run(arguments: FuzzArgs) -> Result<u8, Trouble> {
    let mut sources = Sources::default();
    let sinks = output::sinks(&arguments.reports)?;
    let named = arguments.hub.read(&mut sources)?;
    let protocols = arguments.hub.protocols("fuzz", named.target.as_ref(), false, &mut sources)?;
    arguments.hub.own_fault(&protocols)?;
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let campaigns = campaigns(&protocols, seed, &mut sources)?;
    let options = Options {
        // What one case does shows in the next: both hubs have to hear them in the same order.
        jobs: if arguments.against.is_some() { 1 } else { usize::from(arguments.jobs) },
        stretch: arguments.hub.patience,
        repeat: 1,
        limit: arguments.hub.timeout.mul_f64(arguments.hub.patience.max(1.0)),
        stated_only: arguments.hub.stated_only,
        trace: arguments.trace,
        kept: if arguments.against.is_some() { against::KEPT } else { KEPT },
        destructive: false,
        stamp: hub::stamp(),
        now_ms: hub::now_ms(),
    };
    let mut shown = RunOptions {
        strict: arguments.strict,
        stated_only: arguments.hub.stated_only,
        command: again(&arguments, seed, &protocols),
        target: arguments.hub.shown(&named),
    };
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let started = arguments.hub.start(&named, &protocols, |_| Vec::new(), &mut shown, &mut sources).await?;
        let mut started = match started {
            Ok(started) => started,
            Err(code) => return Ok(Err(code)),
        };
        let other = match &arguments.against {
            Some(url) => Some(arguments.hub.start_other(url, &protocols, &mut sources).await?),
            None => None,
        };
        let options = Arc::new(options);
        let others = other.as_ref().map_or(&[][..], |other| &other.subjects);
        let report = go(&arguments, campaigns, &mut started, others, Arc::clone(&options), shown, &mut sources).await;
        started.end().await;
        if let Some(other) = other {
            other.end().await;
        }
        report.map(Ok)
    })?;
    // Cases that run on are cut off here: everything has been said.
    runtime.shutdown_timeout(Duration::from_millis(200));
    let report = match done {
        Ok(report) => report,
        Err(code) => return Ok(code),
    };
    let code = report::exit_code(&report);
    output::write_out(&report, &sources, &sinks, arguments.verbose)?;
    Ok(code)
}

/// All of them, before anything is played; those that were not named and of which no case can be made are left out.
fn campaigns(protocols: &[Protocol], seed: u64, sources: &mut Sources) -> Result<Vec<Arc<Campaign>>, Trouble> {
    let mut campaigns = Vec::new();
    for protocol in protocols {
        let campaign = Campaign::new(&protocol.folder, sources, seed)
            .map_err(|found| Trouble::from_diagnostics(&found, sources))?;
        if campaign.plan.cells.is_empty() {
            return Err(Trouble::new(format!(
                "there is nothing to say to a hub in {}: no message goes to it, or nobody connects to it",
                protocol.pack.name
            )));
        }
        campaigns.push(Arc::new(campaign));
    }
    Ok(campaigns)
}

/// The run itself: one protocol after the other.
async fn go(
    arguments: &FuzzArgs,
    campaigns: Vec<Arc<Campaign>>,
    started: &mut Started,
    others: &[Subject],
    options: Arc<Options>,
    shown: RunOptions,
    sources: &mut Sources,
) -> Result<RunReport, Trouble> {
    let begun = Instant::now();
    let begun_ms = u64::try_from(options.now_ms).unwrap_or(0);
    let mut subjects = std::mem::take(&mut started.subjects);
    if !others.is_empty() {
        // Both hubs are shared by all that is played, or neither.
        subjects.iter_mut().for_each(|subject| subject.embedded = None);
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut asked_to_stop = 0;
    for (campaign, subject) in campaigns.iter().zip(&subjects) {
        let prepare = |subject| check::prepare(subject).map_err(|error| Trouble::new(error.to_string()));
        let hub = prepare(subject)?;
        let same = |other: &&Subject| other.pack.name == subject.pack.name;
        let against = others.iter().find(same).map(prepare).transpose()?;
        let numbers = numbers(arguments, campaign);
        let total = if arguments.case.is_empty() { arguments.cases } else { arguments.case.len() as u64 };
        let mut progress = Progress::new(usize::try_from(total).unwrap_or(usize::MAX));
        let mut outcome = Outcome::default();
        let (events, inbox) = mpsc::channel(256);
        let (stop, interrupt) = watch::channel(false);
        let stage = Stage { hub, options: Arc::clone(&options), against, events, interrupt };
        let playing = Arc::clone(campaign);
        let running = tokio::spawn(async move {
            campaign::run(playing, stage, numbers).await;
            Ok::<(), SetupError>(())
        });
        let hear = |heard| match heard {
            Heard::Event(event) => {
                progress.see(&event);
                if let Event::Finished(report) = event {
                    outcome.feed(campaign, *report);
                }
            }
            Heard::Stopping => progress.line("stopping: the cases under way end first; Ctrl-C again to stop at once"),
        };
        let followed = hub::follow(running, inbox, &stop, &mut started.signals, hear).await;
        progress.finish();
        outcomes.push(outcome);
        asked_to_stop = followed?;
        if asked_to_stop > 0 {
            break;
        }
    }
    let grace = if asked_to_stop < 2 { GRACE } else { Duration::ZERO };
    let mut processes = started.end_processes(grace).await;
    let mut protocols: Vec<ProtocolReport> = Vec::new();
    for (outcome, campaign) in outcomes.into_iter().zip(&campaigns) {
        let own = processes.extract_if(.., |(protocol, _)| *protocol == campaign.pack().name);
        let own = own.map(|(_, process)| process).collect();
        protocols.push(outcome.finish(campaign, own, sources));
    }
    Ok(RunReport {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        started: begun_ms,
        duration: begun.elapsed(),
        options: shown,
        protocols,
        interrupted: asked_to_stop > 0,
    })
}

fn numbers(arguments: &FuzzArgs, campaign: &Campaign) -> Box<dyn Iterator<Item = u64> + Send> {
    if !arguments.case.is_empty() {
        return Box::new(arguments.case.clone().into_iter());
    }
    let most = usize::try_from(arguments.cases).unwrap_or(usize::MAX);
    Box::new(campaign.plan.numbers(&|_| true).take(most))
}

/// The words that start this run again, but for what chooses cases.
fn again(arguments: &FuzzArgs, seed: u64, protocols: &[Protocol]) -> Vec<String> {
    let mut words = arguments.hub.again("fuzz", protocols);
    if arguments.strict {
        words.push("--strict".to_owned());
    }
    words.extend(["--seed".to_owned(), seed.to_string()]);
    if let Some(url) = &arguments.against {
        words.push("--against".to_owned());
        words.extend((!url.is_empty()).then(|| url.clone()));
    }
    words
}

/// Small, so that it can be read out.
fn fresh_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 % 1_000_000
}
