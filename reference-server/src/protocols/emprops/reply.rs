//! The messages of the hub.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::job::JobStatus;
use super::needs::Amount;
use super::request_error::ErrorDetails;
use crate::machine::Utf8Bytes;

/// A message from the hub, without its timestamp.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EmpropsReply<'a> {
    /// Line 51.
    ConnectionEstablished { message: &'a str, server_version: &'a str },
    /// Line 78.
    ClientRegistered { client_id: &'a str, status: &'static str, assigned_connection_id: &'a str },
    /// Line 121.
    WorkerRegistered { worker_id: &'a str, status: &'static str, assigned_connection_id: String },
    /// Line 159, with the request's id.
    JobAccepted {
        job_id: &'a str,
        status: JobStatus,
        position: usize,
        estimated_start: String,
        notified_workers: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a str>,
    },
    /// Line 181.
    ResponseJobStatus {
        job_id: &'a str,
        status: JobStatus,
        #[serde(skip_serializing_if = "Option::is_none")]
        progress: Option<&'a Number>,
        #[serde(skip_serializing_if = "Option::is_none")]
        worker_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        started_at: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        estimated_completion: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    },
    /// Line 206.
    JobCancelled { job_id: &'a str, status: JobStatus, cancelled_at: u64 },
    /// Line 236.
    JobAssigned {
        job_id: &'a str,
        worker_id: &'a str,
        job_type: &'a str,
        priority: &'a Number,
        payload: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        requirements: Option<&'a RawValue>,
        claim_timeout: &'a Number,
    },
    /// Line 317.
    JobCompletedAck { job_id: &'a str, worker_id: &'a str },
    /// Line 350.
    JobFailedAck {
        job_id: &'a str,
        worker_id: &'a str,
        retry_scheduled: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_delay: Option<Amount>,
    },
    /// Line 392.
    WorkerHeartbeatAck { worker_id: &'a str, status: &'static str, next_heartbeat_expected: u64 },
    /// Line 446.
    JobNotificationsSubscribed { subscription_id: String, filters_applied: &'a BTreeMap<&'static str, &'a RawValue> },
    /// Line 468.
    SubscriptionConfirmed { subscription_type: &'static str, update_interval: Amount, next_broadcast: u64 },
    /// Line 491.
    JobAvailable { job_id: &'a str, job_type: &'a str, priority: &'a Number, requirements_summary: NeedsSummary<'a> },
    /// Line 504.
    JobUpdate {
        job_id: &'a str,
        status: JobStatus,
        #[serde(skip_serializing_if = "Option::is_none")]
        previous_status: Option<JobStatus>,
        #[serde(skip_serializing_if = "Option::is_none")]
        worker_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        progress: Option<&'a Number>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    },
    /// Line 516.
    JobCompleted {
        job_id: &'a str,
        status: JobStatus,
        worker_id: Option<&'a str>,
        priority: &'a Number,
        #[serde(skip_serializing_if = "Option::is_none")]
        processing_time: Option<&'a Number>,
        result: &'a RawValue,
    },
    /// Line 535; sections that were not requested are absent.
    SystemStatus {
        #[serde(skip_serializing_if = "Option::is_none")]
        active_workers: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pending_jobs: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        active_jobs: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        completed_jobs_last_hour: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        system_health: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        alerts: Option<Vec<&'a str>>,
    },
    /// Line 547.
    SystemAlert {
        severity: &'a str,
        category: &'a str,
        message: &'a str,
        details: Value,
        actions_recommended: Vec<&'a str>,
    },
    /// Lines 607 and 621.
    Error {
        error: String,
        error_code: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<ErrorDetails<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a str>,
    },
    /// Line 637.
    Ack {
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<&'a str>,
        original_type: &'a str,
        status: &'static str,
    },
    /// Line 646.
    Unknown { content: &'static str, original_message: &'a str },
    /// Line 678.
    ChunkedMessageComplete { chunk_id: &'a str, total_size: usize, assembled_message: &'a RawValue },
    /// Line 695.
    Ping {},
    /// Line 701.
    Pong {},
    /// Line 719.
    ServerDisconnect { reason: &'a str, reconnect_after: u64, estimated_downtime: Amount },
}

/// A summary of a job's needs (line 496).
#[derive(Debug, Serialize)]
pub struct NeedsSummary<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory_min: Option<Amount>,
}

#[derive(Serialize)]
struct TimestampedReply<'a> {
    #[serde(flatten)]
    reply: &'a EmpropsReply<'a>,
    timestamp: u64,
}

/// Serialises a message with its timestamp.
pub fn serialize_emprops_reply(reply: &EmpropsReply<'_>, timestamp: u64) -> Utf8Bytes {
    // Strings, numbers and raw JSON under string keys always serialise.
    serde_json::to_string(&TimestampedReply { reply, timestamp }).unwrap_or_default().into()
}
