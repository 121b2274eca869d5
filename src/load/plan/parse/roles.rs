//! Parses a role: its population, its schedule and its steps.

use std::time::Duration;

use super::{lines, numbers};
use crate::load::plan::script::{Line, Pace, Part, Periodic, Whenever};
use crate::load::plan::{Population, Ramp, Reconnect, Role};
use crate::protocol::Way;
use crate::scenario::model::Act;
use crate::scenario::parse::journeys::Journeys;
use crate::scenario::parse::shape::{flag, keys, list, mapping, text};
use crate::syntax::diagnostic::suggest;
use crate::syntax::source::Span;
use crate::syntax::yaml::{Key, Kind, Node};

const KEYS: [&str; 20] = [
    "plays",
    "with",
    "population",
    "ramp",
    "rate",
    "after",
    "reconnect",
    "opening",
    "meanwhile",
    "arrivals",
    "pace",
    "times",
    "let",
    "party",
    "at_a_time",
    "drains",
    "journey",
    "item",
    "steps",
    "resumes",
];

/// The most clients of one role: more than any machine has ports for.
const MOST_CLIENTS: u32 = 1_000_000;
/// The most concurrent journeys of one client.
const MOST_AT_A_TIME: u32 = 10_000;

pub fn read(key: &Key, node: &Node, names: &[String], journeys: &mut Journeys<'_>) -> (Role, Part) {
    if node.map().is_none() {
        journeys.error(node.span, format!("a role is a mapping, not {}", node.what()), "write `{ population: 10 }`");
    }
    keys(node, &KEYS, "a role", journeys.diagnostics());
    let role = numbers_of(key, node, names, journeys);
    let plays = match node.get("plays") {
        Some(plays) => text(Some(plays), "`plays`", journeys.diagnostics()).map(|name| (name, plays.span)),
        None => journeys.has_role(&key.name).then_some((key.name.as_str(), key.span)),
    };
    let part = journeys.of_role(plays, |journeys| part(key, node, plays, journeys));
    if role.arrivals.is_some() && part.journey.is_empty() {
        journeys.error(key.span, "the role has `arrivals` but no `steps`", "write `steps:`");
    }
    for (name, what) in [("pace", "begin by schedule"), ("times", "come as often as the schedule says")] {
        if let Some(node) = node.get(name).filter(|_| role.arrivals.is_some()) {
            journeys.error(
                node.span,
                format!("with arrivals journeys {what}"),
                format!("leave `{name}` or `arrivals` out"),
            );
        }
    }
    (role, part)
}

fn numbers_of(key: &Key, node: &Node, names: &[String], journeys: &mut Journeys<'_>) -> Role {
    let number = numbers::count(node.get("population"), "`population`", MOST_CLIENTS, journeys);
    if node.get("population").is_none() {
        journeys.error(
            key.span,
            format!("`population` is missing: how many `{}` there are", key.name),
            "write `population: 10`",
        );
    }
    let ramp = match (node.get("ramp"), node.get("rate")) {
        (Some(_), Some(rate)) => {
            journeys.error(rate.span, "`ramp` or `rate`, not both", "`ramp` is how long all of them take to connect");
            None
        }
        (ramp @ Some(_), None) => numbers::time(ramp, "`ramp`", journeys).map(Ramp::Over),
        (None, Some(node)) => {
            let rate = numbers::rate(Some(node), "`rate`", journeys);
            if rate == Some(0.0) {
                journeys.error(node.span, "the rate is too low: no client would ever connect", "write `rate: 500`");
            }
            rate.filter(|rate| *rate > 0.0).map(Ramp::Rate)
        }
        (None, None) => None,
    };
    let after = node.get("after").and_then(|node| {
        let before = &names[..names.iter().position(|name| *name == key.name).unwrap_or_default()];
        let place = node.text().and_then(|name| before.iter().position(|known| known == name));
        if place.is_none() {
            let known: Vec<&str> = before.iter().map(String::as_str).collect();
            let help = suggest(node.text().unwrap_or_default(), known, "`after` takes a role defined before this one");
            journeys.error(node.span, "there is no such role before this one", help);
        }
        place
    });
    Role {
        name: key.name.clone(),
        population: Population {
            number: number.unwrap_or(1),
            ramp: ramp.unwrap_or(Ramp::Over(Duration::from_secs(1))),
        },
        after,
        arrivals: node.get("arrivals").map(|node| numbers::arrivals(node, journeys)),
        at_a_time: numbers::count(node.get("at_a_time"), "`at_a_time`", MOST_AT_A_TIME, journeys).unwrap_or(1),
        drains: flag(node.get("drains"), "`drains`", journeys.diagnostics()),
        reconnect: reconnect(node.get("reconnect"), journeys),
    }
}

/// Parses `never`, or `{ after: 1s, up_to: 30s }`.
fn reconnect(node: Option<&Node>, journeys: &mut Journeys<'_>) -> Reconnect {
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(30);
    let Some(node) = node else { return Reconnect::After { first: FIRST, most: MOST } };
    if node.text() == Some("never") {
        return Reconnect::Never;
    }
    if node.map().is_none() {
        journeys.error(
            node.span,
            "`reconnect` must be `never` or a mapping",
            "write `reconnect: { after: 1s, up_to: 30s }`",
        );
    }
    keys(node, &["after", "up_to"], "`reconnect`", journeys.diagnostics());
    let first = numbers::interval(node.get("after"), "`after`", journeys).unwrap_or(FIRST);
    Reconnect::After {
        first,
        most: numbers::interval(node.get("up_to"), "`up_to`", journeys).unwrap_or(MOST).max(first),
    }
}

fn part(key: &Key, node: &Node, plays: Option<(&str, Span)>, journeys: &mut Journeys<'_>) -> Part {
    let with = journeys.overrides(node.get("with"));
    let party = node.get("party").map(|node| journeys.template(node));
    // Names bound in the opening stay in scope: it precedes everything else.
    let opening = match node.get("opening") {
        Some(steps) => lines::read(steps, journeys),
        None => lines::default_opening(plays.is_some(), key.span, journeys),
    };
    let (mut periodic, mut reactions) = (Vec::new(), Vec::new());
    for node in list(node.get("meanwhile"), "`meanwhile`", "- every: 30s", journeys.diagnostics()) {
        journeys.inside(|journeys| meanwhile(node, &mut periodic, &mut reactions, journeys));
    }
    let (lets, journey, resumes, item) = journeys.inside(|journeys| {
        let entries = mapping(node.get("let"), "`let`", journeys.diagnostics());
        let lets = journeys.values(entries);
        let steps = node.get("steps").map_or_else(Vec::new, |steps| lines::read(steps, journeys));
        let resumes = node.get("resumes").map_or_else(Vec::new, |steps| lines::read(steps, journeys));
        // After the steps, since one of them binds the key.
        (lets, steps, resumes, node.get("item").map(|item| journeys.template(item)))
    });
    for line in journey.iter().chain(&resumes).chain(periodic.iter().flat_map(|periodic| &periodic.steps)) {
        if let Some(span) = connects(line) {
            journeys.error(
                span,
                "a client connects in its opening",
                "write `opening: [ { connects: } ]`, or `joins:` there",
            );
        }
    }
    Part {
        plays: plays.map_or(" none", |(name, _)| name).to_owned(),
        with,
        opening,
        lets,
        journey,
        resumes,
        journey_name: text(node.get("journey"), "`journey`", journeys.diagnostics()).unwrap_or(&key.name).to_owned(),
        item,
        party,
        pace: pace(node.get("pace"), journeys),
        times: numbers::count(node.get("times"), "`times`", u32::MAX, journeys),
        periodic,
        reactions,
    }
}

fn pace(node: Option<&Node>, journeys: &mut Journeys<'_>) -> Pace {
    let Some(node) = node else { return Pace::Again };
    if node.map().is_none() {
        return numbers::interval(Some(node), "`pace`", journeys)
            .map_or(Pace::Again, |interval| Pace::Every { interval, jitter: 0.0 });
    }
    keys(node, &["every", "jitter"], "`pace`", journeys.diagnostics());
    if node.get("every").is_none() {
        journeys.error(node.span, "`pace` needs `every`", "write `pace: { every: 500ms, jitter: 20% }`");
    }
    let jitter = numbers::share(node.get("jitter"), "`jitter`", journeys).unwrap_or_default();
    numbers::interval(node.get("every"), "`every`", journeys)
        .map_or(Pace::Again, |interval| Pace::Every { interval, jitter })
}

/// Parses an activity alongside the journeys: periodic, or a reaction to a message.
fn meanwhile(node: &Node, periodic: &mut Vec<Periodic>, reactions: &mut Vec<Whenever>, journeys: &mut Journeys<'_>) {
    let steps = node.get("do");
    if steps.is_none() && ["marks", "delivers"].iter().all(|key| node.get(key).is_none()) {
        journeys.error(node.span, "this activity has no steps", "write the steps under `do`");
    }
    match (node.get("every"), node.get("whenever")) {
        (Some(every), None) => {
            keys(node, &["every", "jitter", "do"], "a periodic activity", journeys.diagnostics());
            let interval = numbers::interval(Some(every), "`every`", journeys);
            let jitter = numbers::share(node.get("jitter"), "`jitter`", journeys).unwrap_or_default();
            let steps = steps.map_or_else(Vec::new, |steps| lines::read(steps, journeys));
            periodic.extend(interval.map(|every| Periodic { span: node.span, every, jitter, steps }));
        }
        (None, Some(whenever)) => {
            const KEYS: [&str; 9] = ["whenever", "where", "as", "do", "marks", "item", "by", "delivers", "sent at"];
            keys(node, &KEYS, "a reaction", journeys.diagnostics());
            let Some(message) = journeys.message(whenever, Way::FromHub) else { return };
            let as_ = node.get("as").and_then(|node| {
                let name = journeys.free_name(node)?;
                journeys.bind_name(&name, Some(node.span));
                Some(name)
            });
            let pattern = node.get("where").map(|node| journeys.pattern(node, &message));
            let steps = steps.map_or_else(Vec::new, |steps| lines::read(steps, journeys));
            for line in &steps {
                if let Some(span) = waits(line) {
                    journeys.error(span, "a reaction cannot wait", "use `sends` here, and a journey for what waits");
                }
            }
            let options = Box::new(lines::options(node, lines::Beside::Whenever, journeys));
            reactions.push(Whenever { span: node.span, message, pattern, as_, options, steps });
        }
        _ => {
            let example = "write `every: 30s`, or `whenever: MESSAGE`";
            let known = matches!(node.kind, Kind::Map(_));
            let what = if known {
                "`meanwhile` needs either `every` or `whenever`"
            } else {
                "an entry of `meanwhile` must be a mapping"
            };
            journeys.error(node.span, what, example);
        }
    }
}

/// Returns the place where a line connects, if it does.
fn connects(line: &Line) -> Option<Span> {
    match line {
        Line::Step { step, .. } => matches!(step.act, Act::Connect(_) | Act::Join { .. }).then_some(step.span),
        Line::Think { .. } => None,
        Line::Repeat { steps, .. } => steps.iter().find_map(connects),
        Line::Sometimes { steps, otherwise, .. } => steps.iter().chain(otherwise).find_map(connects),
    }
}

/// Returns the place where a line takes time, if it does.
fn waits(line: &Line) -> Option<Span> {
    match line {
        Line::Step { step, .. } => (!matches!(step.act, Act::Send(_))).then_some(step.span),
        Line::Think { span, .. } => Some(*span),
        Line::Repeat { steps, .. } => steps.iter().find_map(waits),
        Line::Sometimes { steps, otherwise, .. } => steps.iter().chain(otherwise).find_map(waits),
    }
}
