//! The 2200/2300 hub on some occasions only: what goes wrong once, in one situation or for one kind of frame, and is right elsewhere.

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, frame, inside, outside};

/// All of them.
pub static LAPSES: &[Fault] = &[
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
];
