//! `hubproof serve`: runs the reference server as a separate process.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use hubproof_reference as reference;

use super::signals::SignalListener;
use super::{CliError, build_runtime, print_to_stdout, protocol_files};
use crate::reference::setup::ReferenceAddresses;
use crate::syntax::diagnostic::suggest;
use crate::syntax::source::Sources;

/// Run the reference server
#[derive(Args)]
// The flattened arguments of the server have a group with the default id of this type.
#[group(id = "Serve")]
pub struct ServeArgs {
    #[command(flatten)]
    server: reference::ServeArgs,
    /// Serve every hub instance that the scenarios of a protocol need, and write a target file for `hubproof check
    /// --target`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "sets", "zeromq"])]
    target_file: Option<PathBuf>,
}

pub fn run_serve(arguments: ServeArgs) -> Result<u8, CliError> {
    check_names(&arguments.server)?;
    let runtime = build_runtime()?;
    let done = runtime.block_on(async {
        match arguments.target_file {
            None => reference::run_server(arguments.server, print_addresses).await.map_err(CliError::from),
            Some(path) => serve_with_target_file(arguments.server, path).await,
        }
    });
    done.map(|()| 0)
}

/// Rejects protocols and faults that the server does not have, with suggestions.
fn check_names(server: &reference::ServeArgs) -> Result<(), CliError> {
    let protocols = reference::protocols();
    if let Some(name) = server.names.iter().find(|name| !protocols.contains(&name.as_str())) {
        let help = suggest(name, protocols.iter().copied(), &format!("it implements {}", protocols.join(", ")));
        return Err(CliError::usage(format!("the reference server does not speak `{name}`"), help));
    }
    let faults: Vec<&str> = reference::faults().map(|fault| fault.id).collect();
    if let Some(id) = server.faults.iter().find(|id| !faults.contains(&id.as_str())) {
        let help = suggest(id, faults, "`hubproof serve --list-faults` lists them");
        return Err(CliError::usage(format!("there is no fault `{id}`"), help));
    }
    Ok(())
}

fn print_addresses(running: &reference::RunningServer) {
    print_to_stdout(&running.address_lines().iter().map(|line| format!("{line}\n")).collect::<String>());
}

async fn serve_with_target_file(server: reference::ServeArgs, path: PathBuf) -> Result<(), CliError> {
    let mut signals = SignalListener::listen()?;
    let [name] = server.names.as_slice() else {
        return Err(CliError::usage(
            "`--target-file` needs exactly one protocol",
            "hubproof serve NAME --target-file FILE",
        ));
    };
    let name = name.clone();
    let mut sources = Sources::default();
    let protocol = protocol_files::load_built_in(&name, &mut sources)?.into_valid(&sources)?;
    let ca = server.tls_self_signed.clone().flatten();
    let secure = server.tls_self_signed.is_some() || server.tls_cert.is_some();
    let admin = server.admin;
    let first = server.listen;
    let mut config = reference::server::args::build_config(server)?;
    let model = config.hubs.remove(0);
    config.admin = Some(admin.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))));
    for (index, setup) in protocol.setups.instances.iter().enumerate() {
        let mut hub = model.clone();
        for (key, value) in &setup.serve {
            hub.settings.set(key, value).map_err(reference::ServeError::from)?;
        }
        if setup.tls && !secure {
            hub.tls = Some(reference::HubCertificate::SelfSigned);
        }
        if first.port() != 0 {
            hub.listen.set_port(first.port().saturating_add(index as u16));
        }
        config.hubs.push(hub);
    }
    let running = reference::start_server(config).await?;
    let ca = match (&running.ca, ca) {
        (None, _) => None,
        (Some(pem), given) => {
            let file = given.unwrap_or_else(|| path.with_extension("ca.pem"));
            std::fs::write(&file, pem)
                .map_err(|error| CliError::failed(format!("failed to write {}", file.display()), error))?;
            Some(std::path::absolute(&file).unwrap_or(file).display().to_string())
        }
    };
    let addresses = ReferenceAddresses {
        urls: running.hubs.iter().map(|hub| hub.url.clone()).collect(),
        admin: running.admin.clone(),
        ca,
    };
    write_private(&path, &protocol.setups.render_target_file(&name, &addresses))?;
    print_addresses(&running);
    signals.wait_for_signal().await;
    running.shutdown().await;
    Ok(())
}

/// Writes a file that only its owner can read, because it holds secrets.
fn write_private(path: &std::path::Path, text: &str) -> Result<(), CliError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| CliError::failed(format!("failed to write {}", path.display()), error))
}
