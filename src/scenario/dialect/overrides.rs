//! Overrides single entries of files that have entries: asyncapi.yaml, rules.yaml and scenarios/shared.yaml.

use super::{StaleOverrides, steps};
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::fields::entries;
use crate::syntax::matcher::escape;
use crate::syntax::yaml::{NodeKey, NodeKind, SyntaxNode};

/// The mappings whose entries are overridden one by one: file, JSON pointer, and kind of the entries.
const OVERRIDABLE_MAPPINGS: [(&str, &str, &str); 15] = [
    ("asyncapi.yaml", "", "section"),
    ("asyncapi.yaml", "/info", "info"),
    ("asyncapi.yaml", "/channels", "channel"),
    ("asyncapi.yaml", "/operations", "operation"),
    ("asyncapi.yaml", "/components", "component"),
    ("asyncapi.yaml", "/components/messages", "message"),
    ("rules.yaml", "", "section"),
    ("rules.yaml", "/rules", "rule"),
    (SHARED_PATH, "", "section"),
    (SHARED_PATH, "/hub", "setting"),
    (SHARED_PATH, "/hooks", "hook"),
    (SHARED_PATH, "/roles", "role"),
    (SHARED_PATH, "/scenes", "scene"),
    (SHARED_PATH, "/variations", "variations"),
    (SHARED_PATH, "/fuzz", "fuzz"),
];

const SHARED_PATH: &str = "scenarios/shared.yaml";

/// Whether a file is overridden entry by entry rather than as a whole.
pub fn is_overridden_by_entry(path: &str) -> bool {
    OVERRIDABLE_MAPPINGS.iter().any(|(file, ..)| *file == path)
}

/// Returns the kinds of additions other than files.
pub fn addition_kinds() -> Vec<&'static str> {
    let mut kinds: Vec<&str> = OVERRIDABLE_MAPPINGS.iter().map(|(.., kind)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn entry_kind(file: &str, pointer: &str) -> Option<&'static str> {
    OVERRIDABLE_MAPPINGS.iter().find(|(of, at, _)| *of == file && *at == pointer).map(|(.., kind)| *kind)
}

/// Returns the tree of the file `path` with its entries overridden by the entries of `over`.
pub fn merge_file(path: &str, base: Option<SyntaxNode>, over: &SyntaxNode, stale: &StaleOverrides<'_>) -> SyntaxNode {
    let base = base.unwrap_or(SyntaxNode { span: over.span, kind: NodeKind::Map(Vec::new()) });
    let mut tree = merge_entries(path, "", base, over, stale);
    if path == "asyncapi.yaml" {
        let messages = over.get("components").and_then(|components| components.get("messages"));
        let removed = entries(messages).iter().filter(|(_, node)| node.is_null());
        let removed: Vec<String> =
            removed.map(|(key, _)| format!("#/components/messages/{}", escape(&key.name))).collect();
        remove_message_references(&mut tree, removed);
    }
    tree
}

fn merge_entries(
    file: &str,
    pointer: &str,
    base: SyntaxNode,
    over: &SyntaxNode,
    stale: &StaleOverrides<'_>,
) -> SyntaxNode {
    let (Some(kind), Some(overrides)) = (entry_kind(file, pointer), over.map()) else { return over.clone() };
    let NodeKind::Map(mut merged) = base.kind else { return over.clone() };
    for (key, node) in overrides {
        let what = format!("{kind} {}", key.name);
        let inner = format!("{pointer}/{}", escape(&key.name));
        let is_mapping = entry_kind(file, &inner).is_some() && node.map().is_some();
        let place = merged.iter().position(|(known, _)| known.name == key.name);
        let Some(place) = place else {
            let known: Vec<&str> = merged.iter().map(|(known, _)| known.name.as_str()).collect();
            if is_mapping {
                // A mapping that the base does not have counts as empty, so its entries are additions.
                let empty = SyntaxNode { span: node.span, kind: NodeKind::Map(Vec::new()) };
                merged.push((key.clone(), merge_entries(file, &inner, empty, node, stale)));
            } else if stale.check_added(&what, &key.name, key.span, node.is_null(), &known) {
                merged.push((key.clone(), node.clone()));
            }
            continue;
        };
        let old = merged[place].1.clone();
        if is_mapping {
            merged[place].1 = merge_entries(file, &inner, old, node, stale);
            continue;
        }
        let before = stale.diagnostic_count();
        let new = match steps::change_steps(&what, &old, node, stale) {
            _ if node.is_null() => None,
            Some(changed) => Some(changed),
            None if old.map().is_some() && node.map().is_some() => Some(merge_members(&what, &old, node, stale)),
            None => Some(node.clone()),
        };
        let changes = new.as_ref().is_none_or(|new| new.to_json() != old.to_json());
        stale.check_override(&what, key.span, changes || stale.diagnostic_count() > before);
        match new {
            Some(new) => merged[place].1 = new,
            None => drop(merged.remove(place)),
        }
    }
    SyntaxNode { span: base.span, kind: NodeKind::Map(merged) }
}

/// Returns `base` with the members of `over`, where null removes a member. Messages call `base` by the name `what`.
pub fn merge_members(what: &str, base: &SyntaxNode, over: &SyntaxNode, stale: &StaleOverrides<'_>) -> SyntaxNode {
    let mut merged = base.map().unwrap_or_default().to_vec();
    for (key, node) in over.map().unwrap_or_default() {
        match merged.iter().position(|(known, _)| known.name == key.name) {
            Some(place) if node.is_null() => drop(merged.remove(place)),
            Some(place) => merged[place] = (key.clone(), node.clone()),
            None if node.is_null() => {
                let known: Vec<&str> = merged.iter().map(|(known, _)| known.name.as_str()).collect();
                let help = suggest(&key.name, known.iter().copied(), "delete this entry if there is nothing to remove");
                let message =
                    format!("{} of `{}` has no `{}` to remove", super::describe_overridden(what), stale.base, key.name);
                stale.report(Diagnostic::error(key.span, message).help(help));
            }
            None => merged.push((key.clone(), node.clone())),
        }
    }
    SyntaxNode { span: base.span, kind: NodeKind::Map(merged) }
}

/// Removes references to removed messages from channels and operations, and operations that have no other messages.
fn remove_message_references(document: &mut SyntaxNode, mut removed: Vec<String>) {
    let NodeKind::Map(sections) = &mut document.kind else { return };
    for (section, node) in sections.iter_mut().filter(|(key, _)| matches!(key.name.as_str(), "channels" | "operations"))
    {
        let path = format!("#/{}", section.name);
        remove_references(node, &path, &mut removed);
    }
}

/// Removes entries that refer to a path in `removed`, and adds their own paths to it. Returns whether `node` still
/// makes sense.
fn remove_references(node: &mut SyntaxNode, path: &str, removed: &mut Vec<String>) -> bool {
    if node.get("$ref").and_then(SyntaxNode::text).is_some_and(|reference| removed.iter().any(|path| path == reference))
    {
        removed.push(path.to_owned());
        return false;
    }
    match &mut node.kind {
        NodeKind::List(items) => {
            let before = items.len();
            items.retain_mut(|item| remove_references(item, path, removed));
            before == items.len() || !items.is_empty()
        }
        NodeKind::Map(members) => {
            let mut emptied = false;
            members.retain_mut(|(NodeKey { name, .. }, member)| {
                let keeps = remove_references(member, &format!("{path}/{}", escape(name)), removed);
                // Without its last message, an operation or a reply would stand for all messages of its channel.
                emptied |= !keeps && name == "messages" && member.list().is_some();
                keeps
            });
            !emptied
        }
        _ => true,
    }
}
