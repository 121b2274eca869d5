//! Two hubs side by side: a hub does not differ from itself, and a fault makes it differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use hubproof::event::ScenarioReport;
use hubproof::fuzz::case::{Case, Oddity};
use hubproof::fuzz::differ::{self, Comparison, Reading};
use hubproof::fuzz::plan::Plan;
use hubproof::scenario::{self, Program};
use hubproof_reference::fault::{Act, Effect};
use rstest::rstest;

use crate::fuzz_cases::{Protocol, protocol};
use crate::fuzz_walk::program;
use crate::virtual_wire;

/// Cases that can be played without sockets, with what the reference server said.
struct Plays {
    protocol: Protocol,
    hub: virtual_wire::Protocol,
    ignore: Vec<String>,
    played: Vec<(Case, Arc<Program>, ScenarioReport)>,
}

impl Plays {
    /// Every `step`th cell of the plan, and further on with other dice, until there are so many.
    fn of(name: &str, step: usize, many: usize) -> Self {
        let mut protocol = protocol(name);
        let hub = virtual_wire::Protocol::load(name);
        let pack = Arc::clone(&protocol.material.pack);
        let shared = scenario::shared(&protocol.folder, &protocol.sources, &pack, &mut Vec::new());
        let plan = Plan::new(&protocol.material, 3, &|_| true);
        let mut played = Vec::new();
        for number in (0..).step_by(step) {
            let Some(case) = plan.case(&protocol.material, number) else { continue };
            if matches!(case.cell.oddity, Oddity::Framed(_)) {
                continue;
            }
            let program = program(&mut protocol, &shared, name, &case);
            played.extend(hub.play(&program, None).map(|report| (case, program, report)));
            if played.len() == many {
                break;
            }
        }
        let mut ignore = shared.shared.ignore.clone();
        let open =
            protocol.material.shared.pointer("/fuzz/open").and_then(serde_json::Value::as_array).into_iter().flatten();
        ignore.extend(open.filter_map(serde_json::Value::as_str).map(str::to_owned));
        Self { protocol, hub, ignore, played }
    }

    fn valid(name: &str, many: usize) -> Self {
        let mut protocol = protocol(name);
        let hub = virtual_wire::Protocol::load(name);
        let pack = Arc::clone(&protocol.material.pack);
        let shared = scenario::shared(&protocol.folder, &protocol.sources, &pack, &mut Vec::new());
        let plan = Plan::new(&protocol.material, 3, &|_| true);
        let mut played = Vec::new();
        for number in 0.. {
            let cell = plan.cells[number as usize % plan.cells.len()];
            if cell.oddity != Oddity::Explored || cell.placement == hubproof::fuzz::case::Placement::First {
                continue;
            }
            let Some(case) = plan.case(&protocol.material, number) else { continue };
            let program = program(&mut protocol, &shared, name, &case);
            played.extend(hub.play(&program, None).map(|report| (case, program, report)));
            if played.len() == many {
                break;
            }
        }
        let mut ignore = shared.shared.ignore.clone();
        let open =
            protocol.material.shared.pointer("/fuzz/open").and_then(serde_json::Value::as_array).into_iter().flatten();
        ignore.extend(open.filter_map(serde_json::Value::as_str).map(str::to_owned));
        Self { protocol, hub, ignore, played }
    }

    fn compare(&self, left: &ScenarioReport, right: &ScenarioReport) -> Comparison {
        let decided = |_, _: Option<&_>, _: Option<&_>| false;
        let reading = Reading::of(&self.protocol.material.pack, self.ignore.clone(), &decided);
        differ::compare(&reading, left, right)
    }
}

#[rstest]
fn a_hub_does_not_differ_from_itself(#[values("qi", "concierge", "airavata", "emprops", "gator")] name: &str) {
    let plays = Plays::of(name, 11, 150);
    let (mut compared, mut ended, mut wrong) = (0, BTreeMap::<&str, usize>::new(), String::new());
    for (case, program, report) in &plays.played {
        let again = plays.hub.play(program, None).unwrap();
        let comparison = plays.compare(report, &again);
        compared += comparison.compared;
        *ended.entry(comparison.ended.unwrap_or("to the end")).or_default() += 1;
        for difference in &comparison.differences {
            wrong += &format!("{}\n  {difference:?}\n", report.title);
        }
        let _ = case;
    }
    println!("{name}: {} cases, {compared} messages compared; {ended:?}", plays.played.len());
    assert_eq!(wrong, "");
    assert!(compared * 2 > plays.played.len());
}

/// Faults whose work a comparison should show: something is missing, doubled, or of another kind.
#[rstest]
#[case::qi("qi")]
#[case::concierge("concierge")]
#[case::airavata("airavata")]
#[case::emprops("emprops")]
#[case::gator("gator")]
fn a_fault_makes_a_difference(#[case] name: &str) {
    noticed(name, 10, 60);
}

#[rstest]
#[case::qi("qi")]
#[case::concierge("concierge")]
#[case::airavata("airavata")]
#[case::emprops("emprops")]
#[case::gator("gator")]
#[ignore = "minutes: cargo test --release --test it -- --ignored --nocapture fifty_faults"]
fn fifty_faults_make_a_difference(#[case] name: &str) {
    noticed(name, 50, 300);
}

fn noticed(name: &str, most: usize, cases: usize) {
    let plays = Plays::of(name, 7, cases);
    let shows = |act: &Act| {
        matches!(
            act,
            Act::Drop | Act::Double | Act::Remove(_) | Act::Retype(_) | Act::Misroute | Act::Set(..) | Act::Rename(..)
        )
    };
    let outside =
        |effect: &Effect| matches!(effect, Effect::Outside(changes) if changes.iter().all(|change| shows(&change.act)));
    let all: Vec<_> =
        hubproof_reference::faults().filter(|fault| fault.protocol == name && outside(&fault.effect)).collect();
    let step = (all.len() / most).max(1);
    let (mut tried, mut seen, mut missed, mut first) = (0, 0, Vec::new(), BTreeMap::<String, usize>::new());
    for fault in all.iter().step_by(step).take(most) {
        tried += 1;
        let found = plays.played.iter().enumerate().find_map(|(number, (_, program, report))| {
            let broken = plays.hub.play(program, Some(fault.id))?;
            let difference = plays.compare(&broken, report).differences.into_iter().next()?;
            Some((number, difference.in_words()))
        });
        match found {
            Some((_, words)) => {
                seen += 1;
                *first.entry(words).or_default() += 1;
            }
            None => missed.push(fault.id),
        }
    }
    println!("{name}: {seen} of {tried} faults make a difference in {} cases; not {missed:?}", plays.played.len());
    println!("  {first:#?}");
    assert!(seen * 2 > tried, "only {seen} of {tried}");
}

pub fn habit(
    hub: &virtual_wire::Protocol,
    bent: &crate::legal_habits::Hub,
    around: &dyn Fn(Box<dyn hubproof_reference::Machine>) -> Box<dyn hubproof_reference::Machine>,
) {
    let name = &hub.pack.name;
    if name == "websocket" {
        return;
    }
    let plays = Plays::valid(name, 60);
    let mut differences: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut fails: BTreeMap<String, usize> = BTreeMap::new();
    let mut compared = 0;
    for (_, program, _) in &plays.played {
        let Some(left) = hub.play_on(program, bent.fault, around, bent.manner) else { continue };
        let right = plays.hub.play(program, None).unwrap();
        for check in &left.checks {
            if matches!(check.verdict, hubproof::event::Verdict::Fail | hubproof::event::Verdict::Inconclusive) {
                *fails.entry(format!("{} {:?} {}", check.name, check.verdict, check.message)).or_default() += 1;
            }
        }
        let comparison = plays.compare(&left, &right);
        compared += comparison.compared;
        for d in comparison.differences {
            let words = d.in_words();
            let cut = |t: &str| t.chars().take(200).collect::<String>();
            differences
                .entry(words)
                .or_insert_with(|| (0, format!("{}: {} | {}", d.actor, cut(&d.left), cut(&d.right))))
                .0 += 1;
        }
    }
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let mut text = format!("HABIT {test} {name} {compared} {fails:?}\n");
    for (words, (n, example)) in differences {
        text += &format!("   {n} {words}\n        {example}\n");
    }
    println!("{text}");
}
