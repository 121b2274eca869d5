//! Cases that go where a hub says something new: an answer of a kind that was not heard before promises more behind the
//! same oddity. Only the order of cases is steered, never what they say, so that a finding is played again by its number.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::campaign::{Campaign, fingerprint, results};
use crate::event::{Direction, ScenarioReport};

/// Further cases that a new answer is worth.
const MORE: u64 = 4;
/// Answers that are remembered; a hub that says something new each time steers nowhere.
const ANSWERS: usize = 100_000;

/// Shared by whoever takes numbers and whoever hears what came of them.
#[derive(Clone, Default)]
pub struct Feedback(Arc<Mutex<Steered>>);

#[derive(Default)]
struct Steered {
    ahead: VecDeque<u64>,
    /// Played, or about to be, before their turn.
    taken: HashSet<u64>,
    /// The last number that came in its turn.
    reached: Option<u64>,
    /// Hashes of a message's name and of what was heard.
    heard: HashSet<u64>,
}

impl Feedback {
    /// The same numbers, each once, those first that [`Feedback::see`] asked for.
    pub fn numbers<I: Iterator<Item = u64> + Send>(&self, numbers: I) -> impl Iterator<Item = u64> + Send + use<I> {
        let steered = self.clone();
        let mut numbers = numbers;
        std::iter::from_fn(move || {
            if let Some(number) = steered.state().ahead.pop_front() {
                return Some(number);
            }
            // One that was played before its turn is not played again.
            let number = numbers.find(|number| !steered.state().taken.remove(number));
            steered.state().reached = number;
            number
        })
    }

    /// Looks at what came of a case, and asks for more of its kind if nothing like it was heard before.
    pub fn see(&self, campaign: &Campaign, report: &ScenarioReport) {
        let plan = &campaign.plan;
        let Some((number, cell)) = results::number(&report.id).and_then(|n| Some((n, plan.cell(n)?))) else { return };
        let mut hash = DefaultHasher::new();
        cell.message.hash(&mut hash);
        let received = report.history.iter().filter(|frame| frame.direction != Direction::Sent);
        for frame in received {
            frame.kind.hash(&mut hash);
            fingerprint::shape(campaign.pack(), &frame.text).hash(&mut hash);
        }
        let mut state = self.state();
        if state.heard.len() >= ANSWERS || !state.heard.insert(hash.finish()) {
            return;
        }
        let cells = plan.cells.len() as u64;
        for more in (1..=MORE).filter_map(|step| number.checked_add(step * cells)) {
            if Some(more) > state.reached && state.taken.insert(more) {
                state.ahead.push_back(more);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, Steered> {
        // Nothing in here panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
