use proptest::prelude::*;
use rstest::rstest;

use super::*;

const MS: Nanos = 1_000_000;
const CLIENT: u32 = 900;

/// A time in milliseconds, a party, and a mark.
type MarkLine = (u64, u32, LedgerMark);

fn entries(item: u64, lines: &[MarkLine]) -> Vec<LedgerEntry> {
    lines.iter().map(|(at, party, what)| LedgerEntry { at: at * MS, item, party: *party, what: *what }).collect()
}

fn finished(config: LedgerConfig, entries: &[LedgerEntry]) -> LedgerTotals {
    let mut ledger = ItemLedger::new(config);
    ledger.queue_entries(entries);
    ledger.finish(entries.iter().map(|entry| entry.at).max().unwrap_or(0) + 60 * SECOND)
}

use LedgerMark::{
    Acknowledged, Assigned, Attempted, Cancelled, Completed, Delivered, Failed, Held, Named, NotTaken, Published,
    Refused, Requested, Unsure,
};

const ASSUMED: LedgerMark = LedgerMark::Assumed { deviation: 0 };
const PROGRESS_ASSUMED: LedgerMark = LedgerMark::ProgressAssumed { deviation: 0 };

/// Released, to be assigned again at once.
const RELEASED: LedgerMark = LedgerMark::Released { back_ms: 0 };

#[rstest]
#[case::done(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (9, 1, Completed)], &["attempted", "acknowledged", "completed"])]
#[case::completed_by_an_unnamed_worker(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (9, NO_PARTY, Completed)], &["attempted", "acknowledged", "completed"])]
#[case::completed_twice(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (9, 1, Completed), (10, 1, Completed)], &["attempted", "acknowledged", "completed", "duplicated"])]
#[case::acknowledged_twice(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, CLIENT, Acknowledged), (9, 1, Completed)], &["attempted", "acknowledged", "completed", "duplicated"])]
#[case::lost(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned)], &["attempted", "acknowledged", "lost"])]
#[case::unanswered(&[(0, CLIENT, Attempted)], &["attempted", "unanswered"])]
#[case::unsure(&[(0, CLIENT, Attempted), (1, CLIENT, Unsure)], &["attempted", "unanswered"])]
#[case::recovered(&[(0, CLIENT, Attempted), (1, CLIENT, Unsure), (9, 1, Completed)], &["attempted", "completed", "recovered"])]
#[case::acknowledgement_was_behind(&[(0, CLIENT, Attempted), (9, 1, Completed), (10, CLIENT, Acknowledged)], &["attempted", "acknowledged", "completed"])]
#[case::never_requested(&[(0, 1, Assigned), (9, 1, Completed)], &["unexpected"])]
#[case::requested_late(&[(5, 1, Assigned), (6, 1, Completed), (7, CLIENT, Attempted), (8, CLIENT, Acknowledged)], &["attempted", "acknowledged", "completed"])]
#[case::refused(&[(0, CLIENT, Attempted), (1, CLIENT, Refused)], &["attempted", "refused"])]
#[case::refused_and_done(&[(0, CLIENT, Attempted), (1, CLIENT, Refused), (9, 1, Completed)], &["attempted", "refused", "unexpected"])]
#[case::failed(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (9, 1, Failed)], &["attempted", "acknowledged", "failed"])]
#[case::failed_and_done(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (9, 1, Failed), (9, 1, Completed)], &["attempted", "acknowledged", "failed", "duplicated"])]
#[case::cancelled(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, CLIENT, Cancelled)], &["attempted", "acknowledged", "cancelled"])]
#[case::assigned_long_after(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, CLIENT, Cancelled), (2_000, 1, Assigned)], &["attempted", "acknowledged", "cancelled", "assigned_after_cancellation"])]
#[case::assignment_crossed_the_cancellation(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, CLIENT, Cancelled), (900, 1, Assigned), (901, 1, Completed)], &["attempted", "acknowledged", "cancelled"])]
#[case::assigned_twice(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (3, 2, Assigned), (9, 2, Completed)], &["attempted", "acknowledged", "assigned_twice", "completed"])]
#[case::given_back_before(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (3, 1, RELEASED), (4, 2, Assigned), (9, 2, Completed)], &["attempted", "acknowledged", "completed"])]
#[case::release_arrives_late(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (3, 2, Assigned), (900, 1, RELEASED), (901, 2, Completed)], &["attempted", "acknowledged", "completed"])]
#[case::release_arrives_too_late(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (3, 2, Assigned), (1_500, 1, RELEASED), (1_501, 2, Completed)], &["attempted", "acknowledged", "assigned_twice", "completed"])]
#[case::assigned_when_done(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (9, 1, Completed), (10, 2, Assigned)], &["attempted", "acknowledged", "assigned_twice", "completed"])]
#[case::requested_again(&[(0, CLIENT, Attempted), (1, CLIENT, Unsure), (5, CLIENT, Attempted), (6, CLIENT, Acknowledged), (9, 1, Completed)], &["attempted", "acknowledged", "completed"])]
#[case::later_marks_of_an_unexpected_item(&[(0, 1, Assigned), (2_000, 1, Completed), (2_001, CLIENT, Acknowledged), (2_002, 1, Completed)], &["unexpected"])]
#[case::given_to_a_busy_worker(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, NotTaken)], &["attempted", "acknowledged", "not_taken"])]
#[case::then_given_to_another(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, NotTaken), (3, 2, Assigned), (9, 2, Completed)], &["attempted", "acknowledged", "not_taken", "completed"])]
#[case::then_taken_and_lost(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, NotTaken), (3, 2, Assigned)], &["attempted", "acknowledged", "not_taken", "lost"])]
#[case::given_to_a_busy_worker_too(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (3, 2, NotTaken), (9, 1, Completed)], &["attempted", "acknowledged", "assigned_twice", "completed"])]
#[case::given_to_a_busy_worker_when_done(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (9, 1, Completed), (10, 2, NotTaken)], &["attempted", "acknowledged", "assigned_twice", "completed"])]
#[case::never_requested_and_not_taken(&[(0, 1, NotTaken)], &["unexpected"])]
#[case::requested_late_and_not_taken(&[(5, 1, NotTaken), (7, CLIENT, Attempted), (8, CLIENT, Acknowledged)], &["attempted", "acknowledged", "not_taken"])]
#[case::still_held_at_the_end(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (9, 1, Held)], &["attempted", "acknowledged", "unfinished"])]
#[case::held_by_another(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (9, 2, Held)], &["attempted", "acknowledged", "lost"])]
#[case::id_assumed(&[(0, CLIENT, Requested), (1, NO_PARTY, ASSUMED), (2, CLIENT, Acknowledged), (3, 1, Completed)], &["attempted", "assumed"])]
#[case::end_assumed(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (9, NO_PARTY, ASSUMED)], &["attempted", "acknowledged", "assumed"])]
#[case::end_assumed_before_the_request(&[(0, 1, Assigned), (1, NO_PARTY, ASSUMED), (2, CLIENT, Attempted)], &["attempted", "assumed"])]
#[case::end_of_an_unknown_item_assumed(&[(0, NO_PARTY, ASSUMED)], &[])]
#[case::assignment_assumed(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, NO_PARTY, PROGRESS_ASSUMED)], &["attempted", "acknowledged", "assumed"])]
#[case::another_assignment_assumed(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, NO_PARTY, PROGRESS_ASSUMED), (3, 1, Assigned)], &["attempted", "acknowledged", "lost"])]
#[case::wrong_worker(&[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (9, 2, Completed)], &["attempted", "acknowledged", "wrong_worker", "completed"])]
fn the_marks_of_a_job_determine_the_totals(#[case] marks: &[MarkLine], #[case] expected: &[&str]) {
    let account = finished(LedgerConfig::default(), &entries(7, marks));
    for (name, count) in account.counts() {
        assert_eq!(count, u64::from(expected.contains(&name)), "{name}");
    }
}

#[test]
fn an_item_is_not_unexpected_while_the_ids_of_others_are_only_assumed() {
    let assigned = entries(8, &[(5, 1, Assigned), (9, 1, Completed)]);
    let requested = [(0, CLIENT, Requested), (1, NO_PARTY, LedgerMark::Assumed { deviation: 2 })];
    let account = finished(LedgerConfig::default(), &[entries(7, &requested), assigned.clone()].concat());
    assert_eq!((account.unexpected, account.assumed.get(&2)), (0, Some(&1)), "{account:?}");
    assert_eq!(finished(LedgerConfig::default(), &assigned).unexpected, 1);
}

#[test]
fn a_violation_has_the_history_of_its_item() {
    let marks = [(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (9, 2, Completed)];
    let mut all = entries(7, &marks);
    all.extend(entries(8, &marks[..3]));
    let account = finished(LedgerConfig { most_histories: 1, ..LedgerConfig::default() }, &all);
    let kinds: Vec<(LedgerViolationKind, u64)> = account.violations.iter().map(|v| (v.kind, v.item)).collect();
    assert_eq!(kinds, [(LedgerViolationKind::Lost, 8), (LedgerViolationKind::WrongWorker, 7)]);
    let history: Vec<MarkLine> = account.violations[1].history.iter().map(|s| (s.at / MS, s.party, s.what)).collect();
    assert_eq!(history, marks);
}

#[test]
fn a_long_history_keeps_its_first_and_last_steps() {
    let mut marks = vec![(0, CLIENT, Attempted), (1, CLIENT, Acknowledged)];
    for n in 0..50u64 {
        marks.extend([(2 + 2 * n, 1, Assigned), (3 + 2 * n, 1, RELEASED)]);
    }
    marks.extend([(200, 3, Assigned), (201, 4, Completed)]);
    let account = finished(LedgerConfig::default(), &entries(7, &marks));
    let [violation] = &account.violations[..] else { panic!("{:?}", account.violations) };
    assert_eq!(violation.kind, LedgerViolationKind::WrongWorker);
    assert_eq!(violation.history.len() as u64 + violation.omitted, marks.len() as u64);
    assert_eq!(violation.history[0].what, Attempted);
    assert_eq!(violation.history.last().map(|step| step.what), Some(Completed));
}

#[test]
fn an_item_is_tracked_under_the_id_that_the_hub_assigns() {
    let mut all = entries(1, &[(0, CLIENT, Attempted), (5, CLIENT, Named(77))]);
    all.extend(entries(77, &[(3, 1, Assigned), (5, CLIENT, Acknowledged), (9, 2, Completed)]));
    let account = finished(LedgerConfig::default(), &all);
    assert_eq!((account.attempted, account.acknowledged, account.completed, account.unexpected), (1, 1, 1, 0));
    assert_eq!(account.wrong_worker, 1, "the assignment that arrived first is included");
    assert_eq!(account.open, 0);
}

/// A worker may receive a job long before its client receives the job's id, or its client never does: the job was
/// requested all the same.
#[rstest]
#[case::assigned_before(1, &[10], Some(5_000), 0, 0)]
#[case::assigned_and_never_named(1, &[10], None, 0, 1)]
#[case::one_more_than_requested(1, &[10, 11], None, 1, 1)]
#[case::one_more_and_the_name_is_late(1, &[10, 11], Some(5_000), 1, 0)]
#[case::as_many_as_requested(3, &[10, 11], None, 0, 3)]
#[case::requested_much_later(1, &[0], None, 1, 1)]
fn a_late_answer_does_not_make_an_item_unexpected(
    #[case] requests: u64,
    #[case] heard: &[u64],
    #[case] named: Option<u64>,
    #[case] unexpected: u64,
    #[case] unanswered: u64,
) {
    let requested = if heard == [0] { 3_000 } else { 0 };
    let mut all = Vec::new();
    for n in 0..requests {
        all.extend(entries(1 + n, &[(requested, CLIENT, Requested)]));
    }
    for (n, at) in heard.iter().enumerate() {
        all.extend(entries(70 + n as u64, &[(*at, 1, Assigned)]));
    }
    if let Some(at) = named {
        all.extend(entries(1, &[(at, CLIENT, Named(70))]));
        all.extend(entries(70, &[(at, CLIENT, Acknowledged), (at + 1, 1, Completed)]));
    }
    // Time passes between them, and the entries are processed.
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    all.sort_by_key(|entry| entry.at);
    for entry in &all {
        ledger.process_until(entry.at);
        ledger.queue_entries(&[*entry]);
    }
    let account = ledger.finish(60 * SECOND);
    assert_eq!((account.unexpected, account.unanswered), (unexpected, unanswered));
    assert_eq!(account.violations.len() as u64, unexpected);
    assert_eq!((account.completed, account.open), (u64::from(named.is_some()), 0));
}

/// A failed job waits for its retry: it is not lost yet, but some time later it is.
#[rstest]
#[case::before_the_retry(20_000, 0, 1)]
#[case::long_after_the_retry(27_000, 1, 0)]
fn a_job_that_waits_for_its_retry_is_not_lost(#[case] end: u64, #[case] lost: u64, #[case] unfinished: u64) {
    let back = LedgerMark::Released { back_ms: 15_000 };
    let marks = [(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (10_000, 1, back)];
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    ledger.queue_entries(&entries(7, &marks));
    let account = ledger.finish(end * MS);
    assert_eq!((account.lost, account.unfinished), (lost, unfinished));
}

#[test]
fn a_violation_names_its_item_and_its_parties() {
    let mut names = NameTable::default();
    names.push(NameOwner::Item(7), b"job-7");
    names.push(NameOwner::Party(CLIENT), b"client 0");
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    ledger.add_names(names);
    ledger.queue_entries(&entries(7, &[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned)]));
    let account = ledger.finish(60 * SECOND);
    assert_eq!(account.violations[0].item_name(), "job-7");
    assert_eq!((account.party_name(CLIENT).as_str(), account.party_name(1).as_str()), ("client 0", "1"));
}

/// Two senders, each with receivers of its own; receiver 13 never gets anything.
#[rstest]
#[case::one_of_two(&[11], 2, "not delivered to listener 12")]
#[case::none_of_two(&[], 2, "not delivered to listener 11, listener 12")]
#[case::of_three(&[11, 12], 3, "1 not delivered, of those to listener 21, listener 22, listener 13")]
fn a_lost_message_names_the_receivers_that_it_did_not_reach(
    #[case] reached: &[u32],
    #[case] receivers: u32,
    #[case] expected: &str,
) {
    let mut names = NameTable::default();
    for party in [11, 12, 21, 22, 13] {
        names.push(NameOwner::Receiver(party), format!("listener {party}").as_bytes());
        names.push(NameOwner::Receiver(party), b"again, after a reconnect");
    }
    names.push(NameOwner::Party(1), b"speaker 1");
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    ledger.add_names(names);
    for (item, sender, delivered) in [(1, 1, [11, 12]), (2, 2, [21, 22])] {
        ledger.queue_entries(&entries(item, &[(0, sender, Published { receivers: 2 })]));
        delivered.iter().for_each(|party| ledger.queue_entries(&entries(item, &[(1, *party, Delivered)])));
    }
    ledger.queue_entries(&entries(3, &[(5, 1, Published { receivers })]));
    reached.iter().for_each(|party| ledger.queue_entries(&entries(3, &[(6, *party, Delivered)])));
    let account = ledger.finish(60 * SECOND);
    assert_eq!(account.lost, 1);
    let missed = account.violations[0].missed.as_ref().unwrap();
    assert_eq!(missed.number, receivers as usize - reached.len());
    assert_eq!(account.describe_missed(missed), expected);
}

#[test]
fn an_id_assigned_twice_is_unexpected() {
    let mut all = entries(1, &[(0, CLIENT, Attempted), (5, CLIENT, Named(77))]);
    all.extend(entries(2, &[(0, CLIENT, Attempted), (6, CLIENT, Named(77))]));
    let account = finished(LedgerConfig::default(), &all);
    assert_eq!((account.attempted, account.unexpected), (2, 1));
}

#[rstest]
#[case::at_rest(60 * SECOND, 1, 0)]
#[case::at_work(500 * MS, 0, 1)]
fn an_open_item_counts_as_lost_only_if_the_hub_is_idle_at_the_end(
    #[case] later: Nanos,
    #[case] lost: u64,
    #[case] unfinished: u64,
) {
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    ledger.queue_entries(&entries(1, &[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged)]));
    ledger.queue_entries(&entries(2, &[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (90, 1, Completed)]));
    let account = ledger.finish(90 * MS + later);
    assert_eq!((account.lost, account.unfinished), (lost, unfinished));
}

/// A run that is stopped before its drain is over cannot tell which items the hub would have completed.
#[test]
fn a_run_that_was_cut_short_reports_no_lost_items() {
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    ledger.queue_entries(&entries(7, &[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged)]));
    ledger.mark_cut_short();
    let account = ledger.finish(60 * SECOND);
    assert_eq!((account.lost, account.unfinished), (0, 1), "{account:?}");
}

#[test]
fn entries_older_than_processed_ones_count_as_late() {
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    ledger.queue_entries(&entries(1, &[(0, CLIENT, Attempted), (1, CLIENT, Acknowledged)]));
    ledger.queue_entries(&entries(2, &[(10_000, CLIENT, Attempted), (10_001, CLIENT, Acknowledged)]));
    ledger.process_until(10_001 * MS);
    assert_eq!(
        (ledger.totals().attempted, ledger.totals().acknowledged),
        (2, 1),
        "the last entry waits for older ones"
    );
    ledger.queue_entries(&entries(1, &[(5, 1, Completed)]));
    ledger.queue_entries(&entries(2, &[(20_000, 1, Completed)]));
    let account = ledger.finish(60 * SECOND);
    assert_eq!((account.late, account.completed), (1, 2));
}

/// A shard reports nothing for long: the others' entries are queued, but only up to a limit.
#[rstest]
#[case::one_after_the_other(MS / 100)]
#[case::all_at_once(0)]
fn the_queue_of_unprocessed_entries_is_limited(#[case] apart: Nanos) {
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    for n in 0..1_000_000u64 {
        ledger.queue_entries(&[LedgerEntry { at: MS + n * apart, item: n, party: CLIENT, what: Attempted }]);
    }
    let attempted = ledger.totals().attempted;
    assert!((400_000..1_000_000).contains(&attempted), "{attempted}");
    ledger.queue_entries(&[LedgerEntry { at: 1, item: 5, party: 1, what: Completed }]);
    let account = ledger.finish(60 * SECOND);
    assert_eq!((account.attempted, account.late, account.completed), (1_000_000, 1, 1));
}

#[test]
fn an_unrequested_item_is_reported_after_the_slack() {
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    ledger.queue_entries(&entries(1, &[(0, 1, Assigned)]));
    ledger.process_until(SECOND);
    assert_eq!((ledger.totals().unexpected, ledger.totals().open), (0, 1));
    ledger.process_until(SECOND + MS);
    assert_eq!((ledger.totals().unexpected, ledger.totals().open), (1, 0));
}

/// A message that reaches all receivers, one that misses a receiver, one that reaches a receiver twice, and one out of
/// order.
#[test]
fn published_messages_are_tracked_to_every_receiver() {
    let mut all = entries(1, &[(0, CLIENT, Published { receivers: 2 }), (3, 1, Delivered), (4, 2, Delivered)]);
    all.extend(entries(2, &[(1, CLIENT, Published { receivers: 2 }), (5, 1, Delivered)]));
    all.extend(entries(3, &[(2, CLIENT, Published { receivers: 1 }), (9, 2, Delivered), (10, 2, Delivered)]));
    all.extend(entries(4, &[(3, CLIENT, Published { receivers: 1 }), (8, 2, Delivered)]));
    let account = finished(LedgerConfig { ordered: true, ..LedgerConfig::default() }, &all);
    assert_eq!((account.attempted, account.completed, account.lost), (4, 3, 1));
    assert_eq!((account.delivered, account.deliveries_due), (5, 6));
    assert_eq!((account.duplicated, account.reordered, account.unexpected), (1, 1, 0));
    let unordered = finished(LedgerConfig::default(), &all);
    assert_eq!(unordered.reordered, 0);
}

/// A million open items with three steps each, and all remembered closed ones, at ten thousand per second.
#[test]
fn a_million_open_items_take_less_than_200_megabytes() {
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    let batch = 1_000u64;
    let highest = std::cell::Cell::new(0);
    let mut fold = |entries: &[LedgerEntry]| {
        ledger.queue_entries(entries);
        ledger.process_until(entries.iter().map(|entry| entry.at).max().unwrap_or_default());
        highest.set(highest.get().max(ledger.bytes()));
    };
    let marks = [(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Assigned), (3, 1, Completed)];
    for start in (0..1_300_000u64).step_by(batch as usize) {
        let steps = if start < 300_000 { 4 } else { 3 };
        let mut all = Vec::new();
        for item in start..start + batch {
            all.extend(marks[..steps].iter().map(|(at, party, what)| LedgerEntry {
                at: (item * 4 + at) * MS / 40,
                item: item.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                party: *party,
                what: *what,
            }));
        }
        fold(&all);
    }
    let account = ledger.finish(600 * SECOND);
    assert_eq!((account.lost, account.completed), (1_000_000, 300_000));
    assert!(highest.get() < 200_000_000, "{} bytes", highest.get());
    assert!(highest.get() > 80_000_000, "{} bytes cannot be all", highest.get());
}

#[test]
fn only_the_latest_closed_items_are_remembered() {
    let mut ledger = ItemLedger::new(LedgerConfig::default());
    let marks = [(0, CLIENT, Attempted), (1, CLIENT, Acknowledged), (2, 1, Completed)];
    let jobs = CLOSED_KEPT as u64 + 50_000;
    for item in 0..jobs {
        let at = |ms: u64| (item + ms) * MS / 10;
        let lines = marks.map(|(ms, party, what)| LedgerEntry { at: at(ms), item, party, what });
        ledger.queue_entries(&lines);
        ledger.process_until(at(0));
    }
    let end = jobs / 10 + 60_000;
    ledger.process_until(end * MS);
    ledger.queue_entries(&entries(jobs - 1, &[(end, 1, Completed)]));
    ledger.queue_entries(&entries(5, &[(end, 1, Completed)]));
    let account = ledger.finish(end * MS + 60 * SECOND);
    assert_eq!((account.completed, account.duplicated, account.unexpected), (jobs, 1, 1));
}

/// The course of a generated job, and its contribution to the totals.
#[derive(Clone, Copy, Debug)]
enum JobFate {
    Done,
    Doubled,
    Lost,
    Unanswered,
    Recovered,
    Unrequested,
    Refused,
    Failed,
    CancelledAndAssigned,
    AssignedTwice,
    Returned,
    WrongWorker,
    NamedLate,
}

const FATES: [JobFate; 13] = [
    JobFate::Done,
    JobFate::Doubled,
    JobFate::Lost,
    JobFate::Unanswered,
    JobFate::Recovered,
    JobFate::Unrequested,
    JobFate::Refused,
    JobFate::Failed,
    JobFate::CancelledAndAssigned,
    JobFate::AssignedTwice,
    JobFate::Returned,
    JobFate::WrongWorker,
    JobFate::NamedLate,
];

fn job_entries(number: u64, start: u64, fate: JobFate, truth: &mut LedgerTotals) -> Vec<LedgerEntry> {
    let item = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let line = |at: u64, party: u32, what: LedgerMark| LedgerEntry { at: (start + at) * MS, item, party, what };
    let asked = [line(0, CLIENT, Attempted), line(1, CLIENT, Acknowledged)];
    let (done, assigned) = (line(50, 1, Completed), line(10, 1, Assigned));
    let known = !matches!(fate, JobFate::Unrequested);
    truth.attempted += u64::from(known);
    let acknowledged = known && !matches!(fate, JobFate::Unanswered | JobFate::Recovered | JobFate::Refused);
    truth.acknowledged += u64::from(acknowledged);
    let mut entries = if acknowledged {
        asked.to_vec()
    } else if known {
        asked[..1].to_vec()
    } else {
        Vec::new()
    };
    truth.completed += u64::from(!matches!(
        fate,
        JobFate::Lost
            | JobFate::Unanswered
            | JobFate::Unrequested
            | JobFate::Refused
            | JobFate::Failed
            | JobFate::CancelledAndAssigned
    ));
    let (rest, count): (Vec<LedgerEntry>, &mut u64) = match fate {
        JobFate::Done => (vec![assigned, done], &mut truth.open),
        JobFate::Doubled => (vec![assigned, done, line(51, 1, Completed)], &mut truth.duplicated),
        JobFate::Lost => (vec![assigned], &mut truth.lost),
        JobFate::Unanswered => (Vec::new(), &mut truth.unanswered),
        JobFate::Recovered => (vec![line(5, CLIENT, Unsure), assigned, done], &mut truth.recovered),
        JobFate::Unrequested => (vec![assigned, done], &mut truth.unexpected),
        JobFate::Refused => (vec![line(1, CLIENT, Refused)], &mut truth.refused),
        JobFate::Failed => (vec![assigned, line(50, 1, Failed)], &mut truth.failed),
        JobFate::CancelledAndAssigned => {
            truth.cancelled += 1;
            (vec![line(5, CLIENT, Cancelled), line(2_000, 1, Assigned)], &mut truth.assigned_after_cancellation)
        }
        JobFate::AssignedTwice => {
            (vec![assigned, line(20, 2, Assigned), line(50, 2, Completed)], &mut truth.assigned_twice)
        }
        JobFate::Returned => {
            (vec![assigned, line(20, 1, RELEASED), line(30, 2, Assigned), line(50, 2, Completed)], &mut truth.open)
        }
        JobFate::WrongWorker => (vec![assigned, line(50, 2, Completed)], &mut truth.wrong_worker),
        JobFate::NamedLate => {
            let named = item ^ 0xffff;
            let under = |mut entry: LedgerEntry| {
                entry.item = named;
                entry
            };
            entries =
                vec![line(0, CLIENT, Requested), line(15, CLIENT, Named(named)), under(line(15, CLIENT, Acknowledged))];
            (vec![under(assigned), under(done)], &mut truth.open)
        }
    };
    *count += 1;
    entries.extend(rest);
    entries
}

/// Distributes entries to three shards by party, and passes their batches on as a run does: every 100 ms, each shard up
/// to `behind` turns late.
fn play_in_shards(config: LedgerConfig, mut all: Vec<LedgerEntry>, behind: [u64; 3]) -> LedgerTotals {
    all.sort_by_key(|entry| entry.at);
    let end = all.last().map_or(0, |entry| entry.at);
    let mut ledger = ItemLedger::new(config);
    let turn = 100 * MS;
    for now in 0..=(end / turn + 20) {
        for (shard, behind) in behind.iter().enumerate() {
            let reported = |entry: &&LedgerEntry| entry.party as usize % 3 == shard && entry.at / turn + behind == now;
            let batch: Vec<LedgerEntry> = all.iter().filter(reported).copied().collect();
            ledger.queue_entries(&batch);
        }
        let upto = behind.iter().map(|behind| (now + 1).saturating_sub(*behind) * turn).min();
        ledger.process_until(upto.unwrap_or_default());
    }
    ledger.finish(end + 60 * SECOND)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_counts_randomly_generated_jobs_exactly(
        jobs in prop::collection::vec((0..8_000u64, prop::sample::select(&FATES[..])), 0..150),
        behind in [0..15u64, 0..15u64, 0..15u64],
    ) {
        let mut truth = LedgerTotals::default();
        let mut all = Vec::new();
        for (number, (start, fate)) in jobs.iter().enumerate() {
            all.extend(job_entries(number as u64 + 1, *start, *fate, &mut truth));
        }
        // These jobs are counted as `open` while they add nothing else.
        truth.open = 0;
        let account = play_in_shards(LedgerConfig::default(), all, behind);
        prop_assert_eq!(LedgerTotals { violations: Vec::new(), ..account }, truth);
    }

    /// Senders publish in order; every receiver gets the undropped messages in an order of its own.
    #[test]
    fn the_ledger_counts_randomly_generated_deliveries_exactly(
        senders in 1..4u32,
        receivers in 1..5u32,
        messages in 1..12u64,
        deals in prop::collection::vec((0..400u64, 0..10u8), 240),
        behind in [0..15u64, 0..15u64, 0..15u64],
    ) {
        let key = |sender: u32, message: u64| (u64::from(sender) << 32 | message).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut all = Vec::new();
        let mut truth = LedgerTotals { deliveries_due: u64::from(senders * receivers) * messages, ..LedgerTotals::default() };
        for sender in 0..senders {
            for message in 0..messages {
                let what = Published { receivers };
                all.push(LedgerEntry { at: message * 20 * MS, item: key(sender, message), party: 100 + sender, what });
                truth.attempted += 1;
            }
        }
        let mut deal = deals.iter().cycle();
        let mut missed = std::collections::BTreeSet::new();
        for sender in 0..senders {
            for receiver in 0..receivers {
                let mut got: Vec<(u64, u64)> = Vec::new();
                for message in 0..messages {
                    let (delay, luck) = *deal.next().unwrap();
                    // One nanosecond more per message, so that all times differ.
                    let at = (message * 20 + 1 + delay) * MS + message;
                    match luck {
                        0 => { missed.insert((sender, message)); }
                        1 => {
                            got.extend([(at, message), (at + MS / 2, message)]);
                            truth.duplicated += 1;
                        }
                        _ => got.push((at, message)),
                    }
                }
                got.sort_unstable();
                let mut latest = 0;
                let mut seen = std::collections::BTreeSet::new();
                for (at, message) in got {
                    let item = key(sender, message);
                    all.push(LedgerEntry { at, item, party: 1 + receiver, what: Delivered });
                    if seen.insert(message) {
                        truth.delivered += 1;
                        truth.reordered += u64::from(message < latest);
                        latest = latest.max(message);
                    }
                }
            }
        }
        truth.lost = missed.len() as u64;
        truth.completed = truth.attempted - truth.lost;
        let account = play_in_shards(LedgerConfig { ordered: true, ..LedgerConfig::default() }, all, behind);
        prop_assert_eq!(LedgerTotals { violations: Vec::new(), ..account }, truth);
    }
}
