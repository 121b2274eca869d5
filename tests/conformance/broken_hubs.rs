//! Hubs that hang, crash, or leave most requests unanswered while they are tested (`--deviate`, see
//! tests/fixtures/hubs/). With `--exec` and without, a run reports what the hub did, where it did it, and nothing else.

use hubproof::outcome::Verdict;
use rstest::rstest;
use serde_json::Value;

use super::deviating_hubs::deviation_tables;
use super::third_party_hubs::{AIRAVATA, CONCIERGE, HubInstance, ThirdPartyHub, findings, run_against_hub};
use crate::support::disk::{copy_folder, root};
use crate::support::hostile_servers::{HostileHub, Misbehaviour, ScriptedHub};
use crate::support::mini_protocol::check_over_sockets;
use crate::support::process::{ExampleHub, free_port, hubproof};

/// A hub without odd habits and with one instance.
const PLAIN: ThirdPartyHub =
    ThirdPartyHub { instances: &[HubInstance { name: "open", arguments: &["--plain"], target: "" }], ..CONCIERGE };
/// Scenarios that wait for no deadline, without those that are played with many values.
const QUICK: [&str; 2] = ["--scenario", "concierge/[!cdfijs]*"];
/// The hub is not slow, and every wait is in vain.
const SHORT_PATIENCE: [&str; 2] = ["--set", "patience=2s"];

/// Runs a command against a hub that was started before, or that `--exec` starts. Returns its report and exit code;
/// `None` without an interpreter.
#[track_caller]
fn run(command: &str, exec: bool, habits: &[&str], options: &[&str]) -> Option<(Value, Option<i32>)> {
    let options = [&SHORT_PATIENCE, options].concat();
    if !exec {
        return run_against_hub(command, &PLAIN, habits, "", &options);
    }
    let port = free_port();
    let words = format!("{} {} --plain --port {port} {}", PLAIN.interpreter, PLAIN.script, habits.join(" "));
    let url = format!("ws://127.0.0.1:{port}");
    let base = [command, &url, "--protocol", PLAIN.protocol, "--exec", &words, "--report", "json=-"];
    // The interpreter exists if the hub can be started.
    run_against_hub("check", &PLAIN, &[], "", &["--scenario", "greeting"])?;
    let done = hubproof(base.iter().chain(&options));
    let report: Value = serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    Some((report["protocols"][0].clone(), done.code))
}

fn crashes(report: &Value) -> &[Value] {
    report["processes"][0]["crashes"].as_array().map_or(&[], Vec::as_slice)
}

#[track_caller]
fn assert_broken(report: &Value, code: Option<i32>, expected: &[&str]) {
    assert_eq!(findings(report), expected, "{}\n{:#}", report["summary"], report["findings"]);
    assert_eq!(code, Some(1), "{}", report["summary"]);
}

/// The hub is not back: whatever was in progress is inconclusive, and the report says what was.
#[test]
fn a_hub_that_crashes_is_one_finding_without_exec() {
    let habits = ["--deviate", "abort-on-version"];
    let Some((report, code)) = run("check", false, &habits, &QUICK) else { return };
    assert_broken(&report, code, &[]);
    let [crash] = crashes(&report) else { panic!("{report:#}") };
    let during: Vec<&str> = crash["during"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let with_other_versions = ["versions", "odd-version", "names-again", "undisturbed/unidentified"];
    let is_such = |id: &&str| with_other_versions.iter().any(|other| id.strip_prefix("concierge/") == Some(*other));
    assert!(during.iter().any(is_such), "{crash:#}");
    assert!(crash["last_sent"].is_string(), "{crash:#}");
    assert!(report["processes"][0]["given_up"].as_str().unwrap().contains("did not come back"), "{report:#}");
    assert!(report["causes"].as_array().unwrap().iter().all(|cause| cause["unreachable"] == false), "{report:#}");
}

#[test]
#[ignore = "thorough: waits for real time"]
fn a_hub_that_crashes_again_is_one_finding_of_each_scenario_that_crashes_it() {
    let habits = ["--deviate", "abort-on-version"];
    let Some((report, code)) = run("check", true, &habits, &QUICK) else { return };
    assert_broken(&report, code, &["fail process"]);
    let blamed: Vec<&str> = crashes(&report).iter().filter_map(|crash| crash["blamed"].as_str()).collect();
    assert!(blamed.contains(&"concierge/versions") && blamed.contains(&"concierge/odd-version"), "{blamed:?}");
    assert!(report["causes"].as_array().unwrap().iter().all(|cause| cause["unreachable"] == false), "{report:#}");
}

/// Close frames, refused names and errors are no service.
#[rstest]
#[case::early("5")]
#[case::later("20")]
#[case::late("40")]
#[ignore = "thorough: waits for real time"]
fn a_hub_that_deadlocks_but_refuses_is_one_finding(#[case] after: &str, #[values(false, true)] exec: bool) {
    let habits = ["--deviate", "deadlock-after-joins", "--after", after];
    let Some((report, code)) = run("check", exec, &habits, &QUICK) else { return };
    if exec {
        // A scenario with more joins hangs the hub alone, too.
        let is_blamed = crashes(&report).iter().any(|crash| !crash["blamed"].is_null());
        assert_broken(&report, code, if is_blamed { &["fail process"] } else { &[] });
        assert!(
            !crashes(&report).is_empty() && crashes(&report).iter().all(|crash| crash["hung"] == true),
            "{report:#}"
        );
    } else {
        assert_broken(&report, code, &["fail hang"]);
        assert_eq!(crashes(&report), &[] as &[Value]);
    }
}

#[rstest]
#[ignore = "thorough: waits for real time"]
fn a_fuzzed_hub_that_deadlocks_causes_no_other_finding(#[values(false, true)] exec: bool) {
    let habits = ["--deviate", "deadlock-after-joins", "--after", "60"];
    // Where it hangs, it differs from every other hub.
    let cases = ["--cases", "60", "--seed", "3", "-j", "4", "--against", "none"];
    let Some((report, code)) = run("fuzz", exec, &habits, &cases) else { return };
    let lives = &report["fuzzed"]["oracles"]["FUZZ-LIVES"];
    if exec {
        // A case with many joins hangs the hub alone, too.
        let is_blamed = crashes(&report).iter().any(|crash| !crash["blamed"].is_null());
        assert_broken(&report, code, if is_blamed { &["fail FUZZ-LIVES"] } else { &[] });
        // A replay that shall prove a finding can hang the hub, too.
        assert!(lives["broken"].as_u64() >= Some(1), "{lives}");
        assert!(lives["held"].as_u64() < Some(60), "{lives}");
    } else {
        assert_broken(&report, code, &["fail FUZZ-LIVES"]);
    }
}

#[rstest]
#[ignore = "thorough: waits for real time"]
fn a_fuzzed_hub_that_crashes_causes_no_other_finding(#[values(false, true)] exec: bool) {
    let habits = ["--deviate", "abort-on-message"];
    let cases = ["--message", "group_fetch_all", "--message", "self_fetch", "--cases", "60", "--seed", "3", "-j", "4"];
    let Some((report, code)) = run("fuzz", exec, &habits, &cases) else { return };
    assert_broken(&report, code, &["fail FUZZ-LIVES"]);
}

/// The fence is not answered, and assumed answers are no signs of life: nothing shows whether the hub hangs. Checks accuse
/// it of what its entries do not declare: STATUS UNSUBSCRIBED is missing after other requests, too.
#[rstest]
#[case::greets(PLAIN, "mostly-absent", &["fail CON-091", "fail CON-094"])]
#[case::answers_nothing(AIRAVATA, "reply-absent", &[])]
#[ignore = "thorough: repeats the proof against other hubs"]
fn a_hub_most_of_whose_replies_are_declared_absent_does_not_hang(
    #[case] hub: ThirdPartyHub,
    #[case] deviation: &str,
    #[case] undeclared: &[&str],
    #[values("check", "fuzz")] command: &str,
) {
    let habits: &[&str] = if hub.protocol == "airavata" { &["--odd", "heartbeat,rate"] } else { &[] };
    let cases: &[&str] = if command == "fuzz" { &["--cases", "40", "--seed", "3", "-j", "4"] } else { &[] };
    let (tables, options) = (deviation_tables(hub.protocol, deviation), [&SHORT_PATIENCE, cases].concat());
    let habits = [habits, &["--deviate", deviation]].concat();
    let Some((report, _)) = run_against_hub(command, &hub, &habits, &tables, &options) else { return };
    let mut accused: Vec<String> = Vec::new();
    for finding in report["findings"].as_array().unwrap().iter().filter(|finding| finding["expected"] == false) {
        if let (verdict @ ("fail" | "warn"), Some(check)) =
            (finding["verdict"].as_str().unwrap(), finding["check"].as_str())
        {
            accused.push(format!("{verdict} {check}"));
        }
    }
    accused.dedup();
    assert_eq!(accused, if command == "check" { undeclared } else { &[] }, "{:#}", report["findings"]);
    assert_eq!(crashes(&report), &[] as &[Value]);
    if command == "fuzz" {
        assert!(report["fuzzed"]["ended"].is_null(), "{:#}", report["fuzzed"]);
        assert_eq!(report["fuzzed"]["cases"], 40);
    }
}

/// They are played again with fewer others. Replays keep all of their time.
#[test]
fn scenarios_that_a_limit_on_connections_refused_are_judged() {
    let hub = HostileHub::start(Misbehaviour::Busy, r#"{"type":"answer"}"#);
    let talk = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - wait: 300ms\n    because: others connect\n  - anna sends: ask\n  - anna expects: answer\n    rules: [MUST]\n";
    let reports = check_over_sockets(&hub.url(), &[talk; 32]);
    let verdicts: Vec<Verdict> = reports.iter().map(|report| report.verdict).collect();
    assert_eq!(verdicts, [Verdict::Pass; 32]);
    assert!(hub.clients() > 32, "no client was refused");
}

/// With no time left for replays, a hub's only failure is still confirmed.
#[test]
fn what_alone_accuses_a_hub_is_played_again_although_the_time_is_over() {
    let hub = ScriptedHub::start(|_, _, _| Vec::new());
    let talk = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: answer\n    rules: [MUST]\n";
    let reports = check_over_sockets(&hub.url(), &[talk]);
    assert_eq!(reports.iter().map(|report| report.verdict).collect::<Vec<_>>(), [Verdict::Fail]);
}

/// They are played one at a time: many at once could make it miss its deadlines.
#[rstest]
#[case::slow("slow-and-late-once")]
#[case::quick("late-once")]
fn a_slow_hub_gets_variations_too_and_is_not_accused(#[case] habit: &str) {
    let Some(hub) = ExampleHub::start("json-rpc-2.0", &["--bug", habit]) else { return };
    let all = ["--scenario", "json-rpc-2.0/[i-o]*", "--set", "patience=1s", "--report", "events=-"];
    let done = hub.run("check", &all).assert_exit_code(0);
    assert!(done.out.contains(r#""event":"scenario-varied""#), "{done:?}");
    assert!(!done.out.contains(r#""verdict":"fail""#), "{done:?}");
}

/// A frame that came too late once, and in time when the scenario was played again alone, accuses no hub.
#[rstest]
#[case::of_a_slow_hub("slow-and-late-once")]
#[case::of_a_quick_hub("late-once")]
fn what_a_hub_did_not_send_in_time_is_asked_for_again(#[case] habit: &str) {
    let Some(hub) = ExampleHub::start("json-rpc-2.0", &["--bug", habit]) else { return };
    let slowly = ["--scenario", "json-rpc-2.0/methods*", "-j", "1", "--set", "patience=1s"];
    let done = hub.run("check", &slowly).assert_exit_code(0);
    assert!(!done.out.contains("fail[RPC-RESPONDS]"), "{}", done.out);
}

/// Others that owe the hub an answer leave it without a first answer, which breaks no rule.
#[test]
fn a_scenario_that_others_have_blocked_is_judged_alone() {
    let Some(hub) = ExampleHub::start("ocpp-1.6j", &["--bug", "all-wait"]) else { return };
    let all = ["boot", "crossing", "neighbours"].map(|name| format!("ocpp-1.6j/{name}"));
    let chosen: Vec<&str> = all.iter().flat_map(|id| ["--scenario", id]).collect();
    let done = hub.run("check", &[&chosen[..], &["--set", "patience=1s"]].concat()).assert_exit_code(1);
    assert!(done.out.contains("fail[OCPP-ISOLATION]: ocpp-1.6j/neighbours"), "{}", done.out);
}

/// The hub is not started again, so what is played afterwards would find it gone.
#[test]
fn nothing_is_played_again_after_a_scenario_that_ends_the_hub() {
    let Some(hub) = ExampleHub::start("ocpp-1.6j", &["--bug", "all-wait"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("ocpp-1.6j");
    copy_folder(&root().join("examples/packs/ocpp-1.6j"), &pack);
    let write = |name: &str, text: &str| std::fs::write(pack.join(name), text).unwrap();
    let read = |name: &str| std::fs::read_to_string(pack.join(name)).unwrap();
    let shared = read("scenarios/shared.yaml");
    write("scenarios/shared.yaml", &shared.replace("fills:\n", "hooks: { end: { about: the hub ends } }\nfills:\n"));
    let end = "title: The hub ends\ndestructive: true\nactors: { anna: charge_point }\nsteps:\n  - anna joins:\n  - hook: end\n  - anna expects close: [any, drop]\n";
    write("scenarios/end.yaml", end);
    let hook = format!("\n[hooks.end]\ncommand = [\"kill\", \"{}\"]\n", hub.id());
    write("target.toml", &(read("target.toml") + &hook));
    let (target, pack) = (pack.join("target.toml"), pack.display().to_string());
    let (target, url) = (target.display().to_string(), format!("url={}", hub.url));
    let all = ["crossing", "neighbours", "end"].map(|name| format!("ocpp-1.6j/{name}"));
    let chosen = all.iter().flat_map(|id| ["--scenario", id]);
    let base = ["check", "--pack", &pack, "--target", &target, "--set", &url, "--destructive"];
    let more = ["--set", "patience=1s"];
    let done = hubproof(base.into_iter().chain(chosen).chain(more)).assert_exit_code(1);
    assert!(done.out.contains("fail[OCPP-ISOLATION]: ocpp-1.6j/neighbours"), "{}", done.out);
    assert!(!done.out.contains("ended by itself"), "{}", done.out);
}

/// The fuzzer replays such a case, too; what is late again accuses the hub, unless it is slow.
#[rstest]
#[case::of_a_slow_hub("slow-and-errors-late", 0)]
#[case::of_a_quick_hub("errors-late", 1)]
fn what_a_slow_hub_did_not_answer_in_time_is_fuzzed_again(#[case] habit: &str, #[case] code: i32) {
    let Some(hub) = ExampleHub::start("json-rpc-2.0", &["--bug", habit]) else { return };
    let slowly =
        ["--message", "request", "--mutation", "no-json", "--cases", "1", "--seed", "2", "--set", "patience=1s"];
    let done = hub.run("fuzz", &slowly).assert_exit_code(code);
    assert_eq!(done.out.contains("fail[FUZZ-REJECTS,"), code == 1, "{}", done.out);
    assert_eq!(done.out.contains("is slow, and was not confirmed by a replay"), code == 0, "{}", done.out);
}
