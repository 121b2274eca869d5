//! Parses a plan file, with all its errors reported before a socket opens.
//!
//! [`roles`] parses populations and their activities, [`numbers`] numbers, times and rates, [`lines`] steps, and
//! [`feeders`] rows of data from other files.

mod feeders;
mod lines;
mod numbers;
mod roles;

use std::sync::Arc;
use std::time::Duration;

use super::script::Script;
use super::{Phases, Plan, Threshold};
use crate::protocol::Pack;
use crate::scenario::parse::SharedFile;
use crate::scenario::parse::journeys::Journeys;
use crate::scenario::parse::shape::{entries, flag, keys, list, mapping, text};
use crate::syntax::diagnostic::{Diagnostic, has_errors};
use crate::syntax::yaml::{Kind, Node};

/// Reads a file that a plan names, by its path in the plan; an error says why that failed.
pub type Files<'a> = &'a dyn Fn(&str) -> Result<String, String>;

const KEYS: [&str; 9] =
    ["title", "description", "let", "phases", "patience", "feeders", "roles", "ordered", "thresholds"];

/// Parses a plan; `None` if it has errors.
pub fn read(
    id: &str,
    root: &Node,
    shared: &SharedFile,
    pack: &Arc<Pack>,
    files: Files<'_>,
) -> (Option<(Plan, Script)>, Vec<Diagnostic>) {
    let mut journeys = Journeys::new(shared, pack);
    let plan = plan(id, root, &mut journeys, files);
    let mut parts = journeys.finish();
    let diagnostics = std::mem::take(&mut parts.diagnostics);
    if has_errors(&diagnostics) {
        return (None, diagnostics);
    }
    let read = plan.map(|(plan, draft)| {
        let script = Script {
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

struct Draft {
    lets: Vec<(String, crate::scenario::template::Template)>,
    feeders: Vec<super::script::Feeder>,
    patience: Duration,
    parts: Vec<super::script::Part>,
}

fn plan(id: &str, root: &Node, journeys: &mut Journeys<'_>, files: Files<'_>) -> Option<(Plan, Draft)> {
    if root.map().is_none() {
        journeys.error(
            root.span,
            "a load plan is a mapping with `title` and `roles`",
            "scenarios/LOAD.md shows a small one",
        );
        return None;
    }
    keys(root, &KEYS, "a load plan", journeys.diagnostics());
    let title = text(root.get("title"), "`title`", journeys.diagnostics()).unwrap_or_default().to_owned();
    if root.get("title").is_none() {
        journeys.error(root.span, "the plan has no `title`", "one sentence: what is loaded, and how");
    }
    let phases = phases(root.get("phases"), journeys);
    let patience = numbers::time(root.get("patience"), "`patience`", journeys).unwrap_or(Duration::from_secs(10));
    journeys.bind_name("population", None);
    let feeders: Vec<_> = mapping(root.get("feeders"), "`feeders`", journeys.diagnostics())
        .iter()
        .filter_map(|(key, node)| feeders::read(key, node, journeys, files))
        .collect();
    let entries = mapping(root.get("let"), "`let`", journeys.diagnostics());
    let lets = journeys.values(entries);
    let names: Vec<String> =
        mapping(root.get("roles"), "`roles`", journeys.diagnostics()).iter().map(|(key, _)| key.name.clone()).collect();
    if names.is_empty() {
        journeys.error(root.span, "the plan has no `roles`", "write `roles: { client: { population: 10 } }`");
    }
    let (mut roles, mut parts) = (Vec::new(), Vec::new());
    for (key, node) in self::entries(root.get("roles")) {
        let (role, part) = roles::read(key, node, &names, journeys);
        roles.push(role);
        parts.push(part);
    }
    let thresholds =
        list(root.get("thresholds"), "`thresholds`", "thresholds: [\"ledger.lost == 0\"]", journeys.diagnostics())
            .iter()
            .filter_map(|node| threshold(node, journeys))
            .collect();
    let ordered = flag(root.get("ordered"), "`ordered`", journeys.diagnostics());
    let plan = Plan { id: id.to_owned(), title, phases, roles, ordered, thresholds };
    Some((plan, Draft { lets, feeders, patience, parts }))
}

fn phases(node: Option<&Node>, journeys: &mut Journeys<'_>) -> Phases {
    mapping(node, "`phases`", journeys.diagnostics());
    if let Some(node) = node {
        keys(node, &["warm_up", "duration", "drain"], "`phases`", journeys.diagnostics());
    }
    let mut time = |name: &str, default: u64| {
        let node = node.and_then(|node| node.get(name));
        numbers::time(node, &format!("`{name}`"), journeys).unwrap_or(Duration::from_secs(default))
    };
    Phases { warm_up: time("warm_up", 2), duration: time("duration", 10), drain: time("drain", 10) }
}

/// Parses a threshold: a text, or a mapping with `check` and `abort_after`.
fn threshold(node: &Node, journeys: &mut Journeys<'_>) -> Option<Threshold> {
    let (text, abort_after) = match &node.kind {
        Kind::Map(_) => {
            keys(node, &["check", "abort_after"], "a threshold", journeys.diagnostics());
            let abort = numbers::time(node.get("abort_after"), "`abort_after`", journeys);
            match node.get("check") {
                Some(check) => (check, abort),
                None => {
                    let help = "write `{ check: \"ledger.lost == 0\", abort_after: 5s }`";
                    journeys.error(node.span, "a threshold needs a `check`", help);
                    return None;
                }
            }
        }
        _ => (node, None),
    };
    let span = match &text.kind {
        Kind::Text(inner) => inner.inner.unwrap_or(text.span),
        _ => text.span,
    };
    let text = self::text(Some(text), "a threshold", journeys.diagnostics())?;
    Some(Threshold { text: text.to_owned(), span, abort_after })
}
