//! The fault matrix: which faults break which rules, and which checks find that.
//!
//! * `cargo run --example matrix` prints it for all protocols that have scenarios.
//! * `cargo run --example matrix concierge` lists its gaps, for work on scenarios: undetected faults, rules that fail
//!   because of a fault of another rule, declared rules that no check finds broken, checks that no fault breaks.
//! * `cargo run --example matrix concierge seq` also lists all findings for faults whose ids contain `seq`.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/breakable_checks.rs"]
mod breakable_checks;
#[path = "../tests/support/disk.rs"]
#[allow(dead_code)]
mod disk;
#[path = "../tests/support/fault_matrix.rs"]
#[allow(dead_code)]
mod fault_matrix;
#[path = "../tests/support/sim_connection/mod.rs"]
#[allow(dead_code)]
mod sim_connection;

use fault_matrix::{FaultMatrix, MatrixDepth};

const INTRODUCTION: &str = "\
# The fault matrix

Every scenario is played against a hub with each of the reference server's faults, without sockets. A rule is proven
when a check at the rule's own level finds it broken; a rule that only allows something is proven when the result of its
check differs from that on a correct hub. The tests check that no check blames a rule that the fault does not break,
and that every check fails for some fault.
";

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next() {
        None => render(),
        Some(protocol) => show(&protocol, args.next().as_deref()),
    }
}

fn render() {
    print!("{INTRODUCTION}");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = hubproof_reference::protocols().to_vec();
    names.retain(|name| root.join("scenarios").join(name).is_dir());
    for name in names {
        print!("\n{}", FaultMatrix::play(name, MatrixDepth::Full, &|_| true).markdown());
    }
}

fn show(protocol: &str, part: Option<&str>) {
    let matrix =
        FaultMatrix::play(protocol, MatrixDepth::Full, &|fault| part.is_none_or(|part| fault.id.contains(part)));
    print!("{}", matrix.complaints());
    for case in &matrix.cases {
        let idle: Vec<_> =
            case.fault.rules.iter().filter(|rule| !case.within.iter().any(|seen| seen.rule == **rule)).collect();
        if !idle.is_empty() {
            println!("IDLE {} {idle:?}: {}", case.fault.id, case.fault.text);
        }
        if part.is_some() {
            println!("{}: {}", case.fault.id, case.fault.text);
            case.within.iter().for_each(|seen| println!("  {} {}", seen.rule, seen));
            case.undecided.iter().for_each(|why| println!("  undecided: {why}"));
        }
    }
    println!("{}", matrix.summary_line());
    if part.is_none() {
        for id in matrix.unproven() {
            let rule = &matrix.protocol.pack.rules[id];
            println!("  unproven: {id} ({}, {}) {}", rule.level.name(), rule.basis.name(), rule.text);
        }
        for place in matrix.unbroken() {
            println!("  unbroken: {place}");
        }
    }
}
