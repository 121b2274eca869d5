//! What is worth knowing of a prepared plan before it runs: which of its expressions are more than a slot, and when each
//! of them is worked out.

use super::program::Prepared;
use crate::syntax::source::Sources;

/// A line for each expression that is worked out while the run goes on, with its place; none where all are slots.
pub fn lint(prepared: &Prepared, sources: &Sources) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for remark in &prepared.remarks {
        let line = format!("{}: {}", sources.place(remark.span), remark.text);
        // A block that is repeated, or a scene that is played twice, says it once.
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}
