//! Load on servers that are no hub: it ends in bounded time and memory, whatever they pour out.

use std::time::Duration;

use rstest::rstest;
use serde_json::Value;

use crate::cli_process::hubproof;
use crate::hostile_hubs::{Habit, HostileHub};

/// MiB that a run may hold: 250 for all that each shard keeps of unfinished messages, 16 for what waits to be validated, the
/// tree of the longest message, and what the allocator keeps of all that. There is a shard to a core.
fn most_memory() -> u64 {
    let shards = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    300 * shards + 300
}

/// `counted`: what at least one of them is counted as.
#[rstest]
#[case::silent(Habit::Silent, "session.failed")]
#[case::closes(Habit::Closes, "errors.lost")]
#[case::resets(Habit::Resets, "errors.lost")]
#[case::garbage_bytes(Habit::GarbageBytes, "errors.protocol")]
#[case::no_utf8(Habit::NoUtf8, "errors.protocol")]
#[case::garbage_text(Habit::GarbageText, "errors.invalid")]
#[case::echo(Habit::Echo, "errors.invalid")]
#[case::deep(Habit::Deep, "errors.invalid")]
#[case::shreds(Habit::Shreds, "session.failed")]
#[case::flood(Habit::Flood, "session.failed")]
#[case::giants(Habit::Giants, "errors.invalid")]
#[case::numerous(Habit::Numerous, "errors.invalid")]
#[case::giant(Habit::Giant, "errors.protocol")]
#[case::endless(Habit::Endless, "errors.protocol")]
#[case::fragments(Habit::Fragments, "errors.protocol")]
fn whatever_a_hub_pours_out(#[case] habit: Habit, #[case] counted: &str) {
    let unrelated = r#"{"session_id":"nobody","status":"success","payload":{},"version":"0.1.0"}"#;
    let hub = HostileHub::start(habit, unrelated);
    let arguments = ["load", &hub.url(), "--protocol", "qi", "--plan", "sessions"];
    let numbers = ["--rate", "40", "--warm-up", "0s", "--duration", "2s", "--drain", "2s", "--ramp", "100ms"];
    let outputs = ["--validate", "all", "--report", "json=-", "--seed", "7"];
    let done = hubproof(arguments.into_iter().chain(numbers).chain(outputs)).ends_with(3);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert!(report["counts"][counted]["whole_run"].as_u64() > Some(0), "{}", report["counts"]);
    assert!(done.took < Duration::from_secs(60), "{:?}", done.took);
    assert!(done.peak < most_memory() && (done.peak > 0 || !cfg!(target_os = "linux")), "{} MiB", done.peak);
}
