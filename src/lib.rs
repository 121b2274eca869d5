//! hubproof proves that a message hub speaks its protocol.
//!
//! A protocol is data: a *pack* (AsyncAPI document, JSON Schemas, rules) and its *scenarios* (scripted conversations).
//! `hubproof check` plays the scenarios against a hub and judges every frame; nothing in this crate knows any protocol.
//!
//! The modules stand below in reading order, and each uses only those above it. Everything down to [`interpret`] is
//! pure: no sockets, no files, no clock, no printing; time is passed in, files come as a map that [`cli`] fills.
//! [`transport`] alone opens sockets, [`hook`] alone reaches outside, only [`cli`] prints and exits.
//!
//! ```text
//! source, diagnostic, yaml, json_schema, matcher, duration   files, places in them, and the small languages
//! pack        messages with their schemas, rules: one protocol
//! scenario    from YAML to programs, with everything wrong found before a socket opens
//! event       verdicts and what a run reports
//! report      folds a run into a report; one file per format
//! target      what the harness must know about a hub;  secret: what nobody may see;  embedded: our own hub as a target
//! facts       what a relay that spoils a hub's frames must know of a pack
//! frame       what crosses a wire, as data
//! interpret   plays a program, sans-IO: (now, input) -> outputs
//! transport   frames as they are, over TCP and TLS;  hook: what happens outside the socket
//! exec        the hub's own command: started, watched, ended
//! check       which programs run, where, how many at a time
//! baseline    failures that a hub's author knows
//! fuzz        odd input for every moment of a conversation, and what must be true all the same
//! bare        a plain AsyncAPI document of somebody else as a pack
//! load        thousands of virtual clients: how much a hub carries, and what becomes of every item on the way
//! cli         arguments, progress, exit codes
//! ```
//!
//! What is absent: any code or schema shared with the reference server (`reference-server/`), which the harness is tested
//! on. Both are written from the documents alone, so that one misreading must be made twice to pass.

pub mod source;

pub mod diagnostic;

pub mod yaml;

pub mod json_schema;

pub mod matcher;

pub mod duration;

pub mod pack;

pub mod scenario;

pub mod event;

pub mod report;

pub mod target;

pub mod secret;

pub mod embedded;

pub mod facts;

pub mod frame;

pub mod interpret;

pub mod transport;

pub mod hook;

pub mod exec;

pub mod check;

pub mod baseline;

pub mod fuzz;

pub mod bare;
pub mod load;

pub mod cli;
