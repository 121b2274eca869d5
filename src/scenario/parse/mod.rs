//! Parses the tree of a scenario file into a program, and reports everything that is wrong before any socket opens.
//!
//! [`verbs`] parses heads of steps, [`steps`] the rest of a step, [`sends`] what actors send, [`expects`] what they
//! expect, [`actors`] the actors, [`cases`] the rows of `cases`, [`names`] names and their scopes, [`shapes`] what is
//! known about their values, [`rules`] the checks; [`shared`] parses shared.yaml, [`lifecycles`] a part of its `always`,
//! [`fuzz`] its part for the fuzzer, and [`journeys`] the same constructs in load plans.

mod actors;
pub mod cases;
mod expects;
pub mod fuzz;
pub mod journeys;
mod lifecycles;
pub mod names;
mod rules;
mod sends;
pub mod shapes;
mod shared;
mod steps;
pub mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use self::cases::{ScenarioCase, split_cases};
use self::names::{BlockScope, NameUse, collect_bound_names};
use super::fences;
use super::model::{Actor, ActorId, BlockId, Check, Isolation, Need, Program, Reaction, Role, Step};
use super::template::{Template, TemplateExpression};
use crate::protocol::Pack;
use crate::syntax::diagnostic::{Diagnostic, has_errors, without_duplicates};
use crate::syntax::fields::{flag, line_text, list, mapping, table, text, wrong_kind};
use crate::syntax::grammar::FileFormat;
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKind, SyntaxNode};

pub use shared::SharedFile;

/// Parses the scenarios of a file, one for each row of its `cases`. Returns no programs if there are errors.
pub fn parse_scenario_file(
    id: &str,
    root: &SyntaxNode,
    shared: &SharedFile,
    pack: &Arc<Pack>,
) -> (Vec<Program>, Vec<Diagnostic>) {
    let (mut programs, mut diagnostics) = (Vec::new(), Vec::new());
    for ScenarioCase { suffix, root } in split_cases(root, &mut diagnostics) {
        let (program, found) = parse_scenario(&format!("{id}{suffix}"), &root, shared, pack);
        programs.extend(program);
        diagnostics.extend(found);
    }
    if has_errors(&diagnostics) {
        programs.clear();
    }
    // Every case reports the mistakes of the steps again.
    (programs, without_duplicates(diagnostics))
}

/// Parses one scenario, without `cases`. Returns no program if there are errors.
pub fn parse_scenario(
    id: &str,
    root: &SyntaxNode,
    shared: &SharedFile,
    pack: &Arc<Pack>,
) -> (Option<Program>, Vec<Diagnostic>) {
    let mut parser = ScenarioParser::new(shared, pack);
    let program = parser.parse_program(id, root);
    let diagnostics = without_duplicates(parser.diagnostics);
    let mut program = program.filter(|_| !has_errors(&diagnostics));
    program.iter_mut().for_each(fences::place);
    (program, diagnostics)
}

/// The place of a list of steps. It decides whether the steps name an actor and whether they may have rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepPlace {
    Scenario,
    Finally,
    Opening,
    Scene,
    Reaction,
    Always,
    /// A load plan.
    Journey,
}

impl StepPlace {
    fn name(self) -> &'static str {
        match self {
            Self::Scenario => "a scenario",
            Self::Finally => "`finally`",
            Self::Opening => "an opening",
            Self::Scene => "a scene",
            Self::Reaction => "a reaction",
            Self::Always => "`always`",
            Self::Journey => "a load plan",
        }
    }

    fn takes_rules(self) -> bool {
        matches!(self, Self::Scenario | Self::Always)
    }

    /// Whether steps here may leave out the actor, and apply to the actor that plays them.
    fn omits_actor(self) -> bool {
        matches!(self, Self::Opening | Self::Scene | Self::Reaction | Self::Journey)
    }
}

/// Whether `is` may hold for the value of a template. An expression may have any value.
fn may_be(template: &Template, is: impl Fn(&Value) -> bool) -> bool {
    match template {
        Template::Constant(value) => is(value),
        Template::Expression(_) => true,
        Template::Text(_) => is(&Value::String(String::new())),
        Template::List(_) => is(&Value::Array(Vec::new())),
        Template::Map(_) => is(&Value::Object(serde_json::Map::new())),
    }
}

struct ScenarioParser<'a> {
    file: &'a SharedFile,
    pack: &'a Arc<Pack>,
    diagnostics: Vec<Diagnostic>,
    blocks: Vec<Vec<Step>>,
    checks: Vec<Check>,
    check_counts: BTreeMap<String, usize>,
    actors: Vec<Actor>,
    groups: BTreeMap<String, Vec<ActorId>>,
    roles: BTreeMap<String, Role>,
    scenes: BTreeMap<String, BlockId>,
    /// What is known about the results of scenes, by their blocks.
    scene_results: BTreeMap<BlockId, shapes::ValueShape>,
    /// Scenes that are being parsed, outermost first.
    playing: Vec<String>,
    /// What is known about the names that the opening of a role binds, by the name of the role.
    opening_shapes: BTreeMap<String, BTreeMap<String, shapes::ValueShape>>,
    reactions: BTreeMap<String, Reaction>,
    needs: Vec<Need>,
    scopes: Vec<BlockScope>,
    /// Where the scenario binds its names, including those not yet in scope.
    later: BTreeMap<String, Span>,
    /// Constants of `let` and literal rows of the enclosing `each` blocks, for names of rules and messages.
    rows: Vec<(String, Value)>,
    connected: BTreeSet<ActorId>,
    /// Actors first connected in each of the enclosing `each` blocks.
    fresh: Vec<BTreeSet<ActorId>>,
    place: StepPlace,
    /// The role of the actor that plays the steps, if known.
    myself: Option<String>,
    /// Whether a scene is checked on its own. Any actor that it names then counts as existing, with any role.
    any_actor: bool,
}

impl<'a> ScenarioParser<'a> {
    fn new(file: &'a SharedFile, pack: &'a Arc<Pack>) -> Self {
        Self {
            file,
            pack,
            diagnostics: Vec::new(),
            blocks: Vec::new(),
            checks: Vec::new(),
            check_counts: BTreeMap::new(),
            actors: Vec::new(),
            groups: BTreeMap::new(),
            roles: BTreeMap::new(),
            scenes: BTreeMap::new(),
            scene_results: BTreeMap::new(),
            playing: Vec::new(),
            opening_shapes: BTreeMap::new(),
            reactions: BTreeMap::new(),
            needs: Vec::new(),
            scopes: vec![BlockScope::default()],
            later: BTreeMap::new(),
            rows: Vec::new(),
            connected: BTreeSet::new(),
            fresh: Vec::new(),
            place: StepPlace::Scenario,
            myself: None,
            any_actor: false,
        }
    }

    fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message).help(help));
    }

    /// Returns the role of the actor that plays the steps, if known.
    fn own_role(&self) -> Option<&Role> {
        self.roles.get(self.myself.as_ref()?)
    }

    fn parse_program(&mut self, id: &str, root: &SyntaxNode) -> Option<Program> {
        let scenario = table(root, &FileFormat::Scenario.keys(""), "a scenario", &mut self.diagnostics);
        let help = "write one sentence that is true of the hub if every check passes";
        let title = scenario.required("title", help, &mut self.diagnostics);
        let title = line_text(title, "`title`", &mut self.diagnostics).unwrap_or_default();
        for part in ["steps", "finally"].into_iter().filter_map(|name| root.get(name)) {
            collect_bound_names(part, &mut self.later);
        }
        let entries = mapping(root.get("let"), "`let`", "let: { NAME: VALUE }", &mut self.diagnostics);
        self.later.extend(entries.iter().map(|(key, _)| (key.name.clone(), key.span)));
        self.parse_actors(root.get("actors"));
        self.parse_needs(root.get("needs"));
        let isolation = self.parse_isolation(root);
        let lets = self.parse_values(entries);
        // Constants, such as the members of a case, are known before the run.
        let constants = lets.iter().filter_map(|(name, value)| Some((name.clone(), value.constant()?.clone())));
        self.rows.extend(constants);
        let always = self.parse_always();
        let help = "list the steps under `steps:`, each as `- ACTOR VERB: VALUE`";
        let steps = scenario.required("steps", help, &mut self.diagnostics)?;
        let main = self.parse_block(steps);
        let finally = match root.get("finally") {
            Some(steps) => {
                self.place = StepPlace::Finally;
                self.parse_block(steps)
            }
            None => self.push_block(Vec::new()),
        };
        Some(Program {
            id: id.to_owned(),
            title,
            span: root.span,
            pack: Arc::clone(self.pack),
            shared: Arc::clone(&self.file.shared),
            needs: std::mem::take(&mut self.needs),
            isolation,
            actors: std::mem::take(&mut self.actors),
            groups: std::mem::take(&mut self.groups),
            roles: std::mem::take(&mut self.roles),
            lets,
            blocks: std::mem::take(&mut self.blocks),
            main,
            finally,
            checks: std::mem::take(&mut self.checks),
            always,
            reactions: std::mem::take(&mut self.reactions),
            connections: self.connected.len(),
            unfenced: Vec::new(),
        })
    }

    fn parse_isolation(&mut self, root: &SyntaxNode) -> Isolation {
        let destructive = flag(root.get("destructive"), "`destructive`", &mut self.diagnostics);
        let exclusive = text(root.get("exclusive"), "`exclusive`", &mut self.diagnostics);
        match exclusive {
            _ if destructive => Isolation::Destructive,
            Some(word) => Isolation::Exclusive(word.to_owned()),
            None => Isolation::Shared,
        }
    }

    fn parse_needs(&mut self, node: Option<&SyntaxNode>) {
        let example = format!("needs: [\"{}\"]", node.and_then(SyntaxNode::text).unwrap_or("tls"));
        for item in list(node, "`needs`", &example, &mut self.diagnostics) {
            match &item.kind {
                NodeKind::Text(text)
                    if text.value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') =>
                {
                    self.check_need_word(&text.value, item.span);
                    self.needs.push(Need::Word(text.value.clone()));
                }
                NodeKind::Text(text) => match TemplateExpression::compile(&text.value, item.span, text.inner) {
                    Ok(expr) => {
                        self.check_only_settings(&expr);
                        self.needs.push(Need::Expression { text: text.value.clone(), expr });
                    }
                    Err(diagnostic) => self.diagnostics.push(diagnostic),
                },
                _ => {
                    let help = "write `needs: [tls, \"hub.ping_interval <= 5\"]`";
                    self.diagnostics.push(wrong_kind(item, "a need", "a word or an expression", help));
                }
            }
        }
    }

    /// Parses a value for which `is` holds. An expression is accepted, since its value is not known yet.
    fn template_of(
        &mut self,
        node: &SyntaxNode,
        is: fn(&Value) -> bool,
        what: &str,
        kind: &str,
        example: &str,
    ) -> Template {
        let template = self.parse_template(node);
        if !may_be(&template, is) {
            self.diagnostics.push(wrong_kind(node, what, kind, &format!("write `{example}`")));
        }
        template
    }

    /// Warns about a word that resembles a setting. Targets may declare any other word.
    fn check_need_word(&mut self, word: &str, span: Span) {
        let settings = &self.file.shared.settings;
        let like = crate::syntax::diagnostic::nearest(word, settings.keys().map(String::as_str));
        if let Some(name) = like.filter(|_| !settings.contains_key(word)) {
            let message = format!("`{word}` is not a setting, so this runs only on a target that `provides` that word");
            self.diagnostics.push(Diagnostic::warning(span, message).help(format!("did you mean `{name}`?")));
        }
    }

    /// Reports names in a need that are not settings.
    fn check_only_settings(&mut self, expr: &TemplateExpression) {
        for used in &expr.uses {
            let root = used.split('.').next().unwrap_or_default();
            let used = NameUse::in_expression(used, expr);
            if root == "hub" {
                self.find_setting(&used);
            } else if !super::functions::FUNCTION_NAMES.contains(&root)
                && !super::template::ENGINE_FUNCTIONS.contains(&root)
            {
                self.error(
                    used.root,
                    format!("`{root}` is not a setting"),
                    "a need can use only settings: write `hub.NAME`",
                );
            }
        }
    }
}
