//! The functions that `${...}` may call. All state they use is in the [`FunctionContext`]: they read no clock and draw
//! no random numbers, so that a conversation can be replayed exactly.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use minijinja::value::{Kwargs, Object, Value as Engine};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};
use parking_lot::Mutex;
use ring::hmac;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::expression::Call;
use super::size_limits::{MAX_BYTES, charge, limit_filters};
use super::value::{FrameObject, from_engine};
use crate::redact::SecretMasker;

/// The state of a run that functions see: its name, the time, and how often they were called.
pub struct FunctionContext {
    /// Distinguishes this run, scenario and repetition from all others; letters and digits.
    pub stamp: String,
    calls: AtomicU64,
    /// The ready tokens that `next_user()` has handed out, by position.
    users: Mutex<TakenTokens>,
    /// How many items `next_of()` has returned of each list, by the text of the list.
    taken: Mutex<BTreeMap<String, usize>>,
    /// The number of the conversation in the run: conversations take the items of a list in turn.
    turn: usize,
    /// Unix time in milliseconds, moved by the interpreter.
    now_ms: AtomicI64,
    /// The source of `frames(name)` while `always` is evaluated.
    frames: Mutex<Option<FrameLookup>>,
    names: NameForm,
    /// Learns the texts that are made from secrets.
    masker: Arc<SecretMasker>,
    /// The claims of all tokens, as JSON, and the users with ready tokens; `None` if they are too long to keep.
    claims: Mutex<Option<String>>,
    /// How many more bytes the functions of the current evaluation may make.
    memory: AtomicUsize,
}

/// The form of the names that [`FunctionContext`] makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameForm {
    #[default]
    Short,
    /// Names with the same prefix share their first 32 characters; so do UUIDs.
    Long,
    /// Names with the same prefix differ only in upper and lower case.
    Case,
    /// Names with the same prefix differ only in how `é` is written: as one character or as two.
    Unicode,
    /// Each name begins with the one before.
    Prefix,
    /// Each name ends with the one before of the same prefix.
    Suffix,
    /// Names with the same prefix differ only in the number of blanks between letters.
    Blanks,
}

/// The most bytes of claims that are kept.
const MAX_CLAIM_BYTES: usize = 64 << 10;

/// How many names in a row begin or end with each other; more would make them longer than hubs may expect.
const RELATED_NAMES: u64 = 24;

/// The positions of the ready tokens that are taken.
#[derive(Default)]
struct TakenTokens {
    actor: Option<usize>,
    by_actor: BTreeMap<usize, usize>,
    taken: usize,
}

impl TakenTokens {
    /// Returns the position of the current actor's token, or of the next free one.
    fn token_index(&mut self) -> usize {
        let known = self.actor.and_then(|actor| self.by_actor.get(&actor)).copied();
        known.unwrap_or_else(|| {
            let place = self.taken;
            self.taken += 1;
            self.by_actor.extend(self.actor.map(|actor| (actor, place)));
            place
        })
    }
}

/// The side whose frames a function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameSelection {
    Received,
    Sent,
    Both,
}

/// A function that returns the frames of a connection that carry the message of a given name.
pub type FrameLookup = Box<dyn Fn(FrameSelection, &str) -> Option<Vec<Engine>> + Send + Sync>;

impl std::fmt::Debug for FunctionContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FunctionContext").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

impl FunctionContext {
    pub fn new(stamp: impl Into<String>) -> Self {
        let (calls, users, now_ms) = (AtomicU64::new(0), Mutex::default(), AtomicI64::new(0));
        let taken = Mutex::default();
        let (names, memory) = (NameForm::default(), AtomicUsize::new(MAX_BYTES));
        Self {
            stamp: stamp.into(),
            calls,
            users,
            taken,
            turn: 0,
            now_ms,
            frames: Mutex::new(None),
            names,
            masker: Arc::default(),
            claims: Mutex::new(Some(String::new())),
            memory,
        }
    }

    pub fn with_masker(self, masker: Arc<SecretMasker>) -> Self {
        Self { masker, ..self }
    }

    pub fn masker(&self) -> &SecretMasker {
        &self.masker
    }

    fn add_claims(&self, text: &str) {
        let mut claims = self.claims.lock();
        *claims = claims.take().filter(|known| known.len() + text.len() <= MAX_CLAIM_BYTES).map(|known| known + text);
    }

    /// Returns what tokens say, where no message shows it; `None` if it is too long.
    pub fn claims(&self) -> Option<String> {
        self.claims.lock().clone()
    }

    pub fn with_names(self, names: NameForm) -> Self {
        Self { names, ..self }
    }

    /// Sets the number of the conversation in the run.
    pub fn with_turn(self, turn: usize) -> Self {
        Self { turn, ..self }
    }

    /// Returns the position of the next item of a list of this length, from the beginning again after the last.
    fn next_position(&self, list: String, length: usize) -> usize {
        let mut taken = self.taken.lock();
        let count = taken.entry(list).or_default();
        *count += 1;
        (self.turn + *count - 1) % length
    }

    pub fn set_now_ms(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    pub fn set_frames(&self, frames: FrameLookup) {
        *self.frames.lock() = Some(frames);
    }

    /// Sets the actor for which values are evaluated from now on, if any. An actor keeps its user when it joins again.
    pub fn set_actor(&self, actor: Option<usize>) {
        self.users.lock().actor = actor;
    }

    /// Begins an evaluation.
    pub fn allot_memory(&self) {
        self.memory.store(MAX_BYTES, Ordering::Relaxed);
    }

    /// Takes bytes from what the current evaluation may still use. Returns whether that was enough.
    pub fn use_memory(&self, bytes: usize) -> bool {
        let rest = self.memory.load(Ordering::Relaxed).checked_sub(bytes);
        self.memory.store(rest.unwrap_or(0), Ordering::Relaxed);
        rest.is_some()
    }

    fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    fn unique_name(&self, prefix: &str) -> String {
        let (stamp, call) = (&self.stamp, self.next_call());
        let bits = |zero: &str, one: &str| -> String {
            (0..(u64::BITS - call.leading_zeros()).max(10))
                .rev()
                .map(|bit| if call >> bit & 1 == 0 { zero } else { one })
                .collect()
        };
        match self.names {
            NameForm::Short => format!("{prefix}{stamp}x{call}"),
            // A stamp may end in x, so the padding stands before it.
            NameForm::Long => format!("{prefix}{stamp:x>32}x{call}"),
            NameForm::Case => format!("{prefix}{stamp}x{}", bits("n", "N")),
            NameForm::Unicode => format!("{prefix}{stamp}x{}", bits("\u{e9}", "e\u{301}")),
            NameForm::Prefix | NameForm::Suffix => {
                let (row, place) = (call / RELATED_NAMES, (call % RELATED_NAMES) as usize);
                if self.names == NameForm::Prefix {
                    format!("{prefix}{stamp}x{row}x{}", "1".repeat(place))
                } else {
                    let again = if prefix.is_empty() { "1" } else { prefix };
                    format!("{}{prefix}{stamp}x{row}", again.repeat(place))
                }
            }
            NameForm::Blanks => format!("{prefix}{stamp}{}x", bits("x ", "x  ")),
        }
    }

    /// Returns a UUID that differs from all others of this run.
    pub fn uuid(&self) -> uuid::Uuid {
        let call = self.next_call();
        let alike = self.names == NameForm::Long;
        let digest = Sha256::digest(if alike { self.stamp.clone() } else { format!("{}/{call}", self.stamp) });
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        if alike {
            // The last four of 36 characters.
            bytes[14..].copy_from_slice(&(call as u16).to_be_bytes());
        }
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

impl Object for FunctionContext {}

/// The name under which expressions see the [`FunctionContext`]; scenarios cannot use it.
pub const CONTEXT_NAME: &str = "__context";

/// Functions by name, for "did you mean".
pub const FUNCTION_NAMES: [&str; 25] = [
    "unique",
    NEXT_USER,
    NEXT_OF,
    "next_number",
    "uuid",
    "now_ms",
    "now_s",
    "now_iso",
    "epoch_ms",
    "is_json",
    "json",
    "sha256",
    "base64",
    "unbase64",
    "hex",
    "chunks",
    "repeat",
    "jwt",
    "differences",
    "next_version",
    "wire",
    "frames",
    "sent_frames",
    "all_frames",
    "due_ns",
];

/// The function that names a user: a new one, or the next one for which the target has a token.
pub const NEXT_USER: &str = "next_user";

/// The function that returns the next item of a list.
/// Stands for every message in `frames()` and `sent_frames()`.
pub const ANY_MESSAGE: &str = "any";
pub const NEXT_OF: &str = "next_of";

/// Functions that may return a different value each time for the same arguments.
pub const VARYING: [&str; 12] = [
    "unique",
    "next_number",
    NEXT_USER,
    NEXT_OF,
    "uuid",
    "now_ms",
    "now_s",
    "now_iso",
    "due_ns",
    "frames",
    "sent_frames",
    "all_frames",
];

/// Whether a call needs the settings in [`CREDENTIAL_SETTINGS`]. `jwt()` does not need them if it is given a key or
/// does not sign.
pub fn uses_credentials(call: &Call) -> bool {
    let is_unsigned = || call.named("alg").is_some_and(|value| value.is_some_and(|value| value == "none"));
    call.function == NEXT_USER || call.function == "jwt" && call.named("key").is_none() && !is_unsigned()
}

/// The settings that `jwt()` and `next_user()` use.
pub const CREDENTIAL_SETTINGS: [&str; 3] = [JWT_SECRET, TOKENS, "user_claim"];
/// The setting with the key that signs tokens.
pub const JWT_SECRET: &str = "jwt_secret";
/// The setting with ready tokens by user, for targets without a key.
pub const TOKENS: &str = "tokens";

fn function_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

pub(super) fn context_of(state: &State<'_, '_>) -> Result<Arc<FunctionContext>, Error> {
    state
        .lookup(CONTEXT_NAME)
        .and_then(|value| value.downcast_object::<FunctionContext>())
        .ok_or_else(|| function_error("this function is not available here"))
}

/// The engine's own filters.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env
});

/// Returns the environment in which all expressions are compiled.
pub fn build_environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(1_000_000));
    limit_filters(&mut env, &PLAIN);
    // Letters and digits only: a hub may allow nothing else in names.
    env.add_function("unique", |state: &State<'_, '_>, prefix: &str| {
        Ok::<_, Error>(context_of(state)?.unique_name(prefix))
    });
    env.add_function("is_json", |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
    env.add_function("next_number", |state: &State<'_, '_>| Ok::<_, Error>(context_of(state)?.next_call() + 1));
    env.add_function(NEXT_USER, next_user);
    env.add_function(NEXT_OF, next_of);
    env.add_function("uuid", |state: &State<'_, '_>| Ok::<_, Error>(context_of(state)?.uuid().to_string()));
    env.add_function("now_ms", |state: &State<'_, '_>| {
        Ok::<_, Error>(context_of(state)?.now_ms.load(Ordering::Relaxed))
    });
    env.add_function("now_s", |state: &State<'_, '_>| {
        Ok::<_, Error>(context_of(state)?.now_ms.load(Ordering::Relaxed) / 1000)
    });
    env.add_function("now_iso", |state: &State<'_, '_>| {
        let now = context_of(state)?.now_ms.load(Ordering::Relaxed);
        jiff::Timestamp::from_millisecond(now).map(|t| t.to_string()).map_err(|error| function_error(error.to_string()))
    });
    env.add_function("epoch_ms", epoch_ms);
    env.add_filter("epoch_ms", epoch_ms);
    env.add_function("json", to_json_text);
    env.add_filter("json", to_json_text);
    env.add_function("sha256", |text: &str| to_hex(&Sha256::digest(text)));
    env.add_function("base64", |state: &State<'_, '_>, text: &str| {
        charge(state, 2 * text.len())?;
        Ok::<_, Error>(BASE64_STANDARD.encode(text))
    });
    env.add_function("unbase64", unbase64);
    env.add_function("hex", |state: &State<'_, '_>, text: &str| {
        charge(state, 2 * text.len())?;
        Ok::<_, Error>(to_hex(text.as_bytes()))
    });
    env.add_function("chunks", chunks);
    env.add_function("repeat", |state: &State<'_, '_>, text: &str, n: usize| {
        charge(state, text.len().saturating_mul(n))?;
        Ok::<_, Error>(text.repeat(n))
    });
    env.add_function("jwt", jwt);
    env.add_function("differences", differences);
    env.add_filter("differences", differences);
    env.add_function("next_version", next_version);
    env.add_function("wire", wire);
    env.add_function("frames", |state: &State<'_, '_>, name: &str| {
        frames_of(state, "frames()", FrameSelection::Received, name)
    });
    env.add_function("sent_frames", |state: &State<'_, '_>, name: &str| {
        frames_of(state, "sent_frames()", FrameSelection::Sent, name)
    });
    env.add_function("all_frames", |state: &State<'_, '_>| {
        frames_of(state, "all_frames()", FrameSelection::Both, "any")
    });
    env.add_function("due_ns", || {
        Err::<Engine, _>(function_error("due_ns() works only as a whole value in a message of a load plan"))
    });
    env
}

/// Returns the frames of the connection that `always` judges.
fn frames_of(state: &State<'_, '_>, function: &str, which: FrameSelection, name: &str) -> Result<Vec<Engine>, Error> {
    let context = context_of(state)?;
    let frames = context.frames.lock();
    let frames = frames.as_ref().ok_or_else(|| function_error(format!("{function} works only under `always`")))?;
    frames(which, name).ok_or_else(|| function_error(format!("there is no message `{name}`")))
}

/// Returns the bytes in hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn to_json_text(value: Engine) -> Result<String, Error> {
    from_engine(&value, "json()").map(|value| value.to_string()).map_err(|error| function_error(error.to_string()))
}

/// Returns the Unix time in milliseconds of an ISO 8601 time; without an offset it is read as UTC.
fn epoch_ms(text: &str) -> Result<i64, Error> {
    let days = calendar_date(text);
    let time = days.as_deref().unwrap_or(text);
    time.parse::<jiff::Timestamp>()
        .or_else(|_| format!("{time}Z").parse())
        .map(jiff::Timestamp::as_millisecond)
        .map_err(|_| function_error(format!("`{text}` is not an ISO 8601 time")))
}

/// Returns the same time with year, month and day for a week date (2024-W03-1) or an ordinal date (2024-015), which
/// jiff does not read; `None` for others.
fn calendar_date(text: &str) -> Option<String> {
    let (date, time) = text.split_once('T')?;
    let date = date.replace('-', "");
    let (year, rest) = date.split_at_checked(4)?;
    let year: i16 = year.parse().ok()?;
    let date = if let Some((week, day)) = rest.strip_prefix('W').and_then(|rest| rest.split_at_checked(2)) {
        let weekday = jiff::civil::Weekday::from_monday_one_offset(day.parse().ok()?).ok()?;
        jiff::civil::ISOWeekDate::new(year, week.parse().ok()?, weekday).ok()?.date()
    } else if rest.len() == 3 {
        jiff::civil::Date::new(year, 1, 1).ok()?.with().day_of_year(rest.parse().ok()?).build().ok()?
    } else {
        return None;
    };
    let separated = if time.contains(':') { date.to_string() } else { date.strftime("%Y%m%d").to_string() };
    Some(format!("{separated}T{time}"))
}

/// Decodes each text of a list, and returns all bytes together as one text.
fn unbase64(state: &State<'_, '_>, texts: Vec<String>) -> Result<String, Error> {
    charge(state, texts.iter().map(String::len).sum())?;
    let decoded: Result<Vec<_>, _> = texts.iter().map(|text| BASE64_STANDARD.decode(text)).collect();
    let bytes = decoded.map_err(|error| function_error(format!("unbase64(): {error}")))?.concat();
    String::from_utf8(bytes).map_err(|error| function_error(format!("unbase64(): {error}")))
}

/// Splits a text into `n` pieces of about the same length, at character boundaries.
fn chunks(state: &State<'_, '_>, text: &str, n: usize) -> Result<Vec<String>, Error> {
    if n == 0 {
        return Err(function_error("chunks() needs at least one piece"));
    }
    charge(state, text.len() + n.saturating_mul(size_of::<String>()))?;
    let mut pieces = Vec::with_capacity(n);
    let mut rest = text;
    for left in (1..=n).rev() {
        let mut at = rest.len() / left;
        while !rest.is_char_boundary(at) {
            at += 1;
        }
        let (piece, remaining) = rest.split_at(at);
        pieces.push(piece.to_owned());
        rest = remaining;
    }
    Ok(pieces)
}

/// Returns how much each number exceeds the one before it.
fn differences(list: Engine) -> Result<Vec<Engine>, Error> {
    let mut numbers = Vec::new();
    for item in list.try_iter()? {
        if item.is_undefined() {
            return Err(Error::new(ErrorKind::UndefinedError, "differences() found a missing member in the list"));
        }
        numbers.push(item);
    }
    numbers
        .windows(2)
        .map(|pair| match (i128::try_from(pair[0].clone()), i128::try_from(pair[1].clone())) {
            (Ok(a), Ok(b)) => Ok(Engine::from(b - a)),
            _ => match (f64::try_from(pair[0].clone()), f64::try_from(pair[1].clone())) {
                (Ok(a), Ok(b)) => Ok(Engine::from(b - a)),
                _ => Err(function_error(format!("differences() needs numbers, not {} and {}", pair[0], pair[1]))),
            },
        })
        .collect()
}

/// Returns the version with its `major`, `minor` or `patch` part raised by one.
fn next_version(version: &str, part: &str) -> Result<String, Error> {
    let numbers: Option<Vec<u64>> =
        version.split(['-', '+']).next().unwrap_or_default().split('.').map(|n| n.parse().ok()).collect();
    let Some([major, minor, patch]) = numbers.as_deref() else {
        return Err(function_error(format!("`{version}` is not a semantic version")));
    };
    match part {
        "major" => Ok(format!("{}.0.0", major + 1)),
        "minor" => Ok(format!("{major}.{}.0", minor + 1)),
        "patch" => Ok(format!("{major}.{minor}.{}", patch + 1)),
        other => Err(function_error(format!("a version has no part `{other}`; write major, minor or patch"))),
    }
}

/// Returns a setting that the expression uses, if the target has it.
fn setting(state: &State<'_, '_>, name: &str) -> Option<Engine> {
    state
        .lookup("hub")
        .and_then(|hub| hub.get_attr(name).ok())
        .filter(|value| !value.is_undefined() && !value.is_none())
}

/// Returns a user that this scenario has not used: a new one, or the next for which the target has a ready token.
fn next_user(state: &State<'_, '_>) -> Result<String, Error> {
    let context = context_of(state)?;
    let Some(tokens) = setting(state, TOKENS).filter(|_| setting(state, JWT_SECRET).is_none()) else {
        return Ok(context.unique_name("user"));
    };
    let place = context.users.lock().token_index();
    let user = tokens.try_iter()?.nth(place).and_then(|user| user.as_str().map(str::to_owned));
    user.iter().for_each(|user| context.add_claims(user));
    user.ok_or_else(|| Error::new(ErrorKind::UndefinedError, "there is no token for another user"))
}

/// Returns the next item of a list, which the actors and scenarios of a run take in turn.
fn next_of(state: &State<'_, '_>, list: Engine) -> Result<Engine, Error> {
    let items: Vec<Engine> = list.try_iter().map_err(|_| function_error("next_of() needs a list"))?.collect();
    if list.kind() != minijinja::value::ValueKind::Seq || items.is_empty() {
        return Err(function_error("next_of() needs a list with at least one item"));
    }
    let position = context_of(state)?.next_position(list.to_string(), items.len());
    Ok(items[position].clone())
}

/// Returns a JSON Web Token with these claims. `key` defaults to the target's `jwt_secret`. Without a key, returns the
/// ready token of the user in the claims.
fn jwt(state: &State<'_, '_>, claims: Engine, options: Kwargs) -> Result<String, Error> {
    let claims = from_engine(&claims, "jwt()").map_err(|error| function_error(error.to_string()))?;
    context_of(state)?.add_claims(&claims.to_string());
    let algorithm: Option<String> = options.get("alg")?;
    let key: Option<String> = options.get("key")?;
    options.assert_all_used()?;
    let name = algorithm.as_deref().unwrap_or("HS256");
    let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"JWT","alg":"{name}"}}"#));
    let unsigned = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
    let algorithm = match name {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        "none" => return Ok(unsigned + "."),
        _ => {
            return Err(function_error(format!(
                "jwt() cannot sign with {name:?}: alg must be HS256, HS384, HS512 or none"
            )));
        }
    };
    let key = match key {
        Some(key) => key,
        None => match setting(state, JWT_SECRET).and_then(|key| key.as_str().map(str::to_owned)) {
            Some(key) => key,
            None => return ready_token(state, &claims),
        },
    };
    let signature = hmac::sign(&hmac::Key::new(algorithm, key.as_bytes()), unsigned.as_bytes());
    Ok(format!("{unsigned}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

fn ready_token(state: &State<'_, '_>, claims: &Value) -> Result<String, Error> {
    let tokens = setting(state, TOKENS).ok_or_else(|| function_error("jwt() needs the setting jwt_secret, or key="))?;
    let claim = setting(state, "user_claim").and_then(|claim| claim.as_str().map(str::to_owned));
    let user = claims[claim.as_deref().unwrap_or("sub")].as_str().unwrap_or_default();
    let token = tokens.get_attr(user).ok().and_then(|token| token.as_str().map(str::to_owned));
    token.ok_or_else(|| Error::new(ErrorKind::UndefinedError, format!("there is no token for the user {user}")))
}

/// Returns the wire of a frame: at (Unix ms), after (seconds since the connection opened), size, opcode, text.
fn wire(value: Engine) -> Result<Engine, Error> {
    let Some(frame) = value.downcast_object_ref::<FrameObject>() else {
        return Err(function_error("wire() needs a message that was sent or received"));
    };
    let wire = &frame.wire;
    Ok(Engine::from_pairs([
        ("at", Engine::from(wire.unix_ms)),
        ("after", Engine::from(wire.after.as_secs_f64())),
        ("size", Engine::from(wire.size)),
        ("opcode", Engine::from(wire.opcode)),
        ("text", Engine::from(&*wire.text)),
    ]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use rstest::rstest;

    #[rstest]
    fn conversations_have_no_name_in_common(
        #[values(
            NameForm::Short,
            NameForm::Long,
            NameForm::Case,
            NameForm::Unicode,
            NameForm::Prefix,
            NameForm::Suffix,
            NameForm::Blanks
        )]
        names: NameForm,
    ) {
        let named = |stamp: &str| {
            let context = FunctionContext::new(stamp).with_names(names);
            (0..200).map(|_| context.unique_name("client")).collect::<Vec<_>>()
        };
        // An x separates stamp and count, and is also a digit of stamps.
        let all = ["run1", "run1x", "run1xx", "run1x1", "runx1", "run1x1x"].map(named).concat();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[rstest]
    #[case(NameForm::Prefix, |longer: &str, shorter: &str| longer.starts_with(shorter))]
    #[case(NameForm::Suffix, |longer: &str, shorter: &str| longer.ends_with(shorter))]
    #[case(NameForm::Blanks, |one: &str, other: &str| one.replace(' ', "") == other.replace(' ', ""))]
    fn names_are_related(#[case] names: NameForm, #[case] is_related: fn(&str, &str) -> bool) {
        let context = FunctionContext::new("run1").with_names(names);
        let all: Vec<String> = (0..RELATED_NAMES).map(|_| context.unique_name("client")).collect();
        assert!(all.windows(2).all(|pair| is_related(&pair[1], &pair[0])), "{all:?}");
        assert!(all.iter().all(|name| name.starts_with("client")));
    }
}
