//! The terminal summary: validity, measurements, ledger, thresholds.

use std::fmt::Write;

use super::LoadReport;
use crate::deviation::entry_name;
use crate::load::format::{format_grouped, format_nanos, format_percent, format_rate};
use crate::load::ledger::{LedgerMark, LedgerTotals, LedgerViolation, LedgerViolationKind, NO_PARTY};
use crate::load::metrics::selector::{Statistic, delivery_ratio, is_sample_sufficient, own_delay};
use crate::load::metrics::uncertainty::figure_bounds;
use crate::load::metrics::{
    CounterId, DenseHistogram, Gauge, GeneratorTime, JourneyCount, LoadErrorKind, MessageCount, MessageTime,
    OperationCount, OperationTime, TimingId,
};
use crate::load::plan::script::Workload;
use crate::load::plan::threshold::{ThresholdOutcome, UNCERTAIN};
use crate::load::validity::RunValidity;
use crate::report::document::load::{DueJourneys, Wait};
use crate::report::terminal_page::{self, BOLD, Page, Style};
use crate::report::text::{escape_unprintable, format_count, format_time};
use crate::syntax::source::Sources;

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
/// Violations whose history is shown; the JSON report has more.
const SHOWN_HISTORIES: usize = 3;

/// Renders the whole summary; ends with a newline. `sources` has the files of the report's spans.
pub fn summary(report: &LoadReport, sources: &Sources, style: Style) -> String {
    let mut page = Page::new(&report.about.tool_version, &report.about.target, report, sources, style);
    page.gap();
    page.add_header();
    page.times();
    page.journeys();
    page.fanout();
    page.errors();
    page.ledger();
    page.generator();
    page.thresholds();
    page.deviations(&report.deviations);
    page.gap();
    for note in &report.judgement.notes {
        page.line(&format!("note[{}]: {}", note.code.name(), escape_unprintable(&note.text)));
    }
    for reason in &report.judgement.reasons {
        let (validity, code) = (reason.validity.name(), reason.code.name());
        page.line(&format!("{validity}[{code}]: {}", escape_unprintable(&reason.text)));
    }
    page.verdict(report.exit_code(), &escape_unprintable(&report.about.plan), &verdict_parts(report));
    page.out
}

/// Returns the verdict on a run in one line.
pub fn verdict_line(report: &LoadReport) -> String {
    terminal_page::verdict_line(report.exit_code(), &report.about.plan, &verdict_parts(report))
}

/// Returns how many connections the hub or the network ended.
fn lost_connections(report: &LoadReport) -> u64 {
    report.total.count(&report.layout, CounterId::Error(LoadErrorKind::Lost))
}

/// Returns the parts of the verdict line: `1 of 3 thresholds broken (ledger.lost == 0)`, `ledger clean`. The reason for
/// the exit code comes first.
pub fn verdict_parts(report: &LoadReport) -> Vec<String> {
    let mut parts = Vec::new();
    let of = |is: fn(&ThresholdOutcome) -> bool| report.thresholds.iter().filter(move |outcome| is(outcome));
    let broken: Vec<String> = of(ThresholdOutcome::is_broken).map(|outcome| outcome.threshold.text.clone()).collect();
    let (met, all) = (of(ThresholdOutcome::is_met).count(), report.thresholds.len());
    let mut stale = terminal_page::stale_deviations(&report.deviations);
    if broken.is_empty() {
        parts.extend(stale.take());
        if met > 0 {
            parts.push(terminal_page::holding(met, "threshold"));
        }
    } else {
        parts.push(terminal_page::broken(&broken, all, "threshold", 1));
    }
    match all - met - broken.len() {
        0 => {}
        undecided if met == 0 && broken.is_empty() => {
            parts.push(format!("{} undecided", format_count(undecided, "threshold")));
        }
        undecided => parts.push(format!("{undecided} undecided")),
    }
    parts.extend(stale);
    let violations: u64 = LedgerViolationKind::ALL.iter().map(|kind| report.account.violations_of_kind(*kind)).sum();
    if violations > 0 {
        let what = if violations == 1 { "violation" } else { "violations" };
        parts.push(format!("{} {what} in the ledger", format_grouped(violations)));
    } else if report.account.attempted > report.account.assumed_items() && lost_connections(report) > 0 {
        // What was on its way on these connections is unknown.
        parts.push("no violation in the ledger, as far as connections lasted".to_owned());
    } else if report.account.attempted > report.account.assumed_items() {
        parts.push("ledger clean".to_owned());
    } else if report.account.attempted > 0 {
        parts.push("no item could be followed".to_owned());
    }
    if report.about.interrupted {
        parts.insert(if report.exit_code() == 1 { parts.len() } else { 0 }, "interrupted".to_owned());
    }
    if report.validity() != RunValidity::Valid {
        let text = format!("the run is {}", report.validity().name());
        parts.insert(if report.exit_code() == 1 { parts.len() } else { 0 }, text);
    }
    if parts.is_empty() {
        parts.push("the run is valid".to_owned());
    }
    parts
}

impl<'a> Page<'a, LoadReport> {
    fn count(&self, count: CounterId) -> u64 {
        self.report.total.count(&self.report.layout, count)
    }

    fn timing(&self, timing: TimingId) -> Option<&'a DenseHistogram> {
        let report = self.report;
        report.total.timing(&report.layout, timing)
    }

    fn add_header(&mut self) {
        let about = &self.report.about;
        let (plan, title) = (self.paint(BOLD, &escape_unprintable(&about.plan)), escape_unprintable(&about.title));
        self.line(&format!("{plan}   {title}"));
        let measured = std::time::Duration::from_nanos(self.report.total.time);
        self.field(
            "duration",
            &format!("{}, of which {} measured", format_time(about.duration), format_time(measured)),
        );
        for (name, fact) in &about.facts {
            let mut name = escape_unprintable(name);
            for line in fact.lines() {
                self.field(&name, &escape_unprintable(line));
                name = "".into();
            }
        }
        if self.report.about.interrupted {
            self.line("  interrupted: the figures cover the time before the interruption");
        }
    }

    /// Adds a row of the table; percentiles with fewer than ten samples beyond them are a dash.
    fn row(&mut self, name: &str, kind: &str, rate: &str, histogram: &DenseHistogram) {
        let mut row = format!("  {name:<24} {kind:<10} {:>9} {rate:>9}", format_grouped(histogram.len()));
        for (_, quantile) in QUANTILES {
            let known = is_sample_sufficient(histogram.len(), quantile);
            let shown = if known { format_nanos(histogram.value_at_quantile(quantile) as f64) } else { "-".to_owned() };
            let _ = write!(row, " {shown:>8}");
        }
        let _ = write!(row, " {:>8}", format_nanos(histogram.max() as f64));
        self.line(&row);
    }

    /// Adds rows with the uncertainty of the figures above: the 95 % confidence interval, whose lower end is without the
    /// generator's own delay, and that delay.
    fn uncertainties(&mut self, timing: TimingId) {
        let state = self.report.measurements();
        let samples = self.timing(timing).map_or(0, DenseHistogram::len);
        for name in ["at least", "at most", "ours up to"] {
            let figure = |stat| match name {
                "at least" => Some(format_nanos(figure_bounds(state, timing, stat)?.low)),
                "at most" => {
                    Some(figure_bounds(state, timing, stat)?.high.map_or_else(|| "?".to_owned(), format_nanos))
                }
                _ => own_delay(state, timing, stat).map(format_nanos),
            };
            let mut row = format!("  {:<24} {name:<10} {:>9} {:>9}", "", "", "");
            for (_, quantile) in QUANTILES {
                let Some(shown) = figure(Statistic::Quantile(quantile)) else { return };
                let shown = if is_sample_sufficient(samples, quantile) { shown } else { "-".to_owned() };
                let _ = write!(row, " {shown:>8}");
            }
            if let Some(max) = figure(Statistic::Max).filter(|_| name == "ours up to") {
                let _ = write!(row, " {max:>8}");
            }
            self.line(&row);
        }
    }

    fn heading(&mut self, title: &str, columns: &str) {
        let mut row = format!("  {title:<24} {columns:<10} {:>9} {:>9}", "samples", "rate");
        for (name, _) in QUANTILES {
            let _ = write!(row, " {name:>8}");
        }
        let _ = write!(row, " {:>8}", "max");
        self.gap();
        self.line(&row);
    }

    fn times(&mut self) {
        let names = &self.report.layout.names.messages;
        let kinds = [
            (MessageTime::Response, "response", MessageCount::Answered),
            (MessageTime::Service, "service", MessageCount::Answered),
            (MessageTime::SendDelay, "delay", MessageCount::Sent),
        ];
        let mut headed = false;
        for (message, name) in names.iter().enumerate() {
            let mut shown = escape_unprintable(name).into_owned();
            for (kind, word, count) in kinds {
                let Some(histogram) = self.timing(TimingId::Message(message, kind)) else { continue };
                if !std::mem::replace(&mut headed, true) {
                    self.heading("message", "");
                }
                let per_second = self.report.total.rate(&self.report.layout, CounterId::Message(message, count));
                self.row(&std::mem::take(&mut shown), word, &format_rate(per_second), histogram);
                if kind != MessageTime::SendDelay {
                    self.uncertainties(TimingId::Message(message, kind));
                }
            }
        }
        self.operations();
    }

    /// Adds the operations, by their labels.
    fn operations(&mut self) {
        let mut headed = false;
        let operations = 0..self.report.layout.names.operations.capacity();
        let named = operations.map(|operation| (self.report.layout.operation_name(operation), operation));
        let mut named: Vec<(String, usize)> = named.collect();
        named.sort();
        for (name, operation) in named {
            let mut shown = escape_unprintable(&name).into_owned();
            for kind in OperationTime::ALL {
                let Some(histogram) = self.timing(TimingId::Operation(operation, *kind)) else { continue };
                if !std::mem::replace(&mut headed, true) {
                    self.heading("operation", "");
                }
                let answered = CounterId::Operation(operation, OperationCount::Answered);
                let per_second = format_rate(self.report.total.rate(&self.report.layout, answered));
                self.row(&std::mem::take(&mut shown), kind.name(), &per_second, histogram);
            }
        }
    }

    fn journeys(&mut self) {
        let names = &self.report.layout.names.journeys;
        for (journey, name) in names.iter().enumerate() {
            let Some(histogram) = self.timing(TimingId::Journey(journey)) else { continue };
            let count = CounterId::Journey(journey, JourneyCount::Completed);
            let per_second = format_rate(self.report.total.rate(&self.report.layout, count));
            self.heading("journey", "");
            self.row(&escape_unprintable(name), "", &per_second, histogram);
            self.uncertainties(TimingId::Journey(journey));
            let failed = self.count(CounterId::Journey(journey, JourneyCount::Failed));
            if failed > 0 {
                self.line(&format!("    {} failed", format_grouped(failed)));
            }
        }
        self.due_journeys();
        for (journey, name) in names.iter().enumerate() {
            let assumed = self.count(CounterId::Journey(journey, JourneyCount::Assumed));
            if assumed > 0 {
                let name = escape_unprintable(name);
                let text = format!("  {name}: {} continued past assumed messages, not timed", format_grouped(assumed));
                self.gap();
                self.line(&text);
            }
        }
    }

    /// Adds what became of the journeys that were due.
    fn due_journeys(&mut self) {
        let mut label = "due";
        for (name, found) in self.report.due_journeys() {
            if label == "due" {
                self.gap();
            }
            let DueJourneys { workload, due, started, late, missed, skipped } = found;
            let name = escape_unprintable(&name);
            let [due, started, late, missed] = [due, started, late, missed].map(format_grouped);
            // A journey of a schedule cannot be late: it begins with a free client, or is missed.
            let late = if workload == Workload::Open { String::new() } else { format!(", {late} of them late") };
            let skipped = if skipped > 0 { format!(", {} skipped", format_grouped(skipped)) } else { String::new() };
            let text = format!("{due} {name}: {started} started{late}, {missed} missed{skipped}");
            self.field(std::mem::take(&mut label), &text);
        }
    }

    fn fanout(&mut self) {
        let names = &self.report.layout.names.messages;
        for (message, name) in names.iter().enumerate() {
            let Some(each) = self.timing(TimingId::Message(message, MessageTime::Delivery)) else { continue };
            let delivered = CounterId::Message(message, MessageCount::Delivered);
            let per_second = format_rate(self.report.total.rate(&self.report.layout, delivered));
            self.heading("fan-out", "");
            self.row(&escape_unprintable(name), "each", &per_second, each);
            self.uncertainties(TimingId::Message(message, MessageTime::Delivery));
            if let Some(ratio) = delivery_ratio(&self.report.layout, &self.report.total, message) {
                let due = self.count(CounterId::Message(message, MessageCount::Due));
                self.line(&format!(
                    "    {} of {} deliveries, {:.3} %",
                    format_grouped(self.count(delivered)),
                    format_grouped(due),
                    ratio * 100.0
                ));
            }
        }
    }

    fn errors(&mut self) {
        let counted = |kind: &LoadErrorKind| (kind.name(), self.count(CounterId::Error(*kind)));
        let errors: Vec<String> = LoadErrorKind::ALL
            .iter()
            .map(counted)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{} {name}", format_grouped(count)))
            .collect();
        self.gap();
        self.field("errors", &if errors.is_empty() { "none".to_owned() } else { errors.join(", ") });
        let (ends, waits) = (self.report.ends.describe(), self.report.waits.iter().map(Wait::describe));
        for (name, lines) in [("connections", ends), ("waiting", waits.collect())] {
            let mut name = name;
            for line in lines {
                self.field(std::mem::take(&mut name), &escape_unprintable(&line));
            }
        }
        let undocumented = self.count(CounterId::Undocumented);
        if undocumented > 0 {
            self.field(
                "unknown",
                &format!("{} frames that match no message of the protocol", format_grouped(undocumented)),
            );
        }
        let unanswered = self.messages(MessageCount::Unanswered);
        if !unanswered.is_empty() {
            self.field("unanswered", &format!("{}, for which no answer is required", unanswered.join(", ")));
        }
        let missed = self.messages(MessageCount::Missed);
        if !missed.is_empty() {
            self.field("missed", &format!("{}: due, but the client was busy or not connected", missed.join(", ")));
        }
        let pending = self.messages(MessageCount::Pending);
        if !pending.is_empty() {
            self.field("pending", &format!("{}: unanswered when the run ended", pending.join(", ")));
        }
        let assumed = self.messages(MessageCount::Assumed);
        if !assumed.is_empty() {
            self.field("assumed", &format!("{}, which the hub never sends", assumed.join(", ")));
        }
        let not_taken = self.messages(MessageCount::NotTaken);
        if !not_taken.is_empty() {
            self.field("not taken", &format!("{}: no step was waiting for them", not_taken.join(", ")));
        }
    }

    /// Returns the messages with a count of this kind: `12 claim_job`.
    fn messages(&self, kind: MessageCount) -> Vec<String> {
        let names = self.report.layout.names.messages.iter().enumerate();
        names
            .map(|(message, name)| (self.count(CounterId::Message(message, kind)), name))
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{} {name}", format_grouped(count)))
            .collect()
    }

    fn ledger(&mut self) {
        let account = &self.report.account;
        let counts: Vec<String> = account
            .counts()
            .iter()
            .filter(|(name, count)| *count > 0 && !LedgerViolationKind::ALL.iter().any(|kind| kind.name() == *name))
            .map(|(name, count)| format!("{} {}", format_grouped(*count), name.replace('_', " ")))
            .collect();
        if counts.is_empty() && account.is_clean() {
            return;
        }
        self.field("ledger", &counts.join(", "));
        for (index, count) in &account.assumed {
            let deviation = entry_name((*index).into());
            let text = format!("{} cannot be followed: id or progress assumed by {deviation}", format_grouped(*count));
            self.field("", &text);
        }
        let lost = lost_connections(self.report);
        if account.is_clean() && lost > 0 {
            let lost = format_count(usize::try_from(lost).unwrap_or(usize::MAX), "connection");
            let text = format!("{lost} lost: what was on its way on them is unknown");
            self.field("", &text);
        } else if account.is_clean() && account.assumed_items() < account.attempted.max(1) {
            self.field("", "clean: nothing lost, duplicated, unexpected or out of order");
        }
        for kind in LedgerViolationKind::ALL.into_iter().filter(|kind| account.violations_of_kind(*kind) > 0) {
            let name = kind.name().to_uppercase().replace('_', " ");
            self.field("", &format!("{} {name}", format_grouped(account.violations_of_kind(kind))));
            for violation in account.violations.iter().filter(|violation| violation.kind == kind).take(SHOWN_HISTORIES)
            {
                self.line(&format!("                {}", item_history(violation, account)));
            }
        }
    }

    fn generator(&mut self) {
        let mut parts = Vec::new();
        for (kind, name) in [(GeneratorTime::Lag, "lag"), (GeneratorTime::Stall, "stalls")] {
            if let Some(histogram) = self.timing(TimingId::Run(kind)) {
                let (p99, max) = (histogram.value_at_quantile(0.99) as f64, histogram.max() as f64);
                parts.push(format!("{name} p99 {} max {}", format_nanos(p99), format_nanos(max)));
            }
        }
        let mut busiest: Vec<(usize, f64)> = Vec::new();
        for core in self.report.intervals.iter().flat_map(|interval| &interval.cores) {
            match busiest.iter_mut().find(|(known, _)| *known == core.core) {
                Some((_, busy)) => *busy = busy.max(core.busy),
                None => busiest.push((core.core, core.busy)),
            }
        }
        parts.extend(busiest.iter().map(|(core, busy)| format!("core {core} up to {}", format_percent(*busy))));
        let level =
            |gauge: Gauge| self.report.intervals.iter().map(|i| i.gauges[gauge as usize].highest).max().unwrap_or(0);
        if level(Gauge::Memory) > 0 {
            parts.push(format!("memory {} MB", level(Gauge::Memory) / 1_000_000));
        }
        if !parts.is_empty() {
            self.field("generator", &parts.join(", "));
        }
    }

    fn thresholds(&mut self) {
        self.gap();
        for outcome in &self.report.thresholds {
            let word = match outcome.standing {
                _ if outcome.is_uncertain() => UNCERTAIN,
                standing => standing.explanation(),
            };
            let ended = if outcome.aborted { "; it ended the run" } else { "" };
            let text = &outcome.threshold.text;
            let observed = match &outcome.unobserved {
                Some(why) => why.clone(),
                None => format!(
                    "observed: {}{}",
                    outcome.format_observed_with_uncertainty(),
                    self.example_items_text(outcome)
                ),
            };
            // Not wrapped, so that ids can be found in it.
            self.line(&format!("  {:<11} {text}   {observed}{ended}", word.name));
        }
    }

    /// Formats the first items that break a threshold on violations: `; first job-7, job-9`.
    fn example_items_text(&self, outcome: &ThresholdOutcome) -> String {
        let items = self.report.example_items(outcome);
        if items.is_empty() { String::new() } else { format!("; first {}", escape_unprintable(&items.join(", "))) }
    }
}

/// Renders an item and its history: `job-7c1: 1.204 s attempted by client 9, 1.205 s acknowledged`.
fn item_history(violation: &LedgerViolation, account: &LedgerTotals) -> String {
    let steps: Vec<String> = violation
        .history
        .iter()
        .map(|step| {
            let who = match step.what {
                _ if step.party == NO_PARTY => String::new(),
                LedgerMark::Assigned | LedgerMark::Delivered => {
                    format!(" to {}", escape_unprintable(&account.party_name(step.party)))
                }
                LedgerMark::Acknowledged | LedgerMark::Refused | LedgerMark::Named(_) => String::new(),
                _ => format!(" by {}", escape_unprintable(&account.party_name(step.party))),
            };
            format!("{:.3} s {}{who}", step.at as f64 / 1e9, mark_word(step.what))
        })
        .collect();
    let omitted = if violation.omitted > 0 { format!(" ({} more)", violation.omitted) } else { String::new() };
    let missed = violation.missed.as_ref().map(|missed| format!("; {}", account.describe_missed(missed)));
    let missed = escape_unprintable(&missed.unwrap_or_default()).into_owned();
    format!("{}: {}{omitted}{missed}", escape_unprintable(&violation.item_name()), steps.join(", "))
}

/// Returns the word for a mark.
pub fn mark_word(mark: LedgerMark) -> &'static str {
    match mark {
        LedgerMark::Attempted | LedgerMark::Requested => "attempted",
        LedgerMark::Published { .. } => "published",
        LedgerMark::Named(_) => "named",
        LedgerMark::Acknowledged => "acknowledged",
        LedgerMark::Refused => "refused",
        LedgerMark::Unsure => "unsure",
        LedgerMark::Assumed { .. } | LedgerMark::ProgressAssumed { .. } => "assumed",
        LedgerMark::Assigned => "assigned",
        LedgerMark::Released { .. } => "released",
        LedgerMark::Held => "still held",
        LedgerMark::NotTaken => "not taken",
        LedgerMark::Cancelled => "cancelled",
        LedgerMark::Delivered => "delivered",
        LedgerMark::Completed => "completed",
        LedgerMark::Failed => "failed",
    }
}
