//! The material for cases: the messages of a pack, and which roles send them at which steps of its scenarios.

pub mod expected_answer;
pub mod fresh_values;
pub mod prefix;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};

use self::expected_answer::{ExpectedAnswer, InputProperties};
use self::fresh_values::{FreshValue, FreshValues};
use super::case_scenario::{CaseScenario, CaseStep};
use super::expressions::{self, Settings, with_self_as};
use super::step_rule::StepRule;
use crate::protocol::{MessageType, Pack, PackFolder, RuleLevel};
use crate::scenario::compose;
use crate::scenario::functions::NEXT_USER;
use crate::scenario::model::setting_value;
use crate::scenario::parse::cases::split_cases;
use crate::scenario::parse::verbs::StepVerb;
use crate::scenario::template::escape_texts;
use crate::syntax::matcher::{MatchCondition, Matcher, array_index, unescape};
use crate::syntax::source::Sources;
use crate::syntax::yaml;

/// The files of one protocol, as far as cases are made of them.
pub struct Corpus {
    pub pack: Arc<Pack>,
    /// The content of shared.yaml.
    pub shared: Value,
    pub scenarios: Vec<CaseScenario>,
    /// The names of the scenarios, in the same order.
    pub scenario_names: Vec<String>,
    /// The steps of each scene, and of the opening of each role, in the order of shared.yaml.
    pub scenes: Vec<(String, Vec<CaseStep>)>,
    openings: Vec<(String, Vec<CaseStep>)>,
    /// The steps of each reaction of a role, by the role's name.
    reactions: Vec<(String, Vec<CaseStep>)>,
    /// The settings that are known before a run.
    pub settings: Settings,
    answers: Vec<ExpectedAnswer>,
    goes_on: Vec<StepRule>,
    fresh: FreshValues,
    /// A schema of the messages that the hub may not send to an observer client unasked, if there are any.
    forbidden_for_observer: Option<Value>,
    /// Whether the hub under test does not answer the fence.
    fence_unanswered: AtomicBool,
}

/// A step of a scenario at which an actor sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendPosition {
    /// Index into [`Corpus::scenarios`].
    pub scenario: usize,
    /// Index of the step in the scenario.
    pub step: usize,
}

impl Corpus {
    /// Parses again the files that the pack was loaded from, which are known to be correct. `given` are settings of the
    /// target, by name.
    pub fn from_folder(folder: &PackFolder, sources: &Sources, pack: &Arc<Pack>, given: Map<String, Value>) -> Self {
        let parsed = |file| yaml::parse(sources, file).map(|node| node.to_json()).unwrap_or_default();
        let shared = folder.scenarios.get("shared.yaml").map_or(Value::Null, |file| parsed(*file));
        let (mut scenarios, mut scenario_names) = (Vec::new(), Vec::new());
        for (path, file) in &folder.scenarios {
            let Some(name) = path.strip_suffix(".yaml").filter(|name| *name != "shared" && !name.contains('/')) else {
                continue;
            };
            for case in yaml::parse(sources, *file).iter().flat_map(|root| split_cases(root, &mut Vec::new())) {
                if let Value::Object(root) = case.root.to_json()
                    && let Ok(scenario) = CaseScenario::read(root)
                {
                    scenarios.push(scenario);
                    scenario_names.push(format!("{name}{}", case.suffix));
                }
            }
        }
        let within = |key: &str, part: &str| {
            let all = shared.get(key).and_then(Value::as_object).into_iter().flatten();
            all.map(|(name, value)| (name.clone(), steps(value.get(part)))).collect()
        };
        let (scenes, openings) = (within("scenes", "steps"), within("roles", "opening"));
        let reactions = role_reactions(&shared);
        let answers = expected_answer::parse_answers(&shared);
        let goes_on = StepRule::read_all(shared.pointer("/fuzz/goes_on"));
        let declared = shared.get("hub").and_then(Value::as_object).into_iter().flatten();
        let defaults = declared.filter_map(|(name, setting)| Some((name.clone(), setting.get("default")?.clone())));
        let settings = defaults.chain(given).map(|(name, value)| (name, setting_value(&value)));
        let settings = Settings::new(settings.collect());
        let (pack, fence_unanswered) = (Arc::clone(pack), AtomicBool::new(false));
        let (fresh, forbidden_for_observer) = (FreshValues::default(), None);
        let mut corpus = Self {
            pack,
            shared,
            scenarios,
            scenario_names,
            scenes,
            openings,
            reactions,
            settings,
            answers,
            goes_on,
            fresh,
            forbidden_for_observer,
            fence_unanswered,
        };
        corpus.fresh = fresh_values::find_fresh_values(&corpus);
        corpus.forbidden_for_observer = corpus.find_forbidden_for_observer(folder.document.is_none());
        corpus
    }

    /// Returns the members of a message that need a new value each time.
    pub fn fresh_values(&self, message: &MessageType) -> &[FreshValue] {
        self.fresh.get(&message.name).map_or(&[], Vec::as_slice)
    }

    /// Returns a schema of the frames that the hub may not send to an observer client, which has sent only its opening
    /// and the fence; `None` if the document allows any frame.
    pub fn forbidden_for_observer(&self) -> Option<&Value> {
        self.forbidden_for_observer.as_ref()
    }

    /// Returns the names of the messages that may answer what these steps send.
    fn replies_to(&self, steps: &[CaseStep]) -> BTreeSet<&str> {
        let mut replies = BTreeSet::new();
        self.visit_sent_messages(steps, &mut |_| Some(""), &mut |_, name| {
            let message = self.pack.message(name).into_iter();
            replies.extend(message.flat_map(|message| &message.replies).map(String::as_str));
        });
        replies
    }

    /// Returns the names of the messages that may answer the opening of the observer client.
    pub fn replies_to_observer_opening(&self) -> BTreeSet<&str> {
        self.replies_to(self.opening(self.observer_role().unwrap_or_default()))
    }

    /// Returns a schema of the documented messages that the hub may not send unasked, and of text that is not JSON.
    /// Messages that the document does not describe are allowed, because nothing shows which client they are for.
    /// `is_complete` says whether the pack lists all messages of the hub: some messages of a plain document may be
    /// unreadable.
    fn find_forbidden_for_observer(&self, is_complete: bool) -> Option<Value> {
        let is_any = |message: &MessageType| message.matcher.condition_count() == 0;
        let from_hub = || self.pack.messages.iter().filter(|message| message.directions.from_hub);
        if !is_complete && !from_hub().any(is_any) {
            return None;
        }
        let fence = self.fuzz_entry("fence").and_then(Value::as_str).unwrap_or_default();
        let mut replies = self.replies_to_observer_opening();
        replies.extend(self.replies_to(self.scene(fence)));
        let open = self.open_names();
        // A catch-all for other messages is not a message itself.
        let described = from_hub().filter(|message| !(message.abstract_ && is_any(message)));
        let (expected, forbidden): (Vec<&MessageType>, Vec<&MessageType>) = described.partition(|message| {
            message.directions.unasked || open.contains(&message.name) || replies.contains(&*message.name)
        });
        let schemas = |messages: Vec<&MessageType>| -> Vec<Value> {
            messages.into_iter().map(|message| matcher_schema(&message.matcher)).collect()
        };
        // No document describes a text that is not JSON.
        let forbidden: Vec<Value> = schemas(forbidden).into_iter().chain([json!({ "type": "string" })]).collect();
        Some(match expected.is_empty() {
            true => json!({ "anyOf": forbidden }),
            false => json!({ "anyOf": forbidden, "not": { "anyOf": schemas(expected) } }),
        })
    }

    /// Whether every message that the hub sends is JSON, as far as the pack describes them.
    pub fn hub_sends_only_json(&self) -> bool {
        let from_hub = || self.pack.messages.iter().filter(|message| message.directions.from_hub && !message.abstract_);
        let is_text =
            |message: &MessageType| message.matcher.condition_count() == 0 && message.schema.is_valid(&json!("text"));
        self.forbidden_for_observer.is_some() && from_hub().next().is_some() && !from_hub().any(is_text)
    }

    /// Returns the messages that a hub receives, in the order of the pack, without envelopes.
    pub fn messages(&self) -> impl Iterator<Item = &MessageType> {
        self.pack.messages.iter().filter(|message| message.directions.to_hub && !message.abstract_)
    }

    /// Returns the names of the roles that connect to the hub, in the order of the file.
    pub fn roles(&self) -> Vec<&str> {
        let roles = self.shared.get("roles").and_then(Value::as_object);
        let clients = |(_, role): &(&String, &Value)| role.get("side").and_then(Value::as_str) != Some("server");
        roles.into_iter().flatten().filter(clients).map(|(name, _)| name.as_str()).collect()
    }

    /// Returns the roles that send a message in some scenario, scene, opening or reaction; those with an opening first.
    pub fn senders(&self, message: &str) -> Vec<&str> {
        let mut found = BTreeSet::new();
        // A role without an opening may need more than a connection before the hub sends it requests.
        for (role, steps) in self.reactions.iter().filter(|(role, _)| self.can_join(role)) {
            self.visit_sent_messages(steps, &mut |_| Some(role), &mut |who, what| {
                if what == message {
                    found.insert(who.to_owned());
                }
            });
        }
        for role in self.roles() {
            self.visit_sent_messages(self.opening(role), &mut |_| Some(role), &mut |who, what| {
                if what == message {
                    found.insert(who.to_owned());
                }
            });
        }
        for scenario in &self.scenarios {
            self.visit_sent_messages(&scenario.steps, &mut |who| Some(scenario.role_of(who)), &mut |who, what| {
                if what == message {
                    found.insert(who.to_owned());
                }
            });
        }
        let mut roles: Vec<&str> = self.roles().into_iter().filter(|role| found.contains(*role)).collect();
        roles.sort_by_key(|role| self.opening(role).is_empty());
        roles
    }

    /// Returns the top-level steps of scenarios at which a message is sent.
    pub fn send_positions(&self, message: &str) -> Vec<SendPosition> {
        let sends = |step: &CaseStep| step.message(StepVerb::Sends) == Some(message);
        let mut positions = Vec::new();
        for (scenario, CaseScenario { steps, .. }) in self.scenarios.iter().enumerate() {
            let sending = steps.iter().enumerate().filter(|(_, step)| sends(step));
            positions.extend(sending.map(|(step, _)| SendPosition { scenario, step }));
        }
        positions
    }

    pub fn opening(&self, role: &str) -> &[CaseStep] {
        self.openings.iter().find(|(name, _)| name == role).map_or(&[], |(_, steps)| steps)
    }

    fn scene(&self, name: &str) -> &[CaseStep] {
        self.scenes.iter().find(|(known, _)| known == name).map_or(&[], |(_, steps)| steps)
    }

    /// Returns the number of messages that the opening of a role sends.
    pub fn opening_length(&self, role: &str) -> usize {
        let mut count = 0;
        self.visit_sent_messages(self.opening(role), &mut |_| Some(role), &mut |_, _| count += 1);
        count + self.opening(role).iter().filter(|step| step.verb == StepVerb::SendsRaw).count()
    }

    /// Whether the opening of a role connects.
    pub fn can_join(&self, role: &str) -> bool {
        self.opening(role).iter().any(|step| step.verb == StepVerb::Connects)
    }

    /// Returns the example of a message as an actor of a role sends it: with the expressions of `fills`.
    pub fn example(&self, message: &MessageType, role: &str, actor: &str) -> Value {
        let mut example = escape_texts(&message.starting_value());
        let fills =
            [self.shared.get("fills"), self.shared.get("roles").and_then(|r| r.get(role)).and_then(|r| r.get("fills"))];
        for (place, value) in fills.into_iter().flatten().filter_map(Value::as_object).flatten() {
            if let Some(pointer) = compose::filled_member(place, &message.name, &example) {
                compose::put_at_pointer(&mut example, &pointer, with_self_as(value, actor));
            }
        }
        example
    }

    /// Returns the texts under `fills`, including the fills of all roles, with their keys.
    fn all_fills(&self) -> impl Iterator<Item = (&str, &str)> {
        let roles = self.shared.get("roles").and_then(Value::as_object).into_iter().flatten();
        let fills = roles.filter_map(|(_, role)| role.get("fills")).chain(self.shared.get("fills"));
        let members = fills.filter_map(Value::as_object).flatten();
        members.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// Removes members that are filled with an optional setting, since a JSON text cannot leave them out where the target
    /// lacks the setting.
    pub fn without_optional(&self, value: &mut Value) {
        if let Value::Array(items) = value {
            return items.iter_mut().for_each(|item| self.without_optional(item));
        }
        let Value::Object(members) = value else { return };
        let optional = |value: &Value| {
            let expression = expressions::only(value.as_str()?)?;
            self.shared.get("hub")?.get(expression.setting()?)?.get("optional")?.as_bool()
        };
        members.retain(|_, member| optional(member) != Some(true));
        members.values_mut().for_each(|member| self.without_optional(member));
    }

    /// Returns the members of a message by which an actor of a role identifies itself, as JSON pointers and expressions:
    /// the role fills them with a value of the actor.
    pub fn identities(&self, message: &MessageType, role: &str, actor: &str) -> Vec<(String, String)> {
        let fills = self.shared.get("roles").and_then(|roles| roles.get(role)).and_then(|role| role.get("fills"));
        let own = |(name, value): (&String, &Value)| {
            let text = value.as_str()?;
            let is_own = expressions::only(text)?.pointer().is_some_and(|(root, _)| root == "self");
            let (only, pointer) = compose::fill_place(name);
            let is_own = is_own && only.is_none_or(|only| only == message.name);
            is_own.then(|| Some((pointer, with_self_as(value, actor).as_str()?.to_owned())))?
        };
        fills.and_then(Value::as_object).into_iter().flatten().filter_map(own).collect()
    }

    /// Calls `see` with role and message for every message that steps send, scenes and inner steps included.
    fn visit_sent_messages<'a>(
        &'a self,
        steps: &'a [CaseStep],
        role: &mut dyn FnMut(&str) -> Option<&'a str>,
        see: &mut dyn FnMut(&str, &str),
    ) {
        for step in steps {
            match (step.verb, step.argument.as_str(), role(&step.actor)) {
                (StepVerb::Sends, Some(message), Some(who)) => see(who, message),
                (StepVerb::Plays, Some(scene), Some(who)) => {
                    self.visit_sent_messages(self.scene(scene), &mut |_| Some(who), see)
                }
                _ => {}
            }
            self.visit_sent_messages(step.inner(), role, see);
        }
    }
}

impl CaseScenario {
    /// Returns an actor's role; for a group of actors, the first member's role. An undeclared actor has the name of its
    /// role.
    pub fn role_of(&self, actor: &str) -> &str {
        let name = actor.split('[').next().unwrap_or(actor);
        match self.actors.get(name) {
            Some(Value::String(role)) => role,
            Some(Value::Object(crowd)) => crowd.get("role").and_then(Value::as_str).unwrap_or_default(),
            Some(Value::Array(members)) => {
                members.first().and_then(Value::as_str).map_or("", |first| self.role_of(first))
            }
            // Borrows the name from the steps, which outlive `actor`.
            _ => self.actor_in_steps(name).unwrap_or_default(),
        }
    }

    fn actor_in_steps(&self, name: &str) -> Option<&str> {
        self.steps.iter().map(|step| &*step.actor).find(|who| *who == name)
    }

    /// Returns the names of all actors.
    pub fn actor_names(&self) -> BTreeSet<&str> {
        let declared = self.actors.keys().map(String::as_str);
        declared.chain(self.steps.iter().map(|step| &*step.actor)).filter(|name| !name.is_empty()).collect()
    }
}

/// Returns the schema of the values that a matcher matches.
fn matcher_schema(matcher: &Matcher) -> Value {
    let present = |pointer: &str| schema_at(pointer, &json!(true));
    let condition = |condition| match condition {
        MatchCondition::Is(pointer, value) => schema_at(&pointer, &json!({ "const": value })),
        MatchCondition::Present(pointer) => present(pointer),
        MatchCondition::Absent(pointer) => json!({ "not": present(pointer) }),
        MatchCondition::Fits { pointer, optional: false, schema } => schema_at(pointer, schema),
        MatchCondition::Fits { pointer, optional: true, schema } => {
            json!({ "anyOf": [{ "not": present(pointer) }, schema_at(pointer, schema)] })
        }
    };
    let conditions: Vec<Value> = matcher.member_conditions().into_iter().map(condition).collect();
    if conditions.is_empty() { json!(true) } else { json!({ "allOf": conditions }) }
}

/// Returns the schema of the values that have a part at a JSON pointer which fits a schema.
fn schema_at(pointer: &str, schema: &Value) -> Value {
    pointer.split('/').skip(1).map(unescape).collect::<Vec<_>>().into_iter().rev().fold(
        schema.clone(),
        |inner, token| {
            let member = json!({ "type": "object", "required": [token], "properties": { &token: inner } });
            let index = array_index(&token).filter(|index| *index <= usize::from(u16::MAX));
            let Some(index) = index else { return member };
            let mut items = vec![json!(true); index];
            items.push(inner);
            json!({ "anyOf": [member, { "type": "array", "minItems": items.len(), "prefixItems": items }] })
        },
    )
}

/// Returns the steps of each reaction of a role, by the role's name.
fn role_reactions(shared: &Value) -> Vec<(String, Vec<CaseStep>)> {
    let roles = shared.get("roles").and_then(Value::as_object).into_iter().flatten();
    let of_role = |(role, value): (&String, &Value)| {
        let names = listed_names(&[value.get("reacts")]).into_iter();
        let steps = |name: String| Some((role.clone(), steps(shared.get("reactions")?.get(&name)?.get("do"))));
        names.filter_map(steps).collect::<Vec<_>>()
    };
    roles.flat_map(of_role).collect()
}

/// Returns the steps of a list, which are known to be correct.
fn steps(list: Option<&Value>) -> Vec<CaseStep> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(CaseStep::read).collect()
}

fn listed_names(lists: &[Option<&Value>]) -> Vec<String> {
    let names = lists.iter().flatten().filter_map(|list| list.as_array()).flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The settings under `fuzz` in shared.yaml.
impl Corpus {
    fn fuzz_entry(&self, key: &str) -> Option<&Value> {
        self.shared.get("fuzz")?.get(key)
    }

    /// Returns the names of what may differ between hubs: messages that are never unexpected, and the messages and
    /// members (with a slash in front) under `open`.
    pub fn open_names(&self) -> Vec<String> {
        listed_names(&[self.shared.get("ignore"), self.fuzz_entry("open")])
    }

    /// Returns the names of the messages of clients that a hub is free to answer. One that a hub may send at any time is
    /// answered as documented if a client sends it.
    pub fn open_requests(&self) -> Vec<String> {
        listed_names(&[self.fuzz_entry("open")])
    }

    /// Returns the entries `{ after, messages }` under `open` as pairs: a client that has sent the first message may or may
    /// not be sent the second.
    pub fn open_after(&self) -> impl Iterator<Item = (String, String)> {
        let entries = self.fuzz_entry("open").and_then(Value::as_array).into_iter().flatten();
        entries.flat_map(|entry| {
            let after = entry.get("after").and_then(Value::as_str).unwrap_or_default();
            listed_names(&[entry.get("messages")]).into_iter().map(|message| (after.to_owned(), message))
        })
    }

    /// Returns the name of the fence: the scene with a cheap request and its reply. `None` also if the hub under test
    /// does not answer it.
    pub fn fence(&self) -> Option<&str> {
        let is_unanswered = self.fence_unanswered.load(Ordering::Relaxed);
        self.fuzz_entry("fence").and_then(Value::as_str).filter(|_| !is_unanswered)
    }

    /// Sets whether the hub under test answers the fence with a frame of its own.
    pub fn set_fence_answered(&self, is_answered: bool) {
        self.fence_unanswered.store(!is_answered, Ordering::Relaxed);
    }

    /// Returns the fence, with the names that it gives to the request and to the reply.
    pub fn timed_fence(&self) -> Option<(&str, &str, &str)> {
        let fence = self.fence()?;
        let named = |verb: StepVerb| self.scene(fence).iter().find(|step| step.verb == verb)?.name();
        Some((fence, named(StepVerb::Sends)?, named(StepVerb::Expects)?))
    }

    /// Returns the request of the fence, and the name that the scene gives to it.
    pub fn fence_request(&self) -> Option<(&str, &MessageType)> {
        let asks = self.scene(self.fence()?).iter().find(|step| step.verb == StepVerb::Sends)?;
        Some((asks.name()?, self.pack.message(asks.argument.as_str()?)?))
    }

    /// Returns the steps of the fence, if they are one request and its reply.
    pub fn fence_exchange(&self) -> Option<[&CaseStep; 2]> {
        match self.scene(self.fence()?) {
            [asks, answer] if asks.verb == StepVerb::Sends && answer.verb == StepVerb::Expects => Some([asks, answer]),
            _ => None,
        }
    }

    /// Returns the role of the observer client: `fuzz.bystander`, else the first that is greeted, else the first.
    pub fn observer_role(&self) -> Option<&str> {
        let roles = self.roles();
        let greeted = |role: &&str| self.opening(role).iter().any(|step| step.verb == StepVerb::Expects);
        let first = || roles.iter().copied().find(greeted).or(roles.first().copied());
        self.fuzz_entry("bystander").and_then(Value::as_str).or_else(first)
    }

    /// Returns the name of a value that is unique to an observer client: the first that its role makes.
    pub fn observer_mark(&self) -> Option<&str> {
        let given = self.shared.get("roles")?.get(self.observer_role()?)?.get("given")?.as_object()?;
        let unique = |value: &Value| expressions::any(value, &|made| made.calls("unique") || made.calls(NEXT_USER));
        given.iter().find(|(_, value)| unique(value)).map(|(name, _)| name.as_str())
    }

    /// Returns the scene that queries what belongs to a client, and the expression to compare.
    pub fn state_query(&self) -> Option<(&str, &str)> {
        let state = self.fuzz_entry("state")?;
        Some((state.get("scene")?.as_str()?, state.get("is")?.as_str()?))
    }

    /// Returns the rules by which a connection stays usable after an error.
    pub fn usable_after_error_rules(&self) -> &[StepRule] {
        &self.goes_on
    }

    /// Whether the document demands or recommends that a connection stays usable after an error.
    pub fn is_usable_after_error(&self) -> bool {
        self.goes_on.iter().filter_map(|rule| rule.level(&self.pack)).any(|level| level > RuleLevel::May)
    }

    /// Returns the messages by which a hub may refuse input, also where the document demands no refusal.
    pub fn refusals(&self) -> &[Value] {
        self.fuzz_entry("refusals").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Returns the names of the messages that are nothing but refusals.
    pub fn refusal_names(&self) -> Vec<String> {
        let name = |refusal: &Value| {
            let whole = refusal.get("where").is_none();
            refusal.get("message")?.as_str().filter(|_| whole).map(str::to_owned)
        };
        self.refusals().iter().filter_map(name).collect()
    }

    /// Returns the names of the messages that say that the hub does not carry something out, where another hub may.
    pub fn failure_names(&self) -> Vec<String> {
        listed_names(&[self.fuzz_entry("failures")])
    }

    /// Returns, for each entry of `fuzz.answers`, the values that its input must have, by JSON pointer.
    pub fn answered_input_values(&self) -> impl Iterator<Item = BTreeMap<String, Value>> {
        self.answers.iter().map(ExpectedAnswer::literal_values)
    }

    /// Returns the answer that the document demands for this input; `None` where it is silent.
    pub fn expected_answer(&self, input: &InputProperties<'_>) -> Option<&ExpectedAnswer> {
        self.answers.iter().find(|answer| answer.fits(input))
    }
}
