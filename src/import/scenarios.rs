//! Generates roles and scenarios for a plain document: a role for each address, which only connects, and scenarios that
//! send each message to the hub, one for each example of the document. If an operation has a reply, the scenario
//! expects it with the correlation id of the request, which proves the rule of the operation. Apart from that, the
//! schemas check every frame. If no operation has a reply, one scenario requires that there is a frame to check.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::connection::{connect_step, to_identifier};
use super::discriminator::MessageCandidate;
use super::document::{DocumentMessage, DocumentOutline, unique_name};
use super::references::{DocumentLibrary, DocumentRef};
use super::reply_rules::{ReplyRule, list_alternatives};
use crate::scenario::compose;
use crate::scenario::parse::names::is_identifier;
use crate::scenario::template::escape_texts;
use crate::scenario::writer::write_scenario;
use crate::syntax::matcher::{member_pointer, unescape};
use crate::syntax::source::Span;

/// The most roles, and the most scenarios, that are generated.
const MAX_ROLES: usize = 32;
const MAX_SCENARIOS: usize = 200;
/// The most examples of one message that are sent.
const MAX_EXAMPLES: usize = 5;
/// The most connections of the scenario that requires any frame.
const MAX_SENDERS: usize = 8;
/// How long a scenario receives frames: after a message that it sends, and if it sends none.
const LISTEN_TIME: &str = "300ms";
const LISTEN_ONLY_TIME: &str = "2s";

/// A sample for testing whether a schema allows a UUID as the correlation id.
const SOME_UUID: &str = "b2b1c9a0-6f0e-4c7e-9d55-0a4f7d1c2e3b";

/// A client of one address.
#[derive(Clone)]
pub struct ClientRole {
    pub name: String,
    connects: Value,
    /// Indices of the messages that the client sends.
    pub sends: Vec<usize>,
    /// Indices of the messages that the hub may send to the client, in ascending order; empty if the document lists none.
    pub receives: Vec<usize>,
    address: String,
    /// Identities of the client's channels.
    channels: Vec<(String, String)>,
}

/// The source of the scenarios: the document's messages, roles and replies.
pub struct ScenarioGenerator<'a> {
    outline: &'a DocumentOutline<'a>,
    candidates: &'a [MessageCandidate],
    rules: &'a [ReplyRule],
    /// The matcher of every frame of the hub; `None` if the document lists frames of all kinds.
    frames: Option<&'a Value>,
    pub roles: Vec<ClientRole>,
    pub settings: Map<String, Value>,
}

/// The clients of a document, and the settings that they need to connect.
#[derive(Clone)]
pub struct DocumentClients {
    pub roles: Vec<ClientRole>,
    settings: Map<String, Value>,
}

impl DocumentClients {
    /// Returns a client for each address of the channels.
    pub fn of_document(library: &DocumentLibrary, outline: &DocumentOutline<'_>) -> Self {
        let mut settings = Map::new();
        let mut roles: Vec<ClientRole> = Vec::new();
        for channel in &outline.channels {
            let connects = connect_step(library, channel, &mut settings);
            let index = match roles.iter().position(|role| role.connects == connects) {
                Some(index) => index,
                None if roles.len() < MAX_ROLES => {
                    let mut name = format!("on_{}", to_identifier(&channel.name));
                    if roles.iter().any(|other| other.name == name) {
                        name = format!("{name}_{}", roles.len());
                    }
                    let (sends, receives, channels) = (Vec::new(), Vec::new(), Vec::new());
                    roles.push(ClientRole {
                        name,
                        connects,
                        sends,
                        receives,
                        address: channel.address.clone(),
                        channels,
                    });
                    roles.len() - 1
                }
                None => continue,
            };
            roles[index].sends.extend(&channel.to_hub);
            roles[index].receives.extend(&channel.from_hub);
            roles[index].channels.push(channel.place.identity());
        }
        // The address of such a channel becomes known at run time, so its messages may come anywhere.
        let nowhere = outline.channels.iter().filter(|channel| channel.address.is_empty());
        let anywhere: Vec<usize> = nowhere.flat_map(|channel| channel.from_hub.iter().copied()).collect();
        for role in &mut roles {
            if !role.receives.is_empty() {
                role.receives.extend(&anywhere);
            }
            for messages in [&mut role.sends, &mut role.receives] {
                messages.sort_unstable();
                messages.dedup();
            }
        }
        if let [role] = roles.as_mut_slice() {
            "client".clone_into(&mut role.name);
        }
        Self { roles, settings }
    }

    /// Returns the only roles that receive a message; empty for all.
    pub fn roles_receiving(&self, message: usize) -> Vec<String> {
        let receives = |role: &&ClientRole| role.receives.is_empty() || role.receives.contains(&message);
        let names: Vec<String> = self.roles.iter().filter(receives).map(|role| role.name.clone()).collect();
        let all = names.len() == self.roles.len() || !self.roles.iter().any(|role| role.receives.contains(&message));
        if all { Vec::new() } else { names }
    }
}

impl<'a> ScenarioGenerator<'a> {
    pub fn new(
        clients: &DocumentClients,
        outline: &'a DocumentOutline<'a>,
        candidates: &'a [MessageCandidate],
        rules: &'a [ReplyRule],
        frames: Option<&'a Value>,
    ) -> Self {
        let DocumentClients { mut roles, settings } = clients.clone();
        let kept = |index: &usize| candidates.iter().any(|one| one.message == *index && one.to_hub);
        roles.iter_mut().for_each(|role| role.sends.retain(kept));
        Self { outline, candidates, rules, frames, roles, settings }
    }

    /// Returns the files of the scenarios by path, each with the place in the document that it is made from.
    pub fn scenario_files(&self) -> BTreeMap<String, (String, Span)> {
        let mut files = BTreeMap::new();
        let channels = self.outline.channels.first().map_or(self.outline.span, |channel| channel.place.node.span);
        files.insert("shared.yaml".to_owned(), (write_scenario(&self.shared_file()), channels));
        let mut add = |name: &str, root: Map<String, Value>, origin: Span| {
            let free = unique_name(name, '-', |name| files.contains_key(&format!("{name}.yaml")));
            if files.len() <= MAX_SCENARIOS {
                files.insert(format!("{free}.yaml"), (write_scenario(&root), origin));
            }
        };
        for role in &self.roles {
            if role.sends.is_empty() {
                let title = format!(
                    "A client that connects{} receives only what the document lists",
                    self.address_suffix(role)
                );
                add(&format!("{}-hears", role.name), titled_scenario(title, self.listen_steps(role)), channels);
            }
            for &index in &role.sends {
                let message = &self.outline.messages[index].name;
                let name = if self.roles.len() > 1 { format!("{}-{message}", role.name) } else { message.clone() };
                for number in 0..self.payload_count(index) {
                    add(
                        &name,
                        titled_scenario(
                            self.scenario_title(role, index, number),
                            self.exchange_steps(role, index, number),
                        ),
                        self.outline.messages[index].span,
                    );
                }
            }
        }
        if self.rules.is_empty() {
            add("something-arrives", self.any_frame_scenario(), channels);
        }
        files
    }

    /// Returns shared.yaml: settings, roles, and the check of every frame.
    pub fn shared_file(&self) -> Map<String, Value> {
        let mut shared = Map::new();
        if !self.settings.is_empty() {
            shared.insert("hub".to_owned(), Value::Object(self.settings.clone()));
        }
        let roles = self.roles.iter().map(|role| (role.name.clone(), json!({ "opening": [role.connects] })));
        shared.insert("roles".to_owned(), Value::Object(roles.collect()));
        if let Some(frames) = self.frames {
            let every = json!([{ "every": "frame", "has": { super::LISTED_RULE: frames } }]);
            shared.insert("always".to_owned(), every);
        }
        shared
    }

    fn address_suffix(&self, role: &ClientRole) -> String {
        if self.roles.len() > 1 && !role.address.is_empty() { format!(" at {}", role.address) } else { String::new() }
    }

    /// Returns the title of the scenario that sends one payload of a message.
    pub fn scenario_title(&self, role: &ClientRole, index: usize, number: usize) -> String {
        let message = &self.outline.messages[index].name;
        let of = if self.payload_count(index) > 1 { format!(", example {}", number + 1) } else { String::new() };
        let what = match self.answers_to(index).as_slice() {
            [] => "only what the document lists".to_owned(),
            answers => list_alternatives(self.outline, answers),
        };
        format!("A client that sends {message}{}{of} receives {what}", self.address_suffix(role))
    }

    fn candidate(&self, index: usize) -> Option<&MessageCandidate> {
        self.candidates.iter().find(|one| one.message == index)
    }

    /// Returns the number of payloads to send of a message: the document's examples, or one generated payload.
    pub fn payload_count(&self, index: usize) -> usize {
        self.candidate(index).map_or(1, |one| one.documented.len().clamp(1, MAX_EXAMPLES))
    }

    fn rules_of(&self, index: usize) -> impl Iterator<Item = &ReplyRule> {
        self.rules.iter().filter(move |rule| rule.asked.contains(&index))
    }

    /// Returns the messages that may answer a message, over all operations that it belongs to.
    fn answers_to(&self, index: usize) -> Vec<usize> {
        let mut answers: Vec<usize> = Vec::new();
        for &answer in self.rules_of(index).flat_map(|rule| &rule.answers) {
            if !answers.contains(&answer) {
                answers.push(answer);
            }
        }
        answers
    }

    /// Returns the client that receives the reply: the one on the reply's channel, or else the one that sends the
    /// request.
    fn receiver<'r>(&'r self, rule: &ReplyRule, asking: &'r ClientRole) -> &'r ClientRole {
        let Some(id) = rule.channel.as_ref().filter(|id| !asking.channels.contains(id)) else { return asking };
        self.roles.iter().find(|role| role.channels.contains(id)).unwrap_or(asking)
    }

    /// Returns the client of a channel.
    pub fn role_of_channel(&self, channel: &DocumentRef<'_>) -> Option<&ClientRole> {
        let id = channel.identity();
        self.roles.iter().find(|role| role.channels.contains(&id))
    }

    /// Returns the steps of a client that only receives.
    pub fn listen_steps(&self, role: &ClientRole) -> Vec<Value> {
        vec![json!({ format!("{} joins", role.name): null }), listen_step(role, LISTEN_ONLY_TIME)]
    }

    /// Returns the steps that send one payload of a message and receive the frames that follow.
    pub fn exchange_steps(&self, role: &ClientRole, index: usize, number: usize) -> Vec<Value> {
        let message = &self.outline.messages[index];
        let who = &role.name;
        let mut steps = vec![json!({ format!("{who} joins"): null })];
        let receivers: Vec<(&ClientRole, &ReplyRule)> =
            self.rules_of(index).map(|rule| (self.receiver(rule, role), rule)).collect();
        let mut joined = vec![who];
        for (receiver, _) in &receivers {
            if !joined.contains(&&receiver.name) {
                steps.push(json!({ format!("{} joins", receiver.name): null }));
                joined.push(&receiver.name);
            }
        }
        let SendOptions { mut sends, correlated } = self.send_options(message, index, number);
        if !receivers.is_empty() {
            sends.insert("as".to_owned(), json!("request"));
        }
        let verb = if sends.contains_key("text") { "sends raw" } else { "sends" };
        let mut step = Map::new();
        match sends.remove("text") {
            Some(text) => step.insert(format!("{who} {verb}"), json!({ "text": text })),
            None => step.insert(format!("{who} {verb}"), json!(message.name)),
        };
        step.extend(sends);
        steps.push(Value::Object(step));
        // One step for each connection on which the reply may come; a single operation has only one.
        for name in &joined {
            let here: Vec<&ReplyRule> =
                receivers.iter().filter(|(receiver, _)| receiver.name == **name).map(|(_, rule)| *rule).collect();
            steps.extend(self.expect_step(name, &here, correlated.as_deref()));
        }
        steps.push(listen_step(role, LISTEN_TIME));
        steps
    }

    /// Returns the step that expects a reply under the given rules, by its correlation id or as the next message of its
    /// kind.
    fn expect_step(&self, who: &str, rules: &[&ReplyRule], correlated: Option<&str>) -> Option<Value> {
        let mut alternatives: Vec<(usize, Value)> = Vec::new();
        for &answer in rules.iter().flat_map(|rule| &rule.answers) {
            if alternatives.iter().any(|(known, _)| *known == answer) {
                continue;
            }
            let message = &self.outline.messages[answer];
            let mut form = Map::from_iter([("message".to_owned(), json!(message.name))]);
            if let (Some(request), Some(pointer)) = (correlated, &message.correlation) {
                let equal = json!({ "const": format!("${{{}}}", path_expression("request", request)) });
                form.insert("where".to_owned(), json!({ pointer.as_str(): equal }));
            }
            alternatives.push((answer, Value::Object(form)));
        }
        let ids: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
        let mut step = Map::new();
        match alternatives.as_mut_slice() {
            [] => return None,
            [(_, form)] => {
                step.insert(format!("{who} expects"), form["message"].take());
                if let Some(condition) = form.get_mut("where") {
                    step.insert("where".to_owned(), condition.take());
                }
            }
            forms => {
                let forms: Value = forms.iter_mut().map(|(_, form)| form.take()).collect();
                step.insert(format!("{who} expects one of"), forms);
            }
        }
        step.insert("after".to_owned(), json!("request"));
        step.insert("rules".to_owned(), json!(ids));
        Some(Value::Object(step))
    }

    /// Returns the options for sending a message: they change its example to the payload of this number, with a
    /// correlation id if the reply repeats it.
    fn send_options(&self, message: &DocumentMessage<'_>, index: usize, number: usize) -> SendOptions {
        let mut sends = Map::new();
        let Some(candidate) = self.candidate(index) else { return SendOptions { sends, correlated: None } };
        let Some((template, _)) = &candidate.example else { return SendOptions { sends, correlated: None } };
        let example = candidate.documented.get(number).unwrap_or(template);
        let mut with = Map::new();
        if let (Value::Object(from), Value::Object(to)) = (template, example) {
            let changed = to.iter().filter(|(name, value)| from.get(*name) != Some(*value));
            with.extend(changed.map(|(name, value)| (member_pointer(name), escape_texts(value))));
            let gone: Vec<String> =
                from.keys().filter(|name| !to.contains_key(*name)).map(|name| member_pointer(name)).collect();
            if !gone.is_empty() {
                sends.insert("without".to_owned(), json!(gone));
            }
        } else if template != example {
            sends.insert("text".to_owned(), escape_texts(&json!(example.to_string())));
            return SendOptions { sends, correlated: None };
        }
        let answered = self.answers_to(index).iter().any(|answer| self.outline.messages[*answer].correlation.is_some());
        let correlated = message.correlation.clone().filter(|_| answered).and_then(|pointer| {
            let valid = |id: Value| {
                let mut probe = example.clone();
                compose::put_at_pointer(&mut probe, &pointer, id);
                candidate.allows(&probe)
            };
            // A fresh UUID if the schema allows it; otherwise the example's id, or a number.
            if valid(json!(SOME_UUID)) {
                with.insert(pointer.clone(), json!("${uuid()}"));
            } else if example.pointer(&pointer).is_none() {
                if !valid(json!(1)) {
                    return None;
                }
                with.insert(pointer.clone(), json!(1));
            }
            Some(pointer)
        });
        if !with.is_empty() {
            sends.insert("with".to_owned(), Value::Object(with));
        }
        SendOptions { sends, correlated }
    }

    /// Returns the scenario of a document without replies: if no frame comes, nothing was checked. Each message has its
    /// own connection, so that a message that ends its connection does not hide the others.
    pub fn any_frame_scenario(&self) -> Map<String, Value> {
        let mut actors = Map::new();
        let mut steps = Vec::new();
        let sent = self.roles.iter().flat_map(|role| role.sends.iter().map(move |index| (role, Some(*index))));
        let quiet = self.roles.iter().filter(|role| role.sends.is_empty()).map(|role| (role, None));
        for (role, index) in quiet.chain(sent).take(MAX_SENDERS) {
            let name = format!("client_{}", actors.len() + 1);
            steps.push(json!({ format!("{name} joins"): null }));
            if let Some(index) = index {
                steps.push(json!({ format!("{name} sends"): self.outline.messages[index].name }));
            }
            actors.insert(name, json!(role.name));
        }
        let all: Vec<String> = actors.keys().cloned().collect();
        actors.insert("clients".to_owned(), json!(all));
        if !all.is_empty() {
            let mut step = Map::new();
            step.insert("at least 1 of clients expect".to_owned(), json!("any"));
            step.insert("for".to_owned(), json!(LISTEN_TIME));
            steps.push(Value::Object(step));
        }
        let mut root = titled_scenario("The hub sends a message that can be checked".to_owned(), steps);
        root.shift_insert(1, "actors".to_owned(), Value::Object(actors));
        root
    }
}

/// The options of a step that sends a message, raw if there is a `text`.
struct SendOptions {
    sends: Map<String, Value>,
    /// The JSON pointer of the sent correlation id.
    correlated: Option<String>,
}

fn listen_step(role: &ClientRole, time: &str) -> Value {
    json!({ format!("{} expects", role.name): "any", "count": { "min": 0 }, "for": time })
}

/// Returns a scenario of these steps.
pub fn titled_scenario(title: String, steps: Vec<Value>) -> Map<String, Value> {
    Map::from_iter([("title".to_owned(), json!(title)), ("steps".to_owned(), json!(steps))])
}

/// Returns the expression for the value at a JSON pointer, inside the value to which `name` is bound.
pub fn path_expression(name: &str, pointer: &str) -> String {
    let mut text = name.to_owned();
    for token in pointer.split('/').skip(1).map(unescape) {
        match token.parse::<usize>() {
            Ok(number) => text.push_str(&format!("[{number}]")),
            Err(_) if is_identifier(&token) => text.push_str(&format!(".{token}")),
            Err(_) => text.push_str(&format!("['{}']", token.replace('\\', "\\\\").replace('\'', "\\'"))),
        }
    }
    text
}
