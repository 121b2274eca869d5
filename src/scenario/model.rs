//! A compiled scenario: a small program. Blocks of steps refer to each other by index. The parser has checked all
//! names, so a run does not look anything up in the files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::fences::UnfencedStep;
use super::functions::{JWT_SECRET, TOKENS};
use super::template::{Template, TemplateExpression};
use super::variation::{PreludePlace, Variation};
use crate::protocol::{Pack, RuleBasis, RuleLevel};
pub use crate::syntax::duration::parse_duration as duration;
use crate::syntax::json_schema::SchemaValidator;
use crate::syntax::matcher::Matcher;
use crate::syntax::source::Span;

pub type BlockId = usize;
pub type ActorId = usize;
pub type CheckId = usize;

pub struct Program {
    /// `<protocol>/<name>`.
    pub id: String,
    pub title: String,
    pub span: Span,
    pub pack: Arc<Pack>,
    pub shared: Arc<SharedDefinitions>,
    pub needs: Vec<Need>,
    pub isolation: Isolation,
    pub actors: Vec<Actor>,
    /// Groups of actors by name: `crowd`, `everyone`.
    pub groups: BTreeMap<String, Vec<ActorId>>,
    pub roles: BTreeMap<String, Role>,
    pub lets: Vec<(String, Template)>,
    pub blocks: Vec<Vec<Step>>,
    pub main: BlockId,
    pub finally: BlockId,
    pub checks: Vec<Check>,
    pub always: Vec<AlwaysEntry>,
    pub reactions: BTreeMap<String, Reaction>,
    /// Maximum number of connections that the scenario holds at a time, for the target's budget.
    pub connections: usize,
    /// The steps that rely on something of which the hub may not have taken note.
    pub unfenced: Vec<UnfencedStep>,
}

impl Program {
    /// Whether the scenario is about WebSocket itself: what is in upgrades, closes, pings and ends of streams. Other
    /// carriers have none of these.
    pub fn needs_websocket(&self) -> bool {
        let is_message = |want: &ExpectedEvent| matches!(want, ExpectedEvent::Message { .. });
        self.blocks.iter().flatten().any(|step| match &step.act {
            StepAction::Accept { .. } | StepAction::ExpectEnd { .. } => true,
            StepAction::Connect(connect) => connect.says_something(),
            StepAction::Expect(expected) => !is_message(&expected.want),
            StepAction::ExpectOneOf { alternatives, .. } => {
                !alternatives.iter().any(|one| one.want.as_ref().is_some_and(is_message))
            }
            _ => false,
        })
    }

    /// Returns the rules that some check of the scenario proves at their full level.
    pub fn proves(&self) -> BTreeSet<&str> {
        self.checks
            .iter()
            .flat_map(|check| &check.rules)
            .filter(|used| !used.lowered)
            .map(|used| used.id.as_str())
            .collect()
    }

    /// Returns the role that an actor has for the hub. Usually this is its own. If its own role has no opening, it is the
    /// role whose opening contains a message that one of the actor's steps sends.
    pub fn registering_role(&self, id: ActorId) -> &str {
        let own = &self.actors[id].role;
        if self.roles.get(own).is_none_or(|role| !self.blocks[role.opening].is_empty()) {
            return own;
        }
        let is_own = |step: &&Step| match &step.who {
            StepActors::One(actor) => *actor == id,
            StepActors::Group { members, .. } => members.contains(&id),
            StepActors::NoActor | StepActors::Myself => false,
        };
        let sent = |step: &Step| match &step.act {
            StepAction::Send(composed) => match &composed.message {
                MessageName::Named(name) => Some(name.clone()),
                MessageName::Any | MessageName::Computed(_) => None,
            },
            _ => None,
        };
        let sent: BTreeSet<String> = self.blocks.iter().flatten().filter(is_own).filter_map(sent).collect();
        let mut roles = self.shared.opening_messages.iter();
        roles.find(|(_, messages)| !messages.is_disjoint(&sent)).map_or(own, |(name, _)| name)
    }

    /// Returns the names of the actors of which the hub may not have taken note before a step, as `rests` tells.
    pub fn unfenced_actors(&self, rests: impl Fn(&UnfencedStep) -> bool) -> Vec<String> {
        let actors: BTreeSet<ActorId> =
            self.unfenced.iter().filter(|unfenced| rests(unfenced)).map(|unfenced| unfenced.actor).collect();
        actors.into_iter().map(|id| self.actors[id].name.clone()).collect()
    }
}

/// Orders scenarios so that the first cases of all scenarios come before any further cases. Facts learned early, such
/// as that a hub never sends a message, then come from many different conversations.
pub fn first_cases_first(programs: &[Arc<Program>]) -> impl Iterator<Item = &Arc<Program>> {
    let is_further = |index: usize| index > 0 && programs[index - 1].span.file == programs[index].span.file;
    let (further, first): (Vec<usize>, Vec<usize>) = (0..programs.len()).partition(|index| is_further(*index));
    first.into_iter().chain(further).map(|index| &programs[index])
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// May run at the same time as any other scenario.
    Shared,
    /// Never runs at the same time as another scenario with the same word; with the word `hub`, runs alone.
    Exclusive(String),
    /// Runs last, and only if the target allows scenarios that leave the hub unusable.
    Destructive,
}

/// A requirement on the target, without which a scenario is not testable.
#[derive(Debug)]
pub enum Need {
    /// A word of the target's `provides`, or a setting that the target itself sets.
    Word(String),
    Expression {
        text: String,
        expr: TemplateExpression,
    },
    Setting(String),
    Hook(String),
}

impl Need {
    /// Returns the name under which unmet needs are counted.
    pub fn name(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Expression { text, .. } => text.clone(),
            Self::Setting(name) if name == JWT_SECRET => format!("setting {name} (or enough {TOKENS})"),
            Self::Setting(name) => format!("setting {name}"),
            Self::Hook(name) => format!("hook {name}"),
        }
    }
}

/// The parts of shared.yaml that are not compiled into each program.
#[derive(Debug, Default)]
pub struct SharedDefinitions {
    pub settings: BTreeMap<String, SettingDeclaration>,
    pub hooks: BTreeMap<String, HookDeclaration>,
    pub ignore: Vec<String>,
    /// The names of the `given` values of each role, by the name of the role.
    pub roles: BTreeMap<String, BTreeSet<String>>,
    /// The names of the messages that the opening of each role sends, by the name of the role.
    pub opening_messages: BTreeMap<String, BTreeSet<String>>,
    /// Whether the pack declares its variations. Otherwise it has the variations that suit any protocol.
    pub declares_variations: bool,
    /// The names of the preludes.
    pub preludes: BTreeSet<String>,
    pub unvaried: Vec<VariationExclusion>,
}

/// Variations that would change the meaning of scenarios.
#[derive(Clone, Debug)]
pub struct VariationExclusion {
    /// The names of the excluded variations. Empty excludes all.
    pub variations: Vec<String>,
    /// The excluded scenarios: each with its name, without the folder, and its place in the file. Empty excludes all.
    pub scenarios: Vec<(String, Span)>,
}

impl SharedDefinitions {
    /// Returns the pack's own variations, then the general ones.
    pub fn variations(&self) -> impl Iterator<Item = Variation> {
        let own = self
            .preludes
            .iter()
            .flat_map(|name| PreludePlace::all().map(|place| Variation::Prelude(place, name.as_str().into())));
        own.chain(Variation::general().filter(|variation| self.declares_variations || !variation.needs_consent()))
    }

    /// Whether a variation keeps the meaning of a scenario.
    pub fn may_vary(&self, scenario: &str, variation: &Variation) -> bool {
        let name = scenario.split('/').nth(1).unwrap_or(scenario);
        let known = variation.names_for_exceptions();
        let excludes = |entry: &VariationExclusion| {
            let VariationExclusion { variations, scenarios } = entry;
            (variations.is_empty() || variations.iter().any(|one| known.contains(one)))
                && (scenarios.is_empty() || scenarios.iter().any(|(one, _)| one == name))
        };
        !self.unvaried.iter().any(excludes)
    }
}

#[derive(Clone, Debug)]
pub struct SettingDeclaration {
    pub default: Option<Value>,
    pub secret: bool,
    /// Whether the setting is left out of messages if it is unset.
    pub optional: bool,
    pub about: String,
    pub line: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct HookDeclaration {
    pub message: bool,
    pub args: Vec<String>,
    /// The members of its answer; empty if they are not known.
    pub returns: Vec<String>,
    pub about: String,
}

#[derive(Debug)]
pub struct Actor {
    pub name: String,
    pub role: String,
}

#[derive(Debug)]
pub struct Role {
    /// Whether the actor listens, and the hub connects to it.
    pub server: bool,
    /// The subprotocols that a listening actor supports.
    pub subprotocols: Vec<String>,
    pub given: Vec<(String, Template)>,
    pub fills: Vec<(String, Template)>,
    pub opening: BlockId,
    /// Names that the role's opening binds.
    pub binds: Vec<String>,
    pub reacts: Vec<String>,
    /// Whether no message of the protocol shows that the hub knows such a client, so that a pause has to do.
    pub fenced_by_pauses: bool,
    /// The scenes that variations play after the opening or later, by the name of the prelude.
    pub preludes: BTreeMap<String, BlockId>,
}

#[derive(Debug)]
pub struct Reaction {
    pub whenever: String,
    pub pattern: Option<MatchPattern>,
    pub as_: Option<String>,
    pub block: BlockId,
}

/// A rule as a check uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleUse {
    pub id: String,
    pub level: RuleLevel,
    pub basis: RuleBasis,
    /// Whether the level of the check is lower than the level of the rule. Such a check does not prove the rule.
    pub lowered: bool,
}

/// A check of a scenario.
#[derive(Debug)]
pub struct Check {
    /// The rules of the check, with a number if another check has the same ones: stable, and unique in the scenario.
    pub name: String,
    pub rules: Vec<RuleUse>,
    pub span: Span,
}

#[derive(Debug)]
pub enum AlwaysEntry {
    Message {
        message: String,
        check: CheckId,
        pattern: MatchPattern,
    },
    Frame {
        check: CheckId,
        pattern: MatchPattern,
    },
    Close {
        check: CheckId,
        pattern: MatchPattern,
    },
    /// An upgrade: one that succeeded, or an answer that is neither an upgrade nor a refusal.
    Upgrade {
        check: CheckId,
        pattern: MatchPattern,
    },
    /// Everything that is received after the upgrade: messages, control frames, and bytes that are not a frame.
    Wire {
        check: CheckId,
        pattern: MatchPattern,
    },
    Check {
        check: CheckId,
        value: Template,
        test: ValueTest,
        says: Option<Template>,
        span: Span,
    },
    Lifecycle(Lifecycle),
}

/// The messages, by index, that open, carry and close the ids of their correlation ids.
#[derive(Debug)]
pub struct Lifecycle {
    pub opens: Vec<usize>,
    pub carries: Vec<usize>,
    pub closes: Vec<usize>,
    /// The check that a message of the hub carries or closes an id that was opened.
    pub opened: Option<CheckId>,
    /// The check that no message of the hub comes for an id that has ended.
    pub ended: Option<CheckId>,
}

impl AlwaysEntry {
    pub fn checks(&self) -> Vec<CheckId> {
        match self {
            Self::Lifecycle(lifecycle) => lifecycle.opened.into_iter().chain(lifecycle.ended).collect(),
            Self::Message { check, .. }
            | Self::Frame { check, .. }
            | Self::Close { check, .. }
            | Self::Upgrade { check, .. }
            | Self::Wire { check, .. }
            | Self::Check { check, .. } => vec![*check],
        }
    }
}

#[derive(Debug)]
pub struct Step {
    pub span: Span,
    /// The first line of the step, for reports: `anna expects: hello`.
    pub text: String,
    pub who: StepActors,
    pub as_: Option<String>,
    pub if_: Option<String>,
    pub check: Option<CheckId>,
    pub act: StepAction,
    /// The actors of which the hub must have taken note before this step.
    pub fences: Vec<ActorId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepActors {
    NoActor,
    /// The actor that plays the scene, opening or reaction.
    Myself,
    One(ActorId),
    Group {
        members: Vec<ActorId>,
        quantity: Option<(GroupQuantity, usize)>,
    },
}

impl StepActors {
    /// Returns the actors that a step names.
    pub fn named(&self) -> &[ActorId] {
        match self {
            Self::NoActor | Self::Myself => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Group { members, .. } => members,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupQuantity {
    Exactly,
    AtLeast,
    AtMost,
}

#[derive(Debug)]
pub enum StepAction {
    Join {
        with: Vec<(String, Template)>,
    },
    Connect(Box<ConnectStep>),
    Accept {
        within: Option<Template>,
        /// Whether the step ends without a connection if none comes.
        optional: bool,
    },
    Send(Box<MessageComposition>),
    SendRaw(Template),
    Close {
        code: Template,
        reason: Option<Template>,
    },
    Drop {
        reset: bool,
    },
    StopReading,
    ReadAgain,
    Expect(Box<Expectation>),
    /// The TCP stream ends.
    ExpectEnd {
        within: Option<Template>,
        has: Vec<HasCheck>,
    },
    ExpectNothing(Box<SilenceExpectation>),
    ExpectOneOf {
        alternatives: Vec<ExpectedAlternative>,
        after: Option<String>,
        within: Option<Template>,
    },
    Play {
        scene: BlockId,
        given: Vec<(String, Template)>,
        with: Vec<(String, Template)>,
    },
    Compose(Box<MessageComposition>),
    Hook(Box<HookStep>),
    Wait {
        time: Template,
    },
    Check {
        value: Template,
        test: ValueTest,
        /// The text that a failure shows.
        says: Option<Template>,
    },
    Order(OrderCheck),
    /// One body per value if the rows name rules, otherwise one body for all values.
    Each {
        name: String,
        values: Template,
        bodies: Vec<BlockId>,
        fresh: Vec<ActorId>,
    },
    Either {
        name: String,
        values: Template,
        body: BlockId,
    },
    Retry {
        time: Template,
        body: BlockId,
    },
}

impl StepAction {
    /// Whether the hub may behave differently if the step is skipped.
    pub fn tells_hub(&self) -> bool {
        !matches!(
            self,
            Self::Accept { .. }
                | Self::Expect(_)
                | Self::ExpectEnd { .. }
                | Self::ExpectNothing(_)
                | Self::ExpectOneOf { .. }
                | Self::Wait { .. }
                | Self::Check { .. }
                | Self::Order(_)
        )
    }
}

#[derive(Debug)]
pub struct SilenceExpectation {
    pub message: MessageName,
    pub pattern: Option<MatchPattern>,
    pub after: Option<String>,
    pub for_: Option<Template>,
}

#[derive(Debug)]
pub struct ConnectStep {
    pub path: Option<Template>,
    pub query: Option<Template>,
    pub headers: Option<Template>,
    pub subprotocols: Option<Template>,
    pub from: Option<Template>,
    pub method: Option<Template>,
    /// The version of HTTP that the request names: `1.0`.
    pub http: Option<Template>,
    /// Whether a refusal is a result, not a failure.
    pub tries: bool,
    /// Whether the step is part of a role's opening.
    pub in_opening: bool,
}

impl ConnectStep {
    /// Whether the upgrade differs from that of any other client.
    fn says_something(&self) -> bool {
        let Self { path, query, headers, subprotocols, from: _, method, http, tries, in_opening: _ } = self;
        *tries || [path, query, headers, subprotocols, method, http].into_iter().any(Option::is_some)
    }
}

/// A message to build: the example, with new values, changes and removed members.
#[derive(Debug)]
pub struct MessageComposition {
    pub message: MessageName,
    pub with: Option<Template>,
    pub without: Vec<String>,
    pub fragments: usize,
    /// Why the message is invalid on purpose.
    pub breaks: Option<String>,
}

/// A message as a step names it; `any` stands for every message.
#[derive(Debug)]
pub enum MessageName {
    Any,
    Named(String),
    Computed(Template),
}

#[derive(Debug)]
pub struct Expectation {
    pub want: ExpectedEvent,
    pub after: Option<String>,
    pub within: Option<Template>,
    pub count: Option<CountRange>,
    pub for_: Option<Template>,
    pub has: Vec<HasCheck>,
}

#[derive(Debug)]
pub enum ExpectedEvent {
    Message {
        message: MessageName,
        pattern: Option<MatchPattern>,
    },
    Close(ExpectedCodes),
    Refusal(ExpectedCodes),
    /// A ping or a pong.
    Control {
        pong: bool,
        pattern: Option<MatchPattern>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedCodes {
    pub any: bool,
    /// Whether the connection may also end without a close frame.
    pub drop: bool,
    pub codes: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRange {
    pub min: usize,
    pub max: Option<usize>,
}

#[derive(Debug)]
pub struct HasCheck {
    pub check: CheckId,
    pub pattern: MatchPattern,
}

#[derive(Debug)]
pub struct ExpectedAlternative {
    /// The expectation; `None` means silence until `within` has passed.
    pub want: Option<ExpectedEvent>,
    pub as_: Option<String>,
    pub warn: Option<String>,
    pub info: Option<String>,
    /// If this alternative happens, the step fails at once, for this reason.
    pub fail: Option<String>,
    pub text: String,
}

#[derive(Debug)]
pub struct HookStep {
    pub name: String,
    /// How many calls to make at once. `None` makes one call, whose answer may have to match.
    pub times: Option<u32>,
    pub args: Option<Template>,
    pub message: Option<MessageComposition>,
    pub pattern: Option<MatchPattern>,
    pub within: Option<Template>,
    pub has: Vec<HasCheck>,
}

#[derive(Debug)]
pub struct OrderCheck {
    pub names: Vec<String>,
    /// How far the arrival times may be out of order; required if the frames belong to several connections.
    pub slack: Option<Template>,
}

#[derive(Debug)]
pub enum ValueTest {
    True,
    Equals(Template),
    Fits(MatchPattern),
}

impl ValueTest {
    /// Returns the value or the matcher that a value is compared with, if there is one.
    pub fn template(&self) -> Option<&Template> {
        match self {
            Self::True => None,
            Self::Equals(wanted) => Some(wanted),
            Self::Fits(pattern) => Some(&pattern.template),
        }
    }
}

/// A matcher, or the schema of a `fits`, that may contain expressions.
#[derive(Debug)]
pub struct MatchPattern {
    pub template: Template,
    /// Compiled in advance if there are no expressions.
    pub ready: Option<CompiledPattern>,
    pub schema: bool,
    pub span: Span,
}

#[derive(Debug)]
pub enum CompiledPattern {
    Matcher(Arc<Matcher>),
    Schema(Box<SchemaValidator>),
}

/// Returns the value of a setting in expressions: a time is a number of seconds.
pub fn setting_value(value: &Value) -> Value {
    match value.as_str().map(|text| (text, duration(text))) {
        Some((text, Ok(time))) if text.starts_with(|c: char| c.is_ascii_digit()) => {
            let seconds = time.as_secs_f64();
            if seconds.fract() == 0.0 { Value::from(seconds as u64) } else { Value::from(seconds) }
        }
        _ => value.clone(),
    }
}
