//! All of them, with what brings each out. Words like these stand in no document and in no script.

use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Does, Slip};
use crate::fault::{Effect, Fault};
use crate::machine::Input;

/// Longer than what scripts say that is no JSON.
const LONG: usize = 24;
/// Deeper than any data, and as deep as most parsers go.
const DEEP: usize = 98;
/// How much slower with each error.
const WEARY: Duration = Duration::from_millis(50);

const fn slip(
    protocol: &'static str,
    id: &'static str,
    text: &'static str,
    rules: &'static [&'static str],
    when: fn(&Input) -> bool,
    does: Does,
) -> Fault {
    Fault { id, protocol, text, rules, effect: Effect::Slips(Slip { when, does }) }
}

const fn within(protocol: &'static str, id: &'static str, text: &'static str, rules: &'static [&'static str]) -> Fault {
    Fault { id, protocol, text, rules, effect: Effect::SlipsInside }
}

/// The members of a request to a gator.
const REQUEST: [&str; 4] = ["action", "req_id", "posted", "payload"];

const SERVES: &[&str] = &["FUZZ-SERVES-OLD", "FUZZ-SERVES-NEW"];
const REJECTS: &[&str] = &["FUZZ-REJECTS"];
const ANSWERS: &[&str] = &["FUZZ-ANSWERS"];
const ISOLATES: &[&str] = &["FUZZ-ISOLATES"];
const STEADY: &[&str] = &["FUZZ-STEADY"];

/// All of them.
pub static SLIPS: &[Fault] = &[
    slip(
        "qi",
        "qi-fuzz-nul-kills",
        "An escaped NUL anywhere in a text ends the hub.",
        SERVES,
        |input| text(input).contains("\\u0000"),
        Does::Dies,
    ),
    slip(
        "qi",
        "qi-fuzz-emoji-leaks",
        "The reply to a request whose session_id has letters beyond 16 bits reaches everybody.",
        ISOLATES,
        |input| member(input, "/session_id").is_some_and(|id| wide(id.as_str().unwrap_or_default())),
        Does::Leaks,
    ),
    slip(
        "qi",
        "qi-fuzz-binary-hangs",
        "After a binary message the hub says nothing to anybody.",
        SERVES,
        |input| matches!(input, Input::Binary { .. }),
        Does::Hangs,
    ),
    slip(
        "qi",
        "qi-fuzz-ping-wedges",
        "A WebSocket ping, between the fragments of a message for example, wedges its connection: nothing more is said there.",
        ANSWERS,
        |input| matches!(input, Input::Ping { .. }),
        Does::Wedges,
    ),
    slip(
        "qi",
        "qi-fuzz-more-unanswered",
        "A request with a member that nobody knows is not answered.",
        ANSWERS,
        |input| stranger(input, &["session_id", "command", "payload", "version"]),
        Does::Swallows,
    ),
    slip(
        "qi",
        "qi-fuzz-slower",
        "Each text that is no JSON makes the hub slower.",
        STEADY,
        garbled,
        Does::Slows(WEARY),
    ),
    slip(
        "concierge",
        "concierge-fuzz-nesting-kills",
        "Values a hundred deep within each other end the hub.",
        SERVES,
        |input| depth(text(input)) > DEEP,
        Does::Dies,
    ),
    slip(
        "concierge",
        "concierge-fuzz-surrogate-hangs",
        "Half of a surrogate pair makes the hub fall silent, to everybody.",
        SERVES,
        |input| SURROGATE.is_match(text(input)),
        Does::Hangs,
    ),
    slip(
        "concierge",
        "concierge-fuzz-garbled-leaks",
        "PROTOCOL for a payload that breaks off is sent to everybody.",
        ISOLATES,
        garbled,
        Does::Leaks,
    ),
    slip(
        "concierge",
        "concierge-fuzz-slower",
        "Each payload that breaks off makes the hub slower.",
        STEADY,
        garbled,
        Does::Slows(WEARY),
    ),
    slip(
        "concierge",
        "concierge-fuzz-desc-quotes",
        "PROTOCOL for a payload that breaks off tells what others have said.",
        ISOLATES,
        garbled,
        Does::Quotes("/desc"),
    ),
    within(
        "concierge",
        "concierge-fuzz-half-group",
        "A GROUP_CREATE with a name or nickname that is no string is answered with PROTOCOL, and founds a group all the same.",
        &["FUZZ-KEEPS"],
    ),
    within(
        "concierge",
        "concierge-fuzz-subscriptions-lost",
        "A payload that breaks off costs everybody else their subscriptions.",
        &["FUZZ-UNDISTURBED", "FUZZ-KEEPS"],
    ),
    slip(
        "emprops",
        "emprops-fuzz-negative-memory",
        "A job that asks for less than minus a thousand gigabytes is accepted.",
        REJECTS,
        |input| memory(text(input)).is_some(),
        Does::Reads(|text| memory(text).map(|range| format!("{}1{}", &text[..range.start], &text[range.end..]))),
    ),
    slip(
        "emprops",
        "emprops-fuzz-exponent-kills",
        "A number with an exponent of three digits ends the hub.",
        SERVES,
        |input| EXPONENT.is_match(text(input)),
        Does::Dies,
    ),
    slip(
        "emprops",
        "emprops-fuzz-type-any-case",
        "A type that begins with a capital is taken for the one in small letters.",
        REJECTS,
        |input| CAPITAL.is_match(text(input)),
        Does::Reads(|text| {
            Some(CAPITAL.replace(text, |found: &regex::Captures<'_>| found[0].to_lowercase()).into_owned())
        }),
    ),
    slip(
        "emprops",
        "emprops-fuzz-pong-leaks",
        "The pong for a ping with a member that nobody knows reaches everybody.",
        ISOLATES,
        |input| {
            let known = ["type", "timestamp", "id", "source", "job_id", "worker_id"];
            member(input, "/type").is_some_and(|kind| kind == "ping") && stranger(input, &known)
        },
        Does::Leaks,
    ),
    slip(
        "emprops",
        "emprops-fuzz-wide-hangs",
        "A message with more than fifteen hundred members or items makes the hub fall silent, to everybody.",
        SERVES,
        |input| text(input).bytes().filter(|byte| *byte == b',').count() > 1500,
        Does::Hangs,
    ),
    slip(
        "emprops",
        "emprops-fuzz-empty-unanswered",
        "A message of which an id or the source is empty is not answered.",
        ANSWERS,
        |input| {
            let empty = |pointer| member(input, pointer).is_some_and(|text| text == "");
            ["/id", "/source", "/job_id", "/worker_id"].into_iter().any(empty)
        },
        Does::Swallows,
    ),
    slip(
        "emprops",
        "emprops-fuzz-error-quotes",
        "The error about a message that breaks off tells what others have said.",
        ISOLATES,
        garbled,
        Does::Quotes("/error"),
    ),
    within(
        "emprops",
        "emprops-fuzz-unknown-frees-jobs",
        "A worker that says what is of no known type is told so, and its jobs are queued again.",
        &["FUZZ-KEEPS"],
    ),
    slip(
        "airavata",
        "airavata-fuzz-unknown-type-ponged",
        "A type that begins like ping is answered like one.",
        REJECTS,
        |input| text(input).contains("\"ping_"),
        Does::Reads(|text| PING.is_match(text).then(|| PING.replace(text, "\"ping\"").into_owned())),
    ),
    slip(
        "airavata",
        "airavata-fuzz-duplicate-hangs",
        "A member that comes twice makes the hub fall silent, to everybody.",
        SERVES,
        |input| twice(text(input)),
        Does::Hangs,
    ),
    slip(
        "airavata",
        "airavata-fuzz-garbled-unanswered",
        "A message that breaks off is not answered.",
        REJECTS,
        garbled,
        Does::Swallows,
    ),
    slip(
        "airavata",
        "airavata-fuzz-subscription-leaks",
        "The answer to a subscription with a member that nobody knows reaches everybody.",
        ISOLATES,
        |input| {
            let known = ["type", "id", "timestamp", "data", "error"];
            member(input, "/type").is_some_and(|kind| kind == "system_status") && stranger(input, &known)
        },
        Does::Leaks,
    ),
    slip(
        "airavata",
        "airavata-fuzz-inner-type-unanswered",
        "A message with a member called type deeper inside is not answered.",
        ANSWERS,
        |input| text(input).matches("\"type\":").count() > 1 && !twice(text(input)),
        Does::Swallows,
    ),
    slip(
        "airavata",
        "airavata-fuzz-byte-order-mark-kills",
        "A byte order mark in front of a message ends the hub.",
        SERVES,
        |input| text(input).starts_with('\u{feff}'),
        Does::Dies,
    ),
    slip(
        "gator",
        "gator-fuzz-digits-kills",
        "A number of more than a hundred digits ends the hub.",
        SERVES,
        |input| DIGITS.is_match(text(input)),
        Does::Dies,
    ),
    slip(
        "gator",
        "gator-fuzz-more-unanswered",
        "A request with a member that nobody knows is not answered.",
        ANSWERS,
        |input| stranger(input, &REQUEST),
        Does::Swallows,
    ),
    slip(
        "gator",
        "gator-fuzz-action-last-unanswered",
        "A request whose action comes behind all other members is not answered.",
        ANSWERS,
        |input| ACTION_LAST.is_match(text(input)),
        Does::Swallows,
    ),
    slip(
        "gator",
        "gator-fuzz-posted-answered",
        "A posted request with a member that nobody knows is answered.",
        ANSWERS,
        |input| stranger(input, &REQUEST) && member(input, "/posted") == Some(Value::Bool(true)),
        Does::Reads(|text| Some(POSTED.replace(text, "\"posted\":false").into_owned())),
    ),
    slip(
        "gator",
        "gator-fuzz-blank-hangs",
        "A message of nothing but blanks makes the hub fall silent, to everybody.",
        SERVES,
        |input| matches!(input, Input::Text { text, .. } if text.trim().is_empty()),
        Does::Hangs,
    ),
    slip(
        "gator",
        "gator-fuzz-slower",
        "Each message that breaks off makes the hub slower.",
        STEADY,
        garbled,
        Does::Slows(WEARY),
    ),
];

static SURROGATE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\\ud[89a-f][0-9a-f]{2}"));
static EXPONENT: LazyLock<Regex> = LazyLock::new(|| pattern(r"[:,\[]-?[0-9.]+[eE][+-]?[0-9]{3}"));
static DIGITS: LazyLock<Regex> = LazyLock::new(|| pattern("[0-9]{100}"));
static CAPITAL: LazyLock<Regex> = LazyLock::new(|| pattern(r#"^\{"type":"[A-Z][a-z_]+""#));
static PING: LazyLock<Regex> = LazyLock::new(|| pattern(r#""ping_[a-z]*""#));
static ACTION_LAST: LazyLock<Regex> = LazyLock::new(|| pattern(r#","action":"[a-z_]+"\}$"#));
static POSTED: LazyLock<Regex> = LazyLock::new(|| pattern(r#""posted":true"#));
static MEMORY: LazyLock<Regex> = LazyLock::new(|| pattern(r#""gpu_memory_gb":(-[0-9]{4,}(?:\.[0-9]+)?)"#));

/// A pattern of this file.
fn pattern(text: &str) -> Regex {
    // They are fixed, and each is used by a test of its fault.
    Regex::new(text).expect("a right pattern")
}

fn text(input: &Input) -> &str {
    match input {
        Input::Text { text, .. } => text,
        _ => "",
    }
}

fn member(input: &Input, pointer: &str) -> Option<Value> {
    serde_json::from_str::<Value>(text(input)).ok()?.pointer(pointer).cloned()
}

/// Text that is no JSON, and more than a script would write for it.
fn garbled(input: &Input) -> bool {
    let text = text(input);
    text.len() > LONG && serde_json::from_str::<IgnoredAny>(text).is_err()
}

fn wide(text: &str) -> bool {
    text.chars().any(|letter| u32::from(letter) > 0xffff)
}

/// The most brackets and braces that are open at a time; those within texts count, too.
fn depth(text: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

fn memory(text: &str) -> Option<std::ops::Range<usize>> {
    MEMORY.captures(text)?.get(1).map(|found| found.range())
}

/// Whether an object has members besides those that are known.
fn stranger(input: &Input, known: &[&str]) -> bool {
    let Ok(Value::Object(members)) = serde_json::from_str(text(input)) else { return false };
    !members.keys().all(|name| known.contains(&name.as_str()))
}

/// Whether a member of the outermost object comes twice.
fn twice(text: &str) -> bool {
    serde_json::from_str::<Twice>(text).is_ok_and(|Twice(twice)| twice)
}

struct Twice(bool);

impl<'de> Deserialize<'de> for Twice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Twice, D::Error> {
        deserializer.deserialize_map(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Twice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Twice, A::Error> {
        let mut names = HashSet::new();
        let mut twice = false;
        while let Some((name, IgnoredAny)) = members.next_entry::<String, IgnoredAny>()? {
            twice |= !names.insert(name);
        }
        Ok(Twice(twice))
    }
}
