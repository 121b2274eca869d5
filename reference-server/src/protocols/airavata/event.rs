//! Events of experiments, tasks, workers and the system, which come from the admin side.
//!
//! `{"message": {...}, "args": {"project": P, "user": U, "experiment": E}}`: `message` is a documented event, whose
//! `type` and `data` are sent unchanged, with the hub's `id` and `timestamp`; `args` name the owners of its resource.
//! Each of them is optional: the defaults are `projectId` and `ownerId` of an experiment and `experimentId` of a task.

use serde_json::Value;

use super::topic::{ResourceKind, ResourceTopic};
use crate::machine::EventError;

/// The longest id in bytes.
const MAX_ID: usize = 512;

/// An event and the resources it belongs to.
#[derive(Debug)]
pub struct AiravataEvent<'a> {
    /// The type of the message that clients receive.
    pub name: &'a str,
    /// The kind of resource that the event is about: experiment, task, worker or system.
    pub kind: ResourceKind,
    /// The id of the resource that the event is about; empty for the system.
    pub id: &'a str,
    /// The experiment of a task or worker.
    pub experiment: Option<&'a str>,
    pub project: Option<&'a str>,
    pub user: Option<&'a str>,
    /// The data of the message that clients receive.
    pub data: &'a Value,
}

/// The types of events and the kinds of their resources (lines 202 to 510 and 175).
const EVENTS: &[(&str, ResourceKind)] = &[
    ("experiment_created", ResourceKind::Experiment),
    ("experiment_updated", ResourceKind::Experiment),
    ("experiment_progress", ResourceKind::Experiment),
    ("experiment_completed", ResourceKind::Experiment),
    ("experiment_failed", ResourceKind::Experiment),
    ("task_created", ResourceKind::Task),
    ("task_updated", ResourceKind::Task),
    ("task_progress", ResourceKind::Task),
    ("task_completed", ResourceKind::Task),
    ("task_failed", ResourceKind::Task),
    ("worker_registered", ResourceKind::Worker),
    ("worker_updated", ResourceKind::Worker),
    ("worker_offline", ResourceKind::Worker),
    ("system_status", ResourceKind::System),
];

const EVENT_SHAPE: &str = r#"an event is {"message": {"type": ..., "data": {...}}, "args": {"project": ..., "user": ..., "experiment": ...}}"#;

/// Reads an event.
pub fn parse_event(event: &Value) -> Result<AiravataEvent<'_>, EventError> {
    let members = event.as_object().ok_or_else(|| invalid_event(EVENT_SHAPE))?;
    if let Some(stranger) = members.keys().find(|name| !matches!(name.as_str(), "message" | "args")) {
        return Err(invalid_event(format!("there is no member {stranger:?}; {EVENT_SHAPE}")));
    }
    let message = members.get("message").and_then(Value::as_object).ok_or_else(|| invalid_event(EVENT_SHAPE))?;
    let name = message.get("type").and_then(Value::as_str).ok_or_else(|| invalid_event("the message has no type"))?;
    let (name, kind) = *EVENTS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
        let known: Vec<&str> = EVENTS.iter().map(|(name, _)| *name).collect();
        let shown: String = name.chars().take(64).collect();
        invalid_event(format!("there is no event {shown:?}; the events are {}", known.join(", ")))
    })?;
    let data = message.get("data").filter(|data| data.is_object());
    let data = data.ok_or_else(|| invalid_event(format!("an event {name} needs an object under /data")))?;
    let member = |pointer: &str| data.pointer(pointer).and_then(Value::as_str).filter(|id| !id.is_empty());
    let args = members.get("args").filter(|args| !args.is_null());
    let arg = |name: &str| match args.and_then(|args| args.get(name)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if id.len() <= MAX_ID => Ok(Some(id.as_str()).filter(|id| !id.is_empty())),
        Some(_) => Err(invalid_event(format!("/args/{name} is not a string of at most {MAX_ID} bytes"))),
    };
    if let Some(args) = args {
        let args = args.as_object().ok_or_else(|| invalid_event(EVENT_SHAPE))?;
        if let Some(stranger) = args.keys().find(|name| !matches!(name.as_str(), "project" | "user" | "experiment")) {
            return Err(invalid_event(format!(
                "there is no argument {stranger:?}; the arguments are project, user and experiment"
            )));
        }
    }
    let flat = name.ends_with("_progress");
    let (place, experiment) = match kind {
        ResourceKind::Experiment => (if flat { "/experimentId" } else { "/experiment/id" }, None),
        ResourceKind::Task => (
            if flat { "/taskId" } else { "/task/id" },
            member(if flat { "/experimentId" } else { "/task/experimentId" }),
        ),
        ResourceKind::Worker => ("/worker/id", member("/worker/experimentId")),
        _ => {
            // Subscriptions and their answers have the same type (line 521).
            if data.get("action").is_some() {
                return Err(invalid_event("a system_status with /data/action is not an event"));
            }
            ("", None)
        }
    };
    let id = match place {
        "" => "",
        place => member(place).filter(|id| id.len() <= MAX_ID).ok_or_else(|| {
            invalid_event(format!("an event {name} needs an id under /data{place}, of at most {MAX_ID} bytes"))
        })?,
    };
    Ok(AiravataEvent {
        name,
        kind,
        id,
        experiment: arg("experiment")?.or(experiment),
        project: arg("project")?.or_else(|| member("/experiment/projectId")),
        user: arg("user")?.or_else(|| member("/experiment/ownerId")),
        data,
    })
}

fn invalid_event(text: impl Into<String>) -> EventError {
    EventError::Invalid(text.into())
}

impl AiravataEvent<'_> {
    /// Returns the topics whose subscribers get the event (lines 587 to 589). A system event goes to all clients (lines
    /// 582, 590).
    pub fn topics(&self) -> Vec<ResourceTopic> {
        let of = |kind, id: Option<&str>| id.map(|id| ResourceTopic::new(kind, id));
        let owners = [of(ResourceKind::Project, self.project), of(ResourceKind::User, self.user)];
        let own = of(self.kind, Some(self.id));
        match self.kind {
            ResourceKind::Experiment => [own].into_iter().chain(owners).flatten().collect(),
            ResourceKind::Task => {
                [own, of(ResourceKind::Experiment, self.experiment)].into_iter().chain(owners).flatten().collect()
            }
            ResourceKind::Worker => [own, of(ResourceKind::System, Some(""))].into_iter().flatten().collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the prefix of the id of the event's message (lines 147 to 151).
    pub fn id_prefix(&self) -> String {
        match self.kind {
            ResourceKind::Experiment => format!("exp_{}", self.id),
            ResourceKind::Task => format!("task_{}", self.id),
            ResourceKind::Worker => format!("worker_{}", self.id),
            _ => "system".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!(7), "an event is")]
    #[case(json!({}), "an event is")]
    #[case(json!({ "message": {} }), "no type")]
    #[case(json!({ "message": { "type": "dance", "data": {} } }), "\"dance\"; the events are experiment_created")]
    #[case(json!({ "message": { "type": "task_created" } }), "/data")]
    #[case(json!({ "message": { "type": "task_created", "data": {} } }), "/data/task/id")]
    #[case(json!({ "message": { "type": "task_progress", "data": { "taskId": 7 } } }), "/data/taskId")]
    #[case(json!({ "message": { "type": "system_status", "data": { "action": "x" } } }), "not an event")]
    #[case(json!({ "message": { "type": "system_status", "data": {} }, "args": { "user": 7 } }), "/args/user")]
    #[case(json!({ "message": { "type": "system_status", "data": {} }, "args": { "x": 7 } }), "\"x\"")]
    #[case(json!({ "message": { "type": "system_status", "data": {} }, "to": 1 }), "\"to\"")]
    fn the_error_for_a_wrong_admin_event_says_what_is_wrong(#[case] event: Value, #[case] why: &str) {
        let error = parse_event(&event).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[rstest]
    #[case(
        json!({ "message": { "type": "experiment_created", "data": { "experiment": { "id": "e", "projectId": "p", "ownerId": "u" } } } }),
        "exp_e: experiment e, project p, user u"
    )]
    #[case(
        json!({ "message": { "type": "experiment_created", "data": { "experiment": { "id": "e", "projectId": "p", "ownerId": "u" } } },
            "args": { "project": "q", "user": null } }),
        "exp_e: experiment e, project q, user u"
    )]
    #[case(json!({ "message": { "type": "experiment_progress", "data": { "experimentId": "e" } } }), "exp_e: experiment e")]
    #[case(
        json!({ "message": { "type": "task_updated", "data": { "task": { "id": "t", "experimentId": "e" } } }, "args": { "user": "u" } }),
        "task_t: task t, experiment e, user u"
    )]
    #[case(
        json!({ "message": { "type": "task_progress", "data": { "taskId": "t", "experimentId": "e" } }, "args": { "experiment": "f" } }),
        "task_t: task t, experiment f"
    )]
    #[case(
        json!({ "message": { "type": "worker_offline", "data": { "worker": { "id": "w", "experimentId": "e" } } } }),
        "worker_w: worker w, system"
    )]
    #[case(json!({ "message": { "type": "system_status", "data": {} }, "args": null }), "system: ")]
    fn events_are_routed_to_their_topics(#[case] event: Value, #[case] want: &str) {
        let event = parse_event(&event).unwrap();
        let topics: Vec<String> = event.topics().iter().map(ResourceTopic::describe).collect();
        assert_eq!(format!("{}: {}", event.id_prefix(), topics.join(", ")), want);
    }
}
