//! Refused requests, with the code and details of `error` (lines 605 to 630).
//!
//! The document has two codes, `INVALID_PARAMETERS` and `AUTH_FAILED`; the others are this hub's.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

/// A wrong parameter.
#[derive(Debug)]
pub struct FieldError {
    /// The member's path, with dots (line 612).
    pub field: String,
    /// What the member must be.
    pub message: String,
    /// The value, unless it is absent or long.
    pub provided: Option<Box<RawValue>>,
}

impl FieldError {
    /// An error about a field, without the value.
    pub fn new(field: &str, message: impl Into<String>) -> FieldError {
        FieldError { field: field.to_owned(), message: message.into(), provided: None }
    }
}

/// A request was refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("The message cannot be read: {0}")]
    InvalidMessage(String),
    #[error("Invalid job parameters: {} {}", .0.field, .0.message)]
    InvalidJob(FieldError),
    #[error("Invalid parameters: {} {}", .0.field, .0.message)]
    Invalid(FieldError),
    #[error("Authentication failed")]
    AuthFailed { worker_id: String },
    #[error("Not registered: send {0} first")]
    NotRegistered(&'static str),
    #[error("There is no such job")]
    JobNotFound { job_id: String },
    #[error("The job is {status} and cannot be cancelled any more")]
    JobEnded { job_id: Arc<str>, status: &'static str },
    #[error("The job is not assigned to this worker")]
    JobNotHeld { job_id: Arc<str>, worker_id: Arc<str> },
    #[error("The queue is full")]
    QueueFull,
    #[error("The message has {bytes} bytes, {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    #[error("Too much at once: {0}")]
    Limit(&'static str),
    #[error("The data of the chunks does not have the announced hash")]
    HashMismatch { chunk_id: String },
}

/// `details` of an error.
#[derive(Debug, Default, Serialize)]
pub struct ErrorDetails<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provided_value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_id: Option<&'a str>,
}

impl RequestError {
    /// Returns the `error_code` of the reply.
    pub fn code(&self) -> &'static str {
        match self {
            RequestError::InvalidMessage(_) => "INVALID_MESSAGE",
            RequestError::InvalidJob(_) | RequestError::Invalid(_) => "INVALID_PARAMETERS",
            RequestError::AuthFailed { .. } => "AUTH_FAILED",
            RequestError::NotRegistered(_) => "NOT_REGISTERED",
            RequestError::JobNotFound { .. } => "JOB_NOT_FOUND",
            RequestError::JobEnded { .. } => "JOB_ENDED",
            RequestError::JobNotHeld { .. } => "JOB_NOT_HELD",
            RequestError::QueueFull => "QUEUE_FULL",
            RequestError::TooLarge { .. } => "MESSAGE_TOO_LARGE",
            RequestError::Limit(_) => "LIMIT_EXCEEDED",
            RequestError::HashMismatch { .. } => "HASH_MISMATCH",
        }
    }

    /// Returns the `details` of the reply, if it has any.
    pub fn details(&self) -> Option<ErrorDetails<'_>> {
        Some(match self {
            RequestError::InvalidJob(wrong) | RequestError::Invalid(wrong) => ErrorDetails {
                field: Some(&wrong.field),
                message: Some(&wrong.message),
                provided_value: wrong.provided.as_deref(),
                ..ErrorDetails::default()
            },
            RequestError::AuthFailed { worker_id } => ErrorDetails {
                reason: Some("Invalid worker token"),
                worker_id: Some(worker_id),
                ..ErrorDetails::default()
            },
            RequestError::JobNotFound { job_id } => ErrorDetails { job_id: Some(job_id), ..ErrorDetails::default() },
            RequestError::JobEnded { job_id, .. } => ErrorDetails { job_id: Some(job_id), ..ErrorDetails::default() },
            RequestError::JobNotHeld { job_id, worker_id } => {
                ErrorDetails { job_id: Some(job_id), worker_id: Some(worker_id), ..ErrorDetails::default() }
            }
            RequestError::HashMismatch { chunk_id } => {
                ErrorDetails { chunk_id: Some(chunk_id), ..ErrorDetails::default() }
            }
            RequestError::InvalidMessage(_)
            | RequestError::NotRegistered(_)
            | RequestError::QueueFull
            | RequestError::TooLarge { .. }
            | RequestError::Limit(_) => return None,
        })
    }
}

impl From<FieldError> for RequestError {
    fn from(wrong: FieldError) -> RequestError {
        RequestError::Invalid(wrong)
    }
}
