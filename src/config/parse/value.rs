//! Parses single values, and checks the keys of a table.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{Exec, parse_duration};
use super::Reading;
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::source::Span;
use crate::syntax::yaml::{Key, Kind, Node};

/// The highest value of `connections`.
const MOST_CONNECTIONS: u64 = 1_000_000;

impl Reading<'_> {
    /// Whether the node is a table; reports an error if not, and for each unknown key.
    pub(super) fn known(&mut self, node: &Node, keys: &[&str], of: &str) -> bool {
        let Some(entries) = node.map() else {
            if !node.is_null() {
                self.wrong(
                    node,
                    &format!("{of} must be a table, not {}", node.what()),
                    &format!("its keys are {}", keys.join(", ")),
                );
            }
            return false;
        };
        for (key, _) in entries.iter().filter(|(key, _)| !keys.contains(&key.name.as_str())) {
            let help = suggest(&key.name, keys.iter().copied(), "");
            self.errors.push(Diagnostic::error(key.span, format!("{of} has no key `{}`", key.name)).help(help));
        }
        true
    }

    /// Parses a name such as `with-secret`.
    pub(super) fn name(&mut self, node: &Node, of: &str) -> Option<String> {
        let text = self.text(node)?;
        let fine = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if !fine {
            self.wrong(node, &format!("`{text}` cannot name {of}"), "a letter, then letters, digits, `_` and `-`");
        }
        fine.then(|| text.to_owned())
    }

    pub(super) fn words(&mut self, node: &Node) -> BTreeSet<String> {
        let Some(items) = node.list() else {
            self.wrong(
                node,
                &format!("`provides` must be a list of words, not {}", node.what()),
                "write provides = [\"tls\"]",
            );
            return BTreeSet::new();
        };
        items.iter().filter_map(|item| self.name(item, "a capability")).collect()
    }

    /// Checks a key that expressions and scenarios use as a name.
    pub(super) fn identifier(&mut self, key: &Key, of: &str) {
        let fine = key.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !fine {
            let error = Diagnostic::error(key.span, format!("`{}` cannot name {of}", key.name));
            self.errors.push(error.help("a letter, then letters, digits and `_`"));
        }
    }

    pub(super) fn time(&mut self, node: &Node) -> Option<Duration> {
        if let Kind::Number(number) = &node.kind {
            self.wrong(
                node,
                "this time has no unit",
                &format!("write \"{number}s\" for seconds or \"{number}ms\" for milliseconds"),
            );
            return None;
        }
        let text = self.text(node)?;
        match parse_duration(text) {
            Ok(Duration::ZERO) => self.wrong(node, "this time must be more than 0", "such as 300ms, 5s or 2m"),
            Ok(duration) => return Some(duration),
            Err(message) => {
                let (message, help) = message.split_once(": ").unwrap_or((&message, ""));
                self.wrong(node, message, help);
            }
        }
        None
    }

    /// Parses a command. A program with a `/` in its name is relative to the file's folder, one without is found in PATH.
    pub(super) fn exec(&mut self, node: &Node) -> Option<Exec> {
        let text = self.text(node)?;
        match Exec::parse(text) {
            Ok(exec) if exec.words[0].contains('/') => {
                let program = self.at_home(node, &exec.words[0]).to_string_lossy().into_owned();
                Some(exec.at(program))
            }
            Ok(exec) => Some(exec),
            Err(message) => {
                let (message, help) = message.split_once(": ").unwrap_or((&message, ""));
                self.wrong(node, message, help);
                None
            }
        }
    }

    pub(super) fn count(&mut self, node: &Node) -> Option<usize> {
        let count = match &node.kind {
            Kind::Null => return None,
            Kind::Number(number) => number.as_u64().filter(|n| (1..=MOST_CONNECTIONS).contains(n)),
            _ => None,
        };
        if count.is_none() {
            self.wrong(
                node,
                "this must be a whole number from 1 to 1000000",
                "how many connections may be open at a time, such as 500",
            );
        }
        count.and_then(|n| usize::try_from(n).ok())
    }

    pub(super) fn flag(&mut self, node: &Node) -> Option<bool> {
        match node.kind {
            Kind::Bool(flag) => return Some(flag),
            Kind::Null => {}
            _ => self.wrong(
                node,
                &format!("this must be true or false, not {}", node.what()),
                "without quotes: true or false",
            ),
        }
        None
    }

    pub(super) fn url(&mut self, node: &Node) -> Option<String> {
        let url = self.text(node)?;
        match url_problem(url) {
            None => Some(url.to_owned()),
            Some((message, help)) => {
                self.wrong(node, &message, &help);
                None
            }
        }
    }

    pub(super) fn path(&mut self, node: &Node) -> Option<PathBuf> {
        let text = self.text(node)?;
        if text.is_empty() {
            self.wrong(node, "this path is empty", "write the path of a file, or leave the key out");
            return None;
        }
        Some(self.at_home(node, text))
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match &node.kind {
            Kind::Text(text) => Some(&text.value),
            // JSON cannot express it; the error is reported already.
            Kind::Null => None,
            _ => {
                self.wrong(node, &format!("this must be text, not {}", node.what()), "put it in quotes");
                None
            }
        }
    }

    /// Resolves a path: in the file it is relative to the file's folder, in an override it is used unchanged.
    pub(super) fn at_home(&self, node: &Node, path: &str) -> PathBuf {
        let home = &self.sources.file(self.home.file).path;
        match Path::new(home).parent() {
            Some(folder) if node.span.file == self.home.file => folder.join(path),
            _ => PathBuf::from(path),
        }
    }

    pub(super) fn beginning(&self) -> Span {
        self.home.part(0..0)
    }

    pub(super) fn wrong(&mut self, node: &Node, message: &str, help: &str) {
        let mut error = Diagnostic::error(node.span, message);
        if !help.is_empty() {
            error = error.help(help);
        }
        self.errors.push(error);
    }
}

/// Returns what is wrong with the URL of a hub, and what to do about it.
fn url_problem(url: &str) -> Option<(String, String)> {
    let example = "such as ws://127.0.0.1:4000".to_owned();
    let rest = url.strip_prefix("ws://").or_else(|| url.strip_prefix("wss://"));
    let Some(rest) = rest else {
        let other = url.split_once("://").map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
        let help = match other {
            Some((scheme, rest)) if matches!(scheme.as_str(), "http" | "ws") => {
                format!("write ws://{rest}")
            }
            Some((scheme, rest)) if matches!(scheme.as_str(), "https" | "wss") => {
                format!("write wss://{rest}")
            }
            Some(_) => example,
            // A misspelt scheme.
            None if url.contains("//") => example,
            None if [".yaml", ".yml"].iter().any(|ending| url.ends_with(ending)) => {
                format!(
                    "a file is given by an option: `check --scenario {url}`, `fuzz --replay {url}`, `load --plan {url}`"
                )
            }
            None if url.ends_with(".toml") => format!("a file is given by an option: `--target {url}`"),
            None => format!("write ws://{url}, or wss://{url} with TLS"),
        };
        return Some((format!("`{url}` is not the address of a hub: it begins with ws:// or wss://"), help));
    };
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some((format!("`{url}` has a space in it"), "write %20 where one is meant".to_owned()));
    }
    if url.contains('#') {
        return Some((
            format!("`{url}` has a `#` in it, which no WebSocket address may have"),
            "write %23 where one is meant".to_owned(),
        ));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host_and_port = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match host_and_port.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host_and_port, None),
    };
    if host.is_empty() {
        return Some((format!("`{url}` names no host"), example));
    }
    if let Some(port) = port
        && !port.parse::<u16>().is_ok_and(|port| port > 0)
    {
        return Some((format!("`{port}` is not a port"), "a number from 1 to 65535".to_owned()));
    }
    None
}
