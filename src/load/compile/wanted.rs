//! Collects the members to look up in received frames, per message, so that one scan finds everything that the steps
//! and reactions of a role need.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Compiler;
use super::scope::{Named, Resolved, Scope};
use crate::load::compile::classifier::tests;
use crate::load::compile::json_scan::Paths;
use crate::load::compile::message_template::{Piece, Source, Template};
use crate::load::compile::program::{Captures, Fill, Lookup, Measured, Op, Reaction, Slot, Stray, Wanted};
use crate::load::ids::MessageId;
use crate::scenario::model::Pattern;
use crate::scenario::template::Template as Written;
use crate::syntax::matcher::{Matcher, escape};
use crate::syntax::source::Span;

/// A step that waits, before the captured members of its frame are known.
#[derive(Debug)]
pub struct Wait {
    pub program: usize,
    pub op: usize,
    pub message: Option<MessageId>,
    pub conditions: Vec<Condition>,
    pub binding: Option<usize>,
}

/// A reaction, before the captured members of its frame are known.
#[derive(Debug)]
pub struct PendingReaction {
    pub program: usize,
    pub message: MessageId,
    pub conditions: Vec<Condition>,
    pub binding: Option<usize>,
    pub measured: Arc<Measured>,
}

/// A condition on a frame.
#[derive(Debug)]
pub enum Condition {
    /// A matcher as written.
    Written(Value),
    Equal(String, Source),
}

impl Condition {
    /// Whether the condition compares with a value of this journey.
    pub fn is_of_a_journey(&self) -> bool {
        matches!(self, Self::Equal(_, Source::Text(_)))
    }
}

/// Compiles the conditions of a `where`.
pub fn conditions(compiler: &mut Compiler<'_>, pattern: &Pattern) -> Vec<Condition> {
    let mut found = Vec::new();
    match &pattern.template {
        Written::Map(members) => compiler.members("", members, pattern.span, &mut found),
        Written::Constant(value) => found.push(Condition::Written(value.clone())),
        _ => compiler.unequal(pattern.span),
    }
    found
}

impl Compiler<'_> {
    fn unequal(&mut self, span: Span) {
        let help = "write `name: \"${value}\"`, or a /pointer with a schema that has no expression in it";
        self.error(span, "under load a frame can only be matched by members that equal a value", help);
    }

    fn members(&mut self, below: &str, members: &[(String, Written)], span: Span, found: &mut Vec<Condition>) {
        for (name, written) in members {
            let is_pointer = below.is_empty() && (name.is_empty() || name.starts_with('/'));
            let pointer = if is_pointer { name.clone() } else { format!("{below}/{}", escape(name)) };
            match written {
                Written::Constant(value) if is_pointer => found.push(Condition::Written(json!({ name: value }))),
                Written::Constant(value) => found.push(Condition::Written(json!({ pointer: { "like": value } }))),
                Written::Expression(expr) if !is_pointer => match self.resolve(expr) {
                    Resolved::Value(value) => found.push(Condition::Written(json!({ pointer: { "like": value } }))),
                    Resolved::Source(source) => found.push(Condition::Equal(pointer, self.comparable(source))),
                },
                Written::Text(_) if !is_pointer => match self.kept_text(written) {
                    Named::Value(value) => found.push(Condition::Written(json!({ pointer: { "const": value } }))),
                    Named::Source(source) => found.push(Condition::Equal(pointer, source)),
                    _ => self.unequal(span),
                },
                Written::Map(members) if !is_pointer => self.members(&pointer, members, span, found),
                Written::Map(members) => match members.as_slice() {
                    [(word, Written::Expression(expr))] if word == "const" && !name.ends_with(" or absent") => {
                        match self.resolve(expr) {
                            Resolved::Value(value) => {
                                found.push(Condition::Written(json!({ pointer: { "const": value } })))
                            }
                            Resolved::Source(source) => found.push(Condition::Equal(pointer, self.comparable(source))),
                        }
                    }
                    _ => self.unequal(span),
                },
                _ => self.unequal(span),
            }
        }
    }

    /// Returns a source for a value to compare with; the value must be known when the frame comes.
    fn comparable(&mut self, source: Source) -> Source {
        if matches!(source, Source::Text(_) | Source::Own(_)) {
            return source;
        }
        let text = self.text_slot();
        let template = Template { pieces: vec![Piece::Slot { source, inside: false }] };
        self.program.ahead.push((text, Fill::Template(template)));
        Source::Text(text)
    }

    /// Whether every frame of `message` is also a frame of `envelope`: it is the same message or its envelope.
    pub fn covers(&self, envelope: MessageId, message: MessageId) -> bool {
        let messages = &self.script.pack.messages;
        let (envelope, message) = (&messages[usize::from(envelope.0)], &messages[usize::from(message.0)]);
        let special = message.matcher.conditions_at();
        envelope.name == message.name
            || envelope.matcher.conditions_at().iter().all(|condition| special.contains(condition))
    }

    /// Compiles the reactions of the plan and of its role.
    pub fn pending_reactions(&mut self) {
        let (script, part) = (self.script, self.part);
        for reaction in &part.reactions {
            self.scopes.push(Scope::default());
            let binding = reaction.as_.as_ref().map(|name| self.frame(name));
            let conditions = reaction.pattern.as_ref().map(|pattern| conditions(self, pattern)).unwrap_or_default();
            let measured = Arc::new(self.measured(&reaction.options));
            self.lines(&reaction.steps);
            self.scopes.pop();
            let message = self.id(&reaction.message);
            let program = self.finish(None);
            self.pending_reactions.push(PendingReaction { program, message, conditions, binding, measured });
        }
        for name in &script.shared_parts.roles[&part.plays].reacts {
            let Some(reaction) = script.shared_parts.reactions.get(name) else { continue };
            self.scopes.push(Scope { isolated: true, ..Scope::default() });
            let binding = reaction.as_.as_ref().map(|name| self.frame(name));
            let conditions = reaction.pattern.as_ref().map(|pattern| conditions(self, pattern)).unwrap_or_default();
            for step in &script.shared_parts.blocks[reaction.block] {
                self.step(step, &crate::load::plan::script::Options::default());
            }
            self.scopes.pop();
            let message = self.id(&reaction.whenever);
            let program = self.finish(None);
            self.pending_reactions.push(PendingReaction {
                program,
                message,
                conditions,
                binding,
                measured: Arc::default(),
            });
        }
    }

    fn frame(&mut self, name: &str) -> usize {
        let binding = self.binding();
        self.bind(name, Named::Frame(binding));
        binding
    }

    /// Adds captures for bound messages that were sent and for answers of hooks.
    pub fn keep(&mut self) {
        for (program, op, binding) in std::mem::take(&mut self.kept) {
            let members = &self.bindings[binding].members;
            if members.is_empty() {
                continue;
            }
            let mut captures = Captures::default();
            let numbers: Option<Vec<(usize, Slot)>> =
                members.iter().map(|(pointer, slot)| Some((captures.paths.add(pointer)?, *slot))).collect();
            captures.slots = numbers.unwrap_or_default();
            match &mut self.programs[program].ops[op] {
                Op::Send(send) => send.captures = Some(captures),
                Op::Hook(hook) => hook.captures = captures,
                _ => {}
            }
        }
    }

    /// Builds the lookups by message.
    pub fn lookups(&mut self) -> Vec<Lookup> {
        let waits = std::mem::take(&mut self.waits);
        let pending_reactions = std::mem::take(&mut self.pending_reactions);
        let count = self.script.pack.messages.len();
        let lookups: Option<Vec<Lookup>> = (0..count)
            .map(|n| {
                let message = MessageId(n as u16);
                let mut lookup = Lookup::default();
                for wait in &waits {
                    if wait.message.is_none_or(|wanted| self.covers(wanted, message)) {
                        let (tests, equal) = self.asked(&wait.conditions, &mut lookup.paths)?;
                        let captures = self.captured(wait.binding, &mut lookup.paths)?;
                        let stray = self.stray(wait, &equal, &captures);
                        lookup.entries.push(Wanted {
                            program: wait.program,
                            op: wait.op,
                            tests,
                            equal,
                            captures,
                            stray,
                        });
                    }
                }
                for reflex in &pending_reactions {
                    if self.covers(reflex.message, message) {
                        let (tests, equal) = self.asked(&reflex.conditions, &mut lookup.paths)?;
                        let captures = self.captured(reflex.binding, &mut lookup.paths)?;
                        let (program, measured) = (reflex.program, Arc::clone(&reflex.measured));
                        lookup.reactions.push(Reaction { program, measured, tests, equal, captures });
                    }
                }
                Some(lookup)
            })
            .collect();
        lookups.unwrap_or_else(|| {
            let what = "the steps of a role use too many different members of one message";
            self.diagnostics.push(crate::syntax::diagnostic::Diagnostic::without_place(what));
            Vec::new()
        })
    }

    /// Returns the mark of a frame that this step waits for when no task does, if the frame names the item of the step.
    fn stray(&self, wait: &Wait, equal: &[(usize, Source)], captures: &[(usize, Slot)]) -> Option<Stray> {
        let program = &self.programs[wait.program];
        let Op::Expect(expect) = &program.ops[wait.op] else { return None };
        let marking = expect.measured.marking.as_ref()?;
        let place = |source: &Source| {
            let Source::Text(slot) = source else { return None };
            let captured = captures.iter().find(|(_, known)| *known == Slot::Text(*slot)).map(|(number, _)| *number);
            captured.or_else(|| {
                let same = |known: &Source| matches!(known, Source::Text(known) if known == slot);
                equal.iter().find(|(_, known)| same(known)).map(|(number, _)| *number)
            })
        };
        let item = place(marking.item.as_ref().or(program.item.as_ref())?)?;
        Some(Stray { mark: marking.mark, item, by: marking.by.as_ref().and_then(place) })
    }

    fn asked(
        &self,
        conditions: &[Condition],
        paths: &mut Paths,
    ) -> Option<(crate::load::compile::classifier::Tests, Vec<(usize, Source)>)> {
        let (mut asked, mut equal) = (Vec::new(), Vec::new());
        for condition in conditions {
            match condition {
                // The matcher was compiled before, when the plan was read.
                Condition::Written(written) => asked.extend(tests(&Matcher::compile(written).ok()?, paths)?),
                Condition::Equal(pointer, source) => equal.push((paths.add(pointer)?, source.clone())),
            }
        }
        Some((asked, equal))
    }

    fn captured(&self, binding: Option<usize>, paths: &mut Paths) -> Option<Vec<(usize, Slot)>> {
        let members = binding.map(|binding| self.bindings[binding].members.as_slice()).unwrap_or_default();
        members.iter().map(|(pointer, slot)| Some((paths.add(pointer)?, *slot))).collect()
    }
}
