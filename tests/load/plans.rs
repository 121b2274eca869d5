//! The plans of the built-in protocols run with clean ledgers against the protocol machines of the reference server.

use std::time::Duration;

use hubproof::load::client::io::ClientFault;
use hubproof::load::compile::classifier::FrameClassifier;
use hubproof::load::compile::program::ProgramOperation;
use hubproof::load::ids::MessageId;
use hubproof::load::opening::FailedOpening;
use hubproof::load::plan::{PlanOverrides, WarmUp};
use hubproof::protocol::FrameDirection;
use rstest::rstest;

use crate::support::disk;
use crate::support::sim_load::{CompiledTestPlan, PlanSource, SimulationResults, run, run_with_fault};

const TRAVEL: u64 = 1_000_000;

fn play_plan(
    protocol: &str,
    which: &PlanSource<'_>,
    overrides: &PlanOverrides,
) -> (CompiledTestPlan, SimulationResults) {
    let ready = CompiledTestPlan::new(protocol, which, overrides);
    let observed = run(&ready, TRAVEL, &mut |now, _, _| vec![now + TRAVEL]);
    (ready, observed)
}

fn short_overrides() -> PlanOverrides {
    PlanOverrides {
        warm_up: Some(WarmUp::Fixed(Duration::from_secs(1))),
        duration: Some(Duration::from_secs(5)),
        ..PlanOverrides::default()
    }
}

#[rstest]
#[case("emprops", "jobs")]
#[case("emprops", "retries")]
#[case("concierge", "groups")]
#[case("concierge", "direct")]
#[case("airavata", "events")]
#[case("gator", "log")]
#[case("gator", "requests")]
#[case("qi", "sessions")]
fn every_plan_runs_without_errors_on_a_correct_hub(#[case] protocol: &str, #[case] plan: &str) {
    let (ready, observed) = play_plan(protocol, &PlanSource::Named(plan), &short_overrides());
    assert_eq!(observed.faults, std::collections::BTreeMap::new(), "{protocol}/{plan}");
    let clients: u32 = ready.plan.roles.iter().map(|role| role.population.number).sum();
    assert_eq!(observed.joined, u64::from(clients));
    assert_eq!((observed.failed, observed.not_joined.len()), (0, 0));
    assert_eq!((observed.missed, observed.messages_missed, observed.unfinished), (0, 0, 0));
    let journeys: usize = observed.journeys.values().map(Vec::len).sum();
    assert!(journeys > 50, "{journeys} journeys");
    let account = &observed.account;
    assert_eq!(account.violations, [], "{account:?}");
    assert_eq!((account.open, account.unanswered, account.late, account.unfinished), (0, 0, 0, 0), "{account:?}");
    assert_eq!((account.attempted, account.delivered), (account.completed, account.deliveries_due), "{account:?}");
}

/// The clients' faults name the message and the step they waited for.
#[test]
fn a_client_that_does_not_join_reports_where_it_stopped() {
    let overrides = PlanOverrides { population: vec![("worker".to_owned(), 3)], ..short_overrides() };
    let ready = CompiledTestPlan::new("emprops", &PlanSource::Named("retries"), &overrides);
    let observed = run_with_fault(&ready, TRAVEL, "emprops-worker-unconfirmed");
    let registered = ready.message("worker_registered");
    // Each worker retries, so that it may fail several times.
    assert!(observed.not_joined.len() >= 3, "{:?}", observed.not_joined);
    for (at, fault) in &observed.not_joined {
        let failed =
            FailedOpening { role: 0, client: 2, at: *at, fault: *fault, ending: "".into(), received: Vec::new() };
        let text = failed.describe(&ready.prepared, |_| "shared.yaml:58".to_owned());
        let expected =
            "worker 2 waited for worker_registered (shared.yaml:58): it did not arrive in time; nothing was received";
        assert_eq!(text, expected, "{fault:?} {registered:?}");
    }
}

#[test]
fn every_protocol_has_plans_and_these_tests_run_all_of_them() {
    let source = include_str!("plans.rs");
    for protocol in disk::protocols_with_messages() {
        let folder = disk::root().join("scenarios").join(&protocol).join("load");
        let plans = disk::files_under(&folder);
        assert!(!plans.is_empty(), "{protocol}");
        for plan in plans {
            let name = plan.file_stem().unwrap().to_str().unwrap();
            assert!(source.contains(&format!("#[case({protocol:?}, {name:?})]")), "{protocol}/{name}");
        }
    }
}

/// The classifier finds the same message in a frame's text as the pack's matchers in its tree.
#[test]
fn the_load_engine_and_the_pack_classify_frames_alike() {
    for protocol in disk::protocols_with_messages() {
        let pack = disk::pack(&protocol);
        let id = |name: &str| pack.messages.iter().position(|m| m.name == name).map(|n| MessageId(n as u16));
        let classifier = FrameClassifier::new(&pack, id).unwrap();
        for message in pack.messages.iter().filter(|message| message.can_go(FrameDirection::FromHub)) {
            let example = message.starting_value();
            let expected = pack.recognise(&example, FrameDirection::FromHub).and_then(|message| id(&message.name));
            for text in [example.to_string(), serde_json::to_string_pretty(&example).unwrap()] {
                assert_eq!(classifier.classify(text.as_bytes()), Ok(expected), "{protocol}: {text}");
            }
        }
    }
}

#[rstest]
#[case("emprops", "jobs")]
#[case("concierge", "groups")]
fn a_simulated_run_is_reproducible(#[case] protocol: &str, #[case] plan: &str) {
    let tell = || {
        let (_, observed) = play_plan(protocol, &PlanSource::Named(plan), &short_overrides());
        (observed.sent, observed.answered, observed.journeys, observed.delivered, observed.entries.len())
    };
    assert_eq!(tell(), tell());
}

#[test]
fn the_protocol_independent_plan_connects_and_stays_connected() {
    let overrides = PlanOverrides { population: vec![("guest".to_owned(), 50)], ..short_overrides() };
    let (ready, observed) = play_plan("emprops", &PlanSource::Text(hubproof::load::plan::IDLE_PLAN), &overrides);
    assert_eq!((observed.joined, observed.faults.len()), (50, 0));
    assert_eq!(ready.prepared.roles[0].population, 50);
    // The concierge refuses clients that do not identify themselves, and that is counted.
    let (_, observed) = play_plan("concierge", &PlanSource::Text(hubproof::load::plan::IDLE_PLAN), &overrides);
    assert!(observed.faults.keys().all(|fault| matches!(fault, ClientFault::Ended(_))), "{:?}", observed.faults);
    assert!(observed.faults.values().sum::<u64>() >= 50);
}

/// The connections and waits in the opening of a plan's first role, for a hub with these deviations.
fn opening(deviations: &str) -> (Vec<String>, usize, Vec<usize>) {
    let which = PlanSource::Named("groups");
    let plan = CompiledTestPlan::of_deviating_hub(deviations, "concierge", &which, &short_overrides()).prepared;
    let role = &plan.roles[0];
    let ops = &role.programs[role.opening].ops;
    let connects = ops.iter().filter(|op| matches!(op, ProgramOperation::Connect(_))).map(|op| format!("{op:?}"));
    let waits = ops.iter().filter(|op| matches!(op, ProgramOperation::Expect(_))).count();
    (connects.collect(), waits, role.upgrade_deviations.clone())
}

#[test]
fn clients_of_a_plan_send_what_the_upgrade_of_a_deviating_hub_needs() {
    let entry = |upgrade: &str| opening(&format!("[{{ reason: x, upgrade: {upgrade} }}]"));
    let (plain, _, none) = opening("[]");
    assert_eq!((plain.len(), none), (1, Vec::new()));
    let (constant, _, applied) = entry("{ path: \"/ws/${self.role}\", query: { v: \"${hub.version}\" } }");
    assert!(constant[0].contains("/ws/client") && constant[0].contains("0.1.0"), "{constant:?}");
    assert_eq!(applied, [0]);
    let (own, _, applied) = entry("{ headers: { X-Name: \"n ${self.name}\", X-None: \"${hub.secret}\" } }");
    assert!(own[0].starts_with("Connect(Filled(") && own[0] != plain[0], "{own:?}");
    assert_eq!(applied, [0]);
    let (other, _, applied) = entry("{ role: stranger, headers: { X-Name: x } }");
    assert_eq!((other, applied), (plain, Vec::new()));
}

#[test]
fn clients_of_a_plan_do_not_wait_for_a_message_that_is_never_sent() {
    let (_, waits, _) = opening("[]");
    let (_, fewer, _) = opening("[{ reason: x, message: hello, absent: true }]");
    assert_eq!(fewer + 1, waits);
}
