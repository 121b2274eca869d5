//! Plays cases: each is made when its turn comes, read like any scenario, and played by the machinery of `hubproof
//! check`. What comes out of it is the report of a scenario, whose id says which case it was.

pub mod control_run;
pub mod exclusive;
pub mod fingerprint;
pub mod latency_drift;
pub mod results;
pub mod second_hub;
pub mod shrink_findings;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::control_run::{Doubt, Said, Trial};
use self::exclusive::Lanes;
use self::latency_drift::LatencyDrift;
use super::actors::{BATCH, ODD, ROUND};
use super::case::Case;
use super::corpus::Corpus;
use super::oracle;
use super::scheduler::Scheduler;
use crate::check::{self, Job, Options};
use crate::event::{Event, FrameReport, ScenarioReport, Verdict};
use crate::hub::prepare::Prepared;
use crate::protocol::{Folder, Pack, Place};
use crate::report::fuzzed::Slower;
use crate::scenario::parse::{SharedFile, read};
use crate::scenario::template::Template;
use crate::scenario::{self, Program, writer};
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::{FileId, Sources, Span};
use crate::syntax::yaml::{self, Node};

/// One protocol, with all that its cases are made of.
pub struct Campaign {
    pub material: Corpus,
    pub plan: Scheduler,
    shared: SharedFile,
    /// Stands for the file of whatever case: places in programs and reports are places in it.
    file: FileId,
    /// Programs by the text of what is the same in many cases.
    programs: Mutex<HashMap<String, Arc<Program>>>,
    /// Numbers of cases whose turn had not come when a run ended early; they are played in the next.
    left: Mutex<Vec<u64>>,
}

/// Programs that are kept; one has some tens of kilobytes.
const PROGRAMS: usize = 2000;

/// Where and how cases are played.
#[derive(Clone)]
pub struct Stage {
    pub hub: Arc<Prepared>,
    pub options: Arc<Options>,
    /// Another hub that is told the same, and compared.
    pub against: Option<Arc<Prepared>>,
    /// Hears what goes on.
    pub events: mpsc::Sender<Event>,
    /// True once the run is to end.
    pub interrupt: watch::Receiver<bool>,
}

impl Campaign {
    /// Everything of a folder that has been loaded without a mistake. `seed` decides what the cases say.
    ///
    /// # Errors
    ///
    /// What is wrong with the pack.
    pub fn new(folder: &Folder, sources: &mut Sources, seed: u64) -> Result<Self, Vec<Diagnostic>> {
        let (pack, diagnostics) = Pack::load(folder, sources);
        let Some(mut pack) = pack else { return Err(diagnostics) };
        pack.rules.extend(oracle::rules(sources).into_iter().map(|rule| (rule.id.clone(), rule)));
        let pack = Arc::new(pack);
        let shared = scenario::shared(folder, sources, &pack, &mut Vec::new());
        let material = Corpus::read(folder, sources, &pack);
        let plan = Scheduler::new(&material, seed, &|_| true);
        let file = sources.add("case.yaml", "");
        Ok(Self { material, plan, shared, file, programs: Mutex::default(), left: Mutex::default() })
    }

    pub fn pack(&self) -> &Arc<Pack> {
        &self.material.pack
    }

    /// `<protocol>/case-<number>`.
    pub fn id(&self, number: u64) -> String {
        format!("{}/case-{number}", self.pack().name)
    }

    /// Whether a rule is one of ours, and not of the document.
    pub fn is_oracle(&self, rule: &str) -> bool {
        self.pack().rules.get(rule).is_some_and(|rule| rule.place == Place::Oracle)
    }

    /// Reads a scenario, be it a case or what was made of one. Its places are in no file of the sources; see
    /// [`Campaign::placed`].
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn program(&self, id: &str, scenario: &Map<String, Value>) -> Result<Program, String> {
        let text = writer::scenario(scenario);
        let words = |diagnostics: &[Diagnostic]| {
            diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect::<Vec<_>>().join("; ")
        };
        let root = yaml::parse_text(&text, self.file).map_err(|diagnostic| words(&[diagnostic]))?;
        let (program, diagnostics) = read(id, &root, &self.shared, self.pack());
        program.ok_or_else(|| words(&diagnostics))
    }

    /// Plays a scenario by itself, be it a case or what was made of one. `number` is one that no other of the run has;
    /// `None` where the run was interrupted before.
    pub async fn play(
        &self,
        id: &str,
        scenario: &Map<String, Value>,
        number: u64,
        stage: &Stage,
    ) -> Option<ScenarioReport> {
        let job = self.job(id, scenario, stage);
        // Only tells cases of one run apart, so that it may begin anew where numbers are small.
        let number = usize::try_from(number).unwrap_or(usize::MAX / 2);
        let played = match job {
            Ok(job) => job.play(number, &stage.options, &stage.events, stage.interrupt.clone()).await,
            Err(mistake) => Some(self.mistaken(id, mistake)),
        };
        played.map(|mut report| {
            id.clone_into(&mut report.id);
            report.title = scenario.get("title").and_then(Value::as_str).unwrap_or_default().to_owned();
            // That its process goes on is an oracle here.
            for check in report.checks.iter_mut().filter(|check| check.name == crate::hub::supervisor::PROCESS_CHECK) {
                let received = check.detail.take().map(|detail| detail.received);
                *check = results::lives(self, check.verdict, std::mem::take(&mut check.message), received);
            }
            // Whatever else is wrong with a hub that has ended is wrong because it has.
            if report.checks.iter().any(|check| check.verdict == Verdict::Fail && check.name == results::LIVES) {
                report.checks.retain(|check| check.verdict != Verdict::Fail || check.name == results::LIVES);
            }
            report
        })
    }

    /// The program of a scenario, ready to be played. Cases that differ in their odd message alone share one, since
    /// reading and checking a scenario takes longer than playing it.
    fn job(&self, id: &str, scenario: &Map<String, Value>, stage: &Stage) -> Result<Job, String> {
        let job = |program: &Arc<Program>| {
            Job::new(program, 1, &stage.hub, &stage.options).map_err(|error| error.to_string())
        };
        // What is traced is called by the name of its program.
        let shared = parted(scenario).filter(|_| !stage.options.trace);
        let Some((mut key, name, said)) = shared else { return job(&Arc::new(self.program(id, scenario)?)) };
        let mut diagnostics = Vec::new();
        let odd = Template::read(&Node::of(said, Span::new(self.file, 0..0)), &mut diagnostics);
        if let Some(diagnostic) = diagnostics.first() {
            return Err(diagnostic.message.clone());
        }
        // A setting that somebody has to give is a need of the program.
        odd.expressions(&mut |expression| {
            let uses = expression.uses.iter().filter_map(|used| used.strip_prefix("hub.")?.split('.').next());
            let settings = &self.shared.shared.settings;
            let given = uses.filter(|name| settings.get(*name).is_some_and(|setting| setting.default.is_none()));
            given.for_each(|name| key.push_str(&format!("needs {name}\n")));
        });
        let known = self.programs().get(&key).cloned();
        let program = match known {
            Some(program) => program,
            None => {
                let program = Arc::new(self.program(id, scenario)?);
                let mut programs = self.programs();
                if programs.len() >= PROGRAMS {
                    programs.clear();
                }
                Arc::clone(programs.entry(key).or_insert(program))
            }
        };
        Ok(job(&program)?.saying(id, name, odd))
    }

    fn programs(&self) -> MutexGuard<'_, HashMap<String, Arc<Program>>> {
        // Nothing panics while it holds the lock, and a program that is missing is read again.
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, Vec<u64>> {
        // Nothing panics while it holds the lock.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns the places of a report into places of a file that holds its scenario, which is added to `sources`.
    pub fn placed(&self, report: &mut ScenarioReport, scenario: &Map<String, Value>, sources: &mut Sources) {
        let name = report.id.rsplit('/').next().unwrap_or_default();
        let file = sources.add(format!("{name}.yaml"), writer::scenario(scenario));
        // Programs are shared, so that their places are those of another case of the kind.
        let program = self.program(&report.id, scenario).ok();
        let put = |span: &mut Option<Span>, name: &str| {
            if let Some(place) = span.filter(|span| span.file == self.file) {
                let checks = program.iter().flat_map(|program| &program.checks);
                let found = checks.filter(|check| check.name == name).map(|check| check.span).next();
                *span = Some(Span { file, ..found.unwrap_or(Span { start: 0, end: 0, ..place }) });
            }
        };
        report.span = Span { file, ..program.as_ref().map_or(report.span, |program| program.span) };
        for check in &mut report.checks {
            put(&mut check.span, &check.name);
        }
        if let Some(cause) = &mut report.cause {
            put(&mut cause.span, "");
        }
    }

    /// A case that is no scenario: a mistake of ours.
    fn mistaken(&self, id: &str, mistake: String) -> ScenarioReport {
        ScenarioReport {
            protocol: self.pack().name.clone(),
            id: id.to_owned(),
            title: String::new(),
            span: Span::new(self.file, 0..0),
            instance: String::new(),
            repetition: 1,
            verdict: Verdict::Inconclusive,
            checks: Vec::new(),
            unmet: Vec::new(),
            cause: None,
            mistake: Some(mistake),
            leftovers: Vec::new(),
            history: Vec::new(),
            history_dropped: 0,
            duration: Duration::ZERO,
            slimmest: None,
        }
    }
}

/// How a run leaves the hub.
pub struct Left {
    /// What ended the run before its time.
    pub gone: Option<Gone>,
    /// The case whose conversation does not go on at the end, though nothing odd is said.
    pub stuck: Option<u64>,
    pub slower: Option<Slower>,
}

/// A hub that nobody reaches any more.
pub struct Gone {
    /// Of the first case that found nobody there.
    pub report: ScenarioReport,
    /// Numbers of the cases that were under way then.
    pub under_way: Vec<u64>,
}

/// Plays the cases of these numbers, as many at a time as the options say, and reports on the stage's events as
/// [`check::run`] does; ends early, but in order, when it is interrupted, or when nobody can connect to the hub any more, and
/// begins nothing more once it is `over`. Cases are made as their turns come, never all at once.
pub async fn run(
    campaign: Arc<Campaign>,
    stage: Stage,
    numbers: impl Iterator<Item = u64>,
    over: impl Fn() -> bool + Send + Sync + 'static,
) -> Left {
    let (watch, lanes) = (Arc::new(Watch::default()), Arc::new(Lanes::default()));
    let is_there = {
        let (watch, hub) = (Arc::clone(&watch), Arc::clone(&stage.hub));
        Arc::new(move || watch.state().gone.is_none() && !hub.is_given_up() && !over())
    };
    let play = |number: u64| {
        let (campaign, stage, watch) = (Arc::clone(&campaign), stage.clone(), Arc::clone(&watch));
        let (lanes, is_there) = (Arc::clone(&lanes), Arc::clone(&is_there));
        async move {
            let Some(mut case) = campaign.plan.case(&campaign.material, number) else { return };
            let lane = lane(&case, &stage);
            if lane.as_ref().is_some_and(|word| !lanes.enter(word, number)) {
                return;
            }
            loop {
                play_one(&campaign, &stage, &watch, &case).await;
                let Some(word) = lane.as_ref().filter(|_| is_there() && !*stage.interrupt.borrow()) else { return };
                let next = std::iter::from_fn(|| lanes.next(word));
                let Some(next) = { next }.find_map(|number| campaign.plan.case(&campaign.material, number)) else {
                    return;
                };
                case = next;
            }
        }
    };
    let pace = LatencyDrift::at_the_start(&campaign, &stage).await;
    let left = std::mem::take(&mut *campaign.left());
    let mut numbers = left.into_iter().chain(numbers);
    // No number is taken that is not played.
    let there = std::iter::from_fn(|| if is_there() { numbers.next() } else { None });
    check::in_turn(there, stage.options.jobs, &stage.interrupt, play).await;
    campaign.left().extend(lanes.left());
    let (gone, stuck) = {
        let mut watched = watch.state();
        (watched.gone.take(), watched.stuck.take())
    };
    let stuck = match stuck {
        Some((number, control)) if gone.is_none() => {
            // Only what a hub is left with is told.
            let played = campaign.play(&campaign.id(number), &control, number + LAST, &stage).await;
            let is_stuck = played.as_ref().and_then(control_run::is_stuck) == Some(true);
            is_stuck.then_some(number)
        }
        _ => None,
    };
    let slower = match pace {
        Some(pace) if gone.is_none() => pace.at_the_end(&campaign, &stage).await,
        _ => None,
    };
    Left { gone, stuck, slower }
}

/// What a case needs for itself that others of the run may need, too. (A hub that is started for the run is started once more
/// for it, and what needs the whole hub has to wait for everybody else.)
fn lane(case: &Case, stage: &Stage) -> Option<String> {
    let word = case.scenario.get("exclusive").and_then(Value::as_str)?;
    (word != "hub" && stage.hub.embedded.is_none()).then(|| word.to_owned())
}

async fn play_one(campaign: &Campaign, stage: &Stage, watch: &Watch, case: &Case) {
    let number = case.number;
    watch.state().under_way.insert(number);
    let played = match &stage.against {
        Some(other) => second_hub::play(campaign, &case.scenario, number, stage, other).await,
        None => campaign.play(&campaign.id(number), &case.scenario, number, stage).await,
    };
    if let Some(mut report) = played {
        if let Some(control) = control_run::of(&case.scenario, &report) {
            let id = campaign.id(number);
            let (mut trial, mut another) = (Trial::default(), number);
            while let Some(said) = trial.next() {
                another += ANOTHER;
                let scenario = if said == Said::Everything { &case.scenario } else { &control };
                let played = campaign.play(&id, scenario, another, stage).await;
                let Some(is_stuck) = played.as_ref().and_then(control_run::is_stuck) else { break };
                trial.told(is_stuck);
            }
            if let Some(doubt) = trial.doubt() {
                control_run::doubt(&mut report, doubt);
                if doubt == Doubt::StuckAnyway {
                    watch.state().stuck = Some((number, control));
                }
            }
        }
        watch.look(number, &report, stage).await;
        let _ = stage.events.send(Event::Finished(Box::new(report))).await;
    }
}

/// Added to the number of a case, it is that of another play of it: a hub that remembers the names of the one is not to know
/// the other.
const ANOTHER: u64 = 1 << 41;
/// The same for a play at the end of the run.
const LAST: u64 = 1 << 45;
/// Cases that find nobody there, one after the other, before the hub is given up.
const VAIN: usize = 4;
/// A hub that refuses everybody as if it were busy is given up when nobody has been connected to it for so long.
const BUSY: Duration = Duration::from_secs(5);

/// Watches whether the hub is still there.
#[derive(Default)]
struct Watch(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    under_way: BTreeSet<u64>,
    /// Somebody was there once.
    met: bool,
    /// Cases in a row that could not connect at all, and what was under way when the first of them ended.
    vain: usize,
    first: Option<(Gone, Instant)>,
    gone: Option<Gone>,
    /// The last case that did not go on where nothing odd was said either, and that conversation.
    stuck: Option<(u64, Map<String, Value>)>,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, Watched> {
        // Nothing in here panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, number: u64, report: &ScenarioReport, stage: &Stage) {
        let unreachable = report.cause.as_ref().is_some_and(|cause| cause.unreachable);
        let pause = {
            let mut state = self.state();
            let under_way = state.under_way.iter().copied().collect();
            state.under_way.remove(&number);
            if !report.unmet.is_empty() {
                // Nobody was asked.
                return;
            }
            if !unreachable && !is_turned_away(report) {
                state.met = true;
                // Whoever was refused beside others that get through has met a limit, not the end; but who was under way
                // may have got through before.
                let was_under_way = |(gone, _): &(Gone, Instant)| gone.under_way.contains(&number);
                if !state.first.as_ref().is_some_and(was_under_way) {
                    state.vain = 0;
                    state.first = None;
                }
                return;
            }
            if !state.met {
                return;
            }
            if state.first.is_none() {
                state.first = Some((Gone { report: report.clone(), under_way }, Instant::now()));
            }
            state.vain += 1;
            // Those that were begun before do not count as attempts of their own.
            let enough = state.vain > VAIN + stage.options.jobs;
            let free = unreachable || state.is_free();
            if enough && free && state.gone.is_none() {
                state.gone = state.first.take().map(|(gone, _)| gone);
            }
            match (state.gone.is_some(), enough) {
                (true, _) => return,
                (false, false) => PAUSE,
                (false, true) => LONG_PAUSE,
            }
        };
        // A hub that is busy with its end, or its beginning.
        let mut interrupt = stage.interrupt.clone();
        let interrupted = interrupt.wait_for(|interrupted| *interrupted);
        let _ = tokio::time::timeout(pause, interrupted).await;
    }
}

impl Watched {
    /// Nobody of ours has been connected for so long that a hub cannot be busy with us.
    fn is_free(&self) -> bool {
        self.first.as_ref().is_some_and(|(gone, since)| {
            since.elapsed() >= BUSY && !gone.under_way.iter().any(|number| self.under_way.contains(number))
        })
    }
}

/// Nobody of the case was let in: an error of the server's, or of whatever stands before it. (Where it says that there were
/// too many attempts, 429, more attempts show nothing.)
fn is_turned_away(report: &ScenarioReport) -> bool {
    let refused = |frame: &FrameReport| frame.kind == "refused" && frame.text.starts_with("HTTP 5");
    report.history.iter().any(refused) && !report.history.iter().any(|frame| frame.kind == "open")
}

/// Between attempts to reach a hub that nobody reaches.
const PAUSE: Duration = Duration::from_millis(250);
/// And where that has been so for a while.
const LONG_PAUSE: Duration = Duration::from_secs(2);

/// A case without what no other has: its title, and what is odd, which is given beside it, with the name by which its step
/// is known. `None` for what shares its program with nothing else.
fn parted(scenario: &Map<String, Value>) -> Option<(String, &'static str, &Value)> {
    let steps = scenario.get("steps")?.as_array()?;
    let mut odd = None;
    let mut key = String::new();
    for (name, value) in scenario.iter().filter(|(name, _)| *name != "title" && *name != "steps") {
        key.push_str(&format!("{name}: {value}\n"));
    }
    for step in steps {
        let Some((name, at)) = said(step) else {
            key.push_str(&format!("{step}\n"));
            continue;
        };
        if odd.replace((name, step.get(at)?)).is_some() {
            return None;
        }
        for (member, value) in step.as_object()?.iter().filter(|(member, _)| *member != at) {
            key.push_str(&format!("{member}: {value}, "));
        }
        key.push_str(&format!("{at}\n"));
    }
    let (name, said) = odd?;
    Some((key, name, said))
}

/// By which name a step is known that says what is odd, once or in rounds, and the member that has it.
fn said(step: &Value) -> Option<(&'static str, &str)> {
    let (head, what) = step.as_object()?.iter().next()?;
    match what.as_str() {
        Some(ROUND) if head == "each" => Some((ROUND, "in")),
        // Its rounds are in it.
        Some(BATCH) if head == "each" => Some((BATCH, "in")),
        _ if step.get("as")? == ODD && head.ends_with(" sends raw") => Some((ODD, head)),
        _ => None,
    }
}
