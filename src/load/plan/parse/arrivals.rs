//! Parses shares, rates, and changes of rates.

use std::time::Duration;

use crate::load::plan::{ArrivalSpacing, Arrivals, RateSpike, RateStage};
use crate::scenario::parse::journeys::JourneyParser;
use crate::syntax::fields::{choice, list, table, time, time_above_zero};
use crate::syntax::yaml::{NodeKind, SyntaxNode};

/// Parses a share, as `5%` or as a number from 0 to 1.
pub fn share(node: Option<&SyntaxNode>, what: &str, journeys: &mut JourneyParser<'_>) -> Option<f64> {
    let node = node?;
    let share = match &node.kind {
        NodeKind::Number(n) => n.as_f64(),
        NodeKind::Text(text) => {
            text.value.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok()).map(|percent| percent / 100.0)
        }
        _ => None,
    };
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    if share.is_none() {
        journeys.error(node.span, format!("{what} must be a share from 0% to 100%"), "write 5% or 0.05");
    }
    share
}

/// Parses a rate per second: a number, or a number with its unit.
pub fn rate(node: Option<&SyntaxNode>, what: &str, journeys: &mut JourneyParser<'_>) -> Option<f64> {
    let node = node?;
    let rate = match &node.kind {
        NodeKind::Number(n) => n.as_f64(),
        NodeKind::Text(text) => [("/s", 1.0), ("/m", 60.0), ("/h", 3600.0)]
            .into_iter()
            .find_map(|(unit, seconds)| Some(text.value.strip_suffix(unit)?.trim().parse::<f64>().ok()? / seconds)),
        _ => None,
    };
    let rate = rate.filter(|rate| rate.is_finite() && (0.0..=10_000_000.0).contains(rate));
    if rate.is_none() {
        journeys.error(
            node.span,
            format!("{what} must be a rate"),
            "write 2000 or 2000/s for a rate per second, or 300/m",
        );
    }
    rate
}

/// Parses `arrivals`: a rate, or a mapping of its changes and spacing.
pub fn arrivals(node: &SyntaxNode, journeys: &mut JourneyParser<'_>) -> Arrivals {
    let constant = |rate: f64| vec![RateStage { from: rate, to: rate, time: Duration::ZERO }];
    if node.map().is_none() {
        let rate = rate(Some(node), "`arrivals`", journeys).unwrap_or_default();
        return Arrivals { spacing: ArrivalSpacing::Constant, stages: constant(rate), spikes: Vec::new() };
    }
    let errors = journeys.diagnostics();
    let known = ["rate", "spacing", "stages", "steps", "spikes"];
    let members = table(node, &known, "`arrivals`", errors);
    let words = [("constant", ArrivalSpacing::Constant), ("poisson", ArrivalSpacing::Poisson)];
    let spacing = choice(node.get("spacing"), "`spacing`", &words, errors).unwrap_or(ArrivalSpacing::Constant);
    let chosen = members.one_of(&["rate", "stages", "steps"], "write `arrivals: { rate: 2000 }`", errors);
    let stages = match chosen {
        Some(("rate", node)) => constant(rate(Some(node), "`rate`", journeys).unwrap_or_default()),
        Some(("stages", node)) => stages(node, journeys),
        Some((_, node)) => steps(node, journeys),
        None => constant(0.0),
    };
    let example = "spikes: [{ at: 20s, rate: 5000, for: 2s }]";
    let spikes = list(node.get("spikes"), "`spikes`", example, journeys.diagnostics()).iter().filter_map(|node| {
        all_required(node, &["at", "rate", "for"], "a spike", example, journeys);
        Some(RateSpike {
            at: time(node.get("at"), "`at`", journeys.diagnostics())?,
            rate: rate(node.get("rate"), "`rate`", journeys)?,
            time: time_above_zero(node.get("for"), "`for`", journeys.diagnostics())?,
        })
    });
    Arrivals { spacing, stages, spikes: spikes.collect() }
}

/// Reports keys that a mapping lacks, and keys other than these.
fn all_required(node: &SyntaxNode, keys: &[&str], what: &str, example: &str, journeys: &mut JourneyParser<'_>) {
    let errors = journeys.diagnostics();
    let (members, help) = (table(node, keys, what, errors), format!("write `{example}`"));
    for key in keys {
        members.required(key, &help, errors);
    }
}

/// Parses stages. A stage without `from` begins at the rate at which the previous one ended.
fn stages(node: &SyntaxNode, journeys: &mut JourneyParser<'_>) -> Vec<RateStage> {
    let example = "stages: [{ from: 0, to: 2000, for: 30s }, { rate: 2000, for: 60s }]";
    let mut stages: Vec<RateStage> = Vec::new();
    for node in list(Some(node), "`stages`", example, journeys.diagnostics()) {
        let errors = journeys.diagnostics();
        let members = table(node, &["from", "to", "rate", "for"], "a stage", errors);
        let time = members.required("for", "write its duration: `for: 30s`", errors);
        let time = time_above_zero(time, "`for`", errors);
        let before = stages.last().map_or(0.0, |stage| stage.to);
        let (from, to) = match (node.get("rate"), node.get("to")) {
            (Some(rate), None) if node.get("from").is_none() => {
                let rate = self::rate(Some(rate), "`rate`", journeys).unwrap_or_default();
                (rate, rate)
            }
            (None, Some(to)) => {
                let from = rate(node.get("from"), "`from`", journeys).unwrap_or(before);
                (from, rate(Some(to), "`to`", journeys).unwrap_or_default())
            }
            _ => {
                journeys.error(
                    node.span,
                    "a stage needs `rate`, or `to` and optionally `from`",
                    format!("write `{example}`"),
                );
                (0.0, 0.0)
            }
        };
        stages.push(RateStage { from, to, time: time.unwrap_or_default() });
    }
    if stages.is_empty() {
        journeys.error(node.span, "there are no stages", format!("write `{example}`"));
    }
    stages
}

/// The maximum number of steps that `steps` may expand to.
const MAX_STEPS: usize = 10_000;

/// Parses `steps`: constant rates that increase by equal amounts.
fn steps(node: &SyntaxNode, journeys: &mut JourneyParser<'_>) -> Vec<RateStage> {
    let example = "steps: { from: 100, by: 100, up_to: 1000, every: 10s }";
    all_required(node, &["from", "by", "up_to", "every"], "`steps`", example, journeys);
    let mut number = |key: &str| rate(node.get(key), &format!("`{key}`"), journeys);
    let (from, by, up_to) = (number("from"), number("by"), number("up_to"));
    let every = time_above_zero(node.get("every"), "`every`", journeys.diagnostics());
    let (Some(from), Some(by), Some(up_to), Some(time)) = (from, by, up_to, every) else { return Vec::new() };
    let count = ((up_to - from) / by).floor() + 1.0;
    if !(1.0..=MAX_STEPS as f64).contains(&count) {
        let help = format!("write for example `{example}`");
        journeys.error(node.span, format!("these numbers give no steps, or more than {MAX_STEPS}"), help);
        return Vec::new();
    }
    (0..count as usize).map(|n| from + by * n as f64).map(|rate| RateStage { from: rate, to: rate, time }).collect()
}
