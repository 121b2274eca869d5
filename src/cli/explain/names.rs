//! The names that hubproof itself defines, by kind. The explanations are written beside the types of the names.

use crate::cli::exit;
use crate::deviation::ENTRY_EXPLANATION;
use crate::fuzz::case::MutationKind;
use crate::fuzz::placement::Placement;
use crate::hub::supervisor::PROCESS_EXPLANATION;
use crate::interpreter::FRAME_CHECK_EXPLANATIONS;
use crate::judge::saved::ReplayResult;
use crate::judge::service::HANG_EXPLANATION;
use crate::load::compare::REMARK_EXPLANATIONS;
use crate::load::ledger::LedgerViolationKind;
use crate::load::metrics::LoadErrorKind;
use crate::load::plan::threshold::{self, ThresholdStanding};
use crate::load::validity::{RunValidity, ValidityCode};
use crate::observe::explanations::OBSERVE_EXPLANATIONS;
use crate::outcome::Verdict;
use crate::report::causes::CAUSE_EXPLANATIONS;
use crate::report::terminal_page::verdict_word;
use crate::report::{EntryStanding, RuleStatus};
use crate::syntax::diagnostic::Severity;
use crate::syntax::explanation::Explanation;

/// A kind of names.
pub struct NameKind {
    /// What a name of the kind is: `a verdict of a check`.
    pub one: &'static str,
    /// What the names are: `verdicts of checks`.
    pub all: &'static str,
    pub names: Vec<Explanation>,
}

/// Returns all kinds of names that do not depend on a protocol, in the order of the list for users.
pub fn fixed_names() -> Vec<NameKind> {
    let kind = |one, all, names| NameKind { one, all, names };
    let [frames, schema] = FRAME_CHECK_EXPLANATIONS;
    let standings = EntryStanding::ALL.map(EntryStanding::explanation);
    let validities = RunValidity::ALL.map(RunValidity::explanation).into_iter();
    let thresholds = ThresholdStanding::ALL.map(ThresholdStanding::explanation);
    vec![
        kind("a verdict of a check", "verdicts of checks", Verdict::ALL.map(Verdict::explanation).to_vec()),
        kind("an exit code", "exit codes", exit::ALL.map(exit::explanation).to_vec()),
        kind(
            "a check that applies to all conversations",
            "checks that apply to all conversations",
            vec![frames, schema, HANG_EXPLANATION, PROCESS_EXPLANATION],
        ),
        kind("a check of observed traffic", "checks of observed traffic", OBSERVE_EXPLANATIONS.to_vec()),
        kind("a cause of undecided checks", "causes of undecided checks", CAUSE_EXPLANATIONS.to_vec()),
        kind("a status of a rule", "statuses of rules", RuleStatus::EXPLANATIONS.to_vec()),
        kind(
            "a known failure or deviation",
            "known failures and deviations",
            standings.into_iter().chain([ENTRY_EXPLANATION]).collect(),
        ),
        kind("a message about files", "messages about files", Severity::ALL.map(Severity::explanation).to_vec()),
        kind("a mutation of fuzz", "mutations of fuzz", MutationKind::all().map(MutationKind::explanation).collect()),
        kind("a moment of fuzz", "moments of fuzz", Placement::ALL.map(Placement::explanation).to_vec()),
        kind("a result of a replay", "results of a replay", ReplayResult::EXPLANATIONS.to_vec()),
        kind("a validity of a load run", "validities of a load run", validities.collect()),
        kind("a reason or note of a load run", "reasons and notes of a load run", ValidityCode::explanations()),
        kind(
            "a result of a threshold",
            "results of thresholds",
            thresholds.into_iter().chain([threshold::UNCERTAIN]).collect(),
        ),
        kind(
            "a violation in the ledger of a load run",
            "violations in the ledger of a load run",
            LedgerViolationKind::ALL.map(LedgerViolationKind::explanation).to_vec(),
        ),
        kind(
            "an error of a load run",
            "errors of a load run",
            LoadErrorKind::ALL.iter().map(|kind| kind.explanation()).collect(),
        ),
        kind("a remark of compare", "remarks of compare", REMARK_EXPLANATIONS.to_vec()),
    ]
}

/// Whether a name is the one that a user wrote. Load pages print `NOT TAKEN` for `not_taken`, and exit codes have words.
pub fn is_name(name: &str, written: &str) -> bool {
    let simple = |text: &str| text.to_lowercase().replace([' ', '_'], "-");
    let word = |name: &str| name.parse().ok().filter(|code| exit::ALL.contains(code)).map(verdict_word);
    simple(name) == simple(written) || word(name).is_some_and(|word| simple(word) == simple(written))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_has_an_explanation_in_sentences() {
        let is_text = |text: &str| text.is_empty() || text.starts_with(|c: char| c.is_uppercase() || c == '`');
        for kind in fixed_names() {
            let names: BTreeSet<&str> = kind.names.iter().map(|one| one.name).collect();
            assert_eq!(names.len(), kind.names.len(), "{}", kind.all);
            for one in &kind.names {
                assert!(one.means.ends_with('.') && one.means.len() > 15, "{}: {}", one.name, one.means);
                let texts = [one.means, one.usually, one.next];
                assert!(texts.into_iter().all(is_text), "{}: {texts:?}", one.name);
            }
        }
    }

    #[test]
    fn names_are_found_as_reports_print_them() {
        for (name, written) in
            [("not_taken", "NOT TAKEN"), ("not-testable", "not-testable"), ("2", "MISTAKE"), ("3", "inconclusive")]
        {
            assert!(is_name(name, written), "{written}");
        }
        for (name, written) in [("0", "fail"), ("pass", "fail"), ("4", "inconclusive")] {
            assert!(!is_name(name, written), "{written}");
        }
    }
}
