//! The language of load plans: rejected plans and their messages, the published schema, and the examples of its page.

use std::fs;

use hubproof::load::compile::lint::lint;
use hubproof::load::plan::{self, PlanOverrides};
use hubproof::syntax::diagnostic::{Severity, render_all};
use hubproof::syntax::grammar::FileFormat;
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use serde_json::Value;

use crate::language::grammar;
use crate::support::disk::{self, CONCIERGE};
use crate::support::samples::samples;
use crate::support::sim_load::{CompiledTestPlan, PlanSource, parse_test_plan, run};

/// The diagnostics of a plan for the concierge: the messages, and all of them rendered.
pub fn plan_mistakes(text: &str) -> (Vec<String>, String) {
    let mut sources = CONCIERGE.sources.clone();
    let file = sources.add("plan.yaml", text);
    let diagnostics = match yaml::parse(&sources, file) {
        Err(diagnostic) => vec![diagnostic],
        Ok(root) => {
            let files = |path: &str| match path {
                "rows.csv" => Ok("name\nanna\n".to_owned()),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            };
            plan::parse_load_plan("plan", &root, &CONCIERGE.shared, &CONCIERGE.pack, &files).1
        }
    };
    let shown = render_all(&diagnostics, &sources, false);
    (diagnostics.into_iter().filter(|d| d.severity == Severity::Error).map(|d| d.message).collect(), shown)
}

/// A plan with one role.
fn plan_with_role(body: &str) -> String {
    let body: String = body.lines().map(|line| format!("    {line}\n")).collect();
    format!("title: t\nroles:\n  client:\n{body}")
}

/// A title is the expected message.
#[test]
fn plan_mistakes_are_found_before_the_run() {
    for (expected, text) in samples(include_str!("../fixtures/mistakes/plans.txt")) {
        let (messages, shown) = plan_mistakes(text);
        assert!(messages.iter().any(|message| message.contains(expected)), "{expected}: {shown}");
    }
}

#[test]
fn an_undocumented_member_in_a_plan_is_a_warning() {
    let (messages, shown) =
        plan_mistakes(&plan_with_role("population: 1\nsteps: [ { sends: group_create, with: { nam: x } } ]"));
    assert!(messages.is_empty() && shown.contains("warning"), "{shown}");
}

#[test]
fn a_mistake_in_a_plan_is_shown_with_its_place_and_advice() {
    let (_, shown) =
        plan_mistakes("title: t\nroles:\n  client:\n    population: 1\n    steps:\n      - sends: self_fech\n");
    insta::assert_snapshot!(shown, @r"
    error: concierge has no message `self_fech`
     --> plan.yaml:6:16
      |
    6 |       - sends: self_fech
      |                ^^^^^^^^^
      |
      = help: did you mean `self_fetch`? `hubproof packs show concierge` lists all 34 messages
    ");
}

fn schema_errors(text: &str) -> Vec<String> {
    let mut sources = Sources::default();
    let file = sources.add("plan.yaml", text);
    let value = yaml::parse(&sources, file).unwrap().to_json();
    let errors = grammar::validator(FileFormat::Plan);
    errors.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn every_plan_conforms_to_the_published_schema() {
    let mut count = 0;
    for protocol in disk::protocols() {
        for path in disk::files_under(&disk::root().join("scenarios").join(protocol).join("load")) {
            assert_eq!(schema_errors(&fs::read_to_string(&path).unwrap()), [""; 0], "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 8, "{count}");
    assert_eq!(schema_errors(plan::IDLE_PLAN), [""; 0]);
    for example in examples() {
        assert_eq!(schema_errors(&example), [""; 0], "{example}");
    }
}

/// The plans in the examples of the page.
fn examples() -> Vec<String> {
    let page = fs::read_to_string(disk::root().join("docs/src/load-plans.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    blocks.map(|(block, _)| block.to_owned()).collect()
}

#[test]
fn the_examples_of_the_load_plans_page_run() {
    let examples = examples();
    assert!(!examples.is_empty());
    for example in examples {
        let protocol = example.split('/').nth(1).unwrap().to_owned();
        let ready = CompiledTestPlan::new(&protocol, &PlanSource::Text(&example), &PlanOverrides::default());
        let observed = run(&ready, 1_000_000, &mut |now, _, _| vec![now + 1_000_000]);
        assert_eq!(observed.faults.len(), 0, "{:?}", observed.faults);
        assert_eq!(observed.account.cancelled, observed.account.attempted, "{:?}", observed.account);
        assert!(observed.account.attempted > 100);
    }
}

/// Which expressions are slots, and when the others are evaluated.
#[test]
fn expressions_evaluated_during_the_run_are_listed() {
    let text = plan_with_role(concat!(
        "population: 1\n",
        "steps:\n",
        "  - sends: group_create\n",
        "    with: { name: \"g-${self.turn}\", nickname: \"${unique('a') ~ self.name}\" }\n",
        "  - expects: status_group_created\n",
        "    as: created\n",
        "  - sends: group_delete\n",
        "    with: { name: \"${created.name | upper}\" }\n",
        "  - sends: group_fetch\n",
        "    with: { name: \"${'x' ~ self.index}\" }\n",
    ));
    let ready = CompiledTestPlan::new("concierge", &PlanSource::Text(&text), &PlanOverrides::default());
    let (_, _, mut sources, _) =
        parse_test_plan("concierge", &PlanSource::Text("title: t\nroles: { client: { population: 1 } }"));
    sources.add("plan.yaml", text);
    let observed: Vec<&str> = ready.prepared.remarks.iter().map(|remark| remark.text.as_str()).collect();
    assert_eq!(
        observed,
        [
            "`unique('a') ~ self.name` is evaluated before each journey is due",
            "`created.name | upper` is evaluated when the frame it uses has been received, and delays the next message",
            "`'x' ~ self.index` is evaluated once for each client",
        ]
    );
    assert_eq!(lint(&ready.prepared, &sources).len(), 3);
}

#[test]
fn rows_of_a_feeder_are_taken_in_turn() {
    let text = format!(
        "{}feeders: {{ rows: rows.csv }}\n",
        plan_with_role(
            "population: 2\ntimes: 3\nsteps:\n  - sends: group_create\n    with: { name: \"${rows.name}-${self.index}-${self.turn}\" }\n    as: asked\n  - expects: status_group_created\n    where: { name: \"${asked.name}\" }"
        )
    );
    let ready = CompiledTestPlan::new("concierge", &PlanSource::Text(&text), &PlanOverrides::default());
    let mut names = Vec::new();
    let observed = run(&ready, 0, &mut |now, _, text| {
        let frame: Value = serde_json::from_str(text).unwrap();
        if frame["code"] == "GROUP_CREATED" {
            names.push(frame["name"].as_str().unwrap().split('-').next().unwrap().to_owned());
        }
        vec![now]
    });
    assert_eq!(observed.faults.len(), 0, "{:?}", observed.faults);
    names.sort();
    // Each row was used by both clients; every connected client was notified of the group, and the second client began
    // when the first had finished.
    assert_eq!(names, ["first", "first", "first", "second", "second", "second", "third", "third", "third"]);
}
