//! The fault matrix is complete: every fault is detected, every rule and every check fails for some fault, and a
//! missing required member is always detected. Of large protocols, only the thorough tier plays every fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use hubproof::outcome::Verdict;
use hubproof::protocol::FrameDirection;
use hubproof_reference::fault::injector::conditions_hold;
use hubproof_reference::fault::{ChangeAction, ChangeSubject, FaultEffect, OutputChange};
use hubproof_reference::{Fault, faults};
use rstest::rstest;
use serde_json::Value;

use crate::conformance::payload_mutants;
use crate::support::disk::protocol_name;
use crate::support::evidence;
use crate::support::fault_matrix::{FaultMatrix, MatrixDepth};
use crate::support::sim_connection::SimulatedProtocol;

#[rstest]
fn a_correct_hub_passes_and_every_check_is_evaluated(#[files("schemas/*/asyncapi.yaml")] name: PathBuf) {
    let name = &*protocol_name(&name);
    let protocol = SimulatedProtocol::load(name);
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
fn checks_name_at_most_three_rules_and_every_rule_has_a_check_or_reason(
    #[files("schemas/*/asyncapi.yaml")] name: PathBuf,
) {
    let name = &*protocol_name(&name);
    let protocol = SimulatedProtocol::load(name);
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

/// How many faults of each family are played of a large protocol.
const FAULTS_PER_FAMILY: usize = 4;

/// Returns how the fault is made: by the machine itself, by a reaction to input, or by a change of this kind to the output.
fn fault_family(fault: &Fault) -> String {
    let effect = match &fault.effect {
        FaultEffect::Outside([change, ..]) => format!("{:?}", change.act),
        effect => format!("{effect:?}"),
    };
    effect.split(|letter: char| !letter.is_alphanumeric()).next().unwrap().to_owned()
}

#[rstest]
fn faults_of_each_family_are_found(#[values("airavata", "concierge", "emprops")] name: &str) {
    let mut families: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for fault in faults().filter(|fault| fault.protocol == name && !fault.is_for_fuzzing()) {
        families.entry(fault_family(fault)).or_default().push(fault.id);
    }
    let sample: BTreeSet<&str> =
        families.values().flat_map(|ids| ids.iter().step_by(ids.len().div_ceil(FAULTS_PER_FAMILY)).copied()).collect();
    assert!(families.len() > 9 && sample.len() > 2 * families.len(), "{families:?}");
    let matrix = FaultMatrix::play(name, MatrixDepth::UntilKilled, &|fault| sample.contains(fault.id));
    println!("{}", matrix.summary_line());
    assert_eq!(matrix.complaints(), "");
}

#[rstest]
fn every_fault_and_every_broken_rule_is_found(
    #[files("schemas/*/asyncapi.yaml")]
    #[exclude("/(airavata|concierge|emprops)/")]
    name: PathBuf,
) {
    assert_all_faults_and_rules_found(&protocol_name(&name));
}

#[rstest]
#[ignore = "thorough: many minutes of CPU"]
fn every_fault_and_every_broken_rule_of_a_large_protocol_is_found(
    #[values("airavata", "concierge", "emprops")] name: &str,
) {
    assert_all_faults_and_rules_found(name);
}

/// Plays each fault until it is found; the full matrix is in the thorough tier.
fn assert_all_faults_and_rules_found(name: &str) {
    let matrix = FaultMatrix::play(name, MatrixDepth::UntilFound, &|_| true);
    assert_matrix_has_no_gaps(&matrix);
    let pack = &matrix.protocol.pack;
    let killed = matrix.cases.iter().filter(|case| case.is_killed()).count();
    let untestable = pack.rules.values().filter(|rule| rule.out_of_scope.is_some()).count();
    let mut cells = vec![pack.title.clone()];
    let scenarios = matrix.protocol.scenarios.programs.len();
    let [messages, rules, proven, faults] =
        [pack.messages.len(), pack.rules.len(), matrix.proofs().len(), matrix.cases.len()];
    let counts = [messages, scenarios, rules, untestable, proven, faults, killed];
    cells.extend(counts.map(|count| count.to_string()));
    evidence::assert_cells(name, 1, &cells);
}

/// Every fault fails checks of its own rules and no others, in all scenarios; every check fails for some fault.
#[rstest]
#[ignore = "thorough: many minutes of CPU"]
fn every_fault_fails_exactly_its_own_rules(#[files("schemas/*/asyncapi.yaml")] name: PathBuf) {
    let matrix = FaultMatrix::play(&protocol_name(&name), MatrixDepth::Full, &|_| true);
    assert_matrix_has_no_gaps(&matrix);
    let nothing = BTreeSet::<String>::new();
    assert_eq!(matrix.unbroken(), nothing, "checks that no fault breaks: add the fault, or remove the check");
}

fn assert_matrix_has_no_gaps(matrix: &FaultMatrix) {
    println!("{}", matrix.summary_line());
    assert_eq!(matrix.complaints(), "");
    let nothing = BTreeSet::<String>::new();
    assert_eq!(matrix.unproven(), [""; 0], "rules that no check has found broken");
    assert_eq!(undetected_member_removals(matrix), nothing, "required members that no fault removes or retypes");
}

/// Returns required members of the hub's messages for which no detected fault removes the member, or none changes its
/// type.
fn undetected_member_removals(matrix: &FaultMatrix) -> BTreeSet<String> {
    let pack = &matrix.protocol.pack;
    let mut missing = BTreeSet::new();
    if pack.messages.is_empty() {
        return missing;
    }
    for facts in payload_mutants::facts(&pack.name) {
        let Some(message) = pack.message(&facts.name).filter(|message| message.can_go(FrameDirection::FromHub)) else {
            continue;
        };
        let example = message.starting_value();
        for path in facts.required_paths() {
            let does = |wanted: fn(&ChangeAction, &str) -> bool| {
                matrix.cases.iter().filter(|case| case.is_killed()).any(|case| match case.fault.effect {
                    FaultEffect::Outside(changes) => {
                        changes.iter().any(|change| wanted(&change.act, path) && change_applies_to(change, &example))
                    }
                    FaultEffect::Inside | FaultEffect::OnInput(_) => false,
                })
            };
            if !does(|act, path| matches!(act, ChangeAction::Remove(at) | ChangeAction::Rename(at, _) if at == path)) {
                missing.insert(format!("{} {path} is never left out", message.name));
            }
            if !facts.allows_any_value(path)
                && !does(
                    |act, path| matches!(act, ChangeAction::Retype(at) | ChangeAction::Set(at, _) | ChangeAction::Fill(at, _) if at == path),
                )
            {
                missing.insert(format!("{} {path} is never of another type", message.name));
            }
        }
    }
    missing
}

/// Whether a change applies to a message like this one.
fn change_applies_to(change: &OutputChange, example: &Value) -> bool {
    let ChangeSubject::Frame(conditions) = &change.subject else { return false };
    conditions_hold(conditions, Some(example))
}
