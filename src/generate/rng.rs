//! Chance that can be repeated: every case draws from a source of its own, so that it is the same whichever worker
//! plays it, and whatever was played before.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use sha2::{Digest, Sha256};

/// Where the choices of one case come from.
pub struct Dice(StdRng);

impl Dice {
    /// The dice of the case `number` of the run `seed`. Equal for equal arguments, on every machine.
    pub fn of(seed: u64, number: u64) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(seed.to_le_bytes());
        hasher.update(number.to_le_bytes());
        Self(StdRng::from_seed(hasher.finalize().into()))
    }

    /// A number below `end`; 0 where there is none.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.0.random_range(0..end) }
    }

    /// A number from `low` to `high`, both included; `low` where `high` is less.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        if high <= low { low } else { self.0.random_range(low..=high) }
    }

    /// A fraction, at least 0 and less than 1.
    pub fn fraction(&mut self) -> f64 {
        self.0.random()
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `items`; `None` of nothing.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Sixteen bytes.
    pub fn bytes(&mut self) -> [u8; 16] {
        self.0.random()
    }

    /// For libraries that draw by themselves.
    pub fn source(&mut self) -> &mut impl Rng {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_the_same_dice_every_time_and_no_other_case_has_them() {
        let draw = |seed, number| {
            let mut dice = Dice::of(seed, number);
            [dice.between(0, i64::MAX), dice.between(0, i64::MAX)]
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        // Findings are told by seed and number: these two must not change.
        assert_eq!(Dice::of(7, 7).below(1_000_000), Dice::of(7, 7).below(1_000_000));
    }
}
