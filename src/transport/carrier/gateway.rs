//! A WebSocket server on this machine that passes messages on to a hub without WebSocket: the load engine has I/O of its own.

use std::io;

use tokio::sync::mpsc;

use crate::transport::{
    ConnectRequest, Connection, ConnectionCommand, ConnectionEvent, ConnectionId, IncomingEvent, ListenRequest, listen,
    open_connection,
};
use crate::websocket::endpoint::{CarrierKind, Endpoint};
use crate::websocket::frame::Frame;

/// How many events of a connection wait to be passed on.
const WAITING_EVENTS: usize = 64;

/// Why a hub is not reached.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("no gateway to the hub can be opened: {0}")]
    Listen(#[from] io::Error),
    #[error("failed to connect to {hub}: {why}")]
    Hub { hub: String, why: String },
}

/// Returns the address at which a hub is reached over WebSocket: its own, or that of a gateway, which runs as long as the
/// runtime.
///
/// # Errors
/// The hub does not answer, or no port of this machine can be bound.
pub async fn reach(hub: &Endpoint) -> Result<Endpoint, GatewayError> {
    if hub.carrier == CarrierKind::WebSocket {
        return Ok(hub.clone());
    }
    let (to, mut events) = mpsc::channel(WAITING_EVENTS);
    let _probe = open_connection(ConnectionId(0), ConnectRequest::new(hub.clone()), to);
    if let Some(ConnectionEvent::Unreachable { reason } | ConnectionEvent::NoUpgrade { reason, .. }) =
        events.recv().await.map(|event| event.what)
    {
        return Err(GatewayError::Hub { hub: hub.to_string(), why: reason });
    }
    let listener = listen(ListenRequest::default()).await?;
    let url = listener.url();
    let hub = hub.clone();
    tokio::spawn(async move {
        loop {
            let (to, from_client) = mpsc::channel(WAITING_EVENTS);
            // Fails when no descriptors are free; the next client may find some.
            let Ok(client) = listener.accept(ConnectionId(0), to).await else { continue };
            let (to, from_hub) = mpsc::channel(WAITING_EVENTS);
            let connection = open_connection(ConnectionId(0), ConnectRequest::new(hub.clone()), to);
            tokio::spawn(pass_on((client, from_client), (connection, from_hub)));
        }
    });
    url.parse().map_err(|_| io::Error::from(io::ErrorKind::AddrNotAvailable).into())
}

type ConnectionWithEvents = (Connection, mpsc::Receiver<IncomingEvent>);

/// Passes messages on until either side ends. Dropping the connections ends them.
async fn pass_on((client, mut from_client): ConnectionWithEvents, (hub, mut from_hub): ConnectionWithEvents) {
    loop {
        let (to, event, masked) = tokio::select! {
            Some(event) = from_client.recv() => (&hub, event, true),
            Some(event) = from_hub.recv() => (&client, event, false),
            else => return,
        };
        let message = match event.what {
            ConnectionEvent::Message(message) => message,
            ConnectionEvent::Upgraded { .. } | ConnectionEvent::Ping(_) | ConnectionEvent::Pong(_) => continue,
            _ => return,
        };
        let frame = if message.binary { Frame::binary(message.payload) } else { Frame::text(message.payload) };
        if to.send(ConnectionCommand::Frames(vec![Frame { masked, ..frame }])).is_err() {
            return;
        }
    }
}
