//! The 2200/2300 hub on some occasions only: what goes wrong once, in one situation or for one kind of frame, and is right elsewhere.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, frame, inside, outside};
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

/// All of them.
pub static LAPSES: &[Fault] = &[
    outside(
        P,
        "qi-base-second-reply-doubled",
        "The second reply to a base request comes twice.",
        &["QI-020"],
        const { &[frame(&[Cond::Has("/status"), Cond::Lacks("/session_id")]).only(2).does(Act::Double)] },
    ),
    outside(
        P,
        "qi-second-session-silent",
        "The second extended request is not answered.",
        &["QI-020"],
        const { &[frame(&[Cond::Has("/status"), Cond::Has("/session_id")]).only(2).does(Act::Drop)] },
    ),
    outside(
        P,
        "qi-no-payload-silent",
        "A base request without payload is not answered.",
        &["QI-020"],
        const {
            &[frame(&[Cond::Has("/status")])
                .after(&[Cond::Lacks("/payload"), Cond::Lacks("/session_id")])
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "qi-third-base-silent",
        "Every third base request is not answered.",
        &["QI-005", "QI-013", "QI-020"],
        const { &[frame(&[Cond::Has("/status"), Cond::Lacks("/session_id")]).every(3).does(Act::Drop)] },
    ),
    outside(
        P,
        "qi-other-version-silent",
        "A request of another version than the hub's is not answered.",
        &["QI-013"],
        const { &[frame(&[Cond::Has("/status")]).after(&[Cond::Is("/version", "0.1.1")]).does(Act::Drop)] },
    ),
    outside(
        P,
        "qi-first-base-silent",
        "The first base request is not answered.",
        &["QI-003", "QI-009", "QI-020"],
        const { &[frame(&[Cond::Has("/status"), Cond::Lacks("/session_id")]).only(1).does(Act::Drop)] },
    ),
    outside(
        P,
        "qi-base-failure-with-session",
        "The failure of a base request has a session_id.",
        &["QI-022"],
        const {
            &[frame(&[Cond::Is("/status", "failure"), Cond::Lacks("/session_id")])
                .does(Act::Set("/session_id", r#""base""#))]
        },
    ),
    outside(
        P,
        "qi-base-failure-twice",
        "The failure of a base request is told twice.",
        &["QI-020"],
        const { &[frame(&[Cond::Is("/status", "failure"), Cond::Lacks("/session_id")]).does(Act::Double)] },
    ),
    outside(
        P,
        "qi-unknown-command-answered-twice",
        "That there is no such command is told twice.",
        &["QI-020"],
        const {
            &[frame(&[Cond::Is("/status", "failure")])
                .after(&[Cond::Is("/command", "no_such_command")])
                .does(Act::Double)]
        },
    ),
    inside(P, "qi-empty-payload-refused", "The command ping fails when its payload is an empty object.", &["QI-006"]),
    inside(
        P,
        "qi-session-canonical",
        "A session_id that is a UUID comes back in lower case, with hyphens and without braces.",
        &["QI-025"],
    ),
    inside(P, "qi-session-trimmed", "White space at the ends of a session_id is lost.", &["QI-025"]),
    inside(P, "qi-session-composed", "A session_id comes back in Unicode's normal form C.", &["QI-025"]),
    outside(
        P,
        "qi-session-number",
        "A session_id of digits comes back as a number.",
        &["QI-025", "QI-029"],
        const { &[frame(&[Cond::Is("/session_id", "12345")]).does(Act::Set("/session_id", "12345"))] },
    ),
    outside(
        P,
        "qi-session-lost-with-unknown-command",
        "That there is no such command is said without the session_id.",
        &["QI-024"],
        const {
            &[frame(&[Cond::Is("/status", "failure"), Cond::Has("/session_id")])
                .after(&[Cond::Is("/command", "no_such_command")])
                .does(Act::Remove("/session_id"))]
        },
    ),
    outside(
        P,
        "qi-session-unknown-command-silent",
        "In a session nothing is said to an unknown command.",
        &["QI-020"],
        const {
            &[frame(&[Cond::Is("/status", "failure"), Cond::Has("/session_id")])
                .after(&[Cond::Is("/command", "no_such_command")])
                .does(Act::Drop)]
        },
    ),
    inside(
        P,
        "qi-session-clings",
        "After an extended request, replies to base requests on the connection have its session_id.",
        &["QI-022"],
    ),
    inside(
        P,
        "qi-session-of-the-failure",
        "After a failure the next success on the connection has the session_id of the failure.",
        &["QI-023", "QI-027"],
    ),
    inside(
        P,
        "qi-session-kept-by-first",
        "Replies go to the connection that used their session_id first, whoever asked and even when it is gone.",
        &["QI-020"],
    ),
    inside(
        P,
        "qi-session-never-freed",
        "A session belongs to the connection that used it first, even when that is long gone; others are refused.",
        &["QI-025"],
    ),
    inside(
        P,
        "qi-session-replayed",
        "What the first command of a session returned is returned by all its commands.",
        &["QI-006"],
    ),
    inside(
        P,
        "qi-failure-sticks",
        "After a failure on the connection, commands without return values are said to fail.",
        &["QI-015"],
    ),
    inside(
        P,
        "qi-version-echoed",
        "A reply has the version of its request, even if that is no version at all.",
        &["QI-011", "QI-012"],
    ),
    inside(P, "qi-arguments-spread", "An argument called command is taken for the command.", &["QI-006"]),
    inside(P, "qi-arguments-linger", "What was echoed to anybody before is echoed again.", &["QI-006"]),
    outside(
        P,
        "qi-number-rounded",
        "An integer beyond 2^53 is rounded as a float.",
        &["QI-006"],
        const {
            &[frame(&[Cond::Is("/status", "success"), Cond::Has("/payload/big")])
                .does(Act::Set("/payload/big", "9007199254740992"))]
        },
    ),
    outside(
        P,
        "qi-private-command-silent",
        "Nothing is said to a command called __class__.",
        &["QI-005"],
        const { &[frame(&[Cond::Has("/status")]).after(&[Cond::Is("/command", "__class__")]).does(Act::Drop)] },
    ),
    inside(P, "qi-private-commands", "Commands whose names begin with two underscores succeed.", &["QI-005"]),
];
