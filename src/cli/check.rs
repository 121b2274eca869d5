//! `hubproof check`: proves that a hub speaks its protocol.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use globset::{Glob, GlobSet, GlobSetBuilder};
use tokio::sync::{mpsc, watch};

use super::baseline::BaselineArgs;
use super::exec::{self, ExecArgs};
use super::files::{self, Protocol};
use super::progress::Progress;
use super::signals::Signals;
use super::{Trouble, print, runtime};
use crate::check::{self, EmbeddedHubs, HubProcess, Options, Subject};
use crate::diagnostic::suggest;
use crate::event::Event;
use crate::exec::GRACE;
use crate::report::{self, Fold, Outline, RunOptions, RunReport, json, junit, terminal};
use crate::scenario::Program;
use crate::source::Sources;
use crate::target::{self, Override, Target};

/// Check a hub; without a URL, the reference server that is built in
#[derive(Args)]
pub struct CheckArgs {
    /// The hub: ws:// or wss://
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// What the hub is checked as; without a URL, each of these (default: all)
    #[arg(long, value_name = "NAME")]
    protocol: Vec<String>,
    /// A TOML file that says how the hub is set up: addresses, secrets, hooks
    #[arg(long, value_name = "FILE")]
    target: Option<PathBuf>,
    /// A setting of the hub, or any key of the target file: version=0.2.0, secrets.jwt_secret=..., patience=10s
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// A pack of yours instead of a built-in one: a folder with asyncapi.yaml, messages/, rules.yaml, scenarios/
    #[arg(long, value_name = "DIR")]
    pack: Option<PathBuf>,
    /// Only scenarios whose name fits: 'concierge/group-*', or 'seq'
    #[arg(long, value_name = "GLOB")]
    scenario: Vec<String>,
    /// Only scenarios that check this rule
    #[arg(long, value_name = "ID")]
    rule: Vec<String>,
    /// List what would run, and what the protocol can use: settings, hooks, needs
    #[arg(long)]
    list: bool,
    /// Scenarios at a time
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Warnings fail the run
    #[arg(long)]
    strict: bool,
    /// A broken must that the document only implies warns
    #[arg(long)]
    stated_only: bool,
    /// Write a report: json=PATH or junit=PATH; - is stdout
    #[arg(long = "report", value_name = "FORMAT=PATH")]
    reports: Vec<String>,
    /// The longest a scenario may take
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = target::parse_duration)]
    timeout: Duration,
    /// Stretches every wait: 2 for a hub, or a machine, that is twice as slow
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    patience: f64,
    /// Play everything N times; what fails only sometimes is called flaky
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: u32,
    /// One line per frame, on stderr
    #[arg(long)]
    trace: bool,
    /// List what is otherwise only counted
    #[arg(short, long)]
    verbose: bool,
    /// Scenarios that may destroy the hub run too
    #[arg(long)]
    destructive: bool,
    #[command(flatten)]
    exec: ExecArgs,
    #[command(flatten)]
    baseline: BaselineArgs,
    /// Trust the certificates in this file (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Trust whatever certificate the hub shows
    #[arg(long)]
    insecure: bool,
    /// Break the built-in reference server on purpose, to see what a finding looks like: `hubproof serve --list-faults`
    #[arg(long, value_name = "ID", conflicts_with_all = ["url", "target"])]
    fault: Option<String>,
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.1..=1000.0).contains(&factor) => Ok(factor),
        _ => Err("a number from 0.1 to 1000".to_owned()),
    }
}

/// Where a report goes.
enum Sink {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy)]
enum Format {
    Json,
    Junit,
}

pub fn run(arguments: CheckArgs) -> Result<u8, Trouble> {
    let mut sources = Sources::default();
    let sinks = sinks(&arguments.reports)?;
    let overrides = overrides(&arguments)?;
    let mut named = match &arguments.target {
        Some(path) => Some(read_target(path, &overrides, &mut sources)?),
        None => None,
    };
    if arguments.url.is_none() || named.is_some() {
        arguments.exec.over(named.as_mut())?;
    }
    let mut protocols = protocols(&arguments, named.as_ref(), &mut sources)?;
    let selection = Selection::new(&arguments, &protocols)?;
    own_fault(&arguments, &protocols)?;
    let baselines = arguments.baseline.read(&protocols, &mut sources)?;
    // A choice of scenarios chooses protocols, too.
    protocols.retain(|protocol| protocol.scenarios.programs.iter().any(|program| selection.takes(program)));
    if protocols.is_empty() {
        return Ok(nothing_chosen(&arguments));
    }
    if arguments.list {
        print(&list(&protocols, &selection));
        return Ok(0);
    }
    let options = Options {
        jobs: usize::from(arguments.jobs),
        stretch: arguments.patience,
        repeat: arguments.repeat as usize,
        limit: arguments.timeout.mul_f64(arguments.patience.max(1.0)),
        stated_only: arguments.stated_only,
        trace: arguments.trace,
        destructive: arguments.destructive,
        stamp: stamp(),
        now_ms: now_ms(),
    };
    let outlines = protocols
        .iter()
        .map(|p| Outline::new(Arc::clone(&p.pack), &p.scenarios.programs, |program| selection.takes(program)))
        .collect();
    let mut shown = RunOptions {
        strict: arguments.strict,
        stated_only: arguments.stated_only,
        command: again(&arguments, &protocols),
        target: arguments
            .url
            .clone()
            .or_else(|| named.as_ref().and_then(|t| t.instances.first()).map(|i| i.url.clone()))
            .unwrap_or_else(|| "embedded reference server".to_owned()),
    };
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let mut subjects = Vec::new();
        let mut hubs = Vec::new();
        let mut processes = Vec::new();
        // Heard from here on: whatever is started has to be ended.
        let mut signals = Signals::listen()?;
        for protocol in &protocols {
            let (target, embedded) =
                subject_target(&arguments, named.as_ref(), &overrides, protocol, &mut sources).await?;
            unknown_settings(&target, &protocols)?;
            hubs.extend(embedded.clone());
            let programs =
                protocol.scenarios.programs.iter().filter(|program| selection.takes(program)).cloned().collect();
            let mut subject = Subject {
                pack: Arc::clone(&protocol.pack),
                shared: Arc::clone(&protocol.scenarios.shared),
                programs,
                target,
                embedded,
                processes: Vec::new(),
            };
            for process in arguments.exec.prepare(&mut subject)? {
                processes.push((protocol.pack.name.clone(), process));
            }
            subjects.push(subject);
        }
        // Whatever else a report says was masked when it was recorded: here, words of its own would fall victim to a
        // secret like `pass`.
        for masker in subjects.iter().map(check::masker) {
            let texts = shown.command.iter_mut().chain([&mut shown.target]);
            texts.for_each(|text| *text = masker.mask(text).into_owned());
        }
        if !processes.is_empty() {
            signals = signals.with_hangup()?;
        }
        let started: Vec<_> = processes.iter().map(|(_, process)| Arc::clone(process)).collect();
        if let Err(ending) = exec::start(&started, &mut signals).await {
            return ending.told().map(Err);
        }
        let report = go(subjects, options, Fold::new(outlines), shown, processes, &mut signals).await;
        exec::end(&started, Duration::ZERO, &mut signals).await;
        for hub in hubs {
            hub.shutdown().await;
        }
        report.map(Ok)
    })?;
    // Scenarios that run on are cut off here: everything has been said.
    runtime.shutdown_timeout(Duration::from_millis(200));
    let mut report = match done {
        Ok(report) => report,
        Err(code) => return Ok(code),
    };
    baselines.settle(&mut report, &sources)?;
    let code = report::exit_code(&report);
    write_out(&report, &sources, &sinks, arguments.verbose)?;
    Ok(code)
}

/// The run itself: one loop shows progress and folds.
async fn go(
    subjects: Vec<Subject>,
    options: Options,
    mut fold: Fold,
    shown: RunOptions,
    processes: Vec<(String, Arc<HubProcess>)>,
    signals: &mut Signals,
) -> Result<RunReport, Trouble> {
    let started = Instant::now();
    let started_ms = u64::try_from(options.now_ms).unwrap_or(0);
    let mut progress = Progress::new(check::count(&subjects, &options));
    let (events, mut inbox) = mpsc::channel(256);
    let (stop, interrupt) = watch::channel(false);
    let mut running = tokio::spawn(check::run(subjects, options, events, interrupt));
    let mut asked_to_stop = 0;
    let mut ended = None;
    loop {
        tokio::select! {
            event = inbox.recv() => match event {
                Some(event) => {
                    progress.see(&event);
                    if let Event::Finished(report) = event {
                        fold.feed(*report);
                    }
                }
                // Everybody who could report has ended.
                None => break,
            },
            result = &mut running, if ended.is_none() => ended = Some(result),
            () = signals.next() => {
                asked_to_stop += 1;
                if asked_to_stop > 1 {
                    break;
                }
                let _ = stop.send(true);
                progress.line("stopping: the scenarios under way end first; Ctrl-C again to stop at once");
            }
        }
    }
    progress.finish();
    if ended.is_none() && asked_to_stop < 2 {
        // It has said all, and is about to end.
        ended = Some(running.await);
    }
    match ended {
        Some(Ok(Err(error))) => return Err(Trouble::new(error.to_string())),
        Some(Err(error)) if error.is_panic() => {
            return Err(Trouble::new(format!("hubproof failed: {error}; please report this")));
        }
        _ => {}
    }
    for (protocol, process) in &processes {
        let grace = if asked_to_stop < 2 { GRACE } else { Duration::ZERO };
        exec::end(std::slice::from_ref(process), grace, signals).await;
        fold.process(protocol, process.report());
    }
    Ok(fold.finish(shown, started_ms, started.elapsed(), asked_to_stop > 0))
}

// ---- what is checked

fn overrides(arguments: &CheckArgs) -> Result<Vec<Override>, Trouble> {
    let mut texts = arguments.sets.clone();
    if let Some(ca) = &arguments.ca {
        texts.push(format!("tls.ca='{}'", ca.display()));
    }
    if arguments.insecure {
        texts.push("tls.insecure=true".to_owned());
    }
    if let (Some(url), Some(_)) = (&arguments.url, &arguments.target) {
        texts.push(format!("url='{url}'"));
    }
    texts.iter().map(|text| target::parse_override(text).map_err(Trouble::new)).collect()
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read_secret(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

fn read_target(path: &Path, overrides: &[Override], sources: &mut Sources) -> Result<Target, Trouble> {
    let file = files::read(path, sources)?;
    target::parse(sources, file, overrides, &environment, &read_secret)
        .map_err(|found| Trouble::from_diagnostics(&found, sources))
}

/// The protocols of the run, loaded and without a mistake.
fn protocols(arguments: &CheckArgs, target: Option<&Target>, sources: &mut Sources) -> Result<Vec<Protocol>, Trouble> {
    if let Some(directory) = &arguments.pack {
        let folder = files::user_folder(directory, sources)?;
        let name = folder.name.clone();
        let protocol = files::load(folder, sources).usable(sources)?;
        let hub_named = arguments.url.is_some() || target.is_some() || arguments.list;
        if !hub_named && !hubproof_reference::protocols().contains(&name.as_str()) {
            return Err(Trouble::new(format!(
                "the reference server does not speak `{name}`\n  help: name the hub: hubproof check URL --pack {}",
                directory.display()
            )));
        }
        return Ok(vec![protocol]);
    }
    let named = |protocol: &Protocol| target.and_then(|target| target.protocol.as_ref()) == Some(&protocol.pack.name);
    let mut names = arguments.protocol.clone();
    if names.is_empty() {
        names.extend(target.and_then(|target| target.protocol.clone()));
    }
    if names.is_empty() {
        if arguments.url.is_some() || target.is_some() {
            return Err(Trouble::new(format!(
                "which protocol does this hub speak?\n  help: --protocol {}",
                files::built_in().join(" | ")
            )));
        }
        let spoken = hubproof_reference::protocols();
        names = files::built_in().into_iter().filter(|name| spoken.contains(name)).map(str::to_owned).collect();
    }
    if names.len() > 1 && (arguments.url.is_some() || target.is_some()) {
        return Err(Trouble::new(
            "one hub is checked as one protocol\n  help: name --protocol once, or leave the URL out to check the built-in reference server",
        ));
    }
    let loaded: Result<Vec<_>, _> =
        names.iter().map(|name| files::built_in_protocol(name, sources)?.usable(sources)).collect();
    let asked = |protocol: &Protocol| arguments.protocol.contains(&protocol.pack.name) || named(protocol);
    loaded.map(|loaded| loaded.into_iter().filter(|protocol| !protocol.setups.on_request || asked(protocol)).collect())
}

/// The target of one protocol: the user's, or the reference server, started for it.
async fn subject_target(
    arguments: &CheckArgs,
    named: Option<&Target>,
    overrides: &[Override],
    protocol: &Protocol,
    sources: &mut Sources,
) -> Result<(Target, Option<Arc<EmbeddedHubs>>), Trouble> {
    let target = match (named, &arguments.url) {
        (Some(target), _) => target.clone(),
        (None, Some(url)) => {
            let mut target = target::from_url(sources, url, overrides, &environment, &read_secret)
                .map_err(|found| Trouble::from_diagnostics(&found, sources))?;
            arguments.exec.over(Some(&mut target))?;
            target
        }
        (None, None) => {
            let name = protocol.pack.name.as_str();
            let mut faults = hubproof_reference::faults().filter(|fault| fault.protocol == name);
            let fault = arguments.fault.as_deref().filter(|id| faults.any(|fault| fault.id == *id));
            let hubs = EmbeddedHubs::start(name, &protocol.setups, fault)
                .await
                .map_err(|error| Trouble::new(error.to_string()))?;
            let text = protocol.setups.target_file(&protocol.pack.name, hubs.addresses());
            let file = sources.add("reference server", text);
            let target = target::parse(sources, file, overrides, &environment, &read_secret)
                .map_err(|found| Trouble::from_diagnostics(&found, sources))?;
            return Ok((target, Some(Arc::new(hubs))));
        }
    };
    Ok((target, None))
}

/// The fault must be one that the embedded server has, in a protocol that is checked.
fn own_fault(arguments: &CheckArgs, protocols: &[Protocol]) -> Result<(), Trouble> {
    let Some(id) = &arguments.fault else { return Ok(()) };
    match hubproof_reference::faults().find(|fault| fault.id == id) {
        Some(fault) if protocols.iter().any(|protocol| protocol.pack.name == fault.protocol) => Ok(()),
        Some(fault) => Err(Trouble::new(format!(
            "`{id}` is a fault of {}, which is not checked here\n  help: --protocol {}",
            fault.protocol, fault.protocol
        ))),
        None => {
            let known: Vec<&str> = hubproof_reference::faults().map(|fault| fault.id).collect();
            let help = suggest(id, known, "`hubproof serve --list-faults` lists them");
            Err(Trouble::new(format!("there is no fault `{id}`\n  help: {help}")))
        }
    }
}

/// A setting that none of the protocols knows changes nothing, which its writer will not have meant.
fn unknown_settings(target: &Target, protocols: &[Protocol]) -> Result<(), Trouble> {
    let known = || protocols.iter().flat_map(|protocol| protocol.scenarios.shared.settings.keys().map(String::as_str));
    let mut set = target.instances.iter().flat_map(|instance| instance.settings.keys());
    let Some(name) = set.find(|name| !known().any(|known| known == *name)) else { return Ok(()) };
    let names: Vec<&str> = protocols.iter().map(|protocol| protocol.pack.name.as_str()).collect();
    let help = suggest(
        name,
        known(),
        &format!("`hubproof check --list --protocol {}` lists them", names.join(" --protocol ")),
    );
    Err(Trouble::new(format!("{} has no setting `{name}`\n  help: {help}", names.join(", or "))))
}

/// Says that there is nothing to do, and how that may have come; the exit code.
fn nothing_chosen(arguments: &CheckArgs) -> u8 {
    let chosen = [("--scenario", &arguments.scenario), ("--rule", &arguments.rule)];
    let words = chosen.iter().flat_map(|(option, values)| values.iter().map(move |value| format!("{option} {value}")));
    let words: Vec<String> = words.collect();
    let what = if words.is_empty() {
        "there is no scenario".to_owned()
    } else {
        format!("no scenario fits {}", words.join(" and "))
    };
    print(&format!("Nothing was checked: {what}.\n`hubproof check --list` names all scenarios.\n"));
    super::exit::INCONCLUSIVE
}

/// Which scenarios are to run.
struct Selection {
    globs: Option<GlobSet>,
    rules: Vec<String>,
    /// Those of them that no scenario names, only schemas: they are judged wherever the hub sends the message.
    in_schemas: Vec<String>,
}

/// Ids of the rules that the checks of a scenario name.
fn checks(program: &Program) -> impl Iterator<Item = &String> {
    program.checks.iter().flat_map(|check| &check.rules).map(|used| &used.id)
}

impl Selection {
    fn new(arguments: &CheckArgs, protocols: &[Protocol]) -> Result<Self, Trouble> {
        let globs = if arguments.scenario.is_empty() {
            None
        } else {
            let mut set = GlobSetBuilder::new();
            for text in &arguments.scenario {
                let glob =
                    Glob::new(text).map_err(|error| Trouble::new(format!("`{text}` is not a pattern: {error}")))?;
                set.add(glob);
                // A name without its protocol is enough.
                if !text.contains('/')
                    && let Ok(glob) = Glob::new(&format!("*/{text}"))
                {
                    set.add(glob);
                }
            }
            Some(set.build().map_err(|error| Trouble::new(error.to_string()))?)
        };
        for rule in &arguments.rule {
            if !protocols.iter().any(|protocol| protocol.pack.rules.contains_key(rule)) {
                let known: Vec<&str> =
                    protocols.iter().flat_map(|protocol| protocol.pack.rules.keys().map(String::as_str)).collect();
                return Err(Trouble::new(format!(
                    "there is no rule `{rule}`\n  help: {}",
                    suggest(rule, known, "`hubproof packs show NAME --rules` lists them")
                )));
            }
        }
        let rules = arguments.rule.clone();
        let programs = || protocols.iter().flat_map(|protocol| &protocol.scenarios.programs);
        let messages = || protocols.iter().flat_map(|protocol| &protocol.pack.messages);
        let schema_only = |id: &&String| {
            !programs().any(|program| checks(program).any(|other| other == *id))
                && messages()
                    .any(|message| message.schema.rules.contains(id) || message.schema.should_rules.contains(id))
        };
        let in_schemas = rules.iter().filter(schema_only).cloned().collect();
        Ok(Self { globs, rules, in_schemas })
    }

    fn takes(&self, program: &Program) -> bool {
        let named = self.globs.as_ref().is_none_or(|globs| globs.is_match(&program.id));
        let ruled = self.rules.is_empty()
            || checks(program).any(|id| self.rules.contains(id))
            || self.in_schemas.iter().any(|id| program.pack.rules.contains_key(id));
        named && ruled
    }
}

fn list(protocols: &[Protocol], selection: &Selection) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for protocol in protocols {
        let _ = writeln!(out, "{} {}", protocol.pack.name, protocol.pack.version);
        for program in protocol.scenarios.programs.iter().filter(|program| selection.takes(program)) {
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
                (Some(_), true) => ", secret, with a default".to_owned(),
                (None, true) => ", secret".to_owned(),
                (None, false) => String::new(),
            };
            let _ = writeln!(out, "    {name:20} {}{default}", setting.about);
        }
        if !shared.hooks.is_empty() {
            let _ = writeln!(out, "  hooks ([hooks.NAME] of a target file)");
        }
        for (name, hook) in &shared.hooks {
            let args = if hook.args.is_empty() { String::new() } else { format!(" ({})", hook.args.join(", ")) };
            let _ = writeln!(out, "    {name:20} {}{args}", hook.about);
        }
    }
    out
}

// ---- reports

fn sinks(texts: &[String]) -> Result<Vec<(Format, Sink)>, Trouble> {
    let mut sinks = Vec::new();
    for text in texts {
        let help = "--report json=report.json or --report junit=-";
        let (format, path) =
            text.split_once('=').ok_or_else(|| Trouble::new(format!("`{text}` is not FORMAT=PATH\n  help: {help}")))?;
        let format = match format {
            "json" => Format::Json,
            "junit" => Format::Junit,
            other => {
                return Err(Trouble::new(format!(
                    "there is no report format `{other}`\n  help: {}",
                    suggest(other, ["json", "junit"], help)
                )));
            }
        };
        let sink = if path == "-" { Sink::Stdout } else { Sink::File(PathBuf::from(path)) };
        if let Sink::File(path) = &sink {
            // Found now rather than after the run.
            writable(path)
                .map_err(|error| Trouble::new(format!("a report cannot be written to {}: {error}", path.display())))?;
        }
        sinks.push((format, sink));
    }
    if sinks.iter().filter(|(_, sink)| matches!(sink, Sink::Stdout)).count() > 1 {
        return Err(Trouble::new("only one report can go to stdout"));
    }
    Ok(sinks)
}

/// Whether the file could be written, without touching it.
pub(super) fn writable(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return std::fs::OpenOptions::new().append(true).open(path).map(drop);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(folder).map(drop)
}

fn write_out(report: &RunReport, sources: &Sources, sinks: &[(Format, Sink)], verbose: bool) -> Result<(), Trouble> {
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
                .map_err(|error| Trouble::new(format!("failed to write {}: {error}", path.display())))?,
        }
    }
    Ok(())
}

/// The words that start this run again, without secrets and without what selects scenarios or reports.
fn again(arguments: &CheckArgs, protocols: &[Protocol]) -> Vec<String> {
    let settings = || protocols.iter().flat_map(|protocol| &protocol.scenarios.shared.settings);
    let declared = |key: &str| settings().any(|(name, setting)| setting.secret && key.ends_with(name.as_str()));
    let mut words = vec!["hubproof".to_owned(), "check".to_owned()];
    words.extend(arguments.url.clone());
    words.extend(arguments.exec.words());
    words.extend(arguments.baseline.words());
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    if let Some(path) = &arguments.target {
        option("--target", path.display().to_string());
    }
    if let Some(path) = &arguments.pack {
        option("--pack", path.display().to_string());
    }
    for set in &arguments.sets {
        match set.split_once('=') {
            Some((name, _)) if name.contains("secret") || declared(name.trim_matches(['"', '\'', ' '])) => {
                option("--set", format!("{name}=***"))
            }
            _ => option("--set", set.clone()),
        }
    }
    if let Some(path) = &arguments.ca {
        option("--ca", path.display().to_string());
    }
    if (arguments.patience - 1.0).abs() > f64::EPSILON {
        option("--patience", arguments.patience.to_string());
    }
    if let Some(fault) = &arguments.fault {
        option("--fault", fault.clone());
    }
    let flags = [
        ("--insecure", arguments.insecure),
        ("--strict", arguments.strict),
        ("--stated-only", arguments.stated_only),
        ("--destructive", arguments.destructive),
    ];
    words.extend(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned()));
    words
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(0))
}

/// Six letters and digits that no other run will have had.
fn stamp() -> String {
    let number = uuid::Uuid::new_v4().as_u64_pair().0;
    check::base36(number).chars().take(6).collect()
}
