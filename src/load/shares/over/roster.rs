//! What a leader or a watcher knows of the members of a run.

use std::collections::BTreeMap;

use super::SILENCE;
use super::message::{Message, Resend, Status};
use crate::load::shares::record::{CommonFacts, LostShare, ShareProgress};
use crate::load::{Nanos, SECOND};
use crate::syntax::share::Share;

/// How long an answer to [`Resend`] may take before it is asked for again.
const RESEND_PATIENCE: Nanos = 2 * SECOND;

/// One member, as its messages show it.
#[derive(Clone, Debug)]
pub struct KnownMember {
    pub share: Share,
    pub member: u64,
    pub place: String,
    pub clock_error: Option<Nanos>,
    pub facts: Option<Box<CommonFacts>>,
    pub ended: bool,
    pub done: ShareProgress,
    /// When its last message came.
    seen: Nanos,
    /// The next second that is to come from the member, and when an earlier one was asked for.
    next: u64,
    asked: Option<Nanos>,
}

impl KnownMember {
    pub fn describe(&self) -> String {
        format!("share {} on {}", self.share, self.place)
    }
}

/// The members by the index of their share.
#[derive(Debug)]
pub struct Roster {
    known: BTreeMap<u32, KnownMember>,
    /// Since when messages would have come.
    listening: Nanos,
    /// How many seconds of members came too late to be added.
    pub missed: u64,
}

/// What follows from a status.
#[derive(Debug)]
pub enum StatusOutcome<D> {
    /// The member is known. These seconds are new, if any; a message asks for others that are missing.
    Known(Option<D>, Option<Message<D>>),
    /// Another process has the same share.
    Twice(KnownMember),
}

impl Roster {
    pub fn new(now: Nanos) -> Self {
        Self { known: BTreeMap::new(), listening: now, missed: 0 }
    }

    /// Notes that no message could come until now.
    pub fn resume(&mut self, now: Nanos) {
        self.listening = now;
    }

    /// Takes the status of a member. `is_open`: whether another process may take the place of a silent one, since the run
    /// has not begun.
    pub fn take_status<D>(&mut self, now: Nanos, status: Status<D>, is_open: bool) -> StatusOutcome<D> {
        let Status { share, member, place, clock_error, facts, ended, done, delta, .. } = status;
        let earlier = self.known.remove(&share.index());
        let listening = self.listening;
        let (next, asked) = match earlier {
            Some(other) if other.member != member && !(is_open && silence(listening, other.seen, now) >= SILENCE) => {
                self.known.insert(share.index(), other.clone());
                return StatusOutcome::Twice(other);
            }
            Some(other) if other.member == member => (other.next, other.asked),
            _ => (0, None),
        };
        let mut known = KnownMember { share, member, place, clock_error, facts, ended, done, seen: now, next, asked };
        let mut added = None;
        let mut request = None;
        if let Some(delta) = delta {
            let end = delta.first + delta.count;
            if delta.first > known.next {
                if known.asked.is_none_or(|asked| now >= asked + RESEND_PATIENCE) {
                    known.asked = Some(now);
                    request = Some(Message::Resend(Resend { share, from: known.next }));
                }
            } else if end > known.next {
                match delta.first == known.next {
                    true => added = Some(delta.content),
                    // Folded with what is known.
                    false => self.missed += end - known.next,
                }
                known.next = end;
            }
        }
        self.known.insert(share.index(), known);
        StatusOutcome::Known(added, request)
    }

    /// Returns the members whose last message is recent.
    pub fn present(&self, now: Nanos) -> impl Iterator<Item = &KnownMember> {
        self.known.values().filter(move |known| silence(self.listening, known.seen, now) < SILENCE)
    }

    pub fn get(&self, share: Share) -> Option<&KnownMember> {
        self.known.get(&share.index())
    }

    /// Returns the shares that are silent, with what is known of them; `earlier` is what another leader knew.
    pub fn lost(&self, of: u32, now: Nanos, earlier: &[LostShare]) -> Vec<LostShare> {
        let silent = |share: &Share| {
            let seen = self.known.get(&share.index()).map_or(0, |known| known.seen);
            silence(self.listening, seen, now) >= SILENCE
                || seen == 0 && earlier.iter().any(|lost| lost.share == *share)
        };
        let describe = |share: Share| match self.known.get(&share.index()) {
            Some(known) => LostShare { share, place: known.place.clone(), done: Some(known.done) },
            None => earlier.iter().find(|lost| lost.share == share).cloned().unwrap_or(LostShare {
                share,
                place: String::new(),
                done: None,
            }),
        };
        Share::all(of).filter(silent).map(describe).collect()
    }
}

/// Returns how long a member has been silent while messages could come.
fn silence(listening: Nanos, seen: Nanos, now: Nanos) -> Nanos {
    now.saturating_sub(seen.max(listening))
}
