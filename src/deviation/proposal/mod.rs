//! Proposes deviations: entries that would have let a run continue, or that would replace many failures with one known
//! failure.
//!
//! If an expected message never came, the hub either sends it in another form or does not send it at all. An unknown
//! message in its place suggests another form. If a message breaks its schema or the checks of steps, its members may
//! have other names.

mod evidence;
mod member;
mod message;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

pub use evidence::{
    DeviationEvidence, MAX_BYTES, MessageOrigin, MissedExpectation, MissedExpectationKind, UnknownMessage,
};
use member::{normalise_name, propose_fitting_member, propose_member_changes, propose_missing_members};
pub(in crate::deviation) use message::absence_entry;
use message::{absence_entries, best_form, greeting_entry};
use upgrade::propose_upgrade;
pub use upgrade::upgrade_candidates;

use super::Deviations;
use super::json_form::with_json_forms;
use crate::protocol::Pack;

/// A target-file entry that would have let the run continue.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviationProposal {
    /// The entry, with a reason to fill in.
    pub entry: Value,
    /// Whether a run can use the entry unchanged: it needs no value that only the user knows.
    pub complete: bool,
    /// The messages that the entry explains; none for an upgrade.
    pub messages: BTreeSet<usize>,
}

/// The reason of a proposed entry, for its author to fill in.
pub const REASON_PLACEHOLDER: &str = "TODO: why does the hub deviate here?";
/// The placeholder for a header or query value that only the user knows.
pub const VALUE_PLACEHOLDER: &str = "TODO";

/// An occasion on which an expected message did not come; the fields are those of [`MissedExpectationKind::Message`].
struct MissedOccasion<'a> {
    rules: &'a [String],
    origin: Option<MessageOrigin>,
    instead: &'a [UnknownMessage],
    near: &'a [Value],
    answered: bool,
}

/// Returns proposals for messages that did not come or came in another form. `known` are the deviations that were
/// declared or assumed.
pub fn propose(
    pack: &Pack,
    missed: &[&MissedExpectation],
    evidence: &DeviationEvidence,
    known: &Deviations,
) -> Vec<DeviationProposal> {
    let mut by_message: BTreeMap<usize, Vec<MissedOccasion<'_>>> = BTreeMap::new();
    let mut proposals = Vec::new();
    for MissedExpectation { what, rules } in missed {
        match what {
            MissedExpectationKind::Message { message, origin, instead, near, answered } => {
                let occasion = MissedOccasion { rules, origin: *origin, instead, near, answered: *answered };
                by_message.entry(*message).or_default().push(occasion);
            }
            MissedExpectationKind::Upgrade { status, answer } => {
                proposals.extend(propose_upgrade(*status, answer).filter(|proposal| !proposals.contains(proposal)));
            }
        }
    }
    let mut found = ProposalCandidates::default();
    for (message, all) in by_message.iter().filter(|(message, _)| !evidence.messages.contains(message)) {
        let frames = all.iter().flat_map(|one| one.instead);
        let best = frames.filter_map(|frame| best_form(pack, *message, frame, evidence)).max_by_key(|form| form.score);
        let origins: Vec<_> = all.iter().filter(|one| !one.answered).map(|one| one.origin).collect();
        // The first message of every connection, if it is another one than the greeting.
        let greets = origins.contains(&Some(MessageOrigin::Connection));
        let greeting = || greets.then(|| greeting_entry(pack, *message, evidence, known)).flatten();
        let entries = match best.map(|form| form.entry).or_else(greeting) {
            Some(entry) => vec![entry],
            None => absence_entries(pack, *message, &origins, known),
        };
        entries.into_iter().for_each(|entry| found.add(*message, Some(entry), []));
    }
    let ungreeted = evidence.ungreeted.iter().filter(|(message, _)| !evidence.messages.contains(message));
    for (message, rules) in ungreeted {
        found.add(*message, greeting_entry(pack, *message, evidence, known), rules);
    }
    for (message, all) in &by_message {
        let near = all.iter().flat_map(|one| one.near);
        let entries =
            near.map(|frame| propose_member_changes(pack, *message, frame, true, evidence)).find(|all| !all.is_empty());
        entries.into_iter().flatten().for_each(|entry| found.add(*message, Some(entry), []));
    }
    // Another form of a message does not always end a conversation. A member that only one message lacks is more likely
    // a defect than a deviation.
    for (message, frame) in evidence.broken.iter().filter(|(message, _)| !by_message.contains_key(message)) {
        let all = propose_member_changes(pack, *message, frame, false, evidence);
        let formed = all.into_iter().filter(|entry| !entry.contains_key("missing"));
        formed.for_each(|entry| found.add(*message, Some(entry), []));
    }
    for (message, entry) in propose_missing_members(pack, evidence) {
        found.add(message, Some(entry), []);
    }
    for (place, unfit) in &evidence.unfit {
        let entry = propose_fitting_member(&pack.messages[unfit.message], place, &unfit.json, evidence);
        found.add(unfit.message, entry, &unfit.rules);
    }
    let new = found
        .into_consistent()
        .filter(|one| !known.entries().iter().any(|known| is_same_claim(&known.entry, &json!(one.entry))));
    proposals.extend(new.map(|ProposalCandidate { entry, messages, mut rules }| {
        let is_about =
            |message: &&usize| entry.get("message").is_none_or(|name| *name == pack.messages[**message].name);
        let occasions = messages.iter().filter(is_about).filter_map(|message| by_message.get(message)).flatten();
        rules.extend(occasions.flat_map(|one| one.rules).cloned());
        if entry.contains_key("absent") {
            // That a message never comes breaks no other rule of the steps that expected it.
            rules.retain(|rule| messages.iter().any(|message| pack.demands(rule, *message)));
        }
        complete_proposal(entry, messages, &rules)
    }));
    proposals
}

/// An entry that would explain these messages, and the rules of the checks that it concerns.
struct ProposalCandidate {
    entry: Map<String, Value>,
    messages: BTreeSet<usize>,
    rules: BTreeSet<String>,
}

/// The entries found so far, each once.
#[derive(Default)]
struct ProposalCandidates {
    all: Vec<ProposalCandidate>,
}

impl ProposalCandidates {
    fn add<'r>(
        &mut self,
        message: usize,
        entry: Option<Map<String, Value>>,
        rules: impl IntoIterator<Item = &'r String>,
    ) {
        let Some(entry) = entry else { return };
        let place = self.all.iter().position(|one| one.entry == entry).unwrap_or_else(|| {
            self.all.push(ProposalCandidate { entry, messages: BTreeSet::new(), rules: BTreeSet::new() });
            self.all.len() - 1
        });
        self.all[place].messages.insert(message);
        self.all[place].rules.extend(rules.into_iter().cloned());
    }

    /// Drops entries that contradict others: a member that has another name, or that is missing in all messages, is not
    /// missing in just one.
    fn into_consistent(self) -> impl Iterator<Item = ProposalCandidate> {
        let about = |one: &ProposalCandidate| one.entry.get("member").cloned();
        let renamed: Vec<_> = self.all.iter().filter(|one| one.entry.contains_key("renamed")).map(about).collect();
        let in_all: Vec<_> = self.all.iter().filter(|one| !one.entry.contains_key("message")).map(about).collect();
        self.all.into_iter().filter(move |one| {
            let in_one = one.entry.contains_key("message");
            let wrong = renamed.contains(&about(one)) || (in_one && in_all.contains(&about(one)));
            !one.entry.contains_key("missing") || !wrong
        })
    }
}

/// Replaces the entries for replies that never come by one entry, if there are several such replies.
pub fn join_absent_replies(pack: &Pack, proposals: Vec<DeviationProposal>) -> Vec<DeviationProposal> {
    let is_absent_reply = |proposal: &DeviationProposal| {
        let [message, after] = ["message", "after"].map(|key| proposal.entry.get(key).and_then(Value::as_str));
        let is_reply = message.zip(after).is_some_and(|(message, after)| {
            pack.message(after).is_some_and(|request| request.replies.iter().any(|reply| reply == message))
        });
        let is_list = |entry: &Value| entry.get("absent").is_some_and(Value::is_array);
        is_list(&proposal.entry) || is_reply && proposal.entry.get("absent").is_some()
    };
    let (absent, mut others): (Vec<_>, Vec<_>) = proposals.iter().cloned().partition(is_absent_reply);
    let (mut names, mut rules, mut messages) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for DeviationProposal { entry, messages: own, .. } in &absent {
        let listed =
            |key: &str| entry.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        names.extend(listed("absent").chain(entry.get("message").and_then(Value::as_str)).map(str::to_owned));
        rules.extend(listed("rules").map(str::to_owned));
        messages.extend(own);
    }
    if names.len() < 2 {
        return proposals;
    }
    others.push(complete_proposal(into_members(json!({ "absent": names })), messages, &rules));
    others
}

/// The keys that do not name the difference, but its reason, its occasion, and how a conversation continues.
const DETAIL_KEYS: [&str; 7] = ["reason", "rules", "direction", "assume", "where", "from_hub", "to_hub"];

/// Whether a known entry covers a proposed entry: the same difference, in the same message or in all messages.
pub fn is_same_claim(known: &Value, proposed: &Value) -> bool {
    let claim = |entry: &Value| {
        let mut claim = into_members(entry.clone());
        claim.retain(|name, _| !DETAIL_KEYS.contains(&name.as_str()));
        claim
    };
    let mut proposed = claim(proposed);
    let known = claim(known);
    if !known.contains_key("message") {
        proposed.remove("message");
    }
    known == proposed
}

/// Whether an entry renames a member to a name that differs only in case or separators. Only a hub that does not use
/// that name speaks against such an entry.
pub fn is_respelled_name(entry: &Value) -> bool {
    let name = |key: &str| entry.get(key)?.as_str().map(normalise_name);
    name("member").is_some() && name("member") == name("renamed")
}

/// Completes an entry; `rules` are the rules of the steps that expected its messages.
fn complete_proposal(
    mut entry: Map<String, Value>,
    messages: BTreeSet<usize>,
    rules: &BTreeSet<String>,
) -> DeviationProposal {
    if !rules.is_empty() {
        entry.insert("rules".to_owned(), json!(rules));
    }
    entry.insert("reason".to_owned(), Value::from(REASON_PLACEHOLDER));
    DeviationProposal { entry: Value::Object(entry), complete: true, messages }
}

fn into_members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Returns entries as the text of a target file.
pub fn to_toml(entries: &[&Value]) -> String {
    let mut text = String::new();
    for entry in entries {
        let table: toml::Table = with_json_forms(entry)
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.clone(), toml::Value::try_from(v).ok()?)))
            .collect();
        text.push_str("[[deviation]]\n");
        // Tables are written inline, in braces, so that an entry can be moved as a whole.
        for (name, value) in &table {
            text.push_str(&format!("{name} = {value}\n"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deviation::json_form::replace_json_forms;
    use crate::syntax::source::{Sources, Span};
    use crate::syntax::yaml::SyntaxNode;

    #[test]
    fn proposed_entries_are_read_back_equal() {
        let like = json!({ "kind": "HELLO \"x\"\n", "items": [1, 2.5, true, null], "deep": { "er": "\u{e9}" } });
        let like = json!({ "like": like, "none": null, "text": "null", "only": { "json": null } });
        let entry = json!({ "message": "hello", "instead": like, "rules": ["A-1"], "reason": REASON_PLACEHOLDER });
        let text = to_toml(&[&entry, &entry]);
        let mut sources = Sources::default();
        let file: toml::Table = text.parse().unwrap();
        let written = json!(file)["deviation"].clone();
        let place = sources.add("hub.toml", &text);
        for one in written.as_array().unwrap() {
            let mut errors = Vec::new();
            let read = replace_json_forms(&SyntaxNode::from_json(one, Span::new(place, 0..0)), true, &mut errors);
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(read.to_json(), entry);
        }
    }
}
