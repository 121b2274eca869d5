//! `hubproof check`: tests a hub against the scenarios of its protocol.

pub mod clients;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use tokio::sync::{mpsc, watch};

use self::clients::ClientUnderTest;
use super::baseline::BaselineArgs;
use super::hub::{self, HubArgs, ParsedHubArgs, RunInput, StartedHubs};
use super::progress::RunProgress;
use super::protocol_files::ValidProtocol;
use super::report_sink::{self, EventLog, RunOutputArgs};
use super::{CliError, build_runtime, print_to_stdout, scenario_files};
use crate::check::comparison::SecondHub;
use crate::check::{self, PlayOptions, Round, Rounds, VariationChoice};
use crate::config::Target;
use crate::deviation::proposal::to_toml;
use crate::fuzz::campaign::Campaign;
use crate::fuzz::campaign::walks::{self, WalkComparer, WalkPrograms};
use crate::fuzz::corpus::Corpus;
use crate::hub::process::TERMINATION_GRACE;
use crate::judge::REPLAY_TIME;
use crate::protocol::Pack;
use crate::report::events::ScenarioEvent;
use crate::report::{self, ProtocolOutline, RunOptions, RunReport, events};
use crate::scenario::Program;
use crate::scenario::variation::Variation;
use crate::syntax::diagnostic::{nearest, suggest};
use crate::syntax::share::Share;
use crate::syntax::source::Sources;

/// Test a hub against its protocol; without a URL, the built-in reference server
#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// What to play in addition to the plain scenarios
    #[arg(long, value_enum, default_value_t = Depth::Normal)]
    depth: Depth,
    /// Play only this variation of the scenarios, such as 'white-space'; --list lists the variations
    #[arg(long, value_name = "NAME")]
    variation: Option<Variation>,
    /// With --depth thorough: also play the random walks on this hub, and warn if the answers differ (default for
    /// built-in protocols: a model in memory)
    #[arg(long, value_name = "URL", conflicts_with = "variation")]
    against: Option<String>,
    /// Play every Nth of the selected scenarios, such as 3/16 for the third of sixteen runs; `hubproof merge` joins their
    /// JSON reports
    #[arg(long, value_name = "N/ALL", conflicts_with_all = ["explore", "write_deviations"])]
    share: Option<Share>,
    /// Number of scenarios to run in parallel (default: 16; 32 against the reference server, 64 with --depth thorough)
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    output: RunOutputArgs,
    /// Also run scenarios that may leave the hub unusable
    #[arg(long)]
    destructive: bool,
    /// Try each proposed deviation and continue the run with the right ones; each is still a failure
    #[arg(long)]
    explore: bool,
    /// Append the proposed deviations, if any, to this file as target-file entries; fill in their reasons
    #[arg(long, value_name = "FILE")]
    write_deviations: Option<PathBuf>,
    #[command(flatten)]
    baseline: BaselineArgs,
    /// The client to test instead of a hub.
    #[arg(skip)]
    client: Option<ClientUnderTest>,
}

/// Which scenarios are played, and how often.
#[derive(Args)]
struct ChoiceArgs {
    /// Run only scenarios whose name matches, such as 'concierge/group-*' or 'seq'; or run a scenario file outside the
    /// pack
    #[arg(long, value_name = "GLOB|FILE")]
    scenario: Vec<String>,
    /// Run only scenarios that check this rule
    #[arg(long, value_name = "ID")]
    rule: Vec<String>,
    /// List the selected scenarios with their needs, and the protocol's settings and hooks
    #[arg(long)]
    list: bool,
    /// Run every scenario N times, and report a check that fails only sometimes as flaky
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: u32,
    /// Minimum share of the pack's MUST rules to judge; a run that judges fewer is inconclusive (default: a third for
    /// full runs)
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    min_judged: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Depth {
    /// Variations, as many as fit into the scenarios' waiting time
    Normal,
    /// All variations, and long random walks whose answers are compared with the reference server's
    Thorough,
}

/// The seed of the walks: `NAME/walk-17` is the same in every run.
const WALK_SEED: u64 = 1;
/// The number of walks of a protocol.
const WALKS: u64 = 60;
/// How long variations are played on a hub at least: scenarios that hardly wait leave too little time.
const VARIATION_TIME: Duration = Duration::from_secs(10);
/// Longer than any run: `--depth thorough` replays whatever is in doubt.
const A_DAY: Duration = Duration::from_secs(86_400);

impl CheckArgs {
    /// Returns how scenarios are played. `is_reference`: the hub is the reference server.
    fn play_options(&self, is_reference: bool) -> PlayOptions {
        // Other hubs may be slower than the reference server, and so many scenarios at a time may overload them.
        let jobs = match self.depth {
            _ if self.client.is_some() => 4,
            _ if !is_reference => 16,
            Depth::Thorough => 64,
            _ => 32,
        };
        PlayOptions {
            jobs: self.jobs.map_or(jobs, usize::from),
            stretch: self.hub.stretch,
            repeat: self.choice.repeat as usize,
            limit: self.hub.timeout.mul_f64(self.hub.stretch.max(1.0)),
            stated_only: self.hub.stated_only,
            trace: self.output.trace,
            kept_chars: crate::interpreter::KEPT_CHARS,
            persistent: true,
            // A baseline compares each check of each scenario with other runs.
            shorten: !self.baseline.is_used(),
            destructive: self.destructive,
            on_any_carrier: false,
            variations: match (&self.variation, self.depth) {
                (Some(variation), _) => VariationChoice::Only(variation.clone()),
                (None, Depth::Thorough) => VariationChoice::All,
                // A baseline knows the scenarios as they are written, and only they are repeated.
                (None, Depth::Normal) if self.baseline.is_used() || self.choice.repeat > 1 => VariationChoice::None,
                (None, Depth::Normal) => VariationChoice::Spare,
            },
            variation_time: if is_reference || self.client.is_some() || self.chooses_scenarios() {
                Duration::ZERO
            } else {
                VARIATION_TIME
            },
            replay_time: if self.depth == Depth::Thorough { A_DAY } else { REPLAY_TIME },
            stamp: check::stamp(),
            now_ms: hub::now_ms(),
            comparer: None,
        }
    }

    fn chooses_scenarios(&self) -> bool {
        !self.choice.scenario.is_empty() || !self.choice.rule.is_empty()
    }

    /// Returns what the report says about the run.
    fn run_options(&self, named: &ParsedHubArgs, protocols: &[ValidProtocol]) -> RunOptions {
        RunOptions {
            strict: self.output.strict,
            stated_only: self.hub.stated_only,
            min_judged: self.choice.min_judged,
            selected: self.chooses_scenarios(),
            share: self.share,
            command: repeat_command(self, protocols),
            pack: self.hub.own.to_arguments(),
            target: match &self.client {
                Some(client) => client.name(),
                None => self.hub.reached_hub_name(named),
            },
        }
    }
}

pub fn run_check(arguments: CheckArgs) -> Result<u8, CliError> {
    let mut sources = Sources::default();
    let sinks = arguments.output.parse_sinks()?;
    if let Some(path) = &arguments.write_deviations {
        // Reported before the run rather than after it.
        report_sink::check_writable(path).map_err(|error| write_error(path, error))?;
    }
    let named = arguments.hub.read_target_and_overrides(&mut sources)?;
    let (files, mut chosen): (Vec<_>, Vec<_>) =
        arguments.choice.scenario.iter().partition(|text| scenario_files::is_scenario_file(text));
    // A scenario file may be of any protocol.
    let names = if files.is_empty() { &chosen[..] } else { &[] };
    let target = named.target.as_ref();
    let mut protocols = match &arguments.client {
        Some(client) => client.load_protocols(&arguments.hub, target, &mut sources)?,
        None => arguments.hub.load_protocols("check", target, arguments.choice.list, names, &mut sources)?,
    };
    let added = scenario_files::add_scenario_files(&mut protocols, &files, &mut sources)?;
    chosen.extend(&added);
    let mut comparer = add_walks(&arguments, named.target.as_ref(), &mut protocols, &mut sources)?;
    let selection = ScenarioSelection::new(&chosen, &arguments.choice.rule, &protocols)?;
    arguments.hub.check_fault(&protocols)?;
    check_prelude(arguments.variation.as_ref(), &protocols)?;
    let baselines = arguments.baseline.read_baselines(&protocols, &mut sources)?;
    let programs = protocols.iter().flat_map(|protocol| &protocol.scenarios.programs);
    let known: Vec<String> = programs.map(|program| program.id.clone()).collect();
    let selection = match arguments.share {
        Some(share) => selection.with_share(share, &protocols),
        None => selection,
    };
    // A selection of scenarios selects protocols too.
    protocols.retain(|protocol| selection.programs_of(protocol).next().is_some());
    if protocols.is_empty() {
        return Ok(report_nothing_selected(&arguments, &known));
    }
    if arguments.choice.list {
        print_to_stdout(&render_list(&protocols, &selection));
        return Ok(0);
    }
    let mut options = arguments.play_options(arguments.hub.url.is_none() && named.target.is_none());
    let begun = u64::try_from(options.now_ms).unwrap_or(0);
    let outlines = protocols
        .iter()
        .map(|p| ProtocolOutline::new(Arc::clone(&p.pack), &p.scenarios.programs, |program| selection.selects(program)))
        .collect();
    let mut shown = arguments.run_options(&named, &protocols);
    let selected = |protocol: &ValidProtocol| selection.programs_of(protocol).cloned().collect();
    let runtime = build_runtime()?;
    let log = sinks.start_events()?;
    let done = runtime.block_on(async {
        let started = arguments.hub.start_hubs(&named, &protocols, selected, &mut shown, &mut sources).await?;
        let mut started = match started {
            Ok(started) => started,
            Err(code) => return Ok(Err(code)),
        };
        match &arguments.client {
            Some(client) => started.test_client(client)?,
            None => started.watch_hubs().await,
        }
        if let (Some(comparer), Some(url)) = (&mut comparer, &arguments.against) {
            started.add_second_hub(url, &protocols, &mut sources).await?;
            for Pack { name, .. } in protocols.iter().map(|protocol| &*protocol.pack) {
                started.second_hub(name)?.into_iter().for_each(|hub| comparer.set_second_hub(name, hub));
            }
        }
        options.comparer = comparer.map(|comparer| Arc::new(comparer) as _);
        let rounds = Rounds::new(std::mem::take(&mut started.hubs), outlines, options, arguments.explore);
        log.write(|| events::run_started(begun, &shown.target, &shown.command));
        let report = run_rounds(&mut started, rounds, shown, &mut sources, &log, arguments.output.quiet).await;
        started.stop().await;
        report.map(Ok)
    })?;
    // Aborts scenarios that still run; the report is complete without them.
    runtime.shutdown_timeout(Duration::from_millis(200));
    let mut report = match done {
        Ok(report) => report,
        Err(code) => return Ok(code),
    };
    if let Some(path) = &arguments.write_deviations {
        write_deviations(path, &report, arguments.output.quiet)?;
    }
    baselines.apply_and_write(&mut report, &sources)?;
    sinks.write(&report, &sources, arguments.output.verbose)?;
    Ok(report::exit_code(&report))
}

/// Adds long random walks to the scenarios of the protocols that have a model or a second hub, and returns what compares
/// their plays with it, and plays with a variation with those as written. A hub with declared deviations has no model: it
/// differs from that where it says so.
fn add_walks(
    arguments: &CheckArgs,
    target: Option<&Target>,
    protocols: &mut [ValidProtocol],
    sources: &mut Sources,
) -> Result<Option<WalkComparer>, CliError> {
    if arguments.against.is_some() && arguments.depth != Depth::Thorough {
        return Err(CliError::usage("`--against` compares random walks", "add `--depth thorough`, which plays them"));
    }
    if arguments.depth != Depth::Thorough && arguments.variation.is_none() {
        return Ok(None);
    }
    let deviates = target.is_some_and(|target| !target.deviations.is_empty());
    let mut comparer = WalkComparer::default();
    let given = super::fuzz::given_settings(target);
    for protocol in protocols {
        if arguments.variation.is_some() {
            comparer.add(Arc::new(Corpus::from_folder(&protocol.folder, sources, &protocol.pack, given.clone())));
            continue;
        }
        let campaign = match Campaign::new(&protocol.folder, sources, WALK_SEED, given.clone()) {
            Ok(campaign) => campaign,
            Err(found) if arguments.against.is_some() => return Err(CliError::from_diagnostics(&found, sources)),
            // A pack without what fuzzing needs is only checked.
            Err(_) => continue,
        };
        let mut model = None;
        if arguments.against.is_none() && !deviates {
            model = hub::reference_model(&arguments.hub.own, protocol, sources)?;
        }
        if model.is_some() || arguments.against.is_some() {
            let WalkPrograms { programs, covered, coverable } = walks::walk_programs(&campaign, WALK_SEED, WALKS);
            if !arguments.output.quiet && !arguments.choice.list {
                eprintln!("{}: {WALKS} walks cover {covered} of {coverable} pairs of messages", protocol.pack.name);
            }
            protocol.scenarios.programs.extend(programs);
        }
        comparer.add(Arc::clone(&campaign.corpus));
        if let Some(model) = model {
            comparer.set_second_hub(&protocol.pack.name, SecondHub::Model(model));
        }
    }
    Ok(Some(comparer))
}

/// Plays all rounds, ends the hubs that were started, and returns the report.
async fn run_rounds(
    started: &mut StartedHubs,
    mut rounds: Rounds,
    shown: RunOptions,
    sources: &mut Sources,
    log: &EventLog,
    quiet: bool,
) -> Result<RunReport, CliError> {
    let mut stop_signals = 0;
    let begun = Instant::now();
    let write = |event: &ScenarioEvent, sources: &Sources| {
        log.write(|| events::scenario_event(event, begun.elapsed(), sources));
    };
    while stop_signals == 0 {
        let next = rounds.next_round(sources).map_err(|found| CliError::from_diagnostics(&found, sources))?;
        let Some(round) = next else { break };
        stop_signals = run_round(started, round, &mut rounds, quiet, |event| write(event, sources)).await?;
    }
    let grace = if stop_signals < 2 { TERMINATION_GRACE } else { Duration::ZERO };
    let processes = started.end_processes(grace).await;
    Ok(rounds.finish(processes, shown, stop_signals > 0))
}

/// Appends the proposed deviations of a report to a file, which may be a target file.
fn write_deviations(path: &Path, report: &RunReport, quiet: bool) -> Result<(), CliError> {
    let entries = report.deviation_entries();
    if entries.is_empty() {
        if !quiet {
            eprintln!("there are no deviations to write to {}", path.display());
        }
        return Ok(());
    }
    let entries = to_toml(&entries);
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(entries.as_bytes())).map_err(|error| write_error(path, error))
}

fn write_error(path: &Path, error: std::io::Error) -> CliError {
    CliError::failed(format!("deviations cannot be written to {}", path.display()), error)
}

/// Runs the scenarios of one round, shows progress, passes all events to `log` and collects the reports. Returns the
/// number of stop signals received.
async fn run_round(
    started: &mut StartedHubs,
    round: Round,
    rounds: &mut Rounds,
    quiet: bool,
    log: impl Fn(&ScenarioEvent),
) -> Result<usize, CliError> {
    let mut progress = RunProgress::new(Some(round.count_plays()), "scenarios", quiet);
    let (events, inbox) = mpsc::channel(256);
    let (stop, interrupt) = watch::channel(false);
    let running = tokio::spawn(check::run_scenarios(round, events, interrupt));
    let handle = |event| match event {
        RunInput::Event(event) => {
            log(&event);
            progress.handle_event(&event);
            match event {
                ScenarioEvent::Finished(report) => rounds.add(*report),
                ScenarioEvent::Varied { id } => rounds.add_varied(&id),
                _ => {}
            }
        }
        RunInput::Stopping => {
            progress.print_line("stopping: waiting for running scenarios; Ctrl-C again to stop at once");
        }
    };
    let followed = hub::follow_run(running, inbox, &stop, &mut started.signals, None, handle).await;
    progress.finish();
    let (stop_signals, _) = followed?;
    Ok(stop_signals)
}

/// Parses `80%` or `80`.
fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok().filter(|percent| *percent <= 100);
    number.ok_or_else(|| "expected a percentage from 0% to 100%, such as 80%".to_owned())
}

/// Returns the command line of this run without secrets and without options that select scenarios or reports.
fn repeat_command(arguments: &CheckArgs, protocols: &[ValidProtocol]) -> Vec<String> {
    let mut words = match &arguments.client {
        Some(client) => client.repeat_command(&arguments.hub, protocols),
        None => arguments.hub.repeat_command("check", protocols),
    };
    words.extend(arguments.baseline.to_arguments());
    // The command must name scenario files outside the pack again.
    let files = arguments.choice.scenario.iter().filter(|text| scenario_files::is_scenario_file(text));
    words.extend(files.flat_map(|file| ["--scenario".to_owned(), file.clone()]));
    let flags = [
        ("--strict", arguments.output.strict),
        ("--destructive", arguments.destructive),
        ("--explore", arguments.explore),
    ];
    words.extend(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned()));
    if arguments.depth == Depth::Thorough {
        words.extend(["--depth".to_owned(), "thorough".to_owned()]);
    }
    if let Some(url) = &arguments.against {
        words.extend(["--against".to_owned(), url.clone()]);
    }
    words
}

/// Prints that no scenario is selected and why. Returns the exit code.
fn report_nothing_selected(arguments: &CheckArgs, known: &[String]) -> u8 {
    let chosen = [("--scenario", &arguments.choice.scenario), ("--rule", &arguments.choice.rule)];
    let words = chosen.iter().flat_map(|(option, values)| values.iter().map(move |value| format!("{option} {value}")));
    let words: Vec<String> = words.collect();
    let what = if words.is_empty() {
        match arguments.share {
            Some(share) => format!("share {share} has no scenario"),
            None => "there are no scenarios".to_owned(),
        }
    } else {
        format!("no scenario matches {}", words.join(" and "))
    };
    let names: Vec<&str> = known.iter().flat_map(|id| [Some(id.as_str()), id.split('/').nth(1)]).flatten().collect();
    let mut unknown = arguments.choice.scenario.iter().filter(|name| !names.contains(&name.as_str()));
    let similar = unknown.find_map(|name| nearest(name, names.iter().copied()));
    let hint = similar.map_or(String::new(), |name| format!(" Did you mean `{name}`?"));
    print_to_stdout(&format!("Nothing was checked: {what}.{hint}\n`hubproof check --list` lists all scenarios.\n"));
    super::exit::INCONCLUSIVE
}

/// Checks that some protocol has the prelude of a variation.
fn check_prelude(variation: Option<&Variation>, protocols: &[ValidProtocol]) -> Result<(), CliError> {
    let Some(name) = variation.and_then(Variation::prelude) else { return Ok(()) };
    let known: Vec<&str> =
        protocols.iter().flat_map(|protocol| &protocol.scenarios.shared.preludes).map(String::as_str).collect();
    if known.contains(&name) {
        return Ok(());
    }
    Err(CliError::usage(
        format!("no protocol has a prelude `{name}`"),
        suggest(name, known, "`hubproof check --list` lists the variations"),
    ))
}

/// The selection of scenarios.
struct ScenarioSelection {
    globs: Option<GlobSet>,
    rules: Vec<String>,
    /// Selected rules that only schemas name; they are checked wherever the hub sends the message.
    in_schemas: Vec<String>,
    /// With `--share`: the scenarios of the share.
    dealt: Option<BTreeSet<String>>,
}

/// Returns the ids of the rules that a scenario checks.
fn checked_rules(program: &Program) -> impl Iterator<Item = &String> {
    program.checks.iter().flat_map(|check| &check.rules).map(|used| &used.id)
}

impl ScenarioSelection {
    fn new(scenarios: &[&String], rules: &[String], protocols: &[ValidProtocol]) -> Result<Self, CliError> {
        let globs = if scenarios.is_empty() {
            None
        } else {
            let mut set = GlobSetBuilder::new();
            for text in scenarios {
                let no_pattern = |error| CliError::failed(format!("`{text}` is not a pattern"), error);
                set.add(Glob::new(text).map_err(no_pattern)?);
                // The name of a scenario stands for all its cases, and needs no protocol.
                for also in [format!("{text}/*"), format!("*/{text}"), format!("*/{text}/*")] {
                    set.add(GlobBuilder::new(&also).literal_separator(true).build().map_err(no_pattern)?);
                }
            }
            Some(set.build().map_err(|error| CliError::failed("failed to combine the patterns", error))?)
        };
        for rule in rules {
            if !protocols.iter().any(|protocol| protocol.pack.rules.contains_key(rule)) {
                let known: Vec<&str> =
                    protocols.iter().flat_map(|protocol| protocol.pack.rules.keys().map(String::as_str)).collect();
                return Err(CliError::usage(
                    format!("there is no rule `{rule}`"),
                    suggest(rule, known, "`hubproof packs show NAME --rules` lists the rules"),
                ));
            }
        }
        let rules = rules.to_vec();
        let programs = || protocols.iter().flat_map(|protocol| &protocol.scenarios.programs);
        let messages = || protocols.iter().flat_map(|protocol| &protocol.pack.messages);
        let schema_only = |id: &&String| {
            !programs().any(|program| checked_rules(program).any(|other| other == *id))
                && messages()
                    .any(|message| message.schema.rules.contains(id) || message.schema.should_rules.contains(id))
        };
        let in_schemas = rules.iter().filter(schema_only).cloned().collect();
        Ok(Self { globs, rules, in_schemas, dealt: None })
    }

    fn selects(&self, program: &Program) -> bool {
        let named = self.globs.as_ref().is_none_or(|globs| globs.is_match(&program.id));
        let ruled = self.rules.is_empty()
            || checked_rules(program).any(|id| self.rules.contains(id))
            || self.in_schemas.iter().any(|id| program.pack.rules.contains_key(id));
        named && ruled && self.dealt.as_ref().is_none_or(|dealt| dealt.contains(&program.id))
    }

    /// Returns the selected scenarios of a protocol.
    fn programs_of<'p>(&self, protocol: &'p ValidProtocol) -> impl Iterator<Item = &'p Arc<Program>> {
        protocol.scenarios.programs.iter().filter(|program| self.selects(program))
    }

    /// Returns the selection of a share: of all selected scenarios of all protocols, in their order, every Nth.
    fn with_share(self, share: Share, protocols: &[ValidProtocol]) -> Self {
        let selected = protocols.iter().flat_map(|protocol| self.programs_of(protocol));
        let selected = selected.map(|program| program.id.clone());
        let dealt = selected.enumerate().filter(|(number, _)| share.takes(*number as u64)).map(|(_, id)| id);
        Self { dealt: Some(dealt.collect()), ..self }
    }
}

fn render_list(protocols: &[ValidProtocol], selection: &ScenarioSelection) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for protocol in protocols {
        let _ = writeln!(out, "{} {}", protocol.pack.name, protocol.pack.version);
        for program in selection.programs_of(protocol) {
            let needs: Vec<String> = program.needs.iter().map(crate::scenario::Need::name).collect();
            let needs = if needs.is_empty() { String::new() } else { format!("  (needs {})", needs.join(", ")) };
            let _ = writeln!(out, "  {:34} {}{needs}", program.id, program.title);
        }
        let shared = &protocol.scenarios.shared;
        if !shared.settings.is_empty() {
            let _ = writeln!(out, "  settings (--set NAME=VALUE, or [settings] of a target file)");
        }
        for (name, setting) in &shared.settings {
            let default = match (&setting.default, setting.secret) {
                (Some(default), false) => format!(", default {default}"),
                (Some(_), true) => ", secret (under [secrets]), with a default".to_owned(),
                (None, true) => ", secret (under [secrets])".to_owned(),
                (None, false) => String::new(),
            };
            let _ = writeln!(out, "    {name:20} {}{default}", setting.about);
        }
        if !shared.hooks.is_empty() {
            let _ = writeln!(
                out,
                "  hooks ([hooks.NAME.http] of a target file, with url and body; or [hooks.NAME], with command)"
            );
        }
        for (name, hook) in &shared.hooks {
            let args = if hook.args.is_empty() { String::new() } else { format!(" ({})", hook.args.join(", ")) };
            let _ = writeln!(out, "    {name:20} {}{args}", hook.about);
        }
        let _ = writeln!(out, "  variations (--variation NAME; `--depth thorough` plays all)");
        for variation in shared.variations() {
            let _ = writeln!(out, "    {:20} {}", variation.to_string(), variation.describe());
        }
    }
    out
}
