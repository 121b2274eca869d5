//! hubproof tests message hubs that speak JSON over WebSocket: conformance tests, fuzzing and load tests.
//!
//! A protocol is data: a *pack* (an AsyncAPI document, JSON Schemas, rules) and its *scenarios* (scripted conversations).
//! `hubproof check` plays the scenarios against a hub and checks every frame; no module of this crate knows a protocol.
//!
//! The modules, called rooms, stand below in reading order, and each uses only those above it; `tests/` holds this.
//! Everything down to [`interpreter`] is pure: no sockets, no clock, no printing. Time is passed in, and files come as a
//! map that [`cli`] fills. Only [`cli`] prints and exits.
//!
//! ```text
//! syntax       source files, diagnostics, and the small languages: YAML, JSON Schema, matchers, durations
//! websocket    RFC 6455 on bytes: frames, codec, opening handshake
//! redact       replaces secrets in everything that is shown
//! generate     values from JSON Schemas, made by a seeded random number generator
//! protocol     one protocol's pack: messages with their schemas, and rules
//! scenario     scenarios: from YAML to programs, with every mistake found before a socket opens
//! deviation    how a hub departs from its document, as its user declares: translates messages in both directions
//! event        verdicts, and what a run reports while it goes on
//! report       folds the events of a run into a report; one file per format
//! config       the target file: what the harness must know about a hub
//! import       makes a pack of a plain AsyncAPI document
//! interpreter  plays a program, sans-IO: (now, input) -> outputs
//! transport    sockets: frames as they are, over TCP and TLS
//! reference    the reference server as the hub under test
//! hub          the hub under test: hooks, its process, and what is prepared before a run
//! check        conformance tests: which scenarios run, where, how many at a time
//! baseline     failures that the author of a hub knows
//! fuzz         fuzzing: mutated input at every moment of a conversation, and the oracles that must hold all the same
//! load         load tests: thousands of virtual clients, and a ledger of every item on its way
//! cli          arguments, progress, exit codes
//! ```
//!
//! One thing is done twice on purpose: [`interpreter`] keeps all frames and works out what it needs, frame by frame, which
//! thousands of clients cannot afford; so the steps of a load plan, read by the reader of scenarios, are compiled for a
//! small machine of their own, [`load::client`].
//!
//! What is absent: any code or schema shared with the reference server (`reference-server/`), which the harness is tested
//! on. Both are written from the documents alone, so that one misreading must be made twice to pass.

pub mod syntax;

pub mod websocket;

pub mod redact;

pub mod generate;

pub mod protocol;

pub mod scenario;

pub mod deviation;

pub mod event;

pub mod report;

pub mod config;

pub mod import;

pub mod interpreter;

pub mod transport;

pub mod reference;

pub mod hub;

pub mod check;

pub mod baseline;

pub mod fuzz;

pub mod load;

pub mod cli;
