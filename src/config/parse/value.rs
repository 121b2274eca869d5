//! Parses names, commands, addresses and paths.

use std::path::{Path, PathBuf};

use super::super::Exec;
use super::Reading;
use crate::syntax::diagnostic::{Diagnostic, ValueError};
use crate::syntax::fields::text;
use crate::syntax::yaml::{Key, Node};
use crate::websocket::endpoint::Endpoint;

impl Reading<'_> {
    /// Parses a name such as `with-secret`.
    pub(super) fn name(&mut self, node: &Node, of: &str) -> Option<String> {
        let text = text(Some(node), &format!("the name of {of}"), &mut self.errors)?;
        let fine = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if !fine {
            self.wrong(
                node,
                &format!("`{text}` is not a valid name for {of}"),
                "start with a letter, then use letters, digits, `_` and `-`",
            );
        }
        fine.then(|| text.to_owned())
    }

    /// Checks a key that expressions and scenarios use as a name.
    pub(super) fn identifier(&mut self, key: &Key, of: &str) {
        let fine = key.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !fine {
            let error = Diagnostic::error(key.span, format!("`{}` is not a valid name for {of}", key.name));
            self.errors.push(error.help("start with a letter, then use letters, digits and `_`"));
        }
    }

    /// Parses a command. A program with a `/` in its name is relative to the file's folder, one without is found in
    /// PATH.
    pub(super) fn exec(&mut self, node: &Node) -> Option<Exec> {
        let text = text(Some(node), "`exec`", &mut self.errors)?;
        match Exec::parse(text) {
            Ok(exec) if exec.words[0].contains('/') => {
                let program = self.at_home(node, &exec.words[0]).to_string_lossy().into_owned();
                Some(exec.at(program))
            }
            exec => exec.map_err(|error| self.errors.push(error.at(node.span))).ok(),
        }
    }

    pub(super) fn url(&mut self, node: &Node) -> Option<Endpoint> {
        let text = text(Some(node), "`url`", &mut self.errors)?;
        text.parse().map_err(|error: ValueError| self.errors.push(error.at(node.span))).ok()
    }

    pub(super) fn path(&mut self, node: &Node, what: &str) -> Option<PathBuf> {
        let text = text(Some(node), what, &mut self.errors)?;
        Some(self.at_home(node, text))
    }

    /// Resolves a path: in the file it is relative to the file's folder, in an override it is used unchanged.
    pub(super) fn at_home(&self, node: &Node, path: &str) -> PathBuf {
        let home = &self.sources.file(self.home.file).path;
        match Path::new(home).parent() {
            Some(folder) if node.span.file == self.home.file => folder.join(path),
            _ => PathBuf::from(path),
        }
    }

    pub(super) fn wrong(&mut self, node: &Node, message: &str, help: &str) {
        self.errors.push(Diagnostic::error(node.span, message).help(help));
    }
}
