//! Many who come and go in a way that a hub has to clean up after: each in turn, so that no more than a few are there at a
//! time, and more of them than servers often have places for.

use serde_json::{Value, json};

use super::Cell;
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::prefix::Prefix;
use crate::fuzz::oracle;
use crate::fuzz::placement::Placement;

/// One way of coming and going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Churn {
    /// Lets himself be known, says the message, and breaks the connection without waiting for an answer.
    Broken,
    /// Lets himself be known, and closes with a code that is his own.
    OddClose,
    /// Knocks where nobody lives.
    NoPath,
    /// Asks for a page where WebSockets are.
    NoUpgrade,
}

/// So many come and go.
pub const VISITS: usize = 70;

impl Churn {
    pub const ALL: [Self; 4] = [Self::Broken, Self::OddClose, Self::NoPath, Self::NoUpgrade];

    pub fn name(self) -> &'static str {
        match self {
            Self::Broken => "gone-at-once",
            Self::OddClose => "odd-close",
            Self::NoPath => "no-such-path",
            Self::NoUpgrade => "no-upgrade",
        }
    }

    /// What is done over and over; `None` where there is no such case. But for the first way nobody says anything, so that one
    /// message's case is as good as another's.
    pub(crate) fn visits(self, material: &Corpus, cell: Cell, scene: &Prefix, text: &Value) -> Option<Value> {
        if cell.placement != Placement::Anew {
            return None;
        }
        let sender = &scene.sender;
        let first = material.pack.messages.iter().position(|message| message.directions.to_hub && !message.abstract_);
        let is_first = first == Some(cell.message);
        let tries = format!("{sender} tries to connect");
        let refused = json!({
            format!("{sender} expects one of"): [{ "refusal": "any" }, { "close": ["any", "drop"] }, { "nothing": null }],
            "within": "0s",
        });
        let steps = match self {
            Self::Broken => json!([
                oracle::lets_in(sender),
                { format!("{sender} sends raw"): { "text": "${visit}" } },
                { format!("{sender} drops"): "reset" },
            ]),
            Self::OddClose if is_first => json!([oracle::lets_in(sender), { format!("{sender} closes"): 4000 }]),
            Self::NoPath if is_first => json!([{ tries: "/no/such/path" }, refused]),
            Self::NoUpgrade if is_first => {
                let headers = ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"];
                let headers: Value = headers.into_iter().map(|name| (name.to_owned(), Value::Null)).collect();
                json!([{ tries: null, "headers": headers }, refused])
            }
            _ => return None,
        };
        let visits = std::iter::repeat_n(text.clone(), VISITS).collect::<Value>();
        Some(json!({ "each": "visit", "in": visits, "do": steps }))
    }

    /// A hub may think its part of whoever has knocked so often at wrong doors, so that what it does to newcomers from there
    /// only warns.
    pub(crate) fn judged(self, mut steps: Vec<Value>) -> Vec<Value> {
        let rules = steps.iter_mut().filter_map(|step| step.get_mut("rules")?.as_array_mut()).flatten();
        for rule in
            rules.filter(|rule| matches!(self, Self::NoPath | Self::NoUpgrade) && **rule == json!("FUZZ-SERVES-NEW"))
        {
            *rule = json!("FUZZ-SERVES-NEW as should");
        }
        steps
    }
}
