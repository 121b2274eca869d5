//! The Airavata scheduler's notifications (document 001): clients with tokens, subscriptions, events.
//!
//! Events come from the admin side ([`event`]) as if they had just happened: the hub gives them an id and a
//! timestamp and sends them to the subscribers that the routing table names (lines 587 to 590). The event
//! `{"message": {"type": "ping"}}` makes it ping all clients immediately.
//!
//! Where the document is silent or contradicts itself, this hub does the following. A path implies a subscription;
//! a repeated subscription changes nothing, and a client with several matching subscriptions gets one copy.
//! Refused connections are upgraded, sent the reason and closed with 1008; an unknown path is 404. Ids of events
//! contain Unix milliseconds, increased if two events share one, so that ids stay unique and timestamps never
//! decrease. A token without `exp` does not expire. Users may subscribe to anything; `me` or nothing means the user
//! itself. An unknown resource type is answered with `Invalid message format`, a type that only hubs send with
//! `Unknown message type`. Pongs have ids of their own, and clients that do not answer pings stay connected.

mod burst;
mod event;
mod message;
#[cfg(test)]
mod tests;
mod token;
mod topic;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};

use self::burst::{EventBurst, EventBursts};
use self::event::AiravataEvent;
use self::message::{AiravataMessage, AiravataRequest, MessageError, RequestedResource, text};
use self::token::TokenError;
use self::topic::{RESOURCE_KINDS, ResourceKind, ResourceTopic, TopicSubscriptions};
use crate::fault::MachineFault;
use crate::machine::clock::{self, HubClock};
use crate::machine::settings::{Settings, SettingsError};
use crate::machine::{ConnectionId, EventError, Handshake, Machine, MachineInput, MachineOutput};

/// The protocol's name.
pub const PROTOCOL: &str = "airavata";
/// Policy violation: the close code of refused connections.
const REFUSED_CLOSE_CODE: u16 = 1008;

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AiravataConfig {
    /// The key of the tokens' signatures.
    jwt_secret: String,
    /// The claim that names the user.
    user_claim: String,
    /// How often clients are pinged; 0 turns pings off.
    #[serde(rename = "ping_interval_ms", deserialize_with = "crate::machine::settings::millis")]
    ping_interval: Duration,
    /// The largest number of connections of a user (line 765).
    max_per_user: usize,
    /// The largest number of connections from an address (line 766).
    max_per_ip: usize,
    /// The largest number of connections (line 767).
    max_connections: usize,
    /// The largest number of subscriptions of a connection.
    max_subscriptions: usize,
    /// The largest number of messages of a connection within a window; 0 is unlimited.
    rate_limit: u32,
    /// The length of the rate limit's window.
    #[serde(rename = "rate_window_ms", deserialize_with = "crate::machine::settings::millis")]
    rate_window: Duration,
    /// The Unix time of the hub's start in milliseconds; without it, the system's clock.
    epoch_ms: Option<u64>,
}

impl Default for AiravataConfig {
    fn default() -> AiravataConfig {
        AiravataConfig {
            jwt_secret: "the key of the reference hub".to_owned(),
            user_claim: "sub".to_owned(),
            ping_interval: Duration::from_secs(30),
            max_per_user: 10,
            max_per_ip: 50,
            max_connections: 1000,
            max_subscriptions: 1000,
            rate_limit: 0,
            rate_window: Duration::from_secs(1),
            epoch_ms: None,
        }
    }
}

pub fn build(settings: &Settings, broken: MachineFault) -> Result<Box<dyn Machine>, SettingsError> {
    let config: AiravataConfig = settings.deserialize(PROTOCOL)?;
    Ok(Box::new(Airavata {
        key: hmac::Key::new(hmac::HMAC_SHA256, config.jwt_secret.as_bytes()),
        clock: HubClock::new(config.epoch_ms),
        config,
        broken,
        clients: BTreeMap::new(),
        users: BTreeMap::new(),
        addresses: BTreeMap::new(),
        subscriptions: TopicSubscriptions::default(),
        pings: BTreeSet::new(),
        left_behind: BTreeMap::new(),
        lingering: BTreeMap::new(),
        parted: BTreeSet::new(),
        twice: BTreeSet::new(),
        progressed: None,
        homes: BTreeMap::new(),
        latest: Vec::new(),
        bursts: EventBursts::default(),
        unknowns: BTreeMap::new(),
        shut_by: None,
        known_tokens: BTreeSet::new(),
        stamp: 0,
        ids: 0,
        events: 0,
    }))
}

struct Airavata {
    config: AiravataConfig,
    key: hmac::Key,
    clock: HubClock,
    broken: MachineFault,
    /// Accepted connections.
    clients: BTreeMap<ConnectionId, AiravataClient>,
    /// The number of connections of each user.
    users: BTreeMap<Arc<str>, usize>,
    /// The number of connections from each address.
    addresses: BTreeMap<IpAddr, usize>,
    subscriptions: TopicSubscriptions,
    /// When each client is pinged next.
    pings: BTreeSet<(Duration, ConnectionId)>,
    /// For a fault: the subscriptions of each user's last connection that ended.
    left_behind: BTreeMap<Arc<str>, Vec<ResourceTopic>>,
    /// For a fault: clients that have unsubscribed and get one more event.
    lingering: BTreeMap<ResourceTopic, ConnectionId>,
    /// For a fault: subscriptions that have been ended once.
    parted: BTreeSet<(ConnectionId, ResourceTopic)>,
    /// For a fault: subscriptions that have been repeated.
    twice: BTreeSet<(ConnectionId, ResourceTopic)>,
    /// For a fault: the experiment of the last event, if that event was about progress.
    progressed: Option<String>,
    /// For a fault: the first project of each experiment.
    homes: BTreeMap<String, Option<String>>,
    /// For a fault: the topics of the latest event of an experiment.
    latest: Vec<ResourceTopic>,
    /// For faults: the events that came closely together.
    bursts: EventBursts,
    /// For a fault: how many messages of an unknown type came on each connection, and whose were too many.
    unknowns: BTreeMap<ConnectionId, usize>,
    shut_by: Option<Arc<str>>,
    /// For a fault: the tokens that were accepted.
    known_tokens: BTreeSet<String>,
    /// The last timestamp sent, in Unix milliseconds; timestamps never decrease.
    stamp: u64,
    /// The number of ids given to messages that are not events.
    ids: u64,
    events: u64,
}

struct AiravataClient {
    user: Arc<str>,
    peer: IpAddr,
    next_ping: Duration,
    /// The window of the rate limit: its start and the number of messages in it.
    window: (Duration, u32),
    /// For faults: whether the client connected to `/ws/user`, whether it ever subscribed, and when its last message
    /// came.
    at_user: bool,
    asked: bool,
    last_received: Duration,
    /// For a fault: whether a ping has no pong yet.
    pinged: bool,
}

impl Machine for Airavata {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        self.send_due_pings(now, out);
        match input {
            MachineInput::Open { conn, handshake } => self.open(now, conn, &handshake, out),
            MachineInput::Text { conn, text } if self.clients.contains_key(&conn) => {
                self.handle_text(now, conn, &text, out)
            }
            MachineInput::Closed { conn } => {
                if self.broken.is("airavata-close-takes-others") {
                    self.close_others_with(conn, out);
                }
                if self.broken.is("airavata-close-unsubscribes-user") {
                    let others = self.others_of_user(conn);
                    others.into_iter().for_each(|other| self.subscriptions.remove_connection(other));
                }
                if self.broken.is("airavata-leaver-takes-next") {
                    self.unsubscribe_next(conn);
                }
                if self.broken.is("airavata-close-ends-pings") {
                    self.pings.pop_last();
                }
                self.leave(conn);
            }
            // The document has only JSON messages; its pings are messages, too.
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.pings.first().map(|(due, _)| *due)
    }

    fn state(&self) -> Value {
        let subscriptions = self.subscriptions.by_topic().map(|(topic, conns)| (topic.describe(), json!(conns.len())));
        json!({
            "connections": self.clients.len(),
            "users": self.users.iter().map(|(user, count)| (user.to_string(), json!(count))).collect::<serde_json::Map<_, _>>(),
            "subscriptions": subscriptions.collect::<serde_json::Map<_, _>>(),
            "events": self.events,
        })
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        self.send_due_pings(now, out);
        if event.pointer("/message/type") == Some(&json!("ping")) {
            let clients = self.clients.keys().copied().collect::<Vec<_>>();
            clients.iter().for_each(|&conn| self.ping(now, conn, out));
            return Ok(json!({ "recipients": clients.len() }));
        }
        let event = event::parse_event(event)?;
        Ok(self.publish_event(now, &event, out))
    }
}

/// How connections are opened and closed.
impl Airavata {
    fn open(&mut self, now: Duration, conn: ConnectionId, handshake: &Handshake, out: &mut Vec<MachineOutput>) {
        let Some(place) = self.endpoint_resource(&handshake.path) else {
            let body = "there is /ws/experiments/ID, /ws/tasks/ID, /ws/projects/ID and /ws/user\n".to_owned();
            return out.push(MachineOutput::Refuse { conn, status: 404, body });
        };
        if handshake.headers.iter().any(|(name, value)| name == "connection" && value.contains(','))
            && self.broken.is("airavata-connection-list-refused")
        {
            let body = "the header Connection must be Upgrade\n".to_owned();
            return out.push(MachineOutput::Refuse { conn, status: 400, body });
        }
        if handshake.headers.iter().any(|(name, _)| name == "authorization")
            && self.broken.is("airavata-header-token-refused")
        {
            return out.push(MachineOutput::Refuse {
                conn,
                status: 401,
                body: "tokens in headers are not accepted\n".to_owned(),
            });
        }
        out.push(MachineOutput::Accept { conn, subprotocol: None });
        let admitted =
            if self.refuses_all(place.0, handshake) { Err(text::BAD_TOKEN) } else { self.admit(now, handshake) };
        match admitted {
            Err(reason) => {
                if reason == text::BAD_TOKEN && self.broken.is("airavata-refusal-closes-others") {
                    self.close_named(handshake, out);
                }
                if reason == text::BAD_TOKEN
                    && self.broken.is("airavata-shapeless-token-untold")
                    && has_token_without_dot(handshake)
                {
                    return out.push(MachineOutput::Close { conn, code: REFUSED_CLOSE_CODE, reason: String::new() });
                }
                let id = self.message_id("error");
                out.push(self.send_message(now, conn, "error", &id, None, Some(reason)));
                out.push(MachineOutput::Close { conn, code: REFUSED_CLOSE_CODE, reason: reason.to_owned() });
            }
            Ok(user) => self.accept_client(now, conn, user, handshake.peer, place, out),
        }
    }

    /// Returns the resource of a path (lines 43 to 46); `/ws/user` has no id, since the token names the user.
    fn endpoint_resource(&self, path: &str) -> Option<(ResourceKind, Option<String>)> {
        const ENDPOINTS: &[(&str, ResourceKind, &str)] = &[
            ("/ws/experiments/", ResourceKind::Experiment, "airavata-experiments-endpoint-missing"),
            ("/ws/tasks/", ResourceKind::Task, "airavata-tasks-endpoint-missing"),
            ("/ws/projects/", ResourceKind::Project, "airavata-projects-endpoint-missing"),
        ];
        if path == "/ws/user" && !self.broken.is("airavata-user-endpoint-missing") {
            return Some((ResourceKind::User, None));
        }
        let (id, kind, fault) =
            ENDPOINTS.iter().find_map(|(start, kind, fault)| Some((path.strip_prefix(start)?, *kind, *fault)))?;
        let spaced = if self.broken.is("airavata-path-plus-is-space") { id.replace('+', " ") } else { id.to_owned() };
        let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8().ok()?;
        let id = if self.broken.is("airavata-path-not-decoded") { id.into() } else { decoded };
        let one = !id.is_empty() && id.len() <= 512 && !id.contains('/');
        (one && !self.broken.is(fault)).then(|| (kind, Some(id.into_owned())))
    }

    /// Whether a fault refuses all connections to the endpoint for this kind.
    fn refuses_all(&self, kind: ResourceKind, handshake: &Handshake) -> bool {
        handshake.query.iter().any(|(name, _)| name == "token")
            && match kind {
                ResourceKind::Task => self.broken.is("airavata-tasks-endpoint-refuses-all"),
                ResourceKind::Project => self.broken.is("airavata-projects-endpoint-refuses-all"),
                ResourceKind::User => self.broken.is("airavata-user-endpoint-refuses-all"),
                _ => false,
            }
    }

    /// Returns the user of an acceptable connection, otherwise the documented error text (lines 97 to 102).
    fn admit(&mut self, now: Duration, handshake: &Handshake) -> Result<Arc<str>, &'static str> {
        let late = handshake.query.first().is_some_and(|(name, _)| name != "token");
        let query =
            !(self.broken.is("airavata-query-token-ignored") || late && self.broken.is("airavata-token-not-first"));
        let header = !(self.broken.is("airavata-header-token-ignored")
            || has_small_scheme(handshake) && self.broken.is("airavata-scheme-case"));
        let user: Arc<str> = match token::request_token(handshake, query, header) {
            Some(token) => match self.user(now, &token, handshake) {
                Ok(_) if self.broken.is("airavata-valid-token-refused") => return Err(text::BAD_TOKEN),
                Ok(user) => user.into(),
                Err(TokenError::Forged) if self.broken.is("airavata-forged-token-accepted") => "anonymous".into(),
                Err(_) => {
                    if let Some(user) =
                        self.named_user(&token).filter(|_| self.broken.is("airavata-refusal-takes-place"))
                    {
                        *self.users.entry(user.into()).or_default() += 1;
                    }
                    return Err(text::BAD_TOKEN);
                }
            },
            None if self.broken.is("airavata-token-optional") => "anonymous".into(),
            None => return Err(text::NO_TOKEN),
        };
        if self.shut_by.take_if(|other| *other != user).is_some() {
            return Err(text::LIMIT);
        }
        let full = |count: usize, limit: usize, fault| count >= limit && !self.broken.is(fault);
        let (of_user, of_ip) = (self.users.get(&user), self.addresses.get(&handshake.peer));
        let mut of_user = of_user.copied().unwrap_or(0);
        if self.broken.is("airavata-user-limit-per-endpoint") {
            let here = handshake.path == "/ws/user";
            of_user = self.clients.values().filter(|client| client.user == user && client.at_user == here).count();
        }
        if of_user >= self.config.max_per_user && self.broken.is("airavata-refusal-makes-room") {
            decrement_count(&mut self.users, &user);
        }
        if full(of_user, self.config.max_per_user, "airavata-user-unlimited")
            || full(of_ip.copied().unwrap_or(0), self.config.max_per_ip, "airavata-ip-unlimited")
            || full(self.clients.len(), self.config.max_connections, "airavata-hub-unlimited")
        {
            return Err(text::LIMIT);
        }
        Ok(user)
    }

    /// As a fault: closes all connections of the user whom a refused token names.
    fn close_named(&mut self, handshake: &Handshake, out: &mut Vec<MachineOutput>) {
        let user = token::request_token(handshake, true, true).and_then(|token| self.named_user(&token));
        let theirs = self.clients.iter().filter(|(_, client)| Some(&*client.user) == user.as_deref());
        for conn in theirs.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.leave(conn);
            out.push(MachineOutput::Close { conn, code: REFUSED_CLOSE_CODE, reason: text::BAD_TOKEN.to_owned() });
        }
    }

    /// Returns the user whom a token names, whether it is valid or not.
    fn named_user(&self, token: &str) -> Option<String> {
        let (_, claims) = token::decode_token(token).ok()?;
        token::token_user(&claims, &self.config.user_claim).ok()
    }

    fn user(&mut self, now: Duration, token: &str, handshake: &Handshake) -> Result<String, TokenError> {
        let on_trust = self.broken.is("airavata-header-token-unchecked") && query_token(handshake).is_none();
        let claims = match token::verify(token, &self.key) {
            Err(_) if on_trust || self.broken.is("airavata-signature-unchecked") => match token::decode_token(token)? {
                (algorithm, _) if algorithm == "none" => return Err(TokenError::Forged),
                (_, claims) => claims,
            },
            verified => verified?,
        };
        if claims.contains_key("nbf") && self.broken.is("airavata-further-claims-refused") {
            return Err(TokenError::Forged);
        }
        if !on_trust && !self.broken.is("airavata-expiry-unchecked") && !self.known_tokens.contains(token) {
            token::check_time(&claims, self.clock.unix_ms(now))?;
        }
        if self.broken.is("airavata-known-token-outlives") {
            self.known_tokens.insert(token.to_owned());
        }
        token::token_user(&claims, &self.config.user_claim)
    }

    fn accept_client(
        &mut self,
        now: Duration,
        conn: ConnectionId,
        user: Arc<str>,
        peer: IpAddr,
        (kind, id): (ResourceKind, Option<String>),
        out: &mut Vec<MachineOutput>,
    ) {
        *self.users.entry(user.clone()).or_default() += 1;
        *self.addresses.entry(peer).or_default() += 1;
        if !self.broken.is("airavata-path-not-subscribed") {
            self.subscriptions.add(conn, ResourceTopic::new(kind, id.as_deref().unwrap_or(&user)));
        }
        let next_ping = now + self.config.ping_interval;
        if !self.config.ping_interval.is_zero() {
            self.pings.insert((next_ping, conn));
        }
        let at_user = kind == ResourceKind::User;
        self.clients.insert(
            conn,
            AiravataClient {
                user,
                peer,
                next_ping,
                window: (now, 0),
                at_user,
                asked: false,
                last_received: now,
                pinged: false,
            },
        );
        if self.broken.is("airavata-subscriptions-outlive") {
            self.inherit_subscriptions(conn);
        }
        if self.broken.is("airavata-server-hangs-up") {
            self.leave(conn);
            out.push(MachineOutput::Close { conn, code: 1000, reason: String::new() });
        }
    }

    /// As a fault: gives a connection the subscriptions of its user's last connection.
    fn inherit_subscriptions(&mut self, conn: ConnectionId) {
        let topics = self.clients.get(&conn).and_then(|client| self.left_behind.remove(&client.user));
        topics.into_iter().flatten().for_each(|topic| self.subscriptions.add(conn, topic));
    }

    fn leave(&mut self, conn: ConnectionId) {
        let Some(client) = self.clients.remove(&conn) else { return };
        if self.broken.is("airavata-subscriptions-outlive") {
            let topics = self.subscriptions.by_topic().map(|(topic, _)| topic.clone()).collect::<Vec<_>>();
            let held =
                topics.into_iter().filter(|topic| self.subscriptions.subscribers(topic).any(|other| other == conn));
            self.left_behind.insert(client.user.clone(), held.collect());
        }
        self.pings.remove(&(client.next_ping, conn));
        self.subscriptions.remove_connection(conn);
        decrement_count(&mut self.addresses, &client.peer);
        if !self.broken.is("airavata-slot-never-freed") {
            decrement_count(&mut self.users, &client.user);
        }
    }

    /// As a fault: closes all other connections of the user of a connection that ended.
    fn close_others_with(&mut self, conn: ConnectionId, out: &mut Vec<MachineOutput>) {
        for conn in self.others_of_user(conn) {
            self.leave(conn);
            out.push(MachineOutput::Close { conn, code: 1001, reason: "the user has left".to_owned() });
        }
    }

    /// As a fault: unsubscribes, from each resource of a connection that ended, the subscriber that connected next.
    fn unsubscribe_next(&mut self, conn: ConnectionId) {
        let held = self.subscriptions.by_topic().filter(|(_, conns)| conns.contains(&conn));
        let next = |(topic, conns): (&ResourceTopic, &BTreeSet<ConnectionId>)| {
            Some((topic.clone(), *conns.range(conn + 1..).next()?))
        };
        let next: Vec<_> = held.filter_map(next).collect();
        next.into_iter().for_each(|(topic, other)| self.subscriptions.remove(other, &topic));
    }

    /// Returns the other connections of a connection's user, the oldest first.
    fn others_of_user(&self, conn: ConnectionId) -> Vec<ConnectionId> {
        let Some(user) = self.clients.get(&conn).map(|client| &client.user) else { return Vec::new() };
        let same = |(other, client): (&ConnectionId, &AiravataClient)| {
            (*other != conn && client.user == *user).then_some(*other)
        };
        self.clients.iter().filter_map(same).collect()
    }

    /// Sends the pings that are due (line 697).
    fn send_due_pings(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        while let Some(&(due, conn)) = self.pings.first()
            && due <= now
        {
            self.pings.pop_first();
            // Pings that were missed because the hub was suspended are not sent later.
            let interval = self.config.ping_interval;
            let next = (due + interval).max(now + interval / 2);
            let silent = |client: &AiravataClient| now.saturating_sub(client.last_received) >= 2 * interval;
            if self.broken.is("airavata-silence-closes") && self.clients.get(&conn).is_some_and(silent) {
                self.leave(conn);
                out.push(MachineOutput::Close { conn, code: REFUSED_CLOSE_CODE, reason: "no pong".to_owned() });
                continue;
            }
            if self.broken.is("airavata-one-ping-until-pong")
                && self.clients.get(&conn).is_some_and(|client| client.pinged)
            {
                continue;
            }
            if let Some(client) = self.clients.get_mut(&conn) {
                client.pinged = true;
                client.next_ping = next;
                self.pings.insert((next, conn));
                self.ping(now, conn, out);
            }
        }
    }

    fn ping(&mut self, now: Duration, conn: ConnectionId, out: &mut Vec<MachineOutput>) {
        let id = self.message_id("ping");
        out.push(self.send_message(now, conn, "ping", &id, None, None));
    }
}

/// Returns the token in the query of a request.
fn query_token(handshake: &Handshake) -> Option<&str> {
    handshake.query.iter().find(|(name, _)| name == "token").map(|(_, token)| token.as_str())
}

/// Whether the scheme in the Authorization header is written in small letters.
fn has_small_scheme(handshake: &Handshake) -> bool {
    handshake.headers.iter().any(|(name, value)| name == "authorization" && value.starts_with('b'))
}

/// Whether the token in the query has no dot, so that it cannot be a token.
fn has_token_without_dot(handshake: &Handshake) -> bool {
    query_token(handshake).is_some_and(|token| !token.contains('.'))
}

/// Decrements a count and removes it at 0.
fn decrement_count<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// How messages from clients are handled.
impl Airavata {
    fn handle_text(&mut self, now: Duration, conn: ConnectionId, received: &str, out: &mut Vec<MachineOutput>) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.last_received = now;
            if self.broken.is("airavata-pings-only-when-idle") && self.pings.remove(&(client.next_ping, conn)) {
                client.next_ping = now + self.config.ping_interval;
                self.pings.insert((client.next_ping, conn));
            }
        }
        if self.exceeds_rate_limit(now, conn) {
            return self.send_error(now, conn, text::LIMIT, out);
        }
        match message::parse_request(received) {
            Ok(AiravataRequest::Ping) => {
                let mut id = self.message_id("pong");
                if self.broken.is("airavata-pong-repeats-id") {
                    let ping: Value = serde_json::from_str(received).unwrap_or_default();
                    id = ping["id"].as_str().map_or(id, str::to_owned);
                }
                out.push(self.send_message(now, conn, "pong", &id, None, None));
            }
            Ok(AiravataRequest::Pong) if self.broken.is("airavata-pong-unknown") => {
                self.send_error(now, conn, text::UNKNOWN, out)
            }
            Ok(AiravataRequest::Pong) => self.handle_pong(now, conn),
            Ok(AiravataRequest::Subscription { subscribe, resource, has_id }) => {
                self.handle_subscription(now, conn, subscribe, &resource, has_id, out);
            }
            Err(MessageError::Undecodable)
                if self.broken.is("airavata-array-ignored") && received.trim_start().starts_with('[') => {}
            Err(MessageError::Undecodable) if self.broken.is("airavata-null-unanswered") && received == "null" => {}
            Err(MessageError::Malformed) if self.broken.is("airavata-malformed-ignored") => {}
            Err(MessageError::Undecodable | MessageError::Malformed) => self.send_error(now, conn, text::FORMAT, out),
            Err(MessageError::UnknownType)
                if self.broken.is("airavata-constructor-unanswered") && received.contains(r#""constructor""#) => {}
            Err(MessageError::UnknownType) => {
                let count = self.unknowns.entry(conn).or_default();
                *count += 1;
                if *count == 5 && self.broken.is("airavata-errors-close-door") {
                    self.shut_by = self.clients.get(&conn).map(|client| client.user.clone());
                }
                self.send_error(now, conn, text::UNKNOWN, out);
            }
        }
    }

    /// Handles a pong. As a fault, schedules the next ping only now.
    fn handle_pong(&mut self, now: Duration, conn: ConnectionId) {
        let interval = self.config.ping_interval;
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.pinged = false;
        if self.broken.is("airavata-one-ping-until-pong") && !self.pings.contains(&(client.next_ping, conn)) {
            client.next_ping = now + interval;
            self.pings.insert((client.next_ping, conn));
        }
    }

    /// Counts a message and returns whether it exceeds the rate limit.
    fn exceeds_rate_limit(&mut self, now: Duration, conn: ConnectionId) -> bool {
        let limit = self.config.rate_limit;
        let Some(client) = self.clients.get_mut(&conn).filter(|_| limit > 0) else { return false };
        let (begin, count) = &mut client.window;
        if now >= *begin + self.config.rate_window {
            (*begin, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count > limit && !self.broken.is("airavata-rate-unlimited")
    }

    /// Handles `subscribe` and `unsubscribe` (lines 515 to 558).
    fn handle_subscription(
        &mut self,
        now: Duration,
        conn: ConnectionId,
        subscribe: bool,
        resource: &RequestedResource,
        has_id: bool,
        out: &mut Vec<MachineOutput>,
    ) {
        if subscribe && self.broken.is("airavata-subscribe-ignored") {
            return;
        }
        let picky = if has_id { "airavata-message-id-refused" } else { "airavata-message-id-demanded" };
        let unknown = resource.kind.is_some_and(|kind| self.refuses_kind(kind));
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let user = client.user.clone();
        let topic = match (resource.kind, resource.id.as_deref().unwrap_or("")) {
            (None, _) if self.broken.is("airavata-any-resource-type") => None,
            (Some(ResourceKind::User), "" | "me") => Some(ResourceTopic::new(ResourceKind::User, &user)),
            (Some(kind), id) if !id.is_empty() || kind == ResourceKind::System => Some(ResourceTopic::new(kind, id)),
            _ => return self.send_error(now, conn, text::FORMAT, out),
        };
        if unknown || self.broken.is(picky) {
            return self.send_error(now, conn, text::FORMAT, out);
        }
        client.asked |= subscribe;
        let of_topic = topic.clone();
        if subscribe && self.subscriptions.count(conn) >= 64 && self.broken.is("airavata-65th-subscription-unanswered")
        {
            return;
        }
        let is_full = self.broken.is("airavata-subscriptions-at-most-64") && self.subscriptions.count(conn) >= 64;
        if let Some(topic) = topic {
            if !subscribe {
                if self.broken.is("airavata-resubscribe-without-effect") {
                    self.parted.insert((conn, topic.clone()));
                }
                if self.broken.is("airavata-unsubscribe-one-late") {
                    self.lingering.insert(topic.clone(), conn);
                }
                if !self.broken.is("airavata-unsubscribe-forgotten") && !self.twice.remove(&(conn, topic.clone())) {
                    self.subscriptions.remove(conn, &topic);
                }
                if self.broken.is("airavata-unsubscribe-ends-all") {
                    let others: Vec<ConnectionId> = self.subscriptions.subscribers(&topic).collect();
                    others.into_iter().for_each(|other| self.subscriptions.remove(other, &topic));
                }
                if self.broken.is("airavata-unsubscribe-crosses-types") {
                    for (_, kind) in RESOURCE_KINDS {
                        self.subscriptions.remove(conn, &ResourceTopic::new(*kind, &topic.id));
                    }
                }
            } else if self.subscriptions.count(conn) >= self.config.max_subscriptions
                && self.subscriptions.subscribers(&topic).all(|other| other != conn)
            {
                return self.send_error(now, conn, text::LIMIT, out);
            } else if !self.broken.is("airavata-subscribe-without-effect")
                && !is_full
                && !self.parted.contains(&(conn, topic.clone()))
            {
                if self.broken.is("airavata-subscriptions-counted")
                    && self.subscriptions.subscribers(&topic).any(|other| other == conn)
                {
                    self.twice.insert((conn, topic.clone()));
                }
                self.subscriptions.add(conn, topic);
            }
        }
        let echoed = match (resource.kind, resource.id.as_deref()) {
            (_, Some(id)) => id,
            (Some(ResourceKind::User), None) => &user,
            (_, None) => "",
        };
        let data = json!({
            "action": if subscribe { "subscribed" } else { "unsubscribed" },
            "resourceType": resource.kind_name,
            "resourceId": if self.broken.is("airavata-response-lower-case") { echoed.to_lowercase() } else { echoed.to_owned() },
            "status": "success",
        });
        let id = self.message_id("sub-response");
        for conn in self.response_recipients(conn, of_topic.filter(|_| subscribe).as_ref()) {
            out.push(self.send_message(now, conn, "system_status", &id, Some(&data), None));
        }
    }

    /// Returns the connections that get the answer to a subscription.
    fn response_recipients(&self, conn: ConnectionId, topic: Option<&ResourceTopic>) -> Vec<ConnectionId> {
        if self.broken.is("airavata-response-to-subscribers") {
            let others = topic.into_iter().flat_map(|topic| self.subscriptions.subscribers(topic));
            return others.filter(|other| *other != conn).chain([conn]).collect();
        }
        if self.broken.is("airavata-response-to-newest") {
            return vec![self.others_of_user(conn).into_iter().fold(conn, ConnectionId::max)];
        }
        if self.broken.is("airavata-response-to-all-of-user") {
            return [vec![conn], self.others_of_user(conn)].concat();
        }
        vec![conn]
    }

    /// Whether a fault refuses subscriptions of this kind.
    fn refuses_kind(&self, kind: ResourceKind) -> bool {
        match kind {
            ResourceKind::Experiment => self.broken.is("airavata-experiment-subscription-refused"),
            ResourceKind::Task => self.broken.is("airavata-task-subscription-refused"),
            ResourceKind::Project => self.broken.is("airavata-project-subscription-refused"),
            ResourceKind::User => self.broken.is("airavata-user-subscription-refused"),
            ResourceKind::System => self.broken.is("airavata-system-subscription-refused"),
            ResourceKind::Worker => self.broken.is("airavata-worker-subscription-refused"),
        }
    }

    fn send_error(&mut self, now: Duration, conn: ConnectionId, text: &'static str, out: &mut Vec<MachineOutput>) {
        let mut to = vec![conn];
        if self.broken.is("airavata-error-to-all-of-user") {
            to.extend(self.others_of_user(conn));
        }
        for conn in to {
            let id = self.message_id("error");
            out.push(self.send_message(now, conn, "error", &id, None, Some(text)));
        }
    }
}

/// How messages from the hub are made and sent.
impl Airavata {
    /// Returns the timestamp for a message, which is never earlier than that of the previous event.
    fn message_timestamp(&mut self, now: Duration) -> u64 {
        self.stamp = self.stamp.max(self.clock.unix_ms(now));
        self.stamp
    }

    /// Makes an id for a message that is not an event; the document leaves its form open.
    fn message_id(&mut self, kind: &str) -> String {
        self.ids += 1;
        format!("{kind}-{}", self.ids)
    }

    fn send_message(
        &mut self,
        now: Duration,
        conn: ConnectionId,
        kind: &str,
        id: &str,
        data: Option<&Value>,
        error: Option<&str>,
    ) -> MachineOutput {
        let timestamp = clock::format_iso(self.message_timestamp(now));
        MachineOutput::Text {
            conn,
            text: AiravataMessage { r#type: kind, id, timestamp: &timestamp, data, error }.serialize(),
        }
    }

    /// Sends an event to its recipients, one copy each, and returns the answer for the admin side.
    fn publish_event(&mut self, now: Duration, event: &AiravataEvent<'_>, out: &mut Vec<MachineOutput>) -> Value {
        // No two events share a millisecond, so that ids are unique (line 138).
        let least = self.stamp + u64::from(!self.broken.is("airavata-burst-ids-shared"));
        self.stamp = self.clock.unix_ms(now).max(least);
        self.events += 1;
        let burst = self.bursts.add(now, event);
        let in_id = if self.broken.is("airavata-event-ids-repeat") {
            self.clock.unix_ms(Duration::ZERO)
        } else if self.broken.is("airavata-event-ids-count") {
            self.events
        } else {
            self.stamp
        };
        let mut id = format!("{}_{in_id}", event.id_prefix());
        if event.kind == ResourceKind::Task && self.broken.is("airavata-burst-ids-of-first") {
            id = format!("task_{}_{in_id}", burst.first_id);
        }
        if self.has_faulty_id_format(event.kind) {
            id = id.replace('_', ".");
        }
        let time = if self.broken.is("airavata-event-times-fall") {
            self.clock.unix_ms(Duration::ZERO).saturating_sub(self.events * 1000)
        } else {
            self.stamp
        };
        let timestamp = clock::format_iso(time);
        let data = self.faulty_data(event, &burst);
        let message =
            AiravataMessage { r#type: event.name, id: &id, timestamp: &timestamp, data: Some(&data), error: None };
        let text = message.serialize();
        let mut recipients = self.recipients(event);
        let progress = (event.name == "experiment_progress").then(|| event.id.to_owned());
        if progress.is_some() && progress == self.progressed && self.broken.is("airavata-progress-throttled") {
            recipients.clear();
        }
        self.progressed = progress;
        if self.overflows(event.kind, burst.size) {
            recipients.clear();
        }
        out.extend(recipients.iter().map(|&conn| MachineOutput::Text { conn, text: text.clone() }));
        json!({ "id": id, "timestamp": timestamp, "recipients": recipients.len() })
    }

    /// Whether a fault loses the latest event of a burst of this size.
    fn overflows(&self, kind: ResourceKind, size: usize) -> bool {
        match kind {
            ResourceKind::Experiment => size > 64 && self.broken.is("airavata-burst-experiments-overflow"),
            ResourceKind::Task => size > 32 && self.broken.is("airavata-burst-tasks-overflow"),
            _ => false,
        }
    }

    /// Returns the data of an event, as changed by a fault.
    fn faulty_data<'a>(&self, event: &AiravataEvent<'a>, burst: &EventBurst) -> Cow<'a, Value> {
        if burst.size == 10 && event.kind == ResourceKind::Worker && self.broken.is("airavata-burst-workers-confused") {
            return Cow::Owned(burst.previous_data.clone());
        }
        if burst.size == 10 && event.kind == ResourceKind::Task && self.broken.is("airavata-burst-tasks-confused") {
            let mut data = event.data.clone();
            for place in ["/task/workerId", "/summary/workerId"] {
                if let (Some(worker), Some(previous)) = (data.pointer_mut(place), burst.previous_data.pointer(place)) {
                    worker.clone_from(previous);
                }
            }
            return Cow::Owned(data);
        }
        let faults = ["airavata-percent-whole", "airavata-zeros-left-out", "airavata-name-without-emoji"];
        if !faults.iter().any(|fault| self.broken.is(fault)) {
            return Cow::Borrowed(event.data);
        }
        let mut data = event.data.clone();
        if let Some(percent) = data.get("progressPercent").and_then(Value::as_f64)
            && self.broken.is("airavata-percent-whole")
        {
            data["progressPercent"] = json!(percent.round());
        }
        if let Some(members) = data.as_object_mut().filter(|_| self.broken.is("airavata-zeros-left-out")) {
            members.retain(|_, value| value.as_f64() != Some(0.0));
        }
        if self.broken.is("airavata-name-without-emoji") {
            let plain = |c: char| if c > '\u{ffff}' { '?' } else { c };
            for place in ["/experiment/name", "/summary/name"] {
                if let Some(Value::String(name)) = data.pointer_mut(place) {
                    *name = name.chars().map(plain).collect();
                }
            }
        }
        Cow::Owned(data)
    }

    fn has_faulty_id_format(&self, kind: ResourceKind) -> bool {
        match kind {
            ResourceKind::Experiment => self.broken.is("airavata-experiment-id-format"),
            ResourceKind::Task => self.broken.is("airavata-task-id-format"),
            ResourceKind::Worker => self.broken.is("airavata-worker-id-format"),
            _ => self.broken.is("airavata-system-id-format"),
        }
    }

    /// Returns the recipients of an event (lines 577 to 590).
    fn recipients(&mut self, event: &AiravataEvent<'_>) -> BTreeSet<ConnectionId> {
        if event.kind == ResourceKind::System {
            return self.all_clients();
        }
        if self.broken.is("airavata-events-broadcast") {
            return self.clients.keys().copied().collect();
        }
        let mut topics = event.topics();
        let experiment = if event.kind == ResourceKind::Experiment { Some(event.id) } else { event.experiment };
        if let Some(experiment) = experiment.filter(|_| self.broken.is("airavata-project-stale")) {
            let home = self.homes.entry(experiment.to_owned()).or_insert_with(|| event.project.map(str::to_owned));
            topics.retain(|topic| topic.kind != ResourceKind::Project || Some(&*topic.id) == home.as_deref());
        }
        let is_around = |topic: &ResourceTopic| matches!(topic.kind, ResourceKind::Project | ResourceKind::User);
        match event.kind {
            ResourceKind::Experiment => self.latest = topics.iter().filter(|topic| is_around(topic)).cloned().collect(),
            ResourceKind::Task if self.broken.is("airavata-tasks-of-latest-experiment") => {
                topics.retain(|topic| !is_around(topic));
                topics.extend(self.latest.iter().cloned());
            }
            _ => {}
        }
        topics.retain(|topic| !self.has_faulty_route(event.kind, topic.kind));
        match event.kind {
            ResourceKind::Worker if self.broken.is("airavata-worker-events-reach-experiments") => {
                topics.extend(event.experiment.map(|id| ResourceTopic::new(ResourceKind::Experiment, id)));
            }
            ResourceKind::Worker if self.broken.is("airavata-worker-events-reach-tasks") => {
                topics.extend(self.topics_of_kinds(&[ResourceKind::Task]));
            }
            ResourceKind::Worker if self.broken.is("airavata-worker-events-reach-projects") => {
                topics.extend(event.project.map(|id| ResourceTopic::new(ResourceKind::Project, id)));
            }
            ResourceKind::Worker if self.broken.is("airavata-worker-events-reach-users") => {
                topics.extend(event.user.map(|id| ResourceTopic::new(ResourceKind::User, id)));
            }
            ResourceKind::Experiment | ResourceKind::Task
                if self.broken.is("airavata-system-subscribers-hear-everything") =>
            {
                topics.extend(self.topics_of_kinds(&[ResourceKind::System]));
            }
            ResourceKind::Experiment if self.broken.is("airavata-experiment-events-reach-tasks") => {
                topics.extend(self.topics_of_kinds(&[ResourceKind::Task, ResourceKind::Worker]));
            }
            _ => {}
        }
        if let Some(match_ids) = self.faulty_match() {
            let fits =
                |topic: &ResourceTopic| topics.iter().any(|of| of.kind == topic.kind && match_ids(&of.id, &topic.id));
            let alike: Vec<ResourceTopic> =
                self.subscriptions.by_topic().map(|(topic, _)| topic.clone()).filter(fits).collect();
            topics.extend(alike);
        }
        let mut conns: BTreeSet<ConnectionId> =
            topics.iter().flat_map(|topic| self.subscriptions.subscribers(topic)).collect();
        if event.kind != ResourceKind::Worker && self.broken.is("airavata-user-endpoint-hears-all-users") {
            conns.extend(self.clients.iter().filter(|(_, client)| client.at_user).map(|(conn, _)| *conn));
        }
        if self.broken.is("airavata-idle-hear-everything") {
            conns.extend(self.clients.iter().filter(|(_, client)| !client.asked).map(|(conn, _)| *conn));
        }
        if self.broken.is("airavata-double-subscriber-skipped") {
            let fitting =
                |conn| topics.iter().filter(|topic| self.subscriptions.subscribers(topic).any(|c| c == conn)).count();
            conns.retain(|conn| fitting(*conn) < 2);
        }
        conns.extend(topics.iter().filter_map(|topic| self.lingering.remove(topic)));
        if self.broken.is("airavata-first-subscriber-only") {
            conns = conns.into_iter().take(1).collect();
        }
        if self.broken.is("airavata-eleventh-subscriber-skipped") {
            conns = conns.into_iter().take(10).collect();
        }
        conns
    }

    /// Returns how a fault compares the id of an event with that of a subscription.
    fn faulty_match(&self) -> Option<fn(&str, &str) -> bool> {
        if self.broken.is("airavata-ids-match-by-prefix") {
            Some(|id, wanted| id.starts_with(wanted))
        } else if self.broken.is("airavata-ids-match-by-32") {
            Some(|id, wanted| id.chars().take(32).eq(wanted.chars().take(32)))
        } else if self.broken.is("airavata-ids-match-any-case") {
            Some(|id, wanted| id.to_lowercase() == wanted.to_lowercase())
        } else if self.broken.is("airavata-ids-match-any-form") {
            Some(|id, wanted| id.replace('\u{e9}', "e\u{301}") == wanted.replace('\u{e9}', "e\u{301}"))
        } else {
            None
        }
    }

    /// Returns all clients (line 582), subscribed or not.
    fn all_clients(&self) -> BTreeSet<ConnectionId> {
        if self.broken.is("airavata-system-events-to-system-only") {
            return self.subscriptions.subscribers(&ResourceTopic::new(ResourceKind::System, "")).collect();
        }
        let asked_only = self.broken.is("airavata-system-events-to-subscribers-only");
        self.clients.iter().filter(|(_, client)| client.asked || !asked_only).map(|(conn, _)| *conn).collect()
    }

    fn topics_of_kinds(&self, kinds: &[ResourceKind]) -> Vec<ResourceTopic> {
        self.subscriptions
            .by_topic()
            .map(|(topic, _)| topic.clone())
            .filter(|topic| kinds.contains(&topic.kind))
            .collect()
    }

    /// Whether a fault withholds events of this kind from the subscribers of this kind of topic.
    fn has_faulty_route(&self, event: ResourceKind, topic: ResourceKind) -> bool {
        const MISSED: &[(ResourceKind, ResourceKind, &str)] = &[
            (ResourceKind::Experiment, ResourceKind::Experiment, "airavata-experiment-events-miss-experiment"),
            (ResourceKind::Experiment, ResourceKind::Project, "airavata-experiment-events-miss-project"),
            (ResourceKind::Experiment, ResourceKind::User, "airavata-experiment-events-miss-user"),
            (ResourceKind::Task, ResourceKind::Task, "airavata-task-events-miss-task"),
            (ResourceKind::Task, ResourceKind::Experiment, "airavata-task-events-miss-experiment"),
            (ResourceKind::Task, ResourceKind::Project, "airavata-task-events-miss-project"),
            (ResourceKind::Task, ResourceKind::User, "airavata-task-events-miss-user"),
            (ResourceKind::Worker, ResourceKind::System, "airavata-worker-events-miss-system"),
            (ResourceKind::Worker, ResourceKind::Worker, "airavata-worker-events-miss-worker"),
        ];
        MISSED.iter().any(|(from, to, fault)| (*from, *to) == (event, topic) && self.broken.is(fault))
    }
}
