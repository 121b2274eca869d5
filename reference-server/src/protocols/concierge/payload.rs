//! Payloads: those of clients, read member by member, and those of the hub.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::machine::json::{self, Members};

/// The longest name or nickname in bytes. The document sets no limit; without one, a client could exhaust memory.
const MAX_NAME: usize = 4096;
/// The greatest total length of a client's tags in bytes. The document sets no limit; without one, a client could
/// exhaust memory.
const MAX_TAGS: usize = 64 * 1024;

/// A payload from a client.
#[derive(Debug)]
pub enum ConciergeRequest<'a> {
    /// Line 55.
    Identify(Identify),
    /// Line 87. A wrong target is replaced with the reason as text.
    Message { target: Result<MessageTarget, String>, data: &'a RawValue, origin: Option<&'a RawValue> },
    /// Line 160.
    SelfSubscribe { name: String },
    /// Line 182.
    SelfUnsubscribe { name: String },
    /// Line 204.
    GroupCreate { name: String, nickname: Option<String> },
    /// Line 229.
    GroupDelete { name: String },
    /// Line 251.
    GroupFetch { name: String },
    /// Line 274.
    GroupFetchAll,
    /// Line 287.
    ClientFetchAll,
    /// Line 298.
    SelfFetch,
}

/// The members of IDENTIFY. The document has no nickname here, although clients have one.
#[derive(Debug)]
pub struct Identify {
    pub name: String,
    pub version: String,
    pub secret: Option<String>,
    pub tags: Vec<String>,
    pub nickname: Option<String>,
}

/// The target of a message (lines 103 to 106).
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "UPPERCASE")]
pub enum MessageTarget {
    Name { name: String },
    Uuid { uuid: String },
    Group { group: String },
    All,
}

/// A text that is not a payload of a client.
#[derive(Debug)]
pub enum PayloadError {
    /// It is not a JSON object with a string `type`.
    Undecodable(String),
    /// No payload has this type.
    UnknownType(String),
    /// Only the hub sends this type.
    HubOnly,
    /// The members do not fit the type.
    Malformed { identify: bool, reason: String },
}

/// Reads a payload. Unknown members are ignored, `null` in an optional member means absent.
pub fn parse_payload(text: &str) -> Result<ConciergeRequest<'_>, PayloadError> {
    let members = json::split_members(text).map_err(PayloadError::Undecodable)?;
    let kind: String = json::required_member(&members, "type").map_err(PayloadError::Undecodable)?;
    let request = match kind.as_str() {
        "IDENTIFY" => parse_identify(&members),
        "MESSAGE" => parse_message_request(&members),
        "SELF_SUBSCRIBE" => {
            json::required_member(&members, "name").map(|name| ConciergeRequest::SelfSubscribe { name })
        }
        "SELF_UNSUBSCRIBE" => {
            json::required_member(&members, "name").map(|name| ConciergeRequest::SelfUnsubscribe { name })
        }
        "GROUP_CREATE" => parse_group_create(&members),
        "GROUP_DELETE" => json::required_member(&members, "name").map(|name| ConciergeRequest::GroupDelete { name }),
        "GROUP_FETCH" => json::required_member(&members, "name").map(|name| ConciergeRequest::GroupFetch { name }),
        "GROUP_FETCH_ALL" => Ok(ConciergeRequest::GroupFetchAll),
        "CLIENT_FETCH_ALL" => Ok(ConciergeRequest::ClientFetchAll),
        "SELF_FETCH" => Ok(ConciergeRequest::SelfFetch),
        "HELLO"
        | "STATUS"
        | "GROUP_FETCH_RESULT"
        | "GROUP_FETCH_ALL_RESULT"
        | "CLIENT_FETCH_ALL_RESULT"
        | "SELF_FETCH_RESULT" => return Err(PayloadError::HubOnly),
        _ => {
            return Err(PayloadError::UnknownType(format!("no payload has the type {:?}", excerpt(&kind))));
        }
    };
    request
        .map_err(|reason| PayloadError::Malformed { identify: kind == "IDENTIFY", reason: format!("{kind}: {reason}") })
}

fn parse_identify(members: &Members<'_>) -> Result<ConciergeRequest<'static>, String> {
    let tags: Vec<String> = json::optional_member(members, "tags")?.unwrap_or_default();
    if tags.iter().map(String::len).sum::<usize>() > MAX_TAGS {
        return Err(format!("tags hold more than {MAX_TAGS} bytes"));
    }
    Ok(ConciergeRequest::Identify(Identify {
        name: parse_name(members)?,
        version: json::required_member(members, "version")?,
        secret: json::optional_member(members, "secret")?,
        tags,
        nickname: parse_nickname(members)?,
    }))
}

fn parse_message_request<'a>(members: &Members<'a>) -> Result<ConciergeRequest<'a>, String> {
    Ok(ConciergeRequest::Message {
        target: parse_target(members),
        data: members.get("data").ok_or("member \"data\" is missing")?,
        origin: members.get("origin").copied(),
    })
}

fn parse_target(members: &Members<'_>) -> Result<MessageTarget, String> {
    let raw = members.get("target").ok_or("member \"target\" is missing")?;
    let target = json::split_members(raw.get()).map_err(|reason| format!("member \"target\": {reason}"))?;
    let kind: String =
        json::required_member(&target, "type").map_err(|reason| format!("member \"target\": {reason}"))?;
    match kind.as_str() {
        "NAME" => json::required_member(&target, "name").map(|name| MessageTarget::Name { name }),
        "UUID" => json::required_member(&target, "uuid").map(|uuid| MessageTarget::Uuid { uuid }),
        "GROUP" => json::required_member(&target, "group").map(|group| MessageTarget::Group { group }),
        "ALL" => Ok(MessageTarget::All),
        other => Err(format!("a target is a NAME, UUID, GROUP or ALL, not {:?}", excerpt(other))),
    }
}

/// Whether a message's target has undocumented members.
pub fn has_undocumented_target_members(text: &str) -> bool {
    let target =
        json::split_members(text).ok().and_then(|members| json::split_members(members.get("target")?.get()).ok());
    target.is_some_and(|target| target.len() > 2)
}

fn parse_group_create(members: &Members<'_>) -> Result<ConciergeRequest<'static>, String> {
    Ok(ConciergeRequest::GroupCreate { name: parse_name(members)?, nickname: parse_nickname(members)? })
}

fn parse_name(members: &Members<'_>) -> Result<String, String> {
    let name: String = json::required_member(members, "name")?;
    match name.len() {
        0 => Err("member \"name\" is empty".to_owned()),
        1..=MAX_NAME => Ok(name),
        _ => Err(format!("member \"name\" is longer than {MAX_NAME} bytes")),
    }
}

fn parse_nickname(members: &Members<'_>) -> Result<Option<String>, String> {
    let nickname: Option<String> = json::optional_member(members, "nickname")?;
    match &nickname {
        Some(text) if text.len() > MAX_NAME => Err(format!("member \"nickname\" is longer than {MAX_NAME} bytes")),
        _ => Ok(nickname),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

/// A payload from the hub.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConciergeReply<'a> {
    /// Line 312.
    Hello { uuid: &'a str, version: &'a str },
    /// Line 89, with the origin that the hub adds.
    Message {
        origin: MessageOrigin<'a>,
        target: &'a MessageTarget,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    },
    /// Line 336.
    GroupFetchResult {
        #[serde(flatten)]
        group: GroupView<'a>,
        seq: u64,
    },
    /// Line 367.
    GroupFetchAllResult { groups: Vec<GroupView<'a>>, seq: u64 },
    /// Line 404.
    ClientFetchAllResult { clients: Vec<ClientView<'a>>, seq: u64 },
    /// Line 455.
    SelfFetchResult {
        #[serde(flatten)]
        client: ClientView<'a>,
        subscriptions: Vec<&'a str>,
        seq: u64,
    },
    /// Line 490.
    Status {
        #[serde(flatten)]
        status: ConciergeStatus<'a>,
        /// The number of the payload that this answers; absent if another client was the cause (line 18).
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
    },
}

/// The statuses (lines 509 to 562). `OK` is documented without a use, so the hub has none for it.
#[derive(Debug, Serialize)]
#[serde(tag = "code", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConciergeStatus<'a> {
    MessageSent,
    Subscribed(GroupView<'a>),
    Unsubscribed(GroupView<'a>),
    GroupCreated(GroupView<'a>),
    GroupDeleted(GroupView<'a>),
    Bad,
    /// Spelled as documented.
    Unsuported,
    Protocol {
        desc: &'a str,
    },
    GroupAlreadyCreated(GroupView<'a>),
    NoSuchName {
        name: &'a str,
    },
    NoSuchUuid {
        uuid: &'a str,
    },
    NoSuchGroup {
        group: &'a str,
    },
}

#[derive(Debug, Clone, Serialize)]
pub struct GroupView<'a> {
    pub name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nickname: Option<&'a str>,
    pub owner_uuid: &'a str,
    pub subscribers: Vec<&'a str>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ClientView<'a> {
    pub name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nickname: Option<&'a str>,
    pub uuid: &'a str,
    pub tags: Vec<&'a str>,
}

/// The origin of a relayed message: the sender, and the group it was sent to.
#[derive(Debug, Serialize)]
pub struct RelayedOrigin<'a> {
    #[serde(flatten)]
    pub sender: ClientView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupView<'a>>,
}

/// The sender as the hub knows it, or (as a fault) as the message claims.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum MessageOrigin<'a> {
    Known(RelayedOrigin<'a>),
    Forged(&'a RawValue),
}
