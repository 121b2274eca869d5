//! A small protocol, and runs against hubs that do and do not conform to it: input for the tests of all report formats.

use std::sync::Arc;
use std::time::Duration;

use super::{ProtocolOutline, ReportAggregator, RunOptions, RunReport};
use crate::outcome::{
    CheckReport, FindingDetail, FrameKind, FrameReport, HistoryDirection, HubCrash, Lack, LogExcerpt,
    PreconditionFailure, ProcessReport, ScenarioReport, ShortenedWaits, TimingMargin, UnmetNeed, Verdict,
};
use crate::protocol::{Pack, PackFolder};
use crate::scenario::{Program, ScenarioSet};
use crate::syntax::source::{FileId, Sources, Span};

const ASYNCAPI: &str = r#"asyncapi: 3.1.0
info: { title: Greetings, version: 1.2.0 }
servers: { hub: { host: localhost, protocol: ws } }
channels:
  hub:
    address: /
    messages:
      hello: { $ref: '#/components/messages/hello' }
      bye: { $ref: '#/components/messages/bye' }
      welcome: { $ref: '#/components/messages/welcome' }
      echo: { $ref: '#/components/messages/echo' }
operations:
  greet: { action: receive, channel: { $ref: '#/channels/hub' }, messages: [ { $ref: '#/channels/hub/messages/hello' }, { $ref: '#/channels/hub/messages/bye' } ] }
  answer: { action: send, channel: { $ref: '#/channels/hub' }, messages: [ { $ref: '#/channels/hub/messages/welcome' }, { $ref: '#/channels/hub/messages/echo' } ] }
components:
  messages:
    hello: { payload: { $ref: ./messages/hello.schema.json }, x-hubproof: { match: { say: hello } } }
    bye: { payload: { $ref: ./messages/bye.schema.json }, x-hubproof: { match: { say: bye } } }
    welcome: { payload: { $ref: ./messages/welcome.schema.json }, x-hubproof: { match: { say: welcome } } }
    echo: { payload: { $ref: ./messages/echo.schema.json }, x-hubproof: { match: { say: echo } } }
"#;

const RULES: &str = r"document: The greeter, as its makers describe it
rules:
  GRE-001: { level: must, basis: stated, line: 3, text: Whoever says hello is welcomed. }
  GRE-002: { level: must, basis: implied, line: 4, text: The welcome repeats the name of the guest exactly as the guest has given it., from: guests are welcomed by name }
  GRE-003: { level: should, basis: stated, line: 5, text: A welcome is happy. }
  GRE-004: { level: must, basis: stated, line: 6, text: A welcome says when it was said. }
  GRE-005: { level: must, basis: stated, line: 7, text: A guest says hello first., out_of_scope: only a client can break it }
  GRE-006: { level: must, basis: stated, line: 8, text: Who knows the secret gets a chair. }
  GRE-007: { level: may, basis: silent-guess, line: 9, text: A hub may be tired. }
  GRE-008: { level: must, basis: stated, line: 10, text: An echo has a text. }
  GRE-009: { level: must, basis: stated, line: 11, text: Whoever says bye gets an echo. }
";

const SHARED: &str = r"hub:
  secret: { secret: true, about: what guests know }
hooks: { stop: { about: stops the hub } }
roles:
  guest: {}
  friend:
    opening:
      - connects:
      - sends: hello
      - expects: welcome
";

const HELLO: &str = r"title: Who says hello is welcomed by name
actors: { anna: guest }
steps:
  - anna connects:
  - anna sends: hello
    with: { name: anna }
  - anna expects: welcome
    rules: [GRE-001]
    has:
      GRE-002: { name: anna }
      GRE-003: { mood: happy }
      GRE-004 as should: { /at: true }
";

const BYE: &str = r"title: Who leaves hears an echo
actors: { ben: friend }
steps:
  - ben joins:
  - ben sends: bye
  - ben expects: echo
    rules: [GRE-009]
";

const CHAIR: &str = r"title: The secret gets a chair
actors: { eva: friend }
steps:
  - eva joins:
  - eva sends: hello
    with: { name: '${hub.secret}' }
  - eva expects: welcome
    rules: [GRE-006]
";

pub const TARGET: &str = "ws://127.0.0.1:9";

pub fn options() -> RunOptions {
    RunOptions {
        command: ["hubproof", "check", TARGET].map(str::to_owned).to_vec(),
        target: TARGET.to_owned(),
        ..RunOptions::default()
    }
}

/// The scenario reports of a run, and its options.
pub struct RunFixture {
    pub sources: Sources,
    pub pack: Arc<Pack>,
    pub programs: Vec<Arc<Program>>,
    shared: FileId,
    selected: Vec<&'static str>,
    pub reports: Vec<ScenarioReport>,
    interrupted: bool,
    processes: Vec<ProcessReport>,
}

const ALL_SCENARIOS: [&str; 3] = ["greeter/hello", "greeter/bye", "greeter/chair"];

impl RunFixture {
    fn new() -> Self {
        let mut sources = Sources::default();
        let mut folder = PackFolder { name: "greeter".to_owned(), ..PackFolder::default() };
        let schema = |say: &str, more: &str| {
            format!(
                r#"{{"type": "object", "properties": {{"say": {{"const": "{say}"}}{more}}}, "required": ["say"], "examples": [{{"say": "{say}", "name": "someone", "text": "x"}}]}}"#
            )
        };
        let texts = [
            ("asyncapi.yaml", ASYNCAPI.to_owned()),
            ("rules.yaml", RULES.to_owned()),
            ("messages/hello.schema.json", schema("hello", r#", "name": {"type": "string"}"#)),
            ("messages/bye.schema.json", schema("bye", "")),
            ("messages/welcome.schema.json", schema("welcome", r#", "name": {}, "mood": {}, "at": {}"#)),
            ("messages/echo.schema.json", schema("echo", r#", "text": {"x-rules": ["GRE-008"], "type": "string"}"#)),
        ];
        for (path, text) in texts {
            let file = sources.add(format!("schemas/greeter/{path}"), text);
            folder.pack.insert(path.to_owned(), file);
        }
        for (path, text) in [("shared.yaml", SHARED), ("hello.yaml", HELLO), ("bye.yaml", BYE), ("chair.yaml", CHAIR)] {
            let file = sources.add(format!("scenarios/greeter/{path}"), text);
            folder.scenarios.insert(path.to_owned(), file);
        }
        let (pack, diagnostics) = Pack::load(&folder, &sources);
        assert!(diagnostics.is_empty(), "{}", crate::syntax::diagnostic::render_all(&diagnostics, &sources, false));
        let mut pack = pack.unwrap();
        // A constant, so that snapshots do not change with the fixture.
        pack.hash = "0123456789ab".to_owned();
        let pack = Arc::new(pack);
        let mut read = ScenarioSet::load(&folder, &sources, &pack);
        assert!(
            read.diagnostics.is_empty(),
            "{}",
            crate::syntax::diagnostic::render_all(&read.diagnostics, &sources, false)
        );
        read.programs.sort_by_key(|program| ALL_SCENARIOS.iter().position(|id| *id == program.id));
        let shared = folder.scenarios["shared.yaml"];
        Self {
            shared,
            sources,
            pack,
            programs: read.programs,
            selected: ALL_SCENARIOS.to_vec(),
            reports: Vec::new(),
            interrupted: false,
            processes: Vec::new(),
        }
    }

    pub fn report(&self, options: RunOptions) -> RunReport {
        let outline = ProtocolOutline::new(Arc::clone(&self.pack), &self.programs, |program| {
            self.selected.contains(&program.id.as_str())
        });
        let mut fold = ReportAggregator::new(vec![outline]);
        self.reports.iter().cloned().for_each(|report| fold.add_report(report));
        self.processes.iter().for_each(|process| fold.add_process("greeter", process.clone()));
        fold.finish(options, 1_790_000_000_123, Duration::from_millis(5_250), self.interrupted)
    }

    fn with_report(mut self, report: ScenarioReport) -> Self {
        self.reports.push(report);
        self
    }

    fn select(mut self, selected: &[&'static str]) -> Self {
        self.selected = selected.to_vec();
        self
    }

    pub fn all_pass() -> Self {
        let run = Self::new();
        let (hello, bye, chair) = (run.hello_report(1), run.bye_report(1), run.chair_report(1));
        run.with_report(chair).with_report(hello).with_report(bye)
    }

    /// A run without failed checks whose hub ended by itself; `blamed` is the scenario that caused it.
    pub fn hub_ended(blamed: Option<&str>) -> Self {
        let mut run = Self::all_pass();
        let excerpt = |line: &str| LogExcerpt { lines: vec!["listening".to_owned(), line.to_owned()], left_out: 3 };
        let crash = |during: &[&str], blamed: Option<&str>| HubCrash {
            status: "exit status 3".to_owned(),
            hung: false,
            during: during.iter().map(|id| (*id).to_owned()).collect(),
            after: Some("greeter/chair".to_owned()),
            blamed: blamed.map(str::to_owned),
            last_sent: None,
            log: excerpt("panic: \u{1b}[31mno more chairs"),
        };
        let mut crashes = vec![crash(&["greeter/hello", "greeter/bye"], None)];
        crashes.extend(blamed.map(|id| crash(&[id], Some(id))));
        run.processes = vec![ProcessReport {
            command: "./greeter --port 9".to_owned(),
            instances: vec!["main".to_owned()],
            starts: 3,
            crashes,
            given_up: None,
            log: excerpt("bye"),
            elsewhere: false,
        }];
        run
    }

    pub fn selection() -> Self {
        let run = Self::new().select(&["greeter/hello"]);
        let hello = run.hello_report(1);
        run.with_report(hello)
    }

    pub fn one_failure() -> Self {
        let run = Self::new();
        let (mut hello, bye, chair) = (run.hello_report(1), run.bye_report(1), run.chair_report(1));
        break_name(&mut hello);
        run.with_report(hello).with_report(bye).with_report(chair)
    }

    /// A run with control characters and markup in frames of the hub.
    pub fn hostile() -> Self {
        let mut run = Self::one_failure();
        let check = run.reports[0].checks.iter_mut().find(|check| check.name == "GRE-002").unwrap();
        check.message = "name is \"\u{1b}[2J\u{0}\u{fffe}]]>&<\u{202e}\r\n\", not anna".to_owned();
        check.detail.as_mut().unwrap().received = "welcome {\"name\": \"\u{1b}[2J\u{0}\u{b}\u{ffff}]]>\"}".to_owned();
        run.reports[0].history[2].text = "\u{1b}]0;title\u{7}".to_owned();
        run
    }

    /// A run in which a message breaks its schema in every scenario.
    pub fn schema_broken() -> Self {
        Self::schema_broken_with(["`welcome` breaks its schema at /at: expected a number, found \"now\""; 3])
    }

    /// The same run, with these messages of the failed checks.
    pub fn schema_broken_with(messages: [&str; 3]) -> Self {
        let run = Self::new();
        let mut reports = vec![run.hello_report(1), run.bye_report(1), run.chair_report(1)];
        for (report, message) in reports.iter_mut().zip(messages) {
            let mut check = report.checks[0].clone();
            check.name = "schema:welcome:GRE-004".to_owned();
            check.span = None;
            check.step.clone_from(&check.name);
            check.rules[0].0.id = "GRE-004".to_owned();
            report.checks.push(check);
            let detail = detail("/at: a number", r#"{"say":"welcome","at":"now"}"#, 1);
            break_check(report, "schema:welcome:GRE-004", Verdict::Fail, message, detail);
        }
        reports.into_iter().fold(run, Self::with_report)
    }

    pub fn warning() -> Self {
        let run = Self::new();
        let (mut hello, bye, chair) = (run.hello_report(1), run.bye_report(1), run.chair_report(1));
        break_check(
            &mut hello,
            "GRE-003",
            Verdict::Warn,
            "mood is \"bored\", not happy",
            detail("/mood: \"happy\"", r#"welcome {"say":"welcome","name":"anna","mood":"bored"}"#, 2),
        );
        break_check(
            &mut hello,
            "GRE-004",
            Verdict::Warn,
            "there is no /at",
            detail("/at to be there", r#"welcome {"say":"welcome","name":"anna","mood":"bored"}"#, 2),
        );
        break_check(&mut hello, "GRE-001", Verdict::Info, "answered late", FindingDetail::default());
        hello.leftovers = vec![("echo".to_owned(), 2)];
        run.with_report(hello).with_report(bye).with_report(chair)
    }

    pub fn flaky() -> Self {
        let run = Self::new();
        let (first, mut second, third) = (run.hello_report(1), run.hello_report(2), run.hello_report(3));
        break_name(&mut second);
        let (bye, chair) = (run.bye_report(1), run.chair_report(1));
        run.with_report(first).with_report(third).with_report(second).with_report(bye).with_report(chair)
    }

    pub fn greeting_broken() -> Self {
        let run = Self::new();
        let (mut hello, mut bye, mut chair) = (run.hello_report(1), run.bye_report(1), run.chair_report(1));
        hello.checks.retain(|check| check.name == "GRE-001");
        break_check(&mut hello, "GRE-001", Verdict::Fail, "the connection ended before welcome came", closed_early());
        hello.history.truncate(2);
        hello.history.push(frame(4, "anna", HistoryDirection::Received, FrameKind::Close, "1011 internal error"));
        hello.cause = Some(PreconditionFailure {
            span: hello.checks[0].span,
            step: "anna expects: welcome".to_owned(),
            message: "the connection ended".to_owned(),
            detail: None,
            unreachable: false,
            shortened: false,
            unauthenticated: false,
            rests_on_unfenced: Vec::new(),
        });
        run.fail_welcome(&mut bye);
        run.fail_welcome(&mut chair);
        run.with_report(hello).with_report(bye).with_report(chair)
    }

    pub fn inconclusive() -> Self {
        let run = Self::new();
        let (hello, mut bye, chair) = (run.hello_report(1), run.bye_report(1), run.chair_report(1));
        run.fail_welcome(&mut bye);
        run.with_report(hello).with_report(bye).with_report(chair)
    }

    pub fn unreachable() -> Self {
        let run = Self::new();
        let mut reports = vec![run.hello_report(1), run.bye_report(1), run.chair_report(1)];
        for report in &mut reports {
            report.checks.clear();
            report.history.clear();
            report.cause = Some(PreconditionFailure {
                span: Some(run.span_of("connects")),
                step: "connects".to_owned(),
                message: "connection refused".to_owned(),
                detail: None,
                unreachable: true,
                shortened: false,
                unauthenticated: false,
                rests_on_unfenced: Vec::new(),
            });
        }
        reports.into_iter().fold(run, Self::with_report)
    }

    /// A run against a hub that refuses the clients' credentials, in two ways.
    pub fn refused_credentials() -> Self {
        let run = Self::new();
        let mut reports = vec![run.hello_report(1), run.bye_report(1), run.chair_report(1)];
        for (report, (step, message)) in reports.iter_mut().zip([
            ("connects", "the connection was refused: HTTP 401 instead of 101"),
            ("expects: welcome", "no welcome received"),
            ("sends: hello", "the connection was refused: HTTP 403 instead of 101"),
        ]) {
            run.fail_welcome(report);
            let cause = report.cause.as_mut().unwrap();
            (cause.step, cause.message) = (step.to_owned(), message.to_owned());
            (cause.span, cause.unauthenticated) = (Some(run.span_of(step)), true);
        }
        // A step with a rule was refused, too.
        let mut hello = run.hello_report(1);
        hello.checks.retain(|check| check.name == "GRE-001");
        break_check(&mut hello, "GRE-001", Verdict::Fail, "the connection was refused", closed_early());
        let cause = reports[0].cause.take().map(|cause| PreconditionFailure { span: hello.checks[0].span, ..cause });
        reports[0] = ScenarioReport { cause, ..hello };
        reports.into_iter().fold(run, Self::with_report)
    }

    /// A run in which two of three waits for the same message were shortened.
    pub fn shortened() -> Self {
        let run = Self::new();
        let mut reports = vec![run.hello_report(1), run.bye_report(1), run.chair_report(1)];
        for (report, shortened) in reports.iter_mut().zip([true, false, true]) {
            run.fail_welcome(report);
            let cause = report.cause.as_mut().unwrap();
            let why =
                if shortened { ", but not waited for in full: it did not arrive in two conversations" } else { "" };
            (cause.message, cause.shortened) = (format!("no welcome received{why}"), shortened);
            let waits = ShortenedWaits { times: 1, saved: Duration::from_millis(4_700) };
            report.waits.shortened.extend(shortened.then(|| ("welcome".to_owned(), waits)));
        }
        reports.into_iter().fold(run, Self::with_report)
    }

    pub fn not_testable() -> Self {
        let run = Self::new();
        let (hello, bye, mut chair) = (run.hello_report(1), run.bye_report(1), run.chair_report(1));
        mark_unmet(&mut chair);
        run.with_report(hello).with_report(bye).with_report(chair)
    }

    pub fn nothing_testable() -> Self {
        let run = Self::new();
        let mut reports = vec![run.hello_report(1), run.bye_report(1), run.chair_report(1)];
        reports.iter_mut().for_each(mark_unmet);
        reports.into_iter().fold(run, Self::with_report)
    }

    pub fn other_protocol() -> Self {
        let mut run = Self::greeting_broken();
        for report in &mut run.reports {
            report.history.push(frame(
                4,
                "anna",
                HistoryDirection::Received,
                FrameKind::Text,
                r#"{"type":"STATUS","code":"PROTOCOL"}"#,
            ));
        }
        run
    }

    /// A run against a hub that sends two messages of the protocol, and a third, unknown one all the time.
    pub fn chatty() -> Self {
        let mut run = Self::greeting_broken();
        let received = |text: &str| frame(4, "anna", HistoryDirection::Received, FrameKind::Text, text);
        for report in &mut run.reports {
            report.history.extend([r#"{"say":"welcome"}"#, r#"{"say":"echo"}"#].map(received));
            report.history.extend((0..50).map(|n| received(&format!(r#"{{"type":"STATUS","n":{n}}}"#))));
        }
        run
    }

    /// A run with a pack that describes no messages, in which nothing works.
    pub fn without_messages() -> Self {
        let Self { pack, programs, .. } = Self::new();
        // They hold the pack, too.
        drop(programs);
        let mut pack = Arc::into_inner(pack).unwrap();
        pack.messages.clear();
        Self { pack: Arc::new(pack), ..Self::other_protocol() }
    }

    /// A run in which frames were judged, but no check of a step was reached.
    pub fn only_frames() -> Self {
        let run = Self::new();
        let mut reports = vec![run.hello_report(1), run.bye_report(1), run.chair_report(1)];
        reports.iter_mut().for_each(|report| report.checks.retain(|check| check.span.is_none()));
        reports.into_iter().fold(run, Self::with_report)
    }

    /// A run in which only one check of a step was reached.
    pub fn one_step() -> Self {
        let mut run = Self::only_frames();
        run.reports[1].checks.clear();
        run.reports[2] = run.chair_report(1);
        run
    }

    /// A run in which only one check of a step could be evaluated, because settings are missing.
    pub fn few_settings() -> Self {
        let mut run = Self::one_step();
        run.reports[..2].iter_mut().for_each(mark_unmet);
        run
    }

    pub fn interrupted() -> Self {
        let run = Self::new();
        let hello = run.hello_report(1);
        Self { interrupted: true, ..run.with_report(hello) }
    }

    pub fn mistake() -> Self {
        let run = Self::new();
        let (hello, mut bye, chair) = (run.hello_report(1), run.bye_report(1), run.chair_report(1));
        bye.checks.clear();
        bye.mistake = Some("`${ben.mood}` has no value: what ben bound has no member `mood`".to_owned());
        run.with_report(hello).with_report(bye).with_report(chair)
    }

    pub fn nothing_selected() -> Self {
        Self::new().select(&[])
    }

    fn hello_report(&self, repetition: usize) -> ScenarioReport {
        let mut report = self.passed_report("greeter/hello", repetition);
        report.history = vec![
            frame(0, "anna", HistoryDirection::Neither, FrameKind::Open, ""),
            frame(1, "anna", HistoryDirection::Sent, FrameKind::Text, r#"{"say":"hello","name":"anna"}"#),
            frame(
                3,
                "anna",
                HistoryDirection::Received,
                FrameKind::Text,
                r#"{"say":"welcome","name":"anna","mood":"happy","at":1}"#,
            ),
        ];
        report.waits.slimmest = Some(TimingMargin {
            step: "anna expects: welcome".to_owned(),
            waited: Duration::from_millis(2),
            bound: Duration::from_secs(5),
        });
        report
    }

    fn bye_report(&self, repetition: usize) -> ScenarioReport {
        let mut report = self.passed_report("greeter/bye", repetition);
        let mut echo = report.checks[0].clone();
        echo.name = "schema:echo".to_owned();
        echo.span = None;
        echo.rules[0].0.id = "GRE-008".to_owned();
        report.checks.push(echo);
        report
    }

    fn chair_report(&self, repetition: usize) -> ScenarioReport {
        self.passed_report("greeter/chair", repetition)
    }

    /// A report in which every check was evaluated once and passed.
    fn passed_report(&self, id: &str, repetition: usize) -> ScenarioReport {
        let program = self.programs.iter().find(|program| program.id == id).unwrap();
        let checks = program.checks.iter().map(|check| CheckReport {
            rules: check.rules.iter().map(|used| (used.clone(), Verdict::Pass)).collect(),
            span: Some(check.span),
            step: "anna expects: welcome".to_owned(),
            ..CheckReport::new(&check.name, Verdict::Pass)
        });
        ScenarioReport {
            instance: "main".to_owned(),
            repetition,
            checks: checks.collect(),
            duration: Duration::from_millis(12),
            ..ScenarioReport::of(program)
        }
    }

    fn fail_welcome(&self, report: &mut ScenarioReport) {
        report.checks.clear();
        report.history = vec![frame(0, "ben", HistoryDirection::Neither, FrameKind::Open, "")];
        report.cause = Some(PreconditionFailure {
            span: Some(self.span_of("expects: welcome")),
            step: "expects: welcome".to_owned(),
            message: "closed with 1011 \"internal error\" instead of welcome".to_owned(),
            detail: Some(closed_early()),
            unreachable: false,
            shortened: false,
            unauthenticated: false,
            rests_on_unfenced: Vec::new(),
        });
    }

    fn span_of(&self, text: &str) -> Span {
        let start = SHARED.find(text).unwrap();
        Span::new(self.shared, start..start + text.len())
    }
}

fn break_check(report: &mut ScenarioReport, name: &str, verdict: Verdict, message: &str, detail: FindingDetail) {
    let check = report.checks.iter_mut().find(|check| check.name == name).unwrap();
    check.verdict = verdict;
    check.rules.iter_mut().for_each(|(_, of_rule)| *of_rule = verdict);
    check.message = message.to_owned();
    check.detail = (detail != FindingDetail::default()).then_some(detail);
}

fn break_name(hello: &mut ScenarioReport) {
    let received = r#"{"say":"welcome","name":"Anna","mood":"happy","at":1}"#;
    break_check(
        hello,
        "GRE-002",
        Verdict::Fail,
        "/name is \"Anna\", not \"anna\"",
        detail("/name: \"anna\"", &format!("welcome {received}"), 2),
    );
    hello.history[2].text = received.to_owned();
}

fn detail(expected: &str, received: &str, waited: u64) -> FindingDetail {
    FindingDetail {
        actor: "anna".to_owned(),
        sent: Some(r#"hello {"say":"hello","name":"anna"}"#.to_owned()),
        expected: expected.to_owned(),
        received: received.to_owned(),
        waited: Some(Duration::from_millis(waited)),
        ..FindingDetail::default()
    }
}

fn closed_early() -> FindingDetail {
    detail("welcome", "close 1011 \"internal error\"", 3)
}

fn mark_unmet(report: &mut ScenarioReport) {
    report.checks.clear();
    report.history.clear();
    report.instance.clear();
    let need = |name: &str, lacks| UnmetNeed { name: name.to_owned(), lacks };
    report.unmet = vec![need("setting secret", Lack::Setting), need("hook stop", Lack::Hook)];
}

fn frame(at: u64, actor: &str, direction: HistoryDirection, kind: FrameKind, text: &str) -> FrameReport {
    FrameReport {
        at: Duration::from_millis(at),
        actor: actor.to_owned(),
        connection: 1,
        direction,
        kind,
        text: text.to_owned(),
        size: text.len(),
        hash: None,
        status: None,
    }
}

/// Asserts that a published schema is derived from this type; with `HUBPROOF_WRITE_SCHEMAS=1`, writes it.
#[track_caller]
pub fn assert_schema_is_derived<T: schemars::JsonSchema>(file: &str) {
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    let derived = settings.into_generator().into_root_schema_for::<T>();
    let text = serde_json::to_string_pretty(&derived).unwrap() + "\n";
    let path = format!("{}/schemas/hubproof/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("HUBPROOF_WRITE_SCHEMAS").is_some() {
        std::fs::write(path, &text).unwrap();
    } else {
        let published = std::fs::read_to_string(&path).unwrap();
        assert!(published == text, "{path} is out of date: HUBPROOF_WRITE_SCHEMAS=1 cargo test published_schema");
    }
}
