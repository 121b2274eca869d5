//! Shrinking with a predicate instead of a hub. The predicate states what a finding needs, so the smallest result is
//! known.

use rstest::rstest;
use serde_json::json;

use super::{CandidateResult, ShrinkLimits, Shrinker, control_run, count_beyond_opening};
use crate::fuzz::case_scenario::{CaseScenario, CaseStep};
use crate::scenario::parse::verbs::StepVerb;

/// Shrinks a finding as far as possible. Returns the smallest scenario, and how many candidates were played.
fn shrink_fully(finding: &CaseScenario, fails: &dyn Fn(&CaseScenario) -> bool) -> (CaseScenario, usize) {
    assert!(fails(finding));
    let mut shrink = Shrinker::new(finding.clone(), "FUZZ-REJECTS", ShrinkLimits::default());
    while let Some(candidate) = shrink.next_candidate() {
        shrink.record_result(if fails(&candidate) { CandidateResult::StillFails } else { CandidateResult::Differs });
    }
    (shrink.smallest().clone(), shrink.attempts())
}

fn parse_finding(text: &str) -> CaseScenario {
    CaseScenario::of(&json!({
        "title": "A finding",
        "actors": { "innocent": "client", "sender": "client", "crowd": { "role": "client", "count": 9 } },
        "let": { "group": "${unique('group')}" },
        "steps": [
            { "innocent joins": null },
            { "sender joins": null },
            { "crowd join": null },
            { "crowd play": "create_group", "with": { "group": "${group}" } },
            { "each": "i", "in": 8, "do": [{ "sender sends": "ping" }, { "sender expects": "pong" }] },
            { "sender sends raw": { "text": text }, "as": "mutated_input" },
            { "sender expects one of": [{ "message": "error" }], "after": "mutated_input", "rules": ["FUZZ-REJECTS"] },
            { "retry": "5s", "do": [{ "innocent plays": "fence" }], "rules": ["FUZZ-SERVES-OLD"] },
        ],
        "finally": [{ "sender closes": 1000 }],
    }))
}

/// Returns the text that the sender sends, if it sends any.
fn sender_text(scenario: &CaseScenario) -> Option<&str> {
    let raw = scenario.steps.iter().find(|step| step.verb == StepVerb::SendsRaw)?;
    raw.argument.get("text")?.as_str()
}

fn has_head(scenario: &CaseScenario, actor: &str, verb: StepVerb) -> bool {
    scenario.steps.iter().any(|step| step.actor == actor && step.verb == verb)
}

/// Returns the number of rounds of a loop.
fn rounds(step: &CaseStep) -> Option<u64> {
    step.option("in")?.as_u64()
}

#[test]
fn a_shrunk_finding_keeps_only_what_makes_it_fail() {
    let (smallest, attempts) =
        shrink_fully(&parse_finding(r#"{"type":"job","priority":-42,"note":"ä\u00e4 ${group}","x":[1,{}]}"#), &|s| {
            has_head(s, "sender", StepVerb::Joins)
                && sender_text(s).is_some_and(|text| text.contains(r#""priority":-"#))
        });
    let expected = r#"title: 'A finding'
actors: { sender: client }
steps:
  - sender joins:
  - sender sends raw: { text: '{"priority":-1}' }
    as: mutated_input
  - sender expects one of: [{ message: error }]
    after: mutated_input
    rules: [FUZZ-REJECTS]
"#;
    assert_eq!(smallest.text(), expected);
    assert!(attempts < 20, "{attempts} attempts");
}

/// Each predicate requires another property of the text, and only that property may remain.
#[rstest]
#[case::nothing(r#"{"a":{"b":[1,2,3]}}"#, |_: &str| true, "{}")]
#[case::depth("[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]", |text: &str| text.matches('[').count() >= 5, "[[[[[]]]]]")]
#[case::depth_within(r#"{"type":"x","a":{"b":{"c":{"d":{"e":{}}}}}}"#, |text: &str| text.contains("type") && text.matches('{').count() >= 3, r#"{"type":"","a":{"e":{}}}"#)]
#[case::length(r#"{"type":"x","name":"abcdefghijklmnopqrstuvwxyz"}"#, |text: &str| text.len() >= 20, "")]
#[case::items("[1,2,3,4,5,6,7,8,9,10,11,12,13]", |text: &str| text.contains('7') && text.contains("12"), "[7,12]")]
#[case::no_json("{\"type\":\"x\",}", |text: &str| text.contains(",}"), ",}")]
#[case::escape(r#"{"type":"x","n":"abc\ud800def"}"#, |text: &str| text.contains("\\ud800"), r#"{"n":"\ud800"}"#)]
#[case::expression(r#"{"type":"x","n":${json(group)}}"#, |text: &str| text.contains("${json(group)}"), r#"{"n":${json(group)}}"#)]
#[case::often("${repeat('x', 1048576)}", |text: &str| text.strip_prefix("${repeat('x', ").and_then(|t| t.strip_suffix(")}")).and_then(|t| t.parse::<u64>().ok()).is_some_and(|n| n > 1000), "")]
fn shrinking_shortens_payloads(#[case] text: &str, #[case] fails: fn(&str) -> bool, #[case] expected: &str) {
    let (smallest, attempts) = shrink_fully(&parse_finding(text), &|s| sender_text(s).is_some_and(fails));
    let left = sender_text(&smallest).unwrap();
    assert!(attempts < 120, "{attempts} attempts");
    match expected {
        "" => assert!(left.len() <= 24, "{left}"),
        expected => assert_eq!(left, expected),
    }
}

#[test]
fn deep_nesting_is_reduced_to_the_minimum_failing_depth() {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let (smallest, attempts) =
        shrink_fully(&parse_finding(&deep), &|s| sender_text(s).is_some_and(|text| text.matches('[').count() >= 129));
    assert_eq!(sender_text(&smallest).unwrap().matches('[').count(), 129);
    assert!(attempts < 150, "{attempts} attempts");
}

#[test]
fn actor_and_round_counts_are_reduced_to_the_failing_minimum() {
    let (smallest, _) = shrink_fully(&parse_finding("{}"), &|s| {
        let crowd = || s.actors.get("crowd")?.get("count")?.as_u64();
        let rounds = s.steps.iter().find_map(rounds);
        rounds.is_some_and(|n| n >= 3) && crowd().is_some_and(|n| n >= 2) && has_head(s, "crowd", StepVerb::Plays)
    });
    assert_eq!(json!(smallest.actors), json!({ "sender": "client", "crowd": { "role": "client", "count": 2 } }));
    let each = smallest.steps.iter().find(|step| step.verb == StepVerb::Each).unwrap();
    assert_eq!(rounds(each), Some(3));
    assert_eq!(each.inner().len(), 1);
}

/// A loop over mutated input shrinks to fewer rounds and shorter input, while the steps of the oracle stay complete.
#[test]
fn shrinking_reduces_the_rounds_of_mutated_input() {
    let finding = CaseScenario::of(&json!({
        "title": "Slower",
        "actors": { "innocent": "client", "sender": "client" },
        "steps": [
            { "innocent joins": null },
            { "sender joins": null },
            { "each": "round", "in": 20, "do": [{ "sender sends raw": { "text": "{\"type\":\"x\",\"a\":1}" } }] },
            { "retry": "5s", "do": [{ "innocent plays": "fence" }, { "check": "${quick}", "rules": ["FUZZ-STEADY as should", "R-1"] }] },
        ],
    }));
    let mut shrink = Shrinker::new(finding, "FUZZ-STEADY,R-1", ShrinkLimits::default());
    while let Some(candidate) = shrink.next_candidate() {
        let asked = candidate.steps.iter().find(|step| step.verb == StepVerb::Retry).unwrap();
        assert_eq!(asked.inner().len(), 2, "what the oracle asks is cut");
        let rounds = candidate.steps.iter().find_map(rounds).unwrap_or(1);
        shrink.record_result(if rounds >= 6 { CandidateResult::StillFails } else { CandidateResult::Differs });
    }
    let smallest = shrink.smallest();
    let each = smallest.steps.iter().find(|step| step.verb == StepVerb::Each).unwrap();
    assert_eq!(rounds(each), Some(6));
    assert_eq!(each.inner()[0].argument["text"], "{}");
    assert_eq!(count_beyond_opening(smallest), 2);
    let control = control_run(smallest, "FUZZ-STEADY,R-1").unwrap();
    assert_eq!(count_beyond_opening(&control), 1);
}

#[test]
fn unplayable_candidates_are_not_attempts_and_limits_hold() {
    let finding = parse_finding("{}");
    let tried = |limits, answer| {
        let mut shrink = Shrinker::new(finding.clone(), "FUZZ-REJECTS", limits);
        let mut candidates = 0;
        while shrink.next_candidate().is_some() {
            candidates += 1;
            shrink.record_result(answer);
        }
        assert_eq!(*shrink.smallest(), finding);
        (candidates, shrink.attempts())
    };
    let all = tried(ShrinkLimits::default(), CandidateResult::Unplayable).0;
    assert!(all > 10);
    assert_eq!(tried(ShrinkLimits::default(), CandidateResult::Unplayable).1, 0);
    assert_eq!(tried(ShrinkLimits { attempts: 5, candidates: 100 }, CandidateResult::Differs), (5, 5));
    assert_eq!(tried(ShrinkLimits { attempts: 5, candidates: 7 }, CandidateResult::Unplayable), (7, 0));
    assert_eq!(tried(ShrinkLimits::default(), CandidateResult::Differs), (all, all));
}

#[test]
fn shrinking_is_deterministic_for_the_same_results() {
    let ask = || {
        let mut shrink = Shrinker::new(parse_finding(r#"{"a":1,"b":"text"}"#), "FUZZ-REJECTS", ShrinkLimits::default());
        let mut asked = Vec::new();
        while let Some(candidate) = shrink.next_candidate() {
            let text = candidate.text();
            shrink.record_result(if text.len().is_multiple_of(3) {
                CandidateResult::StillFails
            } else {
                CandidateResult::Differs
            });
            asked.push(text);
        }
        asked
    };
    assert_eq!(ask(), ask());
}
