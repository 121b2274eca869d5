//! The machine of one virtual client, sans-IO: what happens to it goes in, what it does comes out through its [`Port`].
//!
//! There are thousands of it, so it holds little; what all clients of a role have in common stands in their [`Role`].

use super::Nanos;
use super::port::{Input, Port};
use super::program::Role;

/// One client of a population.
#[derive(Debug)]
pub struct Client {
    /// Among all clients of the run.
    party: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not connected: not yet, or not any more.
    Apart,
    Connecting,
    Joined,
}

impl Client {
    /// The client of this number in its role, from 0.
    pub fn new(role: &Role, number: u32) -> Self {
        Self { party: role.first + number, state: State::Apart }
    }

    /// Its number among all clients of the run.
    pub fn party(&self) -> u32 {
        self.party
    }

    /// Whether it would begin another journey now.
    pub fn has_room(&self, _role: &Role) -> bool {
        false
    }

    /// One thing happens to it.
    pub fn handle(&mut self, role: &Role, now: Nanos, input: Input<'_>, port: &mut impl Port) {
        match (self.state, input) {
            (State::Apart, Input::Start) => {
                self.state = State::Connecting;
                port.open(&role.dial);
            }
            (State::Connecting, Input::Opened) => {
                self.state = State::Joined;
                port.joined();
            }
            (State::Joined, Input::Text(bytes)) => port.received(None, now, bytes.len()),
            (_, Input::Closed(end)) => {
                self.state = State::Apart;
                port.trouble(super::port::Trouble::Ended(end), now);
            }
            (State::Connecting | State::Joined, Input::Finish) => port.close(1000),
            _ => {}
        }
    }
}
