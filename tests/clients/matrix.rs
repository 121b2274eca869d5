//! A correct client keeps every rule, and each fault of the reference clients breaks exactly its own rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use hubproof_reference::clients::{faults, protocols};
use rstest::rstest;
use serde_json::Value;

use crate::support::disk::root;

/// How many clients are checked at a time.
const WORKERS: usize = 4;

/// Returns the report of a check of the reference client of this protocol.
fn check(protocol: &str, fault: Option<&str>, folder: &Path) -> Value {
    let client = if protocol == "websocket" { "concierge" } else { protocol };
    let (ours, its) = match protocol {
        "airavata" => ("reconnect=200ms", " --set reconnect=0.2"),
        "emprops" => ("heartbeat=1s", " --set heartbeat=1"),
        _ => ("quiet=300ms", ""),
    };
    let program = env!("CARGO_BIN_EXE_hubproof");
    let fault = fault.map(|fault| format!(" --fault {fault}")).unwrap_or_default();
    let path = folder.join(format!("report{}.json", fault.replace(" --fault ", "-")));
    let output = Command::new(program)
        .args(["check-client", "--protocol", protocol, "--set", ours, "--report", &format!("json={}", path.display())])
        .args(["--exec", &format!("{program} client {client} ${{url}} --do=${{needs}}{its}{fault}")])
        .output()
        .unwrap();
    let report = std::fs::read(&path);
    serde_json::from_slice(&report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))).unwrap()
}

/// Returns the rules that a report calls broken, and failed schemas without a rule.
fn broken(report: &Value) -> BTreeSet<String> {
    let protocol = &report["protocols"][0];
    let is_broken = |verdict: &Value| matches!(verdict.as_str(), Some("fail" | "warn"));
    let rules = protocol["rules"]["by_id"].as_object().unwrap().iter().filter(|(_, rule)| is_broken(&rule["status"]));
    let findings = protocol["findings"].as_array().unwrap().iter();
    let schemas =
        findings.filter(|one| is_broken(&one["verdict"]) && one["rules"].as_array().is_some_and(Vec::is_empty));
    rules
        .map(|(id, _)| id.clone())
        .chain(schemas.map(|one| one["check"].as_str().unwrap_or_default().to_owned()))
        .collect()
}

#[rstest]
#[case::qi("qi")]
#[ignore = "thorough: waits for real time"]
#[case::gator("gator")]
#[ignore = "thorough: waits for real time"]
#[case::concierge("concierge")]
#[ignore = "thorough: waits for real time"]
#[case::airavata("airavata")]
#[ignore = "thorough: waits for real time"]
#[case::emprops("emprops")]
#[ignore = "thorough: waits for real time"]
#[case::websocket("websocket")]
fn a_correct_client_keeps_every_rule_and_each_fault_breaks_exactly_its_own(#[case] protocol: &str) {
    let folder = tempfile::tempdir().unwrap();
    let correct = check(protocol, None, folder.path());
    assert_eq!(broken(&correct), BTreeSet::new(), "without a fault");
    let jobs = Mutex::new(faults().iter().filter(|fault| fault.protocol == protocol));
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(fault) = jobs.lock().unwrap().next() else { return };
                    let rules = broken(&check(protocol, Some(&fault.id), folder.path()));
                    found.lock().unwrap().insert(fault.id.as_str(), rules);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    let expected: BTreeMap<&str, BTreeSet<String>> = faults()
        .iter()
        .filter(|fault| fault.protocol == protocol)
        .map(|fault| (fault.id.as_str(), fault.rules.iter().cloned().collect()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_fault_breaks_each_must_and_should_of_clients() {
    let broken: BTreeSet<&str> = faults().iter().flat_map(|fault| &fault.rules).map(String::as_str).collect();
    let mut unbroken = Vec::new();
    for protocol in protocols() {
        let path = root().join("schemas").join(protocol).join("clients/rules.yaml");
        let file = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = file.lines().map(str::trim).collect();
        let binds = |pair: &&[&str]| matches!(pair[1], "level: must" | "level: should");
        let binding = lines.windows(2).filter(binds).map(|pair| pair[0].trim_end_matches(':').to_owned());
        unbroken.extend(binding.filter(|id| !broken.contains(id.as_str())));
    }
    assert_eq!(unbroken, [""; 0], "add a fault to reference-server/faults/clients.yaml, or remove the rule");
}
