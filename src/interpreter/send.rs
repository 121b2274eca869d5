//! The steps with which actors connect, send and close, and the reactions of actors.

use std::sync::Arc;

use serde_json::Value;

use super::active_step::{StepFailure, StepFailureKind};
use super::actor::{ClosingHandshake, ConnectionState, KEPT_FRAMES, MAX_SHOWN, SentFrame};
use super::blocks::{BlockFrame, BlockKind, StepProgress};
use super::checks::{compare, evaluate_for_step, value_failure};
use super::finding::ComparisonOutcome;
use super::steps::{StepResult, group_values};
use super::{Conversation, ConversationOutput};
use crate::deviation::UpgradingClient;
use crate::outcome::{CheckOutcome, FrameKind, HistoryDirection};
use crate::protocol::{FrameDirection, Pack};
use crate::scenario::compose;
use crate::scenario::model::{ActorId, ConnectStep, MessageComposition, MessageName, Step, StepAction};
use crate::scenario::template::Template;
use crate::scenario::value::{BoundValue, Provenance, Traced, Wire, pick_wire};
use crate::scenario::variation::{TextForm, Variation};
use crate::syntax::matcher::shorten;
use crate::websocket::dial::Dial;
use crate::websocket::endpoint::Endpoint;
use crate::websocket::frame::{ConnectionEvent, Frame, Opcode};

/// Most connections of a listening actor that wait, and most events of each that are kept.
const MAX_WAITING_CONNECTIONS: usize = 16;
const MAX_WAITING_EVENTS: usize = 256;

/// Headers of an upgrade as browsers and proxies may write them.
const SPELT_OTHERWISE: [(&str, &str); 2] = [("Upgrade", "WebSocket"), ("Connection", "keep-alive, upgrade")];

impl Conversation {
    /// Returns the upgrade request of an actor, its address, and the indices of the deviations that applied to it.
    pub(super) fn connect_options(
        &self,
        id: ActorId,
        connect: &ConnectStep,
    ) -> Result<(Dial, Endpoint, Vec<usize>), StepFailure> {
        let names = self.eval_context(Some(id));
        let mut members = serde_json::Map::new();
        for (name, template) in [
            ("path", &connect.path),
            ("query", &connect.query),
            ("headers", &connect.headers),
            ("subprotocols", &connect.subprotocols),
            ("from", &connect.from),
            ("method", &connect.method),
            ("http", &connect.http),
        ] {
            if let Some(template) = template {
                members.insert(name.to_owned(), evaluate_for_step(template, &names)?.value);
            }
        }
        let mut dial =
            Dial::from_json(&Value::Object(members)).map_err(|error| StepFailure::mistake(error.to_string()))?;
        let client = UpgradingClient { role: self.program.registering_role(id), tries: connect.tries, names: &names };
        let applied = self.deviations.declared.apply_to_upgrade(&mut dial, &client).map_err(StepFailure::mistake)?;
        if self.variation == Some(Variation::Upgrade) && dial.is_standard() {
            dial.headers.extend(SPELT_OTHERWISE.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let address = dial.address(&self.hub).map_err(|error| StepFailure::mistake(error.to_string()))?;
        // A pack may be a stranger's. A hub may well name another address for its clients.
        let from_hub = connect.path.as_ref().and_then(|path| path.wire(&names)).is_some_and(|wire| wire.from_hub);
        let texts = std::iter::once(address.to_string()).chain(dial.headers.iter().map(|(_, value)| value.clone()));
        if address.authority() != self.hub.authority()
            && !from_hub
            && texts.chain(dial.subprotocols.iter().cloned()).any(|text| self.history.masker.finds_in(&text))
        {
            let what = format!("a secret of the target would go to another address, {}", address.authority());
            return Err(StepFailure::mistake(what));
        }
        Ok((dial, address, applied))
    }

    pub(super) fn connect_actor(&mut self, id: ActorId, (dial, address, deviations): (Dial, Endpoint, Vec<usize>)) {
        if let Some(connection) = self.actors.open_connection(id) {
            self.record_frame(id, connection, HistoryDirection::Sent, FrameKind::Fin, "", 0);
            self.out.push(ConversationOutput::End { connection, reset: false });
        }
        let connection = self.actors.connections.len() as u32;
        self.assign_connection(id, connection);
        self.actors[id].latest.standard_upgrade = dial.is_standard();
        self.actors[id].latest.upgrade_deviations = deviations;
        self.actors[id].latest.address = Some(address.to_string());
        self.out.push(ConversationOutput::Open { connection, dial });
    }

    /// Gives an actor a new connection after judging its previous one.
    pub(super) fn assign_connection(&mut self, id: ActorId, connection: u32) {
        self.leave_connection(id);
        self.actors.connections.insert(connection, id);
        self.actors[id].reset_connection(connection);
    }

    /// Gives a listening actor a new connection; if it has one that a step has accepted, the new one waits for the next
    /// such step.
    pub(super) fn accept_connection(&mut self, id: ActorId, connection: u32) {
        let actor = &mut self.actors[id];
        let is_spent = || actor.accepted != actor.connection && !actor.is_open();
        if self.program.is_above_hub(id) || actor.connection.is_none() || is_spent() {
            self.assign_connection(id, connection);
        } else if actor.waiting.len() < MAX_WAITING_CONNECTIONS {
            actor.waiting.push_back((connection, Vec::new()));
        }
    }

    /// Gives a listening actor the first connection that waits, if it needs one.
    pub(super) fn take_waiting_connection(&mut self, id: ActorId) {
        if matches!(self.actors[id].link, ConnectionState::Idle)
            && let Some((connection, events)) = self.actors[id].waiting.pop_front()
        {
            self.assign_connection(id, connection);
            for event in events {
                self.receive(connection, event);
            }
        }
    }

    /// Keeps what comes on a connection that waits, up to a limit.
    pub(super) fn keep_waiting(&mut self, connection: u32, event: ConnectionEvent) {
        for id in self.actors.ids() {
            let found = self.actors[id].waiting.iter_mut().find(|(waiting, _)| *waiting == connection);
            if let Some((_, events)) = found.filter(|(_, events)| events.len() < MAX_WAITING_EVENTS) {
                events.push(event);
                return;
            }
        }
    }

    pub(super) fn send_for_each(
        &mut self,
        members: &[ActorId],
        step: &Step,
        mut send: impl FnMut(&mut Self, ActorId) -> Result<Option<BoundValue>, StepFailure>,
    ) -> StepResult {
        let mut items = Vec::new();
        for id in members {
            // Members without a connection are skipped.
            if self.actors[*id].is_open() {
                items.extend(send(self, *id)?);
            }
        }
        if items.is_empty() && step.as_.is_some() {
            return Ok(StepProgress::Done(None));
        }
        Ok(StepProgress::Done(Some(group_values(step, items))))
    }

    pub(super) fn send_message(
        &mut self,
        id: ActorId,
        compose: &MessageComposition,
    ) -> Result<Option<BoundValue>, StepFailure> {
        let ComposedMessage { name, value, wire } = self.compose_message(Some(id), compose)?;
        let way = if self.program.is_above_hub(id) { FrameDirection::FromHub } else { FrameDirection::ToHub };
        let unusual = compose.breaks.is_none().then(|| self.swap_values(way, &value)).flatten();
        let of_hub = self.deviations.sent(&self.program.pack, &value, &self.environment.functions);
        let sent = unusual.as_ref().or(of_hub.as_ref()).unwrap_or(&value);
        // Faster than `to_string`.
        let mut text = serde_json::to_string(sent).unwrap_or_default();
        let variation = self.variation.as_ref().filter(|_| compose.breaks.is_none());
        if let Some(other) = variation.and_then(|variation| variation.text_of(sent, &text)) {
            text = other;
        }
        let mut frames = if variation == Some(&Variation::Form(TextForm::Fragments)) && compose.fragments <= 1 {
            odd_frames(&text, !self.actors[id].latest.has_sent)
        } else {
            split_into_frames(text.as_bytes(), compose.fragments)
        };
        if self.program.is_server(id) {
            frames = frames.into_iter().map(Frame::unmasked).collect();
        }
        let mut sent = self.transmit(id, frames, FrameKind::Text, &text, text.len(), wire.as_deref());
        if unusual.is_some() {
            // The scenario sees what it sent.
            sent = sent.map(|wire| Arc::new(Wire { text: value.to_string().into(), ..Wire::clone(&wire) }));
        }
        if let Some(wire) = &sent {
            let message = self.program.pack.message_index(&name);
            if let Some(latest) = self.actors.sent.back_mut() {
                latest.message = message;
            }
            self.actors[id].latest.record_request(message, wire);
            self.record_exchange(id, message, &value, compose.breaks.is_none(), wire);
        }
        self.assume_after(id, &value);
        Ok(sent.map(|wire| BoundValue::One { value, wire: Some(wire) }))
    }

    /// Returns a message with the unusual values of the variation; `None` if it is sent as it is.
    pub(super) fn swap_values(&mut self, way: FrameDirection, value: &Value) -> Option<Value> {
        let swap = self.values.as_mut()?;
        swap.swap(&self.program.pack.recognise(value, way)?.name, value)
    }

    pub(super) fn transmit(
        &mut self,
        id: ActorId,
        frames: Vec<Frame>,
        kind: FrameKind,
        text: &str,
        size: usize,
        source: Option<&Wire>,
    ) -> Option<Arc<Wire>> {
        let connection = self.actors[id].connection?;
        let sequence = self.history.next_event();
        let masker = Arc::clone(&self.history.masker);
        let masked = masker.mask_frame(text);
        let frame = self.frame_report(id, connection, HistoryDirection::Sent, kind, &masked, size);
        self.add_frame(frame);
        let shown = shorten(&masked, MAX_SHOWN);
        self.actors.sent.push_back(SentFrame { actor: id, sequence, kind, message: None, text: shown });
        if self.actors.sent.len() > KEPT_FRAMES {
            self.actors.sent.pop_front();
        }
        self.actors[id].latest.has_sent = true;
        self.actors[id].latest.last_sent_at = self.clock.now;
        if let Some(frames) = self.join_frames(connection, frames) {
            self.out.push(ConversationOutput::Send { connection, frames });
        }
        self.count_send();
        let from_hub = source.is_some_and(|wire| wire.from_hub);
        let provenance = source.map_or(Provenance::Observed, |wire| wire.provenance);
        self.judgement.rest_on(provenance);
        Some(Arc::new(Wire {
            from_hub,
            provenance,
            ..self.new_wire(id, connection, sequence, kind.name(), text, size)
        }))
    }

    /// Returns a frame as this actor sends it: servers mask nothing.
    pub(super) fn frame_of(&self, id: ActorId, frame: Frame) -> Frame {
        if self.program.is_server(id) { frame.unmasked() } else { frame }
    }

    /// Pings the hub and sends an unsolicited pong.
    pub(super) fn send_ping(&mut self, id: ActorId) {
        let frames = vec![self.frame_of(id, Frame::ping("hubproof")), self.frame_of(id, Frame::pong(""))];
        self.transmit(id, frames, FrameKind::Ping, "hubproof, and a pong", 8, None);
    }

    /// Builds a message to send: takes its example, fills in the values of `fills`, merges `with`, and removes the
    /// members of `without`.
    pub(super) fn compose_message(
        &self,
        id: Option<ActorId>,
        compose: &MessageComposition,
    ) -> Result<ComposedMessage, StepFailure> {
        let names = self.eval_context(id);
        let name = match &compose.message {
            MessageName::Any => return Err(StepFailure::mistake("`any` cannot be sent")),
            MessageName::Named(name) => name.clone(),
            MessageName::Computed(template) => match evaluate_for_step(template, &names)?.value {
                Value::String(name) => name,
                other => return Err(value_failure(format!("{other} is not the name of a message"), template, &names)),
            },
        };
        let Some(message) = self.program.pack.message(&name) else {
            return Err(StepFailure::mistake(format!("{} has no message `{name}`", self.program.pack.name)));
        };
        let mut value = message.starting_value();
        let mut wires = Vec::new();
        let role =
            id.or_else(|| self.blocks.myself()).and_then(|id| self.program.roles.get(&self.program.actors[id].role));
        for (place, template) in role.map(|role| role.fills.as_slice()).unwrap_or_default() {
            if let Some(pointer) = compose::filled_member(place, &name, &value) {
                compose::put_at_pointer(&mut value, &pointer, evaluate_for_step(template, &names)?.value);
                wires.extend(template.wire(&names));
            }
        }
        if let Some(with) = &compose.with {
            wires.extend(with.wire(&names));
            compose::merge_overrides(&mut value, &evaluate_for_step(with, &names)?.value);
        }
        let wire = pick_wire(wires);
        let from_hub = wire.as_ref().is_some_and(|wire| wire.from_hub);
        compose::remove_members(&mut value, &compose.without);
        let broken = message.schema.violations(&value).into_iter().find(|violation| !violation.should);
        match (&compose.breaks, broken) {
            (None, Some(violation)) if from_hub => {
                let what = format!(
                    "`{name}` cannot be built from what the hub sent: {}: expected {}, found {}",
                    violation.describe_place(),
                    violation.expected,
                    violation.found
                );
                Err(StepFailure::undecided(what, None))
            }
            (None, Some(violation)) => Err(StepFailure::mistake(format!(
                "this `{name}` breaks its schema at {}: expected {}, found {}; add `breaks: REASON` if that is intended",
                violation.describe_place(),
                violation.expected,
                violation.found
            ))),
            (Some(_), None) if message.directions.to_hub && !id.is_some_and(|id| self.program.is_above_hub(id)) => {
                Err(StepFailure::mistake(format!("this `{name}` is valid, so `breaks` is wrong; remove it")))
            }
            _ => Ok(ComposedMessage { name, value, wire }),
        }
    }

    pub(super) fn send_raw(&mut self, id: ActorId, template: &Template) -> Result<Option<BoundValue>, StepFailure> {
        let names = self.eval_context(Some(id));
        let value = evaluate_for_step(template, &names)?.value;
        let source = template.wire(&names);
        let connection = self.actors[id].connection.unwrap_or_default();
        let Some((kind, content)) = value.as_object().and_then(|members| members.iter().next()) else {
            return Err(StepFailure::mistake("`sends raw` takes exactly one of text, binary, frames and bytes"));
        };
        let server = self.program.is_server(id);
        let mut shown = String::new();
        let mut opcode = FrameKind::Text;
        // The documented texts that the hub receives.
        let mut requests = Vec::new();
        let mut frames = match (kind.as_str(), content) {
            ("text", Value::String(text)) => {
                shown = self.deviations.sent_text(&self.program.pack, text, &self.environment.functions);
                requests.push(text.clone());
                vec![Frame::text(shown.as_bytes())]
            }
            ("binary", Value::String(text)) => {
                opcode = FrameKind::Binary;
                shown.clone_from(text);
                vec![Frame::binary(parse_hex(text)?)]
            }
            ("frames", Value::Array(items)) => {
                opcode = FrameKind::Frames;
                let documented: Vec<Frame> =
                    items.iter().map(|item| parse_raw_frame(item, !server)).collect::<Result<_, _>>()?;
                requests = self.texts_in_frames(id, &documented);
                let frames = self.translate_frames(documented);
                shown = frames.as_ref().map_or_else(|_| content.to_string(), |frames| shown_frames(items, frames));
                frames.unwrap_or_else(|unchanged| unchanged)
            }
            ("bytes", Value::String(text)) => {
                let bytes = parse_hex(text)?;
                self.record_frame(id, connection, HistoryDirection::Sent, FrameKind::Bytes, text, bytes.len());
                let requests = self.texts_in_bytes(id, &bytes);
                self.record_raw_exchange(id, None);
                self.actors[id].latest.has_sent = true;
                self.actors[id].latest.may_leave_pings = true;
                self.out.push(ConversationOutput::SendBytes { connection, bytes });
                requests.iter().for_each(|text| self.assume_after_text(id, text));
                return Ok(None);
            }
            _ => return Err(StepFailure::mistake("`sends raw` takes exactly one of text, binary, frames and bytes")),
        };
        if server && kind != "frames" {
            frames = frames.into_iter().map(Frame::unmasked).collect();
        }
        let text = content.as_str().filter(|_| kind == "text");
        let plain = text.and_then(|text| plain_message(&self.program.pack, text));
        let is_control = |frame: &Frame| frame.opcode.is_control() && frame.fin && frame.rsv == 0;
        if plain.is_none() && !frames.iter().all(is_control) {
            self.record_raw_exchange(id, text);
        }
        let size = frames.iter().map(|frame| frame.payload.len()).sum();
        let wire = self.transmit(id, frames, opcode, &shown, size, source.as_deref());
        if let Some(wire) = &wire {
            self.actors[id].latest.record_request(None, wire);
            if let Some((message, value)) = plain {
                self.record_exchange(id, Some(message), &value, true, wire);
            }
        }
        requests.iter().for_each(|text| self.assume_after_text(id, text));
        Ok(wire.map(|wire| BoundValue::One { value: value.clone(), wire: Some(wire) }))
    }

    pub(super) fn close_connection(
        &mut self,
        id: ActorId,
        code: &Template,
        reason: Option<&Template>,
    ) -> Result<Option<BoundValue>, StepFailure> {
        let names = self.eval_context(Some(id));
        let code = match evaluate_for_step(code, &names)?.value {
            Value::Null => None,
            Value::Number(code) => code.as_u64().and_then(|code| u16::try_from(code).ok()),
            other => return Err(value_failure(format!("{other} is not a close code"), code, &names)),
        };
        let reason = match reason.map(|reason| evaluate_for_step(reason, &names)).transpose()? {
            Some(Traced { value: Value::String(reason), .. }) => reason,
            _ => String::new(),
        };
        let frame = self.frame_of(id, Frame::close(code, &reason));
        let text = code.map_or_else(String::new, |code| format!("{code} {reason}"));
        let wire = self.transmit(id, vec![frame], FrameKind::Close, text.trim_end(), text.len(), None);
        self.record_step_end(id);
        self.actors[id].latest.closing = ClosingHandshake::Sent;
        Ok(wire.map(|wire| BoundValue::One { value: Value::Null, wire: Some(wire) }))
    }

    pub(super) fn drop_connection(&mut self, id: ActorId, reset: bool) {
        if let Some(connection) = self.actors.open_connection(id) {
            self.record_frame(
                id,
                connection,
                HistoryDirection::Sent,
                if reset { FrameKind::Reset } else { FrameKind::Fin },
                "",
                0,
            );
            self.out.push(ConversationOutput::End { connection, reset });
            self.record_step_end(id);
        }
    }

    /// Records that a step of this actor ended the connection.
    pub(super) fn record_step_end(&mut self, id: ActorId) {
        let sequence = self.history.next_event();
        self.record_own_end(id, sequence, String::new(), true);
    }

    /// Plays the reactions of an actor's role to a received message.
    pub(super) fn play_reactions(
        &mut self,
        id: ActorId,
        found: Option<usize>,
        json: &Value,
        wire: &Arc<Wire>,
        way: FrameDirection,
    ) {
        let program = Arc::clone(&self.program);
        let Some(role) = program.roles.get(&program.actors[id].role) else { return };
        for reaction in role.reacts.iter().filter_map(|name| program.reactions.get(name)) {
            let Some(wanted) = program.pack.message_index(&reaction.whenever) else { continue };
            let is = |way| program.pack.is_message(wanted, found, json, way);
            if !(is(way) || is(FrameDirection::FromHub)) || !self.actors[id].is_open() {
                continue;
            }
            let came = || BoundValue::One { value: json.clone(), wire: Some(Arc::clone(wire)) };
            let names = reaction.as_.iter().map(|name| (name.clone(), came())).collect();
            let kind = BlockKind::Opening { rest: Vec::new() };
            self.blocks.push(BlockFrame { names, kind, me: Some(id), ..BlockFrame::body(reaction.block) });
            let fits = reaction.pattern.as_ref().is_none_or(|pattern| {
                let subject = Traced::observed(json);
                matches!(compare(pattern, subject, &self.eval_context(Some(id))), ComparisonOutcome::Holds)
            });
            let steps = program.blocks[reaction.block].iter().filter(|_| fits);
            // An automatic answer is not a request whose answer a later step expects.
            let requests = std::mem::take(&mut self.actors[id].latest.requests);
            let failure = steps
                .map(|step| self.play_reaction_step(id, step).map_err(|failure| (step.span, failure)))
                .find_map(Result::err);
            self.actors[id].latest.requests = requests;
            self.blocks.stack.pop();
            match failure {
                None => {}
                Some((span, StepFailure { kind: StepFailureKind::Mistake, message, .. })) => {
                    let what = format!("reaction to {}: {message}", reaction.whenever);
                    self.judgement.record_mistake(what, Some(span));
                }
                // A value from the hub cannot be used. The schema of the message covers such values.
                Some((_, failure)) => {
                    let why = format!("no reaction to `{}`: {}", reaction.whenever, failure.message);
                    let label = format!("reaction:{}", reaction.whenever);
                    self.judgement.record_invariant(
                        &label,
                        Vec::new(),
                        CheckOutcome::Undecided(why.clone()),
                        why,
                        None,
                    );
                }
            }
        }
    }

    fn play_reaction_step(&mut self, id: ActorId, step: &Step) -> Result<Option<BoundValue>, StepFailure> {
        match &step.act {
            StepAction::Send(compose) => self.send_message(id, compose),
            StepAction::SendRaw(template) => self.send_raw(id, template),
            StepAction::Close { code, reason } => self.close_connection(id, code, reason.as_ref()),
            StepAction::Drop { reset } => {
                self.drop_connection(id, *reset);
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// Returns raw frames as the history shows them: those of `items`, with the payloads that were sent.
fn shown_frames(items: &[Value], frames: &[Frame]) -> String {
    let shown = items.iter().zip(frames).map(|(item, frame)| {
        let mut item = item.clone();
        if let Some(members) = item.as_object_mut().filter(|_| !frame.opcode.is_control()) {
            members.remove("hex");
            members.insert("data".to_owned(), Value::from(String::from_utf8_lossy(&frame.payload)));
        }
        item
    });
    Value::Array(shown.collect()).to_string()
}

/// A message to send, and the wire of a frame that its values come from.
pub(super) struct ComposedMessage {
    /// The name of the message.
    pub name: String,
    pub value: Value,
    pub wire: Option<Arc<Wire>>,
}

impl ComposedMessage {
    pub(super) fn provenance(&self) -> Provenance {
        self.wire.as_ref().map_or(Provenance::Observed, |wire| wire.provenance)
    }
}

/// Splits a text into frames of about equal size; a split may fall inside a character.
fn split_into_frames(bytes: &[u8], count: usize) -> Vec<Frame> {
    if count <= 1 {
        return vec![Frame::text(bytes)];
    }
    (0..count)
        .map(|i| {
            let piece = &bytes[bytes.len() * i / count..bytes.len() * (i + 1) / count];
            let mut frame = Frame::text(piece);
            frame.fin = i + 1 == count;
            if i > 0 {
                frame.opcode = Opcode::Continuation;
            }
            frame
        })
        .collect()
}

/// Splits a text as few clients do: within a character, with an empty first and last frame and, if asked to, a ping in
/// the middle.
fn odd_frames(text: &str, with_ping: bool) -> Vec<Frame> {
    let bytes = text.as_bytes();
    let middle = bytes.iter().position(|byte| !byte.is_ascii()).map_or(bytes.len() / 2, |first| first + 1);
    let part = |bytes: &[u8], opcode, fin| Frame { fin, opcode, ..Frame::text(bytes) };
    let mut frames = vec![part(&[], Opcode::Text, false), part(&bytes[..middle], Opcode::Continuation, false)];
    frames.extend(with_ping.then(|| Frame::ping("between")));
    frames.push(part(&bytes[middle..], Opcode::Continuation, false));
    frames.push(part(&[], Opcode::Continuation, true));
    frames
}

fn parse_hex(text: &str) -> Result<Vec<u8>, StepFailure> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bad =
        || StepFailure::mistake(format!("`{}` is not hexadecimal bytes", crate::syntax::matcher::shorten(text, 60)));
    if !digits.len().is_multiple_of(2) {
        return Err(bad());
    }
    digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(bad))
        .collect()
}

/// Returns the message that a raw text is, and its index, if every hub reads the text alike: it fits its schema, and is
/// written as `sends` writes messages, with an id that any parser keeps.
fn plain_message(pack: &Pack, text: &str) -> Option<(usize, Value)> {
    let value: Value = serde_json::from_str(text).ok()?;
    serde_json::to_string(&value).ok().filter(|written| written == text)?;
    let message = pack.recognise(&value, FrameDirection::ToHub)?;
    let is_plain = message.has_plain_id(&value) && !message.abstract_ && message.schema.violations(&value).is_empty();
    Some((pack.message_index(&message.name)?, value)).filter(|_| is_plain)
}

/// Reads a frame of `sends raw`. `masks` says whether to mask a frame without `mask`: clients mask, servers do not.
fn parse_raw_frame(value: &Value, masks: bool) -> Result<Frame, StepFailure> {
    let opcode = match value.get("opcode") {
        Some(Value::String(name)) => match name.as_str() {
            "continuation" => Opcode::Continuation,
            "text" => Opcode::Text,
            "binary" => Opcode::Binary,
            "close" => Opcode::Close,
            "ping" => Opcode::Ping,
            "pong" => Opcode::Pong,
            other => return Err(StepFailure::mistake(format!("`{other}` is not an opcode"))),
        },
        Some(Value::Number(n)) => Opcode::from_bits(n.as_u64().unwrap_or(0) as u8),
        _ => {
            return Err(StepFailure::mistake(
                "a frame needs an `opcode`: text, binary, continuation, close, ping, pong or a number",
            ));
        }
    };
    let payload = match (value.get("data"), value.get("hex")) {
        (Some(Value::String(text)), None) => text.clone().into_bytes(),
        (None, Some(Value::String(text))) => parse_hex(text)?,
        (None, None) => Vec::new(),
        _ => return Err(StepFailure::mistake("a frame takes `data` (text) or `hex`, not both")),
    };
    let flag = |name: &str, default: bool| value.get(name).and_then(Value::as_bool).unwrap_or(default);
    let rsv = value.get("rsv").and_then(Value::as_u64).unwrap_or(0) as u8;
    Ok(Frame { fin: flag("fin", true), rsv, opcode, masked: flag("mask", masks), payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_frames_split_a_character_between_empty_frames() {
        let shape = |with_ping| -> Vec<(Opcode, bool, Vec<u8>)> {
            let frames = odd_frames("aé", with_ping);
            frames.into_iter().map(|frame| (frame.opcode, frame.fin, frame.payload)).collect()
        };
        let part = |opcode, payload: &[u8]| (opcode, false, payload.to_vec());
        let (text, more) = (Opcode::Text, Opcode::Continuation);
        let [start, first, second] = [part(text, b""), part(more, b"a\xc3"), part(more, b"\xa9")];
        let end = (more, true, Vec::new());
        assert_eq!(shape(false), [start.clone(), first.clone(), second.clone(), end.clone()]);
        assert_eq!(shape(true), [start, first, (Opcode::Ping, true, b"between".to_vec()), second, end]);
    }
}
