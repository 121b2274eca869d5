//! hubproof tests message hubs that speak JSON over WebSocket: conformance tests, fuzzing and load tests.
//!
//! A protocol is data: a *pack* (an AsyncAPI document, JSON Schemas, rules) and its *scenarios* (scripted
//! conversations). `hubproof check` plays the scenarios against a hub and checks every frame; no module of this crate
//! knows a protocol.
//!
//! The modules, called rooms, are listed in reading order. Each uses only those above it; a test in `tests/` checks
//! this. Everything down to [`observe`] is pure: no sockets, no clock, no printing. The caller passes in the time,
//! and the files as a map that [`cli`] fills. Only [`cli`] prints and exits.
//!
//! ```text
//! syntax       source files, diagnostics, and the small languages: YAML, JSON Schema, matchers, durations
//! websocket    RFC 6455 on bytes: frames, codec, opening handshake
//! redact       masks secrets in everything that is shown
//! generate     what JSON Schemas allow, and values made from them by a seeded random number generator
//! protocol     one protocol's pack: messages with their schemas, and rules
//! scenario     scenarios: compiles YAML to programs, and finds every mistake before a socket opens
//! deviation    declared deviations of a hub from its document: translates messages in both directions
//! outcome      what playing scenarios resulted in: verdicts, checks, frames, waits
//! report       folds the events of a run into a report; one file per format
//! config       the target file: everything the harness must know about a hub
//! import       generates a pack from a plain AsyncAPI document or a recording
//! interpreter  plays a program, sans-IO: (now, input) -> outputs
//! observe      judges the traffic between clients and a hub, as it passes or as it was recorded
//! transport    sockets: unaltered frames over TCP and TLS
//! reference    the reference server as the hub under test
//! hub          the hub under test: its hooks, its process, and the preparation of a run
//! judge        whether an observation stands: what is played again, how often, and what it shows
//! check        conformance tests: which scenarios run, where, and how many at a time
//! fuzz         fuzzing: mutated input at every moment of a conversation, and oracles that must still hold
//! load         load tests: thousands of virtual clients, and a ledger of every item in flight
//! cli          arguments, progress, exit codes
//! ```
//!
//! Steps are executed in two ways on purpose. [`interpreter`] keeps all frames and evaluates expressions for every one
//! of them, which thousands of clients cannot afford. The steps of a load plan have the same syntax, but are compiled
//! for a small machine, [`load::client`].
//!
//! The harness shares no code and no schema with the reference server (`reference-server/`), on which it is tested.
//! Both are written from the documents alone, so a misreading goes unnoticed only if it is made twice.

pub mod syntax;

pub mod websocket;

pub mod redact;

pub mod generate;

pub mod protocol;

pub mod scenario;

pub mod deviation;

pub mod outcome;

pub mod report;

pub mod config;

pub mod import;

pub mod interpreter;

pub mod observe;

pub mod transport;

pub mod reference;

pub mod hub;

pub mod judge;

pub mod check;

pub mod fuzz;

pub mod load;

pub mod cli;
