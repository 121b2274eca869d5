//! Compiles steps to operations, in order. Scenes and openings are expanded where they are played.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::awaited::{PendingWait, compile_conditions as conditions_of};
use super::message::cut_at_marks;
use super::scope::{NameMeaning, NameScope, ResolvedExpression};
use super::{RoleCompiler, nanos};
use crate::deviation::{DeviationChange, ROLE_MEMBER};
use crate::load::Nanos;
use crate::load::compile::message_template::{SlotSource, TemplatePiece};
use crate::load::compile::program::{
    ConnectOperation, ExpectOperation, FrameMeasurement, HookOperation, LedgerMarking, MemberCaptures, OperationLabel,
    ProgramOperation, ReceiverCount, SendOperation, SlotFill,
};
use crate::load::ids::{HookId, MessageId, OperationId};
use crate::load::plan::MarkName;
use crate::load::plan::script::{MeasurementOptions, PlanLine};
use crate::scenario::model::{self, AlwaysEntry, ExpectedEvent, MessageName, Step, StepAction};
use crate::scenario::template::Template;
use crate::syntax::duration::parse_duration;
use crate::syntax::source::Span;
use crate::websocket::dial::Dial;

/// The most operations of one program.
const MAX_OPS: usize = 20_000;
/// The most steps of a program whose frame may come early.
const MAX_EARLY: u8 = 64;

/// A message sent in the current program that may still be answered.
#[derive(Debug)]
pub struct SentRequest {
    name: Option<String>,
    message: MessageId,
    op: usize,
    answered: bool,
}

/// Returns the values that the step `joins` passes to the role's opening; `None` for other lines.
pub fn join_values(line: &PlanLine) -> Option<&[(String, Template)]> {
    match line {
        PlanLine::Step { step, .. } => match &step.act {
            StepAction::Join { with } => Some(with),
            _ => None,
        },
        _ => None,
    }
}

impl<'a> RoleCompiler<'a> {
    pub fn compile_lines(&mut self, lines: &'a [PlanLine]) {
        for line in lines {
            self.compile_line(line);
        }
    }

    fn compile_line(&mut self, line: &'a PlanLine) {
        match line {
            PlanLine::Step { step, options } => {
                if self.program.ops.len() >= MAX_OPS {
                    return self.error(step.span, format!("a journey has at most {MAX_OPS} steps"), "");
                }
                self.compile_step(step, options);
            }
            PlanLine::Think { think, .. } => self.program.ops.push(ProgramOperation::Think(*think)),
            PlanLine::Repeat { times, steps, .. } => {
                for _ in 0..*times {
                    self.compile_block(steps);
                }
            }
            PlanLine::Sometimes { share, steps, otherwise, .. } => {
                let chance = self.program.ops.len();
                self.program.ops.push(ProgramOperation::Chance { share: *share, otherwise: 0 });
                self.compile_block(steps);
                let jump = self.program.ops.len();
                self.program.ops.push(ProgramOperation::Jump(0));
                let otherwise_start = self.program.ops.len();
                self.compile_block(otherwise);
                let end = self.program.ops.len();
                self.program.ops[chance] = ProgramOperation::Chance { share: *share, otherwise: otherwise_start };
                self.program.ops[jump] = ProgramOperation::Jump(end);
            }
        }
    }

    /// Compiles steps whose names go out of scope at the end.
    fn compile_block(&mut self, lines: &'a [PlanLine]) {
        self.scopes.push(NameScope::default());
        self.compile_lines(lines);
        self.scopes.pop();
    }

    /// Compiles steps of shared.yaml, which see no names of the plan.
    fn compile_shared_block(&mut self, block: usize) {
        let script = self.script;
        for step in script.shared_parts.blocks.get(block).into_iter().flatten() {
            self.compile_step(step, &MeasurementOptions::default());
        }
    }

    pub fn compile_step(&mut self, step: &'a Step, options: &MeasurementOptions) {
        match &step.act {
            StepAction::Join { .. } => {
                let opening = self.script.shared_parts.roles[&self.part.plays].opening;
                self.scopes.push(NameScope { isolated: true, ..NameScope::default() });
                self.compile_shared_block(opening);
                let names = self.scopes.pop().map(|scope| scope.names).unwrap_or_default();
                self.myself.extend(names);
            }
            StepAction::Connect(connect) => self.compile_connect(connect, step.span),
            StepAction::Send(compose) => {
                let mut sources = Vec::new();
                let (name, value) = self.compile_message(compose, &mut sources);
                let message = self.message_id(&name);
                let marking = self.compile_marking(options);
                let label = options.label.as_ref().and_then(|(label, span)| {
                    self.compile_label(label, *span, message, step.as_.as_ref().map(|name| (&**name, &value)), &sources)
                });
                let op = self.program.ops.len();
                self.sent.push(SentRequest { name: step.as_.clone(), message, op, answered: false });
                let send = SendOperation {
                    message,
                    template: cut_at_marks(&value, &sources),
                    times: None,
                    captures: None,
                    marking,
                    label,
                };
                self.program.ops.push(ProgramOperation::Send(Box::new(send)));
                self.bind_step_frame(step, op);
            }
            StepAction::Expect(expect) => self.compile_expect(step, expect, options),
            StepAction::Play { scene, given, with } => {
                let mut names = std::collections::BTreeMap::new();
                for (name, written) in given {
                    let over = with.iter().find(|(over, _)| over == name).map(|(_, written)| written);
                    names.insert(name.clone(), self.capture_value(over.unwrap_or(written)));
                }
                self.scopes.push(NameScope { names, isolated: true });
                self.compile_shared_block(*scene);
                let names = self.scopes.pop().map(|scope| scope.names).unwrap_or_default();
                if let Some(name) = &step.as_ {
                    self.bind_name(name, NameMeaning::Scene(names));
                }
            }
            StepAction::Hook(hook) => self.compile_hook(step, hook, options),
            StepAction::Close { code, .. } => {
                let code = code.constant().and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
                if code.is_none() {
                    self.error(step.span, "in a load plan the code must be a number", "write `closes: 1000`");
                }
                self.program.ops.push(ProgramOperation::Close(code.unwrap_or(1000)));
            }
            // A scene or an opening of shared.yaml may use steps that a plan cannot.
            _ => self.error(
                step.span,
                format!("the plan plays `{}`, which a load plan cannot do", step.text),
                "write the steps you need in the plan instead of playing this",
            ),
        }
    }

    /// Compiles the label of a message that is sent under this name, with this content.
    fn compile_label(
        &mut self,
        label: &Template,
        span: Span,
        message: MessageId,
        named: Option<(&str, &Value)>,
        sources: &[SlotSource],
    ) -> Option<OperationLabel> {
        let mut sources = sources.to_vec();
        // The members of the message are its constants, and marks of the same slots that the message has.
        let mut names = std::collections::BTreeMap::new();
        if let Some((name, value)) = named {
            names.insert(name.to_owned(), NameMeaning::Value(value.clone()));
            let mut computed = false;
            label.visit_expressions(&mut |expr| {
                let uses = expr.uses.iter().any(|used| used.split('.').next() == Some(name));
                computed |= uses
                    && expr.pointer().is_none_or(|(root, pointer)| root != name || value.pointer(&pointer).is_none());
            });
            if computed {
                let help = format!("write a member of it, such as `label: \"${{{name}.method}}\"`");
                self.error(span, format!("a label can only name members of `{name}`, not compute with them"), help);
                return None;
            }
        }
        self.scopes.push(NameScope { names, isolated: false });
        let mut value = self.with_slot_marks(label, &mut sources);
        self.scopes.pop();
        if let (Template::Text(_), Value::String(text)) = (label, &mut value) {
            // Within a text, a whole value is written without its quotes.
            *text = text.replace(super::message::WHOLE_VALUE_MARK, &super::message::WITHIN_TEXT_MARK.to_string());
        }
        let template = cut_at_marks(&value, &sources);
        let used = template.pieces.iter().filter_map(|piece| match piece {
            TemplatePiece::Slot { source, .. } => Some(source),
            TemplatePiece::Bytes(_) => None,
        });
        let repeatable = |source: &SlotSource| {
            matches!(source, SlotSource::Text(_) | SlotSource::Own(_) | SlotSource::Index | SlotSource::Turn)
        };
        let mut used = used.peekable();
        if used.peek().is_none() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let operation = self.common.operations.find_or_add(message.0.into(), &text);
            return Some(OperationLabel::Fixed(OperationId(operation as u16)));
        }
        if !used.all(repeatable) {
            let help = "name a member that many messages share, such as a method or a type";
            self.error(span, "this label is another one for every message", help);
            return None;
        }
        Some(OperationLabel::Filled(template))
    }

    /// Captures a value at this step, so that later uses see the same one.
    pub fn capture_value(&mut self, written: &Template) -> NameMeaning {
        let mut sources = Vec::new();
        let value = self.with_slot_marks(written, &mut sources);
        self.existing_value(written, &value, &sources).unwrap_or_else(|| {
            let text = self.add_text_slot();
            let fill = SlotFill::Template(cut_at_marks(&value, &sources));
            let late = sources.iter().any(|source| match source {
                SlotSource::Text(slot) => !self.program.ahead.iter().any(|(known, _)| known == slot),
                SlotSource::Own(_) => self.in_opening,
                _ => false,
            });
            if late {
                self.program.ops.push(ProgramOperation::Evaluate { text, fill })
            } else {
                self.program.ahead.push((text, fill))
            }
            NameMeaning::Source(SlotSource::Text(text))
        })
    }

    /// Binds the name of a step to the frame it sends or receives, or to the answer of its hook.
    fn bind_step_frame(&mut self, step: &Step, op: usize) {
        if let Some(name) = &step.as_ {
            let binding = self.add_binding();
            self.bind_name(name, NameMeaning::Frame(binding));
            self.kept.push((self.programs.len(), op, binding));
        }
    }

    fn compile_connect(&mut self, connect: &model::ConnectStep, span: Span) {
        if connect.tries || connect.method.is_some() || connect.http.is_some() {
            self.error(span, "a load plan cannot send a malformed upgrade request", "write `connects:`");
        }
        let mut sources = Vec::new();
        let mut member = |written: &Option<Template>| {
            written.as_ref().map_or(Value::Null, |written| self.with_slot_marks(written, &mut sources))
        };
        let mut value = json!({
            "path": member(&connect.path),
            "query": member(&connect.query),
            "headers": member(&connect.headers),
            "subprotocols": member(&connect.subprotocols),
            "from": member(&connect.from),
        });
        self.apply_upgrade_deviations(&mut value, &mut sources);
        let connect = if sources.is_empty() {
            match Dial::from_json(&value) {
                Ok(dial) => ConnectOperation::Ready(dial),
                Err(why) => return self.error(span, why.to_string(), ""),
            }
        } else {
            ConnectOperation::Filled(cut_at_marks(&value, &sources))
        };
        self.program.ops.push(ProgramOperation::Connect(Box::new(connect)));
    }

    /// Adds the undocumented parts that this hub needs to an upgrade request, as
    /// [`crate::deviation::Deviations::apply_to_upgrade`] does for scenarios.
    fn apply_upgrade_deviations(&mut self, dial: &mut Value, sources: &mut Vec<SlotSource>) {
        let deviations = Arc::clone(&self.carried.deviations);
        let role = &self.part.plays;
        for (index, change) in deviations.upgrades_of(role, false) {
            let name = || NameMeaning::Value(Value::from(role.clone()));
            self.myself.entry(ROLE_MEMBER.to_owned()).or_insert_with(name);
            let mut applies = false;
            if let (Value::Null, Some(path)) = (&dial["path"], &change.path)
                && let Some(path) = self.upgrade_value(path, sources)
            {
                dial["path"] = path;
                applies = true;
            }
            for (member, pairs) in [("headers", &change.headers), ("query", &change.query)] {
                for (name, value) in pairs {
                    let same = |known: &String| match member {
                        "headers" => known.eq_ignore_ascii_case(name),
                        _ => known == name,
                    };
                    if dial[member].as_object().is_none_or(|members| !members.keys().any(same))
                        && let Some(value) = self.upgrade_value(value, sources)
                        && matches!(dial[member], Value::Null | Value::Object(_))
                    {
                        dial[member][name] = value;
                        applies = true;
                    }
                }
            }
            let offered = change.subprotocols.iter().map(|(_, value)| self.upgrade_value(value, sources));
            if let Some(offered) = offered.collect::<Option<Vec<Value>>>().filter(|offered| !offered.is_empty()) {
                dial["subprotocols"] = json!(offered);
                applies = true;
            }
            if applies && !self.upgrade_deviations.contains(&index) {
                self.upgrade_deviations.push(index);
            }
        }
    }

    /// Returns a value of an upgrade request; `None` if the client or the target has no value for an expression in it.
    fn upgrade_value(&mut self, value: &Template, sources: &mut Vec<SlotSource>) -> Option<Value> {
        let mut lacks = false;
        value.visit_expressions(&mut |expression| {
            lacks |= expression.uses.iter().filter_map(|used| used.split_once('.')).any(|(root, name)| {
                match (root, name.split('.').next().unwrap_or_default()) {
                    ("self", name) => {
                        matches!(self.myself.get(name), None | Some(NameMeaning::Value(Value::Null)))
                    }
                    ("hub", name) => self.carried.hub.get(name).is_none_or(Value::is_null),
                    _ => false,
                }
            });
        });
        (!lacks).then(|| self.with_slot_marks(value, sources))
    }

    /// Whether this hub, by a declared deviation, never sends this message.
    fn is_never_sent(&self, message: &MessageName) -> bool {
        let MessageName::Named(name) = message else { return false };
        let messages = &self.script.pack.messages;
        self.carried.deviations.entries().iter().any(|entry| match entry.change {
            DeviationChange::NeverSent { message } => messages[message].name == *name,
            _ => false,
        })
    }

    fn compile_expect(&mut self, step: &'a Step, expect: &'a model::Expectation, options: &MeasurementOptions) {
        let ExpectedEvent::Message { message, pattern } = &expect.want else {
            return self.error(
                step.span,
                format!("`{}` cannot be used in a load plan", step.text),
                "a plan can only expect messages",
            );
        };
        if expect.count.is_some() {
            return self.error(
                step.span,
                "a load plan cannot count frames",
                "each step consumes one frame; leave `count` out",
            );
        }
        // Nothing to wait for.
        if self.is_never_sent(message) && options.or.is_none() {
            return;
        }
        let message = match message {
            MessageName::Named(name) => Some(self.message_id(name)),
            _ => None,
        };
        let conditions = pattern.as_ref().map(|pattern| conditions_of(self, pattern)).unwrap_or_default();
        let correlated = conditions.iter().any(super::awaited::WhereCondition::depends_on_journey);
        let bits =
            self.program.ops.iter().filter(|op| matches!(op, ProgramOperation::Expect(e) if e.early.is_some())).count()
                as u8;
        let answers = self.answered_request(message, options);
        let refusals = answers.map(|(asked, _)| self.other_replies(asked, message, options)).unwrap_or_default();
        let within = self.compile_timeout(expect.within.as_ref());
        let op = self.program.ops.len();
        let binding = step.as_.as_ref().map(|name| {
            let binding = self.add_binding();
            self.bind_name(name, NameMeaning::Frame(binding));
            binding
        });
        // Follows the binding, since the measured values are in the received frame.
        let measured = self.compile_measurement(options);
        self.waits.push(PendingWait { program: self.programs.len(), op, message, conditions, binding });
        if let Some((other, pattern)) = &options.or {
            let conditions = pattern.as_ref().map(|pattern| conditions_of(self, pattern)).unwrap_or_default();
            let message = Some(self.message_id(other));
            self.waits.push(PendingWait { program: self.programs.len(), op, message, conditions, binding });
        }
        self.program.ops.push(ProgramOperation::Expect(Box::new(ExpectOperation {
            span: step.span,
            message,
            within,
            answers,
            may_stay_unanswered: options.may_stay_unanswered,
            refusals,
            early: (correlated && bits < MAX_EARLY).then_some(bits),
            measured,
        })));
    }

    /// Returns the request that a message answers: the one that `answers` names, or the latest one with this documented
    /// reply.
    fn answered_request(
        &mut self,
        message: Option<MessageId>,
        options: &MeasurementOptions,
    ) -> Option<(MessageId, usize)> {
        let place = match &options.answers {
            Some((name, span)) => {
                let place = self.sent.iter().rposition(|sent| sent.name.as_ref() == Some(name));
                if place.is_none() {
                    self.error(
                        *span,
                        format!("no earlier step sends a message as `{name}`"),
                        "`answers` takes the name that an earlier `sends` binds with `as`",
                    );
                }
                place?
            }
            None => self.sent.iter().rposition(|sent| !sent.answered && self.is_reply(sent.message, message))?,
        };
        let sent = &mut self.sent[place];
        sent.answered = true;
        let (asked, op) = (sent.message, sent.op);
        let slot = self.program.times;
        self.program.times += 1;
        match &mut self.program.ops[op] {
            ProgramOperation::Send(send) => {
                // The first answer has allocated the index.
                let times = *send.times.get_or_insert(slot);
                Some((asked, times))
            }
            _ => None,
        }
    }

    fn is_reply(&self, asked: MessageId, message: Option<MessageId>) -> bool {
        let pack = &self.script.pack;
        let replies = &pack.messages[usize::from(asked.0)].replies;
        match message {
            None => true,
            Some(message) => replies.iter().any(|reply| {
                let reply = self.message_id(reply);
                reply == message || self.covers(message, reply)
            }),
        }
    }

    /// Returns the documented replies to the request after which the expected one will not come. The messages of a
    /// streamed reply that come before its last one are not among them.
    fn other_replies(
        &self,
        asked: MessageId,
        expected: Option<MessageId>,
        options: &MeasurementOptions,
    ) -> Vec<MessageId> {
        let Some(expected) = expected else { return Vec::new() };
        let carried: Vec<MessageId> = options.carries.iter().map(|name| self.message_id(name)).collect();
        let replies =
            self.script.pack.messages[usize::from(asked.0)].replies.iter().map(|reply| self.message_id(reply));
        replies
            .filter(|reply| *reply != expected && !self.covers(expected, *reply))
            .filter(|reply| !carried.iter().any(|one| self.covers(*one, *reply)))
            .filter(|reply| !self.is_carried(asked, expected, *reply))
            .collect()
    }

    /// Whether, by the lifecycles of shared.yaml, a reply belongs to an id that the request opens and the expected
    /// message closes.
    fn is_carried(&self, asked: MessageId, expected: MessageId, reply: MessageId) -> bool {
        let opened = || {
            self.script.shared_parts.always.iter().filter_map(|entry| match entry {
                AlwaysEntry::Lifecycle(cycle) if cycle.opens.contains(&asked.0.into()) => Some(cycle),
                _ => None,
            })
        };
        let [expected, reply] = [expected, reply].map(|message| usize::from(message.0));
        opened().any(|cycle| cycle.carries.contains(&reply) && cycle.closes.contains(&expected))
            && !opened().any(|cycle| cycle.closes.contains(&reply))
    }

    fn compile_timeout(&mut self, written: Option<&Template>) -> Nanos {
        let Some(written) = written else { return nanos(self.script.patience) };
        let mut sources = Vec::new();
        let value = self.with_slot_marks(written, &mut sources);
        let time = match &value {
            _ if !sources.is_empty() => None,
            Value::String(text) => parse_duration(text).ok(),
            // In an expression, a setting that is a time has its value in seconds.
            value => value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        };
        if time.is_none() {
            let mut span = None;
            written.visit_expressions(&mut |expr| span = span.or(Some(expr.span)));
            if let Some(span) = span {
                self.error(span, "this time is not known before the run", "write 300ms, 5s or 2m");
            }
        }
        nanos(time.unwrap_or(Duration::from_secs(1)))
    }

    /// Compiles the measurements of a received frame.
    pub fn compile_measurement(&mut self, options: &MeasurementOptions) -> FrameMeasurement {
        let delivers = options.delivers.as_ref().zip(options.sent_at.as_ref());
        let delivers =
            delivers.and_then(|((name, _), written)| Some((self.message_id(name), self.single_source(written)?)));
        FrameMeasurement { marking: self.compile_marking(options), delivers }
    }

    fn compile_marking(&mut self, options: &MeasurementOptions) -> Option<LedgerMarking> {
        let (mark, _) = options.marks?;
        let item = options.item.as_ref().and_then(|written| self.single_source(written));
        let by = options.by.as_ref().and_then(|written| self.single_source(written));
        let receivers = match (&options.to, mark) {
            (Some(Template::Constant(Value::Number(n))), _) => {
                Some(ReceiverCount::Always(n.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX)))
            }
            (Some(Template::Expression(expr)), MarkName::Published) => match self.resolve(expr) {
                ResolvedExpression::Value(value) => {
                    let number = value.as_f64().filter(|n| (0.0..4e9).contains(n)).map(|n| n as u32);
                    if number.is_none() {
                        self.error(expr.span, format!("`to` must be a number of receivers, not {value}"), "");
                    }
                    number.map(ReceiverCount::Always)
                }
                ResolvedExpression::Source(source) => Some(ReceiverCount::Filled(source)),
            },
            _ => None,
        };
        let back = options.back_within.as_ref().map_or(0, |written| self.compile_timeout(Some(written)) / 1_000_000);
        let back_ms = u32::try_from(back).unwrap_or(u32::MAX);
        Some(LedgerMarking { mark, item, by, back_ms, receivers })
    }

    fn compile_hook(&mut self, step: &Step, hook: &model::HookStep, options: &MeasurementOptions) {
        if let Some(pattern) = &hook.pattern {
            self.error(
                pattern.span,
                "a load plan calls a hook once, without waiting for a condition",
                "leave `where` out",
            );
        }
        let place = self.carried.hooks.iter().position(|known| *known == hook.name).unwrap_or_else(|| {
            self.carried.hooks.push(hook.name.clone());
            self.carried.hooks.len() - 1
        });
        let mut sources = Vec::new();
        let args = hook.args.as_ref().map_or_else(|| json!({}), |args| self.with_slot_marks(args, &mut sources));
        let mut call = json!({ "args": args });
        if let Some(compose) = &hook.message {
            call["message"] = self.compile_message(compose, &mut sources).1;
        }
        let within = self.compile_timeout(hook.within.as_ref());
        let marking = self.compile_marking(options);
        let op = self.program.ops.len();
        let template = cut_at_marks(&call, &sources);
        self.program.ops.push(ProgramOperation::Hook(Box::new(HookOperation {
            hook: HookId(place as u16),
            template,
            captures: MemberCaptures::default(),
            within,
            marking,
        })));
        self.bind_step_frame(step, op);
    }
}
