//! Limits the bytes of incomplete messages over all connections of a hub: beyond [`MAX_UNREAD`], connections whose current
//! message is long end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes of incomplete messages of all connections together.
const MAX_UNREAD: usize = 400 << 20;
/// The bytes of an incomplete message that every connection may have.
const MAX_OWN: usize = 64 << 10;

/// Counts the bytes that a connection has received since its last complete message, and the sum over all connections.
#[derive(Default)]
pub struct Meter {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

impl Meter {
    pub fn new(all: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { own: AtomicUsize::new(0), all })
    }

    /// Notes that a message is complete.
    pub fn reset(&self) {
        self.all.fetch_sub(self.own.swap(0, Relaxed), Relaxed);
    }

    fn add(&self, bytes: usize) -> io::Result<()> {
        let own = self.own.fetch_add(bytes, Relaxed) + bytes;
        let all = self.all.fetch_add(bytes, Relaxed) + bytes;
        if own > MAX_OWN && all > MAX_UNREAD { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.reset();
    }
}

/// A stream whose received bytes are counted.
pub struct MeteredStream<S> {
    pub stream: S,
    pub meter: Arc<Meter>,
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.meter.add(buffer.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn incomplete_messages_of_all_connections_have_a_limit() {
        let all = Arc::new(AtomicUsize::new(MAX_UNREAD - MAX_OWN));
        let sent = vec![0; 2 * MAX_OWN];
        let connection = |length: usize| MeteredStream { stream: &sent[..length], meter: Meter::new(all.clone()) };
        let mut buffer = vec![0; 2 * MAX_OWN];
        let mut long = connection(2 * MAX_OWN);
        assert!(long.read_exact(&mut buffer).await.is_err());
        // A short message is still received, and so is a long one once there is room.
        let mut short = connection(MAX_OWN);
        assert!(short.read_exact(&mut buffer[..MAX_OWN]).await.is_ok());
        [&long, &short].iter().for_each(|stream| stream.meter.reset());
        let mut other = connection(MAX_OWN + 1);
        assert!(other.read_exact(&mut buffer[..MAX_OWN + 1]).await.is_err());
        drop((long, short, other));
        assert_eq!(all.load(Relaxed), MAX_UNREAD - MAX_OWN);
    }
}
