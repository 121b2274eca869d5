//! The language of load plans: rejected plans and their messages, the published schema, and the examples of its page.

use std::fs;

use hubproof::load::compile::lint::lint;
use hubproof::load::plan::{self, PlanOverrides};
use hubproof::syntax::diagnostic::{Severity, render_all};
use hubproof::syntax::grammar::FileFormat;
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use rstest::rstest;
use serde_json::Value;

use crate::language::grammar;
use crate::support::disk::{self, CONCIERGE};
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
                _ => Err("there is no such file".to_owned()),
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

#[rstest]
#[case("[]", "a load plan must be a mapping")]
#[case("title: t\n", "has no `roles`")]
#[case("roles: { client: { population: 1 } }", "has no `title`")]
#[case("title: t\nspeed: 1\nroles: { client: { population: 1 } }", "a load plan has no key `speed`")]
#[case("title: t\nphases: { warm_up: 5 }\nroles: { client: { population: 1 } }", "`warm_up` has no unit")]
#[case("title: t\nroles: { client: {} }", "the role `client` has no `population`")]
#[case("title: t\nroles: { client: { population: 0 } }", "from 1 to")]
#[case("title: t\nroles: { client: { population: 1, plays: clint } }", "has no role `clint`")]
#[case("title: t\nroles: { client: { population: 1, after: client } }", "no role before this one has this name")]
#[case("title: t\nfeeders: { f: nowhere.csv }\nroles: { client: { population: 1 } }", "failed to read nowhere.csv")]
#[case(
    "title: t\nthresholds: [{ abort_after: 5s }]\nroles: { client: { population: 1 } }",
    "a threshold has no `check`"
)]
#[case(&plan_with_role("population: 1\nramp: 1s\nrate: 5"), "`ramp` or `rate`, not both")]
#[case(&plan_with_role("population: 1\narrivals: 5"), "has `arrivals` but no `steps`")]
#[case(&plan_with_role("population: 1\narrivals: fast"), "`arrivals` must be a rate")]
#[case(&plan_with_role("population: 1\narrivals: { spacing: wide, rate: 1 }\nsteps: [ { sends: self_fetch } ]"), "`spacing` cannot be `wide`")]
#[case(&plan_with_role("population: 1\narrivals: { stages: [ { to: 5 } ] }\nsteps: [ { sends: self_fetch } ]"), "a stage has no `for`")]
#[case(&plan_with_role("population: 1\narrivals: 5\npace: 1s\nsteps: [ { sends: self_fetch } ]"), "with `arrivals`, the schedule decides when journeys begin")]
#[case(&plan_with_role("population: 1\npace: { every: 1s, missed: skiped }\nsteps: [ { sends: self_fetch } ]"), "`missed` cannot be `skiped`")]
#[case("title: t\nphases: { warm_up: automatic }\nroles: { client: { population: 1 } }", "`automatic` is not a time")]
#[case(
    "title: t\nphases: { warm_up: auto }\nroles: { client: { population: 1, arrivals: { stages: [ { from: 0, to: 5, for: 1s } ] }, steps: [ { sends: self_fetch } ] } }",
    "`warm_up: auto` waits for a steady load"
)]
#[case(&plan_with_role("population: 1\nwith: { nam: x }"), "the role has no `given` value `nam`")]
#[case(&plan_with_role("population: 1\nsteps: [ { sends: self_fech } ]"), "has no message `self_fech`")]
#[case(&plan_with_role("population: 1\nsteps: [ { expects: self_fetch } ]"), "a hub never sends `self_fetch`")]
#[case(&plan_with_role("population: 1\nsteps: [ { sends: group_create, with: { nam: x } } ]"), "")]
#[case(&plan_with_role("population: 1\nsteps: [ { sends: group_create, with: { name: \"${groop}\" } } ]"), "no name `groop` is in scope")]
#[case(&plan_with_role("population: 1\nsteps: [ { anna sends: self_fetch } ]"), "steps of a load plan cannot name an actor")]
#[case(&plan_with_role("population: 1\nsteps: [ { check: \"${1}\" } ]"), "`check` is not allowed in a load plan")]
#[case(&plan_with_role("population: 1\nsteps: [ { wait: 1s, because: x } ]"), "a load plan cannot use this form of")]
#[case(&plan_with_role("population: 1\nsteps: [ { expects: hello, count: 2 } ]"), "a load plan cannot use this form of")]
#[case(&plan_with_role("population: 1\nsteps: [ { thinks: { unifrom: [1s, 2s] } } ]"), "there is no distribution `unifrom`")]
#[case(&plan_with_role("population: 1\nsteps: [ { thinks: { uniform: [2s, 1s] } } ]"), "the second bound is below the first")]
#[case(&plan_with_role("population: 1\nsteps: [ { sometimes: 120%, do: [] } ]"), "must be a share from 0% to 100%")]
#[case(&plan_with_role("population: 1\nsteps: [ { repeats: 0, do: [] } ]"), "from 1 to 1000")]
#[case(&plan_with_role("population: 1\nsteps: [ { sends: self_fetch, marks: atempted } ]"), "`marks` cannot be `atempted`")]
#[case(&plan_with_role("population: 1\nsteps: [ { sends: self_fetch, marks: published } ]"), "a published message needs `to`, the number of receivers")]
#[case(&plan_with_role("population: 1\nsteps: [ { sends: self_fetch, may stay unanswered: true } ]"), "is not an option of this step")]
#[case(&plan_with_role("population: 1\nsteps: [ { connects: } ]"), "a client can connect only in its opening")]
#[case(&plan_with_role("population: 1\nmeanwhile: [ { every: 1s } ]"), "this activity has no steps")]
#[case(&plan_with_role("population: 1\nmeanwhile: [ { do: [ { sends: self_fetch } ] } ]"), "`every` or `whenever`")]
#[case(&plan_with_role("population: 1\nmeanwhile: [ { whenever: hello, do: [ { expects: hello } ] } ]"), "a reaction cannot wait")]
fn plan_mistakes_are_found_before_the_run(#[case] text: &str, #[case] expected: &str) {
    let (messages, shown) = plan_mistakes(text);
    if expected.is_empty() {
        // Unknown members are allowed, with a warning.
        return assert!(messages.is_empty() && shown.contains("warning"), "{shown}");
    }
    assert!(messages.iter().any(|message| message.contains(expected)), "{shown}");
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
