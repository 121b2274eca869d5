//! The order of cases: every cell in turn, so that a run of any length covers them evenly. Seed and number alone
//! determine a case.

use std::collections::BTreeMap;

use super::case::{self, FuzzCase, FuzzCell, MutationKind};
use super::corpus::Corpus;
use super::corpus::prefix::{self, CasePrefix};
use super::mutate::schema::MemberMutation;
use super::placement::Placement;
use super::stateful::model::WalkModel;
use super::stateful::random_walk;
use crate::generate::rng::RandomSource;

/// The number of draws per case: a cell in which few draws succeed should still be played as often as others.
const MAX_DRAWS: usize = 64;

/// All cells of a protocol for which a case can be made, in the order in which they are played: shuffled by the seed.
pub struct CaseScheduler {
    pub seed: u64,
    pub cells: Vec<FuzzCell>,
    /// The mutations that apply to a message at no moment.
    pub omitted: Vec<OmittedCell>,
    /// Prefixes by message index and placement.
    prefixes: BTreeMap<(usize, Placement), Vec<CasePrefix>>,
    model: WalkModel,
}

/// A message, and a mutation for which it has no case.
pub struct OmittedCell {
    /// Index into the pack's messages.
    pub message: usize,
    pub mutation: MutationKind,
    pub why: &'static str,
}

impl CaseScheduler {
    /// Returns the cells of a run. `message` selects messages by name.
    pub fn new(corpus: &Corpus, seed: u64, message: &dyn Fn(&str) -> bool) -> Self {
        let (mut cells, mut omitted) = (Vec::new(), Vec::new());
        let mut prefixes = BTreeMap::new();
        let model = WalkModel::from_corpus(corpus);
        for (index, declared) in corpus.pack.messages.iter().enumerate() {
            if !declared.directions.to_hub || declared.abstract_ || !message(&declared.name) {
                continue;
            }
            let sites = prefix::mutation_sites(corpus, declared);
            let has_site = |mutation: MemberMutation| sites.iter().any(|site| site.mutation == mutation);
            let here = Placement::ALL.map(|placement| (placement, prefix::prefixes(corpus, declared, placement)));
            for mutation in MutationKind::all() {
                let before = cells.len();
                let applies = !matches!(mutation, MutationKind::Mutated(mutation) if !has_site(mutation));
                for (placement, found) in here.iter().filter(|_| applies) {
                    let cell = FuzzCell { message: index, mutation, placement: *placement };
                    // A cell for which no draw makes a case is left out.
                    let makes = |number| {
                        make_case(corpus, cell, found, &model, 0, &mut RandomSource::for_case(seed, number)).is_some()
                    };
                    let tries = if placement.sends_many() { 0..2 } else { 0..4 };
                    if tries.into_iter().any(makes) {
                        cells.push(cell);
                    }
                }
                if cells.len() == before
                    && let Some(why) = mutation.why_omitted(applies)
                {
                    omitted.push(OmittedCell { message: index, mutation, why });
                }
            }
            prefixes.extend(here.map(|(placement, found)| ((index, placement), found)));
        }
        // Shuffled, so that a short run does not cover only the first messages.
        let mut dice = RandomSource::for_case(seed, u64::MAX);
        for last in (1..cells.len()).rev() {
            cells.swap(last, dice.draw_below(last + 1));
        }
        // `FUZZ-STEADY` needs a hub that is not slow yet, so its cases (`repeated`) come first. They are exclusive, so
        // only one for each mutation does: one whose sender has the role of the observer client (a hub may close other
        // connections at the first error), with the longest message, in which most can be mutated.
        let weight = |cell: &FuzzCell| {
            let prefixes: &[CasePrefix] = prefixes.get(&(cell.message, cell.placement)).map_or(&[], Vec::as_slice);
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
        Self { seed, cells, omitted, prefixes, model }
    }

    /// Returns the numbers of cases of the wanted cells, each cell in turn; endless if there is one.
    pub fn numbers(&self, wanted: &dyn Fn(FuzzCell) -> bool) -> impl Iterator<Item = u64> + Send + use<> {
        let chosen: Vec<u64> = (0..).zip(&self.cells).filter(|(_, cell)| wanted(**cell)).map(|(n, _)| n).collect();
        let (count, of) = (self.cells.len() as u64, chosen.len() as u64);
        let all = if of == 0 { 0..0 } else { 0..u64::MAX };
        all.map(move |n| n / of * count + chosen[usize::try_from(n % of).unwrap_or(0)])
    }

    /// Returns the cell of a case.
    pub fn cell(&self, number: u64) -> Option<FuzzCell> {
        let count = u64::try_from(self.cells.len()).ok().filter(|count| *count > 0)?;
        self.cells.get(usize::try_from(number % count).ok()?).copied()
    }

    /// Returns the case of a number. It is the same for the same seed and pack.
    pub fn case(&self, corpus: &Corpus, number: u64) -> Option<FuzzCase> {
        let cell = self.cell(number)?;
        let prefixes = self.prefixes.get(&(cell.message, cell.placement))?;
        let mut dice = RandomSource::for_case(self.seed, number);
        (0..MAX_DRAWS).find_map(|_| make_case(corpus, cell, prefixes, &self.model, number, &mut dice))
    }

    /// Returns, for a case with many mutated messages, one case for each of them.
    pub fn single_message_cases(&self, corpus: &Corpus, number: u64) -> Vec<FuzzCase> {
        let Some(cell) = self.cell(number) else { return Vec::new() };
        let prefixes = self.prefixes.get(&(cell.message, cell.placement)).map_or(&[][..], Vec::as_slice);
        let mut dice = RandomSource::for_case(self.seed, number);
        let mut casts = (0..MAX_DRAWS).map(|_| case::single_message_cases(corpus, cell, prefixes, number, &mut dice));
        casts.find(|cases| !cases.is_empty()).unwrap_or_default()
    }
}

fn make_case(
    corpus: &Corpus,
    cell: FuzzCell,
    prefixes: &[CasePrefix],
    model: &WalkModel,
    number: u64,
    dice: &mut RandomSource,
) -> Option<FuzzCase> {
    match cell.placement {
        Placement::Walk => random_walk::make_walk_case(corpus, model, cell, number, dice),
        _ => case::make_case(corpus, cell, prefixes, number, dice),
    }
}
