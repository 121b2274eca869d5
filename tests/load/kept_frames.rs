//! Replies in another order than the steps of the plan are kept until a step asks for them. In virtual time.

use hubproof::load::compile::program::ProgramOperation;
use hubproof::load::plan::PlanOverrides;
use hubproof::load::{Nanos, SECOND};
use rstest::rstest;

use crate::support::sim_load::{CompiledTestPlan, PlanSource, run};

const MS: Nanos = 1_000_000;

/// Workers complete every job at once, and clients wait for the acceptance and the completion of their jobs.
const JOBS: &str = include_str!("../fixtures/plans/accepted_and_completed.yaml");

fn jobs(at_a_time: u32, pattern: &str) -> CompiledTestPlan {
    let plan = JOBS.replace("AT_A_TIME", &at_a_time.to_string()).replace("WHERE", pattern);
    CompiledTestPlan::new("emprops", &PlanSource::Text(&plan), &PlanOverrides::default())
}

const OF_THE_JOB: &str = r#"where: { job_id: "${accepted.job_id}" }"#;

fn is_message(text: &str, kind: &str) -> bool {
    let frame: serde_json::Value = serde_json::from_str(text).unwrap();
    frame["type"] == kind
}

/// The id of the job is in the acceptance, which comes last. Without `where`, a step takes the first completion.
#[rstest]
#[case::named(50, OF_THE_JOB)]
#[case::unnamed(1, "")]
fn a_reply_that_comes_before_its_step_is_kept(#[case] at_a_time: u32, #[case] pattern: &str) {
    let ready = jobs(at_a_time, pattern);
    let observed = run(&ready, MS, &mut |now, role, text| {
        let last = role == "client" && is_message(text, "job_accepted");
        vec![now + if last { 600 * MS } else { MS }]
    });
    let account = &observed.account;
    assert!(account.attempted >= 4, "{account:?}");
    assert_eq!((account.completed, account.recovered), (account.attempted, 0), "{account:?}");
    assert!(account.is_clean(), "{account:?}");
    assert!(observed.most_kept >= 1, "no frame was kept");
    let faults: Vec<_> = observed.faults.keys().collect();
    assert_eq!((faults, &observed.waits, observed.failed), (Vec::new(), &[].into(), 0));
    // The acceptance, and not the completion, is the late one.
    let answered = &observed.answered[&ready.message("submit_job")];
    assert!(answered.iter().all(|time| *time >= 600 * MS), "{answered:?}");
}

/// A second completion counts as a repetition, even if the first one has not been asked for yet.
#[test]
fn kept_frames_are_recorded_once() {
    let ready = jobs(50, OF_THE_JOB);
    let mut completions = 0;
    let observed = run(&ready, MS, &mut |now, role, text| {
        if role == "client" && is_message(text, "job_completed") {
            completions += 1;
            return vec![now + MS, now + 2 * MS];
        }
        vec![now + if role == "client" { 600 * MS } else { MS }]
    });
    let account = &observed.account;
    assert!(completions > 20, "{completions}");
    assert_eq!((account.completed, account.duplicated), (completions, completions), "{account:?}");
    assert_eq!((account.lost, account.unexpected), (0, 0), "{account:?}");
}

/// A hub that sends far more than a client may keep: the oldest frames are given up.
#[test]
fn a_client_keeps_a_bounded_number_of_frames() {
    let ready = jobs(1, OF_THE_JOB);
    let observed = run(&ready, MS, &mut |now, role, text| match role {
        "client" if is_message(text, "job_completed") => (0..500).map(|n| now + MS + n).collect(),
        "client" => vec![now + SECOND],
        _ => vec![now + MS],
    });
    assert_eq!(observed.most_kept, 64);
    assert!(observed.account.completed >= 2, "{:?}", observed.account);
    assert_eq!(observed.account.completed, observed.account.attempted, "{:?}", observed.account);
}

/// The report says where journeys ended that never got their message.
#[rstest]
#[case::in_vain("5s", true)]
#[case::at_the_end("60s", false)]
fn a_wait_in_which_journeys_end_is_named(#[case] within: &str, #[case] timed_out: bool) {
    let plan = JOBS
        .replace("AT_A_TIME", "100")
        .replace("WHERE", OF_THE_JOB)
        .replace("within: 5s", &format!("within: {within}"));
    let ready = CompiledTestPlan::new("emprops", &PlanSource::Text(&plan), &PlanOverrides::default());
    let observed = run(&ready, MS, &mut |now, role, text| {
        if role == "client" && is_message(text, "job_completed") { Vec::new() } else { vec![now + MS] }
    });
    let client = &ready.prepared.roles[1];
    let waits: Vec<_> = observed.waits.iter().filter(|(wait, _)| Some(wait.program) == client.journey).collect();
    let [(wait, journeys)] = waits[..] else { panic!("{waits:?}") };
    assert_eq!((wait.timed_out, *journeys), (timed_out, observed.account.attempted));
    let Some(ProgramOperation::Expect(expect)) = client.programs[wait.program].ops.get(wait.at) else {
        panic!("{wait:?}")
    };
    assert_eq!(expect.message, Some(ready.message("job_completed")));
}
