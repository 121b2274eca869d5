//! The reference server's state machine as the model of a protocol: a program that is played on a hub can be played on
//! it, too, in process and in simulated time. Every play begins with a new machine, so it depends on nothing else.

pub mod simulation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hubproof_reference as reference;
use serde_json::Value;

use self::simulation::{AdminInterface, SendingManner, SimulatedPlay, play_on_machine};
use super::setup::{ReferenceAddresses, ReferenceSetups};
use crate::config::{self, HookSpec};
use crate::deviation::Deviations;
use crate::interpreter::{Conversation, ConversationConfig, SETTLE_AFTER_CONNECT, unmet_needs};
use crate::outcome::ScenarioReport;
use crate::scenario::template::Template;
use crate::scenario::{Program, SharedDefinitions};
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::Sources;

/// The start of every conversation, in Unix milliseconds.
pub const EPOCH_MS: i64 = 1_700_000_000_000;
/// The most inputs of one play on the model. A conversation with more is not played on it.
const MAX_TURNS: usize = 50_000;
/// The settings of the reference server that make its outputs depend on its inputs only, as far as a protocol has them.
const FIXED: [(&str, &str); 2] = [("epoch_ms", "1700000000000"), ("seed", "1")];

/// The model of one protocol: its state machine with every configuration of its reference.toml.
pub struct ReferenceModel {
    protocol: String,
    instances: Vec<ModelInstance>,
    hooks: BTreeMap<String, HookSpec>,
}

struct ModelInstance {
    name: String,
    serve: reference::Settings,
    settings: BTreeMap<String, Value>,
    provides: BTreeSet<String>,
}

/// How a program is played on the model.
#[derive(Clone, Default)]
pub struct ModelPlay {
    /// Distinguishes the play from all others.
    pub stamp: String,
    /// The number of the play in the run.
    pub turn: usize,
    /// The factor that stretches every wait.
    pub stretch: f64,
    /// The number of characters of a payload that are kept.
    pub kept_chars: usize,
    pub persistent: bool,
    /// What a `sends raw` step or a loop uses instead, see [`ConversationConfig::injected_input`].
    pub injected_input: Option<(&'static str, Arc<Template>)>,
}

impl ReferenceModel {
    /// Reads the configurations of a protocol's reference.toml.
    ///
    /// # Errors
    ///
    /// Mistakes in what reference.toml says about the target.
    pub fn new(
        protocol: &str,
        setups: &ReferenceSetups,
        shared: &SharedDefinitions,
        sources: &mut Sources,
    ) -> Result<Self, Vec<Diagnostic>> {
        let urls = setups.instances.iter().map(|_| "ws://virtual".to_owned()).collect();
        let addresses = ReferenceAddresses { urls, admin: Some("http://virtual".to_owned()), ca: None };
        let file = sources.add("target.toml", setups.render_target_file(protocol, &addresses));
        let target = config::parse(sources, file, &[], &|_| None, &|_| Ok(String::new()))?;
        let defaults = shared.settings.iter();
        let defaults: BTreeMap<String, Value> =
            defaults.filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?))).collect();
        let mut instances = Vec::new();
        for (instance, setup) in target.instances.iter().zip(&setups.instances) {
            let mut settings = defaults.clone();
            settings.extend(instance.settings.iter().map(|(name, setting)| (name.clone(), setting.value.clone())));
            let mut provides = instance.provides.clone();
            provides.extend(instance.settings.keys().cloned());
            provides.extend(setup.tls.then(|| "tls".to_owned()));
            let serve = serve_settings(protocol, &setup.serve);
            instances.push(ModelInstance { name: setup.name.clone(), serve, settings, provides });
        }
        Ok(Self { protocol: protocol.to_owned(), instances, hooks: target.hooks })
    }

    /// Whether there is a model of this protocol.
    pub fn exists_for(protocol: &str) -> bool {
        protocol != reference::protocols::websocket::PROTOCOL && reference::protocols().contains(&protocol)
    }

    /// Returns the settings of the first instance that meets the needs of a program; otherwise of the first instance.
    pub fn settings(&self, program: &Program) -> BTreeMap<String, Value> {
        let index = self.matching_instance(program).unwrap_or(0);
        self.instances.get(index).map(|instance| instance.settings.clone()).unwrap_or_default()
    }

    /// Sets a setting in every instance: of the server (`serve`), if given, and of its target.
    pub fn set(&mut self, serve: Option<&str>, setting: &str, value: impl Into<Value>) {
        let value = value.into();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for instance in &mut self.instances {
            if let Some(serve) = serve {
                let _ = instance.serve.set(serve, &text);
            }
            instance.settings.insert(setting.to_owned(), value.clone());
        }
    }

    /// Returns the name of the first instance that meets the needs of a program.
    pub fn find_instance(&self, program: &Program) -> Option<&str> {
        self.matching_instance(program).map(|index| self.instances[index].name.as_str())
    }

    fn matching_instance(&self, program: &Program) -> Option<usize> {
        self.instances.iter().position(|instance| {
            let provides = |word: &str| instance.provides.contains(word);
            let hooks = |name: &str| self.hooks.contains_key(name);
            unmet_needs(program, &instance.settings, &provides, &hooks).is_ok_and(|unmet| unmet.is_empty())
        })
    }

    /// Plays a program on the first instance that meets its needs. `None` if none does, or if the program cannot be
    /// played without sockets.
    pub fn play(&self, program: &Arc<Program>, play: ModelPlay) -> Option<ScenarioReport> {
        let ModelPlay { stamp, turn, stretch, kept_chars, persistent, injected_input } = play;
        let change =
            |config| ConversationConfig { stamp, turn, stretch, kept_chars, persistent, injected_input, ..config };
        let around = |machine| machine;
        let played = self.play_with(program, None, &around, SendingManner::default(), change, MAX_TURNS)?;
        played.complete.then_some(played.report)
    }

    /// Plays a program on the first instance that meets its needs, with a fault, a wrapper around the machine, a way of
    /// sending frames, and a change of the conversation's configuration. `None` if none does, or if the conversation
    /// takes more than `turns` inputs.
    pub fn play_with(
        &self,
        program: &Arc<Program>,
        fault: Option<&str>,
        around: &dyn Fn(Box<dyn reference::Machine>) -> Box<dyn reference::Machine>,
        manner: SendingManner,
        change: impl FnOnce(ConversationConfig) -> ConversationConfig,
        turns: usize,
    ) -> Option<SimulatedPlay> {
        let instance = &self.instances[self.matching_instance(program)?];
        let machine = reference::build_machine(&self.protocol, &instance.serve, fault).ok()?;
        let settings = instance.settings.clone();
        let (protocol, hooks) = (self.protocol.clone(), self.hooks.clone());
        let admin = AdminInterface { protocol, hooks, settings: settings.clone() };
        let conversation = Conversation::new(Arc::clone(program), change(conversation_config(settings)?));
        let mut played = play_on_machine(conversation, around(machine), admin, manner, turns)?;
        played.report.instance.clone_from(&instance.name);
        Some(played)
    }
}

/// Returns the settings of a machine whose outputs depend on its inputs only.
fn serve_settings(protocol: &str, pairs: &[(String, String)]) -> reference::Settings {
    let mut settings = reference::Settings::default();
    for (name, value) in pairs {
        let _ = settings.set(name, value);
    }
    for (name, value) in FIXED {
        let mut with = settings.clone();
        // Not every protocol has this setting.
        if with.set(name, value).is_ok() && reference::build_machine(protocol, &with, None).is_ok() {
            settings = with;
        }
    }
    settings
}

/// Returns the default configuration of a simulated conversation.
pub fn conversation_config(settings: BTreeMap<String, Value>) -> Option<ConversationConfig> {
    Some(ConversationConfig {
        turn: 0,
        hub: "ws://hub".parse().ok()?,
        settings,
        stamp: "test".to_owned(),
        epoch_ms: EPOCH_MS,
        patience: Duration::from_secs(5),
        quiet: Duration::from_millis(300),
        settle_after_connect: SETTLE_AFTER_CONNECT,
        stretch: 1.0,
        stated_only: false,
        trace: false,
        kept_chars: 1 << 16,
        injected_input: None,
        masker: Arc::default(),
        deviations: Arc::<Deviations>::default(),
        persistent: true,
        promptness: Arc::default(),
        variation: None,
        early_end: None,
    })
}
