//! ert-concierge (document 002): clients with names, groups with owners, messages between them.
//!
//! Where the document is silent or contradicts itself, this hub does the following. The payload counter starts with
//! IDENTIFY as 0. Before identification an undecodable payload closes with 4002, any other with 4003; afterwards both
//! are answered and the connection stays open. IDENTIFY is checked by secret, then version, then name. A sender gets
//! its own group message if it is subscribed, but never its own message to ALL. Creating a group does not subscribe to
//! it. A deleted group has no subscribers left, so its last descriptions list none. Refusals without their own code are
//! `BAD`.

mod payload;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use semver::{Version, VersionReq};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use self::payload::{
    ClientView, ConciergeReply, ConciergeRequest, ConciergeStatus, GroupView, Identify, MessageOrigin, MessageTarget,
    PayloadError, RelayedOrigin,
};
use crate::fault::MachineFault;
use crate::machine::ids::UuidStream;
use crate::machine::settings::{Settings, SettingsError};
use crate::machine::{ConnectionId, Machine, MachineInput, MachineOutput, Utf8Bytes};

pub const PROTOCOL: &str = "concierge";
/// The subprotocol that clients should ask for (line 22).
const SUBPROTOCOL: &str = "ert-concierge";

/// For a fault: a length in bytes that no text that is not JSON has in any scenario.
const LONG_GARBAGE_BYTES: usize = 24;
/// For a fault: a relayed message of more bytes is large.
const LARGE_MESSAGE_BYTES: usize = 64 * 1024;
/// For faults: a uuid that no client has.
const UNUSED_UUID: &str = "00000000-0000-4000-8000-000000000000";

/// Close codes of a failed identification (lines 27 to 33). 4001 does not exist; 4000 is an internal
/// error, which only a fault sends.
mod close {
    pub const UNKNOWN: u16 = 4000;
    pub const FATAL_DECODE: u16 = 4002;
    pub const NO_AUTH: u16 = 4003;
    pub const AUTH_FAILED: u16 = 4004;
    pub const DUPLICATE_AUTH: u16 = 4005;
    pub const BAD_SECRET: u16 = 4006;
    pub const BAD_VERSION: u16 = 4007;
}

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConciergeConfig {
    /// The secret that clients must send; without one, any secret is ignored.
    #[serde(deserialize_with = "crate::machine::settings::secret")]
    secret: Option<String>,
    /// The hub's version; clients must be caret-compatible with it.
    #[serde(deserialize_with = "crate::machine::settings::version")]
    version: Version,
    /// How long a connection may take to identify.
    #[serde(rename = "identify_timeout_ms", deserialize_with = "crate::machine::settings::millis")]
    identify_timeout: Duration,
    /// The largest number of groups; beyond it, GROUP_CREATE is answered with BAD.
    max_groups: usize,
    /// Makes the ids reproducible.
    seed: Option<u64>,
}

impl Default for ConciergeConfig {
    fn default() -> ConciergeConfig {
        ConciergeConfig {
            secret: None,
            version: Version::new(0, 1, 0),
            identify_timeout: Duration::from_secs(5),
            max_groups: 10_000,
            seed: None,
        }
    }
}

pub fn build(settings: &Settings, broken: MachineFault) -> Result<Box<dyn Machine>, SettingsError> {
    let config: ConciergeConfig = settings.deserialize(PROTOCOL)?;
    Ok(Box::new(Concierge {
        // `^` and a version is always a valid requirement.
        compatible: VersionReq::parse(&format!("^{}", config.version))
            .map_err(|error| SettingsError::Invalid { protocol: PROTOCOL, reason: error.to_string() })?,
        version: config.version.to_string(),
        ids: UuidStream::new(config.seed),
        config,
        broken,
        waiting: BTreeMap::new(),
        timers: BTreeSet::new(),
        clients: BTreeMap::new(),
        names: HashMap::new(),
        uuids: HashMap::new(),
        groups: BTreeMap::new(),
        total: 0,
        created: 0,
        owners_left: 0,
        leftovers: BTreeMap::new(),
        left: BTreeMap::new(),
        twice: BTreeSet::new(),
        listed: None,
        refused: BTreeSet::new(),
        identified: 0,
    }))
}

struct Concierge {
    config: ConciergeConfig,
    version: String,
    compatible: VersionReq,
    ids: UuidStream,
    broken: MachineFault,
    /// Connections that have not identified.
    waiting: BTreeMap<ConnectionId, UnidentifiedConnection>,
    /// The deadlines for identification.
    timers: BTreeSet<(Duration, ConnectionId)>,
    clients: BTreeMap<ConnectionId, ConciergeClient>,
    names: HashMap<Arc<str>, ConnectionId>,
    uuids: HashMap<Arc<str>, ConnectionId>,
    groups: BTreeMap<Arc<str>, ClientGroup>,
    /// For a fault: the number of text payloads of all connections.
    total: u64,
    /// For a fault: the number of text payloads (`total`) when the last group was created.
    created: u64,
    /// For a fault: the number of group owners that have left.
    owners_left: u64,
    /// For faults: deleted groups and clients that left.
    leftovers: BTreeMap<Arc<str>, DepartedEntity>,
    /// For faults: names and subscriptions of clients that left, by their uuid.
    left: BTreeMap<Arc<str>, FormerClient>,
    /// For a fault: repeated subscriptions.
    twice: BTreeSet<(ConnectionId, Arc<str>)>,
    /// For a fault: the first list of groups that was fetched.
    listed: Option<Value>,
    /// For faults: names that were refused once.
    refused: BTreeSet<String>,
    /// For faults: the number of clients that have identified.
    identified: u64,
}

struct UnidentifiedConnection {
    received: u64,
    until: Duration,
    /// For a fault: the number of clients that had identified when this client connected.
    after: u64,
}

struct ConciergeClient {
    conn: ConnectionId,
    uuid: Arc<str>,
    name: Arc<str>,
    nickname: Option<String>,
    tags: Vec<String>,
    received: u64,
    /// For a fault: the client's number in the order of identification.
    number: u64,
    /// For a fault: the number of SELF_FETCH payloads in a row.
    self_fetches: u32,
    /// For a fault: the seq of the first of the MESSAGE payloads in a row.
    messages_from: Option<u64>,
    /// For a fault: the number of GROUP_CREATE payloads in a row.
    creations: u32,
    subscriptions: BTreeSet<Arc<str>>,
    owned: BTreeSet<Arc<str>>,
}

struct ClientGroup {
    name: Arc<str>,
    nickname: Option<String>,
    owner: ConnectionId,
    owner_uuid: Arc<str>,
    subscribers: BTreeMap<ConnectionId, Arc<str>>,
}

/// For faults: a client that left.
struct FormerClient {
    name: Arc<str>,
    subscriptions: BTreeSet<Arc<str>>,
}

enum DepartedEntity {
    Group(ClientGroup),
    Client(ConciergeClient),
}

impl ConciergeClient {
    fn view(&self) -> ClientView<'_> {
        ClientView {
            name: &self.name,
            nickname: self.nickname.as_deref(),
            uuid: &self.uuid,
            tags: self.tags.iter().map(String::as_str).collect(),
        }
    }
}

impl ClientGroup {
    fn view(&self) -> GroupView<'_> {
        GroupView {
            name: &self.name,
            nickname: self.nickname.as_deref(),
            owner_uuid: &self.owner_uuid,
            subscribers: self.subscribers.values().map(|uuid| &**uuid).collect(),
        }
    }
}

impl Machine for Concierge {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        self.expire(now, out);
        match input {
            MachineInput::Open { conn, handshake } => {
                let offered = handshake.subprotocols.iter().any(|offer| offer == SUBPROTOCOL);
                if !offered && self.broken.is("concierge-bare-upgrade-refused") {
                    return out.push(MachineOutput::Refuse { conn, status: 400, body: String::new() });
                }
                let subprotocol = match handshake.subprotocols.first() {
                    Some(first) if self.broken.is("concierge-first-subprotocol-selected") => Some(first.clone()),
                    _ => offered.then(|| SUBPROTOCOL.to_owned()),
                };
                out.push(MachineOutput::Accept { conn, subprotocol });
                let until = now + self.identify_timeout();
                self.waiting.insert(conn, UnidentifiedConnection { received: 0, until, after: self.identified });
                self.timers.insert((until, conn));
            }
            MachineInput::Text { conn, text } => self.handle_text(conn, &text, out),
            // Only text payloads are counted and interpreted (line 17).
            MachineInput::Binary { conn, .. } => {
                if self.broken.is("concierge-seq-counts-binary") {
                    self.count_payload(conn);
                }
                if self.broken.is("concierge-binary-closes") {
                    self.stop_waiting(conn);
                    out.push(close_output(conn, 1003, "text only"));
                    self.leave(conn, out);
                }
            }
            MachineInput::Ping { conn } => {
                if self.broken.is("concierge-seq-counts-pings") {
                    self.count_payload(conn);
                }
                let timeout = self.identify_timeout();
                if self.broken.is("concierge-ping-restarts-timer")
                    && let Some(waiting) = self.waiting.get_mut(&conn)
                {
                    self.timers.remove(&(waiting.until, conn));
                    waiting.until = now + timeout;
                    self.timers.insert((waiting.until, conn));
                }
            }
            MachineInput::Closed { conn } => {
                self.stop_waiting(conn);
                self.leave(conn, out);
            }
            MachineInput::Tick | MachineInput::Connected { .. } | MachineInput::ConnectFailed { .. } => {}
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(until, _)| *until)
    }

    fn state(&self) -> Value {
        json!({
            "version": self.version,
            "secret_required": self.config.secret.is_some(),
            "unidentified": self.waiting.len(),
            "clients": self.clients.values().map(|client| {
                let mut view = json!(client.view());
                view["received"] = json!(client.received);
                view["subscriptions"] = json!(client.subscriptions.iter().map(|name| &**name).collect::<Vec<_>>());
                view
            }).collect::<Vec<_>>(),
            "groups": self.groups.values().map(|group| json!(group.view())).collect::<Vec<_>>(),
        })
    }
}

/// Faults that only malformed payloads trigger.
impl Concierge {
    fn clear_other_subscriptions(&mut self, conn: ConnectionId) {
        for group in self.groups.values_mut() {
            group.subscribers.retain(|subscriber, _| *subscriber == conn);
        }
        for client in self.clients.values_mut().filter(|client| client.conn != conn) {
            client.subscriptions.clear();
        }
    }

    /// Creates the group of a refused GROUP_CREATE.
    fn create_half_group(&mut self, conn: ConnectionId, text: &str) {
        let Ok(payload) = serde_json::from_str::<Value>(text) else { return };
        if payload["type"] != "GROUP_CREATE" {
            return;
        }
        let name: Arc<str> = payload["name"].as_str().map_or_else(|| payload["name"].to_string(), str::to_owned).into();
        if self.groups.contains_key(&name) {
            return;
        }
        let Some(owner) = self.clients.get_mut(&conn) else { return };
        owner.owned.insert(name.clone());
        let owner_uuid = owner.uuid.clone();
        let group =
            ClientGroup { name: name.clone(), nickname: None, owner: conn, owner_uuid, subscribers: BTreeMap::new() };
        self.groups.insert(name, group);
    }
}

/// How connections are opened and closed.
impl Concierge {
    fn identify_timeout(&self) -> Duration {
        match self.config.identify_timeout {
            timeout if self.broken.is("concierge-timeout-early") => timeout * 2 / 5,
            timeout if self.broken.is("concierge-timeout-late") => timeout * 3,
            timeout => timeout,
        }
    }

    /// Closes connections that have not identified in time (lines 24 and 30).
    fn expire(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        while let Some(&(until, conn)) = self.timers.first()
            && until <= now
        {
            self.timers.pop_first();
            let waited = self.waiting.contains_key(&conn);
            if waited && self.broken.is("concierge-timeout-never") {
                continue;
            }
            self.waiting.remove(&conn);
            out.push(close_output(conn, close::AUTH_FAILED, "not identified in time"));
            self.leave(conn, out);
        }
    }

    fn stop_waiting(&mut self, conn: ConnectionId) {
        if let Some(waiting) = self.waiting.remove(&conn) {
            self.timers.remove(&(waiting.until, conn));
        }
    }

    fn reject(&mut self, conn: ConnectionId, code: u16, reason: &str, out: &mut Vec<MachineOutput>) {
        self.stop_waiting(conn);
        out.push(close_output(conn, code, reason));
    }

    /// Counts a text payload and returns its number on its connection, from 0 (line 17).
    fn count_payload(&mut self, conn: ConnectionId) -> Option<u64> {
        let received = match (self.clients.get_mut(&conn), self.waiting.get_mut(&conn)) {
            (Some(client), _) => &mut client.received,
            (None, Some(waiting)) => &mut waiting.received,
            (None, None) => return None,
        };
        let seq = *received;
        *received += if self.broken.is("concierge-seq-steps-two") { 2 } else { 1 };
        self.total += 1;
        if self.broken.is("concierge-seq-global") {
            return Some(self.total - 1);
        }
        if self.broken.is("concierge-seq-stuck") {
            return Some(1);
        }
        if self.broken.is("concierge-seq-one-byte") {
            return Some(seq & 0xff);
        }
        Some(if self.broken.is("concierge-seq-skips-identify") { seq.saturating_sub(1) } else { seq })
    }

    fn handle_text(&mut self, conn: ConnectionId, text: &str, out: &mut Vec<MachineOutput>) {
        let mut request = payload::parse_payload(text);
        if text.trim() != text && self.broken.is("concierge-outer-blanks-refused") {
            request = Err(PayloadError::Undecodable("white space around the payload".to_owned()));
        }
        if text.contains("\\u") && self.broken.is("concierge-escapes-refused") {
            request = Err(PayloadError::UnknownType("escapes are not understood".to_owned()));
        }
        let uncounted = request.is_err() && self.broken.is("concierge-seq-skips-malformed");
        let counted = match self.clients.get(&conn) {
            Some(client) if uncounted => Some(client.received),
            _ => self.count_payload(conn),
        };
        let Some(seq) = counted else { return };
        if matches!(request, Err(PayloadError::Undecodable(_)))
            && text.len() > LONG_GARBAGE_BYTES
            && self.broken.is("concierge-fuzz-subscriptions-lost")
        {
            self.clear_other_subscriptions(conn);
        }
        if matches!(request, Err(PayloadError::Malformed { .. })) && self.broken.is("concierge-fuzz-half-group") {
            self.create_half_group(conn, text);
        }
        if self.clients.contains_key(&conn) {
            self.answer_request(conn, seq, text, request, out);
        } else {
            self.handle_first_payload(conn, request, out);
        }
    }

    /// Handles the first payload of a connection, which is closed unless it is IDENTIFY (lines 24 to 33).
    fn handle_first_payload(
        &mut self,
        conn: ConnectionId,
        request: Result<ConciergeRequest<'_>, PayloadError>,
        out: &mut Vec<MachineOutput>,
    ) {
        match request {
            Ok(ConciergeRequest::Identify(identify)) => self.identify(conn, identify, out),
            Err(PayloadError::Malformed { identify: true, .. })
                if self.broken.is("concierge-identify-half-accepted") =>
            {
                let name = format!("client{conn}");
                let version = self.version.clone();
                let identify = Identify { name, version, secret: None, tags: Vec::new(), nickname: None };
                self.identify(conn, identify, out);
            }
            Err(
                PayloadError::Undecodable(reason)
                | PayloadError::UnknownType(reason)
                | PayloadError::Malformed { identify: true, reason },
            ) => self.reject(conn, close::FATAL_DECODE, &reason, out),
            _ if self.broken.is("concierge-unidentified-ignored") => {}
            Err(PayloadError::HubOnly) if self.broken.is("concierge-early-hello-answered") => {
                send_status(conn, 0, ConciergeStatus::Unsuported, out);
            }
            Ok(ConciergeRequest::GroupFetchAll) if self.broken.is("concierge-unidentified-served") => {
                let groups = self.groups.values().map(ClientGroup::view).collect();
                out.push(text_output(conn, &ConciergeReply::GroupFetchAllResult { groups, seq: 0 }));
            }
            _ => self.reject(conn, close::NO_AUTH, "identify first", out),
        }
    }

    fn identify(&mut self, conn: ConnectionId, identify: Identify, out: &mut Vec<MachineOutput>) {
        if !self.is_secret_accepted(identify.secret.as_deref()) {
            return self.reject(conn, close::BAD_SECRET, "the secret is wrong", out);
        }
        if !self.is_version_accepted(&identify.version) {
            let reason = format!("this hub is version {} and takes clients compatible with it", self.version);
            return self.reject(conn, close::BAD_VERSION, &reason, out);
        }
        let unseen = self.broken.is("concierge-name-looked-up-early");
        let after = self.waiting.get(&conn).map_or(0, |waiting| waiting.after);
        if let Some(&holder) = self.names.get(identify.name.as_str())
            && !(unseen && self.clients.get(&holder).is_some_and(|holder| holder.number >= after))
            && (!self.broken.is("concierge-name-given-at-second-attempt") || self.refused.insert(identify.name.clone()))
        {
            if self.broken.is("concierge-conflict-kicks-holder") {
                out.push(close_output(holder, close::DUPLICATE_AUTH, "another client takes this name"));
                self.leave(holder, out);
            } else if !self.broken.is("concierge-duplicate-name-accepted") {
                if self.broken.is("concierge-contested-name-not-freed") {
                    self.refused.insert(identify.name.clone());
                }
                self.reject(conn, close::DUPLICATE_AUTH, "the name is taken", out);
                if self.broken.is("concierge-conflict-closes-both") {
                    out.push(close_output(holder, close::DUPLICATE_AUTH, "another client wants this name"));
                    self.leave(holder, out);
                }
                return;
            }
        }
        if self.broken.is("concierge-similar-name-taken")
            && self.names.keys().any(|name| **name != *identify.name && is_similar(name, &identify.name))
        {
            return self.reject(conn, close::DUPLICATE_AUTH, "the name is taken", out);
        }
        let received = self.waiting.get(&conn).map_or(0, |waiting| waiting.received);
        if self.broken.is("concierge-timer-outlives-identify") {
            self.waiting.remove(&conn);
        } else {
            self.stop_waiting(conn);
        }
        if self.broken.is("concierge-timer-of-newest-stopped")
            && let Some((&newest, waiting)) = self.waiting.last_key_value()
        {
            self.timers.remove(&(waiting.until, newest));
        }
        let uuid: Arc<str> = match self.clients.values().next() {
            Some(other) if self.broken.is("concierge-uuid-shared") => other.uuid.clone(),
            _ => self.ids.next_uuid().to_string().into(),
        };
        let mut name: Arc<str> = identify.name.into();
        if self.broken.is("concierge-accents-dropped") {
            name = name.chars().filter(|char| !('\u{300}'..='\u{36f}').contains(char)).collect::<String>().into();
        }
        self.names.insert(name.clone(), conn);
        self.uuids.insert(uuid.clone(), conn);
        let mut tags = if self.broken.is("concierge-tags-forgotten") { Vec::new() } else { identify.tags };
        if tags.is_empty() && self.broken.is("concierge-tags-invented") {
            tags.push("untagged".to_owned());
        }
        let subscriptions = self.initial_subscriptions(conn, &uuid, &name);
        let client = ConciergeClient {
            conn,
            uuid,
            name,
            nickname: identify.nickname,
            tags,
            received,
            number: self.identified,
            self_fetches: 0,
            messages_from: None,
            creations: 0,
            subscriptions,
            owned: BTreeSet::new(),
        };
        self.identified += 1;
        if self.broken.is("concierge-old-name-removed-late") && self.left.values().any(|left| left.name == client.name)
        {
            self.names.remove(&client.name);
        }
        let echoed = self.broken.is("concierge-hello-version-echoed");
        let version = if echoed { &identify.version } else { &self.version };
        out.push(text_output(conn, &ConciergeReply::Hello { uuid: &client.uuid, version }));
        self.clients.insert(conn, client);
    }

    /// Returns the first subscriptions of a client: none, or as a fault those of an earlier client of this name.
    fn initial_subscriptions(&mut self, conn: ConnectionId, uuid: &Arc<str>, name: &str) -> BTreeSet<Arc<str>> {
        let former = self.left.values().find(|left| &*left.name == name);
        let Some(former) = former.filter(|_| self.broken.is("concierge-subscriptions-resumed")) else {
            return BTreeSet::new();
        };
        let subscriptions = former.subscriptions.clone();
        for name in &subscriptions {
            if let Some(group) = self.groups.get_mut(name) {
                group.subscribers.insert(conn, uuid.clone());
            }
        }
        subscriptions
    }

    fn is_secret_accepted(&self, given: Option<&str>) -> bool {
        match (self.config.secret.as_deref(), given) {
            (None, None) => !self.broken.is("concierge-secret-demanded"),
            (None, Some(_)) => !self.broken.is("concierge-needless-secret-refused"),
            (Some(_), None) => self.broken.is("concierge-missing-secret-accepted"),
            (Some(_), Some(_)) if self.broken.is("concierge-secret-unchecked") => true,
            (Some(_), Some(_)) if self.broken.is("concierge-right-secret-refused") => false,
            (Some(expected), Some(given)) => expected == given,
        }
    }

    /// Whether a client of this version may join: `^` of the hub's version (line 33).
    fn is_version_accepted(&self, version: &str) -> bool {
        let Ok(version) = Version::parse(version) else {
            return self.broken.is("concierge-version-not-semver-accepted");
        };
        if !version.build.is_empty() && self.broken.is("concierge-build-refused") {
            return false;
        }
        self.broken.is("concierge-version-unchecked")
            || (self.broken.is("concierge-version-minor-unchecked") && version.major == self.config.version.major)
            || (self.broken.is("concierge-older-versions-accepted") && version < self.config.version)
            || self.compatible.matches(&version)
            || version == self.config.version
    }

    /// Removes a client: its name becomes free, its groups end (line 39).
    fn leave(&mut self, conn: ConnectionId, out: &mut Vec<MachineOutput>) {
        let Some(client) = self.clients.remove(&conn) else { return };
        let is_kept = self.broken.is("concierge-name-not-freed")
            || self.broken.is("concierge-contested-name-not-freed") && self.refused.contains(&*client.name);
        if self.names.get(&client.name) == Some(&conn) && !is_kept {
            self.names.remove(&client.name);
        }
        if self.uuids.get(&client.uuid) == Some(&conn) {
            self.uuids.remove(&client.uuid);
        }
        if !self.broken.is("concierge-left-subscriber-stays") {
            for name in &client.subscriptions {
                if let Some(group) = self.groups.get_mut(name) {
                    group.subscribers.remove(&conn);
                }
            }
        }
        if self.broken.is("concierge-old-name-removed-late")
            || self.broken.is("concierge-old-uuid-reaches-heir")
            || self.broken.is("concierge-subscriptions-resumed")
        {
            let former = FormerClient { name: client.name.clone(), subscriptions: client.subscriptions.clone() };
            self.left.insert(client.uuid.clone(), former);
        }
        self.owners_left += u64::from(!client.owned.is_empty());
        let tired = self.owners_left > 1 && self.broken.is("concierge-second-owner-group-stays");
        if !self.broken.is("concierge-group-outlives-owner") && !tired {
            let one_only = self.broken.is("concierge-leaving-ends-one-group");
            for name in client.owned.iter().take(if one_only { 1 } else { usize::MAX }) {
                self.delete_group(name, None, out);
            }
        }
        if !client.owned.is_empty() && self.broken.is("concierge-owner-leaving-announces-all") {
            for group in self.groups.values() {
                let announcement =
                    ConciergeReply::Status { status: ConciergeStatus::GroupDeleted(group.view()), seq: None };
                broadcast(self.clients.keys().copied(), &announcement, out);
            }
        }
        if self.broken.is("concierge-left-client-listed") {
            self.leftovers.insert(client.uuid.clone(), DepartedEntity::Client(client));
        }
    }
}

/// How payloads of identified clients are handled.
impl Concierge {
    fn answer_request(
        &mut self,
        conn: ConnectionId,
        seq: u64,
        text: &str,
        request: Result<ConciergeRequest<'_>, PayloadError>,
        out: &mut Vec<MachineOutput>,
    ) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.self_fetches =
                if matches!(request, Ok(ConciergeRequest::SelfFetch)) { client.self_fetches + 1 } else { 0 };
            if client.self_fetches == 3 && self.broken.is("concierge-third-self-fetch-ignored") {
                return;
            }
            client.messages_from = match request {
                Ok(ConciergeRequest::Message { .. }) => client.messages_from.or(Some(seq)),
                _ => None,
            };
            client.creations =
                if matches!(request, Ok(ConciergeRequest::GroupCreate { .. })) { client.creations + 1 } else { 0 };
        }
        if text == "null" && self.broken.is("concierge-null-crashes") {
            out.push(close_output(conn, close::UNKNOWN, "null is not an object"));
            return self.leave(conn, out);
        }
        match request {
            Ok(ConciergeRequest::Identify(identify)) => {
                if self.broken.is("concierge-second-identify-renames")
                    && let Some(client) = self.clients.get_mut(&conn)
                {
                    self.names.remove(&client.name);
                    client.name = identify.name.into();
                    self.names.insert(client.name.clone(), conn);
                    client.tags = identify.tags;
                }
                send_status(conn, seq, ConciergeStatus::Unsuported, out);
            }
            Ok(ConciergeRequest::Message { .. })
                if self.broken.is("concierge-target-members-refused")
                    && payload::has_undocumented_target_members(text) =>
            {
                send_status(conn, seq, ConciergeStatus::Protocol { desc: "the target has undocumented members" }, out);
            }
            Ok(ConciergeRequest::Message { target, data, origin }) => {
                self.relay_message(conn, seq, target, data, origin, out)
            }
            Ok(ConciergeRequest::SelfSubscribe { name }) => self.subscribe(conn, seq, &name, out),
            Ok(ConciergeRequest::SelfUnsubscribe { name }) => self.unsubscribe(conn, seq, &name, out),
            Ok(ConciergeRequest::GroupCreate { name, nickname }) => self.create_group(conn, seq, name, nickname, out),
            Ok(ConciergeRequest::GroupDelete { name }) => self.handle_group_delete(conn, seq, &name, out),
            Ok(ConciergeRequest::GroupFetch { name }) => match self.groups.get(name.as_str()) {
                Some(group) => {
                    out.push(text_output(conn, &ConciergeReply::GroupFetchResult { group: self.view(group), seq }))
                }
                None => send_status(conn, seq, ConciergeStatus::NoSuchGroup { group: &name }, out),
            },
            Ok(ConciergeRequest::GroupFetchAll) => {
                let own_only = self.broken.is("concierge-groups-of-others-hidden");
                let groups = self.groups.values().filter(|group| !own_only || group.owner == conn);
                let groups: Vec<_> = groups.map(|group| self.view(group)).collect();
                if self.broken.is("concierge-group-list-kept") {
                    let groups = json!(groups);
                    let kept = self.listed.get_or_insert(groups);
                    let text = json!({ "type": "GROUP_FETCH_ALL_RESULT", "groups": kept, "seq": seq }).to_string();
                    return out.push(MachineOutput::Text { conn, text: text.into() });
                }
                out.push(text_output(conn, &ConciergeReply::GroupFetchAllResult { groups, seq }));
            }
            Ok(ConciergeRequest::ClientFetchAll) => self.answer_client_fetch_all(conn, seq, out),
            Ok(ConciergeRequest::SelfFetch) => {
                let Some(client) = self.clients.get(&conn) else { return };
                let owned = client.owned.iter().filter(|_| self.broken.is("concierge-owned-listed-as-subscribed"));
                let subscriptions: BTreeSet<&str> =
                    client.subscriptions.iter().chain(owned).map(|name| &**name).collect();
                let subscriptions = subscriptions.into_iter().collect();
                out.push(text_output(
                    conn,
                    &ConciergeReply::SelfFetchResult { client: client.view(), subscriptions, seq },
                ));
            }
            Err(PayloadError::HubOnly) => send_status(conn, seq, ConciergeStatus::Unsuported, out),
            Err(PayloadError::UnknownType(_)) if self.broken.is("concierge-unknown-type-ignored") => {}
            Err(
                PayloadError::Undecodable(reason)
                | PayloadError::UnknownType(reason)
                | PayloadError::Malformed { reason, .. },
            ) => send_status(conn, seq, ConciergeStatus::Protocol { desc: &reason }, out),
        }
    }

    /// Relays a message to its target, with the true origin, and confirms it to the sender (lines 71 to 84).
    fn relay_message(
        &mut self,
        conn: ConnectionId,
        seq: u64,
        target: Result<MessageTarget, String>,
        data: &RawValue,
        claimed: Option<&RawValue>,
        out: &mut Vec<MachineOutput>,
    ) {
        let target = match target {
            Ok(target) => target,
            Err(_) if self.broken.is("concierge-bad-target-swallowed") => {
                return send_status(conn, seq, ConciergeStatus::MessageSent, out);
            }
            Err(reason) => return send_status(conn, seq, ConciergeStatus::Protocol { desc: &reason }, out),
        };
        let mut group = None;
        let recipients: Vec<ConnectionId> = match &target {
            MessageTarget::Name { name } => match self.names.get(name.as_str()) {
                None if self.broken.is("concierge-unknown-name-broadcast") => {
                    send_status(conn, seq, ConciergeStatus::NoSuchName { name }, out);
                    self.all_but_sender(conn, conn).into_iter().filter(|&to| to != conn).collect()
                }
                None => return send_status(conn, seq, ConciergeStatus::NoSuchName { name }, out),
                Some(&to) if to == conn && self.broken.is("concierge-own-name-unknown") => {
                    return send_status(conn, seq, ConciergeStatus::NoSuchName { name }, out);
                }
                Some(&to) if to == conn && self.broken.is("concierge-message-to-self-swallowed") => return,
                Some(&to) if self.broken.is("concierge-name-broadcast") => self.all_but_sender(conn, to),
                Some(&to) if self.broken.is("concierge-name-misdelivered") => self.wrong_recipient(conn, to),
                Some(&to) if self.broken.is("concierge-sender-gets-copy") => vec![to, conn],
                Some(&to) if self.broken.is("concierge-oldest-copied-by-name") => self.with_oldest(to),
                Some(&to) => vec![to],
            },
            MessageTarget::Uuid { uuid } => match self.find_by_uuid(uuid) {
                None => return send_status(conn, seq, ConciergeStatus::NoSuchUuid { uuid }, out),
                Some(to) if to == conn && self.broken.is("concierge-own-uuid-unknown") => {
                    return send_status(conn, seq, ConciergeStatus::NoSuchUuid { uuid }, out);
                }
                Some(to) if self.broken.is("concierge-uuid-broadcast") => self.all_but_sender(conn, to),
                Some(to) if self.broken.is("concierge-uuid-misdelivered") => self.wrong_recipient(conn, to),
                Some(to) if self.broken.is("concierge-oldest-copied-by-uuid") => self.with_oldest(to),
                Some(to) => vec![to],
            },
            MessageTarget::Group { group: name } => match self.groups.get(name.as_str()) {
                None if self.broken.is("concierge-deleted-group-swallows")
                    && self.leftovers.contains_key(name.as_str()) =>
                {
                    return send_status(conn, seq, ConciergeStatus::MessageSent, out);
                }
                None => return send_status(conn, seq, ConciergeStatus::NoSuchGroup { group: name }, out),
                Some(known) if known.subscribers.is_empty() && self.broken.is("concierge-empty-group-unknown") => {
                    return send_status(conn, seq, ConciergeStatus::NoSuchGroup { group: name }, out);
                }
                Some(known) => {
                    if !known.subscribers.contains_key(&conn) && self.broken.is("concierge-group-members-only") {
                        return send_status(conn, seq, ConciergeStatus::Bad, out);
                    }
                    group = Some(known);
                    if self.broken.is("concierge-group-to-everybody") {
                        self.clients.keys().copied().collect()
                    } else if self.broken.is("concierge-group-first-only") {
                        known.subscribers.keys().copied().filter(|&to| to != conn).take(1).collect()
                    } else {
                        known.subscribers.keys().copied().collect()
                    }
                }
            },
            MessageTarget::All => {
                let others = self.clients.keys().copied().filter(|&to| to != conn);
                if self.broken.is("concierge-all-first-only") {
                    others.take(1).collect()
                } else if self.broken.is("concierge-all-reaches-unidentified") {
                    others.chain(self.waiting.keys().copied()).collect()
                } else {
                    others.collect()
                }
            }
        };
        let sender = if self.broken.is("concierge-origin-of-newest") {
            self.clients.values().next_back()
        } else {
            self.clients.get(&conn)
        };
        let Some(sender) = sender else { return };
        let origin = match claimed {
            Some(claimed) if self.broken.is("concierge-origin-forgeable") => MessageOrigin::Forged(claimed),
            _ => MessageOrigin::Known(RelayedOrigin {
                sender: sender.view(),
                group: group.map(|group| self.view(group)),
            }),
        };
        let lossy = self.broken.is("concierge-data-numbers-rounded").then(|| round_numbers(data)).flatten();
        let data = lossy.as_deref().unwrap_or(data);
        let dropped = data.get() == "null" && self.broken.is("concierge-null-data-dropped");
        let relayed = serialize_concierge_reply(&ConciergeReply::Message {
            origin,
            target: &target,
            data: (!dropped).then_some(data),
        });
        let lost = relayed.len() > LARGE_MESSAGE_BYTES && self.broken.is("concierge-large-messages-lost");
        let recipients = if lost { Vec::new() } else { recipients };
        if group.is_some() && recipients.is_empty() && self.broken.is("concierge-empty-group-silent") {
            return;
        }
        let each = self.broken.is("concierge-message-sent-for-each-recipient");
        let confirmations = if each { recipients.len().max(1) } else { 1 };
        let refused = matches!(&target, MessageTarget::Name { name } if !self.names.contains_key(name.as_str()));
        out.extend(recipients.into_iter().map(|conn| MachineOutput::Text { conn, text: relayed.clone() }));
        let first = self.clients.get(&conn).and_then(|client| client.messages_from);
        let seq = first.filter(|_| self.broken.is("concierge-messages-in-a-row-one-seq")).unwrap_or(seq);
        if !refused {
            (0..confirmations).for_each(|_| send_status(conn, seq, ConciergeStatus::MessageSent, out));
        }
    }

    /// Finds the client with this uuid, in lower or upper case.
    fn find_by_uuid(&self, uuid: &str) -> Option<ConnectionId> {
        let known = self.uuids.get(uuid).or_else(|| self.uuids.get(uuid.to_ascii_lowercase().as_str()));
        let former = self.left.get(uuid).filter(|_| self.broken.is("concierge-old-uuid-reaches-heir"));
        known.or_else(|| former.and_then(|left| self.names.get(&left.name))).copied()
    }

    fn all_but_sender(&self, sender: ConnectionId, always: ConnectionId) -> Vec<ConnectionId> {
        self.clients.keys().copied().filter(|&conn| conn != sender || conn == always).collect()
    }

    fn wrong_recipient(&self, sender: ConnectionId, never: ConnectionId) -> Vec<ConnectionId> {
        self.clients.keys().copied().find(|&conn| conn != sender && conn != never).into_iter().collect()
    }

    /// Returns the addressee and, as a fault, the client that has been connected longest.
    fn with_oldest(&self, to: ConnectionId) -> Vec<ConnectionId> {
        self.clients.keys().copied().take(1).filter(|&oldest| oldest != to).chain([to]).collect()
    }

    fn subscribe(&mut self, conn: ConnectionId, seq: u64, name: &str, out: &mut Vec<MachineOutput>) {
        if !self.groups.contains_key(name) && self.broken.is("concierge-subscribe-creates") {
            self.create_group(conn, seq, name.to_owned(), None, &mut Vec::new());
        }
        let (Some(client), Some(group)) = (self.clients.get_mut(&conn), self.groups.get_mut(name)) else {
            return send_status(conn, seq, ConciergeStatus::NoSuchGroup { group: name }, out);
        };
        group.subscribers.insert(conn, client.uuid.clone());
        if !client.subscriptions.insert(group.name.clone()) && self.broken.is("concierge-subscriptions-counted") {
            self.twice.insert((conn, group.name.clone()));
        }
        let group = &self.groups[name];
        send_status(conn, seq, ConciergeStatus::Subscribed(self.view(group)), out);
    }

    fn unsubscribe(&mut self, conn: ConnectionId, seq: u64, name: &str, out: &mut Vec<MachineOutput>) {
        let (Some(client), Some(group)) = (self.clients.get_mut(&conn), self.groups.get_mut(name)) else {
            return send_status(conn, seq, ConciergeStatus::NoSuchGroup { group: name }, out);
        };
        if self.twice.remove(&(conn, group.name.clone())) {
            return send_status(conn, seq, ConciergeStatus::Unsubscribed(group.view()), out);
        }
        if !group.subscribers.contains_key(&conn) && self.broken.is("concierge-needless-unsubscribe-removes-last") {
            group.subscribers.pop_last();
        }
        let kept = self.broken.is("concierge-subscription-stays-listed");
        if !kept && !client.subscriptions.remove(name) && self.broken.is("concierge-needless-unsubscribe-ignored") {
            return;
        }
        if !self.broken.is("concierge-unsubscribe-forgotten") {
            group.subscribers.remove(&conn);
        }
        let owner = group.owner == conn;
        let group = &self.groups[name];
        send_status(conn, seq, ConciergeStatus::Unsubscribed(self.view(group)), out);
        if owner && self.broken.is("concierge-owner-unsubscribe-deletes") {
            self.delete_group(name, None, out);
        }
    }

    /// Creates a group and announces it, to the creator with `seq` and to all others without (lines 525 and 526).
    fn create_group(
        &mut self,
        conn: ConnectionId,
        seq: u64,
        name: String,
        nickname: Option<String>,
        out: &mut Vec<MachineOutput>,
    ) {
        let others = self.clients.keys().copied().filter(|&to| to != conn);
        if name == "constructor" && self.broken.is("concierge-inherited-names-taken") {
            let group = GroupView { name: &name, nickname: None, owner_uuid: UNUSED_UUID, subscribers: Vec::new() };
            return send_status(conn, seq, ConciergeStatus::GroupAlreadyCreated(group), out);
        }
        if self.broken.is("concierge-similar-group-taken")
            && let Some(group) =
                self.groups.values().find(|group| *group.name != *name && is_similar(&group.name, &name))
        {
            return send_status(conn, seq, ConciergeStatus::GroupAlreadyCreated(self.view(group)), out);
        }
        if let Some(group) = self.groups.get(name.as_str()) {
            if self.broken.is("concierge-refused-creation-announced") {
                broadcast(
                    others,
                    &ConciergeReply::Status { status: ConciergeStatus::GroupCreated(self.view(group)), seq: None },
                    out,
                );
            }
            if self.total == self.created + 1 && self.broken.is("concierge-created-twice-at-once") {
                return send_status(conn, seq, ConciergeStatus::GroupCreated(self.view(group)), out);
            }
            send_status(conn, seq, ConciergeStatus::GroupAlreadyCreated(self.view(group)), out);
            if self.broken.is("concierge-refused-creation-takes-over") {
                self.take_over_group(conn, &name, nickname);
            }
            return;
        }
        let burnt = self.broken.is("concierge-deleted-name-unusable") && self.leftovers.contains_key(name.as_str());
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if burnt || self.groups.len() >= self.config.max_groups {
            return send_status(conn, seq, ConciergeStatus::Bad, out);
        }
        let name: Arc<str> = name.into();
        client.owned.insert(name.clone());
        let mut owner_uuid = client.uuid.clone();
        let mut subscribers = match self.leftovers.remove(&name) {
            Some(DepartedEntity::Group(group)) if self.broken.is("concierge-subscribers-outlive-group") => {
                group.subscribers
            }
            Some(DepartedEntity::Group(group)) if self.broken.is("concierge-owner-outlives-group") => {
                owner_uuid = group.owner_uuid;
                BTreeMap::new()
            }
            _ => BTreeMap::new(),
        };
        if self.broken.is("concierge-creator-subscribed") {
            subscribers.insert(conn, client.uuid.clone());
            client.subscriptions.insert(name.clone());
        }
        let group = ClientGroup { name: name.clone(), nickname, owner: conn, owner_uuid, subscribers };
        self.groups.insert(name.clone(), group);
        self.listed = None;
        self.created = self.total;
        let group = &self.groups[&name];
        send_status(conn, seq, ConciergeStatus::GroupCreated(self.view(group)), out);
        let announcement =
            ConciergeReply::Status { status: ConciergeStatus::GroupCreated(self.view(group)), seq: None };
        let in_a_row = self.clients.get(&conn).is_some_and(|client| client.creations > 1);
        if in_a_row && self.broken.is("concierge-creations-in-a-row-unannounced") {
            return;
        }
        let unidentified = self.waiting.keys().copied();
        if self.broken.is("concierge-creation-reaches-unidentified") {
            broadcast(unidentified, &announcement, out);
        }
        broadcast(self.clients.keys().copied().filter(|&to| to != conn), &announcement, out);
    }

    /// As a fault: hands a group over to a client that tried to create it again.
    fn take_over_group(&mut self, conn: ConnectionId, name: &str, nickname: Option<String>) {
        if let (Some(client), Some(group)) = (self.clients.get_mut(&conn), self.groups.get_mut(name)) {
            client.owned.insert(group.name.clone());
            group.owner = conn;
            group.owner_uuid = client.uuid.clone();
            group.nickname = nickname;
        }
    }

    fn handle_group_delete(&mut self, conn: ConnectionId, seq: u64, name: &str, out: &mut Vec<MachineOutput>) {
        match self.groups.get(name) {
            None => send_status(conn, seq, ConciergeStatus::NoSuchGroup { group: name }, out),
            // Only the creator may delete a group (line 39); the document has no special code for the refusal.
            Some(group) if group.owner != conn && !self.broken.is("concierge-delete-by-anybody") => {
                if self.broken.is("concierge-refused-deletion-announced") {
                    let others = self.clients.keys().copied().filter(|&to| to != conn);
                    broadcast(
                        others,
                        &ConciergeReply::Status { status: ConciergeStatus::GroupDeleted(group.view()), seq: None },
                        out,
                    );
                }
                send_status(conn, seq, ConciergeStatus::Bad, out);
            }
            Some(_) => {
                self.delete_group(name, Some((conn, seq)), out);
                if self.broken.is("concierge-similar-groups-deleted") {
                    let similar: Vec<_> = self.groups.keys().filter(|other| is_similar(other, name)).cloned().collect();
                    similar.iter().for_each(|other| self.delete_group(other, None, out));
                }
            }
        }
    }

    /// Ends a group: its subscribers are unsubscribed, all clients are notified (lines 517 to 519, 532, 533).
    fn delete_group(&mut self, name: &str, by: Option<(ConnectionId, u64)>, out: &mut Vec<MachineOutput>) {
        let Some(mut group) = self.groups.remove(name) else { return };
        let subscribers = std::mem::take(&mut group.subscribers);
        if let Some(owner) = self.clients.get_mut(&group.owner) {
            owner.owned.remove(name);
        }
        for conn in subscribers.keys() {
            if let Some(client) = self.clients.get_mut(conn)
                && !self.broken.is("concierge-ended-group-stays-subscribed")
            {
                client.subscriptions.remove(name);
            }
        }
        let unsubscribed = ConciergeReply::Status { status: ConciergeStatus::Unsubscribed(group.view()), seq: None };
        let everyone = self.broken.is("concierge-everyone-unsubscribed");
        let told = self.clients.keys().copied().filter(|conn| everyone || subscribers.contains_key(conn));
        broadcast(told, &unsubscribed, out);
        if let Some((conn, seq)) = by {
            send_status(conn, seq, ConciergeStatus::GroupDeleted(group.view()), out);
        }
        let others = self.clients.keys().copied().filter(|&to| by.is_none_or(|(conn, _)| conn != to));
        broadcast(
            others,
            &ConciergeReply::Status { status: ConciergeStatus::GroupDeleted(group.view()), seq: None },
            out,
        );
        if self.broken.is("concierge-deleted-group-swallows")
            || self.broken.is("concierge-deleted-name-unusable")
            || self.broken.is("concierge-subscribers-outlive-group")
            || self.broken.is("concierge-owner-outlives-group")
        {
            group.subscribers = subscribers;
            self.leftovers.insert(group.name.clone(), DepartedEntity::Group(group));
        }
    }

    fn answer_client_fetch_all(&self, conn: ConnectionId, seq: u64, out: &mut Vec<MachineOutput>) {
        let left = self.leftovers.values().filter_map(|leftovers| match leftovers {
            DepartedEntity::Client(client) => Some(client),
            DepartedEntity::Group(_) => None,
        });
        let skip_self = self.broken.is("concierge-requester-not-listed");
        let only_self = self.broken.is("concierge-other-clients-hidden");
        let mut clients: Vec<ClientView<'_>> = (self.clients.values())
            .filter(|client| if client.conn == conn { !skip_self } else { !only_self })
            .chain(left)
            .map(ConciergeClient::view)
            .collect();
        if self.broken.is("concierge-unidentified-listed") {
            let unidentified = ClientView { name: "unidentified", nickname: None, uuid: UNUSED_UUID, tags: Vec::new() };
            clients.extend(self.waiting.keys().map(|_| unidentified.clone()));
        }
        out.push(text_output(conn, &ConciergeReply::ClientFetchAllResult { clients, seq }));
    }

    /// Describes a group to clients; its subscribers are UUIDs (line 516).
    fn view<'a>(&'a self, group: &'a ClientGroup) -> GroupView<'a> {
        let mut view = group.view();
        if self.broken.is("concierge-subscribers-are-names") {
            view.subscribers = group
                .subscribers
                .keys()
                .filter_map(|conn| self.clients.get(conn))
                .map(|client| &*client.name)
                .collect();
        }
        if self.broken.is("concierge-subscribers-missing-newest")
            && let Some(newest) = group.subscribers.values().next_back()
        {
            view.subscribers.retain(|uuid| *uuid != &**newest);
        }
        view
    }
}

/// For faults: whether two names are equal but for letter case, or one begins with the other.
fn is_similar(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || one.starts_with(other) || other.starts_with(one)
}

/// As a fault: returns `data` with every number parsed as a double.
fn round_numbers(data: &RawValue) -> Option<Box<RawValue>> {
    fn round(value: &mut Value) {
        match value {
            // Small whole numbers are exact as doubles.
            Value::Number(number) if number.as_f64().is_some_and(|double| double.abs() >= 9_007_199_254_740_992.0) => {
                *value = number.as_f64().map_or(Value::Null, Value::from);
            }
            Value::Array(elements) => elements.iter_mut().for_each(round),
            Value::Object(members) => members.values_mut().for_each(round),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(data.get()).ok()?;
    round(&mut value);
    serde_json::value::to_raw_value(&value).ok()
}

fn close_output(conn: ConnectionId, code: u16, reason: &str) -> MachineOutput {
    // A close frame holds 125 bytes, two of them the code.
    let cut = reason.floor_char_boundary(123);
    MachineOutput::Close { conn, code, reason: reason[..cut].to_owned() }
}

fn serialize_concierge_reply(reply: &ConciergeReply<'_>) -> Utf8Bytes {
    // Strings, numbers and raw JSON under string keys always serialise.
    serde_json::to_string(reply).unwrap_or_default().into()
}

fn text_output(conn: ConnectionId, reply: &ConciergeReply<'_>) -> MachineOutput {
    MachineOutput::Text { conn, text: serialize_concierge_reply(reply) }
}

/// Answers the payload `seq` of `conn`.
fn send_status(conn: ConnectionId, seq: u64, status: ConciergeStatus<'_>, out: &mut Vec<MachineOutput>) {
    out.push(text_output(conn, &ConciergeReply::Status { status, seq: Some(seq) }));
}

fn broadcast(to: impl Iterator<Item = ConnectionId>, reply: &ConciergeReply<'_>, out: &mut Vec<MachineOutput>) {
    let mut to = to.peekable();
    if to.peek().is_some() {
        let text = serialize_concierge_reply(reply);
        out.extend(to.map(|conn| MachineOutput::Text { conn, text: text.clone() }));
    }
}
