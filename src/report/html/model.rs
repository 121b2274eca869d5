//! The members of a check or fuzz report that a page shows. Members that this version does not know are ignored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub struct RunDocument {
    pub tool: Tool,
    pub run: Run,
    pub protocols: Vec<Protocol>,
}

#[derive(Debug, Deserialize)]
pub struct Tool {
    pub version: String,
}

#[derive(Debug, Deserialize)]
pub struct Run {
    pub started: String,
    pub duration_ms: f64,
    pub target: String,
    pub command: Vec<String>,
    pub strict: bool,
    pub interrupted: bool,
    pub exit_code: u8,
}

#[derive(Debug, Deserialize)]
pub struct Protocol {
    pub name: String,
    pub pack: Pack,
    pub exit_code: u8,
    pub summary: String,
    pub doubt: Option<String>,
    pub root_causes: Vec<RootCause>,
    pub causes: Vec<SharedCause>,
    pub processes: Vec<Process>,
    pub baseline: Vec<BaselineEntry>,
    pub shortened_waits: Vec<Shortened>,
    pub deviations: Vec<Deviation>,
    pub proposals: Vec<Proposal>,
    pub scenarios: Scenarios,
    pub checks: Totals,
    pub rules: Rules,
    pub reach: Reach,
    pub fuzzed: Option<Fuzzed>,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
pub struct Pack {
    pub version: String,
    pub hash: String,
    pub document: String,
}

#[derive(Debug, Deserialize)]
pub struct Totals {
    pub total: usize,
    pub verdicts: BTreeMap<String, usize>,
}

#[derive(Debug, Deserialize)]
pub struct Place {
    pub file: Option<String>,
    pub line: Option<usize>,
}

impl Place {
    /// Formats `FILE:LINE`; empty if there is no place.
    pub fn describe(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (Some(file), None) => file.clone(),
            _ => String::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub struct RootCause {
    pub check: Option<String>,
    pub step: String,
    pub message: String,
    pub unreachable: bool,
    pub place: Place,
    pub scenarios: Vec<String>,
    pub rules: Vec<String>,
    pub blocks: Blocks,
    pub expected: bool,
}

#[derive(Debug, Deserialize)]
pub struct Blocks {
    pub checks: usize,
    pub rules: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct SharedCause {
    pub step: String,
    pub message: String,
    pub detail: Option<Detail>,
}

#[derive(Debug, Deserialize)]
pub struct Process {
    pub command: String,
    pub starts: usize,
    pub crashes: Vec<Crash>,
    pub given_up: Option<String>,
    pub log: Log,
}

#[derive(Debug, Deserialize)]
pub struct Crash {
    pub status: String,
    pub hung: bool,
    pub during: Vec<String>,
    pub after: Option<String>,
    pub blamed: Option<String>,
    pub last_sent: Option<String>,
    pub log: Log,
}

#[derive(Debug, Deserialize)]
pub struct Log {
    pub lines: Vec<String>,
    pub left_out: usize,
}

#[derive(Debug, Deserialize)]
pub struct BaselineEntry {
    pub failure: String,
    pub reason: String,
    pub standing: String,
    pub file: String,
    pub first_line: usize,
}

#[derive(Debug, Deserialize)]
pub struct Shortened {
    pub awaited: String,
    pub times: usize,
    pub saved_ms: f64,
}

#[derive(Debug, Deserialize)]
pub struct Deviation {
    pub name: String,
    pub text: String,
    pub reason: String,
    pub rules: Vec<String>,
    pub standing: String,
    pub observed: usize,
    pub contradicted: usize,
    pub assumed: bool,
}

#[derive(Debug, Deserialize)]
pub struct Proposal {
    pub entry: Value,
    pub unblocks: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Scenarios {
    #[serde(flatten)]
    pub totals: Totals,
    pub unplayed: Vec<String>,
    pub list: Vec<Scenario>,
}

#[derive(Debug, Deserialize)]
pub struct Scenario {
    pub id: String,
    pub title: String,
    #[serde(flatten)]
    pub place: Place,
    pub verdict: String,
    pub needs: Vec<String>,
    pub mistake: Option<String>,
    pub repetitions: usize,
    pub checks: Vec<Check>,
    pub repetition: usize,
    pub duration_ms: f64,
    pub cause: Option<Cause>,
    pub history: Vec<Frame>,
    pub history_dropped: usize,
}

#[derive(Debug, Deserialize)]
pub struct Check {
    pub name: String,
    pub verdict: String,
    pub rules: Vec<UsedRule>,
    #[serde(flatten)]
    pub place: Place,
    pub message: String,
}

#[derive(Debug, Deserialize)]
pub struct UsedRule {
    pub id: String,
    pub lowered: bool,
    pub verdict: String,
}

#[derive(Debug, Deserialize)]
pub struct Cause {
    pub message: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Frame {
    pub at_ms: f64,
    pub actor: String,
    pub connection: u32,
    /// `sent`, `received` or `neither`.
    pub direction: String,
    pub kind: String,
    pub text: String,
    pub size: usize,
}

#[derive(Debug, Deserialize)]
pub struct Rules {
    pub total: usize,
    pub proven: usize,
    pub by_id: BTreeMap<String, Rule>,
}

#[derive(Debug, Deserialize)]
pub struct Rule {
    pub level: String,
    pub basis: String,
    pub line: Option<usize>,
    pub section: Option<String>,
    pub text: String,
    pub from: Option<String>,
    pub status: String,
    pub needs: Vec<String>,
    pub reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Reach {
    pub musts: usize,
    pub judged: usize,
    pub enough: bool,
    pub not_judged: Vec<NotJudged>,
}

#[derive(Debug, Deserialize)]
pub struct NotJudged {
    pub musts: usize,
    pub why: String,
}

#[derive(Debug, Deserialize)]
pub struct Finding {
    pub scenario: String,
    pub check: String,
    pub verdict: String,
    pub rules: Vec<String>,
    pub message: String,
    #[serde(flatten)]
    pub place: Place,
    pub step: String,
    pub repetition: usize,
    pub flaky: Option<Flaky>,
    pub expected: bool,
    pub reason: Option<String>,
    pub detail: Option<Detail>,
    pub reproduce: String,
}

#[derive(Debug, Deserialize)]
pub struct Flaky {
    pub broken: usize,
    pub decided: usize,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Detail {
    pub actor: String,
    /// Not in reports of earlier versions.
    #[serde(default)]
    pub at_ms: Option<f64>,
    #[serde(default)]
    pub place: Option<String>,
    pub sent: Option<String>,
    pub expected: String,
    pub received: String,
    pub round: Option<String>,
    pub waited_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub struct Fuzzed {
    pub seed: u64,
    pub cases: u64,
    pub decided: u64,
    pub after_opening_percent: f64,
    pub judged_percent: f64,
    pub answered: Option<u64>,
    pub oracles: BTreeMap<String, OracleTally>,
    pub cells: Vec<Cell>,
    pub omitted: Vec<Omitted>,
    pub unused_steps: Vec<UnusedStep>,
    pub causes: Vec<CauseTally>,
    pub obstacles: Vec<Obstacle>,
    pub ended: Option<String>,
    pub stuck: Option<u64>,
    pub slower: Option<Slower>,
    pub unconfirmed: u64,
    #[serde(default)]
    pub cut: u64,
}

#[derive(Debug, Deserialize)]
pub struct OracleTally {
    pub held: u64,
    pub broken: u64,
}

#[derive(Debug, Deserialize)]
pub struct Cell {
    pub message: String,
    pub mutation: String,
    pub placement: String,
    pub cases: u64,
}

#[derive(Debug, Deserialize)]
pub struct Omitted {
    pub message: String,
    pub mutation: String,
    pub why: String,
}

#[derive(Debug, Deserialize)]
pub struct UnusedStep {
    pub scenario: String,
    pub step: usize,
    pub message: String,
    pub why: String,
}

#[derive(Debug, Deserialize)]
pub struct CauseTally {
    pub cases: u64,
    pub numbers: Vec<u64>,
    /// Not in reports of earlier versions.
    #[serde(default)]
    pub shrunk: Option<Shrunk>,
}

#[derive(Debug, Deserialize)]
pub struct Shrunk {
    pub path: String,
    pub reproduce: String,
    pub attempts: usize,
    pub message: String,
    pub detail: Option<Detail>,
    pub history: Vec<Frame>,
    pub history_dropped: usize,
}

#[derive(Debug, Deserialize)]
pub struct Obstacle {
    pub step: String,
    pub message: String,
    pub cases: u64,
}

#[derive(Debug, Deserialize)]
pub struct Slower {
    pub before_ms: f64,
    pub after_ms: f64,
}
