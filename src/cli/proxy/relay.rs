//! `hubproof relay`: a proxy between clients and a hub that changes one thing in the hub's frames.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use hubproof_reference::relay::mutation::{Mutation, MutationKind, possible_mutations};
use hubproof_reference::relay::{RelayConfig, RelayTask, RelayedHub, start_relay};
use hubproof_reference::server::args::{ListFormat, parse_listen_address};
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::cli::signals::SignalListener;
use crate::cli::tls_args::TlsArgs;
use crate::cli::{CliError, build_runtime, print_document, print_to_stdout, protocol_files};
use crate::reference::relay_facts;
use crate::syntax::diagnostic::suggest;
use crate::syntax::source::Sources;
use crate::transport::Endpoint;
use crate::transport::tls::client_config;

/// Run a proxy between clients and a hub that makes one kind of change to the hub's messages
///
/// All other messages pass unchanged. The path that a client requests is relative to HUB_URL. The protocol's documents
/// determine the possible changes; `--change`, `--message`, `--member` and `--nth` select among them. With `--seed`, one
/// of the selected changes is picked at random. Without `--seed`, the options must select exactly one change; without
/// any of these options, nothing is changed. At the end the relay prints how often it applied the change.
#[derive(Args)]
pub struct RelayArgs {
    /// URL of the hub: ws:// or wss://; not needed with --list
    #[arg(value_name = "HUB_URL", required_unless_present = "list")]
    url: Option<String>,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = parse_listen_address)]
    listen: SocketAddr,
    /// Protocol the hub speaks
    #[arg(long, value_name = "NAME", required_unless_present = "pack", conflicts_with = "pack")]
    protocol: Option<String>,
    #[command(flatten)]
    pack: protocol_files::PackArgs,
    /// Pick a change at random; the same seed gives the same change
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Kind of change: drop, double, delay or reorder frames; remove, retype or alter a member
    #[arg(long, value_name = "KIND")]
    change: Option<MutationKind>,
    /// Change frames of this message
    #[arg(long, value_name = "NAME")]
    message: Option<String>,
    /// Change this member, such as /data/id
    #[arg(long, value_name = "POINTER")]
    member: Option<String>,
    /// Change only the Nth matching frame, counted across all connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    nth: Option<u64>,
    /// List the changes that match the options and exit
    #[arg(long)]
    list: bool,
    /// Format of the list
    #[arg(long, value_enum, default_value_t = ListFormat::Text, requires = "list")]
    format: ListFormat,
    #[command(flatten)]
    tls: TlsArgs,
}

pub fn run_relay(arguments: RelayArgs) -> Result<u8, CliError> {
    let all = compute_changes(&arguments)?;
    let named: Vec<Mutation> = all.iter().filter(|change| arguments.matches(change)).cloned().collect();
    if named.is_empty() {
        return Err(no_match_error(&arguments, &all));
    }
    if arguments.list {
        print_document(&render_changes(&named, arguments.format));
        return Ok(0);
    }
    let change = arguments.choose_change(named)?;
    let url = arguments.url.as_deref().unwrap_or_default();
    let hub = relayed_hub(url, &arguments.tls)?;
    let task = change.as_ref().map_or(RelayTask::Pass, |change| RelayTask::Change(change.to_change()));
    let config = RelayConfig { hub, listen: arguments.listen, task };
    let what = change.map_or_else(|| "nothing is changed".to_owned(), |change| change.to_string());
    build_runtime()?.block_on(async {
        let mut signals = SignalListener::listen()?;
        warn_of_open_address(arguments.listen);
        let running = start_relay(config).await?;
        print_to_stdout(&format!("relay {}\nchange {what}\n", running.url));
        signals.wait_for_signal().await;
        print_to_stdout(&format!("applied {} times\n", running.shutdown().await));
        Ok(0)
    })
}

/// Warns if other machines can connect.
pub fn warn_of_open_address(address: SocketAddr) {
    if !address.ip().is_loopback() {
        eprintln!(
            "warning: everyone who reaches {address} can use the hub through it, with the credentials in the URL"
        );
    }
}

/// Returns the hub at a URL, with the certificates to trust.
pub fn relayed_hub(url: &str, tls: &TlsArgs) -> Result<RelayedHub, CliError> {
    let endpoint: Endpoint = url.parse()?;
    if endpoint.unix.is_some() {
        return Err(CliError::usage(
            "relay, record and observe do not connect to Unix sockets",
            "give the address of the hub",
        ));
    }
    let tls = endpoint.tls.then(|| client_config(&tls.options())).transpose();
    Ok(RelayedHub {
        authority: endpoint.host_header(),
        host: endpoint.host.clone(),
        port: endpoint.port,
        tls: tls?,
        refuses_pages: endpoint.path.contains('?'),
        target: Arc::new(move |asked| endpoint.join(Some(asked), &[]).map_or_else(|_| asked.to_owned(), |to| to.path)),
    })
}

/// Computes all changes for this protocol.
fn compute_changes(arguments: &RelayArgs) -> Result<Vec<Mutation>, CliError> {
    let mut sources = Sources::default();
    let loaded = match (&arguments.pack.pack, &arguments.protocol) {
        (Some(path), _) => protocol_files::load_user_pack(path, arguments.pack.perspective, &mut sources)?,
        (None, name) => protocol_files::load_built_in(name.as_deref().unwrap_or_default(), &mut sources)?,
    };
    let known = relay_facts::relay_facts(&loaded.into_valid(&sources)?.pack);
    if !known.strange.is_empty() {
        let strange = known.strange.join(", ");
        eprintln!("warning: the relay cannot recognise these messages and leaves them unchanged: {strange}");
    }
    Ok(possible_mutations(&known.messages))
}

impl RelayArgs {
    /// Whether a change matches the arguments. Without `--nth`, changes of any frame match.
    fn matches(&self, change: &Mutation) -> bool {
        let is = |named: &Option<String>, value: Option<&String>| named.is_none() || named.as_ref() == value;
        self.change.is_none_or(|kind| kind == change.kind)
            && is(&self.message, Some(&change.message))
            && is(&self.member, change.member.as_ref())
            && (change.nth.is_none() || (self.seed.is_some() || self.list) && self.nth.is_none())
    }

    /// Returns the chosen change, if the options ask for one.
    fn choose_change(&self, mut named: Vec<Mutation>) -> Result<Option<Mutation>, CliError> {
        let chosen = match self.seed {
            Some(seed) => {
                let index = rand::rngs::StdRng::seed_from_u64(seed).random_range(0..named.len());
                named.swap_remove(index)
            }
            None if self.change.is_none() && self.message.is_none() && self.member.is_none() && self.nth.is_none() => {
                return Ok(None);
            }
            None if named.len() == 1 => named.remove(0),
            None => {
                let some: Vec<String> = named.iter().take(8).map(Mutation::to_string).collect();
                let more = if named.len() > 8 { ", ..." } else { "" };
                return Err(CliError::usage(
                    format!("{} changes match: {}{more}", named.len(), some.join(", ")),
                    "select one with --change, --message and --member, or pick one at random with --seed N",
                ));
            }
        };
        Ok(Some(self.nth.map_or(chosen.clone(), |nth| chosen.for_nth_frame(nth))))
    }
}

/// Returns the error for options that match no change.
fn no_match_error(arguments: &RelayArgs, all: &[Mutation]) -> CliError {
    let messages = || all.iter().map(|change| change.message.as_str());
    let help = match (&arguments.message, &arguments.member) {
        (Some(message), _) if !messages().any(|name| name == message) => {
            suggest(message, messages(), "--list shows the possible changes")
        }
        (_, Some(member)) => suggest(
            member,
            all.iter().filter_map(|change| change.member.as_deref()),
            "--list shows the possible changes",
        ),
        _ => "--list shows the possible changes".to_owned(),
    };
    CliError::usage("no change in this protocol matches the options", help)
}

fn render_changes(changes: &[Mutation], format: ListFormat) -> String {
    match format {
        ListFormat::Text => changes.iter().map(|change| format!("{change}\n")).collect(),
        ListFormat::Json => {
            let list: Vec<_> = changes
                .iter()
                .map(|change| {
                    json!({
                        "change": change.kind.name(), "message": change.message, "member": change.member,
                        "of": change.of.map(|of| of.name()), "nth": change.nth
                    })
                })
                .collect();
            format!("{}\n", json!({ "changes": list }))
        }
    }
}
