//! The page for reports of `fuzz`: the findings by cause, as for `check`, and a table of what was tried.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::value::Value;
use serde::Serialize;

use super::check::{self, RunPage};
use super::page::{Anchors, PageError, Templates, format_ms, view};
use crate::outcome::ms;
use crate::report::FuzzReport;
use crate::report::document::check::{Protocol, RunDocument};

/// When a mutated message is sent, by the name of the moment.
const MOMENTS: &[(&str, &str)] = &[
    ("first", "as the first message after connecting"),
    ("joined", "after the sender's opening"),
    ("within", "in a conversation of the scenarios, in place of the valid message"),
    ("outside", "in a conversation of the scenarios, by a client that takes no part in it"),
    ("walk", "in a random walk of several clients"),
    ("repeated", "after the opening, many texts that are not messages, one after the other"),
    ("kept", "after the opening, many mutated messages on one connection"),
    ("anew", "after the opening, many mutated messages, each on a new connection"),
];

/// Renders the page of fuzz reports, each with its name.
pub fn render(reports: Vec<(String, RunDocument)>) -> Result<String, PageError> {
    let templates = Templates::new()?;
    let page: RunPage = check::build("fuzz", &reports, &templates, &mut |templates, protocol, anchors| {
        protocol.fuzzed.as_ref().map(|fuzzed| figures(templates, protocol, fuzzed, anchors)).transpose()
    })?;
    let body = templates.part("check", &page)?;
    templates.page(&page.title, &body, None)
}

/// A row of the table: a message, with a cell for each mutation.
#[derive(Serialize)]
struct MessageRow<'a> {
    message: &'a str,
    anchor: String,
    cells: Vec<MutationCell<'a>>,
    /// For each mutation that applies, the number of cases at each moment; `None` if there is no such cell.
    moments: Vec<(&'a str, Vec<Option<u64>>)>,
    /// The moments of this message.
    placements: Vec<&'a str>,
    tried: usize,
    total: usize,
}

#[derive(Serialize)]
struct MutationCell<'a> {
    mutation: &'a str,
    /// `all`, `some`, `todo` or `na`.
    kind: &'static str,
    sign: &'static str,
    text: String,
}

fn figures(
    templates: &Templates,
    protocol: &Protocol,
    fuzzed: &FuzzReport,
    anchors: &mut Anchors,
) -> Result<Value, PageError> {
    let mutations = mutations(fuzzed);
    let rows = message_rows(&protocol.name, fuzzed, &mutations, anchors);
    let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for omitted in &fuzzed.omitted {
        reasons.entry((&omitted.mutation, &omitted.why)).or_default().push(&omitted.message);
    }
    let mut unused: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for step in &fuzzed.unused_steps {
        unused.entry(&step.why).or_default().push(format!("{}: step {} ({})", step.scenario, step.step, step.message));
    }
    let known = |name: &str| fuzzed.cells.iter().any(|cell| cell.placement == name);
    let moments: Vec<_> = MOMENTS.iter().filter(|(name, _)| known(name)).collect();
    let oracles: Vec<_> = fuzzed
        .oracles
        .iter()
        .map(|(id, tally)| {
            view! {
                id, held => tally.held, broken => tally.broken,
                anchor => protocol.rules.by_id.get(id).map(|_| anchors.id(&format!("rule.{}.{id}", protocol.name))),
                text => protocol.rules.by_id.get(id).map_or("", |rule| rule.text.as_str()),
            }
        })
        .collect();
    let obstacles: Vec<_> = fuzzed
        .obstacles
        .iter()
        .map(|one| view! { step => one.step, message => one.message, cases => one.cases })
        .collect();
    let tried: usize = rows.iter().map(|row| row.tried).sum();
    let total: usize = rows.iter().map(|row| row.total).sum();
    templates.part(
        "fuzz",
        view! {
            anchor => anchors.id(&protocol.name),
            seed => fuzzed.seed, cases => fuzzed.cases, decided => fuzzed.decided,
            after_opening => format!("{:.1}", fuzzed.after_opening_percent),
            judged => format!("{:.1}", fuzzed.judged_percent),
            silent => fuzzed.is_silent() && fuzzed.decided > 0,
            ended => fuzzed.ended, stuck => fuzzed.stuck, unconfirmed => fuzzed.unconfirmed, cut => fuzzed.cut,
            slower => fuzzed.slower.as_ref().map(|one| (format_ms(ms(one.before)), format_ms(ms(one.after)))),
            pauses => fuzzed.pauses.map(|one| (one.count, format_ms(ms(one.longest)))),
            stalls => fuzzed.stalls.map(|one| (one.count, format_ms(ms(one.longest)))),
            oracles, rows, tried, total, mutations => mutations.iter().collect::<Vec<_>>(), moments,
            reasons => reasons.iter().map(|((mutation, why), messages)| view! {
                mutation, why, messages => messages.join(", ")
            }).collect::<Vec<_>>(),
            unused => unused.iter().map(|(why, steps)| view! { why, steps }).collect::<Vec<_>>(),
            obstacles,
        },
    )
}

fn mutations(fuzzed: &FuzzReport) -> BTreeSet<&str> {
    let omitted = fuzzed.omitted.iter().map(|omitted| &*omitted.mutation);
    fuzzed.cells.iter().map(|cell| &*cell.mutation).chain(omitted).collect()
}

/// Returns the rows of the table of what was tried.
fn message_rows<'a>(
    protocol: &str,
    fuzzed: &'a FuzzReport,
    mutations: &BTreeSet<&'a str>,
    anchors: &mut Anchors,
) -> Vec<MessageRow<'a>> {
    let mut by_message: BTreeMap<&str, BTreeMap<&str, BTreeMap<&str, u64>>> = BTreeMap::new();
    for cell in &fuzzed.cells {
        let of_mutation = by_message.entry(&cell.message).or_default().entry(&cell.mutation).or_default();
        *of_mutation.entry(&cell.placement).or_default() += cell.cases;
    }
    let omitted: BTreeMap<(&str, &str), &str> =
        fuzzed.omitted.iter().map(|omitted| ((omitted.message.as_str(), &*omitted.mutation), &*omitted.why)).collect();
    let order = |name: &str| MOMENTS.iter().position(|(known, _)| *known == name).unwrap_or(MOMENTS.len());
    by_message
        .into_iter()
        .map(|(message, of_mutation)| {
            let placements: BTreeSet<&str> = of_mutation.values().flat_map(|moments| moments.keys().copied()).collect();
            let mut placements: Vec<&str> = placements.into_iter().collect();
            placements.sort_by_key(|name| order(name));
            let all = of_mutation.values().flat_map(BTreeMap::values);
            MessageRow {
                anchor: anchors.id(&format!("tried.{protocol}.{message}")),
                cells: mutations
                    .iter()
                    .map(|mutation| cell(message, mutation, of_mutation.get(mutation), &omitted))
                    .collect(),
                moments: of_mutation
                    .iter()
                    .map(|(mutation, moments)| {
                        (*mutation, placements.iter().map(|placement| moments.get(placement).copied()).collect())
                    })
                    .collect(),
                placements,
                tried: all.clone().filter(|cases| **cases > 0).count(),
                total: all.count(),
                message,
            }
        })
        .collect()
}

/// Returns what was tried of one mutation of a message.
fn cell<'a>(
    message: &str,
    mutation: &'a str,
    moments: Option<&BTreeMap<&str, u64>>,
    omitted: &BTreeMap<(&str, &str), &str>,
) -> MutationCell<'a> {
    let Some(moments) = moments else {
        let why = omitted.get(&(message, mutation)).copied().unwrap_or("no such case");
        return MutationCell { mutation, kind: "na", sign: "·", text: format!("does not apply: {why}") };
    };
    let tried = moments.values().filter(|cases| **cases > 0).count();
    let cases: u64 = moments.values().sum();
    let (kind, sign) = match tried {
        0 => ("todo", "○"),
        tried if tried == moments.len() => ("all", "●"),
        _ => ("some", "◐"),
    };
    MutationCell { mutation, kind, sign, text: format!("{tried} of {} moments, {cases} cases", moments.len()) }
}
