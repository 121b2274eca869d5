//! The report of a run: a pure function of the events ([`aggregator`]), and one module per format. Nothing here reads a
//! clock, a file or a socket.
//!
//! Verdicts are combined by taking the worst, in the order fail, inconclusive, warn, info, pass. Not-testable proves
//! nothing about the hub, so it counts only if there is no other verdict.

pub mod aggregator;
pub mod badge;
pub mod causes;
pub mod ctrf;
pub mod document;
pub mod events;
mod evidence;
pub mod fuzz;
pub mod github;
pub mod html;
pub mod joined;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod reach;
pub mod sarif;
pub mod tap;
pub mod terminal;
pub mod terminal_page;
pub mod test_results;
pub mod text;

#[cfg(test)]
pub(crate) mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use aggregator::{PlannedScenario, ProtocolOutline, ReportAggregator};
pub use causes::SharedPreconditionFailure;
pub use fuzz::FuzzReport;

use crate::deviation::proposal::DeviationProposal;
use crate::deviation::{DeviationSightings, Deviations, SightingsByEntry};
use crate::outcome::{CheckReport, ProcessReport, ScenarioReport, ShortenedWaits, TimingMargin, UnmetNeed, Verdict};
use crate::protocol::{Pack, RuleBasis, RuleLevel, RulePlace};
use crate::scenario::variation;
use crate::syntax::explanation::Explanation;
use crate::syntax::share::Share;
use crate::syntax::source::Span;

/// The options of a run that a report shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Whether a warning fails the run.
    pub strict: bool,
    /// Whether implied rules only warn. The verdicts in the scenario reports already respect this.
    pub stated_only: bool,
    /// The percentage of the musts that must be judged, if the user set one.
    pub min_judged: Option<u8>,
    /// Whether only some scenarios or rules were selected.
    pub selected: bool,
    /// Which share of a run this is, if several machines make it. A share alone need not judge anything.
    pub share: Option<Share>,
    /// The command line of this run without secrets and without options that select protocols, scenarios or report
    /// files: `["hubproof", "check", "ws://..."]`.
    pub command: Vec<String>,
    /// The options that select the user's own pack; empty for a built-in one.
    pub pack: Vec<String>,
    /// The URL, or `embedded reference server`.
    pub target: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RunReport {
    pub tool_version: String,
    /// Unix time in milliseconds.
    pub started: u64,
    pub duration: Duration,
    pub options: RunOptions,
    pub protocols: Vec<ProtocolReport>,
    /// Whether the run was stopped before all scenarios were played.
    pub interrupted: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProtocolReport {
    pub name: String,
    pub pack_version: String,
    pub pack_hash: String,
    /// The document that the lines of the rules refer to.
    pub document: String,
    /// As in [`crate::protocol::Pack::link`].
    pub link: Option<String>,
    /// The played scenarios, in the order of the pack.
    pub scenarios: Vec<ScenarioResult>,
    /// Selected scenarios that were not played because the run was interrupted.
    pub unplayed: Vec<String>,
    /// Every rule of the pack.
    pub rules: BTreeMap<String, RuleReport>,
    /// The failed preconditions that blocked checks, each once, the most frequent first.
    pub causes: Vec<SharedPreconditionFailure>,
    /// The names of the settings that are secret.
    pub secrets: Vec<String>,
    pub doubt: Option<ProtocolDoubt>,
    /// The hubs that the run started.
    pub processes: Vec<ProcessReport>,
    /// Entries of the baseline for this protocol.
    pub baseline: Vec<BaselineMatch>,
    /// The deviations that the target declares, or that the run assumed.
    pub deviations: Vec<DeviationReport>,
    /// Deviations past which the run could have continued. The one that would let most rules be judged comes first.
    pub proposals: Vec<ProposalReport>,
    /// Figures of `hubproof fuzz`. The scenarios are then one case for each cause of a finding.
    pub fuzzed: Option<FuzzReport>,
    pub preludes: PreludeShare,
}

/// How many pairs of a scenario and a prelude a run has played, at any place of the prelude.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PreludeShare {
    pub played: usize,
    /// How many pairs of the selected scenarios can be played.
    pub possible: usize,
}

/// An entry of a baseline: a known failure.
#[derive(Clone, Debug, PartialEq)]
pub struct BaselineMatch {
    /// `scenario`, or `scenario:check`.
    pub failure: String,
    pub reason: String,
    pub standing: EntryStanding,
    /// All lines of the entry.
    pub span: Span,
}

/// A deviation of the hub from its document, with what the run observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviationReport {
    /// The name of its finding, such as `deviation:1`.
    pub name: String,
    /// What is different, in one line.
    pub text: String,
    pub reason: String,
    /// The rules that the deviation breaks, according to its entry and to the frames of the run.
    pub rules: BTreeSet<String>,
    pub standing: EntryStanding,
    /// How often the deviation applied.
    pub observed: usize,
    /// How often the documented form was seen instead.
    pub contradicted: usize,
    /// How many messages were assumed because of the deviation.
    pub assumed: usize,
    /// Where the deviation is declared; `None` if the run assumed it.
    #[serde(skip)]
    pub span: Option<Span>,
    /// The entry for a target file, if the run assumed the deviation.
    #[serde(skip)]
    pub entry: Option<serde_json::Value>,
}

impl DeviationReport {
    /// Adds what another part of the same run observed.
    pub fn add(&mut self, other: Self) {
        self.rules.extend(other.rules);
        self.observed += other.observed;
        self.contradicted += other.contradicted;
        self.assumed += other.assumed;
        self.standing = match (self.observed, self.contradicted) {
            (0, _) if [self.standing, other.standing].contains(&EntryStanding::Stale) => EntryStanding::Stale,
            (0, _) => EntryStanding::NotPlayed,
            (_, 0) => EntryStanding::Expected,
            _ => EntryStanding::Flaky,
        };
    }

    /// Returns all deviations of a hub, each with what a run observed and, if it was observed, with the rules that its
    /// entry names.
    pub fn list_all(deviations: &Deviations, pack: &Pack, seen: &SightingsByEntry) -> Vec<Self> {
        let one = |(index, entry): (usize, &std::sync::Arc<crate::deviation::Deviation>)| {
            let sightings = seen.get(&index).copied().unwrap_or_default();
            let DeviationSightings { observed, contradicted } = sightings;
            let standing = match (entry.is_stale(sightings), observed, contradicted) {
                (true, ..) => EntryStanding::Stale,
                (_, 0, _) => EntryStanding::NotPlayed,
                (_, _, 0) => EntryStanding::Expected,
                _ => EntryStanding::Flaky,
            };
            let rules = entry.rules.iter().filter(|_| observed > 0).map(|used| used.id.clone()).collect();
            Self {
                name: crate::deviation::entry_name(index),
                text: entry.describe(pack),
                reason: entry.reason.clone(),
                rules,
                standing,
                observed,
                contradicted,
                assumed: if entry.assumes_messages() { observed } else { 0 },
                span: entry.span,
                entry: entry.is_assumed().then(|| entry.entry.clone()),
            }
        };
        deviations.entries().iter().enumerate().map(one).collect()
    }

    /// Whether the target declares the deviation, but the hub no longer shows it.
    pub fn is_stale(&self) -> bool {
        self.standing == EntryStanding::Stale && self.span.is_some()
    }

    /// Formats how often the deviation was observed.
    pub fn describe_sightings(&self) -> String {
        match (self.observed, self.contradicted) {
            (0, 0) => "not in this run".to_owned(),
            (times, 0) => text::format_count(times, "time"),
            (times, other) => {
                format!(
                    "{}; the documented form {}",
                    text::format_count(times, "time"),
                    text::format_count(other, "time")
                )
            }
        }
    }
}

/// A deviation that would let more rules be judged, if the target declared it.
#[derive(Clone, Debug, PartialEq)]
pub struct ProposalReport {
    pub proposal: DeviationProposal,
    /// Rules that were not judged but might be with this deviation.
    pub unblocks: BTreeSet<String>,
}

/// Whether the `failure` of a baseline entry (`scenario` or `scenario:check`) covers a check of a scenario.
pub fn entry_covers(failure: &str, scenario: &str, check: &str) -> bool {
    match failure.split_once(':') {
        Some((id, name)) => id == scenario && name == check,
        None => failure == scenario,
    }
}

/// The result of a baseline entry in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EntryStanding {
    /// The failure occurs, as the entry expects.
    Expected,
    /// The entry is declared flaky, or its check failed in only some repetitions.
    Flaky,
    /// The failure no longer occurs: the entry must be deleted.
    Stale,
    /// The scenario was played, but the check was not decided.
    Undecided,
    /// The scenario was not played in this run.
    NotPlayed,
}

impl EntryStanding {
    pub const ALL: [Self; 5] = [Self::Expected, Self::Flaky, Self::Stale, Self::Undecided, Self::NotPlayed];

    pub fn explanation(self) -> Explanation {
        match self {
            Self::Expected => {
                Explanation::new("expected", "A known failure: the baseline has it, so it does not fail the run.")
                    .next("Correct the hub, then delete the entry of the baseline.")
            }
            Self::Flaky => Explanation::new(
                "flaky",
                "A check that fails only in some repetitions, or a baseline entry that is declared so.",
            )
            .usually("A race in the hub, or a wait that a slow machine exceeds.")
            .next("Repeat the scenario: hubproof check URL --protocol NAME --scenario SCENARIO --repeat 20"),
            Self::Stale => Explanation::new(
                "stale",
                "A baseline entry that no longer fails, or a declared deviation whose documented form came instead. It fails the run with exit code 1.",
            )
            .usually("The hub was corrected.")
            .next("Delete the entry at the place that the report shows."),
            Self::Undecided => Explanation::new(
                "undecided",
                "Not decided: the scenario of a baseline entry was played, but its check was not evaluated to the end. In `compare`, a difference that may be chance.",
            )
            .next("Correct what made the check inconclusive; for `compare`, measure longer."),
            Self::NotPlayed => {
                Explanation::new("not-played", "The run did not play the scenario of the baseline entry or deviation.")
                    .usually("The run was interrupted, or selects scenarios with `--scenario` or `--rule`.")
            }
        }
    }
}

/// The baseline's entry for a failed check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFailure {
    pub reason: String,
    pub flaky: bool,
}

/// A sign that the hub may implement another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolDoubt {
    /// Most kinds of messages from the hub match no message of the pack.
    Unrecognised { unknown: usize, received: usize },
    /// In most scenarios, no check passed.
    NothingWorks { broken: usize, played: usize },
}

/// A scenario with all its repetitions.
#[derive(Clone, Debug, PartialEq)]
pub struct ScenarioResult {
    pub id: String,
    pub title: String,
    pub span: Span,
    pub verdict: Verdict,
    pub checks: Vec<CheckResult>,
    /// One per repetition; never empty. Later ones keep their history only if a check did not pass.
    pub runs: Vec<ScenarioReport>,
    /// The known failure that stopped the scenario: its undecided checks do not make the run inconclusive.
    pub known_cause: Option<KnownFailure>,
    /// The command-line arguments that select the scenario.
    pub again: Vec<String>,
}

/// A check over all repetitions of its scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    pub name: String,
    pub verdict: Verdict,
    /// Set if the check failed or warned in some repetitions and had a better verdict in others.
    pub flaky: Option<FlakyTally>,
    /// The baseline's entry, if the check fails or warns as the baseline expects.
    pub known: Option<KnownFailure>,
    /// Index of the first of `runs` with this verdict.
    run: usize,
    /// Index of the check in that run.
    place: usize,
}

/// A check that failed or warned in some repetitions only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FlakyTally {
    /// Number of repetitions with the verdict of the check.
    pub broken: usize,
    /// Number of repetitions in which the check was decided.
    pub decided: usize,
}

impl FlakyTally {
    /// Formats `in 2 of 5 repetitions`.
    pub fn shown(&self) -> String {
        format!("in {} of {}", self.broken, text::format_count(self.decided, "repetition"))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct RuleReport {
    pub level: RuleLevel,
    pub basis: RuleBasis,
    pub place: RulePlace,
    pub text: String,
    pub from: Option<String>,
    pub status: RuleStatus,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleStatus {
    Judged {
        /// The worst verdict of the rule's checks. Inconclusive checks do not count if another scenario decided the
        /// rule at its own level.
        verdict: Verdict,
        /// Whether a check at the rule's own level resulted in pass, fail, warn or info.
        decided: bool,
        scenarios: BTreeSet<String>,
    },
    /// All checks of the rule are in scenarios with unmet needs. If `needs` is empty, no check was reached, for reasons
    /// that the document allows, or no frame arrived to which the rule applies.
    NotTestable { needs: BTreeSet<UnmetNeed> },
    /// No hub can break the rule, for this reason.
    OutOfScope(String),
    /// The hub cannot keep the rule: every check of it is about messages that the target declares absent.
    NotOffered,
    /// The scenarios of the rule were not selected, or the run was interrupted before they were played.
    NotAsked,
    /// No check of the pack names the rule.
    NoCheck,
}

impl RuleStatus {
    /// Explains the statuses other than the verdicts of checks.
    pub const EXPLANATIONS: [Explanation; 4] = [
        Explanation::new(
            "out-of-scope",
            "No hub can break the rule, for the reason that the pack gives: for example, it binds only clients.",
        ),
        Explanation::new(
            "not-offered",
            "Every check of the rule is about messages that the target declares absent, so the rule does not count among those to judge.",
        )
        .next("Delete the deviation with `absent` once the hub sends the message."),
        Explanation::new(
            "not-asked",
            "The scenarios of the rule were not selected, or the run was interrupted before them.",
        )
        .next("Run without `--scenario` and `--rule`."),
        Explanation::new("no-check", "No scenario and no schema of the pack names the rule, so nothing judges it.")
            .next("Write a scenario for it; the chapter `Writing scenarios` of the book shows how."),
    ];

    /// Whether a check at the rule's own level passed and no check broke the rule.
    pub fn is_proven(&self) -> bool {
        matches!(self, Self::Judged { verdict: Verdict::Pass | Verdict::Info, decided: true, .. })
    }
}

/// The number of results of each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Verdicts"))]
#[serde(rename_all = "kebab-case")]
pub struct VerdictTally {
    pass: usize,
    fail: usize,
    warn: usize,
    info: usize,
    not_testable: usize,
    inconclusive: usize,
}

impl VerdictTally {
    pub fn from_verdicts(verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        let mut tally = Self::default();
        for verdict in verdicts {
            *match verdict {
                Verdict::Pass => &mut tally.pass,
                Verdict::Fail => &mut tally.fail,
                Verdict::Warn => &mut tally.warn,
                Verdict::Info => &mut tally.info,
                Verdict::NotTestable => &mut tally.not_testable,
                Verdict::Inconclusive => &mut tally.inconclusive,
            } += 1;
        }
        tally
    }

    /// Adds the results of another share of a run.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.pass, other.pass),
            (&mut self.fail, other.fail),
            (&mut self.warn, other.warn),
            (&mut self.info, other.info),
            (&mut self.not_testable, other.not_testable),
            (&mut self.inconclusive, other.inconclusive),
        ];
        pairs.into_iter().for_each(|(own, more)| *own = own.saturating_add(more));
    }

    pub fn count(&self, verdict: Verdict) -> usize {
        match verdict {
            Verdict::Pass => self.pass,
            Verdict::Fail => self.fail,
            Verdict::Warn => self.warn,
            Verdict::Info => self.info,
            Verdict::NotTestable => self.not_testable,
            Verdict::Inconclusive => self.inconclusive,
        }
    }

    pub fn total(&self) -> usize {
        Verdict::ALL.into_iter().map(|verdict| self.count(verdict)).sum()
    }

    /// Returns the number of decided results.
    pub fn decided(&self) -> usize {
        [Verdict::Pass, Verdict::Fail, Verdict::Warn, Verdict::Info]
            .into_iter()
            .map(|verdict| self.count(verdict))
            .sum()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleTotals {
    /// Number of rules in the pack.
    pub total: usize,
    /// Number of rules with a check that could run on this target.
    pub testable: usize,
    /// Number of rules with a check at the rule's own level that resulted in pass, fail, warn or info.
    pub decided: usize,
    /// Number of decided rules that no check broke, not even at a lower level.
    pub proven: usize,
}

impl RunReport {
    /// Returns the target-file entries for the deviations that the run assumed, unless the hub followed its document
    /// after all, and for those that it proposes.
    pub fn deviation_entries(&self) -> Vec<&serde_json::Value> {
        let assumed = self.protocols.iter().flat_map(|protocol| &protocol.deviations);
        let proposed = self.protocols.iter().flat_map(|protocol| &protocol.proposals);
        let shown = assumed.filter(|one| one.standing != EntryStanding::Stale);
        shown.filter_map(|one| one.entry.as_ref()).chain(proposed.map(|one| &one.proposal.entry)).collect()
    }

    /// Returns the wait that took the largest share of its timeout, with its scenario.
    pub fn slimmest_margin(&self) -> Option<(&str, &TimingMargin)> {
        slimmest_of(self.protocols.iter().filter_map(ProtocolReport::slimmest_margin))
    }
}

fn slimmest_of<'a>(margins: impl Iterator<Item = (&'a str, &'a TimingMargin)>) -> Option<(&'a str, &'a TimingMargin)> {
    margins.max_by(|(_, a), (_, b)| a.used_share().total_cmp(&b.used_share()))
}

impl ProtocolReport {
    /// Like [`RunReport::slimmest_margin`], for this protocol.
    pub fn slimmest_margin(&self) -> Option<(&str, &TimingMargin)> {
        slimmest_of(self.scenarios.iter().flat_map(|scenario| {
            scenario.runs.iter().filter_map(|run| Some((scenario.id.as_str(), run.waits.slimmest.as_ref()?)))
        }))
    }

    /// Returns a remark if the hub selected none of the subprotocols that openings offered, which no rule forbids.
    pub fn subprotocol_note(&self) -> Option<String> {
        let runs = self.scenarios.iter().flat_map(|scenario| &scenario.runs);
        let offered: BTreeSet<&str> = runs.filter_map(|run| run.activity.unselected.as_deref()).collect();
        let offered = offered.into_iter().collect::<Vec<_>>().join("; ");
        (!offered.is_empty()).then(|| {
            format!(
                "the hub selected none of the offered subprotocols ({offered}). RFC 6455, section 4.2.2, allows that, but a \
                 browser then closes the connection, as the WebSockets Standard demands."
            )
        })
    }

    /// Returns the shortened waits that ran out, by the name of what was awaited.
    pub fn shortened_waits(&self) -> BTreeMap<&str, ShortenedWaits> {
        let mut all = BTreeMap::<&str, ShortenedWaits>::new();
        let runs = self.scenarios.iter().flat_map(|scenario| &scenario.runs);
        for (name, waits) in runs.flat_map(|run| &run.waits.shortened) {
            let sum = all.entry(name).or_default();
            *sum = sum.plus(*waits);
        }
        all
    }

    /// Counts each scenario once, repeated or not.
    pub fn scenario_tally(&self) -> VerdictTally {
        VerdictTally::from_verdicts(self.scenarios.iter().map(|scenario| scenario.verdict))
    }

    /// Counts each check of each scenario once.
    pub fn check_tally(&self) -> VerdictTally {
        VerdictTally::from_verdicts(
            self.scenarios.iter().flat_map(|scenario| &scenario.checks).map(|check| check.verdict),
        )
    }

    pub fn rule_totals(&self) -> RuleTotals {
        let mut totals = RuleTotals { total: self.rules.len(), ..RuleTotals::default() };
        for rule in self.rules.values() {
            if let RuleStatus::Judged { decided, .. } = rule.status {
                totals.testable += 1;
                totals.decided += usize::from(decided);
                totals.proven += usize::from(rule.status.is_proven());
            }
        }
        totals
    }

    /// Returns the unmet needs, each with the number of scenarios, checks and rules that have it. A scenario with two
    /// needs is counted under both.
    pub fn unmet_needs(&self) -> BTreeMap<&UnmetNeed, UnmetNeedTally> {
        let mut needs: BTreeMap<&UnmetNeed, UnmetNeedTally> = BTreeMap::new();
        for scenario in &self.scenarios {
            for need in scenario.unmet_needs() {
                let waiting = needs.entry(need).or_default();
                waiting.scenarios += 1;
                waiting.checks += scenario.checks.len();
            }
        }
        for rule in self.rules.values() {
            if let RuleStatus::NotTestable { needs: unmet } = &rule.status {
                for need in unmet {
                    needs.entry(need).or_default().rules += 1;
                }
            }
        }
        needs
    }

    /// Counts checks of this verdict that the baseline does not expect.
    pub fn unexpected_count(&self, verdict: Verdict) -> usize {
        let checks = self.scenarios.iter().flat_map(|scenario| &scenario.checks);
        checks.filter(|check| check.verdict == verdict && check.known.is_none()).count()
    }

    /// Counts checks that fail or warn as the baseline expects.
    pub fn expected_count(&self) -> usize {
        self.scenarios.iter().flat_map(|scenario| &scenario.checks).filter(|check| check.known.is_some()).count()
    }

    /// Returns the entries of the baseline that must be deleted.
    pub fn stale_entries(&self) -> impl Iterator<Item = &BaselineMatch> {
        self.baseline.iter().filter(|entry| entry.standing == EntryStanding::Stale)
    }

    /// Returns the declared deviations that the hub no longer shows.
    pub fn stale_deviations(&self) -> impl Iterator<Item = &DeviationReport> {
        self.deviations.iter().filter(|deviating| deviating.is_stale())
    }

    /// Returns the exit code of a run with this protocol alone, see [`exit_code`].
    pub fn exit_code(&self, options: &RunOptions) -> u8 {
        let strict = options.strict;
        let undecided = match &self.fuzzed {
            Some(fuzzed) => !fuzzed.is_decided(),
            None => {
                let open = |scenario: &ScenarioResult| {
                    scenario.verdict == Verdict::Inconclusive && scenario.known_cause.is_none()
                };
                (options.share.is_none()
                    && self.scenario_tally().decided() == 0
                    && self.scenarios.iter().all(|one| one.known_cause.is_none()))
                    || self.scenarios.iter().any(open)
                    || !self.unplayed.is_empty()
                    || self.reach_shortfall(options).is_some()
            }
        };
        if self.scenarios.iter().any(|scenario| scenario.mistake().is_some()) {
            2
        } else if self.unexpected_count(Verdict::Fail) > 0
            || (strict && self.unexpected_count(Verdict::Warn) > 0)
            || self.stale_entries().next().is_some()
            || self.stale_deviations().next().is_some()
            || self.processes.iter().any(|process| process.unexplained_crashes().next().is_some())
        {
            1
        } else if undecided {
            3
        } else {
            0
        }
    }
}

/// The number of scenarios, checks and rules with an unmet need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnmetNeedTally {
    pub scenarios: usize,
    pub checks: usize,
    pub rules: usize,
}

impl ScenarioResult {
    /// Returns the report of a check in the first repetition with its verdict.
    pub fn check_report(&self, check: &CheckResult) -> &CheckReport {
        &self.runs[check.run].checks[check.place]
    }

    /// Returns the first repetition with the verdict of the whole.
    pub fn deciding_run(&self) -> &ScenarioReport {
        self.runs.iter().find(|run| run.verdict == self.verdict).unwrap_or(&self.runs[0])
    }

    /// Returns the first repetition with the verdict of the check.
    pub fn run_of_check(&self, check: &CheckResult) -> &ScenarioReport {
        &self.runs[check.run]
    }

    pub fn unmet_needs(&self) -> BTreeSet<&UnmetNeed> {
        self.runs.iter().flat_map(|run| &run.unmet).collect()
    }

    pub fn mistake(&self) -> Option<&str> {
        self.runs.iter().find_map(|run| run.mistake.as_deref())
    }

    /// Returns the place of the mistake, or that of the scenario.
    pub fn place(&self) -> Span {
        self.runs.iter().find(|run| run.mistake.is_some()).and_then(|run| run.mistake_at).unwrap_or(self.span)
    }
}

/// Returns the exit code of a run, the first of these that applies:
///
/// - 2: a scenario has a mistake.
/// - 1: a check failed, or warned with `strict`, and no baseline expects that; an entry of the baseline or a declared
///   deviation is stale; or the hub ended by itself and no scenario reproduced that.
/// - 3: a selected protocol was not decided: nothing was selected or nothing ran, the hub was unreachable, a check is
///   inconclusive and no known failure explains it, too few musts were judged, or the run was interrupted.
/// - 0: the run passed.
pub fn exit_code(report: &RunReport) -> u8 {
    let codes: BTreeSet<u8> = report.protocols.iter().map(|protocol| protocol.exit_code(&report.options)).collect();
    match [2, 1, 3].into_iter().find(|code| codes.contains(code)) {
        Some(code) => code,
        None if report.protocols.is_empty() || report.interrupted => 3,
        None => 0,
    }
}

/// Returns the arguments of `hubproof check` that select a scenario.
pub fn selection_arguments(scenario: &str) -> Vec<String> {
    let (scenario, variation) = variation::split_id(scenario);
    let mut words = vec!["--scenario".to_owned(), scenario.to_owned()];
    words.extend(variation.into_iter().flat_map(|name| ["--variation".to_owned(), name.to_owned()]));
    words
}

/// Returns the worst of several verdicts; `None` if there are none.
pub fn worst_verdict(verdicts: impl IntoIterator<Item = Verdict>) -> Option<Verdict> {
    // Not-testable is between info and warn in `Verdict`'s order, but counts only if there is no other verdict.
    verdicts.into_iter().max_by_key(|verdict| (*verdict != Verdict::NotTestable, *verdict))
}

/// Returns the verdict of a scenario that was played once: not-testable if a need was unmet; at least inconclusive if a
/// precondition failed, or the scenario has a mistake or was interrupted; else the worst verdict of its checks. The
/// verdict of a completed scenario without checks is info.
pub fn scenario_verdict(report: &ScenarioReport) -> Verdict {
    if !report.unmet.is_empty() {
        return Verdict::NotTestable;
    }
    let stopped = report.cause.is_some() || report.mistake.is_some() || report.verdict == Verdict::Inconclusive;
    let stopped = stopped.then_some(Verdict::Inconclusive);
    // A failure that a declared deviation explains is known.
    let verdict = |check: &CheckReport| if check.deviation.is_some() { Verdict::Info } else { check.verdict };
    worst_verdict(report.checks.iter().map(verdict).chain(stopped)).unwrap_or(Verdict::Info)
}

/// Returns the command that plays only the scenario that the arguments `again` select, `repeat` times. It is quoted for
/// a shell.
pub fn reproduce_command(options: &RunOptions, protocol: &str, again: &[String], repeat: usize) -> String {
    let mut words: Vec<String> = options.command.clone();
    words.extend(["--protocol", protocol].map(str::to_owned));
    words.extend_from_slice(again);
    if repeat > 1 {
        words.extend(["--repeat".to_owned(), repeat.to_string()]);
    }
    words.iter().map(|word| text::quote_for_shell(word)).collect::<Vec<_>>().join(" ")
}

/// Returns the command that explains a failed check: its rules or, if it has none, the check itself. It is quoted for a
/// shell. Returns `None` for a rule that the pack does not have, which only a scenario file outside the pack can name.
pub fn explain_command(options: &RunOptions, protocol: &ProtocolReport, check: &CheckReport) -> Option<String> {
    let mut words = vec!["hubproof".to_owned(), "explain".to_owned()];
    let rules: Vec<&String> = check.rules_of_verdict().map(|used| &used.id).collect();
    words.extend(rules.iter().filter(|id| protocol.rules.contains_key(**id)).map(|id| (*id).clone()));
    if rules.is_empty() {
        words.push(check.name.clone());
        // Several protocols may have a message of this name.
        if check.name.contains(':') && options.pack.is_empty() {
            words.extend(["--protocol", &protocol.name].map(str::to_owned));
        }
    }
    if words.len() == 2 {
        return None;
    }
    words.extend_from_slice(&options.pack);
    Some(words.iter().map(|word| text::quote_for_shell(word)).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::fixture::{RunFixture, options};
    use super::*;
    use Verdict::*;

    #[rstest]
    #[case(&[], None)]
    #[case(&[Pass, Info], Some(Info))]
    #[case(&[Pass, NotTestable], Some(Pass))]
    #[case(&[NotTestable], Some(NotTestable))]
    #[case(&[Warn, NotTestable, Inconclusive], Some(Inconclusive))]
    #[case(&[Fail, Inconclusive, Warn], Some(Fail))]
    fn the_worst_verdict_decides(#[case] verdicts: &[Verdict], #[case] expected: Option<Verdict>) {
        assert_eq!(worst_verdict(verdicts.iter().copied()), expected);
    }

    #[rstest]
    #[case::all_pass(RunFixture::all_pass(), false, 0)]
    #[case::failure(RunFixture::one_failure(), false, 1)]
    #[case::warning(RunFixture::warning(), false, 0)]
    #[case::strict_warning(RunFixture::warning(), true, 1)]
    #[case::flaky(RunFixture::flaky(), false, 1)]
    #[case::greeting_broken(RunFixture::greeting_broken(), false, 1)]
    #[case::only_inconclusive(RunFixture::inconclusive(), false, 3)]
    #[case::unreachable(RunFixture::unreachable(), false, 3)]
    #[case::some_not_testable(RunFixture::not_testable(), false, 0)]
    #[case::all_not_testable(RunFixture::nothing_testable(), false, 3)]
    #[case::interrupted(RunFixture::interrupted(), false, 3)]
    #[case::mistake(RunFixture::mistake(), false, 2)]
    #[case::nothing_selected(RunFixture::nothing_selected(), false, 3)]
    #[case::crash_without_culprit(RunFixture::hub_ended(None), false, 1)]
    // The scenario that caused the crash has a failed check of its own.
    #[case::crash_of_a_failed_scenario(RunFixture::hub_ended(Some("greeter/bye")), false, 0)]
    #[case::crash_of_another_scenario(RunFixture::hub_ended(Some("greeter/chair")), false, 1)]
    fn verdicts_determine_the_exit_code(#[case] run: RunFixture, #[case] strict: bool, #[case] expected: u8) {
        let report = run.report(RunOptions { strict, ..options() });
        assert_eq!(exit_code(&report), expected);
    }

    #[test]
    fn a_run_without_protocols_is_inconclusive() {
        let report = ReportAggregator::new(Vec::new()).finish(options(), 0, Duration::ZERO, false);
        assert_eq!(exit_code(&report), 3);
    }

    #[rstest]
    #[case(&[], None)]
    #[case(&[(1, 10), (3, 4), (5, 9)], Some((3, 4)))]
    // The share counts, not the time that was left.
    #[case(&[(0, 1), (5000, 6000)], Some((5000, 6000)))]
    fn the_tightest_wait_used_the_largest_share_of_its_timeout(
        #[case] waits: &[(u64, u64)],
        #[case] expected: Option<(u64, u64)>,
    ) {
        let margins: Vec<TimingMargin> = waits
            .iter()
            .map(|(waited, bound)| TimingMargin {
                step: String::new(),
                waited: Duration::from_millis(*waited),
                bound: Duration::from_millis(*bound),
            })
            .collect();
        let found = slimmest_of(margins.iter().map(|margin| ("a/b", margin)));
        let ms = |time: Duration| time.as_millis() as u64;
        assert_eq!(found.map(|(_, margin)| (ms(margin.waited), ms(margin.bound))), expected);
    }

    #[test]
    fn reproduction_commands_are_quoted_for_a_shell() {
        let mut options = options();
        options.command.extend(["--set".to_owned(), "name=a b'c".to_owned()]);
        assert_eq!(
            reproduce_command(&options, "greeter", &selection_arguments("greeter/hello"), 3),
            r"hubproof check ws://127.0.0.1:9 --set 'name=a b'\''c' --protocol greeter --scenario greeter/hello --repeat 3"
        );
    }
}
