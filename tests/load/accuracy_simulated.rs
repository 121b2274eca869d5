//! Virtual time: against a simulated hub with a known fault, percentiles and ledger are exact.

use std::collections::BTreeSet;
use std::time::Duration;

use hubproof::load::client::VirtualClient;
use hubproof::load::client::io::{ClientFault, Disconnection};
use hubproof::load::ledger::LedgerViolationKind;
use hubproof::load::metrics::{CounterId, JourneyCount, RunPhase};
use hubproof::load::plan::{PlanOverrides, WarmUp};
use hubproof::load::validity::RunValidity;
use hubproof::load::{Nanos, SECOND};
use rstest::rstest;

use crate::support::sim_load::{
    CompiledTestPlan, PlanSource, SimulationResults, job_plan, run, run_and_cut, run_and_hold, run_and_kill,
    run_with_fault,
};

const MS: Nanos = 1_000_000;

/// A request every ten milliseconds, each identified by its number.
const REQUESTS: &str = "
title: t
phases: { warm_up: 0s, duration: 4s, drain: 5s }
roles:
  task:
    population: 1
    ramp: 0s
    arrivals: 100
    at_a_time: 200
    steps:
      - sends: log_request
        with: { posted: false, req_id: \"${self.turn}\" }
        as: asked
      - expects: log_response
        where: { rsp_id: \"${asked.req_id}\" }
        answers: asked
";

/// When the first request is due: all clients have joined by then.
const BEGIN: Nanos = 2 * SECOND;

fn sorted(mut times: Vec<Nanos>) -> Vec<Nanos> {
    times.sort_unstable();
    times
}

#[test]
fn a_stall_delays_every_request_due_meanwhile() {
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(REQUESTS), &PlanOverrides::default());
    let (from, to) = (BEGIN + SECOND, BEGIN + SECOND + 500 * MS);
    // The hub sends nothing while it stalls.
    let observed = run(&ready, MS, &mut |now, _, _| vec![if (from..to).contains(&now) { to + MS } else { now + MS }]);
    let expected = (0..400).map(|n| {
        let due = BEGIN + n * 10 * MS;
        let done = due + MS;
        if (from..to).contains(&done) { to + MS - due } else { 2 * MS }
    });
    let answered = &observed.answered[&ready.message("log_request")];
    assert_eq!(sorted(answered.clone()), sorted(expected.collect()));
    assert_eq!(observed.faults.len(), 0, "{:?}", observed.faults);
}

/// A hold suspends the schedule: the requests to come are sent later, none is missed, and no latency changes.
#[test]
fn a_hold_delays_the_schedule_and_lengthens_no_response() {
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(REQUESTS), &PlanOverrides::default());
    let hold = BEGIN + SECOND..BEGIN + 3 * SECOND;
    let observed = run_and_hold(&ready, MS, &mut |now, _, _| vec![now + MS], hold.clone());
    let answered = &observed.answered[&ready.message("log_request")];
    assert_eq!((answered.len(), observed.missed), (400, 0));
    assert!(answered.iter().all(|took| *took == 2 * MS), "{answered:?}");
    let report = observed.into_report(&ready, &[]);
    assert_eq!(report.total.time, 4 * SECOND);
    let started: Vec<(RunPhase, u64)> = report
        .intervals
        .iter()
        .filter(|one| (BEGIN..BEGIN + 6 * SECOND).contains(&one.from))
        .map(|one| (one.phase, one.counts[report.layout.count(CounterId::Journey(0, JourneyCount::Started))]))
        .collect();
    use RunPhase::{Held, Measured};
    let expected = [Measured, Held, Held, Measured, Measured, Measured];
    assert_eq!(started, expected.map(|phase| (phase, if phase == Held { 0 } else { 100 })));
}

/// Requests that were due before a hold keep their whole waiting time, also if the hub answers during the hold.
#[test]
fn a_hold_hides_no_time_of_what_was_due_before() {
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(REQUESTS), &PlanOverrides::default());
    let stall = BEGIN + 500 * MS..BEGIN + 2 * SECOND;
    let hold = BEGIN + SECOND..BEGIN + 3 * SECOND;
    let answer = |now| if stall.contains(&now) { stall.end + MS } else { now + MS };
    let observed = run_and_hold(&ready, MS, &mut |now, _, _| vec![answer(now)], hold);
    let expected = (0..400).map(|n| {
        let due = BEGIN + n * 10 * MS;
        if n < 100 { answer(due + MS) - due } else { 2 * MS }
    });
    assert_eq!(sorted(observed.answered[&ready.message("log_request")].clone()), sorted(expected.collect()));
}

#[test]
fn known_delays_are_measured_exactly_in_any_order_of_answers() {
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(REQUESTS), &PlanOverrides::default());
    let delay = |n: u64| (n * 7919 % 1000) * MS;
    let mut count = 0;
    let observed = run(&ready, MS, &mut |now, _, _| {
        count += 1;
        vec![now + delay(count)]
    });
    let answered = &observed.answered[&ready.message("log_request")];
    assert_eq!(sorted(answered.clone()), sorted((1..=400).map(|n| MS + delay(n)).collect()));
}

#[rstest]
#[case(None)]
#[case(Some(3))]
fn an_answer_that_misses_its_deadline_is_a_timeout(#[case] lost: Option<u64>) {
    let plan = REQUESTS.replace("title: t", "title: t\npatience: 500ms");
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(&plan), &PlanOverrides::default());
    let mut count = 0;
    let observed = run(&ready, MS, &mut |now, _, _| {
        count += 1;
        if lost.is_some_and(|every| count % every == 0) { Vec::new() } else { vec![now + MS] }
    });
    let timeouts =
        observed.faults.get(&ClientFault::Timeout(ready.message("log_request"))).copied().unwrap_or_default();
    assert_eq!(timeouts, lost.map_or(0, |every| 400 / every));
    assert_eq!(observed.answered[&ready.message("log_request")].len() as u64, 400 - timeouts);
    assert_eq!(observed.failed, timeouts);
}

#[test]
fn an_arrival_without_a_free_client_is_counted() {
    let plan = REQUESTS.replace("at_a_time: 200", "at_a_time: 1");
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(&plan), &PlanOverrides::default());
    // Every answer takes 25 ms, and a request is due every 10 ms: one of three is sent.
    let observed = run(&ready, 0, &mut |now, _, _| vec![now + 25 * MS]);
    let served = observed.answered[&ready.message("log_request")].len() as u64;
    assert_eq!(observed.missed + served, 400);
    assert_eq!(served, 134);
}

/// Twenty clients that each send a request every 100 ms, for ten seconds.
const PACED: &str = "
title: t
phases: { warm_up: 0s, duration: 10s, drain: 5s }
roles:
  task:
    population: 20
    ramp: 0s
    pace: PACE
    steps:
      - sends: log_request
        with: { posted: false, req_id: \"${uuid()}\" }
        as: asked
      - expects: log_response
        where: { rsp_id: \"${asked.req_id}\" }
        answers: asked
";

/// A hub that answers after two milliseconds, but sends nothing from second `from` to `to` of the measured time; its
/// answers follow at once then.
fn paced_run(pace: &str, from: u64, to: u64) -> (CompiledTestPlan, SimulationResults) {
    let ready =
        CompiledTestPlan::new("gator", &PlanSource::Text(&PACED.replace("PACE", pace)), &PlanOverrides::default());
    let stall = BEGIN + from * SECOND..BEGIN + to * SECOND;
    let observed = run(&ready, MS, &mut |now, _, _| vec![if stall.contains(&now) { stall.end + MS } else { now + MS }]);
    (ready, observed)
}

/// Until the measured time begins, clients are two seconds at their pace. They differ in phase, so a tick may be due at
/// the end or not.
const TICKS: std::ops::RangeInclusive<u64> = 20 * 119..=20 * 120;

#[test]
fn a_right_hub_makes_no_tick_of_a_pace_late() {
    let (ready, observed) = paced_run("100ms", 0, 0);
    let started = observed.sent[&ready.message("log_request")];
    assert!(TICKS.contains(&started), "{started}");
    assert_eq!((observed.late, observed.missed, observed.skipped, observed.unfinished), (0, 0, 0, 0));
    assert!(observed.answered[&ready.message("log_request")].iter().all(|took| *took == 2 * MS));
    let report = observed.into_report(&ready, &["log_request.response.p99 < 5ms"]);
    assert_eq!(report.exit_code(), 0, "{:?}", report.judgement);
    assert_eq!(report.judgement.notes, []);
    let [(_, due)] = &report.due_journeys()[..] else { panic!("one role") };
    assert_eq!((due.due, due.started, due.late, due.missed), (started, started, 0, 0));
}

#[test]
fn a_hold_makes_no_tick_of_a_pace_late_or_absent() {
    for pace in ["100ms", "{ every: 100ms, missed: skipped }"] {
        let ready =
            CompiledTestPlan::new("gator", &PlanSource::Text(&PACED.replace("PACE", pace)), &PlanOverrides::default());
        let hold = BEGIN + 4 * SECOND..BEGIN + 7 * SECOND;
        let observed = run_and_hold(&ready, MS, &mut |now, _, _| vec![now + MS], hold);
        let message = ready.message("log_request");
        assert!(TICKS.contains(&observed.sent[&message]), "{pace}: {}", observed.sent[&message]);
        assert_eq!((observed.late, observed.missed, observed.skipped, observed.unfinished), (0, 0, 0, 0), "{pace}");
        assert!(observed.answered[&message].iter().all(|took| *took == 2 * MS), "{pace}");
        let report = observed.into_report(&ready, &[]);
        assert_eq!(report.total.time, 10 * SECOND, "{pace}");
    }
}

/// The hub is silent from second 3 to 5, and the run is held from second 4 to 6: the ticks of second 3 are worked off
/// during the hold, each with the time since it was due, and those to come are on time.
#[test]
fn a_client_that_is_behind_catches_up_during_a_hold() {
    let ready =
        CompiledTestPlan::new("gator", &PlanSource::Text(&PACED.replace("PACE", "100ms")), &PlanOverrides::default());
    let stall = BEGIN + 3 * SECOND..BEGIN + 5 * SECOND;
    let silent = |now| if stall.contains(&now) { stall.end + MS } else { now + MS };
    let hold = BEGIN + 4 * SECOND..BEGIN + 6 * SECOND;
    let observed = run_and_hold(&ready, MS, &mut |now, _, _| vec![silent(now)], hold);
    let message = ready.message("log_request");
    assert!(TICKS.contains(&observed.sent[&message]), "{}", observed.sent[&message]);
    assert!((20 * 8..=20 * 10).contains(&observed.late), "{}", observed.late);
    assert_eq!((observed.missed, observed.skipped), (0, 0));
    let times = sorted(observed.answered[&message].clone());
    let longer = |time: Nanos| times.iter().filter(|took| **took > time).count();
    assert!((20 * 9..=20 * 11).contains(&longer(SECOND)), "{}", longer(SECOND));
    assert_eq!(longer(2_100 * MS), 0, "{:?}", times.last());
    assert!(longer(3 * MS) <= 20 * 11, "no tick after the hold is late: {}", longer(3 * MS));
}

/// Each client waits for one answer for most of two seconds. Then it works off the ticks that have passed, each with
/// the time since it was due.
#[test]
fn ticks_of_a_pace_that_a_stalled_hub_delays_are_late_and_never_absent() {
    let (ready, observed) = paced_run("100ms", 4, 6);
    let message = ready.message("log_request");
    let started = observed.sent[&message];
    assert!(TICKS.contains(&started), "{started}");
    assert_eq!((observed.missed, observed.skipped, observed.unfinished), (0, 0, 0));
    // Of the twenty ticks of the stall, the first is on time, and while the client catches up one or two more are due.
    assert!((20 * 18..=20 * 21).contains(&observed.late), "{}", observed.late);
    let times = sorted(observed.answered[&message].clone());
    assert_eq!(times.len() as u64, started);
    // Evenly from the end of the stall to its beginning: a quarter of the delayed ones waits for more than 1.5 s.
    let longer = |time: Nanos| times.iter().filter(|took| **took > time).count();
    assert!((95..=105).contains(&longer(1_500 * MS)), "{}", longer(1_500 * MS));
    assert!((195..=210).contains(&longer(SECOND)), "{}", longer(SECOND));
    let thresholds =
        ["log_request.response.p90 < 5ms", "log_request.service.p90 < 5ms", "log_request.send_delay.p99 < 5ms"];
    let report = observed.into_report(&ready, &thresholds);
    let standings: Vec<_> = report.thresholds.iter().map(|outcome| (outcome.is_broken(), outcome.is_met())).collect();
    // The client's wait is the hub's part, not the generator's.
    assert_eq!(standings, [(true, false), (true, false), (false, true)]);
    assert_eq!((report.validity(), report.exit_code()), (RunValidity::Valid, 1), "{:?}", report.judgement);
}

/// The hub never sends again, so most ticks of the last three seconds cannot begin, and the answers to the others are
/// missing.
#[test]
fn ticks_of_a_pace_that_never_begin_are_missed() {
    let (ready, observed) = paced_run("100ms", 7, 100);
    let started = observed.sent[&ready.message("log_request")];
    assert!(TICKS.contains(&(started + observed.missed)), "{started} {}", observed.missed);
    assert!((20 * 28..=20 * 30).contains(&observed.missed), "{}", observed.missed);
    assert_eq!((observed.messages_missed, observed.unfinished), (observed.missed, 20));
    let report = observed.into_report(&ready, &["log_request.response.p90 < 5ms", "log_request.response.p50 < 5ms"]);
    let uncertain: Vec<bool> = report.thresholds.iter().map(|outcome| outcome.is_uncertain()).collect();
    assert_eq!(uncertain, [true, false], "a tenth of the times is unknown, but not a half");
    let codes: Vec<&str> = report.judgement.reasons.iter().map(|reason| reason.code.name()).collect();
    assert_eq!(codes, ["missed", "backlog", "uncertain"], "{:?}", report.judgement);
    assert_eq!(report.exit_code(), 3);
}

#[test]
fn a_plan_may_skip_the_ticks_that_pass_while_a_client_is_busy() {
    let (ready, observed) = paced_run("{ every: 100ms, missed: skipped }", 4, 6);
    let started = observed.sent[&ready.message("log_request")];
    assert!(TICKS.contains(&(started + observed.skipped)), "{started} {}", observed.skipped);
    assert!((20 * 18..=20 * 20).contains(&observed.skipped), "{}", observed.skipped);
    assert_eq!((observed.missed, observed.late), (0, 0));
    let report = observed.into_report(&ready, &[]);
    assert_eq!(report.judgement.notes.iter().map(|note| note.code.name()).collect::<Vec<_>>(), ["skipped-ticks"]);
    assert_eq!(report.validity(), RunValidity::Valid);
}

/// A heartbeat is not worked off later, since it says that its client is alive now. Those that a stalled hub prevents
/// are counted, and leave the times of the others uncertain.
#[test]
fn heartbeats_that_a_stalled_hub_prevents_are_missed() {
    let plan = PACED.replace("pace: PACE\n    steps:", "meanwhile:\n    - every: 100ms\n      do:");
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(&plan), &PlanOverrides::default());
    let stall = BEGIN + 4 * SECOND..BEGIN + 6 * SECOND;
    let observed = run(&ready, MS, &mut |now, _, _| vec![if stall.contains(&now) { stall.end + MS } else { now + MS }]);
    let sent = observed.sent[&ready.message("log_request")];
    // They continue in the drain.
    assert!((20 * 169..=20 * 170).contains(&(sent + observed.messages_missed)), "{sent}");
    assert!((20 * 18..=20 * 20).contains(&observed.messages_missed), "{}", observed.messages_missed);
    let report = observed.into_report(&ready, &["log_request.response.p90 < 5ms", "log_request.response.p50 < 5ms"]);
    let uncertain: Vec<bool> = report.thresholds.iter().map(|outcome| outcome.is_uncertain()).collect();
    assert_eq!(uncertain, [true, false], "{:?}", report.judgement);
}

/// A second or so without a connection: the ticks of that time are worked off on the next one.
#[test]
fn ticks_that_pass_while_a_client_is_not_connected_are_late() {
    let plan = PACED.replace("PACE", "{ every: 100ms, jitter: 30% }");
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(&plan), &PlanOverrides::default());
    // No request is under way.
    let observed = run_and_cut(&ready, 0, &mut |now, _, _| vec![now], Some(BEGIN + 4 * SECOND));
    let started = observed.sent[&ready.message("log_request")];
    assert!((20 * 119..=20 * 121).contains(&started), "{started}");
    assert_eq!((observed.joined, observed.missed, observed.skipped), (40, 0, 0));
    // Half a second to a second, by the policy of reconnecting.
    assert!((20 * 4..=20 * 11).contains(&observed.late), "{}", observed.late);
}

/// Without a schedule or a pace, a stalled hub has few requests to delay, and the report says so.
#[test]
fn a_closed_workload_is_valid_and_says_what_it_cannot_see() {
    let plan = PACED.replace("    pace: PACE\n", "").replace("drain: 5s", "drain: 0s");
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(&plan), &PlanOverrides::default());
    let stall = BEGIN + 4 * SECOND..BEGIN + 6 * SECOND;
    let observed = run(&ready, MS, &mut |now, _, _| vec![if stall.contains(&now) { stall.end + MS } else { now + MS }]);
    assert_eq!((observed.late, observed.missed, observed.unfinished), (0, 0, 20), "one of each client is under way");
    let report = observed.into_report(&ready, &["log_request.response.p99 < 5ms"]);
    assert_eq!(report.exit_code(), 0, "{:?}", report.judgement);
    let notes: Vec<&str> = report.judgement.notes.iter().map(|note| note.code.name()).collect();
    assert_eq!(notes, ["backlog", "closed-workload"], "{:?}", report.judgement.notes);
}

/// The job id of a frame of this type.
fn job_id(text: &str, kind: &str) -> Option<String> {
    let frame: serde_json::Value = serde_json::from_str(text).unwrap();
    (frame["type"] == kind).then(|| frame["job_id"].as_str().unwrap().to_owned())
}

#[test]
fn lost_and_duplicated_completions_are_counted_exactly() {
    let ready = job_plan();
    let (mut seen, mut lost, mut doubled) = (BTreeSet::new(), 0, 0);
    let observed =
        run(&ready, MS, &mut |now, role, text| match job_id(text, "job_completed").filter(|_| role == "client") {
            Some(job) if seen.insert(job.clone()) => match seen.len() % 10 {
                3 => {
                    lost += 1;
                    Vec::new()
                }
                6 => {
                    doubled += 1;
                    vec![now + MS, now + 2 * MS]
                }
                _ => vec![now + MS],
            },
            _ => vec![now + MS],
        });
    let account = &observed.account;
    assert!(lost > 5 && doubled > 5, "{lost} {doubled}");
    assert_eq!((account.lost, account.duplicated), (lost, doubled), "{account:?}");
    assert_eq!((account.attempted, account.completed), (account.acknowledged, account.attempted - lost));
    assert_eq!((account.unexpected, account.wrong_worker, account.assigned_twice), (0, 0, 0), "{account:?}");
}

#[test]
fn an_assignment_sent_twice_is_a_violation() {
    let ready = job_plan();
    let (mut seen, mut doubled) = (0, 0);
    let observed = run(&ready, MS, &mut |now, _, text| match job_id(text, "job_assigned") {
        Some(_) => {
            seen += 1;
            if seen % 5 == 0 {
                doubled += 1;
                vec![now + MS, now + 2 * MS]
            } else {
                vec![now + MS]
            }
        }
        None => vec![now + MS],
    });
    assert!(doubled > 5);
    assert_eq!(observed.account.completed, observed.account.attempted);
    // The same worker receiving it twice is not an assignment to another.
    assert_eq!(observed.account.duplicated + observed.account.assigned_twice, doubled, "{:?}", observed.account);
}

/// Workers that take one job at a time, and for which a claim without a job is a failed journey: an assignment without
/// a claim is not the late answer to one.
const ONE_AT_A_TIME: &str = include_str!("../fixtures/plans/one_at_a_time.yaml");

/// A claim gets one more job than it asked for, while its worker is busy with the first.
#[rstest]
#[case::in_the_ledger("marks: assigned")]
#[case::without_marks("")]
fn jobs_assigned_to_a_busy_worker_are_counted_as_not_taken(#[case] marks: &str) {
    let ready = CompiledTestPlan::new(
        "emprops",
        &PlanSource::Text(&ONE_AT_A_TIME.replace("MARKS", marks)),
        &PlanOverrides::default(),
    );
    let clean = run(&ready, MS, &mut |now, _, _| vec![now + MS]);
    assert_eq!(clean.account.violations, [], "{:?}", clean.account);
    let message = ready.message("job_assigned");
    assert_eq!(clean.faults.get(&ClientFault::NotTaken(message)), None, "{:?}", clean.faults);
    let observed = run_with_fault(&ready, MS, "emprops-max-jobs-one-more");
    let not_taken = observed.faults.get(&ClientFault::NotTaken(message));
    let not_taken = *not_taken.unwrap_or_else(|| panic!("{:?} {:?}", observed.faults, observed.account));
    assert!(not_taken > 3, "{:?}", observed.faults);
    if !marks.is_empty() {
        assert_eq!(observed.account.not_taken, not_taken, "{:?}", observed.account);
        assert_eq!(observed.account.lost, 0, "{:?}", observed.account);
        let violation =
            observed.account.violations.iter().find(|one| one.kind == LedgerViolationKind::NotTaken).unwrap();
        assert!(violation.item_name().starts_with("job-"), "{violation:?}");
    }
}

#[test]
fn lost_acknowledgements_leave_recovered_or_unanswered_jobs() {
    let ready = job_plan();
    let (mut seen, mut lost) = (0, 0);
    let observed = run(&ready, MS, &mut |now, _, text| match job_id(text, "job_accepted") {
        Some(_) => {
            seen += 1;
            if seen == 100 {
                lost += 1;
                Vec::new()
            } else {
                vec![now + MS]
            }
        }
        None => vec![now + MS],
    });
    assert_eq!(lost, 1);
    assert_eq!(observed.account.acknowledged, observed.account.attempted - lost, "{:?}", observed.account);
    assert_eq!(observed.faults.values().sum::<u64>(), 1, "{:?}", observed.faults);
}

/// A message every ten milliseconds from one client to another.
#[test]
fn reordered_messages_are_counted_exactly() {
    let overrides = PlanOverrides {
        population: vec![("publisher".to_owned(), 1), ("subscriber".to_owned(), 1)],
        rate: Some(100.0),
        warm_up: Some(WarmUp::Fixed(Duration::ZERO)),
        duration: Some(Duration::from_secs(5)),
        ..PlanOverrides::default()
    };
    let ready = CompiledTestPlan::new("concierge", &PlanSource::Named("groups"), &overrides);
    let (mut count, mut late) = (0, 0);
    let observed = run(&ready, MS, &mut |now, _, text| {
        if !text.contains("\"MESSAGE\"") {
            return vec![now + MS];
        }
        count += 1;
        if count % 10 == 0 {
            late += 1;
            return vec![now + 16 * MS];
        }
        vec![now + MS]
    });
    assert_eq!((observed.published, observed.delivered.len()), (500, 500));
    assert_eq!(late, 50);
    // No later message follows the last one to overtake it.
    assert_eq!(observed.account.reordered, 49, "{:?}", observed.account);
    let mut expected: Vec<Nanos> = vec![2 * MS; 450];
    expected.extend([17 * MS; 50]);
    assert_eq!(sorted(observed.delivered), expected);
}

#[test]
fn a_client_whose_connection_breaks_reconnects_and_continues() {
    let plan = REQUESTS.replace("title: t", "title: t\npatience: 500ms");
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(&plan), &PlanOverrides::default());
    // Answers in flight then have no receiver: answers take 50 ms.
    let cut = BEGIN + 2 * SECOND + 5 * MS;
    let observed = run_and_cut(&ready, 0, &mut |now, _, _| vec![now + 50 * MS], Some(cut));
    let answered = observed.answered[&ready.message("log_request")].len() as u64;
    assert_eq!(observed.joined, 2);
    assert_eq!(observed.faults[&ClientFault::Ended(Disconnection::Dropped)], 1);
    // These requests have ids, so their answers are expected on the next connection, but the hub does not repeat them.
    let asked = observed.faults[&ClientFault::Timeout(ready.message("log_request"))];
    assert_eq!(asked, 5);
    let apart = observed.missed;
    assert!((50..=101).contains(&apart), "half a second to a second without a connection: {apart}");
    assert_eq!(answered + asked + apart, 400);
}

#[test]
fn requests_are_tracked_over_a_broken_connection() {
    let ready = job_plan();
    let observed = run_and_cut(&ready, MS, &mut |now, _, _| vec![now + MS], Some(6 * SECOND));
    let account = &observed.account;
    assert_eq!(observed.joined, 45 * 2);
    // Whether an unacknowledged job is in the queue is unknown; for all others each client learns the end.
    assert_eq!(account.attempted, account.completed + account.unanswered, "{account:?}");
    assert_eq!(account.acknowledged, account.completed, "{account:?}");
    assert!(account.completed > 150 && account.is_clean(), "{account:?}");
    // Clients learn of completions during a disconnect by the answer to their status request.
    assert!(observed.sent[&ready.message("request_job_status")] > 5, "{:?}", observed.sent);
    assert_eq!(observed.faults.keys().filter(|fault| matches!(fault, ClientFault::Timeout(_))).count(), 0);
}

#[test]
fn only_jobs_of_a_killed_hub_are_lost() {
    let ready = job_plan();
    let observed = run_and_kill(&ready, MS, &mut |now, _, _| vec![now + MS], 6 * SECOND);
    let account = &observed.account;
    assert_eq!(observed.joined, 45 * 2);
    assert!((1..40).contains(&account.lost), "{account:?}");
    assert_eq!(account.attempted, account.completed + account.lost + account.unanswered, "{account:?}");
    assert_eq!(account.acknowledged, account.completed + account.lost, "{account:?}");
    // Each client of a lost job has asked for its status, and got the answer that there is no such job.
    let refused = observed.faults.iter().filter(|(fault, _)| matches!(fault, ClientFault::Refused(_)));
    assert_eq!(refused.map(|(_, count)| count).sum::<u64>(), account.lost, "{:?}", observed.faults);
    let others = [account.duplicated, account.unexpected, account.assigned_twice, account.wrong_worker];
    assert_eq!(others, [0; 4], "{account:?}");
    // The violations name the lost jobs.
    assert!(account.violations.iter().all(|lost| lost.item_name().starts_with("job-")), "{account:?}");
}

/// An overloaded hub: every worker's claim times out, and the worker sends another one, before it is assigned a job.
#[rstest]
#[case::between_two_claims(450)]
#[case::after_the_next_claim(700)]
#[case::after_several_claims(2_300)]
fn jobs_that_are_assigned_late_are_still_completed(#[case] late: u64) {
    let ready = job_plan();
    let observed = run(&ready, MS, &mut |now, _, text| match job_id(text, "job_assigned") {
        Some(_) => vec![now + late * MS],
        None => vec![now + MS],
    });
    let account = &observed.account;
    assert_eq!((account.attempted, account.completed), (account.acknowledged, account.attempted), "{account:?}");
    assert!(account.attempted > 150 && account.is_clean(), "{account:?}");
    assert_eq!((observed.failed, observed.faults.len()), (0, 0), "{:?}", observed.faults);
}

/// Workers are assigned jobs seconds before the submitting clients receive the job ids, or after those have timed out.
#[rstest]
#[case::a_little(500, true)]
#[case::by_more_than_the_slack(4_000, true)]
#[case::beyond_patience(12_000, false)]
fn late_answers_are_not_violations(#[case] late: u64, #[case] answered: bool) {
    let ready = job_plan();
    let mut count = 0;
    let observed = run(&ready, MS, &mut |now, _, text| match job_id(text, "job_accepted") {
        Some(_) => {
            count += 1;
            vec![now + if count % 3 == 0 { late * MS } else { MS }]
        }
        None => vec![now + MS],
    });
    let account = &observed.account;
    let violations = [account.unexpected, account.duplicated, account.assigned_twice, account.wrong_worker];
    assert_eq!(violations, [0; 4], "{account:?}");
    assert_eq!(account.unanswered == 0, answered, "{account:?}");
    assert_eq!(account.attempted, account.acknowledged + account.unanswered, "{account:?}");
}

/// The run ends while the hub waits before it retries failed jobs.
#[rstest]
#[case::before(Duration::from_millis(400), 0)]
#[case::after(Duration::from_secs(60), 1)]
fn a_job_waiting_for_its_retry_at_the_end_is_unfinished(#[case] drain: Duration, #[case] done: usize) {
    let overrides = PlanOverrides {
        warm_up: Some(WarmUp::Fixed(Duration::ZERO)),
        duration: Some(Duration::from_secs(8)),
        drain: Some(drain),
        ..PlanOverrides::default()
    };
    let ready = CompiledTestPlan::new("emprops", &PlanSource::Named("retries"), &overrides);
    let observed = run(&ready, MS, &mut |now, _, _| vec![now + MS]);
    let account = &observed.account;
    assert_eq!(account.attempted, account.completed + account.unfinished, "{account:?}");
    assert!(account.is_clean(), "{account:?}");
    assert_eq!(account.unfinished == 0, done == 1, "{account:?}");
}

/// Eighteen thousand of them have to fit in memory along with their connections.
#[test]
fn a_virtual_client_uses_little_memory() {
    assert!(size_of::<VirtualClient>() <= 320, "{}", size_of::<VirtualClient>());
}
