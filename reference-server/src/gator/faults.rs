//! Gator's deliberate defects, in the order of the document.

use std::time::Duration;

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, frame, inside, outside};

const SUCCESS: &[Cond] = &[Cond::Is("/result", "success")];
const FAILURE: &[Cond] = &[Cond::Is("/result", "error")];
/// A log on its way up.
const LOG_UP: &[Cond] = &[Cond::Is("/action", "log"), Cond::Lacks("/result")];
/// A stop on its way down.
const STOP_DOWN: &[Cond] = &[Cond::Is("/action", "stop"), Cond::Lacks("/result")];

/// All of them.
pub static FAULTS: &[Fault] = &[
    // Format.
    outside(
        P,
        "gator-frame-not-json",
        "After each success comes a text that is not JSON.",
        &["GAT-001"],
        const { &[frame(SUCCESS).does(Act::Also("done"))] },
    ),
    outside(
        P,
        "gator-frame-array",
        "After each success comes an array.",
        &["GAT-001"],
        const { &[frame(SUCCESS).does(Act::Also("[]"))] },
    ),
    outside(
        P,
        "gator-action-array",
        "The action of a stop on its way down is an array.",
        &["GAT-003", "GAT-004", "GAT-037", "GAT-040"],
        const { &[frame(STOP_DOWN).does(Act::Retype("/action"))] },
    ),
    outside(
        P,
        "gator-action-missing",
        "A stop on its way down has no action.",
        &["GAT-003", "GAT-004", "GAT-037", "GAT-040"],
        const { &[frame(STOP_DOWN).does(Act::Remove("/action"))] },
    ),
    // Ids.
    outside(
        P,
        "gator-success-without-id",
        "A success does not say which request it answers.",
        &["GAT-005", "GAT-006", "GAT-007", "GAT-022", "GAT-032", "GAT-041"],
        const { &[frame(SUCCESS).does(Act::Remove("/rsp_id"))] },
    ),
    outside(
        P,
        "gator-success-other-id",
        "A success is the answer to request -1.",
        &["GAT-005", "GAT-006", "GAT-007", "GAT-009", "GAT-022", "GAT-023", "GAT-032", "GAT-041"],
        const { &[frame(SUCCESS).does(Act::Set("/rsp_id", "-1"))] },
    ),
    outside(
        P,
        "gator-success-id-text",
        "A success carries the request's id as a string.",
        &["GAT-005", "GAT-006", "GAT-007", "GAT-022", "GAT-032", "GAT-041"],
        const { &[frame(SUCCESS).does(Act::Retype("/rsp_id"))] },
    ),
    outside(
        P,
        "gator-success-id-misnamed",
        "A success carries the request's id as req_id.",
        &["GAT-005", "GAT-006", "GAT-007", "GAT-022", "GAT-032", "GAT-041"],
        const { &[frame(SUCCESS).does(Act::Rename("/rsp_id", "req_id"))] },
    ),
    outside(
        P,
        "gator-failure-without-id",
        "A failure does not say which request it answers.",
        &["GAT-005", "GAT-020"],
        const { &[frame(FAILURE).does(Act::Remove("/rsp_id"))] },
    ),
    inside(P, "gator-zero-id-lost", "The id 0 is taken for none.", &["GAT-005", "GAT-006"]),
    inside(P, "gator-text-id-lost", "Ids that are not numbers are not copied.", &["GAT-006"]),
    inside(P, "gator-large-id-rounded", "Large ids are copied as floating-point numbers.", &["GAT-006"]),
    inside(
        P,
        "gator-one-outstanding",
        "While a request is being answered, which takes 30 ms, further ones on its connection are lost.",
        &["GAT-007"],
    ),
    outside(
        P,
        "gator-answered-twice",
        "Every success is sent twice.",
        &["GAT-009"],
        const { &[frame(SUCCESS).does(Act::Double)] },
    ),
    outside(
        P,
        "gator-failure-sent-twice",
        "Every failure is sent twice.",
        &["GAT-009"],
        const { &[frame(FAILURE).does(Act::Double)] },
    ),
    outside(
        P,
        "gator-success-lost",
        "No success is sent.",
        &["GAT-009", "GAT-022", "GAT-032", "GAT-039", "GAT-041"],
        const { &[frame(SUCCESS).does(Act::Drop)] },
    ),
    outside(
        P,
        "gator-failure-lost",
        "No failure is sent.",
        &["GAT-009", "GAT-012", "GAT-021"],
        const { &[frame(FAILURE).does(Act::Drop)] },
    ),
    outside(
        P,
        "gator-success-misrouted",
        "Every success goes to another connection.",
        &["GAT-009", "GAT-022", "GAT-032", "GAT-039", "GAT-041"],
        const { &[frame(SUCCESS).does(Act::Misroute)] },
    ),
    inside(P, "gator-id-demanded", "A request without an id is not answered.", &["GAT-023"]),
    // Posted requests.
    inside(P, "gator-posted-answered", "Posted requests are answered.", &["GAT-010", "GAT-040"]),
    inside(P, "gator-posted-failure-answered", "Posted requests that fail are answered.", &["GAT-011"]),
    inside(P, "gator-posted-by-default", "A request that does not say so is posted.", &["GAT-013"]),
    inside(P, "gator-garbage-ignored", "What cannot be decoded is not answered.", &["GAT-012", "GAT-021"]),
    inside(P, "gator-garbage-closes", "What cannot be decoded closes the connection.", &["GAT-012", "GAT-021"]),
    // Responses.
    outside(
        P,
        "gator-result-ok",
        "The result of a success is ok.",
        &["GAT-014", "GAT-032"],
        const { &[frame(SUCCESS).does(Act::Set("/result", r#""ok""#))] },
    ),
    outside(
        P,
        "gator-result-missing",
        "A success has no result.",
        // It looks like a request then, one to log without a message.
        &["GAT-009", "GAT-025", "GAT-032", "GAT-039", "GAT-041"],
        const { &[frame(SUCCESS).does(Act::Remove("/result"))] },
    ),
    outside(
        P,
        "gator-success-without-action",
        "A success does not repeat the action.",
        &["GAT-015", "GAT-032", "GAT-041"],
        const { &[frame(SUCCESS).does(Act::Remove("/action"))] },
    ),
    outside(
        P,
        "gator-success-other-action",
        "A success repeats another action.",
        &["GAT-015", "GAT-032", "GAT-041"],
        const { &[frame(SUCCESS).does(Act::Set("/action", r#""done""#))] },
    ),
    outside(
        P,
        "gator-success-without-payload",
        "A success has no payload.",
        &["GAT-016"],
        const { &[frame(SUCCESS).does(Act::Remove("/payload"))] },
    ),
    outside(
        P,
        "gator-success-payload-array",
        "The payload of a success is an array.",
        &["GAT-016"],
        const { &[frame(SUCCESS).does(Act::Set("/payload", "[]"))] },
    ),
    outside(
        P,
        "gator-result-failure",
        "The result of a failure is failure.",
        // Or that of a success without the members of one.
        &["GAT-012", "GAT-014", "GAT-015", "GAT-016", "GAT-017", "GAT-021", "GAT-026", "GAT-028"],
        const { &[frame(FAILURE).does(Act::Set("/result", r#""failure""#))] },
    ),
    outside(
        P,
        "gator-failure-unexplained",
        "A failure has no reason.",
        &["GAT-018"],
        const { &[frame(FAILURE).does(Act::Remove("/reason"))] },
    ),
    outside(
        P,
        "gator-failure-reason-empty",
        "The reason of a failure is empty.",
        &["GAT-018"],
        const { &[frame(FAILURE).does(Act::Set("/reason", r#""""#))] },
    ),
    outside(
        P,
        "gator-failure-reason-array",
        "The reason of a failure is an array.",
        &["GAT-018"],
        const { &[frame(FAILURE).does(Act::Retype("/reason"))] },
    ),
    inside(P, "gator-unknown-action-succeeds", "Unknown actions succeed.", &["GAT-020"]),
    inside(P, "gator-unknown-action-ignored", "Unknown actions are not answered.", &["GAT-009"]),
    outside(
        P,
        "gator-failure-closes",
        "After a failure the connection is closed.",
        &["GAT-022"],
        const { &[frame(FAILURE).does(Act::ThenClose(1000))] },
    ),
    // Log.
    inside(
        P,
        "gator-log-unknown",
        "There is no action log.",
        &["GAT-015", "GAT-024", "GAT-027", "GAT-029", "GAT-030", "GAT-031", "GAT-032", "GAT-034", "GAT-036"],
    ),
    outside(
        P,
        "gator-forwarded-log-without-message",
        "A log on its way up has no message.",
        &["GAT-025", "GAT-034"],
        const { &[frame(LOG_UP).does(Act::Remove("/payload/message"))] },
    ),
    inside(P, "gator-message-optional", "A log without a message is accepted.", &["GAT-026"]),
    inside(P, "gator-critical-refused", "A log of severity CRITICAL is refused.", &["GAT-027", "GAT-034"]),
    inside(P, "gator-debug-refused", "A log of severity DEBUG is refused.", &["GAT-027", "GAT-034"]),
    outside(
        P,
        "gator-forwarded-severity-number",
        "The severity of a log on its way up is a number.",
        &["GAT-027", "GAT-035"],
        const { &[frame(LOG_UP).does(Act::Set("/payload/severity", "30"))] },
    ),
    inside(P, "gator-severity-unchecked", "Any severity is accepted.", &["GAT-028"]),
    inside(P, "gator-severity-demanded", "A log without a severity is refused.", &["GAT-029"]),
    inside(P, "gator-severity-defaults-to-debug", "A log without a severity is kept as DEBUG.", &["GAT-029"]),
    inside(P, "gator-timestamp-demanded", "A log without a timestamp is refused.", &["GAT-030"]),
    inside(P, "gator-timestamp-defaults-to-zero", "A log without a timestamp is kept as of 1970.", &["GAT-030"]),
    inside(
        P,
        "gator-timestamp-defaults-to-milliseconds",
        "A log without a timestamp gets the current time in milliseconds.",
        &["GAT-030"],
    ),
    inside(
        P,
        "gator-timestamp-replaced",
        "A log is kept and passed on with the time of its arrival, whatever it says.",
        &["GAT-031", "GAT-035"],
    ),
    outside(
        P,
        "gator-log-not-forwarded",
        "Logs stay with the hub.",
        &["GAT-034"],
        const { &[frame(LOG_UP).does(Act::Drop)] },
    ),
    inside(P, "gator-log-to-children", "Logs are passed on to children, too.", &["GAT-034"]),
    inside(P, "gator-child-logs-stay", "Logs of children stay with the hub.", &["GAT-034"]),
    outside(
        P,
        "gator-forwarded-log-not-posted",
        "A log on its way up is not posted.",
        &["GAT-033"],
        const { &[frame(LOG_UP).does(Act::Set("/posted", "false"))] },
    ),
    outside(
        P,
        "gator-forwarded-log-info",
        "Every log is INFO on its way up.",
        &["GAT-035"],
        const { &[frame(LOG_UP).does(Act::Set("/payload/severity", r#""INFO""#))] },
    ),
    outside(
        P,
        "gator-forwarded-log-undated",
        "A log on its way up has no timestamp.",
        &["GAT-035"],
        const { &[frame(LOG_UP).does(Act::Remove("/payload/timestamp"))] },
    ),
    inside(P, "gator-log-not-stored", "Logs are not kept.", &["GAT-036"]),
    inside(P, "gator-posted-log-not-stored", "Posted logs are not kept.", &["GAT-036"]),
    // Stop.
    inside(
        P,
        "gator-stop-unknown",
        "There is no action stop.",
        &["GAT-003", "GAT-024", "GAT-037", "GAT-040", "GAT-041", "GAT-042"],
    ),
    outside(
        P,
        "gator-stop-not-forwarded",
        "A stop does not reach the children.",
        &["GAT-003", "GAT-037", "GAT-040"],
        const { &[frame(STOP_DOWN).does(Act::Drop)] },
    ),
    inside(P, "gator-stop-to-one-child", "A stop reaches one of the children only.", &["GAT-037", "GAT-040"]),
    outside(
        P,
        "gator-stop-answered-first",
        "A stop is passed on 700 ms after it has been answered.",
        &["GAT-038"],
        const { &[frame(STOP_DOWN).does(Act::Delay(Duration::from_millis(700)))] },
    ),
    inside(P, "gator-stop-waits-for-children", "A stop is answered when the last child has gone.", &["GAT-039"]),
    inside(P, "gator-posted-stop-kept", "A posted stop is not passed on.", &["GAT-040"]),
    inside(P, "gator-posted-stop-answered", "A posted stop is answered.", &["GAT-010", "GAT-040"]),
    inside(P, "gator-stop-payload-demanded", "A stop without a payload is refused.", &["GAT-041"]),
    inside(
        P,
        "gator-stop-empty-payload-refused",
        "A stop with an empty payload is refused.",
        &["GAT-003", "GAT-024", "GAT-037", "GAT-040", "GAT-041", "GAT-042"],
    ),
    inside(P, "gator-stop-job-survives", "Running tasks survive a stop.", &["GAT-042"]),
    inside(P, "gator-stop-keeps-scheduling", "Queued tasks are still started after a stop.", &["GAT-043"]),
    // What the document leaves open or only allows.
    outside(
        P,
        "gator-answers-overtake",
        "Every other success takes 20 ms, and later ones overtake it.",
        &["GAT-008"],
        const { &[frame(SUCCESS).every(2).does(Act::Delay(Duration::from_millis(20)))] },
    ),
    outside(
        P,
        "gator-failure-with-action",
        "A failure names an action.",
        &["GAT-019"],
        const { &[frame(FAILURE).does(Act::Set("/action", r#""some_action""#))] },
    ),
    outside(
        P,
        "gator-heartbeat-upwards",
        "A heartbeat follows every log on its way up.",
        &["GAT-044"],
        const { &[frame(LOG_UP).does(Act::Also(r#"{"action":"heartbeat","posted":true,"payload":{}}"#))] },
    ),
];
