//! Runs the program of a scenario without I/O: `(now, input) -> outputs`. The caller does the I/O: with sockets in a
//! run, with a state machine in tests.
//!
//! A conversation is a stack of the blocks being played. A step either completes at once or waits, and every input
//! polls a waiting step again. Sending never waits, and reading never stops.

mod active_step;
mod actor;
mod blocks;
mod checks;
mod clock;
mod close;
mod connection_events;
pub mod decode;
mod deviation;
mod expect;
mod failed_step;
mod fence;
mod finding;
mod history;
mod hooks;
mod hub_contact;
mod invariants;
mod matching;
mod missed;
mod order;
mod promptness;
mod scope;
mod send;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::deviation::Deviations;
use crate::outcome::{FrameKind, FrameReport, HistoryDirection, ScenarioReport, UnmetNeed};
use crate::redact::SecretMasker;
use crate::scenario::functions::{JWT_SECRET, NEXT_OF, NEXT_USER, TOKENS};
use crate::scenario::model::{ActorId, Need, Program, StepAction, duration};
use crate::scenario::template::{Template, TemplateExpression};
use crate::scenario::unusual_values::ValueSwap;
use crate::scenario::value::{BoundValue, EvalError, Provenance, Wire};
use crate::scenario::variation::Variation;
use crate::websocket::dial::Dial;
use crate::websocket::endpoint::Endpoint;
use crate::websocket::frame::{ConnectionEvent, Frame};
use actor::{Actors, Interludes};
pub use actor::{EarlyEnd, MOST_PAUSES};
use blocks::{BlockStack, Phase};
pub use checks::{ALWAYS_STEP, FRAME_CHECK_EXPLANATIONS, WEBSOCKET_CHECK, compare};
use checks::{ConversationJudgement, ScenarioJudgement};
use clock::Clock;
use deviation::AppliedDeviations;
pub use fence::{AMPLE_SETTLE, SETTLE_AFTER_CONNECT};
pub use finding::ComparisonOutcome;
use history::{DroppedFrames, FrameHistory};
pub use history::{KEPT_CHARS, shorten_frame};
use hooks::HookCalls;
use hub_contact::HubContact;
pub use invariants::exchange::Exchange;
pub use invariants::{
    ObservedMessage, broken_schema_checks, compare_frame, is_never_sent, judge_messages, rests_on_connection,
};
use promptness::ConversationWaits;
pub use promptness::HubPromptness;
pub use scope::SettingsContext;
use scope::{ConversationContext, Environment};

/// How many times the target's patience a slow hub gets.
pub const MOST_PATIENCES: u32 = 3;

/// The facts about the target and the run that a conversation needs.
#[derive(Clone)]
pub struct ConversationConfig {
    /// The address of the hub, to which the paths of connections are joined.
    pub hub: Endpoint,
    /// Settings of the hub by name, defaults included, as the target writes them.
    pub settings: BTreeMap<String, Value>,
    /// Distinguishes this run, scenario and repetition from all others: letters and digits.
    pub stamp: String,
    /// The number of the conversation in the run: conversations take the names of a pool in turn.
    pub turn: usize,
    /// Unix time in milliseconds at time zero.
    pub epoch_ms: i64,
    /// How long to wait for an expected frame if the step states no time.
    pub patience: Duration,
    /// How long `expects nothing` waits if the step states no time.
    pub quiet: Duration,
    /// The pause of a fence: how long the hub gets to take note of a connection before a step relies on it.
    pub settle_after_connect: Duration,
    /// The factor that stretches every wait for the hub: `--stretch N`.
    pub stretch: f64,
    pub stated_only: bool,
    /// Whether each frame is reported when it is sent or received.
    pub trace: bool,
    /// The number of characters of a payload that the history keeps: [`KEPT_CHARS`], or more if histories are compared.
    pub kept_chars: usize,
    /// Overrides the payload of the `sends raw` step with this name (its `as`), or the list of the loop over this name,
    /// so that many conversations that differ only there can share one compiled program.
    pub injected_input: Option<(&'static str, Arc<Template>)>,
    /// Masks the secrets in everything that is recorded.
    pub masker: Arc<SecretMasker>,
    /// How the hub departs from its document.
    pub deviations: Arc<Deviations>,
    /// Whether to continue after any missing frame, not only after a missing frame of an opening.
    pub persistent: bool,
    /// How promptly the hub has answered in the conversations before this one.
    pub promptness: Arc<HubPromptness>,
    /// The variation with which the scenario is played, if any.
    pub variation: Option<Variation>,
    /// When all clients leave, if they leave before the end.
    pub early_end: Option<EarlyEnd>,
}

/// An event for a conversation.
#[derive(Debug)]
pub enum ConversationInput {
    Received {
        connection: u32,
        what: ConnectionEvent,
    },
    /// The answer to a [`ConversationOutput::Hook`].
    HookAnswer {
        call: u32,
        answer: Result<Value, String>,
    },
    /// The hub connected to an actor that listens.
    Accepted {
        actor: ActorId,
        connection: u32,
    },
    /// Time has passed.
    Tick,
    /// The user pressed Ctrl-C. Checks that were not evaluated stay undecided.
    Interrupt,
}

/// An action for the caller of a conversation.
#[derive(Debug)]
pub enum ConversationOutput {
    Open {
        connection: u32,
        dial: Dial,
    },
    Send {
        connection: u32,
        frames: Vec<Frame>,
    },
    SendBytes {
        connection: u32,
        bytes: Vec<u8>,
    },
    /// End the connection without a close frame, by a reset or by ending the stream.
    End {
        connection: u32,
        reset: bool,
    },
    StopReading {
        connection: u32,
    },
    ReadAgain {
        connection: u32,
    },
    Hook {
        call: u32,
        name: String,
        args: Value,
        message: Option<Value>,
    },
    Trace(FrameReport),
    Waiting {
        because: String,
        time: Duration,
    },
}

/// A need that cannot be evaluated.
#[derive(Debug, thiserror::Error)]
#[error("cannot evaluate the need `{need}`: {source}")]
pub struct NeedError {
    need: String,
    source: EvalError,
}

/// Returns the needs of a program that these settings, words and hooks do not meet.
pub fn unmet_needs(
    program: &Program,
    settings: &BTreeMap<String, Value>,
    provides: &dyn Fn(&str) -> bool,
    hooks: &dyn Fn(&str) -> bool,
) -> Result<Vec<UnmetNeed>, NeedError> {
    let names = scope::SettingsContext::new(program, settings);
    let mut unmet = Vec::new();
    for need in &program.needs {
        let met = match need {
            Need::Word(word) => provides(word),
            Need::Setting(name) if name == JWT_SECRET => {
                settings.contains_key(name) || ready_token_count(settings).is_some_and(|all| all >= max_users(program))
            }
            Need::Setting(name) => settings
                .get(name)
                .is_some_and(|value| value.as_array().is_none_or(|pool| pool.len() >= max_names(program, name))),
            Need::Hook(name) => hooks(name),
            Need::Expression { text, expr } => match expr.eval(&names) {
                Ok(value) => value == Value::Bool(true),
                Err(source @ (EvalError::Failed(_) | EvalError::Mistake(_))) => {
                    return Err(NeedError { need: text.clone(), source });
                }
                Err(_) => false,
            },
        };
        if !met {
            unmet.push(need.into());
        }
    }
    Ok(unmet)
}

/// Returns the minimum time that a program waits, as far as the settings alone determine it: its waits, and the time
/// for which it expects silence. Counts each block once.
pub fn planned_wait(program: &Program, settings: &BTreeMap<String, Value>) -> Duration {
    let names = scope::SettingsContext::new(program, settings);
    let times = program.blocks.iter().flatten().filter_map(|step| match &step.act {
        StepAction::Wait { time } => Some(time),
        StepAction::ExpectNothing(nothing) => nothing.for_.as_ref(),
        _ => None,
    });
    let known = times.filter_map(|time| match time.eval(&names) {
        Ok(Value::String(text)) => duration(&text).ok(),
        _ => None,
    });
    known.fold(Duration::ZERO, Duration::saturating_add)
}

/// Returns the addresses that a program's clients request; `None` if they depend on more than the settings.
pub fn requested_addresses(
    program: &Program,
    settings: &BTreeMap<String, Value>,
    hub: &Endpoint,
) -> Option<BTreeSet<String>> {
    let names = scope::SettingsContext::new(program, settings);
    let mut addresses = BTreeSet::new();
    for step in program.blocks.iter().flatten() {
        let StepAction::Connect(connect) = &step.act else { continue };
        let mut members = serde_json::Map::new();
        for (name, template) in [("path", &connect.path), ("query", &connect.query)] {
            if let Some(template) = template {
                members.insert(name.to_owned(), template.eval(&names).ok()?);
            }
        }
        let dial = Dial::from_json(&Value::Object(members)).ok()?;
        addresses.insert(dial.address(hub).ok()?.to_string());
    }
    Some(addresses)
}

/// Returns the setting from which a program's clients take names, if any: the ready-made tokens of a target that has no
/// key for making tokens, or the list of a `next_of()`. No other program may take names from it at the same time.
pub fn name_pool(program: &Program, settings: &BTreeMap<String, Value>) -> Option<String> {
    let signs = program.needs.iter().any(|need| matches!(need, Need::Setting(name) if name == JWT_SECRET));
    if signs && ready_token_count(settings).is_some() {
        return Some(TOKENS.to_owned());
    }
    settings.keys().find(|name| max_names(program, name) > 0).cloned()
}

/// Returns the maximum number of names that a program takes from the list in a setting, apart from those in loops.
fn max_names(program: &Program, setting: &str) -> usize {
    let dotted = format!("hub.{setting}");
    count_values(program, usize::MAX, &|expression| expression.calls(NEXT_OF) && expression.uses.contains(&dotted))
}

/// Returns the number of users for whom the target has ready-made tokens, if it has no key for making tokens.
fn ready_token_count(settings: &BTreeMap<String, Value>) -> Option<usize> {
    let tokens = settings.get(TOKENS).filter(|_| !settings.contains_key(JWT_SECRET))?;
    tokens.as_object().map(serde_json::Map::len).filter(|users| *users > 0)
}

/// Returns the maximum number of users that a program creates, apart from those created in loops.
fn max_users(program: &Program) -> usize {
    // An actor has one user.
    count_values(program, 1, &|expression| expression.uses.iter().any(|name| name == NEXT_USER))
}

/// Counts the values of `let` with such an expression, and those of all actors, but at most `most` of an actor.
fn count_values(program: &Program, most: usize, is: &dyn Fn(&TemplateExpression) -> bool) -> usize {
    let has = |template: &Template| {
        let mut found = false;
        template.visit_expressions(&mut |expression| found |= is(expression));
        found
    };
    let of_role = |role: &str| {
        let given = program.roles.get(role).map(|role| role.given.as_slice()).unwrap_or_default();
        given.iter().filter(|(_, given)| has(given)).count().min(most)
    };
    let of_actors: usize = program.actors.iter().map(|actor| of_role(&actor.role)).sum();
    of_actors + program.lets.iter().filter(|(_, template)| has(template)).count()
}

/// A program being played.
pub struct Conversation {
    program: Arc<Program>,
    hub: Endpoint,
    environment: Environment,
    clock: Clock,
    blocks: BlockStack,
    actors: Actors,
    hooks: HookCalls,
    judgement: ConversationJudgement,
    deviations: AppliedDeviations,
    contact: HubContact,
    waits: ConversationWaits,
    history: FrameHistory,
    /// See [`ConversationConfig::injected_input`].
    injected_input: Option<(&'static str, Arc<Template>)>,
    /// See [`ConversationConfig::persistent`].
    persistent: bool,
    variation: Option<Variation>,
    /// The unusual values that the variation sends, if it sends any.
    values: Option<ValueSwap>,
    interludes: Interludes,
    out: Vec<ConversationOutput>,
}

impl Conversation {
    pub fn new(program: Arc<Program>, config: ConversationConfig) -> Self {
        let names = config.variation.as_ref().map(Variation::name_form).unwrap_or_default();
        Self {
            hub: config.hub.clone(),
            clock: Clock::new(&config),
            history: FrameHistory::new(Arc::clone(&config.masker), config.kept_chars, config.trace),
            environment: Environment::new(config.stamp, config.turn, names, config.masker, &config.settings),
            blocks: BlockStack::new(program.main),
            actors: Actors::new(&program),
            hooks: HookCalls::default(),
            judgement: ConversationJudgement::new(&program, config.stated_only),
            deviations: AppliedDeviations::new(config.deviations),
            contact: HubContact::default(),
            waits: ConversationWaits::new(config.promptness),
            injected_input: config.injected_input,
            persistent: config.persistent,
            values: config.variation.as_ref().and_then(ValueSwap::new),
            variation: config.variation,
            interludes: Interludes::new(config.early_end),
            out: Vec::new(),
            program,
        }
    }

    /// Returns the actors that listen. Each needs an address before the conversation starts.
    pub fn listeners(&self) -> Vec<ActorId> {
        self.actors.ids().filter(|id| self.program.is_server(*id)).collect()
    }

    /// Returns the subprotocols that a listening actor supports.
    pub fn supported_subprotocols(&self, actor: ActorId) -> Vec<String> {
        let role = self.program.roles.get(&self.program.actors[actor].role);
        role.map(|role| role.subprotocols.clone()).unwrap_or_default()
    }

    /// Returns the address at which an actor listens, once it is set.
    pub fn listen_url(&self, actor: ActorId) -> Option<&str> {
        self.actors[actor].url.as_deref()
    }

    /// Sets the address at which an actor listens.
    pub fn set_listen_url(&mut self, actor: ActorId, url: String) {
        self.actors[actor].url = Some(url);
    }

    /// Plays the first steps.
    pub fn start(&mut self, now: Duration) -> Vec<ConversationOutput> {
        self.set_now(now);
        let program = Arc::clone(&self.program);
        for (name, template) in &program.lets {
            match template.eval(&self.eval_context(None)) {
                Ok(value) => {
                    self.blocks.lets.insert(name.clone(), BoundValue::from_value(value));
                }
                Err(error) => {
                    self.judgement.record_mistake(format!("`let: {name}`: {error}"), template.first_span());
                }
            }
        }
        for id in 0..program.actors.len() {
            self.evaluate_initial_given(id);
        }
        self.run_steps();
        std::mem::take(&mut self.out)
    }

    /// Handles an event and continues to play.
    pub fn handle(&mut self, now: Duration, input: ConversationInput) -> Vec<ConversationOutput> {
        self.waits.add_delay(self.deadline().map_or(Duration::ZERO, |due| now.saturating_sub(due)));
        self.set_now(now);
        self.deliver_assumed();
        match input {
            ConversationInput::Received { connection, what } => {
                self.receive(connection, what);
                if self.waits.is_probe_over(&self.contact.activity.answers) {
                    self.blocks.stop();
                }
            }
            ConversationInput::HookAnswer { call, answer } => {
                self.hooks.answers.insert(call, answer);
            }
            ConversationInput::Accepted { actor, connection } => self.accept_connection(actor, connection),
            ConversationInput::Tick => {}
            ConversationInput::Interrupt => {
                self.judgement.interrupted = true;
                self.blocks.stop();
            }
        }
        self.run_steps();
        std::mem::take(&mut self.out)
    }

    /// Returns when the next [`ConversationInput::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let active = self.blocks.active.as_ref().and_then(|active| active.deadline);
        active.into_iter().chain(self.deviations.next_due()).chain(self.last_ping_deadline()).min()
    }

    pub fn is_finished(&self) -> bool {
        self.blocks.phase == Phase::Done
    }

    /// Returns the report of the conversation. The caller adds the instance and the repetition.
    pub fn into_report(mut self) -> ScenarioReport {
        for id in self.actors.ids() {
            self.leave_connection(id);
        }
        self.record_deviations();
        let least = self.least_wait();
        let hook_calls = self.history.take_hook_calls();
        let (history, DroppedFrames { count: history_dropped, name_limit: dropped_limit }) = self.history.finish();
        let AppliedDeviations { declared, seen, evidence, missed, .. } = self.deviations;
        let (mistake_at, interrupted) = (self.judgement.mistake_at, self.judgement.interrupted);
        let ScenarioJudgement { checks, verdict, cause, mistake } = self.judgement.finish(&self.program, &declared);
        ScenarioReport {
            verdict,
            checks,
            cause,
            waits: self.waits.finish(least, self.clock.slimmest),
            mistake,
            mistake_at,
            leftovers: self.actors.leftovers.into_iter().collect(),
            history,
            history_dropped,
            dropped_limit,
            hook_calls,
            claims: self.environment.functions.claims(),
            activity: self.contact.activity,
            duration: self.clock.now,
            deviations: seen,
            missed,
            evidence,
            interrupted,
            ..ScenarioReport::of(&self.program)
        }
    }

    fn set_now(&mut self, now: Duration) {
        self.environment.functions.set_now_ms(self.clock.advance(now));
    }

    fn eval_context(&self, me: Option<ActorId>) -> ConversationContext<'_> {
        let Self { program, environment, blocks, actors, .. } = self;
        ConversationContext { program, environment, blocks, actors, me: me.or_else(|| blocks.myself()) }
    }

    /// Returns a text after the address that an actor requested.
    fn with_address(&self, id: ActorId, text: &str) -> String {
        self.actors[id].latest.address.as_ref().map_or_else(|| text.to_owned(), |address| format!("{address}: {text}"))
    }

    // ---- what comes in

    fn new_wire(
        &self,
        id: ActorId,
        connection: u32,
        sequence: u64,
        opcode: &'static str,
        text: &str,
        size: usize,
    ) -> Wire {
        let after = self.clock.since(self.actors[id].opened_at);
        let unix_ms = self.clock.unix_ms(self.clock.now);
        let at = self.clock.now;
        let text = text.into();
        let (provenance, due_after, raw, assumed_places) = (Provenance::Observed, None, None, Vec::new());
        let from_hub = true;
        Wire {
            sequence,
            at,
            unix_ms,
            after,
            connection,
            from_hub,
            opcode,
            text,
            size,
            provenance,
            due_after,
            raw,
            assumed_places,
        }
    }

    fn record_frame(
        &mut self,
        id: ActorId,
        connection: u32,
        direction: HistoryDirection,
        kind: FrameKind,
        text: &str,
        size: usize,
    ) {
        let masked = self.history.masker.mask_frame(text);
        let frame = self.frame_report(id, connection, direction, kind, &masked, size);
        self.add_frame(frame);
    }

    /// Creates a line of the history from a text in which secrets are already masked.
    fn frame_report(
        &self,
        id: ActorId,
        connection: u32,
        direction: HistoryDirection,
        kind: FrameKind,
        masked: &str,
        size: usize,
    ) -> FrameReport {
        let (text, hash) = self.history.kept_payload(masked);
        let actor = self.program.actors[id].name.clone();
        FrameReport { at: self.clock.now, actor, connection, direction, kind, text, size, hash, status: None }
    }

    fn add_frame(&mut self, frame: FrameReport) {
        if self.history.trace {
            self.out.push(ConversationOutput::Trace(frame.clone()));
        }
        self.history.add(frame);
    }
}
