//! The ledger entries of a client about its items.

use std::borrow::Cow;

use super::VirtualClient;
use crate::load::Nanos;
use crate::load::client::io::ClientIo;
use crate::load::compile::json_scan::{FoundMembers, unquoted_text};
use crate::load::compile::message_template::SlotSource;
use crate::load::compile::program::{AwaitedFrame, CompiledRole, LedgerMarking, ReceiverCount};
use crate::load::ids::MessageId;
use crate::load::ledger::{LedgerEntry, LedgerMark, NO_PARTY, NameOwner};
use crate::load::plan::MarkName;

/// Bits of `ClientTask::noted`: which marks of the item have been recorded.
const ATTEMPTED_BIT: u8 = 1;
const NAMED_BIT: u8 = 2;
/// The hub has answered about the item.
const ANSWERED_BIT: u8 = 4;
const ASSIGNED_BIT: u8 = 8;

impl VirtualClient {
    /// Returns a unique key for an item that the hub has not named yet.
    pub(super) fn unnamed_item(&mut self, role: &CompiledRole) -> u64 {
        self.items = self.items.wrapping_add(1);
        let number = u64::from(self.party) << 32 | u64::from(self.items);
        let mut name = *b"unnamed ........";
        name[8..].copy_from_slice(&number.to_be_bytes());
        role.common.keys.item_key(&name)
    }

    fn source_text(&self, role: &CompiledRole, task: usize, source: &SlotSource) -> Option<Cow<'_, [u8]>> {
        match source {
            SlotSource::Text(slot) => self.tasks[task].texts.get(*slot).map(Cow::Borrowed),
            SlotSource::Own(slot) => self.own.get(*slot).map(Cow::Borrowed),
            SlotSource::Index => Some(Cow::Owned((self.party - role.first).to_string().into_bytes())),
            _ => None,
        }
    }

    /// Returns the party of a mark: the one that the message names, or this client.
    fn party_of(&self, role: &CompiledRole, task: usize, by: Option<&SlotSource>) -> u32 {
        let Some(by) = by else { return self.own_party(role) };
        match self.source_text(role, task, by) {
            Some(text) if &*text != b"null" => role.common.keys.party_number(&unquoted_text(&text)),
            _ => NO_PARTY,
        }
    }

    pub(super) fn record_mark(
        &mut self,
        role: &CompiledRole,
        task: usize,
        marking: &LedgerMarking,
        message: Option<MessageId>,
        at: Nanos,
        io: &mut impl ClientIo,
    ) {
        let party = self.party_of(role, task, marking.by.as_ref());
        let source = marking.item.as_ref().or(role.programs[self.tasks[task].program].item.as_ref());
        let text = source.and_then(|source| self.source_text(role, task, source));
        let key = text.map(|text| {
            let name = unquoted_text(&text);
            let key = role.common.keys.item_key(&name);
            if self.tasks[task].item != key {
                io.report_name(NameOwner::Item(key), &name);
            }
            key
        });
        let receivers = match &marking.receivers {
            Some(ReceiverCount::Always(number)) => *number,
            Some(ReceiverCount::Filled(source)) => {
                let text = self.source_text(role, task, source);
                text.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<f64>().ok()).unwrap_or_default() as u32
            }
            None => 0,
        };
        let one = &mut self.tasks[task];
        match key {
            // The hub has assigned the id of a requested item.
            Some(key) if one.noted & (ATTEMPTED_BIT | NAMED_BIT) == ATTEMPTED_BIT => {
                io.record_entry(LedgerEntry { at, item: one.item, party, what: LedgerMark::Named(key) });
                one.item = key;
                one.noted |= NAMED_BIT;
            }
            Some(key) => {
                one.item = key;
                one.noted |= NAMED_BIT;
            }
            None => {}
        }
        let named = one.noted & NAMED_BIT != 0;
        let mark = match marking.mark {
            MarkName::Attempted if !named => LedgerMark::Requested,
            MarkName::Released => LedgerMark::Released { back_ms: marking.back_ms },
            other => mark_by_name(other, receivers),
        };
        match marking.mark {
            MarkName::Attempted => one.noted |= ATTEMPTED_BIT,
            MarkName::Assigned => one.noted |= ASSIGNED_BIT,
            MarkName::Released | MarkName::Completed | MarkName::Failed => {
                one.noted = (one.noted | ANSWERED_BIT) & !ASSIGNED_BIT
            }
            _ => one.noted |= ANSWERED_BIT,
        }
        if let (LedgerMark::Published { .. }, Some(message)) = (mark, message) {
            io.published(message, receivers, at);
        }
        io.record_entry(LedgerEntry { at, item: one.item, party, what: mark });
    }

    /// Whether a frame that the oldest waiting task would take names the item of another task: then it is a repetition.
    pub(super) fn names_other_item(
        &self,
        role: &CompiledRole,
        task: usize,
        wanted: &AwaitedFrame,
        found: &FoundMembers<'_>,
    ) -> bool {
        let Some(stray) = wanted.stray.as_ref().filter(|_| wanted.equal.is_empty()) else { return false };
        let Some(text) = found[stray.item] else { return false };
        let key = role.common.keys.item_key(&unquoted_text(text));
        // A task that has released its job may be given it again.
        let bits = if stray.mark == MarkName::Assigned { NAMED_BIT | ASSIGNED_BIT } else { NAMED_BIT };
        let known =
            |other: &super::task::ClientTask| other.is_active() && other.noted & bits == bits && other.item == key;
        self.tasks.iter().enumerate().any(|(place, other)| place != task && known(other))
    }

    /// Whether a frame names an item of any task.
    pub(super) fn names_known_item(
        &self,
        role: &CompiledRole,
        wanted: &AwaitedFrame,
        found: &FoundMembers<'_>,
    ) -> bool {
        self.names_other_item(role, usize::MAX, wanted, found)
    }

    /// Records the mark of a frame that no task waits for.
    pub(super) fn record_stray(
        &self,
        role: &CompiledRole,
        wanted: &AwaitedFrame,
        found: &FoundMembers<'_>,
        at: Nanos,
        io: &mut impl ClientIo,
    ) {
        let Some(stray) = &wanted.stray else { return };
        let Some(text) = found[stray.item] else { return };
        let party = match stray.by.map(|by| found[by]) {
            Some(Some(text)) if text != b"null" => role.common.keys.party_number(&unquoted_text(text)),
            Some(_) => NO_PARTY,
            None => self.own_party(role),
        };
        let item = role.common.keys.item_key(&unquoted_text(text));
        io.report_name(NameOwner::Item(item), &unquoted_text(text));
        let what = if stray.mark == MarkName::Assigned { LedgerMark::NotTaken } else { mark_by_name(stray.mark, 0) };
        io.record_entry(LedgerEntry { at, item, party, what });
    }

    /// Returns the number of this client as a party, by the name that the protocol gives it.
    fn own_party(&self, role: &CompiledRole) -> u32 {
        let own = role.party.as_ref().and_then(|source| match source {
            SlotSource::Own(slot) => self.own.get(*slot),
            _ => None,
        });
        own.map_or(self.party + 1, |text| role.common.keys.party_number(&unquoted_text(text)))
    }

    /// Reports the name of this client for the report.
    pub(super) fn report_name(&self, role: &CompiledRole, io: &mut impl ClientIo) {
        let party = NameOwner::Party(self.own_party(role));
        match role.party.as_ref() {
            Some(SlotSource::Own(slot)) if let Some(text) = self.own.get(*slot) => {
                io.report_name(party, &unquoted_text(text))
            }
            _ => io.report_name(party, format!("{} {}", role.name, self.party - role.first).as_bytes()),
        }
    }

    /// Records that the hub refused the item.
    pub(super) fn note_refusal(&mut self, role: &CompiledRole, task: usize, at: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        if one.noted & (ATTEMPTED_BIT | ANSWERED_BIT) == ATTEMPTED_BIT {
            io.record_entry(LedgerEntry {
                at,
                item: one.item,
                party: self.party_of(role, task, None),
                what: LedgerMark::Refused,
            });
        }
    }

    /// Records at the end of the run that this client still has its item.
    pub(super) fn note_held(&self, role: &CompiledRole, task: usize, at: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        if one.noted & ASSIGNED_BIT != 0 {
            io.record_entry(LedgerEntry {
                at,
                item: one.item,
                party: self.party_of(role, task, None),
                what: LedgerMark::Held,
            });
        }
    }

    /// Records the end of the connection: pending requests become unsure, assigned items are released.
    pub(super) fn note_disconnect(&mut self, role: &CompiledRole, task: usize, at: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        let (item, noted) = (one.item, one.noted);
        let party = self.party_of(role, task, None);
        if noted & (ATTEMPTED_BIT | ANSWERED_BIT) == ATTEMPTED_BIT {
            io.record_entry(LedgerEntry { at, item, party, what: LedgerMark::Unsure });
            self.tasks[task].noted |= ANSWERED_BIT;
        }
        if noted & ASSIGNED_BIT != 0 {
            io.record_entry(LedgerEntry { at, item, party, what: LedgerMark::Released { back_ms: 0 } });
            self.tasks[task].noted &= !ASSIGNED_BIT;
        }
    }
}

fn mark_by_name(name: MarkName, receivers: u32) -> LedgerMark {
    match name {
        MarkName::Attempted => LedgerMark::Attempted,
        MarkName::Published => LedgerMark::Published { receivers },
        MarkName::Acknowledged => LedgerMark::Acknowledged,
        MarkName::Refused => LedgerMark::Refused,
        MarkName::Assigned => LedgerMark::Assigned,
        MarkName::Released => LedgerMark::Released { back_ms: 0 },
        MarkName::Cancelled => LedgerMark::Cancelled,
        MarkName::Delivered => LedgerMark::Delivered,
        MarkName::Completed => LedgerMark::Completed,
        MarkName::Failed => LedgerMark::Failed,
    }
}
