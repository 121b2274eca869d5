//! A NATS server as what shares of a run agree and report over, and as the store of their files.
//!
//! ```text
//! participation   a member's task: carries the messages of [`super::shares::over`]
//! store           the files of shares in JetStream's object store
//! ```

mod participation;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, Subscriber};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

pub use participation::Participation;

use super::shares::name::RunName;
use super::shares::over::message::Message;
use super::shares::record::PackedInterval;

/// How long the server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait between two attempts to connect again.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// The largest message that is read.
const MAX_MESSAGE: usize = 8 << 20;

/// Why a NATS server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error("`{0}` is not the address of a NATS server")]
    Address(String),
    #[error("failed to read the credentials {}: {source}", path.display())]
    Credentials { path: PathBuf, source: std::io::Error },
    #[error("no NATS server at {server}: {source}")]
    Connect { server: String, source: async_nats::ConnectError },
    #[error("failed to use {server}: {what}")]
    Use { server: String, what: String },
    #[error("{0} keeps no files: it has no JetStream, or no share has stored one")]
    NoStore(String),
    #[error("{server} has no files of a run {run}")]
    NoFiles { server: String, run: RunName },
    #[error("{server} already has a file of share {share} of run {run}")]
    Exists { server: String, run: RunName, share: crate::syntax::share::Share },
}

impl NatsError {
    /// Returns what to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Address(_) => "write nats://HOST:4222, or tls://HOST:4222 for a server with TLS",
            Self::Credentials { .. } => "--nats-creds takes a file that `nsc` has written",
            Self::Connect { .. } => {
                "start one with `nats-server --jetstream`; give its user as nats://USER:PASSWORD@HOST, or --nats-creds FILE"
            }
            Self::Use { .. } => "may the user publish and subscribe to `hubproof.>` and `$JS.API.>`?",
            Self::NoStore(_) => {
                "start it with `nats-server --jetstream`; otherwise, `hubproof merge FOLDER` reads files"
            }
            Self::NoFiles { .. } => "is this the name of the run, and have its shares ended?",
            Self::Exists { .. } => "give the run another name with --run",
        }
    }
}

/// A connection to a NATS server, which is restored when it breaks.
#[derive(Clone)]
pub struct NatsServer {
    client: Client,
    /// The address without credentials.
    shown: String,
    /// What the server refused last.
    complaint: Arc<Mutex<Option<String>>>,
}

impl NatsServer {
    /// Connects to the server at an address, which may have a user and a password, or a token.
    ///
    /// # Errors
    /// [`NatsError`]
    pub async fn connect(address: &str, credentials: Option<&Path>) -> Result<Self, NatsError> {
        let ServerAddress { shown, user, password } = ServerAddress::parse(address)?;
        let complaint = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&complaint);
        let mut options = ConnectOptions::new()
            .name("hubproof")
            .connection_timeout(CONNECT_TIMEOUT)
            .reconnect_delay_callback(|attempts| {
                MAX_RECONNECT_DELAY
                    .min(Duration::from_millis(100) * u32::try_from(attempts).unwrap_or(u32::MAX).min(10))
            })
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    *noted.lock() = Some(error.to_string());
                }
                async {}
            });
        options = match (user, password) {
            (Some(user), Some(password)) => options.user_and_password(user, password),
            (Some(token), None) => options.token(token),
            (None, _) => options,
        };
        if let Some(path) = credentials {
            let failed = |source| NatsError::Credentials { path: path.to_owned(), source };
            options = options.credentials_file(path).await.map_err(failed)?;
        }
        let connected = options.connect(shown.as_str()).await;
        let client = connected.map_err(|source| NatsError::Connect { server: shown.clone(), source })?;
        Ok(Self { client, shown, complaint })
    }

    /// Returns the address without credentials.
    pub fn address(&self) -> &str {
        &self.shown
    }

    /// Subscribes to the messages of a run whose subjects end with this.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn subscribe(&self, run: &RunName, ending: &str) -> Result<RunMessages, NatsError> {
        let subscribed = self.client.subscribe(subject(run, ending)).await;
        subscribed.map(RunMessages).map_err(|error| self.failed(&error))
    }

    /// Publishes a message, without histograms if it is too large for the server.
    pub async fn publish(&self, run: &RunName, mut message: Message<PackedInterval>) {
        let most = self.client.max_payload().min(MAX_MESSAGE);
        for _ in 0..2 {
            let Ok(bytes) = serde_json::to_vec(&message) else { return };
            if bytes.len() <= most {
                // Fails only when the connection was closed for good; then silence says so.
                drop(self.client.publish(subject(run, &message.subject()), bytes.into()).await);
                return;
            }
            match &mut message {
                Message::Status(status) => {
                    if let Some(delta) = &mut status.delta {
                        delta.content.drop_timings();
                    }
                }
                _ => return,
            }
        }
    }

    /// Waits until everything published has reached the server.
    pub async fn flush(&self) {
        // Fails only when the connection was closed for good.
        drop(tokio::time::timeout(CONNECT_TIMEOUT, self.client.flush()).await);
    }

    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Returns what the server has refused since the last call.
    pub fn take_complaint(&self) -> Option<String> {
        self.complaint.lock().take()
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> NatsError {
        NatsError::Use { server: self.shown.clone(), what: error.to_string() }
    }
}

/// The messages of a subscription.
pub struct RunMessages(Subscriber);

impl RunMessages {
    /// Returns the next message; `None` when the connection is closed for good. What is not a message of hubproof is
    /// passed over.
    pub async fn next(&mut self) -> Option<Message<PackedInterval>> {
        loop {
            let received = self.0.next().await?;
            if received.payload.len() > MAX_MESSAGE {
                continue;
            }
            let message = serde_json::from_slice::<Message<PackedInterval>>(&received.payload);
            if let Some(message) = message.ok().filter(Message::is_acceptable) {
                return Some(message);
            }
        }
    }
}

/// Returns the subject of a run's messages; a dot in its name would divide it.
fn subject(run: &RunName, ending: &str) -> String {
    format!("hubproof.{}.{ending}", run.to_string().replace('.', "="))
}

/// The address of a server, apart from its credentials.
#[derive(Debug, PartialEq, Eq)]
struct ServerAddress {
    shown: String,
    user: Option<String>,
    password: Option<String>,
}

impl ServerAddress {
    fn parse(text: &str) -> Result<Self, NatsError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, host) = rest.rsplit_once('@').map_or((None, rest), |(before, host)| (Some(before), host));
        let shown = format!("{scheme}://{host}");
        let is_address = matches!(scheme, "nats" | "tls") && !host.is_empty() && !host.contains(['/', '?', '#', ',']);
        if !is_address || shown.parse::<async_nats::ServerAddr>().is_err() {
            return Err(NatsError::Address(shown));
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = match credentials.map(|text| text.split_once(':').ok_or(text)) {
            Some(Ok((user, password))) => (Some(decode(user)), Some(decode(password))),
            Some(Err(token)) => (Some(decode(token)), None),
            None => (None, None),
        };
        Ok(Self { shown, user, password })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("nats://h:4222", "nats://h:4222", None, None)]
    #[case("h", "nats://h", None, None)]
    #[case("tls://u:p%40@h:1/", "tls://h:1", Some("u"), Some("p@"))]
    #[case("nats://s3cr3t@[::1]", "nats://[::1]", Some("s3cr3t"), None)]
    fn an_address_is_shown_without_its_credentials(
        #[case] text: &str,
        #[case] shown: &str,
        #[case] user: Option<&str>,
        #[case] password: Option<&str>,
    ) {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let expected = ServerAddress { shown: shown.to_owned(), user: own(user), password: own(password) };
        assert_eq!(ServerAddress::parse(text).unwrap(), expected);
    }

    #[rstest]
    #[case("ws://h")]
    #[case("nats://")]
    #[case("nats://u:p@h/run")]
    #[case("nats://u:p@h,other")]
    fn another_text_is_refused_without_its_password(#[case] text: &str) {
        let error = ServerAddress::parse(text).unwrap_err().to_string();
        assert!(error.contains("is not the address of a NATS server") && !error.contains("u:p"), "{error}");
    }

    #[test]
    fn a_run_with_a_dot_in_its_name_has_subjects_of_its_own() {
        let run = |name: &str| name.parse::<RunName>().unwrap();
        assert_eq!(subject(&run("a.b"), "tick"), "hubproof.a=b.tick");
    }
}
