//! The ledger entries of a client about its items.

use std::borrow::Cow;

use super::VirtualClient;
use super::receive::{FrameOrigin, ScannedFrame};
use crate::load::Nanos;
use crate::load::client::io::ClientIo;
use crate::load::compile::json_scan::unquoted_text;
use crate::load::compile::message_template::SlotSource;
use crate::load::compile::program::{AwaitedFrame, CompiledRole, LedgerMarking, ReceiverCount};
use crate::load::ledger::{LedgerEntry, LedgerMark, NO_PARTY, NameOwner};
use crate::load::plan::MarkName;
use crate::load::provenance::{Provenance, SourcedText};

/// Bits of `ClientTask::noted`: which marks of the item have been recorded.
const ATTEMPTED_BIT: u8 = 1;
const NAMED_BIT: u8 = 2;
/// The hub has answered about the item.
const ANSWERED_BIT: u8 = 4;
const ASSIGNED_BIT: u8 = 8;
/// The ledger cannot follow the item, since its id is only assumed.
const ASSUMED_BIT: u8 = 16;

impl VirtualClient {
    /// Returns a unique key for an item that the hub has not named yet.
    pub(super) fn unnamed_item(&mut self, role: &CompiledRole) -> u64 {
        self.counts.items = self.counts.items.wrapping_add(1);
        let number = u64::from(self.party) << 32 | u64::from(self.counts.items);
        let mut name = *b"unnamed ........";
        name[8..].copy_from_slice(&number.to_be_bytes());
        role.common.keys.item_key(&name)
    }

    /// Returns the text of a source that is not assumed.
    fn observed_text(&self, role: &CompiledRole, task: usize, source: &SlotSource) -> Option<Cow<'_, [u8]>> {
        match source {
            SlotSource::Text(slot) => self.tasks[task].texts.get(*slot)?.observed().map(Cow::Borrowed),
            SlotSource::Own(slot) => self.own.get(*slot)?.observed().map(Cow::Borrowed),
            SlotSource::Index => Some(Cow::Owned((self.party - role.first).to_string().into_bytes())),
            _ => None,
        }
    }

    /// Returns the party of a mark: the party that the message names, or this client.
    fn party_of(&self, role: &CompiledRole, task: usize, mark: LedgerMark, by: Option<&SlotSource>) -> u32 {
        let Some(by) = by else { return self.own_party(role, mark) };
        match self.observed_text(role, task, by) {
            Some(text) if &*text != b"null" => role.common.keys.party_number(&unquoted_text(&text)),
            _ => NO_PARTY,
        }
    }

    /// Returns the number of clients that should receive a message; `None` if the number is only assumed.
    pub(super) fn observed_receivers(&self, role: &CompiledRole, task: usize, marking: &LedgerMarking) -> Option<u32> {
        match &marking.receivers {
            Some(ReceiverCount::Filled(source)) => {
                if source.provenance(&self.own, &self.tasks[task].texts).is_assumed() {
                    return None;
                }
                let text = self.observed_text(role, task, source);
                let number = text.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<f64>().ok());
                Some(number.unwrap_or_default() as u32)
            }
            Some(ReceiverCount::Always(number)) => Some(*number),
            None => Some(0),
        }
    }

    /// Records the mark of a sent message or of a frame.
    pub(super) fn record_mark(
        &mut self,
        role: &CompiledRole,
        task: usize,
        marking: &LedgerMarking,
        frame: FrameOrigin,
        at: Nanos,
        io: &mut impl ClientIo,
    ) {
        let one = &self.tasks[task];
        let source = marking.item.as_ref().or(role.programs[one.program].item.as_ref());
        let source_of = |source: &SlotSource| source.provenance(&self.own, &one.texts);
        let counted = match &marking.receivers {
            Some(ReceiverCount::Filled(source)) => source_of(source),
            _ => Provenance::Observed,
        };
        let assumed = source.map(source_of).unwrap_or_default().join(counted);
        let receivers = self.observed_receivers(role, task, marking).unwrap_or_default();
        if one.noted & ASSUMED_BIT != 0 {
            return;
        }
        let party = self.party_of(role, task, mark_by_name(marking.mark, receivers), marking.by.as_ref());
        if let Provenance::Assumed { deviation } = assumed {
            return self.record_assumed_item(task, marking.mark, deviation, party, at, io);
        }
        let text = source.and_then(|source| self.observed_text(role, task, source));
        let key = text.map(|text| {
            let name = unquoted_text(&text);
            let key = role.common.keys.item_key(&name);
            if one.item != key {
                io.report_name(NameOwner::Item(key), &name);
            }
            key
        });
        if let Provenance::Assumed { deviation } = frame.source {
            let what = match marking.mark {
                MarkName::Assigned | MarkName::Delivered => LedgerMark::ProgressAssumed { deviation },
                MarkName::Completed | MarkName::Failed | MarkName::Cancelled | MarkName::Refused => {
                    LedgerMark::Assumed { deviation }
                }
                _ => return,
            };
            return io.record_entry(LedgerEntry { at, item: key.unwrap_or(one.item), party: NO_PARTY, what });
        }
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
        if frame.recorded != Some(marking.mark) {
            io.record_entry(LedgerEntry { at, item: one.item, party, what: mark });
        }
    }

    /// Records the mark of an item whose id, or whose number of receivers, is only assumed: an item that this client
    /// requested counts as one that the ledger cannot follow, and nothing more is recorded about it.
    fn record_assumed_item(
        &mut self,
        task: usize,
        mark: MarkName,
        deviation: u16,
        party: u32,
        at: Nanos,
        io: &mut impl ClientIo,
    ) {
        let one = &mut self.tasks[task];
        let mut record = |party, what| io.record_entry(LedgerEntry { at, item: one.item, party, what });
        let requests = matches!(mark, MarkName::Attempted | MarkName::Published);
        if requests && one.noted & ATTEMPTED_BIT == 0 {
            record(party, LedgerMark::Requested);
        }
        if requests || one.noted & ATTEMPTED_BIT != 0 {
            record(NO_PARTY, LedgerMark::Assumed { deviation });
        } else if matches!(mark, MarkName::Assigned | MarkName::Delivered) {
            record(NO_PARTY, LedgerMark::ProgressAssumed { deviation });
        }
        one.noted |= ASSUMED_BIT | ATTEMPTED_BIT | ANSWERED_BIT;
    }

    /// Whether a frame that the oldest waiting task would take names the item of another task: then it is a repetition.
    pub(super) fn names_other_item(
        &self,
        role: &CompiledRole,
        task: usize,
        awaited: &AwaitedFrame,
        frame: &ScannedFrame<'_>,
    ) -> bool {
        let Some(stray) = awaited.stray.as_ref().filter(|_| awaited.equal.is_empty()) else { return false };
        let Some(text) = frame.member(stray.item).and_then(SourcedText::observed) else { return false };
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
        awaited: &AwaitedFrame,
        frame: &ScannedFrame<'_>,
    ) -> bool {
        self.names_other_item(role, usize::MAX, awaited, frame)
    }

    /// Records the mark of a frame that no task waits for; returns whether the frame names an item that the ledger can
    /// follow.
    pub(super) fn record_stray(
        &self,
        role: &CompiledRole,
        awaited: &AwaitedFrame,
        frame: &ScannedFrame<'_>,
        at: Nanos,
        io: &mut impl ClientIo,
    ) -> bool {
        let Some(stray) = &awaited.stray else { return false };
        let Some(text) = frame.member(stray.item).and_then(SourcedText::observed) else { return false };
        // An item that the hub knows from this client alone.
        let mut known = self.tasks.iter().map(|task| &task.texts).chain([&self.own]);
        if known.any(|texts| texts.repeated_assumption(text).is_some()) {
            return false;
        }
        let what = if stray.mark == MarkName::Assigned { LedgerMark::NotTaken } else { mark_by_name(stray.mark, 0) };
        let party = match stray.by.map(|by| frame.member(by).and_then(SourcedText::observed)) {
            Some(Some(text)) if text != b"null" => role.common.keys.party_number(&unquoted_text(text)),
            Some(_) => NO_PARTY,
            None => self.own_party(role, what),
        };
        let item = role.common.keys.item_key(&unquoted_text(text));
        io.report_name(NameOwner::Item(item), &unquoted_text(text));
        io.record_entry(LedgerEntry { at, item, party, what });
        true
    }

    /// Returns the number of this client as the party of a mark, by the name that the protocol gives it. An assumed
    /// name is not the hub's name for the client, so it identifies no worker.
    fn own_party(&self, role: &CompiledRole, mark: LedgerMark) -> u32 {
        let names_sender = matches!(
            mark,
            LedgerMark::Attempted | LedgerMark::Requested | LedgerMark::Published { .. } | LedgerMark::Delivered
        );
        match self.own_name(role) {
            None => self.party + 1,
            Some(SourcedText { bytes, source: Provenance::Observed }) => {
                role.common.keys.party_number(&unquoted_text(bytes))
            }
            Some(_) if names_sender => self.party + 1,
            Some(_) => NO_PARTY,
        }
    }

    /// Returns the name of this client in the protocol, if it has one.
    fn own_name(&self, role: &CompiledRole) -> Option<SourcedText<'_>> {
        match role.party.as_ref()? {
            SlotSource::Own(slot) => self.own.get(*slot),
            _ => None,
        }
    }

    /// Reports the name of this client for the report.
    pub(super) fn report_name(&self, role: &CompiledRole, io: &mut impl ClientIo) {
        let party = self.own_party(role, LedgerMark::Requested);
        let party = if role.receives { NameOwner::Receiver(party) } else { NameOwner::Party(party) };
        match self.own_name(role).and_then(SourcedText::observed) {
            Some(text) => io.report_name(party, &unquoted_text(text)),
            None => io.report_name(party, format!("{} {}", role.name, self.party - role.first).as_bytes()),
        }
    }

    /// Records that the hub refused the item.
    pub(super) fn note_refusal(&mut self, role: &CompiledRole, task: usize, at: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        if one.noted & (ATTEMPTED_BIT | ANSWERED_BIT) == ATTEMPTED_BIT {
            io.record_entry(LedgerEntry {
                at,
                item: one.item,
                party: self.own_party(role, LedgerMark::Refused),
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
                party: self.own_party(role, LedgerMark::Held),
                what: LedgerMark::Held,
            });
        }
    }

    /// Records the end of the connection: pending requests become unsure, assigned items are released.
    pub(super) fn note_disconnect(&mut self, role: &CompiledRole, task: usize, at: Nanos, io: &mut impl ClientIo) {
        let one = &self.tasks[task];
        let (item, noted) = (one.item, one.noted);
        let party = self.own_party(role, LedgerMark::Released { back_ms: 0 });
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
