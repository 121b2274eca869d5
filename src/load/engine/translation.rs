//! Applies the declared deviations of a hub to the texts of a load run.
//!
//! Only a hub with deviations pays for it: then each message is parsed and written anew.

use std::sync::Arc;

use serde_json::Value;

use crate::deviation::Deviations;
use crate::load::compile::program::Dial;
use crate::protocol::Pack;
use crate::scenario::functions::World;

pub struct Translation {
    deviations: Arc<Deviations>,
    pack: Arc<Pack>,
    world: Arc<World>,
}

impl Translation {
    /// Returns `None` for a hub without deviations.
    pub fn new(deviations: &Arc<Deviations>, pack: &Arc<Pack>) -> Option<Arc<Self>> {
        let world = Arc::new(World::new("load"));
        let translation = Self { deviations: Arc::clone(deviations), pack: Arc::clone(pack), world };
        (!deviations.is_empty()).then(|| Arc::new(translation))
    }

    /// Returns a text as the hub wants it, and the texts that never come after it.
    pub fn sent(&self, text: &[u8]) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
        let Ok(json) = serde_json::from_slice::<Value>(text) else { return (None, Vec::new()) };
        let of_hub = self.deviations.sent(&self.pack, &json, &self.world).map(|translated| bytes(&translated.json));
        let absent = self.deviations.absent_after(&self.pack, &json, &self.world);
        (of_hub, absent.iter().map(|(_, json)| bytes(json)).collect())
    }

    /// Returns a received text as the document has it; `None` where it is that already.
    pub fn received(&self, text: &[u8]) -> Option<Vec<u8>> {
        let json = serde_json::from_slice::<Value>(text).ok()?;
        self.deviations.received(&self.pack, &json, &self.world).map(|translated| bytes(&translated.json))
    }

    /// Returns the texts that never come after a connection has opened.
    pub fn absent_after_connection(&self) -> Vec<Vec<u8>> {
        self.deviations.absent_after_connection(&self.pack, &self.world).iter().map(|(_, json)| bytes(json)).collect()
    }

    /// Adds what the upgrade needs to a request that does not state it itself.
    pub fn upgrade(&self, dial: &mut Dial) {
        let Dial { headers, query, subprotocols, .. } = dial;
        self.deviations.upgrade(headers, &[], query, subprotocols);
    }
}

fn bytes(json: &Value) -> Vec<u8> {
    // Cannot fail: the keys are texts.
    serde_json::to_vec(json).unwrap_or_default()
}
