//! At least 95 % of the computed changes are noticed, and no exemption is stale.

use rstest::rstest;

use crate::support::disk;
use crate::support::mutation_detection::{Detection, measurable};

/// In percent. What is missing from the whole is listed in the report.
const ENOUGH: f64 = 95.0;

#[rstest]
fn computed_changes_are_noticed(#[values("airavata", "concierge", "emprops", "gator", "qi")] name: &str) {
    let detection = Detection::measure(name);
    println!("{}", detection.numbers());
    assert_eq!(detection.stale(), [""; 0], "tests/fixtures/detection.toml: these are noticed, or do not happen");
    assert!(detection.share() >= ENOUGH, "{}\n{:#?}", detection.numbers(), detection.gaps());
    let report = std::fs::read_to_string(disk::root().join("reports/detection.md")).unwrap();
    assert!(
        report.contains(&detection.markdown()),
        "stale: cargo run --release --example detection > reports/detection.md"
    );
}

#[test]
fn every_protocol_is_measured() {
    let mut known = measurable();
    known.sort_unstable();
    assert_eq!(known, ["airavata", "concierge", "emprops", "gator", "qi"]);
}
