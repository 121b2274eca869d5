//! One connection of the `websocket` hub over a stream.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::protocols::websocket::Session;
use crate::server::ShutdownSignal;
use crate::server::meter::MeteredStream;

/// How long to read the peer's bytes after the end: unread bytes would make the kernel reset the connection, and the
/// peer could lose the last frames.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// How long a peer may take to send its upgrade request.
const UPGRADE_TIME: Duration = Duration::from_secs(10);

/// Serves one connection to its end.
pub async fn serve_session<S>(mut stream: MeteredStream<S>, mut session: Session, mut shutdown: ShutdownSignal)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 16 * 1024];
    let mut out = Vec::new();
    let mut late = std::pin::pin!(sleep(UPGRADE_TIME));
    let mut asked = false;
    while !session.is_over() {
        tokio::select! {
            () = shutdown.wait() => session.shut_down(&mut out),
            () = &mut late, if !asked => return,
            read = stream.read(&mut buffer) => match read {
                Ok(length @ 1..) => session.receive(&buffer[..length], &mut out),
                _ => return,
            },
        }
        if !out.is_empty() {
            asked = true;
            stream.meter.reset();
        }
        if stream.write_all(&out).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        out.clear();
    }
    // A peer that has disconnected is not an error.
    let _ = stream.shutdown().await;
    let _ = timeout(CLOSING_TIME, async { while let Ok(1..) = stream.read(&mut buffer).await {} }).await;
}
