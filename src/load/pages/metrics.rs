//! The metrics of a running load run, served to Prometheus over a minimal HTTP server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PageServerError;

/// The timeout for a request and its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest request that is read.
const MAX_REQUEST_BYTES: u64 = 8 << 10;
/// The most concurrent requests.
const MAX_CONCURRENT_REQUESTS: usize = 8;

/// A metrics page, served until this is dropped.
pub struct MetricsPage {
    address: SocketAddr,
    page: Arc<Mutex<String>>,
    task: JoinHandle<()>,
}

impl MetricsPage {
    /// Starts the server.
    ///
    /// # Errors
    ///
    /// The server cannot listen on the address.
    pub async fn start(address: SocketAddr) -> Result<Self, PageServerError> {
        let failed = |source| PageServerError::Serve { page: "metrics", address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let page = Arc::new(Mutex::new(String::new()));
        let task = tokio::spawn(serve(listener, Arc::clone(&page)));
        Ok(Self { address, page, task })
    }

    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    pub fn page(&self) -> Arc<Mutex<String>> {
        Arc::clone(&self.page)
    }
}

impl Drop for MetricsPage {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, page: Arc<Mutex<String>>) {
    let at_once = Arc::new(tokio::sync::Semaphore::new(MAX_CONCURRENT_REQUESTS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&at_once).acquire_owned().await else { return };
        let page = Arc::clone(&page);
        tokio::spawn(async move {
            let _permit = permit;
            // A client that exceeds the timeout or disconnects is dropped.
            let _ = timeout(REQUEST_TIMEOUT, answer_request(stream, &page)).await;
        });
    }
}

async fn answer_request(mut stream: TcpStream, page: &Mutex<String>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut reader = (&mut stream).take(MAX_REQUEST_BYTES);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && reader.read_buf(&mut request).await? > 0 {}
    let (status, body) = if request.starts_with(b"GET /metrics ") || request.starts_with(b"GET / ") {
        ("200 OK", page.lock().clone())
    } else {
        ("404 Not Found", "metrics are at /metrics\n".to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
