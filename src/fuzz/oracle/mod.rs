//! The steps with which the oracles check a hub. They demand what the document demands and no more. If the document
//! names the answer to an input (`fuzz.answers` of shared.yaml), that answer must come. If it does not, the hub must
//! stay alive, serve other clients, send them no answer to the input, and not slow down.

use serde_json::{Map, Value, json};

use super::actors::{AT_ONCE, BATCH, MUTATED, NEW_CLIENT, OBSERVER, ROUND};
use super::corpus::Corpus;
use super::corpus::expected_answer::{self, Answer, Input};
use super::corpus::prefix::{self, Next};
use super::expressions;
use super::mutate::payload::Class;
use super::placement::Placement;
use super::step_rule::StepRule;
use crate::protocol::{Level, MessageType, Place, Rule, rules};
use crate::scenario::compose;
use crate::scenario::template::Expr;
use crate::syntax::source::Sources;
use crate::syntax::yaml;

/// How long a hub may take to serve other clients.
const BOUND: &str = "5s";
/// How long the oracles wait for an answer that the document does not demand.
const MOMENT: &str = "25ms";
/// The number of messages of a case with the placement `repeated`.
pub const ROUNDS: usize = 20;
/// How much longer than before a request may take: a factor, and additional milliseconds. A busy machine does not delay
/// every attempt within five seconds by that much.
pub(super) const SLOWER: (u32, u32) = (2, 250);

/// The size in bytes above which a hub may refuse a text as too long.
const LONG: usize = 8 * 1024;

// Names that a case binds.
/// An answer that refuses the mutated message.
const REFUSED: &str = "refused_with";
const STATE_BEFORE: &str = "state_before";
const STATE_AFTER: &str = "state_after";
const OPEN: &str = "still_open";
const MISSING: &str = "still_missing";
/// The fences before and after the mutated messages; the oracle compares their response times.
const FENCE_BEFORE: &str = "fence_before";
const FENCE_AFTER: &str = "fence_after";

/// The properties of a mutated message on which oracles depend.
pub struct MutatedInput<'a> {
    pub message: &'a MessageType,
    pub input: Input<'a>,
    /// The payload, with its expressions.
    pub sent: Option<&'a Value>,
    pub sender: &'a str,
    /// The number of bytes sent.
    pub size: usize,
    /// Whether the input contains the identity of the observer client, so that the answer may also contain it.
    pub names_another: bool,
    /// Whether the last frame of the input is missing, so that a hub may take the next frame as the rest of the input.
    pub is_unfinished: bool,
}

impl MutatedInput<'_> {
    /// Whether the input is invalid and therefore must not change anything.
    fn is_wrong(&self) -> bool {
        matches!(self.input.class, Class::Invalid | Class::Unknown | Class::Malformed)
    }

    /// Returns the oracle that demands an answer to the input.
    fn rule(&self) -> &'static str {
        if matches!(self.input.class, Class::Valid | Class::Unusual) { "FUZZ-ANSWERS" } else { "FUZZ-REJECTS" }
    }

    /// Whether the sender sent random messages before, so that an answer may belong to one of them, or the hub may
    /// close.
    fn is_in_walk(&self) -> bool {
        self.input.placement == Placement::Walk
    }

    /// Whether the state of the sender can be queried, and no other client of the case can change it.
    fn has_state(&self, corpus: &Corpus) -> bool {
        let alone = matches!(self.input.placement, Placement::Joined | Placement::Outside);
        self.is_wrong() && alone && Some(self.input.role) == corpus.observer_role()
    }
}

/// Returns the steps before the mutated message.
pub fn before(corpus: &Corpus, mutated: &MutatedInput<'_>) -> Vec<Value> {
    let mut steps = Vec::new();
    if mutated.input.placement == Placement::Repeated && corpus.timed_fence().is_some() {
        steps.push(json!({ format!("{OBSERVER} plays"): corpus.fence(), "as": FENCE_BEFORE }));
    }
    if let (true, Some((scene, _))) = (mutated.has_state(corpus), corpus.state()) {
        steps.push(json!({ format!("{} plays", mutated.sender): scene, "as": STATE_BEFORE }));
    }
    steps
}

/// Returns the steps after the mutated message. `rest` are the remaining steps of the scenario that the prefix comes
/// from.
pub fn behind(corpus: &Corpus, mutated: &MutatedInput<'_>, rest: Vec<Next>) -> Vec<Value> {
    behind_at(corpus, mutated, rest, Level::Must)
}

/// Like [`behind`], but new clients must be served only at the level `serves_new`.
pub fn behind_at(corpus: &Corpus, mutated: &MutatedInput<'_>, rest: Vec<Next>, serves_new: Level) -> Vec<Value> {
    let mut steps = Vec::new();
    let repeated = mutated.input.placement == Placement::Repeated;
    let many = mutated.input.placement.is_of_many();
    let answer = answer(corpus, mutated);
    // Only input that no hub can take for a message must leave other clients undisturbed, whether it is refused or not.
    let harmless = matches!(mutated.input.class, Class::Malformed | Class::Broken);
    let undisturbed = harmless && mutated.input.placement == Placement::Outside;
    let refusals = if mutated.is_wrong() && !undisturbed && !rest.is_empty() { corpus.refusals() } else { &[] };
    let mut refused = false;
    if answer.is_none() && !repeated && !many {
        steps.push(any_answer(mutated.sender, refusals));
        refused = !refusals.is_empty();
    }
    // Check this before the answer to the sender, so that a dead hub is reported as dead rather than as not answering.
    steps.extend(others_are_served(corpus));
    if repeated {
        steady(corpus, &mut steps);
    }
    if let Some(answer) = answer.filter(|_| !many) {
        refused = answered(corpus, mutated, answer, &mut steps) && !refusals.is_empty();
    }
    // After the loop of placement `anew`, expressions of the sender have no value.
    let anew = mutated.input.placement == Placement::Anew;
    let has_value = |pattern: &Value| !anew || !expressions::uses(pattern, mutated.sender);
    let private = private(corpus, mutated, answer).into_iter();
    for (message, pattern, rule) in private.filter(|(_, pattern, _)| pattern.as_ref().is_none_or(has_value)) {
        let mut step = Map::from_iter([(format!("{OBSERVER} expects nothing"), json!(message))]);
        step.extend(pattern.map(|pattern| ("where".to_owned(), pattern)));
        step.extend([("for".to_owned(), json!("0s")), ("rules".to_owned(), json!([rule]))]);
        steps.push(Value::Object(step));
    }
    if undisturbed {
        steps.extend(rest.into_iter().map(|next| as_check(next, "FUZZ-UNDISTURBED", Level::Must)));
    } else if refused {
        // If the document does not name the refusal, the hub may have refused only a part of the input.
        let level = if answer.is_some() { Level::Must } else { Level::Should };
        steps.extend(goes_on(rest, level));
    }
    if !(answer.is_some() && corpus.serves_on()) {
        steps.extend(is_served_or_closed(corpus, mutated).into_iter().flatten());
    }
    if let (Some(answer), false) = (answer, mutated.is_in_walk() || many) {
        never(corpus, mutated, answer, mutated.sent, &mut steps);
    }
    if answer.is_some() {
        // The request may have overtaken the mutated message, but by now the hub has read both.
        steps.push(stays(OBSERVER, &[StepRule::new("FUZZ-SERVES-OLD", None)]));
    }
    let serves_new = StepRule::at_most("FUZZ-SERVES-NEW", serves_new);
    steps.push(joins(NEW_CLIENT, &serves_new));
    if corpus.fence().is_some() {
        steps.push(serves(corpus, NEW_CLIENT, &serves_new));
        steps.push(stays(NEW_CLIENT, &[serves_new]));
    }
    steps
}

/// Returns a step of the rest of a scenario. If the step has rules, `oracle` replaces them, at a level of at most
/// `most`.
fn as_check(Next { mut step, demand }: Next, oracle: &str, most: Level) -> Value {
    if let Some(demand) = demand {
        step["rules"] = json!([StepRule::at_most(oracle, demand.min(most))]);
    }
    step
}

/// Returns the rest of the conversation after a refusal, with the valid message instead of the mutated one. Stops
/// before a step that counts messages, since a hub may count the refused message.
fn goes_on(rest: Vec<Next>, most: Level) -> impl Iterator<Item = Value> {
    let counts = |step: &Value| step.get("where").is_some_and(|pattern| expressions::any(pattern, &Expr::adds));
    let plain = rest.into_iter().take_while(move |next| next.step.get("if").is_none() && !counts(&next.step));
    plain.map(move |next| {
        let mut step = as_check(next, "FUZZ-KEEPS", most);
        step["if"] = json!(REFUSED);
        step
    })
}

/// Returns the answer that the document demands.
fn answer<'a>(corpus: &'a Corpus, mutated: &MutatedInput<'_>) -> Option<&'a Answer> {
    let once = mutated.input.placement != Placement::Repeated;
    // Documents state no maximum length, so a hub may refuse any long text.
    corpus.answer(&mutated.input).filter(|_| once && mutated.size <= LONG)
}

/// Returns the answer that the document demands, and the members of the input that it must mention, by name.
pub fn promised<'a>(corpus: &'a Corpus, mutated: &MutatedInput<'_>) -> (Option<&'a Answer>, Map<String, Value>) {
    let answer = answer(corpus, mutated);
    let sent = mentioned(answer, mutated).into_iter();
    (answer, sent.map(|member| (member.name, member.value)).collect())
}

/// A member of the input that the answer must mention.
struct Mentioned {
    pointer: String,
    /// The name of the member within a round.
    name: String,
    value: Value,
}

fn mentioned(answer: Option<&Answer>, mutated: &MutatedInput<'_>) -> Vec<Mentioned> {
    let sent = answer.map(|answer| expected_answer::mentioned(answer, mutated.sent)).unwrap_or_default();
    let names = expressions::loop_names(sent.iter().map(|(pointer, _)| pointer.as_str()));
    let one = |((pointer, value), name)| Mentioned { pointer, name, value };
    sent.into_iter().zip(names).map(one).collect()
}

/// Returns the loop that sends each message of `rounds` and checks its answer. All demand the same answer as `first`.
pub fn each(corpus: &Corpus, first: &MutatedInput<'_>, rounds: Vec<Value>) -> Value {
    let answer = answer(corpus, first);
    let sent = sent_in_rounds(answer, first);
    if first.input.placement == Placement::Anew {
        return json!({ "each": ROUND, "in": rounds, "do": anew(corpus, first, answer, &sent) });
    }
    let rounds: Vec<&[Value]> = rounds.chunks(AT_ONCE).collect();
    json!({ "each": BATCH, "in": rounds, "do": kept(corpus, first, answer, &sent) })
}

/// Returns the steps of a batch on a shared connection. The next batch is sent once all answers have come.
fn kept(corpus: &Corpus, first: &MutatedInput<'_>, answer: Option<&Answer>, sent: &Value) -> Vec<Value> {
    // A hub may close after many invalid messages. Other placements check whether it may close after one.
    let close = json!({ "close": ["any", "drop"] });
    let expects = match answer {
        // An optional answer would cost a wait per message; other placements check it.
        Some(answer) if is_lowered(&with_rules(corpus, first.rule(), &answer.rules)) => {
            Some(any_answer(first.sender, &[]))
        }
        answer => answer.map(|answer| one_of(corpus, first, answer, sent, Some(close))),
    };
    let of_all = |step: Value| json!({ "each": ROUND, "in": format!("${{{BATCH}}}"), "do": [step] });
    std::iter::once(sends(first.sender)).chain(expects).map(of_all).collect()
}

fn sends(sender: &str) -> Value {
    json!({ format!("{sender} sends raw"): { "text": format!("${{{ROUND}.text}}") }, "as": MUTATED })
}

/// Returns the steps for a message on a connection of its own. If no answer is demanded, the observer client's request
/// gives an answer time to come: a pong may overtake the answer, and the next round closes the connection. If an answer
/// is demanded, other clients are checked after the loop: all rounds together take less time than a hub may take for
/// one request.
fn anew(corpus: &Corpus, first: &MutatedInput<'_>, answer: Option<&Answer>, sent: &Value) -> Vec<Value> {
    let mut steps = vec![connects(first.sender), sends(first.sender)];
    match answer {
        Some(answer) if !answer.one_of.is_empty() => steps.extend(answered_anew(corpus, first, answer, sent)),
        answer => {
            steps.extend(others_are_served(corpus));
            // If some answers are forbidden, expect only the pong, so that this step does not consume one of them.
            let any = answer.is_none().then(|| json!({ "message": "any" }));
            steps.extend(before_a_pong(first.sender, any));
        }
    }
    answer.into_iter().for_each(|answer| never(corpus, first, answer, Some(sent), &mut steps));
    steps
}

/// Checks that the observer client is still connected and served.
fn others_are_served(corpus: &Corpus) -> [Value; 2] {
    let rule = StepRule::new("FUZZ-SERVES-OLD", None);
    [serves(corpus, OBSERVER, &rule), stays(OBSERVER, &[rule])]
}

/// Checks that the demanded answer comes. If it does not, the observer client is checked first, so that a dead hub is
/// reported as dead rather than as not answering.
fn answered_anew(corpus: &Corpus, mutated: &MutatedInput<'_>, answer: &Answer, sent: &Value) -> [Value; 4] {
    let missing = [json!({ "close": ["any", "drop"], "as": MISSING }), json!({ "nothing": null, "as": MISSING })];
    let comes = one_of(corpus, mutated, answer, sent, missing);
    let [serves, stays] = others_are_served(corpus);
    let mut came = one_of(corpus, mutated, answer, sent, None);
    came["within"] = json!("0s");
    let [serves, stays, came] = [serves, stays, came].map(|mut step| {
        step["if"] = json!(MISSING);
        step
    });
    [comes, serves, stays, came]
}

/// Returns the members of the input that the answer must mention, as expressions on the current round.
fn sent_in_rounds(answer: Option<&Answer>, mutated: &MutatedInput<'_>) -> Value {
    let mut sent = Value::Null;
    for Mentioned { pointer, name, .. } in mentioned(answer, mutated) {
        compose::put(&mut sent, &pointer, json!(expressions::member(&format!("{ROUND}.sent"), &[name])));
    }
    sent
}

/// Expects the demanded answer, or one of `besides`.
fn one_of(
    corpus: &Corpus,
    mutated: &MutatedInput<'_>,
    answer: &Answer,
    sent: &Value,
    besides: impl IntoIterator<Item = Value>,
) -> Value {
    let about = |alternative| expected_answer::about(alternative, Some(sent));
    let alternatives: Vec<Value> = answer.one_of.iter().map(about).chain(besides).collect();
    json!({
        format!("{} expects one of", mutated.sender): alternatives,
        "after": MUTATED,
        "rules": with_rules(corpus, mutated.rule(), &answer.rules),
    })
}

/// Expects the demanded answer. After a refusal the sender must be served, its state must be as before, and the refusal
/// must not contain the observer client's unique value. Returns whether the case has bound the refusal to a name.
fn answered(corpus: &Corpus, mutated: &MutatedInput<'_>, answer: &Answer, steps: &mut Vec<Value>) -> bool {
    if answer.one_of.is_empty() {
        return false;
    }
    let wrong = mutated.is_wrong();
    let alternative = |alternative: &Value| {
        let mut alternative = expected_answer::about(alternative, mutated.sent);
        let refuses = wrong && alternative.get("message").is_some() && alternative.get("info").is_none();
        if let (true, Some(members)) = (refuses && alternative.get("fail").is_none(), alternative.as_object_mut()) {
            members.insert("as".to_owned(), json!(REFUSED));
        }
        alternative
    };
    let mut alternatives: Vec<Value> = answer.one_of.iter().map(alternative).collect();
    if mutated.is_in_walk() {
        alternatives.retain(|alternative| alternative.get("fail").is_none());
        alternatives.iter_mut().filter_map(Value::as_object_mut).for_each(|members| drop(members.remove("warn")));
        alternatives.push(json!({ "close": ["any", "drop"] }));
    }
    let may_refuse = alternatives.iter().any(|alternative| alternative.get("as").is_some());
    steps.push(json!({
        format!("{} expects one of", mutated.sender): alternatives,
        "after": MUTATED,
        "rules": with_rules(corpus, mutated.rule(), &answer.rules),
    }));
    if !may_refuse || mutated.is_in_walk() || mutated.input.placement == Placement::First {
        return false;
    }
    if let (Some(mark), false) = (corpus.mark(), mutated.names_another) {
        let check = format!("${{{OBSERVER}.{mark} in json({REFUSED})}}");
        steps.push(json!({ "check": check, "equals": false, "if": REFUSED, "rules": ["FUZZ-ISOLATES"] }));
    }
    if let (Some(fence), rules @ [_, ..]) = (corpus.fence(), corpus.goes_on()) {
        let rules = with_rules(corpus, "FUZZ-GOES-ON", rules);
        let asks = [json!({ format!("{} plays", mutated.sender): fence })];
        steps.push(json!({ "retry": BOUND, "do": asks, "if": REFUSED, "rules": rules }));
        let mut stays = stays(mutated.sender, &rules);
        stays["if"] = json!(REFUSED);
        steps.push(stays);
    }
    if let (true, Some((scene, is))) = (mutated.has_state(corpus), corpus.state()) {
        steps.push(json!({ format!("{} plays", mutated.sender): scene, "as": STATE_AFTER, "if": REFUSED }));
        let state = |state: &str| {
            expressions::renamed(is, &|name| match name {
                "state" => Some(state),
                "self" => Some(mutated.sender),
                _ => None,
            })
        };
        let (check, equals) = (state(STATE_AFTER), state(STATE_BEFORE));
        steps.push(json!({ "check": check, "equals": equals, "if": REFUSED, "rules": ["FUZZ-KEEPS"] }));
    }
    true
}

/// Checks that a client that has sent invalid input is either served or disconnected, even if the document demands no
/// answer.
fn is_served_or_closed(corpus: &Corpus, mutated: &MutatedInput<'_>) -> Option<[Value; 3]> {
    let alone = matches!(mutated.input.placement, Placement::Joined | Placement::Repeated);
    let may_ask = mutated.is_wrong()
        || mutated.input.class == Class::Unspecified && !mutated.is_unfinished && mutated.size <= LONG;
    let [asks, answer] = corpus.question().filter(|_| alone && may_ask)?;
    let close = json!({ "close": ["any", "drop"] });
    let mut asks = prefix::by(asks, mutated.sender);
    asks["if"] = json!(OPEN);
    let asked = asks["as"].clone();
    let mut comes = Map::from_iter([("message".to_owned(), answer["expects"].clone())]);
    comes.extend(answer.get("where").map(|pattern| ("where".to_owned(), pattern.clone())));
    Some([
        json!({
            format!("{} expects one of", mutated.sender): [close, { "nothing": null, "as": OPEN }],
            "within": "0s",
        }),
        asks,
        json!({
            format!("{} expects one of", mutated.sender): [comes, close],
            "after": asked,
            "if": OPEN,
            "rules": [StepRule::new("FUZZ-GOES-ON", Some(Level::Should))],
        }),
    ])
}

/// Checks that no answer came that the document forbids; `sent` is the payload that was sent.
fn never(corpus: &Corpus, mutated: &MutatedInput<'_>, answer: &Answer, sent: Option<&Value>, steps: &mut Vec<Value>) {
    for (number, alternative) in answer.never.iter().enumerate() {
        let alternative = expected_answer::about(alternative, sent);
        let Some(message) = alternative.get("message") else { continue };
        let name = format!("wrong_{number}");
        let mut step = Map::from_iter([(format!("{} expects", mutated.sender), message.clone())]);
        step.extend(alternative.get("where").map(|pattern| ("where".to_owned(), pattern.clone())));
        step.extend([
            ("count".to_owned(), json!({ "min": 0 })),
            ("for".to_owned(), json!("0s")),
            ("after".to_owned(), json!(MUTATED)),
            ("as".to_owned(), json!(name)),
        ]);
        steps.push(Value::Object(step));
        let rule = if mutated.input.class == Class::Valid { "FUZZ-ANSWERS" } else { "FUZZ-REJECTS" };
        let check = format!("${{{name} | length}}");
        steps.push(json!({ "check": check, "equals": 0, "rules": with_rules(corpus, rule, &answer.rules) }));
    }
}

/// Checks that a request does not take much longer than before.
fn steady(corpus: &Corpus, steps: &mut Vec<Value>) {
    let Some((fence, asked, got)) = corpus.timed_fence() else { return };
    let took = |name: &str| format!("(wire({name}.{got}).at - wire({name}.{asked}).at)");
    let longer = format!("${{{} - {} * {}}}", took(FENCE_AFTER), SLOWER.0, took(FENCE_BEFORE));
    let asks = [
        json!({ format!("{OBSERVER} plays"): fence, "as": FENCE_AFTER }),
        json!({ "check": longer, "fits": { "maximum": SLOWER.1 }, "rules": ["FUZZ-STEADY"] }),
    ];
    steps.push(json!({ "retry": BOUND, "do": asks }));
}

/// Connects an actor. A full hub may need a moment to notice that other clients have left.
pub(super) fn connects(actor: &str) -> Value {
    joins(actor, &StepRule::new("FUZZ-SERVES-NEW", None))
}

fn joins(actor: &str, rule: &StepRule) -> Value {
    json!({ "retry": BOUND, "do": [{ format!("{actor} joins"): null }], "rules": [rule] })
}

/// Checks that an actor is served, with the fence, or with a WebSocket ping if the pack has no fence.
pub(super) fn serves(corpus: &Corpus, actor: &str, rule: &StepRule) -> Value {
    let asks = match corpus.fence() {
        Some(scene) => vec![json!({ format!("{actor} plays"): scene })],
        None => vec![
            json!({ format!("{actor} sends raw"): { "frames": [{ "opcode": "ping", "data": "there?" }] } }),
            json!({ format!("{actor} expects frame"): "pong", "where": { "data": "there?" } }),
        ],
    };
    json!({ "retry": BOUND, "do": asks, "rules": [rule] })
}

/// Waits a moment for an answer to the sender, so that its schema is checked: a reply to another client does not prove
/// that the answer has come. Binds a refusal to a name.
fn any_answer(sender: &str, refusals: &[Value]) -> Value {
    let mut alternatives = refusals.to_vec();
    alternatives.iter_mut().for_each(|refusal| refusal["as"] = json!(REFUSED));
    alternatives.extend([json!({ "message": "any" }), json!({ "close": ["any", "drop"] }), json!({ "nothing": null })]);
    json!({
        format!("{sender} expects one of"): alternatives,
        "after": MUTATED,
        "within": MOMENT,
    })
}

/// Waits for an answer to the sender, at most until the hub answers a ping sent after the message.
fn before_a_pong(sender: &str, awaited: Option<Value>) -> [Value; 2] {
    let ping = json!({ "frames": [{ "opcode": "ping", "data": "processed?" }] });
    let pong = json!({ "frame": "pong", "where": { "data": "processed?" } });
    let others = [pong, json!({ "close": ["any", "drop"] }), json!({ "nothing": null })];
    let all: Vec<Value> = awaited.into_iter().chain(others).collect();
    [
        json!({ format!("{sender} sends raw"): ping }),
        json!({ format!("{sender} expects one of"): all, "after": MUTATED, "within": MOMENT }),
    ]
}

/// Checks that the connection is still open. On a closed connection the fence would be skipped instead of failing.
fn stays(actor: &str, rules: &[StepRule]) -> Value {
    json!({
        format!("{actor} expects one of"): [{ "close": ["any", "drop"], "fail": "its connection is gone" }, { "nothing": null }],
        "within": "0s",
        "rules": rules,
    })
}

/// Returns an oracle with the rules that demand the answer, lowered to the highest level among them.
fn with_rules(corpus: &Corpus, oracle: &str, rules: &[StepRule]) -> Vec<StepRule> {
    let level = rules.iter().filter_map(|rule| rule.level(&corpus.pack)).max().unwrap_or(Level::Must);
    std::iter::once(StepRule::at_most(oracle, level)).chain(rules.iter().cloned()).collect()
}

/// Whether the oracle's level is lowered.
fn is_lowered(with_rules: &[StepRule]) -> bool {
    with_rules.first().is_some_and(|oracle| oracle.lowered.is_some())
}

/// A message, a pattern for its content, and the rule that is broken if the observer client receives it.
type Private = (String, Option<Value>, StepRule);

/// Returns the messages that only the sender may receive: replies to this message, and refusals of such input. If the
/// hub may also send such a message unasked, receiving it is only a warning.
fn private(corpus: &Corpus, mutated: &MutatedInput<'_>, answer: Option<&Answer>) -> Vec<Private> {
    let unasked = |name: &str| corpus.pack.message(name).is_some_and(|message| message.directions.unasked);
    let open = corpus.open();
    let rule = |name: &str| {
        let may_come = unasked(name) || open.iter().any(|known| known == name);
        StepRule::new("FUZZ-ISOLATES", may_come.then_some(Level::Should))
    };
    let replies = mutated.message.replies.iter().filter(|name| !unasked(name));
    let mut found: Vec<Private> = replies.map(|name| (name.clone(), None, rule(name))).collect();
    found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    found.dedup_by(|(one, ..), (other, ..)| one == other);
    for alternative in answer.map_or(&[][..], |answer| &answer.one_of) {
        let alternative = expected_answer::about(alternative, mutated.sent);
        let Some(name) = alternative.get("message").and_then(Value::as_str) else { continue };
        if name == "any" || found.iter().any(|(known, pattern, _)| known == name && pattern.is_none()) {
            continue;
        }
        found.push((name.to_owned(), alternative.get("where").cloned(), rule(name)));
    }
    found
}

/// Returns the oracles as rules, so that they are reported like the rules of a document.
pub fn rules(sources: &mut Sources) -> Vec<Rule> {
    let file = sources.add("oracles.yaml", include_str!("oracles.yaml"));
    let mut diagnostics = Vec::new();
    let parsed = yaml::parse(sources, file).map(|root| rules::parse(&root, &mut diagnostics).rules);
    let ours = |rule: Rule| Rule { place: Place::Oracle, ..rule };
    parsed.map(|rules| rules.into_values().map(ours).collect()).unwrap_or_default()
}
