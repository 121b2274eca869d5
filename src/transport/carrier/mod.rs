//! Connections that carry the messages of a protocol without WebSocket: ZeroMQ, and lines over TCP.
//!
//! A [`Carrier`] turns messages into bytes and back, and knows no sockets. [`open`] does the I/O: it connects, and stands
//! between the carrier's stream and a stream of WebSocket frames in memory, so that everything above [`crate::transport`] sees
//! one kind of connection. Pings are answered here and a close frame ends the stream: what the hub itself would do with
//! them cannot be seen, so scenarios about it [do not apply](crate::scenario::Program::needs_websocket).
//!
//! ```text
//! gateway  a WebSocket server before such a hub, for load
//! lines    one message per line
//! zmtp     ZeroMQ: DEALER for requests, SUB for what the hub publishes
//! ```

pub mod gateway;
mod lines;
pub mod zmtp;

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::socket::{OpenAttempt, READ_CHUNK, Socket, UpgradedStream, connect_stream, format_seconds};
use super::{ConnectRequest, ConnectionEvent};
use crate::websocket::codec::{ConnectionSide, FrameDecoder, PeerLimits, encode};
use crate::websocket::endpoint::{CarrierKind, Endpoint};
use crate::websocket::frame::{Frame, NO_ANSWER, Opcode};

/// The code of the close frame that stands for a hub that breaks the carrier's protocol.
const BROKEN: u16 = 1002;

/// The bytes of a connection without WebSocket, as a pure state machine.
pub trait Carrier: Send {
    /// Returns what to send first.
    fn opening(&self) -> Vec<u8>;

    /// Takes what the hub sent, and appends complete messages to `messages`, and what the hub expects in return to `answers`.
    ///
    /// # Errors
    /// What is wrong with it; the connection ends.
    fn receive(&mut self, bytes: &[u8], messages: &mut Vec<Vec<u8>>, answers: &mut Vec<u8>) -> Result<(), String>;

    /// Whether messages may be sent.
    fn is_ready(&self) -> bool;

    /// Appends a message to what is sent.
    fn encode(&self, message: &[u8], out: &mut Vec<u8>);
}

/// A stream whose carrier is ready, and the messages that came with that.
struct CarriedStream {
    socket: Box<dyn Socket>,
    carrier: Box<dyn Carrier>,
    first: Vec<Vec<u8>>,
}

impl Socket for DuplexStream {
    fn set_zero_linger(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Connects to a hub without WebSocket.
pub(super) async fn open(request: &ConnectRequest, endpoint: &Endpoint, deadline: Instant) -> OpenAttempt {
    let most = request.limits.message;
    let mut streams = Vec::new();
    let carriers: Vec<(Endpoint, Box<dyn Carrier>)> = match endpoint.carrier {
        CarrierKind::WebSocket => Vec::new(),
        CarrierKind::Lines => vec![(endpoint.clone(), Box::new(lines::Lines::new(most)))],
        CarrierKind::ZeroMq { publishes } => {
            let requests: Box<dyn Carrier> = Box::new(zmtp::Zmtp::new(zmtp::SocketKind::Dealer, most));
            let published = publishes.map(|port| {
                let carrier: Box<dyn Carrier> = Box::new(zmtp::Zmtp::new(zmtp::SocketKind::Sub, most));
                (endpoint.with_port(port), carrier)
            });
            std::iter::once((endpoint.clone(), requests)).chain(published).collect()
        }
    };
    for (endpoint, carrier) in carriers {
        let (socket, _) = match connect_stream(request, &endpoint, deadline).await {
            Ok(connected) => connected,
            Err(error) => return OpenAttempt::unreachable(error.to_string()),
        };
        let greeted = timeout_at(deadline, greet(socket, carrier)).await.unwrap_or_else(|_| {
            Err(format!("{NO_ANSWER} {} within {}", endpoint.authority(), format_seconds(request.timeout)))
        });
        match greeted {
            Ok(stream) => streams.push(stream),
            Err(reason) => return OpenAttempt::no_upgrade(reason.into()),
        }
    }
    let (near, far) = duplex(READ_CHUNK);
    tokio::spawn(carry(far, streams, request.limits));
    let first = ConnectionEvent::Upgraded { status: 101, headers: Vec::new(), subprotocol: None };
    OpenAttempt { first, stream: Some(UpgradedStream { socket: Box::new(near), rest: Vec::new() }) }
}

/// Exchanges what comes before the first message.
async fn greet(mut socket: Box<dyn Socket>, mut carrier: Box<dyn Carrier>) -> Result<CarriedStream, String> {
    // If writing fails, reading does, too.
    let _ = socket.write_all(&carrier.opening()).await;
    let (mut first, mut buffer) = (Vec::new(), vec![0; READ_CHUNK]);
    while !carrier.is_ready() {
        let read = socket.read(&mut buffer).await.map_err(|error| format!("the handshake failed: {error}"))?;
        if read == 0 {
            return Err("the hub ended the stream in the handshake".to_owned());
        }
        let mut answers = Vec::new();
        carrier.receive(&buffer[..read], &mut first, &mut answers)?;
        let _ = socket.write_all(&answers).await;
    }
    Ok(CarriedStream { socket, carrier, first })
}

/// The half of the stream in memory to which frames for the interpreter are written; `None` after a close frame.
type FrameWriter = Arc<Mutex<Option<WriteHalf<DuplexStream>>>>;

/// Passes messages on in both directions until either side ends. The first stream takes what is sent.
async fn carry(far: DuplexStream, streams: Vec<CarriedStream>, limits: PeerLimits) {
    let (frames, writer) = split(far);
    let writer: FrameWriter = Arc::new(Mutex::new(Some(writer)));
    let mut readers = tokio::task::JoinSet::new();
    let mut sending = None;
    for CarriedStream { socket, carrier, first } in streams {
        let (read, write) = split(socket);
        let carrier = Arc::new(Mutex::new(carrier));
        let write = Arc::new(Mutex::new(write));
        sending.get_or_insert_with(|| (Arc::clone(&carrier), Arc::clone(&write)));
        readers.spawn(pass_on_received(read, carrier, write, first, Arc::clone(&writer)));
    }
    let Some((carrier, write)) = sending else { return };
    tokio::select! {
        () = pass_on_sent(frames, &carrier, &write, &writer, limits) => {}
        _ = readers.join_next() => {}
    }
    // The peer of each half may be gone already.
    let _ = write.lock().await.shutdown().await;
    if let Some(mut writer) = writer.lock().await.take() {
        let _ = writer.shutdown().await;
    }
}

type SharedCarrier = Arc<Mutex<Box<dyn Carrier>>>;
type SharedWriter = Arc<Mutex<WriteHalf<Box<dyn Socket>>>>;

/// Passes on what the hub sends, until it ends the stream or breaks the carrier's protocol.
async fn pass_on_received(
    mut read: ReadHalf<Box<dyn Socket>>,
    carrier: SharedCarrier,
    write: SharedWriter,
    first: Vec<Vec<u8>>,
    writer: FrameWriter,
) {
    let (mut messages, mut buffer) = (first, vec![0; READ_CHUNK]);
    loop {
        for message in messages.drain(..) {
            if write_frame(&writer, message_frame(message)).await.is_err() {
                return;
            }
        }
        let Ok(length @ 1..) = read.read(&mut buffer).await else { return };
        let mut answers = Vec::new();
        let received = carrier.lock().await.receive(&buffer[..length], &mut messages, &mut answers);
        if !answers.is_empty() {
            let _ = write.lock().await.write_all(&answers).await;
        }
        if let Err(what) = received {
            for message in messages.drain(..) {
                let _ = write_frame(&writer, message_frame(message)).await;
            }
            let _ = write_frame(&writer, Frame::close(Some(BROKEN), &what)).await;
            return;
        }
    }
}

/// Passes on what the interpreter sends, until it closes or ends the connection.
async fn pass_on_sent(
    mut frames: ReadHalf<DuplexStream>,
    carrier: &SharedCarrier,
    write: &SharedWriter,
    writer: &FrameWriter,
    limits: PeerLimits,
) {
    let mut decoder = FrameDecoder::new(ConnectionSide::Server, limits);
    let mut buffer = vec![0; READ_CHUNK];
    loop {
        let Ok(length @ 1..) = frames.read(&mut buffer).await else { return };
        let mut bytes = &buffer[..length];
        while let Some(event) = decoder.next_event(&mut bytes) {
            let failed = match event {
                ConnectionEvent::Message(message) => {
                    let mut out = Vec::new();
                    carrier.lock().await.encode(&message.payload, &mut out);
                    write.lock().await.write_all(&out).await.is_err()
                }
                ConnectionEvent::Ping(data) => write_frame(writer, Frame::pong(data)).await.is_err(),
                ConnectionEvent::Close { code, .. } => {
                    let _ = write_frame(writer, Frame::close(code, "")).await;
                    true
                }
                ConnectionEvent::Pong(_) => false,
                // What no carrier can pass on.
                _ => true,
            };
            if failed {
                return;
            }
        }
    }
}

/// Texts are text; what is none arrives as a binary message, which says so.
fn message_frame(message: Vec<u8>) -> Frame {
    if std::str::from_utf8(&message).is_ok() { Frame::text(message) } else { Frame::binary(message) }
}

/// Writes a frame, unless a close frame was the last.
async fn write_frame(writer: &FrameWriter, frame: Frame) -> io::Result<()> {
    let mut bytes = Vec::new();
    let is_close = frame.opcode == Opcode::Close;
    encode(&frame.unmasked(), [0; 4], &mut bytes);
    let mut half = writer.lock().await;
    let Some(to) = half.as_mut() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let written = to.write_all(&bytes).await;
    if is_close {
        let _ = to.shutdown().await;
        *half = None;
    }
    written
}

#[cfg(test)]
mod tests;
