//! Parses the lifecycles under `always`: which messages open, carry and close an id.

use super::ScenarioParser;
use super::shared::unknown_message_error;
use crate::scenario::model::{AlwaysEntry, Lifecycle};
use crate::syntax::fields::entries;
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKind, SyntaxNode};

/// The keys of a lifecycle besides `opens`.
pub const LIFECYCLE_KEYS: [&str; 4] = ["carries", "closes", "opened", "ended"];

impl ScenarioParser<'_> {
    pub(super) fn parse_lifecycle(&mut self, opens: &SyntaxNode, entry: &SyntaxNode, always: &mut Vec<AlwaysEntry>) {
        let before = self.diagnostics.len();
        let mut named = Vec::new();
        let mut listed = |parser: &mut Self, node: Option<&SyntaxNode>| {
            let messages = parser.parse_lifecycle_messages(node);
            for (message, span) in &messages {
                if named.contains(message) {
                    let name = &parser.pack.messages[*message].name;
                    let what = format!("`{name}` is listed twice");
                    parser.error(*span, what, "a message opens, carries or closes an id: name it once");
                }
                named.push(*message);
            }
            messages
        };
        let opens_listed = listed(self, Some(opens));
        let carries = listed(self, entry.get("carries"));
        let closes = listed(self, entry.get("closes"));
        if self.diagnostics.len() > before {
            return;
        }
        let judged: Vec<(usize, Span)> = carries.iter().chain(&closes).copied().collect();
        let pack = self.pack;
        if !judged.iter().any(|(message, _)| pack.messages[*message].directions.from_hub) {
            let help = "list the hub's messages under `carries` and `closes`";
            self.error(opens.span, "no message of the hub carries or closes the id, so nothing is checked", help);
        }
        // Such a reply would be taken for one to an id that was never opened.
        for (message, span) in judged {
            let reply = &pack.messages[message];
            let unopened = |asked: usize| {
                pack.messages[asked].replies.contains(&reply.name) && !opens_listed.iter().any(|(one, _)| *one == asked)
            };
            if let Some(request) = (0..pack.messages.len()).find(|asked| unopened(*asked)) {
                let request = &pack.messages[request].name;
                let what = format!("`{}` also answers `{request}`, which is not under `opens`", reply.name);
                self.error(span, what, format!("add `{request}` to `opens`"));
            }
        }
        let rules = |key: &str| entry.get(key);
        if rules("opened").is_none() && rules("ended").is_none() {
            let help = "write `opened: [ABC-001]`, the rules that demand an opened id, or `ended: [ABC-002]`, those that forbid messages after its end";
            self.error(opens.span, "this lifecycle has no rules, so it proves nothing", help);
        }
        if let Some(node) = rules("ended").filter(|_| closes.is_empty()) {
            self.error(node.span, "nothing closes the id, so it never ends", "list messages under `closes`");
        }
        let check = |parser: &mut Self, key: &str| {
            let node = entry.get(key)?;
            let used = parser.parse_rules(Some(node));
            (!used.is_empty()).then(|| parser.declare_check(used, node.span))
        };
        let (opened, ended) = (check(self, "opened"), check(self, "ended"));
        let indexes = |listed: Vec<(usize, Span)>| listed.into_iter().map(|(message, _)| message).collect();
        let (opens, carries, closes) = (indexes(opens_listed), indexes(carries), indexes(closes));
        always.push(AlwaysEntry::Lifecycle(Lifecycle { opens, carries, closes, opened, ended }));
    }

    /// Parses the name of a message, or a list of names. Each message must have a correlation id.
    fn parse_lifecycle_messages(&mut self, node: Option<&SyntaxNode>) -> Vec<(usize, Span)> {
        let Some(node) = node else { return Vec::new() };
        let items = match &node.kind {
            NodeKind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if items.is_empty() {
            self.error(node.span, "there are no messages", "write the name of a message, or a list of names");
        }
        let mut found = Vec::new();
        for item in items {
            let pack = self.pack;
            let Some(index) = item.text().and_then(|name| pack.message_index(name)) else {
                self.diagnostics.push(unknown_message_error(item, pack));
                continue;
            };
            let message = &pack.messages[index];
            if message.correlation.is_none() {
                let what = format!("`{}` has no `correlationId`, so its id is not known", message.name);
                let help = "write `correlationId: { location: $message.payload#/id }` in its message of asyncapi.yaml";
                self.error(item.span, what, help);
            }
            found.push((index, item.span));
        }
        found
    }

    /// Reports keys of an entry of `always` that belong to another form.
    pub(super) fn check_always_keys(&mut self, entry: &SyntaxNode, form: &str, foreign: &[&str]) {
        for (key, _) in entries(Some(entry)).iter().filter(|(key, _)| foreign.contains(&key.name.as_str())) {
            let owner = match key.name.as_str() {
                "has" => "every",
                name if LIFECYCLE_KEYS.contains(&name) => "opens",
                _ => "check",
            };
            let what = format!("`{}` belongs to `{owner}`, not to `{form}`", key.name);
            self.error(key.span, what, "write a separate entry");
        }
    }
}
