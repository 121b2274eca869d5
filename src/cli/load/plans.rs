//! Selects a plan: one of the protocol's own, or a file.

use std::path::Path;
use std::sync::Arc;

use super::super::CliError;
use super::super::protocol_files::{self, ValidProtocol};
use crate::load::plan::{self, Plan, PlanScript};
use crate::observe::jobs::JobRule;
use crate::protocol::{Pack, PackFolder};
use crate::scenario;
use crate::syntax::diagnostic::{Diagnostic, has_errors, suggest};
use crate::syntax::source::{FileId, Sources};
use crate::syntax::yaml;
use crate::transport::files::read_text;

/// The most bytes of a feeder, which is kept in memory.
const MAX_FEEDER: usize = 128 << 20;
/// The plan that every protocol has.
const IDLE_PLAN: &str = "idle";

/// Returns the names of the protocol's plans, with their files.
fn built_in_plans<'a>(protocol: &'a ValidProtocol, sources: &mut Sources) -> Vec<(&'a str, FileId)> {
    let name = |path: &'_ String| path.strip_prefix("load/")?.strip_suffix(".yaml").map(str::len);
    let files = protocol.folder.scenarios.iter();
    let own = files.filter_map(|(path, file)| name(path).map(|length| (&path[5..5 + length], *file)));
    own.chain([(IDLE_PLAN, sources.add("idle.yaml", plan::IDLE_PLAN))]).collect()
}

/// Reads the named plan, or the first one; returns also its file.
///
/// # Errors
///
/// There is no such plan, or it has errors.
pub fn choose_plan(
    named: Option<&str>,
    protocol: &ValidProtocol,
    sources: &mut Sources,
) -> Result<(Plan, PlanScript, FileId), CliError> {
    let ready = built_in_plans(protocol, sources);
    let list: Vec<&str> = ready.iter().map(|(name, _)| *name).collect();
    let known = format!("{} has the plans {}; to use your own: --plan FILE", protocol.pack.name, list.join(", "));
    let named = named.or(list.first().copied()).unwrap_or(IDLE_PLAN);
    let (id, file) = match ready.iter().find(|(name, _)| *name == named) {
        Some((name, file)) => (format!("{}/load/{name}", protocol.pack.name), *file),
        None if Path::new(named).is_file() => (named.to_owned(), protocol_files::read_file(Path::new(named), sources)?),
        None => {
            let help = suggest(named, list.iter().copied(), &known);
            return Err(CliError::usage(format!("there is no plan or file `{named}`"), help));
        }
    };
    let (plan, script) = parse_plan(&id, file, protocol, sources)?;
    Ok((plan, script, file))
}

/// Returns the mistakes in the plans of a pack.
pub fn lint_plans(folder: &PackFolder, pack: &Arc<Pack>, sources: &Sources) -> Vec<Diagnostic> {
    let plans = folder.scenarios.iter().filter(|(path, _)| path.starts_with("load/") && path.ends_with(".yaml"));
    plans.flat_map(|(path, file)| read_plan(path, *file, folder, pack, sources).1).collect()
}

fn parse_plan(
    id: &str,
    file: FileId,
    protocol: &ValidProtocol,
    sources: &Sources,
) -> Result<(Plan, PlanScript), CliError> {
    let (read, found) = read_plan(id, file, &protocol.folder, &protocol.pack, sources);
    match read {
        Some(read) if !has_errors(&found) => {
            protocol_files::print_warnings(found, sources);
            Ok(read)
        }
        _ => Err(CliError::from_diagnostics(&found, sources)),
    }
}

/// Reads a plan with its feeders, whose paths are relative to the plan's file.
fn read_plan(
    id: &str,
    file: FileId,
    folder: &PackFolder,
    pack: &Arc<Pack>,
    sources: &Sources,
) -> (Option<(Plan, PlanScript)>, Vec<Diagnostic>) {
    let root = match yaml::parse(sources, file) {
        Ok(root) => root,
        Err(found) => return (None, vec![found]),
    };
    let mut diagnostics = Vec::new();
    let shared = scenario::load_shared(folder, sources, pack, &mut diagnostics);
    // Errors of shared.yaml were reported when the scenarios were loaded.
    let folder = Path::new(&sources.file(file).path).parent().map(Path::to_owned).unwrap_or_default();
    let readable = protocol_files::readable_root(&folder);
    let open = |path: &str| {
        let path = folder.join(path);
        protocol_files::check_within(&path, &readable)?;
        read_text(&path, MAX_FEEDER)
    };
    plan::parse_load_plan(id, &root, &shared, pack, &open)
}

/// Returns which messages of a protocol are about jobs, as the marks in its plans say. A plan with errors says nothing.
pub fn job_rules(protocol: &ValidProtocol, sources: &Sources) -> Vec<JobRule> {
    let plans =
        protocol.folder.scenarios.iter().filter(|(path, _)| path.starts_with("load/") && path.ends_with(".yaml"));
    let mut rules: Vec<JobRule> = Vec::new();
    for (path, file) in plans {
        let (read, _) = read_plan(path, *file, &protocol.folder, &protocol.pack, sources);
        for rule in read.iter().flat_map(|(_, script)| script.job_rules()) {
            if rules.iter().all(|known| (known.message, known.by) != (rule.message, rule.by)) {
                rules.push(rule);
            }
        }
    }
    rules
}

/// Renders the output of `--list`.
///
/// # Errors
///
/// One of the plans has errors.
pub fn render_list(protocols: &[ValidProtocol], sources: &mut Sources) -> Result<String, CliError> {
    use std::fmt::Write as _;
    let mut out = String::new();
    for protocol in protocols {
        let _ = writeln!(out, "{} {}", protocol.pack.name, protocol.pack.version);
        for (name, file) in built_in_plans(protocol, sources) {
            let (plan, _) = parse_plan(&format!("{}/load/{name}", protocol.pack.name), file, protocol, sources)?;
            let _ = writeln!(out, "  {name:20} {}", plan.title);
            let roles: Vec<String> =
                plan.roles.iter().map(|role| format!("{} {}", role.population.number, role.name)).collect();
            let rate = plan.roles.iter().filter_map(|role| role.arrivals.as_ref()).flat_map(|all| &all.stages);
            let rate = rate.map(|stage| stage.from.max(stage.to)).fold(0.0, f64::max);
            let rate = if rate > 0.0 { format!(", {rate}/s") } else { String::new() };
            let _ = writeln!(out, "  {:20} {}{rate}, {} s", "", roles.join(", "), plan.phases.duration.as_secs_f64());
        }
    }
    Ok(out)
}
