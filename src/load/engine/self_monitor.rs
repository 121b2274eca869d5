//! Measures the generator itself: CPU of its threads, memory, unread bytes.

use super::shard::slot::ClientSlot;
use crate::load::metrics::{Gauge, MetricRecorder};
use crate::load::{Nanos, SECOND};

/// Connections sampled at a time for the estimate of unread bytes.
const SAMPLED_CONNECTIONS: usize = 256;

pub struct SelfMonitor {
    shard: usize,
    next: Nanos,
    last: Nanos,
    /// CPU time of this thread at the last report.
    spent: Nanos,
    /// The first slot of the next sample.
    from: usize,
}

impl SelfMonitor {
    pub fn new(shard: usize) -> Self {
        Self { shard, next: SECOND, last: 0, spent: cpu_of_thread(), from: 0 }
    }

    /// Whether a second has passed since the last report.
    pub fn is_due(&mut self, now: Nanos) -> bool {
        if now < self.next {
            return false;
        }
        self.next = (now / SECOND + 1) * SECOND;
        true
    }

    /// Estimates the received and unread bytes from a sample of the connections.
    pub fn estimate_unread(&mut self, slots: &[ClientSlot]) -> u64 {
        if slots.is_empty() {
            return 0;
        }
        let asked = slots.len().min(SAMPLED_CONNECTIONS);
        let some = (0..asked).map(|step| &slots[(self.from + step) % slots.len()]);
        let waiting: u64 = some
            .filter_map(|slot| slot.connection.as_ref())
            .map(|connection| unread_bytes(connection) + connection.buffered_bytes() as u64)
            .sum();
        self.from = (self.from + asked) % slots.len();
        waiting * slots.len() as u64 / asked as u64
    }

    /// Records CPU and memory.
    pub fn record_resources(&mut self, recorder: &mut MetricRecorder, now: Nanos) {
        let spent = cpu_of_thread();
        if now > self.last {
            let busy = (spent - self.spent) as f64 / (now - self.last) as f64;
            recorder.core(self.shard, busy.min(1.0), now);
        }
        (self.spent, self.last) = (spent, now);
        if self.shard == 0 {
            recorder.gauge(Gauge::Memory, resident_memory(), now);
        }
    }
}

#[cfg(target_os = "linux")]
fn unread_bytes(connection: &super::connection::LoadConnection) -> u64 {
    rustix::io::ioctl_fionread(connection.stream.tcp()).unwrap_or(0)
}

/// Not available on other platforms.
#[cfg(not(target_os = "linux"))]
fn unread_bytes(_connection: &super::connection::LoadConnection) -> u64 {
    0
}

/// Returns the CPU time of the calling thread.
#[cfg(unix)]
fn cpu_of_thread() -> Nanos {
    use rustix::time::{ClockId, clock_gettime};
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    // Both are non-negative.
    spent.tv_sec as Nanos * SECOND + spent.tv_nsec as Nanos
}

#[cfg(not(unix))]
fn cpu_of_thread() -> Nanos {
    0
}

/// Returns the resident memory of this process in bytes; 0 if the system does not report it.
pub fn resident_memory() -> u64 {
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
