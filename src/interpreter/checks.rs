//! The results of the checks. A check may be evaluated many times; its worst outcome counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::Conversation;
use super::active_step::{StepFailure, StepFailureKind};
use super::finding::ComparisonOutcome;
use super::invariants::schema_checks;
use crate::deviation::Deviations;
use crate::outcome::{
    CheckOutcome, CheckReport, FindingDetail, KnownDeviation, PreconditionFailure, Verdict, rule_verdict,
};
use crate::protocol::{FrameDirection, MessageType, Pack, RuleBasis, RuleLevel};
use crate::scenario::expression::{PathSegment, UsedPath};
use crate::scenario::model::{
    ActorId, AlwaysEntry, CheckId, CompiledPattern, MatchPattern, Program, RuleUse, Step, ValueTest,
};
use crate::scenario::template::{EvalContext, Template};
use crate::scenario::value::{BoundValue, EvalError, Provenance, Traced};
use crate::syntax::explanation::Explanation;
use crate::syntax::json_schema;
use crate::syntax::matcher::{are_equal, to_json_text};
use crate::syntax::source::Span;

/// The name of the check that the hub keeps to RFC 6455.
pub const WEBSOCKET_CHECK: &str = "websocket";

/// Explains the checks that apply to every frame: that it conforms to RFC 6455 and to the schema of its message.
pub const FRAME_CHECK_EXPLANATIONS: [Explanation; 2] = [
    Explanation::new(
        WEBSOCKET_CHECK,
        "The hub violated RFC 6455: an invalid frame or upgrade, an invalid close, or no answer to a close or, with the variation `ping`, to a ping. Every frame of every scenario is checked.",
    )
    .usually("A hand-written WebSocket layer, text that is not UTF-8, or a process that ends without a closing handshake.")
    .next("Check the hub against the RFC itself: hubproof check URL --protocol websocket"),
    Explanation::new(
        "schema",
        "A message of the hub does not conform to its JSON Schema. `schema:MESSAGE:RULE` names the message and the rule that the schema gives for the wrong part; `:should` follows if the schema only recommends it.",
    )
    .usually("A missing member, a number sent as a string, or null for an absent value.")
    .next("Validate one message without a hub: hubproof packs validate NAME MESSAGE FILE"),
];

#[derive(Clone, Default)]
struct CheckState {
    asked: usize,
    worst: Option<CheckAnswer>,
}

#[derive(Clone)]
struct CheckAnswer {
    outcome: CheckOutcome,
    message: String,
    step: String,
    detail: Option<FindingDetail>,
    /// Index of the declared deviation that breaks the check.
    deviation: Option<usize>,
}

/// A check that applies to every frame and that no scenario contains: a schema, or WebSocket framing.
#[derive(Clone, Default)]
struct InvariantCheck {
    rules: Vec<RuleUse>,
    state: CheckState,
}

/// A failure after which a conversation continues.
pub struct Doubt {
    failure: String,
    /// How long the failed step waited, or would have waited. Steps after it wait no longer.
    pub wait: Duration,
    /// Until when further failures do not end the conversation.
    pub until: Duration,
}

#[derive(Default)]
pub struct ConversationJudgement {
    checks: Vec<CheckState>,
    /// Checks under `always`: their findings survive a retry of the attempt.
    always: BTreeSet<CheckId>,
    invariants: BTreeMap<String, InvariantCheck>,
    /// How many frames conform to the schema of each message, by its index.
    valid: BTreeMap<usize, usize>,
    /// The first failure after which the conversation continued. Since then only received frames prove something.
    doubt: Option<Doubt>,
    /// Whether every value sent to the hub was observed. Once an assumed value was sent, the hub's behaviour proves
    /// nothing about its rules, except rules that apply to every frame.
    basis: Provenance,
    /// Whether all names are bound that would be if every assumed message had come.
    bound: Provenance,
    /// Why the checks after a failed step are undecided.
    cause: Option<PreconditionFailure>,
    /// A mistake in the scenario.
    pub mistake: Option<String>,
    pub mistake_at: Option<Span>,
    pub interrupted: bool,
    /// Whether breaking a must that the document only implies is a warning rather than a failure.
    stated_only: bool,
}

/// The results of a conversation.
pub struct ScenarioJudgement {
    pub checks: Vec<CheckReport>,
    pub verdict: Verdict,
    pub cause: Option<PreconditionFailure>,
    pub mistake: Option<String>,
}

/// The checks before an attempt; restoring them makes only the last attempt count.
#[derive(Clone)]
pub struct CheckSnapshot(Vec<CheckState>);

fn severity(answer: &CheckAnswer) -> u8 {
    match &answer.outcome {
        CheckOutcome::NotReached(_) => 0,
        CheckOutcome::Holds => 1,
        CheckOutcome::Noted(_) => 2,
        CheckOutcome::Tolerated(_) => 3,
        // A deviation that the user has declared must hide neither another doubt nor another failure.
        CheckOutcome::Undecided(_) if answer.deviation.is_some() => 4,
        CheckOutcome::Undecided(_) => 5,
        CheckOutcome::Broken if answer.deviation.is_some() => 6,
        CheckOutcome::Broken => 7,
    }
}

impl CheckState {
    fn add(&mut self, answer: CheckAnswer) {
        self.asked += usize::from(!matches!(answer.outcome, CheckOutcome::NotReached(_) | CheckOutcome::Undecided(_)));
        if self.worst.as_ref().is_none_or(|worst| severity(&answer) > severity(worst)) {
            self.worst = Some(answer);
        }
    }
}

impl ConversationJudgement {
    /// Records a mistake in the scenario, unless there is one already.
    pub fn record_mistake(&mut self, what: String, span: Option<Span>) {
        if self.mistake.is_none() {
            (self.mistake, self.mistake_at) = (Some(what), span);
        }
    }

    pub fn new(program: &Program, stated_only: bool) -> Self {
        let always = program.always.iter().flat_map(AlwaysEntry::checks).collect();
        Self { checks: vec![CheckState::default(); program.checks.len()], always, stated_only, ..Self::default() }
    }

    /// Returns the rules of the checks that the hub has broken in this conversation.
    pub fn broken_rules<'p>(&self, program: &'p Program) -> BTreeSet<&'p str> {
        let is_broken = |state: &CheckState| {
            matches!(state.worst, Some(CheckAnswer { outcome: CheckOutcome::Broken, deviation: None, .. }))
        };
        let broken = self.checks.iter().zip(&program.checks).filter(|(state, _)| is_broken(state));
        broken.flat_map(|(_, check)| &check.rules).map(|used| used.id.as_str()).collect()
    }

    /// Whether the hub has broken a check in this conversation.
    pub fn is_broken(&self, check: CheckId) -> bool {
        matches!(self.checks[check].worst, Some(CheckAnswer { outcome: CheckOutcome::Broken, .. }))
    }

    pub fn snapshot(&self) -> CheckSnapshot {
        CheckSnapshot(self.checks.clone())
    }

    pub fn restore(&mut self, snapshot: &CheckSnapshot) {
        for (id, (check, before)) in self.checks.iter_mut().zip(&snapshot.0).enumerate() {
            if !self.always.contains(&id) {
                check.clone_from(before);
            }
        }
    }

    pub fn record_answer(
        &mut self,
        check: CheckId,
        step: &str,
        outcome: CheckOutcome,
        message: impl Into<String>,
        detail: Option<FindingDetail>,
    ) {
        let depends = !self.always.contains(&check) && !matches!(outcome, CheckOutcome::NotReached(_));
        if let (true, Provenance::Assumed { deviation }) = (depends, self.basis) {
            return self.record_assumed(check, step, deviation);
        }
        self.checks[check].add(CheckAnswer {
            outcome,
            message: message.into(),
            step: step.to_owned(),
            detail,
            deviation: None,
        });
    }

    /// Records that a check depends on a message that a deviation assumes, so that it can neither hold nor fail.
    pub fn record_assumed(&mut self, check: CheckId, step: &str, deviation: u16) {
        let why = Provenance::Assumed { deviation }.doubt().unwrap_or_default();
        self.record_declared(check, step, why, usize::from(deviation));
    }

    /// Records that something of this provenance was sent to the hub.
    pub fn rest_on(&mut self, provenance: Provenance) {
        self.basis = self.basis.join(provenance);
    }

    /// Records that a step bound no name because of an assumption.
    pub fn leave_unbound(&mut self, provenance: Provenance) {
        self.bound = self.bound.join(provenance);
    }

    /// Records that a client did not tell the hub something because a name was not bound.
    pub fn rest_on_unbound(&mut self) {
        self.rest_on(self.bound);
    }

    /// Returns whether all that was sent to the hub was observed.
    pub fn provenance(&self) -> Provenance {
        self.basis
    }

    /// Records that a declared deviation breaks a check.
    pub fn record_deviation(
        &mut self,
        check: CheckId,
        step: &str,
        message: String,
        detail: Option<FindingDetail>,
        index: usize,
    ) {
        if let Provenance::Assumed { deviation } = self.basis {
            return self.record_assumed(check, step, deviation);
        }
        let (outcome, step) = (CheckOutcome::Broken, step.to_owned());
        self.checks[check].add(CheckAnswer { outcome, message, step, detail, deviation: Some(index) });
    }

    /// Records that a check is undecided because of a declared deviation.
    pub fn record_declared(&mut self, check: CheckId, step: &str, why: String, index: usize) {
        let (outcome, step) = (CheckOutcome::Undecided(why), step.to_owned());
        let answer = CheckAnswer { outcome, message: String::new(), step, detail: None, deviation: Some(index) };
        self.checks[check].add(answer);
    }

    /// Records that a declared deviation breaks a check that applies to all frames.
    pub fn record_frame_deviation(&mut self, name: &str, rules: Vec<RuleUse>, message: String, index: usize) {
        let (outcome, step) = (CheckOutcome::Broken, name.to_owned());
        let answer = CheckAnswer { outcome, message, step, detail: None, deviation: Some(index) };
        self.invariant_state(name, rules).add(answer);
    }

    /// Continues after a failure. From now on, a missing frame may be missing because of that failure.
    pub fn set_doubt(&mut self, failure: &str, now: Duration, wait: Duration) {
        self.doubt.get_or_insert_with(|| Doubt { failure: failure.to_owned(), wait, until: now + wait });
    }

    /// Returns why a missing frame proves nothing; `None` before any failure.
    pub fn doubt_outcome(&self) -> Option<CheckOutcome> {
        let undecided = |doubt: &Doubt| CheckOutcome::Undecided(format!("after another failure: {}", doubt.failure));
        self.doubt.as_ref().map(undecided)
    }

    /// Returns the failure after which the conversation has continued, if any.
    pub fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_ref()
    }

    /// Records why the checks after this step are undecided. Only the first such failure counts; returns whether this
    /// one is the first.
    pub fn set_cause(&mut self, program: &Program, step: &Step, failure: StepFailure) -> bool {
        if self.cause.is_some() {
            return false;
        }
        self.cause = Some(PreconditionFailure {
            span: Some(step.span),
            step: step.text.clone(),
            message: failure.message,
            detail: failure.detail.map(|detail| *detail),
            unreachable: failure.unreachable,
            shortened: failure.shortened.is_some(),
            unauthenticated: failure.unauthenticated,
            rests_on_unfenced: program.unfenced_actors(|unfenced| unfenced.expected_at == step.span),
        });
        true
    }

    /// Returns whether a check whose step failed is undecided, and its outcome.
    pub fn outcome_of(&self, failure: &StepFailure) -> (bool, CheckOutcome) {
        match (&failure.kind, self.doubt_outcome()) {
            (StepFailureKind::Undecided | StepFailureKind::Assumed { .. }, _) => {
                (true, CheckOutcome::Undecided(failure.message.clone()))
            }
            (_, Some(doubted)) => (true, doubted),
            _ => (false, CheckOutcome::Broken),
        }
    }

    /// Records a frame that conforms to the schema of its message, given by index.
    pub fn record_valid(&mut self, message: usize) {
        *self.valid.entry(message).or_default() += 1;
    }

    /// Records a violation of RFC 6455.
    pub fn record_websocket_violation(&mut self, actor: &str, expected: &str, found: &str) {
        let detail = FindingDetail {
            actor: actor.to_owned(),
            expected: expected.to_owned(),
            received: found.to_owned(),
            ..FindingDetail::default()
        };
        let message = format!("{expected}: {found}");
        self.record_invariant(WEBSOCKET_CHECK, Vec::new(), CheckOutcome::Broken, message, Some(detail));
    }

    pub fn record_websocket_undecided(&mut self, actor: &str, why: &str) {
        let detail = FindingDetail { actor: actor.to_owned(), received: why.to_owned(), ..FindingDetail::default() };
        self.record_invariant(
            WEBSOCKET_CHECK,
            Vec::new(),
            CheckOutcome::Undecided(why.to_owned()),
            why.to_owned(),
            Some(detail),
        );
    }

    pub fn record_invariant(
        &mut self,
        name: &str,
        rules: Vec<RuleUse>,
        outcome: CheckOutcome,
        message: String,
        detail: Option<FindingDetail>,
    ) {
        let answer = CheckAnswer { outcome, message, step: name.to_owned(), detail, deviation: None };
        self.invariant_state(name, rules).add(answer);
    }

    /// Returns the answers so far to a check that applies to all frames.
    fn invariant_state(&mut self, name: &str, rules: Vec<RuleUse>) -> &mut CheckState {
        let new = || InvariantCheck { rules, state: CheckState::default() };
        &mut self.invariants.entry(name.to_owned()).or_insert_with(new).state
    }

    /// Turns the counts of valid frames into checks that hold, one for each rule of the schema.
    fn record_valid_frames(&mut self, pack: &Pack) {
        for (message, times) in std::mem::take(&mut self.valid) {
            for (name, rules) in schema_checks(pack, &pack.messages[message]) {
                self.record_invariant(&name, rules, CheckOutcome::Holds, String::new(), None);
                if let Some(invariant) = self.invariants.get_mut(&name) {
                    invariant.state.asked += times - 1;
                }
            }
        }
    }

    /// Returns all checks with their verdicts, and the worst verdict.
    pub fn finish(mut self, program: &Program, deviations: &Deviations) -> ScenarioJudgement {
        let (cause, interrupted, stated_only) = (self.cause.take(), self.interrupted, self.stated_only);
        self.record_valid_frames(&program.pack);
        let mut reports = Vec::new();
        for (id, (check, state)) in program.checks.iter().zip(self.checks).enumerate() {
            let always = self.always.contains(&id);
            let unasked = || match &cause {
                // It applies only to frames that arrived.
                _ if always => CheckOutcome::NotReached("not evaluated: no frame it applies to".to_owned()),
                Some(cause) => CheckOutcome::Undecided(format!("not evaluated: {}", cause.with_actor())),
                None if interrupted => CheckOutcome::Undecided("not evaluated: the run was interrupted".to_owned()),
                None => CheckOutcome::NotReached("not evaluated: no frame or step it applies to".to_owned()),
            };
            let answer = state.worst.unwrap_or_else(|| CheckAnswer {
                outcome: unasked(),
                message: String::new(),
                step: String::new(),
                detail: None,
                deviation: None,
            });
            let known = known_deviation(deviations, &answer);
            let report =
                check_report(check.name.clone(), &check.rules, Some(check.span), state.asked, answer, stated_only);
            let rests_on_unfenced = program.unfenced_actors(|unfenced| unfenced.checks.contains(&id));
            reports.push(CheckReport { deviation: known, always, rests_on_unfenced, ..report });
        }
        for (name, invariant) in self.invariants {
            let Some(answer) = invariant.state.worst else { continue };
            let known = known_deviation(deviations, &answer);
            let report = check_report(name, &invariant.rules, None, invariant.state.asked, answer, stated_only);
            reports.push(CheckReport { deviation: known, ..report });
        }
        let unknown = reports.iter().filter(|report| report.deviation.is_none());
        let verdict = worst_verdict(unknown.map(|report| report.verdict), cause.is_some() || interrupted);
        ScenarioJudgement { checks: reports, verdict, cause, mistake: self.mistake }
    }
}

/// Returns the worst verdict: fail, then inconclusive, then warn. Checks that are not testable do not count.
fn worst_verdict(verdicts: impl Iterator<Item = Verdict>, stopped: bool) -> Verdict {
    let floor = if stopped { Verdict::Inconclusive } else { Verdict::Pass };
    verdicts.filter(|verdict| *verdict != Verdict::NotTestable).fold(floor, Verdict::max)
}

fn check_report(
    name: String,
    rules: &[RuleUse],
    span: Option<Span>,
    asked: usize,
    answer: CheckAnswer,
    stated_only: bool,
) -> CheckReport {
    let judged: Vec<(RuleUse, Verdict)> = rules
        .iter()
        .map(|rule| (rule.clone(), rule_verdict(&answer.outcome, rule.level, rule.basis, stated_only)))
        .collect();
    let whole = match judged.iter().map(|(_, verdict)| *verdict).max() {
        Some(worst) => worst,
        None => rule_verdict(&answer.outcome, RuleLevel::Must, RuleBasis::Stated, stated_only),
    };
    let message = match &answer.outcome {
        CheckOutcome::Holds => String::new(),
        CheckOutcome::Broken => answer.message,
        CheckOutcome::Tolerated(text)
        | CheckOutcome::Noted(text)
        | CheckOutcome::Undecided(text)
        | CheckOutcome::NotReached(text) => text.clone(),
    };
    let (step, detail) = (answer.step, answer.detail);
    CheckReport { rules: judged, span, step, asked, message, detail, ..CheckReport::new(name, whole) }
}

/// Returns the declared deviation because of which a check does not hold; `None` for a deviation that the tool only
/// assumes.
fn known_deviation(deviations: &Deviations, answer: &CheckAnswer) -> Option<KnownDeviation> {
    let index = answer.deviation?;
    let entry = deviations.entries().get(index)?;
    (!entry.is_assumed()).then(|| KnownDeviation { entry: index, reason: entry.reason.clone() })
}

/// The step named by checks that apply to all frames, whatever the scenario does.
pub const ALWAYS_STEP: &str = "always";

/// Compares a value with a matcher or schema of the scenario.
pub fn compare(pattern: &MatchPattern, subject: Traced<&Value>, names: &dyn EvalContext) -> ComparisonOutcome {
    let built;
    let Traced { value: subject, mut provenance } = subject;
    let ready = match &pattern.ready {
        Some(ready) => ready,
        None => match super::matching::compile_pattern(pattern, names) {
            Ok(ready) => {
                built = ready.value;
                provenance = provenance.join(ready.provenance);
                &built
            }
            // The expected value comes from another frame, which has its own checks.
            Err(EvalError::Missing(what)) => {
                return ComparisonOutcome::NotReached(format!("no value to compare with: {what} is missing"));
            }
            Err(EvalError::Failed(what)) if uses_hub_values(&pattern.template, names) => {
                return ComparisonOutcome::NotReached(format!("no value to compare with: {what}"));
            }
            Err(error) => return eval_outcome(&error),
        },
    };
    let outcome = match ready {
        CompiledPattern::Matcher(matcher) => match matcher.difference(subject) {
            None => ComparisonOutcome::Holds,
            Some(difference) => ComparisonOutcome::Broken {
                message: difference.to_string(),
                expected: format!("{}: {}", difference.path, difference.expected),
                found: format!("{}: {}", difference.path, difference.found),
                place: Some(difference.path),
            },
        },
        CompiledPattern::Schema(validator) => match validator.iter_errors(subject).next() {
            None => ComparisonOutcome::Holds,
            Some(error) => {
                let schema = pattern.template.eval(names);
                let message = describe_schema_error(&error, schema.as_ref().unwrap_or(&Value::Null));
                let expected = schema.map_or_else(|error| error.to_string(), |schema| to_json_text(&schema));
                let place = Some(error.instance_path().to_string());
                ComparisonOutcome::Broken { expected, found: to_json_text(subject), message, place }
            }
        },
    };
    outcome.of(provenance)
}

/// Formats `expected string, found 3 at /name`.
fn describe_schema_error(error: &ValidationError<'_>, schema: &Value) -> String {
    let place = match error.instance_path().as_str() {
        "" => String::new(),
        path => format!(" at {path}"),
    };
    match (error.kind(), json_schema::describe_expected(error, schema)) {
        (ValidationErrorKind::Required { .. }, Some(expected)) => {
            format!("expected {expected}, found no such member{place}")
        }
        (_, Some(expected)) => format!("expected {expected}, found {}{place}", to_json_text(error.instance())),
        (_, None) => format!("{error}{place}"),
    }
}

/// Evaluates a `check` and tests its value. A mistake in its expressions is not the hub's fault.
pub(super) fn compute(value: &Template, test: &ValueTest, names: &dyn EvalContext, pack: &Pack) -> ComparisonOutcome {
    let outcome = compute_value(value, test, names);
    let expected = match test {
        ValueTest::Equals(template) => Some(template),
        ValueTest::True | ValueTest::Fits(_) => None,
    };
    let wrong = || std::iter::once(value).chain(expected).find_map(|template| wrong_path(template, names, pack));
    match &outcome {
        ComparisonOutcome::Broken { .. } => wrong().map_or(outcome, ComparisonOutcome::Undecided),
        _ => outcome,
    }
}

/// Returns why no hub could give a template its value: it takes a member of something that has none, or one that the
/// document does not name where it names others. A member that the document names is the hub's to send.
fn wrong_path(template: &Template, names: &dyn EvalContext, pack: &Pack) -> Option<String> {
    let mut found = None;
    template.visit_expressions(&mut |expression| {
        let parsed = expression.parsed();
        for path in parsed.paths.iter().filter(|path| !parsed.is_optional(&path.root)) {
            found = found.take().or_else(|| wrong_member(path, names, pack));
        }
    });
    found
}

fn wrong_member(path: &UsedPath, names: &dyn EvalContext, pack: &Pack) -> Option<String> {
    let mut value = names.lookup(&path.root)?;
    let mut message: Option<(&MessageType, Vec<String>)> = None;
    for (segment, _) in &path.segments {
        if let (None, BoundValue::One { value, wire: Some(wire) }) = (&message, &value)
            && wire.from_hub
        {
            message = pack.recognise(value, FrameDirection::FromHub).map(|message| (message, Vec::new()));
        }
        let next = match segment {
            PathSegment::Member(name) => value.member(name),
            PathSegment::Index(index) => value.item(*index),
        };
        match (next, segment) {
            (Some(next), _) => value = next,
            (None, PathSegment::Member(name)) => {
                let (message, place) = message?;
                let known = message.schema.member_names(&place);
                let (is_named, is_object) = (known.contains(name), matches!(value.to_json(), Value::Object(_)));
                return match () {
                    () if is_named || is_object && known.is_empty() => None,
                    () if is_object => Some(format!("the document names no member `{name}` of `{}`", message.name)),
                    () => Some(format!("`{name}` is a member of something that is not an object")),
                };
            }
            (None, PathSegment::Index(_)) => return None,
        }
        if let Some((_, place)) = &mut message {
            place.push(match segment {
                PathSegment::Member(name) => name.clone(),
                PathSegment::Index(index) => index.to_string(),
            });
        }
    }
    None
}

fn compute_value(value: &Template, test: &ValueTest, names: &dyn EvalContext) -> ComparisonOutcome {
    let provenance = value.provenance(names);
    let value = match value.eval(names) {
        Ok(value) => value,
        // A value from the hub has the wrong type, such as text in a subtraction. Schemas judge types.
        Err(EvalError::Failed(message)) if uses_hub_values(value, names) => {
            return ComparisonOutcome::Undecided(message).of(provenance);
        }
        Err(error) => return eval_outcome(&error).of(provenance),
    };
    let outcome = match test {
        ValueTest::True if value == Value::Bool(true) => ComparisonOutcome::Holds,
        ValueTest::True => ComparisonOutcome::Broken {
            expected: "true".to_owned(),
            found: to_json_text(&value),
            message: format!("expected true, found {}", to_json_text(&value)),
            place: None,
        },
        ValueTest::Equals(template) => {
            let outcome = match template.eval(names) {
                Err(EvalError::Failed(message)) if uses_hub_values(template, names) => {
                    ComparisonOutcome::Undecided(message)
                }
                Err(error) => eval_outcome(&error),
                Ok(wanted) if are_equal(&wanted, &value) => ComparisonOutcome::Holds,
                Ok(wanted) => {
                    let (expected, found) = (to_json_text(&wanted), to_json_text(&value));
                    let message = format!("expected {expected}, found {found}");
                    ComparisonOutcome::Broken { message, expected, found, place: None }
                }
            };
            outcome.of(template.provenance(names))
        }
        ValueTest::Fits(pattern) => compare(pattern, Traced::observed(&value), names),
    };
    outcome.of(provenance)
}

impl Conversation {
    /// Records a finding under its check.
    pub(super) fn record_outcome(
        &mut self,
        check: CheckId,
        step: &str,
        actor: Option<ActorId>,
        frame: &str,
        finding: ComparisonOutcome,
    ) {
        let (outcome, message, detail) = match finding {
            ComparisonOutcome::Holds => (CheckOutcome::Holds, String::new(), None),
            ComparisonOutcome::NotReached(why) if step != ALWAYS_STEP => {
                (self.judgement.doubt_outcome().unwrap_or(CheckOutcome::NotReached(why)), String::new(), None)
            }
            ComparisonOutcome::NotReached(why) => (CheckOutcome::NotReached(why), String::new(), None),
            ComparisonOutcome::Undecided(why) => (CheckOutcome::Undecided(why.clone()), why, None),
            ComparisonOutcome::Assumed { deviation } => return self.judgement.record_assumed(check, step, deviation),
            ComparisonOutcome::Mistake(what) => {
                let span = self.program.checks[check].span;
                return self.judgement.record_mistake(format!("{step}: {what}"), Some(span));
            }
            ComparisonOutcome::Broken { expected, found, message, place } => {
                let found = self.history.shown(&found, 200);
                let received =
                    if frame.is_empty() { found } else { format!("{found} in {}", self.history.shown(frame, 400)) };
                let outcome =
                    self.judgement.doubt_outcome().filter(|_| step != ALWAYS_STEP).unwrap_or(CheckOutcome::Broken);
                // Without a frame, the place is in a value that an expression computed.
                let place = place.filter(|_| !frame.is_empty());
                let detail = FindingDetail { place, ..self.finding_detail(actor, expected, received, None) };
                (outcome, self.history.shown(&message, 400), Some(detail))
            }
        };
        self.judgement.record_answer(check, step, outcome, message, detail);
    }

    pub(super) fn finding_detail(
        &self,
        actor: Option<ActorId>,
        expected: String,
        received: String,
        waited: Option<Duration>,
    ) -> FindingDetail {
        self.history.keep_last_frames();
        let asked = self.request_in_question(actor);
        let name = |id: ActorId| self.program.actors[id].name.clone();
        FindingDetail {
            actor: actor.map(name).unwrap_or_default(),
            sender: asked.map(|asked| asked.actor).filter(|sender| Some(*sender) != actor).map(name),
            sent: asked.map(|asked| asked.text.clone()),
            round: self.blocks.rounds().map(|rounds| self.history.shown(&rounds, 200)),
            expected: self.history.shown(&expected, 500),
            received: self.history.shown(&received, 1000),
            waited,
            at: Some(self.clock.now),
            place: None,
        }
    }
}

/// Whether a template uses something that the hub sent.
pub(super) fn uses_hub_values(template: &Template, names: &dyn EvalContext) -> bool {
    let mut frames = false;
    template.visit_expressions(&mut |expression| {
        frames |= expression.uses.iter().any(|used| matches!(used.as_str(), "frames" | "all_frames"))
    });
    frames || template.wire(names).is_some_and(|wire| wire.from_hub)
}

/// Evaluates a value that a step needs. If that fails because of a frame of the hub, which other checks cover, the step
/// is undecided; otherwise the scenario is wrong.
pub(super) fn evaluate_for_step(template: &Template, names: &dyn EvalContext) -> Result<Traced<Value>, StepFailure> {
    template.eval_traced(names).map_err(|error| eval_failure(error, template, names))
}

pub(super) fn eval_failure(error: EvalError, template: &Template, names: &dyn EvalContext) -> StepFailure {
    match error {
        EvalError::Failed(what) => value_failure(what, template, names),
        error => error.into(),
    }
}

/// Returns the failure of a step that cannot use the value of a template.
pub(super) fn value_failure(what: impl Into<String>, template: &Template, names: &dyn EvalContext) -> StepFailure {
    if uses_hub_values(template, names) { StepFailure::undecided(what, None) } else { StepFailure::mistake(what) }
}

/// Returns the finding for a failed evaluation: a missing member is the hub's fault; a name that was never bound means
/// that the check was not reached.
fn eval_outcome(error: &EvalError) -> ComparisonOutcome {
    match error {
        EvalError::Unbound(name) => ComparisonOutcome::NotReached(format!("not reached: `{name}` was never bound")),
        EvalError::Missing(what) => ComparisonOutcome::Broken {
            expected: format!("a value of {what}"),
            found: "no such member".to_owned(),
            message: format!("{what} is missing"),
            place: None,
        },
        EvalError::Failed(what) | EvalError::Mistake(what) => ComparisonOutcome::Mistake(what.clone()),
    }
}
