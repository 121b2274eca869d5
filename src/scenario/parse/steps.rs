//! Parses steps: the head names the actor and the verb, the other keys are options of the verb.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::actors::{ActorsOfSteps, part_of};
use super::names::{Bound, Origin, Scope};
use super::rules::Subject;
use super::verbs::{self, Head, Verb};
use super::{Place, Reader, may_be};
use crate::protocol::{Basis, Level};
use crate::scenario::model::{Act, ActorId, BlockId, Hook, Need, Order, RuleUse, Step, Who, duration};
use crate::scenario::template::Template;
use crate::syntax::diagnostic::{Diagnostic, suggest, suggest_one};
use crate::syntax::fields::{self, choice, entries, wrong_kind};
use crate::syntax::yaml::{Key, Kind, Node};

/// The keys of a step other than its head.
pub struct Options<'n> {
    verb: Verb,
    entries: Vec<(&'n Key, &'n Node)>,
    /// Whether an actor performs the step, unlike `check` or `wait`.
    acts: bool,
}

impl<'n> Options<'n> {
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| *node)
    }

    pub fn key(&self, name: &str) -> Option<&'n Key> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(key, _)| *key)
    }

    pub fn acts(&self) -> bool {
        self.acts
    }
}

/// Maximum number of values that `each` and `either` iterate over.
const MOST_VALUES: u64 = 100_000;

impl Reader<'_> {
    pub(super) fn push_block(&mut self, steps: Vec<Step>) -> BlockId {
        self.blocks.push(steps);
        self.blocks.len() - 1
    }

    pub(super) fn block(&mut self, node: &Node) -> BlockId {
        let items = fields::list(Some(node), "`steps`", "- anna sends: MESSAGE", &mut self.diagnostics);
        let steps = items.iter().filter_map(|item| self.step(item)).collect();
        self.push_block(steps)
    }

    /// Parses a block with its own `names`. The names that its steps bind stay in scope.
    fn inner(&mut self, node: &Node, names: &[&str]) -> BlockId {
        let own = |name: &&str| ((*name).to_owned(), Bound { at: None, origin: Origin::Computed });
        self.scopes.push(Scope { names: names.iter().map(own).collect(), isolated: false });
        let block = self.block(node);
        if let Some(scope) = self.scopes.pop() {
            for (name, bound) in scope.names {
                if !names.contains(&name.as_str()) {
                    self.bind_name(&name, bound.at, bound.origin);
                }
            }
        }
        block
    }

    pub(super) fn step(&mut self, node: &Node) -> Option<Step> {
        let Some(all) = node.map().filter(|entries| !entries.is_empty()) else {
            let help = match node.text() {
                Some(text) if verbs::head(text).is_some() => format!("a colon is missing: write `- {text}:`"),
                _ => "write `- anna sends: MESSAGE`".to_owned(),
            };
            self.diagnostics.push(wrong_kind(node, "a step", "a mapping that begins with `ACTOR VERB:`", &help));
            return None;
        };
        let Some((position, head)) =
            all.iter().enumerate().find_map(|(i, (key, _))| verbs::head(&key.name).map(|head| (i, head)))
        else {
            self.no_step(&all[0].0);
            return None;
        };
        let (key, value) = &all[position];
        if position != 0 {
            self.error(
                key.span,
                "the head of a step must come first",
                format!("begin the step with `- {}: ...`", key.name),
            );
        }
        let others = all.iter().enumerate().filter(|(i, _)| *i != position).map(|(_, (key, node))| (key, node));
        let options = Options { verb: head.verb, entries: others.collect(), acts: !head.verb.is_word() };
        self.check_options(&head, key, &options);
        let who = self.who(&head, key)?;
        let if_ = options.get("if").and_then(|node| self.bound_name(node, "if"));
        let text = match value.text() {
            Some(value) => format!("{}: {}", key.name, crate::syntax::matcher::cut(value, 80)),
            None => key.name.clone(),
        };
        let mut rules = self.rules(options.get("rules"));
        if rules.is_empty() && self.pack.rules.is_empty() && self.place.takes_rules() && head.verb.expects() {
            // Without rules.yaml every expectation is a must, named by its text.
            rules.push(RuleUse { id: text.clone(), level: Level::Must, basis: Basis::Stated, lowered: false });
        }
        let act = self.act(key, value, &options, &who);
        if head.verb.only_judges() && rules.is_empty() {
            self.must_judge(key, &options);
        }
        let check = (!rules.is_empty() && head.verb.takes_rules()).then(|| self.declare(rules, key.span));
        let as_ = options.get("as").and_then(|node| {
            let name = self.free_name(node)?;
            let origin = match head.verb {
                Verb::Compose | Verb::Check | Verb::Wait => Origin::Computed,
                _ => Origin::of(&who),
            };
            self.bind_name(&name, Some(node.span), origin);
            Some(name)
        });
        Some(Step { span: key.span, text, who, as_, if_, check, act: act? })
    }

    /// Reports a first key that is not a head.
    fn no_step(&mut self, key: &Key) {
        let (first, rest) = key.name.split_once(' ').unwrap_or(("", &key.name));
        let roles = entries(self.file.root.get("roles"));
        let actor =
            !first.is_empty() && (self.members(first).is_some() || roles.iter().any(|(role, _)| role.name == first));
        let (wrong, span) = if actor { (rest, part_of(key, rest)) } else { (key.name.as_str(), key.span) };
        let help = if verbs::begins_with_quantity(&key.name) {
            "write `exactly 1 of crowd expect: MESSAGE`; `at least` and `at most` work the same way".to_owned()
        } else {
            let lists = "a step begins with `ACTOR VERB`; docs/src/scenario-language.md lists the verbs";
            suggest(if first.is_empty() { &key.name } else { rest }, verbs::all(), lists)
        };
        let what = if actor { "is not a verb" } else { "is not a step" };
        self.error(span, format!("`{wrong}` {what}"), help);
    }

    fn check_options(&mut self, head: &Head<'_>, key: &Key, options: &Options<'_>) {
        for (option, _) in &options.entries {
            let name = option.name.as_str();
            if matches!(name, "as" | "if") || head.verb.options().contains(&name) {
                continue;
            }
            if self.place == Place::Journey && super::journeys::OPTIONS.contains(&name) {
                continue;
            }
            let verb = key.name.rsplit_once(head.actor).map_or(key.name.as_str(), |(_, verb)| verb).trim();
            let verb = if head.actor.is_empty() { key.name.as_str() } else { verb };
            let help = if verbs::head(name).is_some() {
                "begin a new step with `- `".to_owned()
            } else {
                let known: Vec<&str> = head.verb.options().iter().copied().chain(["as", "if"]).collect();
                suggest_one(name, known, "its options are")
            };
            self.error(option.span, format!("`{verb}` has no option `{name}`"), help);
        }
    }

    /// Reports a step that only checks but has no rules, or is in a place that cannot have checks.
    fn must_judge(&mut self, key: &Key, options: &Options<'_>) {
        if !self.place.takes_rules() {
            if options.get("rules").is_none() {
                let what = format!("`{}` is not allowed in {}, which cannot have checks", key.name, self.place.name());
                self.error(key.span, what, "move it to the steps of a scenario and add `rules`");
            }
        } else if options.get("rules").is_none() {
            let what = format!("`{}` without rules proves nothing", key.name);
            self.error(key.span, what, "name the rules it proves: write `rules: [ABC-001]`");
        }
    }

    fn act<'n>(&mut self, key: &Key, value: &'n Node, options: &Options<'n>, who: &Who) -> Option<Act> {
        let role = match who {
            Who::One(id) => self.actors.get(*id).map(|actor| actor.role.clone()),
            Who::Group { members, .. } => {
                members.first().and_then(|id| self.actors.get(*id)).map(|actor| actor.role.clone())
            }
            Who::Myself => self.myself.clone(),
            Who::NoActor => None,
        };
        let outer = std::mem::replace(&mut self.myself, role);
        let act = self.act_of(key, value, options, who);
        self.myself = outer;
        act
    }

    fn act_of<'n>(&mut self, key: &Key, value: &'n Node, options: &Options<'n>, who: &Who) -> Option<Act> {
        Some(match options.verb {
            Verb::Joins => self.join(key, value, options, who),
            Verb::Connects | Verb::TriesToConnect => {
                self.connects(who);
                self.connect(value, options, options.verb == Verb::TriesToConnect)
            }
            Verb::Accepts => self.accept(key, value, options, who),
            Verb::Sends => Act::Send(Box::new(self.compose(value, options))),
            Verb::Compose => Act::Compose(Box::new(self.compose(value, options))),
            Verb::SendsRaw => self.raw(value),
            Verb::Closes => self.close(value, options),
            Verb::Drops => Act::Drop { reset: self.drops_by_reset(value) },
            Verb::StopsReading => {
                self.empty(value, key);
                Act::StopReading
            }
            Verb::ReadsAgain => {
                self.empty(value, key);
                Act::ReadAgain
            }
            Verb::Expects => self.expect_message(value, options, who),
            Verb::ExpectsClose => self.expect_close(value, options),
            Verb::ExpectsRefusal => self.expect_refusal(value, options),
            Verb::ExpectsFrame => self.expect_control(value, options),
            Verb::ExpectsEnd => {
                self.empty(value, key);
                self.expect_end(options)
            }
            Verb::ExpectsNothing => self.expect_nothing(value, options),
            Verb::ExpectsOneOf => self.expect_one_of(value, options, who),
            Verb::Plays | Verb::Play => self.play(value, options)?,
            Verb::Hook => self.hook(value, options)?,
            Verb::Wait => {
                if options.get("because").and_then(Node::text).is_none() {
                    self.error(
                        key.span,
                        "`wait` needs a reason",
                        "add `because: REASON`, such as what the hub needs the time for",
                    );
                }
                Act::Wait { time: self.time(value, "`wait`") }
            }
            Verb::Check => Act::Check {
                value: self.checked_value(value),
                test: self.test(options.get("equals"), options.get("fits")),
            },
            Verb::Order => self.order(value, options),
            Verb::Each => self.each(key, value, options)?,
            Verb::Either => {
                let name = self.free_name(value)?;
                let values = self.needed(key, "in", "write `in: [a, b]`", options)?;
                let values = self.several(values);
                let steps = self.needed(key, "do", "write the steps under `do`", options)?;
                let body = self.inner(steps, &[&name]);
                self.bind_name(&name, Some(value.span), Origin::Computed);
                Act::Either { name, values, body }
            }
            Verb::Retry => {
                let time = self.time(value, "`retry`");
                if time.constant().and_then(Value::as_str).is_some_and(|time| duration(time).is_ok_and(|t| t.is_zero()))
                {
                    self.error(
                        value.span,
                        "a `retry` of zero time repeats nothing",
                        "write how long to repeat the steps, such as `retry: 5s`",
                    );
                }
                let steps = self.needed(key, "do", "write the steps under `do`", options)?;
                if steps.list().is_some_and(<[_]>::is_empty) {
                    self.error(
                        steps.span,
                        "`retry` has no steps",
                        "write steps that succeed once the condition is true",
                    );
                }
                Act::Retry { time, body: self.inner(steps, &[]) }
            }
        })
    }

    fn join<'n>(&mut self, key: &Key, value: &'n Node, options: &Options<'n>, who: &Who) -> Act {
        self.empty(value, key);
        if self.place == Place::Opening {
            self.error(
                key.span,
                "`joins` plays an opening, so an opening cannot contain it",
                "write `connects:` instead",
            );
        }
        self.connects(who);
        let role = self.myself.as_ref().and_then(|role| self.roles.get(role));
        let idle = role.is_some_and(|role| self.blocks.get(role.opening).is_some_and(Vec::is_empty));
        if let Some(rules) = options.key("rules").filter(|_| idle) {
            let span = rules.span;
            self.error(span, "this role has no opening, so `joins` cannot fail", "leave `rules` out");
        }
        let role = self.myself.as_ref().and_then(|role| self.roles.get(role));
        let given: Vec<String> =
            role.map(|role| role.given.iter().map(|(name, _)| name.clone()).collect()).unwrap_or_default();
        Act::Join { with: self.overrides(options.get("with"), &given, "the role") }
    }

    fn accept<'n>(&mut self, key: &Key, value: &'n Node, options: &Options<'n>, who: &Who) -> Act {
        self.empty(value, key);
        self.connects(who);
        if let Some(name) = self.myself.clone()
            && self.roles.get(&name).is_some_and(|role| !role.server)
        {
            let what = format!("`{name}` is a client, but only a server accepts connections");
            self.error(key.span, what, "write `connects:`, or give the role `side: server`");
        }
        Act::Accept { within: self.time_option(options, "within") }
    }

    fn drops_by_reset(&mut self, value: &Node) -> bool {
        let value = Some(value).filter(|value| !value.is_null());
        choice(value, "`drops`", &[("reset", true), ("fin", false)], &mut self.diagnostics).unwrap_or(false)
    }

    fn play<'n>(&mut self, value: &'n Node, options: &Options<'n>) -> Option<Act> {
        let name = fields::text(Some(value), "the name of a scene", &mut self.diagnostics)?;
        let node = self.file.root.get("scenes").and_then(|scenes| scenes.get(name));
        let actors = ActorsOfSteps::of(node.and_then(|scene| scene.get("steps")));
        if let (Verb::Play, Some(at)) = (options.verb, actors.without_actor) {
            self.diagnostics.push(
                Diagnostic::error(value.span, format!("the scene `{name}` must be played by an actor"))
                    .also(at, "this step names no actor")
                    .help(format!("write `anna plays: {name}`")),
            );
            return None;
        }
        let (scene, given) = self.scene(name, value.span)?;
        let names: Vec<String> = given.iter().map(|(name, _)| name.clone()).collect();
        let with = self.overrides(options.get("with"), &names, &format!("the scene `{name}`"));
        Some(Act::Play { scene, given, with })
    }

    fn order<'n>(&mut self, value: &'n Node, options: &Options<'n>) -> Act {
        let example = "order: [first, second]";
        let slack = self.time_option(options, "slack");
        let items = fields::list(Some(value), "`order`", example, &mut self.diagnostics);
        if items.len() < 2 && (value.is_null() || value.list().is_some()) {
            self.error(value.span, "`order` needs at least two names", format!("write `{example}`"));
        }
        let mut names: Vec<String> = Vec::new();
        for node in items {
            let Some(name) = self.bound_name(node, "order") else { continue };
            if names.contains(&name) {
                self.error(node.span, format!("`{name}` cannot come before itself"), "keep one of the two");
            }
            self.must_have_wire(&name, node);
            names.push(name);
        }
        if slack.is_none() {
            let origins = |pair: &[String]| (self.origin(&pair[0]), self.origin(&pair[1]));
            let apart = names.windows(2).map(origins).any(|pair| match pair {
                (Origin::One(a), Origin::One(b)) => a != b,
                pair => pair.0 == Origin::Several || pair.1 == Origin::Several,
            });
            if apart {
                self.error(
                    value.span,
                    "an order across several connections needs `slack`",
                    "write how far arrival times may be out of order, such as `slack: 100ms`",
                );
            }
        }
        Act::Order(Order { names, slack })
    }

    fn origin(&self, name: &str) -> Origin {
        self.bound(name).map_or(Origin::Unknown, |bound| bound.origin)
    }

    fn needed<'n>(&mut self, key: &Key, option: &str, help: &str, options: &Options<'n>) -> Option<&'n Node> {
        let node = options.get(option);
        if node.is_none() {
            self.error(key.span, format!("`{}` has no `{option}`", key.name), help);
        }
        node
    }

    fn empty(&mut self, value: &Node, key: &Key) {
        if !value.is_null() {
            self.error(
                value.span,
                format!("`{}` takes no value", key.name),
                "align options with the first letter of the step",
            );
        }
    }

    /// Parses an option that is a time.
    pub(super) fn time_option(&mut self, options: &Options<'_>, name: &str) -> Option<Template> {
        options.get(name).map(|node| self.time(node, &format!("`{name}`")))
    }

    fn time(&mut self, node: &Node, what: &str) -> Template {
        let template = self.template(node);
        if template.is_constant() {
            fields::time(Some(node), what, &mut self.diagnostics);
        }
        template
    }

    /// Parses the values of an `each` or `either`.
    fn several(&mut self, node: &Node) -> Template {
        let template = self.template(node);
        let right = may_be(&template, |value| match value {
            Value::Array(values) => !values.is_empty() || !template.is_constant(),
            Value::Number(n) => n.as_u64().is_some_and(|n| (1..=MOST_VALUES).contains(&n)),
            _ => false,
        });
        if !right {
            let help = "write `in: [a, b]`, `in: 3` or `in: \"${...}\"`";
            let error = match &node.kind {
                Kind::List(_) | Kind::Null => Diagnostic::error(node.span, "`in` has no values").help(help),
                _ => wrong_kind(node, "`in`", &format!("a list, or a number from 1 to {MOST_VALUES}"), help),
            };
            self.diagnostics.push(error);
        }
        template
    }

    fn hook<'n>(&mut self, value: &'n Node, options: &Options<'n>) -> Option<Act> {
        let name = value.text().unwrap_or_default().to_owned();
        let file = self.file;
        let Some(declaration) = file.shared.hooks.get(&name) else {
            let known: Vec<&str> = file.shared.hooks.keys().map(String::as_str).collect();
            self.error(
                value.span,
                format!("{} has no hook `{name}`", self.pack.name),
                suggest(&name, known, "hooks are declared in shared.yaml"),
            );
            return None;
        };
        for (key, _) in entries(options.get("args")) {
            if !declaration.args.contains(&key.name) {
                let known: Vec<&str> = declaration.args.iter().map(String::as_str).collect();
                let takes = if known.is_empty() {
                    "it takes no arguments".to_owned()
                } else {
                    format!("it takes {}", known.join(", "))
                };
                self.error(
                    key.span,
                    format!("the hook `{name}` takes no argument `{}`", key.name),
                    suggest(&key.name, known, &takes),
                );
            }
        }
        if !self.needs.iter().any(|need| matches!(need, Need::Hook(known) if *known == name)) {
            self.needs.push(Need::Hook(name.clone()));
        }
        let args = options.get("args").map(|node| {
            let is = |args: &Value| args.is_object() || args.is_null();
            self.template_of(node, is, "`args`", "a mapping", "args: { name: value }")
        });
        let message = options.get("message").map(|node| {
            if !declaration.message {
                self.error(
                    node.span,
                    format!("the hook `{name}` takes no message"),
                    "leave `message` out, or declare the hook with `message: true` in shared.yaml",
                );
            }
            self.event(node, options)
        });
        for option in ["with", "without"] {
            if let Some(key) = options.key(option).filter(|_| message.is_none()) {
                self.error(
                    key.span,
                    format!("`{option}` changes a message, but this step has no `message`"),
                    "add `message: MESSAGE`, or pass arguments of the hook in `args`",
                );
            }
        }
        let pattern = options.get("where").map(|node| self.pattern(node, &Subject::Anything));
        Some(Act::Hook(Box::new(Hook {
            name,
            args,
            message,
            pattern,
            within: self.time_option(options, "within"),
            has: self.has(options.get("has"), &Subject::Anything),
        })))
    }

    fn each<'n>(&mut self, key: &Key, value: &'n Node, options: &Options<'n>) -> Option<Act> {
        let name = self.free_name(value)?;
        let list = self.needed(key, "in", "write `in: [a, b]`, or `in: 3` for 0, 1, 2", options)?;
        let values = self.several(list);
        let steps = self.needed(key, "do", "write the steps under `do`", options)?;
        self.fresh.push(BTreeSet::new());
        let names = [name.as_str(), "index"];
        let bodies = if uses_rows(steps) {
            self.unrolled(&name, list, steps, &names)
        } else {
            Some(vec![self.inner(steps, &names)])
        };
        let fresh: Vec<ActorId> = self.fresh.pop().unwrap_or_default().into_iter().collect();
        self.connected.extend(fresh.iter().copied());
        // Each round uses another connection.
        for bound in self.scopes.last_mut().into_iter().flat_map(|scope| scope.names.values_mut()) {
            if matches!(bound.origin, Origin::One(id) if fresh.contains(&id)) {
                bound.origin = Origin::Several;
            }
        }
        Some(Act::Each { name, values, bodies: bodies?, fresh })
    }

    /// Parses one body for each literal row, because the rows name rules.
    fn unrolled(&mut self, name: &str, list: &Node, steps: &Node, names: &[&str]) -> Option<Vec<BlockId>> {
        let Some(rows) = list.list() else {
            self.error(
                list.span,
                "rule ids in rows need a literal list",
                "write the rows out: the rules that a scenario proves must be known before the run",
            );
            return None;
        };
        let mut bodies = Vec::new();
        // Names bound inside become lists once, however many bodies there are.
        let seen: BTreeMap<String, Bound> = self.scopes.last().map(|scope| scope.names.clone()).unwrap_or_default();
        for row in rows {
            if let Some(scope) = self.scopes.last_mut() {
                scope.names.clone_from(&seen);
            }
            self.rows.push((name.to_owned(), row.to_json()));
            bodies.push(self.inner(steps, names));
            self.rows.pop();
            // The same actors are fresh in every row.
            if let Some(fresh) = self.fresh.last() {
                for id in fresh.clone() {
                    self.connected.remove(&id);
                }
            }
        }
        Some(bodies)
    }
}

/// Whether any step inside takes its rules from a row.
fn uses_rows(steps: &Node) -> bool {
    let computed = |item: &Node| item.text().is_some_and(|text| text.contains("${"));
    steps.list().unwrap_or_default().iter().flat_map(|step| entries(Some(step))).any(|(key, value)| {
        match key.name.as_str() {
            "rules" => value.list().unwrap_or_default().iter().any(computed),
            "do" => uses_rows(value),
            _ => false,
        }
    })
}
