//! Reading frames without loss: members keep their raw JSON text until their value is needed.

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The members of a JSON object, in order, each as its raw text. If a name occurs twice, the last one wins.
pub type Members<'a> = IndexMap<String, &'a RawValue>;

/// Splits a JSON object into its members.
pub fn split_members(text: &str) -> Result<Members<'_>, String> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => format!("expected a JSON object: {error}"),
        _ => format!("not JSON: {error}"),
    })
}

/// Reads the member `name` as a `T`; absent and `null` are both `None`.
pub fn optional_member<T: DeserializeOwned>(members: &Members<'_>, name: &str) -> Result<Option<T>, String> {
    match members.get(name) {
        None => Ok(None),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|error| format!("member {name:?}: {error}")),
    }
}

/// Reads the member `name` as a `T`.
pub fn required_member<T: DeserializeOwned>(members: &Members<'_>, name: &str) -> Result<T, String> {
    match members.get(name) {
        None => Err(format!("member {name:?} is missing")),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|error| format!("member {name:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn members_keep_their_json_text_verbatim() {
        let members = split_members(r#"{"a": 1e400, "b": {"x" : 9007199254740993}}"#).unwrap();
        assert_eq!(members["a"].get(), "1e400");
        assert_eq!(members["b"].get(), r#"{"x" : 9007199254740993}"#);
    }

    #[rstest]
    #[case("{", "not JSON")]
    #[case("[]", "expected a JSON object")]
    #[case("3", "expected a JSON object")]
    #[case("", "not JSON")]
    #[case(r#"{"a":1,}"#, "not JSON")]
    fn a_text_that_is_not_an_object_is_an_error(#[case] text: &str, #[case] why: &str) {
        let error = split_members(text).unwrap_err();
        assert!(error.starts_with(why), "{error}");
    }

    #[test]
    fn deeply_nested_json_does_not_overflow_the_stack() {
        let deep = format!(r#"{{"data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(split_members(&deep).unwrap()["data"].get().len(), 200_000);
    }
}
