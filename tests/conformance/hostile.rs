//! Hostile servers: a check ends in bounded time and memory, with the right exit code and an understandable message.

use std::path::PathBuf;
use std::time::Duration;

use rstest::rstest;

use crate::support::disk::protocol_name;
use crate::support::hostile_servers::{Habit, HostileHub, closed_port};
use crate::support::process::{Done, hubproof, with_steady_text};

/// Time limit on a busy machine; on an idle one it takes seconds.
const LONGEST: Duration = Duration::from_secs(110);
/// Memory limit of a check in MiB.
const MOST_MEMORY: u64 = 250;
/// The limit with messages of maximal length: sixteen scenarios in parallel with inboxes of 24 MiB each, 48 MiB queued for
/// them, copies of the frames being handled, and memory that the allocator has not released.
const MOST_MEMORY_OF_GIANTS: u64 = 700;

/// A message of each protocol that its hub may send, but that no step expects.
fn unrelated(protocol: &str) -> &'static str {
    match protocol {
        "qi" => r#"{"session_id":"nobody","status":"success","payload":{},"version":"0.1.0"}"#,
        "concierge" => r#"{"type":"STATUS","code":"GROUP_DELETED","name":"nobody_knows"}"#,
        "airavata" => r#"{"id":"pong_1","type":"pong","timestamp":"2024-01-15T10:30:00Z"}"#,
        "emprops" => r#"{"type":"ping","timestamp":1705312345000}"#,
        "gator" => r#"{"action":"nobody","result":"success","rsp_id":0,"payload":{}}"#,
        other => panic!("no unsolicited message is known for {other}"),
    }
}

/// Returns the failed preconditions, the headings of the findings, and the verdict; without numbers, so that it does not
/// change with the number of scenarios.
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
    gist.push_str(done.verdict().lines().next().unwrap());
    gist.push('\n');
    gist
}

fn assert_snapshot(name: &str, done: &Done) {
    with_steady_text(|| {
        let mut settings = insta::Settings::clone_current();
        settings.add_filter(r"\b\d+(\s+)(scenario|frame|check|warning|cause|kind)s?\b", "N${1}$2(s)");
        settings.add_filter(r"\b\d+ (not judged|rules? not judged|of|testable|in the pack|needs?|more)\b", "N $1");
        settings.add_filter(r"\bof \d+\b", "of N");
        settings.add_filter(r"received, \d+ match", "received, N match");
        settings.add_filter(r"(\.yaml):\d+", "$1:LINE");
        settings.add_filter(r"  stopped     (.|\n)*?\n  reproduce ", "  stopped     SCENARIOS\n  reproduce ");
        settings.add_filter(r"--scenario \S+", "--scenario NAME");
        settings.bind(|| insta::assert_snapshot!(name, gist(done)));
    });
}

/// Checks the server. Asserts bounded time and memory, one of these exit codes, and these words in the output, ignoring
/// line breaks.
#[track_caller]
fn check(habit: Habit, protocol: &str, patience: &[&str], codes: &[i32], words: &str) -> Done {
    let hub = HostileHub::start(habit, unrelated(protocol));
    let url = hub.url();
    let mut arguments = vec!["check", &url, "--protocol", protocol];
    arguments.extend(patience);
    if protocol == "airavata" {
        // A client without a token may be refused; with the key every hub must accept the client.
        arguments.extend(["--set", "secrets.jwt_secret=the key of this hub"]);
    }
    let done = hubproof(arguments);
    let words_of_output = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(done.code.is_some_and(|code| codes.contains(&code)), "{:?}\n{}{}", done.code, done.out, done.err);
    assert!(words_of_output.contains(words), "{words:?} is missing in\n{}", done.out);
    assert!(done.took < LONGEST, "{:?}", done.took);
    let pours = matches!(habit, Habit::Giants | Habit::Numerous | Habit::Flood | Habit::Fragments);
    let most = if matches!(habit, Habit::Giants | Habit::Numerous) { MOST_MEMORY_OF_GIANTS } else { MOST_MEMORY };
    assert!(done.peak.is_none_or(|peak| peak < most), "{:?} MiB", done.peak);
    // Memory is known only on Linux, and not if the process ended before the first sample.
    assert!(done.peak.is_some() || !pours || !cfg!(target_os = "linux"), "no sample of its memory");
    let verdict = if done.code == Some(1) { "FAIL" } else { "INCONCLUSIVE" };
    assert!(done.verdict().starts_with(&format!("{verdict} {protocol}: ")), "{}", done.out);
    done
}

/// The default patience.
const USUAL: &[&str] = &[];
/// A patience of one second.
const SHORT: &[&str] = &["--patience", "0.2"];
/// A patience of a tenth of a second, for servers that never answer.
const SHORTEST: &[&str] = &["--set", "patience=500ms", "--patience", "0.2"];
/// A long patience, so that answers arrive in time.
const LONG: &[&str] = &["--patience", "0.6"];

#[rstest]
// No hub was reached, so nothing is reported about the protocol.
#[case::tls_alert(Habit::TlsAlert, USUAL, &[3], "the hub aborted the handshake with the alert HandshakeFailure: does it expect")]
#[case::tls_garbage(Habit::TlsGarbage, USUAL, &[3], "the answer is not TLS: should the address be ws:// instead of wss://?")]
#[case::tls_closes(Habit::TlsCloses, USUAL, &[3], "closed the connection during the handshake: should the address be ws:// instead of wss://?")]
#[case::tls_silent(Habit::TlsSilent, SHORT, &[3], "should the address be ws:// instead of wss://?")]
// Most likely the address is wrong, or a proxy answers.
#[case::not_found(Habit::NotFound, USUAL, &[3], "HTTP 404 instead of 101: is the path right?")]
#[case::server_error(Habit::ServerError, USUAL, &[3], "HTTP 500 instead of 101: the server failed; its log may say why; is the path right?")]
#[case::redirect(Habit::Redirect, USUAL, &[3], "HTTP 302 redirects to https://elsewhere.example/ws, but redirects are not followed: use that address instead")]
// It may be valid, but exceeds a limit.
#[case::endless_head(Habit::EndlessHead, USUAL, &[3], "its head has more than 100 lines, hubproof's limit")]
#[case::giant(Habit::Giant, USUAL, &[3], "a message of more than 12582912 bytes, hubproof's limit")]
#[case::endless(Habit::Endless, USUAL, &[3], "a message of more than 12582912 bytes, hubproof's limit")]
#[case::deep(Habit::Deep, LONG, &[3], "a received frame is JSON, but cannot be decoded by hubproof: it is nested deeper than 127 levels")]
#[case::digits(Habit::Digits, LONG, &[3], "a received frame is JSON, but cannot be decoded by hubproof: it holds a number beyond ±1.8e308")]
#[case::surrogate(Habit::Surrogate, LONG, &[3], "a received frame is JSON, but cannot be decoded by hubproof: it holds half a surrogate pair")]
// The same, but it depends on the machine whether the patience ends before the limit is exceeded.
#[case::fragments(Habit::Fragments, SHORT, &[1, 3], "")]
#[case::numerous(Habit::Numerous, LONG, &[1, 3], "")]
// No hub does this.
#[case::tcp_silent(Habit::TcpSilent, SHORT, &[1], "no answer to the upgrade within")]
#[case::tcp_closes(Habit::TcpCloses, SHORT, &[1], "the hub closed the connection before answering the upgrade")]
#[case::slow_head(Habit::SlowHead, SHORT, &[1], "no complete answer to the upgrade within")]
#[case::wrong_key(Habit::WrongKey, SHORT, &[1], "101, but with `Sec-WebSocket-Accept: bm90IHlvdXIga2V5` instead of")]
#[case::closes(Habit::Closes, SHORT, &[1], "the hub closed the connection with 1011 (out of order)")]
#[case::closes_and_hangs_up(Habit::ClosesAndHangsUp, SHORT, &[1], "the hub closed the connection with 1011 (out of order)")]
// In every protocol, a close frame and the choice of a subprotocol are judged by RFC 6455.
#[case::closes_with_1006(Habit::ClosesWith1006, SHORT, &[1], "a close frame has a code that may be sent (RFC 6455, section 7.4): a close frame with code 1006")]
#[case::closes_with_half_a_code(Habit::ClosesWithHalfACode, SHORT, &[1], "frames conform to RFC 6455, section 5.5.1: a close frame with a body of 1 byte; a code needs 2")]
#[case::closes_with_latin1(Habit::ClosesWithLatin1, SHORT, &[1], "a close frame with code 1011 whose reason is not UTF-8 at byte 3")]
#[case::own_subprotocol(Habit::OwnSubprotocol, SHORT, &[1], "101, but with the subprotocol `of-its-own`")]
#[case::hangs(Habit::Hangs, SHORT, &[1], "without a close frame")]
#[case::resets(Habit::Resets, SHORT, &[1], "the hub reset the connection in the middle of a message")]
#[case::echo(Habit::Echo, SHORT, &[1], "no matching message received")]
#[case::silent(Habit::Silent, SHORT, &[1], "no matching message received")]
#[case::slow(Habit::Slow, SHORT, &[1], "no matching message received")]
#[case::unrelated(Habit::Unrelated, SHORT, &[1], "no matching message received")]
#[case::shreds(Habit::Shreds, SHORT, &[1], "no matching message received")]
#[case::flood(Habit::Flood, SHORT, &[1], "no matching message received")]
#[case::giants(Habit::Giants, SHORT, &[1, 3], "")]
#[case::garbage_text(Habit::GarbageText, SHORT, &[1], "huh?!")]
#[case::garbage_bytes(Habit::GarbageBytes, SHORT, &[1], "reserved bits 111, but no extension was negotiated")]
#[case::no_utf8(Habit::NoUtf8, SHORT, &[1], "that is not UTF-8 at byte 9")]
fn a_hostile_server_is_reported_with_what_it_does(
    #[case] habit: Habit,
    #[case] patience: &[&str],
    #[case] codes: &[i32],
    #[case] words: &str,
) {
    let done = check(habit, "qi", patience, codes, words);
    // For servers that send or close at once, the first failure depends on timing; snapshots are compared for the
    // others only.
    if matches!(habit, Habit::Echo | Habit::Silent | Habit::TcpSilent | Habit::TcpCloses | Habit::NotFound) {
        assert_snapshot(&format!("qi_{habit:?}"), &done);
    }
}

/// The same for the other protocols, except what their documents state about the address.
#[rstest]
#[ignore = "thorough: repeats the proof in other protocols"]
fn a_hostile_server_fails_every_protocol(
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
fn a_server_that_is_not_a_hub_is_inconclusive_in_every_protocol(
    #[dirs]
    #[files("schemas/*/messages")]
    #[exclude("schemas/qi/")]
    protocol: PathBuf,
    #[values(Habit::TlsAlert, Habit::ServerError, Habit::Redirect, Habit::EndlessHead, Habit::Giant)] habit: Habit,
) {
    let protocol = &*protocol_name(&protocol);
    check(habit, protocol, USUAL, &[3], "");
}

/// If the document names the path, a server without it fails.
#[rstest]
#[case("airavata", 1)]
#[case("emprops", 1)]
#[case("gator", 3)]
#[case("concierge", 3)]
fn a_server_without_the_path_fails_if_the_document_names_the_path(#[case] protocol: &str, #[case] code: i32) {
    let done = check(Habit::NotFound, protocol, USUAL, &[code], "HTTP 404 instead of 101: is the path right?");
    if protocol == "concierge" {
        assert_snapshot("concierge_NotFound", &done);
    }
}

/// With the default patience, in which more frames arrive.
#[rstest]
#[ignore = "thorough: waits for real time"]
fn memory_is_limited_whatever_a_hostile_server_sends(#[values(Habit::Giants, Habit::Numerous)] habit: Habit) {
    check(habit, "qi", USUAL, &[1, 3], "");
}

/// With the default patience: a silent hub costs one patience per scenario, many in parallel.
#[test]
fn a_check_of_a_silent_hub_ends_in_limited_time() {
    let hub = HostileHub::start(Habit::Silent, "");
    let done = hubproof(["check", &hub.url(), "--protocol", "qi"]).ends_with(1);
    assert!(done.took < Duration::from_secs(45), "{:?}", done.took);
}

#[rstest]
fn a_closed_port_is_inconclusive(
    #[dirs]
    #[files("schemas/*/messages")]
    protocol: PathBuf,
) {
    let protocol = &*protocol_name(&protocol);
    let done = hubproof(["check", &closed_port(), "--protocol", protocol]).ends_with(3);
    assert!(done.took < Duration::from_secs(20), "{:?}", done.took);
    assert!(done.out.contains("could not be reached"), "{}", done.out);
    if matches!(protocol, "concierge" | "qi") {
        assert_snapshot(&format!("{protocol}_closed_port"), &done);
    }
}
