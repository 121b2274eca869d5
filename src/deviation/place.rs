//! Resolves the pointers of entries to places in a message: `*` matches every item of a list.

use std::borrow::Cow;

use serde_json::Value;

use crate::protocol::schema::MessageSchema;
use crate::syntax::matcher::{array_index, child, unescape};

/// The token of a pointer that stands for every item of a list.
const EVERY_ITEM: &str = "*";

/// Changes a message at every place that a pointer matches; returns `None` if nothing was changed. The message is
/// copied only once, at the first change, because a list of the hub may be long.
pub fn change_everywhere(json: &Value, pointer: &str, change: impl Fn(&mut Cow<'_, Value>, &str)) -> Option<Value> {
    let mut done = Cow::Borrowed(json);
    for place in expand_pointer(json, pointer) {
        change(&mut done, &place);
    }
    match done {
        Cow::Owned(changed) => Some(changed),
        Cow::Borrowed(_) => None,
    }
}

/// Returns the places in a message that a pointer matches.
pub fn expand_pointer(json: &Value, pointer: &str) -> Vec<String> {
    let (list, rest) = split_at_innermost_list(pointer);
    let Some(list) = list.strip_suffix("/*") else { return vec![pointer.to_owned()] };
    let items = |list: String| {
        let items = json.pointer(&list).and_then(Value::as_array).map_or(0, Vec::len);
        (0..items).map(move |item| format!("{list}/{item}{rest}"))
    };
    expand_pointer(json, list).into_iter().flat_map(items).collect()
}

/// Returns a pointer with each `*` replaced by the index of the first item.
pub fn first_item_pointer(pointer: &str) -> String {
    pointer.split('/').map(|token| if token == EVERY_ITEM { "0" } else { token }).collect::<Vec<_>>().join("/")
}

/// Returns a pointer into a message in which `*` replaces each index of a list item. An element with its own schema
/// under `prefixItems` keeps its index.
pub fn general_pointer(schema: &MessageSchema, json: &Value, pointer: &str) -> String {
    let mut inside = Some(json);
    let mut general = String::new();
    let mut path: Vec<String> = Vec::new();
    for token in pointer.split('/').skip(1) {
        let name = unescape(token);
        let index = inside.filter(|value| value.is_array()).and_then(|_| array_index(&name));
        let item = index.is_some_and(|index| !schema.has_own_element(&path, index));
        general.push('/');
        general.push_str(if item { EVERY_ITEM } else { token });
        inside = inside.and_then(|value| child(value, &name));
        path.push(name);
    }
    general
}

/// Whether a pointer is this place or one inside it.
pub fn contains_place(outer: &str, pointer: &str) -> bool {
    pointer.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Splits a pointer after the `*` of the innermost list; the first part is empty if there is no list.
pub fn split_at_innermost_list(pointer: &str) -> (&str, &str) {
    let ends = |(place, _): &(usize, &str)| matches!(pointer.as_bytes().get(place + 2), None | Some(b'/'));
    let list = pointer.rmatch_indices("/*").find(ends).map_or(0, |(place, _)| place + 2);
    pointer.split_at(list)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::no_list("/a", json!({}), &["/a"])]
    #[case::items("/a/*/b", json!({"a": [1, {"b": 2}]}), &["/a/0/b", "/a/1/b"])]
    #[case::lists_in_lists("/a/*/b/*", json!({"a": [{"b": [1, 2]}, {"b": []}, {"b": [3]}]}), &["/a/0/b/0", "/a/0/b/1", "/a/2/b/0"])]
    #[case::empty("/a/*/b", json!({"a": []}), &[])]
    #[case::no_such_list("/a/*/b", json!({"a": {"*": 1}}), &[])]
    #[case::a_name_with_a_star("/a/*b", json!({"a": [1]}), &["/a/*b"])]
    #[case::the_message("/*", json!([1, 2]), &["/0", "/1"])]
    fn a_star_in_a_pointer_matches_every_item(#[case] pointer: &str, #[case] json: Value, #[case] places: &[&str]) {
        assert_eq!(super::expand_pointer(&json, pointer), places);
        for place in places.iter().filter(|_| !split_at_innermost_list(pointer).0.is_empty()) {
            assert_eq!(general_pointer(&MessageSchema::compile(json!({})).unwrap(), &json, place), pointer);
        }
    }

    #[rstest]
    #[case("/2", "/2")]
    #[case("/2/list/1", "/2/list/*")]
    #[case("/2/pairs/0/1", "/2/pairs/*/1")]
    #[case("/4", "/*")]
    fn an_element_with_its_own_schema_keeps_its_index(#[case] place: &str, #[case] expected: &str) {
        let pair = json!({"prefixItems": [{}, {}]});
        let schema =
            json!({"prefixItems": [{}, {}, {"properties": {"list": {"items": {}}, "pairs": {"items": pair}}}]});
        let json = json!([3, "id", {"list": [1, 2], "pairs": [[1, 2]]}, 0, 0]);
        assert_eq!(general_pointer(&MessageSchema::compile(schema).unwrap(), &json, place), expected);
    }

    #[test]
    fn a_message_is_copied_only_once_a_change_is_made() {
        let json = json!({"a": [1, 2, 3]});
        let even = |json: &mut Cow<'_, Value>, place: &str| {
            if json.pointer(place) == Some(&json!(2)) {
                *json.to_mut().pointer_mut(place).unwrap() = json!("two");
            }
        };
        assert_eq!(change_everywhere(&json, "/a/*", even), Some(json!({"a": [1, "two", 3]})));
        assert_eq!(change_everywhere(&json, "/a", even), None);
        assert_eq!(first_item_pointer("/a/*/b/*"), "/a/0/b/0");
    }

    #[rstest]
    #[case("/a/*/b/*/c/d", "/a/*/b/*", "/c/d")]
    #[case("/a/*", "/a/*", "")]
    #[case("/a/b", "", "/a/b")]
    fn a_pointer_is_split_after_its_last_star(#[case] pointer: &str, #[case] list: &str, #[case] rest: &str) {
        assert_eq!(split_at_innermost_list(pointer), (list, rest));
    }
}
