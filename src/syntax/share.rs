//! Shares of a run that several machines make together: `3/16` is the third of sixteen.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most shares of a run.
pub const MAX_SHARES: u32 = 4096;

/// One of several equal parts of a run: of things that are numbered from 0, it takes every `of`th.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share {
    index: u32,
    of: u32,
}

/// An error of [`Share::from_str`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write NUMBER/ALL, such as 3/16 for the third of sixteen shares, or 2+1/16 where they are counted from 0; at most {MAX_SHARES} are possible"
)]
pub struct ShareError;

impl Share {
    /// The whole of a run.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Returns all shares of a run.
    pub fn all(of: u32) -> impl Iterator<Item = Self> {
        (0..of).map(move |index| Self { index, of })
    }

    /// Returns which share this is, from 0.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Returns how many shares there are.
    pub fn of(self) -> u32 {
        self.of
    }

    /// Whether the thing with this number, from 0, belongs to this share.
    pub fn takes(self, number: u64) -> bool {
        number % u64::from(self.of) == u64::from(self.index)
    }

    /// Returns how many of the first `all` things belong to this share.
    pub fn count(self, all: u32) -> u32 {
        all.saturating_sub(self.index).div_ceil(self.of)
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let number =
            |digits: &str| digits.parse::<u32>().ok().filter(|_| digits.bytes().all(|one| one.is_ascii_digit()));
        let parsed = text.split_once('/').and_then(|(part, of)| {
            // Engines that start shares count them from 0.
            let part = match part.strip_suffix("+1") {
                Some(index) => number(index)?.checked_add(1)?,
                None => number(part)?,
            };
            Some((part, number(of)?))
        });
        match parsed {
            Some((number, of)) if (1..=of).contains(&number) && of <= MAX_SHARES => Ok(Self { index: number - 1, of }),
            _ => Err(ShareError),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.index + 1, self.of)
    }
}

impl TryFrom<String> for Share {
    type Error = ShareError;

    fn try_from(text: String) -> Result<Self, ShareError> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1/1")]
    #[case("3/16")]
    #[case("4096/4096")]
    fn a_share_is_written_as_it_is_read(#[case] text: &str) {
        assert_eq!(text.parse::<Share>().map(|share| share.to_string()).as_deref(), Ok(text));
    }

    #[test]
    fn a_share_may_be_counted_from_0() {
        assert_eq!("2+1/16".parse::<Share>(), "3/16".parse());
    }

    #[rstest]
    #[case("")]
    #[case("4+1/4")]
    #[case("1+2/4")]
    #[case("3")]
    #[case("0/4")]
    #[case("5/4")]
    #[case("+1/4")]
    #[case("1/4097")]
    #[case("1/4/2")]
    fn other_texts_are_no_shares(#[case] text: &str) {
        assert_eq!(text.parse::<Share>(), Err(ShareError));
    }

    proptest! {
        #[test]
        fn each_thing_belongs_to_exactly_one_share(of in 1_u32..40, all in 0_u32..200) {
            let shares: Vec<Share> = Share::all(of).collect();
            for number in 0..u64::from(all) {
                prop_assert_eq!(shares.iter().filter(|share| share.takes(number)).count(), 1);
            }
            for share in &shares {
                let own = (0..u64::from(all)).filter(|number| share.takes(*number)).count();
                prop_assert_eq!(share.count(all) as usize, own);
            }
        }
    }
}
