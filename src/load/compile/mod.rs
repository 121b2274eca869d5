//! Compiles a plan and its script to programs for one target. Everything that is constant throughout the run is
//! evaluated here.
//!
//! [`scope`] resolves names, [`message`] composes messages, [`steps`] turns steps into operations, [`wanted`] collects
//! the members to look up in received frames.

pub mod classifier;
pub mod json_scan;
pub mod lint;
mod message;
pub mod message_template;
pub mod program;
mod scope;
mod steps;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::program::{Common, Fill, Periodic, Prepared, Program, Remark, Role, Rows};
use self::scope::{Binding, Named, Resolved, Scope};
use super::ids::{JourneyId, MessageId};
use crate::load::Nanos;
use crate::load::compile::classifier::Classifier;
use crate::load::compile::message_template::{Computed, Run, Source};
use crate::load::ledger::Keys;
use crate::load::plan::script::Part;
use crate::load::plan::{Plan, Script};
use crate::scenario::model::setting_value;
use crate::scenario::template::{Expr, Template as Written};
use crate::syntax::diagnostic::{Diagnostic, distinct, has_errors};
use crate::syntax::source::Span;

/// The target that a plan is compiled for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Settings of the target, with the defaults of shared.yaml.
    pub settings: BTreeMap<String, Value>,
    /// Distinguishes this run from all others; letters and digits.
    pub stamp: String,
    /// Unix time of the origin of the run, in milliseconds.
    pub epoch_ms: i64,
    pub seed: u64,
    pub keys: Keys,
}

/// Compiles a plan. `plan` is the script's plan, perhaps with other numbers.
///
/// # Errors
///
/// Diagnostics that depend on settings and numbers, each with its place in the plan.
pub fn prepare(plan: &Plan, script: &Script, target: &Target) -> Result<Prepared, Vec<Diagnostic>> {
    let pack = &script.pack;
    let id = |name: &str| pack.messages.iter().position(|message| message.name == name).map(|n| MessageId(n as u16));
    let Some(classifier) = Classifier::new(pack, id) else {
        let what = format!("the matchers of {} use too many different members", pack.name);
        return Err(vec![Diagnostic::without_place(what)]);
    };
    let run = Run::new(&target.stamp, target.epoch_ms);
    run.world.set_now_ms(target.epoch_ms);
    let common = Arc::new(Common { classifier, run, keys: target.keys.clone(), seed: target.seed });
    let hub = target.settings.iter().map(|(name, value)| (name.clone(), setting_value(value))).collect();
    let mut shared =
        Carried { globals: globals(plan, script), hub: Value::Object(hub), rows: rows(script), ..Carried::default() };
    let mut diagnostics = Vec::new();
    let (mut roles, mut first) = (Vec::new(), 0);
    for (role, part) in plan.roles.iter().zip(&script.parts) {
        let mut compiler = Compiler::new(script, part, &common, shared);
        if roles.is_empty() {
            compiler.lets();
        }
        let (prepared, found) = compiler.role(role, first);
        shared = found.0;
        diagnostics.extend(found.1);
        roles.push(prepared);
        first += role.population.number;
    }
    let diagnostics = distinct(diagnostics);
    if has_errors(&diagnostics) {
        return Err(diagnostics);
    }
    let messages = pack.messages.iter().map(|message| message.name.clone()).collect();
    Ok(Prepared { messages, journeys: shared.journeys, hooks: shared.hooks, roles, remarks: shared.remarks })
}

/// State passed from role to role.
#[derive(Default)]
struct Carried {
    globals: BTreeMap<String, Named>,
    hub: Value,
    rows: Vec<Arc<Rows>>,
    journeys: Vec<String>,
    hooks: Vec<String>,
    remarks: Vec<Remark>,
}

fn globals(plan: &Plan, script: &Script) -> BTreeMap<String, Named> {
    let numbers = plan.roles.iter().map(|role| (role.name.clone(), Value::from(role.population.number)));
    let population = Named::Value(Value::Object(numbers.collect()));
    let feeders = script.feeders.iter().enumerate().map(|(n, feeder)| (feeder.name.clone(), Named::Feeder(n)));
    feeders.chain([("population".to_owned(), population)]).collect()
}

fn rows(script: &Script) -> Vec<Arc<Rows>> {
    let text = |value: &Value| value.to_string().into_bytes().into_boxed_slice();
    script
        .feeders
        .iter()
        .map(|feeder| {
            let rows = feeder.rows.iter().map(|row| row.iter().map(text).collect()).collect();
            Arc::new(Rows { rows, random: feeder.random })
        })
        .collect()
}

/// Compiles one role.
struct Compiler<'a> {
    script: &'a Script,
    part: &'a Part,
    common: &'a Arc<Common>,
    carried: Carried,
    diagnostics: Vec<Diagnostic>,
    /// The members of `self`.
    myself: BTreeMap<String, Named>,
    scopes: Vec<Scope>,
    bindings: Vec<Binding>,
    own: usize,
    identity: Vec<(u16, Fill)>,
    in_identity: bool,
    in_opening: bool,
    /// The program under construction, and the finished ones.
    program: Program,
    programs: Vec<Program>,
    sent: Vec<steps::Sent>,
    waits: Vec<wanted::Wait>,
    pending_reactions: Vec<wanted::PendingReaction>,
    /// Messages and hooks whose content or answer is bound to a name: program, operation, binding.
    kept: Vec<(usize, usize, usize)>,
}

impl<'a> Compiler<'a> {
    fn new(script: &'a Script, part: &'a Part, common: &'a Arc<Common>, carried: Carried) -> Self {
        Self {
            script,
            part,
            common,
            carried,
            diagnostics: Vec::new(),
            myself: BTreeMap::from([
                ("index".to_owned(), Named::Source(Source::Index)),
                ("turn".to_owned(), Named::Source(Source::Turn)),
            ]),
            scopes: Vec::new(),
            bindings: Vec::new(),
            own: 0,
            identity: Vec::new(),
            in_identity: false,
            in_opening: false,
            program: Program::default(),
            programs: Vec::new(),
            sent: Vec::new(),
            waits: Vec::new(),
            pending_reactions: Vec::new(),
            kept: Vec::new(),
        }
    }

    fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message).help(help));
    }

    fn id(&self, name: &str) -> MessageId {
        // Names were checked when the plan was read.
        MessageId(self.script.pack.messages.iter().position(|m| m.name == name).unwrap_or_default() as u16)
    }

    /// Evaluates the values of the run, the same for all roles.
    fn lets(&mut self) {
        for (name, written) in &self.script.lets {
            let known = Constants { globals: &self.carried.globals, hub: &self.carried.hub, common: self.common };
            let value = match written.eval(&known) {
                Ok(value) => value,
                Err(error) => {
                    let mut span = None;
                    written.expressions(&mut |expr| span = span.or(Some(expr.span)));
                    if let Some(span) = span {
                        let help = "values of the whole run can use settings, numbers of the plan, and each other";
                        self.error(span, error.to_string(), help);
                    }
                    Value::Null
                }
            };
            self.carried.globals.insert(name.clone(), Named::Value(value));
        }
    }

    /// Evaluates an expression over constants.
    fn evaluate_constant(&mut self, computed: &Computed, expr: &Expr) -> Value {
        let constants = computed.constants.iter().map(|(name, value)| (name.clone(), Named::Value(value.clone())));
        let globals = constants.collect();
        let known = Constants { globals: &globals, hub: &self.carried.hub, common: self.common };
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

    fn role(mut self, role: &crate::load::plan::Role, first: u32) -> (Role, (Carried, Vec<Diagnostic>)) {
        self.identity();
        let party = self.part.party.as_ref().and_then(|written| self.source(written));
        // Programs are numbered as they are finished: the opening is the first one.
        self.scopes.push(Scope::default());
        self.in_opening = true;
        self.lines(&self.part.opening);
        let opening = self.finish(None);
        self.in_opening = false;
        let journey = (!self.part.journey.is_empty()).then(|| self.journey());
        let periodic = self.part.periodic.iter().map(|periodic| self.periodic(periodic)).collect();
        self.pending_reactions();
        self.keep();
        let lookups = self.lookups();
        let prepared = Role {
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
            periodic,
            lookups,
            party,
        };
        (prepared, (self.carried, self.diagnostics))
    }

    /// Compiles the values given to a client, which are evaluated once, when the client starts.
    fn identity(&mut self) {
        self.in_identity = true;
        let script = self.script;
        let given = &script.shared_parts.roles[&self.part.plays].given;
        let joins = self.part.opening.iter().find_map(steps::joins);
        for (name, written) in given {
            let over = |with: &'a [(String, Written)]| with.iter().find(|(n, _)| n == name).map(|(_, written)| written);
            let over = joins.and_then(over).or_else(|| over(&self.part.with));
            let named = self.given(over.unwrap_or(written));
            self.myself.insert(name.clone(), named);
        }
        self.in_identity = false;
    }

    /// Compiles a value that is constant from the start of its client.
    fn given(&mut self, written: &Written) -> Named {
        let mut sources = Vec::new();
        let value = self.marked(written, &mut sources);
        match self.settled(written, &value, &sources) {
            Some(named) => named,
            None => {
                let slot = self.own_slot();
                self.identity.push((slot, Fill::Template(message::cut(&value, &sources))));
                Named::Source(Source::Own(slot))
            }
        }
    }

    /// Returns a value that needs no slot of its own: a constant, or an existing slot.
    fn settled(&self, written: &Written, value: &Value, sources: &[Source]) -> Option<Named> {
        match (written, sources) {
            (_, []) => Some(Named::Value(value.clone())),
            (Written::Expression(_), [source @ (Source::Own(_) | Source::Text(_) | Source::Index)]) => {
                Some(Named::Source(source.clone()))
            }
            _ => None,
        }
    }

    /// Returns the single source of a template's text.
    fn source(&mut self, written: &Written) -> Option<Source> {
        if let Written::Expression(expr) = written {
            return match self.resolve(expr) {
                Resolved::Source(source) => Some(source),
                Resolved::Value(value) => Some(self.constant_text(&value)),
            };
        }
        match self.kept_text(written) {
            Named::Source(source) => Some(source),
            Named::Value(value) => Some(self.constant_text(&value)),
            _ => None,
        }
    }

    /// Finishes the current program and returns its number.
    fn finish(&mut self, journey: Option<JourneyId>) -> usize {
        let program = std::mem::take(&mut self.program);
        self.programs.push(Program { journey, ..program });
        self.sent.clear();
        self.programs.len() - 1
    }

    fn journey(&mut self) -> usize {
        self.scopes.push(Scope::default());
        let part = self.part;
        for (name, written) in &part.lets {
            let named = self.kept_text(written);
            self.bind(name, named);
        }
        self.lines(&part.journey);
        if !part.resumes.is_empty() {
            let jump = self.program.ops.len();
            self.program.ops.push(self::program::Op::Jump(0));
            self.program.resumes = Some(jump + 1);
            self.lines(&part.resumes);
            self.program.ops.push(self::program::Op::Back);
            self.program.ops[jump] = self::program::Op::Jump(self.program.ops.len());
        }
        self.program.item = part.item.as_ref().and_then(|written| self.source(written));
        self.scopes.pop();
        let id = JourneyId(self.carried.journeys.len() as u16);
        self.carried.journeys.push(part.journey_name.clone());
        self.finish(Some(id))
    }

    fn periodic(&mut self, periodic: &'a crate::load::plan::script::Periodic) -> Periodic {
        self.scopes.push(Scope::default());
        self.lines(&periodic.steps);
        self.scopes.pop();
        let message = self.program.ops.iter().find_map(|op| match op {
            self::program::Op::Send(send) => Some(send.message),
            _ => None,
        });
        if message.is_none() {
            self.error(periodic.span, "this block sends no message", "write `do: [ { sends: MESSAGE } ]`");
        }
        let program = self.finish(None);
        Periodic {
            program,
            every: nanos(periodic.every),
            jitter: periodic.jitter,
            message: message.unwrap_or(MessageId(0)),
        }
    }
}

fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Names with constant values.
struct Constants<'a> {
    globals: &'a BTreeMap<String, Named>,
    hub: &'a Value,
    common: &'a Common,
}

impl crate::scenario::template::Names for Constants<'_> {
    fn lookup(&self, name: &str) -> Option<crate::scenario::value::Bound> {
        use crate::scenario::value::Bound;
        match (name, self.globals.get(name)) {
            ("hub", _) => Some(Bound::plain(self.hub.clone())),
            (_, Some(Named::Value(value))) => Some(Bound::plain(value.clone())),
            _ => None,
        }
    }

    fn world(&self) -> &Arc<crate::scenario::functions::World> {
        &self.common.run.world
    }
}
