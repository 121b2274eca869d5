//! The interpreter against random behaviour of a hub: it never panics, always ends, and reports every check.

use std::sync::Arc;
use std::time::Duration;

use hubproof::interpreter::{Conversation, ConversationInput, ConversationOutput};
use hubproof::outcome::{ScenarioReport, Verdict};
use hubproof::scenario::Program;
use hubproof::syntax::source::Sources;
use hubproof::websocket::frame::{AssembledMessage, ConnectionEvent};
use proptest::prelude::*;
use rstest::rstest;

use crate::support::disk;
use crate::support::sim_connection::{SimulatedProtocol, conversation_config};

/// A random action of a hub on one of its connections.
#[derive(Clone, Debug)]
enum HubAction {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    Violation(bool),
    End,
    /// Sends the last received text back.
    Echo,
    Pass(u64),
}

fn hub_action() -> impl Strategy<Value = HubAction> {
    prop_oneof![
        4 => proptest::sample::select(FRAMES).prop_map(|text| HubAction::Text(text.to_owned())),
        1 => ".{0,40}".prop_map(HubAction::Text),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(HubAction::Binary),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(HubAction::Pong),
        1 => proptest::option::of(any::<u16>()).prop_map(HubAction::Close),
        1 => any::<bool>().prop_map(HubAction::Violation),
        1 => Just(HubAction::End),
        2 => Just(HubAction::Echo),
        3 => (0u64..2000).prop_map(HubAction::Pass),
    ]
}

/// Valid and invalid frames of the concierge, and texts that are not messages.
const FRAMES: &[&str] = &[
    r#"{"type":"HELLO","uuid":"73fcc768-d724-47e2-a101-a45298188f47","version":"0.1.0"}"#,
    r#"{"type":"HELLO"}"#,
    r#"{"type":"STATUS","code":"OK"}"#,
    r#"{"type":"STATUS","code":"MESSAGE_SENT","seq":2}"#,
    r#"{"type":"STATUS","code":"GROUP_CREATED","name":"group_p_0","owner_uuid":"x","subscribers":[],"seq":1}"#,
    r#"{"type":"STATUS","code":7}"#,
    r#"{"type":"SELF_FETCH_RESULT","name":"n","uuid":"u","tags":[],"subscriptions":[],"seq":"one"}"#,
    r#"{"type":"MESSAGE","origin":{},"target":{"type":"ALL"},"data":null}"#,
    "[]",
    "null",
    "{",
    "1e400",
    r#""\ud800""#,
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// Plays a program against a hub that does these actions, one after another, and then sends nothing.
fn play_against_actions(
    program: &Arc<Program>,
    settings: std::collections::BTreeMap<String, serde_json::Value>,
    actions: &[(u8, HubAction)],
) -> ScenarioReport {
    let mut conversation = Conversation::new(Arc::clone(program), conversation_config(settings));
    let mut now = Duration::ZERO;
    let mut open: Vec<u32> = Vec::new();
    let mut last = String::from("{}");
    let mut outputs = conversation.start(now);
    let mut actions = actions.iter();
    for _ in 0..100_000 {
        let mut inputs = Vec::new();
        for output in std::mem::take(&mut outputs) {
            match output {
                ConversationOutput::Open { connection, .. } => {
                    open.push(connection);
                    let what = ConnectionEvent::Upgraded { status: 101, headers: Vec::new(), subprotocol: None };
                    inputs.push(ConversationInput::Received { connection, what });
                }
                ConversationOutput::Send { frames, .. } => {
                    if let Some(frame) = frames.last() {
                        last = String::from_utf8_lossy(&frame.payload).into_owned();
                    }
                }
                ConversationOutput::Hook { call, .. } => {
                    inputs.push(ConversationInput::HookAnswer { call, answer: Err("none".to_owned()) })
                }
                _ => {}
            }
        }
        if inputs.is_empty() {
            if conversation.is_finished() {
                return conversation.into_report();
            }
            match actions.next() {
                Some((which, action)) if !open.is_empty() => {
                    let connection = open[usize::from(*which) % open.len()];
                    let text = |text: &str| {
                        ConnectionEvent::Message(AssembledMessage {
                            binary: false,
                            payload: text.as_bytes().to_vec(),
                            frames: 1,
                        })
                    };
                    let what = match action {
                        HubAction::Text(frame) => text(frame),
                        HubAction::Echo => text(&last),
                        HubAction::Binary(payload) => ConnectionEvent::Message(AssembledMessage {
                            binary: true,
                            payload: payload.clone(),
                            frames: 3,
                        }),
                        HubAction::Pong(data) => ConnectionEvent::Pong(data.clone()),
                        HubAction::Close(code) => ConnectionEvent::Close { code: *code, reason: "r".to_owned() },
                        HubAction::Violation(bound) => {
                            ConnectionEvent::Violation { what: "w".to_owned(), section: "5.1", bound: *bound }
                        }
                        HubAction::End => ConnectionEvent::End { reset: true, reason: "r".to_owned() },
                        HubAction::Pass(milliseconds) => {
                            now += Duration::from_millis(*milliseconds);
                            inputs.push(ConversationInput::Tick);
                            outputs = inputs.drain(..).flat_map(|input| conversation.handle(now, input)).collect();
                            continue;
                        }
                    };
                    inputs.push(ConversationInput::Received { connection, what });
                }
                _ => {
                    now = now.max(conversation.deadline().expect("an unfinished conversation has a deadline"));
                    inputs.push(ConversationInput::Tick);
                }
            }
        }
        outputs = inputs.into_iter().flat_map(|input| conversation.handle(now, input)).collect();
    }
    panic!("{} never ends", program.id);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_hubs_never_make_the_interpreter_panic_or_hang(actions in proptest::collection::vec((any::<u8>(), hub_action()), 0..60), which in any::<prop::sample::Index>()) {
        let concierge = &*CONCIERGE;
        let program = which.get(&concierge.scenarios.programs);
        let settings = concierge.settings(program);
        let report = play_against_actions(program, settings, &actions);
        prop_assert!(report.mistake.is_none(), "{:?}", report.mistake);
        // Every check of the scenario has a result, whatever happened.
        for check in &program.checks {
            prop_assert!(report.checks.iter().any(|answered| answered.name == check.name), "{} is lost", check.name);
        }
        // A check that was never made has not passed.
        for check in report.checks.iter().filter(|check| check.verdict == Verdict::Pass) {
            prop_assert!(check.asked > 0, "{} passed unasked", check.name);
        }
        // A hub that does not greet cannot pass.
        prop_assert!(report.verdict != Verdict::Pass || actions.len() > 3, "{:?}", report.verdict);
    }
}

static CONCIERGE: std::sync::LazyLock<SimulatedProtocol> =
    std::sync::LazyLock::new(|| SimulatedProtocol::load("concierge"));

/// Against a hub that never sends anything, every scenario ends in bounded time, and none passes.
#[test]
fn no_scenario_passes_against_a_silent_hub() {
    for program in &CONCIERGE.scenarios.programs {
        let report = play_against_actions(program, CONCIERGE.settings(program), &[]);
        assert!(matches!(report.verdict, Verdict::Fail | Verdict::Inconclusive), "{} {:?}", report.id, report.verdict);
        assert!(report.duration < Duration::from_secs(60), "{} took {:?}", report.id, report.duration);
    }
}

/// A frame beyond the limits of decoding may be the greeting, so no check fails.
#[rstest]
#[case::number("1e400".to_owned())]
#[case::half_a_character(r#""\ud800""#.to_owned())]
#[case::half_a_character_more(r#""\ud800 and on""#.to_owned())]
#[case::depth("[".repeat(200) + &"]".repeat(200))]
fn an_undecodable_frame_fails_no_check(#[case] member: String) {
    let program = CONCIERGE.scenarios.programs.iter().find(|program| program.id == "concierge/greeting").unwrap();
    let greeting = format!(r#"{{"type":"HELLO","uuid":"u","version":"0.1.0","x":{member}}}"#);
    let report = play_against_actions(program, CONCIERGE.settings(program), &[(0, HubAction::Text(greeting))]);
    assert_eq!(report.verdict, Verdict::Inconclusive);
    let accused: Vec<_> = report.checks.iter().filter(|check| check.verdict == Verdict::Fail).collect();
    assert!(accused.is_empty(), "{accused:?}");
    assert!(report.cause.is_some_and(|cause| cause.message.contains("cannot decode")), "the cause is named");
}

#[test]
fn steps_under_finally_can_use_names_that_earlier_steps_bound() {
    let protocol = SimulatedProtocol::load("emprops");
    let program = protocol.scenarios.programs.iter().find(|program| program.id == "emprops/submission").unwrap();
    let report = protocol.play(program, None).unwrap();
    let cancelled = report.history.iter().filter(|frame| frame.text.contains(r#""type":"cancel_job""#)).count();
    assert_eq!(cancelled, 4, "one per accepted job");
}

/// The request in question is another client's message, or the one whose id a step names, and no fence in between.
#[rstest]
#[case::of_another_client("concierge-name-broadcast", "carl", Some("anna"), "MESSAGE")]
#[case::named_by_the_step("concierge-message-sent-missing", "anna", None, "MESSAGE")]
fn a_finding_names_the_request_that_it_is_about(
    #[case] fault: &str,
    #[case] actor: &str,
    #[case] sender: Option<&str>,
    #[case] request: &str,
) {
    let steps = "
  - everyone join:
  - anna sends: message_to_name
    with: { /target: { type: NAME, name: \"${ben.name}\" }, /data: { mark: \"${mark}\" } }
    as: sent
  - ben expects: message_relayed
    where: { data: { mark: \"${mark}\" } }
    rules: [CON-042]
  - everyone play: fence
  - carl expects nothing: message_relayed
    where: { data: { mark: \"${mark}\" } }
    for: 0s
    rules: [CON-042]
  - anna expects: status_message_sent
    after: sent
    rules: [CON-057]
";
    let actors = "{ anna: client, ben: client, carl: client, everyone: [anna, ben, carl] }";
    let text = format!("title: t\nactors: {actors}\nlet: {{ mark: \"${{unique('mark')}}\" }}\nsteps:{steps}");
    let mut sources = Sources::default();
    let mut folder = disk::protocol_folder("concierge", &mut sources);
    folder.scenarios.insert("asked.yaml".to_owned(), sources.add("scenarios/asked.yaml", text));
    let protocol = SimulatedProtocol::from_folder(&folder, sources);
    let program = protocol.scenarios.programs.iter().find(|program| program.id == "concierge/asked").unwrap();
    let report = protocol.play(program, Some(fault)).unwrap();
    let check = report.checks.iter().find(|check| check.verdict == Verdict::Fail && check.is_of_step()).unwrap();
    let detail = check.detail.as_ref().unwrap();
    assert_eq!((detail.actor.as_str(), detail.sender.as_deref()), (actor, sender), "{detail:?}");
    let sent: serde_json::Value = serde_json::from_str(detail.sent.as_ref().unwrap()).unwrap();
    assert_eq!((&sent["type"], sent["data"]["mark"].is_string()), (&request.into(), true), "{detail:?}");
}
