//! Faults below messages: a proxy within the process changes the frames that a correct WebSocket library writes, or keeps
//! from it those that it has to refuse.

use std::io::Cursor;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

/// A change to all frames of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameTampering {
    /// No frame is masked.
    Unmasked,
    /// A binary message with the same bytes follows each text message.
    Binary,
    /// Text messages end with a byte that is not UTF-8.
    NotUtf8,
    /// Text messages have a reserved bit.
    ReservedBit,
    /// Pings get no pongs.
    NoPong,
    /// Pongs have another payload than their pings.
    OtherPong,
    /// A close gets no answer.
    NoClose,
    /// A text message follows the close.
    TextAfterClose,
    /// Text messages have a reserved opcode.
    ReservedOpcode,
    /// Text messages are sent as continuations of no message.
    StrayContinuation,
    /// Half a ping follows each text message.
    HalfPing,
    /// The body of a close is one byte.
    ShortClose,
    /// A close has the code 1005.
    #[serde(rename = "close-1005")]
    Close1005,
    /// A masked frame is accepted.
    TakesMasked,
    /// A frame with a reserved bit or opcode is accepted.
    TakesReserved,
    /// A continuation of no message is accepted.
    TakesStray,
    /// A control frame that is fragmented or too long is accepted.
    TakesWrongControl,
    /// A text that is not UTF-8 is accepted.
    TakesNotUtf8,
    /// A pong is an error.
    RefusesPong,
}

/// A frame of the client.
pub(super) struct ClientFrame {
    pub header: FrameHeader,
    pub payload: Vec<u8>,
}

/// Returns a stream to the peer of `peer` on which the client's frames are changed.
pub fn tamper_with(peer: TcpStream, tampering: FrameTampering) -> DuplexStream {
    let (near, far) = duplex(1 << 16);
    tokio::spawn(async move {
        let (mut from_peer, mut to_peer) = peer.into_split();
        let (mut from_client, mut to_client) = split(far);
        let mut in_message = false;
        let down = pass_frames(&mut from_peer, &mut to_client, |mut frame, out| {
            let breach = frame.breach(in_message);
            if let OpCode::Data(Data::Text | Data::Binary | Data::Continue) = frame.header.opcode {
                in_message = !frame.header.is_final;
            }
            // The library takes no frame with a reserved bit.
            frame.header.rsv1 |= tampering == FrameTampering::RefusesPong && frame.is_pong();
            if breach != Some(tampering) {
                frame.write(out);
            }
        });
        let up = pass_frames(&mut from_client, &mut to_peer, |frame, out| tampering.write_frame(frame, out));
        tokio::join!(down, up);
    });
    near
}

/// Passes on an HTTP head, then each frame as `change` writes it, until one of the sides is gone.
async fn pass_frames(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut change: impl FnMut(ClientFrame, &mut Vec<u8>),
) {
    let (mut bytes, mut upgraded, mut buffer) = (Vec::new(), false, vec![0; 1 << 14]);
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        bytes.extend_from_slice(&buffer[..length]);
        let mut out = Vec::new();
        if let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n").filter(|_| !upgraded) {
            upgraded = true;
            out.extend(bytes.drain(..head + 4));
        }
        while upgraded && let Some(frame) = take_frame(&mut bytes) {
            change(frame, &mut out);
        }
        if to.write_all(&out).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Takes the first frame from `bytes`, unmasked, if it is complete.
pub(super) fn take_frame(bytes: &mut Vec<u8>) -> Option<ClientFrame> {
    // The library reads no reserved opcodes.
    let opcode = OpCode::from(bytes.first()? & 0x0f);
    let head = [&[bytes[0] & 0xf0 | 1], &bytes[1..bytes.len().min(14)]].concat();
    let mut cursor = Cursor::new(head);
    let (mut header, length) = FrameHeader::parse(&mut cursor).ok()??;
    header.opcode = opcode;
    let start = cursor.position() as usize;
    let end = start + usize::try_from(length).ok()?;
    let mut payload = bytes.get(start..end)?.to_vec();
    bytes.drain(..end);
    if let Some(key) = header.mask {
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
    Some(ClientFrame { header, payload })
}

impl FrameTampering {
    fn write_frame(self, mut frame: ClientFrame, out: &mut Vec<u8>) {
        let text = frame.header.opcode == OpCode::Data(Data::Text);
        let close = frame.header.opcode == OpCode::Control(Control::Close);
        let pong = frame.is_pong();
        match self {
            FrameTampering::Unmasked => frame.header.mask = None,
            FrameTampering::NotUtf8 if text => frame.payload.push(0xff),
            FrameTampering::ReservedBit if text => frame.header.rsv1 = true,
            FrameTampering::OtherPong if pong => frame.payload = b"another payload".to_vec(),
            FrameTampering::NoPong if pong => return,
            FrameTampering::NoClose if close => return,
            FrameTampering::ReservedOpcode if text => frame.header.opcode = OpCode::Data(Data::Reserved(3)),
            FrameTampering::StrayContinuation if text => frame.header.opcode = OpCode::Data(Data::Continue),
            FrameTampering::ShortClose if close => frame.payload = vec![3],
            FrameTampering::Close1005 if close => frame.payload = 1005_u16.to_be_bytes().into(),
            _ => {}
        }
        frame.write(out);
        if self == FrameTampering::Binary && text {
            frame.header.opcode = OpCode::Data(Data::Binary);
            frame.write(out);
        }
        if self == FrameTampering::HalfPing && text {
            frame.header.opcode = OpCode::Control(Control::Ping);
            frame.header.is_final = false;
            frame.payload.clear();
            frame.write(out);
        }
        if self == FrameTampering::TextAfterClose && close {
            frame.header.opcode = OpCode::Data(Data::Text);
            frame.payload = b"{}".to_vec();
            frame.write(out);
        }
    }
}

impl ClientFrame {
    fn is_pong(&self) -> bool {
        self.header.opcode == OpCode::Control(Control::Pong)
    }

    /// Returns the fault of a client that accepts this frame of a hub, if no client may.
    fn breach(&self, in_message: bool) -> Option<FrameTampering> {
        let header = &self.header;
        let control = u8::from(header.opcode) >= 8;
        let reserved = matches!(header.opcode, OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)));
        if header.mask.is_some() {
            Some(FrameTampering::TakesMasked)
        } else if reserved || header.rsv1 || header.rsv2 || header.rsv3 {
            Some(FrameTampering::TakesReserved)
        } else if control && (!header.is_final || self.payload.len() > 125) {
            Some(FrameTampering::TakesWrongControl)
        } else if header.opcode == OpCode::Data(Data::Continue) && !in_message {
            Some(FrameTampering::TakesStray)
        } else if header.opcode == OpCode::Data(Data::Text)
            && header.is_final
            && std::str::from_utf8(&self.payload).is_err()
        {
            Some(FrameTampering::TakesNotUtf8)
        } else {
            None
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = Frame::from_payload(self.header.clone(), self.payload.clone().into()).format(out);
    }
}
