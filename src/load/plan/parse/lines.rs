//! Parses the steps of a journey: the steps of the scenario language that are possible for thousands of clients, their
//! measurement options, and the few steps that only plans have.

use std::time::Duration;

use super::arrivals::share;
use crate::load::plan::MarkName;
use crate::load::plan::script::{MeasurementOptions, PlanLine, ThinkTime};
use crate::protocol::FrameDirection;
use crate::scenario::model::{ExpectedEvent, MessageName, Step, StepAction, StepActors};
use crate::scenario::parse::journeys::JourneyParser;
use crate::scenario::template::Template;
use crate::syntax::diagnostic::suggest_or_list;
use crate::syntax::fields::{self, Table, choice, flag, float, integer, table, text, time};
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKind, SyntaxNode};

/// Maximum number of repetitions of a block, whose steps are expanded.
const MAX_TIMES: u64 = 1000;

pub fn parse_lines(node: &SyntaxNode, journeys: &mut JourneyParser<'_>) -> Vec<PlanLine> {
    let items = fields::list(Some(node), "`steps`", "- sends: MESSAGE", journeys.diagnostics());
    items.iter().filter_map(|item| parse_line(item, journeys)).collect()
}

/// Returns the default opening: `joins` for a role of shared.yaml, otherwise `connects`.
pub fn default_opening(known: bool, span: Span, journeys: &mut JourneyParser<'_>) -> Vec<PlanLine> {
    use crate::syntax::yaml::NodeKey;
    let verb = if known { "joins" } else { "connects" };
    let head = (NodeKey { name: verb.to_owned(), span }, SyntaxNode { span, kind: NodeKind::Null });
    parse_line(&SyntaxNode { span, kind: NodeKind::Map(vec![head]) }, journeys).into_iter().collect()
}

fn parse_line(node: &SyntaxNode, journeys: &mut JourneyParser<'_>) -> Option<PlanLine> {
    let head = node.map().and_then(|entries| entries.first()).map(|(key, value)| (key, key.name.as_str(), value));
    match head {
        Some((key, "thinks", value)) => {
            table(node, &["thinks"], "`thinks`", journeys.diagnostics());
            parse_think(value, journeys).map(|think| PlanLine::Think { think, span: key.span })
        }
        Some((key, "repeats", value)) => {
            let block = table(node, &["repeats", "do"], "`repeats`", journeys.diagnostics());
            let times = integer(Some(value), "`repeats`", 1..=MAX_TIMES, journeys.diagnostics()).unwrap_or(1) as u32;
            let steps = parse_block(&block, "do", journeys);
            Some(PlanLine::Repeat { times, steps, span: key.span })
        }
        Some((key, "sometimes", value)) => {
            let block = table(node, &["sometimes", "do", "otherwise"], "`sometimes`", journeys.diagnostics());
            let share = share(Some(value), "`sometimes`", journeys).unwrap_or_default();
            let steps = parse_block(&block, "do", journeys);
            let otherwise =
                if node.get("otherwise").is_some() { parse_block(&block, "otherwise", journeys) } else { Vec::new() };
            Some(PlanLine::Sometimes { share, steps, otherwise, span: key.span })
        }
        _ => {
            let step = journeys.parse_step(node)?;
            let options = parse_step_options(node, StepKind::of_step(&step), journeys);
            report_unsupported_step(&step, journeys);
            Some(PlanLine::Step { step: Box::new(step), options: Box::new(options) })
        }
    }
}

/// Parses the steps of a block; names bound in it are local.
fn parse_block(block: &Table<'_>, name: &str, journeys: &mut JourneyParser<'_>) -> Vec<PlanLine> {
    let steps = block.required(name, &format!("write the steps under `{name}`"), journeys.diagnostics());
    steps.map_or_else(Vec::new, |steps| journeys.parse_in_scope(|journeys| parse_lines(steps, journeys)))
}

fn parse_think(node: &SyntaxNode, journeys: &mut JourneyParser<'_>) -> Option<ThinkTime> {
    let Some(entries) = node.map() else {
        return time(Some(node), "`thinks`", journeys.diagnostics()).map(ThinkTime::Constant);
    };
    const KINDS: [&str; 4] = ["constant", "uniform", "exponential", "log_normal"];
    let [(key, value)] = entries else {
        journeys.error(node.span, "`thinks` takes one distribution", "write `thinks: { uniform: [100ms, 300ms] }`");
        return None;
    };
    match key.name.as_str() {
        "constant" => time(Some(value), "`constant`", journeys.diagnostics()).map(ThinkTime::Constant),
        "exponential" => time(Some(value), "`exponential`", journeys.diagnostics()).map(ThinkTime::Exponential),
        "uniform" => {
            let [least, most] = value.list().unwrap_or_default() else {
                journeys.error(value.span, "`uniform` takes two times", "write `uniform: [100ms, 300ms]`");
                return None;
            };
            let least = time(Some(least), "a bound", journeys.diagnostics())?;
            let most = time(Some(most), "a bound", journeys.diagnostics())?;
            if most < least {
                journeys.error(value.span, "the second bound is below the first", "write the lower one first");
            }
            Some(ThinkTime::Uniform(least, most.max(least)))
        }
        "log_normal" => {
            let errors = journeys.diagnostics();
            let members = table(value, &["median", "sigma"], "`log_normal`", errors);
            let help = "write `log_normal: { median: 200ms, sigma: 0.5 }`";
            let (median, sigma) = (members.required("median", help, errors), members.required("sigma", help, errors));
            let sigma = float(sigma, "`sigma`", 0.0..=5.0, errors);
            let median = time(median, "`median`", errors);
            Some(ThinkTime::LogNormal { median: median.unwrap_or(Duration::ZERO), sigma: sigma.unwrap_or_default() })
        }
        other => {
            journeys.error(
                key.span,
                format!("there is no distribution `{other}`"),
                suggest_or_list(other, KINDS, "the distributions are"),
            );
            None
        }
    }
}

/// The kind of step that options belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    Sends,
    Expects,
    /// A reaction, which has the options of `expects` except those about waiting.
    Whenever,
    Other,
}

impl StepKind {
    fn of_step(step: &Step) -> Self {
        match step.act {
            StepAction::Send(_) | StepAction::Hook(_) => Self::Sends,
            StepAction::Expect(_) => Self::Expects,
            _ => Self::Other,
        }
    }
}

pub fn parse_step_options(node: &SyntaxNode, kind: StepKind, journeys: &mut JourneyParser<'_>) -> MeasurementOptions {
    let marks = choice(node.get("marks"), "`marks`", &MarkName::ALL, journeys.diagnostics())
        .and_then(|mark| Some((mark, node.get("marks")?.span)));
    let mut template = |name: &str| node.get(name).map(|node| journeys.parse_template(node));
    let (item, to, by, sent_at) = (template("item"), template("to"), template("by"), template("sent at"));
    let (back_within, label) = (template("back within"), template("label"));
    let constant = |template: &Option<Template>| template.as_ref().and_then(Template::constant).cloned();
    if let (Some(number), Some(to)) = (constant(&to), node.get("to"))
        && number.as_u64().is_none()
    {
        journeys.error(to.span, "`to` must be a whole number", "write `to: 10`, or `to: \"${population.NAME}\"`");
    }
    if let (Some(_), Some(at)) = (constant(&sent_at), node.get("sent at")) {
        journeys.error(at.span, "`sent at` must be an expression", "write `sent at: \"${NAME.data.at}\"`");
    }
    let label = label.zip(node.get("label").map(|node| node.span));
    let answers = node.get("answers").and_then(|node| {
        let name = text(Some(node), "the name under `answers`", journeys.diagnostics())?;
        Some((name.to_owned(), node.span))
    });
    let delivers = node
        .get("delivers")
        .and_then(|node| journeys.parse_message_name(node, FrameDirection::ToHub).map(|message| (message, node.span)));
    let or = node.get("or").and_then(|other| {
        let message = journeys.parse_message_name(other, FrameDirection::FromHub)?;
        let pattern = node.get("or where").map(|node| journeys.parse_pattern(node, &message));
        Some((message, pattern))
    });
    let carries = node.get("carries").map_or_else(Vec::new, |node| {
        let items = node.list().unwrap_or(std::slice::from_ref(node));
        items.iter().filter_map(|item| journeys.parse_message_name(item, FrameDirection::FromHub)).collect()
    });
    let may_stay_unanswered = flag(node.get("may stay unanswered"), "`may stay unanswered`", journeys.diagnostics());
    report_misplaced_options(node, kind, journeys);
    report_lone_options(node, marks, journeys);
    MeasurementOptions {
        marks,
        item,
        to,
        by,
        back_within,
        answers,
        or,
        carries,
        delivers,
        sent_at,
        may_stay_unanswered,
        label,
    }
}

/// Reports options that this kind of step does not have.
fn report_misplaced_options(node: &SyntaxNode, kind: StepKind, journeys: &mut JourneyParser<'_>) {
    let (sends, comes) = (kind == StepKind::Sends, matches!(kind, StepKind::Expects | StepKind::Whenever));
    for (name, right) in [
        ("marks", sends || comes),
        ("label", sends && node.get("hook").is_none()),
        ("item", sends || comes),
        ("by", sends || comes),
        ("to", sends),
        ("back within", sends || comes),
        ("answers", kind == StepKind::Expects),
        ("carries", kind == StepKind::Expects),
        ("or", kind == StepKind::Expects),
        ("or where", kind == StepKind::Expects && node.get("or").is_some()),
        ("delivers", comes),
        ("sent at", comes),
        ("may stay unanswered", kind == StepKind::Expects),
    ] {
        if node.get(name).is_some() && !right {
            let span = node.key_at_pointer(&format!("/{name}"));
            let where_ = if matches!(name, "to" | "label") { "`sends`" } else { "`expects`" };
            journeys.error(span, format!("`{name}` is not an option of this step"), format!("it belongs to {where_}"));
        }
    }
}

/// Reports options that lack another one.
fn report_lone_options(node: &SyntaxNode, marks: Option<(MarkName, Span)>, journeys: &mut JourneyParser<'_>) {
    match (&marks, node.get("to")) {
        (Some((MarkName::Published, span)), None) => {
            journeys.error(
                *span,
                "a published message needs `to`, the number of receivers",
                "write `to: 10`, or `to: \"${population.NAME}\"`",
            );
        }
        (marks, Some(to)) if marks.is_none_or(|(mark, _)| mark != MarkName::Published) => {
            journeys.error(
                to.span,
                "`to` is the number of receivers of a published message",
                "write `marks: published`",
            );
        }
        _ => {}
    }
    if let Some(node) = node.get("back within")
        && marks.is_none_or(|(mark, _)| mark != MarkName::Released)
    {
        journeys.error(node.span, "`back within` applies to released items only", "write `marks: released`");
    }
    if node.get("delivers").is_some() != node.get("sent at").is_some() {
        let help = "write `delivers: MESSAGE` and `sent at: \"${NAME.data.at}\"`, where the sender put `due_ns()`";
        journeys.error(node.span, "`delivers` and `sent at` need each other", help);
    }
}

/// Reports steps that a load plan cannot have.
fn report_unsupported_step(step: &Step, journeys: &mut JourneyParser<'_>) {
    let verb = step.text.split(':').next().unwrap_or_default().to_owned();
    let refused = match &step.act {
        StepAction::Hook(hook) if hook.times.is_some() => {
            Some("leave out `times`: concurrent journeys call a hook at the same time")
        }
        StepAction::Join { .. }
        | StepAction::Connect(_)
        | StepAction::Play { .. }
        | StepAction::Hook(_)
        | StepAction::Close { .. } => None,
        StepAction::Wait { .. } => Some("write `thinks: 300ms`"),
        StepAction::Send(send) if matches!(send.message, MessageName::Computed(_)) => {
            Some("name the message, since messages are compiled before the run")
        }
        StepAction::Send(send) if send.fragments > 1 || send.breaks.is_some() => {
            Some("`hubproof fuzz` sends malformed messages")
        }
        StepAction::Send(_) => None,
        StepAction::Expect(expect) => match &expect.want {
            ExpectedEvent::Message { message: MessageName::Computed(_), .. } => {
                Some("name the message, since messages are compiled before the run")
            }
            ExpectedEvent::Message { .. }
                if expect.count.is_some() || expect.for_.is_some() || expect.after.is_some() =>
            {
                Some("leave out `count`, `for` and `after`: a step takes the first frame that matches")
            }
            ExpectedEvent::Message { .. } => None,
            _ => Some("a load plan can expect only messages"),
        },
        _ => Some("use joins, connects, sends, expects, plays, hook, closes, thinks, repeats or sometimes"),
    };
    if let Some(help) = refused {
        journeys.error(step.span, format!("a load plan cannot use this form of `{verb}`"), help);
    }
    if step.who == StepActors::NoActor && !matches!(step.act, StepAction::Hook(_)) {
        journeys.error(step.span, format!("a load plan cannot use `{verb}`"), "");
    }
    if step.if_.is_some() {
        journeys.error(step.span, "a journey has no `if`", "write `sometimes: 5%` for a random share of the journeys");
    }
}
