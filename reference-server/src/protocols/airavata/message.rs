//! Messages: those of clients, read member by member, and those of the hub (lines 118 to 143).

use serde::Serialize;
use serde_json::Value;

use super::topic::ResourceKind;
use crate::machine::Utf8Bytes;
use crate::machine::json::{self, Members};

/// The longest id of a resource in bytes; a subscription is kept as long as its connection.
const MAX_ID: usize = 512;

/// The documented error texts (lines 612 to 660).
pub mod text {
    pub const NO_TOKEN: &str = "Authentication required";
    pub const BAD_TOKEN: &str = "Invalid or expired token";
    pub const LIMIT: &str = "Rate limit exceeded";
    pub const FORMAT: &str = "Invalid message format";
    pub const UNKNOWN: &str = "Unknown message type";
}

/// A message from a client.
#[derive(Debug)]
pub enum AiravataRequest {
    Ping,
    /// The answer to a ping of the hub.
    Pong,
    /// `subscribe`, or `unsubscribe`.
    Subscription {
        subscribe: bool,
        resource: RequestedResource,
        has_id: bool,
    },
}

/// The resource of a subscription.
#[derive(Debug)]
pub struct RequestedResource {
    /// The kind of the resource, as the client wrote it.
    pub kind_name: String,
    /// The kind of the resource; `None` for an unknown one.
    pub kind: Option<ResourceKind>,
    /// The id of the resource, as the client wrote it.
    pub id: Option<String>,
}

/// A text that is not a message of a client.
#[derive(Debug)]
pub enum MessageError {
    /// It is not a JSON object.
    Undecodable,
    /// It has no `type`, or a member of the wrong type.
    Malformed,
    /// No message of a client has this type.
    UnknownType,
}

/// Reads a message. `id` and `timestamp` may be missing, as in the documented subscription (lines 519 to 526).
pub fn parse_request(text: &str) -> Result<AiravataRequest, MessageError> {
    let members = json::split_members(text).map_err(|_| MessageError::Undecodable)?;
    parse_request_members(&members).map_err(|_| MessageError::Malformed)?.ok_or(MessageError::UnknownType)
}

/// Reads a message; `None` for an unknown type.
fn parse_request_members(members: &Members<'_>) -> Result<Option<AiravataRequest>, String> {
    let kind: String = json::required_member(members, "type")?;
    let id: Option<String> = json::optional_member(members, "id")?;
    json::optional_member::<String>(members, "timestamp")?;
    let data = members.get("data").map(|data| json::split_members(data.get())).transpose()?;
    Ok(Some(match kind.as_str() {
        "ping" => AiravataRequest::Ping,
        "pong" => AiravataRequest::Pong,
        "system_status" => {
            let data = data.ok_or("member \"data\" is missing")?;
            let subscribe = match json::required_member::<String>(&data, "action")?.as_str() {
                "subscribe" => true,
                "unsubscribe" => false,
                other => return Err(format!("there is no action {other:?}")),
            };
            AiravataRequest::Subscription { subscribe, resource: parse_resource(&data)?, has_id: id.is_some() }
        }
        _ => return Ok(None),
    }))
}

fn parse_resource(data: &Members<'_>) -> Result<RequestedResource, String> {
    let kind_name: String = json::required_member(data, "resourceType")?;
    let id: Option<String> = json::optional_member(data, "resourceId")?;
    if id.as_ref().is_some_and(|id| id.len() > MAX_ID) || kind_name.len() > MAX_ID {
        return Err(format!("a resource has at most {MAX_ID} bytes"));
    }
    Ok(RequestedResource { kind: ResourceKind::from_name(&kind_name), kind_name, id })
}

/// A message from the hub.
#[derive(Serialize)]
pub struct AiravataMessage<'a> {
    pub r#type: &'a str,
    pub id: &'a str,
    /// The timestamp in ISO 8601.
    pub timestamp: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

impl AiravataMessage<'_> {
    /// Serialises the message.
    pub fn serialize(&self) -> Utf8Bytes {
        // Strings and JSON values always serialise.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("{", "Undecodable")]
    #[case("[]", "Undecodable")]
    #[case("7", "Undecodable")]
    #[case("{}", "Malformed")]
    #[case(r#"{"type":5}"#, "Malformed")]
    #[case(r#"{"type":"ping","data":"x"}"#, "Malformed")]
    #[case(r#"{"type":"ping","data":null}"#, "Malformed")]
    #[case(r#"{"type":"ping","id":7}"#, "Malformed")]
    #[case(r#"{"type":"system_status"}"#, "Malformed")]
    #[case(r#"{"type":"system_status","data":{}}"#, "Malformed")]
    #[case(r#"{"type":"system_status","data":{"action":"dance","resourceType":"task"}}"#, "Malformed")]
    #[case(r#"{"type":"system_status","data":{"action":"subscribe"}}"#, "Malformed")]
    #[case(
        r#"{"type":"system_status","data":{"action":"subscribe","resourceType":"task","resourceId":7}}"#,
        "Malformed"
    )]
    #[case(r#"{"type":"no_such"}"#, "UnknownType")]
    #[case(r#"{"type":"error"}"#, "UnknownType")]
    #[case(r#"{"type":"task_created"}"#, "UnknownType")]
    fn invalid_messages_get_their_documented_error(#[case] text: &str, #[case] want: &str) {
        assert_eq!(format!("{:?}", parse_request(text).unwrap_err()), want);
    }

    #[test]
    fn a_subscription_with_an_overlong_resource_id_is_refused() {
        let subscribe = |length: usize| {
            let id = "x".repeat(length);
            parse_request(&format!(
                r#"{{"type":"system_status","data":{{"action":"subscribe","resourceType":"task","resourceId":"{id}"}}}}"#
            ))
        };
        assert!(subscribe(MAX_ID).is_ok());
        assert!(subscribe(MAX_ID + 1).is_err());
    }
}
