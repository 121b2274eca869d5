//! What observing costs: round trips through a relay that only passes bytes, and through one whose copies are judged.
//! `cargo bench --bench observe`. Prints also how late answers are at 10,000 frames a second.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use hubproof::cli::protocol_files::load_built_in;
use hubproof::import::recording::Side;
use hubproof::observe::judge::TrafficJudge;
use hubproof::observe::tap::WireTap;
use hubproof::redact::SecretMasker;
use hubproof::syntax::source::Sources;
use hubproof_reference::relay::{RelayConfig, RelayEventKind, RelayObserver, RelayTask, RelayedHub, start_relay};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const ASKED: &[u8] = br#"{"command":"echo","payload":{"mark":"a"},"version":"0.1.0"}"#;
const ANSWERED: &[u8] = br#"{"status":"success","payload":{"mark":"a"},"version":"0.1.0"}"#;
/// The frames of a second, and how long they are sent.
const RATE: u32 = 10_000;
const TIME: Duration = Duration::from_secs(3);

fn client_frame() -> Vec<u8> {
    [&[0x81, 0x80 | ASKED.len() as u8, 0, 0, 0, 0], ASKED].concat()
}

fn hub_frame() -> Vec<u8> {
    [&[0x81, ANSWERED.len() as u8], ANSWERED].concat()
}

/// Reads the head of a request or an answer.
fn read_head(stream: &mut TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

/// Starts a hub that answers every frame.
fn start_hub() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                read_head(&mut stream);
                stream.write_all(ANSWER.as_bytes()).unwrap();
                let mut frame = client_frame();
                while stream.read_exact(&mut frame).is_ok() && stream.write_all(&hub_frame()).is_ok() {}
            });
        }
    });
    address
}

/// Judges the events of a relay, as `hubproof observe` does.
fn judge_events(mut events: mpsc::Receiver<hubproof_reference::relay::RelayEvent>) {
    let mut sources = Sources::default();
    let valid = load_built_in("qi", &mut sources).ok().and_then(|loaded| loaded.into_valid(&sources).ok()).unwrap();
    let program = valid.scenarios.programs.first().cloned();
    let mut judge = TrafficJudge::new(valid.pack, program, None, Duration::from_secs(30), SecretMasker::default());
    let mut tap = WireTap::default();
    while let Some(event) = events.blocking_recv() {
        let RelayEventKind::Bytes { to_hub, bytes } = event.what else { continue };
        let by = if to_hub { Side::Client } else { Side::Hub };
        for line in tap.read_bytes(0, event.connection, by, &bytes) {
            judge.judge_line(&line);
        }
    }
}

/// Connects through a relay to a hub.
fn connect(runtime: &Runtime, observed: bool) -> TcpStream {
    let hub = start_hub();
    let task = if observed {
        let (channel, events) = mpsc::channel(4096);
        std::thread::spawn(move || judge_events(events));
        RelayTask::Observe(RelayObserver { channel, left_out: Some(Arc::default()) })
    } else {
        RelayTask::Pass
    };
    let hub = RelayedHub {
        authority: hub.to_string(),
        host: hub.ip().to_string(),
        port: hub.port(),
        tls: None,
        refuses_pages: false,
        target: Arc::new(str::to_owned),
    };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let relay = runtime.block_on(start_relay(RelayConfig { hub, listen, task })).ok().unwrap();
    let mut stream = TcpStream::connect(relay.url.strip_prefix("ws://").unwrap()).unwrap();
    // It runs until the end of the process.
    std::mem::forget(relay);
    stream.set_nodelay(true).unwrap();
    stream.write_all(REQUEST.as_bytes()).unwrap();
    read_head(&mut stream);
    stream
}

/// Sends frames at a constant rate; returns how late the answers are, sorted.
fn latencies(stream: TcpStream) -> Vec<Duration> {
    let (mut reader, mut writer) = (stream.try_clone().unwrap(), stream);
    let (interval, count) = (Duration::from_secs(1) / RATE, RATE * TIME.as_secs() as u32);
    let begun = Instant::now();
    let reading = std::thread::spawn(move || {
        let mut frame = hub_frame();
        let mut all: Vec<Duration> = (0..count)
            .map(|number| {
                reader.read_exact(&mut frame).unwrap();
                begun.elapsed().saturating_sub(interval * number)
            })
            .collect();
        all.sort_unstable();
        all
    });
    let frame = client_frame();
    for number in 0..count {
        while begun.elapsed() < interval * number {
            std::thread::yield_now();
        }
        writer.write_all(&frame).unwrap();
    }
    reading.join().unwrap()
}

fn relays(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let kinds = [("passed", false), ("observed", true)];
    for (name, observed) in kinds {
        let all = latencies(connect(&runtime, observed));
        let at = |share: f64| all[(all.len() as f64 * share) as usize];
        println!("{name} at {RATE} frames a second: p50 {:?}, p99 {:?}", at(0.5), at(0.99));
    }
    let mut group = c.benchmark_group("round trip");
    let (asked, mut answered) = (client_frame(), hub_frame());
    for (name, observed) in kinds {
        let mut stream = connect(&runtime, observed);
        group.bench_function(name, |b| {
            b.iter(|| {
                stream.write_all(&asked).unwrap();
                stream.read_exact(&mut answered).unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, relays);
criterion_main!(benches);
