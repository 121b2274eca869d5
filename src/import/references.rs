//! The files of a document, and the targets of its references: JSON pointers into the same file or another local file.
//! References may be circular, so the number of steps is bounded.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::matcher::{escape, unescape};
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{self, NodeKey, SyntaxNode};

/// The most files of one document.
const MAX_FILES: usize = 256;
/// The most bytes of all files of one document.
const MAX_BYTES: usize = 32 << 20;
/// The most references followed to reach one place.
const MAX_HOPS: usize = 64;

/// A document and all files it refers to, by their paths relative to the document's folder.
pub struct DocumentLibrary {
    /// The path of the document itself.
    pub root: String,
    files: BTreeMap<String, ReferencedFile>,
}

enum ReferencedFile {
    Read(FileId, SyntaxNode),
    /// The file could not be parsed because of this error.
    Broken(Diagnostic),
    /// The file could not be read for this reason.
    Missing(String),
}

/// Reads a file, given its path relative to the folder of the document; the error is a message for the user.
pub type FileFetcher<'f> = dyn FnMut(&str, &mut Sources) -> Result<FileId, String> + 'f;

/// A node and its place; equal places are the same node, whichever references led there.
#[derive(Clone)]
pub struct DocumentRef<'a> {
    pub file: &'a str,
    /// The JSON pointer of the node in its file.
    pub pointer: String,
    pub node: &'a SyntaxNode,
}

impl<'a> DocumentRef<'a> {
    pub fn get(&self, name: &str) -> Option<Self> {
        let node = self.node.get(name)?;
        Some(Self { file: self.file, pointer: format!("{}/{}", self.pointer, escape(name)), node })
    }

    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.node.get(name)?.text()
    }

    /// Returns the members of a mapping with their keys; none for other values.
    pub fn members(&self) -> impl Iterator<Item = (&'a NodeKey, Self)> + use<'a> {
        let (file, pointer) = (self.file, self.pointer.clone());
        self.node
            .map()
            .unwrap_or_default()
            .iter()
            .map(move |(key, node)| (key, Self { file, pointer: format!("{pointer}/{}", escape(&key.name)), node }))
    }

    /// Returns the items of a list; none for other values.
    pub fn items(&self) -> impl Iterator<Item = Self> + use<'a> {
        let (file, pointer) = (self.file, self.pointer.clone());
        let items = self.node.list().unwrap_or_default().iter().enumerate();
        items.map(move |(index, node)| Self { file, pointer: format!("{pointer}/{index}"), node })
    }

    /// Returns the identity of the place.
    pub fn identity(&self) -> (String, String) {
        (self.file.to_owned(), self.pointer.clone())
    }

    /// Returns the last name of the place's JSON pointer.
    pub fn name(&self) -> String {
        self.pointer.rsplit('/').next().map(unescape).unwrap_or_default()
    }
}

impl DocumentLibrary {
    /// Reads all files that the document in `file`, whose path is `root`, refers to.
    ///
    /// # Errors
    /// An error in the document itself; errors in other files are reported where the files are used.
    pub fn read_files(
        root: &str,
        file: FileId,
        sources: &mut Sources,
        fetch: &mut FileFetcher<'_>,
    ) -> Result<Self, Diagnostic> {
        let mut files = BTreeMap::new();
        let node = yaml::parse_foreign(sources, file)?;
        let mut wanted = referenced_files(&node, root);
        let mut bytes = sources.file(file).text.len();
        files.insert(root.to_owned(), ReferencedFile::Read(file, node));
        while let Some(path) = wanted.pop() {
            if files.contains_key(&path) {
                continue;
            }
            let read = if files.len() >= MAX_FILES || bytes > MAX_BYTES {
                ReferencedFile::Missing(format!(
                    "the document needs more than {MAX_FILES} files, or {} MiB",
                    MAX_BYTES >> 20
                ))
            } else {
                match fetch(&path, sources) {
                    Err(why) => ReferencedFile::Missing(why),
                    Ok(file) => {
                        bytes += sources.file(file).text.len();
                        match yaml::parse_foreign(sources, file) {
                            Ok(node) => {
                                wanted.extend(referenced_files(&node, &path));
                                ReferencedFile::Read(file, node)
                            }
                            Err(diagnostic) => ReferencedFile::Broken(diagnostic),
                        }
                    }
                }
            };
            files.insert(path, read);
        }
        Ok(Self { root: root.to_owned(), files })
    }

    pub fn document(&self) -> Option<DocumentRef<'_>> {
        self.file_root(&self.root)
    }

    /// Returns the files that could be read, by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, FileId)> {
        self.files.iter().filter_map(|(path, file)| match file {
            ReferencedFile::Read(file, _) => Some((path.as_str(), *file)),
            _ => None,
        })
    }

    /// Returns the root nodes of all files that could be read.
    pub fn roots(&self) -> impl Iterator<Item = DocumentRef<'_>> {
        self.files.keys().filter_map(|path| self.file_root(path))
    }

    fn file_root(&self, path: &str) -> Option<DocumentRef<'_>> {
        match self.files.get_key_value(path)? {
            (file, ReferencedFile::Read(_, node)) => Some(DocumentRef { file, pointer: String::new(), node }),
            _ => None,
        }
    }

    /// Returns the target of the reference at a place, or the place itself.
    ///
    /// # Errors
    /// A broken reference, with advice.
    pub fn follow_reference<'a>(&'a self, place: DocumentRef<'a>) -> Result<DocumentRef<'a>, Diagnostic> {
        self.follow_hops(place, &mut MAX_HOPS.clone())
    }

    fn follow_hops<'a>(&'a self, mut place: DocumentRef<'a>, hops: &mut usize) -> Result<DocumentRef<'a>, Diagnostic> {
        while let Some(reference) = place.node.get("$ref") {
            let Some(text) = reference.text() else {
                return Err(Diagnostic::error(
                    reference.span,
                    format!("`$ref` must be text, not {}", reference.describe_kind()),
                )
                .help("write `$ref: '#/components/messages/NAME'`, or the path of a file"));
            };
            *hops = hops.checked_sub(1).ok_or_else(|| circular_reference_error(reference.span))?;
            place = self.resolve_target(place.file, text, reference.span, hops)?;
        }
        Ok(place)
    }

    fn resolve_target<'a>(
        &'a self,
        from: &str,
        text: &str,
        span: Span,
        hops: &mut usize,
    ) -> Result<DocumentRef<'a>, Diagnostic> {
        let (path, pointer) = text.split_once('#').unwrap_or((text, ""));
        let wrong = |message: String, help: &str| Diagnostic::error(span, message).help(help);
        if is_remote(path) {
            let help = "put a copy into the document's folder and refer to that";
            return Err(wrong(
                format!("`{text}` is outside the document's folder, so hubproof does not read it"),
                help,
            ));
        }
        let path = if path.is_empty() { from.to_owned() } else { join_path(from, path) };
        let mut place = match self.files.get(&path) {
            Some(ReferencedFile::Broken(diagnostic)) => return Err(diagnostic.clone()),
            Some(ReferencedFile::Missing(why)) => {
                return Err(wrong(why.clone(), "paths are relative to the file that contains them"));
            }
            _ => match self.file_root(&path) {
                Some(place) => place,
                None => {
                    return Err(wrong(
                        format!("`{text}` refers to no file"),
                        "paths are relative to the file that contains them",
                    ));
                }
            },
        };
        let pointer = percent_decode_str(pointer).decode_utf8_lossy();
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(wrong(
                format!("`{text}` is not a JSON pointer"),
                "write `#/components/...`: anchors are not supported",
            ));
        }
        let tokens: Vec<&str> = pointer.split('/').skip(1).collect();
        for (index, token) in tokens.iter().enumerate() {
            let token = unescape(token);
            place = self.follow_hops(place, hops)?;
            place = match child_ref(&place, &token) {
                Some(next) => next,
                None => {
                    let known: Vec<&str> =
                        place.node.map().unwrap_or_default().iter().map(|(k, _)| k.name.as_str()).collect();
                    let found = format!("`{text}` has no target: there is no `{token}`");
                    if let Some(pointer) = escaped_pointer(&tokens, index, &known) {
                        let file = text.split_once('#').map_or("", |(file, _)| file);
                        let help = format!("a slash within a name is written as ~1: `{file}#{pointer}`");
                        return Err(Diagnostic::error(span, found).help(help));
                    }
                    return Err(Diagnostic::error(span, found).help(suggest(&token, known, "")));
                }
            };
        }
        Ok(place)
    }
}

pub(super) fn circular_reference_error(span: Span) -> Diagnostic {
    Diagnostic::error(span, "this reference refers back to itself")
        .help("replace one of the references in the cycle by its target")
}

/// Returns the pointer that was meant, if the tokens from `index` on begin with a known name whose slashes are not
/// escaped.
fn escaped_pointer(tokens: &[&str], index: usize, known: &[&str]) -> Option<String> {
    let ends = (index + 1..=tokens.len()).rev();
    let (end, name) = ends.into_iter().find_map(|end| {
        let name = tokens[index..end].join("/");
        let means = |key: &&&str| key.contains('/') && key.trim_start_matches('/') == name.trim_start_matches('/');
        Some((end, *known.iter().find(means)?))
    })?;
    let before = tokens[..index].iter().map(|token| format!("/{token}")).collect::<String>();
    let after = tokens[end..].iter().map(|token| format!("/{token}")).collect::<String>();
    Some(format!("{before}/{}{after}", escape(name)))
}

fn child_ref<'a>(place: &DocumentRef<'a>, token: &str) -> Option<DocumentRef<'a>> {
    place.get(token).or_else(|| place.items().nth(token.parse().ok()?))
}

/// Returns the files to which the `$ref`s of a document refer.
fn referenced_files(node: &SyntaxNode, from: &str) -> Vec<String> {
    let mut named = Vec::new();
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        open.extend(node.list().unwrap_or_default());
        for (key, inner) in node.map().unwrap_or_default() {
            open.push(inner);
            let text = inner.text().filter(|_| key.name == "$ref").unwrap_or_default();
            let path = text.split('#').next().unwrap_or_default();
            if !path.is_empty() && !is_remote(path) {
                named.push(join_path(from, path));
            }
        }
    }
    named.sort();
    named.dedup();
    named
}

/// Whether a path is a URL or absolute, and so outside the document's folder.
fn is_remote(path: &str) -> bool {
    path.contains(':') || path.starts_with(['/', '\\'])
}

/// Resolves a path relative to the file that contains it: `messages/../x.yaml` becomes `x.yaml`.
pub(super) fn join_path(from: &str, path: &str) -> String {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = percent_decode_str(path).decode_utf8_lossy();
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
