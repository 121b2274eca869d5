//! Plays scenarios with variations, see [`Variation`]. A difference counts only if it is seen again and the scenario as it
//! is written passes before and between: then the variation made the hub depart from what it does otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::PlayOptions;
use super::job::{PlayPhase, ScenarioJob, crowding_refusal};
use super::open_places::find_open_places;
use crate::generate::rng::RandomSource;
use crate::interpreter::EarlyEnd;
use crate::judge::{Evidence, PlayId, has_passed};
use crate::outcome::{CheckReport, FindingDetail, FrameKind, FrameReport, ScenarioReport, Verdict};
use crate::report::{scenario_verdict, worst_verdict};
use crate::scenario::model::{BlockId, ExpectedEvent, MessageName, Need, RuleUse, Step, StepAction, duration};
use crate::scenario::template::Template;
use crate::scenario::unusual_values::{OpenPlace, OpenPlaces, ValueKind};
use crate::scenario::variation::{PreludePlace, Variation};
use crate::scenario::{Isolation, Program};
use crate::syntax::matcher::shorten;
use crate::syntax::source::Span;

/// How many conversations are held at the same time in a crowd.
const CROWD: usize = 4;
/// How often a neighbour holds its conversation at most.
const MOST_ROUNDS: usize = 50;
/// How long a scenario may be known to wait that is played in an idle slot.
const MAX_SPARE_WAIT: Duration = Duration::from_millis(500);
/// How many messages clients send before they drop out: those before the conversation, and those beside it.
const SENDS_BEFORE_DROPOUT: [usize; 2] = [2, 4];
/// How clients leave that play a prelude beside a conversation, in turn.
const ENDS_BESIDE: [EarlyEnd; 3] =
    [EarlyEnd::AfterOpenings, EarlyEnd::InPrelude { resets: true }, EarlyEnd::InPrelude { resets: false }];
/// A scenario that waits longer is about time.
const MAX_WAIT_BESIDE_PAUSES: Duration = Duration::from_millis(500);
/// The most characters of an answer that are shown.
const MAX_SHOWN_CHARS: usize = 400;
/// The most places and classes of unusual values that are shown, and the replay with which narrowing them down begins.
const MAX_SHOWN_PLACES: usize = 3;
const FIRST_NARROWING: u32 = 32;
/// The time between a conversation and its repetition with the same names.
const BETWEEN_CONVERSATIONS: Duration = Duration::from_millis(200);

/// Which variations of scenarios are played, besides the scenarios as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VariationChoice {
    None,
    /// As many as fit into the time that the scenarios take anyway.
    #[default]
    Spare,
    All,
    /// Only this one, of all scenarios.
    Only(Variation),
}

impl VariationChoice {
    /// Returns the variations of a scenario, beginning with another one for each scenario. Where not all are played, each
    /// run, which its stamp identifies, has its own selection and order of those after the first.
    pub fn of_program(&self, program: &Program, turn: usize, stamp: &str) -> Vec<Variation> {
        let mut all: Vec<Variation> = match self {
            Self::None => return Vec::new(),
            Self::Only(variation) => vec![variation.clone()],
            Self::Spare | Self::All => program.shared.variations().collect(),
        };
        let own: Vec<&str> = program.shared.preludes.iter().map(String::as_str).collect();
        all.retain(|variation| {
            // Hundreds of one prelude in each scenario take long enough.
            let is_next = |name: &str| own.get(turn % own.len().max(1)) == Some(&name) || matches!(self, Self::Only(_));
            let reaches = match variation {
                Variation::Prelude(PreludePlace::Hundreds, name) if *self == Self::Spare || !is_next(name) => false,
                Variation::Prelude(place, name) => can_play_prelude(program, *place, name),
                Variation::Pauses(_) => !is_about_time(program),
                Variation::Crowd | Variation::Again | Variation::Dropouts => program.isolation == Isolation::Shared,
                _ => program.isolation != Isolation::Destructive,
            };
            reaches && program.shared.may_vary(&program.id, variation)
        });
        let dice = &mut RandomSource::for_case(u64::from_str_radix(stamp, 36).unwrap_or(0), turn as u64);
        if *self == Self::Spare {
            let same_prelude =
                |one: &Variation, next: &Variation| one.prelude().is_some() && one.prelude() == next.prelude();
            let is_at = |variation: &Variation, place| matches!(variation, Variation::Prelude(at, _) if *at == place);
            let choose = |places: &[Variation]| {
                let part_of_next = places.get(1).is_some_and(|next| is_at(next, PreludePlace::Amid));
                dice.pick(&places[usize::from(part_of_next)..]).cloned()
            };
            all = all.chunk_by(same_prelude).filter_map(choose).collect();
        }
        let first = turn % all.len().max(1);
        all.rotate_left(first);
        if let (Self::Spare, [_, rest @ ..]) = (self, all.as_mut_slice()) {
            rest.rotate_left(dice.draw_below(rest.len()));
        }
        all
    }
}

/// Whether clients of a scenario play a prelude at this place.
fn can_play_prelude(program: &Program, place: PreludePlace, name: &str) -> bool {
    let has_prelude = |role: &str| program.roles.get(role).is_some_and(|role| role.preludes.contains_key(name));
    let joins = program.blocks[program.main].iter().take_while(|step| matches!(step.act, StepAction::Join { .. }));
    let members = joins.flat_map(|step| step.who.named());
    let mut joining = members.map(|id| program.actors[*id].role.as_str());
    match place {
        PreludePlace::After | PreludePlace::Amid => program.roles.keys().any(|role| has_prelude(role)),
        PreludePlace::Many | PreludePlace::Hundreds => {
            let mut blocks = program.roles.values().filter_map(|role| role.preludes.get(name)).peekable();
            blocks.peek().is_some() && blocks.all(|block| may_be_played_at_once(program, *block))
        }
        PreludePlace::Pipelined => {
            let mut blocks = program.roles.values().filter_map(|role| role.preludes.get(name)).peekable();
            blocks.peek().is_some() && blocks.all(|block| is_one_exchange(program, *block))
        }
        PreludePlace::Before | PreludePlace::Beside => {
            program.isolation == Isolation::Shared && joining.any(has_prelude)
        }
    }
}

/// Whether a scene only sends and waits for answers, so that it may be played many times at once.
fn may_be_played_at_once(program: &Program, block: BlockId) -> bool {
    program.blocks[block].iter().all(|step| match &step.act {
        StepAction::Send(_) | StepAction::SendRaw(_) | StepAction::Compose(_) | StepAction::Check { .. } => true,
        StepAction::Expect(expect) => expect.for_.is_none() && matches!(expect.want, ExpectedEvent::Message { .. }),
        StepAction::ExpectOneOf { alternatives, .. } => {
            alternatives.iter().all(|one| matches!(one.want, Some(ExpectedEvent::Message { .. })))
        }
        StepAction::Play { scene, .. } => may_be_played_at_once(program, *scene),
        StepAction::Each { bodies, .. } => bodies.iter().all(|body| may_be_played_at_once(program, *body)),
        _ => false,
    })
}

/// Whether a scene first sends and then waits for the answers. Another request that the hub serves meanwhile finds the scene
/// not yet begun or over, as between two requests, and never with half of it done.
fn is_one_exchange(program: &Program, block: BlockId) -> bool {
    let mut receives = Vec::new();
    find_exchanges(program, block, &mut receives);
    let is_exchange = receives.first() == Some(&false) && receives.last() == Some(&true) && receives.is_sorted();
    is_exchange && may_be_played_at_once(program, block)
}

/// Collects for each step of a scene that sends or receives whether it receives.
fn find_exchanges(program: &Program, block: BlockId, receives: &mut Vec<bool>) {
    for step in &program.blocks[block] {
        match &step.act {
            StepAction::Send(_) | StepAction::SendRaw(_) => receives.push(false),
            StepAction::Expect(_) | StepAction::ExpectOneOf { .. } => receives.push(true),
            StepAction::Play { scene, .. } => find_exchanges(program, *scene, receives),
            StepAction::Each { bodies, .. } => {
                bodies.iter().for_each(|body| find_exchanges(program, *body, receives));
            }
            _ => {}
        }
    }
}

/// Whether a pause may pass a deadline of a scenario: it waits, or how long it waits depends on the hub.
fn is_about_time(program: &Program) -> bool {
    let is_short = |time: &Template| match time {
        Template::Constant(text) => {
            text.as_str().is_none_or(|text| duration(text).is_ok_and(|time| time < MAX_WAIT_BESIDE_PAUSES))
        }
        _ => false,
    };
    let is_known = |time: &Option<Template>| time.iter().all(|time| matches!(time, Template::Constant(_)));
    let timeless = |act: &StepAction| match act {
        StepAction::Wait { time } => is_short(time),
        StepAction::Expect(expect) => is_known(&expect.within) && is_known(&expect.for_),
        StepAction::ExpectNothing(nothing) => is_known(&nothing.for_),
        StepAction::ExpectOneOf { within, .. } | StepAction::ExpectEnd { within, .. } => is_known(within),
        StepAction::Retry { time, .. } => matches!(time, Template::Constant(_)),
        _ => true,
    };
    // A hub with settings of its own may have short deadlines.
    program.isolation == Isolation::Destructive
        || program.needs.iter().any(|need| matches!(need, Need::Expression { .. }))
        || !program.blocks.iter().flatten().all(|step| timeless(&step.act))
}

/// Returns the jobs that play a scenario with variations, in the order in which they should be played, each with its
/// rank: all first ones come before all second ones.
pub fn varied_jobs(
    job: &ScenarioJob,
    options: &PlayOptions,
    turn: usize,
) -> impl Iterator<Item = (usize, ScenarioJob)> {
    let generated = options.comparer.as_ref().is_some_and(|comparer| comparer.concerns(job.program()));
    let plays = job.has_place()
        && !generated
        && job.repetition() == 1
        && (job.phase() == PlayPhase::Shared || options.variations != VariationChoice::Spare);
    // A wait that begins late could prolong the run.
    let long = options.variations == VariationChoice::Spare && job.planned_wait() > MAX_SPARE_WAIT;
    let variations =
        if plays && !long { options.variations.of_program(job.program(), turn, &options.stamp) } else { Vec::new() };
    let varied = variations.into_iter().map(|variation| {
        let id = variation.id_of(&job.program().id);
        job.clone().with_variation(id, variation)
    });
    varied.collect::<Vec<_>>().into_iter().enumerate()
}

/// Returns a job with the places in which its variation sends unusual values; `None` if there are none.
pub fn with_open_places(job: &ScenarioJob, plain: &ScenarioReport) -> Option<ScenarioJob> {
    let Some(Variation::Values(kind, _)) = job.variation() else { return Some(job.clone()) };
    let places = find_open_places(job.program(), plain, *kind, job.settings_as_documented()?);
    let variation = Variation::Values(*kind, Some(Arc::new(places.clone())));
    (!places.places.is_empty()).then(|| job.clone().with_variation(job.id().to_owned(), variation))
}

/// What playing a scenario with a variation needs.
pub struct VariedPlay<'a> {
    pub job: &'a ScenarioJob,
    /// The report of the scenario as it is written.
    pub plain: &'a ScenarioReport,
    pub id: PlayId,
    pub options: &'a PlayOptions,
    pub interrupt: &'a watch::Receiver<bool>,
    /// Whether there is reason to confirm a difference: the same variation may have shown enough of them.
    pub may_confirm: &'a (dyn Fn() -> bool + Sync),
}

impl VariedPlay<'_> {
    /// Plays the scenario with the variation. Returns a report if the hub departs from what it does otherwise.
    pub async fn find_difference(&self) -> Option<ScenarioReport> {
        let variation = self.job.variation()?;
        let first = self.play(self.id).await?;
        if !self.departs(&first) {
            return self.find_other_answer(&first).await;
        }
        if !(self.may_confirm)() {
            return None;
        }
        let seen = self.newly_broken(&first);
        let evidence = if seen.is_empty() { Evidence::StoppedByVariation } else { Evidence::BrokenByVariation };
        let (mut trial, mut last) = (evidence.trial(self.id), None);
        while let Some(replay) = trial.next_replay() {
            if replay.is_control {
                trial.record(self.departs(&self.play_one(&self.job.as_written(), replay.id).await?));
                continue;
            }
            let mut second = self.play(replay.id).await?;
            second.checks.retain(|check| !check.accuses_hub() || seen.contains(check.name.as_str()));
            trial.record(self.departs(&second) && first.cause.is_some() == second.cause.is_some());
            last = Some(second);
        }
        let mut second = last.filter(|_| trial.ruling().stands())?;
        let narrowed = self.narrow().await.map(|cause| format!(" ({cause})")).unwrap_or_default();
        second
            .checks
            .iter_mut()
            .filter(|check| check.accuses_hub())
            .for_each(|check| check.message.push_str(&narrowed));
        if seen.is_empty() {
            let cause = second.cause.as_ref()?;
            let message = format!(
                "with {}{narrowed}, `{}` fails, and the scenario passes as it is written: {}",
                variation.describe(),
                cause.step,
                cause.message
            );
            let (span, detail) = (cause.span, cause.detail.clone());
            let rules = rules_in_question(self.job.program(), cause.span);
            let rules = rules.into_iter().map(|used| (used, Verdict::Warn)).collect();
            let check = CheckReport::new("same-result", Verdict::Warn);
            second.checks.push(CheckReport { span, message, detail, rules, ..check });
        }
        // What the difference left undecided is decided without the variation.
        settle(&mut second);
        Some(second)
    }

    /// Returns in which places, and with which classes of unusual values, the hub departs; `None` for other variations.
    async fn narrow(&self) -> Option<String> {
        let Some(Variation::Values(kind, Some(places))) = self.job.variation() else { return None };
        let groups: BTreeSet<usize> = places.places.iter().map(|place| place.group).collect();
        let mut played = 0;
        let only = |groups: &BTreeSet<usize>, classes: Option<&BTreeSet<usize>>| {
            let chosen = |place: &&OpenPlace| groups.contains(&place.group);
            let left = places.places.iter().filter(chosen).cloned().collect();
            OpenPlaces { places: left, classes: classes.cloned(), ..OpenPlaces::clone(places) }
        };
        let groups = self.halve(*kind, groups, &mut played, |groups| only(groups, None)).await?;
        let classes = (0..kind.classes().len()).collect();
        let classes = self.halve(*kind, classes, &mut played, |classes| only(&groups, Some(classes))).await?;
        let names: Vec<&str> = classes.iter().map(|class| kind.classes()[*class]).collect();
        let of_groups = only(&groups, None).places;
        let places: Vec<String> = of_groups
            .iter()
            .map(|place| format!("{} of {}", place.pointer, place.message))
            .take(MAX_SHOWN_PLACES)
            .collect();
        let classes = if names.len() > MAX_SHOWN_PLACES { "any of the values".to_owned() } else { names.join(", ") };
        Some(format!("{classes} in {}", places.join(", ")))
    }

    /// Halves a set as long as the hub departs with one half.
    async fn halve(
        &self,
        kind: ValueKind,
        mut all: BTreeSet<usize>,
        played: &mut u32,
        places: impl Fn(&BTreeSet<usize>) -> OpenPlaces,
    ) -> Option<BTreeSet<usize>> {
        'smaller: while all.len() > 1 {
            let first: BTreeSet<usize> = all.iter().copied().take(all.len() / 2).collect();
            let second = all.difference(&first).copied().collect();
            for half in [first, second] {
                let variation = Variation::Values(kind, Some(Arc::new(places(&half))));
                let job = self.job.clone().with_variation(self.job.id().to_owned(), variation);
                *played += 1;
                let report = self.play_one(&job, self.id.replay(FIRST_NARROWING + *played)).await?;
                if self.departs(&report) {
                    all = half;
                    continue 'smaller;
                }
            }
            break;
        }
        Some(all)
    }

    /// Whether a play did not pass although the scenario passes as it is written, for a reason that lies with the hub:
    /// hubproof may be unable to connect with a varied name, and a hook may refuse it.
    fn departs(&self, report: &ScenarioReport) -> bool {
        // A document may leave open how large a message a hub accepts.
        let is_too_large =
            report.history.iter().any(|frame| frame.kind == FrameKind::Close && frame.text.starts_with("1009"));
        if is_too_large && matches!(self.job.variation(), Some(Variation::Values(..))) {
            return false;
        }
        if self.job.variation().is_some_and(Variation::sends_ahead) && names_a_limit(report) {
            return false;
        }
        let of_hub = match &report.cause {
            Some(cause) => {
                !cause.step.starts_with("hook:") && !report.has_frame(FrameKind::Unreachable) && !is_hindered(report)
            }
            None => scenario_verdict(report) != Verdict::Inconclusive,
        };
        report.mistake.is_none() && (!self.newly_broken(report).is_empty() || report.cause.is_some() && of_hub)
    }

    /// Returns the names of the checks that accuse the hub, but do not do so as the scenario is written.
    fn newly_broken<'r>(&self, report: &'r ScenarioReport) -> BTreeSet<&'r str> {
        let broken = report.checks.iter().filter(|check| check.accuses_hub());
        // The step may have received the refusal of a request that came together with another.
        let may_be_refusal = self.job.variation().is_some_and(Variation::is_pipelined);
        let broken = broken.filter(|check| !(report.waits.was_late || may_be_refusal) || !check.is_of_step());
        let broken = broken.map(|check| check.name.as_str());
        let known = |name: &str| self.plain.checks.iter().any(|check| check.accuses_hub() && check.name == name);
        broken.filter(|name| !known(name)).collect()
    }

    /// Compares the answers of a play that passed with those as the scenario is written.
    async fn find_other_answer(&self, first: &ScenarioReport) -> Option<ScenarioReport> {
        let (comparer, variation) = (self.options.comparer.as_ref()?, self.job.variation()?);
        // After a prelude, clients have sent more; other conversations may change what is answered; clients that wait for
        // pongs receive what others no longer do.
        let is_comparable = matches!(variation, Variation::Form(_) | Variation::Names(_));
        if !is_comparable || !has_passed(first) {
            return None;
        }
        let mut seen = comparer.differences(first, self.plain);
        if seen.is_empty() || !(self.may_confirm)() {
            return None;
        }
        let (mut trial, mut plain, mut last) = (Evidence::ChangedByVariation.trial(self.id), None, None);
        while let Some(replay) = trial.next_replay() {
            let job = if replay.is_control { self.job.as_written() } else { self.job.clone() };
            let job = if replay.is_alone { job.alone() } else { job };
            let again = self.play_one(&job, replay.id).await.filter(has_passed)?;
            if replay.is_control {
                // A hub that answers differently by itself proves nothing.
                trial.record(!comparer.differences(&again, self.plain).is_empty());
                plain = Some(again);
                continue;
            }
            let before = std::mem::replace(&mut seen, comparer.differences(&again, plain.as_ref()?));
            seen.retain(|one| before.iter().any(|before| before.words == one.words));
            trial.record(!seen.is_empty());
            last = Some(again);
        }
        if !trial.ruling().stands() {
            return None;
        }
        let (mut second, other) = (last?, seen.into_iter().next()?);
        let message = format!("with {}, {}", variation.describe(), other.words);
        let detail = FindingDetail {
            actor: other.actor,
            expected: format!("as the scenario is written: {}", text_or_nothing(&other.plain)),
            received: text_or_nothing(&other.varied),
            ..FindingDetail::default()
        };
        let check = CheckReport::new("same-answers", Verdict::Warn);
        second.checks.push(CheckReport { message, detail: Some(detail), span: Some(second.span), ..check });
        Some(second)
    }

    /// Plays the scenario in the surroundings of the variation.
    async fn play(&self, id: PlayId) -> Option<ScenarioReport> {
        match self.job.variation()? {
            Variation::Again => self.play_after(self.job, id).await,
            Variation::Prelude(PreludePlace::Before, name) => {
                let former = self.job_with_prelude(name, EarlyEnd::AfterOpenings);
                self.play_after(&former, id).await
            }
            Variation::Prelude(PreludePlace::Beside, name) => {
                let neighbour = ENDS_BESIDE.map(|end| self.job_with_prelude(name, end));
                self.play_beside(vec![neighbour.to_vec()], id).await
            }
            Variation::Dropouts => {
                let ends = SENDS_BEFORE_DROPOUT.map(EarlyEnd::AfterSends);
                let [before, during] = ends.map(|end| self.job.clone().leaving_early(end));
                self.play_one(&before, id.neighbour(0)).await?;
                self.play_beside(vec![vec![during]], id).await
            }
            Variation::Crowd => {
                let (job, preludes) = (self.job, &self.job.program().shared.preludes);
                let after = |name: &String| Variation::Prelude(PreludePlace::After, name.as_str().into());
                let mut preludes = preludes.iter().map(after).cycle();
                let neighbours = (1..CROWD).map(|_| match preludes.next() {
                    Some(prelude) => vec![job.clone().with_variation(job.id().to_owned(), prelude)],
                    None => vec![job.clone()],
                });
                self.play_beside(neighbours.collect(), id).await
            }
            _ => self.play_one(self.job, id).await,
        }
    }

    /// Returns the job whose clients play a prelude after their openings, and leave then or before.
    fn job_with_prelude(&self, name: &Arc<str>, end: EarlyEnd) -> ScenarioJob {
        let prelude = Variation::Prelude(PreludePlace::After, Arc::clone(name));
        self.job.clone().with_variation(self.job.id().to_owned(), prelude).leaving_early(end)
    }

    /// Plays the scenario after another job with the same names.
    async fn play_after(&self, former: &ScenarioJob, id: PlayId) -> Option<ScenarioReport> {
        let first = self.play_one(former, id).await?;
        if first.mistake.is_some() || self.departs(&first) {
            // Nothing was repeated, so this difference is none of repetition.
            return Some(ScenarioReport { checks: Vec::new(), cause: None, ..first });
        }
        // Names may be in use for a while after their clients have left.
        tokio::time::sleep(BETWEEN_CONVERSATIONS.mul_f64(self.options.stretch)).await;
        self.play_one(self.job, id).await
    }

    /// Plays the scenario beside neighbours, each of which plays its jobs in turn until the scenario ends.
    async fn play_beside(&self, neighbours: Vec<Vec<ScenarioJob>>, id: PlayId) -> Option<ScenarioReport> {
        let (count, ended) = (neighbours.len(), watch::Sender::new(false));
        let mut plays = tokio::task::JoinSet::new();
        for (first, jobs) in (1..).zip(neighbours) {
            let (options, interrupt, ended) = (self.options.clone(), self.interrupt.clone(), ended.subscribe());
            plays.spawn(async move {
                let (unread, _) = mpsc::channel(1);
                for (play, job) in (first..).step_by(count).take(MOST_ROUNDS).zip(jobs.iter().cycle()) {
                    job.clone().play_once(id.neighbour(play), &options, &unread, interrupt.clone()).await;
                    if *ended.borrow() {
                        break;
                    }
                }
            });
        }
        let report = self.play_one(self.job, id).await;
        ended.send_replace(true);
        while plays.join_next().await.is_some() {}
        report
    }

    async fn play_one(&self, job: &ScenarioJob, id: PlayId) -> Option<ScenarioReport> {
        let (unread, _) = mpsc::channel(1);
        let report = job.clone().play_once(id, self.options, &unread, self.interrupt.clone()).await?;
        (!*self.interrupt.borrow()).then_some(report)
    }
}

/// Whether a play may have stopped because the hub was too busy for it, or slow: a variation is more work for a hub.
fn is_hindered(report: &ScenarioReport) -> bool {
    report.waits.was_late || crowding_refusal(report).is_some()
}

/// Whether the hub has sent something that seems to refuse a client because it asks for too much.
fn names_a_limit(report: &ScenarioReport) -> bool {
    report.dropped_limit || report.history.iter().any(FrameReport::names_a_limit)
}

/// Returns the rules that a step judges: its own, or those that demand the message it waits for, or those of the steps next to
/// it in the same exchange.
fn rules_in_question(program: &Program, place: Option<Span>) -> Vec<RuleUse> {
    let find = |steps: &&Vec<Step>| steps.iter().position(|step| Some(step.span) == place);
    let block = program.blocks.iter().find_map(|steps| Some((steps, find(&steps)?)));
    let Some((steps, index)) = block.filter(|_| place.is_some()) else { return Vec::new() };
    let rules_of = |step: &Step| step.check.map(|check| program.checks[check].rules.clone());
    let awaited = match &steps[index].act {
        StepAction::Expect(expected) => match &expected.want {
            ExpectedEvent::Message { message: MessageName::Named(name), .. } => Some(name),
            _ => None,
        },
        _ => None,
    };
    let demands = |used: &&RuleUse| {
        let demanded = |name: &String| program.pack.rules.get(&used.id)?.demands.iter().find(|(one, _)| one == name);
        awaited.and_then(demanded).is_some()
    };
    let of_message = || {
        let found: Vec<RuleUse> =
            program.checks.iter().flat_map(|check| &check.rules).filter(demands).take(1).cloned().collect();
        (!found.is_empty()).then_some(found)
    };
    let is_request = |step: &&Step| matches!(step.act, StepAction::Send(_) | StepAction::SendRaw(_));
    let after = || steps[index..].iter().take_while(|step| !is_request(step)).find_map(rules_of);
    let before = || steps[..index].iter().rev().take_while(|step| !is_request(step)).find_map(rules_of);
    rules_of(&steps[index]).or_else(of_message).or_else(after).or_else(before).unwrap_or_default()
}

/// Judges a play that stopped early by the checks that were decided until then.
pub fn settle(report: &mut ScenarioReport) {
    report.checks.retain(|check| check.verdict != Verdict::Inconclusive);
    report.cause = None;
    report.missed = None;
    report.verdict = worst_verdict(report.checks.iter().map(|check| check.verdict)).unwrap_or(Verdict::Pass);
}

fn text_or_nothing(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { shorten(text, MAX_SHOWN_CHARS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{HistoryDirection, PreconditionFailure};
    use crate::syntax::source::Sources;

    /// A crowd needs more connections than the scenario alone, and a hub may limit them.
    #[test]
    fn a_hub_that_was_too_busy_or_slow_for_a_variation_does_not_depart() {
        let span = Span::new(Sources::default().add("one.yaml", ""), 0..0);
        let mut report = ScenarioReport::new("qi", "qi/one", "One", span);
        report.verdict = Verdict::Inconclusive;
        report.cause = Some(PreconditionFailure::without_step("no reply".to_owned()));
        assert!(!is_hindered(&report));
        report.waits.was_late = true;
        assert!(is_hindered(&report));
        report.waits.was_late = false;
        report.history.push(FrameReport {
            at: Duration::ZERO,
            actor: "client".to_owned(),
            connection: 1,
            direction: HistoryDirection::Neither,
            kind: FrameKind::Refused,
            text: String::new(),
            size: 0,
            hash: None,
            status: Some(503),
        });
        assert!(is_hindered(&report));
    }
}
