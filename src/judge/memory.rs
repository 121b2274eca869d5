//! Remembers what trials of differences have shown. A thousand cases may show one difference, and each trial takes the hub
//! for itself.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::Ruling;

/// The number of trials of one difference. After that, what they have shown decides.
const MAX_TRIALS: u32 = 3;
/// The number of differences that are remembered. A hub that differs in more is another hub; further ones do not count.
const MAX_DIFFERENCES: usize = 500;

/// How often each difference stood in a trial, and how often not, by its description.
#[derive(Debug, Default)]
pub struct DifferenceMemory(Mutex<HashMap<String, (u32, u32)>>);

impl DifferenceMemory {
    /// Records the ruling on a difference.
    pub fn record(&self, words: &str, ruling: Ruling) {
        let mut known = self.0.lock();
        if known.len() >= MAX_DIFFERENCES && !known.contains_key(words) {
            return;
        }
        let (stood, fell) = known.entry(words.to_owned()).or_default();
        match ruling {
            Ruling::Stands { .. } => *stood += 1,
            Ruling::Open => {}
            Ruling::NotAgain | Ruling::Anyway => *fell += 1,
        }
    }

    /// Returns whether a difference stands; `None` if a trial has to show it.
    pub fn ruling(&self, words: &str) -> Option<bool> {
        let known = self.0.lock();
        let (stood, fell) = known.get(words).copied().unwrap_or_default();
        let is_full = known.len() >= MAX_DIFFERENCES && !known.contains_key(words);
        (is_full || stood + fell >= MAX_TRIALS).then_some(stood > fell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_three_trials_the_majority_decides() {
        let memory = DifferenceMemory::default();
        let stands = Ruling::Stands { times: 1, is_alone: true };
        for ruling in [stands, Ruling::NotAgain, Ruling::Open] {
            memory.record("more", ruling);
            assert_eq!(memory.ruling("more"), None);
        }
        memory.record("more", stands);
        assert_eq!(memory.ruling("more"), Some(true));
        assert_eq!(memory.ruling("less"), None);
    }
}
