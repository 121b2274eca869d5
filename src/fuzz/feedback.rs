//! Prefers cells whose cases got answers of a new shape, because further cases of the cell may find more. Only the
//! order of cases changes, never their content, so a finding can be replayed by its number.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;

use super::campaign::{Campaign, fingerprint, results};
use crate::outcome::{HistoryDirection, ScenarioReport};

/// Further cases of a cell after an answer of a new shape.
const FURTHER_CASES: u64 = 4;
/// Answers that are remembered; a hub that answers differently each time gives no direction.
const MAX_ANSWERS: usize = 100_000;

/// The order of cases, shared by the workers that take numbers and the reader of their reports.
#[derive(Clone, Default)]
pub struct CaseFeedback(Arc<Mutex<CaseFeedbackState>>);

#[derive(Default)]
struct CaseFeedbackState {
    ahead: VecDeque<u64>,
    /// Numbers of cases that were played, or queued in `ahead`, before their turn.
    taken: HashSet<u64>,
    /// The last case number that came in its turn.
    reached: Option<u64>,
    /// Hashes of a message's name and of the shapes of all frames received in a case.
    shapes: HashSet<u64>,
}

impl CaseFeedback {
    /// Returns the given case numbers, each once, but first those that [`CaseFeedback::record_answers`] has queued.
    pub fn order_numbers<I: Iterator<Item = u64> + Send>(
        &self,
        numbers: I,
    ) -> impl Iterator<Item = u64> + Send + use<I> {
        let steered = self.clone();
        let mut numbers = numbers;
        std::iter::from_fn(move || {
            if let Some(number) = steered.0.lock().ahead.pop_front() {
                return Some(number);
            }
            // Skips those that were played before their turn.
            let number = numbers.find(|number| !steered.0.lock().taken.remove(number));
            steered.0.lock().reached = number;
            number
        })
    }

    /// Queues further cases of a cell if the answers in this report have a new shape.
    pub fn record_answers(&self, campaign: &Campaign, report: &ScenarioReport) {
        let scheduler = &campaign.scheduler;
        let Some((number, cell)) = results::case_number(&report.id).and_then(|n| Some((n, scheduler.cell(n)?))) else {
            return;
        };
        let mut hash = DefaultHasher::new();
        cell.message.hash(&mut hash);
        let received = report.history.iter().filter(|frame| frame.direction != HistoryDirection::Sent);
        for frame in received {
            frame.kind.hash(&mut hash);
            fingerprint::frame_shape(campaign.pack(), &frame.text).hash(&mut hash);
        }
        let mut state = self.0.lock();
        if state.shapes.len() >= MAX_ANSWERS || !state.shapes.insert(hash.finish()) {
            return;
        }
        let cells = scheduler.cells.len() as u64;
        for more in (1..=FURTHER_CASES).filter_map(|step| number.checked_add(step * cells)) {
            if Some(more) > state.reached && state.taken.insert(more) {
                state.ahead.push_back(more);
            }
        }
    }
}
