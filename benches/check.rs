//! The cost of a frame, of loading all scenarios and of a conversation, without sockets.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../tests/support/disk.rs"]
mod disk;
#[allow(dead_code)]
#[path = "../tests/support/sim_connection/mod.rs"]
mod sim_connection;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hubproof::protocol::{FrameDirection, Pack};
use hubproof::scenario::ScenarioSet;
use hubproof::syntax::source::Sources;
use sim_connection::SimulatedProtocol;

/// Recognises and validates one frame, from a decoded value and from text.
fn frames(c: &mut Criterion) {
    let concierge = SimulatedProtocol::load("concierge");
    let message = concierge.pack.message("client_fetch_all_result").unwrap();
    let payload = message.starting_value();
    let text = payload.to_string();
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("recognise", |b| {
        b.iter(|| concierge.pack.recognise(black_box(&payload), FrameDirection::FromHub).is_some());
    });
    group.bench_function("valid", |b| b.iter(|| message.schema.is_valid(black_box(&payload))));
    group.bench_function("judge", |b| b.iter(|| message.schema.violations(black_box(&payload))));
    group.bench_function("decode_and_judge", |b| {
        b.iter(|| {
            let payload: serde_json::Value = serde_json::from_str(black_box(&text)).unwrap();
            let message = concierge.pack.recognise(&payload, FrameDirection::FromHub).unwrap();
            message.schema.violations(&payload)
        });
    });
    group.finish();
}

/// Parses every file of a protocol: packs, then scenarios.
fn load_packs(c: &mut Criterion) {
    let mut group = c.benchmark_group("load");
    group.sample_size(20);
    for name in ["qi", "concierge"] {
        let mut sources = Sources::default();
        let folder = disk::protocol_folder(name, &mut sources);
        group.bench_function(format!("pack {name}"), |b| {
            b.iter(|| Pack::load(black_box(&folder), &sources).0.is_some());
        });
        let pack = Arc::new(Pack::load(&folder, &sources).0.unwrap());
        group.bench_function(format!("scenarios {name}"), |b| {
            b.iter(|| ScenarioSet::load(black_box(&folder), &sources, &pack).programs.len());
        });
    }
    group.finish();
}

/// Plays a conversation between the interpreter and the reference server's state machine.
fn conversations(c: &mut Criterion) {
    let mut group = c.benchmark_group("conversation");
    group.sample_size(20);
    for (name, scenario) in [("qi", "qi/base"), ("concierge", "concierge/greeting"), ("concierge", "concierge/seq")] {
        let protocol = SimulatedProtocol::load(name);
        let program = protocol.scenarios.programs.iter().find(|program| program.id == scenario).unwrap();
        group.bench_function(scenario, |b| {
            b.iter(|| protocol.play(black_box(program), None).unwrap().checks.len());
        });
    }
    group.finish();
}

criterion_group!(benches, frames, load_packs, conversations);
criterion_main!(benches);
