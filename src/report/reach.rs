//! The reach of a run: how many of the pack's musts it judged, why it did not judge the others, and whether that is
//! enough.

use std::collections::BTreeMap;

use super::document::check::{self as document, Status};
use super::text::format_count;
use super::{ProtocolReport, RuleReport, RuleStatus, RunOptions};
use crate::outcome::{Lack, Verdict};
use crate::protocol::{RuleBasis, RuleLevel};

/// How many of the pack's musts a run judged. The musts are the rules of level must that the document states or implies
/// and that a hub can break.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleReach {
    pub musts: usize,
    /// Number of musts with a decided check at the rule's own level.
    pub judged: usize,
    /// Number of the other musts, by the reason why they were not judged.
    pub gaps: BTreeMap<ReachGap, usize>,
    /// Number of further musts that are only about messages that the target declares absent.
    pub not_offered: usize,
}

/// Why a must was not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReachGap {
    Hook,
    Setting,
    Target,
    Undecided,
    NotReached,
    NotPlayed,
    Lowered,
    NoCheck,
}

impl ReachGap {
    pub fn describe(self) -> &'static str {
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
    fn of_rule(rule: &RuleReport) -> Option<Self> {
        match &rule.status {
            RuleStatus::Judged { decided: true, .. } | RuleStatus::OutOfScope(_) | RuleStatus::NotOffered => None,
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

    /// Returns why a rule of a document, which no share judged, was not judged.
    pub fn of_document_rule(rule: &document::Rule) -> Self {
        let lacks = |kind: &str| rule.needs.iter().any(|need| need.starts_with(kind));
        match rule.status {
            Status::Inconclusive => Self::Undecided,
            Status::NotTestable if rule.needs.is_empty() => Self::NotReached,
            Status::NotTestable if lacks("hook ") => Self::Hook,
            Status::NotTestable if lacks("setting ") => Self::Setting,
            Status::NotTestable => Self::Target,
            Status::NotAsked => Self::NotPlayed,
            Status::NoCheck => Self::NoCheck,
            _ => Self::Lowered,
        }
    }

    /// Whether the user can close the gap by describing the hub in more detail.
    fn can_be_closed(self) -> bool {
        matches!(self, Self::Hook | Self::Setting | Self::Target)
    }
}

impl RuleReach {
    /// Formats `94 of 110 judged (5 more not offered); 12 need a hook, 4 not reached`; `None` without musts.
    pub fn describe(&self) -> Option<String> {
        if self.musts == 0 {
            return None;
        }
        let gap = |(gap, n): (&ReachGap, &usize)| match (n, gap) {
            (1, ReachGap::Hook) => "1 needs a hook".to_owned(),
            (1, ReachGap::Setting) => "1 needs a setting".to_owned(),
            (1, ReachGap::Target) => "1 needs a target property".to_owned(),
            _ => format!("{n} {}", gap.describe()),
        };
        let gaps: Vec<String> = self.gaps.iter().map(gap).collect();
        let gaps = if gaps.is_empty() { String::new() } else { format!("; {}", gaps.join(", ")) };
        let not_offered = match self.not_offered {
            0 => String::new(),
            n => format!(" ({n} more not offered)"),
        };
        Some(format!("{} of {} judged{not_offered}{gaps}", self.judged, self.musts))
    }
}

/// Why a decided run proves too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReachShortfall {
    /// Fewer musts were judged than `--min-judged` requires, in percent.
    BelowLeast(u8),
    /// Fewer than a third of the musts were judged.
    BelowThird,
    /// No check of any step was evaluated.
    OnlyOpenings,
}

impl ProtocolReport {
    pub fn reach(&self) -> RuleReach {
        let mut reach = RuleReach::default();
        let binding = |rule: &&RuleReport| {
            rule.level == RuleLevel::Must
                && rule.basis != RuleBasis::Silent
                && !matches!(rule.status, RuleStatus::OutOfScope(_))
        };
        for rule in self.rules.values().filter(binding) {
            if rule.status == RuleStatus::NotOffered {
                reach.not_offered += 1;
                continue;
            }
            reach.musts += 1;
            match ReachGap::of_rule(rule) {
                None => reach.judged += 1,
                Some(gap) => *reach.gaps.entry(gap).or_default() += 1,
            }
        }
        reach
    }

    /// Returns why the run judged too little to pass; `None` if it judged enough. Without `--min-judged`, a run of all
    /// scenarios must judge a third of the musts, unless the baseline says what kept the run from judging more.
    pub fn reach_shortfall(&self, options: &RunOptions) -> Option<ReachShortfall> {
        let RuleReach { musts, judged, .. } = self.reach();
        if self.fuzzed.is_some() || options.share.is_some() || musts == 0 {
            return None;
        }
        match options.min_judged {
            Some(least) => (judged * 100 < musts * usize::from(least)).then_some(ReachShortfall::BelowLeast(least)),
            None if options.selected || self.scenarios.iter().any(|scenario| scenario.known_cause.is_some()) => None,
            None if !self.got_beyond_openings() => Some(ReachShortfall::OnlyOpenings),
            None => (judged * 3 < musts).then_some(ReachShortfall::BelowThird),
        }
    }

    /// Whether a check of a step was evaluated. Other checks, of schemas and `always`, also judge frames that no step
    /// asked for; they are all there is to judge if no step has a check, as where a document names no replies.
    fn got_beyond_openings(&self) -> bool {
        let checks = || self.scenarios.iter().flat_map(|scenario| &scenario.runs).flat_map(|run| &run.checks);
        let has_steps = checks().any(|check| check.is_of_step());
        checks().any(|check| check.asked > 0 && (check.is_of_step() || !has_steps && !check.rules.is_empty()))
    }
}

/// Explains why a run judged too little, and what to do about it.
pub fn explain_shortfall(protocol: &ProtocolReport, too_little: ReachShortfall) -> String {
    let reach = protocol.reach();
    let judged = format!("{} of {}", reach.judged, format_count(reach.musts, "must"));
    let what = match too_little {
        ReachShortfall::BelowLeast(least) => {
            format!("{judged} were judged, fewer than `--min-judged {least}%` requires")
        }
        ReachShortfall::BelowThird => format!("Too little was judged to pass: {judged}, fewer than a third"),
        ReachShortfall::OnlyOpenings => {
            "No conversation got beyond its opening: no check of a step was evaluated".to_owned()
        }
    };
    let give = if reach.gaps.keys().any(|gap| gap.can_be_closed()) {
        " Provide what `not tested` lists below, with `--set` or in a target file."
    } else {
        ""
    };
    let accept = match too_little {
        ReachShortfall::BelowLeast(_) => "",
        _ => " To accept the run as it is, use `--min-judged 0%`.",
    };
    format!("{what}.{give}{accept}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::exit_code;
    use super::super::fixture::{RunFixture, options};
    use super::*;

    #[rstest]
    #[case(RunFixture::all_pass(), "5 of 6 judged; 1 checked only at a lower level")]
    #[case(RunFixture::not_testable(), "4 of 6 judged; 1 needs a hook, 1 checked only at a lower level")]
    #[case(RunFixture::selection(), "2 of 6 judged; 1 not reached, 2 not played, 1 checked only at a lower level")]
    #[case(RunFixture::unreachable(), "0 of 6 judged; 6 inconclusive")]
    fn the_reach_lists_every_gap(#[case] run: RunFixture, #[case] expected: &str) {
        let report = run.report(options());
        let reach = report.protocols[0].reach();
        assert_eq!(reach.describe().as_deref(), Some(expected));
        assert_eq!(reach.judged + reach.gaps.values().sum::<usize>(), reach.musts);
    }

    /// Every evaluated check passed, but few checks were evaluated.
    #[rstest]
    #[case::everything(RunFixture::all_pass(), None, false, 0)]
    #[case::as_much_as_demanded(RunFixture::all_pass(), Some(83), false, 0)]
    #[case::less_than_demanded(RunFixture::all_pass(), Some(84), false, 3)]
    #[case::less_of_the_whole_pack(RunFixture::selection(), Some(34), true, 3)]
    #[case::only_frames(RunFixture::only_frames(), None, false, 3)]
    #[case::only_frames_accepted(RunFixture::only_frames(), Some(0), false, 0)]
    #[case::only_frames_of_a_selection(RunFixture::only_frames(), None, true, 0)]
    #[case::one_of_six(RunFixture::one_step(), None, false, 3)]
    #[case::one_of_six_accepted(RunFixture::one_step(), Some(0), false, 0)]
    #[case::one_of_six_of_a_selection(RunFixture::one_step(), None, true, 0)]
    fn a_run_that_judges_too_few_musts_is_inconclusive(
        #[case] run: RunFixture,
        #[case] min_judged: Option<u8>,
        #[case] selected: bool,
        #[case] expected: u8,
    ) {
        let report = run.report(RunOptions { min_judged, selected, ..options() });
        assert_eq!(exit_code(&report), expected, "{:?}", report.protocols[0].reach());
    }

    #[test]
    fn too_small_a_reach_is_explained_with_advice() {
        let report = RunFixture::few_settings().report(options());
        let protocol = &report.protocols[0];
        let too_little = protocol.reach_shortfall(&report.options).unwrap();
        let text = explain_shortfall(protocol, too_little);
        assert!(text.contains("1 of 6 musts, fewer than a third. Provide what `not tested` lists"), "{text}");
        assert!(text.ends_with("`--min-judged 0%`."), "{text}");
    }
}
