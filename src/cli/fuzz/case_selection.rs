//! The selection of cases by number, message and mutation, and the limits on their number and time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::cli::{CliError, print_document};
use crate::config;
use crate::fuzz::campaign::Campaign;
use crate::fuzz::case::{FuzzCell, MutationKind};
use crate::fuzz::feedback::CaseFeedback;
use crate::syntax::diagnostic::suggest;
use crate::syntax::share::Share;

#[derive(Args)]
pub struct CaseArgs {
    /// Number of cases per protocol (default: 1000, or unlimited with --time)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    cases: Option<u64>,
    /// Time limit for the whole run, across all protocols, such as 30s or 5m; the run ends at most 2 s later
    #[arg(long, value_name = "TIME", value_parser = config::parse_duration)]
    time: Option<Duration>,
    /// Stop a protocol after N distinct findings that are not in the baseline
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_findings: Option<u64>,
    /// Play every Nth case, such as 3/16 for the third of sixteen runs; `hubproof merge` joins their JSON reports
    #[arg(long, value_name = "N/ALL", requires = "seed", conflicts_with_all = ["case", "adaptive"])]
    pub share: Option<Share>,
    /// Run only case N (the number a finding prints)
    #[arg(long, value_name = "N", conflicts_with_all = ["cases", "time"])]
    case: Vec<u64>,
    /// Run only cases that mutate this message
    #[arg(long, value_name = "NAME")]
    pub message: Vec<String>,
    /// Run only cases with this mutation: missing, wrong-type, truncated, fragments, ...
    #[arg(long, value_name = "NAME")]
    pub mutation: Vec<String>,
    /// After an answer with a new shape, run more cases with the same message and mutation
    #[arg(long, conflicts_with_all = ["case", "print_cases"])]
    adaptive: bool,
}

/// Cases of each protocol by default.
const DEFAULT_CASES: u64 = 1000;

/// The selection of the command line.
pub struct CaseSelection {
    /// The numbers of the cases to play; empty for all.
    numbers: Vec<u64>,
    cases: Option<u64>,
    time: Option<Duration>,
    messages: Vec<String>,
    mutations: Vec<String>,
    adaptive: bool,
    share: Share,
    most_findings: Option<u64>,
    /// Whether frames may be mutated.
    websocket: bool,
}

impl CaseSelection {
    /// Reads the selection, and removes the protocols without a selected case.
    ///
    /// # Errors
    ///
    /// No protocol has the selected message or mutation.
    pub fn new(arguments: &CaseArgs, websocket: bool, campaigns: &mut Vec<Arc<Campaign>>) -> Result<Self, CliError> {
        let (messages, mutations) = (arguments.message.clone(), arguments.mutation.clone());
        let cases = arguments.cases.or(arguments.time.is_none().then_some(DEFAULT_CASES));
        let (numbers, time) = (arguments.case.clone(), arguments.time);
        let (adaptive, most_findings) = (arguments.adaptive, arguments.max_findings);
        let share = arguments.share.unwrap_or(Share::WHOLE);
        let selection = Self { numbers, cases, time, messages, mutations, adaptive, share, most_findings, websocket };
        let known = |of: &dyn Fn(&Campaign, &FuzzCell) -> String| -> BTreeSet<String> {
            campaigns
                .iter()
                .flat_map(|campaign| campaign.scheduler.cells.iter().map(move |cell| of(campaign, cell)))
                .collect()
        };
        check_known(&selection.messages, &known(&message_name), "message")?;
        let mutations = MutationKind::all().map(|mutation| mutation.name().to_owned()).collect();
        check_known(&selection.mutations, &mutations, "mutation")?;
        let why = selection.describe_omitted(campaigns);
        campaigns.retain(|campaign| campaign.scheduler.cells.iter().any(|cell| selection.selects(campaign, cell)));
        if campaigns.is_empty() {
            let mutations = selection.mutations.join(" or ");
            return Err(CliError::new(format!(
                "no case has the mutation {mutations}\n{why}  help: choose another one"
            )));
        }
        if selection.numbers.len() > 1 || !selection.numbers.is_empty() && campaigns.len() > 1 {
            check_one_protocol(campaigns.len())?;
        }
        Ok(selection)
    }

    /// Returns a line for each selected mutation that does not apply to a selected message.
    fn describe_omitted(&self, campaigns: &[Arc<Campaign>]) -> String {
        let mut lines = String::new();
        for campaign in campaigns {
            let pack = campaign.pack();
            for omitted in &campaign.scheduler.omitted {
                let message = &pack.messages[omitted.message].name;
                if is_among(&self.messages, message) && is_among(&self.mutations, omitted.mutation.name()) {
                    lines.push_str(&format!("  {}/{message}: {}\n", pack.name, omitted.why));
                }
            }
        }
        lines
    }

    fn selects(&self, campaign: &Campaign, cell: &FuzzCell) -> bool {
        let is_possible = self.websocket || !matches!(cell.mutation, MutationKind::Framed(_));
        is_possible
            && is_among(&self.messages, &message_name(campaign, cell))
            && is_among(&self.mutations, cell.mutation.name())
    }

    /// Returns the number of cases of each protocol, if it is known.
    pub fn case_count(&self) -> Option<usize> {
        let count = if self.numbers.is_empty() { self.cases } else { Some(self.numbers.len() as u64) };
        let own = count.map(|count| u32::try_from(count).map_or(count, |count| u64::from(self.share.count(count))));
        own.map(|own| usize::try_from(own).unwrap_or(usize::MAX))
    }

    /// Returns the number of findings of a protocol after which no more cases are started.
    pub fn most_findings(&self) -> Option<u64> {
        self.most_findings
    }

    /// Returns the feedback that orders the cases of a protocol, with `--adaptive`.
    pub fn adaptive_feedback(&self) -> Option<CaseFeedback> {
        self.adaptive.then(CaseFeedback::default)
    }

    /// Returns when a protocol's time is over; `index` is its place among `protocols`. The protocols share the time
    /// from `begun`, and the next protocol gets the time that one leaves over.
    pub fn end_of_protocol(&self, begun: Instant, index: usize, protocols: usize) -> Option<Instant> {
        let whole = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.time.map(|time| begun + time / whole(protocols).max(1) * whole(index + 1))
    }

    /// Returns the numbers of the cases to play, in order.
    pub fn case_numbers(
        &self,
        campaign: &Campaign,
        adaptive: Option<&CaseFeedback>,
    ) -> Box<dyn Iterator<Item = u64> + Send> {
        if !self.numbers.is_empty() {
            return Box::new(self.numbers.clone().into_iter());
        }
        let share = self.share;
        let all = campaign.scheduler.numbers(&|cell| self.selects(campaign, &cell));
        let all = all.enumerate().filter(move |(place, _)| share.takes(*place as u64)).map(|(_, number)| number);
        let all: Box<dyn Iterator<Item = u64> + Send> = match adaptive {
            Some(adaptive) => Box::new(adaptive.order_numbers(all)),
            None => Box::new(all),
        };
        Box::new(all.take(self.case_count().unwrap_or(usize::MAX)))
    }
}

/// The largest share of a protocol's time to keep free after the cases, and the longest such time.
const CLOSING_SHARE: u32 = 10;
const MAX_CLOSING_TIME: Duration = Duration::from_secs(5);
/// The largest share of a protocol's time in which findings are shrunk.
const SHRINKING_SHARE: u32 = 4;

/// Returns how long before the end of a protocol's time the last case may start. The rest is for the last checks of the
/// hub, and for shrinking findings (at most `shrink_time`).
pub fn time_after_cases(whole: Duration, shrink_time: Option<Duration>) -> Duration {
    let shrinking = shrink_time.map_or(Duration::ZERO, |time| time.min(whole / SHRINKING_SHARE));
    (whole / CLOSING_SHARE).min(MAX_CLOSING_TIME) + shrinking
}

/// Refuses a case number if there are several protocols, because each protocol has a different case with that number.
fn check_one_protocol(protocols: usize) -> Result<(), CliError> {
    match protocols {
        1 => Ok(()),
        _ => Err(CliError::usage("the protocol of the case is not given", "choose one with --protocol")),
    }
}

/// Whether a name is selected: without a selection, all are.
fn is_among(selected: &[String], name: &str) -> bool {
    selected.is_empty() || selected.iter().any(|other| other == name)
}

fn message_name(campaign: &Campaign, cell: &FuzzCell) -> String {
    campaign.pack().messages[cell.message].name.clone()
}

fn check_known(names: &[String], known: &BTreeSet<String>, what: &str) -> Result<(), CliError> {
    let Some(name) = names.iter().find(|name| !known.contains(*name)) else { return Ok(()) };
    let all = known.iter().map(String::as_str).collect::<Vec<_>>();
    let help = suggest(name, all.iter().copied(), &format!("one of {}", all.join(", ")));
    Err(CliError::usage(format!("no case has the {what} `{name}`"), help))
}

/// Prints the selected cases in order, each as soon as it is generated.
pub fn print_cases(campaigns: &[Arc<Campaign>], selection: &CaseSelection) {
    for campaign in campaigns {
        let end = selection.end_of_protocol(Instant::now(), 0, campaigns.len());
        for number in selection.case_numbers(campaign, None).take_while(|_| end.is_none_or(|end| Instant::now() < end))
        {
            let Some(case) = campaign.scheduler.case(&campaign.corpus, number) else { continue };
            let line = json!({
                "protocol": campaign.pack().name,
                "seed": campaign.scheduler.seed,
                "case": number,
                "message": message_name(campaign, &case.cell),
                "mutation": case.cell.mutation.name(),
                "placement": case.cell.placement.name(),
                "class": case.class.name(),
                "odd": case.description,
                "scenario": case.scenario.to_map(),
            });
            print_document(&format!("{line}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn selection(time: Option<u64>) -> CaseSelection {
        CaseSelection {
            numbers: Vec::new(),
            cases: None,
            time: time.map(Duration::from_secs),
            messages: Vec::new(),
            mutations: Vec::new(),
            adaptive: false,
            share: Share::WHOLE,
            most_findings: None,
            websocket: true,
        }
    }

    #[test]
    fn protocols_share_the_time_and_the_last_one_ends_with_it() {
        let begun = Instant::now();
        let ends = |time| [0, 1, 2].map(|index| selection(time).end_of_protocol(begun, index, 3));
        assert_eq!(ends(Some(60)), [20, 40, 60].map(|end| Some(begun + Duration::from_secs(end))));
        assert_eq!(ends(None), [None; 3]);
    }

    #[rstest]
    #[case::short(10, None, 1.0)]
    #[case::long(600, None, 5.0)]
    #[case::short_with_findings(20, Some(60), 7.0)]
    #[case::long_with_findings(600, Some(60), 65.0)]
    #[case::without_shrinking(600, Some(0), 5.0)]
    fn the_last_case_starts_before_the_end(#[case] whole: u64, #[case] shrink: Option<u64>, #[case] expected: f64) {
        let before = time_after_cases(Duration::from_secs(whole), shrink.map(Duration::from_secs));
        assert_eq!(before.as_secs_f64(), expected);
    }
}
