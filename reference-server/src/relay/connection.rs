//! One connection through the relay.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::frames::{StreamPiece, TextParser, text_frame};
use super::{ConnectionObserver, FrameMutator, RelayEventKind, RelayWork, RelayedHub, upgrade};
use crate::fault::ChangeAction;
use crate::fault::injector::{SWAP_TIME, Trigger, edit_frame};
use crate::machine::MachineOutput;

/// How long the hub may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long one side may stay open after the other has ended.
const CLOSING_GRACE: Duration = Duration::from_secs(5);
/// The size of a read in bytes.
const READ_BYTES: usize = 16 * 1024;
/// The largest number of delayed frames of a connection, and of their bytes; further frames are sent at once.
const MAX_LATE: (usize, usize) = (1024, 1 << 20);

trait RelayStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> RelayStream for T {}

/// Relays a client's connection in both directions until both sides have ended or one is lost.
pub(super) async fn relay_connection(
    mut client: TcpStream,
    peer: SocketAddr,
    work: Arc<RelayWork>,
    observer: Option<ConnectionObserver>,
) {
    // Without Nagle's algorithm, small frames are sent at once; an error shows on the next write.
    let _ = client.set_nodelay(true);
    let hub = &work.hub;
    let Ok((request, rest)) = upgrade::read_request_head(&mut client).await else { return };
    if hub.refuses_pages && upgrade::is_of_foreign_page(&request) {
        return refuse(client, "403 Forbidden", "the relay refuses web pages of other machines").await;
    }
    let connected = timeout(CONNECT_TIME, connect_to_hub(hub, peer)).await;
    let mut server = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(server) => server,
        Err(error) => {
            let why = format!("the relay failed to reach the hub at {}: {error}", hub.authority);
            return refuse(client, "502 Bad Gateway", &why).await;
        }
    };
    let mut first = upgrade::redirect_request(&request, &hub.authority, &hub.target);
    first.extend(&rest);
    if let Some(observer) = &observer {
        observer.report_bytes(true, &first).await;
    }
    if server.write_all(&first).await.is_ok()
        && relay_both_ways(&mut client, server, &work, observer.as_ref()).await.is_err()
    {
        // A reset on one side becomes a reset on the other.
        let _ = client.set_zero_linger();
    }
    if let Some(observer) = &observer {
        observer.report(RelayEventKind::Ended).await;
    }
}

/// Connects to the hub; on the same machine, from the client's address, since hubs may limit connections per address.
async fn connect_to_hub(hub: &RelayedHub, peer: SocketAddr) -> io::Result<Box<dyn RelayStream>> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in tokio::net::lookup_host((hub.host.as_str(), hub.port)).await? {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if addr.ip().is_loopback() && peer.ip().is_loopback() && addr.is_ipv4() == peer.is_ipv4() {
            socket.bind(SocketAddr::new(peer.ip(), 0))?;
        }
        match socket.connect(addr).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                let Some(config) = &hub.tls else { return Ok(Box::new(stream)) };
                let name = ServerName::try_from(hub.host.clone())
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                return Ok(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn refuse(mut client: TcpStream, status: &str, why: &str) {
    let body = format!("{why}\n");
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A client that has disconnected needs no answer.
    let _ = client.write_all((head + &body).as_bytes()).await;
    let _ = client.shutdown().await;
}

/// Relays both directions until they end.
async fn relay_both_ways(
    client: &mut TcpStream,
    server: Box<dyn RelayStream>,
    work: &RelayWork,
    observer: Option<&ConnectionObserver>,
) -> io::Result<()> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = tokio::io::split(server);
    let up = relay_unchanged(from_client, to_server, true, observer);
    let down = async {
        match &work.mutator {
            Some(mutator) => relay_to_client(from_server, to_client, mutator, TextParser::new(&work.kept)).await,
            None => relay_unchanged(from_server, to_client, false, observer).await,
        }
    };
    tokio::pin!(up, down);
    tokio::select! {
        done = &mut up => { done?; timeout(CLOSING_GRACE, down).await.unwrap_or(Ok(())) }
        done = &mut down => { done?; timeout(CLOSING_GRACE, up).await.unwrap_or(Ok(())) }
    }
}

/// Relays bytes to the hub or from it, and copies them to the observer, if there is one.
async fn relay_unchanged(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    to_hub: bool,
    observer: Option<&ConnectionObserver>,
) -> io::Result<()> {
    let Some(observer) = observer else {
        tokio::io::copy(&mut from, &mut to).await?;
        return to.shutdown().await;
    };
    let mut bytes = Vec::with_capacity(READ_BYTES);
    loop {
        bytes.clear();
        if from.read_buf(&mut bytes).await? == 0 {
            return to.shutdown().await;
        }
        observer.report_bytes(to_hub, &bytes).await;
        to.write_all(&bytes).await?;
    }
}

/// Relays the hub's answer to the upgrade, and changes the frames after it.
async fn relay_to_client(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mutator: &FrameMutator,
    mut texts: TextParser,
) -> io::Result<()> {
    let (answer, rest) = upgrade::read_head(&mut from).await?;
    to.write_all(&answer).await?;
    if !upgrade::grants_upgrade(&answer) {
        to.write_all(&rest).await?;
        return relay_unchanged(from, to, false, None).await;
    }
    let mut late = DelayedFrames::default();
    texts.push_bytes(&rest);
    let mut bytes = Vec::with_capacity(READ_BYTES);
    let mut out = Vec::new();
    loop {
        while let Some(piece) = texts.next_piece() {
            match piece {
                StreamPiece::Raw(raw) => out.extend(raw),
                StreamPiece::Close(raw) => {
                    // No frame may follow a close.
                    late.release_due(None, &mut out);
                    out.extend(raw);
                }
                StreamPiece::Text { text, raw } => mutator.mutate(text, raw, &mut late, &mut out),
            }
        }
        to.write_all(&out).await?;
        out.clear();
        bytes.clear();
        let due = late.next_due();
        tokio::select! {
            read = from.read_buf(&mut bytes) => match read? {
                0 => break,
                _ => texts.push_bytes(&bytes),
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                late.release_due(due, &mut out);
            }
        }
    }
    late.release_due(None, &mut out);
    out.extend(texts.take_rest());
    to.write_all(&out).await?;
    to.shutdown().await
}

impl FrameMutator {
    /// Appends the changed text to `out`, or keeps it in `late` if it is delayed.
    fn mutate(&self, text: String, raw: Vec<u8>, late: &mut DelayedFrames, out: &mut Vec<u8>) {
        let overtaken = late.take_swapped();
        let output = MachineOutput::Text { conn: 0, text: text.into() };
        let act = {
            let mut choice = self.choice.lock();
            choice.next_action(&Trigger::Other(None), &output, &mut None)
        };
        let (MachineOutput::Text { text, .. }, Some(act)) = (output, act) else {
            out.extend(raw);
            out.extend(overtaken.into_iter().flatten());
            return;
        };
        let mut applied = true;
        match act {
            ChangeAction::Drop => {}
            ChangeAction::Double => {
                out.extend(&raw);
                out.extend(raw);
            }
            ChangeAction::Delay(by) => applied = late.delay_frame(Instant::now() + by, false, raw, out),
            // The two have been swapped already.
            ChangeAction::Swap if !overtaken.is_empty() => {
                applied = false;
                out.extend(raw);
            }
            ChangeAction::Swap => applied = late.delay_frame(Instant::now() + SWAP_TIME, true, raw, out),
            act => match edit_frame(&text, &act) {
                Some(edited) => out.extend(text_frame(&edited)),
                None => {
                    applied = false;
                    out.extend(raw);
                }
            },
        }
        out.extend(overtaken.into_iter().flatten());
        self.applied.fetch_add(u64::from(applied), Ordering::Relaxed);
    }
}

/// Delayed frames of one connection, by due time and order.
#[derive(Default)]
struct DelayedFrames {
    frames: BTreeMap<(Instant, u64), DelayedFrame>,
    order: u64,
    bytes: usize,
}

struct DelayedFrame {
    raw: Vec<u8>,
    /// Whether the frame is sent after the next text (a swap).
    swapped: bool,
}

impl DelayedFrames {
    fn next_due(&self) -> Option<Instant> {
        self.frames.first_key_value().map(|((due, _), _)| *due)
    }

    /// Keeps a frame and returns `true`, unless too many are kept already; then the frame is sent at once.
    fn delay_frame(&mut self, due: Instant, swapped: bool, raw: Vec<u8>, out: &mut Vec<u8>) -> bool {
        if self.frames.len() >= MAX_LATE.0 || self.bytes + raw.len() > MAX_LATE.1 {
            out.extend(raw);
            return false;
        }
        self.order += 1;
        self.bytes += raw.len();
        self.frames.insert((due, self.order), DelayedFrame { raw, swapped });
        true
    }

    /// Takes the frames that are sent after the next text.
    fn take_swapped(&mut self) -> Vec<Vec<u8>> {
        let keys: Vec<_> = self.frames.iter().filter(|(_, waiting)| waiting.swapped).map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| self.take(key)).collect()
    }

    /// Appends the frames that are due by `by`, or all frames if there is no time.
    fn release_due(&mut self, by: Option<Instant>, out: &mut Vec<u8>) {
        while let Some((due, order)) = self.frames.first_key_value().map(|(key, _)| *key) {
            if by.is_some_and(|by| by < due) {
                break;
            }
            out.extend(self.take(&(due, order)).unwrap_or_default());
        }
    }

    fn take(&mut self, key: &(Instant, u64)) -> Option<Vec<u8>> {
        let waiting = self.frames.remove(key)?;
        self.bytes -= waiting.raw.len();
        Some(waiting.raw)
    }
}
