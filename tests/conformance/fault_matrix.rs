//! The fault matrix is complete: every fault is detected, every rule and every check fails for some fault, and a
//! missing required member is always detected.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use hubproof::event::Verdict;
use hubproof::protocol::Way;
use hubproof_reference::fault::injector::holds;
use hubproof_reference::fault::{Act, Change, Effect, Subject};
use rstest::rstest;
use serde_json::Value;

use crate::conformance::payload_mutants;
use crate::support::disk::protocol_name;
use crate::support::fault_matrix::Matrix;
use crate::support::sim_connection::Protocol;

#[rstest]
fn a_correct_hub_passes_and_every_check_is_evaluated(#[files("schemas/*/asyncapi.yaml")] name: PathBuf) {
    let name = &*protocol_name(&name);
    let protocol = Protocol::load(name);
    let mut wrong = String::new();
    for program in &protocol.scenarios.programs {
        let Some(report) = protocol.play(program, None) else {
            let _ = writeln!(wrong, "{}: no instance of reference.toml meets its needs", program.id);
            continue;
        };
        if !matches!(report.verdict, Verdict::Pass | Verdict::Info) || report.mistake.is_some() {
            let _ = writeln!(wrong, "{}: {} {:?}", report.id, report.verdict.name(), report.mistake);
        }
        for check in &report.checks {
            // Checks of `always` apply only if their frames arrive.
            let own = check.span.is_some_and(|span| span.file == report.span.file);
            let unasked = check.verdict == Verdict::NotTestable && own;
            if unasked || !matches!(check.verdict, Verdict::Pass | Verdict::Info | Verdict::NotTestable) {
                let _ = writeln!(wrong, "{} [{}] {}: {}", report.id, check.verdict.name(), check.name, check.message);
            }
        }
    }
    assert_eq!(wrong, "");
}

/// A finding that names many rules is vague, and a rule without a check or a reason was forgotten.
#[rstest]
fn a_check_names_at_most_three_rules_and_every_rule_has_a_check_or_a_reason(
    #[files("schemas/*/asyncapi.yaml")] name: PathBuf,
) {
    let name = &*protocol_name(&name);
    let protocol = Protocol::load(name);
    let mut checked = BTreeSet::new();
    for program in &protocol.scenarios.programs {
        for check in &program.checks {
            assert!(check.rules.len() <= 3, "{}: {}", program.id, check.name);
        }
        checked.extend(program.proves());
    }
    let schemas = protocol.pack.messages.iter().map(|message| &message.schema);
    checked.extend(schemas.flat_map(|schema| schema.rules.iter().chain(&schema.should_rules)).map(String::as_str));
    let rules = protocol.pack.rules.values();
    let forgotten: Vec<_> = rules
        .filter(|rule| rule.out_of_scope.is_some() == checked.contains(rule.id.as_str()))
        .map(|rule| rule.id.as_str())
        .collect();
    assert_eq!(forgotten, [""; 0]);
}

/// Every fault fails checks of its own rules and no others; every rule and every check fails for some fault.
#[rstest]
fn every_fault_fails_exactly_its_own_rules(#[files("schemas/*/asyncapi.yaml")] name: PathBuf) {
    let name = &*protocol_name(&name);
    let matrix = Matrix::play(name, &|_| true);
    println!("{}", matrix.numbers());
    assert_eq!(matrix.complaints(), "");
    let nothing = BTreeSet::<String>::new();
    assert_eq!(matrix.unproven(), [""; 0], "rules that no check has found broken");
    assert_eq!(matrix.unbroken(), nothing, "checks that no fault breaks: add the fault, or remove the check");
    assert_eq!(unremoved(&matrix), nothing, "required members that no fault removes or retypes");
    let killed = matrix.cases.iter().filter(|case| case.is_killed()).count();
    let untestable = matrix.protocol.pack.rules.values().filter(|rule| rule.out_of_scope.is_some()).count();
    let computed = [untestable, matrix.proofs().len(), matrix.cases.len(), killed].map(|number| number.to_string());
    let shown = &crate::support::disk::evidence(name)[5..9];
    assert_eq!(*shown, computed, "not testable, proven, faults, killed; see `cargo run --example matrix {name}`");
}

/// Returns required members of the hub's messages for which no detected fault removes the member, or none changes its
/// type.
fn unremoved(matrix: &Matrix) -> BTreeSet<String> {
    let pack = &matrix.protocol.pack;
    let mut missing = BTreeSet::new();
    if pack.messages.is_empty() {
        return missing;
    }
    for facts in payload_mutants::facts(&pack.name) {
        let Some(message) = pack.message(&facts.name).filter(|message| message.goes(Way::FromHub)) else { continue };
        let example = message.template();
        for path in facts.demanded() {
            let does = |wanted: fn(Act, &str) -> bool| {
                matrix.cases.iter().filter(|case| case.is_killed()).any(|case| match case.fault.effect {
                    Effect::Outside(changes) => {
                        changes.iter().any(|change| wanted(change.act, path) && concerns(change, &example))
                    }
                    Effect::Inside | Effect::FuzzOnly(_) | Effect::FuzzOnlyInside => false,
                })
            };
            if !does(|act, path| matches!(act, Act::Remove(at) | Act::Rename(at, _) if at == path)) {
                missing.insert(format!("{} {path} is never left out", message.name));
            }
            if !facts.is_anything(path)
                && !does(|act, path| matches!(act, Act::Retype(at) | Act::Set(at, _) | Act::Fill(at, _) if at == path))
            {
                missing.insert(format!("{} {path} is never of another type", message.name));
            }
        }
    }
    missing
}

/// Whether a change applies to a message like this one.
fn concerns(change: &Change, example: &Value) -> bool {
    let Subject::Frame(conditions) = change.subject else { return false };
    holds(conditions, Some(example))
}
