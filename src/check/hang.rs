//! Detects hangs: the hub accepts connections, but from some moment on sends nothing to new clients.
//!
//! After a conversation that failed while an answer of the hub was due, a conversation that the hub served before is
//! played again, as a probe. If the probe receives nothing, twice, the hub hangs, and failures after that moment are
//! not separate findings. If the probe cannot connect, the hub is gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::event::{CheckReport, FindingDetail, HistoryDirection, ScenarioReport, Verdict};
use crate::report::scenario_verdict;
use crate::scenario::{Isolation, Program};

/// The name of the check under which a hang is reported.
const HANG_CHECK: &str = "hang";
/// Number of probes in a row that must receive nothing.
const PROBES: usize = 2;
/// Pause between attempts to reach a hub that accepts no connections.
const PROBE_PAUSE: Duration = Duration::from_millis(250);

/// Detects whether an instance of a hub still serves clients.
#[derive(Default)]
pub struct HubPulse {
    state: Mutex<HubPulseState>,
    /// Whether each upgrade deviation has been tested for whether the hub still needs it.
    upgrades_tried: AtomicBool,
}

#[derive(Default)]
struct HubPulseState {
    /// The shortest scenario that passed, and how long it took.
    passed: Option<(Arc<Program>, Duration)>,
    /// A scenario that failed, but received something from the hub.
    greeted: Option<Arc<Program>>,
    /// When the last probe began, relative to the start of the run, and how the hub failed to serve it, if it did.
    probed: Option<(Duration, Option<ServiceLoss>)>,
}

/// How a hub fails to serve a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceLoss {
    /// It accepts the connection but sends nothing.
    Hangs,
    /// It accepts no connection, although a proxy in front of it may.
    Gone,
}

impl ServiceLoss {
    fn from_report(report: &ScenarioReport) -> Option<Self> {
        let gone = report.cause.as_ref().is_some_and(|cause| cause.unreachable) || report.is_refused_by_proxy();
        let hangs = report.silent.then_some(Self::Hangs);
        if gone { Some(Self::Gone) } else { hangs }
    }
}

/// A scenario that a hub served before, but no longer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedScenario {
    pub probe: String,
    pub lost: ServiceLoss,
}

impl HubPulse {
    /// Creates a detector that uses only this scenario, which the hub has served, as a probe.
    pub fn for_program(program: Arc<Program>) -> Self {
        let passed = Some((program, Duration::ZERO));
        Self {
            state: Mutex::new(HubPulseState { passed, ..HubPulseState::default() }),
            upgrades_tried: AtomicBool::new(true),
        }
    }

    /// Whether this is the first passed conversation that shows that the hub serves clients.
    pub fn is_first_served(&self, program: &Program, report: &ScenarioReport) -> bool {
        let served = has_passed(report) && is_probe(program, report);
        served && !self.upgrades_tried.swap(true, Ordering::Relaxed)
    }

    /// Forgets the last probe, because the hub was restarted.
    pub async fn reset(&self) {
        self.state.lock().await.probed = None;
    }

    /// Records a scenario that was played. If it failed, this calls `play` to play a probe, and returns the probe if
    /// the hub no longer serves it. For a `restartable` hub, only a scenario that passed is used as a probe, because a
    /// failed one may have received frames that other conversations caused. For any other hub, this does not detect
    /// that the hub is gone.
    pub async fn record_play<F: Future<Output = Option<ScenarioReport>>>(
        &self,
        program: &Arc<Program>,
        report: &ScenarioReport,
        restartable: bool,
        play: impl Fn(Arc<Program>, usize) -> F,
    ) -> Option<UnservedScenario> {
        let mut served = self.state.lock().await;
        let serves = is_probe(program, report);
        if has_passed(report) {
            let shorter = served.passed.as_ref().is_none_or(|(_, duration)| report.duration < *duration);
            if serves && shorter {
                served.passed = Some((Arc::clone(program), report.duration));
            }
            return None;
        }
        if serves && served.greeted.is_none() {
            served.greeted = Some(Arc::clone(program));
        }
        let passed = served.passed.as_ref().map(|(program, _)| program);
        let probe = Arc::clone(passed.or(served.greeted.as_ref().filter(|_| !restartable))?);
        // A hub that sent the last frame still serves.
        let last_word = report.history.last().is_some_and(|frame| frame.direction == HistoryDirection::Received);
        if last_word || (!restartable && ServiceLoss::from_report(report) == Some(ServiceLoss::Gone)) {
            return None;
        }
        let unserved = |lost| UnservedScenario { probe: probe.id.clone(), lost };
        if let Some((begun, lost)) = served.probed {
            // A hub that was lost and has sent nothing since is still lost.
            let as_then = report.begun + report.duration <= begun || (lost.is_some() && report.last_greeted.is_none());
            if as_then {
                return lost.map(unserved);
            }
        }
        let mut lost = None;
        for number in 1..=PROBES {
            if lost == Some(ServiceLoss::Gone) {
                tokio::time::sleep(PROBE_PAUSE).await;
            }
            let again = play(Arc::clone(&probe), number).await?;
            let now = ServiceLoss::from_report(&again);
            served.probed = Some((again.begun, now));
            lost = Some(now?);
        }
        lost.map(unserved)
    }
}

/// Whether a conversation can be played again alongside others, and received something from the hub.
fn is_probe(program: &Program, report: &ScenarioReport) -> bool {
    report.last_greeted.is_some() && program.isolation == Isolation::Shared
}

/// Whether a conversation was completed, with no failures other than those of declared deviations.
pub fn has_passed(report: &ScenarioReport) -> bool {
    matches!(scenario_verdict(report), Verdict::Pass | Verdict::Info | Verdict::Warn)
}

/// Looks for hangs in the reports of a run, which must not include scenarios that may leave the hub unusable. For each
/// instance that hangs, adds a finding to the conversation that received the last frame, and makes later findings
/// inconclusive. Returns whether an instance hangs.
pub fn report_hangs(reports: &mut [&mut ScenarioReport]) -> bool {
    let instances: BTreeSet<String> = reports.iter().map(|report| report.instance.clone()).collect();
    let found = instances.iter().filter(|instance| {
        let own = reports.iter_mut().filter(|report| report.instance == **instance);
        report_instance_hang(&mut own.map(|report| &mut **report).collect::<Vec<_>>())
    });
    found.count() > 0
}

fn report_instance_hang(reports: &mut [&mut ScenarioReport]) -> bool {
    let end = |report: &ScenarioReport| report.begun + report.duration;
    let unserved = reports.iter().filter_map(|report| Some((end(report), report.unserved.clone()?)));
    let Some((found, probe)) = unserved.min() else { return false };
    let last = |of: fn(&ScenarioReport) -> Option<Duration>| {
        let all = reports.iter().enumerate();
        all.filter_map(|(place, report)| Some((report.begun + of(report)?, place))).max()
    };
    // A hub that never sent anything does not hang: it never served. A hub that greets a later client no longer hangs.
    let Some((greeted, greeted_place)) = last(|report| report.last_greeted) else { return false };
    if greeted > found {
        return false;
    }
    // If older connections are still served, the hang began after the hub greeted the last client.
    let (since, place, what) = match last(|report| report.last_received) {
        Some((received, place)) if received <= found => (received, place, "sends nothing"),
        _ => (greeted, greeted_place, "sends nothing to new clients"),
    };
    let under_way = |(other, report): &(usize, &&mut ScenarioReport)| {
        *other != place && report.begun <= since && end(report) > since
    };
    let beside: Vec<&str> =
        reports.iter().enumerate().filter(under_way).map(|(_, report)| report.id.as_str()).collect();
    let beside = if beside.is_empty() { String::new() } else { format!(" (also running: {})", beside.join(", ")) };
    let why = format!("the hub has been unresponsive since {:.1} s into the run", since.as_secs_f64());
    let mut silent = 0;
    for report in reports.iter_mut().filter(|report| end(report) > since) {
        silent += usize::from(report.silent && report.begun > since);
        for check in &mut report.checks {
            // A frame that was received is still judged.
            if (report.begun > since || !check.always) && check.accuses_hub() {
                check.make_inconclusive();
                check.message = format!("{why}: {}", check.message);
            }
        }
        if report.verdict != Verdict::NotTestable {
            report.verdict = Verdict::Inconclusive;
        }
        report.missed = None;
    }
    let last = &mut reports[place];
    last.verdict = Verdict::Fail;
    last.checks.push(CheckReport {
        step: "the hub keeps serving clients".to_owned(),
        message: format!(
            "{why}: it accepts connections but {what}; it served {probe} before, but sent no frame when that was played again"
        ),
        detail: Some(FindingDetail {
            expected: "a hub that keeps serving clients".to_owned(),
            received: format!(
                "the last frame in this conversation{beside}, then no frame in {silent} conversations"
            ),
            ..FindingDetail::default()
        }),
        ..CheckReport::new(HANG_CHECK, Verdict::Fail)
    });
    true
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::report::fixture::RunFixture;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the report of a conversation that began `begun` seconds into the run and received its last frame
    /// `received` seconds later. Without `received`, the probe after it received nothing.
    fn conversation_report(begun: u32, received: Option<u32>) -> ScenarioReport {
        let mut report = RunFixture::one_failure().reports.swap_remove(0);
        report.begun = SECOND * begun;
        report.duration = SECOND * 5;
        report.last_received = received.map(|after| SECOND * after);
        report.last_greeted = report.last_received;
        report.silent = received.is_none();
        report.verdict = Verdict::Fail;
        report.history.truncate(2);
        report.unserved = received.is_none().then(|| "greeter/hello".to_owned());
        report
    }

    fn judge_reports(mut reports: Vec<ScenarioReport>) -> (bool, Vec<ScenarioReport>) {
        let found = report_hangs(&mut reports.iter_mut().collect::<Vec<_>>());
        (found, reports)
    }

    fn failed_checks(report: &ScenarioReport) -> Vec<&str> {
        let failed = report.checks.iter().filter(|check| check.verdict == Verdict::Fail);
        failed.map(|check| check.name.as_str()).collect()
    }

    #[test]
    fn a_hang_is_one_finding_and_later_checks_are_inconclusive() {
        let reports =
            vec![conversation_report(0, Some(1)), conversation_report(4, Some(2)), conversation_report(7, None)];
        let before = failed_checks(&reports[0]).join(" ");
        assert!(!before.is_empty());
        let (found, reports) = judge_reports(reports);
        assert!(found);
        // The first had ended by then; the second was under way.
        assert_eq!(failed_checks(&reports[0]).join(" "), before);
        assert_eq!(failed_checks(&reports[1]), [HANG_CHECK]);
        assert!(failed_checks(&reports[2]).is_empty(), "{reports:#?}");
    }

    /// The hub still serves older connections; the second conversation was the last new one that it greeted.
    #[test]
    fn a_hub_that_stops_greeting_new_clients_is_a_hang() {
        let mut old = conversation_report(0, Some(1));
        (old.duration, old.last_received) = (SECOND * 30, Some(SECOND * 30));
        let (found, reports) = judge_reports(vec![old, conversation_report(4, Some(2)), conversation_report(7, None)]);
        assert!(found);
        assert_eq!(failed_checks(&reports[1]), [HANG_CHECK]);
        let message = &reports[1].checks.last().unwrap().message;
        assert!(message.contains("sends nothing to new clients"), "{message}");
    }

    #[rstest]
    #[case::greeted_again(&[Some(1), None, None, Some(1)])]
    #[case::never_served(&[None, None, None])]
    fn other_silence_is_not_a_hang(#[case] received: &[Option<u32>]) {
        let all = received.iter().zip(0..).map(|(received, n)| conversation_report(n * 6, *received));
        assert!(!judge_reports(all.collect()).0);
    }

    /// Records a scenario that passed and was greeted, then one that failed; `probes` are the reports of the probes
    /// after it.
    async fn record_and_probe(probes: &[ScenarioReport]) -> (Option<UnservedScenario>, usize) {
        let pulse = HubPulse::default();
        let program = Arc::clone(&RunFixture::all_pass().programs[0]);
        let mut passed = RunFixture::all_pass().reports.swap_remove(1);
        passed.last_greeted = Some(SECOND);
        let played = std::sync::atomic::AtomicUsize::new(0);
        let play = |_, number: usize| {
            played.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::future::ready(probes.get(number - 1).cloned())
        };
        assert_eq!(pulse.record_play(&program, &passed, true, play).await, None);
        let found = pulse.record_play(&program, &conversation_report(9, None), true, play).await;
        // A scenario that ended before the last probe does not cause another probe.
        assert_eq!(pulse.record_play(&program, &conversation_report(8, None), true, play).await, found);
        (found, played.into_inner())
    }

    #[tokio::test]
    async fn a_hub_is_lost_only_after_failing_to_serve_twice() {
        let silent = |begun| ScenarioReport { cause: unreachable_cause(), ..conversation_report(begun, None) };
        let probe = RunFixture::all_pass().programs[0].id.clone();
        let gone = |begun| {
            let cause =
                unreachable_cause().map(|cause| crate::event::PreconditionFailure { unreachable: true, ..cause });
            ScenarioReport { cause, ..silent(begun) }
        };
        let hangs = Some(UnservedScenario { probe: probe.clone(), lost: ServiceLoss::Hangs });
        assert_eq!(record_and_probe(&[silent(20), silent(26)]).await, (hangs, 2));
        assert_eq!(
            record_and_probe(&[silent(20), gone(26)]).await,
            (Some(UnservedScenario { probe, lost: ServiceLoss::Gone }), 2)
        );
        assert_eq!(record_and_probe(&[silent(20), conversation_report(26, Some(1))]).await, (None, 2));
        assert_eq!(record_and_probe(&[ScenarioReport { silent: false, ..silent(20) }]).await, (None, 1));
    }

    fn unreachable_cause() -> Option<crate::event::PreconditionFailure> {
        Some(crate::event::PreconditionFailure {
            span: None,
            step: "expects: hello".to_owned(),
            message: "no hello received".to_owned(),
            detail: None,
            unreachable: false,
        })
    }
}
