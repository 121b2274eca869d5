//! The messages of clients, monitors and workers, read member by member. Unknown members are ignored (line 26).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Number;
use serde_json::value::RawValue;

use super::fields::ObjectFields;
use super::needs::{Amount, GPU_MEMORY, Hardware, HardwareValue, JobNeeds};
use super::request_error::{FieldError, RequestError};
use super::watch::NotificationFilters;
use crate::fault::MachineFault;
use crate::machine::json;

/// The default priority of a job. The document only shows that higher is more important.
const DEFAULT_PRIORITY: u32 = 50;
/// The longest `claim_timeout`, in milliseconds.
const MAX_CLAIM_TIMEOUT_MS: f64 = 24.0 * 3600.0 * 1000.0;
/// The longest interval of statistics, in seconds.
const MAX_INTERVAL: f64 = 24.0 * 3600.0;
/// The largest number of chunks of a message.
const MAX_CHUNKS: usize = 65_536;

/// The members of all documented messages from clients, and the token.
const DOCUMENTED_MEMBERS: &str = "type timestamp id source job_id worker_id client_type client_id version capabilities permissions \
    subscribe_to_jobs status token job_type priority payload customer_id requirements reason max_jobs \
    preferred_types current_load available_resources claim_timeout estimated_completion progress message \
    current_step connector_details processing_time result error retry error_details load current_jobs \
    system_info connector_status current_job_id available_slots enabled filters interval_seconds \
    include_sections service_type endpoint method url connector_type details chunk_id chunk_index \
    total_chunks data data_hash original_type total_size assembled_message cleanup_subscriptions";

/// A message: the common members, and the unread others.
pub struct EmpropsMessage<'a> {
    /// `type`.
    pub kind: String,
    /// `id`, for tracking.
    pub id: Option<String>,
    fields: ObjectFields<'a>,
}

/// The senders that may send a kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedSender {
    /// Any connection.
    Any,
    /// A registered client or worker.
    Registered,
    /// A registered worker.
    Worker,
}

/// How the hub treats a kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageHandling {
    /// A request, and who may send it.
    Request(AllowedSender),
    /// A notice that the hub ignores.
    Ignored,
    /// A message that only hubs send.
    HubOnly,
    /// A message of an unknown type.
    Unknown,
}

/// The documented types of messages, separated by spaces.
const MESSAGE_HANDLING: &[(&str, MessageHandling)] = &[
    ("register_client register_worker ping disconnect", MessageHandling::Request(AllowedSender::Any)),
    (
        "submit_job request_job_status cancel_job subscribe_job subscribe_job_notifications \
      subscribe_stats request_stats chunked_message",
        MessageHandling::Request(AllowedSender::Registered),
    ),
    (
        "claim_job job_accepted_by_worker update_job_progress complete_job fail_job \
      worker_heartbeat worker_status",
        MessageHandling::Request(AllowedSender::Worker),
    ),
    ("pong ack error service_request connector_ws_status chunked_message_complete", MessageHandling::Ignored),
    (
        "connection_established client_registered worker_registered job_accepted \
      response_job_status job_cancelled job_assigned job_completed_ack job_failed_ack \
      worker_heartbeat_ack job_notifications_subscribed subscription_confirmed job_available \
      job_update job_completed system_status system_alert unknown server_disconnect",
        MessageHandling::HubOnly,
    ),
];

impl MessageHandling {
    /// Returns how the hub treats a `type`.
    pub fn of_type(kind: &str) -> MessageHandling {
        let found = MESSAGE_HANDLING.iter().find(|(names, _)| names.split(' ').any(|name| name == kind));
        found.map_or(MessageHandling::Unknown, |(_, kind)| *kind)
    }
}

/// `register_client` (lines 65 and 91).
pub struct RegisterClient {
    pub client_id: String,
    pub monitor: bool,
    pub permissions: Vec<String>,
}

/// `register_worker` (line 104).
pub struct RegisterWorker {
    pub worker_id: String,
    pub capabilities: CapabilityChanges,
    pub subscribed: bool,
    pub idle: bool,
    /// A token in the message; the document does not say where a token belongs.
    pub token: Option<String>,
}

/// Changed capabilities of a worker; `None` leaves them as they are.
#[derive(Default)]
pub struct CapabilityChanges {
    pub services: Option<BTreeSet<Arc<str>>>,
    pub components: Option<BTreeSet<Arc<str>>>,
    pub hardware: Option<Hardware>,
}

/// `submit_job` (line 136).
pub struct SubmitJob<'a> {
    pub needs: JobNeeds,
    pub priority: Number,
    pub amount: Amount,
    pub customer: Option<String>,
    pub payload: &'a RawValue,
    pub requirements: Option<&'a RawValue>,
}

/// `claim_job` (line 221).
pub struct ClaimJob {
    pub worker_id: String,
    pub max_jobs: usize,
    pub preferred: Vec<String>,
    pub gpu_memory: Option<Amount>,
    pub slots: Option<usize>,
    pub timeout: Option<(Number, Duration)>,
}

/// A worker's report on one of its jobs (lines 254, 267, 287, 330).
pub struct JobReport<'a> {
    pub job_id: String,
    pub worker_id: String,
    pub what: ReportContent<'a>,
}

/// The content of a report.
pub enum ReportContent<'a> {
    Accepted { estimated_completion: Option<String> },
    Progress { progress: Number, message: Option<String>, estimated_completion: Option<String> },
    Completed { processing_time: Option<Number>, result: &'a RawValue },
    Failed { error: String, retry: bool },
}

/// `worker_heartbeat` and `worker_status` (lines 367 and 404).
pub struct WorkerState {
    pub worker_id: String,
    pub idle: bool,
    pub capabilities: CapabilityChanges,
}

/// `subscribe_job_notifications` (line 430).
pub struct SubscribeNotifications<'a> {
    pub enabled: bool,
    pub filters: NotificationFilters,
    /// The known filters as they were sent.
    pub applied: BTreeMap<&'static str, &'a RawValue>,
}

/// `subscribe_stats` (line 459).
pub struct SubscribeStats {
    pub enabled: bool,
    pub interval: Option<Duration>,
    pub sections: StatsSections,
}

/// The requested parts of the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatsSections {
    pub jobs: bool,
    pub workers: bool,
    pub system: bool,
}

/// `chunked_message` (line 666).
pub struct MessageChunk {
    pub chunk_id: String,
    pub index: usize,
    pub total: usize,
    pub data: String,
    pub hash: String,
}

/// A parsed request.
pub enum EmpropsRequest<'a> {
    RegisterClient(RegisterClient),
    RegisterWorker(RegisterWorker),
    Submit(SubmitJob<'a>),
    Status { job_id: String },
    Cancel { job_id: String, reason: Option<String> },
    Claim(ClaimJob),
    Report(JobReport<'a>),
    Heartbeat(WorkerState),
    WorkerStatus(WorkerState),
    SubscribeJob { job_id: String },
    Notifications(SubscribeNotifications<'a>),
    SubscribeStats(SubscribeStats),
    Statistics(StatsSections),
    Chunk(MessageChunk),
    Ping,
    Disconnect { keep: bool },
}

/// Reads the members that all messages have.
pub fn parse_message(text: &str) -> Result<EmpropsMessage<'_>, RequestError> {
    let members = json::split_members(text).map_err(RequestError::InvalidMessage)?;
    let kind = json::required_member(&members, "type").map_err(RequestError::InvalidMessage)?;
    // An id that is not a string cannot be echoed; [`EmpropsMessage::parse_request`] refuses it.
    let id = json::optional_member(&members, "id").unwrap_or_default();
    Ok(EmpropsMessage { kind, id, fields: ObjectFields::new(members) })
}

impl<'a> EmpropsMessage<'a> {
    /// Reads the members of a request.
    pub fn parse_request(&self, broken: MachineFault) -> Result<EmpropsRequest<'a>, RequestError> {
        if self.kind == "submit_job" {
            let submit = self.check_common_members().and_then(|()| parse_submit(&self.fields, broken));
            return submit.map(EmpropsRequest::Submit).map_err(RequestError::InvalidJob);
        }
        self.check_common_members()?;
        let fields = &self.fields;
        let job_id = || fields.required_text("job_id");
        Ok(match self.kind.as_str() {
            "register_client" => EmpropsRequest::RegisterClient(parse_register_client(fields)?),
            "register_worker" => EmpropsRequest::RegisterWorker(parse_register_worker(fields)?),
            "request_job_status" => EmpropsRequest::Status { job_id: job_id()? },
            "cancel_job" => EmpropsRequest::Cancel { job_id: job_id()?, reason: fields.text("reason")? },
            "claim_job" => EmpropsRequest::Claim(parse_claim(fields)?),
            "job_accepted_by_worker" | "update_job_progress" | "complete_job" | "fail_job" => {
                EmpropsRequest::Report(JobReport {
                    job_id: job_id()?,
                    worker_id: fields.required_text("worker_id")?,
                    what: parse_report_content(&self.kind, fields)?,
                })
            }
            "worker_heartbeat" => EmpropsRequest::Heartbeat(parse_worker_state(fields)?),
            "worker_status" => EmpropsRequest::WorkerStatus(parse_worker_state(fields)?),
            "subscribe_job" => EmpropsRequest::SubscribeJob { job_id: job_id()? },
            "subscribe_job_notifications" => EmpropsRequest::Notifications(parse_notifications(fields)?),
            "subscribe_stats" => EmpropsRequest::SubscribeStats(parse_subscribe_stats(fields)?),
            "request_stats" => EmpropsRequest::Statistics(parse_sections(fields)?),
            "chunked_message" => EmpropsRequest::Chunk(parse_chunk(fields, broken)?),
            "disconnect" => {
                fields.text("reason")?;
                EmpropsRequest::Disconnect { keep: fields.flag("cleanup_subscriptions")? == Some(false) }
            }
            _ => EmpropsRequest::Ping,
        })
    }

    /// For faults: returns the first undocumented member.
    pub fn undocumented_member(&self) -> Option<&str> {
        self.fields.iter().map(|(name, _)| name).find(|name| !DOCUMENTED_MEMBERS.split(' ').any(|known| known == *name))
    }

    /// Checks the members that every message may have (lines 21 to 25). The timestamp may be missing.
    fn check_common_members(&self) -> Result<(), FieldError> {
        self.fields.text("id")?;
        self.fields.text("source")?;
        self.fields.number("timestamp", "Must be a number of Unix milliseconds", |_| true)?;
        Ok(())
    }
}

fn parse_register_client(fields: &ObjectFields<'_>) -> Result<RegisterClient, FieldError> {
    let monitor = match fields.required_text("client_type")?.as_str() {
        "job_client" => false,
        "monitor" => true,
        _ => return Err(fields.field_error("client_type", "Must be job_client or monitor")),
    };
    fields.text("version")?;
    fields.object("capabilities")?;
    Ok(RegisterClient {
        client_id: fields.required_text("client_id")?,
        monitor,
        permissions: fields.texts("permissions")?.unwrap_or_default(),
    })
}

fn parse_register_worker(fields: &ObjectFields<'_>) -> Result<RegisterWorker, FieldError> {
    fields.required_object("capabilities")?;
    Ok(RegisterWorker {
        worker_id: fields.required_text("worker_id")?,
        capabilities: parse_capabilities(fields)?,
        subscribed: fields.flag("subscribe_to_jobs")?.unwrap_or(true),
        idle: fields.text("status")?.is_none_or(|status| status == "idle"),
        token: fields.text("token")?,
    })
}

fn parse_capabilities(fields: &ObjectFields<'_>) -> Result<CapabilityChanges, FieldError> {
    let Some(fields) = fields.nested_fields("capabilities")? else { return Ok(CapabilityChanges::default()) };
    let names = |name| -> Result<Option<BTreeSet<Arc<str>>>, FieldError> {
        Ok(fields.texts(name)?.map(|texts| texts.into_iter().map(Into::into).collect()))
    };
    Ok(CapabilityChanges {
        services: names("services")?,
        components: names("components")?,
        hardware: parse_hardware(&fields)?,
    })
}

fn parse_hardware(fields: &ObjectFields<'_>) -> Result<Option<Hardware>, FieldError> {
    const MAX_MEMBERS: usize = 64;
    let Some(inside) = fields.nested_fields("hardware")? else { return Ok(None) };
    let mut hardware = Hardware::new();
    for (name, raw) in inside.iter().filter(|(_, raw)| raw.get() != "null") {
        let value = if let Some((_, number)) = inside.number(name, "", |_| true).ok().flatten() {
            HardwareValue::Amount(Amount::new(number))
        } else if name == GPU_MEMORY {
            return Err(inside.field_error(name, "Must be a positive number"));
        } else if raw.get().len() > 4096 || hardware.len() >= MAX_MEMBERS {
            return Err(inside.field_error(name, "Is too much"));
        } else {
            HardwareValue::Other(inside.text(name).ok().flatten().unwrap_or_else(|| raw.get().to_owned()))
        };
        hardware.insert(name.to_owned(), value);
    }
    Ok(Some(hardware))
}

fn parse_submit<'a>(fields: &ObjectFields<'a>, broken: MachineFault) -> Result<SubmitJob<'a>, FieldError> {
    let (priority, amount) = fields
        .number("priority", "Must be a number from 0 to 100", |number| (0.0..=100.0).contains(&number))?
        .filter(|(_, amount)| *amount != 0.0 || !broken.is("emprops-priority-zero-usual"))
        .unwrap_or_else(|| (DEFAULT_PRIORITY.into(), DEFAULT_PRIORITY.into()));
    let job_type = match fields.text("job_type")? {
        None if broken.is("emprops-job-type-optional") => "anything".to_owned(),
        _ => fields.required_text("job_type")?,
    };
    let mut needs = JobNeeds { job_type: job_type.into(), ..JobNeeds::default() };
    let requirements = fields.object("requirements")?;
    if let Some(inside) = fields.nested_fields("requirements")? {
        needs.service = inside.text("service_type")?.map(Into::into);
        needs.component = inside.text("component")?.map(Into::into);
        let unread = inside.nested_fields("hardware")?.is_some_and(|hardware| {
            hardware.raw(GPU_MEMORY).is_some_and(|raw| raw.get().starts_with('"'))
                && broken.is("emprops-gpu-string-accepted")
        });
        if let Some(hardware) = inside.nested_fields("hardware")?.filter(|_| !unread) {
            hardware.number(GPU_MEMORY, "Must be a positive number", |number| {
                number > 0.0
                    || (number == 0.0 && broken.is("emprops-gpu-zero-accepted"))
                    || (number < 0.0 && broken.is("emprops-gpu-negative-accepted"))
            })?;
        }
        needs.hardware = if unread { Hardware::new() } else { parse_hardware(&inside)?.unwrap_or_default() };
    }
    Ok(SubmitJob {
        needs,
        priority,
        amount: Amount::new(amount),
        customer: fields.text("customer_id")?,
        payload: match fields.raw("payload") {
            None if broken.is("emprops-payload-optional") => RawValue::NULL,
            _ => fields.required_object("payload")?,
        },
        requirements,
    })
}

fn parse_claim(fields: &ObjectFields<'_>) -> Result<ClaimJob, FieldError> {
    fields.number("current_load", "Must be a number", |_| true)?;
    let (gpu_memory, slots) = match fields.nested_fields("available_resources")? {
        None => (None, None),
        Some(inside) => (
            inside.number("gpu_memory_available", "Must be a number", |_| true)?.map(|(_, number)| Amount::new(number)),
            inside.whole_number("concurrent_slots", 0)?,
        ),
    };
    Ok(ClaimJob {
        worker_id: fields.required_text("worker_id")?,
        max_jobs: fields.whole_number("max_jobs", 1)?.unwrap_or(1),
        preferred: fields.texts("preferred_types")?.unwrap_or_default(),
        gpu_memory,
        slots,
        timeout: fields
            .number("claim_timeout", "Must be a positive number of milliseconds", |ms| ms > 0.0)?
            .map(|(number, ms)| (number, Duration::from_secs_f64(ms.min(MAX_CLAIM_TIMEOUT_MS) / 1000.0))),
    })
}

fn parse_report_content<'a>(kind: &str, fields: &ObjectFields<'a>) -> Result<ReportContent<'a>, FieldError> {
    Ok(match kind {
        "job_accepted_by_worker" => {
            ReportContent::Accepted { estimated_completion: fields.text("estimated_completion")? }
        }
        "update_job_progress" => {
            let must = "Must be a number from 0 to 100";
            fields.text("status")?;
            ReportContent::Progress {
                progress: fields.required_number("progress", must, |number| (0.0..=100.0).contains(&number))?.0,
                message: fields.text("message")?,
                estimated_completion: fields.text("estimated_completion")?,
            }
        }
        "complete_job" => {
            // It is passed on to clients, so it must have the form documented for them (line 523).
            if let Some(result) = fields.nested_fields("result")? {
                result.check_flag("success")?;
                result.check_texts("output_files")?;
            }
            ReportContent::Completed {
                processing_time: parse_processing_time(fields)?,
                result: fields.required_object("result")?,
            }
        }
        _ => {
            parse_processing_time(fields)?;
            ReportContent::Failed {
                error: fields.required_text("error")?,
                retry: fields.flag("retry")?.unwrap_or(false),
            }
        }
    })
}

fn parse_processing_time(fields: &ObjectFields<'_>) -> Result<Option<Number>, FieldError> {
    let time = fields.number("processing_time", "Must be a number of seconds", |seconds| seconds >= 0.0)?;
    Ok(time.map(|(number, _)| number))
}

fn parse_worker_state(fields: &ObjectFields<'_>) -> Result<WorkerState, FieldError> {
    Ok(WorkerState {
        worker_id: fields.required_text("worker_id")?,
        idle: fields.required_text("status")? == "idle",
        capabilities: parse_capabilities(fields)?,
    })
}

fn parse_notifications<'a>(fields: &ObjectFields<'a>) -> Result<SubscribeNotifications<'a>, FieldError> {
    let enabled = fields.required_flag("enabled")?;
    let mut filters = NotificationFilters::default();
    let mut applied = BTreeMap::new();
    if let Some(inside) = fields.nested_fields("filters")? {
        filters = NotificationFilters {
            customer: inside.text("customer_id")?.map(Into::into),
            job_types: inside.texts("job_types")?.map(|types| types.into_iter().map(Into::into).collect()),
            priority_min: inside
                .number("priority_min", "Must be a number", |_| true)?
                .map(|(_, number)| Amount::new(number)),
            status: inside.texts("status")?.map(|names| names.into_iter().collect()),
        };
        for name in ["customer_id", "job_types", "priority_min", "status"] {
            applied.extend(inside.raw(name).map(|raw| (name, raw)));
        }
    }
    Ok(SubscribeNotifications { enabled, filters, applied })
}

fn parse_subscribe_stats(fields: &ObjectFields<'_>) -> Result<SubscribeStats, FieldError> {
    Ok(SubscribeStats {
        enabled: fields.required_flag("enabled")?,
        interval: fields
            .number("interval_seconds", "Must be a positive number of seconds", |seconds| seconds > 0.0)?
            .map(|(_, seconds)| Duration::from_secs_f64(seconds.min(MAX_INTERVAL))),
        sections: parse_sections(fields)?,
    })
}

fn parse_sections(fields: &ObjectFields<'_>) -> Result<StatsSections, FieldError> {
    Ok(match fields.texts("include_sections")? {
        None => StatsSections { jobs: true, workers: true, system: true },
        Some(names) => {
            let named = |name: &str| names.iter().any(|other| other == name);
            StatsSections { jobs: named("jobs"), workers: named("workers"), system: named("system") }
        }
    })
}

fn parse_chunk(fields: &ObjectFields<'_>, broken: MachineFault) -> Result<MessageChunk, FieldError> {
    let total = fields.required_whole_number("total_chunks", 1)?;
    if total > MAX_CHUNKS {
        return Err(fields.field_error("total_chunks", format!("Must not be more than {MAX_CHUNKS}")));
    }
    let base = usize::from(broken.is("emprops-chunks-count-from-one"));
    let index = fields.required_whole_number("chunk_index", base as _)? - base;
    if index >= total {
        return Err(fields.field_error("chunk_index", "Must be less than total_chunks; the first is 0"));
    }
    fields.text("original_type")?;
    Ok(MessageChunk {
        chunk_id: fields.required_text("chunk_id")?,
        index,
        total,
        data: fields.required_data("data")?,
        hash: fields.required_text("data_hash")?,
    })
}
