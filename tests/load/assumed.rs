//! Hubs that never send a message, as their target declares: clients assume it and continue, and nothing assumed is
//! counted as something that the hub did.

use std::collections::BTreeSet;

use hubproof::load::client::io::ClientFault;
use hubproof::load::ids::JourneyId;
use serde_json::Value;

use crate::support::sim_load::{CompiledTestPlan, SimulationResults, job_plan, run_with_deviations};

const MS: u64 = 1_000_000;

/// The frame in the form of the hub; `None` if the hub never sends it.
type HubForm = fn(&Value) -> Option<Value>;

fn play(ready: &CompiledTestPlan, form: HubForm, entries: &str) -> SimulationResults {
    let form = |text: &str| form(&serde_json::from_str(text).unwrap()).map(|json| json.to_string());
    run_with_deviations(ready, MS, &form, entries)
}

/// Whether a client blamed the hub for something.
fn blames_hub(results: &SimulationResults) -> Vec<ClientFault> {
    let faults = results.faults.keys().copied();
    faults.filter(|fault| !matches!(fault, ClientFault::Aborted)).collect()
}

fn without_acceptance(json: &Value) -> Option<Value> {
    (json["type"] != "job_accepted").then(|| json.clone())
}

#[test]
fn jobs_whose_id_is_never_revealed_are_not_judged() {
    let ready = job_plan();
    let entries = "[{ reason: never, message: job_accepted, absent: true, after: submit_job }]";
    let observed = play(&ready, without_acceptance, entries);
    let (submit, accepted) = (ready.message("submit_job"), ready.message("job_accepted"));
    let sent = observed.sent[&submit];
    assert!(sent > 100, "{sent}");
    // Every acceptance is assumed, with an id of its own.
    assert_eq!(observed.assumed.get(&accepted), Some(&sent));
    assert_eq!(observed.answers_assumed.get(&submit), Some(&sent));
    assert_eq!((observed.received.get(&Some(accepted)), observed.answered.get(&submit)), (None, None));
    let assumed: Vec<Value> = observed.assumed_texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let ids: BTreeSet<&str> = assumed.iter().map(|json| json["job_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len() as u64, sent, "{ids:?}");
    // The ledger knows the requests and nothing else.
    let account = &observed.account;
    assert!(account.is_clean(), "{account:#?}");
    assert_eq!((account.attempted, account.assumed.get(&0)), (sent, Some(&sent)), "{account:?}");
    assert_eq!((account.acknowledged, account.completed, account.unanswered), (0, 0, 0), "{account:?}");
    // The journeys say nothing, whatever became of them; those of the workers do.
    assert_eq!(observed.journeys_assumed, sent);
    assert_eq!((observed.failed, blames_hub(&observed)), (0, Vec::new()));
    let jobs = ready.prepared.journeys.iter().position(|journey| journey == "job").unwrap();
    assert_eq!(observed.journeys.get(&JourneyId(jobs as u16)), None);
}

#[test]
fn jobs_are_not_lost_if_their_assignment_is_assumed() {
    let ready = job_plan();
    let entries = "[{ reason: never, message: job_assigned, absent: true, after: claim_job }]";
    let observed = play(&ready, |json| (json["type"] != "job_assigned").then(|| json.clone()), entries);
    let account = &observed.account;
    assert!(account.acknowledged > 100, "{account:?}");
    assert!(account.is_clean(), "{account:#?}");
    assert_eq!(account.assumed.get(&0), Some(&account.acknowledged), "{account:?}");
    // What the workers send about an assumed job gets no answer; that is not the hub's fault.
    let ack = ready.message("complete_job");
    assert!(observed.sent[&ack] > 100 && !observed.answered.contains_key(&ack));
    let blamed = blames_hub(&observed);
    assert!(
        blamed.iter().all(|fault| *fault == ClientFault::Missing(ready.message("job_completed"))
            || *fault == ClientFault::Timeout(ready.message("subscribe_job"))),
        "{blamed:?}"
    );
}

#[test]
fn an_id_that_the_hub_leaves_out_of_its_answer_is_not_judged() {
    let ready = job_plan();
    let entries = "[{ reason: none, message: job_accepted, member: /job_id, missing: true }]";
    let observed = play(
        &ready,
        |json| {
            let mut json = json.clone();
            if json["type"] == "job_accepted" {
                json.as_object_mut().unwrap().remove("job_id");
            }
            Some(json)
        },
        entries,
    );
    // The answer came, so it is counted and timed.
    let (submit, accepted) = (ready.message("submit_job"), ready.message("job_accepted"));
    let sent = observed.sent[&submit];
    assert_eq!(observed.received.get(&Some(accepted)), Some(&sent));
    assert_eq!(observed.answered[&submit].len() as u64, sent);
    let account = &observed.account;
    assert!(account.is_clean(), "{account:#?}");
    assert_eq!((account.attempted, account.assumed.get(&0), account.acknowledged), (sent, Some(&sent), 0));
    assert_eq!(blames_hub(&observed), []);
}

#[test]
fn a_run_without_assumed_messages_is_judged_as_before() {
    let ready = job_plan();
    let entries = "[{ reason: never, message: pong, absent: true, after: ping }]";
    let observed = play(&ready, |json| Some(json.clone()), entries);
    let account = &observed.account;
    assert_eq!((account.attempted, account.acknowledged), (account.completed, account.completed), "{account:?}");
    assert_eq!((account.assumed.len(), observed.journeys_assumed, observed.assumed.len()), (0, 0, 0));
    assert_eq!(observed.answered[&ready.message("submit_job")].len() as u64, account.attempted);
}
