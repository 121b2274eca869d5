//! Resolves names and expressions of a plan: to a constant, to a slot, or to an expression that is evaluated at run
//! time, as early as its values are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::RoleCompiler;
use crate::load::compile::message_template::{MessageTemplate, RuntimeExpression, SlotSource};
use crate::load::compile::program::{CaptureSlot, ExpressionRemark, ProgramOperation, SlotFill};
use crate::scenario::expression::Call;
use crate::scenario::functions::{self, NEXT_OF, NEXT_USER};
use crate::scenario::template::{ENGINE_FUNCTIONS, TemplateExpression};
use crate::syntax::diagnostic::nearest;

/// The most columns that an error lists.
const MAX_SHOWN_COLUMNS: usize = 30;

/// The value or frame that a name stands for.
#[derive(Clone, Debug)]
pub enum NameMeaning {
    Value(Value),
    /// A text that is known before anything is sent.
    Source(SlotSource),
    /// A sent or received frame, by its index among the bindings.
    Frame(usize),
    /// Names bound in a scene or an opening.
    Scene(BTreeMap<String, NameMeaning>),
    Feeder(usize),
}

/// A frame that a name is bound to, and the members of the frame that are used.
#[derive(Debug, Default)]
pub struct FrameBinding {
    /// Whether the client keeps the frame, not the journey.
    pub own: bool,
    pub members: Vec<(String, CaptureSlot)>,
}

#[derive(Debug, Default)]
pub struct NameScope {
    pub names: BTreeMap<String, NameMeaning>,
    /// Whether outer scopes are invisible.
    pub isolated: bool,
}

/// The result of resolving an expression.
pub enum ResolvedExpression {
    Value(Value),
    Source(SlotSource),
}

/// When an expression can be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum EvaluationTime {
    /// Before the run.
    Constant,
    /// When a client starts.
    Client,
    /// When a journey is prepared.
    Ahead,
    /// When the values it uses have been received.
    Late,
}

impl RoleCompiler<'_> {
    pub fn lookup(&self, name: &str) -> Option<NameMeaning> {
        for scope in self.scopes.iter().rev() {
            if let Some(named) = scope.names.get(name) {
                return Some(named.clone());
            }
            if scope.isolated {
                break;
            }
        }
        match name {
            "hub" => Some(NameMeaning::Value(self.carried.hub.clone())),
            "self" => Some(NameMeaning::Scene(self.myself.clone())),
            _ => self.carried.globals.get(name).cloned(),
        }
    }

    pub fn bind_name(&mut self, name: &str, named: NameMeaning) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name.to_owned(), named);
        }
    }

    /// Adds a frame binding.
    pub fn add_binding(&mut self) -> usize {
        self.bindings.push(FrameBinding { own: self.in_opening, members: Vec::new() });
        self.bindings.len() - 1
    }

    /// Returns the slot for a member of a frame.
    fn member_slot(&mut self, binding: usize, pointer: &str) -> SlotSource {
        let found = self.bindings[binding].members.iter().find(|(known, _)| known == pointer).map(|(_, slot)| *slot);
        let slot = found.unwrap_or_else(|| {
            let slot = if self.bindings[binding].own {
                CaptureSlot::Own(self.add_own_slot())
            } else {
                CaptureSlot::Text(self.add_text_slot())
            };
            self.bindings[binding].members.push((pointer.to_owned(), slot));
            slot
        });
        match slot {
            CaptureSlot::Text(slot) => SlotSource::Text(slot),
            CaptureSlot::Own(slot) => SlotSource::Own(slot),
        }
    }

    pub fn add_own_slot(&mut self) -> u16 {
        self.own += 1;
        (self.own - 1) as u16
    }

    pub fn add_text_slot(&mut self) -> u16 {
        self.program.texts += 1;
        (self.program.texts - 1) as u16
    }

    /// Resolves an expression; an error is reported and gives null.
    pub fn resolve(&mut self, expr: &TemplateExpression) -> ResolvedExpression {
        if let Some(source) = expr.call().and_then(native_source) {
            return ResolvedExpression::Source(source);
        }
        if let Some((root, pointer)) = expr.pointer() {
            let root = root.to_owned();
            return match self.lookup(&root).and_then(|named| self.resolve_pointer(named, &pointer)) {
                Some(resolved) => resolved,
                None => self.compile_evaluation(expr),
            };
        }
        self.compile_evaluation(expr)
    }

    /// Follows a pointer into the value of a name, as far as the value is known.
    fn resolve_pointer(&mut self, named: NameMeaning, pointer: &str) -> Option<ResolvedExpression> {
        Some(match named {
            NameMeaning::Value(value) => ResolvedExpression::Value(value.pointer(pointer)?.clone()),
            NameMeaning::Source(source) if pointer.is_empty() => ResolvedExpression::Source(source),
            NameMeaning::Source(_) => return None,
            NameMeaning::Frame(binding) => ResolvedExpression::Source(self.member_slot(binding, pointer)),
            NameMeaning::Scene(names) => {
                let (name, rest) = split_first_name(pointer)?;
                return names.get(name).cloned().and_then(|named| self.resolve_pointer(named, rest));
            }
            NameMeaning::Feeder(feeder) => {
                let (name, rest) = split_first_name(pointer)?;
                let column = self.script.feeders[feeder].columns.iter().position(|column| column == name)?;
                return if rest.is_empty() {
                    Some(ResolvedExpression::Source(self.column_source(feeder, column)))
                } else {
                    None
                };
            }
        })
    }

    /// Returns the text of a column in the row of this journey.
    fn column_source(&mut self, feeder: usize, column: usize) -> SlotSource {
        let rows = Arc::clone(&self.carried.rows[feeder]);
        let same = |fill: &SlotFill| matches!(fill, SlotFill::Column { feeder, column: c } if Arc::ptr_eq(feeder, &rows) && *c == column);
        if let Some((slot, _)) = self.program.ahead.iter().find(|(_, fill)| same(fill)) {
            return SlotSource::Text(*slot);
        }
        if self.in_identity {
            let slot = self.add_own_slot();
            self.identity.push((slot, SlotFill::Column { feeder: rows, column }));
            return SlotSource::Own(slot);
        }
        let slot = self.add_text_slot();
        self.program.ahead.push((slot, SlotFill::Column { feeder: rows, column }));
        SlotSource::Text(slot)
    }

    /// Returns what is wrong with a pointer into a row that names no column, and what to write instead.
    fn describe_unknown_column(&self, feeder: usize, pointer: &str) -> (String, String) {
        let feeder = &self.script.feeders[feeder];
        let shown = feeder.columns.iter().take(MAX_SHOWN_COLUMNS).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match feeder.columns.len().saturating_sub(MAX_SHOWN_COLUMNS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let known = format!("known columns are {shown}{more}");
        let Some((column, _)) = split_first_name(pointer) else {
            return (format!("`{}` is a whole row; name one of its columns", feeder.name), known);
        };
        let meant = nearest(column, feeder.columns.iter().map(String::as_str));
        let meant = meant.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
        (format!("the feeder `{}` has no column `{column}`", feeder.name), meant + &known)
    }

    /// Resolves the names that an expression uses, and returns when it can be evaluated; `None` after an error.
    fn resolve_uses(&mut self, expr: &TemplateExpression) -> Option<(EvaluationTime, RuntimeExpression)> {
        let mut when = EvaluationTime::Constant;
        let (mut constants, mut members) = (Vec::new(), Vec::new());
        for used in &expr.uses {
            let root = used.split('.').next().unwrap_or(used);
            let pointer: String =
                used.split('.').skip(1).map(|piece| format!("/{}", crate::syntax::matcher::escape(piece))).collect();
            match self.lookup(root) {
                Some(NameMeaning::Value(value)) => {
                    if !constants.iter().any(|(name, _)| name == root) {
                        constants.push((root.to_owned(), value));
                    }
                }
                Some(named) => match self.resolve_prefix(named, &pointer) {
                    Some((ResolvedExpression::Value(value), at)) => {
                        // Keeps a constant under its name, next to other members of the same root.
                        let text = self.constant_text(&value);
                        members.push((root.to_owned(), at, text));
                        when = when.max(EvaluationTime::Client);
                    }
                    Some((ResolvedExpression::Source(source), at)) => {
                        when = when.max(self.evaluation_time(&source));
                        members.push((root.to_owned(), at, source));
                    }
                    None => {
                        let (message, help) = match self.lookup(root) {
                            Some(NameMeaning::Feeder(feeder)) => self.describe_unknown_column(feeder, &pointer),
                            _ => {
                                let message = format!("`{used}` as a whole is not known in a load run");
                                (message, "name one of its members".to_owned())
                            }
                        };
                        self.error(expr.span, message, help);
                        return None;
                    }
                },
                None if root == NEXT_OF => {
                    let help = "list the names in a file under `feeders`, and override the value under `with`";
                    self.error(expr.span, "`next_of()` does not work under load", help);
                    return None;
                }
                None if functions::FUNCTION_NAMES.contains(&root) => {
                    if matches!(root, "unique" | "next_number" | NEXT_USER | "uuid" | "now_ms" | "now_s" | "now_iso") {
                        when = when.max(EvaluationTime::Ahead);
                    }
                }
                None if ENGINE_FUNCTIONS.contains(&root) || expr.asks_root(root) => {}
                None => {
                    self.error(expr.span, format!("no name `{root}` is in scope"), "");
                    return None;
                }
            }
        }
        // The identity of a client is evaluated when it starts.
        if self.in_identity && when != EvaluationTime::Constant {
            when = EvaluationTime::Client;
        }
        match TemplateExpression::compile(&expr.source, expr.span, None) {
            Ok(expr) => Some((when, RuntimeExpression { expr, constants, members })),
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }

    fn compile_evaluation(&mut self, expr: &TemplateExpression) -> ResolvedExpression {
        let Some((when, computed)) = self.resolve_uses(expr) else { return ResolvedExpression::Value(Value::Null) };
        let computed = Arc::new(computed);
        if when == EvaluationTime::Constant {
            return ResolvedExpression::Value(self.evaluate_constant(&computed, expr));
        }
        let text = match when {
            EvaluationTime::Constant | EvaluationTime::Client => {
                format!("`{}` is evaluated once for each client", expr.source)
            }
            EvaluationTime::Ahead => format!("`{}` is evaluated before each journey is due", expr.source),
            EvaluationTime::Late => {
                format!(
                    "`{}` is evaluated when the frame it uses has been received, and delays the next message",
                    expr.source
                )
            }
        };
        self.carried.remarks.push(ExpressionRemark { span: expr.span, text });
        ResolvedExpression::Source(match when {
            EvaluationTime::Constant | EvaluationTime::Client => {
                let slot = self.add_own_slot();
                self.identity.push((slot, SlotFill::Computed(computed)));
                SlotSource::Own(slot)
            }
            EvaluationTime::Ahead => {
                let text = self.add_text_slot();
                self.program.ahead.push((text, SlotFill::Computed(computed)));
                SlotSource::Text(text)
            }
            EvaluationTime::Late => {
                let text = self.add_text_slot();
                self.program.ops.push(ProgramOperation::Evaluate { text, fill: SlotFill::Computed(computed) });
                SlotSource::Text(text)
            }
        })
    }

    /// Returns the longest prefix of a pointer that can be resolved, and its value.
    fn resolve_prefix(&mut self, named: NameMeaning, pointer: &str) -> Option<(ResolvedExpression, String)> {
        let mut pointer = pointer;
        loop {
            if let Some(resolved) = self.resolve_pointer(named.clone(), pointer) {
                return Some((resolved, pointer.to_owned()));
            }
            pointer = pointer.rsplit_once('/').map(|(parent, _)| parent)?;
        }
    }

    fn evaluation_time(&self, source: &SlotSource) -> EvaluationTime {
        match source {
            SlotSource::Index => EvaluationTime::Client,
            SlotSource::Turn => EvaluationTime::Ahead,
            SlotSource::Own(slot) => {
                let given = self.identity.iter().any(|(known, _)| known == slot);
                match (given, self.in_opening) {
                    (true, _) => EvaluationTime::Client,
                    (false, true) => EvaluationTime::Late,
                    (false, false) => EvaluationTime::Ahead,
                }
            }
            SlotSource::Text(slot) if self.program.ahead.iter().any(|(known, _)| known == slot) => {
                EvaluationTime::Ahead
            }
            SlotSource::Text(_) => EvaluationTime::Late,
            _ => EvaluationTime::Ahead,
        }
    }

    /// Stores a constant as a text of the client.
    pub fn constant_text(&mut self, value: &Value) -> SlotSource {
        let slot = self.add_own_slot();
        let template = MessageTemplate { pieces: vec![super::message::bytes_piece(value.to_string())] };
        self.identity.push((slot, SlotFill::Template(template)));
        SlotSource::Own(slot)
    }
}

/// Splits off the first name of a pointer.
fn split_first_name(pointer: &str) -> Option<(&str, &str)> {
    let inside = pointer.strip_prefix('/')?;
    Some(match inside.find('/') {
        Some(at) => (&inside[..at], &inside[at..]),
        None => (inside, ""),
    })
}

/// Returns the source for a function that needs no evaluation of an expression, such as `uuid()`.
fn native_source(call: &Call) -> Option<SlotSource> {
    Some(match (call.function.as_str(), call.constants()?.as_slice()) {
        ("uuid", []) => SlotSource::Uuid,
        ("now_ms", []) => SlotSource::NowMs,
        ("now_s", []) => SlotSource::NowS,
        ("now_iso", []) => SlotSource::NowIso,
        ("due_ns", []) => SlotSource::DueNs,
        (NEXT_USER, []) => SlotSource::Unique("user".into()),
        ("unique", [Value::String(prefix)]) => {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
            SlotSource::Unique(Some(prefix.as_str()).filter(|prefix| prefix.chars().all(is_plain))?.into())
        }
        _ => return None,
    })
}
