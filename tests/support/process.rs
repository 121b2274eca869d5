//! How tests run the binary: as a process of its own, never longer than a stated time, and never left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// No test needs its process for longer; one that hangs is ended and fails its test.
const LONGEST: Duration = Duration::from_secs(120);

/// What a process left behind.
#[derive(Debug)]
pub struct Done {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
    /// The most memory it held, in MiB, as far as it was seen; `None` where it had ended before anybody looked, or nobody
    /// tells.
    pub peak: Option<u64>,
}

impl Done {
    /// Fails the test, with all that was said, unless the exit code is this.
    #[track_caller]
    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "after {:?}\n--- stdout\n{}\n--- stderr\n{}", self.took, self.out, self.err);
        self
    }

    /// The last line of stdout.
    pub fn last_line(&self) -> &str {
        self.out.lines().last().unwrap_or_default()
    }
}

/// A process of this binary that is under way; it ends with the value.
pub struct Running {
    child: Child,
    started: Instant,
    out: Option<thread::JoinHandle<String>>,
    err: Option<thread::JoinHandle<String>>,
    /// What has come on stderr so far.
    said: Arc<Mutex<Vec<u8>>>,
}

/// Runs the binary to its end.
#[track_caller]
pub fn hubproof<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Done {
    start(arguments, &[]).done()
}

/// Starts the binary, with further environment variables.
pub fn start<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
) -> Running {
    let mut child = command(arguments, environment).stdin(Stdio::null()).spawn().unwrap();
    let (out, _) = collect(child.stdout.take().unwrap());
    let (err, said) = collect(child.stderr.take().unwrap());
    Running { child, started: Instant::now(), out: Some(out), err: Some(err), said }
}

/// Runs the binary with something to read on stdin.
pub fn hubproof_reading<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>, input: &str) -> Done {
    let mut child = command(arguments, &[]).stdin(Stdio::piped()).spawn().unwrap();
    let (out, _) = collect(child.stdout.take().unwrap());
    let (err, said) = collect(child.stderr.take().unwrap());
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Running { child, started: Instant::now(), out: Some(out), err: Some(err), said }.done()
}

fn command<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubproof"));
    command
        .args(arguments)
        .env("NO_COLOR", "1")
        .envs(environment.iter().copied())
        .current_dir(super::disk::root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn collect(mut pipe: impl Read + Send + 'static) -> (thread::JoinHandle<String>, Arc<Mutex<Vec<u8>>>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let all = thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut chunk) {
            heard.lock().unwrap().extend_from_slice(&chunk[..count]);
        }
        let bytes = heard.lock().unwrap().clone();
        String::from_utf8(bytes).expect("what is printed is UTF-8")
    });
    (all, said)
}

impl Running {
    /// Waits for its end.
    #[track_caller]
    pub fn done(mut self) -> Done {
        let mut peak = None;
        let status = loop {
            peak = peak.max(self.peak_memory());
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > LONGEST {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!(
                    "it did not end within {LONGEST:?}\n--- stdout\n{}\n--- stderr\n{}",
                    self.out.take().unwrap().join().unwrap(),
                    self.err.take().unwrap().join().unwrap()
                );
            }
            thread::sleep(Duration::from_millis(10));
        };
        let took = self.started.elapsed();
        Done {
            code: status.code(),
            out: self.out.take().unwrap().join().unwrap(),
            err: self.err.take().unwrap().join().unwrap(),
            took,
            peak,
        }
    }

    /// Waits until it has said this on stderr; everything that it has said so far.
    #[track_caller]
    pub fn says(&self, text: &str) -> String {
        loop {
            let ended = self.said_all();
            let heard = String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned();
            if heard.contains(text) {
                return heard;
            }
            assert!(self.started.elapsed() < LONGEST && !ended, "it has not said {text:?}\n{heard}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn said_all(&self) -> bool {
        self.err.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Sends a signal, as a terminal or an init system would.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// MiB; only Linux tells.
    fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        // For a moment a new process has the memory of the one that started it, and its name.
        if !status.starts_with("Name:\thubproof\n") {
            return None;
        }
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? >> 10)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let command = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
}

/// `hubproof serve`, ready to be connected to; it ends with the value.
pub struct Serving {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    /// The lines it announced: name and address.
    pub addresses: Vec<(String, String)>,
}

impl Serving {
    /// Waits until so many addresses were announced.
    #[track_caller]
    pub fn start<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>, addresses: usize) -> Self {
        let arguments = arguments.into_iter().map(|one| one.as_ref().to_owned());
        Self::start_as(std::iter::once("serve".into()).chain(arguments), addresses)
    }

    /// The same with any subcommand that announces a word and something in each of its first lines.
    #[track_caller]
    pub fn start_as<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>, addresses: usize) -> Self {
        let mut child =
            command(arguments, &[]).stdin(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut serving = Self { child, out, addresses: Vec::new() };
        for _ in 0..addresses {
            let mut line = String::new();
            serving.out.read_line(&mut line).unwrap();
            let (name, address) = line.trim_end().split_once(' ').unwrap_or_else(|| panic!("no address in {line:?}"));
            serving.addresses.push((name.to_owned(), address.to_owned()));
        }
        serving
    }

    /// The first address of this name.
    #[track_caller]
    pub fn url(&self, name: &str) -> &str {
        let found = self.addresses.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("{:?}", self.addresses)).1
    }

    /// Ends it by a signal: its exit code, and what it still said on stdout.
    pub fn end(mut self, name: &str) -> (Option<i32>, String) {
        signal(&self.child, name);
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the assertions of a snapshot with everything replaced that differs from run to run.
pub fn with_steady_text(assert: impl FnOnce()) {
    insta::with_settings!({
        filters => vec![
            (r"(wss?|https?)://127\.0\.0\.1:\d+", "$1://HUB"),
            (r"127\.0\.0\.1:\d+", "HUB"),
            (r"\b\d+(\.\d+)? (µs|ms|s)\b", "TIME"),
            (r"\b([a-z]+)_[0-9a-z]{6,9}_\d+\b", "${1}_ID"),
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
            // Cut off in the middle.
            (r"[0-9a-f]{4,8}…", "UUID…"),
            (r"/tmp/\.tmp[A-Za-z0-9]+", "/DIR"),
            (r"hubproof \d+\.\d+\.\d+", "hubproof VERSION"),
        ],
        omit_expression => true,
    }, { assert() });
}
