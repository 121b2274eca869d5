//! The reach of a run: how many of the pack's musts it judged, why it did not judge the others, and whether that is
//! enough.

use std::collections::BTreeMap;

use super::text::count;
use super::{ProtocolReport, RuleReport, RuleStatus, RunOptions};
use crate::event::{Lack, Verdict};
use crate::protocol::{Basis, Level};

/// How many of the pack's musts a run judged. The musts are the rules of level must that the document states or implies
/// and that a hub can break.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub musts: usize,
    /// Number of musts with a decided check at the rule's own level.
    pub judged: usize,
    /// Number of the other musts, by the reason why they were not judged.
    pub gaps: BTreeMap<Gap, usize>,
}

/// Why a must was not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gap {
    Hook,
    Setting,
    Target,
    Undecided,
    NotReached,
    NotPlayed,
    Lowered,
    NoCheck,
}

impl Gap {
    pub fn words(self) -> &'static str {
        match self {
            Self::Hook => "need a hook",
            Self::Setting => "need a setting",
            Self::Target => "need a target property",
            Self::Undecided => "inconclusive",
            Self::NotReached => "not reached",
            Self::NotPlayed => "not played",
            Self::Lowered => "checked only at a lower level",
            Self::NoCheck => "without a check",
        }
    }

    /// Returns why a rule was not judged; `None` if it was.
    fn of(rule: &RuleReport) -> Option<Self> {
        match &rule.status {
            RuleStatus::Judged { proven: true, .. } | RuleStatus::OutOfScope(_) => None,
            RuleStatus::Judged { verdict: Verdict::Inconclusive, .. } => Some(Self::Undecided),
            RuleStatus::Judged { .. } => Some(Self::Lowered),
            RuleStatus::NotTestable { needs } if needs.is_empty() => Some(Self::NotReached),
            // Hooks come before settings, and settings before properties.
            RuleStatus::NotTestable { needs } => needs.iter().map(|need| need.lacks).min().map(|lacks| match lacks {
                Lack::Hook => Self::Hook,
                Lack::Setting => Self::Setting,
                Lack::Property => Self::Target,
            }),
            RuleStatus::NotAsked => Some(Self::NotPlayed),
            RuleStatus::NoCheck => Some(Self::NoCheck),
        }
    }

    /// Whether the user can close the gap by describing the hub in more detail.
    fn can_be_given(self) -> bool {
        matches!(self, Self::Hook | Self::Setting | Self::Target)
    }
}

impl Reach {
    /// Formats `94 of 110 judged; 12 need a hook, 4 not reached`; `None` without musts.
    pub fn words(&self) -> Option<String> {
        if self.musts == 0 {
            return None;
        }
        let gap = |(gap, n): (&Gap, &usize)| match (n, gap) {
            (1, Gap::Hook) => "1 needs a hook".to_owned(),
            (1, Gap::Setting) => "1 needs a setting".to_owned(),
            (1, Gap::Target) => "1 needs a target property".to_owned(),
            _ => format!("{n} {}", gap.words()),
        };
        let gaps: Vec<String> = self.gaps.iter().map(gap).collect();
        let gaps = if gaps.is_empty() { String::new() } else { format!("; {}", gaps.join(", ")) };
        Some(format!("{} of {} judged{gaps}", self.judged, self.musts))
    }
}

/// Why a decided run proves too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLittle {
    /// Fewer musts were judged than `--min-judged` requires, in percent.
    BelowLeast(u8),
    /// Fewer than a third of the musts were judged.
    BelowThird,
    /// No check of any step was evaluated.
    OnlyOpenings,
}

impl ProtocolReport {
    pub fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        let binding = |rule: &&RuleReport| {
            rule.level == Level::Must
                && rule.basis != Basis::Silent
                && !matches!(rule.status, RuleStatus::OutOfScope(_))
        };
        for rule in self.rules.values().filter(binding) {
            reach.musts += 1;
            match Gap::of(rule) {
                None => reach.judged += 1,
                Some(gap) => *reach.gaps.entry(gap).or_default() += 1,
            }
        }
        reach
    }

    /// Returns why the run judged too little to pass; `None` if it judged enough. Without `--min-judged`, a run of all
    /// scenarios must judge a third of the musts, unless the baseline says what kept the run from judging more.
    pub fn too_little(&self, options: &RunOptions) -> Option<TooLittle> {
        let Reach { musts, judged, .. } = self.reach();
        if self.fuzzed.is_some() || musts == 0 {
            return None;
        }
        match options.min_judged {
            Some(least) => (judged * 100 < musts * usize::from(least)).then_some(TooLittle::BelowLeast(least)),
            None if options.selected || self.scenarios.iter().any(|scenario| scenario.known_cause.is_some()) => None,
            None if !self.got_beyond_openings() => Some(TooLittle::OnlyOpenings),
            None => (judged * 3 < musts).then_some(TooLittle::BelowThird),
        }
    }

    /// Whether a check of a step was evaluated. Other checks, of schemas and `always`, also judge frames that no step
    /// asked for.
    fn got_beyond_openings(&self) -> bool {
        let checks = self.scenarios.iter().flat_map(|scenario| &scenario.runs).flat_map(|run| &run.checks);
        checks.into_iter().any(|check| check.is_of_step() && check.asked > 0)
    }
}

/// Explains why a run judged too little, and what to do about it.
pub fn explained(protocol: &ProtocolReport, too_little: TooLittle) -> String {
    let reach = protocol.reach();
    let judged = format!("{} of {}", reach.judged, count(reach.musts, "must"));
    let what = match too_little {
        TooLittle::BelowLeast(least) => format!("{judged} were judged, fewer than `--min-judged {least}%` requires"),
        TooLittle::BelowThird => format!("Too little was judged to pass: {judged}, fewer than a third"),
        TooLittle::OnlyOpenings => {
            "No conversation got beyond its opening: no check of a step was evaluated".to_owned()
        }
    };
    let give = if reach.gaps.keys().any(|gap| gap.can_be_given()) {
        " Provide what `not tested` lists below, with `--set` or in a target file."
    } else {
        ""
    };
    let accept = match too_little {
        TooLittle::BelowLeast(_) => "",
        _ => " To accept the run as it is, use `--min-judged 0%`.",
    };
    format!("{what}.{give}{accept}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::exit_code;
    use super::super::fixture::{Run, options};
    use super::*;

    #[rstest]
    #[case(Run::all_pass(), "5 of 6 judged; 1 checked only at a lower level")]
    #[case(Run::not_testable(), "4 of 6 judged; 1 needs a hook, 1 checked only at a lower level")]
    #[case(Run::selection(), "2 of 6 judged; 1 not reached, 2 not played, 1 checked only at a lower level")]
    #[case(Run::unreachable(), "0 of 6 judged; 6 inconclusive")]
    fn the_reach_names_every_gap(#[case] run: Run, #[case] expected: &str) {
        let report = run.report(options());
        let reach = report.protocols[0].reach();
        assert_eq!(reach.words().as_deref(), Some(expected));
        assert_eq!(reach.judged + reach.gaps.values().sum::<usize>(), reach.musts);
    }

    /// Every evaluated check passed, but few checks were evaluated.
    #[rstest]
    #[case::everything(Run::all_pass(), None, false, 0)]
    #[case::as_much_as_demanded(Run::all_pass(), Some(83), false, 0)]
    #[case::less_than_demanded(Run::all_pass(), Some(84), false, 3)]
    #[case::less_of_the_whole_pack(Run::selection(), Some(34), true, 3)]
    #[case::only_frames(Run::only_frames(), None, false, 3)]
    #[case::only_frames_accepted(Run::only_frames(), Some(0), false, 0)]
    #[case::only_frames_of_a_selection(Run::only_frames(), None, true, 0)]
    #[case::one_of_six(Run::one_step(), None, false, 3)]
    #[case::one_of_six_accepted(Run::one_step(), Some(0), false, 0)]
    #[case::one_of_six_of_a_selection(Run::one_step(), None, true, 0)]
    fn too_little_is_inconclusive(
        #[case] run: Run,
        #[case] min_judged: Option<u8>,
        #[case] selected: bool,
        #[case] expected: u8,
    ) {
        let report = run.report(RunOptions { min_judged, selected, ..options() });
        assert_eq!(exit_code(&report), expected, "{:?}", report.protocols[0].reach());
    }

    #[test]
    fn an_explanation_says_what_to_give() {
        let report = Run::few_settings().report(options());
        let protocol = &report.protocols[0];
        let too_little = protocol.too_little(&report.options).unwrap();
        let text = explained(protocol, too_little);
        assert!(text.contains("1 of 6 musts, fewer than a third. Provide what `not tested` lists"), "{text}");
        assert!(text.ends_with("`--min-judged 0%`."), "{text}");
    }
}
