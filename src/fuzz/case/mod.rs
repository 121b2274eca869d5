//! One case: a prefix, a mutated message, and the steps of the oracles. A case is an ordinary scenario, so `hubproof
//! check` can replay a finding.

pub mod churn;
pub mod message;
pub mod untimely;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use self::churn::Churn;
use self::message::{MessageDraft, SentMessage};
use self::untimely::Untimely;
use super::actors::{MUTATED_STEP, NEW_CLIENT, OBSERVER};
use super::case_scenario::{CaseScenario, CaseStep};
use super::corpus::Corpus;
use super::corpus::expected_answer::{ExpectedAnswer, InputProperties};
use super::corpus::prefix::CasePrefix;
use super::expressions;
use super::mutate::frames::FramingMutation;
use super::mutate::json_text::JsonCorruption;
use super::mutate::payload::{self, PayloadClass};
use super::mutate::schema::{MemberMutation, MutationSite};
use super::oracle;
use super::placement::Placement;
use crate::generate::rng::RandomSource;
use crate::protocol::MessageType;
use crate::scenario::parse::verbs::StepVerb;
use crate::syntax::explanation::Explanation;

/// The mutation of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MutationKind {
    /// The message stays valid, with unusual values and undocumented members.
    Explored,
    Mutated(MemberMutation),
    Corrupted(JsonCorruption),
    Framed(FramingMutation),
    /// The message is sent, if at all, by many clients that connect and leave.
    Churn(Churn),
    /// The message is valid and unchanged, but not due.
    Untimely(Untimely),
}

impl MutationKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Explored => "explored",
            Self::Mutated(mutation) => mutation.name(),
            Self::Corrupted(corruption) => corruption.name(),
            Self::Framed(framing) => framing.name(),
            Self::Churn(churn) => churn.name(),
            Self::Untimely(untimely) => untimely.name(),
        }
    }

    pub fn explanation(self) -> Explanation {
        let means = match self {
            Self::Explored => {
                "The message stays valid, with unusual values, other optional members, and members that the schema permits but does not name."
            }
            Self::Mutated(mutation) => mutation.meaning(),
            Self::Corrupted(corruption) => corruption.meaning(),
            Self::Framed(framing) => framing.meaning(),
            Self::Churn(churn) => churn.meaning(),
            Self::Untimely(untimely) => untimely.meaning(),
        };
        Explanation::new(self.name(), means)
    }

    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Explored)
            .chain(MemberMutation::ALL.into_iter().map(Self::Mutated))
            .chain(JsonCorruption::ALL.into_iter().map(Self::Corrupted))
            .chain(FramingMutation::ALL.into_iter().map(Self::Framed))
            .chain(Churn::ALL.into_iter().map(Self::Churn))
            .chain(Untimely::ALL.into_iter().map(Self::Untimely))
    }

    /// Returns why a message has no case of this mutation. `None` if the mutation does not depend on the message, and
    /// another message has its cases.
    pub fn why_omitted(self, has_place: bool) -> Option<&'static str> {
        Some(match self {
            Self::Mutated(mutation) if !has_place => mutation.why_no_place(),
            Self::Mutated(_) => "the message has no value that can be changed in this way",
            Self::Explored => "no other valid value was found",
            Self::Corrupted(JsonCorruption::SingleQuotes) => "the message has no text in quotes",
            Self::Corrupted(JsonCorruption::BareKeys) => "the message has no member",
            Self::Corrupted(_) => "the text of the message cannot be changed in this way",
            Self::Framed(_) | Self::Untimely(_) => "no role can send the message",
            Self::Churn(_) => return None,
        })
    }
}

/// Message, mutation and placement of cases; the random number generator of a case decides what exactly is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FuzzCell {
    /// Index into the pack's messages.
    pub message: usize,
    pub mutation: MutationKind,
    pub placement: Placement,
}

/// A case, ready to be played.
pub struct FuzzCase {
    pub number: u64,
    pub cell: FuzzCell,
    pub class: PayloadClass,
    /// The mutation in words: `/priority is "high"`.
    pub description: String,
    /// JSON pointer to the mutated member; empty for the whole message.
    pub pointer: String,
    pub scenario: CaseScenario,
}

/// Makes a case of a cell with one of `prefixes`; `None` where the draw gives none.
pub fn make_case(
    corpus: &Corpus,
    cell: FuzzCell,
    prefixes: &[CasePrefix],
    number: u64,
    dice: &mut RandomSource,
) -> Option<FuzzCase> {
    match cell.mutation {
        MutationKind::Untimely(untimely) if !untimely.occurs_at(cell.placement) => None,
        MutationKind::Churn(churn) => make_churn_case(corpus, cell, churn, dice.pick(prefixes)?.clone(), number, dice),
        _ if cell.placement.sends_many() => {
            make_batch_case_with_some_prefix(corpus, cell, prefixes, number, dice).map(|(_, case, _)| case)
        }
        _ => make_single_case(corpus, cell, dice.pick(prefixes)?.clone(), Vec::new(), number, dice),
    }
}

/// Makes a case of connection churn.
fn make_churn_case(
    corpus: &Corpus,
    cell: FuzzCell,
    churn: Churn,
    prefix: CasePrefix,
    number: u64,
    dice: &mut RandomSource,
) -> Option<FuzzCase> {
    let draft = MessageDraft::new(corpus, cell, &prefix)?;
    let (sent, _) = draft.draw_mutated(dice)?;
    let mut steps = prefix.steps.clone();
    steps.push(churn.client_loop(corpus, cell, &prefix, &sent.text()?)?);
    let input = to_mutated_input(corpus, draft.message, cell, &prefix, &sent);
    steps.extend(oracle::steps_after_with_level(corpus, &input, Vec::new(), churn.serves_new()));
    Some(assemble_case(corpus, cell, prefix, &sent, steps, number))
}

/// Returns, for a case with many mutated messages, one case for each of them; empty for other cases.
pub fn single_message_cases(
    corpus: &Corpus,
    cell: FuzzCell,
    prefixes: &[CasePrefix],
    number: u64,
    dice: &mut RandomSource,
) -> Vec<FuzzCase> {
    let is_of_many = cell.placement.sends_many() && !matches!(cell.mutation, MutationKind::Churn(_));
    let found = is_of_many.then(|| make_batch_case_with_some_prefix(corpus, cell, prefixes, number, dice));
    let Some((prefix, _, all)) = found.flatten() else { return Vec::new() };
    let cell = FuzzCell { placement: Placement::Joined, ..cell };
    let case = |sent| assemble_single_case(corpus, cell, prefix.clone(), sent, None, Vec::new(), number);
    all.into_iter().filter_map(case).collect()
}

/// Makes the case with many mutated messages. Tries `prefixes` in turn, beginning with a random one, until the sender
/// gets answers.
fn make_batch_case_with_some_prefix<'a>(
    corpus: &Corpus,
    cell: FuzzCell,
    prefixes: &'a [CasePrefix],
    number: u64,
    dice: &mut RandomSource,
) -> Option<(&'a CasePrefix, FuzzCase, Vec<SentMessage>)> {
    let from = dice.draw_below(prefixes.len().max(1));
    let mut round = prefixes.iter().cycle().skip(from).take(prefixes.len());
    round.find_map(|prefix| {
        let (case, all) = make_batch_case(corpus, cell, prefix, number, dice)?;
        Some((prefix, case, all))
    })
}

/// Makes a case with one mutated message, or its repetition. `others` are steps of other actors after the mutated
/// message, before the oracles.
pub(super) fn make_single_case(
    corpus: &Corpus,
    cell: FuzzCell,
    prefix: CasePrefix,
    others: Vec<CaseStep>,
    number: u64,
    dice: &mut RandomSource,
) -> Option<FuzzCase> {
    let mut draft = MessageDraft::new(corpus, cell, &prefix)?;
    let mut sent = draft.draw_mutated(dice)?.0;
    if cell.placement != Placement::Repeated {
        let first = untimely(cell.mutation).and_then(|untimely| untimely.first_time(&prefix.sender, &sent.raw));
        if first.is_some() {
            sent = draft.renew_correlation().draw_mutated(dice)?.0;
        }
        let mut prefix = prefix;
        let condition = first.map(|(steps, is_open)| {
            prefix.steps.extend(steps);
            is_open
        });
        return assemble_single_case(corpus, cell, prefix, sent, condition, others, number);
    }
    // Only texts that no hub can take for a message: ids would have to differ even in texts that are cut off.
    let is_no_message = |sent: &SentMessage| matches!(sent.class, PayloadClass::Malformed | PayloadClass::Unknown);
    if !matches!(cell.mutation, MutationKind::Corrupted(_)) || !is_no_message(&sent) {
        return None;
    }
    // Different texts of the kind, since only some of them may trigger a defect.
    let more = (1..oracle::REPEATED_MESSAGES).filter_map(|round| draft.set_ids(round).draw_mutated(dice));
    let more = more.filter_map(|(sent, _)| sent.text().filter(|_| is_no_message(&sent)));
    let texts: Vec<Value> = sent.text().into_iter().chain(more).collect();
    let input = to_mutated_input(corpus, draft.message, cell, &prefix, &sent);
    let sends = CaseStep::new(&prefix.sender, StepVerb::SendsRaw, json!({ "text": "${text}" })).named(MUTATED_STEP);
    let mut steps = prefix.steps.clone();
    steps.extend(oracle::steps_before(corpus, &input));
    steps.push(CaseStep::new("", StepVerb::Each, "text").with("in", texts).doing([sends]));
    steps.extend(oracle::steps_after(corpus, &input, Vec::new()));
    Some(assemble_case(corpus, cell, prefix, &sent, steps, number))
}

/// Returns why the message of a case is not due, if that is what the case is about.
fn untimely(mutation: MutationKind) -> Option<Untimely> {
    match mutation {
        MutationKind::Untimely(untimely) => Some(untimely),
        _ => None,
    }
}

/// Makes the case that sends this mutated message once, if the name `condition` is bound.
fn assemble_single_case(
    corpus: &Corpus,
    cell: FuzzCell,
    mut prefix: CasePrefix,
    sent: SentMessage,
    condition: Option<&str>,
    others: Vec<CaseStep>,
    number: u64,
) -> Option<FuzzCase> {
    let message = corpus.pack.messages.get(cell.message)?;
    let mut steps = std::mem::take(&mut prefix.steps);
    let rest = std::mem::take(&mut prefix.rest);
    let input = to_mutated_input(corpus, message, cell, &prefix, &sent);
    steps.extend(oracle::steps_before(corpus, &input));
    let sends = CaseStep::new(&prefix.sender, StepVerb::SendsRaw, sent.raw.clone()).named(MUTATED_STEP);
    steps.push(match condition {
        Some(name) => sends.only_if(name),
        None => sends,
    });
    steps.extend(others);
    steps.extend(oracle::steps_after(corpus, &input, rest));
    Some(assemble_case(corpus, cell, prefix, &sent, steps, number))
}

/// Mutated messages that are drawn for one connection.
const BATCH_MESSAGES: usize = 100;
/// The number of mutated messages if each has its own connection.
const BATCH_CONNECTIONS: usize = 25;
/// Number of draws without a usable message after which the case is given up.
const MAX_FAILED_DRAWS: usize = 16;
/// Number of messages of one group after which only messages of that group are drawn for a shared connection.
const GROUP_MESSAGES: usize = 5;

/// Mutated messages of one class that the document answers alike, with the same of their members in the answer.
struct MutatedBatch<'a> {
    class: PayloadClass,
    /// The answer that the document demands; `None` where it is silent.
    answer: Option<&'a ExpectedAnswer>,
    mentioned: Vec<String>,
    all: Vec<SentMessage>,
    rounds: Vec<Value>,
    ids: BTreeSet<String>,
    /// Where the messages are mutated.
    sites: Vec<&'a MutationSite>,
}

impl MutatedBatch<'_> {
    fn accepts(&self, class: PayloadClass, answer: Option<&ExpectedAnswer>, about: &Map<String, Value>) -> bool {
        let place = |answer: Option<&ExpectedAnswer>| answer.map(std::ptr::from_ref);
        self.class == class && place(self.answer) == place(answer) && self.mentioned.iter().eq(about.keys())
    }
}

/// Makes the case with many mutated messages that the document answers alike; also returns these.
fn make_batch_case(
    corpus: &Corpus,
    cell: FuzzCell,
    prefix: &CasePrefix,
    number: u64,
    dice: &mut RandomSource,
) -> Option<(FuzzCase, Vec<SentMessage>)> {
    let mut draft = MessageDraft::new(corpus, cell, prefix)?;
    let message = draft.message;
    let anew = cell.placement == Placement::Anew;
    let mut kinds: Vec<MutatedBatch<'_>> = Vec::new();
    let mut narrowed = anew;
    for index in 0..if anew { BATCH_CONNECTIONS } else { BATCH_MESSAGES } {
        if index == MAX_FAILED_DRAWS && kinds.is_empty() {
            return None;
        }
        let Some((sent, site)) = draft.set_ids(index).draw_mutated(dice) else { continue };
        // Invalid frames are left out: no message answers them, and the hub closes the connection.
        let text = sent.text()?;
        let (answer, about) =
            oracle::demanded_answer_and_members(corpus, &to_mutated_input(corpus, message, cell, prefix, &sent));
        // A shared connection needs an answer that comes for certain and does not close it.
        if !anew && !answer.is_some_and(ExpectedAnswer::is_message) {
            continue;
        }
        let known = kinds.iter().position(|kind| kind.accepts(sent.class, answer, &about)).unwrap_or_else(|| {
            let (class, mentioned) = (sent.class, about.keys().cloned().collect());
            let (all, rounds, ids, sites) = (Vec::new(), Vec::new(), BTreeSet::new(), Vec::new());
            kinds.push(MutatedBatch { class, answer, mentioned, all, rounds, ids, sites });
            kinds.len() - 1
        });
        let kind = kinds.get_mut(known)?;
        let round = json!({ "text": text, "sent": about });
        // On a shared connection the same text may be sent again, but no id twice. An id that is made of the sender's
        // identity differs on every new connection.
        let known = anew && kind.rounds.contains(&round);
        let id = sent.id(message).filter(|id| !anew || expressions::is_literal(id));
        if !known && id.is_none_or(|id| kind.ids.insert(id)) {
            kind.rounds.push(round);
            kind.sites.extend(site);
            kind.all.push(sent);
            if kind.all.len() == GROUP_MESSAGES && !narrowed {
                draft.restrict_to_common(&kind.all, &kind.sites);
                narrowed = true;
            }
        }
    }
    // With new connections, any group that the document answers; else the first of the largest.
    let told: Vec<usize> =
        (0..kinds.len()).filter(|at| kinds[*at].answer.is_some() && kinds[*at].all.len() > 1).collect();
    let chosen = match dice.pick(&told).filter(|_| anew) {
        Some(at) => Some(kinds.swap_remove(*at)),
        None => kinds.into_iter().rev().max_by_key(|kind| kind.all.len()),
    };
    let MutatedBatch { all, rounds, .. } = chosen?;
    let first = all.first().filter(|_| all.len() > 1)?;
    let input = to_mutated_input(corpus, message, cell, prefix, first);
    let mut prefix = prefix.clone();
    let mut steps = std::mem::take(&mut prefix.steps);
    steps.push(oracle::round_loop(corpus, &input, rounds));
    steps.extend(oracle::steps_after(corpus, &input, Vec::new()));
    Some((assemble_case(corpus, cell, prefix, first, steps, number), all))
}

/// Returns the mutated message as the oracles see it.
fn to_mutated_input<'a>(
    corpus: &'a Corpus,
    message: &'a MessageType,
    cell: FuzzCell,
    prefix: &'a CasePrefix,
    sent: &'a SentMessage,
) -> oracle::MutatedInput<'a> {
    let taken_for = sent.plain.as_ref().and_then(|plain| payload::recognised_as(&corpus.pack, plain));
    oracle::MutatedInput {
        message,
        input: InputProperties {
            class: sent.class,
            placement: cell.placement,
            role: &prefix.role,
            taken_for: taken_for.map(|message| &*message.name),
            payload: sent.plain.as_ref(),
        },
        sent: sent.value.as_ref(),
        sender: &prefix.sender,
        size: min_length(&sent.raw),
        names_another: cell.mutation == MutationKind::Mutated(MemberMutation::ForeignId),
        ids: &prefix.ids,
        is_churn: matches!(cell.mutation, MutationKind::Churn(_)),
        is_unfinished: cell.mutation == MutationKind::Framed(FramingMutation::UnfinishedMessage),
        is_json: matches!(sent.class, PayloadClass::Valid | PayloadClass::Unusual)
            || sent.class == PayloadClass::Unspecified && matches!(cell.mutation, MutationKind::Mutated(_)),
        untimely: untimely(cell.mutation),
    }
}

/// Assembles the scenario.
fn assemble_case(
    corpus: &Corpus,
    cell: FuzzCell,
    prefix: CasePrefix,
    sent: &SentMessage,
    steps: Vec<CaseStep>,
    number: u64,
) -> FuzzCase {
    let name = corpus.pack.messages.get(cell.message).map_or("", |message| &message.name);
    let (mutation, placement) = (cell.mutation.name(), cell.placement.name());
    let description = sent.description.describe();
    let title = format!("Case {number}: {name}, mutation {mutation}, sent {placement}: {description}");
    // Other cases at the same time would slow the hub down, or hide that it becomes slower.
    let hub = (cell.placement == Placement::Repeated).then(|| "hub".to_owned());
    let mut actors = prefix.actors;
    actors.insert(OBSERVER.to_owned(), json!(prefix.observer_role));
    actors.insert(NEW_CLIENT.to_owned(), json!(prefix.observer_role));
    let scenario = CaseScenario {
        title,
        others: prefix.needs.map(|needs| ("needs".to_owned(), needs)).into_iter().collect(),
        exclusive: hub.or(prefix.exclusive),
        actors,
        lets: prefix.lets,
        steps,
        finally: Vec::new(),
    };
    FuzzCase { number, cell, class: sent.class, description, pointer: sent.description.pointer(), scenario }
}

/// Returns the least number of bytes in all frames; what `repeat(...)` makes counts as long.
fn min_length(raw: &Value) -> usize {
    match raw {
        Value::String(_) if expressions::any(raw, &|expression| expression.calls("repeat")) => usize::MAX,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(min_length).fold(0, usize::saturating_add),
        Value::Object(members) => members.values().map(min_length).fold(0, usize::saturating_add),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::text(json!({ "text": "12345678" }), 8)]
    #[case::frames(json!({ "frames": [{ "opcode": "text", "data": "1234" }, { "data": "5678" }] }), 12)]
    #[case::repeated(json!({ "frames": [{ "data": "${repeat('x', 99999)}" }, { "data": "" }] }), usize::MAX)]
    #[case::bytes(json!({ "frames": [{ "rsv": 1, "hex": "ff" }] }), 2)]
    fn input_length_is_the_total_size_of_its_frames(#[case] raw: Value, #[case] expected: usize) {
        assert_eq!(min_length(&raw), expected);
    }
}
