//! At least 95 % of the computed changes are detected, and no exemption is stale.

use crate::support::disk;
use crate::support::evidence;
use crate::support::mutation_detection::{ChangeDetection, measurable_protocols};
use crate::support::test_each_protocol;

/// In percent. The report lists the undetected changes.
const MIN_DETECTED_PERCENT: f64 = 95.0;

test_each_protocol!(checks_detect_enough_of_the_relays_changes, assert_enough_changes_made_by_the_relay_are_detected);

fn assert_enough_changes_made_by_the_relay_are_detected(name: &str) {
    let detection = ChangeDetection::measure(name);
    println!("{}", detection.summary_line());
    assert_eq!(detection.stale(), [""; 0], "tests/fixtures/detection.toml: changes that are detected or never applied");
    assert!(
        detection.detected_percent() >= MIN_DETECTED_PERCENT,
        "{}\n{:#?}",
        detection.summary_line(),
        detection.gaps()
    );
    let noticed = format!("{:.1} %", detection.detected_percent());
    evidence::assert_cells(name, 9, &[noticed]);
}

#[test]
fn detection_of_changes_is_measured_for_every_protocol() {
    let mut known = measurable_protocols();
    known.sort_unstable();
    assert_eq!(known, disk::protocols_with_messages());
}
