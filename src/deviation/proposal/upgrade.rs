//! Proposes what a refused upgrade may need, and which entries to try: credentials and the client's role in a header, in the
//! query or in the path.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{DeviationProposal, REASON_PLACEHOLDER, VALUE_PLACEHOLDER};
use crate::scenario::compose::merge_overrides;
use crate::scenario::model::StepAction;
use crate::scenario::template::Template;
use crate::scenario::{Program, SharedDefinitions};

/// The most credentials of a pack that are tried, each in several places.
const MAX_CREDENTIALS: usize = 2;

/// Returns the entry that a refused upgrade may need; only the user knows its values.
pub(super) fn propose_upgrade(status: u64, answer: &str) -> Option<DeviationProposal> {
    if !matches!(status, 400 | 401 | 403 | 426) {
        return None;
    }
    let header = named_header(answer).unwrap_or("Authorization");
    let mut headers = Map::new();
    headers.insert(header.to_owned(), Value::from(VALUE_PLACEHOLDER));
    let entry = json!({ "upgrade": { "headers": headers }, "reason": REASON_PLACEHOLDER });
    Some(DeviationProposal { entry, complete: false, messages: BTreeSet::new() })
}

/// Returns the header that the answer to an upgrade names.
fn named_header(answer: &str) -> Option<&str> {
    let words = answer.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.len() > 2).find(|word| {
        let word = word.to_ascii_lowercase();
        word.starts_with("x-") || word == "authorization" || word.ends_with("-token") || word.ends_with("-key")
    })
}

/// Returns entries to try on a hub that refuses upgrades: the credentials that clients send elsewhere, and their role,
/// each in the usual places; then both together. No value is sent that the clients of the pack do not send anyway.
/// `answers` are the answers of the hub that refused.
pub fn upgrade_candidates<'a>(
    shared: &SharedDefinitions,
    programs: &[Arc<Program>],
    answers: impl Iterator<Item = &'a str>,
) -> [Vec<DeviationProposal>; 2] {
    let (mut credentials, mut query_names, mut has_path) = (BTreeSet::new(), BTreeSet::new(), false);
    let mut visit = |template: &Template| {
        template.visit_expressions(&mut |expression| {
            let source = expression.source.trim();
            if is_credential(shared, source) {
                credentials.insert(source.to_owned());
            }
        });
    };
    for step in programs.iter().flat_map(|program| &program.blocks).flatten() {
        match &step.act {
            StepAction::Connect(connect) => {
                connect.query.iter().chain(&connect.headers).for_each(&mut visit);
                if let Some(Template::Map(members)) = &connect.query {
                    query_names.extend(members.iter().map(|(name, _)| name.clone()));
                }
                has_path |= connect.path.is_some();
            }
            StepAction::Send(message) => message.with.iter().for_each(&mut visit),
            _ => {}
        }
    }
    let named = answers.filter_map(named_header);
    let headers: BTreeSet<&str> = named.chain(["Authorization", "X-Api-Key"]).collect();
    let (mut changes, mut of_role) = (Vec::new(), Vec::new());
    for value in credentials.into_iter().take(MAX_CREDENTIALS) {
        let value = format!("${{{value}}}");
        let header = |name: &str, value: &str| json!({ "headers": { name: value } });
        changes.push(header("Authorization", &format!("Bearer {value}")));
        changes.extend(headers.iter().map(|name| header(name, &value)));
        let names = ["token", "access_token", "api_key"].into_iter().filter(|name| !query_names.contains(*name));
        changes.extend(names.map(|name| json!({ "query": { name: value } })));
        changes.push(json!({ "subprotocols": ["bearer", value] }));
        changes.push(json!({ "subprotocols": [value] }));
    }
    if shared.roles.len() > 1 {
        let paths = ["/${self.role}", "/ws/${self.role}"].into_iter().filter(|_| !has_path);
        of_role.extend(paths.map(|path| json!({ "path": path })));
        of_role.push(json!({ "query": { "role": "${self.role}" } }));
        of_role.push(json!({ "headers": { "X-Role": "${self.role}" } }));
    }
    let both = changes.iter().flat_map(|change| {
        of_role.iter().map(|role| {
            let mut both = change.clone();
            merge_overrides(&mut both, role);
            both
        })
    });
    let both: Vec<Value> = both.collect();
    changes.extend(of_role);
    let proposal = |change: Value| DeviationProposal {
        entry: json!({ "upgrade": change, "reason": REASON_PLACEHOLDER }),
        complete: true,
        messages: BTreeSet::new(),
    };
    [changes, both].map(|changes| changes.into_iter().map(proposal).collect())
}

/// Whether an expression is a credential of a client: a secret setting, or a value of the client that is named like one.
fn is_credential(shared: &SharedDefinitions, source: &str) -> bool {
    match source.split_once('.') {
        Some(("hub", name)) => shared.settings.get(name).is_some_and(|setting| setting.secret),
        Some(("self", name)) => {
            let words = ["token", "secret", "password", "credential", "api_key", "jwt"];
            shared.roles.values().any(|own| own.contains(name)) && words.iter().any(|word| name.contains(word))
        }
        _ => false,
    }
}
