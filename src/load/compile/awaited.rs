//! Collects the members to look up in received frames, per message, so that one scan finds everything that the steps
//! and reactions of a role need.

use std::sync::Arc;

use serde_json::{Value, json};

use super::RoleCompiler;
use super::scope::{NameMeaning, NameScope, ResolvedExpression};
use crate::load::compile::classifier::compile_tests;
use crate::load::compile::json_scan::MemberPaths;
use crate::load::compile::message_template::{MessageTemplate, SlotSource, TemplatePiece};
use crate::load::compile::program::{
    AwaitedFrame, CaptureSlot, CompiledReaction, FrameMeasurement, MemberCaptures, MessageLookup, ProgramOperation,
    SlotFill, StrayMark,
};
use crate::load::ids::MessageId;
use crate::scenario::model::MatchPattern;
use crate::scenario::template::Template;
use crate::syntax::matcher::{Matcher, escape, is_pointer};
use crate::syntax::source::Span;

/// A step that waits, before the captured members of its frame are known.
#[derive(Debug)]
pub struct PendingWait {
    pub program: usize,
    pub op: usize,
    pub message: Option<MessageId>,
    pub conditions: Vec<WhereCondition>,
    pub binding: Option<usize>,
}

/// A reaction, before the captured members of its frame are known.
#[derive(Debug)]
pub struct PendingReaction {
    pub program: usize,
    pub message: MessageId,
    pub conditions: Vec<WhereCondition>,
    pub binding: Option<usize>,
    pub measured: Arc<FrameMeasurement>,
}

/// A condition on a frame.
#[derive(Debug)]
pub enum WhereCondition {
    /// A matcher as written.
    Written(Value),
    Equal(String, SlotSource),
}

impl WhereCondition {
    /// Whether the condition compares with a value of this journey.
    pub fn depends_on_journey(&self) -> bool {
        matches!(self, Self::Equal(_, SlotSource::Text(_)))
    }
}

/// Compiles the conditions of a `where`.
pub fn compile_conditions(compiler: &mut RoleCompiler<'_>, pattern: &MatchPattern) -> Vec<WhereCondition> {
    let mut found = Vec::new();
    match &pattern.template {
        Template::Map(members) => compiler.compile_members("", members, pattern.span, &mut found),
        Template::Constant(value) => found.push(WhereCondition::Written(value.clone())),
        _ => compiler.report_unsupported_match(pattern.span),
    }
    found
}

impl RoleCompiler<'_> {
    fn report_unsupported_match(&mut self, span: Span) {
        let help = "write `name: \"${value}\"`, or a /pointer with a schema that has no expression in it";
        self.error(span, "under load a frame can only be matched by members that equal a value", help);
    }

    fn compile_members(
        &mut self,
        below: &str,
        members: &[(String, Template)],
        span: Span,
        found: &mut Vec<WhereCondition>,
    ) {
        for (name, written) in members {
            let is_pointer = below.is_empty() && is_pointer(name);
            let pointer = if is_pointer { name.clone() } else { format!("{below}/{}", escape(name)) };
            match written {
                Template::Constant(value) if is_pointer => found.push(WhereCondition::Written(json!({ name: value }))),
                Template::Constant(value) => found.push(WhereCondition::Written(json!({ pointer: { "like": value } }))),
                Template::Expression(expr) if !is_pointer => match self.resolve(expr) {
                    ResolvedExpression::Value(value) => {
                        found.push(WhereCondition::Written(json!({ pointer: { "like": value } })))
                    }
                    ResolvedExpression::Source(source) => {
                        found.push(WhereCondition::Equal(pointer, self.comparable_source(source)))
                    }
                },
                Template::Text(_) if !is_pointer => match self.capture_value(written) {
                    NameMeaning::Value(value) => {
                        found.push(WhereCondition::Written(json!({ pointer: { "const": value } })))
                    }
                    NameMeaning::Source(source) => found.push(WhereCondition::Equal(pointer, source)),
                    _ => self.report_unsupported_match(span),
                },
                Template::Map(members) if !is_pointer => self.compile_members(&pointer, members, span, found),
                Template::Map(members) => match members.as_slice() {
                    [(word, Template::Expression(expr))] if word == "const" && !name.ends_with(" or absent") => {
                        match self.resolve(expr) {
                            ResolvedExpression::Value(value) => {
                                found.push(WhereCondition::Written(json!({ pointer: { "const": value } })))
                            }
                            ResolvedExpression::Source(source) => {
                                found.push(WhereCondition::Equal(pointer, self.comparable_source(source)))
                            }
                        }
                    }
                    _ => self.report_unsupported_match(span),
                },
                _ => self.report_unsupported_match(span),
            }
        }
    }

    /// Returns a source for a value to compare with; the value must be known when the frame comes.
    fn comparable_source(&mut self, source: SlotSource) -> SlotSource {
        if matches!(source, SlotSource::Text(_) | SlotSource::Own(_)) {
            return source;
        }
        let text = self.add_text_slot();
        let template = MessageTemplate { pieces: vec![TemplatePiece::Slot { source, inside: false }] };
        self.program.ahead.push((text, SlotFill::Template(template)));
        SlotSource::Text(text)
    }

    /// Whether every frame of `message` is also a frame of `envelope`: it is the same message or its envelope.
    pub fn covers(&self, envelope: MessageId, message: MessageId) -> bool {
        let messages = &self.script.pack.messages;
        let (envelope, message) = (&messages[usize::from(envelope.0)], &messages[usize::from(message.0)]);
        let special = message.matcher.member_conditions();
        envelope.name == message.name
            || envelope.matcher.member_conditions().iter().all(|condition| special.contains(condition))
    }

    /// Compiles the reactions of the plan and of its role.
    pub fn compile_reactions(&mut self) {
        let (script, part) = (self.script, self.part);
        for reaction in &part.reactions {
            self.scopes.push(NameScope::default());
            let binding = reaction.as_.as_ref().map(|name| self.add_frame_binding(name));
            let conditions =
                reaction.pattern.as_ref().map(|pattern| compile_conditions(self, pattern)).unwrap_or_default();
            let measured = Arc::new(self.compile_measurement(&reaction.options));
            self.compile_lines(&reaction.steps);
            self.scopes.pop();
            let message = self.message_id(&reaction.message);
            let program = self.finish_program(None);
            self.pending_reactions.push(PendingReaction { program, message, conditions, binding, measured });
        }
        for name in &script.shared_parts.roles[&part.plays].reacts {
            let Some(reaction) = script.shared_parts.reactions.get(name) else { continue };
            self.scopes.push(NameScope { isolated: true, ..NameScope::default() });
            let binding = reaction.as_.as_ref().map(|name| self.add_frame_binding(name));
            let conditions =
                reaction.pattern.as_ref().map(|pattern| compile_conditions(self, pattern)).unwrap_or_default();
            for step in &script.shared_parts.blocks[reaction.block] {
                self.compile_step(step, &crate::load::plan::script::MeasurementOptions::default());
            }
            self.scopes.pop();
            let message = self.message_id(&reaction.whenever);
            let program = self.finish_program(None);
            self.pending_reactions.push(PendingReaction {
                program,
                message,
                conditions,
                binding,
                measured: Arc::default(),
            });
        }
    }

    fn add_frame_binding(&mut self, name: &str) -> usize {
        let binding = self.add_binding();
        self.bind_name(name, NameMeaning::Frame(binding));
        binding
    }

    /// Adds captures for bound messages that were sent and for answers of hooks.
    pub fn add_captures(&mut self) {
        for (program, op, binding) in std::mem::take(&mut self.kept) {
            let members = &self.bindings[binding].members;
            if members.is_empty() {
                continue;
            }
            let mut captures = MemberCaptures::default();
            let numbers: Option<Vec<(usize, CaptureSlot)>> =
                members.iter().map(|(pointer, slot)| Some((captures.paths.add(pointer)?, *slot))).collect();
            captures.slots = numbers.unwrap_or_default();
            match &mut self.programs[program].ops[op] {
                ProgramOperation::Send(send) => send.captures = Some(captures),
                ProgramOperation::Hook(hook) => hook.captures = captures,
                _ => {}
            }
        }
    }

    /// Builds the lookups by message.
    pub fn build_lookups(&mut self) -> Vec<MessageLookup> {
        let waits = std::mem::take(&mut self.waits);
        let pending_reactions = std::mem::take(&mut self.pending_reactions);
        let count = self.script.pack.messages.len();
        let lookups: Option<Vec<MessageLookup>> = (0..count)
            .map(|n| {
                let message = MessageId(n as u16);
                let mut lookup = MessageLookup::default();
                for wait in &waits {
                    if wait.message.is_none_or(|awaited| self.covers(awaited, message)) {
                        let (tests, equal) = self.compile_tests_and_comparisons(&wait.conditions, &mut lookup.paths)?;
                        let captures = self.captured_slots(wait.binding, &mut lookup.paths)?;
                        let stray = self.stray_mark(wait, &equal, &captures);
                        let received = self.received_texts(wait, &waits, &equal);
                        lookup.entries.push(AwaitedFrame {
                            program: wait.program,
                            op: wait.op,
                            tests,
                            equal,
                            received,
                            captures,
                            stray,
                        });
                    }
                }
                for reaction in &pending_reactions {
                    if self.covers(reaction.message, message) {
                        let (tests, equal) =
                            self.compile_tests_and_comparisons(&reaction.conditions, &mut lookup.paths)?;
                        let captures = self.captured_slots(reaction.binding, &mut lookup.paths)?;
                        let (program, measured) = (reaction.program, Arc::clone(&reaction.measured));
                        lookup.reactions.push(CompiledReaction { program, measured, tests, equal, captures });
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

    /// Returns the compared texts that earlier steps of the program capture from received frames, or compute from them.
    fn received_texts(
        &self,
        wait: &PendingWait,
        waits: &[PendingWait],
        equal: &[(usize, SlotSource)],
    ) -> Vec<CaptureSlot> {
        let earlier = waits.iter().filter(|other| other.program == wait.program && other.op < wait.op);
        let members = earlier.filter_map(|other| other.binding).flat_map(|binding| &self.bindings[binding].members);
        let captured = members.map(|(_, slot)| *slot);
        let computed = self.programs[wait.program].ops[..wait.op].iter().filter_map(|op| match op {
            ProgramOperation::Evaluate { text, .. } => Some(CaptureSlot::Text(*text)),
            _ => None,
        });
        let received: Vec<CaptureSlot> = captured.chain(computed).collect();
        let compared = equal.iter().filter_map(|(_, source)| CaptureSlot::of(source));
        compared.filter(|slot| received.contains(slot)).collect()
    }

    /// Returns the mark of a frame that this step waits for when no task does, if the frame names the item of the step.
    fn stray_mark(
        &self,
        wait: &PendingWait,
        equal: &[(usize, SlotSource)],
        captures: &[(usize, CaptureSlot)],
    ) -> Option<StrayMark> {
        let program = &self.programs[wait.program];
        let ProgramOperation::Expect(expect) = &program.ops[wait.op] else { return None };
        let marking = expect.measured.marking.as_ref()?;
        let place = |source: &SlotSource| {
            let SlotSource::Text(slot) = source else { return None };
            let captured =
                captures.iter().find(|(_, known)| *known == CaptureSlot::Text(*slot)).map(|(number, _)| *number);
            captured.or_else(|| {
                let same = |known: &SlotSource| matches!(known, SlotSource::Text(known) if known == slot);
                equal.iter().find(|(_, known)| same(known)).map(|(number, _)| *number)
            })
        };
        let item = place(marking.item.as_ref().or(program.item.as_ref())?)?;
        Some(StrayMark { mark: marking.mark, item, by: marking.by.as_ref().and_then(place) })
    }

    fn compile_tests_and_comparisons(
        &self,
        conditions: &[WhereCondition],
        paths: &mut MemberPaths,
    ) -> Option<(crate::load::compile::classifier::RawMemberTests, Vec<(usize, SlotSource)>)> {
        let (mut asked, mut equal) = (Vec::new(), Vec::new());
        for condition in conditions {
            match condition {
                // The matcher was compiled before, when the plan was read.
                WhereCondition::Written(written) => {
                    asked.extend(compile_tests(&Matcher::compile(written).ok()?, paths)?)
                }
                WhereCondition::Equal(pointer, source) => equal.push((paths.add(pointer)?, source.clone())),
            }
        }
        Some((asked, equal))
    }

    fn captured_slots(&self, binding: Option<usize>, paths: &mut MemberPaths) -> Option<Vec<(usize, CaptureSlot)>> {
        let members = binding.map(|binding| self.bindings[binding].members.as_slice()).unwrap_or_default();
        members.iter().map(|(pointer, slot)| Some((paths.add(pointer)?, *slot))).collect()
    }
}
