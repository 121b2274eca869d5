//! Saved findings: replays the findings of earlier runs, and knows where to save new ones.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::session::PlaySession;
use crate::cli::{CliError, print_to_stdout, protocol_files};
use crate::config;
use crate::fuzz::campaign::{Campaign, PlayEnvironment, shrink_findings};
use crate::fuzz::case_scenario::CaseScenario;
use crate::judge::PlayId;
use crate::judge::saved::{self, ReplayResult};
use crate::outcome::ScenarioReport;
use crate::report::text::format_count;
use crate::syntax::source::Sources;
use crate::syntax::yaml;

#[derive(Args)]
pub struct ArchiveArgs {
    /// Only replay a saved finding, or all findings in a folder
    #[arg(long, value_name = "FILE|DIR", conflicts_with_all = ["cases", "case", "time", "reports", "print_cases"])]
    replay: Vec<PathBuf>,
    /// Folder of saved findings: replay them first, and save new findings there
    #[arg(long, value_name = "DIR")]
    regressions: Option<PathBuf>,
    /// Replay each saved finding N times; one that fails only sometimes is reported as not reproducible
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    plays: u32,
    /// Total time for shrinking new findings before they are saved; 0s disables shrinking
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = config::parse_duration)]
    shrink_time: Duration,
}

/// Saved findings, and the results of replaying them.
pub struct FindingArchive {
    saved: Vec<SavedFinding>,
    plays: u32,
    pub(super) folder: Option<PathBuf>,
    pub(super) shrink_time: Duration,
    only: bool,
    /// Results, with the path of each finding.
    replayed: Vec<(String, ReplayResult)>,
}

struct SavedFinding {
    /// The path as the user gave it.
    path: String,
    protocol: String,
    /// The scenario of the finding, or why its file can no longer be read.
    scenario: Result<CaseScenario, String>,
}

impl ArchiveArgs {
    /// Reads the findings to replay, and creates the folder of regressions if it does not exist.
    ///
    /// # Errors
    ///
    /// A file or folder does not exist, or the protocol of a finding is not known.
    pub fn read_archive(&self, campaigns: &[Arc<Campaign>], sources: &mut Sources) -> Result<FindingArchive, CliError> {
        if let Some(folder) = &self.regressions {
            std::fs::create_dir_all(folder).map_err(|error| {
                CliError::failed(format!("failed to create the folder {}", folder.display()), error)
            })?;
        }
        let mut paths = Vec::new();
        for place in self.replay.iter().chain(&self.regressions) {
            if place.is_dir() { paths.extend(finding_files(place)?) } else { paths.push(place.clone()) }
        }
        let saved: Result<Vec<SavedFinding>, CliError> =
            paths.into_iter().map(|path| read_finding(&path, campaigns, sources)).collect();
        Ok(FindingArchive {
            saved: saved?,
            plays: self.plays,
            folder: self.regressions.clone(),
            shrink_time: self.shrink_time,
            only: !self.replay.is_empty(),
            replayed: Vec::new(),
        })
    }
}

/// Returns the scenario files in a folder, sorted by name.
fn finding_files(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let unreadable = |error: std::io::Error| CliError::failed(format!("failed to read {}", folder.display()), error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|end| end == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_finding(path: &Path, campaigns: &[Arc<Campaign>], sources: &mut Sources) -> Result<SavedFinding, CliError> {
    let shown = path.display().to_string();
    let file = protocol_files::read_file(path, sources)?;
    let stem = file_stem(path);
    let named = |campaign: &&Arc<Campaign>| stem.starts_with(&format!("{}-", campaign.pack().name));
    // With a single protocol, all files belong to it.
    let of = match campaigns {
        [only] => Some(only),
        several => several.iter().find(named),
    };
    let Some(campaign) = of else {
        return Err(CliError::usage(format!("the name of {shown} does not tell its protocol"), "--protocol NAME"));
    };
    let scenario = match yaml::parse(sources, file).map(|root| root.to_json()) {
        Ok(Value::Object(root)) => CaseScenario::read(root),
        Ok(_) => Err("it is not a scenario".to_owned()),
        Err(diagnostic) => Err(diagnostic.message),
    };
    Ok(SavedFinding { path: shown, protocol: campaign.pack().name.clone(), scenario })
}

/// Returns the name of a file without its extension.
pub fn file_stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

impl FindingArchive {
    /// Whether the run only replays saved findings.
    pub fn only_replays(&self) -> bool {
        self.only
    }

    /// Returns how long shrinking new findings may take; `None` if they are not shrunk.
    pub fn time_for_shrinking(&self) -> Option<Duration> {
        self.folder.as_ref().map(|_| self.shrink_time).filter(|time| !time.is_zero())
    }

    /// Replays the findings of one protocol and prints the results. It replays them one after the other, because each
    /// may bring the hub down. Returns how often the user interrupted.
    ///
    /// # Errors
    ///
    /// A defect of hubproof.
    pub async fn replay(&mut self, campaign: &Arc<Campaign>, session: &mut PlaySession<'_>) -> Result<usize, CliError> {
        let begun = self.replayed.len();
        let mut asked_to_stop = 0;
        for saved in self.saved.iter().filter(|saved| saved.protocol == campaign.pack().name) {
            if asked_to_stop > 0 {
                break;
            }
            let replayed = match &saved.scenario {
                Err(why) => ReplayResult::NotReproducible(format!("it can no longer be read: {why}")),
                Ok(scenario) => {
                    let id = format!("{}/{}", saved.protocol, file_stem(Path::new(&saved.path)));
                    let (campaign, scenario, plays) = (Arc::clone(campaign), scenario.clone(), self.plays);
                    let (numbers, what) = (Arc::clone(&session.numbers), format!("replaying {}", saved.path));
                    let work = move |environment| async move {
                        play_repeatedly(&campaign, &id, &scenario, plays, &environment, &numbers).await
                    };
                    let (asked, reports) = session.run_work(what, work).await?;
                    asked_to_stop = asked;
                    let reports = reports.unwrap_or_default();
                    let played = reports.iter().filter(|report| !report.interrupted).count();
                    match usize::try_from(self.plays) {
                        Ok(plays) if played < plays => ReplayResult::NotReproducible(format!(
                            "the run ended after {played} of {}",
                            format_count(plays, "play")
                        )),
                        _ => saved::judge_plays(&reports),
                    }
                }
            };
            self.replayed.push((saved.path.clone(), replayed));
        }
        if !session.quiet || self.only {
            print_results(&self.replayed[begun..]);
        }
        Ok(asked_to_stop)
    }

    /// Whether a saved finding was replayed and still fails.
    pub fn still_fails(&self, path: &Path) -> bool {
        let path = path.display().to_string();
        self.replayed
            .iter()
            .any(|(known, replayed)| *known == path && matches!(replayed, ReplayResult::StillFails { .. }))
    }

    /// Returns the exit code for the saved findings alone.
    pub fn exit_code(&self) -> u8 {
        saved::exit_code(self.replayed.iter().map(|(_, result)| result))
    }
}

async fn play_repeatedly(
    campaign: &Campaign,
    id: &str,
    scenario: &CaseScenario,
    plays: u32,
    environment: &PlayEnvironment,
    numbers: &AtomicU64,
) -> Vec<ScenarioReport> {
    let scenario =
        if environment.hub.can_start_hubs() { shrink_findings::with_exclusive_hub(scenario) } else { scenario.clone() };
    let mut reports = Vec::new();
    for _ in 0..plays {
        let play = PlayId::shrink(numbers.fetch_add(1, Ordering::Relaxed));
        let Some(report) = campaign.play(id, &scenario, play, environment).await else { break };
        reports.push(report);
    }
    reports
}

fn print_results(replayed: &[(String, ReplayResult)]) {
    if replayed.is_empty() {
        return;
    }
    let mut text = format!("{} replayed\n", format_count(replayed.len(), "saved finding"));
    for (path, replayed) in replayed {
        let what = match replayed {
            ReplayResult::StillFails { check, message } => format!("\n{:21}{check}: {message}", ""),
            ReplayResult::Fixed => String::new(),
            ReplayResult::NotReproducible(why) => format!("\n{:21}{why}", ""),
        };
        let _ = writeln!(text, "  {:18} {path}{what}", replayed.name());
    }
    print_to_stdout(&(text + "\n"));
}
