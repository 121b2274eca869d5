//! The reference server of hubproof: hubs that do what their protocols' documents say, and break them on demand, one
//! named fault at a time.
//!
//! In reading order:
//!
//! * [`mod@machine`]: the inputs and outputs of a protocol's state machine, without sockets or clocks;
//! * `airavata`, `concierge`, `emprops`, `gator`, `qi`: one state machine per protocol;
//! * [`protocols::websocket`]: a hub that is WebSocket only, bytes in and bytes out;
//! * `zmtp`: ZeroMQ's wire protocol, bytes in and bytes out, so that `qi` can be served over ZeroMQ, too;
//! * [`fault`] and [`fault::injector`]: deliberate faults, read from `faults/`, most of them changes to the outputs of a
//!   correct machine;
//! * [`fault::on_input`]: faults that only malformed or undocumented input triggers;
//! * [`machine::settings`]: the settings of a hub;
//! * [`start_server()`], [`server::admin`], [`server::tls`]: sockets, with one task per connection around one machine;
//! * [`clients`]: the other side of the protocols, clients and workers with faults of their own;
//! * [`relay`]: a proxy that makes the same changes to the frames of any hub, at places computed from facts about its
//!   messages;
//! * [`server::args`]: the command line, shared by this crate's binary and by programs that embed it.
//!
//! This crate shares no code, schema or scenario with the harness that tests it; both follow the same documents.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod clients;
pub mod fault;
pub mod machine;
pub mod protocols;
pub mod relay;
pub mod server;
pub(crate) mod zmtp;

pub use fault::Fault;
pub use machine::Machine;
pub use machine::settings::Settings;
pub use protocols::{MachineError, build_machine, faults, protocols};
pub use server::args::{ServeArgs, run_server};
pub use server::serve::{HubConfig, RunningHub, RunningServer, ServeConfig, ServeError, start_server};
pub use server::tls::HubCertificate;
