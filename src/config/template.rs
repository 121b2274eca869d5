//! Templates of hooks: `${...}` is a minijinja expression over `args`, `message` and `hub`.

use std::ops::Range;
use std::sync::LazyLock;

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};

use crate::scenario::template::closing;
use crate::syntax::diagnostic::suggest;

/// The variables of an expression.
pub const NAMES: [&str; 3] = ["args", "message", "hub"];

/// An error in one expression, with its range in the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    pub range: Range<usize>,
    pub message: String,
    pub help: Option<String>,
}

/// Returns all errors that can be found without values.
pub fn check(text: &str) -> Vec<TemplateError> {
    let parts = match split(text) {
        Ok(parts) => parts,
        Err(error) => return vec![error],
    };
    let mut errors = Vec::new();
    for part in parts {
        let Part::Expression(range) = part else {
            continue;
        };
        match ENGINE.compile_expression(&text[range.clone()]) {
            Err(error) => errors.push(wrong(range, &error)),
            Ok(expression) => {
                let mut names: Vec<String> = expression.undeclared_variables(false).into_iter().collect();
                names.retain(|name| !NAMES.contains(&name.as_str()) && ENGINE.globals().all(|(n, _)| n != name));
                names.sort();
                errors.extend(names.into_iter().map(|name| TemplateError {
                    range: range.clone(),
                    message: format!("`{name}` is not known here"),
                    help: Some(suggest(&name, NAMES, "a hook sees args, message and hub (the settings)")),
                }));
            }
        }
    }
    errors
}

/// Returns the text with every `${...}` evaluated; `context` is an object with the members [`NAMES`].
///
/// # Errors
///
/// An expression does not compile, uses an undefined value, or yields something other than text or a number.
pub fn fill(text: &str, context: &serde_json::Value) -> Result<String, TemplateError> {
    let context = Value::from(minijinja::value::Serde(context));
    let mut filled = String::with_capacity(text.len());
    for part in split(text)? {
        match part {
            Part::Text(range) => filled.push_str(&text[range]),
            Part::Expression(range) => {
                let source = &text[range.clone()];
                let value = ENGINE
                    .compile_expression(source)
                    .and_then(|expression| expression.eval(context.clone()))
                    .map_err(|error| wrong(range.clone(), &error))?;
                match value.kind() {
                    ValueKind::String | ValueKind::Number => filled.push_str(&value.to_string()),
                    kind => return Err(unfit(range, source, kind)),
                }
            }
        }
    }
    Ok(filled)
}

enum Part {
    Text(Range<usize>),
    /// The text between the braces.
    Expression(Range<usize>),
}

/// Splits at `${` and its `}`: brackets and quotes inside are balanced.
fn split(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let start = at + found + 2;
        let Some(length) = closing(&text[start..]) else {
            return Err(TemplateError {
                range: start - 2..text.len(),
                message: "this `${` is never closed".to_owned(),
                help: Some("an expression ends with `}`; brackets and quotes inside must be closed first".to_owned()),
            });
        };
        if at < start - 2 {
            parts.push(Part::Text(at..start - 2));
        }
        parts.push(Part::Expression(start..start + length));
        at = start + length + 1;
    }
    if at < text.len() {
        parts.push(Part::Text(at..text.len()));
    }
    Ok(parts)
}

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.add_function("json", json);
    engine
});

/// Returns the JSON text of a value; fails for an undefined one.
fn json(value: Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "json() was called with an undefined value"));
    }
    serde_json::to_string(&value).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

fn wrong(range: Range<usize>, error: &Error) -> TemplateError {
    let message = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    TemplateError { range, message, help: None }
}

fn unfit(range: Range<usize>, source: &str, kind: ValueKind) -> TemplateError {
    let source = source.trim();
    let (message, help) = match kind {
        ValueKind::Undefined => {
            (format!("`{source}` is not there"), "is it among the args of the hook step?".to_owned())
        }
        kind => (
            format!("`{source}` is {kind}, not text or a number"),
            format!("write ${{json({source})}} for its JSON text"),
        ),
    };
    TemplateError { range, message, help: Some(help) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("plain {{ text }} {% raw", "plain {{ text }} {% raw")]
    #[case("", "")]
    #[case("/events/${args.project}?n=${args.n}", "/events/p 1?n=3")]
    #[case("${args.project}${hub.version}", "p 10.1.0")]
    #[case("${args['project'] | upper}!", "P 1!")]
    #[case("${ {'a}': '}'}['a}'] }", "}")]
    #[case("${json(message)}", r#"{"z":1,"a":["<b>",null,18446744073709551615]}"#)]
    #[case(r#"{"n": ${args.n + 1}}"#, r#"{"n": 4}"#)]
    #[case("größe ${args.n} ü", "größe 3 ü")]
    #[case("$ {x} $", "$ {x} $")]
    fn placeholders_of_a_template_are_replaced(#[case] text: &str, #[case] expected: &str) {
        let context = json!({
            "args": { "project": "p 1", "n": 3 },
            "message": { "z": 1, "a": ["<b>", null, u64::MAX] },
            "hub": { "version": "0.1.0" },
        });
        assert_eq!(check(text), []);
        assert_eq!(fill(text, &context).as_deref(), Ok(expected));
    }

    #[rstest]
    #[case("${args.nothing}", "`args.nothing` is not there")]
    #[case("${args}", "`args` is map, not text or a number")]
    #[case("${true}", "`true` is bool, not text or a number")]
    #[case("${none}", "`none` is none, not text or a number")]
    #[case("${json(args.nothing)}", "undefined value: json() was called with an undefined value")]
    fn a_template_with_missing_or_structured_values_is_an_error(#[case] text: &str, #[case] message: &str) {
        assert_eq!(check(text), []);
        let error = fill(text, &json!({ "args": {} })).expect_err("must not be filled");
        assert_eq!(error.message, message);
    }

    #[rstest]
    #[case("a ${args.x", 2..10, "this `${` is never closed")]
    #[case("a ${'}", 2..6, "this `${` is never closed")]
    #[case("a ${arg.x} b", 4..9, "`arg` is not known here")]
    #[case("a ${1 +} b", 4..7, "syntax error: unexpected end of input, expected expression")]
    fn errors_of_a_template_are_found_before_it_is_filled(
        #[case] text: &str,
        #[case] range: Range<usize>,
        #[case] message: &str,
    ) {
        let errors = check(text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!((errors[0].range.clone(), errors[0].message.as_str()), (range, message));
    }
}
