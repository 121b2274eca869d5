//! What observing costs: round trips without a relay, through one that only passes bytes, and through one whose copies are
//! judged; and how late answers are at 10,000 frames a second. `cargo bench --bench observe`.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hubproof::cli::protocol_files::load_built_in;
use hubproof::import::recording::Side;
use hubproof::observe::judge::TrafficJudge;
use hubproof::observe::tap::WireTap;
use hubproof::redact::SecretMasker;
use hubproof::syntax::source::Sources;
use hubproof_reference::relay::{RelayConfig, RelayEventKind, RelayObserver, RelayTask, RelayedHub, start_relay};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const ASKED: &[u8] = br#"{"command":"echo","payload":{"mark":"a"},"version":"0.1.0"}"#;
const ANSWERED: &[u8] = br#"{"status":"success","payload":{"mark":"a"},"version":"0.1.0"}"#;
/// The frames of a second, and how long they are sent.
const RATE: u32 = 10_000;
const TIME: Duration = Duration::from_secs(2);
/// The kinds take turns this often, and make this many round trips each time.
const ROUNDS: usize = 15;
const ROUND_TRIPS: u32 = 5_000;

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

/// Connects through a relay to a hub; observed if there is a list of connections that the judge leaves out.
fn connect(runtime: &Runtime, left_out: Option<Arc<Mutex<Vec<u64>>>>) -> TcpStream {
    let hub = start_hub();
    let task = match left_out {
        Some(_) => {
            let (channel, events) = mpsc::channel(4096);
            std::thread::spawn(move || judge_events(events));
            RelayTask::Observe(RelayObserver { channel, left_out })
        }
        None => RelayTask::Pass,
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
    let address = relay.url.strip_prefix("ws://").unwrap().parse().unwrap();
    // It runs until the end of the process.
    std::mem::forget(relay);
    connect_to(address)
}

/// Connects, and upgrades the connection.
fn connect_to(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
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

/// Returns the CPU time of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Makes round trips, one at a time. Returns the wall time and the CPU time of one.
fn round_trips(stream: &mut TcpStream) -> [Duration; 2] {
    let (asked, mut answered) = (client_frame(), hub_frame());
    let (begun, cpu) = (Instant::now(), cpu_time());
    for _ in 0..ROUND_TRIPS {
        stream.write_all(&asked).unwrap();
        stream.read_exact(&mut answered).unwrap();
    }
    [begun.elapsed() / ROUND_TRIPS, (cpu_time() - cpu) / ROUND_TRIPS]
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let left_out = || Arc::<Mutex<Vec<u64>>>::default();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    // Direct, passed, observed: in turn, since the load of the machine changes.
    let lists = [left_out(), left_out()];
    let mut streams =
        [connect_to(start_hub()), connect(&runtime, None), connect(&runtime, Some(Arc::clone(&lists[0])))];
    let mut rounds: [Vec<[f64; 3]>; 2] = Default::default();
    for _ in 0..ROUNDS {
        let taken = streams.each_mut().map(round_trips);
        for (kind, rounds) in rounds.iter_mut().enumerate() {
            rounds.push(taken.map(|times| us(times[kind])));
        }
    }
    for (name, rounds) in ["time", "CPU time"].iter().zip(&rounds) {
        let at = |place: usize| median(rounds.iter().map(|round| round[place]).collect());
        let ratio = median(rounds.iter().map(|round| round[2] / round[1]).collect());
        let own = median(rounds.iter().map(|round| (round[2] - round[0]) / (round[1] - round[0])).collect());
        println!(
            "{name} of a round trip: direct {:.1} us, passed {:.1} us, observed {:.1} us; observed/passed {ratio:.2}, without client and hub {own:.2}",
            at(0),
            at(1),
            at(2)
        );
    }
    let mut late: Vec<[[f64; 2]; 2]> = Vec::new();
    for _ in 0..ROUNDS {
        late.push([None, Some(Arc::clone(&lists[1]))].map(|list| {
            let all = latencies(connect(&runtime, list));
            [0.5, 0.99].map(|share| us(all[(all.len() as f64 * share) as usize]))
        }));
    }
    for (place, name) in ["p50", "p99"].iter().enumerate() {
        let at = |kind: usize| median(late.iter().map(|round| round[kind][place]).collect());
        let added = median(late.iter().map(|round| round[1][place] - round[0][place]).collect());
        println!(
            "{name} at {RATE} frames a second: passed {:.0} us, observed {:.0} us, added {added:.0} us",
            at(0),
            at(1)
        );
    }
    let left_out: usize = lists.iter().map(|list| list.lock().len()).sum();
    println!("medians of {ROUNDS} rounds; {left_out} connections left out by the judge");
}
