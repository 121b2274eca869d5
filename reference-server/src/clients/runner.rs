//! Runs a client's machine over a WebSocket.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::generate_request;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use super::fault::{ClientFaultEffect, find_fault};
use super::tampering::tamper_with;
use super::{Client, ClientError, ClientInput, ClientOptions, ClientOutput};
use crate::server::args::Signals;

/// How long a connection may take to be established.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long to wait for the end of a connection that is closing.
const CLOSING_TIME: Duration = Duration::from_secs(2);
/// The longest response to an upgrade request, in bytes.
const MAX_RESPONSE: usize = 16 << 10;

/// A connected stream, tampered with or not.
trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

type Socket = WebSocketStream<Box<dyn ByteStream>>;

/// A running client.
struct ClientSession {
    client: Client,
    /// The implementation of its fault.
    effect: Option<&'static ClientFaultEffect>,
    started: Instant,
    socket: Option<Socket>,
}

/// What the socket or the clock delivered.
enum SocketEvent {
    Text(String),
    Closed(Result<u16, String>),
    Tick,
}

/// Runs a client until everything is done and the hub closes the connection with 1000, or until SIGINT or SIGTERM,
/// after which it closes the connection itself.
///
/// # Errors
/// [`ClientError`]: wrong options, or a connection that ended before.
pub async fn run(options: ClientOptions) -> Result<(), ClientError> {
    let client = Client::build(&options, None)?;
    let effect = find_fault(&options.protocol, options.fault.as_deref())?.map(|fault| &fault.effect);
    let signals = Signals::listen().map_err(|source| ClientError::System { what: "wait for signals", source })?;
    let mut session = ClientSession { client, effect, started: Instant::now(), socket: None };
    let stopped = pin!(signals.wait());
    tokio::select! {
        ended = session.converse(options.leaves) => ended?,
        () = stopped => {}
    }
    session.leave().await;
    Ok(())
}

impl ClientSession {
    /// Exchanges messages with the hub until the end, or until everything is done if the client `leaves` then.
    async fn converse(&mut self, leaves: bool) -> Result<(), ClientError> {
        let mut outputs = VecDeque::from([self.client.connect()]);
        loop {
            while let Some(output) = outputs.pop_front() {
                match output {
                    ClientOutput::Text(text) => self.send_text(text).await,
                    ClientOutput::Die => return Err(ClientError::Ended("the client fails on this text".to_owned())),
                    ClientOutput::Connect { url, subprotocol } => {
                        match timeout(CONNECT_TIME, open_socket(&url, subprotocol, self.effect)).await {
                            Ok(Ok(socket)) => {
                                self.socket = Some(socket);
                                outputs.extend(self.handle(ClientInput::Opened));
                            }
                            Ok(Err(error)) => outputs.extend(self.end(Err(&error.to_string()))?),
                            Err(_) => outputs.extend(self.end(Err("the hub does not answer the upgrade request"))?),
                        }
                    }
                }
            }
            if leaves && self.client.is_done() {
                return Ok(());
            }
            let event = self.next_event().await;
            outputs.extend(match event {
                SocketEvent::Text(text) => self.handle(ClientInput::Text(&text)),
                SocketEvent::Tick => self.handle(ClientInput::Tick),
                SocketEvent::Closed(Ok(1000)) if self.client.is_done() => return Ok(()),
                SocketEvent::Closed(Ok(code)) => self.end(Ok(code))?,
                SocketEvent::Closed(Err(reason)) => self.end(Err(&reason))?,
            });
        }
    }

    fn handle(&mut self, input: ClientInput<'_>) -> Vec<ClientOutput> {
        self.client.handle(self.started.elapsed(), input)
    }

    /// Handles the end of a connection, which is an error unless the client connects again.
    fn end(&mut self, end: Result<u16, &str>) -> Result<Vec<ClientOutput>, ClientError> {
        let outputs = self.handle(ClientInput::Closed(end));
        if !outputs.is_empty() || self.client.deadline().is_some() {
            return Ok(outputs);
        }
        Err(ClientError::Ended(match end {
            Ok(code) => format!("the hub closed the connection with {code}"),
            Err(reason) => format!("the connection failed: {reason}"),
        }))
    }

    async fn send_text(&mut self, text: String) {
        if let Some(socket) = &mut self.socket {
            // The end of the connection is received, too.
            let _ = socket.send(Message::text(text)).await;
        }
    }

    /// Waits for a message, the end of the connection, or the deadline. Control frames are answered by the library.
    async fn next_event(&mut self) -> SocketEvent {
        let due = self.client.deadline().map(|due| self.started + due);
        let deadline = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let Some(socket) = &mut self.socket else {
            deadline.await;
            return SocketEvent::Tick;
        };
        let mut deadline = pin!(deadline);
        let end = loop {
            tokio::select! {
                () = &mut deadline => return SocketEvent::Tick,
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => return SocketEvent::Text(text.to_string()),
                    Some(Ok(Message::Close(frame))) => break Ok(frame.map_or(1005, |frame| frame.code.into())),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        if let Some(code) = failure_code(&error) {
                            // A hub that is gone needs no close.
                            let _ = socket.close(Some(CloseFrame { code, reason: "".into() })).await;
                        }
                        break Err(error.to_string());
                    }
                    None => break Err("the hub ended it without a close frame".to_owned()),
                },
            }
        };
        finish(socket).await;
        self.socket = None;
        SocketEvent::Closed(end)
    }

    /// Closes the connection, if there is one.
    async fn leave(&mut self) {
        for output in self.handle(ClientInput::Leaving) {
            if let ClientOutput::Text(text) = output {
                self.send_text(text).await;
            }
        }
        if let Some(socket) = &mut self.socket {
            let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            // A hub that is gone needs no close.
            let _ = socket.close(Some(close)).await;
            finish(socket).await;
        }
    }
}

/// Reads to the end of a closing connection, which also sends the answer to a close.
async fn finish(socket: &mut Socket) {
    let _ = timeout(CLOSING_TIME, async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

/// Returns the code with which to fail a connection after an invalid frame (RFC 6455, 7.1.7).
fn failure_code(error: &WebSocketError) -> Option<CloseCode> {
    match error {
        WebSocketError::Protocol(_) => Some(CloseCode::Protocol),
        WebSocketError::Utf8(_) => Some(CloseCode::Invalid),
        WebSocketError::Capacity(_) => Some(CloseCode::Size),
        _ => None,
    }
}

/// Connects to the hub.
async fn open_socket(
    url: &str,
    subprotocol: Option<&'static str>,
    effect: Option<&'static ClientFaultEffect>,
) -> Result<Socket, WebSocketError> {
    let mut request = url.into_client_request()?;
    if let Some(name) = subprotocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(name));
    }
    if request.uri().scheme_str() != Some("ws") {
        return Err(WebSocketError::Io(std::io::Error::other("clients connect to ws:// only")));
    }
    let host = request.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let peer = TcpStream::connect((host, request.uri().port_u16().unwrap_or(80))).await?;
    peer.set_nodelay(true)?;
    let (mut bytes, key) = generate_request(request)?;
    let mut stream: Box<dyn ByteStream> = match effect {
        Some(ClientFaultEffect::Frames(tampering)) => Box::new(tamper_with(peer, *tampering)),
        _ => Box::new(peer),
    };
    if let Some(ClientFaultEffect::Upgrade(from, to)) = effect {
        bytes = String::from_utf8_lossy(&bytes).replacen(from, to, 1).into_bytes();
    }
    stream.write_all(&bytes).await?;
    let rest = read_response(&mut stream, &key, subprotocol).await?;
    Ok(WebSocketStream::from_partially_read(stream, rest, Role::Client, None).await)
}

/// Reads the response to an upgrade request, and returns the bytes after it. Unlike the library, it accepts a hub that
/// selects none of the offered subprotocols, as RFC 6455 does.
async fn read_response(
    stream: &mut (impl AsyncRead + Unpin),
    key: &str,
    offered: Option<&str>,
) -> Result<Vec<u8>, WebSocketError> {
    let refuse = |reason: String| Err(WebSocketError::Io(std::io::Error::other(reason)));
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > MAX_RESPONSE || stream.read_buf(&mut bytes).await? == 0 {
            return refuse("the hub sends no response to the upgrade request".to_owned());
        }
    };
    let rest = bytes.split_off(end + 4);
    let head = String::from_utf8_lossy(&bytes);
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return refuse(format!("the hub refuses the upgrade: {status}"));
    }
    if header("Sec-WebSocket-Accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return refuse("the hub's Sec-WebSocket-Accept is wrong".to_owned());
    }
    match header("Sec-WebSocket-Protocol") {
        Some(other) if Some(other) != offered => refuse(format!("the hub selects the subprotocol {other}")),
        _ => Ok(rest),
    }
}
