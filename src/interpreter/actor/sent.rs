//! The latest frames that were sent, and which of them a finding is about.

use serde_json::Value;

use crate::interpreter::Conversation;
use crate::outcome::FrameKind;
use crate::scenario::fences::judging_templates;
use crate::scenario::model::{ActorId, ExpectedEvent, MessageName, Step, StepAction};

/// The most frames that are remembered, and the most characters of each.
pub const KEPT_FRAMES: usize = 64;
pub const MAX_SHOWN: usize = 1000;
/// The least length of a text that is hardly in two messages by chance.
const MIN_TELLING: usize = 6;

/// A frame that an actor sent.
pub struct SentFrame {
    pub actor: ActorId,
    /// Position among all events of the conversation.
    pub sequence: u64,
    pub kind: FrameKind,
    /// Index of the message in the pack.
    pub message: Option<usize>,
    /// The payload, shortened, with secrets masked.
    pub text: String,
}

/// Returns the name of the message for which a step waits, or which must not come.
fn awaited_message(step: &Step) -> Option<&str> {
    let message = match &step.act {
        StepAction::Expect(expect) => match &expect.want {
            ExpectedEvent::Message { message, .. } => message,
            _ => return None,
        },
        StepAction::ExpectNothing(nothing) => &nothing.message,
        _ => return None,
    };
    match message {
        MessageName::Named(name) => Some(name),
        MessageName::Any | MessageName::Computed(_) => None,
    }
}

impl Conversation {
    /// Returns the request that a finding of the current step is about. `actor` is the one that waited; `None` for a step
    /// without an actor.
    pub(in crate::interpreter) fn request_in_question(&self, actor: Option<ActorId>) -> Option<&SentFrame> {
        let pack = &self.program.pack;
        let sent = || self.actors.sent.iter().rev();
        let step = self.blocks.step(&self.program).filter(|step| {
            let members = self.blocks.members(&step.who);
            actor.is_none_or(|actor| members.contains(&actor))
        });
        let names = self.eval_context(actor);
        let used: Vec<_> = step.into_iter().flat_map(judging_templates).flat_map(|one| one.wires(&names)).collect();
        // A step names its request by a value of it.
        if let Some(named) = sent().find(|one| used.iter().any(|wire| wire.sequence == one.sequence)) {
            return Some(named);
        }
        let Some(actor) = actor else {
            // The request before the latest frame that the step judges.
            let latest = used.iter().max_by_key(|wire| wire.sequence);
            let of = latest.map(|wire| (self.actors.connections.get(&wire.connection), wire.sequence));
            let before = |one: &&SentFrame| of.is_none_or(|(id, at)| id == Some(&one.actor) && one.sequence < at);
            return sent().find(before).or_else(|| sent().next());
        };
        let own = || sent().filter(|one| one.actor == actor);
        let replies = |one: &SentFrame| one.message.map(|index| pack.messages[index].replies.as_slice());
        let awaited = step.and_then(awaited_message);
        let answers = |one: &SentFrame| {
            let replies = replies(one).unwrap_or_default();
            awaited.is_some_and(|name| replies.iter().any(|reply| reply == name))
        };
        if let Some(asked) = own().find(|one| answers(one)) {
            return Some(asked);
        }
        let ignored = &self.program.shared.ignore;
        let is_ignored = |one: &&SentFrame| {
            let name = one.message.map(|index| &pack.messages[index].name);
            matches!(one.kind, FrameKind::Ping | FrameKind::Pong) || name.is_some_and(|name| ignored.contains(name))
        };
        // What answers no request follows from what others sent.
        let is_pushed = awaited.is_some_and(|name| {
            let mut all = pack.messages.iter().flat_map(|message| &message.replies).peekable();
            all.peek().is_some() && !all.any(|reply| reply == name)
        });
        // A name that `unique` made, or the text of another frame, is in the request and in its consequences.
        let mut values = Vec::new();
        for template in step.into_iter().flat_map(judging_templates) {
            template.visit_expressions(&mut |expression| {
                if expression.pointer().is_some() {
                    values.extend(expression.eval(&names));
                }
            });
        }
        let texts: Vec<&str> =
            values.iter().filter_map(Value::as_str).filter(|text| text.len() >= MIN_TELLING).collect();
        let same = |one: &&SentFrame| texts.iter().any(|text| one.text.contains(text));
        let of_others = || sent().filter(|one| one.actor != actor).find(same);
        let named = is_pushed.then(of_others).flatten().or_else(|| sent().find(same));
        let causes = |one: &&SentFrame| one.actor != actor || replies(one).is_none_or(<[_]>::is_empty);
        let pushed = is_pushed.then(|| sent().filter(|one| !is_ignored(one)).find(causes)).flatten();
        named.or(pushed).or_else(|| own().find(|one| !is_ignored(one))).or_else(|| own().next())
    }
}
