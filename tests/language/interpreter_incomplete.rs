//! Verdicts if frames are unknown or dropped, and how close waits come to their timeouts.

use std::sync::Arc;
use std::time::Duration;

use hubproof::interpreter::{Conversation, ConversationConfig, ConversationInput, ConversationOutput};
use hubproof::outcome::{ScenarioReport, Verdict};
use hubproof::syntax::source::Sources;
use hubproof::websocket::frame::{AssembledMessage, ConnectionEvent};
use rstest::rstest;
use serde_json::json;

use crate::support::disk;
use crate::support::sim_connection::{SimulatedProtocol, conversation_config};

const FAILURE_REPLY: &str = r#"{"status":"failure","payload":"no","version":"0.1.0"}"#;
const SUCCESS_REPLY: &str = r#"{"status":"success","payload":{},"version":"0.1.0"}"#;
const UNVERSIONED_REPLY: &str = r#"{"status":"success","payload":{}}"#;
const UNDECODABLE_REPLY: &str = r#"{"status":"success","payload":{"n":1e999},"version":"0.1.0"}"#;

/// Starts a conversation of callers.
fn start_conversation(steps: &str) -> Conversation {
    let mut conversation = conversation("qi", "{ caller: caller, other: caller, both: [caller, other] }", steps);
    conversation.start(Duration::ZERO);
    conversation
}

fn conversation(protocol: &str, actors: &str, steps: &str) -> Conversation {
    let mut sources = Sources::default();
    let mut folder = disk::protocol_folder(protocol, &mut sources);
    let text = format!("title: Received frames are seen\nactors: {actors}\nsteps:\n{steps}");
    let file = sources.add("scenarios/doubt.yaml", text);
    folder.scenarios.insert("doubt.yaml".to_owned(), file);
    let protocol = SimulatedProtocol::from_folder(&folder, sources);
    let program = protocol.scenarios.programs.iter().find(|program| program.id.ends_with("/doubt")).unwrap();
    let config = ConversationConfig {
        patience: Duration::from_secs(4),
        settle_after_connect: Duration::ZERO,
        ..conversation_config(protocol.settings(program))
    };
    Conversation::new(Arc::clone(program), config)
}

/// Plays `steps` on a hub that upgrades at once and sends each of these texts after its delay in milliseconds.
fn play_scripted_texts(steps: &str, says: impl IntoIterator<Item = (u64, String)>) -> ScenarioReport {
    let mut conversation = start_conversation(steps);
    let upgraded = || ConnectionEvent::Upgraded { status: 101, headers: Vec::new(), subprotocol: None };
    for connection in 0..2 {
        conversation.handle(Duration::ZERO, ConversationInput::Received { connection, what: upgraded() });
    }
    for (at, text) in says {
        let at = Duration::from_millis(at);
        while let Some(deadline) = conversation.deadline().filter(|deadline| *deadline < at) {
            conversation.handle(deadline, ConversationInput::Tick);
        }
        let what = ConnectionEvent::Message(AssembledMessage { binary: false, payload: text.into_bytes(), frames: 1 });
        conversation.handle(at, ConversationInput::Received { connection: 0, what });
    }
    while !conversation.is_finished() {
        let deadline = conversation.deadline().unwrap();
        conversation.handle(deadline, ConversationInput::Tick);
    }
    conversation.into_report()
}

fn verdict(report: &ScenarioReport, name: &str) -> Verdict {
    report.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{:?}", report.checks)).verdict
}

const JOIN_STEPS: &str = "  - caller joins:\n  - other joins:\n";
const EXPECT_STEP: &str = "  - caller expects: any\n    where: { status: success }\n    rules: [QI-025]\n";
const EXPECT_NOTHING_STEP: &str = "  - caller expects nothing: base_reply_success\n    rules: [QI-025]\n";
const ONE_OF_STEP: &str =
    "  - caller expects one of:\n      - message: base_reply_success\n      - nothing:\n    rules: [QI-025]\n";
const EXACTLY_ONE_STEP: &str = "  - exactly 1 of both expect: base_reply_success\n    for: 1s\n    rules: [QI-025]\n";

const EXPECT_FAILURE_STEP: &str = "  - caller expects: base_reply_failure\n    rules: [QI-025]\n";
const EXPECT_NO_FAILURE_STEP: &str = "  - caller expects nothing: base_reply_failure\n    rules: [QI-025]\n";

/// A frame that cannot be decoded may be the expected or the forbidden one, unless its members show that it is another
/// message.
#[rstest]
#[case::came(EXPECT_STEP, &[FAILURE_REPLY, SUCCESS_REPLY], Verdict::Pass)]
#[case::did_not_come(EXPECT_STEP, &[FAILURE_REPLY], Verdict::Fail)]
#[case::may_have_come(EXPECT_STEP, &[UNDECODABLE_REPLY], Verdict::Inconclusive)]
#[case::came_all_the_same(EXPECT_STEP, &[UNDECODABLE_REPLY, SUCCESS_REPLY], Verdict::Pass)]
#[case::silence(EXPECT_NOTHING_STEP, &[FAILURE_REPLY], Verdict::Pass)]
#[case::no_silence(EXPECT_NOTHING_STEP, &[UNDECODABLE_REPLY, SUCCESS_REPLY], Verdict::Fail)]
#[case::maybe_silence(EXPECT_NOTHING_STEP, &[UNDECODABLE_REPLY], Verdict::Inconclusive)]
#[case::one_of_two_actors(EXACTLY_ONE_STEP, &[SUCCESS_REPLY], Verdict::Pass)]
#[case::none_of_two_actors(EXACTLY_ONE_STEP, &[FAILURE_REPLY], Verdict::Fail)]
#[case::maybe_one_of_two_actors(EXACTLY_ONE_STEP, &[UNDECODABLE_REPLY], Verdict::Inconclusive)]
#[case::nothing_of_two(ONE_OF_STEP, &[FAILURE_REPLY], Verdict::Pass)]
#[case::maybe_nothing_of_two(ONE_OF_STEP, &[UNDECODABLE_REPLY], Verdict::Inconclusive)]
#[case::another_came(EXPECT_FAILURE_STEP, &[UNDECODABLE_REPLY], Verdict::Fail)]
#[case::silence_but_for_another(EXPECT_NO_FAILURE_STEP, &[UNDECODABLE_REPLY], Verdict::Pass)]
fn an_undecodable_frame_leaves_checks_undecided(#[case] step: &str, #[case] says: &[&str], #[case] expected: Verdict) {
    let report = play_scripted_texts(&format!("{JOIN_STEPS}{step}"), says.iter().map(|text| (50, (*text).to_owned())));
    assert_eq!(verdict(&report, "QI-025"), expected, "{report:#?}");
    let unread = says.contains(&UNDECODABLE_REPLY);
    assert_eq!(report.checks.iter().any(|check| check.name == "websocket"), unread);
    assert!(!unread || verdict(&report, "websocket") == Verdict::Inconclusive);
}

/// A typo of the pack accuses no hub, wherever it stands; a member that the document demands is the hub's to send.
#[rstest]
#[case::right("done.status == 'success'", SUCCESS_REPLY, Verdict::Pass)]
#[case::wrong_value("done.status == 'failure'", SUCCESS_REPLY, Verdict::Fail)]
#[case::unknown_member("done.state == 'success'", SUCCESS_REPLY, Verdict::Inconclusive)]
#[case::unknown_member_alone("done.state", SUCCESS_REPLY, Verdict::Inconclusive)]
#[case::member_of_a_text("done.status.value == 'success'", SUCCESS_REPLY, Verdict::Inconclusive)]
#[case::member_of_a_text_alone("done.status.value", SUCCESS_REPLY, Verdict::Inconclusive)]
#[case::member_that_the_document_leaves_open("done.payload.count == 1", SUCCESS_REPLY, Verdict::Fail)]
#[case::demanded_member("done.version == '0.1.0'", UNVERSIONED_REPLY, Verdict::Fail)]
#[case::demanded_member_alone("done.version", UNVERSIONED_REPLY, Verdict::Fail)]
fn a_mistake_in_an_expression_accuses_no_hub(#[case] check: &str, #[case] says: &str, #[case] expected: Verdict) {
    let steps = format!(
        "{JOIN_STEPS}  - caller expects: any\n    as: done\n  - check: \"${{{check}}}\"\n    rules: [QI-025]\n"
    );
    let report = play_scripted_texts(&steps, [(50, says.to_owned())]);
    assert_eq!(verdict(&report, "QI-025"), expected, "{report:#?}");
}

/// The inbox keeps the end of a flood. A frame that was expected meanwhile was seen; for others this is unknown.
#[rstest]
#[case::seen_as_it_came(format!("{JOIN_STEPS}{EXPECT_STEP}"), true, Verdict::Pass)]
#[case::awaited_too_late(format!("{JOIN_STEPS}  - wait: 1s\n    because: the flood passes\n{EXPECT_STEP}"), true, Verdict::Inconclusive)]
#[case::not_among_what_was_seen(format!("{JOIN_STEPS}{EXPECT_STEP}"), false, Verdict::Fail)]
fn a_flood_drops_only_frames_that_no_step_waits_for(
    #[case] steps: String,
    #[case] replies: bool,
    #[case] expected: Verdict,
) {
    let reply = replies.then(|| SUCCESS_REPLY.to_owned());
    let flood = std::iter::repeat_n(FAILURE_REPLY.to_owned(), 10_100);
    let report = play_scripted_texts(&steps, reply.into_iter().chain(flood).map(|text| (10, text)));
    assert_eq!(verdict(&report, "QI-025"), expected, "{:?} {:?}", report.cause, report.leftovers);
}

/// Of long messages the text is kept, and read again.
#[test]
fn long_replies_are_kept_until_a_step_expects_them() {
    let long = format!(r#"{{"version":"0.1.0","status":"success","payload":{{"list":[{}0]}}}}"#, "0,".repeat(40_000));
    let steps = format!("{JOIN_STEPS}  - wait: 1s\n    because: all replies come\n{EXPECT_STEP}");
    let reply = SUCCESS_REPLY.to_owned();
    let report = play_scripted_texts(
        &steps,
        std::iter::once(reply).chain(std::iter::repeat_n(long, 200)).map(|text| (10, text)),
    );
    assert_eq!(verdict(&report, "QI-025"), Verdict::Pass, "{:?} {:?}", report.cause, report.leftovers);
}

/// A wrong 101 breaks RFC 6455, unless the request had changed headers; any other answer may come from a proxy, or be a
/// refusal of the hub.
#[rstest]
#[case::wrong_101("", refused_upgrade(101), Verdict::Fail, Some(Verdict::Fail))]
#[case::changed_header("    headers: { Sec-WebSocket-Key: short }\n", refused_upgrade(101), Verdict::Fail, None)]
#[case::no_such_path("", refused_upgrade(404), Verdict::Fail, None)]
#[case::redirect("", refused_upgrade(302), Verdict::Inconclusive, None)]
#[case::busy("", refused_upgrade(429), Verdict::Inconclusive, None)]
#[case::broken("", refused_upgrade(500), Verdict::Inconclusive, None)]
#[case::no_http("", ConnectionEvent::NoUpgrade { reason: "r".to_owned(), bound: false }, Verdict::Fail, Some(Verdict::Fail))]
#[case::too_much("", ConnectionEvent::NoUpgrade { reason: "r".to_owned(), bound: true }, Verdict::Inconclusive, Some(Verdict::Inconclusive))]
fn a_refused_upgrade_is_a_failure_only_if_a_proxy_cannot_have_sent_it(
    #[case] how: &str,
    #[case] answer: ConnectionEvent,
    #[case] of_the_step: Verdict,
    #[case] of_the_framing: Option<Verdict>,
) {
    let mut conversation = start_conversation(&format!("  - caller connects:\n{how}    rules: [QI-025]\n"));
    conversation.handle(Duration::ZERO, ConversationInput::Received { connection: 0, what: answer });
    assert!(conversation.is_finished());
    let report = conversation.into_report();
    assert_eq!(verdict(&report, "QI-025"), of_the_step);
    let framing = report.checks.iter().find(|check| check.name == "websocket");
    assert_eq!(framing.map(|check| check.verdict), of_the_framing);
}

fn refused_upgrade(status: u16) -> ConnectionEvent {
    ConnectionEvent::Refused { status, headers: Vec::new(), body: Vec::new(), reason: "r".to_owned() }
}

/// The reported share is the largest of all waits that ended in time.
#[rstest]
#[case::at_once(EXPECT_STEP, 0, Some(("caller expects: any", 0, 4000)))]
#[case::late(EXPECT_STEP, 3000, Some(("caller expects: any", 3000, 4000)))]
#[case::in_vain(EXPECT_STEP, 5000, Some(("connects", 0, 4000)))]
#[case::silence(EXPECT_NOTHING_STEP, 5000, Some(("connects", 0, 4000)))]
fn the_wait_closest_to_its_timeout_is_reported(
    #[case] step: &str,
    #[case] at: u64,
    #[case] expected: Option<(&str, u64, u64)>,
) {
    let report = play_scripted_texts(&format!("{JOIN_STEPS}{step}"), [(at, SUCCESS_REPLY.to_owned())]);
    let ms = |time: Duration| time.as_millis() as u64;
    let found = report.waits.slimmest.as_ref().map(|found| (found.step.as_str(), ms(found.waited), ms(found.bound)));
    match expected {
        // Of several with a share of zero, any may be reported.
        Some((_, 0, bound)) => assert_eq!(found.map(|(_, waited, bound)| (waited, bound)), Some((0, bound))),
        expected => assert_eq!(found, expected),
    }
}

#[test]
fn a_retry_counts_as_a_wait_but_a_may_or_a_look_up_does_not() {
    let retry = "  - retry: 2s\n    do:\n      - caller expects: any\n        where: { status: success }\n        within: 100ms\n";
    let report = play_scripted_texts(&format!("{JOIN_STEPS}{retry}"), [(900, SUCCESS_REPLY.to_owned())]);
    let slimmest = report.waits.slimmest.unwrap();
    assert_eq!((slimmest.step.as_str(), slimmest.bound), ("retry: 2s", Duration::from_secs(2)));
    assert_eq!(slimmest.waited, Duration::from_millis(900));
    let allowed = "  - caller expects: any\n    rules: [QI-031]\n";
    let report = play_scripted_texts(&format!("{JOIN_STEPS}{allowed}"), [(299, SUCCESS_REPLY.to_owned())]);
    assert_eq!(report.waits.slimmest.unwrap().waited, Duration::ZERO);
    let looked_up = "  - wait: 1s\n    because: it has come by then\n  - caller expects: any\n    within: 0s\n    rules: [QI-025]\n";
    let report = play_scripted_texts(&format!("{JOIN_STEPS}{looked_up}"), [(900, SUCCESS_REPLY.to_owned())]);
    assert_eq!(
        (verdict(&report, "QI-025"), report.waits.slimmest.unwrap().bound),
        (Verdict::Pass, Duration::from_secs(4))
    );
}

/// A hook is called again while its answer does not match. A slow one is called for the last time just before the end
/// of the wait, and its answer still counts.
#[rstest]
#[case::fits_never(100, None, Verdict::Fail)]
#[case::fits_at_last(60, Some(3_700), Verdict::Pass)]
#[case::answers_never(60_000, None, Verdict::Inconclusive)]
fn a_hook_called_in_time_may_answer_later(#[case] takes: u64, #[case] fits: Option<u64>, #[case] expected: Verdict) {
    let step = "  - hook: log_entries\n    args: { message: x }\n    where: { /0: true }\n    rules: [GAT-029]\n";
    for later in 0..40 {
        let takes = Duration::from_millis(takes + later);
        let mut conversation = conversation("gator", "{ task: task }", step);
        let mut now = Duration::ZERO;
        let mut asked = None;
        let mut outputs = conversation.start(now);
        while !conversation.is_finished() {
            for output in outputs {
                if let ConversationOutput::Hook { call, .. } = output {
                    asked = Some((now + takes, call));
                }
            }
            let deadline = conversation.deadline().unwrap();
            let input = match asked.take_if(|(at, _)| *at <= deadline) {
                Some((at, call)) => {
                    now = at;
                    let there = fits.is_some_and(|fits| now >= Duration::from_millis(fits));
                    let answer = Ok(if there { json!([{}]) } else { json!([]) });
                    ConversationInput::HookAnswer { call, answer }
                }
                None => {
                    now = deadline;
                    ConversationInput::Tick
                }
            };
            outputs = conversation.handle(now, input);
        }
        assert_eq!(verdict(&conversation.into_report(), "GAT-029"), expected, "{takes:?}");
    }
}

/// The calls of a burst begin together, each with its number. The step waits for all answers, as long as they keep
/// coming, and binds them in the order of the calls; the number of the loop around it stays as it was.
#[rstest]
#[case::all_answer(3_000, None, Verdict::Pass)]
#[case::one_fails(3_000, Some(1), Verdict::Inconclusive)]
#[case::silence(5_000, None, Verdict::Inconclusive)]
fn a_hook_is_called_several_times_at_once(#[case] pause: u64, #[case] fails: Option<u32>, #[case] expected: Verdict) {
    let steps = "  - each: turn
    in: 2
    do:
      - hook: log_entries
        times: 3
        args: { message: \"call ${index}\" }
        as: answers
      - check: \"${[index == turn, answers]}\"
        equals: [true, [\"call 0\", \"call 1\", \"call 2\"]]
        rules: [GAT-029]\n";
    let mut conversation = conversation("gator", "{ task: task }", steps);
    let mut now = Duration::ZERO;
    let mut outputs = conversation.start(now);
    while !conversation.is_finished() {
        let calls: Vec<_> = outputs
            .into_iter()
            .filter_map(|output| match output {
                ConversationOutput::Hook { call, args, .. } => Some((call, args["message"].clone())),
                _ => None,
            })
            .collect();
        assert!([0, 3].contains(&calls.len()), "{calls:?}");
        outputs = Vec::new();
        // The last call is answered first.
        for (call, message) in calls.into_iter().rev() {
            now += Duration::from_millis(pause);
            while let Some(deadline) = conversation.deadline().filter(|deadline| *deadline < now) {
                outputs.extend(conversation.handle(deadline, ConversationInput::Tick));
            }
            let fails = fails.is_some_and(|index| message == format!("call {index}"));
            let answer = if fails { Err("refused".to_owned()) } else { Ok(message) };
            outputs.extend(conversation.handle(now, ConversationInput::HookAnswer { call, answer }));
        }
        if outputs.is_empty() && !conversation.is_finished() {
            now = conversation.deadline().unwrap();
            outputs = conversation.handle(now, ConversationInput::Tick);
        }
    }
    let report = conversation.into_report();
    assert_eq!(verdict(&report, "GAT-029"), expected, "{report:#?}");
    let why = report.cause.map(|cause| cause.message).unwrap_or_default();
    let shown = if fails.is_some() { "the hook `log_entries` failed in call 2 of 3: refused" } else { "" };
    assert!(why.contains(shown), "{why}");
}
