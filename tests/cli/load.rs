//! `hubproof load`: wrong arguments, every built-in plan, interrupts, and a hub that is killed. `hubproof doctor`.

use std::thread;
use std::time::{Duration, Instant};

use openmetrics_parser::PrometheusValue;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::disk;
use crate::support::hostile_servers::ScriptedHub;
use crate::support::process::{ServeProcess, hubproof, start};

/// Small and short, so that all tests can run in parallel.
const SMALL_RUN_OPTIONS: [&str; 10] =
    ["--warm-up", "1s", "--duration", "2s", "--ramp", "200ms", "--drain", "60s", "--seed", "7"];

#[rstest]
#[case(&["--protocol", "qi", "--plan", "sesions"], "there is no plan or file `sesions`")]
#[case(&["--protocol", "qi", "--plan", "sesions"], "did you mean `sessions`")]
#[case(&[], "a load run needs exactly one protocol")]
#[case(&["ws://127.0.0.1:1"], "the protocol of the hub is not given")]
#[case(&["--protocol", "qi", "--workers", "5"], "the plan has no role `worker`")]
#[case(&["--protocol", "qi", "--population", "session"], "write ROLE=N")]
#[case(&["--protocol", "qi", "--rate", "0"], "the rate must be a number above 0")]
#[case(&["--protocol", "qi", "--plan", "idle", "--rate", "5"], "no role of the plan has arrivals")]
#[case(&["--protocol", "qi", "--validate", "some"], "write all, sample=0.01 or none")]
#[case(&["--protocol", "qi", "--source", "127.0.0.9-127.0.0.1"], "is not a list of source addresses")]
#[case(&["--protocol", "qi", "--source", "203.0.113.7"], "203.0.113.7 cannot be a source address")]
#[case(&["--protocol", "qi", "--threshold", "extended_request.respons.p99 < 5ms"], "did you mean `response`")]
#[case(&["--protocol", "qi", "--find-max", "ledger.lots == 0"], "did you mean `lost`")]
#[case(&["--protocol", "qi", "--plan", "idle", "--find-max", "ledger.lost == 0"], "there is no rate to search for")]
#[case(&["--protocol", "qi", "--check", "--threshold", "extended_requst.sent > 5"], "did you mean `extended_request`")]
#[case(&["--protocol", "qi", "--check", "--threshold", "sesion.failed == 0"], "did you mean `session`")]
#[case(&["--protocol", "qi", "--check", "--threshold", "extended_request.respons.p99 < 5ms"], "did you mean `response`")]
#[case(&["--protocol", "qi", "--check", "--find-max", "ledger.lots == 0"], "did you mean `lost`")]
#[case(&["--protocol", "qi", "--check", "--find-max", "monitr.completed > 5"], "the plan measures no `monitr`")]
#[case(&["--protocol", "concierge", "--plan", "direct", "--check", "--threshold", "listener.completed > 5"], "the plan measures no `listener`")]
#[case(&["--protocol", "qi", "--check", "--plan", "idle", "--find-max", "ledger.lost == 0"], "there is no rate to search for")]
#[case(&["--protocol", "qi", "--threshold", "ledger.reordered == 0"], "add `ordered: true` to the plan")]
#[case(&["--protocol", "qi", "--processes", "2"], "each share would start a hub of its own")]
#[case(&["--protocol", "qi", "--share", "1/2", "--run", "r"], "each share would start a hub of its own")]
#[case(&["ws://127.0.0.1:1", "--protocol", "qi", "--share", "3/2", "--run", "r"], "write NUMBER/ALL")]
#[case(&["ws://127.0.0.1:1", "--protocol", "qi", "--share", "1/2", "--run", "../r"], "a name has up to 64 letters")]
#[case(&["ws://127.0.0.1:1", "--protocol", "qi", "--share", "1/2"], "--run <NAME>")]
#[case(&["--protocol", "qi", "--report", "yaml=x"], "there is no report format `yaml`")]
#[case(&["--protocol", "qi", "--report", "csv=/nowhere/x"], "a report cannot be written to /nowhere/x")]
fn wrong_arguments_are_reported_before_connecting(#[case] arguments: &[&str], #[case] about: &str) {
    let done = hubproof(["load"].iter().chain(arguments)).assert_exit_code(2);
    assert!(done.err.contains(about), "{}", done.err);
}

/// A mistake in a plan is reported with its place in the file.
#[test]
fn a_threshold_of_a_plan_is_checked_without_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.yaml");
    let plan = "title: t\nroles: { caller: { population: 1, steps: [ { sends: base_request } ] } }\nthresholds:\n  - base_request.respnse.p99 < 5ms\n";
    std::fs::write(&file, plan).unwrap();
    let done = hubproof(["load", "--protocol", "qi", "--check", "--plan", file.to_str().unwrap()]).assert_exit_code(2);
    assert!(done.err.contains("plan.yaml:4:18") && done.err.contains("did you mean `response`"), "{}", done.err);
}

#[test]
fn an_unreachable_hub_is_inconclusive() {
    let done = hubproof(["load", "ws://127.0.0.1:1", "--protocol", "qi", "--duration", "1s", "--warm-up", "0s"]);
    assert_eq!(done.code, Some(3), "{}{}", done.out, done.err);
    assert!(done.err.contains("failed to connect to 127.0.0.1:1"), "{}", done.err);
    assert!(done.err.contains("help: is the hub running"), "{}", done.err);
}

#[test]
fn plans_are_listed() {
    let done = hubproof(["load", "--list", "--protocol", "emprops"]).assert_exit_code(0);
    assert!(done.out.contains("  jobs ") && done.out.contains("  idle "), "{}", done.out);
}

/// The plan states only `ledger.lost == 0`; the reference server sends each completion twice.
#[test]
fn a_violation_fails_the_run_without_a_threshold() {
    let arguments = ["load", "--protocol", "emprops", "--plan", "retries", "--fault", "emprops-completion-twice"];
    let numbers = ["--workers", "10", "--clients", "2", "--rate", "10", "--report", "json=-"];
    let done = hubproof(arguments.iter().chain(&SMALL_RUN_OPTIONS).chain(&numbers)).assert_exit_code(1);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let broken = report["thresholds"].as_array().unwrap().iter().find(|one| one["default"] == true);
    let broken = broken.unwrap_or_else(|| panic!("{}", report["thresholds"]));
    assert_eq!((&broken["text"], &broken["standing"]), (&"ledger.duplicated == 0".into(), &"broken".into()));
    let id = broken["items"][0].as_str().unwrap();
    assert!(id.starts_with("job-"), "{broken}");
    assert!(done.err.contains("BROKEN      ledger.duplicated == 0   observed: "), "{}", done.err);
    assert!(done.err.contains(&format!("; first {id}")), "{}", done.err);
}

/// The hub follows its document except for the deviation of the first entry.
#[test]
fn declared_deviations_are_counted_and_a_stale_one_fails_the_run() {
    let serving = ServeProcess::start(["qi"], 1);
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let entries = r#"[[deviation]]
reason = "it wants a trace"
message = "extended_request"
member = "/trace"
added = "x"
direction = "to-hub"
[[deviation]]
reason = "success is spelled ok"
member = "/status"
value = "success"
spelled = "ok"
direction = "from-hub"
"#;
    let target = format!("protocol = \"qi\"\nurl = \"{}\"\n{entries}", serving.url("qi"));
    std::fs::write(file.path(), target).unwrap();
    let arguments = ["load", "--target", file.path().to_str().unwrap(), "--rate", "10", "--report", "json=-"];
    let done = hubproof(arguments.iter().chain(&SMALL_RUN_OPTIONS)).assert_exit_code(1);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let [trace, ok] = [0, 1].map(|at| &report["deviations"][at]);
    assert_eq!((&trace["standing"], &trace["contradicted"]), (&"expected".into(), &0.into()), "{trace}");
    assert_eq!(trace["observed"].as_u64(), Some(count_in_report(&report, "extended_request.sent")), "{trace}");
    assert_eq!((&ok["standing"], &ok["observed"]), (&"stale".into(), &0.into()), "{ok}");
    assert!(ok["contradicted"].as_u64() > Some(0), "{ok}");
    assert!(done.err.contains("stale[deviation:2]: "), "{}", done.err);
}

/// Workers wait for a message that never arrives; clients would connect after them.
#[test]
fn workers_that_cannot_join_end_the_run_with_the_missing_message() {
    let serving = ServeProcess::start(["emprops", "--fault", "emprops-worker-registered-as-client"], 1);
    let arguments = ["load", serving.url("emprops"), "--protocol", "emprops", "--plan", "jobs", "--workers", "40"];
    let done = hubproof(arguments.iter().chain(&SMALL_RUN_OPTIONS)).assert_exit_code(3);
    let expected = "invalid[unjoined]: the run ended because no client of worker joined; ";
    assert!(done.out.contains(expected), "{}", done.out);
    let names_step = |line: &&str| {
        line.starts_with("invalid[unjoined]: worker ") && line.contains(" waited for worker_registered (")
    };
    let line = done.out.lines().find(names_step).unwrap_or_else(|| panic!("{}", done.out));
    assert!(line.contains("scenarios/emprops/shared.yaml:"), "{line}");
    assert!(line.contains(r#"; received: {"type":"connection_established""#), "{line}");
    assert!(line.contains(r#""type":"client_registered""#), "{line}");
    // One patience of ten seconds, not a minute of attempts.
    assert!(done.took < Duration::from_secs(45), "{:?}", done.took);
}

/// Runs and returns the report from stdout. A slow machine may make a run suspect, nothing else.
#[track_caller]
fn run_and_report(arguments: &[&str]) -> Value {
    let done = hubproof(["load"].iter().chain(arguments).chain(&["--report", "json=-"]));
    assert!(matches!(done.code, Some(0 | 3)), "{:?}\n{}", done.code, done.err);
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}\n{}\n{}", done.out, done.err))
}

fn count_in_report(report: &Value, name: &str) -> u64 {
    report["counts"][name]["whole_run"].as_u64().unwrap_or(0)
}

/// A warm-up that ends by itself takes three seconds at least, and ten at most for so short a run.
#[test]
fn the_warm_up_ends_when_the_hub_is_steady_and_the_report_says_how_long_it_took() {
    let arguments = ["--protocol", "qi", "--rate", "100", "--ramp", "100ms", "--warm-up", "auto", "--duration", "1s"];
    let report = run_and_report(&arguments.iter().chain(&["--drain", "5s"]).copied().collect::<Vec<_>>());
    let took = report["run"]["warm_up_s"].as_f64().unwrap();
    assert!((3.0..=11.0).contains(&took), "{took}");
    let fact = report["run"]["facts"]["warm-up"].as_str().unwrap();
    assert!(fact.contains(" s, until throughput") || took >= 10.0, "{fact}");
    assert_eq!(report["run"]["measured_s"], 1.0);
    let measured = report["intervals"].as_array().unwrap().iter().filter(|one| one["phase"] == "measured");
    assert_eq!(measured.count(), 1);
}

/// `tests/load/plans.rs` runs every plan, in virtual time.
#[rstest]
#[case::jobs("emprops", "jobs", &["--workers", "20", "--clients", "4", "--rate", "40"])]
#[case::published("concierge", "groups", &["--rate", "40"])]
#[case::by_a_hook("airavata", "events", &["--rate", "20"])]
#[case::no_journeys("qi", "idle", &["--population", "guest=50"])]
fn plans_run_without_errors_over_sockets(#[case] protocol: &str, #[case] plan: &str, #[case] more: &[&str]) {
    let base = ["--protocol", protocol, "--plan", plan, "--validate", "all"];
    let arguments: Vec<&str> = base.iter().chain(&SMALL_RUN_OPTIONS).chain(more).copied().collect();
    let report = run_and_report(&arguments);
    for violation in ["lost", "duplicated", "unexpected", "reordered", "assigned_twice", "wrong_worker", "unfollowed"] {
        assert_eq!(report["ledger"]["counts"][violation].as_u64().unwrap_or(0), 0, "{violation}: {report}");
    }
    let sent: u64 = report["counts"]
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| name.ends_with(".sent"))
        .map(|name| count_in_report(&report, name))
        .sum();
    assert!(sent > 0 || plan == "idle", "{report}");
    assert_eq!(report["errors"], 0, "{report}");
    let validated = report["run"]["facts"]["validated"].as_str().unwrap();
    assert!(validated.contains(", 0 invalid"), "{report}");
}

#[rstest]
#[cfg(unix)]
fn an_interrupted_run_drains_reports_and_is_inconclusive(#[values("INT", "TERM")] signal: &str) {
    let run = start("load --protocol qi --duration 10m --warm-up 0s --rate 50 --report json=-".split(' '), &[]);
    run.wait_for_stderr("measured\n");
    run.signal(signal);
    let done = run.wait_for_end().assert_exit_code(3);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&report["run"]["interrupted"], &report["run"]["exit_code"]), (&true.into(), &3.into()));
    assert!(done.err.contains("draining"), "{}", done.err);
    assert!(done.err.contains("INCONCLUSIVE qi/load/sessions: ") && done.err.contains("interrupted"), "{}", done.err);
}

/// Returns the sum of the samples of a metric with this label.
/// On one generator, the same plan and seed have 96 journeys due. Workers of one share do jobs of the other.
#[test]
fn processes_share_a_plan_and_make_one_report() {
    let serving = ServeProcess::start(["emprops"], 1);
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("run.json");
    let url = serving.url("emprops");
    let mut words =
        vec!["load", &url, "--protocol", "emprops", "--rate", "40", "--processes", "2", "--validate", "none"];
    words.extend(["--warm-up", "500ms", "--duration", "2s", "--ramp", "200ms", "--drain", "4s", "--seed", "7"]);
    let report = format!("json={}", json.display());
    let done = hubproof(words.iter().chain(&["--report", &report]));
    // A busy machine may leave the figures in doubt.
    assert!(matches!(done.code, Some(0 | 3)), "{done:?}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let started = count_in_report(&report, "job.started") + count_in_report(&report, "job.missed");
    let ledger = |name: &str| report["ledger"]["counts"][name].as_u64().unwrap_or_default();
    assert_eq!((started, ledger("unexpected"), ledger("lost")), (96, 0, 0), "{}", done.out);
    assert_eq!(ledger("attempted"), ledger("completed"), "{}", done.out);
    assert!(done.out.contains("2 shares on one machine"), "{}", done.out);
}

#[test]
fn merge_names_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let done = hubproof(["merge", folder.path().to_str().unwrap()]).assert_exit_code(2);
    assert!(done.err.contains("has no files of shares") && done.err.contains("--share 1/4"), "{}", done.err);
    let serving = ServeProcess::start(["qi"], 1);
    let url = serving.url("qi");
    let mut words = vec!["load", &url, "--protocol", "qi", "--plan", "idle", "--population", "guest=2"];
    words.extend(["--duration", "1s", "--warm-up", "0s", "--ramp", "0s", "--drain", "0s"]);
    words.extend(["--run", "r", "--share", "2/2", "--to", folder.path().to_str().unwrap()]);
    let done = hubproof(&words).assert_exit_code(0);
    assert!(done.err.contains("share 2/2 of r is in"), "{}", done.err);
    let done = hubproof(["merge", folder.path().to_str().unwrap()]).assert_exit_code(2);
    assert!(done.err.contains("the run has 2 shares, and these are missing: 1/2"), "{}", done.err);
    // The file may be another run's result.
    let done = hubproof(&words).assert_exit_code(2);
    assert!(done.err.contains("give the run another name"), "{}", done.err);
}

fn sum_of(text: &str, family: &str, what: &str) -> f64 {
    let read = openmetrics_parser::prometheus::parse_prometheus(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let value = |value: &PrometheusValue| match value {
        PrometheusValue::Counter(counter) => counter.value.as_f64(),
        PrometheusValue::Gauge(gauge) => gauge.as_f64(),
        other => panic!("{other:?}"),
    };
    let samples = read.families.get(family).into_iter().flat_map(|family| family.iter_samples());
    let told = samples.filter(|sample| sample.get_labelset().unwrap().get_label_value("what") == Some(what));
    told.map(|sample| value(&sample.value)).sum()
}

/// Fetches the Prometheus metrics during the run and parses them strictly.
#[test]
#[cfg(unix)]
fn metrics_are_served_during_the_run() {
    let run =
        start("load --protocol emprops --metrics 127.0.0.1:0 --duration 10m --warm-up 0s --rate 50".split(' '), &[]);
    let said = run.wait_for_stderr("measured\n");
    let url = said.lines().find_map(|line| line.strip_prefix("metrics on ")).unwrap();
    let begun = Instant::now();
    // The ledger is updated at the end of each second of the run.
    let text = loop {
        let mut answer = ureq::get(url).call().unwrap();
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let text = answer.body_mut().read_to_string().unwrap();
        if sum_of(&text, "hubproof_ledger", "completed") > 0.0 {
            break text;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{text}");
        thread::sleep(Duration::from_millis(50));
    };
    assert!(sum_of(&text, "hubproof_messages_total", "sent") > 0.0, "{text}");
    assert!(text.contains("hubproof_message_seconds"), "{text}");
    let elsewhere = ureq::get(url.replace("/metrics", "/other")).call();
    assert!(matches!(elsewhere, Err(ureq::Error::StatusCode(404))), "{elsewhere:?}");
    run.signal("INT");
    run.wait_for_end();
}

#[test]
#[cfg(unix)]
fn ctrl_c_twice_stops_and_still_reports() {
    let run = start(
        "load --protocol emprops --duration 10m --drain 10m --warm-up 0s --workers 0 --report json=-".split(' '),
        &[],
    );
    run.wait_for_stderr("measured\n");
    run.signal("INT");
    run.wait_for_stderr("draining");
    run.signal("INT");
    let done = run.wait_for_end().assert_exit_code(3);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(report["run"]["interrupted"], true);
}

/// All journeys go to the threads that have clients of the role.
#[test]
fn a_role_with_fewer_clients_than_threads_gets_all_its_arrivals() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.yaml");
    let plan = "title: t\nphases: { warm_up: 0s, duration: 1s, drain: 1s }\nroles:\n  caller:\n    population: 1\n    ramp: 0s\n    arrivals: 20\n    at_a_time: 50\n    steps: [ { sends: base_request } ]\n";
    std::fs::write(&file, plan).unwrap();
    let report = run_and_report(&["--protocol", "qi", "--plan", file.to_str().unwrap(), "--threads", "3"]);
    assert_eq!(count_in_report(&report, "schedule.no_client"), 0, "{}", report["counts"]);
    assert_eq!(count_in_report(&report, "base_request.sent"), 20, "{}", report["counts"]);
}

/// Writes a plan for the qi protocol with a feeder of two rows, and checks it.
fn check_plan_with_rows(expression: &str) -> crate::support::process::ProcessResult {
    let folder = tempfile::tempdir().unwrap();
    let plan = format!(
        "title: t\nfeeders: {{ people: people.csv }}\nroles:\n  caller:\n    population: 3\n    steps:\n      - sends: base_request\n        with: {{ session_id: \"{expression}\" }}\n"
    );
    std::fs::write(folder.path().join("plan.yaml"), plan).unwrap();
    std::fs::write(folder.path().join("people.csv"), "name,weight\nanna,1\nben,2\n").unwrap();
    let plan = folder.path().join("plan.yaml");
    hubproof(["load", "--protocol", "qi", "--check", "--plan", plan.to_str().unwrap()])
}

#[rstest]
#[case(
    "${people.nme}",
    "the feeder `people` has no column `nme`",
    "did you mean `name`? known columns are name, weight"
)]
#[case("${people.height}", "the feeder `people` has no column `height`", "known columns are name, weight")]
#[case("${people}", "`people` is a whole row", "known columns are name, weight")]
fn an_unknown_column_is_reported_with_the_known_ones(
    #[case] expression: &str,
    #[case] message: &str,
    #[case] help: &str,
) {
    let done = check_plan_with_rows(expression).assert_exit_code(2);
    assert!(done.err.contains("plan.yaml:8:") && done.err.contains(message) && done.err.contains(help), "{}", done.err);
    check_plan_with_rows("${people.name}").assert_exit_code(0);
}

#[test]
#[cfg(unix)]
fn clients_reconnect_to_a_killed_hub_and_lost_jobs_are_reported() {
    let serving = ServeProcess::start(["emprops"], 1);
    let url = serving.url("emprops").to_owned();
    let address = url.strip_prefix("ws://").unwrap().to_owned();
    let load = "--protocol emprops --workers 10 --clients 4 --rate 40 --duration 12s --warm-up 1s --drain 3s";
    let run = start(format!("load {url} {load} --report json=-").split(' '), &[]);
    run.wait_for_stderr("measured\n");
    serving.stop("KILL");
    let again = ServeProcess::start(["emprops", "--listen", &address], 1);
    let done = run.wait_for_end();
    let report: Value = serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}\n{}", done.err));
    assert!(count_in_report(&report, "errors.lost") >= 14, "{report}");
    // All clients are connected again, and jobs are completed.
    let last = report["intervals"].as_array().unwrap().iter().rfind(|one| one["phase"] == "measured").unwrap();
    assert!(last["levels"]["connections"].as_u64().unwrap() >= 14, "{last}");
    assert!(last["counts"]["job.completed"].as_u64().unwrap_or(0) > 0, "{last}");
    // The hub keeps its jobs in memory: open ones are lost, and reported.
    assert!(report["ledger"]["counts"]["completed"].as_u64().unwrap() > 0, "{report}");
    drop(again);
}

#[test]
fn doctor_measures_the_machine_and_ends_with_a_plain_statement() {
    let done = hubproof(["doctor"]).assert_exit_code(0);
    for what in ["descriptors", "ports", "memory", "cores", "clock", "timers", "round trips", "other load", "swap"] {
        let rows = done.out.lines().filter(|line| {
            let row = line.trim_start().strip_prefix("ok").or(line.trim_start().strip_prefix("warning"));
            row.is_some_and(|row| row.trim_start().starts_with(what))
        });
        assert_eq!(rows.count(), 1, "{what}: {}", done.out);
    }
    let last = done.out.rsplit("\n\n").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        last.starts_with("This machine can ")
            && last.contains("messages a second from hubproof (")
            && last.contains("; limited by "),
        "{last}"
    );
    assert!(done.err.contains("measuring round trips"), "{}", done.err);
    // Rates and times are measured, so they are only known not to be zero.
    assert!(!done.out.contains(" 0 a second") && !last.contains(" about 0 "), "{}", done.out);
}

const ASK: [&str; 5] =
    ["load", "--pack", "tests/fixtures/documents/ask.yaml", "--plan", "tests/fixtures/plans/ask.yaml"];

/// A hub that accepts connections and never answers decides nothing.
#[test]
fn a_hub_that_never_answers_is_inconclusive() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let done = hubproof([&ASK[..], &[url.as_str()]].concat()).assert_exit_code(3);
    assert!(done.out.contains("INCONCLUSIVE"), "{}", done.out);
}

/// Messages that break their schema have a threshold of 0, also in a sample.
#[rstest]
#[case::all(&["--validate", "all"], 1, "frames.invalid == 0   observed: ")]
#[case::sample(&["--validate", "sample=0.01"], 1, "at least 100 of each")]
#[case::stated(&["--threshold", "tell.invalid < 1000"], 0, "tell.invalid < 1000")]
#[case::none(&["--validate", "none"], 0, "PASS")]
fn replies_that_break_their_schema_fail_a_run(#[case] options: &[&str], #[case] code: i32, #[case] says: &str) {
    let hub = ScriptedHub::start(|_, _, _| vec![r#"{"error":1}"#.to_owned()]);
    let url = hub.url();
    let done = hubproof([&ASK[..], &[url.as_str()], options].concat()).assert_exit_code(code);
    assert!(done.out.contains(says), "{}", done.out);
}

/// The advice is not to raise the population.
#[test]
fn a_hub_that_ends_during_a_run_is_gone() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let hub = ScriptedHub::start(move |_, _, _| {
        // The test may have seen enough.
        let _ = sender.send(());
        vec![r#"{"told":1}"#.to_owned()]
    });
    let url = hub.url();
    let run = start([&ASK[..], &[url.as_str(), "--duration", "4s"]].concat(), &[]);
    (0..5).for_each(|_| receiver.recv().unwrap());
    drop(hub);
    let done = run.wait_for_end().assert_exit_code(3);
    assert!(done.out.contains("the hub was gone"), "{}", done.out);
    assert!(!done.out.contains("raise `population`"), "{}", done.out);
}

const LIFECYCLE: &str = "always:
  - opens: req
    carries: event
    closes: eose
    ended: [NOSTR-1]
";

/// A relay answers each subscription with stored events and EOSE, and every fourth with EOSE alone. `carries` or the
/// lifecycle of the pack says that the events refuse nothing; `closed` still does.
#[rstest]
#[case::named(&[(LIFECYCLE, "")], "eose", (true, false))]
#[case::by_the_lifecycle(&[("        carries: [event]\n", "")], "eose", (true, false))]
#[case::neither(&[(LIFECYCLE, ""), ("        carries: [event]\n", "")], "eose", (false, true))]
#[case::refused(&[], "closed", (false, true))]
fn a_streamed_reply_ends_with_its_last_message(
    #[case] edits: &[(&str, &str)],
    #[case] last: &'static str,
    #[case] (all_answered, some_refused): (bool, bool),
) {
    let folder = tempfile::tempdir().unwrap();
    disk::copy_folder(&disk::root().join("tests/fixtures/nostr"), folder.path());
    for file in ["scenarios/shared.yaml", "scenarios/load/feed.yaml"].map(|file| folder.path().join(file)) {
        let mut text = std::fs::read_to_string(&file).unwrap();
        edits.iter().for_each(|(from, to)| text = text.replace(from, to));
        std::fs::write(file, text).unwrap();
    }
    let hub = ScriptedHub::start(move |_, number, text| {
        let asked: Value = serde_json::from_str(text).unwrap();
        let events = if number % 4 == 3 { 0 } else { 3 };
        let events = (0..events).map(|kind| json!(["EVENT", asked[1], { "kind": kind }]));
        let end = json!([last.to_uppercase(), asked[1], ""]);
        events.chain([end]).map(|frame| frame.to_string()).collect()
    });
    let (pack, url) = (folder.path().to_str().unwrap(), hub.url());
    let report = run_and_report(&[&url, "--pack", pack, "--plan", "feed", "--validate", "all"]);
    let count = |name: &str| count_in_report(&report, name);
    let (sent, answered, refused) = (count("req.sent"), count("req.answered"), count("errors.refused"));
    assert_eq!((answered == sent, refused > 0), (all_answered, some_refused), "{}", report["counts"]);
    // A busy machine may leave arrivals unsent.
    assert!(sent >= 8 && count("event.received") > sent, "{}", report["counts"]);
}
