use std::io;

use rstest::rstest;
use serde_json::json;

use super::*;
use crate::syntax::diagnostic::render_all;

const FULL: &str = include_str!("full_sample.toml");

fn read_environment(name: &str) -> Option<String> {
    (name == "HUB_SECRET").then(|| "from-environment".to_owned())
}

fn read_secret_file(path: &str) -> io::Result<String> {
    match path {
        "etc/secret.txt" | "secret.txt" => Ok("from-file\n".to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
    }
}

/// Parses a file `etc/hub.toml`. Errors are returned as they are printed.
fn parse_file(text: &str, overrides: &[&str]) -> Result<Target, String> {
    let mut sources = Sources::default();
    let file = sources.add("etc/hub.toml", text);
    let overrides: Vec<_> = overrides.iter().map(|text| parse_override(text).expect("an override")).collect();
    parse(&mut sources, file, &overrides, &read_environment, &read_secret_file).map_err(|errors| {
        assert!(!errors.is_empty());
        render_all(&errors, &sources, false)
    })
}

fn setting_value(value: serde_json::Value) -> SettingValue {
    SettingValue { value, secret: false }
}

fn exec_command(text: &str) -> ExecCommand {
    ExecCommand::parse(text).expect("a command")
}

fn secret_value(text: &str) -> SettingValue {
    SettingValue { value: text.into(), secret: true }
}

#[test]
fn all_keys_of_a_target_file_are_parsed() {
    let plain = [
        ("identify_timeout", setting_value(json!("5s"))),
        ("limits", setting_value(json!({ "groups": 3, "names": [1, 2.5] }))),
        ("secret", secret_value("from-environment")),
        ("version", setting_value(json!("0.1.0"))),
    ];
    let mut with_secret = plain.clone();
    with_secret[2].1 = secret_value("from-file");
    with_secret[3].1 = setting_value(json!("0.2.0"));
    let settings = |all: [(&str, SettingValue); 4]| all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
    let hooks = BTreeMap::from([
        (
            "emit".to_owned(),
            HookSpec::Http {
                method: "PUT".to_owned(),
                url: "http://127.0.0.1:4100/${args.kind}".to_owned(),
                headers: BTreeMap::from([("x".to_owned(), "y".to_owned())]),
                body: Some(r#"{"a": ${json(message)}}"#.to_owned()),
                timeout: Some(Duration::from_secs(2)),
            },
        ),
        (
            "stop".to_owned(),
            HookSpec::Command {
                words: ["etc/./stop-hub", "--name", "${args.name}"].map(str::to_owned).to_vec(),
                timeout: Some(Duration::from_secs(30)),
            },
        ),
    ]);
    let mut of_one = hooks.clone();
    of_one.insert("stop".to_owned(), HookSpec::Command { words: vec!["etc/./stop-this".to_owned()], timeout: None });
    let expected = Target {
        protocol: Some("concierge".to_owned()),
        instances: vec![
            Instance {
                name: "plain".to_owned(),
                url: "ws://127.0.0.1:4000".parse().unwrap(),
                provides: words(&["journal"]),
                settings: settings(plain),
                hooks: hooks.clone(),
                exec: None,
            },
            Instance {
                name: "with-secret".to_owned(),
                url: "wss://127.0.0.1:4001/x?y=z".parse().unwrap(),
                provides: words(&["journal", "tls"]),
                settings: settings(with_secret),
                hooks: of_one,
                exec: Some(exec_command("hub --secret x")),
            },
        ],
        connections: Some(200),
        patience: Duration::from_secs(4),
        quiet: Duration::from_millis(250),
        restartable: true,
        exec: Some(exec_command("./hub --name 'two words'").with_program("etc/./hub")),
        hooks,
        tls: TlsOptions { ca: Some("etc/ca.pem".into()), insecure: true, ..TlsOptions::default() },
        deviations: Vec::new(),
        deviation_secrets: Vec::new(),
    };
    assert_eq!(parse_file(FULL, &[]), Ok(expected.clone()));
    assert_eq!(expected.secrets().collect::<Vec<_>>(), ["from-environment", "from-file"]);
}

#[test]
fn a_url_alone_makes_a_target_with_defaults() {
    let mut sources = Sources::default();
    let overrides = [parse_override("version=1.2.3").expect("an override")];
    let target = target_from_url(&mut sources, "ws://hub.example/ws", &overrides, &read_environment, &read_secret_file)
        .expect("a target");
    assert_eq!(
        target,
        Target {
            protocol: None,
            instances: vec![Instance {
                name: "default".to_owned(),
                url: "ws://hub.example/ws".parse().unwrap(),
                provides: BTreeSet::new(),
                settings: BTreeMap::from([("version".to_owned(), setting_value(json!("1.2.3")))]),
                hooks: BTreeMap::new(),
                exec: None,
            }],
            connections: None,
            patience: Duration::from_secs(5),
            quiet: Duration::from_millis(300),
            restartable: false,
            exec: None,
            hooks: BTreeMap::new(),
            tls: TlsOptions::default(),
            deviations: Vec::new(),
            deviation_secrets: Vec::new(),
        }
    );
    let errors = target_from_url(&mut sources, "http://hub.example", &[], &read_environment, &read_secret_file)
        .expect_err("no hub");
    insta::assert_snapshot!(render_all(&errors, &sources, false), @r#"
    error: `http://hub.example` is not a WebSocket address
     --> URL:1:1
      |
    1 | http://hub.example
      | ^^^^^^^^^^^^^^^^^^
      |
      = help: write ws://hub.example
    "#);
}

#[test]
fn an_address_with_a_password_is_an_error_with_its_place_in_the_target_file() {
    insta::assert_snapshot!(parse_file("protocol = \"qi\"\nurl = \"ws://u:p@h\"\n", &[]).expect_err("a password"), @r#"
    error: hubproof does not send the user and password of an address
     --> etc/hub.toml:2:7
      |
    2 | url = "ws://u:p@h"
      |       ^^^^^^^^^^^^
      |
      = help: remove the part before the @; a `[[deviation]]` with `upgrade` adds a header
    "#);
}

#[rstest]
#[case::scenario("mine/seq.yaml", "`check --scenario mine/seq.yaml`")]
#[case::target("hub.toml", "`--target hub.toml`")]
#[case::host("hub.example", "ws://hub.example")]
fn a_file_given_as_an_address_is_reported_with_the_right_option(#[case] word: &str, #[case] help: &str) {
    let mut sources = Sources::default();
    let errors = target_from_url(&mut sources, word, &[], &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into()))
        .expect_err("no hub");
    let rendered = render_all(&errors, &sources, false);
    assert!(rendered.contains(help), "{rendered}");
}

#[rstest]
#[case("version=0.1.0", json!("0.1.0"))]
#[case("n=5", json!(5))]
#[case("n=5s", json!("5s"))]
#[case("n=-0.5", json!(-0.5))]
#[case("n=true", json!(true))]
#[case("n=\"5\"", json!("5"))]
#[case("n=[1, {a = 2}]", json!([1, {"a": 2}]))]
#[case("n=a=b", json!("a=b"))]
#[case("n=", json!(""))]
#[case("n=2024-01-01", json!("2024-01-01"))]
#[case("n=nan", json!("nan"))]
#[case("n=1e999", json!("1e999"))]
#[case("n=99999999999999999999", json!("99999999999999999999"))]
#[case("settings.url=x", json!("x"))]
#[case(" n =x", json!("x"))]
fn an_override_sets_a_setting(#[case] text: &str, #[case] expected: serde_json::Value) {
    let target = parse_file(FULL, &[text]).expect("a target");
    let name = text.split('=').next().expect("a name").trim().trim_start_matches("settings.");
    for instance in target.instances {
        assert_eq!(instance.settings[name], setting_value(expected.clone()));
    }
}

#[test]
fn a_setting_override_applies_to_every_instance() {
    let all = [
        "version=0.9.0",
        "settings.limits.groups=9",
        "patience=10s",
        "url=ws://other:1",
        "provides=[\"word\"]",
        "instance.with-secret.settings.own=1",
        "hooks.emit.http.url=http://127.0.0.1:9/x",
        "hooks.emit.http.headers.x-key=${hub.secret}",
        "hooks.more.command=[\"./here\"]",
        "tls.ca=here.pem",
        "secrets.number=12345",
        "secrets.pointed={ file = \"secret.txt\" }",
        "secret=still-secret",
        "version=0.9.1",
    ];
    let target = parse_file(FULL, &all).expect("a target");
    for instance in &target.instances {
        assert_eq!(instance.url.to_string(), "ws://other:1");
        assert_eq!(instance.settings["version"], setting_value(json!("0.9.1")));
        assert_eq!(instance.settings["limits"], setting_value(json!({ "groups": 9, "names": [1, 2.5] })));
        assert_eq!(instance.settings["number"], secret_value("12345"));
        assert_eq!(instance.settings["pointed"], secret_value("from-file"));
        assert_eq!(instance.settings["secret"], secret_value("still-secret"));
        assert!(instance.provides.contains("word") && !instance.provides.contains("journal"));
    }
    assert!(!target.instances[0].settings.contains_key("own"));
    assert_eq!(target.instances[1].settings["own"], setting_value(json!(1)));
    assert_eq!(target.patience, Duration::from_secs(10));
    assert_eq!(target.tls.ca, Some("here.pem".into()));
    assert_eq!(target.hooks["more"], HookSpec::Command { words: vec!["./here".to_owned()], timeout: None });
    let HookSpec::Http { url, headers, .. } = &target.hooks["emit"] else { panic!("emit is a request") };
    assert_eq!((url.as_str(), headers["x-key"].as_str()), ("http://127.0.0.1:9/x", "${hub.secret}"));
}

#[rstest]
#[case("canary-secret", "a `=` is missing")]
#[case("=x", "`` is not a name")]
#[case("a..b=x", "`a..b` is not a name")]
fn an_override_needs_a_name_and_a_value(#[case] text: &str, #[case] message: &str) {
    assert_eq!(parse_override(text).expect_err("no override").message, message);
}

#[test]
fn all_errors_are_reported_at_once() {
    let text = include_str!("broken_sample.toml");
    insta::assert_snapshot!(
        parse_file(text, &["tls.insecure=soon", "limits.a=1", "instance.hihg.url=x", "instance.low=x"])
            .expect_err("much")
    );
}

#[test]
fn a_syntax_error_is_reported_once_per_line() {
    let text = "url = ws://127.0.0.1:4000\npatience = 5s\nconections = 5\nquiet = \"300ms\nprovides = [\"a\"]\n";
    insta::assert_snapshot!(parse_file(text, &[]).expect_err("not TOML"));
}

/// Checks that an error next to a secret shows the line without the secret.
#[rstest]
#[case("[secrets]\nkey = \"CANARY\"\n", &[])]
#[case("secrets = { key = \"CANARY\", bad-name = \"x\" }", &[])]
#[case("url = \"ws://h\"\nsecrets.key = [\"CANARY\"]", &[])]
#[case("url = \"ws://h\"\nsecrets.key = { value = \"CANARY\" }", &[])]
#[case("url = \"ws://h\"\nsecrets = \"CANARY\"", &[])]
#[case("url = \"ws://h\"\nsecrets = 1234567", &[])]
#[case("url = \"ws://h\"\nsecrets.key = 1234567", &[])]
#[case("[[instance]]\nname = \"a\"\nsecrets.key.deep = \"\"\"\nCANARY\n\"\"\"", &[])]
#[case("[secrets]\nkey = \"CANARY\nurl = 5s", &[])]
#[case("[secrets]\nkey = CANARY", &[])]
#[case("[secrets]\nkey = \"\"\"\nCANARY", &[])]
#[case("secrets.key = \"CANARY", &[])]
#[case("url = \"ws://h\"", &["secrets.key-x=CANARY"])]
#[case("url = \"ws://h\"", &["secrets.key.deep=CANARY"])]
#[case("url = \"ws://h\"", &["secrets=CANARY"])]
#[case("url = \"ws://h\"", &["secrets.key={ value = \"CANARY\" }"])]
#[case("url = \"ws://h\"", &["instance.x.secrets.key=CANARY"])]
fn diagnostics_never_show_secrets(#[case] text: &str, #[case] overrides: &[&str]) {
    let shown = parse_file(text, overrides).expect_err("wrong");
    assert!(!shown.contains("CANARY") && !shown.contains("1234567") && shown.contains("error"), "{shown}");
}

#[test]
fn debug_output_of_a_target_shows_no_secret() {
    let overrides = [parse_override("secrets.key=CANARY").expect("an override")];
    let target = parse_file("url = \"ws://h\"", &["secrets.key=CANARY"]).expect("a target");
    let shown = format!("{overrides:?} {target:?}");
    assert!(!shown.contains("CANARY") && shown.contains("key"), "{shown}");
}

#[rstest]
#[case(FULL)]
#[case("url = \"ws://h\"")]
#[case(
    "url = \"ws://h\"\n[hooks.x]\nhttp = { url = \"${hub.admin}/x\" }\n[settings]\ntext = \"\"\"a\n'\"\\u0000\"\"\""
)]
#[case(
    "url = \"ws://h\"\nquiet = \"0.25ms\"\n[[instance]]\nname = \"one\"\n[instance.settings]\nempty = {}\nlist = []"
)]
fn a_written_target_file_round_trips(#[case] text: &str) {
    let mut target = parse_file(text, &[]).expect("a target");
    // Paths are relative to the folder of the first file; a file elsewhere needs them absolute.
    target.tls.ca = target.tls.ca.map(|ca| PathBuf::from("/").join(ca));
    target.exec = target.exec.map(|exec| exec.with_program("/etc/./hub"));
    let of_instances = target.instances.iter_mut().flat_map(|instance| instance.hooks.values_mut());
    for hook in target.hooks.values_mut().chain(of_instances) {
        if let HookSpec::Command { words, .. } = hook {
            words[0].insert(0, '/');
        }
    }
    let written = target.to_toml();
    assert_eq!(parse_file(&written, &[]), Ok(target), "{written}");
}

/// In a thread with a small stack, so that unbounded recursion would overflow it.
#[rstest]
#[case("x = ".to_owned() + &"[".repeat(100_000))]
#[case("settings.x = ".to_owned() + &"[".repeat(60) + &"]".repeat(60))]
#[case("settings.x = ".to_owned() + &"{a=".repeat(100_000))]
#[case("settings".to_owned() + &".a".repeat(100_000) + " = 1")]
#[case("[settings".to_owned() + &".a".repeat(100_000) + "]")]
#[case("é = \u{feff}\0".repeat(10_000))]
#[case("a = 5s\nb = é\n".repeat(10_000))]
fn deeply_nested_or_long_files_do_not_overflow_the_stack(#[case] text: String) {
    let read = std::thread::Builder::new().stack_size(2 << 20).spawn(move || parse_file(&text, &[]).is_err());
    assert!(read.expect("a thread").join().expect("no panic"));
}

#[rstest]
#[case("url = \"ws://h\"", &[])]
#[case("url = \"ws://h\"\nexec = \"hub\"", &["hub: [0]"])]
#[case("url = \"ws://h\"\nexec = \"hub\"\n[[instance]]\nname = \"a\"\n[[instance]]\nname = \"b\"", &["hub: [0, 1]"])]
#[case("url = \"ws://h\"\nexec = \"hub\"\n[[instance]]\nname = \"a\"\nexec = \"own\"\n[[instance]]\nname = \"b\"", &["hub: [1]", "own: [0]"])]
#[case("url = \"ws://h\"\nexec = \"hub\"\n[[instance]]\nname = \"a\"\nexec = \"own\"", &["own: [0]"])]
fn a_command_shared_by_instances_is_started_once(#[case] text: &str, #[case] expected: &[&str]) {
    let launches = parse_file(text, &[]).expect("a target").launch_commands();
    let launches: Vec<_> = launches.iter().map(|(exec, places)| format!("{}: {places:?}", exec.text)).collect();
    assert_eq!(launches, expected);
}
