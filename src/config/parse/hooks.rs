//! Parses `[hooks]`: requests and commands, with their templates checked.

use std::collections::BTreeMap;

use super::super::hook::METHODS;
use super::super::{HookSpec, template};
use super::TargetParser;
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::fields::{choice, list, mapping, table, text_or_blank, time_above_zero};
use crate::syntax::grammar::FileFormat;
use crate::syntax::yaml::{NodeKey, SyntaxNode};

const COMMAND: &str = "command = [\"program\", \"word\"]";

impl TargetParser<'_> {
    pub(super) fn parse_hooks(&mut self, node: &SyntaxNode) -> BTreeMap<String, HookSpec> {
        let mut hooks = BTreeMap::new();
        for (key, node) in mapping(Some(node), "`hooks`", "[hooks.NAME]", &mut self.errors) {
            self.check_identifier(key, "a hook");
            if let Some(hook) = self.parse_hook(key, node) {
                hooks.insert(key.name.clone(), hook);
            }
        }
        hooks
    }

    fn parse_hook(&mut self, key: &NodeKey, node: &SyntaxNode) -> Option<HookSpec> {
        let hook =
            table(node, &FileFormat::Target.keys("/$defs/hook"), &format!("the hook `{}`", key.name), &mut self.errors)
                .at(key.span);
        let timeout = time_above_zero(node.get("timeout"), "`timeout`", &mut self.errors);
        let help = "write http = { url = \"...\" } for a request, or command = [\"program\", \"word\"] for a program";
        match hook.one_of(&["http", "command"], help, &mut self.errors)? {
            ("http", http) => {
                if let Some(timeout) = node.get("timeout") {
                    self.report_error(
                        timeout,
                        "the timeout of a request belongs inside `http`",
                        "write http = { ..., timeout = \"5s\" }",
                    );
                }
                self.parse_http_hook(http)
            }
            (_, command) => Some(HookSpec::Command { words: self.parse_command_hook(command)?, timeout }),
        }
    }

    fn parse_http_hook(&mut self, node: &SyntaxNode) -> Option<HookSpec> {
        let request = table(node, &FileFormat::Target.keys("/$defs/http"), "a request", &mut self.errors);
        let methods = METHODS.map(|method| (method, method));
        let method = match node.get("method") {
            None => Some(METHODS[0]),
            method => choice(method, "`method`", &methods, &mut self.errors),
        };
        let help = "write http = { url = \"http://127.0.0.1:4100/events\" }";
        let url = request.required("url", help, &mut self.errors).and_then(|url| {
            self.parse_template(url).filter(|text| {
                let fine = ["http://", "https://", "${"].iter().any(|start| text.starts_with(start));
                if !fine {
                    self.report_error(
                        url,
                        &format!("`{text}` is not the address of a web server"),
                        "write an address that begins with http:// or https://",
                    );
                }
                fine
            })
        });
        let headers = node.get("headers").map(|node| self.parse_headers(node)).unwrap_or_default();
        let body = node.get("body").and_then(|body| {
            if method == Some("GET") {
                self.report_error(
                    body,
                    "a GET request cannot have a body",
                    "use method = \"POST\", or leave the body out",
                );
            }
            self.parse_template(body)
        });
        let timeout = time_above_zero(node.get("timeout"), "`timeout`", &mut self.errors);
        Some(HookSpec::Http { method: method?.to_owned(), url: url?, headers, body, timeout })
    }

    fn parse_headers(&mut self, node: &SyntaxNode) -> BTreeMap<String, String> {
        let mut headers = BTreeMap::new();
        for (key, node) in mapping(Some(node), "`headers`", "headers = { name = \"value\" }", &mut self.errors) {
            // RFC 9110, 5.6.2: the characters of a token.
            if key.name.is_empty()
                || !key.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
            {
                let error = Diagnostic::error(key.span, format!("`{}` is not the name of a header", key.name));
                self.errors.push(error.help("write letters, digits and dashes, such as x-api-key"));
            }
            if let Some(value) = self.parse_template(node) {
                headers.insert(key.name.clone(), value);
            }
        }
        headers
    }

    fn parse_command_hook(&mut self, node: &SyntaxNode) -> Option<Vec<String>> {
        let items = list(Some(node), "`command`", COMMAND, &mut self.errors);
        node.list()?;
        let words: Vec<Option<String>> = items.iter().map(|item| self.parse_template(item)).collect();
        let mut words = words.into_iter().collect::<Option<Vec<String>>>()?;
        if words.first().is_none_or(String::is_empty) {
            let help = format!("write `{COMMAND}`; it is not run in a shell");
            self.report_error(items.first().unwrap_or(node), "`command` names no program", &help);
            return None;
        }
        // A name with a slash is a path; one without is looked up in PATH.
        if words[0].contains('/') && !words[0].starts_with("${") {
            words[0] = self.resolve_path(&items[0], &words[0]).to_string_lossy().into_owned();
        }
        Some(words)
    }

    /// Returns a text in which every `${...}` is valid.
    fn parse_template(&mut self, node: &SyntaxNode) -> Option<String> {
        let text = text_or_blank(Some(node), "this value", &mut self.errors)?;
        let errors = template::check_template(node);
        let is_right = errors.is_empty();
        self.errors.extend(errors);
        is_right.then(|| text.to_owned())
    }
}
