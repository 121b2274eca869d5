//! What a plan's marks say about the messages of its protocol, for [`crate::observe`].

use super::MarkName;
use super::script::{PlanScript, RoleScript};
use crate::import::recording::Side;
use crate::observe::jobs::{JobMark, JobRule};
use crate::scenario::model::{ExpectedEvent, MessageName, StepAction};
use crate::scenario::template::Template;

impl PlanScript {
    /// Returns which messages are about a job, as the marks of the plan say. Deliveries of messages are not jobs.
    pub fn job_rules(&self) -> Vec<JobRule> {
        let mut rules: Vec<JobRule> = Vec::new();
        for part in &self.parts {
            part.lines().for_each(|line| {
                line.visit_steps(&mut |step, options| {
                    let Some(mark) = options.marks.and_then(|(mark, _)| job_mark(mark)) else { return };
                    let (name, by, members) = match &step.act {
                        StepAction::Send(send) => (&send.message, Side::Client, send.with.as_ref()),
                        StepAction::Expect(expected) => match &expected.want {
                            ExpectedEvent::Message { message, pattern } => {
                                (message, Side::Hub, pattern.as_ref().map(|pattern| &pattern.template))
                            }
                            _ => return,
                        },
                        _ => return,
                    };
                    let MessageName::Named(name) = name else { return };
                    let Some(message) = self.pack.message_index(name) else { return };
                    let id =
                        item_of(part, options.item.as_ref()).and_then(|item| place(item, step.as_.as_deref(), members));
                    let rule = JobRule { message, by, mark, id };
                    let is_new = rules.iter().all(|known| (known.message, known.by) != (message, by));
                    if is_new && (rule.id.is_some() || mark == JobMark::Submitted) {
                        rules.push(rule);
                    }
                });
            });
        }
        rules
    }
}

fn job_mark(mark: MarkName) -> Option<JobMark> {
    Some(match mark {
        MarkName::Attempted => JobMark::Submitted,
        MarkName::Acknowledged => JobMark::Accepted,
        MarkName::Assigned => JobMark::Assigned,
        MarkName::Released => JobMark::Released,
        MarkName::Completed => JobMark::Completed,
        MarkName::Failed | MarkName::Cancelled | MarkName::Refused => JobMark::Ended,
        MarkName::Published | MarkName::Delivered => return None,
    })
}

/// Returns the expression of a step's item.
fn item_of<'a>(part: &'a RoleScript, own: Option<&'a Template>) -> Option<&'a str> {
    match own.or(part.item.as_ref())? {
        Template::Expression(expression) => Some(expression.source.trim()),
        _ => None,
    }
}

/// Returns where a message has the item: a member of the message itself, which is bound to a name, or one that the step
/// sets to the item, or compares with it.
fn place(item: &str, name: Option<&str>, members: Option<&Template>) -> Option<String> {
    let own = name.and_then(|name| item.strip_prefix(name)?.strip_prefix('.'));
    if let Some(path) = own.filter(|path| path.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))) {
        return Some(format!("/{}", path.replace('.', "/")));
    }
    let Template::Map(members) = members? else { return None };
    let is_item = |value: &Template| matches!(value, Template::Expression(value) if value.source.trim() == item);
    let (key, _) = members.iter().find(|(_, value)| is_item(value))?;
    Some(if key.starts_with('/') { key.clone() } else { format!("/{key}") })
}
