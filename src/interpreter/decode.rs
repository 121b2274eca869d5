//! Decodes the text of a frame to JSON within limits. A frame that is grammatically JSON but exceeds the limits is not
//! decoded, which is not the hub's fault.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::syntax::matcher::{escape, shorten};

/// The most values that a frame may contain: their tree takes about 20 MiB, however short the text is. No documented
/// message comes near this limit.
const MAX_VALUES: usize = 1 << 18;
/// Bytes that a value takes in a tree, apart from the names of members.
const VALUE_BYTES: usize = 80;

/// Why a frame could not be decoded.
#[derive(Debug, PartialEq, Eq)]
pub enum JsonDecodeError {
    Binary,
    /// The frame is not JSON: the parser's error.
    NotJson(String),
    /// The frame is JSON, but exceeds a limit; says which.
    Beyond(String),
}

/// Decodes a text. `no_numbers` are words for numbers that JSON cannot represent, such as `NaN`; they are read as null
/// (see [`crate::protocol::PackExtension`]).
///
/// # Errors
/// [`JsonDecodeError::NotJson`] or [`JsonDecodeError::Beyond`].
pub fn decode_json(text: &str, no_numbers: &[String]) -> Result<Value, JsonDecodeError> {
    let decoded = decode_within_limits(text);
    let Err(JsonDecodeError::NotJson(_)) = decoded else { return decoded };
    match replace_words_by_null(text, no_numbers).map(|replaced| decode_within_limits(&replaced)) {
        // Report the error in the received text, not in the replaced text.
        None | Some(Err(JsonDecodeError::NotJson(_))) => decoded,
        Some(replaced) => replaced,
    }
}

fn decode_within_limits(text: &str) -> Result<Value, JsonDecodeError> {
    if text.len() > MAX_VALUES && max_value_count(text) > MAX_VALUES {
        let beyond = JsonDecodeError::Beyond(format!("it contains more than {MAX_VALUES} values"));
        return Err(json_syntax_error(text).unwrap_or(beyond));
    }
    serde_json::from_str(text).map_err(|error| {
        json_syntax_error(text).unwrap_or_else(|| {
            let why = error.to_string();
            JsonDecodeError::Beyond(if why.contains("recursion limit") {
                "it is nested deeper than 127 levels".to_owned()
            } else if why.contains("number out of range") {
                let first = unbounded_number(text, "", 0).map(|one| format!(": {one}")).unwrap_or_default();
                format!("it contains a number that no double holds{first}")
            } else {
                // JSON's grammar allows half a pair, Unicode does not (RFC 8259, section 8.2).
                "it contains half a surrogate pair".to_owned()
            })
        })
    })
}

/// Returns the first number in a JSON text that no double holds, with a pointer to it; `None` if the text is too large to
/// look for it.
fn unbounded_number(text: &str, place: &str, depth: usize) -> Option<String> {
    const MAX_SEARCHED: usize = 64 << 10;
    const MAX_DEPTH: usize = 127;
    const MAX_SHOWN: usize = 40;
    if text.len() > MAX_SEARCHED || depth > MAX_DEPTH {
        return None;
    }
    let text = text.trim();
    match text.as_bytes().first()? {
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
            let below = |(name, value): (&String, &&RawValue)| {
                unbounded_number(value.get(), &format!("{place}/{}", escape(name)), depth + 1)
            };
            members.iter().find_map(below)
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let below = |(index, value): (usize, &&RawValue)| {
                unbounded_number(value.get(), &format!("{place}/{index}"), depth + 1)
            };
            items.iter().enumerate().find_map(below)
        }
        b'-' | b'0'..=b'9' => {
            let at = if place.is_empty() { String::new() } else { format!(" at {}", shorten(place, MAX_SHOWN)) };
            text.parse::<f64>().ok()?.is_infinite().then(|| format!("{}{at}", shorten(text, MAX_SHOWN)))
        }
        _ => None,
    }
}

/// Returns the error in a text that breaks JSON's grammar. Ignores the depth of nesting, the range of numbers and
/// surrogates, and does not recurse.
fn json_syntax_error(text: &str) -> Option<JsonDecodeError> {
    serde_json::from_str::<IgnoredAny>(text).err().map(|error| JsonDecodeError::NotJson(error.to_string()))
}

/// Returns the string values of the members with these names, `None` for members of other types, from a JSON text that
/// exceeds the limits: they show which messages it cannot be. Empty if the JSON is not an object.
///
/// # Errors
/// A member's name contains half a surrogate pair.
pub fn member_texts(text: &str, wanted: &dyn Fn(&str) -> bool) -> serde_json::Result<BTreeMap<String, Option<String>>> {
    struct MemberVisitor<'a>(&'a dyn Fn(&str) -> bool);
    impl<'de> Visitor<'de> for MemberVisitor<'_> {
        type Value = BTreeMap<String, Option<String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut found = BTreeMap::new();
            while let Some(name) = members.next_key::<String>()? {
                if (self.0)(&name) {
                    let value: &RawValue = members.next_value()?;
                    found.insert(name, serde_json::from_str(value.get()).ok());
                } else {
                    members.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    if !text.trim_start().starts_with('{') {
        return Ok(BTreeMap::new());
    }
    serde_json::Deserializer::from_str(text).deserialize_map(MemberVisitor(wanted))
}

/// Estimates how many bytes of memory a text and its decoded value take.
pub fn memory_weight(text: &str) -> usize {
    2 * text.len() + VALUE_BYTES * max_value_count(text)
}

/// Returns an upper bound for the number of values in a text: each but the first follows a comma or an opening bracket
/// outside strings.
fn max_value_count(text: &str) -> usize {
    let (mut values, mut inside, mut escaped) = (1, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b',' | b'[' | b'{' if !inside => values += 1,
            _ => {}
        }
    }
    values
}

/// Replaces each of the words outside strings with `null`; returns `None` if the text contains none of them.
fn replace_words_by_null(text: &str, words: &[String]) -> Option<String> {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_');
    let mut result = String::new();
    let (mut copied, mut at) = (0, 0);
    let (mut quoted, mut escaped) = (false, false);
    while let Some(c) = text[at..].chars().next() {
        let next = at + c.len_utf8();
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted || !part_of_word(c) => {}
            _ => {
                let rest = &text[at..];
                let word = &rest[..rest.find(|c: char| !part_of_word(c)).unwrap_or(rest.len())];
                if words.iter().any(|known| known == word) {
                    result.push_str(&text[copied..at]);
                    result.push_str("null");
                    copied = at + word.len();
                }
                at += word.len();
                continue;
            }
        }
        at = next;
    }
    (copied > 0).then(|| result + &text[copied..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    const DEEP: usize = 100_000;

    fn nested_text(open: &str, close: &str) -> String {
        format!("{}{}", open.repeat(DEEP), close.repeat(DEEP))
    }

    #[rstest]
    #[case::deep(nested_text("[", "]"), "it is nested deeper than 127 levels")]
    #[case::deep_object(format!("{}1{}", r#"{"a":"#.repeat(DEEP), "}".repeat(DEEP)), "it is nested deeper than 127 levels")]
    #[case::long_number("9".repeat(100_000), "it contains a number that no double holds")]
    #[case::exponent("[-1e400]".to_owned(), "it contains a number that no double holds: -1e400 at /0")]
    #[case::member(r#"{"a":{"b/c":[1, 2e999 ]}}"#.to_owned(), "it contains a number that no double holds: 2e999 at /a/b~1c/1")]
    #[case::beside_depth(format!(r#"{{"z":1e400,"a":{}}}"#, nested_text("[", "]")), "it contains a number that no double holds")]
    #[case::leading(r#""\ud800""#.to_owned(), "it contains half a surrogate pair")]
    #[case::leading_then_text(r#"{"a":"\ud800x"}"#.to_owned(), "it contains half a surrogate pair")]
    #[case::leading_then_escape(r#""\ud800\n""#.to_owned(), "it contains half a surrogate pair")]
    #[case::trailing(r#""\udc00""#.to_owned(), "it contains half a surrogate pair")]
    #[case::two_leading(r#""\ud800\ud800""#.to_owned(), "it contains half a surrogate pair")]
    #[case::leading_then_no_trailing(r#""\ud800\u0041""#.to_owned(), "it contains half a surrogate pair")]
    #[case::in_a_name(r#"{"\udfff":1}"#.to_owned(), "it contains half a surrogate pair")]
    #[case::many(format!("[{}0]", "0,".repeat(MAX_VALUES)), "it contains more than 262144 values")]
    fn json_beyond_a_limit_is_not_decoded(#[case] text: String, #[case] why: &str) {
        assert_eq!(decode_json(&text, &[]), Err(JsonDecodeError::Beyond(why.to_owned())));
    }

    #[rstest]
    #[case::other(r#""type":"B","of":1"#, json!({ "type": "B" }))]
    #[case::last(r#""type":"B","type":"C""#, json!({ "type": "C" }))]
    #[case::escaped(r#""ty\u0070e":"\u0042""#, json!({ "type": "B" }))]
    #[case::none(r#""of":"type""#, json!({}))]
    #[case::no_text(r#""type":{"type":"B"}"#, json!({ "type": null }))]
    #[case::half(r#""type":"\ud800""#, json!({ "type": null }))]
    #[case::half_a_name(r#""\ud800":1,"type":"B""#, json!(null))]
    fn members_are_found_in_json_beyond_a_limit(#[case] members: &str, #[case] expected: Value) {
        let text = format!(" {{{members},\"deep\":{}}}", nested_text("[", "]"));
        assert_eq!(json!(member_texts(&text, &|name| name == "type").ok()), expected);
        assert_eq!(member_texts(&nested_text("[", "]"), &|_| true).unwrap(), BTreeMap::new());
    }

    #[rstest]
    #[case::open("[".repeat(DEEP))]
    #[case::closed_wrongly(nested_text("[", "}"))]
    #[case::many(format!("[{}]", "0,".repeat(MAX_VALUES)))]
    #[case::long_number(format!("{}.", "9".repeat(1000)))]
    #[case::surrogate(r#""\ud800"#.to_owned())]
    #[case::half_of_half_a_pair(r#""\ud8""#.to_owned())]
    #[case::cut("{".to_owned())]
    #[case::no_hex(r#""\ud8zz""#.to_owned())]
    #[case::nothing(String::new())]
    fn invalid_json_is_not_json_however_large(#[case] text: String) {
        assert!(matches!(decode_json(&text, &[]), Err(JsonDecodeError::NotJson(_))), "{:?}", decode_json(&text, &[]));
    }

    #[rstest]
    #[case::digits(format!("0.{}", "1".repeat(1000)))]
    #[case::small("1e-1000".to_owned())]
    #[case::depth(format!("{}{}", "[".repeat(127), "]".repeat(127)))]
    #[case::pair(r#""\ud83d\ude00""#.to_owned())]
    #[case::commas(format!("\"{}\\\"{}\"", ",".repeat(MAX_VALUES), "[".repeat(MAX_VALUES)))]
    fn json_just_within_the_limits_is_decoded(#[case] text: String) {
        decode_json(&text, &[]).unwrap();
    }

    #[rstest]
    #[case(r#"{"a":NaN,"b":[Infinity,-Infinity ,1]}"#, Some(json!({"a": null, "b": [null, null, 1]})))]
    #[case("NaN", Some(json!(null)))]
    #[case(r#"{"a":"\"NaN","NaN":NaN}"#, Some(json!({"a": "\"NaN", "NaN": null})))]
    #[case(r#"{"é":NaN}"#, Some(json!({"é": null})))]
    #[case(r#"{"a":NaNa}"#, None)]
    #[case(r#"{"a":+Infinity}"#, None)]
    #[case(r#"{"a":NaN"#, None)]
    #[case(r#"{"a":nan}"#, None)]
    #[case(r#"{"a":"NaN"#, None)]
    fn nan_and_infinity_are_read_as_null_where_allowed(#[case] text: &str, #[case] expected: Option<Value>) {
        let words = ["NaN", "Infinity", "-Infinity"].map(str::to_owned);
        assert_eq!(decode_json(text, &words).ok(), expected);
        // Without the words the text is not JSON.
        assert!(decode_json(text, &[]).is_err());
    }

    #[rstest]
    #[case(r#"{"a":NaN,"b":1e400}"#)]
    #[case(r#"{"b":1e400,"a":NaN}"#)]
    fn an_exceeded_limit_is_reported_even_with_nan(#[case] text: &str) {
        let beyond = JsonDecodeError::Beyond("it contains a number that no double holds: 1e400 at /b".to_owned());
        assert_eq!(decode_json(text, &["NaN".to_owned()]), Err(beyond));
        assert!(matches!(decode_json(text, &[]), Err(JsonDecodeError::NotJson(_))));
    }
}
