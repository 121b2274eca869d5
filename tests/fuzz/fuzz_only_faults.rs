//! Faults that no scenario of `hubproof check` finds: some case finds each of them, under an oracle that it breaks.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hubproof::outcome::{ScenarioReport, Verdict};
use hubproof_reference::fault::FaultEffect;
use hubproof_reference::machine::{EventError, MachineInput, MachineOutput};
use hubproof_reference::{Fault, Machine, faults};
use rstest::rstest;
use serde_json::Value;

use crate::fuzz::cases::PlayableCases;
use crate::support::disk::{self, protocol_name};
use crate::support::sim_connection::{SendingManner, SimulatedProtocol};
use crate::support::test_each_protocol;

/// The number of cases within which each fault is found: less than a minute of a run.
pub const MAX_CASES: u64 = 15_000;

fn fuzz_only(protocol: &str) -> Vec<&'static Fault> {
    faults().filter(|fault| fault.protocol == protocol && fault.is_for_fuzzing()).collect()
}

#[test]
fn every_protocol_has_some_of_the_twenty_fuzz_only_faults() {
    let all: Vec<_> = faults().filter(|fault| fault.is_for_fuzzing()).collect();
    assert!(all.len() >= 20, "{}", all.len());
    let protocols: BTreeSet<_> = all.iter().map(|fault| fault.protocol).collect();
    assert_eq!(protocols.into_iter().collect::<Vec<_>>(), disk::protocols_with_messages());
}

test_each_protocol!(no_scenario_triggers_a_fuzz_only_fault, assert_no_scenario_triggers_a_fuzz_only_fault);

fn assert_no_scenario_triggers_a_fuzz_only_fault(name: &str) {
    let mut protocol = SimulatedProtocol::load(name);
    if name == "emprops" {
        // Sending ten megabytes many times would prove no more.
        protocol.set(Some("max_message_bytes"), "message_limit", 100_000);
        protocol.set(None, "chunks_above", 10_000);
    }
    let mut seen = String::new();
    for fault in fuzz_only(name) {
        for program in &protocol.scenarios.programs {
            let Some(report) = protocol.play(program, Some(fault.id)) else { continue };
            if !matches!(report.verdict, Verdict::Pass | Verdict::Info) {
                seen += &format!("{}: {} {}\n", fault.id, report.id, report.verdict.name());
            }
        }
    }
    assert_eq!(seen, "");
}

/// Whether faults of a protocol show in cases that mutate this message; other messages would only take time.
pub fn concerns_message(protocol: &str, message: &str) -> bool {
    let some =
        ["submit_job", "ping", "request_job_status", "claim_job", "register_worker", "cancel_job", "complete_job"];
    protocol != "emprops" || some.contains(&message)
}

test_each_protocol!(fuzzing_finds_every_fuzz_only_fault, assert_the_first_seed_finds_all);

fn assert_the_first_seed_finds_all(name: &str) {
    assert_all_found(name, 1);
}

#[rstest]
#[ignore = "thorough: many minutes of CPU"]
fn fuzzing_with_another_seed_finds_every_fuzz_only_fault(
    #[dirs]
    #[files("schemas/*/messages")]
    name: PathBuf,
) {
    assert_all_found(&protocol_name(&name), 2);
}

/// Asserts that the cases of a seed find every fault of a protocol that only fuzzing finds.
fn assert_all_found(name: &str, seed: u64) {
    let hub = SimulatedProtocol::load(name);
    let mut cases = PlayableCases::new(name, seed, &|message| concerns_message(name, message));
    let mut hidden = fuzz_only(name);
    let mut wrong = String::new();
    for number in 0..MAX_CASES {
        if hidden.is_empty() {
            break;
        }
        let Some((_, program)) = cases.case(number) else { continue };
        // A case that does not trigger a fault has the same result as with a correct hub.
        let brought_out = Arc::new(Mutex::new(BTreeSet::new()));
        let around = |inner| -> Box<dyn Machine> {
            Box::new(TriggerRecorder { inner, hidden: fuzz_only(name), brought_out: Arc::clone(&brought_out) })
        };
        hub.play_on(&program, None, &around, SendingManner::default());
        let brought_out = brought_out.lock().unwrap();
        hidden.retain(|fault| {
            if !brought_out.contains(fault.id) {
                return true;
            }
            let report = hub.play(&program, Some(fault.id)).unwrap();
            let blamed = broken_rules(&report, Verdict::Warn);
            if blamed.iter().any(|rule| fault.rules.contains(&rule.as_str())) {
                println!("{}: case {number}, {blamed:?}: {}", fault.id, report.title);
                return false;
            }
            let blamed = broken_rules(&report, Verdict::Fail);
            let others: Vec<_> = blamed.iter().filter(|rule| rule.starts_with("FUZZ-")).collect();
            if !others.is_empty() {
                wrong += &format!("{} is blamed for {others:?}: {}\n", fault.id, report.title);
            }
            true
        });
    }
    let hidden: Vec<_> = hidden.iter().map(|fault| fault.id).collect();
    assert_eq!((hidden, wrong.as_str()), (Vec::new(), ""), "not found in {MAX_CASES} cases, or reported as another");
}

/// Returns the rules that a report finds broken, with at least this verdict.
fn broken_rules(report: &ScenarioReport, least: Verdict) -> BTreeSet<String> {
    let is_broken = |verdict: Verdict| matches!(verdict, Verdict::Fail | Verdict::Warn) && verdict >= least;
    let failed = report.checks.iter().flat_map(|check| &check.rules).filter(|(_, verdict)| is_broken(*verdict));
    failed.map(|(rule, _)| rule.id.clone()).collect()
}

/// Records which faults a conversation triggers.
struct TriggerRecorder {
    inner: Box<dyn Machine>,
    hidden: Vec<&'static Fault>,
    brought_out: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Machine for TriggerRecorder {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        let brings_out = |fault: &&&Fault| match fault.effect {
            FaultEffect::OnInput(fault) => fault.is_triggered_by(&input),
            // A conversation does not show whether other faults are triggered.
            _ => true,
        };
        self.brought_out.lock().unwrap().extend(self.hidden.iter().filter(brings_out).map(|fault| fault.id));
        self.inner.handle(now, input, out);
    }

    fn deadline(&self) -> Option<Duration> {
        self.inner.deadline()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        self.inner.event(now, event, out)
    }
}
