//! Memory for messages on their way, shared by the connections to a hub: a queue that is bounded by a number of
//! messages is not bounded in bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes to a permit. Less than that, and whatever fits into one read, takes no room.
const UNIT: u64 = 1 << 10;
/// How long a message waits for room. Whoever holds it longer has begun messages and does not end them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Room for long messages that are being read, or wait to be handled.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    free: Arc<Semaphore>,
    units: u64,
}

/// A part of the room; dropping it gives it back.
#[derive(Debug, Default)]
pub struct Held(Option<OwnedSemaphorePermit>);

/// There is no room, and none has become free.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl MemoryBudget {
    pub fn of(bytes: usize) -> Self {
        let units = (bytes as u64).div_ceil(UNIT).min(Semaphore::MAX_PERMITS as u64);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Makes `held` as large as a message of so many bytes needs, at most as large as the room. Waits for others to give
    /// theirs back.
    ///
    /// # Errors
    /// [`Full`] after a second; `held` stays as it was.
    pub async fn hold(&self, held: &mut Held, bytes: u64) -> Result<(), Full> {
        let has = held.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) as u64;
        let more = bytes.div_ceil(UNIT).min(self.units).saturating_sub(has);
        let Ok(more @ 1..) = u32::try_from(more) else { return Ok(()) };
        match timeout(PATIENCE, Arc::clone(&self.free).acquire_many_owned(more)).await {
            Ok(Ok(permit)) => {
                match &mut held.0 {
                    Some(held) => held.merge(permit),
                    None => held.0 = Some(permit),
                }
                Ok(())
            }
            // Nobody closes the semaphore.
            Ok(Err(_)) | Err(_) => Err(Full),
        }
    }
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::of(super::Limits::default().message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_is_missing_until_it_is_dropped() {
        let room = MemoryBudget::of(10 << 10);
        let (mut first, mut second) = (Held::default(), Held::default());
        room.hold(&mut first, 4000).await.unwrap();
        room.hold(&mut first, 6000).await.unwrap();
        room.hold(&mut second, 4096).await.unwrap();
        assert_eq!(room.hold(&mut second, 4097).await, Err(Full));
        drop(first);
        // More than there is: all there is.
        room.hold(&mut second, 1 << 40).await.unwrap();
    }
}
