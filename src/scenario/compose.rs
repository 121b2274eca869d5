//! Builds messages by changing the documented example. A value under a name is merged, a value under a pointer
//! replaces.

use serde_json::{Map, Value};

use crate::syntax::matcher::unescape;

/// Applies overrides: objects under a name merge, everything else replaces; `/pointer` replaces whatever is there.
pub fn merge_overrides(target: &mut Value, overrides: &Value) {
    let Value::Object(members) = overrides else { return };
    for (name, value) in members {
        if name.starts_with('/') {
            put_at_pointer(target, name, value.clone());
            continue;
        }
        let Value::Object(object) = target else {
            *target = Value::Object(Map::new());
            merge_overrides(target, overrides);
            return;
        };
        match (object.get_mut(name), value) {
            (Some(inner @ Value::Object(_)), Value::Object(_)) => merge_overrides(inner, value),
            _ => {
                object.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Puts a value at a JSON pointer, creating objects on the way.
pub fn put_at_pointer(target: &mut Value, pointer: &str, value: Value) {
    let mut place = target;
    for token in pointer.split('/').skip(1) {
        let token = unescape(token);
        place = match place {
            Value::Array(items) => match token.parse::<usize>().ok() {
                Some(index) if index < items.len() => &mut items[index],
                _ => {
                    items.push(Value::Null);
                    let last = items.len() - 1;
                    &mut items[last]
                }
            },
            other => {
                if !other.is_object() {
                    *other = Value::Object(Map::new());
                }
                match other {
                    Value::Object(object) => object.entry(token).or_insert(Value::Null),
                    unchanged => unchanged,
                }
            }
        };
    }
    *place = value;
}

/// Removes the members at these pointers.
pub fn remove_members(target: &mut Value, pointers: &[String]) {
    for pointer in pointers {
        let Some((parent, name)) = pointer.rsplit_once('/') else { continue };
        let name = unescape(name);
        match target.pointer_mut(parent) {
            // shift_remove keeps the order of the other members.
            Some(Value::Object(object)) => {
                object.shift_remove(&name);
            }
            Some(Value::Array(items)) => {
                if let Some(index) = name.parse::<usize>().ok().filter(|i| *i < items.len()) {
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
    fn name_overrides_merge_and_pointer_overrides_replace(
        #[case] mut target: Value,
        #[case] overrides: Value,
        #[case] expected: Value,
    ) {
        merge_overrides(&mut target, &overrides);
        assert_eq!(target, expected);
    }

    #[test]
    fn members_at_the_given_pointers_are_removed() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
        remove_members(&mut value, &["/a/b".to_owned(), "/d/0".to_owned(), "/x/y".to_owned()]);
        assert_eq!(value, json!({"a": {"c": 2}, "d": [2]}));
    }
}
