//! Changes single steps: `steps` is a mapping from the text of a step to its replacement.

use std::collections::BTreeMap;

use super::StaleOverrides;
use super::overrides::merge_members;
use crate::syntax::diagnostic::{Diagnostic, nearest};
use crate::syntax::source::Sources;
use crate::syntax::yaml::{self, NodeKind, SyntaxNode};

/// In a list of new steps, stands for the step that the list replaces.
const ORIGINAL_STEP: &str = "original";

/// The steps that replace a step, possibly none. `None` stands for the original step.
type StepReplacement = Vec<Option<SyntaxNode>>;

/// Returns `base` with the steps that `over` changes; `None` if `over` does not change single steps but replaces `base`
/// as a whole. Messages call `base`, a file or an entry, by the name `what`.
pub fn change_steps(
    what: &str,
    base: &SyntaxNode,
    over: &SyntaxNode,
    stale: &StaleOverrides<'_>,
) -> Option<SyntaxNode> {
    let changes = over.get("steps")?.map()?;
    let mut tree = base.clone();
    let mut known = Vec::new();
    visit_steps(base, &mut |step| known.push((first_line(step), step)));
    let mut replacements: BTreeMap<usize, StepReplacement> = BTreeMap::new();
    for (key, node) in changes {
        let wrong = |message: String, help: String| stale.report(Diagnostic::error(key.span, message).help(help));
        let (wanted, which) = match key.name.rsplit_once(" #").map(|(text, number)| (text, number.parse::<usize>())) {
            Some((text, Ok(number))) => (text, Some(number)),
            _ => (key.name.as_str(), None),
        };
        let wanted = wanted.trim().trim_end_matches(':');
        let as_written = parse_first_line(wanted);
        let is_it = |text: &String| text == wanted || as_written.as_ref() == Some(text);
        let found: Vec<usize> = (0..known.len()).filter(|at| is_it(&known[*at].0)).collect();
        let place = match (found.as_slice(), which) {
            ([], _) => {
                let help = match nearest(wanted, known.iter().map(|(text, _)| text.as_str())) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "name a step by the text of its first line, without the options below it".to_owned(),
                };
                wrong(format!("{} of `{}` has no step `{wanted}`", super::describe_overridden(what), stale.base), help);
                continue;
            }
            ([place], None) => *place,
            (places, None) => {
                let message =
                    format!("{} has the step `{wanted}` {} times", super::describe_overridden(what), places.len());
                wrong(message, format!("write which one: `{wanted} #1` to `{wanted} #{}`", places.len()));
                continue;
            }
            (places, Some(number)) => match number.checked_sub(1).and_then(|at| places.get(at)) {
                Some(place) => *place,
                None => {
                    let message =
                        format!("{} of `{}` has no step `{}`", super::describe_overridden(what), stale.base, key.name);
                    wrong(message, format!("it has `{wanted} #1` to `{wanted} #{}`", places.len()));
                    continue;
                }
            },
        };
        match parse_replacement(node) {
            Some(steps) => {
                let same = match steps.as_slice() {
                    [None] => true,
                    [Some(step)] => step.to_json() == known[place].1.to_json(),
                    _ => false,
                };
                if same {
                    let message = format!("step `{wanted}` is the same in `{}`", stale.base);
                    wrong(message, super::UNCHANGED_HELP.to_owned());
                }
                if replacements.insert(place, steps).is_some() {
                    wrong(format!("the step `{wanted}` is changed twice"), "keep one of the two".to_owned());
                }
            }
            None => stale
                .report(Diagnostic::error(node.span, format!("a step must be a mapping, not {}", node.describe_kind())).help(
                "write the new step, a list of steps in which `original` stands for the old one, or null to remove it",
            )),
        }
    }
    let mut next = 0;
    replace_steps(&mut tree, &mut next, &mut replacements);
    let others = over.map().unwrap_or_default().iter().filter(|(key, _)| key.name != "steps").cloned().collect();
    Some(merge_members(what, &tree, &SyntaxNode { span: over.span, kind: NodeKind::Map(others) }, stale))
}

fn parse_replacement(node: &SyntaxNode) -> Option<StepReplacement> {
    match &node.kind {
        NodeKind::Null => Some(Vec::new()),
        NodeKind::Map(_) => Some(vec![Some(node.clone())]),
        NodeKind::List(items) => items
            .iter()
            .map(|item| match item.text() {
                Some(ORIGINAL_STEP) => Some(None),
                _ => item.map().map(|_| Some(item.clone())),
            })
            .collect(),
        _ => None,
    }
}

/// Returns the text of a step's first line.
fn first_line(step: &SyntaxNode) -> String {
    let Some((key, value)) = step.map().and_then(<[_]>::first) else { return String::new() };
    match &value.kind {
        NodeKind::Text(text) => format!("{}: {}", key.name, text.value),
        NodeKind::Bool(_) | NodeKind::Number(_) => format!("{}: {}", key.name, value.to_json()),
        _ => key.name.clone(),
    }
}

/// Returns the text of a step's first line from that line as a file has it: with quotes, a dash or a comment.
fn parse_first_line(line: &str) -> Option<String> {
    let file = Sources::default().add("step", line);
    let step = yaml::parse_text(line, file).ok()?;
    let step = step.list().and_then(<[_]>::first).unwrap_or(&step);
    step.map().map(|_| first_line(step))
}

/// Calls `visit` with every mapping in a list, in the order of the file. All steps are such mappings.
fn visit_steps<'n>(node: &'n SyntaxNode, visit: &mut impl FnMut(&'n SyntaxNode)) {
    match &node.kind {
        NodeKind::List(items) => {
            for item in items {
                if item.map().is_some() {
                    visit(item);
                }
                visit_steps(item, visit);
            }
        }
        NodeKind::Map(members) => members.iter().for_each(|(_, member)| visit_steps(member, visit)),
        _ => {}
    }
}

/// Replaces mappings in lists, identified by their position in the order of [`visit_steps`].
fn replace_steps(node: &mut SyntaxNode, next: &mut usize, replacements: &mut BTreeMap<usize, StepReplacement>) {
    match &mut node.kind {
        NodeKind::List(items) => {
            let mut kept = Vec::with_capacity(items.len());
            for mut item in std::mem::take(items) {
                let here = item.map().is_some().then_some(*next);
                *next += usize::from(here.is_some());
                replace_steps(&mut item, next, replacements);
                match here.and_then(|here| replacements.remove(&here)) {
                    Some(steps) => kept.extend(steps.into_iter().map(|step| step.unwrap_or_else(|| item.clone()))),
                    None => kept.push(item),
                }
            }
            *items = kept;
        }
        NodeKind::Map(members) => members.iter_mut().for_each(|(_, member)| replace_steps(member, next, replacements)),
        _ => {}
    }
}
