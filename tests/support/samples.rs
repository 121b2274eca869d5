//! Tables of texts in tests/fixtures: each entry is a line `=== TITLE`, and a text up to the next one.

/// Returns the titles and texts of a table.
pub fn samples(table: &str) -> impl Iterator<Item = (&str, &str)> {
    let entries = table.split("=== ").skip(1);
    entries.map(|entry| entry.split_once('\n').expect("a title has a line of its own"))
}
