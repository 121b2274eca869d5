//! Measures the CPU cost of a round trip for the load generator, compared with minimal clients.
//!
//! The subjects: `a0` is a raw TCP echo client on epoll, `a` an epoll loop with minimal WebSocket, `t` the usual
//! WebSocket library on tokio, `b` the load engine with everything on (response times from due times, ledger, a unique
//! id in every message and matched in every answer), `c` the same with every answer validated. Each is a process of its
//! own against an echo server in another process, with the same messages and the same number of echoes; the CPU time of
//! all threads of the measuring process counts.
//!
//! `cargo bench --bench floor -- run SUBJECT CONNECTIONS ECHOES` prints nanoseconds per round trip; `reports/floor`
//! measures the subjects in turn and compares them.
#![allow(clippy::unwrap_used)]

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(target_os = "linux")]
mod engine;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod subjects;
#[cfg(target_os = "linux")]
mod wire;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("floor: needs epoll, which only Linux has");
}

#[cfg(target_os = "linux")]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", wire] => server::serve(wire == "raw"),
        ["measure", subject, address, connections, echoes] => {
            let task = subjects::EchoTask {
                address: address.parse().unwrap(),
                connections: connections.parse().unwrap(),
                echoes: echoes.parse().unwrap(),
            };
            println!("{}", subjects::measure(subject, &task));
        }
        ["run", subject, connections, echoes] => println!("{}", run(subject, connections, echoes)),
        // What cargo runs without arguments.
        _ => println!("floor: run SUBJECT CONNECTIONS ECHOES; reports/floor compares the subjects"),
    }
}

/// Runs one subject against a new server; returns nanoseconds of CPU per round trip.
#[cfg(target_os = "linux")]
fn run(subject: &str, connections: &str, echoes: &str) -> f64 {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    let this = std::env::current_exe().unwrap();
    let wire = if subject == "a0" { "raw" } else { "websocket" };
    let mut server = Command::new(&this).args(["serve", wire]).stdout(Stdio::piped()).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let done = Command::new(&this).args(["measure", subject, address.trim(), connections, echoes]).output().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(done.status.success(), "{subject} failed: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().parse().unwrap()
}
