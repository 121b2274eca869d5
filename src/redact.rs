//! Keeps secrets out of everything that hubproof writes: reports, histories, findings, reproduction commands.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use aho_corasick::{AhoCorasick, packed};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::websocket::endpoint::Endpoint;

/// The text that replaces a secret.
pub const MASK: &str = "***";

/// Secrets shorter than this are masked only as whole words: the secret `a1` must not mask a part of `data1`.
const SHORT_SECRET: usize = 4;

/// Replaces secrets in texts, in every form in which they are sent: plain, escaped for JSON, for a URL or a form, and
/// in base64 of either alphabet, alone or inside a longer encoded text.
///
/// Mask a text before cutting it: half a secret is not recognised.
#[derive(Clone, Default)]
pub struct SecretMasker {
    /// Every form of every secret, so that no form is searched for twice.
    known: BTreeSet<String>,
    /// Batches of forms, each at least twice as large as the next, so that adding a secret does not rebuild all of
    /// them.
    batches: Vec<FormBatch>,
}

/// Forms that are searched for in one pass.
#[derive(Clone)]
struct FormBatch {
    forms: Vec<SecretForm>,
    automaton: AhoCorasick,
    /// A prefilter that quickly rules out texts without any of the forms; `None` if there are too many forms for it.
    quick: Option<packed::Searcher>,
}

#[derive(Clone)]
struct SecretForm {
    text: String,
    /// Whether the form is masked only as a whole word.
    only_word: bool,
}

/// Whether the name of a header or a query member suggests a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_'], "");
    ["authorization", "cookie", "token", "secret", "password", "apikey"].iter().any(|word| name.contains(word))
}

/// Returns the secrets in the query of an address.
pub fn address_secrets(address: &Endpoint) -> impl Iterator<Item = String> {
    address
        .query_members()
        .into_iter()
        .filter(|(name, value)| is_secret_name(name) && !value.is_empty())
        .map(|(_, value)| value)
}

impl SecretMasker {
    /// Creates a masker; empty secrets are ignored.
    pub fn new(secrets: impl Iterator<Item = String>) -> Self {
        let mut masker = Self::default();
        let mut forms = Vec::new();
        for secret in secrets {
            forms.extend(masker.new_forms(&secret));
        }
        masker.add_forms(forms);
        masker
    }

    /// Adds a secret, such as a token made during the run.
    pub fn add(&mut self, secret: &str) {
        let forms = self.new_forms(secret);
        self.add_forms(forms);
    }

    /// Returns the text with [`MASK`] for every secret in it; borrowed when there is none.
    ///
    /// For JSON that will be read again, [`mask_value`](Self::mask_value) is safer: in JSON text a secret may begin
    /// with the second half of an escape.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut hidden = Vec::new();
        for FormBatch { forms, automaton, quick } in &self.batches {
            if quick.as_ref().is_some_and(|quick| quick.find(text).is_none()) {
                continue;
            }
            for found in automaton.find_overlapping_iter(text) {
                let (start, end) = (found.start(), found.end());
                if !forms[found.pattern().as_usize()].only_word || stands_alone(text, start, end) {
                    hidden.push((start, end));
                }
            }
        }
        if hidden.is_empty() {
            return Cow::Borrowed(text);
        }
        hidden.sort_unstable();
        let mut masked = String::with_capacity(text.len());
        let mut shown_to = 0;
        for (start, end) in hidden {
            // A match that overlaps the previous one only extends it.
            if start >= shown_to {
                masked.push_str(&text[shown_to..start]);
                masked.push_str(MASK);
            }
            shown_to = shown_to.max(end);
        }
        masked.push_str(&text[shown_to..]);
        Cow::Owned(masked)
    }

    /// Masks every text and every member name in a value. Numbers stay unchanged: secrets are texts.
    pub fn mask_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(masked) = self.mask(text) {
                    *text = masked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_value(item)),
            Value::Object(members) => {
                for (name, mut member) in std::mem::take(members) {
                    self.mask_value(&mut member);
                    members.insert(self.mask(&name).into_owned(), member);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn new_forms(&mut self, secret: &str) -> Vec<SecretForm> {
        let only_word = secret.chars().count() < SHORT_SECRET;
        let mut forms = secret_forms(secret);
        forms.retain(|form| !form.is_empty() && self.known.insert(form.clone()));
        forms.into_iter().map(|text| SecretForm { text, only_word }).collect()
    }

    fn add_forms(&mut self, mut forms: Vec<SecretForm>) {
        while let Some(small) = self.batches.pop_if(|last| last.forms.len() <= 2 * forms.len()) {
            forms.extend(small.forms);
        }
        if forms.is_empty() {
            return;
        }
        let automaton = AhoCorasick::new(forms.iter().map(|form| &form.text));
        let quick = packed::Searcher::new(forms.iter().map(|form| &form.text));
        // Fails only beyond 2^31 states, more than any set of secrets needs.
        self.batches.extend(automaton.ok().map(|automaton| FormBatch { forms, automaton, quick }));
    }
}

impl fmt::Debug for SecretMasker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretMasker({} forms)", self.known.len())
    }
}

fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    !text[..start].ends_with(word) && !text[end..].starts_with(word)
}

/// All characters but RFC 3986's unreserved ones.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The characters that `encodeURIComponent` escapes.
const COMPONENT: &AsciiSet = &UNRESERVED.remove(b'!').remove(b'*').remove(b'\'').remove(b'(').remove(b')');
/// The characters that must be escaped in a query.
const QUERY: &AsciiSet = &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'%');
/// The characters that minijinja's `urlencode` escapes.
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

fn secret_forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    for set in [NON_ALPHANUMERIC, UNRESERVED, COMPONENT, QUERY, PATH] {
        let encoded = utf8_percent_encode(secret, set).to_string();
        forms.push(encoded.replace("%20", "+"));
        forms.push(lower_hex(&encoded));
        forms.push(encoded);
    }
    let escaped = json_escaped(secret);
    forms.push(escaped.replace('/', "\\/"));
    forms.push(ascii_escaped(&escaped));
    // A JSON text inside a JSON text.
    forms.push(json_escaped(&escaped));
    forms.push(escaped);
    forms.extend(base64_forms(secret));
    forms
}

/// Returns a percent-encoded text with its hex digits in lower case: `%2f` for `%2F`.
fn lower_hex(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut lower = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        lower.push('%');
        lower.push_str(&hex.to_ascii_lowercase());
        lower.push_str(rest);
    }
    lower
}

fn json_escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn ascii_escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() {
            true => escaped.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    escaped
}

/// Returns the base64 of the secret, and the digits that depend on nothing else when the secret is inside a longer
/// encoded text: the group of three bytes that contains its start may begin one or two bytes earlier.
fn base64_forms(secret: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        let whole = engine.encode(secret);
        forms.push(match whole.len() % 4 {
            0 => whole.clone(),
            n => format!("{whole}{}", &"=="[..4 - n]),
        });
        forms.push(whole);
        for before in 0..3 {
            let mut bytes = vec![0; before];
            bytes.extend(secret.as_bytes());
            let certain = bytes.len() * 8 / 6;
            let from = (before * 8).div_ceil(6);
            let digits = engine.encode(&bytes);
            // Fewer digits would match in texts without the secret.
            if certain.saturating_sub(from) >= 6 {
                forms.push(digits[from..certain].to_owned());
            }
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    const SECRET: &str = "p\"ä/ss?>wörd +1";

    fn masker(secrets: &[&str]) -> SecretMasker {
        SecretMasker::new(secrets.iter().map(|s| (*s).to_owned()))
    }

    #[rstest]
    #[case::plain(SECRET.to_owned())]
    #[case::json(r#"p\"ä/ss?>wörd +1"#.to_owned())]
    #[case::json_in_json(r#"p\\\"ä/ss?>wörd +1"#.to_owned())]
    #[case::json_slash(r#"p\"ä\/ss?>wörd +1"#.to_owned())]
    #[case::json_ascii(r#"p\"\u00e4/ss?>w\u00f6rd +1"#.to_owned())]
    #[case::url("p%22%C3%A4%2Fss%3F%3Ew%C3%B6rd%20%2B1".to_owned())]
    #[case::url_lower("p%22%c3%a4%2fss%3f%3ew%c3%b6rd%20%2b1".to_owned())]
    #[case::form("p%22%C3%A4%2Fss%3F%3Ew%C3%B6rd+%2B1".to_owned())]
    #[case::query("p%22%C3%A4/ss?%3Ew%C3%B6rd%20+1".to_owned())]
    #[case::base64(STANDARD.encode(SECRET))]
    #[case::base64_url(URL_SAFE.encode(SECRET))]
    #[case::base64_bare(URL_SAFE_NO_PAD.encode(SECRET))]
    fn a_secret_is_masked_in_every_encoding(#[case] form: String) {
        let masker = masker(&["other secret", SECRET]);
        assert_eq!(masker.mask(&form), MASK);
        assert_eq!(masker.mask(&format!("a={form}&b={form};")), "a=***&b=***;");
    }

    #[rstest]
    fn a_secret_is_masked_inside_a_longer_text_in_base64(
        #[values(0, 1, 2, 3)] before: usize,
        #[values(0, 1, 2)] after: usize,
    ) {
        let text = format!("{}canary-secret{}", "u".repeat(before), "v".repeat(after));
        let masker = masker(&["canary-secret"]);
        for encoded in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            let masked = masker.mask(&encoded).into_owned();
            assert!(masked.contains(MASK), "{encoded} became {masked}");
            assert!(masked.len() <= MASK.len() + 8, "{encoded} became {masked}");
        }
    }

    #[rstest]
    #[case(&["abcd", "bcdefg"], "xabcdefgy", "x***y")]
    #[case(&["abcd"], "abcdabcd", "******")]
    #[case(&["aaaa"], "aaaaaaab", "***b")]
    #[case(&["secret", "secretary"], "the secretary", "the ***")]
    #[case(&["a1"], "data1 a1, a1b \"a1\" a1", "data1 ***, a1b \"***\" ***")]
    #[case(&["äö"], "xäö äö.", "xäö ***.")]
    #[case(&[""], "nothing", "nothing")]
    #[case(&[], "nothing", "nothing")]
    fn overlapping_and_repeated_secrets_are_masked(
        #[case] secrets: &[&str],
        #[case] text: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(masker(secrets).mask(text), expected);
    }

    #[test]
    fn added_secrets_are_masked_and_absent_from_debug_output() {
        let mut masker = masker(&["first-secret"]);
        assert_eq!(masker.mask("second-secret"), "second-secret");
        masker.add("second-secret");
        assert_eq!(masker.mask("second-secret, first-secret"), "***, ***");
        assert!(matches!(masker.mask("third"), Cow::Borrowed("third")));
        assert!(!format!("{masker:?}").contains("secret"));
    }

    #[test]
    fn secrets_are_masked_in_all_texts_of_a_json_value() {
        // In JSON text the `n` of the escape and the secret would be taken for each other.
        let mut value = json!({ "a": "\nn123", "n123": [1, true, null, "x n123"] });
        masker(&["n123"]).mask_value(&mut value);
        assert_eq!(value, json!({ "a": "\n***", "***": [1, true, null, "x ***"] }));
    }

    #[test]
    fn two_hundred_added_secrets_are_masked_in_few_batches() {
        let mut masker = SecretMasker::default();
        let secrets: Vec<String> = (0..200).map(|n| format!("secret-{n:04}")).collect();
        secrets.iter().for_each(|secret| masker.add(secret));
        assert_eq!(masker.mask(&secrets.join(" ")), vec![MASK; 200].join(" "));
        assert!(masker.batches.len() < 12, "{} batches", masker.batches.len());
        let before = masker.known.len();
        masker.add(&secrets[7]);
        assert_eq!(masker.known.len(), before);
    }

    proptest! {
        #[test]
        fn a_masked_text_contains_no_secret(secret in "\\PC{4,12}", before in "\\PC{0,12}", after in "\\PC{0,12}") {
            // The mask itself could become part of such a secret.
            prop_assume!(!secret.contains('*'));
            let masker = masker(&[&secret]);
            let text = format!("{before}{secret}{after}{secret}");
            prop_assert!(!masker.mask(&text).contains(&secret));
            let json = Value::from(text).to_string();
            prop_assert!(!masker.mask(&json).contains(&json_escaped(&secret)));
        }
    }
}
