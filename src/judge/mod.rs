//! Decides whether an observation stands: whether it shows a defect of the hub, or only chance, slowness, or what other
//! conversations did meanwhile.
//!
//! A frame that breaks a rule stands by itself. Anything else that was observed once, such as silence, the end of a
//! process, or a difference from another play, is played again. [`Evidence`] names what an observation rests on, and one
//! table, [`Evidence::method`], says for each kind how it is played again, what confirms it and what refutes it. A
//! [`Trial`] follows the table: it says what to play next, takes what was seen, and ends with a [`Ruling`] whose words
//! reports print. The engines play; only this room decides how often, and what it means.
//!
//! [`service`] uses a trial to find out whether a hub still serves clients, [`memory`] remembers what trials of
//! differences have shown, [`proposal`] judges proposed deviations, [`saved`] judges findings of earlier runs, and
//! [`baseline`] says which findings are known. [`PlayId`] gives each play names of its own.

pub mod baseline;
pub mod memory;
mod play_id;
pub mod proposal;
pub mod saved;
pub mod service;
mod trial;

use std::time::Duration;

use crate::outcome::{ScenarioReport, Verdict};
use crate::report::scenario_verdict;

pub use play_id::{PlayId, makers_of_names, to_base36};
pub use trial::{Evidence, Method, Replay, Ruling, Surroundings, Trial, smaller_crowds};

/// How long replays may take that delay the end of a run, all of them together. What was not replayed by then is not
/// confirmed.
pub const REPLAY_TIME: Duration = Duration::from_secs(30);

/// Whether a conversation was completed without a failure. A broken SHOULD, or a declared deviation, is not a failure.
pub fn has_passed(report: &ScenarioReport) -> bool {
    report.mistake.is_none() && matches!(scenario_verdict(report), Verdict::Pass | Verdict::Info | Verdict::Warn)
}
