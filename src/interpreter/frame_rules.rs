//! Judges what lies below messages, where a protocol has rules about it: upgrades, and every frame, right or wrong.

use std::sync::Arc;

use serde_json::Value;

use super::Conversation;
use super::finding::Finding;
use crate::scenario::model::{ActorId, Always};

impl Conversation {
    /// A frame, or a message of several, that is as RFC 6455 has it; `size` is that of its payload in bytes.
    pub(super) fn judge_frame(&mut self, id: ActorId, kind: &str, size: usize) {
        // Few protocols ask, and there may be a flood of them.
        if self.program.always.iter().any(|entry| matches!(entry, Always::Wire { .. })) {
            self.judge_wire(id, &serde_json::json!({ "kind": kind, "size": size }), false);
        }
    }

    /// An answer to an upgrade, or whatever came after it, under `always`; whether a check of the protocol's own blames
    /// the hub for it.
    pub(super) fn judge_wire(&mut self, id: ActorId, what: &Value, upgrade: bool) -> bool {
        let program = Arc::clone(&self.program);
        let mut blamed = false;
        for entry in &program.always {
            let (check, pattern) = match entry {
                Always::Upgrade { check, pattern } if upgrade => (check, pattern),
                Always::Wire { check, pattern } if !upgrade => (check, pattern),
                _ => continue,
            };
            let finding = self.compare(pattern, what, &self.names(Some(id)));
            blamed |= matches!(finding, Finding::Broken { .. });
            self.note(*check, "always", Some(id), "", finding);
        }
        blamed
    }
}
