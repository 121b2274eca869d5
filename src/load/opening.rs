//! Clients that fail to join: what each waited for, what happened instead, and when a run is abandoned.

use serde::{Deserialize, Serialize};

use super::client::io::ClientFault;
use super::compile::program::{CompiledPlan, ProgramOperation};
use super::metrics::LoadErrorKind;
use crate::syntax::source::Span;

/// Examples per role that a shard reports.
pub const MAX_EXAMPLES: usize = 3;

/// An opening that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedOpening {
    /// The index of the role.
    pub role: u16,
    /// The number of the client in its role.
    pub client: u32,
    /// The operation of the opening at which it failed.
    pub at: usize,
    /// The reason; `None` if the client waited in vain for a message of any kind.
    pub fault: Option<ClientFault>,
    /// Details of the end of the connection: a reason, or an error.
    pub ending: Box<str>,
    /// The beginning of each of the last messages received before the failure.
    pub received: Vec<Box<[u8]>>,
}

/// A role that ended a run before it began, because none of its clients joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopelessRole {
    pub name: String,
    pub failed: u32,
    pub population: u32,
}

/// Whether no client of a role can be expected to join: none has joined yet, and 5 % of them, but at least three (or
/// all, if there are fewer), have failed to.
pub fn is_hopeless(population: u32, joined: u32, failed: u32) -> bool {
    let enough = population.div_ceil(20).max(3).min(population);
    joined == 0 && failed > 0 && failed >= enough
}

impl FailedOpening {
    /// Describes the failure in one sentence: `worker 0 waited for worker_registered (shared.yaml:58): it did not
    /// arrive in time; nothing was received`. `place` formats the location of a step.
    pub fn describe(&self, prepared: &CompiledPlan, place: impl Fn(Span) -> String) -> String {
        let role = &prepared.roles[usize::from(self.role)];
        let name = |message: usize| prepared.messages.get(message).map_or("a message", String::as_str);
        let waited = match role.programs[role.opening].ops.get(self.at) {
            Some(ProgramOperation::Connect(_)) => "tried to connect".to_owned(),
            Some(ProgramOperation::Expect(expect)) => {
                let message = expect.message.map_or("a message", |message| name(message.0.into()));
                format!("waited for {message} ({})", place(expect.span))
            }
            Some(ProgramOperation::Send(send)) => format!("was about to send {}", name(send.message.0.into())),
            Some(ProgramOperation::Hook(hook)) => {
                format!("called the hook {}", prepared.hooks.get(usize::from(hook.hook.0)).map_or("", String::as_str))
            }
            _ => "was in its opening".to_owned(),
        };
        let happened = match self.fault {
            Some(ClientFault::Ended(end)) => format!("the connection was {}", end.describe(&self.ending)),
            Some(ClientFault::Refused(message)) => format!("the hub answered with {}", name(message.0.into())),
            Some(ClientFault::Unusable(_)) => "a received message lacks a value that a later step needs".to_owned(),
            Some(ClientFault::Hook) => "the hook failed".to_owned(),
            Some(ClientFault::Timeout(_) | ClientFault::Missing(_)) | None => "it did not arrive in time".to_owned(),
            Some(_) => "the client failed".to_owned(),
        };
        let received: Vec<_> = self.received.iter().map(|message| String::from_utf8_lossy(message)).collect();
        let received = match (&received[..], self.fault) {
            ([], Some(ClientFault::Ended(end))) if end.error_kind() != LoadErrorKind::Lost => String::new(),
            ([], _) => "; nothing was received".to_owned(),
            (messages, _) => format!("; received: {}", messages.join(" ")),
        };
        format!("{} {} {waited}: {happened}{received}", role.name, self.client)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::the_only_one(1, 0, 1, true)]
    #[case::one_of_two(2, 0, 1, false)]
    #[case::three_of_many(50, 0, 3, true)]
    #[case::two_of_many(50, 0, 2, false)]
    #[case::five_percent(1000, 0, 50, true)]
    #[case::fewer(1000, 0, 49, false)]
    #[case::one_has_joined(50, 1, 49, false)]
    #[case::without_clients(0, 0, 0, false)]
    #[case::just_begun(50, 0, 0, false)]
    fn a_role_is_hopeless_if_no_client_joined_and_enough_failed(
        #[case] population: u32,
        #[case] joined: u32,
        #[case] failed: u32,
        #[case] expected: bool,
    ) {
        assert_eq!(is_hopeless(population, joined, failed), expected);
    }
}
