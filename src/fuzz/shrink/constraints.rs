//! Decides which candidates must not be played. An oracle's demand depends on the input, for example that certain
//! invalid input is refused in a certain way. A smaller input may be valid, invalid in another way, or sent too early.
//! Then the document does not demand this answer, and a correct hub would appear to fail.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::json_text::{self, JsonTextKind};
use super::steps;
use crate::fuzz::case_scenario::{CaseScenario, CaseStep, StepOption};
use crate::fuzz::corpus::Corpus;
use crate::fuzz::corpus::expected_answer;
use crate::fuzz::mutate::payload::{self, PayloadClass};
use crate::fuzz::placement::Placement;
use crate::protocol::FrameDirection;
use crate::scenario::parse::verbs::StepVerb;
use crate::scenario::template::{escape_expressions, placeholder};

/// The oracles that hold for any input.
const INPUT_INDEPENDENT_ORACLES: [&str; 4] = ["FUZZ-LIVES", "FUZZ-SERVES-OLD", "FUZZ-SERVES-NEW", "FUZZ-STEADY"];

/// An expression without a known value.
const UNKNOWN: &str = "${_}";

/// The properties of a finding that must not change while it shrinks.
pub struct ShrinkConstraints<'a> {
    corpus: &'a Corpus,
    /// When the mutated message is sent.
    placement: Placement,
    /// The sender's role.
    role: String,
    /// The messages sent in openings.
    openings: BTreeSet<String>,
    kept: Option<OracleInputs>,
}

/// The input and the openings on which an oracle depends.
struct OracleInputs {
    /// Each input, with the name that its step binds.
    sent: Vec<(Option<String>, SentInput)>,
    /// The steps that connect each sender.
    opened: BTreeMap<String, Vec<CaseStep>>,
}

#[derive(Clone, Debug, PartialEq)]
enum SentInput {
    /// A text that is JSON: its message, class, schema violations, whether a key is duplicate, and the demanded answer.
    Json { message: Option<String>, class: PayloadClass, wrong: BTreeSet<(String, String)>, twice: bool, answer: Value },
    /// A text that is not JSON, and whether a lenient parser may accept it.
    NoJson { perhaps: bool },
    /// Frames, or anything else that is not text.
    Frames(Value),
}

impl<'a> ShrinkConstraints<'a> {
    /// Returns the constraints of a finding. `check` is the failed check as reports name it; `placement` is the
    /// placement of the case.
    pub fn for_finding(corpus: &'a Corpus, placement: Placement, finding: &CaseScenario, check: &str) -> Self {
        let mut openings = BTreeSet::new();
        for role in corpus.roles() {
            openings.extend(corpus.opening(role).iter().filter_map(|step| step.argument.as_str()).map(str::to_owned));
        }
        let role =
            steps::raw_sends(finding).last().map_or("", |mutated| finding.role_of(&mutated.step.actor)).to_owned();
        let mut constraints = Self { corpus, placement, role, openings, kept: None };
        let oracle = check.split([',', '#']).next().unwrap_or(check);
        if oracle.starts_with("FUZZ-") && !INPUT_INDEPENDENT_ORACLES.contains(&oracle) {
            constraints.kept = constraints.oracle_inputs(finding);
        }
        constraints
    }

    /// Whether the oracle still demands the same of a candidate.
    pub fn are_met_by(&self, candidate: &CaseScenario) -> bool {
        let Some(kept) = &self.kept else { return true };
        let Some(now) = self.oracle_inputs(candidate) else { return false };
        let mut before = kept.sent.iter();
        // `cleanup` removes names that no step uses any more, so a name may be missing.
        let is = |(name, sent): &(Option<String>, SentInput), (of, old): &(Option<String>, SentInput)| {
            (name.is_none() || name == of) && sent.is_within(old)
        };
        let sent = now.sent.iter().all(|sent| before.by_ref().any(|old| is(sent, old)));
        let opened = |(actor, steps): (&String, &Vec<CaseStep>)| {
            kept.opened.get(actor).is_some_and(|before| before.iter().all(|step| steps.contains(step)))
        };
        sent && now.opened.iter().all(opened)
    }

    fn oracle_inputs(&self, scenario: &CaseScenario) -> Option<OracleInputs> {
        let raw: Vec<&CaseStep> = steps::raw_sends(scenario).iter().map(|place| place.step).collect();
        let of = |actor: &str| {
            scenario.steps.iter().filter(|step| self.is_opening_step(step, actor)).map(without_name).collect()
        };
        let opened = raw.iter().map(|step| (step.actor.clone(), of(&step.actor))).collect();
        let sent = |step: &CaseStep| (step.name().map(str::to_owned), self.classify_input(&step.argument));
        let sent: Vec<_> = raw.into_iter().map(sent).collect();
        (!sent.is_empty()).then_some(OracleInputs { sent, opened })
    }

    /// Whether a step belongs to the opening of an actor, perhaps written out step by step.
    fn is_opening_step(&self, step: &CaseStep, actor: &str) -> bool {
        let is_of_opening = || step.argument.as_str().is_some_and(|message| self.openings.contains(message));
        step.actor == actor
            && (steps::only_connects(step)
                || matches!(step.verb, StepVerb::Sends | StepVerb::Expects) && is_of_opening())
    }

    fn classify_input(&self, what: &Value) -> SentInput {
        let Some(text) = what.get("text").and_then(Value::as_str) else { return SentInput::Frames(what.clone()) };
        let Some((sent, twice)) = self.value(text) else { return SentInput::NoJson { perhaps: is_nearly_json(text) } };
        let Some(message) = self.corpus.pack.recognise(&sent, FrameDirection::ToHub) else {
            let answer = self.demanded_answer(PayloadClass::Unknown, &sent, &sent);
            return SentInput::Json {
                message: None,
                class: PayloadClass::Unknown,
                wrong: BTreeSet::new(),
                twice,
                answer,
            };
        };
        let plain = self.corpus.settings.filled(message, &sent);
        let class = payload::classify(&self.corpus.pack, message, Some(&plain));
        let wrong = message.schema.violations(&plain).into_iter().map(|found| (found.path, found.expected)).collect();
        let answer = self.demanded_answer(class, &plain, &sent);
        SentInput::Json { message: Some(message.name.clone()), class, wrong, twice, answer }
    }

    /// Returns the value of a text as it is sent, and whether a key is duplicate; `None` if the text is not JSON. An
    /// expression whose value is unknown before the run stays an expression.
    fn value(&self, text: &str) -> Option<(Value, bool)> {
        let mut filled = String::with_capacity(text.len());
        let nodes = json_text::parse_nodes(text)?;
        let alone: BTreeSet<usize> =
            nodes.iter().filter(|node| matches!(node.kind, JsonTextKind::Other)).map(|node| node.range.start).collect();
        for atom in json_text::atoms(text) {
            let letters = &text[atom.clone()];
            match placeholder(letters).map(|_| self.corpus.settings.evaluated(letters)) {
                None => filled.push_str(letters),
                Some(Some(Value::String(value))) => filled.push_str(&escape_expressions(&value)),
                Some(Some(Value::Number(value))) => filled.push_str(&value.to_string()),
                Some(_) if alone.contains(&atom.start) => filled.extend(["\"", UNKNOWN, "\""]),
                Some(_) => filled.push_str(UNKNOWN),
            }
        }
        let twice = nodes.iter().filter(|node| matches!(node.kind, JsonTextKind::Object(_))).any(|node| {
            let key = |piece: &json_text::JsonTextElement| &text[piece.range.start..nodes[piece.value].range.start];
            let mut known = BTreeSet::new();
            !node.elements().iter().all(|piece| known.insert(key(piece).trim_end_matches([':', ' '])))
        });
        Some((serde_json::from_str(&filled).ok()?, twice))
    }

    /// Returns the answer that the document demands, with the members of the input that it must mention.
    fn demanded_answer(&self, class: PayloadClass, plain: &Value, sent: &Value) -> Value {
        let taken_for = payload::recognised_as(&self.corpus.pack, plain).map(|message| message.name.as_str());
        let input = expected_answer::InputProperties {
            class,
            placement: self.placement,
            role: &self.role,
            taken_for,
            payload: Some(plain),
        };
        self.corpus.expected_answer(&input).map_or(Value::Null, |answer| {
            let about = |alternatives: &[Value]| -> Value {
                alternatives
                    .iter()
                    .map(|alternative| expected_answer::substitute_input(alternative, Some(sent)))
                    .collect()
            };
            json!([about(&answer.one_of), about(&answer.never), answer.rules])
        })
    }
}

impl SentInput {
    /// Whether this is the same input as the old one, without additional violations.
    fn is_within(&self, old: &Self) -> bool {
        match (self, old) {
            (
                Self::Json { message, class, wrong, twice, answer },
                Self::Json { message: of, class: like, wrong: before, twice: both, answer: demanded },
            ) => message == of && class == like && twice == both && wrong.is_subset(before) && answer == demanded,
            (Self::NoJson { perhaps }, Self::NoJson { perhaps: before }) => *before || !perhaps,
            (new, old) => new == old,
        }
    }
}

/// Whether a lenient parser may accept a text that is not JSON: one with other quotes, commas or number notations.
fn is_nearly_json(text: &str) -> bool {
    let text = text.trim();
    let whole = |open, close| text.starts_with(open) && text.ends_with(close);
    // The value of an expression may be JSON.
    placeholder(text).is_some()
        || whole('{', '}')
        || whole('[', ']')
        || text.starts_with(|c: char| c.is_ascii_digit() || "+-.'\"/".contains(c))
}

/// Returns a step without the name that it binds.
fn without_name(step: &CaseStep) -> CaseStep {
    let mut step = step.clone();
    step.options.retain(|option| !matches!(option, StepOption::As(_)));
    step
}
