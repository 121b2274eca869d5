//! Measures how many cases per second run against a hub over TCP loopback, with all oracles, and where the time goes.
//! `fresh`: each on its own connection, after the opening, next to an observer client that stays connected. `kept`:
//! many on one connection, in batches. `alone`: each in its own conversation, with all its actors, an observer
//! client and a new client. The hub is the reference server on separate threads of this process, so that the figures
//! contain the costs of both sides and can be divided between them.
//!
//! `cargo bench --bench fuzz -- [CASES] [fresh|kept|alone] [PROTOCOL..] [-j JOBS]`; `--test` plays a few.
//!
//! How to read a line: `cases/s` is by the clock, with `jobs` cases at a time, and is unreliable while other programs
//! use the machine; `CPU/case` is the time of all threads of both sides per case, kernel included. `could` is the rate
//! at which two otherwise idle cores would play. The shares are of that CPU time: `making` is the time for making the
//! same cases, `client` that of the other threads that play and judge (with a hub started for an exclusive case), `hub`
//! that of the hub's threads; `kernel` is the part of the total in system calls, almost all of it for sockets.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../tests/support/disk.rs"]
mod disk;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hubproof::check::PlayOptions;
use hubproof::config;
use hubproof::fuzz::actors::{BATCH_VARIABLE, ROUND_VARIABLE};
use hubproof::fuzz::campaign::{self, Campaign, PlayEnvironment};
use hubproof::fuzz::case::{FuzzCase, FuzzCell, MutationKind};
use hubproof::fuzz::placement::Placement;
use hubproof::hub::prepare::TestedHub;
use hubproof::interpreter::KEPT_CHARS;
use hubproof::outcome::Verdict;
use hubproof::reference::hubs::EmbeddedHubs;
use hubproof::reference::setup::ReferenceSetups;
use hubproof::report::events::ScenarioEvent;
use hubproof::scenario::ScenarioSet;
use hubproof::scenario::parse::verbs::StepVerb;
use hubproof::syntax::source::Sources;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Protocols, with the conversations at a time for `alone` and for `kept`: enough that waiting for an absent answer
/// delays no other conversation, and fewer if the hub broadcasts to all connections.
const PROTOCOLS: [(&str, usize, usize); 5] =
    [("qi", 128, 32), ("concierge", 8, 8), ("airavata", 16, 8), ("emprops", 192, 32), ("gator", 96, 4)];
/// Cores that both sides share.
const CORES: usize = 2;

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let jobs_given: Option<usize> = words.iter().position(|word| word == "-j").map(|at| {
        words.remove(at);
        let number = (at < words.len()).then(|| words.remove(at));
        number.and_then(|number| number.parse().ok()).expect("-j takes a number")
    });
    let few = words.iter().any(|word| word == "--test");
    let asked = words.iter().find_map(|word| word.parse().ok());
    let cases: usize = if few { 20 } else { asked.unwrap_or(5000) };
    let known = |name: &str| PROTOCOLS.iter().any(|(protocol, ..)| *protocol == name);
    let only: Vec<&String> = words.iter().filter(|word| known(word)).collect();
    let asked = |protocol: &str| only.is_empty() || only.iter().any(|word| *word == protocol);
    let all = !KINDS.iter().any(|kind| words.iter().any(|asked| asked == kind));
    for kind in KINDS.into_iter().filter(|kind| all || words.iter().any(|asked| asked == kind)) {
        println!("{kind:<10}  jobs  cases  cases/s  CPU/case  could/s  making  client   hub  kernel");
        for (protocol, jobs, kept) in PROTOCOLS.into_iter().filter(|(protocol, ..)| asked(protocol)) {
            // A conversation with many mutated messages has dozens of them.
            let (jobs, conversations) = match kind {
                "alone" => (jobs, cases),
                "kept" => (kept, cases.div_ceil(10)),
                _ => (jobs.min(FRESH), cases.div_ceil(10)),
            };
            let jobs = jobs_given.unwrap_or(jobs);
            let is_of = |placement| match placement {
                Placement::Anew => "fresh",
                Placement::Kept => "kept",
                _ => "alone",
            };
            // Connection churn sends hardly any messages.
            let sends = |cell: FuzzCell| !matches!(cell.mutation, MutationKind::Churn(_));
            run(protocol, jobs, conversations, &|cell| sends(cell) && is_of(cell.placement) == kind);
        }
    }
}

const KINDS: [&str; 3] = ["fresh", "kept", "alone"];
/// The largest number of conversations at a time for `fresh`: some wait a moment for an answer that the document does
/// not demand.
const FRESH: usize = 16;

fn run(protocol: &str, jobs: usize, conversations: usize, wanted: &dyn Fn(FuzzCell) -> bool) {
    let mut sources = Sources::default();
    let folder = disk::protocol_folder(protocol, &mut sources);
    let campaign = Arc::new(Campaign::new(&folder, &mut sources, 1, Default::default()).ok().unwrap());
    let before = cpu("");
    let numbers = || campaign.scheduler.numbers(wanted).take(conversations);
    let made = numbers().filter_map(|number| campaign.scheduler.case(&campaign.corpus, number));
    let cases: usize = made.map(|case| case_count(&case)).sum();
    let making = cpu("").since(before).total();

    let setups = ReferenceSetups::from_folder(&folder, &sources).ok().unwrap();
    let scenarios = ScenarioSet::load(&folder, &sources, campaign.pack());
    let (ours, theirs) = (runtime("fuzz"), runtime("hub"));
    let name = protocol.to_owned();
    let started = theirs.spawn(async move { (EmbeddedHubs::start(&name, &setups, None).await.unwrap(), setups) });
    let (hubs, setups) = ours.block_on(started).unwrap();
    let file = sources.add("reference server", setups.render_target_file(protocol, hubs.addresses()));
    let read = |path: &str| std::fs::read_to_string(path);
    let target = config::parse(&mut sources, file, &[], &|name| std::env::var(name).ok(), &read).ok().unwrap();
    let (pack, shared) = (Arc::clone(campaign.pack()), Arc::clone(&scenarios.shared));
    let hubs = Arc::new(hubs);
    let embedded = Some(Arc::clone(&hubs));
    let hub = TestedHub { embedded, ..TestedHub::new(pack, shared, target) };
    let hub = hubproof::hub::prepare::prepare_hub(&hub).unwrap();

    let (began, at) = (Instant::now(), ["fuzz", "hub"].map(cpu));
    ours.block_on(async {
        let (events, inbox) = mpsc::channel(256);
        let (_stop, interrupt) = watch::channel(false);
        let stage = PlayEnvironment {
            hub,
            options: Arc::new(options(jobs)),
            against: None,
            service_probes: None,
            events,
            interrupt,
        };
        let running = tokio::spawn(campaign::run_cases(Arc::clone(&campaign), stage, numbers(), || false));
        tokio::spawn(drain_events(inbox)).await.unwrap();
        running.await.unwrap();
    });
    let took = began.elapsed();
    let (client, server) = (cpu("fuzz").since(at[0]), cpu("hub").since(at[1]));
    ours.block_on(hubs.shutdown());
    let all = client.total() + server.total();
    // CPU times have a resolution of 10 ms, which is too coarse for a few cases.
    if all < 1.0 {
        println!("{protocol:<10} {jobs:>5} {cases:>6} {:>8.0}", cases as f64 / took.as_secs_f64());
        return;
    }
    let share = |part: f64| format!("{:.0} %", 100.0 * part / all);
    println!(
        "{protocol:<10} {jobs:>5} {cases:>6} {:>8.0} {:>6.2} ms {:>8.0} {:>7} {:>7} {:>5} {:>7}",
        cases as f64 / took.as_secs_f64(),
        all * 1000.0 / cases as f64,
        CORES as f64 * cases as f64 / all,
        share(making),
        share(client.total() - making),
        share(server.total()),
        share(client.kernel + server.kernel),
    );
}

fn runtime(name: &str) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(CORES).thread_name(name).enable_all().build().unwrap()
}

fn options(jobs: usize) -> PlayOptions {
    PlayOptions {
        variations: hubproof::check::VariationChoice::None,
        variation_time: Duration::ZERO,
        jobs,
        stretch: 1.0,
        repeat: 1,
        limit: Duration::from_secs(120),
        stated_only: false,
        trace: false,
        kept_chars: KEPT_CHARS,
        persistent: false,
        shorten: false,
        destructive: false,
        on_any_carrier: true,
        replay_time: hubproof::judge::REPLAY_TIME,
        stamp: "bench".to_owned(),
        // Tokens in cases have to be valid by the hub's clock.
        now_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64),
        comparer: None,
    }
}

/// Returns the number of cases in a conversation.
fn case_count(case: &FuzzCase) -> usize {
    let each = case
        .scenario
        .steps
        .iter()
        .filter(|step| [ROUND_VARIABLE, BATCH_VARIABLE].map(Some).contains(&step.message(StepVerb::Each)));
    let rounds = each.filter_map(|step| step.option("in")?.as_array()).flatten();
    rounds.map(|round| round.as_array().map_or(1, Vec::len)).sum::<usize>().max(1)
}

/// Receives all events; no case may fail.
async fn drain_events(mut inbox: mpsc::Receiver<ScenarioEvent>) {
    while let Some(event) = inbox.recv().await {
        if let ScenarioEvent::Finished(report) = event {
            assert_ne!(report.verdict, Verdict::Fail, "{}", report.title);
        }
    }
}

/// CPU time in seconds.
#[derive(Clone, Copy, Default)]
struct CpuTime {
    user: f64,
    kernel: f64,
}

impl CpuTime {
    fn total(self) -> f64 {
        self.user + self.kernel
    }

    fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, kernel: self.kernel - before.kernel }
    }
}

/// Returns the CPU time of the living threads of this name, or of the process without a name; zero if unknown.
fn cpu(name: &str) -> CpuTime {
    if name.is_empty() {
        return read_stat("/proc/self/stat").map_or_else(CpuTime::default, |(_, cpu)| cpu);
    }
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let found = threads.filter_map(|thread| read_stat(&format!("{}/stat", thread.path().display())));
    found.filter(|(thread, _)| thread == name).fold(CpuTime::default(), |sum, (_, cpu)| CpuTime {
        user: sum.user + cpu.user,
        kernel: sum.kernel + cpu.kernel,
    })
}

/// Reads name and CPU time of a process or a thread. The unit is 10 ms on every Linux.
fn read_stat(path: &str) -> Option<(String, CpuTime)> {
    let stat = std::fs::read_to_string(path).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    let cpu = CpuTime { user: ticks(11) / 100.0, kernel: ticks(12) / 100.0 };
    Some((head.split_once('(')?.1.to_owned(), cpu))
}
