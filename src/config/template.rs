//! Templates of hooks: `${...}` is an expression over `args`, `message` and `hub`, as in scenarios, and gives text.

use std::sync::Arc;

use serde_json::Value;

use crate::scenario::functions::FunctionContext;
use crate::scenario::template::{ENGINE_FUNCTIONS, EvalContext, Template};
use crate::scenario::value::{BoundValue, EvalError};
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::source::{Sources, Span};
use crate::syntax::yaml::{NodeKind, NodeText, SyntaxNode};

/// The variables of an expression.
pub const CONTEXT_NAMES: [&str; 3] = ["args", "message", "hub"];

/// The only function that hooks can call. The others need a conversation, or are also filters.
const JSON: &str = "json";

/// A template that cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// Returns all errors that can be found without values.
pub fn check_template(node: &SyntaxNode) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    Template::from_node(node, &mut errors).visit_expressions(&mut |expression| {
        for dotted in &expression.uses {
            let root = dotted.split('.').next().unwrap_or(dotted);
            if !CONTEXT_NAMES.contains(&root) && root != JSON && !ENGINE_FUNCTIONS.contains(&root) {
                let help = suggest(root, CONTEXT_NAMES, "a hook can use args, message and hub (the settings)");
                let error = Diagnostic::error(expression.place(dotted, 0), format!("`{root}` is not known here"));
                errors.push(error.help(help));
            }
        }
    });
    errors
}

/// Returns the text with every `${...}` evaluated; `context` is an object with the members [`CONTEXT_NAMES`].
///
/// # Errors
///
/// An expression does not compile, uses an undefined value, or yields something other than text or a number.
pub fn fill_template(text: &str, context: &Value) -> Result<String, TemplateError> {
    let span = Span::new(Sources::default().add("hook", ""), 0..0);
    let node = SyntaxNode { span, kind: NodeKind::Text(NodeText { value: text.to_owned(), inner: None }) };
    let mut errors = Vec::new();
    let template = Template::from_node(&node, &mut errors);
    if let Some(error) = errors.into_iter().next() {
        return Err(TemplateError(error.message));
    }
    let names = HookNames { context, functions: Arc::new(FunctionContext::new("hook")) };
    template.eval_text(&names).map_err(|error: EvalError| TemplateError(error.to_string()))
}

/// The variables of one call.
struct HookNames<'a> {
    context: &'a Value,
    functions: Arc<FunctionContext>,
}

impl EvalContext for HookNames<'_> {
    fn lookup(&self, name: &str) -> Option<BoundValue> {
        self.context.get(name).cloned().map(BoundValue::from_value)
    }

    fn function_context(&self) -> &Arc<FunctionContext> {
        &self.functions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn mistakes(text: &str) -> Vec<(std::ops::Range<usize>, String)> {
        let file = Sources::default().add("target.toml", text);
        let span = Span::new(file, 0..text.len());
        let node = SyntaxNode { span, kind: NodeKind::Text(NodeText { value: text.to_owned(), inner: Some(span) }) };
        check_template(&node)
            .into_iter()
            .map(|error| (error.span.map(Span::range).unwrap_or_default(), error.message))
            .collect()
    }

    #[rstest]
    #[case("plain {{ text }} {% raw", "plain {{ text }} {% raw")]
    #[case("", "")]
    #[case("/events/${args.project}?n=${args.n}", "/events/p 1?n=3")]
    #[case("${args.project}${hub.version}", "p 10.1.0")]
    #[case("${args.n}", "3")]
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
        assert_eq!(mistakes(text), []);
        assert_eq!(fill_template(text, &context).as_deref(), Ok(expected));
    }

    #[rstest]
    #[case("${args.nothing}", "`args.nothing` is missing")]
    #[case(
        "${args}",
        "`${args}` inside text gives {}, which is neither text nor a number; `${json(args)}` gives its JSON text"
    )]
    #[case(
        "${none}",
        "`${none}` inside text gives null, which is neither text nor a number; `${json(none)}` gives its JSON text"
    )]
    #[case("${json(args.nothing)}", "`${json(args.nothing)}`: `json()` is missing")]
    fn a_template_with_missing_or_structured_values_is_an_error(#[case] text: &str, #[case] message: &str) {
        assert_eq!(mistakes(text), []);
        let error = fill_template(text, &json!({ "args": {} })).expect_err("must not be filled");
        assert_eq!(error.to_string(), message);
    }

    #[rstest]
    #[case::of_the_engine(format!("${{{}}}", vec!["1"; 1 << 20].join("+")), "is longer than 4096 bytes")]
    #[case::of_its_value("${'x' * 1000000000000}".to_owned(), "may make more than 256 MiB")]
    fn a_runaway_template_ends_with_an_error(#[case] text: String, #[case] message: &str) {
        let error = fill_template(&text, &json!({})).expect_err("must not be filled").to_string();
        assert!(error.ends_with(message), "{error}");
    }

    #[rstest]
    #[case("a ${args.x", 2..4, "`${` has no closing `}`")]
    #[case("a ${'}", 2..4, "`${` has no closing `}`")]
    #[case("a ${arg.x} b", 4..7, "`arg` is not known here")]
    #[case("a ${uuid()} b", 4..8, "`uuid` is not known here")]
    #[case("a ${args.x | uper} b", 13..17, "there is no filter `uper`")]
    #[case("a ${1 +} b", 6..7, "`${1 +}` is not an expression: unexpected end of input, expected expression")]
    fn template_errors_are_found_before_the_template_is_filled(
        #[case] text: &str,
        #[case] range: std::ops::Range<usize>,
        #[case] message: &str,
    ) {
        assert_eq!(mistakes(text), [(range, message.to_owned())]);
    }
}
