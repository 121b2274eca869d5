//! From the tree of a file to a program: a reader per construct that knows its keys, and says everything that is wrong
//! before any socket opens.
//!
//! [`verbs`] knows heads, [`steps`] what stands under them, with [`sends`] for what our side says and [`expects`] for
//! what must come back; [`actors`] who plays, [`names`] what is in sight, [`rules`] whom it accuses; [`shared`] is
//! shared.yaml, [`fuzz`] its part for made-up input, and [`journeys`] lends all that to load plans.

mod actors;
mod expects;
pub mod fuzz;
pub mod journeys;
mod names;
mod rules;
mod sends;
pub(crate) mod shape;
mod shared;
mod steps;
pub mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use self::names::{Sight, Use, bound_within};
use self::shape::{flag, keys, mapping, text};
use super::model::{Actor, ActorId, BlockId, Check, Isolation, Need, Program, Reaction, Role, Step};
use super::template::Expr;
use crate::protocol::Pack;
use crate::syntax::diagnostic::{Diagnostic, distinct, has_errors};
use crate::syntax::source::Span;
use crate::syntax::yaml::{Kind, Node};

pub use shared::SharedFile;

/// Reads one scenario. The program is there only where nothing is wrong with it.
pub fn read(id: &str, root: &Node, shared: &SharedFile, pack: &Arc<Pack>) -> (Option<Program>, Vec<Diagnostic>) {
    let mut reader = Reader::new(shared, pack);
    let program = reader.scenario(id, root);
    let diagnostics = distinct(reader.diagnostics);
    (program.filter(|_| !has_errors(&diagnostics)), diagnostics)
}

const KEYS: [&str; 9] =
    ["title", "needs", "exclusive", "destructive", "actors", "let", "steps", "finally", "description"];

/// Where steps stand: who may act there, and whether they may accuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Scenario,
    Finally,
    Opening,
    Scene,
    Reaction,
    Always,
    /// A load plan.
    Journey,
}

impl Place {
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

    fn accuses(self) -> bool {
        matches!(self, Self::Scenario | Self::Always)
    }

    fn in_first_person(self) -> bool {
        matches!(self, Self::Opening | Self::Scene | Self::Reaction | Self::Journey)
    }
}

struct Reader<'a> {
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
    /// Scenes that are being read, outermost first.
    playing: Vec<String>,
    reactions: BTreeMap<String, Reaction>,
    needs: Vec<Need>,
    sight: Vec<Sight>,
    /// Where the scenario binds its names, those of further down included.
    later: BTreeMap<String, Span>,
    /// Literal rows of the `each` blocks around, for rule ids in rows.
    rows: Vec<(String, Value)>,
    connected: BTreeSet<ActorId>,
    /// Actors first connected in each of the `each` blocks around.
    fresh: Vec<BTreeSet<ActorId>>,
    place: Place,
    /// The role of the first person, where steps have one.
    myself: Option<String>,
    /// A scene is read for itself: whoever acts in it is there, and may be of any role.
    anybody: bool,
}

impl<'a> Reader<'a> {
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
            playing: Vec::new(),
            reactions: BTreeMap::new(),
            needs: Vec::new(),
            sight: vec![Sight::default()],
            later: BTreeMap::new(),
            rows: Vec::new(),
            connected: BTreeSet::new(),
            fresh: Vec::new(),
            place: Place::Scenario,
            myself: None,
            anybody: false,
        }
    }

    fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message).help(help));
    }

    fn scenario(&mut self, id: &str, root: &Node) -> Option<Program> {
        if root.map().is_none() {
            self.error(
                root.span,
                "a scenario is a mapping with `title` and `steps`",
                "scenarios/README.md shows a small one",
            );
            return None;
        }
        keys(root, &KEYS, "a scenario", &mut self.diagnostics);
        let title = text(root.get("title"), "`title`", &mut self.diagnostics).unwrap_or_default().to_owned();
        if root.get("title").is_none() {
            let help = "one sentence that is true of the hub if every check passes";
            self.error(root.span, "the scenario has no `title`", help);
        }
        for part in ["steps", "finally"].into_iter().filter_map(|name| root.get(name)) {
            bound_within(part, &mut self.later);
        }
        let entries = mapping(root.get("let"), "`let`", &mut self.diagnostics);
        self.later.extend(entries.iter().map(|(key, _)| (key.name.clone(), key.span)));
        self.read_actors(root.get("actors"));
        self.read_needs(root.get("needs"));
        let isolation = self.isolation(root);
        let lets = self.values(entries);
        let always = self.always();
        let main = match root.get("steps") {
            Some(steps) => self.block(steps),
            None => {
                let help = "write `steps:` and below it, each behind `- `, who does what";
                self.error(root.span, "the scenario has no `steps`", help);
                return None;
            }
        };
        let finally = match root.get("finally") {
            Some(steps) => {
                self.place = Place::Finally;
                self.block(steps)
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
        })
    }

    fn isolation(&mut self, root: &Node) -> Isolation {
        let destructive = flag(root.get("destructive"), "`destructive`", &mut self.diagnostics);
        let exclusive = match root.get("exclusive").map(|node| (node, node.text())) {
            None => None,
            Some((_, Some(word))) if !word.is_empty() => Some(word.to_owned()),
            Some((node, _)) => {
                let help = "`hub` for a scenario that must be alone on the hub";
                self.error(node.span, "`exclusive` takes a word", help);
                None
            }
        };
        match (destructive, exclusive) {
            (true, _) => Isolation::Destructive,
            (false, Some(word)) => Isolation::Exclusive(word),
            (false, None) => Isolation::Shared,
        }
    }

    fn read_needs(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        let Some(items) = node.list() else {
            let example = node.text().unwrap_or("tls");
            self.error(
                node.span,
                "`needs` is a list of words and expressions",
                format!("write `needs: [\"{example}\"]`"),
            );
            return;
        };
        for item in items {
            match &item.kind {
                Kind::Text(text) if text.value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') => {
                    self.word(&text.value, item.span);
                    self.needs.push(Need::Word(text.value.clone()));
                }
                Kind::Text(text) => match Expr::compile(&text.value, item.span, text.inner) {
                    Ok(expr) => {
                        self.only_settings(&expr);
                        self.needs.push(Need::Expression { text: text.value.clone(), expr });
                    }
                    Err(diagnostic) => self.diagnostics.push(diagnostic),
                },
                _ => self.error(
                    item.span,
                    format!("a need is a word or an expression, not {}", item.what()),
                    "write `needs: [tls, \"hub.ping_interval <= 5\"]`",
                ),
            }
        }
    }

    /// Targets may declare any word; but one that is almost a setting is hardly meant.
    fn word(&mut self, word: &str, span: Span) {
        let settings = &self.file.shared.settings;
        let like = crate::syntax::diagnostic::nearest(word, settings.keys().map(String::as_str));
        if let Some(name) = like.filter(|_| !settings.contains_key(word)) {
            let message = format!("`{word}` is no setting, so this runs only where a target `provides` that word");
            self.diagnostics.push(Diagnostic::warning(span, message).help(format!("did you mean `{name}`?")));
        }
    }

    /// Before anything runs there is nothing but settings.
    fn only_settings(&mut self, expr: &Expr) {
        for used in &expr.uses {
            let root = used.split('.').next().unwrap_or_default();
            let used = Use::of(used, expr);
            if root == "hub" {
                self.setting(&used);
            } else if !super::functions::NAMES.contains(&root) && !super::template::BUILTIN.contains(&root) {
                self.error(
                    used.root,
                    format!("`{root}` is not a setting"),
                    "only settings are in sight here: write `hub.NAME`",
                );
            }
        }
    }
}
