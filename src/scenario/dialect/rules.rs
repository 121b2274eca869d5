//! Removes rules from a pack together with their uses, so that no check remains that only a removed rule demanded.

use std::collections::{BTreeMap, BTreeSet};

use crate::scenario::parse::verbs;
use crate::syntax::fields::entries;
use crate::syntax::source::{FileId, Sources};
use crate::syntax::yaml::{self, NodeKind, SyntaxNode};

/// Removes the uses of all rules that are null in the dialect's rules.yaml, from the files of the base.
pub fn remove_rules(overrides: Option<FileId>, base: &mut BTreeMap<String, FileId>, sources: &mut Sources) {
    let Some(root) = overrides.and_then(|file| yaml::parse(sources, file).ok()) else { return };
    let rules = entries(root.get("rules")).iter();
    let removed: BTreeSet<&str> = rules.filter(|(_, node)| node.is_null()).map(|(key, _)| key.name.as_str()).collect();
    for (path, file) in base.iter_mut().filter(|(path, _)| *path != "rules.yaml") {
        let text = &sources.file(*file).text;
        if path.ends_with(".toml") || !removed.iter().any(|rule| text.contains(rule)) {
            continue;
        }
        if let Ok(mut tree) = yaml::parse(sources, *file) {
            prune_rules(&mut tree, &removed);
            *file = sources.add_tree(sources.file(*file).path.clone(), tree);
        }
    }
}

/// Whether a text is a removed rule, as `ABC-001` or `ABC-001 as should`.
fn is_removed_rule(text: &str, removed: &BTreeSet<&str>) -> bool {
    removed.contains(text.split(" as ").next().unwrap_or_default().trim())
}

/// Removes the uses of rules within a node. Returns whether the node still has a purpose.
fn prune_rules(node: &mut SyntaxNode, removed: &BTreeSet<&str>) -> bool {
    match &mut node.kind {
        NodeKind::List(items) => {
            items.retain_mut(|item| !is_rule_row(item, removed) && prune_rules(item, removed));
            true
        }
        NodeKind::Map(members) => {
            let head = members.first().map(|(key, _)| key.name.clone()).unwrap_or_default();
            let mut lost = BTreeSet::new();
            members.retain_mut(|(key, member)| {
                let emptied = match (key.name.as_str(), &mut member.kind) {
                    ("rules" | "x-rules" | "goes_on", NodeKind::List(items)) => {
                        let before = items.len();
                        items.retain(|item| !item.text().is_some_and(|text| is_removed_rule(text, removed)));
                        before > 0 && items.is_empty()
                    }
                    ("has", NodeKind::Map(lines)) => {
                        let before = lines.len();
                        lines.retain_mut(|(key, _)| {
                            let all = key.name.split(',').count();
                            let kept: Vec<&str> =
                                key.name.split(',').filter(|rule| !is_removed_rule(rule, removed)).collect();
                            let (left, name) = (kept.len(), kept.join(",").trim().to_owned());
                            if left < all {
                                key.name = name;
                            }
                            left > 0
                        });
                        before > 0 && lines.is_empty()
                    }
                    _ => {
                        prune_rules(member, removed);
                        false
                    }
                };
                if emptied {
                    lost.insert(key.name.clone());
                }
                !emptied
            });
            let has_member = |name: &str| members.iter().any(|(key, _)| key.name == name);
            !(lost.contains("has") && head == "every"
                || lost.contains("rules")
                    && (verbs::parse_head(&head).is_some_and(|head| head.verb.only_judges())
                        // An entry of `x-should`, and one of `answers`.
                        || has_member("schema")
                        || has_member("class")))
        }
        _ => true,
    }
}

/// Whether a node is a row of a table that names a removed rule, for a step with `rules: ["${row.rule}"]`.
fn is_rule_row(node: &SyntaxNode, removed: &BTreeSet<&str>) -> bool {
    let mut members = node.map().unwrap_or_default().iter();
    members.any(|(key, member)| key.name == "rule" && member.text().is_some_and(|text| is_removed_rule(text, removed)))
}
