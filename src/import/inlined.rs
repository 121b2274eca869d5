//! Inlines what the asyncapi.yaml of a pack takes from elsewhere: references to other files of the pack, and traits of
//! messages. The parser of packs reads one file.

use std::collections::BTreeMap;

use super::references::{DocumentLibrary, DocumentRef, circular_reference_error, join_path};
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::{FileId, Sources};
use crate::syntax::yaml::{self, NodeKey, NodeKind, NodeText, SyntaxNode};

const DOCUMENT: &str = "asyncapi.yaml";
/// The most nodes of the inlined document, and its greatest depth.
const MAX_NODES: usize = 200_000;
const MAX_DEPTH: usize = 100;

/// Copies into asyncapi.yaml whatever it refers to in other files, and its traits. Reads only `files`, which are the files
/// of the pack by path. Returns `None` if there is nothing to copy.
///
/// # Errors
/// A broken or circular reference.
pub fn inline_references(
    files: &BTreeMap<String, FileId>,
    sources: &mut Sources,
) -> Result<Option<FileId>, Diagnostic> {
    // The parser of packs reports errors in the document.
    let Some(file) = files.get(DOCUMENT).filter(|file| yaml::parse(sources, **file).is_ok()) else { return Ok(None) };
    let mut fetch = |path: &str, _: &mut Sources| {
        files.get(path).copied().ok_or_else(|| format!("there is no file {path} in the pack"))
    };
    let library = DocumentLibrary::read_files(DOCUMENT, *file, sources, &mut fetch)?;
    let Some(document) = library.document() else { return Ok(None) };
    let mut inliner = Inliner { library: &library, names: BTreeMap::new(), nodes: 0, changed: false };
    let messages = document.get("components").and_then(|components| components.get("messages"));
    for (key, message) in messages.iter().flat_map(DocumentRef::members) {
        let pointer = message.pointer.clone();
        // A broken reference is reported where it is inlined.
        if let Ok(target) = library.follow_reference(message) {
            inliner.names.entry(target.identity()).or_insert((pointer, key.name.clone()));
        }
    }
    let tree = inliner.inline(document, 0)?;
    let changed = inliner.changed;
    let path = sources.file(*file).path.clone();
    Ok(changed.then(|| sources.add_tree(path, tree)))
}

struct Inliner<'a> {
    library: &'a DocumentLibrary,
    /// The pointer and name of each message of the document, by the identity of what defines it.
    names: BTreeMap<(String, String), (String, String)>,
    nodes: usize,
    changed: bool,
}

impl<'a> Inliner<'a> {
    fn inline(&mut self, place: DocumentRef<'a>, depth: usize) -> Result<SyntaxNode, Diagnostic> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err(circular_reference_error(place.node.span));
        }
        if let Some(reference) = place.text("$ref") {
            return self.inline_reference(place.clone(), reference, depth);
        }
        let kind = match &place.node.kind {
            NodeKind::List(_) => {
                NodeKind::List(place.items().map(|item| self.inline(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            NodeKind::Map(_) => {
                let mut members = Vec::new();
                for (key, member) in place.members() {
                    members.push((key.clone(), self.inline(member, depth + 1)?));
                }
                if is_message(&place) {
                    self.merge_traits(&place, &mut members, depth)?;
                }
                NodeKind::Map(members)
            }
            other => other.clone(),
        };
        Ok(SyntaxNode { span: place.node.span, kind })
    }

    fn inline_reference(
        &mut self,
        place: DocumentRef<'a>,
        reference: &str,
        depth: usize,
    ) -> Result<SyntaxNode, Diagnostic> {
        let is_root = |one: &DocumentRef<'_>| one.file == self.library.root;
        let (path, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        if pointer.is_empty() && path.ends_with(".schema.json") {
            return Ok(self.reference(&place, &join_path(place.file, path)));
        }
        // Only the parser of schemas understands references within a schema of the document.
        if is_root(&place) && path.is_empty() && !place.pointer.ends_with("/payload") {
            return Ok(place.node.clone());
        }
        let target = self.library.follow_reference(place.clone())?;
        let named = self.names.get(&target.identity()).filter(|(pointer, _)| *pointer != place.pointer);
        let wanted = named.map(|(pointer, _)| pointer.clone());
        // Operations and channels refer to other parts of the document.
        let wanted = wanted.or_else(|| {
            let part = target.pointer.starts_with("/channels/") || target.pointer.starts_with("/operations/");
            (is_root(&target) && part).then(|| target.pointer.clone())
        });
        if let Some(pointer) = wanted {
            return Ok(self.reference(&place, &format!("#{pointer}")));
        }
        self.changed = true;
        self.inline(target, depth + 1)
    }

    /// Returns the reference at a place with another target.
    fn reference(&mut self, place: &DocumentRef<'a>, target: &str) -> SyntaxNode {
        let mut node = place.node.clone();
        if let NodeKind::Map(members) = &mut node.kind {
            for (_, member) in members.iter_mut().filter(|(key, _)| key.name == "$ref") {
                self.changed |= member.text().is_none_or(|old| old.trim_start_matches("./") != target);
                member.kind = NodeKind::Text(NodeText { value: target.to_owned(), inner: None });
            }
        }
        node
    }

    /// Adds the members of the message's traits that the message does not have; a later trait overrides an earlier one.
    fn merge_traits(
        &mut self,
        message: &DocumentRef<'a>,
        members: &mut Vec<(NodeKey, SyntaxNode)>,
        depth: usize,
    ) -> Result<(), Diagnostic> {
        let traits = message.get("traits");
        let traits: Vec<_> = traits.iter().flat_map(DocumentRef::items).collect();
        for one in traits.into_iter().rev() {
            self.changed = true;
            for (key, member) in self.library.follow_reference(one)?.members() {
                if !members.iter().any(|(known, _)| known.name == key.name) {
                    members.push((key.clone(), self.inline(member, depth + 1)?));
                }
            }
        }
        members.retain(|(key, _)| key.name != "traits");
        Ok(())
    }
}

/// Whether a mapping may be a message with traits.
fn is_message(place: &DocumentRef<'_>) -> bool {
    place.node.get("traits").is_some_and(|traits| traits.list().is_some()) && place.node.get("action").is_none()
}
