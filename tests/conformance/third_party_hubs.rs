//! Hubs in other languages, each written from its document alone, with all its permitted variants at once, and without
//! packages to install. They share no code or schema with the harness, which must find nothing wrong with them. Their
//! deviations are those of `deviating_hubs`. `strangers` has hubs with bugs, and with one variant at a time.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::process::{Child, Command, Stdio};

use rstest::rstest;
use serde_json::Value;

use crate::support::process::hubproof;

pub(super) struct ThirdPartyHub {
    pub(super) protocol: &'static str,
    pub(super) interpreter: &'static str,
    pub(super) script: &'static str,
    /// The target file's top level.
    pub(super) target: &'static str,
    /// Hooks of each instance, with `ADMIN` for the address in the second line of the hub's output, and `PROCESS` for
    /// its process id.
    pub(super) hooks: &'static str,
    pub(super) instances: &'static [HubInstance],
    /// Options for runs in which nothing may fail: longer waits if the protocol allows them, since tests run in
    /// parallel.
    pub(super) options: &'static [&'static str],
    /// The least number of proven rules.
    pub(super) proven: u64,
}

/// A process of the hub: its arguments, and its part of the target file.
pub(super) struct HubInstance {
    pub(super) name: &'static str,
    pub(super) arguments: &'static [&'static str],
    pub(super) target: &'static str,
}

pub(super) const CONCIERGE: ThirdPartyHub = ThirdPartyHub {
    protocol: "concierge",
    interpreter: "python3",
    script: "tests/fixtures/hubs/concierge.py",
    target: "[settings]\nversion = \"0.1.0\"",
    hooks: "",
    instances: &[
        HubInstance { name: "open", arguments: &[], target: "" },
        HubInstance { name: "closed", arguments: &["--secret", "sesame"], target: "secrets = { secret = \"sesame\" }" },
    ],
    options: &["--stretch", "3"],
    proven: 116,
};

pub(super) const QI: ThirdPartyHub = ThirdPartyHub {
    protocol: "qi",
    interpreter: "node",
    script: "tests/fixtures/hubs/qi.mjs",
    target: "[settings]\nok_command = \"execute\"\nplain_command = \"abort\"\nfailing_command = \"calibrate\"",
    hooks: "",
    instances: &[HubInstance { name: "default", arguments: &[], target: "" }],
    options: &["--stretch", "3"],
    proven: 30,
};

/// The same hub, without settings that name its commands.
const QI_WITHOUT_COMMANDS: ThirdPartyHub = ThirdPartyHub { target: "", ..QI };

pub(super) const AIRAVATA: ThirdPartyHub = ThirdPartyHub {
    protocol: "airavata",
    interpreter: "python3",
    script: "tests/fixtures/hubs/airavata.py",
    target: "[secrets]\njwt_secret = \"sesame\"",
    hooks: r#"[instance.hooks.emit.http]
url = "ADMIN/emit"
body = '{"type": ${json(message.type)}, "data": ${json(message.data)}, "projectId": ${json(args.project | default(none))}, "ownerId": ${json(args.user | default(none))}}'"#,
    instances: &[
        HubInstance {
            name: "documented",
            arguments: &[],
            target: "settings = { ping_interval = \"3s\", rate_limit = 60 }",
        },
        HubInstance {
            name: "low-limits",
            arguments: &["--limits", "3,5,8"],
            target: "provides = [\"addresses\"]\nsettings = { max_per_user = 3, max_per_address = 5, max_connections = 8 }",
        },
    ],
    options: &["--stretch", "3"],
    proven: 100,
};

/// Hooks for events that its document leaves open: over HTTP, at the second address of its output.
pub(super) const GATOR: ThirdPartyHub = ThirdPartyHub {
    protocol: "gator",
    interpreter: "python3",
    script: "tests/fixtures/hubs/gator.py",
    target: "restartable = true",
    hooks: r#"hooks.connect_up.http = { url = "ADMIN", body = '{"connect_up": ${json(args)}}' }
hooks.register_child.http = { url = "ADMIN", body = '{"register_child": ${json(args)}}' }
hooks.log_entries.http = { url = "ADMIN", body = '{"log_entries": ${json(args)}}' }
hooks.start_job.http = { url = "ADMIN", body = '{"start_job": ${json(args)}}' }
hooks.job.http = { url = "ADMIN", body = '{"job": ${json(args)}}' }"#,
    instances: &[HubInstance { name: "tier", arguments: &[], target: "" }],
    options: &["--stretch", "2"],
    proven: 44,
};

pub(super) const EMPROPS: ThirdPartyHub = ThirdPartyHub {
    protocol: "emprops",
    interpreter: "node",
    script: "tests/fixtures/hubs/emprops.mjs",
    target: "restartable = true\nsettings = { retry_delay = \"400ms\" }",
    hooks: r#"hooks.stop.command = ["kill", "-TERM", "PROCESS"]
hooks.alert.command = ["kill", "-USR1", "PROCESS"]"#,
    instances: &[
        HubInstance { name: "main", arguments: &[], target: "" },
        HubInstance {
            name: "beats-fast",
            // It gives up a worker after two intervals, which a busy machine must not reach.
            arguments: &["--heartbeat-ms", "1000"],
            target: "settings = { heartbeat_interval = \"1s\" }",
        },
        HubInstance {
            name: "with-token",
            arguments: &["--token", "a good worker's token"],
            target: "secrets = { worker_token = \"a good worker's token\" }",
        },
    ],
    options: &["--destructive", "--stretch", "3"],
    // All except TLS, which it does not support.
    proven: 134,
};

#[rstest]
#[case::concierge(CONCIERGE, &[])]
// Each bit of its seed is a variant: 255 has all of them, 256 none.
#[case::emprops(EMPROPS, &["--seed", "255"])]
#[case::emprops_plainer(EMPROPS, &["--seed", "256"])]
#[case::airavata(AIRAVATA, &[])]
#[case::qi(QI, &["--seed", "1"])]
// Refuses other versions, disconnects on invalid text.
#[case::qi_strict(QI, &["--seed", "4"])]
#[case::gator(GATOR, &[])]
#[ignore = "thorough: repeats the proof against other hubs"]
fn third_party_hubs_pass(#[case] hub: ThirdPartyHub, #[case] variants: &[&str]) {
    let Some((report, code)) = check_third_party_hub(&hub, variants, hub.options) else { return };
    assert_eq!(findings(&report), Vec::<String>::new(), "{:#}", report["findings"]);
    assert_eq!(code, Some(0), "{} {:#}", report["doubt"], report["causes"]);
    let proven = report["rules"]["proven"].as_u64().unwrap();
    assert!(proven >= hub.proven, "only {proven} rules are proven");
    assert_eq!(report["checks"]["verdicts"]["inconclusive"], 0);
}

/// The document names only the command `execute`, in an example. Without settings that name commands, nothing is
/// required of a hub, whether it has that command or not.
#[rstest]
#[case::with_the_example_command(&[], 0)]
#[case::without_it(&["--without", "execute"], 3)]
#[ignore = "thorough: repeats the proof against other hubs"]
fn undocumented_commands_are_not_required(#[case] variants: &[&str], #[case] expected: i32) {
    let Some((report, code)) =
        check_third_party_hub(&QI_WITHOUT_COMMANDS, &[&["--seed", "1"], variants].concat(), QI.options)
    else {
        return;
    };
    assert_eq!(findings(&report), Vec::<String>::new());
    assert_eq!(code, Some(expected), "{} {:#}", report["doubt"], report["causes"]);
    assert!(report["rules"]["proven"].as_u64().unwrap() >= 10, "{:#}", report["rules"]);
}

/// What a hub may do, and what a run could take for a failed precondition.
#[rstest]
#[case::writes_logs_to_a_console(GATOR, &["--odd", "console"])]
#[case::runs_two_tasks_at_a_time(GATOR, &["--odd", "parallel"])]
#[case::limits_connections(CONCIERGE, &["--odd", "busy"])]
#[ignore = "thorough: repeats the proof against other hubs"]
fn what_a_hub_may_do_leaves_nothing_open(#[case] hub: ThirdPartyHub, #[case] variants: &[&str]) {
    let Some((report, code)) = check_third_party_hub(&hub, variants, hub.options) else { return };
    assert_eq!(findings(&report), Vec::<String>::new());
    assert_eq!(code, Some(0), "{} {:#}", report["doubt"], report["causes"]);
    assert_eq!(report["checks"]["verdicts"]["inconclusive"], 0, "{:#}", report["causes"]);
}

/// Builds the hub in Go; `None` without a compiler, which is a failure in CI.
fn build_go_hub(folder: &std::path::Path) -> Option<&'static str> {
    let program = folder.join("gator");
    let source = crate::support::disk::root().join("tests/fixtures/hubs/gator.go");
    match Command::new("go").args(["build", "-o"]).args([&program, &source]).output() {
        Ok(done) if done.status.success() => Some(Box::leak(program.to_str()?.into())),
        Ok(done) => panic!("{}", String::from_utf8_lossy(&done.stderr)),
        Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            eprintln!("skipped: there is no Go to build {} with", source.display());
            None
        }
        Err(error) => panic!("go: {error}"),
    }
}

/// A hub with threads: its library answers an upgrade, and the hub knows the child up to 20 ms later. No other test has a
/// hub of which real threads decide who is first.
#[test]
#[ignore = "thorough: repeats the proof against other hubs"]
fn a_hub_in_go_that_registers_children_late_is_not_accused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(interpreter) = build_go_hub(folder.path()) else { return };
    let hooks = r#"hooks.connect_up.http = { url = "ADMIN", body = '{"connect_up": ${json(args)}}' }
hooks.register_child.http = { url = "ADMIN", body = '{"register_child": ${json(args)}}' }
hooks.log_entries.http = { url = "ADMIN", body = '{"log_entries": ${json(args)}}' }"#;
    let hub = ThirdPartyHub { interpreter, script: "", hooks, ..GATOR };
    let stops = [&["--scenario", "gator/stop*"], hub.options].concat();
    for round in 0..10 {
        let options = if round == 0 { hub.options } else { &stops };
        let (report, code) = check_third_party_hub(&hub, &[], options).unwrap();
        assert_eq!((findings(&report), code), (Vec::<String>::new(), Some(0)), "round {round}: {:#}", report["causes"]);
        assert_eq!(report["checks"]["verdicts"]["inconclusive"], 0, "round {round}: {:#}", report["causes"]);
    }
}

/// A numeric `session_id` is repeated unchanged: that is the client's error, not the hub's.
#[test]
#[ignore = "thorough: repeats the proof against other hubs"]
fn an_invalid_id_that_is_repeated_is_not_a_finding() {
    let of_other_types = ["--message", "extended_request", "--mutation", "wrong-type"];
    assert_fuzzing_finds_nothing(
        &QI,
        &["--seed", "1", "--slow", "5"],
        &[&of_other_types[..], &["--cases", "60", "--seed", "3"]].concat(),
    );
}

/// Cases that differ only in their mutation share a program, unless only one of them needs a setting.
#[test]
#[ignore = "thorough: repeats the proof against other hubs"]
fn cases_with_an_unmet_need_are_undecided() {
    let one_after_another = ["--message", "extended_request", "--cases", "200", "--seed", "8", "-j", "1"];
    assert_fuzzing_finds_nothing(&QI_WITHOUT_COMMANDS, &["--plain"], &one_after_another);
}

#[track_caller]
fn assert_fuzzing_finds_nothing(hub: &ThirdPartyHub, variants: &[&str], options: &[&str]) {
    let Some((report, code)) = run_against_hub("fuzz", hub, variants, "", options) else { return };
    assert_eq!(findings(&report), Vec::<String>::new(), "{:#}", report["findings"]);
    assert_eq!(code, Some(0), "{:#}", report["fuzzed"]);
    assert!(report["fuzzed"]["decided"].as_u64().unwrap() >= 30, "{:#}", report["fuzzed"]);
}

/// A hub that disregards an implied should only gets a warning.
#[rstest]
#[case::concierge_versions(CONCIERGE, &["--odd", "any-minor"], "CON-019")]
#[case::concierge_ends(CONCIERGE, &["--odd", "quiet-end"], "CON-095")]
#[case::airavata_early(AIRAVATA, &["--odd", "early"], "AIR-015")]
#[ignore = "thorough: repeats the proof against other hubs"]
fn ignoring_a_recommendation_gets_a_warning(#[case] hub: ThirdPartyHub, #[case] habit: &[&str], #[case] rule: &str) {
    let Some((report, code)) = check_third_party_hub(&hub, habit, &["--rule", rule, "--stretch", "2"]) else { return };
    assert_eq!(findings(&report), [format!("warn {rule}")]);
    assert_eq!(code, Some(0));
}

/// Runs `hubproof check` on the hub: returns report and exit code; `None` without an interpreter.
#[track_caller]
fn check_third_party_hub(hub: &ThirdPartyHub, arguments: &[&str], options: &[&str]) -> Option<(Value, Option<i32>)> {
    run_against_hub("check", hub, arguments, "", options)
}

/// Runs any command that plays against a target; `more` is the end of the target file.
#[track_caller]
pub(super) fn run_against_hub(
    command: &str,
    hub: &ThirdPartyHub,
    arguments: &[&str],
    more: &str,
    options: &[&str],
) -> Option<(Value, Option<i32>)> {
    let mut processes = Vec::new();
    let mut target = format!("protocol = \"{}\"\n", hub.protocol);
    let mut instances = String::new();
    for instance in hub.instances {
        let process = ThirdPartyProcess::start(hub, &[instance.arguments, arguments].concat())?;
        if processes.is_empty() {
            target += &format!("url = \"{}\"\n{}\n", process.url, hub.target);
        }
        let HubInstance { name, target, .. } = instance;
        instances += &format!(
            "[[instance]]\nname = \"{name}\"\nurl = \"{}\"\n{target}\n{}\n",
            process.url,
            hub.hooks.replace("ADMIN", &process.admin).replace("PROCESS", &process.child.id().to_string())
        );
        processes.push(process);
    }
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all((target + &instances + more).as_bytes()).unwrap();
    let place = file.path().to_str().unwrap();
    let words = [command, "--target", place, "--report", "json=-"];
    let done = hubproof(words.iter().chain(options));
    let report: Value = serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    // A report of load is about one protocol.
    Some((report.get("protocols").map_or(&report, |protocols| &protocols[0]).clone(), done.code))
}

/// Returns the verdict and rule of each failed or warned check once; the check's name if it has no rule.
pub(super) fn findings(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let mut accused: Vec<String> = findings
        .filter(|finding| finding["verdict"] == "fail" || finding["verdict"] == "warn")
        .flat_map(|finding| {
            let verdict = finding["verdict"].as_str().unwrap();
            let rules = finding["rules"].as_array().unwrap();
            let blamed = if rules.is_empty() { std::slice::from_ref(&finding["check"]) } else { rules };
            blamed.iter().map(move |name| format!("{verdict} {}", name.as_str().unwrap()))
        })
        .collect();
    accused.sort();
    accused.dedup();
    accused
}

/// A started hub; killed on drop.
struct ThirdPartyProcess {
    child: Child,
    url: String,
    /// The address of the hub's admin interface; empty without one.
    admin: String,
}

impl ThirdPartyProcess {
    /// Starts the hub; `None` without an interpreter, which is a failure in CI.
    fn start(hub: &ThirdPartyHub, arguments: &[&str]) -> Option<Self> {
        let started = Command::new(hub.interpreter)
            .arg(hub.script)
            .args(arguments)
            .current_dir(crate::support::disk::root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
                eprintln!("skipped: there is no {} to run {} with", hub.interpreter, hub.script);
                return None;
            }
            Err(error) => panic!("{} {}: {error}", hub.interpreter, hub.script),
        };
        let out = child.stdout.take().unwrap();
        let mut process = Self { child, url: String::new(), admin: String::new() };
        let mut lines = BufReader::new(out).lines();
        let mut line = || lines.next().expect("the hub prints its address").unwrap();
        process.url = line();
        if hub.hooks.contains("ADMIN") {
            process.admin = line();
        }
        assert!(process.url.starts_with("ws://"), "{} printed {:?} instead of its address", hub.script, process.url);
        Some(process)
    }
}

impl Drop for ThirdPartyProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
