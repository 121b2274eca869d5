//! Proposed deviations: what a missing message is attributed to, what is no evidence, and which proposals a run that
//! explores confirms.

use hubproof::protocol::RuleLevel;
use hubproof::report::RuleStatus;
use hubproof::websocket::dial::Dial;
use hubproof::websocket::frame::ConnectionEvent;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::mini_protocol::{HubActions, HubInput, PlayedRounds, RoundOptions, run_rounds, text_received};

/// Returns a document in which `ask` and `beg` are answered with `answer`, `beg` also with `refusal`, `beat` with `tick`,
/// `tell` with nothing. `notice`, `news` and `refusal` come unasked.
fn with_replies(_: &str) -> String {
    include_str!("../fixtures/documents/replies.yaml").to_owned()
}

fn scenario(steps: &[&str]) -> String {
    let steps: String = steps.iter().map(|step| format!("  - {step}\n")).collect();
    format!("title: T\nactors: {{ anna: client, bob: client }}\nsteps:\n{steps}")
}

/// A hub that answers each text that contains a word with a text, and sends `greeting` on every connection.
fn answering<'h>(
    greeting: Option<&'h str>,
    answers: &'h [(&'h str, &'h str)],
) -> impl FnMut(&HubInput<'_>) -> HubActions + 'h {
    move |input| {
        let texts: Vec<&str> = match input.text {
            None => greeting.into_iter().collect(),
            Some(text) => answers.iter().filter(|(word, _)| text.contains(word)).map(|(_, answer)| *answer).collect(),
        };
        texts.into_iter().map(|text| (1, input.connection, text_received(text))).collect()
    }
}

const TICK: (&str, &str) = ("beat", r#"{"type":"tick"}"#);
const HOOKS: &str = "hooks: { emit: { about: something happens } }\n";

/// Removes what a proposal does not claim: the reason, the rules and the expressions.
fn claims(entries: Vec<Value>) -> Value {
    let bare = |mut entry: Value| {
        let members = entry.as_object_mut().unwrap();
        members.retain(|name, _| !["reason", "rules", "assume"].contains(&name.as_str()));
        entry
    };
    entries.into_iter().map(bare).collect()
}

fn absent_after(message: &str, after: &str) -> Value {
    json!([{ "message": message, "absent": true, "after": after }])
}

fn proposed(scenarios: &[&[&str]], options: &RoundOptions<'_>, hub: impl FnMut(&HubInput<'_>) -> HubActions) -> Value {
    let texts: Vec<String> = scenarios.iter().map(|steps| scenario(steps)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    claims(run_rounds(with_replies, &texts, options, hub).proposals())
}

#[rstest]
// The document says which request is answered, whatever was sent after it.
#[case::a_reply(&["anna sends: ask", "anna sends: beat", "anna expects: tick", "anna expects: answer"], absent_after("answer", "ask"))]
#[case::of_two_the_latest(&["anna sends: ask", "anna sends: beg", "anna expects: answer"], absent_after("answer", "beg"))]
#[case::of_two_the_one_with_the_value(
    &["anna sends: ask\n    with: { id: a7 }", "anna sends: beg\n    with: { id: a8 }", "anna expects: answer\n    where: { id: a7 }"],
    absent_after("answer", "ask")
)]
#[case::of_two_the_one_named(
    &["anna sends: ask\n    as: asked", "anna sends: beg", "anna expects: answer\n    after: asked"],
    absent_after("answer", "ask")
)]
#[case::never_requested(&["anna sends: tell", "anna expects: answer"], json!([]))]
#[case::requested_by_another(&["bob joins:", "bob sends: ask", "anna expects: answer"], json!([]))]
#[case::requested_on_another_connection(&["anna sends: ask", "anna connects:", "anna expects: answer"], json!([]))]
// A refusal that may also come unasked.
#[case::refused(&["anna sends: beg\n    with: { refuse: 1 }", "anna expects: answer"], json!([]))]
// An answer of some form, as it repeats the id of the request.
#[case::answered_in_another_form(&["anna sends: ask\n    with: { id: echo7 }", "anna expects: answer"], json!([]))]
// The document does not say what a notice follows.
#[case::undocumented(&["anna sends: tell", "anna expects: notice"], absent_after("notice", "tell"))]
#[case::before_a_heartbeat(
    &["anna sends: tell", "anna sends: beat", "anna expects: tick", "anna expects: notice"],
    absent_after("notice", "tell")
)]
#[case::raw(
    &[r#"anna sends raw: { text: '{"type":"ask"}' }"#, "anna expects: answer"],
    absent_after("answer", "ask")
)]
#[case::by_a_hook(&["anna sends: tell", "hook: emit", "anna expects: notice"], json!([]))]
#[case::by_another_client(&["bob joins:", "anna sends: tell", "bob sends: tell", "anna expects: notice"], json!([]))]
#[case::a_greeting(&["anna connects:", "anna expects: notice"], absent_after("notice", "connection"))]
#[case::a_greeting_after_a_hook(&["hook: emit", "anna expects: notice"], json!([]))]
fn a_missing_message_is_attributed_to_its_request_or_to_nothing(#[case] steps: &[&str], #[case] entries: Value) {
    let hub = answering(None, &[TICK, ("refuse", r#"{"type":"refusal"}"#), ("echo7", r#"{"re":"echo7","a":1}"#)]);
    let options = RoundOptions { shared: HOOKS, ..RoundOptions::default() };
    assert_eq!(proposed(&[&[&["anna joins:"], steps].concat()], &options, hub), entries);
}

/// A message that one scenario expects after `tell`, and another without any request.
#[test]
fn an_undocumented_cause_must_be_the_same_in_all_scenarios() {
    let told = ["anna joins:", "anna sends: tell", "anna expects: notice"];
    let untold = ["anna joins:", "bob joins:", "bob sends: tell", "anna expects: notice"];
    let found = |scenarios: &[&[&str]]| proposed(scenarios, &RoundOptions::default(), answering(None, &[]));
    assert_eq!(found(&[&told, &told]), absent_after("notice", "tell"));
    assert_eq!(found(&[&told, &untold]), json!([]));
    // Of documented requests, each is a proposal of its own.
    let [asked, begged] = ["ask", "beg"].map(|request| {
        [String::from("anna joins:"), format!("anna sends: {request}"), String::from("anna expects: answer")]
    });
    let [asked, begged] = [&asked, &begged].map(|steps| steps.each_ref().map(String::as_str));
    let both = json!([absent_after("answer", "beg")[0], absent_after("answer", "ask")[0]]);
    assert_eq!(found(&[&asked, &begged]), both);
}

/// The answer never comes and is assumed, with the number 5, which the hub does not know.
#[rstest]
#[case::in_where(&["anna sends: tell", "anna expects: notice\n    where: { n: \"${came.n}\" }"])]
#[case::in_has(&["anna sends: tell", "anna expects: notice\n    has: { MUST: { turn_no: \"${came.n}\" } }"])]
#[case::in_a_request(&["anna sends: tell\n    with: { n: \"${came.n}\", mute: 1 }", "anna expects: notice"])]
#[case::in_a_raw_request(&[r#"anna sends raw: { text: "{\"type\":\"ask\",\"n\":${came.n}}" }"#, "anna expects: notice"])]
#[case::in_the_request_of_another(&[
    "bob joins:",
    "anna sends: tell\n    with: { n: \"${came.n}\", mute: 1 }\n    as: given",
    "bob sends: tell\n    with: { n: \"${given.n}\", mute: 1 }",
    "bob expects: notice",
])]
fn nothing_that_rests_on_an_assumed_message_is_evidence(#[case] steps: &[&str]) {
    let declared = "[{ reason: r, message: answer, absent: true, after: ask, assume: { n: 5 } }]";
    let first: &[&str] = &["anna joins:", "anna sends: ask", "anna expects: answer\n    as: came"];
    let hub = |input: &HubInput<'_>| match input.text {
        Some(text) if text.contains("tell") && !text.contains("mute") => {
            vec![(1, input.connection, text_received(r#"{"type":"notice","turnNo":6,"who":"a","text":"b"}"#))]
        }
        _ => Vec::new(),
    };
    let options = RoundOptions { declared, ..RoundOptions::default() };
    assert_eq!(proposed(&[&[first, steps].concat()], &options, hub), json!([]));
    // Without the assumption, the same conversations are evidence.
    let real = |input: &HubInput<'_>| match input.text {
        Some(text) if text.contains("ask") && !text.contains('5') => {
            vec![(1, input.connection, text_received(r#"{"type":"answer","n":5}"#))]
        }
        _ => hub(input),
    };
    assert_ne!(proposed(&[&[first, steps].concat()], &RoundOptions::default(), real), json!([]));
}

const WELCOME: &str = r#"{"type":"welcome","v":1}"#;
const NEWS: &str = r#"{"type":"news"}"#;

#[rstest]
#[case::undocumented(Some(WELCOME), &[TICK], json!([{ "message": "notice", "instead": { "type": "welcome" } }]))]
#[case::documented(Some(NEWS), &[TICK], json!([{ "message": "notice", "instead": { "type": "news" } }]))]
// The other message also has its own meaning, so only the absence of the documented one is certain.
#[case::that_comes_again(Some(NEWS), &[("beat", NEWS), TICK], absent_after("notice", "connection"))]
#[case::that_is_a_reply(Some(r#"{"type":"refusal"}"#), &[TICK], absent_after("notice", "connection"))]
// The first message of the second connection is a reply, not a greeting.
#[case::none(None, &[TICK], absent_after("notice", "connection"))]
fn another_message_may_come_in_place_of_the_greeting(
    #[case] greeting: Option<&str>,
    #[case] answers: &[(&str, &str)],
    #[case] entries: Value,
    #[values(true, false)] by_name: bool,
) {
    let expects =
        if by_name { "anna expects: notice" } else { "anna expects: any\n    has: { MUST: { type: notice } }" };
    let steps = ["anna connects:", expects, "bob connects:", "bob sends: beat", "bob expects: tick"];
    let hub = answering(greeting, answers);
    // Without any first message, a step that expects any has nothing to judge.
    let entries = if by_name || greeting.is_some() { entries } else { json!([]) };
    assert_eq!(proposed(&[&steps], &RoundOptions::default(), hub), entries);
}

/// Connections begin with different messages, so none of them is the greeting.
#[test]
fn different_first_messages_are_no_greeting() {
    let steps = ["anna connects:", "anna expects: notice", "bob connects:", "bob sends: beat", "bob expects: tick"];
    let mut number = 0;
    let found = proposed(&[&steps], &RoundOptions::default(), |input| {
        number += 1;
        let greeting = format!(r#"{{"type":"first {number}","v":1}}"#);
        vec![(1, input.connection, text_received(if input.text.is_some() { TICK.1.to_owned() } else { greeting }))]
    });
    assert_eq!(found, absent_after("notice", "connection"));
}

/// Plays two equal scenarios, in rounds that explore, on a hub that is given the number of the conversation, from 1.
fn explored(steps: &[&str], mut hub: impl FnMut(usize, &HubInput<'_>) -> HubActions) -> PlayedRounds {
    let text = scenario(&[&["anna joins:"], steps].concat());
    let options = RoundOptions { explore: true, ..RoundOptions::default() };
    let mut conversation = 0;
    let change = |document: &str| {
        let members = "{ properties: { count: { type: integer }, state: { type: string } }, \
            examples: [ { type: answer, count: 7, state: done } ] }";
        with_replies(document).replace("{ examples: [ { type: answer } ] }", members)
    };
    run_rounds(change, &[&text, &text], &options, |input| {
        conversation += usize::from(input.text.is_none());
        hub(conversation, input)
    })
}

const ASKS_AND_BEATS: [&str; 4] = [
    "anna sends: ask",
    "anna expects: answer\n    rules: [MUST]",
    "anna sends: beat",
    "anna expects: tick\n    rules: [SHOULD]",
];

fn send(input: &HubInput<'_>, text: &str) -> HubActions {
    vec![(1, input.connection, text_received(text))]
}

#[rstest]
#[case::in_another_form(
    Some(r#"{"type":"reply","count":7,"state":"done"}"#),
    json!([{ "message": "answer", "instead": { "type": "reply" } }])
)]
// The hub goes on without the answer.
#[case::absent(None, absent_after("answer", "ask"))]
fn a_proposal_that_a_trial_confirms_is_assumed(#[case] answer: Option<&str>, #[case] entries: Value) {
    let run = explored(&ASKS_AND_BEATS, |_, input| match input.text {
        Some(text) if text.contains("ask") => answer.into_iter().flat_map(|answer| send(input, answer)).collect(),
        Some(_) => send(input, TICK.1),
        None => Vec::new(),
    });
    assert_eq!((claims(run.assumed()), run.proposals()), (entries, Vec::new()));
    // The plain round, a trial on both scenarios, and the replay of both.
    assert_eq!(run.plays, [2, 2, 2]);
}

/// A hub without acknowledgements: nothing comes until both answers are assumed.
#[test]
fn absences_that_follow_each_other_are_tried_together() {
    let begs = ["anna sends: beg", "anna expects: answer\n    rules: [MUST-2]"];
    let steps = [&ASKS_AND_BEATS[..2], &begs, &ASKS_AND_BEATS[2..]].concat();
    let run = explored(&steps, |_, input| match input.text {
        Some(text) if text.contains("beat") => send(input, TICK.1),
        _ => Vec::new(),
    });
    let entries = ["ask", "beg"].map(|after| absent_after("answer", after)[0].clone());
    assert_eq!((claims(run.assumed()), run.proposals()), (json!(entries), Vec::new()));
    // The plain round, a trial of the first, a trial of both, and the replay.
    assert_eq!(run.plays, [2, 2, 2, 2]);
}

/// A hub that acknowledges nothing is one deviation.
#[test]
fn absent_replies_are_one_entry() {
    let beats = ["anna sends: beat", "anna expects: tick\n    rules: [MUST-2]"];
    let told = ["anna sends: tell", "anna expects: news\n    rules: [SHOULD]"];
    let steps = [&ASKS_AND_BEATS[..2], &beats, &told].concat();
    let mute = |input: &HubInput<'_>| match input.text {
        Some(text) if text.contains("tell") => send(input, r#"{"type":"news"}"#),
        _ => Vec::new(),
    };
    let run = explored(&steps, |_, input| mute(input));
    let entries = json!([{ "absent": ["answer", "tick"] }]);
    assert_eq!((claims(run.assumed()), run.proposals()), (entries.clone(), Vec::new()));
    // Two scenarios miss one reply each.
    let asks = [&["anna joins:"], &ASKS_AND_BEATS[..2]].concat();
    let beats = [&["anna joins:"], &beats[..]].concat();
    assert_eq!(proposed(&[&asks, &beats], &RoundOptions::default(), mute), entries);
}

/// The hub crashes in each trial, or only in the first one and serves clients again.
#[rstest]
#[case::once(4, true, &[2, 2, 2, 2])]
#[case::always(usize::MAX, false, &[2, 2, 2])]
fn a_proposal_survives_a_hub_that_is_lost_in_its_trial(
    #[case] last: usize,
    #[case] assumed: bool,
    #[case] plays: &[usize],
) {
    let run = explored(&ASKS_AND_BEATS, |conversation, input| match input.text {
        Some(_) if (3..=last).contains(&conversation) => {
            vec![(1, input.connection, ConnectionEvent::End { reset: true, reason: String::new() })]
        }
        Some(text) if text.contains("ask") => send(input, r#"{"type":"reply","count":7,"state":"done"}"#),
        Some(_) => send(input, TICK.1),
        None => Vec::new(),
    });
    let entry = json!([{ "message": "answer", "instead": { "type": "reply" } }]);
    let [of_run, others] = if assumed { [run.assumed(), run.proposals()] } else { [run.proposals(), run.assumed()] };
    assert_eq!((claims(of_run), others), (entry, Vec::new()));
    assert_eq!(run.plays, plays);
}

/// A hub cannot keep a rule about a message that it is declared not to send, so the rule is none of those to judge.
#[rstest]
#[case::declared("[{ reason: never, message: answer, absent: true, after: ask }]", 1)]
#[case::declared_in_a_list("[{ reason: never, absent: [answer, refusal] }]", 1)]
#[case::undeclared("[]", 0)]
fn a_rule_about_a_declared_absence_is_not_offered(#[case] declared: &str, #[case] not_offered: usize) {
    let text = scenario(&[&["anna joins:"], &ASKS_AND_BEATS[..]].concat());
    let options = RoundOptions { declared, ..RoundOptions::default() };
    let run = run_rounds(with_replies, &[&text], &options, answering(None, &[TICK]));
    let protocol = &run.report.protocols[0];
    let reach = protocol.reach();
    let musts = protocol.rules.values().filter(|rule| rule.level == RuleLevel::Must).count();
    assert_eq!((reach.not_offered, reach.musts + reach.not_offered), (not_offered, musts), "{reach:?}");
    assert_eq!(protocol.rules["MUST"].status == RuleStatus::NotOffered, not_offered == 1);
    assert_eq!(reach.describe().unwrap().contains("(1 more not offered)"), not_offered == 1, "{reach:?}");
}

const MEMBERS: &str = "roles: { client: { given: { token: t-1 }, opening: [ { connects: null, \
    query: { ticket: '${self.token}' } } ] }, watcher: { opening: [ { connects: null } ] } }\n";

/// The hub wants the client's token, or its role, at another place than the document says.
#[rstest]
#[case::header(401, &|dial: &Dial| dial.headers.contains(&pair("Authorization", "Bearer t-1")),
    json!({ "headers": { "Authorization": "Bearer ${self.token}" } }))]
#[case::query(403, &|dial: &Dial| dial.query.contains(&pair("access_token", "t-1")),
    json!({ "query": { "access_token": "${self.token}" } }))]
#[case::path(404, &|dial: &Dial| dial.path.as_deref() == Some("/ws/client"), json!({ "path": "/ws/${self.role}" }))]
#[case::subprotocol(401, &|dial: &Dial| dial.subprotocols == ["bearer", "t-1"],
    json!({ "subprotocols": ["bearer", "${self.token}"] }))]
#[case::both(401, &|dial: &Dial| dial.headers.contains(&pair("X-Api-Key", "t-1")) && dial.path.as_deref() == Some("/client"),
    json!({ "headers": { "X-Api-Key": "${self.token}" }, "path": "/${self.role}" }))]
fn the_place_of_credentials_and_role_is_found(
    #[case] status: u16,
    #[case] accepts: &dyn Fn(&Dial) -> bool,
    #[case] upgrade: Value,
) {
    let text = scenario(&["anna joins:", "anna sends: beat", "anna expects: tick\n    rules: [SHOULD]"]);
    let options = RoundOptions { explore: true, shared: MEMBERS, ..RoundOptions::default() };
    let run = run_rounds(with_replies, &[&text], &options, |input| match (input.dial, input.text) {
        (Some(dial), _) if !accepts(dial) => {
            let (headers, body, reason) = (Vec::new(), Vec::new(), "no".to_owned());
            vec![(1, input.connection, ConnectionEvent::Refused { status, headers, body, reason })]
        }
        (_, Some(_)) => send(input, TICK.1),
        _ => Vec::new(),
    });
    assert_eq!((claims(run.assumed()), run.proposals()), (json!([{ "upgrade": upgrade }]), Vec::new()));
    assert!(run.plays[1] <= 14, "{:?}", run.plays);
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Two members of an answer have other names, and a step needs both.
#[test]
fn proposals_that_help_only_together_are_tried_together() {
    let both = "anna expects: answer\n    where: { count: 7, state: done }\n    rules: [MUST]";
    let run = explored(&["anna sends: ask", both], |_, input| match input.text {
        Some(_) => send(input, r#"{"type":"answer","counted":7,"states":"done"}"#),
        None => Vec::new(),
    });
    let entries = json!([{ "member": "/state", "renamed": "/states" }, { "member": "/count", "renamed": "/counted" }]);
    assert_eq!((claims(run.assumed()), run.proposals()), (entries, Vec::new()));
    // The plain round, a trial of each, a trial of both, and the replay.
    assert_eq!(run.plays, [2, 4, 2, 2]);
}

/// A name that differs only in case needs no step that gets further: the hub shows it.
#[test]
fn a_respelled_name_is_assumed_although_it_stops_nothing() {
    let step = "anna expects: answer\n    where: { count: 7 }\n    rules: [MUST]";
    let run = explored(&["anna sends: ask", step], |_, input| match input.text {
        Some(_) => send(input, r#"{"type":"answer","Count":7,"State":"done"}"#),
        None => Vec::new(),
    });
    let entries = json!([{ "member": "/count", "renamed": "/Count" }, { "member": "/state", "renamed": "/State" }]);
    assert_eq!((claims(run.assumed()), run.proposals()), (entries, Vec::new()));
    // One play is enough to try such a name.
    assert_eq!(run.plays, [2, 2, 2]);
}

/// The proposals of the plain round, which trials do not confirm.
#[rstest]
// The hub does not understand the request at all.
#[case::a_silent_hub(&|_, _: &HubInput<'_>| Vec::new())]
// Only the first conversations lacked the answer.
#[case::contradicted(&|conversation, input: &HubInput<'_>| match input.text {
    Some(text) if text.contains("ask") && conversation > 2 => send(input, r#"{"type":"answer","count":7,"state":"done"}"#),
    _ => Vec::new(),
})]
#[case::never_seen_again(&|conversation, input: &HubInput<'_>| match input.text {
    Some(_) if conversation < 3 => send(input, r#"{"type":"reply","count":7,"state":"done"}"#),
    _ => Vec::new(),
})]
fn a_proposal_that_no_trial_confirms_is_dropped(#[case] hub: &dyn Fn(usize, &HubInput<'_>) -> HubActions) {
    let run = explored(&ASKS_AND_BEATS, hub);
    assert_eq!((run.assumed(), run.proposals()), (Vec::new(), Vec::new()));
    assert_eq!(run.plays, [2, 2]);
    assert!(run.report.deviation_entries().is_empty());
}

/// The trials see the other form, and the replay sees the documented one.
#[test]
fn an_assumed_entry_that_becomes_stale_is_not_written() {
    let run = explored(&ASKS_AND_BEATS, |conversation, input| match input.text {
        Some(text) if text.contains("ask") => {
            let word = if conversation > 4 { "answer" } else { "reply" };
            send(input, &format!(r#"{{"type":"{word}","count":7,"state":"done"}}"#))
        }
        Some(_) => send(input, TICK.1),
        None => Vec::new(),
    });
    assert_eq!(claims(run.assumed()), json!([{ "message": "answer", "instead": { "type": "reply" } }]));
    assert!(run.report.deviation_entries().is_empty());
}

/// An entry with other details says the same.
#[rstest]
#[case::absent(
    "[{ reason: r, message: answer, absent: true, after: ask, where: { n: 1 }, assume: { count: 1 } }]",
    &[],
    json!([])
)]
#[case::all_messages("[{ reason: r, member: /n, renamed: /number }]", &[("ask", r#"{"type":"answer","n":7,"number":7}"#)], json!([]))]
#[case::another("[{ reason: r, message: answer, absent: true, after: beg }]", &[], absent_after("answer", "ask"))]
fn a_proposal_never_repeats_a_declared_entry(
    #[case] declared: &str,
    #[case] answers: &[(&str, &str)],
    #[case] entries: Value,
) {
    let options = RoundOptions { declared, ..RoundOptions::default() };
    let steps = ["anna joins:", "anna sends: ask\n    with: { n: 2 }", "anna expects: answer"];
    assert_eq!(proposed(&[&steps], &options, answering(None, answers)), entries);
}

/// The answer after one request is known to be absent, and assumed; that after another request is missed.
#[test]
fn the_absence_after_another_request_is_another_proposal() {
    let declared = "[{ reason: r, message: answer, absent: true, after: beg }]";
    let options = RoundOptions { declared, ..RoundOptions::default() };
    let steps = ["anna joins:", "anna sends: beg", "anna expects: answer", "anna sends: ask", "anna expects: answer"];
    assert_eq!(proposed(&[&steps], &options, answering(None, &[])), absent_after("answer", "ask"));
}

/// Two messages of the document fit what came equally, and only an id shows that it is the answer.
#[rstest]
#[case::unknown(r#"{"type":"beep","id":"b2"}"#, json!([{ "message": "answer", "absent": true, "after": "ask" }]))]
#[case::an_answer(r#"{"type":"beep","id":"a1"}"#, json!([{ "message": "answer", "instead": { "type": "beep" } }]))]
fn an_ambiguous_message_is_no_other_form_of_the_expected_one(#[case] received: &str, #[case] entries: Value) {
    let change = |document: &str| {
        let with_id = |text: String, name: &str| {
            text.replace(&format!("{{ type: {name} }} ]"), &format!("{{ type: {name}, id: a1 }} ]"))
        };
        ["ask", "answer", "news"]
            .into_iter()
            .fold(with_replies(document), with_id)
            .replace("{ type: ask, n: 1 }", "{ type: ask, id: a1 }")
    };
    let text = scenario(&["anna joins:", "anna sends: ask", "anna expects: answer"]);
    let answers = [("ask", received)];
    let run = run_rounds(change, &[&text], &RoundOptions::default(), answering(None, &answers));
    assert_eq!(claims(run.proposals()), entries);
}
