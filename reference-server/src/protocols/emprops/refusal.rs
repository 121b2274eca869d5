//! Why the hub does not do what it is asked, with the code and details that go into `error` (lines 605 to 630).
//!
//! The document has two codes, `INVALID_PARAMETERS` and `AUTH_FAILED`; the others are this hub's.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

/// A parameter that is not as it must be.
#[derive(Debug)]
pub struct Wrong {
    /// The member, its parents before it with dots (line 612).
    pub field: String,
    /// What it must be.
    pub message: String,
    /// What it was; left out where it was nothing, or long.
    pub provided: Option<Box<RawValue>>,
}

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("The message cannot be read: {0}")]
    InvalidMessage(String),
    #[error("Invalid job parameters: {} {}", .0.field, .0.message)]
    InvalidJob(Wrong),
    #[error("Invalid parameters: {} {}", .0.field, .0.message)]
    Invalid(Wrong),
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
pub struct Details<'a> {
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

impl Refusal {
    /// `error_code`.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::InvalidMessage(_) => "INVALID_MESSAGE",
            Refusal::InvalidJob(_) | Refusal::Invalid(_) => "INVALID_PARAMETERS",
            Refusal::AuthFailed { .. } => "AUTH_FAILED",
            Refusal::NotRegistered(_) => "NOT_REGISTERED",
            Refusal::JobNotFound { .. } => "JOB_NOT_FOUND",
            Refusal::JobEnded { .. } => "JOB_ENDED",
            Refusal::JobNotHeld { .. } => "JOB_NOT_HELD",
            Refusal::QueueFull => "QUEUE_FULL",
            Refusal::TooLarge { .. } => "MESSAGE_TOO_LARGE",
            Refusal::Limit(_) => "LIMIT_EXCEEDED",
            Refusal::HashMismatch { .. } => "HASH_MISMATCH",
        }
    }

    /// `details`.
    pub fn details(&self) -> Option<Details<'_>> {
        Some(match self {
            Refusal::InvalidJob(wrong) | Refusal::Invalid(wrong) => Details {
                field: Some(&wrong.field),
                message: Some(&wrong.message),
                provided_value: wrong.provided.as_deref(),
                ..Details::default()
            },
            Refusal::AuthFailed { worker_id } => {
                Details { reason: Some("Invalid worker token"), worker_id: Some(worker_id), ..Details::default() }
            }
            Refusal::JobNotFound { job_id } => Details { job_id: Some(job_id), ..Details::default() },
            Refusal::JobEnded { job_id, .. } => Details { job_id: Some(job_id), ..Details::default() },
            Refusal::JobNotHeld { job_id, worker_id } => {
                Details { job_id: Some(job_id), worker_id: Some(worker_id), ..Details::default() }
            }
            Refusal::HashMismatch { chunk_id } => Details { chunk_id: Some(chunk_id), ..Details::default() },
            Refusal::InvalidMessage(_)
            | Refusal::NotRegistered(_)
            | Refusal::QueueFull
            | Refusal::TooLarge { .. }
            | Refusal::Limit(_) => return None,
        })
    }
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Refusal {
        Refusal::Invalid(wrong)
    }
}
