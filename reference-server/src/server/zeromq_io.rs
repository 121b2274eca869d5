//! One connection to a ZeroMQ socket of a hub: requests and their replies, or subscriptions and what is published.
//!
//! A connection becomes one of the machine's with its handshake, or with its first subscription. Its requests are
//! answered one after the other, as REP demands: the machine gets the next one once the reply to the one before is sent.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::machine::{ConnectionId, Handshake, MachineInput, Traffic};
use crate::server::connection::ConnectionContext;
use crate::server::meter::MeteredStream;
use crate::server::outbox::{Outbox, OutboxItem};
use crate::zmtp::{SocketKind, ZmtpRequest, ZmtpSession};

/// How long a peer may take for its handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long to read the peer's bytes after the end, so that the last messages are not lost.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// How many bytes to read before the request that precedes them is answered.
const MAX_AHEAD: usize = 64 << 10;
/// How many bytes to collect before they are written.
const MAX_WRITE: usize = 64 << 10;

/// The connection has ended.
struct Ended;

struct ZeromqConnection {
    kind: SocketKind,
    conn: ConnectionId,
    peer: IpAddr,
    context: ConnectionContext,
    outbox: Arc<Outbox>,
    session: ZmtpSession,
    /// Whether the machine knows the connection.
    open: bool,
    /// The envelope of the last request that the machine has received.
    envelope: Vec<Vec<u8>>,
    /// Whether that request has no reply yet.
    asked: bool,
    /// The request after it.
    next: Option<ZmtpRequest>,
}

/// Serves one connection to its end.
pub async fn serve_zeromq<S>(
    mut stream: MeteredStream<S>,
    kind: SocketKind,
    peer: IpAddr,
    conn: ConnectionId,
    context: ConnectionContext,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = ZeromqConnection {
        kind,
        conn,
        peer,
        session: ZmtpSession::new(kind, context.max_message),
        context,
        outbox: Arc::default(),
        open: false,
        envelope: vec![Vec::new()],
        asked: false,
        next: None,
    };
    let Err(Ended) = connection.converse(&mut stream).await;
    // A hub that shuts down needs no report.
    let _ = connection.context.hub.handle(MachineInput::Closed { conn });
    connection.outbox.cut();
    // A peer that has disconnected is not an error.
    let _ = timeout(CLOSING_TIME, async {
        let _ = stream.shutdown().await;
        let mut rest = vec![0; 4096];
        while let Ok(1..) = stream.read(&mut rest).await {}
    })
    .await;
}

impl ZeromqConnection {
    /// Reads and writes until the connection ends.
    async fn converse<S>(&mut self, stream: &mut MeteredStream<S>) -> Result<std::convert::Infallible, Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut shutdown = self.context.shutdown.clone();
        let mut late = std::pin::pin!(sleep(HANDSHAKE_TIME));
        let mut buffer = vec![0; 4096];
        let mut batch = VecDeque::new();
        loop {
            let passed = self.pass_requests(stream);
            let out = self.session.take_out();
            self.write(stream, &out).await?;
            if passed.is_err() {
                // Requests before the one that cannot be read have their replies.
                if let Some(Ok(())) = poll_fn(|context| self.outbox.poll_take(context, &mut batch)).now_or_never() {
                    self.send_batch(stream, &mut batch).await?;
                }
                return Err(Ended);
            }
            let reads = self.next.is_none() || self.session.unhandled() < MAX_AHEAD;
            tokio::select! {
                () = shutdown.wait(), if !self.open => return Err(Ended),
                () = &mut late, if !self.session.is_ready() => return Err(Ended),
                read = stream.read(&mut buffer), if reads => match read {
                    Ok(length @ 1..) => self.session.receive(&buffer[..length]),
                    _ => return Err(Ended),
                },
                taken = poll_fn(|context| self.outbox.poll_take(context, &mut batch)) => {
                    taken.map_err(|_| Ended)?;
                    self.send_batch(stream, &mut batch).await?;
                }
            }
        }
    }

    /// Handles received bytes and passes the next request to the machine, unless one has no reply yet.
    fn pass_requests<S>(&mut self, stream: &MeteredStream<S>) -> Result<(), Ended> {
        loop {
            if self.next.is_none() {
                self.next = self.session.next_request().map_err(|_| Ended)?;
            }
            if !self.open && self.session.is_client() {
                let traffic = match self.kind {
                    SocketKind::Rep => Traffic::Requests,
                    SocketKind::Pub => Traffic::Publications,
                };
                let handshake = Handshake { peer: self.peer, traffic, ..Handshake::default() };
                self.context.hub.open(self.conn, handshake, self.outbox.clone()).map_err(|_| Ended)?;
                self.open = true;
            }
            if self.session.unhandled() == 0 {
                stream.meter.reset();
            }
            if self.asked {
                return Ok(());
            }
            let Some(ZmtpRequest { envelope, data }) = self.next.take() else { return Ok(()) };
            stream.meter.reset();
            (self.envelope, self.asked) = (envelope, true);
            // Anything but one frame of text is as unreadable as an empty text, and REP owes a reply to it, too.
            let text = <[_; 1]>::try_from(data).ok().and_then(|[only]| String::from_utf8(only).ok());
            let input = MachineInput::Text { conn: self.conn, text: text.unwrap_or_default().into() };
            self.context.hub.handle(input).map_err(|_| Ended)?;
        }
    }

    /// Sends all of `batch`.
    async fn send_batch<S>(
        &mut self,
        stream: &mut MeteredStream<S>,
        batch: &mut VecDeque<OutboxItem>,
    ) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut out = Vec::new();
        let mut ended = Ok(());
        for item in batch.drain(..) {
            match &item {
                OutboxItem::Text(text) => self.session.write_message(self.envelope(), text.as_bytes(), &mut out),
                OutboxItem::Binary(data) => self.session.write_message(self.envelope(), data, &mut out),
                OutboxItem::Accept(_) => continue,
                OutboxItem::Refuse(..) | OutboxItem::Close(..) | OutboxItem::Drop => ended = Err(Ended),
            }
            self.asked = false;
            if out.len() > MAX_WRITE {
                self.write(stream, &out).await?;
                out.clear();
            }
        }
        self.write(stream, &out).await?;
        ended
    }

    /// Returns the frames that precede a message to the peer.
    fn envelope(&self) -> &[Vec<u8>] {
        if self.kind == SocketKind::Rep { &self.envelope } else { &[] }
    }

    /// Writes bytes, unless the connection is cut or the hub shuts down meanwhile.
    async fn write<S>(&self, stream: &mut MeteredStream<S>, bytes: &[u8]) -> Result<(), Ended>
    where
        S: AsyncWrite + Unpin,
    {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut shutdown = self.context.shutdown.clone();
        let written = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        tokio::select! {
            written = written => written.map_err(|_| Ended),
            _ = poll_fn(|context| self.outbox.poll_cut(context)) => Err(Ended),
            () = shutdown.wait(), if !self.open => Err(Ended),
        }
    }
}
