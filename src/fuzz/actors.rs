//! Names of a case's own actors and steps.

/// The step that sends the mutated message.
pub const MUTATED_STEP: &str = "mutated_input";

/// The variable of a loop over mutated messages.
pub const ROUND_VARIABLE: &str = "round";

/// The variable of a loop over batches of mutated messages that are sent without waiting for answers in between.
pub const BATCH_VARIABLE: &str = "batch";

/// Messages of a batch: enough that neither side wakes up for each, and far fewer than a hub for several clients must
/// buffer.
pub(super) const BATCH_SIZE: usize = 10;

/// The observer client.
pub const OBSERVER: &str = "innocent";

/// The new client.
pub const NEW_CLIENT: &str = "newcomer";

/// A client of the sender's role that joins first, to show that this role can join at all.
pub(super) const PROBE: &str = "forerunner";

pub(super) const SENDER: &str = "sender";
