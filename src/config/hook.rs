//! Hooks of a target: requests or commands by which the harness makes something happen outside the socket.

use std::collections::BTreeMap;
use std::time::Duration;

/// The HTTP methods that a hook may use.
pub const METHODS: [&str; 5] = ["POST", "GET", "PUT", "PATCH", "DELETE"];

/// A hook. Its texts are templates: `${...}` is an expression over `args`, `message` and `hub`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookSpec {
    Http {
        /// One of [`METHODS`].
        method: String,
        /// `http://` or `https://`.
        url: String,
        headers: BTreeMap<String, String>,
        /// The body of the request. `None`: the message if the step has one, else the args, as JSON; nothing with GET
        /// and DELETE.
        body: Option<String>,
        /// `None`: the target's patience.
        timeout: Option<Duration>,
    },
    Command {
        /// The program, then its arguments; run without a shell.
        words: Vec<String>,
        /// `None`: the target's patience.
        timeout: Option<Duration>,
    },
}
