//! Parses names, commands, addresses and paths.

use std::path::{Path, PathBuf};

use super::super::ExecCommand;
use super::TargetParser;
use crate::scenario::parse::names::is_identifier;
use crate::syntax::diagnostic::{Diagnostic, ValueError};
use crate::syntax::fields::text;
use crate::syntax::yaml::{NodeKey, SyntaxNode};
use crate::websocket::endpoint::Endpoint;

impl TargetParser<'_> {
    /// Parses a name such as `with-secret`.
    pub(super) fn parse_name(&mut self, node: &SyntaxNode, of: &str) -> Option<String> {
        let text = text(Some(node), &format!("the name of {of}"), &mut self.errors)?;
        let fine = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if !fine {
            self.report_error(
                node,
                &format!("`{text}` is not a valid name for {of}"),
                "start with a letter, then use letters, digits, `_` and `-`",
            );
        }
        fine.then(|| text.to_owned())
    }

    /// Checks a key that expressions and scenarios use as a name.
    pub(super) fn check_identifier(&mut self, key: &NodeKey, of: &str) {
        if !is_identifier(&key.name) {
            let error = Diagnostic::error(key.span, format!("`{}` is not a valid name for {of}", key.name));
            self.errors.push(error.help("start with a letter, then use letters, digits and `_`"));
        }
    }

    /// Parses a command. A program with a `/` in its name is relative to the file's folder, one without is found in
    /// PATH.
    pub(super) fn parse_exec(&mut self, node: &SyntaxNode) -> Option<ExecCommand> {
        let text = text(Some(node), "`exec`", &mut self.errors)?;
        match ExecCommand::parse(text) {
            Ok(exec) if exec.words[0].contains('/') => {
                let program = self.resolve_path(node, &exec.words[0]).to_string_lossy().into_owned();
                Some(exec.with_program(program))
            }
            exec => exec.map_err(|error| self.errors.push(error.at(node.span))).ok(),
        }
    }

    pub(super) fn parse_url(&mut self, node: &SyntaxNode) -> Option<Endpoint> {
        let text = text(Some(node), "`url`", &mut self.errors)?;
        text.parse().map_err(|error: ValueError| self.errors.push(error.at(node.span))).ok()
    }

    pub(super) fn parse_path(&mut self, node: &SyntaxNode, what: &str) -> Option<PathBuf> {
        let text = text(Some(node), what, &mut self.errors)?;
        Some(self.resolve_path(node, text))
    }

    /// Resolves a path: in the file it is relative to the file's folder, in an override it is used unchanged.
    pub(super) fn resolve_path(&self, node: &SyntaxNode, path: &str) -> PathBuf {
        let home = &self.sources.file(self.home.file).path;
        match Path::new(home).parent() {
            Some(folder) if node.span.file == self.home.file => folder.join(path),
            _ => PathBuf::from(path),
        }
    }

    pub(super) fn report_error(&mut self, node: &SyntaxNode, message: &str, help: &str) {
        self.errors.push(Diagnostic::error(node.span, message).help(help));
    }
}
