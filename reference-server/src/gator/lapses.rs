//! Gator on some occasions only: what goes wrong once, in one situation or for one kind of frame, and is right elsewhere.

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, frame, inside, outside};

/// All of them.
pub static LAPSES: &[Fault] = &[
    outside(
        P,
        "gator-wordless-log-unanswered",
        "A log without a message is not answered.",
        &["GAT-009"],
        const {
            &[frame(&[Cond::Is("/result", "error")])
                .after(&[Cond::Is("/action", "log"), Cond::Lacks("/payload/message")])
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "gator-other-severity-unanswered",
        "A log of severity FATAL is not answered.",
        &["GAT-009"],
        const { &[frame(&[Cond::Is("/result", "error")]).after(&[Cond::Is("/payload/severity", "FATAL")]).does(Act::Drop)] },
    ),
    outside(
        P,
        "gator-actionless-unanswered",
        "A request without action is not answered.",
        &["GAT-004"],
        const {
            &[frame(&[Cond::Is("/result", "error")])
                .after(&[Cond::Lacks("/action"), Cond::Has("/payload")])
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "gator-second-log-stays",
        "The second log on its way up is lost.",
        &["GAT-034"],
        const { &[frame(&[Cond::Is("/action", "log"), Cond::Lacks("/result")]).only(2).does(Act::Drop)] },
    ),
    outside(
        P,
        "gator-forwarded-twice",
        "Logs reach the parent twice.",
        &["GAT-034"],
        const { &[frame(&[Cond::Is("/action", "log"), Cond::Lacks("/result")]).does(Act::Double)] },
    ),
    outside(
        P,
        "gator-plain-log-unanswered",
        "A log without severity is not answered.",
        &["GAT-009"],
        const {
            &[frame(&[Cond::Is("/result", "success")])
                .after(&[Cond::Is("/action", "log"), Cond::Lacks("/payload/severity")])
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "gator-undated-log-unanswered",
        "A log without timestamp is not answered.",
        &["GAT-009"],
        const {
            &[frame(&[Cond::Is("/result", "success")])
                .after(&[Cond::Is("/action", "log"), Cond::Lacks("/payload/timestamp")])
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "gator-eighth-success-lost",
        "Every eighth success is lost.",
        &["GAT-007", "GAT-009", "GAT-023"],
        const { &[frame(&[Cond::Is("/result", "success")]).every(8).does(Act::Drop)] },
    ),
    outside(
        P,
        "gator-forwarded-log-without-payload",
        "A log on its way up has no payload.",
        &["GAT-025", "GAT-034"],
        const { &[frame(&[Cond::Is("/action", "log"), Cond::Lacks("/result")]).does(Act::Remove("/payload"))] },
    ),
    outside(
        P,
        "gator-forwarded-timestamp-text",
        "The timestamp of a log on its way up is a string.",
        &["GAT-031", "GAT-035"],
        const { &[frame(&[Cond::Is("/action", "log"), Cond::Lacks("/result")]).does(Act::Retype("/payload/timestamp"))] },
    ),
    outside(
        P,
        "gator-stop-payload-array",
        "The payload of a stop on its way down is an array.",
        &["GAT-041"],
        const { &[frame(&[Cond::Is("/action", "stop"), Cond::Lacks("/result")]).does(Act::Set("/payload", "[]"))] },
    ),
    outside(
        P,
        "gator-success-binary",
        "Every success comes in a binary frame, which is no message to anybody.",
        &["GAT-001", "GAT-002", "GAT-009", "GAT-032", "GAT-039", "GAT-041"],
        const { &[frame(&[Cond::Is("/result", "success")]).does(Act::AsBinary)] },
    ),
    inside(P, "gator-log-stored-as-warning", "Every log is kept as WARNING.", &["GAT-027", "GAT-029"]),
    inside(
        P,
        "gator-posted-answered-anonymously",
        "Posted requests are answered by something that does not say which it answers.",
        &["GAT-010", "GAT-011", "GAT-040"],
    ),
    inside(P, "gator-posted-invalid-log-answered", "A posted log whose payload is wrong is answered.", &["GAT-011"]),
    // The second time, and what was before.
    inside(
        P,
        "gator-used-id-ignored",
        "A request with an id that its connection has used before is ignored.",
        &["GAT-009"],
    ),
    inside(
        P,
        "gator-digits-taken-for-number",
        "An id that is a string of digits comes back as a number.",
        &["GAT-006"],
    ),
    inside(
        P,
        "gator-posted-persists",
        "A request that does not say so is posted if the one before it was.",
        &["GAT-013"],
    ),
    inside(P, "gator-posted-nameless-answered", "Posted requests without an id are answered.", &["GAT-010", "GAT-040"]),
    inside(P, "gator-posted-by-child-answered", "Posted requests of children are answered.", &["GAT-010"]),
    inside(
        P,
        "gator-success-names-previous-action",
        "A success names the action of the request before it.",
        &["GAT-015"],
    ),
    inside(
        P,
        "gator-garbage-after-posted-ignored",
        "What cannot be decoded is not answered after a posted request.",
        &["GAT-012", "GAT-021"],
    ),
    inside(
        P,
        "gator-second-garbage-ignored",
        "The second undecodable text of a connection is not answered.",
        &["GAT-021"],
    ),
    inside(
        P,
        "gator-third-garbage-ignored",
        "The third undecodable text of a connection is not answered.",
        &["GAT-021"],
    ),
    inside(
        P,
        "gator-garbage-takes-previous-id",
        "The failure for what cannot be decoded has the id of the request before it.",
        &["GAT-009"],
    ),
    // Values that look like none.
    inside(P, "gator-epoch-replaced", "A log of the timestamp 0 is kept with the current time.", &["GAT-031"]),
    inside(
        P,
        "gator-default-time-is-of-start",
        "A log without a timestamp is kept with the time at which the hub started.",
        &["GAT-030"],
    ),
    // On the way up.
    outside(
        P,
        "gator-debug-stays",
        "Logs of severity DEBUG stay with the hub.",
        &["GAT-034"],
        const {
            &[frame(&[Cond::Is("/action", "log"), Cond::Lacks("/result"), Cond::Is("/payload/severity", "DEBUG")])
                .does(Act::Drop)]
        },
    ),
    inside(P, "gator-percent-stays", "Logs with a percent sign in their message stay with the hub.", &["GAT-034"]),
    inside(P, "gator-message-trimmed", "White space at the ends of a message is lost.", &["GAT-035"]),
    inside(P, "gator-first-parent-only", "Logs go to the first parent that the hub ever had.", &["GAT-034"]),
    // On the way down.
    inside(P, "gator-stop-to-two-children", "A stop reaches two of the children only.", &["GAT-037", "GAT-040"]),
    inside(P, "gator-stop-of-child-kept", "A stop that a child asks for is not passed on.", &["GAT-037"]),
    inside(
        P,
        "gator-stop-of-parent-unanswered",
        "A stop that the parent asks for is not answered.",
        &["GAT-009", "GAT-039"],
    ),
    inside(
        P,
        "gator-stop-of-parent-spares-jobs",
        "Running tasks survive a stop that the parent asks for.",
        &["GAT-042"],
    ),
];
