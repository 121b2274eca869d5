//! One connection: the upgrade request (hyper), then frames (tungstenite), until one side ends it.
//!
//! One task handles both directions. While it waits for a slow peer to receive, it does not read: a client that sends
//! without reading is slowed down by its own socket, and a client that does not read its messages is
//! disconnected when its [`Outbox`] is full. The machine never waits for a client.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderValue, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, connect_async_with_config};

use crate::machine::{Conn, Handshake, Input};
use crate::protocols::websocket::Session;
use crate::server::Shutdown;
use crate::server::hub::{Hub, ShutDownError};
use crate::server::outbox::{CutError, Item, Outbox};

/// How long a peer may take to send its upgrade request and receive the answer.
const UPGRADE_TIME: Duration = Duration::from_secs(10);
/// How long a closing handshake may take, and how long to read the peer's bytes after a close: unread bytes would
/// make the kernel reset the connection, and the peer could lose the close frame.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// The longest head of an upgrade request in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How many messages of a connection to read before sending the answers.
const MAX_READS: usize = 32;

/// The state that connections share with their hub.
#[derive(Clone)]
pub struct ConnectionContext {
    /// The name of the protocol, for error messages.
    pub protocol: &'static str,
    /// The hub that the connection belongs to.
    pub hub: Arc<Hub>,
    /// The longest message in bytes; longer ones close with 1009.
    pub max_message: usize,
    /// For the `websocket` hub: the initial session of its connections.
    pub session: Option<Session>,
    /// Signals that the hub shuts down.
    pub shutdown: Shutdown,
}

/// Serves one connection to its end.
pub async fn serve<S>(stream: S, peer: SocketAddr, conn: Conn, context: ConnectionContext)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let outbox = Arc::new(Outbox::default());
    let mut shutdown = context.shutdown.clone();
    let upgraded = tokio::select! {
        // Boxed, so that an open connection does not keep the memory of its upgrade.
        upgraded = timeout(UPGRADE_TIME, Box::pin(upgrade(stream, peer, conn, &context, outbox.clone()))) => {
            upgraded.ok().flatten()
        }
        () = shutdown.wait() => None,
    };
    let Some(ws) = upgraded else {
        return report_closed(&context, conn);
    };
    attend(ws, conn, context, &outbox).await;
}

/// Connects to another hub and serves that connection to its end.
pub async fn call(url: String, conn: Conn, context: ConnectionContext, outbox: Arc<Outbox>) {
    let mut shutdown = context.shutdown.clone();
    let connect = connect_async_with_config(url.as_str(), Some(frames(&context)), true);
    let connected = tokio::select! {
        connected = timeout(UPGRADE_TIME, Box::pin(connect)) => connected,
        () = shutdown.wait() => return,
    };
    let reason = match connected {
        Ok(Ok((ws, _))) => {
            if context.hub.handle(Input::Connected { conn }).is_ok() {
                attend(ws, conn, context, &outbox).await;
            }
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "there was no answer in time".to_owned(),
    };
    // A hub that shuts down needs no report.
    let _ = context.hub.handle(Input::ConnectFailed { conn, reason });
}

/// Serves an established connection to its end.
async fn attend<S>(mut ws: WebSocketStream<S>, conn: Conn, context: ConnectionContext, outbox: &Outbox)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let end = converse(&mut ws, conn, &context, outbox).await;
    // The machine handles the end before the peer sees it.
    report_closed(&context, conn);
    finish(ws, end, outbox).await;
}

/// Reports the end of a connection to the machine. The hub ignores repeated reports.
fn report_closed(context: &ConnectionContext, conn: Conn) {
    // A hub that shuts down needs no report.
    let _ = context.hub.handle(Input::Closed { conn });
}

/// Reads the upgrade request and answers as the machine decides; `None` if there is no upgrade.
async fn upgrade<S>(
    stream: S,
    peer: SocketAddr,
    conn: Conn,
    context: &ConnectionContext,
    outbox: Arc<Outbox>,
) -> Option<WebSocketStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let granted: Mutex<Option<OnUpgrade>> = Mutex::new(None);
    let service = service_fn(|request| {
        let (granted, outbox) = (&granted, outbox.clone());
        async move {
            let (response, upgrade) = answer(request, peer, conn, context, outbox).await;
            *granted.lock().unwrap_or_else(PoisonError::into_inner) = upgrade;
            Ok::<_, Infallible>(response)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(UPGRADE_TIME)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
        .ok()?;
    let upgrade = granted.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    let parts = upgrade.await.ok()?.downcast::<TokioIo<S>>().ok()?;
    let read = parts.read_buf.to_vec();
    Some(WebSocketStream::from_partially_read(parts.io.into_inner(), read, Role::Server, Some(frames(context))).await)
}

/// Returns the limits and buffer sizes for frames.
fn frames(context: &ConnectionContext) -> WebSocketConfig {
    WebSocketConfig::default()
        // With the default size, every read would clear 128 KiB.
        .read_buffer_size(4096)
        .write_buffer_size(16384)
        .max_message_size(Some(context.max_message))
        .max_frame_size(Some(context.max_message))
}

/// Returns the answer to an HTTP request, and the upgrade if it is granted.
async fn answer(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    conn: Conn,
    context: &ConnectionContext,
    outbox: Arc<Outbox>,
) -> (Response<Full<Bytes>>, Option<OnUpgrade>) {
    let response = create_response_with_body(&request, Full::default).map_err(|error| error.to_string());
    // RFC 6455, section 4.2.1, requires Host, which tungstenite does not check.
    let response = if request.headers().contains_key(HOST) { response } else { Err("no Host".to_owned()) };
    let mut response = match response {
        Ok(response) => response,
        Err(error) => {
            let text = format!("this is the {} hub; it speaks WebSocket only: {error}\n", context.protocol);
            let mut response = plain(StatusCode::UPGRADE_REQUIRED, text);
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return (response, None);
        }
    };
    let handshake = handshake(&request, peer);
    if context.hub.open(conn, handshake, outbox.clone()).is_err() {
        return (plain(StatusCode::SERVICE_UNAVAILABLE, "the hub shuts down\n".to_owned()), None);
    }
    match outbox.first().await {
        Item::Accept(subprotocol) => {
            if let Some(value) = subprotocol.and_then(|name| HeaderValue::from_str(&name).ok()) {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
            }
            (response, Some(hyper::upgrade::on(&mut request)))
        }
        Item::Refuse(status, body) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (plain(status, body), None)
        }
        Item::Text(_) | Item::Binary(_) | Item::Close(..) | Item::Drop => {
            (plain(StatusCode::INTERNAL_SERVER_ERROR, "the hub sent a message before it answered\n".to_owned()), None)
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // A connection is for one upgrade request. (Clients refuse a granted upgrade with this header.)
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn handshake(request: &Request<Incoming>, peer: SocketAddr) -> Handshake {
    let headers: Vec<(String, String)> = (request.headers().iter())
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let subprotocols = (headers.iter())
        .filter(|(name, _)| name == "sec-websocket-protocol")
        .flat_map(|(_, value)| value.split(','))
        .map(|offer| offer.trim().to_owned())
        .collect();
    Handshake {
        path: request.uri().path().to_owned(),
        query: query(request.uri().query().unwrap_or_default()),
        headers,
        subprotocols,
        peer: peer.ip(),
    }
}

/// Decodes a query string.
fn query(text: &str) -> Vec<(String, String)> {
    (text.split('&').filter(|pair| !pair.is_empty()))
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

/// The end of a conversation.
enum End {
    /// The hub closes, with a code and a reason.
    Close(u16, String),
    /// The hub closes because of an invalid frame; later bytes cannot be read as frames.
    ProtocolError(u16, String),
    /// The peer closes.
    PeerClosed,
    /// The peer is gone or cut off.
    Disconnected,
}

async fn converse<S>(ws: &mut WebSocketStream<S>, conn: Conn, context: &ConnectionContext, outbox: &Outbox) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut batch = VecDeque::new();
    let mut reads = 0;
    loop {
        let next = poll_fn(|context| {
            // Received messages are handled first, so that several answers are sent with one write; after MAX_READS
            // messages the answers are sent in any case.
            if reads < MAX_READS
                && let Poll::Ready(message) = ws.poll_next_unpin(context)
            {
                outbox.attend();
                return Poll::Ready(Next::Received(message));
            }
            match outbox.poll_take(context, &mut batch) {
                Poll::Ready(Ok(())) => Poll::Ready(Next::Send),
                Poll::Ready(Err(CutError)) => Poll::Ready(Next::Cut),
                Poll::Pending if reads < MAX_READS => Poll::Pending,
                // No answers are due: reading continues.
                Poll::Pending => Poll::Ready(Next::Send),
            }
        });
        match next.await {
            Next::Cut => return End::Disconnected,
            Next::Received(None) => return End::Disconnected,
            Next::Received(Some(Err(error))) => return ending(error),
            Next::Received(Some(Ok(Message::Close(_)))) => return End::PeerClosed,
            Next::Received(Some(Ok(message))) => {
                reads += 1;
                if forward(message, conn, context).is_err() {
                    return End::Close(1001, "the hub shuts down".to_owned());
                }
            }
            Next::Send => {
                reads = 0;
                if let Some(end) = send_batch(ws, &mut batch, outbox).await {
                    return end;
                }
            }
        }
    }
}

/// The next event of a connection.
enum Next {
    Received(Option<Result<Message, Error>>),
    Send,
    Cut,
}

/// Sends all of `batch`, unless the connection is cut meanwhile. Returns the end of the conversation, if it ends.
async fn send_batch<S>(ws: &mut WebSocketStream<S>, batch: &mut VecDeque<Item>, outbox: &Outbox) -> Option<End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut writing = pin!(write(ws, batch));
    poll_fn(|context| match writing.as_mut().poll(context) {
        Poll::Pending => outbox.poll_cut(context).map(|CutError| Some(End::Disconnected)),
        end => end,
    })
    .await
}

/// Sends all of `batch` with one flush. Returns the end of the conversation, if it ends.
async fn write<S>(ws: &mut WebSocketStream<S>, batch: &mut VecDeque<Item>) -> Option<End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for item in batch.drain(..) {
        let message = match item {
            Item::Text(text) => Message::Text(text),
            Item::Binary(data) => Message::Binary(data.into()),
            Item::Close(code, reason) => return Some(End::Close(code, reason)),
            Item::Drop => return Some(End::Disconnected),
            // These only come first, before the conversation.
            Item::Accept(_) | Item::Refuse(..) => continue,
        };
        if ws.feed(message).await.is_err() {
            return Some(End::Disconnected);
        }
    }
    ws.flush().await.is_err().then_some(End::Disconnected)
}

/// Passes a message to the machine.
fn forward(message: Message, conn: Conn, context: &ConnectionContext) -> Result<(), ShutDownError> {
    let input = match message {
        Message::Text(text) => Input::Text { conn, text },
        Message::Binary(data) => Input::Binary { conn, data: data.into() },
        // tungstenite answers it with the next read or write.
        Message::Ping(_) => Input::Ping { conn },
        Message::Pong(_) | Message::Close(_) | Message::Frame(_) => return Ok(()),
    };
    context.hub.handle(input)
}

fn ending(error: Error) -> End {
    match error {
        Error::Capacity(error) => End::ProtocolError(1009, error.to_string()),
        Error::Utf8(error) => End::ProtocolError(1007, error),
        Error::Protocol(error) => End::ProtocolError(1002, error.to_string()),
        _ => End::Disconnected,
    }
}

/// Ends the connection: does the closing handshake and reads the rest of the peer's bytes.
async fn finish<S>(mut ws: WebSocketStream<S>, end: End, outbox: &Outbox)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame = |code: u16, reason: String| CloseFrame { code: CloseCode::from(code), reason: shorten(reason).into() };
    // A peer that takes longer may lose the close frame.
    let _ = timeout(CLOSING_TIME, async {
        match end {
            End::Close(code, reason) => {
                if ws.close(Some(frame(code, reason))).await.is_ok() {
                    while let Some(Ok(_)) = ws.next().await {}
                }
            }
            End::ProtocolError(code, reason) => {
                if ws.close(Some(frame(code, reason))).await.is_ok() {
                    let mut stream = ws.into_inner();
                    let _ = stream.shutdown().await;
                    let mut rest = vec![0; 16 * 1024];
                    while let Ok(1..) = stream.read(&mut rest).await {}
                }
            }
            End::PeerClosed => while let Some(Ok(_)) = ws.next().await {},
            End::Disconnected => {}
        }
    })
    .await;
    outbox.cut();
}

/// Shortens a reason: a close frame has at most 125 bytes, two of them the code.
fn shorten(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(123));
    reason
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", &[])]
    #[case("token=a%20b&x", &[("token", "a b"), ("x", "")])]
    #[case("a=1&a=2&&b=c=d+e", &[("a", "1"), ("a", "2"), ("b", "c=d e")])]
    fn query_parameters_are_percent_decoded(#[case] text: &str, #[case] want: &[(&str, &str)]) {
        let got = query(text);
        let got: Vec<(&str, &str)> = got.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(got, want);
    }
}
