//! The JSON document of a run of `load`. A change to it changes [`FORMAT_VERSION`] and
//! `schemas/hubproof/load-report.schema.json`. Maps have an entry for each metric with samples; all other members are
//! always written, and null where they do not apply.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Tool;
use crate::report::EntryStanding;
use crate::syntax::explanation::Explanation;

pub const FORMAT: &str = "hubproof-load-report";
/// Incremented when a member is removed, renamed or changes its meaning; new members may be added without notice.
pub const FORMAT_VERSION: u32 = 1;

/// What one run of `hubproof load` measured.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(title = "hubproof load report"))]
pub struct LoadDocument {
    /// Always `hubproof-load-report`.
    #[cfg_attr(test, schemars(extend("const" = FORMAT)))]
    pub format: String,
    /// Incremented when a member is removed, renamed or changes its meaning; new members may be added without notice.
    #[cfg_attr(test, schemars(extend("const" = FORMAT_VERSION)))]
    pub format_version: u32,
    pub tool: Tool,
    pub run: Run,
    pub validity: Validity,
    pub thresholds: Vec<Threshold>,
    /// The deviations of the hub that the target declares.
    #[serde(default)]
    pub deviations: Vec<Deviation>,
    /// Times by name, such as `submit_job.response`: the samples due in the measured time, whenever the answer came.
    pub times: BTreeMap<String, Times>,
    /// Counts by name, such as `submit_job.sent`, `jobs.completed` or `errors.timeout`; only those above 0.
    pub counts: BTreeMap<String, Counted>,
    /// The journeys that a schedule or a pace made due, by name.
    #[serde(default)]
    pub due_journeys: BTreeMap<String, DueJourneys>,
    /// Deliveries made, as a share of those due, by the name of the message that fans out.
    pub delivery_ratios: BTreeMap<String, f64>,
    /// Errors of all kinds.
    pub errors: u64,
    /// How connections ended unexpectedly, or why they were not opened; the most frequent first.
    #[serde(default)]
    pub connections: Vec<EndedConnections>,
    /// The steps at which journeys ended while they waited for a message.
    #[serde(default)]
    pub waits: Vec<Wait>,
    pub ledger: Ledger,
    /// The intervals, in order. A long run has longer intervals.
    pub intervals: Vec<Interval>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Run {
    /// The start time: RFC 3339, UTC.
    pub started: String,
    pub duration_s: f64,
    /// The length of the measured time.
    pub measured_s: f64,
    /// The length of the warm-up before it, without holds.
    #[serde(default)]
    pub warm_up_s: f64,
    /// The times in which new journeys were held back. The schedule waited meanwhile.
    #[serde(default)]
    pub holds: Vec<Hold>,
    pub protocol: String,
    pub plan: String,
    pub title: String,
    /// The URL of the hub, or `embedded reference server`.
    pub target: String,
    /// The arguments of the command, without secrets.
    pub command: Vec<String>,
    pub seed: u64,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// 0 every threshold holds, 1 a threshold is broken or a deviation is stale, 3 the run is not valid or was interrupted, or a threshold was not observed.
    pub exit_code: u8,
    /// The rates at which journeys were due by a schedule, by the journey's name.
    #[serde(default)]
    pub schedules: BTreeMap<String, Vec<ScheduledRate>>,
    /// The verdict line of the terminal page.
    #[serde(default)]
    pub summary: String,
    /// Further facts for the reader, by name.
    pub facts: BTreeMap<String, String>,
}

/// A time in which new journeys were held back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hold {
    pub from_s: f64,
    pub to_s: f64,
}

/// A time over which the scheduled rate changes linearly. Times count from the beginning of the warm-up, which ends where
/// the first measured interval begins, and leave out holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ScheduledRate {
    pub from_s: f64,
    pub to_s: f64,
    pub from_per_second: f64,
    pub to_per_second: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Validity {
    pub verdict: RunValidity,
    pub reasons: Vec<Reason>,
    /// Notes for the reader that change no conclusion.
    #[serde(default)]
    pub notes: Vec<Note>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Note {
    /// A stable code for this kind of note.
    pub code: String,
    pub text: String,
}

/// The journeys of a role that were due in the whole run.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DueJourneys {
    pub workload: Workload,
    /// The sum of `started`, `missed` and `skipped`.
    pub due: u64,
    pub started: u64,
    /// Started journeys that began late because their client was still busy. Their times count from when they were due.
    pub late: u64,
    /// Journeys that never began: no client was free, or the clients had not caught up when the run ended.
    pub missed: u64,
    /// Ticks that the client skipped, as the plan allows.
    pub skipped: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reason {
    /// A stable code for this kind of reason.
    pub code: String,
    pub verdict: RunValidity,
    pub text: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Threshold {
    pub text: String,
    pub standing: ThresholdStanding,
    /// Milliseconds if the metric is a time; null if there were no samples.
    pub observed: Option<f64>,
    /// The value that the threshold compares with, in the unit of `observed`.
    pub bound: f64,
    /// Whether at least ten samples lie beyond the threshold's percentile.
    pub supported: bool,
    /// Whether the broken threshold ended the run.
    pub aborted: bool,
    /// Whether neither plan nor command line states it; such a default threshold is listed where it is broken.
    #[serde(default)]
    pub default: bool,
    /// Why nothing was observed; null if something was.
    pub unobserved: Option<String>,
    /// How much of `observed` may be the generator's own delay, in the same unit; null if none.
    pub uncertainty: Option<f64>,
    /// The range in which the true value lies, in the unit of `observed`; null if `observed` is exact.
    #[serde(default)]
    pub range: Option<Range>,
    /// Whether the threshold has another result somewhere in that range. It then neither passes nor fails the run.
    #[serde(default)]
    pub uncertain: bool,
    /// The first items whose violations break the threshold.
    #[serde(default)]
    pub items: Vec<String>,
}

/// A declared deviation, with how often the run observed it.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Deviation {
    /// Its number among the entries of the target file, such as `deviation:1`.
    pub name: String,
    /// What is different, in one line.
    pub text: String,
    pub reason: String,
    /// The rules that its entry names, if it was observed.
    pub rules: Vec<String>,
    pub standing: EntryStanding,
    /// How often the deviation applied.
    pub observed: usize,
    /// How often the documented form was seen instead.
    pub contradicted: usize,
    /// How many messages clients assumed because of the deviation. They are in no other count of messages of the hub.
    #[serde(default)]
    pub assumed: usize,
}

/// A histogram in figures, to three significant digits.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Times {
    pub count: u64,
    pub min_ms: f64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p95_ms: f64,
    /// The 99th percentile; null if fewer than ten samples lie beyond it, likewise for the higher percentiles.
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub max_ms: f64,
    /// Upper bound of the generator's own delay in each figure; null for times without such a part.
    pub uncertainty: Option<Uncertainty>,
    /// The range in which each true figure lies.
    #[serde(default)]
    pub ranges: Ranges,
    /// The whole histogram: HdrHistogram's V2 encoding, not compressed, in base64. Values are nanoseconds.
    pub histogram: String,
}

/// Upper bound of the generator's part of the figures of [`Times`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Uncertainty {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p95_ms: f64,
    /// Null if the percentile is null.
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub max_ms: f64,
}

impl Uncertainty {
    /// Returns the generator's part of a percentile by its name, such as `p90`.
    pub fn percentile(&self, name: &str) -> Option<f64> {
        match name {
            "p50" => Some(self.p50_ms),
            "p90" => Some(self.p90_ms),
            "p95" => Some(self.p95_ms),
            "p99" => self.p99_ms,
            "p99.9" => self.p999_ms,
            _ => None,
        }
    }
}

/// The ranges of the figures of [`Times`]: 95 % confidence intervals, whose lower ends are without the generator's own
/// delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ranges {
    pub mean_ms: Range,
    pub p50_ms: Range,
    pub p90_ms: Range,
    pub p95_ms: Range,
    /// Null if the percentile is null.
    pub p99_ms: Option<Range>,
    pub p999_ms: Option<Range>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Range {
    pub low: f64,
    /// Null if there are too few samples for an upper bound.
    pub high: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counted {
    /// The count of the whole run, warm-up and drain included.
    pub whole_run: u64,
    pub measured: u64,
    /// The count per second of the measured time.
    pub per_second: f64,
}

/// Connections that ended in the same way.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EndedConnections {
    /// closed, reset, dropped, unread, violation, refused, not-http, tls, unreachable, resources, internal or other.
    pub how: String,
    /// The code of the close frame, or the HTTP status of the refusal; null if there is none.
    pub code: Option<u16>,
    /// The reason of the close frame, the description of the refusal, or the error; printable, and shortened.
    pub reason: String,
    pub count: u64,
}

/// Journeys that ended while they waited for a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Wait {
    pub journey: String,
    pub message: String,
    /// The file and line of the step.
    pub place: String,
    /// Whether the message did not come in time; otherwise the run ended first.
    pub timed_out: bool,
    pub journeys: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ledger {
    /// Counts of items by name: attempted, acknowledged, completed, lost, duplicated and so on.
    pub counts: BTreeMap<String, u64>,
    /// The items that cannot be followed because their id or progress is only assumed, by the name of the deviation.
    #[serde(default)]
    pub assumed: BTreeMap<String, u64>,
    /// The first violations of each kind.
    pub violations: Vec<Violation>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Violation {
    pub kind: String,
    pub at_s: f64,
    /// The item's id, or the id's hash in 16 hexadecimal digits if the id itself was not kept.
    pub item: String,
    pub history: Vec<Step>,
    /// The number of steps that were not kept, before the last one.
    pub omitted: u64,
    /// For a lost message: who did not get it; otherwise null.
    #[serde(default)]
    pub missed: Option<Missed>,
}

/// The deliveries that a lost message lacks.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Missed {
    pub deliveries: usize,
    /// The number of parties that may have missed the message. More than `deliveries` if it is not known who was
    /// addressed.
    pub candidates: usize,
    /// The names of the first of these parties.
    pub receivers: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Step {
    pub at_s: f64,
    pub what: String,
    /// The party's id, or its role and number; null if no party is known.
    pub party: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Interval {
    pub from_s: f64,
    pub to_s: f64,
    pub phase: RunPhase,
    pub times: BTreeMap<String, IntervalTimes>,
    /// Counts in the interval by name; only those above 0.
    pub counts: BTreeMap<String, u64>,
    /// The highest value of each gauge.
    pub levels: BTreeMap<String, u64>,
    /// Utilisation of each core, 0 to 1.
    pub cores: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct IntervalTimes {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Encoded as in the times of the whole run.
    pub histogram: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RunValidity {
    /// The conclusions hold.
    Valid,
    /// A conclusion could be different, or the run did not do all that its plan says.
    Suspect,
    /// The figures do not describe what the plan says.
    Invalid,
}

impl RunValidity {
    pub const ALL: [Self; 3] = [Self::Valid, Self::Suspect, Self::Invalid];

    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Suspect => "suspect",
            Self::Invalid => "invalid",
        }
    }

    pub fn explanation(self) -> Explanation {
        match self {
            Self::Valid => Explanation::new("valid", "The conclusions of a load run hold."),
            Self::Suspect => Explanation::new(
                "suspect",
                "A conclusion of a load run could be different, or the run did not do all that its plan says. The exit code is 3, unless a threshold is broken.",
            )
            .next("Each reason has a code and says what to do: hubproof explain CODE"),
            Self::Invalid => Explanation::new(
                "invalid",
                "The figures of a load run do not describe what its plan says. The exit code is 3, unless the ledger has violations.",
            )
            .next("Each reason has a code and says what to do: hubproof explain CODE"),
        }
    }
}

/// What the generator is doing in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RunPhase {
    /// Populations connect; not part of any total.
    Warmup,
    /// The time that the report covers.
    Measured,
    /// New journeys are held back; not part of the measured time.
    Held,
    /// No new journey is due; running ones finish.
    Drain,
}

impl RunPhase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Warmup => "warmup",
            Self::Measured => "measured",
            Self::Held => "held",
            Self::Drain => "drain",
        }
    }
}

/// The result of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ThresholdStanding {
    Holds,
    Broken,
    /// There were no samples, or nothing that could be counted.
    #[serde(alias = "undecided")]
    NotObserved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// By a schedule, whether or not a client is free.
    Open,
    /// By a pace. A client that falls behind works off the ticks that have passed.
    Paced,
    /// By a pace. A client that falls behind skips the ticks that have passed.
    Skipping,
    /// When the client's last journey has ended.
    Closed,
    /// When a message comes, or once for each client.
    Triggered,
}

impl Workload {
    /// Whether a schedule or a pace says when journeys are due.
    pub fn has_due_times(self) -> bool {
        matches!(self, Self::Open | Self::Paced | Self::Skipping)
    }
}

impl ThresholdStanding {
    pub const ALL: [Self; 3] = [Self::Holds, Self::Broken, Self::NotObserved];

    pub fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Broken => "broken",
            Self::NotObserved => "not-observed",
        }
    }

    pub fn explanation(self) -> Explanation {
        match self {
            Self::Holds => Explanation::new("holds", "The measured value meets the threshold."),
            Self::Broken => {
                Explanation::new("BROKEN", "The measured value does not meet the threshold. The run fails with exit code 1.")
                    .next("Find the highest rate at which it holds: hubproof load URL --protocol NAME --find-max THRESHOLD")
            }
            Self::NotObserved => Explanation::new(
                "unobserved",
                "There was no sample, or nothing to count, so the threshold says nothing and the run ends with exit code 3.",
            )
            .usually("The plan never sends the message of the metric, or no answer came.")
            .next("Measure longer with `--duration`, or raise `--rate`."),
        }
    }
}
