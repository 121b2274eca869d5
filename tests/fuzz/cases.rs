//! Cases of the five protocols: each is a scenario that the reader takes, and the same every time.

use std::path::PathBuf;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hubproof::event::{CheckReport, Verdict};
use hubproof::fuzz::case::churn::Churn;
use hubproof::fuzz::case::{Cell, MutationKind};
use hubproof::fuzz::corpus::Corpus;
use hubproof::fuzz::mutate::frames::Framing;
use hubproof::fuzz::mutate::json_text::JsonCorruption;
use hubproof::fuzz::mutate::payload::Class;
use hubproof::fuzz::mutate::schema::Mutation;
use hubproof::fuzz::oracle;
use hubproof::fuzz::placement::Placement;
use hubproof::fuzz::scheduler::Scheduler;
use hubproof::protocol::{Folder, Pack};
use hubproof::scenario::{self, Program, writer};
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;
use hubproof_reference::Machine;
use hubproof_reference::machine::{EventError, Input, Output};
use rstest::rstest;
use serde_json::Value;

use crate::support::sim_connection::Manner;
use crate::support::disk::protocol_name;

pub struct Protocol {
    pub sources: Sources,
    pub folder: Folder,
    pub material: Corpus,
}

/// Cases, read as scenarios and ready to be played without sockets.
pub struct Cases {
    name: String,
    protocol: Protocol,
    shared: scenario::SharedFile,
    plan: Scheduler,
}

impl Cases {
    /// The cases about the messages that are wanted.
    pub fn new(name: &str, seed: u64, message: &dyn Fn(&str) -> bool) -> Self {
        let protocol = protocol(name);
        let shared = scenario::shared(&protocol.folder, &protocol.sources, &protocol.material.pack, &mut Vec::new());
        let plan = Scheduler::new(&protocol.material, seed, message);
        Self { name: name.to_owned(), protocol, shared, plan }
    }

    pub fn len(&self) -> u64 {
        self.plan.cells.len() as u64
    }

    /// The case of a number as text and program; `None` where there is none, or it is odd below what a virtual wire
    /// carries.
    pub fn case(&mut self, number: u64) -> Option<(String, Arc<Program>)> {
        let case = self.plan.case(&self.protocol.material, number)?;
        if matches!(case.cell.oddity, MutationKind::Framed(framing) if !is_carried(framing)) {
            return None;
        }
        let text = writer::scenario(&case.scenario);
        let sources = &mut self.protocol.sources;
        let file = sources.add(format!("case-{number}.yaml"), text.clone());
        let root = yaml::parse(sources, file).unwrap_or_else(|error| panic!("{}\n{text}", error.message));
        let id = format!("{}/case-{number}", self.name);
        let (program, diagnostics) = scenario::parse::read(&id, &root, &self.shared, &self.protocol.material.pack);
        let shown = || hubproof::syntax::diagnostic::render_all(&diagnostics, sources, false);
        Some((text.clone(), Arc::new(program.unwrap_or_else(|| panic!("{}\n{text}", shown())))))
    }
}

/// Whether a virtual wire carries it.
pub fn is_carried(framing: Framing) -> bool {
    framing.class() != Class::Broken && framing != Framing::Oversize
}

pub fn protocol(name: &str) -> Protocol {
    let mut sources = Sources::default();
    let folder = crate::support::disk::folder(name, &mut sources);
    let (pack, diagnostics) = Pack::load(&folder, &sources);
    assert!(diagnostics.is_empty());
    let mut pack = pack.unwrap();
    pack.rules.extend(oracle::rules(&mut sources).into_iter().map(|rule| (rule.id.clone(), rule)));
    let pack = Arc::new(pack);
    let material = Corpus::read(&folder, &sources, &pack);
    Protocol { sources, folder, material }
}

#[rstest]
fn every_case_is_a_scenario(#[dirs] #[files("schemas/*/messages")] name: PathBuf) {
    let name = &*protocol_name(&name);
    let mut protocol = protocol(name);
    let pack = Arc::clone(&protocol.material.pack);
    let shared = scenario::shared(&protocol.folder, &protocol.sources, &pack, &mut Vec::new());
    let plan = Scheduler::new(&protocol.material, 1, &|_| true);
    let mut classes: BTreeMap<Class, usize> = BTreeMap::new();
    let mut made = 0;
    for number in 0..plan.cells.len() as u64 {
        let Some(case) = plan.case(&protocol.material, number) else { continue };
        made += 1;
        *classes.entry(case.class).or_default() += 1;
        let text = writer::scenario(&case.scenario);
        let file = protocol.sources.add(format!("case-{number}.yaml"), text.clone());
        let root = yaml::parse(&protocol.sources, file).unwrap_or_else(|error| panic!("{}\n{text}", error.message));
        let (program, diagnostics) = scenario::parse::read(&format!("{name}/case"), &root, &shared, &pack);
        let shown = hubproof::syntax::diagnostic::render_all(&diagnostics, &protocol.sources, false);
        assert!(program.is_some() && diagnostics.is_empty(), "{shown}\n{text}");
    }
    println!("{name}: {} cells, {made} made, {classes:?}", plan.cells.len());
    assert!(made * 10 > plan.cells.len() * 9);
}

#[rstest]
fn the_same_seed_gives_the_same_cases(#[values("qi", "emprops")] name: &str) {
    let texts = |seed| {
        let protocol = protocol(name);
        let plan = Scheduler::new(&protocol.material, seed, &|_| true);
        (0..200).filter_map(|n| Some(writer::scenario(&plan.case(&protocol.material, n)?.scenario))).collect::<Vec<_>>()
    };
    assert_eq!(texts(7), texts(7));
    assert_ne!(texts(7), texts(8));
}

/// Without sockets, so without what is odd below messages.
#[rstest]
fn the_reference_server_stands_firm(#[dirs] #[files("schemas/*/messages")] name: PathBuf) {
    let name = &*protocol_name(&name);
    let hub = crate::support::sim_connection::Protocol::load(name);
    let mut cases = Cases::new(name, 1, &|_| true);
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

/// A hub that reads the id off what breaks off answers each of them: no id may come twice.
#[test]
fn what_is_repeated_and_the_fence_behind_it_use_an_id_once() {
    let protocol = protocol("gator");
    let plan = Scheduler::new(&protocol.material, 1, &|_| true);
    let id = regex::Regex::new(r#""req_id":(-?[0-9]+),"#).unwrap();
    let mut texts = 0;
    for number in plan.numbers(&|cell| cell.placement == Placement::Repeated).take(60) {
        let Some(case) = plan.case(&protocol.material, number) else { continue };
        let rounds =
            case.scenario["steps"].as_array().unwrap().iter().filter_map(|step| step["in"].as_array()).flatten();
        let said: Vec<&str> = rounds.filter_map(|text| text.as_str()).collect();
        let ids: Vec<&str> = said.iter().filter_map(|text| Some(id.captures(text)?.get(1)?.as_str())).collect();
        texts += ids.len();
        let different: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(different.len(), ids.len(), "{said:#?}");
        // Where the ids of the fence begin.
        assert!(ids.iter().all(|id| id.parse::<i64>().unwrap() <= 100_000), "{ids:?}");
    }
    assert!(texts > 50, "only {texts} ids were said");
}

/// Before anything else is said: nobody would notice later that a hub has become slower by that. A hub hangs up on a
/// stranger's first mistake, so that he cannot tire it.
#[rstest]
fn a_hub_that_tires_is_seen_by_the_first_cases(#[values("qi", "concierge", "gator")] name: &str) {
    let hub = crate::support::sim_connection::Protocol::load(name);
    let fault = format!("{name}-fuzz-slower");
    for seed in 1..=12 {
        let mut cases = Cases::new(name, seed, &|_| true);
        let first = cases.plan.cells.iter().take_while(|cell| cell.placement == Placement::Repeated).count() as u64;
        let mut played = (0..first).filter_map(|number| hub.play(&cases.case(number)?.1, Some(&fault)));
        let tires = |check: &CheckReport| check.verdict == Verdict::Fail && check.name == "FUZZ-STEADY";
        assert!(played.any(|report| report.checks.iter().any(tires)), "seed {seed}");
    }
}

/// What the document does not forbid to come unasked proves no leak.
#[rstest]
#[case::open("pong", "FUZZ-ISOLATES as should")]
#[case::asked_for("subscribe_response", "FUZZ-ISOLATES")]
fn an_open_message_proves_no_leak(#[case] message: &str, #[case] rule: &str) {
    let protocol = protocol("airavata");
    let plan = Scheduler::new(&protocol.material, 1, &|_| true);
    let cases = (0..plan.cells.len() as u64).filter_map(|number| plan.case(&protocol.material, number));
    let steps: Vec<Value> = cases.flat_map(|case| case.scenario["steps"].as_array().unwrap().clone()).collect();
    let nothing = steps.iter().filter(|step| step["innocent expects nothing"] == message);
    let rules: BTreeSet<&str> = nothing.filter_map(|step| step["rules"][0].as_str()).collect();
    assert_eq!(rules, BTreeSet::from([rule]));
}

/// A made-up name is no time, and a hub may pass on what it is told.
#[test]
fn a_walk_puts_no_name_where_a_form_is_asked_for() {
    let cases = Cases::new("emprops", 1, &|_| true);
    let name = regex::Regex::new(r#"\\"([a-z_]+)\\":\$\{json\(fresh_"#).unwrap();
    let mut named = BTreeSet::new();
    for number in 0..cases.len() {
        let Some(case) = cases.plan.case(&cases.protocol.material, number) else { continue };
        let text = serde_json::to_string(&case.scenario).unwrap();
        named.extend(name.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    assert!(named.contains("job_id") && !named.contains("estimated_completion"), "{named:?}");
}

/// What few dice make a case of, such as the one name of many that is answered, comes as often as what all do.
#[test]
fn what_is_rare_to_make_comes_as_often() {
    let cases = Cases::new("emprops", 1, &|name| ["ping", "submit_job"].contains(&name));
    let rare = |cell: &Cell| cell.placement == Placement::Kept && cell.oddity.name().starts_with("wrong");
    let rare: Vec<u64> =
        (0..).zip(&cases.plan.cells).filter(|(_, cell)| rare(cell)).map(|(number, _)| number).collect();
    assert!(rare.len() >= 3, "{rare:?}");
    for cell in rare {
        let numbers = (0..24).map(|round| cell + round * cases.len());
        let made = numbers.filter(|number| cases.plan.case(&cases.protocol.material, *number).is_some()).count();
        assert!(made >= 20, "{:?}: {made} of 24", cases.plan.cells[cell as usize]);
    }
}

/// Of a hundred things that are thought of for one connection most are said, though few are answered where all are
/// thought of alike: half as many were said of these otherwise, and of what has to say that it wants an answer one in
/// eight.
#[rstest]
#[case::places("qi", "extended_request", "missing")]
#[case::members("gator", "stop_request", "explored")]
#[case::answered_with("gator", "log_request", "explored")]
fn what_is_thought_of_for_a_kept_connection_is_said(
    #[case] protocol: &str,
    #[case] message: &str,
    #[case] oddity: &str,
) {
    let cases = Cases::new(protocol, 1, &|name| name == message);
    let is_of = |cell: Cell| cell.placement == Placement::Kept && cell.oddity.name() == oddity;
    let made = cases.plan.numbers(&is_of).take(8).map(|number| {
        let scenario = cases.plan.case(&cases.protocol.material, number).unwrap().scenario;
        let batches = scenario["steps"].as_array().unwrap().iter().find_map(|step| step["in"].as_array());
        batches.unwrap().iter().map(|batch| batch.as_array().unwrap().len()).sum::<usize>()
    });
    let said: Vec<usize> = made.collect();
    assert!(said.iter().sum::<usize>() > 50 * said.len(), "{said:?}");
}

/// The first case of each kind in which things are said anew.
fn said_anew(cases: &mut Cases, wanted: impl Fn(&Cell) -> bool) -> Vec<Arc<Program>> {
    let is_of = |cell: &Cell| cell.placement == Placement::Anew && wanted(cell);
    let numbers: Vec<u64> = (0..).zip(&cases.plan.cells).filter(|(_, cell)| is_of(cell)).map(|(n, _)| n).collect();
    numbers.into_iter().filter_map(|number| Some(cases.case(number)?.1)).collect()
}

#[test]
fn what_is_said_anew_is_said_by_somebody_new() {
    let mut cases = Cases::new("emprops", 1, &|name| name == "worker_heartbeat");
    let programs = said_anew(&mut cases, |cell| cell.oddity == MutationKind::Explored);
    let report = crate::support::sim_connection::Protocol::load("emprops").play(&programs[0], None).unwrap();
    assert_eq!(report.verdict, Verdict::Pass);
    let of_sender = || report.history.iter().filter(|frame| frame.actor == "sender");
    let connections = of_sender().filter(|frame| frame.kind == "open").count();
    let said = of_sender().filter_map(|frame| serde_json::from_str::<Value>(&frame.text).ok());
    let said = said.filter(|said| said["type"] == "worker_heartbeat");
    let names: BTreeSet<String> = said.filter_map(|said| Some(said["worker_id"].as_str()?.to_owned())).collect();
    assert!(connections > 2 && names.len() == connections, "{connections}: {names:?}");
}

/// Each oracle that is asked in between accuses a hub that breaks it.
#[rstest]
#[case::not_refused("airavata-fuzz-garbled-unanswered", "FUZZ-REJECTS")]
#[case::not_answered("qi-fuzz-more-unanswered", "FUZZ-ANSWERS")]
#[case::hangs("airavata-fuzz-duplicate-hangs", "FUZZ-SERVES-OLD")]
#[case::dies("qi-fuzz-nul-kills", "FUZZ-SERVES-OLD")]
fn what_is_said_anew_finds_defects(#[case] fault: &str, #[case] oracle: &str) {
    let name = fault.split('-').next().unwrap();
    let hub = crate::support::sim_connection::Protocol::load(name);
    let mut cases = Cases::new(name, 1, &|_| true);
    let reports = said_anew(&mut cases, |_| true).into_iter().filter_map(|program| hub.play(&program, Some(fault)));
    let broken = reports.flat_map(|report| report.checks).filter(|check| check.verdict == Verdict::Fail);
    let broken: BTreeSet<String> = broken.map(|check| check.name).collect();
    assert!(broken.iter().any(|name| name.starts_with(oracle)), "{broken:?}");
}

/// There is no place for a third.
#[test]
fn whoever_comes_anew_must_be_served() {
    let mut hub = crate::support::sim_connection::Protocol::load("airavata");
    hub.set(Some("max_connections"), "max_connections", 2);
    let mut cases = Cases::new("airavata", 1, &|name| name == "ping");
    let report = hub.play(&said_anew(&mut cases, |_| true)[0], None).unwrap();
    let broken: Vec<&str> =
        report.checks.iter().filter(|check| check.verdict == Verdict::Fail).map(|check| &*check.name).collect();
    assert_eq!(broken, ["FUZZ-SERVES-NEW"]);
}

/// A hub that deals with what it is told in another way.
struct Bent<F> {
    inner: Box<dyn Machine>,
    way: F,
}

impl<F: FnMut(&mut dyn Machine, Duration, Input, &mut Vec<Output>) + Send> Machine for Bent<F> {
    fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        (self.way)(&mut *self.inner, now, input, out);
    }

    fn deadline(&self) -> Option<Duration> {
        self.inner.deadline()
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn event(&mut self, now: Duration, event: &Value, out: &mut Vec<Output>) -> Result<Value, EventError> {
        self.inner.event(now, event, out)
    }
}

/// A hub with room for two besides, which notices a moment later who has left.
fn full(inner: Box<dyn Machine>) -> Box<dyn Machine> {
    let mut came = 0;
    let way = move |inner: &mut dyn Machine, now, input, out: &mut Vec<Output>| {
        if let Input::Open { conn, .. } = input {
            came += 1;
            if came == 3 {
                return out.push(Output::Refuse { conn, status: 403, body: "no room just now".to_owned() });
            }
        }
        inner.handle(now, input, out);
    };
    Box::new(Bent { inner, way })
}

#[test]
fn a_newcomer_may_be_turned_away_for_a_moment() {
    let hub = crate::support::sim_connection::Protocol::load("qi");
    let mut cases = Cases::new("qi", 1, &|_| true);
    let joined = cases
        .plan
        .cells
        .iter()
        .position(|cell| cell.placement == Placement::Joined && !matches!(cell.oddity, MutationKind::Framed(_)));
    let (_, program) = cases.case(joined.unwrap() as u64).unwrap();
    let report = hub.play_on(&program, None, &full, Manner::default()).unwrap();
    let turned_away = report.history.iter().filter(|frame| frame.actor == "newcomer" && frame.kind == "refused");
    assert_eq!((report.verdict, turned_away.count()), (Verdict::Pass, 1));
}

/// A hub that takes the places of whoever leaves, or is refused, from the sixty-four that it has.
fn leaking(inner: Box<dyn Machine>, of_refused: bool) -> Box<dyn Machine> {
    let mut places = 64_usize;
    let way = move |inner: &mut dyn Machine, now, input, out: &mut Vec<Output>| {
        if let (Input::Open { conn, .. }, 0) = (&input, places) {
            return out.push(Output::Refuse { conn: *conn, status: 403, body: "no room".to_owned() });
        }
        let leaves = matches!(input, Input::Closed { .. }) && !of_refused;
        let before = out.len();
        inner.handle(now, input, out);
        let refused = out[before..].iter().any(|output| matches!(output, Output::Refuse { .. })) && of_refused;
        places = places.saturating_sub(usize::from(leaves || refused));
    };
    Box::new(Bent { inner, way })
}

#[rstest]
#[case::gone("qi", Churn::Broken, false, Verdict::Fail)]
#[case::closed("qi", Churn::OddClose, false, Verdict::Fail)]
#[case::refused("airavata", Churn::NoPath, true, Verdict::Warn)]
fn whoever_comes_after_many_must_be_served(
    #[case] name: &str,
    #[case] gone: Churn,
    #[case] of_refused: bool,
    #[case] verdict: Verdict,
) {
    let hub = crate::support::sim_connection::Protocol::load(name);
    let mut cases = Cases::new(name, 1, &|_| true);
    let program = said_anew(&mut cases, |cell| cell.oddity == MutationKind::Churn(gone)).remove(0);
    assert_eq!(hub.play(&program, None).unwrap().verdict, Verdict::Pass);
    let leaking = |inner| leaking(inner, of_refused);
    let report = hub.play_on(&program, None, &leaking, Manner::default()).unwrap();
    let broken = report.checks.iter().filter(|check| check.verdict == verdict).map(|check| &*check.name);
    assert_eq!((report.verdict, broken.collect()), (verdict, vec!["FUZZ-SERVES-NEW"]));
}

/// A hub that hears nothing more from whoever has begun a text with a byte order mark, and hangs up on nobody.
fn deaf(inner: Box<dyn Machine>) -> Box<dyn Machine> {
    let mut to = BTreeSet::new();
    let way = move |inner: &mut dyn Machine, now, input, out: &mut Vec<Output>| match &input {
        Input::Text { conn, .. } if to.contains(conn) => {}
        Input::Text { conn, text } if text.starts_with('\u{feff}') => {
            to.insert(*conn);
        }
        _ => inner.handle(now, input, out),
    };
    Box::new(Bent { inner, way })
}

/// What no document answers is no reason to leave a connection open and be deaf to it.
#[rstest]
fn whoever_is_not_hung_up_on_is_heard(#[values("qi", "gator")] name: &str) {
    let hub = crate::support::sim_connection::Protocol::load(name);
    let mut cases = Cases::new(name, 1, &|_| true);
    let is_of = |cell: Cell| {
        cell.placement == Placement::Joined && cell.oddity == MutationKind::Corrupted(JsonCorruption::ByteOrderMark)
    };
    let (_, program) = cases.case(cases.plan.numbers(&is_of).next().unwrap()).unwrap();
    assert_eq!(hub.play(&program, None).unwrap().verdict, Verdict::Pass);
    let report = hub.play_on(&program, None, &deaf, Manner::default()).unwrap();
    let broken = report.checks.iter().filter(|check| check.verdict == Verdict::Warn).map(|check| &*check.name);
    assert_eq!((report.verdict, broken.collect()), (Verdict::Warn, vec!["FUZZ-GOES-ON"]));
}

/// A hub that reads one message of all that have come on a connection, and forgets the rest.
fn hasty(inner: Box<dyn Machine>) -> Box<dyn Machine> {
    let mut last = std::collections::BTreeMap::new();
    let way = move |inner: &mut dyn Machine, now, input, out: &mut Vec<Output>| match &input {
        Input::Text { conn, .. } if last.insert(*conn, now) == Some(now) => {}
        _ => inner.handle(now, input, out),
    };
    Box::new(Bent { inner, way })
}

#[test]
fn what_is_said_at_once_is_answered() {
    let hub = crate::support::sim_connection::Protocol::load("gator");
    let mut cases = Cases::new("gator", 1, &|name| name == "log_request");
    let is_of = |cell: Cell| cell.placement == Placement::Kept && cell.oddity == MutationKind::Explored;
    let (_, program) = cases.case(cases.plan.numbers(&is_of).next().unwrap()).unwrap();
    assert_eq!(hub.play(&program, None).unwrap().verdict, Verdict::Pass);
    let report = hub.play_on(&program, None, &hasty, Manner::default()).unwrap();
    let broken = report.checks.iter().filter(|check| check.verdict == Verdict::Fail).map(|check| &*check.name);
    let said = report.history.iter().filter(|frame| frame.actor == "sender" && frame.text.contains("posted")).count();
    assert_eq!((report.verdict, broken.collect()), (Verdict::Fail, vec!["FUZZ-ANSWERS,GAT-009,GAT-005"]));
    assert!(said > 5, "{said}");
}

/// An error that only should come would be waited for a hundred times over.
#[test]
fn what_need_not_be_answered_is_not_waited_for_at_length() {
    let mut cases = Cases::new("airavata", 1, &|name| name == "ping");
    let is_of = |cell: Cell| cell.placement == Placement::Kept && cell.oddity == MutationKind::Mutated(Mutation::Null);
    let (text, _) = cases.case(cases.plan.numbers(&is_of).next().unwrap()).unwrap();
    assert!(text.contains("25ms") && !text.contains("AIR-098"), "{text}");
}

/// In pieces a letter may be torn, and is the same.
#[test]
fn a_torn_letter_is_one_letter() {
    let hub = crate::support::sim_connection::Protocol::load("concierge");
    let mut cases = Cases::new("concierge", 1, &|name| name == "group_fetch");
    let is_of =
        |cell: Cell| cell.placement == Placement::Joined && cell.oddity == MutationKind::Framed(Framing::Fragments);
    let (text, program) = cases.case(cases.plan.numbers(&is_of).next().unwrap()).unwrap();
    let report = hub.play(&program, None).unwrap();
    assert_eq!((report.verdict, text.replace('\'', "").contains("hex: f0")), (Verdict::Pass, true), "{text}");
    let answers = || report.history.iter().filter(|frame| frame.text.contains("NO_SUCH_GROUP"));
    assert!(answers().count() == 1 && answers().all(|frame| frame.text.contains("ß😀")));
}

/// Who has no connection says nothing, and a case in which nothing odd is said shows nothing.
#[rstest]
fn in_every_case_something_odd_is_said(#[dirs] #[files("schemas/*/messages")] name: PathBuf) {
    let name = &*protocol_name(&name);
    let protocol = protocol(name);
    let plan = Scheduler::new(&protocol.material, 1, &|_| true);
    let mut silent = BTreeSet::new();
    for number in 0..plan.cells.len() as u64 {
        let Some(case) = plan.case(&protocol.material, number) else { continue };
        let actors = &case.scenario["actors"];
        let joins = case.scenario["steps"].as_array().unwrap().iter().any(|step| step.get("sender joins").is_some());
        if let Some(role) = actors["sender"].as_str().filter(|role| joins && !protocol.material.joins(role)) {
            silent.insert((case.cell.placement.name(), role.to_owned()));
        }
    }
    assert_eq!(silent, BTreeSet::new());
}
