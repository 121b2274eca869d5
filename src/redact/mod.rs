//! Keeps secrets out of everything that hubproof writes: reports, histories, findings, reproduction commands.

mod credentials;
mod escapes;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

use aho_corasick::{AhoCorasick, packed};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use parking_lot::RwLock;
use regex::Regex;
use serde_json::Value;

use self::credentials::find_credentials;
use crate::websocket::endpoint::Endpoint;

/// The text that replaces a secret.
pub const MASK: &str = "***";

/// Secrets shorter than this are masked only as whole words: the secret `a1` must not mask a part of `data1`.
const SHORT_SECRET: usize = 4;
/// The most forms of texts that were made from secrets during one conversation or one load run.
const MOST_MADE: usize = 500;
/// The least part of a secret that is masked at the beginning or end of a frame.
const PART_OF_SECRET: usize = 6;

/// Replaces secrets in texts, in every form in which they are sent: plain, in hexadecimal, in base64 of either alphabet
/// (alone or inside a longer encoded text), and escaped for JSON, JavaScript, URLs, forms, HTML or XML, several times if
/// need be. The values of query members with the names of secrets, passwords in addresses and the signatures of tokens
/// are replaced too.
///
/// Mask a text before cutting it: half a secret is not recognised.
#[derive(Clone, Default)]
pub struct SecretMasker {
    given: Arc<SecretForms>,
    /// The texts that were made from secrets during a conversation, as they are and without escapes.
    made: Arc<RwLock<Vec<SecretForm>>>,
}

/// Forms that are searched for in one pass.
#[derive(Default)]
struct SecretForms {
    /// Every form of every secret, so that no form is searched for twice.
    known: BTreeSet<Vec<u8>>,
    forms: Vec<SecretForm>,
    automaton: Option<AhoCorasick>,
    /// A prefilter that quickly rules out texts without any of the forms; `None` if there are too many forms for it.
    quick: Option<packed::Searcher>,
}

struct SecretForm {
    text: Vec<u8>,
    /// Whether the form is masked only as a whole word.
    only_word: bool,
}

/// Parts of names that suggest a secret wherever they stand.
const SECRET_PARTS: [&str; 12] = [
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "jwt",
    "passw",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
];

/// Whether the name of a header or a query member suggests a secret.
pub fn is_secret_name(name: &str) -> bool {
    const PARTS: [&str; 2] = ["session", "signature"];
    const WORDS: [&str; 7] = ["auth", "authkey", "code", "key", "pass", "sid", "sig"];
    let plain = plain_name(name);
    WORDS.contains(&plain.as_str()) || is_secret_member(name) || PARTS.iter().any(|part| plain.contains(part))
}

/// Whether the name of a member of a message suggests a secret. Messages have codes, keys and sessions that are none.
pub fn is_secret_member(name: &str) -> bool {
    let name = plain_name(name);
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

fn plain_name(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// Masks the texts of members with the names of secrets in JSON text, which need not be complete.
pub fn mask_secret_members(text: &str) -> Cow<'_, str> {
    static MEMBER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#""([A-Za-z0-9_. -]{1,64})"\s*:\s*"((?:[^"\\]|\\.)*)"#).expect("a valid pattern"));
    let members = MEMBER.captures_iter(text).filter(|found| is_secret_member(&found[1]));
    let hidden = members.filter_map(|found| found.get(2)).map(|value| (value.start(), value.end()));
    mask_ranges(text, hidden.filter(|(start, end)| start < end).collect())
}

/// Returns the secrets in the query of an address.
pub fn address_secrets(address: &Endpoint) -> impl Iterator<Item = String> {
    address
        .query_members()
        .into_iter()
        .filter(|(name, value)| is_secret_name(name) && !value.is_empty())
        .map(|(_, value)| value)
}

/// Returns every text and every number in a value, apart from short numbers.
pub fn collect_texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Number(number) => {
            Some(number.to_string()).filter(|text| text.len() >= SHORT_SECRET).into_iter().collect()
        }
        Value::Array(items) => items.iter().flat_map(collect_texts).collect(),
        Value::Object(members) => members.values().flat_map(collect_texts).collect(),
        Value::Null | Value::Bool(_) => Vec::new(),
    }
}

impl SecretMasker {
    /// Creates a masker; empty secrets are ignored.
    pub fn new(secrets: impl Iterator<Item = String>) -> Self {
        Self { given: Arc::new(SecretForms::new(secrets)), made: Arc::default() }
    }

    /// Returns a masker for one conversation: it knows the given secrets, and none that other conversations made.
    pub fn for_conversation(&self) -> Self {
        Self { given: Arc::clone(&self.given), made: Arc::default() }
    }

    /// Adds a text that was made from a secret, such as a token. Of many thousand clients that make one each, only the
    /// texts of the first are known; what they were made from is always masked.
    pub fn add(&self, text: &str) {
        let mut made = self.made.write();
        if made.len() < MOST_MADE
            && !self.given.known.contains(text.as_bytes())
            && made.iter().all(|form| form.text != text.as_bytes())
        {
            made.extend(plain_forms(text).into_iter().map(SecretForm::new));
        }
    }

    /// Whether texts that are made from secrets are still to be added: there are secrets, and room.
    pub fn is_learning(&self) -> bool {
        !self.given.known.is_empty() && self.made.read().len() < MOST_MADE
    }

    /// Whether a text contains a secret that was given, or made from one.
    pub fn finds_in(&self, text: &str) -> bool {
        !self.find_secrets(text).is_empty()
    }

    /// Returns the text with [`MASK`] for every secret in it; borrowed when there is none.
    ///
    /// For JSON that will be read again, [`mask_value`](Self::mask_value) is safer: in JSON text a secret may begin
    /// with the second half of an escape.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut hidden = self.find_secrets(text);
        find_credentials(text, &mut hidden);
        mask_ranges(text, hidden)
    }

    /// Masks the payload of a frame, or a text that quotes payloads. Either may hold only a part of a message, so its end
    /// is masked if a secret begins there, and its beginning if a secret ends there.
    pub fn mask_frame<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut hidden = self.find_secrets(text);
        find_credentials(text, &mut hidden);
        let message = text.trim_ascii();
        let is_complete = message.starts_with(['{', '[']) && message.ends_with(['}', ']']);
        if !is_complete {
            let made = self.made.read();
            let known = || self.given.known.iter().chain(made.iter().map(|form| &form.text));
            // An error quotes payloads.
            for (secret, quoted) in text.split('"').flat_map(|quoted| known().map(move |secret| (secret, quoted))) {
                let start = quoted.as_ptr().addr() - text.as_ptr().addr();
                let end = start + quoted.len();
                let least = PART_OF_SECRET.min(secret.len() / 2).max(SHORT_SECRET);
                let quoted = quoted.as_bytes();
                let mut lengths = (least..secret.len().min(quoted.len() + 1)).rev();
                let begun = lengths.clone().find(|length| quoted.ends_with(&secret[..*length]));
                hidden.extend(begun.map(|length| (end - length, end)));
                let ended = lengths.find(|length| quoted.starts_with(&secret[secret.len() - length..]));
                hidden.extend(ended.map(|length| (start, start + length)));
            }
        }
        mask_ranges(text, hidden)
    }

    /// Masks every known secret in the texts, member names and numbers of a value.
    pub fn mask_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(masked) = mask_ranges(text, self.find_secrets(text)) {
                    *text = masked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_value(item)),
            Value::Object(members) => {
                for (name, mut member) in std::mem::take(members) {
                    self.mask_value(&mut member);
                    members.insert(mask_ranges(&name, self.find_secrets(&name)).into_owned(), member);
                }
            }
            Value::Number(number) => {
                if self.given.known.contains(number.to_string().as_bytes()) {
                    *value = Value::from(MASK);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Returns the ranges of known secrets, as they stand and with all escapes decoded.
    fn find_secrets(&self, text: &str) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let made = self.made.read();
        if self.given.known.is_empty() && made.is_empty() {
            return found;
        }
        let find = |text: &[u8], found: &mut Vec<(usize, usize)>| {
            self.given.find(text, found);
            made.iter().for_each(|form| form.find(text, found));
        };
        find(text.as_bytes(), &mut found);
        // A secret may end with the first half of an escape, so every form of the text is searched.
        for decoded in escapes::decodings(text.as_bytes()) {
            let before = found.len();
            find(&decoded.bytes, &mut found);
            found[before..].iter_mut().for_each(|range| *range = decoded.source_range(*range));
        }
        found
    }
}

impl SecretForms {
    fn new(secrets: impl Iterator<Item = String>) -> Self {
        let mut all = Self::default();
        for secret in secrets.filter(|secret| !secret.is_empty()) {
            let only_word = SecretForm::new(secret.clone().into_bytes()).only_word;
            let new = secret_forms(&secret).into_iter().filter(|form| all.known.insert(form.clone()));
            all.forms.extend(new.map(|text| SecretForm { text, only_word }));
        }
        if !all.forms.is_empty() {
            let texts = || all.forms.iter().map(|form| &form.text);
            // Fails only beyond 2^31 states, more than any set of secrets needs.
            (all.automaton, all.quick) = (AhoCorasick::new(texts()).ok(), packed::Searcher::new(texts()));
        }
        all
    }

    fn find(&self, text: &[u8], found: &mut Vec<(usize, usize)>) {
        let Some(automaton) = &self.automaton else { return };
        if self.quick.as_ref().is_some_and(|quick| quick.find(text).is_none()) {
            return;
        }
        for one in automaton.find_overlapping_iter(text) {
            self.forms[one.pattern().as_usize()].add_match(text, one.start(), found);
        }
    }
}

impl SecretForm {
    fn new(text: Vec<u8>) -> Self {
        Self { only_word: String::from_utf8_lossy(&text).chars().count() < SHORT_SECRET, text }
    }

    fn find(&self, text: &[u8], found: &mut Vec<(usize, usize)>) {
        memchr::memmem::find_iter(text, &self.text).for_each(|start| self.add_match(text, start, found));
    }

    fn add_match(&self, text: &[u8], start: usize, found: &mut Vec<(usize, usize)>) {
        let end = start + self.text.len();
        if !self.only_word || stands_alone(text, start, end) {
            found.push((start, end));
        }
    }
}

/// Masks the credentials in a text that can be recognised without knowing them: see [`find_credentials`].
pub fn mask_credentials(text: &str) -> Cow<'_, str> {
    let mut hidden = Vec::new();
    find_credentials(text, &mut hidden);
    mask_ranges(text, hidden)
}

fn mask_ranges(text: &str, mut hidden: Vec<(usize, usize)>) -> Cow<'_, str> {
    if hidden.is_empty() {
        return Cow::Borrowed(text);
    }
    hidden.sort_unstable();
    let mut masked = String::with_capacity(text.len());
    let mut shown_to = 0;
    for (start, end) in hidden {
        // A secret without its escapes may begin or end within a character.
        let (start, end) = (text.floor_char_boundary(start), text.ceil_char_boundary(end));
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

impl fmt::Debug for SecretMasker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretMasker({} forms)", self.given.known.len())
    }
}

fn stands_alone(text: &[u8], start: usize, end: usize) -> bool {
    let word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    !word(text[..start].last()) && !word(text.get(end))
}

/// Returns a secret as it is, without escapes, and in JSON: there, what stands before it may look like an escape with it.
fn plain_forms(secret: &str) -> Vec<Vec<u8>> {
    let decoded = escapes::decode(secret.as_bytes()).map(|decoded| decoded.bytes);
    let json = Value::from(secret).to_string();
    let json = Some(json.as_bytes()[1..json.len() - 1].to_owned()).filter(|json| json.len() > secret.len());
    let others = decoded.into_iter().chain(json).filter(|form| !form.is_empty());
    std::iter::once(secret.as_bytes().to_owned()).chain(others).collect()
}

fn secret_forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = plain_forms(secret);
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    // Two digits would match in texts without the secret.
    if secret.len() >= SHORT_SECRET {
        forms.extend([hex.to_ascii_uppercase().into_bytes(), hex.into_bytes()]);
    }
    forms.extend(base64_forms(secret).into_iter().map(String::into_bytes));
    forms
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
    #[case::plain(r#"{"a":"b","secret":"x"}"#, r#"{"a":"b","secret":"***"}"#)]
    #[case::spaced(r#"{ "Access_Token" : "x\"y" , "code": "OK"}"#, r#"{ "Access_Token" : "***" , "code": "OK"}"#)]
    #[case::cut(r#"{"password":"half"#, r#"{"password":"***"#)]
    #[case::not_a_secret(
        r#"{"session_id":"1","key":"2","token":3,"jwt":""}"#,
        r#"{"session_id":"1","key":"2","token":3,"jwt":""}"#
    )]
    fn texts_of_members_with_the_names_of_secrets_are_masked(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(mask_secret_members(text), expected);
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
    #[case::html("p&quot;&auml;/ss?&gt;w&ouml;rd +1".replace("&auml;", "&#xe4;").replace("&ouml;", "&#246;"))]
    #[case::go_json(r#"p\"ä/ss?\u003ewörd +1"#.to_owned())]
    #[case::dotnet_json(r#"p\u0022\u00E4/ss?\u003Ew\u00F6rd \u002B1"#.to_owned())]
    #[case::script(r#"p\x22\xc3\xa4/ss?\x3Ew\xc3\xb6rd +1"#.to_owned())]
    #[case::url_twice("p%2522%25C3%25A4%252Fss%253F%253Ew%25C3%25B6rd%2520%252B1".to_owned())]
    #[case::html_in_json(r#"p\u0026quot;ä/ss?\u0026gt;wörd +1"#.to_owned())]
    #[case::hex(SECRET.bytes().map(|byte| format!("{byte:02x}")).collect())]
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
        let masker = masker(&["first-secret"]);
        assert_eq!(masker.mask("second-secret"), "second-secret");
        masker.add("second-secret");
        assert_eq!(masker.mask("second-secret, first-secret"), "***, ***");
        assert!(matches!(masker.mask("third"), Cow::Borrowed("third")));
        assert!(!format!("{masker:?}").contains("secret"));
    }

    #[rstest]
    #[case("ws://h/x?token=abc&n=1", "ws://h/x?token=***&n=1")]
    #[case("GET /?a=1&X-Amz-Signature=abc HTTP/1.1", "GET /?a=1&X-Amz-Signature=*** HTTP/1.1")]
    #[case("/x?to%6ben=abc#f", "/x?to%6ben=***#f")]
    #[case(r#"{"url":"/x?a=1\u0026jwt=abc\u0026b=2"}"#, r#"{"url":"/x?a=1\u0026jwt=***\u0026b=2"}"#)]
    #[case("<a href='/x?a=1&amp;sid=abc'>", "<a href='/x?a=1&amp;sid=***'>")]
    #[case("wss://anna:pa55@hub/x and http://h/@b:c", "wss://anna:***@hub/x and http://h/@b:c")]
    #[case("?codec=1&encoding=2&keyboard=3&author=4&x=token=5", "?codec=1&encoding=2&keyboard=3&author=4&x=token=5")]
    #[case("what? token = 5", "what? token = 5")]
    #[case("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0.", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0.")]
    #[case(
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.VXe8dINoHYfQ4SQPpgAnBuNqJJzyXTMYGkFbkQZ2avs!",
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.***!"
    )]
    fn credentials_are_masked_by_their_form(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(mask_credentials(text), expected);
        assert_eq!(masker(&["other secret"]).mask(text), expected);
    }

    #[rstest]
    #[case("the canary-se", "the ***")]
    #[case("secret of 1", "*** of 1")]
    #[case("-secret canary-secret canary", "*** *** ***")]
    #[case("ret of cana", "ret of cana")]
    fn the_parts_of_a_secret_in_two_frames_are_masked(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(masker(&["canary-secret"]).mask_frame(text), expected);
    }

    #[test]
    fn a_number_that_is_secret_is_masked() {
        let mut value = json!({ "pin": 834719, "other": 834718 });
        masker(&["834719"]).mask_value(&mut value);
        assert_eq!(value, json!({ "pin": "***", "other": 834718 }));
    }

    #[test]
    fn secrets_are_masked_in_all_texts_of_a_json_value() {
        // In JSON text the `n` of the escape and the secret would be taken for each other.
        let mut value = json!({ "a": "\nn123", "n123": [1, true, null, "x n123"] });
        masker(&["n123"]).mask_value(&mut value);
        assert_eq!(value, json!({ "a": "\n***", "***": [1, true, null, "x ***"] }));
    }

    #[test]
    fn a_secret_whose_escapes_are_no_text_is_masked_in_json() {
        let json = json!({ "a": "ä𝋀\"%A0ö" }).to_string();
        assert_eq!(masker(&["𝋀\"%A0"]).mask(&json), r#"{"a":"ä***ö"}"#);
        // Its bytes are a part of the letter.
        assert_eq!(masker(&["%A0-%A0-%A0"]).mask_frame("\u{3020}-\u{3020}-\u{3020}"), "\u{3020}-\u{3020}-\u{3020}");
    }

    proptest! {
        // Of a secret with an asterisk the mask itself could become a part.
        #[test]
        fn a_masked_text_contains_no_secret(secret in "[^\\pC*]{4,12}", before in "\\PC{0,12}", after in "\\PC{0,12}") {
            let masker = masker(&[&secret]);
            let text = format!("{before}{secret}{after}{secret}");
            prop_assert!(!masker.mask(&text).contains(&secret));
            let json = Value::from(text).to_string();
            let escaped = Value::from(secret.as_str()).to_string();
            prop_assert!(!masker.mask(&json).contains(&escaped[1..escaped.len() - 1]));
        }
    }
}
