//! The task of a connection: reads and decodes, answers pings and closes, and writes the contents of its outbox.
//!
//! Reading and writing share the task but never wait for each other. All commands of the caller go through the outbox,
//! which both halves watch, so that no call blocks.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};

use super::socket::{OpenAttempt, READ_CHUNK, Socket, UpgradedStream, format_seconds, is_reset};
use super::{
    ConnectionCommand, ConnectionId, ConnectionSide, FrameTrace, IncomingEvent, MemoryBudget, MemoryReservation,
    PeerLimits, TraceDirection,
};
use crate::websocket::codec::{FrameDecoder, encode};
use crate::websocket::frame::{ConnectionEvent, Frame, Opcode};

/// How long to wait for the kernel to accept the last bytes when the harness ends a connection.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// The handle of a connection. Dropping it ends the connection within a tenth of a second, without a close frame:
/// queued bytes are still written if the peer reads them, nothing more is read, and no [`ConnectionEvent::End`] is
/// reported.
#[derive(Debug)]
pub struct Connection {
    conn: ConnectionId,
    outlet: OutboxSender,
    task: Option<JoinHandle<()>>,
}

/// A failed send: the connection or its sending half has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection or its sending half has ended")]
pub struct SendError;

impl Connection {
    pub fn conn(&self) -> ConnectionId {
        self.conn
    }

    /// Queues `outgoing` and returns at once. Commands queued before the upgrade are executed right after it.
    ///
    /// # Errors
    /// [`SendError`] after the end, after `Fin` or `Reset`, or when more than [`PeerLimits::unsent`] bytes are already
    /// queued; the last case also ends the connection with a `Violation`, `bound: true`.
    pub fn send(&self, outgoing: ConnectionCommand) -> Result<(), SendError> {
        match outgoing {
            ConnectionCommand::Frames(frames) => self.outlet.queue_frames(&frames),
            ConnectionCommand::Bytes(bytes) => self.outlet.queue_bytes(bytes, false),
            ConnectionCommand::Fin => self.outlet.change_outbox(|outbox| outbox.fin = true),
            ConnectionCommand::Reset => self.outlet.change_outbox(|outbox| outbox.reset = true),
            ConnectionCommand::StopReading => self.outlet.change_outbox(|outbox| outbox.paused = true),
            ConnectionCommand::ReadAgain => self.outlet.change_outbox(|outbox| outbox.paused = false),
        }
    }

    /// Ends the connection in the same way as dropping it, and returns when its task has ended.
    pub async fn finish(mut self) {
        let task = self.task.take();
        drop(self);
        if let Some(task) = task {
            // Fails only if the runtime ends or the task has panicked; in both cases the task has ended.
            let _ = task.await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.outlet.outbox.send_modify(|outbox| outbox.dropped = true);
    }
}

/// Commands from the caller and the reading half to the writing half, and from the caller to both halves.
#[derive(Debug, Default)]
struct ConnectionOutbox {
    /// Bytes to write.
    bytes: Vec<u8>,
    /// The number of bytes not yet in the kernel: bytes in `bytes`, and bytes that the writing half has taken.
    unsent: usize,
    /// Whether the caller sent something while more than [`PeerLimits::unsent`] bytes were queued.
    overflow: bool,
    /// Whether a close frame was sent, by the caller or as an answer.
    close_sent: bool,
    fin: bool,
    /// Whether hubproof's half of the stream has ended.
    shut: bool,
    /// Whether writing has failed because the peer is gone.
    broken: bool,
    reset: bool,
    /// Whether reading is paused.
    paused: bool,
    dropped: bool,
}

/// The sending side of the outbox. Only the task holds receivers: if there are none, the task has ended.
#[derive(Clone, Debug)]
struct OutboxSender {
    conn: ConnectionId,
    outbox: Arc<watch::Sender<ConnectionOutbox>>,
    limit: usize,
    trace: Option<FrameTrace>,
}

impl OutboxSender {
    fn queue_frames(&self, frames: &[Frame]) -> Result<(), SendError> {
        let mut bytes = Vec::new();
        for frame in frames {
            if let Some(FrameTrace(trace)) = &self.trace {
                trace(self.conn, TraceDirection::Out, frame.info());
            }
            encode(frame, rand::random(), &mut bytes);
        }
        self.queue_bytes(bytes, frames.iter().any(|frame| frame.opcode == Opcode::Close))
    }

    /// Queues bytes. The limit applies to the bytes already queued, not to these.
    fn queue_bytes(&self, bytes: Vec<u8>, close: bool) -> Result<(), SendError> {
        let mut result = Err(SendError);
        self.change_outbox(|outbox| {
            if outbox.fin || outbox.reset || outbox.broken || outbox.overflow {
                return;
            }
            if outbox.unsent > self.limit {
                outbox.overflow = true;
                return;
            }
            outbox.unsent += bytes.len();
            outbox.close_sent |= close;
            if outbox.bytes.is_empty() {
                outbox.bytes = bytes
            } else {
                outbox.bytes.extend_from_slice(&bytes)
            }
            result = Ok(());
        })?;
        result
    }

    fn change_outbox(&self, change: impl FnOnce(&mut ConnectionOutbox)) -> Result<(), SendError> {
        if self.outbox.is_closed() {
            return Err(SendError);
        }
        self.outbox.send_modify(change);
        Ok(())
    }
}

/// Sends events to the caller; fails once the receiver is dropped.
struct EventReporter {
    conn: ConnectionId,
    events: mpsc::Sender<IncomingEvent>,
}

impl EventReporter {
    async fn report(&self, at: Instant, what: ConnectionEvent) -> Result<(), SendError> {
        self.report_held(at, what, MemoryReservation::default()).await
    }

    async fn report_held(&self, at: Instant, what: ConnectionEvent, held: MemoryReservation) -> Result<(), SendError> {
        self.events.send(IncomingEvent { conn: self.conn, at, what, held }).await.map_err(|_| SendError)
    }
}

/// Why a connection ended.
enum EndCause {
    /// The stream ended, or the harness dropped it.
    Over { reset: bool, reason: String },
    /// The caller asked for a reset.
    Reset,
    /// More than [`PeerLimits::unsent`] bytes are queued.
    Overflow,
    /// The caller has dropped the connection or the receiver of its events.
    Dropped,
}

fn stream_over(reset: bool, reason: impl Into<String>) -> EndCause {
    EndCause::Over { reset, reason: reason.into() }
}

/// Starts the task of the connection that `opening` opens.
pub(super) fn spawn_connection(
    conn: ConnectionId,
    side: ConnectionSide,
    limits: PeerLimits,
    memory: MemoryBudget,
    trace: Option<FrameTrace>,
    events: mpsc::Sender<IncomingEvent>,
    opening: impl Future<Output = OpenAttempt> + Send + 'static,
) -> Connection {
    let (outbox, watched) = watch::channel(ConnectionOutbox::default());
    let outlet = OutboxSender { conn, outbox: Arc::new(outbox), limit: limits.unsent, trace };
    let reporter = EventReporter { conn, events };
    let life = run_connection(opening, side, (limits, memory), outlet.clone(), watched.clone(), reporter);
    let task = tokio::spawn(async move {
        tokio::select! {
            () = life => {}
            () = wait_until_dropped(watched) => {}
        }
    });
    Connection { conn, outlet, task: Some(task) }
}

/// Waits until the connection is dropped and its last bytes have had time to be written.
async fn wait_until_dropped(mut watched: watch::Receiver<ConnectionOutbox>) {
    // An error means that all senders of the outbox are gone.
    let _ = watched.wait_for(|outbox| outbox.dropped).await;
    sleep(FLUSH_TIMEOUT).await;
}

async fn run_connection(
    opening: impl Future<Output = OpenAttempt>,
    side: ConnectionSide,
    (limits, memory): (PeerLimits, MemoryBudget),
    outlet: OutboxSender,
    mut watched: watch::Receiver<ConnectionOutbox>,
    reporter: EventReporter,
) {
    let OpenAttempt { first, stream } = tokio::select! {
        opened = opening => opened,
        _ = watched.wait_for(|outbox| outbox.dropped) => return,
    };
    let at = Instant::now();
    let violated = matches!(first, ConnectionEvent::Violation { .. });
    if reporter.report(at, first).await.is_err() {
        return;
    }
    let Some(UpgradedStream { socket, rest }) = stream else {
        if violated {
            let end = ConnectionEvent::End { reset: true, reason: "dropped after the violation".to_owned() };
            let _ = reporter.report(Instant::now(), end).await;
        }
        return;
    };

    let (read, write) = split(socket);
    let mut decoder = FrameDecoder::new(side, limits);
    if let Some(FrameTrace(trace)) = outlet.trace.clone() {
        let conn = outlet.conn;
        decoder = decoder.with_trace(move |info| trace(conn, TraceDirection::In, info));
    }
    let mut writing = WritingHalf { half: write, outbox: outlet.outbox.clone(), buffer: Vec::new(), sent: 0 };
    let (held, linger) = (MemoryReservation::default(), limits.linger);
    let (until, closed) = (None, false);
    let mut reading =
        ReadingHalf { half: read, decoder, side, outlet, reporter: &reporter, memory, held, linger, until, closed };
    let ending = tokio::select! {
        ending = reading.run(rest, at, watched.clone()) => ending,
        ending = writing.run(watched) => ending,
    };

    let reset = matches!(ending, EndCause::Reset);
    // Bounded, because the peer may no longer read.
    let _ = timeout(FLUSH_TIMEOUT, writing.finish(!reset)).await;
    hang_up(reading.half, writing.half, reset);
    let (reset, reason) = match ending {
        EndCause::Over { reset, reason } => (reset, reason),
        EndCause::Reset => (true, "we reset the connection".to_owned()),
        EndCause::Dropped => return,
        EndCause::Overflow => {
            let what = format!("more than {} bytes wait to be sent: the hub does not read", limits.unsent);
            let violation = ConnectionEvent::Violation { what, section: "10.4", bound: true };
            if reporter.report(Instant::now(), violation).await.is_err() {
                return;
            }
            (true, "dropped because the hub does not read".to_owned())
        }
    };
    // The receiver may already be dropped.
    let _ = reporter.report(Instant::now(), ConnectionEvent::End { reset, reason }).await;
}

fn hang_up(read: ReadHalf<Box<dyn Socket>>, write: WriteHalf<Box<dyn Socket>>, reset: bool) {
    let socket = read.unsplit(write);
    if reset {
        // Fails only if the connection is already gone.
        let _ = socket.set_zero_linger();
    }
}

/// The reading half.
struct ReadingHalf<'a, R> {
    half: R,
    decoder: FrameDecoder,
    side: ConnectionSide,
    outlet: OutboxSender,
    reporter: &'a EventReporter,
    /// How long to wait for the peer to end the stream: [`PeerLimits::linger`].
    linger: Duration,
    memory: MemoryBudget,
    /// Memory held by the current message.
    held: MemoryReservation,
    /// When to stop waiting for the peer to end the stream.
    until: Option<Instant>,
    /// Whether the peer has sent its close frame.
    closed: bool,
}

impl<R: AsyncRead + Unpin> ReadingHalf<'_, R> {
    /// Reads until the stream ends; `rest` arrived with the upgrade, at `at`.
    async fn run(&mut self, rest: Vec<u8>, at: Instant, mut watched: watch::Receiver<ConnectionOutbox>) -> EndCause {
        if !rest.is_empty() {
            // If reading was paused before the upgrade, the bytes that came with the upgrade wait too.
            let _ = watched.wait_for(|outbox| !outbox.paused).await;
            if let Err(ending) = self.decode_bytes(&rest, at).await {
                return ending;
            }
        }
        drop(rest);
        let mut buffer = vec![0; READ_CHUNK];
        loop {
            let (paused, shut) = {
                let outbox = watched.borrow_and_update();
                (outbox.paused, outbox.shut)
            };
            if shut && self.until.is_none() {
                self.until = Some(Instant::now() + self.linger);
            }
            let until = self.until;
            let read = tokio::select! {
                // This order prevents a flood or a busy sender from starving the others.
                biased;
                () = wait_until(until) => return self.end_after_linger(),
                read = self.half.read(&mut buffer), if !paused => read,
                // Cannot fail: `outlet` keeps the outbox alive.
                _ = watched.changed() => continue,
            };
            let at = Instant::now();
            match read {
                Ok(0) => return self.end_after_stream(""),
                Ok(length) => {
                    if let Err(ending) = self.decode_bytes(&buffer[..length], at).await {
                        return ending;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return self.end_after_stream(", without TLS's close_notify");
                }
                Err(error) if is_reset(&error) => {
                    return stream_over(true, format!("the hub reset the connection{}", self.describe_moment()));
                }
                Err(error) => return stream_over(true, format!("reading failed{}: {error}", self.describe_moment())),
            }
        }
    }

    /// Decodes the bytes, answers control frames and reports the events.
    async fn decode_bytes(&mut self, mut bytes: &[u8], at: Instant) -> Result<(), EndCause> {
        while let Some(received) = self.decoder.next_event(&mut bytes) {
            self.answer_control_frame(&received);
            let violated = matches!(received, ConnectionEvent::Violation { .. });
            let ends = violated || matches!(received, ConnectionEvent::Message(_) | ConnectionEvent::Close { .. });
            let held = if ends { mem::take(&mut self.held) } else { MemoryReservation::default() };
            self.reporter.report_held(at, received, held).await.map_err(|SendError| EndCause::Dropped)?;
            if violated {
                return Err(stream_over(true, "dropped after the violation"));
            }
        }
        self.reserve_memory().await
    }

    /// Reserves memory before reading more of a long message.
    async fn reserve_memory(&mut self) -> Result<(), EndCause> {
        let under_way = self.decoder.current_message_size();
        if under_way <= READ_CHUNK as u64 || self.memory.reserve(&mut self.held, under_way).await.is_ok() {
            return Ok(());
        }
        let what = "the unfinished messages of all connections exceed the memory limit".to_owned();
        let violation = ConnectionEvent::Violation { what, section: "10.4", bound: true };
        self.answer_control_frame(&violation);
        self.reporter.report(Instant::now(), violation).await.map_err(|SendError| EndCause::Dropped)?;
        Err(stream_over(true, "dropped because no memory was free for its message"))
    }

    /// Answers pings and closes at once, as RFC 6455 demands. An answer that can no longer be sent is dropped.
    fn answer_control_frame(&mut self, received: &ConnectionEvent) {
        let (paused, close_sent) = {
            let outbox = self.outlet.outbox.borrow();
            (outbox.paused, outbox.close_sent)
        };
        let frame = match received {
            ConnectionEvent::Ping(data) if !paused => Frame::pong(data.clone()),
            ConnectionEvent::Close { code, .. } => {
                self.closed = true;
                self.until = Some(Instant::now() + self.linger);
                // A code that must not be sent must not be echoed either.
                let echo = code.map(|code| if is_sendable_close_code(code) { code } else { 1002 });
                if !close_sent && !paused {
                    self.send_reply(Frame::close(echo, ""));
                }
                // The server ends the stream first (RFC 6455, section 7.1.1).
                if self.side == ConnectionSide::Server {
                    let _ = self.outlet.change_outbox(|outbox| outbox.fin = true);
                }
                return;
            }
            ConnectionEvent::Violation { section, bound, .. } if !close_sent => Frame::close(
                Some(if *bound {
                    1009
                } else if *section == "8.1" {
                    1007
                } else {
                    1002
                }),
                "",
            ),
            _ => return,
        };
        self.send_reply(frame);
    }

    fn send_reply(&self, frame: Frame) {
        let frame = if self.side == ConnectionSide::Server { frame.unmasked() } else { frame };
        let _ = self.outlet.queue_frames(&[frame]);
    }

    fn describe_moment(&self) -> &'static str {
        if self.closed {
            " after the closing handshake"
        } else if self.decoder.is_unfinished() {
            " in the middle of a message"
        } else {
            ""
        }
    }

    /// Returns the ending for a peer that has ended its half of the stream.
    fn end_after_stream(&self, how: &str) -> EndCause {
        let (broken, fin) = {
            let outbox = self.outlet.outbox.borrow();
            (outbox.broken, outbox.fin)
        };
        let moment = self.describe_moment();
        if broken {
            // The writing half got the error, so the reading half sees an ordinary end.
            stream_over(true, format!("the hub reset the connection{moment}"))
        } else if self.closed {
            stream_over(false, format!("the hub closed the connection{moment}{how}"))
        } else if fin {
            stream_over(false, format!("the hub ended the stream{moment} after we had ended ours{how}"))
        } else {
            stream_over(false, format!("the hub ended the stream{moment} without a close frame{how}"))
        }
    }

    /// Returns the ending for a peer that has not ended its half within [`PeerLimits::linger`].
    fn end_after_linger(&self) -> EndCause {
        let what = if self.closed { "the closing handshake" } else { "we had ended our half of the stream" };
        stream_over(
            false,
            format!("the hub kept the connection open for {} after {what}; we ended it", format_seconds(self.linger)),
        )
    }
}

/// Whether RFC 6455, section 7.4, or IANA's registry allow an endpoint to send this close code.
fn is_sendable_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

async fn wait_until(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// The writing half.
struct WritingHalf<W> {
    half: W,
    outbox: Arc<watch::Sender<ConnectionOutbox>>,
    /// The bytes taken out of the outbox, and how many of them are written.
    buffer: Vec<u8>,
    sent: usize,
}

impl<W: AsyncWrite + Unpin> WritingHalf<W> {
    /// Writes until there is a reason to stop. A failed write is not one: there may be more to read.
    async fn run(&mut self, mut watched: watch::Receiver<ConnectionOutbox>) -> EndCause {
        let mut interrupt = watched.clone();
        loop {
            tokio::select! {
                biased;
                ending = wait_for_interruption(&mut interrupt) => return ending,
                done = self.write_pending() => {
                    if done.is_err() {
                        self.outbox.send_modify(|outbox| {
                            outbox.broken = true;
                            outbox.bytes = Vec::new();
                        });
                        self.buffer.clear();
                        self.sent = 0;
                    }
                }
            }
            if self.outbox.borrow().dropped {
                return EndCause::Dropped;
            }
            let news = |outbox: &ConnectionOutbox| {
                let more = !outbox.bytes.is_empty() || (outbox.fin && !outbox.shut && !outbox.broken);
                more || outbox.dropped || outbox.reset || outbox.overflow
            };
            // Cannot fail: `outlet` keeps the outbox alive.
            let _ = watched.wait_for(news).await;
        }
    }

    /// Writes all queued bytes, and ends hubproof's half after `Fin`. Cancel-safe: written bytes are counted at once.
    async fn write_pending(&mut self) -> std::io::Result<()> {
        loop {
            if self.sent == self.buffer.len() {
                self.sent = 0;
                self.buffer.clear();
                let (buffer, mut last) = (&mut self.buffer, false);
                self.outbox.send_if_modified(|outbox| {
                    *buffer = mem::take(&mut outbox.bytes);
                    last = outbox.fin && !outbox.shut;
                    false
                });
                if self.buffer.is_empty() {
                    self.half.flush().await?;
                    if last {
                        self.half.shutdown().await?;
                        self.outbox.send_modify(|outbox| outbox.shut = true);
                    }
                    return Ok(());
                }
            }
            let written = self.half.write(&self.buffer[self.sent..]).await?;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.sent += written;
            self.outbox.send_if_modified(|outbox| {
                outbox.unsent -= written;
                false
            });
        }
    }

    /// Writes the last bytes, then ends the stream if `orderly`.
    async fn finish(&mut self, orderly: bool) -> std::io::Result<()> {
        self.write_pending().await?;
        if orderly { self.half.shutdown().await } else { Ok(()) }
    }
}

/// Waits for a command that must take effect even if the peer does not read: reset, overflow or drop.
async fn wait_for_interruption(watched: &mut watch::Receiver<ConnectionOutbox>) -> EndCause {
    match watched.wait_for(|outbox| outbox.reset || outbox.overflow).await {
        Ok(outbox) if outbox.overflow => EndCause::Overflow,
        _ => EndCause::Reset,
    }
}
