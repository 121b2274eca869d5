//! Finds the steps that need the hub to know of a connection, a message or a departure that no message of the hub has
//! confirmed. A hub may answer an upgrade before it enters the connection in its list; no document promises more. So what
//! another client does next may pass by the new one, and neither of them has broken a rule.
//!
//! A conversation pauses before such a step. A finding of a check that rests on such a pause is seen again with a longer
//! pause before it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::{
    ActorId, BlockId, CheckId, ExpectedEvent, GroupQuantity, MessageName, Program, Step, StepAction, StepActors,
};
use super::parse::SharedFile;
use super::template::Template;
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::Span;

/// What the hub may not have taken note of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnconfirmedChange {
    Connection,
    /// A message to which the document names no reply, such as a subscription.
    Message,
    Departure,
}

/// A step whose result depends on whether the hub had taken note of a change of an actor before another acted.
#[derive(Clone, Debug)]
pub struct UnfencedStep {
    pub actor: ActorId,
    pub change: UnconfirmedChange,
    /// Where the actor connects, sends or leaves.
    pub changed_at: Span,
    /// Where the result is expected.
    pub expected_at: Span,
    /// The checks that depend on it.
    pub checks: Vec<CheckId>,
    /// Whether the step may as well await the answer to a request of the actor: the document names no replies.
    pub may_be_answer: bool,
}

/// A position in a program.
type StepPosition = (BlockId, usize);

/// What has happened to an actor since the hub last sent it something that confirms what it knows.
#[derive(Default)]
struct ActorFacts<'p> {
    change: Option<(UnconfirmedChange, Span)>,
    /// The first step since then with which another client, or a hook, sent the hub something: in an opening, and
    /// outside.
    causes: [Option<StepPosition>; 2],
    /// The messages sent on this connection, by index in the pack; `None` for raw frames.
    sent: Vec<Option<usize>>,
    /// Names with which the actor joined or connected.
    names: BTreeSet<&'p str>,
    /// The clients that had left, unconfirmed, when the actor last sent the hub something, each with that step and with
    /// where it left.
    departed: BTreeMap<ActorId, (StepPosition, Span)>,
}

struct ProgramWalk<'p> {
    program: &'p Program,
    actors: Vec<ActorFacts<'p>>,
    /// The actor that sent the message bound to a name.
    senders: BTreeMap<&'p str, ActorId>,
    /// The checks of the openings and scenes around the current step.
    holders: Vec<CheckId>,
    /// The number of blocks around the current step that are repeated until they succeed.
    attempts: usize,
    unfenced: Vec<UnfencedStep>,
    fences: BTreeMap<StepPosition, BTreeSet<ActorId>>,
}

/// Places fences in a program and records what rests on them.
pub fn place(program: &mut Program) {
    let mut walk = ProgramWalk {
        program,
        actors: program.actors.iter().map(|_| ActorFacts::default()).collect(),
        senders: BTreeMap::new(),
        holders: Vec::new(),
        attempts: 0,
        unfenced: Vec::new(),
        fences: BTreeMap::new(),
    };
    walk.play_block(program.main, None, &[], false);
    let (unfenced, fences) = (walk.unfenced, walk.fences);
    for ((block, index), actors) in fences {
        program.blocks[block][index].fences = actors.into_iter().collect();
    }
    program.unfenced = unfenced;
}

impl<'p> ProgramWalk<'p> {
    /// Walks through a block. `me` plays it; `group` are the actors that play it one after another.
    fn play_block(&mut self, block: BlockId, me: Option<ActorId>, group: &[ActorId], opening: bool) {
        for (index, step) in self.program.blocks[block].iter().enumerate() {
            let members: Vec<ActorId> = match &step.who {
                StepActors::NoActor => Vec::new(),
                StepActors::Myself => me.into_iter().collect(),
                StepActors::One(id) => vec![*id],
                StepActors::Group { members, .. } => members.clone(),
            };
            let acting: Vec<ActorId> = members.iter().chain(group).copied().collect();
            self.play_step(step, (block, index), &members, &acting, opening);
        }
    }

    fn play_step(&mut self, step: &'p Step, at: StepPosition, members: &[ActorId], acting: &[ActorId], opening: bool) {
        if step.act.tells_hub() && !encloses_steps(&step.act) {
            self.tell(step, at, members, acting, opening);
        }
        match &step.act {
            StepAction::Join { with } => {
                for id in members {
                    let Some(role) = self.program.roles.get(&self.program.actors[*id].role) else { continue };
                    self.actors[*id].names.extend(identifying_names(with));
                    self.within(step.check, |walk| walk.play_block(role.opening, Some(*id), acting, true));
                }
            }
            StepAction::Play { scene, .. } => self.within(step.check, |walk| match members {
                [] => walk.play_block(*scene, None, acting, opening),
                members => members.iter().for_each(|id| walk.play_block(*scene, Some(*id), acting, opening)),
            }),
            StepAction::Each { bodies, fresh, .. } => {
                bodies.iter().for_each(|body| self.play_block(*body, members.first().copied(), acting, opening));
                fresh.iter().for_each(|id| self.actors[*id] = ActorFacts::default());
            }
            StepAction::Either { body, .. } | StepAction::Retry { body, .. } => {
                self.attempts += 1;
                self.play_block(*body, members.first().copied(), acting, opening);
                self.attempts -= 1;
                self.confirm_departures(*body);
            }
            StepAction::Connect(_) | StepAction::Accept { .. } => {
                self.change(step, members, UnconfirmedChange::Connection)
            }
            StepAction::Close { .. } | StepAction::Drop { .. } => {
                self.change(step, members, UnconfirmedChange::Departure);
            }
            StepAction::Send(compose) => {
                let pack = &self.program.pack;
                let sent = match &compose.message {
                    MessageName::Named(name) => pack.message_index(name),
                    MessageName::Any | MessageName::Computed(_) => None,
                };
                let unanswered = sent.is_some_and(|index| pack.messages[index].replies.is_empty());
                self.send(step, members, sent, unanswered && compose.breaks.is_none());
            }
            StepAction::SendRaw(_) => self.send(step, members, None, false),
            StepAction::Expect(expect) => {
                let surplus = matches!(&step.who, StepActors::Group { quantity: Some((GroupQuantity::AtMost, _)), .. });
                let may_miss = surplus || expect.count.is_some_and(|count| count.min == 0);
                let checks = expect.has.iter().map(|has| has.check);
                match &expect.want {
                    ExpectedEvent::Message { .. } if may_miss => {}
                    ExpectedEvent::Message { message, .. } => {
                        self.expect(step, members, &[message], expect.after.as_deref(), checks.collect());
                    }
                    ExpectedEvent::Control { .. } | ExpectedEvent::Close(_) | ExpectedEvent::Refusal(_) => {}
                }
            }
            StepAction::ExpectOneOf { alternatives, after, .. } => {
                if alternatives.iter().all(|alternative| alternative.want.is_some()) {
                    let wanted = alternatives.iter().filter_map(|alternative| match &alternative.want {
                        Some(ExpectedEvent::Message { message, .. }) => Some(message),
                        _ => None,
                    });
                    self.expect(step, members, &wanted.collect::<Vec<_>>(), after.as_deref(), Vec::new());
                }
            }
            StepAction::ExpectNothing(_)
            | StepAction::ExpectEnd { .. }
            | StepAction::StopReading
            | StepAction::ReadAgain
            | StepAction::Compose(_)
            | StepAction::Hook(_)
            | StepAction::Wait { .. }
            | StepAction::Check { .. }
            | StepAction::Order(_) => {}
        }
        if !step.act.tells_hub() {
            self.compare(step, members);
        }
    }

    fn within(&mut self, check: Option<CheckId>, play: impl FnOnce(&mut Self)) {
        let depth = self.holders.len();
        self.holders.extend(check);
        play(self);
        self.holders.truncate(depth);
    }

    /// Notes that these actors, or a hook, tell the hub something.
    fn tell(&mut self, step: &'p Step, at: StepPosition, members: &[ActorId], acting: &[ActorId], opening: bool) {
        let opening = opening || matches!(step.act, StepAction::Join { .. } | StepAction::Connect(_));
        for (id, facts) in self.actors.iter_mut().enumerate() {
            if facts.change.is_some() && !acting.contains(&id) {
                facts.causes[usize::from(!opening)].get_or_insert(at);
            }
        }
        let left = |(id, facts): (ActorId, &ActorFacts<'_>)| match facts.change {
            Some((UnconfirmedChange::Departure, span)) if !acting.contains(&id) => Some((id, (at, span))),
            _ => None,
        };
        let departed: BTreeMap<_, _> =
            self.actors.iter().enumerate().filter_map(left).filter(|_| self.attempts == 0).collect();
        for id in members {
            self.actors[*id].departed.clone_from(&departed);
        }
        self.compare(step, members);
    }

    /// Notes what rests on a departure: a step that uses values of a client which has just left.
    fn compare(&mut self, step: &'p Step, members: &[ActorId]) {
        if self.attempts > 0 {
            return;
        }
        let used = step_names(step);
        for id in members.iter().filter(|_| !used.is_empty()) {
            for (gone, (at, changed_at)) in self.actors[*id].departed.clone() {
                if self.identifies(gone, &used) {
                    self.fences.entry(at).or_default().insert(gone);
                    let checks = self.checks_of(step, Vec::new());
                    let (change, expected_at) = (UnconfirmedChange::Departure, step.span);
                    let may_be_answer = false;
                    self.unfenced.push(UnfencedStep {
                        actor: gone,
                        change,
                        changed_at,
                        expected_at,
                        checks,
                        may_be_answer,
                    });
                }
            }
        }
    }

    /// Notes that repeated steps have succeeded, which shows that the hub has noticed the departures that they use.
    fn confirm_departures(&mut self, body: BlockId) {
        let used: Vec<&str> = self.program.blocks[body].iter().flat_map(step_names).collect();
        for id in 0..self.actors.len() {
            if self.identifies(id, &used) {
                self.actors[id].change.take_if(|(change, _)| *change == UnconfirmedChange::Departure);
                for facts in &mut self.actors {
                    facts.departed.remove(&id);
                }
            }
        }
    }

    /// Whether one of these names stands for an actor, or for something with which it joined.
    fn identifies(&self, id: ActorId, used: &[&str]) -> bool {
        let is_name = |name: &str| {
            self.program.lets.iter().any(|(own, _)| own == name)
                || self.program.actors.iter().any(|actor| actor.name == name)
        };
        let own = self.program.actors[id].name.as_str();
        used.iter().any(|used| *used == own || self.actors[id].names.contains(used) && is_name(used))
    }

    fn change(&mut self, step: &'p Step, members: &[ActorId], change: UnconfirmedChange) {
        for id in members {
            let names = std::mem::take(&mut self.actors[*id].names);
            self.actors[*id] = ActorFacts { change: Some((change, step.span)), names, ..ActorFacts::default() };
            if let StepAction::Connect(connect) = &step.act {
                let values = connect.path.iter().chain(&connect.query).chain(&connect.headers);
                self.actors[*id].names.extend(values.flat_map(used_names));
            }
        }
    }

    fn send(&mut self, step: &'p Step, members: &[ActorId], sent: Option<usize>, unanswered: bool) {
        for id in members {
            if let Some(name) = &step.as_ {
                self.senders.insert(name, *id);
            }
            let facts = &mut self.actors[*id];
            facts.sent.push(sent);
            if unanswered && facts.change.is_none() {
                facts.change = Some((UnconfirmedChange::Message, step.span));
                facts.causes = [None; 2];
            }
        }
    }

    fn expect(
        &mut self,
        step: &'p Step,
        members: &[ActorId],
        wanted: &[&'p MessageName],
        after: Option<&str>,
        checks: Vec<CheckId>,
    ) {
        // The answer to a request of its own may name the request, or its values.
        let named: Vec<&str> = after.into_iter().chain(step_names(step)).collect();
        let asked: Vec<ActorId> = named.iter().filter_map(|name| self.senders.get(name).copied()).collect();
        for id in members {
            let own = asked.contains(id) || wanted.iter().any(|wanted| self.may_be_reply(*id, wanted));
            let facts = &mut self.actors[*id];
            let (change, causes) = (facts.change.take(), std::mem::take(&mut facts.causes));
            let cause = causes[1].or(causes[0]);
            let (Some((change, changed_at)), Some(cause), false, 0) = (change, cause, own, self.attempts) else {
                continue;
            };
            self.fences.entry(cause).or_default().insert(*id);
            let checks = self.checks_of(step, checks.clone());
            let may_be_answer = self.program.pack.names_no_replies() && !self.actors[*id].sent.is_empty();
            let unfenced =
                UnfencedStep { actor: *id, change, changed_at, expected_at: step.span, checks, may_be_answer };
            self.unfenced.push(unfenced);
        }
    }

    /// Whether a message may be a reply to one that the actor itself has sent.
    fn may_be_reply(&self, id: ActorId, message: &MessageName) -> bool {
        let pack = &self.program.pack;
        let sent = &self.actors[id].sent;
        match message {
            MessageName::Any | MessageName::Computed(_) => !sent.is_empty(),
            MessageName::Named(name) => sent.iter().any(|sent| match sent {
                Some(sent) => pack.messages[*sent].replies.contains(name),
                None => pack.is_reply(name),
            }),
        }
    }

    /// Returns the checks that fail if a step does.
    fn checks_of(&self, step: &Step, more: Vec<CheckId>) -> Vec<CheckId> {
        step.check.into_iter().chain(more).chain(self.holders.iter().copied()).collect()
    }
}

fn encloses_steps(act: &StepAction) -> bool {
    matches!(
        act,
        StepAction::Play { .. }
            | StepAction::Each { .. }
            | StepAction::Either { .. }
            | StepAction::Retry { .. }
            | StepAction::StopReading
            | StepAction::ReadAgain
            | StepAction::Compose(_)
    )
}

/// Returns the first part of each name that the expressions of a template use.
fn used_names(template: &Template) -> Vec<&str> {
    let mut names = Vec::new();
    template.visit_expressions(&mut |expression| {
        names.extend(expression.uses.iter().map(|used| used.split('.').next().unwrap_or_default()));
    });
    names
}

/// Returns the names that may stand for what identifies an actor. A list, such as what it is able to do, does not.
fn identifying_names(with: &[(String, Template)]) -> impl Iterator<Item = &str> {
    let single = with.iter().filter(|(_, value)| !matches!(value, Template::List(_) | Template::Map(_)));
    single.flat_map(|(_, value)| used_names(value))
}

/// Returns the templates of the conditions by which a step judges frames and values.
pub fn judging_templates(step: &Step) -> Vec<&Template> {
    fn wanted(want: &ExpectedEvent) -> Option<&Template> {
        match want {
            ExpectedEvent::Message { pattern, .. } => pattern.as_ref().map(|pattern| &pattern.template),
            _ => None,
        }
    }
    match &step.act {
        StepAction::Expect(expect) => {
            wanted(&expect.want).into_iter().chain(expect.has.iter().map(|has| &has.pattern.template)).collect()
        }
        StepAction::ExpectOneOf { alternatives, .. } => {
            alternatives.iter().filter_map(|alternative| wanted(alternative.want.as_ref()?)).collect()
        }
        StepAction::ExpectNothing(nothing) => nothing.pattern.iter().map(|pattern| &pattern.template).collect(),
        StepAction::Check { value, .. } => vec![value],
        _ => Vec::new(),
    }
}

/// Returns the names that a step uses in what it sends or expects.
fn step_names(step: &Step) -> Vec<&str> {
    match &step.act {
        StepAction::Send(compose) => compose.with.iter().flat_map(used_names).collect(),
        StepAction::SendRaw(raw) => used_names(raw),
        StepAction::Join { with } | StepAction::Play { with, .. } => identifying_names(with).collect(),
        StepAction::Connect(connect) => {
            connect.path.iter().chain(&connect.query).chain(&connect.headers).flat_map(used_names).collect()
        }
        StepAction::Check { .. } => Vec::new(),
        _ => judging_templates(step).into_iter().flat_map(used_names).collect(),
    }
}

/// Returns a warning for each role on whose connections others rely although no message shows that the hub knows them,
/// and for each message and departure on which others rely.
pub fn missing_fences(programs: &[Arc<Program>], shared: &SharedFile) -> Vec<Diagnostic> {
    let mut roles: BTreeMap<&str, (usize, Span)> = BTreeMap::new();
    let mut diagnostics = Vec::new();
    for program in programs {
        for unfenced in program.unfenced.iter().filter(|unfenced| !unfenced.may_be_answer) {
            let role = program.actors[unfenced.actor].role.as_str();
            let name = &program.actors[unfenced.actor].name;
            let accepted = program.roles.get(role).is_some_and(|role| role.fenced_by_pauses);
            match unfenced.change {
                UnconfirmedChange::Connection if !accepted => {
                    roles.entry(role).or_insert((0, unfenced.expected_at)).0 += 1;
                }
                UnconfirmedChange::Message if !accepted => {
                    let what = "a step relies on this message, but no reply shows that the hub has received it";
                    let help = "play a round trip after it, such as a request that the hub answers";
                    let warning = Diagnostic::warning(unfenced.changed_at, what);
                    diagnostics.push(warning.also(unfenced.expected_at, "this step").help(help));
                }
                UnconfirmedChange::Departure if !accepted => {
                    let what =
                        format!("this step relies on the departure of `{name}`, which the hub may not have noticed");
                    let help = "put it into a `retry`, or wait until the hub tells another client of the departure";
                    let warning = Diagnostic::warning(unfenced.expected_at, what);
                    diagnostics.push(warning.also(unfenced.changed_at, "it leaves here").help(help));
                }
                _ => {}
            }
        }
    }
    for (role, (steps, first)) in roles {
        let Some(at) = shared.role_span(role) else { continue };
        let what =
            format!("{steps} steps rely on connections of `{role}`, but no message shows that the hub knows them");
        let help = "end the opening with the hub's greeting or a request that it answers; if the protocol has neither, write `fence: pause`";
        diagnostics.push(Diagnostic::warning(at, what).also(first, "the first of these steps").help(help));
    }
    diagnostics
}
