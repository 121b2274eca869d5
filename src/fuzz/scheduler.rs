//! The order of cases: every cell in turn, so that a run of any length covers them evenly. Seed and number alone
//! determine a case.

use std::collections::BTreeMap;

use super::case::churn::Churn;
use super::case::{self, Case, Cell, MutationKind};
use super::corpus::Corpus;
use super::corpus::prefix::{self, Prefix};
use super::mutate::frames::Framing;
use super::mutate::json_text::JsonCorruption;
use super::mutate::schema::Mutation;
use super::placement::Placement;
use super::stateful::model::Model;
use super::stateful::random_walk;
use crate::generate::rng::Dice;

/// How many draws are tried for a case. A cell for which few draws succeed should still be played as often as others.
const CASTS: usize = 64;

/// All cells of a protocol for which a case can be made, in the order in which they are played: shuffled by the seed.
pub struct Scheduler {
    pub seed: u64,
    pub cells: Vec<Cell>,
    /// Prefixes by message index and placement.
    prefixes: BTreeMap<(usize, Placement), Vec<Prefix>>,
    model: Model,
}

impl Scheduler {
    /// Returns the cells of a run. `message` selects messages by name.
    pub fn new(corpus: &Corpus, seed: u64, message: &dyn Fn(&str) -> bool) -> Self {
        let mut cells = Vec::new();
        let mut prefixes = BTreeMap::new();
        let model = Model::of(corpus);
        for (index, declared) in corpus.pack.messages.iter().enumerate() {
            if !declared.directions.to_hub || declared.abstract_ || !message(&declared.name) {
                continue;
            }
            let sites = prefix::sites(corpus, declared);
            let mutated =
                Mutation::ALL.into_iter().filter(|mutation| sites.iter().any(|site| site.mutation == *mutation));
            let mutations = std::iter::once(MutationKind::Explored)
                .chain(mutated.map(MutationKind::Mutated))
                .chain(JsonCorruption::ALL.into_iter().map(MutationKind::Corrupted))
                .chain(Framing::ALL.into_iter().map(MutationKind::Framed))
                .chain(Churn::ALL.into_iter().map(MutationKind::Churn));
            let here = Placement::ALL.map(|placement| (placement, prefix::prefixes(corpus, declared, placement)));
            for mutation in mutations {
                for (placement, found) in &here {
                    let cell = Cell { message: index, mutation, placement: *placement };
                    // A cell for which no draw makes a case is left out.
                    let makes = |number| made(corpus, cell, found, &model, 0, &mut Dice::of(seed, number)).is_some();
                    let tries = if placement.is_of_many() { 0..2 } else { 0..4 };
                    if tries.into_iter().any(makes) {
                        cells.push(cell);
                    }
                }
            }
            prefixes.extend(here.map(|(placement, found)| ((index, placement), found)));
        }
        // Shuffled, so that a short run does not cover only the first messages.
        let mut dice = Dice::of(seed, u64::MAX);
        for last in (1..cells.len()).rev() {
            cells.swap(last, dice.below(last + 1));
        }
        // `FUZZ-STEADY` needs a hub that is not slow yet, so its cases (`repeated`) come first. They are exclusive, so
        // only one for each mutation does: one whose sender has the role of the observer client (a hub may close other
        // connections at the first error), with the longest message, in which most can be mutated.
        let weight = |cell: &Cell| {
            let prefixes: &[Prefix] = prefixes.get(&(cell.message, cell.placement)).map_or(&[], Vec::as_slice);
            let is_heard = prefixes.iter().all(|prefix| prefix.role == prefix.observer_role);
            let texts = prefixes.iter().map(|prefix| prefix.message.to_string().len());
            (is_heard, texts.max())
        };
        let mut tiring = BTreeMap::new();
        for cell in cells.iter().filter(|cell| cell.placement == Placement::Repeated) {
            let weighed = (weight(cell), *cell);
            let first = tiring.entry(cell.mutation).or_insert(weighed);
            if weighed.0 > first.0 {
                *first = weighed;
            }
        }
        cells.sort_by_key(|cell| match cell.placement {
            Placement::Repeated if tiring.get(&cell.mutation).is_some_and(|(_, first)| first == cell) => 0,
            Placement::Repeated => 2,
            _ => 1,
        });
        Self { seed, cells, prefixes, model }
    }

    /// Returns the numbers of cases of the wanted cells, each cell in turn; endless if there is one.
    pub fn numbers(&self, wanted: &dyn Fn(Cell) -> bool) -> impl Iterator<Item = u64> + Send + use<> {
        let chosen: Vec<u64> = (0..).zip(&self.cells).filter(|(_, cell)| wanted(**cell)).map(|(n, _)| n).collect();
        let (count, of) = (self.cells.len() as u64, chosen.len() as u64);
        let all = if of == 0 { 0..0 } else { 0..u64::MAX };
        all.map(move |n| n / of * count + chosen[usize::try_from(n % of).unwrap_or(0)])
    }

    /// Returns the cell of a case.
    pub fn cell(&self, number: u64) -> Option<Cell> {
        let count = u64::try_from(self.cells.len()).ok().filter(|count| *count > 0)?;
        self.cells.get(usize::try_from(number % count).ok()?).copied()
    }

    /// Returns the case of a number. It is the same for the same seed and pack.
    pub fn case(&self, corpus: &Corpus, number: u64) -> Option<Case> {
        let cell = self.cell(number)?;
        let prefixes = self.prefixes.get(&(cell.message, cell.placement))?;
        let mut dice = Dice::of(self.seed, number);
        (0..CASTS).find_map(|_| made(corpus, cell, prefixes, &self.model, number, &mut dice))
    }

    /// Returns, for a case with many mutated messages, one case for each of them.
    pub fn singles(&self, corpus: &Corpus, number: u64) -> Vec<Case> {
        let Some(cell) = self.cell(number) else { return Vec::new() };
        let prefixes = self.prefixes.get(&(cell.message, cell.placement)).map_or(&[][..], Vec::as_slice);
        let mut dice = Dice::of(self.seed, number);
        let mut casts = (0..CASTS).map(|_| case::singles(corpus, cell, prefixes, number, &mut dice));
        casts.find(|cases| !cases.is_empty()).unwrap_or_default()
    }
}

fn made(corpus: &Corpus, cell: Cell, prefixes: &[Prefix], model: &Model, number: u64, dice: &mut Dice) -> Option<Case> {
    match cell.placement {
        Placement::Walk => random_walk::make(corpus, model, cell, number, dice),
        _ => case::make(corpus, cell, prefixes, number, dice),
    }
}
