//! The measured clients: each keeps one message in flight on every connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use futures_util::{SinkExt as _, StreamExt as _};
use hubproof::websocket::dial::Dial;
use hubproof::websocket::handshake;
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};

use crate::wire::{self, Epoll, MESSAGE};

pub struct EchoTask {
    pub address: SocketAddr,
    pub connections: usize,
    /// Measured round trips.
    pub echoes: u64,
}

/// Round trips of the engine before the measured ones: they fill the ledger, which then drops as many items as it adds.
pub const ENGINE_WARM_UP: u64 = hubproof::load::ledger::CLOSED_KEPT as u64;

/// Round trips of the other clients before the measured ones.
const WARM_UP: u64 = 20_000;

/// Returns nanoseconds of CPU per round trip.
pub fn measure(subject: &str, task: &EchoTask) -> f64 {
    wire::pin_to_core(0);
    let spent = match subject {
        "a0" => measure_epoll(task, true),
        "a" => measure_epoll(task, false),
        "t" => measure_tungstenite(task),
        "b" => crate::engine::measure(task, false),
        "c" => crate::engine::measure(task, true),
        other => panic!("no subject {other}"),
    };
    spent as f64 / task.echoes as f64
}

/// Counts round trips, and their cost after the warm-up.
struct RoundTripMeter {
    left: u64,
    counted: u64,
    since: u64,
}

impl RoundTripMeter {
    fn new(task: &EchoTask) -> Self {
        Self { left: WARM_UP + task.echoes, counted: task.echoes, since: 0 }
    }

    /// Counts one round trip; returns the cost after the last one.
    fn round_trip(&mut self) -> Option<u64> {
        self.left = self.left.saturating_sub(1);
        if self.left == self.counted {
            self.since = wire::cpu_time();
        }
        (self.left == 0).then(|| wire::cpu_time() - self.since)
    }
}

/// An epoll loop, with or without frames.
fn measure_epoll(task: &EchoTask, raw: bool) -> u64 {
    let mut epoll = Epoll::new();
    let mut scratch = vec![0; 64 << 10];
    let mut streams = Vec::new();
    for token in 0..task.connections {
        let mut stream = TcpStream::connect(task.address).unwrap();
        stream.set_nodelay(true).unwrap();
        if !raw {
            let request = Dial::default().request(&"ws://127.0.0.1".parse().unwrap(), &handshake::generate_key());
            stream.write_all(&request.unwrap()).unwrap();
            // On loopback the whole answer arrives at once, and nothing follows it.
            assert!(stream.read(&mut scratch).unwrap() > 0);
        }
        epoll.add(&stream, token as u64);
        streams.push(stream);
    }
    let mut meter = RoundTripMeter::new(task);
    let mut mask = 0x9e37_79b9_u32;
    let mut out = Vec::new();
    let mut message = |raw: bool, out: &mut Vec<u8>| {
        mask = mask.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        out.clear();
        // The raw echo carries the bytes of the same frame.
        if raw {
            out.extend([0; 8]);
            out.extend(MESSAGE.as_bytes());
        } else {
            wire::append_frame(MESSAGE.as_bytes(), Some(mask), out);
        }
    };
    for stream in &mut streams {
        message(raw, &mut out);
        stream.write_all(&out).unwrap();
    }
    let mut cost = None;
    while cost.is_none() {
        epoll.wait(None, |_, token| {
            let stream = &mut streams[token as usize];
            let count = stream.read(&mut scratch).unwrap();
            // One message of 208 bytes is in flight; loopback does not split it.
            if raw {
                assert_eq!(count, 8 + MESSAGE.len());
            } else {
                let (start, end, _) = wire::first_frame_bounds(&scratch[..count]).unwrap();
                assert_eq!((end - start, end), (MESSAGE.len(), count));
            }
            cost = cost.or(meter.round_trip());
            message(raw, &mut out);
            stream.write_all(&out).unwrap();
        });
    }
    cost.unwrap()
}

/// tokio-tungstenite with small buffers.
fn measure_tungstenite(task: &EchoTask) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let meter = std::rc::Rc::new(std::cell::RefCell::new(RoundTripMeter::new(task)));
    let (done, mut end) = tokio::sync::mpsc::channel(1);
    local.block_on(&runtime, async move {
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(16384);
        let url = format!("ws://{}/", task.address);
        let mut sockets = Vec::new();
        for _ in 0..task.connections {
            let opened = tokio_tungstenite::connect_async_with_config(url.as_str(), Some(config), true).await;
            sockets.push(opened.unwrap().0);
        }
        for mut socket in sockets {
            let (meter, done) = (meter.clone(), done.clone());
            tokio::task::spawn_local(async move {
                socket.send(Message::text(MESSAGE)).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {
                    let cost = meter.borrow_mut().round_trip();
                    if let Some(cost) = cost {
                        let _ = done.try_send(cost);
                    }
                    socket.send(Message::text(MESSAGE)).await.unwrap();
                }
            });
        }
        end.recv().await.unwrap()
    })
}
