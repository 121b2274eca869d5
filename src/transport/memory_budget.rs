//! A limit in bytes on messages that are being received or queued, shared by all connections to a hub: bounding a queue
//! by its number of messages does not bound its bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes per permit. Messages of fewer bytes, or within one read, need none.
const PERMIT_BYTES: u64 = 1 << 10;
/// How long a message waits for memory. If none is released in that time, unfinished messages hold it all.
const MEMORY_WAIT: Duration = Duration::from_secs(1);

/// A memory budget for long messages that are being read or are waiting to be handled.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    free: Arc<Semaphore>,
    units: u64,
}

/// A reserved part of the budget; dropping it releases it.
#[derive(Debug, Default)]
pub struct MemoryReservation(Option<OwnedSemaphorePermit>);

/// An exhausted budget: no memory became free in time.
#[derive(Debug, PartialEq, Eq)]
pub struct MemoryBudgetError;

impl MemoryBudget {
    pub fn of_bytes(bytes: usize) -> Self {
        let units = (bytes as u64).div_ceil(PERMIT_BYTES).min(Semaphore::MAX_PERMITS as u64);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Extends `held` to cover a message of `bytes` bytes, or the whole budget if it is smaller. Waits for other
    /// messages to release memory.
    ///
    /// # Errors
    /// [`MemoryBudgetError`] after a second; `held` stays as it was.
    pub async fn reserve(&self, held: &mut MemoryReservation, bytes: u64) -> Result<(), MemoryBudgetError> {
        let has = held.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) as u64;
        let more = bytes.div_ceil(PERMIT_BYTES).min(self.units).saturating_sub(has);
        let Ok(more @ 1..) = u32::try_from(more) else { return Ok(()) };
        match timeout(MEMORY_WAIT, Arc::clone(&self.free).acquire_many_owned(more)).await {
            Ok(Ok(permit)) => {
                match &mut held.0 {
                    Some(held) => held.merge(permit),
                    None => held.0 = Some(permit),
                }
                Ok(())
            }
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(MemoryBudgetError),
        }
    }
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::of_bytes(super::PeerLimits::default().message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reserved_memory_is_unavailable_until_it_is_released() {
        let memory = MemoryBudget::of_bytes(10 << 10);
        let (mut first, mut second) = (MemoryReservation::default(), MemoryReservation::default());
        memory.reserve(&mut first, 4000).await.unwrap();
        memory.reserve(&mut first, 6000).await.unwrap();
        memory.reserve(&mut second, 4096).await.unwrap();
        assert_eq!(memory.reserve(&mut second, 4097).await, Err(MemoryBudgetError));
        drop(first);
        // More than the budget reserves all of it.
        memory.reserve(&mut second, 1 << 40).await.unwrap();
    }
}
