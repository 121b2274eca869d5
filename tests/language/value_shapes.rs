//! Members and messages that an expression cannot use are reported before the run; mistakes that only a run reveals are
//! reported at their place.

use hubproof::outcome::Verdict;
use rstest::rstest;

use crate::support::mini_protocol::{
    PLAIN_ROLES, answering_hub, changed_scenario_diagnostics, diagnostics_of_scenarios, lint_hints, play, play_changed,
    worst_verdict,
};

/// Returns the document with closed schemas for `ask` and `answer`; `notice` and `tick` stay open.
fn closed_document(document: &str) -> String {
    let ask = "{ type: object, additionalProperties: false, required: [type], properties: { type: { const: ask }, n: { type: integer }, text: { type: string }, list: { type: array, items: { type: integer } } }, examples: [ { type: ask, n: 1 } ] }";
    let answer = "{ type: object, additionalProperties: false, required: [type], properties: { type: { const: answer }, text: { type: string }, user: { type: object, properties: { name: { type: string } }, additionalProperties: false }, any: {} }, examples: [ { type: answer } ] }";
    document.replace("{ examples: [ { type: ask, n: 1 } ] }", ask).replace("{ examples: [ { type: answer } ] }", answer)
}

/// Returns the diagnostics of steps in which anna has sent `asked` and received `reply`, a notice and a list of ticks.
fn diagnostics(shared: &str, steps: &str) -> String {
    let scenario = format!(
        "title: T
actors: {{ anna: client, crowd: {{ role: client, count: 2 }} }}
let: {{ known: {{ a: {{ b: 1 }} }}, count: \"${{1 + 1}}\" }}
steps:
  - anna joins:
  - crowd join:
  - anna sends: ask
    as: asked
  - anna expects: answer
    as: reply
  - anna expects: notice
    as: told
  - anna expects: tick
    count: 2
    as: ticks
  - crowd expect: answer
    as: heard
{steps}"
    );
    changed_scenario_diagnostics(closed_document, &format!("{PLAIN_ROLES}{shared}"), &scenario)
}

fn check(expression: &str) -> String {
    format!("  - check: \"${{{expression}}}\"\n    rules: [MUST]\n")
}

#[test]
fn members_that_a_value_cannot_have_are_reported_at_their_place() {
    let mistakes = [
        ("an element of an object", "reply[1]"),
        ("a member that a closed object lacks", "reply.usr.name == 'x'"),
        ("a member of a member", "'x' in reply.user.nam"),
        ("a member of a text", "reply.text.length > 3"),
        ("a member of a sent message", "asked.m"),
        ("a member of a number", "asked.n.value"),
        ("a member of an array", "asked['list']['first']"),
        ("a member of a list of messages", "ticks.n"),
        ("a member of what a group received", "heard.text"),
        ("a member in a list", "heard[0].txt"),
        ("text in a subtraction", "1 - reply.text"),
        ("a list in a division", "asked.list / 2 == 1"),
        ("a member that is written out", "known.a.c"),
        ("frames outside of `always`", "frames('tick') | length"),
    ];
    let one = |(what, expression): &(&str, &str)| {
        let found = diagnostics("", &check(expression));
        assert!(found.starts_with("error"), "not noticed: {what}\n{found}");
        format!("## {what}\n\n{found}")
    };
    insta::assert_snapshot!(mistakes.iter().map(one).collect::<Vec<_>>().join("\n\n\n"));
}

/// A schema that does not rule a member out allows it, and an expression may test for any member.
#[rstest]
#[case("reply.user.name")]
#[case("reply.any.thing[3]")]
#[case("told.whatever.it[0].is")]
#[case("ticks[0].n")]
#[case("ticks | map(attribute='n')")]
#[case("heard[1].text")]
#[case("reply.extra is defined")]
#[case("reply['extra'] is not defined")]
#[case("reply.extra | default(1)")]
#[case("reply.extra is defined and reply.extra.more == 1")]
#[case("known.a.b")]
#[case("asked.list[0]")]
#[case("asked.text | length")]
fn members_that_a_value_may_have_are_accepted(#[case] expression: &str) {
    assert_eq!(diagnostics("", &check(expression)), "");
}

#[test]
fn members_of_a_broken_message_are_not_known() {
    let steps = "  - anna sends: ask\n    with: { extra: { a: 1 } }\n    breaks: it has more\n    as: more\n";
    assert_eq!(diagnostics("", &format!("{steps}{}", check("more.extra.a"))), "");
}

#[test]
fn the_values_of_a_loop_and_of_an_opening_are_known() {
    let loop_steps = "  - each: row\n    in: [ { a: 1 }, { b: 2 } ]\n    do:\n      - check: \"${row.a is defined or row.b}\"\n        rules: [MUST]\n      - check: \"${row.c}\"\n        rules: [MUST]\n";
    let found = diagnostics("", loop_steps);
    assert!(found.contains("`row` has no member `c`"), "{found}");
    assert_eq!(found.matches("error").count(), 1, "{found}");
    let shared = "roles: { client: { opening: [ { connects: }, { expects: answer, as: hello } ] } }\n";
    let scenario =
        format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n{}", check("anna.hello.txt"));
    let found = changed_scenario_diagnostics(closed_document, shared, &scenario);
    assert!(found.contains("`anna.hello` has no member `txt`"), "{found}");
    assert!(found.contains("did you mean `text`?"), "{found}");
}

#[test]
fn messages_that_are_never_received_are_reported_in_always() {
    let always = |entry: &str| diagnostics(&format!("always:\n{entry}"), "");
    let check = |value: &str| always(&format!("  - check: \"${{{value}}}\"\n    equals: 0\n    rules: [MUST]\n"));
    let found = [
        check("frames('anser') | length"),
        check("frames('ask') | length"),
        check("frames('answer') | map(attribute='user.nam') | list"),
        check("frames('answer') | selectattr('txt') | list"),
        always("  - every: ask\n    has: { MUST: { n: 1 } }\n"),
    ];
    insta::assert_snapshot!(found.join("\n\n\n"));
    assert_eq!(check("frames('notice') | map(attribute='whatever') | list"), "");
}

#[test]
fn a_reaction_to_a_message_that_a_hub_never_sends_is_reported() {
    let reaction = |message: &str| {
        let reactions = format!("reactions: {{ r: {{ whenever: {message}, do: [ {{ sends: ask }} ] }} }}\n");
        diagnostics(&reactions, "")
    };
    let found = reaction("ask");
    assert!(found.contains("warning: a hub never sends `ask`, so this reaction never happens"), "{found}");
    assert_eq!(reaction("notice"), "");
}

/// The mistake of a step is reported where the step is, even if the step is in an opening of shared.yaml.
#[test]
fn a_mistake_at_run_time_is_reported_at_its_step() {
    let scenario = "title: T\nactors: { anna: client }\nlet: { text: words }\nsteps:\n  - anna joins:\n  - anna sends: ask\n    with: { n: \"${text - 1}\" }\n";
    let report = play(PLAIN_ROLES, scenario, answering_hub("{}"));
    let at = report.mistake_at.unwrap_or_else(|| panic!("{:?}", report.mistake));
    assert_eq!(&scenario[at.range()], "anna sends");

    let shared = "roles: { client: { given: { text: words }, opening: [ { connects: }, { sends: ask, with: { n: \"${self.text - 1}\" } } ] } }\n";
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n";
    let report = play(shared, scenario, answering_hub("{}"));
    let at = report.mistake_at.unwrap_or_else(|| panic!("{:?}", report.mistake));
    assert_eq!(&shared[at.range()], "sends");

    let scenario =
        "title: T\nactors: { anna: client }\nlet: { text: words, n: \"${text - 1}\" }\nsteps:\n  - anna joins:\n";
    let report = play(PLAIN_ROLES, scenario, answering_hub("{}"));
    let at = report.mistake_at.unwrap_or_else(|| panic!("{:?}", report.mistake));
    assert_eq!(&scenario[at.range()], "text - 1");
}

/// A message that its matcher recognises may be a special form of it, with members of its own.
#[test]
fn a_special_form_of_a_message_has_its_own_members() {
    let document = |text: &str| {
        closed_document(text).replace(
            "notice: { payload: { examples: [ { type: notice } ] }, x-hubproof: { match: { type: notice } } }",
            "notice: { payload: { type: object, properties: { type: {}, ok: {}, more: {} }, additionalProperties: false, examples: [ { type: answer, ok: true, more: 1 } ] }, x-hubproof: { match: { type: answer, ok: true } } }",
        )
    };
    let scenario = "title: T\nactors: { anna: client }\nsteps:\n  - anna joins:\n  - anna sends: ask\n  - anna expects: answer\n    as: reply\n  - check: \"${reply.more}\"\n    equals: 1\n    rules: [MUST]\n";
    let report =
        play_changed(document, PLAIN_ROLES, scenario, answering_hub(r#"{"type":"answer","ok":true,"more":1}"#));
    assert_eq!(worst_verdict(&report, "MUST"), Verdict::Pass);
}

/// What other clients do before the hub is known to have taken note of a client may pass that client by.
#[rstest]
#[case::connection(
    "  - anna joins:\n  - ben joins:\n  - ben sends: ask\n  - anna expects: notice\n    rules: [MUST]\n",
    "1 steps rely on connections of `client`"
)]
#[case::departure(
    "  - anna joins:\n    with: { name: \"${name}\" }\n  - ben joins:\n  - anna closes: 1000\n  - ben sends: ask\n    with: { n: \"${name}\" }\n  - ben expects: answer\n    rules: [MUST]\n",
    "this step relies on the departure of `anna`"
)]
#[case::none_after_a_round_trip(
    "  - anna joins:\n  - anna sends: ask\n  - anna expects: answer\n  - ben joins:\n  - ben sends: ask\n  - anna expects: notice\n    rules: [MUST]\n",
    ""
)]
#[case::none_for_the_answer_to_an_own_request(
    "  - anna joins:\n  - ben joins:\n  - anna sends: ask\n  - ben sends: ask\n  - anna expects: answer\n    rules: [MUST]\n",
    ""
)]
#[case::none_for_an_answer_that_repeats_a_value(
    "  - anna joins:\n  - ben joins:\n  - anna sends: ask\n    as: asked\n  - ben sends: ask\n  - anna expects: answer\n    where: { n: \"${asked.n}\" }\n    rules: [MUST]\n",
    ""
)]
#[case::none_that_is_retried(
    "  - anna joins:\n    with: { name: \"${name}\" }\n  - ben joins:\n  - anna closes: 1000\n  - retry: 1s\n    do:\n      - ben sends: ask\n        with: { n: \"${name}\" }\n      - ben expects: answer\n    rules: [MUST]\n",
    ""
)]
fn steps_that_need_the_hub_to_take_note_of_other_clients_are_reported(#[case] steps: &str, #[case] expected: &str) {
    let roles = "roles: { client: { given: { name: x }, opening: [ { connects: } ] } }\n";
    let scenario = format!(
        "title: T\nactors: {{ anna: client, ben: client }}\nlet: {{ name: \"${{unique('n')}}\" }}\nsteps:\n{steps}"
    );
    let found = lint_hints(roles, &scenario);
    assert!(if expected.is_empty() { found.is_empty() } else { found.contains(expected) }, "{found}");
    let fenced = roles.replace("opening", "fence: pause, opening");
    assert_eq!(lint_hints(&fenced, &scenario), "");
}

/// Returns the diagnostics of a pack with a login, for these shared.yaml and steps of scenarios.
fn login_diagnostics(shared: &str, scenarios: &[&str]) -> String {
    let document = |text: &str| {
        let login =
            "login: { payload: { examples: [ { type: login, token: x } ] }, x-hubproof: { match: { type: login } } }";
        text.replace("      ask: { $ref", "      login: { $ref: '#/components/messages/login' }\n      ask: { $ref")
            .replace(
                "messages: [ { $ref: '#/channels/hub/messages/ask' } ]",
                "messages: [ { $ref: '#/channels/hub/messages/ask' }, { $ref: '#/channels/hub/messages/login' } ]",
            )
            .replace("components:\n  messages:\n", &format!("components:\n  messages:\n    {login}\n"))
    };
    let texts: Vec<String> = scenarios
        .iter()
        .map(|steps| format!("title: T\nactors: {{ anna: client }}\nsteps:\n  - anna joins:\n{steps}"))
        .collect();
    diagnostics_of_scenarios(document, shared, &texts.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_role_that_only_connects_although_its_scenarios_log_in_first_is_reported() {
    let login = "  - anna sends: login\n  - anna sends: ask\n  - anna expects: answer\n    rules: [MUST]\n";
    let found = login_diagnostics(PLAIN_ROLES, &[login; 3]);
    assert!(
        found.contains("`client` only connects, but 3 of its 3 scenarios that send something begin with `login`"),
        "{found}"
    );
    assert!(found.contains("shared.yaml:1:10"), "{found}");
    let scene = "scenes: { enter: { steps: [ { sends: login } ] } }\n";
    let played = "  - anna plays: enter\n  - anna sends: ask\n";
    let found = login_diagnostics(&format!("{PLAIN_ROLES}{scene}"), &[played; 3]);
    assert!(found.contains("begin with `login`"), "{found}");
}

#[rstest]
#[case::too_few(PLAIN_ROLES, &["  - anna sends: login\n  - anna sends: ask\n"; 2])]
#[case::nothing_follows(PLAIN_ROLES, &["  - anna sends: login\n"; 4])]
#[case::other_beginnings(PLAIN_ROLES, &["  - anna sends: login\n  - anna sends: ask\n", "  - anna sends: login\n  - anna sends: ask\n", "  - anna sends: login\n  - anna sends: ask\n", "  - anna sends: ask\n", "  - anna sends: ask\n"])]
#[case::not_a_login(PLAIN_ROLES, &["  - anna sends: ask\n  - anna sends: login\n"; 3])]
#[case::sent_in_an_opening(
    "roles: { client: { opening: [ { connects: } ] }, member: { opening: [ { connects: }, { sends: login } ] } }\n",
    &["  - anna sends: login\n  - anna sends: ask\n  - member joins:\n"; 3]
)]
fn a_role_that_need_not_log_in_is_not_reported(#[case] shared: &str, #[case] scenarios: &[&str]) {
    assert_eq!(login_diagnostics(shared, scenarios), "");
}
