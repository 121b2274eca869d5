//! Measures how many changes of a hub's frames the scenarios detect.
//!
//! * `cargo run --release --example detection` prints it for all protocols with messages.
//! * `cargo run --example detection concierge` lists the undetected changes, for work on scenarios.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/disk.rs"]
#[allow(dead_code)]
mod disk;
#[path = "../tests/support/mutation_detection.rs"]
#[allow(dead_code)]
mod mutation_detection;
#[path = "../tests/support/sim_connection/mod.rs"]
#[allow(dead_code)]
mod sim_connection;

use mutation_detection::{ChangeDetection, measurable_protocols, other_change_outcomes};

const INTRODUCTION: &str = "\
# Computed changes that checks notice

In addition to the faults written by hand, every fact that a pack states about a hub's messages is broken, one at a
time, in the frames of a correct reference server, and every scenario is played against it. The changes are computed
from the schemas and AsyncAPI documents: each member that is required, has one value or a few, or repeats an id is
removed, retyped and altered in every frame of its message; the frames of each message are dropped and doubled: all of
them, only the first on a hub, or only the second. A change is noticed if a check or a schema finds an error; a change
that breaks a must has to cause a failure, and an inconclusive scenario does not count. `tests/fixtures/detection.toml`
lists the changes that need not be noticed, with the reason. `cargo test` checks that no exemption is stale and that at
least 95 % of the other changes are noticed. `hubproof relay` makes the same changes to any hub.
";

const OTHER_CHANGES_INTRODUCTION: &str = "
## Other changes

These do not count towards the share: a frame that is late or out of order may still be correct, and most single frames
belong to the setup of a scenario, where a missing answer makes it inconclusive and accuses no one.
";

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if !names.is_empty() {
        return names.iter().for_each(|name| show(name));
    }
    print!("{INTRODUCTION}");
    let mut rest = OTHER_CHANGES_INTRODUCTION.to_owned();
    for name in measurable_protocols() {
        let detection = ChangeDetection::measure(name);
        print!("\n{}", detection.markdown());
        rest += &format!("\n{name}:\n\n{}", other_change_outcomes(&detection.sent));
    }
    print!("{rest}");
}

fn show(protocol: &str) {
    let detection = ChangeDetection::measure(protocol);
    println!("{}", detection.summary_line());
    detection.gaps().iter().for_each(|gap| println!("  survives: {gap}"));
    detection.stale().iter().for_each(|name| println!("  stale exemption: {name}"));
}
