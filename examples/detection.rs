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
# What is noticed of computed changes

Besides the faults that were made by hand, everything that the packs state of a hub's messages is spoiled, one thing at a
time, in what a correct reference server says, and every scenario is played against it. What is changed is computed from
schemas and AsyncAPI documents: every member that is required, has one value or a few, or repeats an id, is removed,
retyped and altered in each frame of its message; and the frames of each message are dropped and doubled: all of them, only
the first on a hub, only the second. Noticed means that a check or a schema finds something wrong, by failing where a must is
spoiled; inconclusive is not enough. What is exempt need not be noticed, with its reason, in `tests/fixtures/detection.toml`;
`cargo test` holds that no exemption is stale and that at least 95 % of the rest is noticed. `hubproof relay` does the
same to any hub.
";

const OTHER_CHANGES_INTRODUCTION: &str = "
## Beside that

No part of the share: what only comes late or in another order may still be right, and of frames one by one most
belong to the preparations of a scenario, where a missing answer leaves it inconclusive and accuses nobody.
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
