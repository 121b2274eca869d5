//! What is said about servers that are no hub: in bounded time and memory, with the right exit code, and in words that
//! a stranger understands.

use std::path::PathBuf;
use std::time::Duration;

use rstest::rstest;

use crate::support::hostile_servers::{Habit, HostileHub, closed_port};
use crate::support::process::{Done, hubproof, with_steady_text};
use crate::support::disk::protocol_name;

/// However busy the machine is; on one that is not it takes some seconds.
const LONGEST: Duration = Duration::from_secs(110);
/// MiB that a check may hold, whatever the hub sends.
const MOST_MEMORY: u64 = 250;
/// The same where every message is as long as messages may be: sixteen scenarios at a time, each with inboxes of 24 MiB,
/// 48 MiB on their way to them, copies of what is handled just now, and what the allocator has not given back yet.
const MOST_MEMORY_OF_GIANTS: u64 = 700;

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

/// Checks it with little patience: the waits are as many as with much. It ends in bounded time and memory, and says what
/// is true, in one of these ways and with these words, wherever they are broken into lines.
#[track_caller]
fn check(habit: Habit, protocol: &str, patience: &[&str], codes: &[i32], words: &str) -> Done {
    let hub = HostileHub::start(habit, unrelated(protocol));
    let url = hub.url();
    let mut arguments = vec!["check", &url, "--protocol", protocol];
    arguments.extend(patience);
    if protocol == "airavata" {
        // Who has no token may lawfully be sent away at once; with the key every hub has to let us in.
        arguments.extend(["--set", "secrets.jwt_secret=the key of this hub"]);
    }
    let done = hubproof(arguments);
    let said = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(done.code.is_some_and(|code| codes.contains(&code)), "{:?}\n{}{}", done.code, done.out, done.err);
    assert!(said.contains(words), "no word of {words:?} in\n{}", done.out);
    assert!(done.took < LONGEST, "{:?}", done.took);
    let pours = matches!(habit, Habit::Giants | Habit::Numerous | Habit::Flood | Habit::Fragments);
    let most = if matches!(habit, Habit::Giants | Habit::Numerous) { MOST_MEMORY_OF_GIANTS } else { MOST_MEMORY };
    assert!(done.peak.is_none_or(|peak| peak < most), "{:?} MiB", done.peak);
    // Only Linux tells, and who ends at once may have ended before anybody looked.
    assert!(done.peak.is_some() || !pours || !cfg!(target_os = "linux"), "nobody looked at its memory");
    let verdict = if done.code == Some(1) { "FAIL" } else { "INCONCLUSIVE" };
    assert!(done.last_line().starts_with(&format!("{verdict} {protocol}: ")), "{}", done.out);
    done
}

/// For what comes at once, or nobody knows when.
const USUAL: &[&str] = &[];
/// A second for what must come.
const SHORT: &[&str] = &["--patience", "0.2"];
/// A tenth: for what never comes.
const SHORTEST: &[&str] = &["--set", "patience=500ms", "--patience", "0.2"];
/// What comes, comes in time.
const LONG: &[&str] = &["--patience", "0.6"];

#[rstest]
// No hub could be seen: nothing is said about the protocol.
#[case::tls_alert(Habit::TlsAlert, USUAL, &[3], "the hub broke the handshake off with the alert HandshakeFailure: does it want")]
#[case::tls_garbage(Habit::TlsGarbage, USUAL, &[3], "the answer is not TLS: is the address ws:// rather than wss://?")]
#[case::tls_closes(Habit::TlsCloses, USUAL, &[3], "closed the connection during the handshake: is the address ws:// rather than wss://?")]
#[case::tls_silent(Habit::TlsSilent, SHORT, &[3], "is the address ws:// rather than wss://?")]
// Most likely it is the address that is wrong, or something before the hub.
#[case::not_found(Habit::NotFound, USUAL, &[3], "HTTP 404 instead of 101: is the path right?")]
#[case::server_error(Habit::ServerError, USUAL, &[3], "HTTP 500 instead of 101: the server failed, and its log may say why; is the path right?")]
#[case::redirect(Habit::Redirect, USUAL, &[3], "HTTP 302 redirects to https://elsewhere.example/ws, which is not followed: give that address instead")]
// It may be right, but is more than we take.
#[case::endless_head(Habit::EndlessHead, USUAL, &[3], "its head has more than 100 lines, the most we take")]
#[case::giant(Habit::Giant, USUAL, &[3], "a message of more than 12582912 bytes, the most we take")]
#[case::endless(Habit::Endless, USUAL, &[3], "a message of more than 12582912 bytes, the most we take")]
#[case::deep(Habit::Deep, LONG, &[3], "a frame came that is JSON, but cannot be decoded here: it is nested more than 127 deep")]
#[case::digits(Habit::Digits, LONG, &[3], "a frame came that is JSON, but cannot be decoded here: it holds a number beyond ±1.8e308")]
#[case::surrogate(Habit::Surrogate, LONG, &[3], "a frame came that is JSON, but cannot be decoded here: it holds half a surrogate pair")]
// The same, but it depends on the machine whether the patience ends before the message is too much.
#[case::fragments(Habit::Fragments, SHORT, &[1, 3], "")]
#[case::numerous(Habit::Numerous, LONG, &[1, 3], "")]
// No hub does that.
#[case::tcp_silent(Habit::TcpSilent, SHORT, &[1], "no answer to the upgrade within")]
#[case::tcp_closes(Habit::TcpCloses, SHORT, &[1], "the hub closed the connection before answering the upgrade")]
#[case::slow_head(Habit::SlowHead, SHORT, &[1], "no complete answer to the upgrade within")]
#[case::wrong_key(Habit::WrongKey, SHORT, &[1], "101, but with `Sec-WebSocket-Accept: bm90IHlvdXIga2V5` instead of")]
#[case::closes(Habit::Closes, SHORT, &[1], "the hub closed the connection with 1011 (out of order)")]
#[case::closes_and_hangs_up(Habit::ClosesAndHangsUp, SHORT, &[1], "the hub closed the connection with 1011 (out of order)")]
#[case::hangs(Habit::Hangs, SHORT, &[1], "without a close frame")]
#[case::resets(Habit::Resets, SHORT, &[1], "the hub reset the connection in the middle of a message")]
#[case::echo(Habit::Echo, SHORT, &[1], "it did not come")]
#[case::silent(Habit::Silent, SHORT, &[1], "it did not come")]
#[case::slow(Habit::Slow, SHORT, &[1], "it did not come")]
#[case::unrelated(Habit::Unrelated, SHORT, &[1], "it did not come")]
#[case::shreds(Habit::Shreds, SHORT, &[1], "it did not come")]
#[case::flood(Habit::Flood, SHORT, &[1], "it did not come")]
#[case::giants(Habit::Giants, SHORT, &[1, 3], "")]
#[case::garbage_text(Habit::GarbageText, SHORT, &[1], "huh?!")]
#[case::garbage_bytes(Habit::GarbageBytes, SHORT, &[1], "reserved bits 111, and no extension was agreed")]
#[case::no_utf8(Habit::NoUtf8, SHORT, &[1], "that is not UTF-8 at byte 9")]
fn it_ends_with_what_is_true(
    #[case] habit: Habit,
    #[case] patience: &[&str],
    #[case] codes: &[i32],
    #[case] words: &str,
) {
    let done = check(habit, "qi", patience, codes, words);
    // Where the hub talks or hangs up at once, it depends on the machine which of its deeds is met first: how it ends
    // is the same, and the words of the others are compared.
    if matches!(habit, Habit::Echo | Habit::Silent | Habit::TcpSilent | Habit::TcpCloses | Habit::NotFound) {
        assert_snapshot(&format!("qi_{habit:?}"), &done);
    }
}

/// What is true of one protocol is true of all, but for what their documents say of the address.
#[rstest]
fn no_protocol_is_fooled(
    #[dirs]
    #[files("schemas/*/messages")]
    #[exclude("schemas/qi/")]
    protocol: PathBuf,
    #[values(
        Habit::Echo,
        Habit::Silent,
        Habit::TcpSilent,
        Habit::TcpCloses,
        Habit::WrongKey,
        Habit::Closes,
        Habit::Hangs,
        Habit::GarbageText,
        Habit::GarbageBytes,
        Habit::Resets,
        Habit::Unrelated,
        Habit::Flood
    )]
    habit: Habit,
) {
    let protocol = &*protocol_name(&protocol);
    let compared =
        protocol == "concierge" && matches!(habit, Habit::Echo | Habit::Silent | Habit::TcpSilent | Habit::TcpCloses);
    let done = check(habit, protocol, if compared { SHORT } else { SHORTEST }, &[1], "");
    if compared {
        assert_snapshot(&format!("concierge_{habit:?}"), &done);
    }
}

#[rstest]
fn no_protocol_is_blamed_for_what_is_not_its_hub(
    #[dirs]
    #[files("schemas/*/messages")]
    #[exclude("schemas/qi/")]
    protocol: PathBuf,
    #[values(Habit::TlsAlert, Habit::ServerError, Habit::Redirect, Habit::EndlessHead, Habit::Giant)] habit: Habit,
) {
    let protocol = &*protocol_name(&protocol);
    check(habit, protocol, USUAL, &[3], "");
}

/// Where the document names the path, a server without it is no such hub.
#[rstest]
#[case("airavata", 1)]
#[case("emprops", 1)]
#[case("gator", 3)]
#[case("concierge", 3)]
fn a_path_that_is_not_there_is_blamed_where_the_document_names_it(#[case] protocol: &str, #[case] code: i32) {
    let done = check(Habit::NotFound, protocol, USUAL, &[code], "HTTP 404 instead of 101: is the path right?");
    if protocol == "concierge" {
        assert_snapshot("concierge_NotFound", &done);
    }
}

/// With the documented patience, too, in which more can come.
#[rstest]
fn memory_is_bounded_with_the_usual_patience(#[values(Habit::Giants, Habit::Numerous)] habit: Habit) {
    check(habit, "qi", USUAL, &[1, 3], "");
}

/// With the documented patience, too: a silent hub costs one patience per scenario, many at a time.
#[test]
fn silence_is_bounded_with_the_usual_patience() {
    let hub = HostileHub::start(Habit::Silent, "");
    let done = hubproof(["check", &hub.url(), "--protocol", "qi"]).ends_with(1);
    assert!(done.took < Duration::from_secs(45), "{:?}", done.took);
}

#[rstest]
fn a_closed_port_is_no_verdict(#[dirs] #[files("schemas/*/messages")] protocol: PathBuf) {
    let protocol = &*protocol_name(&protocol);
    let done = hubproof(["check", &closed_port(), "--protocol", protocol]).ends_with(3);
    assert!(done.took < Duration::from_secs(20), "{:?}", done.took);
    assert!(done.out.contains("could not be reached"), "{}", done.out);
    if matches!(protocol, "concierge" | "qi") {
        assert_snapshot(&format!("{protocol}_closed_port"), &done);
    }
}
