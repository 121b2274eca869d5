//! The readers of untrusted bytes, each with valid samples. `tests/language/parser_robustness.rs` gives them samples changed
//! at random, `fuzz/` inputs that libFuzzer derives from what they execute. None may panic, hang, or grow without bound.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use hubproof::config;
use hubproof::fuzz::corpus::Corpus;
use hubproof::fuzz::scheduler::CaseScheduler;
use hubproof::generate::pattern;
use hubproof::generate::rng::RandomSource;
use hubproof::import::{self, DocumentLibrary, Perspective};
use hubproof::interpreter::decode::decode_json;
use hubproof::judge::baseline;
use hubproof::load;
use hubproof::load::compare::{CompareOptions, compare};
use hubproof::load::compile::json_scan::MemberPaths;
use hubproof::load::plan::parse_load_plan;
use hubproof::load::shares::merge::RunShares;
use hubproof::protocol::{Pack, PackFolder};
use hubproof::redact::SecretMasker;
use hubproof::reference::setup::ReferenceSetups;
use hubproof::report::html::{self, NamedReport};
use hubproof::scenario::dialect::Dialect;
use hubproof::scenario::functions::FunctionContext;
use hubproof::scenario::template::{EvalContext, Template};
use hubproof::scenario::value::BoundValue;
use hubproof::scenario::{self, ScenarioSet};
use hubproof::syntax::diagnostic::{Diagnostic, has_errors, render_all};
use hubproof::syntax::json_schema;
use hubproof::syntax::printable::{defuse_documents, defuse_output, escape_unprintable, is_unprintable};
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use hubproof::transport::carrier::Carrier as _;
use hubproof::transport::carrier::zmtp::{SocketKind, Zmtp};
use hubproof::websocket::codec::{ConnectionSide, FrameDecoder, PeerLimits};
use hubproof::websocket::endpoint::Endpoint;
use hubproof::websocket::handshake;
use hubproof_reference::machine::{Handshake, MachineInput};
use hubproof_reference::relay::frames::{KeptBytes, StreamPiece, TextParser};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::disk::{self, CONCIERGE, ConciergePack};

/// A reader and its samples.
pub struct Reader {
    pub samples: Vec<Vec<u8>>,
    /// Reads an input that was made from the sample with this index. Returns whether the input is valid.
    pub read: ReadFunction,
}

/// The function of a [`Reader`].
pub type ReadFunction = Box<dyn Fn(usize, &[u8]) -> bool + Send + Sync>;

impl Reader {
    fn new(samples: Vec<Vec<u8>>, read: impl Fn(usize, &[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self { samples, read: Box::new(read) }
    }
}

/// A reader's name, how many changed samples the fast tier gives it, and the function that prepares it.
pub type NamedReader = (&'static str, u32, fn() -> Reader);

/// Every reader.
pub const READERS: [NamedReader; 20] = [
    ("baselines", 400, baselines),
    ("dialects", 60, dialects),
    ("expressions", 400, expressions),
    ("frames", 2_000, frames),
    ("handshakes", 2_000, handshakes),
    ("json", 2_000, json),
    ("load-plans", 200, load_plans),
    ("machines", 100, machines),
    ("packs", 100, packs),
    ("patterns", 200, patterns),
    ("plain-documents", 60, plain_documents),
    ("recordings", 40, recordings),
    ("relayed-bytes", 2_000, relayed_bytes),
    ("reports", 100, reports),
    ("scenarios", 300, scenarios),
    ("shared-files", 100, shared_files),
    ("shares", 200, shares),
    ("shown-texts", 1_000, shown_texts),
    ("targets", 400, targets),
    ("zeromq", 2_000, zeromq),
];

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

fn scenarios() -> Reader {
    let files = files_of("scenarios/concierge", |path| path.ends_with(".yaml") && path != "shared.yaml");
    Reader::new(file_contents(&files), move |_, bytes| {
        let ConciergePack { sources, pack, shared } = &*CONCIERGE;
        let mut sources = sources.clone();
        let file = sources.add("mangled.yaml", lossy_text(bytes));
        match yaml::parse(&sources, file) {
            Err(diagnostic) => render_diagnostics(&[diagnostic], &sources),
            Ok(root) => {
                let (program, diagnostics) = scenario::parse::parse_scenario("concierge/mangled", &root, shared, pack);
                render_diagnostics(&diagnostics, &sources) && program.is_some()
            }
        }
    })
}

fn shared_files() -> Reader {
    let files = files_of("scenarios", |path| path.ends_with("shared.yaml"));
    Reader::new(file_contents(&files), move |_, bytes| {
        let ConciergePack { sources, pack, .. } = &*CONCIERGE;
        let mut sources = sources.clone();
        let file = sources.add("mangled.yaml", lossy_text(bytes));
        let folder = PackFolder { scenarios: [("shared.yaml".to_owned(), file)].into(), ..PackFolder::default() };
        let mut diagnostics = Vec::new();
        let shared = scenario::load_shared(&folder, &sources, pack, &mut diagnostics);
        diagnostics.extend(shared.check(pack));
        render_diagnostics(&diagnostics, &sources)
    })
}

/// Any file of a pack, with the other files unchanged.
fn packs() -> Reader {
    let files = files_of("schemas/qi", |path| !path.starts_with("clients/"));
    Reader::new(file_contents(&files), move |index, bytes| {
        let mut sources = Sources::default();
        let mut folder = PackFolder { name: "mangled".to_owned(), ..PackFolder::default() };
        for (number, (path, right)) in files.iter().enumerate() {
            let text = lossy_text(if number == index { bytes } else { right });
            folder.pack.insert(path.clone(), sources.add(path.as_str(), text));
        }
        let (pack, diagnostics) = Pack::load(&folder, &sources);
        render_diagnostics(&diagnostics, &sources) && pack.is_some()
    })
}

/// Any file of a plain document; the result is also used for plans.
fn plain_documents() -> Reader {
    let files = files_of("tests/fixtures/asyncapi", |_| true);
    Reader::new(file_contents(&files), move |index, bytes| {
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
    })
}

fn targets() -> Reader {
    // The address that the reference server adds when it has started.
    let mut files = file_contents(&files_of("scenarios", |path| path.ends_with("reference.toml")));
    for file in &mut files {
        file.splice(0..0, *b"protocol = \"qi\"\nurl = \"ws://127.0.0.1:1\"\n");
    }
    files.push(TARGET.as_bytes().to_vec());
    Reader::new(files, move |_, bytes| {
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
    })
}

const TARGET: &str = include_str!("../fixtures/target.toml");

fn baselines() -> Reader {
    const BASELINE: &str = "[[known]]\nfailure = \"concierge/greeting\"\nreason = \"known since May\"\nflaky = true\n\n[[known]]\nfailure = 'qi/failures:QI-001#2'\nreason = '''\nlong\n'''\n";
    Reader::new(vec![BASELINE.as_bytes().to_vec()], move |_, bytes| {
        let mut sources = Sources::default();
        let file = sources.add("known.toml", lossy_text(bytes));
        match baseline::parse_baseline(&mut sources, file) {
            Ok(_) => true,
            Err(diagnostics) => render_diagnostics(&diagnostics, &sources),
        }
    })
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

fn frames() -> Reader {
    Reader::new(sample_frames(), move |index, bytes| {
        let role = if index == 0 { ConnectionSide::Client } else { ConnectionSide::Server };
        let whole = decode_received(role, bytes, bytes.len().max(1));
        // The same, in pieces.
        let cut = decode_received(role, bytes, 3);
        assert_eq!(whole, cut);
        !whole.contains("Broken") && !whole.contains("Violation")
    })
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

fn handshakes() -> Reader {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: a\r\n\r\n";
    let refusal = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlater\r\n0\r\n\r\n";
    let request = "GET /hub?a=b HTTP/1.1\r\nHost: h:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, b\r\n\r\n";
    let files = [answer, refusal, request].map(|text| text.as_bytes().to_vec()).to_vec();
    Reader::new(files, move |_, bytes| {
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
    })
}

fn json() -> Reader {
    let mut files = file_contents(&files_of("schemas/emprops/messages", |_| true));
    files.push(br#"{"a":[NaN,-Infinity,1e400,"\ud83d\ude00","\ud800"],"b":{"c":null}}"#.to_vec());
    let words = ["NaN".to_owned(), "-Infinity".to_owned()];
    Reader::new(files, move |_, bytes| {
        let text = lossy_text(bytes);
        let plain = decode_json(&text, &[]);
        if let Ok(value) = &plain {
            assert_eq!(decode_json(&text, &words).as_ref(), Ok(value));
        }
        // A load run looks members up without building a tree.
        let mut paths = MemberPaths::default();
        let numbers = ["/type", "/a/2", "/b/c", "/id"].map(|pointer| paths.add(pointer).unwrap());
        if let (Ok(value), Ok(found)) = (&plain, paths.find(bytes)) {
            let read = numbers.map(|number| found[number].is_some());
            assert!(!read[2] || value.pointer("/b/c").is_some(), "{text}");
        }
        decode_json(&text, &words).is_ok()
    })
}

/// A file of a dialect of concierge, with the pack that it changes.
fn dialects() -> Reader {
    const FILES: [(&str, &str); 5] = [
        ("dialect.yaml", "extends: concierge\nname: own\nreason: the gateway\nadd: []\n"),
        ("asyncapi.yaml", "components:\n  messages:\n    hello: { x-hubproof: { match: { type: HELLO } } }\n"),
        ("rules.yaml", "rules:\n  CON-025:\n    level: should\n    text: The greeting has `uuid`.\n"),
        (
            "scenarios/shared.yaml",
            "roles: { client: { steps: { connects: { connects: , headers: { X-Api-Key: k } } } } }\n",
        ),
        (
            "scenarios/greeting.yaml",
            "steps:\n  anna connects: { anna connects: , headers: { X-Api-Key: k }, as: upgrade }\n",
        ),
    ];
    let samples = FILES.map(|(_, text)| text.as_bytes().to_vec()).to_vec();
    Reader::new(samples, |index, bytes| {
        let mut sources = Sources::default();
        let base = disk::protocol_folder("concierge", &mut sources);
        let file = |number: usize, sources: &mut Sources| {
            let (path, right) = FILES[number];
            sources.add(path, if number == index { lossy_text(bytes) } else { right.to_owned() })
        };
        let head = file(0, &mut sources);
        let dialect = match Dialect::parse(head, &sources) {
            Ok(dialect) => dialect,
            Err(diagnostics) => return render_diagnostics(&diagnostics, &sources),
        };
        let files = [(FILES[0].0.to_owned(), head), (FILES[index].0.to_owned(), file(index, &mut sources))].into();
        let folder = dialect.apply("own", &base, &files, &mut sources);
        let (pack, diagnostics) = Pack::load(&folder, &sources);
        render_diagnostics(&folder.diagnostics, &sources)
            && render_diagnostics(&diagnostics, &sources)
            && pack.is_some()
    })
}

/// The names of an expression: some values, and all functions.
struct SampleNames(Arc<FunctionContext>);

impl EvalContext for SampleNames {
    fn lookup(&self, name: &str) -> Option<BoundValue> {
        let value = match name {
            "hello" => json!({ "uuid": "u", "n": 9007199254740993_u64, "seqs": [1, 2, 4] }),
            "list" => json!([{ "seq": 3 }, { "seq": 4 }, { "none": 0 }]),
            "hub" => json!({ "version": "0.1.9", "timeout": 5, "key": "secret" }),
            _ => return None,
        };
        Some(BoundValue::from_value(value))
    }

    fn function_context(&self) -> &Arc<FunctionContext> {
        &self.0
    }
}

fn expressions() -> Reader {
    let sources = [
        "${hello.uuid ~ '-' ~ list[0].seq}",
        "${list | map(attribute='seq') | list | join(', ')}",
        "${sha256(hub.key)[:20] | upper}",
        "${jwt({'sub': 'u', 'exp': 1}, key=hub.key)}",
        "${'abc' | replace('b', 'c') | reverse | length + 2 ** 3}",
        "${range(3) | map('string') | list if hub.timeout > 3 else unique('x')}",
        "${json([hello, list]) | lower | trim | title}",
        "${chunks('abcdef', 2) | last}, ${hello.seqs | sum}, ${uuid() | length}",
    ];
    let samples = sources.map(|source| source.as_bytes().to_vec()).to_vec();
    Reader::new(samples, |_, bytes| {
        let mut sources = Sources::default();
        let file = sources.add("expression.yaml", Value::from(lossy_text(bytes)).to_string());
        let Ok(node) = yaml::parse(&sources, file) else { return false };
        let mut diagnostics = Vec::new();
        let template = Template::from_node(&node, &mut diagnostics);
        let made = template.eval(&SampleNames(Arc::new(FunctionContext::new("run"))));
        render_diagnostics(&diagnostics, &sources) && made.is_ok()
    })
}

fn load_plans() -> Reader {
    let samples = files_of("scenarios/concierge/load", |_| true);
    Reader::new(file_contents(&samples), |_, bytes| {
        let ConciergePack { sources, pack, shared } = &*CONCIERGE;
        let mut sources = sources.clone();
        let file = sources.add("plan.yaml", lossy_text(bytes));
        match yaml::parse(&sources, file) {
            Err(diagnostic) => render_diagnostics(&[diagnostic], &sources),
            Ok(root) => {
                let rows = |_: &str| Ok("name,age\nanna,\"1\"\n".to_owned());
                let (plan, diagnostics) = parse_load_plan("plan", &root, shared, pack, &rows);
                render_diagnostics(&diagnostics, &sources) && plan.is_some()
            }
        }
    })
}

/// The texts that clients send to the reference server, a line each, on two connections in turn.
fn machines() -> Reader {
    let names = disk::protocols_with_messages();
    let samples = names.iter().map(|name| {
        let pack = disk::pack(name);
        let examples = pack.messages.iter().filter_map(|message| message.schema.example.as_ref());
        examples.take(6).map(|example| format!("{example}\n")).collect::<String>().into_bytes()
    });
    Reader::new(samples.collect(), move |index, bytes| {
        let mut machine = hubproof_reference::build_machine(&names[index], &Default::default(), None).unwrap();
        let mut outputs = Vec::new();
        let mut step = |at: u64, input: MachineInput| machine.handle(Duration::from_millis(at), input, &mut outputs);
        (1..=2).for_each(|conn| step(0, MachineInput::Open { conn, handshake: Handshake::default() }));
        for (at, line) in lossy_text(bytes).lines().take(100).enumerate() {
            step(at as u64, MachineInput::Text { conn: at as u64 % 2 + 1, text: line.into() });
        }
        step(60_000, MachineInput::Tick);
        let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
        !machine.state().is_null() && lossy_text(bytes).lines().all(is_json)
    })
}

/// Expressions of schemas, and the schemas around them.
fn patterns() -> Reader {
    let sources = [
        r"^\d{4}-\d{2}(\.\d+)?Z$",
        r"^(?=.*[A-Za-z])(?=.*\d)[A-Za-z\d]{8,20}$",
        r"^(?:(?!--)[a-z-])+$",
        r"^([\w-]+\.)*\w+@(a|b)\1$",
        r"^(?:(?=a)a+)+$",
        r"[\p{L}\p{Nd}_.:-]{1,40}|\x41|\u0042|\cJ|[^\s\S]",
    ];
    let samples = sources.map(|source| source.as_bytes().to_vec()).to_vec();
    Reader::new(samples, |_, bytes| {
        let source = lossy_text(bytes);
        pattern::compile(&source);
        let Ok(validator) = json_schema::build_validator(&json!({ "pattern": source })) else { return false };
        let texts = (0..4).filter_map(|number| pattern::draw_match(&source, &mut RandomSource::for_case(1, number)));
        texts.chain(["a".repeat(100) + "!", "ab1@".repeat(40)]).for_each(|text| {
            validator.is_valid(&json!(text));
        });
        true
    })
}

fn recordings() -> Reader {
    let line = |connection: u64, direction: &str, text: &str| {
        let time = "2026-01-02T03:04:05.678Z";
        json!({ "time": time, "connection": connection, "direction": direction, "text": text }).to_string() + "\n"
    };
    let opened = r#"{"time":"2026-01-02T03:04:05.000Z","connection":1,"target":"/ws?room=a","subprotocols":["a"]}"#;
    let sample = [
        format!("{opened}\n"),
        line(1, "to-hub", r#"{"type":"JOIN","id":1,"room":"a"}"#),
        line(1, "from-hub", r#"{"type":"JOINED","id":1,"members":[{"name":"x","at":1.5}]}"#),
        line(1, "from-hub", r#"{"type":"NEWS","text":null,"of":"2026-01-02T03:04:05Z"}"#),
        line(1, "to-hub", "not JSON"),
    ];
    Reader::new(vec![sample.concat().into_bytes()], |_, bytes| {
        let mut sources = Sources::default();
        let file = sources.add("recording.jsonl", lossy_text(bytes));
        let (files, diagnostics) = import::from_recording::pack_from_recording("recorded", file, &mut sources);
        render_diagnostics(&diagnostics, &sources);
        let is_drafted = !files.is_empty();
        // The files made from a recording are valid, whatever was recorded.
        if is_drafted {
            let made: Vec<_> = files.into_iter().map(|(path, text)| (path.clone(), sources.add(path, text))).collect();
            let folder = PackFolder::from_files("recorded", made);
            let (pack, diagnostics) = Pack::load(&folder, &sources);
            assert!(!has_errors(&diagnostics), "{}", render_all(&diagnostics, &sources, false));
            let scenarios = ScenarioSet::load(&folder, &sources, &Arc::new(pack.unwrap()));
            let rendered = render_all(&scenarios.diagnostics, &sources, false);
            assert!(!has_errors(&scenarios.diagnostics), "{rendered}");
        }
        is_drafted
    })
}

/// What a relay reads of a hub: no byte is lost or changed.
fn relayed_bytes() -> Reader {
    Reader::new(sample_frames()[..1].to_vec(), |_, bytes| {
        let mut kept = Vec::new();
        for step in [bytes.len().max(1), 3] {
            let mut parser = TextParser::new(&KeptBytes::default());
            let (mut passed, mut texts) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(step) {
                parser.push_bytes(piece);
                while let Some(piece) = parser.next_piece() {
                    match piece {
                        StreamPiece::Raw(raw) | StreamPiece::Close(raw) => passed.extend(raw),
                        StreamPiece::Text { text, raw } => {
                            passed.extend(raw);
                            texts.push(text);
                        }
                    }
                }
            }
            passed.extend(parser.take_rest());
            // Control frames overtake the fragments around them.
            passed.sort_unstable();
            kept.push((passed, texts));
        }
        let mut all = bytes.to_vec();
        all.sort_unstable();
        assert!(kept[0] == kept[1] && kept[0].0 == all, "{kept:?}");
        kept[0].1.len() > 2
    })
}

/// Reports that pages and `compare` read.
fn reports() -> Reader {
    let samples = files_of("tests/fixtures/reports", |_| true);
    Reader::new(file_contents(&samples), move |index, bytes| {
        let right = NamedReport { name: "right".to_owned(), text: lossy_text(&samples[index].1) };
        let page = |reports: &[NamedReport]| {
            let options = CompareOptions { seed: 1, fail_on_regression: Some(0.1) };
            html::render(reports, |a, b| compare(a, b, options).map_err(|error| error.to_string()))
        };
        let report = NamedReport { name: "changed".to_owned(), text: lossy_text(bytes) };
        let alone = page(std::slice::from_ref(&report)).is_ok();
        // Two load reports are compared, others are shown side by side.
        alone && page(&[right, report]).is_ok()
    })
}

/// The files of shares that `merge` reads. An attacker would hash a changed file again, so the hash is made to fit.
fn shares() -> Reader {
    let samples = files_of("tests/fixtures/shares", |_| true);
    Reader::new(file_contents(&samples), move |_, bytes| {
        let mut text = lossy_text(bytes);
        if let Some(last) = text.trim_end().rfind('\n').map(|at| at + 1)
            && let Ok(Value::Object(mut end)) = serde_json::from_str(&text[last..])
        {
            let hash: String = Sha256::digest(&text[..last]).iter().map(|byte| format!("{byte:02x}")).collect();
            end.insert("records".to_owned(), json!(text[..last].lines().count()));
            end.insert("sha256".to_owned(), json!(hash));
            text = format!("{}{}\n", &text[..last], Value::Object(end));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let read = RunShares::read(&[file.path().to_owned()]).and_then(|shares| shares.merge(Vec::new()));
        read.is_ok_and(|report| !load::report::json::render(&report).is_empty())
    })
}

/// What a ZeroMQ socket sends, in pieces as at once.
fn zeromq() -> Reader {
    let sample = |kind: &[u8], frames: &[u8]| {
        let mut bytes = vec![0; 64];
        (bytes[0], bytes[9], bytes[10]) = (0xff, 0x7f, 3);
        bytes[12..16].copy_from_slice(b"NULL");
        [&bytes, &[4, 25][..], b"\x05READY\x0bSocket-Type\0\0\0", kind, frames].concat()
    };
    let long = [&[2, 0, 0, 0, 0, 0, 0, 1, 44][..], &[b'x'; 300]].concat();
    let samples = vec![
        sample(b"\x03REP", &[b"\x01\0\0\x02{}\x04\x09\x04PING\0\x0aab\x01\0", &long[..]].concat()),
        sample(b"\x03PUB", b"\x01\x03top\0\x02[]\0\x02{}"),
    ];
    Reader::new(samples, move |index, bytes| {
        let read = |step: usize| {
            let kind = if index == 0 { SocketKind::Dealer } else { SocketKind::Sub };
            let (mut zmtp, mut messages, mut answers) = (Zmtp::new(kind, 4096), Vec::new(), Vec::new());
            let failed = bytes.chunks(step).find_map(|piece| zmtp.receive(piece, &mut messages, &mut answers).err());
            (messages, answers, zmtp.is_ready(), failed.is_some())
        };
        let whole = read(bytes.len().max(1));
        assert_eq!(whole, read(3));
        !whole.3
    })
}

/// What a hub sends is shown without its secrets, and without commands for terminals and logs.
fn shown_texts() -> Reader {
    const SECRETS: [&str; 3] = ["canary&key/+1", "834719", "p\"\u{e4}/ss?>w%rd"];
    let samples = [
        r#"{"a":"canary\u0026key/+1","pin":834719,"b":"canary%26key%2F%2B1"}"#,
        "GET /?token=abc&x=1 wss://anna:pa55@hub/ eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.VXe8dINoHYfQ4SQPpgAnBuNqJJzyXT",
        "p&quot;&#xe4;/ss?&gt;w%25rd 63616e617279266b65792f2b31",
        "##vso[task.setvariable]x ##[add-mask]\n::stop-commands::\u{1b}]52;c;aGk=\u{7}\u{202e}\u{1b}[31m",
    ];
    let masker = SecretMasker::new(SECRETS.map(str::to_owned).into_iter());
    Reader::new(samples.map(|text| text.as_bytes().to_vec()).to_vec(), move |_, bytes| {
        let text = lossy_text(bytes);
        for shown in [masker.mask(&text), masker.mask_frame(&text)] {
            assert!(SECRETS.iter().all(|secret| !shown.contains(secret)), "{shown:?}");
        }
        let odd = |c: char| !matches!(c, '\n' | '\r' | '\t') && is_unprintable(c);
        assert!(!defuse_documents(&text).contains(odd), "{text:?}");
        let line = escape_unprintable(&text);
        assert!(!line.contains(is_unprintable), "{line:?}");
        let output = defuse_output(&line);
        let command = |line: &str| line.trim_start().starts_with("::");
        assert!(!output.contains("##[") && !output.contains("##vso[") && !output.lines().any(command), "{output:?}");
        masker.mask(&text) != text
    })
}
