//! Whether the conclusions of a run can be trusted.
//!
//! Every figure has an uncertainty, which the report shows beside it. A run is suspect only if that uncertainty could
//! change a conclusion, that is the result of a threshold, or if the run did not do what its plan says; it is invalid
//! if its figures do not describe the plan at all. Each reason says what to do. Everything else that a reader should
//! know is a note.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Nanos;
use super::format::{format_grouped, format_nanos, format_percent};
use super::metrics::selector::{RunMeasurements, is_sample_sufficient};
use super::metrics::uncertainty::{UncertaintySource, saturated_cores, timing_trend};
use super::metrics::{
    CounterId, Gauge, GeneratorCount, JourneyCount, LoadErrorKind, MessageCount, MessageTime, RunPhase, TimingId,
};
use super::opening::HopelessRole;
use super::plan::script::{JourneyWorkload, Workload};
use super::plan::threshold::{ThresholdOutcome, ThresholdStanding};
pub use crate::report::document::load::RunValidity;
use crate::report::text::format_time;
use crate::syntax::explanation::Explanation;

/// The kind of a reason or a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValidityCode {
    Unmeasured,
    Unjoined,
    SendDelay,
    OwnErrors,
    Missed,
    Backlog,
    Ledger,
    Uncertain,
    Core,
    Clamped,
    Trend,
    WarmUp,
    ClosedWorkload,
    SkippedTicks,
    Held,
    Shares,
}

impl ValidityCode {
    /// Returns the stable name in reports.
    pub fn name(self) -> &'static str {
        self.explanation().name
    }

    pub fn explanation(self) -> Explanation {
        let (_, [name, means, usually, next]) = CODES[self as usize];
        Explanation::new(name, means).usually(usually).next(next)
    }

    /// Returns the explanations of all codes.
    pub fn explanations() -> Vec<Explanation> {
        CODES.map(|(code, _)| code.explanation()).to_vec()
    }
}

/// Each code with its name, its meaning, how it usually comes about, and what to do; in the order of the codes.
const CODES: [(ValidityCode, [&str; 4]); 16] = [
    (
        ValidityCode::Unmeasured,
        [
            "unmeasured",
            "The run ended before anything was measured: no whole interval, or no message and no connected client.",
            "The run was interrupted, or its plan sends nothing.",
            "Measure longer with `--duration`.",
        ],
    ),
    (
        ValidityCode::Unjoined,
        [
            "unjoined",
            "Clients of the plan had not joined when the measured time began.",
            "The hub limits connections, refuses credentials, or accepts connections slowly.",
            "Read the errors, and lengthen `ramp`.",
        ],
    ),
    (
        ValidityCode::SendDelay,
        [
            "send-delay",
            "The generator could not send messages when they were due, so the hub did not get the load of the plan.",
            "A rate above what this machine can send.",
            "Lower the rate, or use more cores: hubproof doctor shows what this machine can send.",
        ],
    ),
    (
        ValidityCode::OwnErrors,
        [
            "own-errors",
            "Errors of the generator, not of the hub: it ran out of descriptors, ports or memory, or has a defect.",
            "Limits of the machine.",
            "See what this machine can do: hubproof doctor",
        ],
    ),
    (
        ValidityCode::Missed,
        [
            "missed",
            "Journeys that were due never began, so the load was lower than planned.",
            "No client was free, because the hub answers slowly or the population is small.",
            "Raise `population` or `at_a_time`.",
        ],
    ),
    (
        ValidityCode::Backlog,
        [
            "backlog",
            "Journeys, items or received bytes were unfinished when the run ended, so the ledger cannot tell lost ones from late ones.",
            "A drain that is shorter than the hub's longest job.",
            "Lengthen `--drain`.",
        ],
    ),
    (
        ValidityCode::Ledger,
        [
            "ledger",
            "The ledger could not follow all items.",
            "More items at a time than it can hold, or a generator without a free core.",
            "Lower the rate, or shorten the run.",
        ],
    ),
    (
        ValidityCode::Uncertain,
        [
            "uncertain",
            "The result of a threshold could be different, by chance or because of the generator's own delay.",
            "Too few samples, or a generator that is as busy as the hub.",
            "Measure longer with `--duration`.",
        ],
    ),
    (
        ValidityCode::Core,
        [
            "core",
            "A core of the generator was almost fully busy, so received messages may have waited. The figures include this as the generator's part.",
            "A rate near what this machine can send, or a hub on the same cores.",
            "Run the hub on another machine: hubproof doctor shows what this one can send.",
        ],
    ),
    (
        ValidityCode::Clamped,
        [
            "clamped",
            "Times exceeded the upper bound of the histograms and count as that bound.",
            "Answers that took longer than the histograms can hold.",
            "",
        ],
    ),
    (
        ValidityCode::Trend,
        [
            "trend",
            "The median response time rose or fell over the measured time, so it depends on when it is measured.",
            "A hub that fills a queue, leaks memory, or is still warming up.",
            "Warm up longer with `--warm-up`, or measure longer.",
        ],
    ),
    (
        ValidityCode::WarmUp,
        [
            "warm-up",
            "Throughput and response times were not steady at the end of the longest warm-up.",
            "A hub with a high load, or one that compiles or caches while it runs.",
            "Set `--warm-up` to a fixed time.",
        ],
    ),
    (
        ValidityCode::ClosedWorkload,
        [
            "closed-workload",
            "Clients begin a journey when their last one has ended, so nothing is due while the hub stalls. The times hold only for clients that wait for one another.",
            "The plan has neither `arrivals` nor `pace`.",
            "Add `arrivals` to the role, to measure from when a message was due.",
        ],
    ),
    (
        ValidityCode::SkippedTicks,
        [
            "skipped-ticks",
            "Ticks of a journey were skipped, because the client was still busy; the times do not include them.",
            "A hub that takes longer than the interval of the ticks.",
            "Raise the interval, or use more clients.",
        ],
    ),
    (
        ValidityCode::Held,
        [
            "held",
            "New journeys were held back for a while; the schedule waited, and the time is not part of the measured time.",
            "The button Hold on the live page was pressed.",
            "Nothing, if that was intended.",
        ],
    ),
    (
        ValidityCode::Shares,
        [
            "shares",
            "The shares of the run did not measure at the same time, or some were lost, so the hub never had the load of the whole plan.",
            "The generators were started one after another, or one was killed.",
            "Give all shares the same `--start-at`, or let them agree with `--over`.",
        ],
    ),
];

const _: () = {
    let mut index = 0;
    while index < CODES.len() {
        assert!(CODES[index].0 as usize == index);
        index += 1;
    }
};

/// A reason why a run is suspect or invalid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidityReason {
    pub code: ValidityCode,
    pub validity: RunValidity,
    /// One sentence for the reader of the report, with what to do.
    pub text: String,
}

/// Something that a reader of the figures should know, and that changes no conclusion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidityNote {
    pub code: ValidityCode,
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidityJudgement {
    pub reasons: Vec<ValidityReason>,
    pub notes: Vec<ValidityNote>,
}

impl ValidityJudgement {
    pub fn validity(&self) -> RunValidity {
        self.reasons.iter().map(|reason| reason.validity).max().unwrap_or(RunValidity::Valid)
    }

    fn add(&mut self, validity: RunValidity, code: ValidityCode, text: String) {
        self.reasons.push(ValidityReason { code, validity, text });
    }

    fn note(&mut self, code: ValidityCode, text: String) {
        self.notes.push(ValidityNote { code, text });
    }

    /// Adds a reason to suspect the run if the number is more than the accepted share of all, and a note if it is less.
    fn add_share(&mut self, (number, all): (u64, u64), code: ValidityCode, text: String) {
        match number {
            0 => {}
            _ if number as f64 > all as f64 * ACCEPTED_SHARE => self.add(RunValidity::Suspect, code, text),
            _ => self.note(code, text),
        }
    }
}

/// Facts that the judgement needs in addition to the measurements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCircumstances {
    /// When the journeys of each role begin.
    pub workloads: Vec<JourneyWorkload>,
    /// The number of clients in the plan, and of those that had not joined when the measured time began.
    pub clients: u64,
    pub unjoined: u64,
    /// The roles that ended the run before it began, because none of their clients joined.
    pub hopeless: Vec<HopelessRole>,
    /// Examples of clients that failed to join, with the awaited message and what happened.
    pub failed_openings: Vec<String>,
    /// How long the warm-up took, if it ended before the hub was steady.
    pub unsteady_warm_up: Option<Duration>,
    /// The times in which new journeys were held back.
    pub holds: Vec<Range<Nanos>>,
}

/// A run that did less than its plan says, by more than this share, is suspect; if the generator is the cause, it is
/// invalid.
const ACCEPTED_SHARE: f64 = 0.01;
/// Up to this many unread bytes are not a backlog: they have just arrived, or belong to close frames.
const MAX_UNREAD_BYTES: u64 = 64 << 10;

/// Judges only whether the generator did its part.
pub fn judge_generator(state: RunMeasurements<'_>) -> ValidityJudgement {
    let mut judgement = ValidityJudgement::default();
    judge_sending(&mut judgement, state);
    judge_own_errors(&mut judgement, state);
    judgement
}

/// Judges a run by its own measurements.
pub fn judge_run(
    state: RunMeasurements<'_>,
    outcomes: &[ThresholdOutcome],
    circumstances: RunCircumstances,
) -> ValidityJudgement {
    let mut judgement = ValidityJudgement::default();
    judge_measured_time(&mut judgement, state);
    judge_joining(&mut judgement, &circumstances);
    judge_sending(&mut judgement, state);
    judge_own_errors(&mut judgement, state);
    judge_journeys(&mut judgement, state, &circumstances);
    judge_ledger(&mut judgement, state);
    judge_thresholds(&mut judgement, outcomes);
    note_generator(&mut judgement, state);
    note_trends(&mut judgement, state);
    note_workloads(&mut judgement, state, &circumstances);
    note_holds(&mut judgement, &circumstances.holds);
    judgement
}

fn judge_measured_time(judgement: &mut ValidityJudgement, state: RunMeasurements<'_>) {
    if state.total.time == 0 {
        judgement.add(
            RunValidity::Invalid,
            ValidityCode::Unmeasured,
            "the run ended before a whole interval was measured".to_owned(),
        );
    } else if state.is_idle() {
        // Clients that only stay connected send nothing.
        judgement.add(
            RunValidity::Invalid,
            ValidityCode::Unmeasured,
            "no message was sent and no client was connected".to_owned(),
        );
    }
}

fn judge_joining(judgement: &mut ValidityJudgement, circumstances: &RunCircumstances) {
    let RunCircumstances { clients, unjoined, hopeless, failed_openings, .. } = circumstances;
    if *unjoined == 0 {
        return;
    }
    for HopelessRole { name, failed, population } in hopeless {
        let text =
            format!("the run ended because no client of {name} joined; {failed} of {population} tried and failed");
        judgement.add(RunValidity::Invalid, ValidityCode::Unjoined, text);
    }
    if !hopeless.is_empty() {
        for text in failed_openings {
            judgement.add(RunValidity::Invalid, ValidityCode::Unjoined, text.clone());
        }
        return;
    }
    let number = (*unjoined, *clients);
    let text = format!(
        "{} of {clients} clients had not joined when the measured time began; see the errors, or lengthen `ramp`",
        format_grouped(*unjoined)
    );
    judgement.add_share(number, ValidityCode::Unjoined, text);
    for text in failed_openings {
        judgement.add_share(number, ValidityCode::Unjoined, text.clone());
    }
}

/// A generator that lags behind by a share of the measured time has not sent that share of the load in time.
fn judge_sending(judgement: &mut ValidityJudgement, state: RunMeasurements<'_>) {
    let most = state.total.time as f64 * ACCEPTED_SHARE;
    for (message, name) in state.layout.names.messages.iter().enumerate() {
        let timing = TimingId::Message(message, MessageTime::SendDelay);
        let Some(delay) = state.total.timing(state.layout, timing) else { continue };
        // With fewer samples, a p99 is one outlier.
        if !is_sample_sufficient(delay.len(), 0.9) {
            continue;
        }
        let late = delay.value_at_quantile(1.0 - ACCEPTED_SHARE) as f64;
        if late > most {
            let text = format!(
                "the generator could not send {name} when it was due: {} of them were late by {} or more; lower the rate, or give the generator more or faster cores",
                format_percent(ACCEPTED_SHARE),
                format_nanos(late)
            );
            judgement.add(RunValidity::Invalid, ValidityCode::SendDelay, text);
        }
    }
}

fn judge_own_errors(judgement: &mut ValidityJudgement, state: RunMeasurements<'_>) {
    let messages = 0..state.layout.names.messages.len();
    let sent = |message| state.total.count(state.layout, CounterId::Message(message, MessageCount::Sent));
    let sent: u64 = messages.map(sent).sum();
    for kind in LoadErrorKind::ALL.iter().filter(|kind| kind.is_generator_error()) {
        let number = state.total.count(state.layout, CounterId::Error(*kind));
        if number == 0 {
            continue;
        }
        let text = match kind {
            LoadErrorKind::Resources => {
                "times the generator's machine ran out of file descriptors, ports or memory; raise its limits, or simulate fewer clients"
            }
            _ => "internal errors of the generator; please report this",
        };
        let text = format!("{} {text}", format_grouped(number));
        if number as f64 > sent.max(1) as f64 * ACCEPTED_SHARE {
            judgement.add(RunValidity::Invalid, ValidityCode::OwnErrors, text);
        } else {
            judgement.note(ValidityCode::OwnErrors, text);
        }
    }
}

/// Returns when the hub was gone: from then on, to the end of the measured time, no client was connected, and clients
/// that lost their connections could not connect again.
fn end_of_hub(state: RunMeasurements<'_>) -> Option<Nanos> {
    let errors = |kind| state.total.count(state.layout, CounterId::Error(kind));
    if errors(LoadErrorKind::Lost) == 0 || errors(LoadErrorKind::Connect) == 0 {
        return None;
    }
    let measured: Vec<_> = state.intervals.iter().filter(|one| one.phase == RunPhase::Measured).collect();
    let connected = measured.iter().rposition(|one| one.gauges[Gauge::Connections as usize].highest > 0)?;
    measured.get(connected + 1).map(|next| next.from)
}

/// Judges journeys that did not begin, or did not end.
fn judge_journeys(judgement: &mut ValidityJudgement, state: RunMeasurements<'_>, circumstances: &RunCircumstances) {
    let end_of_hub = end_of_hub(state);
    if let Some(at) = end_of_hub {
        let sent = |message| state.total.count(state.layout, CounterId::Message(message, MessageCount::Sent));
        let sent: u64 = (0..state.layout.names.messages.len()).map(sent).sum();
        let text = format!(
            "the hub was gone {} into the run, after {} messages to it: all connections were lost, and no client could connect again; find out why the hub ended",
            format_nanos(at as f64),
            format_grouped(sent)
        );
        judgement.add(RunValidity::Suspect, ValidityCode::Missed, text);
    }
    for (journey, name) in state.layout.names.journeys.iter().enumerate() {
        let count = |count| state.total.count(state.layout, CounterId::Journey(journey, count));
        let (started, missed) = (count(JourneyCount::Started), count(JourneyCount::Missed));
        let workload = circumstances.workloads.iter().find(|known| known.journey == *name).map(|known| known.workload);
        let advice = match workload {
            Some(Workload::Paced) => {
                "their clients were still behind when the run ended, or had lost their connections, and the figures do not include them; find out why the hub did not answer, or lengthen `drain`"
            }
            _ => "no client was free, so the load was lower than planned; raise `population` or `at_a_time`",
        };
        let due = started + missed;
        let text =
            format!("{} of {} journeys {name} never began: {advice}", format_grouped(missed), format_grouped(due));
        if end_of_hub.is_none() {
            judgement.add_share((missed, due), ValidityCode::Missed, text);
        }
        let unfinished = count(JourneyCount::Unfinished);
        let text = format!(
            "{} of {} journeys {name} were unfinished at the end of the drain; lengthen `drain`",
            format_grouped(unfinished),
            format_grouped(started)
        );
        judgement.add_share((unfinished, started), ValidityCode::Backlog, text);
    }
}

/// Judges what leaves the ledger undecided: each kind of violation has a threshold.
fn judge_ledger(judgement: &mut ValidityJudgement, state: RunMeasurements<'_>) {
    let unread = state.intervals.last().map_or(0, |interval| interval.gauges[Gauge::Unread as usize].last);
    let counts = [
        (
            ValidityCode::Backlog,
            state.account.unfinished,
            "items were unfinished when the run ended, because the hub was still completing others or a worker still had them; lengthen `drain`",
        ),
        (
            ValidityCode::Backlog,
            if unread > MAX_UNREAD_BYTES { unread } else { 0 },
            "bytes had arrived but were unread when the run ended; lengthen `drain`, or give the generator more cores",
        ),
        (
            ValidityCode::Ledger,
            state.account.late,
            "ledger entries arrived too late to be processed in order; give the generator more cores",
        ),
        (
            ValidityCode::Ledger,
            state.account.unfollowed,
            "ledger entries were dropped because the ledger was full; shorten the run, or lower the rate",
        ),
    ];
    for (code, number, text) in counts.iter().filter(|(_, number, _)| *number > 0) {
        judgement.add(RunValidity::Suspect, *code, format!("{} {text}", format_grouped(*number)));
    }
}

/// Adds a reason for each threshold whose result could be different.
fn judge_thresholds(judgement: &mut ValidityJudgement, outcomes: &[ThresholdOutcome]) {
    for outcome in outcomes {
        let Some(doubt) = outcome.doubt else { continue };
        let otherwise = if outcome.standing == ThresholdStanding::Holds { "might not hold" } else { "might hold" };
        let why = match doubt {
            UncertaintySource::OwnDelay(_) => {
                format!(
                    "without the generator's own delay it {otherwise}; give the generator more or faster cores, or a separate machine"
                )
            }
            UncertaintySource::Sampling { samples, needed } if samples < needed => format!(
                "{} samples are too few for this percentile, so it {otherwise}; measure longer, until there are at least {}",
                format_grouped(samples),
                format_grouped(needed)
            ),
            UncertaintySource::Sampling { samples, .. } => {
                format!("with {} samples it {otherwise} by chance; measure longer", format_grouped(samples))
            }
            UncertaintySource::Untimed(number) => {
                format!("{} more were due and have no time, so it {otherwise}", format_grouped(number))
            }
            UncertaintySource::Trend { first, second } => format!(
                "it was {} in the first half of the measured time and {} in the second, so it {otherwise} at another time; warm up or measure longer",
                format_nanos(first),
                format_nanos(second)
            ),
            UncertaintySource::OwnErrors(number) => {
                format!("{} errors are the generator's own, without which it {otherwise}", format_grouped(number))
            }
        };
        let text =
            format!("`{}`: observed {}; {why}", outcome.threshold.text, outcome.format_observed_with_uncertainty());
        judgement.add(RunValidity::Suspect, ValidityCode::Uncertain, text);
    }
}

fn note_generator(judgement: &mut ValidityJudgement, state: RunMeasurements<'_>) {
    for core in saturated_cores(state.intervals) {
        let text = format!(
            "core {} was almost fully busy in {} of {} intervals (peak {}), so received frames may have waited; the figures include this in the generator's part",
            core.core,
            core.busy,
            core.intervals,
            format_percent(core.peak)
        );
        judgement.note(ValidityCode::Core, text);
    }
    let clamped = state.total.count(state.layout, CounterId::Run(GeneratorCount::Clamped));
    if clamped > 0 {
        let text = format!("{} times exceeded the upper bound of the histograms", format_grouped(clamped));
        judgement.note(ValidityCode::Clamped, text);
    }
}

fn note_trends(judgement: &mut ValidityJudgement, state: RunMeasurements<'_>) {
    for (message, name) in state.layout.names.messages.iter().enumerate() {
        let Some((change, intervals)) = timing_trend(state, TimingId::Message(message, MessageTime::Response)) else {
            continue;
        };
        let text = format!(
            "the median response time of {name} went {} by {} over the measured time (Mann-Kendall over {intervals} intervals), so it depends on when it is measured",
            if change > 0.0 { "up" } else { "down" },
            format_percent(change.abs()),
        );
        judgement.note(ValidityCode::Trend, text);
    }
}

/// Notes when new journeys were held back.
fn note_holds(judgement: &mut ValidityJudgement, holds: &[Range<Nanos>]) {
    let times: Vec<String> = holds
        .iter()
        .map(|hold| format!("{:.0} s to {:.0} s", hold.start as f64 / 1e9, hold.end as f64 / 1e9))
        .collect();
    if !times.is_empty() {
        let text = format!(
            "new journeys were held back from {}; the schedule waited meanwhile, and these times are not part of the measured time",
            times.join(", and from ")
        );
        judgement.note(ValidityCode::Held, text);
    }
}

/// Notes the conclusions that the plan's workloads do not allow.
fn note_workloads(judgement: &mut ValidityJudgement, state: RunMeasurements<'_>, circumstances: &RunCircumstances) {
    if let Some(took) = circumstances.unsteady_warm_up {
        let text = format!(
            "throughput and response times were not steady after {} of warm-up, the longest that `auto` allows; set `warm_up`",
            format_time(took)
        );
        judgement.note(ValidityCode::WarmUp, text);
    }
    for JourneyWorkload { journey: name, workload } in &circumstances.workloads {
        let journey = state.layout.names.journeys.iter().position(|known| known == name);
        let count = |count| journey.map_or(0, |at| state.total.count(state.layout, CounterId::Journey(at, count)));
        let skipped = count(JourneyCount::Skipped);
        match workload {
            Workload::Closed if count(JourneyCount::Started) > 0 => judgement.note(
                ValidityCode::ClosedWorkload,
                format!(
                    "{name} is a closed workload: a client begins a journey when its last one has ended. While the hub stalls, nothing is due, so these times hold only for clients that wait for one another; `arrivals` or `pace` counts from when a message was due"
                ),
            ),
            Workload::Skipping if skipped > 0 => judgement.note(
                ValidityCode::SkippedTicks,
                format!(
                    "{} of {} ticks of {name} were skipped, because the client was busy; these times do not include them",
                    format_grouped(skipped),
                    format_grouped(skipped + count(JourneyCount::Started))
                ),
            ),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::load::SECOND;
    use crate::load::report::fixture::{MS, SyntheticRun};

    fn run_of_workload(workload: Workload) -> SyntheticRun {
        run_with_circumstances(|circumstances| circumstances.workloads[0].workload = workload)
    }

    fn run_with_circumstances(change: impl Fn(&mut RunCircumstances)) -> SyntheticRun {
        let mut run = SyntheticRun::default();
        change(&mut run.circumstances);
        run
    }

    /// Every tenth answer takes 10 ms, and a message is due every millisecond.
    #[rstest]
    #[case::calm(SyntheticRun::calm(), RunValidity::Valid, &[])]
    #[case::a_little_late(SyntheticRun { delay: MS * 9 / 10, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::late(SyntheticRun { delay: 2 * MS, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::late_and_it_decides(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 < 11ms"], ..SyntheticRun::default() }, RunValidity::Suspect, &["uncertain"])]
    #[case::late_and_it_decides_that_it_holds(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 > 11ms"], ..SyntheticRun::default() }, RunValidity::Suspect, &["uncertain"])]
    #[case::late_and_it_holds(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 < 13ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::late_and_it_is_broken(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 < 9ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::service_does_not_hold_it(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.service.p99 < 11ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::mostly_ours(SyntheticRun { delay: 30 * MS, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::mostly_ours_and_it_holds(SyntheticRun { delay: 30 * MS, thresholds: vec!["submit_job.response.p99 < 50ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::not_sent_in_time(SyntheticRun { delay: 300 * MS, ..SyntheticRun::default() }, RunValidity::Invalid, &["send-delay"])]
    #[case::core(SyntheticRun { busy: 0.95, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::core_and_it_holds(SyntheticRun { busy: 0.95, ..SyntheticRun::calm() }, RunValidity::Valid, &[])]
    #[case::core_and_it_decides(SyntheticRun { busy: 0.95, delay: 2 * MS, thresholds: vec!["submit_job.service.p99 < 9ms"], ..SyntheticRun::default() }, RunValidity::Suspect, &["uncertain"])]
    #[case::few_missed(SyntheticRun { missed: 4, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::missed(SyntheticRun { missed: 400, ..SyntheticRun::default() }, RunValidity::Suspect, &["missed"])]
    #[case::few_missed_and_they_decide(SyntheticRun { missed: 200, thresholds: vec!["jobs.duration.p99 < 35ms"], ..SyntheticRun::default() }, RunValidity::Suspect, &["uncertain"])]
    #[case::few_missed_and_it_holds(SyntheticRun { missed: 200, thresholds: vec!["jobs.duration.p90 < 35ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::few_unfinished(SyntheticRun { unfinished: 4, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::unfinished(SyntheticRun { unfinished: 400, ..SyntheticRun::default() }, RunValidity::Suspect, &["backlog"])]
    #[case::unfinished_and_it_decides(SyntheticRun { unfinished: 4, thresholds: vec!["jobs.failed == 0"], ..SyntheticRun::default() }, RunValidity::Suspect, &["uncertain"])]
    #[case::unread(SyntheticRun { unread: 70_000, ..SyntheticRun::default() }, RunValidity::Suspect, &["backlog"])]
    #[case::just_come(SyntheticRun { unread: 700, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::own_error(SyntheticRun { internal: 1, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::own_error_and_it_decides(SyntheticRun { internal: 1, thresholds: vec!["errors.total == 0"], ..SyntheticRun::default() }, RunValidity::Suspect, &["uncertain"])]
    #[case::own_errors(SyntheticRun { internal: 300, ..SyntheticRun::default() }, RunValidity::Invalid, &["own-errors"])]
    #[case::slower(SyntheticRun { slower: MS, ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::slower_and_it_decides(SyntheticRun { slower: MS, thresholds: vec!["submit_job.response.p90 < 26.5ms"], ..SyntheticRun::default() }, RunValidity::Suspect, &["uncertain"])]
    #[case::slower_and_it_holds(SyntheticRun { slower: MS, thresholds: vec!["submit_job.response.p90 < 50ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::slower_on_purpose(SyntheticRun { slower: MS, changing_load: true, thresholds: vec!["submit_job.response.p90 < 26.5ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::unjoined(run_with_circumstances(|c| c.unjoined = 40), RunValidity::Suspect, &["unjoined"])]
    #[case::few_unjoined(run_with_circumstances(|c| c.unjoined = 4), RunValidity::Valid, &[])]
    #[case::failed_to_join(run_with_circumstances(|c| (c.unjoined, c.failed_openings) = (40, vec!["a".to_owned(), "b".to_owned()])), RunValidity::Suspect, &["unjoined"; 3])]
    #[case::joined_later(run_with_circumstances(|c| c.failed_openings = vec!["a".to_owned()]), RunValidity::Valid, &[])]
    #[case::hopeless(run_with_circumstances(|c| (c.unjoined, c.hopeless) = (4, vec![HopelessRole { name: "worker".to_owned(), failed: 3, population: 4 }])), RunValidity::Invalid, &["unjoined"])]
    #[case::too_few_samples(SyntheticRun { thresholds: vec!["submit_job.response.p99.99 < 1s"], ..SyntheticRun::default() }, RunValidity::Suspect, &["uncertain"])]
    #[case::too_few_samples_and_it_is_broken(SyntheticRun { thresholds: vec!["submit_job.response.p99.99 < 5ms"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::enough_samples(SyntheticRun { thresholds: vec!["submit_job.response.p99.9 < 1s"], ..SyntheticRun::default() }, RunValidity::Valid, &[])]
    #[case::decided_by_chance(SyntheticRun { thresholds: vec!["submit_job.response.p50 < 6ms"], ..SyntheticRun::default() }, RunValidity::Suspect, &["uncertain"])]
    fn measurements_determine_the_validity(
        #[case] run: SyntheticRun,
        #[case] validity: RunValidity,
        #[case] codes: &[&str],
    ) {
        let judgement = run.report().judgement;
        assert_eq!(judgement.reasons.iter().map(|reason| reason.code.name()).collect::<Vec<_>>(), codes);
        assert_eq!(judgement.validity(), validity);
    }

    /// Notes tell a reader what to know, though the run is valid.
    #[rstest]
    #[case::calm(SyntheticRun::calm(), &[], "")]
    #[case::core(SyntheticRun { busy: 0.95, ..SyntheticRun::default() }, &["core"], "core 0 was almost fully busy in 20 of 20 intervals (peak 95 %)")]
    #[case::few_missed(SyntheticRun { missed: 4, ..SyntheticRun::default() }, &["missed"], "4 of 22 004 journeys jobs never began: no client was free")]
    #[case::slower(SyntheticRun { slower: MS, ..SyntheticRun::default() }, &["trend"], "the median response time of submit_job went up by")]
    #[case::closed(run_of_workload(Workload::Closed), &["closed-workload"], "jobs is a closed workload: a client begins a journey when its last one has ended")]
    #[case::triggered(run_of_workload(Workload::Triggered), &[], "")]
    #[case::paced(run_of_workload(Workload::Paced), &[], "")]
    #[case::skipping(run_of_workload(Workload::Skipping), &[], "")]
    #[case::held(run_with_circumstances(|c| c.holds = vec![5 * SECOND..8 * SECOND, 9 * SECOND..10 * SECOND]), &["held"], "held back from 5 s to 8 s, and from 9 s to 10 s; the schedule waited")]
    #[case::unsteady(run_with_circumstances(|c| c.unsteady_warm_up = Some(Duration::from_secs(10))), &["warm-up"], "not steady after 10.00 s of warm-up")]
    fn notes_say_what_the_figures_cannot_show(#[case] run: SyntheticRun, #[case] codes: &[&str], #[case] text: &str) {
        let judgement = run.report().judgement;
        assert_eq!(judgement.validity(), RunValidity::Valid, "{:?}", judgement.reasons);
        assert_eq!(judgement.notes.iter().map(|note| note.code.name()).collect::<Vec<_>>(), codes);
        assert!(judgement.notes.iter().all(|note| note.text.contains(text)), "{:?}", judgement.notes);
    }

    /// Each reason names the cause that decides, and says what to do.
    #[rstest]
    #[case(SyntheticRun { delay: 2 * MS, thresholds: vec!["submit_job.response.p99 < 11ms"], ..SyntheticRun::default() }, "without the generator's own delay it might hold; give the generator more or faster cores")]
    #[case(SyntheticRun { thresholds: vec!["submit_job.response.p99.99 < 1s"], ..SyntheticRun::default() }, "20 000 samples are too few for this percentile, so it might not hold; measure longer, until there are at least 36 887")]
    #[case(SyntheticRun { thresholds: vec!["submit_job.response.p50 < 6ms"], ..SyntheticRun::default() }, "(5.00 ms to 6.02 ms; up to 20 µs of it is ours); with 20 000 samples it might not hold by chance; measure longer")]
    #[case(SyntheticRun { missed: 200, thresholds: vec!["jobs.duration.p99 < 35ms"], ..SyntheticRun::default() }, "200 more were due and have no time, so it might not hold")]
    #[case(SyntheticRun { slower: MS, thresholds: vec!["submit_job.response.p90 < 26.5ms"], ..SyntheticRun::default() }, "in the first half of the measured time and")]
    #[case(SyntheticRun { internal: 1, thresholds: vec!["errors.total == 0"], ..SyntheticRun::default() }, "1 errors are the generator's own, without which it might hold")]
    fn an_uncertain_threshold_names_the_cause_and_what_to_do(#[case] run: SyntheticRun, #[case] expected: &str) {
        let judgement = run.report().judgement;
        let [reason] = &judgement.reasons[..] else { panic!("{:?}", judgement.reasons) };
        assert!(reason.text.contains(expected), "{}", reason.text);
    }
}
