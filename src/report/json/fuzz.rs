//! The figures of a fuzz run in the JSON report.

use std::collections::BTreeMap;

use serde::Serialize;

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
    /// Number of decided cases in which the hub sent a message to a client that had sent more than its opening; null if the
    /// document has no message of the hub. With 0, the run is inconclusive.
    answered: Option<u64>,
    /// Number of cases in which each oracle held and was broken, by the oracle's rule id, such as `FUZZ-ISOLATES`.
    oracles: &'a BTreeMap<String, fuzz::OracleTally>,
    /// Every cell: a combination of message, mutation and moment.
    cells: &'a [fuzz::CellTally],
    /// Mutations that apply to a message at no moment, with the reason.
    omitted: &'a [fuzz::OmittedMutation],
    /// Steps of scenarios that send a message, but in whose place no mutated message is sent, with the reason.
    unused_steps: &'a [fuzz::UnusedStep],
    /// One for each scenario, in the same order.
    causes: &'a [fuzz::FindingTally],
    /// Why cases were not decided, the most frequent first.
    obstacles: &'a [fuzz::CaseObstacle],
    /// Why the run ended early.
    ended: Option<&'a str>,
    /// The case whose conversation cannot be completed at the end of the run, even without its mutation.
    stuck: Option<u64>,
    /// At the end of the run, a new client takes far longer to connect and receive an answer than at the start.
    slower: Option<fuzz::NewClientLatency>,
    /// Number of findings that may be due to a hub that hung, was gone or is slow, and did not occur again.
    unconfirmed: u64,
    /// Number of cases that were being played when the run ended. They are in no other number.
    cut: u64,
}

pub(super) fn to_json(of: &fuzz::FuzzReport) -> Fuzzed<'_> {
    Fuzzed {
        seed: of.seed,
        cases: of.cases,
        decided: of.decided,
        after_opening_percent: of.percent_of_decided(of.after_opening),
        judged_percent: of.percent_of_decided(of.judged),
        answered: of.answered,
        oracles: &of.oracles,
        cells: &of.cells,
        omitted: &of.omitted,
        unused_steps: &of.unused_steps,
        causes: &of.findings,
        obstacles: &of.obstacles,
        ended: of.ended.as_deref(),
        stuck: of.stuck,
        slower: of.slower,
        unconfirmed: of.unconfirmed,
        cut: of.cut,
    }
}
