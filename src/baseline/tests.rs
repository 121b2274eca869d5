use rstest::rstest;

use super::*;
use crate::event::Verdict;
use crate::report::fixture::{Run, options};
use crate::report::terminal::summary;
use crate::report::terminal_page::Style;
use crate::report::{RunOptions, RunReport, Standing, exit_code};
use crate::syntax::diagnostic::render_all;
use crate::syntax::source::Sources;

const FILE: &str = "known.toml";

fn entry(failure: &str) -> String {
    format!("[[known]]\nfailure = \"{failure}\"\nreason = \"not done yet\"\n")
}

fn parsed(text: &str) -> Result<(Sources, Vec<Entry>), String> {
    let mut sources = Sources::default();
    let file = sources.add(FILE, text);
    match read(&mut sources, file) {
        Ok(entries) => Ok((sources, entries)),
        Err(errors) => Err(render_all(&errors, &sources, false)),
    }
}

fn entries(text: &str) -> Vec<Entry> {
    parsed(text).map(|(_, entries)| entries).unwrap()
}

/// Applies a baseline to a run.
fn settled(run: &Run, strict: bool, text: &str) -> RunReport {
    let mut report = run.report(RunOptions { strict, ..options() });
    apply(&mut report, &entries(text));
    report
}

#[rstest]
#[case::fails(Run::one_failure(), false, "greeter/hello:GRE-002", Standing::Expected, 0)]
#[case::fails_somewhere(Run::one_failure(), false, "greeter/hello", Standing::Expected, 0)]
#[case::another_fails(Run::one_failure(), false, "greeter/hello:GRE-001", Standing::Stale, 1)]
#[case::passes(Run::all_pass(), false, "greeter/hello:GRE-002", Standing::Stale, 1)]
#[case::all_of_it_passes(Run::all_pass(), false, "greeter/hello", Standing::Stale, 1)]
#[case::sometimes(Run::flaky(), false, "greeter/hello:GRE-002", Standing::Flaky, 0)]
#[case::not_selected(Run::selection(), false, "greeter/bye:GRE-009", Standing::NotPlayed, 0)]
#[case::not_testable(Run::not_testable(), false, "greeter/chair:GRE-006", Standing::Undecided, 0)]
#[case::inconclusive(Run::inconclusive(), false, "greeter/bye:GRE-009", Standing::Undecided, 3)]
#[case::inconclusive_whole(Run::inconclusive(), false, "greeter/bye", Standing::Undecided, 3)]
#[case::unreachable(Run::unreachable(), false, "greeter/hello:GRE-002", Standing::Undecided, 3)]
#[case::warns(Run::warning(), false, "greeter/hello:GRE-003", Standing::Expected, 0)]
#[case::one_warning_of_two(Run::warning(), true, "greeter/hello:GRE-003", Standing::Expected, 1)]
#[case::all_warnings(Run::warning(), true, "greeter/hello", Standing::Expected, 0)]
#[case::mistaken(Run::mistake(), false, "greeter/bye", Standing::Undecided, 2)]
#[case::a_frame_that_did_not_come(Run::all_pass(), false, "greeter/hello:schema:echo:GRE-008", Standing::Stale, 1)]
#[case::no_process_was_started(Run::all_pass(), false, "greeter/hello:process", Standing::Undecided, 0)]
fn an_entry_is_expected_stale_or_undecided_by_the_result_of_its_check(
    #[case] run: Run,
    #[case] strict: bool,
    #[case] failure: &str,
    #[case] expected: Standing,
    #[case] code: u8,
) {
    let report = settled(&run, strict, &entry(failure));
    assert_eq!(report.protocols[0].baseline[0].standing, expected);
    assert_eq!(exit_code(&report), code);
    // A flaky entry is never stale.
    let report = settled(&run, strict, &(entry(failure) + "flaky = true\n"));
    let flaky = if matches!(expected, Standing::Undecided | Standing::NotPlayed) { expected } else { Standing::Flaky };
    assert_eq!(report.protocols[0].baseline[0].standing, flaky);
}

/// Checks that are undecided because of an expected failure do not make the run inconclusive.
#[test]
fn checks_that_depend_on_an_expected_failure_are_expected_too() {
    let report = settled(&Run::greeting_broken(), false, &entry("greeter/hello:GRE-001"));
    let hello = report.protocols[0].scenarios.iter().find(|scenario| scenario.id == "greeter/hello").unwrap();
    assert!(hello.checks.iter().any(|check| check.verdict == Verdict::Inconclusive));
    // Two others are inconclusive for reasons of their own.
    assert_eq!(exit_code(&report), 3);
}

/// The step and message of an opening that the baseline may list.
const OPENING: &str = "greeter: expects: welcome: closed with 1011 \\\"internal error\\\" instead of welcome";

/// What a listed precondition blocks does not make the run inconclusive.
#[rstest]
#[case::listed(Run::inconclusive(), OPENING, Standing::Expected, 0)]
#[case::other_numbers(
    Run::inconclusive(),
    "greeter: expects: welcome: closed with 1012 \\\"restart\\\" instead of welcome",
    Standing::Expected,
    0
)]
#[case::other_message(Run::inconclusive(), "greeter: expects: welcome: it did not come", Standing::Undecided, 3)]
#[case::other_step(
    Run::inconclusive(),
    "greeter: expects: echo: closed with 1011 \\\"\\\" instead of welcome",
    Standing::Undecided,
    3
)]
#[case::mended(Run::all_pass(), OPENING, Standing::Stale, 1)]
#[case::a_failure_besides(Run::greeting_broken(), OPENING, Standing::Expected, 1)]
#[case::unreachable(Run::unreachable(), "greeter: connects: connection refused", Standing::Undecided, 3)]
#[case::interrupted(Run::interrupted(), OPENING, Standing::NotPlayed, 3)]
fn a_baseline_may_list_a_failed_precondition(
    #[case] run: Run,
    #[case] failure: &str,
    #[case] expected: Standing,
    #[case] code: u8,
) {
    let report = settled(&run, false, &entry(failure));
    assert_eq!(report.protocols[0].baseline[0].standing, expected);
    assert_eq!(exit_code(&report), code);
}

/// Everything that fails is known, and everything else is blocked by that.
#[test]
fn a_written_baseline_of_a_broken_opening_is_enough() {
    let run = Run::greeting_broken();
    let text = rewritten(&run.report(options()), None);
    assert!(text.contains("failure = \"greeter/hello:GRE-001\""), "{text}");
    assert!(text.contains("greeter: expects: welcome: closed with 1011"), "{text}");
    assert_eq!(text.matches("[[known]]").count(), 2, "{text}");
    let report = settled(&run, false, &text);
    assert_eq!(exit_code(&report), 0);
    let page = summary(&report, &run.sources, Style::default());
    assert!(page.contains("2 scenarios could not continue, as expected; not judged: 2 checks."), "{page}");
    // It is kept, and removed when the hub is mended.
    let entries = entries(&text);
    assert_eq!(rewritten(&report, Some((&text, &entries))), text);
    assert!(!rewritten(&Run::all_pass().report(options()), Some((&text, &entries))).contains("[[known]]"));
}

#[test]
fn of_two_entries_the_one_that_names_the_check_gives_the_reason() {
    let text = entry("greeter/hello") + &entry("greeter/hello:GRE-002").replace("not done yet", "its own");
    let report = settled(&Run::one_failure(), false, &text);
    let known = report.protocols[0].scenarios.iter().flat_map(|s| &s.checks).find_map(|check| check.known.as_ref());
    assert_eq!(known.unwrap().reason, "its own");
}

#[rstest]
#[case("", true)]
#[case("known = []", true)]
#[case("[[known]]\nfailure = \"a/b:C\"\nreason = \"x\"\nflaky = false", true)]
#[case("[[known]]\nfailure = \"a/b:C\"\nreason = \"x\"\n[[known]]\nfailure = \"a/b:D\"\nreason = \"x\"", true)]
#[case("[[known]]\nfailure = \"a/b:C\"", false)]
#[case("[[known]]\nfailure = \"a/b:C\"\nreason = \" \"", false)]
#[case("[[known]]\nfailure = \"\"\nreason = \"x\"", false)]
#[case("[[known]]\nreason = \"x\"", false)]
#[case("[[known]]\nfailure = 1\nreason = \"x\"", false)]
#[case("[[known]]\nfailure = \"a/b:C\"\nreason = \"x\"\nflaky = \"yes\"", false)]
#[case("[[known]]\nfailure = \"a/b:C\"\nreason = \"x\"\nsince = \"x\"", false)]
#[case("[[knwon]]\nfailure = \"a/b:C\"\nreason = \"x\"", false)]
#[case("known = [1]", false)]
#[case("known = \"x\"", false)]
fn the_published_schema_accepts_what_the_parser_accepts(#[case] text: &str, #[case] fine: bool) {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let file: toml::Table = text.parse().unwrap();
    let file = serde_json::to_value(&file).unwrap();
    assert_eq!(jsonschema::draft202012::new(&schema).unwrap().is_valid(&file), fine, "the schema");
    assert_eq!(parsed(text).is_ok(), fine, "the parser: {:?}", parsed(text).err());
}

#[test]
fn errors_in_a_baseline_point_at_their_place() {
    let text = "[[known]]\nfailure = \"greeter/hello:GRE-001\"\n\n[[known]]\nfailure = \"a/b\"\nreason = \"\"\nflakey = true\n";
    insta::assert_snapshot!("mistakes", parsed(text).err().unwrap());
    let twice = entry("greeter/hello") + &entry("greeter/hello");
    insta::assert_snapshot!("twice", parsed(&twice).err().unwrap());
}

#[test]
fn entries_with_unknown_scenarios_or_checks_are_reported() {
    let run = Run::all_pass();
    let mut names = Names::default();
    names.add(&run.pack, run.programs.iter().map(AsRef::as_ref), &["process"]);
    let right = ["greeter/hello", "greeter/hello:GRE-002", "greeter/bye:process", "greeter/bye:schema:echo:GRE-008"];
    let (sources, right) = parsed(&right.map(entry).concat()).unwrap();
    assert_eq!(render_all(&names.unknown(&right), &sources, false), "");
    let wrong = ["greeter/helo", "greeter/hello:GRE-020", "greeter/bye:schema:ecco:GRE-008", "x"];
    let (sources, wrong) = parsed(&wrong.map(entry).concat()).unwrap();
    insta::assert_snapshot!("unknown", render_all(&names.unknown(&wrong), &sources, false));
}

#[test]
fn a_newly_written_baseline_expects_the_checks_that_fail() {
    let report = Run::one_failure().report(options());
    let text = rewritten(&report, None);
    insta::assert_snapshot!("new", text);
    let report = settled(&Run::one_failure(), false, &text);
    assert_eq!(exit_code(&report), 0);
    assert!(report.protocols[0].baseline.iter().all(|entry| entry.standing == Standing::Expected));
}

#[rstest]
#[case(false, 0)]
#[case(true, 2)]
fn warnings_are_written_to_the_baseline_if_they_fail_the_run(#[case] strict: bool, #[case] entries: usize) {
    let report = Run::warning().report(RunOptions { strict, ..options() });
    assert_eq!(rewritten(&report, None).matches("[[known]]").count(), entries);
}

#[test]
fn reasons_and_comments_are_kept_when_a_baseline_is_rewritten() {
    let before = "# ours\n\n[[known]]\nfailure = \"greeter/bye:GRE-009\" # gone\nreason = \"echo\"\n\n# about names\n[[known]]\n\
                  reason = \"\"\"two\nlines\"\"\"\nfailure = \"greeter/hello:GRE-002\"\n";
    let report = Run::one_failure().report(options());
    let kept = entries(before);
    assert_eq!(
        rewritten(&report, Some((before, &kept))),
        "# ours\n\n# about names\n[[known]]\nreason = \"\"\"two\nlines\"\"\"\nfailure = \"greeter/hello:GRE-002\"\n"
    );
    let flaky = Run::flaky().report(options());
    let text = rewritten(&flaky, Some(("", &[])));
    assert!(text.ends_with("flaky = true\n"), "{text}");
}

#[test]
fn a_written_baseline_is_read_back_equal() {
    let report = Run::one_failure().report(options());
    let once = rewritten(&report, None);
    assert_eq!(rewritten(&report, Some((&once, &entries(&once)))), once);
}
