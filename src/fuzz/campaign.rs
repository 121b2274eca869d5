//! Plays cases: each is made when its turn comes, read like any scenario, and played by the machinery of `hubproof
//! check`. What comes out of it is the report of a scenario, whose id says which case it was.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};

use super::material::Material;
use super::plan::Plan;
use super::{against, oracle, text};
use crate::check::{self, Job, Options, Prepared};
use crate::diagnostic::Diagnostic;
use crate::event::{Event, ScenarioReport, Verdict};
use crate::pack::{Folder, Pack, Place};
use crate::scenario::read::{SharedFile, read};
use crate::scenario::{self, Program};
use crate::source::{FileId, Sources, Span};
use crate::yaml;

/// One protocol, with all that its cases are made of.
pub struct Campaign {
    pub material: Material,
    pub plan: Plan,
    shared: SharedFile,
    /// Stands for the file of whatever case: places in programs and reports are places in it.
    file: FileId,
}

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
        let material = Material::read(folder, sources, &pack);
        let plan = Plan::new(&material, seed, &|_| true);
        let file = sources.add("case.yaml", "");
        Ok(Self { material, plan, shared, file })
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
        let text = text::scenario(scenario);
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
        let job = self.program(id, scenario).and_then(|program| {
            Job::new(&Arc::new(program), 1, &stage.hub, &stage.options).map_err(|error| error.to_string())
        });
        // Only tells cases of one run apart, so that it may begin anew where numbers are small.
        let number = usize::try_from(number).unwrap_or(usize::MAX / 2);
        match job {
            Ok(job) => job.play(number, &stage.options, &stage.events, stage.interrupt.clone()).await,
            Err(mistake) => Some(self.mistaken(id, mistake)),
        }
    }

    /// Turns the places of a report into places of a file that holds its scenario, which is added to `sources`.
    pub fn placed(&self, report: &mut ScenarioReport, scenario: &Map<String, Value>, sources: &mut Sources) {
        let name = report.id.rsplit('/').next().unwrap_or_default();
        let file = sources.add(format!("{name}.yaml"), text::scenario(scenario));
        let put = |span: &mut Span| {
            if span.file == self.file {
                span.file = file;
            }
        };
        put(&mut report.span);
        report.checks.iter_mut().filter_map(|check| check.span.as_mut()).for_each(put);
        report.cause.iter_mut().filter_map(|cause| cause.span.as_mut()).for_each(put);
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

/// Plays the cases of these numbers, as many at a time as the options say, and reports on the stage's events as
/// [`check::run`] does; ends early, but in order, when it is interrupted. Cases are made as their turns come, never all at
/// once.
pub async fn run(campaign: Arc<Campaign>, stage: Stage, numbers: impl Iterator<Item = u64>) {
    let play = |number: u64| {
        let (campaign, stage) = (Arc::clone(&campaign), stage.clone());
        async move {
            let Some(case) = campaign.plan.case(&campaign.material, number) else { return };
            let report = match &stage.against {
                Some(other) => against::play(&campaign, &case.scenario, number, &stage, other).await,
                None => campaign.play(&campaign.id(number), &case.scenario, number, &stage).await,
            };
            if let Some(report) = report {
                let _ = stage.events.send(Event::Finished(Box::new(report))).await;
            }
        }
    };
    check::in_turn(numbers, stage.options.jobs, &stage.interrupt, play).await;
}
