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

use super::socket::{Opened, READ_CHUNK, Socket, Upgraded, is_hang_up, seconds};
use super::{ConnId, Direction, Held, Incoming, Limits, MemoryBudget, Outgoing, Role, Trace};
use crate::websocket::codec::{Decoder, encode};
use crate::websocket::frame::{Frame, Opcode, Received};

/// How long to wait for the kernel to accept the last bytes when the harness ends a connection.
const FLUSH: Duration = Duration::from_millis(100);

/// The handle of a connection. Dropping it ends the connection within a tenth of a second, without a close frame:
/// queued bytes are still written if the peer reads them, nothing more is read, and no [`Received::End`] is reported.
#[derive(Debug)]
pub struct Connection {
    conn: ConnId,
    outlet: Outlet,
    task: Option<JoinHandle<()>>,
}

/// A failed send: the connection or its sending half has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection or its sending half has ended")]
pub struct SendError;

impl Connection {
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// Queues `outgoing` and returns at once. Commands queued before the upgrade are executed right after it.
    ///
    /// # Errors
    /// [`SendError`] after the end, after `Fin` or `Reset`, or when more than [`Limits::unsent`] bytes are already
    /// queued; the last case also ends the connection with a `Violation`, `bound: true`.
    pub fn send(&self, outgoing: Outgoing) -> Result<(), SendError> {
        match outgoing {
            Outgoing::Frames(frames) => self.outlet.frames(&frames),
            Outgoing::Bytes(bytes) => self.outlet.bytes(bytes, false),
            Outgoing::Fin => self.outlet.command(|outbox| outbox.fin = true),
            Outgoing::Reset => self.outlet.command(|outbox| outbox.reset = true),
            Outgoing::StopReading => self.outlet.command(|outbox| outbox.paused = true),
            Outgoing::ReadAgain => self.outlet.command(|outbox| outbox.paused = false),
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
struct Outbox {
    /// Bytes to write.
    bytes: Vec<u8>,
    /// The number of bytes not yet in the kernel: those in `bytes`, and those that the writing half has taken.
    unsent: usize,
    /// Whether the caller sent something while more than [`Limits::unsent`] bytes were queued.
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
struct Outlet {
    conn: ConnId,
    outbox: Arc<watch::Sender<Outbox>>,
    limit: usize,
    trace: Option<Trace>,
}

impl Outlet {
    fn frames(&self, frames: &[Frame]) -> Result<(), SendError> {
        let mut bytes = Vec::new();
        for frame in frames {
            if let Some(Trace(trace)) = &self.trace {
                trace(self.conn, Direction::Out, frame.info());
            }
            encode(frame, rand::random(), &mut bytes);
        }
        self.bytes(bytes, frames.iter().any(|frame| frame.opcode == Opcode::Close))
    }

    /// Queues bytes. The limit applies to the bytes already queued, not to these.
    fn bytes(&self, bytes: Vec<u8>, close: bool) -> Result<(), SendError> {
        let mut result = Err(SendError);
        self.command(|outbox| {
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

    fn command(&self, change: impl FnOnce(&mut Outbox)) -> Result<(), SendError> {
        if self.outbox.is_closed() {
            return Err(SendError);
        }
        self.outbox.send_modify(change);
        Ok(())
    }
}

/// Sends events to the caller; fails once the receiver is dropped.
struct Reporter {
    conn: ConnId,
    events: mpsc::Sender<Incoming>,
}

impl Reporter {
    async fn report(&self, at: Instant, what: Received) -> Result<(), SendError> {
        self.report_held(at, what, Held::default()).await
    }

    async fn report_held(&self, at: Instant, what: Received, held: Held) -> Result<(), SendError> {
        self.events.send(Incoming { conn: self.conn, at, what, held }).await.map_err(|_| SendError)
    }
}

/// Why a connection ended.
enum Ending {
    /// The stream ended, or the harness dropped it.
    Over { reset: bool, reason: String },
    /// The caller asked for a reset.
    Reset,
    /// More than [`Limits::unsent`] bytes are queued.
    Overflow,
    /// The caller has dropped the connection or the receiver of its events.
    Dropped,
}

fn over(reset: bool, reason: impl Into<String>) -> Ending {
    Ending::Over { reset, reason: reason.into() }
}

/// Starts the task of the connection that `opening` opens.
pub(super) fn spawn(
    conn: ConnId,
    role: Role,
    limits: Limits,
    room: MemoryBudget,
    trace: Option<Trace>,
    events: mpsc::Sender<Incoming>,
    opening: impl Future<Output = Opened> + Send + 'static,
) -> Connection {
    let (outbox, watched) = watch::channel(Outbox::default());
    let outlet = Outlet { conn, outbox: Arc::new(outbox), limit: limits.unsent, trace };
    let reporter = Reporter { conn, events };
    let life = live(opening, role, (limits, room), outlet.clone(), watched.clone(), reporter);
    let task = tokio::spawn(async move {
        tokio::select! {
            () = life => {}
            () = dropped(watched) => {}
        }
    });
    Connection { conn, outlet, task: Some(task) }
}

/// Waits until the connection is dropped and its last bytes have had time to be written.
async fn dropped(mut watched: watch::Receiver<Outbox>) {
    // An error means that all senders of the outbox are gone.
    let _ = watched.wait_for(|outbox| outbox.dropped).await;
    sleep(FLUSH).await;
}

async fn live(
    opening: impl Future<Output = Opened>,
    role: Role,
    (limits, room): (Limits, MemoryBudget),
    outlet: Outlet,
    mut watched: watch::Receiver<Outbox>,
    reporter: Reporter,
) {
    let Opened { first, stream } = tokio::select! {
        opened = opening => opened,
        _ = watched.wait_for(|outbox| outbox.dropped) => return,
    };
    let at = Instant::now();
    let violated = matches!(first, Received::Violation { .. });
    if reporter.report(at, first).await.is_err() {
        return;
    }
    let Some(Upgraded { socket, rest }) = stream else {
        if violated {
            let end = Received::End { reset: true, reason: "dropped after the violation".to_owned() };
            let _ = reporter.report(Instant::now(), end).await;
        }
        return;
    };

    let (read, write) = split(socket);
    let mut decoder = Decoder::new(role, limits);
    if let Some(Trace(trace)) = outlet.trace.clone() {
        let conn = outlet.conn;
        decoder = decoder.traced(move |info| trace(conn, Direction::In, info));
    }
    let mut writing = Writing { half: write, outbox: outlet.outbox.clone(), buffer: Vec::new(), sent: 0 };
    let (held, linger) = (Held::default(), limits.linger);
    let (until, closed) = (None, false);
    let mut reading =
        Reading { half: read, decoder, role, outlet, reporter: &reporter, room, held, linger, until, closed };
    let ending = tokio::select! {
        ending = reading.run(rest, at, watched.clone()) => ending,
        ending = writing.run(watched) => ending,
    };

    let reset = matches!(ending, Ending::Reset);
    // Bounded, because the peer may no longer read.
    let _ = timeout(FLUSH, writing.finish(!reset)).await;
    hang_up(reading.half, writing.half, reset);
    let (reset, reason) = match ending {
        Ending::Over { reset, reason } => (reset, reason),
        Ending::Reset => (true, "we reset the connection".to_owned()),
        Ending::Dropped => return,
        Ending::Overflow => {
            let what = format!("more than {} bytes wait to be sent: the hub does not read", limits.unsent);
            let violation = Received::Violation { what, section: "10.4", bound: true };
            if reporter.report(Instant::now(), violation).await.is_err() {
                return;
            }
            (true, "dropped because the hub does not read".to_owned())
        }
    };
    // The receiver may already be dropped.
    let _ = reporter.report(Instant::now(), Received::End { reset, reason }).await;
}

fn hang_up(read: ReadHalf<Box<dyn Socket>>, write: WriteHalf<Box<dyn Socket>>, reset: bool) {
    let socket = read.unsplit(write);
    if reset {
        // Fails only if the connection is already gone.
        let _ = socket.tcp().set_zero_linger();
    }
}

/// The reading half.
struct Reading<'a, R> {
    half: R,
    decoder: Decoder,
    role: Role,
    outlet: Outlet,
    reporter: &'a Reporter,
    /// How long to wait for the peer to end the stream: [`Limits::linger`].
    linger: Duration,
    room: MemoryBudget,
    /// Memory held by the current message.
    held: Held,
    /// When to stop waiting for the peer to end the stream.
    until: Option<Instant>,
    /// Whether the peer has sent its close frame.
    closed: bool,
}

impl<R: AsyncRead + Unpin> Reading<'_, R> {
    /// Reads until the stream ends; `rest` arrived with the upgrade, at `at`.
    async fn run(&mut self, rest: Vec<u8>, at: Instant, mut watched: watch::Receiver<Outbox>) -> Ending {
        if !rest.is_empty() {
            // If reading was paused before the upgrade, the bytes that came with the upgrade wait too.
            let _ = watched.wait_for(|outbox| !outbox.paused).await;
            if let Err(ending) = self.take_in(&rest, at).await {
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
                () = wait_until(until) => return self.waited(),
                read = self.half.read(&mut buffer), if !paused => read,
                // Cannot fail: `outlet` keeps the outbox alive.
                _ = watched.changed() => continue,
            };
            let at = Instant::now();
            match read {
                Ok(0) => return self.ended(""),
                Ok(length) => {
                    if let Err(ending) = self.take_in(&buffer[..length], at).await {
                        return ending;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return self.ended(", without TLS's close_notify");
                }
                Err(error) if is_hang_up(&error) => {
                    return over(true, format!("the hub reset the connection{}", self.moment()));
                }
                Err(error) => return over(true, format!("reading failed{}: {error}", self.moment())),
            }
        }
    }

    /// Decodes the bytes, answers control frames and reports the events.
    async fn take_in(&mut self, mut bytes: &[u8], at: Instant) -> Result<(), Ending> {
        while let Some(received) = self.decoder.next(&mut bytes) {
            self.answer(&received);
            let violated = matches!(received, Received::Violation { .. });
            let ends = violated || matches!(received, Received::Message(_) | Received::Close { .. });
            let held = if ends { mem::take(&mut self.held) } else { Held::default() };
            self.reporter.report_held(at, received, held).await.map_err(|SendError| Ending::Dropped)?;
            if violated {
                return Err(over(true, "dropped after the violation"));
            }
        }
        self.make_room().await
    }

    /// Reserves memory before reading more of a long message.
    async fn make_room(&mut self) -> Result<(), Ending> {
        let under_way = self.decoder.under_way();
        if under_way <= READ_CHUNK as u64 || self.room.hold(&mut self.held, under_way).await.is_ok() {
            return Ok(());
        }
        let what = "the unfinished messages of all connections exceed the memory limit".to_owned();
        let violation = Received::Violation { what, section: "10.4", bound: true };
        self.answer(&violation);
        self.reporter.report(Instant::now(), violation).await.map_err(|SendError| Ending::Dropped)?;
        Err(over(true, "dropped because no memory was free for its message"))
    }

    /// Answers pings and closes at once, as RFC 6455 demands. An answer that can no longer be sent is dropped.
    fn answer(&mut self, received: &Received) {
        let (paused, close_sent) = {
            let outbox = self.outlet.outbox.borrow();
            (outbox.paused, outbox.close_sent)
        };
        let frame = match received {
            Received::Ping(data) if !paused => Frame::pong(data.clone()),
            Received::Close { code, .. } => {
                self.closed = true;
                self.until = Some(Instant::now() + self.linger);
                // A code that must not be sent must not be echoed either.
                let echo = code.map(|code| if may_be_sent(code) { code } else { 1002 });
                if !close_sent && !paused {
                    self.reply(Frame::close(echo, ""));
                }
                // The server ends the stream first (RFC 6455, section 7.1.1).
                if self.role == Role::Server {
                    let _ = self.outlet.command(|outbox| outbox.fin = true);
                }
                return;
            }
            Received::Violation { section, bound, .. } if !close_sent => Frame::close(
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
        self.reply(frame);
    }

    fn reply(&self, frame: Frame) {
        let frame = if self.role == Role::Server { frame.unmasked() } else { frame };
        let _ = self.outlet.frames(&[frame]);
    }

    fn moment(&self) -> &'static str {
        if self.closed {
            " after the closing handshake"
        } else if self.decoder.is_unfinished() {
            " in the middle of a message"
        } else {
            ""
        }
    }

    /// Returns the ending for a peer that has ended its half of the stream.
    fn ended(&self, how: &str) -> Ending {
        let (broken, fin) = {
            let outbox = self.outlet.outbox.borrow();
            (outbox.broken, outbox.fin)
        };
        let moment = self.moment();
        if broken {
            // The writing half got the error, so the reading half sees an ordinary end.
            over(true, format!("the hub reset the connection{moment}"))
        } else if self.closed {
            over(false, format!("the hub closed the connection{moment}{how}"))
        } else if fin {
            over(false, format!("the hub ended the stream{moment} after we had ended ours{how}"))
        } else {
            over(false, format!("the hub ended the stream{moment} without a close frame{how}"))
        }
    }

    /// Returns the ending for a peer that has not ended its half within [`Limits::linger`].
    fn waited(&self) -> Ending {
        let what = if self.closed { "the closing handshake" } else { "we had ended our half of the stream" };
        over(false, format!("the hub kept the connection open for {} after {what}; we ended it", seconds(self.linger)))
    }
}

/// Whether RFC 6455, section 7.4, or IANA's registry allow an endpoint to send this close code.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

async fn wait_until(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// The writing half.
struct Writing<W> {
    half: W,
    outbox: Arc<watch::Sender<Outbox>>,
    /// The bytes taken out of the outbox, and how many of them are written.
    buffer: Vec<u8>,
    sent: usize,
}

impl<W: AsyncWrite + Unpin> Writing<W> {
    /// Writes until there is a reason to stop. A failed write is not one: there may be more to read.
    async fn run(&mut self, mut watched: watch::Receiver<Outbox>) -> Ending {
        let mut interrupt = watched.clone();
        loop {
            tokio::select! {
                biased;
                ending = interruption(&mut interrupt) => return ending,
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
                return Ending::Dropped;
            }
            let news = |outbox: &Outbox| {
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
async fn interruption(watched: &mut watch::Receiver<Outbox>) -> Ending {
    match watched.wait_for(|outbox| outbox.reset || outbox.overflow).await {
        Ok(outbox) if outbox.overflow => Ending::Overflow,
        _ => Ending::Reset,
    }
}
