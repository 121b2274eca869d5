//! A plan prepared: flat programs, one per role, that need no look-ups, no parsing and no allocation while they run.

use super::port::Dial;

/// A message of the protocol, by its place in [`Prepared::messages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u16);

/// A journey, by its place in [`Prepared::journeys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JourneyId(pub u16);

/// A hook, by its place in [`Prepared::hooks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookId(pub u16);

/// A plan, ready to be run.
#[derive(Debug)]
pub struct Prepared {
    /// Names of all messages that are sent, recognised or counted.
    pub messages: Vec<String>,
    pub journeys: Vec<String>,
    pub hooks: Vec<String>,
    /// In the order of the plan's roles.
    pub roles: Vec<Role>,
}

/// What every client of a role is and does; shared by all of them.
#[derive(Debug)]
pub struct Role {
    pub name: String,
    /// The number of its first client among all clients of the run.
    pub first: u32,
    pub dial: Dial,
}
