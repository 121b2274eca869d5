//! Checks a protocol's rules about WebSocket itself: about upgrades, and about every frame, valid or broken.

use std::sync::Arc;

use serde_json::Value;

use crate::interpreter::Conversation;
use crate::interpreter::checks::{ALWAYS_STEP, compare};
use crate::interpreter::finding::ComparisonOutcome;
use crate::outcome::FrameKind;
use crate::scenario::model::{ActorId, AlwaysEntry};
use crate::scenario::value::Traced;

impl Conversation {
    /// Checks a valid frame or an assembled message; `size` is the size of its payload in bytes.
    pub(in crate::interpreter) fn judge_frame(&mut self, id: ActorId, kind: FrameKind, size: usize) {
        // Few protocols have such rules, and there may be many frames.
        if self.program.always.iter().any(|entry| matches!(entry, AlwaysEntry::Wire { .. })) {
            self.judge_wire(id, &serde_json::json!({ "kind": kind.name(), "size": size }), false);
        }
    }

    /// Checks the answer to an upgrade, or a frame after it, against the entries of `always`. Returns whether one of
    /// them fails.
    pub(in crate::interpreter) fn judge_wire(&mut self, id: ActorId, what: &Value, upgrade: bool) -> bool {
        let program = Arc::clone(&self.program);
        let mut blamed = false;
        for entry in &program.always {
            let (check, pattern) = match entry {
                AlwaysEntry::Upgrade { check, pattern } if upgrade => (check, pattern),
                AlwaysEntry::Wire { check, pattern } if !upgrade => (check, pattern),
                _ => continue,
            };
            let finding = compare(pattern, Traced::observed(what), &self.eval_context(Some(id)));
            blamed |= matches!(finding, ComparisonOutcome::Broken { .. });
            self.record_outcome(*check, ALWAYS_STEP, Some(id), "", finding);
        }
        blamed
    }
}
