//! Finds credentials by their form, without knowing them: the values of query members with the names of secrets,
//! passwords in addresses, and the signatures of tokens.

use super::{escapes, is_secret_name};

/// The least length of a token's signature. Shorter texts only look like one.
const MIN_SIGNATURE: usize = 16;

/// Longest name of a query member, and longest header or claims of a token.
const MAX_NAME: usize = 64;
const MAX_TOKEN_PART: usize = 8 << 10;

/// Adds the ranges of the credentials in a text.
pub fn find_credentials(text: &str, found: &mut Vec<(usize, usize)>) {
    let bytes = text.as_bytes();
    // A value that contains `=` is searched only once.
    let mut searched = 0;
    for at in memchr::memchr_iter(b'=', bytes) {
        let name = (at >= searched).then(|| member_name(&bytes[..at])).flatten();
        if name.is_some_and(|name| is_secret_name(&decoded(name))) {
            let value = &text[at + 1..];
            let value = &value[..value.find(ends_value).unwrap_or(value.len())];
            // The punctuation of a sentence.
            searched = at + 1 + value.trim_end_matches([':', '.', '?', '!']).len();
            found.push((at + 1, searched));
        }
    }
    for at in memchr::memmem::find_iter(bytes, "://") {
        let rest = &text[at + 3..];
        let authority = &rest[..rest.find(['/', '?', '#', '"', '\\', ' ', '\n']).unwrap_or(rest.len())];
        if let Some((user, _)) = authority.rsplit_once('@')
            && let Some(colon) = user.find(':')
        {
            found.push((at + 4 + colon, at + 3 + user.len()));
        }
    }
    let mut searched = 0;
    for at in memchr::memmem::find_iter(bytes, "eyJ") {
        if at < searched {
            continue;
        }
        let Some(head) = token_part(&bytes[at..]) else { continue };
        let Some(claims) = token_part(&bytes[at + head..]) else { continue };
        let start = at + head + claims;
        let length = bytes[start..].iter().take_while(|byte| is_token_byte(**byte)).count();
        if length >= MIN_SIGNATURE {
            searched = start + length;
            found.push((start, searched));
        }
    }
    // An empty range hides nothing.
    found.retain(|(start, end)| start < end);
}

/// Returns the name of the query member with which a text ends.
fn member_name(text: &[u8]) -> Option<&[u8]> {
    let in_name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-_.%[]".contains(byte);
    let length = text.iter().rev().take(MAX_NAME).take_while(in_name).count();
    let (before, name) = text.split_at(text.len() - length);
    match name.strip_prefix(b"u0026").filter(|_| before.ends_with(b"\\")) {
        Some(name) => Some(name),
        None => (before.ends_with(b"?") || before.ends_with(b"&") || before.ends_with(b"&amp;")).then_some(name),
    }
}

/// Returns the length of the part with which a token begins, including its dot.
fn token_part(text: &[u8]) -> Option<usize> {
    let length = text.iter().take(MAX_TOKEN_PART).take_while(|byte| is_token_byte(**byte)).count();
    (text.get(length) == Some(&b'.')).then_some(length + 1)
}

fn decoded(name: &[u8]) -> String {
    let decoded = escapes::decode(name);
    String::from_utf8_lossy(decoded.as_ref().map_or(name, |decoded| &decoded.bytes)).into_owned()
}

fn ends_value(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "&#\"'<>`\\)]},|;".contains(c)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}
