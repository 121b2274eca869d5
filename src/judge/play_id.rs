//! Ids of plays. The names that a conversation makes contain the id of its play, because a hub may remember the names of
//! earlier conversations.

use std::fmt;

/// Identifies a play within a run: a scenario or case by its number, and how the play follows from its first play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlayId {
    number: u64,
    /// The steps that lead from the first play to this one, each [`STEP_BITS`] wide; zero for the first play.
    trail: u64,
}

/// Added to every number, so that all names have about the same length.
const LEAST_NUMBER: u64 = 1000;
/// The width of a step in a trail. A trail has room for five steps.
const STEP_BITS: u32 = 12;
/// The width of the index in a step; the rest says what kind of step it is, which is never zero.
const INDEX_BITS: u32 = 9;
const REPLAY: u64 = 1;
const NEIGHBOUR: u64 = 2;
const PROBE: u64 = 3;
const WITHOUT: u64 = 4;
const SHRINK: u64 = 5;
const MEASUREMENT: u64 = 6;

impl PlayId {
    /// Returns the id of the first play of a scenario or case.
    pub fn first(number: u64) -> Self {
        Self { number, trail: 0 }
    }

    /// Returns the id of a play that makes a finding smaller. `number` counts such plays.
    pub fn shrink(number: u64) -> Self {
        Self::first(number).step(SHRINK, 0)
    }

    /// Returns the id of a play that measures how fast the hub serves a new client.
    pub fn measurement(index: u32) -> Self {
        Self::first(0).step(MEASUREMENT, index)
    }

    /// Returns the id of the replay with this index.
    pub fn replay(self, index: u32) -> Self {
        self.step(REPLAY, index)
    }

    /// Returns the id of a play whose traffic surrounds this play.
    pub fn neighbour(self, index: u32) -> Self {
        self.step(NEIGHBOUR, index)
    }

    /// Returns the id of a probe after this play.
    pub fn probe(self, index: u32) -> Self {
        self.step(PROBE, index)
    }

    /// Returns the id of this play without the declared deviation with this index.
    pub fn without_deviation(self, index: usize) -> Self {
        self.step(WITHOUT, u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn step(self, kind: u64, index: u32) -> Self {
        let index = u64::from(index).min((1 << INDEX_BITS) - 1);
        Self { trail: self.trail << STEP_BITS | kind << INDEX_BITS | index, ..self }
    }

    /// Returns the number of the scenario or case.
    pub fn number(self) -> u64 {
        self.number
    }
}

/// Returns the numbers of the scenarios or cases in whose first play, in the run with this stamp, names in `text` were
/// made.
pub fn makers_of_names<'a>(text: &'a str, stamp: &'a str) -> impl Iterator<Item = u64> + 'a {
    let number = |(at, _): (usize, &str)| {
        let name = &text[at + stamp.len()..];
        let end = name.find(|c: char| !c.is_ascii_digit() && !c.is_ascii_lowercase()).unwrap_or(name.len());
        let (play, call) = name[..end].rsplit_once('x')?;
        let is_first = !play.starts_with('0') && !call.is_empty() && call.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_first.then(|| u64::from_str_radix(play, 36).ok()).flatten()?;
        number.checked_sub(LEAST_NUMBER)
    };
    text.match_indices(stamp).filter(|_| !stamp.is_empty()).filter_map(number)
}

impl fmt::Display for PlayId {
    /// Writes letters and digits that no other id of the run has: for a first play its number, which never begins with a
    /// zero; otherwise a zero, the length of the trail, the trail and the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = to_base36(self.number + LEAST_NUMBER);
        if self.trail == 0 {
            return f.write_str(&number);
        }
        let trail = to_base36(self.trail);
        write!(f, "0{}{trail}{number}", to_base36(trail.len() as u64))
    }
}

/// Writes a number with the digits 0 to 9 and a to z.
pub fn to_base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::first(PlayId::first(41), "client", Some(41))]
    #[case::large(PlayId::first(46_656 * 36), "x", Some(46_656 * 36))]
    #[case::replay(PlayId::first(41).replay(0), "client", None)]
    fn a_name_tells_the_case_that_made_it(#[case] play: PlayId, #[case] prefix: &str, #[case] expected: Option<u64>) {
        let text = format!(r#"{{"to":"someone","from":"{prefix}r4nd{play}x12-1"}}"#);
        assert_eq!(makers_of_names(&text, "r4nd").next(), expected);
        assert_eq!(makers_of_names(&text, "0ther").next(), None);
    }

    #[test]
    fn ids_of_different_plays_have_different_texts() {
        let mut ids: BTreeSet<PlayId> = [0, 1, 35, 36, 260, 296, 1_000_000, 46_656 * 36].map(PlayId::first).into();
        ids.insert(PlayId::shrink(0));
        for _ in 0..2 {
            for id in ids.clone() {
                for index in [0, 1, 35, 36, 300] {
                    ids.extend([id.replay(index), id.neighbour(index), id.probe(index)]);
                    ids.insert(id.without_deviation(index as usize));
                }
            }
        }
        let texts: BTreeSet<String> = ids.iter().map(PlayId::to_string).collect();
        assert_eq!(texts.len(), ids.len());
    }
}
