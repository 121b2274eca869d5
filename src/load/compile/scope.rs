//! Resolves names and expressions of a plan: to a constant, to a slot, or to an expression that is evaluated at run
//! time, as early as its values are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Compiler;
use crate::load::compile::message_template::{Computed, Source, Template};
use crate::load::compile::program::{Fill, Op, Remark, Slot};
use crate::scenario::expression::Call;
use crate::scenario::functions::{self, NEXT_USER};
use crate::scenario::template::{BUILTIN, Expr};

/// The value or frame that a name stands for.
#[derive(Clone, Debug)]
pub enum Named {
    Value(Value),
    /// A text that is known before anything is sent.
    Source(Source),
    /// A sent or received frame, by its index among the bindings.
    Frame(usize),
    /// Names bound in a scene or an opening.
    Scene(BTreeMap<String, Named>),
    Feeder(usize),
}

/// A frame that a name is bound to, and the members of the frame that are used.
#[derive(Debug, Default)]
pub struct Binding {
    /// Whether the client keeps the frame, not the journey.
    pub own: bool,
    pub members: Vec<(String, Slot)>,
}

#[derive(Debug, Default)]
pub struct Scope {
    pub names: BTreeMap<String, Named>,
    /// Whether outer scopes are invisible.
    pub isolated: bool,
}

/// The result of resolving an expression.
pub enum Resolved {
    Value(Value),
    Source(Source),
}

/// When an expression can be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    /// Before the run.
    Constant,
    /// When a client starts.
    Client,
    /// When a journey is prepared.
    Ahead,
    /// When the values it uses have been received.
    Late,
}

impl Compiler<'_> {
    pub fn lookup(&self, name: &str) -> Option<Named> {
        for scope in self.scopes.iter().rev() {
            if let Some(named) = scope.names.get(name) {
                return Some(named.clone());
            }
            if scope.isolated {
                break;
            }
        }
        match name {
            "hub" => Some(Named::Value(self.carried.hub.clone())),
            "self" => Some(Named::Scene(self.myself.clone())),
            _ => self.carried.globals.get(name).cloned(),
        }
    }

    pub fn bind(&mut self, name: &str, named: Named) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name.to_owned(), named);
        }
    }

    /// Adds a frame binding.
    pub fn binding(&mut self) -> usize {
        self.bindings.push(Binding { own: self.in_opening, members: Vec::new() });
        self.bindings.len() - 1
    }

    /// Returns the slot for a member of a frame.
    fn member(&mut self, binding: usize, pointer: &str) -> Source {
        let found = self.bindings[binding].members.iter().find(|(known, _)| known == pointer).map(|(_, slot)| *slot);
        let slot = found.unwrap_or_else(|| {
            let slot =
                if self.bindings[binding].own { Slot::Own(self.own_slot()) } else { Slot::Text(self.text_slot()) };
            self.bindings[binding].members.push((pointer.to_owned(), slot));
            slot
        });
        match slot {
            Slot::Text(slot) => Source::Text(slot),
            Slot::Own(slot) => Source::Own(slot),
        }
    }

    pub fn own_slot(&mut self) -> u16 {
        self.own += 1;
        (self.own - 1) as u16
    }

    pub fn text_slot(&mut self) -> u16 {
        self.program.texts += 1;
        (self.program.texts - 1) as u16
    }

    /// Resolves an expression; an error is reported and gives null.
    pub fn resolve(&mut self, expr: &Expr) -> Resolved {
        if let Some(source) = expr.call().and_then(native) {
            return Resolved::Source(source);
        }
        if let Some((root, pointer)) = expr.pointer() {
            let root = root.to_owned();
            return match self.lookup(&root).and_then(|named| self.at(named, &pointer)) {
                Some(resolved) => resolved,
                None => self.evaluate(expr),
            };
        }
        self.evaluate(expr)
    }

    /// Follows a pointer into the value of a name, as far as the value is known.
    fn at(&mut self, named: Named, pointer: &str) -> Option<Resolved> {
        Some(match named {
            Named::Value(value) => Resolved::Value(value.pointer(pointer)?.clone()),
            Named::Source(source) if pointer.is_empty() => Resolved::Source(source),
            Named::Source(_) => return None,
            Named::Frame(binding) => Resolved::Source(self.member(binding, pointer)),
            Named::Scene(names) => {
                let (name, rest) = first(pointer)?;
                return names.get(name).cloned().and_then(|named| self.at(named, rest));
            }
            Named::Feeder(feeder) => {
                let (name, rest) = first(pointer)?;
                let column = self.script.feeders[feeder].columns.iter().position(|column| column == name)?;
                return if rest.is_empty() { Some(Resolved::Source(self.column(feeder, column))) } else { None };
            }
        })
    }

    /// Returns the text of a column in the row of this journey.
    fn column(&mut self, feeder: usize, column: usize) -> Source {
        let rows = Arc::clone(&self.carried.rows[feeder]);
        let same = |fill: &Fill| matches!(fill, Fill::Column { feeder, column: c } if Arc::ptr_eq(feeder, &rows) && *c == column);
        if let Some((slot, _)) = self.program.ahead.iter().find(|(_, fill)| same(fill)) {
            return Source::Text(*slot);
        }
        let slot = self.text_slot();
        self.program.ahead.push((slot, Fill::Column { feeder: rows, column }));
        Source::Text(slot)
    }

    fn evaluate(&mut self, expr: &Expr) -> Resolved {
        let mut when = When::Constant;
        let (mut constants, mut members) = (Vec::new(), Vec::new());
        for used in &expr.uses {
            let root = used.split('.').next().unwrap_or(used);
            let pointer: String =
                used.split('.').skip(1).map(|piece| format!("/{}", crate::syntax::matcher::escape(piece))).collect();
            match self.lookup(root) {
                Some(Named::Value(value)) => {
                    if !constants.iter().any(|(name, _)| name == root) {
                        constants.push((root.to_owned(), value));
                    }
                }
                Some(named) => match self.part(named, &pointer) {
                    Some((Resolved::Value(value), at)) => {
                        // Keeps a constant under its name, next to other members of the same root.
                        let text = self.constant_text(&value);
                        members.push((root.to_owned(), at, text));
                        when = when.max(When::Client);
                    }
                    Some((Resolved::Source(source), at)) => {
                        when = when.max(self.when(&source));
                        members.push((root.to_owned(), at, source));
                    }
                    None => {
                        self.error(
                            expr.span,
                            format!("`{used}` as a whole is not known in a load run"),
                            "name one of its members",
                        );
                        return Resolved::Value(Value::Null);
                    }
                },
                None if functions::NAMES.contains(&root) => {
                    if matches!(root, "unique" | NEXT_USER | "uuid" | "now_ms" | "now_s" | "now_iso") {
                        when = when.max(When::Ahead);
                    }
                }
                None if BUILTIN.contains(&root) || expr.asks_root(root) => {}
                None => {
                    self.error(expr.span, format!("no name `{root}` is in scope"), "");
                    return Resolved::Value(Value::Null);
                }
            }
        }
        // The identity of a client is evaluated when it starts.
        if self.in_identity && when != When::Constant {
            when = When::Client;
        }
        let copy = match Expr::compile(&expr.source, expr.span, None) {
            Ok(copy) => copy,
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                return Resolved::Value(Value::Null);
            }
        };
        let computed = Arc::new(Computed { expr: copy, constants, members });
        if when == When::Constant {
            return Resolved::Value(self.evaluate_constant(&computed, expr));
        }
        let text = match when {
            When::Constant | When::Client => format!("`{}` is evaluated once for each client", expr.source),
            When::Ahead => format!("`{}` is evaluated before each journey is due", expr.source),
            When::Late => {
                format!(
                    "`{}` is evaluated when the frame it uses has been received, and delays the next message",
                    expr.source
                )
            }
        };
        self.carried.remarks.push(Remark { span: expr.span, text });
        Resolved::Source(match when {
            When::Constant | When::Client => {
                let slot = self.own_slot();
                self.identity.push((slot, Fill::Computed(computed)));
                Source::Own(slot)
            }
            When::Ahead => {
                let text = self.text_slot();
                self.program.ahead.push((text, Fill::Computed(computed)));
                Source::Text(text)
            }
            When::Late => {
                let text = self.text_slot();
                self.program.ops.push(Op::Evaluate { text, fill: Fill::Computed(computed) });
                Source::Text(text)
            }
        })
    }

    /// Returns the longest prefix of a pointer that can be resolved, and its value.
    fn part(&mut self, named: Named, pointer: &str) -> Option<(Resolved, String)> {
        let mut pointer = pointer;
        loop {
            if let Some(resolved) = self.at(named.clone(), pointer) {
                return Some((resolved, pointer.to_owned()));
            }
            pointer = pointer.rsplit_once('/').map(|(parent, _)| parent)?;
        }
    }

    fn when(&self, source: &Source) -> When {
        match source {
            Source::Index => When::Client,
            Source::Turn => When::Ahead,
            Source::Own(slot) => {
                let given = self.identity.iter().any(|(known, _)| known == slot);
                match (given, self.in_opening) {
                    (true, _) => When::Client,
                    (false, true) => When::Late,
                    (false, false) => When::Ahead,
                }
            }
            Source::Text(slot) if self.program.ahead.iter().any(|(known, _)| known == slot) => When::Ahead,
            Source::Text(_) => When::Late,
            _ => When::Ahead,
        }
    }

    /// Stores a constant as a text of the client.
    pub fn constant_text(&mut self, value: &Value) -> Source {
        let slot = self.own_slot();
        let template = Template { pieces: vec![super::message::bytes(value.to_string())] };
        self.identity.push((slot, Fill::Template(template)));
        Source::Own(slot)
    }
}

/// Splits off the first name of a pointer.
fn first(pointer: &str) -> Option<(&str, &str)> {
    let inside = pointer.strip_prefix('/')?;
    Some(match inside.find('/') {
        Some(at) => (&inside[..at], &inside[at..]),
        None => (inside, ""),
    })
}

/// Returns the source for a function that needs no evaluation of an expression, such as `uuid()`.
fn native(call: &Call) -> Option<Source> {
    Some(match (call.function.as_str(), call.constants()?.as_slice()) {
        ("uuid", []) => Source::Uuid,
        ("now_ms", []) => Source::NowMs,
        ("now_s", []) => Source::NowS,
        ("now_iso", []) => Source::NowIso,
        ("due_ns", []) => Source::DueNs,
        (NEXT_USER, []) => Source::Unique("user".into()),
        ("unique", [Value::String(prefix)]) => {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
            Source::Unique(Some(prefix.as_str()).filter(|prefix| prefix.chars().all(is_plain))?.into())
        }
        _ => return None,
    })
}
