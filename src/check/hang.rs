//! Finds that a hub hangs: it accepts connections, and from some moment on sends nothing to any client.
//!
//! What is missing in its wake accuses the hub of nothing else.

use std::time::Duration;

use crate::event::{CheckReport, Detail, ScenarioReport, Verdict};
use crate::interpreter::ALWAYS;

/// The name of the check under which a hang is reported.
pub const CHECK: &str = "hang";
/// How many conversations must get nothing after the last frame: one or two may have a reason of their own.
const SILENT: usize = 3;

/// Looks for a hang in the reports of a run, without those of scenarios that may leave the hub unusable. If there is one,
/// adds its finding to the conversation that got the last frame, and turns findings in its wake into inconclusive ones.
/// Returns whether there is one.
pub fn judge(reports: &mut [&mut ScenarioReport], patience: Duration) -> bool {
    let last = |report: &ScenarioReport| Some(report.begun + report.last_received?);
    let received = reports.iter().enumerate().filter_map(|(place, report)| Some((last(report)?, place)));
    // A hub that never sent anything does not hang: it does not serve.
    let Some((since, place)) = received.max() else { return false };
    let end = |report: &ScenarioReport| report.begun + report.duration;
    let later = || reports.iter().filter(|report| report.begun > since && report.verdict != Verdict::NotTestable);
    let missed = |report: &&&mut ScenarioReport| report.connected && report.cause.is_some();
    // Later conversations that expect nothing, or are refused, show nothing; most have to miss something.
    let silent = later().filter(missed).count();
    let run_end = reports.iter().map(|report| end(report)).max().unwrap_or_default();
    if silent < SILENT || silent * 2 < later().count() || run_end < since + patience {
        return false;
    }
    let under_way = |(other, report): &(usize, &&mut ScenarioReport)| {
        *other != place && report.begun <= since && end(report) > since
    };
    let beside: Vec<&str> =
        reports.iter().enumerate().filter(under_way).map(|(_, report)| report.id.as_str()).collect();
    let beside = if beside.is_empty() { String::new() } else { format!("; beside it: {}", beside.join(", ")) };
    let why = format!("the hub hangs since {:.1} s after the run began", since.as_secs_f64());
    for report in reports.iter_mut().filter(|report| end(report) > since) {
        for check in &mut report.checks {
            // A frame that was received is judged all the same.
            let of_step = check.span.is_some() && check.step != ALWAYS;
            if (report.begun > since || of_step) && matches!(check.verdict, Verdict::Fail | Verdict::Warn) {
                check.verdict = Verdict::Inconclusive;
                check.rules.iter_mut().for_each(|(_, verdict)| *verdict = Verdict::Inconclusive);
                check.message = format!("{why}: {}", check.message);
            }
        }
        report.verdict = Verdict::Inconclusive;
        report.missed = None;
    }
    let last = &mut reports[place];
    last.verdict = Verdict::Fail;
    last.checks.push(CheckReport {
        name: CHECK.to_owned(),
        rules: Vec::new(),
        verdict: Verdict::Fail,
        span: None,
        step: "the hub goes on serving".to_owned(),
        asked: 1,
        message: format!("{why}: it accepts connections and sends nothing; {silent} conversations got no frame"),
        detail: Some(Detail {
            expected: "a hub that goes on serving".to_owned(),
            received: format!("the last frame in this conversation{beside}"),
            ..Detail::default()
        }),
        deviation: None,
    });
    true
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::report::fixture::Run;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the report of a conversation that began then, got its last frame after so many seconds, and has a failed
    /// check where it got none.
    fn conversation(begun: u32, received: Option<u32>, change: impl Fn(&mut ScenarioReport)) -> ScenarioReport {
        let mut report = Run::one_failure().reports.swap_remove(0);
        report.begun = SECOND * begun;
        report.duration = SECOND * 5;
        report.connected = true;
        report.last_received = received.map(|after| SECOND * after);
        report.cause = received.is_none().then(|| crate::event::Cause {
            span: None,
            step: "expects: hello".to_owned(),
            message: "no hello received".to_owned(),
            detail: None,
            unreachable: false,
        });
        change(&mut report);
        report
    }

    fn judged(mut reports: Vec<ScenarioReport>) -> (bool, Vec<ScenarioReport>) {
        let found = judge(&mut reports.iter_mut().collect::<Vec<_>>(), SECOND * 5);
        (found, reports)
    }

    fn failed(report: &ScenarioReport) -> Vec<&str> {
        let failed = report.checks.iter().filter(|check| check.verdict == Verdict::Fail);
        failed.map(|check| check.name.as_str()).collect()
    }

    #[test]
    fn a_hang_is_one_finding_and_its_wake_is_inconclusive() {
        let silent = |begun| conversation(begun, None, |_| {});
        let reports =
            vec![conversation(0, Some(1), |_| {}), conversation(4, Some(2), |_| {}), silent(7), silent(8), silent(9)];
        let before = failed(&reports[0]).join(" ");
        assert!(!before.is_empty());
        let (found, reports) = judged(reports);
        assert!(found);
        // The first had ended by then; the second was under way.
        assert_eq!(failed(&reports[0]).join(" "), before);
        assert_eq!(failed(&reports[1]), [CHECK]);
        assert!(reports[2..].iter().all(|report| failed(report).is_empty()), "{reports:#?}");
    }

    #[rstest]
    #[case::served_again(&[Some(1), None, None, None, Some(1)])]
    #[case::too_few(&[Some(1), None, None])]
    #[case::never_served(&[None, None, None, None])]
    fn other_silence_is_no_hang(#[case] received: &[Option<u32>]) {
        let all = received.iter().zip(0..).map(|(received, n)| conversation(n * 6, *received, |_| {}));
        assert!(!judged(all.collect()).0);
    }

    #[test]
    fn refused_connections_are_no_hang() {
        let refused = |begun| conversation(begun, None, |report| report.connected = false);
        assert!(!judged(vec![conversation(0, Some(1), |_| {}), refused(6), refused(7), refused(8)]).0);
    }
}
