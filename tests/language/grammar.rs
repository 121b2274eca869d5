//! The published schemas of hubproof's own files (schemas/hubproof/) agree with the readers. Readers take the keys of
//! mappings and the options of steps from the schemas. For everything else, both judge the same mistakes.

use std::collections::BTreeSet;
use std::fs;

use hubproof::config;
use hubproof::judge::baseline::parse_baseline;
use hubproof::scenario::functions::FUNCTION_NAMES;
use hubproof::scenario::parse::verbs::{all_words, parse_head};
use hubproof::scenario::{SharedFile, parse};
use hubproof::syntax::diagnostic::{Diagnostic, Severity};
use hubproof::syntax::grammar::FileFormat;
use hubproof::syntax::json_schema::{find_schema_mistakes, visit_schemas};
use hubproof::syntax::matcher::{escape, members_of};
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use jsonschema::{Registry, Validator};
use rstest::rstest;
use serde_json::{Value, json};

use super::reference_examples::{Example, examples};
use crate::load::plan_language;
use crate::support::disk::{self, CONCIERGE};

/// Returns the validator of a format, whose schema may refer to that of scenarios.
pub fn validator(format: FileFormat) -> Validator {
    let base = "https://example.com/";
    let scenario = format!("{base}scenario.schema.json");
    let registry = Registry::new().add(scenario, FileFormat::Scenario.schema()).unwrap().prepare().unwrap();
    jsonschema::draft202012::options()
        .with_registry(&registry)
        .with_base_uri(format!("{base}file.schema.json"))
        .build(format.schema())
        .unwrap()
}

fn json_of(text: &str) -> Value {
    let mut sources = Sources::default();
    let file = sources.add("inline.yaml", text);
    yaml::parse(&sources, file).unwrap_or_else(|diagnostic| panic!("{}", diagnostic.render(&sources, false))).to_json()
}

/// Returns the errors of the reader of a format; `None` if the file cannot be written in its language.
fn reader_errors(format: FileFormat, value: &Value) -> Option<Vec<String>> {
    let mut sources = CONCIERGE.sources.clone();
    let text = match format {
        FileFormat::Target | FileFormat::Baseline => toml::to_string(value).ok()?,
        _ => value.to_string(),
    };
    let file = sources.add("inline", text.clone());
    let root = || yaml::parse(&sources, file).unwrap();
    let pack = &CONCIERGE.pack;
    let found: Vec<Diagnostic> = match format {
        FileFormat::Scenario => parse::parse_scenario_file("concierge/inline", &root(), &CONCIERGE.shared, pack).1,
        FileFormat::Shared => {
            let mut found = Vec::new();
            let shared = SharedFile::parse(root(), pack, &mut found);
            found.extend(shared.check(pack));
            found
        }
        FileFormat::Plan => return Some(plan_language::plan_mistakes(&text).0),
        FileFormat::Target => {
            let secret = |_: &str| Ok("secret".to_owned());
            config::parse(&mut sources, file, &[], &|_| Some("secret".to_owned()), &secret).err().unwrap_or_default()
        }
        FileFormat::Baseline => parse_baseline(&mut sources, file).err().unwrap_or_default(),
    };
    Some(found.into_iter().filter(|d| d.severity == Severity::Error).map(|d| d.message).collect())
}

#[test]
fn every_keyword_of_the_published_schemas_is_known_and_every_key_is_described() {
    for format in [FileFormat::Scenario, FileFormat::Shared] {
        let schema = format.schema();
        assert_eq!(find_schema_mistakes(schema, &[]), [], "{format:?}");
        let mut described = 0;
        visit_schemas(schema, "", &mut |inner, pointer| {
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
                    assert!(described_somewhere, "{format:?}{pointer}/{holder}/{key} has no description");
                    described += 1;
                }
            }
        });
        assert!(described > 20, "{format:?}: {described}");
    }
}

#[test]
fn every_scenario_and_every_example_of_the_book_fits_the_published_schema() {
    let (scenario, shared) = (validator(FileFormat::Scenario), validator(FileFormat::Shared));
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
    assert_eq!(sections, all_words().into_iter().collect());
    for verb in all_words() {
        let options = parse_head(verb).unwrap().verb.options().iter();
        let options: Vec<String> = options.map(|option| format!("`{option}`")).collect();
        let row = steps.lines().find(|line| line.starts_with(&format!("| [`{verb}`]("))).unwrap();
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

/// A target file with every key.
const TARGET: &str = r#"
protocol = "concierge"
url = "ws://127.0.0.1:4000"
connections = 200
patience = "4s"
quiet = "250ms"
restartable = true
exec = "./hub --name x"
provides = ["journal"]
settings = { version = "0.1.0", limits = { groups = 3, names = [1, 2.5] } }
tls = { ca = "ca.pem", insecure = true }
[secrets]
secret = { env = "HUB_SECRET" }
plain = "x"
tokens = { alice = "a", bob = { file = "bob.txt" } }
[[instance]]
name = "with-secret"
url = "wss://127.0.0.1:4001/x?y=z"
exec = "hub"
provides = ["tls"]
settings = { version = "0.2.0" }
secrets = { secret = { file = "secret.txt" } }
hooks = { stop = { command = ["./stop-this"] } }
[hooks.emit]
http = { method = "PUT", url = "http://127.0.0.1:4100/x", headers = { x = "y" }, body = "{}", timeout = "2s" }
[hooks.stop]
command = ["./stop-hub", "--name", "${args.name}"]
timeout = "30s"
"#;

/// Returns valid files of a format.
fn samples(format: FileFormat) -> Vec<Value> {
    let read = |path: &str| json_of(&fs::read_to_string(disk::root().join(path)).unwrap());
    let toml = |text: &str| serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
    match format {
        FileFormat::Scenario => {
            let examples = examples().into_iter().map(|example| example.text);
            examples
                .filter(|text| !text.starts_with("# scenarios/") || text.starts_with("# scenarios/concierge/"))
                .map(|text| json_of(&text))
                .collect()
        }
        FileFormat::Shared => vec![read("scenarios/concierge/shared.yaml")],
        FileFormat::Plan => {
            ["groups", "direct"].map(|name| read(&format!("scenarios/concierge/load/{name}.yaml"))).to_vec()
        }
        FileFormat::Target => vec![toml(TARGET)],
        FileFormat::Baseline => vec![toml("[[known]]\nfailure = \"a/b:C\"\nreason = \"x\"\nflaky = false\n")],
    }
}

fn pointers_in(value: &Value, pointer: &str, found: &mut Vec<String>) {
    found.push(pointer.to_owned());
    for (name, inner) in members_of(value) {
        pointers_in(inner, &format!("{pointer}/{}", escape(&name)), found);
    }
}

/// Returns the file with mistakes, each with a description: another value in a place, a missing or an unknown key.
fn mistakes(sample: &Value) -> Vec<(String, Value)> {
    let others = json!([null, true, 0, -1, 1.5, 70_000, "", "x y", "5d", "/x", [], [3], {}, { "zz": 1 }]);
    let others = others.as_array().unwrap();
    let mut pointers = Vec::new();
    pointers_in(sample, "", &mut pointers);
    let mut all = Vec::new();
    for (number, pointer) in pointers.iter().enumerate() {
        let mut change = |what: String, edit: &dyn Fn(&mut Value)| {
            let mut changed = sample.clone();
            edit(changed.pointer_mut(pointer).unwrap());
            all.push((what, changed));
        };
        // Another value in each place, and each value in some place. For readers, null is no value.
        let other = &others[number * 3 % others.len()];
        if !other.is_null() {
            change(format!("{pointer} is {other}"), &|value| *value = other.clone());
        }
        let members = sample.pointer(pointer).unwrap().as_object();
        for name in members.into_iter().flatten().map(|(name, _)| name) {
            change(format!("{pointer} lacks {name}"), &|value| drop(value.as_object_mut().unwrap().shift_remove(name)));
        }
        if members.is_some() {
            change(format!("{pointer} has zz"), &|value| value["zz"] = json!(1));
        }
    }
    all
}

#[rstest]
#[case(FileFormat::Scenario)]
#[case(FileFormat::Shared)]
#[case(FileFormat::Plan)]
#[case(FileFormat::Target)]
#[case(FileFormat::Baseline)]
fn readers_reject_what_the_published_schema_rejects(#[case] format: FileFormat) {
    let validator = validator(format);
    let (mut rejected, mut disagreements) = (0, Vec::new());
    for sample in samples(format) {
        let wrong: Vec<String> = validator.iter_errors(&sample).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?} in {sample}");
        assert_eq!(reader_errors(format, &sample).unwrap(), [""; 0], "{sample}");
        for (what, file) in mistakes(&sample) {
            let errors = (!validator.is_valid(&file)).then(|| reader_errors(format, &file)).flatten();
            let Some(errors) = errors else { continue };
            rejected += 1;
            if errors.is_empty() {
                let error = validator.iter_errors(&file).next().map(|error| error.to_string());
                disagreements.push(format!("{what}: {}", error.unwrap_or_default()));
            }
        }
    }
    assert!(rejected > 5, "{rejected}");
    assert!(disagreements.is_empty(), "{} of {rejected}:\n{}", disagreements.len(), disagreements.join("\n"));
}
