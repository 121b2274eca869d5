//! Checks `fuzz` in shared.yaml, which says how a hub must treat generated input. The fuzzer gets the values from
//! `fuzz::corpus`.

use super::names::NameOrigin;
use super::rules::MatcherSubject;
use super::shared::unknown_message_error;
use super::{ScenarioParser, StepPlace};
use crate::syntax::fields::{choice, list, table, text};
use crate::syntax::grammar::FileFormat;
use crate::syntax::yaml::SyntaxNode;

/// Classes of input: valid, valid but unusual, against its schema, not a known message, not JSON, not a WebSocket
/// frame.
pub const CLASSES: [&str; 6] = ["valid", "unusual", "invalid", "unknown", "malformed", "broken"];

/// When input is sent: right after connecting, after the opening, within a conversation, or by another client.
pub const PLACEMENTS: [&str; 4] = ["first", "joined", "within", "outside"];

impl ScenarioParser<'_> {
    pub(super) fn check_fuzz(&mut self) {
        let file = self.file;
        let Some(node) = file.root.get("fuzz") else { return };
        table(node, &FileFormat::Shared.keys("/properties/fuzz"), "`fuzz`", &mut self.diagnostics);
        if let Some(name) = text(node.get("bystander"), "`bystander`", &mut self.diagnostics) {
            let at = node.get("bystander").map_or(node.span, |node| node.span);
            self.parse_role(name, at);
            if self.roles.get(name).is_some_and(|role| role.server) {
                self.error(at, format!("`{name}` is a server, to which the hub connects"), "name a client role");
            }
        }
        self.check_scene_of_actor(node.get("fence"), "`fence`");
        if let Some(state) = node.get("state") {
            let members = table(state, &["scene", "is"], "`state`", &mut self.diagnostics);
            for name in ["scene", "is"] {
                let help = "write `{ scene: NAME, is: \"${state...}\" }`";
                members.required(name, help, &mut self.diagnostics);
            }
            self.check_scene_of_actor(state.get("scene"), "`scene`");
            self.with_only_name("state", |parser| drop(state.get("is").map(|is| parser.parse_checked_value(is))));
        }
        let example = "open: [MESSAGE, /member, { after: MESSAGE, messages: [MESSAGE] }]";
        for node in list(node.get("open"), "`open`", example, &mut self.diagnostics) {
            if node.text().is_some_and(|name| name.starts_with('/')) {
                continue;
            }
            if node.map().is_none() {
                self.check_message_name(node);
                continue;
            }
            let members = table(node, &["after", "messages"], "an entry of `open`", &mut self.diagnostics);
            for name in ["after", "messages"] {
                let help = "write `{ after: MESSAGE, messages: [MESSAGE] }`";
                members.required(name, help, &mut self.diagnostics);
            }
            node.get("after").into_iter().for_each(|name| self.check_message_name(name));
            for name in list(node.get("messages"), "`messages`", "messages: [MESSAGE]", &mut self.diagnostics) {
                self.check_message_name(name);
            }
        }
        for node in list(node.get("failures"), "`failures`", "failures: [MESSAGE]", &mut self.diagnostics) {
            self.check_message_name(node);
        }
        let place = std::mem::replace(&mut self.place, StepPlace::Always);
        self.parse_rules(node.get("goes_on"));
        if let Some(refusals) = node.get("refusals") {
            self.check_unnamed_alternatives(refusals);
        }
        for entry in
            list(node.get("answers"), "`answers`", "answers: [ { class: [invalid], ... } ]", &mut self.diagnostics)
        {
            self.with_only_name("said", |parser| parser.check_answers(entry)); // style: quoted
        }
        self.place = place;
    }

    fn check_message_name(&mut self, node: &SyntaxNode) {
        if node.text().is_none_or(|name| self.pack.message(name).is_none()) {
            let error = unknown_message_error(node, self.pack);
            self.diagnostics.push(error);
        }
    }

    /// Calls `read` with only `name` in scope.
    fn with_only_name(&mut self, name: &str, read: impl FnOnce(&mut Self)) {
        self.scopes.push(super::BlockScope::isolated());
        self.bind_name(name, None, NameOrigin::Unknown);
        read(self);
        self.scopes.pop();
    }

    /// Checks the name of a scene that one actor plays.
    fn check_scene_of_actor(&mut self, node: Option<&SyntaxNode>, what: &str) {
        if let (Some(name), Some(node)) = (text(node, what, &mut self.diagnostics), node) {
            self.parse_scene(name, node.span);
        }
    }

    fn check_answers(&mut self, entry: &SyntaxNode) {
        let what = "an entry of `answers`";
        let members = table(
            entry,
            &FileFormat::Shared.keys("/properties/fuzz/properties/answers/items"),
            what,
            &mut self.diagnostics,
        );
        if entry.map().is_none() {
            return;
        }
        self.check_words(entry, "class", &CLASSES);
        self.check_words(entry, "placement", &PLACEMENTS);
        for node in list(entry.get("roles"), "`roles`", "roles: [ROLE]", &mut self.diagnostics) {
            if let Some(name) = text(Some(node), "a role", &mut self.diagnostics) {
                self.parse_role(name, node.span);
            }
        }
        for key in ["messages", "except"] {
            let example = format!("{key}: [MESSAGE]");
            for node in list(entry.get(key), &format!("`{key}`"), &example, &mut self.diagnostics) {
                let known = node.text().and_then(|name| self.pack.message(name)).is_some_and(|m| m.directions.to_hub);
                if !known {
                    let error = unknown_message_error(node, self.pack);
                    self.diagnostics.push(error);
                }
            }
        }
        if let Some(node) = entry.get("where") {
            let _ = self.parse_pattern(node, &MatcherSubject::Anything);
        }
        for key in ["class", "rules"] {
            let help = "write the `class` of input it applies to, and the `rules` of the document that demand it";
            members.required(key, help, &mut self.diagnostics);
        }
        if entry.get("answer").is_none() && entry.get("never").is_none() {
            self.error(
                entry.span,
                format!("{what} has neither `answer` nor `never`"),
                "write `answer: [ { message: MESSAGE } ]`, or `never`",
            );
        }
        for node in ["answer", "never"].into_iter().filter_map(|key| entry.get(key)) {
            self.check_unnamed_alternatives(node);
        }
        self.parse_rules(entry.get("rules"));
    }

    /// Checks alternatives that bind no name.
    fn check_unnamed_alternatives(&mut self, node: &SyntaxNode) {
        let alternatives = self.parse_alternatives(node, NameOrigin::Unknown);
        if let Some(named) = alternatives.iter().find_map(|alternative| alternative.as_.as_ref()) {
            self.error(node.span, format!("nothing can use the name `{named}`"), "leave `as` out");
        }
    }

    /// Checks that the member `key` of an entry is a list of known words.
    fn check_words(&mut self, entry: &SyntaxNode, key: &str, known: &[&str]) {
        let (what, example) = (format!("`{key}`"), format!("{key}: [{}]", known[0]));
        let words: Vec<_> = known.iter().map(|word| (*word, ())).collect();
        for node in list(entry.get(key), &what, &example, &mut self.diagnostics) {
            choice(Some(node), &what, &words, &mut self.diagnostics);
        }
    }
}
