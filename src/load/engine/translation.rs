//! Applies the declared deviations of a hub to the texts of a load run, and counts how often each was observed.
//!
//! Only a hub with deviations pays for this, and only for those it has: texts in a direction that no deviation affects
//! are not parsed.

use std::sync::Arc;

use serde_json::Value;

use crate::deviation::{After, Change, Deviations, Seen, Sightings};
use crate::load::Nanos;
use crate::protocol::Pack;
use crate::scenario::functions::World;
use crate::websocket::handshake::Dial;

/// The deviations of a hub, as one shard applies them.
pub struct Translation {
    deviations: Arc<Deviations>,
    pack: Arc<Pack>,
    world: Arc<World>,
    /// Unix time in milliseconds at the origin of the run.
    epoch_ms: i64,
    uses: Uses,
    /// Messages assumed to be received after a connection opens, if they are always the same.
    greetings: Option<Vec<(usize, Vec<u8>)>>,
    /// Per slot, the entries whose message its client is assumed to have received since it connected or sent its last
    /// message.
    assumed: Vec<Vec<usize>>,
    seen: Seen,
}

/// The parts of a connection that the entries affect.
struct Uses {
    upgrades: bool,
    sent: bool,
    received: bool,
    /// Entries that apply to every open connection: settings and needs of the upgrade.
    connection: Vec<usize>,
}

impl Translation {
    /// Returns `None` for a hub without deviations. `epoch_ms` is the Unix time at the origin of the run.
    pub fn new(deviations: &Arc<Deviations>, pack: &Arc<Pack>, shard: usize, epoch_ms: i64) -> Option<Self> {
        if deviations.is_empty() {
            return None;
        }
        // Ids that expressions make must differ between shards and runs.
        let world = Arc::new(World::new(format!("load{epoch_ms}x{shard}")));
        let mut translation = Self {
            deviations: Arc::clone(deviations),
            pack: Arc::clone(pack),
            world,
            epoch_ms,
            uses: Uses::new(deviations),
            greetings: None,
            assumed: Vec::new(),
            seen: Seen::new(),
        };
        let constant = deviations.entries().iter().all(|entry| match &entry.change {
            Change::Absent { after: After::Connection, assume, .. } => assume.is_constant(),
            _ => true,
        });
        translation.greetings = constant.then(|| translation.absent_after_connection());
        Some(translation)
    }

    /// Whether messages have to pass through [`Translation::sent`].
    pub fn is_about_sent(&self) -> bool {
        self.uses.sent
    }

    /// Returns a text in the form that the hub wants, if that differs, and the documented texts that this hub never
    /// sends after it.
    pub fn sent(&mut self, slot: u32, text: &[u8], now: Nanos) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
        let Ok(json) = serde_json::from_slice::<Value>(text) else { return (None, Vec::new()) };
        self.set_time(now);
        let of_hub = self.deviations.sent(&self.pack, &json, &self.world);
        // Sending a message as declared is not an observation, unless the hub never sends such a message itself.
        for index in of_hub.iter().flat_map(|translated| &translated.by) {
            if self.deviations.is_only_sent(&self.pack, *index) {
                self.observed(*index);
            }
        }
        let absent = self.deviations.absent_after(&self.pack, &json, &self.world);
        // An answer that comes from now on may answer this message.
        let entries = self.deviations.entries();
        if let Some(assumed) = self.assumed.get_mut(slot as usize) {
            assumed.retain(|index| entries[*index].is_absent_after(After::Connection));
        }
        let absent: Vec<(usize, Vec<u8>)> = absent.into_iter().map(|(index, json)| (index, bytes(&json))).collect();
        self.assume(slot, &absent);
        (of_hub.map(|translated| bytes(&translated.json)), absent.into_iter().map(|(_, text)| text).collect())
    }

    /// Returns a received text in its documented form; `None` if it has that form already.
    pub fn received(&mut self, slot: u32, text: &[u8], now: Nanos) -> Option<Vec<u8>> {
        let assumed = self.assumed.get(slot as usize).is_some_and(|assumed| !assumed.is_empty());
        if !self.uses.received && !assumed {
            return None;
        }
        let json = serde_json::from_slice::<Value>(text).ok()?;
        self.set_time(now);
        let translated = self.deviations.received(&self.pack, &json, &self.world);
        let by = translated.as_ref().map_or(&[][..], |translated| &translated.by);
        let documented = translated.as_ref().map_or(&json, |translated| &translated.json);
        self.deviations.count(&self.pack, documented, by, &self.world, &mut self.seen);
        if assumed {
            self.not_absent(slot, documented);
        }
        translated.map(|translated| bytes(&translated.json))
    }

    /// Counts an opened connection; returns the documented texts that this hub never sends after it opens.
    pub fn opened(&mut self, slot: u32, now: Nanos) -> Vec<Vec<u8>> {
        self.set_time(now);
        for index in 0..self.uses.connection.len() {
            self.observed(self.uses.connection[index]);
        }
        if let Some(assumed) = self.assumed.get_mut(slot as usize) {
            assumed.clear();
        }
        let absent = self.greetings.clone().unwrap_or_else(|| self.absent_after_connection());
        self.assume(slot, &absent);
        absent.into_iter().map(|(_, text)| text).collect()
    }

    /// Returns the dial with the additions that the upgrade needs; `None` if there are none.
    pub fn upgrade(&self, dial: &Dial) -> Option<Dial> {
        self.uses.upgrades.then(|| {
            let mut dial = dial.clone();
            self.deviations.upgrade(&mut dial);
            dial
        })
    }

    /// Returns how often each entry was observed.
    pub fn into_seen(self) -> Seen {
        self.seen
    }

    fn set_time(&self, now: Nanos) {
        self.world.set_now_ms(self.epoch_ms.saturating_add((now / 1_000_000) as i64));
    }

    fn absent_after_connection(&self) -> Vec<(usize, Vec<u8>)> {
        let absent = self.deviations.absent_after_connection(&self.pack, &self.world);
        absent.into_iter().map(|(index, json)| (index, bytes(&json))).collect()
    }

    fn observed(&mut self, index: usize) {
        self.seen.entry(index).or_default().observed += 1;
    }

    fn assume(&mut self, slot: u32, absent: &[(usize, Vec<u8>)]) {
        if absent.is_empty() {
            return;
        }
        let slot = slot as usize;
        if self.assumed.len() <= slot {
            self.assumed.resize_with(slot + 1, Vec::new);
        }
        for (index, _) in absent {
            self.observed(*index);
            self.assumed[slot].push(*index);
        }
    }

    /// Counts a message that an entry says never comes.
    ///
    /// A message declared absent after another one is counted until the client sends again, since it may then answer
    /// the later request; one declared absent after the connection is counted only if it comes first.
    fn not_absent(&mut self, slot: u32, json: &Value) {
        let entries = self.deviations.entries();
        let assumed = &mut self.assumed[slot as usize];
        let is_it = |index: &usize| {
            entries[*index].message().is_some_and(|message| self.pack.messages[message].matcher.fits(json))
        };
        if let Some(place) = assumed.iter().position(is_it) {
            let Sightings { contradicted, .. } = self.seen.entry(assumed.remove(place)).or_default();
            *contradicted += 1;
        }
        assumed.retain(|index| !entries[*index].is_absent_after(After::Connection));
    }
}

impl Uses {
    fn new(deviations: &Deviations) -> Self {
        let mut uses = Self { upgrades: false, sent: false, received: false, connection: Vec::new() };
        for (index, entry) in deviations.entries().iter().enumerate() {
            match &entry.change {
                Change::Upgrade { .. } | Change::Setting { .. } => uses.connection.push(index),
                Change::Absent { after, .. } => uses.sent |= *after != After::Connection,
                _ => {
                    uses.sent |= entry.way.to_hub;
                    uses.received |= entry.way.from_hub;
                }
            }
        }
        uses.upgrades = deviations.upgrades().next().is_some();
        uses
    }
}

fn bytes(json: &Value) -> Vec<u8> {
    // Cannot fail: the keys are texts.
    serde_json::to_vec(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::Run;
    use crate::syntax::yaml;

    fn translation(entries: &str) -> Translation {
        let Run { mut sources, pack, programs, .. } = Run::all_pass();
        let file = sources.add("hub.yaml", entries);
        let nodes = yaml::parse(&sources, file).unwrap();
        let read = Deviations::read(nodes.list().unwrap(), &pack, &programs[0].shared, false);
        Translation::new(&Arc::new(read.unwrap()), &pack, 0, 1_700_000_000_000).unwrap()
    }

    fn seen(translation: Translation) -> (usize, usize) {
        let seen = translation.into_seen().get(&0).copied().unwrap_or_default();
        (seen.observed, seen.contradicted)
    }

    #[test]
    fn what_applied_and_what_came_as_documented_is_counted() {
        let mut hub = translation("[{ reason: x, message: welcome, instead: { say: hi } }]");
        assert_eq!(hub.received(0, br#"{"say":"hi"}"#, 0).as_deref(), Some(&br#"{"say":"welcome"}"#[..]));
        assert!(hub.received(0, br#"{"say":"hi"}"#, 0).is_some());
        assert_eq!(hub.received(1, br#"{"say":"welcome"}"#, 0), None);
        assert_eq!(hub.received(1, br#"{"say":"echo","text":"x"}"#, 0), None);
        assert_eq!(seen(hub), (2, 1));
        // A deviation of messages that are only sent is observed whenever one is sent.
        let mut hub = translation("[{ reason: x, message: hello, member: /name, renamed: /guest }]");
        let (of_hub, absent) = hub.sent(0, br#"{"say":"hello","name":"anna"}"#, 0);
        assert_eq!(of_hub.as_deref(), Some(&br#"{"say":"hello","guest":"anna"}"#[..]));
        assert!(absent.is_empty());
        assert_eq!(seen(hub), (1, 0));
        let mut hub = translation("[{ reason: x, setting: secret, value: chair }]");
        assert_eq!(hub.opened(0, 0), Vec::<Vec<u8>>::new());
        assert!(!hub.is_about_sent());
        assert_eq!(hub.received(0, br#"{"say":"welcome"}"#, 0), None);
        assert_eq!(seen(hub), (1, 0));
    }

    #[test]
    fn an_absent_message_that_comes_after_all_is_counted_as_documented() {
        let absent = "[{ reason: x, message: welcome, absent: true, after: hello }]";
        let mut hub = translation(absent);
        for slot in 0..3 {
            assert_eq!(hub.sent(slot, br#"{"say":"hello"}"#, 0).1.len(), 1);
        }
        hub.received(0, br#"{"say":"welcome"}"#, 0);
        // Only the first one counts.
        hub.received(0, br#"{"say":"welcome"}"#, 0);
        // This one may answer the last message sent.
        hub.sent(1, br#"{"say":"bye"}"#, 0);
        hub.received(1, br#"{"say":"welcome"}"#, 0);
        assert_eq!(seen(hub), (3, 1));
        let mut hub = translation(&absent.replace("after: hello", "after: connection"));
        for slot in 0..2 {
            assert_eq!(hub.opened(slot, 0).len(), 1);
            hub.sent(slot, br#"{"say":"hello"}"#, 0);
        }
        hub.received(0, br#"{"say":"welcome"}"#, 0);
        // A greeting would have come first.
        hub.received(1, br#"{"say":"echo"}"#, 0);
        hub.received(1, br#"{"say":"welcome"}"#, 0);
        assert_eq!(seen(hub), (2, 1));
    }

    #[test]
    fn expressions_know_the_time() {
        let mut hub =
            translation("[{ reason: x, message: welcome, member: /at, missing: true, assume: '${now_ms()}' }]");
        let text = hub.received(0, br#"{"say":"welcome"}"#, 2_500_000_000).unwrap();
        assert_eq!(text, br#"{"say":"welcome","at":1700000002500}"#);
    }
}
