//! `hubproof packs`, and a user's own pack.

use std::path::Path;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::disk;
use crate::support::hostile_servers::ScriptedHub;
use crate::support::process::{hubproof, hubproof_reading, with_steady_text};

#[test]
fn packs_list_shows_every_built_in_protocol() {
    let done = hubproof(["packs", "list", "--format", "json"]).assert_exit_code(0);
    let list: Vec<Value> = serde_json::from_str(&done.out).unwrap();
    let names: Vec<&str> = list.iter().map(|pack| pack["name"].as_str().unwrap()).collect();
    assert_eq!(names, disk::protocols());
    let text = hubproof(["packs", "list"]).assert_exit_code(0).out;
    assert_eq!(text.lines().count(), names.len());
    for pack in &list {
        let name = pack["name"].as_str().unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        assert!(line.contains(&format!("{} rules", pack["rules"])), "{line}");
    }
}

/// The embedded files are exactly those of the two folders on disk.
#[test]
fn every_pack_file_on_disk_is_embedded_in_the_binary() {
    let embedded = include_str!(concat!(env!("OUT_DIR"), "/embedded_files.rs"));
    let mut listed: Vec<&str> =
        embedded.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next()).collect();
    listed.sort_unstable();
    let mut on_disk: Vec<String> = ["schemas", "scenarios"]
        .iter()
        .flat_map(|folder| disk::files_under(&disk::root().join(folder)))
        .map(|path| path.strip_prefix(disk::root()).unwrap().to_str().unwrap().replace('\\', "/"))
        // Schemas of hubproof's own files.
        .filter(|path| !path.starts_with("schemas/hubproof/"))
        .collect();
    on_disk.sort_unstable();
    assert_eq!(listed, on_disk);
}

#[test]
fn packs_show_prints_all_parts_of_a_pack() {
    let text = hubproof(["packs", "show", "qi"]).assert_exit_code(0).out;
    // Only the structure, not the content of the pack.
    let parts: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ') && !line.is_empty()).collect();
    let value: Value =
        serde_json::from_str(&hubproof(["packs", "show", "qi", "--format", "json"]).assert_exit_code(0).out).unwrap();
    let parts = parts.join("\n").replace(value["hash"].as_str().unwrap(), "HASH");
    insta::assert_snapshot!("show_qi_parts", parts.replace(|c: char| c.is_ascii_digit(), "9"));
    assert_eq!(value["messages"].as_array().unwrap().len(), 6);
    assert_eq!(value["rules"].as_object().unwrap().len(), 34);
    for rule in value["rules"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("  {rule} ")), "{rule}");
    }
    for scenario in value["scenarios"].as_array().unwrap() {
        assert!(text.contains(scenario["title"].as_str().unwrap()), "{scenario}");
    }
    let rules = hubproof(["packs", "show", "qi", "--rules", "--format", "json"]).assert_exit_code(0).out;
    assert_eq!(serde_json::from_str::<Value>(&rules).unwrap(), value["rules"]);
}

#[rstest]
#[case("valid", "qi", "base_reply_success", r#"{"status": "success", "version": "0.1.0"}"#, 0)]
#[case("invalid", "qi", "base_reply_success", r#"{"status": "success", "version": 1}"#, 1)]
#[case("another", "concierge", "hello", r#"{"type": "STATUS", "uuid": "x", "version": "0.1.0"}"#, 1)]
fn packs_validate_checks_one_payload(
    #[case] name: &str,
    #[case] pack: &str,
    #[case] message: &str,
    #[case] payload: &str,
    #[case] code: i32,
) {
    let done = hubproof_reading(["packs", "validate", pack, message, "-"], payload).assert_exit_code(code);
    insta::assert_snapshot!(format!("validate_{name}"), done.out);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("payload.json");
    std::fs::write(&file, payload).unwrap();
    let read = hubproof(["packs", "validate", pack, message, file.to_str().unwrap()]).assert_exit_code(code);
    assert_eq!(read.out, done.out);
}

#[rstest]
#[case("not_json", "{")]
#[case("not_text", "\u{0}")]
fn packs_validate_rejects_text_that_is_not_json(#[case] name: &str, #[case] payload: &str) {
    let done = hubproof_reading(["packs", "validate", "qi", "base_reply_success", "-"], payload).assert_exit_code(2);
    insta::assert_snapshot!(format!("validate_{name}"), done.err);
}

#[test]
fn every_built_in_pack_has_no_error() {
    for name in disk::protocols() {
        let done = hubproof(["packs", "lint", &name]).assert_exit_code(0);
        let counts: Vec<&str> = done.out.lines().filter(|line| line.contains(" error")).collect();
        // The second counts those of the pack that judges clients.
        assert!(
            !counts.is_empty() && counts.iter().all(|line| line.ends_with(" 0 errors, 0 warnings")),
            "{}",
            done.out
        );
    }
}

// ---- a user's own pack

const ASYNCAPI: &str = include_str!("../fixtures/documents/doubler.yaml");

const SCENARIO: &str = "title: A number comes back doubled
actors: { anna: client }
steps:
  - anna connects:
  - each: number
    in: [1, 21]
    do:
      - anna sends: ask
        with: { n: \"${number}\" }
      - anna expects: answer
        where: { n: \"${number * 2}\" }
        rules: [DOUBLED]
";

fn write_own_pack(folder: &Path, with_rules: bool) {
    let message = |op: &str| {
        json!({
            "type": "object",
            "properties": { "op": { "const": op }, "n": { "type": "integer" } },
            "required": ["op", "n"],
            "examples": [{ "op": op, "n": 1 }]
        })
    };
    std::fs::create_dir_all(folder.join("messages")).unwrap();
    std::fs::create_dir_all(folder.join("scenarios")).unwrap();
    let write = |path: &str, text: &str| std::fs::write(folder.join(path), text).unwrap();
    write("asyncapi.yaml", ASYNCAPI);
    write("messages/ask.schema.json", &message("ask").to_string());
    write("messages/answer.schema.json", &message("answer").to_string());
    write("scenarios/shared.yaml", "roles:\n  client: {}\n");
    if with_rules {
        write(
            "rules.yaml",
            "document: The doubler\nrules:\n  DOUBLED: { level: must, basis: stated, line: 1, text: A number is answered by its double. }\n",
        );
        write("scenarios/double.yaml", SCENARIO);
    } else {
        // Without rules.yaml, a check is named by its step.
        write("scenarios/double.yaml", &SCENARIO.replace("[DOUBLED]", "[the answer is the double]"));
    }
}

/// Starts a hub that multiplies by a factor that may depend on the connection's number.
fn start_doubling_hub(factor: impl Fn(usize) -> i64 + Send + Sync + 'static) -> ScriptedHub {
    ScriptedHub::start(move |connection, _, text| {
        let ask: Value = serde_json::from_str(text).unwrap();
        vec![json!({ "op": "answer", "n": ask["n"].as_i64().unwrap() * factor(connection) }).to_string()]
    })
}

#[test]
fn a_check_that_fails_every_other_time_is_flaky() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("doubler");
    write_own_pack(&pack, true);
    let hub = start_doubling_hub(|connection| 2 + connection as i64 % 2);
    let (url, pack) = (hub.url(), pack.to_str().unwrap());
    let done =
        hubproof(["check", &url, "--pack", pack, "--stretch", "0.2", "--repeat", "4", "-j", "1"]).assert_exit_code(1);
    assert!(done.out.contains("  flaky       failed in 2 of 4 repetitions"), "{}", done.out);
    assert!(done.verdict().contains("; 1 flaky"), "{}", done.out);
    let reproduce = done.out.lines().find(|line| line.starts_with("  reproduce")).unwrap();
    assert!(reproduce.ends_with("--repeat 4"), "{reproduce}");
    // An answer that is always wrong is not flaky.
    let hub = start_doubling_hub(|_| 3);
    let done = hubproof(["check", &hub.url(), "--pack", pack, "--stretch", "0.2", "--repeat", "2"]).assert_exit_code(1);
    assert!(!done.out.contains("flaky"), "{}", done.out);
}

#[rstest]
fn a_folder_can_be_used_as_a_pack(#[values(true, false)] with_rules: bool) {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("doubler");
    write_own_pack(&pack, with_rules);
    let shown = pack.to_str().unwrap();
    let lint = hubproof(["packs", "lint", shown]).assert_exit_code(0);
    assert!(lint.out.contains("2 messages, 1 scenario, 0 errors, 0 warnings"), "{}", lint.out);
    let check = |hub: &ScriptedHub| hubproof(["check", &hub.url(), "--pack", shown, "--stretch", "0.2"]);
    let right = check(&start_doubling_hub(|_| 2)).assert_exit_code(0);
    let wrong = check(&start_doubling_hub(|_| 3)).assert_exit_code(1);
    let name = if with_rules { "with_rules" } else { "without_rules" };
    with_steady_text(|| {
        insta::assert_snapshot!(format!("own_{name}_right"), right.out);
        insta::assert_snapshot!(format!("own_{name}_wrong"), wrong.out);
    });
    let list = hubproof(["check", "--list", "--pack", shown]).assert_exit_code(0);
    assert!(list.out.contains("doubler/double"), "{}", list.out);
}

// ---- a new pack

const LAMPS_ASYNCAPI: &str = include_str!("../fixtures/documents/lamps.yaml");

/// Starts a lamp whose confirmations have these members besides the id.
fn start_lamp_hub(done: &'static Value) -> ScriptedHub {
    ScriptedHub::start(move |_, _, text| {
        let switch: Value = serde_json::from_str(text).unwrap();
        let mut done = done.clone();
        done["id"] = switch["id"].clone();
        vec![done.to_string()]
    })
}

#[test]
fn init_writes_a_pack_that_can_be_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (document, pack) = (folder.path().join("lamps.yaml"), folder.path().join("pack"));
    std::fs::write(&document, LAMPS_ASYNCAPI).unwrap();
    let (document, shown) = (document.to_str().unwrap(), pack.to_str().unwrap());
    let done = hubproof(["packs", "init", document, "--to", shown]).assert_exit_code(0);
    for file in [
        "asyncapi.yaml",
        "messages/switch.schema.json",
        "rules.yaml",
        "scenarios/shared.yaml",
        "scenarios/switches.yaml",
        "scenarios/reports.yaml",
    ] {
        assert!(pack.join(file).is_file() && done.out.contains(file), "{file}: {}", done.out);
    }
    let lint = hubproof(["packs", "lint", shown]).assert_exit_code(0);
    assert!(lint.out.ends_with("4 messages, 2 scenarios, 0 errors, 0 warnings\n"), "{}", lint.out);
    // The rules are the reply and the sentences with a keyword of RFC 2119, at their lines.
    let rules = hubproof(["packs", "show", shown, "--rules", "--format", "json"]).assert_exit_code(0).out;
    let rules: Value = serde_json::from_str(&rules).unwrap();
    for (id, level, line, text) in [
        ("REPLY-switches", "must", 21, "A client that sends switch receives done (operation switches)."),
        ("LINE-6", "must", 6, "A lamp MUST confirm each switch."),
        ("LINE-7", "should", 7, "It should do so at once."),
        ("LINE-24", "may", 24, "The lamp may report that it is burnt."),
    ] {
        let rule = &rules[id];
        assert_eq!(
            (&rule["level"], &rule["line"], &rule["text"]),
            (&json!(level), &json!(line), &json!(text)),
            "{id}: {rules}"
        );
        assert_eq!(rule["basis"], "stated");
    }
    assert_eq!(rules["REPLY-switches"]["checked_by"], json!(["pack/switches"]));
    let check = |hub: &ScriptedHub| hubproof(["check", &hub.url(), "--pack", shown, "--stretch", "0.3"]);
    static RIGHT: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| json!({ "kind": "done", "done": true }));
    static UNFIT: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| json!({ "kind": "done", "done": "yes" }));
    static UNLISTED: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| json!({ "kind": "undone" }));
    check(&start_lamp_hub(&RIGHT)).assert_exit_code(0);
    let unfit = check(&start_lamp_hub(&UNFIT)).assert_exit_code(1);
    assert!(unfit.out.contains("DOC-FITS"), "{}", unfit.out);
    let unlisted = check(&start_lamp_hub(&UNLISTED)).assert_exit_code(1);
    assert!(unlisted.out.contains("DOC-LISTED") && unlisted.out.contains("REPLY-switches"), "{}", unlisted.out);
}

/// The packs of the public documents have no mistakes, whatever their version and perspective.
#[rstest]
#[case("kraken", "hub")]
#[case("coinbase", "client")]
#[case("slack", "hub")]
#[case("gemini", "hub")]
fn init_writes_packs_that_parse_without_errors(#[case] name: &str, #[case] perspective: &str) {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join(name);
    let public = disk::root().join("tests/fixtures/asyncapi").join(name);
    let document =
        ["asyncapi.yaml", "asyncapi.json"].map(|file| public.join(file)).into_iter().find(|file| file.is_file());
    let (document, pack) = (document.unwrap(), pack.to_str().unwrap().to_owned());
    let arguments = ["packs", "init", document.to_str().unwrap(), "--to", &pack, "--perspective", perspective];
    hubproof(arguments).assert_exit_code(0);
    let lint = hubproof(["packs", "lint", &pack]).assert_exit_code(0);
    assert!(lint.out.ends_with(" 0 errors, 0 warnings\n"), "{}", lint.out);
    // The pack has the messages of the document, in the same directions.
    let messages = |arguments: &[&str]| {
        let show = [&["packs", "show", "--format", "json"], arguments].concat();
        let shown: Value = serde_json::from_str(&hubproof(show).assert_exit_code(0).out).unwrap();
        let named = |message: &Value| {
            (message["name"].to_string(), message["direction"].to_string(), message["replies"].to_string())
        };
        shown["messages"].as_array().unwrap().iter().map(named).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(messages(&[&pack]), messages(&[document.to_str().unwrap(), "--perspective", perspective]));
}

#[test]
fn init_never_overwrites_files() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("lamps.yaml");
    std::fs::write(&document, LAMPS_ASYNCAPI).unwrap();
    let to = folder.path().to_str().unwrap();
    let done = hubproof(["packs", "init", document.to_str().unwrap(), "--to", to]).assert_exit_code(2);
    assert!(done.err.contains("is not empty") && done.err.contains("--to DIR"), "{}", done.err);
    assert_eq!(std::fs::read_dir(to).unwrap().count(), 1);
}

// ---- a new pack from a recording

fn recording_text(frames: &[(u64, &str, Value)]) -> String {
    let line = |(index, (connection, direction, value)): (usize, &(u64, &str, Value))| {
        let time = format!("2026-03-01T10:00:{:02}.000Z", 3 * index);
        json!({ "time": time, "connection": connection, "direction": direction, "text": value.to_string() }).to_string()
    };
    frames.iter().enumerate().map(line).map(|line| line + "\n").collect()
}

/// A hub of counters: `open` returns a token, with which a client counts. The id of a request is returned.
fn start_counter_hub(keeps_ids: bool) -> ScriptedHub {
    ScriptedHub::start(move |connection, _, text| {
        let asked: Value = serde_json::from_str(text).unwrap();
        let id = if keeps_ids { asked["id"].clone() } else { json!("00000000-0000-4000-8000-000000000000") };
        let token = format!("token-of-{connection}");
        vec![match asked["kind"].as_str() {
            Some("open") => json!({ "kind": "opened", "id": id, "token": token }).to_string(),
            Some("count") if asked["token"] == token => json!({ "kind": "counted", "id": id, "n": 1 }).to_string(),
            _ => json!({ "kind": "refused", "id": id }).to_string(),
        }]
    })
}

#[rstest]
#[case::as_recorded(true, "PASS")]
#[case::another_id(false, "warn[RECORDED")]
fn init_drafts_a_pack_from_a_recording(#[case] keeps_ids: bool, #[case] says: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (file, pack) = (folder.path().join("counters.jsonl"), folder.path().join("pack"));
    let (first, second) = ("b2b1c9a0-6f0e-4c7e-9d55-0a4f7d1c2e3b", "c3b1c9a0-6f0e-4c7e-9d55-0a4f7d1c2e3b");
    let frames = [
        (1, "to-hub", json!({ "kind": "open", "id": first, "at": "2026-03-01T10:00:00Z" })),
        (1, "from-hub", json!({ "kind": "opened", "id": first, "token": "token-of-99" })),
        (1, "to-hub", json!({ "kind": "count", "id": second, "token": "token-of-99", "step": 2 })),
        (1, "from-hub", json!({ "kind": "counted", "id": second, "n": 1 })),
        // Too late to be caused by anything.
        (1, "from-hub", json!({ "kind": "counted", "id": second, "n": 2 })),
    ];
    std::fs::write(&file, recording_text(&frames)).unwrap();
    let shown = pack.to_str().unwrap();
    hubproof(["packs", "init", "--from-recording", file.to_str().unwrap(), "--to", shown]).assert_exit_code(0);
    let lint = hubproof(["packs", "lint", shown]).assert_exit_code(0);
    assert!(lint.out.ends_with(" 0 errors, 0 warnings\n"), "{}", lint.out);
    let schema = std::fs::read_to_string(pack.join("messages/open.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["properties"]["id"], json!({ "type": "string", "format": "uuid" }));
    assert_eq!(schema["properties"]["kind"], json!({ "const": "open" }));
    assert_eq!(schema["required"], json!(["at", "id", "kind"]));
    // Ids are new, and the token is the one from this hub.
    let hub = start_counter_hub(keeps_ids);
    let check = ["check", &hub.url(), "--pack", shown, "--stretch", "0.3", "--scenario", "pack/recorded"];
    let done = hubproof(check).assert_exit_code(0);
    assert!(done.out.contains(says), "{}", done.out);
}

#[rstest]
#[case::empty("", "contains no JSON message")]
#[case::other_lines("{\"time\": 1}\n", "this line is not a recorded frame")]
fn a_recording_without_frames_is_an_error(#[case] text: &str, #[case] says: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.jsonl");
    std::fs::write(&file, text).unwrap();
    let to = folder.path().join("pack");
    let done = hubproof(["packs", "init", "--from-recording", file.to_str().unwrap(), "--to", to.to_str().unwrap()])
        .assert_exit_code(2);
    assert!(done.err.contains(says) && !to.exists(), "{}", done.err);
}

#[test]
fn references_to_other_files_of_a_pack_and_traits_are_read_and_no_file_outside() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("mini");
    disk::copy_pack("qi", &pack);
    let document = pack.join("asyncapi.yaml");
    let written = std::fs::read_to_string(&document).unwrap();
    let (correlation, message) =
        ("      correlationId: { $ref: '#/components/correlationIds/session_id' }\n", "    extended_request:\n");
    let start = written.find(message).unwrap() + message.len();
    let end = written.find("    extended_reply_success:\n      title").unwrap();
    // The message and its correlation id come from other files, the channel refers to the file of the message.
    let moved = written[start..end].replace(correlation, "      traits: [{ $ref: ../traits.yaml#/linked }]\n");
    let moved = moved.replace("./messages", "../messages");
    let mut split = written.clone();
    split.replace_range(start..end, "      $ref: ./parts/common.yaml#/extended_request\n");
    let split = split.replace(
        "      extended_request: { $ref: '#/components/messages/extended_request' }",
        "      extended_request: { $ref: ./parts/common.yaml#/extended_request }",
    );
    std::fs::create_dir(pack.join("parts")).unwrap();
    std::fs::write(pack.join("parts/common.yaml"), format!("extended_request:\n{moved}")).unwrap();
    let location = "linked: { correlationId: { location: $message.payload#/session_id } }\n";
    std::fs::write(pack.join("traits.yaml"), location).unwrap();
    std::fs::write(&document, &split).unwrap();
    let path = pack.to_str().unwrap();
    let lint = hubproof(["packs", "lint", path]).assert_exit_code(0);
    assert!(lint.out.contains("0 errors, 0 warnings"), "{}", lint.out);
    let shown = |folder: &str| hubproof(["packs", "show", "--pack", folder]).assert_exit_code(0).out;
    let whole = folder.path().join("whole/mini");
    disk::copy_pack("qi", &whole);
    let without_hash = |text: String| text.split_once("\n\n").unwrap().1.to_owned();
    assert_eq!(without_hash(shown(path)), without_hash(shown(whole.to_str().unwrap())));

    std::fs::write(folder.path().join("outside.yaml"), &moved).unwrap();
    for outside in ["../outside.yaml", folder.path().join("outside.yaml").to_str().unwrap(), "https://127.0.0.1:9/x"] {
        let reference = format!("$ref: '{outside}#/extended_request'\n");
        std::fs::write(&document, split.replace("$ref: ./parts/common.yaml#/extended_request\n", &reference)).unwrap();
        let lint = hubproof(["packs", "lint", path]).assert_exit_code(2);
        let all = lint.out + &lint.err;
        assert!(all.contains("in the pack") || all.contains("outside the document's folder"), "{all}");
    }
}

#[test]
fn lint_reads_the_plans_of_a_pack_with_the_files_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("mini");
    disk::copy_pack("qi", &pack);
    let (path, plan) = (pack.to_str().unwrap(), pack.join("scenarios/load/mine.yaml"));
    std::fs::create_dir_all(plan.parent().unwrap()).unwrap();
    let steps = "[{ sends: base_request, with: { command: '${people.name}' } }, { expects: base_reply_success }]";
    let written = format!(
        "title: T\nfeeders: {{ people: people.csv }}\nroles: {{ caller: {{ population: 1, steps: {steps} }} }}\n"
    );
    std::fs::write(&plan, &written).unwrap();
    let missing = hubproof(["packs", "lint", path]).assert_exit_code(2);
    assert!(missing.out.contains("failed to read people.csv"), "{}", missing.out);
    std::fs::write(plan.with_file_name("people.csv"), "name\nanna\n").unwrap();
    hubproof(["packs", "lint", path]).assert_exit_code(0);
    // No hub is needed to check a plan.
    hubproof(["load", "--pack", path, "--plan", "mine", "--check"]).assert_exit_code(0);
    std::fs::write(&plan, written.replace("roles:", "rolez:")).unwrap();
    let wrong = hubproof(["packs", "lint", path]).assert_exit_code(2);
    assert!(wrong.out.contains("`rolez`"), "{}", wrong.out);
}

/// A correct hub would fail, or never be judged.
#[test]
fn misspelt_members_and_places_of_correlation_ids_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("mini");
    disk::copy_pack("qi", &pack);
    let steps =
        "  - caller joins:\n  - caller sends: base_request\n  - caller expects: base_reply_success\n    as: reply\n";
    let uses = "  - caller sends: base_request\n    with: { command: '${reply.staus}' }\n";
    let scenario = format!("title: T\nsteps:\n{steps}{uses}");
    std::fs::write(pack.join("scenarios/mine.yaml"), scenario).unwrap();
    let document = pack.join("asyncapi.yaml");
    let written = std::fs::read_to_string(&document).unwrap();
    std::fs::write(&document, written.replace("$message.payload#/session_id", "$message.payload#/sesion_id")).unwrap();
    let lint = hubproof(["packs", "lint", pack.to_str().unwrap()]).out;
    for expected in [
        "the schema of `base_reply_success` has no `reply.staus`",
        "did you mean `status`?",
        "the `correlationId` of `extended_request` is at `/sesion_id`, but the payload has no `sesion_id`",
        "did you mean `session_id`?",
    ] {
        assert!(lint.contains(expected), "{expected}: {lint}");
    }
}

#[rstest]
#[case(&["lint", "x"], "write `hubproof packs lint`")]
#[case(&["check", "--protocol", "qi", "--scenario", "bse"], "Did you mean `base`?")]
#[case(&["check", "--target", "no-such.toml"], "`hubproof init URL` writes one")]
fn mistaken_words_are_answered_with_the_right_ones(#[case] arguments: &[&str], #[case] says: &str) {
    let done = hubproof(arguments);
    assert!((done.out + &done.err).contains(says), "{arguments:?}");
}

#[test]
fn a_long_message_on_which_a_finding_rests_is_kept_and_compared_whole() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("doubler");
    write_own_pack(&pack, true);
    let answer = json!({ "head": { "n": 1 }, "op": "answer", "pad": "x".repeat(5000), "n": "seven" }).to_string();
    let sent = answer.clone();
    let hub = ScriptedHub::start(move |_, _, _| vec![sent.clone()]);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (json, page) = (format!("json={}", path("r.json")), format!("html={}", path("r.html")));
    let arguments = ["--pack", pack.to_str().unwrap(), "--stretch", "0.2", "--report", &json, "--report", &page];
    hubproof(["check", &hub.url()].iter().chain(&arguments)).assert_exit_code(1);
    let report = std::fs::read_to_string(path("r.json")).unwrap();
    assert!(report.contains(&serde_json::to_string(&answer).unwrap()), "{report}");
    let page = std::fs::read_to_string(path("r.html")).unwrap();
    assert!(page.contains("<h5>Difference</h5>") && page.contains("&quot;n&quot;: &quot;seven&quot;"), "{page}");
}

/// A member that no schema has and that resembles none may be deliberate, so only `packs lint` warns of it.
#[test]
fn only_lint_warns_of_an_undocumented_member_that_resembles_none() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("mini");
    disk::copy_pack("qi", &pack);
    let send = |member: &str| {
        let steps = format!("  - anna joins:\n  - anna sends: base_request\n    with: {{ {member}: 1 }}\n");
        std::fs::write(
            pack.join("scenarios/extra.yaml"),
            format!("title: T\nactors: {{ anna: caller }}\nsteps:\n{steps}"),
        )
        .unwrap();
    };
    let path = pack.to_str().unwrap();
    let run = |command: &[&str]| hubproof(command.iter().chain(&["--pack", path]));
    for (member, on_every_command) in [("comand", true), ("zebra", false)] {
        send(member);
        let warning = format!("documents a member `{member}`");
        let lint = hubproof(["packs", "lint", path]).assert_exit_code(0);
        assert!(lint.out.contains(&warning), "{}", lint.out);
        for command in [&["check", "--list"][..], &["explain", "QI-001"]] {
            let done = run(command);
            assert_eq!(done.err.contains(&warning), on_every_command, "{command:?}: {}", done.err);
        }
    }
}
