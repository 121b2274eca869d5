//! Which cases: by number, by message, by oddity, so many, so long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{CASES, FuzzArgs};
use crate::cli::{CliError, print};
use crate::fuzz::campaign::Campaign;
use crate::fuzz::case::Cell;
use crate::fuzz::feedback::Feedback;
use crate::syntax::diagnostic::suggest;

/// What the command line chooses.
pub struct Choice {
    /// Only these.
    numbers: Vec<u64>,
    cases: Option<u64>,
    time: Option<Duration>,
    messages: Vec<String>,
    oddities: Vec<String>,
    adaptive: bool,
    most_findings: Option<u64>,
}

impl Choice {
    /// Protocols without any such case are taken away.
    ///
    /// # Errors
    ///
    /// No protocol has a message, or an oddity, of such a name.
    pub fn new(arguments: &FuzzArgs, campaigns: &mut Vec<Arc<Campaign>>) -> Result<Self, CliError> {
        let (messages, oddities) = (arguments.message.clone(), arguments.mutation.clone());
        let cases = arguments.cases.or(arguments.time.is_none().then_some(CASES));
        let (numbers, time) = (arguments.case.clone(), arguments.time);
        let (adaptive, most_findings) = (arguments.adaptive, arguments.max_findings);
        let choice = Self { numbers, cases, time, messages, oddities, adaptive, most_findings };
        let known = |of: &dyn Fn(&Campaign, &Cell) -> String| -> BTreeSet<String> {
            campaigns
                .iter()
                .flat_map(|campaign| campaign.plan.cells.iter().map(move |cell| of(campaign, cell)))
                .collect()
        };
        is_known(&choice.messages, &known(&message), "message")?;
        is_known(&choice.oddities, &known(&|_, cell| cell.oddity.name().to_owned()), "mutation")?;
        campaigns.retain(|campaign| campaign.plan.cells.iter().any(|cell| choice.takes(campaign, cell)));
        if campaigns.is_empty() {
            return Err(CliError::new("nothing of the kind can be done to such a message"));
        }
        if choice.numbers.len() > 1 || !choice.numbers.is_empty() && campaigns.len() > 1 {
            one_protocol(campaigns.len())?;
        }
        Ok(choice)
    }

    fn takes(&self, campaign: &Campaign, cell: &Cell) -> bool {
        let among = |names: &[String], name: &str| names.is_empty() || names.iter().any(|other| other == name);
        among(&self.messages, &message(campaign, cell)) && among(&self.oddities, cell.oddity.name())
    }

    /// How many there will be of each protocol, where that is known.
    pub fn count(&self) -> Option<usize> {
        let count = if self.numbers.is_empty() { self.cases } else { Some(self.numbers.len() as u64) };
        count.map(|count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// After how many findings of a protocol no more is looked for.
    pub fn most_findings(&self) -> Option<u64> {
        self.most_findings
    }

    /// What steers the cases of a protocol, where something is to.
    pub fn adaptive(&self) -> Option<Feedback> {
        self.adaptive.then(Feedback::default)
    }

    /// When nothing more is to be begun. The time counts from now, and is shared by so many protocols.
    pub fn end(&self, protocols: usize) -> Option<Instant> {
        let share = u32::try_from(protocols).unwrap_or(u32::MAX).max(1);
        self.time.map(|time| Instant::now() + time / share)
    }

    /// Their numbers, as they are to be played.
    pub fn numbers(&self, campaign: &Campaign, adaptive: Option<&Feedback>) -> Box<dyn Iterator<Item = u64> + Send> {
        if !self.numbers.is_empty() {
            return Box::new(self.numbers.clone().into_iter());
        }
        let all = campaign.plan.numbers(&|cell| self.takes(campaign, &cell));
        let all: Box<dyn Iterator<Item = u64> + Send> = match adaptive {
            Some(adaptive) => Box::new(adaptive.numbers(all)),
            None => Box::new(all),
        };
        Box::new(all.take(self.count().unwrap_or(usize::MAX)))
    }
}

/// A number is a case of each protocol, and another one.
fn one_protocol(protocols: usize) -> Result<(), CliError> {
    match protocols {
        1 => Ok(()),
        _ => Err(CliError::new("of which protocol is the case?\n  help: name one with --protocol")),
    }
}

fn message(campaign: &Campaign, cell: &Cell) -> String {
    campaign.pack().messages[cell.message].name.clone()
}

fn is_known(names: &[String], known: &BTreeSet<String>, what: &str) -> Result<(), CliError> {
    let Some(name) = names.iter().find(|name| !known.contains(*name)) else { return Ok(()) };
    let all = known.iter().map(String::as_str).collect::<Vec<_>>();
    let help = suggest(name, all.iter().copied(), &format!("one of {}", all.join(", ")));
    Err(CliError::new(format!("there is no {what} `{name}` to make cases of\n  help: {help}")))
}

/// Prints them in their order, each when it is made.
pub fn print_cases(campaigns: &[Arc<Campaign>], choice: &Choice) {
    for campaign in campaigns {
        let end = choice.end(campaigns.len());
        for number in choice.numbers(campaign, None).take_while(|_| end.is_none_or(|end| Instant::now() < end)) {
            let Some(case) = campaign.plan.case(&campaign.material, number) else { continue };
            let line = json!({
                "protocol": campaign.pack().name,
                "seed": campaign.plan.seed,
                "case": number,
                "message": message(campaign, &case.cell),
                "mutation": case.cell.oddity.name(),
                "placement": case.cell.placement.name(),
                "class": case.class.name(),
                "odd": case.odd,
                "scenario": case.scenario,
            });
            print(&format!("{line}\n"));
        }
    }
}
