//! The received JSON with the differences from what was expected, line by line.

use serde::Serialize;
use serde_json::Value;

use crate::outcome::{FindingDetail, FrameReport};
use crate::report::evidence::find_frame;
use crate::report::text::shorten;
use crate::syntax::matcher::{Matcher, escape, find_difference};

/// The most lines of a difference.
const MAX_LINES: usize = 120;
/// The most characters of a value on one line.
const MAX_VALUE: usize = 400;

/// Expected and received JSON in one text.
#[derive(Debug, Serialize)]
pub struct JsonDiff {
    pub lines: Vec<DiffLine>,
    /// The number of lines left out at the end.
    pub left_out: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct DiffLine {
    /// `same`, `expected` or `received`.
    pub kind: &'static str,
    pub text: String,
}

/// A member that differs: a pointer to it, and what was expected.
type Difference = (String, String);

/// Returns the difference between a received message and what a step expected, if the evidence contains both as JSON.
pub fn json_diff(detail: &FindingDetail, step: &str, history: &[FrameReport]) -> Option<JsonDiff> {
    let quoted = find_frame(detail, history).and_then(|index| serde_json::from_str(&history[index].text).ok());
    let mut candidates: Vec<Value> = quoted.into_iter().collect();
    if candidates.is_empty() {
        candidates = json_in(&detail.received);
    }
    candidates.retain(|value| value.is_object() || value.is_array());
    if let Some(place) = &detail.place {
        let received = candidates.into_iter().next()?;
        let expected = detail.expected.strip_prefix(&format!("{place}: ")).unwrap_or(&detail.expected);
        return Some(write_diff(&received, &[(place.clone(), expected.to_owned())]));
    }
    // The frame meets all conditions of a step that expects none.
    if step.contains(" expects nothing") || step.contains(" expect nothing") {
        return None;
    }
    let conditions = detail.expected.strip_prefix(&format!("{step} where "))?;
    let conditions: Value = serde_json::from_str(conditions).ok()?;
    let differ = |received: &Value| differences(&conditions, received);
    let (received, found) = candidates
        .into_iter()
        .map(|received| {
            let found = differ(&received);
            (received, found)
        })
        .min_by_key(|(_, found)| found.len())?;
    // If it meets all conditions, it is another message than the expected one.
    (!found.is_empty()).then(|| write_diff(&received, &found))
}

/// Returns the conditions that a received message does not meet.
fn differences(conditions: &Value, received: &Value) -> Vec<Difference> {
    let Value::Object(members) = conditions else {
        return find_difference(conditions, received, "").map(|one| (one.path, one.expected)).into_iter().collect();
    };
    let one = |(name, want): (&String, &Value)| {
        let single = Value::Object([(name.clone(), want.clone())].into_iter().collect());
        let found = Matcher::compile(&single).ok()?.difference(received)?;
        Some((found.path, found.expected))
    };
    members.iter().filter_map(one).collect()
}

/// Returns the JSON objects and arrays in a text, from its beginning.
fn json_in(text: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['{', '[']) {
        let mut values = serde_json::Deserializer::from_str(&rest[start..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                found.push(value);
                rest = &rest[start + values.byte_offset()..];
            }
            // A part of a message that was cut is not the message.
            _ if rest[start..].contains("...") => break,
            _ => rest = &rest[start + 1..],
        }
        if found.len() == 4 {
            break;
        }
    }
    found
}

fn write_diff(received: &Value, differences: &[Difference]) -> JsonDiff {
    let mut writer = DiffWriter { lines: Vec::new(), differences };
    writer.write(received, "", "", 0, false);
    let left_out = writer.lines.len().saturating_sub(MAX_LINES);
    writer.lines.truncate(MAX_LINES);
    JsonDiff { lines: writer.lines, left_out }
}

struct DiffWriter<'a> {
    lines: Vec<DiffLine>,
    differences: &'a [Difference],
}

impl DiffWriter<'_> {
    /// Writes a value with its key. `inside` is whether the whole value is a difference.
    fn write(&mut self, value: &Value, path: &str, key: &str, depth: usize, inside: bool) {
        let differences = self.differences;
        let wanted = differences.iter().find(|(place, _)| place == path);
        if let Some((_, expected)) = wanted {
            self.push("expected", depth, &format!("{key}{expected}"));
        }
        let differs = inside || wanted.is_some();
        let kind = if differs { "received" } else { "same" };
        // Members that are missing follow the others.
        let missing: Vec<&Difference> =
            differences.iter().filter(|(place, _)| !differs && is_missing_child(value, path, place)).collect();
        let children: Vec<(String, String, &Value)> = match value {
            Value::Object(members) => members
                .iter()
                .map(|(name, child)| {
                    (format!("{path}/{}", escape(name)), format!("{}: ", Value::from(name.as_str())), child)
                })
                .collect(),
            Value::Array(items) => {
                items.iter().enumerate().map(|(at, child)| (format!("{path}/{at}"), String::new(), child)).collect()
            }
            _ => Vec::new(),
        };
        let touched = differences.iter().any(|(place, _)| place.starts_with(&format!("{path}/")));
        let compact = value.to_string();
        if children.is_empty() && missing.is_empty() || !touched && compact.chars().count() <= 80 && depth > 0 {
            self.push(kind, depth, &format!("{key}{}", shorten(&compact, MAX_VALUE)));
            return;
        }
        let (open, close) = if value.is_array() { ("[", "]") } else { ("{", "}") };
        self.push(kind, depth, &format!("{key}{open}"));
        for (child_path, child_key, child) in children {
            self.write(child, &child_path, &child_key, depth + 1, differs);
        }
        for (place, expected) in missing {
            let name = place[path.len() + 1..].replace("~1", "/").replace("~0", "~");
            let name = if value.is_array() { String::new() } else { format!("{}: ", Value::from(name)) };
            self.push("expected", depth + 1, &format!("{name}{expected}"));
        }
        self.push(kind, depth, close);
    }

    fn push(&mut self, kind: &'static str, depth: usize, text: &str) {
        self.lines.push(DiffLine { kind, text: format!("{}{}", "  ".repeat(depth.min(20)), text) });
    }
}

/// Whether `place` is in `value`, at `path`, but the member on the way to it is missing there.
fn is_missing_child(value: &Value, path: &str, place: &str) -> bool {
    let Some(rest) = place.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')) else { return false };
    let first = rest.split('/').next().unwrap_or_default();
    (value.is_object() || value.is_array()) && value.pointer(&format!("/{first}")).is_none()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn shown(diff: &JsonDiff) -> String {
        let sign = |kind| match kind {
            "expected" => '-',
            "received" => '+',
            _ => ' ',
        };
        diff.lines.iter().map(|line| format!("{}{}\n", sign(line.kind), line.text)).collect()
    }

    #[rstest]
    #[case::value(
        Some("/b/c"),
        "/b/c: 2",
        r#"/b/c: 1 in {"a":true,"b":{"c":1}}"#,
        " {\n   \"a\": true\n   \"b\": {\n-    \"c\": 2\n+    \"c\": 1\n   }\n }\n"
    )]
    #[case::missing(
        Some("/b/d"),
        "/b/d: a string",
        r#"{"b":{"c":1}}"#,
        " {\n   \"b\": {\n     \"c\": 1\n-    \"d\": a string\n   }\n }\n"
    )]
    #[case::whole(Some(""), ": an object", "[1]", "-an object\n+[\n+  1\n+]\n")]
    #[case::conditions(
        None,
        r#"anna expects: any where {"x":1,"/y":{"type":"string"}}"#,
        r#"{"x":2,"y":3} (connection still open)"#,
        " {\n-  \"x\": 1\n+  \"x\": 2\n-  \"y\": {\"type\":\"string\"}\n+  \"y\": 3\n }\n"
    )]
    fn differences_are_shown_at_their_place(
        #[case] place: Option<&str>,
        #[case] expected: &str,
        #[case] received: &str,
        #[case] lines: &str,
    ) {
        let detail = FindingDetail {
            place: place.map(str::to_owned),
            expected: expected.to_owned(),
            received: received.to_owned(),
            ..FindingDetail::default()
        };
        assert_eq!(shown(&json_diff(&detail, "anna expects: any", &[]).unwrap()), lines);
    }

    #[test]
    fn a_part_of_a_message_that_was_cut_is_not_compared() {
        let detail = FindingDetail {
            place: Some("/id".to_owned()),
            expected: "/id: a string".to_owned(),
            received: r#"7 in {"header":{"a":1},"content":"xxx... (900 bytes)"#.to_owned(),
            ..FindingDetail::default()
        };
        assert!(json_diff(&detail, "anna expects: any", &[]).is_none());
    }

    /// The frame that `expects nothing` matched has no member that is missing.
    #[rstest]
    #[case::member("anna expects: done", r#"{"id":2}"#, r#"{"id":2,"type":"other"}"#)]
    #[case::element("anna expects nothing: event", r#"{"1":"x"}"#, r#"["EVENT","x",{"kind":1}]"#)]
    #[case::masked("anna expects nothing: event", r#"{"token":"secret"}"#, r#"{"token":"***"}"#)]
    #[case::inside_an_element("anna expects: event", r#"{"2":{"kind":1}}"#, r#"["EVENT","x",{"kind":1}]"#)]
    fn a_message_that_meets_the_conditions_has_no_difference(
        #[case] step: &str,
        #[case] conditions: &str,
        #[case] received: &str,
    ) {
        let detail = FindingDetail {
            expected: format!("{step} where {conditions}"),
            received: received.to_owned(),
            ..FindingDetail::default()
        };
        assert!(json_diff(&detail, step, &[]).is_none());
    }

    #[rstest]
    #[case("nothing, connection still open")]
    #[case("close 1000")]
    #[case("{\"cut\": [1, 2")]
    fn evidence_without_json_has_no_difference(#[case] received: &str) {
        let detail =
            FindingDetail { place: Some("/a".to_owned()), received: received.to_owned(), ..FindingDetail::default() };
        assert!(json_diff(&detail, "", &[]).is_none());
    }
}
