//! `hubproof record` between `hubproof serve` and `hubproof check`, over real sockets.

use serde_json::Value;

use crate::support::disk;
use crate::support::process::{ServeProcess, hubproof};

/// A recorded run has all texts of both sides, and a pack made from it passes lint and runs against the same hub.
#[test]
fn a_recording_contains_the_texts_of_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let (file, pack) = (folder.path().join("qi.jsonl"), folder.path().join("draft"));
    let (file, pack) = (file.to_str().unwrap(), pack.to_str().unwrap());
    let hub = ServeProcess::start(["qi"], 1);
    let record = ServeProcess::start_as(["record", hub.url("qi"), "--to", file], 2);
    assert_eq!(record.url("to"), file);
    hubproof(["check", record.url("record"), "--protocol", "qi", "-j", "1"]).assert_exit_code(0);
    let (code, rest) = record.stop("INT");
    assert_eq!(code, Some(0));
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let schema = std::fs::read_to_string(disk::root().join("schemas/hubproof/recording.schema.json")).unwrap();
    let schema =
        jsonschema::options().should_validate_formats(true).build(&serde_json::from_str(&schema).unwrap()).unwrap();
    assert!(lines.iter().all(|line| schema.is_valid(line)), "{text}");
    let is_text = |line: &&Value| line["text"].is_string();
    let counted = |direction: &str| lines.iter().filter(is_text).filter(|line| line["direction"] == direction).count();
    let (to_hub, from_hub) = (counted("to-hub"), counted("from-hub"));
    let opened = lines.iter().filter(|line| line["target"] == "/").count();
    let is_other = |line: &&Value| ["binary", "close", "broken"].iter().any(|name| !line[*name].is_null());
    let other = lines.iter().filter(is_other).count();
    assert!(to_hub > 20 && from_hub > 20 && to_hub + from_hub + opened + other == lines.len(), "{rest}");
    let last = lines.iter().filter_map(|line| line["connection"].as_u64()).max().unwrap();
    assert!(last > 5 && opened as u64 == last, "{opened} of {last}");
    assert!(rest.starts_with(&format!("{} texts on ", to_hub + from_hub)), "{rest}");
    assert!(rest.contains(&format!(": {to_hub} to the hub, {from_hub} from it")), "{rest}");
    // Texts are recorded as they were sent: JSON of the protocol, in order per connection.
    let first = lines.iter().find(|line| line["direction"] == "to-hub").unwrap();
    assert!(first["text"].as_str().unwrap().contains("command"), "{first}");
    hubproof(["packs", "init", "--from-recording", file, "--to", pack]).assert_exit_code(0);
    let lint = hubproof(["packs", "lint", pack]).assert_exit_code(0);
    assert!(lint.out.ends_with(" 0 errors, 0 warnings\n"), "{}", lint.out);
    hubproof(["check", hub.url("qi"), "--pack", pack, "--scenario", "draft/recorded"]).assert_exit_code(0);
}

#[test]
fn record_never_overwrites_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.jsonl");
    std::fs::write(&file, "mine").unwrap();
    let done = hubproof(["record", "ws://127.0.0.1:1", "--to", file.to_str().unwrap()]).assert_exit_code(2);
    assert!(done.err.contains("exists") && done.err.contains("--to"), "{}", done.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_a_recording() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.jsonl");
    let record = ServeProcess::start_as(["record", "ws://127.0.0.1:1", "--to", file.to_str().unwrap()], 2);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    record.stop("INT");
}
