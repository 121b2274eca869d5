//! Finds roles whose opening only connects although the scenarios show that a client has to log in first. Fuzzing joins
//! with the opening alone, so it would judge how the hub treats clients that have not logged in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::{ActorId, BlockId, MessageName, Program, StepAction, StepActors};
use super::parse::SharedFile;
use crate::protocol::{MessageType, Pack};
use crate::syntax::diagnostic::Diagnostic;

/// The fewest scenarios that show what clients of a role do first.
const MIN_SCENARIOS: usize = 3;

/// Words in the name of a message with which a client introduces itself, and in the names of its members.
const MESSAGE_WORDS: [&str; 12] = [
    "auth",
    "login",
    "logon",
    "signin",
    "connect",
    "handshake",
    "hello",
    "identify",
    "register",
    "session",
    "init",
    "join",
];
const MEMBER_WORDS: [&str; 6] = ["token", "password", "secret", "credential", "auth", "apikey"];

/// What the scenarios show about the clients of one role.
#[derive(Default)]
struct RoleUsage {
    /// The number of scenarios in which such a client sends something.
    scenarios: usize,
    /// The number of scenarios in which all such clients send this message first, and then others.
    first: BTreeMap<String, usize>,
}

/// Returns a warning for each role whose opening should probably send the first message of nearly all its scenarios. If
/// any opening sends that message, the other roles lack it on purpose.
pub fn missing_handshakes(programs: &[Arc<Program>], shared: &SharedFile, pack: &Pack) -> Vec<Diagnostic> {
    let mut roles: BTreeMap<&str, RoleUsage> = BTreeMap::new();
    let mut opened: BTreeSet<String> = BTreeSet::new();
    for program in programs {
        for role in program.roles.values() {
            opened.extend(sent_in(program, role.opening, None).into_iter().flatten());
        }
        for (name, role) in program.roles.iter().filter(|(_, role)| !role.server) {
            let opening = &program.blocks[role.opening];
            let only_connects =
                !opening.is_empty() && opening.iter().all(|step| matches!(step.act, StepAction::Connect(_)));
            let clients = (0..program.actors.len()).filter(|id| program.actors[*id].role == *name);
            let sent: Vec<Vec<Option<String>>> =
                clients.map(|id| sent_in(program, program.main, Some(id))).filter(|sent| !sent.is_empty()).collect();
            let Some(first) = sent.first().and_then(|sent| sent[0].clone()).filter(|_| only_connects) else { continue };
            let usage = roles.entry(name).or_default();
            usage.scenarios += 1;
            let begins = |sent: &Vec<Option<String>>| {
                let [head, rest @ ..] = sent.as_slice() else { return false };
                head.as_ref() == Some(&first) && rest.iter().all(|other| other.as_ref() != Some(&first))
            };
            if sent.iter().all(begins) && sent.iter().any(|sent| sent.len() > 1) {
                *usage.first.entry(first).or_default() += 1;
            }
        }
    }
    let suspicious = |(role, usage): (&&str, &RoleUsage)| {
        let (first, count) = usage.first.iter().max_by_key(|(_, count)| **count)?;
        let message = pack.message(first)?;
        let nearly_all = *count >= MIN_SCENARIOS && *count * 5 >= usage.scenarios * 4;
        if !nearly_all || opened.contains(first) || !introduces(message) {
            return None;
        }
        let what = format!(
            "`{role}` only connects, but {count} of its {} scenarios that send something begin with `{first}`",
            usage.scenarios
        );
        let help = format!(
            "add `- sends: {first}` and its answer to the opening; otherwise fuzzing judges clients that have not sent it"
        );
        Some(Diagnostic::warning(shared.role_span(role)?, what).help(help))
    };
    roles.iter().filter_map(suspicious).collect()
}

/// Returns the messages that an actor sends in a block, in order; `None` for a message that is not known. Without an
/// actor, the steps are those of the actor that plays the block.
fn sent_in(program: &Program, block: BlockId, actor: Option<ActorId>) -> Vec<Option<String>> {
    let mut sent = Vec::new();
    for step in &program.blocks[block] {
        let acts = match (&step.who, actor) {
            (StepActors::One(id), Some(actor)) => *id == actor,
            (StepActors::Group { members, .. }, Some(actor)) => members.contains(&actor),
            (StepActors::Myself, None) => true,
            _ => false,
        };
        match &step.act {
            StepAction::Send(compose) if acts => sent.push(match &compose.message {
                MessageName::Named(name) => Some(name.clone()),
                _ => None,
            }),
            StepAction::SendRaw(_) if acts => sent.push(None),
            StepAction::Play { scene, .. } if acts => sent.extend(sent_in(program, *scene, None)),
            StepAction::Play { scene, .. } => sent.extend(sent_in(program, *scene, actor)),
            StepAction::Each { bodies, .. } => {
                bodies.iter().for_each(|body| sent.extend(sent_in(program, *body, actor)))
            }
            StepAction::Either { body, .. } | StepAction::Retry { body, .. } => {
                sent.extend(sent_in(program, *body, actor));
            }
            _ => {}
        }
    }
    sent
}

/// Whether a message looks like one with which a client introduces itself.
fn introduces(message: &MessageType) -> bool {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-', ' '], "");
    let has = |name: &str, words: &[&str]| words.iter().any(|word| plain(name).contains(word));
    let members = message.schema.member_names(&[] as &[&str]);
    has(&message.name, &MESSAGE_WORDS) || members.iter().any(|member| has(member, &MEMBER_WORDS))
}
