//! Airavata's deliberate defects, in the order of the document.

use std::time::Duration;

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, close, frame, inside, outside};

const PING: &[Cond] = &[Cond::Is("/type", "ping")];
const PONG: &[Cond] = &[Cond::Is("/type", "pong")];
const ERROR: &[Cond] = &[Cond::Is("/type", "error")];
const NO_TOKEN: &[Cond] = &[Cond::Is("/type", "error"), Cond::Is("/error", "Authentication required")];
const BAD_TOKEN: &[Cond] = &[Cond::Is("/type", "error"), Cond::Is("/error", "Invalid or expired token")];
const LIMIT: &[Cond] = &[Cond::Is("/type", "error"), Cond::Is("/error", "Rate limit exceeded")];
const FORMAT: &[Cond] = &[Cond::Is("/type", "error"), Cond::Is("/error", "Invalid message format")];
const UNKNOWN: &[Cond] = &[Cond::Is("/type", "error"), Cond::Is("/error", "Unknown message type")];
const SUBSCRIBED: &[Cond] = &[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "subscribed")];
const UNSUBSCRIBED: &[Cond] = &[Cond::Is("/type", "system_status"), Cond::Is("/data/action", "unsubscribed")];
const STATUS: &[Cond] = &[Cond::Is("/type", "system_status"), Cond::Lacks("/data/action")];
const EXPERIMENT: &[Cond] = &[Cond::Has("/data/experiment")];
const EXPERIMENT_CREATED: &[Cond] = &[Cond::Is("/type", "experiment_created")];
const EXPERIMENT_UPDATED: &[Cond] = &[Cond::Is("/type", "experiment_updated")];
const EXPERIMENT_PROGRESS: &[Cond] = &[Cond::Is("/type", "experiment_progress")];
const TASK_CREATED: &[Cond] = &[Cond::Is("/type", "task_created")];
const TASK_FAILED: &[Cond] = &[Cond::Is("/type", "task_failed")];
const TASK_PROGRESS: &[Cond] = &[Cond::Is("/type", "task_progress")];

/// An event of the system in its documented shape.
const STRAY_EVENT: &str = r#"{"type":"system_status","id":"system_1705314600","timestamp":"2024-01-15T10:30:00Z","data":{"totalConnections":150,"activeConnections":120,"totalMessages":15420,"messagesPerSecond":25.5,"averageLatency":"0.05s","uptime":"2h 30m 15s"}}"#;

/// Events of one type are not sent.
macro_rules! lost {
    ($kind:literal, $slug:literal, $rules:expr) => {
        outside(
            P,
            concat!("airavata-", $slug, "-lost"),
            concat!("Events ", $kind, " are not sent."),
            $rules,
            const { &[frame(&[Cond::Is("/type", $kind)]).does(Act::Drop)] },
        )
    };
}

/// Events of one type lack a member.
macro_rules! lacks {
    ($kind:literal, $slug:literal, $what:literal, $member:literal, $rules:expr) => {
        outside(
            P,
            concat!("airavata-", $slug, "-without-", $what),
            concat!("Events ", $kind, " lack ", $member, "."),
            $rules,
            const { &[frame(&[Cond::Is("/type", $kind)]).does(Act::Remove($member))] },
        )
    };
}

/// Events of one type have a status that belongs to another.
macro_rules! status {
    ($kind:literal, $slug:literal, $member:literal, $rules:expr) => {
        outside(
            P,
            concat!("airavata-", $slug, "-status"),
            concat!("Events ", $kind, " say PAUSED under ", $member, "."),
            $rules,
            const { &[frame(&[Cond::Is("/type", $kind)]).does(Act::Set($member, r#""PAUSED""#))] },
        )
    };
}

/// All of them.
pub static FAULTS: &[Fault] = &[
    // Connecting.
    inside(
        P,
        "airavata-experiments-endpoint-missing",
        "There is no endpoint for experiments.",
        &["AIR-001", "AIR-005", "AIR-009", "AIR-015"],
    ),
    inside(
        P,
        "airavata-tasks-endpoint-missing",
        "There is no endpoint for tasks.",
        &["AIR-002", "AIR-005", "AIR-009", "AIR-015"],
    ),
    inside(
        P,
        "airavata-projects-endpoint-missing",
        "There is no endpoint for projects.",
        &["AIR-003", "AIR-005", "AIR-009", "AIR-015"],
    ),
    inside(P, "airavata-user-endpoint-missing", "There is no endpoint for users.", &["AIR-004", "AIR-009", "AIR-015"]),
    inside(
        P,
        "airavata-server-hangs-up",
        "The hub closes every connection as soon as it is established.",
        &["AIR-010", "AIR-011"],
    ),
    // Authentication.
    inside(
        P,
        "airavata-query-token-ignored",
        "A token in the query is not looked at.",
        &["AIR-001", "AIR-009", "AIR-011", "AIR-017"],
    ),
    inside(P, "airavata-header-token-ignored", "A token in the Authorization header is not looked at.", &["AIR-010"]),
    inside(P, "airavata-valid-token-refused", "Valid tokens are refused as well.", &["AIR-010", "AIR-011", "AIR-020"]),
    inside(P, "airavata-token-optional", "Who has no token is let in.", &["AIR-008", "AIR-014", "AIR-018"]),
    inside(
        P,
        "airavata-signature-unchecked",
        "Tokens are read without looking at their signature.",
        &["AIR-008", "AIR-012", "AIR-018"],
    ),
    inside(
        P,
        "airavata-forged-token-accepted",
        "What is no token of the hub's counts as the token of a nobody.",
        &["AIR-008", "AIR-012", "AIR-018"],
    ),
    inside(P, "airavata-expiry-unchecked", "Expired tokens are accepted.", &["AIR-008", "AIR-013"]),
    outside(
        P,
        "airavata-refused-stays-open",
        "A refused connection is told why and never closed.",
        &["AIR-008", "AIR-012", "AIR-013"],
        const { &[close(1008).does(Act::Drop)] },
    ),
    outside(
        P,
        "airavata-refusal-untold",
        "A connection with a bad token or none is closed without a word.",
        &["AIR-015"],
        const { &[frame(NO_TOKEN).does(Act::Drop), frame(BAD_TOKEN).does(Act::Drop)] },
    ),
    outside(
        P,
        "airavata-missing-token-text",
        "Who has no token is told something else than documented.",
        &["AIR-016"],
        const { &[frame(NO_TOKEN).does(Act::Set("/error", r#""Who are you?""#))] },
    ),
    outside(
        P,
        "airavata-bad-token-text",
        "Who has a bad token is told something else than documented.",
        &["AIR-017"],
        const { &[frame(BAD_TOKEN).does(Act::Set("/error", r#""Authentication required""#))] },
    ),
    outside(
        P,
        "airavata-events-before-authentication",
        "A refused connection is sent an event first.",
        &["AIR-018"],
        const { &[frame(NO_TOKEN).does(Act::Before(STRAY_EVENT)), frame(BAD_TOKEN).does(Act::Before(STRAY_EVENT))] },
    ),
    // Message format.
    outside(
        P,
        "airavata-frame-array",
        "After each pong comes an array.",
        &["AIR-021"],
        const { &[frame(PONG).does(Act::Also(r#"["pong"]"#))] },
    ),
    outside(
        P,
        "airavata-frame-not-json",
        "After each pong comes a text that is not JSON.",
        &["AIR-021"],
        const { &[frame(PONG).does(Act::Also("pong"))] },
    ),
    outside(
        P,
        "airavata-pong-without-type",
        "A pong has no type.",
        &["AIR-022", "AIR-038"],
        const { &[frame(PONG).does(Act::Remove("/type"))] },
    ),
    outside(
        P,
        "airavata-pong-type-number",
        "The type of a pong is a number.",
        &["AIR-022", "AIR-038"],
        const { &[frame(PONG).does(Act::Set("/type", "7"))] },
    ),
    outside(
        P,
        "airavata-pong-without-id",
        "A pong has no id.",
        &["AIR-023"],
        const { &[frame(PONG).does(Act::Remove("/id"))] },
    ),
    outside(
        P,
        "airavata-response-id-array",
        "The id of an answer to a subscription is an array.",
        &["AIR-023"],
        const { &[frame(SUBSCRIBED).does(Act::Retype("/id"))] },
    ),
    outside(
        P,
        "airavata-event-without-id",
        "Events experiment_updated have no id.",
        &["AIR-023", "AIR-029"],
        const { &[frame(EXPERIMENT_UPDATED).does(Act::Remove("/id"))] },
    ),
    outside(
        P,
        "airavata-error-without-id",
        "Errors have no id.",
        &["AIR-023"],
        const { &[frame(ERROR).does(Act::Remove("/id"))] },
    ),
    outside(
        P,
        "airavata-pong-without-timestamp",
        "A pong has no timestamp.",
        &["AIR-024"],
        const { &[frame(PONG).does(Act::Remove("/timestamp"))] },
    ),
    outside(
        P,
        "airavata-response-timestamp-words",
        "The timestamp of an answer to a subscription is no date.",
        &["AIR-024"],
        const { &[frame(SUBSCRIBED).does(Act::Set("/timestamp", r#""yesterday""#))] },
    ),
    outside(
        P,
        "airavata-event-timestamp-number",
        "The timestamp of events task_created is a number.",
        &["AIR-024"],
        const { &[frame(TASK_CREATED).does(Act::Set("/timestamp", "1705314600"))] },
    ),
    outside(
        P,
        "airavata-error-without-timestamp",
        "Errors have no timestamp.",
        &["AIR-024"],
        const { &[frame(ERROR).does(Act::Remove("/timestamp"))] },
    ),
    outside(
        P,
        "airavata-pong-id-shared",
        "All pongs have one id.",
        &["AIR-025"],
        const { &[frame(PONG).does(Act::Set("/id", r#""pong-1""#))] },
    ),
    outside(
        P,
        "airavata-events-doubled",
        "Events of experiments are sent twice, under one id.",
        &["AIR-093"],
        const { &[frame(EXPERIMENT).does(Act::Double)] },
    ),
    inside(P, "airavata-event-ids-repeat", "The time in the id of an event is that of the hub's start.", &["AIR-025"]),
    outside(
        P,
        "airavata-pong-data-array",
        "The data of a pong is an array.",
        &["AIR-026"],
        const { &[frame(PONG).does(Act::Set("/data", "[]"))] },
    ),
    outside(
        P,
        "airavata-response-data-text",
        "The data of an answer to a subscription is a string.",
        &["AIR-026", "AIR-032", "AIR-062", "AIR-065"],
        const { &[frame(SUBSCRIBED).does(Act::Retype("/data"))] },
    ),
    outside(
        P,
        "airavata-pong-with-error",
        "A pong has an error.",
        &["AIR-027"],
        const { &[frame(PONG).does(Act::Set("/error", r#""all is well""#))] },
    ),
    outside(
        P,
        "airavata-error-text-array",
        "The text of an error is an array.",
        &["AIR-016", "AIR-017", "AIR-027", "AIR-028", "AIR-097", "AIR-098", "AIR-099", "AIR-101"],
        const { &[frame(ERROR).does(Act::Retype("/error"))] },
    ),
    outside(
        P,
        "airavata-error-without-text",
        "Errors have no text.",
        &["AIR-028", "AIR-097", "AIR-098", "AIR-099", "AIR-101"],
        const { &[frame(ERROR).does(Act::Remove("/error"))] },
    ),
    inside(P, "airavata-experiment-id-format", "Ids of experiment events are spelt with dots.", &["AIR-029"]),
    inside(P, "airavata-task-id-format", "Ids of task events are spelt with dots.", &["AIR-030"]),
    inside(P, "airavata-worker-id-format", "Ids of worker events are spelt with dots.", &["AIR-031"]),
    inside(P, "airavata-system-id-format", "Ids of system events are spelt with dots.", &["AIR-032"]),
    inside(P, "airavata-event-ids-count", "Ids of events carry a count instead of a time.", &["AIR-034"]),
    // Ping and pong.
    outside(P, "airavata-no-pings", "The hub does not ping.", &["AIR-035"], const { &[frame(PING).does(Act::Drop)] }),
    outside(
        P,
        "airavata-ping-without-id",
        "Pings have no id.",
        &["AIR-023"],
        const { &[frame(PING).does(Act::Remove("/id"))] },
    ),
    outside(
        P,
        "airavata-ping-unanswered",
        "Pings of clients are not answered.",
        &["AIR-038"],
        const { &[frame(PONG).does(Act::Drop)] },
    ),
    outside(
        P,
        "airavata-ping-answered-by-ping",
        "Pings of clients are answered by pings.",
        &["AIR-038"],
        const { &[frame(PONG).does(Act::Set("/type", r#""ping""#))] },
    ),
    // Events and their shapes.
    lacks!("system_status", "status", "uptime", "/data/uptime", &["AIR-041"]),
    outside(
        P,
        "airavata-status-total-text",
        "The totalConnections of a system status is a string.",
        &["AIR-041"],
        const { &[frame(STATUS).does(Act::Retype("/data/totalConnections"))] },
    ),
    outside(
        P,
        "airavata-status-active-beyond-total",
        "A system status has more active connections than connections.",
        &["AIR-042"],
        const { &[frame(STATUS).does(Act::Set("/data/activeConnections", "1000000000"))] },
    ),
    lost!("experiment_created", "experiment-created", &["AIR-078"]),
    lost!("experiment_updated", "experiment-updated", &["AIR-078"]),
    lost!("experiment_completed", "experiment-completed", &["AIR-078"]),
    lost!("experiment_failed", "experiment-failed", &["AIR-078"]),
    lost!("experiment_progress", "experiment-progress", &["AIR-078"]),
    lost!("task_created", "task-created", &["AIR-082", "AIR-083"]),
    lost!("task_updated", "task-updated", &["AIR-082", "AIR-083"]),
    lost!("task_completed", "task-completed", &["AIR-082", "AIR-083"]),
    lost!("task_failed", "task-failed", &["AIR-082", "AIR-083"]),
    lost!("task_progress", "task-progress", &["AIR-082", "AIR-083"]),
    lost!("worker_registered", "worker-registered", &["AIR-087"]),
    lost!("worker_updated", "worker-updated", &["AIR-087", "AIR-088"]),
    lost!("worker_offline", "worker-offline", &["AIR-087"]),
    lacks!("experiment_created", "experiment-created", "experiment", "/data/experiment", &["AIR-043"]),
    lacks!("experiment_updated", "experiment-updated", "experiment", "/data/experiment", &["AIR-044"]),
    lacks!("experiment_completed", "experiment-completed", "experiment", "/data/experiment", &["AIR-045"]),
    lacks!("experiment_failed", "experiment-failed", "experiment", "/data/experiment", &["AIR-046"]),
    lacks!("experiment_progress", "experiment-progress", "experiment", "/data/experimentId", &["AIR-047"]),
    lacks!("experiment_progress", "experiment-progress", "percent", "/data/progressPercent", &["AIR-047", "AIR-061"]),
    lacks!("task_created", "task-created", "task", "/data/task", &["AIR-048"]),
    lacks!("task_updated", "task-updated", "task", "/data/task", &["AIR-049"]),
    lacks!("task_completed", "task-completed", "task", "/data/task", &["AIR-050"]),
    lacks!("task_failed", "task-failed", "task", "/data/task", &["AIR-051", "AIR-057"]),
    lacks!("task_progress", "task-progress", "task", "/data/taskId", &["AIR-052"]),
    lacks!("task_progress", "task-progress", "percent", "/data/progressPercent", &["AIR-052"]),
    lacks!("worker_registered", "worker-registered", "worker", "/data/worker", &["AIR-053"]),
    lacks!("worker_updated", "worker-updated", "worker", "/data/worker", &["AIR-054"]),
    lacks!("worker_offline", "worker-offline", "worker", "/data/worker", &["AIR-055"]),
    lacks!("experiment_created", "experiment-created", "summary", "/data/summary", &["AIR-043"]),
    lacks!("task_created", "task-created", "summary", "/data/summary", &["AIR-048"]),
    lacks!("worker_registered", "worker-registered", "summary", "/data/summary", &["AIR-053"]),
    status!("experiment_created", "experiment-created", "/data/experiment/status", &["AIR-043", "AIR-056"]),
    status!("experiment_updated", "experiment-updated", "/data/experiment/status", &["AIR-044", "AIR-056"]),
    status!("experiment_completed", "experiment-completed", "/data/experiment/status", &["AIR-045", "AIR-056"]),
    status!("experiment_failed", "experiment-failed", "/data/experiment/status", &["AIR-046", "AIR-056"]),
    status!("task_created", "task-created", "/data/task/status", &["AIR-048", "AIR-056"]),
    status!("task_updated", "task-updated", "/data/task/status", &["AIR-049", "AIR-056"]),
    status!("task_completed", "task-completed", "/data/task/status", &["AIR-050", "AIR-056"]),
    status!("task_failed", "task-failed", "/data/task/status", &["AIR-051", "AIR-056"]),
    status!("worker_offline", "worker-offline", "/data/worker/status", &["AIR-055"]),
    outside(
        P,
        "airavata-summary-differs",
        "The summary of an updated experiment has another name than the experiment.",
        &["AIR-056"],
        const { &[frame(EXPERIMENT_UPDATED).does(Act::Set("/data/summary/name", r#""somebody else's""#))] },
    ),
    outside(
        P,
        "airavata-failure-unexplained",
        "A failed task has no error.",
        &["AIR-057"],
        const { &[frame(TASK_FAILED).does(Act::Remove("/data/task/error"))] },
    ),
    outside(
        P,
        "airavata-failure-unexplained-in-summary",
        "The summary of a failed task has no error.",
        &["AIR-057"],
        const { &[frame(TASK_FAILED).does(Act::Remove("/data/summary/error"))] },
    ),
    outside(
        P,
        "airavata-percent-beyond-100",
        "The progress of an experiment is 145 percent.",
        &["AIR-047", "AIR-059", "AIR-061"],
        const { &[frame(EXPERIMENT_PROGRESS).does(Act::Set("/data/progressPercent", "145.0"))] },
    ),
    outside(
        P,
        "airavata-percent-negative",
        "The progress of a task is negative.",
        &["AIR-059"],
        const { &[frame(TASK_PROGRESS).does(Act::Set("/data/progressPercent", "-5"))] },
    ),
    outside(
        P,
        "airavata-more-tasks-than-all",
        "More tasks of an experiment run than it has.",
        &["AIR-060"],
        const { &[frame(EXPERIMENT_PROGRESS).does(Act::Set("/data/runningTasks", "1000000"))] },
    ),
    // Subscriptions.
    inside(P, "airavata-subscribe-ignored", "Subscriptions are neither made nor answered.", &["AIR-062", "AIR-065"]),
    inside(
        P,
        "airavata-subscribe-without-effect",
        "Subscriptions are answered and not made.",
        &["AIR-078", "AIR-088", "AIR-107"],
    ),
    inside(
        P,
        "airavata-message-id-demanded",
        "Subscriptions without an id are refused.",
        &["AIR-063", "AIR-070", "AIR-071", "AIR-072", "AIR-073", "AIR-074"],
    ),
    inside(P, "airavata-message-id-refused", "Subscriptions with an id are refused.", &["AIR-064"]),
    outside(
        P,
        "airavata-subscribe-unanswered",
        "Subscriptions are made and not answered.",
        &["AIR-062", "AIR-065"],
        const { &[frame(SUBSCRIBED).does(Act::Drop)] },
    ),
    outside(
        P,
        "airavata-subscribed-misspelt",
        "The answer to a subscription says subscribe instead of subscribed.",
        &["AIR-062", "AIR-065"],
        const { &[frame(SUBSCRIBED).does(Act::Set("/data/action", r#""subscribe""#))] },
    ),
    outside(
        P,
        "airavata-response-without-resource",
        "The answer to a subscription does not repeat the resource's id.",
        &["AIR-066"],
        const { &[frame(SUBSCRIBED).does(Act::Remove("/data/resourceId"))] },
    ),
    outside(
        P,
        "airavata-response-other-resource",
        "The answer to a subscription names another resource.",
        &["AIR-066"],
        const { &[frame(SUBSCRIBED).does(Act::Set("/data/resourceId", r#""another""#))] },
    ),
    outside(
        P,
        "airavata-response-other-type",
        "The answer to a subscription names another type of resource.",
        &["AIR-066"],
        const { &[frame(SUBSCRIBED).does(Act::Set("/data/resourceType", r#""thing""#))] },
    ),
    outside(
        P,
        "airavata-response-status",
        "The answer to a successful subscription has the status pending.",
        &["AIR-067"],
        const { &[frame(SUBSCRIBED).does(Act::Set("/data/status", r#""pending""#))] },
    ),
    outside(
        P,
        "airavata-response-without-status",
        "The answer to a successful subscription has no status.",
        &["AIR-067"],
        const { &[frame(SUBSCRIBED).does(Act::Remove("/data/status"))] },
    ),
    inside(P, "airavata-unsubscribe-forgotten", "Who unsubscribes stays subscribed.", &["AIR-068"]),
    inside(
        P,
        "airavata-experiment-subscription-refused",
        "Nobody can subscribe to an experiment.",
        &["AIR-063", "AIR-070"],
    ),
    inside(P, "airavata-task-subscription-refused", "Nobody can subscribe to a task.", &["AIR-071"]),
    inside(P, "airavata-project-subscription-refused", "Nobody can subscribe to a project.", &["AIR-072"]),
    inside(P, "airavata-user-subscription-refused", "Nobody can subscribe to a user.", &["AIR-073"]),
    inside(P, "airavata-system-subscription-refused", "Nobody can subscribe to the system.", &["AIR-074"]),
    inside(P, "airavata-any-resource-type", "Subscriptions to what does not exist succeed.", &["AIR-075"]),
    // Routing.
    inside(
        P,
        "airavata-events-broadcast",
        "Every event goes to everybody.",
        &["AIR-007", "AIR-068", "AIR-077", "AIR-081", "AIR-086"],
    ),
    inside(
        P,
        "airavata-user-endpoint-hears-all-users",
        "Who connects to /ws/user gets the events of all users.",
        &["AIR-007", "AIR-068", "AIR-077", "AIR-081", "AIR-086"],
    ),
    inside(
        P,
        "airavata-experiment-events-miss-experiment",
        "Experiment events do not go to the experiment's subscribers.",
        &["AIR-078"],
    ),
    inside(
        P,
        "airavata-experiment-events-miss-project",
        "Experiment events do not go to the project's subscribers.",
        &["AIR-079"],
    ),
    inside(
        P,
        "airavata-experiment-events-miss-user",
        "Experiment events do not go to the user's subscribers.",
        &["AIR-080"],
    ),
    inside(
        P,
        "airavata-experiment-events-reach-tasks",
        "Experiment events go to all subscribers of tasks and workers too.",
        &["AIR-077", "AIR-081", "AIR-086"],
    ),
    inside(
        P,
        "airavata-task-events-miss-task",
        "Task events do not go to the task's subscribers.",
        &["AIR-082", "AIR-094"],
    ),
    inside(
        P,
        "airavata-task-events-miss-experiment",
        "Task events do not go to the experiment's subscribers.",
        &["AIR-083"],
    ),
    inside(P, "airavata-task-events-miss-project", "Task events do not go to the project's subscribers.", &["AIR-084"]),
    inside(P, "airavata-task-events-miss-user", "Task events do not go to the user's subscribers.", &["AIR-085"]),
    inside(
        P,
        "airavata-worker-events-miss-system",
        "Worker events do not go to the system's subscribers.",
        &["AIR-087"],
    ),
    inside(
        P,
        "airavata-worker-events-miss-worker",
        "Worker events do not go to the worker's subscribers.",
        &["AIR-088"],
    ),
    inside(
        P,
        "airavata-worker-events-reach-tasks",
        "Worker events go to all subscribers of tasks too.",
        &["AIR-077", "AIR-086"],
    ),
    inside(
        P,
        "airavata-worker-events-reach-experiments",
        "Worker events go to the subscribers of the worker's experiment too.",
        &["AIR-089"],
    ),
    inside(
        P,
        "airavata-system-events-to-system-only",
        "System events go to the system's subscribers only.",
        &["AIR-090"],
    ),
    inside(
        P,
        "airavata-system-events-to-subscribers-only",
        "System events go only to clients that have asked for a subscription.",
        &["AIR-091"],
    ),
    inside(
        P,
        "airavata-first-subscriber-only",
        "Of all that subscribe to what an event belongs to, only the oldest connection gets it.",
        &["AIR-062", "AIR-078", "AIR-079", "AIR-082", "AIR-092"],
    ),
    inside(
        P,
        "airavata-path-not-subscribed",
        "Connecting to a resource does not subscribe to it.",
        &["AIR-007", "AIR-094"],
    ),
    outside(
        P,
        "airavata-events-overtake",
        "Every second event experiment_updated comes 150 ms late, so the next overtakes it.",
        &["AIR-095", "AIR-096"],
        const { &[frame(EXPERIMENT_UPDATED).every(2).does(Act::Delay(Duration::from_millis(150)))] },
    ),
    inside(
        P,
        "airavata-event-times-fall",
        "Every event has an earlier timestamp than the one before it.",
        &["AIR-096"],
    ),
    outside(
        P,
        "airavata-event-without-timestamp",
        "Events experiment_created have no timestamp.",
        &["AIR-024"],
        const { &[frame(EXPERIMENT_CREATED).does(Act::Remove("/timestamp"))] },
    ),
    // Errors.
    outside(
        P,
        "airavata-malformed-untold",
        "Malformed messages are not answered.",
        &["AIR-075", "AIR-097"],
        const { &[frame(FORMAT).does(Act::Drop)] },
    ),
    outside(
        P,
        "airavata-malformed-text",
        "Malformed messages are answered by another text than documented.",
        &["AIR-097", "AIR-098"],
        const { &[frame(FORMAT).does(Act::Set("/error", r#""Pardon?""#))] },
    ),
    outside(
        P,
        "airavata-malformed-closes",
        "Malformed messages close the connection instead of being answered.",
        &["AIR-075", "AIR-097"],
        const { &[frame(FORMAT).does(Act::CloseInstead(1003))] },
    ),
    inside(P, "airavata-array-ignored", "A message that is an array is not answered.", &["AIR-097"]),
    inside(
        P,
        "airavata-malformed-ignored",
        "A message without a type, or with a member of the wrong type, is not answered.",
        &["AIR-098"],
    ),
    outside(
        P,
        "airavata-unknown-type-untold",
        "Messages of an unknown type are not answered.",
        &["AIR-099"],
        const { &[frame(UNKNOWN).does(Act::Drop)] },
    ),
    outside(
        P,
        "airavata-unknown-type-text",
        "Messages of an unknown type are answered by another text than documented.",
        &["AIR-099"],
        const { &[frame(UNKNOWN).does(Act::Set("/error", r#""Pardon?""#))] },
    ),
    outside(
        P,
        "airavata-error-closes",
        "After an error about a message the connection is closed.",
        &["AIR-100"],
        const { &[frame(FORMAT).does(Act::ThenClose(1008)), frame(UNKNOWN).does(Act::ThenClose(1008))] },
    ),
    inside(P, "airavata-rate-unlimited", "The rate limit is not kept.", &["AIR-101"]),
    outside(
        P,
        "airavata-rate-text",
        "What exceeds a limit is answered by another text than documented.",
        &["AIR-101", "AIR-106"],
        const { &[frame(LIMIT).does(Act::Set("/error", r#""Slow down""#))] },
    ),
    // Limits.
    inside(P, "airavata-user-unlimited", "A user may have any number of connections.", &["AIR-102"]),
    inside(P, "airavata-ip-unlimited", "An address may have any number of connections.", &["AIR-103"]),
    inside(P, "airavata-hub-unlimited", "The hub may have any number of connections.", &["AIR-104"]),
    inside(P, "airavata-slot-never-freed", "Closed connections count against their user for ever.", &["AIR-105"]),
    inside(
        P,
        "airavata-close-takes-others",
        "When a client ends a connection, the hub ends the others of that user as well.",
        &["AIR-078", "AIR-108"],
    ),
    // What the document leaves open or only allows.
    outside(
        P,
        "airavata-refusal-code",
        "Who is refused is closed with 4000.",
        &["AIR-019"],
        const { &[close(1008).does(Act::Code(4000))] },
    ),
    outside(
        P,
        "airavata-ping-with-data",
        "A ping has data.",
        &["AIR-036"],
        const { &[frame(PING).does(Act::Set("/data", "{}"))] },
    ),
    inside(P, "airavata-pong-repeats-id", "A pong has the id of its ping.", &["AIR-039"]),
    inside(P, "airavata-silence-closes", "Who says nothing for two pings is disconnected.", &["AIR-040"]),
    outside(
        P,
        "airavata-task-created-with-worker",
        "A new task has a worker at once, but for its summary.",
        &["AIR-056", "AIR-058"],
        const { &[frame(TASK_CREATED).does(Act::Set("/data/task/workerId", r#""worker-1""#))] },
    ),
    outside(
        P,
        "airavata-unsubscribe-unanswered",
        "Who unsubscribes gets no answer.",
        &["AIR-069"],
        const { &[frame(UNSUBSCRIBED).does(Act::Drop)] },
    ),
    inside(P, "airavata-worker-subscription-refused", "Nobody can subscribe to a worker.", &["AIR-076"]),
    inside(
        P,
        "airavata-subscriptions-outlive",
        "The next connection of a user has the subscriptions of the last one that ended.",
        &["AIR-112"],
    ),
];
