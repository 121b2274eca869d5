//! Makes something happen outside the socket: an HTTP request or a program, as the target's `[hooks]` say.

mod command;
mod http;

use std::io;
use std::time::Duration;

use serde_json::{Map, Value, json};

pub use crate::config::HookSpec;
use crate::config::template::{TemplateError, fill};
pub use http::Trust;

/// Longest answer that is read.
pub const MAX_ANSWER: usize = 1 << 20;
/// How much of a bad answer is shown, in characters.
const SHOWN: usize = 200;

/// One use of a hook by a scenario.
#[derive(Clone, Copy, Debug)]
pub struct HookCall<'a> {
    pub name: &'a str,
    /// An object.
    pub args: &'a Value,
    /// What the step sends along.
    pub message: Option<&'a Value>,
    /// The settings of the instance, `hub` in templates.
    pub settings: &'a Map<String, Value>,
    /// Whom to trust on an `https://` address; `None`: the roots that are built in.
    pub trust: Option<&'a Trust>,
}

/// Why a hook did not answer: the harness could not act, which says nothing about the hub.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("the {part} of the hook `{hook}` cannot be worked out: {source}")]
    Template { hook: String, part: &'static str, source: TemplateError },
    #[error("the hook `{hook}` is no request that can be sent: {reason}")]
    Request { hook: String, reason: String },
    #[error("the hook `{hook}` was answered with status {status} to {method} {url}{}", shown(.body))]
    Status { hook: String, method: String, url: String, status: u16, body: String },
    #[error("the hook `{hook}` cannot reach {url}: {reason}")]
    Unreachable { hook: String, url: String, reason: String },
    #[error("the hook `{hook}` did not answer within {}", crate::config::format_duration(*.after))]
    TimedOut { hook: String, after: Duration },
    #[error("the hook `{hook}` answered more than {} KiB", MAX_ANSWER >> 10)]
    TooLong { hook: String },
    #[error("the hook `{hook}` cannot start `{program}`: {source}")]
    Start { hook: String, program: String, source: io::Error },
    #[error("the hook `{hook}` cannot talk to its program: {source}")]
    Pipe { hook: String, source: io::Error },
    #[error("the hook `{hook}` ended with {status}{}", shown(.stderr))]
    Exit { hook: String, status: std::process::ExitStatus, stderr: String },
}

/// Does what the hook says and returns its answer: JSON where it is JSON, `null` where it is empty, else text.
///
/// `timeout` is the target's patience; a time in the hook's own table wins. The whole call is bounded by it. A program
/// that is still running when the future ends is killed.
///
/// # Errors
///
/// [`HookError`]: about templates, about reaching the other side, about its refusal (a status that is not 2xx, an exit
/// code that is not 0), about time and length. Texts may hold secrets and are to be masked.
pub async fn run(spec: &HookSpec, call: &HookCall<'_>, timeout: Duration) -> Result<Value, HookError> {
    match spec {
        HookSpec::Http { method, url, headers, body, timeout: own } => {
            let request = http::Request::new(call, method, url, headers, body.as_deref())?;
            request.send(own.unwrap_or(timeout)).await
        }
        HookSpec::Command { words, timeout: own } => command::run(call, words, own.unwrap_or(timeout)).await,
    }
}

/// Fills the templates of one call.
struct Filler<'a> {
    hook: &'a str,
    context: Value,
}

impl<'a> Filler<'a> {
    fn new(call: &HookCall<'a>) -> Self {
        Self { hook: call.name, context: json!({ "args": call.args, "message": call.message, "hub": call.settings }) }
    }

    fn fill(&self, part: &'static str, text: &str) -> Result<String, HookError> {
        fill(text, &self.context).map_err(|source| HookError::Template { hook: self.hook.to_owned(), part, source })
    }
}

fn answer(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// The beginning of what the other side said, after a colon.
fn shown(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return String::new();
    }
    let beginning: String = text.chars().take(SHOWN).collect();
    let more = if beginning.len() < text.len() { "…" } else { "" };
    format!(": {beginning}{more}")
}

#[cfg(test)]
mod tests;
