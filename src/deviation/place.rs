//! The places that the pointer of an entry means in a message: `*` is every item of a list.

use std::borrow::Cow;

use serde_json::Value;

/// The token of a pointer that stands for every item of a list.
const EVERY: &str = "*";

/// Changes a message at every place that a pointer means; `None` where no change applies. `change` gets the message and the
/// indices of the items, see [`at`].
pub fn everywhere(json: &Value, pointer: &str, change: impl Fn(&Value, &[usize]) -> Option<Value>) -> Option<Value> {
    let mut done: Option<Value> = None;
    for indices in items(json, pointer) {
        if let Some(changed) = change(done.as_ref().unwrap_or(json), &indices) {
            done = Some(changed);
        }
    }
    done
}

/// Returns for each place that a pointer means the indices of the list items that it leads through.
pub fn items(json: &Value, pointer: &str) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for list in lists(pointer) {
        let longer = |indices: Vec<usize>| {
            let items = json.pointer(&at(list, &indices)).and_then(Value::as_array).map_or(0, Vec::len);
            (0..items).map(move |item| [indices.as_slice(), &[item]].concat()).collect::<Vec<_>>()
        };
        all = all.into_iter().flat_map(longer).collect();
    }
    all
}

/// Returns a pointer with the indices of items in place of each `*`; the first item where there are too few.
pub fn at<'a>(pointer: &'a str, indices: &[usize]) -> Cow<'a, str> {
    if !is_every(pointer) {
        return Cow::Borrowed(pointer);
    }
    let mut indices = indices.iter();
    let tokens = pointer.split('/').map(|token| match token {
        EVERY => Cow::Owned(indices.next().unwrap_or(&0).to_string()),
        token => Cow::Borrowed(token),
    });
    Cow::Owned(tokens.collect::<Vec<_>>().join("/"))
}

/// Returns a pointer into a message with `*` in place of each index of a list item.
pub fn general(json: &Value, pointer: &str) -> String {
    let mut inside = Some(json);
    let mut general = String::new();
    for token in pointer.split('/').skip(1) {
        let name = crate::syntax::matcher::unescape(token);
        general.push('/');
        general.push_str(if inside.is_some_and(Value::is_array) { EVERY } else { token });
        inside = match inside {
            Some(Value::Array(items)) => name.parse::<usize>().ok().and_then(|index| items.get(index)),
            Some(value) => value.get(&name),
            None => None,
        };
    }
    general
}

/// Whether a pointer means several places.
pub fn is_every(pointer: &str) -> bool {
    pointer.split('/').any(|token| token == EVERY)
}

/// Returns the part of a pointer up to the items of the innermost list, and the rest; both empty without a list.
pub fn innermost(pointer: &str) -> (&str, &str) {
    let list = lists(pointer).last().map_or(0, |list| list.len() + 2);
    pointer.split_at(list)
}

/// Returns the pointers of the lists, the outermost first.
fn lists(pointer: &str) -> impl Iterator<Item = &str> {
    let places = pointer.match_indices("/*").map(|(place, _)| place);
    places.filter(|place| matches!(pointer.as_bytes().get(place + 2), None | Some(b'/'))).map(|place| &pointer[..place])
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
    fn a_pointer_means_every_item(#[case] pointer: &str, #[case] json: Value, #[case] places: &[&str]) {
        let found: Vec<_> = items(&json, pointer).iter().map(|indices| at(pointer, indices).into_owned()).collect();
        assert_eq!(found, places);
        for place in places.iter().filter(|_| is_every(pointer)) {
            assert_eq!(general(&json, place), pointer);
        }
    }

    #[rstest]
    #[case("/a/*/b/*/c/d", "/a/*/b/*", "/c/d")]
    #[case("/a/*", "/a/*", "")]
    #[case("/a/b", "", "/a/b")]
    fn the_innermost_list_ends_at_the_last_star(#[case] pointer: &str, #[case] list: &str, #[case] rest: &str) {
        assert_eq!(innermost(pointer), (list, rest));
    }
}
