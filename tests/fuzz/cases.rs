//! Cases of all protocols: each is a valid scenario, and the same for the same seed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use hubproof::fuzz::actors::OBSERVER;
use hubproof::fuzz::case::churn::Churn;
use hubproof::fuzz::case::{FuzzCase, FuzzCell, MutationKind};
use hubproof::fuzz::case_scenario::CaseScenario;
use hubproof::fuzz::corpus::Corpus;
use hubproof::fuzz::mutate::frames::FramingMutation;
use hubproof::fuzz::mutate::json_text::JsonCorruption;
use hubproof::fuzz::mutate::payload::PayloadClass;
use hubproof::fuzz::mutate::schema::MemberMutation;
use hubproof::fuzz::oracle;
use hubproof::fuzz::placement::Placement;
use hubproof::fuzz::scheduler::CaseScheduler;
use hubproof::outcome::{CheckReport, FrameKind, Verdict};
use hubproof::protocol::{Pack, PackFolder};
use hubproof::scenario::parse::verbs::StepVerb;
use hubproof::scenario::{self, Program, SharedFile};
use hubproof::syntax::diagnostic::render_all;
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use hubproof_reference::Machine;
use hubproof_reference::machine::{EventError, MachineInput, MachineOutput};
use rstest::rstest;
use serde_json::{Map, Value};

use crate::support::sim_connection::SendingManner;
use crate::support::test_each_protocol;

/// A protocol, with everything that its cases are made of.
pub struct FuzzProtocol {
    sources: Sources,
    shared: SharedFile,
    pub corpus: Arc<Corpus>,
}

impl FuzzProtocol {
    /// Reads a protocol of this repository.
    pub fn load(name: &str) -> Self {
        let mut sources = Sources::default();
        let folder = crate::support::disk::protocol_folder(name, &mut sources);
        Self::from_folder(&folder, sources, Map::new())
    }

    /// Reads the files of a pack. `given` are settings of the target, by name.
    pub fn from_folder(folder: &PackFolder, mut sources: Sources, given: Map<String, Value>) -> Self {
        let (pack, diagnostics) = Pack::load(folder, &sources);
        let mut pack = pack.unwrap_or_else(|| panic!("{}", render_all(&diagnostics, &sources, false)));
        pack.rules.extend(oracle::oracle_rules(&mut sources).into_iter().map(|rule| (rule.id.clone(), rule)));
        let pack = Arc::new(pack);
        let shared = scenario::load_shared(folder, &sources, &pack, &mut Vec::new());
        let corpus = Arc::new(Corpus::from_folder(folder, &sources, &pack, given));
        Self { sources, shared, corpus }
    }

    /// Parses the text of a scenario. Returns its program, if it is valid, and its diagnostics.
    pub fn parse(&mut self, id: &str, scenario: &CaseScenario) -> (Option<Arc<Program>>, String) {
        let file = self.sources.add("case.yaml", scenario.text());
        let root = match yaml::parse(&self.sources, file) {
            Ok(root) => root,
            Err(diagnostic) => return (None, diagnostic.message),
        };
        let (program, diagnostics) = scenario::parse::parse_scenario(id, &root, &self.shared, &self.corpus.pack);
        (program.map(Arc::new), render_all(&diagnostics, &self.sources, false))
    }

    /// Returns the program of a case, which must have no diagnostics.
    pub fn program(&mut self, case: &FuzzCase) -> Arc<Program> {
        let id = format!("{}/case-{}", self.corpus.pack.name, case.number);
        let (program, diagnostics) = self.parse(&id, &case.scenario);
        assert_eq!(diagnostics, "", "{}", case.scenario.text());
        program.unwrap()
    }
}

/// Cases, parsed as scenarios and ready to be played without sockets.
pub struct PlayableCases {
    protocol: FuzzProtocol,
    scheduler: CaseScheduler,
}

impl PlayableCases {
    /// Creates the cases that mutate the wanted messages.
    pub fn new(name: &str, seed: u64, message: &dyn Fn(&str) -> bool) -> Self {
        let protocol = FuzzProtocol::load(name);
        let scheduler = CaseScheduler::new(&protocol.corpus, seed, message);
        Self { protocol, scheduler }
    }

    pub fn len(&self) -> u64 {
        self.scheduler.cells.len() as u64
    }

    /// Returns a case as text and program; `None` if the draw gives none, or it needs frames that a simulated connection
    /// cannot carry.
    pub fn case(&mut self, number: u64) -> Option<(String, Arc<Program>)> {
        let case = self.scheduler.case(&self.protocol.corpus, number)?;
        if !is_carried_mutation(case.cell.mutation) {
            return None;
        }
        Some((case.scenario.text(), self.protocol.program(&case)))
    }
}

/// Whether a simulated connection can carry these frames.
pub fn is_carried(framing: FramingMutation) -> bool {
    framing.class() != PayloadClass::Broken && framing != FramingMutation::Oversize
}

/// Whether a simulated connection can carry the frames of a mutation.
pub fn is_carried_mutation(mutation: MutationKind) -> bool {
    !matches!(mutation, MutationKind::Framed(framing) if !is_carried(framing))
}

// An actor without a connection cannot send, and a case without mutated input tests nothing.
test_each_protocol!(
    every_case_is_a_scenario_that_sends_its_input,
    assert_every_case_is_a_scenario_that_sends_its_input
);

fn assert_every_case_is_a_scenario_that_sends_its_input(name: &str) {
    let mut protocol = FuzzProtocol::load(name);
    let scheduler = CaseScheduler::new(&protocol.corpus, 1, &|_| true);
    let mut classes: BTreeMap<PayloadClass, usize> = BTreeMap::new();
    let mut made = 0;
    let mut silent = BTreeSet::new();
    for number in 0..scheduler.cells.len() as u64 {
        let Some(case) = scheduler.case(&protocol.corpus, number) else { continue };
        made += 1;
        let joins = case.scenario.steps.iter().any(|step| step.actor == "sender" && step.verb == StepVerb::Joins);
        let role = case.scenario.actors.get("sender").and_then(Value::as_str).filter(|_| joins);
        silent.extend(
            role.filter(|role| !protocol.corpus.can_join(role))
                .map(|role| (case.cell.placement.name(), role.to_owned())),
        );
        *classes.entry(case.class).or_default() += 1;
        protocol.program(&case);
    }
    println!("{name}: {} cells, {made} made, {classes:?}", scheduler.cells.len());
    assert!(made * 10 > scheduler.cells.len() * 9);
    assert_eq!(silent, BTreeSet::new());
}

// Without sockets, and so without invalid frames.
test_each_protocol!(
    fuzz_cases_find_nothing_wrong_with_the_reference_server,
    assert_fuzz_cases_find_nothing_wrong_with_the_reference_server
);

fn assert_fuzz_cases_find_nothing_wrong_with_the_reference_server(name: &str) {
    let hub = crate::support::sim_connection::SimulatedProtocol::load(name);
    let mut cases = PlayableCases::new(name, 1, &|_| true);
    let (mut played, mut wrong) = (0, String::new());
    for number in (0..cases.len()).step_by(3) {
        let Some((text, program)) = cases.case(number) else { continue };
        let Some(report) = hub.play(&program, None) else { continue };
        played += 1;
        for check in report.checks.iter().filter(|check| matches!(check.verdict, Verdict::Fail | Verdict::Warn)) {
            let text: String = text.chars().take(3000).collect();
            wrong += &format!("{} {}\n  {}\n{text}\n", check.name, check.message, report.title);
        }
        if let Some(mistake) = &report.mistake {
            wrong += &format!("mistake: {mistake}\n{text}\n");
        }
    }
    println!("{name}: {played} played");
    assert!(played > 50, "only {played} cases were played");
    assert_eq!(wrong, "");
}

/// A hub may read the id of a truncated text and answer it, so no id may occur twice.
#[test]
fn repeated_inputs_and_the_next_fence_never_share_an_id() {
    let protocol = FuzzProtocol::load("gator");
    let scheduler = CaseScheduler::new(&protocol.corpus, 1, &|_| true);
    let id = regex::Regex::new(r#""req_id":(-?[0-9]+),"#).unwrap();
    let mut texts = 0;
    for number in scheduler.numbers(&|cell| cell.placement == Placement::Repeated).take(60) {
        let Some(case) = scheduler.case(&protocol.corpus, number) else { continue };
        let rounds = case.scenario.steps.iter().filter_map(|step| step.option("in")?.as_array()).flatten();
        let sent: Vec<&str> = rounds.filter_map(|text| text.as_str()).collect();
        let ids: Vec<&str> = sent.iter().filter_map(|text| Some(id.captures(text)?.get(1)?.as_str())).collect();
        texts += ids.len();
        let different: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(different.len(), ids.len(), "{sent:#?}");
        // The fence uses ids above this.
        assert!(ids.iter().all(|id| id.parse::<i64>().unwrap() <= 100_000), "{ids:?}");
    }
    assert!(texts > 50, "only {texts} ids were sent");
}

/// Before other input, which could already have made the hub slower. The sender has finished its opening: a hub
/// may disconnect a stranger at the first error.
#[rstest]
#[case::qi("qi", 1..=3)]
#[ignore = "thorough: many minutes of CPU"]
#[case::qi_with_other_seeds("qi", 4..=12)]
#[ignore = "thorough: many minutes of CPU"]
#[case::concierge("concierge", 1..=12)]
#[ignore = "thorough: many minutes of CPU"]
#[case::gator("gator", 1..=12)]
fn a_hub_that_becomes_slower_is_found_by_the_first_cases(#[case] name: &str, #[case] seeds: RangeInclusive<u64>) {
    let hub = crate::support::sim_connection::SimulatedProtocol::load(name);
    let fault = format!("{name}-fuzz-slower");
    for seed in seeds {
        let mut cases = PlayableCases::new(name, seed, &|_| true);
        let first =
            cases.scheduler.cells.iter().take_while(|cell| cell.placement == Placement::Repeated).count() as u64;
        let mut played = (0..first).filter_map(|number| hub.play(&cases.case(number)?.1, Some(&fault)));
        let tires = |check: &CheckReport| check.verdict == Verdict::Fail && check.name == "FUZZ-STEADY";
        assert!(played.any(|report| report.checks.iter().any(tires)), "seed {seed}");
    }
}

/// Receiving a message that the document allows unsolicited does not prove a leak.
#[rstest]
#[case::open("pong", "FUZZ-ISOLATES as should")]
#[case::asked_for("subscribe_response", "FUZZ-ISOLATES")]
fn an_unsolicited_message_does_not_prove_a_leak(#[case] message: &str, #[case] rule: &str) {
    let protocol = FuzzProtocol::load("airavata");
    let scheduler = CaseScheduler::new(&protocol.corpus, 1, &|_| true);
    let cases = (0..scheduler.cells.len() as u64).filter_map(|number| scheduler.case(&protocol.corpus, number));
    let steps = cases.flat_map(|case| case.scenario.steps);
    let nothing =
        steps.filter(|step| step.actor == OBSERVER && step.message(StepVerb::ExpectsNothing) == Some(message));
    let rules: BTreeSet<String> = nothing.map(|step| step.rules()[0].to_string()).collect();
    assert_eq!(rules, BTreeSet::from([rule.to_owned()]));
}

/// A hub may pass on its input, and a generated name in place of a time would break the format.
#[test]
#[ignore = "thorough: many minutes of CPU"]
fn a_random_walk_puts_no_object_name_into_a_member_with_a_format() {
    let cases = PlayableCases::new("emprops", 1, &|_| true);
    let name = regex::Regex::new(r#"\\"([a-z_]+)\\":\$\{json\(fresh_"#).unwrap();
    let mut named = BTreeSet::new();
    for number in 0..cases.len() {
        let Some(case) = cases.scheduler.case(&cases.protocol.corpus, number) else { continue };
        let text = serde_json::to_string(&case.scenario.to_map()).unwrap();
        named.extend(name.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    assert!(named.contains("job_id") && !named.contains("estimated_completion"), "{named:?}");
}

/// A cell for which few draws make a case (for example, only with one of many names) is played as often as others.
#[test]
fn cells_with_few_successful_draws_are_played_as_often_as_others() {
    let cases = PlayableCases::new("emprops", 1, &|name| ["ping", "submit_job"].contains(&name));
    let rare = |cell: &FuzzCell| cell.placement == Placement::Kept && cell.mutation.name().starts_with("wrong");
    let rare: Vec<u64> =
        (0..).zip(&cases.scheduler.cells).filter(|(_, cell)| rare(cell)).map(|(number, _)| number).collect();
    assert!(rare.len() >= 3, "{rare:?}");
    for cell in rare {
        let numbers = (0..24).map(|round| cell + round * cases.len());
        let made = numbers.filter(|number| cases.scheduler.case(&cases.protocol.corpus, *number).is_some()).count();
        assert!(made >= 20, "{:?}: {made} of 24", cases.scheduler.cells[cell as usize]);
    }
}

/// Most of the hundred messages drawn for a shared connection are sent, though few of the unrestricted draws would be
/// answered: without `restrict_to_common`, half as many, or one in eight if only certain members lead to an answer.
#[rstest]
#[case::places("qi", "extended_request", "missing")]
#[case::members("gator", "stop_request", "explored")]
#[case::answered_with("gator", "log_request", "explored")]
fn most_messages_drawn_for_a_shared_connection_are_sent(
    #[case] protocol: &str,
    #[case] message: &str,
    #[case] mutation: &str,
) {
    let cases = PlayableCases::new(protocol, 1, &|name| name == message);
    let is_of = |cell: FuzzCell| cell.placement == Placement::Kept && cell.mutation.name() == mutation;
    let made = cases.scheduler.numbers(&is_of).take(8).map(|number| {
        let scenario = cases.scheduler.case(&cases.protocol.corpus, number).unwrap().scenario;
        let batches = scenario.steps.iter().find_map(|step| step.option("in")?.as_array());
        batches.unwrap().iter().map(|batch| batch.as_array().unwrap().len()).sum::<usize>()
    });
    let sent: Vec<usize> = made.collect();
    assert!(sent.iter().sum::<usize>() > 50 * sent.len(), "{sent:?}");
}

/// Returns the first case with the placement `anew` of each wanted cell.
fn programs_with_placement_anew(cases: &mut PlayableCases, wanted: impl Fn(&FuzzCell) -> bool) -> Vec<Arc<Program>> {
    let is_of = |cell: &FuzzCell| cell.placement == Placement::Anew && wanted(cell);
    let numbers: Vec<u64> = (0..).zip(&cases.scheduler.cells).filter(|(_, cell)| is_of(cell)).map(|(n, _)| n).collect();
    numbers.into_iter().filter_map(|number| Some(cases.case(number)?.1)).collect()
}

#[test]
fn with_placement_anew_each_message_comes_from_a_new_client() {
    let mut cases = PlayableCases::new("emprops", 1, &|name| name == "worker_heartbeat");
    let programs = programs_with_placement_anew(&mut cases, |cell| cell.mutation == MutationKind::Explored);
    let report = crate::support::sim_connection::SimulatedProtocol::load("emprops").play(&programs[0], None).unwrap();
    assert_eq!(report.verdict, Verdict::Pass);
    let of_sender = || report.history.iter().filter(|frame| frame.actor == "sender");
    let connections = of_sender().filter(|frame| frame.kind == FrameKind::Open).count();
    let sent = of_sender().filter_map(|frame| serde_json::from_str::<Value>(&frame.text).ok());
    let sent = sent.filter(|sent| sent["type"] == "worker_heartbeat");
    let names: BTreeSet<String> = sent.filter_map(|sent| Some(sent["worker_id"].as_str()?.to_owned())).collect();
    assert!(connections > 2 && names.len() == connections, "{connections}: {names:?}");
}

/// Each oracle in the loop finds a hub that breaks it.
#[rstest]
#[case::not_refused("airavata-fuzz-garbled-unanswered", "FUZZ-REJECTS")]
#[case::not_answered("qi-fuzz-more-unanswered", "FUZZ-ANSWERS")]
#[case::hangs("airavata-fuzz-duplicate-hangs", "FUZZ-SERVES-OLD")]
#[case::dies("qi-fuzz-nul-kills", "FUZZ-SERVES-OLD")]
fn placement_anew_finds_defects(#[case] fault: &str, #[case] oracle: &str) {
    let name = fault.split('-').next().unwrap();
    let hub = crate::support::sim_connection::SimulatedProtocol::load(name);
    let mut cases = PlayableCases::new(name, 1, &|_| true);
    let reports = programs_with_placement_anew(&mut cases, |_| true)
        .into_iter()
        .filter_map(|program| hub.play(&program, Some(fault)));
    let mut broken = reports.flat_map(|report| report.checks).filter(|check| check.verdict == Verdict::Fail);
    assert!(broken.any(|check| check.name.starts_with(oracle)));
}

/// The hub has no slot for a third connection.
#[test]
fn with_placement_anew_each_new_client_must_be_served() {
    let mut hub = crate::support::sim_connection::SimulatedProtocol::load("airavata");
    hub.set(Some("max_connections"), "max_connections", 2);
    let mut cases = PlayableCases::new("airavata", 1, &|name| name == "ping");
    let report = hub.play(&programs_with_placement_anew(&mut cases, |_| true)[0], None).unwrap();
    let broken: Vec<&str> =
        report.checks.iter().filter(|check| check.verdict == Verdict::Fail).map(|check| &*check.name).collect();
    // One of this oracle's checks, whichever step shows it.
    assert!(broken.len() == 1 && broken[0].starts_with("FUZZ-SERVES-NEW"), "{broken:?}");
}

/// A hub whose handling of input is changed.
pub(super) struct ModifiedMachine<F> {
    pub(super) inner: Box<dyn Machine>,
    pub(super) way: F,
}

impl<F: FnMut(&mut dyn Machine, Duration, MachineInput, &mut Vec<MachineOutput>) + Send> Machine
    for ModifiedMachine<F>
{
    fn handle(&mut self, now: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        (self.way)(&mut *self.inner, now, input, out);
    }

    fn deadline(&self) -> Option<Duration> {
        self.inner.deadline()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<MachineOutput>) -> Result<Value, EventError> {
        self.inner.event(now, event, out)
    }
}

/// A hub with slots for two more clients, which notices late that one has left.
fn full_hub(inner: Box<dyn Machine>) -> Box<dyn Machine> {
    let mut came = 0;
    let way = move |inner: &mut dyn Machine, now, input, out: &mut Vec<MachineOutput>| {
        if let MachineInput::Open { conn, .. } = input {
            came += 1;
            if came == 3 {
                return out.push(MachineOutput::Refuse { conn, status: 403, body: "no room just now".to_owned() });
            }
        }
        inner.handle(now, input, out);
    };
    Box::new(ModifiedMachine { inner, way })
}

#[test]
fn a_new_client_may_be_refused_for_a_moment() {
    let hub = crate::support::sim_connection::SimulatedProtocol::load("qi");
    let mut cases = PlayableCases::new("qi", 1, &|_| true);
    let joined = cases
        .scheduler
        .cells
        .iter()
        .position(|cell| cell.placement == Placement::Joined && !matches!(cell.mutation, MutationKind::Framed(_)));
    let (_, program) = cases.case(joined.unwrap() as u64).unwrap();
    let report = hub.play_on(&program, None, &full_hub, SendingManner::default()).unwrap();
    let turned_away =
        report.history.iter().filter(|frame| frame.actor == "newcomer" && frame.kind == FrameKind::Refused);
    assert_eq!((report.verdict, turned_away.count()), (Verdict::Pass, 1));
}

/// A hub with 64 slots that never frees the slots of clients that leave or are refused.
fn leaking_hub(inner: Box<dyn Machine>, of_refused: bool) -> Box<dyn Machine> {
    let mut places = 64_usize;
    let way = move |inner: &mut dyn Machine, now, input, out: &mut Vec<MachineOutput>| {
        if let (MachineInput::Open { conn, .. }, 0) = (&input, places) {
            return out.push(MachineOutput::Refuse { conn: *conn, status: 403, body: "no room".to_owned() });
        }
        let leaves = matches!(input, MachineInput::Closed { .. }) && !of_refused;
        let before = out.len();
        inner.handle(now, input, out);
        let refused = out[before..].iter().any(|output| matches!(output, MachineOutput::Refuse { .. })) && of_refused;
        places = places.saturating_sub(usize::from(leaves || refused));
    };
    Box::new(ModifiedMachine { inner, way })
}

#[rstest]
#[case::gone("qi", Churn::Broken, false, Verdict::Fail)]
#[case::closed("qi", Churn::OddClose, false, Verdict::Fail)]
#[case::refused("airavata", Churn::NoPath, true, Verdict::Warn)]
fn a_client_after_connection_churn_must_be_served(
    #[case] name: &str,
    #[case] churn: Churn,
    #[case] of_refused: bool,
    #[case] verdict: Verdict,
) {
    let hub = crate::support::sim_connection::SimulatedProtocol::load(name);
    let mut cases = PlayableCases::new(name, 1, &|_| true);
    let program =
        programs_with_placement_anew(&mut cases, |cell| cell.mutation == MutationKind::Churn(churn)).remove(0);
    assert_eq!(hub.play(&program, None).unwrap().verdict, Verdict::Pass);
    let leaking = |inner| leaking_hub(inner, of_refused);
    let report = hub.play_on(&program, None, &leaking, SendingManner::default()).unwrap();
    let broken = report.checks.iter().filter(|check| check.verdict == verdict).map(|check| &*check.name);
    assert_eq!((report.verdict, broken.collect()), (verdict, vec!["FUZZ-SERVES-NEW"]));
}

/// A hub that ignores a connection after a text with a byte order mark, but keeps it open.
fn deaf_hub(inner: Box<dyn Machine>) -> Box<dyn Machine> {
    let mut to = BTreeSet::new();
    let way = move |inner: &mut dyn Machine, now, input, out: &mut Vec<MachineOutput>| match &input {
        MachineInput::Text { conn, .. } if to.contains(conn) => {}
        MachineInput::Text { conn, text } if text.starts_with('\u{feff}') => {
            to.insert(*conn);
        }
        _ => inner.handle(now, input, out),
    };
    Box::new(ModifiedMachine { inner, way })
}

/// Even if the document requires no answer, a hub must not keep a connection open and ignore it.
#[rstest]
fn an_open_connection_must_be_served(#[values("qi", "gator")] name: &str) {
    let hub = crate::support::sim_connection::SimulatedProtocol::load(name);
    let mut cases = PlayableCases::new(name, 1, &|_| true);
    let is_of = |cell: FuzzCell| {
        cell.placement == Placement::Joined && cell.mutation == MutationKind::Corrupted(JsonCorruption::ByteOrderMark)
    };
    let (_, program) = cases.case(cases.scheduler.numbers(&is_of).next().unwrap()).unwrap();
    assert_eq!(hub.play(&program, None).unwrap().verdict, Verdict::Pass);
    let report = hub.play_on(&program, None, &deaf_hub, SendingManner::default()).unwrap();
    let broken = report.checks.iter().filter(|check| check.verdict == Verdict::Warn).map(|check| &*check.name);
    assert_eq!((report.verdict, broken.collect()), (Verdict::Warn, vec!["FUZZ-GOES-ON"]));
}

/// A hub that processes one of several messages received at the same time, and drops the others.
fn hasty_hub(inner: Box<dyn Machine>) -> Box<dyn Machine> {
    let mut last = std::collections::BTreeMap::new();
    let way = move |inner: &mut dyn Machine, now, input, out: &mut Vec<MachineOutput>| match &input {
        MachineInput::Text { conn, .. } if last.insert(*conn, now) == Some(now) => {}
        _ => inner.handle(now, input, out),
    };
    Box::new(ModifiedMachine { inner, way })
}

#[test]
fn each_message_of_a_batch_must_be_answered() {
    let hub = crate::support::sim_connection::SimulatedProtocol::load("gator");
    let mut cases = PlayableCases::new("gator", 1, &|name| name == "log_request");
    let is_of = |cell: FuzzCell| cell.placement == Placement::Kept && cell.mutation == MutationKind::Explored;
    let (_, program) = cases.case(cases.scheduler.numbers(&is_of).next().unwrap()).unwrap();
    assert_eq!(hub.play(&program, None).unwrap().verdict, Verdict::Pass);
    let report = hub.play_on(&program, None, &hasty_hub, SendingManner::default()).unwrap();
    let broken = report.checks.iter().filter(|check| check.verdict == Verdict::Fail).map(|check| &*check.name);
    let sent = report.history.iter().filter(|frame| frame.actor == "sender" && frame.text.contains("posted")).count();
    assert_eq!((report.verdict, broken.collect()), (Verdict::Fail, vec!["FUZZ-ANSWERS,GAT-009,GAT-005#2"]));
    assert!(sent > 5, "{sent}");
}

/// Waiting for an error that is only recommended would add a hundred waits.
#[test]
fn optional_answers_get_only_a_short_wait() {
    let mut cases = PlayableCases::new("airavata", 1, &|name| name == "ping");
    let is_of = |cell: FuzzCell| {
        cell.placement == Placement::Kept && cell.mutation == MutationKind::Mutated(MemberMutation::Null)
    };
    let (text, _) = cases.case(cases.scheduler.numbers(&is_of).next().unwrap()).unwrap();
    assert!(text.contains("25ms") && !text.contains("AIR-098"), "{text}");
}

/// A multi-byte character split between two fragments is still one character.
#[test]
fn a_character_split_between_fragments_is_one_character() {
    let hub = crate::support::sim_connection::SimulatedProtocol::load("concierge");
    let mut cases = PlayableCases::new("concierge", 1, &|name| name == "group_fetch");
    let is_of = |cell: FuzzCell| {
        cell.placement == Placement::Joined && cell.mutation == MutationKind::Framed(FramingMutation::Fragments)
    };
    let (text, program) = cases.case(cases.scheduler.numbers(&is_of).next().unwrap()).unwrap();
    let report = hub.play(&program, None).unwrap();
    assert_eq!((report.verdict, text.replace('\'', "").contains("hex: f0")), (Verdict::Pass, true), "{text}");
    let answers = || report.history.iter().filter(|frame| frame.text.contains("NO_SUCH_GROUP"));
    assert!(answers().count() == 1 && answers().all(|frame| frame.text.contains("ß😀")));
}
