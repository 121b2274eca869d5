//! Hubs that answer an upgrade, a message or a close before they have taken note of it, as a hub with threads does: its
//! WebSocket library answers, and then the hub locks its list of clients. No document promises more, so no scenario may
//! blame such a hub.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use hubproof::interpreter::AMPLE_SETTLE;
use hubproof::outcome::{CheckReport, ScenarioReport, Verdict};
use hubproof::scenario::Program;
use hubproof_reference::machine::{ConnectionId, EventError, Machine, MachineInput, MachineOutput};
use rstest::rstest;
use serde_json::Value;

use crate::support::sim_connection::{SendingManner, SimulatedProtocol};

/// The longest delay of most hubs.
pub const LATEST: Duration = Duration::from_millis(20);

/// A connection as the hub sees it.
#[derive(Default)]
struct LateConnection {
    /// Until when the hub does not know the connection.
    unknown_until: Duration,
    /// Inputs that the hub has not taken note of, each with the time when it does.
    waiting: VecDeque<(Duration, MachineInput)>,
}

/// The reference server's state machine, with a random delay before each step of each connection. Connections do not
/// wait for each other.
pub struct LateHub {
    inner: Box<dyn Machine>,
    connections: BTreeMap<ConnectionId, LateConnection>,
    latest: Duration,
    random: u64,
}

impl LateHub {
    pub fn around(inner: Box<dyn Machine>, latest: Duration, seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { inner, connections: BTreeMap::new(), latest, random }
    }

    fn delay(&mut self) -> Duration {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.latest.mul_f64((self.random % 1000) as f64 / 1000.0)
    }

    /// Handles what is due, in the order in which it is due.
    fn catch_up(&mut self, now: Duration, out: &mut Vec<MachineOutput>) {
        let first = |connections: &BTreeMap<ConnectionId, LateConnection>| {
            let due = connections.iter().filter_map(|(conn, state)| Some((state.waiting.front()?.0, *conn)));
            due.min().filter(|(due, _)| *due <= now)
        };
        while let Some((due, conn)) = first(&self.connections) {
            let input = self.connections.get_mut(&conn).and_then(|state| state.waiting.pop_front());
            if let Some((_, input)) = input {
                self.pass_on(due, input, out);
            }
        }
    }

    /// Passes an input on. A connection that the hub does not know yet receives nothing because of other connections.
    fn pass_on(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        let cause = input.conn();
        let mut outputs = Vec::new();
        self.inner.handle(now, input, &mut outputs);
        self.filter(now, cause, outputs, out);
    }

    fn filter(
        &self,
        now: Duration,
        cause: Option<ConnectionId>,
        outputs: Vec<MachineOutput>,
        out: &mut Vec<MachineOutput>,
    ) {
        let is_unknown = |conn| self.connections.get(&conn).is_some_and(|state| now < state.unknown_until);
        let is_lost = |output: &MachineOutput| {
            matches!(output, MachineOutput::Text { .. }) && Some(output.conn()) != cause && is_unknown(output.conn())
        };
        out.extend(outputs.into_iter().filter(|output| !is_lost(output)));
    }
}

impl Machine for LateHub {
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        self.catch_up(now, out);
        match (&input, input.conn()) {
            (MachineInput::Tick, _) if self.inner.deadline().is_none_or(|due| due > now) => {}
            (MachineInput::Open { .. } | MachineInput::Connected { .. }, Some(conn)) => {
                let unknown_until = now + self.delay();
                self.connections.insert(conn, LateConnection { unknown_until, ..LateConnection::default() });
                self.pass_on(now, input, out);
            }
            (MachineInput::Text { .. } | MachineInput::Binary { .. } | MachineInput::Closed { .. }, Some(conn)) => {
                let delay = self.delay();
                let state = self.connections.entry(conn).or_default();
                let after = state.waiting.back().map_or(state.unknown_until, |(due, _)| *due);
                state.waiting.push_back((after.max(now) + delay, input));
            }
            _ => self.pass_on(now, input, out),
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let waiting = self.connections.values().filter_map(|state| Some(state.waiting.front()?.0)).min();
        [waiting, self.inner.deadline()].into_iter().flatten().min()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        self.catch_up(now, out);
        let mut outputs = Vec::new();
        let answer = self.inner.event(now, event, &mut outputs);
        self.filter(now, None, outputs, out);
        answer
    }
}

#[rstest]
#[case::concierge("concierge")]
#[case::qi("qi")]
#[case::airavata("airavata")]
#[case::gator("gator")]
#[case::emprops("emprops")]
fn a_hub_that_takes_note_late_is_not_accused(#[case] name: &str) {
    assert_not_accused(name, 1..=1);
}

#[rstest]
#[case::concierge("concierge")]
#[case::qi("qi")]
#[case::airavata("airavata")]
#[case::gator("gator")]
#[case::emprops("emprops")]
#[ignore = "thorough: many minutes of CPU"]
fn hubs_that_take_note_late_at_other_moments_are_not_accused(#[case] name: &str) {
    assert_not_accused(name, 2..=12);
}

fn assert_not_accused(name: &str, seeds: RangeInclusive<u64>) {
    let protocol = SimulatedProtocol::load(name);
    let mut wrong = Vec::new();
    for (program, seed) in protocol.scenarios.programs.iter().flat_map(|one| seeds.clone().map(move |seed| (one, seed)))
    {
        let Some(report) = play_late(&protocol, program, LATEST, seed) else { continue };
        let cause = report.cause.iter().map(|cause| format!("{}: {}", cause.step, cause.message));
        let found = accusations(&report).map(|check| format!("{}: {}", check.name, check.message));
        wrong.extend(cause.chain(found).map(|what| format!("{} (seed {seed}): {what}", report.id)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn play_late(
    protocol: &SimulatedProtocol,
    program: &Arc<Program>,
    latest: Duration,
    seed: u64,
) -> Option<ScenarioReport> {
    let around = |inner| -> Box<dyn Machine> { Box::new(LateHub::around(inner, latest, seed)) };
    protocol.play_on(program, None, &around, SendingManner::default())
}

fn accusations(report: &ScenarioReport) -> impl Iterator<Item = &CheckReport> {
    report.checks.iter().filter(|check| matches!(check.verdict, Verdict::Warn | Verdict::Fail))
}

/// Where the pause of a fence was too short, the report names the actors on which the finding rests, and a longer pause
/// refutes it.
#[test]
fn a_finding_that_rests_on_a_fence_does_not_survive_a_longer_pause() {
    let mut protocol = SimulatedProtocol::load("gator");
    let mut program = protocol.scenarios.programs.iter();
    let program = Arc::clone(program.find(|program| program.id == "gator/stop-posted/bare").unwrap());
    let latest = Duration::from_millis(200);
    let hurried: Vec<ScenarioReport> =
        (1..=4).filter_map(|seed| play_late(&protocol, &program, latest, seed)).collect();
    let found: Vec<&CheckReport> = hurried.iter().flat_map(accusations).collect();
    assert!(!found.is_empty());
    for check in &found {
        let kids = (0..6).map(|index| format!("kids[{index}]"));
        assert!(check.rests_on_unfenced.iter().cloned().eq(kids), "{}: {:?}", check.name, check.rests_on_unfenced);
    }
    protocol.settle = AMPLE_SETTLE;
    for seed in 1..=4 {
        let report = play_late(&protocol, &program, latest, seed).unwrap();
        assert_eq!(accusations(&report).count(), 0, "{:?}", report.cause);
    }
}

/// A busy machine delays everything by a random time. What is then found must be found again before it stands: it rests on
/// silence, or on a conversation that was slow.
#[rstest]
#[case::concierge("concierge")]
#[case::qi("qi")]
#[case::airavata("airavata")]
#[case::gator("gator")]
#[case::emprops("emprops")]
fn what_a_slow_hub_is_accused_of_rests_on_time(#[case] name: &str) {
    let protocol = SimulatedProtocol::load(name);
    let mut standing = Vec::new();
    for (seed, program) in (1..).zip(&protocol.scenarios.programs) {
        for latest in [1, 4] {
            let Some(report) = play_late(&protocol, program, Duration::from_secs(latest), seed) else { continue };
            let found = accusations(&report).filter(|check| !report.rests_on_time(check));
            standing.extend(found.map(|check| format!("{} {}: {}", report.id, check.name, check.message)));
        }
    }
    assert!(standing.is_empty(), "{}", standing.join("\n"));
}

/// Otherwise every finding would be played again.
#[rstest]
#[case::concierge("concierge", &[])]
#[case::qi("qi", &[])]
#[case::airavata("airavata", &[])]
#[case::gator("gator", &[])]
// They wait for a timer of the hub.
#[case::emprops("emprops", &["emprops/namesakes", "emprops/stats-interval"])]
fn a_hub_that_answers_at_once_is_not_slow(#[case] name: &str, #[case] slow: &[&str]) {
    let protocol = SimulatedProtocol::load(name);
    let reports = protocol.scenarios.programs.iter().filter_map(|program| protocol.play(program, None));
    let late: Vec<String> = reports.filter(|report| report.waits.was_late).map(|report| report.id).collect();
    assert_eq!(late, slow);
}

/// A hub that refuses nothing in time breaks the rule, but so does one that is slow.
#[test]
fn an_alternative_that_is_nothing_rests_on_silence() {
    let protocol = SimulatedProtocol::load("emprops");
    let program = protocol.scenarios.programs.iter().find(|program| program.id == "emprops/size-limit").unwrap();
    let report = protocol.play(program, Some("emprops-size-silent")).unwrap();
    let found: Vec<&CheckReport> = accusations(&report).collect();
    assert_eq!(
        found.iter().map(|check| check.message.as_str()).collect::<Vec<_>>(),
        ["not accepted, but without an error"]
    );
    assert!(found.iter().all(|check| report.waits.silent_checks.contains(&check.name)));
}
