//! Hubs that deviate from their documents in one way each, as real ones do (`--deviate`, see tests/fixtures/hubs/).
//! Without a declaration the harness reports the deviation and still judges most of the rest. With the `[[deviation]]`
//! tables of tests/fixtures/hubs/deviations.toml it judges nearly all rules, and reports nothing else.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use rstest::rstest;
use serde_json::{Value, json};

use super::third_party_hubs::{AIRAVATA, CONCIERGE, EMPROPS, GATOR, QI, ThirdPartyHub, run_against_hub};

/// The result of a run on a hub with some deviation, or none.
struct CheckedRun {
    /// Rules with a check at their own level that had a result.
    rules: BTreeSet<String>,
    /// Rules that fail or warn, except because of a declared deviation; the check's name if it has no rule.
    accused: BTreeSet<String>,
    code: Option<i32>,
    summary: String,
    /// The entries `[[deviation]]` that the report proposes.
    proposals: Vec<Value>,
    /// The findings that no declared deviation explains, as the report has them.
    findings: Value,
}

/// Hubs of one protocol that are checked at the same time.
const PARALLEL_HUBS: usize = 4;

/// Returns the entries that a run must propose for a deviation.
fn expected_proposals(protocol: &str, deviation: &str) -> Vec<Value> {
    let all: toml::Table = toml::from_str(include_str!("../fixtures/hubs/proposals.toml")).unwrap();
    let entries = all.get(protocol).and_then(|deviations| deviations.get(deviation)?.as_array());
    entries.into_iter().flatten().map(|entry| serde_json::to_value(entry).unwrap()).collect()
}

/// An entry that explains as much as the expected one if no `system_status_event` came in the run, as on a busy machine:
/// every message of that type had the other one.
const WIDER_PROPOSAL: (&str, &str, &str) = (
    "airavata",
    "greeting-other",
    r#"{ "member": "/type", "value": "system_status", "spelled": "subscription_response" }"#,
);

/// Whether an entry is the wider one for this deviation.
fn is_wider_proposal(protocol: &str, deviation: &str, entry: &Value) -> bool {
    (protocol, deviation) == (WIDER_PROPOSAL.0, WIDER_PROPOSAL.1)
        && entry_has_members(entry, &serde_json::from_str(WIDER_PROPOSAL.2).unwrap())
}

/// Whether an entry has these members; for a header, an upgrade is enough, as only the user knows which.
fn entry_has_members(entry: &Value, wanted: &Value) -> bool {
    match wanted.as_object().unwrap() {
        members if members.is_empty() => entry["upgrade"].is_object(),
        members => members.iter().all(|(name, value)| entry[name] == *value),
    }
}

/// Whether an entry says what the hub does: as expected, or like a table that declares the deviation, perhaps for other
/// messages.
fn is_right_proposal(protocol: &str, deviation: &str, entry: &Value) -> bool {
    let declares = |table: &Value| {
        let kinds = ["instead", "spelled", "renamed", "missing", "from_hub", "to_hub", "absent", "upgrade"];
        let same = |name: &&str| table.get(name).is_some() && entry.get(name).is_some();
        let equal = |name: &&str| table.get(name) == entry.get(name);
        let of_message = ["instead", "absent"].iter().any(same);
        kinds.iter().any(same)
            && ["member", "after", "renamed", "spelled"].iter().all(equal)
            && (!of_message || equal(&"message"))
    };
    // A hub that does not know the documented name has nothing to return under its own either.
    let also_missing = |table: &Value| {
        table.get("renamed").is_some() && entry.get("missing").is_some() && table.get("member") == entry.get("member")
    };
    let tables: toml::Table = toml::from_str(&deviation_tables(protocol, deviation)).unwrap();
    let tables = serde_json::to_value(&tables["deviation"]).unwrap();
    expected_proposals(protocol, deviation).iter().any(|wanted| entry_has_members(entry, wanted))
        || is_wider_proposal(protocol, deviation, entry)
        || tables.as_array().unwrap().iter().any(|table| declares(table) || also_missing(table))
}

/// Returns options that select quick scenarios: without the deadline of five seconds, without the heartbeat, which
/// waits for many pings, and of EmProps, whose scenarios play one after the other, a part.
fn scenario_options(hub: &ThirdPartyHub) -> &'static [&'static str] {
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

/// Plays the quickest scenarios for a hub with few deviations; `None` without an interpreter.
#[track_caller]
fn check_hub(hub: &ThirdPartyHub, deviate: &[&str], more: &str) -> Option<CheckedRun> {
    // The deviations that settings of the target file describe.
    let habits: &[&str] = if hub.protocol == "airavata" { &["--odd", "heartbeat,rate"] } else { &["--plain"] };
    let scenarios = scenario_options(hub);
    let options = [&["--strict", "--set", "patience=2s"], hub.options, scenarios].concat();
    let (report, code) = run_against_hub("check", hub, &[habits, deviate].concat(), more, &options)?;
    let by_id = report["rules"]["by_id"].as_object().unwrap().iter();
    let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["expected"] == false);
    Some(CheckedRun {
        rules: by_id.filter(|(_, rule)| rule["decided"] == true).map(|(id, _)| id.clone()).collect(),
        accused: findings
            .clone()
            .filter(|finding| finding["verdict"] == "fail" || finding["verdict"] == "warn")
            .flat_map(|finding| match finding["rules"].as_array().unwrap().as_slice() {
                [] => std::slice::from_ref(&finding["check"]),
                rules => rules,
            })
            .map(|name| name.as_str().unwrap().to_owned())
            .collect(),
        code,
        summary: report["summary"].as_str().unwrap().to_owned(),
        proposals: report["proposals"].as_array().unwrap().iter().map(|one| one["entry"].clone()).collect(),
        findings: findings.filter(|finding| finding["expected"] == false).cloned().collect(),
    })
}

/// Returns the tables that declare a deviation, as the end of a target file.
pub(super) fn deviation_tables(protocol: &str, deviation: &str) -> String {
    let all: toml::Table = toml::from_str(include_str!("../fixtures/hubs/deviations.toml")).unwrap();
    let tables = all[protocol][deviation].clone();
    toml::to_string(&toml::Table::from_iter([("deviation".to_owned(), tables)])).unwrap()
}

/// Returns the percentage of the rules judged without a deviation that are also judged with it.
fn judged_share(before: &CheckedRun, judged: &CheckedRun) -> usize {
    before.rules.intersection(&judged.rules).count() * 100 / before.rules.len()
}

/// A deviation of a hub, and the share of rules that is still judged.
struct DeviationRow {
    deviation: &'static str,
    /// The least share of rules that is judged without a declaration, in percent: 60, unless little can be tested
    /// before the hub is understood.
    undeclared: usize,
    /// Rules that fail despite the declared deviation.
    still_accused: &'static [&'static str],
}

const fn row(deviation: &'static str, undeclared: usize, still_accused: &'static [&'static str]) -> DeviationRow {
    DeviationRow { deviation, undeclared, still_accused }
}

#[rstest]
#[case::concierge(CONCIERGE, &[
    row("greeting-other", 35, &[]),
    row("reply-absent", 60, &[]),
    row("alias", 60, &[]),
    row("alias-value", 60, &[]),
    row("member-renamed", 60, &[]),
    row("member-type", 60, &[]),
    row("member-missing", 60, &[]),
    row("extra-header", 0, &[]),
])]
#[case::airavata(AIRAVATA, &[
    row("greeting-other", 30, &[]),
    row("reply-absent", 30, &[]),
    row("alias", 60, &[]),
    row("alias-value", 40, &[]),
    row("member-renamed", 40, &[]),
    row("member-type", 60, &[]),
    row("member-missing", 60, &[]),
    row("extra-header", 0, &[]),
])]
#[case::gator(GATOR, &[
    row("greeting-other", 60, &[]),
    // The entry is for stops with `posted: false`, not for those without `posted`.
    row("reply-absent", 60, &["GAT-009", "GAT-013", "GAT-039"]),
    row("alias", 60, &[]),
    row("alias-value", 60, &[]),
    row("alias-result", 60, &[]),
    row("member-renamed", 60, &[]),
    // A text of digits is returned as a number, also one that the hub chose for its own request.
    row("member-type", 60, &["GAT-006", "GAT-009"]),
    row("member-missing", 60, &[]),
    row("extra-header", 0, &[]),
])]
#[case::emprops(EMPROPS, &[
    row("greeting-other", 60, &[]),
    row("reply-absent", 60, &[]),
    row("alias", 40, &[]),
    row("alias-value", 60, &[]),
    row("member-renamed", 40, &[]),
    row("member-type", 0, &[]),
    row("member-missing", 60, &[]),
    row("extra-header", 0, &[]),
])]
#[case::qi(QI, &[
    row("reply-absent", 60, &[]),
    row("alias", 60, &[]),
    row("member-renamed", 60, &[]),
    row("member-type", 60, &[]),
    row("member-missing", 60, &[]),
    row("extra-header", 0, &[]),
])]
#[ignore = "thorough: repeats the proof against other hubs"]
fn deviations_are_proposed_and_declared_ones_do_not_block_the_run(
    #[case] hub: ThirdPartyHub,
    #[case] rows: &[DeviationRow],
) {
    let Some(before) = check_hub(&hub, &[], "") else { return };
    assert_eq!((before.code, &before.accused), (Some(0), &BTreeSet::new()), "{}", before.summary);
    for_each_in_parallel(rows, |row| assert_deviation_is_handled(&hub, &before, row));
}

/// All members have other names. `--explore` finds them, and the hub passes with the entries it writes, apart from
/// `unexplored` rules: it stops after about three plain checks, and has not tried every name that stops no scenario.
#[rstest]
#[case::concierge(CONCIERGE, &[])]
// A run on a busy machine may see no system status, in which these members are.
#[case::airavata(AIRAVATA, &["AIR-041"])]
#[case::emprops(EMPROPS, &[])]
#[ignore = "thorough: repeats the proof against other hubs"]
fn a_hub_with_differently_cased_names_is_explored_completely(#[case] hub: ThirdPartyHub, #[case] unexplored: &[&str]) {
    let Some(before) = check_hub(&hub, &[], "") else { return };
    let other_case = &["--deviate", "other-case"];
    let written = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let place: &str = written.path().to_str().unwrap().to_owned().leak();
    let options = [hub.options, &["--explore", "--write-deviations", place]].concat();
    let explored = check_hub(&ThirdPartyHub { options: options.leak(), ..hub }, other_case, "").unwrap();
    let entries = std::fs::read_to_string(place).unwrap();
    assert!(judged_share(&before, &explored) >= 95, "{}\n{entries}", explored.summary);
    let declared = check_hub(&hub, other_case, &entries).unwrap();
    let accused = || declared.accused.iter().map(String::as_str);
    assert!(accused().all(|rule| unexplored.contains(&rule)), "{:?}: {}", declared.accused, declared.summary);
    assert_eq!(declared.code, Some(i32::from(accused().next().is_some())), "{}", declared.summary);
    assert!(judged_share(&before, &declared) >= 95, "{}", declared.summary);
}

/// Calls a function for all of these, several at once: they mostly wait.
fn for_each_in_parallel<T: Sync>(all: &[T], call: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            call(one);
        }
    };
    std::thread::scope(|scope| (0..PARALLEL_HUBS).for_each(|_| drop(scope.spawn(work))));
}

fn assert_deviation_is_handled(
    hub: &ThirdPartyHub,
    before: &CheckedRun,
    DeviationRow { deviation, undeclared, still_accused }: &DeviationRow,
) {
    let name = format!("{} {deviation}", hub.protocol);
    let found = check_hub(hub, &["--deviate", deviation], "").unwrap();
    assert!(matches!(found.code, Some(1 | 3)), "{name}: {:?}: {}", found.code, found.summary);
    let judged = judged_share(before, &found);
    assert!(judged >= *undeclared, "{name}, undeclared: only {judged} % are judged: {}", found.summary);
    for wanted in &expected_proposals(hub.protocol, deviation) {
        let proposals = &found.proposals;
        let is_wanted =
            |entry: &Value| entry_has_members(entry, wanted) || is_wider_proposal(hub.protocol, deviation, entry);
        assert!(proposals.iter().any(is_wanted), "{name}: {wanted}: {proposals:#?}");
    }
    let wrong: Vec<&Value> =
        found.proposals.iter().filter(|entry| !is_right_proposal(hub.protocol, deviation, entry)).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");

    let declared = check_hub(hub, &["--deviate", deviation], &deviation_tables(hub.protocol, deviation)).unwrap();
    let accused: BTreeSet<String> = still_accused.iter().map(ToString::to_string).collect();
    assert_eq!(declared.accused, accused, "{name}: {}: {:#}", declared.summary, declared.findings);
    let judged = judged_share(before, &declared);
    // An assumed message is no evidence, so what follows from it is not judged.
    let least = if *deviation == "reply-absent" { 85 } else { 95 };
    assert!(judged >= least, "{name}, declared: only {judged} % are judged: {}", declared.summary);
}

/// A hub that hangs or ends cannot be declared, and never passes.
#[rstest]
#[ignore = "thorough: repeats the proof against other hubs"]
fn a_hub_that_stops_serving_never_passes(#[values("hang-after-joins", "abort-on-message")] deviation: &str) {
    for_each_in_parallel(&[CONCIERGE, AIRAVATA, GATOR, EMPROPS, QI], |hub| {
        // The hub is not slow, and every wait is in vain.
        let hub = ThirdPartyHub { options: &["--stretch", "0.5"], ..*hub };
        let name = hub.protocol;
        // A hub that hangs before it has served anything counts as not serving, not as hanging.
        let Some(found) = check_hub(&hub, &["--deviate", deviation, "--after", "20"], "") else { return };
        assert!(matches!(found.code, Some(1 | 3)), "{name}: {:?}: {}", found.code, found.summary);
        if deviation == "hang-after-joins" {
            assert!(found.accused.contains("hang"), "{name}: {:?}: {}", found.accused, found.summary);
        }
    });
}

/// The queue gives each job an id and never says which: whatever clients assume instead is no evidence.
#[test]
#[ignore = "thorough: repeats the proof against other hubs"]
fn a_queue_that_never_reveals_an_id_is_not_accused_under_load() {
    let plan = "--workers 10 --clients 4 --rate 40 --ramp 200ms --warm-up 500ms --duration 2s --drain 4s --seed 7";
    let thresholds = ["submit_job.response.p99 < 1s", "job_accepted.received > 0", "ledger.unexpected == 0"];
    let mut options: Vec<&str> = plan.split(' ').collect();
    options.extend(thresholds.iter().flat_map(|text| ["--threshold", text]));
    let entries = deviation_tables("emprops", "id-hidden");
    let hub = ["--plain", "--deviate", "id-hidden"];
    let Some((report, code)) = run_against_hub("load", &EMPROPS, &hub, &entries, &options) else { return };
    assert_eq!(code, Some(3), "{:#}", report["validity"]);
    let count = |name: &str| report["counts"][name]["whole_run"].as_u64().unwrap_or(0);
    let sent = count("submit_job.sent");
    assert!(sent > 50, "{}", report["counts"]);
    let assumed = ["job_accepted.assumed", "submit_job.answers_assumed", "job.assumed"].map(count);
    let invented = ["job_accepted.received", "submit_job.answered", "job.completed", "job.failed"].map(count);
    assert_eq!((assumed, invented), ([sent; 3], [0; 4]), "{}", report["counts"]);
    assert_eq!(report["errors"], 0, "{}", report["counts"]);
    let timed: Vec<&String> = report["times"].as_object().unwrap().keys().collect();
    assert!(timed.iter().all(|name| !name.starts_with("submit_job.re") && *name != "job.duration"), "{timed:?}");
    let (ledger, deviation) = (&report["ledger"], &report["deviations"][0]);
    assert_eq!((&ledger["violations"], &ledger["assumed"]), (&json!([]), &json!({ "deviation:1": sent })));
    let counted = ["attempted", "assumed", "acknowledged", "completed", "unexpected", "lost", "unanswered"];
    let counted = counted.map(|name| ledger["counts"][name].as_u64().unwrap());
    assert_eq!(counted, [sent, sent, 0, 0, 0, 0, 0]);
    assert_eq!((&deviation["assumed"], &deviation["standing"]), (&json!(sent), &json!("expected")));
    // Nothing that was only assumed holds or breaks a threshold.
    let standings = report["thresholds"].as_array().unwrap().iter();
    let standings: Vec<(&Value, &Value)> = standings.map(|one| (&one["text"], &one["standing"])).collect();
    for text in thresholds.into_iter().chain(["ledger.lost == 0"]) {
        assert!(standings.contains(&(&json!(text), &json!("not-observed"))), "{text}: {standings:?}");
    }
    assert!(standings.iter().all(|(_, standing)| *standing != "broken"), "{standings:?}");
}
