//! `hubproof completions` and `hubproof man`.

use std::collections::BTreeSet;

use rstest::rstest;

use crate::support::process::hubproof;

/// Returns the names of a command and of all commands below it, each with the names before it: `packs lint`. They are
/// read from `--help`.
fn command_paths(path: &[&str]) -> BTreeSet<String> {
    let help = hubproof(path.iter().chain(&["--help"])).assert_exit_code(0).out;
    let listed = help.split_once("Commands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
    let mut paths = BTreeSet::from([path.join(" ")]);
    // Further lines of a description are indented by more than two spaces.
    let names =
        listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    for name in names.filter(|name| *name != "help") {
        paths.extend(command_paths(&[path, &[name]].concat()));
    }
    paths
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");
    hubproof(["man", pages.to_str().unwrap()]).assert_exit_code(0);
    let written: BTreeSet<String> =
        std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let paths = command_paths(&[]);
    let expected: BTreeSet<String> =
        paths.iter().map(|path| format!("hubproof {path}").trim_end().replace(' ', "-") + ".1").collect();
    assert!(paths.contains("packs lint"), "{paths:?}");
    assert_eq!(written, expected);
    let page = std::fs::read_to_string(pages.join("hubproof-check.1")).unwrap();
    assert!(page.contains(".TH hubproof-check 1") && page.contains(r"\-\-protocol"), "{page}");
}

#[rstest]
#[case("bash")]
#[case("elvish")]
#[case("fish")]
#[case("powershell")]
#[case("zsh")]
fn completions_know_every_command(#[case] shell: &str) {
    let script = hubproof(["completions", shell]).assert_exit_code(0).out;
    for path in command_paths(&[]) {
        let name = path.rsplit(' ').next().unwrap();
        assert!(script.contains(name), "{path}");
    }
    assert!(script.contains("write-baseline"));
}

#[test]
fn a_folder_that_cannot_be_created_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let folder = file.path().join("pages");
    let done = hubproof(["man", folder.to_str().unwrap()]).assert_exit_code(2);
    let expected = format!("error: failed to write man pages to {}: ", folder.display());
    assert!(done.err.starts_with(&expected), "{}", done.err);
}
