//! How many cases a second are played against a hub over TCP loopback, with all oracles, on connections of their own, the
//! hub being the reference server in this very process: both sides' costs are in the numbers.
//!
//! `cargo bench --bench fuzz -- [CASES]`; `--test` plays a few.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../tests/on_disk.rs"]
mod on_disk;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hubproof::check::{self, EmbeddedHubs, Options, Subject};
use hubproof::embedded::Setups;
use hubproof::event::{Event, Verdict};
use hubproof::fuzz::campaign::{self, Campaign, Stage};
use hubproof::interpret::KEPT;
use hubproof::scenario::Scenarios;
use hubproof::source::Sources;
use hubproof::target;
use tokio::sync::{mpsc, watch};

const PROTOCOLS: [&str; 5] = ["qi", "concierge", "airavata", "emprops", "gator"];
/// Cases at a time: enough that nobody waits for one that listens to silence.
const JOBS: usize = 64;

fn main() {
    let few = std::env::args().any(|word| word == "--test");
    let asked = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let cases = if few { 20 } else { asked.unwrap_or(5000) };
    println!("protocol     cases  cases/s  CPU/case  made/s");
    for protocol in PROTOCOLS {
        let mut sources = Sources::default();
        let folder = on_disk::folder(protocol, &mut sources);
        let campaign = Arc::new(Campaign::new(&folder, &mut sources, 1).ok().unwrap());
        // Only making them, on one core.
        let began = Instant::now();
        let made = campaign.plan.numbers(&|_| true).take(cases);
        let made = made.filter(|number| campaign.plan.case(&campaign.material, *number).is_some()).count();
        let making = began.elapsed();
        let setups = Setups::read(&folder, &sources).ok().unwrap();
        let scenarios = Scenarios::load(&folder, &sources, campaign.pack());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (began, before) = (Instant::now(), cpu());
        let played = runtime.block_on(async {
            let hubs = EmbeddedHubs::start(protocol, &setups, None).await.unwrap();
            let file = sources.add("reference server", setups.target_file(protocol, hubs.addresses()));
            let read = |path: &str| std::fs::read_to_string(path);
            let target = target::parse(&mut sources, file, &[], &|name| std::env::var(name).ok(), &read).ok().unwrap();
            let (pack, shared) = (Arc::clone(campaign.pack()), Arc::clone(&scenarios.shared));
            let hubs = Arc::new(hubs);
            let embedded = Some(Arc::clone(&hubs));
            let subject = Subject { pack, shared, programs: Vec::new(), target, embedded, processes: Vec::new() };
            let (events, inbox) = mpsc::channel(256);
            let (_stop, interrupt) = watch::channel(false);
            let hub = check::prepare(&subject).unwrap();
            let stage = Stage { hub, options: Arc::new(options()), against: None, events, interrupt };
            let numbers = campaign.plan.numbers(&|_| true).take(cases);
            let (_, played) = tokio::join!(campaign::run(Arc::clone(&campaign), stage, numbers), played(inbox));
            hubs.shutdown().await;
            played
        });
        let (took, used) = (began.elapsed(), cpu().saturating_sub(before));
        println!(
            "{protocol:<10} {played:>7} {:>8.0} {:>6.2} ms {:>7.0}",
            played as f64 / took.as_secs_f64(),
            used.as_secs_f64() * 1000.0 / played as f64,
            made as f64 / making.as_secs_f64(),
        );
    }
}

fn options() -> Options {
    Options {
        jobs: JOBS,
        stretch: 1.0,
        repeat: 1,
        limit: Duration::from_secs(120),
        stated_only: false,
        trace: false,
        kept: KEPT,
        destructive: false,
        stamp: "bench".to_owned(),
        now_ms: 1_700_000_000_000,
    }
}

/// How many ended; none may find anything.
async fn played(mut inbox: mpsc::Receiver<Event>) -> usize {
    let mut played = 0;
    while let Some(event) = inbox.recv().await {
        if let Event::Finished(report) = event {
            assert_ne!(report.verdict, Verdict::Fail, "{}", report.title);
            played += 1;
        }
    }
    played
}

/// What this process has used of all cores; zero where nobody tells.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // In hundredths of a second, on every Linux there is.
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
