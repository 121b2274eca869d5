use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::{Value, json};

use super::{DIALECT_FILE, Dialect};
use crate::protocol::PackFolder;
use crate::syntax::diagnostic::render_all;
use crate::syntax::source::{FileId, Sources};
use crate::syntax::yaml;

const PACK: [(&str, &str); 6] = [
    (
        "asyncapi.yaml",
        "asyncapi: 3.1.0
channels: { hub: { address: /, messages: { hello: { $ref: '#/components/messages/hello' }, bye: { $ref: '#/components/messages/bye' } } } }
operations:
  greets: { action: send, channel: { $ref: '#/channels/hub' }, messages: [ { $ref: '#/channels/hub/messages/hello' } ] }
  leaves: { action: receive, channel: { $ref: '#/channels/hub' }, messages: [ { $ref: '#/channels/hub/messages/bye' } ] }
components:
  messages:
    hello: { title: Hello, payload: { $ref: ./messages/hello.schema.json }, x-hubproof: { match: { type: HELLO } } }
    bye: { title: Bye, payload: { $ref: ./messages/bye.schema.json }, x-hubproof: { match: { type: BYE } } }
",
    ),
    ("messages/hello.schema.json", r#"{ "x-rules": ["A-1"], "properties": { "type": { "const": "HELLO" } } }"#),
    ("messages/bye.schema.json", r#"{ "properties": { "type": { "const": "BYE" } } }"#),
    ("rules.yaml", "rules:\n  A-1: { level: must, line: 1, text: One. }\n  A-2: { level: must, line: 2, text: Two. }\n"),
    (
        "scenarios/shared.yaml",
        "roles:\n  client:\n    opening:\n      - connects:\n      - expects: hello\n  guest: {}\n",
    ),
    (
        "scenarios/greeting.yaml",
        "title: Greeting
actors: { anna: client }
steps:
  - anna joins:
    rules: [A-1]
  - each: number
    in: [1, 2]
    do:
      - anna sends: bye
  - anna sends: bye
  - anna expects nothing: any
    rules: [A-2]
",
    ),
];

/// The result of applying a dialect to [`PACK`]: a folder, with its diagnostics.
struct MergedDialect {
    sources: Sources,
    folder: PackFolder,
}

impl MergedDialect {
    /// Applies a dialect with these files; `add` is its list of additions.
    fn merge(add: &str, files: &[(&str, &str)]) -> Self {
        let mut sources = Sources::default();
        let base = PackFolder::from_files("small", PACK.map(|(path, text)| (path.to_owned(), sources.add(path, text))));
        let file = sources.add("ours/dialect.yaml", format!("extends: small\nadd: [{add}]\n"));
        let mut read: BTreeMap<String, FileId> = BTreeMap::from([(DIALECT_FILE.to_owned(), file)]);
        read.extend(files.iter().map(|(path, text)| ((*path).to_owned(), sources.add(format!("ours/{path}"), *text))));
        let dialect = Dialect::parse(file, &sources).unwrap();
        let folder = dialect.apply("ours", &base, &read, &mut sources);
        Self { sources, folder }
    }

    /// Returns the diagnostics as text.
    fn diagnostics_text(&self) -> String {
        render_all(&self.folder.diagnostics, &self.sources, false)
    }

    /// Returns a file of the result; null if the result has no such file.
    #[track_caller]
    fn file(&self, path: &str) -> Value {
        let file = match path.strip_prefix("scenarios/") {
            Some(inner) => self.folder.scenarios.get(inner),
            None => self.folder.pack.get(path),
        };
        assert_eq!(self.diagnostics_text(), "");
        file.map(|file| yaml::parse(&self.sources, *file).unwrap().to_json()).unwrap_or_default()
    }
}

#[test]
fn members_of_rules_messages_and_roles_are_overridden_one_by_one() {
    let merged = MergedDialect::merge(
        "",
        &[
            ("asyncapi.yaml", "components: { messages: { hello: { x-hubproof: { match: { type: WELCOME } } } } }"),
            ("rules.yaml", "rules: { A-1: { level: should } }"),
            ("scenarios/shared.yaml", "roles: { client: { steps: { connects: { connects: , path: /ws } } } }"),
        ],
    );
    assert_eq!(
        merged.file("asyncapi.yaml").pointer("/components/messages/hello"),
        Some(&json!({
            "title": "Hello",
            "payload": { "$ref": "./messages/hello.schema.json" },
            "x-hubproof": { "match": { "type": "WELCOME" } }
        }))
    );
    assert_eq!(
        merged.file("rules.yaml")["rules"],
        json!({
            "A-1": { "level": "should", "line": 1, "text": "One." },
            "A-2": { "level": "must", "line": 2, "text": "Two." }
        })
    );
    assert_eq!(
        merged.file("scenarios/shared.yaml")["roles"],
        json!({ "client": { "opening": [{ "connects": null, "path": "/ws" }, { "expects": "hello" }] }, "guest": {} })
    );
    assert_eq!(merged.folder.name, "ours");
}

#[test]
fn places_point_to_the_file_that_defines_each_part() {
    let merged = MergedDialect::merge("", &[("rules.yaml", "rules:\n  A-1: { level: should }\n")]);
    let tree = yaml::parse(&merged.sources, merged.folder.pack["rules.yaml"]).unwrap();
    let place = |pointer: &str| merged.sources.path_and_line(tree.at_pointer(pointer).span);
    assert_eq!(place("/rules/A-1/level").to_string(), "ours/rules.yaml:2");
    assert_eq!(place("/rules/A-1/text").to_string(), "rules.yaml:2");
}

#[rstest]
#[case::replaced("anna expects nothing: any", "{ anna expects: hello }", &["anna joins", "each", "anna sends", "anna expects"])]
#[case::with_steps_around("anna joins", "[{ wait: 1s }, original]", &["wait", "anna joins", "each", "anna sends", "anna expects nothing"])]
#[case::removed("anna sends: bye #2", "null", &["anna joins", "each", "anna expects nothing"])]
fn a_step_override_is_keyed_by_the_steps_text(#[case] step: &str, #[case] with: &str, #[case] expected: &[&str]) {
    let text = format!("title: Ours\nsteps:\n  '{step}': {with}\n");
    let scenario = MergedDialect::merge("", &[("scenarios/greeting.yaml", &text)]).file("scenarios/greeting.yaml");
    let heads: Vec<&str> = scenario["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step.as_object().unwrap().keys().find(|key| expected.contains(&key.as_str())).unwrap().as_str())
        .collect();
    assert_eq!(heads, expected);
    assert_eq!(scenario["title"], "Ours");
    assert_eq!(scenario["actors"], json!({ "anna": "client" }));
}

/// The first line of a step as its file has it: with quotes, a dash, a comment.
#[rstest]
#[case::with_quotes("\"anna sends: 'bye' #2\"")]
#[case::with_a_colon("'anna sends: bye: #2'")]
#[case::with_double_quotes("'anna sends: \"bye\" #2'")]
#[case::with_a_dash("'- anna sends: bye #2'")]
fn a_step_may_be_named_as_its_file_writes_it(#[case] step: &str) {
    let text = format!("title: Ours\nsteps:\n  {step}: null\n");
    let merged = MergedDialect::merge("", &[("scenarios/greeting.yaml", &text)]);
    assert_eq!(merged.file("scenarios/greeting.yaml")["steps"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_file_without_entries_is_replaced_as_a_whole() {
    let schema = r#"{ "properties": { "type": { "const": "WELCOME" } } }"#;
    let scenario = "title: Ours\nactors: { ben: guest }\nsteps: [{ ben connects: }]\n";
    let merged =
        MergedDialect::merge("", &[("messages/hello.schema.json", schema), ("scenarios/greeting.yaml", scenario)]);
    assert_eq!(merged.file("messages/hello.schema.json")["properties"]["type"]["const"], "WELCOME");
    assert_eq!(merged.file("scenarios/greeting.yaml")["actors"], json!({ "ben": "guest" }));
}

#[test]
fn removing_a_message_removes_its_references_and_schema() {
    let merged = MergedDialect::merge("", &[("asyncapi.yaml", "components: { messages: { bye: null } }")]);
    let document = merged.file("asyncapi.yaml");
    assert!(!document.to_string().contains("bye"), "{document:#}");
    assert!(document["operations"].get("greets").is_some() && document["operations"].get("leaves").is_none());
    assert_eq!(merged.file("messages/bye.schema.json"), Value::Null);
}

#[test]
fn removing_a_rule_removes_requirements_of_that_rule_only() {
    let merged = MergedDialect::merge("", &[("rules.yaml", "rules: { A-1: null, A-2: null }")]);
    assert_eq!(merged.file("rules.yaml")["rules"], json!({}));
    assert_eq!(merged.file("messages/hello.schema.json"), json!({ "properties": { "type": { "const": "HELLO" } } }));
    let steps = merged.file("scenarios/greeting.yaml")["steps"].clone();
    // The step that joins remains because it also acts; the one that only expects nothing is removed.
    assert_eq!(steps[0], json!({ "anna joins": null }));
    assert_eq!(steps.as_array().unwrap().len(), 3);
}

#[test]
fn an_empty_scenario_file_removes_the_scenario() {
    assert_eq!(
        MergedDialect::merge("", &[("scenarios/greeting.yaml", "# no\n")]).file("scenarios/greeting.yaml"),
        Value::Null
    );
}

#[test]
fn declared_additions_are_merged_into_the_pack() {
    let files = [
        ("rules.yaml", "rules: { A-3: { level: may, line: 3, text: Three. } }"),
        ("scenarios/more.yaml", "title: More\nactors: {}\nsteps: []\n"),
    ];
    let merged = MergedDialect::merge("rule A-3, scenarios/more.yaml", &files);
    assert_eq!(merged.file("rules.yaml")["rules"]["A-3"]["text"], "Three.");
    assert_eq!(merged.file("scenarios/more.yaml")["title"], "More");
}

#[rstest]
#[case("rules.yaml", "rules: { A-9: { level: may } }", "`small` has no rule `A-9` to override")]
#[case("rules.yaml", "rules: { A-9: null }", "`small` has no rule `A-9` to remove")]
#[case("rules.yaml", "rules: { A-1: { level: must } }", "rule `A-1` is the same in `small`")]
#[case("rules.yaml", "rules: { A-1: { from: null } }", "rule `A-1` of `small` has no `from` to remove")]
#[case("rule.yaml", "rules: { A-1: null }", "no pack has a file rule.yaml")]
#[case(
    "asyncapi.yaml",
    "components: { messages: { helo: { title: x } } }",
    "`small` has no message `helo` to override"
)]
#[case("messages/hell.schema.json", "{}", "`small` has no file messages/hell.schema.json to override")]
#[case("scenarios/shared.yaml", "roles: { clint: { opening: [] } }", "`small` has no role `clint` to override")]
#[case(
    "scenarios/shared.yaml",
    "roles: { client: { steps: { expects: null } } }",
    "role `client` of `small` has no step `expects`"
)]
#[case(
    "scenarios/greetings.yaml",
    "steps: { anna joins: null }",
    "`small` has no file scenarios/greetings.yaml to override"
)]
#[case(
    "scenarios/greeting.yaml",
    "steps: { anna join: null }",
    "file scenarios/greeting.yaml of `small` has no step `anna join`"
)]
#[case(
    "scenarios/greeting.yaml",
    "steps: { 'anna sends: bye': null }",
    "file scenarios/greeting.yaml has the step `anna sends: bye` 2 times"
)]
#[case(
    "scenarios/greeting.yaml",
    "steps: { 'anna sends: bye #3': null }",
    "file scenarios/greeting.yaml of `small` has no step `anna sends: bye #3`"
)]
#[case(
    "scenarios/greeting.yaml",
    "steps: { anna joins: { anna joins: , rules: [A-1] } }\ntitle: Ours",
    "step `anna joins` is the same in `small`"
)]
fn an_override_without_a_target_is_an_error_at_its_place(
    #[case] path: &str,
    #[case] text: &str,
    #[case] expected: &str,
) {
    let merged = MergedDialect::merge("", &[(path, text)]);
    let shown = merged.diagnostics_text();
    assert_eq!(merged.folder.diagnostics.len(), 1, "{shown}");
    assert_eq!(merged.folder.diagnostics[0].message, expected);
    assert!(shown.contains(&format!("ours/{path}:")) && shown.contains("help:"), "{shown}");
}

#[rstest]
#[case("rule A-1", &[("rules.yaml", "rules: { A-1: { level: may } }")], "`small` already has rule `A-1`, so it is not an addition")]
#[case("rule A-3", &[], "the dialect adds no rule `A-3`")]
#[case("scenarios/more.yaml", &[], "the dialect adds no file scenarios/more.yaml")]
fn an_invalid_entry_in_add_is_an_error(#[case] add: &str, #[case] files: &[(&str, &str)], #[case] expected: &str) {
    let merged = MergedDialect::merge(add, files);
    assert_eq!(merged.folder.diagnostics.len(), 1, "{}", merged.diagnostics_text());
    assert_eq!(merged.folder.diagnostics[0].message, expected);
}

#[rstest]
#[case("name: ours\n", "dialect.yaml has no `extends`")]
#[case("extends: [small]\n", "`extends` must be text, not a list")]
#[case("extends: small\nname: our hub\n", "`our hub` is not a valid name for a pack")]
#[case("extends: small\nextend: small\n", "dialect.yaml has no key `extend`")]
#[case("extends: small\nadd: rule A-3\n", "`add` must be a list, not text")]
fn a_mistake_in_dialect_yaml_is_an_error(#[case] text: &str, #[case] expected: &str) {
    let mut sources = Sources::default();
    let file = sources.add("dialect.yaml", text);
    let found = Dialect::parse(file, &sources).err().unwrap();
    assert_eq!(found.iter().map(|found| found.message.as_str()).collect::<Vec<_>>(), [expected]);
}
