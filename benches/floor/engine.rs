//! The load engine as a subject: one thread with connections, one that aggregates, one that validates.

use std::collections::BTreeMap;
use std::sync::Arc;

use hubproof::load::compile::{Target, prepare};
use hubproof::load::engine::{self, Clock, Order, Setup, Validate};
use hubproof::load::ledger;
use hubproof::load::metrics::{Count, MessageCount};
use hubproof::load::plan::{self, Overrides};
use hubproof::protocol::{Folder, Pack};
use hubproof::scenario;
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;

use crate::subjects::{Task, WARM_UP};
use crate::wire;

/// Returns the CPU time in nanoseconds for the echoes of the task: measured per second, scaled to their number.
pub fn measure(task: &Task, validate: bool) -> u64 {
    let mut sources = Sources::default();
    let folder = folder(&mut sources);
    let pack = Arc::new(Pack::load(&folder, &sources).0.unwrap());
    let shared = scenario::shared(&folder, &sources, &pack, &mut Vec::new());
    let root = yaml::parse(&sources, folder.scenarios["load/echo.yaml"]).unwrap();
    let (read, found) = plan::read("echo", &root, &shared, &pack, &|_| Err("no files".to_owned()));
    let (plan, script) =
        read.unwrap_or_else(|| panic!("{}", hubproof::syntax::diagnostic::render_all(&found, &sources, false)));
    let callers = vec![("caller".to_owned(), task.connections as u32)];
    let plan = plan.with(&Overrides { population: callers, ..Overrides::default() }).unwrap();
    let clock = Clock::start();
    let keys = ledger::Keys::default();
    let target = Target { settings: BTreeMap::new(), stamp: "floor".to_owned(), epoch_ms: 0, seed: 7, keys };
    let prepared = prepare(&plan, &script, &target)
        .unwrap_or_else(|found| panic!("{}", hubproof::syntax::diagnostic::render_all(&found, &sources, false)));
    let setup = Setup {
        plan: Arc::new(plan),
        prepared: Arc::new(prepared),
        clock,
        epoch_ms: 0,
        endpoint: format!("ws://{}/", task.address).parse().unwrap(),
        deviations: Arc::default(),
        tls: None,
        sources: Vec::new(),
        shards: 1,
        seed: 7,
        validate: if validate { Validate::All } else { Validate::None },
        pack: Some(pack),
        ledger: ledger::Config::default(),
    };
    let (to, _calls) = engine::hooks::queue();
    let run = engine::start(setup, to).unwrap();
    let stopper = run.stopper();
    let (mut since, mut cost) = (None, None);
    let outcome = run
        .aggregate(|live| {
            let count = live.series.total().count(&live.series.layout, Count::Message(0, MessageCount::Received));
            match since {
                None if count >= WARM_UP => since = Some((count, wire::cpu())),
                Some((before, spent)) if cost.is_none() && count - before >= task.echoes => {
                    cost = Some((wire::cpu() - spent) * task.echoes / (count - before));
                    stopper.stop();
                }
                _ => {}
            }
            Order::GoOn
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
fn folder(sources: &mut Sources) -> Folder {
    let mut folder = Folder { name: "echo".to_owned(), ..Folder::default() };
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
