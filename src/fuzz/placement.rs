//! When a case says what is odd, and on which connection.

/// When, and by whom, it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// The connection is open, and nothing has been said.
    First,
    /// The opening has been played.
    Joined,
    /// In the middle of a conversation of the scenarios, in place of the right message.
    Within,
    /// There too, but by somebody else.
    Outside,
    /// Within a walk: several actors say right things by chance, about each other's things.
    Walk,
    /// The opening has been played, and it is said again and again: what is no message at all.
    Repeated,
    /// The opening has been played, and others of the kind are said on the same connection: some at once, others when these
    /// have been answered.
    Kept,
    /// Others of the kind are said, too, each on a connection of its own on which the opening has been played.
    Anew,
}

impl Placement {
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

    /// The moment of the conversation, as shared.yaml names it.
    pub fn moment(self) -> &'static str {
        match self {
            Self::Repeated | Self::Kept | Self::Anew => Self::Joined.name(),
            Self::Walk => Self::Within.name(),
            other => other.name(),
        }
    }

    /// Whether many of a kind are said, and not one thing alone.
    pub fn is_of_many(self) -> bool {
        matches!(self, Self::Kept | Self::Anew)
    }
}
