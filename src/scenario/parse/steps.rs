//! Parses steps: the head names the actor and the verb, the other keys are options of the verb.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::actors::{StepActorNames, key_part_span};
use super::names::{BlockScope, NameBinding, NameOrigin};
use super::rules::MatcherSubject;
use super::sends::is_computed;
use super::shapes::ValueShape;
use super::verbs::{self, StepHead, StepVerb};
use super::{ScenarioParser, StepPlace, may_be};
use crate::protocol::{RuleBasis, RuleLevel};
use crate::scenario::model::{
    ActorId, BlockId, ExpectedEvent, HookStep, MessageComposition, MessageName, Need, OrderCheck, RuleUse, Step,
    StepAction, StepActors, duration,
};
use crate::scenario::template::Template;
use crate::syntax::diagnostic::{Diagnostic, suggest, suggest_or_list};
use crate::syntax::fields::{self, choice, entries, flag, integer, wrong_kind};
use crate::syntax::yaml::{NodeKey, NodeKind, SyntaxNode};

/// The keys of a step other than its head.
pub struct StepOptions<'n> {
    verb: StepVerb,
    entries: Vec<(&'n NodeKey, &'n SyntaxNode)>,
}

/// Returns the codes of a step that closes or expects a close or refusal: `4409`, `4000 or drop`.
fn shown_codes(verb: StepVerb, value: &SyntaxNode) -> Option<String> {
    if !matches!(verb, StepVerb::Closes | StepVerb::ExpectsClose | StepVerb::ExpectsRefusal) || value.is_null() {
        return None;
    }
    let shown = |node: &SyntaxNode| node.text().map_or_else(|| node.to_json().to_string(), str::to_owned);
    let codes = match value.list() {
        Some(items) => items.iter().map(shown).collect::<Vec<_>>().join(" or "),
        None => shown(value),
    };
    Some(crate::syntax::matcher::shorten(&codes, 80))
}

impl<'n> StepOptions<'n> {
    pub fn get(&self, name: &str) -> Option<&'n SyntaxNode> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| *node)
    }

    pub fn key(&self, name: &str) -> Option<&'n NodeKey> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(key, _)| *key)
    }

    /// Whether an actor performs the step, unlike `check` or `wait`.
    pub fn acts(&self) -> bool {
        !self.verb.is_word()
    }
}

/// Maximum number of values that `each` and `either` iterate over.
const MAX_VALUES: u64 = 100_000;
/// Maximum number of calls that a hook step makes at once.
const MAX_CALLS: u64 = 1_000;

impl ScenarioParser<'_> {
    pub(super) fn push_block(&mut self, steps: Vec<Step>) -> BlockId {
        self.blocks.push(steps);
        self.blocks.len() - 1
    }

    pub(super) fn parse_block(&mut self, node: &SyntaxNode) -> BlockId {
        let items = fields::list(Some(node), "`steps`", "- anna sends: MESSAGE", &mut self.diagnostics);
        let steps = items.iter().filter_map(|item| self.parse_step(item)).collect();
        self.push_block(steps)
    }

    /// Parses a block with its own `names`, of which the first has this value. The names that its steps bind stay in
    /// scope.
    fn parse_inner_block(&mut self, node: &SyntaxNode, names: &[&str], value: ValueShape) -> BlockId {
        let own = |name: &&str| ((*name).to_owned(), NameBinding::computed());
        self.scopes.push(BlockScope { names: names.iter().map(own).collect(), ..BlockScope::default() });
        if let Some(name) = names.first() {
            self.bind_shape(name, value);
        }
        let block = self.parse_block(node);
        if let Some(scope) = self.scopes.pop() {
            for (name, bound) in scope.names {
                if !names.contains(&name.as_str()) {
                    self.bind_name(&name, bound.at, bound.origin);
                }
            }
        }
        block
    }

    pub(super) fn parse_step(&mut self, node: &SyntaxNode) -> Option<Step> {
        let Some(all) = node.map().filter(|entries| !entries.is_empty()) else {
            let help = match node.text() {
                Some(text) if verbs::parse_head(text).is_some() => format!("a colon is missing: write `- {text}:`"),
                _ => "write `- anna sends: MESSAGE`".to_owned(),
            };
            self.diagnostics.push(wrong_kind(node, "a step", "a mapping that begins with `ACTOR VERB:`", &help));
            return None;
        };
        let Some((position, head)) =
            all.iter().enumerate().find_map(|(i, (key, _))| verbs::parse_head(&key.name).map(|head| (i, head)))
        else {
            self.report_unknown_head(&all[0].0);
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
        let options = StepOptions { verb: head.verb, entries: others.collect() };
        self.check_options(&head, key, &options);
        let who = self.resolve_step_actors(&head, key)?;
        let if_ = options.get("if").and_then(|node| self.parse_bound_name(node, "if"));
        let text = match value.text() {
            Some(value) => format!("{}: {}", key.name, crate::syntax::matcher::shorten(value, 80)),
            None => match shown_codes(head.verb, value) {
                Some(codes) => format!("{}: {codes}", key.name),
                None => key.name.clone(),
            },
        };
        let mut rules = self.parse_rules(options.get("rules"));
        if rules.is_empty() && self.pack.rules.is_empty() && self.place.takes_rules() && head.verb.expects() {
            // Without rules.yaml every expectation is a must, named by its text.
            rules.push(RuleUse { id: text.clone(), level: RuleLevel::Must, basis: RuleBasis::Stated, lowered: false });
        }
        let act = self.parse_action(key, value, &options, &who);
        if head.verb.only_judges() && rules.is_empty() {
            self.check_has_rules(key, &options);
        }
        let check = (!rules.is_empty() && head.verb.takes_rules()).then(|| self.declare_check(rules, key.span));
        let as_ = options.get("as").and_then(|node| {
            let name = self.parse_free_name(node)?;
            let origin = match head.verb {
                StepVerb::Compose | StepVerb::Check | StepVerb::Wait => NameOrigin::Computed,
                _ => NameOrigin::of_actors(&who),
            };
            self.bind_name(&name, Some(node.span), origin);
            self.bind_shape(&name, act.as_ref().map(|act| self.result_shape(act, &who)).unwrap_or_default());
            Some(name)
        });
        Some(Step { span: key.span, text, who, as_, if_, check, act: act?, fences: Vec::new() })
    }

    /// Reports a first key that is not a head.
    fn report_unknown_head(&mut self, key: &NodeKey) {
        let (first, rest) = key.name.split_once(' ').unwrap_or(("", &key.name));
        let roles = entries(self.file.root.get("roles"));
        let actor = !first.is_empty()
            && (self.find_actors(first).is_some() || roles.iter().any(|(role, _)| role.name == first));
        let (wrong, span) = if actor { (rest, key_part_span(key, rest)) } else { (key.name.as_str(), key.span) };
        let help = if verbs::begins_with_quantity(&key.name) {
            "write `exactly 1 of crowd expect: MESSAGE`; `at least` and `at most` work the same way".to_owned()
        } else {
            let lists = "a step begins with `ACTOR VERB`; docs/src/scenario-language.md lists the verbs";
            suggest(if first.is_empty() { &key.name } else { rest }, verbs::all_words(), lists)
        };
        let what = if actor { "is not a verb" } else { "is not a step" };
        self.error(span, format!("`{wrong}` {what}"), help);
    }

    fn check_options(&mut self, head: &StepHead<'_>, key: &NodeKey, options: &StepOptions<'_>) {
        for (option, _) in &options.entries {
            let name = option.name.as_str();
            if matches!(name, "as" | "if") || head.verb.options().contains(&name) {
                continue;
            }
            if self.place == StepPlace::Journey && super::journeys::JOURNEY_STEP_KEYS.contains(&name) {
                continue;
            }
            let verb = key.name.rsplit_once(head.actor).map_or(key.name.as_str(), |(_, verb)| verb).trim();
            let verb = if head.actor.is_empty() { key.name.as_str() } else { verb };
            let help = if verbs::parse_head(name).is_some() {
                "begin a new step with `- `".to_owned()
            } else {
                let known: Vec<&str> = head.verb.options().iter().copied().chain(["as", "if"]).collect();
                suggest_or_list(name, known, "its options are")
            };
            self.error(option.span, format!("`{verb}` has no option `{name}`"), help);
        }
    }

    /// Reports a step that only checks but has no rules, or is in a place that cannot have checks.
    fn check_has_rules(&mut self, key: &NodeKey, options: &StepOptions<'_>) {
        if options.get("rules").is_some() {
            return;
        }
        if !self.place.takes_rules() {
            let what = format!("`{}` is not allowed in {}, which cannot have checks", key.name, self.place.name());
            self.error(key.span, what, "move it to the steps of a scenario and add `rules`");
        } else {
            let what = format!("`{}` without rules proves nothing", key.name);
            self.error(key.span, what, "name the rules it proves: write `rules: [ABC-001]`");
        }
    }

    fn parse_action<'n>(
        &mut self,
        key: &NodeKey,
        value: &'n SyntaxNode,
        options: &StepOptions<'n>,
        who: &StepActors,
    ) -> Option<StepAction> {
        let role = match who {
            StepActors::One(id) => self.actors.get(*id).map(|actor| actor.role.clone()),
            StepActors::Group { members, .. } => {
                members.first().and_then(|id| self.actors.get(*id)).map(|actor| actor.role.clone())
            }
            StepActors::Myself => self.myself.clone(),
            StepActors::NoActor => None,
        };
        let outer = std::mem::replace(&mut self.myself, role);
        let act = self.parse_verb_action(key, value, options, who);
        self.myself = outer;
        act
    }

    fn parse_verb_action<'n>(
        &mut self,
        key: &NodeKey,
        value: &'n SyntaxNode,
        options: &StepOptions<'n>,
        who: &StepActors,
    ) -> Option<StepAction> {
        Some(match options.verb {
            StepVerb::Joins => {
                self.check_empty(value, key);
                self.record_connect(who);
                self.parse_join(key, options)
            }
            StepVerb::Connects | StepVerb::TriesToConnect => {
                self.record_connect(who);
                self.parse_connect(value, options, options.verb == StepVerb::TriesToConnect)
            }
            StepVerb::Accepts => {
                self.check_empty(value, key);
                self.record_connect(who);
                self.parse_accept(key, options)
            }
            StepVerb::Sends => StepAction::Send(Box::new(self.parse_composition(value, options))),
            StepVerb::Compose => StepAction::Compose(Box::new(self.parse_composition(value, options))),
            StepVerb::SendsRaw => self.parse_raw(value),
            StepVerb::Closes => self.parse_close(value, options),
            StepVerb::Drops => StepAction::Drop { reset: self.parse_drop(value) },
            StepVerb::StopsReading => {
                self.check_empty(value, key);
                StepAction::StopReading
            }
            StepVerb::ReadsAgain => {
                self.check_empty(value, key);
                StepAction::ReadAgain
            }
            StepVerb::Expects => self.parse_expect_message(value, options, who),
            StepVerb::ExpectsClose => self.parse_expect_close(value, options),
            StepVerb::ExpectsRefusal => self.parse_expect_refusal(value, options),
            StepVerb::ExpectsFrame => self.parse_expect_control(value, options),
            StepVerb::ExpectsEnd => {
                self.check_empty(value, key);
                self.parse_expect_end(options)
            }
            StepVerb::ExpectsNothing => self.parse_expect_nothing(value, options),
            StepVerb::ExpectsOneOf => self.parse_expect_one_of(value, options, who),
            StepVerb::Plays | StepVerb::Play => self.parse_play(value, options)?,
            StepVerb::Hook => self.parse_hook(value, options)?,
            StepVerb::Wait => self.parse_wait(key, value, options),
            StepVerb::Check => StepAction::Check {
                value: self.parse_checked_value(value),
                test: self.parse_test(options.get("equals"), options.get("fits")),
                says: self.parse_says(options.get("says")),
            },
            StepVerb::Order => self.parse_order(value, options),
            StepVerb::Each => self.parse_each(key, value, options)?,
            StepVerb::Either => self.parse_either(key, value, options)?,
            StepVerb::Retry => self.parse_retry(key, value, options)?,
        })
    }

    fn parse_wait(&mut self, key: &NodeKey, value: &SyntaxNode, options: &StepOptions<'_>) -> StepAction {
        if options.get("because").and_then(SyntaxNode::text).is_none() {
            self.error(
                key.span,
                "`wait` needs a reason",
                "add `because: REASON`, such as what the hub needs the time for",
            );
        }
        StepAction::Wait { time: self.parse_time(value, "`wait`") }
    }

    fn parse_either(&mut self, key: &NodeKey, value: &SyntaxNode, options: &StepOptions<'_>) -> Option<StepAction> {
        let name = self.parse_free_name(value)?;
        let values = self.required_option(key, "in", "write `in: [a, b]`", options)?;
        let values = self.parse_loop_values(values);
        let steps = self.required_option(key, "do", "write the steps under `do`", options)?;
        let body = self.parse_inner_block(steps, &[&name], ValueShape::of_loop(&values));
        self.bind_name(&name, Some(value.span), NameOrigin::Computed);
        Some(StepAction::Either { name, values, body })
    }

    fn parse_retry(&mut self, key: &NodeKey, value: &SyntaxNode, options: &StepOptions<'_>) -> Option<StepAction> {
        let time = self.parse_time(value, "`retry`");
        if time.constant().and_then(Value::as_str).is_some_and(|time| duration(time).is_ok_and(|t| t.is_zero())) {
            self.error(
                value.span,
                "a `retry` of zero time repeats nothing",
                "write how long to repeat the steps, such as `retry: 5s`",
            );
        }
        let steps = self.required_option(key, "do", "write the steps under `do`", options)?;
        if steps.list().is_some_and(<[_]>::is_empty) {
            self.error(steps.span, "`retry` has no steps", "write steps that succeed once the condition is true");
        }
        Some(StepAction::Retry { time, body: self.parse_inner_block(steps, &[], ValueShape::Unknown) })
    }

    fn parse_join(&mut self, key: &NodeKey, options: &StepOptions<'_>) -> StepAction {
        if self.place == StepPlace::Opening {
            self.error(
                key.span,
                "`joins` plays an opening, so an opening cannot contain it",
                "write `connects:` instead",
            );
        }
        let idle = self.own_role().is_some_and(|role| self.blocks.get(role.opening).is_some_and(Vec::is_empty));
        if let Some(rules) = options.key("rules").filter(|_| idle) {
            let span = rules.span;
            self.error(span, "this role has no opening, so `joins` cannot fail", "leave `rules` out");
        }
        StepAction::Join { with: self.parse_role_overrides(options.get("with")) }
    }

    fn parse_accept(&mut self, key: &NodeKey, options: &StepOptions<'_>) -> StepAction {
        if let Some(name) = self.myself.clone()
            && self.roles.get(&name).is_some_and(|role| !role.server)
        {
            let what = format!("`{name}` is a client, but only a server accepts connections");
            self.error(key.span, what, "write `connects:`, or give the role `side: server`");
        }
        let within = self.time_option(options, "within");
        StepAction::Accept { within, optional: flag(options.get("optional"), "`optional`", &mut self.diagnostics) }
    }

    fn parse_drop(&mut self, value: &SyntaxNode) -> bool {
        let value = Some(value).filter(|value| !value.is_null());
        choice(value, "`drops`", &[("reset", true), ("fin", false)], &mut self.diagnostics).unwrap_or(false)
    }

    fn parse_play<'n>(&mut self, value: &'n SyntaxNode, options: &StepOptions<'n>) -> Option<StepAction> {
        let name = fields::text(Some(value), "the name of a scene", &mut self.diagnostics)?;
        let node = self.file.root.get("scenes").and_then(|scenes| scenes.get(name));
        let actors = StepActorNames::from_steps(node.and_then(|scene| scene.get("steps")));
        if let (StepVerb::Play, Some(at)) = (options.verb, actors.without_actor) {
            self.diagnostics.push(
                Diagnostic::error(value.span, format!("the scene `{name}` must be played by an actor"))
                    .also(at, "this step names no actor")
                    .help(format!("write `anna plays: {name}`")),
            );
            return None;
        }
        let (scene, given) = self.parse_scene(name, value.span)?;
        if let Some(rules) = options.key("rules").filter(|_| !self.can_fail(scene)) {
            let what = format!("the scene `{name}` expects nothing, so it cannot fail");
            self.error(rules.span, what, "leave `rules` out");
        }
        let names: Vec<String> = given.iter().map(|(name, _)| name.clone()).collect();
        let with = self.parse_overrides(options.get("with"), &names, &format!("the scene `{name}`"));
        Some(StepAction::Play { scene, given, with })
    }

    /// Whether a step of a block can fail because of the hub.
    fn can_fail(&self, block: BlockId) -> bool {
        self.blocks.get(block).into_iter().flatten().any(|step| match &step.act {
            StepAction::Expect(_)
            | StepAction::ExpectEnd { .. }
            | StepAction::ExpectOneOf { .. }
            | StepAction::Connect(_)
            | StepAction::Accept { .. }
            | StepAction::Join { .. }
            | StepAction::Hook(_) => true,
            StepAction::Each { bodies, .. } => bodies.iter().any(|body| self.can_fail(*body)),
            StepAction::Either { body, .. } | StepAction::Retry { body, .. } => self.can_fail(*body),
            StepAction::Play { scene, .. } => self.can_fail(*scene),
            _ => false,
        })
    }

    fn parse_order<'n>(&mut self, value: &'n SyntaxNode, options: &StepOptions<'n>) -> StepAction {
        let example = "order: [first, second]";
        let slack = self.time_option(options, "slack");
        let items = fields::list(Some(value), "`order`", example, &mut self.diagnostics);
        if items.len() < 2 && (value.is_null() || value.list().is_some()) {
            self.error(value.span, "`order` needs at least two names", format!("write `{example}`"));
        }
        let mut names: Vec<String> = Vec::new();
        for node in items {
            let Some(name) = self.parse_bound_name(node, "order") else { continue };
            if names.contains(&name) {
                self.error(node.span, format!("`{name}` cannot come before itself"), "keep one of the two");
            }
            self.require_wire(&name, node);
            names.push(name);
        }
        if slack.is_none() {
            let origins = |pair: &[String]| (self.name_origin(&pair[0]), self.name_origin(&pair[1]));
            let apart = names.windows(2).map(origins).any(|pair| match pair {
                (NameOrigin::One(a), NameOrigin::One(b)) => a != b,
                pair => pair.0 == NameOrigin::Several || pair.1 == NameOrigin::Several,
            });
            if apart {
                self.error(
                    value.span,
                    "an order across several connections needs `slack`",
                    "write how far arrival times may be out of order, such as `slack: 100ms`",
                );
            }
        }
        StepAction::Order(OrderCheck { names, slack })
    }

    fn name_origin(&self, name: &str) -> NameOrigin {
        self.find_binding(name).map_or(NameOrigin::Unknown, |bound| bound.origin)
    }

    fn required_option<'n>(
        &mut self,
        key: &NodeKey,
        option: &str,
        help: &str,
        options: &StepOptions<'n>,
    ) -> Option<&'n SyntaxNode> {
        let node = options.get(option);
        if node.is_none() {
            self.error(key.span, format!("`{}` has no `{option}`", key.name), help);
        }
        node
    }

    fn check_empty(&mut self, value: &SyntaxNode, key: &NodeKey) {
        if !value.is_null() {
            self.error(
                value.span,
                format!("`{}` takes no value", key.name),
                "align options with the first letter of the step",
            );
        }
    }

    /// Parses an option that is a time.
    pub(super) fn time_option(&mut self, options: &StepOptions<'_>, name: &str) -> Option<Template> {
        options.get(name).map(|node| self.parse_time(node, &format!("`{name}`")))
    }

    fn parse_time(&mut self, node: &SyntaxNode, what: &str) -> Template {
        let template = self.parse_template(node);
        if template.is_constant() {
            fields::time(Some(node), what, &mut self.diagnostics);
        }
        template
    }

    /// Parses the values of an `each` or `either`.
    fn parse_loop_values(&mut self, node: &SyntaxNode) -> Template {
        let template = self.parse_template(node);
        let right = may_be(&template, |value| match value {
            Value::Array(values) => !values.is_empty() || !template.is_constant(),
            Value::Number(n) => n.as_u64().is_some_and(|n| (1..=MAX_VALUES).contains(&n)),
            _ => false,
        });
        if !right {
            let help = "write `in: [a, b]`, `in: 3` or `in: \"${...}\"`";
            let error = match &node.kind {
                NodeKind::List(_) | NodeKind::Null => Diagnostic::error(node.span, "`in` has no values").help(help),
                _ => wrong_kind(node, "`in`", &format!("a list, or a number from 1 to {MAX_VALUES}"), help),
            };
            self.diagnostics.push(error);
        }
        template
    }

    fn parse_hook<'n>(&mut self, value: &'n SyntaxNode, options: &StepOptions<'n>) -> Option<StepAction> {
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
        let times = integer(options.get("times"), "`times`", 1..=MAX_CALLS, &mut self.diagnostics);
        for option in ["where", "within", "rules", "has"] {
            if let Some(key) = options.key(option).filter(|_| options.get("times").is_some()) {
                let what = format!("`{option}` applies to one answer, but `times` gives a list of answers");
                self.error(key.span, what, "bind the list with `as`, and compare it in a `check`");
            }
        }
        let names = options.get("times").map(|_| ("index".to_owned(), NameBinding::computed()));
        self.scopes.push(BlockScope { names: names.into_iter().collect(), ..BlockScope::default() });
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
            self.parse_hook_message(node, options)
        });
        self.scopes.pop();
        for option in ["with", "without"] {
            if let Some(key) = options.key(option).filter(|_| message.is_none()) {
                self.error(
                    key.span,
                    format!("`{option}` changes a message, but this step has no `message`"),
                    "add `message: MESSAGE`, or pass arguments of the hook in `args`",
                );
            }
        }
        let pattern = options.get("where").map(|node| self.parse_pattern(node, &MatcherSubject::Anything));
        Some(StepAction::Hook(Box::new(HookStep {
            name,
            times: times.map(|times| times as u32),
            args,
            message,
            pattern,
            within: self.time_option(options, "within"),
            has: self.parse_has(options.get("has"), &MatcherSubject::Anything),
        })))
    }

    fn parse_each<'n>(
        &mut self,
        key: &NodeKey,
        value: &'n SyntaxNode,
        options: &StepOptions<'n>,
    ) -> Option<StepAction> {
        let name = self.parse_free_name(value)?;
        let list = self.required_option(key, "in", "write `in: [a, b]`, or `in: 3` for 0, 1, 2", options)?;
        let values = self.parse_loop_values(list);
        let steps = self.required_option(key, "do", "write the steps under `do`", options)?;
        self.fresh.push(BTreeSet::new());
        let names = [name.as_str(), "index"];
        let bodies = if self.uses_rows(steps) {
            self.parse_row_bodies(&name, list, steps, &names)
        } else {
            Some(vec![self.parse_inner_block(steps, &names, ValueShape::of_loop(&values))])
        };
        let fresh: Vec<ActorId> = self.fresh.pop().unwrap_or_default().into_iter().collect();
        self.connected.extend(fresh.iter().copied());
        // Each round uses another connection.
        for bound in self.scopes.last_mut().into_iter().flat_map(|scope| scope.names.values_mut()) {
            if matches!(bound.origin, NameOrigin::One(id) if fresh.contains(&id)) {
                bound.origin = NameOrigin::Several;
            }
        }
        Some(StepAction::Each { name, values, bodies: bodies?, fresh })
    }

    /// Whether any step inside takes its rules from a row of this loop or of a loop inside.
    fn uses_rows(&self, steps: &SyntaxNode) -> bool {
        let unknown = |rule: &SyntaxNode| {
            is_computed(rule) && self.row_text(rule.text().unwrap_or_default(), rule.span).is_none()
        };
        let mut options = steps.list().unwrap_or_default().iter().flat_map(|step| entries(Some(step)));
        options.any(|(key, value)| match key.name.as_str() {
            "rules" => value.list().unwrap_or_default().iter().any(unknown),
            "do" => self.uses_rows(value),
            _ => false,
        })
    }

    /// Parses one body for each literal row, because the rows name rules.
    fn parse_row_bodies(
        &mut self,
        name: &str,
        list: &SyntaxNode,
        steps: &SyntaxNode,
        names: &[&str],
    ) -> Option<Vec<BlockId>> {
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
        let seen: BTreeMap<String, NameBinding> =
            self.scopes.last().map(|scope| scope.names.clone()).unwrap_or_default();
        for row in rows {
            if let Some(scope) = self.scopes.last_mut() {
                scope.names.clone_from(&seen);
            }
            self.rows.push((name.to_owned(), row.to_json()));
            bodies.push(self.parse_inner_block(steps, names, ValueShape::of_value(row.to_json())));
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

impl ScenarioParser<'_> {
    /// Returns what is known about the result of a step.
    fn result_shape(&self, act: &StepAction, who: &StepActors) -> ValueShape {
        let composed = |compose: &MessageComposition| match &compose.message {
            MessageName::Named(name) if compose.breaks.is_none() => {
                ValueShape::Message { name: name.clone(), received: false }
            }
            _ => ValueShape::Unknown,
        };
        let shape = match act {
            StepAction::Send(compose) => composed(compose),
            StepAction::Compose(compose) => return composed(compose),
            StepAction::Hook(hook) => {
                let declared = self.file.shared.hooks.get(&hook.name);
                let returns = declared.map(|declared| declared.returns.as_slice()).unwrap_or_default();
                let members = returns.iter().map(|name| (name.clone(), ValueShape::Unknown)).collect();
                let of = format!("the answer of the hook `{}`", hook.name);
                let answer = if returns.is_empty() { ValueShape::Unknown } else { ValueShape::Result { of, members } };
                return if hook.times.is_some() { ValueShape::List(Box::new(answer)) } else { answer };
            }
            StepAction::Play { scene, .. } => self.scene_results.get(scene).cloned().unwrap_or_default(),
            StepAction::Expect(expect) => match &expect.want {
                ExpectedEvent::Message { message: MessageName::Named(name), .. } => {
                    let shape = ValueShape::Message { name: name.clone(), received: true };
                    if expect.count.is_some() { ValueShape::List(Box::new(shape)) } else { shape }
                }
                _ => return ValueShape::Unknown,
            },
            _ => return ValueShape::Unknown,
        };
        match who {
            StepActors::One(_) | StepActors::Myself => shape,
            // A group is empty, or has one list for each of its members.
            StepActors::Group { .. } if !matches!(shape, ValueShape::List(_)) => ValueShape::List(Box::new(shape)),
            StepActors::NoActor if matches!(act, StepAction::Play { .. }) => shape,
            StepActors::Group { .. } | StepActors::NoActor => ValueShape::Unknown,
        }
    }
}
