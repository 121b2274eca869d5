//! Builds messages by changing the documented example. A value under a name is merged, a value under a pointer
//! replaces. In an array, a number is the index of an element; the empty name is the whole value.

use serde_json::{Map, Value};

use crate::syntax::matcher::{array_index, child, escape, is_pointer, key_pointer, unescape};

/// Applies overrides: objects under a name merge, everything else replaces; `/pointer` replaces whatever is there, and
/// `""` replaces the whole value. Skips overrides for which an array has no place, see [`misplaced_overrides`].
pub fn merge_overrides(target: &mut Value, overrides: &Value) {
    merge_and_collect(target, overrides, "", &mut Vec::new());
}

/// An override for which an array has no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MisplacedOverride {
    /// The JSON pointer of the place in the message.
    pub place: String,
    pub array: String,
    /// The number of elements of the array, before the override.
    pub length: usize,
}

impl MisplacedOverride {
    /// Returns the mistake, and how to correct it.
    pub fn describe(&self) -> (String, String) {
        let Self { place, array, length } = self;
        let name = place.strip_prefix(array.as_str()).unwrap_or(place).trim_start_matches('/');
        let whole = if array.is_empty() { "the message" } else { array };
        let key = if array.is_empty() { "\"\"" } else { array };
        let found = if array_index(name.split('/').next().unwrap_or_default()).is_some() {
            format!("{whole} is an array of {length}, so it has no element `{name}`")
        } else {
            format!("{whole} is an array, so it has no member `{name}`")
        };
        let last = if *length == 0 {
            "0 appends one".to_owned()
        } else {
            format!("the elements are 0 to {}, and {length} appends one", length - 1)
        };
        (found, format!("{last}; `{key}: VALUE` replaces the array"))
    }
}

/// Returns the overrides that have no place in the target.
pub fn misplaced_overrides(target: &Value, overrides: &Value) -> Vec<MisplacedOverride> {
    let mut misplaced = Vec::new();
    merge_and_collect(&mut target.clone(), overrides, "", &mut misplaced);
    misplaced
}

fn merge_and_collect(target: &mut Value, overrides: &Value, below: &str, misplaced: &mut Vec<MisplacedOverride>) {
    let Value::Object(members) = overrides else { return };
    for (name, value) in members {
        let put = if is_pointer(name) {
            place_at_pointer(target, name, below).map(|place| *place = value.clone())
        } else {
            place_of_child(target, name, below).map(|place| match value {
                Value::Object(inner) if place.is_object() || place.is_array() && !inner.is_empty() => {
                    merge_and_collect(place, value, &format!("{below}/{}", escape(name)), misplaced);
                }
                _ => *place = value.clone(),
            })
        };
        misplaced.extend(put.err());
    }
}

/// Puts a value at a JSON pointer, creating objects on the way. Returns whether there is such a place: an array has
/// only its elements and the place after them.
pub fn put_at_pointer(target: &mut Value, pointer: &str, value: Value) -> bool {
    place_at_pointer(target, pointer, "").map(|place| *place = value).is_ok()
}

/// Whether a value can be put at a JSON pointer.
pub fn has_place(target: &Value, pointer: &str) -> bool {
    let mut below = Some(target);
    pointer.split('/').skip(1).all(|token| {
        let name = unescape(token);
        let fits = match below {
            Some(Value::Array(items)) => array_index(&name).is_some_and(|index| index <= items.len()),
            _ => true,
        };
        below = below.and_then(|value| child(value, &name));
        fits
    })
}

/// Returns the place at a JSON pointer, creating objects on the way; `below` is the pointer of the target.
fn place_at_pointer<'v>(target: &'v mut Value, pointer: &str, below: &str) -> Result<&'v mut Value, MisplacedOverride> {
    let mut below = below.to_owned();
    pointer.split('/').skip(1).try_fold(target, |value, token| {
        let place = place_of_child(value, &unescape(token), &below)?;
        below = format!("{below}/{token}");
        Ok(place)
    })
}

/// Returns the place of a member or an element, which is created if it is missing.
fn place_of_child<'v>(value: &'v mut Value, name: &str, below: &str) -> Result<&'v mut Value, MisplacedOverride> {
    if let Value::Array(items) = value {
        let length = items.len();
        let misplaced =
            || MisplacedOverride { place: format!("{below}/{}", escape(name)), array: below.to_owned(), length };
        let index = array_index(name).filter(|index| *index <= length).ok_or_else(misplaced)?;
        if index == length {
            items.push(Value::Null);
        }
        return Ok(&mut items[index]);
    }
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(members) => Ok(members.entry(name.to_owned()).or_insert(Value::Null)),
        unchanged => Ok(unchanged),
    }
}

/// Returns the message and the pointer that a key of `fills` names: `MEMBER` and `/pointer` belong to every message,
/// `MESSAGE/pointer` to one.
pub fn fill_place(key: &str) -> (Option<&str>, String) {
    match key.split_once('/') {
        None | Some(("", _)) => (None, key_pointer(key)),
        Some((message, pointer)) => (Some(message), format!("/{pointer}")),
    }
}

/// Returns the pointer of a member that a key of `fills` fills in this message, if the message has such a member.
pub fn filled_member(key: &str, message: &str, value: &Value) -> Option<String> {
    let (only, pointer) = fill_place(key);
    (only.is_none_or(|only| only == message) && value.pointer(&pointer).is_some()).then_some(pointer)
}

/// Removes the members at these pointers. Each pointer refers to the original value: removing an array element does not
/// move the other places.
pub fn remove_members(target: &mut Value, pointers: &[String]) {
    let mut places: Vec<&String> = pointers.iter().collect();
    // The last elements go first.
    places.sort_by_cached_key(|pointer| {
        std::cmp::Reverse(pointer.split('/').map(|token| (array_index(token), token.to_owned())).collect::<Vec<_>>())
    });
    places.dedup();
    for pointer in places {
        let Some((parent, name)) = pointer.rsplit_once('/') else { continue };
        let name = unescape(name);
        match target.pointer_mut(parent) {
            // shift_remove keeps the order of the other members.
            Some(Value::Object(object)) => {
                object.shift_remove(&name);
            }
            Some(Value::Array(items)) => {
                if let Some(index) = array_index(&name).filter(|index| *index < items.len()) {
                    items.remove(index);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 3}}), json!({"a": {"b": 3, "c": 2}}))]
    #[case(json!({"a": {"b": 1}}), json!({"/a": {"c": 2}}), json!({"a": {"c": 2}}))]
    #[case(json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]}))]
    #[case(json!({"a": [1, 2]}), json!({"/a/1": 3}), json!({"a": [1, 3]}))]
    #[case(json!({}), json!({"/a/b": 3}), json!({"a": {"b": 3}}))]
    #[case(json!({"a": 1}), json!({"a": null}), json!({"a": null}))]
    #[case(json!([2, "id", "Heartbeat", {}]), json!({"1": "x", "3": {"a": 1}}), json!([2, "x", "Heartbeat", {"a": 1}]))]
    #[case(json!({"params": [1, {"a": 2}]}), json!({"params": {"1": {"b": 3}}}), json!({"params": [1, {"a": 2, "b": 3}]}))]
    #[case(json!([1]), json!({"1": 2}), json!([1, 2]))]
    #[case(json!({"params": [1]}), json!({"params": {}}), json!({"params": {}}))]
    #[case(json!({"params": [1]}), json!({"/params": {"a": 1}}), json!({"params": {"a": 1}}))]
    #[case(json!({"1": "a"}), json!({"1": "b"}), json!({"1": "b"}))]
    #[case(json!("ping"), json!({"": "pong"}), json!("pong"))]
    #[case(json!({"a": {"b": 1}}), json!({"a": {"": 2}}), json!({"a": 2}))]
    #[case(json!({"a": 1}), json!({"/": 2}), json!({"a": 1, "": 2}))]
    fn name_overrides_merge_and_pointer_overrides_replace(
        #[case] mut target: Value,
        #[case] overrides: Value,
        #[case] expected: Value,
    ) {
        merge_overrides(&mut target, &overrides);
        assert_eq!(target, expected);
    }

    #[rstest]
    #[case(json!({"5": 0}), "the message is an array of 2, so it has no element `5`")]
    #[case(json!({"/5": 0}), "the message is an array of 2, so it has no element `5`")]
    #[case(json!({"01": 0}), "the message is an array, so it has no member `01`")]
    #[case(json!({"/-": 0}), "the message is an array, so it has no member `-`")]
    #[case(json!({"1": {"x": {"9": 0}}}), "/1/x is an array of 0, so it has no element `9`")]
    fn an_array_has_no_place_beyond_its_end(#[case] overrides: Value, #[case] expected: &str) {
        let mut target = json!([1, {"x": []}]);
        let found = misplaced_overrides(&target, &overrides);
        assert_eq!(found.iter().map(|one| one.describe().0).collect::<Vec<_>>(), [expected]);
        merge_overrides(&mut target, &overrides);
        assert_eq!(target, json!([1, {"x": []}]));
    }

    #[rstest]
    #[case("/1/x/0", true)]
    #[case("/2", true)]
    #[case("/3", false)]
    #[case("/1/x/1/a", false)]
    #[case("/0/a/5", true)]
    #[case("", true)]
    fn a_place_exists_if_a_value_can_be_put_there(#[case] pointer: &str, #[case] expected: bool) {
        let mut target = json!([1, {"x": []}]);
        assert_eq!(has_place(&target, pointer), expected);
        assert_eq!(put_at_pointer(&mut target, pointer, json!(7)), expected);
        assert_eq!(target.pointer(pointer) == Some(&json!(7)), expected);
    }

    #[test]
    fn elements_are_removed_at_their_original_places() {
        let mut value = json!([0, 1, 2, 3, {"a": [4, 5]}, 5, 6, 7, 8, 9, 10]);
        let places = ["/1", "/2", "/10", "/4/a/0", "/4/a/1", "/2"].map(str::to_owned);
        remove_members(&mut value, &places);
        assert_eq!(value, json!([0, 3, {"a": []}, 5, 6, 7, 8, 9]));
    }

    #[test]
    fn members_at_the_given_pointers_are_removed() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
        remove_members(&mut value, &["/a/b".to_owned(), "/d/0".to_owned(), "/x/y".to_owned()]);
        assert_eq!(value, json!({"a": {"c": 2}, "d": [2]}));
    }
}
