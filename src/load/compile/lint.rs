//! Reports which expressions of a plan are not constants or slots, and when each of them is evaluated.

use super::program::CompiledPlan;
use crate::syntax::source::Sources;

/// Returns a line for each expression that is evaluated during the run, with its place.
pub fn lint(prepared: &CompiledPlan, sources: &Sources) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for remark in &prepared.remarks {
        let line = format!("{}: {}", sources.path_and_line(remark.span), remark.text);
        // A repeated block or a scene played twice reports it once.
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}
