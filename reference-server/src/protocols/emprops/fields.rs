//! Reads members, with the details of an `error`: the field, the expected value and the actual one.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::request_error::FieldError;
use crate::machine::json::{self, Members};

/// The longest string that is kept (ids, names, texts of workers), in bytes. The document sets no limit; without one, a
/// client could exhaust memory.
const MAX_TEXT: usize = 16 * 1024;
/// The longest value that an error repeats, in bytes.
const MAX_PROVIDED: usize = 1024;

/// The members of an object, with its path. A member that is `null` counts as absent.
pub struct ObjectFields<'a> {
    path: String,
    members: Members<'a>,
}

impl<'a> ObjectFields<'a> {
    pub fn new(members: Members<'a>) -> ObjectFields<'a> {
        ObjectFields { path: String::new(), members }
    }

    /// Returns the raw value of a member.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name).copied().filter(|raw| raw.get() != "null")
    }

    /// Returns all members.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.iter().map(|(name, raw)| (name.as_str(), *raw))
    }

    /// Makes an error about a member.
    pub fn field_error(&self, name: &str, message: impl Into<String>) -> FieldError {
        FieldError {
            field: format!("{}{name}", self.path),
            message: message.into(),
            provided: self.members.get(name).filter(|raw| is_repeatable(raw)).map(|raw| (*raw).to_owned()),
        }
    }

    fn typed<T: DeserializeOwned>(&self, name: &str, must: &str) -> Result<Option<T>, FieldError> {
        match self.raw(name) {
            None => Ok(None),
            Some(raw) => serde_json::from_str(raw.get()).map(Some).map_err(|_| self.field_error(name, must)),
        }
    }

    fn require<T>(&self, name: &str, value: Option<T>) -> Result<T, FieldError> {
        value.ok_or_else(|| self.field_error(name, "Is required"))
    }

    /// Reads a string.
    pub fn text(&self, name: &str) -> Result<Option<String>, FieldError> {
        let text: Option<String> = self.typed(name, "Must be a string")?;
        match &text {
            Some(text) if text.len() > MAX_TEXT => {
                Err(self.field_error(name, format!("Must not be longer than {MAX_TEXT} bytes")))
            }
            _ => Ok(text),
        }
    }

    /// Reads a required string of any length.
    pub fn required_data(&self, name: &str) -> Result<String, FieldError> {
        self.require(name, self.typed(name, "Must be a string")?)
    }

    /// Reads a required string that is not empty.
    pub fn required_text(&self, name: &str) -> Result<String, FieldError> {
        let text = self.require(name, self.text(name)?)?;
        if text.is_empty() {
            return Err(self.field_error(name, "Must not be empty"));
        }
        Ok(text)
    }

    /// Reads a boolean.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, FieldError> {
        self.typed(name, "Must be a boolean")
    }

    /// Reads a required boolean.
    pub fn required_flag(&self, name: &str) -> Result<bool, FieldError> {
        self.require(name, self.flag(name)?)
    }

    /// Reads a number for which `holds` is true; returns its text and its value as a double.
    pub fn number(
        &self,
        name: &str,
        must: &str,
        holds: impl Fn(f64) -> bool,
    ) -> Result<Option<(Number, f64)>, FieldError> {
        let number: Option<Number> = self.typed(name, must)?;
        match number {
            None => Ok(None),
            Some(number) => match number.as_f64().filter(|double| double.is_finite() && holds(*double)) {
                Some(double) => Ok(Some((number, double))),
                None => Err(self.field_error(name, must)),
            },
        }
    }

    /// Reads a required number for which `holds` is true.
    pub fn required_number(
        &self,
        name: &str,
        must: &str,
        holds: impl Fn(f64) -> bool,
    ) -> Result<(Number, f64), FieldError> {
        self.require(name, self.number(name, must, holds)?)
    }

    /// Reads a whole number of at least `least`.
    pub fn whole_number(&self, name: &str, least: usize) -> Result<Option<usize>, FieldError> {
        let must = format!("Must be a whole number, at least {least}");
        // 1.0 is a whole number, too.
        let number = self.number(name, &must, |double| double.fract() == 0.0 && double >= least as f64)?;
        Ok(number.map(|(_, double)| double as usize))
    }

    /// Reads a required whole number of at least `least`.
    pub fn required_whole_number(&self, name: &str, least: usize) -> Result<usize, FieldError> {
        self.require(name, self.whole_number(name, least)?)
    }

    /// Reads a list of strings.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, FieldError> {
        let must = "Must be a list of strings";
        let texts: Option<Vec<String>> = self.typed(name, must)?;
        match &texts {
            Some(texts) if texts.iter().map(|text| text.len() + 16).sum::<usize>() > 4 * MAX_TEXT => {
                Err(self.field_error(name, format!("Must not hold more than {} bytes", 4 * MAX_TEXT)))
            }
            _ => Ok(texts),
        }
    }

    /// Checks that a member is a list of strings or absent, not `null`.
    pub fn check_texts(&self, name: &str) -> Result<(), FieldError> {
        self.check_not_null(name)?;
        self.typed::<Vec<String>>(name, "Must be a list of strings").map(drop)
    }

    /// Checks that a member is a boolean or absent, not `null`.
    pub fn check_flag(&self, name: &str) -> Result<(), FieldError> {
        self.check_not_null(name)?;
        self.flag(name).map(drop)
    }

    fn check_not_null(&self, name: &str) -> Result<(), FieldError> {
        match self.members.get(name) {
            Some(raw) if raw.get() == "null" => Err(self.field_error(name, "Must not be null")),
            _ => Ok(()),
        }
    }

    /// Reads an object as its text.
    pub fn object(&self, name: &str) -> Result<Option<&'a RawValue>, FieldError> {
        match self.raw(name) {
            Some(raw) if !raw.get().starts_with('{') => Err(self.field_error(name, "Must be an object")),
            raw => Ok(raw),
        }
    }

    /// Reads a required object as its text.
    pub fn required_object(&self, name: &str) -> Result<&'a RawValue, FieldError> {
        self.require(name, self.object(name)?)
    }

    /// Reads the members of an object.
    pub fn nested_fields(&self, name: &str) -> Result<Option<ObjectFields<'a>>, FieldError> {
        let Some(raw) = self.object(name)? else { return Ok(None) };
        let members = json::split_members(raw.get()).map_err(|_| self.field_error(name, "Must be an object"))?;
        Ok(Some(ObjectFields { path: format!("{}{name}.", self.path), members }))
    }
}

/// Whether an error repeats a value: if it is short and JSON parsers can read it.
fn is_repeatable(raw: &RawValue) -> bool {
    raw.get().len() <= MAX_PROVIDED && serde_json::from_str::<Value>(raw.get()).is_ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("text", "Must be a string", "7")]
    #[case("empty", "Must not be empty", "\"\"")]
    #[case("flag", "Must be a boolean", "\"yes\"")]
    #[case("number", "Must be positive", "-1")]
    #[case("whole", "Must be a whole number, at least 1", "1.5")]
    #[case("texts", "Must be a list of strings", "[1]")]
    #[case("object", "Must be an object", "[]")]
    fn errors_name_the_wrong_field_and_its_value(#[case] name: &str, #[case] message: &str, #[case] provided: &str) {
        let text =
            r#"{"o":{"text":7,"empty":"","flag":"yes","number":-1,"whole":1.5,"texts":[1],"object":[],"null":null}}"#;
        let fields = ObjectFields::new(json::split_members(text).unwrap());
        let fields = fields.nested_fields("o").unwrap().unwrap();
        let wrong = match name {
            "text" => fields.text(name).unwrap_err(),
            "empty" => fields.required_text(name).unwrap_err(),
            "flag" => fields.flag(name).unwrap_err(),
            "number" => fields.number(name, "Must be positive", |number| number > 0.0).unwrap_err(),
            "whole" => fields.whole_number(name, 1).unwrap_err(),
            "texts" => fields.texts(name).unwrap_err(),
            _ => fields.object(name).unwrap_err(),
        };
        assert_eq!((wrong.field.as_str(), wrong.message.as_str()), (format!("o.{name}").as_str(), message));
        assert_eq!(wrong.provided.unwrap().get(), provided);
        assert!(fields.text("null").unwrap().is_none());
        assert_eq!(fields.required_text("null").unwrap_err().message, "Is required");
    }
}
