//! Finds cuts in a scenario: of steps, of parts of steps, and of parts of the sent input. Large cuts come first. A round
//! has at most a few dozen cuts of each size, whatever the length; the next round finds the rest.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Value, json};

use super::json_text::{self, JsonTextNode};
use super::{cleanup, steps};
use crate::fuzz::case_scenario::{CaseScenario, CaseStep, StepOption};
use crate::fuzz::expressions;
use crate::scenario::parse::verbs::StepVerb;

/// A part to leave out or to shorten.
#[derive(Debug)]
pub enum ScenarioCut {
    Finally,
    /// Removes these steps within the step of this path, or these top-level steps.
    Steps(Vec<usize>, Vec<usize>),
    /// Removes the option `without` of a step.
    Without(Vec<usize>),
    Part(Part, CutChange),
}

/// A JSON value of a scenario: a JSON pointer into its holder.
#[derive(Clone, Debug)]
pub struct Part {
    holder: Holder,
    pointer: String,
}

#[derive(Clone, Debug)]
enum Holder {
    Actor(String),
    Argument(Vec<usize>),
    Option(Vec<usize>, &'static str),
}

#[derive(Debug)]
pub enum CutChange {
    /// Removes these items of an array.
    Items(Vec<usize>),
    Member(String),
    Put(Value),
    /// Replaces this part of a text.
    Text(Range<usize>, String),
}

impl ScenarioCut {
    /// Returns the scenario after the cut; `None` where the cut does not apply.
    pub fn apply(&self, scenario: &CaseScenario) -> Option<CaseScenario> {
        let mut smaller = scenario.clone();
        match self {
            Self::Finally => smaller.finally.clear(),
            Self::Steps(path, gone) if path.is_empty() => remove(&mut smaller.steps, gone),
            Self::Steps(path, gone) => remove(smaller.step_mut(path)?.inner_mut()?, gone),
            Self::Without(path) => smaller
                .step_mut(path)?
                .options
                .retain(|option| !matches!(option, StepOption::Other(key, _) if key == "without")),
            Self::Part(part, change) => {
                let value = part.find(&mut smaller)?;
                match change {
                    CutChange::Items(gone) => remove(value.as_array_mut()?, gone),
                    CutChange::Member(name) => drop(value.as_object_mut()?.shift_remove(name)),
                    CutChange::Put(new) => *value = new.clone(),
                    CutChange::Text(range, new) => {
                        *value = json_text::replace_range(value.as_str()?, range.clone(), new).into();
                    }
                }
            }
        }
        Some(smaller)
    }
}

impl Part {
    fn new(holder: Holder, pointer: impl Into<String>) -> Self {
        Self { holder, pointer: pointer.into() }
    }

    fn find<'a>(&self, scenario: &'a mut CaseScenario) -> Option<&'a mut Value> {
        let value = match &self.holder {
            Holder::Actor(name) => scenario.actors.get_mut(name)?,
            Holder::Argument(path) => &mut scenario.step_mut(path)?.argument,
            Holder::Option(path, key) => scenario.step_mut(path)?.option_mut(key)?,
        };
        value.pointer_mut(&self.pointer)
    }
}

fn remove<T>(items: &mut Vec<T>, gone: &[usize]) {
    let mut index = 0;
    items.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
}

/// Returns ranges of neighbouring items to remove from `len` items. Large ranges come first, and ranges at the end come
/// before those at the start, since later steps depend on earlier ones. Sizes that give more than `most` ranges are
/// left out.
fn removal_ranges(len: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let sizes = std::iter::successors(Some(len), |size| Some(size / 2)).take_while(|size| *size > 0);
    sizes.filter(move |size| len.div_ceil(*size) <= most).flat_map(move |size| {
        (0..len.div_ceil(size)).map(move |index| {
            let end = len - index * size;
            end.saturating_sub(size)..end
        })
    })
}

/// The most cuts of one size in an array.
const MAX_ITEM_CUTS: usize = 64;
/// The most cuts of one size in a text. A few rounds that each remove an eighth make the text short.
const MAX_TEXT_CUTS: usize = 8;

// ---- steps

/// Returns cuts that often succeed: removing all other checks, and removing everything but openings, mutated messages
/// and the failed check.
pub fn guess_cuts(scenario: &CaseScenario, check: &str) -> Vec<ScenarioCut> {
    let mutated: BTreeSet<usize> = steps::mutated_sends(scenario, check).iter().map(steps::LocatedStep::top).collect();
    // A single one of several mutated messages may be enough.
    let each =
        mutated.iter().rev().filter(|_| mutated.len() > 1).take(MAX_GUESSES).map(|index| BTreeSet::from([*index]));
    let mut cuts: Vec<ScenarioCut> =
        each.chain([mutated.clone()]).flat_map(|mutated| keep_only_check(scenario, check, &mutated)).collect();
    cuts.extend(keep_steps(scenario, &|_, step| steps::makes_check(step, check) || !steps::has_rules(step)));
    cuts
}

/// The most mutated messages that are tried alone.
const MAX_GUESSES: usize = 12;

/// Keeps only the check, these steps, and the openings of the actors that take part in them.
fn keep_only_check(scenario: &CaseScenario, check: &str, mutated: &BTreeSet<usize>) -> Option<ScenarioCut> {
    let needed = |index: usize, step: &CaseStep| steps::makes_check(step, check) || mutated.contains(&index);
    let mut names = Vec::new();
    let kept = scenario.steps.iter().enumerate().filter(|(index, step)| needed(*index, step));
    kept.for_each(|(_, step)| cleanup::collect_words(&step.to_json(), &mut names));
    let mut named = names.clone();
    named.extend(names.iter().flat_map(|name| scenario.group(name)).map(str::to_owned));
    let is_named = |name: &str| named.iter().any(|known| known == name);
    let takes_part = |actor: &str| is_named(actor) || scenario.group(actor).any(is_named);
    keep_steps(scenario, &|index, step| {
        needed(index, step) || steps::only_connects(step) && takes_part(step.actor_or_group())
    })
}

/// Keeps only some top-level steps; `None` if nothing or everything would be removed.
fn keep_steps(scenario: &CaseScenario, keeps: &dyn Fn(usize, &CaseStep) -> bool) -> Option<ScenarioCut> {
    let all = scenario.steps.iter().enumerate();
    let gone: Vec<usize> = all.filter(|(index, step)| !keeps(*index, step)).map(|(index, _)| index).collect();
    let some = !gone.is_empty() && gone.len() < scenario.steps.len();
    some.then(|| ScenarioCut::Steps(Vec::new(), gone))
}

/// Returns cuts of steps, beginning with `finally`.
pub fn step_cuts(scenario: &CaseScenario) -> Vec<ScenarioCut> {
    let finally = (!scenario.finally.is_empty()).then_some(ScenarioCut::Finally);
    let steps = index_cuts(scenario.steps.len()).map(|gone| ScenarioCut::Steps(Vec::new(), gone));
    finally.into_iter().chain(steps).collect()
}

// ---- parts of steps

/// Returns cuts of rounds, inner steps, frames, overrides, members of groups, and counts of actors.
pub fn part_cuts(scenario: &CaseScenario) -> Vec<ScenarioCut> {
    let mut cuts = Vec::new();
    for (name, actor) in &scenario.actors {
        let part = |pointer: &str| Part::new(Holder::Actor(name.clone()), pointer);
        add_count_cuts(&part("/count"), actor.get("count"), &mut cuts);
        add_item_cuts(&part(""), Some(actor), &mut cuts);
    }
    for steps::LocatedStep { path, step } in steps::shrinkable_steps(scenario) {
        // A check inside a loop does not depend on the number of rounds.
        add_count_cuts(&Part::new(Holder::Option(path.clone(), "in"), ""), step.option("in"), &mut cuts);
        if steps::has_rules(step) {
            continue;
        }
        cuts.extend(index_cuts(step.inner().len()).map(|gone| ScenarioCut::Steps(path.clone(), gone)));
        if step.verb == StepVerb::SendsRaw {
            let frames = Part::new(Holder::Argument(path.clone()), "/frames");
            add_item_cuts(&frames, step.argument.get("frames"), &mut cuts);
        }
        if step.option("without").is_some() {
            cuts.push(ScenarioCut::Without(path.clone()));
        }
        // An override with an expression often separates this conversation from others, so it stays.
        for (name, value) in step.option("with").and_then(Value::as_object).into_iter().flatten() {
            if !expressions::any(value, &|_| true) {
                let with = Part::new(Holder::Option(path.clone(), "with"), "");
                cuts.push(ScenarioCut::Part(with, CutChange::Member(name.clone())));
            }
        }
    }
    cuts
}

/// Adds cuts that reduce a number of rounds or actors, or an array of them.
fn add_count_cuts(part: &Part, value: Option<&Value>, cuts: &mut Vec<ScenarioCut>) {
    match value.and_then(Value::as_u64) {
        Some(count) if count > 1 => {
            let less = if count > 3 { vec![1, count / 2, count - 1] } else { vec![1] };
            cuts.extend(less.into_iter().map(|n| ScenarioCut::Part(part.clone(), CutChange::Put(json!(n)))));
        }
        _ => add_item_cuts(part, value, cuts),
    }
}

/// Adds cuts that remove some items of an array, but not all.
fn add_item_cuts(part: &Part, value: Option<&Value>, cuts: &mut Vec<ScenarioCut>) {
    let len = value.and_then(Value::as_array).map_or(0, Vec::len);
    cuts.extend(index_cuts(len).map(|gone| ScenarioCut::Part(part.clone(), CutChange::Items(gone))));
}

/// Returns what to remove from `len` items, but never all: the indices of each cut.
fn index_cuts(len: usize) -> impl Iterator<Item = Vec<usize>> {
    removal_ranges(len, MAX_ITEM_CUTS).filter(move |gone| gone.len() < len).map(Range::collect)
}

// ---- parts of the sent input

/// Returns cuts that shorten the texts of `sends raw` steps.
pub fn text_cuts(scenario: &CaseScenario) -> Vec<ScenarioCut> {
    let mut cuts = Vec::new();
    for (part, text) in raw_texts(scenario) {
        let here = |(range, new)| ScenarioCut::Part(part.clone(), CutChange::Text(range, new));
        cuts.extend(shorten_text(text).into_iter().map(here));
    }
    cuts
}

/// Returns every text of `sends raw` steps, with its place.
fn raw_texts(scenario: &CaseScenario) -> Vec<(Part, &str)> {
    let mut texts = Vec::new();
    for steps::LocatedStep { path, step } in steps::raw_sends(scenario) {
        let part = |pointer: String| Part::new(Holder::Argument(path.clone()), pointer);
        // In a loop the text is an expression, and the loop's list contains its values.
        let text = step.argument.get("text").and_then(Value::as_str);
        let text = text.filter(|text| expressions::source(text).is_none());
        texts.extend(text.map(|text| (part("/text".to_owned()), text)));
        let frames = step.argument.get("frames").and_then(Value::as_array).into_iter().flatten().enumerate();
        let data =
            frames.filter_map(|(at, frame)| Some((part(format!("/frames/{at}/data")), frame.get("data")?.as_str()?)));
        texts.extend(data);
    }
    texts
}

/// Returns how a text can be shortened: ranges and their replacements.
fn shorten_text(text: &str) -> Vec<(Range<usize>, String)> {
    let mut cuts = reduce_repetitions(text);
    match json_text::parse_nodes(text) {
        Some(nodes) => {
            cuts.extend(flatten_nesting(text, &nodes));
            for node in &nodes {
                match &node.kind {
                    json_text::JsonTextKind::Object(_) | json_text::JsonTextKind::Array(_) => {
                        let pieces = node.elements();
                        let gone = removal_ranges(pieces.len(), MAX_ITEM_CUTS)
                            .filter_map(|gone| json_text::removal_range(pieces, gone));
                        cuts.extend(gone.map(|range| (range, String::new())));
                    }
                    json_text::JsonTextKind::Text => {
                        let inner = node.range.start + 1..node.range.end - 1;
                        cuts.extend(remove_characters(text, inner, MAX_TEXT_CUTS));
                    }
                    json_text::JsonTextKind::Other => cuts.extend(simplify_value(text, &node.range)),
                }
            }
        }
        None => cuts.extend(remove_characters(text, 0..text.len(), 2 * MAX_TEXT_CUTS)),
    }
    cuts
}

/// Returns cuts that remove some characters.
fn remove_characters(text: &str, within: Range<usize>, most: usize) -> Vec<(Range<usize>, String)> {
    let atoms = json_text::atoms(&text[within.clone()]);
    let place = |gone: Range<usize>| {
        let (first, last) = (atoms.get(gone.start)?, atoms.get(gone.end.checked_sub(1)?)?);
        Some((within.start + first.start..within.start + last.end, String::new()))
    };
    removal_ranges(atoms.len(), most).filter_map(place).collect()
}

/// Returns cuts that replace a number by a shorter one, or an expression by a constant.
fn simplify_value(text: &str, range: &Range<usize>) -> Vec<(Range<usize>, String)> {
    let old = &text[range.clone()];
    if expressions::source(old).is_some() {
        // A constant may be enough instead of a value that another step provides.
        let plain = ["\"x\"", "0", "\"00000000-0000-0000-0000-000000000000\""];
        return plain.into_iter().map(|new| (range.clone(), new.to_owned())).collect();
    }
    if !old.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return Vec::new();
    }
    let half = old.get(..old.len() / 2).unwrap_or_default().trim_end_matches(|c: char| !c.is_ascii_digit());
    let mut simple = vec!["0", "1", "-1", half];
    simple.retain(|new| !new.is_empty() && new.len() < old.len());
    simple.dedup();
    simple.into_iter().map(|new| (range.clone(), new.to_owned())).collect()
}

/// Returns cuts that remove levels of the deepest nesting in a text: half of them, a quarter, and so on down to one.
fn flatten_nesting(text: &str, nodes: &[JsonTextNode]) -> Vec<(Range<usize>, String)> {
    let mut heights = vec![1usize; nodes.len()];
    // Children follow their parents.
    for index in (0..nodes.len()).rev() {
        heights[index] = 1 + nodes[index].elements().iter().map(|piece| heights[piece.value]).max().unwrap_or(0);
    }
    let tallest = |index: &usize| {
        let pieces = nodes[*index].elements().iter().map(|piece| piece.value);
        pieces.max_by_key(|value| (heights[*value], std::cmp::Reverse(*value)))
    };
    let path: Vec<usize> = std::iter::successors((!nodes.is_empty()).then_some(0), tallest).collect();
    if path.len() <= REMOVAL_LEVELS {
        return Vec::new();
    }
    let levels =
        std::iter::successors(Some(path.len() / 2), |levels| Some(levels / 2)).take_while(|levels| *levels > 0);
    let from = |levels: usize| (0..path.len().saturating_sub(levels).min(REMOVAL_LEVELS)).map(move |top| (top, levels));
    levels
        .flat_map(from)
        .map(|(top, levels)| {
            let inner = nodes[path[top + levels]].range.clone();
            (nodes[path[top]].range.clone(), text[inner].to_owned())
        })
        .collect()
}

/// The number of levels at which the removal may begin: the message, its members, their content. A text with fewer
/// levels is not flattened.
const REMOVAL_LEVELS: usize = 4;

/// Returns cuts that reduce the count in `${repeat('x', 1048576)}`.
fn reduce_repetitions(text: &str) -> Vec<(Range<usize>, String)> {
    let mut cuts = Vec::new();
    for atom in json_text::atoms(text) {
        let Some(expression) = expressions::only(&text[atom.clone()]) else { continue };
        let Some(call) = expression.call().filter(|call| call.function == "repeat") else { continue };
        let Some([Value::String(part), Value::Number(count)]) = call.constants().as_deref() else { continue };
        let count = count.as_u64().unwrap_or_default();
        let less = [count / 2, count / 4 * 3, count / 8 * 7].into_iter().filter(|less| *less < count);
        let quoted = if part == "x" { "'x'".to_owned() } else { json!(part).to_string() };
        cuts.extend(less.map(|less| (atom.clone(), format!("${{repeat({quoted}, {less})}}"))));
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(3, 8, &[0..3, 2..3, 1..2, 0..1])]
    #[case(4, 2, &[0..4, 2..4, 0..2])]
    #[case(0, 8, &[])]
    fn large_chunks_are_cut_before_small_ones(
        #[case] len: usize,
        #[case] most: usize,
        #[case] expected: &[Range<usize>],
    ) {
        assert_eq!(removal_ranges(len, most).collect::<Vec<_>>(), expected);
    }

    #[rstest]
    #[case::members(r#"{"a":1,"b":2}"#, &["{}", r#"{"a":1}"#, r#"{"b":2}"#])]
    #[case::number("[123]", &["[]", "[0]", "[1]", "[-1]", "[1]"])]
    #[case::text(r#""ab""#, &[r#""""#, r#""a""#, r#""b""#])]
    #[case::expression("${json(x)}", &["\"x\"", "0", "\"00000000-0000-0000-0000-000000000000\""])]
    #[case::repeated("${repeat('x', 8)}", &["${repeat('x', 4)}", "${repeat('x', 6)}", "${repeat('x', 7)}", "\"x\"", "0", "\"00000000-0000-0000-0000-000000000000\""])]
    #[case::nested("[[[[1]]]]", &["[[1]]", "[[1]]", "[[1]]", "[[[1]]]", "[[[1]]]", "[[[1]]]", "[[[1]]]"])]
    #[case::no_json("{\\u00e4", &["", "{", "\\u00e4"])]
    fn every_cut_shortens_the_text(#[case] text: &str, #[case] expected: &[&str]) {
        let mut found: Vec<_> =
            shorten_text(text).into_iter().map(|(range, new)| json_text::replace_range(text, range, &new)).collect();
        found.retain(|new| text != "[[[[1]]]]" || new.contains('1'));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_number_of_cuts_of_a_long_list_is_limited() {
        let text = serde_json::to_string(&vec![0; 10_000]).unwrap();
        assert!(shorten_text(&text).len() < 200);
    }

    #[test]
    fn a_guessed_cut_keeps_the_openings_of_participating_actors() {
        let scenario = CaseScenario::of(&json!({
            "actors": { "innocent": "c", "a": "c", "b": "c", "both": ["a", "b"] },
            "steps": [
                { "innocent joins": null }, { "both join": null }, { "a sends": "x" },
                { "a sends raw": { "text": "" } }, { "a expects": "y", "rules": ["R"] },
                { "innocent expects": "z", "rules": ["S"] },
            ]
        }));
        let left = guess_cuts(&scenario, "R").remove(0).apply(&scenario).unwrap();
        let verbs: Vec<_> = left.steps.iter().map(|step| step.verb).collect();
        assert_eq!(verbs, [StepVerb::Joins, StepVerb::SendsRaw, StepVerb::Expects]);
    }
}
