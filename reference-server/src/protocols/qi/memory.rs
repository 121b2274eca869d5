//! What the faults of the 2200/2300 hub need that depend on earlier messages.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::machine::Conn;

/// What a hub remembers that should not.
#[derive(Default)]
pub struct Memory {
    /// The connection that used a session first.
    pub owners: BTreeMap<String, Conn>,
    /// What the first command of a session returned.
    pub returned: BTreeMap<String, Option<Box<RawValue>>>,
    /// All arguments that were ever echoed.
    pub arguments: BTreeMap<String, Value>,
    /// The session in which something failed last on a connection.
    pub doomed: BTreeMap<Conn, String>,
}

/// A UUID as most write it: in lower case, with hyphens, without braces. Other texts stay as they are.
pub fn canonical(text: String) -> String {
    let digits: String = text.chars().filter(|c| !matches!(c, '{' | '}' | '-')).collect::<String>().to_lowercase();
    if digits.len() != 32 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return text;
    }
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
