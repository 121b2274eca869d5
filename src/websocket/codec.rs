//! RFC 6455's framing, on bytes alone: encodes any frame, valid or not, and decodes messages, reporting violations.
//!
//! A library would repair, refuse or hide the invalid frames that a conformance test must see, so hubproof has its own
//! codec. It trusts no announced length: memory grows only as bytes arrive, up to [`PeerLimits`].

use std::time::Duration;

use crate::websocket::frame::{AssembledMessage, ConnectionEvent, Frame, FrameHeader, Opcode};

/// The harness's side of the connection. A client reads unmasked frames, a server masked ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionSide {
    Client,
    Server,
}

/// Limits on input from a peer. Exceeding one is a [`ConnectionEvent::Violation`] with `bound: true`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// The most bytes of a message, summed over its fragments.
    pub message: usize,
    /// The most frames that one message may be split into.
    pub fragments: u32,
    /// The most bytes queued for a peer that does not read; a frame beyond that is refused.
    pub unsent: usize,
    /// How long a peer may take to end the stream after the closing handshake, or after our half has ended.
    pub linger: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            // The limit of tungstenite and most hubs; the messages of all built-in protocols are far shorter.
            message: 64 << 20,
            // A message of 64 MiB in pieces of 1 KiB. Empty fragments add no bytes, so only a count limits them.
            fragments: 1 << 16,
            unsent: 64 << 20,
            linger: Duration::from_secs(1),
        }
    }
}

/// The longest payload of a control frame in bytes (RFC 6455, section 5.5).
const MAX_CONTROL_PAYLOAD: u64 = 125;
/// The longest header of a frame: two bytes, eight of extended length, four of mask key.
const MAX_HEADER_BYTES: usize = 14;

/// Appends `frame` to `out` unchanged: any opcode, reserved bits and length; masked with `mask_key` only if `masked`.
pub fn encode(frame: &Frame, mask_key: [u8; 4], out: &mut Vec<u8>) {
    let mask_bit = if frame.masked { 0x80 } else { 0 };
    let length = frame.payload.len();
    out.reserve(MAX_HEADER_BYTES + length);
    out.push(u8::from(frame.fin) << 7 | (frame.rsv & 0x07) << 4 | frame.opcode.bits());
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => out.push(mask_bit | short),
        (_, Ok(medium)) => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if frame.masked {
        out.extend_from_slice(&mask_key);
    }
    let start = out.len();
    out.extend_from_slice(&frame.payload);
    if frame.masked {
        apply_mask(&mut out[start..], mask_key, 0);
    }
}

/// Masks or unmasks `bytes`, which begin `offset` bytes into the payload.
fn apply_mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte ^= key[(offset + index) % 4];
    }
}

/// Decodes a byte stream that arrives in pieces of any size.
///
/// It reports messages, pings, pongs, at most one close and at most one violation. After a violation it decodes nothing
/// more; after a close it reports at most a violation, such as another data frame.
pub struct FrameDecoder {
    side: ConnectionSide,
    limits: PeerLimits,
    stage: DecoderStage,
    /// The header of the current frame, as far as it has arrived.
    header: [u8; MAX_HEADER_BYTES],
    header_length: usize,
    frame: Option<FrameInProgress>,
    /// The payload of the current control frame, which may come between the fragments of a message.
    control: Vec<u8>,
    message: Option<AssembledMessage>,
    /// What is wrong with the close frame that was just reported.
    wrong_close: Option<CodecError>,
    trace: Option<Box<dyn FnMut(FrameHeader) + Send>>,
}

#[derive(PartialEq, Eq)]
enum DecoderStage {
    Open,
    Closed,
    Failed,
}

/// A frame whose header is complete.
struct FrameInProgress {
    info: FrameHeader,
    mask_key: [u8; 4],
    arrived: u64,
}

/// A violation of RFC 6455, with the section that forbids it, or (with `bound`) an exceeded limit.
struct CodecError {
    what: String,
    section: &'static str,
    bound: bool,
}

fn violation_error<T>(section: &'static str, what: impl Into<String>) -> Result<T, CodecError> {
    Err(CodecError { what: what.into(), section, bound: false })
}

/// Returns the error for an exceeded limit, as RFC 6455, section 10.4, allows.
fn limit_error<T>(what: String) -> Result<T, CodecError> {
    Err(CodecError { what, section: "10.4", bound: true })
}

impl FrameDecoder {
    pub fn new(side: ConnectionSide, limits: PeerLimits) -> Self {
        Self {
            side,
            limits,
            stage: DecoderStage::Open,
            header: [0; MAX_HEADER_BYTES],
            header_length: 0,
            frame: None,
            control: Vec::new(),
            message: None,
            wrong_close: None,
            trace: None,
        }
    }

    /// Calls `hook` with the header of every frame as soon as the header is complete and known to be valid.
    pub fn with_trace(mut self, hook: impl FnMut(FrameHeader) + Send + 'static) -> Self {
        self.trace = Some(Box::new(hook));
        self
    }

    /// Consumes `input` up to the next event and returns that event; consumes all of `input` if no event is complete.
    pub fn next_event(&mut self, input: &mut &[u8]) -> Option<ConnectionEvent> {
        while self.stage != DecoderStage::Failed {
            match self.decode_step(input) {
                Ok(DecodeStep::Hungry) => return None,
                Ok(DecodeStep::Silent) => {}
                Ok(DecodeStep::Event(received)) => return Some(received),
                Err(CodecError { what, section, bound }) => {
                    self.stage = DecoderStage::Failed;
                    self.message = None;
                    return Some(ConnectionEvent::Violation { what, section, bound });
                }
            }
        }
        *input = &[];
        None
    }

    /// Whether the stream is inside a frame or a fragmented message.
    pub fn is_unfinished(&self) -> bool {
        self.stage != DecoderStage::Failed && (self.header_length > 0 || self.frame.is_some() || self.message.is_some())
    }

    /// Returns how many bytes of incomplete frames and messages the decoder keeps.
    pub fn kept_bytes(&self) -> usize {
        self.control.len() + self.message.as_ref().map_or(0, |message| message.payload.len())
    }

    /// Returns the size of the current message in bytes: the received part plus the rest of its current frame.
    pub fn current_message_size(&self) -> u64 {
        let announced = match &self.frame {
            Some(FrameInProgress { info, arrived, .. }) if self.stage == DecoderStage::Open => info.size - arrived,
            _ => 0,
        };
        self.message.as_ref().map_or(0, |message| message.payload.len() as u64) + announced
    }

    fn decode_step(&mut self, input: &mut &[u8]) -> Result<DecodeStep, CodecError> {
        if let Some(wrong) = self.wrong_close.take() {
            return Err(wrong);
        }
        if self.frame.is_none() && !self.read_header(input)? {
            return Ok(DecodeStep::Hungry);
        }
        let Some(current) = &mut self.frame else { return Ok(DecodeStep::Hungry) };
        let left = current.info.size - current.arrived;
        let (now, later) = input.split_at(usize::try_from(left).map_or(input.len(), |left| left.min(input.len())));
        *input = later;
        let payload = match &mut self.message {
            Some(message) if !current.info.opcode.is_control() => &mut message.payload,
            _ => &mut self.control,
        };
        // After a close only headers are checked, and no payload is kept.
        if self.stage == DecoderStage::Open {
            let start = payload.len();
            payload.extend_from_slice(now);
            if current.info.masked {
                apply_mask(&mut payload[start..], current.mask_key, (current.arrived % 4) as usize);
            }
        }
        current.arrived += now.len() as u64;
        let is_long_close = current.info.opcode == Opcode::Close && current.info.size > MAX_CONTROL_PAYLOAD;
        if let (true, [high, low, ..]) = (is_long_close, self.control.as_slice()) {
            let (code, opcode) = (u16::from_be_bytes([*high, *low]), current.info.opcode);
            self.stage = DecoderStage::Closed;
            self.wrong_close = long_control_frame(opcode).err();
            return Ok(DecodeStep::Event(ConnectionEvent::Close { code: Some(code), reason: String::new() }));
        }
        if current.arrived < current.info.size {
            return Ok(DecodeStep::Hungry);
        }
        let info = current.info;
        self.frame = None;
        if self.stage == DecoderStage::Closed { Ok(DecodeStep::Silent) } else { self.finish_frame(info) }
    }

    /// Collects and checks a header; checks the first two bytes as soon as they arrive. Returns whether it is complete.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<bool, CodecError> {
        if !self.fill_header(2, input) {
            return Ok(false);
        }
        let [first, second, ..] = self.header;
        let (opcode, masked, short) = (Opcode::from_bits(first), second & 0x80 != 0, u64::from(second & 0x7f));
        let mut info = FrameHeader { fin: first & 0x80 != 0, rsv: first >> 4 & 0x07, opcode, masked, size: short };
        self.check_header(&info)?;

        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if !self.fill_header(2 + extended, input) {
            return Ok(false);
        }
        let announced = self.header[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        match extended {
            2 if announced <= MAX_CONTROL_PAYLOAD => {
                return violation_error(
                    "5.2",
                    format!("a length of {announced} written in 2 extra bytes where none are needed"),
                );
            }
            8 if announced >> 63 != 0 => return violation_error("5.2", "a 64-bit length whose highest bit is set"),
            8 if announced <= u64::from(u16::MAX) => {
                return violation_error(
                    "5.2",
                    format!("a length of {announced} written in 8 extra bytes where fewer are enough"),
                );
            }
            0 => {}
            _ => info.size = announced,
        }
        let before = self.message.as_ref().map_or(0, |message| message.payload.len() as u64);
        if !opcode.is_control() && info.size.saturating_add(before) > self.limits.message as u64 {
            return limit_error(format!("a message of more than {} bytes, hubproof's limit", self.limits.message));
        }

        let key_at = 2 + extended;
        if masked && !self.fill_header(key_at + 4, input) {
            return Ok(false);
        }
        let mut mask_key = [0; 4];
        if masked {
            mask_key.copy_from_slice(&self.header[key_at..key_at + 4]);
        }
        if let Some(trace) = &mut self.trace {
            trace(info);
        }
        self.begin_message(&info)?;
        self.header_length = 0;
        self.frame = Some(FrameInProgress { info, mask_key, arrived: 0 });
        Ok(true)
    }

    /// Fills the header up to `wanted` bytes; returns whether they have arrived.
    fn fill_header(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let take = wanted.saturating_sub(self.header_length).min(input.len());
        let (now, later) = input.split_at(take);
        self.header[self.header_length..self.header_length + take].copy_from_slice(now);
        self.header_length += take;
        *input = later;
        self.header_length >= wanted
    }

    /// Checks the first two bytes of a header, which contain the seven-bit length.
    fn check_header(&self, info: &FrameHeader) -> Result<(), CodecError> {
        let opcode = info.opcode;
        if info.rsv != 0 {
            return violation_error(
                "5.2",
                format!("a {opcode} frame with reserved bits {:03b}, but no extension was negotiated", info.rsv),
            );
        }
        if let Opcode::Reserved(bits) = opcode {
            return violation_error("5.2", format!("a frame with the reserved opcode {bits:#x}"));
        }
        match self.side {
            ConnectionSide::Client if info.masked => {
                return violation_error("5.1", format!("a masked {opcode} frame; a server must not mask"));
            }
            ConnectionSide::Server if !info.masked => {
                return violation_error("5.1", format!("an unmasked {opcode} frame; a client must mask"));
            }
            _ => {}
        }
        if opcode.is_control() {
            if !info.fin {
                return violation_error(
                    "5.5",
                    format!("a fragmented {opcode} frame; control frames must not be fragmented"),
                );
            }
            // A close frame begins with its code, which is read first.
            let has_code = opcode == Opcode::Close && self.stage == DecoderStage::Open;
            return if info.size > MAX_CONTROL_PAYLOAD && !has_code { long_control_frame(opcode) } else { Ok(()) };
        }
        if self.stage == DecoderStage::Closed {
            return violation_error("5.5.1", format!("a {opcode} frame after the close frame"));
        }
        match (opcode, &self.message) {
            (Opcode::Continuation, None) => {
                violation_error("5.4", "a continuation frame while no fragmented message is open")
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                violation_error("5.4", format!("a new {opcode} frame before the last fragment of the previous message"))
            }
            _ => Ok(()),
        }
    }

    /// Starts a message, or counts another fragment of the current one.
    fn begin_message(&mut self, info: &FrameHeader) -> Result<(), CodecError> {
        if info.opcode.is_control() {
            self.control.clear();
            return Ok(());
        }
        let binary = info.opcode == Opcode::Binary;
        let message = self.message.get_or_insert(AssembledMessage { binary, payload: Vec::new(), frames: 0 });
        message.frames += 1;
        if message.frames > self.limits.fragments {
            return limit_error(format!("a message in more than {} frames, hubproof's limit", self.limits.fragments));
        }
        Ok(())
    }

    /// Handles a complete frame.
    fn finish_frame(&mut self, info: FrameHeader) -> Result<DecodeStep, CodecError> {
        match info.opcode {
            Opcode::Ping => Ok(DecodeStep::Event(ConnectionEvent::Ping(std::mem::take(&mut self.control)))),
            Opcode::Pong => Ok(DecodeStep::Event(ConnectionEvent::Pong(std::mem::take(&mut self.control)))),
            Opcode::Close => {
                let (close, wrong) = read_close(&self.control)?;
                self.stage = DecoderStage::Closed;
                self.wrong_close = wrong;
                self.message = None;
                Ok(DecodeStep::Event(close))
            }
            _ if !info.fin => Ok(DecodeStep::Silent),
            _ => {
                let Some(message) = self.message.take() else { return Ok(DecodeStep::Silent) };
                if !message.binary {
                    check_text(&message)?;
                }
                Ok(DecodeStep::Event(ConnectionEvent::Message(message)))
            }
        }
    }
}

enum DecodeStep {
    Hungry,
    Silent,
    Event(ConnectionEvent),
}

fn long_control_frame(opcode: Opcode) -> Result<(), CodecError> {
    violation_error("5.5", format!("a {opcode} frame of more than {MAX_CONTROL_PAYLOAD} bytes"))
}

/// Parses a close frame's body, and returns what is wrong with its reason. Reports any code unchanged, even one that
/// must not be sent: rules check the code.
fn read_close(body: &[u8]) -> Result<(ConnectionEvent, Option<CodecError>), CodecError> {
    match body {
        [] => Ok((ConnectionEvent::Close { code: None, reason: String::new() }, None)),
        [_] => violation_error("5.5.1", "a close frame with a body of 1 byte; a code needs 2"),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let wrong = std::str::from_utf8(reason).err().map(|error| CodecError {
                what: format!(
                    "a close frame with code {code} whose reason is not UTF-8 at byte {}",
                    error.valid_up_to()
                ),
                section: "5.5.1",
                bound: false,
            });
            let reason = String::from_utf8_lossy(reason).into_owned();
            Ok((ConnectionEvent::Close { code: Some(code), reason }, wrong))
        }
    }
}

fn check_text(message: &AssembledMessage) -> Result<(), CodecError> {
    match std::str::from_utf8(&message.payload) {
        Ok(_) => Ok(()),
        Err(error) => {
            let (size, at) = (message.payload.len(), error.valid_up_to());
            violation_error("8.1", format!("a text message of {size} bytes that is not UTF-8 at byte {at}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn decode_in_chunks(side: ConnectionSide, limits: PeerLimits, bytes: &[u8], chunk: usize) -> Vec<ConnectionEvent> {
        let mut decoder = FrameDecoder::new(side, limits);
        let mut events = Vec::new();
        for mut piece in bytes.chunks(chunk) {
            while let Some(event) = decoder.next_event(&mut piece) {
                events.push(event);
            }
            assert!(piece.is_empty());
        }
        events
    }

    fn decode_from_server(bytes: &[u8]) -> Vec<ConnectionEvent> {
        let events = decode_in_chunks(ConnectionSide::Client, PeerLimits::default(), bytes, usize::MAX);
        assert_eq!(
            decode_in_chunks(ConnectionSide::Client, PeerLimits::default(), bytes, 1),
            events,
            "cut into single bytes"
        );
        events
    }

    fn message(text: &str, frames: u32) -> ConnectionEvent {
        ConnectionEvent::Message(AssembledMessage { binary: false, payload: text.into(), frames })
    }

    fn close(code: u16, reason: &str) -> ConnectionEvent {
        ConnectionEvent::Close { code: Some(code), reason: reason.into() }
    }

    #[rstest]
    #[case::rfc_5_7_unmasked(b"\x81\x05Hello", vec![message("Hello", 1)])]
    #[case::rfc_5_7_fragmented(b"\x01\x03Hel\x80\x02lo", vec![message("Hello", 2)])]
    #[case::empty(b"\x81\x00", vec![message("", 1)])]
    #[case::ping_between_fragments(b"\x01\x03Hel\x89\x01x\x80\x02lo", vec![ConnectionEvent::Ping(b"x".to_vec()), message("Hello", 2)])]
    #[case::utf8_split_over_fragments(b"\x01\x01\xc3\x80\x01\xa9", vec![message("\u{e9}", 2)])]
    #[case::pong(b"\x8a\x00", vec![ConnectionEvent::Pong(vec![])])]
    #[case::close_without_code(b"\x88\x00", vec![ConnectionEvent::Close { code: None, reason: String::new() }])]
    #[case::close_4004(b"\x88\x04\x0f\xa4no", vec![close(4004, "no")])]
    #[case::close_999(b"\x88\x02\x03\xe7", vec![close(999, "")])]
    #[case::close_1005(b"\x88\x02\x03\xed", vec![close(1005, "")])]
    #[case::close_2000(b"\x88\x02\x07\xd0", vec![close(2000, "")])]
    #[case::control_after_close(b"\x88\x00\x89\x00\x88\x00", vec![ConnectionEvent::Close { code: None, reason: String::new() }])]
    #[case::close_inside_message(b"\x01\x01a\x88\x00", vec![ConnectionEvent::Close { code: None, reason: String::new() }])]
    fn valid_frames_are_decoded(#[case] bytes: &[u8], #[case] expected: Vec<ConnectionEvent>) {
        assert_eq!(decode_from_server(bytes), expected);
    }

    #[rstest]
    #[case::masked(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "5.1", "masked text")]
    #[case::reserved_bits(b"\xc1\x00", "5.2", "100")]
    #[case::reserved_opcode(b"\x83\x00", "5.2", "0x3")]
    #[case::reserved_control(b"\x8b\x00", "5.2", "0xb")]
    #[case::length_126_not_needed(b"\x81\x7e\x00\x7d", "5.2", "a length of 125 written in 2")]
    #[case::length_127_not_needed(b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", "5.2", "65535 written in 8")]
    #[case::length_over_63_bits(b"\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00", "5.2", "highest bit")]
    #[case::long_control(b"\x89\x7e\x00\x7e", "5.5", "ping frame of more than 125")]
    #[case::fragmented_control(b"\x09\x00", "5.5", "fragmented ping")]
    #[case::lonely_continuation(b"\x80\x00", "5.4", "no fragmented message is open")]
    #[case::continuation_after_the_end(b"\x01\x01a\x80\x01b\x80\x01c", "5.4", "no fragmented message")]
    #[case::new_message_inside_one(b"\x01\x01a\x81\x01b", "5.4", "new text frame")]
    #[case::text_not_utf8(b"\x81\x03ab\xff", "8.1", "3 bytes that is not UTF-8 at byte 2")]
    #[case::text_cut_inside_a_character(b"\x01\x01\xc3\x80\x01a", "8.1", "at byte 0")]
    #[case::close_of_one_byte(b"\x88\x01\x03", "5.5.1", "1 byte")]
    #[case::close_reason_not_utf8(b"\x88\x03\x03\xe8\xff", "5.5.1", "1000")]
    #[case::data_after_close(b"\x88\x00\x81\x01a", "5.5.1", "after the close frame")]
    fn invalid_frames_are_violations_with_their_rfc_section(
        #[case] bytes: &[u8],
        #[case] section: &str,
        #[case] about: &str,
    ) {
        let events = decode_from_server(&[bytes, b"\x81\x01z"].concat());
        let Some(ConnectionEvent::Violation { what, section: found, bound: false }) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(*found, section);
        assert!(what.contains(about), "{what}");
    }

    /// The code comes first, so it is known whatever follows.
    #[rstest]
    #[case::too_long([b"\x88\x7e\x00\x7e\x0f\xa2", &[b'x'; 124][..]].concat(), "a close frame of more than 125 bytes")]
    #[case::too_long_and_cut(b"\x88\x7e\x00\x7e\x0f\xa2".to_vec(), "a close frame of more than 125 bytes")]
    #[case::not_utf8(b"\x88\x03\x0f\xa2\xff".to_vec(), "whose reason is not UTF-8")]
    fn the_code_of_a_wrong_close_frame_is_read(
        #[case] bytes: Vec<u8>,
        #[case] wrong: &str,
        #[values(1, 4096)] chunk: usize,
    ) {
        let events = decode_in_chunks(ConnectionSide::Client, PeerLimits::default(), &bytes, chunk);
        let [ConnectionEvent::Close { code: Some(4002), .. }, ConnectionEvent::Violation { what, .. }] =
            events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert!(what.contains(wrong), "{what}");
    }

    #[rstest]
    #[case::announced(b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 1)]
    #[case::huge(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 1)]
    #[case::over_fragments(b"\x01\x08aaaaaaaa\x00\x08aaaaaaaa\x00\x01", 1)]
    #[case::empty_fragments(b"\x01\x00\x00\x00\x00\x00\x00\x00", 1)]
    fn exceeded_size_limits_are_reported_as_limits_of_the_harness(#[case] bytes: &[u8], #[case] events: usize) {
        let limits = PeerLimits { message: 16, fragments: 3, ..PeerLimits::default() };
        let found = decode_in_chunks(ConnectionSide::Client, limits, bytes, usize::MAX);
        assert_eq!(found.len(), events);
        assert!(matches!(&found[0], ConnectionEvent::Violation { bound: true, section: "10.4", .. }), "{found:?}");
    }

    #[test]
    fn an_announced_frame_length_allocates_nothing() {
        let mut decoder = FrameDecoder::new(ConnectionSide::Client, PeerLimits::default());
        let mut input: &[u8] = b"\x82\x7f\x00\x00\x00\x00\x03\xff\xff\xffabc";
        assert_eq!(decoder.next_event(&mut input), None);
        assert!(decoder.is_unfinished());
        assert!(decoder.message.is_some_and(|message| message.payload.capacity() < 64));
    }

    #[test]
    fn a_server_requires_masked_frames() {
        let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(decode_in_chunks(ConnectionSide::Server, PeerLimits::default(), masked, 3), [message("Hello", 1)]);
        let events = decode_in_chunks(ConnectionSide::Server, PeerLimits::default(), b"\x81\x05Hello", 3);
        assert!(matches!(&events[..], [ConnectionEvent::Violation { section: "5.1", .. }]), "{events:?}");
    }

    #[test]
    fn a_trace_gets_the_header_of_every_frame() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut decoder = FrameDecoder::new(ConnectionSide::Client, PeerLimits::default())
            .with_trace(move |info| sender.send(info).unwrap());
        let mut input: &[u8] = b"\x01\x03Hel\x89\x01x\x80\x02lo";
        while decoder.next_event(&mut input).is_some() {}
        drop(decoder);
        let seen: Vec<_> = receiver.iter().map(|info| (info.opcode, info.fin, info.size)).collect();
        assert_eq!(seen, [(Opcode::Text, false, 3), (Opcode::Ping, true, 1), (Opcode::Continuation, true, 2)]);
    }

    #[rstest]
    #[case(125, 2 + 4)]
    #[case(126, 4 + 4)]
    #[case(65_535, 4 + 4)]
    #[case(65_536, 10 + 4)]
    fn frame_headers_are_encoded_in_their_shortest_form(#[case] length: usize, #[case] header: usize) {
        let mut out = Vec::new();
        encode(&Frame::binary(vec![7; length]), KEY, &mut out);
        assert_eq!(out.len(), header + length);
        let events = decode_in_chunks(ConnectionSide::Server, PeerLimits::default(), &out, 1000);
        assert_eq!(
            events,
            [ConnectionEvent::Message(AssembledMessage { binary: true, payload: vec![7; length], frames: 1 })]
        );
    }

    #[test]
    fn invalid_frames_are_encoded_unchanged() {
        let wrong = Frame { fin: false, rsv: 5, opcode: Opcode::Reserved(0xb), masked: false, payload: b"ab".to_vec() };
        let mut out = Vec::new();
        encode(&wrong, KEY, &mut out);
        assert_eq!(out, b"\x5b\x02ab");
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let opcode = prop_oneof![
            4 => Just(Opcode::Text), 2 => Just(Opcode::Binary), 3 => Just(Opcode::Continuation),
            1 => Just(Opcode::Ping), 1 => Just(Opcode::Pong), 1 => Just(Opcode::Close), 1 => (0_u8..16).prop_map(Opcode::from_bits),
        ];
        let payload = prop_oneof![
            "[a-z\u{e9}\u{20ac}]{0,40}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..300),
        ];
        let rsv = prop_oneof![20 => Just(0_u8), 1 => 0_u8..8];
        (prop::bool::weighted(0.7), rsv, opcode, prop::bool::weighted(0.1), payload)
            .prop_map(|(fin, rsv, opcode, masked, payload)| Frame { fin, rsv, opcode, masked, payload })
    }

    /// Generates streams of complete, valid data messages.
    fn any_messages() -> impl Strategy<Value = Vec<(bool, String, usize)>> {
        prop::collection::vec((any::<bool>(), "\\PC{0,60}", 1_usize..5), 0..8)
    }

    proptest! {
        #[test]
        fn decoding_does_not_depend_on_how_the_stream_is_split(frames in prop::collection::vec(any_frame(), 0..12), cuts in prop::collection::vec(1_usize..40, 1..20)) {
            let mut bytes = Vec::new();
            for frame in &frames {
                encode(frame, KEY, &mut bytes);
            }
            let whole = decode_in_chunks(ConnectionSide::Client, PeerLimits::default(), &bytes, usize::MAX);
            let mut decoder = FrameDecoder::new(ConnectionSide::Client, PeerLimits::default());
            let (mut rest, mut events) = (&bytes[..], Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (mut piece, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                while let Some(event) = decoder.next_event(&mut piece) {
                    events.push(event);
                }
            }
            prop_assert_eq!(events, whole);
        }

        #[test]
        fn encoded_messages_round_trip(messages in any_messages(), masked in any::<bool>(), key in any::<[u8; 4]>()) {
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for (binary, text, pieces) in messages {
                let payload = text.into_bytes();
                let size = payload.len().div_ceil(pieces).max(1);
                let parts: Vec<&[u8]> = if payload.is_empty() { vec![&[]] } else { payload.chunks(size).collect() };
                for (index, part) in parts.iter().enumerate() {
                    let opcode = match (index, binary) {
                        (0, true) => Opcode::Binary,
                        (0, false) => Opcode::Text,
                        _ => Opcode::Continuation,
                    };
                    let frame = Frame { fin: index + 1 == parts.len(), rsv: 0, opcode, masked, payload: part.to_vec() };
                    encode(&frame, key, &mut bytes);
                }
                let frames = parts.len() as u32;
                expected.push(ConnectionEvent::Message(AssembledMessage { binary, payload, frames }));
            }
            let side = if masked { ConnectionSide::Server } else { ConnectionSide::Client };
            prop_assert_eq!(decode_in_chunks(side, PeerLimits::default(), &bytes, 7), expected);
        }

        #[test]
        fn decoding_random_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000), server in any::<bool>(), chunk in 1_usize..50) {
            let side = if server { ConnectionSide::Server } else { ConnectionSide::Client };
            let limits = PeerLimits { message: 500, fragments: 5, ..PeerLimits::default() };
            let events = decode_in_chunks(side, limits, &bytes, chunk);
            let closes = events.iter().filter(|event| matches!(event, ConnectionEvent::Close { .. })).count();
            let violations = events.iter().filter(|event| matches!(event, ConnectionEvent::Violation { .. })).count();
            prop_assert!(closes <= 1 && violations <= 1);
            let last_is_violation = matches!(events.last(), Some(ConnectionEvent::Violation { .. }));
            prop_assert!(violations == 0 || last_is_violation);
        }
    }
}
