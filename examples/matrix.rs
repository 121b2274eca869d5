//! Shows the fault matrix of a protocol while its scenarios are written: `cargo run --example matrix -- qi [FAULT]`.
//! With a part of a fault's name, everything that the checks said about hubs with that fault.
#![allow(clippy::unwrap_used)]

#[path = "../tests/matrix.rs"]
#[allow(dead_code)]
mod matrix;
#[path = "../tests/on_disk.rs"]
#[allow(dead_code)]
mod on_disk;
#[path = "../tests/virtual_wire.rs"]
#[allow(dead_code)]
mod virtual_wire;

fn main() {
    let mut args = std::env::args().skip(1);
    let protocol = args.next().expect("the name of a protocol");
    let part = args.next();
    let matrix = matrix::Matrix::play(&protocol, &|fault| part.as_ref().is_none_or(|part| fault.id.contains(&**part)));
    print!("{}", matrix.complaints());
    for case in &matrix.cases {
        let seen = |rule: &str| case.within.iter().any(|seen| seen.rule == rule);
        let idle: Vec<_> = case.fault.rules.iter().filter(|rule| !seen(rule)).collect();
        if !idle.is_empty() {
            println!("IDLE {} {idle:?}: {}", case.fault.id, case.fault.text);
        }
        if part.is_some() {
            println!("{} {:?}", case.fault.id, case.fault.text);
            case.within.iter().for_each(|seen| println!("  {} {}", seen.rule, seen));
            case.undecided.iter().for_each(|why| println!("  undecided {why}"));
        }
    }
    println!("{}", matrix.numbers());
    let rules = &matrix.protocol.pack.rules;
    for id in matrix.unproven() {
        let rule = &rules[id];
        println!("  unproven {id} {} {}: {}", rule.level.name(), rule.basis.name(), rule.text);
    }
}
