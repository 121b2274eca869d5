//! Waits for what a hub does not send: shortened after two conversations, restored by an arrival, never an accusation.
//! The time is simulated.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hubproof::interpreter::{Conversation, ConversationConfig, HubPromptness, planned_wait, unmet_needs};
use hubproof::outcome::{ScenarioReport, Verdict};
use hubproof::scenario::{Isolation, Program, first_cases_first};
use rstest::rstest;

use crate::support::disk::protocol_name;
use crate::support::mini_protocol::{
    HubActions, HubInput, answering_hub, converse, play_with_promptness, text_received, worst_verdict,
};
use crate::support::sim_connection::{SimulatedProtocol, conversation_config};

const FULL: Duration = Duration::from_secs(5);
/// The `quiet` of the target.
const LEAST: Duration = Duration::from_millis(300);

/// A scenario in which a client asks and then plays these steps.
fn asking(steps: &str) -> String {
    format!("title: T\nactors: {{ ann: client }}\nsteps:\n  - ann joins:\n  - ann sends: ask\n    as: asked\n{steps}")
}

fn expecting(message: &str) -> String {
    asking(&format!("  - ann expects: {message}\n    rules: [MUST]\n"))
}

/// Plays a scenario and learns from it.
fn play(
    promptness: &mut HubPromptness,
    scenario: &str,
    hub: impl FnMut(&HubInput<'_>) -> HubActions,
) -> (Duration, Verdict, ScenarioReport) {
    let report = play_with_promptness(promptness, scenario, hub);
    promptness.add(&report);
    (report.duration, worst_verdict(&report, "MUST"), report)
}

fn silent_hub(_: &HubInput<'_>) -> HubActions {
    HubActions::new()
}

/// A hub that answers every text with `tick`, and with `text` after this many milliseconds.
fn hub_with(text: &'static str, after: u64) -> impl FnMut(&HubInput<'_>) -> HubActions {
    move |heard| {
        let both = [(0, r#"{"type":"tick"}"#), (after, text)];
        let actions = both.map(|(after, text)| (after, heard.connection, text_received(text)));
        if heard.text.is_some() { actions.into() } else { HubActions::new() }
    }
}

const ANSWER: &str = r#"{"type":"answer"}"#;

/// Returns what is known of a hub that answers with `tick` at once, after two conversations without `answer`.
fn promptness_without_answers() -> HubPromptness {
    let mut promptness = HubPromptness::default();
    for _ in 0..2 {
        let (took, verdict, report) = play(&mut promptness, &expecting("answer"), answering_hub(r#"{"type":"tick"}"#));
        assert_eq!((took, verdict, report.waits.shortened.len()), (FULL, Verdict::Fail, 0));
    }
    promptness
}

#[test]
fn a_wait_for_what_two_conversations_missed_is_short_and_undecided() {
    let mut promptness = promptness_without_answers();
    let (took, verdict, report) = play(&mut promptness, &expecting("answer"), answering_hub(r#"{"type":"tick"}"#));
    assert_eq!((took, verdict), (LEAST, Verdict::Inconclusive));
    let shortened = report.waits.shortened["answer"];
    assert_eq!((shortened.times, shortened.saved), (1, FULL - LEAST));
    let cause = report.cause.unwrap();
    let says = "no answer received, but not waited for in full: it did not arrive in two conversations";
    assert_eq!((cause.message.as_str(), cause.shortened), (says, true));
    // Waits for other messages are as long as before.
    let (took, verdict, _) = play(&mut promptness, &expecting("tick"), answering_hub(r#"{"type":"tick"}"#));
    assert_eq!((took, verdict), (Duration::ZERO, Verdict::Pass));
    let (took, verdict, _) = play(&mut promptness, &expecting("notice"), answering_hub(r#"{"type":"tick"}"#));
    assert_eq!((took, verdict), (FULL, Verdict::Fail));
}

/// A deviation may be the reason why a message did not come, so a trial of it waits in full.
#[rstest]
#[case::of_the_message("answer", FULL, Verdict::Fail)]
#[case::of_another("notice", LEAST, Verdict::Inconclusive)]
fn a_trial_of_a_deviation_awaits_its_messages_in_full(
    #[case] message: &str,
    #[case] took: Duration,
    #[case] expected: Verdict,
) {
    let promptness = promptness_without_answers().for_trial(&[message.to_owned()].into());
    let report = play_with_promptness(&promptness, &expecting("answer"), answering_hub(r#"{"type":"tick"}"#));
    assert_eq!((report.duration, worst_verdict(&report, "MUST")), (took, expected));
}

const MUST_2_OF_THE_STEP: &str = "  - ann expects: answer\n    rules: [MUST-2]\n";
const MUST_2_OF_THE_RETRY: &str =
    "  - retry: 5s\n    do:\n      - ann expects: answer\n        within: 200ms\n    rules: [MUST-2]\n";

/// A rule that the hub has not been found to break is judged after a full wait if the hub has ever sent the message.
/// Where it never has, the finding about the message is the reason why other rules are not judged.
#[rstest]
#[case::step(MUST_2_OF_THE_STEP)]
#[case::retry(MUST_2_OF_THE_RETRY)]
fn a_further_rule_is_judged_only_by_a_message_that_the_hub_has_ever_sent(#[case] step: &str) {
    let tick = || answering_hub(r#"{"type":"tick"}"#);
    let mut promptness = HubPromptness::default();
    assert_eq!(play(&mut promptness, &expecting("answer"), answering_hub(ANSWER)).1, Verdict::Pass);
    for _ in 0..2 {
        assert_eq!(play(&mut promptness, &expecting("answer"), tick()).1, Verdict::Fail);
    }
    let report = play_with_promptness(&promptness, &asking(step), tick());
    assert_eq!(worst_verdict(&report, "MUST-2"), Verdict::Fail);
    assert!(report.duration >= FULL, "{:?}", report.duration);
    let report = play_with_promptness(&promptness_without_answers(), &asking(step), tick());
    assert_eq!(worst_verdict(&report, "MUST-2"), Verdict::Inconclusive);
    assert!(report.duration < FULL, "{:?}", report.duration);
}

/// After a failure, answers are no longer waited for in full; what has a time limit of its own still is.
#[rstest]
#[case::answer("  - ann expects: notice\n", LEAST)]
#[case::later_event("  - ann expects: notice\n    within: 9s\n", Duration::from_secs(9))]
fn after_a_failure_answers_are_waited_for_briefly(#[case] step: &str, #[case] took: Duration) {
    let steps = format!("  - ann expects: tick\n  - ann expects: answer\n    rules: [MUST]\n{step}");
    let (all, verdict, _) = play(&mut HubPromptness::default(), &asking(&steps), hub_with(r#"{"type":"odd"}"#, 100));
    assert_eq!((all, verdict), (FULL + took, Verdict::Fail));
}

/// What a conversation has awaited twice in vain is not awaited a third time, whatever it would show.
#[test]
fn a_conversation_does_not_wait_again_and_again() {
    let steps = "  - ann expects: answer\n    within: 5s\n    rules: [SHOULD]\n".repeat(4);
    let report = play_with_promptness(&HubPromptness::default(), &asking(&steps), answering_hub(r#"{"type":"tick"}"#));
    assert_eq!((report.duration, worst_verdict(&report, "SHOULD")), (FULL * 2 + LEAST * 2, Verdict::Warn));
}

/// After four waits in vain, whatever they were for, a conversation lacks most of what it rests on.
#[test]
fn a_conversation_that_lacks_much_no_longer_waits_in_full() {
    let step = |event: &str| format!("  - ann expects: {event}\n    within: 5s\n    rules: [SHOULD]\n");
    let steps = ["answer", "notice", "any", "tick", "answer"].map(step).concat();
    let report = play_with_promptness(&HubPromptness::default(), &asking(&steps), silent_hub);
    assert_eq!((report.duration, worst_verdict(&report, "SHOULD")), (FULL * 4 + LEAST, Verdict::Warn));
}

/// Each way of `either` may be the one that the hub takes, so all of them are waited for in full.
#[test]
fn each_way_of_either_is_waited_for_in_full() {
    let steps = "  - either: way\n    in: [1, 2, 3, 4]\n    do:\n      - ann expects: answer\n        rules: [MUST]\n";
    let (all, verdict, _) = play(&mut HubPromptness::default(), &asking(steps), answering_hub(r#"{"type":"tick"}"#));
    assert_eq!((all, verdict), (FULL * 4, Verdict::Fail));
}

/// A hub may answer one kind of message and not another.
#[test]
fn waits_for_any_message_are_counted_by_the_message_before() {
    let mut promptness = HubPromptness::default();
    let any = |rule: &str| format!("  - ann expects: any\n    where: {{ type: answer }}\n    rules: [{rule}]\n");
    for _ in 0..2 {
        let (took, verdict, _) = play(&mut promptness, &asking(&any("MUST")), answering_hub(r#"{"type":"tick"}"#));
        assert_eq!((took, verdict), (FULL, Verdict::Fail));
    }
    let of = |scenario: &str| {
        let report = play_with_promptness(&promptness, scenario, answering_hub(r#"{"type":"tick"}"#));
        (report.duration, worst_verdict(&report, "MUST-2"), report.waits.shortened.into_keys().collect::<Vec<_>>())
    };
    let short = vec!["any message after ask".to_owned()];
    assert_eq!(of(&asking(&any("MUST-2"))), (LEAST, Verdict::Inconclusive, short));
    let unasked = format!("title: T\nactors: {{ ann: client }}\nsteps:\n  - ann joins:\n{}", any("MUST-2"));
    assert_eq!(of(&unasked), (FULL, Verdict::Fail, Vec::new()));
}

/// In time for the short wait, or after it.
#[rstest]
#[case::in_time(200, Verdict::Pass, Duration::from_millis(200))]
#[case::late(1000, Verdict::Inconclusive, Duration::from_millis(2300))]
fn an_arrival_restores_full_waits(#[case] after: u64, #[case] expected: Verdict, #[case] took: Duration) {
    let mut promptness = promptness_without_answers();
    let steps = "  - ann expects: answer\n    rules: [MUST]\n  - wait: 2s\n    because: the hub is slow\n";
    let (all, verdict, _) = play(&mut promptness, &asking(steps), hub_with(ANSWER, after));
    assert_eq!((all, verdict), (took.max(Duration::from_millis(2000 + after.min(300))), expected));
    let (took, verdict, _) = play(&mut promptness, &expecting("answer"), answering_hub(r#"{"type":"tick"}"#));
    assert_eq!((took, verdict), (FULL, Verdict::Fail));
}

/// A hub that takes long for other answers is given a multiple of that.
#[rstest]
#[case::a_little(200, Duration::from_millis(800), Verdict::Inconclusive)]
#[case::longer_than_a_wait(1500, FULL, Verdict::Fail)]
fn a_slow_hub_is_waited_for_longer(#[case] needs: u64, #[case] took: Duration, #[case] expected: Verdict) {
    let mut promptness = promptness_without_answers();
    let slow = play(&mut promptness, &expecting("notice"), hub_with(r#"{"type":"notice"}"#, needs));
    assert_eq!(slow.1, Verdict::Pass);
    let (all, verdict, _) = play(&mut promptness, &expecting("answer"), answering_hub(r#"{"type":"tick"}"#));
    assert_eq!((all, verdict), (took, expected));
}

/// A hub that sends nothing expected is waited for briefly, whatever a step awaits.
#[test]
fn a_hub_that_sends_nothing_expected_is_diagnosed_soon() {
    let mut promptness = HubPromptness::default();
    for message in ["answer", "notice"] {
        assert_eq!(play(&mut promptness, &expecting(message), silent_hub).0, FULL);
    }
    let steps = "  - ann expects: notice\n  - ann expects: tick\n  - wait: 1m\n    because: time passes\n\
        \x20 - ann expects nothing: answer\n    for: 1m\n    rules: [MUST]\n";
    let (took, verdict, _) = play(&mut promptness, &asking(steps), silent_hub);
    assert_eq!((took, verdict), (LEAST, Verdict::Inconclusive));
    // Frames that no step expects keep the conversation going, but not for long.
    let (took, verdict, _) = play(&mut promptness, &asking(steps), answering_hub(r#"{"type":"odd"}"#));
    assert_eq!((took, verdict), (LEAST * 2, Verdict::Inconclusive));
    let (took, verdict, _) = play(
        &mut promptness,
        &asking(&steps.replace("  - ann expects: tick\n", "")),
        answering_hub(r#"{"type":"odd"}"#),
    );
    assert_eq!((took, verdict), (LEAST, Verdict::Inconclusive));
    let (took, verdict, _) = play(&mut promptness, &expecting("tick"), hub_with(ANSWER, 0));
    assert_eq!((took, verdict), (Duration::ZERO, Verdict::Pass));
    assert_eq!(play(&mut promptness, &expecting("notice"), silent_hub).0, FULL);
}

/// A conversation that shows whether the hub still serves is not cut short before the hub sends something.
#[test]
fn silence_in_a_probe_lasts_in_full() {
    let promptness = promptness_without_answers().for_probe(vec![Some(usize::MAX)]);
    assert_eq!(play_with_promptness(&promptness, &expecting("answer"), silent_hub).duration, FULL);
    assert_eq!(
        play_with_promptness(&promptness, &expecting("answer"), answering_hub(r#"{"type":"tick"}"#)).duration,
        LEAST
    );
    // What the hub has sent before is waited for in full.
    let mut promptness = HubPromptness::default();
    assert_eq!(play(&mut promptness, &expecting("answer"), answering_hub(ANSWER)).1, Verdict::Pass);
    for _ in 0..2 {
        play(&mut promptness, &expecting("answer"), answering_hub(r#"{"type":"tick"}"#));
    }
    assert_eq!(
        play_with_promptness(&promptness, &expecting("answer"), answering_hub(r#"{"type":"tick"}"#)).duration,
        LEAST
    );
    assert_eq!(
        play_with_promptness(
            &promptness.for_probe(vec![Some(usize::MAX)]),
            &expecting("answer"),
            answering_hub(r#"{"type":"tick"}"#)
        )
        .duration,
        FULL
    );
}

/// Steps that are also judged by what does not arrive last as long as before, and so does a step that may fail.
#[rstest]
#[case::silence("  - ann expects nothing: answer\n    for: 3s\n    rules: [MUST]\n", 3000, Verdict::Pass)]
#[case::window(
    "  - ann expects: answer\n    count: { min: 0, max: 1 }\n    for: 3s\n    rules: [MUST]\n",
    3000,
    Verdict::Pass
)]
#[case::or_nothing(
    "  - ann expects one of:\n      - message: answer\n      - nothing:\n    rules: [MUST]\n",
    5000,
    Verdict::Pass
)]
#[case::limit("  - ann expects: answer\n    within: 10s\n    rules: [MUST]\n", 300, Verdict::Inconclusive)]
#[case::alternatives(
    "  - ann expects one of:\n      - message: answer\n    rules: [MUST]\n",
    300,
    Verdict::Inconclusive
)]
#[case::other_alternative(
    "  - ann expects one of:\n      - message: answer\n      - message: notice\n    rules: [MUST]\n",
    5000,
    Verdict::Fail
)]
#[case::retry(
    "  - retry: 10s\n    do:\n      - ann expects: answer\n        within: 200ms\n    rules: [MUST]\n",
    400,
    Verdict::Inconclusive
)]
fn only_a_wait_that_an_arrival_ends_is_shortened(#[case] step: &str, #[case] took: u64, #[case] expected: Verdict) {
    let mut promptness = promptness_without_answers();
    let (all, verdict, _) = play(&mut promptness, &asking(step), answering_hub(r#"{"type":"tick"}"#));
    assert!(all >= Duration::from_millis(took) && all < Duration::from_millis(took + 100), "{all:?}");
    assert_eq!(verdict, expected);
}

/// How a hostile hub reacts to a text.
#[derive(Clone, Copy, Debug)]
enum Reaction {
    Nothing,
    Echo,
    Garbage,
}

impl Reaction {
    fn to(self, heard: &HubInput<'_>) -> HubActions {
        let text = heard.text.and_then(|text| match self {
            Self::Nothing => None,
            Self::Echo => Some(text.to_owned()),
            Self::Garbage => Some("huh?! \\o/".to_owned()),
        });
        text.map(|text| (1, heard.connection, text_received(text))).into_iter().collect()
    }
}

/// The scenarios of a protocol that a target without settings can play, in the order and with the locks of a run.
struct SimulatedRun {
    protocol: SimulatedProtocol,
    pending: Vec<(Duration, Arc<Program>)>,
    promptness: HubPromptness,
}

impl SimulatedRun {
    fn new(protocol: &str) -> Self {
        let protocol = SimulatedProtocol::load(protocol);
        let settings = Self::settings(&protocol);
        let is_met = |program: &&Arc<Program>| {
            unmet_needs(program, &settings, &|_| false, &|_| false).unwrap().is_empty()
                && program.isolation != Isolation::Destructive
        };
        let all = first_cases_first(&protocol.scenarios.programs).filter(is_met);
        let mut pending: Vec<_> = all.map(|program| (planned_wait(program, &settings), Arc::clone(program))).collect();
        pending.sort_by_key(|(wait, _)| Reverse(*wait));
        Self { protocol, pending, promptness: HubPromptness::default() }
    }

    fn settings(protocol: &SimulatedProtocol) -> BTreeMap<String, serde_json::Value> {
        let declared = protocol.scenarios.shared.settings.iter();
        let mut settings: BTreeMap<_, _> =
            declared.filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?))).collect();
        // With the key, every hub must accept the client.
        if protocol.scenarios.shared.settings.contains_key("jwt_secret") {
            settings.insert("jwt_secret".to_owned(), "the key of this hub".into());
        }
        settings
    }

    /// Plays everything, sixteen scenarios at a time. Returns how long it took, and the reports.
    fn play(mut self, reaction: Reaction) -> (Duration, Vec<ScenarioReport>) {
        let settings = Self::settings(&self.protocol);
        let mut now = Duration::ZERO;
        let mut playing: Vec<(Duration, Isolation, ScenarioReport)> = Vec::new();
        let mut reports = Vec::new();
        let alone = |isolation: &Isolation| matches!(isolation, Isolation::Exclusive(word) if word == "hub");
        loop {
            let is_free = |program: &Program| match &program.isolation {
                Isolation::Shared => true,
                isolation if alone(isolation) => playing.is_empty(),
                isolation => playing.iter().all(|(_, other, _)| other != isolation),
            };
            let others = self.pending.iter().any(|(_, program)| !alone(&program.isolation));
            let next = self.pending.iter().position(|(_, program)| {
                playing.len() < 16 && is_free(program) && (!others || !alone(&program.isolation))
            });
            if let Some(place) = next {
                let (_, program) = self.pending.remove(place);
                let promptness = Arc::new(self.promptness.clone());
                let config = ConversationConfig { promptness, ..conversation_config(settings.clone()) };
                let conversation = Conversation::new(Arc::clone(&program), config);
                let report = converse(conversation, Duration::ZERO, |heard| reaction.to(heard));
                playing.push((now + report.duration, program.isolation.clone(), report));
                continue;
            }
            let Some(first) = (0..playing.len()).min_by_key(|place| playing[*place].0) else { return (now, reports) };
            let (end, _, report) = playing.remove(first);
            now = end;
            self.promptness.add(&report);
            reports.push(report);
        }
    }
}

#[rstest]
fn a_hub_that_answers_nothing_as_documented_is_diagnosed_within_half_a_minute(
    #[dirs]
    #[files("schemas/*/messages")]
    protocol: PathBuf,
    #[values(Reaction::Nothing, Reaction::Echo, Reaction::Garbage)] reaction: Reaction,
) {
    let protocol = protocol_name(&protocol);
    let (took, reports) = SimulatedRun::new(&protocol).play(reaction);
    let failed = |report: &&ScenarioReport| report.verdict == Verdict::Fail || report.cause.is_some();
    assert!(reports.iter().filter(failed).count() * 2 > reports.len(), "{protocol} is diagnosed");
    assert!(took <= Duration::from_secs(30), "{protocol} takes {took:?}");
}
