//! The ledger entries of a client about its items.

use std::borrow::Cow;

use super::Client;
use crate::load::Nanos;
use crate::load::client::io::ClientIo;
use crate::load::compile::json_scan::{Found, text_of};
use crate::load::compile::message_template::Source;
use crate::load::compile::program::{Marking, Receivers, Role, Wanted};
use crate::load::ids::MessageId;
use crate::load::ledger::{Entry, Mark, NO_PARTY, NameOf};
use crate::load::plan::MarkName;

/// Bits of `Task::noted`: which marks of the item have been recorded.
const ATTEMPTED: u8 = 1;
const NAMED: u8 = 2;
/// The hub has answered about the item.
const ANSWERED: u8 = 4;
const ASSIGNED: u8 = 8;

impl Client {
    /// Returns a unique key for an item that the hub has not named yet.
    pub(super) fn unnamed_item(&mut self, role: &Role) -> u64 {
        self.items = self.items.wrapping_add(1);
        let number = u64::from(self.party) << 32 | u64::from(self.items);
        let mut name = *b"unnamed ........";
        name[8..].copy_from_slice(&number.to_be_bytes());
        role.common.keys.item(&name)
    }

    fn text(&self, role: &Role, task: usize, source: &Source) -> Option<Cow<'_, [u8]>> {
        match source {
            Source::Text(slot) => self.tasks[task].texts.get(*slot).map(Cow::Borrowed),
            Source::Own(slot) => self.own.get(*slot).map(Cow::Borrowed),
            Source::Index => Some(Cow::Owned((self.party - role.first).to_string().into_bytes())),
            _ => None,
        }
    }

    /// Returns the party of a mark: the one that the message names, or this client.
    fn party_of(&self, role: &Role, task: usize, by: Option<&Source>) -> u32 {
        let Some(by) = by else { return self.named(role) };
        match self.text(role, task, by) {
            Some(text) if &*text != b"null" => role.common.keys.party(&text_of(&text)),
            _ => NO_PARTY,
        }
    }

    pub(super) fn mark(
        &mut self,
        role: &Role,
        task: usize,
        marking: &Marking,
        message: Option<MessageId>,
        at: Nanos,
        io: &mut impl ClientIo,
    ) {
        let party = self.party_of(role, task, marking.by.as_ref());
        let source = marking.item.as_ref().or(role.programs[self.tasks[task].program].item.as_ref());
        let text = source.and_then(|source| self.text(role, task, source));
        let key = text.map(|text| {
            let name = text_of(&text);
            let key = role.common.keys.item(&name);
            if self.tasks[task].item != key {
                io.name(NameOf::Item(key), &name);
            }
            key
        });
        let receivers = match &marking.receivers {
            Some(Receivers::Always(number)) => *number,
            Some(Receivers::Filled(source)) => {
                let text = self.text(role, task, source);
                text.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<f64>().ok()).unwrap_or_default() as u32
            }
            None => 0,
        };
        let one = &mut self.tasks[task];
        match key {
            // The hub has assigned the id of a requested item.
            Some(key) if one.noted & (ATTEMPTED | NAMED) == ATTEMPTED => {
                io.note(Entry { at, item: one.item, party, what: Mark::Named(key) });
                one.item = key;
                one.noted |= NAMED;
            }
            Some(key) => {
                one.item = key;
                one.noted |= NAMED;
            }
            None => {}
        }
        let named = one.noted & NAMED != 0;
        let mark = match marking.mark {
            MarkName::Attempted if !named => Mark::Requested,
            MarkName::Released => Mark::Released { back_ms: marking.back_ms },
            other => mark(other, receivers),
        };
        match marking.mark {
            MarkName::Attempted => one.noted |= ATTEMPTED,
            MarkName::Assigned => one.noted |= ASSIGNED,
            MarkName::Released | MarkName::Completed | MarkName::Failed => {
                one.noted = (one.noted | ANSWERED) & !ASSIGNED
            }
            _ => one.noted |= ANSWERED,
        }
        if let (Mark::Published { .. }, Some(message)) = (mark, message) {
            io.published(message, receivers, at);
        }
        io.note(Entry { at, item: one.item, party, what: mark });
    }

    /// Whether a frame that the oldest waiting task would take names the item of another task: then it is a repetition.
    pub(super) fn names_other_item(&self, role: &Role, task: usize, wanted: &Wanted, found: &Found<'_>) -> bool {
        let Some(stray) = wanted.stray.as_ref().filter(|_| wanted.equal.is_empty()) else { return false };
        let Some(text) = found[stray.item] else { return false };
        let key = role.common.keys.item(&text_of(text));
        // A task that has released its job may be given it again.
        let bits = if stray.mark == MarkName::Assigned { NAMED | ASSIGNED } else { NAMED };
        let known = |other: &super::task::Task| other.is_active() && other.noted & bits == bits && other.item == key;
        self.tasks.iter().enumerate().any(|(place, other)| place != task && known(other))
    }

    /// Whether a frame names an item of any task.
    pub(super) fn is_known(&self, role: &Role, wanted: &Wanted, found: &Found<'_>) -> bool {
        self.names_other_item(role, usize::MAX, wanted, found)
    }

    /// Records the mark of a frame that no task waits for.
    pub(super) fn stray(&self, role: &Role, wanted: &Wanted, found: &Found<'_>, at: Nanos, io: &mut impl ClientIo) {
        let Some(stray) = &wanted.stray else { return };
        let Some(text) = found[stray.item] else { return };
        let party = match stray.by.map(|by| found[by]) {
            Some(Some(text)) if text != b"null" => role.common.keys.party(&text_of(text)),
            Some(_) => NO_PARTY,
            None => self.named(role),
        };
        let item = role.common.keys.item(&text_of(text));
        io.name(NameOf::Item(item), &text_of(text));
        let what = if stray.mark == MarkName::Assigned { Mark::NotTaken } else { mark(stray.mark, 0) };
        io.note(Entry { at, item, party, what });
    }

    /// Returns the number of this client as a party, by the name that the protocol gives it.
    fn named(&self, role: &Role) -> u32 {
        let own = role.party.as_ref().and_then(|source| match source {
            Source::Own(slot) => self.own.get(*slot),
            _ => None,
        });
        own.map_or(self.party + 1, |text| role.common.keys.party(&text_of(text)))
    }

    /// Reports the name of this client for the report.
    pub(super) fn report_name(&self, role: &Role, io: &mut impl ClientIo) {
        let party = NameOf::Party(self.named(role));
        match role.party.as_ref() {
            Some(Source::Own(slot)) if let Some(text) = self.own.get(*slot) => io.name(party, &text_of(text)),
            _ => io.name(party, format!("{} {}", role.name, self.party - role.first).as_bytes()),
        }
    }

    /// Records that the hub refused the item.
    pub(super) fn note_refusal(&mut self, role: &Role, task: usize, at: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        if one.noted & (ATTEMPTED | ANSWERED) == ATTEMPTED {
            io.note(Entry { at, item: one.item, party: self.party_of(role, task, None), what: Mark::Refused });
        }
    }

    /// Records at the end of the run that this client still has its item.
    pub(super) fn note_held(&self, role: &Role, task: usize, at: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        if one.noted & ASSIGNED != 0 {
            io.note(Entry { at, item: one.item, party: self.party_of(role, task, None), what: Mark::Held });
        }
    }

    /// Records the end of the connection: pending requests become unsure, assigned items are released.
    pub(super) fn note_disconnect(&mut self, role: &Role, task: usize, at: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        let (item, noted) = (one.item, one.noted);
        let party = self.party_of(role, task, None);
        if noted & (ATTEMPTED | ANSWERED) == ATTEMPTED {
            io.note(Entry { at, item, party, what: Mark::Unsure });
            self.tasks[task].noted |= ANSWERED;
        }
        if noted & ASSIGNED != 0 {
            io.note(Entry { at, item, party, what: Mark::Released { back_ms: 0 } });
            self.tasks[task].noted &= !ASSIGNED;
        }
    }
}

fn mark(name: MarkName, receivers: u32) -> Mark {
    match name {
        MarkName::Attempted => Mark::Attempted,
        MarkName::Published => Mark::Published { receivers },
        MarkName::Acknowledged => Mark::Acknowledged,
        MarkName::Refused => Mark::Refused,
        MarkName::Assigned => Mark::Assigned,
        MarkName::Released => Mark::Released { back_ms: 0 },
        MarkName::Cancelled => Mark::Cancelled,
        MarkName::Delivered => Mark::Delivered,
        MarkName::Completed => Mark::Completed,
        MarkName::Failed => Mark::Failed,
    }
}
