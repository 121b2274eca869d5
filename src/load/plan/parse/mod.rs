//! Parses a plan file, and reports all its errors before any socket opens.
//!
//! [`roles`] parses populations and their activities, [`arrivals`] rates and their changes, [`lines`] steps, and
//! [`feeders`] rows of data from other files.

mod arrivals;
mod feeders;
mod lines;
mod roles;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::script::PlanScript;
use super::{PhaseDurations, Plan, ThresholdText, WarmUp};
use crate::protocol::Pack;
use crate::scenario::parse::SharedFile;
use crate::scenario::parse::journeys::JourneyParser;
use crate::syntax::diagnostic::{Diagnostic, has_errors};
use crate::syntax::fields::{entries, flag, integer, line_text, list, mapping, named, table, text, time};
use crate::syntax::grammar::FileFormat;
use crate::syntax::share::MAX_SHARES;
use crate::syntax::yaml::{NodeKind, SyntaxNode};

/// A function that reads a file named in a plan, by its path in the plan.
pub type PlanFileReader<'a> = &'a dyn Fn(&str) -> io::Result<String>;

/// Parses a plan; `None` if it has errors.
pub fn parse_load_plan(
    id: &str,
    root: &SyntaxNode,
    shared: &SharedFile,
    pack: &Arc<Pack>,
    files: PlanFileReader<'_>,
) -> (Option<(Plan, PlanScript)>, Vec<Diagnostic>) {
    let mut journeys = JourneyParser::new(shared, pack);
    let plan = parse_plan_root(id, root, &mut journeys, files);
    let mut parts = journeys.finish();
    let diagnostics = std::mem::take(&mut parts.diagnostics);
    if has_errors(&diagnostics) {
        return (None, diagnostics);
    }
    let read = plan.map(|(plan, draft)| {
        let script = PlanScript {
            pack: Arc::clone(pack),
            shared: Arc::clone(&shared.shared),
            lets: draft.lets,
            feeders: draft.feeders,
            patience: draft.patience,
            parts: draft.parts,
            shared_parts: parts,
        };
        (plan, script)
    });
    (read, diagnostics)
}

struct ScriptDraft {
    lets: Vec<(String, crate::scenario::template::Template)>,
    feeders: Vec<super::script::Feeder>,
    patience: Duration,
    parts: Vec<super::script::RoleScript>,
}

fn parse_plan_root(
    id: &str,
    root: &SyntaxNode,
    journeys: &mut JourneyParser<'_>,
    files: PlanFileReader<'_>,
) -> Option<(Plan, ScriptDraft)> {
    let errors = journeys.diagnostics();
    let members = table(root, &FileFormat::Plan.keys(""), "a load plan", errors);
    let help = "write one sentence that says what the plan loads, and how";
    let title = members.required("title", help, errors);
    let title = line_text(title, "`title`", errors).unwrap_or_default();
    let phases = parse_phases(root.get("phases"), errors);
    let patience = time(root.get("patience"), "`patience`", errors).unwrap_or(Duration::from_secs(10));
    journeys.bind_name("population", None);
    let feeders: Vec<_> =
        named(root.get("feeders"), "`feeders`", "a feeder", "feeders: { NAME: data.csv }", journeys.diagnostics())
            .iter()
            .filter_map(|(key, node)| feeders::parse_feeder(key, node, journeys, files))
            .collect();
    let entries = mapping(root.get("let"), "`let`", "let: { NAME: VALUE }", journeys.diagnostics());
    let lets = journeys.parse_values(entries);
    let example = "roles: { client: { population: 10 } }";
    let names: Vec<String> = named(root.get("roles"), "`roles`", "a role", example, journeys.diagnostics())
        .iter()
        .map(|(key, _)| key.name.clone())
        .collect();
    if names.is_empty() && root.map().is_some() {
        journeys.error(root.span, "a load plan has no `roles`", format!("write `{example}`"));
    }
    let (mut roles, mut parts) = (Vec::new(), Vec::new());
    for (key, node) in self::entries(root.get("roles")) {
        let (role, part) = roles::parse_role(key, node, &names, journeys);
        roles.push(role);
        parts.push(part);
    }
    let thresholds =
        list(root.get("thresholds"), "`thresholds`", "thresholds: [\"ledger.lost == 0\"]", journeys.diagnostics())
            .iter()
            .filter_map(|node| parse_threshold_entry(node, journeys))
            .collect();
    let ordered = flag(root.get("ordered"), "`ordered`", journeys.diagnostics());
    let lost = 0..=u64::from(MAX_SHARES);
    let lost = integer(root.get("lost_shares"), "`lost_shares`", lost, journeys.diagnostics());
    let lost_shares = lost.unwrap_or_default() as u32;
    let plan = Plan { id: id.to_owned(), title, phases, roles, ordered, lost_shares, thresholds };
    if let Some(node) = root.get("phases").and_then(|node| node.get("warm_up"))
        && plan.phases.warm_up == WarmUp::Auto
        && plan.changes_load()
    {
        journeys.error(
            node.span,
            "`warm_up: auto` waits for a steady load, but the plan's arrivals change theirs",
            "write how long to warm up: `warm_up: 5s`",
        );
    }
    Some((plan, ScriptDraft { lets, feeders, patience, parts }))
}

fn parse_phases(node: Option<&SyntaxNode>, errors: &mut Vec<Diagnostic>) -> PhaseDurations {
    if let Some(node) = node {
        table(node, &["warm_up", "duration", "drain"], "`phases`", errors);
    }
    let mut time = |name: &str, default: u64| {
        let node = node.and_then(|node| node.get(name));
        time(node, &format!("`{name}`"), errors).unwrap_or(Duration::from_secs(default))
    };
    let (duration, drain) = (time("duration", 10), time("drain", 10));
    let warm_up = match node.and_then(|node| node.get("warm_up")).and_then(SyntaxNode::text) {
        Some("auto") => WarmUp::Auto,
        _ => WarmUp::Fixed(time("warm_up", 2)),
    };
    PhaseDurations { warm_up, duration, drain }
}

/// Parses a threshold: a text, or a mapping with `check` and `abort_after`.
fn parse_threshold_entry(node: &SyntaxNode, journeys: &mut JourneyParser<'_>) -> Option<ThresholdText> {
    let errors = journeys.diagnostics();
    let (text, abort_after) = match &node.kind {
        NodeKind::Map(_) => {
            let members = table(node, &["check", "abort_after"], "a threshold", errors);
            let abort = time(node.get("abort_after"), "`abort_after`", errors);
            let help = "write `{ check: \"ledger.lost == 0\", abort_after: 5s }`";
            (members.required("check", help, errors)?, abort)
        }
        _ => (node, None),
    };
    let span = text.text_span();
    let text = self::text(Some(text), "a threshold", errors)?;
    Some(ThresholdText { text: text.to_owned(), span, abort_after })
}
