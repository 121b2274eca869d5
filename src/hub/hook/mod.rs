//! Runs hooks: the HTTP requests or commands under `[hooks]` of the target.

mod command;
mod http;

use std::io;
use std::time::Duration;

use serde_json::{Map, Value, json};

pub use crate::config::HookSpec;
use crate::config::template::{TemplateError, fill_template};
pub use http::TrustedCertificates;

/// The most bytes of an answer.
pub const MAX_ANSWER: usize = 1 << 20;
/// The most characters of a refusal that an error shows.
const MAX_SHOWN_CHARS: usize = 200;

/// A call of a hook by a scenario.
#[derive(Clone, Copy, Debug)]
pub struct HookCall<'a> {
    pub name: &'a str,
    /// The arguments of the call, an object.
    pub args: &'a Value,
    /// The message of the step.
    pub message: Option<&'a Value>,
    /// The settings of the instance, `hub` in templates.
    pub settings: &'a Map<String, Value>,
    /// The certificates to trust for `https://`; `None` means the built-in roots.
    pub trust: Option<&'a TrustedCertificates>,
}

/// A failed hook: the harness could not act, which says nothing about the hub.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("the {part} of the hook `{hook}` cannot be evaluated: {source}")]
    Template { hook: String, part: &'static str, source: TemplateError },
    #[error("the request of the hook `{hook}` cannot be sent: {reason}")]
    Request { hook: String, reason: String },
    #[error("the hook `{hook}` was answered with status {status} to {method} {url}{}", answer_excerpt(.body))]
    Status { hook: String, method: String, url: String, status: u16, body: String },
    #[error("the hook `{hook}` cannot reach {url}: {reason}")]
    Unreachable { hook: String, url: String, reason: String },
    #[error("the hook `{hook}` did not answer within {}", crate::config::format_duration(*.after))]
    TimedOut { hook: String, after: Duration },
    #[error("the hook `{hook}` answered with more than {} KiB", MAX_ANSWER >> 10)]
    TooLong { hook: String },
    #[error("the hook `{hook}` cannot start `{program}`: {source}")]
    Start { hook: String, program: String, source: io::Error },
    #[error("failed to communicate with the program of the hook `{hook}`: {source}")]
    Pipe { hook: String, source: io::Error },
    #[error("the hook `{hook}` ended with {status}{}", answer_excerpt(.stderr))]
    Exit { hook: String, status: std::process::ExitStatus, stderr: String },
}

/// Runs a hook and returns its answer: the parsed value if it is JSON, `null` if it is empty, and text otherwise.
///
/// `timeout` is the target's patience; the hook's own `timeout` takes precedence. The timeout bounds the whole call. A
/// program that is still running when the future is dropped is killed.
///
/// # Errors
///
/// [`HookError`]: a template, the connection or the start failed, the hook refused (a status other than 2xx, an exit
/// code other than 0), timed out, or gave too long an answer. The text may contain secrets: mask it.
pub async fn run_hook(spec: &HookSpec, call: &HookCall<'_>, timeout: Duration) -> Result<Value, HookError> {
    match spec {
        HookSpec::Http { method, url, headers, body, timeout: own } => {
            let request = http::HookRequest::new(call, method, url, headers, body.as_deref())?;
            request.send(own.unwrap_or(timeout)).await
        }
        HookSpec::Command { words, timeout: own } => command::run_command(call, words, own.unwrap_or(timeout)).await,
    }
}

/// Fills the templates of one call.
struct TemplateFiller<'a> {
    hook: &'a str,
    context: Value,
}

impl<'a> TemplateFiller<'a> {
    fn new(call: &HookCall<'a>) -> Self {
        Self { hook: call.name, context: json!({ "args": call.args, "message": call.message, "hub": call.settings }) }
    }

    fn fill(&self, part: &'static str, text: &str) -> Result<String, HookError> {
        fill_template(text, &self.context).map_err(|source| HookError::Template {
            hook: self.hook.to_owned(),
            part,
            source,
        })
    }
}

fn parse_answer(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// Returns the beginning of a refusal's text, after a colon.
fn answer_excerpt(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return String::new();
    }
    let beginning: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    let more = if beginning.len() < text.len() { "…" } else { "" };
    format!(": {beginning}{more}")
}

#[cfg(test)]
mod tests;
