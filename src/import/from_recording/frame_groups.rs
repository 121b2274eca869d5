//! Groups recorded frames into messages. The discriminator is the member whose value is explained best by the shape of
//! its frame, among all frames of one direction: a message type correlates with a shape, an id or a name does not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::document::{to_word, unique_name};
use super::{RecordedFrame, scalar_members};

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
    /// The member that distinguishes the message: its JSON pointer and value.
    pub key: Option<(String, Value)>,
    /// Never empty.
    pub samples: Vec<&'a Value>,
}

/// Returns the messages of a recording: first those of clients, then those of the hub.
pub fn group_frames(frames: &[RecordedFrame]) -> Vec<FrameGroup<'_>> {
    let mut groups: Vec<FrameGroup<'_>> = Vec::new();
    for to_hub in [true, false] {
        let mut left: Vec<&Value> =
            frames.iter().filter(|frame| frame.to_hub == to_hub).map(|frame| &frame.value).collect();
        while let Some(pointer) = best_discriminator(&left, &groups) {
            let (with, without): (Vec<&Value>, Vec<&Value>) =
                left.into_iter().partition(|value| value.pointer(&pointer).is_some_and(is_discriminator_value));
            for (value, samples) in split_by_key(&with, |sample| sample.pointer(&pointer).map(Value::to_string)) {
                let value: Value = serde_json::from_str(&value.unwrap_or_default()).unwrap_or_default();
                let named = value.as_str().map_or_else(|| format!("message_{value}"), str::to_owned);
                add_group(&mut groups, &named, to_hub, Some((pointer.clone(), value)), samples);
            }
            left = without;
        }
        for (keys, samples) in split_by_key(&left, member_names) {
            add_group(&mut groups, &keys, to_hub, None, samples);
        }
    }
    groups
}

fn add_group<'a>(
    groups: &mut Vec<FrameGroup<'a>>,
    named: &str,
    to_hub: bool,
    key: Option<(String, Value)>,
    samples: Vec<&'a Value>,
) {
    let mut name = Some(to_word(named)).filter(|name| !name.is_empty()).unwrap_or_else(|| "message".to_owned());
    if !to_hub && groups.iter().any(|group| group.name == name && group.to_hub) {
        name.push_str("_from_hub");
    }
    let name = unique_name(&name, '_', |name| groups.iter().any(|one| one.name == name));
    groups.push(FrameGroup { name, to_hub, key, samples });
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
            !text.is_empty() && text.len() <= MAX_VALUE_LENGTH && text.chars().all(plain)
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
    let known = |pointer: &String| groups.iter().any(|group| group.key.as_ref().is_some_and(|(key, _)| key == pointer));
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
