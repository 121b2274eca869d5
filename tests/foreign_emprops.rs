//! A hub that somebody wrote from the document alone, in another language and with habits of its own, passes; with a
//! mistake that somebody might make, it does not.

use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rstest::rstest;
use serde_json::Value;

use crate::cli_process::hubproof;

/// A hub that runs beside the tests; it ends with the value.
struct ForeignHub {
    child: Child,
    url: String,
}

impl ForeignHub {
    /// Nothing where the interpreter is not installed, which on a build server is a failure.
    #[track_caller]
    fn start(interpreter: &str, script: &str, arguments: &[&str]) -> Option<Self> {
        let started = Command::new(interpreter)
            .arg(script)
            .args(arguments)
            .current_dir(crate::on_disk::root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
                eprintln!("skipped: there is no {interpreter} here to run {script} with");
                return None;
            }
            Err(error) => panic!("{interpreter} {script} does not start: {error}"),
        };
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().to_owned();
        assert!(url.starts_with("ws://"), "{interpreter} {script} should print its address first, not {line:?}");
        Some(Self { child, url })
    }
}

impl Drop for ForeignHub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SCRIPT: &str = "tests/hubs/emprops.mjs";

fn hub(arguments: &[&str]) -> Option<ForeignHub> {
    ForeignHub::start("node", SCRIPT, arguments)
}

/// The report of a check of this target, which must end with this code.
#[track_caller]
fn check(folder: &Path, options: &[&str], code: i32) -> Value {
    let report = folder.join("report.json");
    let target = folder.join("hub.toml");
    let mut arguments = vec!["check".into(), "--target".into(), target.into_os_string(), "--strict".into()];
    arguments.extend(["--report".into(), format!("json={}", report.display()).into()]);
    arguments.extend(options.iter().map(Into::into));
    hubproof(arguments).ends_with(code);
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    report["protocols"][0].clone()
}

fn target(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("hub.toml");
    std::fs::write(&file, format!("protocol = \"emprops\"\n{text}")).unwrap();
    file
}

/// The bits of a seed are the habits that a hub has for good: 255 has all of them, 256 none.
#[rstest]
#[case::with_all_habits("255")]
#[case::with_the_others("256")]
fn the_hub_of_somebody_else_passes(#[case] seed: &str) {
    let folder = tempfile::tempdir().unwrap();
    let with = |more: &[&str]| hub(&[&["--seed", seed], more].concat());
    let (Some(main), Some(fast), Some(strict)) =
        (with(&[]), with(&["--heartbeat-ms", "500"]), with(&["--token", "a good worker's token"]))
    else {
        return;
    };
    let process = main.child.id();
    target(
        folder.path(),
        &format!(
            r#"
url = "{}"
settings = {{ retry_delay = "400ms" }}

[[instance]]
name = "main"

[[instance]]
name = "beats-fast"
url = "{}"
settings = {{ heartbeat_interval = "500ms" }}

[[instance]]
name = "with-token"
url = "{}"
secrets = {{ worker_token = "a good worker's token" }}

[hooks.stop]
command = ["kill", "-TERM", "{process}"]

[hooks.alert]
command = ["kill", "-USR1", "{process}"]
"#,
            main.url, fast.url, strict.url
        ),
    );
    let report = check(folder.path(), &["--destructive"], 0);
    let verdicts = &report["checks"]["verdicts"];
    for verdict in ["fail", "warn", "inconclusive"] {
        assert_eq!(verdicts[verdict].as_u64().unwrap_or(0), 0, "{verdict}: {}", report["findings"]);
    }
    // All but TLS, which this hub does not speak.
    assert!(report["rules"]["proven"].as_u64().unwrap() >= 134, "{}", report["summary"]);
}

#[rstest]
#[case::a_claimed_job_is_given_away_again("double-assign", "priority", "EMP-059")]
#[case::a_claim_never_lapses("forget-lapsed", "claim-timeout", "EMP-064")]
#[case::everybody_hears_of_every_job("notify-all", "subscriptions", "EMP-091")]
#[case::the_least_important_goes_first("lowest-first", "priority", "EMP-045")]
#[case::a_cancelled_job_is_still_given_away("cancel-in-words", "cancellation", "EMP-053")]
#[case::who_follows_a_job_does_not_hear_that_it_is_cancelled("silent-cancel", "subscriptions", "EMP-090")]
#[case::any_worker_may_report("any-worker", "foreign-reports", "EMP-083")]
fn a_mistake_of_somebody_else_is_found(#[case] bug: &str, #[case] scenario: &str, #[case] rule: &str) {
    let folder = tempfile::tempdir().unwrap();
    let Some(hub) = hub(&["--bug", bug]) else {
        return;
    };
    target(folder.path(), &format!("url = \"{}\"\n", hub.url));
    let report = check(folder.path(), &["--scenario", scenario], 1);
    let found: Vec<_> = report["findings"].as_array().unwrap().iter().filter(|f| f["verdict"] != "info").collect();
    assert!(found.iter().any(|f| f["rules"].as_array().unwrap().iter().any(|id| id == rule)), "{found:#?}");
}
