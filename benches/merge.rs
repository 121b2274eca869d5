//! The speed and memory of merging the ledgers of a run's shares: `cargo bench --bench merge -- EVENTS`.
//!
//! Sixteen shares each write the file of a run with 25 000 jobs a second. Every job is submitted by a client of one share
//! and done by a worker of another, so no file knows its history alone. The files take about 20 bytes an event, in a
//! temporary folder. Prints events per second of CPU time, and the peak memory of the merge.
#![allow(clippy::unwrap_used)]

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("merge: needs /proc, which only Linux has");
}

#[cfg(target_os = "linux")]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["merge", folder, jobs] => linux::merge(folder.as_ref(), jobs.parse().unwrap()),
        [events] => linux::run(events.parse::<u64>().unwrap() / linux::EVENTS_PER_JOB),
        // What cargo runs without arguments.
        _ => linux::run(250_000),
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use hubproof::load::ledger::{IdHasher, LedgerEntry, LedgerMark, LedgerTotals, NameTable};
    use hubproof::load::metrics::MetricSeries;
    use hubproof::load::report::{LoadReport, LoadRunMetadata};
    use hubproof::load::shares::file::{ShareWriter, file_name};
    use hubproof::load::shares::merge::{RunShares, find_files};
    use hubproof::load::shares::record::{CommonFacts, FORMAT, FORMAT_VERSION, ShareEnd, ShareHeader};
    use hubproof::load::validity::RunCircumstances;
    use hubproof::load::{Nanos, SECOND};
    use hubproof::syntax::share::Share;

    const SHARES: u32 = 16;
    pub const EVENTS_PER_JOB: u64 = 4;
    const JOBS_PER_SECOND: u64 = 25_000;
    /// How often a share writes what it saw.
    const STEP: Nanos = SECOND / 10;
    /// How long a job takes from its submission to its end.
    const JOB_TIME: Nanos = SECOND / 2;

    /// Writes the shares of a run, and merges them in another process, so that only the merge counts.
    pub fn run(jobs: u64) {
        let folder = tempfile::tempdir().unwrap();
        write_shares(folder.path(), jobs);
        let bytes: u64 =
            std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        println!("{} events in {SHARES} files of {} MB", jobs * EVENTS_PER_JOB, bytes / 1_000_000);
        let mut merge = Command::new(std::env::current_exe().unwrap());
        assert!(merge.arg("merge").arg(folder.path()).arg(jobs.to_string()).status().unwrap().success());
    }

    /// Merges the files in a folder, and prints what that took.
    pub fn merge(folder: &Path, jobs: u64) {
        let begun = Instant::now();
        let report = RunShares::read(&find_files(folder).unwrap()).unwrap().merge(Vec::new()).unwrap();
        let (wall, cpu) = (begun.elapsed(), cpu_time());
        let account = &report.account;
        assert_eq!((account.attempted, account.completed, account.lost, account.unexpected), (jobs, jobs, 0, 0));
        let rate = (jobs * EVENTS_PER_JOB) as f64 / 1e6;
        println!(
            "merged in {wall:.1?}, {cpu:.1?} of CPU: {:.2} million events per second of CPU, peak memory {} MB",
            rate / cpu.as_secs_f64(),
            peak_memory() / 1000
        );
    }

    fn write_shares(folder: &Path, jobs: u64) {
        let mut shares: Vec<(ShareWriter, Vec<LedgerEntry>)> = Share::all(SHARES)
            .map(|share| {
                (ShareWriter::create(&folder.join(file_name("bench", share)), header(share)).unwrap(), Vec::new())
            })
            .collect();
        let (hasher, per_step) = (IdHasher::seeded(7), JOBS_PER_SECOND * STEP / SECOND);
        let steps = jobs.div_ceil(per_step);
        for step in 0..steps + JOB_TIME / STEP + 1 {
            for job in step * per_step..((step + 1) * per_step).min(jobs) {
                let (client, worker) = (job % u64::from(SHARES), (job * 7 + 3) % u64::from(SHARES));
                let (at, item) = (job * (SECOND / JOBS_PER_SECOND), hasher.item_key(&job.to_le_bytes()));
                let marks = [
                    (0, client, LedgerMark::Attempted),
                    (SECOND / 1000, client, LedgerMark::Acknowledged),
                    (SECOND / 500, worker, LedgerMark::Assigned),
                    (JOB_TIME, client, LedgerMark::Completed),
                ];
                for (after, share, what) in marks {
                    let party = 1 + share as u32 * 100 + (job % 100) as u32;
                    shares[share as usize].1.push(LedgerEntry { at: at + after, item, party, what });
                }
            }
            let upto = (step + 1) * STEP;
            for (writer, pending) in &mut shares {
                pending.sort_by_key(|entry| entry.at);
                let later = pending.split_off(pending.partition_point(|entry| entry.at < upto));
                writer.write_entries(0, upto, &std::mem::replace(pending, later), &NameTable::default());
            }
        }
        for (share, (mut writer, pending)) in Share::all(SHARES).zip(shares) {
            assert!(pending.is_empty());
            writer.write_entries(0, Nanos::MAX, &[], &NameTable::default());
            let end = end(share, Duration::from_nanos(steps * STEP + 10 * SECOND));
            writer.finish(end).unwrap();
        }
    }

    fn common() -> CommonFacts {
        CommonFacts {
            version: "0".to_owned(),
            run: "bench".to_owned(),
            seed: 7,
            protocol: "p".to_owned(),
            plan: "p/load/jobs".to_owned(),
            plan_hash: String::new(),
            ordered: false,
            lost_shares: 0,
            thresholds: Vec::new(),
            messages: vec!["submit".to_owned()],
            journeys: vec!["jobs".to_owned()],
            labelled: Vec::new(),
        }
    }

    fn header(share: Share) -> ShareHeader {
        ShareHeader {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            share,
            common: common(),
            origin_ns: 0,
            machine: format!("machine {share}"),
            clock_error: None,
            threads: 1,
        }
    }

    fn end(share: Share, duration: Duration) -> ShareEnd {
        let about = LoadRunMetadata { duration, ..LoadRunMetadata::default() };
        let series = MetricSeries::new(common().layout(&[]), 1);
        let report = LoadReport::new(about, series, LedgerTotals::default(), Vec::new(), Default::default());
        let circumstances = RunCircumstances { clients: 1 + u64::from(share.index()), ..RunCircumstances::default() };
        ShareEnd { measured_from: Some(0), ..ShareEnd::of(report, circumstances) }
    }

    /// Returns the CPU time of this process.
    fn cpu_time() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// Returns the largest memory of this process so far, in kilobytes.
    fn peak_memory() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
