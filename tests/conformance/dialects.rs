//! Dialects: a hub that differs from its document passes with the pack that the dialect makes, and only with
//! all of its overrides.

use std::fs;
use std::path::Path;

use rstest::rstest;

use super::third_party_hubs::{CONCIERGE, run_against_hub};
use crate::support::process::{hubproof, hubproof_reading};

/// The hub's HELLO is a WELCOME without a version, and its gateway wants a key.
const HUB_DEVIATION_OPTIONS: [&str; 6] =
    ["--deviate", "member-missing", "--deviate", "greeting-other", "--deviate", "extra-header"];

/// The overrides: a message and its schema, a rule, a role's opening, steps of a scenario.
const DIALECT_FILES: [(&str, &str); 6] = [
    ("dialect.yaml", "extends: concierge\nreason: the gateway in front of our hub\n"),
    ("asyncapi.yaml", "components:\n  messages:\n    hello: { x-hubproof: { match: { type: WELCOME } } }\n"),
    (
        "messages/hello.schema.json",
        r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "x-rules": ["CON-025"],
  "required": ["type", "uuid"],
  "properties": { "type": { "const": "WELCOME" }, "uuid": { "type": "string" }, "version": { "type": "string" } },
  "examples": [{ "type": "WELCOME", "uuid": "73fcc768-d724-47e2-a101-a45298188f47" }]
}
"#,
    ),
    (
        "rules.yaml",
        "rules:\n  CON-025:\n    level: should\n    text: The greeting has the string `uuid`, and should have the string `version`.\n",
    ),
    (
        "scenarios/shared.yaml",
        "roles:
  client:
    steps:
      connects: { connects: , subprotocols: [ert-concierge], headers: { X-Api-Key: k } }
",
    ),
    (
        "scenarios/greeting.yaml",
        "steps:
  anna connects: { anna connects: , subprotocols: [ert-concierge], headers: { X-Api-Key: k }, as: upgrade }
  polyglot connects:
    polyglot connects:
    subprotocols: [\"${unique('other')}\", ert-concierge]
    headers: { X-Api-Key: k }
    as: choice
",
    ),
];

/// Writes the dialect into a folder, without the files `left_out`.
fn write_dialect(folder: &Path, left_out: &[&str]) {
    for (path, text) in DIALECT_FILES.iter().filter(|(path, _)| !left_out.contains(path)) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[rstest]
#[case::whole(&[], 0)]
#[ignore = "thorough: repeats the proof against other hubs"]
#[case::without_its_message(&["asyncapi.yaml", "messages/hello.schema.json"], 1)]
#[case::without_its_rule(&["rules.yaml"], 1)]
#[ignore = "thorough: repeats the proof against other hubs"]
#[case::without_its_role(&["scenarios/shared.yaml"], 1)]
// The first step that the gateway refuses has no rule, so nothing is judged.
#[ignore = "thorough: repeats the proof against other hubs"]
#[case::without_its_steps(&["scenarios/greeting.yaml"], 3)]
fn a_hub_passes_only_with_its_whole_dialect(#[case] left_out: &[&str], #[case] code: i32) {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("gateway");
    write_dialect(&pack, left_out);
    let pack = pack.to_str().unwrap();
    let lint = hubproof(["packs", "lint", pack]).assert_exit_code(0);
    assert!(lint.out.contains(" 0 errors, 0 warnings\n"), "{}", lint.out);
    let options = ["--pack", pack, "--scenario", "gateway/greeting", "--stretch", "2"];
    let Some((report, found)) =
        run_against_hub("check", &CONCIERGE, &[&["--plain"][..], &HUB_DEVIATION_OPTIONS].concat(), "", &options)
    else {
        return;
    };
    assert_eq!(found, Some(code), "{} {:#}", report["summary"], report["findings"]);
    assert_eq!(report["name"], "gateway");
}

#[test]
fn all_commands_treat_a_dialect_as_its_merged_pack() {
    let folder = tempfile::tempdir().unwrap();
    let (pack, further) = (folder.path().join("gateway"), folder.path().join("further"));
    write_dialect(&pack, &[]);
    fs::create_dir(&further).unwrap();
    fs::write(further.join("dialect.yaml"), "extends: ../gateway\nname: concierge\n").unwrap();
    fs::write(further.join("rules.yaml"), "rules:\n  CON-026: { level: must }\n").unwrap();
    let (pack, further) = (pack.to_str().unwrap(), further.to_str().unwrap());
    // A dialect of a dialect has the overrides of both.
    let rules = hubproof(["packs", "show", further, "--rules"]).assert_exit_code(0).out;
    for line in ["CON-025  should", "CON-026  must", "The greeting has the string `uuid`"] {
        assert!(rules.contains(line), "{rules}");
    }
    let welcome = r#"{"type": "WELCOME", "uuid": "73fcc768-d724-47e2-a101-a45298188f47"}"#;
    hubproof_reading(["packs", "validate", pack, "hello", "-"], welcome).assert_exit_code(0);
    hubproof_reading(["packs", "validate", "concierge", "hello", "-"], welcome).assert_exit_code(1);
    let listed = hubproof(["check", "--list", "--pack", pack]).assert_exit_code(0).out;
    assert!(listed.contains("gateway/greeting"), "{listed}");
    let file = format!("{pack}/dialect.yaml");
    assert_eq!(hubproof(["check", "--list", "--pack", &file]).assert_exit_code(0).out, listed);
    let cases = ["fuzz", "--pack", pack, "--print-cases", "--cases", "3", "--seed", "1"];
    assert!(hubproof(cases).assert_exit_code(0).out.starts_with(r#"{"protocol":"gateway""#));
    let changes = hubproof(["relay", "--pack", pack, "--list"]).assert_exit_code(0).out;
    assert!(changes.contains("remove hello /uuid"), "{changes}");
    assert!(hubproof(["load", "--pack", pack, "--list"]).assert_exit_code(0).out.starts_with("gateway "));
}

#[test]
fn lint_shows_where_a_dialect_no_longer_applies() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("gateway");
    write_dialect(&pack, &[]);
    let shown = pack.to_str().unwrap();
    fs::write(
        pack.join("rules.yaml"),
        "rules:\n  CON-025: { level: must }\n  CON-999: { level: may }\n  CON-001: { level: might }\n",
    )
    .unwrap();
    fs::write(pack.join("scenarios/greeting.yaml"), "steps:\n  anne connects: null\n").unwrap();
    fs::write(pack.join("scenarios/greetings.yaml"), "steps:\n  anna connects: null\n").unwrap();
    fs::write(
        pack.join("scenarios/shared.yaml"),
        "roles:\n  clint: { opening: [] }\n  client: { steps: { connect: null } }\n",
    )
    .unwrap();
    fs::write(pack.join("asyncapi.yaml"), "components:\n  messages:\n    helo: null\n").unwrap();
    let lint = hubproof(["packs", "lint", shown]).assert_exit_code(2);
    insta::assert_snapshot!("stale_dialect", lint.out.replace(shown, "gateway"));
    // No other command accepts it.
    let check = hubproof(["check", "ws://127.0.0.1:1", "--pack", shown]).assert_exit_code(2);
    assert!(check.err.contains("`concierge` has no rule `CON-999` to override"), "{}", check.err);
}

#[rstest]
#[case::unknown("extends: concirge\n", "did you mean `concierge`?")]
#[case::itself("extends: .\n", "a dialect cannot extend itself")]
#[case::nothing("name: x\n", "dialect.yaml has no `extends`")]
fn a_dialect_of_an_unknown_pack_is_an_error(#[case] text: &str, #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dialect.yaml"), text).unwrap();
    let done = hubproof(["packs", "lint", folder.path().to_str().unwrap()]).assert_exit_code(2);
    assert!(done.err.contains(expected) && done.err.contains("dialect.yaml:1:"), "{}", done.err);
}
