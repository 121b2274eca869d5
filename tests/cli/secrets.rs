//! A secret of the target never appears in any output, whatever the hub does with it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rstest::rstest;
use serde_json::Value;

use crate::support::hostile_servers::{HostileHub, Misbehaviour, ScriptedHub};
use crate::support::process::{ProcessResult, ServeProcess, hubproof, start};

/// Unique, and with characters that JSON, XML and URLs escape.
const CANARY: &str = "canary/\"7&é<x>'+ =end";

/// How the secret is given to hubproof.
#[derive(Clone, Copy, Debug)]
enum SecretSource {
    TargetFile,
    Set,
    SetName,
    Environment,
    File,
}

/// The formats of `check`.
const FORMATS: [&str; 9] = ["json", "junit", "sarif", "github", "markdown", "tap", "ctrf", "badge", "events"];

/// Runs against a URL with the secret; returns all output: stdout, stderr, all reports.
fn collect_all_output(url: &str, source: SecretSource) -> (ProcessResult, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let target = path("hub.toml");
    let literal = toml::Value::from(CANARY).to_string();
    std::fs::write(path("secret.txt"), CANARY).unwrap();
    let head = format!("protocol = \"concierge\"\nurl = \"{url}\"\n");
    let file = toml::Value::from(path("secret.txt")).to_string();
    let (secrets, mut arguments) = match source {
        SecretSource::TargetFile => (format!("[secrets]\nsecret = {literal}\n"), vec![]),
        SecretSource::Environment => ("[secrets]\nsecret = { env = \"HUBPROOF_CANARY\" }\n".to_owned(), vec![]),
        SecretSource::File => (format!("[secrets]\nsecret = {{ file = {file} }}\n"), vec![]),
        SecretSource::Set => (String::new(), vec!["--set".to_owned(), format!("secrets.secret={literal}")]),
        // The protocol declares this setting secret, so `--set` masks it too.
        SecretSource::SetName => (String::new(), vec!["--set".to_owned(), format!("secret={literal}")]),
    };
    std::fs::write(&target, head + &secrets).unwrap();
    arguments.insert(0, "check".to_owned());
    arguments.extend(["--target", &target, "--patience", "0.2", "--trace", "--verbose"].map(str::to_owned));
    arguments.extend(FORMATS.map(|format| format!("--report={format}={}", path(format))));
    let done = start(arguments, &[("HUBPROOF_CANARY", CANARY)]).wait_for_end();
    let reports = FORMATS.map(|format| std::fs::read_to_string(path(format)).unwrap()).join("\n");
    let written = format!("{}\n{}\n{reports}", done.out, done.err);
    (done, written)
}

#[track_caller]
fn assert_masked(written: &str) {
    let json = serde_json::to_string(CANARY).unwrap();
    let json = json[1..json.len() - 1].to_owned();
    let xml = CANARY.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let twice = serde_json::to_string(&json).unwrap();
    let mut forms = vec![
        CANARY.to_owned(),
        xml.replace('\'', "&apos;"),
        xml,
        json.replace('é', "\\u00e9"),
        json,
        twice[1..twice.len() - 1].to_owned(),
        utf8_percent_encode(CANARY, NON_ALPHANUMERIC).to_string(),
        // The part that all forms above share.
        "canary".to_owned(),
    ];
    forms.extend([&STANDARD, &URL_SAFE].map(|engine| engine.encode(CANARY)));
    forms.extend([&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|engine| engine.encode(CANARY)));
    for form in forms {
        if let Some(at) = written.find(&form) {
            let from = written[..at].char_indices().rev().nth(200).map_or(0, |(at, _)| at);
            panic!("{form:?} was written: ...{}", &written[from..at + form.len()]);
        }
    }
}

#[rstest]
fn a_secret_repeated_by_the_hub_is_masked(
    #[values(
        SecretSource::TargetFile,
        SecretSource::Set,
        SecretSource::SetName,
        SecretSource::Environment,
        SecretSource::File
    )]
    source: SecretSource,
) {
    let hub = HostileHub::start(Misbehaviour::Echo, "x");
    let (done, written) = collect_all_output(&hub.url(), source);
    assert_eq!(done.code, Some(1), "{written}");
    assert!(written.contains("***"), "the secret was never used");
    assert_masked(&written);
}

#[test]
fn a_secret_is_masked_in_every_encoding() {
    // Greets, and puts the secret into every member, in all encodings.
    let hub = ScriptedHub::start(|_, _, _| {
        let forms = [
            CANARY.to_owned(),
            STANDARD.encode(CANARY),
            URL_SAFE_NO_PAD.encode(CANARY),
            utf8_percent_encode(CANARY, NON_ALPHANUMERIC).to_string(),
            serde_json::to_string(CANARY).unwrap(),
        ];
        let mut texts: Vec<String> = forms
            .iter()
            .map(|form| serde_json::json!({ "type": "HELLO", "uuid": form, "version": form, form: form }).to_string())
            .collect();
        texts.push(format!("not json: {CANARY}"));
        texts
    });
    let (done, written) = collect_all_output(&hub.url(), SecretSource::TargetFile);
    assert_eq!(done.code, Some(1), "{written}");
    assert_masked(&written);
}

/// Reports cut long texts at several lengths: the secret must be masked before the cut, or half of it would remain.
#[rstest]
fn a_secret_is_masked_when_a_text_is_cut_inside_it(#[values(120, 160, 200, 400, 600)] length: usize) {
    let before = "x".repeat(length - 10);
    let hub = ScriptedHub::start(move |connection, _, _| match connection % 3 {
        0 => vec![format!("{before}{CANARY}")],
        1 => {
            vec![serde_json::json!({ "type": "HELLO", "uuid": format!("{before}{CANARY}"), "version": 1 }).to_string()]
        }
        _ => vec![serde_json::json!({ "type": format!("{before}{CANARY}") }).to_string()],
    });
    let (done, written) = collect_all_output(&hub.url(), SecretSource::TargetFile);
    assert_eq!(done.code, Some(1), "{written}");
    assert_masked(&written);
}

#[test]
fn a_secret_is_masked_in_the_report_of_a_faulty_hub() {
    let set = format!("concierge.secret={CANARY}");
    for fault in ["concierge-right-secret-refused", "concierge-hello-missing-uuid"] {
        let server = ServeProcess::start(["concierge", "--set", &set, "--fault", fault], 1);
        let (done, written) = collect_all_output(server.url("concierge"), SecretSource::TargetFile);
        assert_eq!(done.code, Some(1), "{written}");
        assert_masked(&written);
    }
}

/// Ready tokens of some users prove nearly as much as the key with which tokens are made, and are not printed.
#[test]
fn ready_made_tokens_replace_the_signing_key() {
    let hub = ServeProcess::start(["airavata", "--set", "airavata.jwt_secret=k"], 1);
    let target = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let tokens = include_str!("../fixtures/airavata_tokens.toml");
    let head = format!("protocol = \"airavata\"\nurl = \"{}\"\n", hub.url("airavata"));
    std::fs::write(target.path(), head + tokens).unwrap();
    let judged = |arguments: &[&str]| {
        let done = hubproof(["check", "--report", "json=-", "--verbose"].iter().chain(arguments)).assert_exit_code(0);
        let report: Value = serde_json::from_str(&done.out).unwrap();
        let rules = report["protocols"][0]["rules"]["by_id"].as_object().unwrap().clone();
        let proven = rules.into_iter().filter(|(_, rule)| rule["proven"] == true).map(|(id, _)| id);
        (proven.collect::<BTreeSet<String>>(), done)
    };
    let (by_key, _) = judged(&[hub.url("airavata"), "--protocol", "airavata", "--set", "secrets.jwt_secret=k"]);
    let (by_tokens, done) = judged(&["--target", target.path().to_str().unwrap()]);
    for text in ["secrets.tokens=one", "secrets.tokens={ env = \"PATH\" }"] {
        let done =
            hubproof(["check", hub.url("airavata"), "--protocol", "airavata", "--set", text]).assert_exit_code(2);
        assert!(done.err.contains("the setting `tokens` must be a mapping, not text"), "{}", done.err);
    }
    // No key, no expired token, and not enough users for the limits.
    let lacking: Vec<&String> = by_key.difference(&by_tokens).collect();
    assert!(lacking.len() <= 6 && by_tokens.len() > 40, "{lacking:?}");
    for token in
        tokens.lines().filter_map(|line| line.split_once(" = \"")).map(|(_, token)| token.trim_end_matches('"'))
    {
        assert!(!done.out.contains(token) && !done.err.contains(token), "{token}");
    }
}
