//! Snapshots of the diagnostics of mistakes in scenarios and packs, each with its place and advice.

use hubproof::protocol::{Pack, PackFolder};
use hubproof::scenario::{ScenarioSet, SharedFile, parse};
use hubproof::syntax::diagnostic::{Severity, render_all, without_duplicates};
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;

use crate::support::disk::CONCIERGE;
use crate::support::samples::samples;

/// Returns the diagnostics of every mistake of a table. `diagnose` renders those of one text.
fn diagnostics_of(mistakes: &str, diagnose: impl Fn(&str) -> String) -> String {
    let one = |(what, text): (&str, &str)| {
        let diagnostics = diagnose(text);
        assert!(!diagnostics.is_empty(), "not noticed: {what}");
        format!("## {what}\n\n{diagnostics}")
    };
    samples(mistakes).map(one).collect::<Vec<_>>().join("\n\n\n")
}

/// A scenario file of the concierge.
fn scenario_diagnostics(text: &str) -> String {
    let mut sources = CONCIERGE.sources.clone();
    let file = sources.add("scenarios/concierge/mistake.yaml", text);
    let diagnostics = match yaml::parse(&sources, file) {
        Err(diagnostic) => vec![diagnostic],
        Ok(root) => parse::parse_scenario("concierge/mistake", &root, &CONCIERGE.shared, &CONCIERGE.pack).1,
    };
    render_all(&diagnostics, &sources, false)
}

/// Steps of a scenario of the concierge in which anna and ben have joined.
fn step_diagnostics(text: &str) -> String {
    scenario_diagnostics(&format!(
        "title: A mistake\nactors: {{ anna: client, ben: client }}\nsteps:\n  - anna joins:\n  - ben joins:\n{text}"
    ))
}

/// A shared.yaml of the concierge, used by a scenario in which a client joins and plays `scene`.
fn shared_diagnostics(text: &str) -> String {
    let mut sources = Sources::default();
    let file = sources.add("scenarios/concierge/shared.yaml", text);
    let mut diagnostics = Vec::new();
    match yaml::parse(&sources, file) {
        Err(diagnostic) => diagnostics.push(diagnostic),
        Ok(root) => {
            let shared = SharedFile::parse(root, &CONCIERGE.pack, &mut diagnostics);
            diagnostics.extend(shared.check(&CONCIERGE.pack));
            let file = sources
                .add("scenarios/concierge/user.yaml", "title: t\nsteps:\n  - client joins:\n  - client plays: scene\n");
            diagnostics.extend(
                parse::parse_scenario(
                    "concierge/user",
                    &yaml::parse(&sources, file).unwrap(),
                    &shared,
                    &CONCIERGE.pack,
                )
                .1,
            );
        }
    }
    render_all(&without_duplicates(diagnostics), &sources, false)
}

#[test]
fn wrong_names_in_a_scenario_are_reported_at_their_place() {
    insta::assert_snapshot!(diagnostics_of(include_str!("../fixtures/mistakes/names.txt"), step_diagnostics));
}

#[test]
fn wrong_keys_in_a_scenario_are_reported_at_their_place() {
    insta::assert_snapshot!(diagnostics_of(include_str!("../fixtures/mistakes/keys.txt"), step_diagnostics));
}

#[test]
fn values_of_the_wrong_kind_are_reported_at_their_place() {
    insta::assert_snapshot!(diagnostics_of(include_str!("../fixtures/mistakes/kinds.txt"), step_diagnostics));
}

#[test]
fn wrong_values_in_a_scenario_are_reported_at_their_place() {
    insta::assert_snapshot!(diagnostics_of(include_str!("../fixtures/mistakes/values.txt"), step_diagnostics));
}

#[test]
fn yaml_beyond_json_is_reported_at_its_place() {
    insta::assert_snapshot!(diagnostics_of(include_str!("../fixtures/mistakes/yaml.txt"), step_diagnostics));
}

#[test]
fn mistakes_of_a_whole_scenario_file_are_reported() {
    insta::assert_snapshot!(diagnostics_of(include_str!("../fixtures/mistakes/files.txt"), scenario_diagnostics));
}

#[test]
fn mistakes_of_the_shared_file_are_reported_at_their_place() {
    insta::assert_snapshot!(diagnostics_of(include_str!("../fixtures/mistakes/shared.txt"), shared_diagnostics));
}

#[test]
fn mistakes_of_the_shared_file_are_reported_once() {
    let shared = "\
roles: { client: }
scenes:
  used: { given: { a: \"${b}\" }, steps: [ { sends: selffetch } ] }
  unused: { steps: [ { shouts: hello } ] }
";
    let user =
        "title: t\nsteps:\n  - each: i\n    in: 2\n    do:\n      - client plays: used\n  - client plays: used\n";
    let mut sources = Sources::default();
    let mut folder = PackFolder { name: "concierge".to_owned(), ..PackFolder::default() };
    for (name, text) in [("shared.yaml", shared), ("one.yaml", user), ("two.yaml", user)] {
        folder.scenarios.insert(name.to_owned(), sources.add(name, text));
    }
    let diagnostics = ScenarioSet::load(&folder, &sources, &CONCIERGE.pack).diagnostics;
    let messages: Vec<&str> = diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    let expected = ["no name `b` is in scope", "concierge has no message `selffetch`", "`shouts` is not a step"];
    assert_eq!(messages, expected);
}

/// A scene returns the names that it binds; a hook may declare the members of its answer.
#[test]
fn members_that_no_scene_or_hook_returns_are_reported() {
    let shared = "\
roles: { client: { opening: [ { connects: } ] } }
hooks: { token: { returns: [value] }, free: }
scenes:
  asks: { steps: [ { sends: self_fetch, as: asked }, { expects: self_fetch_result, as: answer } ] }
";
    let check = |value: &str| format!("  - check: \"${{{value}}}\"\n    rules: [CON-024]\n");
    let mut user = "title: t\nactors: { client: client, other: client, all: [client, other] }\nsteps:\n  - all join:\n  - client plays: asks\n    as: result\n".to_owned();
    user += "  - all play: asks\n    as: results\n  - hook: token\n    as: token\n  - hook: free\n    as: free\n";
    for value in
        ["result.answer.name", "result.answr", "results[0].askd", "result.asked.tags", "token.value", "token.vale"]
    {
        user += &check(value);
    }
    user += &check("free.anything");
    let mut sources = Sources::default();
    let mut folder = PackFolder { name: "concierge".to_owned(), ..PackFolder::default() };
    for (name, text) in [("shared.yaml", shared), ("one.yaml", &user)] {
        folder.scenarios.insert(name.to_owned(), sources.add(name, text));
    }
    let diagnostics = ScenarioSet::load(&folder, &sources, &CONCIERGE.pack).diagnostics;
    let errors = diagnostics.iter().filter(|one| one.severity == Severity::Error).map(|one| one.message.as_str());
    let expected = [
        "the scene `asks` has no member `answr`",
        "the scene `asks` has no member `askd`",
        "the answer of the hook `token` has no member `vale`",
    ];
    assert_eq!(errors.collect::<Vec<_>>(), expected, "{}", render_all(&diagnostics, &sources, false));
}

const ASYNCAPI: &str = "\
asyncapi: 3.1.0
info: { title: Greetings, version: 1.0.0 }
channels:
  hub:
    address: /
    messages:
      hello: { $ref: '#/components/messages/hello' }
operations:
  greet:
    action: send
    channel: { $ref: '#/channels/hub' }
    messages:
      - $ref: '#/channels/hub/messages/hello'
components:
  messages:
    hello:
      payload: { $ref: ./messages/hello.schema.json }
      x-hubproof:
        match: { type: HELLO }
";
const HELLO: &str = r#"{
  "title": "HELLO",
  "x-rules": ["GRE-001"],
  "type": "object",
  "required": ["type", "count"],
  "properties": {
    "type": { "const": "HELLO" },
    "count": { "type": "integer", "minimum": 0 }
  },
  "examples": [{ "type": "HELLO", "count": 1 }]
}
"#;
const RULES: &str = "\
document: A greeting
rules:
  GRE-001:
    level: must
    basis: stated
    line: 3
    text: A hub greets.
";

/// A small pack in which one text is replaced: the file, the old text, a line `=>`, and the new text.
fn pack_diagnostics(change: &str) -> String {
    let mut files = [
        ("asyncapi.yaml", ASYNCAPI.to_owned()),
        ("messages/hello.schema.json", HELLO.to_owned()),
        ("rules.yaml", RULES.to_owned()),
    ];
    let (name, change) = change.split_once('\n').unwrap();
    let (old, new) = change.split_once("\n=>\n").unwrap();
    let new = new.strip_suffix('\n').unwrap();
    let (_, text) = files.iter_mut().find(|(file, _)| *file == name).unwrap();
    assert!(text.contains(old), "{name} has no {old}");
    *text = text.replacen(old, new, 1);
    load_diagnostics(&files)
}

fn load_diagnostics(files: &[(&str, String)]) -> String {
    let mut sources = Sources::default();
    let mut folder = PackFolder { name: "greetings".to_owned(), ..PackFolder::default() };
    for (name, text) in files {
        folder.pack.insert((*name).to_owned(), sources.add(format!("greetings/{name}"), text.as_str()));
    }
    render_all(&Pack::load(&folder, &sources).1, &sources, false)
}

#[test]
fn mistakes_of_a_pack_are_reported_at_their_place() {
    assert_eq!(
        load_diagnostics(&[
            ("asyncapi.yaml", ASYNCAPI.to_owned()),
            ("messages/hello.schema.json", HELLO.to_owned()),
            ("rules.yaml", RULES.to_owned())
        ]),
        ""
    );
    assert_eq!(
        load_diagnostics(&[
            ("asyncapi.yaml", ASYNCAPI.to_owned()),
            ("messages/hello.schema.json", HELLO.replace("  ", "\t")),
            ("rules.yaml", RULES.to_owned())
        ]),
        "",
        "JSON may be indented with tabs"
    );
    let missing = load_diagnostics(&[("rules.yaml", RULES.to_owned())]);
    let unused = load_diagnostics(&[
        ("asyncapi.yaml", ASYNCAPI.to_owned()),
        ("messages/hello.schema.json", HELLO.to_owned()),
        ("messages/old.schema.json", HELLO.to_owned()),
        ("rules.yaml", RULES.to_owned()),
    ]);
    insta::assert_snapshot!(format!(
        "{}\n\n\n## no asyncapi.yaml\n\n{missing}\n\n\n## a schema of no message\n\n{unused}",
        diagnostics_of(include_str!("../fixtures/mistakes/pack.txt"), pack_diagnostics)
    ));
}
