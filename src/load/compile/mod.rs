//! Compiles a plan and its script to programs for one target. Everything that is constant throughout the run is
//! evaluated here.
//!
//! [`scope`] resolves names, [`message`] composes messages, [`steps`] turns steps into operations, [`awaited`] collects
//! the members to look up in received frames.

mod awaited;
pub mod classifier;
pub mod json_scan;
pub mod lint;
mod message;
pub mod message_template;
pub mod program;
mod scope;
mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::program::{
    ClientProgram, CompiledPeriodic, CompiledPlan, CompiledRole, ExpressionRemark, FeederRows, RunContext, SlotFill,
};
use self::scope::{FrameBinding, NameMeaning, NameScope, ResolvedExpression};
use super::ids::{JourneyId, MessageId};
use crate::deviation::Deviations;
use crate::load::Nanos;
use crate::load::compile::classifier::FrameClassifier;
use crate::load::compile::message_template::{RunConstants, RuntimeExpression, SlotSource};
use crate::load::ledger::IdHasher;
use crate::load::metrics::OperationTable;
use crate::load::plan::script::RoleScript;
use crate::load::plan::{Plan, PlanScript};
use crate::redact::SecretMasker;
use crate::scenario::model::setting_value;
use crate::scenario::template::{Template, TemplateExpression};
use crate::syntax::diagnostic::{Diagnostic, has_errors, without_duplicates};
use crate::syntax::source::Span;

/// The target that a plan is compiled for.
#[derive(Clone, Debug)]
pub struct PlanTarget {
    /// Settings of the target, with the defaults of shared.yaml.
    pub settings: BTreeMap<String, Value>,
    /// Distinguishes this run from all others; letters and digits.
    pub stamp: String,
    /// Unix time of the origin of the run, in milliseconds.
    pub epoch_ms: i64,
    pub seed: u64,
    pub keys: IdHasher,
    pub deviations: Arc<Deviations>,
    /// Learns what the plan makes from secrets.
    pub masker: Arc<SecretMasker>,
}

/// Compiles a plan. `plan` is the script's plan, perhaps with other numbers.
///
/// # Errors
///
/// Diagnostics that depend on settings and numbers, each with its place in the plan.
pub fn compile_plan(plan: &Plan, script: &PlanScript, target: &PlanTarget) -> Result<CompiledPlan, Vec<Diagnostic>> {
    let pack = &script.pack;
    let id = |name: &str| pack.messages.iter().position(|message| message.name == name).map(|n| MessageId(n as u16));
    let Some(classifier) = FrameClassifier::new(pack, id) else {
        let what = format!("the matchers of {} use too many different members", pack.name);
        return Err(vec![Diagnostic::without_place(what)]);
    };
    let run = RunConstants::new(&target.stamp, target.epoch_ms, Arc::clone(&target.masker));
    run.world.set_now_ms(target.epoch_ms);
    let operations = OperationTable::new(script.labelled_messages());
    let common = RunContext { classifier, operations, run, keys: target.keys, seed: target.seed };
    let common = Arc::new(common);
    let hub = target.settings.iter().map(|(name, value)| (name.clone(), setting_value(value))).collect();
    let mut shared = CompilerState {
        globals: global_names(plan, script),
        hub: Value::Object(hub),
        rows: feeder_rows(script),
        deviations: Arc::clone(&target.deviations),
        ..CompilerState::default()
    };
    let mut diagnostics = Vec::new();
    let (mut roles, mut first) = (Vec::new(), 0);
    for (role, part) in plan.roles.iter().zip(&script.parts) {
        let mut compiler = RoleCompiler::new(script, part, &common, shared);
        if roles.is_empty() {
            compiler.evaluate_lets();
        }
        let (prepared, found) = compiler.compile_role(role, first);
        shared = found.0;
        diagnostics.extend(found.1);
        roles.push(prepared);
        first += role.population.number;
    }
    let diagnostics = without_duplicates(diagnostics);
    if has_errors(&diagnostics) {
        return Err(diagnostics);
    }
    let messages = pack.messages.iter().map(|message| message.name.clone()).collect();
    let operations = common.operations.clone();
    let CompilerState { journeys, hooks, remarks, .. } = shared;
    Ok(CompiledPlan { messages, journeys, hooks, operations, roles, remarks })
}

/// State passed from role to role.
#[derive(Default)]
struct CompilerState {
    globals: BTreeMap<String, NameMeaning>,
    hub: Value,
    rows: Vec<Arc<FeederRows>>,
    journeys: Vec<String>,
    hooks: Vec<String>,
    remarks: Vec<ExpressionRemark>,
    deviations: Arc<Deviations>,
}

fn global_names(plan: &Plan, script: &PlanScript) -> BTreeMap<String, NameMeaning> {
    let numbers = plan.roles.iter().map(|role| (role.name.clone(), Value::from(role.population.number)));
    let population = NameMeaning::Value(Value::Object(numbers.collect()));
    let feeders = script.feeders.iter().enumerate().map(|(n, feeder)| (feeder.name.clone(), NameMeaning::Feeder(n)));
    feeders.chain([("population".to_owned(), population)]).collect()
}

fn feeder_rows(script: &PlanScript) -> Vec<Arc<FeederRows>> {
    let text = |value: &Value| value.to_string().into_bytes().into_boxed_slice();
    script
        .feeders
        .iter()
        .map(|feeder| {
            let rows = feeder.rows.iter().map(|row| row.iter().map(text).collect()).collect();
            Arc::new(FeederRows { name: feeder.name.clone(), rows, random: feeder.random })
        })
        .collect()
}

/// Compiles one role.
struct RoleCompiler<'a> {
    script: &'a PlanScript,
    part: &'a RoleScript,
    common: &'a Arc<RunContext>,
    carried: CompilerState,
    diagnostics: Vec<Diagnostic>,
    /// The members of `self`.
    myself: BTreeMap<String, NameMeaning>,
    scopes: Vec<NameScope>,
    bindings: Vec<FrameBinding>,
    own: usize,
    identity: Vec<(u16, SlotFill)>,
    in_identity: bool,
    in_opening: bool,
    /// The program under construction, and the finished ones.
    program: ClientProgram,
    programs: Vec<ClientProgram>,
    sent: Vec<steps::SentRequest>,
    waits: Vec<awaited::PendingWait>,
    pending_reactions: Vec<awaited::PendingReaction>,
    /// Messages and hooks whose content or answer is bound to a name: program, operation, binding.
    kept: Vec<(usize, usize, usize)>,
    /// The declared deviations that the upgrade requests follow, by index.
    upgrade_deviations: Vec<usize>,
}

impl<'a> RoleCompiler<'a> {
    fn new(script: &'a PlanScript, part: &'a RoleScript, common: &'a Arc<RunContext>, carried: CompilerState) -> Self {
        Self {
            script,
            part,
            common,
            carried,
            diagnostics: Vec::new(),
            myself: BTreeMap::from([
                ("index".to_owned(), NameMeaning::Source(SlotSource::Index)),
                ("turn".to_owned(), NameMeaning::Source(SlotSource::Turn)),
            ]),
            scopes: Vec::new(),
            bindings: Vec::new(),
            own: 0,
            identity: Vec::new(),
            in_identity: false,
            in_opening: false,
            program: ClientProgram::default(),
            programs: Vec::new(),
            sent: Vec::new(),
            waits: Vec::new(),
            pending_reactions: Vec::new(),
            kept: Vec::new(),
            upgrade_deviations: Vec::new(),
        }
    }

    fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message).help(help));
    }

    fn message_id(&self, name: &str) -> MessageId {
        // Names were checked when the plan was read.
        MessageId(self.script.pack.messages.iter().position(|m| m.name == name).unwrap_or_default() as u16)
    }

    /// Evaluates the values of the run, the same for all roles.
    fn evaluate_lets(&mut self) {
        for (name, written) in &self.script.lets {
            let known = ConstantNames { globals: &self.carried.globals, hub: &self.carried.hub, common: self.common };
            let value = match written.eval(&known) {
                Ok(value) => value,
                Err(error) => {
                    let mut span = None;
                    written.visit_expressions(&mut |expr| span = span.or(Some(expr.span)));
                    if let Some(span) = span {
                        let help = "values of the whole run can use settings, numbers of the plan, and each other";
                        self.error(span, error.to_string(), help);
                    }
                    Value::Null
                }
            };
            self.carried.globals.insert(name.clone(), NameMeaning::Value(value));
        }
    }

    /// Evaluates an expression over constants.
    fn evaluate_constant(&mut self, computed: &RuntimeExpression, expr: &TemplateExpression) -> Value {
        let constants =
            computed.constants.iter().map(|(name, value)| (name.clone(), NameMeaning::Value(value.clone())));
        let globals = constants.collect();
        let known = ConstantNames { globals: &globals, hub: &self.carried.hub, common: self.common };
        match computed.expr.eval(&known) {
            Ok(value) => value,
            Err(error) => {
                let help = if expr.uses.iter().any(|used| used.starts_with("hub.")) {
                    "set it with `--set NAME=VALUE` or in the target file"
                } else {
                    ""
                };
                self.error(expr.span, format!("`{}` cannot be evaluated: {error}", expr.source), help);
                Value::Null
            }
        }
    }

    fn compile_role(
        mut self,
        role: &crate::load::plan::PlanRole,
        first: u32,
    ) -> (CompiledRole, (CompilerState, Vec<Diagnostic>)) {
        self.compile_identity();
        let party = self.part.party.as_ref().and_then(|written| self.single_source(written));
        // Programs are numbered as they are finished: the opening is the first one.
        self.scopes.push(NameScope::default());
        self.in_opening = true;
        self.compile_lines(&self.part.opening);
        let opening = self.finish_program(None);
        self.in_opening = false;
        let journey = (!self.part.journey.is_empty()).then(|| self.compile_journey());
        let periodic = self.part.periodic.iter().map(|periodic| self.compile_periodic(periodic)).collect();
        self.compile_reactions();
        self.add_captures();
        let lookups = self.build_lookups();
        let receives = receives_deliveries(&self.programs, &lookups);
        let prepared = CompiledRole {
            name: role.name.clone(),
            first,
            population: role.population.number,
            common: Arc::clone(self.common),
            own: self.own,
            identity: self.identity,
            programs: self.programs,
            opening,
            journey,
            arrivals: role.arrivals.is_some(),
            at_a_time: role.at_a_time as usize,
            pace: self.part.pace,
            times: self.part.times,
            drains: role.drains,
            reconnect: role.reconnect,
            upgrade_deviations: self.upgrade_deviations,
            periodic,
            lookups,
            receives,
            party,
        };
        (prepared, (self.carried, self.diagnostics))
    }

    /// Compiles the values given to a client, which are evaluated once, when the client starts.
    fn compile_identity(&mut self) {
        self.in_identity = true;
        let script = self.script;
        let given = &script.shared_parts.roles[&self.part.plays].given;
        let joins = self.part.opening.iter().find_map(steps::join_values);
        for (name, written) in given {
            let over =
                |with: &'a [(String, Template)]| with.iter().find(|(n, _)| n == name).map(|(_, written)| written);
            let over = joins.and_then(over).or_else(|| over(&self.part.with));
            let named = self.compile_given_value(over.unwrap_or(written));
            self.myself.insert(name.clone(), named);
        }
        self.in_identity = false;
    }

    /// Compiles a value that is constant from the start of its client.
    fn compile_given_value(&mut self, written: &Template) -> NameMeaning {
        let mut sources = Vec::new();
        let value = self.with_slot_marks(written, &mut sources);
        match self.existing_value(written, &value, &sources) {
            Some(named) => named,
            None => {
                let slot = self.add_own_slot();
                self.identity.push((slot, SlotFill::Template(message::cut_at_marks(&value, &sources))));
                NameMeaning::Source(SlotSource::Own(slot))
            }
        }
    }

    /// Returns a value that needs no slot of its own: a constant, or an existing slot.
    fn existing_value(&self, written: &Template, value: &Value, sources: &[SlotSource]) -> Option<NameMeaning> {
        match (written, sources) {
            (_, []) => Some(NameMeaning::Value(value.clone())),
            (Template::Expression(_), [source @ (SlotSource::Own(_) | SlotSource::Text(_) | SlotSource::Index)]) => {
                Some(NameMeaning::Source(source.clone()))
            }
            _ => None,
        }
    }

    /// Returns the single source of a template's text.
    fn single_source(&mut self, written: &Template) -> Option<SlotSource> {
        if let Template::Expression(expr) = written {
            return match self.resolve(expr) {
                ResolvedExpression::Source(source) => Some(source),
                ResolvedExpression::Value(value) => Some(self.constant_text(&value)),
            };
        }
        match self.capture_value(written) {
            NameMeaning::Source(source) => Some(source),
            NameMeaning::Value(value) => Some(self.constant_text(&value)),
            _ => None,
        }
    }

    /// Finishes the current program and returns its number.
    fn finish_program(&mut self, journey: Option<JourneyId>) -> usize {
        let program = std::mem::take(&mut self.program);
        self.programs.push(ClientProgram { journey, ..program });
        self.sent.clear();
        self.programs.len() - 1
    }

    fn compile_journey(&mut self) -> usize {
        self.scopes.push(NameScope::default());
        let part = self.part;
        for (name, written) in &part.lets {
            let named = self.capture_value(written);
            self.bind_name(name, named);
        }
        self.compile_lines(&part.journey);
        if !part.resumes.is_empty() {
            let jump = self.program.ops.len();
            self.program.ops.push(self::program::ProgramOperation::Jump(0));
            self.program.resumes = Some(jump + 1);
            self.compile_lines(&part.resumes);
            self.program.ops.push(self::program::ProgramOperation::Back);
            self.program.ops[jump] = self::program::ProgramOperation::Jump(self.program.ops.len());
        }
        self.program.item = part.item.as_ref().and_then(|written| self.single_source(written));
        self.scopes.pop();
        let id = JourneyId(self.carried.journeys.len() as u16);
        self.carried.journeys.push(part.journey_name.clone());
        self.finish_program(Some(id))
    }

    fn compile_periodic(&mut self, periodic: &'a crate::load::plan::script::PeriodicActivity) -> CompiledPeriodic {
        self.scopes.push(NameScope::default());
        self.compile_lines(&periodic.steps);
        self.scopes.pop();
        let message = self.program.ops.iter().find_map(|op| match op {
            self::program::ProgramOperation::Send(send) => Some(send.message),
            _ => None,
        });
        if message.is_none() {
            self.error(periodic.span, "this block sends no message", "write `do: [ { sends: MESSAGE } ]`");
        }
        let program = self.finish_program(None);
        CompiledPeriodic {
            program,
            every: nanos(periodic.every),
            jitter: periodic.jitter,
            message: message.unwrap_or(MessageId(0)),
        }
    }
}

/// Whether a step or a reaction marks messages as delivered.
fn receives_deliveries(programs: &[ClientProgram], lookups: &[program::MessageLookup]) -> bool {
    let of_steps = programs.iter().flat_map(|program| &program.ops).filter_map(|op| match op {
        program::ProgramOperation::Expect(expect) => expect.measured.marking.as_ref(),
        _ => None,
    });
    let reactions = lookups.iter().flat_map(|lookup| &lookup.reactions);
    let of_reactions = reactions.filter_map(|reaction| reaction.measured.marking.as_ref());
    of_steps.chain(of_reactions).any(|marking| marking.mark == crate::load::plan::MarkName::Delivered)
}

fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Names with constant values.
struct ConstantNames<'a> {
    globals: &'a BTreeMap<String, NameMeaning>,
    hub: &'a Value,
    common: &'a RunContext,
}

impl crate::scenario::template::EvalContext for ConstantNames<'_> {
    fn lookup(&self, name: &str) -> Option<crate::scenario::value::BoundValue> {
        use crate::scenario::value::BoundValue;
        match (name, self.globals.get(name)) {
            ("hub", _) => Some(BoundValue::from_value(self.hub.clone())),
            (_, Some(NameMeaning::Value(value))) => Some(BoundValue::from_value(value.clone())),
            _ => None,
        }
    }

    fn function_context(&self) -> &Arc<crate::scenario::functions::FunctionContext> {
        &self.common.run.world
    }
}
