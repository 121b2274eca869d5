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
const FORMATS: [&str; 10] = ["json", "html", "junit", "sarif", "github", "markdown", "tap", "ctrf", "badge", "events"];

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
    arguments.extend(["--target", &target, "--stretch", "0.2", "--trace", "--verbose"].map(str::to_owned));
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

/// Returns everything that `check` writes about one scenario of a small pack, whose settings `key` and `pin` are secret,
/// on a hub that answers each text with `answer`. `made` is an expression.
fn check_steps(made: &str, steps: &str, answer: impl Fn(&str) -> Vec<String> + Send + Sync + 'static) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let asyncapi = "asyncapi: 3.0.0\ninfo: { title: t, version: 1.0.0 }\nchannels: { hub: { messages: { ask: { $ref: '#/components/messages/ask' } } } }\noperations: { send: { action: receive, channel: { $ref: '#/channels/hub' } } }\ncomponents: { messages: { ask: { payload: { type: object, examples: [ { x-example: composed, a: 1 } ] } } } }\n";
    let shared = "hub: { key: { about: k, secret: true }, pin: { about: p, secret: true } }\nroles: { client: { opening: [ { connects: \"/?token=${jwt({'sub': 'u'}, key=hub.key)}\" } ] } }\n";
    let rules = "document: none\nrules: { A-1: { level: must, basis: stated, line: 1, text: A rule. } }\n";
    let scenario = format!(
        "title: t\nlet: {{ made: \"${{{made}}}\" }}\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n{steps}  - anna expects: any\n    has: {{ A-1: {{ /no: true }} }}\n"
    );
    std::fs::create_dir_all(path("p/scenarios")).unwrap();
    for (name, text) in [
        ("asyncapi.yaml", asyncapi),
        ("rules.yaml", rules),
        ("scenarios/shared.yaml", shared),
        ("scenarios/one.yaml", &scenario),
    ] {
        std::fs::write(path(&format!("p/{name}")), text).unwrap();
    }
    let hub = ScriptedHub::start(move |_, _, text| answer(text));
    let (url, pack) = (hub.url(), path("p"));
    let mut arguments = vec!["check", &url, "--pack", &pack, "--set", "key=canary&key/+1", "--set", "pin=834719"];
    arguments.extend(["--stretch", "0.3", "--trace", "--verbose"]);
    let reports: Vec<String> = FORMATS.iter().map(|format| format!("--report={format}={}", path(format))).collect();
    arguments.extend(reports.iter().map(String::as_str));
    let done = hubproof(arguments);
    assert!(done.code != Some(2), "{}{}", done.out, done.err);
    let read = FORMATS.map(|format| std::fs::read_to_string(path(format)).unwrap()).join("\n");
    format!("{}\n{}\n{read}", done.out, done.err)
}

#[test]
fn what_a_load_plan_makes_from_a_secret_is_masked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let message = |name: &str| {
        let payload = format!("type: object, required: [type], properties: {{ type: {{ const: {name} }} }}");
        format!("{name}: {{ payload: {{ {payload}, examples: [{{ type: {name} }}] }} }}")
    };
    let reference = |name: &str| format!("{name}: {{ $ref: '#/components/messages/{name}' }}");
    let operation = |name: &str, action: &str| {
        let of =
            format!("channel: {{ $ref: '#/channels/hub' }}, messages: [{{ $ref: '#/channels/hub/messages/{name}' }}]");
        format!("{name}s: {{ action: {action}, {of} }}")
    };
    let [references, messages] =
        [&reference as &dyn Fn(&str) -> String, &message].map(|part| part("ask") + ", " + &part("tell"));
    let operations = operation("ask", "receive") + ", " + &operation("tell", "send");
    let asyncapi = format!(
        "asyncapi: 3.0.0\ninfo: {{ title: t, version: 1.0.0 }}\nchannels: {{ hub: {{ address: /, messages: {{ {references} }} }} }}\n\
         operations: {{ {operations} }}\ncomponents: {{ messages: {{ {messages} }} }}\n"
    );
    let shared = "hub: { key: { about: k, secret: true } }\nroles: { client: { opening: [ { connects: / }, { sends: ask, with: { /a: \"${sha256(hub.key)}\" } }, { expects: tell, where: { type: tell }, within: 200ms } ] } }\n";
    let plan = "title: t\nphases: { warm_up: 0s, duration: 1s, drain: 1s }\nroles: { c: { plays: client, population: 1, steps: [ { sends: ask }, { thinks: 1s } ] } }\n";
    std::fs::create_dir_all(path("p/scenarios")).unwrap();
    for (name, text) in [
        ("p/asyncapi.yaml", &*asyncapi),
        ("p/rules.yaml", "document: none\nrules: { A-1: { level: must, basis: stated, line: 1, text: A rule. } }\n"),
        ("p/scenarios/shared.yaml", shared),
        ("plan.yaml", plan),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    let hub = ScriptedHub::start(|_, _, text| vec![text.replace("ask", "other")]);
    let (pack, plan) = (path("p"), path("plan.yaml"));
    let done = hubproof(["load", &hub.url(), "--pack", &pack, "--plan", &plan, "--set", "key=canary", "--yes"]);
    let written = format!("{}{}", done.out, done.err);
    // sha256 of `canary`.
    assert!(written.contains("\"a\":\"***\"") && !written.contains("e100fbce"), "{written}");
}

#[rstest]
#[case::sha256("sha256(hub.key)")]
#[case::hex("hex(hub.key)")]
#[case::base64("base64('x' ~ hub.key)")]
#[case::chunks("chunks(hub.key, 2)")]
#[case::slice("hub.key[:9]")]
#[case::upper("hub.key | upper")]
#[case::reverse("hub.key | reverse")]
#[case::token("jwt({'sub': 'u'}, key=hub.key)")]
#[case::of_a_made_text("sha256(hub.key)[:20]")]
fn texts_made_from_a_secret_are_masked(#[case] expression: &str) {
    let steps = "  - anna sends raw: { text: \"${json([made])}\" }\n";
    let written = check_steps(expression, steps, |text| vec![format!("{{\"a\":{text}}}")]);
    let shown = written.lines().find(|line| line.contains("-> text")).unwrap_or_else(|| panic!("{written}"));
    assert!(shown.contains("***") && !shown.contains("nary"), "{shown}");
    let unmasked = shown.split("text ").nth(1).unwrap().replace("***", "");
    assert!(!unmasked.contains(|c: char| c.is_ascii_alphabetic()), "{shown}");
    assert!(!written.contains("eyJ0eXAiOiJKV1Qi"), "{written}");
}

#[rstest]
#[case::go(r#"{"a":"canary\u0026key/+1"}"#)]
#[case::dotnet(r#"{"a":"canary\u0026key/\u002B1"}"#)]
#[case::page("<p>canary&amp;key/&#43;1</p>")]
#[case::hex("63616e617279266b65792f2b31")]
#[case::number(r#"{"a":834719}"#)]
#[case::number_in_text("pin 834719 is wrong")]
fn a_secret_is_masked_however_a_hub_escapes_it(#[case] answer: &'static str) {
    let steps = "  - anna sends raw: { text: \"go\" }\n";
    let written = check_steps("1", steps, move |_| vec![answer.to_owned()]);
    for part in ["canary", "key/", "63616e", "834719"] {
        assert!(!written.contains(part), "{written}");
    }
    assert!(written.contains("***"), "{written}");
}

#[test]
fn a_secret_in_two_messages_is_masked() {
    let steps = "  - anna sends raw: { text: \"go\" }\n";
    let written = check_steps("1", steps, |_| ["the canary&", "key/+1 is yours"].map(str::to_owned).into());
    assert!(!written.contains("canary") && !written.contains("key/+1"), "{written}");
}

/// CI services read commands from logs, and terminals from output.
#[test]
fn frames_of_a_hub_hold_no_commands_for_logs_or_terminals() {
    let steps = "  - anna sends raw: { text: \"go\" }\n";
    let evil = "x ##vso[task.setvariable variable=a]b ##[add-mask]c \u{1b}]52;c;aGk=\u{7} \u{202e}d";
    // Each word begins a line where the text is wrapped.
    let evil = format!("{evil} {}", format!("::stop-commands::{} ", "y".repeat(60)).repeat(3));
    let written = check_steps("1", steps, move |_| vec![evil.clone()]);
    let terminal = written.split("\n{").next().unwrap();
    assert!(terminal.contains("# #vso[") && terminal.contains("stop-commands"), "{terminal}");
    for command in ["##vso[", "##[", "\u{1b}", "\u{7}", "\u{202e}"] {
        assert!(!terminal.contains(command), "{terminal}");
    }
    assert!(!terminal.lines().any(|line| line.trim_start().starts_with("::")), "{terminal}");
}
