//! `hubproof explain`.

use std::collections::BTreeSet;

use hubproof::fuzz::case::MutationKind;
use hubproof::fuzz::oracle::oracle_rules;
use hubproof::fuzz::placement::Placement;
use hubproof::load::ledger::LedgerViolationKind;
use hubproof::load::metrics::LoadErrorKind;
use hubproof::load::validity::{RunValidity, ValidityCode};
use hubproof::outcome::Verdict;
use hubproof::syntax::source::Sources;
use rstest::rstest;

use crate::support::disk;
use crate::support::process::hubproof;

/// Returns the pages for some names, in the order of the names.
fn explain<S: AsRef<str>>(names: impl IntoIterator<Item = S>, options: &[&str]) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
    let words = names.iter().map(String::as_str).chain(options.iter().copied());
    hubproof(["explain"].into_iter().chain(words)).assert_exit_code(0).out
}

/// Returns the commands after `explain` in the output of a run, as words.
fn explain_commands(out: &str) -> BTreeSet<Vec<String>> {
    let commands =
        out.lines().filter_map(|line| line.trim().strip_prefix("explain ")?.trim().strip_prefix("hubproof "));
    commands.map(|command| shlex::split(command).unwrap()).collect()
}

#[rstest]
fn every_rule_of_a_built_in_pack_has_a_page(
    #[values("airavata", "concierge", "emprops", "gator", "qi", "websocket")] protocol: &str,
) {
    let pack = disk::pack(protocol);
    let text = explain(pack.rules.keys(), &["--protocol", protocol]);
    let version = format!("a rule of {protocol} {}", pack.version);
    let mut pages = text.split(&version);
    let mut heading = pages.next().unwrap().trim().to_owned();
    let mut judged = 0;
    for (rule, page) in pack.rules.values().zip(pages) {
        assert_eq!(heading, rule.id);
        let words: Vec<&str> = rule.text.split_whitespace().collect();
        let shown = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(shown.contains(&words.join(" ")), "{}: {page}", rule.id);
        assert!(shown.contains(&format!("level {}:", rule.level.name())), "{}: {page}", rule.id);
        assert!(shown.contains(&format!(" in {}", rule.place)), "{}: {page}", rule.id);
        let is_judged = shown.contains(" scenarios scenarios/") || shown.contains(" schemas schemas/");
        assert_eq!(is_judged, rule.out_of_scope.is_none(), "{}: {page}", rule.id);
        let command = format!("next hubproof check URL --protocol {protocol} --rule {}", rule.id);
        assert_eq!(shown.contains(&command), is_judged, "{}: {page}", rule.id);
        judged += usize::from(is_judged);
        heading = page.lines().last().unwrap_or_default().trim().to_owned();
    }
    assert!(judged > pack.rules.len() / 2);
}

/// Everything with a fixed name that a report can show.
#[test]
fn every_name_that_hubproof_defines_has_a_page() {
    let oracles = oracle_rules(&mut Sources::default());
    let mut names: Vec<String> = Verdict::ALL
        .map(Verdict::name)
        .into_iter()
        .chain(MutationKind::all().map(MutationKind::name))
        .chain(Placement::ALL.map(Placement::name))
        .chain(RunValidity::ALL.map(RunValidity::name))
        .chain(ValidityCode::explanations().into_iter().map(|explanation| explanation.name))
        .chain(LedgerViolationKind::ALL.map(LedgerViolationKind::name))
        .chain(LoadErrorKind::ALL.iter().map(|kind| kind.name()))
        // Printed by check, fuzz, load, compare, packs lint and all.
        .chain(["websocket", "hang", "process", "deviation:2", "precondition"])
        .chain(["expected", "flaky", "stale", "undecided", "still fails", "fixed", "not reproducible"])
        .chain(["holds", "BROKEN", "unobserved", "uncertain", "LOST", "NOT TAKEN", "REGRESSION", "worse", "better"])
        .chain(["error", "warning", "0", "1", "2", "3", "PASS", "FAIL", "MISTAKE", "INCONCLUSIVE"])
        .map(str::to_owned)
        .collect();
    names.extend(oracles.iter().map(|rule| rule.id.clone()));
    assert!(names.len() > 100);
    let text = explain(&names, &[]);
    for name in &names {
        let known = name.to_lowercase().replace([' ', '_'], "-").replace("deviation:2", "deviation");
        let heads = ["0", "1", "2", "3"].contains(&name.as_str()) || ["mistake"].contains(&known.as_str());
        let has_page = text.lines().any(|line| {
            line.split_once("   ").is_some_and(|(head, _)| head.to_lowercase().replace([' ', '_'], "-") == known)
        });
        assert!(has_page || heads, "{name}");
    }
    for rule in oracles {
        assert!(rule.broken_by.is_some(), "{}", rule.id);
    }
    insta::assert_snapshot!("names", explain(["3", "LOST", "wrong-type", "FUZZ-KEEPS"], &[]));
}

#[rstest]
#[case::schema(&["check", "--fault", "qi-reply-version-short", "--scenario", "qi/base"], "QI-011   a rule of qi")]
#[case::fuzz(&["fuzz", "--fault", "qi-failure-payload-number", "--protocol", "qi", "--mutation", "wrong-type", "--cases", "40", "--seed", "1"], "QI-018   a rule of qi")]
fn the_explain_line_of_a_failure_works_when_pasted(#[case] run: &[&str], #[case] title: &str) {
    let done = hubproof(run).assert_exit_code(1);
    let commands = explain_commands(&done.out);
    let failures = done.out.lines().filter(|line| line.starts_with("fail[")).count();
    let lines = done.out.lines().filter(|line| line.trim_start().starts_with("explain ")).count();
    assert!(failures > 0 && lines == failures, "{}", done.out);
    let pages: String = commands.iter().map(|command| hubproof(command).assert_exit_code(0).out).collect();
    assert!(pages.contains(title), "{pages}");
}

/// The command names the pack, and so does the page, in the commands to run next.
#[test]
fn the_explain_line_of_a_failure_names_the_users_pack() {
    let path = disk::root().join("schemas/concierge");
    let path = path.to_str().unwrap();
    let fault = ["--fault", "concierge-name-broadcast", "--scenario", "concierge/message-to-one"];
    let done = hubproof(["check", "--pack", path].iter().chain(&fault)).assert_exit_code(1);
    let commands = explain_commands(&done.out);
    let expected = ["explain", "CON-042", "--pack", path].map(str::to_owned).to_vec();
    assert_eq!(commands, BTreeSet::from([expected.clone()]), "{}", done.out);
    let page = hubproof(expected).assert_exit_code(0).out;
    assert!(page.contains(&format!("hubproof check URL --pack {path} --rule CON-042\n")), "{page}");
}

#[test]
fn a_page_shows_what_judges_a_rule_and_what_breaks_it() {
    let text = explain(["CON-042#3"], &[]);
    let line = text.lines().find(|line| line.contains("accented-name.yaml:19")).unwrap();
    assert!(line.contains("singer expects: message_relayed"), "{line}");
    assert!(text.contains("(concierge-name-broadcast)"), "{text}");
    assert!(text.contains("hubproof check --protocol concierge --rule CON-042 --fault concierge-"), "{text}");
    // Three names of several kinds at once, one of them twice.
    let text = explain(["schema:base_reply_failure:QI-018", "lost"], &[]);
    for part in [
        "schema:base_reply_failure   the schema of a message of qi",
        "QI-018   a rule of qi",
        "lost   a violation in the ledger of a load run",
        "lost   an error of a load run",
        "hubproof packs validate qi base_reply_failure FILE",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_rule_names_the_settings_that_its_scenarios_need() {
    let text = explain(["CON-017"], &[]);
    assert!(text.contains("needs       hub.secret is not defined: all of 1 scenario"), "{text}");
    assert!(text.contains("secret `secret`: the gateway secret"), "{text}");
    assert!(text.contains("hubproof check URL --protocol concierge --list"), "{text}");
}

#[test]
fn an_unknown_name_is_a_mistake_with_suggestions_and_the_kinds_of_names() {
    let done = hubproof(["explain", "CON-0042", "inconclusiv"]).assert_exit_code(2);
    assert_eq!(done.out, "");
    assert!(done.err.contains("there is nothing named `CON-0042` to explain"), "{}", done.err);
    assert!(done.err.contains("did you mean `CON-002` or `CON-004` or `CON-042`?"), "{}", done.err);
    assert!(done.err.contains("did you mean `inconclusive`"), "{}", done.err);
    assert!(done.err.contains("rules of concierge: CON-001, CON-002, CON-003"), "{}", done.err);
    assert!(done.err.contains("4 exit codes: 0, 1, 2"), "{}", done.err);
    let done = hubproof(["explain", "CON-042", "--protocol", "qi"]).assert_exit_code(2);
    assert!(!done.err.contains("concierge"), "{}", done.err);
}

#[test]
fn without_a_name_the_kinds_of_names_are_listed() {
    let text = hubproof(["explain"]).assert_exit_code(0).out;
    for name in disk::protocols() {
        let pack = disk::pack(&name);
        let line = text.lines().find(|line| line.contains(&format!("rules of {name} "))).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(words.contains(&pack.rules.len().to_string().as_str()), "{line}");
    }
    assert!(text.contains("oracles of fuzz") && text.contains("exit codes"), "{text}");
}
