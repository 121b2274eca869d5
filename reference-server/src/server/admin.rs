//! The admin side: health, state and events over HTTP, on its own port (README.md).
//!
//! Errors are `{"error": "..."}` with a matching status.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::machine::EventError;
use crate::server::hub::{Hub, ShutDownError};
use crate::server::{ShutdownSignal, is_local};

/// The largest event in bytes.
const MAX_EVENT: usize = 1 << 20;
/// The largest number of concurrent admin connections.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take to send a request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// The hubs by name.
type NamedHubs = Vec<(String, Arc<Hub>)>;
/// The token, and the hubs that it opens.
type GuardedHubs = (String, NamedHubs);
/// An answer: a status and a JSON body.
type AdminAnswer = (StatusCode, Value);

/// Serves the admin side until shutdown.
pub(crate) async fn serve_admin(listener: TcpListener, token: String, hubs: NamedHubs, mut shutdown: ShutdownSignal) {
    let hubs = Arc::new((token, hubs));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.wait() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                // Requests are answered within microseconds, so all of these are idle.
                if connections.len() >= MAX_CONNECTIONS {
                    connections.abort_all();
                }
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let hubs = hubs.clone();
                connections.spawn(async move {
                    let service = service_fn(|request| respond(request, &hubs));
                    // A client that does not wait for the answer is not an error.
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(REQUEST_TIME)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }
    }
    // Requests are answered within microseconds; the remaining connections are idle.
    connections.shutdown().await;
}

async fn respond(request: Request<Incoming>, hubs: &GuardedHubs) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = match is_of_page(&request) {
        true => Err(refusal_answer(StatusCode::FORBIDDEN, "web pages and hosts of other names are refused")),
        false => route(request, hubs).await,
    };
    let (status, value) = match answer {
        Ok(value) => (StatusCode::OK, value),
        Err(answer) => answer,
    };
    let mut response = Response::new(Full::from(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Whether a web page of another origin may have sent a request, even under a name that resolves to this machine.
fn is_of_page(request: &Request<Incoming>) -> bool {
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let named = |host: &str| host.parse::<SocketAddr>().is_err() && host.parse::<IpAddr>().is_err() && !is_local(host);
    text(HOST).is_some_and(named) || text(ORIGIN).is_some()
}

/// Compares a token in constant time.
fn is_token(given: &str, token: &str) -> bool {
    let pairs = given.bytes().zip(token.bytes());
    given.len() == token.len() && pairs.fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

async fn route(request: Request<Incoming>, (token, hubs): &GuardedHubs) -> Result<Value, AdminAnswer> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let parts = match &*parts {
        // Whether the server runs is no secret.
        ["health"] => &parts[..],
        [first, rest @ ..] if is_token(first, token) => rest,
        _ => {
            let what = "the path does not begin with the token; the printed address of the admin interface has it";
            return Err(refusal_answer(StatusCode::FORBIDDEN, what));
        }
    };
    match (request.method(), parts) {
        (&Method::GET, ["health"]) => Ok(json!({ "status": "ok" })),
        (&Method::GET, ["state"]) => {
            let mut states = Map::new();
            for (name, hub) in hubs {
                states.insert(name.clone(), hub.state().map_err(shut_down_answer)?);
            }
            Ok(Value::Object(states))
        }
        (&Method::GET, ["state", name]) => find_hub(hubs, name)?.state().map_err(shut_down_answer),
        (&Method::POST, ["events", name]) => {
            let hub = find_hub(hubs, name)?;
            pass_event(hub, &read_body(request).await?)
        }
        (_, ["health"] | ["state"] | ["state", _]) => Err(wrong_method_answer("GET")),
        (_, ["events", _]) => Err(wrong_method_answer("POST")),
        _ => Err(refusal_answer(
            StatusCode::NOT_FOUND,
            "unknown path; the paths are GET /health, GET /state, GET /state/NAME and POST /events/NAME",
        )),
    }
}

fn refusal_answer(status: StatusCode, text: impl Into<String>) -> AdminAnswer {
    (status, json!({ "error": text.into() }))
}

fn wrong_method_answer(right: &str) -> AdminAnswer {
    refusal_answer(StatusCode::METHOD_NOT_ALLOWED, format!("this path requires {right}"))
}

fn find_hub<'a>(hubs: &'a NamedHubs, name: &str) -> Result<&'a Hub, AdminAnswer> {
    hubs.iter().find(|(known, _)| known == name).map(|(_, hub)| &**hub).ok_or_else(|| {
        let names: Vec<&str> = hubs.iter().map(|(name, _)| name.as_str()).collect();
        let shown: String = name.chars().take(64).collect();
        refusal_answer(StatusCode::NOT_FOUND, format!("there is no hub {shown:?}; the hubs are {}", names.join(", ")))
    })
}

fn shut_down_answer(_: ShutDownError) -> AdminAnswer {
    refusal_answer(StatusCode::SERVICE_UNAVAILABLE, "the hub is shutting down")
}

fn pass_event(hub: &Hub, event: &Value) -> Result<Value, AdminAnswer> {
    hub.event(event).map_err(shut_down_answer)?.map_err(|error| {
        let status = match error {
            EventError::Unsupported => StatusCode::NOT_FOUND,
            EventError::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        refusal_answer(status, error.to_string())
    })
}

async fn read_body(request: Request<Incoming>) -> Result<Value, AdminAnswer> {
    let body = timeout(REQUEST_TIME, Limited::new(request.into_body(), MAX_EVENT).collect())
        .await
        .map_err(|_| refusal_answer(StatusCode::REQUEST_TIMEOUT, "the event did not arrive in time"))?
        .map_err(|error| {
            refusal_answer(StatusCode::PAYLOAD_TOO_LARGE, format!("an event has at most {MAX_EVENT} bytes: {error}"))
        })?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| refusal_answer(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}")))
}
