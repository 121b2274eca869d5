//! The deliberate defects of the 2200/2300 hub.

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, frame, inside, outside};

const REPLY: &[Cond] = &[Cond::Has("/status")];
const SUCCESS: &[Cond] = &[Cond::Is("/status", "success")];
const VALUES: &[Cond] = &[Cond::Is("/status", "success"), Cond::Has("/payload")];
const FAILURE: &[Cond] = &[Cond::Is("/status", "failure")];
const EXTENDED: &[Cond] = &[Cond::Has("/status"), Cond::Has("/session_id")];
const BASE: &[Cond] = &[Cond::Has("/status"), Cond::Lacks("/session_id")];
const BASE_SUCCESS: &[Cond] = &[Cond::Is("/status", "success"), Cond::Lacks("/session_id")];

/// All of them.
pub static FAULTS: &[Fault] = &[
    outside(
        P,
        "qi-extra-array",
        "Every reply is followed by a JSON array.",
        &["QI-001"],
        const { &[frame(REPLY).does(Act::Also("[]"))] },
    ),
    outside(
        P,
        "qi-extra-not-json",
        "Every reply is followed by a Python literal that is not JSON.",
        &["QI-001"],
        const { &[frame(REPLY).does(Act::Also("{'status': 'success', 'payload': None}"))] },
    ),
    inside(P, "qi-command-optional", "A request without a command is answered with success.", &["QI-003", "QI-030"]),
    inside(
        P,
        "qi-command-ignored",
        "Every command that succeeds returns what get_static returns.",
        &["QI-004", "QI-006", "QI-017"],
    ),
    inside(P, "qi-unknown-command-succeeds", "An unknown command is answered with success.", &["QI-005"]),
    inside(P, "qi-arguments-lost", "Arguments do not reach the command.", &["QI-006"]),
    inside(P, "qi-payload-demanded", "A command without arguments fails when the payload is left out.", &["QI-007"]),
    inside(P, "qi-payload-type-unchecked", "A payload that is no object is taken for none.", &["QI-008"]),
    inside(P, "qi-version-optional", "A request without a version is served.", &["QI-009", "QI-030"]),
    outside(
        P,
        "qi-reply-without-version",
        "Replies lack their version.",
        &["QI-010", "QI-029"],
        const { &[frame(REPLY).does(Act::Remove("/version"))] },
    ),
    outside(
        P,
        "qi-reply-version-number",
        "The version of a reply is a number.",
        &["QI-010"],
        const { &[frame(REPLY).does(Act::Set("/version", "0.1"))] },
    ),
    outside(
        P,
        "qi-reply-version-short",
        "The version of a reply has two numbers instead of three.",
        &["QI-011"],
        const { &[frame(REPLY).does(Act::Set("/version", r#""0.1""#))] },
    ),
    inside(P, "qi-version-unchecked", "Requests of any version are served.", &["QI-013"]),
    inside(P, "qi-version-must-equal", "A compatible version that differs from the hub's own is refused.", &["QI-013"]),
    outside(
        P,
        "qi-failure-status-error",
        "A failure has the status error.",
        &["QI-005", "QI-008", "QI-013", "QI-014", "QI-015"],
        const { &[frame(FAILURE).does(Act::Set("/status", r#""error""#))] },
    ),
    outside(
        P,
        "qi-extra-status-unknown",
        "Every reply is followed by one whose status is neither success nor failure.",
        &["QI-014", "QI-020"],
        const { &[frame(REPLY).does(Act::Also(r#"{"status":"pending","payload":{},"version":"0.1.0"}"#))] },
    ),
    outside(
        P,
        "qi-status-capital",
        "A success has the status SUCCESS.",
        &["QI-014", "QI-015"],
        const { &[frame(SUCCESS).does(Act::Set("/status", r#""SUCCESS""#))] },
    ),
    inside(
        P,
        "qi-failure-reported-as-success",
        "A command that fails, or does not exist, reports success.",
        &["QI-005", "QI-015"],
    ),
    inside(P, "qi-success-reported-as-failure", "A command that succeeds reports failure.", &["QI-015"]),
    outside(
        P,
        "qi-success-payload-string",
        "The return values of a success come as a string.",
        &["QI-016"],
        const { &[frame(VALUES).does(Act::Retype("/payload"))] },
    ),
    outside(
        P,
        "qi-success-payload-list",
        "The return values of a success come as a list.",
        &["QI-016"],
        const { &[frame(VALUES).does(Act::Set("/payload", "[1]"))] },
    ),
    outside(
        P,
        "qi-success-payload-null",
        "A success that returns nothing has a payload of null.",
        &["QI-016", "QI-017"],
        const { &[frame(&[Cond::Is("/status", "success"), Cond::Lacks("/payload")]).does(Act::Set("/payload", "null"))] },
    ),
    outside(
        P,
        "qi-failure-payload-missing",
        "A failure does not say why.",
        &["QI-018", "QI-029"],
        const { &[frame(FAILURE).does(Act::Remove("/payload"))] },
    ),
    outside(
        P,
        "qi-failure-payload-number",
        "A failure says why with a number.",
        &["QI-018"],
        const { &[frame(FAILURE).does(Act::Set("/payload", "17"))] },
    ),
    outside(
        P,
        "qi-failure-payload-empty",
        "A failure says why with an empty string.",
        &["QI-019"],
        const { &[frame(FAILURE).does(Act::Set("/payload", r#""""#))] },
    ),
    outside(
        P,
        "qi-failure-payload-object",
        "A failure says why with an object.",
        &["QI-018"],
        const { &[frame(FAILURE).does(Act::Set("/payload", r#"{"reason":"it failed"}"#))] },
    ),
    outside(
        P,
        "qi-base-reply-twice",
        "A base request is answered twice.",
        &["QI-020"],
        const { &[frame(BASE).does(Act::Double)] },
    ),
    outside(
        P,
        "qi-extended-reply-twice",
        "An extended request is answered twice.",
        &["QI-020"],
        const { &[frame(EXTENDED).does(Act::Double)] },
    ),
    outside(
        P,
        "qi-failure-silent",
        "A command that fails is not answered.",
        &["QI-013", "QI-020"],
        const { &[frame(FAILURE).does(Act::Drop)] },
    ),
    outside(
        P,
        "qi-every-fifth-silent",
        "Every fifth extended request is not answered.",
        &["QI-020", "QI-027", "QI-028"],
        const { &[frame(EXTENDED).every(5).does(Act::Drop)] },
    ),
    outside(
        P,
        "qi-base-reply-with-session",
        "The reply to a base request has a session_id.",
        &["QI-022"],
        const { &[frame(BASE_SUCCESS).does(Act::Set("/session_id", r#""base""#))] },
    ),
    outside(
        P,
        "qi-session-missing-on-success",
        "A success lacks the session_id of its request.",
        &["QI-023", "QI-027", "QI-028", "QI-029"],
        const { &[frame(&[Cond::Is("/status", "success"), Cond::Has("/session_id")]).does(Act::Remove("/session_id"))] },
    ),
    outside(
        P,
        "qi-session-missing-on-failure",
        "A failure lacks the session_id of its request.",
        &["QI-024", "QI-029"],
        const { &[frame(&[Cond::Is("/status", "failure"), Cond::Has("/session_id")]).does(Act::Remove("/session_id"))] },
    ),
    outside(
        P,
        "qi-session-changed-on-success",
        "A success has a session_id that is not the request's.",
        &["QI-023", "QI-027", "QI-028"],
        const {
            &[frame(&[Cond::Is("/status", "success"), Cond::Has("/session_id")])
                .does(Act::Set("/session_id", r#""another""#))]
        },
    ),
    outside(
        P,
        "qi-session-changed-on-failure",
        "A failure has a session_id that is not the request's.",
        &["QI-024"],
        const {
            &[frame(&[Cond::Is("/status", "failure"), Cond::Has("/session_id")])
                .does(Act::Set("/session_id", r#""another""#))]
        },
    ),
    inside(
        P,
        "qi-session-stale",
        "All extended replies of a connection have the session_id of its first.",
        &["QI-023", "QI-027"],
    ),
    inside(P, "qi-session-truncated", "A session_id is cut after 36 characters, the length of a UUID.", &["QI-025"]),
    inside(P, "qi-session-ascii", "Characters beyond ASCII in a session_id become question marks.", &["QI-025"]),
    inside(P, "qi-session-empty-dropped", "An empty session_id is not copied into the reply.", &["QI-025"]),
    // Which of its keys a hub does not find cannot be told from outside: what it breaks is the request as a whole.
    inside(
        P,
        "qi-keys-renamed",
        "Requests are read with function and format; those with command and version are dropped.",
        &["QI-003", "QI-009", "QI-020"],
    ),
    inside(
        P,
        "qi-command-never-read",
        "Every request that can be read is answered as get_static, also those that should fail.",
        &["QI-004", "QI-005", "QI-006", "QI-015"],
    ),
    inside(P, "qi-session-demanded", "A request without a session_id fails.", &["QI-015", "QI-021"]),
    inside(P, "qi-deaf-after-failure", "After a failure the connection gets no more replies.", &["QI-020", "QI-030"]),
    inside(P, "qi-replies-published", "Every reply goes to all connections.", &["QI-031"]),
    inside(P, "qi-upgrade-refused", "WebSocket upgrades are refused with HTTP 400.", &["QI-032"]),
    outside(
        P,
        "qi-reply-version-one",
        "Replies are in version 1.0.0 of the format, which is a beta.",
        &["QI-012"],
        const { &[frame(REPLY).does(Act::Set("/version", r#""1.0.0""#))] },
    ),
    outside(
        P,
        "qi-extra-not-json-nan",
        "Every reply is followed by another with a NaN in it, as Python writes it.",
        &["QI-002", "QI-020", "QI-030"],
        const { &[frame(REPLY).does(Act::Also(r#"{"status":"success","payload":{"load":NaN},"version":"0.1.0"}"#))] },
    ),
    inside(P, "qi-garbage-succeeds", "What is no JSON object is answered with success.", &["QI-030"]),
];
