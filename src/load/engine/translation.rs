//! Applies the declared deviations of a hub to the texts of a load run, and counts how often each was observed.
//!
//! Only a hub with deviations pays for this, and only for those it has: texts in a direction that no deviation affects
//! are not parsed.

use std::sync::Arc;

use serde_json::Value;

use crate::deviation::{Absence, AbsenceTrigger, DeviationChange, DeviationSightings, Deviations, SightingsByEntry};
use crate::load::Nanos;
use crate::load::compile::json_scan::MemberPaths;
use crate::load::provenance::{AssumedValue, DeliveredFrame};
use crate::protocol::Pack;
use crate::scenario::functions::FunctionContext;

/// The deviations of a hub, as one shard applies them.
pub struct ShardTranslator {
    deviations: Arc<Deviations>,
    pack: Arc<Pack>,
    world: Arc<FunctionContext>,
    /// Unix time in milliseconds at the origin of the run.
    epoch_ms: i64,
    uses: AffectedTraffic,
    /// Messages assumed to be received after a connection opens, if they are always the same.
    greetings: Option<Vec<AssumedMessage>>,
    /// Per slot, the entries whose message its client is assumed to have received since it connected or sent its last
    /// message.
    assumed: Vec<Vec<usize>>,
    seen: SightingsByEntry,
}

/// The documented text of a message that the hub never sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumedMessage {
    pub text: Vec<u8>,
    /// The index of the entry that says so.
    pub deviation: u16,
}

/// A received text in its documented form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslatedText {
    pub text: Vec<u8>,
    /// The values that the hub left out.
    pub assumed: Vec<AssumedValue>,
}

impl TranslatedText {
    pub fn frame(&self) -> DeliveredFrame<'_> {
        DeliveredFrame::observed_with(&self.text, &self.assumed)
    }
}

/// The parts of a connection that the entries affect.
struct AffectedTraffic {
    sent: bool,
    received: bool,
    /// Entries that apply to every open connection: settings.
    connection: Vec<usize>,
}

impl ShardTranslator {
    /// Returns `None` for a hub without deviations. `epoch_ms` is the Unix time at the origin of the run.
    pub fn new(deviations: &Arc<Deviations>, pack: &Arc<Pack>, shard: usize, epoch_ms: i64) -> Option<Self> {
        if deviations.is_empty() {
            return None;
        }
        // Ids that expressions make must differ between shards and runs.
        let world = Arc::new(FunctionContext::new(format!("load{epoch_ms}x{shard}")));
        let mut translation = Self {
            deviations: Arc::clone(deviations),
            pack: Arc::clone(pack),
            world,
            epoch_ms,
            uses: AffectedTraffic::new(deviations),
            greetings: None,
            assumed: Vec::new(),
            seen: SightingsByEntry::new(),
        };
        let mut absences = deviations.entries().iter().flat_map(|entry| entry.absences());
        let constant = absences.all(|Absence { after, assume, fresh, .. }| {
            *after != AbsenceTrigger::Connection || assume.is_constant() && fresh.is_empty()
        });
        translation.greetings = constant.then(|| translation.absent_after_connection());
        Some(translation)
    }

    /// Whether messages have to pass through [`ShardTranslator::translate_sent`].
    pub fn translates_sent(&self) -> bool {
        self.uses.sent
    }

    /// Returns a text in the form that the hub wants, if that differs, and the documented texts that this hub never
    /// sends after it.
    pub fn translate_sent(&mut self, slot: u32, text: &[u8], now: Nanos) -> (Option<Vec<u8>>, Vec<AssumedMessage>) {
        let Ok(json) = serde_json::from_slice::<Value>(text) else { return (None, Vec::new()) };
        self.set_time(now);
        let of_hub = self.deviations.translate_sent(&self.pack, &json, &self.world);
        // Sending a message as declared is not an observation, unless the hub never sends such a message itself.
        for index in of_hub.iter().flat_map(|translated| &translated.by) {
            if self.deviations.is_only_sent(&self.pack, *index) {
                self.count_observed(*index);
            }
        }
        let absent = self.deviations.absent_messages_after(&self.pack, &json, &self.world);
        // An answer that comes from now on may answer this message.
        let entries = self.deviations.entries();
        if let Some(assumed) = self.assumed.get_mut(slot as usize) {
            assumed.retain(|index| entries[*index].is_absent_after(AbsenceTrigger::Connection));
        }
        let absent: Vec<AssumedMessage> = absent.into_iter().map(assumed_message).collect();
        self.assume(slot, &absent);
        (of_hub.map(|translated| json_bytes(&translated.json)), absent)
    }

    /// Returns a received text in its documented form; `None` if it has that form already.
    pub fn translate_received(&mut self, slot: u32, text: &[u8], now: Nanos) -> Option<TranslatedText> {
        let assumed = self.assumed.get(slot as usize).is_some_and(|assumed| !assumed.is_empty());
        if !self.uses.received && !assumed {
            return None;
        }
        let json = serde_json::from_slice::<Value>(text).ok()?;
        self.set_time(now);
        let translated = self.deviations.translate_received(&self.pack, &json, &self.world);
        let by = translated.as_ref().map_or(&[][..], |translated| &translated.by);
        let documented = translated.as_ref().map_or(&json, |translated| &translated.json);
        self.deviations.count_sightings(&self.pack, documented, by, &self.world, &mut self.seen);
        if assumed {
            self.count_if_assumed_absent(slot, documented);
        }
        let translated = translated?;
        let text = json_bytes(&translated.json);
        let assumed = self.deviations.assumed_members(&json, &translated);
        let assumed = assumed.into_iter().filter_map(|(index, member)| assumed_value(&text, index, &member)).collect();
        Some(TranslatedText { text, assumed })
    }

    /// Counts an opened connection, whose upgrade request followed the entries `upgrade`; returns the documented texts
    /// that this hub never sends after it opens.
    pub fn count_opened(&mut self, slot: u32, upgrade: &[usize], now: Nanos) -> Vec<AssumedMessage> {
        self.set_time(now);
        upgrade.iter().for_each(|index| self.count_observed(*index));
        for index in 0..self.uses.connection.len() {
            self.count_observed(self.uses.connection[index]);
        }
        if let Some(assumed) = self.assumed.get_mut(slot as usize) {
            assumed.clear();
        }
        let absent = self.greetings.clone().unwrap_or_else(|| self.absent_after_connection());
        self.assume(slot, &absent);
        absent
    }

    /// Returns how often each entry was observed.
    pub fn into_seen(self) -> SightingsByEntry {
        self.seen
    }

    fn set_time(&self, now: Nanos) {
        self.world.set_now_ms(self.epoch_ms.saturating_add((now / 1_000_000) as i64));
    }

    fn absent_after_connection(&self) -> Vec<AssumedMessage> {
        let absent = self.deviations.absent_messages_after_connection(&self.pack, &self.world);
        absent.into_iter().map(assumed_message).collect()
    }

    fn count_observed(&mut self, index: usize) {
        self.seen.entry(index).or_default().observed += 1;
    }

    fn assume(&mut self, slot: u32, absent: &[AssumedMessage]) {
        if absent.is_empty() {
            return;
        }
        let slot = slot as usize;
        if self.assumed.len() <= slot {
            self.assumed.resize_with(slot + 1, Vec::new);
        }
        for message in absent {
            self.count_observed(message.deviation.into());
            self.assumed[slot].push(message.deviation.into());
        }
    }

    /// Counts a message that an entry says never comes.
    ///
    /// A message declared absent after another one is counted until the client sends again, since it may then answer
    /// the later request; one declared absent after the connection is counted only if it comes first.
    fn count_if_assumed_absent(&mut self, slot: u32, json: &Value) {
        let entries = self.deviations.entries();
        let assumed = &mut self.assumed[slot as usize];
        let is_it =
            |index: &usize| entries[*index].messages().any(|message| self.pack.messages[message].matcher.fits(json));
        if let Some(place) = assumed.iter().position(is_it) {
            let DeviationSightings { contradicted, .. } = self.seen.entry(assumed.remove(place)).or_default();
            *contradicted += 1;
        }
        assumed.retain(|index| !entries[*index].is_absent_after(AbsenceTrigger::Connection));
    }
}

impl AffectedTraffic {
    fn new(deviations: &Deviations) -> Self {
        let mut uses = Self { sent: false, received: false, connection: Vec::new() };
        for (index, entry) in deviations.entries().iter().enumerate() {
            match &entry.change {
                DeviationChange::Setting { .. } => uses.connection.push(index),
                DeviationChange::Absent { absences } => {
                    uses.sent |= absences.iter().any(|absence| absence.after != AbsenceTrigger::Connection);
                }
                // Applied when the plan is compiled.
                DeviationChange::Upgrade(_) => {}
                _ => {
                    uses.sent |= entry.way.to_hub;
                    uses.received |= entry.way.from_hub;
                }
            }
        }
        uses
    }
}

fn assumed_message((index, json): (usize, Value)) -> AssumedMessage {
    AssumedMessage { text: json_bytes(&json), deviation: deviation_number(index) }
}

/// Returns the place in a text of a member that an entry assumes.
fn assumed_value(text: &[u8], index: usize, member: &str) -> Option<AssumedValue> {
    let mut paths = MemberPaths::default();
    let number = paths.add(member)?;
    let value = paths.find(text).ok()?[number]?;
    let start = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some(AssumedValue { bytes: start..start + value.len(), deviation: deviation_number(index) })
}

fn deviation_number(index: usize) -> u16 {
    // More entries share the last number.
    u16::try_from(index).unwrap_or(u16::MAX)
}

fn json_bytes(json: &Value) -> Vec<u8> {
    // Cannot fail: the keys are texts.
    serde_json::to_vec(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::RunFixture;
    use crate::syntax::yaml;

    fn translation(entries: &str) -> ShardTranslator {
        let RunFixture { mut sources, pack, programs, .. } = RunFixture::all_pass();
        let file = sources.add("hub.yaml", entries);
        let nodes = yaml::parse(&sources, file).unwrap();
        let read = Deviations::parse(nodes.list().unwrap(), &pack, &programs[0].shared, false);
        ShardTranslator::new(&Arc::new(read.unwrap()), &pack, 0, 1_700_000_000_000).unwrap()
    }

    fn seen(translation: ShardTranslator) -> (usize, usize) {
        let seen = translation.into_seen().get(&0).copied().unwrap_or_default();
        (seen.observed, seen.contradicted)
    }

    #[test]
    fn observed_and_contradicted_deviations_are_counted() {
        let mut hub = translation("[{ reason: x, message: welcome, instead: { say: hi } }]");
        let documented = hub.translate_received(0, br#"{"say":"hi"}"#, 0).unwrap();
        assert_eq!((&*documented.text, &*documented.assumed), (&br#"{"say":"welcome"}"#[..], &[][..]));
        assert!(hub.translate_received(0, br#"{"say":"hi"}"#, 0).is_some());
        assert_eq!(hub.translate_received(1, br#"{"say":"welcome"}"#, 0), None);
        assert_eq!(hub.translate_received(1, br#"{"say":"echo","text":"x"}"#, 0), None);
        assert_eq!(seen(hub), (2, 1));
        // A deviation of messages that are only sent is observed whenever one is sent.
        let mut hub = translation("[{ reason: x, message: hello, member: /name, renamed: /guest }]");
        let (of_hub, absent) = hub.translate_sent(0, br#"{"say":"hello","name":"anna"}"#, 0);
        assert_eq!(of_hub.as_deref(), Some(&br#"{"say":"hello","guest":"anna"}"#[..]));
        assert!(absent.is_empty());
        assert_eq!(seen(hub), (1, 0));
        let mut hub = translation("[{ reason: x, setting: secret, value: chair }]");
        assert_eq!(hub.count_opened(0, &[], 0), []);
        assert!(!hub.translates_sent());
        assert_eq!(hub.translate_received(0, br#"{"say":"welcome"}"#, 0), None);
        assert_eq!(seen(hub), (1, 0));
    }

    #[test]
    fn an_absent_message_that_arrives_counts_as_a_contradiction() {
        let absent = "[{ reason: x, message: welcome, absent: true, after: hello }]";
        let mut hub = translation(absent);
        for slot in 0..3 {
            assert_eq!(hub.translate_sent(slot, br#"{"say":"hello"}"#, 0).1.len(), 1);
        }
        hub.translate_received(0, br#"{"say":"welcome"}"#, 0);
        // Only the first one counts.
        hub.translate_received(0, br#"{"say":"welcome"}"#, 0);
        // This one may answer the last message sent.
        hub.translate_sent(1, br#"{"say":"bye"}"#, 0);
        hub.translate_received(1, br#"{"say":"welcome"}"#, 0);
        assert_eq!(seen(hub), (3, 1));
        let mut hub = translation(&absent.replace("after: hello", "after: connection"));
        for slot in 0..2 {
            assert_eq!(hub.count_opened(slot, &[], 0).len(), 1);
            hub.translate_sent(slot, br#"{"say":"hello"}"#, 0);
        }
        hub.translate_received(0, br#"{"say":"welcome"}"#, 0);
        // A greeting would have come first.
        hub.translate_received(1, br#"{"say":"echo"}"#, 0);
        hub.translate_received(1, br#"{"say":"welcome"}"#, 0);
        assert_eq!(seen(hub), (2, 1));
    }

    #[test]
    fn a_missing_member_is_assumed_unless_it_follows_from_the_message() {
        let entry = "[{ reason: x, message: welcome, member: /at, missing: true, assume: ASSUMED }]";
        let assumed = |value: &str| {
            let mut hub = translation(&entry.replace("ASSUMED", value));
            let text = br#"{"say":"welcome","n":7}"#;
            hub.translate_received(0, text, 0).unwrap()
        };
        let TranslatedText { text, assumed: values } = assumed("17");
        let value = AssumedValue { bytes: text.len() - 3..text.len() - 1, deviation: 0 };
        assert_eq!((&*text, &*values), (&br#"{"say":"welcome","n":7,"at":17}"#[..], &[value][..]));
        assert_eq!(assumed("'${message.n}'").assumed, []);
    }

    #[test]
    fn deviation_expressions_can_use_the_current_time() {
        let mut hub =
            translation("[{ reason: x, message: welcome, member: /at, missing: true, assume: '${now_ms()}' }]");
        let documented = hub.translate_received(0, br#"{"say":"welcome"}"#, 2_500_000_000).unwrap();
        assert_eq!(documented.text, br#"{"say":"welcome","at":1700000002500}"#);
    }
}
