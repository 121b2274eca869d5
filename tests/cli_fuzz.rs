//! `hubproof fuzz`: what it finds, what it says about it, and how it ends.

use rstest::rstest;

use crate::cli_process::hubproof;

#[rstest]
fn the_reference_server_stands(#[values("qi", "concierge", "airavata", "emprops", "gator")] protocol: &str) {
    let done = hubproof(["fuzz", "--protocol", protocol, "--cases", "60", "--seed", "3"]).ends_with(0);
    assert!(done.last_line().starts_with(&format!("PASS {protocol}: ")), "{}", done.out);
}
