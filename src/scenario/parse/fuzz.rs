//! Checks `fuzz` in shared.yaml, which holds what the document says about generated input. The fuzzer reads it
//! elsewhere.

use super::names::Origin;
use super::rules::Subject;
use super::shared::unknown_message;
use super::{Place, Reader};
use crate::syntax::fields::{choice, list, table, text};
use crate::syntax::yaml::Node;

const KEYS: [&str; 7] = ["bystander", "fence", "state", "goes_on", "refusals", "answers", "open"];
const ANSWER: [&str; 9] = ["class", "placement", "roles", "messages", "except", "where", "answer", "never", "rules"];

/// Classes of input: valid, valid but unusual, against its schema, not a known message, not JSON, not a WebSocket
/// frame.
pub const CLASSES: [&str; 6] = ["valid", "unusual", "invalid", "unknown", "malformed", "broken"];

/// When input is sent: right after connecting, after the opening, within a conversation, or by another client.
pub const PLACEMENTS: [&str; 4] = ["first", "joined", "within", "outside"];

impl Reader<'_> {
    pub(super) fn fuzz(&mut self) {
        let file = self.file;
        let Some(node) = file.root.get("fuzz") else { return };
        table(node, &KEYS, "`fuzz`", &mut self.diagnostics);
        if let Some(name) = text(node.get("bystander"), "`bystander`", &mut self.diagnostics) {
            let at = node.get("bystander").map_or(node.span, |node| node.span);
            self.role(name, at);
            if self.roles.get(name).is_some_and(|role| role.server) {
                self.error(
                    at,
                    format!("`{name}` is a server, to which the hub connects"),
                    "write a role that is a client",
                );
            }
        }
        self.own_scene(node.get("fence"), "`fence`");
        if let Some(state) = node.get("state") {
            let members = table(state, &["scene", "is"], "`state`", &mut self.diagnostics);
            for name in ["scene", "is"] {
                let help = "write `{ scene: NAME, is: \"${state...}\" }`";
                members.required(name, help, &mut self.diagnostics);
            }
            self.own_scene(state.get("scene"), "`scene`");
            self.apart("state", |reader| drop(state.get("is").map(|is| reader.checked_value(is))));
        }
        for node in list(node.get("open"), "`open`", "open: [MESSAGE, /member]", &mut self.diagnostics) {
            let known = |name: &str| name.starts_with('/') || self.pack.message(name).is_some();
            if !node.text().is_some_and(known) {
                let error = unknown_message(node, self.pack);
                self.diagnostics.push(error);
            }
        }
        let place = std::mem::replace(&mut self.place, Place::Always);
        self.rules(node.get("goes_on"));
        if let Some(refusals) = node.get("refusals") {
            self.unnamed(refusals);
        }
        for entry in
            list(node.get("answers"), "`answers`", "answers: [ { class: [invalid], ... } ]", &mut self.diagnostics)
        {
            self.apart("said", |reader| reader.answers(entry)); // style: quoted
        }
        self.place = place;
    }

    /// Calls `read` with only `name` in scope.
    fn apart(&mut self, name: &str, read: impl FnOnce(&mut Self)) {
        self.scopes.push(super::Scope::isolated());
        self.bind_name(name, None, Origin::Unknown);
        read(self);
        self.scopes.pop();
    }

    /// Checks the name of a scene that one actor plays.
    fn own_scene(&mut self, node: Option<&Node>, what: &str) {
        if let (Some(name), Some(node)) = (text(node, what, &mut self.diagnostics), node) {
            self.scene(name, node.span);
        }
    }

    fn answers(&mut self, entry: &Node) {
        let what = "an entry of `answers`";
        let members = table(entry, &ANSWER, what, &mut self.diagnostics);
        if entry.map().is_none() {
            return;
        }
        self.words(entry.get("class"), "`class`", &CLASSES);
        self.words(entry.get("placement"), "`placement`", &PLACEMENTS);
        for node in list(entry.get("roles"), "`roles`", "roles: [ROLE]", &mut self.diagnostics) {
            if let Some(name) = text(Some(node), "a role", &mut self.diagnostics) {
                self.role(name, node.span);
            }
        }
        for key in ["messages", "except"] {
            for node in list(entry.get(key), &format!("`{key}`"), "messages: [MESSAGE]", &mut self.diagnostics) {
                let known = node.text().and_then(|name| self.pack.message(name)).is_some_and(|m| m.directions.to_hub);
                if !known {
                    let error = unknown_message(node, self.pack);
                    self.diagnostics.push(error);
                }
            }
        }
        if let Some(node) = entry.get("where") {
            let _ = self.pattern(node, &Subject::Anything);
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
            self.unnamed(node);
        }
        self.rules(entry.get("rules"));
    }

    /// Checks alternatives that bind no name.
    fn unnamed(&mut self, node: &Node) {
        let alternatives = self.alternatives(node, Origin::Unknown);
        if let Some(named) = alternatives.iter().find_map(|alternative| alternative.as_.as_ref()) {
            self.error(node.span, format!("nothing can use the name `{named}`"), "leave `as` out");
        }
    }

    /// Checks that each word of a list is a known one.
    fn words(&mut self, node: Option<&Node>, what: &str, known: &[&str]) {
        for node in list(node, what, "class: [invalid]", &mut self.diagnostics) {
            let words: Vec<_> = known.iter().map(|word| (*word, ())).collect();
            choice(Some(node), what, &words, &mut self.diagnostics);
        }
    }
}
