//! The steps with which the oracles check a hub. They demand what the document demands and no more. If the document
//! names the answer to an input (`fuzz.answers` of shared.yaml), that answer must come. If it does not, the hub must
//! stay alive, serve other clients, send them no answer to the input, and not slow down.

use serde_json::{Map, Value, json};

use super::actors::{BATCH_SIZE, BATCH_VARIABLE, MUTATED_STEP, NEW_CLIENT, OBSERVER, ROUND_VARIABLE};
use super::case::untimely::Untimely;
use super::case_scenario::CaseStep;
use super::corpus::Corpus;
use super::corpus::expected_answer::{self, ExpectedAnswer, InputProperties};
use super::corpus::fresh_values;
use super::corpus::prefix::{self, RemainingStep};
use super::expressions;
use super::mutate::payload::PayloadClass;
use super::placement::Placement;
use super::step_rule::StepRule;
use crate::protocol::{MessageType, Rule, RuleLevel, RulePlace, rules};
use crate::scenario::compose;
use crate::scenario::expression::PathSegment;
use crate::scenario::parse::verbs::StepVerb;
use crate::scenario::template::{TemplateExpression, escape_texts};
use crate::syntax::source::Sources;
use crate::syntax::yaml;

/// How long a hub may take to serve other clients.
const SERVICE_WAIT: &str = "5s";
/// How long the oracles wait for an answer that the document does not demand.
pub(super) const OPTIONAL_ANSWER_WAIT: &str = "25ms";
/// The number of messages of a case with the placement `repeated`.
pub const REPEATED_MESSAGES: usize = 20;
/// How much longer a request may take than before: a factor, and additional milliseconds. A busy machine does not delay
/// every attempt within five seconds by that much.
pub(super) const MAX_SLOWDOWN: (u32, u32) = (2, 250);

/// The size in bytes above which a hub may refuse a text as too long.
const LONG_TEXT_BYTES: usize = 8 * 1024;

/// The size in bytes up to which an answer is checked for being JSON.
const MAX_CHECKED_BYTES: usize = 1000;

// Names that a case binds.
/// An answer that refuses the mutated message.
const REFUSAL_NAME: &str = "refused_with";
const STATE_BEFORE: &str = "state_before";
const STATE_AFTER: &str = "state_after";
const OPEN_NAME: &str = "still_open";
/// Any answer.
const ANY_ANSWER_NAME: &str = "any_answer";
/// Silence after a message that was not due.
const SILENT_NAME: &str = "not_answered";
/// The end of a connection by a close frame whose code explains nothing, or without one: after a message that was not due,
/// before the next request, and instead of its reply.
const UNEXPLAINED_NAMES: [&str; 3] = ["closed_at_once", "closed_later", "closed_instead"];
const MISSING_NAME: &str = "still_missing";
/// The end of a connection on which an answer was expected.
const ENDED_NAME: &str = "ended_instead";
/// The fence of the observer client after the mutated message.
const OBSERVER_FENCE: &str = "observer_fence";
/// The fences before and after the mutated messages; the oracle compares their response times.
const FENCE_BEFORE: &str = "fence_before";
const FENCE_AFTER: &str = "fence_after";

/// The properties of a mutated message on which oracles depend.
pub struct MutatedInput<'a> {
    pub message: &'a MessageType,
    pub input: InputProperties<'a>,
    /// The payload, with its expressions.
    pub sent: Option<&'a Value>,
    pub sender: &'a str,
    /// The number of bytes sent.
    pub size: usize,
    /// Whether the input contains the identity of the observer client, so that the answer may also contain it.
    pub names_another: bool,
    /// Expressions for the ids that only this case uses.
    pub ids: &'a [String],
    /// Whether clients only connect and leave, so that no step is named as the one that sends the input.
    pub is_churn: bool,
    /// Whether the last frame of the input is missing, so that a hub may read the next frame as the rest of the input.
    pub is_unfinished: bool,
    /// Whether the input is valid, or differs from valid input only in values that JSON allows.
    pub is_json: bool,
    /// Why the message is not due, if that is what the case is about.
    pub untimely: Option<Untimely>,
}

impl MutatedInput<'_> {
    /// Whether the input is invalid and therefore must not change anything.
    fn is_wrong(&self) -> bool {
        matches!(self.input.class, PayloadClass::Invalid | PayloadClass::Unknown | PayloadClass::Malformed)
    }

    /// Returns the oracle that demands an answer to the input.
    fn answer_oracle(&self) -> &'static str {
        if matches!(self.input.class, PayloadClass::Valid | PayloadClass::Unusual) {
            "FUZZ-ANSWERS"
        } else {
            "FUZZ-REJECTS"
        }
    }

    /// Whether the hub must serve the sender after a message that was not due, or close its connection with a reason. A
    /// client that has no part in other conversations sends an answer, or a message that it has already sent; any other
    /// message may be one that ends the connection.
    fn is_judged_as_untimely(&self, corpus: &Corpus) -> bool {
        let alone = matches!(self.input.placement, Placement::Joined | Placement::Outside);
        let of_opening = |step: &CaseStep| step.message(StepVerb::Sends) == Some(&*self.message.name);
        let is_untimely = match self.untimely {
            None => false,
            Some(Untimely::Twice) => true,
            Some(Untimely::Undue) => {
                corpus.pack.is_reply(&self.message.name) || corpus.opening(self.input.role).iter().any(of_opening)
            }
        };
        is_untimely && alone && corpus.fence_exchange().is_some()
    }

    /// Whether the sender sent random messages before the mutated one. The hub may then answer one of those instead, or
    /// close the connection.
    fn follows_random_walk(&self) -> bool {
        self.input.placement == Placement::Walk
    }

    /// Whether a wrong input must leave the state of the sender unchanged, and the case can check that: the sender can
    /// query its state, and no other client of the case can change it.
    fn has_queryable_state(&self, corpus: &Corpus) -> bool {
        let alone = matches!(self.input.placement, Placement::Joined | Placement::Outside);
        self.is_wrong() && alone && Some(self.input.role) == corpus.observer_role()
    }
}

/// Returns the steps before the mutated message.
pub fn steps_before(corpus: &Corpus, mutated: &MutatedInput<'_>) -> Vec<CaseStep> {
    let mut steps = Vec::new();
    if mutated.input.placement == Placement::Repeated && corpus.timed_fence().is_some() {
        steps.push(CaseStep::new(OBSERVER, StepVerb::Plays, corpus.fence()).named(FENCE_BEFORE));
    }
    if let (true, Some((scene, _))) = (mutated.has_queryable_state(corpus), corpus.state_query()) {
        steps.push(CaseStep::new(mutated.sender, StepVerb::Plays, scene).named(STATE_BEFORE));
    }
    steps
}

/// Returns the steps after the mutated message. `rest` are the remaining steps of the scenario that the prefix comes
/// from.
pub fn steps_after(corpus: &Corpus, mutated: &MutatedInput<'_>, rest: Vec<RemainingStep>) -> Vec<CaseStep> {
    steps_after_with_level(corpus, mutated, rest, RuleLevel::Must)
}

/// Like [`steps_after`], but new clients must be served only at the level `serves_new`.
pub fn steps_after_with_level(
    corpus: &Corpus,
    mutated: &MutatedInput<'_>,
    rest: Vec<RemainingStep>,
    serves_new: RuleLevel,
) -> Vec<CaseStep> {
    let mut steps = Vec::new();
    let repeated = mutated.input.placement == Placement::Repeated;
    let many = mutated.input.placement.sends_many();
    let answer = demanded_answer(corpus, mutated);
    // Other clients must be undisturbed only by input that no hub can read as a message, refused or not.
    let harmless = matches!(mutated.input.class, PayloadClass::Malformed | PayloadClass::Broken);
    let undisturbed = harmless && mutated.input.placement == Placement::Outside;
    let refusals = if mutated.is_wrong() && !undisturbed && !rest.is_empty() { corpus.refusals() } else { &[] };
    let mut refused = false;
    let is_untimely = mutated.is_judged_as_untimely(corpus) && answer.is_none();
    if is_untimely {
        steps.push(wait_for_reaction(mutated.sender));
    } else if answer.is_none() && !repeated && !many {
        if mutated.is_json && corpus.hub_sends_only_json() {
            steps.extend(check_answer_is_json(corpus, mutated.sender, refusals));
        } else {
            steps.push(wait_for_any_answer(mutated.sender, refusals));
        }
        refused = !refusals.is_empty();
    }
    // Check the observer before the answer to the sender, so that a dead hub is reported as dead rather than as not
    // answering.
    let [serves, stays] = check_observer(corpus);
    let named = |step: CaseStep| if step.verb == StepVerb::Plays { step.named(OBSERVER_FENCE) } else { step };
    steps.extend([serves.inside(named), stays]);
    if repeated {
        check_response_time(corpus, &mut steps);
    }
    if let Some(answer) = answer.filter(|_| !many) {
        refused = check_answer(corpus, mutated, answer, &mut steps) && !refusals.is_empty();
    }
    // After the loop of placement `anew`, expressions that use the sender have no value.
    let anew = mutated.input.placement == Placement::Anew;
    let has_value = |pattern: &Value| !anew || !expressions::uses(pattern, mutated.sender);
    let private = private_messages(corpus, mutated, answer).into_iter();
    for (message, pattern, rule) in private.filter(|(_, pattern, _)| pattern.as_ref().is_none_or(has_value)) {
        let step = matching(CaseStep::new(OBSERVER, StepVerb::ExpectsNothing, message), pattern);
        steps.push(step.with("for", "0s").judged_by([rule]));
    }
    steps.extend(check_ownership(corpus, mutated, OBSERVER));
    steps.extend(check_observer_ids(corpus, mutated));
    steps.extend(check_nothing_unasked(corpus, mutated));
    if undisturbed {
        steps.extend(rest.into_iter().map(|next| with_oracle(next, "FUZZ-UNDISTURBED", RuleLevel::Must)));
    } else if refused {
        // If the document does not name the refusal, the hub may have refused only a part of the input.
        let level = if answer.is_some() { RuleLevel::Must } else { RuleLevel::Should };
        steps.extend(continued_conversation(rest, level));
    }
    if is_untimely {
        steps.extend(check_served_or_explained(corpus, mutated));
    } else if !(answer.is_some() && corpus.is_usable_after_error()) {
        steps.extend(check_served_or_closed(corpus, mutated).into_iter().flatten());
    }
    steps.extend(check_sender_ownership(corpus, mutated));
    if let (Some(answer), false) = (answer, mutated.follows_random_walk() || many) {
        check_forbidden_answers(corpus, mutated, answer, mutated.sent, &mut steps);
    }
    if answer.is_some() {
        // The observer's request may have overtaken the mutated message, but by now the hub has read both.
        steps.push(check_still_open(OBSERVER, &[StepRule::new("FUZZ-SERVES-OLD", None)]));
    }
    let serves_new = StepRule::at_most("FUZZ-SERVES-NEW", serves_new);
    steps.push(join_step(NEW_CLIENT, &serves_new));
    if corpus.fence().is_some() {
        steps.push(check_served(corpus, NEW_CLIENT, &serves_new));
        steps.push(check_still_open(NEW_CLIENT, &[serves_new]));
    }
    steps.extend(check_ownership(corpus, mutated, NEW_CLIENT));
    steps
}

/// Returns the messages from the hub that belong to the client whose id they repeat, with the pointer to the id:
/// replies with a correlation id. A hub may send several of them to that client.
fn owned_messages(corpus: &Corpus) -> impl Iterator<Item = (&MessageType, &String)> {
    let pack = &corpus.pack;
    let owned = pack.messages.iter().filter(|message| message.directions.from_hub && pack.is_reply(&message.name));
    owned.filter_map(|message| Some((message, message.correlation.as_ref()?)))
}

/// Checks that a client that takes no part in the case receives no reply to a request of another client.
fn check_ownership(corpus: &Corpus, mutated: &MutatedInput<'_>, client: &str) -> Vec<CaseStep> {
    if mutated.ids.is_empty() {
        return Vec::new();
    }
    let check = |(message, pointer): (&MessageType, &String)| {
        let pattern = json!({ pointer.as_str(): { "enum": mutated.ids } });
        let step = CaseStep::new(client, StepVerb::ExpectsNothing, &*message.name).with("where", pattern);
        step.with("for", "0s").judged_by([StepRule::new("FUZZ-ISOLATES", None)])
    };
    owned_messages(corpus).map(check).collect()
}

/// Checks that the observer client receives no message that the hub may send only to a client that asked for it.
fn check_nothing_unasked(corpus: &Corpus, mutated: &MutatedInput<'_>) -> Option<CaseStep> {
    let forbidden = json!({ "": escape_texts(corpus.forbidden_for_observer()?) });
    let step = CaseStep::new(OBSERVER, StepVerb::ExpectsNothing, "any").with("where", forbidden);
    let step = step.after(MUTATED_STEP).with("for", "0s");
    (!mutated.is_churn).then(|| step.judged_by([StepRule::new("FUZZ-ISOLATES", None)]))
}

/// Returns the observer client's request after the mutated message, if each request has its own id, and the expression
/// for the id.
fn observer_request(corpus: &Corpus) -> Option<(&MessageType, String)> {
    let (name, request) = corpus.fence_request()?;
    let mut fresh = corpus.fresh_values(request).iter();
    let fresh = fresh.find(|fresh| Some(&fresh.pointer) == request.correlation.as_ref())?;
    let name = format!("{OBSERVER_FENCE}.{name}");
    Some((request, fresh_values::part_expression(&name, &fresh.pointer, &request.starting_value())))
}

/// Checks that the observer client receives replies only to its own request, whichever client the others answer.
fn check_observer_ids(corpus: &Corpus, mutated: &MutatedInput<'_>) -> Vec<CaseStep> {
    // In these cases, the observer client makes further requests.
    let is_alone = !matches!(mutated.input.placement, Placement::Anew | Placement::Repeated);
    let Some((request, id)) = observer_request(corpus).filter(|_| is_alone) else { return Vec::new() };
    let of_opening = corpus.replies_to_observer_opening();
    let is_of_request = |message: &MessageType| {
        request.replies.contains(&message.name) && !message.directions.unasked && !of_opening.contains(&*message.name)
    };
    let check = |(message, pointer): (&MessageType, &String)| {
        let pattern = json!({ pointer.as_str(): { "type": ["string", "number"], "not": { "enum": [id] } } });
        let step = CaseStep::new(OBSERVER, StepVerb::ExpectsNothing, &*message.name).with("where", pattern);
        step.with("for", "0s").judged_by([StepRule::new("FUZZ-ISOLATES", None)])
    };
    owned_messages(corpus).filter(|(message, _)| is_of_request(message)).map(check).collect()
}

/// Checks that the sender receives no reply to the observer client's request.
fn check_sender_ownership(corpus: &Corpus, mutated: &MutatedInput<'_>) -> Option<CaseStep> {
    let (request, id) = observer_request(corpus)?;
    // After the loop of placement `anew`, the sender is gone.
    let is_there = mutated.input.placement != Placement::Anew;
    let replies = owned_messages(corpus).filter(|(message, _)| request.replies.contains(&message.name));
    let wrong = replies.map(|(message, pointer)| {
        let pattern = json!({ pointer.as_str(): { "const": id } });
        json!({ "message": message.name, "where": pattern, "fail": "it answers another client" })
    });
    let ends = [json!({ "close": ["any", "drop"] }), json!({ "nothing": null })];
    let all: Vec<Value> = wrong.chain(ends).collect();
    let step = CaseStep::new(mutated.sender, StepVerb::ExpectsOneOf, all).with("within", "0s");
    (is_there && !mutated.names_another).then(|| step.judged_by([StepRule::new("FUZZ-ISOLATES", None)]))
}

/// Returns a remaining step of a scenario. If it has rules, `oracle` replaces them, at most at the level `most`.
fn with_oracle(RemainingStep { step, demand }: RemainingStep, oracle: &str, most: RuleLevel) -> CaseStep {
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

/// Returns the steps that continue the conversation after a refusal, beginning with the valid message. Stops before a
/// step that counts messages, since a hub may count the refused message.
fn continued_conversation(rest: Vec<RemainingStep>, most: RuleLevel) -> impl Iterator<Item = CaseStep> {
    let counts = |step: &CaseStep| {
        step.option("where").is_some_and(|pattern| expressions::any(pattern, &TemplateExpression::adds))
    };
    let plain = rest.into_iter().take_while(move |next| next.step.condition().is_none() && !counts(&next.step));
    plain.map(move |next| with_oracle(next, "FUZZ-KEEPS", most).only_if(REFUSAL_NAME))
}

/// Returns the answer that the document demands.
fn demanded_answer<'a>(corpus: &'a Corpus, mutated: &MutatedInput<'_>) -> Option<&'a ExpectedAnswer> {
    let once = mutated.input.placement != Placement::Repeated && mutated.untimely != Some(Untimely::Twice);
    // Documents state no maximum length, so a hub may refuse any long text.
    corpus.expected_answer(&mutated.input).filter(|_| once && mutated.size <= LONG_TEXT_BYTES)
}

/// Returns the answer that the document demands, and the members of the input that it must mention, by name.
pub fn demanded_answer_and_members<'a>(
    corpus: &'a Corpus,
    mutated: &MutatedInput<'_>,
) -> (Option<&'a ExpectedAnswer>, Map<String, Value>) {
    let answer = demanded_answer(corpus, mutated);
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

fn mentioned(answer: Option<&ExpectedAnswer>, mutated: &MutatedInput<'_>) -> Vec<Mentioned> {
    let sent = answer.map(|answer| expected_answer::mentioned_members(answer, mutated.sent)).unwrap_or_default();
    let names = expressions::loop_names(sent.iter().map(|(pointer, _)| pointer.as_str()));
    let one = |((pointer, value), name)| Mentioned { pointer, name, value };
    sent.into_iter().zip(names).map(one).collect()
}

/// Returns the loop that sends each message of `rounds` and checks its answer. All demand the same answer as `first`.
pub fn round_loop(corpus: &Corpus, first: &MutatedInput<'_>, rounds: Vec<Value>) -> CaseStep {
    let answer = demanded_answer(corpus, first);
    let sent = members_of_round(answer, first);
    if first.input.placement == Placement::Anew {
        let steps = own_connection_steps(corpus, first, answer, &sent);
        return CaseStep::new("", StepVerb::Each, ROUND_VARIABLE).with("in", rounds).doing(steps);
    }
    let rounds: Vec<&[Value]> = rounds.chunks(BATCH_SIZE).collect();
    CaseStep::new("", StepVerb::Each, BATCH_VARIABLE)
        .with("in", json!(rounds))
        .doing(shared_connection_steps(corpus, first, answer, &sent))
}

/// Returns the steps of a batch on a shared connection. The next batch is sent once all answers have come.
fn shared_connection_steps(
    corpus: &Corpus,
    first: &MutatedInput<'_>,
    answer: Option<&ExpectedAnswer>,
    sent: &Value,
) -> Vec<CaseStep> {
    // A hub may close after many invalid messages. Other placements check whether it may close after one. It may not
    // close after valid messages.
    let is_right = matches!(first.input.class, PayloadClass::Valid | PayloadClass::Unusual);
    let close = (!is_right).then(|| json!({ "close": ["any", "drop"] }));
    let expects = match answer {
        None => Vec::new(),
        // Each message would wait for an optional answer; other placements check that answer.
        Some(answer) if has_lowered_level(&oracle_with_rules(corpus, first.answer_oracle(), &answer.rules)) => {
            vec![wait_for_any_answer(first.sender, &[])]
        }
        Some(answer) if is_right => check_answer_or_hub(corpus, first, answer, sent).into(),
        Some(answer) => vec![expect_one_of(corpus, first, answer, sent, close)],
    };
    let of_all = |steps| {
        CaseStep::new("", StepVerb::Each, ROUND_VARIABLE).with("in", format!("${{{BATCH_VARIABLE}}}")).doing(steps)
    };
    [vec![send_round(first.sender)], expects].into_iter().filter(|steps| !steps.is_empty()).map(of_all).collect()
}

fn send_round(sender: &str) -> CaseStep {
    CaseStep::new(sender, StepVerb::SendsRaw, json!({ "text": format!("${{{ROUND_VARIABLE}.text}}") }))
        .named(MUTATED_STEP)
}

/// Returns the steps for a message on a connection of its own. If no answer is demanded, the observer client's request
/// gives an answer time to come: a pong may overtake the answer, and the next round closes the connection. If an answer
/// is demanded, other clients are checked after the loop: all rounds together take less time than a hub may take for
/// one request.
fn own_connection_steps(
    corpus: &Corpus,
    first: &MutatedInput<'_>,
    answer: Option<&ExpectedAnswer>,
    sent: &Value,
) -> Vec<CaseStep> {
    let mut steps = vec![connect_step(first.sender), send_round(first.sender)];
    match answer {
        Some(answer) if !answer.one_of.is_empty() => steps.extend(check_answer_or_hub(corpus, first, answer, sent)),
        answer => {
            steps.extend(check_observer(corpus));
            // If some answers are forbidden, expect only the pong, so that this step does not consume one of them.
            let any = answer.is_none().then(|| json!({ "message": "any" }));
            steps.extend(wait_until_pong(first.sender, any));
        }
    }
    answer.into_iter().for_each(|answer| check_forbidden_answers(corpus, first, answer, Some(sent), &mut steps));
    steps
}

/// Checks that the observer client is still connected and served.
fn check_observer(corpus: &Corpus) -> [CaseStep; 2] {
    let rule = StepRule::new("FUZZ-SERVES-OLD", None);
    [check_served(corpus, OBSERVER, &rule), check_still_open(OBSERVER, &[rule])]
}

/// Checks that the demanded answer comes. If it does not, or the connection ends instead, the observer client is checked
/// first, so that a dead hub is reported as dead rather than as not answering.
fn check_answer_or_hub(
    corpus: &Corpus,
    mutated: &MutatedInput<'_>,
    answer: &ExpectedAnswer,
    sent: &Value,
) -> [CaseStep; 7] {
    let missing =
        [json!({ "close": ["any", "drop"], "as": ENDED_NAME }), json!({ "nothing": null, "as": MISSING_NAME })];
    let comes = expect_one_of(corpus, mutated, answer, sent, missing);
    let came = expect_one_of(corpus, mutated, answer, sent, None).with("within", "0s");
    let rules = oracle_with_rules(corpus, mutated.answer_oracle(), &answer.rules);
    let ended = CaseStep::new("", StepVerb::Check, format!("${{{ENDED_NAME}}}"));
    let ended = ended.with("equals", "an answer, not the end of the connection").judged_by(rules);
    let after = |name: &'static str, judges: CaseStep| {
        let [serves, stays] = check_observer(corpus);
        [serves, stays, judges].map(|step| step.only_if(name))
    };
    let ([a, b, c], [d, e, f]) = (after(MISSING_NAME, came), after(ENDED_NAME, ended));
    [comes, a, b, c, d, e, f]
}

/// Returns the members of the input that the answer must mention, as expressions on the current round.
fn members_of_round(answer: Option<&ExpectedAnswer>, mutated: &MutatedInput<'_>) -> Value {
    let mut sent = Value::Null;
    for Mentioned { pointer, name, .. } in mentioned(answer, mutated) {
        compose::put_at_pointer(
            &mut sent,
            &pointer,
            json!(expressions::member(&format!("{ROUND_VARIABLE}.sent"), &[PathSegment::Member(name)])),
        );
    }
    sent
}

/// Expects the demanded answer, or one of the alternatives in `others`.
fn expect_one_of(
    corpus: &Corpus,
    mutated: &MutatedInput<'_>,
    answer: &ExpectedAnswer,
    sent: &Value,
    others: impl IntoIterator<Item = Value>,
) -> CaseStep {
    let about = |alternative| expected_answer::substitute_input(alternative, Some(sent));
    demands(corpus, mutated, answer, answer.one_of.iter().map(about).chain(others).collect())
}

/// Expects one of these answers to the input, under the rules of the demanded one.
fn demands(corpus: &Corpus, mutated: &MutatedInput<'_>, answer: &ExpectedAnswer, alternatives: Vec<Value>) -> CaseStep {
    let step = CaseStep::new(mutated.sender, StepVerb::ExpectsOneOf, alternatives).after(MUTATED_STEP);
    step.judged_by(oracle_with_rules(corpus, mutated.answer_oracle(), &answer.rules))
}

/// Expects the demanded answer. After a refusal the sender must be served, its state must be as before, and the refusal
/// must not contain the observer client's unique value. Returns whether the case has bound the refusal to a name.
fn check_answer(
    corpus: &Corpus,
    mutated: &MutatedInput<'_>,
    answer: &ExpectedAnswer,
    steps: &mut Vec<CaseStep>,
) -> bool {
    if answer.one_of.is_empty() {
        return false;
    }
    let wrong = mutated.is_wrong();
    let alternative = |alternative: &Value| {
        let mut alternative = expected_answer::substitute_input(alternative, mutated.sent);
        let refuses = wrong && alternative.get("message").is_some() && alternative.get("info").is_none();
        if let (true, Some(members)) = (refuses && alternative.get("fail").is_none(), alternative.as_object_mut()) {
            members.insert("as".to_owned(), json!(REFUSAL_NAME));
        }
        alternative
    };
    let mut alternatives: Vec<Value> = answer.one_of.iter().map(alternative).collect();
    if mutated.follows_random_walk() {
        alternatives.retain(|alternative| alternative.get("fail").is_none());
        alternatives.iter_mut().filter_map(Value::as_object_mut).for_each(|members| drop(members.remove("warn")));
        alternatives.push(json!({ "close": ["any", "drop"] }));
    }
    let may_refuse = alternatives.iter().any(|alternative| alternative.get("as").is_some());
    steps.push(demands(corpus, mutated, answer, alternatives));
    if !may_refuse || mutated.follows_random_walk() || mutated.input.placement == Placement::First {
        return false;
    }
    if let (Some(mark), false) = (corpus.observer_mark(), mutated.names_another) {
        let check = format!("${{{OBSERVER}.{mark} in json({REFUSAL_NAME})}}");
        let step = CaseStep::new("", StepVerb::Check, check).with("equals", false).only_if(REFUSAL_NAME);
        steps.push(step.judged_by([StepRule::new("FUZZ-ISOLATES", None)]));
    }
    if let (Some(fence), rules @ [_, ..]) = (corpus.fence(), corpus.usable_after_error_rules()) {
        let rules = oracle_with_rules(corpus, "FUZZ-GOES-ON", rules);
        let asks = retry([CaseStep::new(mutated.sender, StepVerb::Plays, fence)]).only_if(REFUSAL_NAME);
        steps.extend([asks.judged_by(&*rules), check_still_open(mutated.sender, &rules).only_if(REFUSAL_NAME)]);
    }
    if let (true, Some((scene, is))) = (mutated.has_queryable_state(corpus), corpus.state_query()) {
        steps.push(CaseStep::new(mutated.sender, StepVerb::Plays, scene).named(STATE_AFTER).only_if(REFUSAL_NAME));
        let state = |state: &str| {
            expressions::renamed(is, &|name| match name {
                "state" => Some(state),
                "self" => Some(mutated.sender),
                _ => None,
            })
        };
        let (check, equals) = (state(STATE_AFTER), state(STATE_BEFORE));
        let step = CaseStep::new("", StepVerb::Check, check).with("equals", equals).only_if(REFUSAL_NAME);
        steps.push(step.judged_by([StepRule::new("FUZZ-KEEPS", None)]));
    }
    true
}

/// Returns the reply to the fence as an alternative of a step.
fn fence_answer(answer: &CaseStep) -> Value {
    let mut comes = Map::from_iter([("message".to_owned(), answer.argument.clone())]);
    comes.extend(answer.option("where").map(|pattern| ("where".to_owned(), pattern.clone())));
    Value::Object(comes)
}

/// Checks that a client that has sent invalid input is either served or disconnected, even if the document demands no
/// answer.
fn check_served_or_closed(corpus: &Corpus, mutated: &MutatedInput<'_>) -> Option<[CaseStep; 3]> {
    let alone = matches!(mutated.input.placement, Placement::Joined | Placement::Repeated);
    let may_ask = mutated.is_wrong()
        || mutated.input.class == PayloadClass::Unspecified
            && !mutated.is_unfinished
            && mutated.size <= LONG_TEXT_BYTES;
    let [asks, answer] = corpus.fence_exchange().filter(|_| alone && may_ask)?;
    let close = json!({ "close": ["any", "drop"] });
    let asks = prefix::step_of_actor(asks, mutated.sender).only_if(OPEN_NAME);
    let comes = fence_answer(answer);
    let one_of = |alternatives: Value| CaseStep::new(mutated.sender, StepVerb::ExpectsOneOf, alternatives);
    let is_open = one_of(json!([close, { "nothing": null, "as": OPEN_NAME }])).with("within", "0s");
    let rule = StepRule::new("FUZZ-GOES-ON", Some(RuleLevel::Should));
    let answered = one_of(json!([comes, close])).after(asks.name()?).only_if(OPEN_NAME).judged_by([rule]);
    Some([is_open, asks, answered])
}

/// Waits a moment for an answer to a message that was not due, or for the end of the connection.
fn wait_for_reaction(sender: &str) -> CaseStep {
    let [at_once, ..] = UNEXPLAINED_NAMES.map(unexplained_close);
    let ends = [at_once, json!({ "close": "any" }), json!({ "nothing": null, "as": SILENT_NAME })];
    let alternatives: Vec<Value> = std::iter::once(json!({ "message": "any" })).chain(ends).collect();
    CaseStep::new(sender, StepVerb::ExpectsOneOf, alternatives).after(MUTATED_STEP).with("within", OPTIONAL_ANSWER_WAIT)
}

/// Returns the alternative for a close whose code gives no reason: a normal one, none, or an internal error.
fn unexplained_close(name: &str) -> Value {
    json!({ "close": [1000, 1005, 1011, "drop"], "as": name })
}

/// Checks that a client that sent a message that was not due, and got no answer, is still served, or that its connection
/// was closed with a code or a text that explains it.
fn check_served_or_explained(corpus: &Corpus, mutated: &MutatedInput<'_>) -> Vec<CaseStep> {
    let Some([asks, answer]) = corpus.fence_exchange() else { return Vec::new() };
    let one_of = |alternatives: [Value; 3]| CaseStep::new(mutated.sender, StepVerb::ExpectsOneOf, json!(alternatives));
    let rule = StepRule::new("FUZZ-GOES-ON", Some(RuleLevel::Should));
    let open = json!({ "nothing": null, "as": OPEN_NAME });
    let [_, later, instead] = UNEXPLAINED_NAMES.map(unexplained_close);
    let is_open = one_of([later, json!({ "close": "any" }), open]).with("within", "0s");
    let asks = prefix::step_of_actor(asks, mutated.sender).only_if(OPEN_NAME);
    let answered = one_of([fence_answer(answer), instead, json!({ "close": "any" })]);
    let answered = answered.after(asks.name().unwrap_or_default()).only_if(OPEN_NAME).judged_by([rule.clone()]);
    let explained = UNEXPLAINED_NAMES.map(|name| {
        let check = CaseStep::new("", StepVerb::Check, format!("${{{name}.clean and {name}.reason != ''}}"));
        let check = check.with("says", "the connection was closed without a reason");
        check.only_if(name).judged_by([rule.clone()])
    });
    [is_open.only_if(SILENT_NAME), asks, answered].into_iter().chain(explained).collect()
}

/// Checks that no answer came that the document forbids; `sent` is the payload that was sent.
fn check_forbidden_answers(
    corpus: &Corpus,
    mutated: &MutatedInput<'_>,
    answer: &ExpectedAnswer,
    sent: Option<&Value>,
    steps: &mut Vec<CaseStep>,
) {
    for (number, alternative) in answer.never.iter().enumerate() {
        let alternative = expected_answer::substitute_input(alternative, sent);
        let Some(message) = alternative.get("message") else { continue };
        let name = format!("wrong_{number}");
        let step = CaseStep::new(mutated.sender, StepVerb::Expects, message.clone());
        let step = matching(step, alternative.get("where").cloned()).with("count", json!({ "min": 0 }));
        steps.push(step.with("for", "0s").after(MUTATED_STEP).named(&*name));
        let rule = if mutated.input.class == PayloadClass::Valid { "FUZZ-ANSWERS" } else { "FUZZ-REJECTS" };
        let check = format!("${{{name} | length}}");
        let check = CaseStep::new("", StepVerb::Check, check).with("equals", 0);
        steps.push(check.judged_by(oracle_with_rules(corpus, rule, &answer.rules)));
    }
}

/// Checks that the observer's request does not take much longer than before.
fn check_response_time(corpus: &Corpus, steps: &mut Vec<CaseStep>) {
    let Some((fence, asked, got)) = corpus.timed_fence() else { return };
    let took = |name: &str| format!("(wire({name}.{got}).at - wire({name}.{asked}).at)");
    let longer = format!("${{{} - {} * {}}}", took(FENCE_AFTER), MAX_SLOWDOWN.0, took(FENCE_BEFORE));
    let check = CaseStep::new("", StepVerb::Check, longer).with("fits", json!({ "maximum": MAX_SLOWDOWN.1 }));
    let asks = CaseStep::new(OBSERVER, StepVerb::Plays, fence).named(FENCE_AFTER);
    steps.push(retry([asks, check.judged_by([StepRule::new("FUZZ-STEADY", None)])]));
}

/// Repeats steps until they succeed.
fn retry(steps: impl Into<Vec<CaseStep>>) -> CaseStep {
    CaseStep::new("", StepVerb::Retry, SERVICE_WAIT).doing(steps)
}

/// Connects an actor. A full hub may need a moment to notice that other clients have left.
pub(super) fn connect_step(actor: &str) -> CaseStep {
    join_step(actor, &StepRule::new("FUZZ-SERVES-NEW", None))
}

fn join_step(actor: &str, rule: &StepRule) -> CaseStep {
    retry([CaseStep::new(actor, StepVerb::Joins, ())]).judged_by([rule.clone()])
}

/// Checks that an actor is served, with the fence, or with a WebSocket ping if the pack has no fence.
pub(super) fn check_served(corpus: &Corpus, actor: &str, rule: &StepRule) -> CaseStep {
    let asks = match corpus.fence() {
        Some(scene) => vec![CaseStep::new(actor, StepVerb::Plays, scene)],
        None => vec![
            CaseStep::new(actor, StepVerb::SendsRaw, json!({ "frames": [{ "opcode": "ping", "data": "there?" }] })),
            CaseStep::new(actor, StepVerb::ExpectsFrame, "pong").with("where", json!({ "data": "there?" })),
        ],
    };
    retry(asks).judged_by([rule.clone()])
}

/// Waits a moment for an answer to the sender, so that its schema is checked: a reply to another client does not prove
/// that the answer has come. Binds a refusal to a name.
fn wait_for_any_answer(sender: &str, refusals: &[Value]) -> CaseStep {
    let mut alternatives = refusals.to_vec();
    alternatives.iter_mut().for_each(|refusal| refusal["as"] = json!(REFUSAL_NAME));
    alternatives.extend([json!({ "message": "any" }), json!({ "close": ["any", "drop"] }), json!({ "nothing": null })]);
    CaseStep::new(sender, StepVerb::ExpectsOneOf, alternatives).after(MUTATED_STEP).with("within", OPTIONAL_ANSWER_WAIT)
}

/// Waits a moment for an answer to the sender, like [`wait_for_any_answer`], and checks that it is JSON. If the document
/// names a parser that also writes other words for numbers, this is only a recommendation.
fn check_answer_is_json(corpus: &Corpus, sender: &str, refusals: &[Value]) -> [CaseStep; 2] {
    let mut waits = wait_for_any_answer(sender, refusals);
    let any = waits.argument.as_array_mut().into_iter().flatten().find(|one| one["message"] == "any");
    any.into_iter().for_each(|any| any["as"] = json!(ANY_ANSWER_NAME));
    // The text of a long answer may be shortened.
    let wire = format!("wire({ANY_ANSWER_NAME})");
    let check = format!("${{{wire}.size > {MAX_CHECKED_BYTES} or is_json({wire}.text)}}");
    let check = CaseStep::new("", StepVerb::Check, check).with("says", "the answer is not JSON");
    let level = if corpus.pack.extension.numbers.is_empty() { RuleLevel::Must } else { RuleLevel::Should };
    [waits, check.only_if(ANY_ANSWER_NAME).judged_by([StepRule::at_most("FUZZ-ANSWERS", level)])]
}

/// Waits for an answer to the sender, at most until the hub answers a ping sent after the message.
fn wait_until_pong(sender: &str, awaited: Option<Value>) -> [CaseStep; 2] {
    let ping = json!({ "frames": [{ "opcode": "ping", "data": "processed?" }] });
    let pong = json!({ "frame": "pong", "where": { "data": "processed?" } });
    let others = [pong, json!({ "close": ["any", "drop"] }), json!({ "nothing": null })];
    let all: Vec<Value> = awaited.into_iter().chain(others).collect();
    [
        CaseStep::new(sender, StepVerb::SendsRaw, ping),
        CaseStep::new(sender, StepVerb::ExpectsOneOf, all).after(MUTATED_STEP).with("within", OPTIONAL_ANSWER_WAIT),
    ]
}

/// Checks that an actor's connection is still open. On a closed connection the fence would be skipped instead of
/// failing.
fn check_still_open(actor: &str, rules: &[StepRule]) -> CaseStep {
    let alternatives = json!([{ "close": ["any", "drop"], "fail": "its connection is gone" }, { "nothing": null }]);
    CaseStep::new(actor, StepVerb::ExpectsOneOf, alternatives).with("within", "0s").judged_by(rules)
}

/// Returns the rules of a step: the oracle, lowered to the highest level among the rules that demand the answer, and
/// these rules.
fn oracle_with_rules(corpus: &Corpus, oracle: &str, rules: &[StepRule]) -> Vec<StepRule> {
    let level = rules.iter().filter_map(|rule| rule.level(&corpus.pack)).max().unwrap_or(RuleLevel::Must);
    std::iter::once(StepRule::at_most(oracle, level)).chain(rules.iter().cloned()).collect()
}

/// Whether the first of these rules, the oracle, has a lowered level.
fn has_lowered_level(with_rules: &[StepRule]) -> bool {
    with_rules.first().is_some_and(|oracle| oracle.lowered.is_some())
}

/// A message, a pattern for its content, and the rule that is broken if the observer client receives it.
type PrivateMessage = (String, Option<Value>, StepRule);

/// Returns the messages that only the sender may receive: replies to the mutated message, and refusals of such input.
/// If the hub may also send such a message unsolicited, receiving it is only a warning.
fn private_messages(
    corpus: &Corpus,
    mutated: &MutatedInput<'_>,
    answer: Option<&ExpectedAnswer>,
) -> Vec<PrivateMessage> {
    let unasked = |name: &str| corpus.pack.message(name).is_some_and(|message| message.directions.unasked);
    let open = corpus.open_names();
    let rule = |name: &str| {
        let may_come = unasked(name) || open.iter().any(|known| known == name);
        StepRule::new("FUZZ-ISOLATES", may_come.then_some(RuleLevel::Should))
    };
    let replies = mutated.message.replies.iter().filter(|name| !unasked(name));
    let mut found: Vec<PrivateMessage> = replies.map(|name| (name.clone(), None, rule(name))).collect();
    found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    found.dedup_by(|(one, ..), (other, ..)| one == other);
    for alternative in answer.map_or(&[][..], |answer| &answer.one_of) {
        let alternative = expected_answer::substitute_input(alternative, mutated.sent);
        let Some(name) = alternative.get("message").and_then(Value::as_str) else { continue };
        let is_known = found.iter().any(|(known, pattern, _)| known == name && pattern.is_none());
        if name == "any" || is_known || (unasked(name) && alternative.get("where").is_none()) {
            continue;
        }
        found.push((name.to_owned(), alternative.get("where").cloned(), rule(name)));
    }
    found
}

/// Returns the oracles as rules, so that they are reported like the rules of a document.
pub fn oracle_rules(sources: &mut Sources) -> Vec<Rule> {
    let file = sources.add("oracles.yaml", include_str!("oracles.yaml"));
    let mut diagnostics = Vec::new();
    let parsed = yaml::parse(sources, file).map(|root| rules::parse_rules(&root, &mut diagnostics).rules);
    let ours = |rule: Rule| Rule { place: RulePlace::Oracle, ..rule };
    parsed.map(|rules| rules.into_values().map(ours).collect()).unwrap_or_default()
}
