//! Variations of scenarios: a correct hub passes all of them, and some find what no scenario finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hubproof::check::{VariationChoice, find_open_places};
use hubproof::interpreter::{Conversation, ConversationConfig, ConversationInput, ConversationOutput};
use hubproof::outcome::{CheckReport, FrameReport, HistoryDirection, ScenarioReport, Verdict};
use hubproof::scenario::Program;
use hubproof::scenario::unusual_values::ValueKind;
use hubproof::scenario::variation::{PreludePlace, Variation};
use hubproof::websocket::frame::{ConnectionEvent, Frame};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::hostile_servers::ScriptedHub;
use crate::support::mini_protocol::{
    HubActions, HubInput, PLAIN_ROLES, mini_program, mini_scenario_diagnostics, play, play_varied, text_received,
    worst_verdict,
};
use crate::support::process::{ExampleHub, ProcessResult, hubproof};
use crate::support::sim_connection::{SimulatedProtocol, conversation_config};

#[rstest]
#[case::gator("gator")]
#[ignore = "thorough: many minutes of CPU"]
#[case::qi("qi")]
#[case::websocket("websocket")]
#[ignore = "thorough: many minutes of CPU"]
#[case::airavata("airavata")]
#[ignore = "thorough: many minutes of CPU"]
#[case::concierge("concierge")]
#[ignore = "thorough: many minutes of CPU"]
#[case::emprops("emprops")]
fn a_correct_hub_passes_with_every_variation(#[case] protocol: &str) {
    let (played, scenarios) = play_varied_scenarios(protocol, |_| true);
    assert!(played > 4 * scenarios, "only {played} varied plays");
}

/// The least number of plays in which a value was swapped.
#[rstest]
#[case::qi("qi", 20)]
#[case::gator("gator", 6)]
#[case::airavata("airavata", 6)]
#[ignore = "thorough: many minutes of CPU"]
#[case::concierge("concierge", 400)]
#[ignore = "thorough: many minutes of CPU"]
#[case::emprops("emprops", 100)]
fn a_correct_hub_passes_on_unusual_values(#[case] protocol: &str, #[case] least: usize) {
    let (played, _) = play_varied_scenarios(protocol, |variation| matches!(variation, Variation::Values(..)));
    assert!(played >= least, "only {played} plays with unusual values");
}

/// The least number of plays in which a client sent requests ahead of answers.
#[rstest]
#[case::qi("qi", 60)]
#[case::gator("gator", 6)]
#[ignore = "thorough: many minutes of CPU"]
#[case::airavata("airavata", 100)]
#[ignore = "thorough: many minutes of CPU"]
#[case::concierge("concierge", 100)]
#[ignore = "thorough: many minutes of CPU"]
#[case::emprops("emprops", 100)]
fn a_correct_hub_answers_many_requests_at_once(#[case] protocol: &str, #[case] least: usize) {
    let (played, _) = play_varied_scenarios(protocol, Variation::sends_ahead);
    assert!(played >= least, "only {played} plays with many requests at once");
}

/// Plays all scenarios with some variations. Returns the number of plays and of scenarios.
fn play_varied_scenarios(protocol: &str, chosen: fn(&Variation) -> bool) -> (usize, usize) {
    let mut protocol = SimulatedProtocol::load(protocol);
    if protocol.pack.name == "emprops" {
        // Ten megabytes, many times, would take too long.
        protocol.set(Some("max_message_bytes"), "message_limit", 100_000);
        protocol.set(None, "chunks_above", 10_000);
    }
    let mut played = 0;
    let programs = protocol.scenarios.programs.clone();
    for program in &programs {
        protocol.variation = None;
        let Some(plain) = protocol.play(program, None) else { continue };
        let settings = protocol.settings(program);
        // What others do is not simulated.
        let is_simulated = |one: &Variation| {
            !matches!(one, Variation::Prelude(PreludePlace::Before | PreludePlace::Beside, _)) && chosen(one)
        };
        for variation in VariationChoice::All.of_program(program, 0, "").into_iter().filter(is_simulated) {
            let Some(variation) = in_open_places(variation, program, &plain, &settings) else { continue };
            protocol.variation = Some(variation.clone());
            let report = protocol.play(program, None).unwrap();
            // A step may miss a frame that the prelude has taken.
            let counts = |check: &&CheckReport| !(variation.is_pipelined() && check.is_of_step());
            let broken = report.checks.iter().filter(counts).find(|check| check.accuses_hub());
            assert!(broken.is_none(), "{} with {variation}: {broken:?}", program.id);
            // A hub may limit how much a client sends.
            let limited = report.history.iter().any(|frame| frame.text.contains("Rate limit exceeded"));
            if variation.sends_ahead() && limited {
                continue;
            }
            let of_prelude = matches!(variation, Variation::Prelude(..));
            // A request may end the connection before one of a prelude that comes with it is answered.
            let is_played = report.mistake.is_none() || variation.is_pipelined();
            assert!(!of_prelude || is_played, "{} with {variation}: {:?}", program.id, report.mistake);
            let hooked = report.cause.as_ref().is_some_and(|cause| cause.step.starts_with("hook:"));
            let same = report.verdict == plain.verdict || matches!(report.verdict, Verdict::Pass | Verdict::Info);
            let same = same || variation.is_pipelined() && report.cause.is_none();
            assert!(same || report.mistake.is_some() || hooked, "{} with {variation}: {:?}", program.id, report.cause);
            played += usize::from(report.mistake.is_none());
        }
    }
    (played, programs.len())
}

/// Returns a variation with the places in which it sends unusual values; `None` if there are none.
fn in_open_places(
    variation: Variation,
    program: &Program,
    plain: &ScenarioReport,
    settings: &BTreeMap<String, Value>,
) -> Option<Variation> {
    let Variation::Values(kind, _) = variation else { return Some(variation) };
    let places = find_open_places(program, plain, kind, settings);
    (!places.places.is_empty()).then(|| Variation::Values(kind, Some(Arc::new(places))))
}

/// A client sends a name and an object, which the hub sends back.
const RELAY: &str = "title: T
actors: { a: client }
steps:
  - a joins:
  - a sends: ask
    with: { kind: public, name: \"${unique('n')}\", /data: { mark: \"${unique('m')}\", n: 1 } }
    as: asked
  - a expects: answer
    where: { kind: public, name: \"${asked.name}\", data: \"${asked.data}\" }
    rules: [MUST]
";

/// Returns a hub that sends back what it gets, in the form that `change` makes of it.
fn relay(change: impl Fn(&mut Value)) -> impl FnMut(&HubInput<'_>) -> HubActions {
    move |input| {
        let answer = |text| {
            let mut message: Value = serde_json::from_str(text).unwrap();
            message["type"] = json!("answer");
            change(&mut message);
            (0, input.connection, text_received(message.to_string()))
        };
        // It knows only one kind.
        input.text.filter(|text| text.contains("\"kind\":\"public\"")).map(answer).into_iter().collect()
    }
}

fn change_texts(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| change_texts(item, change)),
        Value::Object(members) => members.values_mut().for_each(|member| change_texts(member, change)),
        _ => {}
    }
}

/// A change of a message, the variation that shows it, and whether it shows it.
#[rstest]
#[case::none(|_: &mut Value| {}, None)]
#[case::trims(|message: &mut Value| change_texts(message, &|text: &str| text.trim().to_owned()), Some(ValueKind::Letters))]
#[case::cuts(|message: &mut Value| change_texts(message, &|text: &str| text.chars().take(255).collect()), Some(ValueKind::Lengths))]
#[case::cuts_at_nul(|message: &mut Value| change_texts(message, &|text: &str| text.split('\0').next().unwrap().to_owned()), Some(ValueKind::Letters))]
#[case::lower(|message: &mut Value| change_texts(message, &|text: &str| text.to_lowercase()), Some(ValueKind::Words))]
#[case::numbers(|message: &mut Value| {
    let numeric = |value: &mut Value| if let Some(number) = value.as_str().and_then(|text| text.parse::<i64>().ok()) { *value = json!(number) };
    numeric(&mut message["name"]);
}, Some(ValueKind::Words))]
#[case::drops_null(|message: &mut Value| message["data"].as_object_mut().unwrap().retain(|_, member| !member.is_null()), Some(ValueKind::Members))]
#[case::wraps(|message: &mut Value| {
    let wrap = |number: &mut Value| if let Some(long) = number.as_i64() { *number = json!(long as i32) };
    message["data"].as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut).flatten().for_each(wrap);
}, Some(ValueKind::Members))]
#[case::reads_type(|message: &mut Value| if let Some(of_data) = message["data"]["type"].as_str() { message["type"] = json!(of_data) }, Some(ValueKind::Members))]
#[case::cuts_lists(|message: &mut Value| message["data"].as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut).for_each(|items| items.truncate(32)), Some(ValueKind::Members))]
fn a_hub_that_alters_values_is_noticed(#[case] change: fn(&mut Value), #[case] shown: Option<ValueKind>) {
    let plain = play(PLAIN_ROLES, RELAY, relay(change));
    let broken = |report: &ScenarioReport| report.checks.iter().any(|check| check.verdict == Verdict::Fail);
    assert!(report_is_whole(&plain) && !broken(&plain), "{plain:#?}");
    let program = mini_program(PLAIN_ROLES, RELAY);
    let mut noticed = Vec::new();
    for kind in [ValueKind::Letters, ValueKind::Words, ValueKind::Lengths, ValueKind::Members] {
        // A name has one class of words and of lengths.
        let classes = 0..if kind == ValueKind::Members { 1 } else { kind.classes().len() };
        let mut shows = classes.map(|turn| {
            let mut places = find_open_places(&program, &plain, kind, &BTreeMap::new());
            assert!(!places.places.is_empty());
            places.turn = turn;
            let report =
                play_varied(Variation::Values(kind, Some(Arc::new(places))), PLAIN_ROLES, RELAY, relay(change));
            broken(&report) || !report_is_whole(&report)
        });
        noticed.extend(shows.any(|shows| shows).then_some(kind));
    }
    match shown {
        None => assert_eq!(noticed, []),
        Some(kind) => assert!(noticed.contains(&kind), "{noticed:?}"),
    }
}

fn report_is_whole(report: &ScenarioReport) -> bool {
    report.mistake.is_none() && report.cause.is_none()
}

/// A place is not open if the hub does not pass its value on, or uses it for something else.
#[rstest]
#[case::kept(|message: &mut Value| message["name"] = json!("n"), ValueKind::Letters, "/name")]
#[case::in_a_text(|message: &mut Value| message["hello"] = json!(format!("hello {}", message["name"].as_str().unwrap())), ValueKind::Letters, "/name")]
#[case::part_of_an_object(|message: &mut Value| message["mark"] = message["data"]["mark"].clone(), ValueKind::Members, "/data")]
#[case::changed_object(|message: &mut Value| message["data"]["more"] = json!(1), ValueKind::Members, "/data")]
fn a_place_in_doubt_is_not_open(#[case] change: fn(&mut Value), #[case] kind: ValueKind, #[case] pointer: &str) {
    let program = mini_program(PLAIN_ROLES, RELAY);
    let is_open = |change: fn(&mut Value)| {
        let plain = play(PLAIN_ROLES, RELAY, relay(change));
        let places = find_open_places(&program, &plain, kind, &BTreeMap::new()).places;
        places.iter().any(|place| place.pointer == pointer)
    };
    assert!(!is_open(change) && is_open(|_| {}));
}

/// A hook publishes names and an object, of which a client has sent one name, and the hook's args have another.
const PUBLISH: &str = "title: T
actors: { a: client }
let: { room: \"${unique('r')}\", topic: \"${unique('t')}\", name: \"${unique('n')}\", data: { mark: \"${unique('m')}\", n: 1 } }
steps:
  - a joins:
  - a sends: ask
    with: { topic: \"${topic}\" }
  - hook: emit
    args: { room: \"${room}\" }
    message: notice
    with: { room: \"${room}\", topic: \"${topic}\", name: \"${name}\", /data: \"${data}\" }
    as: published
  - a expects: notice
    where: { room: \"${room}\", topic: \"${topic}\", name: \"${name}\", data: \"${data}\" }
    rules: [MUST]
";

/// Returns a shared.yaml with a hook that publishes messages.
fn with_hook() -> String {
    format!("{PLAIN_ROLES}hooks: {{ emit: {{ message: true, args: [room, copy], about: publishes a message }} }}\n")
}

/// Returns a hub that sends what a hook publishes, in the form that `change` makes of it.
fn publisher(change: impl Fn(&mut Value)) -> impl FnMut(&HubInput<'_>) -> HubActions {
    move |input| {
        let notice = |text| {
            let mut message: Value = serde_json::from_str(text).unwrap();
            change(&mut message);
            (0, input.connection, text_received(message.to_string()))
        };
        input.text.filter(|text| text.contains("\"type\":\"notice\"")).map(notice).into_iter().collect()
    }
}

/// Unusual values go into a hook's message as into a client's, but a value in the hook's args stays unchanged.
#[rstest]
#[case::names(ValueKind::Letters, "args: { room: \"${room}\" }", &["ask/topic", "notice/data/mark", "notice/name", "notice/topic"])]
#[case::name_within_args(ValueKind::Letters, "args: { room: \"${room}\", copy: \"of ${topic}\" }", &["notice/data/mark", "notice/name"])]
#[case::name_in_a_token(
    ValueKind::Letters,
    "args: { room: \"${room}\", copy: \"${jwt({'sub': topic}, key='k')}\" }",
    &["notice/data/mark", "notice/name"]
)]
#[case::name_made_unreadable(ValueKind::Letters, "args: { room: \"${room}\", copy: \"${hex(topic)}\" }", &[])]
#[case::objects(ValueKind::Members, "args: { room: \"${room}\" }", &["notice/data"])]
#[case::object_in_args(ValueKind::Members, "args: { room: \"${room}\", copy: \"${data}\" }", &[])]
#[case::part_of_object_in_args(ValueKind::Members, "args: { room: \"${room}\", copy: \"${data.mark}\" }", &[])]
fn places_of_a_published_message_are_open(#[case] kind: ValueKind, #[case] args: &str, #[case] expected: &[&str]) {
    let scenario = PUBLISH.replace("args: { room: \"${room}\" }", args);
    let plain = play(&with_hook(), &scenario, publisher(|_| {}));
    assert!(report_is_whole(&plain), "{plain:#?}");
    let program = mini_program(&with_hook(), &scenario);
    let found = find_open_places(&program, &plain, kind, &BTreeMap::new()).places;
    let shown: Vec<String> = found.iter().map(|place| place.message.clone() + &place.pointer).collect();
    assert_eq!(shown, expected);
    let group =
        |shown: &str| found.iter().find(|place| place.message.clone() + &place.pointer == shown).map(|one| one.group);
    assert!(found.len() < 3 || group("ask/topic") == group("notice/topic"));
}

/// A hub that changes only what hooks publish is noticed; one that passes it on is not, nor one whose hook fails.
#[rstest]
#[case::none(|_: &mut Value| {}, None)]
#[case::trims(|message: &mut Value| change_texts(message, &|text: &str| text.trim().to_owned()), Some(ValueKind::Letters))]
#[case::cuts(|message: &mut Value| change_texts(message, &|text: &str| text.chars().take(255).collect()), Some(ValueKind::Lengths))]
#[case::drops_null(|message: &mut Value| message["data"].as_object_mut().unwrap().retain(|_, member| !member.is_null()), Some(ValueKind::Members))]
fn a_hub_that_alters_published_values_is_noticed(#[case] change: fn(&mut Value), #[case] shown: Option<ValueKind>) {
    let plain = play(&with_hook(), PUBLISH, publisher(change));
    assert!(report_is_whole(&plain) && worst_verdict(&plain, "MUST") == Verdict::Pass, "{plain:#?}");
    let program = mini_program(&with_hook(), PUBLISH);
    let mut noticed = Vec::new();
    for kind in [ValueKind::Letters, ValueKind::Lengths, ValueKind::Members] {
        let classes = 0..if kind == ValueKind::Lengths { kind.classes().len() } else { 1 };
        let mut shows = classes.map(|turn| {
            let mut places = find_open_places(&program, &plain, kind, &BTreeMap::new());
            places.turn = turn;
            let variation = Variation::Values(kind, Some(Arc::new(places)));
            let report = play_varied(variation, &with_hook(), PUBLISH, publisher(change));
            worst_verdict(&report, "MUST") != Verdict::Pass
        });
        noticed.extend(shows.any(|shows| shows).then_some(kind));
    }
    match shown {
        None => assert_eq!(noticed, []),
        Some(kind) => assert!(noticed.contains(&kind), "{noticed:?}"),
    }
}

/// An object that the target names may be one that the hub knows.
#[test]
fn objects_of_the_target_are_not_open() {
    let program = mini_program(PLAIN_ROLES, RELAY);
    let plain = play(PLAIN_ROLES, RELAY, relay(|_| {}));
    let sent: Value =
        serde_json::from_str(&plain.history.iter().find(|frame| frame.text.contains("mark")).unwrap().text).unwrap();
    let settings = BTreeMap::from([("commands".to_owned(), json!([{ "arguments": sent["data"] }]))]);
    assert_eq!(find_open_places(&program, &plain, ValueKind::Members, &settings).places, []);
}

/// Faults that the scenario does not trigger as it is written.
#[rstest]
#[case::member_order("gator/requests", "gator-fuzz-action-last-unanswered", "member-order")]
#[case::ping("qi/base", "qi-fuzz-ping-wedges", "ping")]
fn a_variation_finds_what_a_scenario_does_not(#[case] scenario: &str, #[case] fault: &str, #[case] variation: &str) {
    let (protocol, _) = scenario.split_once('/').unwrap();
    let check = ["check", "--protocol", protocol, "--scenario", scenario, "--fault", fault, "--variation"];
    let done = hubproof(check.iter().chain(&[variation])).assert_exit_code(1);
    let shows = format!(" with {variation}");
    assert!(done.out.contains(&shows), "{}", done.out);
    assert!(done.out.contains(&format!("--variation {variation}")), "{}", done.out);
    let other = hubproof(check.iter().chain(&["names-by-case"])).assert_exit_code(0);
    assert!(!other.out.contains(" with "), "{}", other.out);
}

#[test]
fn a_finding_names_the_unusual_value_and_its_place() {
    let check = ["check", "--protocol", "emprops", "--scenario", "emprops/job-lifecycle", "--fault"];
    let play = |variation| {
        let more = ["emprops-payload-without-nulls", "--variation", variation];
        let done = hubproof(check.iter().chain(&more)).assert_exit_code(0);
        done.out.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let shown = play("values-members");
    assert!(shown.contains("warn[EMP-058#2]: emprops/job-lifecycle with values-members: "), "{shown}");
    assert!(shown.contains("(null, false and empty values in /payload of submit_job)"), "{shown}");
    assert!(!play("names-by-case").contains(" with "));
}

/// The scenario publishes its events through a hook, and no client sends their names.
#[test]
fn a_finding_names_the_unusual_value_of_a_published_message() {
    let check = ["check", "--protocol", "airavata", "--scenario", "airavata/events", "--variation", "values-letters"];
    let done = hubproof(check.iter().chain(&["--fault", "airavata-name-without-emoji"])).assert_exit_code(0);
    let shown = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("warn[AIR-044#2]: airavata/events with values-letters: "), "{shown}");
    assert!(shown.contains("(an emoji in /data/experiment/name of experiment_"), "{shown}");
    let correct = hubproof(check).assert_exit_code(0);
    assert!(!correct.out.contains(" with "), "{}", correct.out);
}

const CONVERSATION: &str = "title: T
actors: { a: client }
steps:
  - a joins:
  - a sends: ask
  - a expects: answer
    rules: [MUST]
";

/// Returns what a hub sends when it gets a ping. `later`: it has already got a text.
type PongsOfHub = fn(ping: &[u8], later: bool) -> Vec<ConnectionEvent>;

fn pong(data: &[u8]) -> ConnectionEvent {
    ConnectionEvent::Pong(data.to_vec())
}

fn closing() -> ConnectionEvent {
    ConnectionEvent::Close { code: Some(1001), reason: String::new() }
}

/// Plays the conversation with the variation `ping`; returns what is wrong with the pongs.
fn findings_of_pongs(more: &str, pongs: PongsOfHub) -> Vec<String> {
    let mut later = false;
    let hub = |input: &HubInput<'_>| {
        later |= input.text.is_some();
        let answers = input.text.map(|_| text_received(r#"{"type":"answer"}"#)).into_iter();
        let answers = answers.chain(input.ping.into_iter().flat_map(|ping| pongs(ping, later)));
        answers.map(|answer| (0, input.connection, answer)).collect()
    };
    let report = play_varied(Variation::Ping, PLAIN_ROLES, &format!("{CONVERSATION}{more}"), hub);
    assert!(report.mistake.is_none() && report.cause.is_none(), "{report:#?}");
    let wrong = report.checks.iter().filter(|check| check.verdict != Verdict::Pass);
    wrong.map(|check| format!("{}: {}", check.name, check.message)).collect()
}

#[test]
fn a_hub_need_not_answer_every_ping() {
    let silent: PongsOfHub = |_, _| Vec::new();
    let hubs: [(&str, PongsOfHub); 5] = [
        ("", |ping, _| vec![pong(ping)]),
        ("", |ping, _| vec![pong(b"alive"), pong(ping), pong(b"alive")]),
        ("", |_, later| if later { vec![closing()] } else { Vec::new() }),
        ("  - a stops reading:\n", silent),
        ("  - a sends raw: { bytes: \"81\" }\n", silent),
    ];
    for (more, pongs) in hubs {
        assert_eq!(findings_of_pongs(more, pongs), [""; 0]);
    }
}

#[test]
fn a_hub_that_answers_pings_wrongly_is_noticed() {
    let hubs: [(PongsOfHub, &str, &str); 5] = [
        (|_, _| Vec::new(), "a ping of length 0 is answered with a pong of the same bytes", "no pong within"),
        (|_, _| vec![pong(b"")], "a ping of length 125", "only a pong of length 0: \"\""),
        (|ping, _| vec![pong(&ping[..ping.len().min(124)])], "a ping of length 125", "only a pong of length 124"),
        (|ping, _| ping.first().map(|_| pong(ping)).into_iter().collect(), "a ping of length 0", "no pong within"),
        (|ping, later| vec![pong(if later { b"?" } else { ping })], "a ping of length 0", "pong of length 1: \"?\""),
    ];
    for (pongs, ping, found) in hubs {
        let findings = findings_of_pongs("", pongs);
        assert!(findings.len() == 1 && findings[0].starts_with("websocket: "), "{findings:?}");
        assert!(findings[0].contains(ping) && findings[0].contains(found), "{findings:?}");
    }
}

#[test]
fn a_hub_that_reads_frames_one_by_one_is_noticed() {
    let Some(hub) = ExampleHub::start("json-rpc-2.0", &["--bug", "fragments-apart"]) else { return };
    let varied = |variation| hub.run("check", &["--scenario", "json-rpc-2.0/results", "--variation", variation]);
    let done = varied("fragments").assert_exit_code(1);
    assert!(done.out.contains("fail[RPC-") && done.out.contains(" with fragments"), "{}", done.out);
    varied("padding").assert_exit_code(0);
}

#[test]
fn a_hub_that_answers_another_form_differently_gets_a_warning() {
    let Some(hub) = ExampleHub::start("json-rpc-2.0", &["--bug", "null-by-order"]) else { return };
    let varied = |variation| {
        let one = ["--scenario", "json-rpc-2.0/misnamed-params", "--variation", variation];
        hub.run("check", &one).assert_exit_code(0).out
    };
    assert!(varied("member-order").contains("warn[same-answers]"), "{}", varied("member-order"));
    assert!(!varied("white-space").contains("warn["), "{}", varied("white-space"));
}

/// Questions of a client with a name, and a prelude that asks another.
const TALK_PACK: [(&str, &str); 4] = [
    ("asyncapi.yaml", include_str!("../fixtures/documents/small_talk.yaml")),
    (
        "rules.yaml",
        "document: none\nrules: { MUST: { level: must, basis: stated, line: 1, text: A rule., demands: [answer] } }\n",
    ),
    (
        "scenarios/shared.yaml",
        r#"
roles:
  client:
    given: { name: "${unique('client')}" }
    opening:
      - connects:
scenes:
  noise:
    steps:
      - sends: ask
        with: { count: 0, name: "${self.name}" }
        as: asked
      - expects: answer
        after: asked
variations: { preludes: { noise: { client: noise } } }
"#,
    ),
    (
        "scenarios/talk.yaml",
        r#"
title: Every question is answered
actors: { anna: client }
steps:
  - anna joins:
  - each: number
    in: 5
    do:
      - anna sends: ask
        with: { count: "${number + 1}", name: "${anna.name}" }
        as: asked
      - anna expects: answer
        after: asked
        rules: [MUST]
      - wait: 20ms
        because: others may come meanwhile
"#,
    ),
];

/// A question: the connection, its number there, which one it is, and the name of the client.
struct Question<'a> {
    connection: usize,
    number: usize,
    is_noise: bool,
    name: &'a str,
}

/// What a hub remembers of questions.
#[derive(Default)]
struct Memory {
    /// The connections and names of clients that made noise.
    noisy: BTreeSet<(usize, String)>,
    /// The last question of any client.
    last: Option<(usize, bool, Instant)>,
}

/// Returns whether a hub answers a question.
type Answers = fn(memory: &Memory, question: &Question<'_>) -> bool;

/// What is wrong with each of these hubs shows with one variation, and not with another that resembles it.
#[rstest]
#[case::forgets_no_name("before-noise", "after-noise", |memory: &Memory, asked: &Question<'_>| {
    asked.is_noise || !memory.noisy.iter().any(|(place, name)| *place != asked.connection && name == asked.name)
})]
#[case::mute_after_late_noise("amid-noise", "after-noise", |memory: &Memory, asked: &Question<'_>| {
    let last = memory.last.filter(|(place, ..)| *place == asked.connection);
    asked.number < 3 || !last.is_some_and(|(_, is_noise, _)| is_noise)
})]
#[case::disturbed_by_others("beside-noise", "again", |memory: &Memory, asked: &Question<'_>| {
    let disturbed = memory.last.is_some_and(|(place, is_noise, _)| place != asked.connection && is_noise);
    asked.is_noise || asked.number == 0 || !disturbed
})]
#[case::mute_after_many("many-noise", "amid-noise", |_: &Memory, asked: &Question<'_>| {
    asked.is_noise || asked.number < 60
})]
#[case::forgets_silent_clients("pauses", "after-noise", |memory: &Memory, asked: &Question<'_>| {
    let idle = memory.last.filter(|(place, ..)| *place == asked.connection).map(|(.., at)| at.elapsed());
    idle.is_none_or(|idle| idle < Duration::from_secs(1))
})]
fn a_history_or_a_pause_shows_what_it_does(#[case] variation: &str, #[case] other: &str, #[case] answers: Answers) {
    let memory = Mutex::new(Memory::default());
    let hub = ScriptedHub::start(move |connection, number, text| {
        let asked: serde_json::Value = serde_json::from_str(text).unwrap();
        let (is_noise, name) = (asked["count"] == 0, asked["name"].as_str().unwrap_or_default());
        let mut memory = memory.lock().unwrap();
        let answered = answers(&memory, &Question { connection, number, is_noise, name });
        if is_noise {
            memory.noisy.insert((connection, name.to_owned()));
        }
        memory.last = Some((connection, is_noise, Instant::now()));
        answered.then(|| r#"{"type":"answer"}"#.to_owned()).into_iter().collect()
    });
    let done = check_talk(&hub, variation).assert_exit_code(1);
    assert!(done.out.contains("fail[MUST]") && done.out.contains(&format!(" with {variation}")), "{}", done.out);
    check_talk(&hub, other).assert_exit_code(0);
}

/// Plays the questions with a variation.
fn check_talk(hub: &ScriptedHub, variation: &str) -> ProcessResult {
    check_talk_with(hub, &["--variation", variation])
}

fn check_talk_with(hub: &ScriptedHub, more: &[&str]) -> ProcessResult {
    check_talk_where(hub, &["talk"], "", more)
}

/// Plays the questions in scenarios of these names. Their answers have to match.
fn check_talk_where(hub: &ScriptedHub, scenarios: &[&str], matches: &str, more: &[&str]) -> ProcessResult {
    let folder = tempfile::tempdir().unwrap();
    let [pack @ .., (_, talk)] = TALK_PACK;
    let talks = scenarios.iter().map(|name| (format!("scenarios/{name}.yaml"), talk));
    for (name, text) in pack.map(|(name, text)| (name.to_owned(), text)).into_iter().chain(talks) {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.replace("        after: asked\n", &format!("        after: asked\n{matches}")))
            .unwrap();
    }
    let pack = folder.path().to_str().unwrap();
    let url = hub.url();
    let check = ["check", &url, "--pack", pack, "--set", "patience=500ms"];
    hubproof(check.iter().chain(more))
}

/// A hub that answers each question but some of those that come at once.
#[rstest]
#[case::loses_one("many-noise", 40, None, Some("received 64 of 65 times; no answer"))]
#[case::loses_one_of_hundreds("hundreds-noise", 200, None, Some("received 256 of 257 times; no answer"))]
#[case::loses_one_of_hundreds_only("many-noise", 200, None, None)]
#[case::refuses_one("many-noise", 40, Some("notice"), None)]
#[case::refuses_one_as_the_document_does_not_say("many-noise", 40, Some("strange"), None)]
#[case::never_answers("many-noise", 0, None, None)]
fn a_request_that_is_lost_among_many_is_noticed(
    #[case] variation: &str,
    #[case] lost: usize,
    #[case] instead: Option<&'static str>,
    #[case] shown: Option<&str>,
) {
    let hub = ScriptedHub::start(move |_, number, text| {
        let is_noise = text.contains(r#""count":0"#);
        let is_lost = is_noise && (number == lost || lost == 0);
        let name = if is_lost { instead } else { Some("answer") };
        name.map(|name| format!(r#"{{"type":"{name}"}}"#)).into_iter().collect()
    });
    let done = check_talk(&hub, variation).assert_exit_code(0);
    assert_eq!(done.out.contains("warn[same-result]"), shown.is_some(), "{}", done.out);
    let words = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.is_none_or(|shown| words.contains(shown)), "{}", done.out);
}

fn answer_to(count: &Value) -> String {
    json!({ "type": "answer", "count": count }).to_string()
}

/// What a hub answers to two questions in one segment, and whether that is noticed where answers name their questions.
#[rstest]
#[case::in_order(|asked: &[Value]| vec![answer_to(&asked[0]), answer_to(&asked[1])], false)]
#[case::the_other_way_round(|asked: &[Value]| vec![answer_to(&asked[1]), answer_to(&asked[0])], false)]
#[case::only_the_first(|asked: &[Value]| vec![answer_to(&asked[0])], true)]
#[case::only_the_latest(|asked: &[Value]| vec![answer_to(&asked[1])], true)]
#[case::the_first_twice(|asked: &[Value]| vec![answer_to(&asked[0]); 2], true)]
#[case::the_latest_twice(|asked: &[Value]| vec![answer_to(&asked[1]); 2], true)]
#[case::refuses_one(|asked: &[Value]| vec![answer_to(&asked[0]), r#"{"type":"notice"}"#.to_owned()], false)]
#[case::refuses_one_as_the_document_does_not_say(|asked: &[Value]| vec![r#"{"no":1}"#.to_owned(), answer_to(&asked[1])], false)]
#[case::refuses_one_with_an_answer(|asked: &[Value]| vec![answer_to(&asked[0]), answer_to(&json!(null))], false)]
#[case::refuses_both(|_: &[Value]| Vec::new(), false)]
fn a_hub_that_mixes_up_two_requests_of_a_segment_is_noticed(
    #[case] answers: fn(&[Value]) -> Vec<String>,
    #[case] noticed: bool,
) {
    let hub = ScriptedHub::by_segments(move |texts| {
        let asked = texts.iter().map(|text| serde_json::from_str::<Value>(text).unwrap()["count"].clone());
        match asked.collect::<Vec<_>>().as_slice() {
            [one] => vec![answer_to(one)],
            both => answers(both),
        }
    });
    let play = |variation, matches| {
        // In one of both, the prelude sends first.
        let done = check_talk_where(&hub, &["talk", "talks"], matches, &["--variation", variation]).assert_exit_code(0);
        done.out.contains("warn[same-result]")
    };
    let by_count = "        where: { count: \"${asked.count}\" }\n";
    assert_eq!(play("pipelined-noise", by_count), noticed);
    // Either may be the answer to the other, or nothing is asked at once.
    assert!(!play("pipelined-noise", "") && !play("amid-noise", by_count));
}

/// The numbers of the questions that leave in one write; the prelude asks 0.
#[test]
fn a_request_and_that_of_a_prelude_leave_in_one_write() {
    let (shared, question) = (TALK_PACK[2].1, "  - a sends: ask\n    with: { count: 7 }\n  - a expects: answer\n");
    let program = mini_program(
        shared,
        &format!("title: T\nactors: {{ a: client }}\nsteps:\n  - a joins:\n{}", question.repeat(3)),
    );
    let variation = Some("pipelined-noise".parse().unwrap());
    let mut conversation =
        Conversation::new(program, ConversationConfig { variation, ..conversation_config(BTreeMap::new()) });
    conversation.start(Duration::ZERO);
    let upgraded = ConnectionEvent::Upgraded { status: 101, headers: Vec::new(), subprotocol: None };
    let answer = || text_received(r#"{"type":"answer"}"#);
    let mut writes = Vec::new();
    for what in [upgraded, answer(), answer(), answer(), answer()] {
        let input = ConversationInput::Received { connection: 0, what };
        for output in conversation.handle(Duration::ZERO, input) {
            if let ConversationOutput::Send { frames, .. } = output {
                let count = |frame: &Frame| serde_json::from_slice::<Value>(&frame.payload).unwrap()["count"].clone();
                writes.push(frames.iter().map(count).collect::<Vec<_>>());
            }
        }
    }
    assert_eq!(json!(writes), json!([[0, 7], [7, 0], [0, 7]]));
}

#[test]
fn a_run_says_how_many_pairs_of_scenario_and_prelude_it_played() {
    let hub = ScriptedHub::start(|_, _, _| vec![r#"{"type":"answer"}"#.to_owned()]);
    let play = |more: &[&str]| check_talk_with(&hub, more).assert_exit_code(0).out;
    let played = "preludes    1 of 1 pairs of a scenario and a prelude were played";
    assert!(play(&["--depth", "thorough", "-v"]).contains(played));
    let only_one = play(&["--variation", "many-noise", "-v"]);
    assert!(!only_one.contains("pairs of a scenario and a prelude"), "{only_one}");
    let report: Value = serde_json::from_str(&play(&["--depth", "thorough", "--report", "json=-"])).unwrap();
    assert_eq!(report["protocols"][0]["preludes"], json!({ "played": 1, "possible": 1 }));
}

/// Returns when the client of the conversation asked for the second time, in simulated time. `joins` are the steps of
/// another client, which a hub greets.
fn second_question_at(joins: &str) -> Duration {
    let conversation =
        CONVERSATION.replace("a: client", "a: client, b: client").replace("steps:\n", &format!("steps:\n{joins}"));
    let again = "  - a sends: ask\n  - a expects: answer\n";
    let answer = |input: &HubInput<'_>| {
        let delay = if input.text.is_some() { 0 } else { 100 };
        vec![(delay, input.connection, text_received(r#"{"type":"answer"}"#))]
    };
    let report = play_varied("pauses".parse().unwrap(), PLAIN_ROLES, &format!("{conversation}{again}"), answer);
    assert!(report.mistake.is_none() && report.cause.is_none(), "{report:#?}");
    let is_question = |frame: &&FrameReport| frame.direction == HistoryDirection::Sent && frame.text.contains("ask");
    report.history.iter().filter(is_question).map(|frame| frame.at).nth(1).unwrap()
}

#[rstest]
#[case::alone("", 1500)]
#[case::beside_a_client_that_was_greeted("  - b joins:\n  - b expects: answer\n", 1600)]
#[case::beside_a_client_that_may_have_to_identify_itself("  - b joins:\n", 0)]
fn pauses_pass_no_deadline_of_a_new_client(#[case] joins: &str, #[case] expected: u64) {
    assert_eq!(second_question_at(joins), Duration::from_millis(expected));
}

#[test]
fn an_unknown_variation_is_a_mistake() {
    let done = hubproof(["check", "--protocol", "qi", "--variation", "after-lunch"]).assert_exit_code(2);
    assert!(done.err.contains("no protocol has a prelude `lunch`"), "{}", done.err);
    let done = hubproof(["check", "--protocol", "qi", "--variation", "backwards"]).assert_exit_code(2);
    assert!(done.err.contains("write one of member-order"), "{}", done.err);
}

#[test]
fn an_exception_for_an_unknown_scenario_is_a_mistake() {
    let except = "variations: { except: [ { scenarios: [talk1], because: it waits } ] }\n";
    let found = mini_scenario_diagnostics(&format!("{PLAIN_ROLES}{except}"), "title: T\nsteps: []\n");
    assert!(found.contains("there is no scenario `talk1`"), "{found}");
    assert!(found.contains("`talk0`"), "{found}");
    let right = except.replace("talk1", "talk0").replace("except: [ { ", "except: [ { variations: [beside, pauses], ");
    let right = format!("{PLAIN_ROLES}{right}");
    assert_eq!(mini_scenario_diagnostics(&right, "title: T\nsteps: []\n"), "");
}

/// Plays all variations and the walks of an example pack against its hub, and compares the walks with a hub without bugs.
/// Returns `None` on a machine without Python.
fn check_example(pack: &str, bug: &[&str], scenario: &str) -> Option<ProcessResult> {
    let (hub, other) = (ExampleHub::start(pack, bug)?, ExampleHub::start(pack, &[])?);
    Some(hub.run("check", &["--depth", "thorough", "--against", &other.url, "--scenario", scenario]))
}

#[rstest]
#[ignore = "thorough: waits for real time"]
fn a_pack_without_a_model_is_varied_and_compared_with_another_hub(
    #[values("graphql-transport-ws", "json-rpc-2.0", "ocpp-1.6j")] pack: &str,
) {
    let Some(done) = check_example(pack, &[], &format!("{pack}/*")) else { return };
    let done = done.assert_exit_code(0);
    assert!(!done.out.contains("warn["), "{}", done.out);
}

/// Some walks stop early: a client comes back, and another has taken its name.
#[test]
#[ignore = "thorough: waits for real time"]
fn the_reference_server_passes_all_walks() {
    let done = hubproof(["check", "--depth", "thorough", "--scenario", "*/walk-*"]);
    // A busy machine may leave a walk undecided (3), which accuses no hub.
    assert!(matches!(done.code, Some(0 | 3)), "{done:?}");
    assert!(done.out.matches("\nPASS ").count() >= 3, "{}", done.out);
    assert!(!done.out.contains("warn["), "{}", done.out);
}

#[test]
#[ignore = "thorough: waits for real time"]
fn walks_show_a_difference_from_another_hub() {
    let Some(done) = check_example("json-rpc-2.0", &["--bug", "deaf-after-error"], "json-rpc-2.0/walk-*") else {
        return;
    };
    assert!(done.out.contains("warn[as-the-model]"), "{}", done.out);
}

#[test]
fn only_walks_are_compared_with_another_hub() {
    let done = hubproof(["check", "--protocol", "qi", "--against", "ws://127.0.0.1:9"]).assert_exit_code(2);
    assert!(done.err.contains("add `--depth thorough`"), "{}", done.err);
}
