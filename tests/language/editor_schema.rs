//! The published schemas of scenario files (schemas/hubproof/) agree with the parser: they accept valid files, and
//! refuse files that the parser refuses, as far as a schema can.

use std::collections::BTreeSet;
use std::fs;

use hubproof::scenario::functions::FUNCTION_NAMES;
use hubproof::scenario::parse::verbs::parse_head;
use hubproof::scenario::{SharedFile, parse};
use hubproof::syntax::diagnostic::Severity;
use hubproof::syntax::json_schema::{find_schema_mistakes, visit_schemas};
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use jsonschema::{Registry, Validator};
use rstest::rstest;
use serde_json::{Value, json};

use super::reference_examples::{Example, examples};
use crate::support::disk::{self, CONCIERGE};

fn read_schema(name: &str) -> Value {
    let text = fs::read_to_string(disk::root().join("schemas/hubproof").join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn validator(name: &str) -> Validator {
    let base = "https://example.com/";
    let scenario = read_schema("scenario.schema.json");
    let registry = Registry::new().add(format!("{base}scenario.schema.json"), &scenario).unwrap().prepare().unwrap();
    jsonschema::draft202012::options()
        .with_registry(&registry)
        .with_base_uri(format!("{base}{name}"))
        .build(&read_schema(name))
        .unwrap()
}

fn json_of(text: &str) -> Value {
    let mut sources = Sources::default();
    let file = sources.add("inline.yaml", text);
    yaml::parse(&sources, file).unwrap_or_else(|diagnostic| panic!("{}", diagnostic.render(&sources, false))).to_json()
}

/// Returns the parser's errors of a scenario of the concierge.
fn errors(text: &str) -> Vec<String> {
    let mut sources = CONCIERGE.sources.clone();
    let file = sources.add("inline.yaml", text);
    let diagnostics = match yaml::parse(&sources, file) {
        Err(diagnostic) => vec![diagnostic],
        Ok(root) => parse::parse_scenario_file("concierge/inline", &root, &CONCIERGE.shared, &CONCIERGE.pack).1,
    };
    diagnostics.into_iter().filter(|d| d.severity == Severity::Error).map(|d| d.message).collect()
}

/// Returns the parser's errors of a shared.yaml of the concierge, and of a scenario in which its role `client` joins.
fn errors_of_shared(text: &str) -> Vec<String> {
    let mut sources = Sources::default();
    let pack = &CONCIERGE.pack;
    let file = sources.add("shared.yaml", text);
    let mut diagnostics = Vec::new();
    let shared = SharedFile::parse(yaml::parse(&sources, file).unwrap(), pack, &mut diagnostics);
    let file = sources.add("inline.yaml", "title: t\nsteps:\n  - client joins:\n  - client plays: scene\n");
    diagnostics.extend(shared.check(pack));
    diagnostics
        .extend(parse::parse_scenario("concierge/inline", &yaml::parse(&sources, file).unwrap(), &shared, pack).1);
    diagnostics.into_iter().filter(|d| d.severity == Severity::Error).map(|d| d.message).collect()
}

#[test]
fn every_keyword_of_the_editor_schema_is_known_and_every_key_is_described() {
    for name in ["scenario.schema.json", "shared.schema.json"] {
        let schema = read_schema(name);
        assert_eq!(find_schema_mistakes(&schema, &[]), [], "{name}");
        let mut described = 0;
        visit_schemas(&schema, "", &mut |inner, pointer| {
            // A schema that only narrows a key described elsewhere.
            if pointer.contains("/allOf/") {
                return;
            }
            for holder in ["properties", "patternProperties"] {
                for (key, value) in inner.get(holder).and_then(Value::as_object).into_iter().flatten() {
                    let own = value.get("description").is_some();
                    let referred = value
                        .get("$ref")
                        .and_then(Value::as_str)
                        .and_then(|r| schema.pointer(r.trim_start_matches('#')));
                    let described_somewhere =
                        own || key == "^/" || referred.is_some_and(|target| target.get("description").is_some());
                    assert!(described_somewhere, "{name}{pointer}/{holder}/{key} has no description");
                    described += 1;
                }
            }
        });
        assert!(described > 20, "{name}: {described}");
    }
}

#[test]
fn every_scenario_and_every_example_of_the_book_fits_the_editor_schema() {
    let (scenario, shared) = (validator("scenario.schema.json"), validator("shared.schema.json"));
    let mut texts: Vec<(String, String)> = Vec::new();
    for protocol in disk::protocols() {
        let folder = disk::root().join("scenarios").join(&protocol);
        for path in fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        {
            texts.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    let examples = examples();
    assert!(texts.len() > 20 && examples.len() > 20, "{} files, {} examples", texts.len(), examples.len());
    texts.extend(examples.into_iter().map(|Example { text, .. }| (text.lines().next().unwrap().to_owned(), text)));
    for (name, text) in texts {
        let validator = if name.ends_with("shared.yaml") { &shared } else { &scenario };
        let wrong: Vec<String> =
            validator.iter_errors(&json_of(&text)).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
    }
}

/// Returns the verbs with a value, and the options that they need. `client` is an actor.
fn verb_heads() -> Vec<(&'static str, Value, Value)> {
    let rules = json!({ "rules": ["CON-024"] });
    vec![
        ("client joins", json!(null), json!({})),
        ("client connects", json!("/path"), json!({})),
        ("client tries to connect", json!(null), json!({})),
        ("client accepts", json!(null), json!({})),
        ("client sends", json!("identify"), json!({})),
        ("client sends raw", json!({ "text": "x" }), json!({})),
        ("client closes", json!(1000), json!({})),
        ("client drops", json!("fin"), json!({})),
        ("client stops reading", json!(null), json!({})),
        ("client reads again", json!(null), json!({})),
        ("client expects", json!("hello"), json!({})),
        ("client expects nothing", json!("hello"), rules.clone()),
        ("client expects one of", json!([{ "message": "hello" }]), json!({})),
        ("client expects close", json!([1000, "drop"]), json!({})),
        ("client expects refusal", json!("any"), json!({})),
        ("client expects frame", json!("pong"), json!({})),
        ("client expects end", json!(null), json!({})),
        ("client plays", json!("fence"), json!({})),
        ("play", json!("greets"), json!({})),
        ("compose", json!("identify"), json!({})),
        ("hook", json!("none"), json!({})),
        ("wait", json!("1s"), json!({ "because": "time passes" })),
        ("check", json!("${1 == 1}"), rules.clone()),
        ("order", json!(["first", "second"]), rules),
        ("each", json!("i"), json!({ "in": [1], "do": [] })),
        ("either", json!("i"), json!({ "in": [1], "do": [] })),
        ("retry", json!("5s"), json!({ "do": [] })),
    ]
}

#[test]
fn each_option_belongs_to_the_same_verbs_as_in_the_parser() {
    let options = json!({
        "as": "name", "if": "name", "rules": ["CON-024"], "with": {}, "without": [], "fragments": 2, "breaks": "why", "reason": "why",
        "query": {}, "headers": {}, "subprotocols": [], "from": "127.0.0.2", "method": "POST", "http": "1.0", "where": {}, "has": { "CON-024": { "name": "x" } }, "after": "name",
        "within": "1s", "for": "1s", "count": 2, "args": {}, "message": "hello", "because": "why", "equals": 1, "fits": {}, "says": "why", "slack": "1s",
        "in": [1], "do": [],
    });
    let validator = validator("scenario.schema.json");
    let file = |step: &Value| json!({ "title": "t", "steps": [step] });
    let (mut together, mut apart) = (0, 0);
    for (head, value, beside) in verb_heads() {
        let mut step = json!({ head: value });
        step.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
        assert!(validator.is_valid(&file(&step)), "{step}");
        let plural = head
            .replace("tries", "try")
            .split(' ')
            .map(|w| if w == "client" { w } else { w.trim_end_matches('s') })
            .collect::<Vec<_>>()
            .join(" ");
        for (option, sample) in options.as_object().unwrap() {
            let mut with = step.clone();
            with[option] = sample.clone();
            let belongs = !errors(&file(&with).to_string()).iter().any(|error| error.contains(" has no option `"));
            assert_eq!(validator.is_valid(&file(&with)), belongs, "{with}");
            if head.starts_with("client") {
                with = with
                    .as_object()
                    .unwrap()
                    .iter()
                    .map(|(k, v)| (if k == head { plural.clone() } else { k.clone() }, v.clone()))
                    .collect();
                assert_eq!(validator.is_valid(&file(&with)), belongs, "{with}");
            }
            if belongs { together += 1 } else { apart += 1 }
        }
    }
    assert!(together > 100 && apart > 400, "{together} {apart}");
}

#[test]
fn the_page_about_the_language_has_a_section_and_the_options_of_every_verb() {
    let page = fs::read_to_string(disk::root().join("docs/src/scenario-language.md")).unwrap();
    let steps = page.split("\n## ").find(|part| part.starts_with("Steps\n")).unwrap();
    let sections: BTreeSet<&str> = steps
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|title| *title != "Groups")
        .flat_map(|title| title.split(", "))
        .collect();
    let heads = verb_heads();
    let verb = |head: &'static str| head.strip_prefix("client ").unwrap_or(head);
    assert_eq!(sections, heads.iter().map(|(head, ..)| verb(head)).collect());
    for (key, ..) in heads {
        let options = parse_head(key).unwrap().verb.options();
        let options: Vec<String> = options.iter().map(|option| format!("`{option}`")).collect();
        let row = steps.lines().find(|line| line.starts_with(&format!("| [`{}`](", verb(key)))).unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[2], options.join(", "), "{row}");
    }
}

#[test]
fn the_page_about_the_language_lists_every_function() {
    let page = fs::read_to_string(disk::root().join("docs/src/scenario-language.md")).unwrap();
    let table = page.split("\n## ").find(|part| part.starts_with("Functions\n")).unwrap();
    let missing: Vec<&&str> = FUNCTION_NAMES.iter().filter(|name| !table.contains(&format!("`{name}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[rstest]
#[case::unknown_key("title: t\nstep: []\nsteps: []")]
#[case::no_title("steps: []")]
#[case::no_steps("title: t")]
#[case::not_a_mapping("- title: t")]
#[case::steps_are_not_a_list("title: t\nsteps: { client joins: }")]
#[case::needs_is_not_a_list("title: t\nneeds: tls\nsteps: []")]
#[case::exclusive_is_not_a_word("title: t\nexclusive: 3\nsteps: []")]
#[case::actors_are_not_a_mapping("title: t\nactors: [client]\nsteps: []")]
#[case::actor_without_a_role("title: t\nactors: { anna: 3 }\nsteps: []")]
#[case::actor_with_unknown_key("title: t\nactors: { anna: { rule: client } }\nsteps: []")]
#[case::empty_crowd("title: t\nactors: { crowd: { role: client, count: 0 } }\nsteps: []")]
#[case::actor_called_check("title: t\nactors: { check: client }\nsteps: []")]
#[case::unknown_verb("title: t\nsteps:\n  - client shouts: hello")]
#[case::no_head("title: t\nsteps:\n  - with: {}")]
#[case::step_is_text("title: t\nsteps:\n  - client joins")]
#[case::unknown_option("title: t\nsteps:\n  - client sends: identify\n    wiht: {}")]
#[case::option_at_the_wrong_verb("title: t\nsteps:\n  - client sends: identify\n    where: {}")]
#[case::two_heads("title: t\nsteps:\n  - client sends: identify\n    client expects: hello")]
#[case::rules_are_not_a_list("title: t\nsteps:\n  - client expects: hello\n    rules: CON-024")]
#[case::raised_rule("title: t\nsteps:\n  - client expects: hello\n    rules: [CON-024 as must]")]
#[case::no_value_belongs_here("title: t\nsteps:\n  - client joins: now")]
#[case::indented_too_far("title: t\nsteps:\n  - client joins:\n      with: {}")]
#[case::no_message("title: t\nsteps:\n  - client joins:\n  - client sends:")]
#[case::expects_nothing_without_rules("title: t\nsteps:\n  - client expects nothing: hello")]
#[case::expects_nothing_without_rules_within_each(
    "title: t\nsteps:\n  - each: i\n    in: 2\n    do:\n      - client expects nothing: hello"
)]
#[case::check_without_rules("title: t\nsteps:\n  - check: \"${1}\"")]
#[case::check_with_empty_rules("title: t\nsteps:\n  - check: \"${1}\"\n    rules: []")]
#[case::check_of_a_constant("title: t\nsteps:\n  - check: hello\n    rules: [CON-024]")]
#[case::check_of_a_number("title: t\nsteps:\n  - check: 1\n    rules: [CON-024]")]
#[case::no_rules("title: t\nsteps:\n  - client expects: hello\n    rules: []")]
#[case::rule_twice("title: t\nsteps:\n  - client expects: hello\n    rules: [CON-024, CON-024]")]
#[case::empty_has("title: t\nsteps:\n  - client expects: hello\n    has: {}")]
#[case::empty_line_of_has("title: t\nsteps:\n  - client expects: hello\n    has: { CON-025: {} }")]
#[case::computed_line_of_has("title: t\nsteps:\n  - client expects: hello\n    has: { \"${a}\": { name: x } }")]
#[case::no_actor("title: t\nsteps:\n  - sends: identify")]
#[case::with_is_a_list("title: t\nsteps:\n  - client sends: identify\n    with: [a]")]
#[case::with_of_a_role_is_text("title: t\nsteps:\n  - client joins:\n    with: x")]
#[case::with_of_a_scene_is_computed(
    "title: t\nlet: { a: { b: 1 } }\nsteps:\n  - client plays: fence\n    with: \"${a}\""
)]
#[case::without_is_text("title: t\nsteps:\n  - client sends: identify\n    without: /name")]
#[case::path_is_a_number("title: t\nsteps:\n  - client connects: 3")]
#[case::query_is_text("title: t\nsteps:\n  - client connects:\n    query: x")]
#[case::headers_are_a_list("title: t\nsteps:\n  - client connects:\n    headers: [x]")]
#[case::subprotocols_are_text("title: t\nsteps:\n  - client connects:\n    subprotocols: x")]
#[case::closes_nothing("title: t\nsteps:\n  - client closes:")]
#[case::closes_soon("title: t\nsteps:\n  - client closes: soon")]
#[case::closes_beyond_all("title: t\nsteps:\n  - client closes: 99999")]
#[case::reason_is_a_number("title: t\nsteps:\n  - client closes: 1000\n    reason: 3")]
#[case::raw_frame_with_unknown_key("title: t\nsteps:\n  - client sends raw: { frames: [ { opcod: ping } ] }")]
#[case::raw_frame_without_opcode("title: t\nsteps:\n  - client sends raw: { frames: [ { data: x } ] }")]
#[case::raw_frame_of_two_payloads(
    "title: t\nsteps:\n  - client sends raw: { frames: [ { opcode: 1, data: x, hex: ff } ] }"
)]
#[case::raw_frames_are_not_a_list("title: t\nsteps:\n  - client sends raw: { frames: ping }")]
#[case::raw_frames_are_none("title: t\nsteps:\n  - client sends raw: { frames: [] }")]
#[case::raw_bytes_are_not_hexadecimal("title: t\nsteps:\n  - client sends raw: { binary: xyz }")]
#[case::raw_bytes_are_halves("title: t\nsteps:\n  - client sends raw: { bytes: 'f' }")]
#[case::empty_name("title: t\nsteps:\n  - client joins:\n    as: ''")]
#[case::name_that_begins_with_a_number("title: t\nsteps:\n  - client joins:\n    as: 1st")]
#[case::name_called_hub("title: t\nsteps:\n  - client joins:\n    as: hub")]
#[case::variable_called_like_a_function("title: t\nsteps:\n  - each: unique\n    in: 2\n    do: []")]
#[case::value_called_self("title: t\nlet: { self: 1 }\nsteps: []")]
#[case::actor_called_like_a_verb("title: t\nactors: { expects: client }\nsteps: []")]
#[case::actor_called_like_a_function("title: t\nactors: { unique: client }\nsteps: []")]
#[case::empty_group("title: t\nactors: { all: [] }\nsteps: []")]
#[case::no_values("title: t\nsteps:\n  - each: i\n    in: []\n    do: []")]
#[case::no_rounds("title: t\nsteps:\n  - each: i\n    in: 0\n    do: []")]
#[case::values_are_text("title: t\nsteps:\n  - each: i\n    in: abc\n    do: []")]
#[case::retry_without_time("title: t\nsteps:\n  - retry: 0s\n    do: []")]
#[case::order_of_one_thing(
    "title: t\nsteps:\n  - client expects: hello\n    as: a\n  - order: [a, a]\n    rules: [CON-024]"
)]
#[case::count_of_none("title: t\nsteps:\n  - client expects: hello\n    count: 0")]
#[case::count_of_at_most_none("title: t\nsteps:\n  - client expects: hello\n    count: { max: 0 }\n    for: 1s")]
#[case::range_without_window("title: t\nsteps:\n  - client expects: hello\n    count: { min: 1, max: 2 }")]
#[case::no_alternatives("title: t\nsteps:\n  - client expects one of: []")]
#[case::alternative_of_two_kinds("title: t\nsteps:\n  - client expects one of: [ { message: hello, close: any } ]")]
#[case::where_beside_a_close("title: t\nsteps:\n  - client expects one of: [ { close: any, where: { code: 1 } } ]")]
#[case::alternative_with_a_number_for_a_name(
    "title: t\nsteps:\n  - client expects one of: [ { message: hello, as: 3 } ]"
)]
#[case::alternative_that_warns_and_records(
    "title: t\nsteps:\n  - client expects one of: [ { message: hello, warn: x, info: x } ]"
)]
#[case::nothing_with_a_value("title: t\nsteps:\n  - client expects one of: [ { nothing: hello } ]")]
#[case::unknown_type("title: t\nsteps:\n  - client expects: hello\n    where: { /version: { type: sting } }")]
#[case::unknown_format("title: t\nsteps:\n  - client expects: hello\n    where: { /version: { format: semver } }")]
#[case::fits_is_not_a_schema("title: t\nsteps:\n  - check: \"${1}\"\n    fits: 3\n    rules: [CON-024]")]
#[case::expects_nothing_in_finally("title: t\nsteps: []\nfinally:\n  - client expects nothing: hello")]
#[case::equals_and_fits("title: t\nsteps:\n  - check: \"${1}\"\n    equals: 1\n    fits: {}\n    rules: [CON-024]")]
#[case::time_without_unit("title: t\nsteps:\n  - client expects: hello\n    within: 5")]
#[case::time_in_days("title: t\nsteps:\n  - client expects: hello\n    within: 5d")]
#[case::wait_without_reason("title: t\nsteps:\n  - wait: 5s")]
#[case::each_without_do("title: t\nsteps:\n  - each: i\n    in: 5")]
#[case::either_without_in("title: t\nsteps:\n  - either: i\n    do: []")]
#[case::retry_without_do("title: t\nsteps:\n  - retry: 5s")]
#[case::order_of_one("title: t\nsteps:\n  - client joins:\n    as: first\n  - order: [first]\n    rules: [CON-024]")]
#[case::order_is_not_a_list("title: t\nsteps:\n  - order: first\n    rules: [CON-024]")]
#[case::no_fragments("title: t\nsteps:\n  - client sends: identify\n    fragments: 0")]
#[case::without_is_not_a_pointer("title: t\nsteps:\n  - client sends: identify\n    without: [name]")]
#[case::breaks_without_reason("title: t\nsteps:\n  - client sends: hello\n    breaks:")]
#[case::name_with_a_space("title: t\nsteps:\n  - client joins:\n    as: the first")]
#[case::if_takes_a_name("title: t\nsteps:\n  - client joins:\n    if: [a]")]
#[case::raw_of_two_kinds("title: t\nsteps:\n  - client sends raw: { text: x, bytes: 'ff' }")]
#[case::raw_with_unknown_key("title: t\nsteps:\n  - client sends raw: { txt: x }")]
#[case::drops_later("title: t\nsteps:\n  - client drops: later")]
#[case::unknown_frame("title: t\nsteps:\n  - client expects frame: text")]
#[case::code_is_a_word("title: t\nsteps:\n  - client expects close: soon")]
#[case::range_without_numbers("title: t\nsteps:\n  - client expects close: [4000-x]")]
#[case::alternative_with_unknown_frame("title: t\nsteps:\n  - client expects one of: [ { frame: text } ]")]
#[case::alternative_that_fails_and_warns(
    "title: t\nsteps:\n  - client expects one of: [ { message: hello, warn: x, fail: x } ]"
)]
#[case::end_with_a_value("title: t\nsteps:\n  - client expects end: fin")]
#[case::code_beyond_the_range("title: t\nsteps:\n  - client expects close: 5000")]
#[case::count_with_unknown_key("title: t\nsteps:\n  - client expects: hello\n    count: { atleast: 2 }")]
#[case::alternatives_are_not_a_list("title: t\nsteps:\n  - client expects one of: hello")]
#[case::alternative_without_an_event("title: t\nsteps:\n  - client expects one of:\n      - as: x")]
#[case::alternative_with_unknown_key(
    "title: t\nsteps:\n  - client expects one of:\n      - message: hello\n        warning: x"
)]
#[case::pointer_with_a_value("title: t\nsteps:\n  - client expects: hello\n    where: { /version: 1 }")]
#[case::the_whole_is_there("title: t\nsteps:\n  - client expects: hello\n    where: { \"\": true }")]
#[case::the_whole_is_a_number("title: t\nsteps:\n  - client expects: hello\n    where: { \"\": 3 }")]
#[case::name_or_absent("title: t\nsteps:\n  - client expects: hello\n    where: { version or absent: x }")]
#[case::misspelt_keyword("title: t\nsteps:\n  - client expects: hello\n    where: { /version: { patern: x } }")]
#[case::misspelt_keyword_within(
    "title: t\nsteps:\n  - client expects: hello\n    has: { CON-025: { /version: { not: { patern: x } } } }"
)]
#[case::has_is_not_a_mapping("title: t\nsteps:\n  - client expects: hello\n    has: [CON-025]")]
#[case::has_without_a_matcher("title: t\nsteps:\n  - client expects: hello\n    has: { CON-025: x }")]
#[case::misspelt_keyword_of_fits(
    "title: t\nsteps:\n  - check: \"${1}\"\n    fits: { minimun: 1 }\n    rules: [CON-024]"
)]
#[case::rules_in_finally("title: t\nsteps: []\nfinally:\n  - client joins:\n    rules: [CON-024]")]
#[case::has_in_finally("title: t\nsteps: []\nfinally:\n  - client expects: hello\n    has: { CON-025: {} }")]
#[case::cases_are_a_list("title: t\ncases: [{ a: 1 }]\nsteps: []")]
#[case::no_cases("title: t\ncases: {}\nsteps: []")]
#[case::case_without_members("title: t\ncases: { one: {} }\nsteps: []")]
#[case::case_is_a_number("title: t\ncases: { one: 1 }\nsteps: []")]
#[case::case_with_a_slash("title: t\ncases: { one/two: { a: 1 } }\nsteps: []")]
#[case::member_of_a_case_called_hub("title: t\ncases: { one: { hub: 1 } }\nsteps: []")]
#[case::says_a_number("title: t\nsteps:\n  - check: \"${1 == 1}\"\n    says: 3\n    rules: [CON-024]")]
fn schema_and_parser_reject_the_same_scenarios(#[case] text: &str) {
    assert!(!validator("scenario.schema.json").is_valid(&json_of(text)), "the schema accepts it");
    assert!(!errors(text).is_empty(), "the parser accepts it");
}

#[rstest]
#[case::unknown_key("setting: {}")]
#[case::setting_with_unknown_key("hub: { version: { about: x, defualt: 1 } }")]
#[case::setting_about_nothing("hub: { version: { default: 1 } }")]
#[case::hook_with_unknown_key("hooks: { emit: { arguments: [] } }")]
#[case::ignore_without_a_name("ignore: [3]")]
#[case::role_with_unknown_key("roles: { client: { opens: [] } }")]
#[case::unknown_side("roles: { client: { side: upper } }")]
#[case::rules_in_an_opening("roles: { client: { opening: [ { connects: , rules: [CON-024] } ] } }")]
#[case::unknown_verb_in_an_opening("roles: { client: { opening: [ { shouts: hello } ] } }")]
#[case::reaction_with_unknown_key("reactions: { r: { when: hello } }\nroles: { client: { reacts: [r] } }")]
#[case::reaction_to_nothing("reactions: { r: { do: [] } }\nroles: { client: { reacts: [r] } }")]
#[case::reaction_that_waits(
    "reactions: { r: { whenever: hello, do: [ { expects: hello } ] } }\nroles: { client: { reacts: [r] } }"
)]
#[case::scene_with_unknown_key("roles: { client: }\nscenes: { scene: { step: [] } }")]
#[case::has_in_a_scene(
    "roles: { client: }\nscenes: { scene: { steps: [ { expects: hello, has: { CON-025: {} } } ] } }"
)]
#[case::settings_are_a_list("hub: [a]")]
#[case::line_is_not_a_number("hub: { t: { about: x, line: four } }")]
#[case::ignore_is_not_a_list("ignore: status_ok")]
#[case::reacts_is_not_a_list("roles: { client: { reacts: answer } }")]
#[case::given_is_a_list("roles: { client: { given: [a] } }")]
#[case::opening_that_names_an_actor("roles: { client: { opening: [ { client sends: identify } ] } }")]
#[case::opening_that_expects_nothing("roles: { client: { opening: [ { expects nothing: hello } ] } }")]
#[case::unplayed_role("roles: { client: , other: { opning: [] } }")]
#[case::unplayed_scene("scenes: { scene: , other: { steps: [ { shouts: hello } ] } }")]
#[case::scene_that_checks("scenes: { scene: { steps: [ { check: \"${1 == 1}\" } ] } }")]
#[case::standing_check_without_has("always: [ { every: hello } ]")]
#[case::standing_check_without_rules("always: [ { check: \"${1 == 1}\" } ]")]
#[case::standing_check_of_two_kinds(
    "always: [ { every: hello, check: \"${1 == 1}\", has: { CON-025: { /version: true } }, rules: [CON-025] } ]"
)]
#[case::standing_check_of_nothing("roles: { client: }\nscenes: { scene: }\nalways: [ { has: { CON-025: {} } } ]")]
#[case::standing_check_with_unknown_key("roles: { client: }\nscenes: { scene: }\nalways: [ { each: hello } ]")]
#[case::lifecycle_of_an_unknown_message("always: [ { opens: 3, closes: hello, opened: [CON-025] } ]")]
#[case::lifecycle_without_rules("always: [ { opens: self_fetch, closes: self_fetch_result } ]")]
#[case::lifecycle_that_never_ends("always: [ { opens: self_fetch, carries: self_fetch_result, ended: [CON-025] } ]")]
#[case::lifecycle_with_has(
    "always: [ { opens: self_fetch, closes: self_fetch_result, opened: [CON-025], has: { CON-025: { /seq: true } } } ]"
)]
#[case::fuzz_is_a_list("fuzz: [a]")]
#[case::fuzz_with_unknown_key("fuzz: { rejects: {} }")]
#[case::bystander_is_a_number("fuzz: { bystander: 3 }")]
#[case::open_after_without_messages("fuzz: { open: [ { after: hello } ] }")]
#[case::open_with_an_unknown_key("fuzz: { open: [ { after: hello, messages: [hello], because: x } ] }")]
#[case::state_without_a_scene("roles: { client: }\nfuzz: { state: { is: \"${state.a}\" } }")]
#[case::answer_without_a_class("fuzz: { answers: [ { answer: [ { close: 4002 } ], rules: [CON-009] } ] }")]
#[case::answer_to_an_unknown_class(
    "fuzz: { answers: [ { class: [wrong], answer: [ { close: 4002 } ], rules: [CON-009] } ] }"
)]
#[case::answer_at_an_unknown_placement(
    "fuzz: { answers: [ { class: [invalid], placement: [later], answer: [ { close: 4002 } ], rules: [CON-009] } ] }"
)]
#[case::answer_without_content("fuzz: { answers: [ { class: [invalid], rules: [CON-009] } ] }")]
#[case::answer_without_rules("fuzz: { answers: [ { class: [invalid], answer: [ { close: 4002 } ] } ] }")]
#[case::answer_with_a_name(
    "fuzz: { answers: [ { class: [invalid], answer: [ { message: hello, as: x } ], rules: [CON-009] } ] }"
)]
#[case::no_answers("fuzz: { answers: [ { class: [invalid], answer: [], rules: [CON-009] } ] }")]
fn schema_and_parser_reject_the_same_shared_files(#[case] text: &str) {
    assert_eq!(errors_of_shared("roles: { client: }\nscenes: { scene: }"), [""; 0]);
    assert!(!validator("shared.schema.json").is_valid(&json_of(text)), "the schema accepts it");
    let is_not_about_the_probe = |error: &String| {
        !error.contains("no role `client`")
            && !error.contains("no scene `scene`")
            && !error.contains("no actor `client`")
    };
    assert!(errors_of_shared(text).iter().any(is_not_about_the_probe), "the parser accepts it");
}
