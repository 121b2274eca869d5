//! The user's files and places in them. A diagnostic of a file points at a [`Span`].

use std::ops::Range;
use std::sync::Arc;

use crate::syntax::yaml::SyntaxNode;

/// Identifies a file of a [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u32);

/// A range of bytes in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    pub file: FileId,
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn new(file: FileId, range: Range<usize>) -> Self {
        // Files are bounded well below 4 GiB by `Sources::add`.
        Self { file, start: range.start as u32, end: range.end.max(range.start) as u32 }
    }

    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Returns a part of this span, by offsets from its start; clipped to it.
    pub fn subspan(self, range: Range<usize>) -> Self {
        let start = (self.start as usize + range.start).min(self.end as usize);
        let end = (self.start as usize + range.end).min(self.end as usize);
        Self::new(self.file, start..end)
    }
}

#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The path as the user would write it.
    pub path: String,
    pub text: String,
    /// The content of a file that was assembled from several files. Its spans point into those files.
    pub tree: Option<Arc<SyntaxNode>>,
    /// The place that a generated file, which the user does not have, was made from.
    origin: Option<Span>,
}

/// All files read for a run, needed to render spans.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

/// The most bytes that are read from a file.
pub const MAX_FILE: usize = 16 << 20;

impl Sources {
    pub fn add(&mut self, path: impl Into<String>, text: impl Into<String>) -> FileId {
        let mut text = text.into();
        if text.len() > MAX_FILE {
            let mut end = MAX_FILE;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        let id = FileId(self.files.len() as u32);
        self.files.push(SourceFile { path: path.into(), text, tree: None, origin: None });
        id
    }

    /// Adds a file that was assembled from the trees of other files. Its text is JSON, and no span points into that
    /// text.
    pub fn add_tree(&mut self, path: impl Into<String>, tree: SyntaxNode) -> FileId {
        let id = self.add(path, tree.to_json().to_string());
        self.files[id.0 as usize].tree = Some(Arc::new(tree));
        id
    }

    /// Adds a file that was generated from a place in another file, which is shown instead of it.
    pub fn add_generated(&mut self, path: impl Into<String>, text: impl Into<String>, origin: Span) -> FileId {
        let id = self.add(path, text);
        self.files[id.0 as usize].origin = Some(origin);
        id
    }

    /// Returns the place in the user's files that stands for a span.
    pub fn shown(&self, span: Span) -> Span {
        self.file(span.file).origin.unwrap_or(span)
    }

    /// Returns the path of the file that is shown for a span.
    pub fn path(&self, span: Span) -> &str {
        &self.file(self.shown(span).file).path
    }

    pub fn file(&self, id: FileId) -> &SourceFile {
        &self.files[id.0 as usize]
    }

    /// Returns the same files with other paths. A file for which `rename` returns `None` keeps its path.
    pub fn with_paths(&self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let mut files = self.files.clone();
        for file in &mut files {
            file.path = rename(&file.path).unwrap_or(std::mem::take(&mut file.path));
        }
        Self { files }
    }

    pub fn text(&self, span: Span) -> &str {
        self.file(span.file).text.get(span.range()).unwrap_or("")
    }

    /// Returns the line and column (in characters) of the start of a span, from 1.
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        let span = self.shown(span);
        let text = &self.file(span.file).text;
        let before = text.get(..span.start as usize).unwrap_or(text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    /// Returns the first and last line of a span, from 1.
    pub fn lines(&self, span: Span) -> (usize, usize) {
        let span = self.shown(span);
        let first = self.line_column(span).0;
        (first, first + self.text(span).trim_end().matches('\n').count())
    }

    /// Returns `path:line`, as editors understand it.
    pub fn path_and_line(&self, span: Span) -> String {
        format!("{}:{}", self.path(span), self.line_column(span).0)
    }
}
