//! What a running load run, or `observe`, serves over HTTP: its live page, and its metrics for Prometheus.

mod live;
mod metrics;

use std::io;
use std::net::SocketAddr;

pub use live::{HoldSwitch, LiveFeed, LivePage, LiveSnapshot, LiveUpdate, parse_address, stopped_on};
pub use metrics::MetricsPage;

use crate::report::html::HtmlError;

/// Why a page is not served.
#[derive(Debug, thiserror::Error)]
pub enum PageServerError {
    #[error("failed to serve {page} on {address}: {source}")]
    Serve { page: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Page(#[from] HtmlError),
}
