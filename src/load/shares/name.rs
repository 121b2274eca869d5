//! What all shares of a run derive from its name.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::judge::to_base36;
use crate::load::ledger::IdHasher;

/// The longest name.
const MAX_LENGTH: usize = 64;

/// The name of a run: letters, digits, dots, hyphens and underscores, since it is a part of file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunName(String);

/// An error of [`RunName::from_str`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has up to {MAX_LENGTH} letters, digits, dots, hyphens and underscores, and begins with a letter or digit"
)]
pub struct RunNameError;

impl RunName {
    /// Returns the seed of the run, unless the user gives another.
    pub fn seed(&self) -> u64 {
        // Short enough to be typed, and exact in JSON.
        self.derive("seed", 0) >> 16
    }

    /// Returns what distinguishes the names of this run's clients from those of others.
    pub fn stamp(&self, seed: u64) -> String {
        to_base36(self.derive("stamp", seed)).chars().take(6).collect()
    }

    pub fn hasher(&self, seed: u64) -> IdHasher {
        IdHasher::seeded(self.derive("keys", seed))
    }

    fn derive(&self, purpose: &str, seed: u64) -> u64 {
        let digest =
            Sha256::new().chain_update(purpose).chain_update(seed.to_le_bytes()).chain_update(&self.0).finalize();
        digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

impl FromStr for RunName {
    type Err = RunNameError;

    fn from_str(text: &str) -> Result<Self, RunNameError> {
        let fits = |one: char| one.is_ascii_alphanumeric() || matches!(one, '.' | '-' | '_');
        let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let is_name = begins && text.len() <= MAX_LENGTH && text.chars().all(fits);
        is_name.then(|| Self(text.to_owned())).ok_or(RunNameError)
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn runs_of_one_name_have_the_same_seed_and_stamp_and_others_do_not() {
        let run = |name: &str| name.parse::<RunName>().unwrap();
        let facts = |run: RunName| (run.seed(), run.stamp(7), run.hasher(7).item_key(b"job-1"));
        assert_eq!(facts(run("nightly-1")), facts(run("nightly-1")));
        let (one, other) = (facts(run("nightly-1")), facts(run("nightly-2")));
        assert!(one.0 != other.0 && one.1 != other.1 && one.2 != other.2, "{one:?} {other:?}");
    }

    #[rstest]
    #[case("")]
    #[case("../x")]
    #[case(".x")]
    #[case("a b")]
    #[case(&"x".repeat(65))]
    fn a_name_that_is_no_part_of_a_file_name_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<RunName>(), Err(RunNameError));
    }
}
