//! The state of the faults that depend on earlier messages.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::value::RawValue;

use super::CommandOutcome;
use crate::fault::MachineFault;
use crate::machine::json::Members;
use crate::machine::{ConnectionId, MachineOutput};

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
    /// The payload with which each command was first published.
    pub published: BTreeMap<String, Option<serde_json::Map<String, Value>>>,
    /// Commands that were unknown, by connection.
    pub unknown: BTreeSet<(ConnectionId, String)>,
    /// The first return values of each defined command, by connection.
    pub defined_values: BTreeMap<(ConnectionId, String), Option<Box<RawValue>>>,
    /// The latest version in which each connection was served.
    pub versions: BTreeMap<ConnectionId, String>,
    /// Connections whose next command will fail because another client left.
    pub doomed: BTreeSet<ConnectionId>,
    /// How many requests have failed on each connection.
    failures: BTreeMap<ConnectionId, usize>,
    /// The arguments of the last request on each connection, if it was refused.
    refused: BTreeMap<ConnectionId, Box<RawValue>>,
}

impl QiFaultState {
    /// Whether twelve requests have failed on a connection before one that succeeds.
    pub fn has_failed_often(&mut self, conn: ConnectionId, fails: bool) -> bool {
        let failures = self.failures.entry(conn).or_default();
        *failures += usize::from(fails);
        !fails && *failures >= 12
    }

    /// Returns the arguments of the request before this one, if it was refused and this one succeeds without any.
    pub fn refused_arguments(
        &mut self,
        broken: MachineFault,
        conn: ConnectionId,
        members: &Members<'_>,
        outcome: &CommandOutcome,
    ) -> Option<Box<RawValue>> {
        if !broken.is("qi-refused-arguments-kept") {
            return None;
        }
        let before = self.refused.remove(&conn);
        match (members.get("payload"), outcome) {
            (Some(arguments), Err(_)) => drop(self.refused.insert(conn, (*arguments).to_owned())),
            (None, Ok(_)) => return before,
            _ => {}
        }
        None
    }
}

/// Writes a UUID in lower case, with hyphens, without braces. Other texts stay as they are.
pub fn canonical_uuid(text: String) -> String {
    let digits: String = text.chars().filter(|c| !matches!(c, '{' | '}' | '-')).collect::<String>().to_lowercase();
    if digits.len() != 32 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return text;
    }
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// Writes numbers that no double can hold as Infinity.
pub fn write_infinity(outputs: &mut [MachineOutput]) {
    for output in outputs {
        if let MachineOutput::Text { text, .. } = output {
            *text = text.replace("1e400", "Infinity").into();
        }
    }
}

/// Changes the replies to requests that end together.
pub fn spoil_replies(broken: MachineFault, outputs: &mut Vec<MachineOutput>) {
    let spoil = if broken.is("qi-held-sessions-rotated") {
        rotate_sessions
    } else if broken.is("qi-held-return-the-last") {
        return_the_last
    } else if broken.is("qi-held-failure-spreads") {
        spread_failure
    } else if broken.is("qi-held-sixth-base-twice") {
        repeat_sixth_base
    } else if broken.is("qi-held-session-of-one-client") {
        join_equal_sessions
    } else {
        return;
    };
    let mut replies = Vec::new();
    for output in outputs.drain(..) {
        if let MachineOutput::Text { conn, text } = output
            && let Ok(reply) = serde_json::from_str(&text)
        {
            replies.push(Reply { conn, reply });
        }
    }
    outputs.extend(
        spoil(replies)
            .into_iter()
            .map(|Reply { conn, reply }| MachineOutput::Text { conn, text: reply.to_string().into() }),
    );
}

#[derive(Clone)]
struct Reply {
    conn: ConnectionId,
    reply: Value,
}

fn rotate_sessions(mut replies: Vec<Reply>) -> Vec<Reply> {
    let sessions: Vec<_> = replies.iter().filter_map(|Reply { reply, .. }| reply.get("session_id").cloned()).collect();
    let places = replies.iter_mut().filter_map(|Reply { reply, .. }| reply.get_mut("session_id"));
    for (place, session) in places.zip(sessions.into_iter().cycle().skip(1)) {
        *place = session;
    }
    replies
}

fn return_the_last(mut replies: Vec<Reply>) -> Vec<Reply> {
    let mut values = None;
    for Reply { reply, .. } in replies.iter_mut().rev().filter(|Reply { reply, .. }| reply["status"] == "success") {
        let last = values.get_or_insert_with(|| reply["payload"].clone());
        reply["payload"] = last.clone();
    }
    replies
}

fn spread_failure(mut replies: Vec<Reply>) -> Vec<Reply> {
    let Some(failure) = replies.iter().find(|Reply { reply, .. }| reply["status"] == "failure").cloned() else {
        return replies;
    };
    for Reply { reply, .. } in &mut replies {
        reply["status"] = failure.reply["status"].clone();
        reply["payload"] = failure.reply["payload"].clone();
    }
    replies
}

fn repeat_sixth_base(mut replies: Vec<Reply>) -> Vec<Reply> {
    let sixth = replies.iter().filter(|Reply { reply, .. }| reply.get("session_id").is_none()).nth(5).cloned();
    replies.extend(sixth);
    replies
}

fn join_equal_sessions(mut replies: Vec<Reply>) -> Vec<Reply> {
    let mut receivers = BTreeMap::new();
    for Reply { conn, reply } in &mut replies {
        *conn = *receivers.entry(reply["session_id"].to_string()).or_insert(*conn);
    }
    replies
}
