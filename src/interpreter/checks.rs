//! What becomes of the checks: asked, and how they came out. A check may be asked many times; the worst answer counts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Conversation;
use super::active_step::Failure;
use super::finding::Finding;
use super::invariants::valid_checks;
use crate::event::{Cause, CheckReport, Detail, Outcome, Verdict, verdict};
use crate::protocol::{Basis, Level, Pack};
use crate::scenario::model::{ActorId, Always, CheckId, Pattern, Program, Ready, RuleUse, Test};
use crate::scenario::template::{Names, Template};
use crate::scenario::value::EvalError;

#[derive(Clone, Default)]
struct State {
    asked: usize,
    worst: Option<Answer>,
}

#[derive(Clone)]
struct Answer {
    outcome: Outcome,
    message: String,
    step: String,
    detail: Option<Detail>,
}

/// A check that no scenario wrote down: a schema, or the framing.
#[derive(Clone, Default)]
struct Standing {
    rules: Vec<RuleUse>,
    state: State,
}

#[derive(Default)]
pub struct Judgement {
    checks: Vec<State>,
    /// Checks that stand under `always`: what they found on a frame is not undone with the attempt in which it came.
    always: BTreeSet<CheckId>,
    standing: BTreeMap<String, Standing>,
    /// Frames with nothing wrong, by the message that they are: its schema holds so many times.
    valid: BTreeMap<usize, usize>,
}

/// Checks as they stood before an attempt, so that only the last attempt accuses.
#[derive(Clone)]
pub struct Snapshot(Vec<State>);

fn rank(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::NotReached(_) => 0,
        Outcome::Holds => 1,
        Outcome::Noted(_) => 2,
        Outcome::Tolerated(_) => 3,
        Outcome::Undecided(_) => 4,
        Outcome::Broken => 5,
    }
}

impl State {
    fn add(&mut self, answer: Answer) {
        self.asked += usize::from(!matches!(answer.outcome, Outcome::NotReached(_) | Outcome::Undecided(_)));
        if self.worst.as_ref().is_none_or(|worst| rank(&answer.outcome) > rank(&worst.outcome)) {
            self.worst = Some(answer);
        }
    }
}

impl Judgement {
    pub fn new(program: &Program) -> Self {
        let always = program.always.iter().map(Always::check).collect();
        Self { checks: vec![State::default(); program.checks.len()], always, ..Self::default() }
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.checks.clone())
    }

    pub fn restore(&mut self, snapshot: &Snapshot) {
        for (id, (check, before)) in self.checks.iter_mut().zip(&snapshot.0).enumerate() {
            if !self.always.contains(&id) {
                check.clone_from(before);
            }
        }
    }

    pub fn answer(
        &mut self,
        check: CheckId,
        step: &str,
        outcome: Outcome,
        message: impl Into<String>,
        detail: Option<Detail>,
    ) {
        self.checks[check].add(Answer { outcome, message: message.into(), step: step.to_owned(), detail });
    }

    /// A frame keeps the schema of the message of this index, in all that it asks for.
    pub fn valid(&mut self, message: usize) {
        *self.valid.entry(message).or_default() += 1;
    }

    /// The framing was broken.
    pub fn websocket(&mut self, actor: &str, expected: &str, found: &str) {
        let detail = Detail {
            actor: actor.to_owned(),
            expected: expected.to_owned(),
            received: found.to_owned(),
            ..Detail::default()
        };
        let message = format!("{expected}: {found}");
        self.stand("websocket", Vec::new(), Outcome::Broken, message, Some(detail));
    }

    pub fn websocket_undecided(&mut self, actor: &str, why: &str) {
        let detail = Detail { actor: actor.to_owned(), received: why.to_owned(), ..Detail::default() };
        self.stand("websocket", Vec::new(), Outcome::Undecided(why.to_owned()), why.to_owned(), Some(detail));
    }

    pub fn stand(
        &mut self,
        name: &str,
        rules: Vec<RuleUse>,
        outcome: Outcome,
        message: String,
        detail: Option<Detail>,
    ) {
        let standing =
            self.standing.entry(name.to_owned()).or_insert_with(|| Standing { rules, state: State::default() });
        standing.state.add(Answer { outcome, message, step: name.to_owned(), detail });
    }

    /// What was only counted is a check like the others in the end: rules whose violation would have been seen hold, each
    /// by itself.
    fn stand_valid(&mut self, pack: &Pack) {
        for (message, times) in std::mem::take(&mut self.valid) {
            for (name, rules) in valid_checks(pack, &pack.messages[message]) {
                self.stand(&name, rules, Outcome::Holds, String::new(), None);
                if let Some(standing) = self.standing.get_mut(&name) {
                    standing.state.asked += times - 1;
                }
            }
        }
    }

    /// All checks with their verdicts, and the worst of them.
    pub fn finish(
        mut self,
        program: &Program,
        stated_only: bool,
        cause: Option<&Cause>,
        interrupted: bool,
    ) -> (Vec<CheckReport>, Verdict) {
        self.stand_valid(&program.pack);
        let mut reports = Vec::new();
        for (check, state) in program.checks.iter().zip(self.checks) {
            let unasked = || match cause {
                Some(cause) => Outcome::Undecided(format!("never asked: {}", cause.message)),
                None if interrupted => Outcome::Undecided("never asked: the run was interrupted".to_owned()),
                None => Outcome::NotReached("nothing to judge came by".to_owned()),
            };
            let answer = state.worst.unwrap_or_else(|| Answer {
                outcome: unasked(),
                message: String::new(),
                step: String::new(),
                detail: None,
            });
            reports.push(report(check.name.clone(), &check.rules, Some(check.span), state.asked, answer, stated_only));
        }
        for (name, standing) in self.standing {
            let Some(answer) = standing.state.worst else { continue };
            reports.push(report(name, &standing.rules, None, standing.state.asked, answer, stated_only));
        }
        let verdict = worst(reports.iter().map(|report| report.verdict), cause.is_some() || interrupted);
        (reports, verdict)
    }
}

/// Fail before inconclusive before warn; what could not be tested says nothing about the rest.
fn worst(verdicts: impl Iterator<Item = Verdict>, stopped: bool) -> Verdict {
    let floor = if stopped { Verdict::Inconclusive } else { Verdict::Pass };
    verdicts.filter(|verdict| *verdict != Verdict::NotTestable).fold(floor, Verdict::max)
}

fn report(
    name: String,
    rules: &[RuleUse],
    span: Option<crate::syntax::source::Span>,
    asked: usize,
    answer: Answer,
    stated_only: bool,
) -> CheckReport {
    let judged: Vec<(RuleUse, Verdict)> = rules
        .iter()
        .map(|rule| (rule.clone(), verdict(&answer.outcome, rule.level, rule.basis, stated_only)))
        .collect();
    let whole = match judged.iter().map(|(_, verdict)| *verdict).max() {
        Some(worst) => worst,
        None => verdict(&answer.outcome, Level::Must, Basis::Stated, stated_only),
    };
    let message = match &answer.outcome {
        Outcome::Holds => String::new(),
        Outcome::Broken => answer.message,
        Outcome::Tolerated(text) | Outcome::Noted(text) | Outcome::Undecided(text) | Outcome::NotReached(text) => {
            text.clone()
        }
    };
    CheckReport { name, rules: judged, verdict: whole, span, step: answer.step, asked, message, detail: answer.detail }
}

impl Conversation {
    /// Judges a value against a matcher of the scenario.
    pub(super) fn compare(&self, pattern: &Pattern, subject: &Value, names: &dyn Names) -> Finding {
        let built;
        let ready = match &pattern.ready {
            Some(ready) => ready,
            None => match super::matching::build(pattern, names) {
                Ok(ready) => {
                    built = ready;
                    &built
                }
                // What it is compared with comes from another frame, which is judged by itself.
                Err(EvalError::Missing(what)) => {
                    return Finding::NotReached(format!("nothing to compare with: {what} is not there"));
                }
                Err(EvalError::Failed(what)) if from_hub(&pattern.template, names) => {
                    return Finding::NotReached(format!("nothing to compare with: {what}"));
                }
                Err(error) => return finding(&error),
            },
        };
        match ready {
            Ready::Matcher(matcher) => match matcher.difference(subject) {
                None => Finding::Holds,
                Some(difference) => Finding::Broken {
                    message: difference.to_string(),
                    expected: format!("{}: {}", difference.path, difference.expected),
                    found: format!("{}: {}", difference.path, difference.found),
                },
            },
            Ready::Schema(validator) => match validator.iter_errors(subject).next() {
                None => Finding::Holds,
                Some(error) => {
                    let message = format!(
                        "{}: {error}",
                        if error.instance_path().as_str().is_empty() {
                            "the value"
                        } else {
                            error.instance_path().as_str()
                        }
                    );
                    let expected = pattern
                        .template
                        .eval(names)
                        .map_or_else(|e| e.to_string(), |schema| crate::syntax::matcher::show(&schema));
                    Finding::Broken { expected, found: crate::syntax::matcher::show(subject), message }
                }
            },
        }
    }

    /// Judges what a `check` computes.
    pub(super) fn compute(&self, value: &Template, test: &Test, names: &dyn Names) -> Finding {
        let evaluated = value.eval(names);
        let value = match evaluated {
            Ok(value) => value,
            // What the hub sent cannot be computed with: differences of texts, versions that are none.
            Err(EvalError::Failed(message)) if from_hub(value, names) => return uncomputable(message),
            Err(error) => return finding(&error),
        };
        match test {
            Test::True if value == Value::Bool(true) => Finding::Holds,
            Test::True => Finding::Broken {
                expected: "true".to_owned(),
                found: crate::syntax::matcher::show(&value),
                message: format!("it is {}", crate::syntax::matcher::show(&value)),
            },
            Test::Equals(template) => match template.eval(names) {
                Err(EvalError::Failed(message)) if from_hub(template, names) => uncomputable(message),
                Err(error) => finding(&error),
                Ok(wanted) if crate::syntax::matcher::same(&wanted, &value) => Finding::Holds,
                Ok(wanted) => {
                    let (expected, found) =
                        (crate::syntax::matcher::show(&wanted), crate::syntax::matcher::show(&value));
                    Finding::Broken { message: format!("expected {expected}, found {found}"), expected, found }
                }
            },
            Test::Fits(pattern) => self.compare(pattern, &value, names),
        }
    }

    /// Notes how a detail came out, under its check.
    pub(super) fn note(&mut self, check: CheckId, step: &str, actor: Option<ActorId>, frame: &str, finding: Finding) {
        let (outcome, message, detail) = match finding {
            Finding::Holds => (Outcome::Holds, String::new(), None),
            Finding::NotReached(why) => (Outcome::NotReached(why), String::new(), None),
            Finding::Mistake(what) => {
                self.mistake.get_or_insert(format!("{step}: {what}"));
                return;
            }
            Finding::Broken { expected, found, message } => {
                let found = self.shown(&found, 200);
                let received = if frame.is_empty() { found } else { format!("{found} in {}", self.shown(frame, 400)) };
                (Outcome::Broken, self.shown(&message, 400), Some(self.detail(actor, expected, received, None)))
            }
        };
        self.judgement.answer(check, step, outcome, message, detail);
    }

    pub(super) fn detail(
        &self,
        actor: Option<ActorId>,
        expected: String,
        received: String,
        waited: Option<std::time::Duration>,
    ) -> Detail {
        Detail {
            actor: actor.map(|id| self.program.actors[id].name.clone()).unwrap_or_default(),
            sent: actor.and_then(|id| self.actors[id].last_sent.clone()),
            expected: self.shown(&expected, 500),
            received: self.shown(&received, 1000),
            waited,
        }
    }

    /// A text for a report: secrets go before the cut, or half of one would stay.
    pub(super) fn shown(&self, text: &str, most: usize) -> String {
        crate::syntax::matcher::cut(&self.config.masker.mask(text), most)
    }
}

/// Whether something in it came from the hub.
pub(super) fn from_hub(template: &Template, names: &dyn Names) -> bool {
    let mut frames = false;
    template.expressions(&mut |expression| frames |= expression.uses.iter().any(|used| used == "frames"));
    frames || template.wire(names).is_some_and(|wire| wire.from_hub)
}

/// A value that a step needs. Where it cannot be worked out from what the hub said, which some other check is about,
/// nothing can be known here; else the scenario is wrong.
pub(super) fn worked_out(template: &Template, names: &dyn Names) -> Result<Value, Failure> {
    template.eval(names).map_err(|error| unworkable(error, template, names))
}

pub(super) fn unworkable(error: EvalError, template: &Template, names: &dyn Names) -> Failure {
    match error {
        EvalError::Failed(what) => unusable(what, template, names),
        error => error.into(),
    }
}

/// A value that was worked out, and is none that the step can use.
pub(super) fn unusable(what: impl Into<String>, template: &Template, names: &dyn Names) -> Failure {
    if from_hub(template, names) { Failure::undecided(what, None) } else { Failure::mistake(what) }
}

fn uncomputable(message: String) -> Finding {
    Finding::Broken { expected: "values that can be computed with".to_owned(), found: message.clone(), message }
}

/// In a check a missing member is what the hub did wrong; a name nobody bound means that the check was not reached.
fn finding(error: &EvalError) -> Finding {
    match error {
        EvalError::Unbound(name) => Finding::NotReached(format!("not reached: `{name}` was never bound")),
        EvalError::Missing(what) => Finding::Broken {
            expected: format!("{what} to be there"),
            found: "no such member".to_owned(),
            message: format!("{what} is not there"),
        },
        EvalError::Failed(what) => Finding::Mistake(what.clone()),
    }
}
