//! Wrong reactions of clients to texts that they have to take.

use serde::Deserialize;
use serde_json::Value;

use crate::fault::FrameCondition;
use crate::fault::injector::conditions_hold;

/// A wrong reaction to some texts.
#[derive(Debug)]
pub(super) struct WrongReaction {
    /// The conditions on such a text, which is JSON.
    pub on: &'static [FrameCondition],
    /// The texts that are nevertheless understood.
    pub unless: Option<Understood>,
    pub then: Reaction,
}

/// What a client does.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reaction {
    /// It drops the connection, and ends.
    Die,
    /// It sends this text.
    Send(String),
}

/// The texts that a narrow reader of JSON understands, where it does not understand all.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Understood {
    /// Those that do not end with CR LF.
    NoLineEnd,
    /// Those with these members only.
    Members(Vec<String>),
}

impl WrongReaction {
    /// Whether the client reacts to this text.
    pub fn is_due(&self, text: &str) -> bool {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
        let understood = match &self.unless {
            None => false,
            Some(Understood::NoLineEnd) => !text.ends_with("\r\n"),
            Some(Understood::Members(known)) => {
                value.as_object().is_none_or(|object| object.keys().all(|name| known.contains(name)))
            }
        };
        !understood && conditions_hold(self.on, Some(&value))
    }
}
