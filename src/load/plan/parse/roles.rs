//! Parses a role: its population, its schedule and its steps.

use std::time::Duration;

use super::arrivals::{arrivals, rate, share};
use super::lines;
use crate::load::plan::script::{JourneyPace, MissedTicks, PeriodicActivity, PlanLine, PlanReaction, RoleScript};
use crate::load::plan::{PlanRole, Population, Ramp, ReconnectPolicy};
use crate::protocol::FrameDirection;
use crate::scenario::model::StepAction;
use crate::scenario::parse::journeys::JourneyParser;
use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::fields::{Table, choice, flag, integer, list, mapping, table, text, time, time_above_zero};
use crate::syntax::grammar::FileFormat;
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, SyntaxNode};

/// Maximum number of clients of one role: more than any machine has ports for.
const MAX_CLIENTS: u32 = 1_000_000;
/// Maximum number of concurrent journeys of one client.
const MAX_AT_A_TIME: u32 = 10_000;

pub fn parse_role(
    key: &NodeKey,
    node: &SyntaxNode,
    names: &[String],
    journeys: &mut JourneyParser<'_>,
) -> (PlanRole, RoleScript) {
    let members =
        table(node, &FileFormat::Plan.keys("/$defs/role"), &format!("the role `{}`", key.name), journeys.diagnostics())
            .at(key.span);
    let role = parse_role_numbers(key, &members, names, journeys);
    let plays = match node.get("plays") {
        Some(plays) => text(Some(plays), "`plays`", journeys.diagnostics()).map(|name| (name, plays.span)),
        None => journeys.has_role(&key.name).then_some((key.name.as_str(), key.span)),
    };
    let part = journeys.parse_as_role(plays, |journeys| parse_role_script(key, node, plays, journeys));
    if role.arrivals.is_some() && part.journey.is_empty() {
        journeys.error(key.span, "the role has `arrivals` but no `steps`", "write `steps:`");
    }
    for (name, what) in [("pace", "when journeys begin"), ("times", "how many journeys there are")] {
        if let Some(node) = node.get(name).filter(|_| role.arrivals.is_some()) {
            journeys.error(
                node.span,
                format!("with `arrivals`, the schedule decides {what}"),
                format!("leave out `{name}` or `arrivals`"),
            );
        }
    }
    (role, part)
}

fn parse_role_numbers(
    key: &NodeKey,
    members: &Table<'_>,
    names: &[String],
    journeys: &mut JourneyParser<'_>,
) -> PlanRole {
    let (node, errors) = (members.node, journeys.diagnostics());
    let number = members.required("population", "write how many clients there are: `population: 10`", errors);
    let number = count(number, "`population`", MAX_CLIENTS, errors);
    let ramp = match (node.get("ramp"), node.get("rate")) {
        (Some(_), Some(rate)) => {
            journeys.error(
                rate.span,
                "`ramp` or `rate`, not both",
                "`ramp` is the time in which all clients connect, `rate` how many connect per second",
            );
            None
        }
        (ramp @ Some(_), None) => time(ramp, "`ramp`", errors).map(Ramp::Over),
        (None, Some(node)) => {
            let rate = rate(Some(node), "`rate`", journeys);
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
            let help =
                suggest(node.text().unwrap_or_default(), known, "write the name of a role defined before this one");
            journeys.error(node.span, "no role before this one has this name", help);
        }
        place
    });
    PlanRole {
        name: key.name.clone(),
        population: Population {
            number: number.unwrap_or(1),
            ramp: ramp.unwrap_or(Ramp::Over(Duration::from_secs(1))),
        },
        after,
        arrivals: node.get("arrivals").map(|node| arrivals(node, journeys)),
        at_a_time: count(node.get("at_a_time"), "`at_a_time`", MAX_AT_A_TIME, journeys.diagnostics()).unwrap_or(1),
        drains: flag(node.get("drains"), "`drains`", journeys.diagnostics()),
        reconnect: parse_reconnect(node.get("reconnect"), journeys.diagnostics()),
    }
}

/// Parses `never`, or `{ after: 1s, up_to: 30s }`.
fn parse_reconnect(node: Option<&SyntaxNode>, errors: &mut Vec<Diagnostic>) -> ReconnectPolicy {
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(30);
    let Some(node) = node else { return ReconnectPolicy::After { first: FIRST, most: MOST } };
    if node.text() == Some("never") {
        return ReconnectPolicy::Never;
    }
    if node.map().is_none() {
        let help = "write `reconnect: never`, or `reconnect: { after: 1s, up_to: 30s }`";
        errors.push(Diagnostic::error(node.span, "`reconnect` must be `never` or a mapping").help(help));
        return ReconnectPolicy::Never;
    }
    table(node, &["after", "up_to"], "`reconnect`", errors);
    let first = time_above_zero(node.get("after"), "`after`", errors).unwrap_or(FIRST);
    let most = time_above_zero(node.get("up_to"), "`up_to`", errors).unwrap_or(MOST).max(first);
    ReconnectPolicy::After { first, most }
}

fn parse_role_script(
    key: &NodeKey,
    node: &SyntaxNode,
    plays: Option<(&str, Span)>,
    journeys: &mut JourneyParser<'_>,
) -> RoleScript {
    let with = journeys.parse_overrides(node.get("with"));
    let party = node.get("party").map(|node| journeys.parse_template(node));
    // Names bound in the opening stay in scope: it precedes everything else.
    let opening = match node.get("opening") {
        Some(steps) => lines::parse_lines(steps, journeys),
        None => lines::default_opening(plays.is_some(), key.span, journeys),
    };
    let (mut periodic, mut reactions) = (Vec::new(), Vec::new());
    for node in list(node.get("meanwhile"), "`meanwhile`", "- every: 30s", journeys.diagnostics()) {
        journeys.parse_in_scope(|journeys| parse_meanwhile(node, &mut periodic, &mut reactions, journeys));
    }
    let (lets, journey, resumes, item) = journeys.parse_in_scope(|journeys| {
        let entries = mapping(node.get("let"), "`let`", "let: { NAME: VALUE }", journeys.diagnostics());
        let lets = journeys.parse_values(entries);
        let steps = node.get("steps").map_or_else(Vec::new, |steps| lines::parse_lines(steps, journeys));
        let resumes = node.get("resumes").map_or_else(Vec::new, |steps| lines::parse_lines(steps, journeys));
        // After the steps, since one of them binds the key.
        (lets, steps, resumes, node.get("item").map(|item| journeys.parse_template(item)))
    });
    for line in journey.iter().chain(&resumes).chain(periodic.iter().flat_map(|periodic| &periodic.steps)) {
        if let Some(span) = connecting_span(line) {
            journeys.error(
                span,
                "a client can connect only in its opening",
                "write `opening: [ { connects: } ]`, or `joins:` there",
            );
        }
    }
    RoleScript {
        plays: plays.map_or(" none", |(name, _)| name).to_owned(),
        with,
        opening,
        lets,
        journey,
        resumes,
        journey_name: text(node.get("journey"), "`journey`", journeys.diagnostics()).unwrap_or(&key.name).to_owned(),
        item,
        party,
        pace: parse_pace(node.get("pace"), journeys),
        times: count(node.get("times"), "`times`", u32::MAX, journeys.diagnostics()),
        periodic,
        reactions,
    }
}

fn parse_pace(node: Option<&SyntaxNode>, journeys: &mut JourneyParser<'_>) -> JourneyPace {
    let Some(node) = node else { return JourneyPace::Again };
    let (every, what, jitter, missed) = match node.map() {
        None => (Some(node), "`pace`", None, None),
        Some(_) => {
            let members = table(node, &["every", "jitter", "missed"], "`pace`", journeys.diagnostics());
            let help = "write `pace: { every: 500ms, jitter: 20% }`";
            let every = members.required("every", help, journeys.diagnostics());
            let words = [("caught up", MissedTicks::CaughtUp), ("skipped", MissedTicks::Skipped)];
            let missed = choice(node.get("missed"), "`missed`", &words, journeys.diagnostics());
            (every, "`every`", share(node.get("jitter"), "`jitter`", journeys), missed)
        }
    };
    time_above_zero(every, what, journeys.diagnostics()).map_or(JourneyPace::Again, |interval| JourneyPace::Every {
        interval,
        jitter: jitter.unwrap_or_default(),
        missed: missed.unwrap_or(MissedTicks::CaughtUp),
    })
}

/// Parses an activity alongside the journeys: periodic, or a reaction to a message.
fn parse_meanwhile(
    node: &SyntaxNode,
    periodic: &mut Vec<PeriodicActivity>,
    reactions: &mut Vec<PlanReaction>,
    journeys: &mut JourneyParser<'_>,
) {
    let steps = node.get("do");
    if steps.is_none() && ["marks", "delivers"].iter().all(|key| node.get(key).is_none()) {
        journeys.error(node.span, "this activity has no steps", "write the steps under `do`");
    }
    let known: &[&str] = match node.get("whenever") {
        Some(_) => &["whenever", "every", "where", "as", "do", "marks", "item", "by", "delivers", "sent at"],
        None => &["every", "jitter", "do"],
    };
    let entry = table(node, known, "an entry of `meanwhile`", journeys.diagnostics());
    let help = "write `every: 30s`, or `whenever: MESSAGE`";
    match entry.one_of(&["every", "whenever"], help, journeys.diagnostics()) {
        Some(("every", every)) => {
            let interval = time_above_zero(Some(every), "`every`", journeys.diagnostics());
            let jitter = share(node.get("jitter"), "`jitter`", journeys).unwrap_or_default();
            let steps = steps.map_or_else(Vec::new, |steps| lines::parse_lines(steps, journeys));
            periodic.extend(interval.map(|every| PeriodicActivity { span: node.span, every, jitter, steps }));
        }
        Some((_, whenever)) => {
            let Some(message) = journeys.parse_message_name(whenever, FrameDirection::FromHub) else { return };
            let as_ = node.get("as").and_then(|node| {
                let name = journeys.parse_free_name(node)?;
                journeys.bind_name(&name, Some(node.span));
                Some(name)
            });
            let pattern = node.get("where").map(|node| journeys.parse_pattern(node, &message));
            let steps = steps.map_or_else(Vec::new, |steps| lines::parse_lines(steps, journeys));
            for line in &steps {
                if let Some(span) = waiting_span(line) {
                    journeys.error(
                        span,
                        "a reaction cannot wait",
                        "write only `sends` here, and move steps that wait to a journey",
                    );
                }
            }
            let options = Box::new(lines::parse_step_options(node, lines::StepKind::Whenever, journeys));
            reactions.push(PlanReaction { span: node.span, message, pattern, as_, options, steps });
        }
        None => {}
    }
}

/// Parses a whole number of at least 1.
fn count(node: Option<&SyntaxNode>, what: &str, most: u32, errors: &mut Vec<Diagnostic>) -> Option<u32> {
    integer(node, what, 1..=u64::from(most), errors).and_then(|number| u32::try_from(number).ok())
}

/// Returns the span of the step in a line that connects, if there is one.
fn connecting_span(line: &PlanLine) -> Option<Span> {
    match line {
        PlanLine::Step { step, .. } => {
            matches!(step.act, StepAction::Connect(_) | StepAction::Join { .. }).then_some(step.span)
        }
        PlanLine::Think { .. } => None,
        PlanLine::Repeat { steps, .. } => steps.iter().find_map(connecting_span),
        PlanLine::Sometimes { steps, otherwise, .. } => steps.iter().chain(otherwise).find_map(connecting_span),
    }
}

/// Returns the place where a line takes time, if it does.
fn waiting_span(line: &PlanLine) -> Option<Span> {
    match line {
        PlanLine::Step { step, .. } => (!matches!(step.act, StepAction::Send(_))).then_some(step.span),
        PlanLine::Think { span, .. } => Some(*span),
        PlanLine::Repeat { steps, .. } => steps.iter().find_map(waiting_span),
        PlanLine::Sometimes { steps, otherwise, .. } => steps.iter().chain(otherwise).find_map(waiting_span),
    }
}
