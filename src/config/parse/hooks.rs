//! Parses `[hooks]`: requests and commands, with their templates checked.

use std::collections::BTreeMap;

use super::super::hook::METHODS;
use super::super::{HookSpec, template};
use super::Reading;
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::yaml::{Key, Node};

const HOOK: [&str; 3] = ["http", "command", "timeout"];
const HTTP: [&str; 5] = ["method", "url", "headers", "body", "timeout"];

impl Reading<'_> {
    pub(super) fn hooks(&mut self, node: &Node) -> BTreeMap<String, HookSpec> {
        let Some(entries) = node.map() else {
            self.wrong(
                node,
                &format!("`hooks` must be a table, not {}", node.what()),
                "begin each hook with [hooks.NAME], those of an instance with [instance.hooks.NAME]",
            );
            return BTreeMap::new();
        };
        let mut hooks = BTreeMap::new();
        for (key, node) in entries {
            self.identifier(key, "a hook");
            if let Some(hook) = self.hook(key, node) {
                hooks.insert(key.name.clone(), hook);
            }
        }
        hooks
    }

    fn hook(&mut self, key: &Key, node: &Node) -> Option<HookSpec> {
        if !self.known(node, &HOOK, "a hook") {
            return None;
        }
        let timeout = node.get("timeout").and_then(|node| self.time(node));
        match (node.get("http"), node.get("command")) {
            (Some(http), None) => {
                if let Some(timeout) = node.get("timeout") {
                    self.wrong(
                        timeout,
                        "the timeout of a request belongs inside `http`",
                        "write http = { ..., timeout = \"5s\" }",
                    );
                }
                self.http(http)
            }
            (None, Some(command)) => Some(HookSpec::Command { words: self.command(command)?, timeout }),
            (http, _) => {
                let help =
                    "write http = { url = \"...\" } for a request, or command = [\"program\", \"word\"] for a program";
                let how = if http.is_some() { "has both http and command" } else { "has neither http nor command" };
                let error = Diagnostic::error(key.span, format!("the hook `{}` {how}", key.name)).help(help);
                self.errors.push(error);
                None
            }
        }
    }

    fn http(&mut self, node: &Node) -> Option<HookSpec> {
        if !self.known(node, &HTTP, "a request") {
            return None;
        }
        let method = node.get("method").map_or_else(|| Some(METHODS[0].to_owned()), |method| self.method(method));
        let url = match node.get("url") {
            None => {
                self.wrong(
                    node,
                    "this request has no `url`",
                    "write http = { url = \"http://127.0.0.1:4100/events\" }",
                );
                None
            }
            Some(url) => self.template(url).filter(|text| {
                let fine = ["http://", "https://", "${"].iter().any(|start| text.starts_with(start));
                if !fine {
                    self.wrong(
                        url,
                        &format!("`{text}` is not the address of a web server"),
                        "it begins with http:// or https://",
                    );
                }
                fine
            }),
        };
        let headers = node.get("headers").map(|node| self.headers(node)).unwrap_or_default();
        let body = node.get("body").and_then(|body| {
            if method.as_deref() == Some("GET") {
                self.wrong(body, "a GET carries no body", "use method = \"POST\", or leave the body out");
            }
            self.template(body)
        });
        let timeout = node.get("timeout").and_then(|node| self.time(node));
        Some(HookSpec::Http { method: method?, url: url?, headers, body, timeout })
    }

    fn method(&mut self, node: &Node) -> Option<String> {
        let method = self.text(node)?;
        if !METHODS.contains(&method) {
            let message = format!("`{method}` is not a method a hook can use");
            let help = suggest(&method.to_uppercase(), METHODS, "");
            self.wrong(node, &message, &help);
            return None;
        }
        Some(method.to_owned())
    }

    fn headers(&mut self, node: &Node) -> BTreeMap<String, String> {
        let Some(entries) = node.map() else {
            self.wrong(
                node,
                &format!("`headers` must be a table, not {}", node.what()),
                "write headers = { name = \"value\" }",
            );
            return BTreeMap::new();
        };
        let mut headers = BTreeMap::new();
        for (key, node) in entries {
            // RFC 9110, 5.6.2: the characters of a token.
            if key.name.is_empty()
                || !key.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
            {
                let error = Diagnostic::error(key.span, format!("`{}` is not the name of a header", key.name));
                self.errors.push(error.help("letters, digits and dashes, such as x-api-key"));
            }
            if let Some(value) = self.template(node) {
                headers.insert(key.name.clone(), value);
            }
        }
        headers
    }

    fn command(&mut self, node: &Node) -> Option<Vec<String>> {
        let Some(items) = node.list().filter(|items| !items.is_empty()) else {
            self.wrong(
                node,
                "`command` must be a list of words",
                "write command = [\"program\", \"word\"]; no shell reads it",
            );
            return None;
        };
        let words: Vec<Option<String>> = items.iter().map(|item| self.template(item)).collect();
        let mut words = words.into_iter().collect::<Option<Vec<String>>>()?;
        if words[0].is_empty() {
            self.wrong(&items[0], "a program has a name", "write command = [\"program\", \"word\"]");
            return None;
        }
        // A name with a slash is a path; one without is looked up in PATH.
        if words[0].contains('/') && !words[0].starts_with("${") {
            words[0] = self.at_home(&items[0], &words[0]).to_string_lossy().into_owned();
        }
        Some(words)
    }

    /// Returns a text in which every `${...}` is valid.
    fn template(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        let errors = template::check(node);
        let is_right = errors.is_empty();
        self.errors.extend(errors);
        is_right.then(|| text.to_owned())
    }
}
