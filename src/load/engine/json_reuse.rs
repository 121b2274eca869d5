//! Parses JSON into an existing tree. Most of the cost of parsing is allocating names, texts and tables, and messages
//! of one kind look alike, so the values of the previous message are overwritten in place.
//!
//! The result equals a fresh parse, whatever the tree held before.

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Deserializer, Map, Number, Value};

/// Parses `text` into `tree`. After an error the tree has some value and can be reused.
///
/// # Errors
/// The text is not JSON, or is nested deeper than serde_json allows.
pub fn renew(tree: &mut Value, text: &[u8]) -> serde_json::Result<()> {
    let mut reader = Deserializer::from_slice(text);
    Place(tree).deserialize(&mut reader)?;
    reader.end()
}

/// A value to be overwritten.
struct Place<'v>(&'v mut Value);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        *self.0 = Value::Null;
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        *self.0 = Value::Bool(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        *self.0 = Value::Number(value.into());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        *self.0 = Value::Number(value.into());
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        *self.0 = Number::from_f64(value).map_or(Value::Null, Value::Number);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        match self.0 {
            Value::String(known) => {
                known.clear();
                known.push_str(text);
            }
            other => *other = Value::String(text.to_owned()),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if !self.0.is_array() {
            *self.0 = Value::Array(Vec::new());
        }
        let Value::Array(list) = self.0 else { return Ok(()) };
        let mut count = 0;
        loop {
            let more = match list.get_mut(count) {
                Some(known) => items.next_element_seed(Place(known))?.is_some(),
                None => items.next_element()?.map(|item| list.push(item)).is_some(),
            };
            if !more {
                list.truncate(count);
                return Ok(());
            }
            count += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        if !self.0.is_object() {
            *self.0 = Value::Object(Map::new());
        }
        let Value::Object(map) = self.0 else { return Ok(()) };
        let mut same = 0;
        let mut other = None;
        for (name, value) in map.iter_mut() {
            match members.next_key_seed(Name(name))? {
                Some(None) => members.next_value_seed(Place(value))?,
                Some(name) => {
                    other = name;
                    break;
                }
                None => break,
            }
            same += 1;
        }
        if same < map.len() {
            *map = std::mem::take(map).into_iter().take(same).collect();
        }
        if let Some(name) = other {
            map.insert(name, members.next_value()?);
        }
        while let Some((name, value)) = members.next_entry()? {
            map.insert(name, value);
        }
        Ok(())
    }
}

/// A reader of the name of a member: `None` if it equals the expected name.
struct Name<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Option<String>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<String>, E> {
        Ok((name != self.0).then(|| name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::compile::json_scan::tests::any_json;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case(&["{\"a\":1}", "{\"a\":2,\"b\":3}", "{\"a\":2}", "{\"b\":2}", "{}", "[]", "null"])]
    #[case(&["{\"a\":{\"b\":[1,2,3]}}", "{\"a\":{\"b\":[\"x\"]}}", "{\"a\":{\"b\":[]}}", "{\"a\":[{\"b\":true}]}"])]
    #[case(&["{\"a\":1,\"b\":2,\"a\":3}", "{\"a\":1,\"b\":2,\"a\":3}", "{\"b\":1,\"a\":2}"])]
    #[case(&["\"text\"", "\"t\\u00e4xt\"", "1.5e3", "-7", "18446744073709551615", "\"\"", "1e400", "[1e400]", "3"])]
    #[case(&["{\"a\":1,\"b\":", "{\"a\":\"x\",\"b\":2}", "{\"a\":1} x", "", "\"\\ud800\"", "{\"a\":1}"])]
    fn a_reused_tree_equals_a_freshly_parsed_one(#[case] texts: &[&str]) {
        let mut tree = Value::Null;
        for text in texts {
            check(&mut tree, text.as_bytes());
        }
    }

    /// Compares as text, too: the order of members counts.
    fn check(tree: &mut Value, text: &[u8]) {
        let fresh: Option<Value> = serde_json::from_slice(text).ok();
        let renewed = renew(tree, text).ok().map(|()| tree.clone());
        assert_eq!(renewed.map(|tree| tree.to_string()), fresh.map(|tree| tree.to_string()));
    }

    proptest! {
        #[test]
        fn a_reused_tree_equals_a_freshly_parsed_one_whatever_it_held_before(values in prop::collection::vec(any_json(), 1..6), cut in 0..40_usize) {
            let mut tree = Value::Null;
            for value in values {
                let text = value.to_string();
                check(&mut tree, text.as_bytes().get(..cut).unwrap_or_default());
                check(&mut tree, text.as_bytes());
            }
        }
    }
}
