//! Synthetic runs for tests of judgement and reports: 2 s of warm-up and 20 s measured, a job every millisecond,
//! answered after 1 to 10 ms.

use std::time::Duration;

use super::{LoadReport, LoadRunMetadata, terminal};
use crate::deviation::{DeviationSightings, Deviations};
use crate::load::client::io::Disconnection;
use crate::load::details::ConnectionEnd;
use crate::load::ids::{JourneyId, MessageId, OperationId};
use crate::load::ledger::{ItemLedger, LedgerConfig, LedgerEntry, LedgerMark, NO_PARTY};
use crate::load::metrics::selector::RunMeasurements;
use crate::load::metrics::{
    Gauge, JourneyCount, LoadErrorKind, Measurement, MessageCount, MetricRecorder, MetricRegistry, MetricSeries,
    MetricSubjects, OperationTable, RunPhases,
};
use crate::load::plan::schedule::RateSegment;
use crate::load::plan::script::{JourneyWorkload, Workload};
use crate::load::plan::threshold::{self, ThresholdWatch};
use crate::load::validity::{RunCircumstances, judge_run};
use crate::load::{Nanos, SECOND};
use crate::report::DeviationReport;
use crate::report::document::load::Wait;
use crate::report::terminal_page::Style;
use crate::report::test_results::TestResults;
use crate::syntax::source::{Sources, Span};
use crate::syntax::yaml;

pub const MS: Nanos = 1_000_000;
pub const JOBS: u64 = 22_000;

/// The properties of a synthetic run.
#[derive(Clone)]
pub struct SyntheticRun {
    /// The send delay of every message.
    pub delay: Nanos,
    /// How much longer than usual the hub takes.
    pub hub: Nanos,
    /// Growth of the service time per second.
    pub slower: Nanos,
    pub busy: f64,
    /// Journeys that found no free client.
    pub missed: u64,
    /// Journeys that were still running at the end.
    pub unfinished: u64,
    pub internal: u64,
    pub connections_lost: u64,
    pub unread: u64,
    pub circumstances: RunCircumstances,
    /// Whether the plan changes its load on purpose.
    pub changing_load: bool,
    /// Whether every hundredth job is not completed and every thousandth is completed twice.
    pub faulty: bool,
    /// Whether jobs are labelled by how long their answers take.
    pub labelled: bool,
    /// The number of jobs whose acceptance clients only assume.
    pub assumed: u64,
    pub thresholds: Vec<&'static str>,
    pub interrupted: bool,
    /// How often each declared deviation applied, and how often the documented form came instead.
    pub deviations: Vec<(usize, usize)>,
}

impl Default for SyntheticRun {
    fn default() -> Self {
        Self {
            delay: MS / 50,
            hub: 0,
            slower: 0,
            busy: 0.4,
            missed: 0,
            unfinished: 0,
            internal: 0,
            connections_lost: 0,
            unread: 0,
            circumstances: RunCircumstances {
                workloads: vec![JourneyWorkload { journey: "jobs".to_owned(), workload: Workload::Open }],
                clients: 2_200,
                ..RunCircumstances::default()
            },
            changing_load: false,
            faulty: false,
            labelled: false,
            assumed: 0,
            thresholds: Vec::new(),
            interrupted: false,
            deviations: Vec::new(),
        }
    }
}

pub fn layout() -> MetricRegistry {
    MetricRegistry::new(MetricSubjects {
        messages: ["submit_job", "claim_job", "announce", "job_accepted"].map(str::to_owned).to_vec(),
        journeys: vec!["jobs".to_owned()],
        operations: OperationTable::new(vec![SUBMIT.0.into()]),
    })
}

const SUBMIT: MessageId = MessageId(0);
const ANNOUNCE: MessageId = MessageId(2);
const ACCEPTED: MessageId = MessageId(3);

enum SyntheticEvent {
    Sent,
    Answered { delay: Nanos },
    Assumed,
    Completed,
    Announced,
}

impl SyntheticRun {
    /// A run without problems, with thresholds that hold.
    pub fn calm() -> Self {
        Self { thresholds: vec!["submit_job.response.p99 < 50ms", "ledger.lost == 0"], ..Self::default() }
    }

    /// A run with every problem.
    pub fn troubled() -> Self {
        Self {
            delay: 3 * MS,
            busy: 0.97,
            missed: 412,
            faulty: true,
            labelled: true,
            thresholds: vec![
                "submit_job.response.p99 < 5ms",
                "submit_job.response.p99 < 12ms",
                "ledger.lost == 0",
                "claim_job.response.p50 < 1s",
            ],
            interrupted: true,
            ..Self::default()
        }
    }

    pub fn report(&self) -> LoadReport {
        let series = self.series();
        let account = self.ledger_totals();
        let state = RunMeasurements {
            layout: &series.layout,
            total: series.total(),
            account: &account,
            intervals: series.intervals(),
            validated: None,
            changing_load: self.changing_load,
        };
        let thresholds = self.thresholds.iter().map(|text| parse_fixture_threshold(text)).collect();
        let outcomes = ThresholdWatch::new(thresholds, &series.layout).finish(state, None, self.interrupted);
        let judgement = judge_run(state, &outcomes, self.circumstances.clone());
        let mut report = LoadReport::new(self.about(), series, account, outcomes, judgement);
        (report.deviations, _) = self.deviations();
        if self.faulty {
            let closed = ConnectionEnd { how: Disconnection::Close(1011), detail: "oops".into() };
            report.ends.add(closed, 100);
            report.ends.add(ConnectionEnd { how: Disconnection::Reset, detail: "".into() }, 2);
            report.waits.push(Wait {
                journey: "jobs".to_owned(),
                message: "job_completed".to_owned(),
                place: "queue.yaml:20".to_owned(),
                timed_out: false,
                journeys: 220,
            });
        }
        report
    }

    /// Returns the page of the report.
    pub fn page(&self) -> String {
        terminal::summary(&self.report(), &self.deviations().1, Style::default())
    }

    /// Returns the report as build servers see it.
    pub fn results(&self) -> TestResults {
        TestResults::from_load(&self.report(), &self.deviations().1)
    }

    /// Returns the deviations, and the files in which they are declared.
    fn deviations(&self) -> (Vec<DeviationReport>, Sources) {
        let crate::report::fixture::RunFixture { mut sources, pack, programs, .. } =
            crate::report::fixture::RunFixture::all_pass();
        let entry = |_| "{ reason: as it is, rules: [GRE-001], message: welcome, instead: { say: hi } }";
        let entries: Vec<&str> = self.deviations.iter().map(entry).collect();
        let file = sources.add("hub.yaml", format!("[{}]", entries.join(", ")));
        let nodes = yaml::parse(&sources, file).unwrap();
        let read = Deviations::parse(nodes.list().unwrap(), &pack, &programs[0].shared, false).unwrap();
        let seen = self
            .deviations
            .iter()
            .map(|(observed, contradicted)| DeviationSightings { observed: *observed, contradicted: *contradicted });
        (DeviationReport::list_all(&read, &pack, &seen.enumerate().collect()), sources)
    }

    fn about(&self) -> LoadRunMetadata {
        LoadRunMetadata {
            tool_version: "0.0.0".to_owned(),
            protocol: "emprops".to_owned(),
            plan: "emprops/load/queue".to_owned(),
            title: "Jobs are queued, claimed and completed".to_owned(),
            target: "ws://127.0.0.1:4000".to_owned(),
            command: ["hubproof", "load", "ws://127.0.0.1:4000"].map(str::to_owned).to_vec(),
            started: 1_642_248_600_000,
            seed: 7,
            duration: Duration::from_secs(25),
            interrupted: self.interrupted,
            warm_up: Duration::from_secs(2),
            holds: self.circumstances.holds.clone(),
            workloads: self.circumstances.workloads.clone(),
            schedules: vec![(
                "jobs".to_owned(),
                vec![RateSegment { start: 0.0, length: 22.0, from: 1_000.0, to: 1_000.0 }],
            )],
            changing_load: self.changing_load,
            facts: vec![("clients".to_owned(), "2 000 workers, 200 clients".to_owned())],
        }
    }

    fn series(&self) -> MetricSeries {
        let layout = layout();
        let mut recorder = MetricRecorder::new(layout.clone(), RunPhases::new(SECOND, 2 * SECOND, Some(20 * SECOND)));
        let mut events: Vec<(Nanos, Nanos, SyntheticEvent)> = Vec::new();
        for n in 0..JOBS {
            let due = n * MS;
            let sent = due + self.delay;
            let answered = sent + self.hub + (1 + n % 10) * MS + self.slower * (n / 1_000);
            events.push((sent, due, SyntheticEvent::Sent));
            if n < self.assumed {
                events.push((sent, due, SyntheticEvent::Assumed));
                continue;
            }
            events.push((answered, due, SyntheticEvent::Answered { delay: self.delay }));
            if !(self.faulty && n % 100 == 0) {
                events.push((answered + 20 * MS, due, SyntheticEvent::Completed));
            }
            if n % 10 == 0 {
                events.push((answered + MS, due, SyntheticEvent::Announced));
            }
        }
        events.sort_by_key(|(at, ..)| *at);
        for (at, due, event) in events {
            match event {
                SyntheticEvent::Sent => {
                    recorder.record(Measurement::Sent { message: SUBMIT, due, ready: due }, at);
                    recorder.record(Measurement::Journeys(JourneyId(0), JourneyCount::Started, 1), at);
                    recorder.lag(self.delay, at);
                }
                SyntheticEvent::Answered { delay } => {
                    recorder.record(Measurement::Answered { message: SUBMIT, due, delay }, at);
                    if self.labelled {
                        let label = ["fast", "slow"][usize::from(at - due - delay > 5 * MS)];
                        let operation = layout.names.operations.find_or_add(SUBMIT.0.into(), label);
                        let operation = OperationId(operation as u16);
                        recorder.record(Measurement::OperationSent(operation), at);
                        recorder.record(Measurement::OperationAnswered { operation, due, delay }, at);
                    }
                }
                SyntheticEvent::Assumed => {
                    recorder.record(Measurement::Messages(SUBMIT, MessageCount::AnswersAssumed, 1), at);
                    recorder.record(Measurement::Messages(ACCEPTED, MessageCount::Assumed, 1), at);
                    recorder.record(Measurement::Journeys(JourneyId(0), JourneyCount::Assumed, 1), at);
                }
                SyntheticEvent::Completed => {
                    recorder.record(Measurement::JourneyCompleted { journey: JourneyId(0), due }, at);
                }
                SyntheticEvent::Announced => {
                    recorder.record(Measurement::Messages(ANNOUNCE, MessageCount::Due, 3), at);
                    let delivered = Measurement::Delivered { message: ANNOUNCE, due: at };
                    (1..4).for_each(|n| recorder.record(delivered, at + n * MS / 2));
                }
            }
            if at % SECOND < MS {
                recorder.core(0, self.busy, at);
                recorder.gauge(Gauge::Connections, 2_200, at);
                recorder.gauge(Gauge::Memory, 64_000_000, at);
            }
        }
        let end = 23 * SECOND;
        recorder.gauge(Gauge::Unread, self.unread, end);
        recorder.record(Measurement::Journeys(JourneyId(0), JourneyCount::Missed, self.missed), end);
        recorder.record(Measurement::Journeys(JourneyId(0), JourneyCount::Unfinished, self.unfinished), end);
        (0..self.internal).for_each(|_| recorder.record(Measurement::Error(LoadErrorKind::Internal), end));
        (0..self.connections_lost).for_each(|_| recorder.record(Measurement::Error(LoadErrorKind::Lost), end));
        let mut series = MetricSeries::new(layout.clone(), 1);
        for interval in recorder.finish(25 * SECOND) {
            series.add(interval);
        }
        series
    }

    fn ledger_totals(&self) -> crate::load::ledger::LedgerTotals {
        let mut ledger = ItemLedger::new(LedgerConfig { most_histories: 2, ..LedgerConfig::default() });
        for n in 0..JOBS {
            let entry = |after: Nanos, party, what| LedgerEntry { at: n * MS + after, item: n + 1, party, what };
            if n < self.assumed {
                let assumed = LedgerMark::Assumed { deviation: 1 };
                ledger.queue_entries(&[entry(0, 900, LedgerMark::Requested), entry(1, NO_PARTY, assumed)]);
                continue;
            }
            let mut story = vec![
                entry(0, 900, LedgerMark::Attempted),
                entry(MS, 900, LedgerMark::Acknowledged),
                entry(5 * MS, 1 + n as u32 % 7, LedgerMark::Assigned),
            ];
            if !(self.faulty && n % 100 == 0) {
                story.push(entry(20 * MS, 1 + n as u32 % 7, LedgerMark::Completed));
            }
            if self.faulty && n % 1_000 == 1 {
                story.push(entry(21 * MS, 1 + n as u32 % 7, LedgerMark::Completed));
            }
            ledger.queue_entries(&story);
        }
        ledger.finish(25 * SECOND)
    }
}

/// Parses a threshold for the fixture's plan.
pub fn parse_fixture_threshold(text: &str) -> threshold::MetricThreshold {
    let mut sources = Sources::default();
    let file = sources.add("--threshold", text);
    let read = threshold::parse_threshold(text, Span::new(file, 0..text.len()), &layout()).unwrap();
    // The file is in no other `Sources`.
    threshold::MetricThreshold { span: None, ..read }
}
