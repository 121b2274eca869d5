//! Reading members with the reasons that an `error` gives: which field, what it must be, what it was.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::refusal::Wrong;
use crate::machine::json::{self, Members};

/// The longest string that is remembered (ids, names, texts of workers), in bytes. The document sets no limit;
/// without one a client could fill the hub's memory past all its counts.
const MAX_TEXT: usize = 16 * 1024;
/// The longest provided value that an error repeats, in bytes.
const MAX_PROVIDED: usize = 1024;

/// The members of an object with the path that leads to it. A member that is `null` counts as absent.
pub struct Fields<'a> {
    path: String,
    members: Members<'a>,
}

impl<'a> Fields<'a> {
    /// The members of a message.
    pub fn of(members: Members<'a>) -> Fields<'a> {
        Fields { path: String::new(), members }
    }

    /// The raw value of a member.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name).copied().filter(|raw| raw.get() != "null")
    }

    /// All members.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.iter().map(|(name, raw)| (name.as_str(), *raw))
    }

    /// What is wrong with a member.
    pub fn wrong(&self, name: &str, message: impl Into<String>) -> Wrong {
        Wrong {
            field: format!("{}{name}", self.path),
            message: message.into(),
            provided: self.members.get(name).filter(|raw| repeatable(raw)).map(|raw| (*raw).to_owned()),
        }
    }

    fn typed<T: DeserializeOwned>(&self, name: &str, must: &str) -> Result<Option<T>, Wrong> {
        match self.raw(name) {
            None => Ok(None),
            Some(raw) => serde_json::from_str(raw.get()).map(Some).map_err(|_| self.wrong(name, must)),
        }
    }

    fn need<T>(&self, name: &str, value: Option<T>) -> Result<T, Wrong> {
        value.ok_or_else(|| self.wrong(name, "Is required"))
    }

    /// A string.
    pub fn text(&self, name: &str) -> Result<Option<String>, Wrong> {
        let text: Option<String> = self.typed(name, "Must be a string")?;
        match &text {
            Some(text) if text.len() > MAX_TEXT => {
                Err(self.wrong(name, format!("Must not be longer than {MAX_TEXT} bytes")))
            }
            _ => Ok(text),
        }
    }

    /// A string of any length that must be there.
    pub fn required_data(&self, name: &str) -> Result<String, Wrong> {
        self.need(name, self.typed(name, "Must be a string")?)
    }

    /// A string that must be there and not be empty.
    pub fn required_text(&self, name: &str) -> Result<String, Wrong> {
        let text = self.need(name, self.text(name)?)?;
        if text.is_empty() {
            return Err(self.wrong(name, "Must not be empty"));
        }
        Ok(text)
    }

    /// A boolean.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Wrong> {
        self.typed(name, "Must be a boolean")
    }

    /// A boolean that must be there.
    pub fn required_flag(&self, name: &str) -> Result<bool, Wrong> {
        self.need(name, self.flag(name)?)
    }

    /// A number for which `holds`, as it was written and as a double.
    pub fn number(&self, name: &str, must: &str, holds: impl Fn(f64) -> bool) -> Result<Option<(Number, f64)>, Wrong> {
        let number: Option<Number> = self.typed(name, must)?;
        match number {
            None => Ok(None),
            Some(number) => match number.as_f64().filter(|double| double.is_finite() && holds(*double)) {
                Some(double) => Ok(Some((number, double))),
                None => Err(self.wrong(name, must)),
            },
        }
    }

    /// A number that must be there and for which `holds`.
    pub fn required_number(&self, name: &str, must: &str, holds: impl Fn(f64) -> bool) -> Result<(Number, f64), Wrong> {
        self.need(name, self.number(name, must, holds)?)
    }

    /// A whole number of at least `least`.
    pub fn whole(&self, name: &str, least: usize) -> Result<Option<usize>, Wrong> {
        let must = format!("Must be a whole number, at least {least}");
        // 1.0 is as whole as 1.
        let number = self.number(name, &must, |double| double.fract() == 0.0 && double >= least as f64)?;
        Ok(number.map(|(_, double)| double as usize))
    }

    /// A whole number of at least `least` that must be there.
    pub fn required_whole(&self, name: &str, least: usize) -> Result<usize, Wrong> {
        self.need(name, self.whole(name, least)?)
    }

    /// A list of strings.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Wrong> {
        let must = "Must be a list of strings";
        let texts: Option<Vec<String>> = self.typed(name, must)?;
        match &texts {
            Some(texts) if texts.iter().map(|text| text.len() + 16).sum::<usize>() > 4 * MAX_TEXT => {
                Err(self.wrong(name, format!("Must not hold more than {} bytes", 4 * MAX_TEXT)))
            }
            _ => Ok(texts),
        }
    }

    /// Strings, where there is anything at all.
    pub fn only_texts(&self, name: &str) -> Result<(), Wrong> {
        self.not_null(name)?;
        self.typed::<Vec<String>>(name, "Must be a list of strings").map(drop)
    }

    /// A boolean, where there is anything at all.
    pub fn only_flag(&self, name: &str) -> Result<(), Wrong> {
        self.not_null(name)?;
        self.flag(name).map(drop)
    }

    fn not_null(&self, name: &str) -> Result<(), Wrong> {
        match self.members.get(name) {
            Some(raw) if raw.get() == "null" => Err(self.wrong(name, "Must not be null")),
            _ => Ok(()),
        }
    }

    /// An object, as its text.
    pub fn object(&self, name: &str) -> Result<Option<&'a RawValue>, Wrong> {
        match self.raw(name) {
            Some(raw) if !raw.get().starts_with('{') => Err(self.wrong(name, "Must be an object")),
            raw => Ok(raw),
        }
    }

    /// An object that must be there, as its text.
    pub fn required_object(&self, name: &str) -> Result<&'a RawValue, Wrong> {
        self.need(name, self.object(name)?)
    }

    /// The members of an object.
    pub fn inside(&self, name: &str) -> Result<Option<Fields<'a>>, Wrong> {
        let Some(raw) = self.object(name)? else {
            return Ok(None);
        };
        let members = json::members(raw.get()).map_err(|_| self.wrong(name, "Must be an object"))?;
        Ok(Some(Fields { path: format!("{}{name}.", self.path), members }))
    }
}

/// Whether a value can be sent back to whoever sent it: neither long nor beyond what JSON readers take.
fn repeatable(raw: &RawValue) -> bool {
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
    fn what_is_wrong_is_told(#[case] name: &str, #[case] message: &str, #[case] provided: &str) {
        let text =
            r#"{"o":{"text":7,"empty":"","flag":"yes","number":-1,"whole":1.5,"texts":[1],"object":[],"null":null}}"#;
        let fields = Fields::of(json::members(text).unwrap());
        let fields = fields.inside("o").unwrap().unwrap();
        let wrong = match name {
            "text" => fields.text(name).unwrap_err(),
            "empty" => fields.required_text(name).unwrap_err(),
            "flag" => fields.flag(name).unwrap_err(),
            "number" => fields.number(name, "Must be positive", |number| number > 0.0).unwrap_err(),
            "whole" => fields.whole(name, 1).unwrap_err(),
            "texts" => fields.texts(name).unwrap_err(),
            _ => fields.object(name).unwrap_err(),
        };
        assert_eq!((wrong.field.as_str(), wrong.message.as_str()), (format!("o.{name}").as_str(), message));
        assert_eq!(wrong.provided.unwrap().get(), provided);
        assert!(fields.text("null").unwrap().is_none());
        assert_eq!(fields.required_text("null").unwrap_err().message, "Is required");
    }
}
