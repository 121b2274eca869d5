//! Runs the commands that README.md, CONTRIBUTING.md and the book show, and compares their output.
//!
//! A code block with the word `console` contains lines `$ COMMAND`, each followed by its output:
//!
//! - `hubproof ...` and `cargo run --release -- ...` run the built binary, in the page's own folder; `cat FILE` prints
//!   a file of that folder; `echo $?` prints the exit code of the previous command. The test compares stdout, or stderr
//!   if stdout is empty.
//! - A line `...` matches any number of lines. A `\` at the end of a line continues the command.
//! - Times, ids and the like compare equal ([`normalised_line`]); with the word `figures` next to `console`, all numbers do.
//! - A block without output compares none. A command may end with 0, 1 or 3, unless `echo $?` shows its exit code.
//! - Ports from 4000 to 4009 become free ones. If no command has started a hub there, the reference server runs there,
//!   with the protocol that `--protocol` or the target file names; the `./hub` of `--exec './hub --port 4000'` is one,
//!   too.
//! - `serve` and `relay` run until the end of the page.
//! - `python3 tests/fixtures/hubs/NAME.py --port PORT ... &`, or with another path, starts a hub, and shows the line
//!   that it prints; `kill %1` ends it. Then another hub can be started on the same port, also with `--exec`.
//! - With the word `no-run`, the commands are not run, but their arguments must be valid, and scripts must exist.
//!
//! A code block with the word `file=NAME` is a file in the page's folder.
//!
//! `HUBPROOF_BLESS=1 cargo test --test it documents` rewrites the output that differs, and keeps the elisions.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use hubproof::fuzz::case::MutationKind;
use hubproof::fuzz::placement::Placement;
use regex::Regex;
use rstest::rstest;

use crate::support::disk;
use crate::support::process::{ServeProcess, free_port};

const BINARY: &str = env!("CARGO_BIN_EXE_hubproof");
const ELISION: &str = "...";

#[rstest]
fn page_commands_print_the_output_shown(
    #[files("README.md")]
    #[files("CONTRIBUTING.md")]
    #[files("docs/src/**/*.md")]
    #[exclude("/(ci|graphql-pack|load-testing|quick-start|tutorial).md")]
    path: PathBuf,
) {
    assert_commands_print_what_is_shown(&path);
}

#[rstest]
#[ignore = "thorough: waits for real time"]
fn page_commands_with_long_runs_print_the_output_shown(
    #[files("docs/src/ci.md")]
    #[files("docs/src/graphql-pack.md")]
    #[files("docs/src/load-testing.md")]
    #[files("docs/src/quick-start.md")]
    #[files("docs/src/tutorial.md")]
    path: PathBuf,
) {
    assert_commands_print_what_is_shown(&path);
}

fn assert_commands_print_what_is_shown(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    if text.contains("\n$ python3 ")
        && std::env::var_os("CI").is_none()
        && Command::new("python3").arg("-V").output().is_err()
    {
        eprintln!("skipped: there is no python3 for the commands of {}", path.display());
        return;
    }
    let bless = std::env::var_os("HUBPROOF_BLESS").is_some();
    let mut page = PageRun::new();
    let mut blessed = String::new();
    let mut wrong = String::new();
    for part in page_parts(&text) {
        let (info, body) = match part {
            PagePart::Text(text) => {
                blessed.push_str(text);
                continue;
            }
            PagePart::Block { info, body } => (info, body),
        };
        let words: Vec<&str> = info.split([',', ' ']).collect();
        if let Some(name) = words.iter().find_map(|word| word.strip_prefix("file=")) {
            page.files.push((name.to_owned(), body.to_owned()));
        }
        let body = match words[0] {
            "console" if words.contains(&"no-run") => {
                shown_commands(body).iter().for_each(|command| page.parse(command));
                body.to_owned()
            }
            "console" => page.play(&shown_commands(body), words.contains(&"figures"), bless, &mut wrong),
            _ => body.to_owned(),
        };
        blessed.push_str(&format!("```{info}\n{body}```\n"));
    }
    if bless && blessed != text {
        fs::write(path, blessed).unwrap();
    }
    let help = "to rewrite the page: HUBPROOF_BLESS=1 cargo test --test it documents";
    assert!(wrong.is_empty(), "{}:\n{wrong}\n{help}", path.display());
}

/// What a newcomer has to read before the first finding in a protocol of their own.
#[test]
fn the_path_to_a_first_finding_has_at_most_3000_words() {
    let pages = disk::root().join("docs/src");
    let summary = fs::read_to_string(pages.join("SUMMARY.md")).unwrap();
    let (_, path) = summary.split_once("# From nothing to a first finding").unwrap();
    let path = path.split("\n# ").next().unwrap();
    let linked = path.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let listed: Vec<&str> = linked.chain(["introduction.md"]).collect();
    assert!(listed.contains(&"first-pack.md"), "{listed:?}");
    let words = listed.iter().map(|page| fs::read_to_string(pages.join(page)).unwrap().split_whitespace().count());
    let words: usize = words.sum();
    assert!(words <= 3000, "{listed:?}: {words} words");
}

/// A piece of a page.
enum PagePart<'a> {
    Text(&'a str),
    Block { info: &'a str, body: &'a str },
}

fn page_parts(text: &str) -> Vec<PagePart<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(found) = rest[from..].find("```") {
        let begin = from + found;
        if begin > 0 && !rest[..begin].ends_with('\n') {
            from = begin + 3;
            continue;
        }
        let (info, tail) = rest[begin + 3..].split_once('\n').expect("a code block has lines");
        let end = if tail.starts_with("```\n") { 0 } else { tail.find("\n```\n").expect("a code block ends") + 1 };
        parts.push(PagePart::Text(&rest[..begin]));
        parts.push(PagePart::Block { info, body: &tail[..end] });
        rest = &tail[end + 4..];
        from = 0;
    }
    parts.push(PagePart::Text(rest));
    parts
}

/// A command as a page shows it.
struct ShownCommand<'a> {
    /// The command's lines in the page.
    text: String,
    line: String,
    output: Vec<&'a str>,
}

fn shown_commands(body: &str) -> Vec<ShownCommand<'_>> {
    let mut commands: Vec<ShownCommand<'_>> = Vec::new();
    let mut lines = body.lines();
    while let Some(line) = lines.next() {
        let Some(start) = line.strip_prefix("$ ") else {
            commands.last_mut().expect("a console block begins with `$ `").output.push(line);
            continue;
        };
        let mut command = ShownCommand { text: format!("{line}\n"), line: start.to_owned(), output: Vec::new() };
        while let Some(open) = command.line.strip_suffix('\\') {
            let next = lines.next().expect("a continued command has another line");
            command.text.push_str(&format!("{next}\n"));
            command.line = format!("{open}{}", next.trim_start());
        }
        commands.push(command);
    }
    commands
}

/// The state that the commands of a page share.
struct PageRun {
    folder: tempfile::TempDir,
    files: Vec<(String, String)>,
    /// Ports as the page shows them, with the real ones.
    ports: Vec<(u16, u16)>,
    serving: Vec<ServeProcess>,
    /// The running hub of the fixtures, if any.
    fixture: Option<FixtureHub>,
    code: Option<i32>,
}

/// A process of a hub of the fixtures; killed on drop.
struct FixtureHub {
    child: Child,
    /// The hub's stdout. It stays open because the hub may fail when it writes to a closed pipe.
    out: BufReader<ChildStdout>,
}

impl Drop for FixtureHub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl PageRun {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // So that hubs and packs have the same path as in a checkout.
        #[cfg(unix)]
        for name in ["tests", "examples"] {
            std::os::unix::fs::symlink(disk::root().join(name), folder.path().join(name)).unwrap();
        }
        Self { folder, files: Vec::new(), ports: Vec::new(), serving: Vec::new(), fixture: None, code: None }
    }

    /// Fails unless the command could be run.
    fn parse(&self, command: &ShownCommand<'_>) {
        let (_, words) = split_command_line(&command.line);
        match hubproof_arguments(&words) {
            Some(arguments) => {
                // The parser checks options and values up to the one that asks for help.
                let mut process = assert_cmd::Command::new(BINARY);
                let done = process.args(arguments).arg("--help").output().unwrap();
                assert!(done.status.success(), "$ {}\n{}", command.line, String::from_utf8_lossy(&done.stderr));
            }
            None if words[0].contains('/') => {
                let script = disk::root().join(&words[0]);
                assert!(script.is_file(), "$ {}: there is no {}", command.line, script.display());
            }
            None => assert!(
                matches!(words[0].as_str(), "cargo" | "docker" | "export" | "git" | "sudo" | "tar"),
                "$ {}",
                command.line
            ),
        }
    }

    /// Runs the commands of a block and returns the block, corrected with `bless`. Differences go to `wrong`.
    fn play(&mut self, commands: &[ShownCommand<'_>], figures: bool, bless: bool, wrong: &mut String) -> String {
        let compared = commands.iter().any(|command| !command.output.is_empty());
        let mut block = String::new();
        for (index, command) in commands.iter().enumerate() {
            let code_shown = commands.get(index + 1).is_some_and(|next| next.line == "echo $?");
            let printed = self.run(command, code_shown);
            let printed: Vec<&str> = printed.trim_end().lines().map(str::trim_end).collect();
            let mut shown: Vec<String> = command.output.iter().map(|line| (*line).to_owned()).collect();
            if compared && !lines_agree(&command.output, &printed, figures) {
                match rewritten_output(&command.output, &printed, figures).filter(|_| bless) {
                    Some(lines) => shown = lines,
                    None => wrong.push_str(&format!(
                        "\n$ {}\n--- shown\n{}\n--- printed\n{}\n",
                        command.line,
                        command.output.join("\n"),
                        printed.join("\n")
                    )),
                }
            }
            block.push_str(&command.text);
            shown.iter().for_each(|line| block.push_str(&format!("{line}\n")));
        }
        block
    }

    /// Runs the command and returns its output as the page would show it.
    #[track_caller]
    fn run(&mut self, command: &ShownCommand<'_>, code_shown: bool) -> String {
        let (environment, words) = split_command_line(&command.line);
        if command.line == "echo $?" {
            return self.code.map_or("killed".to_owned(), |code| code.to_string());
        }
        if words[0] == "cat" {
            return self.with_shown_ports(&fs::read_to_string(self.folder.path().join(&words[1])).unwrap());
        }
        match (words[0].as_str(), words.last().map(String::as_str)) {
            ("python3", Some("&")) => return self.start_fixture(&words[..words.len() - 1]),
            ("kill", Some("%1")) => {
                drop(self.fixture.take().expect("a hub of the fixtures runs"));
                return String::new();
            }
            _ => {}
        }
        let mut arguments =
            hubproof_arguments(&words).unwrap_or_else(|| panic!("only hubproof is run: $ {}", command.line));
        if matches!(arguments[0].as_str(), "serve" | "relay") && !arguments.contains(&"--list-faults".to_owned()) {
            return self.serve(arguments, command.output.len().max(1));
        }
        self.write_files(&arguments);
        self.replace_ports(&mut arguments);
        let mut process = assert_cmd::Command::new(BINARY);
        process.args(&arguments).envs(environment).env("NO_COLOR", "1");
        let done = process.current_dir(self.folder.path()).timeout(Duration::from_secs(120)).output().unwrap();
        self.code = done.status.code();
        let printed = if done.stdout.is_empty() { &done.stderr } else { &done.stdout };
        let printed = self.with_shown_ports(&String::from_utf8_lossy(printed));
        assert!(
            code_shown || matches!(self.code, Some(0 | 1 | 3)),
            "$ {}: exit code {:?}\n{printed}",
            command.line,
            self.code
        );
        printed
    }

    /// Starts a hub of the fixtures, on an earlier one's port or a free one; returns its announcement.
    fn start_fixture(&mut self, words: &[String]) -> String {
        assert!(self.fixture.is_none(), "`kill %1` ends the hub that runs");
        let shown = words.iter().position(|word| word == "--port").expect("--port") + 1;
        let shown = words[shown].parse().unwrap();
        if !self.ports.iter().any(|(known, _)| *known == shown) {
            self.ports.push((shown, free_port()));
        }
        let mut command = Command::new(&words[0]);
        command.args(words[1..].iter().map(|word| self.with_real_ports(word))).current_dir(self.folder.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let fixture = self.fixture.insert(FixtureHub { child, out });
        let mut line = String::new();
        fixture.out.read_line(&mut line).unwrap();
        self.with_shown_ports(&line)
    }

    /// Starts a background command on a free port; returns its announcement.
    fn serve(&mut self, mut arguments: Vec<String>, lines: usize) -> String {
        let listen = arguments.iter().position(|word| word == "--listen").expect("--listen") + 1;
        let shown = arguments[listen].rsplit_once(':').unwrap().1.parse().unwrap();
        arguments[listen] = "127.0.0.1:0".to_owned();
        self.replace_ports(&mut arguments);
        for file in arguments.iter_mut().filter(|word| word.ends_with(".toml")) {
            *file = self.folder.path().join(&*file).display().to_string();
        }
        let serving = ServeProcess::start_as(&arguments, lines);
        self.ports.push((shown, port(&serving.addresses[0].1)));
        let announced: Vec<String> = serving.addresses.iter().map(|(name, value)| format!("{name} {value}")).collect();
        self.serving.push(serving);
        self.with_shown_ports(&announced.join("\n"))
    }

    /// Puts real ports into the arguments, and starts hubs that are missing.
    fn replace_ports(&mut self, arguments: &mut [String]) {
        self.start_missing_hubs(&arguments.join(" "));
        for argument in arguments {
            *argument = self.with_real_ports(argument);
        }
    }

    /// Writes the page's new files, and starts the hubs of the files that the command names.
    fn write_files(&mut self, arguments: &[String]) {
        for (name, text) in std::mem::take(&mut self.files) {
            if arguments.contains(&name) {
                self.start_missing_hubs(&text);
            }
            let path = self.folder.path().join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, self.with_real_ports(&text)).unwrap();
        }
    }

    fn with_real_ports(&self, text: &str) -> String {
        let replaced = |found: &regex::Captures<'_>| {
            let port = self.ports.iter().find(|(shown, _)| shown.to_string() == found[0]);
            port.map_or_else(|| found[0].to_owned(), |(_, actual)| actual.to_string())
        };
        SHOWN_PORT.replace_all(text, replaced).into_owned()
    }

    /// Starts a hub for each port in the text that has none, of the protocol that the text names.
    fn start_missing_hubs(&mut self, text: &str) {
        let ports: BTreeSet<u16> = SHOWN_PORT.find_iter(text).map(|found| found.as_str().parse().unwrap()).collect();
        for shown in ports {
            if self.ports.iter().any(|(known, _)| *known == shown) {
                continue;
            }
            let Some(protocol) = named_protocol(text) else { continue };
            let actual = if text.contains("./hub") {
                self.make_hub_program(protocol);
                free_port()
            } else {
                let serving = ServeProcess::start([protocol], 1);
                let actual = port(&serving.addresses[0].1);
                self.serving.push(serving);
                actual
            };
            self.ports.push((shown, actual));
        }
    }

    /// Creates the program that `--exec` starts.
    fn make_hub_program(&self, protocol: &str) {
        let path = self.folder.path().join("hub");
        fs::write(&path, format!("#!/bin/sh\nexec '{BINARY}' serve {protocol} --listen \"127.0.0.1:$2\"\n")).unwrap();
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn with_shown_ports(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (shown, actual)| {
            Regex::new(&format!(r"\b{actual}\b")).unwrap().replace_all(&text, shown.to_string()).into_owned()
        })
    }
}

static SHOWN_PORT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b400\d\b").unwrap());

/// Returns the variables that a command line sets, and its words.
fn split_command_line(line: &str) -> (Vec<(String, String)>, Vec<String>) {
    let mut words = shlex::split(line).unwrap_or_else(|| panic!("quotes are not balanced: {line}"));
    let set = words.iter().take_while(|word| word.contains('=')).count();
    let variables =
        words.drain(..set).filter_map(|word| word.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())));
    (variables.collect(), words)
}

/// Returns the arguments of the binary, if this command runs it.
fn hubproof_arguments(words: &[String]) -> Option<Vec<String>> {
    let cargo = ["cargo", "run", "--release", "--"];
    match words {
        [first, rest @ ..] if first == "hubproof" => Some(rest.to_vec()),
        all if all.len() > 4 && all[..4] == cargo => Some(all[4..].to_vec()),
        _ => None,
    }
}

fn named_protocol(text: &str) -> Option<&str> {
    static NAMED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"protocol (?:= ")?([a-z]+)"#).unwrap());
    NAMED.captures(text).map(|found| found.get(1).unwrap().as_str())
}

fn port(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.trim_end_matches('/').parse().unwrap()
}

/// Returns the line with everything replaced that differs between runs.
fn normalised_line(line: &str, figures: bool) -> String {
    static SAME: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            (r"\d+(\.\d+)? (ns|µs|ms|s|min)\b", "TIME"),
            (r"\b[a-z]{2,12}?[0-9a-z]{6,9}x\d+(x\d+)?\b", "ID"),
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
            (r"127\.0\.0\.1:\d{5}\b", "127.0.0.1:PORT"),
            // Truncated, and ids before the cut may have any length.
            (r".{0,30}…", "…"),
            (r"hubproof \d+\.\d+\.\d+", "hubproof VERSION"),
            // Each frame is checked, and their number is random.
            (r"\bchecks +\d+: \d+ pass(, \d+ info)?", "checks N: N pass"),
            (r"last (\d+) of \d+ events", "last $1 of N events"),
        ]
        .map(|(pattern, by)| (Regex::new(pattern).unwrap(), by))
        .into()
    });
    static FIGURES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            (r"\d[\d.,]*( \d{3})*", "N"),
            // A figure with too few samples, or without an upper bound.
            (r"  [-?]( |$)", "  TIME$1"),
            // A busy machine makes a run suspect.
            (r"\bINCONCLUSIVE (.*): the run is suspect, ", "PASS $1: "),
        ]
        .map(|(pattern, by)| (Regex::new(pattern).unwrap(), by))
        .into()
    });
    let further = figures.then_some(&*FIGURES);
    let all = SAME.iter().chain(further.into_iter().flatten());
    let line = all.fold(line.to_owned(), |line, (pattern, by)| pattern.replace_all(&line, *by).into_owned());
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the lines are those shown, except for elisions.
fn lines_agree(shown: &[&str], printed: &[&str], figures: bool) -> bool {
    let steadied = |lines: &[&str]| lines.iter().map(|line| normalised_line(line, figures)).collect::<Vec<_>>();
    let (shown, printed) = (steadied(shown), steadied(printed));
    let pieces: Vec<&[String]> = shown.split(|line| line == ELISION).collect();
    let [first, .., last] = pieces.as_slice() else { return shown == printed };
    let Some(rest) = printed.strip_prefix(*first).and_then(|rest| rest.strip_suffix(*last)) else { return false };
    pieces[1..pieces.len() - 1]
        .iter()
        .try_fold(rest, |rest, piece| {
            let at = (0..=rest.len().checked_sub(piece.len())?).find(|at| rest[*at..].starts_with(piece))?;
            Some(&rest[at + piece.len()..])
        })
        .is_some()
}

/// Returns the new lines to show, with as many around each elision as before; `None` if a piece in the middle
/// cannot be found by its first line.
fn rewritten_output(shown: &[&str], printed: &[&str], figures: bool) -> Option<Vec<String>> {
    let pieces: Vec<&[&str]> = shown.split(|line| *line == ELISION).collect();
    if pieces.len() == 1 {
        return Some(printed.iter().map(|line| (*line).to_owned()).collect());
    }
    let mut lines = Vec::new();
    let mut end = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let begin = match piece.first() {
            None => end,
            Some(_) if index == 0 => 0,
            Some(_) if index + 1 == pieces.len() => printed.len().checked_sub(piece.len())?,
            Some(line) => {
                let word = |line: &str| line.split_whitespace().next().map(str::to_owned);
                let same = |at: &usize| normalised_line(printed[*at], figures) == normalised_line(line, figures);
                let alike = |at: &usize| word(printed[*at]) == word(line);
                (end..printed.len()).find(same).or_else(|| (end..printed.len()).find(alike))?
            }
        };
        if index > 0 {
            lines.push(ELISION.to_owned());
        }
        end = begin + piece.len();
        lines.extend(printed.get(begin..end)?.iter().map(|line| (*line).to_owned()));
    }
    Some(lines)
}

#[rstest]
#[case(&["a", "b"], &["a", "b"], true)]
#[case(&["a"], &["a", "b"], false)]
#[case(&["a", "..."], &["a", "b", "c"], true)]
#[case(&["...", "c"], &["a", "b", "c"], true)]
#[case(&["a", "...", "b", "...", "d"], &["a", "x", "b", "c", "d"], true)]
#[case(&["a", "...", "a"], &["a"], false)]
#[case(&["waited  3 ms"], &["waited 12.1 s"], true)]
#[case(&["3 checks"], &["4 checks"], false)]
fn three_dots_in_shown_output_match_any_lines(
    #[case] shown: &[&str],
    #[case] printed: &[&str],
    #[case] expected: bool,
) {
    assert_eq!(lines_agree(shown, printed, false), expected);
}

#[rstest]
#[case(&["x", "..."], &["a", "b"], Some(vec!["a", "..."]))]
#[case(&["x", "...", "rate 3", "...", "z"], &["a", "b", "rate 4", "c", "d"], Some(vec!["a", "...", "rate 4", "...", "d"]))]
#[case(&["...", "gone", "..."], &["a"], None)]
#[case(&["x"], &["a", "b"], Some(vec!["a", "b"]))]
fn a_rewritten_block_of_output_keeps_its_three_dots(
    #[case] shown: &[&str],
    #[case] printed: &[&str],
    #[case] expected: Option<Vec<&str>>,
) {
    let expected = expected.map(|lines| lines.into_iter().map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(rewritten_output(shown, printed, false), expected);
}

#[test]
fn the_page_about_fuzzing_names_every_mutation_and_moment() {
    let page = fs::read_to_string(disk::root().join("docs/src/fuzzing.md")).unwrap();
    let mutations = MutationKind::all().map(MutationKind::name);
    let known: BTreeSet<&str> = mutations.chain(Placement::ALL.map(Placement::name)).collect();
    let missing: Vec<_> = known.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
