//! Whether addresses accept TCP connections.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::transport::Endpoint;

/// Between two attempts at one address.
const PAUSE: Duration = Duration::from_millis(25);
/// The longest that one attempt may take: a listener answers at once, and a firewall never.
const ATTEMPT: Duration = Duration::from_secs(1);

/// The first address on which somebody listens.
pub async fn taken(endpoints: &[Endpoint]) -> Option<String> {
    for endpoint in endpoints {
        if accepts(endpoint).await {
            return Some(endpoint.authority());
        }
    }
    None
}

/// The first address on which nobody listens; the first of all where all do.
pub async fn closed(endpoints: &[Endpoint]) -> String {
    for endpoint in endpoints {
        if !accepts(endpoint).await {
            return endpoint.authority();
        }
    }
    endpoints.first().map(Endpoint::authority).unwrap_or_default()
}

/// Waits until each address has accepted a connection, which is closed at once.
pub async fn open(endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        while !accepts(endpoint).await {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn accepts(endpoint: &Endpoint) -> bool {
    let attempt = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    match tokio::time::timeout(ATTEMPT, attempt).await {
        // Where nobody listens, the system may choose the very port that is asked for, and connect it with itself.
        Ok(Ok(stream)) => stream.local_addr().ok() != stream.peer_addr().ok(),
        Ok(Err(_)) | Err(_) => false,
    }
}
