//! What is said about servers that are no hub: in bounded time and memory, with the right exit code, and in words that
//! a stranger understands.

use std::time::Duration;

use rstest::rstest;

use crate::cli_process::{Done, hubproof, with_steady_text};
use crate::hostile_hubs::{Habit, HostileHub, closed_port};

/// MiB that a check may hold, whatever the hub sends: sixteen scenarios at a time, each with a message of at most 16 MiB
/// under way, and the inboxes.
const MOST_MEMORY: u64 = 400;

/// A message of each protocol that its hub may say, but that nobody asked for.
fn unrelated(protocol: &str) -> &'static str {
    match protocol {
        "qi" => r#"{"session_id":"nobody","status":"success","payload":{},"version":"0.1.0"}"#,
        "concierge" => r#"{"type":"STATUS","code":"GROUP_DELETED","name":"nobody_knows"}"#,
        "airavata" => r#"{"id":"pong_1","type":"pong","timestamp":"2024-01-15T10:30:00Z"}"#,
        "emprops" => r#"{"type":"ping","timestamp":1705312345000}"#,
        "gator" => r#"{"action":"nobody","result":"success","rsp_id":0,"payload":{}}"#,
        other => panic!("what does a hub of {other} say unasked?"),
    }
}

/// The beginning, as far as it says what stands in the way of everything, the headings of the findings, and the last
/// line; without numbers, so that a scenario more or less changes nothing.
fn gist(done: &Done) -> String {
    let mut gist = String::new();
    let lead = done.out.split("\nfail[").next().unwrap().split("\n  scenarios  ").next().unwrap();
    gist.push_str(lead.trim_end());
    // One finding, the first, as an example.
    if let Some((_, finding)) = done.out.split_once("\nfail[") {
        let heading = finding.lines().next().unwrap();
        gist.push_str(&format!("\n\nfail[{heading}"));
    }
    gist.push_str("\n\n");
    gist.push_str(done.last_line());
    gist.push('\n');
    gist
}

fn assert_snapshot(name: &str, done: &Done) {
    with_steady_text(|| {
        let mut settings = insta::Settings::clone_current();
        settings.add_filter(r"\b\d+ (scenario|frame|check|warning|cause)s?\b", "N $1(s)");
        settings.add_filter(r"\b\d+ (inconclusive|of|testable|in the pack)\b", "N $1");
        settings.add_filter(r"\bof \d+\b", "of N");
        settings.add_filter(r"came, \d+ fit", "came, N fit");
        settings.add_filter(r"(\.yaml):\d+", "$1:LINE");
        settings.add_filter(r"  stopped     (.|\n)*?\n  reproduce ", "  stopped     SCENARIOS\n  reproduce ");
        settings.add_filter(r"--scenario \S+", "--scenario NAME");
        settings.bind(|| insta::assert_snapshot!(name, gist(done)));
    });
}

/// Fast, with little patience: the waits are as many as with much.
#[rstest]
fn it_fails_in_bounded_time(
    #[values("qi", "concierge")] protocol: &str,
    #[values(
        Habit::Echo,
        Habit::Silent,
        Habit::TcpSilent,
        Habit::Closes,
        Habit::Hangs,
        Habit::TcpCloses,
        Habit::GarbageText,
        Habit::GarbageBytes
    )]
    habit: Habit,
) {
    let hub = HostileHub::start(habit, "");
    let done = hubproof(["check", &hub.url(), "--protocol", protocol, "--patience", "0.2"]).ends_with(1);
    assert!(done.took < Duration::from_secs(60), "{:?}", done.took);
    assert!(done.peak < MOST_MEMORY, "{} MiB", done.peak);
    assert!(done.last_line().starts_with(&format!("FAIL {protocol}: ")), "{}", done.out);
    // Where the hub talks or hangs up at once, it depends on the machine which of its deeds is met first: how it ends
    // is the same, and the words of the others are compared.
    if matches!(habit, Habit::Echo | Habit::Silent | Habit::TcpSilent | Habit::TcpCloses) {
        assert_snapshot(&format!("{protocol}_{habit:?}"), &done);
    }
}

/// The words are compared for two protocols; how it ends is the same for all.
#[rstest]
fn no_protocol_is_fooled(
    #[values("airavata", "emprops", "gator")] protocol: &str,
    #[values(
        Habit::Echo,
        Habit::Silent,
        Habit::TcpSilent,
        Habit::Closes,
        Habit::Hangs,
        Habit::TcpCloses,
        Habit::GarbageText,
        Habit::GarbageBytes,
        Habit::Flood
    )]
    habit: Habit,
) {
    let hub = HostileHub::start(habit, unrelated(protocol));
    let url = hub.url();
    let mut words = vec!["check", &url, "--protocol", protocol, "--patience", "0.2"];
    if protocol == "airavata" {
        // Who has no token may lawfully be sent away at once; with the key every hub has to let us in.
        words.extend(["--set", "secrets.jwt_secret=the key of this hub"]);
    }
    let done = hubproof(words).ends_with(1);
    assert!(done.took < Duration::from_secs(90), "{:?}", done.took);
    assert!(done.peak < MOST_MEMORY, "{} MiB", done.peak);
    assert!(done.last_line().starts_with(&format!("FAIL {protocol}: ")), "{}", done.out);
}

#[rstest]
fn a_closed_port_says_nothing_of_any_protocol(#[values("airavata", "emprops", "gator")] protocol: &str) {
    let done = hubproof(["check", &closed_port(), "--protocol", protocol]).ends_with(3);
    assert!(done.out.contains("could not be reached"), "{}", done.out);
}

/// How far it gets depends on the machine, so its words are not compared.
#[rstest]
fn a_flood_takes_bounded_time_and_memory(#[values("qi", "concierge")] protocol: &str) {
    let hub = HostileHub::start(Habit::Flood, unrelated(protocol));
    let done = hubproof(["check", &hub.url(), "--protocol", protocol, "--patience", "0.2"]).ends_with(1);
    assert!(done.took < Duration::from_secs(60), "{:?}", done.took);
    assert!(done.peak < MOST_MEMORY, "{} MiB", done.peak);
    assert!(done.last_line().starts_with(&format!("FAIL {protocol}: ")), "{}", done.out);
    assert!(done.out.contains("could not go on: "), "{}", done.out);
}

/// A message beyond our bounds cannot be judged; what else is wrong with the hub may show, or not.
#[rstest]
fn a_message_without_end_takes_bounded_memory(
    #[values("qi", "concierge")] protocol: &str,
    #[values(Habit::Endless, Habit::Fragments)] habit: Habit,
) {
    let hub = HostileHub::start(habit, "");
    let done = hubproof(["check", &hub.url(), "--protocol", protocol, "--patience", "0.2"]);
    assert!(matches!(done.code, Some(1 | 3)), "{:?}\n{}{}", done.code, done.out, done.err);
    assert!(done.took < Duration::from_secs(60), "{:?}", done.took);
    assert!(done.peak < MOST_MEMORY, "{} MiB", done.peak);
    assert!(done.out.contains("the most we take"), "{}", done.out);
}

/// Most likely it is the path of the URL that is wrong, not the hub: nothing was said about the protocol.
#[rstest]
fn a_refused_upgrade_is_no_verdict(#[values("qi", "concierge")] protocol: &str) {
    let hub = HostileHub::start(Habit::NotFound, "");
    let done = hubproof(["check", &hub.url(), "--protocol", protocol]).ends_with(3);
    assert_snapshot(&format!("{protocol}_NotFound"), &done);
}

/// With the documented patience, too: a silent hub costs one patience per scenario, many at a time.
#[test]
fn silence_is_bounded_with_the_usual_patience() {
    let hub = HostileHub::start(Habit::Silent, "");
    let done = hubproof(["check", &hub.url(), "--protocol", "qi"]).ends_with(1);
    assert!(done.took < Duration::from_secs(45), "{:?}", done.took);
}

#[rstest]
fn a_closed_port_is_no_verdict(#[values("qi", "concierge")] protocol: &str) {
    let done = hubproof(["check", &closed_port(), "--protocol", protocol]).ends_with(3);
    assert!(done.took < Duration::from_secs(20), "{:?}", done.took);
    assert_snapshot(&format!("{protocol}_closed_port"), &done);
}
