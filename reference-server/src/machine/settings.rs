//! Settings: one TOML table per protocol, with the documented values as defaults.
//!
//! Each machine has its own settings struct, which refuses unknown keys, so a misspelt key is an error.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// The settings of one hub, not yet checked by its protocol.
#[derive(Clone, Default)]
pub struct Settings(Table);

/// The settings of a file by protocol.
pub type SettingsFile = BTreeMap<String, Settings>;

/// A mistake in settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("failed to read the settings file: {0}")]
    File(String),
    #[error("{0:?} is not KEY=VALUE, for example identify_timeout_ms=2000")]
    Pair(String),
    #[error("cannot set {key:?}: {part:?} is a value, not a table")]
    Path { key: String, part: String },
    #[error("settings of {protocol}: {reason}")]
    Invalid { protocol: &'static str, reason: String },
}

/// Reads a settings file: one table per protocol, `[concierge]`, `[qi]`.
///
/// # Errors
/// [`SettingsError::File`] with line and column. Keys are checked when the hub is built.
pub fn parse_file(text: &str) -> Result<SettingsFile, SettingsError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| SettingsError::File(error.to_string()))?;
    table
        .into_iter()
        .map(|(protocol, value)| match value {
            Value::Table(table) => Ok((protocol, Settings(table))),
            _ => Err(SettingsError::File(format!(
                "top-level key {protocol:?} is not a table; put settings under their protocol, for example [concierge]"
            ))),
        })
        .collect()
}

impl Settings {
    /// Sets one key (dots descend into tables). The value is TOML if it parses as TOML, otherwise a string.
    ///
    /// # Errors
    /// [`SettingsError::Path`] if a part of the key is already a plain value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SettingsError> {
        let value = format!("value = {value}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| if table.len() == 1 { table.remove("value") } else { None })
            .unwrap_or_else(|| Value::String(value.to_owned()));
        let mut table = &mut self.0;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                table.insert(part.to_owned(), value);
                break;
            }
            table = match table.entry(part).or_insert_with(|| Value::Table(Table::new())) {
                Value::Table(table) => table,
                _ => {
                    return Err(SettingsError::Path { key: key.to_owned(), part: part.to_owned() });
                }
            };
        }
        Ok(())
    }

    /// Sets one `KEY=VALUE`, as [`Settings::set`] does.
    ///
    /// # Errors
    /// [`SettingsError::Pair`] without a key or `=`, and those of [`Settings::set`].
    pub fn set_pair(&mut self, pair: &str) -> Result<(), SettingsError> {
        match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => self.set(key.trim(), value.trim()),
            _ => Err(SettingsError::Pair(pair.to_owned())),
        }
    }

    /// Reads the settings as those of `protocol`.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] for unknown keys and wrong values.
    pub fn deserialize<T: DeserializeOwned>(&self, protocol: &'static str) -> Result<T, SettingsError> {
        T::deserialize(Value::Table(self.0.clone()))
            .map_err(|error| SettingsError::Invalid { protocol, reason: error.to_string().trim_end().to_owned() })
    }
}

impl From<Table> for Settings {
    fn from(table: Table) -> Settings {
        Settings(table)
    }
}

impl fmt::Debug for Settings {
    /// Keys only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Reads a semantic version from a string.
pub(crate) fn version<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<semver::Version, D::Error> {
    let text = String::deserialize(deserializer)?;
    semver::Version::parse(&text)
        .map_err(|error| serde::de::Error::custom(format!("version {text:?} is not a semantic version: {error}")))
}

/// Reads a time given in milliseconds.
pub(crate) fn millis<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<std::time::Duration, D::Error> {
    u64::deserialize(deserializer).map(std::time::Duration::from_millis)
}

/// Reads a secret, which may look like a number in TOML; errors do not repeat it.
pub(crate) fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(Some(text)),
        Value::Integer(number) => Ok(Some(number.to_string())),
        _ => Err(serde::de::Error::custom("a secret must be a string")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("n=3", "n = 3")]
    #[case("s=abc", "s = \"abc\"")]
    #[case("s=\"3\"", "s = \"3\"")]
    #[case("v=0.1.0", "v = \"0.1.0\"")]
    #[case("a.b.c=true", "[a.b]\nc = true")]
    #[case("e=", "e = \"\"")]
    #[case("s=1\nx=2", "s = \"1\\nx=2\"")]
    fn the_value_of_a_setting_is_toml_or_else_text(#[case] pair: &str, #[case] toml: &str) {
        let mut settings = Settings::default();
        settings.set_pair(pair).unwrap();
        assert_eq!(settings.0, toml.parse::<Table>().unwrap());
    }

    #[rstest]
    #[case("novalue")]
    #[case("=3")]
    fn a_setting_without_key_or_equals_sign_is_refused(#[case] pair: &str) {
        assert!(matches!(Settings::default().set_pair(pair), Err(SettingsError::Pair(_))));
    }

    #[test]
    fn setting_a_key_below_a_value_is_an_error_that_names_the_value() {
        let mut settings = Settings::default();
        settings.set_pair("a=1").unwrap();
        assert!(settings.set_pair("a.b=1").unwrap_err().to_string().contains("\"a\" is a value"));
    }

    #[test]
    fn debug_output_of_settings_has_no_values() {
        let mut settings = Settings::default();
        settings.set_pair("secret=canary").unwrap();
        assert!(!format!("{settings:?}").contains("canary"));
    }

    #[rstest]
    #[case("qi", "commands.execute.echo=true", "built in")]
    #[case("qi", "verison=0.1.0", "verison")]
    #[case("qi", "version=one", "semantic version")]
    #[case("qi", "commands.x.return=1", "return")]
    #[case("gator", "parent=tcp://x", "ws://")]
    #[case("gator", "database=no/such/folder/x.sqlite", if cfg!(feature = "sqlite") { "no/such/folder" } else { "--features sqlite" })]
    #[case("gator", "colour=red", "colour")]
    #[case("emprops", "heartbeat_interval_ms=0", "must not be 0")]
    #[case("emprops", "nothing=1", "unknown field")]
    fn the_error_for_a_wrong_setting_says_what_is_wrong(#[case] protocol: &str, #[case] pair: &str, #[case] why: &str) {
        let mut settings = Settings::default();
        settings.set_pair(pair).unwrap();
        let error = crate::build_machine(protocol, &settings, None).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(&format!("settings of {protocol}: ")) && error.contains(why), "{error}");
    }
}
