//! The steps with which the oracles check a hub. They demand what the document demands and no more. If the document
//! names the answer to an input (`fuzz.answers` of shared.yaml), that answer must come. If it does not, the hub must
//! stay alive, serve other clients, send them no answer to the input, and not slow down.

use serde_json::{Map, Value, json};

use super::actors::{AT_ONCE, BATCH, MUTATED, NEW_CLIENT, OBSERVER, ROUND};
use super::case_scenario::CaseStep;
use super::corpus::Corpus;
use super::corpus::expected_answer::{self, Answer, Input};
use super::corpus::prefix::{self, Next};
use super::expressions;
use super::mutate::payload::Class;
use super::placement::Placement;
use super::step_rule::StepRule;
use crate::protocol::{Level, MessageType, Place, Rule, rules};
use crate::scenario::compose;
use crate::scenario::parse::verbs::Verb;
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
pub fn before(corpus: &Corpus, mutated: &MutatedInput<'_>) -> Vec<CaseStep> {
    let mut steps = Vec::new();
    if mutated.input.placement == Placement::Repeated && corpus.timed_fence().is_some() {
        steps.push(CaseStep::new(OBSERVER, Verb::Plays, corpus.fence()).named(FENCE_BEFORE));
    }
    if let (true, Some((scene, _))) = (mutated.has_state(corpus), corpus.state()) {
        steps.push(CaseStep::new(mutated.sender, Verb::Plays, scene).named(STATE_BEFORE));
    }
    steps
}

/// Returns the steps after the mutated message. `rest` are the remaining steps of the scenario that the prefix comes
/// from.
pub fn behind(corpus: &Corpus, mutated: &MutatedInput<'_>, rest: Vec<Next>) -> Vec<CaseStep> {
    behind_at(corpus, mutated, rest, Level::Must)
}

/// Like [`behind`], but new clients must be served only at the level `serves_new`.
pub fn behind_at(corpus: &Corpus, mutated: &MutatedInput<'_>, rest: Vec<Next>, serves_new: Level) -> Vec<CaseStep> {
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
        let step = matching(CaseStep::new(OBSERVER, Verb::ExpectsNothing, message), pattern);
        steps.push(step.with("for", "0s").judged_by([rule]));
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

/// Returns a step of the rest of a scenario; if it has rules, `oracle` replaces them, at most at the level `most`.
fn as_check(Next { step, demand }: Next, oracle: &str, most: Level) -> CaseStep {
    match demand {
        Some(demand) => step.judged_by([StepRule::at_most(oracle, demand.min(most))]),
        None => step,
    }
}

/// Adds the pattern of a message, if there is one.
fn matching(step: CaseStep, pattern: Option<Value>) -> CaseStep {
    match pattern {
        Some(pattern) => step.with("where", pattern),
        None => step,
    }
}

/// Returns the rest of the conversation after a refusal, with the valid message instead of the mutated one. Stops
/// before a step that counts messages, since a hub may count the refused message.
fn goes_on(rest: Vec<Next>, most: Level) -> impl Iterator<Item = CaseStep> {
    let counts = |step: &CaseStep| step.option("where").is_some_and(|pattern| expressions::any(pattern, &Expr::adds));
    let plain = rest.into_iter().take_while(move |next| next.step.condition().is_none() && !counts(&next.step));
    plain.map(move |next| as_check(next, "FUZZ-KEEPS", most).only_if(REFUSED))
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
pub fn each(corpus: &Corpus, first: &MutatedInput<'_>, rounds: Vec<Value>) -> CaseStep {
    let answer = answer(corpus, first);
    let sent = sent_in_rounds(answer, first);
    if first.input.placement == Placement::Anew {
        let steps = anew(corpus, first, answer, &sent);
        return CaseStep::new("", Verb::Each, ROUND).with("in", rounds).doing(steps);
    }
    let rounds: Vec<&[Value]> = rounds.chunks(AT_ONCE).collect();
    CaseStep::new("", Verb::Each, BATCH).with("in", json!(rounds)).doing(kept(corpus, first, answer, &sent))
}

/// Returns the steps of a batch on a shared connection. The next batch is sent once all answers have come.
fn kept(corpus: &Corpus, first: &MutatedInput<'_>, answer: Option<&Answer>, sent: &Value) -> Vec<CaseStep> {
    // A hub may close after many invalid messages. Other placements check whether it may close after one.
    let close = json!({ "close": ["any", "drop"] });
    let expects = match answer {
        // An optional answer would cost a wait per message; other placements check it.
        Some(answer) if is_lowered(&with_rules(corpus, first.rule(), &answer.rules)) => {
            Some(any_answer(first.sender, &[]))
        }
        answer => answer.map(|answer| one_of(corpus, first, answer, sent, Some(close))),
    };
    let of_all = |step| CaseStep::new("", Verb::Each, ROUND).with("in", format!("${{{BATCH}}}")).doing([step]);
    std::iter::once(sends(first.sender)).chain(expects).map(of_all).collect()
}

fn sends(sender: &str) -> CaseStep {
    CaseStep::new(sender, Verb::SendsRaw, json!({ "text": format!("${{{ROUND}.text}}") })).named(MUTATED)
}

/// Returns the steps for a message on a connection of its own. If no answer is demanded, the observer client's request
/// gives an answer time to come: a pong may overtake the answer, and the next round closes the connection. If an answer
/// is demanded, other clients are checked after the loop: all rounds together take less time than a hub may take for
/// one request.
fn anew(corpus: &Corpus, first: &MutatedInput<'_>, answer: Option<&Answer>, sent: &Value) -> Vec<CaseStep> {
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
fn others_are_served(corpus: &Corpus) -> [CaseStep; 2] {
    let rule = StepRule::new("FUZZ-SERVES-OLD", None);
    [serves(corpus, OBSERVER, &rule), stays(OBSERVER, &[rule])]
}

/// Checks that the demanded answer comes. If it does not, the observer client is checked first, so that a dead hub is
/// reported as dead rather than as not answering.
fn answered_anew(corpus: &Corpus, mutated: &MutatedInput<'_>, answer: &Answer, sent: &Value) -> [CaseStep; 4] {
    let missing = [json!({ "close": ["any", "drop"], "as": MISSING }), json!({ "nothing": null, "as": MISSING })];
    let comes = one_of(corpus, mutated, answer, sent, missing);
    let [serves, stays] = others_are_served(corpus);
    let came = one_of(corpus, mutated, answer, sent, None).with("within", "0s");
    let [serves, stays, came] = [serves, stays, came].map(|step| step.only_if(MISSING));
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
) -> CaseStep {
    let about = |alternative| expected_answer::about(alternative, Some(sent));
    demands(corpus, mutated, answer, answer.one_of.iter().map(about).chain(besides).collect())
}

/// Expects one of these answers to the input, under the rules of the demanded one.
fn demands(corpus: &Corpus, mutated: &MutatedInput<'_>, answer: &Answer, alternatives: Vec<Value>) -> CaseStep {
    let step = CaseStep::new(mutated.sender, Verb::ExpectsOneOf, alternatives).after(MUTATED);
    step.judged_by(with_rules(corpus, mutated.rule(), &answer.rules))
}

/// Expects the demanded answer. After a refusal the sender must be served, its state must be as before, and the refusal
/// must not contain the observer client's unique value. Returns whether the case has bound the refusal to a name.
fn answered(corpus: &Corpus, mutated: &MutatedInput<'_>, answer: &Answer, steps: &mut Vec<CaseStep>) -> bool {
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
    steps.push(demands(corpus, mutated, answer, alternatives));
    if !may_refuse || mutated.is_in_walk() || mutated.input.placement == Placement::First {
        return false;
    }
    if let (Some(mark), false) = (corpus.mark(), mutated.names_another) {
        let check = format!("${{{OBSERVER}.{mark} in json({REFUSED})}}");
        let step = CaseStep::new("", Verb::Check, check).with("equals", false).only_if(REFUSED);
        steps.push(step.judged_by([StepRule::new("FUZZ-ISOLATES", None)]));
    }
    if let (Some(fence), rules @ [_, ..]) = (corpus.fence(), corpus.goes_on()) {
        let rules = with_rules(corpus, "FUZZ-GOES-ON", rules);
        let asks = retry([CaseStep::new(mutated.sender, Verb::Plays, fence)]).only_if(REFUSED);
        steps.extend([asks.judged_by(&*rules), stays(mutated.sender, &rules).only_if(REFUSED)]);
    }
    if let (true, Some((scene, is))) = (mutated.has_state(corpus), corpus.state()) {
        steps.push(CaseStep::new(mutated.sender, Verb::Plays, scene).named(STATE_AFTER).only_if(REFUSED));
        let state = |state: &str| {
            expressions::renamed(is, &|name| match name {
                "state" => Some(state),
                "self" => Some(mutated.sender),
                _ => None,
            })
        };
        let (check, equals) = (state(STATE_AFTER), state(STATE_BEFORE));
        let step = CaseStep::new("", Verb::Check, check).with("equals", equals).only_if(REFUSED);
        steps.push(step.judged_by([StepRule::new("FUZZ-KEEPS", None)]));
    }
    true
}

/// Checks that a client that has sent invalid input is either served or disconnected, even if the document demands no
/// answer.
fn is_served_or_closed(corpus: &Corpus, mutated: &MutatedInput<'_>) -> Option<[CaseStep; 3]> {
    let alone = matches!(mutated.input.placement, Placement::Joined | Placement::Repeated);
    let may_ask = mutated.is_wrong()
        || mutated.input.class == Class::Unspecified && !mutated.is_unfinished && mutated.size <= LONG;
    let [asks, answer] = corpus.question().filter(|_| alone && may_ask)?;
    let close = json!({ "close": ["any", "drop"] });
    let asks = prefix::by(asks, mutated.sender).only_if(OPEN);
    let mut comes = Map::from_iter([("message".to_owned(), answer.argument.clone())]);
    comes.extend(answer.option("where").map(|pattern| ("where".to_owned(), pattern.clone())));
    let one_of = |alternatives: Value| CaseStep::new(mutated.sender, Verb::ExpectsOneOf, alternatives);
    let is_open = one_of(json!([close, { "nothing": null, "as": OPEN }])).with("within", "0s");
    let rule = StepRule::new("FUZZ-GOES-ON", Some(Level::Should));
    let answered = one_of(json!([comes, close])).after(asks.name()?).only_if(OPEN).judged_by([rule]);
    Some([is_open, asks, answered])
}

/// Checks that no answer came that the document forbids; `sent` is the payload that was sent.
fn never(
    corpus: &Corpus,
    mutated: &MutatedInput<'_>,
    answer: &Answer,
    sent: Option<&Value>,
    steps: &mut Vec<CaseStep>,
) {
    for (number, alternative) in answer.never.iter().enumerate() {
        let alternative = expected_answer::about(alternative, sent);
        let Some(message) = alternative.get("message") else { continue };
        let name = format!("wrong_{number}");
        let step = CaseStep::new(mutated.sender, Verb::Expects, message.clone());
        let step = matching(step, alternative.get("where").cloned()).with("count", json!({ "min": 0 }));
        steps.push(step.with("for", "0s").after(MUTATED).named(&*name));
        let rule = if mutated.input.class == Class::Valid { "FUZZ-ANSWERS" } else { "FUZZ-REJECTS" };
        let check = format!("${{{name} | length}}");
        let check = CaseStep::new("", Verb::Check, check).with("equals", 0);
        steps.push(check.judged_by(with_rules(corpus, rule, &answer.rules)));
    }
}

/// Checks that a request does not take much longer than before.
fn steady(corpus: &Corpus, steps: &mut Vec<CaseStep>) {
    let Some((fence, asked, got)) = corpus.timed_fence() else { return };
    let took = |name: &str| format!("(wire({name}.{got}).at - wire({name}.{asked}).at)");
    let longer = format!("${{{} - {} * {}}}", took(FENCE_AFTER), SLOWER.0, took(FENCE_BEFORE));
    let check = CaseStep::new("", Verb::Check, longer).with("fits", json!({ "maximum": SLOWER.1 }));
    let asks = CaseStep::new(OBSERVER, Verb::Plays, fence).named(FENCE_AFTER);
    steps.push(retry([asks, check.judged_by([StepRule::new("FUZZ-STEADY", None)])]));
}

/// Repeats steps until they succeed.
fn retry(steps: impl Into<Vec<CaseStep>>) -> CaseStep {
    CaseStep::new("", Verb::Retry, BOUND).doing(steps)
}

/// Connects an actor. A full hub may need a moment to notice that other clients have left.
pub(super) fn connects(actor: &str) -> CaseStep {
    joins(actor, &StepRule::new("FUZZ-SERVES-NEW", None))
}

fn joins(actor: &str, rule: &StepRule) -> CaseStep {
    retry([CaseStep::new(actor, Verb::Joins, ())]).judged_by([rule.clone()])
}

/// Checks that an actor is served, with the fence, or with a WebSocket ping if the pack has no fence.
pub(super) fn serves(corpus: &Corpus, actor: &str, rule: &StepRule) -> CaseStep {
    let asks = match corpus.fence() {
        Some(scene) => vec![CaseStep::new(actor, Verb::Plays, scene)],
        None => vec![
            CaseStep::new(actor, Verb::SendsRaw, json!({ "frames": [{ "opcode": "ping", "data": "there?" }] })),
            CaseStep::new(actor, Verb::ExpectsFrame, "pong").with("where", json!({ "data": "there?" })),
        ],
    };
    retry(asks).judged_by([rule.clone()])
}

/// Waits a moment for an answer to the sender, so that its schema is checked: a reply to another client does not prove
/// that the answer has come. Binds a refusal to a name.
fn any_answer(sender: &str, refusals: &[Value]) -> CaseStep {
    let mut alternatives = refusals.to_vec();
    alternatives.iter_mut().for_each(|refusal| refusal["as"] = json!(REFUSED));
    alternatives.extend([json!({ "message": "any" }), json!({ "close": ["any", "drop"] }), json!({ "nothing": null })]);
    CaseStep::new(sender, Verb::ExpectsOneOf, alternatives).after(MUTATED).with("within", MOMENT)
}

/// Waits for an answer to the sender, at most until the hub answers a ping sent after the message.
fn before_a_pong(sender: &str, awaited: Option<Value>) -> [CaseStep; 2] {
    let ping = json!({ "frames": [{ "opcode": "ping", "data": "processed?" }] });
    let pong = json!({ "frame": "pong", "where": { "data": "processed?" } });
    let others = [pong, json!({ "close": ["any", "drop"] }), json!({ "nothing": null })];
    let all: Vec<Value> = awaited.into_iter().chain(others).collect();
    [
        CaseStep::new(sender, Verb::SendsRaw, ping),
        CaseStep::new(sender, Verb::ExpectsOneOf, all).after(MUTATED).with("within", MOMENT),
    ]
}

/// Checks that the connection is still open. On a closed connection the fence would be skipped instead of failing.
fn stays(actor: &str, rules: &[StepRule]) -> CaseStep {
    let alternatives = json!([{ "close": ["any", "drop"], "fail": "its connection is gone" }, { "nothing": null }]);
    CaseStep::new(actor, Verb::ExpectsOneOf, alternatives).with("within", "0s").judged_by(rules)
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
