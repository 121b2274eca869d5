//! Plays programs on the state machines of the reference server, with a queue and a simulated clock instead of sockets,
//! timers and threads (`hubproof::reference::model`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hubproof::deviation::Deviations;
use hubproof::interpreter::{Conversation, ConversationConfig, SETTLE_AFTER_CONNECT};
use hubproof::outcome::ScenarioReport;
use hubproof::protocol::{Pack, PackFolder};
use hubproof::reference::model::ReferenceModel;
use hubproof::reference::model::simulation::{self, AdminInterface};
use hubproof::reference::setup::ReferenceSetups;
use hubproof::scenario::variation::Variation;
use hubproof::scenario::{Program, ScenarioSet};
use hubproof::syntax::source::Sources;
use hubproof_reference as reference;
use serde_json::Value;

pub use hubproof::reference::model::simulation::SendingManner;

pub mod websocket;

/// A conversation with more turns than this hangs.
const MAX_TURNS: usize = 1_000_000;

/// One protocol, loaded from the repository.
pub struct SimulatedProtocol {
    pub sources: Sources,
    pub pack: Arc<Pack>,
    pub scenarios: ScenarioSet,
    /// Whether it is the protocol of WebSocket itself.
    pub habit: websocket::WebSocketHabit,
    /// How scenarios are played, unless as they are written.
    pub variation: Option<Variation>,
    /// See [`ConversationConfig::settle_after_connect`].
    pub settle: Duration,
    model: ReferenceModel,
}

impl SimulatedProtocol {
    pub fn load(name: &str) -> Self {
        let mut sources = Sources::default();
        let folder = super::disk::protocol_folder(name, &mut sources);
        Self::from_folder(&folder, sources)
    }

    pub fn from_folder(folder: &PackFolder, mut sources: Sources) -> Self {
        let (pack, diagnostics) = Pack::load(folder, &sources);
        assert!(diagnostics.is_empty(), "{}", hubproof::syntax::diagnostic::render_all(&diagnostics, &sources, false));
        let pack = Arc::new(pack.unwrap());
        let scenarios = ScenarioSet::load(folder, &sources, &pack);
        assert!(
            scenarios.diagnostics.is_empty(),
            "{}",
            hubproof::syntax::diagnostic::render_all(&scenarios.diagnostics, &sources, false)
        );
        let hints = &scenarios.hints;
        assert!(hints.is_empty(), "{}", hubproof::syntax::diagnostic::render_all(hints, &sources, false));
        let setups =
            ReferenceSetups::from_folder(folder, &sources).unwrap_or_else(|d| panic!("{}", d.render(&sources, false)));
        let model = ReferenceModel::new(&folder.name, &setups, &scenarios.shared, &mut sources)
            .unwrap_or_else(|d| panic!("{}", hubproof::syntax::diagnostic::render_all(&d, &sources, false)));
        Self {
            sources,
            pack,
            scenarios,
            habit: websocket::WebSocketHabit::None,
            variation: None,
            settle: SETTLE_AFTER_CONNECT,
            model,
        }
    }

    /// Returns the settings of the first instance that meets the needs of a scenario; otherwise of the first instance.
    pub fn settings(&self, program: &Program) -> BTreeMap<String, Value> {
        self.model.settings(program)
    }

    /// Sets a setting in every instance: of the server (`serve`), if given, and of its target.
    pub fn set(&mut self, serve: Option<&str>, setting: &str, value: impl Into<Value>) {
        self.model.set(serve, setting, value);
    }

    /// Plays a scenario on the first instance that meets its needs; `None` if none does.
    pub fn play(&self, program: &Arc<Program>, fault: Option<&str>) -> Option<ScenarioReport> {
        self.play_on(program, fault, &|machine| machine, SendingManner::default())
    }

    /// Like [`Self::play`], with a wrapper around the machine and a way of sending frames.
    pub fn play_on(
        &self,
        program: &Arc<Program>,
        fault: Option<&str>,
        around: &dyn Fn(Box<dyn reference::Machine>) -> Box<dyn reference::Machine>,
        manner: SendingManner,
    ) -> Option<ScenarioReport> {
        self.play_deviating(program, fault, around, manner, Arc::default())
    }

    /// Like [`Self::play_on`], with declared deviations of the hub.
    pub fn play_deviating(
        &self,
        program: &Arc<Program>,
        fault: Option<&str>,
        around: &dyn Fn(Box<dyn reference::Machine>) -> Box<dyn reference::Machine>,
        manner: SendingManner,
        deviations: Arc<Deviations>,
    ) -> Option<ScenarioReport> {
        let instance = self.model.find_instance(program)?;
        if let Some(fault) = fault {
            assert!(reference::faults().any(|known| known.id == fault), "there is no fault {fault}");
        }
        if self.pack.name == reference::protocols::websocket::PROTOCOL {
            let variation = self.variation.clone();
            let config = ConversationConfig { deviations, variation, ..conversation_config(self.settings(program)) };
            let conversation = Conversation::new(Arc::clone(program), config);
            let mut report = websocket::play(conversation, fault, self.habit);
            instance.clone_into(&mut report.instance);
            return Some(report);
        }
        let (variation, settle_after_connect) = (self.variation.clone(), self.settle);
        let change = |config: ConversationConfig| {
            // As in a run, the names are others than without the variation.
            let stamp = variation.as_ref().map_or(config.stamp, |_| "varied".to_owned());
            ConversationConfig { deviations, variation, settle_after_connect, stamp, ..config }
        };
        let played = self.model.play_with(program, fault, around, manner, change, MAX_TURNS);
        Some(played.expect("the conversation ends").report)
    }
}

/// Plays a fuzz case on a state machine that is not the reference server's; the protocol has no hooks.
pub fn play_on_machine(program: Program, machine: Box<dyn reference::Machine>) -> ScenarioReport {
    let defaults = program.shared.settings.iter();
    let settings: BTreeMap<String, Value> =
        defaults.filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?))).collect();
    let (protocol, hooks) = (program.pack.name.clone(), BTreeMap::new());
    let config = ConversationConfig { persistent: false, ..conversation_config(settings.clone()) };
    let conversation = Conversation::new(Arc::new(program), config);
    let admin = AdminInterface { protocol, hooks, settings };
    let played = simulation::play_on_machine(conversation, machine, admin, SendingManner::default(), MAX_TURNS);
    played.expect("the conversation ends").report
}

/// Returns the default configuration of a conversation.
pub fn conversation_config(settings: BTreeMap<String, Value>) -> ConversationConfig {
    hubproof::reference::model::conversation_config(settings).unwrap()
}
