//! What must be true whatever was said: the oracles. They press as hard as the document and no harder. Where it names the
//! answer to some input (`fuzz` in shared.yaml), that answer must come; where it is silent, the hub must live, serve
//! others, leave them alone, and not tire.

use serde_json::{Map, Value, json};

use super::actors::{AT_ONCE, BATCH, INNOCENT, NEWCOMER, ODD, ROUND};
use super::corpus::expected_answer::{self, Answer, Input};
use super::corpus::prefix::{self, Next};
use super::corpus::{Corpus, renamed};
use super::mutate::payload::Class;
use super::placement::Placement;
use crate::protocol::{Level, MessageType, Place, Rule, rules};
use crate::scenario::compose;
use crate::syntax::source::Sources;
use crate::syntax::yaml;

/// How long a hub may take to serve others, whatever it has been told.
const BOUND: &str = "5s";
/// How long an answer is waited for that nobody has promised.
const MOMENT: &str = "25ms";
/// So many times what is said again and again is said.
pub const ROUNDS: usize = 20;
/// How much longer than before a question may take after that: so many times, and so many milliseconds beyond. Far more than
/// a busy machine adds five seconds on end, and asked until it is quick once.
pub(super) const SLOWER: (u32, u32) = (2, 250);

/// From here on a text is long.
const LONG: usize = 8 * 1024;

/// Names that a case binds.
const TOLD: &str = "told_of_the_odd";
const BEFORE: &str = "state_before";
const BEHIND: &str = "state_behind";
const OPEN: &str = "still_open";
const MISSING: &str = "still_missing";
const BRISK: &str = "brisk";
const TIRED: &str = "tired";

/// The odd thing, as far as oracles ask.
pub struct Odd<'a> {
    pub message: &'a MessageType,
    pub input: Input<'a>,
    /// What is said, with its expressions.
    pub said: Option<&'a Value>,
    pub sender: &'a str,
    /// How long the text is, in bytes.
    pub size: usize,
    /// It says who somebody else is, so that an answer may say so, too.
    pub names_another: bool,
    /// It breaks off, so that what comes next may be taken for the rest of it.
    pub is_unfinished: bool,
}

impl Odd<'_> {
    /// Input that has no right to change anything.
    fn is_wrong(&self) -> bool {
        matches!(self.input.class, Class::Invalid | Class::Unknown | Class::Malformed)
    }

    /// The oracle that asks for its answer.
    fn rule(&self) -> &'static str {
        if matches!(self.input.class, Class::Valid | Class::Unusual) { "FUZZ-ANSWERS" } else { "FUZZ-REJECTS" }
    }

    /// The sender has said whatever came to mind before, so that an answer may belong to that, or the hub may take its leave.
    fn is_strolling(&self) -> bool {
        self.input.placement == Placement::Walk
    }

    /// Whether the sender can be asked what is his, and nobody else can change it meanwhile.
    fn has_state(&self, material: &Corpus) -> bool {
        let alone = matches!(self.input.placement, Placement::Joined | Placement::Outside);
        self.is_wrong() && alone && Some(self.input.role) == material.bystander()
    }
}

/// The steps in front of the odd message.
pub fn before(material: &Corpus, odd: &Odd<'_>) -> Vec<Value> {
    let mut steps = Vec::new();
    if odd.input.placement == Placement::Repeated && material.timed_fence().is_some() {
        steps.push(json!({ format!("{INNOCENT} plays"): material.fence(), "as": BRISK }));
    }
    if let (true, Some((scene, _))) = (odd.has_state(material), material.state()) {
        steps.push(json!({ format!("{} plays", odd.sender): scene, "as": BEFORE }));
    }
    steps
}

/// The steps behind it. `rest` is how a conversation goes on that nobody may disturb.
pub fn behind(material: &Corpus, odd: &Odd<'_>, rest: Vec<Next>) -> Vec<Value> {
    let mut steps = Vec::new();
    let repeated = odd.input.placement == Placement::Repeated;
    let many = odd.input.placement.is_of_many();
    let answer = answer(material, odd);
    // Only what no hub can take for a message has no right to disturb, whether it is refused or not.
    let harmless = matches!(odd.input.class, Class::Malformed | Class::Broken);
    let undisturbed = harmless && odd.input.placement == Placement::Outside;
    let refusals = if odd.is_wrong() && !undisturbed && !rest.is_empty() { material.refusals() } else { &[] };
    let mut refused = false;
    if answer.is_none() && !repeated && !many {
        steps.push(heard(odd.sender, refusals));
        refused = !refusals.is_empty();
    }
    // Before whatever is owed to the sender, so that a hub that is gone is called so, and not one that does not answer.
    steps.extend(others_are_served(material));
    if repeated {
        steady(material, &mut steps);
    }
    if let Some(answer) = answer.filter(|_| !many) {
        refused = answered(material, odd, answer, &mut steps) && !refusals.is_empty();
    }
    // Behind its loop, whoever is somebody new each time is nobody.
    let anew = odd.input.placement == Placement::Anew;
    let sayable = |pattern: &Value| !anew || !pattern.to_string().contains(&format!("{}.", odd.sender));
    let private = private(material, odd, answer).into_iter();
    for (message, pattern, rule) in private.filter(|(_, pattern, _)| pattern.as_ref().is_none_or(sayable)) {
        let mut step = Map::from_iter([(format!("{INNOCENT} expects nothing"), json!(message))]);
        step.extend(pattern.map(|pattern| ("where".to_owned(), pattern)));
        step.extend([("for".to_owned(), json!("0s")), ("rules".to_owned(), json!([rule]))]);
        steps.push(Value::Object(step));
    }
    if undisturbed {
        steps.extend(rest.into_iter().map(|next| accusing(next, "FUZZ-UNDISTURBED", Level::Must)));
    } else if refused {
        // A refusal that the document does not name may have been meant for a part of it.
        let level = if answer.is_some() { Level::Must } else { Level::Should };
        steps.extend(goes_on(rest, level));
    }
    if !(answer.is_some() && material.serves_on()) {
        steps.extend(hears(material, odd).into_iter().flatten());
    }
    if let (Some(answer), false) = (answer, odd.is_strolling() || many) {
        never(material, odd, answer, odd.said, &mut steps);
    }
    if answer.is_some() {
        // The question may have overtaken what was said; its answer cannot.
        steps.push(stays(INNOCENT, &["FUZZ-SERVES-OLD".to_owned()]));
    }
    steps.push(lets_in(NEWCOMER));
    if material.fence().is_some() {
        steps.push(serves(material, NEWCOMER, "FUZZ-SERVES-NEW"));
        steps.push(stays(NEWCOMER, &["FUZZ-SERVES-NEW".to_owned()]));
    }
    steps
}

/// A step of the rest, which accuses of this, if of anything, and at most so.
fn accusing(Next { mut step, demand }: Next, oracle: &str, most: Level) -> Value {
    let rule = match demand.map(|demand| demand.min(most)) {
        None => return step,
        Some(Level::Must) => oracle.to_owned(),
        Some(lower) => format!("{oracle} as {}", lower.name()),
    };
    step["rules"] = json!([rule]);
    step
}

/// What was refused is said as it should be, and the conversation goes on, as far as it counts nothing: what was refused may
/// count.
fn goes_on(rest: Vec<Next>, most: Level) -> impl Iterator<Item = Value> {
    let counts = |step: &Value| step.get("where").is_some_and(|pattern| pattern.to_string().contains(" + "));
    let plain = rest.into_iter().take_while(move |next| next.step.get("if").is_none() && !counts(&next.step));
    plain.map(move |next| {
        let mut step = accusing(next, "FUZZ-KEEPS", most);
        step["if"] = json!(TOLD);
        step
    })
}

/// What the document says of it.
fn answer<'a>(material: &'a Corpus, odd: &Odd<'_>) -> Option<&'a Answer> {
    let once = odd.input.placement != Placement::Repeated;
    // No document says how long a text may be, so any hub may have enough of a long one.
    material.answer(&odd.input).filter(|_| once && odd.size <= LONG)
}

/// What the document says of it, and what that answer will speak of, by name.
pub fn promised<'a>(material: &'a Corpus, odd: &Odd<'_>) -> (Option<&'a Answer>, Map<String, Value>) {
    let answer = answer(material, odd);
    let said = answer.into_iter().flat_map(|answer| expected_answer::mentioned(answer, odd.said));
    (answer, said.map(|(path, value)| (word(&path), value)).collect())
}

/// Each of `rounds` is said and answered; whatever the first of them is like, the others are.
pub fn each(material: &Corpus, first: &Odd<'_>, rounds: Vec<Value>) -> Value {
    let answer = answer(material, first);
    let said = said_in_rounds(answer, first);
    if first.input.placement == Placement::Anew {
        return json!({ "each": ROUND, "in": rounds, "do": anew(material, first, answer, &said) });
    }
    let rounds: Vec<&[Value]> = rounds.chunks(AT_ONCE).collect();
    json!({ "each": BATCH, "in": rounds, "do": kept(material, first, answer, &said) })
}

/// What is said at once on a connection that is kept, when what was said before has been answered.
fn kept(material: &Corpus, first: &Odd<'_>, answer: Option<&Answer>, said: &Value) -> Vec<Value> {
    // A hub that has had enough may hang up: what it owes to one alone is asked where nothing else is said.
    let close = json!({ "close": ["any", "drop"] });
    let expects = match answer {
        // Each one that need not come would be waited for at length: that it should is asked where it is said once.
        Some(answer) if is_lowered(&accused(material, first.rule(), &answer.rules)) => Some(heard(first.sender, &[])),
        answer => answer.map(|answer| one_of(material, first, answer, said, Some(close))),
    };
    let of_all = |step: Value| json!({ "each": ROUND, "in": format!("${{{BATCH}}}"), "do": [step] });
    std::iter::once(says(first.sender)).chain(expects).map(of_all).collect()
}

fn says(sender: &str) -> Value {
    json!({ format!("{sender} sends raw"): { "text": format!("${{{ROUND}.text}}") }, "as": ODD })
}

/// What is said on a connection of its own, whatever the one before has said, and how it is answered. Where no answer is
/// waited for, others are asked, which gives one the time to come: a pong may overtake it, and the next round hangs up.
/// Otherwise behind all rounds, which take less time together than a hub may take for one question.
fn anew(material: &Corpus, first: &Odd<'_>, answer: Option<&Answer>, said: &Value) -> Vec<Value> {
    let mut steps = vec![lets_in(first.sender), says(first.sender)];
    match answer {
        Some(answer) if !answer.one_of.is_empty() => steps.extend(answered_anew(material, first, answer, said)),
        answer => {
            steps.extend(others_are_served(material));
            // What must not come is not to be taken for what was waited for.
            let any = answer.is_none().then(|| json!({ "message": "any" }));
            steps.extend(before_a_pong(first.sender, any));
        }
    }
    answer.into_iter().for_each(|answer| never(material, first, answer, Some(said), &mut steps));
    steps
}

/// Whoever was there before is there, and is answered.
fn others_are_served(material: &Corpus) -> [Value; 2] {
    [serves(material, INNOCENT, "FUZZ-SERVES-OLD"), stays(INNOCENT, &["FUZZ-SERVES-OLD".to_owned()])]
}

/// What the document names comes. If it does not, others are served all the same, so that a hub that is gone is called so,
/// and not one that does not answer.
fn answered_anew(material: &Corpus, odd: &Odd<'_>, answer: &Answer, said: &Value) -> [Value; 4] {
    let missing = [json!({ "close": ["any", "drop"], "as": MISSING }), json!({ "nothing": null, "as": MISSING })];
    let comes = one_of(material, odd, answer, said, missing);
    let [serves, stays] = others_are_served(material);
    let mut came = one_of(material, odd, answer, said, None);
    came["within"] = json!("0s");
    let [serves, stays, came] = [serves, stays, came].map(|mut step| {
        step["if"] = json!(MISSING);
        step
    });
    [comes, serves, stays, came]
}

/// What the answer speaks of, in each round.
fn said_in_rounds(answer: Option<&Answer>, odd: &Odd<'_>) -> Value {
    let mut said = Value::Null;
    for (path, _) in answer.into_iter().flat_map(|answer| expected_answer::mentioned(answer, odd.said)) {
        compose::put(&mut said, &path, json!(format!("${{{ROUND}.said.{}}}", word(&path))));
    }
    said
}

/// What the document names comes, or what is allowed besides.
fn one_of(
    material: &Corpus,
    odd: &Odd<'_>,
    answer: &Answer,
    said: &Value,
    besides: impl IntoIterator<Item = Value>,
) -> Value {
    let about = |alternative| expected_answer::about(alternative, Some(said));
    let alternatives: Vec<Value> = answer.one_of.iter().map(about).chain(besides).collect();
    json!({
        format!("{} expects one of", odd.sender): alternatives,
        "after": ODD,
        "rules": accused(material, odd.rule(), &answer.rules),
    })
}

/// A JSON pointer as a name.
fn word(path: &str) -> String {
    path.trim_start_matches('/').replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

/// What the document names comes; after an error the sender is served on, what is his is as it was, and he is told nothing of
/// anybody else's. Whether it is known behind it that there was an error.
fn answered(material: &Corpus, odd: &Odd<'_>, answer: &Answer, steps: &mut Vec<Value>) -> bool {
    if answer.one_of.is_empty() {
        return false;
    }
    let wrong = odd.is_wrong();
    let alternative = |alternative: &Value| {
        let mut alternative = expected_answer::about(alternative, odd.said);
        let refuses = wrong && alternative.get("message").is_some() && alternative.get("info").is_none();
        if let (true, Some(members)) = (refuses && alternative.get("fail").is_none(), alternative.as_object_mut()) {
            members.insert("as".to_owned(), json!(TOLD));
        }
        alternative
    };
    let mut alternatives: Vec<Value> = answer.one_of.iter().map(alternative).collect();
    if odd.is_strolling() {
        alternatives.retain(|alternative| alternative.get("fail").is_none());
        alternatives.iter_mut().filter_map(Value::as_object_mut).for_each(|members| drop(members.remove("warn")));
        alternatives.push(json!({ "close": ["any", "drop"] }));
    }
    let told = alternatives.iter().any(|alternative| alternative.get("as").is_some());
    steps.push(json!({
        format!("{} expects one of", odd.sender): alternatives,
        "after": ODD,
        "rules": accused(material, odd.rule(), &answer.rules),
    }));
    if !told || odd.is_strolling() || odd.input.placement == Placement::First {
        return false;
    }
    if let (Some(mark), false) = (material.mark(), odd.names_another) {
        let check = format!("${{{INNOCENT}.{mark} in json({TOLD})}}");
        steps.push(json!({ "check": check, "equals": false, "if": TOLD, "rules": ["FUZZ-ISOLATES"] }));
    }
    if let (Some(fence), rules @ [_, ..]) = (material.fence(), material.goes_on()) {
        let rules = accused(material, "FUZZ-GOES-ON", rules);
        let asks = [json!({ format!("{} plays", odd.sender): fence })];
        steps.push(json!({ "retry": BOUND, "do": asks, "if": TOLD, "rules": rules }));
        let mut stays = stays(odd.sender, &rules);
        stays["if"] = json!(TOLD);
        steps.push(stays);
    }
    if let (true, Some((scene, is))) = (odd.has_state(material), material.state()) {
        steps.push(json!({ format!("{} plays", odd.sender): scene, "as": BEHIND, "if": TOLD }));
        let state = |name: &str| renamed(&renamed(is, "state", name), "self", odd.sender);
        let (check, equals) = (state(BEHIND), state(BEFORE));
        steps.push(json!({ "check": check, "equals": equals, "if": TOLD, "rules": ["FUZZ-KEEPS"] }));
    }
    true
}

/// Whoever said something wrong is served on or hung up on, whatever the document says of it: a connection that is left open
/// is of some use.
fn hears(material: &Corpus, odd: &Odd<'_>) -> Option<[Value; 3]> {
    let alone = matches!(odd.input.placement, Placement::Joined | Placement::Repeated);
    let may_ask = odd.is_wrong() || odd.input.class == Class::Unspecified && !odd.is_unfinished && odd.size <= LONG;
    let [asks, answer] = material.question().filter(|_| alone && may_ask)?;
    let close = json!({ "close": ["any", "drop"] });
    let mut asks = prefix::by(asks, odd.sender);
    asks["if"] = json!(OPEN);
    let asked = asks["as"].clone();
    let mut comes = Map::from_iter([("message".to_owned(), answer["expects"].clone())]);
    comes.extend(answer.get("where").map(|pattern| ("where".to_owned(), pattern.clone())));
    Some([
        json!({
            format!("{} expects one of", odd.sender): [close, { "nothing": null, "as": OPEN }],
            "within": "0s",
        }),
        asks,
        json!({
            format!("{} expects one of", odd.sender): [comes, close],
            "after": asked,
            "if": OPEN,
            "rules": ["FUZZ-GOES-ON as should"],
        }),
    ])
}

/// What the document rules out has not come to whoever has `said` this.
fn never(material: &Corpus, odd: &Odd<'_>, answer: &Answer, said: Option<&Value>, steps: &mut Vec<Value>) {
    for (number, alternative) in answer.never.iter().enumerate() {
        let alternative = expected_answer::about(alternative, said);
        let Some(message) = alternative.get("message") else { continue };
        let name = format!("wrong_{number}");
        let mut step = Map::from_iter([(format!("{} expects", odd.sender), message.clone())]);
        step.extend(alternative.get("where").map(|pattern| ("where".to_owned(), pattern.clone())));
        step.extend([
            ("count".to_owned(), json!({ "min": 0 })),
            ("for".to_owned(), json!("0s")),
            ("after".to_owned(), json!(ODD)),
            ("as".to_owned(), json!(name)),
        ]);
        steps.push(Value::Object(step));
        let rule = if odd.input.class == Class::Valid { "FUZZ-ANSWERS" } else { "FUZZ-REJECTS" };
        let check = format!("${{{name} | length}}");
        steps.push(json!({ "check": check, "equals": 0, "rules": accused(material, rule, &answer.rules) }));
    }
}

/// A question takes hardly longer than it did before.
fn steady(material: &Corpus, steps: &mut Vec<Value>) {
    let Some((fence, asked, got)) = material.timed_fence() else { return };
    let took = |name: &str| format!("(wire({name}.{got}).at - wire({name}.{asked}).at)");
    let longer = format!("${{{} - {} * {}}}", took(TIRED), SLOWER.0, took(BRISK));
    let asks = [
        json!({ format!("{INNOCENT} plays"): fence, "as": TIRED }),
        json!({ "check": longer, "fits": { "maximum": SLOWER.1 }, "rules": ["FUZZ-STEADY"] }),
    ];
    steps.push(json!({ "retry": BOUND, "do": asks }));
}

/// Somebody new comes in. A hub that has room for so many may need a moment to notice that others have left.
pub(super) fn lets_in(actor: &str) -> Value {
    json!({ "retry": BOUND, "do": [{ format!("{actor} joins"): null }], "rules": ["FUZZ-SERVES-NEW"] })
}

/// Somebody asks for something cheap and gets it; without a fence of the protocol, a ping of WebSocket's.
pub(super) fn serves(material: &Corpus, actor: &str, rule: &str) -> Value {
    let asks = match material.fence() {
        Some(scene) => vec![json!({ format!("{actor} plays"): scene })],
        None => vec![
            json!({ format!("{actor} sends raw"): { "frames": [{ "opcode": "ping", "data": "there?" }] } }),
            json!({ format!("{actor} expects frame"): "pong", "where": { "data": "there?" } }),
        ],
    };
    json!({ "retry": BOUND, "do": asks, "rules": [rule] })
}

/// Whatever the sender is told all the same is waited for a moment, so that its schema judges it: nobody else's questions
/// tell that it has come. That it was refused is known behind it.
fn heard(sender: &str, refusals: &[Value]) -> Value {
    let mut alternatives = refusals.to_vec();
    alternatives.iter_mut().for_each(|refusal| refusal["as"] = json!(TOLD));
    alternatives.extend([json!({ "message": "any" }), json!({ "close": ["any", "drop"] }), json!({ "nothing": null })]);
    json!({
        format!("{sender} expects one of"): alternatives,
        "after": ODD,
        "within": MOMENT,
    })
}

/// The same for what is `awaited`, and no longer than a hub takes that answers a ping of WebSocket's behind it.
fn before_a_pong(sender: &str, awaited: Option<Value>) -> [Value; 2] {
    let ping = json!({ "frames": [{ "opcode": "ping", "data": "heard?" }] });
    let pong = json!({ "frame": "pong", "where": { "data": "heard?" } });
    let others = [pong, json!({ "close": ["any", "drop"] }), json!({ "nothing": null })];
    let all: Vec<Value> = awaited.into_iter().chain(others).collect();
    [
        json!({ format!("{sender} sends raw"): ping }),
        json!({ format!("{sender} expects one of"): all, "after": ODD, "within": MOMENT }),
    ]
}

/// The connection is still there: where it is not, nobody asks, so nobody would be found not to be answered.
fn stays(actor: &str, rules: &[String]) -> Value {
    json!({
        format!("{actor} expects one of"): [{ "close": ["any", "drop"], "fail": "its connection is gone" }, { "nothing": null }],
        "within": "0s",
        "rules": rules,
    })
}

/// An oracle with the rules it follows from, at most as high as the highest of them.
fn accused(material: &Corpus, oracle: &str, rules: &[String]) -> Vec<String> {
    let level = |rule: &String| match rule.split_once(" as ") {
        Some((_, level)) => Level::from_name(level),
        None => material.pack.rules.get(rule).map(|rule| rule.level),
    };
    let oracle = match rules.iter().filter_map(level).max() {
        None | Some(Level::Must) => oracle.to_owned(),
        Some(lower) => format!("{oracle} as {}", lower.name()),
    };
    std::iter::once(oracle).chain(rules.iter().cloned()).collect()
}

/// Whether the oracle in front only warns, or tells.
fn is_lowered(accused: &[String]) -> bool {
    accused.first().is_some_and(|oracle| oracle.contains(" as "))
}

/// A message, what it is like, and the rule that it breaks where it does not belong.
type Private = (String, Option<Value>, &'static str);

/// Messages that only whoever asked may get, with what they are like: replies to this message, and those by which input of
/// its kind is refused. Where the hub may send such a message unasked, too, it is only odd that it comes just now.
fn private(material: &Corpus, odd: &Odd<'_>, answer: Option<&Answer>) -> Vec<Private> {
    let unasked = |name: &str| material.pack.message(name).is_some_and(|message| message.directions.unasked);
    let open = material.open();
    let rule = |name: &str| {
        let may_come = unasked(name) || open.iter().any(|known| known == name);
        if may_come { "FUZZ-ISOLATES as should" } else { "FUZZ-ISOLATES" }
    };
    let replies = odd.message.replies.iter().filter(|name| !unasked(name));
    let mut found: Vec<Private> = replies.map(|name| (name.clone(), None, rule(name))).collect();
    found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    found.dedup_by(|(one, ..), (other, ..)| one == other);
    for alternative in answer.map_or(&[][..], |answer| &answer.one_of) {
        let alternative = expected_answer::about(alternative, odd.said);
        let Some(name) = alternative.get("message").and_then(Value::as_str) else { continue };
        if name == "any" || found.iter().any(|(known, pattern, _)| known == name && pattern.is_none()) {
            continue;
        }
        found.push((name.to_owned(), alternative.get("where").cloned(), rule(name)));
    }
    found
}

/// The oracles as rules, so that they are reported as rules are.
pub fn rules(sources: &mut Sources) -> Vec<Rule> {
    let file = sources.add("oracles.yaml", include_str!("oracles.yaml"));
    let mut diagnostics = Vec::new();
    let parsed = yaml::parse(sources, file).map(|root| rules::parse(&root, &mut diagnostics).rules);
    let ours = |rule: Rule| Rule { place: Place::Oracle, ..rule };
    parsed.map(|rules| rules.into_values().map(ours).collect()).unwrap_or_default()
}
