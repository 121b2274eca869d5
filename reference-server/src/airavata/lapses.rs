//! Airavata on some occasions only: what goes wrong once, in one situation or for one kind of frame, and is right elsewhere.

use std::time::Duration;

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, frame, inside, outside};

/// All of them.
pub static LAPSES: &[Fault] = &[
    outside(
        P,
        "airavata-id-in-array",
        "Ids of messages are arrays.",
        &["AIR-023", "AIR-034"],
        const { &[frame(&[Cond::Has("/id")]).does(Act::Retype("/id"))] },
    ),
    outside(
        P,
        "airavata-timestamp-in-array",
        "Timestamps are arrays.",
        &["AIR-024", "AIR-034"],
        const { &[frame(&[Cond::Has("/timestamp")]).does(Act::Retype("/timestamp"))] },
    ),
    outside(
        P,
        "airavata-data-number",
        "Whatever has data has the number 7 in its place.",
        &["AIR-026", "AIR-032", "AIR-062", "AIR-065"],
        const { &[frame(&[Cond::Has("/type")]).does(Act::Set("/data", "7"))] },
    ),
    outside(
        P,
        "airavata-error-empty-everywhere",
        "Every message has an error, an empty one.",
        &["AIR-027"],
        const { &[frame(&[Cond::Lacks("/error")]).does(Act::Set("/error", r#""""#))] },
    ),
    outside(
        P,
        "airavata-error-number",
        "Every message has a number as error.",
        &["AIR-027"],
        const { &[frame(&[Cond::Lacks("/error")]).does(Act::Set("/error", "7"))] },
    ),
    outside(
        P,
        "airavata-experiment-created-experiment-text",
        "The experiment of experiment_created comes as a string.",
        &["AIR-043"],
        const { &[frame(&[Cond::Is("/type", "experiment_created")]).does(Act::Retype("/data/experiment"))] },
    ),
    outside(
        P,
        "airavata-experiment-updated-experiment-text",
        "The experiment of experiment_updated comes as a string.",
        &["AIR-044"],
        const { &[frame(&[Cond::Is("/type", "experiment_updated")]).does(Act::Retype("/data/experiment"))] },
    ),
    outside(
        P,
        "airavata-experiment-completed-experiment-text",
        "The experiment of experiment_completed comes as a string.",
        &["AIR-045"],
        const { &[frame(&[Cond::Is("/type", "experiment_completed")]).does(Act::Retype("/data/experiment"))] },
    ),
    outside(
        P,
        "airavata-experiment-failed-experiment-text",
        "The experiment of experiment_failed comes as a string.",
        &["AIR-046"],
        const { &[frame(&[Cond::Is("/type", "experiment_failed")]).does(Act::Retype("/data/experiment"))] },
    ),
    outside(
        P,
        "airavata-task-created-task-text",
        "The task of task_created comes as a string.",
        &["AIR-048"],
        const { &[frame(&[Cond::Is("/type", "task_created")]).does(Act::Retype("/data/task"))] },
    ),
    outside(
        P,
        "airavata-task-updated-task-text",
        "The task of task_updated comes as a string.",
        &["AIR-049"],
        const { &[frame(&[Cond::Is("/type", "task_updated")]).does(Act::Retype("/data/task"))] },
    ),
    outside(
        P,
        "airavata-task-completed-task-text",
        "The task of task_completed comes as a string.",
        &["AIR-050"],
        const { &[frame(&[Cond::Is("/type", "task_completed")]).does(Act::Retype("/data/task"))] },
    ),
    outside(
        P,
        "airavata-task-failed-task-text",
        "The task of task_failed comes as a string.",
        &["AIR-051", "AIR-057"],
        const { &[frame(&[Cond::Is("/type", "task_failed")]).does(Act::Retype("/data/task"))] },
    ),
    outside(
        P,
        "airavata-worker-registered-worker-text",
        "The worker of worker_registered comes as a string.",
        &["AIR-053"],
        const { &[frame(&[Cond::Is("/type", "worker_registered")]).does(Act::Retype("/data/worker"))] },
    ),
    outside(
        P,
        "airavata-worker-registered-worker-id-number",
        "The worker of worker_registered has a number as id.",
        &["AIR-053", "AIR-056"],
        const { &[frame(&[Cond::Is("/type", "worker_registered")]).does(Act::Set("/data/worker/id", "7"))] },
    ),
    outside(
        P,
        "airavata-worker-updated-worker-text",
        "The worker of worker_updated comes as a string.",
        &["AIR-054"],
        const { &[frame(&[Cond::Is("/type", "worker_updated")]).does(Act::Retype("/data/worker"))] },
    ),
    outside(
        P,
        "airavata-worker-updated-worker-id-number",
        "The worker of worker_updated has a number as id.",
        &["AIR-054", "AIR-056"],
        const { &[frame(&[Cond::Is("/type", "worker_updated")]).does(Act::Set("/data/worker/id", "7"))] },
    ),
    outside(
        P,
        "airavata-worker-offline-worker-text",
        "The worker of worker_offline comes as a string.",
        &["AIR-055"],
        const { &[frame(&[Cond::Is("/type", "worker_offline")]).does(Act::Retype("/data/worker"))] },
    ),
    outside(
        P,
        "airavata-subscribed-type-number",
        "The resourceType of subscribed is a number.",
        &["AIR-066", "AIR-076"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .does(Act::Set("/data/resourceType", "7"))]
        },
    ),
    outside(
        P,
        "airavata-subscribed-second-lost",
        "The second subscribed is lost.",
        &["AIR-062", "AIR-065", "AIR-076", "AIR-102", "AIR-103"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .only(2)
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "airavata-subscribed-third-lost",
        "The third subscribed is lost.",
        &["AIR-062", "AIR-065", "AIR-100", "AIR-102", "AIR-103"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .only(3)
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "airavata-subscribed-fourth-lost",
        "The fourth subscribed is lost.",
        &["AIR-062", "AIR-065", "AIR-100", "AIR-102", "AIR-103"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .only(4)
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "airavata-subscribed-fifth-lost",
        "The fifth subscribed is lost.",
        &["AIR-062", "AIR-065", "AIR-100", "AIR-102", "AIR-103"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .only(5)
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "airavata-unsubscribed-type-number",
        "The resourceType of unsubscribed is a number.",
        &["AIR-069"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "unsubscribed")])
                .does(Act::Set("/data/resourceType", "7"))]
        },
    ),
    outside(
        P,
        "airavata-status-second-lost",
        "The second event of the system is lost.",
        &["AIR-090"],
        const { &[frame(&[Cond::Is("/type", "system_status"), Cond::Lacks("/data/action")]).only(2).does(Act::Drop)] },
    ),
    outside(
        P,
        "airavata-error-data-number",
        "Errors have the number 7 as data.",
        &["AIR-026"],
        const { &[frame(&[Cond::Is("/type", "error")]).does(Act::Set("/data", "7"))] },
    ),
    outside(
        P,
        "airavata-experiment-data-number",
        "Events with a experiment have the number 7 as data.",
        &["AIR-026", "AIR-043", "AIR-044", "AIR-045", "AIR-046", "AIR-078"],
        const { &[frame(&[Cond::Has("/data/experiment")]).does(Act::Set("/data", "7"))] },
    ),
    outside(
        P,
        "airavata-task-data-number",
        "Events with a task have the number 7 as data.",
        &["AIR-026", "AIR-048", "AIR-049", "AIR-050", "AIR-051", "AIR-057"],
        const { &[frame(&[Cond::Has("/data/task")]).does(Act::Set("/data", "7"))] },
    ),
    outside(
        P,
        "airavata-worker-data-number",
        "Events with a worker have the number 7 as data.",
        &["AIR-026", "AIR-087"],
        const { &[frame(&[Cond::Has("/data/worker")]).does(Act::Set("/data", "7"))] },
    ),
    outside(
        P,
        "airavata-progress-data-number",
        "Events of progress have the number 7 as data.",
        &["AIR-026", "AIR-047", "AIR-052", "AIR-060", "AIR-061", "AIR-078"],
        const { &[frame(&[Cond::Has("/data/progressPercent")]).does(Act::Set("/data", "7"))] },
    ),
    outside(
        P,
        "airavata-experiment-progress-id-number",
        "The experimentId of experiment_progress is a number.",
        &["AIR-047"],
        const { &[frame(&[Cond::Is("/type", "experiment_progress")]).does(Act::Set("/data/experimentId", "7"))] },
    ),
    outside(
        P,
        "airavata-task-progress-id-number",
        "The taskId of task_progress is a number.",
        &["AIR-052"],
        const { &[frame(&[Cond::Is("/type", "task_progress")]).does(Act::Set("/data/taskId", "7"))] },
    ),
    outside(
        P,
        "airavata-subscribed-seventh-lost",
        "The seventh subscription is not confirmed.",
        &["AIR-064", "AIR-100", "AIR-102", "AIR-103"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .only(7)
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "airavata-subscribed-eleventh-lost",
        "The eleventh subscription is not confirmed.",
        &["AIR-100", "AIR-103", "AIR-105"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .only(11)
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "airavata-subscribed-fourteenth-lost",
        "The fourteenth subscription is not confirmed.",
        &["AIR-100", "AIR-103", "AIR-104"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .only(14)
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "airavata-subscribed-twenty-second-lost",
        "The twenty-second subscription is not confirmed.",
        &["AIR-100", "AIR-103"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .only(22)
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "airavata-subscribed-thirty-second-lost",
        "The thirty-second subscription is not confirmed.",
        &["AIR-103"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .only(32)
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "airavata-subscribed-forty-second-lost",
        "The forty-second subscription is not confirmed.",
        &["AIR-103"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")])
                .only(42)
                .does(Act::Drop)]
        },
    ),
    outside(
        P,
        "airavata-experiment-updated-ninth-lost",
        "The ninth experiment_updated is lost.",
        &["AIR-078"],
        const { &[frame(&[Cond::Is("/type", "experiment_updated")]).only(9).does(Act::Drop)] },
    ),
    outside(
        P,
        "airavata-task-created-fifth-copy-lost",
        "The fifth copy of task_created is lost.",
        &["AIR-092"],
        const { &[frame(&[Cond::Is("/type", "task_created")]).only(5).does(Act::Drop)] },
    ),
    outside(
        P,
        "airavata-bad-token-pong",
        "Who has a bad token gets a pong before being sent away.",
        &["AIR-018"],
        const {
            &[frame(&[Cond::Is("/type", "error"), Cond::Is("/error", "Invalid or expired token")])
                .does(Act::Also(r#"{"type":"pong","id":"pong-0","timestamp":"2024-01-15T10:30:00Z"}"#))]
        },
    ),
    outside(
        P,
        "airavata-no-token-pong",
        "Who has no token gets a pong before being sent away.",
        &["AIR-018"],
        const {
            &[frame(&[Cond::Is("/type", "error"), Cond::Is("/error", "Authentication required")])
                .does(Act::Also(r#"{"type":"pong","id":"pong-0","timestamp":"2024-01-15T10:30:00Z"}"#))]
        },
    ),
    outside(
        P,
        "airavata-no-token-event",
        "Who has no token gets an event before being sent away.",
        &["AIR-018"],
        const {
            &[frame(&[Cond::Is("/type", "error"), Cond::Is("/error", "Authentication required")]).does(Act::Also(r#"{"type":"system_status","id":"system_1705314600","timestamp":"2024-01-15T10:30:00Z","data":{"totalConnections":150,"activeConnections":120,"totalMessages":15420,"messagesPerSecond":25.5,"averageLatency":"0.05s","uptime":"2h 30m 15s"}}"#))]
        },
    ),
    inside(
        P,
        "airavata-header-token-refused",
        "An upgrade with an Authorization header is refused.",
        &["AIR-010", "AIR-020"],
    ),
    inside(
        P,
        "airavata-tasks-endpoint-refuses-all",
        "Every token in the query is wrong at the endpoint for tasks.",
        &["AIR-002", "AIR-009", "AIR-011", "AIR-094"],
    ),
    inside(
        P,
        "airavata-projects-endpoint-refuses-all",
        "Every token in the query is wrong at the endpoint for projects.",
        &["AIR-003", "AIR-009", "AIR-011", "AIR-094"],
    ),
    inside(
        P,
        "airavata-user-endpoint-refuses-all",
        "Every token in the query is wrong at the endpoint for users.",
        &["AIR-004", "AIR-009", "AIR-011"],
    ),
    inside(
        P,
        "airavata-worker-events-reach-projects",
        "Events of workers reach the subscribers of projects.",
        &["AIR-089"],
    ),
    inside(P, "airavata-worker-events-reach-users", "Events of workers reach the subscribers of users.", &["AIR-089"]),
    inside(
        P,
        "airavata-system-subscribers-hear-everything",
        "Whoever is subscribed to the system gets the events of experiments and tasks as well.",
        &["AIR-077"],
    ),
    inside(
        P,
        "airavata-idle-hear-everything",
        "Whoever has subscribed to nothing gets every event.",
        &["AIR-007", "AIR-077"],
    ),
    inside(
        P,
        "airavata-double-subscriber-skipped",
        "Whoever fits an event by two subscriptions does not get it.",
        &["AIR-093"],
    ),
    inside(P, "airavata-subscriptions-counted", "Who has subscribed twice has to unsubscribe twice.", &["AIR-068"]),
    inside(P, "airavata-unsubscribe-one-late", "After an unsubscription one more event comes.", &["AIR-068"]),
    inside(
        P,
        "airavata-header-token-unchecked",
        "Tokens in the Authorization header are read without looking at signature and expiry.",
        &["AIR-008", "AIR-012", "AIR-013"],
    ),
    inside(P, "airavata-shapeless-token-untold", "Whose token has no dots is closed without a word.", &["AIR-015"]),
    inside(P, "airavata-path-not-decoded", "The id in an address is not percent-decoded.", &["AIR-094"]),
    inside(
        P,
        "airavata-user-limit-per-endpoint",
        "A user may have as many connections to /ws/user as elsewhere together.",
        &["AIR-102"],
    ),
    inside(
        P,
        "airavata-refusal-makes-room",
        "A connection that is refused because its user has too many makes room for the next.",
        &["AIR-102"],
    ),
    outside(
        P,
        "airavata-pong-second-lost",
        "The second pong is lost.",
        &["AIR-038"],
        const { &[frame(&[Cond::Is("/type", "pong")]).only(2).does(Act::Drop)] },
    ),
    inside(P, "airavata-pong-unknown", "A client's pong is a message of an unknown type.", &["AIR-113"]),
    inside(P, "airavata-pings-only-when-idle", "Whatever a client says puts off its next ping.", &["AIR-035"]),
    inside(P, "airavata-one-ping-until-pong", "The next ping is due only after a pong.", &["AIR-035"]),
    inside(
        P,
        "airavata-close-ends-pings",
        "When a connection ends, the ping that is due last is forgotten, whosever it is.",
        &["AIR-035"],
    ),
    inside(P, "airavata-null-unanswered", "The message null is not answered.", &["AIR-097"]),
    inside(P, "airavata-constructor-unanswered", "A message of the type constructor is not answered.", &["AIR-099"]),
    inside(
        P,
        "airavata-error-to-all-of-user",
        "An error about a message goes to all connections of its user.",
        &["AIR-097"],
    ),
    inside(
        P,
        "airavata-response-lower-case",
        "The answer to a subscription has the resource's id in small letters.",
        &["AIR-066"],
    ),
    inside(
        P,
        "airavata-response-to-newest",
        "The answer to a subscription goes to the newest connection of its user.",
        &["AIR-062", "AIR-065"],
    ),
    inside(
        P,
        "airavata-response-to-all-of-user",
        "The answer to a subscription goes to all connections of its user.",
        &["AIR-065"],
    ),
    outside(
        P,
        "airavata-unsubscribed-as-subscribed",
        "An unsubscription is answered like a subscription.",
        &["AIR-065", "AIR-069"],
        const {
            &[frame(&[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "unsubscribed")])
                .does(Act::Set("/data/action", r#""subscribed""#))]
        },
    ),
    inside(
        P,
        "airavata-resubscribe-without-effect",
        "Who subscribes again to what it has unsubscribed from is told success and gets nothing.",
        &["AIR-062", "AIR-078"],
    ),
    inside(
        P,
        "airavata-close-unsubscribes-user",
        "When a connection ends, the subscriptions of its user's other connections end with it.",
        &["AIR-078"],
    ),
    inside(
        P,
        "airavata-ids-match-by-prefix",
        "Who subscribes to an id gets the events of all ids that begin with it.",
        &["AIR-077"],
    ),
    inside(
        P,
        "airavata-progress-throttled",
        "An experiment's progress that follows its progress is not told.",
        &["AIR-078"],
    ),
    outside(
        P,
        "airavata-experiment-progress-second-lost",
        "The second experiment_progress is lost.",
        &["AIR-078", "AIR-079"],
        const { &[frame(&[Cond::Is("/type", "experiment_progress")]).only(2).does(Act::Drop)] },
    ),
    outside(
        P,
        "airavata-progress-overtaken",
        "Events experiment_progress come 150 ms late, so what happens next overtakes them.",
        &["AIR-095", "AIR-096"],
        const { &[frame(&[Cond::Is("/type", "experiment_progress")]).does(Act::Delay(Duration::from_millis(150)))] },
    ),
    inside(P, "airavata-zeros-left-out", "Numbers that are 0 are left out of events.", &["AIR-047"]),
    inside(P, "airavata-percent-whole", "A percentage is rounded to a whole number.", &["AIR-047", "AIR-061"]),
    inside(
        P,
        "airavata-name-without-emoji",
        "In the name of an experiment characters beyond U+FFFF become question marks.",
        &["AIR-044"],
    ),
];
