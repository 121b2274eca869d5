use std::collections::BTreeSet;

use base64::Engine as _;
use regex::Regex;
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::fixture::{RunFixture, options};
use super::*;

fn json_of(run: &RunFixture) -> Value {
    serde_json::from_str(&crate::report::json::render(&run.report(options()), &run.sources)).unwrap()
}

fn page_of(documents: &[(&str, &Value)]) -> Result<String, HtmlError> {
    let report =
        |(name, document): &(&str, &Value)| NamedReport { name: (*name).to_owned(), text: document.to_string() };
    let reports: Vec<NamedReport> = documents.iter().map(report).collect();
    render(&reports, |_, _| Err("no comparison".to_owned()))
}

/// Returns headings, and ids of elements that links can lead to, in their order.
fn outline(page: &str) -> String {
    let parts = Regex::new(r#"<(h[1-6])[^>]*>(.*?)</h[1-6]>|<(?:article|tr|section|div)[^>]* id="([^"]*)""#).unwrap();
    let markup = Regex::new("<[^>]*>").unwrap();
    let line = |found: regex::Captures<'_>| match found.get(1) {
        Some(level) => format!("{} {}\n", level.as_str(), markup.replace_all(&found[2], "").trim()),
        None => format!("   #{}\n", &found[3]),
    };
    parts.captures_iter(page).map(line).collect()
}

/// Asserts that a page contains texts, in this order.
fn assert_in_order(page: &str, texts: &[&str]) {
    let mut at = 0;
    for text in texts {
        let found = page[at..].find(text);
        at += found.unwrap_or_else(|| panic!("`{text}` is missing after {} bytes of {page}", at));
    }
}

#[test]
fn the_outline_of_one_failure_matches_the_snapshot() {
    insta::assert_snapshot!(
        "one_failure",
        outline(&page_of(&[("run", &json_of(&RunFixture::one_failure()))]).unwrap())
    );
}

#[test]
fn a_failure_shows_its_rule_evidence_conversation_and_command() {
    let document = json_of(&RunFixture::schema_broken());
    let page = page_of(&[("run", &document)]).unwrap();
    let finding = &document["protocols"][0]["findings"][0];
    let rule = &document["protocols"][0]["rules"]["by_id"]["GRE-004"];
    assert_in_order(
        &page,
        &[
            "Broken rules, by root cause",
            "Reproduce",
            finding["reproduce"].as_str().unwrap(),
            rule["text"].as_str().unwrap(),
            "of “",
            "Scenario",
            "Sent by anna",
            "Expected",
            "Received",
            "Conversation",
            "Checks by rule",
        ],
    );
}

#[test]
fn a_wrong_member_is_marked_in_the_received_message_and_in_the_conversation() {
    let mut document = json_of(&RunFixture::schema_broken());
    for finding in document["protocols"][0]["findings"].as_array_mut().unwrap() {
        finding["detail"]["place"] = json!("/at");
    }
    for scenario in document["protocols"][0]["scenarios"]["list"].as_array_mut().unwrap() {
        let history = scenario["history"].as_array_mut().unwrap();
        let received = |frame: &&mut Value| frame["direction"] == "received" && frame["actor"] == "anna";
        if let Some(frame) = history.iter_mut().find(received) {
            frame["text"] = json!(r#"{"say":"welcome","at":"now"}"#);
        }
    }
    let page = page_of(&[("run", &document)]).unwrap();
    assert_in_order(
        &page,
        &["−</b>", "&quot;at&quot;: a number", "+</b>", "&quot;at&quot;: &quot;now&quot;", "this frame"],
    );
    assert_eq!(page.matches("class=\"received marked\"").count(), page.matches("this frame").count());
}

#[test]
fn a_finding_of_fuzz_shows_the_conversation_to_which_it_was_shrunk() {
    let mut document = json_of(&RunFixture::schema_broken());
    let frame = json!({
        "at_ms": 7.0, "actor": "probe", "connection": 1, "direction": "received", "kind": "text",
        "text": "{\"only\": \"this\"}", "size": 16, "hash": null,
    });
    let shrunk = json!({
        "path": "findings/one.yaml", "reproduce": "hubproof fuzz --replay findings/one.yaml", "attempts": 12,
        "message": "at is not a number", "detail": null, "history": [frame], "history_dropped": 0,
    });
    let scenarios = document["protocols"][0]["scenarios"]["list"].as_array().unwrap().len();
    document["protocols"][0]["fuzzed"] = json!({
        "seed": 1, "cases": 9, "decided": 9, "after_opening_percent": 100.0, "judged_percent": 100.0, "answered": 9,
        "oracles": {}, "cells": [], "omitted": [], "unused_steps": [], "obstacles": [], "ended": null, "stuck": null,
        "slower": null, "unconfirmed": 0,
        "causes": vec![json!({"shape": "", "cases": 1, "numbers": [3], "shrunk": shrunk}); scenarios],
    });
    let page = page_of(&[("run", &document)]).unwrap();
    assert_in_order(
        &page,
        &[
            "Reproduce",
            "Smallest conversation",
            "findings/one.yaml after 12 attempts",
            "&quot;only&quot;",
            "--replay findings/one.yaml",
            "Conversation in which it was found",
        ],
    );
}

/// A report may come from a stranger, so a link is an address on the web.
#[rstest]
#[case::line("https://example.org/spec.md?plain=1#L{line}", Some("https://example.org/spec.md?plain=1#L7"))]
#[case::whole("http://example.org/a\"b", Some("http://example.org/a&quot;b"))]
#[case::section("https://example.org/#{section}", None)]
#[case::script("javascript:alert({line})", None)]
fn the_place_of_a_rule_is_a_link_if_the_pack_has_one(#[case] link: &str, #[case] expected: Option<&str>) {
    let mut document = json_of(&RunFixture::schema_broken());
    document["protocols"][0]["pack"]["link"] = json!(link);
    for rule in document["protocols"][0]["rules"]["by_id"].as_object_mut().unwrap().values_mut() {
        rule["line"] = json!(7);
    }
    let page = page_of(&[("run", &document)]).unwrap();
    let linked = |address: &str| {
        page.replace("&#x2f;", "/").contains(&format!("<a href=\"{address}\" rel=\"noreferrer\">must, "))
    };
    match expected {
        Some(address) => assert!(linked(address), "{page}"),
        None => assert!(!page.contains("noreferrer"), "{page}"),
    }
}

/// Earlier versions wrote reports without these members.
#[test]
fn a_report_of_an_earlier_version_has_a_page() {
    fn remove_members(value: &mut Value) -> usize {
        match value {
            Value::Array(items) => items.iter_mut().map(remove_members).sum(),
            Value::Object(members) => {
                let missing = ["decided", "at_ms", "place", "cut", "shrunk"];
                let earlier = members.contains_key("status") || members.contains_key("received");
                let removed = missing.iter().filter(|name| earlier && members.remove(**name).is_some()).count();
                removed + members.values_mut().map(remove_members).sum::<usize>()
            }
            _ => 0,
        }
    }
    let mut document = json_of(&RunFixture::one_failure());
    assert!(remove_members(&mut document) > 2);
    assert!(page_of(&[("run", &document)]).unwrap().contains("Reproduce"));
}

/// Every text of a report but those that select how others are shown.
fn fill(value: &mut Value, with: &str) {
    match value {
        Value::String(text) => text.push_str(with),
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, with)),
        Value::Object(members) => {
            for (name, member) in members {
                if !matches!(
                    name.as_str(),
                    "format" | "verdict" | "status" | "standing" | "direction" | "kind" | "level" | "basis"
                ) {
                    fill(member, with);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn text_of_a_hub_neither_runs_nor_hides() {
    let mut document = json_of(&RunFixture::one_failure());
    let evil = "</script></style><script>x()</script><img src=x onerror=\"x()\">'\u{202e}\u{200b}\u{1b}[2J\u{0}\u{2028}\u{e0041}";
    fill(&mut document, evil);
    let page = page_of(&[(evil, &document)]).unwrap();
    assert_eq!(page.matches("<script").count(), 1, "the page has one script");
    assert_eq!(page.matches("<img").count(), 0);
    assert_eq!(page.matches("</style>").count(), 1);
    let hidden: BTreeSet<char> =
        page.chars().filter(|c| crate::report::text::is_unprintable(*c) && !matches!(c, '\n' | '\t')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
    for shown in ["\\u{202e}", "\\u{200b}", "\\u{1b}[2J", "&lt;script&gt;x()"] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(!page.contains("onerror=\"x"), "an attribute is text");
}

#[test]
fn the_security_policy_permits_exactly_the_scripts_and_styles_of_the_page() {
    let page = page_of(&[("run", &json_of(&RunFixture::one_failure()))]).unwrap();
    let policy =
        Regex::new(r#"Content-Security-Policy" content="([^"]*)""#).unwrap().captures(&page).unwrap()[1].to_owned();
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for tag in ["script", "style"] {
        let text = Regex::new(&format!("(?s)<{tag}>(.*?)</{tag}>")).unwrap().captures(&page).unwrap()[1].to_owned();
        let hash = base64(&Sha256::digest(text));
        assert!(policy.contains(&format!("{tag}-src 'sha256-{hash}'")), "{tag}: {policy}");
    }
    assert!(!page.contains(" style=\""), "the policy forbids styles in attributes");
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// 100,000 frames of many actors, and texts of ten megabytes.
#[test]
fn a_page_stays_small_whatever_a_hub_sends() {
    let mut document = json_of(&RunFixture::one_failure());
    let frame = |at: usize| {
        json!({
            "at_ms": at, "actor": format!("actor{}", at % 100), "connection": at % 100, "direction": "received",
            "kind": "text", "text": "{\"n\": 1}", "size": 8, "hash": null,
        })
    };
    let scenario = &mut document["protocols"][0]["scenarios"]["list"][0];
    scenario["history"] = (0..100_000).map(frame).collect();
    scenario["title"] = json!("t".repeat(10_000_000));
    document["protocols"][0]["findings"][0]["detail"]["received"] = json!("r".repeat(10_000_000));
    let page = page_of(&[("run", &document)]).unwrap();
    assert!(page.len() < 300_000, "{}", page.len());
    assert_in_order(&page, &["more characters)", " of 100000 events", "events left out"]);
}

#[test]
fn runs_are_shown_side_by_side_and_their_differences_are_marked() {
    let (good, bad) = (json_of(&RunFixture::all_pass()), json_of(&RunFixture::one_failure()));
    let page = page_of(&[("old", &good), ("new", &bad), ("new", &bad)]).unwrap();
    assert_in_order(&page, &[">old</th>", ">new</th>", ">new (2)</th>", " data-differs>"]);
    let differ = page.matches(" data-differs>").count();
    let rules = page.matches("<tr class=\"rule\"").count();
    assert!(differ > 0 && differ < rules, "{differ} of {rules}");
    assert_eq!(page.matches("<td class=\"cell\">").count(), rules * 3);
}

#[test]
fn all_ids_are_unique_and_all_links_lead_to_one() {
    let mut document = json_of(&RunFixture::greeting_broken());
    // Two findings of the same name, and names that differ only in characters that ids cannot have.
    let findings = document["protocols"][0]["findings"].as_array_mut().unwrap();
    let mut copy = findings[0].clone();
    findings.push(copy.clone());
    copy["check"] = json!(format!("{}?", copy["check"].as_str().unwrap()));
    findings.push(copy);
    let page = page_of(&[("a", &document), ("b", &document)]).unwrap();
    let ids: Vec<String> =
        Regex::new(r#" id="([^"]*)""#).unwrap().captures_iter(&page).map(|found| found[1].to_owned()).collect();
    let unique: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(ids.len(), unique.len());
    for link in Regex::new(r##"href="#([^"]*)""##).unwrap().captures_iter(&page) {
        assert!(unique.contains(&link[1].to_owned()), "{}", &link[1]);
    }
}

#[rstest]
#[case::all_pass(RunFixture::all_pass())]
#[case::warning(RunFixture::warning())]
#[case::flaky(RunFixture::flaky())]
#[case::unreachable(RunFixture::unreachable())]
#[case::not_testable(RunFixture::not_testable())]
#[case::other_protocol(RunFixture::other_protocol())]
#[case::interrupted(RunFixture::interrupted())]
#[case::mistake(RunFixture::mistake())]
#[case::nothing_selected(RunFixture::nothing_selected())]
#[case::crash(RunFixture::hub_ended(Some("greeter/bye")))]
fn every_report_has_a_page_with_its_verdict(#[case] run: RunFixture) {
    let document = json_of(&run);
    let page = page_of(&[("run", &document)]).unwrap();
    let summary = document["protocols"][0]["summary"].as_str().unwrap();
    assert!(page.contains(&format!("<title>{summary}")), "{summary}");
}

#[rstest]
#[case::not_json("{", "failed to read a: it is not JSON")]
#[case::other(r#"{"format": "x"}"#, "not a report of hubproof")]
#[case::later(r#"{"format": "hubproof-report", "format_version": 2}"#, "format version 2")]
#[case::shape(r#"{"format": "hubproof-report", "format_version": 1}"#, "missing field `tool`")]
fn a_file_that_is_not_a_report_is_an_error(#[case] text: &str, #[case] expected: &str) {
    let report = NamedReport { name: "a".to_owned(), text: text.to_owned() };
    let error = render(&[report], |_, _| Err(String::new())).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}
