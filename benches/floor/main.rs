//! Measures the CPU cost of a round trip for the load generator, compared with minimal clients.
//!
//! In alternating rounds, `a0` is a raw TCP echo client on epoll, `a` an epoll loop with minimal WebSocket, `t` the
//! usual WebSocket library on tokio, `b` the load engine with everything on (response times from due times, ledger, a
//! unique id in every message and matched in every answer), `c` the same with every answer validated. Each is a process
//! of its own against an echo server in another process, with the same messages and the same number of echoes; the CPU
//! time of all threads of the measuring process is compared. The last lines are the ratios.
//!
//! `cargo bench --bench floor -- [ROUNDS] [ECHOES]`; `reports/floor` keeps the output.
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
        [] => compare(11, 200_000),
        [rounds] => compare(rounds.parse().unwrap(), 200_000),
        [rounds, echoes, ..] => compare(rounds.parse().unwrap(), echoes.parse().unwrap()),
    }
}

/// The reported ratios: name, numerator, denominator.
#[cfg(target_os = "linux")]
const RATIOS: [(&str, &str, &str); 4] = [("a/a0", "a", "a0"), ("t/a", "t", "a"), ("b/a", "b", "a"), ("c/a", "c", "a")];

/// Runs all subjects `rounds` times in turn, each with `echoes` round trips after its warm-up.
#[cfg(target_os = "linux")]
fn compare(rounds: usize, echoes: u64) {
    use std::collections::BTreeMap;

    let names: Vec<&str> = subjects::NAMES.to_vec();
    for connections in [100, 1000] {
        let mut costs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for round in 0..rounds {
            // Rotates the order, so that no subject always follows the same one.
            let order = (0..names.len()).map(|place| names[(place + round) % names.len()]);
            let mut line = format!("conns={connections} round={}", round + 1);
            for subject in order.collect::<Vec<_>>() {
                let micros = run(subject, connections, echoes) / 1000.0;
                line.push_str(&format!(" {subject}={micros:.3}us"));
                costs.entry(subject).or_default().push(micros);
            }
            println!("{line}");
        }
        for (subject, costs) in &mut costs {
            let (median, low, high) = spread(costs.clone());
            println!("cost {subject} conns={connections} median={median:.3}us range={low:.3}..{high:.3}us");
        }
        for (name, above, below) in RATIOS {
            // Compares neighbouring measurements, so that slow changes of the machine's speed cancel out.
            let ratios = costs[above].iter().zip(&costs[below]).map(|(above, below)| above / below).collect();
            let (median, low, high) = spread(ratios);
            println!("floor {name} conns={connections} median={median:.3} range={low:.3}..{high:.3}");
        }
    }
}

/// Returns median, minimum and maximum.
#[cfg(target_os = "linux")]
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Runs one subject against a new server; returns nanoseconds of CPU per round trip.
#[cfg(target_os = "linux")]
fn run(subject: &str, connections: usize, echoes: u64) -> f64 {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    let this = std::env::current_exe().unwrap();
    let wire = if subject == "a0" { "raw" } else { "websocket" };
    let mut server = Command::new(&this).args(["serve", wire]).stdout(Stdio::piped()).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let (connections, echoes) = (connections.to_string(), echoes.to_string());
    let done = Command::new(&this).args(["measure", subject, address.trim(), &connections, &echoes]).output().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(done.status.success(), "{subject} failed: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().parse().unwrap()
}
