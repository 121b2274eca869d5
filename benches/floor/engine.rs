//! The load engine as a subject: one thread with connections, one that aggregates, one that validates.

use std::collections::BTreeMap;
use std::sync::Arc;

use hubproof::load::compile::{PlanTarget, compile_plan};
use hubproof::load::engine::{self, LoadRunSetup, RunClock, ValidationMode, WatchDecision};
use hubproof::load::ledger;
use hubproof::load::metrics::{CounterId, MessageCount};
use hubproof::load::plan::{self, PlanOverrides};
use hubproof::protocol::{Pack, PackFolder};
use hubproof::scenario;
use hubproof::syntax::share::Share;
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;

use crate::subjects::{ENGINE_WARM_UP, EchoTask};
use crate::wire;

/// Returns the CPU time in nanoseconds for the echoes of the task: measured per second, scaled to their number.
pub fn measure(task: &EchoTask, validate: bool) -> u64 {
    let mut sources = Sources::default();
    let folder = folder(&mut sources);
    let pack = Arc::new(Pack::load(&folder, &sources).0.unwrap());
    let shared = scenario::load_shared(&folder, &sources, &pack, &mut Vec::new());
    let root = yaml::parse(&sources, folder.scenarios["load/echo.yaml"]).unwrap();
    let (read, found) =
        plan::parse_load_plan("echo", &root, &shared, &pack, &|_| Err(std::io::ErrorKind::NotFound.into()));
    let (plan, script) =
        read.unwrap_or_else(|| panic!("{}", hubproof::syntax::diagnostic::render_all(&found, &sources, false)));
    let callers = vec![("caller".to_owned(), task.connections as u32)];
    let plan = plan.with_overrides(&PlanOverrides { population: callers, ..PlanOverrides::default() }).unwrap();
    let clock = RunClock::start();
    let keys = ledger::IdHasher::random();
    let (settings, stamp, deviations) = (BTreeMap::new(), "floor".to_owned(), Arc::default());
    let target = PlanTarget { settings, stamp, epoch_ms: 0, seed: 7, keys, deviations, masker: Arc::default() };
    let prepared = compile_plan(&plan, &script, &target)
        .unwrap_or_else(|found| panic!("{}", hubproof::syntax::diagnostic::render_all(&found, &sources, false)));
    let setup = LoadRunSetup {
        plan: Arc::new(plan),
        prepared: Arc::new(prepared),
        clock,
        epoch_ms: 0,
        endpoint: format!("ws://{}/", task.address).parse().unwrap(),
        deviations: Arc::default(),
        tls: None,
        sources: Vec::new(),
        shards: 1,
        share: Share::WHOLE,
        start_at: 0,
        seed: 7,
        validate: if validate { ValidationMode::All } else { ValidationMode::None },
        pack: Some(pack),
        ledger: ledger::LedgerConfig::default(),
    };
    let (to, _calls) = engine::hooks::hook_call_queue();
    let run = engine::start_run(setup, to).unwrap();
    let stopper = run.control();
    let (mut since, mut cost) = (None, None);
    let outcome = run
        .aggregate(|live| {
            let count = live.series.total().count(&live.series.layout, CounterId::Message(0, MessageCount::Received));
            match since {
                None if count >= ENGINE_WARM_UP => since = Some((count, wire::cpu_time())),
                Some((before, spent)) if cost.is_none() && count - before >= task.echoes => {
                    cost = Some((wire::cpu_time() - spent) * task.echoes / (count - before));
                    stopper.stop();
                }
                _ => {}
            }
            WatchDecision::Continue
        })
        .unwrap();
    let account = outcome.account;
    assert!(account.is_clean() && account.completed > task.echoes, "{account:?}");
    if let Some(checked) = outcome.checked {
        assert!(checked.invalid == 0 && checked.checked > task.echoes, "{checked:?}");
    }
    cost.unwrap()
}

/// The pack of the echo protocol, as the program holds it.
fn folder(sources: &mut Sources) -> PackFolder {
    let mut folder = PackFolder { name: "echo".to_owned(), ..PackFolder::default() };
    for (path, text) in [
        ("asyncapi.yaml", include_str!("echo/asyncapi.yaml")),
        ("rules.yaml", include_str!("echo/rules.yaml")),
        ("messages/echo.schema.json", include_str!("echo/messages/echo.schema.json")),
    ] {
        folder.pack.insert(path.to_owned(), sources.add(path, text));
    }
    for (path, text) in [
        ("shared.yaml", include_str!("echo/scenarios/shared.yaml")),
        ("load/echo.yaml", include_str!("echo/scenarios/load/echo.yaml")),
    ] {
        folder.scenarios.insert(path.to_owned(), sources.add(path, text));
    }
    folder
}
