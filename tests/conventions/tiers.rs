//! The thorough tier of tests: CONTRIBUTING.md lists each reason for which a test is in it.

use std::collections::BTreeSet;
use std::fs;

use regex::Regex;

use crate::support::disk;

#[test]
fn contributing_lists_each_reason_for_an_ignored_test() {
    let ignored = Regex::new(r#"(?m)^\s*#\[ignore(?: = "(.*)")?\]"#).unwrap();
    let mut reasons = BTreeSet::new();
    for folder in ["src", "tests", "reference-server"] {
        for file in disk::files_under(&disk::root().join(folder))
            .iter()
            .filter(|file| file.extension().is_some_and(|end| end == "rs"))
        {
            for found in ignored.captures_iter(&fs::read_to_string(file).unwrap()) {
                let reason = found.get(1).map_or("", |reason| reason.as_str());
                let listed = reason.strip_prefix("thorough: ");
                reasons.insert(
                    listed.unwrap_or_else(|| panic!("{}: #[ignore] without a reason", file.display())).to_owned(),
                );
            }
        }
    }
    let page = fs::read_to_string(disk::root().join("CONTRIBUTING.md")).unwrap();
    let rows = Regex::new(r"(?m)^\| `([^`]+)` \| ").unwrap();
    let (_, page) = page.split_once("| reason | tests |").unwrap();
    let (page, _) = page.split_once("\n\n").unwrap();
    let listed: BTreeSet<String> = rows.captures_iter(page).map(|row| row[1].to_owned()).collect();
    assert_eq!(listed, reasons);
}
