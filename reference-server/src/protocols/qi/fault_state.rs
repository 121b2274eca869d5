//! The state of the faults that depend on earlier messages.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::value::RawValue;

use crate::machine::ConnectionId;

/// The state that a faulty hub keeps of earlier messages.
#[derive(Default)]
pub struct QiFaultState {
    /// The first connection that used each session.
    pub owners: BTreeMap<String, ConnectionId>,
    /// The return values of each session's first command.
    pub returned: BTreeMap<String, Option<Box<RawValue>>>,
    /// All echoed arguments.
    pub arguments: BTreeMap<String, Value>,
    /// The values that the last success on each connection returned.
    pub values: BTreeMap<ConnectionId, Box<RawValue>>,
    /// The sessions in which a command has succeeded, by connection.
    pub answered: BTreeSet<(ConnectionId, String)>,
    /// The session of the last failure on each connection.
    pub failed_sessions: BTreeMap<ConnectionId, String>,
}

/// Writes a UUID in lower case, with hyphens, without braces. Other texts stay as they are.
pub fn canonical_uuid(text: String) -> String {
    let digits: String = text.chars().filter(|c| !matches!(c, '{' | '}' | '-')).collect::<String>().to_lowercase();
    if digits.len() != 32 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return text;
    }
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// Whether a JSON value is a number with an exponent.
pub fn has_exponent(value: &str) -> bool {
    value.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && value.contains(['e', 'E'])
}
