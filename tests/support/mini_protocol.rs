//! A minimal protocol with scripted hubs: plays one scenario against one hub, without sockets and with a simulated
//! clock, so that times are exact.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hubproof::deviation::Deviations;
use hubproof::deviation::proposal::{Missed, propose};
use hubproof::event::{ScenarioReport, Verdict};
use hubproof::interpreter::{Config, Conversation, Input, Output};
use hubproof::protocol::{Folder, Pack};
use hubproof::scenario::{Program, Scenarios};
use hubproof::syntax::diagnostic::render_all;
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use hubproof::websocket::frame::{Message, Received};
use serde_json::Value;

use super::sim_connection::config;

/// `ask` goes to the hub; `answer`, `notice` and `tick` come from it, with any members.
const ASYNCAPI: &str = r##"asyncapi: 3.1.0
info: { title: Small talk, version: 0.1.0 }
channels:
  hub:
    address: /
    messages:
      ask: { $ref: '#/components/messages/ask' }
      answer: { $ref: '#/components/messages/answer' }
      notice: { $ref: '#/components/messages/notice' }
      tick: { $ref: '#/components/messages/tick' }
operations:
  hears: { action: receive, channel: { $ref: '#/channels/hub' }, messages: [ { $ref: '#/channels/hub/messages/ask' } ] }
  says:
    action: send
    channel: { $ref: '#/channels/hub' }
    messages:
      - { $ref: '#/channels/hub/messages/answer' }
      - { $ref: '#/channels/hub/messages/notice' }
      - { $ref: '#/channels/hub/messages/tick' }
components:
  messages:
    ask: { payload: { examples: [ { type: ask, n: 1 } ] }, x-hubproof: { match: { type: ask } } }
    answer: { payload: { examples: [ { type: answer } ] }, x-hubproof: { match: { type: answer } } }
    notice: { payload: { examples: [ { type: notice } ] }, x-hubproof: { match: { type: notice } } }
    tick: { payload: { examples: [ { type: tick } ] }, x-hubproof: { match: { type: tick } } }
"##;

const RULES: &str = "document: none
rules:
  MUST: { level: must, basis: stated, line: 1, text: A rule. }
  MUST-2: { level: must, basis: stated, line: 1, text: Another rule. }
  SHOULD: { level: should, basis: stated, line: 1, text: A recommendation. }
";

/// Default addition to shared.yaml.
pub const PLAIN: &str = "roles: { client: { opening: [ { connects: } ] } }\n";

/// A text of a client or, without text, a new connection.
pub struct HubInput<'a> {
    pub connection: u32,
    pub text: Option<&'a str>,
}

/// Actions of a hub: the delay in milliseconds, the connection, the action.
pub type HubActions = Vec<(u64, u32, Received)>;

pub fn text(text: impl Into<String>) -> Received {
    Received::Message(Message { binary: false, payload: text.into().into_bytes(), frames: 1 })
}

/// Answers every text with the same text.
pub fn answers(with: &'static str) -> impl FnMut(&HubInput<'_>) -> HubActions {
    move |heard| heard.text.map(|_| (0, heard.connection, text(with))).into_iter().collect()
}

fn folder(pack: &str, shared: &str, scenario: &str) -> (Sources, Folder) {
    let mut sources = Sources::default();
    let mut folder = Folder { name: "small".to_owned(), ..Folder::default() };
    for (name, text) in [("asyncapi.yaml", pack), ("rules.yaml", RULES)] {
        folder.pack.insert(name.to_owned(), sources.add(name, text));
    }
    for (name, text) in [("shared.yaml", shared), ("talk.yaml", scenario)] {
        folder.scenarios.insert(name.to_owned(), sources.add(name, text));
    }
    (sources, folder)
}

fn load(pack: &str, shared: &str, scenario: &str) -> (Sources, Arc<Pack>, Scenarios) {
    let (sources, folder) = folder(pack, shared, scenario);
    let (pack, diagnostics) = Pack::load(&folder, &sources);
    assert!(diagnostics.is_empty(), "{}", render_all(&diagnostics, &sources, false));
    let pack = Arc::new(pack.unwrap());
    let scenarios = Scenarios::load(&folder, &sources, &pack);
    (sources, pack, scenarios)
}

/// Returns the diagnostics of an AsyncAPI document made from [`ASYNCAPI`].
pub fn complaints_of_pack(change: impl FnOnce(&str) -> String) -> String {
    let (sources, folder) = folder(&change(ASYNCAPI), PLAIN, "title: T\nsteps: []\n");
    render_all(&Pack::load(&folder, &sources).1, &sources, false)
}

/// Returns the diagnostics of a scenario before it runs.
pub fn complaints(shared: &str, scenario: &str) -> String {
    let (sources, _, scenarios) = load(ASYNCAPI, shared, scenario);
    render_all(&scenarios.diagnostics, &sources, false)
}

fn program(pack: &str, shared: &str, scenario: &str) -> Arc<Program> {
    let (sources, _, scenarios) = load(pack, shared, scenario);
    assert!(scenarios.diagnostics.is_empty(), "{}", render_all(&scenarios.diagnostics, &sources, false));
    Arc::clone(&scenarios.programs[0])
}

/// Plays a scenario (its steps, indented by two spaces) against a hub.
pub fn play(shared: &str, scenario: &str, hub: impl FnMut(&HubInput<'_>) -> HubActions) -> ScenarioReport {
    play_pack(ASYNCAPI, Duration::ZERO, "[]", shared, scenario, hub)
}

/// Like [`play`], with the deviations of a YAML list declared; returns mistakes in the list.
pub fn play_deviating(
    deviations: &str,
    shared: &str,
    scenario: &str,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> ScenarioReport {
    play_pack(ASYNCAPI, Duration::ZERO, deviations, shared, scenario, hub)
}

/// Returns the diagnostics of a YAML list of deviations.
pub fn complaints_of_deviations(deviations: &str) -> String {
    let (mut sources, pack, scenarios) = load(ASYNCAPI, PLAIN, "title: T\nsteps: []\n");
    let file = sources.add("hub.yaml", deviations);
    let nodes = yaml::parse(&sources, file).unwrap();
    let read = Deviations::read(nodes.list().unwrap(), &pack, &scenarios.shared, false);
    read.map_or_else(|found| render_all(&found, &sources, false), |_| String::new())
}

/// Like [`play`], on a machine whose timers fire late while frames are read in time.
pub fn play_late(
    late: Duration,
    shared: &str,
    scenario: &str,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> ScenarioReport {
    play_pack(ASYNCAPI, late, "[]", shared, scenario, hub)
}

/// Like [`play`], with an AsyncAPI document made from [`ASYNCAPI`].
pub fn play_changed(
    change: impl FnOnce(&str) -> String,
    shared: &str,
    scenario: &str,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> ScenarioReport {
    play_pack(&change(ASYNCAPI), Duration::ZERO, "[]", shared, scenario, hub)
}

/// Like [`play_changed`]; returns the deviations that are then proposed.
pub fn proposals(
    change: impl FnOnce(&str) -> String,
    scenario: &str,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> Vec<Value> {
    let document = change(ASYNCAPI);
    let report = play_pack(&document, Duration::ZERO, "[]", PLAIN, scenario, hub);
    let (_, pack, _) = load(&document, PLAIN, scenario);
    let missed: Vec<&Missed> = report.missed.iter().collect();
    propose(&pack, &missed, &report.evidence, &Deviations::default())
        .into_iter()
        .map(|proposal| proposal.entry)
        .collect()
}

fn play_pack(
    pack: &str,
    late: Duration,
    deviations: &str,
    shared: &str,
    scenario: &str,
    mut hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> ScenarioReport {
    let program = program(pack, shared, scenario);
    let mut sources = Sources::default();
    let file = sources.add("hub.yaml", deviations);
    let nodes = yaml::parse(&sources, file).unwrap();
    let deviations = Deviations::read(nodes.list().unwrap(), &program.pack, &program.shared, false);
    let deviations = deviations.unwrap_or_else(|found| panic!("{}", render_all(&found, &sources, false)));
    let config = Config { deviations: Arc::new(deviations), ..config(BTreeMap::new()) };
    let mut conversation = Conversation::new(program, config);
    let mut now = Duration::ZERO;
    let mut due: BTreeMap<(Duration, usize), (u32, Received)> = BTreeMap::new();
    let mut number = 0;
    let mut outputs = conversation.start(now);
    for _ in 0..100_000 {
        let mut hears = |heard: &HubInput<'_>, at: Duration| {
            for (after, connection, what) in hub(heard) {
                number += 1;
                due.insert((at + Duration::from_millis(after), number), (connection, what));
            }
        };
        let mut opened = Vec::new();
        for output in std::mem::take(&mut outputs) {
            match output {
                Output::Open { connection, .. } => {
                    opened.push(connection);
                    hears(&HubInput { connection, text: None }, now);
                }
                Output::Send { connection, frames } => {
                    for frame in frames.iter().filter(|frame| !frame.opcode.is_control()) {
                        let text = String::from_utf8_lossy(&frame.payload);
                        hears(&HubInput { connection, text: Some(&text) }, now);
                    }
                }
                Output::Hook { call, .. } => panic!("hook {call}: this protocol has none"),
                _ => {}
            }
        }
        for connection in opened {
            let what = Received::Upgraded { status: 101, headers: Vec::new(), subprotocol: None };
            outputs.extend(conversation.handle(now, Input::Received { connection, what }));
        }
        if !outputs.is_empty() {
            continue;
        }
        if conversation.is_finished() {
            return conversation.into_report();
        }
        // Actions of the hub come before timers at the same time.
        let strikes = conversation.deadline().map(|deadline| deadline + late);
        match due.first_key_value().map(|((at, _), _)| *at) {
            Some(at) if strikes.is_none_or(|strikes| at <= strikes) => {
                let (_, (connection, what)) = due.pop_first().unwrap();
                now = now.max(at);
                outputs = conversation.handle(now, Input::Received { connection, what });
            }
            _ => {
                now = now.max(strikes.expect("an unfinished conversation has a deadline"));
                outputs = conversation.handle(now, Input::Tick);
            }
        }
    }
    panic!("the conversation never ends");
}

/// Returns the worst verdict of the checks of a rule.
pub fn of(report: &ScenarioReport, rule: &str) -> Verdict {
    assert!(report.mistake.is_none(), "{:?}", report.mistake);
    let checks = report.checks.iter().filter(|check| check.rules.iter().any(|(used, _)| used.id == rule));
    checks.map(|check| check.verdict).max().unwrap_or_else(|| panic!("no check of {rule}: {:#?}", report.checks))
}
