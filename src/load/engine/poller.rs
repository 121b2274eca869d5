//! Waits for sockets or the next due time, with microsecond precision where the system supports it.

use std::io;
use std::time::Duration;

use mio::{Events, Poll};

use crate::load::{Nanos, SECOND};

/// The token of the timer; no slot has it.
pub const TIMER_TOKEN: mio::Token = mio::Token(usize::MAX);
/// The token with which other threads wake a shard.
pub const WAKER_TOKEN: mio::Token = mio::Token(usize::MAX - 1);
/// The resolution of epoll's timeout.
const MILLISECOND: Nanos = SECOND / 1000;

/// Waits with epoll and a timerfd: epoll's timeout has whole milliseconds only, about as long as a local hub takes to
/// answer.
pub struct Poller {
    #[cfg(target_os = "linux")]
    timer: rustix::fd::OwnedFd,
    /// The time that the timer is set to, if it has not expired.
    armed: Nanos,
}

impl Poller {
    /// # Errors
    /// Errors of the system.
    #[cfg(target_os = "linux")]
    pub fn new(poll: &Poll) -> io::Result<Self> {
        use rustix::fd::AsRawFd as _;
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let mut source = mio::unix::SourceFd(&timer.as_raw_fd());
        poll.registry().register(&mut source, TIMER_TOKEN, mio::Interest::READABLE)?;
        Ok(Self { timer, armed: 0 })
    }

    /// # Errors
    /// Never fails here.
    #[cfg(not(target_os = "linux"))]
    pub fn new(_poll: &Poll) -> io::Result<Self> {
        Ok(Self { armed: 0 })
    }

    /// Waits for events until `until` at the latest.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn wait(&mut self, poll: &mut Poll, events: &mut Events, now: Nanos, until: Nanos) -> io::Result<()> {
        let wait = until.saturating_sub(now);
        let whole = wait / MILLISECOND;
        // The timer covers the fraction of a millisecond; without it, the wait ends early and is repeated.
        let timer = wait > 0 && whole < 4 && (self.armed == until || self.arm(wait, until));
        let timeout = (!timer).then(|| Duration::from_millis(whole));
        let polled = poll.poll(events, timeout);
        if events.iter().any(|event| event.token() == TIMER_TOKEN) {
            self.armed = 0;
        }
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            done => done,
        }
    }

    /// Whether the timer will end the wait. An expired timer of an earlier wait only causes a spurious wake-up.
    #[cfg(target_os = "linux")]
    fn arm(&mut self, wait: Nanos, until: Nanos) -> bool {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let wait = Timespec { tv_sec: (wait / SECOND) as i64, tv_nsec: (wait % SECOND) as i64 };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: never, it_value: wait };
        self.armed = until;
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).is_ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn arm(&mut self, _wait: Nanos, _until: Nanos) -> bool {
        false
    }
}
