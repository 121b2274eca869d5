//! `cases`: a table that turns a scenario into a separate scenario for each row.

use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::fields::{entries, mapping};
use crate::syntax::yaml::{NodeKey, NodeKind, SyntaxNode};

const EXAMPLE: &str = "cases: { NAME: { member: value } }";
const NAME_HELP: &str = "the name of a case consists of letters, digits, `-` and `_`, since it ends the scenario's id";

/// The tree of a scenario, without `cases`.
pub struct ScenarioCase {
    /// The end of the scenario's id: `/ROW`, or empty if the scenario has no cases.
    pub suffix: String,
    pub root: SyntaxNode,
}

/// Returns the scenarios of a file: one for each row of `cases`, in which the members of the row come first in `let`.
pub fn split_cases(root: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) -> Vec<ScenarioCase> {
    let Some(cases) = root.get("cases") else {
        return vec![ScenarioCase { suffix: String::new(), root: root.clone() }];
    };
    let before = diagnostics.len();
    let rows = mapping(Some(cases), "`cases`", EXAMPLE, diagnostics);
    if cases.is_null() || cases.map().is_some_and(<[_]>::is_empty) {
        diagnostics.push(
            Diagnostic::error(cases.span, "`cases` has no rows, so the scenario never runs")
                .help(format!("write `{EXAMPLE}`, or leave `cases` out")),
        );
    }
    for (name, row) in rows {
        check_row(name, row, diagnostics);
    }
    if diagnostics.len() == before {
        check_same_members(rows, diagnostics);
    }
    let mut split: Vec<ScenarioCase> = rows
        .iter()
        .map(|(name, row)| ScenarioCase { suffix: format!("/{}", name.name), root: case_tree(root, row) })
        .collect();
    if split.is_empty() {
        // The rest of the file is checked nevertheless.
        let root = without_cases(root, |_| {});
        split.push(ScenarioCase { suffix: String::new(), root });
    }
    split
}

fn check_row(name: &NodeKey, row: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.name.is_empty() || !name.name.chars().all(allowed) {
        let message = format!("a case cannot be called `{}`", name.name);
        diagnostics.push(Diagnostic::error(name.span, message).help(NAME_HELP));
    }
    let what = format!("the case `{}`", name.name);
    if mapping(Some(row), &what, EXAMPLE, diagnostics).is_empty() && (row.is_null() || row.map().is_some()) {
        diagnostics.push(
            Diagnostic::error(name.span, format!("{what} has no members"))
                .help("write the values in which the cases differ: `{ member: value }`"),
        );
    }
}

/// Reports members that only some rows have.
fn check_same_members(rows: &[(NodeKey, SyntaxNode)], diagnostics: &mut Vec<Diagnostic>) {
    let Some((first_name, first)) = rows.first() else { return };
    for (name, row) in &rows[1..] {
        for (missing, from, has, at) in [(row, name, first, first_name), (first, first_name, row, name)] {
            for (key, _) in entries(Some(has)).iter().filter(|(key, _)| missing.get(&key.name).is_none()) {
                diagnostics.push(
                    Diagnostic::error(from.span, format!("the case `{}` has no `{}`", from.name, key.name))
                        .also(key.span, format!("the case `{}` has it", at.name))
                        .help("all cases must have the same members; `null` stands for no value"),
                );
            }
        }
    }
}

/// Returns the tree of a scenario without `cases`, with the members of a row as its first values.
fn case_tree(root: &SyntaxNode, row: &SyntaxNode) -> SyntaxNode {
    let members = entries(Some(row)).to_vec();
    if members.is_empty() {
        return without_cases(root, |_| {});
    }
    without_cases(root, |keys| match keys.iter_mut().find(|(key, _)| key.name == "let") {
        Some((_, lets)) => match &mut lets.kind {
            NodeKind::Map(own) => drop(own.splice(0..0, members)),
            // A `let` of another kind is reported instead.
            NodeKind::Null => lets.kind = NodeKind::Map(members),
            _ => {}
        },
        None => {
            let key = NodeKey { name: "let".to_owned(), span: row.span };
            keys.push((key, SyntaxNode { span: row.span, kind: NodeKind::Map(members) }));
        }
    })
}

fn without_cases(root: &SyntaxNode, change: impl FnOnce(&mut Vec<(NodeKey, SyntaxNode)>)) -> SyntaxNode {
    let mut keys: Vec<_> = entries(Some(root)).iter().filter(|(key, _)| key.name != "cases").cloned().collect();
    change(&mut keys);
    SyntaxNode { span: root.span, kind: NodeKind::Map(keys) }
}
