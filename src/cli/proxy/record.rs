//! `hubproof record`: a proxy between clients and a hub that records connections and the messages of both sides.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use hubproof_reference::relay::{RelayConfig, RelayEvent, RelayEventKind, RelayObserver, RelayTask, start_relay};
use hubproof_reference::server::args::parse_listen_address;
use tokio::sync::mpsc;

use super::relay::{relayed_hub, warn_of_open_address};
use crate::cli::error::BoxedError;
use crate::cli::signals::SignalListener;
use crate::cli::tls_args::TlsArgs;
use crate::cli::{CliError, build_runtime, print_to_stdout};
use crate::import::recording::{RecordedEvent, RecordedLine, SentFrame, Side};
use crate::observe::tap::WireTap;
use crate::report::text::format_count;

/// Most bytes of a recording, which is also the largest file that is read. Later texts pass without being recorded.
pub const MAX_BYTES: usize = crate::syntax::source::MAX_FILE;
/// Most events that can be queued for writing; the proxy waits while the queue is full.
const QUEUE_LENGTH: usize = 64;

/// Record the messages between clients and a hub: run a proxy that writes every text message to a file
///
/// Each line of the file is a JSON object with `time` and `connection` (a number from 1). A line for a message has
/// `direction` (`to-hub` or `from-hub`) and `text`, or `binary`, `close` or `broken` for other frames; a line for a new
/// connection has `target` (the path and query that the hub received) and `subprotocols`. The path that a client requests is relative to HUB_URL. Press Ctrl-C
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
    let file = create_recording(&arguments.to).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            CliError::usage(format!("{shown} already exists"), "choose a new file with --to, or remove this one")
        }
        _ => CliError::failed(format!("failed to write {shown}"), error),
    })?;
    build_runtime()?.block_on(async {
        let mut signals = SignalListener::listen()?;
        let (observer, events) = mpsc::channel(QUEUE_LENGTH);
        let task = RelayTask::Observe(RelayObserver { channel: observer, left_out: None });
        let config = RelayConfig { hub, listen: arguments.listen, task };
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

/// Creates the file of a recording, which must not exist. Only the owner can read it, because it contains passwords and
/// tokens.
pub fn create_recording(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Returns the lines in an event of a relay.
pub fn lines_of_event(tap: &mut WireTap, RelayEvent { time, connection, what }: RelayEvent) -> Vec<RecordedLine> {
    match what {
        RelayEventKind::Bytes { to_hub, bytes } => {
            let time = jiff::Timestamp::try_from(time).map_or(0, jiff::Timestamp::as_millisecond);
            tap.read_bytes(time, connection, if to_hub { Side::Client } else { Side::Hub }, &bytes)
        }
        RelayEventKind::Ended => {
            tap.end(connection);
            Vec::new()
        }
    }
}

/// Returns the next event of a relay, and calls `flush` before it waits for one; `None` if the relay has ended.
pub fn next_event(
    events: &mut mpsc::Receiver<RelayEvent>,
    flush: impl FnOnce() -> std::io::Result<()>,
) -> std::io::Result<Option<RelayEvent>> {
    match events.try_recv() {
        Ok(event) => Ok(Some(event)),
        Err(_) => {
            flush()?;
            Ok(events.blocking_recv())
        }
    }
}

/// Writes events until the proxy ends. The file is complete whenever no event is waiting.
fn write_recording(file: File, mut events: mpsc::Receiver<RelayEvent>) -> std::io::Result<RecordingSummary> {
    let mut file = BufWriter::new(file);
    let mut tap = WireTap::default();
    let mut summary = RecordingSummary::default();
    let mut is_full = false;
    while let Some(event) = next_event(&mut events, || file.flush())? {
        for line in lines_of_event(&mut tap, event) {
            let text_of = match &line.event {
                RecordedEvent::Sent { by, what: SentFrame::Text(_) } => Some(*by),
                _ => None,
            };
            let text = if is_full { String::new() } else { format!("{}\n", line.render()) };
            // Once a line is missing, later ones would mislead.
            is_full |= summary.bytes + text.len() > MAX_BYTES;
            if is_full {
                summary.missed += usize::from(text_of.is_some());
                continue;
            }
            file.write_all(text.as_bytes())?;
            summary.bytes += text.len();
            summary.connections.insert(line.connection);
            match text_of {
                Some(Side::Client) => summary.to_hub += 1,
                Some(Side::Hub) => summary.from_hub += 1,
                None => {}
            }
        }
    }
    Ok(summary)
}
