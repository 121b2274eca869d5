//! The page of a running load run, or of traffic that is observed, with buttons to hold and stop it.
//!
//! Nothing here delays the run. Its aggregator makes a snapshot only if there is a reader, and drops it if the last one
//! is still being rendered. A reader that cannot keep up skips updates and gets the whole page again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::PageServerError;
use crate::load::report::{LoadReport, json};
use crate::report::html::live::{self, LiveState};

/// The most concurrent readers of updates, and the most concurrent connections.
const MAX_READERS: usize = 16;
const MAX_CONNECTIONS: usize = 32;
/// The timeout for the head of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long readers have to receive the final page.
const FINAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers of all answers.
const HEADERS: [(HeaderName, &str); 4] = [
    (CACHE_CONTROL, "no-store"),
    (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (http::header::REFERRER_POLICY, "no-referrer"),
    (http::header::X_FRAME_OPTIONS, "DENY"),
];

/// Parses the address of `--live`: a port on the loopback interface, or an IP address and a port.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    let named = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    SocketAddr::from_str(named.as_deref().unwrap_or(text))
        .map_err(|_| "write PORT for this machine alone, or IP:PORT, such as 192.0.2.7:8080 or [::1]:8080".to_owned())
}

/// A report so far, on its way to the page.
pub struct LiveSnapshot {
    pub report: LoadReport,
    pub state: LiveState,
    /// The number of the interval.
    pub number: u64,
    /// Whether the report has only the last interval.
    pub is_next: bool,
}

/// Begins to hold back new journeys, or ends that. Returns whether it could.
pub type HoldSwitch = Arc<dyn Fn(bool) -> bool + Send + Sync>;

/// A served page.
pub struct LivePage {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
    snapshots: SyncSender<UpdateRenderer>,
    bound: SocketAddr,
}

/// Renders an update, when there is time for it.
type UpdateRenderer = Box<dyn FnOnce() -> LiveUpdate + Send>;

/// What is sent to the readers of a page.
pub struct LiveUpdate {
    /// What a page needs to show it; `None` if it cannot be rendered.
    pub content: Option<serde_json::Value>,
    pub number: u64,
    /// Whether it is only for readers that have the update before it.
    pub is_next: bool,
}

impl LiveSnapshot {
    fn render(self) -> LiveUpdate {
        let Self { report, state, number, is_next } = self;
        let document = serde_json::to_value(json::build_document(&report)).ok();
        let content = document.and_then(|document| live::update(document, Some(&state), is_next).ok());
        LiveUpdate { content, number, is_next }
    }
}

/// What the server, its readers and the run share.
struct Shared {
    token: String,
    page: Bytes,
    updates: watch::Sender<Option<Arc<Update>>>,
    readers: AtomicUsize,
    /// Whether a reader needs the whole page.
    whole: AtomicBool,
    places: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    hold: Mutex<Option<HoldSwitch>>,
    stop: Notify,
}

/// An update in the form of a server-sent event.
struct Update {
    event: Bytes,
    number: u64,
    /// Whether it is for readers that have the update before it.
    is_next: bool,
    is_last: bool,
}

impl LivePage {
    /// Starts to serve the page of a command.
    ///
    /// # Errors
    ///
    /// The address cannot be used.
    pub async fn start(address: SocketAddr, command: &str, title: &str) -> Result<Self, PageServerError> {
        let failed = |source| PageServerError::Serve { page: "the live page", address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let token = uuid::Uuid::new_v4().simple().to_string();
        let shared = Arc::new(Shared {
            token,
            page: live::page(command, title)?.into(),
            updates: watch::Sender::new(None),
            readers: AtomicUsize::new(0),
            whole: AtomicBool::new(true),
            places: Arc::new(Semaphore::new(MAX_READERS)),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            hold: Mutex::default(),
            stop: Notify::new(),
        });
        let (snapshots, inbox) = sync_channel::<UpdateRenderer>(1);
        let rendering = Arc::clone(&shared);
        // Ends when the page and the run have dropped their ends of the channel.
        std::thread::Builder::new()
            .name("live-page".to_owned())
            .spawn(move || inbox.iter().for_each(|render| rendering.publish(render())))
            .map_err(failed)?;
        let server = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { shared, server, snapshots, bound })
    }

    /// Returns the URL with its token.
    pub fn url(&self) -> String {
        let shown = match self.bound.ip() {
            ip if ip.is_unspecified() && ip.is_ipv6() => {
                SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), self.bound.port())
            }
            ip if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.bound.port()),
            _ => self.bound,
        };
        format!("http://{shown}/?token={}", self.shared.token)
    }

    /// Whether other machines can reach the page.
    pub fn is_exposed(&self) -> bool {
        !self.bound.ip().is_loopback()
    }

    /// Returns the end of the page to which a run sends its snapshots, and lets the page hold the run.
    pub fn follow_run(&self, hold: Option<HoldSwitch>) -> LiveFeed {
        *self.shared.hold.lock() = hold;
        self.shared.whole.store(true, Relaxed);
        LiveFeed { shared: Arc::clone(&self.shared), snapshots: self.snapshots.clone() }
    }

    /// Sends the final page of a load run to all readers, and ends.
    pub async fn finish(self, report: &LoadReport) {
        let document = json::build_document(report);
        self.finish_with(|| live::update(serde_json::to_value(document).ok()?, None, false).ok()).await;
    }

    /// Sends the final page to all readers, and ends.
    pub async fn finish_with(self, render: impl FnOnce() -> Option<serde_json::Value> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        *shared.hold.lock() = None;
        let rendered = tokio::task::spawn_blocking(move || {
            if let Some(update) = render() {
                shared.send(&update, u64::MAX, false, true);
            }
        });
        let _ = rendered.await;
        // All permits are free once the readers have received it.
        let all = u32::try_from(MAX_READERS).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(FINAL_TIMEOUT, self.shared.places.acquire_many(all)).await;
    }
}

/// Waits until a reader of the page stops the run; waits for ever if there is no page.
pub async fn stopped_on(page: Option<&LivePage>) {
    match page {
        Some(page) => page.shared.stop.notified().await,
        None => std::future::pending().await,
    }
}

impl Drop for LivePage {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The end of a page to which a run sends its snapshots.
pub struct LiveFeed {
    shared: Arc<Shared>,
    snapshots: SyncSender<UpdateRenderer>,
}

impl LiveFeed {
    /// Sends a snapshot if there is a reader; `snapshot` gets whether it needs all intervals.
    pub fn send(&self, snapshot: impl FnOnce(bool) -> LiveSnapshot) {
        self.send_update(|whole| {
            let snapshot = snapshot(whole);
            move || snapshot.render()
        });
    }

    /// Sends an update if there is a reader; `prepare` gets whether it needs the whole page.
    pub fn send_update<R: FnOnce() -> LiveUpdate + Send + 'static>(&self, prepare: impl FnOnce(bool) -> R) {
        if self.shared.readers.load(Relaxed) > 0 {
            let whole = self.shared.whole.swap(false, Relaxed);
            if self.snapshots.try_send(Box::new(prepare(whole))).is_err() {
                self.shared.whole.store(true, Relaxed);
            }
        }
    }

    /// Asks for all intervals in the next snapshot.
    pub fn begin_anew(&self) {
        self.shared.whole.store(true, Relaxed);
    }
}

impl Shared {
    /// Passes an update to the readers.
    fn publish(&self, update: LiveUpdate) {
        match update.content {
            Some(content) => self.send(&content, update.number, update.is_next, false),
            None => self.whole.store(true, Relaxed),
        }
    }

    fn send(&self, update: &serde_json::Value, number: u64, is_next: bool, is_last: bool) {
        // JSON has no line breaks outside strings, where they are escaped.
        let event = Bytes::from(format!("data: {update}\n\n"));
        self.updates.send_if_modified(|current| {
            // A snapshot may still be rendered when the run has ended.
            let has_ended = current.as_ref().is_some_and(|update| update.is_last);
            if !has_ended {
                *current = Some(Arc::new(Update { event, number, is_next, is_last }));
            }
            !has_ended
        });
    }

    /// Returns why a request is refused, if it is: pages of other origins must not reach the server, not even under a
    /// name that resolves to this machine.
    fn refusal(&self, request: &Request<Incoming>) -> Option<&'static str> {
        let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(HOST).unwrap_or_default();
        if !is_address(host) {
            return Some("the header Host must be an IP address or localhost");
        }
        let tokens =
            request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("token="));
        if !{ tokens }.any(|token| is_equal(token, &self.token)) {
            return Some("the token is missing or wrong; hubproof printed the URL with it");
        }
        match text(ORIGIN) {
            Some(origin) if origin != format!("http://{host}") => Some("the request comes from another origin"),
            _ => None,
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<AnswerBody> {
        if let Some(why) = self.refusal(&request) {
            return plain(StatusCode::FORBIDDEN, why);
        }
        let hold = self.hold.lock().clone();
        let switch = |begins| hold.is_some_and(|hold| hold(begins));
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/") => with_type("text/html; charset=utf-8", AnswerBody::whole(self.page.clone())),
            (&Method::GET, "/events") => match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => with_type("text/event-stream", self.subscribe(place)),
                Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "there are too many readers"),
            },
            (&Method::POST, "/hold") => match switch(true) {
                true => plain(StatusCode::OK, "new journeys are held back from the next second on"),
                false => {
                    plain(StatusCode::CONFLICT, "there is nothing to hold: the run has not begun, is held, or drains")
                }
            },
            (&Method::POST, "/resume") => match switch(false) {
                true => plain(StatusCode::OK, "the run goes on with the next second"),
                false => plain(StatusCode::CONFLICT, "the run is not held"),
            },
            (&Method::POST, "/stop") => {
                self.stop.notify_one();
                plain(StatusCode::OK, "the run is stopping")
            }
            (_, "/" | "/events" | "/hold" | "/resume" | "/stop") => {
                plain(StatusCode::METHOD_NOT_ALLOWED, "wrong method")
            }
            _ => plain(StatusCode::NOT_FOUND, "there is no such page"),
        }
    }

    /// Starts to send updates to a reader, which occupies a place until it has gone.
    fn subscribe(self: Arc<Self>, place: OwnedSemaphorePermit) -> AnswerBody {
        let (sender, receiver) = mpsc::channel(1);
        self.readers.fetch_add(1, Relaxed);
        let mut updates = self.updates.subscribe();
        updates.mark_changed();
        tokio::spawn(async move {
            let mut last = None;
            loop {
                tokio::select! {
                    changed = updates.changed() => if changed.is_err() { break },
                    () = sender.closed() => break,
                }
                let Some(update) = updates.borrow_and_update().clone() else {
                    self.whole.store(true, Relaxed);
                    continue;
                };
                if update.is_next && last != Some(update.number.wrapping_sub(1)) {
                    // It has missed one.
                    self.whole.store(true, Relaxed);
                    continue;
                }
                last = Some(update.number);
                if sender.send(update.event.clone()).await.is_err() || update.is_last {
                    break;
                }
            }
            self.readers.fetch_sub(1, Relaxed);
        });
        AnswerBody { whole: None, events: Some(receiver), _place: Some(place) }
    }
}

/// Whether a host is an IP address or `localhost`, with or without a port, and not a name that a stranger may own.
fn is_address(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    !host.contains('@') && (name == "localhost" || name.parse::<IpAddr>().is_ok())
}

/// Compares two tokens in constant time.
fn is_equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

fn plain(status: StatusCode, text: &'static str) -> Response<AnswerBody> {
    let mut answer = with_type("text/plain; charset=utf-8", AnswerBody::whole(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    answer
}

fn with_type(content_type: &'static str, body: AnswerBody) -> Response<AnswerBody> {
    let mut answer = Response::new(body);
    for (name, value) in HEADERS.into_iter().chain([(CONTENT_TYPE, content_type)]) {
        answer.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    answer
}

/// The body of an answer: a text, or events as they come.
struct AnswerBody {
    whole: Option<Bytes>,
    events: Option<mpsc::Receiver<Bytes>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl AnswerBody {
    fn whole(text: Bytes) -> Self {
        Self { whole: Some(text), events: None, _place: None }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(text) = self.whole.take() {
            return Poll::Ready(Some(Ok(Frame::data(text))));
        }
        match &mut self.events {
            Some(events) => events.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event)))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_none() && self.events.is_none()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
    loop {
        let Ok(permit) = Arc::clone(&shared.connections).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, std::convert::Infallible>(shared.answer(request).await) }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _permit = permit;
            // A client that sends no request or disconnects is dropped.
            let _ = connection.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("8080", Some("127.0.0.1:8080"))]
    #[case("0", Some("127.0.0.1:0"))]
    #[case("localhost:1", Some("127.0.0.1:1"))]
    #[case("192.0.2.7:80", Some("192.0.2.7:80"))]
    #[case("[::1]:80", Some("[::1]:80"))]
    #[case("example.com:80", None)]
    #[case("127.0.0.1", None)]
    #[case(":80", None)]
    #[case("70000", None)]
    fn an_address_other_than_loopback_must_be_written_in_full(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(parse_address(text).ok().map(|address| address.to_string()).as_deref(), expected);
    }

    #[tokio::test]
    async fn no_earlier_update_replaces_the_last_one() {
        let page = LivePage::start("127.0.0.1:0".parse().unwrap(), "hubproof load", "A run").await.unwrap();
        for (number, is_last) in [(1, false), (u64::MAX, true), (2, false)] {
            page.shared.send(&serde_json::json!({ "number": number }), number, false, is_last);
        }
        let shown = page.shared.updates.borrow().clone().unwrap();
        assert_eq!((shown.number, shown.is_last), (u64::MAX, true));
    }

    #[rstest]
    #[case("127.0.0.1:80", true)]
    #[case("localhost:80", true)]
    #[case("localhost", true)]
    #[case("[::1]:80", true)]
    #[case("192.0.2.7", true)]
    #[case("evil.example:80", false)]
    #[case("127.0.0.1.evil.example", false)]
    #[case("localhost.evil.example:80", false)]
    #[case("evil@127.0.0.1:80", false)]
    #[case("", false)]
    fn only_hosts_that_no_stranger_owns_are_answered(#[case] host: &str, #[case] expected: bool) {
        assert_eq!(is_address(host), expected);
    }

    #[rstest]
    #[case("abc", "abc", true)]
    #[case("abc", "abd", false)]
    #[case("", "abc", false)]
    fn tokens_are_compared(#[case] a: &str, #[case] b: &str, #[case] expected: bool) {
        assert_eq!(is_equal(a, b), expected);
    }
}
