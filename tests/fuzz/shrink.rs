//! Shrinks findings on the reference server with faults, without sockets.

use std::path::PathBuf;
use std::sync::Arc;

use hubproof::fuzz::case::{FuzzCase, MutationKind};
use hubproof::fuzz::case_scenario::{CaseScenario, CaseStep};
use hubproof::fuzz::placement::Placement;
use hubproof::fuzz::scheduler::CaseScheduler;
use hubproof::fuzz::shrink::constraints::ShrinkConstraints;
use hubproof::fuzz::shrink::{CandidateResult, ShrinkLimits, Shrinker, control_run, count_beyond_opening};
use hubproof::fuzz::step_rule::StepRule;
use hubproof::outcome::Verdict;
use hubproof::scenario::Program;
use hubproof::scenario::parse::verbs::StepVerb;
use rstest::rstest;
use serde_json::json;

use crate::fuzz::cases::{FuzzProtocol, is_carried};
use crate::fuzz::fuzz_only_faults::{MAX_CASES, concerns_message};
use crate::support::disk::protocol_name;
use crate::support::sim_connection::SimulatedProtocol;

struct FaultyHub {
    protocol: FuzzProtocol,
    wire: SimulatedProtocol,
    fault: &'static str,
}

/// The checks that fail.
type FailedChecks = Vec<String>;

impl FaultyHub {
    fn new(fault: &'static str) -> Self {
        let name = hubproof_reference::faults().find(|known| known.id == fault).unwrap().protocol;
        Self { protocol: FuzzProtocol::load(name), wire: SimulatedProtocol::load(name), fault }
    }

    fn program(&mut self, scenario: &CaseScenario) -> Option<Arc<Program>> {
        self.protocol.parse("case", scenario).0
    }

    fn failed_checks(&self, program: &Arc<Program>, fault: Option<&str>) -> FailedChecks {
        let Some(report) = self.wire.play(program, fault) else { return Vec::new() };
        let failed = report.checks.iter().filter(|check| check.verdict == Verdict::Fail);
        failed.map(|check| check.name.split('#').next().unwrap_or_default().to_owned()).collect()
    }

    /// Returns the next case that finds the fault, and the check that fails.
    fn next_finding(
        &mut self,
        numbers: &mut impl Iterator<Item = u64>,
        scheduler: &CaseScheduler,
    ) -> (FuzzCase, String) {
        let known = hubproof_reference::faults().find(|known| known.id == self.fault).unwrap();
        for number in numbers {
            let Some(case) = scheduler.case(&self.protocol.corpus, number) else { continue };
            if matches!(case.cell.mutation, MutationKind::Framed(framing) if !is_carried(framing)) {
                continue;
            }
            let program = self.program(&case.scenario).unwrap();
            let failed = self.failed_checks(&program, Some(self.fault)).into_iter();
            let check = failed.into_iter().find(|check| known.rules.iter().any(|rule| check.contains(rule)));
            if let Some(check) = check.filter(|check| !self.fails_without_mutation(&case.scenario, check)) {
                return (case, check);
            }
        }
        panic!("no case finds {}", self.fault)
    }

    /// Shrinks a case to the smallest that fails the same check because of its mutation.
    fn shrink(&mut self, case: &FuzzCase, check: &str) -> Shrinker {
        let corpus = Arc::clone(&self.protocol.corpus);
        let constraints = ShrinkConstraints::for_finding(&corpus, case.cell.placement, &case.scenario, check);
        let mut shrink = Shrinker::new(case.scenario.clone(), check, ShrinkLimits::default());
        while let Some(candidate) = shrink.next_candidate() {
            shrink.record_result(match self.program(&candidate).filter(|_| constraints.are_met_by(&candidate)) {
                None => CandidateResult::Unplayable,
                Some(program) if self.fails(&program, check) && !self.fails_without_mutation(&candidate, check) => {
                    CandidateResult::StillFails
                }
                Some(_) => CandidateResult::Differs,
            });
        }
        shrink
    }

    fn fails(&self, program: &Arc<Program>, check: &str) -> bool {
        self.failed_checks(program, Some(self.fault)).iter().any(|failed| failed == check)
    }

    /// Whether the check fails without the mutated input, too.
    fn fails_without_mutation(&mut self, candidate: &CaseScenario, check: &str) -> bool {
        let control = control_run(candidate, check).filter(|_| check.starts_with("FUZZ-"));
        control.and_then(|control| self.program(&control)).is_some_and(|program| self.fails(&program, check))
    }
}

/// The number of cases to shrink until one of them is small enough.
const MAX_SHRUNK_CASES: usize = 6;
/// The largest number of steps after the opening in the smallest scenario of a fault.
const MAX_STEPS: usize = 3;
/// Faults that need more steps: the oracle itself takes more, or a client has to create something first.
const MAX_STEPS_BY_FAULT: [(&str, usize); 5] = [
    ("qi-fuzz-emoji-leaks", 4),
    ("gator-fuzz-posted-answered", 4),
    ("concierge-fuzz-half-group", 5),
    ("concierge-fuzz-subscriptions-lost", 6),
    ("emprops-fuzz-unknown-frees-jobs", 7),
];

/// Faults that get a warning, as their document leaves open what they break; only what fails is shrunk.
const ONLY_WARNED: [&str; 2] = ["gator-fuzz-undue-answer-closes", "qi-fuzz-infinity"];

/// Few steps after the opening show each fault that only fuzzing finds, and a correct hub passes them.
#[rstest]
fn shrinking_makes_a_finding_small(
    #[dirs]
    #[files("schemas/*/messages")]
    #[exclude("/(airavata|concierge|emprops|gator)/")]
    protocol: PathBuf,
) {
    assert_small(&protocol_name(&protocol), 0, 1);
}

#[rstest]
#[ignore = "thorough: many minutes of CPU"]
fn shrinking_makes_a_finding_small_in_large_protocols(
    #[values("airavata", "concierge", "emprops", "gator")] protocol: &str,
    #[values(0, 1)] half: usize,
) {
    assert_small(protocol, half, 2);
}

/// Asserts this of every `step`th fault of a protocol, from `first` on.
fn assert_small(protocol: &str, first: usize, step: usize) {
    let of_protocol = hubproof_reference::faults().filter(|fault| fault.protocol == protocol && fault.is_for_fuzzing());
    let faults = of_protocol.filter(|fault| !ONLY_WARNED.contains(&fault.id));
    for fault in faults.skip(first).step_by(step) {
        let most = MAX_STEPS_BY_FAULT.iter().find(|(id, _)| *id == fault.id).map_or(MAX_STEPS, |(_, most)| *most);
        let mut hub = FaultyHub::new(fault.id);
        let scheduler = CaseScheduler::new(&hub.protocol.corpus, 1, &|message| concerns_message(protocol, message));
        let mut numbers = 0..MAX_CASES;
        let mut shown = String::new();
        let small = (0..MAX_SHRUNK_CASES).any(|_| {
            let (case, check) = hub.next_finding(&mut numbers, &scheduler);
            let single = scheduler.single_message_cases(&hub.protocol.corpus, case.number).into_iter().find(|single| {
                let program = hub.program(&single.scenario);
                program.is_some_and(|program| hub.fails(&program, &check))
            });
            let shrink = hub.shrink(single.as_ref().unwrap_or(&case), &check);
            shown = shrink.smallest().text();
            let program = hub.program(shrink.smallest()).unwrap();
            assert_eq!(hub.failed_checks(&program, None), [""; 0], "{shown}");
            let (before, after) = (count_beyond_opening(&case.scenario), count_beyond_opening(shrink.smallest()));
            println!("{}: {check}: {before} steps became {after} in {} attempts", fault.id, shrink.attempts());
            after <= most
        });
        assert!(small, "{}: {shown}", fault.id);
    }
}

const SUBMITS: &str = r#"{"type":"submit_job","priority":"high","requirements":{"hardware":{"gpu_memory_gb":0}},"timestamp":1705312345000}"#;

fn rule(id: &str) -> StepRule {
    StepRule::new(id, None)
}

/// A candidate keeps the violation and the point at which it is sent; otherwise the oracle must not demand the same.
#[rstest]
#[case::less(
    r#"{"type":"submit_job","requirements":{"hardware":{"gpu_memory_gb":0}},"timestamp":1705312345000}"#,
    true
)]
#[case::shorter(
    r#"{"type":"submit_job","requirements":{"hardware":{"gpu_memory_gb":-1}},"timestamp":1705312345000}"#,
    true
)]
#[case::right(r#"{"type":"submit_job","timestamp":1705312345000}"#, false)]
#[case::wrong_otherwise(r#"{"type":"submit_job","requirements":{"hardware":{"gpu_memory_gb":0}}}"#, false)]
#[case::another(r#"{"type":"ping","timestamp":1705312345000}"#, false)]
#[case::none("{}", false)]
#[case::no_json("{", false)]
#[case::twice(r#"{"type":"submit_job","type":"submit_job","requirements":{"hardware":{"gpu_memory_gb":0}},"timestamp":1705312345000}"#, false)]
fn shrinking_keeps_the_steps_an_oracle_depends_on(#[case] text: &str, #[case] kept: bool) {
    let hub = FaultyHub::new("emprops-root-refused");
    let finding = |text: &str, (actor, verb): (&str, StepVerb)| {
        let steps = vec![
            CaseStep::new("innocent", StepVerb::Joins, ()),
            CaseStep::new(actor, verb, ()),
            CaseStep::new("sender", StepVerb::SendsRaw, json!({ "text": text })).named("mutated_input"),
            CaseStep::new("sender", StepVerb::Expects, "error_general").judged_by([rule("FUZZ-REJECTS")]),
        ];
        CaseScenario { steps, ..CaseScenario::default() }
    };
    let joins = ("sender", StepVerb::Joins);
    let original = finding(SUBMITS, joins);
    let corpus = &hub.protocol.corpus;
    let constraints = |check| ShrinkConstraints::for_finding(corpus, Placement::Joined, &original, check);
    assert_eq!(constraints("FUZZ-REJECTS,EMP-036").are_met_by(&finding(text, joins)), kept);
    assert!(!constraints("FUZZ-REJECTS").are_met_by(&finding(text, ("sender", StepVerb::Connects))));
    assert!(!constraints("FUZZ-REJECTS").are_met_by(&finding(text, ("innocent", StepVerb::Joins))));
    for whatever_is_said in ["FUZZ-SERVES-OLD", "FUZZ-SERVES-NEW", "schema:error_general", "EMP-036"] {
        assert!(constraints(whatever_is_said).are_met_by(&finding(text, joins)));
    }
}

/// A valid message that was sent before the mutated one does not become the mutated one.
#[test]
fn shrinking_never_takes_a_valid_message_for_the_mutated_one() {
    let hub = FaultyHub::new("emprops-root-refused");
    let ping = r#"{"type":"ping","timestamp":1705312345000}"#;
    let finding = |sent: &[(&str, Option<&str>)]| {
        let mut steps = vec![CaseStep::new("sender", StepVerb::Joins, ())];
        steps.extend(sent.iter().map(|(text, name)| {
            let step = CaseStep::new("sender", StepVerb::SendsRaw, json!({ "text": text }));
            if let Some(name) = name { step.named(*name) } else { step }
        }));
        let expects = CaseStep::new("sender", StepVerb::Expects, "error_general").after("mutated_input");
        steps.push(expects.judged_by([rule("FUZZ-REJECTS")]));
        CaseScenario { steps, ..CaseScenario::default() }
    };
    let original = finding(&[(ping, None), (SUBMITS, Some("mutated_input"))]);
    let corpus = &hub.protocol.corpus;
    let constraints = ShrinkConstraints::for_finding(corpus, Placement::Joined, &original, "FUZZ-REJECTS,EMP-036");
    assert!(constraints.are_met_by(&finding(&[(SUBMITS, Some("mutated_input"))])));
    assert!(!constraints.are_met_by(&finding(&[(ping, Some("mutated_input"))])));
}
