//! Random ids, reproducible from a seed; nothing else in a hub is random.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

/// A stream of version 4 UUIDs.
#[derive(Debug)]
pub struct UuidStream(StdRng);

impl UuidStream {
    /// A stream of ids, the same for the same seed; without a seed, the operating system's random numbers seed it.
    pub fn new(seed: Option<u64>) -> UuidStream {
        UuidStream(match seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => {
                let mut bytes = [0; 32];
                bytes[..16].copy_from_slice(Uuid::new_v4().as_bytes());
                bytes[16..].copy_from_slice(Uuid::new_v4().as_bytes());
                StdRng::from_seed(bytes)
            }
        })
    }

    pub fn next_uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_ids_and_no_seed_gives_other_ids() {
        assert_eq!(UuidStream::new(Some(7)).next_uuid(), UuidStream::new(Some(7)).next_uuid());
        assert_ne!(UuidStream::new(Some(7)).next_uuid(), UuidStream::new(Some(8)).next_uuid());
        assert_ne!(UuidStream::new(None).next_uuid(), UuidStream::new(None).next_uuid());
    }
}
