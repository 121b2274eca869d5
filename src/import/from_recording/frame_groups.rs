//! Groups recorded frames into messages. The discriminator is the member whose value is explained best by the shape of
//! its frame, among all frames of one direction: a message type correlates with a shape, an id or a name does not.
//!
//! Frames that are arrays, such as `[2, "17", "Heartbeat", {}]`, are grouped by their elements: by a small number at the
//! start, then by a word that is not an id, then by their length.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::document::{to_word, unique_name};
use super::{RecordedFrame, is_uuid, scalar_members};

/// The most values of a discriminator.
const MAX_VALUES: usize = 60;
/// The most characters of a discriminator's value.
const MAX_VALUE_LENGTH: usize = 40;
/// The depth to which members are considered.
const MAX_LEVELS: usize = 2;

/// The frames of one message.
pub struct FrameGroup<'a> {
    pub name: String,
    pub to_hub: bool,
    /// The members that distinguish the message: their JSON pointers and values.
    pub keys: Vec<(String, Value)>,
    /// Never empty.
    pub samples: Vec<&'a Value>,
}

/// Returns the messages of a recording: first those of clients, then those of the hub.
pub fn group_frames(frames: &[RecordedFrame]) -> Vec<FrameGroup<'_>> {
    let mut groups: Vec<FrameGroup<'_>> = Vec::new();
    for to_hub in [true, false] {
        let (arrays, mut left): (Vec<&Value>, Vec<&Value>) = frames
            .iter()
            .filter(|frame| frame.to_hub == to_hub)
            .map(|frame| &frame.value)
            .partition(|value| value.is_array());
        let others: Vec<&Value> =
            frames.iter().filter(|frame| frame.to_hub != to_hub).map(|frame| &frame.value).collect();
        add_array_groups(&mut groups, &arrays, &others, to_hub);
        while let Some(pointer) = best_discriminator(&left, &groups) {
            let (with, without): (Vec<&Value>, Vec<&Value>) =
                left.into_iter().partition(|value| value.pointer(&pointer).is_some_and(is_discriminator_value));
            for (value, samples) in split_by_key(&with, |sample| sample.pointer(&pointer).map(Value::to_string)) {
                let value: Value = serde_json::from_str(&value.unwrap_or_default()).unwrap_or_default();
                let named = value.as_str().map_or_else(|| format!("message_{value}"), str::to_owned);
                add_group(&mut groups, &named, to_hub, vec![(pointer.clone(), value)], samples);
            }
            left = without;
        }
        for (keys, samples) in split_by_key(&left, member_names) {
            add_group(&mut groups, &keys, to_hub, Vec::new(), samples);
        }
    }
    groups
}

fn add_group<'a>(
    groups: &mut Vec<FrameGroup<'a>>,
    named: &str,
    to_hub: bool,
    keys: Vec<(String, Value)>,
    samples: Vec<&'a Value>,
) {
    let mut name = Some(to_word(named)).filter(|name| !name.is_empty()).unwrap_or_else(|| "message".to_owned());
    if !to_hub && groups.iter().any(|group| group.name == name && group.to_hub) {
        name.push_str("_from_hub");
    }
    let name = unique_name(&name, '_', |name| groups.iter().any(|one| one.name == name));
    groups.push(FrameGroup { name, to_hub, keys, samples });
}

/// Adds the groups of frames that are arrays; `others` are all frames of the other direction.
fn add_array_groups<'a>(groups: &mut Vec<FrameGroup<'a>>, arrays: &[&'a Value], others: &[&Value], to_hub: bool) {
    let lead = |sample: &'a Value| sample.get(0).and_then(Value::as_u64).filter(|number| *number < 256);
    let leads: BTreeSet<u64> = arrays.iter().filter_map(|sample| lead(sample)).collect();
    // As many different numbers as frames are not message types, but counters.
    let typed = leads.len() < arrays.len().max(2) && leads.len() <= MAX_LEADS;
    for (number, of_number) in split_by_key(arrays, |sample| lead(sample).filter(|_| typed)) {
        let lead: Vec<(String, Value)> =
            number.map(|number| ("/0".to_owned(), Value::from(number))).into_iter().collect();
        let word = word_index(&of_number, others);
        let word_of = |sample: &'a Value| sample.get(word?)?.as_str().filter(|word| is_word(word));
        for (word_value, samples) in split_by_key(&of_number, word_of) {
            let mut keys = lead.clone();
            if let (Some(index), Some(value)) = (word, word_value) {
                keys.push((format!("/{index}"), Value::from(value)));
                add_group(groups, value, to_hub, keys, samples);
                continue;
            }
            // An array of objects is a list, which may have any length.
            let length = |sample: &'a Value| {
                sample.as_array().filter(|items| items.first().is_some_and(is_discriminator_value)).map(Vec::len)
            };
            for (length, samples) in split_by_key(&samples, length) {
                let number = number.map_or_else(|| "list".to_owned(), |number| format!("message_{number}"));
                let name = if keys.is_empty() || samples.len() == of_number.len() {
                    number
                } else {
                    format!("{number}_of_{}", length.unwrap_or_default())
                };
                add_group(groups, &name, to_hub, keys.clone(), samples);
            }
        }
    }
}

/// The most numbers at the start of arrays that are message types.
const MAX_LEADS: usize = 16;
/// Number of elements, from the start of an array, among which the word is looked for.
const MAX_WORD_INDEX: usize = 16;

/// Returns the index at which the arrays have a word that names the message, such as a method: not an id, which differs
/// in each array and which the other side repeats.
fn word_index(arrays: &[&Value], others: &[&Value]) -> Option<usize> {
    let longest = arrays.iter().filter_map(|sample| sample.as_array()).map(Vec::len).max()?;
    let repeated: BTreeSet<&str> =
        others.iter().flat_map(|other| other.as_array().into_iter().flatten()).filter_map(Value::as_str).collect();
    let candidates = (0..longest.min(MAX_WORD_INDEX)).filter_map(|index| {
        let texts: Vec<&str> = arrays.iter().filter_map(|sample| sample.get(index)?.as_str()).collect();
        let distinct: BTreeSet<&str> = texts.iter().copied().collect();
        let echoed = distinct.iter().filter(|text| repeated.contains(*text)).count();
        let is_id = distinct.len() == texts.len() && echoed * 2 >= distinct.len();
        let right = !texts.is_empty()
            && !is_id
            && distinct.len() <= MAX_VALUES
            && texts.iter().all(|text| is_word(text) && is_discriminator_value(&Value::from(*text)));
        // A word in all arrays is better than one in some, and one that is repeated is better than one that is not.
        let score = texts.len() * 4 + (texts.len() - distinct.len()) * 2 + usize::from(distinct.len() > 1);
        right.then_some((score, std::cmp::Reverse(index)))
    });
    candidates.max().map(|(_, index)| index.0)
}

/// Groups samples by a key, in the order of the first occurrence of each key.
fn split_by_key<'a, K: Ord + Clone>(samples: &[&'a Value], key: impl Fn(&'a Value) -> K) -> Vec<(K, Vec<&'a Value>)> {
    let mut split: Vec<(K, Vec<&Value>)> = Vec::new();
    let mut index: BTreeMap<K, usize> = BTreeMap::new();
    for &sample in samples {
        let key = key(sample);
        let at = *index.entry(key.clone()).or_insert(split.len());
        match split.get_mut(at) {
            Some((_, found)) => found.push(sample),
            None => split.push((key, vec![sample])),
        }
    }
    split
}

/// Returns a name composed of the members of a message.
fn member_names(sample: &Value) -> String {
    match sample {
        Value::Object(members) => {
            let names: BTreeSet<&str> = members.keys().map(String::as_str).collect();
            names.into_iter().take(4).collect::<Vec<_>>().join("_")
        }
        Value::Array(_) => "list".to_owned(),
        _ => "value".to_owned(),
    }
}

/// Whether a value can be the value of a discriminator: a word, or a small number.
fn is_discriminator_value(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
            !text.is_empty() && text.len() <= MAX_VALUE_LENGTH && text.chars().all(plain) && !is_uuid(text)
        }
        Value::Number(number) => number.as_u64().is_some_and(|number| number < 256),
        _ => false,
    }
}

fn is_word(value: &str) -> bool {
    value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.chars().filter(char::is_ascii_digit).count() * 2 < value.len()
}

/// Returns the member that distinguishes the samples best; prefers one that already distinguishes other groups.
fn best_discriminator(samples: &[&Value], groups: &[FrameGroup<'_>]) -> Option<String> {
    let objects: Vec<&Value> = samples.iter().copied().filter(|sample| sample.is_object()).collect();
    let mut pointers: Vec<String> = Vec::new();
    for sample in &objects {
        for (pointer, value) in scalar_members(sample) {
            if pointer.matches('/').count() <= MAX_LEVELS
                && is_discriminator_value(value)
                && !pointers.contains(&pointer)
            {
                pointers.push(pointer);
            }
        }
        if pointers.len() > 400 {
            break;
        }
    }
    let known = |pointer: &String| groups.iter().any(|group| group.keys.iter().any(|(key, _)| key == pointer));
    let mut best: Option<(f64, String)> = None;
    for pointer in pointers {
        let Some(score) = discriminator_score(&objects, &pointer) else { continue };
        let score = if known(&pointer) { 2.0 * score } else { score };
        // Among equally good members, the first in the message wins.
        if best.as_ref().is_none_or(|(best, _)| score > *best) {
            best = Some((score, pointer));
        }
    }
    best.map(|(_, pointer)| pointer)
}

fn discriminator_score(samples: &[&Value], pointer: &str) -> Option<f64> {
    let mut pairs: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut words = 0;
    for sample in samples {
        let Some(value) = sample.pointer(pointer).filter(|value| is_discriminator_value(value)) else { continue };
        words += usize::from(value.as_str().is_some_and(is_word));
        *pairs.entry((value.to_string(), member_shape(sample))).or_default() += 1;
    }
    let covered: usize = pairs.values().sum();
    let mut values: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shapes: BTreeMap<&str, usize> = BTreeMap::new();
    for ((value, shape), count) in &pairs {
        *values.entry(value).or_default() += count;
        *shapes.entry(shape).or_default() += count;
    }
    // One frame per value says nothing, unless there is no better member; too many values are not message types.
    if covered == 0 || values.len() > MAX_VALUES || words == 0 && values.len() == covered {
        return None;
    }
    let entropy = |counts: &mut dyn Iterator<Item = usize>| -> f64 {
        counts.map(|count| count as f64 / covered as f64).map(|share| -share * share.log2()).sum()
    };
    let of_values = entropy(&mut values.values().copied());
    let shared = of_values + entropy(&mut shapes.values().copied()) - entropy(&mut pairs.values().copied());
    let explained = if of_values > 0.0 { shared / of_values } else { 0.0 };
    let depth = pointer.matches('/').count() as f64;
    let share = |part: usize, of: usize| part as f64 / of as f64;
    let of_words = 0.3 + 0.7 * share(words, covered);
    let repeated = 1.0 - 0.5 * share(values.len(), covered);
    Some(share(covered, samples.len()) * (0.2 + explained) * of_words * repeated / (0.7 + 0.3 * depth))
}

/// Returns the names of a message's members, on two levels.
fn member_shape(sample: &Value) -> String {
    let mut names: Vec<String> = Vec::new();
    for (name, member) in sample.as_object().into_iter().flatten() {
        names.push(name.clone());
        names.extend(member.as_object().into_iter().flatten().map(|(inner, _)| format!("{name}/{inner}")));
    }
    names.sort();
    names.join(" ")
}
