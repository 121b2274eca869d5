//! What cases call their own actors and steps.

/// The name of the step that says what is odd.
pub const ODD: &str = "the_odd";

/// What a loop over odd things calls each of them.
pub const ROUND: &str = "round";

/// And those of them that are said at once.
pub const BATCH: &str = "batch";

/// So many are said at once on a connection that is kept: enough that neither side is woken for each of them, and far fewer
/// than any hub has to hold that serves more than one client.
pub(super) const AT_ONCE: usize = 10;

/// Actors of a case besides those of its scenario.
pub const INNOCENT: &str = "innocent";

pub const NEWCOMER: &str = "newcomer";

/// Shows that somebody of the sender's role can join at all.
pub(super) const FORERUNNER: &str = "forerunner";

pub(super) const SENDER: &str = "sender";
