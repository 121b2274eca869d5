//! Finds cuts in a scenario: of steps, of parts of steps, and of parts of the sent input. Large cuts come first. There
//! are at most a few dozen of each size, whatever the length; the next round finds the rest.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Map, Value, json};

use super::json_text::{self, Node};
use super::{cleanup, steps};
use crate::fuzz::corpus::head;
use crate::fuzz::expressions;
use crate::scenario::parse::verbs::Verb;
use crate::syntax::matcher::escape;

/// A part to leave out or to shorten.
#[derive(Debug)]
pub struct Cut {
    /// JSON pointer to the changed part of the scenario.
    pointer: String,
    change: Change,
}

#[derive(Debug)]
enum Change {
    /// Removes these items of an array.
    Items(Vec<usize>),
    Member(String),
    Put(Value),
    /// Replaces this part of a text.
    Text(Range<usize>, String),
}

impl Cut {
    /// Returns the scenario after the cut; `None` if the cut does not apply.
    pub fn of(&self, scenario: &Map<String, Value>) -> Option<Map<String, Value>> {
        let mut root = Value::Object(scenario.clone());
        let place = root.pointer_mut(&self.pointer)?;
        match &self.change {
            Change::Items(gone) => {
                let mut index = 0;
                place.as_array_mut()?.retain(|_| {
                    index += 1;
                    !gone.contains(&(index - 1))
                });
            }
            // Keeps the order of the other members: the head of a step is its first member.
            Change::Member(name) => drop(place.as_object_mut()?.shift_remove(name)),
            Change::Put(value) => *place = value.clone(),
            Change::Text(range, new) => {
                let shorter = json_text::replaced(place.as_str()?, range.clone(), new);
                *place = Value::String(shorter);
            }
        }
        match root {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }
}

/// Returns ranges of neighbouring items to remove from `len` items. Large ranges come first, and ranges at the end come
/// before those at the start, since later steps depend on earlier ones. Sizes that give more than `most` ranges are
/// left out.
fn chunks(len: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let sizes = std::iter::successors(Some(len), |size| Some(size / 2)).take_while(|size| *size > 0);
    sizes.filter(move |size| len.div_ceil(*size) <= most).flat_map(move |size| {
        (0..len.div_ceil(size)).map(move |index| {
            let end = len - index * size;
            end.saturating_sub(size)..end
        })
    })
}

/// The most cuts of one size in an array.
const ITEMS: usize = 64;
/// The most cuts of one size in a text. A few rounds that each remove an eighth make the text short.
const LETTERS: usize = 8;

// ---- steps

/// Returns cuts that often succeed: removing all other checks, and removing everything but openings, mutated messages
/// and the failed check.
pub fn guesses(scenario: &Map<String, Value>, check: &str) -> Vec<Cut> {
    let all = steps::top(scenario);
    let mutated: BTreeSet<usize> = steps::mutated(scenario, check).iter().map(|mutated| mutated.top).collect();
    // A single one of several mutated messages may be enough.
    let each = mutated.iter().rev().filter(|_| mutated.len() > 1).take(GUESSES).map(|index| BTreeSet::from([*index]));
    let mut cuts: Vec<Cut> =
        each.chain([mutated.clone()]).flat_map(|mutated| guess(scenario, check, &mutated)).collect();
    cuts.extend(without(scenario, &|index| steps::is_check(&all[index], check) || !steps::has_rules(&all[index])));
    cuts
}

/// The most mutated messages that are tried alone.
const GUESSES: usize = 12;

/// Keeps only the check, these steps, and the openings of the actors that take part in them.
fn guess(scenario: &Map<String, Value>, check: &str, mutated: &BTreeSet<usize>) -> Option<Cut> {
    let all = steps::top(scenario);
    let needed = |index: usize| steps::is_check(&all[index], check) || mutated.contains(&index);
    let mut names = Vec::new();
    all.iter().enumerate().filter(|(index, _)| needed(*index)).for_each(|(_, step)| cleanup::words(step, &mut names));
    let groups = scenario.get("actors").and_then(Value::as_object);
    let members =
        |name: &str| groups.and_then(|groups| groups.get(name)).and_then(Value::as_array).into_iter().flatten();
    let mut named = names.clone();
    named.extend(names.iter().flat_map(|name| members(name)).filter_map(Value::as_str).map(str::to_owned));
    let takes_part = |step: &Value| {
        let actor = head(step).map_or("", |(head, _)| head.actor.split('[').next().unwrap_or_default());
        let is_named = |name: &str| named.iter().any(|known| known == name);
        is_named(actor) || members(actor).filter_map(Value::as_str).any(is_named)
    };
    without(scenario, &|index| needed(index) || steps::opens(&all[index]) && takes_part(&all[index]))
}

/// Keeps only some top-level steps; `None` if nothing or everything would be removed.
fn without(scenario: &Map<String, Value>, keeps: &dyn Fn(usize) -> bool) -> Option<Cut> {
    let len = steps::top(scenario).len();
    let gone: Vec<usize> = (0..len).filter(|index| !keeps(*index)).collect();
    let some = !gone.is_empty() && gone.len() < len;
    some.then(|| Cut { pointer: "/steps".to_owned(), change: Change::Items(gone) })
}

/// Returns cuts of steps, beginning with `finally`.
pub fn whole_steps(scenario: &Map<String, Value>) -> Vec<Cut> {
    let tidying = scenario
        .contains_key("finally")
        .then(|| Cut { pointer: String::new(), change: Change::Member("finally".to_owned()) });
    let len = steps::top(scenario).len();
    let parts = chunks(len, ITEMS).filter(|gone| gone.len() < len);
    tidying.into_iter().chain(parts.map(|gone| items("/steps", gone))).collect()
}

fn items(pointer: &str, gone: Range<usize>) -> Cut {
    Cut { pointer: pointer.to_owned(), change: Change::Items(gone.collect()) }
}

// ---- parts of steps

/// Returns cuts of rounds, inner steps, frames, overrides, members of groups, and counts of actors.
pub fn parts(scenario: &Map<String, Value>) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for (name, actor) in scenario.get("actors").and_then(Value::as_object).into_iter().flatten() {
        fewer(&format!("/actors/{}/count", escape(name)), actor.get("count"), &mut cuts);
        some(&format!("/actors/{}", escape(name)), Some(actor), &mut cuts);
    }
    for place in steps::places(scenario) {
        let (pointer, step) = (&place.pointer, place.step);
        let Some((head, about, what)) = place.act() else { continue };
        // A check inside a loop does not depend on the number of rounds.
        fewer(&format!("{pointer}/in"), step.get("in"), &mut cuts);
        if steps::has_rules(step) {
            continue;
        }
        some(&format!("{pointer}/do"), step.get("do"), &mut cuts);
        if head.verb == Verb::SendsRaw {
            some(&format!("{about}/frames"), what.get("frames"), &mut cuts);
        }
        if step.get("without").is_some() {
            cuts.push(Cut { pointer: pointer.clone(), change: Change::Member("without".to_owned()) });
        }
        // An override with an expression often separates this conversation from others, so it stays.
        for (name, value) in step.get("with").and_then(Value::as_object).into_iter().flatten() {
            if !expressions::any(value, &|_| true) {
                cuts.push(Cut { pointer: format!("{pointer}/with"), change: Change::Member(name.clone()) });
            }
        }
    }
    cuts
}

/// Reduces a number of rounds or actors, or an array of them.
fn fewer(pointer: &str, value: Option<&Value>, cuts: &mut Vec<Cut>) {
    match value.and_then(Value::as_u64) {
        Some(count) if count > 1 => {
            let less = if count > 3 { vec![1, count / 2, count - 1] } else { vec![1] };
            cuts.extend(less.into_iter().map(|n| Cut { pointer: pointer.to_owned(), change: Change::Put(json!(n)) }));
        }
        _ => some(pointer, value, cuts),
    }
}

/// Removes some items of an array, but not all.
fn some(pointer: &str, value: Option<&Value>, cuts: &mut Vec<Cut>) {
    let len = value.and_then(Value::as_array).map_or(0, Vec::len);
    cuts.extend(chunks(len, ITEMS).filter(|gone| gone.len() < len).map(|gone| items(pointer, gone)));
}

// ---- parts of the sent input

/// Returns cuts that shorten the texts of `sends raw` steps.
pub fn texts(scenario: &Map<String, Value>) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for (pointer, text) in raw_texts(scenario) {
        let here = |(range, new)| Cut { pointer: pointer.clone(), change: Change::Text(range, new) };
        cuts.extend(shorter(text).into_iter().map(here));
    }
    cuts
}

/// Returns every text of `sends raw` steps, with its pointer.
fn raw_texts(scenario: &Map<String, Value>) -> Vec<(String, &str)> {
    let mut texts = Vec::new();
    for place in steps::places(scenario) {
        let Some((_, at, what)) = place.act().filter(|(head, ..)| head.verb == Verb::SendsRaw) else { continue };
        // In a loop the text is an expression, and the loop's list contains its values.
        let text = what.get("text").and_then(Value::as_str).filter(|text| expressions::source(text).is_none());
        texts.extend(text.map(|text| (format!("{at}/text"), text)));
        for (frame, value) in what.get("frames").and_then(Value::as_array).into_iter().flatten().enumerate() {
            texts.extend(
                value.get("data").and_then(Value::as_str).map(|text| (format!("{at}/frames/{frame}/data"), text)),
            );
        }
    }
    texts
}

/// Returns how a text can be shortened: ranges and their replacements.
fn shorter(text: &str) -> Vec<(Range<usize>, String)> {
    let mut cuts = repeats(text);
    match json_text::nodes(text) {
        Some(nodes) => {
            cuts.extend(flatter(text, &nodes));
            for node in &nodes {
                match &node.kind {
                    json_text::Kind::Object(_) | json_text::Kind::Array(_) => {
                        let pieces = node.pieces();
                        let gone = chunks(pieces.len(), ITEMS).filter_map(|gone| json_text::span(pieces, gone));
                        cuts.extend(gone.map(|range| (range, String::new())));
                    }
                    json_text::Kind::Text => {
                        let inner = node.range.start + 1..node.range.end - 1;
                        cuts.extend(letters(text, inner, LETTERS));
                    }
                    json_text::Kind::Other => cuts.extend(simpler(text, &node.range)),
                }
            }
        }
        None => cuts.extend(letters(text, 0..text.len(), 2 * LETTERS)),
    }
    cuts
}

/// Removes some characters.
fn letters(text: &str, within: Range<usize>, most: usize) -> Vec<(Range<usize>, String)> {
    let atoms = json_text::atoms(&text[within.clone()]);
    let place = |gone: Range<usize>| {
        let (first, last) = (atoms.get(gone.start)?, atoms.get(gone.end.checked_sub(1)?)?);
        Some((within.start + first.start..within.start + last.end, String::new()))
    };
    chunks(atoms.len(), most).filter_map(place).collect()
}

/// Replaces a number by a shorter one, or an expression by a constant.
fn simpler(text: &str, range: &Range<usize>) -> Vec<(Range<usize>, String)> {
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

/// Removes levels of the deepest nesting in a text: half of them, a quarter of them, and so on down to one.
fn flatter(text: &str, nodes: &[Node]) -> Vec<(Range<usize>, String)> {
    let mut heights = vec![1usize; nodes.len()];
    // Children follow their parents.
    for index in (0..nodes.len()).rev() {
        heights[index] = 1 + nodes[index].pieces().iter().map(|piece| heights[piece.value]).max().unwrap_or(0);
    }
    let tallest = |index: &usize| {
        let pieces = nodes[*index].pieces().iter().map(|piece| piece.value);
        pieces.max_by_key(|value| (heights[*value], std::cmp::Reverse(*value)))
    };
    let path: Vec<usize> = std::iter::successors((!nodes.is_empty()).then_some(0), tallest).collect();
    if path.len() <= TOPS {
        return Vec::new();
    }
    let levels =
        std::iter::successors(Some(path.len() / 2), |levels| Some(levels / 2)).take_while(|levels| *levels > 0);
    let from = |levels: usize| (0..path.len().saturating_sub(levels).min(TOPS)).map(move |top| (top, levels));
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
const TOPS: usize = 4;

/// Reduces the count in `${repeat('x', 1048576)}`.
fn repeats(text: &str) -> Vec<(Range<usize>, String)> {
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
        assert_eq!(chunks(len, most).collect::<Vec<_>>(), expected);
    }

    #[rstest]
    #[case::members(r#"{"a":1,"b":2}"#, &["{}", r#"{"a":1}"#, r#"{"b":2}"#])]
    #[case::number("[123]", &["[]", "[0]", "[1]", "[-1]", "[1]"])]
    #[case::text(r#""ab""#, &[r#""""#, r#""a""#, r#""b""#])]
    #[case::expression("${json(x)}", &["\"x\"", "0", "\"00000000-0000-0000-0000-000000000000\""])]
    #[case::repeated("${repeat('x', 8)}", &["${repeat('x', 4)}", "${repeat('x', 6)}", "${repeat('x', 7)}", "\"x\"", "0", "\"00000000-0000-0000-0000-000000000000\""])]
    #[case::nested("[[[[1]]]]", &["[[1]]", "[[1]]", "[[1]]", "[[[1]]]", "[[[1]]]", "[[[1]]]", "[[[1]]]"])]
    #[case::no_json("{\\u00e4", &["", "{", "\\u00e4"])]
    fn every_cut_of_a_text_makes_it_shorter(#[case] text: &str, #[case] expected: &[&str]) {
        let mut found: Vec<_> =
            shorter(text).into_iter().map(|(range, new)| json_text::replaced(text, range, &new)).collect();
        found.retain(|new| text != "[[[[1]]]]" || new.contains('1'));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_number_of_cuts_of_a_long_list_is_limited() {
        let text = serde_json::to_string(&vec![0; 10_000]).unwrap();
        assert!(shorter(&text).len() < 200);
    }

    #[test]
    fn a_guessed_cut_keeps_the_openings_of_actors_that_take_part() {
        let scenario = json!({
            "actors": { "innocent": "c", "a": "c", "b": "c", "both": ["a", "b"] },
            "steps": [
                { "innocent joins": null }, { "both join": null }, { "a sends": "x" },
                { "a sends raw": { "text": "" } }, { "a expects": "y", "rules": ["R"] },
                { "innocent expects": "z", "rules": ["S"] },
            ]
        });
        let guess = guesses(scenario.as_object().unwrap(), "R").remove(0);
        let left = guess.of(scenario.as_object().unwrap()).unwrap();
        let heads: Vec<_> = left["steps"].as_array().unwrap().iter().filter_map(head).map(|(h, _)| h.verb).collect();
        assert_eq!(heads, [Verb::Joins, Verb::SendsRaw, Verb::Expects]);
    }
}
