//! Overrides of a plan's numbers by flags.

use std::time::Duration;

use super::{Plan, Ramp, RateStage, WarmUp};
use crate::syntax::diagnostic::suggest;

/// Values given by flags; where one is absent, the plan's value stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanOverrides {
    /// Clients per role; the plural of a role's name is accepted: `workers`.
    pub population: Vec<(String, u32)>,
    /// Journeys per second for every role with arrivals. The shape of the schedule stays: it is scaled so that its
    /// highest stage has this rate.
    pub rate: Option<f64>,
    pub warm_up: Option<WarmUp>,
    pub duration: Option<Duration>,
    pub drain: Option<Duration>,
    /// The time over which every population connects.
    pub ramp: Option<Duration>,
}

/// A flag that does not fit the plan.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanOverrideError {
    #[error("the plan has no role `{name}`: {advice}")]
    NoRole { name: String, advice: String },
    #[error(
        "no role of the plan has arrivals, so there is no rate to change: each client begins its next journey when the last one finishes"
    )]
    NoArrivals,
    #[error("--warm-up auto waits for a steady load, but the plan's arrivals change theirs")]
    UnsteadyLoad,
    #[error("the rate must be a number above 0, not {0}")]
    BadRate(String),
}

impl PlanOverrideError {
    /// Returns what to do about it.
    pub fn help(&self) -> Option<&'static str> {
        matches!(self, Self::UnsteadyLoad).then_some("write how long to warm up: --warm-up 5s")
    }
}

impl Plan {
    /// Returns the plan with the overrides applied.
    pub fn with_overrides(mut self, overrides: &PlanOverrides) -> Result<Self, PlanOverrideError> {
        for (name, number) in &overrides.population {
            let place = self.roles.iter().position(|role| role.name == *name || plural(&role.name) == *name);
            let Some(place) = place else {
                let names: Vec<&str> = self.roles.iter().map(|role| role.name.as_str()).collect();
                let list = format!("its roles are {}", names.join(", "));
                return Err(PlanOverrideError::NoRole { name: name.clone(), advice: suggest(name, names, &list) });
            };
            self.roles[place].population.number = *number;
        }
        if let Some(rate) = overrides.rate {
            self.set_arrival_rate(rate)?;
        }
        if let Some(ramp) = overrides.ramp {
            self.roles.iter_mut().for_each(|role| role.population.ramp = Ramp::Over(ramp));
        }
        self.phases.warm_up = overrides.warm_up.unwrap_or(self.phases.warm_up);
        if self.phases.warm_up == WarmUp::Auto && self.changes_load() {
            return Err(PlanOverrideError::UnsteadyLoad);
        }
        self.phases.duration = overrides.duration.unwrap_or(self.phases.duration);
        self.phases.drain = overrides.drain.unwrap_or(self.phases.drain);
        Ok(self)
    }

    fn set_arrival_rate(&mut self, rate: f64) -> Result<(), PlanOverrideError> {
        if !(rate.is_finite() && rate > 0.0) {
            return Err(PlanOverrideError::BadRate(rate.to_string()));
        }
        let mut some = false;
        for arrivals in self.roles.iter_mut().filter_map(|role| role.arrivals.as_mut()) {
            some = true;
            let highest = arrivals.stages.iter().map(|stage| stage.from.max(stage.to)).fold(0.0, f64::max);
            if highest > 0.0 {
                let factor = rate / highest;
                let stretch = |stage: &mut RateStage| (stage.from, stage.to) = (stage.from * factor, stage.to * factor);
                arrivals.stages.iter_mut().for_each(stretch);
                arrivals.spikes.iter_mut().for_each(|spike| spike.rate *= factor);
            } else {
                arrivals.stages = vec![RateStage { from: rate, to: rate, time: Duration::ZERO }];
            }
        }
        if some { Ok(()) } else { Err(PlanOverrideError::NoArrivals) }
    }
}

fn plural(name: &str) -> String {
    format!("{name}s")
}

#[cfg(test)]
mod tests {
    use super::super::{ArrivalSpacing, Arrivals, PhaseDurations, PlanRole, Population, RateSpike, ReconnectPolicy};
    use super::*;
    use rstest::rstest;

    fn plan() -> Plan {
        let role = |name: &str, arrivals| PlanRole {
            name: name.to_owned(),
            population: Population { number: 10, ramp: Ramp::Rate(5.0) },
            after: None,
            arrivals,
            at_a_time: 1,
            drains: false,
            reconnect: ReconnectPolicy::Never,
        };
        let stages = vec![RateStage { from: 0.0, to: 100.0, time: Duration::from_secs(1) }];
        let spikes = vec![RateSpike { at: Duration::ZERO, time: Duration::from_secs(1), rate: 50.0 }];
        let seconds = Duration::from_secs;
        Plan {
            id: "t".to_owned(),
            title: "t".to_owned(),
            phases: PhaseDurations { warm_up: WarmUp::Fixed(seconds(1)), duration: seconds(10), drain: seconds(5) },
            roles: vec![
                role("worker", None),
                role("client", Some(Arrivals { spacing: ArrivalSpacing::Constant, stages, spikes })),
            ],
            ordered: false,
            lost_shares: 0,
            thresholds: Vec::new(),
        }
    }

    #[test]
    fn command_line_flags_change_numbers_of_a_plan_and_nothing_else() {
        let overrides = PlanOverrides {
            population: vec![("workers".to_owned(), 5000), ("client".to_owned(), 7)],
            rate: Some(2000.0),
            duration: Some(Duration::from_secs(60)),
            ramp: Some(Duration::from_secs(2)),
            ..PlanOverrides::default()
        };
        let changed = plan().with_overrides(&overrides).expect("fits");
        assert_eq!(changed.roles.iter().map(|role| role.population.number).collect::<Vec<_>>(), [5000, 7]);
        assert!(changed.roles.iter().all(|role| role.population.ramp_time() < Duration::from_secs(2)));
        let arrivals = changed.roles[1].arrivals.as_ref().expect("arrivals");
        assert_eq!((arrivals.stages[0].to, arrivals.spikes[0].rate), (2000.0, 1000.0));
        assert_eq!((changed.phases.duration, changed.phases.drain), (Duration::from_secs(60), Duration::from_secs(5)));
        assert_eq!(plan().with_overrides(&PlanOverrides::default()), Ok(plan()));
    }

    #[rstest]
    #[case(PlanOverrides { population: vec![("wroker".to_owned(), 1)], ..PlanOverrides::default() }, "did you mean `worker`")]
    #[case(PlanOverrides { rate: Some(0.0), ..PlanOverrides::default() }, "above 0")]
    fn flags_that_do_not_fit_the_plan_are_errors(#[case] overrides: PlanOverrides, #[case] expected: &str) {
        let error = plan().with_overrides(&overrides).expect_err("does not fit").to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_warm_up_that_ends_by_itself_needs_a_steady_load() {
        let overrides = PlanOverrides { warm_up: Some(WarmUp::Auto), ..PlanOverrides::default() };
        assert_eq!(plan().with_overrides(&overrides), Err(PlanOverrideError::UnsteadyLoad));
        let mut steady = plan();
        steady.roles.pop();
        let phases = steady.with_overrides(&overrides).expect("fits").phases;
        assert_eq!((phases.warm_up, phases.longest_warm_up()), (WarmUp::Auto, Duration::from_secs(10)));
        let longer = PhaseDurations { duration: Duration::from_secs(60), ..phases };
        assert_eq!(longer.longest_warm_up(), Duration::from_secs(30));
    }

    #[test]
    fn the_rate_flag_needs_a_plan_with_arrivals() {
        let mut plan = plan();
        plan.roles.pop();
        assert_eq!(
            plan.with_overrides(&PlanOverrides { rate: Some(5.0), ..PlanOverrides::default() }),
            Err(PlanOverrideError::NoArrivals)
        );
    }
}
