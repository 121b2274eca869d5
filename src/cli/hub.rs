//! The arguments for a hub and its protocol, which all commands that use a hub share, and the start of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::CliError;
use super::exec::{self, ExecArgs};
use super::protocol_files::{self, PackArgs, ValidProtocol};
use super::signals::SignalListener;
use super::tls_args::TlsArgs;
use crate::check::comparison::SecondHub;
use crate::config::{self, Override, Target};
use crate::deviation::Deviations;
use crate::hub::prepare::{self, SetupError, TestedHub, instance_settings};
use crate::hub::supervisor::HubProcess;
use crate::interpreter::requested_addresses;
use crate::outcome::ProcessReport;
use crate::reference::hubs::EmbeddedHubs;
use crate::reference::model::ReferenceModel;
use crate::report::RunOptions;
use crate::report::events::ScenarioEvent;
use crate::scenario::Program;
use crate::syntax::diagnostic::suggest;
use crate::syntax::matcher;
use crate::syntax::source::Sources;
use crate::transport::files::read_text;
use crate::transport::proxy::Proxy;
use crate::websocket::endpoint::Endpoint;

#[derive(Args)]
pub struct HubArgs {
    /// URL of the hub: ws:// or wss://; tcp:// for ZeroMQ, and tcp+lines:// for lines
    #[arg(value_name = "URL")]
    pub url: Option<String>,
    /// Protocol the hub speaks; without a URL, protocols to run (repeatable; default: all)
    #[arg(long, value_name = "NAME")]
    pub protocol: Vec<String>,
    /// Target file (TOML) that describes the hub: addresses, settings, secrets, hooks, deviations
    #[arg(long, value_name = "FILE")]
    pub target: Option<PathBuf>,
    /// Set a setting of the hub or any key of the target file: version=0.2.0, secrets.jwt_secret=..., patience=10s
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    #[command(flatten)]
    pub own: PackArgs,
    /// Warn instead of failing when the document only implies the broken rule
    #[arg(long)]
    pub stated_only: bool,
    /// Time limit per scenario
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = config::parse_duration)]
    pub timeout: Duration,
    /// Multiply every waiting time by this factor, such as 2 for a hub or machine that is twice as slow
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_factor)]
    pub stretch: f64,
    #[command(flatten)]
    pub exec: ExecArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Switch on a fault of the built-in reference server to see how it is reported; `hubproof serve --list-faults`
    /// lists them
    #[arg(long, value_name = "ID", conflicts_with_all = ["url", "target"])]
    pub fault: Option<String>,
}

/// Returns the proxy between hubproof and a hub; connecting reports a proxy that cannot be used.
fn proxy_of(endpoint: &Endpoint) -> Option<Proxy> {
    Proxy::for_hub(endpoint, &|name| std::env::var(name).ok()).ok().flatten()
}

pub(super) fn parse_factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.1..=1000.0).contains(&factor) => Ok(factor),
        _ => Err("expected a number from 0.1 to 1000".to_owned()),
    }
}

/// The parsed hub arguments; nothing is started yet.
pub struct ParsedHubArgs {
    overrides: Vec<Override>,
    /// The target file.
    pub target: Option<Target>,
}

impl HubArgs {
    /// Parses the target file and the overrides.
    ///
    /// # Errors
    ///
    /// An error in the target file or in a `--set`.
    pub fn read_target_and_overrides(&self, sources: &mut Sources) -> Result<ParsedHubArgs, CliError> {
        let overrides = self.parse_overrides(true)?;
        let mut target = match &self.target {
            Some(path) => Some(read_target(path, &overrides, sources)?),
            None => None,
        };
        let uses_tls = |target: &Target| target.instances.iter().any(|instance| instance.url.tls);
        if !self.tls.insecure && target.as_ref().is_some_and(|target| target.tls.insecure && uses_tls(target)) {
            eprintln!("warning: the target trusts any certificate (tls.insecure), so secrets may go to another server");
        }
        if self.url.is_none() || target.is_some() {
            self.exec.override_commands(target.as_mut())?;
        }
        Ok(ParsedHubArgs { overrides, target })
    }

    /// Fails if the hub is on another machine and `--yes` was not given.
    pub fn check_confirmed(
        &self,
        named: &ParsedHubArgs,
        more: Vec<Endpoint>,
        yes: bool,
        danger: &str,
        verb: &str,
    ) -> Result<(), CliError> {
        match self.endpoints(named).chain(more).find(|endpoint: &Endpoint| !endpoint.is_loopback()).filter(|_| !yes) {
            None => Ok(()),
            Some(url) => Err(CliError::usage(
                format!("{url} is not on this machine, and {danger}"),
                format!("pass --yes if you are allowed to {verb} it"),
            )),
        }
    }

    /// Returns the addresses of the hub.
    pub fn endpoints<'a>(&'a self, named: &'a ParsedHubArgs) -> impl Iterator<Item = Endpoint> + 'a {
        let instances = named.target.iter().flat_map(|target| &target.instances).map(|instance| instance.url.clone());
        self.url.iter().filter_map(|url| url.parse().ok()).chain(instances)
    }

    /// Warns that a load run uses no proxy.
    ///
    /// # Errors
    ///
    /// The address of a hub is a Unix socket, to which load runs do not connect.
    pub fn check_direct(&self, named: &ParsedHubArgs) -> Result<(), CliError> {
        for endpoint in self.endpoints(named) {
            if endpoint.unix.is_some() {
                let help = "let the hub listen at an address such as ws://127.0.0.1:4000, too";
                return Err(CliError::usage("load does not connect to Unix sockets", help));
            }
            if let Some(proxy) = proxy_of(&endpoint) {
                eprintln!("warning: load connects to {} itself, not through {proxy}", endpoint.authority());
            }
        }
        Ok(())
    }

    /// Returns the name of the hub in reports, with the proxy on the way to it.
    pub fn reached_hub_name(&self, named: &ParsedHubArgs) -> String {
        let proxy = self.endpoints(named).next().as_ref().and_then(proxy_of);
        self.hub_name(named) + &proxy.map_or(String::new(), |proxy| format!(" through {proxy}"))
    }

    /// Returns the name of the hub in reports.
    pub fn hub_name(&self, named: &ParsedHubArgs) -> String {
        let of_file = || named.target.as_ref()?.instances.first().map(|instance| instance.url.to_string());
        self.url.clone().or_else(of_file).unwrap_or_else(|| "embedded reference server".to_owned())
    }

    /// Returns the overrides, including those of addresses if `addressed` is set.
    fn parse_overrides(&self, addressed: bool) -> Result<Vec<Override>, CliError> {
        let mut texts = self.sets.clone();
        texts.extend(self.tls.overrides());
        if let (Some(url), Some(_), true) = (&self.url, &self.target, addressed) {
            texts.push(format!("url='{url}'"));
        }
        texts.iter().map(|text| config::parse_override(text).map_err(CliError::from)).collect()
    }

    /// Loads the protocols of the run: if none is named, those that `scenarios`, the names chosen, begin with. With
    /// `hubless`, the command sends nothing to a hub, so no hub has to be given.
    pub fn load_protocols(
        &self,
        command: &str,
        target: Option<&Target>,
        hubless: bool,
        scenarios: &[&String],
        sources: &mut Sources,
    ) -> Result<Vec<ValidProtocol>, CliError> {
        if let Some(directory) = &self.own.pack {
            let loaded = protocol_files::load_user_pack(directory, self.own.perspective, sources)?;
            let name = loaded.folder.name.clone();
            let protocol = loaded.into_valid(sources)?;
            let hub_named = self.url.is_some() || target.is_some() || hubless;
            if !hub_named && !hubproof_reference::protocols().contains(&name.as_str()) {
                return Err(CliError::usage(
                    format!("the reference server does not speak `{name}`"),
                    format!("give the URL of the hub: hubproof {command} URL --pack {}", directory.display()),
                ));
            }
            return Ok(vec![protocol]);
        }
        let named =
            |protocol: &ValidProtocol| target.and_then(|target| target.protocol.as_ref()) == Some(&protocol.pack.name);
        let mut names = self.protocol.clone();
        if names.is_empty() {
            names.extend(target.and_then(|target| target.protocol.clone()));
        }
        if names.is_empty() {
            if self.url.is_some() || target.is_some() {
                return Err(CliError::usage(
                    "the protocol of the hub is not given",
                    format!(
                        "--protocol {}; `hubproof init URL` recognises it; for your own: --pack PATH",
                        protocol_files::built_in_names().join(" | ")
                    ),
                ));
            }
            let spoken = hubproof_reference::protocols();
            names = protocol_files::built_in_names()
                .into_iter()
                .filter(|name| spoken.contains(name))
                .map(str::to_owned)
                .collect();
            let of_scenario = |text: &&String| {
                text.split_once('/').map(|(name, _)| name.to_owned()).filter(|name| names.contains(name))
            };
            if let Some(chosen) = scenarios.iter().map(of_scenario).collect::<Option<Vec<_>>>()
                && !chosen.is_empty()
            {
                names.retain(|name| chosen.contains(name));
            }
        }
        if names.len() > 1 && (self.url.is_some() || target.is_some()) {
            return Err(CliError::usage(
                "a hub can be tested with only one protocol at a time",
                "give --protocol once, or leave out the URL to test the built-in reference server",
            ));
        }
        let loaded: Result<Vec<_>, _> =
            names.iter().map(|name| protocol_files::load_built_in(name, sources)?.into_valid(sources)).collect();
        let asked = |protocol: &ValidProtocol| self.protocol.contains(&protocol.pack.name) || named(protocol);
        loaded.map(|loaded| {
            loaded.into_iter().filter(|protocol| !protocol.setups.on_request || asked(protocol)).collect()
        })
    }

    /// Checks that the reference server has the fault that `--fault` names, in a protocol of the run.
    pub fn check_fault(&self, protocols: &[ValidProtocol]) -> Result<(), CliError> {
        let Some(id) = &self.fault else { return Ok(()) };
        match hubproof_reference::faults().find(|fault| fault.id == id) {
            Some(fault) if protocols.iter().any(|protocol| protocol.pack.name == fault.protocol) => Ok(()),
            Some(fault) => Err(CliError::usage(
                format!("`{id}` is a fault of {}, which is not part of this run", fault.protocol),
                format!("--protocol {}", fault.protocol),
            )),
            None => {
                let known: Vec<&str> = hubproof_reference::faults().map(|fault| fault.id).collect();
                let help = suggest(id, known, "`hubproof serve --list-faults` lists them");
                Err(CliError::usage(format!("there is no fault `{id}`"), help))
            }
        }
    }

    /// Returns the command line of this run without secrets and without the command's own options.
    pub fn repeat_command(&self, command: &str, protocols: &[ValidProtocol]) -> Vec<String> {
        let settings = || protocols.iter().flat_map(|protocol| &protocol.scenarios.shared.settings);
        let declared = |key: &str| settings().any(|(name, setting)| setting.secret && key.ends_with(name.as_str()));
        let mut words = vec!["hubproof".to_owned(), command.to_owned()];
        words.extend(self.url.clone());
        words.extend(self.exec.to_arguments());
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        if let Some(path) = &self.target {
            option("--target", path.display().to_string());
        }
        words.extend(self.own.to_arguments());
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        for set in &self.sets {
            match set.split_once('=') {
                Some((name, _)) if name.contains("secret") || declared(name.trim_matches(['"', '\'', ' '])) => {
                    option("--set", format!("{name}=***"))
                }
                _ => option("--set", set.clone()),
            }
        }
        if (self.stretch - 1.0).abs() > f64::EPSILON {
            option("--stretch", self.stretch.to_string());
        }
        if let Some(fault) = &self.fault {
            option("--fault", fault.clone());
        }
        words.extend(self.tls.to_arguments());
        words.extend(self.stated_only.then(|| "--stated-only".to_owned()));
        words
    }

    /// Starts all hubs and prepares them for the run; `programs` returns the scenarios of a protocol. The inner `Err`
    /// is the exit code of a run that could not begin; the reason has been printed.
    ///
    /// # Errors
    ///
    /// An error in the target.
    pub async fn start_hubs(
        &self,
        named: &ParsedHubArgs,
        protocols: &[ValidProtocol],
        programs: impl Fn(&ValidProtocol) -> Vec<Arc<Program>>,
        shown: &mut RunOptions,
        sources: &mut Sources,
    ) -> Result<Result<StartedHubs, u8>, CliError> {
        // Before anything is started, so that an interrupt can stop it.
        let mut signals = SignalListener::listen()?;
        let (mut hubs, mut reference_servers, mut processes) = (Vec::new(), Vec::new(), Vec::new());
        for protocol in protocols {
            let (target, embedded) = self.target_of_protocol(named, protocol, sources).await?;
            check_settings_known(&target, protocols)?;
            check_setting_kinds(&target, protocol)?;
            reference_servers.extend(embedded.clone());
            let deviations = parse_deviations(&target, protocol, sources)?;
            let (pack, shared) = (Arc::clone(&protocol.pack), Arc::clone(&protocol.scenarios.shared));
            let programs = programs(protocol);
            let mut hub = TestedHub { programs, embedded, deviations, ..TestedHub::new(pack, shared, target) };
            for process in self.exec.prepare_processes(&mut hub)? {
                processes.push((protocol.pack.name.clone(), process));
            }
            hubs.push(hub);
        }
        if let [hub] = hubs.as_slice()
            && hub.embedded.is_none()
            && let [protocol] = protocols
            && let Some(address) = requested_address(hub, protocol)
        {
            // A proxy on the way to the hub stays.
            shown.target = shown.target.replace(&self.hub_name(named), &address);
        }
        // Other texts of a report are masked when they are recorded. If they were masked here, a secret such as `pass`
        // would replace words of the report itself.
        for masker in hubs.iter().map(crate::hub::prepare::secret_masker) {
            let texts = shown.command.iter_mut().chain([&mut shown.target]);
            texts.for_each(|text| *text = masker.mask(text).into_owned());
        }
        let started: Vec<_> = processes.iter().map(|(_, process)| Arc::clone(process)).collect();
        if let Err(failure) = exec::start_processes(&started, &mut signals).await {
            return failure.report().map(Err);
        }
        Ok(Ok(StartedHubs { hubs, others: Vec::new(), models: BTreeMap::new(), signals, reference_servers, processes }))
    }

    /// Returns the target of one protocol: the user's hub, or a reference server that is started for the protocol.
    async fn target_of_protocol(
        &self,
        named: &ParsedHubArgs,
        protocol: &ValidProtocol,
        sources: &mut Sources,
    ) -> Result<(Target, Option<Arc<EmbeddedHubs>>), CliError> {
        let target = match (&named.target, &self.url) {
            (Some(target), _) => target.clone(),
            (None, Some(url)) => {
                let mut target =
                    config::target_from_url(sources, url, &named.overrides, &read_environment, &read_secret)
                        .map_err(|found| CliError::from_diagnostics(&found, sources))?;
                self.exec.override_commands(Some(&mut target))?;
                target
            }
            (None, None) => {
                let name = protocol.pack.name.as_str();
                let mut faults = hubproof_reference::faults().filter(|fault| fault.protocol == name);
                let fault = self.fault.as_deref().filter(|id| faults.any(|fault| fault.id == *id));
                let (target, hubs) = start_reference_server(protocol, fault, &named.overrides, sources).await?;
                return Ok((target, Some(hubs)));
            }
        };
        Ok((target, None))
    }
}

/// Returns the address that all clients connect to, if it differs from the URL of the hub. Clients connect to the same
/// address in `check`, `fuzz` and `load`.
fn requested_address(hub: &TestedHub, protocol: &ValidProtocol) -> Option<String> {
    let [instance] = hub.target.instances.as_slice() else { return None };
    let settings = instance_settings(hub, instance);
    let mut addresses = BTreeSet::new();
    let programs = if hub.programs.is_empty() { &protocol.scenarios.programs } else { &hub.programs };
    for program in programs {
        addresses.extend(requested_addresses(program, &settings, &instance.url)?);
    }
    let own = instance.url.join(None, &[]).ok()?.to_string();
    addresses.pop_first().filter(|address| addresses.is_empty() && *address != own)
}

/// Starts the reference server for a protocol.
pub async fn start_reference_server(
    protocol: &ValidProtocol,
    fault: Option<&str>,
    overrides: &[Override],
    sources: &mut Sources,
) -> Result<(Target, Arc<EmbeddedHubs>), CliError> {
    let hubs = EmbeddedHubs::start(&protocol.pack.name, &protocol.setups, fault).await?;
    let text = protocol.setups.render_target_file(&protocol.pack.name, hubs.addresses());
    let file = sources.add("reference server", text);
    let target = config::parse(sources, file, overrides, &read_environment, &read_secret)
        .map_err(|found| CliError::from_diagnostics(&found, sources))?;
    Ok((target, Arc::new(hubs)))
}

/// Returns the model of a built-in protocol, if there is one.
///
/// # Errors
///
/// A defect of a built-in pack.
pub fn reference_model(
    pack: &PackArgs,
    protocol: &ValidProtocol,
    sources: &mut Sources,
) -> Result<Option<Arc<ReferenceModel>>, CliError> {
    let name = &protocol.pack.name;
    if pack.pack.is_some() || !ReferenceModel::exists_for(name) {
        return Ok(None);
    }
    let model = ReferenceModel::new(name, &protocol.setups, &protocol.scenarios.shared, sources);
    model.map(|model| Some(Arc::new(model))).map_err(|found| CliError::from_diagnostics(&found, sources))
}

/// The running hubs, and the protocols and scenarios to play on them.
pub struct StartedHubs {
    pub hubs: Vec<TestedHub>,
    /// The second hub of each protocol, if there is one.
    others: Vec<TestedHub>,
    /// The models with which hubs are compared, by protocol.
    models: BTreeMap<String, Arc<ReferenceModel>>,
    pub signals: SignalListener,
    reference_servers: Vec<Arc<EmbeddedHubs>>,
    /// The processes of hubs that the run started, each with the name of its protocol.
    processes: Vec<(String, Arc<HubProcess>)>,
}

impl StartedHubs {
    /// Returns what the hub of a protocol is compared with, if anything.
    ///
    /// # Errors
    ///
    /// The second hub cannot be prepared.
    pub fn second_hub(&self, protocol: &str) -> Result<Option<SecondHub>, SetupError> {
        let second = self.others.iter().find(|other| other.pack.name == protocol).map(prepare::prepare_hub);
        let model = self.models.get(protocol).cloned().map(SecondHub::Model);
        Ok(second.transpose()?.map(SecondHub::Hub).or(model))
    }

    /// Prepares a second hub: the hub at `url`, with the settings of the first but without its hooks and deviations, or
    /// the reference server if `url` is empty. All cases share both hubs, even hubs that this run started.
    ///
    /// # Errors
    ///
    /// The address of the second hub is not valid.
    pub async fn add_second_hub(
        &mut self,
        url: &str,
        protocols: &[ValidProtocol],
        sources: &mut Sources,
    ) -> Result<(), CliError> {
        self.hubs.iter_mut().for_each(|hub| hub.embedded = None);
        for (hub, protocol) in self.hubs.iter().zip(protocols) {
            let target = if url.is_empty() {
                let (target, hub) = start_reference_server(protocol, None, &[], sources).await?;
                self.reference_servers.push(hub);
                target
            } else {
                let there = config::target_from_url(sources, url, &[], &read_environment, &read_secret)
                    .map_err(|found| CliError::from_diagnostics(&found, sources))?;
                hub.target.moved_to(there.instances[0].url.clone())
            };
            let deviations = parse_deviations(&target, protocol, sources)?;
            let (pack, shared) = (Arc::clone(&protocol.pack), Arc::clone(&protocol.scenarios.shared));
            self.others.push(TestedHub { deviations, ..TestedHub::new(pack, shared, target) });
        }
        Ok(())
    }

    /// Creates the models of the built-in protocols. A hub with declared deviations has none, because it would differ
    /// from the model as declared.
    ///
    /// # Errors
    ///
    /// A defect of a built-in pack.
    pub fn add_models(
        &mut self,
        arguments: &HubArgs,
        protocols: &[ValidProtocol],
        sources: &mut Sources,
    ) -> Result<(), CliError> {
        for (hub, protocol) in self.hubs.iter().zip(protocols) {
            if hub.deviations.entries().is_empty() {
                let model = reference_model(&arguments.own, protocol, sources)?;
                self.models.extend(model.map(|model| (protocol.pack.name.clone(), model)));
            }
        }
        Ok(())
    }

    /// Watches the hubs that the run cannot start, so that their ends are noticed.
    pub async fn watch_hubs(&mut self) {
        for hub in &mut self.hubs {
            for process in exec::watch_instances(hub) {
                // Watching cannot fail.
                let _ = process.start().await;
                self.processes.push((hub.pack.name.clone(), process));
            }
        }
    }

    /// Stops every process within `grace`. Returns the reports of the processes, each with its protocol.
    pub async fn end_processes(&mut self, grace: Duration) -> Vec<(String, ProcessReport)> {
        let mut reports = Vec::new();
        for (protocol, process) in &self.processes {
            exec::stop_processes(std::slice::from_ref(process), grace, &mut self.signals).await;
            reports.extend(process.report().map(|report| (protocol.clone(), report)));
        }
        reports
    }

    /// Stops everything that is still running, immediately.
    pub async fn stop(mut self) {
        self.end_processes(Duration::ZERO).await;
        for hub in self.reference_servers {
            hub.shutdown().await;
        }
    }
}

/// An input of the loop that follows a run.
pub enum RunInput {
    Event(ScenarioEvent),
    /// The first Ctrl-C: the run is stopping.
    Stopping,
}

/// How long running plays have to end when the time is over.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// When the run's time is over: running plays are then interrupted, and aborted soon after.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit {
    pub interrupts: Instant,
    pub aborts: Instant,
}

impl TimeLimit {
    pub fn new(end: Instant) -> Self {
        Self { interrupts: end, aborts: end + CUT_GRACE }
    }

    pub fn is_over(self) -> bool {
        Instant::now() >= self.interrupts
    }
}

/// Handles events and signals until all senders of events are dropped. The first signal stops the run gracefully, the
/// second immediately, as the end of its time does. Returns the number of signals, and the result of the run unless the
/// run was aborted.
///
/// # Errors
///
/// The run could not begin, or failed.
pub async fn follow_run<T>(
    mut running: JoinHandle<Result<T, SetupError>>,
    mut inbox: mpsc::Receiver<ScenarioEvent>,
    stop: &watch::Sender<bool>,
    signals: &mut SignalListener,
    limit: Option<TimeLimit>,
    mut handle: impl FnMut(RunInput),
) -> Result<(usize, Option<T>), CliError> {
    let mut stop_signals = 0;
    let mut ended = None;
    let (mut interrupted, mut aborted) = (false, false);
    let over = |at: Option<Instant>| async move {
        match at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    let (interrupts, aborts) = (limit.map(|limit| limit.interrupts), limit.map(|limit| limit.aborts));
    loop {
        tokio::select! {
            event = inbox.recv() => match event {
                Some(event) => handle(RunInput::Event(event)),
                // All senders of events have ended.
                None => break,
            },
            result = &mut running, if ended.is_none() => ended = Some(result),
            () = signals.wait_for_signal() => {
                stop_signals += 1;
                if stop_signals > 1 {
                    break;
                }
                let _ = stop.send(true);
                handle(RunInput::Stopping);
            }
            () = over(interrupts), if !interrupted => {
                interrupted = true;
                let _ = stop.send(true);
            }
            () = over(aborts), if interrupted => {
                // What it plays must not disturb the next run.
                running.abort();
                aborted = true;
                break;
            }
        }
    }
    if ended.is_none() && stop_signals < 2 && !aborted {
        // All events of the run are handled, so it is about to end.
        ended = Some(running.await);
    }
    match ended {
        Some(Ok(Err(error))) => Err(error.into()),
        Some(Err(error)) if error.is_panic() => Err(error.into()),
        Some(Ok(Ok(done))) => Ok((stop_signals, Some(done))),
        _ => Ok((stop_signals, None)),
    }
}

pub fn read_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The most bytes of a secret.
const MAX_SECRET: usize = 1 << 20;

pub fn read_secret(path: &str) -> std::io::Result<String> {
    read_text(Path::new(path), MAX_SECRET)
}

fn read_target(path: &Path, overrides: &[Override], sources: &mut Sources) -> Result<Target, CliError> {
    if !path.exists() {
        return Err(CliError::usage(
            format!("there is no target file {}", path.display()),
            "`hubproof init URL` writes one; docs/src/target-file.md describes its keys",
        ));
    }
    let file = protocol_files::read_file(path, sources)?;
    config::parse(sources, file, overrides, &read_environment, &read_secret)
        .map_err(|found| CliError::from_diagnostics(&found, sources))
}

/// Reads the deviations that a target declares, with the pack of its protocol.
fn parse_deviations(target: &Target, protocol: &ValidProtocol, sources: &Sources) -> Result<Arc<Deviations>, CliError> {
    let nodes: Vec<_> = target.deviations.iter().map(|declared| declared.0.clone()).collect();
    Deviations::parse(&nodes, &protocol.pack, &protocol.scenarios.shared, false)
        .map(Arc::new)
        .map_err(|found| CliError::from_diagnostics(&found, sources))
}

/// Rejects a setting that none of the protocols has, because it would have no effect.
pub fn check_settings_known(target: &Target, protocols: &[ValidProtocol]) -> Result<(), CliError> {
    let known = || protocols.iter().flat_map(|protocol| protocol.scenarios.shared.settings.keys().map(String::as_str));
    let mut set = target.instances.iter().flat_map(|instance| instance.settings.keys());
    let Some(name) = set.find(|name| !known().any(|known| known == *name)) else { return Ok(()) };
    let names: Vec<&str> = protocols.iter().map(|protocol| protocol.pack.name.as_str()).collect();
    let help = suggest(
        name,
        known(),
        &format!("`hubproof check --list --protocol {}` lists them", names.join(" --protocol ")),
    );
    Err(CliError::usage(format!("{} has no setting `{name}`", names.join(", or ")), help))
}

/// Rejects a setting whose default is a mapping but whose value is not: usually an invalid TOML table that was read as
/// text. The value may be secret, so only its kind is shown.
pub fn check_setting_kinds(target: &Target, protocol: &ValidProtocol) -> Result<(), CliError> {
    let declared = &protocol.scenarios.shared.settings;
    for (name, setting) in target.instances.iter().flat_map(|instance| &instance.settings) {
        let default = declared.get(name).and_then(|setting| setting.default.as_ref());
        if default.is_some_and(Value::is_object) && !setting.value.is_object() {
            return Err(CliError::usage(
                format!("the setting `{name}` must be a mapping, not {}", matcher::describe_kind(&setting.value)),
                format!("write it as a TOML table: --set '{name}={{ \"name\" = \"value\" }}'"),
            ));
        }
    }
    Ok(())
}

pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Sets a flag when it is dropped.
    struct DropFlag(Arc<AtomicBool>);

    impl Drop for DropFlag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Follows a run whose time is over. Returns whether it was interrupted and aborted, and its result.
    fn follow_late_run(obeys: bool) -> (bool, bool, Option<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (events, inbox) = mpsc::channel(1);
            let (stop, mut interrupt) = watch::channel(false);
            let (interrupted, aborted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let (seen, flag) = (Arc::clone(&interrupted), DropFlag(Arc::clone(&aborted)));
            let running = tokio::spawn(async move {
                let _events = events;
                let _ = interrupt.wait_for(|interrupted| *interrupted).await;
                seen.store(true, Ordering::Relaxed);
                if !obeys {
                    let _flag = flag;
                    std::future::pending::<()>().await;
                } else {
                    std::mem::forget(flag);
                }
                Ok(7)
            });
            let limit = TimeLimit { interrupts: Instant::now(), aborts: Instant::now() + Duration::from_millis(20) };
            let limit = if obeys { TimeLimit::new(limit.interrupts) } else { limit };
            let mut signals = SignalListener::listen().unwrap();
            let (signals, result) = follow_run(running, inbox, &stop, &mut signals, Some(limit), |_| {}).await.unwrap();
            assert_eq!(signals, 0, "the user did not stop it");
            tokio::task::yield_now().await;
            (interrupted.load(Ordering::Relaxed), aborted.load(Ordering::Relaxed), result)
        })
    }

    #[test]
    fn a_run_that_ends_when_it_is_interrupted_keeps_its_result() {
        assert_eq!(follow_late_run(true), (true, false, Some(7)));
    }

    #[test]
    fn a_run_that_continues_after_the_end_of_its_time_is_aborted() {
        assert_eq!(follow_late_run(false), (true, true, None));
    }
}
