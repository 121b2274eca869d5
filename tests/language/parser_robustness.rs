//! Mutated real files for all parsers: each ends without a panic, in bounded time, with a value or an error. A short
//! run each time, and one of ten minutes by `reports/parsers`, which sets HUBPROOF_PARSERS to the seconds that each
//! parser has.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use hubproof::config;
use hubproof::fuzz::corpus::Corpus;
use hubproof::fuzz::scheduler::CaseScheduler;
use hubproof::import::{self, DocumentLibrary, Perspective};
use hubproof::interpreter::decode::decode_json;
use hubproof::judge::baseline;
use hubproof::protocol::{Pack, PackFolder};
use hubproof::reference::setup::ReferenceSetups;
use hubproof::scenario::{self, ScenarioSet, SharedFile};
use hubproof::syntax::diagnostic::{Diagnostic, render_all};
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use hubproof::websocket::codec::{ConnectionSide, FrameDecoder, PeerLimits};
use hubproof::websocket::endpoint::Endpoint;
use hubproof::websocket::handshake;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::support::byte_edits::mangled_file;
use crate::support::disk;

/// The longest time that a parser may take for an input, on a slow machine under a debug build.
const MAX_PARSE_TIME: Duration = Duration::from_secs(20);

/// Feeds mutated files to `parse` for the time of the run, or else a number of cases. `parse` returns whether they are
/// valid.
fn assert_parser_survives(name: &str, files: Vec<Vec<u8>>, cases: u32, parse: impl Fn(usize, &[u8]) -> bool) {
    let seconds =
        std::env::var("HUBPROOF_PARSERS").ok().and_then(|text| text.parse().ok()).map(Duration::from_secs_f64);
    let begun = Instant::now();
    let all = mangled_file(files);
    let (mut tried, mut taken, mut slowest, mut round) = (0_u64, 0_u64, Duration::ZERO, 0);
    loop {
        // Each round has its own seed, which is the same in every run.
        let config = Config { failure_persistence: None, rng_seed: RngSeed::Fixed(round), ..Config::default() };
        let mut runner = TestRunner::new(config);
        for _ in 0..cases {
            let made = all.new_tree(&mut runner).unwrap().current();
            let before = Instant::now();
            let took = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parse(made.0, &made.1)));
            let time = before.elapsed();
            slowest = slowest.max(time);
            let shown = || format!("file {}: {:?}", made.0, String::from_utf8_lossy(&made.1));
            match took {
                Ok(took) => taken += u64::from(took),
                Err(_) => panic!("{name} panicked at {}", keep_failing_input(name, &made.1, &shown())),
            }
            assert!(time < MAX_PARSE_TIME, "{name} took {time:?} for {}", keep_failing_input(name, &made.1, &shown()));
            tried += 1;
        }
        round += 1;
        if seconds.is_none_or(|seconds| begun.elapsed() >= seconds) {
            break;
        }
    }
    let (slowest, seconds) = (slowest.as_secs_f64() * 1e3, begun.elapsed().as_secs_f64());
    println!("parsers | {name} | {tried} | {taken} | {slowest:.0} | {seconds:.0} | {}", peak_memory());
    assert!(taken > 0 && taken < tried, "{name}: {taken} of {tried} were taken, so nothing was tested");
}

/// Returns the file with the input of a failure, or the input itself if it is short.
fn keep_failing_input(name: &str, bytes: &[u8], shown: &str) -> String {
    if shown.len() < 2_000 {
        return shown.to_owned();
    }
    let path = std::env::temp_dir().join(format!("hubproof-parsers-{name}"));
    fs::write(&path, bytes).map_or_else(|_| shown.to_owned(), |()| path.display().to_string())
}

/// Renders diagnostics with carets, to test that as well.
fn render_diagnostics(diagnostics: &[Diagnostic], sources: &Sources) -> bool {
    let few = &diagnostics[..diagnostics.len().min(10)];
    assert!(few.is_empty() || !render_all(few, sources, false).is_empty());
    diagnostics.is_empty()
}

/// Converts bytes to text: files that are not UTF-8 are refused before parsing.
fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn files_of(folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let folder = disk::root().join(folder);
    let mut files: Vec<_> = disk::files_under(&folder)
        .into_iter()
        .map(|path| (path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .filter(|(path, _)| wanted(path))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

fn file_contents(files: &[(String, Vec<u8>)]) -> Vec<Vec<u8>> {
    files.iter().map(|(_, bytes)| bytes.clone()).collect()
}

struct SampleProtocol {
    sources: Sources,
    pack: Arc<Pack>,
    shared: SharedFile,
}

/// A small protocol, whose scenarios use most of the language.
static CONCIERGE: LazyLock<SampleProtocol> = LazyLock::new(|| {
    let mut sources = Sources::default();
    let folder = disk::protocol_folder("concierge", &mut sources);
    let pack = Arc::new(Pack::load(&folder, &sources).0.unwrap());
    let shared = scenario::load_shared(&folder, &sources, &pack, &mut Vec::new());
    SampleProtocol { sources, pack, shared }
});

#[test]
fn mangled_scenarios_never_make_the_parser_panic() {
    let files = files_of("scenarios/concierge", |path| path.ends_with(".yaml") && path != "shared.yaml");
    assert_parser_survives("scenarios", file_contents(&files), 300, |_, bytes| {
        let SampleProtocol { sources, pack, shared } = &*CONCIERGE;
        let mut sources = sources.clone();
        let file = sources.add("mangled.yaml", lossy_text(bytes));
        match yaml::parse(&sources, file) {
            Err(diagnostic) => render_diagnostics(&[diagnostic], &sources),
            Ok(root) => {
                let (program, diagnostics) = scenario::parse::parse_scenario("concierge/mangled", &root, shared, pack);
                render_diagnostics(&diagnostics, &sources) && program.is_some()
            }
        }
    });
}

#[test]
fn mangled_shared_files_never_make_the_parser_panic() {
    let files = files_of("scenarios", |path| path.ends_with("shared.yaml"));
    assert_parser_survives("shared-files", file_contents(&files), 100, |_, bytes| {
        let SampleProtocol { sources, pack, .. } = &*CONCIERGE;
        let mut sources = sources.clone();
        let file = sources.add("mangled.yaml", lossy_text(bytes));
        let folder = PackFolder { scenarios: [("shared.yaml".to_owned(), file)].into(), ..PackFolder::default() };
        let mut diagnostics = Vec::new();
        let shared = scenario::load_shared(&folder, &sources, pack, &mut diagnostics);
        diagnostics.extend(shared.check(pack));
        render_diagnostics(&diagnostics, &sources)
    });
}

/// Any file of a pack, with the other files unchanged.
#[test]
fn mangled_packs_never_make_the_parser_panic() {
    let files = files_of("schemas/qi", |_| true);
    assert_parser_survives("packs", file_contents(&files), 100, |index, bytes| {
        let mut sources = Sources::default();
        let mut folder = PackFolder { name: "mangled".to_owned(), ..PackFolder::default() };
        for (number, (path, right)) in files.iter().enumerate() {
            let text = lossy_text(if number == index { bytes } else { right });
            folder.pack.insert(path.clone(), sources.add(path.as_str(), text));
        }
        let (pack, diagnostics) = Pack::load(&folder, &sources);
        render_diagnostics(&diagnostics, &sources) && pack.is_some()
    });
}

/// Any file of a plain document; the result is also used for plans.
#[test]
fn mangled_asyncapi_documents_never_make_the_parser_panic() {
    let files = files_of("tests/fixtures/asyncapi", |_| true);
    assert_parser_survives("plain-documents", file_contents(&files), 60, |index, bytes| {
        let mut sources = Sources::default();
        let (mangled, _) = &files[index];
        let (folder, _) = mangled.split_once('/').unwrap();
        let root = files.iter().find(|(path, _)| path.starts_with(folder) && path.contains("/asyncapi.")).unwrap();
        let mut read = |path: &str, sources: &mut Sources| {
            let full = format!("{folder}/{path}");
            let right = files.iter().find(|(path, _)| *path == full).ok_or_else(|| format!("there is no {path}"))?;
            Ok(sources.add(path, lossy_text(if full == *mangled { bytes } else { &right.1 })))
        };
        let name = root.0.rsplit('/').next().unwrap();
        let file = read(name, &mut sources).unwrap();
        match DocumentLibrary::read_files(name, file, &mut sources, &mut read) {
            Err(diagnostic) => render_diagnostics(&[diagnostic], &sources),
            Ok(library) => {
                let (folder, mut diagnostics) =
                    import::import_folder("mangled", &library, Perspective::Hub, &mut sources);
                let mut pack = None;
                if folder.document.is_some() {
                    let (made, more) = Pack::load(&folder, &sources);
                    diagnostics.extend(more);
                    pack = made.map(Arc::new);
                }
                let right = render_diagnostics(&diagnostics, &sources);
                if let Some(pack) = pack {
                    let scenarios = ScenarioSet::load(&folder, &sources, &pack);
                    // The scenarios made from a document are valid, whatever its mistakes.
                    let rendered = render_all(&scenarios.diagnostics, &sources, false);
                    assert!(scenarios.diagnostics.is_empty(), "{rendered}");
                    let corpus = Corpus::from_folder(&folder, &sources, &pack, Default::default());
                    let first = pack.messages.first().map_or("", |message| message.name.as_str());
                    let scheduler = CaseScheduler::new(&corpus, 1, &|name| name == first);
                    (0..20).for_each(|number| drop(scheduler.case(&corpus, number)));
                }
                right
            }
        }
    });
}

#[test]
fn mangled_target_files_never_make_the_parser_panic() {
    // The address that the reference server adds when it has started.
    let mut files = file_contents(&files_of("scenarios", |path| path.ends_with("reference.toml")));
    for file in &mut files {
        file.splice(0..0, *b"protocol = \"qi\"\nurl = \"ws://127.0.0.1:1\"\n");
    }
    files.push(TARGET.as_bytes().to_vec());
    assert_parser_survives("targets", files, 400, |_, bytes| {
        let mut sources = Sources::default();
        let file = sources.add("reference.toml", lossy_text(bytes));
        let folder = PackFolder { scenarios: [("reference.toml".to_owned(), file)].into(), ..PackFolder::default() };
        if let Err(diagnostic) = ReferenceSetups::from_folder(&folder, &sources) {
            render_diagnostics(&[diagnostic], &sources);
        }
        let lines = lossy_text(bytes);
        let overrides: Vec<_> =
            lines.lines().take(3).filter_map(|line| config::parse_override(&line.replace(' ', "")).ok()).collect();
        let variable = |_: &str| Some("value".to_owned());
        let nothing = |_: &str| Err(std::io::Error::other("no file"));
        if let Err(diagnostics) = config::parse(&mut sources, file, &overrides, &variable, &nothing) {
            render_diagnostics(&diagnostics, &sources);
        }
        match config::parse(&mut sources, file, &[], &variable, &nothing) {
            Ok(_) => true,
            Err(diagnostics) => render_diagnostics(&diagnostics, &sources),
        }
    });
}

const TARGET: &str = include_str!("../fixtures/target.toml");

#[test]
fn mangled_baselines_never_make_the_parser_panic() {
    const BASELINE: &str = "[[known]]\nfailure = \"concierge/greeting\"\nreason = \"known since May\"\nflaky = true\n\n[[known]]\nfailure = 'qi/failures:QI-001#2'\nreason = '''\nlong\n'''\n";
    assert_parser_survives("baselines", vec![BASELINE.as_bytes().to_vec()], 400, |_, bytes| {
        let mut sources = Sources::default();
        let file = sources.add("known.toml", lossy_text(bytes));
        match baseline::parse_baseline(&mut sources, file) {
            Ok(_) => true,
            Err(diagnostics) => render_diagnostics(&diagnostics, &sources),
        }
    });
}

/// Frames of each kind, one after another, as a hub and as a client sends them.
fn sample_frames() -> Vec<Vec<u8>> {
    let mut unmasked = Vec::new();
    let mut masked = Vec::new();
    let long = vec![b'x'; 300];
    let payloads: [(u8, &[u8]); 8] = [
        (0x81, b"{\"type\":\"HELLO\"}"),
        (0x82, &[0, 255, 7]),
        (0x89, b"ping"),
        (0x01, b"first"),
        (0x8a, b""),
        (0x80, "é rest".as_bytes()),
        (0x81, &long),
        (0x88, &[3, 232, b'b', b'y', b'e']),
    ];
    for (head, payload) in payloads {
        let length = |masked: u8| match payload.len() {
            short @ 0..126 => vec![head, masked | short as u8],
            longer => [&[head, masked | 126][..], &(longer as u16).to_be_bytes()].concat(),
        };
        unmasked.extend([&length(0)[..], payload].concat());
        let key = [1, 2, 3, 4];
        masked.extend([&length(0x80)[..], &key].concat());
        masked.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
    vec![unmasked, masked]
}

#[test]
fn mangled_frames_never_make_the_decoder_panic() {
    assert_parser_survives("frames", sample_frames(), 2_000, |index, bytes| {
        let role = if index == 0 { ConnectionSide::Client } else { ConnectionSide::Server };
        let whole = decode_received(role, bytes, bytes.len().max(1));
        // The same, in pieces.
        let cut = decode_received(role, bytes, 3);
        assert_eq!(whole, cut);
        !whole.contains("Broken") && !whole.contains("Violation")
    });
}

fn decode_received(role: ConnectionSide, bytes: &[u8], step: usize) -> String {
    let mut decoder = FrameDecoder::new(role, PeerLimits::default());
    let mut all = String::new();
    for mut piece in bytes.chunks(step) {
        while let Some(received) = decoder.next_event(&mut piece) {
            all += &format!("{received:?}\n");
        }
    }
    all
}

#[test]
fn mangled_handshakes_never_make_the_parser_panic() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: a\r\n\r\n";
    let refusal = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlater\r\n0\r\n\r\n";
    let request = "GET /hub?a=b HTTP/1.1\r\nHost: h:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, b\r\n\r\n";
    let files = [answer, refusal, request].map(|text| text.as_bytes().to_vec()).to_vec();
    assert_parser_survives("handshakes", files, 2_000, |_, bytes| {
        let offered = vec!["a".to_owned()];
        let answered = handshake::parse_response_head(bytes);
        let taken = matches!(answered, Ok(Some(_)));
        if let Ok(Some(head)) = answered {
            handshake::refusal_body(&head, bytes.get(head.length..).unwrap_or_default());
            handshake::judge_response(head, "dGhlIHNhbXBsZSBub25jZQ==", &offered);
        }
        if let Ok(Some(head)) = handshake::parse_request_head(bytes) {
            handshake::answer_request(head, &offered);
        }
        if let Ok(endpoint) = lossy_text(bytes).lines().next().unwrap_or_default().parse::<Endpoint>() {
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
        taken
    });
}

#[test]
fn mangled_json_never_makes_the_parsers_panic() {
    let mut files = file_contents(&files_of("schemas/emprops/messages", |_| true));
    files.push(br#"{"a":[NaN,-Infinity,1e400,"\ud83d\ude00","\ud800"],"b":{"c":null}}"#.to_vec());
    let words = ["NaN".to_owned(), "-Infinity".to_owned()];
    assert_parser_survives("json", files, 2_000, |_, bytes| {
        let text = lossy_text(bytes);
        let plain = decode_json(&text, &[]);
        if let Ok(value) = &plain {
            assert_eq!(decode_json(&text, &words).as_ref(), Ok(value));
        }
        decode_json(&text, &words).is_ok()
    });
}

/// Returns the peak memory of this process.
fn peak_memory() -> String {
    let status = fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB").trim().to_owned()
}
