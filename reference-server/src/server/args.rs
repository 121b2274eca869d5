//! The command line of the reference server, shared by its own binary and by programs that embed it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::json;

use crate::machine::settings::{SettingsError, SettingsFile, parse_file};
use crate::server::serve::{HubConfig, RunningServer, ServeConfig, ServeError, start_server};
use crate::{Fault, HubCertificate, faults, protocols};

/// Serve hubs that follow their specifications
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Protocols to serve, each on its own port (default: all)
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Address to listen on; further hubs use the ports after it, or each a free port with port 0
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = parse_listen_address)]
    pub listen: SocketAddr,
    /// Serve qi over ZeroMQ, too: replies (REP) at this port, published messages (PUB) at the next one; or each at a free
    /// port with port 0
    #[arg(long, value_name = "PORT")]
    pub zeromq: Option<u16>,
    /// Address of the admin interface, which serves health, state and events
    #[arg(long, value_name = "ADDR", value_parser = parse_listen_address)]
    pub admin: Option<SocketAddr>,
    /// Token with which the path of each admin request begins (default: a random one, part of the printed address)
    #[arg(long, value_name = "TOKEN", value_parser = parse_admin_token)]
    pub admin_token: Option<String>,
    /// Settings file (TOML) with one table per protocol
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one setting, such as concierge.secret=hunter2; overrides --config
    #[arg(long = "set", value_name = "PROTOCOL.KEY=VALUE")]
    pub sets: Vec<String>,
    /// Switch on a fault (a deliberate defect); at most one per protocol
    #[arg(long = "fault", value_name = "ID")]
    pub faults: Vec<String>,
    /// Serve over TLS with this certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve over TLS with a generated certificate for localhost, and write its CA certificate to the file, if given
    #[arg(long, value_name = "CA_OUT_FILE", num_args = 0..=1, require_equals = true, conflicts_with = "tls_cert")]
    pub tls_self_signed: Option<Option<PathBuf>>,
    /// Maximum message size; a connection that exceeds it is closed with 1009
    #[arg(long, value_name = "BYTES", default_value_t = crate::server::serve::MAX_MESSAGE)]
    pub max_message: usize,
    /// List all faults and exit
    #[arg(long)]
    pub list_faults: bool,
    /// Format of the list
    #[arg(long, value_enum, default_value_t = ListFormat::Text, requires = "list_faults")]
    pub format: ListFormat,
}

/// The format of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ListFormat {
    /// Readable text.
    Text,
    /// A JSON document.
    Json,
}

/// Lists faults, or serves until SIGINT or SIGTERM and shuts down cleanly. `on_ready` is called once every address
/// accepts connections.
///
/// # Errors
/// [`ServeError`], always before `on_ready` is called.
pub async fn run_server(args: ServeArgs, on_ready: impl FnOnce(&RunningServer)) -> Result<(), ServeError> {
    if args.list_faults {
        let list = list_faults(&args.names, args.format)?;
        return std::io::stdout()
            .write_all(list.as_bytes())
            .map_err(|source| ServeError::System { what: "print", source });
    }
    let ca_file = args.tls_self_signed.clone().flatten();
    let signals = Signals::listen().map_err(|source| ServeError::System { what: "wait for signals", source })?;
    let running = start_server(build_config(args)?).await?;
    if let (Some(path), Some(ca)) = (ca_file, &running.ca)
        && let Err(source) = std::fs::write(&path, ca)
    {
        running.shutdown().await;
        return Err(ServeError::File { what: "write", path, source });
    }
    on_ready(&running);
    signals.wait().await;
    running.shutdown().await;
    Ok(())
}

/// Builds the configuration from the arguments.
///
/// # Errors
/// [`ServeError`]: unknown names, settings or faults, a file that cannot be read.
pub fn build_config(args: ServeArgs) -> Result<ServeConfig, ServeError> {
    let names = selected_protocols(&args.names)?;
    let mut settings = match &args.config {
        None => SettingsFile::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| ServeError::File {
                what: "read",
                path: path.clone(),
                source,
            })?;
            parse_file(&text)?
        }
    };
    for set in &args.sets {
        let (protocol, pair) = set.split_once('.').ok_or_else(|| SettingsError::Pair(set.clone()))?;
        settings.entry(protocol.to_owned()).or_default().set_pair(pair)?;
    }
    if let Some(stranger) = settings.keys().find(|name| !protocols().contains(&name.as_str())) {
        return Err(crate::MachineError::UnknownProtocol(stranger.clone()).into());
    }
    let mut broken = Vec::new();
    for id in &args.faults {
        let fault = faults()
            .find(|fault| fault.id == *id)
            .ok_or_else(|| ServeError::Usage(format!("there is no fault {id:?}; --list-faults shows them all")))?;
        if !names.contains(&fault.protocol) {
            return Err(ServeError::Usage(format!("fault {id} belongs to {}, which is not served", fault.protocol)));
        }
        if broken.iter().any(|(protocol, _)| *protocol == fault.protocol) {
            return Err(ServeError::Usage(format!(
                "{} cannot have two faults; give one --fault per protocol",
                fault.protocol
            )));
        }
        broken.push((fault.protocol, fault.id));
    }
    let tls = match (args.tls_cert, args.tls_key, args.tls_self_signed) {
        (Some(cert), Some(key), _) => Some(HubCertificate::Files { cert, key }),
        (_, _, Some(_)) => Some(HubCertificate::SelfSigned),
        _ => None,
    };
    let mut hubs = Vec::new();
    for (offset, name) in (0..).zip(names) {
        let base = args.listen.port();
        let port = if base == 0 { Some(0) } else { base.checked_add(offset) };
        let port =
            port.ok_or_else(|| ServeError::Usage("there are not enough ports after the port of --listen".to_owned()))?;
        hubs.push(HubConfig {
            listen: SocketAddr::new(args.listen.ip(), port),
            zeromq: args.zeromq.map(|port| SocketAddr::new(args.listen.ip(), port)),
            settings: settings.remove(name).unwrap_or_default(),
            fault: broken.iter().find(|(protocol, _)| *protocol == name).map(|(_, id)| (*id).to_owned()),
            tls: tls.clone(),
            max_message: args.max_message,
            ..HubConfig::new(name)
        });
    }
    Ok(ServeConfig { hubs, admin: args.admin, admin_token: args.admin_token })
}

fn parse_admin_token(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let right = !text.is_empty() && text.chars().all(fits);
    right.then(|| text.to_owned()).ok_or_else(|| "a token has letters, digits, `-` and `_`".to_owned())
}

/// Returns the named protocols, each once, or all if none is named.
fn selected_protocols(names: &[String]) -> Result<Vec<&'static str>, ServeError> {
    if names.is_empty() {
        return Ok(protocols().to_vec());
    }
    let mut seen = BTreeSet::new();
    names
        .iter()
        .map(|name| {
            let known = protocols().iter().find(|known| *known == name);
            let known = known.ok_or_else(|| crate::MachineError::UnknownProtocol(name.clone()))?;
            if !seen.insert(*known) {
                return Err(ServeError::Usage(format!("{name} is named twice")));
            }
            Ok(*known)
        })
        .collect()
}

fn list_faults(names: &[String], format: ListFormat) -> Result<String, ServeError> {
    let names = selected_protocols(names)?;
    let chosen = faults().filter(|fault| names.contains(&fault.protocol));
    Ok(match format {
        ListFormat::Text => {
            let line = |fault: &Fault| {
                let only = if fault.is_for_fuzzing() { " (only fuzzing finds it)" } else { "" };
                format!("{}\n    {} [{}]{only}\n", fault.id, fault.text, fault.rules.join(" "))
            };
            chosen.map(line).collect()
        }
        ListFormat::Json => {
            let list: Vec<_> = chosen
                .map(|fault| {
                    json!({
                        "id": fault.id,
                        "protocol": fault.protocol,
                        "text": fault.text,
                        "rules": fault.rules,
                        "fuzz": fault.is_for_fuzzing(),
                    })
                })
                .collect();
            format!("{}\n", json!({ "faults": list }))
        }
    })
}

/// Parses `IP:PORT`, `localhost:PORT`, or an IP address alone, which stands for a free port.
///
/// # Errors
/// The text is none of these; the message names the expected form.
pub fn parse_listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().map_err(|error| format!("port {port:?}: {error}"))?;
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    (text.parse::<SocketAddr>())
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)))
        .map_err(|_| "expected IP:PORT, for example 127.0.0.1:9000".to_owned())
}

#[cfg(unix)]
pub(crate) struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    /// Listens from now on.
    pub fn listen() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    /// Waits for SIGINT or SIGTERM.
    pub async fn wait(mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Listens from now on.
    pub fn listen() -> std::io::Result<Signals> {
        Ok(Signals)
    }

    /// Waits for Ctrl-C.
    pub async fn wait(self) {
        // If this fails, the caller stops at once.
        let _ = tokio::signal::ctrl_c().await;
    }
}
