//! Hubs with a declared deviation are never accused of what follows from it. Each hub is the reference server behind a
//! layer that never sends one of its replies, or that sends every message under another name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hubproof::deviation::Deviations;
use hubproof::deviation::proposal::{DeviationEvidence, DeviationProposal, MissedExpectation, propose};
use hubproof::outcome::ScenarioReport;
use hubproof::protocol::{FrameDirection, MessageType, Pack};
use hubproof::syntax::diagnostic::render_all;
use hubproof::syntax::source::Span;
use hubproof::syntax::yaml::SyntaxNode;
use hubproof_reference::machine::{EventError, Machine, MachineInput, MachineOutput};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::sim_connection::{SendingManner, SimulatedProtocol};

/// A reply that a hub sends to a client: its name, and that of the client's message; `connection` for a greeting.
type Reply = (String, String);

/// The replies that hubs have sent so far, shared by the layers of several conversations.
type SentReplies = Arc<Mutex<BTreeSet<Reply>>>;

/// A layer over a hub that sees, and may change, what the hub sends to the client that caused it.
struct DeviatingHub {
    inner: Box<dyn Machine>,
    pack: Arc<Pack>,
    change: HubChange,
    sent: SentReplies,
}

#[derive(Clone)]
enum HubChange {
    None,
    /// The reply is never sent.
    Silent(Reply),
    /// Every message has another name.
    Renamed,
}

impl DeviatingHub {
    fn apply(&self, cause: Option<(u64, &str)>, output: MachineOutput) -> Option<MachineOutput> {
        let MachineOutput::Text { conn, text } = &output else { return Some(output) };
        let Ok(mut json) = serde_json::from_str::<Value>(text) else { return Some(output) };
        let Some(message) = self.pack.recognise(&json, FrameDirection::FromHub) else { return Some(output) };
        if let Some((_, after)) = cause.filter(|(initiator, _)| initiator == conn) {
            let reply = (message.name.clone(), after.to_owned());
            if matches!(&self.change, HubChange::Silent(silent) if *silent == reply) {
                return None;
            }
            self.sent.lock().unwrap().insert(reply);
        }
        if matches!(self.change, HubChange::Renamed) && !message.abstract_ {
            let other = renamed(&Value::Object(message.matcher.literal_members()));
            hubproof::scenario::compose::merge_overrides(&mut json, &other);
            return Some(MachineOutput::Text { conn: *conn, text: json.to_string().into() });
        }
        Some(output)
    }
}

impl Machine for DeviatingHub {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        let name = match &input {
            MachineInput::Open { .. } => Some("connection".to_owned()),
            MachineInput::Text { text, .. } => {
                let json: Option<Value> = serde_json::from_str(text).ok();
                json.and_then(|json| Some(self.pack.recognise(&json, FrameDirection::ToHub)?.name.clone()))
            }
            _ => None,
        };
        let conn = input.conn();
        let mut outputs = Vec::new();
        self.inner.handle(now, input, &mut outputs);
        let cause = conn.zip(name.as_deref());
        out.extend(outputs.into_iter().filter_map(|output| self.apply(cause, output)));
    }

    fn deadline(&self) -> Option<Duration> {
        self.inner.deadline()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        let mut outputs = Vec::new();
        let answer = self.inner.event(now, event, &mut outputs);
        out.extend(outputs.into_iter().filter_map(|output| self.apply(None, output)));
        answer
    }
}

/// Returns the members that identify a message, with another text each.
fn renamed(members: &Value) -> Value {
    match members {
        Value::String(text) => Value::String(format!("other-{text}")),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), renamed(value))).collect(),
        other => other.clone(),
    }
}

fn declare(protocol: &mut SimulatedProtocol, entries: &[Value]) -> Deviations {
    let file = protocol.sources.add("deviations", "");
    let nodes: Vec<SyntaxNode> =
        entries.iter().map(|entry| SyntaxNode::from_json(entry, Span::new(file, 0..0))).collect();
    Deviations::parse(&nodes, &protocol.pack, &protocol.scenarios.shared, false)
        .unwrap_or_else(|mistakes| panic!("{}", render_all(&mistakes, &protocol.sources, false)))
}

/// Plays all scenarios of which `plays` returns true against a hub with a change.
fn play_all(
    protocol: &SimulatedProtocol,
    change: &HubChange,
    deviations: &Arc<Deviations>,
    plays: impl Fn(&str) -> bool,
) -> Vec<(ScenarioReport, BTreeSet<Reply>)> {
    let programs = protocol.scenarios.programs.iter().filter(|program| plays(&program.id));
    let play = |program| {
        let sent = SentReplies::default();
        let around = |inner| -> Box<dyn Machine> {
            let (pack, change, sent) = (Arc::clone(&protocol.pack), change.clone(), Arc::clone(&sent));
            Box::new(DeviatingHub { inner, pack, change, sent })
        };
        let report =
            protocol.play_deviating(program, None, &around, SendingManner::default(), Arc::clone(deviations))?;
        let sent = sent.lock().unwrap().clone();
        Some((report, sent))
    };
    programs.filter_map(play).collect()
}

/// Returns what a report accuses the hub of, apart from the declared deviations.
pub fn accusations(report: &ScenarioReport) -> Vec<String> {
    let accused = report.checks.iter().filter(|check| check.accuses_hub() && check.deviation.is_none());
    let accused = accused.map(|check| {
        let (name, verdict) = (&check.name, check.verdict.name());
        format!("{}: [{verdict}] {name}: {}: {}", report.id, check.step, check.message)
    });
    accused.chain(report.mistake.iter().map(|mistake| format!("{}: mistake: {mistake}", report.id))).collect()
}

/// Returns the replies of a hub, each with the scenarios in which it sends them.
fn scenarios_with_replies(protocol: &SimulatedProtocol) -> BTreeMap<Reply, BTreeSet<String>> {
    let mut scenarios_of: BTreeMap<Reply, BTreeSet<String>> = BTreeMap::new();
    for (report, sent) in play_all(protocol, &HubChange::None, &Arc::default(), |_| true) {
        for reply in sent {
            scenarios_of.entry(reply).or_default().insert(report.id.clone());
        }
    }
    assert!(!scenarios_of.is_empty());
    scenarios_of
}

/// A hub that never sends one of its replies.
#[rstest]
#[case::qi("qi")]
#[case::gator("gator")]
#[case::airavata("airavata")]
#[ignore = "thorough: many minutes of CPU"]
#[case::concierge("concierge")]
#[ignore = "thorough: many minutes of CPU"]
#[case::emprops("emprops")]
fn a_hub_whose_reply_is_declared_absent_is_not_accused(#[case] name: &str) {
    let mut protocol = SimulatedProtocol::load(name);
    let mut wrong = Vec::new();
    for ((message, after), scenarios) in scenarios_with_replies(&protocol) {
        let entry = json!({ "reason": "never sent", "message": message, "absent": true, "after": after });
        let deviations = Arc::new(declare(&mut protocol, &[entry]));
        let change = HubChange::Silent((message.clone(), after.clone()));
        for (report, _) in play_all(&protocol, &change, &deviations, |id| scenarios.contains(id)) {
            wrong.extend(accusations(&report).into_iter().map(|what| format!("no {message} after {after}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "{} accusations:\n{}", wrong.len(), wrong.join("\n"));
}

/// A hub that never sends one of its replies: no other deviation is proposed, and the right one in at least
/// `right` cases: a reply that one conversation misses and another receives leads to none.
#[rstest]
#[case::qi("qi", 0)]
#[case::gator("gator", 1)]
#[case::airavata("airavata", 2)]
#[ignore = "thorough: many minutes of CPU"]
#[case::concierge("concierge", 9)]
#[ignore = "thorough: many minutes of CPU"]
#[case::emprops("emprops", 11)]
fn a_missing_reply_leads_to_no_wrong_proposal(#[case] name: &str, #[case] right: usize) {
    let protocol = SimulatedProtocol::load(name);
    let (mut found, mut wrong) = (0, Vec::new());
    for ((message, after), scenarios) in scenarios_with_replies(&protocol) {
        let change = HubChange::Silent((message.clone(), after.clone()));
        let reports = play_all(&protocol, &change, &Arc::default(), |id| scenarios.contains(id));
        let missed: Vec<&MissedExpectation> = reports.iter().filter_map(|(report, _)| report.missed.as_ref()).collect();
        let mut evidence = DeviationEvidence::default();
        reports.iter().for_each(|(report, _)| evidence.merge(&report.evidence));
        for DeviationProposal { entry, .. } in propose(&protocol.pack, &missed, &evidence, &Deviations::default()) {
            let is_right = entry["absent"] == true && entry["message"] == message && entry["after"] == after;
            found += usize::from(is_right);
            wrong.extend((!is_right).then(|| format!("no {message} after {after}: {entry}")));
        }
    }
    assert!(wrong.is_empty(), "{} wrong proposals, {found} right ones:\n{}", wrong.len(), wrong.join("\n"));
    assert!(found >= right, "{found} right proposals");
}

/// A hub that sends every message under another name.
#[rstest]
fn a_hub_whose_names_are_declared_is_not_accused(
    #[values("qi", "gator", "airavata", "concierge", "emprops")] name: &str,
) {
    let mut protocol = SimulatedProtocol::load(name);
    let deviations = declare_other_names(&mut protocol);
    let reports = play_all(&protocol, &HubChange::Renamed, &deviations, |_| true);
    let wrong: Vec<String> = reports.iter().flat_map(|(report, _)| accusations(report)).collect();
    assert!(wrong.is_empty(), "{} accusations:\n{}", wrong.len(), wrong.join("\n"));
}

/// Returns the hub with a layer that sends every message under another name.
pub fn with_other_names(inner: Box<dyn Machine>, pack: &Arc<Pack>) -> Box<dyn Machine> {
    Box::new(DeviatingHub { inner, pack: Arc::clone(pack), change: HubChange::Renamed, sent: SentReplies::default() })
}

/// Declares the names of [`with_other_names`].
pub fn declare_other_names(protocol: &mut SimulatedProtocol) -> Arc<Deviations> {
    let named = protocol.pack.messages.iter().filter(|message| message.directions.from_hub && !message.abstract_);
    let entry = |message: &MessageType| {
        let instead = renamed(&Value::Object(message.matcher.literal_members()));
        let entry =
            json!({ "reason": "other words", "message": message.name, "instead": instead, "direction": "from-hub" });
        instead.as_object().is_some_and(|members| !members.is_empty()).then_some(entry)
    };
    let entries: Vec<Value> = named.filter_map(entry).collect();
    Arc::new(declare(protocol, &entries))
}
