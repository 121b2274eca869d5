//! Messages, journeys and hooks of a prepared plan, by number.

/// A message of the protocol, by its place in `Prepared::messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u16);

/// A journey, by its place in `Prepared::journeys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JourneyId(pub u16);

/// A hook, by its place in `Prepared::hooks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookId(pub u16);
