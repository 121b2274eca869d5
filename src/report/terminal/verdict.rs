//! The verdict on a protocol in one line.

use std::collections::BTreeSet;

use super::super::terminal_page::{self, list};
use super::super::text::format_count;
use super::super::{CheckResult, ProtocolDoubt, ProtocolReport, RunOptions, ScenarioResult};
use super::{MAX_CAUSE_RULES, fuzz, process, unexpected_checks};
use crate::outcome::Verdict;

/// Returns the verdict on a protocol in one line.
pub fn verdict_line(protocol: &ProtocolReport, options: &RunOptions) -> String {
    let parts = verdict_parts(protocol, options);
    terminal_page::verdict_line(protocol.exit_code(options), &protocol.name, &parts)
}

/// Returns the parts of the verdict line: `1 of 23 rules broken (CON-042)`, `5 not judged`. What fails the run comes
/// first.
pub fn verdict_parts(protocol: &ProtocolReport, options: &RunOptions) -> Vec<String> {
    if let Some(fuzzed) = &protocol.fuzzed {
        return fuzz::verdict_parts(protocol, fuzzed, options.strict);
    }
    let checks = protocol.check_tally();
    let rules = protocol.rule_totals();
    let mut parts = Vec::new();
    let mistakes = protocol.scenarios.iter().filter(|scenario| scenario.mistake().is_some()).count();
    if mistakes > 0 {
        parts.push(format!("{} with a mistake", format_count(mistakes, "scenario")));
    }
    let failed = unexpected_checks(protocol, Verdict::Fail);
    let (broken, without_rule) = broken_rules(protocol, &failed);
    let names = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>();
    if !without_rule.is_empty() {
        let names = names(without_rule);
        parts.push(format!(
            "{} without a rule failed ({})",
            format_count(names.len(), "check"),
            list(&names, names.len())
        ));
    }
    let open = rules.testable - rules.decided;
    let holds = rules.proven > 0 && failed.is_empty();
    let of_rules = if holds || !broken.is_empty() { open.to_string() } else { format_count(open, "rule") };
    let warnings = match protocol.unexpected_count(Verdict::Warn) {
        0 => None,
        warnings => Some(format_count(warnings, "warning")),
    };
    let mut others = other_failures(protocol);
    others.extend(warnings.clone().filter(|_| options.strict));
    if broken.is_empty() {
        parts.append(&mut others);
        if holds {
            parts.push(terminal_page::holding(rules.proven, "rule"));
        }
    } else {
        parts.push(terminal_page::broken(&names(broken), rules.testable, "rule", MAX_CAUSE_RULES));
    }
    if checks.decided() == 0 {
        parts.push("nothing could be checked".to_owned());
    } else if open > 0 {
        parts.push(format!("{of_rules} not judged"));
    }
    parts.append(&mut others);
    if protocol.expected_count() > 0 {
        parts.push(format_count(protocol.expected_count(), "known failure"));
    }
    parts.extend(warnings.filter(|_| !options.strict));
    if !protocol.unplayed.is_empty() {
        parts.push(format!("{} not played", format_count(protocol.unplayed.len(), "scenario")));
    }
    if parts.is_empty() {
        parts.push(format!("{} without a rule passed", format_count(checks.decided(), "check")));
    }
    parts
}

/// Returns the rules that the failed checks break, and the names of failed checks without a rule.
fn broken_rules(
    protocol: &ProtocolReport,
    failed: &[(&ScenarioResult, &CheckResult)],
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut broken, mut without_rule) = (BTreeSet::new(), BTreeSet::new());
    for (scenario, check) in failed {
        // A scenario file outside the pack may name a rule that the pack does not have.
        let of_pack =
            scenario.check_report(check).rules_of_verdict().filter(|used| protocol.rules.contains_key(&used.id));
        let rules: Vec<String> = of_pack.map(|used| used.id.clone()).collect();
        if rules.is_empty() {
            without_rule.insert(check.name.clone());
        }
        broken.extend(rules);
    }
    (broken, without_rule)
}

/// Returns the parts of the verdict line about crashes and stale entries, which fail the run like a failed check.
pub(super) fn other_failures(protocol: &ProtocolReport) -> Vec<String> {
    let mut parts: Vec<String> = process::describe_unreported_crashes(protocol).into_iter().collect();
    let stale = protocol.stale_entries().count();
    if stale > 0 {
        parts.push(format!("{} in the baseline", format_count(stale, "stale line")));
    }
    parts.extend(terminal_page::stale_deviations(&protocol.deviations));
    parts
}

/// Returns why the hub may implement another protocol, in one line.
pub fn describe_doubt(protocol: &str, doubt: ProtocolDoubt) -> String {
    let why = match doubt {
        ProtocolDoubt::Unrecognised { unknown, received } => {
            let kinds = if received == 1 { "1 kind".to_owned() } else { format!("{received} kinds") };
            let matches = if unknown == 1 { "matches" } else { "match" };
            format!("Of {kinds} of messages received, {unknown} {matches} no message of {protocol}")
        }
        ProtocolDoubt::NothingWorks { broken, played } => {
            format!("In {broken} of {} no check passed", format_count(played, "scenario"))
        }
    };
    format!(
        "Is this really a hub that speaks {protocol}? {why}. It may speak another protocol; choose the right one with `--protocol`."
    )
}
