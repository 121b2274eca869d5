//! Limits of the memory that an expression uses, as its fuel limits its time: scenarios may be a stranger's, and a hub
//! sends the values.

use minijinja::value::{Rest, Value as Engine, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};
use serde_json::Value;

use super::functions::context_of;

/// The most bytes of all texts that the functions and filters of one evaluation make, and of its result. More than every
/// documented limit.
pub const MAX_BYTES: usize = 64 << 20;
/// The most bytes that `*` makes of a text or list.
const MAX_PRODUCT: usize = 256 << 20;
/// What a value takes beside its text.
const VALUE_BYTES: usize = 32;

/// Filters that no scenario needs, each of which makes gigabytes of a small number.
const REMOVED: [&str; 6] = ["batch", "format", "indent", "pprint", "slice", "tojson"];
/// Filters that make texts or lists of letters.
const COUNTED: [&str; 16] = [
    "capitalize",
    "e",
    "escape",
    "join",
    "lines",
    "list",
    "lower",
    "replace",
    "reverse",
    "safe",
    "split",
    "string",
    "title",
    "trim",
    "upper",
    "urlencode",
];

/// Lets the filters of an environment count what they make. `plain` has the same filters uncounted.
pub fn limit_filters(env: &mut Environment<'static>, plain: &'static Environment<'static>) {
    for name in REMOVED {
        env.remove_filter(name);
    }
    for name in COUNTED {
        env.add_filter(name, move |state: &State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            charge(state, made_bytes(name, &args))?;
            plain.empty_state().apply_filter(name, &args)
        });
    }
}

/// Counts bytes that an evaluation is going to use.
pub fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    let too_large = || Error::new(ErrorKind::InvalidOperation, "the expression makes more than 64 MiB of text");
    if context_of(state)?.use_memory(bytes) { Ok(()) } else { Err(too_large()) }
}

/// Returns about how many bytes a filter makes.
fn made_bytes(filter: &str, args: &[Engine]) -> usize {
    let size = |index: usize| args.get(index).map_or(0, |value| value_bytes(value, MAX_BYTES));
    let [first, second, third] = [0, 1, 2].map(size);
    let text = args.first().and_then(Engine::as_str);
    match filter {
        "join" => first + text.map_or_else(|| args[0].len().unwrap_or(0), str::len).saturating_mul(second),
        "replace" => match (text, args.get(1).and_then(Engine::as_str)) {
            (Some(text), Some(from)) => first + text.matches(from).count().saturating_mul(third),
            _ => first.saturating_mul(third),
        },
        // A list of letters.
        "list" | "lines" | "split" | "reverse" => text.map_or(first, |text| text.len().saturating_mul(VALUE_BYTES)),
        // A letter may become three.
        _ => first.saturating_mul(3),
    }
}

/// Returns the bytes of a value with all texts in it; not exact beyond `most`.
fn value_bytes(value: &Engine, most: usize) -> usize {
    if let Some(text) = value.as_str() {
        return VALUE_BYTES + text.len();
    }
    let mut bytes = VALUE_BYTES;
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map)
        && let Ok(items) = value.try_iter()
    {
        for item in items {
            bytes += value_bytes(&item, most);
            if value.kind() == ValueKind::Map {
                bytes += value.get_item(&item).map_or(0, |member| value_bytes(&member, most));
            }
            if bytes > most {
                break;
            }
        }
    }
    bytes
}

/// Checks what the operators of an expression make of its inputs at most: `~` and `+` join texts, `*` repeats them.
/// `repeats`: see [`ParsedExpression::repeats`](super::expression::ParsedExpression::repeats).
pub fn check_operators(source: &str, repeats: bool, inputs: &[Value]) -> Result<(), String> {
    let count = |operators: &[char]| source.matches(operators).count();
    let (joins, products) = (count(&['~', '+']), count(&['*']));
    if joins + products == 0 {
        return Ok(());
    }
    let texts: usize = inputs.iter().map(json_bytes).sum();
    if texts.saturating_mul(joins + 1) > MAX_BYTES {
        return Err(format!("`${{{source}}}` makes more than 64 MiB of text"));
    }
    if products > 0 {
        let literal = source.split(['\'', '"']).skip(1).step_by(2).map(str::len).max().unwrap_or(0);
        let literal = if repeats { literal.max(VALUE_BYTES) } else { 0 };
        let written = source.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
        let factor = written.chain(inputs.iter().filter_map(Value::as_f64)).fold(1.0, f64::max);
        let most = texts.max(literal) as f64 * factor.powi(i32::try_from(products).unwrap_or(i32::MAX));
        if most > MAX_PRODUCT as f64 {
            return Err(format!("`${{{source}}}` may make more than 256 MiB"));
        }
    }
    Ok(())
}

/// Returns the bytes of the texts and lists in a value.
fn json_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| VALUE_BYTES + json_bytes(item)).sum(),
        Value::Object(members) => members.iter().map(|(name, member)| name.len() + json_bytes(member)).sum(),
        _ => 0,
    }
}
