//! The echo server: one thread on epoll that reads and writes back. It never sleeps: otherwise the sending client would
//! pay for waking it up, and a slower client would do so more often.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use hubproof::websocket::handshake;
use rustix::time::Timespec;

use crate::wire::{self, Epoll};

struct EchoPeer {
    stream: TcpStream,
    /// Whether the upgrade has succeeded.
    open: bool,
    /// Bytes of an incomplete frame or head.
    rest: Vec<u8>,
}

/// Prints its address, then echoes until it is killed.
pub fn serve(raw: bool) -> ! {
    wire::pin_to_core(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let mut epoll = Epoll::new();
    epoll.add(&listener, 0);
    let mut peers: HashMap<u64, EchoPeer> = HashMap::new();
    let mut next = 1;
    let mut scratch = vec![0; 64 << 10];
    let mut out = Vec::new();
    loop {
        epoll.wait(Some(&Timespec::default()), |epoll, token| {
            if token == 0 {
                let (stream, _) = listener.accept().unwrap();
                stream.set_nodelay(true).unwrap();
                epoll.add(&stream, next);
                peers.insert(next, EchoPeer { stream, open: raw, rest: Vec::new() });
                next += 1;
                return;
            }
            let peer = peers.get_mut(&token).unwrap();
            let Ok(count @ 1..) = peer.stream.read(&mut scratch) else {
                peers.remove(&token);
                return;
            };
            out.clear();
            if raw {
                out.extend(&scratch[..count]);
            } else if peer.rest.is_empty() && peer.open {
                let used = echo(&mut scratch[..count], &mut out);
                peer.rest.extend(&scratch[used..count]);
            } else {
                peer.rest.extend(&scratch[..count]);
                let used = if peer.open { echo(&mut peer.rest, &mut out) } else { peer.upgrade(&mut out) };
                peer.rest.drain(..used);
            }
            let _ = peer.stream.write_all(&out);
        });
    }
}

/// Echoes every complete frame; returns how many bytes they took.
fn echo(bytes: &mut [u8], out: &mut Vec<u8>) -> usize {
    let mut used = 0;
    while let Some((start, end, key)) = wire::first_frame_bounds(&bytes[used..]) {
        let payload = &mut bytes[used + start..used + end];
        wire::unmask(payload, key.unwrap());
        let payload = used + start..used + end;
        // A close frame is echoed as one, too.
        let opcode = bytes[used];
        let frame = out.len();
        wire::append_frame(&bytes[payload], None, out);
        out[frame] = opcode;
        used += end;
    }
    used
}

impl EchoPeer {
    fn upgrade(&mut self, out: &mut Vec<u8>) -> usize {
        let Ok(Some(head)) = handshake::parse_request_head(&self.rest) else { return 0 };
        let length = head.length;
        out.extend(handshake::answer_request(head, &[]).0);
        self.open = true;
        length
    }
}
