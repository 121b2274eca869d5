//! The packs of the repository: every example is valid, and every schema is exactly as strict as its document: it
//! rejects all mutants, and only warns about mere suggestions.

use std::fs;

use hubproof::protocol::FrameDirection;
use serde_json::{Value, json};

use crate::conformance::payload_mutants::{self, NamedPayload};
use crate::support::disk;

#[test]
fn every_example_is_valid_and_recognised() {
    for protocol in disk::protocols_with_messages() {
        let pack = disk::pack(&protocol);
        for message in &pack.messages {
            let example = message.schema.example.as_ref().unwrap();
            assert_eq!(
                message.schema.violations(example).into_iter().filter(|v| !v.should).collect::<Vec<_>>(),
                [],
                "{protocol}/{}",
                message.name
            );
            let ways: Vec<FrameDirection> = [FrameDirection::ToHub, FrameDirection::FromHub]
                .into_iter()
                .filter(|way| message.can_go(*way))
                .collect();
            assert!(!ways.is_empty(), "{protocol}/{} goes nowhere", message.name);
            for way in ways {
                let found = pack.recognise(example, way).map(|m| m.name.as_str());
                assert_eq!(found, Some(message.name.as_str()), "{protocol}/{} {way:?}", message.name);
            }
        }
    }
}

#[test]
fn payload_facts_match_the_messages_and_examples_of_packs() {
    for protocol in disk::protocols_with_messages() {
        let pack = disk::pack(&protocol);
        let mut in_pack: Vec<&str> = pack.messages.iter().map(|m| m.name.as_str()).collect();
        let facts = payload_mutants::facts(&protocol);
        let mut in_facts: Vec<&str> = facts.iter().map(|f| f.name.as_str()).collect();
        in_pack.sort_unstable();
        in_facts.sort_unstable();
        assert_eq!(in_pack, in_facts, "{protocol}");
        for facts in &facts {
            let schema = &pack.message(&facts.name).unwrap().schema;
            assert_eq!(schema.documented, !facts.example.is_null(), "{protocol}/{}", facts.name);
            if schema.documented {
                assert_eq!(schema.example.as_ref(), Some(&facts.example), "{protocol}/{}", facts.name);
            }
        }
    }
}

/// With `HUBPROOF_MUTANTS=FILE` every payload is written to FILE, for a second validator.
#[test]
fn every_payload_that_breaks_a_requirement_is_rejected() {
    let mut cases: Vec<Value> = Vec::new();
    let mut wrong: Vec<String> = Vec::new();
    for protocol in disk::protocols_with_messages() {
        let pack = disk::pack(&protocol);
        let (mut valid_count, mut mutant_count) = (0, 0);
        for facts in payload_mutants::facts(&protocol) {
            let message = pack.message(&facts.name).unwrap();
            let schema = &message.schema;
            let example = schema.example.as_ref().unwrap();
            let mut case = |NamedPayload { mutation, payload }: NamedPayload, valid: bool| {
                let broken: Vec<_> =
                    schema.violations(&payload).into_iter().filter(|violation| !violation.should).collect();
                if schema.is_valid(&payload) != valid || broken.is_empty() != valid {
                    let verdict = if valid { "refused" } else { "accepted" };
                    wrong.push(format!("{protocol}/{} {verdict}: {mutation}: {payload}", facts.name));
                }
                // An invalid message of a hub must break a rule.
                for violation in
                    broken.iter().filter(|violation| violation.rules.is_empty() && message.directions.from_hub)
                {
                    wrong.push(format!("{protocol}/{} names no rule at {}: {mutation}", facts.name, violation.path));
                }
                cases.push(json!({ "protocol": protocol, "message": facts.name, "mutation": mutation, "payload": payload, "valid": valid }));
            };
            let valid = facts.valid_payloads(example);
            let mutants = facts.mutants(example);
            assert!(!mutants.is_empty(), "{protocol}/{} has no mutant", facts.name);
            valid_count += valid.len();
            mutant_count += mutants.len();
            valid.into_iter().for_each(|payload| case(payload, true));
            mutants.into_iter().for_each(|payload| case(payload, false));
        }
        println!("{protocol}: {} messages, {valid_count} valid payloads, {mutant_count} mutants", pack.messages.len());
        assert!(mutant_count > valid_count, "{protocol}");
    }
    if let Some(file) = std::env::var_os("HUBPROOF_MUTANTS") {
        fs::write(&file, serde_json::to_string(&cases).unwrap()).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tolerated_readings_of_an_ambiguous_document_only_warn() {
    let mut seen = 0;
    for protocol in disk::protocols_with_messages() {
        let pack = disk::pack(&protocol);
        for facts in payload_mutants::facts(&protocol) {
            let schema = &pack.message(&facts.name).unwrap().schema;
            for NamedPayload { mutation, payload } in facts.tolerated_payloads(schema.example.as_ref().unwrap()) {
                let violations = schema.violations(&payload);
                let warns = !violations.is_empty()
                    && violations.iter().all(|violation| violation.should && !violation.rules.is_empty());
                assert!(warns, "{protocol}/{} {mutation}: {violations:?}", facts.name);
                seen += 1;
            }
        }
    }
    assert!(seen > 0);
}
