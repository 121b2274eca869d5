//! Faults below messages: a proxy within the process changes the frames that a correct WebSocket library writes.

use std::io::Cursor;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, split};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

/// A change to all frames of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameTampering {
    /// No frame is masked.
    Unmasked,
    /// Text messages are sent as binary messages.
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
        let down = async {
            // A peer or a client that is gone ends its direction.
            let _ = copy(&mut from_peer, &mut to_client).await;
            let _ = to_client.shutdown().await;
        };
        let up = async {
            let (mut bytes, mut upgraded, mut buffer) = (Vec::new(), false, vec![0; 1 << 14]);
            while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                bytes.extend_from_slice(&buffer[..length]);
                let mut out = Vec::new();
                if let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n").filter(|_| !upgraded) {
                    upgraded = true;
                    out.extend(bytes.drain(..head + 4));
                }
                while let Some(frame) = take_frame(&mut bytes).filter(|_| upgraded) {
                    tampering.write_frame(frame, &mut out);
                }
                if to_peer.write_all(&out).await.is_err() {
                    break;
                }
            }
            let _ = to_peer.shutdown().await;
        };
        tokio::join!(down, up);
    });
    near
}

/// Takes the first frame from `bytes`, unmasked, if it is complete.
pub(super) fn take_frame(bytes: &mut Vec<u8>) -> Option<ClientFrame> {
    let mut cursor = Cursor::new(&bytes[..]);
    let (header, length) = FrameHeader::parse(&mut cursor).ok()??;
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
        let pong = frame.header.opcode == OpCode::Control(Control::Pong);
        match self {
            FrameTampering::Unmasked => frame.header.mask = None,
            FrameTampering::Binary if text => frame.header.opcode = OpCode::Data(Data::Binary),
            FrameTampering::NotUtf8 if text => frame.payload.push(0xff),
            FrameTampering::ReservedBit if text => frame.header.rsv1 = true,
            FrameTampering::OtherPong if pong => frame.payload = b"another payload".to_vec(),
            FrameTampering::NoPong if pong => return,
            FrameTampering::NoClose if close => return,
            _ => {}
        }
        frame.write(out);
        if self == FrameTampering::TextAfterClose && close {
            frame.header.opcode = OpCode::Data(Data::Text);
            frame.payload = b"{}".to_vec();
            frame.write(out);
        }
    }
}

impl ClientFrame {
    fn write(&self, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = Frame::from_payload(self.header.clone(), self.payload.clone().into()).format(out);
    }
}
