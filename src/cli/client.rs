//! `hubproof client`: runs a reference client or worker as a separate process.

use hubproof_reference::clients::args::{ClientArgs, run_client};
use hubproof_reference::clients::{ClientError, faults, protocols, words};

use super::{CliError, build_runtime, exit};
use crate::syntax::diagnostic::suggest;

pub fn run_client_command(arguments: ClientArgs) -> Result<u8, CliError> {
    check_names(&arguments)?;
    match build_runtime()?.block_on(run_client(arguments)) {
        Ok(()) => Ok(exit::PASSED),
        Err(ClientError::Ended(reason)) => {
            eprintln!("error: {reason}");
            Ok(exit::FAILED)
        }
        Err(error) => Err(CliError::new(error)),
    }
}

/// Rejects protocols, words and faults that no client has, with suggestions.
fn check_names(client: &ClientArgs) -> Result<(), CliError> {
    let Some(protocol) = &client.protocol else { return Ok(()) };
    if !protocols().contains(&protocol.as_str()) {
        let help = suggest(protocol, protocols(), &format!("there are clients for {}", protocols().join(", ")));
        return Err(CliError::usage(format!("there is no client for `{protocol}`"), help));
    }
    let words = words(protocol);
    if let Some(word) = client.does.iter().find(|word| !word.is_empty() && !words.contains(&word.as_str())) {
        let help = suggest(word, words.iter().copied(), &format!("it can do {}", words.join(", ")));
        return Err(CliError::usage(format!("a client of {protocol} cannot do `{word}`"), help));
    }
    let known = || faults().iter().filter(|fault| fault.fits(protocol)).map(|fault| fault.id.as_str());
    if let Some(id) = client.fault.as_deref().filter(|id| known().all(|known| known != *id)) {
        let help = suggest(id, known(), "`hubproof client --list-faults` lists them");
        return Err(CliError::usage(format!("clients of {protocol} have no fault `{id}`"), help));
    }
    Ok(())
}
