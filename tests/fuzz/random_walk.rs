//! Random walks: valid messages of several actors in random order, and one mutated message among them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use hubproof::fuzz::case::FuzzCase;
use hubproof::fuzz::placement::Placement;
use hubproof::fuzz::scheduler::CaseScheduler;
use hubproof::outcome::{HistoryDirection, ScenarioReport, Verdict};
use hubproof::protocol::{FrameDirection, Pack};
use rstest::rstest;

use crate::fuzz::cases::FuzzProtocol;
use crate::support::disk::protocol_name;

/// Returns the walks of a scheduler in order, endlessly, with other draws each time.
fn walks<'a>(protocol: &'a FuzzProtocol, scheduler: &'a CaseScheduler) -> impl Iterator<Item = FuzzCase> + 'a {
    let count = scheduler.cells.len() as u64;
    let is_walk = move |number: &u64| scheduler.cells[(number % count) as usize].placement == Placement::Walk;
    (0..).filter(is_walk).filter_map(|number| scheduler.case(&protocol.corpus, number))
}

/// Returns the messages of a direction in a play, in order, without those of the observer client and the new client.
fn played_messages<'a>(pack: &'a Pack, report: &'a ScenarioReport, direction: HistoryDirection) -> Vec<&'a str> {
    let way = if direction == HistoryDirection::Sent { FrameDirection::ToHub } else { FrameDirection::FromHub };
    let walks = |actor: &str| !matches!(actor, "innocent" | "newcomer");
    let frames = report.history.iter().filter(|frame| frame.direction == direction && walks(&frame.actor));
    frames
        .filter_map(|frame| pack.recognise(&serde_json::from_str(&frame.text).ok()?, way))
        .map(|message| message.name.as_str())
        .collect()
}

#[rstest]
fn random_walks_find_nothing_wrong_with_a_correct_hub(
    #[dirs]
    #[files("schemas/*/messages")]
    #[exclude("/(airavata|concierge|emprops)/")]
    name: PathBuf,
) {
    assert_walks_find_nothing(&protocol_name(&name), 100);
}

#[rstest]
#[ignore = "thorough: many minutes of CPU"]
fn thousands_of_random_walks_find_nothing_wrong_with_a_correct_hub(
    #[dirs]
    #[files("schemas/*/messages")]
    name: PathBuf,
) {
    assert_walks_find_nothing(&protocol_name(&name), 3000);
}

fn assert_walks_find_nothing(name: &str, many: usize) {
    let mut protocol = FuzzProtocol::load(name);
    let hub = crate::support::sim_connection::SimulatedProtocol::load(name);
    let pack = Arc::clone(&protocol.corpus.pack);
    let scheduler = CaseScheduler::new(&protocol.corpus, 2, &|_| true);
    let cases: Vec<FuzzCase> = walks(&protocol, &scheduler).take(many).collect();
    let (mut played, mut wrong, mut warned) = (0, String::new(), BTreeMap::<String, usize>::new());
    let mut kinds = [BTreeSet::new(), BTreeSet::new()];
    let mut reach: BTreeMap<usize, usize> = BTreeMap::new();
    let (mut finished, mut undecided) = (0, BTreeMap::<String, usize>::new());
    for case in &cases {
        let program = protocol.program(case);
        let Some(report) = hub.play(&program, None) else { continue };
        played += 1;
        let replies: BTreeSet<&str> =
            pack.messages.iter().flat_map(|message| &message.replies).map(String::as_str).collect();
        let received = played_messages(&pack, &report, HistoryDirection::Received);
        *reach.entry(received.iter().filter(|name| replies.contains(*name)).count()).or_default() += 1;
        kinds[0].extend(played_messages(&pack, &report, HistoryDirection::Sent).into_iter().map(str::to_owned));
        kinds[1].extend(received.into_iter().map(str::to_owned));
        finished += usize::from(!report.history.is_empty() && report.cause.is_none());
        for check in &report.checks {
            match check.verdict {
                Verdict::Fail => wrong += &format!("{} {}\n  {}\n", check.name, check.message, report.title),
                Verdict::Warn => *warned.entry(check.name.clone()).or_default() += 1,
                Verdict::Inconclusive => *undecided.entry(check.message.clone()).or_default() += 1,
                _ => {}
            }
        }
        if let Some(mistake) = &report.mistake {
            wrong += &format!("mistake: {mistake}\n{}\n", case.scenario.text());
        }
    }
    let beyond = |least: usize| reach.iter().filter(|(steps, _)| **steps >= least).map(|(_, n)| n).sum::<usize>();
    println!(
        "{name}: {played} of {} walks played, {finished} to their end; warned {warned:?}; {undecided:?}",
        cases.len()
    );
    println!("  answered messages: >=2 {}, >=4 {}, >=6 {}, >=8 {}", beyond(2), beyond(4), beyond(6), beyond(8));
    for (kinds, received) in [(&kinds[0], false), (&kinds[1], true)] {
        let all = pack.messages.iter().filter(|message| {
            !message.abstract_ && if received { message.directions.from_hub } else { message.directions.to_hub }
        });
        let missing: Vec<&str> =
            all.map(|message| message.name.as_str()).filter(|name| !kinds.contains(*name)).collect();
        println!("  {} kinds {}, never {missing:?}", if received { "received" } else { "sent" }, kinds.len());
    }
    assert_eq!(wrong, "");
    assert!(played * 10 > cases.len() * 9);
}

/// A walk with a message that changes a part of the hub, as scenarios of the pack say, has that part for itself.
#[test]
fn walks_are_safe_for_their_neighbours() {
    for (name, message, expected) in [("emprops", "submit_job", true), ("qi", "base_request", false)] {
        let protocol = FuzzProtocol::load(name);
        let scheduler = CaseScheduler::new(&protocol.corpus, 1, &|_| true);
        let of_message = |case: &FuzzCase| protocol.corpus.pack.messages[case.cell.message].name == message;
        let cases: Vec<FuzzCase> = walks(&protocol, &scheduler).filter(of_message).take(8).collect();
        assert!(cases.iter().all(|case| case.scenario.exclusive.is_some() == expected), "{name}");
    }
}
