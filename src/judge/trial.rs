//! Trials: what is played again before an observation stands.

use super::PlayId;

/// What an observation rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// A message did not come in time.
    Silence,
    /// A message did not come in time from a hub that is slow.
    Lateness,
    /// A step was judged in a conversation in which the hub or this machine was slow.
    Haste,
    /// A message did not reach a client of which the hub may not have known yet.
    UnknownClient,
    /// The hub was too busy for a connection (HTTP 429 or 503): it may limit how many there are at a time.
    Refusal,
    /// A message that a scenario needs, and that the hub has sent in others, did not come in time.
    Blockage,
    /// The hub's process ended.
    Crash,
    /// The hub did not send a client what it had sent an earlier one.
    LostService,
    /// A rule was broken only with a variation of the scenario.
    BrokenByVariation,
    /// A step failed only with a variation of the scenario.
    StoppedByVariation,
    /// An answer was different with a variation of the scenario.
    ChangedByVariation,
    /// The model, or another hub, did something else.
    Difference,
    /// The hub served no client for a while, right after a frame of a case.
    Freeze,
    /// A conversation did not continue after a mutated message.
    Mutation,
    /// A conversation did not continue although no message in it was mutated.
    Obstruction,
    /// A case failed beside other cases.
    Crowd,
    /// A case that was made smaller still failed.
    Shrinking,
}

/// Where a replay takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surroundings {
    /// Like the first play, with other conversations on the hub.
    Beside,
    /// Alone on the hub; on a hub of its own if hubproof starts hubs.
    Alone,
    /// Beside others, but alone in the last attempt.
    AloneAtLast,
}

/// How an observation is played again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Whether each repetition is preceded by a control: the same conversation without the suspected reason. The
    /// observation must not be made in it.
    pub control: bool,
    /// How many times in a row the observation must be made again.
    pub confirmations: u32,
    /// How many attempts may fail: the attempt ends when the observation is made in the control, or not made again.
    pub attempts: u32,
    pub surroundings: Surroundings,
    /// The factor by which waits are longer than in the first play.
    pub patience: u32,
    /// Whether the hub gets ample time to take note of each connection.
    pub settles: bool,
}

impl Evidence {
    /// Returns how such an observation is played again. This table is the only place that says so.
    pub fn method(self) -> Method {
        use Surroundings::{Alone, AloneAtLast, Beside};
        let (control, confirmations, attempts, surroundings, patience) = match self {
            Self::Silence | Self::UnknownClient => (false, 1, 1, Alone, 1),
            // It accuses the hub of nothing.
            Self::Blockage => (false, 1, 1, Beside, 1),
            Self::Lateness => (false, 1, 1, Alone, 3),
            // What is late at random is in the same place twice, but hardly three times.
            Self::Haste => (false, 2, 1, Alone, 3),
            // After a hang, most scenarios are first played again beside each other.
            Self::Crash => (false, 1, 2, Alone, 1),
            // The hub may still count the connections of the scenario before.
            Self::Refusal => (false, 2, 1, Alone, 1),
            Self::LostService => (false, 2, 1, Beside, 1),
            // A rule that is broken twice is broken; a step that fails may fail by chance.
            Self::BrokenByVariation => (true, 1, 1, Beside, 1),
            Self::StoppedByVariation => (true, 3, 1, Beside, 1),
            // Where a document allows several answers, chance decides between them. Where names are fixed, other
            // conversations may have the same.
            Self::ChangedByVariation => (true, 5, 1, Alone, 1),
            // A late answer, or another order of broadcasts, usually occurs once.
            Self::Difference => (false, 1, 1, Alone, 3),
            // A hub may pause by itself, again and again, but hardly each time right after the same frame.
            Self::Freeze => (false, 3, 3, Alone, 1),
            // Other cases may disturb both plays.
            Self::Mutation => (true, 1, 3, AloneAtLast, 1),
            // What another case left behind, such as a job that any worker may do, is gone after a few replays.
            Self::Obstruction => (false, 3, 1, Alone, 3),
            Self::Crowd => (false, 1, 3, Alone, 1),
            Self::Shrinking => (false, 3, 1, Alone, 1),
        };
        let settles = self == Self::UnknownClient;
        Method { control, confirmations, attempts, surroundings, patience, settles }
    }

    /// Returns a trial of an observation that was made in the play with this id.
    pub fn trial(self, first: PlayId) -> Trial {
        let method = self.method();
        let is_control_next = method.control;
        Trial { evidence: self, method, first, played: 0, confirmed: 0, missed: 0, is_control_next, doubt: None }
    }
}

/// The most rounds of scenarios for which the hub was too busy.
const MAX_ROUNDS: usize = 3;

/// Returns how many scenarios to play at a time, in each of several rounds, that the hub was too busy for while `jobs`
/// were played at a time. A hub that limits its connections shows the limit only by what it refuses.
pub fn smaller_crowds(jobs: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(jobs / 4), |jobs| Some(jobs / 4)).take_while(|jobs| *jobs > 0).take(MAX_ROUNDS)
}

/// What to play next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    pub id: PlayId,
    /// Whether the suspected reason is left out.
    pub is_control: bool,
    pub is_alone: bool,
    /// The factor by which waits are longer than in the first play.
    pub patience: u32,
    /// Whether the hub gets ample time to take note of each connection.
    pub settles: bool,
}

/// Whether an observation stands, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It was made again this many times in a row.
    Stands { times: u32, is_alone: bool },
    /// It was not made again.
    NotAgain,
    /// It was also made without the suspected reason.
    Anyway,
    /// The trial did not end: the run ended, the hub was lost, or there was no time left for replays.
    Open,
}

impl Ruling {
    pub fn stands(self) -> bool {
        matches!(self, Self::Stands { .. })
    }

    /// Returns the reason in the words that reports print after a finding.
    pub fn describe(self) -> String {
        match self {
            Self::Stands { times, is_alone } => {
                let times = if times == 1 { String::new() } else { format!(" {times} times") };
                let alone = if is_alone { " alone" } else { "" };
                format!("seen again{times} when played{alone}")
            }
            Self::NotAgain => "it did not fail again when replayed".to_owned(),
            Self::Anyway => "it also fails without the mutation (control run)".to_owned(),
            Self::Open => "not confirmed by a replay".to_owned(),
        }
    }
}

/// The trial of an observation: says what to play next until the ruling is known.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    evidence: Evidence,
    method: Method,
    first: PlayId,
    /// Number of plays so far.
    played: u32,
    /// How many times in a row the observation was made again.
    confirmed: u32,
    /// Number of attempts that failed.
    missed: u32,
    is_control_next: bool,
    doubt: Option<Ruling>,
}

impl Trial {
    /// Returns what to play now; `None` once the ruling is known.
    pub fn next_replay(&self) -> Option<Replay> {
        let Method { confirmations, attempts, surroundings, patience, settles, .. } = self.method;
        let is_open = self.confirmed < confirmations && self.missed < attempts;
        let is_alone = match surroundings {
            Surroundings::Beside => false,
            Surroundings::Alone => true,
            Surroundings::AloneAtLast => self.missed + 1 == attempts,
        };
        let id = match self.evidence {
            Evidence::LostService => self.first.probe(self.played),
            _ => self.first.replay(self.played),
        };
        is_open.then_some(Replay { id, is_control: self.is_control_next, is_alone, patience, settles })
    }

    /// Takes whether the observation was made in the play that [`next_replay`](Self::next_replay) returned.
    pub fn record(&mut self, was_seen: bool) {
        self.played += 1;
        let was_control = self.is_control_next;
        // After a control in which the observation was made, nothing is worth repeating.
        self.is_control_next = self.method.control && (!was_control || was_seen);
        match (was_control, was_seen) {
            (true, false) => {}
            (false, true) => self.confirmed += 1,
            (true, true) => self.miss(Ruling::Anyway),
            (false, false) => self.miss(Ruling::NotAgain),
        }
    }

    /// Whether the observation was made again in the last play.
    pub fn is_confirmed_once(&self) -> bool {
        self.confirmed > 0
    }

    fn miss(&mut self, doubt: Ruling) {
        self.missed += 1;
        self.confirmed = 0;
        self.doubt = Some(doubt);
    }

    /// Returns the ruling on what was played so far.
    pub fn ruling(&self) -> Ruling {
        let Method { confirmations, attempts, surroundings, .. } = self.method;
        if self.confirmed >= confirmations {
            Ruling::Stands { times: confirmations, is_alone: surroundings == Surroundings::Alone }
        } else if self.missed >= attempts {
            self.doubt.unwrap_or(Ruling::NotAgain)
        } else {
            Ruling::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const STANDS: Option<Ruling> = None;

    /// `plays` are results in order: `-` if the observation was made, `+` if not; the run ends after the last. `None` stands
    /// for a ruling that it stands.
    #[rstest]
    #[case::silence(Evidence::Silence, "-", STANDS)]
    #[case::late(Evidence::Lateness, "+", Some(Ruling::NotAgain))]
    #[case::haste(Evidence::Haste, "--", STANDS)]
    #[case::haste_by_chance(Evidence::Haste, "-+", Some(Ruling::NotAgain))]
    #[case::served(Evidence::LostService, "-+", Some(Ruling::NotAgain))]
    #[case::not_served(Evidence::LostService, "--", STANDS)]
    #[case::chance(Evidence::StoppedByVariation, "+-+-+-", STANDS)]
    #[case::chance_at_last(Evidence::StoppedByVariation, "+-+-++", Some(Ruling::NotAgain))]
    #[case::varies_anyway(Evidence::BrokenByVariation, "-", Some(Ruling::Anyway))]
    #[case::freeze(Evidence::Freeze, "+---", STANDS)]
    #[case::pauses(Evidence::Freeze, "-+-+-+", Some(Ruling::NotAgain))]
    #[case::mutation(Evidence::Mutation, "+-", STANDS)]
    #[case::mutation_beside_others(Evidence::Mutation, "-+++-", STANDS)]
    #[case::anyway(Evidence::Mutation, "---", Some(Ruling::Anyway))]
    #[case::once(Evidence::Mutation, "++++++", Some(Ruling::NotAgain))]
    #[case::once_beside_others(Evidence::Mutation, "++-++", Some(Ruling::NotAgain))]
    #[case::ended(Evidence::Mutation, "", Some(Ruling::Open))]
    #[case::ended_later(Evidence::Mutation, "-++", Some(Ruling::Open))]
    #[case::fails_at_last(Evidence::Crowd, "++-", STANDS)]
    #[case::small(Evidence::Shrinking, "--+", Some(Ruling::NotAgain))]
    fn a_ruling_follows_from_what_was_seen(
        #[case] evidence: Evidence,
        #[case] plays: &str,
        #[case] expected: Option<Ruling>,
    ) {
        let mut trial = evidence.trial(PlayId::first(7));
        for play in plays.chars() {
            assert!(trial.next_replay().is_some(), "{trial:?}");
            trial.record(play == '-');
        }
        let ruling = trial.ruling();
        assert_eq!(trial.next_replay().is_none(), ruling != Ruling::Open, "{trial:?}");
        assert_eq!(Some(ruling).filter(|ruling| !ruling.stands()), expected);
    }

    #[test]
    fn each_replay_has_an_id_of_its_own_and_the_last_attempt_is_alone() {
        let mut trial = Evidence::Mutation.trial(PlayId::first(7));
        let mut replays = Vec::new();
        while let Some(replay) = trial.next_replay() {
            replays.push(replay);
            trial.record(true);
        }
        assert_eq!(replays.iter().map(|replay| replay.is_alone).collect::<Vec<_>>(), [false, false, true]);
        assert!(replays.windows(2).all(|two| two[0].id != two[1].id));
        assert!(replays.iter().all(|replay| replay.is_control));
    }
}
