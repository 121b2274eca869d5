//! Hubs that depart from their documents in one way each, as real ones do (`--deviate`, see tests/fixtures/hubs/). Without
//! a declaration the harness reports the deviation and still judges most of the rest. With the `[[deviation]]` tables of
//! tests/fixtures/hubs/deviations.toml it judges nearly all rules, and accuses the hub of nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};

use rstest::rstest;
use serde_json::Value;

use super::third_party_hubs::{AIRAVATA, CONCIERGE, EMPROPS, GATOR, Hub, QI, run};

/// The result of a run on a hub with some deviation, or none.
struct Judged {
    /// Rules with a check at their own level that had a result.
    rules: BTreeSet<String>,
    /// Rules that fail or warn, and not because a declared deviation breaks them; the check's name where it has no rule.
    accused: BTreeSet<String>,
    code: Option<i32>,
    summary: String,
    /// The entries `[[deviation]]` that the report proposes.
    proposals: Vec<Value>,
}

/// What is proposed for a deviation: the entry must have these members, so that it means the right message and kind.
const PROPOSED: [(&str, &str, &str); 12] = [
    ("concierge", "greeting-other", r#"{ "message": "hello", "instead": { "type": "WELCOME" } }"#),
    (
        "concierge",
        "reply-absent",
        r#"{ "message": "status_message_sent", "absent": true, "after": "message_to_name" }"#,
    ),
    ("concierge", "member-renamed", r#"{ "member": "/seq", "renamed": "/sequence" }"#),
    ("concierge", "member-type", r#"{ "member": "/seq", "from_hub": "${value | int}" }"#),
    ("gator", "greeting-other", r#"{ "message": "log_response", "instead": { "action": "log_done" } }"#),
    (
        "airavata",
        "reply-absent",
        r#"{ "message": "subscribe_response", "absent": true, "after": "subscribe_request" }"#,
    ),
    ("emprops", "reply-absent", r#"{ "message": "client_registered", "absent": true }"#),
    ("emprops", "member-renamed", r#"{ "message": "job_accepted", "member": "/job_id", "renamed": "/jobId" }"#),
    ("concierge", "extra-header", "{}"),
    ("gator", "extra-header", "{}"),
    ("emprops", "extra-header", "{}"),
    ("qi", "extra-header", "{}"),
];

/// Whether an entry has these members; for a header, an upgrade is enough, as only the user knows which.
fn proposes(entry: &Value, wanted: &str) -> bool {
    let wanted: Value = serde_json::from_str(wanted).unwrap();
    match wanted.as_object().unwrap() {
        members if members.is_empty() => entry["upgrade"].is_object(),
        members => members.iter().all(|(name, value)| entry[name] == *value),
    }
}

/// Returns options that select what takes little time: without the deadline of five seconds, without the heartbeat, which
/// waits for many pings, and of EmProps, whose scenarios play one after the other, a part.
fn scenarios(hub: &Hub) -> &'static [&'static str] {
    match hub.protocol {
        "concierge" => &["--scenario", "concierge/[!i]*"],
        "airavata" => &["--scenario", "airavata/[!h]*"],
        "emprops" => &[
            "--scenario",
            "emprops/{greeting,registration,claims,failure,job-lifecycle,not-understood,subscriptions,submission,counters}",
        ],
        _ => &[],
    }
}

/// Plays what a hub with few habits needs least time for; `None` without an interpreter.
#[track_caller]
fn check(hub: &Hub, deviate: &[&str], more: &str) -> Option<Judged> {
    // The habits that settings of the target file state.
    let habits: &[&str] = if hub.protocol == "airavata" { &["--odd", "heartbeat,rate"] } else { &["--plain"] };
    let scenarios = scenarios(hub);
    let options = [&["--strict", "--set", "patience=2s"], hub.options, scenarios].concat();
    let (report, code) = run("check", hub, &[habits, deviate].concat(), more, &options)?;
    let by_id = report["rules"]["by_id"].as_object().unwrap().iter();
    let findings = report["findings"].as_array().unwrap().iter();
    Some(Judged {
        rules: by_id.filter(|(_, rule)| rule["proven"] == true).map(|(id, _)| id.clone()).collect(),
        accused: findings
            .filter(|finding| finding["verdict"] == "fail" || finding["verdict"] == "warn")
            .filter(|finding| finding["expected"] == false)
            .flat_map(|finding| match finding["rules"].as_array().unwrap().as_slice() {
                [] => std::slice::from_ref(&finding["check"]),
                rules => rules,
            })
            .map(|name| name.as_str().unwrap().to_owned())
            .collect(),
        code,
        summary: report["summary"].as_str().unwrap().to_owned(),
        proposals: report["proposals"].as_array().unwrap().iter().map(|one| one["entry"].clone()).collect(),
    })
}

/// Returns the result without any deviation, which is the same for all cases of a protocol.
fn without_deviation(hub: &Hub) -> Option<&'static Judged> {
    static BY_PROTOCOL: Mutex<BTreeMap<&str, &OnceLock<Option<Judged>>>> = Mutex::new(BTreeMap::new());
    let result = *BY_PROTOCOL.lock().unwrap().entry(hub.protocol).or_insert_with(|| Box::leak(Box::default()));
    result.get_or_init(|| check(hub, &[], "")).as_ref()
}

/// Returns the tables that declare a deviation, as the end of a target file.
fn declaration(protocol: &str, deviation: &str) -> String {
    let all: toml::Table = toml::from_str(include_str!("../fixtures/hubs/deviations.toml")).unwrap();
    let tables = all[protocol][deviation].clone();
    toml::to_string(&toml::Table::from_iter([("deviation".to_owned(), tables)])).unwrap()
}

/// Returns how much of what is judged without a deviation is judged with it, in percent.
fn share(before: &Judged, judged: &Judged) -> usize {
    before.rules.intersection(&judged.rules).count() * 100 / before.rules.len()
}

/// `undeclared` is the least share of rules that is judged without a declaration, 60 unless little can be done before the
/// hub is understood. `beside` are rules that the declared deviation is accused of all the same.
#[rstest]
#[case::concierge_greeting_other(CONCIERGE, "greeting-other", 60, &[])]
// `seq` of what never comes cannot be stated.
#[case::concierge_reply_absent(CONCIERGE, "reply-absent", 60, &["CON-033"])]
#[case::concierge_alias(CONCIERGE, "alias", 60, &[])]
#[case::concierge_alias_value(CONCIERGE, "alias-value", 60, &[])]
#[case::concierge_member_renamed(CONCIERGE, "member-renamed", 60, &[])]
#[case::concierge_member_type(CONCIERGE, "member-type", 60, &[])]
#[case::concierge_member_missing(CONCIERGE, "member-missing", 60, &[])]
#[case::concierge_extra_header(CONCIERGE, "extra-header", 0, &[])]
#[case::airavata_greeting_other(AIRAVATA, "greeting-other", 30, &[])]
#[case::airavata_reply_absent(AIRAVATA, "reply-absent", 30, &[])]
#[case::airavata_alias(AIRAVATA, "alias", 60, &[])]
#[case::airavata_alias_value(AIRAVATA, "alias-value", 40, &[])]
#[case::airavata_member_renamed(AIRAVATA, "member-renamed", 40, &[])]
#[case::airavata_member_type(AIRAVATA, "member-type", 60, &[])]
#[case::airavata_member_missing(AIRAVATA, "member-missing", 60, &[])]
#[case::airavata_extra_header(AIRAVATA, "extra-header", 0, &[])]
#[case::gator_greeting_other(GATOR, "greeting-other", 60, &[])]
#[case::gator_reply_absent(GATOR, "reply-absent", 60, &[])]
#[case::gator_alias(GATOR, "alias", 60, &[])]
#[case::gator_alias_value(GATOR, "alias-value", 60, &[])]
#[case::gator_alias_result(GATOR, "alias-result", 60, &[])]
#[case::gator_member_renamed(GATOR, "member-renamed", 60, &[])]
// A text of digits comes back as a number.
#[case::gator_member_type(GATOR, "member-type", 60, &["GAT-006"])]
// The missing action is that of the request, which `assume` does not know.
#[case::gator_member_missing(GATOR, "member-missing", 60, &["GAT-015"])]
#[case::gator_extra_header(GATOR, "extra-header", 0, &[])]
#[case::emprops_greeting_other(EMPROPS, "greeting-other", 60, &[])]
#[case::emprops_reply_absent(EMPROPS, "reply-absent", 60, &[])]
#[case::emprops_alias(EMPROPS, "alias", 40, &[])]
#[case::emprops_alias_value(EMPROPS, "alias-value", 60, &[])]
#[case::emprops_member_renamed(EMPROPS, "member-renamed", 40, &[])]
#[case::emprops_member_type(EMPROPS, "member-type", 0, &[])]
#[case::emprops_member_missing(EMPROPS, "member-missing", 60, &[])]
#[case::emprops_extra_header(EMPROPS, "extra-header", 0, &[])]
#[case::qi_reply_absent(QI, "reply-absent", 60, &[])]
#[case::qi_alias(QI, "alias", 60, &[])]
#[case::qi_member_renamed(QI, "member-renamed", 60, &[])]
#[case::qi_member_type(QI, "member-type", 60, &[])]
#[case::qi_member_missing(QI, "member-missing", 60, &[])]
#[case::qi_extra_header(QI, "extra-header", 0, &[])]
fn a_deviation_is_found_and_once_declared_is_no_obstacle(
    #[case] hub: Hub,
    #[case] deviation: &str,
    #[case] undeclared: usize,
    #[case] beside: &[&str],
) {
    let Some(before) = without_deviation(&hub) else { return };
    assert_eq!((before.code, &before.accused), (Some(0), &BTreeSet::new()), "{}", before.summary);

    let found = check(&hub, &["--deviate", deviation], "").unwrap();
    assert!(matches!(found.code, Some(1 | 3)), "{:?}: {}", found.code, found.summary);
    let judged = share(before, &found);
    assert!(judged >= undeclared, "undeclared: only {judged} % are judged: {}", found.summary);
    for (_, _, wanted) in PROPOSED.iter().filter(|(name, of, _)| *name == hub.protocol && *of == deviation) {
        assert!(found.proposals.iter().any(|entry| proposes(entry, wanted)), "{wanted}: {:#?}", found.proposals);
    }

    let declared = check(&hub, &["--deviate", deviation], &declaration(hub.protocol, deviation)).unwrap();
    assert_eq!(declared.accused, beside.iter().map(ToString::to_string).collect(), "{}", declared.summary);
    let judged = share(before, &declared);
    assert!(judged >= 95, "declared: only {judged} % are judged: {}", declared.summary);
}

/// A hub that hangs or ends cannot be declared, and never passes.
#[rstest]
fn a_hub_that_stops_serving_never_passes(
    #[values(CONCIERGE, AIRAVATA, GATOR, EMPROPS, QI)] hub: Hub,
    #[values("hang-after-joins", "abort-on-message")] deviation: &str,
) {
    // It is not slow, and each wait is in vain.
    let hub = Hub { options: &["--patience", "0.5"], ..hub };
    // A hub that hangs before it has served anything does not hang: it does not serve.
    let Some(found) = check(&hub, &["--deviate", deviation, "--after", "20"], "") else { return };
    assert!(matches!(found.code, Some(1 | 3)), "{:?}: {}", found.code, found.summary);
    if deviation == "hang-after-joins" {
        assert!(found.accused.contains("hang"), "{:?}: {}", found.accused, found.summary);
    }
}
