//! Finds that a hub hangs: it accepts connections, and from some moment on sends nothing to anyone.
//!
//! What is missing in its wake accuses the hub of nothing else.

use std::time::Duration;

use crate::event::{CheckReport, Detail, Direction, FrameReport, ScenarioReport, Verdict};
use crate::interpreter::ALWAYS;

/// The name of the check under which a hang is reported.
pub const CHECK: &str = "hang";
/// Conversations that must have got nothing after the last frame: one or two may have a reason of their own.
const SILENT: usize = 3;

/// Looks for a hang in the reports of a run. If there is one, adds its finding to the conversation that got the last frame,
/// and turns findings in its wake into inconclusive ones. Returns whether there is one.
pub fn judge(reports: &mut [&mut ScenarioReport], patience: Duration) -> bool {
    let received = |report: &ScenarioReport| last(report, |frame| frame.direction == Direction::Received);
    let Some((place, since)) = reports
        .iter()
        .enumerate()
        .filter_map(|(place, report)| Some((place, received(report)?)))
        .max_by_key(|(_, at)| *at)
    else {
        // A hub that never sent anything does not hang: it does not serve.
        return false;
    };
    let later = |report: &&mut ScenarioReport| report.begun > since;
    // A hub may accept connections without answering the upgrade.
    let connected = |frame: &FrameReport| matches!(frame.kind.as_str(), "open" | "no upgrade");
    let silent = |report: &&&mut ScenarioReport| {
        later(report) && report.history.iter().any(connected) && (!report.missed.is_empty() || report.cause.is_some())
    };
    let count = reports.iter().filter(silent).count();
    let end = reports.iter().map(|report| report.begun + report.duration).max().unwrap_or_default();
    // Every conversation that began later must be one that got nothing: some may have been refused.
    let others =
        reports.iter().filter(|report| later(report) && !silent(report) && report.verdict != Verdict::NotTestable);
    if count < SILENT || others.count() > count || end < since + patience {
        return false;
    }
    let under_way: Vec<String> = reports
        .iter()
        .enumerate()
        .filter(|(other, report)| *other != place && report.begun <= since && report.begun + report.duration > since)
        .map(|(_, report)| report.id.clone())
        .collect();
    let why = format!("the hub hangs since {:.1} s", since.as_secs_f64());
    for report in reports.iter_mut().filter(|report| report.begun + report.duration > since) {
        let all = report.begun > since;
        for check in &mut report.checks {
            // A frame that was received is judged all the same.
            let of_step = check.span.is_some() && check.step != ALWAYS;
            if (all || of_step) && matches!(check.verdict, Verdict::Fail | Verdict::Warn) {
                check.verdict = Verdict::Inconclusive;
                check.rules.iter_mut().for_each(|(_, verdict)| *verdict = Verdict::Inconclusive);
                check.message = format!("{why}: {}", check.message);
            }
        }
        report.verdict = Verdict::Inconclusive;
        report.missed.clear();
    }
    let beside = match under_way.len() {
        0 => String::new(),
        _ => format!("; under way beside it: {}", under_way.join(", ")),
    };
    let last = &mut reports[place];
    last.checks.push(CheckReport {
        name: CHECK.to_owned(),
        rules: Vec::new(),
        verdict: Verdict::Fail,
        span: None,
        step: "the hub goes on serving".to_owned(),
        asked: 1,
        message: format!("{why}: it accepts connections and sends nothing; {count} conversations got no frame"),
        detail: Some(Detail {
            expected: "a hub that goes on serving".to_owned(),
            received: format!(
                "the last frame in this conversation, {:.1} s after the run began{beside}",
                since.as_secs_f64()
            ),
            ..Detail::default()
        }),
        deviation: None,
    });
    true
}

/// Returns when the last such frame of a conversation came, since the run began.
fn last(report: &ScenarioReport, is_it: impl Fn(&FrameReport) -> bool) -> Option<Duration> {
    report.history.iter().filter(|frame| is_it(frame)).map(|frame| report.begun + frame.at).max()
}
