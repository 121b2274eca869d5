//! One connection: the upgrade request (hyper), then frames (tungstenite), until either side ends it.
//!
//! One task does both directions. While it waits for a slow peer to take what is due it does not read, so a
//! client that asks without listening is held back by its own socket, and one that others talk to is cut off
//! when its [`Outbox`] is full. The machine never waits for anybody.

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
use crate::server::hub::{Hub, ShutDown};
use crate::server::outbox::{Cut, Item, Outbox};
use crate::server::shutdown::Shutdown;

/// How long a peer may take to send its upgrade request and receive the answer.
const UPGRADE_TIME: Duration = Duration::from_secs(10);
/// How long a closing handshake may take, and how long we listen to a peer that we have hung up on, so that
/// unread bytes do not make the kernel throw our close frame away.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// The longest head of an upgrade request in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Messages of one connection that are heard in a row before anything is said to it.
const HEARD: usize = 32;

/// What a connection needs of its hub.
#[derive(Clone)]
pub struct Door {
    /// The protocol, for messages to people.
    pub protocol: &'static str,
    /// The machine.
    pub hub: Arc<Hub>,
    /// The longest message in bytes; longer ones close with 1009.
    pub max_message: usize,
    /// For a hub below messages: how each of its connections begins.
    pub session: Option<Session>,
    /// Tells when the hub shuts down.
    pub shutdown: Shutdown,
}

/// Serves one connection to its end.
pub async fn serve<S>(stream: S, peer: SocketAddr, conn: Conn, door: Door)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let outbox = Arc::new(Outbox::default());
    let mut shutdown = door.shutdown.clone();
    let upgraded = tokio::select! {
        // Boxed, so that a connection does not keep the room that its upgrade took.
        upgraded = timeout(UPGRADE_TIME, Box::pin(upgrade(stream, peer, conn, &door, outbox.clone()))) => {
            upgraded.ok().flatten()
        }
        () = shutdown.wait() => None,
    };
    let Some(ws) = upgraded else {
        return farewell(&door, conn);
    };
    attend(ws, conn, door, &outbox).await;
}

/// Connects to another hub and serves that connection to its end.
pub async fn call(url: String, conn: Conn, door: Door, outbox: Arc<Outbox>) {
    let mut shutdown = door.shutdown.clone();
    let connect = connect_async_with_config(url.as_str(), Some(frames(&door)), true);
    let connected = tokio::select! {
        connected = timeout(UPGRADE_TIME, Box::pin(connect)) => connected,
        () = shutdown.wait() => return,
    };
    let reason = match connected {
        Ok(Ok((ws, _))) => {
            if door.hub.hear(Input::Connected { conn }).is_ok() {
                attend(ws, conn, door, &outbox).await;
            }
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "there was no answer in time".to_owned(),
    };
    // A hub that shuts down does not mind.
    let _ = door.hub.hear(Input::ConnectFailed { conn, reason });
}

/// Serves an established connection to its end.
async fn attend<S>(mut ws: WebSocketStream<S>, conn: Conn, door: Door, outbox: &Outbox)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let end = converse(&mut ws, conn, &door, outbox).await;
    // The machine hears of the end before the peer is done with it.
    farewell(&door, conn);
    finish(ws, end, outbox).await;
}

/// Tells the machine that the connection is gone. It does not mind hearing that twice, or of a stranger.
fn farewell(door: &Door, conn: Conn) {
    // A hub that shuts down has no machine any more to be told.
    let _ = door.hub.hear(Input::Closed { conn });
}

/// Reads the upgrade request, lets the machine decide and answers; `None` when it comes to nothing.
async fn upgrade<S>(
    stream: S,
    peer: SocketAddr,
    conn: Conn,
    door: &Door,
    outbox: Arc<Outbox>,
) -> Option<WebSocketStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let granted: Mutex<Option<OnUpgrade>> = Mutex::new(None);
    let service = service_fn(|request| {
        let (granted, outbox) = (&granted, outbox.clone());
        async move {
            let (response, upgrade) = answer(request, peer, conn, door, outbox).await;
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
    Some(WebSocketStream::from_partially_read(parts.io.into_inner(), read, Role::Server, Some(frames(door))).await)
}

/// How frames are read and written.
fn frames(door: &Door) -> WebSocketConfig {
    WebSocketConfig::default()
        // The defaults clear 128 KiB for every read.
        .read_buffer_size(4096)
        .write_buffer_size(16384)
        .max_message_size(Some(door.max_message))
        .max_frame_size(Some(door.max_message))
}

/// The answer to an HTTP request, and the upgrade if it is one.
async fn answer(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    conn: Conn,
    door: &Door,
    outbox: Arc<Outbox>,
) -> (Response<Full<Bytes>>, Option<OnUpgrade>) {
    let response = create_response_with_body(&request, Full::default).map_err(|error| error.to_string());
    // tungstenite does not look whether there is one, which RFC 6455, section 4.2.1, demands.
    let response = if request.headers().contains_key(HOST) { response } else { Err("no Host".to_owned()) };
    let mut response = match response {
        Ok(response) => response,
        Err(error) => {
            let text = format!("this is the {} hub; it speaks WebSocket only: {error}\n", door.protocol);
            let mut response = plain(StatusCode::UPGRADE_REQUIRED, text);
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return (response, None);
        }
    };
    let handshake = handshake(&request, peer);
    if door.hub.open(conn, handshake, outbox.clone()).is_err() {
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
            (plain(StatusCode::INTERNAL_SERVER_ERROR, "the hub spoke before it answered\n".to_owned()), None)
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // One connection is one upgrade request. A granted one must not say this, or clients refuse it.
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

/// A query string, decoded.
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

/// How a conversation ended.
enum End {
    /// We close, with a code and a reason.
    Close(u16, String),
    /// We close because what came was no valid frame; what follows it cannot be read as frames.
    Broken(u16, String),
    /// The peer closes.
    Closed,
    /// There is nobody to say anything to.
    Gone,
}

async fn converse<S>(ws: &mut WebSocketStream<S>, conn: Conn, door: &Door, outbox: &Outbox) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut batch = VecDeque::new();
    let mut heard = 0;
    loop {
        let next = poll_fn(|context| {
            // All that has come is heard before anything is said, so that several answers go out with one write; but
            // whoever talks on and on is answered, too.
            if heard < HEARD
                && let Poll::Ready(message) = ws.poll_next_unpin(context)
            {
                outbox.attend();
                return Poll::Ready(Next::Heard(message));
            }
            match outbox.poll_take(context, &mut batch) {
                Poll::Ready(Ok(())) => Poll::Ready(Next::Say),
                Poll::Ready(Err(Cut)) => Poll::Ready(Next::Cut),
                Poll::Pending if heard < HEARD => Poll::Pending,
                // There is nothing to say.
                Poll::Pending => Poll::Ready(Next::Say),
            }
        });
        match next.await {
            Next::Cut => return End::Gone,
            Next::Heard(None) => return End::Gone,
            Next::Heard(Some(Err(error))) => return ending(error),
            Next::Heard(Some(Ok(Message::Close(_)))) => return End::Closed,
            Next::Heard(Some(Ok(message))) => {
                heard += 1;
                if forward(message, conn, door).is_err() {
                    return End::Close(1001, "the hub shuts down".to_owned());
                }
            }
            Next::Say => {
                heard = 0;
                if let Some(end) = said(ws, &mut batch, outbox).await {
                    return end;
                }
            }
        }
    }
}

/// What a connection does next.
enum Next {
    Heard(Option<Result<Message, Error>>),
    Say,
    Cut,
}

/// Sends all of `batch`, unless the connection is given up meanwhile. Returns how the conversation ends, if it does.
async fn said<S>(ws: &mut WebSocketStream<S>, batch: &mut VecDeque<Item>, outbox: &Outbox) -> Option<End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut writing = pin!(write(ws, batch));
    poll_fn(|context| match writing.as_mut().poll(context) {
        Poll::Pending => outbox.poll_cut(context).map(|Cut| Some(End::Gone)),
        said => said,
    })
    .await
}

/// Sends all of `batch` with one flush. Returns how the conversation ends, if it does.
async fn write<S>(ws: &mut WebSocketStream<S>, batch: &mut VecDeque<Item>) -> Option<End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for item in batch.drain(..) {
        let message = match item {
            Item::Text(text) => Message::Text(text),
            Item::Binary(data) => Message::Binary(data.into()),
            Item::Close(code, reason) => return Some(End::Close(code, reason)),
            Item::Drop => return Some(End::Gone),
            // Only ever the first item.
            Item::Accept(_) | Item::Refuse(..) => continue,
        };
        if ws.feed(message).await.is_err() {
            return Some(End::Gone);
        }
    }
    ws.flush().await.is_err().then_some(End::Gone)
}

/// Hands a message to the machine.
fn forward(message: Message, conn: Conn, door: &Door) -> Result<(), ShutDown> {
    let input = match message {
        Message::Text(text) => Input::Text { conn, text },
        Message::Binary(data) => Input::Binary { conn, data: data.into() },
        // tungstenite answers it with the next read or write.
        Message::Ping(_) => Input::Ping { conn },
        Message::Pong(_) | Message::Close(_) | Message::Frame(_) => return Ok(()),
    };
    door.hub.hear(input)
}

fn ending(error: Error) -> End {
    match error {
        Error::Capacity(error) => End::Broken(1009, error.to_string()),
        Error::Utf8(error) => End::Broken(1007, error),
        Error::Protocol(error) => End::Broken(1002, error.to_string()),
        _ => End::Gone,
    }
}

/// Sees the connection off: what is still due, the closing handshake, the rest of what the peer sends.
async fn finish<S>(mut ws: WebSocketStream<S>, end: End, outbox: &Outbox)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame = |code: u16, reason: String| CloseFrame { code: CloseCode::from(code), reason: shorten(reason).into() };
    // A peer that takes longer loses what is left.
    let _ = timeout(CLOSING_TIME, async {
        match end {
            End::Close(code, reason) => {
                if ws.close(Some(frame(code, reason))).await.is_ok() {
                    while let Some(Ok(_)) = ws.next().await {}
                }
            }
            End::Broken(code, reason) => {
                if ws.close(Some(frame(code, reason))).await.is_ok() {
                    let mut stream = ws.into_inner();
                    let _ = stream.shutdown().await;
                    let mut rest = vec![0; 16 * 1024];
                    while let Ok(1..) = stream.read(&mut rest).await {}
                }
            }
            End::Closed => while let Some(Ok(_)) = ws.next().await {},
            End::Gone => {}
        }
    })
    .await;
    outbox.cut();
}

/// A close frame holds 125 bytes, two of them the code.
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
    fn queries_are_decoded(#[case] text: &str, #[case] want: &[(&str, &str)]) {
        let got = query(text);
        let got: Vec<(&str, &str)> = got.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(got, want);
    }
}
