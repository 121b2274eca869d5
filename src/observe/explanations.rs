//! The checks of `observe` beyond those of `check`.

use crate::syntax::explanation::Explanation;

pub const UNANSWERED: &str = "unanswered";
pub const REPEATED_REPLY: &str = "repeated-reply";
pub const UNASKED_REPLY: &str = "unasked-reply";
pub const NOT_JSON: &str = "not-json";
pub const UNKNOWN_MESSAGE: &str = "unknown-message";
pub const DOUBLED_JOB: &str = "doubled-job";
pub const LOST_JOB: &str = "lost-job";

/// Explains the checks that only observed traffic has.
pub const OBSERVE_EXPLANATIONS: [Explanation; 7] = [
    Explanation::new(
        UNANSWERED,
        "The document names an answer to this request, but none came within `--patience`, although the connection lived on. Only requests with an id are followed, and any message without an id counts as an answer.",
    )
    .usually("A request that the endpoint lost. If the endpoint may take longer, raise `--patience`."),
    Explanation::new(
        REPEATED_REPLY,
        "Every request with this id on this connection has a reply already. This is checked for replies that only their id connects with a request.",
    ),
    Explanation::new(
        UNASKED_REPLY,
        "No request on this connection had the id of this reply. This is checked for replies that only their id connects with a request, on connections that were observed from their beginning.",
    ),
    Explanation::new(NOT_JSON, "A message is not JSON, but every message of the pack is."),
    Explanation::new(
        UNKNOWN_MESSAGE,
        "The pack has no such message. Few documents forbid further messages, so nothing follows from it for the exit code.",
    )
    .next("If the message is documented, add it to the pack."),
    Explanation::new(
        DOUBLED_JOB,
        "The hub assigned a job more than a second after it had reported its completion, or reported the completion twice on one connection.",
    )
    .usually("A retry after a timeout that does not check whether the first try arrived, or a client that is subscribed twice."),
    Explanation::new(
        LOST_JOB,
        "The hub accepted a job, but it has not ended, no connected worker has it, and for longer than `--patience` no message was about it. Jobs may wait as long as the hub likes, so nothing follows from it for the exit code.",
    )
    .usually("A worker that left with the job, no worker that can do it, or a queue that dropped it."),
];
