//! Hooks that run a command, without a shell: it gets `{"args", "message"}` on stdin and answers on stdout.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};

use super::{HookCall, HookError, MAX_ANSWER, TemplateFiller, parse_answer};

/// The most bytes of stderr kept for the error. The rest is read and dropped, so that the program never blocks.
const MAX_STDERR: usize = 64 << 10;

/// How long to read output after the program has ended: a server that it started may keep the pipe open forever.
const OUTPUT_DRAIN: Duration = Duration::from_millis(200);

pub(super) async fn run_command(call: &HookCall<'_>, words: &[String], timeout: Duration) -> Result<Value, HookError> {
    let filler = TemplateFiller::new(call);
    let words = words.iter().map(|word| filler.fill("command", word)).collect::<Result<Vec<_>, _>>()?;
    let input = json!({ "args": call.args, "message": call.message }).to_string();
    match tokio::time::timeout(timeout, exchange_with_program(call.name, &words, input)).await {
        Ok(answer) => answer,
        Err(_) => Err(HookError::TimedOut { hook: call.name.to_owned(), after: timeout }),
    }
}

async fn exchange_with_program(name: &str, words: &[String], input: String) -> Result<Value, HookError> {
    let hook = || name.to_owned();
    let pipe = |source| HookError::Pipe { hook: hook(), source };
    let (program, rest) = words.split_first().map_or(("", [].as_slice()), |(program, rest)| (program.as_str(), rest));
    let mut child = Command::new(program)
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| HookError::Start { hook: hook(), program: program.to_owned(), source })?;
    let mut stdout = CapturedOutput::new(child.stdout.take(), MAX_ANSWER);
    let mut stderr = CapturedOutput::new(child.stderr.take(), MAX_STDERR);
    let mut writing = std::pin::pin!(write_stdin(child.stdin.take(), input));
    let mut written = false;
    let status = loop {
        tokio::select! {
            () = &mut writing, if !written => written = true,
            open = stdout.read_chunk(), if stdout.open => { open.map_err(pipe)?; }
            open = stderr.read_chunk(), if stderr.open => { open.map_err(pipe)?; }
            status = child.wait() => break status.map_err(pipe)?,
        }
        if stdout.overflowed {
            return Err(HookError::TooLong { hook: hook() });
        }
    };
    let rest = async { tokio::try_join!(stdout.read_all(), stderr.read_all()) };
    if let Ok(read) = tokio::time::timeout(OUTPUT_DRAIN, rest).await {
        read.map_err(pipe)?;
    }
    if stdout.overflowed {
        return Err(HookError::TooLong { hook: hook() });
    }
    if !status.success() {
        return Err(HookError::Exit {
            hook: hook(),
            status,
            stderr: String::from_utf8_lossy(&stderr.kept).into_owned(),
        });
    }
    Ok(parse_answer(&stdout.kept))
}

/// Writes to stdin; a program that does not read its stdin is not an error.
async fn write_stdin(stdin: Option<ChildStdin>, input: String) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(input.as_bytes()).await;
    }
}

/// An output stream of the program, kept up to a limit.
struct CapturedOutput<R> {
    pipe: Option<R>,
    kept: Vec<u8>,
    bound: usize,
    open: bool,
    overflowed: bool,
}

impl<R: AsyncRead + Unpin> CapturedOutput<R> {
    fn new(pipe: Option<R>, bound: usize) -> Self {
        Self { open: pipe.is_some(), pipe, kept: Vec::new(), bound, overflowed: false }
    }

    /// Reads once. Cancel-safe.
    async fn read_chunk(&mut self) -> std::io::Result<()> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let mut buffer = [0; 8192];
        let n = pipe.read(&mut buffer).await?;
        self.open = n > 0;
        let room = self.bound - self.kept.len();
        self.overflowed |= n > room;
        self.kept.extend(&buffer[..n.min(room)]);
        Ok(())
    }

    async fn read_all(&mut self) -> std::io::Result<()> {
        while self.open {
            self.read_chunk().await?;
        }
        Ok(())
    }
}
