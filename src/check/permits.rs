//! What keeps scenarios from disturbing each other on one hub: locks, and the number of connections at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::hub::prepare::PreparedHub;
use crate::scenario::functions::TOKENS;
use crate::scenario::{Isolation, Program};

/// How long users with shared tokens rest after a scenario, because a hub may limit how much each user sends per
/// second.
const TOKEN_REST: Duration = Duration::from_millis(1100);

/// The locks and permits that a scenario holds while it is played.
pub struct PlayPermits {
    /// How long the locks are held after the scenario.
    rest: Duration,
    connections: Option<OwnedSemaphorePermit>,
    isolated: IsolationLocks,
}

/// How long a hub may still count a connection that has ended. No document requires it to notice at once.
pub const CONNECTION_RELEASE_DELAY: Duration = Duration::from_millis(400);

/// With no more connections than this, a scenario stays below any limit even if the hub still counts earlier ones.
const FEW_CONNECTIONS: usize = 4;

impl PlayPermits {
    /// Releases the locks, those on tokens after [`TOKEN_REST`]. If the hub limits connections, the permits are
    /// released after [`CONNECTION_RELEASE_DELAY`].
    pub fn release(self, subject: &PreparedHub) {
        let Self { rest, connections, isolated } = self;
        if !rest.is_zero() {
            tokio::spawn(async move {
                tokio::time::sleep(rest).await;
                drop(isolated);
            });
        }
        if subject.limited && !subject.is_renewable() {
            tokio::spawn(async move {
                tokio::time::sleep(CONNECTION_RELEASE_DELAY).await;
                drop(connections);
            });
        }
    }
}

/// Waits until a scenario may be played. Returns `None` if the run is interrupted first.
pub async fn wait_for_turn(
    subject: &PreparedHub,
    program: &Program,
    isolation: &Isolation,
    interrupt: &mut watch::Receiver<bool>,
) -> Option<PlayPermits> {
    let permits = u32::try_from(program.connections.clamp(1, subject.connections)).unwrap_or(1);
    let turn = async {
        let connections = if has_own_hub(subject, isolation) {
            None
        } else {
            // The semaphore is never closed.
            Arc::clone(&subject.budget).acquire_many_owned(permits).await.ok()
        };
        let shares = matches!(isolation, Isolation::Exclusive(word) if word == TOKENS);
        let rest = if shares { TOKEN_REST } else { Duration::ZERO };
        let isolated = take_isolation_locks(isolation, subject).await;
        if isolated.writing.is_some() && program.connections > FEW_CONNECTIONS {
            tokio::time::sleep(CONNECTION_RELEASE_DELAY).await;
        }
        PlayPermits { rest, connections, isolated }
    };
    tokio::select! {
        turn = turn => Some(turn),
        _ = interrupt.wait_for(|stop| *stop) => None,
    }
}

/// Whether a scenario gets a hub of its own, on which it needs neither locks nor permits.
fn has_own_hub(subject: &PreparedHub, isolation: &Isolation) -> bool {
    subject.is_renewable() && *isolation != Isolation::Shared
}

/// The locks that keep other scenarios off the hub until they are dropped.
struct IsolationLocks {
    _reading: Option<tokio::sync::OwnedRwLockReadGuard<()>>,
    writing: Option<tokio::sync::OwnedRwLockWriteGuard<()>>,
    _word: Option<tokio::sync::OwnedMutexGuard<()>>,
}

async fn take_isolation_locks(isolation: &Isolation, subject: &PreparedHub) -> IsolationLocks {
    let none = IsolationLocks { _reading: None, writing: None, _word: None };
    if has_own_hub(subject, isolation) {
        return none;
    }
    match isolation {
        Isolation::Shared => IsolationLocks { _reading: Some(Arc::clone(&subject.hub).read_owned().await), ..none },
        Isolation::Exclusive(word) if word != "hub" => {
            let lock = Arc::clone(subject.words.lock().await.entry(word.clone()).or_default());
            let held = lock.lock_owned().await;
            IsolationLocks { _word: Some(held), _reading: Some(Arc::clone(&subject.hub).read_owned().await), ..none }
        }
        Isolation::Exclusive(_) | Isolation::Destructive => {
            IsolationLocks { writing: Some(Arc::clone(&subject.hub).write_owned().await), ..none }
        }
    }
}
