//! `hubproof record`: a proxy between clients and a hub that records connections and the messages of both sides.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use hubproof_reference::relay::{RelayConfig, RelayEvent, RelayEventKind, start_relay};
use hubproof_reference::server::args::parse_listen_address;
use serde_json::json;
use tokio::sync::mpsc;

use super::error::BoxedError;
use super::relay::{relayed_hub, warn_of_open_address};
use super::signals::SignalListener;
use super::tls_args::TlsArgs;
use super::{CliError, build_runtime, print_to_stdout};
use crate::report::text::format_count;

/// Most bytes of a recording, which is also the largest file that is read. Later texts pass without being recorded.
const MAX_BYTES: usize = crate::syntax::source::MAX_FILE;
/// Most events that can be queued for writing, of up to 16 MiB each; the proxy waits while the queue is full.
const QUEUE_LENGTH: usize = 8;

/// Record the messages between clients and a hub: run a proxy that writes every text message to a file
///
/// Each line of the file is a JSON object with `time` and `connection` (a number from 1). A line for a message has
/// `direction` (`to-hub` or `from-hub`) and `text`; a line for a new connection has `target` (the path and
/// query that the hub received) and `subprotocols`. The path that a client requests is relative to HUB_URL. Press Ctrl-C
/// to end the recording. Messages after the first 16 MiB are forwarded but not recorded. The file contains passwords and
/// tokens exactly as they were sent. `hubproof packs init --from-recording FILE` generates a starter pack from it.
#[derive(Args)]
pub struct RecordArgs {
    /// URL of the hub: ws:// or wss://
    #[arg(value_name = "HUB_URL")]
    url: String,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = parse_listen_address)]
    listen: SocketAddr,
    /// File to write the recording to; it must not exist
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    #[command(flatten)]
    tls: TlsArgs,
}

pub fn run_record(arguments: RecordArgs) -> Result<u8, CliError> {
    let hub = relayed_hub(&arguments.url, &arguments.tls)?;
    warn_of_open_address(arguments.listen);
    let shown = arguments.to.display().to_string();
    let mut options = File::options();
    options.write(true).create_new(true);
    // It contains passwords and tokens.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&arguments.to).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            CliError::usage(format!("{shown} already exists"), "choose a new file with --to, or remove this one")
        }
        _ => CliError::failed(format!("failed to write {shown}"), error),
    })?;
    build_runtime()?.block_on(async {
        let mut signals = SignalListener::listen()?;
        let (observer, events) = mpsc::channel(QUEUE_LENGTH);
        let config = RelayConfig { hub, listen: arguments.listen, change: None, observer: Some(observer) };
        let running = start_relay(config).await?;
        print_to_stdout(&format!("record {}\nto {shown}\n", running.url));
        let mut writing = tokio::task::spawn_blocking(move || write_recording(file, events));
        let failed = |error: BoxedError| CliError::failed(format!("failed to write {shown}"), error);
        // The writer ends early only if it failed.
        let early = tokio::select! {
            () = signals.wait_for_signal() => None,
            done = &mut writing => Some(done),
        };
        running.shutdown().await;
        let done = match early {
            Some(done) => done,
            None => writing.await,
        };
        let summary = done.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))?;
        print_to_stdout(&summary.to_string());
        Ok(0)
    })
}

/// A summary of a recording.
#[derive(Default)]
struct RecordingSummary {
    to_hub: usize,
    from_hub: usize,
    connections: std::collections::BTreeSet<u64>,
    bytes: usize,
    /// Number of texts that were not recorded because of the limit.
    missed: usize,
}

impl std::fmt::Display for RecordingSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = format_count(self.to_hub + self.from_hub, "text");
        let connections = format_count(self.connections.len(), "connection");
        writeln!(f, "{all} on {connections}: {} to the hub, {} from it", self.to_hub, self.from_hub)?;
        if self.missed > 0 {
            writeln!(
                f,
                "{} more were not recorded, because the recording reached its limit of {} MiB",
                self.missed,
                MAX_BYTES >> 20
            )?;
        }
        Ok(())
    }
}

/// Writes events until the proxy ends. The file is complete whenever no event is waiting.
fn write_recording(file: File, mut events: mpsc::Receiver<RelayEvent>) -> std::io::Result<RecordingSummary> {
    let mut file = BufWriter::new(file);
    let mut summary = RecordingSummary::default();
    loop {
        let next = match events.try_recv() {
            Ok(event) => Some(event),
            Err(_) => {
                file.flush()?;
                events.blocking_recv()
            }
        };
        let Some(RelayEvent { time, connection, what }) = next else { return Ok(summary) };
        // The proxy must not wait for what is not written.
        if matches!(&what, RelayEventKind::Text { text, .. } if summary.bytes + text.len() > MAX_BYTES) {
            summary.missed += 1;
            continue;
        }
        let time = jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"));
        let (line, to_hub) = match what {
            RelayEventKind::Opened { target, subprotocols } => (
                json!({ "time": time, "connection": connection, "target": target, "subprotocols": subprotocols }),
                None,
            ),
            RelayEventKind::Text { to_hub, text } => {
                let direction = if to_hub { "to-hub" } else { "from-hub" };
                let line = json!({ "time": time, "connection": connection, "direction": direction, "text": text });
                (line, Some(to_hub))
            }
        };
        let line = format!("{line}\n");
        if summary.bytes + line.len() > MAX_BYTES {
            summary.missed += usize::from(to_hub.is_some());
            continue;
        }
        file.write_all(line.as_bytes())?;
        summary.bytes += line.len();
        summary.connections.insert(connection);
        match to_hub {
            Some(true) => summary.to_hub += 1,
            Some(false) => summary.from_hub += 1,
            None => {}
        }
    }
}
