//! Imports plain AsyncAPI documents: those of public APIs under tests/fixtures/asyncapi, written from their documented
//! facts, and invalid ones. No Rust code knows any of these APIs, except the small hub at the end.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use hubproof::fuzz::actors::MUTATED_STEP;
use hubproof::fuzz::corpus::Corpus;
use hubproof::fuzz::mutate::payload::PayloadClass;
use hubproof::fuzz::oracle;
use hubproof::fuzz::scheduler::CaseScheduler;
use hubproof::import::{self, DocumentLibrary, Perspective};
use hubproof::protocol::{FrameDirection, Pack, PackFolder};
use hubproof::scenario::{self, ScenarioSet};
use hubproof::syntax::diagnostic::render_all;
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::disk;
use crate::support::hostile_servers::ScriptedHub;
use crate::support::process::{hubproof, with_steady_text};

struct PublicDocument {
    sources: Sources,
    folder: PackFolder,
    pack: Arc<Pack>,
}

fn load_public_document(name: &str) -> PublicDocument {
    let folder = disk::root().join("tests/fixtures/asyncapi").join(name);
    let file = ["asyncapi.yaml", "asyncapi.json"].into_iter().find(|file| folder.join(file).is_file()).unwrap();
    // This document describes a client of its hub.
    let perspective = if name == "coinbase" { Perspective::Client } else { Perspective::Hub };
    let mut sources = Sources::default();
    let read = |path: &Path, sources: &mut Sources| {
        let shown = path.strip_prefix(disk::root()).unwrap().display().to_string();
        fs::read_to_string(path).map(|text| sources.add(shown, text)).map_err(|error| error.to_string())
    };
    let root = read(&folder.join(file), &mut sources).unwrap();
    let library =
        DocumentLibrary::read_files(file, root, &mut sources, &mut |path, sources| read(&folder.join(path), sources));
    let (folder, mut diagnostics) = import::import_folder(name, &library.unwrap(), perspective, &mut sources);
    let (pack, more) = Pack::load(&folder, &sources);
    diagnostics.extend(more);
    let one_way = "clients send no message to the hub";
    let others: Vec<_> = diagnostics.iter().filter(|diagnostic| !diagnostic.message.contains(one_way)).collect();
    assert!(others.is_empty(), "{}", render_all(&diagnostics, &sources, false));
    let mut pack = pack.unwrap();
    pack.rules.extend(oracle::oracle_rules(&mut sources).into_iter().map(|rule| (rule.id.clone(), rule)));
    PublicDocument { sources, folder, pack: Arc::new(pack) }
}

#[rstest]
#[case::version_3_by_reference("kraken", &["ping", "subscribe", "unsubscribe"], &["pong", "subscriptionStatus", "systemStatus", "heartbeat", "ticker", "trade", "spread"])]
#[case::version_2_of_a_client("coinbase", &["subscribe", "unsubscribe"], &["subscriptions", "error", "heartbeat", "ticker", "snapshot", "l2update", "match"])]
#[case::version_2_of_many_files("slack", &["acknowledge"], &["hello", "disconnect", "events_api", "interactive", "slash_commands"])]
#[case::version_3_in_json("gemini", &[], &["marketData"])]
fn a_plain_document_can_be_used_as_a_pack(#[case] name: &str, #[case] to_hub: &[&str], #[case] from_hub: &[&str]) {
    let PublicDocument { sources, folder, pack } = load_public_document(name);
    for (way, expected) in [(FrameDirection::ToHub, to_hub), (FrameDirection::FromHub, from_hub)] {
        let mut found: Vec<&str> =
            pack.messages.iter().filter(|one| one.can_go(way) && !one.abstract_).map(|one| one.name.as_str()).collect();
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{name} {way:?}");
    }
    let scenarios = ScenarioSet::load(&folder, &sources, &pack);
    assert!(scenarios.diagnostics.is_empty(), "{}", render_all(&scenarios.diagnostics, &sources, false));
    // Without replies, one more scenario requires that there is something to check.
    let replies = pack.rules.keys().filter(|rule| rule.starts_with("REPLY-")).count();
    assert_eq!(replies, if name == "kraken" { 2 } else { 0 });
    assert_eq!(scenarios.programs.len(), to_hub.len().max(1) + usize::from(replies == 0));
}

/// With `HUBPROOF_BARE=FILE` the payloads and whether they are valid are written to FILE for a second validator, which
/// reads the documents by itself.
#[test]
fn every_message_to_a_hub_is_fuzzed() {
    let mut judged: Vec<Value> = Vec::new();
    for name in ["kraken", "coinbase", "slack"] {
        let PublicDocument { mut sources, folder, pack } = load_public_document(name);
        let corpus = Corpus::from_folder(&folder, &sources, &pack, Default::default());
        let shared = scenario::load_shared(&folder, &sources, &pack, &mut Vec::new());
        let scheduler = CaseScheduler::new(&corpus, 1, &|_| true);
        let (mut valid, mut invalid) = (0, 0);
        for message in corpus.messages() {
            let cells = scheduler.cells.iter().filter(|cell| pack.messages[cell.message].name == message.name).count();
            assert!(cells > 50, "{name}/{} has only {cells} cells", message.name);
        }
        let cells = scheduler.cells.len() as u64;
        for number in 0..4 * cells {
            let Some(case) = scheduler.case(&corpus, number) else { continue };
            if number < cells {
                let text = case.scenario.text();
                let file = sources.add("case.yaml", text.clone());
                let root = yaml::parse(&sources, file).unwrap();
                let (program, diagnostics) = scenario::parse::parse_scenario("case", &root, &shared, &pack);
                let rendered = render_all(&diagnostics, &sources, false);
                assert!(program.is_some() && diagnostics.is_empty(), "{rendered}\n{text}");
            }
            // A walk has several messages of an actor; other cases have only the mutated one.
            let sent = case.scenario.steps.iter().filter(|step| step.name() == Some(MUTATED_STEP)).find_map(|step| {
                let text = step.argument.get("text")?.as_str().filter(|text| !text.contains("${"))?;
                serde_json::from_str::<Value>(text).ok()
            });
            let (Some(payload), PayloadClass::Valid | PayloadClass::Invalid) = (sent, case.class) else { continue };
            let right = case.class == PayloadClass::Valid;
            *(if right { &mut valid } else { &mut invalid }) += 1;
            // Another message's discriminator makes it another message.
            let message = &pack.recognise(&payload, FrameDirection::ToHub).unwrap().name;
            judged
                .push(json!({ "pack": name, "message": message, "odd": case.description, "payload": payload, "valid": right }));
        }
        assert!(valid > 0 && invalid > 0, "{name}: {valid} valid, {invalid} invalid");
        for message in pack.messages.iter().filter(|message| !message.abstract_) {
            let payload = message.schema.example.as_ref().unwrap();
            judged.push(
                json!({ "pack": name, "message": message.name, "mutated": "example", "payload": payload, "valid": true }),
            );
        }
    }
    if let Some(file) = std::env::var_os("HUBPROOF_BARE") {
        fs::write(file, serde_json::to_string(&judged).unwrap()).unwrap();
    }
}

/// Whether a text has the form of a pair in the document, such as `XBT/USD`.
fn is_pair(text: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| matches!(c, 'A'..='Z' | '0'..='9' | '.'));
    text.split_once('/').is_some_and(|(base, quote)| is_name(base) && is_name(quote))
}

/// Starts a small Kraken hub. `status` is the status of an accepted subscription.
fn start_kraken_hub(status: &'static str, extra: &'static [&'static str]) -> ScriptedHub {
    ScriptedHub::start(move |_, _, text| {
        let asked: Value = serde_json::from_str(text).unwrap_or_default();
        let pair = asked["pair"].get(0).and_then(Value::as_str).unwrap_or("XBT/USD");
        let mut answers: Vec<String> = extra.iter().map(|text| (*text).to_owned()).collect();
        let mut answer = match asked["event"].as_str() {
            Some("ping") => json!({ "event": "pong" }),
            Some("subscribe" | "unsubscribe") if asked["subscription"]["name"].is_string() && is_pair(pair) => {
                json!({ "event": "subscriptionStatus", "channelID": 1, "channelName": "ticker", "pair": pair, "status": status, "subscription": { "name": "ticker" } })
            }
            _ => json!({ "event": "subscriptionStatus", "status": "error", "errorMessage": "Event not understood" }),
        };
        if asked["reqid"].is_u64() {
            answer["reqid"] = asked["reqid"].clone();
        }
        answers.push(answer.to_string());
        answers.push(r#"[1,["1.0","2.0","3.0","4.0","5.0"],"spread","XBT/USD"]"#.to_owned());
        answers
    })
}

#[rstest]
#[case::right("subscribed", &[r#"{"event":"heartbeat"}"#], 0, "")]
#[case::wrong_value("done", &[], 1, "`subscriptionStatus` breaks its schema")]
#[case::wrong_item("subscribed", &[r#"[7,["1.0"],"spread","XBT/USD"]"#], 1, "`spread` breaks its schema at /1")]
#[case::not_listed("subscribed", &[r#"{"event":"news","text":"x"}"#], 1, "DOC-LISTED")]
fn a_hub_can_be_checked_with_a_plain_document(
    #[case] status: &'static str,
    #[case] extra: &'static [&'static str],
    #[case] code: i32,
    #[case] says: &str,
) {
    let hub = start_kraken_hub(status, extra);
    let pack = disk::root().join("tests/fixtures/asyncapi/kraken/asyncapi.yaml");
    let done =
        hubproof(["check", &hub.url(), "--pack", pack.to_str().unwrap(), "--stretch", "0.5"]).assert_exit_code(code);
    assert!(done.out.contains(says), "{}", done.out);
}

/// Messages and the conditions for replies come only from the document, without scenarios or rules of a pack.
#[rstest]
#[case::right("subscribed", 0, "PASS kraken")]
#[case::wrong("subscribed to it", 1, "`subscriptionStatus` breaks its schema")]
fn a_hub_can_be_fuzzed_with_a_plain_document(#[case] status: &'static str, #[case] code: i32, #[case] says: &str) {
    let hub = start_kraken_hub(status, &[]);
    let pack = disk::root().join("tests/fixtures/asyncapi/kraken");
    let arguments = ["fuzz", &hub.url(), "--pack", pack.to_str().unwrap(), "--cases", "150", "--seed", "1"];
    let done = hubproof(arguments).assert_exit_code(code);
    assert!(done.out.contains(says), "{}", done.out);
}

/// A pack may be named by its folder or by its asyncapi.yaml.
#[test]
fn a_pack_can_be_given_as_its_document() {
    let rules = |path: &str| hubproof(["packs", "show", "--pack", path, "--rules"]).assert_exit_code(0).out;
    assert!(rules("schemas/qi").contains("QI-001"));
    assert_eq!(rules("schemas/qi/asyncapi.yaml"), rules("schemas/qi"));
}

/// Slack's address requires a ticket, which the document does not have.
#[test]
fn a_missing_setting_of_the_address_is_reported() {
    let hub = start_kraken_hub("subscribed", &[]);
    let pack = disk::root().join("tests/fixtures/asyncapi/slack");
    let fuzz = ["fuzz", &hub.url(), "--pack", pack.to_str().unwrap(), "--cases", "5", "--seed", "1"];
    let done = hubproof(fuzz).assert_exit_code(3);
    assert!(done.out.contains("5 `setting ticket`: the target has none"), "{}", done.out);
    // More cases would not help.
    let patient = fuzz.iter().map(|word| if *word == "5" { "100000" } else { *word });
    let done = hubproof(patient).assert_exit_code(3);
    assert!(done.out.contains("The run ended early: the target lacks what every case needs"), "{}", done.out);
    // With the settings, the run shows that this hub is not Slack's.
    let done = hubproof(fuzz.into_iter().chain(["--set", "ticket=t", "--set", "app_id=a"])).assert_exit_code(1);
    assert!(done.out.contains("expected one of the forms hello,"), "{}", done.out);
    let done = hubproof(["check", "--list", "--pack", pack.to_str().unwrap()]).assert_exit_code(0);
    assert!(done.out.contains("Good for one connection."), "{}", done.out);
}

/// Errors are reported with file, line, caret and advice.
#[rstest]
#[case::no_document("title: x\n", "no_document")]
#[case::openapi("openapi: 3.0.0\n", "openapi")]
#[case::version("asyncapi: 1.2.0\n", "version")]
#[case::yaml("asyncapi: [\n", "yaml")]
#[case::nothing("asyncapi: 3.0.0\n", "nothing")]
#[case::remote(
    "asyncapi: 2.0.0\nchannels: { /: { publish: { message: { $ref: 'https://example.com/x.yaml' } } } }\n",
    "remote"
)]
#[case::absolute("asyncapi: 2.0.0\nchannels: { /: { publish: { message: { $ref: /etc/passwd } } } }\n", "absolute")]
#[case::missing("asyncapi: 2.0.0\nchannels: { /: { publish: { message: { $ref: x.yaml#/a } } } }\n", "missing")]
#[case::nowhere(
    "asyncapi: 2.0.0\nchannels: { /: { publish: { message: { $ref: '#/components/messages/pin' } } } }\ncomponents: { messages: { ping: {} } }\n",
    "nowhere"
)]
#[case::circle(
    "asyncapi: 2.0.0\nchannels: { /: { publish: { message: { $ref: '#/components/messages/a' } } } }\ncomponents: { messages: { a: { $ref: '#/components/messages/b' }, b: { $ref: '#/components/messages/a' } } }\n",
    "circle"
)]
#[case::endless(
    "asyncapi: 2.0.0\nchannels: { /: { publish: { message: { payload: { $ref: '#/components/schemas/a' } } } } }\ncomponents: { schemas: { a: { allOf: [ { $ref: '#/components/schemas/a' } ] } } }\n",
    "endless"
)]
#[case::schema("asyncapi: 2.0.0\nchannels: { /: { publish: { message: { payload: { minLength: x } } } } }\n", "schema")]
#[case::notes(
    "asyncapi: 2.0.0\nchannels:\n  /:\n    publish:\n      message:\n        oneOf:\n          - { name: a, schemaFormat: application/vnd.apache.avro+json;version=1.9.0, payload: {} }\n          - { name: b, contentType: text/plain, payload: {} }\n          - { name: c, payload: { minimun: 1, required: true, allOf: [ { type: string }, { type: integer } ] } }\n          - { name: d, payload: { type: object } }\n",
    "notes"
)]
fn errors_of_a_document_are_reported(#[case] document: &str, #[case] name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("asyncapi.yaml");
    fs::write(&file, document).unwrap();
    let done = hubproof(["packs", "check", "--pack", file.to_str().unwrap()]);
    let report =
        format!("exit {:?}\n{}{}", done.code, done.out, done.err).replace(folder.path().to_str().unwrap(), ".");
    let report = report.replace(folder.path().file_name().unwrap().to_str().unwrap(), "pack");
    with_steady_text(|| insta::assert_snapshot!(format!("wrong_{name}"), report));
}
