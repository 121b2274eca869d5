//! Packs of strangers: their names, texts, files, schemas and expressions reach no other file, terminal or memory.

use std::fs;
use std::path::Path;

use rstest::rstest;

use crate::support::hostile_servers::ScriptedHub;
use crate::support::process::hubproof;

const DOCUMENT: &str = r##"asyncapi: 3.0.0
info: { title: TITLE, version: 1.0.0, description: none }
channels: { hub: { messages: { ask: { $ref: '#/components/messages/ask' } } } }
operations: { send: { action: receive, channel: { $ref: '#/channels/hub' } } }
components: { messages: { ask: { summary: SUMMARY, payload: PAYLOAD } } }
"##;
const PAYLOAD: &str = "{ type: object, examples: [ { x-example: composed, a: 1 } ] }";

/// Writes a pack with these files besides its document.
fn write_pack(folder: &Path, document: &str, files: &[(&str, &str)]) {
    fs::create_dir_all(folder.join("scenarios")).unwrap();
    fs::write(folder.join("asyncapi.yaml"), document).unwrap();
    let rules = "document: none\nrules: { A-1: { level: must, basis: stated, line: 1, text: A rule. } }\n";
    fs::write(folder.join("rules.yaml"), rules).unwrap();
    files.iter().for_each(|(path, text)| fs::write(folder.join(path), text).unwrap());
}

fn document(title: &str, summary: &str, payload: &str) -> String {
    DOCUMENT.replace("TITLE", title).replace("SUMMARY", summary).replace("PAYLOAD", payload)
}

/// Returns a name that would become a live instance in a target file.
const INSTANCE: &str = r#""a\n[[instance]]\nname = \"i\"\nexec = \"touch pwned\"\n#""#;

#[rstest]
#[case::setting(&[("scenarios/shared.yaml", "hub: { NAME: { about: x } }\n")])]
#[case::secret(&[("scenarios/shared.yaml", "hub: { NAME: { about: x, secret: true } }\n")])]
#[case::hook(&[("scenarios/shared.yaml", "hooks: { NAME: { about: x } }\n")])]
#[case::role(&[("scenarios/shared.yaml", "roles: { NAME: {} }\n")])]
#[case::argument(&[("scenarios/shared.yaml", "hooks: { a: { about: x, args: [NAME] } }\n")])]
#[case::rule(&[("rules.yaml", "document: x\nrules: { NAME: { level: must, basis: stated, line: 1, text: x } }\n")])]
fn a_name_that_is_not_one_is_refused(
    #[case] files: &[(&str, &str)],
    // A spreadsheet would run the last ones as formulas.
    #[values(INSTANCE, "'a b'", "\"\\e]0;x\\a\"", "'=1+1'", "'@a'", "'+1'", "'-1'")] name: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("pack");
    write_pack(&pack, &document("x", "words", PAYLOAD), &[]);
    for (path, text) in files {
        fs::write(pack.join(path), text.replace("NAME", name)).unwrap();
    }
    let to = folder.path().to_str().unwrap();
    let done = hubproof(["init", "--pack", pack.to_str().unwrap(), "--to", to]).assert_exit_code(2);
    assert!(done.err.contains("this cannot be the name of"), "{}", done.err);
    assert!(!done.err.contains('\u{1b}'), "{}", done.err);
    assert!(!folder.path().join("hub.toml").exists());
}

#[test]
fn texts_of_a_pack_change_no_file_and_no_line_of_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("pack");
    let evil = r#""x\e]0;title\a\n[[instance]]\nexec = \"touch pwned\"\n::stop-commands::y\rPASS everything\u202e""#;
    let shared = format!(
        "hub: {{ one: {{ about: {evil} }}, two: {{ about: {evil}, secret: true, default: {evil} }} }}\nhooks: {{ h: {{ about: {evil} }} }}\n"
    );
    let scenario = format!("title: {evil}\nactors: {{ anna: client }}\nsteps: [ {{ anna joins: }} ]\n");
    let roles = "roles: { client: { opening: [ { connects: } ] } }\n";
    write_pack(
        &pack,
        &document(evil, evil, PAYLOAD),
        &[("scenarios/shared.yaml", &(shared + roles)), ("scenarios/one.yaml", &scenario)],
    );
    let (path, to) = (pack.to_str().unwrap(), folder.path().to_str().unwrap());
    let hub = ScriptedHub::start(|_, _, _| Vec::new());
    let url = hub.url();
    let runs = [
        hubproof(["init", "--pack", path, "--to", to]).assert_exit_code(0),
        hubproof(["packs", "show", path]).assert_exit_code(0),
        hubproof(["packs", "lint", path]).assert_exit_code(0),
        hubproof(["check", "--list", "--pack", path]),
        hubproof(["check", &url, "--pack", path, "--verbose", "--trace", "--stretch", "0.1"]),
        hubproof(["fuzz", &url, "--pack", path, "--cases", "3", "--stretch", "0.1", "--yes"]),
        hubproof(["load", &url, "--pack", path, "--check"]),
    ];
    for done in runs {
        let written = format!("{}{}", done.out, done.err);
        let harmful = |line: &str| line.trim_start().starts_with("::") || line.starts_with("PASS everything");
        assert!(!written.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}']), "{written:?}");
        assert!(!written.lines().any(harmful), "{written}");
    }
    let target = fs::read_to_string(folder.path().join("hub.toml")).unwrap();
    let read: toml::Table = target.parse().unwrap_or_else(|error| panic!("{error}: {target}"));
    assert_eq!(read.keys().collect::<Vec<_>>(), ["settings", "secrets"].iter().collect::<Vec<_>>(), "{target}");
}

#[cfg(unix)]
#[rstest]
#[case::outside("../outside.yaml", "outside ")]
#[case::link_outside("link.yaml", "outside ")]
#[case::hidden(".hidden/file.yaml", "a hidden file")]
#[case::device("zero.yaml", "outside ")]
#[case::pipe("pipe.yaml", "it is not a regular file")]
fn files_outside_a_pack_are_not_read(#[case] file: &str, #[case] why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("pack");
    fs::create_dir_all(pack.join(".hidden")).unwrap();
    for path in ["../outside.yaml", ".hidden/file.yaml"] {
        fs::write(pack.join(path), "canary: [").unwrap();
    }
    std::os::unix::fs::symlink("../outside.yaml", pack.join("link.yaml")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", pack.join("zero.yaml")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(pack.join("pipe.yaml")).status().unwrap().success());
    let text = document("x", "words", &format!("{{ $ref: './{file}' }}"));
    fs::write(pack.join("asyncapi.yaml"), text).unwrap();
    let (path, to) = (pack.join("asyncapi.yaml"), folder.path().join("new"));
    for arguments in [
        vec!["packs", "lint", path.to_str().unwrap()],
        vec!["packs", "init", path.to_str().unwrap(), "--to", to.to_str().unwrap()],
    ] {
        let done = hubproof(arguments).assert_exit_code(2);
        let written = format!("{}{}", done.out, done.err);
        assert!(written.contains(why) && !written.contains("canary"), "{written}");
    }
}

#[cfg(unix)]
#[rstest]
#[case("/proc/self/environ", "outside ")]
#[case("/dev/zero", "outside ")]
#[case("../secret.yaml", "outside ")]
fn links_of_a_pack_do_not_lead_out_of_it(#[case] to: &str, #[case] why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("pack");
    write_pack(&pack, &document("x", "words", PAYLOAD), &[]);
    fs::write(folder.path().join("secret.yaml"), "canary: [").unwrap();
    fs::remove_file(pack.join("rules.yaml")).unwrap();
    std::os::unix::fs::symlink(to, pack.join("rules.yaml")).unwrap();
    let done = hubproof(["packs", "lint", pack.to_str().unwrap()]).assert_exit_code(2);
    assert!(done.err.contains(why) && !done.err.contains("canary") && !done.err.contains("PATH="), "{}", done.err);
}

#[cfg(target_os = "linux")]
#[rstest]
#[case(&["check", "--target", "/dev/zero"])]
#[case(&["check", "wss://127.0.0.1:1", "--protocol", "qi", "--ca", "/dev/zero"])]
#[case(&["check", "ws://127.0.0.1:1", "--protocol", "concierge", "--set", "secrets.secret={ file = \"/dev/zero\" }"])]
#[case(&["check", "ws://127.0.0.1:1", "--protocol", "qi", "--baseline", "/dev/zero"])]
#[case(&["check", "ws://127.0.0.1:1", "--protocol", "qi", "--scenario", "/dev/zero.yaml"])]
#[case(&["load", "ws://127.0.0.1:1", "--protocol", "qi", "--plan", "/dev/zero"])]
#[case(&["fuzz", "ws://127.0.0.1:1", "--protocol", "qi", "--replay", "/dev/zero"])]
#[case(&["compare", "/dev/zero", "/dev/zero"])]
#[case(&["report", "/dev/zero", "--output", "-"])]
#[case(&["packs", "validate", "qi", "x", "/dev/zero"])]
#[case(&["packs", "init", "/dev/zero"])]
#[case(&["packs", "init", "--from-recording", "/dev/zero"])]
fn a_device_is_not_read_as_a_file(#[case] arguments: &[&str]) {
    hubproof(arguments).assert_exit_code(2);
}

/// A stranger's scenario must not read the target's secrets by connecting to a server of its own.
#[test]
fn a_pack_sends_no_secret_to_another_address() {
    let folder = tempfile::tempdir().unwrap();
    let other = ScriptedHub::start(|_, _, _| Vec::new());
    let shared = format!(
        "hub: {{ key: {{ about: k, secret: true }} }}\nroles: {{ client: {{ opening: [ {{ connects: \"{}/${{hub.key}}\" }} ] }} }}\n",
        other.url()
    );
    let scenario = "title: t\nactors: { anna: client }\nsteps: [ { anna joins: } ]\n";
    write_pack(
        folder.path(),
        &document("x", "words", PAYLOAD),
        &[("scenarios/shared.yaml", &shared), ("scenarios/one.yaml", scenario)],
    );
    let hub = ScriptedHub::start(|_, _, _| Vec::new());
    let pack = folder.path().to_str().unwrap();
    let done = hubproof(["check", &hub.url(), "--pack", pack, "--set", "key=canary-key", "--stretch", "0.2"]);
    assert!(done.out.contains("would go to another address") && !done.out.contains("canary"), "{}", done.out);
}

#[rstest]
#[case(&["check", "http://anna:canary@hub/"])]
#[case(&["check", "ws://hub:port/?token=canary"])]
#[case(&["doctor", "ws://127.0.0.1:1/?token=canary"])]
#[case(&["check", "ws://127.0.0.1:1", "--jobs", "wss://anna:canary@hub/"])]
#[case(&["check", "ws://127.0.0.1:1", "--exec", "./no-such-hub --key canary"])]
fn errors_show_no_credentials(#[case] arguments: &[&str]) {
    let protocol = ["--protocol", "qi"];
    let more = if arguments[0] == "check" { &protocol[..] } else { &[] };
    let done = hubproof([arguments, more].concat()).assert_exit_code(2);
    assert!(!done.err.is_empty() && !done.err.contains("canary"), "{}", done.err);
}

#[rstest]
#[case::fuzz("fuzz")]
#[case::load("load")]
fn a_hub_of_others_is_not_attacked_without_a_word(#[case] command: &str) {
    let done = hubproof([command, "ws://192.0.2.1:1", "--protocol", "qi"]).assert_exit_code(2);
    assert!(done.err.contains("is not on this machine") && done.err.contains("--yes"), "{}", done.err);
}

#[test]
fn a_target_that_trusts_any_certificate_is_warned_of() {
    let target = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    fs::write(target.path(), "protocol = \"qi\"\nurl = \"wss://127.0.0.1:1\"\n[tls]\ninsecure = true\n").unwrap();
    let done = hubproof(["check", "--target", target.path().to_str().unwrap()]);
    assert!(done.err.contains("warning: the target trusts any certificate"), "{}", done.err);
}

#[test]
fn a_file_with_thousands_of_unknown_keys_is_reported_in_short() {
    let folder = tempfile::tempdir().unwrap();
    let keys: String = (0..20_000).map(|number| format!("unknown_key_{number}: 1\n")).collect();
    write_pack(folder.path(), &document("x", "words", PAYLOAD), &[("scenarios/shared.yaml", &keys)]);
    let done = hubproof(["packs", "lint", folder.path().to_str().unwrap()]).assert_exit_code(2);
    assert!(done.out.matches("has no key").count() <= 100 && done.out.contains("100 errors"), "{}", done.out.len());
}
