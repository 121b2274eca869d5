//! The checks of `observe` beyond those of `check`.

use crate::syntax::explanation::Explanation;

pub const UNANSWERED: &str = "unanswered";
pub const REPEATED_REPLY: &str = "repeated-reply";
pub const UNASKED_REPLY: &str = "unasked-reply";
pub const NOT_JSON: &str = "not-json";
pub const UNKNOWN_MESSAGE: &str = "unknown-message";

/// Explains the checks that only observed traffic has.
pub const OBSERVE_EXPLANATIONS: [Explanation; 5] = [
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
];
