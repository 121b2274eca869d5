//! The fault matrix: scenarios against faults of the reference server, without sockets. A check counts as proven once it
//! has failed for a fault, and a fault may fail only the rules that it breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hubproof::outcome::{CheckReport, ScenarioReport, Verdict};
use hubproof::protocol::{RuleBasis, RuleLevel};
use hubproof::scenario::Program;
use hubproof_reference::fault::FaultEffect;
use hubproof_reference::fault::injector::RehearsalMachine;
use hubproof_reference::{Fault, Machine, faults};
use parking_lot::Mutex;

use super::breakable_checks::breakable_checks;
use super::sim_connection::{SendingManner, SimulatedProtocol};

/// The results of a protocol's scenarios against a correct hub and every faulty one.
pub struct FaultMatrix {
    pub protocol: SimulatedProtocol,
    pub correct: Vec<ScenarioReport>,
    pub cases: Vec<FaultResults>,
}

/// The scenarios that each fault is played against.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MatrixDepth {
    /// All in which the fault may have an effect.
    Full,
    /// Those that check its rules first, and no more once they have found it, with all of its rules that no other fault
    /// has proven: a tenth of the plays.
    UntilFound,
    /// Those that check its rules first, and no more once one has found it.
    UntilKilled,
}

/// The results for a hub with one fault.
#[derive(Debug)]
pub struct FaultResults {
    pub fault: &'static Fault,
    /// Findings under the rules that the fault breaks.
    pub within: Vec<BrokenRule>,
    /// Findings under other rules: false positives.
    pub outside: Vec<BrokenRule>,
    /// Undecided scenarios, with the reason.
    pub undecided: Vec<String>,
}

/// A rule that a check found broken.
#[derive(Debug)]
pub struct BrokenRule {
    pub rule: String,
    pub verdict: Verdict,
    /// Whether it is at the rule's own level: a check at a lower level does not prove the rule.
    pub proves: bool,
    pub scenario: String,
    pub check: String,
    pub step: String,
    pub message: String,
}

impl FaultResults {
    pub fn is_killed(&self) -> bool {
        !self.within.is_empty()
    }
}

impl FaultMatrix {
    /// Plays the scenarios against all faults that `wanted` selects.
    pub fn play(protocol: &str, depth: MatrixDepth, wanted: &(dyn Fn(&Fault) -> bool + Sync)) -> Self {
        let mut protocol = SimulatedProtocol::load(protocol);
        if protocol.pack.name == "emprops" {
            // Ten megabytes, hundreds of times, would take too long.
            protocol.set(Some("max_message_bytes"), "message_limit", 100_000);
            protocol.set(None, "chunks_above", 10_000);
        }
        let chosen: Vec<&'static Fault> = faults()
            .filter(|fault| fault.protocol == protocol.pack.name && !fault.is_for_fuzzing() && wanted(fault))
            .collect();
        let rehearsals = rehearse(&protocol, &chosen);
        let expected = ExpectedVerdicts::from_rehearsals(&protocol, &rehearsals);
        let proven = Mutex::new(BTreeSet::new());
        let next = AtomicUsize::new(0);
        let work = || {
            let mut cases = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(fault) = chosen.get(index) else { return cases };
                // If a fault does nothing in a conversation, the result is that of a correct hub.
                let mut programs: Vec<_> = rehearsals.iter().filter(|one| one.touched.contains(&index)).collect();
                if depth != MatrixDepth::Full {
                    programs.sort_by_key(|rehearsal| !rehearsal.checks_a_rule_of(fault));
                }
                let mut case = FaultResults::new(fault);
                for rehearsal in programs {
                    let report = protocol.play(&rehearsal.program, Some(fault.id)).unwrap();
                    case.judge(&report, &expected);
                    let is_done = match depth {
                        MatrixDepth::Full => false,
                        MatrixDepth::UntilFound => case.proves_its_rules(&mut proven.lock()),
                        MatrixDepth::UntilKilled => case.is_killed(),
                    };
                    if is_done {
                        break;
                    }
                }
                cases.push(case);
            }
        };
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let mut cases: Vec<FaultResults> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        cases.sort_by_key(|case| chosen.iter().position(|fault| fault.id == case.fault.id));
        let correct = rehearsals.into_iter().map(|rehearsal| rehearsal.report).collect();
        Self { protocol, correct, cases }
    }

    /// Returns the rules that some check found broken, with the faults and the checks.
    pub fn proofs(&self) -> BTreeMap<&str, Vec<(&'static Fault, &BrokenRule)>> {
        let mut proofs: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for case in &self.cases {
            for seen in case.within.iter().filter(|seen| seen.proves) {
                proofs.entry(&*seen.rule).or_default().push((case.fault, seen));
            }
        }
        proofs
    }

    /// Returns the rules for hubs that no fault breaks.
    pub fn unproven(&self) -> Vec<&str> {
        let proofs = self.proofs();
        let rules = self.protocol.pack.rules.values().filter(|rule| rule.out_of_scope.is_none());
        rules.map(|rule| rule.id.as_str()).filter(|id| !proofs.contains_key(id)).collect()
    }

    /// Returns the checks, each with one of its rules, whose verdict is the same for every fault as for a correct hub.
    /// A check of `shared.yaml` or a schema counts once for all scenarios.
    pub fn unbroken(&self) -> BTreeSet<String> {
        let broken: BTreeSet<String> = self
            .cases
            .iter()
            .flat_map(|case| &case.within)
            .map(|seen| self.check_place(&seen.scenario, &seen.check, &seen.rule))
            .collect();
        let asked = self.correct.iter().flat_map(|report| {
            report.checks.iter().flat_map(|check| {
                check.rules.iter().map(|(rule, _)| self.check_place(&report.id, &check.name, &rule.id))
            })
        });
        let schemas = breakable_checks(&self.protocol.pack);
        asked
            .filter(|place| !broken.contains(place) && (!place.starts_with("schema:") || schemas.contains(place)))
            .collect()
    }

    /// Returns the place of a check, with one of its rules.
    fn check_place(&self, scenario: &str, check: &str, rule: &str) -> String {
        let program = self.protocol.scenarios.programs.iter().find(|program| program.id == scenario).unwrap();
        match program.checks.iter().find(|known| known.name == check) {
            Some(known) => {
                let shared = known.span.file != program.span.file;
                let check = if shared { "" } else { check };
                format!("{} {check} {rule}", self.protocol.sources.path_and_line(known.span))
            }
            None => format!("{check} {rule}"),
        }
    }

    /// Formats rules, proven, faults and killed in one line.
    pub fn summary_line(&self) -> String {
        let rules = &self.protocol.pack.rules;
        let hard = |id: &str| {
            rules[id].out_of_scope.is_none()
                && rules[id].level == RuleLevel::Must
                && rules[id].basis == RuleBasis::Stated
        };
        let proofs = self.proofs();
        format!(
            "{}: {} scenarios; {} rules, {} of them not testable, {} proven ({} of {} must and stated); \
             {} faults, {} killed, {} surviving",
            self.protocol.pack.name,
            self.correct.len(),
            rules.len(),
            rules.values().filter(|rule| rule.out_of_scope.is_some()).count(),
            proofs.len(),
            proofs.keys().filter(|id| hard(id)).count(),
            rules.keys().filter(|id| hard(id)).count(),
            self.cases.len(),
            self.cases.iter().filter(|case| case.is_killed()).count(),
            self.cases.iter().filter(|case| !case.is_killed()).count(),
        )
    }

    /// Formats the output of `cargo run --example matrix`: rule, faults that break it, checks that detect it.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}.\n\n", self.protocol.pack.name, self.summary_line());
        text += "| rule | level | broken by the fault | seen by |\n|---|---|---|---|\n";
        let proofs = self.proofs();
        for rule in self.protocol.pack.rules.values() {
            let seen = proofs.get(rule.id.as_str()).map_or(&[][..], Vec::as_slice);
            let mut broken: Vec<_> = seen.iter().map(|(fault, _)| format!("`{}`", fault.id)).collect();
            broken.dedup();
            let mut places: Vec<_> = seen.iter().map(|(_, seen)| seen.scenario.as_str()).collect();
            places.sort_unstable();
            places.dedup();
            let mut seen_by = places.iter().take(4).copied().collect::<Vec<_>>().join(", ");
            if places.len() > 4 {
                let _ = write!(seen_by, " and {} more", places.len() - 4);
            }
            let mut broken = broken.join(", ");
            if broken.is_empty() {
                broken = rule.out_of_scope.clone().unwrap_or_else(|| "not seen broken yet".to_owned());
            }
            let (level, basis) = (rule.level.name(), rule.basis.name());
            let _ = writeln!(text, "| {} | {level}, {basis} | {broken} | {seen_by} |", rule.id);
        }
        for case in self.cases.iter().filter(|case| !case.is_killed()) {
            let _ = writeln!(text, "\n`{}` survives: {}", case.fault.id, case.fault.text);
        }
        text
    }

    /// Formats all gaps of the matrix.
    pub fn complaints(&self) -> String {
        let mut text = String::new();
        for case in &self.cases {
            let fault = case.fault;
            if !case.is_killed() {
                let _ =
                    writeln!(text, "SURVIVES {} {:?}\n  {}\n  {:?}", fault.id, fault.rules, fault.text, case.undecided);
            }
            if !case.outside.is_empty() {
                let _ = writeln!(text, "ACCUSES OTHERS {} {:?}\n  {}", fault.id, fault.rules, fault.text);
                for seen in &case.outside {
                    let _ = writeln!(text, "  {} {}", seen.rule, seen);
                }
            }
        }
        text
    }
}

impl std::fmt::Display for BrokenRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message: String = self.message.chars().take(200).collect();
        write!(f, "[{}] {}: {}: {message}", self.verdict.name(), self.scenario, self.step)
    }
}

/// A scenario played against a correct hub.
struct Rehearsal {
    program: Arc<Program>,
    report: ScenarioReport,
    /// The indices of the faults that may have an effect: those outside the machine whose changes apply to a correct hub's
    /// outputs, and all of those inside, whose effect cannot be known.
    touched: BTreeSet<usize>,
}

impl Rehearsal {
    /// Whether the scenario checks a rule that the fault breaks.
    fn checks_a_rule_of(&self, fault: &Fault) -> bool {
        let decided = self.report.checks.iter().filter(|check| check.verdict != Verdict::NotTestable);
        decided.flat_map(|check| &check.rules).any(|(rule, _)| fault.rules.contains(&rule.id.as_str()))
    }
}

/// Plays each scenario, for which there is an instance, against a correct hub.
fn rehearse(protocol: &SimulatedProtocol, faults: &[&'static Fault]) -> Vec<Rehearsal> {
    let changes = |fault: &&'static Fault| match fault.effect {
        FaultEffect::Outside(changes) => changes,
        FaultEffect::Inside | FaultEffect::OnInput(_) => &[],
    };
    let lists: Vec<_> = faults.iter().map(changes).collect();
    let inside = || (0..faults.len()).filter(|index| lists[*index].is_empty());
    let mut rehearsals = Vec::new();
    for program in &protocol.scenarios.programs {
        let acted = Arc::new(Mutex::new(inside().collect::<BTreeSet<_>>()));
        let around =
            |machine| -> Box<dyn Machine> { Box::new(RehearsalMachine::new(machine, &lists, Arc::clone(&acted))) };
        let played = protocol.play_on(program, None, &around, SendingManner::default());
        let Some(report) = played else { continue };
        assert!(matches!(report.verdict, Verdict::Pass | Verdict::Info), "{} on a correct hub", report.id);
        let touched = acted.lock().clone();
        rehearsals.push(Rehearsal { program: Arc::clone(program), report, touched });
    }
    rehearsals
}

/// The verdict of each check on a correct hub.
struct ExpectedVerdicts<'a>(BTreeMap<(&'a str, &'a str), (Verdict, Option<&'a str>)>);

impl<'a> ExpectedVerdicts<'a> {
    /// Plays scenarios that record something once more, so that messages with random parts are not compared.
    fn from_rehearsals(protocol: &SimulatedProtocol, rehearsals: &'a [Rehearsal]) -> Self {
        let mut expected = BTreeMap::new();
        for Rehearsal { program, report, .. } in rehearsals {
            let recorded = report.checks.iter().any(|check| check.verdict == Verdict::Info);
            let second = if recorded { protocol.play(program, None) } else { None };
            for check in &report.checks {
                let again = second.iter().flat_map(|second| &second.checks).find(|again| again.name == check.name);
                let steady = again.is_some_and(|again| again.message == check.message);
                let key = (report.id.as_str(), check.name.as_str());
                expected.insert(key, (check.verdict, steady.then_some(check.message.as_str())));
            }
        }
        Self(expected)
    }

    /// Whether a verdict is worse than on a correct hub, or, for a may rule, different.
    fn differs(&self, scenario: &str, check: &CheckReport, verdict: Verdict) -> bool {
        match (verdict, self.0.get(&(scenario, check.name.as_str()))) {
            (Verdict::Fail | Verdict::Warn, _) => true,
            (Verdict::Info, Some((Verdict::Info, Some(message)))) => *message != check.message,
            (Verdict::Info, Some((before, _))) => *before != Verdict::Info,
            (Verdict::Info, None) => true,
            (Verdict::Pass, Some((Verdict::Info, _))) => true,
            _ => false,
        }
    }
}

impl FaultResults {
    fn new(fault: &'static Fault) -> Self {
        Self { fault, within: Vec::new(), outside: Vec::new(), undecided: Vec::new() }
    }

    /// Whether the fault is detected and all of its rules are proven, by this fault or another.
    fn proves_its_rules(&self, proven: &mut BTreeSet<String>) -> bool {
        proven.extend(self.within.iter().filter(|seen| seen.proves).map(|seen| seen.rule.clone()));
        self.is_killed() && self.fault.rules.iter().all(|rule| proven.contains(*rule))
    }

    fn judge(&mut self, report: &ScenarioReport, expected: &ExpectedVerdicts<'_>) {
        assert_eq!(report.mistake, None, "{} with {}", report.id, self.fault.id);
        if let (Verdict::Inconclusive, Some(cause)) = (report.verdict, &report.cause) {
            self.undecided.push(format!("{}: {}: {}", report.id, cause.step, cause.message));
        }
        for check in &report.checks {
            for (rule, verdict) in &check.rules {
                if !expected.differs(&report.id, check, *verdict) {
                    continue;
                }
                let proves = !rule.lowered
                    && match rule.level {
                        RuleLevel::Must => *verdict == Verdict::Fail || rule.basis == RuleBasis::Silent,
                        RuleLevel::Should => *verdict == Verdict::Warn,
                        RuleLevel::May => true,
                    };
                let seen = BrokenRule {
                    rule: rule.id.clone(),
                    verdict: *verdict,
                    proves,
                    scenario: report.id.clone(),
                    check: check.name.clone(),
                    step: if check.step.is_empty() { check.name.clone() } else { check.step.clone() },
                    message: check.message.clone(),
                };
                if self.fault.rules.contains(&rule.id.as_str()) {
                    self.within.push(seen);
                } else if matches!(verdict, Verdict::Fail | Verdict::Warn) {
                    self.outside.push(seen);
                }
            }
            if check.rules.is_empty() && matches!(check.verdict, Verdict::Fail | Verdict::Warn) {
                self.undecided.push(format!("{}: {}: {}", report.id, check.name, check.message));
            }
        }
    }
}
