//! The hubs of tests/strangers: their own self-tests, and fuzzing. `reports/strangers` plays their bugs and variants.

use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use serde_json::Value;

use super::third_party_hubs::findings;
use crate::support::disk;
use crate::support::process::{free_port, hubproof};

/// Returns the words that run a script of a hub; `None` unless `reports/strangers --install` has installed what it
/// needs, which is a failure in CI.
fn script_words(hub: &Path, script: &str) -> Option<[String; 2]> {
    let root = disk::root();
    let (interpreter, needed, end) = if hub.to_str().unwrap().ends_with("-python") {
        let python = root.join("target/strangers/venv/bin/python");
        (python.clone(), python, "py")
    } else {
        (PathBuf::from("node"), root.join("tests/strangers/node_modules/ws"), "mjs")
    };
    if !needed.exists() {
        assert!(std::env::var_os("CI").is_none(), "run `reports/strangers --install` first");
        eprintln!("skipped: `reports/strangers --install` installs what {} needs", hub.display());
        return None;
    }
    Some([interpreter, hub.join(format!("{script}.{end}"))].map(|path| path.display().to_string()))
}

/// A mutant of a hub is wrong if a conversation of the self-test goes wrong, so all must go right with the hub itself.
#[rstest]
#[ignore = "thorough: repeats the proof against other hubs"]
fn the_self_test_of_a_hub_passes(
    #[dirs]
    #[files("tests/strangers/*-*")]
    #[exclude("package-lock")]
    hub: PathBuf,
) {
    let Some([interpreter, script]) = script_words(&hub, "selftest") else { return };
    let done = Command::new(interpreter).arg(script).arg("plain").output().unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

#[rstest]
#[ignore = "thorough: repeats the proof against other hubs"]
fn fuzzing_a_hub_written_by_a_stranger_finds_nothing(
    #[dirs]
    #[files("tests/strangers/*-*")]
    #[exclude("package-lock")]
    hub: PathBuf,
) {
    let Some(words) = script_words(&hub, "hub") else { return };
    let port = free_port().to_string();
    let target = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let text = std::fs::read_to_string(hub.join("target.toml")).unwrap();
    std::fs::write(target.path(), text.replace("PORT", &port)).unwrap();
    let protocol = hub.file_name().unwrap().to_str().unwrap().split('-').next().unwrap();
    let command = shlex::try_join(words.iter().map(String::as_str).chain(["--port", &port])).unwrap();
    let url = format!("url=ws://127.0.0.1:{port}");
    let base = ["fuzz", "--protocol", protocol, "--target", target.path().to_str().unwrap(), "--set", &url];
    let run = ["--exec", &command, "--cases", "50", "--seed", "3", "-j", "4", "--report", "json=-"];
    let done = hubproof(base.iter().chain(&run)).assert_exit_code(0);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let report = &report["protocols"][0];
    assert_eq!(findings(report), Vec::<String>::new(), "{:#}", report["findings"]);
    assert!(report["fuzzed"]["decided"].as_u64().unwrap() >= 30, "{:#}", report["fuzzed"]);
}
