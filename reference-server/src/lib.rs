//! The reference hub of hubproof: a server that speaks its protocols as their documents say, and breaks
//! them on demand, one named defect at a time.
//!
//! In reading order:
//!
//! * [`mod@machine`]: what a protocol hears and says, without sockets or clocks;
//! * `airavata`, `concierge`, `emprops`, `gator`, `qi`: one state machine per protocol;
//! * [`protocols::websocket`]: a hub below all of them, bytes in and bytes out;
//! * [`fault`] and [`fault::injector`]: deliberate defects, read from `faults/`, most of them changes to the outputs of a correct
//!   machine;
//! * [`fault::fuzz_only`]: those that only fuzzing brings out;
//! * [`machine::settings`]: what can be configured;
//! * [`serve()`], [`server::admin`], [`server::tls`]: the io shell, one task per connection around one machine (`hub`);
//! * [`relay`]: the same changes made to the frames of any hub, at places computed from facts about its messages;
//! * [`server::args`]: the command line, shared by this crate's binary and whoever embeds it.
//!
//! What is absent: anything of the judge. This crate shares no code, schema or scenario with the harness that
//! tests it; both read the same documents.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod fault;
pub mod machine;
pub mod protocols;
pub mod relay;
pub mod server;

pub use fault::Fault;
pub use machine::Machine;
pub use machine::settings::Settings;
pub use protocols::{MachineError, faults, machine, protocols};
pub use server::args::{ServeArgs, run};
pub use server::serve::{Error, HubConfig, Running, RunningHub, ServeConfig, serve};
pub use server::tls::Tls;
