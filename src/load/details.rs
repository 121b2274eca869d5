//! Details of a run that are not metrics, in tables of bounded size: how connections ended, and where journeys waited.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::client::io::{Disconnection, JourneyWait};
use super::format::format_grouped;
use crate::report::text::{escape_unprintable, shorten};

/// The most different details kept of one kind of end, such as the reasons of one close code.
const MAX_DETAILS: usize = 8;
/// The most different ends kept.
const MAX_ENDS: usize = 64;
/// The most characters of a detail: the reason of a close frame has at most 123 bytes, a refusal is longer.
const MAX_DETAIL_CHARS: usize = 600;

/// Details of a run; a table has at most one entry per step, or is bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunDetails {
    pub ends: ConnectionEnds,
    /// How many journeys ended in each wait, by the index of the role.
    pub waits: BTreeMap<(u16, JourneyWait), u64>,
}

/// How often connections ended in each way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionEnds {
    counts: BTreeMap<ConnectionEnd, u64>,
    /// Ends of kinds for which there was no room.
    others: u64,
}

/// A way in which a connection ended unexpectedly, or was not opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnectionEnd {
    pub how: Disconnection,
    /// The reason of a close frame, the description of a refusal, or the error; see [`printable_detail`].
    pub detail: Box<str>,
}

/// Cuts a text of the hub, and escapes what cannot be printed.
pub fn printable_detail(text: &str) -> Box<str> {
    shorten(&escape_unprintable(text), MAX_DETAIL_CHARS).into()
}

impl ConnectionEnd {
    /// Describes the end in a few words: `closed by the hub, 1011 (oops)`.
    pub fn describe(&self) -> String {
        self.how.describe(&self.detail)
    }
}

impl ConnectionEnds {
    /// Returns these ends, with the number of those that have no room.
    pub fn of(ends: impl IntoIterator<Item = (ConnectionEnd, u64)>, others: u64) -> Self {
        let mut all = Self { counts: BTreeMap::new(), others };
        ends.into_iter().for_each(|(end, times)| all.add(end, times));
        all
    }

    /// Counts an end. A hub can give any number of reasons, so all but the first ones are counted together.
    pub fn add(&mut self, mut end: ConnectionEnd, times: u64) {
        if !self.counts.contains_key(&end) {
            if self.counts.keys().filter(|known| known.how == end.how).count() >= MAX_DETAILS {
                end.detail = "other reasons".into();
            }
            if self.counts.len() >= MAX_ENDS && !self.counts.contains_key(&end) {
                self.others += times;
                return;
            }
        }
        *self.counts.entry(end).or_default() += times;
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.others == 0
    }

    /// Returns the ends with their numbers, the most frequent first.
    pub fn by_frequency(&self) -> Vec<(&ConnectionEnd, u64)> {
        let mut ends: Vec<_> = self.counts.iter().map(|(end, count)| (end, *count)).collect();
        ends.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        ends
    }

    /// Returns the number of ends that are in no other entry.
    pub fn others(&self) -> u64 {
        self.others
    }

    /// Describes all ends, the most frequent first: `100 × closed by the hub, 1011 (oops)`.
    pub fn describe(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .by_frequency()
            .iter()
            .map(|(end, count)| format!("{} × {}", format_grouped(*count), end.describe()))
            .collect();
        lines.extend((self.others > 0).then(|| format!("{} × ended in other ways", format_grouped(self.others))));
        lines
    }

    /// Replaces the details, such as to mask secrets.
    pub fn map_details(&mut self, change: impl Fn(&str) -> String) {
        for (end, times) in std::mem::take(&mut self.counts) {
            self.add(ConnectionEnd { detail: change(&end.detail).into(), ..end }, times);
        }
    }
}

impl RunDetails {
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.waits.is_empty()
    }

    /// Adds the details of a shard.
    pub fn add(&mut self, more: Self) {
        for (end, times) in more.ends.counts {
            self.ends.add(end, times);
        }
        self.ends.others += more.ends.others;
        for (wait, times) in more.waits {
            *self.waits.entry(wait).or_default() += times;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16, reason: &str) -> ConnectionEnd {
        ConnectionEnd { how: Disconnection::Close(code), detail: printable_detail(reason) }
    }

    #[test]
    fn ends_are_described_by_code_and_reason_the_most_frequent_first() {
        let mut ends = ConnectionEnds::default();
        ends.add(closed(1000, ""), 1);
        ends.add(closed(1005, ""), 2);
        ends.add(closed(1011, "oo\u{1b}ps"), 100);
        ends.add(ConnectionEnd { how: Disconnection::Reset, detail: "".into() }, 3);
        ends.add(ConnectionEnd { how: Disconnection::Refused(503), detail: "HTTP 503 instead of 101".into() }, 4);
        let expected = [
            "100 × closed by the hub, 1011 (oo\\u{1b}ps)",
            "4 × refused: HTTP 503 instead of 101",
            "3 × reset by the hub",
            "2 × closed by the hub, without a code",
            "1 × closed by the hub, 1000",
        ];
        assert_eq!(ends.describe(), expected);
    }

    #[test]
    fn a_hub_with_endless_reasons_and_codes_fills_a_bounded_table() {
        let mut details = RunDetails::default();
        for number in 0..3_000_u32 {
            let mut shard = RunDetails::default();
            shard.ends.add(closed(4000, &format!("request {number} failed")), 1);
            shard.ends.add(closed((5000 + number) as u16, &"x".repeat(700)), 1);
            details.add(shard);
        }
        let ends = &details.ends;
        assert!(ends.counts.len() <= MAX_ENDS, "{}", ends.counts.len());
        assert_eq!(ends.counts.values().sum::<u64>() + ends.others(), 6_000);
        assert_eq!(ends.counts.keys().filter(|end| end.how == Disconnection::Close(4000)).count(), MAX_DETAILS + 1);
        assert_eq!(ends.counts[&closed(4000, "other reasons")], 3_000 - MAX_DETAILS as u64);
        assert!(ends.describe().iter().all(|line| line.chars().count() < MAX_DETAIL_CHARS + 100));
    }
}
