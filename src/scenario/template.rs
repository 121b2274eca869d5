//! JSON templates with expressions: `${...}` alone in a scalar keeps its type, inside text it must give a string or a
//! number.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use minijinja::value::Value as Engine;
use minijinja::{Environment, Expression};
use serde_json::Value;

use super::expression;
use super::functions::{self, WORLD, World};
use super::value::{Bound, EvalError, Wire, from_engine};
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::source::Span;
use crate::syntax::yaml::{Kind, Node, Text};

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(functions::environment);

/// The names that an expression sees, and the state of its functions.
pub trait Names {
    fn lookup(&self, name: &str) -> Option<Bound>;

    /// Returns a member of the value of a name, without copying the rest; `None` where either is missing.
    fn member(&self, name: &str, member: &str) -> Option<Bound> {
        self.lookup(name)?.member(member)
    }

    fn world(&self) -> &Arc<World>;

    /// Whether this expression is an optional setting that is unset: the member it fills is left out.
    fn omits(&self, source: &str) -> bool {
        let _ = source;
        false
    }
}

#[derive(Debug)]
pub enum Template {
    Constant(Value),
    Expression(Expr),
    Text(Vec<Part>),
    List(Arc<[Template]>),
    Map(Vec<(String, Template)>),
}

#[derive(Debug)]
pub enum Part {
    Literal(String),
    Expression(Expr),
}

#[derive(Debug)]
pub struct Expr {
    pub source: String,
    pub span: Span,
    form: Form,
    /// Free names that the expression uses, dotted: `hub.version`, `anna.name`, `i`.
    pub uses: Vec<String>,
}

enum Form {
    /// `a.b[0].c`: looked up without the engine, which would lose large integers and the order of members.
    Path(String, Vec<Segment>),
    Engine(Expression<'static, 'static>),
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Path(..) => "Path",
            Self::Engine(_) => "Engine",
        })
    }
}

#[derive(Debug)]
enum Segment {
    Member(String),
    Index(usize),
}

impl Template {
    pub fn read(node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Self {
        match &node.kind {
            Kind::Text(text) => Self::text(text, node.span, diagnostics),
            Kind::List(items) => {
                let items: Arc<[_]> = items.iter().map(|item| Self::read(item, diagnostics)).collect();
                if items.iter().all(Template::is_constant) { Self::Constant(node.to_json()) } else { Self::List(items) }
            }
            Kind::Map(entries) => {
                let mut members = Vec::new();
                for (key, value) in entries {
                    if key.name.contains("${") {
                        diagnostics.push(
                            Diagnostic::error(key.span, "a key cannot hold an expression")
                                .help("only values do; write the key out"),
                        );
                    }
                    members.push((key.name.clone(), Self::read(value, diagnostics)));
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

    fn text(text: &Text, span: Span, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let Some(parts) = split(text, span, diagnostics) else {
            return Self::Constant(Value::String(text.value.clone()));
        };
        match parts.as_slice() {
            [] => Self::Constant(Value::String(String::new())),
            [Part::Literal(_)] => Self::Constant(Value::String(text.value.clone())),
            [Part::Expression(_)] => match parts.into_iter().next() {
                Some(Part::Expression(expression)) => Self::Expression(expression),
                _ => Self::Constant(Value::Null),
            },
            _ => Self::Text(parts),
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
    pub fn expressions<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr)) {
        match self {
            Self::Constant(_) => {}
            Self::Expression(expression) => visit(expression),
            Self::Text(parts) => parts.iter().for_each(|part| {
                if let Part::Expression(expression) = part {
                    visit(expression);
                }
            }),
            Self::List(items) => items.iter().for_each(|item| item.expressions(visit)),
            Self::Map(members) => members.iter().for_each(|(_, member)| member.expressions(visit)),
        }
    }

    /// Like [`Template::eval`], but the value keeps the wire of a frame that it comes from, so that values from the hub are
    /// known as such.
    pub fn eval_bound(&self, names: &dyn Names) -> Result<Bound, EvalError> {
        match self {
            Self::Expression(expression) => expression.eval_bound(names),
            Self::List(items) => {
                let items: Vec<Bound> = items.iter().map(|item| item.eval_bound(names)).collect::<Result<_, _>>()?;
                let list = Bound::Many { items, ordered: true };
                Ok(if list.wires().is_empty() { Bound::plain(list.to_json()) } else { list })
            }
            other => Ok(Bound::One { value: other.eval(names)?, wire: other.wire(names) }),
        }
    }

    /// Returns the wire of a frame that the template uses: one from the hub if there is any.
    pub fn wire(&self, names: &dyn Names) -> Option<Arc<Wire>> {
        let mut wires = Vec::new();
        self.expressions(&mut |expression| wires.extend(expression.wires(names)));
        one_of(wires)
    }

    pub fn eval(&self, names: &dyn Names) -> Result<Value, EvalError> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Expression(expression) => expression.eval(names),
            Self::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Literal(literal) => text.push_str(literal),
                        Part::Expression(expression) => match expression.eval(names)? {
                            Value::String(value) => text.push_str(&value),
                            Value::Number(number) => text.push_str(&number.to_string()),
                            other => {
                                return Err(EvalError::Failed(format!(
                                    "`${{{}}}` inside text gives {other}, which is neither text nor a number",
                                    expression.source
                                )));
                            }
                        },
                    }
                }
                Ok(Value::String(text))
            }
            Self::List(items) => items.iter().map(|item| item.eval(names)).collect::<Result<_, _>>().map(Value::Array),
            Self::Map(members) => {
                let omitted = |member: &Template| matches!(member, Self::Expression(expression) if names.omits(&expression.source));
                let kept = members.iter().filter(|(_, member)| !omitted(member));
                kept.map(|(name, member)| Ok((name.clone(), member.eval(names)?)))
                    .collect::<Result<_, _>>()
                    .map(Value::Object)
            }
        }
    }
}

impl Expr {
    /// Compiles an expression. `at` is where the inside of `${}` stands, if it stands there byte for byte.
    pub fn compile(source: &str, span: Span, at: Option<Span>) -> Result<Self, Diagnostic> {
        let blank = source.len() - source.trim_start().len();
        let source = source.trim().to_owned();
        let at = at.map(|at| at.part(blank..blank + source.len()));
        let (span, exact) = (at.unwrap_or(span), at.is_some());
        if let Some((root, segments)) = path(&source) {
            let uses = vec![source.split('[').next().unwrap_or_default().to_owned()];
            return Ok(Self { source, span, form: Form::Path(root, segments), uses });
        }
        let place = |range: std::ops::Range<usize>| if exact { span.part(range) } else { span };
        let expression = ENVIRONMENT.compile_expression_owned(source.clone()).map_err(|error| {
            let place = error.range().map_or(span, place);
            let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            Diagnostic::error(place, format!("`${{{source}}}` is not an expression: {detail}"))
                .help("expressions are minijinja's; docs/src/scenario-language.md lists names and functions")
        })?;
        if let Some((range, what, known)) = expression::unknown_word(&source, &ENVIRONMENT) {
            let name = &source[range.clone()];
            return Err(Diagnostic::error(place(range.clone()), format!("there is no {what} `{name}`")).help(suggest(
                name,
                known.iter().copied(),
                "filters and tests are minijinja's; docs/src/scenario-language.md lists the functions",
            )));
        }
        let shown =
            expression::without_slices(&source).and_then(|look_up| ENVIRONMENT.compile_expression_owned(look_up).ok());
        let mut uses: Vec<String> =
            shown.as_ref().unwrap_or(&expression).undeclared_variables(true).into_iter().collect();
        uses.sort();
        let signs = uses.iter().any(|name| name == "jwt") && !source.contains("key") && !source.contains("none");
        if signs || uses.iter().any(|name| name == functions::NEXT_USER) {
            uses.extend(functions::CREDENTIALS.map(|name| format!("hub.{name}")));
        }
        Ok(Self { source, span, form: Form::Engine(expression), uses })
    }

    /// Whether the source stands byte for byte at the span, so that a caret can point into it; else the span is the whole
    /// scalar.
    fn is_at_span(&self) -> bool {
        self.span.range().len() == self.source.len()
    }

    /// Returns where one piece of a dotted name stands: of `anna.helo.uuid`, piece 1 is `helo`.
    pub fn place(&self, dotted: &str, piece: usize) -> Span {
        let wanted: Vec<&str> = dotted.split('.').take(piece + 1).collect();
        let Some(found) = expression::word(&self.source, &wanted.join(".")).filter(|_| self.is_at_span()) else {
            return self.span;
        };
        let last = wanted.last().map_or(0, |name| name.len());
        self.span.part(found.end - last..found.end)
    }

    /// Returns the name, if the expression is nothing else.
    pub fn bare_name(&self) -> Option<&str> {
        match &self.form {
            Form::Path(root, segments) if segments.is_empty() => Some(root),
            _ => None,
        }
    }

    /// Returns the name and the JSON pointer into its value, if the expression is only a path.
    pub fn pointer(&self) -> Option<(&str, String)> {
        let Form::Path(root, segments) = &self.form else { return None };
        let pieces = segments.iter().map(|segment| match segment {
            Segment::Member(name) => format!("/{}", crate::syntax::matcher::escape(name)),
            Segment::Index(index) => format!("/{index}"),
        });
        Some((root, pieces.collect()))
    }

    pub fn eval(&self, names: &dyn Names) -> Result<Value, EvalError> {
        match &self.form {
            Form::Path(root, segments) => self.bound(root, segments, names).map(|bound| bound.to_json()),
            Form::Engine(expression) => {
                let value = expression.eval(self.context(names)?).map_err(|error| self.failed(&error))?;
                from_engine(&value, &self.source)
            }
        }
    }

    fn eval_bound(&self, names: &dyn Names) -> Result<Bound, EvalError> {
        match &self.form {
            Form::Path(root, segments) => self.bound(root, segments, names),
            Form::Engine(_) => Ok(Bound::One { value: self.eval(names)?, wire: one_of(self.wires(names)) }),
        }
    }

    /// Returns the wires of all frames that the expression uses, as far as names show: of `anna.hello.uuid` that of
    /// `hello`.
    fn wires(&self, names: &dyn Names) -> Vec<Arc<Wire>> {
        let mut wires = Vec::new();
        for used in &self.uses {
            let mut pieces = used.split('.');
            let Some(root) = pieces.next() else { continue };
            let Some(mut bound) = pieces.next().and_then(|first| names.member(root, first)) else {
                // Without such a member the whole value counts.
                wires.extend(names.lookup(root).iter().flat_map(Bound::wires));
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

    fn bound(&self, root: &str, segments: &[Segment], names: &dyn Names) -> Result<Bound, EvalError> {
        let missing = || EvalError::Missing(format!("`{}`", self.source));
        let (mut value, segments) = match segments {
            [Segment::Member(first), rest @ ..] => match names.member(root, first) {
                Some(part) => (part, rest),
                None if names.lookup(root).is_none() => return Err(EvalError::Unbound(root.to_owned())),
                None => return Err(missing()),
            },
            whole => (names.lookup(root).ok_or_else(|| EvalError::Unbound(root.to_owned()))?, whole),
        };
        for segment in segments {
            let next = match segment {
                Segment::Member(name) => value.member(name),
                Segment::Index(index) => value.item(*index),
            };
            value = next.ok_or_else(missing)?;
        }
        Ok(value)
    }

    fn context(&self, names: &dyn Names) -> Result<Engine, EvalError> {
        let mut context: BTreeMap<&str, Engine> = BTreeMap::new();
        for used in &self.uses {
            let root = used.split('.').next().unwrap_or(used);
            if context.contains_key(root) || functions::NAMES.contains(&root) || BUILTIN.contains(&root) {
                continue;
            }
            match names.lookup(root) {
                Some(bound) => {
                    // Only the members of an actor that are used are converted, as the frames of its opening may be large.
                    let uses = self.uses.iter().map(|used| used.split_once('.').unwrap_or((used, "")));
                    let members: Vec<&str> = uses.filter(|(name, _)| *name == root).map(|(_, member)| member).collect();
                    context.insert(root, bound.to_engine_for(&members));
                }
                None if self.source.contains(" defined") => {}
                None => return Err(EvalError::Unbound(root.to_owned())),
            }
        }
        context.insert(WORLD, Engine::from_dyn_object(Arc::clone(names.world())));
        Ok(Engine::from_pairs(context))
    }

    fn failed(&self, error: &minijinja::Error) -> EvalError {
        match error.kind() {
            minijinja::ErrorKind::UndefinedError => EvalError::Missing(format!("a value in `{}`", self.source)),
            kind => EvalError::Failed(format!(
                "`${{{}}}`: {}",
                self.source,
                error.detail().map_or_else(|| kind.to_string(), str::to_owned)
            )),
        }
    }
}

fn one_of(wires: Vec<Arc<Wire>>) -> Option<Arc<Wire>> {
    let index = wires.iter().position(|wire| wire.from_hub).unwrap_or(0);
    wires.into_iter().nth(index)
}

/// Functions of the engine itself that scenarios may use.
pub const BUILTIN: [&str; 3] = ["range", "dict", "namespace"];

/// Parses a path: identifiers joined by dots, with literal indexes.
fn path(source: &str) -> Option<(String, Vec<Segment>)> {
    let mut segments = Vec::new();
    for piece in source.split('.') {
        let (name, indexes) = match piece.split_once('[') {
            Some((name, rest)) => (name, Some(rest.strip_suffix(']')?)),
            None => (piece, None),
        };
        let mut letters = name.chars();
        if !letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            return None;
        }
        if matches!(name, "true" | "false" | "none" | "null" | "not" | "True" | "False" | "None") {
            return None;
        }
        segments.push(Segment::Member(name.to_owned()));
        for index in indexes.into_iter().flat_map(|i| i.split("][")) {
            segments.push(Segment::Index(index.parse().ok()?));
        }
    }
    match segments.remove(0) {
        Segment::Member(root) => Some((root, segments)),
        Segment::Index(_) => None,
    }
}

/// Splits text at `${...}`, brackets and quotes balanced. `None` after an error, which is in `diagnostics`.
fn split(text: &Text, span: Span, diagnostics: &mut Vec<Diagnostic>) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text.value.as_str();
    let mut offset = 0;
    while let Some(start) = rest.find("${") {
        if start > 0 {
            parts.push(Part::Literal(rest[..start].to_owned()));
        }
        let inside = &rest[start + 2..];
        let Some(length) = closing(inside) else {
            let at = text.inner.map_or(span, |inner| inner.part(offset + start..offset + start + 2));
            diagnostics.push(Diagnostic::error(at, "`${` has no closing `}`").help("write `${name}`"));
            return None;
        };
        let at = text.inner.map(|inner| inner.part(offset + start + 2..offset + start + 2 + length));
        match Expr::compile(&inside[..length], at.unwrap_or(span), at) {
            Ok(expression) => parts.push(Part::Expression(expression)),
            Err(diagnostic) => {
                diagnostics.push(diagnostic);
                return None;
            }
        }
        offset += start + 2 + length + 1;
        rest = &inside[length + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    Some(parts)
}

/// Offset of the `}` that ends an expression: brackets and quotes inside are balanced.
pub fn closing(inside: &str) -> Option<usize> {
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

    struct Table(BTreeMap<String, Bound>, Arc<World>);

    impl Names for Table {
        fn lookup(&self, name: &str) -> Option<Bound> {
            self.0.get(name).cloned()
        }

        fn world(&self) -> &Arc<World> {
            &self.1
        }
    }

    fn eval(source: &str) -> Result<Value, String> {
        let mut sources = crate::syntax::source::Sources::default();
        let file = sources.add("t.yaml", source);
        let node = crate::syntax::yaml::parse(&sources, file).map_err(|d| d.message)?;
        let mut diagnostics = Vec::new();
        let template = Template::read(&node, &mut diagnostics);
        if let Some(diagnostic) = diagnostics.first() {
            return Err(diagnostic.message.clone());
        }
        let world = Arc::new(World::new("run"));
        world.set_now_ms(1_642_248_600_123);
        let names = [
            ("hello", json!({"uuid": "u", "n": 9007199254740993u64, "seqs": [1, 2, 4]})),
            ("list", json!([{"seq": 3}, {"seq": 4}, {"none": 0}])),
            ("hub", json!({"version": "0.1.9", "timeout": 5})),
        ];
        template
            .eval(&Table(names.map(|(k, v)| (k.to_owned(), Bound::plain(v))).into(), world))
            .map_err(|e| e.to_string())
    }

    #[rstest]
    #[case(r#""${hello.uuid}""#, json!("u"))]
    #[case(r#""${hello.n}""#, json!(9007199254740993u64))]
    #[case(r#""${hello.seqs[2]}""#, json!(4))]
    #[case(r#""a ${hello.uuid} b ${1 + 1}""#, json!("a u b 2"))]
    #[case(r#"{ x: ["${hub.timeout * 0.8}"], y: 1 }"#, json!({"x": [4.0], "y": 1}))]
    #[case(r#""${hub.timeout + 3}s""#, json!("8s"))]
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
    #[case(r#""${json(hello.seqs)}""#, json!("[1,2,4]"))]
    #[case(r#""${sha256('')}""#, json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))]
    #[case(r#""${jwt({'sub': 'u'}, key='k')}""#, json!("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.VXe8dINoHYfQ4SQPpgAnBuNqJJzyXTMYGkFbkQZ2avs"))]
    #[case(r#""${jwt({'sub': 'u'}, key='k', alg='HS384')}""#, json!("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzM4NCJ9.eyJzdWIiOiJ1In0.cVibGf1wWErDH4_giD8Azn0ztnMXH9AuAZyJLkwKHoR5TLggtb4sjVY4w5aKYOqx"))]
    #[case(r#""${jwt({'sub': 'u'}, key='k', alg='HS512')}""#, json!("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJ1In0.ZVTtveXBmT5HpXoYZOxPFuIukjsXcOgFRzkZhN0aNqtHAc7aJTXCNXnKuQTfDysj9rW_C939x1XdLnDSGkxXig"))]
    #[case(r#""${jwt({'sub': 'u'}, alg='none')}""#, json!("eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0."))]
    #[case(r#""${'}' ~ hello.uuid}""#, json!("}u"))]
    #[case(r#""${missing is not defined}""#, json!(true))]
    #[case("'{{ kept }} $5'", json!("{{ kept }} $5"))]
    fn templates_are_evaluated_to_values(#[case] source: &str, #[case] expected: Value) {
        assert_eq!(eval(source), Ok(expected));
    }

    #[rstest]
    #[case(r#""${hello.nothing}""#, "`hello.nothing` is missing")]
    #[case(r#""${list | map(attribute='seq')}""#, "is missing")]
    #[case(r#""${unbound.x}""#, "`unbound` was never bound")]
    #[case(r#""${1 +}""#, "not an expression")]
    #[case(r#""${hello""#, "no closing")]
    #[case(r#""x ${hello.seqs}""#, "neither text nor a number")]
    #[case(r#""${repeat('xxxxxxxxxx', 100000000)}""#, "at most 64 MiB")]
    #[case(r#""${jwt({}, key='k', alg='RS256')}""#, "cannot sign with \"RS256\": alg is HS256, HS384, HS512 or none")]
    fn the_error_of_a_failed_evaluation_says_why(#[case] source: &str, #[case] expected: &str) {
        let error = eval(source).expect_err("fails");
        assert!(error.contains(expected), "{error}");
    }
}
