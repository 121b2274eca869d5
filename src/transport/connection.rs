//! One connection's task: it reads and decodes, answers pings and closes, and writes what its outbox holds.
//!
//! Reading and writing share the task but never wait for each other. Whatever the caller does goes through the outbox, a value
//! that both halves watch, so that nothing the caller calls can block.

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

/// How long the last bytes may take to reach the kernel when a connection ends from our side.
const FLUSH: Duration = Duration::from_millis(100);

/// A connection's handle. Dropping it ends the connection within a tenth of a second, and without a close frame: what was sent
/// is still written as far as the peer takes it, nothing more is read, and no [`Received::End`] is reported.
#[derive(Debug)]
pub struct Connection {
    conn: ConnId,
    outlet: Outlet,
    task: Option<JoinHandle<()>>,
}

/// Nothing can be sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection has ended, or our half of it")]
pub struct Gone;

impl Connection {
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// Queues `outgoing` and returns at once. What is sent before the upgrade is written right after it.
    ///
    /// # Errors
    /// [`Gone`] after the end, after `Fin` or `Reset`, or when more than [`Limits::unsent`] bytes already wait.
    /// The last of these ends the connection with a `Violation`, `bound: true`.
    pub fn send(&self, outgoing: Outgoing) -> Result<(), Gone> {
        match outgoing {
            Outgoing::Frames(frames) => self.outlet.frames(&frames),
            Outgoing::Bytes(bytes) => self.outlet.bytes(bytes, false),
            Outgoing::Fin => self.outlet.command(|outbox| outbox.fin = true),
            Outgoing::Reset => self.outlet.command(|outbox| outbox.reset = true),
            Outgoing::StopReading => self.outlet.command(|outbox| outbox.deaf = true),
            Outgoing::ReadAgain => self.outlet.command(|outbox| outbox.deaf = false),
        }
    }

    /// Ends the connection as dropping it does, and returns when its task is over: for the end of a run.
    pub async fn finish(mut self) {
        let task = self.task.take();
        drop(self);
        if let Some(task) = task {
            // It fails only if the runtime goes down or the task has panicked, and either way it is over.
            let _ = task.await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.outlet.outbox.send_modify(|outbox| outbox.dropped = true);
    }
}

/// What the caller and the reading half want from the writing half, and the caller from both.
#[derive(Debug, Default)]
struct Outbox {
    /// Waits for the writing half.
    bytes: Vec<u8>,
    /// How much is not yet in the kernel: `bytes`, and what the writing half has in its hands.
    unsent: usize,
    /// More than [`Limits::unsent`] waited when something else was sent.
    overflow: bool,
    /// We have sent a close frame, asked or unasked.
    close_sent: bool,
    fin: bool,
    /// Our half of the stream has ended.
    shut: bool,
    /// Writing has failed: the peer is gone.
    broken: bool,
    reset: bool,
    /// Nothing is to be read for the time being.
    deaf: bool,
    dropped: bool,
}

/// The way into the outbox. The task alone keeps receivers, so a sender without any tells that the task is over.
#[derive(Clone, Debug)]
struct Outlet {
    conn: ConnId,
    outbox: Arc<watch::Sender<Outbox>>,
    limit: usize,
    trace: Option<Trace>,
}

impl Outlet {
    fn frames(&self, frames: &[Frame]) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        for frame in frames {
            if let Some(Trace(trace)) = &self.trace {
                trace(self.conn, Direction::Out, frame.info());
            }
            encode(frame, rand::random(), &mut bytes);
        }
        self.bytes(bytes, frames.iter().any(|frame| frame.opcode == Opcode::Close))
    }

    /// Bytes alone are never refused because they are many: they exist already. What waits before them is what counts.
    fn bytes(&self, bytes: Vec<u8>, close: bool) -> Result<(), Gone> {
        let mut result = Err(Gone);
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

    fn command(&self, change: impl FnOnce(&mut Outbox)) -> Result<(), Gone> {
        if self.outbox.is_closed() {
            return Err(Gone);
        }
        self.outbox.send_modify(change);
        Ok(())
    }
}

/// Where events go. It fails when nobody listens any more.
struct Reporter {
    conn: ConnId,
    events: mpsc::Sender<Incoming>,
}

impl Reporter {
    async fn report(&self, at: Instant, what: Received) -> Result<(), Gone> {
        self.report_held(at, what, Held::default()).await
    }

    async fn report_held(&self, at: Instant, what: Received, held: Held) -> Result<(), Gone> {
        self.events.send(Incoming { conn: self.conn, at, what, held }).await.map_err(|_| Gone)
    }
}

/// How a connection's life ended.
enum Ending {
    /// The stream is over, or we gave it up.
    Over { reset: bool, reason: String },
    /// The caller asked for a reset.
    Reset,
    /// Too much waits to be sent.
    Overflow,
    /// The caller has dropped the connection, or its events.
    Unheard,
}

fn over(reset: bool, reason: impl Into<String>) -> Ending {
    Ending::Over { reset, reason: reason.into() }
}

/// Starts the task of a connection that `opening` will yield.
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

/// Comes true when a dropped connection has had the time for its last bytes.
async fn dropped(mut watched: watch::Receiver<Outbox>) {
    // An error means that the outbox is gone, and with it everybody who could want anything.
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
    // A peer that takes nothing more is no reason to wait longer than that.
    let _ = timeout(FLUSH, writing.finish(!reset)).await;
    hang_up(reading.half, writing.half, reset);
    let (reset, reason) = match ending {
        Ending::Over { reset, reason } => (reset, reason),
        Ending::Reset => (true, "we reset the connection".to_owned()),
        Ending::Unheard => return,
        Ending::Overflow => {
            let what = format!("more than {} bytes wait to be sent: the hub does not read", limits.unsent);
            let violation = Received::Violation { what, section: "10.4", bound: true };
            if reporter.report(Instant::now(), violation).await.is_err() {
                return;
            }
            (true, "dropped, since the hub does not read".to_owned())
        }
    };
    // Nobody may be there to hear it; then nothing is lost.
    let _ = reporter.report(Instant::now(), Received::End { reset, reason }).await;
}

fn hang_up(read: ReadHalf<Box<dyn Socket>>, write: WriteHalf<Box<dyn Socket>>, reset: bool) {
    let socket = read.unsplit(write);
    if reset {
        // It fails only where the connection is already gone.
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
    /// See [`Limits::linger`].
    linger: Duration,
    room: MemoryBudget,
    /// Of the message under way.
    held: Held,
    /// When we stop waiting for the peer to end the stream.
    until: Option<Instant>,
    /// The peer has sent its close frame.
    closed: bool,
}

impl<R: AsyncRead + Unpin> Reading<'_, R> {
    /// Reads until the stream ends; `rest` came with the upgrade, `at` that time.
    async fn run(&mut self, rest: Vec<u8>, at: Instant, mut watched: watch::Receiver<Outbox>) -> Ending {
        if !rest.is_empty() {
            // Whoever stopped reading before the upgrade does not hear what came along with it.
            let _ = watched.wait_for(|outbox| !outbox.deaf).await;
            if let Err(ending) = self.take_in(&rest, at).await {
                return ending;
            }
        }
        drop(rest);
        let mut buffer = vec![0; READ_CHUNK];
        loop {
            let (deaf, shut) = {
                let outbox = watched.borrow_and_update();
                (outbox.deaf, outbox.shut)
            };
            if shut && self.until.is_none() {
                self.until = Some(Instant::now() + self.linger);
            }
            let until = self.until;
            let read = tokio::select! {
                // In this order, so that neither a flood nor a busy sender can push the others aside.
                biased;
                () = wait_until(until) => return self.waited(),
                read = self.half.read(&mut buffer), if !deaf => read,
                // The outbox outlives us: we hold a way into it.
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

    /// Decodes, answers and reports what was read.
    async fn take_in(&mut self, mut bytes: &[u8], at: Instant) -> Result<(), Ending> {
        while let Some(received) = self.decoder.next(&mut bytes) {
            self.answer(&received);
            let violated = matches!(received, Received::Violation { .. });
            let ends = violated || matches!(received, Received::Message(_) | Received::Close { .. });
            let held = if ends { mem::take(&mut self.held) } else { Held::default() };
            self.reporter.report_held(at, received, held).await.map_err(|Gone| Ending::Unheard)?;
            if violated {
                return Err(over(true, "dropped after the violation"));
            }
        }
        self.make_room().await
    }

    /// Before more of a long message is read.
    async fn make_room(&mut self) -> Result<(), Ending> {
        let under_way = self.decoder.under_way();
        if under_way <= READ_CHUNK as u64 || self.room.hold(&mut self.held, under_way).await.is_ok() {
            return Ok(());
        }
        let what = "more unfinished messages than we take at a time".to_owned();
        let violation = Received::Violation { what, section: "10.4", bound: true };
        self.answer(&violation);
        self.reporter.report(Instant::now(), violation).await.map_err(|Gone| Ending::Unheard)?;
        Err(over(true, "dropped for want of room"))
    }

    /// What RFC 6455 wants answered at once. An answer that can no longer be sent is nobody's loss.
    fn answer(&mut self, received: &Received) {
        let (deaf, close_sent) = {
            let outbox = self.outlet.outbox.borrow();
            (outbox.deaf, outbox.close_sent)
        };
        let frame = match received {
            Received::Ping(data) if !deaf => Frame::pong(data.clone()),
            Received::Close { code, .. } => {
                self.closed = true;
                self.until = Some(Instant::now() + self.linger);
                // A code that must not be on a wire is not sent back either.
                let echo = code.map(|code| if may_be_sent(code) { code } else { 1002 });
                if !close_sent && !deaf {
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

    /// The peer has ended its half of the stream.
    fn ended(&self, how: &str) -> Ending {
        let (broken, fin) = {
            let outbox = self.outlet.outbox.borrow();
            (outbox.broken, outbox.fin)
        };
        let moment = self.moment();
        if broken {
            // The error went to the writing half; the reading half then sees an ordinary end.
            over(true, format!("the hub reset the connection{moment}"))
        } else if self.closed {
            over(false, format!("the hub closed the connection{moment}{how}"))
        } else if fin {
            over(false, format!("the hub ended the stream{moment} after we had ended ours{how}"))
        } else {
            over(false, format!("the hub ended the stream{moment} without a close frame{how}"))
        }
    }

    /// The peer has not ended its half, and we have waited long enough.
    fn waited(&self) -> Ending {
        let what = if self.closed { "the closing handshake" } else { "we had ended our half of the stream" };
        over(false, format!("the hub kept the connection open for {} after {what}; we ended it", seconds(self.linger)))
    }
}

/// Close codes that RFC 6455, section 7.4, or IANA's registry let an endpoint send.
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
    /// Taken out of the outbox, and how much of it is written.
    buffer: Vec<u8>,
    sent: usize,
}

impl<W: AsyncWrite + Unpin> Writing<W> {
    /// Writes what comes until there is a reason to stop. A write that fails is not one: there may be more to read.
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
                return Ending::Unheard;
            }
            let news = |outbox: &Outbox| {
                let more = !outbox.bytes.is_empty() || (outbox.fin && !outbox.shut && !outbox.broken);
                more || outbox.dropped || outbox.reset || outbox.overflow
            };
            // The outbox outlives us: we hold a way into it.
            let _ = watched.wait_for(news).await;
        }
    }

    /// Writes all there is, and after `Fin` ends our half. Cancel-safe: what is written is counted at once.
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

    /// The last bytes, and an orderly end if there is to be one.
    async fn finish(&mut self, orderly: bool) -> std::io::Result<()> {
        self.write_pending().await?;
        if orderly { self.half.shutdown().await } else { Ok(()) }
    }
}

/// What cannot wait until a peer takes our bytes.
async fn interruption(watched: &mut watch::Receiver<Outbox>) -> Ending {
    match watched.wait_for(|outbox| outbox.reset || outbox.overflow).await {
        Ok(outbox) if outbox.overflow => Ending::Overflow,
        _ => Ending::Reset,
    }
}
