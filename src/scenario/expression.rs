//! Parses an expression: the names that it uses, the functions that it calls, and where each of them is in the source.
//! No other module looks into the source of an expression.

use std::collections::BTreeSet;
use std::ops::Range;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr as Tree};
use minijinja::machinery::parse_expr;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind};
use serde_json::Value;

/// A free name in an expression, with the members that follow it: `anna.hello.uuid`.
#[derive(Debug)]
pub struct UsedName {
    pub dotted: String,
    /// Where each piece of the name is in the source: `anna`, `hello`, `uuid`.
    pub pieces: Vec<Range<usize>>,
    /// Whether the name is used only to test if it is defined.
    tested: bool,
}

/// A path into the value of a name that an expression uses: `anna.hello[0].uuid`.
#[derive(Debug)]
pub struct UsedPath {
    pub root: String,
    /// Each segment, and where it is in the source.
    pub segments: Vec<(PathSegment, Range<usize>)>,
}

/// A member that a filter takes from each of the frames of a message: `frames('hello') | map(attribute='uuid')`.
#[derive(Debug)]
pub struct FrameAttribute {
    pub message: String,
    pub path: Vec<PathSegment>,
    /// Where the filter is in the source.
    pub at: Range<usize>,
    /// Whether the filter only selects frames, so that it may meet frames without the member.
    pub selects: bool,
}

/// A call of a function.
#[derive(Debug)]
pub struct Call {
    pub function: String,
    /// Where the call is in the source.
    pub at: Range<usize>,
    /// The arguments. Each has a name if it is passed by name, and a value if that is constant.
    pub arguments: Vec<(Option<String>, Option<Value>)>,
    /// Whether a list or a map is unpacked into further arguments: `f(*list)`.
    unpacks: bool,
}

impl Call {
    /// Returns the argument of this name. The inner value is `None` if it is not constant.
    pub fn named(&self, name: &str) -> Option<Option<&Value>> {
        let found = self.arguments.iter().find(|(given, _)| given.as_deref() == Some(name));
        found.map(|(_, value)| value.as_ref())
    }

    /// Returns the values of the arguments, if all of them are constant and given without a name.
    pub fn constants(&self) -> Option<Vec<&Value>> {
        let value = |(name, value): &'_ (Option<String>, Option<Value>)| name.is_none().then_some(value.is_some());
        let all = !self.unpacks && self.arguments.iter().all(|argument| value(argument) == Some(true));
        all.then(|| self.arguments.iter().filter_map(|(_, value)| value.as_ref()).collect())
    }
}

/// One step of a path into a value.
#[derive(Clone, Debug, PartialEq)]
pub enum PathSegment {
    Member(String),
    Index(usize),
}

/// The form of an expression as a whole.
#[derive(Debug)]
pub enum ExpressionForm {
    /// A name and the path into its value: `a.b[0]['c']`.
    Path(String, Vec<PathSegment>),
    /// Only a call of a function.
    Call,
    Other,
}

/// The contents of an expression's source.
#[derive(Debug)]
pub struct ParsedExpression {
    pub form: ExpressionForm,
    /// All free names, functions included, in the order of the source.
    pub names: Vec<UsedName>,
    /// All calls of functions, outer ones first.
    pub calls: Vec<Call>,
    /// All paths into values.
    pub paths: Vec<UsedPath>,
    pub frame_attributes: Vec<FrameAttribute>,
    /// The paths whose values must be numbers, as operands of `-`, `/`, `//`, `%` or `**`.
    pub operands: Vec<UsedPath>,
    /// Whether the expression adds with `+`.
    pub adds: bool,
    /// Whether an operand of `*` may be a text or list, apart from the values of names.
    pub repeats: bool,
    /// The names whose member may be undefined, because the expression tests for it or has a default.
    optional: BTreeSet<String>,
    /// Whether the tree that is being visited is a part of a path that was added.
    within_path: bool,
    filters: Vec<Range<usize>>,
    tests: Vec<Range<usize>>,
}

/// Maximum length of an expression in bytes: the engine's parser needs stack for each operator.
const MAX_LENGTH: usize = 4096;

impl ParsedExpression {
    /// Parses an expression.
    pub fn parse(source: &str) -> Result<Self, Error> {
        if source.len() > MAX_LENGTH {
            return Err(Error::new(ErrorKind::SyntaxError, format!("it is longer than {MAX_LENGTH} bytes")));
        }
        let tree = parse_expr(source)?;
        let form = match (path(&tree), &tree) {
            (Some((root, segments)), _) => ExpressionForm::Path(root, segments),
            (None, Tree::Call(call)) if matches!(call.expr, Tree::Var(_)) => ExpressionForm::Call,
            _ => ExpressionForm::Other,
        };
        let mut parsed = Self {
            form,
            names: Vec::new(),
            calls: Vec::new(),
            paths: Vec::new(),
            frame_attributes: Vec::new(),
            operands: Vec::new(),
            adds: false,
            repeats: false,
            optional: BTreeSet::new(),
            within_path: false,
            filters: Vec::new(),
            tests: Vec::new(),
        };
        parsed.visit(source, &tree);
        Ok(parsed)
    }

    /// Returns the dotted names without repetition, sorted.
    pub fn uses(&self) -> BTreeSet<&str> {
        self.names.iter().map(|name| name.dotted.as_str()).collect()
    }

    /// Whether the expression tests if a name is defined, so that it may be undefined.
    pub fn tests(&self, dotted: &str) -> bool {
        self.names.iter().any(|name| name.tested && name.dotted == dotted)
    }

    /// Whether the expression tests if a name, or a member of it, is defined.
    pub fn tests_root(&self, root: &str) -> bool {
        self.names.iter().any(|name| name.tested && name.dotted.split('.').next() == Some(root))
    }

    /// Whether members of this name may be undefined.
    pub fn is_optional(&self, root: &str) -> bool {
        self.optional.contains(root)
    }

    pub fn calls(&self, function: &str) -> bool {
        self.calls.iter().any(|call| call.function == function)
    }

    /// Returns the first filter or test that the engine does not have: its range, its kind, and the names that exist.
    pub fn unknown_filter_or_test(
        &self,
        source: &str,
        engine: &Environment<'_>,
    ) -> Option<(Range<usize>, &'static str, &'static [&'static str])> {
        let lacks = |probe: String, unknown| !engine_has(engine, &probe, unknown);
        let filter = |at: &&Range<usize>| lacks(format!("0|{}", &source[(*at).clone()]), ErrorKind::UnknownFilter);
        let test = |at: &&Range<usize>| lacks(format!("0 is {}", &source[(*at).clone()]), ErrorKind::UnknownTest);
        let filters = self.filters.iter().find(filter).map(|at| (at.clone(), "filter", FILTER_NAMES));
        filters.or_else(|| self.tests.iter().find(test).map(|at| (at.clone(), "test", TEST_NAMES)))
    }

    fn visit(&mut self, source: &str, tree: &Tree<'_>) {
        let outer = self.within_path;
        self.within_path =
            matches!(tree, Tree::GetAttr(_) | Tree::GetItem(_)) && (outer || self.add_path(source, tree));
        if let Some(name) = name(source, tree) {
            self.within_path = outer;
            return self.names.push(name);
        }
        match tree {
            Tree::Var(_) | Tree::Const(_) => {}
            Tree::Slice(slice) => {
                self.visit(source, &slice.expr);
                [&slice.start, &slice.stop, &slice.step]
                    .into_iter()
                    .flatten()
                    .for_each(|part| self.visit(source, part));
            }
            Tree::UnaryOp(operation) => self.visit(source, &operation.expr),
            Tree::BinOp(operation) => {
                self.adds |= matches!(operation.op, BinOpKind::Add);
                if matches!(operation.op, BinOpKind::Mul) {
                    self.repeats |= !makes_number(&operation.left) || !makes_number(&operation.right);
                }
                if matches!(
                    operation.op,
                    BinOpKind::Sub | BinOpKind::Div | BinOpKind::FloorDiv | BinOpKind::Rem | BinOpKind::Pow
                ) {
                    let sides = [&operation.left, &operation.right];
                    self.operands.extend(sides.into_iter().filter_map(|side| used_path(source, side)));
                }
                self.visit(source, &operation.left);
                self.visit(source, &operation.right);
            }
            Tree::Compare(comparison) => {
                self.visit(source, &comparison.expr);
                comparison.ops.iter().for_each(|operand| self.visit(source, &operand.expr));
            }
            Tree::IfExpr(choice) => {
                self.visit(source, &choice.true_expr);
                self.visit(source, &choice.test_expr);
                choice.false_expr.iter().for_each(|other| self.visit(source, other));
            }
            Tree::Filter(_) => self.visit_filter(source, tree),
            Tree::Test(_) => self.visit_test(source, tree),
            Tree::GetAttr(member) => self.visit(source, &member.expr),
            Tree::GetItem(item) => {
                self.visit(source, &item.expr);
                self.within_path = false;
                self.visit(source, &item.subscript_expr);
            }
            Tree::Call(_) => self.visit_call(source, tree),
            Tree::List(list) => list.items.iter().for_each(|item| self.visit(source, item)),
            Tree::Tuple(tuple) => tuple.items.iter().for_each(|item| self.visit(source, item)),
            Tree::Map(map) => map.keys.iter().zip(&map.values).for_each(|(key, value)| {
                self.visit(source, key);
                self.visit(source, value);
            }),
        }
        self.within_path = outer;
    }

    // A function for each of the larger branches keeps the stack of `visit` small: it recurses for each operator.

    fn visit_filter(&mut self, source: &str, tree: &Tree<'_>) {
        let Tree::Filter(filter) = tree else { return };
        if matches!(filter.name, "default" | "d") {
            self.optional.extend(filter.expr.as_ref().and_then(root_name).map(str::to_owned));
        }
        self.frame_attributes.extend(frame_attribute(source, tree));
        filter.expr.iter().for_each(|value| self.visit(source, value));
        self.filters.push(range(source, filter.name));
        // Tests and filters that another filter applies: `selectattr('x', 'eq', 1)`, `map('upper')`.
        let named = |place: usize| quoted_range(source, filter.args.get(place)?);
        match filter.name {
            "select" | "reject" => self.tests.extend(named(0)),
            "selectattr" | "rejectattr" => self.tests.extend(named(1)),
            "map" => self.filters.extend(named(0)),
            _ => {}
        }
        self.visit_arguments(source, &filter.args);
    }

    fn visit_test(&mut self, source: &str, tree: &Tree<'_>) {
        let Tree::Test(test) = tree else { return };
        let first = self.names.len();
        self.visit(source, &test.expr);
        let is_name = name(source, &test.expr).is_some();
        if matches!(test.name, "defined" | "undefined") {
            if is_name {
                self.names[first..].iter_mut().for_each(|name| name.tested = true);
            }
            self.optional.extend(root_name(&test.expr).map(str::to_owned));
        }
        self.tests.push(range(source, test.name));
        self.visit_arguments(source, &test.args);
    }

    fn visit_call(&mut self, source: &str, tree: &Tree<'_>) {
        let Tree::Call(call) = tree else { return };
        if let Tree::Var(function) = &call.expr {
            let argument = |argument: &CallArg<'_>| match argument {
                CallArg::Pos(value) => Some((None, constant(value))),
                CallArg::Kwarg(name, value) => Some((Some((*name).to_owned()), constant(value))),
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => None,
            };
            let arguments: Vec<_> = call.args.iter().filter_map(argument).collect();
            let unpacks = arguments.len() < call.args.len();
            let at = span_range(source, tree);
            self.calls.push(Call { function: function.id.to_owned(), at, arguments, unpacks });
        }
        self.visit(source, &call.expr);
        self.visit_arguments(source, &call.args);
    }

    /// Adds the tree to the paths if it is one.
    fn add_path(&mut self, source: &str, tree: &Tree<'_>) -> bool {
        let before = self.paths.len();
        self.paths.extend(used_path(source, tree));
        self.paths.len() > before
    }

    fn visit_arguments(&mut self, source: &str, arguments: &[CallArg<'_>]) {
        for argument in arguments {
            match argument {
                CallArg::Pos(value)
                | CallArg::Kwarg(_, value)
                | CallArg::PosSplat(value)
                | CallArg::KwargSplat(value) => self.visit(source, value),
            }
        }
    }
}

fn constant(tree: &Tree<'_>) -> Option<Value> {
    serde_json::to_value(tree.as_const()?).ok()
}

/// Returns the name if the tree is a name with members.
fn name(source: &str, tree: &Tree<'_>) -> Option<UsedName> {
    let mut pieces = Vec::new();
    let mut inner = tree;
    loop {
        match inner {
            Tree::GetAttr(member) => {
                pieces.push(member.name);
                inner = &member.expr;
            }
            Tree::Var(root) => {
                pieces.push(root.id);
                break;
            }
            _ => return None,
        }
    }
    pieces.reverse();
    let places = pieces.iter().map(|piece| range(source, piece)).collect();
    Some(UsedName { dotted: pieces.join("."), pieces: places, tested: false })
}

/// Returns the name at the start of a path, and the segments after it; `None` if the tree is not a path.
fn path(tree: &Tree<'_>) -> Option<(String, Vec<PathSegment>)> {
    let mut segments = Vec::new();
    let mut inner = tree;
    loop {
        match inner {
            Tree::Var(root) => {
                segments.reverse();
                return Some((root.id.to_owned(), segments));
            }
            Tree::GetAttr(member) => {
                segments.push(PathSegment::Member(member.name.to_owned()));
                inner = &member.expr;
            }
            Tree::GetItem(item) => {
                segments.push(match constant(&item.subscript_expr)? {
                    Value::String(name) => PathSegment::Member(name),
                    Value::Number(index) => PathSegment::Index(usize::try_from(index.as_u64()?).ok()?),
                    _ => return None,
                });
                inner = &item.expr;
            }
            _ => return None,
        }
    }
}

/// Returns the name at the start of a chain of members and items.
fn root_name<'t>(tree: &'t Tree<'_>) -> Option<&'t str> {
    match tree {
        Tree::Var(root) => Some(root.id),
        Tree::GetAttr(member) => root_name(&member.expr),
        Tree::GetItem(item) => root_name(&item.expr),
        _ => None,
    }
}

/// Whether an operand of `*` is a number, unless the value of a name in it is none.
fn makes_number(tree: &Tree<'_>) -> bool {
    match tree {
        Tree::Const(constant) => constant.value.kind() == ValueKind::Number,
        Tree::Var(_) | Tree::GetAttr(_) | Tree::GetItem(_) => path(tree).is_some(),
        Tree::UnaryOp(operation) => makes_number(&operation.expr),
        Tree::BinOp(operation) => {
            let joins = matches!(operation.op, BinOpKind::Concat);
            !joins && makes_number(&operation.left) && makes_number(&operation.right)
        }
        Tree::IfExpr(choice) => makes_number(&choice.true_expr) && choice.false_expr.as_ref().is_none_or(makes_number),
        Tree::Filter(filter) => match filter.name {
            "abs" | "count" | "float" | "int" | "length" | "round" => true,
            "default" | "d" => {
                let is_number = |argument: &CallArg<'_>| matches!(argument, CallArg::Pos(value) if makes_number(value));
                filter.expr.as_ref().is_some_and(makes_number) && filter.args.iter().all(is_number)
            }
            _ => false,
        },
        _ => false,
    }
}

/// Returns the path if the tree is one that has segments.
fn used_path(source: &str, tree: &Tree<'_>) -> Option<UsedPath> {
    let (root, segments) = path(tree).filter(|(_, segments)| !segments.is_empty())?;
    let mut places = Vec::new();
    let mut inner = tree;
    loop {
        inner = match inner {
            Tree::GetAttr(member) => {
                places.push(range(source, member.name));
                &member.expr
            }
            Tree::GetItem(item) => {
                places.push(span_range(source, &item.subscript_expr));
                &item.expr
            }
            _ => break,
        };
    }
    places.reverse();
    Some(UsedPath { root, segments: segments.into_iter().zip(places).collect() })
}

/// Returns the member that a filter takes from each of the frames of a message, if the filter has only frames before
/// it.
fn frame_attribute(source: &str, tree: &Tree<'_>) -> Option<FrameAttribute> {
    let Tree::Filter(filter) = tree else { return None };
    let selects = matches!(filter.name, "selectattr" | "rejectattr");
    let name = filter.args.iter().find_map(|argument| match argument {
        CallArg::Pos(value) if selects => constant(value),
        CallArg::Kwarg("attribute", value) if filter.name == "map" => constant(value),
        _ => None,
    })?;
    let segment = |piece: &str| match piece.parse() {
        Ok(index) => PathSegment::Index(index),
        Err(_) => PathSegment::Member(piece.to_owned()),
    };
    let path = match &name {
        Value::String(dotted) => dotted.split('.').map(segment).collect(),
        Value::Number(index) => vec![PathSegment::Index(usize::try_from(index.as_u64()?).ok()?)],
        _ => return None,
    };
    let message = framed_message(filter.expr.as_ref()?)?;
    Some(FrameAttribute { message, path, at: range(source, filter.name), selects })
}

/// Returns the name of the message if the tree gives frames of one message, all or some.
fn framed_message(tree: &Tree<'_>) -> Option<String> {
    match tree {
        Tree::Call(call) if matches!(&call.expr, Tree::Var(function) if function.id == "frames") => {
            match call.args.as_slice() {
                [CallArg::Pos(name)] => constant(name)?.as_str().map(str::to_owned),
                _ => None,
            }
        }
        Tree::Filter(filter)
            if matches!(filter.name, "selectattr" | "rejectattr" | "list" | "sort" | "reverse" | "unique") =>
        {
            framed_message(filter.expr.as_ref()?)
        }
        _ => None,
    }
}

/// Returns the range of a tree in the source.
fn span_range(source: &str, tree: &Tree<'_>) -> Range<usize> {
    let span = tree.span();
    let found = span.start_offset as usize..span.end_offset as usize;
    if source.get(found.clone()).is_some_and(|text| !text.is_empty()) { found } else { 0..source.len() }
}

/// Returns the range between the quotes of an argument that is a text.
fn quoted_range(source: &str, argument: &CallArg<'_>) -> Option<Range<usize>> {
    let CallArg::Pos(Tree::Const(constant)) = argument else { return None };
    let span = constant.span();
    let (first, last) = (span.start_offset as usize + 1, (span.end_offset as usize).checked_sub(1)?);
    let quoted = source.get(first..last)?;
    constant.value.as_str().filter(|text| *text == quoted).map(|_| first..last)
}

/// Returns the range of a word that the parser has cut out of the source.
fn range(source: &str, word: &str) -> Range<usize> {
    let start = (word.as_ptr() as usize).wrapping_sub(source.as_ptr() as usize);
    let found = start..start.wrapping_add(word.len());
    if source.get(found.clone()) == Some(word) { found } else { 0..source.len() }
}

/// Whether the engine has the filter or test of a probe. The engine cannot list them, so the probe is evaluated.
fn engine_has(engine: &Environment<'_>, probe: &str, unknown: ErrorKind) -> bool {
    match engine.compile_expression(probe).and_then(|probe| probe.eval(())) {
        Err(error) => error.kind() != unknown,
        Ok(_) => true,
    }
}

/// The filters that expressions can use, for "did you mean".
const FILTER_NAMES: &[&str] = &[
    "abs",
    "attr",
    "bool",
    "chain",
    "default",
    "dictsort",
    "differences",
    "epoch_ms",
    "first",
    "float",
    "groupby",
    "int",
    "items",
    "join",
    "json",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
    "urlencode",
    "zip",
];
const TEST_NAMES: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "even",
    "false",
    "float",
    "ge",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("anna.hello.uuid != ben.hello.uuid", &["anna@0", "anna.hello@5", "anna.hello.uuid@11", "ben@19", "ben.hello@23", "ben.hello.uuid@29"])]
    #[case("unique('unique')", &["unique@0"])]
    #[case("'ü' ~ a", &["a@7"])]
    #[case("banana.a + a", &["banana@0", "banana.a@7", "a@11"])]
    #[case("list[from:to:step]", &["list@0", "from@5", "to@10", "step@13"])]
    #[case("{'a': b}['a'][:c].d", &["b@6", "c@15"])]
    #[case("f(x, key=y, *z) | join(w) is in(v)", &["f@0", "x@2", "y@9", "z@13", "w@23", "v@32"])]
    #[case("a if not b.c else [d]", &["a@0", "b@9", "b.c@11", "d@19"])]
    #[case("'a'", &[])]
    fn the_names_of_an_expression_are_found_with_their_places(#[case] source: &str, #[case] expected: &[&str]) {
        let parsed = ParsedExpression::parse(source).unwrap();
        let shown = |name: &UsedName| {
            let dotted: Vec<&str> = name.dotted.split('.').collect();
            let piece = |(index, at): (usize, &Range<usize>)| format!("{}@{}", dotted[..=index].join("."), at.start);
            name.pieces.iter().enumerate().map(piece).collect::<Vec<_>>()
        };
        assert_eq!(parsed.names.iter().flat_map(shown).collect::<Vec<_>>(), expected);
    }

    #[rstest]
    #[case("a is defined and b.c is not undefined and d", &["a", "b.c"])]
    #[case("'a is defined' ~ a", &[])]
    #[case("(a.b | json) is defined", &[])]
    fn names_that_are_tested_to_be_defined_are_known(#[case] source: &str, #[case] expected: &[&str]) {
        let parsed = ParsedExpression::parse(source).unwrap();
        let tested: Vec<&str> = parsed.uses().into_iter().filter(|name| parsed.tests(name)).collect();
        assert_eq!(tested, expected);
    }

    #[test]
    fn calls_are_known_with_their_constant_arguments() {
        let parsed =
            ParsedExpression::parse("jwt({'sub': me}, monkey='key', alg='none') ~ unique('x', *more)").unwrap();
        let [jwt, unique] = parsed.calls.as_slice() else { panic!("{parsed:?}") };
        assert_eq!((jwt.function.as_str(), unique.function.as_str()), ("jwt", "unique"));
        assert_eq!(jwt.named("key"), None);
        assert_eq!(jwt.named("alg"), Some(Some(&Value::from("none"))));
        assert_eq!((jwt.constants(), unique.constants()), (None, None));
        let repeat = ParsedExpression::parse("repeat('x', 8)").unwrap();
        assert_eq!(repeat.calls[0].constants(), Some(vec![&Value::from("x"), &Value::from(8)]));
        assert!(matches!(repeat.form, ExpressionForm::Call));
    }

    #[rstest]
    #[case("a.b[0]['c'].d + 1", &["b 0 'c' d"], false)]
    #[case("[a.b, a[i].c]", &["b"], false)]
    #[case("a.b is defined and a.b.c == 1", &["b", "b c"], true)]
    #[case("a['b'] | default(1)", &["'b'"], true)]
    fn paths_into_values_are_known_with_their_places(
        #[case] source: &str,
        #[case] expected: &[&str],
        #[case] optional: bool,
    ) {
        let parsed = ParsedExpression::parse(source).unwrap();
        let shown =
            |path: &UsedPath| path.segments.iter().map(|(_, at)| &source[at.clone()]).collect::<Vec<_>>().join(" ");
        assert_eq!(parsed.paths.iter().map(shown).collect::<Vec<_>>(), expected);
        assert_eq!(parsed.is_optional("a"), optional);
    }

    #[rstest]
    #[case("frames('a') | map(attribute='b.0.c') | list", Some(("a", "map", 3, false)))]
    #[case("frames('a') | selectattr('b', 'eq', 1) | map('json')", Some(("a", "selectattr", 1, true)))]
    #[case("frames('a') | list | map(attribute=1)", Some(("a", "map", 1, false)))]
    #[case("(frames('a') + frames('b')) | map(attribute='c')", None)]
    #[case("frames('a') | map(attribute=b)", None)]
    #[case("frames(a) | map(attribute='c')", None)]
    fn members_of_frames_are_known(#[case] source: &str, #[case] expected: Option<(&str, &str, usize, bool)>) {
        let parsed = ParsedExpression::parse(source).unwrap();
        let found = parsed.frame_attributes.first();
        let found = found.map(|one| (one.message.as_str(), &source[one.at.clone()], one.path.len(), one.selects));
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case("a", Some(("a", vec![])))]
    #[case("a.b[0]['c d'].e", Some(("a", vec![
        PathSegment::Member("b".into()),
        PathSegment::Index(0),
        PathSegment::Member("c d".into()),
        PathSegment::Member("e".into()),
    ])))]
    #[case("a[b]", None)]
    #[case("a[-1]", None)]
    #[case("true", None)]
    #[case("a.b()", None)]
    fn a_path_is_a_name_with_members_and_items(
        #[case] source: &str,
        #[case] expected: Option<(&str, Vec<PathSegment>)>,
    ) {
        let found = match ParsedExpression::parse(source).unwrap().form {
            ExpressionForm::Path(root, segments) => Some((root, segments)),
            _ => None,
        };
        assert_eq!(found, expected.map(|(root, segments)| (root.to_owned(), segments)));
    }

    #[rstest]
    #[case("1 | frobnicate", Some(("frobnicate", "filter")))]
    #[case("list | map(attribute='seq') | sort|uniqe", Some(("uniqe", "filter")))]
    #[case("x is defined", None)]
    #[case("x is not dfined", Some(("dfined", "test")))]
    #[case("x == ' | y is z'", None)]
    #[case("a.is | json", None)]
    fn a_filter_or_test_that_does_not_exist_is_reported(#[case] source: &str, #[case] expected: Option<(&str, &str)>) {
        let parsed = ParsedExpression::parse(source).unwrap();
        let found = parsed.unknown_filter_or_test(source, &super::super::functions::build_environment());
        assert_eq!(found.map(|(at, what, _)| (&source[at], what)), expected);
    }

    #[test]
    fn an_expression_that_would_overflow_the_stack_of_the_parser_is_refused() {
        let long = |operands: usize| vec!["1"; operands].join("+");
        assert!(ParsedExpression::parse(&long(MAX_LENGTH / 2)).is_ok());
        let error = ParsedExpression::parse(&long(1 << 20)).unwrap_err();
        assert_eq!(error.detail(), Some("it is longer than 4096 bytes"));
    }

    #[test]
    fn every_suggested_filter_and_test_exists() {
        let engine = super::super::functions::build_environment();
        for filter in FILTER_NAMES {
            assert!(engine_has(&engine, &format!("0|{filter}"), ErrorKind::UnknownFilter), "{filter}");
        }
        for test in TEST_NAMES {
            assert!(engine_has(&engine, &format!("0 is {test}"), ErrorKind::UnknownTest), "{test}");
        }
    }
}
