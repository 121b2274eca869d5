//! Parses the text of a `sends raw` step: JSON in which `${...}` may stand for a value or part of a text. The parser
//! keeps positions instead of values, so that huge numbers, invalid escapes and duplicate keys stay as they are. It
//! does not recurse, since a finding may be nested ten thousand levels deep.

use std::ops::Range;

use crate::scenario::template::placeholder;

/// A value in a text, by its position.
pub struct JsonTextNode {
    pub range: Range<usize>,
    pub kind: JsonTextKind,
}

pub enum JsonTextKind {
    /// An object and its members, each of which can be removed.
    Object(Vec<JsonTextElement>),
    Array(Vec<JsonTextElement>),
    Text,
    /// A number, a literal, or an expression.
    Other,
}

/// The position of an item, or of a member with its name, and the index of its value.
pub struct JsonTextElement {
    pub range: Range<usize>,
    pub value: usize,
}

impl JsonTextNode {
    pub fn elements(&self) -> &[JsonTextElement] {
        match &self.kind {
            JsonTextKind::Object(pieces) | JsonTextKind::Array(pieces) => pieces,
            JsonTextKind::Text | JsonTextKind::Other => &[],
        }
    }
}

/// A container that is not closed yet.
struct OpenContainer {
    node: usize,
    /// The position at which the current member or item of the container begins.
    begun: usize,
}

/// Returns all values of a text, beginning with the whole, and inner values after outer ones; `None` if the text does
/// not have the structure of JSON.
pub fn parse_nodes(text: &str) -> Option<Vec<JsonTextNode>> {
    let bytes = text.as_bytes();
    let mut nodes: Vec<JsonTextNode> = Vec::new();
    let mut open: Vec<OpenContainer> = Vec::new();
    let mut at = skip_blanks(bytes, 0);
    loop {
        // A value begins here, after its name if it is a member.
        let begun = at;
        if let Some(OpenContainer { node, .. }) = open.last()
            && matches!(nodes[*node].kind, JsonTextKind::Object(_))
        {
            at = skip_blanks(bytes, text_end(text, at)?);
            (bytes.get(at) == Some(&b':')).then_some(())?;
            at = skip_blanks(bytes, at + 1);
        }
        if let Some(last) = open.last_mut() {
            last.begun = begun;
        }
        let start = at;
        let first = *bytes.get(at)?;
        let (kind, end) = match first {
            b'{' => (JsonTextKind::Object(Vec::new()), skip_blanks(bytes, at + 1)),
            b'[' => (JsonTextKind::Array(Vec::new()), skip_blanks(bytes, at + 1)),
            b'"' => (JsonTextKind::Text, text_end(text, at)?),
            _ => (JsonTextKind::Other, scalar_end(text, at)?),
        };
        // A list or an object with content is not complete yet.
        let done = match kind {
            JsonTextKind::Object(_) => bytes.get(end) == Some(&b'}'),
            JsonTextKind::Array(_) => bytes.get(end) == Some(&b']'),
            JsonTextKind::Text | JsonTextKind::Other => true,
        };
        at = end + usize::from(done && matches!(first, b'{' | b'['));
        nodes.push(JsonTextNode { range: start..at, kind });
        let mut value = nodes.len() - 1;
        if !done {
            open.push(OpenContainer { node: value, begun: at });
            continue;
        }
        // A value ends here, and perhaps some containers around it.
        loop {
            let Some(OpenContainer { node, begun }) = open.last() else {
                return (skip_blanks(bytes, at) == bytes.len()).then_some(nodes);
            };
            let piece = JsonTextElement { range: *begun..at, value };
            let close = match &mut nodes[*node].kind {
                JsonTextKind::Object(pieces) => {
                    pieces.push(piece);
                    b'}'
                }
                JsonTextKind::Array(pieces) => {
                    pieces.push(piece);
                    b']'
                }
                JsonTextKind::Text | JsonTextKind::Other => return None,
            };
            at = skip_blanks(bytes, at);
            match *bytes.get(at)? {
                b',' => {
                    at = skip_blanks(bytes, at + 1);
                    break;
                }
                end if end == close => {
                    at += 1;
                    value = *node;
                    nodes[value].range.end = at;
                    open.pop();
                }
                _ => return None,
            }
        }
    }
}

fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Returns the position after the closing quote of the text that begins at `at`.
fn text_end(text: &str, at: usize) -> Option<usize> {
    if text.as_bytes().get(at) != Some(&b'"') {
        return None;
    }
    let mut end = at + 1;
    loop {
        let atom = atom_at(text, end)?;
        if &text[atom.clone()] == "\"" {
            return Some(atom.end);
        }
        end = atom.end;
    }
}

/// Returns the position after a number, a literal or an expression.
fn scalar_end(text: &str, at: usize) -> Option<usize> {
    let mut end = at;
    while let Some(atom) = atom_at(text, end) {
        let letters = &text[atom.clone()];
        if matches!(letters, "," | "]" | "}" | ":" | "\"" | "{" | "[") || letters.trim().is_empty() {
            break;
        }
        end = atom.end;
    }
    (end > at).then_some(end)
}

/// Returns the smallest removable part of a text at `at`: a character, an escape, an expression. `None` at the end.
pub fn atom_at(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = text.get(at..)?;
    if let Some(inside) = placeholder(rest) {
        return Some(at..at + inside.end + 1);
    }
    let mut letters = rest.chars();
    let first = letters.next()?;
    let length = match (first, letters.next()) {
        ('\\', Some('u')) if rest.get(2..6).is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit())) => 6,
        ('\\', Some(second)) => 1 + second.len_utf8(),
        _ => first.len_utf8(),
    };
    Some(at..at + length)
}

/// Returns all atoms of a text.
pub fn atoms(text: &str) -> Vec<Range<usize>> {
    std::iter::successors(atom_at(text, 0), |last| atom_at(text, last.end)).collect()
}

/// Returns the range of a text to remove for neighbouring pieces of a container: including the comma after them or, at
/// the end of the container, the comma before them.
pub fn removal_range(pieces: &[JsonTextElement], gone: Range<usize>) -> Option<Range<usize>> {
    let (first, last) = (pieces.get(gone.start)?, pieces.get(gone.end.checked_sub(1)?)?);
    let before = gone.start.checked_sub(1).and_then(|before| pieces.get(before));
    Some(match (pieces.get(gone.end), before) {
        (Some(next), _) => first.range.start..next.range.start,
        (None, Some(before)) => before.range.end..last.range.end,
        (None, None) => first.range.start..last.range.end,
    })
}

pub fn replace_range(text: &str, range: Range<usize>, new: &str) -> String {
    let mut out = String::with_capacity(text.len() - range.len() + new.len());
    out.push_str(&text[..range.start]);
    out.push_str(new);
    out.push_str(&text[range.end..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::object(r#"{"a":1,"b":[true,"x"]}"#, &[r#"{"a":1,"b":[true,"x"]}"#, "1", r#"[true,"x"]"#, "true", r#""x""#])]
    #[case::expression(r#"{"a":${json(a["}"])},"b":"x${"}"}"}"#, &[r#"{"a":${json(a["}"])},"b":"x${"}"}"}"#, r#"${json(a["}"])}"#, r#""x${"}"}""#])]
    #[case::odd_numbers("[1e400, 007,NaN ]", &["[1e400, 007,NaN ]", "1e400", "007", "NaN"])]
    #[case::twice(r#"{"a":1,"a":2}"#, &[r#"{"a":1,"a":2}"#, "1", "2"])]
    #[case::surrogate(r#"["\ud800","\""]"#, &[r#"["\ud800","\""]"#, r#""\ud800""#, r#""\"""#])]
    #[case::empty("[{},[]]", &["[{},[]]", "{}", "[]"])]
    fn a_json_text_is_split_into_its_values_and_expressions(#[case] text: &str, #[case] expected: &[&str]) {
        let nodes = parse_nodes(text).unwrap();
        assert_eq!(nodes.iter().map(|node| &text[node.range.clone()]).collect::<Vec<_>>(), expected);
    }

    #[rstest]
    fn texts_that_are_not_structured_like_json_are_refused(
        #[values("", " ", "{", "[1,]", "{\"a\":1,}", "{a:1}", "[1]]", "{\"a\" 1}", "\"a", "{\"a\":1} {}", "[,]", "}")]
        text: &str,
    ) {
        assert!(parse_nodes(text).is_none());
    }

    #[rstest]
    #[case(0..1, r#"{"b":2,"c":3}"#)]
    #[case(1..2, r#"{"a":1,"c":3}"#)]
    #[case(2..3, r#"{"a":1,"b":2}"#)]
    #[case(1..3, r#"{"a":1}"#)]
    #[case(0..3, "{}")]
    fn members_and_items_are_removed_with_their_commas(#[case] gone: Range<usize>, #[case] expected: &str) {
        let text = r#"{"a":1,"b":2,"c":3}"#;
        let range = removal_range(parse_nodes(text).unwrap()[0].elements(), gone).unwrap();
        assert_eq!(replace_range(text, range, ""), expected);
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let text = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse_nodes(&text).unwrap().len(), 100_001);
    }

    proptest! {
        #[test]
        fn splitting_any_text_never_panics(text in "[\\[\\]{}:,\"\\\\$a1 ä]{0,40}") {
            for node in parse_nodes(&text).unwrap_or_default() {
                prop_assert!(text.get(node.range.clone()).is_some());
                for count in 1..=node.elements().len() {
                    let range = removal_range(node.elements(), 0..count).unwrap();
                    prop_assert!(text.get(range).is_some());
                }
            }
            prop_assert_eq!(atoms(&text).iter().map(|atom| &text[atom.clone()]).collect::<String>(), text);
        }
    }
}
