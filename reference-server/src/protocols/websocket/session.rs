//! One connection: bytes in, bytes out.

use super::PROTOCOL;
use super::frame::{self, BINARY, CLOSE, CONTINUATION, Frame, MAX_MESSAGE, PING, PONG, ProtocolError, TEXT};
use super::handshake::{self, MAX_HEAD, UpgradeRequest};
use crate::fault::MachineFault;
use crate::protocols::MachineError;

/// A connection to this hub, from its upgrade request to its end.
#[derive(Clone)]
pub struct Session {
    broken: MachineFault,
    stage: SessionStage,
    /// Received bytes that are not handled yet.
    bytes: Vec<u8>,
    /// An incomplete message: whether it is text, and its payload so far.
    message: Option<(bool, Vec<u8>)>,
    last_ping: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq)]
enum SessionStage {
    Request,
    Open,
    /// As a fault: the stream stays open, and its bytes are ignored.
    Unresponsive,
    Over,
}

impl Session {
    /// A connection of a correct hub, or of one with a fault.
    ///
    /// # Errors
    /// [`MachineError::UnknownFault`].
    pub fn new(fault: Option<&str>) -> Result<Session, MachineError> {
        let broken = MachineFault::if_implemented_by_machine(crate::protocols::find_protocol(PROTOCOL)?.fault(fault)?);
        Ok(Session { broken, stage: SessionStage::Request, bytes: Vec::new(), message: None, last_ping: Vec::new() })
    }

    /// Handles received bytes and appends the bytes of the answer.
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.is_over() || self.stage == SessionStage::Unresponsive {
            return;
        }
        self.bytes.extend_from_slice(bytes);
        if self.stage == SessionStage::Request && !self.answer_upgrade_request(out) {
            return;
        }
        while self.stage == SessionStage::Open {
            let done = match frame::take_frame(&mut self.bytes, self.broken) {
                Ok(None) => return,
                Ok(Some(frame)) => self.handle_frame(frame, out),
                Err(failed) => Err(failed),
            };
            if let Err(ProtocolError(code)) = done {
                self.fail_connection(code, out);
            }
        }
    }

    /// Whether the hub has ended the connection and its stream.
    pub fn is_over(&self) -> bool {
        self.stage == SessionStage::Over
    }

    /// Ends the connection because the hub shuts down.
    pub fn shut_down(&mut self, out: &mut Vec<u8>) {
        if self.stage == SessionStage::Open {
            self.append_frame(CLOSE, &1001u16.to_be_bytes(), out);
        }
        self.stage = SessionStage::Over;
    }

    /// Answers the upgrade request once it is complete; returns whether frames may follow.
    fn answer_upgrade_request(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            if self.bytes.len() > MAX_HEAD {
                self.stage = SessionStage::Over;
            }
            return false;
        };
        let request = UpgradeRequest::parse(&String::from_utf8_lossy(&self.bytes[..end]));
        self.bytes.drain(..end + 4);
        let (answer, granted) = handshake::answer_upgrade(&request, self.broken);
        out.extend(answer);
        self.stage = if granted { SessionStage::Open } else { SessionStage::Over };
        granted
    }

    fn append_frame(&self, opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
        frame::write_frame(true, opcode, payload, self.broken, out);
    }

    fn handle_frame(&mut self, frame: Frame, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        match frame.opcode {
            CLOSE => self.handle_close(&frame.payload, out),
            PING => return self.handle_ping(frame.payload, out),
            PONG if self.broken.is("websocket-pong-refused") => return Err(ProtocolError(1002)),
            PONG if self.broken.is("websocket-pong-answered") => self.append_frame(PONG, &frame.payload, out),
            CONTINUATION | TEXT | BINARY => return self.handle_data(frame),
            _ => {}
        }
        Ok(())
    }

    fn handle_ping(&mut self, data: Vec<u8>, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        if self.message.is_some() && self.broken.is("websocket-ping-between-fragments-refused") {
            return Err(ProtocolError(1002));
        }
        if self.broken.is("websocket-pings-unanswered")
            || (self.broken.is("websocket-empty-pings-unanswered") && data.is_empty())
        {
            return Ok(());
        }
        self.send_invalid_frame(out);
        let data = if self.broken.is("websocket-pongs-empty") {
            Vec::new()
        } else if self.broken.is("websocket-pongs-cut") {
            data[..data.len().min(124)].to_vec()
        } else if self.broken.is("websocket-pongs-as-text") {
            String::from_utf8_lossy(&data).into_owned().into_bytes().into_iter().take(125).collect()
        } else if self.broken.is("websocket-pongs-late") {
            std::mem::replace(&mut self.last_ping, data)
        } else {
            data
        };
        // As a fault, longer pings are accepted, but the pong must still be valid.
        let data = &data[..data.len().min(125)];
        if self.broken.is("websocket-sends-long-pong") {
            self.append_frame(PONG, &[b'x'; 126], out);
        } else {
            frame::write_frame(!self.broken.is("websocket-sends-fragmented-pong"), PONG, data, self.broken, out);
        }
        Ok(())
    }

    /// As a fault: sends an invalid frame before a pong.
    fn send_invalid_frame(&self, out: &mut Vec<u8>) {
        const FRAMES: &[(&str, &[u8])] = &[
            ("websocket-sends-reserved-data", b"\x83\x02{}"),
            ("websocket-sends-reserved-control", b"\x8b\x00"),
            ("websocket-sends-padded-length", b"\x81\x7e\x00\x02{}"),
            ("websocket-sends-padded-long-length", b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x02{}"),
            ("websocket-sends-high-bit", b"\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x02{}"),
            ("websocket-sends-continuation", b"\x80\x02{}"),
            ("websocket-sends-message-in-message", b"\x01\x01{\x81\x01}"),
            ("websocket-sends-invalid-text", b"\x81\x04\"\xc3(\""),
            ("websocket-sends-invalid-text-split", b"\x01\x02\"\xc3\x80\x02(\""),
        ];
        out.extend(FRAMES.iter().filter(|(fault, _)| self.broken.is(fault)).flat_map(|(_, frame)| *frame));
    }

    fn handle_data(&mut self, Frame { fin, opcode, payload }: Frame) -> Result<(), ProtocolError> {
        let (text, mut whole) = match (opcode, self.message.take()) {
            (CONTINUATION, None) if self.broken.is("websocket-stray-continuation-taken") => (false, Vec::new()),
            (CONTINUATION, None) => return Err(ProtocolError(1002)),
            (CONTINUATION, Some(message)) => message,
            (_, Some(_)) if !self.broken.is("websocket-message-in-message-taken") => return Err(ProtocolError(1002)),
            (opcode, _) => (opcode == TEXT, Vec::new()),
        };
        if !fin && self.broken.is("websocket-fragments-refused") {
            return Err(ProtocolError(1003));
        }
        if payload.is_empty() && !(fin && opcode != CONTINUATION) && self.broken.is("websocket-empty-fragments-refused")
        {
            return Err(ProtocolError(1002));
        }
        let split = !fin || opcode == CONTINUATION;
        if text && split && self.broken.is("websocket-fragments-validated-alone") && !self.is_text(&payload) {
            return Err(ProtocolError(1007));
        }
        whole.extend(payload);
        if whole.len() > MAX_MESSAGE {
            return Err(ProtocolError(1009));
        }
        if !fin {
            self.message = Some((text, whole));
        } else if text && !(split && self.broken.is("websocket-split-text-unread")) && !self.is_text(&whole) {
            return Err(ProtocolError(1007));
        }
        Ok(())
    }

    /// Whether the payload of a text message is UTF-8.
    fn is_text(&self, bytes: &[u8]) -> bool {
        let Err(error) = std::str::from_utf8(bytes) else { return true };
        let wrong = &bytes[error.valid_up_to()..];
        let is = |id| self.broken.is(id);
        is("websocket-text-unread")
            || (is("websocket-cut-text-taken") && error.error_len().is_none())
            || (is("websocket-surrogates-taken") && matches!(wrong, [0xed, 0xa0..=0xbf, ..]))
            || (is("websocket-overlong-text-taken") && matches!(wrong, [0xc0 | 0xc1, ..] | [0xe0, 0x80..=0x9f, ..]))
            || (is("websocket-text-beyond-unicode-taken")
                && matches!(wrong, [0xf4, 0x90..=0xbf, ..] | [0xf5..=0xf7, ..]))
    }

    /// Handles a close frame.
    fn handle_close(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let is = |id| self.broken.is(id);
        let code = match body {
            [high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        };
        let usable = match body {
            [] => true,
            [_] => false,
            [_, _, reason @ ..] => std::str::from_utf8(reason).is_ok() && code.is_some_and(is_sendable_close_code),
        };
        if !usable && is("websocket-wrong-close-ignored") {
            return;
        }
        if is("websocket-close-ignored") {
            return;
        }
        let kept = is("websocket-stream-kept")
            || (is("websocket-stream-kept-without-code") && body.is_empty())
            || (is("websocket-stream-kept-after-reason") && body.len() > 2)
            || (is("websocket-stream-kept-in-message") && self.message.is_some());
        self.stage = if kept { SessionStage::Unresponsive } else { SessionStage::Over };
        if is("websocket-close-unanswered")
            || (is("websocket-empty-close-unanswered") && body.is_empty())
            || (is("websocket-long-close-unanswered") && body.len() == 125)
            || (is("websocket-close-in-message-unanswered") && self.message.is_some())
        {
            return;
        }
        let echoed = match code {
            Some(1005 | 1006 | 1015) => is("websocket-codes-echoed"),
            Some(0..1000 | 1004 | 1016..3000 | 5000..) => is("websocket-unused-codes-echoed"),
            _ => false,
        };
        let answer: Vec<u8> = if body.is_empty() {
            Vec::new()
        } else if is("websocket-answers-close-with-1000") {
            1000u16.to_be_bytes().to_vec()
        } else if is("websocket-private-codes-refused") && code >= Some(3000) {
            1002u16.to_be_bytes().to_vec()
        } else if is("websocket-answers-close-with-1006") {
            1006u16.to_be_bytes().to_vec()
        } else if is("websocket-sends-short-close") {
            vec![3]
        } else if is("websocket-sends-unreadable-reason") {
            b"\x03\xe8\xff".to_vec()
        } else if is("websocket-bodies-echoed") || echoed {
            body.to_vec()
        } else if usable {
            body[..2].to_vec()
        } else {
            1002u16.to_be_bytes().to_vec()
        };
        self.append_frame(CLOSE, &answer, out);
        if is("websocket-data-after-close") {
            self.append_frame(TEXT, b"{}", out);
        }
    }

    /// Fails the connection because the client violated RFC 6455.
    fn fail_connection(&mut self, code: u16, out: &mut Vec<u8>) {
        if self.broken.is("websocket-reads-on-after-failing") {
            // Skips the wrong frame, which is short in all tests.
            let skip = self
                .bytes
                .get(1)
                .map_or(0, |second| 2 + usize::from(second & 0x7f) + if second & 0x80 != 0 { 4 } else { 0 });
            self.bytes.drain(..skip.min(self.bytes.len()));
            while let Ok(Some(frame)) = frame::take_frame(&mut self.bytes, self.broken) {
                if frame.opcode == PING {
                    self.append_frame(PONG, &frame.payload, out);
                }
            }
        }
        self.stage = SessionStage::Over;
        if !self.broken.is("websocket-fails-without-close") {
            let code = if self.broken.is("websocket-fails-with-1011") { 1011 } else { code };
            self.append_frame(CLOSE, &code.to_be_bytes(), out);
        }
    }
}

/// Whether an endpoint may send a close code: RFC 6455, section 7.4, and those that IANA has added.
fn is_sendable_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
