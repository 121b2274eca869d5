//! The summary for the terminal. It shows, per protocol, the failed preconditions, the failures in full, the warnings
//! in brief, and totals. It ends with one verdict line per protocol.

mod fuzz;
mod known;
mod process;

use std::collections::{BTreeMap, BTreeSet};

use annotate_snippets::Level as Title;
use anstyle::AnsiColor;

use super::causes::{Alike, Blocks, RootCause, alike, checks_with, symptom};
use super::terminal_page::{self, BOLD, DIM, Page, Style, list};
use super::text::{count, cut, printable, quoted, time};
use super::{
    CheckResult, Doubt, ProtocolReport, RuleReport, RuleStatus, RunReport, ScenarioResult, SharedCause, Tally, chosen,
    reach, reproduce,
};
use crate::event::{CheckReport, Detail, Direction, FrameReport, ScenarioReport, Verdict};
use crate::protocol::{Basis, Place};
use crate::syntax::source::Sources;

/// How many of the last frames of a failed scenario are shown.
const LAST_FRAMES: usize = 8;
/// How many failed scenarios are shown in full if they all seem to have the same cause.
const ALIKE_IN_FULL: usize = 2;
/// The machine may be too slow if a successful wait had less time left than this.
const SLIM: std::time::Duration = std::time::Duration::from_millis(250);
/// Advice for a hub that cannot be reached.
const UNREACHABLE_HELP: &str =
    "Is it running, and is this its address? Try the address with any other WebSocket client.";
/// Most rules in the line of a cause and in the verdict line.
const FEW_RULES: usize = 3;
/// Most characters of a message in the line of a cause.
const CAUSE_LINE: usize = 160;
/// Most characters of a frame or another long text.
const LONG: usize = 400;

/// Returns the whole summary; ends with a newline. `sources` has the files of the report's spans.
pub fn summary(report: &RunReport, sources: &Sources, style: Style) -> String {
    let mut page = Page::new(&report.tool_version, &report.options.target, report, sources, style);
    for protocol in &report.protocols {
        page.gap();
        page.protocol(protocol);
    }
    page.gap();
    if report.protocols.is_empty() {
        page.line("Nothing was checked: no scenario was selected.");
    }
    if report.interrupted {
        page.line(&format!(
            "Interrupted after {}: the results cover only what was played until then.",
            time(report.duration)
        ));
    }
    for protocol in &report.protocols {
        page.verdict(protocol.exit_code(&report.options), &protocol.name, &verdict_parts(protocol));
        page.counts(protocol);
    }
    page.out
}

/// Returns the verdict on a protocol in one line.
pub fn verdict_line(protocol: &ProtocolReport, exit_code: u8) -> String {
    terminal_page::verdict_line(exit_code, &protocol.name, &verdict_parts(protocol))
}

/// Returns the parts of the verdict line: `1 of 23 rules broken (CON-042)`, `5 not judged`.
fn verdict_parts(protocol: &ProtocolReport) -> Vec<String> {
    if let Some(fuzzed) = &protocol.fuzzed {
        return fuzz::verdict_parts(protocol, fuzzed);
    }
    let checks = protocol.check_tally();
    let rules = protocol.rule_totals();
    let mut parts = Vec::new();
    let mistakes = protocol.scenarios.iter().filter(|scenario| scenario.mistake().is_some()).count();
    if mistakes > 0 {
        parts.push(format!("{} with a mistake", count(mistakes, "scenario")));
    }
    let (mut broken, mut without_rule) = (BTreeSet::new(), BTreeSet::new());
    let failed = unknown(protocol, Verdict::Fail);
    for (scenario, check) in &failed {
        // A scenario file outside the pack may name a rule that the pack does not have.
        let of_pack = scenario.report(check).rules_of_verdict().filter(|used| protocol.rules.contains_key(&used.id));
        let rules: Vec<String> = of_pack.map(|used| used.id.clone()).collect();
        if rules.is_empty() {
            without_rule.insert(check.name.clone());
        }
        broken.extend(rules);
    }
    let names = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>();
    if !without_rule.is_empty() {
        let names = names(without_rule);
        parts.push(format!("{} without a rule failed ({})", count(names.len(), "check"), list(&names, names.len())));
    }
    let open = rules.testable - rules.proven;
    let holds = rules.holding > 0 && failed.is_empty();
    let of_rules = if holds || !broken.is_empty() { open.to_string() } else { count(open, "rule") };
    if !broken.is_empty() {
        parts.push(terminal_page::broken(&names(broken), rules.testable, "rule", FEW_RULES));
    } else if holds {
        parts.push(if rules.holding == 1 {
            "1 rule holds".to_owned()
        } else {
            format!("{} rules hold", rules.holding)
        });
    }
    if checks.decided() == 0 {
        parts.push("nothing could be checked".to_owned());
    } else if open > 0 {
        parts.push(format!("{of_rules} not judged"));
    }
    if protocol.known() > 0 {
        parts.push(count(protocol.known(), "known failure"));
    }
    parts.extend(process::verdict(protocol));
    if protocol.stale().next().is_some() {
        parts.push(format!("{} in the baseline", count(protocol.stale().count(), "stale line")));
    }
    parts.extend(terminal_page::stale_deviations(&protocol.deviations));
    if protocol.unknown(Verdict::Warn) > 0 {
        parts.push(count(protocol.unknown(Verdict::Warn), "warning"));
    }
    if !protocol.unplayed.is_empty() {
        parts.push(format!("{} not played", count(protocol.unplayed.len(), "scenario")));
    }
    if parts.is_empty() {
        parts.push(format!("{} without a rule passed", count(checks.decided(), "check")));
    }
    parts
}

/// Returns why the hub may implement another protocol, in one line.
pub fn doubt(protocol: &str, doubt: Doubt) -> String {
    let why = match doubt {
        Doubt::Unrecognised { unknown, received } => {
            let kinds = if received == 1 { "1 kind".to_owned() } else { format!("{received} kinds") };
            let matches = if unknown == 1 { "matches" } else { "match" };
            format!("Of {kinds} of messages received, {unknown} {matches} no message of {protocol}")
        }
        Doubt::NothingWorks { broken, played } => {
            format!("In {broken} of {} no check passed", count(played, "scenario"))
        }
    };
    format!(
        "Is this really a hub that speaks {protocol}? {why}. It may speak another protocol; choose the right one with `--protocol`."
    )
}

impl Page<'_, RunReport> {
    fn protocol(&mut self, protocol: &ProtocolReport) {
        let head = format!("{} {}", protocol.name, protocol.pack_version);
        let document = if protocol.document.is_empty() { String::new() } else { format!("   {}", protocol.document) };
        self.line(&format!("{}{}", self.paint(BOLD, &head), self.paint(DIM, &document)));
        if let Some(fuzzed) = &protocol.fuzzed {
            return self.fuzzed(protocol, fuzzed);
        }
        if protocol.doubt.is_none() {
            self.root_causes(protocol);
        }
        // The cause that explains most comes first.
        let stopped = protocol.causes.first().map_or(0, |cause| cause.scenarios.len());
        let causes_first = match protocol.doubt {
            Some(Doubt::NothingWorks { broken, .. }) => stopped * 2 > broken,
            Some(Doubt::Unrecognised { .. }) | None => false,
        };
        if causes_first {
            self.causes(protocol);
        }
        if let Some(doubt) = protocol.doubt {
            self.gap();
            self.doubt(protocol, doubt);
        }
        if !causes_first {
            self.causes(protocol);
        }
        self.deviations(&protocol.deviations);
        self.crashes(protocol);
        let mut failures = alike(unknown(protocol, Verdict::Fail));
        let played = protocol.scenarios.iter().filter(|scenario| scenario.verdict != Verdict::NotTestable).count();
        let symptom = symptom(&failures, played).map(|(message, failed)| (message.to_owned(), failed));
        if let Some((message, failed)) = &symptom
            && protocol.doubt.is_none()
        {
            self.gap();
            let failed = format!("{failed} of {} failed in the same way", count(played, "scenario"));
            self.wrapped("", &format!("{failed}: {}.", printable(message).trim_end_matches('.')));
        }
        for scenario in protocol.scenarios.iter().filter(|scenario| scenario.mistake().is_some()) {
            self.gap();
            self.mistake(scenario);
        }
        // What blocks most comes first.
        let mut weights = BTreeMap::<&str, usize>::new();
        failures.iter().for_each(|one| *weights.entry(&one.scenario.id).or_default() += one.blocks.checks);
        failures.sort_by_key(|one| std::cmp::Reverse(weights.get(one.scenario.id.as_str()).copied()));
        let by_scenario: Vec<&[Alike<'_>]> = failures.chunk_by(|a, b| std::ptr::eq(a.scenario, b.scenario)).collect();
        let one_reason = protocol.doubt.is_some() || symptom.is_some();
        let in_full =
            if one_reason { if self.style.verbose { usize::MAX } else { ALIKE_IN_FULL } } else { self.most() };
        for failures in by_scenario.iter().take(in_full) {
            self.failures(protocol, failures);
        }
        if in_full < self.most() && by_scenario.len() > in_full {
            self.gap();
            for one in by_scenario.iter().take(self.most()).skip(in_full).flat_map(|failures| failures.iter()) {
                self.brief("fail", one);
            }
        }
        self.more(by_scenario.len(), "failed scenario");
        self.warnings(protocol);
        self.undecided(protocol);
        self.known(protocol);
        self.proposals(protocol);
        if self.style.verbose {
            self.infos(protocol);
        }
        self.log(protocol);
        if let Some(too_little) = protocol.too_little(&self.report.options)
            && protocol.check_tally().decided() > 0
            && protocol.exit_code(&self.report.options) == 3
            && protocol.unplayed.is_empty()
        {
            self.gap();
            self.wrapped("", &reach::explained(protocol, too_little));
        }
        self.gap();
        self.numbers(protocol);
    }

    /// Lists the root causes if there are several, one per line, each with the rules that it breaks and the checks that
    /// it blocks.
    fn root_causes(&mut self, protocol: &ProtocolReport) {
        let expected = |cause: &RootCause<'_>| match cause {
            RootCause::Check(one) => one.check.known.is_some(),
            RootCause::Precondition(cause) => protocol.expects(cause),
        };
        let mut causes = protocol.root_causes();
        causes.retain(|cause| !expected(cause));
        if causes.len() < 2 {
            return;
        }
        self.gap();
        self.line(&format!("{}, most blocking first:", count(causes.len(), "cause")));
        for cause in causes.iter().take(self.most()) {
            let what = match cause {
                RootCause::Check(one) => {
                    format!("{}: {}", one.check.name, printable(one.scenario.report(one.check).message_or_step()))
                }
                RootCause::Precondition(cause) if cause.unreachable => "the hub could not be reached".to_owned(),
                RootCause::Precondition(cause) if cause.step.is_empty() => printable(&cause.message).into_owned(),
                RootCause::Precondition(cause) => {
                    format!("`{}`: {}", printable(&cause.step), printable(&cause.message))
                }
            };
            let mut facts = Vec::new();
            if !cause.breaks().is_empty() {
                facts.push(format!("breaks {}", cause.breaks().join(", ")));
            }
            if cause.blocks().checks > 0 {
                facts.push(format!("blocks {}", blocked(cause.blocks(), FEW_RULES)));
            }
            facts.push(format!("in {}", count(cause.found_in(), "scenario")));
            let what = cut(what.trim_end_matches('.'), CAUSE_LINE).into_owned();
            self.wrapped("  - ", &format!("{what}; {}", facts.join(", ")));
        }
        self.more(causes.len(), "cause");
    }

    // Failed preconditions.

    fn causes(&mut self, protocol: &ProtocolReport) {
        let causes: Vec<&SharedCause> = protocol.causes.iter().filter(|cause| !protocol.expects(cause)).collect();
        for cause in causes.iter().take(self.most()) {
            self.gap();
            self.cause(protocol, cause);
        }
        self.more(causes.len(), "cause");
    }

    fn cause(&mut self, protocol: &ProtocolReport, cause: &SharedCause) {
        let scenarios = count(cause.scenarios.len(), "scenario");
        if cause.unreachable {
            let never = protocol.check_tally().decided() == 0;
            return self.unreachable(&cause.message, &scenarios, never);
        }
        let (message, end) = sentence(&cause.message);
        let what = if cause.at_once { "could not start" } else { "could not continue" };
        let place = cause.span.map(|span| format!(" ({})", self.sources.place(span))).unwrap_or_default();
        let step = if cause.step.is_empty() { String::new() } else { format!("`{}`{place}: ", printable(&cause.step)) };
        self.wrapped("", &format!("{scenarios} {what}: {step}{message}{end}"));
        if let Some(detail) = &cause.detail {
            self.detail(detail);
        }
        self.field("stopped", &list(&cause.scenarios, self.names()));
        self.blocks(&cause.blocks);
        if let Some(first) = cause.scenarios.first() {
            self.command(&reproduce(&self.report.options, &protocol.name, &chosen(first), 1));
        }
    }

    /// Shows that no connection could be made, and what to try. `needed` says what needed one, such as `3 scenarios`.
    fn unreachable(&mut self, message: &str, needed: &str, never: bool) {
        let (message, end) = sentence(message);
        let nothing = if never { "nothing was checked" } else { "it was reachable before" };
        let target = printable(&self.report.options.target);
        let what = format!("The hub at {target} could not be reached: {message}{end}");
        self.wrapped("", &format!("{what} {needed} needed a connection; {nothing}."));
        self.wrapped("  ", UNREACHABLE_HELP);
    }

    fn doubt(&mut self, protocol: &ProtocolReport, doubt: Doubt) {
        self.wrapped("", &self::doubt(&protocol.name, doubt));
    }

    fn mistake(&mut self, scenario: &ScenarioResult) {
        let mistake = printable(scenario.mistake().unwrap_or_default()).into_owned();
        self.snippet(
            Title::ERROR,
            None,
            &format!("scenario {} has a mistake: {mistake}", scenario.id),
            Some(scenario.span),
        );
        self.wrapped("  ", "This proves nothing about the hub: fix the scenario.");
    }

    // Failures of the hub.

    /// Shows the failures of one scenario; there is at least one.
    fn failures(&mut self, protocol: &ProtocolReport, failures: &[Alike<'_>]) {
        let scenario = failures[0].scenario;
        let mut shown: Option<&ScenarioReport> = None;
        for Alike { check, also, blocks, .. } in failures {
            self.gap();
            let report = scenario.report(check);
            let title = format!("{}: {}", scenario.id, printable(report.message_or_step()));
            self.snippet(Title::ERROR.with_name("fail"), Some(&check.name), &title, report.span);
            if let Some(flaky) = check.flaky {
                self.field("flaky", &format!("failed {}", flaky.shown()));
            }
            self.rules(protocol, report);
            if let Some(detail) = &report.detail {
                self.detail(detail);
            }
            self.also(also);
            self.blocks(blocks);
            let run = scenario.run_of(check);
            if shown.is_none_or(|shown| shown.history.is_empty() && !run.history.is_empty()) {
                shown = Some(run);
            }
        }
        let Some(run) = shown else { return };
        self.frames(scenario, run);
        self.gap();
        let repeat = failures.iter().filter_map(|one| one.check.flaky).map(|flaky| flaky.decided).max().unwrap_or(1);
        self.command(&reproduce(&self.report.options, &protocol.name, &scenario.again, repeat));
    }

    fn rules(&mut self, protocol: &ProtocolReport, check: &CheckReport) {
        for used in check.rules_of_verdict() {
            let Some(rule) = protocol.rules.get(&used.id) else {
                self.field("rule", &format!("{} ({})", used.id, used.level.name()));
                continue;
            };
            self.field("rule", &format!("{} {}", used.id, printable(&rule.text)));
            self.field("", &carried(rule, used.lowered.then_some(used.level.name()), &protocol.document));
        }
    }

    fn detail(&mut self, detail: &Detail) {
        let short = |text: &str| cut(&printable(text), if self.style.verbose { usize::MAX } else { LONG }).into_owned();
        let (sent, expected, received) =
            (detail.sent.as_deref().map(short), short(&detail.expected), short(&detail.received));
        if let Some(sent) = sent {
            // Most scenarios have several actors; this one waited for the answer.
            let by = if detail.actor.is_empty() { String::new() } else { format!("by {}: ", detail.actor) };
            self.field("sent", &format!("{by}{sent}"));
        }
        if !expected.is_empty() {
            self.field("expected", &expected);
        }
        if !received.is_empty() {
            self.field("received", &received);
        }
        if let Some(waited) = detail.waited {
            self.field("waited", &time(waited));
        }
    }

    fn frames(&mut self, scenario: &ScenarioResult, run: &ScenarioReport) {
        if run.history.is_empty() {
            return;
        }
        self.gap();
        let all = run.history.len() + run.history_dropped;
        let first = run.history.len().saturating_sub(if self.style.verbose { usize::MAX } else { LAST_FRAMES });
        let shown = run.history.len() - first;
        let of = if shown < all { format!("last {shown} of {}", count(all, "event")) } else { "all events".to_owned() };
        let repetition =
            if scenario.runs.len() > 1 { format!(", repetition {}", run.repetition) } else { String::new() };
        self.line(&format!("  {}{repetition}, {of}:", scenario.id));
        let actors = run.history[first..].iter().map(|frame| frame.actor.chars().count()).max().unwrap_or(0);
        for frame in &run.history[first..] {
            let line = frame_line(frame, actors);
            let line = cut(line.trim_end(), self.style.width.max(40)).into_owned();
            self.line(&self.paint(DIM, &line));
        }
    }

    fn warnings(&mut self, protocol: &ProtocolReport) {
        let warned = alike(unknown(protocol, Verdict::Warn));
        for Alike { scenario, check, also, blocks } in warned.iter().take(self.most()) {
            self.gap();
            let report = scenario.report(check);
            let flaky = check.flaky.map(|flaky| format!(" ({})", flaky.shown())).unwrap_or_default();
            let yellow = BOLD.fg_color(Some(AnsiColor::Yellow.into()));
            let head = self.paint(yellow, &format!("warn[{}]", check.name));
            let place = self.sources.place(report.span.unwrap_or(scenario.span));
            self.wrapped(
                "",
                &format!("{head}: {}: {}{flaky} ({place})", scenario.id, printable(report.message_or_step())),
            );
            self.rules(protocol, report);
            if let Some(detail) = &report.detail {
                let brief = Detail { sent: None, waited: None, ..detail.clone() };
                self.detail(&brief);
            }
            self.also(also);
            self.blocks(blocks);
        }
        self.more(warned.len(), "warning");
    }

    /// Shows one line for each inconclusive check that was evaluated, or that no cause above explains.
    fn undecided(&mut self, protocol: &ProtocolReport) {
        let explained = |scenario: &ScenarioResult| {
            scenario.mistake().is_some()
                || scenario.checks.iter().any(|check| check.verdict == Verdict::Fail)
                || protocol.causes.iter().any(|cause| cause.scenarios.contains(&scenario.id))
        };
        let mut undecided = checks_with(protocol, Verdict::Inconclusive);
        // A check that was never evaluated has no step.
        undecided.retain(|(scenario, check)| {
            let report = scenario.report(check);
            // A cause above shows this step already.
            let shown = scenario.run_of(check).cause.as_ref().is_some_and(|cause| {
                report.step == cause.step || (report.detail.is_some() && report.detail == cause.detail)
            });
            !explained(scenario) || !(report.step.is_empty() || shown)
        });
        let undecided = alike(undecided);
        if !undecided.is_empty() {
            self.gap();
        }
        for one in undecided.iter().take(self.most()) {
            self.brief("inconclusive", one);
        }
        self.more(undecided.len(), "undecided check");
    }

    fn infos(&mut self, protocol: &ProtocolReport) {
        let infos = alike(checks_with(protocol, Verdict::Info));
        if !infos.is_empty() {
            self.gap();
        }
        for one in &infos {
            self.brief("info", one);
        }
    }

    /// Shows the checks that could not be evaluated because of a failure.
    fn blocks(&mut self, blocks: &Blocks) {
        if blocks.checks > 0 {
            self.field("blocks", &blocked(blocks, self.names()));
        }
    }

    /// Shows other scenarios with the same failure.
    fn also(&mut self, scenarios: &[String]) {
        if !scenarios.is_empty() {
            self.field("also in", &list(scenarios, self.names()));
        }
    }

    fn brief(&mut self, word: &str, one: &Alike<'_>) {
        let Alike { scenario, check, also, .. } = one;
        let report = scenario.report(check);
        let place = self.sources.place(report.span.unwrap_or(scenario.span));
        let also = if also.is_empty() { String::new() } else { format!(", also in {}", count(also.len(), "scenario")) };
        let what = printable(report.message_or_step());
        self.wrapped("", &format!("{word}[{}]: {}: {what} ({place}){also}", check.name, scenario.id));
    }

    // Totals.

    fn numbers(&mut self, protocol: &ProtocolReport) {
        let rules = protocol.rule_totals();
        self.field("scenarios", &tally(&protocol.scenario_tally()));
        self.field(
            "rules",
            &format!(
                "{} of {} testable proven; {} in the pack{}",
                rules.proven,
                rules.testable,
                rules.total,
                self.other_rules(protocol)
            ),
        );
        for (need, waiting) in protocol.unmet_needs() {
            let what = [(waiting.scenarios, "scenario"), (waiting.checks, "check"), (waiting.rules, "rule")];
            let what: Vec<String> = what.iter().filter(|(n, _)| *n > 0).map(|(n, what)| count(*n, what)).collect();
            self.field("not tested", &format!("{}: unmet need `{}`", what.join(", "), printable(&need.name)));
        }
        if !protocol.unmet_needs().is_empty() {
            let words =
                self.report.options.command.iter().map(String::as_str).chain(["--protocol", &protocol.name, "--list"]);
            let command = words.map(quoted).collect::<Vec<_>>().join(" ");
            self.field("", "To list the settings and hooks this protocol can use:");
            self.field("", &self.paint(BOLD, &command));
        }
        let not_reached = protocol
            .scenarios
            .iter()
            .filter(|scenario| scenario.unmet().is_empty())
            .flat_map(|scenario| &scenario.checks);
        let not_reached = not_reached.filter(|check| check.verdict == Verdict::NotTestable).count();
        if not_reached > 0 {
            self.field(
                "not reached",
                &format!(
                    "{}: the situation they test did not occur, as the document allows",
                    count(not_reached, "check")
                ),
            );
        }
        for process in &protocol.processes {
            self.field("hub", &process::starts(process));
        }
        if !protocol.unplayed.is_empty() {
            self.field("not played", &list(&protocol.unplayed, self.names()));
        }
        if self.style.verbose || protocol.exit_code(&self.report.options) != 0 {
            self.leftovers(protocol);
        }
        if let Some((scenario, margin)) = protocol.slimmest() {
            let slim = margin.left() < SLIM && margin.share() > 0.5;
            if slim || self.style.verbose {
                let advice = if slim { "; on a slow machine use a longer `--patience`" } else { "" };
                let (step, waited, bound) = (printable(&margin.step), time(margin.waited), time(margin.bound));
                self.field("closest", &format!("`{step}` of {scenario} took {waited} of {bound}{advice}"));
            }
        }
    }

    fn other_rules(&self, protocol: &ProtocolReport) -> String {
        let of = |wanted: fn(&RuleStatus) -> bool| protocol.rules.values().filter(|rule| wanted(&rule.status)).count();
        let kinds = [
            (of(|status| matches!(status, RuleStatus::NotTestable { .. })), "not testable here"),
            (of(|status| matches!(status, RuleStatus::NotAsked)), "not asked"),
            (of(|status| matches!(status, RuleStatus::OutOfScope(_))), "out of scope"),
            (of(|status| matches!(status, RuleStatus::NoCheck)), "without a check"),
        ];
        let kinds: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) }
    }

    fn leftovers(&mut self, protocol: &ProtocolReport) {
        let mut by_message = BTreeMap::<&str, usize>::new();
        for (message, n) in protocol.scenarios.iter().flat_map(|scenario| &scenario.telling().leftovers) {
            *by_message.entry(message).or_default() += n;
        }
        if !by_message.is_empty() {
            let total = by_message.values().sum();
            let each: Vec<String> =
                by_message.iter().map(|(message, n)| format!("{n} {}", printable(message))).collect();
            self.field(
                "unmatched",
                &format!("{} that no step expected: {}", count(total, "frame"), list(&each, self.names())),
            );
        }
    }

    /// Shows the counts below the verdict line.
    fn counts(&mut self, protocol: &ProtocolReport) {
        if let Some(fuzzed) = &protocol.fuzzed {
            return self.cases(fuzzed);
        }
        let flaky = protocol.scenarios.iter().flat_map(|scenario| &scenario.checks).filter(|one| one.flaky.is_some());
        let flaky = match flaky.count() {
            0 => String::new(),
            flaky => format!("; {flaky} flaky"),
        };
        self.field("checks", &format!("{}{flaky}", tally(&protocol.check_tally())));
        if let Some(reach) = protocol.reach().words() {
            self.field("musts", &reach);
        }
    }

    // Output.

    /// Writes a command on one line, so that it can be copied.
    fn command(&mut self, command: &str) {
        self.line(&format!("  {:<12}{}", "reproduce", self.paint(BOLD, command)));
    }
}

/// Formats `must, stated in line 43 of "the document"`.
fn carried(rule: &RuleReport, lowered: Option<&str>, document: &str) -> String {
    let of = if document.is_empty() { String::new() } else { format!(" of \"{document}\"") };
    let level = match lowered {
        Some(lowered) => format!("{}, here only {lowered}", rule.level.name()),
        None => rule.level.name().to_owned(),
    };
    if rule.place == Place::Oracle {
        return format!("{level}, a hubproof oracle that applies to any hub");
    }
    match (rule.basis, &rule.from) {
        (Basis::Stated, _) => format!("{level}, stated in {}{of}", rule.place),
        (Basis::Implied, from) => {
            let from = from.as_ref().map(|from| format!(", from: {}", printable(from))).unwrap_or_default();
            format!("{level}, implied by {}{of}{from}", rule.place)
        }
        (Basis::Silent, _) => format!("{level}; the document{of} is silent here, see {}", rule.place),
    }
}

/// Formats `  0.003 s  anna  <- text   {"say":...`
fn frame_line(frame: &FrameReport, actors: usize) -> String {
    let arrow = match frame.direction {
        Direction::Sent => "->",
        Direction::Received => "<-",
        Direction::Neither => "--",
    };
    let whole = if frame.hash.is_some() { format!("[{} bytes] ", frame.size) } else { String::new() };
    format!(
        "  {:>8.3} s  {:<actors$} {arrow} {:<6} {whole}{}",
        frame.at.as_secs_f64(),
        frame.actor,
        frame.kind,
        printable(&frame.text)
    )
}

fn tally(tally: &Tally) -> String {
    let parts: Vec<String> = Verdict::ALL
        .into_iter()
        .filter(|verdict| tally.count(*verdict) > 0)
        .map(|verdict| format!("{} {}", tally.count(verdict), verdict.name()))
        .collect();
    match parts.len() {
        0 => "none".to_owned(),
        1 if tally.total() > 1 => format!("all {}", parts[0]),
        1 => parts[0].clone(),
        _ => format!("{}: {}", tally.total(), parts.join(", ")),
    }
}

/// Formats `4 checks of CON-001, CON-002 and 2 more`.
fn blocked(blocks: &Blocks, most: usize) -> String {
    let rules: Vec<String> = blocks.rules.iter().cloned().collect();
    let of = if rules.is_empty() { String::new() } else { format!(" of {}", list(&rules, most)) };
    format!("{}{of}", count(blocks.checks, "check"))
}

/// Returns a message without its full stop, and the full stop that ends it in a sentence: none after a question.
fn sentence(message: &str) -> (String, &'static str) {
    let message = printable(message).trim_end_matches('.').to_owned();
    let end = if message.ends_with(['?', '!']) { "" } else { "." };
    (message, end)
}

/// Returns checks of this verdict that no baseline expects.
fn unknown(protocol: &ProtocolReport, verdict: Verdict) -> Vec<(&ScenarioResult, &CheckResult)> {
    let mut checks = checks_with(protocol, verdict);
    checks.retain(|(_, check)| check.known.is_none());
    checks
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::fixture::{Run, options};
    use super::*;

    #[rstest]
    #[case("all_pass", Run::all_pass())]
    #[case("one_failure", Run::one_failure())]
    #[case("warning", Run::warning())]
    #[case("flaky", Run::flaky())]
    #[case("greeting_broken", Run::greeting_broken())]
    #[case("inconclusive", Run::inconclusive())]
    #[case("unreachable", Run::unreachable())]
    #[case("not_testable", Run::not_testable())]
    #[case("nothing_testable", Run::nothing_testable())]
    #[case("other_protocol", Run::other_protocol())]
    #[case("interrupted", Run::interrupted())]
    #[case("mistake", Run::mistake())]
    #[case("selection", Run::selection())]
    #[case("hostile", Run::hostile())]
    #[case("schema_broken", Run::schema_broken())]
    #[case("fallen", Run::fallen(None))]
    #[case("fallen_blamed", Run::fallen(Some("greeter/hello")))]
    fn the_summary_of_each_fixture_run_is_as_in_the_snapshot(#[case] name: &str, #[case] run: Run) {
        let text = summary(&run.report(options()), &run.sources, Style::default());
        insta::assert_snapshot!(name, text);
    }

    #[test]
    fn verbose_output_also_lists_what_is_only_recorded() {
        let run = Run::warning();
        let report = run.report(options());
        let verbose = summary(&report, &run.sources, Style { verbose: true, ..Style::default() });
        assert!(verbose.contains("info[GRE-001]: greeter/hello: answered late"), "{verbose}");
        assert!(!summary(&report, &run.sources, Style::default()).contains("answered late"));
    }

    #[rstest]
    #[case(Run::greeting_broken())]
    #[case(Run::warning())]
    #[case(Run::flaky())]
    #[case(Run::mistake())]
    fn colored_output_has_the_same_text(#[case] run: Run) {
        let report = run.report(options());
        let colored = summary(&report, &run.sources, Style { color: true, ..Style::default() });
        let mut parts = colored.split('\u{1b}');
        let mut plain = parts.next().unwrap_or_default().to_owned();
        let painted = parts.map(|part| plain.push_str(part.split_once('m').unwrap().1)).count();
        assert!(painted > 4);
        assert_eq!(plain, summary(&report, &run.sources, Style::default()));
    }

    #[test]
    fn a_narrow_terminal_or_a_span_past_the_end_does_not_panic() {
        let mut run = Run::hostile();
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
