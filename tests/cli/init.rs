//! `hubproof init`: recognition of hubs, and the files that it writes.

use std::path::Path;

use rstest::rstest;
use serde_json::Value;

use crate::support::disk;
use crate::support::hostile_servers::{HostileHub, Misbehaviour, ScriptedHub, closed_port};
use crate::support::process::{ExampleHub, ProcessResult, ServeProcess, hubproof, with_steady_text};

/// Runs `init` with this folder.
fn init(folder: &Path, arguments: &[&str]) -> ProcessResult {
    hubproof(["init", "--to", folder.to_str().unwrap()].iter().chain(arguments))
}

/// Returns a page with its words in one line.
fn unwrapped(page: &str) -> String {
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns the files below a folder.
fn files_in(folder: &Path) -> Vec<String> {
    let files = disk::files_under(folder).into_iter();
    files.map(|path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned()).collect()
}

const WRITTEN: [&str; 2] = [".github/workflows/hubproof.yml", "hub.toml"];

/// Other tests recognise airavata, gator and qi.
#[rstest]
fn every_reference_hub_is_recognised(#[values("concierge", "emprops")] name: &str) {
    let server = ServeProcess::start([name], 1);
    let folder = tempfile::tempdir().unwrap();
    let done = init(folder.path(), &[server.url(name)]).assert_exit_code(0);
    assert!(done.out.contains(&format!("The hub speaks {name}")), "{}", done.out);
    assert!(unwrapped(&done.out).contains("no other known protocol has it"), "{}", done.out);
    assert_eq!(files_in(folder.path()), WRITTEN);
    let target = folder.path().join("hub.toml");
    let listed = hubproof(["check", "--list", "--target", target.to_str().unwrap()]).assert_exit_code(0);
    assert!(listed.out.starts_with(&format!("{name} ")), "{}", listed.out);
}

#[rstest]
#[case::json_rpc("json-rpc-2.0")]
#[ignore = "thorough: repeats the proof against other hubs"]
#[case::graphql("graphql-transport-ws")]
#[ignore = "thorough: repeats the proof against other hubs"]
#[case::ocpp("ocpp-1.6j")]
fn hubs_of_other_packs_are_recognised(#[case] name: &str) {
    let Some(hub) = ExampleHub::start(name, &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let pack = format!("examples/packs/{name}");
    let done = init(folder.path(), &[&hub.url, "--pack", &pack]).assert_exit_code(0);
    assert!(done.out.contains(&format!("The hub speaks {name}")), "{}", done.out);
    assert_eq!(files_in(folder.path()), WRITTEN);
    // Without its pack, the hub is not taken for one of another protocol.
    let other = tempfile::tempdir().unwrap();
    let done = init(other.path(), &[&hub.url]).assert_exit_code(3);
    assert!(done.out.contains("Nothing was written."), "{}", done.out);
    assert_eq!(files_in(other.path()), [""; 0]);
}

#[test]
fn the_written_target_passes_on_the_reference_hub() {
    let server = ServeProcess::start(["qi"], 1);
    let folder = tempfile::tempdir().unwrap();
    let done = init(folder.path(), &[server.url("qi")]).assert_exit_code(0);
    let command = done.out.lines().last().unwrap().trim();
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[..3], ["hubproof", "check", "--target"]);
    let checked = hubproof(&words[1..]).assert_exit_code(0);
    assert!(checked.out.contains("PASS qi"), "{}", checked.out);
    with_steady_text(|| insta::assert_snapshot!("target", read(folder.path(), "hub.toml")));
    with_steady_text(|| insta::assert_snapshot!("workflow", read(folder.path(), WRITTEN[0])));
}

/// Every line that can be used without its `#` is right.
#[test]
fn every_commented_key_of_a_target_can_be_used() {
    for name in disk::protocols() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), &["--protocol", &name]).assert_exit_code(0);
        let text = read(folder.path(), "hub.toml");
        let used: Vec<&str> = text
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .collect();
        let mut sources = hubproof::syntax::source::Sources::default();
        let file = sources.add("hub.toml", used.join("\n"));
        let target =
            hubproof::config::parse(&mut sources, file, &[], &|_| Some("secret".to_owned()), &|_| unreachable!())
                .unwrap_or_else(|found| {
                    panic!("{}", hubproof::syntax::diagnostic::render_all(&found, &sources, false))
                });
        let listed = hubproof(["check", "--list", "--protocol", &name]).assert_exit_code(0).out;
        let instance = &target.instances[0];
        for known in instance.settings.keys().chain(instance.hooks.keys()) {
            assert!(listed.contains(&format!("    {known} ")), "{name} has no {known}");
        }
        let (listed, _) = listed.split_once("\n  variations ").unwrap();
        let mut entries = listed.lines().filter(|line| line.starts_with("    "));
        let absent = entries.find(|line| {
            let known = line.split_whitespace().next().unwrap();
            !instance.settings.contains_key(known) && !instance.hooks.contains_key(known)
        });
        assert_eq!(absent, None, "{name}");
    }
}

#[test]
fn a_secret_is_used_but_not_written() {
    let server = ServeProcess::start(["airavata", "--set", "airavata.jwt_secret=kept-to-itself"], 1);
    let folder = tempfile::tempdir().unwrap();
    let set = ["--set", "secrets.jwt_secret=kept-to-itself", "--set", "max_per_user=7"];
    let options = [&["--protocol", "airavata"], &set[..]].concat();
    let done = init(folder.path(), &[&[server.url("airavata")], &options[..]].concat()).assert_exit_code(0);
    let (target, workflow) = (read(folder.path(), "hub.toml"), read(folder.path(), WRITTEN[0]));
    for text in [&done.out, &done.err, &target, &workflow] {
        assert!(!text.contains("kept-to-itself"), "{text}");
    }
    assert!(target.contains("\njwt_secret = { env = \"HUB_JWT_SECRET\" }\n"), "{target}");
    assert!(target.contains("\nmax_per_user = 7\n"), "{target}");
    assert!(workflow.contains("HUB_JWT_SECRET: ${{ secrets.HUB_JWT_SECRET }}"), "{workflow}");
    assert!(done.out.contains("export HUB_JWT_SECRET=..."), "{}", done.out);
}

/// The greeting lacks a member, so that no conversation gets beyond it.
#[test]
fn a_hub_that_deviates_from_the_start_is_shown_with_the_closest_protocol() {
    let greeting = r#"{"type":"HELLO","version":"0.1.0"}"#.to_owned();
    let hub = ScriptedHub::start(
        move |_, _, text| {
            if text.contains("IDENTIFY") { vec![greeting.clone()] } else { Vec::new() }
        },
    );
    let folder = tempfile::tempdir().unwrap();
    let done = init(folder.path(), &[&hub.url()]).assert_exit_code(3);
    let page = unwrapped(&done.out);
    assert!(page.contains("This comes closest to concierge: ert-concierge, but is not enough:"), "{page}");
    assert!(page.contains("`hello` of concierge, not valid under its schema"), "{page}");
    assert!(page.contains("Of 1 frame that the hub sent, 0 are valid messages"), "{page}");
    assert_eq!(files_in(folder.path()), [""; 0]);
}

/// That some path needs credentials is not enough to recognise a protocol.
#[test]
fn a_hub_that_asks_for_credentials_is_not_guessed() {
    let hub = ScriptedHub::guarded(|head| head.starts_with("GET / "), |_, _, _| Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let done = init(folder.path(), &[&hub.url()]).assert_exit_code(3);
    assert!(
        unwrapped(&done.out).contains("Only where clients of airavata connect, it asks for credentials."),
        "{}",
        done.out
    );
    assert!(done.out.contains("`jwt_secret`"), "{}", done.out);
    assert!(!done.out.contains("token="), "{}", done.out);
    assert_eq!(files_in(folder.path()), [""; 0]);
    let named = init(folder.path(), &[&hub.url(), "--protocol", "airavata"]).assert_exit_code(0);
    assert!(
        unwrapped(&named.out).contains("Where clients of airavata connect, it asks for credentials."),
        "{}",
        named.out
    );
    assert_eq!(files_in(folder.path()), WRITTEN);
}

/// The document has the token in the query, and fixed paths.
#[rstest]
#[case::header(&["\r\nAuthorization: Bearer ey"], "headers = { Authorization = \"Bearer ${self.token}\" }")]
#[case::subprotocol(&["\r\nSec-WebSocket-Protocol: bearer, ey"], "subprotocols = [\"bearer\", \"${self.token}\"]")]
#[case::with_the_role(&["\r\nX-Api-Key: ey", "&role="], "headers = { X-Api-Key = \"${self.token}\" }, query = { role = \"${self.role}\" }")]
fn the_place_of_credentials_and_role_is_found_and_written(#[case] needed: &'static [&str], #[case] entry: &str) {
    let admits = |head: &str| needed.iter().all(|part| head.contains(part));
    let hub = ScriptedHub::guarded(admits, |_, _, _| Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let given = [&*hub.url(), "--protocol", "airavata", "--set", "secrets.jwt_secret=the key"];
    let done = init(folder.path(), &given).assert_exit_code(0);
    let upgrade = format!("upgrade = {{ {entry} }}");
    assert!(done.out.contains("accepts them with this entry"), "{}", done.out);
    assert!(done.out.contains(&upgrade) && read(folder.path(), "hub.toml").contains(&upgrade), "{}", done.out);
}

#[test]
fn a_hub_is_recognised_by_its_refusal_of_invented_secrets() {
    let server = ServeProcess::start(["airavata", "--set", "airavata.jwt_secret=the key"], 1);
    let folder = tempfile::tempdir().unwrap();
    let done = init(folder.path(), &[server.url("airavata")]).assert_exit_code(0);
    assert!(done.out.contains("The hub speaks airavata"), "{}", done.out);
    assert!(unwrapped(&done.out).contains("set `jwt_secret` or `tokens` in hub.toml"), "{}", done.out);
}

#[test]
fn a_secret_in_the_url_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("{}?token=kept-to-itself", closed_port());
    let done = init(folder.path(), &[&url, "--protocol", "gator"]).assert_exit_code(0);
    assert!(!done.out.contains("kept-to-itself") && !done.err.contains("kept-to-itself"), "{}{}", done.out, done.err);
    assert!(unwrapped(&done.out).contains("its url contains a secret"), "{}", done.out);
    assert!(read(folder.path(), "hub.toml").contains(&format!("url = \"{url}\"")));
}

#[rstest]
#[case::echo("echo", Misbehaviour::Echo)]
#[case::web_server("web_server", Misbehaviour::NotFound)]
#[ignore = "thorough: waits for real time"]
#[case::silent("silent", Misbehaviour::Silent)]
#[ignore = "thorough: waits for real time"]
#[case::garbage("garbage", Misbehaviour::GarbageText)]
#[ignore = "thorough: waits for real time"]
#[case::credentials("credentials", Misbehaviour::Unauthorized)]
#[ignore = "thorough: waits for real time"]
#[case::tcp("tcp", Misbehaviour::TcpCloses)]
fn a_hub_of_no_known_protocol_is_explained(#[case] name: &str, #[case] misbehaviour: Misbehaviour) {
    let hub = HostileHub::start(misbehaviour, "");
    let folder = tempfile::tempdir().unwrap();
    let done = init(folder.path(), &[&hub.url()]).assert_exit_code(3);
    assert_eq!(files_in(folder.path()), [""; 0]);
    // Times and ids differ in length, too, so that lines break elsewhere.
    let parts: Vec<&str> =
        done.out.split_whitespace().map(|word| if word.starts_with('{') { "{...}" } else { word }).collect();
    with_steady_text(|| insta::assert_snapshot!(name, parts.join(" ").replace(" - ", "\n- ")));
}

#[rstest]
#[ignore = "thorough: waits for real time"]
fn a_hostile_hub_is_not_recognised(
    #[values(
        Misbehaviour::TcpSilent,
        Misbehaviour::TlsGarbage,
        Misbehaviour::ServerError,
        Misbehaviour::Redirect,
        Misbehaviour::SlowHead,
        Misbehaviour::EndlessHead,
        Misbehaviour::WrongKey,
        Misbehaviour::OwnSubprotocol,
        Misbehaviour::Deaf,
        Misbehaviour::ClosesWith1006,
        Misbehaviour::GarbageBytes,
        Misbehaviour::NoUtf8,
        Misbehaviour::Resets,
        Misbehaviour::Flood,
        Misbehaviour::Giants,
        Misbehaviour::Giant,
        Misbehaviour::Fragments,
        Misbehaviour::Deep,
        Misbehaviour::Digits,
        Misbehaviour::Surrogate
    )]
    misbehaviour: Misbehaviour,
) {
    let hub = HostileHub::start(misbehaviour, r#"{"some":"thing"}"#);
    let folder = tempfile::tempdir().unwrap();
    let done = init(folder.path(), &[&hub.url()]).assert_exit_code(3);
    assert!(done.out.contains("Nothing was written."), "{}", done.out);
    assert_eq!(files_in(folder.path()), [""; 0]);
}

#[test]
fn escape_sequences_of_a_hub_are_shown_as_text() {
    let hub = HostileHub::start(Misbehaviour::Unrelated, "\u{1b}[31m\u{202e}red\u{7}");
    let folder = tempfile::tempdir().unwrap();
    let done = init(folder.path(), &[&hub.url()]).assert_exit_code(3);
    assert!(done.out.contains("\\u{1b}[31m\\u{202e}red\\u{7}"), "{}", done.out);
    assert!(!done.out.contains(['\u{1b}', '\u{202e}', '\u{7}']));
}

#[test]
fn a_hub_that_cannot_be_reached_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let url = closed_port();
    let done = init(folder.path(), &[&url]).assert_exit_code(3);
    assert!(done.out.contains("connection refused"), "{}", done.out);
    assert_eq!(files_in(folder.path()), [""; 0]);
    // With the protocol, the files can be written already.
    let done = init(folder.path(), &[&url, "--protocol", "gator"]).assert_exit_code(0);
    assert!(done.out.contains("connection refused"), "{}", done.out);
    assert_eq!(files_in(folder.path()), WRITTEN);
}

#[test]
fn a_certificate_that_is_not_trusted_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let ca = ca.to_str().unwrap();
    let server = ServeProcess::start(["gator".to_owned(), format!("--tls-self-signed={ca}")], 1);
    let to = folder.path().join("untrusted");
    let done = init(&to, &[server.url("gator")]).assert_exit_code(3);
    assert!(done.out.contains("certificate not trusted") && done.out.contains("--ca FILE"), "{}", done.out);
    let to = folder.path().join("trusted");
    init(&to, &[server.url("gator"), "--ca", ca]).assert_exit_code(0);
    let target = read(&to, "hub.toml");
    assert!(target.contains(&format!("[tls]\nca = \"{ca}\"")), "{target}");
    let target = to.join("hub.toml");
    hubproof(["check", "--scenario", "requests", "--target", target.to_str().unwrap()]).assert_exit_code(0);
}

#[test]
fn two_packs_that_fit_equally_ask_for_a_choice() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("copy");
    disk::copy_pack("gator", &pack);
    let server = ServeProcess::start(["gator"], 1);
    let to = folder.path().join("to");
    let arguments = [server.url("gator"), "--pack", pack.to_str().unwrap()];
    let done = init(&to, &arguments).assert_exit_code(3);
    assert!(done.out.contains("The hub fits copy and gator equally well."), "{}", done.out);
    assert!(unwrapped(&done.out).contains("--protocol copy | gator"), "{}", done.out);
    assert!(!to.exists());
    let done = init(&to, &[&arguments[..], &["--protocol", "copy"]].concat()).assert_exit_code(0);
    assert!(done.out.contains(&format!("--pack {}", pack.display())), "{}", done.out);
}

/// The pack that the user names is not what the hub speaks.
#[test]
fn a_pack_of_another_protocol_is_not_used() {
    let server = ServeProcess::start(["gator"], 1);
    let folder = tempfile::tempdir().unwrap();
    let pack = ["--pack", "examples/packs/json-rpc-2.0"];
    let done = init(folder.path(), &[&[server.url("gator")], &pack[..]].concat()).assert_exit_code(3);
    assert!(done.out.contains("The hub speaks gator"), "{}", done.out);
    assert!(done.out.contains("--protocol json-rpc-2.0"), "{}", done.out);
    assert_eq!(files_in(folder.path()), [""; 0]);
}

#[test]
fn files_are_overwritten_only_with_force() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hub.toml"), "# mine\n").unwrap();
    let arguments = ["--protocol", "qi"];
    let done = init(folder.path(), &arguments).assert_exit_code(2);
    let file = folder.path().join("hub.toml");
    assert!(done.err.contains(&format!("{} already exists", file.display())), "{}", done.err);
    assert!(done.err.contains("--force"), "{}", done.err);
    assert_eq!(files_in(folder.path()), ["hub.toml"]);
    assert_eq!(read(folder.path(), "hub.toml"), "# mine\n");
    init(folder.path(), &[&arguments[..], &["--force"]].concat()).assert_exit_code(0);
    assert!(read(folder.path(), "hub.toml").contains("protocol = \"qi\""));
    // The address is still missing.
    let rejected = hubproof(["check", "--target", file.to_str().unwrap()]).assert_exit_code(2);
    assert!(rejected.err.contains("url = \"ws://127.0.0.1:4000\""), "{}", rejected.err);
}

const DOCUMENT: &str = include_str!("../fixtures/documents/adder.yaml");

#[test]
fn an_asyncapi_document_becomes_a_pack() {
    let hub = ScriptedHub::start(|_, _, text| {
        let asked = serde_json::from_str::<Value>(text).unwrap_or_default()["op"] == "ask";
        if asked { vec![r#"{"op":"sum","value":3}"#.to_owned()] } else { Vec::new() }
    });
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("adder.yaml");
    std::fs::write(&document, DOCUMENT).unwrap();
    let to = folder.path().join("to");
    let arguments = [&*hub.url(), "--pack", document.to_str().unwrap()];
    let done = init(&to, &arguments).assert_exit_code(0);
    assert!(done.out.contains("The hub speaks adder: Adder"), "{}", done.out);
    assert!(unwrapped(&done.out).contains("4 rules (DOC-FITS, DOC-LISTED, LINE-2, REPLY-adds)"), "{}", done.out);
    assert!(!read(&to, "hub.toml").contains("\nprotocol ="));
    assert!(read(&to, WRITTEN[0]).contains("          pack: adder\n"));
    let words: Vec<&str> = done.out.lines().last().unwrap().trim().split(' ').collect();
    let checked = hubproof(words[1..].iter().chain(&["--min-judged", "0%"])).assert_exit_code(0);
    assert!(checked.out.contains("PASS adder"), "{}", checked.out);
    // Each file that exists is named.
    let done = init(&to, &arguments).assert_exit_code(2);
    for file in ["hub.toml", "adder/rules.yaml", "adder/messages/ask.schema.json"] {
        assert!(done.err.contains(to.join(file).to_str().unwrap()), "{file}: {}", done.err);
    }
}

/// The user gives the pack, and the hub sends nothing.
#[test]
fn a_given_pack_is_used_for_a_hub_that_confirms_nothing() {
    let hub = HostileHub::start(Misbehaviour::Silent, "");
    let folder = tempfile::tempdir().unwrap();
    let done = init(folder.path(), &[&hub.url(), "--pack", "examples/packs/json-rpc-2.0"]).assert_exit_code(0);
    assert!(
        unwrapped(&done.out).contains("Nothing that the hub sent confirms that it speaks json-rpc-2.0"),
        "{}",
        done.out
    );
    assert_eq!(files_in(folder.path()), WRITTEN);
}

/// The workflow uses the action as its file says.
#[test]
fn the_workflow_uses_inputs_that_the_action_has() {
    let folder = tempfile::tempdir().unwrap();
    let pack = ["--pack", "examples/packs/json-rpc-2.0"];
    init(folder.path(), &pack).assert_exit_code(0);
    let tree = |path: &Path| {
        let mut sources = hubproof::syntax::source::Sources::default();
        let file = sources.add("file", std::fs::read_to_string(path).unwrap());
        hubproof::syntax::yaml::parse(&sources, file).unwrap().to_json()
    };
    let (action, workflow) = (tree(&disk::root().join("action.yml")), tree(&folder.path().join(WRITTEN[0])));
    let steps = workflow["jobs"]["hub"]["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["uses"].as_str().unwrap().contains("/hubproof@")).unwrap();
    let used = step["with"].as_object().unwrap();
    assert!(used.keys().all(|name| action["inputs"].get(name).is_some()), "{used:?}");
    assert_eq!(used["target"], "hub.toml");
    assert_eq!(used["pack"], "examples/packs/json-rpc-2.0");
}

#[rstest]
#[case::nothing("nothing", &[])]
#[case::protocol("protocol", &["--protocol", "conciege"])]
#[case::url("url", &["127.0.0.1:4000"])]
#[case::setting("setting", &["ws://127.0.0.1:1", "--set", "jwt_secert=x"])]
#[case::key("key", &["ws://127.0.0.1:1", "--set", "patience=1s"])]
fn mistakes_in_arguments_are_explained(#[case] name: &str, #[case] arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let done = init(folder.path(), arguments).assert_exit_code(2);
    with_steady_text(|| insta::assert_snapshot!(format!("mistake_{name}"), done.err));
    assert_eq!(files_in(folder.path()), [""; 0]);
}
