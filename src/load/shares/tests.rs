//! Runs whose shares are known to the last entry, merged.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rstest::rstest;

use super::file::{ShareWriter, file_name};
use super::merge::{MergeError, RunShares, find_files};
use super::record::{CommonFacts, FORMAT, FORMAT_VERSION, LostShare, ShareEnd, ShareHeader, ShareProgress};
use crate::load::ledger::{
    IdHasher, ItemLedger, LedgerConfig, LedgerEntry, LedgerMark, LedgerTotals, NameOwner, NameTable,
};
use crate::load::metrics::{
    CounterId, MessageCount, MessageTime, MetricRecorder, MetricRegistry, MetricSeries, RunPhases, TimingId,
};
use crate::load::report::{LoadReport, LoadRunMetadata};
use crate::load::validity::{RunCircumstances, ValidityCode};
use crate::load::{Nanos, SECOND};
use crate::syntax::share::Share;

const ORIGIN: i64 = 1_795_984_068 * SECOND as i64;

pub(super) fn common() -> CommonFacts {
    CommonFacts {
        version: "0.1.0".to_owned(),
        run: "nightly".to_owned(),
        seed: 7,
        protocol: "emprops".to_owned(),
        plan: "emprops/load/jobs".to_owned(),
        plan_hash: "00ff".to_owned(),
        ordered: false,
        lost_shares: 0,
        thresholds: Vec::new(),
        messages: vec!["submit".to_owned(), "claim".to_owned()],
        journeys: vec!["jobs".to_owned()],
        labelled: vec![0],
    }
}

fn header(share: Share) -> ShareHeader {
    let format = FORMAT.to_owned();
    let machine = "m".to_owned();
    ShareHeader {
        format,
        format_version: FORMAT_VERSION,
        share,
        common: common(),
        origin_ns: ORIGIN,
        machine,
        clock_error: None,
        threads: 1,
    }
}

fn end(share: Share) -> ShareEnd {
    let layout = common().layout(&[]);
    let about = LoadRunMetadata { duration: std::time::Duration::from_secs(10), ..LoadRunMetadata::default() };
    let report =
        LoadReport::new(about, MetricSeries::new(layout, 1), LedgerTotals::default(), Vec::new(), Default::default());
    let circumstances = RunCircumstances { clients: 1 + u64::from(share.index()), ..RunCircumstances::default() };
    ShareEnd { measured_from: Some(SECOND), ..ShareEnd::of(report, circumstances) }
}

/// Writes the file of a share with these entries; returns its path.
fn write(folder: &Path, header: ShareHeader, entries: &[LedgerEntry], end: ShareEnd) -> PathBuf {
    let path = folder.join(file_name(&header.common.run, header.share));
    let mut writer = ShareWriter::create(&path, header).unwrap();
    for batch in entries.chunks(3) {
        writer.write_entries(0, batch.last().unwrap().at, batch, &NameTable::default());
    }
    let mut names = NameTable::default();
    names.push(NameOwner::Receiver(9), b"listener 9");
    writer.write_entries(0, Nanos::MAX, &[], &names);
    writer.finish(end).unwrap();
    path
}

fn share(text: &str) -> Share {
    text.parse().unwrap()
}

fn merge(folder: &Path) -> Result<LoadReport, MergeError> {
    RunShares::read(&find_files(folder)?)?.merge(Vec::new())
}

fn entry(at: Nanos, item: u64, party: u32, what: LedgerMark) -> LedgerEntry {
    LedgerEntry { at, item, party, what }
}

#[test]
fn a_job_that_another_share_works_on_is_followed_to_its_end() {
    use LedgerMark::{Acknowledged, Assigned, Attempted, Completed};
    let folder = tempfile::tempdir().unwrap();
    let job = IdHasher::seeded(7).item_key(b"job-1");
    let client = [
        entry(SECOND, job, 1, Attempted),
        entry(SECOND + 1, job, 1, Acknowledged),
        entry(3 * SECOND, job, 1, Completed),
    ];
    write(folder.path(), header(share("1/2")), &client, end(share("1/2")));
    // The clock of this share began two seconds later.
    let later = ShareHeader { origin_ns: ORIGIN + 2 * SECOND as i64, ..header(share("2/2")) };
    write(folder.path(), later, &[entry(5, job, 2, Assigned)], end(share("2/2")));
    let report = merge(folder.path()).unwrap();
    let account = &report.account;
    assert_eq!((account.attempted, account.completed, account.lost, account.unexpected), (1, 1, 0, 0), "{account:?}");
    assert!(
        report.judgement.reasons.iter().any(|reason| reason.code == ValidityCode::Shares),
        "{:?}",
        report.judgement
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Entries in any order, of few items so that all kinds of violations occur.
    #[test]
    fn the_ledger_of_all_shares_is_that_of_one_machine(
        of in 1_u32..5,
        events in proptest::collection::vec((0_u64..20, 0_u64..6, 1_u32..8, 0_usize..6), 0..60),
    ) {
        let marks = [
            LedgerMark::Attempted, LedgerMark::Acknowledged, LedgerMark::Assigned, LedgerMark::Completed,
            LedgerMark::Published { receivers: 2 }, LedgerMark::Delivered,
        ];
        let mut entries: Vec<LedgerEntry> = Vec::new();
        // Times differ, since the order of what happens at the same time is open.
        for (number, (_, item, party, mark)) in events.iter().enumerate() {
            entries.push(entry(SECOND + number as u64 * (SECOND / 7), *item, *party, marks[*mark]));
        }
        let folder = tempfile::tempdir().unwrap();
        for share in Share::all(of) {
            let own: Vec<LedgerEntry> = entries.iter().filter(|entry| share.takes(entry.party.into())).copied().collect();
            write(folder.path(), header(share), &own, end(share));
        }
        let mut one = ItemLedger::new(LedgerConfig::default());
        let mut names = NameTable::default();
        names.push(NameOwner::Receiver(9), b"listener 9");
        one.add_names(names);
        one.queue_entries(&entries);
        let expected = one.finish(10 * SECOND);
        prop_assert_eq!(merge(folder.path()).unwrap().account, expected);
    }
}

/// Records a message with this response time in each of three seconds; returns the intervals.
fn measured(layout: &MetricRegistry, took: Nanos) -> MetricSeries {
    let phases = RunPhases { interval: SECOND, measured: SECOND..3 * SECOND, holds: Vec::new() };
    let mut recorder = MetricRecorder::new(layout.clone(), phases);
    for second in 0..3 {
        let due = second * SECOND + SECOND / 2;
        let measurement =
            crate::load::metrics::Measurement::Answered { message: crate::load::ids::MessageId(1), due, delay: 0 };
        recorder.record(measurement, due + took);
    }
    let mut series = MetricSeries::new(layout.clone(), 1);
    for interval in recorder.finish(3 * SECOND) {
        series.add(interval);
    }
    series
}

#[test]
fn the_histograms_of_all_shares_are_added_second_by_second() {
    let folder = tempfile::tempdir().unwrap();
    let layout = common().layout(&[]);
    for (share, took) in Share::all(2).zip([1_000_000, 9_000_000]) {
        let path = folder.path().join(file_name("nightly", share));
        let mut writer = ShareWriter::create(&path, header(share)).unwrap();
        measured(&layout, took).intervals().iter().for_each(|interval| writer.write_interval(interval));
        writer.finish(end(share)).unwrap();
    }
    let report = merge(folder.path()).unwrap();
    let answered = report.total.measured(&report.layout, CounterId::Message(1, MessageCount::Answered));
    let timing = report.total.timing(&report.layout, TimingId::Message(1, MessageTime::Response)).unwrap();
    assert_eq!((answered, timing.len()), (4, 4));
    assert_eq!((timing.min() / 100_000, timing.max() / 100_000), (9, 90));
    assert_eq!(report.intervals.len(), 3);
    assert_eq!(report.total.time, 2 * SECOND);
    assert_eq!(report.judgement.reasons.iter().find(|reason| reason.code == ValidityCode::Shares), None);
}

#[test]
fn operations_that_shares_found_in_another_order_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (share, labels) in Share::all(2).zip([["add", "sub"], ["sub", "add"]]) {
        let operations: Vec<(usize, String)> =
            ["other"].iter().chain(&labels).map(|label| (0, (*label).to_owned())).collect();
        let layout = common().layout(&operations);
        let series = measured(&layout, 1_000);
        let place = layout.names.operations.find_or_add(0, "add");
        let mut interval = series.intervals()[1].clone();
        interval.counts[layout.count(CounterId::Operation(place, crate::load::metrics::OperationCount::Sent))] = 5;
        let mut writer = ShareWriter::create(&folder.path().join(file_name("nightly", share)), header(share)).unwrap();
        writer.write_interval(&interval);
        writer.finish(ShareEnd { operations, ..end(share) }).unwrap();
    }
    let report = merge(folder.path()).unwrap();
    let count = |name: &str| {
        let found = report.layout.counts().into_iter().find(|count| report.layout.count_name(*count) == name).unwrap();
        report.total.count(&report.layout, found)
    };
    assert_eq!((count("submit[add].sent"), count("submit[sub].sent")), (10, 0));
}

#[rstest]
#[case::other_seed(|header: &mut ShareHeader| header.common.seed = 8, "differ in the seed: 7 and 8")]
#[case::other_plan(|header: &mut ShareHeader| header.common.plan_hash = "ff".to_owned(), "differ in the content of the plan: 00ff and ff")]
#[case::other_version(|header: &mut ShareHeader| header.common.version = "0.2.0".to_owned(), "differ in the version of hubproof: 0.1.0 and 0.2.0")]
#[case::other_run(|header: &mut ShareHeader| header.common.run = "weekly".to_owned(), "differ in the name of the run: nightly and weekly")]
#[case::other_number(|header: &mut ShareHeader| header.share = "2/3".parse().unwrap(), "differ in the number of shares: 2 and 3")]
fn shares_that_disagree_are_refused_with_both_names(#[case] change: fn(&mut ShareHeader), #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let one = write(folder.path(), header(share("1/2")), &[], end(share("1/2")));
    let mut changed = header(share("2/2"));
    change(&mut changed);
    let other = write(folder.path(), changed, &[], end(share("2/2")));
    let error = merge(folder.path()).err().unwrap().to_string();
    assert_eq!(error, format!("{} and {} {expected}", one.display(), other.display()));
}

#[test]
fn a_missing_and_a_doubled_share_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), header(share("2/4")), &[], end(share("2/4")));
    let refused = |folder: &Path| merge(folder).err().unwrap().to_string();
    assert_eq!(refused(folder.path()), "the run has 4 shares, and these are missing: 1/4, 3/4, 4/4");
    let copy = folder.path().join("copy.share");
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(refused(folder.path()), format!("{} and {} are both share 2/4", copy.display(), path.display()));
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(&copy).unwrap();
    assert!(refused(folder.path()).contains("has no files of shares"));
}

#[rstest]
#[case::not_allowed(0, true)]
#[case::allowed(1, false)]
fn a_lost_share_is_named_and_makes_the_run_invalid_unless_the_plan_allows_it(
    #[case] allowed: u32,
    #[case] expected: bool,
) {
    let folder = tempfile::tempdir().unwrap();
    let mut header = header(share("1/2"));
    header.common.lost_shares = allowed;
    let done = Some(ShareProgress { seconds: 12, journeys: 340, sent: 1_020 });
    let lost = vec![LostShare { share: share("2/2"), place: "host-2".to_owned(), done }];
    // The lost share's client requested the item.
    let entries = [entry(SECOND, 5, 2, LedgerMark::Assigned)];
    write(folder.path(), header, &entries, ShareEnd { lost, ..end(share("1/2")) });
    let report = merge(folder.path()).unwrap();
    let named = "share 2/2 on host-2 fell silent after 12 s, 340 journeys and 1020 sent messages";
    let reason = report.judgement.reasons.iter().find(|reason| reason.code == ValidityCode::Shares);
    assert_eq!(reason.is_some_and(|reason| reason.text.contains(named)), expected, "{reason:?}");
    assert!(
        report.about.facts.iter().any(|(name, text)| name == "lost" && text.contains(named)),
        "{:?}",
        report.about.facts
    );
    assert_eq!(report.account.unexpected, 0);
}

/// The digest of such a file is right.
#[rstest]
#[case::operation_of_no_message(|_: &mut ShareHeader, end: &mut ShareEnd| end.operations.push((7, "x".to_owned())))]
#[case::too_many_operations(|_: &mut ShareHeader, end: &mut ShareEnd| end.operations.extend((0..200).map(|number| (0, number.to_string()))))]
#[case::label_of_no_message(|header: &mut ShareHeader, _: &mut ShareEnd| header.common.labelled = vec![9])]
fn a_file_of_a_stranger_is_refused(#[case] change: fn(&mut ShareHeader, &mut ShareEnd)) {
    let folder = tempfile::tempdir().unwrap();
    let (mut header, mut end) = (header(share("1/1")), end(share("1/1")));
    change(&mut header, &mut end);
    write(folder.path(), header, &[], end);
    let error = merge(folder.path()).err().unwrap().to_string();
    assert!(error.contains("or they were changed"), "{error}");
}

#[rstest]
#[case::truncated(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 40), "it has no end")]
#[case::between_lines(|bytes: &mut Vec<u8>| *bytes = bytes.split_inclusive(|byte| *byte == b'\n').take(2).flatten().copied().collect(), "it has no end")]
#[case::changed(|bytes: &mut Vec<u8>| { let at = bytes.windows(5).position(|five| five == b"names").unwrap(); bytes[at + 10] ^= 1; }, "or they were changed")]
#[case::foreign(|bytes: &mut Vec<u8>| *bytes = b"{\"record\":\"other\"}\n".to_vec(), "does not begin with the header of a share")]
#[case::binary(|bytes: &mut Vec<u8>| *bytes = vec![0xff; 100], "does not begin with the header of a share")]
#[case::empty(|bytes: &mut Vec<u8>| bytes.clear(), "does not begin with the header of a share")]
#[case::longer(|bytes: &mut Vec<u8>| bytes.extend_from_within(..), "or they were changed")]
#[case::newer(|bytes: &mut Vec<u8>| { let text = String::from_utf8(bytes.clone()).unwrap(); *bytes = text.replacen("\"format_version\":1", "\"format_version\":2", 1).into_bytes(); }, "version 2 of the format")]
fn a_damaged_file_is_refused_with_its_name(#[case] damage: fn(&mut Vec<u8>), #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), header(share("1/1")), &[entry(5, 1, 1, LedgerMark::Attempted)], end(share("1/1")));
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let error = merge(folder.path()).err().unwrap().to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains(expected), "{error}");
}
