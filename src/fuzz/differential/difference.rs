//! A difference between two hubs, in words and as a check that shows both transcripts.

use super::compare::HubComparison;
use super::transcript::{Transcript, TranscriptEvent, TranscriptEventKind};
use crate::outcome::{CheckReport, FindingDetail, ScenarioReport, Verdict};
use crate::protocol::Pack;
use crate::scenario::model::RuleUse;

/// One difference between two hubs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubDifference {
    pub actor: String,
    /// The message that was answered, or the last message that the actor sent; empty if there is none.
    pub after: String,
    pub kind: HubDifferenceKind,
    /// JSON pointer to the differing member; empty if the difference does not concern a member.
    pub pointer: String,
    /// What each hub sent; empty if it sent nothing.
    pub left: String,
    pub right: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HubDifferenceKind {
    /// The hubs answer a message with different messages.
    Answer(Vec<String>, Vec<String>),
    /// Only the first hub sends an unsolicited message, or sends it more often.
    OnlyLeft(String),
    /// Only the second hub sends an unsolicited message, or sends it more often.
    OnlyRight(String),
    /// Both hubs send a message of this kind, with different content.
    Member(String),
    /// Only one of the hubs accepts the connection, or keeps it.
    Connection,
}

/// The rule by which differences are reported.
pub const DIFFERS_RULE: &str = "FUZZ-DIFFERS";

/// Returns a comparison as a check of the case that shows the first difference in full, with both transcripts. `None`
/// if nothing was compared.
pub fn comparison_check(
    comparison: &HubComparison,
    pack: &Pack,
    left: &ScenarioReport,
    right: &ScenarioReport,
) -> Option<CheckReport> {
    let rule = pack.rules.get(DIFFERS_RULE)?;
    let first = comparison.differences.first();
    if first.is_none() && comparison.compared == 0 {
        return None;
    }
    let verdict = if first.is_some() { Verdict::Warn } else { Verdict::Pass };
    let used = RuleUse { id: DIFFERS_RULE.to_owned(), level: rule.level, basis: rule.basis, lowered: false };
    let detail = first.map(|first| FindingDetail {
        actor: first.actor.clone(),
        expected: format!("{} | what the other hub sent:\n{}", shorten(&first.right), transcript_lines(pack, right)),
        received: format!("{} | what this hub sent:\n{}", shorten(&first.left), transcript_lines(pack, left)),
        ..FindingDetail::default()
    });
    Some(CheckReport {
        rules: vec![(used, verdict)],
        step: "the other hub receives the same input".to_owned(),
        message: first.map(HubDifference::describe).unwrap_or_default(),
        detail,
        ..CheckReport::new(DIFFERS_RULE, verdict)
    })
}

fn shorten(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { crate::syntax::matcher::shorten(text, MAX_FRAME_CHARS) }
}

impl HubDifference {
    /// Returns the rules that the schema of the differing message names.
    pub fn rules<'p>(&self, pack: &'p Pack) -> Vec<&'p str> {
        let name = match &self.kind {
            HubDifferenceKind::OnlyLeft(name)
            | HubDifferenceKind::OnlyRight(name)
            | HubDifferenceKind::Member(name) => Some(name),
            HubDifferenceKind::Answer(left, right) => right.first().or(left.first()),
            HubDifferenceKind::Connection => None,
        };
        let schema = name.and_then(|name| pack.message(name)).map(|message| &message.schema);
        schema.iter().flat_map(|schema| &schema.rules).map(String::as_str).collect()
    }

    /// Whether the play's own check of the differing message's schema reports it.
    pub fn is_seen_by_schema(&self, report: &ScenarioReport) -> bool {
        let HubDifferenceKind::Member(message) = &self.kind else { return false };
        report.checks.iter().any(|check| {
            let name = check.name.strip_prefix("schema:").and_then(|name| name.strip_prefix(message.as_str()));
            let is_of_message = name.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
            is_of_message && matches!(check.verdict, Verdict::Fail | Verdict::Warn)
        })
    }

    /// Describes the difference between two hubs in one line. Differences with the same cause have the same line.
    pub fn describe(&self) -> String {
        self.in_words(false)
    }

    /// Describes the difference between a play with a variation and one as the scenario is written.
    pub fn describe_varied(&self) -> String {
        self.in_words(true)
    }

    fn in_words(&self, varied: bool) -> String {
        let Self { after, kind, pointer, .. } = self;
        let after = if after.is_empty() { "at first".to_owned() } else { format!("after {after}") };
        let list = |kinds: &[String]| if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        let what = match kind {
            HubDifferenceKind::Answer(left, right) if varied => format!("{} instead of {}", list(left), list(right)),
            HubDifferenceKind::Answer(left, right) => {
                format!("this hub answers {}, the other {}", list(left), list(right))
            }
            HubDifferenceKind::OnlyLeft(message) => format!("only this hub sends {message}"),
            HubDifferenceKind::OnlyRight(message) => format!("only the other hub sends {message}"),
            HubDifferenceKind::Member(message) => {
                format!("{message} differs at {}", if pointer.is_empty() { "the whole" } else { pointer })
            }
            HubDifferenceKind::Connection if varied => "only one of the connections stays open".to_owned(),
            HubDifferenceKind::Connection => "only one of the hubs keeps the connection open".to_owned(),
        };
        format!("{after}: {what}")
    }
}

/// The most characters of a frame, and the most frames, that are shown.
const MAX_FRAME_CHARS: usize = 160;
const MAX_LINES: usize = 24;

fn transcript_lines(pack: &Pack, report: &ScenarioReport) -> String {
    let transcript = Transcript::from_report(pack, report);
    let skipped = transcript.events.len().saturating_sub(MAX_LINES);
    let line = |event: &TranscriptEvent<'_>| {
        let way = if matches!(
            event.what,
            TranscriptEventKind::Sent(..) | TranscriptEventKind::Raw | TranscriptEventKind::Left
        ) {
            "->"
        } else {
            "<-"
        };
        format!("{} {way} {}", event.actor, crate::syntax::matcher::shorten(&event.text, MAX_FRAME_CHARS))
    };
    transcript.events.iter().skip(skipped).map(line).collect::<Vec<_>>().join("\n")
}
