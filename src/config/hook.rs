//! How a target lets the harness make something happen outside the socket, as data.

use std::collections::BTreeMap;
use std::time::Duration;

/// The methods a hook may use, and whether a body goes along when the file names none.
pub const METHODS: [&str; 5] = ["POST", "GET", "PUT", "PATCH", "DELETE"];

/// Texts are templates: `${...}` is an expression over `args`, `message` and `hub`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookSpec {
    Http {
        /// One of [`METHODS`].
        method: String,
        /// `http://` or `https://`.
        url: String,
        headers: BTreeMap<String, String>,
        /// `None`: the message if the step has one, else the args, as JSON; nothing with GET and DELETE.
        body: Option<String>,
        /// `None`: the target's patience.
        timeout: Option<Duration>,
    },
    Command {
        /// The program, then its arguments; no shell reads them.
        words: Vec<String>,
        /// `None`: the target's patience.
        timeout: Option<Duration>,
    },
}
