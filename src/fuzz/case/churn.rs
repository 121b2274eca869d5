//! Connection churn: dozens of clients connect one after the other, and each leaves, or is refused, in a way that a hub
//! has to clean up after. There are more of them than servers often have slots for, but only a few at a time.

use serde_json::{Value, json};

use super::FuzzCell;
use crate::fuzz::case_scenario::CaseStep;
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::prefix::CasePrefix;
use crate::fuzz::oracle;
use crate::fuzz::placement::Placement;
use crate::protocol::RuleLevel;
use crate::scenario::parse::verbs::StepVerb;

/// How each client of a case of connection churn leaves or is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Churn {
    /// Joins, sends the message, and resets the connection without waiting for an answer.
    Broken,
    /// Joins, and closes with an application-defined code.
    OddClose,
    /// Requests a path that no document mentions.
    NoPath,
    /// Sends an HTTP request without the headers of a WebSocket upgrade.
    NoUpgrade,
}

/// Clients that connect and leave in one case.
pub const CHURN_CLIENTS: usize = 70;

impl Churn {
    pub const ALL: [Self; 4] = [Self::Broken, Self::OddClose, Self::NoPath, Self::NoUpgrade];

    /// Describes the clients' behaviour in one sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Broken => {
                "Dozens of clients join, send the message, and reset the connection without waiting for an answer."
            }
            Self::OddClose => "Dozens of clients join and close with a code that only an application defines.",
            Self::NoPath => "Dozens of clients request a path that no document mentions.",
            Self::NoUpgrade => "Dozens of clients send an HTTP request without the headers of a WebSocket upgrade.",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Broken => "gone-at-once",
            Self::OddClose => "odd-close",
            Self::NoPath => "no-such-path",
            Self::NoUpgrade => "no-upgrade",
        }
    }

    /// Returns the loop over the clients that connect and leave; `None` where no such case exists. Only `Broken`
    /// sends the message, so for the others the cell of one message is enough.
    pub(crate) fn client_loop(
        self,
        corpus: &Corpus,
        cell: FuzzCell,
        prefix: &CasePrefix,
        text: &Value,
    ) -> Option<CaseStep> {
        if cell.placement != Placement::Anew {
            return None;
        }
        let sender = &prefix.sender;
        let first = corpus.pack.messages.iter().position(|message| message.directions.to_hub && !message.abstract_);
        let is_first = first == Some(cell.message);
        let tries = |path: Value| CaseStep::new(sender, StepVerb::TriesToConnect, path);
        let ends = json!([{ "refusal": "any" }, { "close": ["any", "drop"] }, { "nothing": null }]);
        let refused = CaseStep::new(sender, StepVerb::ExpectsOneOf, ends).with("within", "0s");
        let steps = match self {
            Self::Broken => vec![
                oracle::connect_step(sender),
                CaseStep::new(sender, StepVerb::SendsRaw, json!({ "text": "${attempt}" })),
                CaseStep::new(sender, StepVerb::Drops, "reset"),
            ],
            Self::OddClose if is_first => {
                vec![oracle::connect_step(sender), CaseStep::new(sender, StepVerb::Closes, 4000)]
            }
            Self::NoPath if is_first => vec![tries(json!("/no/such/path")), refused],
            Self::NoUpgrade if is_first => {
                let headers = ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"];
                let headers: Value = headers.into_iter().map(|name| (name.to_owned(), Value::Null)).collect();
                vec![tries(Value::Null).with("headers", headers), refused]
            }
            _ => return None,
        };
        let attempts = std::iter::repeat_n(text.clone(), CHURN_CLIENTS).collect::<Value>();
        Some(CaseStep::new("", StepVerb::Each, "attempt").with("in", attempts).doing(steps))
    }

    /// Returns the level at which a new client must be served afterwards: after many refused requests, a hub may block
    /// the address that sent so many.
    pub(crate) fn serves_new(self) -> RuleLevel {
        match self {
            Self::NoPath | Self::NoUpgrade => RuleLevel::Should,
            Self::Broken | Self::OddClose => RuleLevel::Must,
        }
    }
}
