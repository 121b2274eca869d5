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
use crate::report::text::{count, printable, time};

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
/// Violations whose history is shown; the JSON report has more.
const SHOWN_HISTORIES: usize = 3;

/// Renders the whole summary; ends with a newline.
pub fn summary(report: &LoadReport) -> String {
    let mut page = Page { report, out: String::new() };
    page.head();
    page.times();
    page.journeys();
    page.fanout();
    page.errors();
    page.ledger();
    page.generator();
    page.thresholds();
    page.deviations();
    page.verdict();
    page.out
}

struct Page<'a> {
    report: &'a LoadReport,
    out: String,
}

impl Page<'_> {
    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    fn count(&self, count: Count) -> u64 {
        self.report.total.count(&self.report.layout, count)
    }

    fn timing(&self, timing: Timing) -> Option<&Dense> {
        self.report.total.timing(&self.report.layout, timing)
    }

    fn head(&mut self) {
        let about = &self.report.about;
        let lines = [
            format!("hubproof {} against {}", about.tool_version, printable(&about.target)),
            String::new(),
            format!("{}   {}", printable(&about.plan), printable(&about.title)),
        ];
        lines.iter().for_each(|line| self.line(line));
        let measured = std::time::Duration::from_nanos(self.report.total.time);
        self.line(&format!("  {:<11} {}, of which {} measured", "duration", time(about.duration), time(measured)));
        for (name, fact) in &self.report.about.facts {
            let mut name = printable(name);
            for line in fact.lines() {
                self.line(&format!("  {name:<11} {}", printable(line)));
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
        self.line("");
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
        self.line("");
        self.line(&format!("  errors      {}", if errors.is_empty() { "none".to_owned() } else { errors.join(", ") }));
        let undocumented = self.count(Count::Undocumented);
        if undocumented > 0 {
            self.line(&format!("  unmatched   {} frames that match no message of the protocol", grouped(undocumented)));
        }
        let unanswered = self.messages(MessageCount::Unanswered);
        if !unanswered.is_empty() {
            self.line(&format!("  unanswered  {}, for which no answer is required", unanswered.join(", ")));
        }
        let not_taken = self.messages(MessageCount::NotTaken);
        if !not_taken.is_empty() {
            self.line(&format!("  not taken   {}: no step was waiting for them", not_taken.join(", ")));
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
        self.line(&format!("  ledger      {}", counts.join(", ")));
        if account.is_clean() {
            self.line("              clean: nothing lost, duplicated, unexpected or out of order");
        }
        for kind in ViolationKind::ALL.into_iter().filter(|kind| account.of(*kind) > 0) {
            self.line(&format!(
                "              {} {}",
                grouped(account.of(kind)),
                kind.name().to_uppercase().replace('_', " ")
            ));
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
            self.line(&format!("  generator   {}", parts.join(", ")));
        }
    }

    fn thresholds(&mut self) {
        for (at, outcome) in self.report.thresholds.iter().enumerate() {
            if at == 0 {
                self.line("");
            }
            let word = match outcome.standing {
                _ if outcome.uncertain => "uncertain",
                Standing::Holds => "holds",
                Standing::Broken => "BROKEN",
                Standing::NotObserved => "unobserved",
            };
            let ended = if outcome.aborted { "; it ended the run" } else { "" };
            let text = &outcome.threshold.text;
            self.line(&match &outcome.unobserved {
                Some(why) => format!("  {word:<11} {text}   {why}{ended}"),
                None => {
                    format!("  {word:<11} {text}   observed: {}{}{ended}", outcome.explained(), self.examples(outcome))
                }
            });
        }
    }

    fn deviations(&mut self) {
        for (at, one) in self.report.deviations.iter().enumerate() {
            if at == 0 {
                self.line("");
            }
            let (word, advice) = if one.is_stale() { ("STALE", "; delete this entry") } else { ("known", "") };
            self.line(&format!("  {word:<11} {}: {}   seen: {}{advice}", one.name, printable(&one.text), one.shown()));
        }
    }

    /// Formats the first items that break a threshold on violations: `; first job-7, job-9`.
    fn examples(&self, outcome: &Outcome) -> String {
        let items = self.report.examples(outcome);
        if items.is_empty() { String::new() } else { format!("; first {}", printable(&items.join(", "))) }
    }

    fn verdict(&mut self) {
        let report = self.report;
        self.line("");
        for reason in &report.judgement.reasons {
            self.line(&format!("{}: {}", reason.validity.name(), printable(&reason.text)));
        }
        let holding = report.thresholds.iter().filter(|outcome| outcome.is_met()).count();
        let thresholds = match report.thresholds.len() {
            0 => String::new(),
            all => format!("; {holding} of {all} thresholds hold"),
        };
        let word = match report.validity() {
            Validity::Valid => "VALID",
            Validity::Suspect => "SUSPECT",
            Validity::Invalid => "INVALID",
        };
        let violations: u64 = ViolationKind::ALL.iter().map(|kind| report.account.of(*kind)).sum();
        let ledger = match (report.account.attempted, violations) {
            (0, 0) => String::new(),
            (_, 0) => "; ledger clean".to_owned(),
            (_, n) => format!("; {} violations in the ledger", grouped(n)),
        };
        let stale = match report.deviations.iter().filter(|one| one.is_stale()).count() {
            0 => String::new(),
            stale => format!("; {} in the target file", count(stale, "stale deviation")),
        };
        self.line(&format!("{word} {}{thresholds}{ledger}{stale}", printable(&report.about.plan)));
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
