//! The steps with which actors connect, send and close, and the reactions of actors.

use std::sync::Arc;

use serde_json::Value;

use super::active_step::{Failure, Kind};
use super::actor::Closing;
use super::blocks::Progress;
use super::checks::{compare, evaluate, value_failure};
use super::finding::Finding;
use super::steps::StepResult;
use super::{Conversation, Output};
use crate::event::{Direction, Outcome};
use crate::scenario::compose;
use crate::scenario::model::{Act, ActorId, Compose, Connect, MessageName, Step};
use crate::scenario::template::Template;
use crate::scenario::value::{Bound, Wire};
use crate::websocket::frame::{Frame, Opcode};
use crate::websocket::handshake::Dial;

impl Conversation {
    pub(super) fn dial(&self, id: ActorId, connect: &Connect) -> Result<Dial, Failure> {
        let names = self.names(Some(id));
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
                members.insert(name.to_owned(), evaluate(template, &names)?);
            }
        }
        let mut dial = Dial::from_json(&Value::Object(members)).map_err(Failure::mistake)?;
        self.deviations.declared.upgrade(&mut dial);
        Ok(dial)
    }

    pub(super) fn connect(&mut self, id: ActorId, dial: Dial) {
        if let Some(connection) = self.actors.open_connection(id) {
            self.out.push(Output::End { connection, reset: false });
        }
        let connection = self.actors.connections.len() as u32;
        self.new_connection(id, connection);
        self.actors[id].standard_upgrade = dial.is_standard();
        self.out.push(Output::Open { connection, dial });
    }

    /// Gives an actor a new connection after judging its previous one.
    pub(super) fn new_connection(&mut self, id: ActorId, connection: u32) {
        self.leave_connection(id);
        self.actors.connections.insert(connection, id);
        self.actors[id].reset_connection(connection);
    }

    pub(super) fn each_sends(
        &mut self,
        members: &[ActorId],
        step: &Step,
        mut send: impl FnMut(&mut Self, ActorId) -> Result<Option<Bound>, Failure>,
    ) -> StepResult {
        let mut items = Vec::new();
        for id in members {
            // Members without a connection are skipped.
            if self.actors[*id].is_open() {
                items.extend(send(self, *id)?);
            }
        }
        if items.is_empty() && step.as_.is_some() {
            return Ok(Progress::Done(None));
        }
        Ok(Progress::Done(Some(self.group(step, items))))
    }

    pub(super) fn send(&mut self, id: ActorId, compose: &Compose) -> Result<Option<Bound>, Failure> {
        let Composed { name, value, wire } = self.compose(Some(id), compose)?;
        let of_hub = self.deviations.sent(&self.program.pack, &value, &self.environment.world);
        // Faster than `to_string`.
        let text = serde_json::to_string(of_hub.as_ref().unwrap_or(&value)).unwrap_or_default();
        let mut frames = fragments(text.as_bytes(), compose.fragments);
        if self.program.is_server(id) {
            frames = frames.into_iter().map(Frame::unmasked).collect();
        }
        let from_hub = wire.is_some_and(|wire| wire.from_hub);
        let sent = self.transmit(id, frames, "text", &text, text.len(), from_hub);
        self.actors[id].last_message = Some(name);
        self.assume_after(id, &value);
        Ok(sent.map(|wire| Bound::One { value, wire: Some(wire) }))
    }

    pub(super) fn transmit(
        &mut self,
        id: ActorId,
        frames: Vec<Frame>,
        kind: &'static str,
        text: &str,
        size: usize,
        from_hub: bool,
    ) -> Option<Arc<Wire>> {
        let connection = self.actors[id].connection?;
        let sequence = self.history.next_event();
        let masker = Arc::clone(&self.history.masker);
        let masked = masker.mask(text);
        let frame = self.frame_report(id, connection, Direction::Sent, kind, &masked, size);
        self.add_frame(frame);
        self.actors[id].last_sent = Some(crate::syntax::matcher::cut(&masked, 400));
        self.out.push(Output::Send { connection, frames });
        Some(Arc::new(Wire { from_hub, ..self.wire(id, connection, sequence, kind, text, size) }))
    }

    /// Builds a message to send: takes its example, fills in the values of `fills`, merges `with`, and removes the
    /// members of `without`.
    pub(super) fn compose(&self, id: Option<ActorId>, compose: &Compose) -> Result<Composed, Failure> {
        let names = self.names(id);
        let name = match &compose.message {
            MessageName::Any => return Err(Failure::mistake("`any` cannot be sent")),
            MessageName::Named(name) => name.clone(),
            MessageName::Computed(template) => match evaluate(template, &names)? {
                Value::String(name) => name,
                other => return Err(value_failure(format!("{other} is not the name of a message"), template, &names)),
            },
        };
        let Some(message) = self.program.pack.message(&name) else {
            return Err(Failure::mistake(format!("{} has no message `{name}`", self.program.pack.name)));
        };
        let mut value = message.template();
        let role =
            id.or_else(|| self.blocks.myself()).and_then(|id| self.program.roles.get(&self.program.actors[id].role));
        for (place, template) in role.map(|role| role.fills.as_slice()).unwrap_or_default() {
            let pointer = if place.starts_with('/') {
                place.clone()
            } else {
                format!("/{}", crate::syntax::matcher::escape(place))
            };
            if value.pointer(&pointer).is_some() {
                compose::put(&mut value, &pointer, evaluate(template, &names)?);
            }
        }
        let mut wire = None;
        if let Some(with) = &compose.with {
            wire = with.wire(&names);
            compose::merge(&mut value, &evaluate(with, &names)?);
        }
        let from_hub = wire.as_ref().is_some_and(|wire| wire.from_hub);
        compose::remove(&mut value, &compose.without);
        let broken = message.schema.judge(&value).into_iter().find(|violation| !violation.should);
        match (&compose.breaks, broken) {
            (None, Some(violation)) if from_hub => {
                let what = format!(
                    "`{name}` cannot be built from what the hub sent: {}: expected {}, found {}",
                    violation.place(),
                    violation.expected,
                    violation.found
                );
                Err(Failure::undecided(what, None))
            }
            (None, Some(violation)) => Err(Failure::mistake(format!(
                "this `{name}` breaks its schema at {}: expected {}, found {}; add `breaks: REASON` if that is intended",
                violation.place(),
                violation.expected,
                violation.found
            ))),
            (Some(_), None) if message.directions.to_hub && !id.is_some_and(|id| self.program.is_server(id)) => {
                Err(Failure::mistake(format!("this `{name}` is valid, so `breaks` is wrong; remove it")))
            }
            _ => Ok(Composed { name, value, wire }),
        }
    }

    pub(super) fn send_raw(&mut self, id: ActorId, template: &Template) -> Result<Option<Bound>, Failure> {
        let names = self.names(Some(id));
        let value = evaluate(template, &names)?;
        let from_hub = super::checks::from_hub(template, &names);
        let connection = self.actors[id].connection.unwrap_or_default();
        let Some((kind, content)) = value.as_object().and_then(|members| members.iter().next()) else {
            return Err(Failure::mistake("`sends raw` takes exactly one of text, binary, frames and bytes"));
        };
        let server = self.program.is_server(id);
        let mut shown = String::new();
        let mut opcode = "text";
        let mut frames = match (kind.as_str(), content) {
            ("text", Value::String(text)) => {
                shown = self.deviations.sent_text(&self.program.pack, text, &self.environment.world);
                vec![Frame::text(shown.as_bytes())]
            }
            ("binary", Value::String(text)) => {
                opcode = "binary";
                shown.clone_from(text);
                vec![Frame::binary(unhex(text)?)]
            }
            ("frames", Value::Array(items)) => {
                opcode = "frames";
                shown = content.to_string();
                items.iter().map(raw_frame).collect::<Result<_, _>>()?
            }
            ("bytes", Value::String(text)) => {
                let bytes = unhex(text)?;
                self.record(id, connection, Direction::Sent, "bytes", text, bytes.len());
                self.out.push(Output::SendBytes { connection, bytes });
                return Ok(None);
            }
            _ => return Err(Failure::mistake("`sends raw` takes exactly one of text, binary, frames and bytes")),
        };
        if server && kind != "frames" {
            frames = frames.into_iter().map(Frame::unmasked).collect();
        }
        let size = frames.iter().map(|frame| frame.payload.len()).sum();
        let wire = self.transmit(id, frames, opcode, &shown, size, from_hub);
        if let ("text", Some(text)) = (kind.as_str(), content.as_str()) {
            self.assume_after_text(id, text);
        }
        Ok(wire.map(|wire| Bound::One { value: value.clone(), wire: Some(wire) }))
    }

    pub(super) fn close(
        &mut self,
        id: ActorId,
        code: &Template,
        reason: Option<&Template>,
    ) -> Result<Option<Bound>, Failure> {
        let names = self.names(Some(id));
        let code = match evaluate(code, &names)? {
            Value::Null => None,
            Value::Number(code) => code.as_u64().and_then(|code| u16::try_from(code).ok()),
            other => return Err(value_failure(format!("{other} is not a close code"), code, &names)),
        };
        let reason = match reason.map(|reason| evaluate(reason, &names)).transpose()? {
            Some(Value::String(reason)) => reason,
            _ => String::new(),
        };
        let frame = Frame::close(code, &reason);
        let frame = if self.program.is_server(id) { frame.unmasked() } else { frame };
        let text = code.map_or_else(String::new, |code| format!("{code} {reason}"));
        let wire = self.transmit(id, vec![frame], "close", text.trim_end(), text.len(), false);
        self.ended_by_step(id);
        self.actors[id].closing = Closing::Sent;
        Ok(wire.map(|wire| Bound::One { value: Value::Null, wire: Some(wire) }))
    }

    pub(super) fn drop_connection(&mut self, id: ActorId, reset: bool) {
        if let Some(connection) = self.actors.open_connection(id) {
            self.record(id, connection, Direction::Sent, if reset { "reset" } else { "fin" }, "", 0);
            self.out.push(Output::End { connection, reset });
            self.ended_by_step(id);
        }
    }

    /// Records that a step of this actor ended the connection.
    pub(super) fn ended_by_step(&mut self, id: ActorId) {
        let sequence = self.history.next_event();
        self.ended_by_us(id, sequence, String::new(), true);
    }

    /// Plays the reactions of an actor's role to a received message.
    pub(super) fn react(&mut self, id: ActorId, json: &Value, wire: &Arc<Wire>, way: crate::protocol::Way) {
        let program = Arc::clone(&self.program);
        let Some(role) = program.roles.get(&program.actors[id].role) else { return };
        for reaction in role.reacts.iter().filter_map(|name| program.reactions.get(name)) {
            let Some(message) = program.pack.message(&reaction.whenever) else { continue };
            if !(message.is(json, way) || message.is(json, crate::protocol::Way::FromHub)) || !self.actors[id].is_open()
            {
                continue;
            }
            let came = || Bound::One { value: json.clone(), wire: Some(Arc::clone(wire)) };
            let names = reaction.as_.iter().map(|name| (name.clone(), came())).collect();
            let kind = super::blocks::Kind::Opening { rest: Vec::new() };
            self.blocks.push(super::blocks::Frame {
                names,
                kind,
                me: Some(id),
                ..super::blocks::Frame::body(reaction.block)
            });
            let fits = reaction
                .pattern
                .as_ref()
                .is_none_or(|pattern| matches!(compare(pattern, json, &self.names(Some(id))), Finding::Holds));
            let steps = program.blocks[reaction.block].iter().filter(|_| fits);
            // An automatic answer is not a request whose answer a later step expects.
            let request = self.actors[id].last_message.take();
            let failure = steps.map(|step| self.reaction_step(id, step)).find_map(Result::err);
            self.actors[id].last_message = request;
            self.blocks.stack.pop();
            match failure {
                None => {}
                Some(Failure { kind: Kind::Mistake, message, .. }) => {
                    self.judgement.mistake.get_or_insert(format!("reaction to {}: {message}", reaction.whenever));
                }
                // A value from the hub cannot be used. The schema of the message covers such values.
                Some(failure) => {
                    let why = format!("no reaction to `{}`: {}", reaction.whenever, failure.message);
                    let label = format!("reaction:{}", reaction.whenever);
                    self.judgement.record_invariant(&label, Vec::new(), Outcome::Undecided(why.clone()), why, None);
                }
            }
        }
    }

    fn reaction_step(&mut self, id: ActorId, step: &Step) -> Result<Option<Bound>, Failure> {
        match &step.act {
            Act::Send(compose) => self.send(id, compose),
            Act::SendRaw(template) => self.send_raw(id, template),
            Act::Close { code, reason } => self.close(id, code, reason.as_ref()),
            Act::Drop { reset } => {
                self.drop_connection(id, *reset);
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// A message to send, and the wire of a frame that its values come from.
pub(super) struct Composed {
    /// The name of the message.
    pub name: String,
    pub value: Value,
    pub wire: Option<Arc<Wire>>,
}

/// Splits a text into frames of about equal size; a split may fall inside a character.
fn fragments(bytes: &[u8], count: usize) -> Vec<Frame> {
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

fn unhex(text: &str) -> Result<Vec<u8>, Failure> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bad = || Failure::mistake(format!("`{}` is not hexadecimal bytes", crate::syntax::matcher::cut(text, 60)));
    if !digits.len().is_multiple_of(2) {
        return Err(bad());
    }
    digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(bad))
        .collect()
}

fn raw_frame(value: &Value) -> Result<Frame, Failure> {
    let opcode = match value.get("opcode") {
        Some(Value::String(name)) => match name.as_str() {
            "continuation" => Opcode::Continuation,
            "text" => Opcode::Text,
            "binary" => Opcode::Binary,
            "close" => Opcode::Close,
            "ping" => Opcode::Ping,
            "pong" => Opcode::Pong,
            other => return Err(Failure::mistake(format!("`{other}` is not an opcode"))),
        },
        Some(Value::Number(n)) => Opcode::from_bits(n.as_u64().unwrap_or(0) as u8),
        _ => {
            return Err(Failure::mistake(
                "a frame needs an `opcode`: text, binary, continuation, close, ping, pong or a number",
            ));
        }
    };
    let payload = match (value.get("data"), value.get("hex")) {
        (Some(Value::String(text)), None) => text.clone().into_bytes(),
        (None, Some(Value::String(text))) => unhex(text)?,
        (None, None) => Vec::new(),
        _ => return Err(Failure::mistake("a frame takes `data` (text) or `hex`, not both")),
    };
    let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(true);
    let rsv = value.get("rsv").and_then(Value::as_u64).unwrap_or(0) as u8;
    Ok(Frame { fin: flag("fin"), rsv, opcode, masked: flag("mask"), payload })
}
