//! Parses the steps of a journey: the steps of the scenario language that are possible for thousands of clients, their
//! measurement options, and the few steps that only plans have.

use std::time::Duration;

use super::arrivals::share;
use crate::load::plan::MarkName;
use crate::load::plan::script::{Line, Options, Think};
use crate::protocol::Way;
use crate::scenario::model::{Act, MessageName, Step, Want, Who};
use crate::scenario::parse::journeys::Journeys;
use crate::syntax::diagnostic::suggest_one;
use crate::syntax::fields::{self, Table, choice, flag, float, integer, table, text, time};
use crate::syntax::source::Span;
use crate::syntax::yaml::{Kind, Node};

/// Maximum number of repetitions of a block, whose steps are expanded.
const MOST_TIMES: u64 = 1000;

pub fn read(node: &Node, journeys: &mut Journeys<'_>) -> Vec<Line> {
    let items = fields::list(Some(node), "`steps`", "- sends: MESSAGE", journeys.diagnostics());
    items.iter().filter_map(|item| line(item, journeys)).collect()
}

/// Returns the default opening: `joins` for a role of shared.yaml, otherwise `connects`.
pub fn default_opening(known: bool, span: Span, journeys: &mut Journeys<'_>) -> Vec<Line> {
    use crate::syntax::yaml::Key;
    let verb = if known { "joins" } else { "connects" };
    let head = (Key { name: verb.to_owned(), span }, Node { span, kind: Kind::Null });
    line(&Node { span, kind: Kind::Map(vec![head]) }, journeys).into_iter().collect()
}

fn line(node: &Node, journeys: &mut Journeys<'_>) -> Option<Line> {
    let head = node.map().and_then(|entries| entries.first()).map(|(key, value)| (key, key.name.as_str(), value));
    match head {
        Some((key, "thinks", value)) => {
            table(node, &["thinks"], "`thinks`", journeys.diagnostics());
            think(value, journeys).map(|think| Line::Think { think, span: key.span })
        }
        Some((key, "repeats", value)) => {
            let block = table(node, &["repeats", "do"], "`repeats`", journeys.diagnostics());
            let times = integer(Some(value), "`repeats`", 1..=MOST_TIMES, journeys.diagnostics()).unwrap_or(1) as u32;
            let steps = body(&block, "do", journeys);
            Some(Line::Repeat { times, steps, span: key.span })
        }
        Some((key, "sometimes", value)) => {
            let block = table(node, &["sometimes", "do", "otherwise"], "`sometimes`", journeys.diagnostics());
            let share = share(Some(value), "`sometimes`", journeys).unwrap_or_default();
            let steps = body(&block, "do", journeys);
            let otherwise =
                if node.get("otherwise").is_some() { body(&block, "otherwise", journeys) } else { Vec::new() };
            Some(Line::Sometimes { share, steps, otherwise, span: key.span })
        }
        _ => {
            let step = journeys.step(node)?;
            let options = options(node, Beside::of(&step), journeys);
            fits_load(&step, journeys);
            Some(Line::Step { step: Box::new(step), options: Box::new(options) })
        }
    }
}

/// Parses the steps of a block; names bound in it are local.
fn body(block: &Table<'_>, name: &str, journeys: &mut Journeys<'_>) -> Vec<Line> {
    let steps = block.required(name, &format!("write the steps under `{name}`"), journeys.diagnostics());
    steps.map_or_else(Vec::new, |steps| journeys.inside(|journeys| read(steps, journeys)))
}

fn think(node: &Node, journeys: &mut Journeys<'_>) -> Option<Think> {
    let Some(entries) = node.map() else {
        return time(Some(node), "`thinks`", journeys.diagnostics()).map(Think::Constant);
    };
    const KINDS: [&str; 4] = ["constant", "uniform", "exponential", "log_normal"];
    let [(key, value)] = entries else {
        journeys.error(node.span, "`thinks` takes one distribution", "write `thinks: { uniform: [100ms, 300ms] }`");
        return None;
    };
    match key.name.as_str() {
        "constant" => time(Some(value), "`constant`", journeys.diagnostics()).map(Think::Constant),
        "exponential" => time(Some(value), "`exponential`", journeys.diagnostics()).map(Think::Exponential),
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
            Some(Think::Uniform(least, most.max(least)))
        }
        "log_normal" => {
            let errors = journeys.diagnostics();
            let members = table(value, &["median", "sigma"], "`log_normal`", errors);
            let help = "write `log_normal: { median: 200ms, sigma: 0.5 }`";
            let (median, sigma) = (members.required("median", help, errors), members.required("sigma", help, errors));
            let sigma = float(sigma, "`sigma`", 0.0..=5.0, errors);
            let median = time(median, "`median`", errors);
            Some(Think::LogNormal { median: median.unwrap_or(Duration::ZERO), sigma: sigma.unwrap_or_default() })
        }
        other => {
            journeys.error(
                key.span,
                format!("there is no distribution `{other}`"),
                suggest_one(other, KINDS, "the distributions are"),
            );
            None
        }
    }
}

/// The kind of step that options belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    Sends,
    Expects,
    /// A reaction, which has the options of `expects` except those about waiting.
    Whenever,
    Other,
}

impl Beside {
    fn of(step: &Step) -> Self {
        match step.act {
            Act::Send(_) | Act::Hook(_) => Self::Sends,
            Act::Expect(_) => Self::Expects,
            _ => Self::Other,
        }
    }
}

pub fn options(node: &Node, beside: Beside, journeys: &mut Journeys<'_>) -> Options {
    let marks = choice(node.get("marks"), "`marks`", &MarkName::ALL, journeys.diagnostics())
        .and_then(|mark| Some((mark, node.get("marks")?.span)));
    let mut template = |name: &str| node.get(name).map(|node| journeys.template(node));
    let (item, to, by, sent_at) = (template("item"), template("to"), template("by"), template("sent at"));
    let back_within = template("back within");
    let answers = node.get("answers").and_then(|node| {
        let name = text(Some(node), "the name under `answers`", journeys.diagnostics())?;
        Some((name.to_owned(), node.span))
    });
    let delivers =
        node.get("delivers").and_then(|node| journeys.message(node, Way::ToHub).map(|message| (message, node.span)));
    let or = node.get("or").and_then(|other| {
        let message = journeys.message(other, Way::FromHub)?;
        let pattern = node.get("or where").map(|node| journeys.pattern(node, &message));
        Some((message, pattern))
    });
    let may_stay_unanswered = flag(node.get("may stay unanswered"), "`may stay unanswered`", journeys.diagnostics());
    let (sends, comes) = (beside == Beside::Sends, matches!(beside, Beside::Expects | Beside::Whenever));
    for (name, right) in [
        ("marks", sends || comes),
        ("item", sends || comes),
        ("by", sends || comes),
        ("to", sends),
        ("back within", sends || comes),
        ("answers", beside == Beside::Expects),
        ("or", beside == Beside::Expects),
        ("or where", beside == Beside::Expects && node.get("or").is_some()),
        ("delivers", comes),
        ("sent at", comes),
        ("may stay unanswered", beside == Beside::Expects),
    ] {
        if node.get(name).is_some() && !right {
            let span = node.key_at_pointer(&format!("/{name}"));
            let where_ = if name == "to" { "`sends`" } else { "`expects`" };
            journeys.error(span, format!("`{name}` is not an option of this step"), format!("it belongs to {where_}"));
        }
    }
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
    if delivers.is_some() != sent_at.is_some() {
        let help = "write `delivers: MESSAGE` and `sent at: \"${NAME.data.at}\"`, where the sender put `due_ns()`";
        journeys.error(node.span, "`delivers` and `sent at` need each other", help);
    }
    Options { marks, item, to, by, back_within, answers, or, delivers, sent_at, may_stay_unanswered }
}

/// Reports steps that a load plan cannot have.
fn fits_load(step: &Step, journeys: &mut Journeys<'_>) {
    let verb = step.text.split(':').next().unwrap_or_default().to_owned();
    let refused = match &step.act {
        Act::Join { .. } | Act::Connect(_) | Act::Play { .. } | Act::Hook(_) | Act::Close { .. } => None,
        Act::Wait { .. } => Some("write `thinks: 300ms`"),
        Act::Send(send) if matches!(send.message, MessageName::Computed(_)) => {
            Some("name the message, since messages are compiled before the run")
        }
        Act::Send(send) if send.fragments > 1 || send.breaks.is_some() => {
            Some("`hubproof fuzz` sends malformed messages")
        }
        Act::Send(_) => None,
        Act::Expect(expect) => match &expect.want {
            Want::Message { message: MessageName::Computed(_), .. } => {
                Some("name the message, since messages are compiled before the run")
            }
            Want::Message { .. } if expect.count.is_some() || expect.for_.is_some() || expect.after.is_some() => {
                Some("leave out `count`, `for` and `after`: a step takes the first frame that matches")
            }
            Want::Message { .. } => None,
            _ => Some("a load plan can expect only messages"),
        },
        _ => Some("use joins, connects, sends, expects, plays, hook, closes, thinks, repeats or sometimes"),
    };
    if let Some(help) = refused {
        journeys.error(step.span, format!("a load plan cannot use this form of `{verb}`"), help);
    }
    if step.who == Who::NoActor && !matches!(step.act, Act::Hook(_)) {
        journeys.error(step.span, format!("a load plan cannot use `{verb}`"), "");
    }
    if step.if_.is_some() {
        journeys.error(step.span, "a journey has no `if`", "write `sometimes: 5%` for a random share of the journeys");
    }
}
