//! Unusual values instead of ordinary ones. A hub that passes on the value of a place passes on any value. So a play may
//! send an unusual value there, and reads it as the ordinary one wherever the hub sends it: the scenario's own checks then
//! judge whether it arrived unchanged. The tables of this file are the only place that lists the values.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::variation::Variation;
use crate::generate::value::UNUSUAL_TEXTS;
use crate::syntax::matcher::are_equal;

/// What is unusual about the values that a variation sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueKind {
    /// Names with characters that receivers often mishandle.
    Letters,
    /// Names that mean something elsewhere, such as `null`, `0` or `__proto__`.
    Words,
    /// Names, and texts in objects, of the lengths of common buffers.
    Lengths,
    /// Objects with members of all sorts.
    Members,
}

/// What names get: the class, and the characters before and after the name.
const LETTERS: [(&str, &str, &str); 10] = [
    ("blanks at both ends", " ", " "),
    ("line ends and a tab", "", "\r\n\t\n"),
    ("quotes and backslashes", "", "\"'\\\\u0041\\n"),
    ("NUL", "", "\0x"),
    ("line separators", "", "\u{2028}\u{2029}\u{85}x"),
    ("markup", "", "<b>&amp;</b>"),
    ("percent signs and a plus sign", "", "%20+%C3x"),
    ("two Unicode forms of a letter", "", "\u{e9}e\u{301}\u{212b}x"),
    ("right-to-left text", "", "\u{202e}\u{5e9}\u{5dc}\u{5d5}\u{5dd}x"),
    ("an emoji", "", "\u{1f600}\u{1f469}\u{200d}\u{1f467}x"),
];

/// What names become: the class, and the name, in which # stands for twelve digits that only this name has.
const WORDS: [(&str, &str); 10] = [
    ("an integer with zeros in front", "00#"),
    ("a number with an exponent", "1#e3"),
    ("a negative number", "-1#"),
    ("a decimal number with a last zero", "1#.0"),
    ("a time", "2024-02-29T12:00:00.#+02:00"),
    ("a UUID of zeros", "00000000-0000-0000-0000-#"),
    ("a UUID of version 7 in capitals", "018D5C2F-0A1B-7C3D-8E4F-#"),
    ("a JSON text", "{\"null\": #}"),
    ("a wildcard", "*#*"),
    ("a template", "{{#}}${#}%s"),
];

/// The lengths of names: the class, and the number of characters.
const NAME_LENGTHS: [(&str, usize); 5] = [
    ("33 characters", 33),
    ("65 characters", 65),
    ("129 characters", 129),
    ("256 characters", 256),
    ("257 characters", 257),
];

/// The lengths of texts in objects; the class of each is that of the name in the same position.
const TEXT_LENGTHS: [&[usize]; 5] = [
    &[0, 1, 31, 32, 33, 63, 64, 65],
    &[127, 128, 129, 255, 256, 257],
    &[511, 512, 513, 1023, 1024, 1025],
    &[4095, 4096, 4097],
    &[65537],
];

/// Adds members to an object. Gets the names of the members of its message.
type MemberMaker = fn(&mut Map<String, Value>, &[String]);

/// The members of objects: the class, and what makes them.
const MEMBERS: [(&str, MemberMaker); 7] = [
    ("unusual texts", |members, _| {
        members.insert("texts".to_owned(), UNUSUAL_TEXTS.iter().copied().map(Value::from).collect());
        let letters = LETTERS.iter().map(|(_, before, after)| Value::from(format!("{before}x{after}")));
        members.insert("letters".to_owned(), letters.collect());
        members.insert(
            "words".to_owned(),
            WORDS.iter().map(|(_, word)| Value::from(word.replace('#', "000000000007"))).collect(),
        );
    }),
    ("unusual numbers", |members, _| {
        // All of them are exact as doubles, which is all that JSON promises.
        let numbers = json!([
            0,
            -1,
            0.1,
            0.300_000_000_000_000_04,
            1e-7,
            -1.5e-300,
            1.0,
            123_456.789,
            255,
            256,
            65_536,
            2_147_483_647,
            2_147_483_648_u64,
            -2_147_483_649_i64,
            4_294_967_296_u64,
            4_294_967_297_u64,
            9_007_199_254_740_991_u64,
            -9_007_199_254_740_991_i64,
            1e21
        ]);
        members.insert("numbers".to_owned(), numbers);
        members.insert("zero".to_owned(), json!(0));
        members.insert("fraction".to_owned(), json!(0.5));
    }),
    ("null, false and empty values", |members, _| {
        let empty =
            json!({ "null": null, "no": false, "text": "", "list": [], "object": {}, "lists": [[], [null], [{}]] });
        members.extend(empty.as_object().cloned().unwrap_or_default());
    }),
    ("names of members of other languages' objects", |members, _| {
        for name in [
            "__proto__",
            "constructor",
            "toString",
            "hasOwnProperty",
            "length",
            "self",
            "class",
            "",
            "0",
            "a.b",
            "a/b~c",
            "$ref",
        ] {
            members.insert(name.to_owned(), json!({ "of": name }));
        }
    }),
    ("names that differ only in case or form", |members, _| {
        for name in ["case", "Case", "CASE", "\u{e9}", "e\u{301}"] {
            members.insert(name.to_owned(), json!(name));
        }
    }),
    ("names of the message's own members", |members, envelope| {
        for name in envelope.iter().map(String::as_str).chain(["type", "id", "status", "version"]) {
            members.insert(name.to_owned(), json!("of a free object"));
        }
    }),
    ("33 items and 65 levels", |members, _| {
        members.insert("items".to_owned(), (0..33).collect());
        members.insert("levels".to_owned(), nested(33));
        members.insert("more levels".to_owned(), nested(65));
    }),
];

/// The index of the class whose members have the same names as the members of the message.
const OWN_MEMBERS: usize = 5;

/// The least and most characters of a name, and the word that sets an unusual one apart from it, even when it is trimmed.
const NAME_CHARS: std::ops::RangeInclusive<usize> = 4..=64;
const APART: &str = "-else";

fn nested(levels: usize) -> Value {
    (1..levels).fold(json!([7]), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "in": inner }) })
}

/// Whether a text looks like a name that a scenario made up: letters and digits, no number, time, id or token.
pub fn is_made_up(text: &str) -> bool {
    NAME_CHARS.contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && uuid::Uuid::try_parse(text).is_err()
}

impl ValueKind {
    /// Returns the names of the classes of values.
    pub fn classes(self) -> Vec<&'static str> {
        match self {
            Self::Letters => LETTERS.iter().map(|(class, ..)| *class).collect(),
            Self::Words => WORDS.iter().map(|(class, _)| *class).collect(),
            Self::Lengths => NAME_LENGTHS.iter().map(|(class, _)| *class).collect(),
            Self::Members => MEMBERS.iter().map(|(class, _)| *class).collect(),
        }
    }

    /// Whether it is about names.
    pub fn takes_names(self) -> bool {
        self != Self::Members
    }

    /// Whether it is about objects.
    pub fn takes_objects(self) -> bool {
        matches!(self, Self::Members | Self::Lengths)
    }

    /// Returns an unusual name. `turn` chooses between classes of which a name has only one.
    fn name(self, usual: &str, classes: &[usize], turn: usize) -> String {
        let class = classes[turn % classes.len()];
        match self {
            Self::Letters => {
                let chosen = || classes.iter().map(|class| LETTERS[*class]);
                let before: String = chosen().map(|(_, before, _)| before).collect();
                // The blanks are the first and the last characters.
                let after: String = chosen().rev().map(|(.., after)| after).collect();
                format!("{before}{usual}{APART}{after}")
            }
            Self::Words => {
                let mut hasher = DefaultHasher::new();
                usual.hash(&mut hasher);
                WORDS[class].1.replace('#', &format!("{:012}", hasher.finish() % 1_000_000_000_000))
            }
            Self::Lengths | Self::Members => {
                let (_, length) = NAME_LENGTHS[class];
                format!("{usual}{APART}{}y", "x".repeat(length.saturating_sub(usual.len() + APART.len() + 1)))
            }
        }
    }

    /// Returns an unusual object, which contains the usual one. Its texts of certain lengths have at most `most_chars`.
    fn object(self, usual: &Value, classes: &[usize], envelope: &[String], mut most_chars: usize) -> Value {
        let mut members = Map::new();
        for class in classes {
            if self == Self::Members {
                MEMBERS[*class].1(&mut members, envelope);
                continue;
            }
            let bytes = TEXT_LENGTHS[*class].iter().sum::<usize>() * 2;
            let Some(left) = most_chars.checked_sub(bytes) else { continue };
            most_chars = left;
            // A buffer whose size is a power of two ends within some of the characters of three bytes.
            let texts = TEXT_LENGTHS[*class].iter().flat_map(|length| ["x".repeat(*length), "€".repeat(length / 3)]);
            let texts = texts.map(Value::from);
            members.insert(format!("texts {class}"), texts.collect());
        }
        members.insert("usual".to_owned(), usual.clone());
        Value::Object(members)
    }
}

/// A place in which the hub passes on what it gets, as a play has shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenPlace {
    pub message: String,
    pub pointer: String,
    /// The places that had values in common have the same number.
    pub group: usize,
    /// The names that stood there as the scenario is written. A name that stands there in each play may be one that the
    /// hub knows.
    pub fixed: BTreeSet<String>,
}

/// The places in which a play sends unusual values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenPlaces {
    pub places: Vec<OpenPlace>,
    /// Chooses the classes, so that scenarios have different ones.
    pub turn: usize,
    /// How long all long texts that replace members of one object may be together, in characters.
    pub most_chars: usize,
    /// The classes, by index; all by default.
    pub classes: Option<BTreeSet<usize>>,
}

/// The values that a play has sent instead of others.
pub struct ValueSwap {
    kind: ValueKind,
    places: Arc<OpenPlaces>,
    /// The usual and the unusual values.
    swapped: Vec<(Value, Value)>,
}

impl ValueSwap {
    /// Creates the swap of a play with a variation; `None` if that sends no unusual values.
    pub fn new(variation: &Variation) -> Option<Self> {
        let Variation::Values(kind, places) = variation else { return None };
        Some(Self { kind: *kind, places: places.clone()?, swapped: Vec::new() })
    }

    /// Returns a message with unusual values in its open places; `None` if it has none.
    pub fn swap(&mut self, message: &str, value: &Value) -> Option<Value> {
        let mut sent = value.clone();
        let mut is_swapped = false;
        let places = Arc::clone(&self.places);
        for place in places.places.iter().filter(|place| place.message == message) {
            let Some(found) = sent.pointer_mut(&place.pointer) else { continue };
            let Some(unusual) = self.unusual(place, found, value) else { continue };
            *found = unusual;
            is_swapped = true;
        }
        // What resembles the message's own members comes before them: a receiver that searches the text finds it first.
        if let Value::Object(members) = &mut sent
            && self.kind == ValueKind::Members
            && places.classes.as_ref().is_none_or(|classes| classes.contains(&OWN_MEMBERS))
        {
            *members = std::mem::take(members).into_iter().rev().collect();
        }
        is_swapped.then_some(sent)
    }

    /// Returns what is sent instead of a value in a place of a message.
    fn unusual(&mut self, place: &OpenPlace, usual: &Value, message: &Value) -> Option<Value> {
        let is_open = match usual {
            Value::String(text) => self.kind.takes_names() && is_made_up(text) && !place.fixed.contains(text),
            Value::Object(members) => self.kind.takes_objects() && !members.is_empty(),
            _ => false,
        };
        if !is_open {
            return None;
        }
        if let Some((_, unusual)) = self.swapped.iter().find(|(known, _)| known == usual) {
            return Some(unusual.clone());
        }
        let all = || (0..self.kind.classes().len()).collect();
        let classes: Vec<usize> = self.places.classes.as_ref().map_or_else(all, |some| some.iter().copied().collect());
        let unusual = match usual {
            Value::String(text) => Value::from(self.kind.name(text, &classes, self.places.turn + self.swapped.len())),
            _ => {
                let envelope: Vec<String> =
                    message.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
                self.kind.object(usual, &classes, &envelope, self.places.most_chars)
            }
        };
        self.swapped.push((usual.clone(), unusual.clone()));
        Some(unusual)
    }

    /// Puts the usual values back into a message of the hub. Returns whether there were unusual ones.
    pub fn restore(&self, value: &mut Value) -> bool {
        let pairs: Vec<_> = self.swapped.iter().map(|(usual, unusual)| (unusual, usual)).collect();
        replace(value, &pairs)
    }

    /// Puts the unusual values into a message that a hub sent when it got the usual ones.
    pub fn distort(&self, value: &mut Value) -> bool {
        let pairs: Vec<_> = self.swapped.iter().map(|(usual, unusual)| (usual, unusual)).collect();
        replace(value, &pairs)
    }
}

/// Replaces the first value of each pair by the second, also as the name of a member. Returns whether it found any.
fn replace(value: &mut Value, pairs: &[(&Value, &Value)]) -> bool {
    let other = |value: &Value| pairs.iter().find(|(from, _)| are_equal(from, value)).map(|(_, to)| *to);
    if let Some(other) = other(value) {
        *value = other.clone();
        return true;
    }
    match value {
        Value::Array(items) => items.iter_mut().filter_map(|item| replace(item, pairs).then_some(())).count() > 0,
        Value::Object(members) => {
            let mut any = false;
            for (name, mut member) in std::mem::take(members) {
                any |= replace(&mut member, pairs);
                let renamed = other(&Value::from(name.as_str())).and_then(Value::as_str);
                any |= renamed.is_some();
                members.insert(renamed.map_or(name, str::to_owned), member);
            }
            any
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn swap_of(kind: ValueKind, classes: Option<BTreeSet<usize>>) -> ValueSwap {
        let place = |pointer: &str| OpenPlace {
            message: "say".to_owned(),
            pointer: pointer.to_owned(),
            group: 0,
            fixed: BTreeSet::from(["public".to_owned()]),
        };
        let places = ["/data", "/name", "/to"].map(place).to_vec();
        let places = Some(Arc::new(OpenPlaces { places, turn: 3, most_chars: 100_000, classes }));
        ValueSwap::new(&Variation::Values(kind, places)).unwrap()
    }

    #[rstest]
    #[case(ValueKind::Letters)]
    #[case(ValueKind::Words)]
    #[case(ValueKind::Lengths)]
    #[case(ValueKind::Members)]
    fn a_value_that_comes_back_unchanged_is_the_usual_one(#[case] kind: ValueKind) {
        for class in 0..kind.classes().len() {
            let mut swap = swap_of(kind, Some(BTreeSet::from([class])));
            let said = json!({ "type": "say", "name": "anna7x1", "to": "bert7x2", "data": { "mark": "m" } });
            let sent = swap.swap("say", &said).unwrap();
            assert_eq!(sent["type"], "say");
            assert_ne!(sent["name"], sent["to"]);
            assert_eq!(
                (sent["name"] != said["name"], sent["data"] != said["data"]),
                (kind.takes_names(), kind.takes_objects())
            );
            // The same value is swapped for the same one.
            assert_eq!(swap.swap("say", &said), Some(sent.clone()));
            let of = |message: &Value| json!({ "all": { message["name"].as_str().unwrap(): [message["to"], 1] }, "data": message["data"] });
            let mut received = of(&sent);
            assert!(swap.restore(&mut received), "{received}");
            assert_eq!(received, of(&said));
            assert!(swap.distort(&mut received));
            assert_eq!(received, of(&sent));
        }
    }

    /// Each class notices what receivers do to it.
    #[rstest]
    #[case(ValueKind::Letters, "blanks at both ends", |text: &str| text.trim_start().to_owned())]
    #[case(ValueKind::Letters, "blanks at both ends", |text: &str| text.trim_end().to_owned())]
    #[case(ValueKind::Letters, "line ends and a tab", |text: &str| text.replace("\r\n", "\n"))]
    #[case(ValueKind::Letters, "NUL", |text: &str| text.split('\0').next().unwrap().to_owned())]
    #[case(ValueKind::Letters, "two Unicode forms of a letter", |text: &str| text.replace("e\u{301}", "\u{e9}"))]
    #[case(ValueKind::Letters, "an emoji", |text: &str| text.chars().filter(|one| *one < '\u{10000}').collect())]
    #[case(ValueKind::Letters, "markup", |text: &str| text.replace('<', "&lt;"))]
    #[case(ValueKind::Lengths, "256 characters", |text: &str| text.chars().take(255).collect())]
    #[case(ValueKind::Words, "an integer with zeros in front", |text: &str| text.trim_start_matches('0').to_owned())]
    #[case(ValueKind::Words, "a UUID of version 7 in capitals", |text: &str| text.to_lowercase())]
    fn a_changed_name_is_not_the_usual_one(
        #[case] kind: ValueKind,
        #[case] class: &str,
        #[case] change: fn(&str) -> String,
    ) {
        let index = kind.classes().iter().position(|one| *one == class).unwrap();
        // Alone, and together with all others.
        for classes in
            [Some(BTreeSet::from([index])), (kind == ValueKind::Letters).then_some(()).map(|()| (0..10).collect())]
        {
            let mut swap = swap_of(kind, Some(classes.unwrap_or_else(|| BTreeSet::from([index]))));
            let sent = swap.swap("say", &json!({ "name": "anna7x1" })).unwrap();
            let mut received = json!({ "name": change(sent["name"].as_str().unwrap()) });
            assert!(!swap.restore(&mut received), "{received}");
            assert_ne!(received["name"], "anna7x1");
        }
    }

    #[test]
    fn only_made_up_names_are_swapped() {
        for text in [
            "public",
            "a",
            "12345",
            "0f8fad5b-d9cb-469f-a165-70867728950e",
            "2024-01-01T00:00:00Z",
            "two words",
            "eyJ.e30.",
        ] {
            assert_eq!(swap_of(ValueKind::Letters, None).swap("say", &json!({ "name": text })), None, "{text}");
        }
        assert_eq!(swap_of(ValueKind::Members, None).swap("say", &json!({ "data": {} })), None);
        assert_eq!(swap_of(ValueKind::Members, None).swap("ask", &json!({ "data": { "a": 1 } })), None);
    }

    #[test]
    fn an_object_has_members_of_all_sorts_and_the_usual_ones() {
        let sent = swap_of(ValueKind::Members, None).swap("say", &json!({ "seq": 1, "data": { "a": 1 } })).unwrap();
        let data = &sent["data"];
        assert_eq!((&data["usual"], &data["seq"]), (&json!({ "a": 1 }), &json!("of a free object")));
        assert!(
            data["__proto__"].is_object() && data["null"].is_null() && data["items"].as_array().unwrap().len() == 33
        );
        assert_eq!(
            (MEMBERS[OWN_MEMBERS].0, sent.to_string().find("data")),
            ("names of the message's own members", Some(2))
        );
        assert!(serde_json::from_str::<Value>(&sent.to_string()).is_ok_and(|read| are_equal(&read, &sent)));
    }

    #[test]
    fn long_texts_have_characters_of_one_and_of_three_bytes() {
        let sent = swap_of(ValueKind::Lengths, None).swap("say", &json!({ "data": { "a": 1 } })).unwrap();
        let texts = sent["data"]["texts 3"].as_array().unwrap();
        let sizes: Vec<_> =
            texts.iter().map(|text| (text.as_str().unwrap().chars().next(), text.to_string().len() - 2)).collect();
        let all = [4095, 4096, 4097].map(|size| [(Some('x'), size), (Some('€'), size / 3 * 3)]);
        assert_eq!(sizes, all.as_flattened());
    }
}
