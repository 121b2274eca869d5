//! The command line of the reference clients.

use std::io::Write;

use serde_json::json;

use super::fault::{ClientFault, faults};
use super::{ClientError, ClientOptions};
use crate::machine::settings::Settings;
use crate::server::args::ListFormat;

/// Run a reference client or worker
#[derive(Debug, Clone, clap::Args)]
pub struct ClientArgs {
    /// Protocol the client speaks
    #[arg(value_name = "PROTOCOL", required_unless_present = "list_faults")]
    pub protocol: Option<String>,
    /// URL of the hub: ws://
    #[arg(value_name = "URL", required_unless_present = "list_faults")]
    pub url: Option<String>,
    /// What the client does, separated by commas; without it, the client only connects and answers
    #[arg(long = "do", value_name = "WORDS", value_delimiter = ',', num_args = 0..=1)]
    pub does: Vec<String>,
    /// Switch on a fault (a deliberate defect)
    #[arg(long, value_name = "ID")]
    pub fault: Option<String>,
    /// Set one setting, such as heartbeat=5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Close the connection once everything is done, instead of waiting for the hub to close it
    #[arg(long)]
    pub leave: bool,
    /// List all faults and exit
    #[arg(long)]
    pub list_faults: bool,
    /// Format of the list
    #[arg(long, value_enum, default_value_t = ListFormat::Text, requires = "list_faults")]
    pub format: ListFormat,
}

/// Lists faults, or runs a client to its end.
///
/// # Errors
/// Those of [`super::run`], and a list that cannot be printed.
pub async fn run_client(args: ClientArgs) -> Result<(), ClientError> {
    if args.list_faults {
        let list = list_faults(args.protocol.as_deref(), args.format);
        return std::io::stdout()
            .write_all(list.as_bytes())
            .map_err(|source| ClientError::System { what: "print", source });
    }
    let mut settings = Settings::default();
    for pair in &args.sets {
        settings.set_pair(pair)?;
    }
    super::run(ClientOptions {
        protocol: args.protocol.unwrap_or_default(),
        url: args.url.unwrap_or_default(),
        does: args.does.into_iter().filter(|word| !word.is_empty()).collect(),
        fault: args.fault,
        settings,
        leaves: args.leave,
    })
    .await
}

fn list_faults(protocol: Option<&str>, format: ListFormat) -> String {
    let chosen = faults().iter().filter(|fault| protocol.is_none_or(|protocol| fault.fits(protocol)));
    match format {
        ListFormat::Text => {
            let line = |fault: &ClientFault| {
                format!("{}\n    {} [{}: {}]\n", fault.id, fault.text, fault.place, fault.statement)
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
                        "place": fault.place,
                        "says": fault.statement,
                        "rules": fault.rules,
                    })
                })
                .collect();
            format!("{}\n", json!({ "faults": list }))
        }
    }
}
