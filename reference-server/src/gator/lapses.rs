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
];
