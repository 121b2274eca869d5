//! Runs the binary in tests, as a process with a time limit that never outlives its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::disk;

/// Time limit; a process that hangs is killed and fails its test.
const MAX_PROCESS_TIME: Duration = Duration::from_secs(300);

/// The most memory in MiB that any command of any test may take, whatever a hub, a file or a client does to it.
const MAX_PROCESS_MEMORY: u64 = 1024;

/// Returns a free port below the ephemeral range, so that no other connection gets it. The next [`PORT_BLOCK`] ports are
/// reserved for the same test.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 15_000 + (std::process::id() % 400) as u16 * PORT_BLOCK;
    (0..200)
        .map(|_| base + NEXT.fetch_add(1, Ordering::SeqCst) % 200 * PORT_BLOCK)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}

pub const PORT_BLOCK: u16 = 25;

/// The result of a process.
#[derive(Debug)]
pub struct ProcessResult {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
    /// The highest sampled memory in MiB; `None` if it ended before the first sample, or the system does not report it.
    pub peak: Option<u64>,
}

impl ProcessResult {
    /// Fails the test, with all output, unless this is the exit code.
    #[track_caller]
    pub fn assert_exit_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "after {:?}\n--- stdout\n{}\n--- stderr\n{}", self.took, self.out, self.err);
        self
    }

    /// Returns stdout from its last verdict line on; empty without a verdict.
    pub fn verdict(&self) -> &str {
        let words = ["PASS ", "FAIL ", "MISTAKE ", "INCONCLUSIVE "];
        words.iter().filter_map(|word| self.out.rfind(&format!("\n{word}"))).max().map_or("", |at| &self.out[at + 1..])
    }
}

/// A running process of the binary; killed on drop.
pub struct RunningProcess {
    child: Child,
    started: Instant,
    out: Option<thread::JoinHandle<String>>,
    err: Option<thread::JoinHandle<String>>,
    /// Its stderr so far.
    stderr: Arc<Mutex<Vec<u8>>>,
}

/// Runs the binary to its end.
#[track_caller]
pub fn hubproof<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> ProcessResult {
    start(arguments, &[]).wait_for_end()
}

/// Starts the binary, with further environment variables.
pub fn start<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
) -> RunningProcess {
    let mut child = command(arguments, environment).stdin(Stdio::null()).spawn().unwrap();
    let (out, _) = collect(child.stdout.take().unwrap());
    let (err, stderr) = collect(child.stderr.take().unwrap());
    RunningProcess { child, started: Instant::now(), out: Some(out), err: Some(err), stderr }
}

/// Runs the binary with this stdin.
pub fn hubproof_reading<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    input: &str,
) -> ProcessResult {
    let mut child = command(arguments, &[]).stdin(Stdio::piped()).spawn().unwrap();
    let (out, _) = collect(child.stdout.take().unwrap());
    let (err, stderr) = collect(child.stderr.take().unwrap());
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    RunningProcess { child, started: Instant::now(), out: Some(out), err: Some(err), stderr }.wait_for_end()
}

fn command<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubproof"));
    command
        .args(arguments)
        .env("NO_COLOR", "1")
        .env_remove("COLUMNS")
        .envs(environment.iter().copied())
        .current_dir(super::disk::root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn collect(mut pipe: impl Read + Send + 'static) -> (thread::JoinHandle<String>, Arc<Mutex<Vec<u8>>>) {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&bytes);
    let all = thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut chunk) {
            shared.lock().unwrap().extend_from_slice(&chunk[..count]);
        }
        let bytes = shared.lock().unwrap().clone();
        String::from_utf8(bytes).expect("the output is UTF-8")
    });
    (all, bytes)
}

impl RunningProcess {
    /// Waits for its end.
    #[track_caller]
    pub fn wait_for_end(mut self) -> ProcessResult {
        let mut peak = None;
        let status = loop {
            peak = peak.max(peak_memory(&self.child));
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > MAX_PROCESS_TIME {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!(
                    "it did not end within {MAX_PROCESS_TIME:?}\n--- stdout\n{}\n--- stderr\n{}",
                    self.out.take().unwrap().join().unwrap(),
                    self.err.take().unwrap().join().unwrap()
                );
            }
            thread::sleep(Duration::from_millis(10));
        };
        let took = self.started.elapsed();
        assert_memory(peak);
        ProcessResult {
            code: status.code(),
            out: self.out.take().unwrap().join().unwrap(),
            err: self.err.take().unwrap().join().unwrap(),
            took,
            peak,
        }
    }

    /// Waits for this text on stderr; returns all of stderr so far.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) -> String {
        loop {
            let ended = self.stderr_ended();
            let stderr = String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned();
            if stderr.contains(text) {
                return stderr;
            }
            assert!(self.started.elapsed() < MAX_PROCESS_TIME && !ended, "stderr does not have {text:?}\n{stderr}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn stderr_ended(&self) -> bool {
        self.err.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Sends a signal, as a terminal or an init system would.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }
}

/// Returns the most memory in MiB that a process of the binary has had; only on Linux.
fn peak_memory(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    // Until exec, a new process has the memory and the name of the one that started it.
    if !status.starts_with("Name:\thubproof\n") {
        return None;
    }
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? >> 10)
}

#[track_caller]
fn assert_memory(peak: Option<u64>) {
    assert!(peak.is_none_or(|peak| peak < MAX_PROCESS_MEMORY), "it took {peak:?} MiB");
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let command = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
}

/// A running `hubproof serve`, `relay` or `record`; killed on drop.
pub struct ServeProcess {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    /// Name and address of its first lines.
    pub addresses: Vec<(String, String)>,
}

impl ServeProcess {
    /// Waits for this many addresses on its stdout.
    #[track_caller]
    pub fn start<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>, addresses: usize) -> Self {
        let arguments = arguments.into_iter().map(|one| one.as_ref().to_owned());
        Self::start_as(std::iter::once("serve".into()).chain(arguments), addresses)
    }

    /// Starts any subcommand that prints a name and a value in each of its first lines.
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

    /// Returns the first address of this name.
    #[track_caller]
    pub fn url(&self, name: &str) -> &str {
        let found = self.addresses.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("{:?}", self.addresses)).1
    }

    /// Ends it by a signal; returns its exit code and the rest of stdout.
    pub fn stop(mut self, name: &str) -> (Option<i32>, String) {
        assert_memory(peak_memory(&self.child));
        signal(&self.child, name);
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for ServeProcess {
    fn drop(&mut self) {
        let peak = peak_memory(&self.child);
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            assert_memory(peak);
        }
    }
}

/// Runs the assertions of a snapshot with filters for everything that differs between runs.
pub fn with_steady_text(assert: impl FnOnce()) {
    insta::with_settings!({
        filters => vec![
            (r"(wss?|https?)://127\.0\.0\.1:\d+", "$1://HUB"),
            (r"127\.0\.0\.1:\d+", "HUB"),
            (r"\b\d+(\.\d+)? (µs|ms|s)\b", "TIME"),
            (r"\b[a-z]{2,12}?[0-9a-z]{6,9}x\d+(x\d+)?\b", "ID"),
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
            // Cut in the middle.
            (r"[0-9a-f]{4,8}…", "UUID…"),
            (r"/tmp/\.tmp[A-Za-z0-9]+", "/DIR"),
            (r"hubproof \d+\.\d+\.\d+", "hubproof VERSION"),
        ],
        omit_expression => true,
    }, { assert() });
}

/// A hub of an example pack, which is a Python program; killed on drop.
pub struct ExampleHub {
    pack: String,
    process: Child,
    pub url: String,
}

impl ExampleHub {
    /// Returns `None` on a machine without Python.
    pub fn start(pack: &str, arguments: &[&str]) -> Option<Self> {
        let script = disk::root().join("examples/packs").join(pack).join("hub.py");
        let mut process = Command::new("python3").arg(script).args(arguments).stdout(Stdio::piped()).spawn().ok()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("ws://")).map(str::to_owned);
        Some(Self { pack: pack.to_owned(), process, url: url.unwrap_or_else(|| panic!("no address in {line:?}")) })
    }

    /// Returns the id of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Runs a command on the hub, with its pack and target file.
    pub fn run(&self, command: &str, options: &[&str]) -> ProcessResult {
        let pack = format!("examples/packs/{}", self.pack);
        let (target, url) = (format!("{pack}/target.toml"), format!("url={}", self.url));
        hubproof([command, "--pack", &pack, "--target", &target, "--set", &url].iter().chain(options))
    }
}

impl Drop for ExampleHub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns what a server answers to a request before it closes the connection.
pub fn answer_to(address: &str, request: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
