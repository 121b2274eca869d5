//! The figures of a fuzz run in the JSON report.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ms;
use crate::report::fuzz;

/// The result of fuzzing one protocol.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Fuzzed<'a> {
    /// The seed of the run: the same seed gives the same cases.
    seed: u64,
    /// Number of cases played.
    cases: u64,
    /// Number of cases in which at least one oracle could decide; the percentages below are of these.
    decided: u64,
    /// Percent of decided cases in which the mutation was sent after the opening.
    after_opening_percent: f64,
    /// Percent of decided cases that were decided by an oracle that demands more than survival.
    judged_percent: f64,
    /// In how many cases each oracle held and was broken, by the oracle's rule id, such as `FUZZ-ISOLATES`.
    oracles: BTreeMap<&'a str, Oracle>,
    /// Every cell: a combination of message, mutation and moment.
    cells: Vec<Cell<'a>>,
    /// One for each scenario, in the same order.
    causes: Vec<Cause<'a>>,
    /// Why cases were not decided, the most frequent first.
    obstacles: Vec<Obstacle<'a>>,
    /// Why the run ended early.
    ended: Option<&'a str>,
    /// The case whose conversation cannot be completed at the end of the run, even without its mutation.
    stuck: Option<u64>,
    /// A new client takes far longer at the end than at the start to connect and be answered.
    slower: Option<Slower>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Slower {
    before_ms: f64,
    after_ms: f64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Oracle {
    held: u64,
    broken: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Cell<'a> {
    message: &'a str,
    mutation: &'a str,
    placement: &'a str,
    /// Number of decided cases.
    cases: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Cause<'a> {
    /// The structure of the answer, without its values.
    shape: &'a str,
    /// Number of cases with this finding.
    cases: u64,
    /// Numbers of the first cases with this finding.
    numbers: &'a [u64],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Obstacle<'a> {
    step: &'a str,
    message: &'a str,
    cases: u64,
}

pub(super) fn written(of: &fuzz::Fuzzed) -> Fuzzed<'_> {
    Fuzzed {
        seed: of.seed,
        cases: of.cases,
        decided: of.decided,
        after_opening_percent: of.rate(of.after_opening),
        judged_percent: of.rate(of.judged),
        oracles: of
            .oracles
            .iter()
            .map(|(rule, of)| (rule.as_str(), Oracle { held: of.held, broken: of.broken }))
            .collect(),
        cells: of.cells.iter().map(cell).collect(),
        causes: of.findings.iter().map(cause).collect(),
        obstacles: of.obstacles.iter().map(obstacle).collect(),
        ended: of.ended.as_deref(),
        stuck: of.stuck,
        slower: of.slower.map(|slower| Slower { before_ms: ms(slower.before), after_ms: ms(slower.after) }),
    }
}

fn cell(of: &fuzz::Cell) -> Cell<'_> {
    Cell { message: &of.message, mutation: of.oddity, placement: of.placement, cases: of.cases }
}

fn cause(of: &fuzz::Finding) -> Cause<'_> {
    Cause { shape: &of.shape, cases: of.cases, numbers: &of.numbers }
}

fn obstacle(of: &fuzz::Obstacle) -> Obstacle<'_> {
    Obstacle { step: &of.step, message: &of.message, cases: of.cases }
}
