//! Waiting for the hub or for the next due time, whichever comes first, to the microsecond where the system can.

use std::io;
use std::time::Duration;

use mio::{Events, Poll};

use crate::load::{Nanos, SECOND};

/// The token of the alarm; no seat has it.
pub const ALARM: mio::Token = mio::Token(usize::MAX);
/// The token of a waker: another thread wants something.
pub const WAKER: mio::Token = mio::Token(usize::MAX - 1);
/// epoll counts milliseconds.
const MILLISECOND: Nanos = SECOND / 1000;

/// A timer beside the sockets: epoll waits for whole milliseconds only, which would be most of the time that a hub nearby
/// takes to answer.
pub struct Poller {
    #[cfg(target_os = "linux")]
    timer: rustix::fd::OwnedFd,
    /// What the timer is set to, if it has not gone off.
    armed: Nanos,
}

impl Poller {
    /// # Errors
    /// The system's.
    #[cfg(target_os = "linux")]
    pub fn new(poll: &Poll) -> io::Result<Self> {
        use rustix::fd::AsRawFd as _;
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let mut source = mio::unix::SourceFd(&timer.as_raw_fd());
        poll.registry().register(&mut source, ALARM, mio::Interest::READABLE)?;
        Ok(Self { timer, armed: 0 })
    }

    /// # Errors
    /// None here.
    #[cfg(not(target_os = "linux"))]
    pub fn new(_poll: &Poll) -> io::Result<Self> {
        Ok(Self { armed: 0 })
    }

    /// Waits for events, until `until` at most.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&mut self, poll: &mut Poll, events: &mut Events, now: Nanos, until: Nanos) -> io::Result<()> {
        let wait = until.saturating_sub(now);
        let whole = wait / MILLISECOND;
        // What is left of a millisecond is the timer's business; without one, we wake early and look again.
        let timer = wait > 0 && whole < 4 && (self.armed == until || self.arm(wait, until));
        let timeout = (!timer).then(|| Duration::from_millis(whole));
        let polled = poll.poll(events, timeout);
        if events.iter().any(|event| event.token() == ALARM) {
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

    /// Whether the timer will end the wait. An expiry that nobody waits for any more wakes us for nothing.
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
