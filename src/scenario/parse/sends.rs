//! Parses what actors send: messages, raw frames, closes, upgrade requests.

use serde_json::Value;

use super::rules::member_paths;
use super::steps::StepOptions;
use super::{ScenarioParser, StepPlace, may_be};
use crate::protocol::SchemaViolation;
use crate::scenario::compose;
use crate::scenario::model::{ConnectStep, MessageComposition, MessageName, StepAction};
use crate::scenario::template::Template;
use crate::syntax::diagnostic::suggest;
use crate::syntax::fields::{entries, flag, integer, list, mapping, table, text, text_or_blank, wrong_kind};
use crate::syntax::matcher::{escape, is_pointer};
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, SyntaxNode};

/// Maximum number of frames that a message is split into.
const MAX_FRAGMENTS: u64 = 10_000;

/// The sender of a message. The document must list the message in that direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MessageSender {
    Client,
    Server,
    /// The sender is not known here, or the message is an event that a hook injects.
    Unknown,
}

impl ScenarioParser<'_> {
    fn message_sender(&self) -> MessageSender {
        match self.own_role() {
            None => MessageSender::Unknown,
            Some(role) if role.server && !self.pack.judges_clients => MessageSender::Server,
            Some(_) => MessageSender::Client,
        }
    }

    pub(super) fn parse_composition<'n>(
        &mut self,
        value: &'n SyntaxNode,
        options: &StepOptions<'n>,
    ) -> MessageComposition {
        let message = self.parse_message_name(value, None);
        let breaks = options.get("breaks").map(|node| {
            text(Some(node), "the reason under `breaks`", &mut self.diagnostics).unwrap_or_default().to_owned()
        });
        let fragments = integer(options.get("fragments"), "`fragments`", 1..=MAX_FRAGMENTS, &mut self.diagnostics);
        let compose = MessageComposition {
            message,
            with: self.parse_with(options.get("with")),
            without: self.parse_without(options.get("without")),
            fragments: fragments.map_or(1, |number| number as usize),
            breaks,
        };
        // A composed message is sent raw later: by a client, unless the protocol has servers.
        let servers = !self.pack.judges_clients && self.roles.values().any(|role| role.server);
        let sender = if options.acts() || servers { self.message_sender() } else { MessageSender::Client };
        self.check_composed(&compose, value, options, sender);
        compose
    }

    /// Parses the message of a hook.
    pub(super) fn parse_hook_message<'n>(
        &mut self,
        name: &'n SyntaxNode,
        options: &StepOptions<'n>,
    ) -> MessageComposition {
        let compose = MessageComposition {
            message: self.parse_message_name(name, None),
            with: self.parse_with(options.get("with")),
            without: self.parse_without(options.get("without")),
            fragments: 1,
            breaks: None,
        };
        self.check_composed(&compose, name, options, MessageSender::Unknown);
        compose
    }

    fn parse_with(&mut self, node: Option<&SyntaxNode>) -> Option<Template> {
        let is = |value: &Value| value.is_object() || value.is_null();
        Some(self.template_of(node?, is, "`with`", "a mapping", "with: { member: value }"))
    }

    fn parse_without(&mut self, node: Option<&SyntaxNode>) -> Vec<String> {
        let mut pointers = Vec::new();
        for node in list(node, "`without`", "without: [/member]", &mut self.diagnostics) {
            match node.text() {
                Some(pointer) if pointer.contains("${") => {
                    let help = "name the member itself; `cases` or several steps leave out one member after the other";
                    self.error(node.span, "`without` evaluates no expressions", help);
                }
                Some(pointer) if pointer.starts_with('/') => pointers.push(pointer.to_owned()),
                Some("") => {
                    let help = "write `without: [/member]`; `with: { \"\": VALUE }` replaces the whole message";
                    self.error(node.span, "the whole message cannot be left out", help);
                }
                other => {
                    let name = other.unwrap_or("member");
                    self.error(node.span, "`without` takes JSON pointers", format!("write `without: [/{name}]`"));
                }
            }
        }
        pointers
    }

    /// Checks a message as far as it is known before the run.
    fn check_composed(
        &mut self,
        compose: &MessageComposition,
        name_node: &SyntaxNode,
        options: &StepOptions<'_>,
        sender: MessageSender,
    ) {
        let MessageName::Named(name) = &compose.message else { return };
        let pack = self.pack;
        let Some(message) = pack.message(name) else { return };
        let wrong_way = match sender {
            MessageSender::Client => !message.directions.to_hub,
            MessageSender::Server => !message.directions.from_hub,
            MessageSender::Unknown => false,
        };
        let on_purpose = "add `breaks: REASON` if that is intended";
        if compose.breaks.is_none() && wrong_way {
            let who = if sender == MessageSender::Server { "a client" } else { "a hub" };
            self.error(name_node.span, format!("only {who} sends `{name}`"), on_purpose);
        }
        let mut example = message.starting_value();
        if let Some(with) = options.get("with") {
            let misplaced = compose::misplaced_overrides(&example, &with.to_json());
            for one in &misplaced {
                let (what, help) = one.describe();
                let keys = changed_values(with, "");
                let is_at = |pointer: &str| {
                    pointer.strip_prefix(&one.place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                let key = keys.iter().find(|(pointer, ..)| is_at(pointer));
                self.error(key.map_or(with.span, |(_, key, _)| key.span), what, help);
            }
            if !misplaced.is_empty() {
                return;
            }
            if compose.breaks.is_none() {
                for (path, span) in member_paths(with) {
                    self.check_sent_place(name, &path, span);
                }
            }
        }
        // Values with expressions are checked when they are sent.
        let Some(overrides) = compose.with.as_ref().map_or(Some(Value::Null), |with| with.constant().cloned()) else {
            return;
        };
        compose::merge_overrides(&mut example, &overrides);
        compose::remove_members(&mut example, &compose.without);
        let broken = message.schema.violations(&example).into_iter().find(|v| !v.should);
        match (&compose.breaks, broken) {
            (None, Some(violation)) => {
                let at = offending_entry(&violation, options).unwrap_or(name_node.span);
                let SchemaViolation { expected, found, .. } = &violation;
                let place = violation.describe_place();
                let what = format!("this `{name}` breaks its schema at {place}: expected {expected}, found {found}");
                self.error(at, what, on_purpose);
            }
            (Some(_), None) if sender != MessageSender::Unknown && !wrong_way => {
                let at = options.key("breaks").map_or(name_node.span, |key| key.span);
                self.error(
                    at,
                    format!("this `{name}` is valid, so `breaks` is wrong"),
                    "remove `breaks`, or make the message invalid",
                );
            }
            _ => {}
        }
    }

    pub(super) fn parse_raw(&mut self, value: &SyntaxNode) -> StepAction {
        let template = self.parse_template(value);
        let example = "write `sends raw: { text: '{' }`";
        match (&template, value.map()) {
            (Template::Expression(_), _) => {}
            (_, Some([(kind, content)])) => self.check_raw_content(kind, content),
            (_, Some(_)) => {
                self.error(value.span, "`sends raw` takes exactly one of text, binary, frames and bytes", example);
            }
            (_, None) => self.diagnostics.push(wrong_kind(value, "`sends raw`", "a mapping", example)),
        }
        StepAction::SendRaw(template)
    }

    fn check_raw_content(&mut self, kind: &NodeKey, content: &SyntaxNode) {
        match kind.name.as_str() {
            "text" => drop(text_or_blank(Some(content), "`text`", &mut self.diagnostics)),
            "binary" | "bytes" => self.check_hexadecimal(content),
            "frames" if is_computed(content) => {}
            "frames" => {
                let example = "frames: [ { opcode: ping } ]";
                if content.is_null() || content.list().is_some_and(<[_]>::is_empty) {
                    self.error(content.span, "the list of frames is empty", format!("write `{example}`"));
                }
                for frame in list(Some(content), "`frames`", example, &mut self.diagnostics) {
                    self.check_frame(frame);
                }
            }
            _ => {
                let help = suggest(
                    &kind.name,
                    ["text", "binary", "frames", "bytes"],
                    "it takes text, binary, frames or bytes",
                );
                self.error(kind.span, format!("`sends raw` has no key `{}`", kind.name), help);
            }
        }
    }

    fn check_frame(&mut self, frame: &SyntaxNode) {
        if is_computed(frame) {
            return;
        }
        let known = ["opcode", "fin", "rsv", "mask", "data", "hex"];
        let members = table(frame, &known, "a frame", &mut self.diagnostics);
        const OPCODES: [&str; 6] = ["text", "binary", "continuation", "close", "ping", "pong"];
        let opcodes = format!("{}, or a number from 0 to 15", OPCODES.join(", "));
        match members.required("opcode", &format!("write {opcodes}"), &mut self.diagnostics) {
            Some(node) if node.integer().is_some_and(|n| n <= 15) || is_computed(node) => {}
            Some(node) if !node.text().is_some_and(|name| OPCODES.contains(&name)) => {
                let name = node.text().unwrap_or_default();
                let help = suggest(name, OPCODES, &format!("write {opcodes}"));
                self.error(node.span, "this is not an opcode", help);
            }
            _ => {}
        }
        let constant = |name: &str| frame.get(name).filter(|node| !is_computed(node));
        for name in ["fin", "mask"] {
            flag(constant(name), &format!("`{name}`"), &mut self.diagnostics);
        }
        integer(constant("rsv"), "`rsv`", 0..=7, &mut self.diagnostics);
        match (frame.get("data"), frame.get("hex")) {
            (Some(_), Some(hex)) => self.error(hex.span, "`data` or `hex`, not both", "`data` is text, `hex` is bytes"),
            (Some(data), None) => drop(text_or_blank(Some(data), "`data`", &mut self.diagnostics)),
            (None, Some(hex)) => self.check_hexadecimal(hex),
            _ => {}
        }
    }

    fn check_hexadecimal(&mut self, node: &SyntaxNode) {
        let right = node.text().is_some_and(|text| {
            let digits = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
            text.contains("${") || digits.clone().all(|byte| byte.is_ascii_hexdigit()) && digits.count() % 2 == 0
        });
        if !right {
            self.error(
                node.span,
                "these are not hexadecimal bytes",
                "write two digits for each byte, in quotes, such as \"00 ff\"",
            );
        }
    }

    pub(super) fn parse_close<'n>(&mut self, value: &'n SyntaxNode, options: &StepOptions<'n>) -> StepAction {
        let code = self.parse_template(value);
        if !may_be(&code, |code| code.as_u64().is_some_and(|code| code <= 65535)) {
            let found = if value.is_null() { "a close code is missing" } else { "this is not a close code" };
            self.error(
                value.span,
                found,
                "write a number from 0 to 65535, such as `closes: 1000`; `drops` ends the connection without a code",
            );
        }
        let reason = options
            .get("reason")
            .map(|node| self.template_of(node, Value::is_string, "`reason`", "text", "reason: \"...\""));
        StepAction::Close { code, reason }
    }

    pub(super) fn parse_connect<'n>(
        &mut self,
        value: &'n SyntaxNode,
        options: &StepOptions<'n>,
        tries: bool,
    ) -> StepAction {
        let path =
            (!value.is_null()).then(|| self.template_of(value, Value::is_string, "a path", "text", "connects: /path"));
        let mut option = |name: &str, is: fn(&Value) -> bool, kind: &str, example: &str| {
            let (what, example) = (format!("`{name}`"), format!("{name}: {example}"));
            options.get(name).map(|node| self.template_of(node, is, &what, kind, &example))
        };
        StepAction::Connect(Box::new(ConnectStep {
            path,
            query: option("query", Value::is_object, "a mapping", "{ token: x }"),
            headers: option("headers", Value::is_object, "a mapping", "{ Authorization: x }"),
            subprotocols: option("subprotocols", is_list_of_texts, "a list of texts", "[name]"),
            from: option("from", Value::is_string, "an address", "127.0.0.2"),
            method: option("method", Value::is_string, "text", "POST"),
            http: option("http", Value::is_string, "text", "\"1.0\""),
            tries,
            in_opening: self.place == StepPlace::Opening,
        }))
    }

    /// Parses overrides of the `given` values of the current role.
    pub(super) fn parse_role_overrides(&mut self, node: Option<&SyntaxNode>) -> Vec<(String, Template)> {
        let given: Vec<String> =
            self.own_role().into_iter().flat_map(|role| &role.given).map(|(name, _)| name.clone()).collect();
        self.parse_overrides(node, &given, "the role")
    }

    /// Parses overrides of the `given` values of a role or a scene.
    pub(super) fn parse_overrides(
        &mut self,
        node: Option<&SyntaxNode>,
        given: &[String],
        whose: &str,
    ) -> Vec<(String, Template)> {
        let mut overrides = Vec::new();
        for (key, node) in mapping(node, "`with`", "with: { name: value }", &mut self.diagnostics) {
            if !given.contains(&key.name) {
                let known: Vec<&str> = given.iter().map(String::as_str).collect();
                let none = if given.is_empty() { "it has no `given` values; shared.yaml declares them" } else { "" };
                let help = suggest(&key.name, known, none);
                self.error(key.span, format!("{whose} has no `given` value `{}`", key.name), help);
            }
            overrides.push((key.name.clone(), self.parse_template(node)));
        }
        overrides
    }
}

/// Whether a value is a text with an expression, so that it is not known before the run.
pub fn is_computed(node: &SyntaxNode) -> bool {
    node.text().is_some_and(|text| text.contains("${"))
}

/// Returns the entry of `with` or `without` that makes a message break its schema, if one does.
fn offending_entry(violation: &SchemaViolation, options: &StepOptions<'_>) -> Option<Span> {
    let taken = list(options.get("without"), "", "", &mut Vec::new());
    let away = |node: &&SyntaxNode| {
        let pointer = node.text().unwrap_or_default();
        pointer.rsplit_once('/').is_some_and(|(parent, _)| parent == violation.path)
    };
    if violation.is_absence()
        && let Some(node) = taken.iter().find(away)
    {
        return Some(node.span);
    }
    changed_values(options.get("with")?, "")
        .into_iter()
        .filter(|(pointer, ..)| violation.path == *pointer || violation.path.starts_with(&format!("{pointer}/")))
        .max_by_key(|(pointer, ..)| pointer.len())
        .map(|(pointer, _, node)| node.at_pointer(&violation.path[pointer.len()..]).span)
}

/// Returns the keys and values of a `with` by their pointers in the message.
fn changed_values<'n>(with: &'n SyntaxNode, below: &str) -> Vec<(String, &'n NodeKey, &'n SyntaxNode)> {
    let mut found = Vec::new();
    for (key, value) in entries(Some(with)) {
        let is_pointer = is_pointer(&key.name);
        let pointer =
            if is_pointer { format!("{below}{}", key.name) } else { format!("{below}/{}", escape(&key.name)) };
        if !is_pointer {
            found.extend(changed_values(value, &pointer));
        }
        found.push((pointer, key, value));
    }
    found
}

fn is_list_of_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
}
