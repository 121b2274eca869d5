//! Shared by client and server: epoll, CPU time, and frames.

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// 200 bytes of JSON, typical of a job queue. The number after `id` identifies an answer.
pub const MESSAGE: &str = r#"{"type":"echo","id":"00000000-0000","priority":50,"payload":{"service":"comfyui","model":"sd15","prompt":"a lighthouse on a cliff in the evening, oil on canvas","steps":20,"seed":123456789,"scale":7.5}}"#;

/// The largest number of events that one wait returns.
const EVENTS: usize = 1024;

pub struct Epoll {
    fd: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Epoll {
    pub fn new() -> Self {
        Self { fd: epoll::create(CreateFlags::CLOEXEC).unwrap(), events: Vec::with_capacity(EVENTS) }
    }

    pub fn add(&self, source: &impl AsFd, token: u64) {
        epoll::add(&self.fd, source, EventData::new_u64(token), EventFlags::IN).unwrap();
    }

    /// Waits for readable sources, at most for `patience`, and passes on the token of each.
    pub fn wait(&mut self, patience: Option<&Timespec>, mut ready: impl FnMut(&Self, u64)) {
        self.events.clear();
        epoll::wait(&self.fd, rustix::buffer::spare_capacity(&mut self.events), patience).unwrap();
        for index in 0..self.events.len() {
            let token = self.events[index].data.u64();
            ready(self, token);
        }
    }
}

/// Returns the CPU time of this process so far in nanoseconds.
pub fn cpu_time() -> u64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}

/// Pins this process to one core, so that server and client do not share it.
pub fn pin_to_core(core: usize) {
    if sched_getaffinity(None).is_ok_and(|set| set.is_set(core)) {
        let mut set = CpuSet::new();
        set.set(core);
        let _ = sched_setaffinity(None, &set);
    }
}

/// Appends a text frame, masked with `mask` for a client.
pub fn append_frame(payload: &[u8], mask: Option<u32>, out: &mut Vec<u8>) {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        length @ 0..=125 => out.extend([0x81, mask_bit | length as u8]),
        length => {
            out.extend([0x81, mask_bit | 126]);
            out.extend((length as u16).to_be_bytes());
        }
    }
    let key = mask.map(u32::to_ne_bytes);
    out.extend(key.into_iter().flatten());
    let start = out.len();
    out.extend(payload);
    if let Some(key) = key {
        unmask(&mut out[start..], key);
    }
}

pub fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    let word = u32::from_ne_bytes(key);
    let mut words = bytes.chunks_exact_mut(4);
    for chunk in &mut words {
        let masked = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) ^ word;
        chunk.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// Returns the bounds of the first frame's payload, and its mask key; `None` while it is incomplete.
pub fn first_frame_bounds(bytes: &[u8]) -> Option<(usize, usize, Option<[u8; 4]>)> {
    let short = usize::from(bytes.get(1)? & 0x7f);
    let (length, mut start) = match short {
        126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        127 => panic!("no echo message is this long"),
        short => (short, 2),
    };
    let mut key = None;
    if bytes[1] & 0x80 != 0 {
        key = Some(bytes.get(start..start + 4)?.try_into().unwrap());
        start += 4;
    }
    (bytes.len() >= start + length).then_some((start, start + length, key))
}
