//! A small protocol whose messages are lists with ids, correct hubs of it, and hubs with planted bugs: what the fuzzer
//! finds, and of what it accuses none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hubproof::fuzz::campaign::Campaign;
use hubproof::fuzz::campaign::results::CampaignResults;
use hubproof::fuzz::case::FuzzCell;
use hubproof::fuzz::placement::Placement;
use hubproof::outcome::{HistoryDirection, ScenarioReport, Verdict};
use hubproof::protocol::PackFolder;
use hubproof::report::fuzz::{OmittedMutation, UnusedStep};
use hubproof::report::{ProtocolReport, RunOptions};
use hubproof::syntax::diagnostic::render_all;
use hubproof::syntax::source::{Sources, Span};
use hubproof_reference::Machine;
use hubproof_reference::machine::{ConnectionId, EventError, MachineInput, MachineOutput};
use rstest::rstest;
use serde_json::{Map, Value, json};

use crate::support::sim_connection;

const ASYNCAPI: &str = include_str!("../fixtures/quotes/asyncapi.yaml");

const RULES: &str = include_str!("../fixtures/quotes/rules.yaml");

const SHARED: &str = include_str!("../fixtures/quotes/shared.yaml");

const SCENARIOS: [&str; 3] = [
    include_str!("../fixtures/quotes/get.yaml"),
    include_str!("../fixtures/quotes/watch.yaml"),
    include_str!("../fixtures/quotes/gets_in_a_row.yaml"),
];

/// Returns the campaign of the protocol; `change` changes shared.yaml.
fn campaign(seed: u64, change: impl FnOnce(&str) -> String) -> (Campaign, Sources) {
    let mut sources = Sources::default();
    let mut folder = PackFolder { name: "quotes".to_owned(), ..PackFolder::default() };
    for (path, text) in [("asyncapi.yaml", ASYNCAPI), ("rules.yaml", RULES)] {
        folder.pack.insert(path.to_owned(), sources.add(path, text));
    }
    folder.scenarios.insert("shared.yaml".to_owned(), sources.add("shared.yaml", change(SHARED)));
    for (number, text) in SCENARIOS.iter().enumerate() {
        let path = format!("talk{number}.yaml");
        folder.scenarios.insert(path.clone(), sources.add(path, *text));
    }
    let campaign = Campaign::new(&folder, &mut sources, seed, Map::new());
    let campaign = campaign.unwrap_or_else(|found| panic!("{}", render_all(&found, &sources, false)));
    (campaign, sources)
}

/// What a hub does that the document does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// Permitted: sends news to every client whenever one sends anything.
    Broadcasts,
    /// Dies of a topic or arguments of the wrong type.
    DiesOfWrongType,
    /// Dies of an escape that JSON does not have.
    DiesOfBadEscape,
    /// Sends each event to another client, too.
    CopiesEvents,
    /// Sends each event twice, to the client that watches.
    RepeatsEvents,
    /// Sends a text that is not JSON to another client.
    CopiesGarbage,
    /// Sends the values of a client to the client that sent the last error.
    CopiesValues,
    /// Does not answer a valid get with a depth, but closes.
    ClosesOnDepth,
    /// Answers a get with a depth with a value that breaks its schema.
    BreaksSchemaOnDepth,
    /// Closes instead of sending an error, for a reason that depends on the text received.
    ClosesOnError,
    /// Never sends anything.
    Silent,
}

/// A hub of the protocol.
struct QuotesHub {
    bug: Bug,
    watches: BTreeMap<ConnectionId, BTreeSet<String>>,
    dead: bool,
    received: usize,
    last_wrong: Option<ConnectionId>,
}

impl QuotesHub {
    fn new(bug: Bug) -> Self {
        Self { bug, watches: BTreeMap::new(), dead: false, received: 0, last_wrong: None }
    }

    fn send(out: &mut Vec<MachineOutput>, conn: ConnectionId, message: &Value) {
        out.push(MachineOutput::Text { conn, text: message.to_string().into() });
    }

    /// Returns a connection other than this one, the first that came.
    fn another(&self, conn: ConnectionId) -> Option<ConnectionId> {
        self.watches.keys().copied().find(|other| *other != conn)
    }

    fn die(&mut self, out: &mut Vec<MachineOutput>) {
        self.dead = true;
        out.extend(std::mem::take(&mut self.watches).into_keys().map(|conn| MachineOutput::Drop { conn }));
    }

    fn close(&mut self, conn: ConnectionId, code: u16, reason: String, out: &mut Vec<MachineOutput>) {
        self.watches.remove(&conn);
        out.push(MachineOutput::Close { conn, code, reason });
    }

    fn refuse(&mut self, conn: ConnectionId, why: &str, out: &mut Vec<MachineOutput>) {
        self.last_wrong = Some(conn);
        if self.bug == Bug::ClosesOnError {
            let why = format!("failure in module {}", char::from(b'a' + (self.received % 7) as u8));
            return self.close(conn, 1011, why, out);
        }
        Self::send(out, conn, &json!(["error", why]));
    }

    fn receive(&mut self, conn: ConnectionId, text: &str, out: &mut Vec<MachineOutput>) {
        self.received = text.len();
        if self.bug == Bug::DiesOfBadEscape && text.contains("\\x") {
            return self.die(out);
        }
        if self.bug == Bug::Broadcasts {
            self.watches.keys().for_each(|to| Self::send(out, *to, &json!(["news", "a client is here"])));
        }
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            if let (Bug::CopiesGarbage, Some(other)) = (self.bug, self.another(conn)) {
                out.push(MachineOutput::Text { conn: other, text: text.to_owned().into() });
            }
            return self.refuse(conn, "not JSON", out);
        };
        let parts = message.as_array().map_or(&[][..], Vec::as_slice);
        let has_wrong_type = match parts {
            [kind, id, rest @ ..] => {
                (kind == "get" || kind == "watch")
                    && (!id.is_string() || !rest.first().is_some_and(|arguments| arguments["topic"].is_string()))
            }
            _ => false,
        };
        if self.bug == Bug::DiesOfWrongType && has_wrong_type {
            return self.die(out);
        }
        let is_id = |id: &str| !id.is_empty() && id.chars().count() <= 64;
        match parts {
            [kind, Value::String(id), Value::Object(arguments)]
                if (kind == "get" || kind == "watch")
                    && is_id(id)
                    && arguments.get("topic").is_some_and(Value::is_string)
                    && (kind == "watch" || arguments.get("depth").is_none_or(is_natural)) =>
            {
                if kind == "get" {
                    let value = json!(["value", id, 7]);
                    match self.bug {
                        Bug::ClosesOnDepth if arguments.contains_key("depth") => {
                            return self.close(conn, 1011, "oops".to_owned(), out);
                        }
                        Bug::BreaksSchemaOnDepth if arguments.contains_key("depth") => {
                            return Self::send(out, conn, &json!(["value", id, "seven"]));
                        }
                        Bug::CopiesValues => {
                            let other =
                                self.last_wrong.filter(|other| *other != conn && self.watches.contains_key(other));
                            other.into_iter().for_each(|other| Self::send(out, other, &value));
                        }
                        _ => {}
                    }
                    return Self::send(out, conn, &value);
                }
                if !self.watches.entry(conn).or_default().insert(id.clone()) {
                    return self.close(conn, 4409, format!("{id} is in use"), out);
                }
                let event = json!(["event", id, 1]);
                Self::send(out, conn, &event);
                if self.bug == Bug::RepeatsEvents {
                    Self::send(out, conn, &event);
                }
                if let (Bug::CopiesEvents, Some(other)) = (self.bug, self.another(conn)) {
                    Self::send(out, other, &event);
                }
            }
            [kind, Value::String(id)] if kind == "stop" => {
                self.watches.entry(conn).or_default().remove(id);
            }
            _ => self.refuse(conn, "not a message", out),
        }
    }
}

fn is_natural(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number >= 0.0 && number.fract() == 0.0)
}

impl Machine for QuotesHub {
    fn handle(&mut self, _: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        match input {
            MachineInput::Open { conn, .. } if self.dead => {
                out.push(MachineOutput::Refuse { conn, status: 502, body: String::new() });
            }
            MachineInput::Open { conn, .. } => {
                self.watches.insert(conn, BTreeSet::new());
                out.push(MachineOutput::Accept { conn, subprotocol: None });
            }
            MachineInput::Closed { conn } => drop(self.watches.remove(&conn)),
            MachineInput::Text { conn, text } if self.bug != Bug::Silent => self.receive(conn, &text, out),
            MachineInput::Binary { conn, .. } if self.bug != Bug::Silent => self.refuse(conn, "not text", out),
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }

    fn state(&self) -> Value {
        Value::Null
    }

    fn event(&mut self, _: Duration, _: &Value, _: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        Err(EventError::Unsupported)
    }
}

/// Returns the reports of the first `rounds` over all wanted cells.
fn play(
    campaign: &Campaign,
    bug: Bug,
    rounds: u64,
    wanted: impl Fn(&FuzzCell) -> bool,
) -> Vec<(FuzzCell, ScenarioReport)> {
    let cells = campaign.scheduler.cells.len() as u64;
    let mut reports = Vec::new();
    for number in 0..rounds * cells {
        let Some(cell) = campaign.scheduler.cell(number).filter(&wanted) else { continue };
        let Some(case) = campaign.scheduler.case(&campaign.corpus, number) else { continue };
        if !crate::fuzz::cases::is_carried_mutation(cell.mutation) {
            continue;
        }
        let id = campaign.id(number);
        let program = campaign.program(&id, &case.scenario);
        let program = program.unwrap_or_else(|error| panic!("{error}\n{}", case.scenario.text()));
        let report = sim_connection::play_on_machine(program, Box::new(QuotesHub::new(bug)));
        assert_eq!(report.mistake, None, "{}", case.scenario.text());
        reports.push((cell, ScenarioReport { id, ..report }));
    }
    assert!(!reports.is_empty());
    reports
}

/// Returns the checks that fail or warn, with how often each does.
fn broken(reports: &[(FuzzCell, ScenarioReport)]) -> BTreeMap<String, usize> {
    let mut broken = BTreeMap::new();
    for check in reports.iter().flat_map(|(_, report)| &report.checks) {
        if matches!(check.verdict, Verdict::Fail | Verdict::Warn) {
            let name = check.name.split(['#', ',']).next().unwrap();
            *broken.entry(format!("{name}: {}", check.message)).or_default() += 1;
        }
    }
    broken
}

fn report(campaign: &Campaign, sources: &mut Sources, reports: Vec<(FuzzCell, ScenarioReport)>) -> ProtocolReport {
    let mut results = CampaignResults::default();
    reports.into_iter().for_each(|(_, report)| results.add_report(campaign, report));
    results.finish(campaign, Vec::new(), sources)
}

#[rstest]
fn no_correct_hub_is_accused(#[values(Bug::None, Bug::Broadcasts)] bug: Bug) {
    assert_none_is_accused(bug, 1, 1);
}

#[rstest]
#[ignore = "thorough: many minutes of CPU"]
fn no_correct_hub_is_accused_with_many_seeds(#[values(Bug::None, Bug::Broadcasts)] bug: Bug) {
    (2..22).for_each(|seed| assert_none_is_accused(bug, seed, 4));
}

fn assert_none_is_accused(bug: Bug, seed: u64, rounds: u64) {
    let (campaign, _) = campaign(seed, str::to_owned);
    let reports = play(&campaign, bug, rounds, |_| true);
    assert_eq!(broken(&reports), BTreeMap::new(), "seed {seed}");
    let undecided = reports.iter().filter(|(_, report)| report.cause.is_some()).count();
    assert!(undecided * 20 < reports.len(), "{undecided} of {} undecided", reports.len());
}

/// Only a check under `always` says that an event comes once: no step of a case waits for it to come again.
#[rstest]
#[case::correct(Bug::None, false)]
#[case::repeated(Bug::RepeatsEvents, true)]
fn an_event_that_only_its_own_client_receives_twice_is_found(#[case] bug: Bug, #[case] found: bool) {
    let once = "always:\n  - check: \"${frames('event') | map(attribute='1')}\"\n    fits: { uniqueItems: true }\n    rules: [Q-2]\n";
    let (campaign, _) = campaign(1, |shared| format!("{shared}{once}"));
    let watches = |cell: &FuzzCell| campaign.pack().messages[cell.message].name == "watch";
    let broken = broken(&play(&campaign, bug, 1, watches));
    assert_eq!(broken.keys().any(|one| one.starts_with("Q-2")), found, "{broken:?}");
}

/// Wrong types of all items of a list, and of the members of the objects in it.
#[rstest]
#[case::wrong_type("wrong-type", Bug::DiesOfWrongType)]
#[case::null("null", Bug::DiesOfWrongType)]
#[case::missing("missing", Bug::DiesOfWrongType)]
#[case::bad_escape("bad-escape", Bug::DiesOfBadEscape)]
fn mutations_reach_the_items_of_a_list(#[case] mutation: &str, #[case] bug: Bug) {
    let (campaign, _) = campaign(1, str::to_owned);
    let reports = play(&campaign, bug, 4, |cell| cell.mutation.name() == mutation);
    let found = broken(&reports);
    assert!(found.keys().any(|found| found.starts_with("FUZZ-SERVES-")), "{found:?}");
}

#[test]
fn every_site_of_a_list_is_mutated() {
    let (campaign, _) = campaign(1, str::to_owned);
    let mut sites: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for number in 0..30 * campaign.scheduler.cells.len() as u64 {
        let Some(cell) = campaign.scheduler.cell(number).filter(|cell| cell.placement == Placement::Joined) else {
            continue;
        };
        let is_get = campaign.pack().messages[cell.message].name == "get";
        if let Some(case) = campaign.scheduler.case(&campaign.corpus, number).filter(|_| is_get) {
            sites.entry(cell.mutation.name()).or_default().insert(case.pointer);
        }
    }
    let sites_of = |mutation: &str| sites[mutation].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(sites_of("wrong-type"), ["", "/0", "/1", "/2", "/2/depth", "/2/topic"]);
    assert_eq!(sites_of("missing"), ["/0", "/1", "/2", "/2/topic"]);
    assert_eq!(sites_of("unknown-value"), ["/0"]);
    assert_eq!(sites_of("wrong-discriminator"), ["/0"]);
    assert_eq!(sites_of("extra-member"), ["/3"]);
    assert_eq!(sites_of("out-of-range"), ["", "/1", "/2/depth"]);
    assert_eq!(sites_of("duplicate-key"), ["/2/topic"]);
    assert_eq!(sites_of("deep"), ["/2/x_deep"]);
}

/// The observer client or the sender receives a message that belongs to another client.
#[rstest]
#[case::replies(Bug::CopiesEvents, "watch", "explored")]
#[case::replies_of_a_conversation(Bug::CopiesEvents, "stop", "explored")]
#[case::garbage(Bug::CopiesGarbage, "get", "no-json")]
#[case::half_messages(Bug::CopiesGarbage, "watch", "truncated")]
#[case::replies_to_the_observer(Bug::CopiesValues, "get", "wrong-type")]
fn what_belongs_to_another_client_is_found(#[case] bug: Bug, #[case] message: &str, #[case] mutation: &str) {
    let (campaign, mut sources) = campaign(1, str::to_owned);
    let is_wanted = |cell: &FuzzCell| {
        let is_message = campaign.pack().messages[cell.message].name == message;
        is_message
            && cell.mutation.name() == mutation
            && matches!(cell.placement, Placement::Joined | Placement::Within)
    };
    let reports = play(&campaign, bug, 4, is_wanted);
    let breaks = |report: &ScenarioReport| {
        report.checks.iter().any(|check| check.verdict == Verdict::Fail && check.name.starts_with("FUZZ-ISOLATES"))
    };
    let found = reports.iter().filter(|(_, report)| breaks(report)).count();
    assert!(found * 2 >= reports.len() && found > 0, "{found} of {}: {:#?}", reports.len(), broken(&reports));
    // The step that is shown is the one that failed.
    let made = report(&campaign, &mut sources, reports);
    for check in made.scenarios.iter().flat_map(|scenario| &scenario.runs[0].checks) {
        let shown = check.span.map(|span| sources.text(Span { end: span.start + check.step.len() as u32, ..span }));
        assert_eq!(shown, Some(check.step.as_str()));
    }
}

/// A violation in one of many messages is judged like one alone.
#[rstest]
#[case::closes(Bug::ClosesOnDepth, "FUZZ-ANSWERS")]
#[case::breaks_its_schema(Bug::BreaksSchemaOnDepth, "schema:value:Q-1")]
fn a_violation_among_many_messages_is_judged(
    #[case] bug: Bug,
    #[case] check: &str,
    #[values(Placement::Within, Placement::Kept, Placement::Anew)] placement: Placement,
) {
    let (campaign, _) = campaign(1, str::to_owned);
    let is_wanted = |cell: &FuzzCell| {
        let is_get = campaign.pack().messages[cell.message].name == "get";
        is_get && cell.mutation.name() == "explored" && cell.placement == placement
    };
    let reports = play(&campaign, bug, 8, is_wanted);
    let found = broken(&reports);
    assert!(found.keys().any(|found| found.starts_with(check)), "{found:#?}");
    assert!(found.keys().all(|found| found.starts_with(check)), "{found:#?}");
}

/// A hub may refuse an id that is used twice on a connection.
#[test]
fn no_case_uses_an_id_twice_on_a_connection() {
    for seed in 1..3 {
        let (campaign, _) = campaign(seed, str::to_owned);
        let is_wanted = |cell: &FuzzCell| cell.placement == Placement::Walk || cell.mutation.name() == "explored";
        let reports = play(&campaign, Bug::None, 3, is_wanted);
        let mut watches = 0;
        for (_, report) in &reports {
            let mut seen = BTreeSet::new();
            for frame in report.history.iter().filter(|frame| frame.direction == HistoryDirection::Sent) {
                let Ok(Value::Array(parts)) = serde_json::from_str::<Value>(&frame.text) else { continue };
                if let [Value::String(kind), Value::String(id), _] = parts.as_slice()
                    && kind != "stop"
                {
                    watches += usize::from(kind == "watch");
                    assert!(seen.insert((frame.connection, id.clone())), "{id}: {}", report.title);
                }
            }
        }
        assert!(watches > 20, "{watches}");
    }
}

#[test]
fn closes_with_other_reasons_are_one_finding() {
    let (campaign, _) = campaign(1, str::to_owned);
    let reports = play(&campaign, Bug::ClosesOnError, 2, |cell| cell.placement == Placement::Joined);
    let reasons: BTreeSet<&str> = reports
        .iter()
        .flat_map(|(_, report)| &report.history)
        .filter_map(|frame| Some(frame.text.split_once("module ")?.1))
        .collect();
    assert!(reasons.len() > 1, "{reasons:?}");
    let mut results = CampaignResults::default();
    reports.iter().for_each(|(_, report)| results.add_report(&campaign, report.clone()));
    let shapes: BTreeSet<&str> = results
        .first_findings()
        .filter(|(cause, ..)| cause.oracle.starts_with("FUZZ-REJECTS"))
        .map(|(cause, ..)| cause.shape.as_str())
        .collect();
    assert_eq!(shapes.len(), 1, "{shapes:?}");
}

/// Without documented answers, nothing contradicts a hub that sends nothing.
#[rstest]
#[case::silent(Bug::Silent, 3)]
#[case::correct(Bug::None, 0)]
fn a_hub_that_never_answers_does_not_pass(#[case] bug: Bug, #[case] code: u8) {
    let (campaign, mut sources) = campaign(1, |shared| shared.split("  answers:").next().unwrap().to_owned());
    campaign.corpus.set_fence_answered(bug != Bug::Silent);
    let reports = play(&campaign, bug, 1, |cell| cell.placement == Placement::Joined);
    assert_eq!(broken(&reports), BTreeMap::new());
    let report = report(&campaign, &mut sources, reports);
    let fuzzed = report.fuzzed.as_ref().unwrap();
    assert_eq!((report.exit_code(&RunOptions::default()), fuzzed.is_silent()), (code, bug == Bug::Silent));
    assert_eq!(fuzzed.judged_percent > 0.0, bug != Bug::Silent);
}

#[test]
fn a_report_lists_what_was_not_used() {
    let (campaign, mut sources) = campaign(1, str::to_owned);
    let fuzzed = report(&campaign, &mut sources, Vec::new()).fuzzed.unwrap();
    let of = |mutation: &str| -> Vec<OmittedMutation> {
        fuzzed.omitted.iter().filter(|omitted| omitted.mutation == mutation).cloned().collect()
    };
    let omitted = |message: &str, mutation: &'static str, why: &'static str| OmittedMutation {
        message: message.to_owned(),
        mutation: mutation.into(),
        why: why.into(),
    };
    assert_eq!(of("bare-keys"), [omitted("stop", "bare-keys", "the message has no member")]);
    assert_eq!(of("thousand-digits").iter().map(|omitted| &omitted.why).collect::<BTreeSet<_>>().len(), 1);
    let why = "the step is inside another step".into();
    let unused = UnusedStep { scenario: "talk2".to_owned(), step: 2, message: "get".to_owned(), why };
    assert_eq!(fuzzed.unused_steps, [unused]);
}
