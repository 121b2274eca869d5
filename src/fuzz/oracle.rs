//! What must be true whatever was said: the oracles. They press as hard as the document and no harder. Where it names the
//! answer to bad input (`fuzz` in shared.yaml), that answer must come; where it is silent, the hub must live, serve
//! others, and leave them alone.

use serde_json::{Value, json};

use super::case::{INNOCENT, NEWCOMER, Placement};
use super::material::Material;
use super::payload::Class;
use crate::pack::{MessageType, Place, Rule, rules};
use crate::source::Sources;
use crate::yaml;

/// How long a hub may take to serve others, whatever it has been told.
const BOUND: &str = "5s";

/// The steps behind the odd message.
pub fn steps(
    material: &Material,
    message: &MessageType,
    class: Class,
    sender: &str,
    placement: Placement,
) -> Vec<Value> {
    let mut steps = Vec::new();
    if placement != Placement::First
        && let Some(alternatives) = material.rejects(class)
    {
        steps.push(json!({
            format!("{sender} expects one of"): alternatives,
            "after": "the_odd",
            "rules": ["FUZZ-REJECTS"],
        }));
    }
    steps.push(serves(material, INNOCENT, "FUZZ-SERVES-OLD"));
    for private in material.private(message, class) {
        steps.push(json!({
            format!("{INNOCENT} expects nothing"): private,
            "for": "0s",
            "rules": ["FUZZ-ISOLATES"],
        }));
    }
    steps.push(json!({ format!("{NEWCOMER} joins"): null, "rules": ["FUZZ-SERVES-NEW"] }));
    if material.fence().is_some() {
        steps.push(serves(material, NEWCOMER, "FUZZ-SERVES-NEW"));
    }
    steps
}

/// Somebody asks for something cheap and gets it; without a fence of the protocol, a ping of WebSocket's.
fn serves(material: &Material, actor: &str, rule: &str) -> Value {
    let asks = match material.fence() {
        Some(scene) => vec![json!({ format!("{actor} plays"): scene })],
        None => vec![
            json!({ format!("{actor} sends raw"): { "frames": [{ "opcode": "ping", "data": "there?" }] } }),
            json!({ format!("{actor} expects frame"): "pong", "where": { "data": "there?" } }),
        ],
    };
    json!({ "retry": BOUND, "do": asks, "rules": [rule] })
}

/// The oracles as rules, so that they are reported as rules are.
pub fn rules(sources: &mut Sources) -> Vec<Rule> {
    let file = sources.add("oracles.yaml", include_str!("oracles.yaml"));
    let mut diagnostics = Vec::new();
    let parsed = yaml::parse(sources, file).map(|root| rules::parse(&root, &mut diagnostics).rules);
    let ours = |rule: Rule| Rule { place: Place::Oracle, ..rule };
    parsed.map(|rules| rules.into_values().map(ours).collect()).unwrap_or_default()
}
