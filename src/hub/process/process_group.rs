//! A process group: a process and its children, unless they left the group.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;

/// How long children of the hub may take to end after the hub has ended.
#[cfg(unix)]
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

/// The group of a started process; dropping the last clone kills all processes left in the group.
#[derive(Clone)]
pub struct ProcessGroup(std::sync::Arc<ProcessGroupState>);

struct ProcessGroupState {
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
    over: std::sync::atomic::AtomicBool,
}

impl ProcessGroup {
    /// Returns the group of `child`, which must have been started in its own group.
    pub fn of_child(child: &Child) -> Self {
        #[cfg(unix)]
        let id = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        #[cfg(not(unix))]
        let _ = child;
        Self(std::sync::Arc::new(ProcessGroupState {
            #[cfg(unix)]
            id,
            over: std::sync::atomic::AtomicBool::new(false),
        }))
    }

    /// Returns a group without processes.
    pub fn without_processes() -> Self {
        Self(std::sync::Arc::new(ProcessGroupState {
            #[cfg(unix)]
            id: None,
            over: std::sync::atomic::AtomicBool::new(true),
        }))
    }

    /// Starts a process that kills the group as soon as this process has ended, however it ends; `None` if the system
    /// has no shell.
    pub fn spawn_guard(&self) -> Option<GroupGuard> {
        #[cfg(unix)]
        {
            use std::process::Stdio;

            let id = self.0.id?.as_raw_nonzero().to_string();
            let script = r#"read -r over || kill -s KILL -- "-$0""#;
            let mut command = tokio::process::Command::new("sh");
            command.args(["-c", script, &id]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            // Ctrl-C is not for the guard.
            command.process_group(0);
            command.spawn().ok().map(GroupGuard)
        }
        #[cfg(not(unix))]
        None
    }

    /// Sends SIGTERM to the group.
    pub fn terminate(&self) {
        #[cfg(unix)]
        self.0.signal(rustix::process::Signal::TERM);
    }

    /// Sends SIGKILL to the group.
    pub fn kill(&self) {
        #[cfg(unix)]
        self.0.signal(rustix::process::Signal::KILL);
    }

    /// Records that the group is gone: its id may be reused, so it must no longer be signalled.
    fn mark_gone(&self) {
        self.0.over.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// Ends the processes that the leader has left running: SIGTERM, then SIGKILL a moment later.
    pub async fn end_orphans(&self) {
        #[cfg(unix)]
        {
            self.terminate();
            let end = tokio::time::Instant::now() + ORPHAN_GRACE;
            while self.0.is_alive() && tokio::time::Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.kill();
        }
        self.mark_gone();
    }
}

/// A process at the other end of a pipe, which closes when this process ends.
pub struct GroupGuard(Child);

impl GroupGuard {
    /// Ends the guard, after its group has ended.
    pub async fn dismiss(mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            let _ = pipe.write_all(b"over\n").await;
        }
        let _ = self.0.wait().await;
    }
}

#[cfg(unix)]
impl ProcessGroupState {
    /// Sends a signal to the group; an error means that the group is gone.
    fn signal(&self, signal: rustix::process::Signal) {
        if let (Some(id), false) = (self.id, self.over.load(std::sync::atomic::Ordering::SeqCst)) {
            let _ = rustix::process::kill_process_group(id, signal);
        }
    }

    fn is_alive(&self) -> bool {
        self.id.is_some_and(|id| rustix::process::test_kill_process_group(id).is_ok())
    }
}

impl Drop for ProcessGroupState {
    fn drop(&mut self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::KILL);
    }
}

/// Returns the name of a signal that ends programs, such as ` (SIGSEGV)`; empty for other signals.
#[cfg(unix)]
pub fn signal_name(signal: i32) -> &'static str {
    match signal {
        2 => " (SIGINT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    }
}
