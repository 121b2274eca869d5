//! The known facts about a name's value before the run, so that an impossible member is reported at once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use super::{ScenarioParser, StepPlace};
use crate::protocol::MessageType;
use crate::protocol::schema_places::{PlaceStep, impossible_place, never_a_number};
use crate::scenario::expression::{FrameAttribute, PathSegment, UsedPath};
use crate::scenario::functions::ANY_MESSAGE;
use crate::scenario::template::{Template, TemplateExpression};
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::json_schema::has_expressions;
use crate::syntax::source::Span;

/// What is known about the value of a name.
#[derive(Clone, Debug, Default)]
pub enum ValueShape {
    #[default]
    Unknown,
    /// A message that was received or composed, and is valid.
    Message { name: String, received: bool },
    /// One of several values.
    OneOf(Vec<Value>),
    /// A list of such values.
    List(Box<ValueShape>),
    /// The result of a scene, or the answer of a hook: `of` names it.
    Result { of: String, members: BTreeMap<String, ValueShape> },
}

impl ValueShape {
    /// Returns the shape of a value as the file has it.
    pub fn of_value(value: Value) -> Self {
        if has_expressions(&value) { Self::Unknown } else { Self::OneOf(vec![value]) }
    }

    /// Returns the shape of a template's value, if the template is a constant.
    pub fn of_template(template: &Template) -> Self {
        template.constant().cloned().map_or(Self::Unknown, Self::of_value)
    }

    /// Returns the shape of one of the values of a loop.
    pub fn of_loop(values: &Template) -> Self {
        match values.constant() {
            Some(Value::Array(values)) if !values.iter().any(has_expressions) => Self::OneOf(values.clone()),
            _ => Self::Unknown,
        }
    }
}

impl ScenarioParser<'_> {
    /// Records what is known about a name that was just bound.
    pub(super) fn bind_shape(&mut self, name: &str, shape: ValueShape) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.shapes.insert(name.to_owned(), shape);
        }
    }

    fn find_shape(&self, name: &str) -> ValueShape {
        for scope in self.scopes.iter().rev() {
            if scope.names.contains_key(name) {
                return scope.shapes.get(name).cloned().unwrap_or_default();
            }
            if scope.isolated {
                break;
            }
        }
        ValueShape::Unknown
    }

    /// Returns the shape of a name that the opening of a role binds.
    fn opening_shape(&self, actor: &str, name: &str) -> ValueShape {
        let role = match actor {
            "self" => self.myself.as_ref(),
            _ if self.groups.contains_key(actor) => None,
            _ => self.actors.iter().find(|known| known.name == actor).map(|known| &known.role),
        };
        role.and_then(|role| self.opening_shapes.get(role)?.get(name)).cloned().unwrap_or_default()
    }

    /// Reports members that the values of names cannot have, and names of messages in `frames()`.
    pub(super) fn check_members(&mut self, expression: &TemplateExpression) {
        for path in &expression.parsed().paths {
            self.check_path(path, expression);
        }
        for path in &expression.parsed().operands {
            self.check_operand(path, expression);
        }
        let is_frames = |function: &str| matches!(function, "frames" | "sent_frames" | "all_frames");
        for call in expression.parsed().calls.iter().filter(|call| is_frames(&call.function)) {
            let span = expression.span_of(&call.at);
            if self.place != StepPlace::Always {
                let help = "bind the messages of a step with `as`, or move the check to `always` in shared.yaml";
                self.error(span, format!("`{}()` works only under `always`", call.function), help);
            } else if let Some([Value::String(name)]) =
                call.constants().map(|all| all.into_iter().cloned().collect::<Vec<_>>()).as_deref()
                && name != ANY_MESSAGE
            {
                match call.function.as_str() {
                    "frames" => self.check_framed_message(name, span),
                    _ => self.check_sent_message(name, span),
                }
            }
        }
        for attribute in &expression.parsed().frame_attributes {
            self.check_frame_attribute(attribute, expression);
        }
    }

    /// Reports a message that no frame from the hub can be.
    pub(super) fn check_framed_message(&mut self, name: &str, span: Span) {
        let pack = self.pack;
        let sent_by_hub = || pack.messages.iter().filter(|m| m.directions.from_hub).map(|m| m.name.as_str());
        let lists = format!("`hubproof packs show {}` lists who sends what", pack.name);
        let what = match pack.message(name) {
            None => format!("{} has no message `{name}`", pack.name),
            Some(message) if !message.directions.from_hub => {
                format!("a hub never sends `{name}`, and `always` is about frames from the hub")
            }
            Some(_) => return,
        };
        self.error(span, what, suggest(name, sent_by_hub().collect::<Vec<_>>(), &lists));
    }

    /// Reports a message that does not exist.
    fn check_sent_message(&mut self, name: &str, span: Span) {
        let pack = self.pack;
        if pack.message(name).is_none() {
            let known: Vec<&str> = pack.messages.iter().map(|message| message.name.as_str()).collect();
            let lists = format!("`hubproof packs show {}` lists who sends what", pack.name);
            self.error(span, format!("{} has no message `{name}`", pack.name), suggest(name, known, &lists));
        }
    }

    fn check_path(&mut self, path: &UsedPath, expression: &TemplateExpression) {
        let Some(resolved) = self.resolve_path(path, expression) else { return };
        let steps = resolved.steps();
        let Some((depth, what, known)) = self.impossible_member(&resolved.shape, &steps) else {
            self.diagnostics.extend(self.misspelt_member(&resolved, expression));
            return;
        };
        let what = format!("`{}` {what}", resolved.shown(depth));
        let (segment, at) = &resolved.segments[depth];
        self.diagnostics.push(member_error(expression.span_of(at), what, segment, &known, &resolved.shape));
    }

    /// Returns the warning about a member that no schema of the message has, but whose name resembles one that it has.
    fn misspelt_member(&self, resolved: &ResolvedPath<'_>, expression: &TemplateExpression) -> Option<Diagnostic> {
        let ValueShape::Message { name, .. } = &resolved.shape else { return None };
        let forms: Vec<&MessageType> = self.pack.forms_of(self.pack.message(name)?).collect();
        let path: Vec<String> = resolved.steps().iter().map(step_name).collect();
        let found: Option<Vec<_>> = forms.iter().map(|form| form.schema.misspelt_name(&path)).collect();
        let (depth, similar) = found?.into_iter().max()?;
        let (segment, at) = &resolved.segments[depth];
        let what = format!("the schema of `{name}` has no `{}{}`", resolved.shown(depth), written(segment));
        Some(Diagnostic::warning(expression.span_of(at), what).help(format!("did you mean `{similar}`?")))
    }

    /// Reports a value that is never a number, where one is needed.
    fn check_operand(&mut self, path: &UsedPath, expression: &TemplateExpression) {
        let Some(resolved) = self.resolve_path(path, expression) else { return };
        let steps = resolved.steps();
        let Some(schemas) = self.schemas_of(&resolved.shape) else { return };
        let schemas: Vec<&Value> = schemas.iter().map(Cow::as_ref).collect();
        let Some(kinds) = never_a_number(&schemas, &steps) else { return };
        let (Some((_, at)), shown) = (resolved.segments.last(), resolved.shown(resolved.segments.len())) else {
            return;
        };
        let help = match kinds.as_str() {
            "a string" => format!("`{shown} | int` or `{shown} | float` reads a number from text"),
            _ => format!("`{shown} | length` counts its parts"),
        };
        self.error(expression.span_of(at), format!("`{shown}` is {kinds}, and the operator needs a number"), help);
    }

    /// Returns what is known about the value in which a path begins; `None` for a path that may be undefined or whose
    /// beginning is a mistake, which is reported.
    fn resolve_path<'p>(&mut self, path: &'p UsedPath, expression: &TemplateExpression) -> Option<ResolvedPath<'p>> {
        if expression.parsed().is_optional(&path.root) {
            return None;
        }
        let mut shape = self.find_shape(&path.root);
        let mut segments = path.segments.as_slice();
        let mut root = path.root.clone();
        let is_actor = !self.is_in_scope(&path.root) && (path.root == "self" || self.find_actors(&path.root).is_some());
        if let [(PathSegment::Member(name), _), rest @ ..] = segments
            && is_actor
        {
            shape = self.opening_shape(&path.root, name);
            (root, segments) = (format!("{root}.{name}"), rest);
        }
        loop {
            let items = match shape {
                ValueShape::List(items) => items,
                ValueShape::Result { of, mut members } => {
                    let [(segment @ PathSegment::Member(name), at), rest @ ..] = segments else { return None };
                    let Some(member) = members.remove(name) else {
                        let known = members.keys().map(String::as_str).collect::<Vec<_>>();
                        let help = suggest(name, known.clone(), &format!("it has {}", known.join(", ")));
                        self.error(expression.span_of(at), format!("{of} has no member `{name}`"), help);
                        return None;
                    };
                    (root, segments, shape) = (format!("{root}{}", written(segment)), rest, member);
                    continue;
                }
                _ => break,
            };
            let [(segment, at), rest @ ..] = segments else { return None };
            if let PathSegment::Member(name) = segment {
                let help = format!("write `{root}[0].{name}` for one of them, or `{root} | map(attribute='{name}')`");
                self.error(expression.span_of(at), format!("`{root}` is a list of values"), help);
                return None;
            }
            (root, segments, shape) = (format!("{root}{}", written(segment)), rest, *items);
        }
        Some(ResolvedPath { root, shape, segments })
    }

    fn check_frame_attribute(&mut self, attribute: &FrameAttribute, expression: &TemplateExpression) {
        let shape = ValueShape::Message { name: attribute.message.clone(), received: true };
        let steps: Vec<PlaceStep> = attribute.path.iter().map(step).collect();
        let Some((depth, what, known)) = self.impossible_member(&shape, &steps) else { return };
        let shown: String = attribute.path[..depth].iter().map(written).collect();
        let what = format!("`{}{shown}` {what}", attribute.message);
        let error = member_error(expression.span_of(&attribute.at), what, &attribute.path[depth], &known, &shape);
        self.diagnostics.push(if attribute.selects { error.into_warning() } else { error });
    }

    /// Returns how many steps of a path are possible, why the next one is not, and the members that the value has
    /// there; `None` if the path is possible.
    fn impossible_member(&self, shape: &ValueShape, steps: &[PlaceStep]) -> Option<(usize, String, Vec<String>)> {
        let schemas = self.schemas_of(shape)?;
        let schemas: Vec<&Value> = schemas.iter().map(Cow::as_ref).collect();
        let found = impossible_place(&schemas, steps)?;
        let path: Vec<String> = steps[..found.depth].iter().map(step_name).collect();
        let known = match shape {
            ValueShape::Message { name, .. } => {
                self.pack.message(name).map(|message| message.schema.member_names(&path)).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Some((found.depth, found.describe(&steps[found.depth]), known))
    }

    /// Returns schemas; a value of this shape satisfies one of them. `None` if nothing is known.
    fn schemas_of(&self, shape: &ValueShape) -> Option<Vec<Cow<'_, Value>>> {
        match shape {
            ValueShape::Message { name, received } => {
                let message = self.pack.message(name)?;
                let forms: Vec<&MessageType> =
                    if *received { self.pack.forms_of(message).collect() } else { vec![message] };
                Some(forms.into_iter().map(|form| Cow::Borrowed(&form.schema.source)).collect())
            }
            ValueShape::OneOf(values) => {
                Some(values.iter().map(|value| Cow::Owned(serde_json::json!({ "const": value }))).collect())
            }
            ValueShape::Unknown | ValueShape::List(_) | ValueShape::Result { .. } => None,
        }
    }
}

/// A path in an expression, with what is known about the value in which it begins.
struct ResolvedPath<'p> {
    /// The beginning, as the expression writes it.
    root: String,
    shape: ValueShape,
    segments: &'p [(PathSegment, Range<usize>)],
}

impl ResolvedPath<'_> {
    fn steps(&self) -> Vec<PlaceStep> {
        self.segments.iter().map(|(segment, _)| step(segment)).collect()
    }

    /// Returns the first segments, as the expression writes them.
    fn shown(&self, depth: usize) -> String {
        std::iter::once(self.root.clone())
            .chain(self.segments[..depth].iter().map(|(segment, _)| written(segment)))
            .collect()
    }
}

fn member_error(span: Span, what: String, segment: &PathSegment, known: &[String], shape: &ValueShape) -> Diagnostic {
    let name = match segment {
        PathSegment::Member(name) => name.as_str(),
        PathSegment::Index(_) => "",
    };
    let otherwise = match shape {
        ValueShape::Message { name, .. } => {
            format!(
                "a `{name}` that is valid under its schema cannot have it; if the hub may send it anyway, test for it with `is defined`"
            )
        }
        _ => "the value is written out above".to_owned(),
    };
    Diagnostic::error(span, what).help(suggest(name, known.iter().map(String::as_str).collect::<Vec<_>>(), &otherwise))
}

fn step(segment: &PathSegment) -> PlaceStep {
    match segment {
        PathSegment::Member(name) => PlaceStep::Member(name.clone()),
        PathSegment::Index(index) => PlaceStep::Element(*index),
    }
}

fn step_name(step: &PlaceStep) -> String {
    match step {
        PlaceStep::Member(name) | PlaceStep::Name(name) => name.clone(),
        PlaceStep::Element(index) => index.to_string(),
    }
}

/// Returns a segment as an expression writes it.
fn written(segment: &PathSegment) -> String {
    match segment {
        PathSegment::Member(name) if super::names::is_identifier(name) => format!(".{name}"),
        PathSegment::Member(name) => format!("['{name}']"),
        PathSegment::Index(index) => format!("[{index}]"),
    }
}
