//! When a case sends its mutated message, and on which connection.

use crate::syntax::explanation::Explanation;

/// When the mutated message is sent, and by which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// As the first message after connecting.
    First,
    /// After the sender's opening.
    Joined,
    /// In a conversation of the scenarios, in place of the valid message.
    Within,
    /// In a conversation of the scenarios, but by another client, which takes no part in the conversation.
    Outside,
    /// In a random walk: several actors send valid messages in random order, about each other's objects.
    Walk,
    /// After the opening, many texts that are not messages, one after the other.
    Repeated,
    /// After the opening, many mutated messages of one kind on the same connection, in batches; each batch waits for
    /// the answers to the one before.
    Kept,
    /// Many mutated messages of one kind, each on a new connection, after the opening.
    Anew,
}

impl Placement {
    pub fn explanation(self) -> Explanation {
        let means = match self {
            Self::First => "The mutated input is the first message on a new connection.",
            Self::Joined => "The mutated input is sent after the opening of its sender's role.",
            Self::Within => {
                "The mutated input is sent in a conversation of the scenarios, instead of the valid message."
            }
            Self::Outside => {
                "The mutated input is sent during a conversation of the scenarios, by a client that takes no part in it."
            }
            Self::Walk => {
                "The mutated input is sent in a random walk: several clients send valid messages in random order, about each other's objects."
            }
            Self::Repeated => "Many texts that are not messages are sent after the opening, one after the other.",
            Self::Kept => "Many mutated messages of one kind are sent on the same connection, in batches.",
            Self::Anew => "Many mutated messages of one kind are sent, each on a new connection.",
        };
        Explanation::new(self.name(), means)
    }

    pub const ALL: [Self; 8] =
        [Self::First, Self::Joined, Self::Within, Self::Outside, Self::Walk, Self::Repeated, Self::Kept, Self::Anew];

    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Joined => "joined",
            Self::Within => "within",
            Self::Outside => "outside",
            Self::Walk => "walk",
            Self::Repeated => "repeated",
            Self::Kept => "kept",
            Self::Anew => "anew",
        }
    }

    /// Returns the name that `placement` in shared.yaml uses for this point of the conversation.
    pub fn moment(self) -> &'static str {
        match self {
            Self::Repeated | Self::Kept | Self::Anew => Self::Joined.name(),
            Self::Walk => Self::Within.name(),
            other => other.name(),
        }
    }

    /// Whether a case sends many different mutated messages of one kind.
    pub fn sends_many(self) -> bool {
        matches!(self, Self::Kept | Self::Anew)
    }
}
