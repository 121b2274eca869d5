//! What the generator itself costs, and whether it keeps up: CPU of its threads, memory, bytes that wait unread.

use super::shard::slot::ClientSlot;
use crate::load::metrics::{Gauge, Recorder};
use crate::load::{Nanos, SECOND};

/// Connections that are asked for their unread bytes at a time; the sum is estimated from them.
const ASKED: usize = 256;

pub struct SelfMonitor {
    shard: usize,
    next: Nanos,
    last: Nanos,
    /// CPU time of this thread when it was last told.
    spent: Nanos,
    /// Where the next look at the connections begins.
    from: usize,
}

impl SelfMonitor {
    pub fn new(shard: usize) -> Self {
        Self { shard, next: SECOND, last: 0, spent: cpu_of_thread(), from: 0 }
    }

    /// Once a second, whatever became of the seconds before.
    pub fn is_due(&mut self, now: Nanos) -> bool {
        if now < self.next {
            return false;
        }
        self.next = (now / SECOND + 1) * SECOND;
        true
    }

    /// How many bytes have arrived and are not read, estimated from some of the connections.
    pub fn unread(&mut self, seats: &[ClientSlot]) -> u64 {
        if seats.is_empty() {
            return 0;
        }
        let asked = seats.len().min(ASKED);
        let some = (0..asked).map(|step| &seats[(self.from + step) % seats.len()]);
        let waiting: u64 =
            some.filter_map(|seat| seat.wire.as_ref()).map(|wire| unread(wire) + wire.held() as u64).sum();
        self.from = (self.from + asked) % seats.len();
        waiting * seats.len() as u64 / asked as u64
    }

    /// Writes CPU and memory down.
    pub fn tell(&mut self, recorder: &mut Recorder, now: Nanos) {
        let spent = cpu_of_thread();
        if now > self.last {
            let busy = (spent - self.spent) as f64 / (now - self.last) as f64;
            recorder.core(self.shard, busy.min(1.0), now);
        }
        (self.spent, self.last) = (spent, now);
        if self.shard == 0 {
            recorder.gauge(Gauge::Memory, resident(), now);
        }
    }
}

#[cfg(target_os = "linux")]
fn unread(wire: &super::connection::Connection) -> u64 {
    rustix::io::ioctl_fionread(wire.stream.tcp()).unwrap_or(0)
}

/// Not told elsewhere.
#[cfg(not(target_os = "linux"))]
fn unread(_wire: &super::connection::Connection) -> u64 {
    0
}

/// CPU time of the calling thread.
#[cfg(unix)]
fn cpu_of_thread() -> Nanos {
    use rustix::time::{ClockId, clock_gettime};
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is ever negative.
    spent.tv_sec as Nanos * SECOND + spent.tv_nsec as Nanos
}

#[cfg(not(unix))]
fn cpu_of_thread() -> Nanos {
    0
}

/// Bytes of memory that this process has; 0 where the system does not say.
pub fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * page_size()
}

#[cfg(unix)]
fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(not(unix))]
fn page_size() -> u64 {
    4096
}
