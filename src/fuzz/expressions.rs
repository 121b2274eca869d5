//! Expressions in the values of a case. Each text of a scenario is a template; which parts of it are expressions, and
//! what these use, is read from their syntax trees.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::generate::rng::RandomSource;
use crate::generate::schema_shape::SchemaShape;
use crate::generate::value;
use crate::protocol::MessageType;
use crate::scenario::expression::PathSegment;
use crate::scenario::functions::{FunctionContext, NEXT_USER};
use crate::scenario::parse::names::is_identifier;
use crate::scenario::template::{EvalContext, Piece, Template, TemplateExpression, pieces};
use crate::scenario::value::BoundValue;
use crate::syntax::matcher::member_pointer;
use crate::syntax::source::{Sources, Span};
use crate::syntax::yaml::SyntaxNode;

/// Returns the expressions in a text; those that the scenario reader refuses are left out.
fn expressions(text: &str) -> Vec<TemplateExpression> {
    let inside = |piece| match piece {
        Piece::Expression(range) => TemplateExpression::compile(&text[range], nowhere(), None).ok(),
        Piece::Literal(_) => None,
    };
    pieces(text).unwrap_or_default().into_iter().filter_map(inside).collect()
}

fn nowhere() -> Span {
    Span::new(Sources::default().add("case.yaml", ""), 0..0)
}

/// Returns the source of the expression of which a text consists.
pub fn source(text: &str) -> Option<&str> {
    match pieces(text).ok()?.as_slice() {
        [Piece::Expression(range)] => Some(text[range.clone()].trim()),
        _ => None,
    }
}

/// Returns the expression of which a text consists.
pub fn only(text: &str) -> Option<TemplateExpression> {
    TemplateExpression::compile(source(text)?, nowhere(), None).ok()
}

/// Whether a text holds no expression.
pub fn is_literal(text: &str) -> bool {
    pieces(text).is_ok_and(|pieces| pieces.iter().all(|piece| matches!(piece, Piece::Literal(_))))
}

/// Whether some text in a value holds an expression for which `is` is true.
pub fn any(value: &Value, is: &dyn Fn(&TemplateExpression) -> bool) -> bool {
    match value {
        Value::String(text) => expressions(text).iter().any(is),
        Value::Array(items) => items.iter().any(|item| any(item, is)),
        Value::Object(members) => members.values().any(|member| any(member, is)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether a text may have another value each time it is evaluated.
pub fn varies(text: &str) -> bool {
    expressions(text).iter().any(TemplateExpression::varies)
}

/// Whether some text in a value gives another unique value each time it is evaluated.
pub fn makes_new(value: &Value) -> bool {
    any(value, &|expression| ["unique", "uuid", NEXT_USER].iter().any(|function| expression.calls(function)))
}

/// Whether some expression in a value uses a name, or a member of it.
pub fn uses(value: &Value, name: &str) -> bool {
    any(value, &|expression| expression.uses.iter().any(|used| used.split('.').next() == Some(name)))
}

/// Replaces the names in a text's expressions by the names that `new` returns.
pub fn renamed<'n>(text: &str, new: &dyn Fn(&str) -> Option<&'n str>) -> String {
    let mut renamed = String::with_capacity(text.len());
    for piece in pieces(text).unwrap_or_else(|_| vec![Piece::Literal(0..text.len())]) {
        match piece {
            Piece::Literal(range) => renamed.push_str(&text[range]),
            Piece::Expression(range) => {
                let mut inside = text[range].to_owned();
                let roots = TemplateExpression::compile(&inside, nowhere(), None)
                    .map(|expression| expression.roots())
                    .unwrap_or_default();
                let blank = inside.len() - inside.trim_start().len();
                for place in roots.into_iter().rev().map(|place| place.start + blank..place.end + blank) {
                    if let Some(new) = new(&inside[place.clone()]) {
                        inside.replace_range(place, new);
                    }
                }
                renamed.extend(["${", &inside, "}"]);
            }
        }
    }
    renamed
}

/// Replaces `self` in an expression by the name of an actor.
pub fn with_self_as(value: &Value, actor: &str) -> Value {
    match value {
        Value::String(text) => {
            Value::String(renamed(text, &|name| Some(actor).filter(|actor| name == "self" && !actor.is_empty())))
        }
        other => other.clone(),
    }
}

/// Returns the expression for a part of the value of a name, by the members and items that lead to it.
pub fn member(name: &str, path: &[PathSegment]) -> String {
    let step = |segment: &PathSegment| match segment {
        PathSegment::Member(name) if is_identifier(name) => format!(".{name}"),
        PathSegment::Member(name) => format!("[{}]", Value::from(name.as_str())),
        PathSegment::Index(index) => format!("[{index}]"),
    };
    format!("${{{name}{}}}", path.iter().map(step).collect::<String>())
}

/// The settings that are known before a run. Nothing else has a value then.
pub struct Settings {
    hub: Value,
    world: Arc<FunctionContext>,
}

impl Settings {
    pub fn new(settings: Map<String, Value>) -> Self {
        Self { hub: Value::Object(settings), world: Arc::new(FunctionContext::new("case")) }
    }

    /// Returns the value of a text, if the settings are all that its expressions use.
    pub fn evaluated(&self, text: &str) -> Option<Value> {
        if varies(text) {
            return None;
        }
        let node = SyntaxNode::from_json(&Value::from(text), nowhere());
        let mut errors = Vec::new();
        let template = Template::from_node(&node, &mut errors);
        template.eval(self).ok().filter(|_| errors.is_empty())
    }

    /// Returns a message with the values of its expressions, as it is sent. A value unknown before the run is assumed
    /// to fit its place: it is the example's value there, or else a value that the schema allows.
    pub fn filled(&self, message: &MessageType, value: &Value) -> Value {
        self.filled_at(message, value, Some(&message.starting_value()), &mut Vec::new())
    }

    fn filled_at(
        &self,
        message: &MessageType,
        value: &Value,
        example: Option<&Value>,
        path: &mut Vec<String>,
    ) -> Value {
        let mut inner = |name: String, value: &Value, example: Option<&Value>| {
            path.push(name);
            let filled = self.filled_at(message, value, example, path);
            path.pop();
            filled
        };
        match value {
            Value::String(text) if !is_literal(text) => {
                let known = self.evaluated(text).or_else(|| example.cloned());
                known.unwrap_or_else(|| {
                    value::draw_value(
                        &SchemaShape::at_path(&message.schema.source, path),
                        &mut RandomSource::for_case(0, 0),
                    )
                })
            }
            Value::Array(items) => {
                let item = |(at, item)| inner(usize::to_string(&at), item, example.and_then(|example| example.get(at)));
                items.iter().enumerate().map(item).collect()
            }
            Value::Object(members) => {
                let member = |(name, member): (&String, &Value)| {
                    (name.clone(), inner(name.clone(), member, example.and_then(|example| example.get(name))))
                };
                members.iter().map(member).collect()
            }
            other => other.clone(),
        }
    }
}

impl EvalContext for Settings {
    fn lookup(&self, name: &str) -> Option<BoundValue> {
        (name == "hub").then(|| BoundValue::from_value(self.hub.clone()))
    }

    fn member(&self, name: &str, member: &str) -> Option<BoundValue> {
        Some(BoundValue::from_value(self.hub.get(member).filter(|_| name == "hub")?.clone()))
    }

    fn function_context(&self) -> &Arc<FunctionContext> {
        &self.world
    }
}

/// Returns names for the values at different JSON pointers: a word each, or the pointer itself.
pub fn loop_names<'p>(pointers: impl Iterator<Item = &'p str>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for pointer in pointers {
        let word = pointer.trim_start_matches('/').replace('/', "_");
        let is_free = is_identifier(&word) && !names.contains(&word);
        names.push(if is_free { word } else { pointer.to_owned() });
    }
    names
}

/// Returns the JSON pointer to a part of a value, by the members and items that lead to it.
pub fn pointer(path: &[PathSegment]) -> String {
    let step = |segment: &PathSegment| match segment {
        PathSegment::Member(name) => member_pointer(name),
        PathSegment::Index(index) => format!("/{index}"),
    };
    path.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("${[state.me.name, state.all]}", "${[before.me.name, before.all]}")]
    #[case("${my_state.a + it.state.b + states.c}", "${my_state.a + it.state.b + states.c}")]
    #[case("state ${ json(state) ~ 'state' }", "state ${ json(before) ~ 'state' }")]
    #[case("${state", "${state")]
    fn a_name_is_replaced_in_expressions_and_only_as_a_whole(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(renamed(text, &|name| (name == "state").then_some("before")), expected);
    }

    #[rstest]
    #[case(&[], "${it}")]
    #[case(&["a", "b_1"], "${it.a.b_1}")]
    #[case(&["", "a b", "c.d", "e\"'}", "0"], r#"${it[""]["a b"]["c.d"]["e\"'}"]["0"]}"#)]
    fn the_expression_of_a_member_has_any_name(#[case] path: &[&str], #[case] expected: &str) {
        let path: Vec<PathSegment> = path.iter().map(|name| PathSegment::Member((*name).to_owned())).collect();
        let written = member("it", &path);
        assert_eq!(written, expected);
        assert_eq!(only(&written).unwrap().pointer(), Some(("it", pointer(&path))));
    }

    #[test]
    fn the_expression_of_an_item_has_its_index() {
        let path = [PathSegment::Index(3), PathSegment::Member("id".to_owned()), PathSegment::Index(0)];
        let written = member("it", &path);
        assert_eq!(written, "${it[3].id[0]}");
        assert_eq!(only(&written).unwrap().pointer(), Some(("it", "/3/id/0".to_owned())));
    }

    #[rstest]
    #[case("${hub.p}", Some(json!({ "a": 1 })))]
    #[case("v${hub.version}", Some(json!("v2")))]
    #[case("${'${'}x}", Some(json!("${x}")))]
    #[case("${self.id}", None)]
    #[case("${uuid()}", None)]
    #[case("${hub.other}", None)]
    fn texts_with_settings_have_a_value_before_the_run(#[case] text: &str, #[case] expected: Option<Value>) {
        let settings = json!({ "p": { "a": 1 }, "version": 2 });
        assert_eq!(Settings::new(settings.as_object().unwrap().clone()).evaluated(text), expected);
    }

    #[test]
    fn values_at_different_pointers_have_different_names() {
        let pointers = ["/data/id", "/data_id", "/", "/a b", "/1"];
        assert_eq!(loop_names(pointers.into_iter()), ["data_id", "/data_id", "/", "/a b", "/1"]);
    }
}
