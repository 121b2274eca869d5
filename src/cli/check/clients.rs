//! `hubproof check-client`: tests a client or worker against its protocol, for which hubproof plays the hub.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hubproof_reference::clients::TIMES;
use hubproof_reference::server::args::parse_listen_address;
use serde_json::Value;

use super::{CheckArgs, ChoiceArgs, Depth, run_check};
use crate::cli::CliError;
use crate::cli::baseline::BaselineArgs;
use crate::cli::exec::ExecArgs;
use crate::cli::hub::{HubArgs, StartedHubs, parse_factor};
use crate::cli::protocol_files::{self, LoadedProtocol, PackArgs, ValidProtocol};
use crate::cli::relay::warn_of_open_address;
use crate::cli::report_sink::RunOutputArgs;
use crate::cli::tls_args::TlsArgs;
use crate::config::{self, ExecCommand, SettingValue, Target};
use crate::hub::client::{PLACEHOLDERS, TestedClient};
use crate::hub::prepare::{TestedHub, secret_masker};
use crate::hub::process::LogFile;
use crate::protocol::OF_CLIENTS;
use crate::syntax::diagnostic::suggest;
use crate::syntax::source::Sources;

/// Test a client or worker against its protocol; hubproof plays the hub
///
/// With `--exec`, each scenario starts the client anew. Without it, a client that runs elsewhere connects to the address of
/// `--listen`, and reconnects for each scenario. With neither, the built-in reference client is tested.
#[derive(Args)]
pub struct CheckClientArgs {
    /// Protocol the client speaks
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    #[command(flatten)]
    own: PackArgs,
    /// Start the client with this command for each scenario; ${url}, ${needs} and ${scenario} stand for the address of the
    /// hub, what the client has to do, and the scenario
    #[arg(long, value_name = "CMD", conflicts_with = "fault")]
    exec: Option<String>,
    /// Address to listen on; with --exec, the default is a free port for each scenario
    #[arg(long, value_name = "ADDR", value_parser = parse_listen_address, conflicts_with = "fault")]
    listen: Option<SocketAddr>,
    /// How long the client may take to connect
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = config::parse_duration)]
    wait: Duration,
    /// Write the stdout and stderr of the client to this file
    #[arg(long, value_name = "FILE", requires = "exec")]
    exec_log: Option<PathBuf>,
    /// What the client does, of the words that scenarios need, such as submit,cancel; --list shows them (default: all, if
    /// the command contains ${needs})
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    does: Option<Vec<String>>,
    /// Target file (TOML) with settings, secrets and hooks; its `url` is the address to listen on
    #[arg(long, value_name = "FILE")]
    target: Option<PathBuf>,
    /// Set a setting or any key of the target file: heartbeat=5s, patience=10s
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Warn instead of failing when the document only implies the broken rule
    #[arg(long)]
    stated_only: bool,
    /// Time limit per scenario
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = config::parse_duration)]
    timeout: Duration,
    /// Multiply every waiting time by this factor, such as 2 for a client or machine that is twice as slow
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_factor)]
    stretch: f64,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Number of clients to start at a time (default: 4; 1 if the address is fixed)
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Switch on a fault of the built-in reference client to see how it is reported; `hubproof client --list-faults` lists
    /// them
    #[arg(long, value_name = "ID")]
    fault: Option<String>,
    #[command(flatten)]
    output: RunOutputArgs,
    #[command(flatten)]
    baseline: BaselineArgs,
}

/// The client to test, as the command line names it.
pub struct ClientUnderTest {
    exec: Option<ExecCommand>,
    listen: Option<SocketAddr>,
    /// Whether a target file names the address to listen on.
    is_described: bool,
    wait: Duration,
    log: Option<LogFile>,
    does: Option<BTreeSet<String>>,
    fault: Option<String>,
}

pub fn run_check_client(arguments: CheckClientArgs) -> Result<u8, CliError> {
    let exec = arguments.exec.as_deref().map(parse_command).transpose()?;
    let log = match &arguments.exec_log {
        None => None,
        Some(path) => Some(LogFile::new(File::create(path).map_err(|error| {
            CliError::failed(format!("the client's log cannot be written to {}", path.display()), error)
        })?)),
    };
    let runs_elsewhere = exec.is_none() && (arguments.listen.is_some() || arguments.target.is_some());
    if let Some(address) = arguments.listen {
        warn_of_open_address(address);
    }
    let is_fixed = runs_elsewhere || arguments.listen.is_some_and(|address| address.port() != 0);
    let jobs = if is_fixed { Some(1) } else { arguments.jobs };
    // A target has an address. Without one, nothing connects to this.
    let unused = SocketAddr::from(([127, 0, 0, 1], 1));
    let url = match (&arguments.target, arguments.listen) {
        (Some(_), None) => None,
        (_, address) => Some(format!("ws://{}", address.filter(|address| address.port() != 0).unwrap_or(unused))),
    };
    let client = ClientUnderTest {
        exec,
        listen: arguments.listen,
        is_described: arguments.target.is_some(),
        wait: arguments.wait,
        log,
        does: arguments.does.map(|words| words.into_iter().collect()),
        fault: arguments.fault,
    };
    run_check(CheckArgs {
        hub: HubArgs {
            url,
            protocol: arguments.protocol.into_iter().collect(),
            target: arguments.target,
            sets: arguments.sets,
            own: arguments.own,
            stated_only: arguments.stated_only,
            timeout: arguments.timeout,
            stretch: arguments.stretch,
            exec: ExecArgs::none(),
            tls: TlsArgs::default(),
            fault: None,
        },
        choice: arguments.choice,
        depth: Depth::Normal,
        variation: None,
        against: None,
        share: None,
        jobs,
        output: arguments.output,
        destructive: false,
        explore: false,
        write_deviations: None,
        baseline: arguments.baseline,
        client: Some(client),
    })
}

/// Parses the command of a client, whose placeholders are known.
fn parse_command(text: &str) -> Result<ExecCommand, CliError> {
    let command = ExecCommand::parse(text).map_err(|error| CliError::failed("--exec", error))?;
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("${") {
        let name = format!("${{{}}}", after.split_once('}').map_or(after, |(name, _)| name));
        if !PLACEHOLDERS.contains(&name.as_str()) {
            let help = suggest(&name, PLACEHOLDERS, &format!("known: {}", PLACEHOLDERS.join(", ")));
            return Err(CliError::usage(
                format!("--exec contains the placeholder {name}, which stands for nothing"),
                help,
            ));
        }
        rest = after;
    }
    Ok(command)
}

impl ClientUnderTest {
    /// Returns the name of the client in reports.
    pub fn name(&self) -> String {
        match (&self.exec, self.listen) {
            (Some(command), _) => command.text.clone(),
            (None, Some(address)) => format!("clients that connect to ws://{address}"),
            (None, None) => "reference client".to_owned(),
        }
    }

    /// Loads what judges the clients of the protocols: of all built-in ones, if none is named.
    ///
    /// # Errors
    ///
    /// There is no such protocol, or it says nothing about clients.
    pub fn load_protocols(
        &self,
        hub: &HubArgs,
        target: Option<&Target>,
        sources: &mut Sources,
    ) -> Result<Vec<ValidProtocol>, CliError> {
        if let Some(path) = &hub.own.pack {
            let loaded = protocol_files::load_user_pack(path, hub.own.perspective, sources)?;
            return Ok(vec![of_clients(&loaded, sources)?.into_valid(sources)?]);
        }
        let mut names = hub.protocol.clone();
        names.extend(target.and_then(|target| target.protocol.clone()).filter(|_| hub.protocol.is_empty()));
        let known: Vec<&str> = protocol_files::built_in_names();
        if names.is_empty() {
            if self.exec.is_some() || self.listen.is_some() || target.is_some() {
                let help = format!("--protocol {}; for your own: --pack PATH", known.join(" | "));
                return Err(CliError::usage("the protocol of the client is not given", help));
            }
            names = known.iter().map(|name| (*name).to_owned()).collect();
            names.retain(|name| {
                let loaded = protocol_files::load_built_in(name, sources);
                loaded.is_ok_and(|loaded| loaded.folder.of_clients().is_some())
            });
        }
        let load = |name: &String, sources: &mut Sources| {
            let loaded = protocol_files::load_built_in(name.strip_suffix(OF_CLIENTS).unwrap_or(name), sources)?;
            of_clients(&loaded, sources)?.into_valid(sources)
        };
        names.iter().map(|name| load(name, sources)).collect()
    }

    /// Returns the command line of this run.
    pub fn repeat_command(&self, hub: &HubArgs, protocols: &[ValidProtocol]) -> Vec<String> {
        let listen = self.listen.map(|address| ["--listen".to_owned(), address.to_string()]);
        let command = self.exec.as_ref().map(|command| ["--exec".to_owned(), command.text.clone()]);
        let does = self.does.as_ref().map(|words| words.iter().map(String::as_str).collect::<Vec<_>>().join(","));
        let does = does.map(|words| ["--does".to_owned(), words]);
        let fault = self.fault.as_ref().map(|id| ["--fault".to_owned(), id.clone()]);
        let mut words = hub.repeat_command("check-client", protocols);
        // The address stands where `check` has the URL of the hub.
        words.retain(|word| Some(word) != hub.url.as_ref());
        words.extend([listen, command, does, fault].into_iter().flatten().flatten());
        words
    }
}

impl StartedHubs {
    /// Gives each protocol the client to test.
    ///
    /// # Errors
    ///
    /// The reference client cannot be started: this program does not know its own path.
    pub fn test_client(&mut self, client: &ClientUnderTest) -> Result<(), CliError> {
        for hub in &mut self.hubs {
            let masker = Arc::new(secret_masker(hub));
            let url = &hub.target.instances[0].url;
            let described = format!("{}:{}", url.host, url.port).parse().ok().filter(|_| client.is_described);
            let listen: Option<SocketAddr> = client.listen.or(described);
            let command = match &client.exec {
                Some(command) => Some(command.clone()),
                None if listen.is_some() => None,
                None => Some(reference_client(hub, client.fault.as_deref())?),
            };
            hub.client = Some(Arc::new(TestedClient {
                command,
                listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
                does: client.does.clone(),
                wait: client.wait,
                mask: Arc::new(move |line: &str| masker.mask(line).into_owned()),
                log: client.log.clone(),
                has_come: false.into(),
                was_missed: false.into(),
            }));
        }
        Ok(())
    }
}

/// The times of the reference client, unless they are set: short, so that its test is.
const SHORT_TIME: Duration = Duration::from_secs(1);

/// Returns the command that runs the reference client of a protocol, with the times that its scenarios know.
fn reference_client(hub: &mut TestedHub, fault: Option<&str>) -> Result<ExecCommand, CliError> {
    let program =
        std::env::current_exe().map_err(|error| CliError::failed("cannot start the reference client", error))?;
    let protocol = hub.pack.name.strip_suffix(OF_CLIENTS).unwrap_or(&hub.pack.name);
    let mut words = vec![program.display().to_string()];
    words.extend(["client", protocol, "${url}", "--do", "${needs}"].map(str::to_owned));
    for name in TIMES.into_iter().filter(|name| hub.shared.settings.contains_key(*name)) {
        let settings = &mut hub.target.instances[0].settings;
        let short = || SettingValue { value: Value::from(config::format_duration(SHORT_TIME)), secret: false };
        let set = settings.entry(name.to_owned()).or_insert_with(short);
        let time = set.value.as_str().and_then(|text| config::parse_duration(text).ok()).unwrap_or(SHORT_TIME);
        words.extend(["--set".to_owned(), format!("{name}={}", time.as_secs_f64())]);
    }
    words.extend(fault.into_iter().flat_map(|id| ["--fault".to_owned(), id.to_owned()]));
    Ok(ExecCommand { text: format!("hubproof client {protocol} ${{url}} --do ${{needs}}"), words })
}

/// Returns what judges the clients of a protocol.
fn of_clients(loaded: &LoadedProtocol, sources: &Sources) -> Result<LoadedProtocol, CliError> {
    loaded.of_clients(sources).ok_or_else(|| {
        let what = format!("the pack `{}` says nothing about clients", loaded.folder.name);
        CliError::usage(what, "add clients/rules.yaml with the rules that bind them, and scenarios/clients/")
    })
}
