//! JSON templates with expressions: `${...}` alone in a scalar keeps its type, inside text it must give a string or a
//! number.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use minijinja::value::Value as Engine;
use minijinja::{Environment, ErrorKind, Expression};
use serde_json::Value;

use super::expression::{Call, ExpressionForm, ParsedExpression, PathSegment};
use super::functions::{self, CONTEXT_NAME, FunctionContext};
use super::size_limits;
use super::value::{BoundValue, EvalError, Provenance, Traced, Wire, from_engine, pick_wire};
use crate::redact::{SecretMasker, collect_texts};
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKind, NodeText, SyntaxNode};

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(functions::build_environment);

/// The names that an expression sees, and the state of its functions.
pub trait EvalContext {
    fn lookup(&self, name: &str) -> Option<BoundValue>;

    /// Returns a member of the value of a name, without copying the rest; `None` where either is missing.
    fn member(&self, name: &str, member: &str) -> Option<BoundValue> {
        self.lookup(name)?.member(member)
    }

    fn function_context(&self) -> &Arc<FunctionContext>;

    /// Whether this setting is optional and unset, so that the member it fills is left out.
    fn omits(&self, _setting: &str) -> bool {
        false
    }
}

#[derive(Debug)]
pub enum Template {
    Constant(Value),
    Expression(TemplateExpression),
    Text(Vec<TemplatePart>),
    List(Arc<[Template]>),
    Map(Vec<(String, Template)>),
}

#[derive(Debug)]
pub enum TemplatePart {
    Literal(String),
    Expression(TemplateExpression),
}

#[derive(Debug)]
pub struct TemplateExpression {
    pub source: String,
    pub span: Span,
    parsed: Box<ParsedExpression>,
    /// `None` for a path, which is looked up without the engine: the engine would lose large integers and the order of
    /// members.
    engine: Option<Box<Expression<'static, 'static>>>,
    /// Free names that the expression uses, dotted: `hub.version`, `anna.name`, `i`. They include functions, and the
    /// settings that these use.
    pub uses: Vec<String>,
}

impl Template {
    pub fn from_node(node: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) -> Self {
        match &node.kind {
            NodeKind::Text(text) => Self::from_node_text(text, node.span, diagnostics),
            NodeKind::List(items) => {
                let items: Arc<[_]> = items.iter().map(|item| Self::from_node(item, diagnostics)).collect();
                if items.iter().all(Template::is_constant) { Self::Constant(node.to_json()) } else { Self::List(items) }
            }
            NodeKind::Map(entries) => {
                let mut members = Vec::new();
                for (key, value) in entries {
                    if key.name.contains("${") {
                        diagnostics.push(
                            Diagnostic::error(key.span, "a key cannot contain an expression")
                                .help("only values can; write the key out"),
                        );
                    }
                    members.push((key.name.clone(), Self::from_node(value, diagnostics)));
                }
                if members.iter().all(|(_, m)| m.is_constant()) {
                    Self::Constant(node.to_json())
                } else {
                    Self::Map(members)
                }
            }
            _ => Self::Constant(node.to_json()),
        }
    }

    fn from_node_text(text: &NodeText, span: Span, diagnostics: &mut Vec<Diagnostic>) -> Self {
        match split_parts(text, span, diagnostics).map(<[TemplatePart; 1]>::try_from) {
            Some(Ok([TemplatePart::Expression(expression)])) => Self::Expression(expression),
            Some(Err(parts)) if !parts.is_empty() => Self::Text(parts),
            _ => Self::Constant(Value::String(text.value.clone())),
        }
    }

    pub fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }

    pub fn constant(&self) -> Option<&Value> {
        match self {
            Self::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// Calls `visit` for every expression in the template.
    pub fn visit_expressions<'a>(&'a self, visit: &mut dyn FnMut(&'a TemplateExpression)) {
        match self {
            Self::Constant(_) => {}
            Self::Expression(expression) => visit(expression),
            Self::Text(parts) => parts.iter().for_each(|part| {
                if let TemplatePart::Expression(expression) = part {
                    visit(expression);
                }
            }),
            Self::List(items) => items.iter().for_each(|item| item.visit_expressions(visit)),
            Self::Map(members) => members.iter().for_each(|(_, member)| member.visit_expressions(visit)),
        }
    }

    /// Returns where the first expression is.
    pub fn first_span(&self) -> Option<Span> {
        let mut first = None;
        self.visit_expressions(&mut |expression| first = first.or(Some(expression.span)));
        first
    }

    /// Like [`Template::eval`], but the value keeps the wire of a frame that it comes from, so that values from the hub
    /// can be recognised.
    pub fn eval_bound(&self, names: &dyn EvalContext) -> Result<BoundValue, EvalError> {
        match self {
            Self::Expression(expression) => expression.eval_bound(names),
            Self::List(items) => {
                let items: Vec<BoundValue> =
                    items.iter().map(|item| item.eval_bound(names)).collect::<Result<_, _>>()?;
                let list = BoundValue::Many { items, ordered: true };
                Ok(if list.wires().is_empty() { BoundValue::from_value(list.to_json()) } else { list })
            }
            other => Ok(BoundValue::One { value: other.eval(names)?, wire: other.wire(names) }),
        }
    }

    /// Like [`Template::eval`], but the value keeps its provenance.
    pub fn eval_traced(&self, names: &dyn EvalContext) -> Result<Traced<Value>, EvalError> {
        Ok(Traced { value: self.eval(names)?, provenance: self.provenance(names) })
    }

    /// Returns whether all frames that the template uses were observed.
    pub fn provenance(&self, names: &dyn EvalContext) -> Provenance {
        self.wire(names).map_or(Provenance::Observed, |wire| wire.provenance)
    }

    /// Returns the wire of a frame that the template uses: an assumed frame if there is any, or else a frame from the
    /// hub.
    pub fn wire(&self, names: &dyn EvalContext) -> Option<Arc<Wire>> {
        pick_wire(self.wires(names))
    }

    /// Returns the wires of all frames that the template uses.
    pub fn wires(&self, names: &dyn EvalContext) -> Vec<Arc<Wire>> {
        let mut wires = Vec::new();
        self.visit_expressions(&mut |expression| wires.extend(expression.wires(names)));
        wires
    }

    /// Like [`Template::eval`], but the value becomes text: an expression must give text or a number.
    pub fn eval_text(&self, names: &dyn EvalContext) -> Result<String, EvalError> {
        match self {
            Self::Expression(expression) => expression.text(names),
            other => other.eval(names).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        }
    }

    pub fn eval(&self, names: &dyn EvalContext) -> Result<Value, EvalError> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Expression(expression) => expression.eval(names),
            Self::Text(parts) => {
                let part = |part: &TemplatePart| match part {
                    TemplatePart::Literal(literal) => Ok(literal.clone()),
                    TemplatePart::Expression(expression) => expression.text(names),
                };
                parts.iter().map(part).collect::<Result<_, _>>().map(Value::String)
            }
            Self::List(items) => items.iter().map(|item| item.eval(names)).collect::<Result<_, _>>().map(Value::Array),
            Self::Map(members) => {
                let omitted = |member: &Template| match member {
                    Self::Expression(expression) => expression.setting().is_some_and(|setting| names.omits(setting)),
                    _ => false,
                };
                let kept = members.iter().filter(|(_, member)| !omitted(member));
                kept.map(|(name, member)| Ok((name.clone(), member.eval(names)?)))
                    .collect::<Result<_, _>>()
                    .map(Value::Object)
            }
        }
    }
}

impl TemplateExpression {
    /// Compiles an expression. `at` is the span of the inside of `${}`, if the file has it there byte for byte.
    pub fn compile(source: &str, span: Span, at: Option<Span>) -> Result<Self, Diagnostic> {
        let blank = source.len() - source.trim_start().len();
        let source = source.trim().to_owned();
        let at = at.map(|at| at.subspan(blank..blank + source.len()));
        let (span, exact) = (at.unwrap_or(span), at.is_some());
        let place = |range: Range<usize>| if exact { span.subspan(range) } else { span };
        let failed = |error: minijinja::Error| {
            let place = error.range().map_or(span, place);
            let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            let shown = crate::syntax::matcher::shorten(&source, SHOWN);
            Diagnostic::error(place, format!("`${{{shown}}}` is not an expression: {detail}")).help(
                "expressions use the syntax of minijinja; docs/src/scenario-language.md lists names and functions",
            )
        };
        let parsed = Box::new(ParsedExpression::parse(&source).map_err(failed)?);
        let mut uses: Vec<String> = parsed.uses().into_iter().map(str::to_owned).collect();
        if matches!(parsed.form, ExpressionForm::Path(..)) {
            return Ok(Self { source, span, parsed, engine: None, uses });
        }
        let engine = ENVIRONMENT.compile_expression_owned(source.clone()).map_err(failed)?;
        if let Some((range, what, known)) = parsed.unknown_filter_or_test(&source, &ENVIRONMENT) {
            let name = &source[range.clone()];
            return Err(Diagnostic::error(place(range.clone()), format!("there is no {what} `{name}`")).help(suggest(
                name,
                known.iter().copied(),
                "filters and tests are those of minijinja; docs/src/scenario-language.md lists the functions",
            )));
        }
        if parsed.calls.iter().any(functions::uses_credentials) {
            uses.extend(functions::CREDENTIAL_SETTINGS.map(|name| format!("hub.{name}")));
        }
        Ok(Self { source, span, parsed, engine: Some(Box::new(engine)), uses })
    }

    /// Whether the span covers the source byte for byte, so that a caret can point into it; otherwise the span is the
    /// whole scalar.
    fn is_at_span(&self) -> bool {
        self.span.range().len() == self.source.len()
    }

    /// Returns the span of one piece of a dotted name: in `anna.helo.uuid`, piece 1 is `helo`.
    pub fn place(&self, dotted: &str, piece: usize) -> Span {
        let found = self.parsed.names.iter().find(|name| {
            let rest = name.dotted.strip_prefix(dotted);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        match found.and_then(|name| name.pieces.get(piece)) {
            Some(place) if self.is_at_span() => self.span.subspan(place.clone()),
            _ => self.span,
        }
    }

    /// Returns the span of a range in the source.
    pub fn span_of(&self, range: &Range<usize>) -> Span {
        if self.is_at_span() { self.span.subspan(range.clone()) } else { self.span }
    }

    /// Returns what the source contains.
    pub fn parsed(&self) -> &ParsedExpression {
        &self.parsed
    }

    /// Returns the name if the expression consists of a name only.
    pub fn bare_name(&self) -> Option<&str> {
        match &self.parsed.form {
            ExpressionForm::Path(root, segments) if segments.is_empty() => Some(root),
            _ => None,
        }
    }

    /// Returns the name and the JSON pointer into its value if the expression is a path.
    pub fn pointer(&self) -> Option<(&str, String)> {
        let ExpressionForm::Path(root, segments) = &self.parsed.form else { return None };
        let pieces = segments.iter().map(|segment| match segment {
            PathSegment::Member(name) => crate::syntax::matcher::member_pointer(name),
            PathSegment::Index(index) => format!("/{index}"),
        });
        Some((root, pieces.collect()))
    }

    /// Returns the name of the setting if the expression consists of a setting only: `hub.NAME`.
    pub fn setting(&self) -> Option<&str> {
        match &self.parsed.form {
            ExpressionForm::Path(root, segments) if root == "hub" => match segments.as_slice() {
                [PathSegment::Member(name)] => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns the call if the expression consists of a call only.
    pub fn call(&self) -> Option<&Call> {
        self.parsed.calls.first().filter(|_| matches!(self.parsed.form, ExpressionForm::Call))
    }

    /// Whether the expression calls a function.
    pub fn calls(&self, function: &str) -> bool {
        self.parsed.calls(function)
    }

    /// Whether the expression adds values.
    pub fn adds(&self) -> bool {
        self.parsed.adds
    }

    /// Returns the ranges in the source of the free names of the expression, without their members.
    pub fn roots(&self) -> Vec<Range<usize>> {
        self.parsed.names.iter().filter_map(|name| name.pieces.first().cloned()).collect()
    }

    /// Whether each evaluation may give a different value although no name has changed.
    pub fn varies(&self) -> bool {
        self.parsed.calls.iter().any(|call| functions::VARYING.contains(&call.function.as_str()))
    }

    /// Whether the expression tests if a dotted name is defined, so that it may be undefined.
    pub fn asks(&self, dotted: &str) -> bool {
        self.parsed.tests(dotted)
    }

    /// Whether the expression tests if a name, or a member of it, is defined.
    pub fn asks_root(&self, root: &str) -> bool {
        self.parsed.tests_root(root)
    }

    /// Whether a dotted name is used only by a function that the expression calls.
    pub fn implies(&self, dotted: &str) -> bool {
        self.parsed.names.iter().all(|name| name.dotted != dotted)
    }

    pub fn eval(&self, names: &dyn EvalContext) -> Result<Value, EvalError> {
        if let ExpressionForm::Path(root, segments) = &self.parsed.form {
            return self.path_value(root, segments, names).map(|bound| bound.to_json());
        }
        let Some(engine) = &self.engine else { return Err(EvalError::Missing(format!("`{}`", self.source))) };
        let functions = names.function_context();
        let inputs = self.inputs(names);
        size_limits::check_operators(&self.source, self.parsed.repeats, &inputs).map_err(EvalError::Failed)?;
        functions.allot_memory();
        let value = engine.eval(self.engine_context(names)?).map_err(|error| {
            // A function was called with a name that no step of the scene has bound.
            let unbound = self.unbound_member(names).filter(|_| error.kind() != ErrorKind::UndefinedError);
            unbound.map_or_else(|| self.to_eval_error(&error), EvalError::Unbound)
        })?;
        let value = from_engine(&value, &self.source)?;
        self.learn_secrets(&value, &inputs, functions.masker());
        Ok(value)
    }

    /// Returns the values of the names that the expression uses, including a key that signs its tokens.
    fn inputs(&self, names: &dyn EvalContext) -> Vec<Value> {
        let signs = self.parsed.calls.iter().any(|call| call.function == "jwt" && functions::uses_credentials(call));
        let keys = functions::CREDENTIAL_SETTINGS.into_iter().filter(|_| signs).map(|name| ("hub", Some(name)));
        let used = self.parsed.uses().into_iter().map(|dotted| {
            let mut pieces = dotted.split('.');
            (pieces.next().unwrap_or_default(), pieces.next())
        });
        let bound = used.chain(keys).filter_map(|(root, member)| match member {
            Some(member) => names.member(root, member),
            None => names.lookup(root),
        });
        bound.map(|bound| bound.to_json()).collect()
    }

    /// Makes the texts of a value secret that were made from a secret: a token, a hash, a piece.
    fn learn_secrets(&self, value: &Value, inputs: &[Value], masker: &SecretMasker) {
        if !masker.is_learning() {
            return;
        }
        let inputs: Vec<String> = inputs.iter().flat_map(collect_texts).collect();
        if !inputs.iter().any(|text| masker.finds_in(text)) {
            return;
        }
        for text in collect_texts(value) {
            // A part that was not secret, such as the name of a user beside the user's token, is not secret now.
            if text.len() > 1 && !inputs.contains(&text) && !self.source.contains(&text) {
                masker.add(&text);
            }
        }
    }

    /// Evaluates an expression inside text.
    fn text(&self, names: &dyn EvalContext) -> Result<String, EvalError> {
        match self.eval(names)? {
            Value::String(text) => Ok(text),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(EvalError::Failed(format!(
                "`${{{0}}}` inside text gives {other}, which is neither text nor a number; `${{json({0})}}` gives its JSON text",
                self.source
            ))),
        }
    }

    fn eval_bound(&self, names: &dyn EvalContext) -> Result<BoundValue, EvalError> {
        match &self.parsed.form {
            ExpressionForm::Path(root, segments) => self.path_value(root, segments, names),
            _ => Ok(BoundValue::One { value: self.eval(names)?, wire: pick_wire(self.wires(names)) }),
        }
    }

    /// Returns the wires of all frames that the expression uses, as far as its names show: for `anna.hello.uuid`, the
    /// wire of `hello`.
    fn wires(&self, names: &dyn EvalContext) -> Vec<Arc<Wire>> {
        let mut wires = Vec::new();
        for used in &self.uses {
            let mut pieces = used.split('.');
            let Some(root) = pieces.next() else { continue };
            let Some(mut bound) = pieces.next().and_then(|first| names.member(root, first)) else {
                // If there is no such member, the whole value counts.
                wires.extend(names.lookup(root).iter().flat_map(BoundValue::wires));
                continue;
            };
            for piece in pieces {
                let Some(member) = bound.member(piece) else { break };
                bound = member;
            }
            wires.extend(bound.wires());
        }
        wires
    }

    fn path_value(
        &self,
        root: &str,
        segments: &[PathSegment],
        names: &dyn EvalContext,
    ) -> Result<BoundValue, EvalError> {
        let missing = || EvalError::Missing(format!("`{}`", self.source));
        let (mut value, segments) = match segments {
            [PathSegment::Member(first), rest @ ..] => match names.member(root, first) {
                Some(part) => (part, rest),
                None if names.lookup(root).is_none() => return Err(EvalError::Unbound(root.to_owned())),
                None => return Err(missing()),
            },
            whole => (names.lookup(root).ok_or_else(|| EvalError::Unbound(root.to_owned()))?, whole),
        };
        for segment in segments {
            let next = match segment {
                PathSegment::Member(name) => value.member(name),
                PathSegment::Index(index) => value.item(*index),
            };
            value = next.ok_or_else(|| match (segment, value.to_json()) {
                (PathSegment::Member(name), Value::Array(_) | Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
                    EvalError::Failed(format!(
                        "`${{{}}}`: `{name}` is a member of something that is not an object",
                        self.source
                    ))
                }
                _ => missing(),
            })?;
        }
        Ok(value)
    }

    fn engine_context(&self, names: &dyn EvalContext) -> Result<Engine, EvalError> {
        let mut context: BTreeMap<&str, Engine> = BTreeMap::new();
        for used in &self.uses {
            let root = used.split('.').next().unwrap_or(used);
            if context.contains_key(root)
                || functions::FUNCTION_NAMES.contains(&root)
                || ENGINE_FUNCTIONS.contains(&root)
            {
                continue;
            }
            match names.lookup(root) {
                Some(bound) => {
                    // Convert only those members of an actor that are used, since the frames of its opening may be
                    // large.
                    let uses = self.uses.iter().map(|used| used.split_once('.').unwrap_or((used, "")));
                    let members: Vec<&str> = uses.filter(|(name, _)| *name == root).map(|(_, member)| member).collect();
                    context.insert(root, bound.to_engine_for(&members));
                }
                None if self.asks_root(root) => {}
                None => return Err(EvalError::Unbound(root.to_owned())),
            }
        }
        context.insert(CONTEXT_NAME, Engine::from_dyn_object(Arc::clone(names.function_context())));
        Ok(Engine::from_pairs(context))
    }

    /// Returns a dotted name of the expression that a scene or an opening has not bound.
    fn unbound_member(&self, names: &dyn EvalContext) -> Option<String> {
        let mut members = self.uses.iter().filter_map(|used| {
            let mut parts = used.split('.');
            Some((parts.next()?, parts.next()?))
        });
        let is_unbound = |(root, member): &(&str, &str)| matches!(names.lookup(root), Some(BoundValue::Scene(bound)) if !bound.contains_key(*member));
        members.find(is_unbound).map(|(root, member)| format!("{root}.{member}"))
    }

    fn to_eval_error(&self, error: &minijinja::Error) -> EvalError {
        match error.kind() {
            ErrorKind::UndefinedError => EvalError::Missing(format!("a value in `{}`", self.source)),
            kind => {
                let why = error.detail().map_or_else(|| kind.to_string(), str::to_owned);
                let what = format!("`${{{}}}`: {why}", self.source);
                match kind {
                    ErrorKind::UnknownTest | ErrorKind::UnknownFilter | ErrorKind::UnknownFunction => {
                        EvalError::Mistake(what)
                    }
                    _ => EvalError::Failed(what),
                }
            }
        }
    }
}

/// Functions of the engine itself that scenarios may use.
pub const ENGINE_FUNCTIONS: [&str; 3] = ["range", "dict", "namespace"];

/// Maximum number of characters of an expression that an error shows.
const SHOWN: usize = 200;

/// A piece of a text with expressions, by its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Literal(Range<usize>),
    /// The inside of a `${...}`.
    Expression(Range<usize>),
}

/// Splits a text at each `${` and its `}`; brackets and quotes inside are balanced. The error is the position of a `${`
/// that is never closed.
pub fn pieces(text: &str) -> Result<Vec<Piece>, usize> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${").map(|found| at + found) {
        if found > at {
            pieces.push(Piece::Literal(at..found));
        }
        let inside = placeholder(&text[found..]).ok_or(found)?;
        at = found + inside.end + 1;
        pieces.push(Piece::Expression(found + inside.start..found + inside.end));
    }
    if at < text.len() {
        pieces.push(Piece::Literal(at..text.len()));
    }
    Ok(pieces)
}

/// Returns the range of the inside of the `${...}` with which a text begins.
pub fn placeholder(text: &str) -> Option<Range<usize>> {
    let inside = text.strip_prefix("${")?;
    Some(2..2 + find_closing_brace(inside)?)
}

/// Returns a text as a scenario writes it, in which `${` begins an expression.
pub fn escape_expressions(text: &str) -> String {
    text.replace("${", "${'${'}")
}

/// Returns a value as a scenario writes it, with all its texts escaped.
pub fn escape_texts(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(escape_expressions(text)),
        Value::Array(items) => items.iter().map(escape_texts).collect(),
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), escape_texts(member))).collect(),
        other => other.clone(),
    }
}

/// Compiles a text with expressions. `None` after an error, which is in `diagnostics`.
fn split_parts(text: &NodeText, span: Span, diagnostics: &mut Vec<Diagnostic>) -> Option<Vec<TemplatePart>> {
    let found = match pieces(&text.value) {
        Ok(found) => found,
        Err(at) => {
            let at = text.inner.map_or(span, |inner| inner.subspan(at..at + 2));
            let help = "write `${name}`; brackets and quotes inside must be closed first";
            diagnostics.push(Diagnostic::error(at, "`${` has no closing `}`").help(help));
            return None;
        }
    };
    let mut compiled = |piece| match piece {
        Piece::Literal(range) => Some(TemplatePart::Literal(text.value[range].to_owned())),
        Piece::Expression(range) => {
            let at = text.inner.map(|inner| inner.subspan(range.clone()));
            let expression = TemplateExpression::compile(&text.value[range], at.unwrap_or(span), at);
            expression.map(TemplatePart::Expression).map_err(|diagnostic| diagnostics.push(diagnostic)).ok()
        }
    };
    found.into_iter().map(&mut compiled).collect()
}

/// Returns the position of the `}` that ends an expression.
fn find_closing_brace(inside: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '{' | '[' | '(') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}' | ']' | ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    struct TableContext(BTreeMap<String, BoundValue>, Arc<FunctionContext>);

    impl EvalContext for TableContext {
        fn lookup(&self, name: &str) -> Option<BoundValue> {
            self.0.get(name).cloned()
        }

        fn function_context(&self) -> &Arc<FunctionContext> {
            &self.1
        }
    }

    fn eval_source(source: &str) -> Result<Value, String> {
        let mut sources = crate::syntax::source::Sources::default();
        let file = sources.add("t.yaml", source);
        let node = crate::syntax::yaml::parse(&sources, file).map_err(|d| d.message)?;
        let mut diagnostics = Vec::new();
        let template = Template::from_node(&node, &mut diagnostics);
        if let Some(diagnostic) = diagnostics.first() {
            return Err(diagnostic.message.clone());
        }
        let functions = Arc::new(FunctionContext::new("run"));
        functions.set_now_ms(1_642_248_600_123);
        let names = [
            ("hello", json!({"uuid": "u", "n": 9007199254740993u64, "seqs": [1, 2, 4]})),
            ("list", json!([{"seq": 3}, {"seq": 4}, {"none": 0}])),
            ("hub", json!({"version": "0.1.9", "timeout": 5})),
        ];
        template
            .eval(&TableContext(names.map(|(k, v)| (k.to_owned(), BoundValue::from_value(v))).into(), functions))
            .map_err(|e| e.to_string())
    }

    #[rstest]
    #[case(r#""${hello.uuid}""#, json!("u"))]
    #[case(r#""${hello.n}""#, json!(9007199254740993u64))]
    #[case(r#""${hello.seqs[2]}""#, json!(4))]
    #[case(r#""a ${hello.uuid} b ${1 + 1}""#, json!("a u b 2"))]
    #[case(r#"{ x: ["${hub.timeout * 0.8}"], y: 1 }"#, json!({"x": [4.0], "y": 1}))]
    #[case(r#""${hub.timeout + 3}s""#, json!("8s"))]
    #[case(r#""${repeat('x', hub.timeout * 3000000 // 3000000)}""#, json!("xxxxx"))]
    #[case(r#""${differences(hello.seqs)}""#, json!([1, 2]))]
    #[case(r#""${ {'a': {'b': hello.uuid}} }""#, json!({"a": {"b": "u"}}))]
    #[case(r#""${next_version(hub.version, 'patch')}""#, json!("0.1.10"))]
    #[case(r#""${now_ms()}""#, json!(1_642_248_600_123i64))]
    #[case(r#""${now_iso()}""#, json!("2022-01-15T12:10:00.123Z"))]
    #[case(r#""${epoch_ms('2022-01-15T12:10:00.123Z')}""#, json!(1_642_248_600_123i64))]
    #[case(r#""${epoch_ms('2022-W02-6T12:10:00.123Z')}""#, json!(1_642_248_600_123i64))]
    #[case(r#""${epoch_ms('2022015T141000.123+0200')}""#, json!(1_642_248_600_123i64))]
    #[case(r#""${unique('x')}""#, json!("xrunx0"))]
    #[case(r#""${chunks('abcde', 2)}""#, json!(["ab", "cde"]))]
    #[case(r#""${unbase64([base64('ab'), 'w6k='])}""#, json!("abé"))]
    #[case(r#""${json(hello.seqs)}""#, json!("[1,2,4]"))]
    #[case(r#""${sha256('')}""#, json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))]
    #[case(r#""${jwt({'sub': 'u'}, key='k')}""#, json!("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.VXe8dINoHYfQ4SQPpgAnBuNqJJzyXTMYGkFbkQZ2avs"))]
    #[case(r#""${jwt({'sub': 'u'}, key='k', alg='HS384')}""#, json!("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzM4NCJ9.eyJzdWIiOiJ1In0.cVibGf1wWErDH4_giD8Azn0ztnMXH9AuAZyJLkwKHoR5TLggtb4sjVY4w5aKYOqx"))]
    #[case(r#""${jwt({'sub': 'u'}, key='k', alg='HS512')}""#, json!("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJ1In0.ZVTtveXBmT5HpXoYZOxPFuIukjsXcOgFRzkZhN0aNqtHAc7aJTXCNXnKuQTfDysj9rW_C939x1XdLnDSGkxXig"))]
    #[case(r#""${jwt({'sub': 'u'}, alg='none')}""#, json!("eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0."))]
    #[case(r#""${'}' ~ hello.uuid}""#, json!("}u"))]
    #[case(r#""${missing is not defined}""#, json!(true))]
    #[case(r#""${hello['n']}""#, json!(9007199254740993u64))]
    // Products of numbers, however large, make no text.
    #[case(r#""${hello.n - 1000 * (hello.lacks | default(0)) - 1000 * (hello.n - hello.n | int)}""#, json!(9007199254740993u64))]
    #[case(r#""${hello.seqs[1:] | length}""#, json!(2))]
    #[case("'{{ kept }} $5'", json!("{{ kept }} $5"))]
    fn templates_are_evaluated_to_values(#[case] source: &str, #[case] expected: Value) {
        assert_eq!(eval_source(source), Ok(expected));
    }

    /// What a scene would have bound in steps that were not reached is no mistake of the expression that asks for it.
    #[rstest]
    #[case("play.answered.at")]
    #[case("wire(play.answered).at - wire(play.asked).at")]
    #[case("sha256(play.answered)")]
    fn a_name_that_a_scene_did_not_bind_is_unbound(#[case] source: &str) {
        let play = BoundValue::Scene([("asked".to_owned(), BoundValue::from_value(json!({})))].into());
        let names = TableContext([("play".to_owned(), play)].into(), Arc::new(FunctionContext::new("run")));
        let span = Span::new(crate::syntax::source::Sources::default().add("t.yaml", source), 0..0);
        let error = TemplateExpression::compile(source, span, None).unwrap().eval(&names).unwrap_err();
        let unbound = matches!(&error, EvalError::Unbound(name) if name == "play.answered");
        assert!(unbound || matches!(error, EvalError::Missing(_)), "{error}");
    }

    #[rstest]
    #[case("jwt({'sub': me})", true)]
    #[case("jwt({'sub': me}, monkey='k')", true)]
    #[case("jwt({'sub': monkey})", true)]
    #[case("jwt({'sub': 'none'})", true)]
    #[case("jwt({'sub': me}, alg='HS384')", true)]
    #[case("[jwt({}, key='k'), jwt({})]", true)]
    #[case("next_user()", true)]
    #[case("jwt({'sub': me}, key='k')", false)]
    #[case("jwt({'sub': me}, alg='none')", false)]
    #[case("'jwt(' ~ monkey", false)]
    fn a_token_without_a_key_of_its_own_needs_one_of_the_target(#[case] source: &str, #[case] needs: bool) {
        let span = Span::new(crate::syntax::source::Sources::default().add("t.yaml", ""), 0..0);
        let expression = TemplateExpression::compile(source, span, None).unwrap();
        assert_eq!(expression.uses.iter().any(|used| used == "hub.jwt_secret"), needs);
    }

    #[test]
    fn a_text_that_doubles_ends_with_an_error() {
        let compile = |source| {
            let span = Span::new(crate::syntax::source::Sources::default().add("t.yaml", ""), 0..0);
            TemplateExpression::compile(source, span, None).unwrap()
        };
        let mut value = Value::from("a");
        for doubled in ["a ~ a", "a + a", "a * 2"].map(compile) {
            for round in 0.. {
                let names = [("a".to_owned(), BoundValue::from_value(value.clone()))].into();
                match doubled.eval(&TableContext(names, Arc::new(FunctionContext::new("run")))) {
                    Ok(twice) => value = twice,
                    Err(error) => {
                        assert!(error.to_string().contains("MiB"), "{error}");
                        break;
                    }
                }
                assert!(round < 30);
            }
            value = Value::from("a");
        }
    }

    #[rstest]
    #[case(r#""${hello.nothing}""#, "`hello.nothing` is missing")]
    #[case(r#""${list | map(attribute='seq')}""#, "is missing")]
    #[case(r#""${unbound.x}""#, "`unbound` was never bound")]
    #[case(r#""${' defined' ~ unbound}""#, "`unbound` was never bound")]
    #[case(r#""${1 +}""#, "not an expression")]
    #[case(r#""${hello""#, "no closing")]
    #[case(r#""x ${hello.seqs}""#, "neither text nor a number")]
    #[case(r#""${repeat('xxxxxxxxxx', 100000000)}""#, "more than 64 MiB")]
    #[case(r#""${'a' | indent(2000000000)}""#, "there is no filter `indent`")]
    #[case(r#""${'%2000000000d' | format(1)}""#, "there is no filter `format`")]
    #[case(r#""${[1] | batch(2000000000, 0) | list}""#, "there is no filter `batch`")]
    #[case(r#""${[1] | slice(2000000000) | list}""#, "there is no filter `slice`")]
    #[case(r#""${[1] | tojson(indent=2000000000)}""#, "there is no filter `tojson`")]
    #[case(r#""${repeat('a', 9999) | replace('a', repeat('b', 99999))}""#, "more than 64 MiB")]
    #[case(r#""${range(99999) | join(repeat('b', 99999))}""#, "more than 64 MiB")]
    #[case(r#""${([repeat('b', 99999)] * 99999) | join}""#, "more than 64 MiB")]
    #[case(r#""${([repeat('b', 99999)] * 99999) | string}""#, "more than 64 MiB")]
    #[case(r#""${[repeat('b', 99999)] * 99999}""#, "more than 64 MiB")]
    #[case(r#""${json([repeat('b', 99999)] * 99999)}""#, "more than 64 MiB")]
    #[case(r#""${([repeat('b', 99999)] * 99999) | map('upper') | list | length}""#, "more than 64 MiB")]
    #[case(r#""${repeat('a', 9000000) | list | length}""#, "more than 64 MiB")]
    #[case(r#""${(1, 2) * 90000000 | length}""#, "more than 256 MiB")]
    #[case(r#""${'a' * 99999 * 99999}""#, "more than 256 MiB")]
    #[case(
        r#""${jwt({}, key='k', alg='RS256')}""#,
        "cannot sign with \"RS256\": alg must be HS256, HS384, HS512 or none"
    )]
    fn a_failed_evaluation_is_reported_with_its_cause(#[case] source: &str, #[case] expected: &str) {
        let error = eval_source(source).expect_err("fails");
        assert!(error.contains(expected), "{error}");
    }
}
