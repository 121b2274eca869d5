//! From the text of a frame to JSON: what it is, what it is not, and what we cannot tell.

use serde_json::Value;

pub(super) enum Undecoded {
    Binary,
    NotJson(String),
    /// JSON, for all we know, but beyond what we take: nesting, number range, half a surrogate pair.
    Beyond(String),
}

/// `no_numbers` are words that stand for a number JSON has not, and are read as null (see [`crate::pack::Ours`]).
pub(super) fn decode(text: &str, no_numbers: &[String]) -> Result<Value, Undecoded> {
    serde_json::from_str(text).or_else(|error| {
        let replaced = without(text, no_numbers).and_then(|text| serde_json::from_str(&text).ok());
        replaced.ok_or_else(|| undecoded(&error))
    })
}

fn undecoded(error: &serde_json::Error) -> Undecoded {
    let why = error.to_string();
    // Half a pair of surrogates at the end of a text is "unexpected end of hex escape".
    let beyond = ["recursion limit", "number out of range", "surrogate", "end of hex escape"]
        .iter()
        .any(|limit| why.contains(limit));
    if beyond { Undecoded::Beyond(format!("a frame cannot be decoded here: {why}")) } else { Undecoded::NotJson(why) }
}

/// The text with `null` for every such word outside of texts; `None` where there is none.
fn without(text: &str, words: &[String]) -> Option<String> {
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
    fn words_for_no_number_are_null(#[case] text: &str, #[case] expected: Option<Value>) {
        let words = ["NaN", "Infinity", "-Infinity"].map(str::to_owned);
        assert_eq!(decode(text, &words).ok(), expected);
        // And without them this is no JSON.
        assert!(decode(text, &[]).is_err());
    }

    #[rstest]
    #[case("1e400", true)]
    #[case(r#""\ud800""#, true)]
    #[case(r#""\ud800x""#, true)]
    #[case(r#""\ud800\u0041""#, true)]
    #[case(r#""\udc00""#, true)]
    #[case(r#""\ud8""#, false)]
    #[case(r#""\ud800"#, false)]
    #[case("{", false)]
    fn what_is_beyond_us_is_told_from_what_is_wrong(#[case] text: &str, #[case] beyond: bool) {
        assert_eq!(matches!(decode(text, &[]), Err(Undecoded::Beyond(_))), beyond);
    }
}
