//! Makes valid messages come at the wrong time: an answer that nothing asked for, or an answer or request sent twice.

use serde_json::{Value, json};

use crate::fuzz::case_scenario::CaseStep;
use crate::fuzz::oracle;
use crate::fuzz::placement::Placement;
use crate::scenario::parse::verbs::StepVerb;

/// Why a valid message is not due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Untimely {
    /// The client has no reason to send the message.
    Undue,
    /// The client has just sent the message.
    Twice,
}

/// The step that sends a message for the first time.
const FIRST_TIME: &str = "sent_first";
/// Bound if the connection is open after the first time.
const OPEN_NAME: &str = "open_after_first";

impl Untimely {
    pub const ALL: [Self; 2] = [Self::Undue, Self::Twice];

    /// Describes the mutation in one sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Undue => {
                "The message is valid, but not due: an answer to no request, or to a request that another client received, or a request at a moment when no scenario has it."
            }
            Self::Twice => {
                "The valid message is sent, and sent again after its answer; a request has another id the second time."
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Undue => "undue",
            Self::Twice => "twice",
        }
    }

    /// Whether the message is not due at this moment.
    pub fn occurs_at(self, placement: Placement) -> bool {
        match self {
            Self::Undue => matches!(placement, Placement::First | Placement::Joined | Placement::Outside),
            Self::Twice => matches!(placement, Placement::First | Placement::Joined | Placement::Within),
        }
    }

    /// Returns the steps that send the message for the first time, and the name that is bound if the connection is still
    /// open afterwards; `None` if the message is sent once.
    pub(crate) fn first_time(self, sender: &str, raw: &Value) -> Option<([CaseStep; 3], &'static str)> {
        let one_of = |alternatives: Value| CaseStep::new(sender, StepVerb::ExpectsOneOf, alternatives);
        let end = json!({ "close": ["any", "drop"] });
        let steps = [
            CaseStep::new(sender, StepVerb::SendsRaw, raw.clone()).named(FIRST_TIME),
            one_of(json!([{ "message": "any" }, end, { "nothing": null }]))
                .after(FIRST_TIME)
                .with("within", oracle::OPTIONAL_ANSWER_WAIT),
            one_of(json!([end, { "nothing": null, "as": OPEN_NAME }])).with("within", "0s"),
        ];
        (self == Self::Twice).then_some((steps, OPEN_NAME))
    }
}
