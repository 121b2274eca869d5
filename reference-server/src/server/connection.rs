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
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
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
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, connect_async_with_config};

use crate::machine::{ConnectionId, Handshake, MachineInput, Traffic};
use crate::protocols::websocket::Session;
use crate::server::ShutdownSignal;
use crate::server::hub::{Hub, ShutDownError};
use crate::server::meter::{Meter, MeteredStream};
use crate::server::outbox::{CutError, Outbox, OutboxItem};

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
    /// The bytes of incomplete messages on all connections.
    pub unread: Arc<AtomicUsize>,
    /// Signals that the hub shuts down.
    pub shutdown: ShutdownSignal,
}

/// Serves one connection to its end.
pub async fn serve_connection<S>(
    stream: MeteredStream<S>,
    peer: SocketAddr,
    conn: ConnectionId,
    context: ConnectionContext,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let outbox = Arc::new(Outbox::default());
    let meter = stream.meter.clone();
    let mut shutdown = context.shutdown.clone();
    let upgraded = tokio::select! {
        // Boxed, so that an open connection does not keep the memory of its upgrade.
        upgraded = timeout(UPGRADE_TIME, Box::pin(answer_upgrade_request(stream, peer, conn, &context, outbox.clone()))) => {
            upgraded.ok().flatten()
        }
        () = shutdown.wait() => None,
    };
    let Some(ws) = upgraded else {
        return report_end(&context, conn);
    };
    serve_established(ws, conn, context, &outbox, &meter).await;
}

/// Connects to another hub and serves that connection to its end.
pub async fn serve_outgoing_connection(
    url: String,
    conn: ConnectionId,
    context: ConnectionContext,
    outbox: Arc<Outbox>,
) {
    let mut shutdown = context.shutdown.clone();
    let connect = connect_async_with_config(url.as_str(), Some(websocket_config(&context)), true);
    let connected = tokio::select! {
        connected = timeout(UPGRADE_TIME, Box::pin(connect)) => connected,
        () = shutdown.wait() => return,
    };
    let reason = match connected {
        Ok(Ok((ws, _))) => {
            if context.hub.handle(MachineInput::Connected { conn }).is_ok() {
                serve_established(ws, conn, context, &outbox, &Meter::default()).await;
            }
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "there was no answer in time".to_owned(),
    };
    // A hub that shuts down needs no report.
    let _ = context.hub.handle(MachineInput::ConnectFailed { conn, reason });
}

/// Serves an established connection to its end.
async fn serve_established<S>(
    mut ws: WebSocketStream<S>,
    conn: ConnectionId,
    context: ConnectionContext,
    outbox: &Outbox,
    meter: &Meter,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let end = converse(&mut ws, conn, &context, outbox, meter).await;
    // The machine handles the end before the peer sees it.
    report_end(&context, conn);
    finish_connection(ws, end, outbox).await;
}

/// Reports the end of a connection to the machine. The hub ignores repeated reports.
fn report_end(context: &ConnectionContext, conn: ConnectionId) {
    // A hub that shuts down needs no report.
    let _ = context.hub.handle(MachineInput::Closed { conn });
}

/// Reads the upgrade request and answers as the machine decides; `None` if there is no upgrade.
async fn answer_upgrade_request<S>(
    stream: S,
    peer: SocketAddr,
    conn: ConnectionId,
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
            let (response, upgrade) = http_answer(request, peer, conn, context, outbox).await;
            *granted.lock() = upgrade;
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
    let upgrade = granted.into_inner()?;
    let parts = upgrade.await.ok()?.downcast::<TokioIo<S>>().ok()?;
    let read = parts.read_buf.to_vec();
    Some(
        WebSocketStream::from_partially_read(
            parts.io.into_inner(),
            read,
            Role::Server,
            Some(websocket_config(context)),
        )
        .await,
    )
}

/// Returns the limits and buffer sizes for frames.
fn websocket_config(context: &ConnectionContext) -> WebSocketConfig {
    WebSocketConfig::default()
        // With the default size, every read would clear 128 KiB.
        .read_buffer_size(4096)
        .write_buffer_size(16384)
        .max_message_size(Some(context.max_message))
        .max_frame_size(Some(context.max_message))
}

/// Returns the answer to an HTTP request, and the upgrade if it is granted.
async fn http_answer(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    conn: ConnectionId,
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
            let mut response = plain_response(StatusCode::UPGRADE_REQUIRED, text);
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return (response, None);
        }
    };
    let handshake = parse_handshake(&request, peer);
    if context.hub.open(conn, handshake, outbox.clone()).is_err() {
        return (plain_response(StatusCode::SERVICE_UNAVAILABLE, "the hub shuts down\n".to_owned()), None);
    }
    match outbox.take_first().await {
        OutboxItem::Accept(subprotocol) => {
            if let Some(value) = subprotocol.and_then(|name| HeaderValue::from_str(&name).ok()) {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
            }
            (response, Some(hyper::upgrade::on(&mut request)))
        }
        OutboxItem::Refuse(status, body) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (plain_response(status, body), None)
        }
        OutboxItem::Text(_) | OutboxItem::Binary(_) | OutboxItem::Close(..) | OutboxItem::Drop => (
            plain_response(StatusCode::INTERNAL_SERVER_ERROR, "the hub sent a message before it answered\n".to_owned()),
            None,
        ),
    }
}

fn plain_response(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // A connection is for one upgrade request. (Clients refuse a granted upgrade with this header.)
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn parse_handshake(request: &Request<Incoming>, peer: SocketAddr) -> Handshake {
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
        query: parse_query(request.uri().query().unwrap_or_default()),
        headers,
        subprotocols,
        peer: peer.ip(),
        traffic: Traffic::All,
    }
}

/// Decodes a query string.
fn parse_query(text: &str) -> Vec<(String, String)> {
    (text.split('&').filter(|pair| !pair.is_empty()))
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        })
        .collect()
}

fn percent_decode(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

/// The end of a conversation.
enum ConversationEnd {
    /// The hub closes, with a code and a reason.
    Close(u16, String),
    /// The hub closes because of an invalid frame; later bytes cannot be read as frames.
    ProtocolError(u16, String),
    /// The peer closes.
    PeerClosed,
    /// The peer is gone or cut off.
    Disconnected,
}

async fn converse<S>(
    ws: &mut WebSocketStream<S>,
    conn: ConnectionId,
    context: &ConnectionContext,
    outbox: &Outbox,
    meter: &Meter,
) -> ConversationEnd
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
                outbox.mark_running();
                return Poll::Ready(ConnectionEvent::Received(message));
            }
            match outbox.poll_take(context, &mut batch) {
                Poll::Ready(Ok(())) => Poll::Ready(ConnectionEvent::Send),
                Poll::Ready(Err(CutError)) => Poll::Ready(ConnectionEvent::Cut),
                Poll::Pending if reads < MAX_READS => Poll::Pending,
                // No answers are due: reading continues.
                Poll::Pending => Poll::Ready(ConnectionEvent::Send),
            }
        });
        match next.await {
            ConnectionEvent::Cut => return ConversationEnd::Disconnected,
            ConnectionEvent::Received(None) => return ConversationEnd::Disconnected,
            ConnectionEvent::Received(Some(Err(error))) => return end_from_error(error),
            ConnectionEvent::Received(Some(Ok(Message::Close(_)))) => return ConversationEnd::PeerClosed,
            ConnectionEvent::Received(Some(Ok(message))) => {
                reads += 1;
                if matches!(message, Message::Text(_) | Message::Binary(_)) {
                    meter.reset();
                }
                if pass_message(message, conn, context).is_err() {
                    return ConversationEnd::Close(1001, "the hub shuts down".to_owned());
                }
            }
            ConnectionEvent::Send => {
                reads = 0;
                if let Some(end) = send_batch(ws, &mut batch, outbox).await {
                    return end;
                }
            }
        }
    }
}

/// The next event of a connection.
enum ConnectionEvent {
    Received(Option<Result<Message, Error>>),
    Send,
    Cut,
}

/// Sends all of `batch`, unless the connection is cut meanwhile. Returns the end of the conversation, if it ends.
async fn send_batch<S>(
    ws: &mut WebSocketStream<S>,
    batch: &mut VecDeque<OutboxItem>,
    outbox: &Outbox,
) -> Option<ConversationEnd>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut writing = pin!(send_and_flush(ws, batch));
    poll_fn(|context| match writing.as_mut().poll(context) {
        Poll::Pending => outbox.poll_cut(context).map(|CutError| Some(ConversationEnd::Disconnected)),
        end => end,
    })
    .await
}

/// Sends all of `batch` with one flush. Returns the end of the conversation, if it ends.
async fn send_and_flush<S>(ws: &mut WebSocketStream<S>, batch: &mut VecDeque<OutboxItem>) -> Option<ConversationEnd>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for item in batch.drain(..) {
        let message = match item {
            OutboxItem::Text(text) => Message::Text(text),
            OutboxItem::Binary(data) => Message::Binary(data.into()),
            OutboxItem::Close(code, reason) => return Some(ConversationEnd::Close(code, reason)),
            OutboxItem::Drop => return Some(ConversationEnd::Disconnected),
            // These only come first, before the conversation.
            OutboxItem::Accept(_) | OutboxItem::Refuse(..) => continue,
        };
        if ws.feed(message).await.is_err() {
            return Some(ConversationEnd::Disconnected);
        }
    }
    ws.flush().await.is_err().then_some(ConversationEnd::Disconnected)
}

/// Passes a message to the machine.
fn pass_message(message: Message, conn: ConnectionId, context: &ConnectionContext) -> Result<(), ShutDownError> {
    let input = match message {
        Message::Text(text) => MachineInput::Text { conn, text },
        Message::Binary(data) => MachineInput::Binary { conn, data: data.into() },
        // tungstenite answers it with the next read or write.
        Message::Ping(_) => MachineInput::Ping { conn },
        Message::Pong(_) | Message::Close(_) | Message::Frame(_) => return Ok(()),
    };
    context.hub.handle(input)
}

fn end_from_error(error: Error) -> ConversationEnd {
    match error {
        Error::Capacity(error) => ConversationEnd::ProtocolError(1009, error.to_string()),
        Error::Utf8(error) => ConversationEnd::ProtocolError(1007, error),
        Error::Protocol(error) => ConversationEnd::ProtocolError(1002, error.to_string()),
        _ => ConversationEnd::Disconnected,
    }
}

/// Ends the connection: does the closing handshake and reads the rest of the peer's bytes.
async fn finish_connection<S>(mut ws: WebSocketStream<S>, end: ConversationEnd, outbox: &Outbox)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame =
        |code: u16, reason: String| CloseFrame { code: CloseCode::from(code), reason: shorten_reason(reason).into() };
    // A peer that takes longer may lose the close frame.
    let _ = timeout(CLOSING_TIME, async {
        match end {
            ConversationEnd::Close(code, reason) => {
                if ws.close(Some(frame(code, reason))).await.is_ok() {
                    while let Some(Ok(_)) = ws.next().await {}
                }
            }
            ConversationEnd::ProtocolError(code, reason) => {
                if ws.close(Some(frame(code, reason))).await.is_ok() {
                    let mut stream = ws.into_inner();
                    let _ = stream.shutdown().await;
                    let mut rest = vec![0; 16 * 1024];
                    while let Ok(1..) = stream.read(&mut rest).await {}
                }
            }
            ConversationEnd::PeerClosed => while let Some(Ok(_)) = ws.next().await {},
            ConversationEnd::Disconnected => {}
        }
    })
    .await;
    outbox.cut();
}

/// Shortens a reason: a close frame has at most 125 bytes, two of them the code.
fn shorten_reason(mut reason: String) -> String {
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
        let got = parse_query(text);
        let got: Vec<(&str, &str)> = got.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(got, want);
    }
}
