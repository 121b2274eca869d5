use rstest::rstest;

use super::*;
use crate::outcome::Verdict;
use crate::report::fixture::{RunFixture, options};
use crate::report::terminal::summary;
use crate::report::terminal_page::Style;
use crate::report::{EntryStanding, RunOptions, RunReport, exit_code};
use crate::syntax::diagnostic::render_all;
use crate::syntax::source::Sources;

const FILE: &str = "known.toml";

fn entry(failure: &str) -> String {
    format!("[[known]]\nfailure = \"{failure}\"\nreason = \"not done yet\"\n")
}

fn parse_text(text: &str) -> Result<(Sources, Vec<BaselineEntry>), String> {
    let mut sources = Sources::default();
    let file = sources.add(FILE, text);
    match parse_baseline(&mut sources, file) {
        Ok(entries) => Ok((sources, entries)),
        Err(errors) => Err(render_all(&errors, &sources, false)),
    }
}

fn parse_entries(text: &str) -> Vec<BaselineEntry> {
    parse_text(text).map(|(_, entries)| entries).unwrap()
}

/// Applies a baseline to a run.
fn apply_to_run(run: &RunFixture, strict: bool, text: &str) -> RunReport {
    let mut report = run.report(RunOptions { strict, ..options() });
    apply_baseline(&mut report, &parse_entries(text));
    report
}

#[rstest]
#[case::fails(RunFixture::one_failure(), false, "greeter/hello:GRE-002", EntryStanding::Expected, 0)]
#[case::fails_somewhere(RunFixture::one_failure(), false, "greeter/hello", EntryStanding::Expected, 0)]
#[case::another_fails(RunFixture::one_failure(), false, "greeter/hello:GRE-001", EntryStanding::Stale, 1)]
#[case::passes(RunFixture::all_pass(), false, "greeter/hello:GRE-002", EntryStanding::Stale, 1)]
#[case::all_of_it_passes(RunFixture::all_pass(), false, "greeter/hello", EntryStanding::Stale, 1)]
#[case::sometimes(RunFixture::flaky(), false, "greeter/hello:GRE-002", EntryStanding::Flaky, 0)]
#[case::not_selected(RunFixture::selection(), false, "greeter/bye:GRE-009", EntryStanding::NotPlayed, 0)]
#[case::not_testable(RunFixture::not_testable(), false, "greeter/chair:GRE-006", EntryStanding::Undecided, 0)]
#[case::inconclusive(RunFixture::inconclusive(), false, "greeter/bye:GRE-009", EntryStanding::Undecided, 3)]
#[case::inconclusive_whole(RunFixture::inconclusive(), false, "greeter/bye", EntryStanding::Undecided, 3)]
#[case::unreachable(RunFixture::unreachable(), false, "greeter/hello:GRE-002", EntryStanding::Undecided, 3)]
#[case::warns(RunFixture::warning(), false, "greeter/hello:GRE-003", EntryStanding::Expected, 0)]
#[case::one_warning_of_two(RunFixture::warning(), true, "greeter/hello:GRE-003", EntryStanding::Expected, 1)]
#[case::all_warnings(RunFixture::warning(), true, "greeter/hello", EntryStanding::Expected, 0)]
#[case::mistaken(RunFixture::mistake(), false, "greeter/bye", EntryStanding::Undecided, 2)]
#[case::a_frame_that_did_not_come(
    RunFixture::all_pass(),
    false,
    "greeter/hello:schema:echo:GRE-008",
    EntryStanding::Stale,
    1
)]
#[case::no_process_was_started(RunFixture::all_pass(), false, "greeter/hello:process", EntryStanding::Undecided, 0)]
fn the_result_of_a_check_makes_its_entry_expected_stale_or_undecided(
    #[case] run: RunFixture,
    #[case] strict: bool,
    #[case] failure: &str,
    #[case] expected: EntryStanding,
    #[case] code: u8,
) {
    let report = apply_to_run(&run, strict, &entry(failure));
    assert_eq!(report.protocols[0].baseline[0].standing, expected);
    assert_eq!(exit_code(&report), code);
    // A flaky entry is never stale.
    let report = apply_to_run(&run, strict, &(entry(failure) + "flaky = true\n"));
    let flaky = if matches!(expected, EntryStanding::Undecided | EntryStanding::NotPlayed) {
        expected
    } else {
        EntryStanding::Flaky
    };
    assert_eq!(report.protocols[0].baseline[0].standing, flaky);
}

/// Checks that are undecided because of an expected failure do not make the run inconclusive.
#[test]
fn checks_that_depend_on_an_expected_failure_are_expected_too() {
    let report = apply_to_run(&RunFixture::greeting_broken(), false, &entry("greeter/hello:GRE-001"));
    let hello = report.protocols[0].scenarios.iter().find(|scenario| scenario.id == "greeter/hello").unwrap();
    assert!(hello.checks.iter().any(|check| check.verdict == Verdict::Inconclusive));
    // Two other checks are inconclusive for reasons of their own.
    assert_eq!(exit_code(&report), 3);
}

/// The step and message of a failed opening that the baseline may list.
const OPENING: &str = "greeter: expects: welcome: closed with 1011 \\\"internal error\\\" instead of welcome";

/// Checks that a listed precondition blocks do not make the run inconclusive.
#[rstest]
#[case::listed(RunFixture::inconclusive(), OPENING, EntryStanding::Expected, 0)]
#[case::other_numbers(
    RunFixture::inconclusive(),
    "greeter: expects: welcome: closed with 1012 \\\"restart\\\" instead of welcome",
    EntryStanding::Expected,
    0
)]
#[case::other_message(
    RunFixture::inconclusive(),
    "greeter: expects: welcome: it did not come",
    EntryStanding::Undecided,
    3
)]
#[case::other_step(
    RunFixture::inconclusive(),
    "greeter: expects: echo: closed with 1011 \\\"\\\" instead of welcome",
    EntryStanding::Undecided,
    3
)]
#[case::mended(RunFixture::all_pass(), OPENING, EntryStanding::Stale, 1)]
#[case::a_failure_besides(RunFixture::greeting_broken(), OPENING, EntryStanding::Expected, 1)]
#[case::unreachable(RunFixture::unreachable(), "greeter: connects: connection refused", EntryStanding::Undecided, 3)]
#[case::interrupted(RunFixture::interrupted(), OPENING, EntryStanding::NotPlayed, 3)]
fn a_baseline_may_list_a_failed_precondition(
    #[case] run: RunFixture,
    #[case] failure: &str,
    #[case] expected: EntryStanding,
    #[case] code: u8,
) {
    let report = apply_to_run(&run, false, &entry(failure));
    assert_eq!(report.protocols[0].baseline[0].standing, expected);
    assert_eq!(exit_code(&report), code);
}

/// Everything that fails is listed, and the listed failures block everything else.
#[test]
fn a_baseline_written_for_a_broken_opening_covers_the_whole_run() {
    let run = RunFixture::greeting_broken();
    let text = rewrite_baseline(&run.report(options()), None);
    assert!(text.contains("failure = \"greeter/hello:GRE-001\""), "{text}");
    assert!(text.contains("greeter: expects: welcome: closed with 1011"), "{text}");
    assert_eq!(text.matches("[[known]]").count(), 2, "{text}");
    let report = apply_to_run(&run, false, &text);
    assert_eq!(exit_code(&report), 0);
    let page = summary(&report, &run.sources, Style::default());
    assert!(page.contains("2 scenarios could not continue, as expected; not judged: 2 checks."), "{page}");
    // Rewriting keeps the entries, and removes them once the hub is fixed.
    let entries = parse_entries(&text);
    assert_eq!(rewrite_baseline(&report, Some((&text, &entries))), text);
    assert!(
        !rewrite_baseline(&RunFixture::all_pass().report(options()), Some((&text, &entries))).contains("[[known]]")
    );
}

#[test]
fn the_reason_comes_from_the_entry_that_names_the_check() {
    let text = entry("greeter/hello") + &entry("greeter/hello:GRE-002").replace("not done yet", "its own");
    let report = apply_to_run(&RunFixture::one_failure(), false, &text);
    let known = report.protocols[0].scenarios.iter().flat_map(|s| &s.checks).find_map(|check| check.known.as_ref());
    assert_eq!(known.unwrap().reason, "its own");
}

#[test]
fn baseline_errors_are_reported_at_their_line() {
    let text = "[[known]]\nfailure = \"greeter/hello:GRE-001\"\n\n[[known]]\nfailure = \"a/b\"\nreason = \"\"\nflakey = true\n";
    insta::assert_snapshot!("mistakes", parse_text(text).err().unwrap());
    let twice = entry("greeter/hello") + &entry("greeter/hello");
    insta::assert_snapshot!("twice", parse_text(&twice).err().unwrap());
}

#[test]
fn entries_with_unknown_scenarios_or_checks_are_reported() {
    let run = RunFixture::all_pass();
    let mut names = FailureNames::default();
    names.add_protocol(&run.pack, run.programs.iter().map(AsRef::as_ref), &["process"]);
    let right = ["greeter/hello", "greeter/hello:GRE-002", "greeter/bye:process", "greeter/bye:schema:echo:GRE-008"];
    let (sources, right) = parse_text(&right.map(entry).concat()).unwrap();
    assert_eq!(render_all(&names.unknown_name_errors(&right), &sources, false), "");
    let wrong = ["greeter/helo", "greeter/hello:GRE-020", "greeter/bye:schema:ecco:GRE-008", "x"];
    let (sources, wrong) = parse_text(&wrong.map(entry).concat()).unwrap();
    insta::assert_snapshot!("unknown", render_all(&names.unknown_name_errors(&wrong), &sources, false));
}

#[test]
fn a_newly_written_baseline_expects_the_checks_that_fail() {
    let report = RunFixture::one_failure().report(options());
    let text = rewrite_baseline(&report, None);
    insta::assert_snapshot!("new", text);
    let report = apply_to_run(&RunFixture::one_failure(), false, &text);
    assert_eq!(exit_code(&report), 0);
    assert!(report.protocols[0].baseline.iter().all(|entry| entry.standing == EntryStanding::Expected));
}

#[rstest]
#[case(false, 0)]
#[case(true, 2)]
fn warnings_that_fail_the_run_are_written_to_the_baseline(#[case] strict: bool, #[case] entries: usize) {
    let report = RunFixture::warning().report(RunOptions { strict, ..options() });
    assert_eq!(rewrite_baseline(&report, None).matches("[[known]]").count(), entries);
}

#[test]
fn rewriting_a_baseline_keeps_reasons_and_comments() {
    let before = "# ours\n\n[[known]]\nfailure = \"greeter/bye:GRE-009\" # gone\nreason = \"echo\"\n\n# about names\n[[known]]\n\
                  reason = \"\"\"two\nlines\"\"\"\nfailure = \"greeter/hello:GRE-002\"\n";
    let report = RunFixture::one_failure().report(options());
    let kept = parse_entries(before);
    assert_eq!(
        rewrite_baseline(&report, Some((before, &kept))),
        "# ours\n\n# about names\n[[known]]\nreason = \"\"\"two\nlines\"\"\"\nfailure = \"greeter/hello:GRE-002\"\n"
    );
    let flaky = RunFixture::flaky().report(options());
    let text = rewrite_baseline(&flaky, Some(("", &[])));
    assert!(text.ends_with("flaky = true\n"), "{text}");
}

#[test]
fn a_written_baseline_round_trips() {
    let report = RunFixture::one_failure().report(options());
    let once = rewrite_baseline(&report, None);
    assert_eq!(rewrite_baseline(&report, Some((&once, &parse_entries(&once)))), once);
}
