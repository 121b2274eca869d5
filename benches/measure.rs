//! The cost of measuring: a sample, the end of an interval, a ledger entry. `cargo bench --bench measure`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hubproof::load::ids::MessageId;
use hubproof::load::ledger::{ItemLedger, LedgerConfig, LedgerEntry, LedgerMark};
use hubproof::load::metrics::{Measurement, MetricRecorder, MetricRegistry, MetricSubjects, RunPhases};
use hubproof::load::{Nanos, SECOND};

const US: Nanos = 1_000;

fn recorder() -> MetricRecorder {
    let messages = (0..8).map(|n| format!("message_{n}")).collect();
    MetricRecorder::new(
        MetricRegistry::new(MetricSubjects {
            messages,
            journeys: vec!["jobs".to_owned()],
            ..MetricSubjects::default()
        }),
        RunPhases::new(SECOND, 0, None),
    )
}

/// Times between 100 µs and 10 ms, distributed like typical answers.
fn nth_duration(n: u64) -> Nanos {
    100 * US + n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (9_900 * US)
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(1));
    let (mut recorder, mut n) = (recorder(), 0u64);
    group.bench_function("sent", |b| {
        b.iter(|| {
            n += 1;
            let message = MessageId(black_box((n % 8) as u16));
            recorder.record(Measurement::Sent { message, due: n % US, ready: n % US }, n % US + 30);
        });
    });
    group.bench_function("answered", |b| {
        b.iter(|| {
            n += 1;
            let message = MessageId(black_box((n % 8) as u16));
            recorder.record(Measurement::Answered { message, due: 0, delay: 10 }, nth_duration(n));
        });
    });
    group.finish();
}

/// Records ten thousand answers of eight messages, then ends the interval.
fn intervals(c: &mut Criterion) {
    let (mut recorder, mut second) = (recorder(), 0);
    c.bench_function("interval of 10 000 answers", |b| {
        b.iter(|| {
            let start = second * SECOND;
            for n in 0..10_000u64 {
                let message = MessageId((n % 8) as u16);
                recorder.record(Measurement::Answered { message, due: start, delay: 0 }, start + nth_duration(n));
            }
            second += 1;
            black_box(recorder.take_intervals(second * SECOND))
        });
    });
}

/// A job from its attempt to its end, while a hundred thousand others are open.
fn entries(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger");
    group.throughput(Throughput::Elements(4_000));
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    let mut n = 0u64;
    group.bench_function("a thousand jobs", |b| {
        b.iter(|| {
            let mut batch = Vec::with_capacity(4_000);
            for _ in 0..1_000 {
                n += 1;
                let item = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let entry = |n, party, what| LedgerEntry { at: n * 100 * US, item: item(n), party, what };
                batch.extend([entry(n, 900, LedgerMark::Attempted), entry(n, 900, LedgerMark::Acknowledged)]);
                // The jobs of ten seconds ago.
                if let Some(before) = n.checked_sub(100_000).filter(|before| *before > 0) {
                    let late = |party, what| LedgerEntry { at: n * 100 * US, item: item(before), party, what };
                    batch.extend([late(1, LedgerMark::Assigned), late(1, LedgerMark::Completed)]);
                }
            }
            ledger.queue_entries(black_box(&batch));
            ledger.process_until(n * 100 * US);
        });
    });
    group.finish();
}

criterion_group!(benches, records, intervals, entries);
criterion_main!(benches);
