//! Checks whether addresses accept TCP connections.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::transport::Endpoint;

/// The pause between two attempts at one address.
const CONNECT_PAUSE: Duration = Duration::from_millis(25);
/// The timeout of one attempt: a listener answers at once, a firewall never does.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the first address that accepts connections.
pub async fn first_taken(endpoints: &[Endpoint]) -> Option<String> {
    for endpoint in endpoints {
        if accepts_connection(endpoint).await {
            return Some(endpoint.authority());
        }
    }
    None
}

/// Returns the first address that does not accept connections; if all accept them, returns the first address.
pub async fn first_closed(endpoints: &[Endpoint]) -> String {
    for endpoint in endpoints {
        if !accepts_connection(endpoint).await {
            return endpoint.authority();
        }
    }
    endpoints.first().map(Endpoint::authority).unwrap_or_default()
}

/// Waits until every address has accepted a connection; closes each connection at once.
pub async fn wait_until_open(endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        while !accepts_connection(endpoint).await {
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    }
}

async fn accepts_connection(endpoint: &Endpoint) -> bool {
    #[cfg(unix)]
    if let Some(path) = &endpoint.unix {
        return tokio::net::UnixStream::connect(path).await.is_ok();
    }
    let attempt = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
        // If nothing listens, the system may choose the same port as the source and connect the socket to itself.
        Ok(Ok(stream)) => stream.local_addr().ok() != stream.peer_addr().ok(),
        Ok(Err(_)) | Err(_) => false,
    }
}
