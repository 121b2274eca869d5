//! Which case comes when: every message, oddity and placement in turn, so that a run of any length covers them evenly,
//! and the case of a number is the same whoever plays it.

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

/// Dice are cast so often for a case. A cell that they rarely make one of, but do, should come as often as others.
const CASTS: usize = 64;

/// All cells of a protocol that something can be made of, in the order in which they are played: shuffled by the seed.
pub struct Scheduler {
    pub seed: u64,
    pub cells: Vec<Cell>,
    /// Where a message can be said, by its index.
    scenes: BTreeMap<(usize, Placement), Vec<Prefix>>,
    ground: Model,
}

impl Scheduler {
    /// The plan of a run. `message` chooses messages by their name.
    pub fn new(material: &Corpus, seed: u64, message: &dyn Fn(&str) -> bool) -> Self {
        let mut cells = Vec::new();
        let mut scenes = BTreeMap::new();
        let ground = Model::of(material);
        for (index, declared) in material.pack.messages.iter().enumerate() {
            if !declared.directions.to_hub || declared.abstract_ || !message(&declared.name) {
                continue;
            }
            let sites = prefix::sites(material, declared);
            let mutated =
                Mutation::ALL.into_iter().filter(|mutation| sites.iter().any(|site| site.mutation == *mutation));
            let oddities = std::iter::once(MutationKind::Explored)
                .chain(mutated.map(MutationKind::Mutated))
                .chain(JsonCorruption::ALL.into_iter().map(MutationKind::Corrupted))
                .chain(Framing::ALL.into_iter().map(MutationKind::Framed))
                .chain(Churn::ALL.into_iter().map(MutationKind::Churn));
            let here = Placement::ALL.map(|placement| (placement, prefix::scenes(material, declared, placement)));
            for oddity in oddities {
                for (placement, found) in &here {
                    let cell = Cell { message: index, oddity, placement: *placement };
                    // What no dice make a case of is no cell.
                    let makes = |number| made(material, cell, found, &ground, 0, &mut Dice::of(seed, number)).is_some();
                    let tries = if placement.is_of_many() { 0..2 } else { 0..4 };
                    if tries.into_iter().any(makes) {
                        cells.push(cell);
                    }
                }
            }
            scenes.extend(here.map(|(placement, found)| ((index, placement), found)));
        }
        // So that a short run is no run of the first messages only.
        let mut dice = Dice::of(seed, u64::MAX);
        for last in (1..cells.len()).rev() {
            cells.swap(last, dice.below(last + 1));
        }
        // Whether a hub tires is seen while it is not tired yet; but nobody else says anything meanwhile, so one of each kind
        // has to do at first: one that somebody says who is like those who look on, as a hub may hang up on a stranger at
        // once, and the longest, as most of it can be wrong.
        let weight = |cell: &Cell| {
            let scenes: &[Prefix] = scenes.get(&(cell.message, cell.placement)).map_or(&[], Vec::as_slice);
            let is_heard = scenes.iter().all(|scene| scene.role == scene.bystander);
            let message = material.pack.messages.get(cell.message);
            let texts = scenes.iter().filter_map(|scene| Some(scene.base(material, message?).to_string().len()));
            (is_heard, texts.max())
        };
        let mut tiring = BTreeMap::new();
        for cell in cells.iter().filter(|cell| cell.placement == Placement::Repeated) {
            let weighed = (weight(cell), *cell);
            let first = tiring.entry(cell.oddity).or_insert(weighed);
            if weighed.0 > first.0 {
                *first = weighed;
            }
        }
        cells.sort_by_key(|cell| match cell.placement {
            Placement::Repeated if tiring.get(&cell.oddity).is_some_and(|(_, first)| first == cell) => 0,
            Placement::Repeated => 2,
            _ => 1,
        });
        Self { seed, cells, scenes, ground }
    }

    /// Numbers of cases whose cells are wanted, each cell in turn, without end where there is one.
    pub fn numbers(&self, wanted: &dyn Fn(Cell) -> bool) -> impl Iterator<Item = u64> + Send + use<> {
        let chosen: Vec<u64> = (0..).zip(&self.cells).filter(|(_, cell)| wanted(**cell)).map(|(n, _)| n).collect();
        let (count, of) = (self.cells.len() as u64, chosen.len() as u64);
        let all = if of == 0 { 0..0 } else { 0..u64::MAX };
        all.map(move |n| n / of * count + chosen[usize::try_from(n % of).unwrap_or(0)])
    }

    /// The cell to which the case of a number belongs.
    pub fn cell(&self, number: u64) -> Option<Cell> {
        let count = u64::try_from(self.cells.len()).ok().filter(|count| *count > 0)?;
        self.cells.get(usize::try_from(number % count).ok()?).copied()
    }

    /// The case of a number. Equal for equal seeds and packs.
    pub fn case(&self, material: &Corpus, number: u64) -> Option<Case> {
        let cell = self.cell(number)?;
        let scenes = self.scenes.get(&(cell.message, cell.placement))?;
        let mut dice = Dice::of(self.seed, number);
        (0..CASTS).find_map(|_| made(material, cell, scenes, &self.ground, number, &mut dice))
    }

    /// Where the case of a number says many things, each of them as a case of its own.
    pub fn singles(&self, material: &Corpus, number: u64) -> Vec<Case> {
        let Some(cell) = self.cell(number) else { return Vec::new() };
        let scenes = self.scenes.get(&(cell.message, cell.placement)).map_or(&[][..], Vec::as_slice);
        let mut dice = Dice::of(self.seed, number);
        let mut casts = (0..CASTS).map(|_| case::singles(material, cell, scenes, number, &mut dice));
        casts.find(|cases| !cases.is_empty()).unwrap_or_default()
    }
}

fn made(
    material: &Corpus,
    cell: Cell,
    scenes: &[Prefix],
    ground: &Model,
    number: u64,
    dice: &mut Dice,
) -> Option<Case> {
    match cell.placement {
        Placement::Walk => random_walk::make(material, ground, cell, number, dice),
        _ => case::make(material, cell, scenes, number, dice),
    }
}
