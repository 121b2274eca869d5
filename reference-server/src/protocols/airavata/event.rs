//! Events of experiments, tasks, workers and the system, which come from the admin side.
//!
//! `{"message": {...}, "args": {"project": P, "user": U, "experiment": E}}`: `message` is a documented event, whose
//! `type` and `data` are sent unchanged, with the hub's `id` and `timestamp`; `args` name the owners of its resource.
//! Each of them is optional: the defaults are `projectId` and `ownerId` of an experiment and `experimentId` of a task.

use serde_json::Value;

use super::topic::{Kind, Topic};
use crate::machine::EventError;

/// The longest id in bytes.
const MAX_ID: usize = 512;

/// An event and the resources it belongs to.
#[derive(Debug)]
pub struct Event<'a> {
    /// The type of the message that clients receive.
    pub name: &'a str,
    /// The kind of resource that the event is about: experiment, task, worker or system.
    pub kind: Kind,
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
const EVENTS: &[(&str, Kind)] = &[
    ("experiment_created", Kind::Experiment),
    ("experiment_updated", Kind::Experiment),
    ("experiment_progress", Kind::Experiment),
    ("experiment_completed", Kind::Experiment),
    ("experiment_failed", Kind::Experiment),
    ("task_created", Kind::Task),
    ("task_updated", Kind::Task),
    ("task_progress", Kind::Task),
    ("task_completed", Kind::Task),
    ("task_failed", Kind::Task),
    ("worker_registered", Kind::Worker),
    ("worker_updated", Kind::Worker),
    ("worker_offline", Kind::Worker),
    ("system_status", Kind::System),
];

const SHAPE: &str = r#"an event is {"message": {"type": ..., "data": {...}}, "args": {"project": ..., "user": ..., "experiment": ...}}"#;

/// Reads an event.
pub fn read(event: &Value) -> Result<Event<'_>, EventError> {
    let members = event.as_object().ok_or_else(|| invalid(SHAPE))?;
    if let Some(stranger) = members.keys().find(|name| !matches!(name.as_str(), "message" | "args")) {
        return Err(invalid(format!("there is no member {stranger:?}; {SHAPE}")));
    }
    let message = members.get("message").and_then(Value::as_object).ok_or_else(|| invalid(SHAPE))?;
    let name = message.get("type").and_then(Value::as_str).ok_or_else(|| invalid("the message has no type"))?;
    let (name, kind) = *EVENTS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
        let known: Vec<&str> = EVENTS.iter().map(|(name, _)| *name).collect();
        let shown: String = name.chars().take(64).collect();
        invalid(format!("there is no event {shown:?}; the events are {}", known.join(", ")))
    })?;
    let data = message.get("data").filter(|data| data.is_object());
    let data = data.ok_or_else(|| invalid(format!("an event {name} needs an object under /data")))?;
    let member = |pointer: &str| data.pointer(pointer).and_then(Value::as_str).filter(|id| !id.is_empty());
    let args = members.get("args").filter(|args| !args.is_null());
    let arg = |name: &str| match args.and_then(|args| args.get(name)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if id.len() <= MAX_ID => Ok(Some(id.as_str()).filter(|id| !id.is_empty())),
        Some(_) => Err(invalid(format!("/args/{name} is not a string of at most {MAX_ID} bytes"))),
    };
    if let Some(args) = args {
        let args = args.as_object().ok_or_else(|| invalid(SHAPE))?;
        if let Some(stranger) = args.keys().find(|name| !matches!(name.as_str(), "project" | "user" | "experiment")) {
            return Err(invalid(format!(
                "there is no argument {stranger:?}; the arguments are project, user and experiment"
            )));
        }
    }
    let flat = name.ends_with("_progress");
    let (place, experiment) = match kind {
        Kind::Experiment => (if flat { "/experimentId" } else { "/experiment/id" }, None),
        Kind::Task => (
            if flat { "/taskId" } else { "/task/id" },
            member(if flat { "/experimentId" } else { "/task/experimentId" }),
        ),
        Kind::Worker => ("/worker/id", member("/worker/experimentId")),
        _ => {
            // Subscriptions and their answers have the same type (line 521).
            if data.get("action").is_some() {
                return Err(invalid("a system_status with /data/action is not an event"));
            }
            ("", None)
        }
    };
    let id = match place {
        "" => "",
        place => member(place).filter(|id| id.len() <= MAX_ID).ok_or_else(|| {
            invalid(format!("an event {name} needs an id under /data{place}, of at most {MAX_ID} bytes"))
        })?,
    };
    Ok(Event {
        name,
        kind,
        id,
        experiment: arg("experiment")?.or(experiment),
        project: arg("project")?.or_else(|| member("/experiment/projectId")),
        user: arg("user")?.or_else(|| member("/experiment/ownerId")),
        data,
    })
}

fn invalid(text: impl Into<String>) -> EventError {
    EventError::Invalid(text.into())
}

impl Event<'_> {
    /// Returns the topics whose subscribers get the event (lines 587 to 589). A system event goes to all clients (lines
    /// 582, 590).
    pub fn topics(&self) -> Vec<Topic> {
        let of = |kind, id: Option<&str>| id.map(|id| Topic::new(kind, id));
        let owners = [of(Kind::Project, self.project), of(Kind::User, self.user)];
        let own = of(self.kind, Some(self.id));
        match self.kind {
            Kind::Experiment => [own].into_iter().chain(owners).flatten().collect(),
            Kind::Task => [own, of(Kind::Experiment, self.experiment)].into_iter().chain(owners).flatten().collect(),
            Kind::Worker => [own, of(Kind::System, Some(""))].into_iter().flatten().collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the prefix of the id of the event's message (lines 147 to 151).
    pub fn id_prefix(&self) -> String {
        match self.kind {
            Kind::Experiment => format!("exp_{}", self.id),
            Kind::Task => format!("task_{}", self.id),
            Kind::Worker => format!("worker_{}", self.id),
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
        let error = read(&event).unwrap_err().to_string();
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
    fn events_are_routed(#[case] event: Value, #[case] want: &str) {
        let event = read(&event).unwrap();
        let topics: Vec<String> = event.topics().iter().map(Topic::show).collect();
        assert_eq!(format!("{}: {}", event.id_prefix(), topics.join(", ")), want);
    }
}
