//! Requests and responses (lines 20 to 60), read member by member, so that an id is copied as it was written.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::machine::Utf8Bytes;
use crate::machine::json::{self, Members};

/// A frame that could be decoded.
#[derive(Debug)]
pub enum GatorFrame<'a> {
    Request(GatorRequest<'a>),
    /// The answer to a request of the hub.
    Response,
}

/// A request.
#[derive(Debug)]
pub struct GatorRequest<'a> {
    pub action: String,
    pub req_id: Option<&'a RawValue>,
    /// The member `posted`; `None` if absent or `null`.
    pub posted: Option<bool>,
    pub payload: Option<Members<'a>>,
    /// Whether it has a member that the document does not name.
    pub has_more: bool,
}

/// A frame that is not a JSON object, or whose envelope has a member of the wrong type.
#[derive(Debug)]
pub struct FrameDecodeError<'a> {
    /// The id, if it could be read.
    pub req_id: Option<&'a RawValue>,
    pub reason: String,
}

/// Reads a frame. One with a `result` is a response, whatever other members it has. Unknown actions and wrong payloads
/// are not errors here.
pub fn parse_frame(text: &str) -> Result<GatorFrame<'_>, FrameDecodeError<'_>> {
    let members = json::split_members(text).map_err(|reason| FrameDecodeError { req_id: None, reason })?;
    if members.contains_key("result") {
        return Ok(GatorFrame::Response);
    }
    let req_id = members.get("req_id").copied();
    let request = || {
        Ok(GatorRequest {
            action: json::required_member(&members, "action")?,
            req_id,
            posted: json::optional_member(&members, "posted")?,
            payload: match members.get("payload").map(|payload| payload.get()) {
                None | Some("null") => None,
                Some(payload) => {
                    Some(json::split_members(payload).map_err(|reason| format!("member \"payload\": {reason}"))?)
                }
            },
            has_more: members.keys().any(|name| !["action", "req_id", "posted", "payload"].contains(&name.as_str())),
        })
    };
    request().map(GatorFrame::Request).map_err(|reason| FrameDecodeError { req_id, reason })
}

/// A request of the hub.
#[derive(Serialize)]
pub struct OutgoingRequest<'a, P> {
    pub action: &'a str,
    pub req_id: u64,
    pub posted: bool,
    pub payload: P,
}

/// An empty payload: `{}`.
#[derive(Serialize)]
pub struct EmptyPayload {}

/// A response that reports success.
#[derive(Serialize)]
pub struct SuccessResponse<'a> {
    pub action: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rsp_id: Option<&'a RawValue>,
    pub result: &'static str,
    pub payload: EmptyPayload,
}

/// A response that reports failure.
#[derive(Serialize)]
pub struct FailureResponse<'a> {
    pub result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rsp_id: Option<&'a RawValue>,
    pub reason: &'a str,
}

/// Serialises a frame.
pub fn serialize_frame(frame: &impl Serialize) -> Utf8Bytes {
    // Strings, numbers and raw JSON under string keys always serialise.
    serde_json::to_string(frame).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("{", None, "not JSON")]
    #[case("[]", None, "expected a JSON object")]
    #[case("{}", None, "\"action\" is missing")]
    #[case(r#"{"req_id":1.50}"#, Some("1.50"), "\"action\" is missing")]
    #[case(r#"{"action":7,"req_id":{"a": 1}}"#, Some(r#"{"a": 1}"#), "\"action\"")]
    #[case(r#"{"action":"log","posted":"yes"}"#, None, "\"posted\"")]
    #[case(r#"{"action":"log","req_id":null,"payload":[]}"#, Some("null"), "\"payload\"")]
    fn the_error_for_an_undecodable_frame_explains_it(#[case] text: &str, #[case] id: Option<&str>, #[case] why: &str) {
        let error = parse_frame(text).unwrap_err();
        assert!(error.reason.contains(why), "{}", error.reason);
        assert_eq!(error.req_id.map(RawValue::get), id);
    }

    #[rstest]
    #[case(r#"{"action":"stop"}"#)]
    #[case(r#"{"action":"stop","posted":null,"payload":null,"more":1}"#)]
    #[case(r#"{"action":"stop","posted":false,"payload":{}}"#)]
    fn a_request_requires_only_its_action(#[case] text: &str) {
        assert!(matches!(parse_frame(text), Ok(GatorFrame::Request(request)) if request.action == "stop"));
    }
}
