//! Findings that outlive a run: saved ones are played again, new ones are made small and saved.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, mpsc, watch};

use crate::check::{self, Options, Prepared};
use crate::cli::hub::{self, Heard};
use crate::cli::progress::Progress;
use crate::cli::signals::Signals;
use crate::cli::{Trouble, exit, files, print};
use crate::event::{ScenarioReport, Verdict};
use crate::fuzz::campaign::{Campaign, Stage};
use crate::fuzz::case::{Case, Cell};
use crate::fuzz::cause::Cause;
use crate::fuzz::outcome::Outcome;
use crate::fuzz::replay::{self, Replayed};
use crate::fuzz::saved::{self, Found};
use crate::fuzz::shrink;
use crate::fuzz::smaller::{self, Smaller};
use crate::report::text::count;
use crate::secret::Masker;
use crate::source::Sources;
use crate::{target, yaml};

#[derive(Args)]
pub struct SavedArgs {
    /// Play a saved finding again, and nothing else; of a folder, all of them
    #[arg(long, value_name = "FILE|DIR", conflicts_with_all = ["cases", "case", "reports"])]
    replay: Vec<PathBuf>,
    /// A folder of saved findings: they are played first, and what is found anew is saved there
    #[arg(long, value_name = "DIR")]
    regressions: Option<PathBuf>,
    /// Plays of each saved finding; what fails only sometimes is called not reproducible
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    plays: u32,
    /// How long new findings are made smaller, all together, before they are saved; 0s: not at all
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = target::parse_duration)]
    shrink_time: Duration,
}

/// A finding that was saved.
pub struct Saved {
    /// As the user would name it.
    path: String,
    protocol: String,
    /// What is wrong with it, where it cannot be read any more.
    scenario: Result<Map<String, Value>, String>,
}

impl SavedArgs {
    /// Nothing else is played.
    pub fn only(&self) -> bool {
        !self.replay.is_empty()
    }

    /// The findings that are played again. The folder of regressions is made where there is none.
    ///
    /// # Errors
    ///
    /// A file or folder is not there, or nobody can tell of which protocol it is.
    pub fn read(&self, campaigns: &[Arc<Campaign>], sources: &mut Sources) -> Result<Vec<Saved>, Trouble> {
        if let Some(folder) = &self.regressions {
            std::fs::create_dir_all(folder)
                .map_err(|error| Trouble::new(format!("failed to make the folder {}: {error}", folder.display())))?;
        }
        let mut paths = Vec::new();
        for place in self.replay.iter().chain(&self.regressions) {
            if place.is_dir() { paths.extend(within(place)?) } else { paths.push(place.clone()) }
        }
        paths.into_iter().map(|path| read(&path, campaigns, sources)).collect()
    }
}

/// The scenario files in a folder, in the order of their names.
fn within(folder: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let trouble = |error: std::io::Error| Trouble::new(format!("failed to read {}: {error}", folder.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(trouble)? {
        let path = entry.map_err(trouble)?.path();
        if path.extension().is_some_and(|end| end == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path, campaigns: &[Arc<Campaign>], sources: &mut Sources) -> Result<Saved, Trouble> {
    let shown = path.display().to_string();
    let file = files::read(path, sources)?;
    let stem = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let named = |campaign: &&Arc<Campaign>| stem.starts_with(&format!("{}-", campaign.pack().name));
    // Whoever names one protocol means it.
    let of = match campaigns {
        [only] => Some(only),
        several => several.iter().find(named),
    };
    let Some(campaign) = of else {
        return Err(Trouble::new(format!("of which protocol is {shown}?\n  help: --protocol NAME")));
    };
    let scenario = match yaml::parse(sources, file).map(|root| root.to_json()) {
        Ok(Value::Object(scenario)) => Ok(scenario),
        Ok(_) => Err("it is no scenario".to_owned()),
        Err(diagnostic) => Err(diagnostic.message),
    };
    Ok(Saved { path: shown, protocol: campaign.pack().name.clone(), scenario })
}

/// What playing on a hub takes, besides what is played.
pub struct Ground<'a> {
    pub hub: &'a Arc<Prepared>,
    pub options: &'a Arc<Options>,
    pub signals: &'a mut Signals,
    pub numbers: &'a Arc<AtomicU64>,
}

impl Ground<'_> {
    /// Does something on the hub, with its progress shown. What comes of it, unless it was cut off, and how often
    /// somebody asked to stop.
    async fn work<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &mut self,
        total: usize,
        work: impl FnOnce(Stage) -> F,
    ) -> Result<(Option<T>, usize), Trouble> {
        let (events, inbox) = mpsc::channel(256);
        let (stop, interrupt) = watch::channel(false);
        let stage = Stage { hub: Arc::clone(self.hub), options: Arc::clone(self.options), events, interrupt };
        let (done, mut result) = tokio::sync::oneshot::channel();
        let doing = work(stage);
        let running = tokio::spawn(async move {
            let _ = done.send(doing.await);
            Ok(())
        });
        let mut progress = Progress::new(total);
        let hear = |heard| match heard {
            Heard::Event(event) => progress.see(&event),
            Heard::Stopping => progress.line("stopping: Ctrl-C again to stop at once"),
        };
        let followed = hub::follow(running, inbox, &stop, self.signals, hear).await;
        progress.finish();
        Ok((result.try_recv().ok(), followed?))
    }
}

// ---- played again

/// Plays the findings of one protocol again, one after the other: each may bring the hub down.
pub async fn replay(
    arguments: &SavedArgs,
    campaign: &Arc<Campaign>,
    saved: &[Saved],
    ground: &mut Ground<'_>,
) -> Result<(Vec<(String, Replayed)>, usize), Trouble> {
    let own: Vec<&Saved> = saved.iter().filter(|saved| saved.protocol == campaign.pack().name).collect();
    let (mut told, mut asked_to_stop) = (Vec::new(), 0);
    for saved in own {
        if asked_to_stop > 0 {
            break;
        }
        let replayed = match &saved.scenario {
            Err(why) => Replayed::NotReproducible(format!("it can no longer be read: {why}")),
            Ok(scenario) => {
                let (campaign, scenario) = (Arc::clone(campaign), scenario.clone());
                let (numbers, id) = (Arc::clone(ground.numbers), id(&saved.path, &saved.protocol));
                let plays = arguments.plays;
                let work = move |stage| async move { played(&campaign, &id, &scenario, plays, &stage, &numbers).await };
                let (reports, asked) = ground.work(plays as usize, work).await?;
                asked_to_stop = asked;
                replay::judge(&reports.unwrap_or_default())
            }
        };
        told.push((saved.path.clone(), replayed));
    }
    Ok((told, asked_to_stop))
}

/// How a saved finding is called while it is played.
fn id(path: &str, protocol: &str) -> String {
    let stem = Path::new(path).file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    format!("{protocol}/{stem}")
}

async fn played(
    campaign: &Campaign,
    id: &str,
    scenario: &Map<String, Value>,
    plays: u32,
    stage: &Stage,
    numbers: &AtomicU64,
) -> Vec<ScenarioReport> {
    let scenario = if stage.hub.is_ours() { smaller::alone(scenario) } else { scenario.clone() };
    let mut reports = Vec::new();
    for _ in 0..plays {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let Some(report) = campaign.play(id, &scenario, number, stage).await else { break };
        reports.push(report);
    }
    reports
}

/// Prints what became of saved findings; the exit code that they alone would give.
pub fn tell(told: &[(String, Replayed)]) -> u8 {
    if told.is_empty() {
        return 0;
    }
    let mut text = format!("{} played again\n", count(told.len(), "saved finding"));
    for (path, replayed) in told {
        let what = match replayed {
            Replayed::StillFails { check, message } => format!("\n{:21}{check}: {message}", ""),
            Replayed::Fixed => String::new(),
            Replayed::NotReproducible(why) => format!("\n{:21}{why}", ""),
        };
        let _ = writeln!(text, "  {:18} {path}{what}", replayed.name());
    }
    print(&(text + "\n"));
    let any = |is: &dyn Fn(&Replayed) -> bool| told.iter().any(|(_, replayed)| is(replayed));
    match () {
        () if any(&|replayed| matches!(replayed, Replayed::StillFails { .. })) => 1,
        () if any(&|replayed| matches!(replayed, Replayed::NotReproducible(_))) => exit::INCONCLUSIVE,
        () => 0,
    }
}

/// Of two exit codes the one that says more: a failure, then that something could not be decided.
pub fn worse(one: u8, other: u8) -> u8 {
    if one == 1 || other == 1 { 1 } else { one.max(other) }
}

// ---- saved

/// What the files of a run say of it.
pub struct About<'a> {
    /// As reports name the hub.
    pub hub: &'a str,
    /// The words that fuzz it, without what chooses cases.
    pub command: &'a [String],
    pub masker: Masker,
    /// What was played again before: what still fails is not saved twice.
    pub told: &'a [(String, Replayed)],
}

/// A new finding on its way to its file.
struct New {
    cause: Cause,
    cell: Cell,
    case: Case,
    came: String,
    path: PathBuf,
}

/// Makes what a protocol's run found small, and saves it; the lines that say so, and how often somebody asked to stop.
pub async fn save(
    arguments: &SavedArgs,
    campaign: &Arc<Campaign>,
    outcome: &Outcome,
    about: &About<'_>,
    ground: &mut Ground<'_>,
) -> Result<(String, usize), Trouble> {
    let Some(folder) = &arguments.regressions else { return Ok((String::new(), 0)) };
    let new = new(campaign, outcome, folder, about);
    if new.is_empty() {
        return Ok((String::new(), 0));
    }
    let until = Instant::now() + arguments.shrink_time;
    let (of_campaign, numbers) = (Arc::clone(campaign), Arc::clone(ground.numbers));
    let of: Vec<_> = new
        .iter()
        .map(|new| {
            (
                new.case.scenario.clone(),
                new.cell,
                new.cause.clone(),
                id(&new.path.display().to_string(), &campaign.pack().name),
            )
        })
        .collect();
    let total = of.len();
    let work = move |stage: Stage| async move {
        // On a hub of somebody else's, one at a time: what one does to it must not look like another's doing.
        let at_once = if stage.hub.is_ours() { stage.options.jobs.min(AT_ONCE) } else { 1 };
        let small = Arc::new(Mutex::new(BTreeMap::new()));
        let make = |(index, (scenario, cell, cause, id)): (usize, (Map<String, Value>, Cell, Cause, String))| {
            let (campaign, stage, numbers) = (Arc::clone(&of_campaign), stage.clone(), Arc::clone(&numbers));
            let small = Arc::clone(&small);
            async move {
                let made = smaller::smaller(&campaign, &stage, &scenario, (cell, &cause), &id, &numbers, until).await;
                small.lock().await.insert(index, made);
            }
        };
        check::in_turn(of.into_iter().enumerate(), at_once, &stage.interrupt, make).await;
        let mut small = small.lock().await;
        std::mem::take(&mut *small)
    };
    let (small, asked_to_stop) = match arguments.shrink_time.is_zero() {
        true => (None, 0),
        false => ground.work(total, work).await?,
    };
    let mut small = small.unwrap_or_default();
    let mut text = String::new();
    let mut written: Vec<(Map<String, Value>, PathBuf)> = Vec::new();
    for (index, new) in new.iter().enumerate() {
        let asis = || Smaller { scenario: new.case.scenario.clone(), attempts: 0, again: true };
        let small = small.remove(&index).unwrap_or_else(asis);
        let plain = untitled(&small.scenario);
        // Made small, two findings may turn out to be one.
        match written.iter().find(|(known, _)| *known == plain) {
            Some((_, path)) => {
                let name = new.path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                let _ = writeln!(text, "  the same as {}: {name}", path.display());
            }
            None => {
                text.push_str(&write(campaign, new, &small, about)?);
                written.push((plain, new.path.clone()));
            }
        }
    }
    Ok((text, asked_to_stop))
}

/// Findings that are made small at a time, where each has a hub of its own.
const AT_ONCE: usize = 4;

fn untitled(scenario: &Map<String, Value>) -> Map<String, Value> {
    let mut untitled = scenario.clone();
    untitled.shift_remove("title");
    untitled
}

/// Findings of a run that get files; a hub with more is not helped by more.
const MOST: usize = 100;

/// What is worth a file: a failure that no saved finding shows already, under a name that is free.
fn new(campaign: &Campaign, outcome: &Outcome, folder: &Path, about: &About<'_>) -> Vec<New> {
    let mut taken: BTreeSet<PathBuf> = BTreeSet::new();
    let mut all: Vec<New> = Vec::new();
    for (cause, number, check) in outcome.found().filter(|(.., check)| check.verdict == Verdict::Fail) {
        let (Some(cell), Some(case)) = (campaign.plan.cell(number), campaign.plan.case(&campaign.material, number))
        else {
            continue;
        };
        let name = saved::file_name(&campaign.pack().name, &cause.oracle, &cause.message, &cause.oddity);
        let path = folder.join(&name);
        let shown = path.display().to_string();
        let known =
            about.told.iter().any(|(path, replayed)| *path == shown && matches!(replayed, Replayed::StillFails { .. }));
        if known || all.len() >= MOST {
            continue;
        }
        let others = (2..).map(|n| folder.join(format!("{}-{n}.yaml", name.trim_end_matches(".yaml"))));
        let free = std::iter::once(path).chain(others).find(|path| !taken.contains(path) && !path.exists());
        let Some(path) = free else { continue };
        taken.insert(path.clone());
        let came = match &check.detail {
            Some(detail) if !detail.received.is_empty() => format!("{}: {}", check.message, detail.received),
            _ => check.message.clone(),
        };
        all.push(New { cause: cause.clone(), cell, case, came, path });
    }
    all
}

/// Writes the file of a finding, and says what is in it.
fn write(campaign: &Campaign, new: &New, small: &Smaller, about: &About<'_>) -> Result<String, Trouble> {
    let pack = campaign.pack();
    let rule = new.cause.oracle.split(',').next().and_then(|id| pack.rules.get(id));
    let path = new.path.display().to_string();
    let found = Found {
        protocol: &pack.name,
        version: &pack.version,
        oracle: &new.cause.oracle,
        demands: rule.map_or("", |rule| &rule.text),
        message: &new.cause.message,
        oddity: &new.cause.oddity,
        odd: &new.case.odd,
        came: &new.came,
        seed: campaign.plan.seed,
        case: new.case.number,
        hub: about.hub,
        command: about.command,
        attempts: small.attempts,
    };
    std::fs::write(&new.path, saved::text(&found, &path, &small.scenario, &about.masker))
        .map_err(|error| Trouble::new(format!("failed to write {path}: {error}")))?;
    let what = match small.again {
        true => format!(
            "{} beyond the opening, after {}",
            count(shrink::beyond_opening(&small.scenario), "step"),
            count(small.attempts, "attempt")
        ),
        false => "as it was found: it did not fail again by itself".to_owned(),
    };
    Ok(format!("  saved {path}: {what}\n"))
}
