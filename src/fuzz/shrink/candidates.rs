//! What can be taken out of a scenario: steps, what stands below them, and what is said in them. Bold cuts come first, and
//! of one kind never more than a few dozen, however long a thing is: the next round finds the rest.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Map, Value, json};

use super::json_text::{self, Node};
use super::{cleanup, steps};
use crate::fuzz::corpus::head;
use crate::scenario::parse::verbs::Verb;
use crate::syntax::matcher::escape;

/// One thing to leave out or to make shorter.
#[derive(Debug)]
pub struct Cut {
    /// JSON pointer into the scenario, to what the change is made to.
    pointer: String,
    change: Change,
}

#[derive(Debug)]
enum Change {
    /// These items of a list go.
    Items(Vec<usize>),
    Member(String),
    Put(Value),
    /// This part of a text becomes another.
    Text(Range<usize>, String),
}

impl Cut {
    /// The scenario after it; `None` where it does not fit.
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
            // What is left keeps its order: a step begins with its head.
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

/// Neighbours to be taken out of `len`, more of them first, from the end: what comes late depends on what comes early. Of
/// one size at most `most`.
fn chunks(len: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let sizes = std::iter::successors(Some(len), |size| Some(size / 2)).take_while(|size| *size > 0);
    sizes.filter(move |size| len.div_ceil(*size) <= most).flat_map(move |size| {
        (0..len.div_ceil(size)).map(move |index| {
            let end = len - index * size;
            end.saturating_sub(size)..end
        })
    })
}

/// Of one size in a list.
const ITEMS: usize = 64;
/// Of one size in a text: one that is cut by an eighth as often as it can be is short.
const LETTERS: usize = 8;

// ---- steps

/// Good guesses: whatever else is accused goes, and all that is neither an opening, nor what is odd, nor the check that
/// failed.
pub fn guesses(scenario: &Map<String, Value>, check: &str) -> Vec<Cut> {
    let all = steps::top(scenario);
    let odd: BTreeSet<usize> = steps::odd(scenario, check).iter().map(|odd| odd.top).collect();
    // Any of several may be enough.
    let each = odd.iter().rev().filter(|_| odd.len() > 1).take(GUESSES).map(|index| BTreeSet::from([*index]));
    let mut cuts: Vec<Cut> = each.chain([odd.clone()]).flat_map(|odd| guess(scenario, check, &odd)).collect();
    cuts.extend(without(scenario, &|index| steps::is_check(&all[index], check) || !steps::accuses(&all[index])));
    cuts
}

/// Of several odd things, so many are tried alone.
const GUESSES: usize = 12;

/// Without all but the check, these steps, and how those come in who take part in them.
fn guess(scenario: &Map<String, Value>, check: &str, odd: &BTreeSet<usize>) -> Option<Cut> {
    let all = steps::top(scenario);
    let needed = |index: usize| steps::is_check(&all[index], check) || odd.contains(&index);
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

/// Only these steps, where that is fewer.
fn without(scenario: &Map<String, Value>, keeps: &dyn Fn(usize) -> bool) -> Option<Cut> {
    let len = steps::top(scenario).len();
    let gone: Vec<usize> = (0..len).filter(|index| !keeps(*index)).collect();
    let some = !gone.is_empty() && gone.len() < len;
    some.then(|| Cut { pointer: "/steps".to_owned(), change: Change::Items(gone) })
}

/// Steps, the tidying ones at the end first.
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

// ---- what stands below them

/// Rounds, steps within steps, frames, overrides, who is of a group, and how many there are of an actor.
pub fn parts(scenario: &Map<String, Value>) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for (name, actor) in scenario.get("actors").and_then(Value::as_object).into_iter().flatten() {
        fewer(&format!("/actors/{}/count", escape(name)), actor.get("count"), &mut cuts);
        some(&format!("/actors/{}", escape(name)), Some(actor), &mut cuts);
    }
    for place in steps::places(scenario) {
        let (pointer, step) = (&place.pointer, place.step);
        let Some((head, about, what)) = place.act() else { continue };
        // What is asked in one round is asked in any.
        fewer(&format!("{pointer}/in"), step.get("in"), &mut cuts);
        if steps::accuses(step) {
            continue;
        }
        some(&format!("{pointer}/do"), step.get("do"), &mut cuts);
        if head.verb == Verb::SendsRaw {
            some(&format!("{about}/frames"), what.get("frames"), &mut cuts);
        }
        if step.get("without").is_some() {
            cuts.push(Cut { pointer: pointer.clone(), change: Change::Member("without".to_owned()) });
        }
        // With an expression in it, it is what keeps this conversation apart from others.
        for (name, value) in step.get("with").and_then(Value::as_object).into_iter().flatten() {
            if !value.to_string().contains("${") {
                cuts.push(Cut { pointer: format!("{pointer}/with"), change: Change::Member(name.clone()) });
            }
        }
    }
    cuts
}

/// A number of rounds or actors becomes less; a list keeps some.
fn fewer(pointer: &str, value: Option<&Value>, cuts: &mut Vec<Cut>) {
    match value.and_then(Value::as_u64) {
        Some(count) if count > 1 => {
            let less = if count > 3 { vec![1, count / 2, count - 1] } else { vec![1] };
            cuts.extend(less.into_iter().map(|n| Cut { pointer: pointer.to_owned(), change: Change::Put(json!(n)) }));
        }
        _ => some(pointer, value, cuts),
    }
}

/// Items of a list, but not all.
fn some(pointer: &str, value: Option<&Value>, cuts: &mut Vec<Cut>) {
    let len = value.and_then(Value::as_array).map_or(0, Vec::len);
    cuts.extend(chunks(len, ITEMS).filter(|gone| gone.len() < len).map(|gone| items(pointer, gone)));
}

// ---- what is said

/// Shorter texts of what is sent raw.
pub fn texts(scenario: &Map<String, Value>) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for (pointer, text) in raw_texts(scenario) {
        let here = |(range, new)| Cut { pointer: pointer.clone(), change: Change::Text(range, new) };
        cuts.extend(shorter(text).into_iter().map(here));
    }
    cuts
}

/// Every text that is sent raw, with the pointer to it.
fn raw_texts(scenario: &Map<String, Value>) -> Vec<(String, &str)> {
    let mut texts = Vec::new();
    for place in steps::places(scenario) {
        let Some((_, at, what)) = place.act().filter(|(head, ..)| head.verb == Verb::SendsRaw) else { continue };
        // What is said in rounds stands elsewhere.
        let text = what.get("text").and_then(Value::as_str).filter(|text| !is_expression(text));
        texts.extend(text.map(|text| (format!("{at}/text"), text)));
        for (frame, value) in what.get("frames").and_then(Value::as_array).into_iter().flatten().enumerate() {
            texts.extend(
                value.get("data").and_then(Value::as_str).map(|text| (format!("{at}/frames/{frame}/data"), text)),
            );
        }
    }
    texts
}

/// Whether it is one expression and nothing else.
fn is_expression(text: &str) -> bool {
    text.starts_with("${") && json_text::atoms(text).len() == 1
}

/// How a text can be made shorter: this part of it becomes that.
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

/// Without some of its letters.
fn letters(text: &str, within: Range<usize>, most: usize) -> Vec<(Range<usize>, String)> {
    let atoms = json_text::atoms(&text[within.clone()]);
    let place = |gone: Range<usize>| {
        let (first, last) = (atoms.get(gone.start)?, atoms.get(gone.end.checked_sub(1)?)?);
        Some((within.start + first.start..within.start + last.end, String::new()))
    };
    chunks(atoms.len(), most).filter_map(place).collect()
}

/// A number that is shorter.
fn simpler(text: &str, range: &Range<usize>) -> Vec<(Range<usize>, String)> {
    let old = &text[range.clone()];
    if old.starts_with("${") {
        // What somebody had to be asked for may be nothing in particular.
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

/// Levels that are taken out of the deepest nesting of a text: half of them, a quarter, ... one.
fn flatter(text: &str, nodes: &[Node]) -> Vec<(Range<usize>, String)> {
    let mut heights = vec![1usize; nodes.len()];
    // Children stand behind their parents.
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

/// Levels from the top at which nesting may begin: the message, its member, what is in it. No more than these is no nesting.
const TOPS: usize = 4;

/// `${repeat('x', 1048576)}`, less often.
fn repeats(text: &str) -> Vec<(Range<usize>, String)> {
    let mut cuts = Vec::new();
    for atom in json_text::atoms(text) {
        let Some(inside) = text[atom.clone()].strip_prefix("${repeat(") else { continue };
        let Some(digits) = inside.strip_suffix(")}").and_then(|inside| inside.rsplit_once(", ")).map(|(_, last)| last)
        else {
            continue;
        };
        let Ok(count) = digits.parse::<u64>() else { continue };
        let end = atom.end - ")}".len();
        let less = [count / 2, count / 4 * 3, count / 8 * 7].into_iter().filter(|less| *less < count);
        cuts.extend(less.map(|less| (end - digits.len()..end, less.to_string())));
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
    fn chunks_become_smaller(#[case] len: usize, #[case] most: usize, #[case] expected: &[Range<usize>]) {
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
    fn texts_become_shorter(#[case] text: &str, #[case] expected: &[&str]) {
        let mut found: Vec<_> =
            shorter(text).into_iter().map(|(range, new)| json_text::replaced(text, range, &new)).collect();
        found.retain(|new| text != "[[[[1]]]]" || new.contains('1'));
        assert_eq!(found, expected);
    }

    #[test]
    fn of_a_long_list_there_are_few_cuts() {
        let text = serde_json::to_string(&vec![0; 10_000]).unwrap();
        assert!(shorter(&text).len() < 200);
    }

    #[test]
    fn a_guess_keeps_who_takes_part() {
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
