//! `hubproof load`: load tests of a hub.

#[cfg(feature = "nats")]
pub mod over;
#[cfg(not(feature = "nats"))]
#[path = "over_absent.rs"]
pub mod over;
pub mod plans;
mod processes;
mod progress;
mod run;
mod search;
mod share;
#[cfg(feature = "nats")]
pub mod watch;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;

use super::hub::HubArgs;
use super::report_sink::{self, EventLog, ReportSinks};
use super::{CliError, build_runtime, exit};
use crate::config;
use crate::load::engine::{self, ValidationMode};
use crate::load::pages::{self, LivePage};
use crate::load::plan::{PlanOverrides, WarmUp};
use crate::load::shares::name::RunName;
use crate::syntax::source::Sources;

/// Load a hub with many virtual clients and measure it; without a URL, the built-in reference server
#[derive(Args)]
pub struct LoadArgs {
    #[command(flatten)]
    hub: HubArgs,
    /// Load plan: the name of a protocol's plan, or a file (default: the first plan that `--list` shows)
    #[arg(long, value_name = "NAME|FILE")]
    plan: Option<String>,
    /// List the protocol's plans with their roles and numbers
    #[arg(long)]
    list: bool,
    /// Compile the plan and list the expressions evaluated during a run, without contacting the hub
    #[arg(long)]
    check: bool,
    /// Number of clients in the role `worker`
    #[arg(long, value_name = "N")]
    workers: Option<u32>,
    /// Number of clients in the role `client`
    #[arg(long, value_name = "N")]
    clients: Option<u32>,
    /// Number of clients in any role of the plan
    #[arg(long, value_name = "ROLE=N", value_parser = parse_population)]
    population: Vec<(String, u32)>,
    /// Journeys to start per second at the plan's highest stage; other stages scale with it
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// How long to measure
    #[arg(long, value_name = "TIME", value_parser = config::parse_duration)]
    duration: Option<Duration>,
    /// How long each population takes to connect
    #[arg(long, value_name = "TIME", value_parser = config::parse_duration)]
    ramp: Option<Duration>,
    /// How long to run under load before measuring; `auto` waits until throughput and response times are steady
    #[arg(long, value_name = "TIME|auto", value_parser = parse_warm_up)]
    warm_up: Option<WarmUp>,
    /// How long running journeys may take to finish
    #[arg(long, value_name = "TIME", value_parser = config::parse_duration)]
    drain: Option<Duration>,
    /// Local addresses to connect from in turn, such as 127.0.0.2-127.0.0.9
    #[arg(long, value_name = "ADDRESSES", value_parser = SourceAddresses::parse)]
    source: Option<SourceAddresses>,
    /// Number of threads that handle connections (default: as many as the plan's rate needs, at most one per core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Which of the hub's messages to validate: all, sample=0.01, none
    #[arg(long, value_name = "WHICH", default_value = "sample=0.01", value_parser = parse_validate)]
    validate: ValidationMode,
    /// Add a threshold to the plan's, such as 'submit_job.response.p99 < 50ms' or 'ledger.lost == 0'
    #[arg(long, value_name = "EXPR")]
    threshold: Vec<String>,
    /// Find the highest rate at which this threshold holds and completed journeys keep up with started ones
    #[arg(long, value_name = "EXPR")]
    find_max: Option<String>,
    #[arg(long = "report", value_name = "FORMAT=PATH", help = report_sink::report_help(report_sink::LOAD_FORMATS))]
    reports: Vec<String>,
    /// Open the page of `--report html=PATH` in the browser
    #[arg(long)]
    open: bool,
    /// Serve Prometheus metrics at this address during the run
    #[arg(long, value_name = "ADDR", value_parser = hubproof_reference::server::args::parse_listen_address)]
    metrics: Option<SocketAddr>,
    /// Serve a page of the running load run, with buttons to hold and stop it: PORT on this machine, or IP:PORT
    #[arg(long, value_name = "ADDR", value_parser = pages::parse_address)]
    live: Option<SocketAddr>,
    /// Print only errors and the verdict line
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    shared: share::ShareArgs,
    #[command(flatten)]
    over: over::OverArgs,
    /// Run the plan in several processes of this machine, each with a share of it, and make one report
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=64),
        conflicts_with_all = ["share", "check", "find_max", "live", "metrics"]
    )]
    processes: Option<u32>,
    /// Seed of the random number generator; the same seed gives the same schedule
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Confirm that a hub on another machine may be loaded
    #[arg(long)]
    yes: bool,
    /// Run even if this machine lacks the resources the plan needs
    #[arg(long)]
    force: bool,
}

/// Source addresses as one argument.
#[derive(Clone, Debug)]
struct SourceAddresses(Vec<IpAddr>);

impl SourceAddresses {
    fn parse(text: &str) -> Result<Self, String> {
        engine::parse_sources(text).map(Self).map_err(|error| error.to_string())
    }
}

fn parse_population(text: &str) -> Result<(String, u32), String> {
    let read = text.split_once('=').and_then(|(role, number)| Some((role.to_owned(), number.parse().ok()?)));
    read.ok_or_else(|| "write ROLE=N, such as monitor=20".to_owned())
}

fn parse_warm_up(text: &str) -> Result<WarmUp, String> {
    WarmUp::parse(text).map_err(|error| error.to_string())
}

fn parse_validate(text: &str) -> Result<ValidationMode, String> {
    match text.split_once('=') {
        None if text == "all" => Ok(ValidationMode::All),
        None if text == "none" => Ok(ValidationMode::None),
        Some(("sample", share)) => match share.parse::<f64>() {
            Ok(share) if share > 0.0 && share <= 1.0 => Ok(ValidationMode::Sample(share)),
            _ => Err("the share must be above 0 and at most 1, such as sample=0.01".to_owned()),
        },
        _ => Err("write all, sample=0.01 or none".to_owned()),
    }
}

impl LoadArgs {
    fn overrides(&self) -> PlanOverrides {
        let named = [("worker", self.workers), ("client", self.clients)];
        let named = named.into_iter().filter_map(|(role, number)| Some((role.to_owned(), number?)));
        PlanOverrides {
            population: named.chain(self.population.iter().cloned()).collect(),
            rate: self.rate,
            warm_up: self.warm_up,
            duration: self.duration,
            drain: self.drain,
            ramp: self.ramp,
        }
    }

    /// Returns the command line that repeats this run, without secrets and report sinks.
    fn repeat_command(&self, protocol: &super::protocol_files::ValidProtocol, seed: u64) -> Vec<String> {
        let mut words = self.hub.repeat_command("load", std::slice::from_ref(protocol));
        let mut option = |name: &str, value: Option<String>| {
            words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        };
        let time = |time: Option<Duration>| time.map(config::format_duration);
        let named = self.hub.own.pack.is_none() && self.hub.target.is_none();
        option("--protocol", named.then(|| protocol.pack.name.clone()));
        option("--plan", self.plan.clone());
        option("--workers", self.workers.map(|number| number.to_string()));
        option("--clients", self.clients.map(|number| number.to_string()));
        for (role, number) in &self.population {
            option("--population", Some(format!("{role}={number}")));
        }
        option("--rate", self.rate.map(|rate| rate.to_string()));
        option("--duration", time(self.duration));
        option("--ramp", time(self.ramp));
        option("--warm-up", self.warm_up.map(|warm_up| warm_up.to_string()));
        option("--drain", time(self.drain));
        let addresses =
            |SourceAddresses(list): &SourceAddresses| list.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
        option("--source", self.source.as_ref().map(addresses));
        option("--threads", self.threads.map(|number| number.to_string()));
        option(
            "--validate",
            match self.validate {
                ValidationMode::All => Some("all".to_owned()),
                ValidationMode::None => Some("none".to_owned()),
                ValidationMode::Sample(share) => (share != 0.01).then(|| format!("sample={share}")),
            },
        );
        for threshold in &self.threshold {
            option("--threshold", Some(threshold.clone()));
        }
        option("--find-max", self.find_max.clone());
        option("--run", self.shared.run.as_ref().map(ToString::to_string));
        option("--share", self.shared.share.map(|share| share.to_string()));
        option("--seed", Some(seed.to_string()));
        words.extend(self.yes.then(|| "--yes".to_owned()));
        words
    }
}

pub fn run_load(mut arguments: LoadArgs) -> Result<u8, CliError> {
    let mut sources = Sources::default();
    let sinks = ReportSinks::parse(&arguments.reports, report_sink::LOAD_FORMATS)?
        .with_quiet(arguments.quiet)
        .with_open(arguments.open)?;
    if arguments.check && arguments.hub.own.pack.is_some() && arguments.hub.target.is_none() {
        // Nothing connects to the hub.
        arguments.hub.url.get_or_insert_with(|| "ws://127.0.0.1:1".to_owned());
    }
    let named = arguments.hub.read_target_and_overrides(&mut sources)?;
    let protocols = arguments.hub.load_protocols("load", named.target.as_ref(), arguments.list, &[], &mut sources)?;
    if arguments.list {
        super::print_to_stdout(&plans::render_list(&protocols, &mut sources)?);
        return Ok(0);
    }
    let [protocol] = &protocols[..] else {
        let names: Vec<&str> = protocols.iter().map(|protocol| protocol.pack.name.as_str()).collect();
        return Err(CliError::usage(
            "a load run needs exactly one protocol",
            format!("--protocol {}", names.join(" | ")),
        ));
    };
    arguments.hub.check_fault(&protocols)?;
    arguments.hub.check_direct(&named)?;
    let yes = arguments.yes || arguments.check;
    arguments.hub.check_confirmed(&named, Vec::new(), yes, "load may slow it down for others", "load")?;
    let (plan, script, file) = plans::choose_plan(arguments.plan.as_deref(), protocol, &mut sources)?;
    let plan = plan.with_overrides(&arguments.overrides())?;
    let thresholds = run::parse_thresholds(&arguments.threshold, &plan, &script, &mut sources)?;
    let find_max = arguments.find_max.as_ref();
    if arguments.shared.share.is_some() || arguments.processes.is_some() {
        check_shareable(&arguments.hub, named.target.as_ref())?;
    }
    if let Some(number) = arguments.processes {
        return processes::run_processes(number, &plan, arguments.quiet, &sinks);
    }
    let goal = find_max.map(|text| search::parse_goal(text, &plan, &script, &mut sources)).transpose()?;
    let shared_seed = arguments.shared.run.as_ref().map(RunName::seed);
    let seed = arguments.seed.or(shared_seed).unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 16);
    let runtime = build_runtime()?;
    let code = runtime.block_on(async {
        let mut shown = crate::report::RunOptions {
            command: arguments.repeat_command(protocol, seed),
            target: arguments.hub.hub_name(&named),
            ..crate::report::RunOptions::default()
        };
        let started = arguments.hub.start_hubs(&named, &protocols, |_| Vec::new(), &mut shown, &mut sources).await?;
        let mut started = match started {
            Ok(started) => started,
            Err(code) => return Ok(code),
        };
        let log = if arguments.check { EventLog::default() } else { sinks.start_events()? };
        let live = match arguments.live.filter(|_| !arguments.check) {
            Some(address) => Some(start_live_page(address, "hubproof load", "A running load run").await?),
            None => None,
        };
        let session =
            run::LoadSession { arguments: &arguments, plan, script, file, thresholds, seed, shown, log, live };
        let done = match &goal {
            _ if arguments.check => session.describe_compiled(&started, &sources).map(|text| {
                super::print_to_stdout(&text);
                0
            }),
            None => session.run_once(&mut started, &mut sources, &sinks).await,
            Some(goal) => search::find_max_rate(session, goal, &mut started, &mut sources, &sinks).await,
        };
        started.stop().await;
        done
    });
    // Aborts running hooks.
    runtime.shutdown_timeout(Duration::from_millis(200));
    code
}

/// Checks that the hub is one that all shares of a run can reach.
///
/// # Errors
///
/// Each share would have a hub of its own.
fn check_shareable(hub: &HubArgs, target: Option<&config::Target>) -> Result<(), CliError> {
    let starts = |target: &config::Target| {
        target.exec.is_some() || target.instances.iter().any(|instance| instance.exec.is_some())
    };
    if hub.url.is_some() && !hub.exec.is_given() || target.is_some_and(|target| !starts(target)) {
        return Ok(());
    }
    Err(CliError::usage(
        "each share would start a hub of its own",
        "start the hub first, such as with `hubproof serve emprops`, and give its URL",
    ))
}

/// Starts the live page, and prints its URL.
///
/// # Errors
///
/// The address cannot be used.
pub async fn start_live_page(address: SocketAddr, command: &str, title: &str) -> Result<LivePage, CliError> {
    let page = LivePage::start(address, command, title).await?;
    eprintln!("live page on {}", page.url());
    if page.is_exposed() {
        eprintln!(
            "warning: the live page is not only on this machine, and not encrypted: with its URL, others can hold and stop the run"
        );
    }
    Ok(page)
}

/// The exit code of a run that could not begin.
const NOT_STARTED: u8 = exit::INCONCLUSIVE;
