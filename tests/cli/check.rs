//! `hubproof check`: selection of scenarios, options, output and exit codes.

use std::time::Duration;

use rstest::rstest;
use serde_json::Value;

use crate::support::disk;
use crate::support::hostile_servers::{HostileHub, Misbehaviour, ScriptedHub};
use crate::support::process::{ServeProcess, hubproof, start, with_steady_text};

#[test]
fn list_shows_scenarios_settings_and_needs() {
    let done = hubproof(["check", "--list", "--protocol", "concierge"]).assert_exit_code(0);
    for expected in ["concierge/greeting", "(needs hub.secret is defined)", "identify_timeout", ", secret", "settings"]
    {
        assert!(done.out.contains(expected), "no {expected:?} in {}", done.out);
    }
}

/// Returns the ids of the selected scenarios.
fn listed_scenarios(more: &[&str]) -> Vec<String> {
    let done = hubproof(["check", "--list"].iter().chain(more)).assert_exit_code(0);
    let ids = done.out.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    ids.filter(|id| id.contains('/')).map(str::to_owned).collect()
}

#[test]
fn cases_are_selected_together_or_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("mini");
    disk::copy_pack("qi", &pack);
    let scenario = "title: T\ncases: { one: { n: 1 }, two: { n: 2 } }\nsteps: []\n";
    std::fs::write(pack.join("scenarios/counting.yaml"), scenario).unwrap();
    let listed = |name: &str| listed_scenarios(&["--pack", pack.to_str().unwrap(), "--scenario", name]);
    let both = ["mini/counting/one", "mini/counting/two"];
    for name in ["counting", "mini/counting", "count*", "mini/counting/*"] {
        assert_eq!(listed(name), both, "{name}");
    }
    for name in ["counting/two", "mini/counting/two", "mini/counting/t*"] {
        assert_eq!(listed(name), both[1..], "{name}");
    }
    // A scenario file outside the pack replaces all cases of its name.
    let file = folder.path().join("counting.yaml");
    std::fs::write(&file, scenario.replace("one:", "three:")).unwrap();
    let files = ["--pack", pack.to_str().unwrap(), "--scenario", file.to_str().unwrap()];
    assert_eq!(listed_scenarios(&files), ["mini/counting/three", "mini/counting/two"]);
}

#[test]
fn scenarios_are_selected_by_name_and_by_rule() {
    assert_eq!(listed_scenarios(&["--scenario", "identify-deadline"]), ["concierge/identify-deadline"]);
    let groups = listed_scenarios(&["--scenario", "group-*", "--protocol", "concierge"]);
    assert!(groups.len() >= 2 && groups.iter().all(|id| id.starts_with("concierge/group-")), "{groups:?}");
    assert_eq!(groups, listed_scenarios(&["--scenario", "concierge/group-*"]));
    let two = listed_scenarios(&["--scenario", "qi/base", "--scenario", "concierge/greeting"]);
    assert_eq!(two, ["concierge/greeting", "qi/base"]);
    // A rule that only a schema names is checked in every scenario with its message.
    let anywhere = listed_scenarios(&["--protocol", "qi", "--rule", "QI-018"]);
    assert_eq!(anywhere, listed_scenarios(&["--protocol", "qi"]));
    let ruled = listed_scenarios(&["--rule", "CON-015"]);
    assert!(!ruled.is_empty() && ruled.len() < 5, "{ruled:?}");
    assert!(ruled.iter().all(|id| id.starts_with("concierge/")), "{ruled:?}");
}

#[test]
fn only_the_selected_scenarios_run() {
    let done = hubproof(["check", "--scenario", "concierge/greeting", "--report", "json=-"]).assert_exit_code(0);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    crate::cli::serve::assert_valid_report(&report);
    let protocols = report["protocols"].as_array().unwrap();
    assert_eq!(protocols.len(), 1, "protocols without selected scenarios are not in the report");
    assert_eq!(protocols[0]["scenarios"]["total"], 1);
    assert!(done.err.contains("PASS concierge"), "the summary moves to stderr: {}", done.err);
}

#[rstest]
#[case("nothing_matched", &["--scenario", "no-such-*"])]
#[case("nothing_matched_both", &["--scenario", "greeting", "--rule", "QI-001"])]
fn a_selection_that_matches_no_scenario_is_inconclusive(#[case] name: &str, #[case] arguments: &[&str]) {
    let done = hubproof(["check"].iter().chain(arguments)).assert_exit_code(3);
    with_steady_text(|| insta::assert_snapshot!(name, format!("{}{}", done.out, done.err)));
}

#[test]
fn warnings_fail_only_when_strict() {
    // A fault of a should rule.
    let fault = |more: &[&str]| hubproof(["check", "--protocol=concierge", "--fault", SHOULD_FAULT].iter().chain(more));
    let done = fault(&["--scenario", "greeting"]).assert_exit_code(0);
    assert!(done.out.contains("warn["), "{}", done.out);
    fault(&["--scenario", "greeting", "--strict"]).assert_exit_code(1);
}

const SHOULD_FAULT: &str = "concierge-subprotocol-not-selected";

/// The finding shows that the document only implies the rule, and the line and words it follows from.
#[test]
fn a_finding_of_an_implied_rule_quotes_the_document() {
    let check = |more: &[&str]| {
        let base = ["check", "--fault", "concierge-bystander-created-seq", "--scenario", "concierge/group-creation"];
        hubproof(base.iter().chain(more))
    };
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let from =
        "must, implied by line 18 of \"002, WebSocket payloads of the ert-concierge\", from: a missing seq means";
    let done = check(&[]).assert_exit_code(1);
    assert!(words(&done.out).contains(from), "{}", done.out);
    assert!(done.out.contains("fail[CON-039"), "{}", done.out);
    let done = check(&["--stated-only"]).assert_exit_code(0);
    assert!(words(&done.out).contains(from), "{}", done.out);
    assert!(done.out.contains("warn[CON-039") && !done.out.contains("fail["), "{}", done.out);
    let done = check(&["--stated-only", "--strict", "--report", "json=-"]).assert_exit_code(1);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let findings = report["protocols"][0]["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["rules"][0] == "CON-039").unwrap();
    assert_eq!((&finding["basis"], &finding["verdict"]), (&"implied".into(), &"warn".into()));
    assert!(report["protocols"][0]["rules"]["by_id"]["CON-039"]["from"].as_str().unwrap().contains("seq"));
}

#[rstest]
fn scenarios_pass_with_any_number_of_jobs(#[values("1", "64")] jobs: &str) {
    hubproof(["check", "--protocol", "concierge", "--scenario", "group-*", "-j", jobs]).assert_exit_code(0);
}

#[test]
fn a_scenario_is_stopped_at_the_timeout() {
    let done = hubproof(["check", "--scenario", "concierge/identify-deadline", "--timeout", "1s"]).assert_exit_code(3);
    assert!(done.took < Duration::from_secs(60), "{:?}", done.took);
    with_steady_text(|| insta::assert_snapshot!("timeout", done.out));
}

#[test]
fn trace_prints_a_line_per_frame() {
    let done = hubproof(["check", "--scenario", "concierge/greeting", "--trace"]).assert_exit_code(0);
    assert!(done.err.contains(" concierge/greeting anna -> text {\"type\":\"IDENTIFY\""), "{}", done.err);
    assert!(done.err.contains(" concierge/greeting anna <- text {\"type\":\"HELLO\""), "{}", done.err);
    assert!(!done.out.contains(" -> text "), "{}", done.out);
}

#[test]
fn the_terminal_output_of_one_failure_matches_the_snapshot() {
    let done = hubproof(["check", "--fault", "concierge-origin-uuid-wrong", "--scenario", "concierge/message-to-one"]);
    let done = done.assert_exit_code(1);
    // Frames of several connections arrive in any order, so the last frames are omitted.
    let frame = |line: &&str| [" <- text ", " -> text "].iter().any(|arrow| line.contains(arrow));
    let page: Vec<&str> = done.out.lines().filter(|line| !frame(line)).collect();
    assert!(page.len() < done.out.lines().count(), "the last frames are shown");
    with_steady_text(|| insta::assert_snapshot!("one_failure", page.join("\n")));
}

#[test]
fn the_report_doubts_a_hub_of_another_protocol() {
    for (speaks, checked, scenario) in [("qi", "concierge", "greeting"), ("concierge", "qi", "qi/*")] {
        let server = ServeProcess::start([speaks], 1);
        let one = ["--protocol", checked, "--scenario", scenario, "--stretch", "0.2"];
        let arguments = ["check", server.url(speaks)].into_iter().chain(one);
        let done = hubproof(arguments).assert_exit_code(1);
        // The doubt is printed before any finding, since those may not apply.
        let lead = done.out.split("\nfail[").next().unwrap();
        assert!(lead.contains(&format!("Is this really a hub that speaks {checked}?")), "{}", done.out);
        assert!(lead.contains("with `--protocol`"), "{lead}");
    }
}

/// Ctrl-C during a run: it ends soon, with a report of the scenarios played so far.
#[test]
fn an_interrupted_run_reports_the_played_scenarios() {
    let hub = HostileHub::start(Misbehaviour::Silent, "");
    let url = hub.url();
    let running = start(["check", &url, "--protocol", "concierge", "--stretch", "20", "--trace"], &[]);
    hub.wait_for_clients(3);
    running.signal("INT");
    let done = running.wait_for_end();
    assert!(matches!(done.code, Some(1 | 3)), "{:?}\n{}{}", done.code, done.out, done.err);
    assert!(done.took < Duration::from_secs(30), "{:?}", done.took);
    assert!(done.out.contains("Interrupted after "), "{}", done.out);
    assert!(done.err.contains("stopping"), "{}", done.err);
    assert!(done.verdict().starts_with("INCONCLUSIVE concierge") || done.code == Some(1), "{}", done.out);
}

/// A hub that closes every connection breaks no rule that can be checked without its key, but it does not pass.
#[test]
fn a_run_that_judges_few_rules_is_inconclusive() {
    let hub = HostileHub::start(Misbehaviour::Closes, "");
    let url = hub.url();
    let check = |more: &[&str]| hubproof(["check", &url, "--protocol", "airavata"].iter().chain(more));
    let done = check(&[]).assert_exit_code(3);
    let words = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("fewer than a third. Provide what `not tested` lists below"), "{}", done.out);
    assert!(
        words.contains("unmet need `setting jwt_secret (or enough tokens)`") || words.contains("hub.jwt_secret"),
        "{}",
        done.out
    );
    assert!(done.verdict().starts_with("INCONCLUSIVE airavata: "), "{}", done.out);
    assert!(done.verdict().contains("\n  musts  ") && done.verdict().contains(" need a setting"), "{}", done.out);
    let done = check(&["--min-judged", "0%"]).assert_exit_code(0);
    assert!(done.verdict().starts_with("PASS airavata: ") && done.verdict().contains("\n  musts  "), "{}", done.out);
}

#[test]
fn min_judged_sets_the_required_share_of_judged_musts() {
    let check = |percent: &str| hubproof(["check", "--scenario", "concierge/greeting", "--min-judged", percent]);
    check("1%").assert_exit_code(0);
    let done = check("90").assert_exit_code(3);
    assert!(done.out.contains("fewer than `--min-judged 90%` requires"), "{}", done.out);
    assert!(check("101%").assert_exit_code(2).err.contains("a percentage from 0% to 100%"));
}

#[test]
fn a_second_interrupt_stops_the_run_at_once() {
    let hub = HostileHub::start(Misbehaviour::Silent, "");
    let url = hub.url();
    let running = start(["check", &url, "--protocol", "concierge", "--stretch", "20"], &[]);
    hub.wait_for_clients(3);
    running.signal("INT");
    running.signal("INT");
    let done = running.wait_for_end();
    assert!(matches!(done.code, Some(1 | 3)), "{:?}\n{}{}", done.code, done.out, done.err);
    assert!(done.took < Duration::from_secs(30), "{:?}", done.took);
}

/// A hub with another name for a member of its acknowledgement: the run proposes an entry for it, and continues.
#[test]
fn a_proposed_deviation_continues_the_run_and_can_be_declared() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.toml");
    let path = file.to_str().unwrap();
    let base = ["check", "--fault", "emprops-accepted-job-id-renamed", "--scenario", "emprops/job-lifecycle"];
    let json = ["--report", "json=-"];
    let judged = |more: &[&str]| {
        let done = hubproof(base.iter().chain(&json).chain(more)).assert_exit_code(1);
        let report: serde_json::Value = serde_json::from_str(&done.out).unwrap();
        report["protocols"][0].clone()
    };
    let proven = |report: &serde_json::Value| report["rules"]["proven"].as_u64().unwrap();
    std::fs::write(&file, "protocol = \"emprops\"\n\n").unwrap();
    let plain = judged(&["--write-deviations", path]);
    let proposals = plain["proposals"].as_array().unwrap();
    let entry = &proposals[0]["entry"];
    assert_eq!((proposals.len(), &entry["member"], &entry["renamed"]), (1, &"/job_id".into(), &"/id".into()));
    // The file keeps its content, and is a target file with the entry.
    let text = std::fs::read_to_string(&file).unwrap();
    let target: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(target["protocol"].as_str(), Some("emprops"));
    assert_eq!(target["deviation"][0]["renamed"].as_str(), Some("/id"));
    let explored = judged(&["--explore"]);
    // Checks under `always` hold in both runs.
    assert!(proven(&explored) > proven(&plain) + 10, "{} {}", proven(&explored), proven(&plain));
    let assumed = &explored["deviations"][0];
    assert_eq!((&assumed["assumed"], &assumed["standing"]), (&true.into(), &"expected".into()), "{assumed}");
    // With the entry declared, the deviation is known, and the run passes.
    let server = ServeProcess::start(["emprops", "--fault", "emprops-accepted-job-id-renamed"], 1);
    let url = server.url("emprops");
    std::fs::write(&file, format!("url = \"{url}\"\n{text}")).unwrap();
    let declared = hubproof(["check", "--target", path, "--scenario", "emprops/job-lifecycle"]).assert_exit_code(0);
    assert!(declared.out.contains("known[deviation:1]: /job_id of `job_accepted` is /id"), "{}", declared.out);
    // A hub that follows its document makes the entry stale.
    let server = ServeProcess::start(["emprops"], 1);
    std::fs::write(&file, format!("url = \"{}\"\n{text}", server.url("emprops"))).unwrap();
    let stale = hubproof(["check", "--target", path, "--scenario", "emprops/job-lifecycle"]).assert_exit_code(1);
    assert!(stale.out.contains("stale[deviation:1]"), "{}", stale.out);
}

/// Not even an empty file.
#[test]
fn a_run_without_proposals_writes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.toml");
    let path = file.to_str().unwrap();
    let base = ["check", "--scenario", "qi/sessions", "--write-deviations", path];
    for more in [&[][..], &["--explore"]] {
        let done = hubproof(base.iter().chain(more)).assert_exit_code(0);
        assert!(done.err.contains("there are no deviations to write"), "{}", done.err);
        assert!(!file.exists());
    }
    std::fs::write(&file, "protocol = \"qi\"\n").unwrap();
    hubproof(base).assert_exit_code(0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "protocol = \"qi\"\n");
}

/// Connections send what the declaration says that upgrades need, so one upgrade is tried without it: of the first
/// conversation with a client of that role.
#[rstest]
#[case::of_all("qi", "", &["qi/sessions"])]
#[case::of_one_role("emprops", "role = \"worker\", ", &["emprops/greeting", "emprops/registration"])]
fn an_upgrade_deviation_that_is_no_longer_needed_is_stale(
    #[case] protocol: &str,
    #[case] role: &str,
    #[case] scenarios: &[&str],
) {
    let server = ServeProcess::start([protocol], 1);
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let upgrade =
        format!("[[deviation]]\nreason = \"the gateway\"\nupgrade = {{ {role}headers = {{ X-Api-Key = \"k\" }} }}\n");
    std::fs::write(file.path(), format!("protocol = \"{protocol}\"\nurl = \"{}\"\n{upgrade}", server.url(protocol)))
        .unwrap();
    let arguments = ["check", "--jobs", "1", "--target", file.path().to_str().unwrap()];
    let chosen = scenarios.iter().flat_map(|id| ["--scenario", id]);
    let done = hubproof(arguments.into_iter().chain(chosen)).assert_exit_code(1);
    assert!(done.out.contains("stale[deviation:1]"), "{}", done.out);
}

/// A hub that accepts connections and never answers decides nothing.
#[rstest]
#[case::check(&["check", "--scenario", "qi/base"])]
#[case::fuzz(&["fuzz", "--cases", "2"])]
fn a_hub_that_never_answers_cannot_be_reached(#[case] arguments: &[&str]) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let options = [url.as_str(), "--protocol", "qi", "--set", "patience=200ms"];
    let done = hubproof([arguments, &options].concat()).assert_exit_code(3);
    assert!(done.out.contains("could not be reached: no answer to the upgrade"), "{}", done.out);
}

/// The frame may be any message of the document, so the hub is not accused of speaking another protocol.
#[test]
fn a_number_that_no_double_holds_is_named_with_its_member() {
    let hub = ScriptedHub::start(|_, _, _| vec![r#"{"told":1e400}"#.to_owned()]);
    let url = hub.url();
    let done = hubproof(["check", &url, "--pack", "tests/fixtures/documents/ask.yaml"]).assert_exit_code(3);
    let words = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    let named = "it contains a number that no double holds: 1e400 at /told"; // style: quoted
    assert!(words.contains(named), "{}", done.out);
    assert!(!done.out.contains("another protocol"), "{}", done.out);
}

/// Browsers close such a connection, though RFC 6455 allows it.
#[rstest]
#[case::offered("subprotocols: [nostr]", true)]
#[case::not_offered("headers: { X-Trace: a }", false)]
fn a_hub_that_selects_no_subprotocol_gets_a_remark(#[case] option: &str, #[case] remarked: bool) {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("mini");
    disk::copy_pack("qi", &pack);
    let shared = std::fs::read_to_string(pack.join("scenarios/shared.yaml")).unwrap();
    let opening = format!("- connects:\n        {option}\n");
    std::fs::write(pack.join("scenarios/shared.yaml"), shared.replace("- connects:\n", &opening)).unwrap();
    // It selects none.
    let server = ServeProcess::start(["qi"], 1);
    let report = folder.path().join("report.json");
    let sink = format!("json={}", report.display());
    let arguments =
        ["check", server.url("qi"), "--pack", pack.to_str().unwrap(), "--scenario", "base", "--report", &sink];
    let done = hubproof(arguments).assert_exit_code(0);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    let notes = report["protocols"][0]["notes"].to_string();
    for text in [done.out.split_whitespace().collect::<Vec<_>>().join(" "), notes] {
        for part in ["none of the offered subprotocols (nostr)", "RFC 6455, section 4.2.2", "browser then closes"] {
            assert_eq!(text.contains(part), remarked, "{part}: {text}");
        }
    }
}
