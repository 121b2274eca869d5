//! The invariants of the layout (ARCHITECTURE.md): modules of `src` use only those above them, folders stay small, and
//! sockets, tokio and printing are confined to some modules. Tested on the text of the files, without macro expansion.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

use crate::support::disk;

/// The largest number of rooms in `src`.
const MAX_ROOMS: usize = 21;
/// The largest number of Rust files in one folder.
const MAX_FILES: usize = 22;
/// Folders that may open sockets.
const SOCKET_FOLDERS: [&str; 5] =
    ["src/transport/", "src/hub/", "src/load/engine/", "src/load/nats/", "src/load/pages/"];
/// Folders that may use tokio.
const TOKIO: [&str; 11] = [
    "src/transport/",
    "src/reference/",
    "src/hub/",
    "src/judge/",
    "src/check/",
    "src/fuzz/campaign/",
    "src/load/engine/",
    "src/load/machine/",
    "src/load/nats/",
    "src/load/pages/",
    "src/cli/",
];
/// Folders that may print.
const PRINTING_FOLDERS: [&str; 2] = ["src/cli/", "src/main.rs"];
/// Folders that may use the reference server's crate.
const REFERENCE_FOLDERS: [&str; 2] = ["src/reference/", "src/cli/"];

/// Returns the top-level modules ("rooms"), in the order of their declaration in `lib.rs`.
fn rooms(lib: &str) -> Vec<&str> {
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect()
}

/// Returns the room of a file of `src`; empty for those of the crate's root.
fn room_of<'a>(path: &'a str, rooms: &[&str]) -> &'a str {
    let name = path.trim_start_matches("src/").split('/').next().unwrap_or_default();
    let name = name.strip_suffix(".rs").unwrap_or(name);
    if rooms.contains(&name) { name } else { "" }
}

/// Returns the text with comment lines emptied, so that line numbers stay.
fn code_without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the lines of code that match a pattern, with their numbers.
fn matching_lines(text: &str, pattern: &Regex) -> Vec<(usize, String)> {
    let code = code_without_comments(text);
    let numbered = code.lines().enumerate().filter(|(_, line)| pattern.is_match(line));
    numbered.map(|(index, line)| (index + 1, line.trim().to_owned())).collect()
}

/// Returns the module depth of a file of `src` below the crate's root.
fn module_depth(path: &str) -> usize {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main")).count()
}

/// Returns the modules of the crate's root that a file uses, each with its line.
fn used_rooms(path: &str, text: &str) -> Vec<(usize, String)> {
    static ONE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bcrate::(\w+)").unwrap());
    static LIST: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bcrate::\{([^;]*)\};").unwrap());
    static INNER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\{[^{}]*\}").unwrap());
    static ABOVE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b((?:super::)+)(\w+)").unwrap());
    let text = code_without_comments(text);
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let mut used: Vec<(usize, String)> =
        ONE.captures_iter(&text).map(|found| (line(found.get_match().start()), found[1].to_owned())).collect();
    for found in LIST.captures_iter(&text) {
        let mut list = found[1].to_owned();
        while INNER.is_match(&list) {
            list = INNER.replace_all(&list, "").into_owned();
        }
        let names = list.split(',').map(|part| part.trim().split("::").next().unwrap_or_default().to_owned());
        used.extend(names.map(|name| (line(found.get_match().start()), name)));
    }
    let up = ABOVE.captures_iter(&text).filter(|found| found[1].matches("super").count() >= module_depth(path));
    used.extend(up.map(|found| (line(found.get_match().start()), found[2].to_owned())));
    used
}

/// Returns uses of rooms that come after the file's own in `rooms`.
fn uses_of_later_rooms(path: &str, text: &str, rooms: &[&str]) -> Vec<String> {
    let Some(own) = rooms.iter().position(|room| *room == room_of(path, rooms)) else { return Vec::new() };
    let below = used_rooms(path, text).into_iter().filter(|(_, name)| rooms[own + 1..].contains(&name.as_str()));
    below
        .map(|(line, name)| {
            format!(
                "{path}:{line}: `{}` uses `{name}`, which stands below it in src/lib.rs\n  help: move what both need to a \
                 room above, or this code to one below",
                rooms[own]
            )
        })
        .collect()
}

/// Returns uses of sockets, tokio, printing and the reference server's crate outside the permitted folders.
fn misplaced_code(path: &str, text: &str) -> Vec<String> {
    static SOCKET: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b(?:(?:Tcp|Udp|Unix)(?:Stream|Listener|Socket)|tokio::net|mio|socket2|async_nats)\b").unwrap()
    });
    static ASYNC: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\btokio(?:_rustls)?::").unwrap());
    static PRINT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\be?print(?:ln)?!").unwrap());
    static CRATE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bhubproof_reference\b").unwrap());
    let mut found = Vec::new();
    for (pattern, allowed, what, help) in [
        (&SOCKET, &SOCKET_FOLDERS[..], "a socket", "take frames or bytes instead"),
        (&ASYNC, &TOKIO[..], "tokio", "make it a state machine"),
        (&PRINT, &PRINTING_FOLDERS[..], "prints", "return the text"),
        (&CRATE, &REFERENCE_FOLDERS[..], "the reference server", "take what is needed as plain data"),
    ] {
        if allowed.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        for (number, line) in matching_lines(text, pattern) {
            found.push(format!("{path}:{number}: {what}: {line}\n  help: {help}; only {} may", allowed.join(", ")));
        }
    }
    found
}

/// Returns an error if there are too many rooms.
fn room_count_error(rooms: &[&str]) -> Vec<String> {
    let excess = rooms.len().saturating_sub(MAX_ROOMS);
    let found = (excess > 0).then(|| {
        format!(
            "src/lib.rs: {} rooms, and {MAX_ROOMS} are enough\n  help: make the new one a part of another",
            rooms.len()
        )
    });
    found.into_iter().collect()
}

/// Returns folders with too many Rust files.
fn crowded_folders<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for path in paths.into_iter().filter(|path| path.ends_with(".rs")) {
        *folders.entry(path.rsplit_once('/').map_or("", |(folder, _)| folder)).or_default() += 1;
    }
    let found = folders.into_iter().filter(|(_, files)| *files > MAX_FILES);
    found
        .map(|(folder, files)| {
            format!(
                "{folder}: {files} Rust files, and {MAX_FILES} are enough\n  help: part them into folders by what they do"
            )
        })
        .collect()
}

/// Returns path and text of every Rust file under a folder of the repository.
fn files_of(folder: &str) -> Vec<(String, String)> {
    let root = disk::root();
    let mut found = Vec::new();
    for path in disk::files_under(&root.join(folder)) {
        let shown = path.strip_prefix(root).unwrap_or(Path::new("")).to_str().unwrap().replace('\\', "/");
        if shown.ends_with(".rs") {
            found.push((shown, std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

#[test]
fn rooms_depend_only_on_rooms_above_them() {
    let files = files_of("src");
    let (_, lib) = files.iter().find(|(path, _)| path == "src/lib.rs").unwrap();
    let rooms = rooms(lib);
    let found: Vec<String> = files.iter().flat_map(|(path, text)| uses_of_later_rooms(path, text, &rooms)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(room_count_error(&rooms), [""; 0]);
    // Undeclared modules would not be checked.
    let strays: Vec<&str> = (files.iter().map(|(path, _)| path.as_str()))
        .filter(|path| room_of(path, &rooms).is_empty() && !matches!(*path, "src/lib.rs" | "src/main.rs"))
        .collect();
    assert_eq!(strays, [""; 0], "these files belong to no room");
}

#[test]
fn sockets_tokio_printing_and_the_reference_server_stay_where_they_belong() {
    let files = files_of("src");
    let found: Vec<String> = files.iter().flat_map(|(path, text)| misplaced_code(path, text)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_folder_has_too_many_files() {
    let files: Vec<_> = ["src", "tests", "reference-server/src"].into_iter().flat_map(files_of).collect();
    let found = crowded_folders(files.iter().map(|(path, _)| path.as_str()));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Tests of the checks above.
mod checks {
    use rstest::rstest;

    use super::*;

    const LIB: &str = "//! Docs.\n\npub mod syntax;\n\npub mod report;\npub mod cli;\n";

    #[rstest]
    #[case::right("src/report/json.rs", "use crate::syntax::yaml;\nuse crate::report::text;\n", &[])]
    #[case::path("src/syntax/yaml.rs", "fn f() {\n    crate::report::fold();\n}\n", &["src/syntax/yaml.rs:2:"])]
    #[case::import("src/report/mod.rs", "use crate::cli::exit;\n", &["src/report/mod.rs:1:"])]
    #[case::list("src/syntax/yaml.rs", "use crate::{\n    cli::{self, syntax},\n    syntax::report,\n};\n", &["src/syntax/yaml.rs:1:"])]
    #[case::inner_list("src/report/json.rs", "use crate::{syntax::{cli, yaml}};\n", &[])]
    #[case::file_of_one_room("src/report.rs", "use super::cli;\n", &["src/report.rs:1:"])]
    #[case::up_to_the_root("src/report/json/mod.rs", "use super::super::cli;\n", &["src/report/json/mod.rs:1:"])]
    #[case::not_so_far_up("src/report/json/mod.rs", "use super::cli;\n", &[])]
    #[case::comment("src/syntax/yaml.rs", "/// See [`crate::report`].\n// crate::cli\n", &[])]
    #[case::root("src/main.rs", "use crate::cli::run;\n", &[])]
    fn a_dependency_on_a_lower_room_is_detected(#[case] path: &str, #[case] text: &str, #[case] want: &[&str]) {
        let found = uses_of_later_rooms(path, text, &rooms(LIB));
        assert_eq!(found.len(), want.len(), "{found:?}");
        assert!(found.iter().zip(want).all(|(found, want)| found.starts_with(want)), "{found:?}");
    }

    #[rstest]
    #[case::import("src/report/json.rs", "use std::net::{IpAddr, TcpStream};\n", &["src/report/json.rs:1: a socket"])]
    #[case::path("src/report/json.rs", "\n\n    tokio::net::lookup_host(host)\n", &["src/report/json.rs:3: a socket", "src/report/json.rs:3: tokio"])]
    #[case::poll("src/load/client/io.rs", "use mio::Poll;\n", &["src/load/client/io.rs:1: a socket"])]
    #[case::address("src/report/json.rs", "use std::net::IpAddr;\n// TcpStream\n", &[])]
    #[case::allowed("src/load/engine/mod.rs", "use mio::Poll;\n", &[])]
    #[case::task("src/fuzz/oracle/mod.rs", "tokio::spawn(play());\n", &["src/fuzz/oracle/mod.rs:1: tokio"])]
    #[case::campaign("src/fuzz/campaign/mod.rs", "use tokio::time::Instant;\n", &[])]
    #[case::line("src/report/json.rs", "println!(\"{text}\");\n", &["src/report/json.rs:1: prints"])]
    #[case::error("src/report/json.rs", "    eprint!(\"{text}\");\n", &["src/report/json.rs:1: prints"])]
    #[case::another_macro("src/report/json.rs", "// println!\nsprintln!();\n", &[])]
    #[case::command("src/cli/serve.rs", "println!();\n", &[])]
    #[case::main("src/main.rs", "eprintln!();\n", &[])]
    #[case::reference("src/check/job.rs", "use hubproof_reference as r;\n", &["src/check/job.rs:1: the reference"])]
    #[case::start("src/reference/hubs.rs", "use hubproof_reference as reference;\n", &[])]
    fn sockets_tokio_and_printing_in_a_room_where_they_are_forbidden_are_found(
        #[case] path: &str,
        #[case] text: &str,
        #[case] want: &[&str],
    ) {
        let found = misplaced_code(path, text);
        assert_eq!(found.len(), want.len(), "{found:?}");
        assert!(found.iter().zip(want).all(|(found, want)| found.starts_with(want)), "{found:?}");
    }

    #[test]
    fn an_excess_room_is_detected() {
        assert_eq!(rooms(LIB), ["syntax", "report", "cli"]);
        assert_eq!(room_count_error(&["a"; MAX_ROOMS]), [""; 0]);
        assert_eq!(room_count_error(&["a"; MAX_ROOMS + 1]).len(), 1);
    }

    #[test]
    fn an_excess_file_in_a_folder_is_detected() {
        let mut paths: Vec<String> = (0..MAX_FILES).map(|number| format!("src/report/f{number}.rs")).collect();
        paths.extend(["src/report/rules.yaml".to_owned(), "src/report/json/mod.rs".to_owned()]);
        assert_eq!(crowded_folders(paths.iter().map(String::as_str)), [""; 0]);
        paths.push("src/report/more.rs".to_owned());
        let found = crowded_folders(paths.iter().map(String::as_str));
        assert!(found.len() == 1 && found[0].starts_with("src/report: 23 Rust files"), "{found:?}");
    }
}
