//! Finds members of a JSON text by their pointers without building a tree.
//!
//! A load run needs two or three members of a frame; everything else is skipped bytewise, by its brackets and quotes,
//! so that nested objects and texts that look like members are not mistaken for members. The scan ends with the last
//! wanted member and does not validate the rest; validation against the schema is a separate step. If a member is
//! repeated, the first one counts.

use std::borrow::Cow;

use memchr::memchr2;

use crate::syntax::matcher::{array_index, unescape};

/// The wanted members as a tree of names, each with a number.
#[derive(Debug, Default)]
pub struct MemberPaths {
    nodes: Vec<PathNode>,
    count: usize,
}

#[derive(Debug, Default)]
struct PathNode {
    /// The number of the member at this node.
    found: Option<usize>,
    children: Vec<(String, usize)>,
}

/// The most members that can be looked up in one frame.
pub const MAX_MEMBERS: usize = 32;

/// The raw JSON text of each found member, by the number of its pointer.
pub type FoundMembers<'a> = [Option<&'a [u8]>; MAX_MEMBERS];

/// The scanned part of the text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON")]
pub struct NotJsonError;

impl MemberPaths {
    /// Returns the number of the member at this pointer, the same for equal pointers; `None` if there are more than
    /// [`MAX_MEMBERS`].
    pub fn add(&mut self, pointer: &str) -> Option<usize> {
        if self.nodes.is_empty() {
            self.nodes.push(PathNode::default());
        }
        let mut place = 0;
        for token in pointer.split('/').skip(1) {
            let token = unescape(token);
            let known = self.nodes[place].children.iter().find(|(name, _)| *name == token).map(|(_, at)| *at);
            place = known.unwrap_or_else(|| {
                self.nodes.push(PathNode::default());
                let at = self.nodes.len() - 1;
                self.nodes[place].children.push((token, at));
                at
            });
        }
        if let Some(number) = self.nodes[place].found {
            return Some(number);
        }
        (self.count < MAX_MEMBERS).then(|| {
            self.nodes[place].found = Some(self.count);
            self.count += 1;
            self.count - 1
        })
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Finds the members that are present.
    pub fn find<'a>(&self, text: &'a [u8]) -> Result<FoundMembers<'a>, NotJsonError> {
        let mut found = [None; MAX_MEMBERS];
        let mut scan = JsonScanner { text, at: 0, nodes: &self.nodes, left: self.count, found: &mut found };
        match if self.count == 0 { Ok(()) } else { scan.scan_value(Some(0)) } {
            Ok(()) | Err(ScanError::Done) => Ok(found),
            Err(ScanError::NotJson) => Err(NotJsonError),
        }
    }
}

/// Why a scan ends before the end of the text.
enum ScanError {
    /// Every wanted member has been found.
    Done,
    NotJson,
}

struct JsonScanner<'a, 'p> {
    text: &'a [u8],
    at: usize,
    nodes: &'p [PathNode],
    left: usize,
    found: &'p mut FoundMembers<'a>,
}

impl<'a> JsonScanner<'a, '_> {
    fn peek(&mut self) -> Result<u8, ScanError> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(ScanError::NotJson)
    }

    fn expect_byte(&mut self, byte: u8) -> Result<(), ScanError> {
        if self.peek()? != byte {
            return Err(ScanError::NotJson);
        }
        self.at += 1;
        Ok(())
    }

    /// Scans a value, which may be at a node of the tree. Recursion is limited by the depth of the tree, not of the
    /// text.
    fn scan_value(&mut self, place: Option<usize>) -> Result<(), ScanError> {
        let first = self.peek()?;
        let start = self.at;
        let nodes = self.nodes;
        let Some(node) = place.map(|place| &nodes[place]) else { return self.skip_value(first) };
        match first {
            b'{' if !node.children.is_empty() => self.scan_object(node)?,
            b'[' if !node.children.is_empty() => self.scan_array(node)?,
            _ => self.skip_value(first)?,
        }
        if let Some(number) = node.found.filter(|number| self.found[*number].is_none()) {
            self.found[number] = Some(&self.text[start..self.at]);
            self.left -= 1;
            if self.left == 0 {
                return Err(ScanError::Done);
            }
        }
        Ok(())
    }

    fn scan_object(&mut self, node: &PathNode) -> Result<(), ScanError> {
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek()? != b'"' {
                return Err(ScanError::NotJson);
            }
            let start = self.at;
            let escaped = self.skip_string()?;
            let raw = &self.text[start..self.at];
            let key = if escaped { unquoted_text(raw) } else { Cow::Borrowed(quoted_content(raw)) };
            let place = node.children.iter().find(|(name, _)| name.as_bytes() == &*key).map(|(_, place)| *place);
            self.expect_byte(b':')?;
            self.scan_value(place)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(ScanError::NotJson),
            }
        }
    }

    fn scan_array(&mut self, node: &PathNode) -> Result<(), ScanError> {
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        for index in 0usize.. {
            let place =
                node.children.iter().find(|(name, _)| array_index(name) == Some(index)).map(|(_, place)| *place);
            self.scan_value(place)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return Err(ScanError::NotJson),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Skips a value without wanted members.
    fn skip_value(&mut self, first: u8) -> Result<(), ScanError> {
        match first {
            b'"' => self.skip_string().map(drop),
            b'{' | b'[' => {
                let mut depth = 0usize;
                while let Some(byte) = self.text.get(self.at) {
                    match byte {
                        b'"' => {
                            self.skip_string()?;
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => {
                            depth -= 1;
                            if depth == 0 {
                                self.at += 1;
                                return Ok(());
                            }
                        }
                        _ => {}
                    }
                    self.at += 1;
                }
                Err(ScanError::NotJson)
            }
            b',' | b':' | b'}' | b']' => Err(ScanError::NotJson),
            _ => {
                let rest = &self.text[self.at..];
                let end =
                    rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
                self.at += end.unwrap_or(rest.len());
                Ok(())
            }
        }
    }

    /// Skips a string up to and including its closing quote; returns whether it contains escapes.
    fn skip_string(&mut self) -> Result<bool, ScanError> {
        self.at += 1;
        let mut escaped = false;
        while let Some(found) = memchr2(b'"', b'\\', &self.text[self.at..]) {
            self.at += found + 1;
            if self.text[self.at - 1] == b'"' {
                return Ok(escaped);
            }
            escaped = true;
            self.at += 1;
            if self.at > self.text.len() {
                break;
            }
        }
        Err(ScanError::NotJson)
    }
}

/// Returns the content of a JSON string without escapes; any other value as it is.
pub fn unquoted_text(raw: &[u8]) -> Cow<'_, [u8]> {
    match raw {
        [b'"', inside @ .., b'"'] if !inside.contains(&b'\\') => Cow::Borrowed(inside),
        [b'"', ..] => match serde_json::from_slice::<String>(raw) {
            Ok(text) => Cow::Owned(text.into_bytes()),
            Err(_) => Cow::Borrowed(raw),
        },
        _ => Cow::Borrowed(raw),
    }
}

/// Returns the text between the quotes of a JSON string, escapes included; any other value as it is.
pub fn quoted_content(raw: &[u8]) -> &[u8] {
    match raw {
        [b'"', inside @ .., b'"'] => inside,
        _ => raw,
    }
}

/// Whether two JSON texts have the same value, however they are written.
pub fn have_equal_values(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let plain = |text: &[u8]| text.first() == Some(&b'"') && !text.contains(&b'\\');
    if (plain(a) && plain(b)) || a.is_empty() || b.is_empty() {
        return false;
    }
    match (serde_json::from_slice::<serde_json::Value>(a), serde_json::from_slice::<serde_json::Value>(b)) {
        (Ok(a), Ok(b)) => crate::syntax::matcher::are_equal(&a, &b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn find(text: &str, pointers: &[&str]) -> Result<Vec<Option<String>>, NotJsonError> {
        let mut paths = MemberPaths::default();
        let numbers: Vec<usize> = pointers.iter().map(|pointer| paths.add(pointer).expect("room")).collect();
        let found = paths.find(text.as_bytes())?;
        Ok(numbers.iter().map(|n| found[*n].map(|raw| String::from_utf8_lossy(raw).into_owned())).collect())
    }

    #[rstest]
    #[case(r#"{"type":"a","job_id":"x"}"#, "/job_id", Some(r#""x""#))]
    #[case(r#" { "type" : "a" , "n" : -1.5e3 } "#, "/n", Some("-1.5e3"))]
    #[case(r#"{"inner":{"job_id":"no"},"job_id":"yes"}"#, "/job_id", Some(r#""yes""#))]
    #[case(r#"{"text":"\"job_id\":\"no\",","job_id":"yes"}"#, "/job_id", Some(r#""yes""#))]
    #[case(r#"{"text":"ends with \\","job_id":"yes"}"#, "/job_id", Some(r#""yes""#))]
    #[case(r#"{"list":[{"job_id":"no"},"}"],"job_id":"yes"}"#, "/job_id", Some(r#""yes""#))]
    #[case(r#"{"job_id":"a","job_id":"b"}"#, "/job_id", Some(r#""a""#))]
    #[case(r#"{"job\u005fid":"escaped"}"#, "/job_id", Some(r#""escaped""#))]
    #[case(r#"{"job_id":"a\"b\u00e4"}"#, "/job_id", Some(r#""a\"b\u00e4""#))]
    #[case(r#"{"data":{"list":[1,{"x":null}]}}"#, "/data/list/1/x", Some("null"))]
    #[case(r#"{"data":{"list":[1,{"x":null}]}}"#, "/data/list", Some(r#"[1,{"x":null}]"#))]
    #[case(r#"{"data":{"list":[1,{"x":null}]}}"#, "", Some(r#"{"data":{"list":[1,{"x":null}]}}"#))]
    #[case(r#"{"a/b":{"~":true}}"#, "/a~1b/~0", Some("true"))]
    #[case(r#"{"a":{}}"#, "/a/b", None)]
    #[case(r#"{"a":[]}"#, "/a/0", None)]
    #[case(r#"{"a":"b"}"#, "/a/b", None)]
    #[case("[]", "/a", None)]
    #[case("17", "", Some("17"))]
    fn a_member_is_found_by_its_pointer(#[case] text: &str, #[case] pointer: &str, #[case] expected: Option<&str>) {
        assert_eq!(find(text, &[pointer]), Ok(vec![expected.map(str::to_owned)]));
    }

    #[rstest]
    #[case("")]
    #[case("{")]
    #[case(r#"{"a"#)]
    #[case(r#"{"a\"#)]
    #[case(r#"{"a":}"#)]
    #[case(r#"{"a":{"#)]
    #[case(r#"{a:1}"#)]
    #[case(r#"{"a" 1}"#)]
    #[case(r#"{"a":1 "b":2}"#)]
    fn invalid_json_is_an_error(#[case] text: &str) {
        assert_eq!(find(text, &["/b", "/a/c"]), Err(NotJsonError));
    }

    #[test]
    fn a_member_and_its_nested_member_are_both_found() {
        let found = find(r#"{"type":"t","a":{"b":1,"c":2}}"#, &["/a", "/a/c", "/type", "/none"]);
        let expected = [Some(r#"{"b":1,"c":2}"#), Some("2"), Some(r#""t""#), None];
        assert_eq!(found, Ok(expected.map(|text| text.map(str::to_owned)).to_vec()));
    }

    #[rstest]
    #[case(r#""a""#, r#""a""#, true)]
    #[case(r#""\u0061""#, r#""a""#, true)]
    #[case(r#""\/""#, r#""/""#, true)]
    #[case(r#""a""#, r#""b""#, false)]
    #[case("1", "1.0", true)]
    #[case("1", r#""1""#, false)]
    #[case(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, true)]
    #[case("", r#""""#, false)]
    fn json_texts_with_equal_values_compare_equal_in_any_spelling(
        #[case] a: &str,
        #[case] b: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(have_equal_values(a.as_bytes(), b.as_bytes()), expected);
    }

    /// Generates JSON with names and texts that need escapes.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-c\"\\\\{}\\[\\]:,é ]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-c\"]{1,2}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_scan_finds_the_same_members_as_a_parsed_tree(value in any_json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("JSON");
            let pointers = ["", "/a", "/b", "/a/a", "/a/0", "/0", "/1/b", "/b/c/a"];
            let found = find(&text, &pointers).expect("JSON");
            for (pointer, found) in pointers.iter().zip(found) {
                let found: Option<Value> = found.map(|text| serde_json::from_str(&text).expect("JSON"));
                prop_assert_eq!(found.as_ref(), value.pointer(pointer), "{}", pointer);
            }
        }

        #[test]
        fn scanning_arbitrary_bytes_terminates(bytes in prop::collection::vec(prop::sample::select(b"{}[]\",:\\a1 ".to_vec()), 0..60)) {
            let mut paths = MemberPaths::default();
            for pointer in ["/a", "/a/0/a", "/1"] {
                paths.add(pointer);
            }
            let _ = paths.find(&bytes);
        }
    }

    #[test]
    fn the_root_is_found_without_surrounding_whitespace() {
        assert_eq!(find(" {\"a\": 1} ", &[""]), Ok(vec![Some("{\"a\": 1}".to_owned())]));
        assert_eq!(json!({"a": 1}).to_string(), "{\"a\":1}");
    }
}
