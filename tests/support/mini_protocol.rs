//! A minimal protocol with scripted hubs: plays one scenario against one hub, without sockets and with a simulated
//! clock, so that times are exact.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hubproof::check::{PlayOptions, Round, Rounds, run_scenarios};
use hubproof::config::{HookSpec, target_from_url};
use hubproof::deviation::Deviations;
use hubproof::hub::prepare::TestedHub;
use hubproof::interpreter::{Conversation, ConversationConfig, ConversationInput, ConversationOutput, HubPromptness};
use hubproof::judge::proposal::ScenarioTrial;
use hubproof::outcome::{ScenarioReport, Verdict};
use hubproof::protocol::{Pack, PackFolder};
use hubproof::report::events::ScenarioEvent;
use hubproof::report::{ProtocolOutline, RunOptions, RunReport};
use hubproof::scenario::variation::Variation;
use hubproof::scenario::{Program, ScenarioSet, SharedDefinitions};
use hubproof::syntax::diagnostic::render_all;
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use hubproof::websocket::dial::Dial;
use hubproof::websocket::frame::{AssembledMessage, ConnectionEvent, Opcode};
use serde_json::Value;

use super::sim_connection::conversation_config;

/// `ask` goes to the hub; `answer`, `notice` and `tick` come from it, with any members.
const ASYNCAPI: &str = include_str!("../fixtures/documents/small_talk.yaml");

const RULES: &str = "document: none
rules:
  MUST: { level: must, basis: stated, line: 1, text: A rule., demands: [answer] }
  MUST-2: { level: must, basis: stated, line: 1, text: Another rule. }
  SHOULD: { level: should, basis: stated, line: 1, text: A recommendation. }
";

/// Default addition to shared.yaml.
pub const PLAIN_ROLES: &str = "roles: { client: { opening: [ { connects: } ] } }\n";

/// A text or ping of a client or, without either, a new connection.
pub struct HubInput<'a> {
    pub connection: u32,
    pub text: Option<&'a str>,
    /// The upgrade request of a new connection.
    pub dial: Option<&'a Dial>,
    pub ping: Option<&'a [u8]>,
}

/// Actions of a hub: the delay in milliseconds, the connection, the action.
pub type HubActions = Vec<(u64, u32, ConnectionEvent)>;

pub fn text_received(text: impl Into<String>) -> ConnectionEvent {
    ConnectionEvent::Message(AssembledMessage { binary: false, payload: text.into().into_bytes(), frames: 1 })
}

/// Returns the actions of a hub that closes a connection at once.
pub fn closing(connection: u32, code: u16) -> HubActions {
    let close = ConnectionEvent::Close { code: Some(code), reason: String::new() };
    vec![(0, connection, close)]
}

/// Answers every text with the same text.
pub fn answering_hub(with: &'static str) -> impl FnMut(&HubInput<'_>) -> HubActions {
    move |heard| heard.text.map(|_| (0, heard.connection, text_received(with))).into_iter().collect()
}

fn folder(pack: &str, shared: &str, scenarios: &[&str]) -> (Sources, PackFolder) {
    let mut sources = Sources::default();
    let mut folder = PackFolder { name: "small".to_owned(), ..PackFolder::default() };
    let rules = if pack.contains("answer:") { RULES } else { &RULES.replace(", demands: [answer]", "") };
    for (name, text) in [("asyncapi.yaml", pack), ("rules.yaml", rules)] {
        folder.pack.insert(name.to_owned(), sources.add(name, text));
    }
    folder.scenarios.insert("shared.yaml".to_owned(), sources.add("shared.yaml", shared));
    for (number, text) in scenarios.iter().enumerate() {
        let name = format!("talk{number}.yaml");
        folder.scenarios.insert(name.clone(), sources.add(name, *text));
    }
    (sources, folder)
}

fn load(pack: &str, shared: &str, scenarios: &[&str]) -> (Sources, Arc<Pack>, ScenarioSet) {
    let (sources, folder) = folder(pack, shared, scenarios);
    let (pack, diagnostics) = Pack::load(&folder, &sources);
    assert!(diagnostics.is_empty(), "{}", render_all(&diagnostics, &sources, false));
    let pack = Arc::new(pack.unwrap());
    let scenarios = ScenarioSet::load(&folder, &sources, &pack);
    (sources, pack, scenarios)
}

/// Returns the diagnostics of an AsyncAPI document made from [`ASYNCAPI`].
pub fn mini_pack_diagnostics(change: impl FnOnce(&str) -> String) -> String {
    let (sources, folder) = folder(&change(ASYNCAPI), PLAIN_ROLES, &["title: T\nsteps: []\n"]);
    render_all(&Pack::load(&folder, &sources).1, &sources, false)
}

/// Returns the diagnostics of a scenario before it runs.
pub fn mini_scenario_diagnostics(shared: &str, scenario: &str) -> String {
    let (sources, _, scenarios) = load(ASYNCAPI, shared, &[scenario]);
    render_all(&scenarios.diagnostics, &sources, false)
}

/// Like [`mini_scenario_diagnostics`], with an AsyncAPI document made from [`ASYNCAPI`].
pub fn changed_scenario_diagnostics(change: impl FnOnce(&str) -> String, shared: &str, scenario: &str) -> String {
    diagnostics_of_scenarios(change, shared, &[scenario])
}

/// Like [`changed_scenario_diagnostics`], for several scenarios.
pub fn diagnostics_of_scenarios(change: impl FnOnce(&str) -> String, shared: &str, scenarios: &[&str]) -> String {
    let (sources, _, scenarios) = load(&change(ASYNCAPI), shared, scenarios);
    render_all(&scenarios.diagnostics, &sources, false)
}

/// Returns the warnings of `packs lint` about scenarios.
pub fn lint_hints(shared: &str, scenario: &str) -> String {
    let (sources, _, scenarios) = load(ASYNCAPI, shared, &[scenario]);
    assert!(scenarios.diagnostics.is_empty(), "{}", render_all(&scenarios.diagnostics, &sources, false));
    render_all(&scenarios.hints, &sources, false)
}

/// Returns the program of a scenario.
pub fn mini_program(shared: &str, scenario: &str) -> Arc<Program> {
    program(ASYNCAPI, shared, scenario)
}

/// Returns the program of a scenario of another pack, given by its AsyncAPI document.
pub fn program(pack: &str, shared: &str, scenario: &str) -> Arc<Program> {
    let (sources, _, scenarios) = load(pack, shared, &[scenario]);
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

/// Like [`play_changed`], with the deviations of a YAML list declared.
pub fn play_changed_deviating(
    change: impl FnOnce(&str) -> String,
    deviations: &str,
    scenario: &str,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> ScenarioReport {
    play_pack(&change(ASYNCAPI), Duration::ZERO, deviations, PLAIN_ROLES, scenario, hub)
}

/// Returns the diagnostics of a YAML list of deviations.
pub fn deviation_diagnostics(deviations: &str) -> String {
    deviation_diagnostics_for(PLAIN_ROLES, deviations)
}

/// Like [`deviation_diagnostics`], with another shared.yaml.
pub fn deviation_diagnostics_for(shared: &str, deviations: &str) -> String {
    let (mut sources, pack, scenarios) = load(ASYNCAPI, shared, &["title: T\nsteps: []\n"]);
    let file = sources.add("hub.yaml", deviations);
    let nodes = yaml::parse(&sources, file).unwrap();
    let read = Deviations::parse(nodes.list().unwrap(), &pack, &scenarios.shared, false);
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
pub fn proposed_deviations(
    change: impl FnOnce(&str) -> String,
    scenario: &str,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> Vec<Value> {
    run_rounds(change, &[scenario], &RoundOptions::default(), hub).proposals()
}

/// How a run of `check` plays scenarios.
#[derive(Default)]
pub struct RoundOptions<'a> {
    pub explore: bool,
    /// An addition to [`PLAIN_ROLES`], or roles in their place.
    pub shared: &'a str,
    /// The declared deviations, as a YAML list.
    pub declared: &'a str,
}

/// The result of a run of `check`, and how many scenarios each of its rounds played.
pub struct PlayedRounds {
    pub report: RunReport,
    pub plays: Vec<usize>,
}

impl PlayedRounds {
    /// Returns the entries that the run proposes.
    pub fn proposals(&self) -> Vec<Value> {
        self.report.protocols[0].proposals.iter().map(|proposed| proposed.proposal.entry.clone()).collect()
    }

    /// Returns the entries that the run assumed.
    pub fn assumed(&self) -> Vec<Value> {
        self.report.protocols[0].deviations.iter().filter_map(|one| one.entry.clone()).collect()
    }
}

/// Plays all rounds of a run of `check` with these scenarios. The hub serves all conversations, one after another; the
/// first input of each is a connection with the number 0.
pub fn run_rounds(
    change: impl FnOnce(&str) -> String,
    scenarios: &[&str],
    options: &RoundOptions<'_>,
    mut hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> PlayedRounds {
    let roles = if options.shared.contains("roles:") { "" } else { PLAIN_ROLES };
    let shared = format!("{roles}{}", options.shared);
    let (mut sources, pack, set) = load(&change(ASYNCAPI), &shared, scenarios);
    assert!(set.diagnostics.is_empty(), "{}", render_all(&set.diagnostics, &sources, false));
    let declared = if options.declared.is_empty() { "[]" } else { options.declared };
    let target = target_from_url(&mut sources, "ws://virtual", &[], &|_| None, &|_| Ok(String::new())).unwrap();
    let tested = TestedHub {
        programs: set.programs.clone(),
        deviations: parse_deviations(declared, &pack, &set.shared),
        ..TestedHub::new(Arc::clone(&pack), Arc::clone(&set.shared), target)
    };
    let outline = ProtocolOutline::new(pack, &set.programs, |_| true);
    let mut rounds = Rounds::new(vec![tested], vec![outline], play_options(), options.explore);
    let mut plays = Vec::new();
    while let Some(round) = rounds.next_round(&mut sources).unwrap() {
        plays.push(round.count_plays());
        let Round { hubs, trials, .. } = round;
        let all = hubs.into_iter().flat_map(|TestedHub { programs, deviations, .. }| {
            programs.into_iter().map(move |program| (program.id.clone(), program, Arc::clone(&deviations)))
        });
        let tried = trials.into_iter().map(|ScenarioTrial { id, program, deviations, .. }| (id, program, deviations));
        for (id, program, deviations) in all.chain(tried) {
            let report = play_program(program, deviations, Duration::ZERO, &mut hub);
            rounds.add(ScenarioReport { id, ..report });
        }
    }
    PlayedRounds { report: rounds.finish(Vec::new(), RunOptions::default(), false), plays }
}

/// Plays scenarios on a hub over sockets, sixteen at a time. Replays may take as long as the scenarios have taken.
pub fn check_over_sockets(url: &str, scenarios: &[&str]) -> Vec<ScenarioReport> {
    check_with_hooks(url, PLAIN_ROLES, scenarios, BTreeMap::new())
}

/// Like [`check_over_sockets`], with another shared.yaml and these hooks of the target.
pub fn check_with_hooks(
    url: &str,
    shared: &str,
    scenarios: &[&str],
    hooks: BTreeMap<String, HookSpec>,
) -> Vec<ScenarioReport> {
    let (mut sources, pack, set) = load(ASYNCAPI, shared, scenarios);
    assert!(set.diagnostics.is_empty(), "{}", render_all(&set.diagnostics, &sources, false));
    let mut target = target_from_url(&mut sources, url, &[], &|_| None, &|_| Ok(String::new())).unwrap();
    target.instances.iter_mut().for_each(|instance| instance.hooks.clone_from(&hooks));
    let hub = TestedHub { programs: set.programs, ..TestedHub::new(pack, set.shared, target) };
    let options = PlayOptions { jobs: 16, replay_time: Duration::ZERO, ..play_options() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (events, mut inbox) = tokio::sync::mpsc::channel(16);
        let (_stop, interrupt) = tokio::sync::watch::channel(false);
        let round = Round { hubs: vec![hub], trials: Vec::new(), options };
        let running = tokio::spawn(run_scenarios(round, events, interrupt));
        let mut reports = Vec::new();
        while let Some(event) = inbox.recv().await {
            if let ScenarioEvent::Finished(report) = event {
                reports.push(*report);
            }
        }
        running.await.unwrap().unwrap();
        reports
    })
}

fn play_options() -> PlayOptions {
    PlayOptions {
        variations: hubproof::check::VariationChoice::None,
        variation_time: Duration::ZERO,
        jobs: 1,
        stretch: 1.0,
        repeat: 1,
        limit: Duration::from_secs(600),
        stated_only: false,
        trace: false,
        kept_chars: 600,
        persistent: true,
        shorten: false,
        destructive: false,
        on_any_carrier: false,
        replay_time: hubproof::judge::REPLAY_TIME,
        stamp: "stamp".to_owned(),
        now_ms: 0,
        comparer: None,
    }
}

fn parse_deviations(text: &str, pack: &Pack, shared: &SharedDefinitions) -> Arc<Deviations> {
    let mut sources = Sources::default();
    let file = sources.add("hub.yaml", text);
    let nodes = yaml::parse(&sources, file).unwrap();
    let deviations = Deviations::parse(nodes.list().unwrap(), pack, shared, false);
    Arc::new(deviations.unwrap_or_else(|found| panic!("{}", render_all(&found, &sources, false))))
}

/// Like [`play`], after the conversations that `promptness` was learned from.
pub fn play_with_promptness(
    promptness: &HubPromptness,
    scenario: &str,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> ScenarioReport {
    let program = program(ASYNCAPI, PLAIN_ROLES, scenario);
    let config =
        ConversationConfig { promptness: Arc::new(promptness.clone()), ..conversation_config(BTreeMap::new()) };
    converse(Conversation::new(program, config), Duration::ZERO, hub)
}

/// Like [`play`], with a variation.
pub fn play_varied(
    variation: Variation,
    shared: &str,
    scenario: &str,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> ScenarioReport {
    let program = program(ASYNCAPI, shared, scenario);
    // As in a run, the names are others than without the variation.
    let (variation, stamp) = (Some(variation), "varied".to_owned());
    let config = ConversationConfig { variation, stamp, ..conversation_config(BTreeMap::new()) };
    converse(Conversation::new(program, config), Duration::ZERO, hub)
}

fn play_pack(
    pack: &str,
    late: Duration,
    deviations: &str,
    shared: &str,
    scenario: &str,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> ScenarioReport {
    let program = program(pack, shared, scenario);
    let deviations = parse_deviations(deviations, &program.pack, &program.shared);
    play_program(program, deviations, late, hub)
}

fn play_program(
    program: Arc<Program>,
    deviations: Arc<Deviations>,
    late: Duration,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> ScenarioReport {
    let defaults = program.shared.settings.iter();
    let settings = defaults.filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?))).collect();
    let config = ConversationConfig { deviations, ..conversation_config(settings) };
    converse(Conversation::new(program, config), late, hub)
}

/// Plays a conversation with a hub that accepts every connection; timers fire `late`.
pub fn converse(
    mut conversation: Conversation,
    late: Duration,
    mut hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> ScenarioReport {
    let mut now = Duration::ZERO;
    let mut due: BTreeMap<(Duration, usize), (u32, ConnectionEvent)> = BTreeMap::new();
    let mut number = 0;
    let mut outputs = conversation.start(now);
    for _ in 0..100_000 {
        let mut hears = |heard: &HubInput<'_>, at: Duration| {
            for (after, connection, what) in hub(heard) {
                number += 1;
                due.insert((at + Duration::from_millis(after), number), (connection, what));
            }
        };
        let (mut opened, mut called) = (Vec::new(), Vec::new());
        for output in std::mem::take(&mut outputs) {
            match output {
                ConversationOutput::Open { connection, dial } => {
                    hears(&HubInput { connection, text: None, dial: Some(&dial), ping: None }, now);
                    opened.push(connection);
                }
                ConversationOutput::Send { connection, frames } => {
                    for frame in &frames {
                        let text = String::from_utf8_lossy(&frame.payload);
                        let text = (!frame.opcode.is_control()).then_some(&*text);
                        let ping = (frame.opcode == Opcode::Ping).then_some(frame.payload.as_slice());
                        if text.is_some() || ping.is_some() {
                            hears(&HubInput { connection, text, dial: None, ping }, now);
                        }
                    }
                }
                // The message of a hook reaches these hubs as a text on the first connection.
                ConversationOutput::Hook { call, message, .. } => {
                    called.push(call);
                    if let Some(text) = message.map(|message| message.to_string()) {
                        hears(&HubInput { connection: 0, text: Some(&text), dial: None, ping: None }, now);
                    }
                }
                _ => {}
            }
        }
        for connection in opened {
            let refuses = |(whose, what): &(u32, ConnectionEvent)| {
                *whose == connection && matches!(what, ConnectionEvent::Refused { .. })
            };
            if due.values().any(refuses) {
                continue;
            }
            let what = ConnectionEvent::Upgraded { status: 101, headers: Vec::new(), subprotocol: None };
            outputs.extend(conversation.handle(now, ConversationInput::Received { connection, what }));
        }
        for call in called {
            let answer = Ok(Value::Null);
            outputs.extend(conversation.handle(now, ConversationInput::HookAnswer { call, answer }));
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
                outputs = conversation.handle(now, ConversationInput::Received { connection, what });
            }
            _ => {
                now = now.max(strikes.expect("an unfinished conversation has a deadline"));
                outputs = conversation.handle(now, ConversationInput::Tick);
            }
        }
    }
    panic!("the conversation never ends");
}

/// Returns the worst verdict of the checks of a rule.
pub fn worst_verdict(report: &ScenarioReport, rule: &str) -> Verdict {
    assert!(report.mistake.is_none(), "{:?}", report.mistake);
    let checks = report.checks.iter().filter(|check| check.rules.iter().any(|(used, _)| used.id == rule));
    checks.map(|check| check.verdict).max().unwrap_or_else(|| panic!("no check of {rule}: {:#?}", report.checks))
}
