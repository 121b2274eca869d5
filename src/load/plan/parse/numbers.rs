//! Parses numbers, times, shares and rates, and how a rate changes.

use std::time::Duration;

use crate::load::plan::{Arrivals, Spacing, Spike, Stage};
use crate::scenario::parse::journeys::Journeys;
use crate::scenario::parse::shape::{keys, list};
use crate::syntax::duration::parse_duration;
use crate::syntax::yaml::{Kind, Node};

/// Parses a time with its unit, if there is one.
pub fn time(node: Option<&Node>, what: &str, journeys: &mut Journeys<'_>) -> Option<Duration> {
    let node = node?;
    let problem = match &node.kind {
        Kind::Text(text) => match parse_duration(&text.value) {
            Ok(time) => return Some(time),
            Err(problem) => problem,
        },
        Kind::Number(n) => format!("`{n}` has no unit: write {n}s or {n}ms"),
        _ => format!("{what} must be a time, not {}", node.what()),
    };
    let help = if problem.contains("write") { "" } else { "write 300ms, 5s or 2m" };
    journeys.error(node.span, problem, help);
    None
}

/// Parses a time above 0.
pub fn interval(node: Option<&Node>, what: &str, journeys: &mut Journeys<'_>) -> Option<Duration> {
    let time = time(node, what, journeys)?;
    if time.is_zero() {
        let span = node?.span;
        journeys.error(span, format!("{what} must be a time above 0"), "write 300ms, 5s or 2m");
        return None;
    }
    Some(time)
}

/// Parses a whole number from 1 to `most`.
pub fn count(node: Option<&Node>, what: &str, most: u32, journeys: &mut Journeys<'_>) -> Option<u32> {
    let node = node?;
    match &node.kind {
        Kind::Number(n) if n.as_u64().is_some_and(|n| (1..=u64::from(most)).contains(&n)) => {
            n.as_u64().and_then(|n| u32::try_from(n).ok())
        }
        _ => {
            journeys.error(node.span, format!("{what} must be a whole number from 1 to {most}"), "");
            None
        }
    }
}

/// Parses a share, as `5%` or as a number from 0 to 1.
pub fn share(node: Option<&Node>, what: &str, journeys: &mut Journeys<'_>) -> Option<f64> {
    let node = node?;
    let share = match &node.kind {
        Kind::Number(n) => n.as_f64(),
        Kind::Text(text) => {
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
pub fn rate(node: Option<&Node>, what: &str, journeys: &mut Journeys<'_>) -> Option<f64> {
    let node = node?;
    let rate = match &node.kind {
        Kind::Number(n) => n.as_f64(),
        Kind::Text(text) => [("/s", 1.0), ("/m", 60.0), ("/h", 3600.0)]
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
pub fn arrivals(node: &Node, journeys: &mut Journeys<'_>) -> Arrivals {
    let constant = |rate: f64| vec![Stage { from: rate, to: rate, time: Duration::ZERO }];
    if node.map().is_none() {
        let rate = rate(Some(node), "`arrivals`", journeys).unwrap_or_default();
        return Arrivals { spacing: Spacing::Constant, stages: constant(rate), spikes: Vec::new() };
    }
    keys(node, &["rate", "spacing", "stages", "steps", "spikes"], "`arrivals`", journeys.diagnostics());
    let spacing = match node.get("spacing").map(|node| (node, node.text())) {
        None | Some((_, Some("constant"))) => Spacing::Constant,
        Some((_, Some("poisson"))) => Spacing::Poisson,
        Some((node, _)) => {
            journeys.error(node.span, "`spacing` must be constant or poisson", "");
            Spacing::Constant
        }
    };
    let stages = match (node.get("rate"), node.get("stages"), node.get("steps")) {
        (Some(node), None, None) => constant(rate(Some(node), "`rate`", journeys).unwrap_or_default()),
        (None, Some(node), None) => stages(node, journeys),
        (None, None, Some(node)) => steps(node, journeys),
        _ => {
            journeys.error(
                node.span,
                "arrivals need exactly one of rate, stages and steps",
                "write `arrivals: { rate: 2000 }`",
            );
            constant(0.0)
        }
    };
    let example = "spikes: [{ at: 20s, rate: 5000, for: 2s }]";
    let spikes = list(node.get("spikes"), "`spikes`", example, journeys.diagnostics()).iter().filter_map(|node| {
        keys(node, &["at", "rate", "for"], "a spike", journeys.diagnostics());
        if ["at", "rate", "for"].iter().any(|key| node.get(key).is_none()) {
            journeys.error(node.span, "a spike needs `at`, `rate` and `for`", format!("write `{example}`"));
        }
        Some(Spike {
            at: time(node.get("at"), "`at`", journeys)?,
            rate: rate(node.get("rate"), "`rate`", journeys)?,
            time: interval(node.get("for"), "`for`", journeys)?,
        })
    });
    Arrivals { spacing, stages, spikes: spikes.collect() }
}

/// Parses stages; a stage without `from` begins at the final rate of the previous one.
fn stages(node: &Node, journeys: &mut Journeys<'_>) -> Vec<Stage> {
    let example = "stages: [{ from: 0, to: 2000, for: 30s }, { rate: 2000, for: 60s }]";
    let mut stages: Vec<Stage> = Vec::new();
    for node in list(Some(node), "`stages`", example, journeys.diagnostics()) {
        keys(node, &["from", "to", "rate", "for"], "a stage", journeys.diagnostics());
        let time = interval(node.get("for"), "`for`", journeys);
        if node.get("for").is_none() {
            journeys.error(node.span, "a stage needs `for`, its duration", "write `for: 30s`");
        }
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
        stages.push(Stage { from, to, time: time.unwrap_or_default() });
    }
    if stages.is_empty() {
        journeys.error(node.span, "there are no stages", format!("write `{example}`"));
    }
    stages
}

/// The maximum number of steps that `steps` may expand to.
const MOST_STEPS: usize = 10_000;

/// Parses `steps`: constant rates that increase by equal amounts.
fn steps(node: &Node, journeys: &mut Journeys<'_>) -> Vec<Stage> {
    let example = "write `steps: { from: 100, by: 100, up_to: 1000, every: 10s }`";
    keys(node, &["from", "by", "up_to", "every"], "`steps`", journeys.diagnostics());
    if ["from", "by", "up_to", "every"].iter().any(|key| node.get(key).is_none()) {
        journeys.error(node.span, "steps need from, by, up_to and every", example);
        return Vec::new();
    }
    let mut number = |key: &str| rate(node.get(key), &format!("`{key}`"), journeys);
    let (from, by, up_to) = (number("from"), number("by"), number("up_to"));
    let every = interval(node.get("every"), "`every`", journeys);
    let (Some(from), Some(by), Some(up_to), Some(time)) = (from, by, up_to, every) else { return Vec::new() };
    let count = ((up_to - from) / by).floor() + 1.0;
    if !(1.0..=MOST_STEPS as f64).contains(&count) {
        journeys.error(node.span, format!("these numbers give no steps, or more than {MOST_STEPS}"), example);
        return Vec::new();
    }
    (0..count as usize).map(|n| from + by * n as f64).map(|rate| Stage { from: rate, to: rate, time }).collect()
}
