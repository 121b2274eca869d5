//! Changed samples for all readers of untrusted bytes: each ends without a panic, in bounded time, with a value or an error.
//! `reports/parsers` runs the same readers for longer, guided by coverage.

use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use rustix::time::{ClockId, clock_gettime};

use crate::support::byte_edits::mangled_file;
use crate::support::readers::{READERS, Reader};

/// The longest time that a reader may compute for an input, on a slow machine under a debug build.
const MAX_READ_TIME: Duration = Duration::from_secs(20);

/// The longest input in bytes, unless its sample is longer.
const MAX_INPUT: usize = 8 << 10;

#[test]
fn changed_samples_never_make_a_reader_panic_or_hang() {
    let run = |(name, cases, prepare): (&'static str, u32, fn() -> Reader)| {
        std::thread::spawn(move || assert_reader_survives(name, cases, &prepare()))
    };
    let failed: Vec<&str> = READERS
        .map(|reader| (reader.0, run(reader)))
        .into_iter()
        .filter_map(|(name, thread)| thread.join().is_err().then_some(name))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// Returns for how long this thread has computed: all readers run at a time, beside other tests.
fn computing_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    let parts = |seconds, nanos| Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?));
    parts(spent.tv_sec, spent.tv_nsec).unwrap()
}

fn assert_reader_survives(name: &str, cases: u32, reader: &Reader) {
    let Reader { samples, read } = reader;
    let right = samples.iter().enumerate().filter(|(index, sample)| read(*index, sample)).count();
    let all = mangled_file(samples.clone());
    let config = Config { failure_persistence: None, rng_seed: RngSeed::Fixed(0), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let mut valid = 0;
    for _ in 0..cases {
        let (index, mut bytes) = all.new_tree(&mut runner).unwrap().current();
        // Some edits repeat a part thousands of times.
        bytes.truncate(MAX_INPUT.max(samples[index].len()));
        let begun = computing_time();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(index, &bytes)));
        let shown = || format!("sample {index}: {:?}", String::from_utf8_lossy(&bytes));
        valid += u32::from(result.unwrap_or_else(|_| panic!("{name} panicked at {}", shown())));
        let took = computing_time() - begun;
        assert!(took < MAX_READ_TIME, "{name} took {took:?} for {}", shown());
    }
    let tested = right > 0 && valid < cases;
    assert!(tested, "{name}: {right} samples and {valid} of {cases} changed ones were valid, so nothing was tested");
}
