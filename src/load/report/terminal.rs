//! The terminal summary: validity, measurements, ledger, thresholds.

use std::fmt::Write;

use super::LoadReport;
use crate::load::format::{grouped, nanos, percent, rate};
use crate::load::ledger::{Mark, NO_PARTY, Totals, Violation, ViolationKind};
use crate::load::metrics::selector::{Stat, delivery_ratio, own_delay, supports};
use crate::load::metrics::{
    Count, Dense, ErrorKind, Gauge, JourneyCount, MessageCount, MessageTime, RunCount, RunTime, Timing,
};
use crate::load::plan::threshold::{Outcome, Standing};
use crate::load::validity::Validity;
use crate::report::terminal_page::{self, BOLD, Page, Style};
use crate::report::text::{printable, time};
use crate::syntax::source::Sources;

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
/// Violations whose history is shown; the JSON report has more.
const SHOWN_HISTORIES: usize = 3;

/// Renders the whole summary; ends with a newline. `sources` has the files of the report's spans.
pub fn summary(report: &LoadReport, sources: &Sources, style: Style) -> String {
    let mut page = Page::new(&report.about.tool_version, &report.about.target, report, sources, style);
    page.gap();
    page.head();
    page.times();
    page.journeys();
    page.fanout();
    page.errors();
    page.ledger();
    page.generator();
    page.thresholds();
    page.deviations(&report.deviations);
    page.gap();
    for reason in &report.judgement.reasons {
        page.line(&format!("{}: {}", reason.validity.name(), printable(&reason.text)));
    }
    page.verdict(report.exit_code(), &printable(&report.about.plan), &verdict_parts(report));
    page.out
}

/// Returns the parts of the verdict line: `1 of 3 thresholds broken (ledger.lost == 0)`, `ledger clean`.
fn verdict_parts(report: &LoadReport) -> Vec<String> {
    let mut parts = Vec::new();
    if report.validity() != Validity::Valid {
        parts.push(format!("the run is {}", report.validity().name()));
    }
    let of = |is: fn(&Outcome) -> bool| report.thresholds.iter().filter(move |outcome| is(outcome));
    let broken: Vec<String> = of(Outcome::is_broken).map(|outcome| outcome.threshold.text.clone()).collect();
    let (met, all) = (of(Outcome::is_met).count(), report.thresholds.len());
    if !broken.is_empty() {
        parts.push(terminal_page::broken(&broken, all, "threshold", 1));
    } else if met > 0 {
        parts.push(if met == 1 { "1 threshold holds".to_owned() } else { format!("{met} thresholds hold") });
    }
    if met + broken.len() < all {
        parts.push(format!("{} undecided", all - met - broken.len()));
    }
    let violations: u64 = ViolationKind::ALL.iter().map(|kind| report.account.of(*kind)).sum();
    if violations > 0 {
        parts.push(format!("{} violations in the ledger", grouped(violations)));
    } else if report.account.attempted > 0 {
        parts.push("ledger clean".to_owned());
    }
    parts.extend(terminal_page::stale_deviations(&report.deviations));
    if parts.is_empty() {
        parts.push("the run is valid".to_owned());
    }
    parts
}

impl Page<'_, LoadReport> {
    fn count(&self, count: Count) -> u64 {
        self.report.total.count(&self.report.layout, count)
    }

    fn timing(&self, timing: Timing) -> Option<&Dense> {
        self.report.total.timing(&self.report.layout, timing)
    }

    fn head(&mut self) {
        let about = &self.report.about;
        let (plan, title) = (self.paint(BOLD, &printable(&about.plan)), printable(&about.title));
        self.line(&format!("{plan}   {title}"));
        let measured = std::time::Duration::from_nanos(self.report.total.time);
        self.field("duration", &format!("{}, of which {} measured", time(about.duration), time(measured)));
        for (name, fact) in &about.facts {
            let mut name = printable(name);
            for line in fact.lines() {
                self.field(&name, &printable(line));
                name = "".into();
            }
        }
        if self.report.about.interrupted {
            self.line("  interrupted: the figures cover the time before the interruption");
        }
    }

    /// Adds a row of the table; percentiles with fewer than ten samples beyond them are a dash.
    fn row(&mut self, name: &str, kind: &str, rate: &str, histogram: &Dense) {
        let mut row = format!("  {name:<24} {kind:<10} {:>9} {rate:>9}", grouped(histogram.len()));
        for (_, quantile) in QUANTILES {
            let known = supports(histogram.len(), quantile);
            let shown = if known { nanos(histogram.value_at_quantile(quantile) as f64) } else { "-".to_owned() };
            let _ = write!(row, " {shown:>8}");
        }
        let _ = write!(row, " {:>8}", nanos(histogram.max() as f64));
        self.line(&row);
    }

    /// Adds a row with the part of the times above that may be the generator's own delay.
    fn own_delays(&mut self, timing: Timing) {
        let (layout, total) = (&self.report.layout, &self.report.total);
        let samples = self.timing(timing).map_or(0, Dense::len);
        let mut row = format!("  {:<24} {:<10} {:>9} {:>9}", "", "ours up to", "", "");
        for (_, quantile) in QUANTILES {
            let own = own_delay(layout, total, timing, Stat::Quantile(quantile));
            let Some(own) = own else { return };
            let shown = if supports(samples, quantile) { nanos(own) } else { "-".to_owned() };
            let _ = write!(row, " {shown:>8}");
        }
        if let Some(own) = own_delay(layout, total, timing, Stat::Max) {
            let _ = write!(row, " {:>8}", nanos(own));
        }
        self.line(&row);
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
        let names = self.report.layout.names.messages.clone();
        let kinds = [
            (MessageTime::Response, "response", MessageCount::Answered),
            (MessageTime::Service, "service", MessageCount::Answered),
            (MessageTime::SendDelay, "delay", MessageCount::Sent),
        ];
        let mut headed = false;
        for (message, name) in names.iter().enumerate() {
            let mut shown = printable(name).into_owned();
            for (kind, word, count) in kinds {
                let Some(histogram) = self.timing(Timing::Message(message, kind)).cloned() else { continue };
                if !std::mem::replace(&mut headed, true) {
                    self.heading("message", "");
                }
                let per_second = self.report.total.rate(&self.report.layout, Count::Message(message, count));
                self.row(&std::mem::take(&mut shown), word, &rate(per_second), &histogram);
                self.own_delays(Timing::Message(message, kind));
            }
        }
    }

    fn journeys(&mut self) {
        let names = self.report.layout.names.journeys.clone();
        for (journey, name) in names.iter().enumerate() {
            let Some(histogram) = self.timing(Timing::Journey(journey)).cloned() else { continue };
            let count = Count::Journey(journey, JourneyCount::Completed);
            let per_second = rate(self.report.total.rate(&self.report.layout, count));
            self.heading("journey", "");
            self.row(&printable(name), "", &per_second, &histogram);
            let failed = self.count(Count::Journey(journey, JourneyCount::Failed));
            if failed > 0 {
                self.line(&format!("    {} failed", grouped(failed)));
            }
        }
    }

    fn fanout(&mut self) {
        let names = self.report.layout.names.messages.clone();
        for (message, name) in names.iter().enumerate() {
            let Some(each) = self.timing(Timing::Message(message, MessageTime::Delivery)).cloned() else { continue };
            let delivered = Count::Message(message, MessageCount::Delivered);
            let per_second = rate(self.report.total.rate(&self.report.layout, delivered));
            self.heading("fan-out", "");
            self.row(&printable(name), "each", &per_second, &each);
            self.own_delays(Timing::Message(message, MessageTime::Delivery));
            if let Some(last) = self.timing(Timing::Message(message, MessageTime::LastDelivery)).cloned() {
                self.row("", "last", "", &last);
                self.own_delays(Timing::Message(message, MessageTime::LastDelivery));
            }
            if let Some(ratio) = delivery_ratio(&self.report.layout, &self.report.total, message) {
                let due = self.count(Count::Message(message, MessageCount::Due));
                self.line(&format!(
                    "    {} of {} deliveries, {:.3} %",
                    grouped(self.count(delivered)),
                    grouped(due),
                    ratio * 100.0
                ));
            }
        }
    }

    fn errors(&mut self) {
        let counted = |kind: &ErrorKind| (kind.name(), self.count(Count::Error(*kind)));
        let errors: Vec<String> = ErrorKind::ALL
            .iter()
            .map(counted)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{} {name}", grouped(count)))
            .collect();
        self.gap();
        self.field("errors", &if errors.is_empty() { "none".to_owned() } else { errors.join(", ") });
        let undocumented = self.count(Count::Undocumented);
        if undocumented > 0 {
            self.field("beside", &format!("{} frames that match no message of the protocol", grouped(undocumented)));
        }
        let unanswered = self.messages(MessageCount::Unanswered);
        if !unanswered.is_empty() {
            self.field("unanswered", &format!("{}, for which no answer is required", unanswered.join(", ")));
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
            .map(|(message, name)| (self.count(Count::Message(message, kind)), name))
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{} {name}", grouped(count)))
            .collect()
    }

    fn ledger(&mut self) {
        let account = self.report.account.clone();
        let counts: Vec<String> = account
            .counts()
            .iter()
            .filter(|(name, count)| *count > 0 && !ViolationKind::ALL.iter().any(|kind| kind.name() == *name))
            .map(|(name, count)| format!("{} {}", grouped(*count), name.replace('_', " ")))
            .collect();
        if counts.is_empty() && account.is_clean() {
            return;
        }
        self.field("ledger", &counts.join(", "));
        if account.is_clean() {
            self.field("", "clean: nothing lost, duplicated, unexpected or out of order");
        }
        for kind in ViolationKind::ALL.into_iter().filter(|kind| account.of(*kind) > 0) {
            let name = kind.name().to_uppercase().replace('_', " ");
            self.field("", &format!("{} {name}", grouped(account.of(kind))));
            for violation in account.violations.iter().filter(|violation| violation.kind == kind).take(SHOWN_HISTORIES)
            {
                self.line(&format!("                {}", item_history(violation, &account)));
            }
        }
    }

    fn generator(&mut self) {
        let mut parts = Vec::new();
        for (kind, name) in [(RunTime::Lag, "lag"), (RunTime::Stall, "stalls")] {
            if let Some(histogram) = self.timing(Timing::Run(kind)) {
                let (p99, max) = (histogram.value_at_quantile(0.99) as f64, histogram.max() as f64);
                parts.push(format!("{name} p99 {} max {}", nanos(p99), nanos(max)));
            }
        }
        let mut busiest: Vec<(usize, f64)> = Vec::new();
        for core in self.report.intervals.iter().flat_map(|interval| &interval.cores) {
            match busiest.iter_mut().find(|(known, _)| *known == core.core) {
                Some((_, busy)) => *busy = busy.max(core.busy),
                None => busiest.push((core.core, core.busy)),
            }
        }
        parts.extend(busiest.iter().map(|(core, busy)| format!("core {core} up to {}", percent(*busy))));
        let level =
            |gauge: Gauge| self.report.intervals.iter().map(|i| i.gauges[gauge as usize].highest).max().unwrap_or(0);
        if level(Gauge::Memory) > 0 {
            parts.push(format!("memory {} MB", level(Gauge::Memory) / 1_000_000));
        }
        for (count, name) in
            [(RunCount::Missed, "missed ticks"), (RunCount::NoClient, "arrivals without a free client")]
        {
            let number = self.count(Count::Run(count));
            if number > 0 {
                parts.push(format!("{} {name}", grouped(number)));
            }
        }
        if !parts.is_empty() {
            self.field("generator", &parts.join(", "));
        }
    }

    fn thresholds(&mut self) {
        self.gap();
        for outcome in &self.report.thresholds {
            let word = match outcome.standing {
                _ if outcome.uncertain => "uncertain",
                Standing::Holds => "holds",
                Standing::Broken => "BROKEN",
                Standing::NotObserved => "unobserved",
            };
            let ended = if outcome.aborted { "; it ended the run" } else { "" };
            let text = &outcome.threshold.text;
            let observed = match &outcome.unobserved {
                Some(why) => why.clone(),
                None => format!("observed: {}{}", outcome.explained(), self.examples(outcome)),
            };
            // Not wrapped, so that ids can be found in it.
            self.line(&format!("  {word:<11} {text}   {observed}{ended}"));
        }
    }

    /// Formats the first items that break a threshold on violations: `; first job-7, job-9`.
    fn examples(&self, outcome: &Outcome) -> String {
        let items = self.report.examples(outcome);
        if items.is_empty() { String::new() } else { format!("; first {}", printable(&items.join(", "))) }
    }
}

/// Renders an item and its history: `job-7c1: 1.204 s attempted by client 9, 1.205 s acknowledged`.
fn item_history(violation: &Violation, account: &Totals) -> String {
    let steps: Vec<String> = violation
        .history
        .iter()
        .map(|step| {
            let who = match step.what {
                _ if step.party == NO_PARTY => String::new(),
                Mark::Assigned | Mark::Delivered => format!(" to {}", printable(&account.party(step.party))),
                Mark::Acknowledged | Mark::Refused | Mark::Named(_) => String::new(),
                _ => format!(" by {}", printable(&account.party(step.party))),
            };
            format!("{:.3} s {}{who}", step.at as f64 / 1e9, word(step.what))
        })
        .collect();
    let omitted = if violation.omitted > 0 { format!(" ({} more)", violation.omitted) } else { String::new() };
    format!("{}: {}{omitted}", printable(&violation.called()), steps.join(", "))
}

/// Returns the word for a mark.
pub fn word(mark: Mark) -> &'static str {
    match mark {
        Mark::Attempted | Mark::Requested => "attempted",
        Mark::Published { .. } => "published",
        Mark::Named(_) => "named",
        Mark::Acknowledged => "acknowledged",
        Mark::Refused => "refused",
        Mark::Unsure => "unsure",
        Mark::Assigned => "assigned",
        Mark::Released { .. } => "released",
        Mark::Held => "still held",
        Mark::NotTaken => "not taken",
        Mark::Cancelled => "cancelled",
        Mark::Delivered => "delivered",
        Mark::Completed => "completed",
        Mark::Failed => "failed",
    }
}
