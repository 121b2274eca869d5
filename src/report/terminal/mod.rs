//! The summary for the terminal. It shows, per protocol, the failed preconditions, the failures in full, the warnings
//! in brief, and totals. It ends with one verdict line per protocol.

mod fuzz;
mod known;
mod process;
mod totals;
mod verdict;

use std::collections::BTreeMap;

use annotate_snippets::Level;
use anstyle::AnsiColor;

use super::causes::{BlockedChecks, FailureGroup, RootCause, checks_with_verdict, common_symptom, group_failures};
use super::evidence::telling_lines;
use super::terminal_page::{BOLD, DIM, Page, Style, list};
use super::text::{escape_unprintable, format_count, format_time, shorten};
use super::{
    CheckResult, ProtocolDoubt, ProtocolReport, RuleReport, RunReport, ScenarioResult, SharedPreconditionFailure,
    explain_command, reach, reproduce_command, selection_arguments,
};
use crate::outcome::{CheckReport, FindingDetail, FrameReport, HANG_CHECK, HistoryDirection, ScenarioReport, Verdict};
use crate::protocol::{RuleBasis, RulePlace};
use crate::syntax::source::Sources;

pub use verdict::{describe_doubt, verdict_line, verdict_parts};

/// How many of the last frames of a failed scenario are shown.
const SHOWN_FRAMES: usize = 8;
/// How many failed scenarios are shown in full if they all seem to have the same cause.
const FULL_SIMILAR_FAILURES: usize = 2;
/// Advice for a hub that cannot be reached.
pub const UNREACHABLE_HELP: &str =
    "Is it running, and is this its address? Try the address with any other WebSocket client.";
/// Most rules in the line of a cause and in the verdict line.
const MAX_CAUSE_RULES: usize = 3;
/// Most characters of a message in the line of a cause.
const MAX_CAUSE_CHARS: usize = 160;
/// Most characters of a frame or another long text.
const MAX_TEXT_CHARS: usize = 400;

/// Returns the whole summary; ends with a newline. `sources` has the files of the report's spans.
pub fn summary(report: &RunReport, sources: &Sources, style: Style) -> String {
    let mut page = Page::new(&report.tool_version, &report.options.target, report, sources, style);
    for protocol in &report.protocols {
        page.gap();
        page.write_protocol(protocol);
    }
    page.gap();
    if report.protocols.is_empty() {
        page.line("Nothing was checked: no scenario was selected.");
    }
    if report.interrupted {
        page.line(&format!(
            "Interrupted after {}: the results cover only what was played until then.",
            format_time(report.duration)
        ));
    }
    for protocol in &report.protocols {
        let parts = verdict_parts(protocol, &report.options);
        page.verdict(protocol.exit_code(&report.options), &protocol.name, &parts);
        page.counts(protocol);
    }
    page.out
}

/// Returns what to do if the hub refuses the client's credentials; `secrets` are the settings that may contain them.
pub fn describe_credentials(secrets: &[String]) -> String {
    let names: Vec<String> = secrets.iter().map(|name| format!("`{name}`")).collect();
    let set = match names.split_last() {
        None => "the pack has no setting for them".to_owned(),
        Some((last, [])) => format!("set {last} to the hub's"),
        Some((last, rest)) => format!("set {} or {last} to the hub's", rest.join(", ")),
    };
    format!(
        "The hub refused the client's credentials. Check them: {set} (`--set secrets.NAME=VALUE`, or the target file). \
        If the hub wants them elsewhere, such as in a header, `check --explore` tries the usual places, and the deviation \
        `upgrade` declares any other."
    )
}

/// How to judge more of a hub that hangs.
const HANG_HELP: &str =
    "let hubproof restart the hub, with `--exec` or the hook `restart`; or play one scenario at a time: `-j 1`";

impl Page<'_, RunReport> {
    fn write_protocol(&mut self, protocol: &ProtocolReport) {
        let head = format!("{} {}", protocol.name, protocol.pack_version);
        let document = if protocol.document.is_empty() { String::new() } else { format!("   {}", protocol.document) };
        self.line(&format!("{}{}", self.paint(BOLD, &head), self.paint(DIM, &document)));
        if let Some(fuzzed) = &protocol.fuzzed {
            return self.write_fuzz_report(protocol, fuzzed);
        }
        if protocol.doubt.is_none() {
            self.write_root_causes(protocol);
        }
        // The cause that explains most comes first.
        let stopped = protocol.causes.first().map_or(0, |cause| cause.scenarios.len());
        let causes_first = match protocol.doubt {
            Some(ProtocolDoubt::NothingWorks { broken, .. }) => stopped * 2 > broken,
            Some(ProtocolDoubt::Unrecognised { .. }) | None => false,
        };
        if causes_first {
            self.write_causes(protocol);
        }
        if let Some(doubt) = protocol.doubt {
            self.gap();
            self.wrapped("", &describe_doubt(&protocol.name, doubt));
        }
        if let Some(note) = protocol.subprotocol_note() {
            self.gap();
            self.wrapped("", &format!("warn: {note}"));
        }
        if !causes_first {
            self.write_causes(protocol);
        }
        self.deviations(&protocol.deviations);
        self.write_crashes(protocol);
        self.write_failed_scenarios(protocol);
        self.write_warnings(protocol);
        self.write_undecided(protocol);
        self.write_known_failures(protocol);
        self.write_proposals(protocol);
        if self.style.verbose {
            self.write_infos(protocol);
        }
        self.write_log(protocol);
        if let Some(too_little) = protocol.reach_shortfall(&self.report.options)
            && protocol.check_tally().decided() > 0
            && protocol.exit_code(&self.report.options) == 3
            && protocol.unplayed.is_empty()
        {
            self.gap();
            self.wrapped("", &reach::explain_shortfall(protocol, too_little));
        }
        self.gap();
        self.write_totals(protocol);
    }

    /// Shows failed scenarios and those with a mistake; what blocks most comes first. Of failures with one reason, only a few
    /// are shown in full.
    fn write_failed_scenarios(&mut self, protocol: &ProtocolReport) {
        let mut failures = group_failures(unexpected_checks(protocol, Verdict::Fail));
        let played = protocol.scenarios.iter().filter(|scenario| scenario.verdict != Verdict::NotTestable).count();
        let symptom = common_symptom(&failures, played).map(|(message, failed)| (message.to_owned(), failed));
        if let Some((message, failed)) = &symptom
            && protocol.doubt.is_none()
        {
            self.gap();
            let failed = format!("{failed} of {} failed in the same way", format_count(played, "scenario"));
            self.wrapped("", &format!("{failed}: {}.", escape_unprintable(message).trim_end_matches('.')));
        }
        for scenario in protocol.scenarios.iter().filter(|scenario| scenario.mistake().is_some()) {
            self.gap();
            self.write_mistake(scenario);
        }
        let mut weights = BTreeMap::<&str, usize>::new();
        failures.iter().for_each(|one| *weights.entry(&one.scenario.id).or_default() += one.blocks.checks);
        failures.sort_by_key(|one| std::cmp::Reverse(weights.get(one.scenario.id.as_str()).copied()));
        let by_scenario: Vec<&[FailureGroup<'_>]> =
            failures.chunk_by(|a, b| std::ptr::eq(a.scenario, b.scenario)).collect();
        let one_reason = protocol.doubt.is_some() || symptom.is_some();
        let in_full = if one_reason { self.limit(FULL_SIMILAR_FAILURES) } else { self.most() };
        for failures in by_scenario.iter().take(in_full) {
            self.write_failures(protocol, failures);
        }
        if in_full < self.most() && by_scenario.len() > in_full {
            self.gap();
            for one in by_scenario.iter().take(self.most()).skip(in_full).flat_map(|failures| failures.iter()) {
                self.write_brief("fail", one);
            }
        }
        self.more(by_scenario.len(), "failed scenario");
    }

    /// Lists the root causes if there are several, one per line, each with the rules that it breaks and the checks that
    /// it blocks.
    fn write_root_causes(&mut self, protocol: &ProtocolReport) {
        let expected = |cause: &RootCause<'_>| match cause {
            RootCause::Check(one) => one.check.known.is_some(),
            RootCause::Precondition(cause, _) => protocol.is_expected_cause(cause),
        };
        let mut causes = protocol.root_causes();
        causes.retain(|cause| !expected(cause));
        if causes.len() < 2 {
            return;
        }
        self.gap();
        self.line(&format!("{}, most blocking first:", format_count(causes.len(), "cause")));
        for cause in causes.iter().take(self.most()) {
            let what = match cause {
                RootCause::Check(one) => {
                    format!(
                        "{}: {}",
                        one.check.name,
                        escape_unprintable(one.scenario.check_report(one.check).message_or_step())
                    )
                }
                RootCause::Precondition(cause, _) if cause.unreachable => "the hub could not be reached".to_owned(),
                RootCause::Precondition(cause, _) if cause.unauthenticated => {
                    format!("the hub refused the client's credentials: {}", escape_unprintable(&cause.message))
                }
                RootCause::Precondition(cause, _) if cause.step.is_empty() => {
                    escape_unprintable(&cause.message).into_owned()
                }
                RootCause::Precondition(cause, _) => {
                    format!("`{}`: {}", escape_unprintable(&cause.step), escape_unprintable(&cause.message))
                }
            };
            let mut facts = Vec::new();
            if !cause.broken_rules().is_empty() {
                facts.push(format!("breaks {}", cause.broken_rules().join(", ")));
            }
            let blocks = cause.blocked_checks();
            if blocks.checks > 0 {
                facts.push(format!("blocks {}", describe_blocked(&blocks, MAX_CAUSE_RULES)));
            }
            facts.push(format!("in {}", format_count(cause.scenarios().len(), "scenario")));
            let what = shorten(what.trim_end_matches('.'), MAX_CAUSE_CHARS).into_owned();
            self.wrapped("  - ", &format!("{what}; {}", facts.join(", ")));
        }
        self.more(causes.len(), "cause");
    }

    // Failed preconditions.

    fn write_causes(&mut self, protocol: &ProtocolReport) {
        let causes: Vec<&SharedPreconditionFailure> =
            protocol.causes.iter().filter(|cause| !protocol.is_expected_cause(cause)).collect();
        for cause in causes.iter().take(self.most()) {
            self.gap();
            self.write_cause(protocol, cause);
        }
        self.more(causes.len(), "cause");
    }

    fn write_cause(&mut self, protocol: &ProtocolReport, cause: &SharedPreconditionFailure) {
        let scenarios = format_count(cause.scenarios.len(), "scenario");
        if cause.unreachable {
            let never = protocol.check_tally().decided() == 0;
            return self.write_unreachable(&cause.message, &scenarios, never);
        }
        let (message, end) = sentence_end(&cause.message);
        let what = if cause.at_once { "could not start" } else { "could not continue" };
        let place = cause.span.map(|span| format!(" ({})", self.sources.path_and_line(span))).unwrap_or_default();
        let step = if cause.step.is_empty() {
            String::new()
        } else {
            format!("`{}`{place}: ", escape_unprintable(&cause.step))
        };
        self.wrapped("", &format!("{scenarios} {what}: {step}{message}{end}"));
        if cause.unauthenticated {
            self.wrapped("  ", &describe_credentials(&protocol.secrets));
        }
        if let Some(detail) = &cause.detail {
            self.write_detail(detail);
        }
        self.field("stopped", &list(&cause.scenarios, self.names()));
        self.write_blocked(&cause.blocks);
        if let Some(first) = cause.scenarios.first() {
            self.write_command(
                "reproduce",
                &reproduce_command(&self.report.options, &protocol.name, &selection_arguments(first), 1),
            );
        }
    }

    /// Shows that no connection could be made, and what to try. `needed` says what needed one, such as `3 scenarios`.
    fn write_unreachable(&mut self, message: &str, needed: &str, never: bool) {
        let (message, end) = sentence_end(message);
        let nothing = if never { "nothing was checked" } else { "it was reachable before" };
        let target = escape_unprintable(&self.report.options.target);
        let what = format!("The hub at {target} could not be reached: {message}{end}");
        self.wrapped("", &format!("{what} {needed} needed a connection; {nothing}."));
        self.wrapped("  ", UNREACHABLE_HELP);
    }

    fn write_mistake(&mut self, scenario: &ScenarioResult) {
        let mistake = escape_unprintable(scenario.mistake().unwrap_or_default()).into_owned();
        self.snippet(
            Level::ERROR,
            None,
            &format!("scenario {} has a mistake: {mistake}", scenario.id),
            Some(scenario.place()),
        );
        self.wrapped("  ", "This proves nothing about the hub: fix the scenario.");
    }

    // Failures of the hub.

    /// Shows the failures of one scenario; there is at least one.
    fn write_failures(&mut self, protocol: &ProtocolReport, failures: &[FailureGroup<'_>]) {
        let scenario = failures[0].scenario;
        let mut shown: Option<(&ScenarioReport, Option<&FindingDetail>)> = None;
        for FailureGroup { check, also, blocks, .. } in failures {
            self.gap();
            let report = scenario.check_report(check);
            let title = format!("{}: {}", scenario.id, escape_unprintable(report.message_or_step()));
            self.snippet(Level::ERROR.with_name("fail"), Some(&check.name), &title, report.span);
            if let Some(flaky) = check.flaky {
                self.field("flaky", &format!("failed {}", flaky.shown()));
            }
            self.write_rules(protocol, report);
            if let Some(detail) = &report.detail {
                self.write_detail(detail);
            }
            self.write_other_scenarios(also);
            self.write_blocked(blocks);
            if check.name == HANG_CHECK {
                self.field("help", HANG_HELP);
            }
            if let Some(command) = explain_command(&self.report.options, protocol, report) {
                self.write_command("explain", &command);
            }
            let run = scenario.run_of_check(check);
            if shown.is_none_or(|(shown, _)| shown.history.is_empty() && !run.history.is_empty()) {
                shown = Some((run, report.detail.as_ref()));
            }
        }
        let Some((run, detail)) = shown else { return };
        self.write_frames(scenario, run, detail);
        self.gap();
        let repeat = failures.iter().filter_map(|one| one.check.flaky).map(|flaky| flaky.decided).max().unwrap_or(1);
        self.write_command(
            "reproduce",
            &reproduce_command(&self.report.options, &protocol.name, &scenario.again, repeat),
        );
    }

    fn write_rules(&mut self, protocol: &ProtocolReport, check: &CheckReport) {
        for used in check.rules_of_verdict() {
            let Some(rule) = protocol.rules.get(&used.id) else {
                self.field("rule", &format!("{} ({})", used.id, used.level.name()));
                continue;
            };
            self.field("rule", &format!("{} {}", used.id, escape_unprintable(&rule.text)));
            self.field("", &describe_rule_basis(rule, used.lowered.then_some(used.level.name()), &protocol.document));
        }
    }

    fn write_detail(&mut self, detail: &FindingDetail) {
        let most = self.limit(MAX_TEXT_CHARS);
        let short = |text: &str| shorten(&escape_unprintable(text), most).into_owned();
        let (sent, expected, received) =
            (detail.sent.as_deref().map(short), short(&detail.expected), short(&detail.received));
        if let Some(sent) = sent {
            // Most scenarios have several actors; this one waited for the answer.
            let by = detail.sender.as_ref().unwrap_or(&detail.actor);
            let by = if by.is_empty() { String::new() } else { format!("by {by}: ") };
            self.field("sent", &format!("{by}{sent}"));
        }
        if let Some(round) = &detail.round {
            self.field("round", &short(round));
        }
        if !expected.is_empty() {
            self.field("expected", &expected);
        }
        if !received.is_empty() {
            self.field("received", &received);
        }
        if let Some(waited) = detail.waited {
            self.field("waited", &format_time(waited));
        }
    }

    fn write_frames(&mut self, scenario: &ScenarioResult, run: &ScenarioReport, detail: Option<&FindingDetail>) {
        if run.history.is_empty() {
            return;
        }
        self.gap();
        let all = run.history.len() + run.history_dropped;
        let shown = telling_lines(detail, &run.history, self.limit(SHOWN_FRAMES));
        let is_end = shown.len() == run.history.len()
            || shown.iter().rev().zip((0..run.history.len()).rev()).all(|(one, end)| *one == end);
        let of = match (shown.len() < all, is_end) {
            (false, _) => "all events".to_owned(),
            (true, true) => format!("last {} of {}", shown.len(), format_count(all, "event")),
            (true, false) => format!("{} of {}, around the failure", shown.len(), format_count(all, "event")),
        };
        let repetition =
            if scenario.runs.len() > 1 { format!(", repetition {}", run.repetition) } else { String::new() };
        self.line(&format!("  {}{repetition}, {of}:", scenario.id));
        let actors = shown.iter().map(|index| run.history[*index].actor.chars().count()).max().unwrap_or(0);
        let mut next = shown.first().copied().unwrap_or_default();
        for index in shown {
            if index > next {
                self.line(&self.paint(DIM, &format!("  {:>10}", "...")));
            }
            next = index + 1;
            let line = frame_line(&run.history[index], actors);
            let line = shorten(line.trim_end(), self.style.width.max(40)).into_owned();
            self.line(&self.paint(DIM, &line));
        }
    }

    fn write_warnings(&mut self, protocol: &ProtocolReport) {
        let warned = group_failures(unexpected_checks(protocol, Verdict::Warn));
        for FailureGroup { scenario, check, also, blocks } in warned.iter().take(self.most()) {
            self.gap();
            let report = scenario.check_report(check);
            let flaky = check.flaky.map(|flaky| format!(" ({})", flaky.shown())).unwrap_or_default();
            let yellow = BOLD.fg_color(Some(AnsiColor::Yellow.into()));
            let head = self.paint(yellow, &format!("warn[{}]", check.name));
            let place = self.sources.path_and_line(report.span.unwrap_or(scenario.span));
            self.wrapped(
                "",
                &format!("{head}: {}: {}{flaky} ({place})", scenario.id, escape_unprintable(report.message_or_step())),
            );
            self.write_rules(protocol, report);
            if let Some(detail) = &report.detail {
                let brief = FindingDetail { sent: None, waited: None, ..detail.clone() };
                self.write_detail(&brief);
            }
            self.write_other_scenarios(also);
            self.write_blocked(blocks);
        }
        self.more(warned.len(), "warning");
    }

    /// Shows one line for each inconclusive check that was evaluated, or that no cause above explains.
    fn write_undecided(&mut self, protocol: &ProtocolReport) {
        let explained = |scenario: &ScenarioResult| {
            scenario.mistake().is_some()
                || scenario.checks.iter().any(|check| check.verdict == Verdict::Fail)
                || protocol.causes.iter().any(|cause| cause.scenarios.contains(&scenario.id))
        };
        let mut undecided = checks_with_verdict(protocol, Verdict::Inconclusive);
        // A check that was never evaluated has no step.
        undecided.retain(|(scenario, check)| {
            let report = scenario.check_report(check);
            // A cause above shows this step already.
            let shown = scenario.run_of_check(check).cause.as_ref().is_some_and(|cause| {
                report.step == cause.step || (report.detail.is_some() && report.detail == cause.detail)
            });
            !explained(scenario) || !(report.step.is_empty() || shown)
        });
        let undecided = group_failures(undecided);
        if !undecided.is_empty() {
            self.gap();
        }
        for one in undecided.iter().take(self.most()) {
            self.write_brief("inconclusive", one);
        }
        self.more(undecided.len(), "undecided check");
    }

    fn write_infos(&mut self, protocol: &ProtocolReport) {
        let infos = group_failures(checks_with_verdict(protocol, Verdict::Info));
        if !infos.is_empty() {
            self.gap();
        }
        for one in &infos {
            self.write_brief("info", one);
        }
    }

    /// Shows the checks that could not be evaluated because of a failure.
    fn write_blocked(&mut self, blocks: &BlockedChecks) {
        if blocks.checks > 0 {
            self.field("blocks", &describe_blocked(blocks, self.names()));
        }
    }

    /// Shows other scenarios with the same failure.
    fn write_other_scenarios(&mut self, scenarios: &[String]) {
        if !scenarios.is_empty() {
            self.field("also in", &list(scenarios, self.names()));
        }
    }

    fn write_brief(&mut self, word: &str, one: &FailureGroup<'_>) {
        let FailureGroup { scenario, check, also, .. } = one;
        let report = scenario.check_report(check);
        let place = self.sources.path_and_line(report.span.unwrap_or(scenario.span));
        let also =
            if also.is_empty() { String::new() } else { format!(", also in {}", format_count(also.len(), "scenario")) };
        let what = escape_unprintable(report.message_or_step());
        self.wrapped("", &format!("{word}[{}]: {}: {what} ({place}){also}", check.name, scenario.id));
    }

    // Output.

    /// Writes a command on one line, so that it can be copied.
    fn write_command(&mut self, name: &str, command: &str) {
        self.line(&format!("  {name:<12}{}", self.paint(BOLD, command)));
    }
}

/// Formats `must, stated in line 43 of "the document"`.
fn describe_rule_basis(rule: &RuleReport, lowered: Option<&str>, document: &str) -> String {
    let of = if document.is_empty() { String::new() } else { format!(" of \"{document}\"") };
    let level = match lowered {
        Some(lowered) => format!("{}, here only {lowered}", rule.level.name()),
        None => rule.level.name().to_owned(),
    };
    if rule.place == RulePlace::Oracle {
        return format!("{level}, a hubproof oracle that applies to any hub");
    }
    match (rule.basis, &rule.from) {
        (RuleBasis::Stated, _) => format!("{level}, stated in {}{of}", rule.place),
        (RuleBasis::Implied, from) => {
            let from = from.as_ref().map(|from| format!(", from: {}", escape_unprintable(from))).unwrap_or_default();
            format!("{level}, implied by {}{of}{from}", rule.place)
        }
        (RuleBasis::Silent, _) => format!("{level}; the document{of} is silent here, see {}", rule.place),
    }
}

/// Formats `  0.003 s  anna  <- text   {"say":...`
fn frame_line(frame: &FrameReport, actors: usize) -> String {
    let arrow = match frame.direction {
        HistoryDirection::Sent => "->",
        HistoryDirection::Received => "<-",
        HistoryDirection::Neither => "--",
    };
    let whole = if frame.hash.is_some() { format!("[{} bytes] ", frame.size) } else { String::new() };
    format!(
        "  {:>8.3} s  {:<actors$} {arrow} {:<6} {whole}{}",
        frame.at.as_secs_f64(),
        frame.actor,
        frame.kind.name(),
        escape_unprintable(&frame.text)
    )
}

/// Formats `4 checks of CON-001, CON-002 and 2 more`.
fn describe_blocked(blocks: &BlockedChecks, most: usize) -> String {
    let rules: Vec<String> = blocks.rules.iter().cloned().collect();
    let of = if rules.is_empty() { String::new() } else { format!(" of {}", list(&rules, most)) };
    format!("{}{of}", format_count(blocks.checks, "check"))
}

/// Returns a message without its full stop, and the full stop that ends it in a sentence: none after a question.
fn sentence_end(message: &str) -> (String, &'static str) {
    let message = escape_unprintable(message).trim_end_matches('.').to_owned();
    let end = if message.ends_with(['?', '!']) { "" } else { "." };
    (message, end)
}

/// Returns checks of this verdict that no baseline expects.
fn unexpected_checks(protocol: &ProtocolReport, verdict: Verdict) -> Vec<(&ScenarioResult, &CheckResult)> {
    let mut checks = checks_with_verdict(protocol, verdict);
    checks.retain(|(_, check)| check.known.is_none());
    checks
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::fixture::{RunFixture, options};
    use super::*;

    #[rstest]
    #[case("all_pass", RunFixture::all_pass())]
    #[case("one_failure", RunFixture::one_failure())]
    #[case("warning", RunFixture::warning())]
    #[case("flaky", RunFixture::flaky())]
    #[case("greeting_broken", RunFixture::greeting_broken())]
    #[case("inconclusive", RunFixture::inconclusive())]
    #[case("unreachable", RunFixture::unreachable())]
    #[case("refused_credentials", RunFixture::refused_credentials())]
    #[case("shortened", RunFixture::shortened())]
    #[case("not_testable", RunFixture::not_testable())]
    #[case("nothing_testable", RunFixture::nothing_testable())]
    #[case("other_protocol", RunFixture::other_protocol())]
    #[case("interrupted", RunFixture::interrupted())]
    #[case("mistake", RunFixture::mistake())]
    #[case("selection", RunFixture::selection())]
    #[case("hostile", RunFixture::hostile())]
    #[case("schema_broken", RunFixture::schema_broken())]
    #[case("fallen", RunFixture::hub_ended(None))]
    #[case("fallen_blamed", RunFixture::hub_ended(Some("greeter/hello")))]
    fn the_summary_of_each_fixture_run_matches_the_snapshot(#[case] name: &str, #[case] run: RunFixture) {
        let text = summary(&run.report(options()), &run.sources, Style::default());
        insta::assert_snapshot!(name, text);
    }

    #[test]
    fn verbose_output_also_lists_rules_that_are_only_recorded() {
        let run = RunFixture::warning();
        let report = run.report(options());
        let verbose = summary(&report, &run.sources, Style { verbose: true, ..Style::default() });
        assert!(verbose.contains("info[GRE-001]: greeter/hello: answered late"), "{verbose}");
        assert!(!summary(&report, &run.sources, Style::default()).contains("answered late"));
    }

    #[rstest]
    #[case(RunFixture::greeting_broken())]
    #[case(RunFixture::warning())]
    #[case(RunFixture::flaky())]
    #[case(RunFixture::mistake())]
    fn colors_do_not_change_the_text(#[case] run: RunFixture) {
        let report = run.report(options());
        let colored = summary(&report, &run.sources, Style { color: true, ..Style::default() });
        let mut parts = colored.split('\u{1b}');
        let mut plain = parts.next().unwrap_or_default().to_owned();
        let painted = parts.map(|part| plain.push_str(part.split_once('m').unwrap().1)).count();
        assert!(painted > 4);
        assert_eq!(plain, summary(&report, &run.sources, Style::default()));
    }

    #[test]
    fn a_hang_comes_with_the_ways_to_judge_more() {
        let mut run = RunFixture::all_pass();
        run.reports[0].checks.push(CheckReport::new(HANG_CHECK, Verdict::Fail));
        let text = summary(&run.report(options()), &run.sources, Style::default());
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&format!("help {HANG_HELP}")), "{text}");
        for way in ["--exec", "`restart`", "-j 1"] {
            assert!(HANG_HELP.contains(way));
        }
    }

    #[test]
    fn a_narrow_terminal_or_a_span_past_the_end_does_not_panic() {
        let mut run = RunFixture::hostile();
        let report = run.report(options());
        let text = summary(&report, &run.sources, Style { width: 0, ..Style::default() });
        let end = "  musts       5 of 6 judged; 1 checked\n              only at a lower level\n";
        assert!(text.ends_with(end), "{text}");
        // Spans beyond the end of their sources.
        let paths: Vec<String> = (0..10).map(|i| format!("file-{i}.yaml")).collect();
        run.sources = Sources::default();
        for path in paths {
            run.sources.add(path, "short");
        }
        summary(&report, &run.sources, Style::default());
    }
}
