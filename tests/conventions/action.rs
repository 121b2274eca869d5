//! The steps of the GitHub action, with inputs that a pull request of a stranger may choose.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::support::disk::root;

/// Runs a step with `hubproof` replaced by a script that prints its arguments.
fn play_step(step: &str, inputs: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("hubproof");
    std::fs::create_dir(folder.path().join("files")).unwrap();
    std::fs::write(&program, "#!/bin/sh\nfor argument; do printf '%s\\n' \"$argument\"; done\n").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.arg(root().join("packaging/action")).arg(step).env("PATH", path);
    for name in ["COMMAND", "URL", "PROTOCOL", "PACK", "TARGET", "ARGUMENTS", "REPORTS", "VERSION"] {
        command.env(format!("HUBPROOF_{name}"), "");
    }
    command.envs([("HUBPROOF_COMMAND", "check"), ("RUNNER_OS", "Linux"), ("RUNNER_ARCH", "X64")]);
    // No address that is downloaded from.
    command.env("HUBPROOF_REPOSITORY", "file:///no/such");
    command.env("RUNNER_TEMP", folder.path().join("files")).env("GITHUB_STEP_SUMMARY", folder.path().join("summary"));
    command.envs(inputs.iter().map(|(name, value)| (format!("HUBPROOF_{name}"), *value))).output().unwrap()
}

#[test]
fn an_input_of_the_action_is_never_an_option() {
    let evil = "--exec=touch pwned";
    let inputs = [("URL", evil), ("PROTOCOL", evil), ("PACK", evil), ("TARGET", evil), ("REPORTS", evil)];
    let done = play_step("run", &inputs);
    let printed = String::from_utf8(done.stdout).unwrap();
    let given: Vec<&str> = printed.lines().collect();
    assert!(given.ends_with(&["--", evil]), "{given:?}");
    assert_eq!(given.iter().filter(|argument| argument.starts_with("--exec")).count(), 1, "{given:?}");
}

#[test]
fn a_version_of_the_action_is_no_path() {
    for version in ["../../other/1.0", "1.0/../x", "1.0?x", "..", "1 0", "$(id)"] {
        let done = play_step("install", &[("VERSION", version)]);
        let printed = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.code() == Some(2) && printed.contains("is not a version"), "{version}: {printed}");
    }
}
