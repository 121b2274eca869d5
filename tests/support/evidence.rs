//! The table of docs/src/evidence.md. Tests compute its cells; with `HUBPROOF_BLESS=1` they also write them.

use std::fs;
use std::sync::{Mutex, PoisonError};

use super::disk;

/// The command that writes the table.
const COMMAND: &str = "HUBPROOF_BLESS=1 cargo test --test it -- fault_matrix mutation_detection --include-ignored";

/// Asserts that a protocol's row has these cells, the first of them in the column `first`. The columns are: name,
/// document, messages, scenarios, rules, not testable, proven, faults, killed, share of the computed changes that are
/// detected.
pub fn assert_cells(protocol: &str, first: usize, computed: &[String]) {
    // Tests of several protocols write the page at the same time.
    static PAGE: Mutex<()> = Mutex::new(());
    let _turn = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = disk::root().join("docs/src/evidence.md");
    let page = fs::read_to_string(&path).unwrap();
    let row = page.lines().find(|line| line.starts_with(&format!("| {protocol} |")));
    let row = row.unwrap_or_else(|| panic!("docs/src/evidence.md has no row for {protocol}"));
    let mut cells: Vec<String> = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let shown: Vec<String> = cells.splice(first..first + computed.len(), computed.iter().cloned()).collect();
    if shown != computed && std::env::var_os("HUBPROOF_BLESS").is_some() {
        fs::write(&path, page.replace(row, &format!("| {} |", cells.join(" | ")))).unwrap();
        return;
    }
    assert_eq!(shown, computed, "{protocol}: docs/src/evidence.md has other numbers; to write them: {COMMAND}");
}
