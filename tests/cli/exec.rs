//! `hubproof check --exec`: the hub is started, restarted after a crash and stopped, without leaving processes behind.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::Value;

use crate::support::process::{PORT_BLOCK, ProcessResult, RunningProcess, ServeProcess, free_port, hubproof, start};

const HUBPROOF: &str = env!("CARGO_BIN_EXE_hubproof");

/// A hub started by a wrapper script, in a folder with the ids of all started processes.
struct WrappedHub {
    folder: tempfile::TempDir,
    port: u16,
}

impl WrappedHub {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), port: free_port() }
    }

    fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.file(name), text).unwrap();
        self.file(name).display().to_string()
    }

    /// Returns a command for the reference server that records its process id.
    fn reference_command(&self, protocol: &str) -> String {
        self.reference_command_with(protocol, "")
    }

    fn reference_command_with(&self, protocol: &str, more: &str) -> String {
        let (pids, port) = (self.file("pids"), self.port);
        let script = format!(
            "echo $$ >> {}\necho starting up >&2\nexec {HUBPROOF} serve {protocol} --listen 127.0.0.1:{port} {more}\n",
            pids.display()
        );
        format!("sh {}", self.write("hub.sh", &script))
    }

    /// Returns a command for the reference server that crashes as soon as the hub sends this word: always, or once.
    fn crashing_command(&self, protocol: &str, word: &str, always: bool) -> String {
        self.failing_command(protocol, word, always, "os._exit(3)")
    }

    /// Returns a command for the reference server that still accepts connections, but sends nothing more as soon as the
    /// hub sends this word.
    fn hanging_command(&self, protocol: &str, word: &str) -> String {
        self.failing_command(protocol, word, true, "time.sleep(3600)")
    }

    fn failing_command(&self, protocol: &str, word: &str, always: bool, then: &str) -> String {
        let (inner, port) = (free_port(), self.port);
        let script = FALLING
            .replace("PIDS", &self.file("pids").display().to_string())
            .replace("SERVE", &format!("'{HUBPROOF}', 'serve', '{protocol}', '--listen', '127.0.0.1:{inner}'"))
            .replace("INNER", &inner.to_string())
            .replace("PORT", &port.to_string())
            .replace("WORD", word)
            .replace("THEN", then)
            .replace("ALWAYS", if always { "True" } else { "False" })
            .replace("FELL", &self.file("fell").display().to_string());
        format!("python3 {}", self.write("hub.py", &script))
    }

    fn check(&self, protocol: &str, command: &str, more: &[&str]) -> ProcessResult {
        let url = self.url();
        let arguments = ["check", &url, "--protocol", protocol, "--exec", command];
        hubproof(arguments.iter().chain(more))
    }

    /// Asserts that the port gets closed and every recorded process ends. They get a few seconds: a killed process
    /// counts as a zombie as soon as its first thread has ended, and holds its port until the last one has.
    #[track_caller]
    fn assert_gone(&self) {
        let listens = || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
        assert!(ceases_to_hold(listens), "something still listens");
        let pids = std::fs::read_to_string(self.file("pids")).unwrap_or_default();
        for pid in pids.lines() {
            assert!(ceases_to_hold(|| is_process_running(pid)), "{pid} of {pids:?} is still there");
        }
    }

    fn started_count(&self) -> usize {
        std::fs::read_to_string(self.file("pids")).unwrap_or_default().lines().count()
    }
}

/// Whether a condition stops holding within a few seconds.
fn ceases_to_hold(condition: impl Fn() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while condition() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Whether the process runs; a zombie does not.
fn is_process_running(id: &str) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(id).join("stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

const FALLING: &str = include_str!("../fixtures/hubs/falling.py");

fn report(done: &ProcessResult) -> Value {
    let report = serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}\n{}\n{}", done.out, done.err));
    crate::cli::serve::assert_valid_report(&report);
    report
}

/// Returns the verdict of each played scenario.
fn verdicts(report: &Value) -> Vec<(&str, &str)> {
    let list = report["protocols"][0]["scenarios"]["list"].as_array().unwrap();
    list.iter().map(|one| (one["id"].as_str().unwrap(), one["verdict"].as_str().unwrap())).collect()
}

#[test]
fn a_hub_is_started_checked_and_stopped() {
    let hub = WrappedHub::new();
    let command = hub.reference_command("concierge");
    let log = hub.file("hub.log").display().to_string();
    let more = ["--scenario", "greeting", "--scenario", "listings", "--report", "json=-", "--exec-log", &log];
    let done = hub.check("concierge", &command, &more).assert_exit_code(0);
    let report = report(&done);
    let process = &report["protocols"][0]["processes"][0];
    assert_eq!((&process["starts"], &process["restarts"]), (&Value::from(1), &Value::from(0)), "{process}");
    assert_eq!(process["crashes"], Value::Array(Vec::new()));
    assert_eq!(process["log"]["lines"][0], "starting up");
    assert!(std::fs::read_to_string(log).unwrap().starts_with("starting up\n"));
    assert!(done.err.contains("started once by `sh "), "{}", done.err);
    hub.assert_gone();
    assert_eq!(hub.started_count(), 1);
}

#[rstest]
#[case("./no-such-hub", 2, &["`./no-such-hub` cannot be started", "does not run in a shell"])]
#[case("sh -c 'echo no config >&2; exit 7'", 3, &["ended before it listened on 127.0.0.1:", "exit status 7", "| no config"])]
#[case("sh -c 'exec sleep 100'", 3, &["did not listen on 127.0.0.1:", "300 ms", "It wrote nothing to stdout or stderr", "--exec-wait"])]
#[case("hub 'x", 2, &["--exec: this command has an open quote"])]
fn a_hub_that_does_not_start_is_reported(#[case] command: &str, #[case] code: i32, #[case] expected: &[&str]) {
    let hub = WrappedHub::new();
    let done = hub.check("concierge", command, &["--exec-wait", "300ms"]).assert_exit_code(code);
    for expected in expected {
        assert!(done.err.contains(expected), "no {expected:?} in {}", done.err);
    }
    assert!(done.took < Duration::from_secs(30), "{:?}", done.took);
}

#[test]
fn starting_a_hub_by_command_needs_an_address() {
    let done = hubproof(["check", "--exec", "hub"]).assert_exit_code(2);
    assert!(done.err.contains("`--exec` needs the URL the hub will listen on"), "{}", done.err);
}

#[test]
fn a_different_hub_on_the_port_is_not_tested() {
    let server = ServeProcess::start(["concierge"], 1);
    let url = server.url("concierge");
    let done = hubproof(["check", url, "--protocol", "concierge", "--exec", "sleep 100"]).assert_exit_code(2);
    assert!(done.err.contains("something already listens on 127.0.0.1:"), "{}", done.err);
}

#[test]
fn the_hub_is_restarted_after_destructive_scenarios() {
    let hub = WrappedHub::new();
    // The reference server's own target file, with all instances and hooks.
    let (target, again) = (hub.file("hub.toml").display().to_string(), hub.file("again.toml").display().to_string());
    let (listen, admin) = (format!("127.0.0.1:{}", hub.port), format!("127.0.0.1:{}", hub.port + PORT_BLOCK - 1));
    let server = ServeProcess::start(
        ["gator", "--listen", &listen, "--admin", &admin, "--admin-token", "t-1", "--target-file", &target],
        1,
    );
    server.stop("TERM");
    let command =
        hub.reference_command_with("gator", &format!("--admin {admin} --admin-token t-1 --target-file {again}"));
    let more = ["--scenario", "stop-job*", "--scenario", "requests", "--report", "json=-"];
    let base = ["check", "--target", &target];
    let done = hubproof(base.iter().chain(&["--exec", &command]).chain(&more)).assert_exit_code(0);
    let report = report(&done);
    let verdicts = verdicts(&report);
    let destroyed = verdicts.iter().filter(|(id, verdict)| id.contains("stop") && *verdict == "pass").count();
    assert_eq!((destroyed, verdicts.len()), (2, 3), "{verdicts:?}");
    // It is not restarted after the last one.
    let process = &report["protocols"][0]["processes"][0];
    assert_eq!(process["starts"], 2, "{process}");
    assert_eq!(process["crashes"], Value::Array(Vec::new()));
    assert_eq!(hub.started_count(), 2);
    hub.assert_gone();
}

/// Scenarios, the last of which makes the hub send `GROUP_DELETED`.
const THREE: [&str; 6] = ["--scenario", "greeting", "--scenario", "message-to-one", "--scenario", "group-deletion"];

/// Asserts that only the last of these scenarios failed, when played alone. Returns the report of the hub's process.
#[track_caller]
fn assert_only_last_fails(report: &Value) -> &Value {
    let all = verdicts(report);
    for (id, verdict) in &all {
        let whole = matches!(*verdict, "pass" | "info");
        assert_eq!(whole, *id != "concierge/group-deletion", "{id}: {verdict}");
    }
    assert_eq!(all.len(), 3);
    let process = &report["protocols"][0]["processes"][0];
    let crashes = process["crashes"].as_array().unwrap();
    assert!(crashes.iter().any(|crash| crash["blamed"] == "concierge/group-deletion"), "{process}");
    process
}

/// The scenario that crashes the hub fails, with status and last output; those that ran at the same time are played
/// again.
#[rstest]
fn a_crash_is_a_finding_of_the_scenario_that_causes_it(#[values("1", "16")] jobs: &str) {
    let hub = WrappedHub::new();
    let command = hub.crashing_command("concierge", "GROUP_DELETED", true);
    let more = ["-j", jobs, "--set", "patience=2s", "--report", "json=-"];
    let done = hub.check("concierge", &command, &[THREE.as_slice(), &more].concat()).assert_exit_code(1);
    let report = report(&done);
    let process = assert_only_last_fails(&report);
    let crashes = process["crashes"].as_array().unwrap();
    assert!(crashes.iter().all(|crash| crash["status"] == "exit status 3"), "{process}");
    assert!(crashes.iter().all(|crash| crash["log"]["lines"] == serde_json::json!(["out of luck"])), "{process}");
    let findings = report["protocols"][0]["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["check"] == "process").unwrap();
    assert_eq!(finding["message"], "the hub ended by itself: exit status 3");
    assert!(finding["detail"]["received"].as_str().unwrap().contains("out of luck"));
    for expected in
        ["The hub ended by itself (exit status 3) while concierge/group-deletion was running alone", "  | out of luck"]
    {
        assert!(done.err.contains(expected), "no {expected:?} in {}", done.err);
    }
    hub.assert_gone();
}

/// A hub that hangs is started again like one that crashes: only the scenario that causes it fails.
#[rstest]
#[ignore = "thorough: waits for real time"]
fn a_hang_is_a_finding_of_the_scenario_that_causes_it(#[values("1", "16")] jobs: &str) {
    let hub = WrappedHub::new();
    let command = hub.hanging_command("concierge", "GROUP_DELETED");
    let more = ["-j", jobs, "--set", "patience=1s", "--report", "json=-"];
    let done = hub.check("concierge", &command, &[THREE.as_slice(), &more].concat()).assert_exit_code(1);
    let report = report(&done);
    let process = assert_only_last_fails(&report);
    assert!(process["crashes"].as_array().unwrap().iter().all(|crash| crash["hung"] == true), "{process}");
    assert!(done.err.contains("The hub hung (it accepted connections and sent nothing)"), "{}", done.err);
    hub.assert_gone();
}

/// A shell that keeps a hub running. Dropping it ends both.
struct HubKeeper(std::process::Child);

impl Drop for HubKeeper {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// A hub that the run has not started is started again by the hook `restart` of its target: here by a signal to a
/// wrapper that keeps it running.
#[test]
#[ignore = "thorough: waits for real time"]
fn a_hub_that_hangs_is_restarted_by_the_targets_hook() {
    let hub = WrappedHub::new();
    let command = hub.hanging_command("concierge", "GROUP_DELETED");
    let script = format!("trap 'kill $!; wait; exit' TERM\nwhile true; do {command} & echo $! > running; wait; done");
    let keeper = hub.write("keeper.sh", &script);
    let keeper =
        HubKeeper(std::process::Command::new("sh").arg(keeper).current_dir(hub.folder.path()).spawn().unwrap());
    let restart = hub.write("restart.sh", &format!("kill $(cat {}); sleep 1", hub.file("running").display()));
    let target = hub.write(
        "hub.toml",
        &format!(
            "url = \"{}\"\nprotocol = \"concierge\"\npatience = \"1s\"\n[hooks.restart]\ncommand = [\"sh\", \"{restart}\"]\n",
            hub.url()
        ),
    );
    while TcpStream::connect((Ipv4Addr::LOCALHOST, hub.port)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let base = ["check", "--target", &target, "--report", "json=-"];
    let done = hubproof(base.iter().chain(&THREE));
    drop(keeper);
    hub.assert_gone();
    let report = report(&done.assert_exit_code(1));
    let process = assert_only_last_fails(&report);
    assert_eq!(process["command"], "hook restart");
    assert!(process["crashes"].as_array().unwrap().iter().all(|crash| crash["hung"] == true), "{process}");
}

/// A crash that no scenario reproduces is attributed to none, but fails the run.
#[test]
#[ignore = "thorough: waits for real time"]
fn an_unreproduced_crash_fails_the_run_but_no_scenario() {
    let hub = WrappedHub::new();
    let command = hub.crashing_command("concierge", "GROUP_DELETED", false);
    let more = ["--scenario", "greeting", "--scenario", "group-deletion", "--report", "json=-"];
    let done = hub.check("concierge", &command, &more).assert_exit_code(1);
    let report = report(&done);
    let all = verdicts(&report);
    assert!(all.iter().all(|(_, verdict)| matches!(*verdict, "pass" | "info")), "{all:?}\n{}", done.err);
    let crashes = report["protocols"][0]["processes"][0]["crashes"].as_array().unwrap();
    assert_eq!((crashes.len(), &crashes[0]["blamed"]), (1, &Value::Null));
    assert!(done.err.contains("the hub ended by itself once"), "{}", done.err);
    hub.assert_gone();
}

/// It greets clients, and then hangs before it has served one.
#[test]
#[ignore = "thorough: waits for real time"]
fn a_hub_that_always_hangs_is_given_up_after_three_starts() {
    let hub = WrappedHub::new();
    let command = hub.hanging_command("concierge", "STATUS");
    let done = hub.check("concierge", &command, &["--set", "patience=1s", "--report", "json=-"]);
    let report = report(&done);
    let process = &report["protocols"][0]["processes"][0];
    assert!(process["given_up"].as_str().unwrap().contains("before it served a scenario"), "{process}");
    assert!(process["crashes"].as_array().unwrap().iter().all(|crash| crash["hung"] == true), "{process}");
    hub.assert_gone();
}

#[test]
#[ignore = "thorough: waits for real time"]
fn a_hub_that_always_crashes_ends_the_run_early() {
    let hub = WrappedHub::new();
    let command = hub.crashing_command("concierge", "HELLO", true);
    let more = ["--report", "json=-", "--report"].map(str::to_owned);
    let junit = format!("junit={}", hub.file("report.xml").display());
    let more: Vec<&str> = more.iter().map(String::as_str).chain([junit.as_str()]).collect();
    let done = hub.check("concierge", &command, &more).assert_exit_code(1);
    assert!(done.took < Duration::from_secs(90), "{:?}", done.took);
    let report = report(&done);
    let process = &report["protocols"][0]["processes"][0];
    assert_eq!(process["crashes"].as_array().unwrap().len(), 10, "{process}");
    assert!(process["given_up"].as_str().unwrap().contains("10 times"), "{process}");
    assert!(done.err.contains("The hub was not started again"), "{}", done.err);
    assert!(std::fs::read_to_string(hub.file("report.xml")).unwrap().contains("out of luck"));
    hub.assert_gone();
}

/// Cases that crash the hub are findings, those that run at the same time are not; the others are played on a restarted
/// hub.
#[test]
#[ignore = "thorough: waits for real time"]
fn a_fuzzed_hub_that_crashes_is_restarted() {
    let hub = WrappedHub::new();
    // The hub sends this word in fewer than five of these cases. Each crashes it twice, and a hub that has crashed ten
    // times is given up.
    let (url, command) = (hub.url(), hub.crashing_command("qi", "trailing c", true));
    let base = ["fuzz", &url, "--protocol", "qi", "--exec", &command, "--seed", "3", "--cases", "12", "-j", "4"];
    let commands = ["--set", "ok_command=get_static", "--set", "plain_command=ping", "--set", "echo_command=echo"];
    let mutations = ["trailing-comma", "no-json", "truncated", "null"].map(|name| ["--mutation", name]).concat();
    let done =
        hubproof(base.iter().chain(&commands).chain(&mutations).chain(&["--report", "json=-"])).assert_exit_code(1);
    let report = report(&done);
    let protocol = &report["protocols"][0];
    let oracles = &protocol["fuzzed"]["oracles"];
    let of = |oracle: &str, what: &str| oracles[oracle][what].as_u64().unwrap();
    let fell = of("FUZZ-LIVES", "broken");
    assert!((1..5).contains(&fell), "{oracles}");
    let crashes = protocol["processes"][0]["crashes"].as_array().unwrap();
    assert_eq!(of("FUZZ-LIVES", "held"), 12 - fell, "{oracles} {crashes:#?}");
    assert!(of("FUZZ-SERVES-OLD", "held") >= 12 - fell, "{oracles}");
    assert_eq!(of("FUZZ-SERVES-OLD", "broken"), 0, "{oracles}");
    let crashes = protocol["processes"][0]["crashes"].as_array().unwrap();
    assert_eq!(crashes.iter().filter(|crash| !crash["blamed"].is_null()).count() as u64, fell, "{crashes:?}");
    hub.assert_gone();
}

/// Ctrl-C and the end of the terminal reach hubproof, not the hub. The hub is stopped after the running scenarios, or at
/// once by a second Ctrl-C.
#[rstest]
#[case::interrupt(&["INT"])]
#[case::two(&["INT", "INT"])]
#[case::hangup(&["HUP"])]
fn an_interrupt_stops_the_hub(#[case] signals: &[&str]) {
    let hub = WrappedHub::new();
    let running = start_waiting_run(&hub);
    signals.iter().for_each(|signal| running.signal(signal));
    let done = running.wait_for_end();
    assert_eq!(done.code, Some(3), "{}{}", done.out, done.err);
    assert_eq!(hub.started_count(), 1);
    hub.assert_gone();
}

/// Starts a run that waits for a deadline of the hub, and returns once the hub listens.
fn start_waiting_run(hub: &WrappedHub) -> RunningProcess {
    let (url, command) = (hub.url(), hub.reference_command("concierge"));
    let words = ["check", &url, "--protocol", "concierge", "--exec", &command, "--scenario", "identify-deadline"];
    let running = start(words, &[]);
    let patience = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, hub.port)).is_err() {
        assert!(Instant::now() < patience, "the hub never started");
        std::thread::sleep(Duration::from_millis(10));
    }
    running
}

/// Even a signal that no process can handle leaves no hub behind.
#[test]
fn a_killed_run_leaves_no_hub() {
    let hub = WrappedHub::new();
    let running = start_waiting_run(&hub);
    running.signal("KILL");
    assert_eq!(running.wait_for_end().code, None);
    hub.assert_gone();
}

#[test]
fn secrets_are_masked_in_the_hubs_output() {
    let hub = WrappedHub::new();
    let script = "echo my secret is canary-7; exit 1";
    let more = ["--set", "secrets.secret=canary-7"];
    let done = hub.check("concierge", &format!("sh -c '{script}'"), &more).assert_exit_code(3);
    assert!(done.err.contains("| my secret is ***"), "{}", done.err);
    assert!(!done.err.contains("canary"), "{}", done.err);
}

#[test]
fn a_target_file_can_name_a_command_per_instance() {
    let (plain, secret) = (WrappedHub::new(), WrappedHub::new());
    let (first, second) = (plain.reference_command("concierge"), secret.reference_command("concierge"));
    let file = format!(
        "protocol = \"concierge\"\nexec = \"{first}\"\n[[instance]]\nname = \"plain\"\nurl = \"{}\"\n\
         [[instance]]\nname = \"other\"\nurl = \"{}\"\nexec = \"{second}\"\n",
        plain.url(),
        secret.url()
    );
    let file = plain.write("hub.toml", &file);
    let arguments = ["check", "--target", &file, "--scenario", "greeting", "--report", "json=-"];
    let done = hubproof(arguments).assert_exit_code(0);
    let report = report(&done);
    let processes = report["protocols"][0]["processes"].as_array().unwrap();
    let instances: Vec<&Value> = processes.iter().map(|process| &process["instances"][0]).collect();
    assert_eq!(instances, ["plain", "other"]);
    assert_eq!((plain.started_count(), secret.started_count()), (1, 1));
    plain.assert_gone();
    secret.assert_gone();
    // --exec overrides all of them; this command serves only one of the two addresses.
    let wait = ["--exec", &first, "--exec-wait", "1s"];
    let done = hubproof(arguments.iter().chain(&wait)).assert_exit_code(3);
    // A busy machine may not start the command in time.
    let ports = [plain.port, secret.port].map(|port| format!("did not listen on 127.0.0.1:{port}"));
    assert!(ports.iter().any(|one| done.err.contains(one)), "{}", done.err);
    plain.assert_gone();
}
