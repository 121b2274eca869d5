//! Joins the reports of all shares of one run of `check` or `fuzz` (`--share 3/16`) into the report of that run.

use std::collections::BTreeSet;
use std::time::Duration;

use super::document::check::{Finding, NotJudged, Protocol, Reach, Rule, Rules, RunDocument, Scenario, Status};
use super::fuzz::{FindingTally, FuzzReport, PauseTally};
use super::reach::ReachGap;
use super::text::format_count;
use super::{EntryStanding, VerdictTally, terminal_page};
use crate::outcome::Verdict;
use crate::syntax::share::Share;

/// Most numbers of cases that are kept of a finding.
const MAX_CASE_NUMBERS: usize = 20;
/// Most names in a verdict line.
const MAX_NAMES: usize = 8;

/// Why reports cannot be joined. Reports are named as their files are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("{0} is the report of a whole run")]
    Whole(String),
    #[error("{one} and {other} differ in {what}: {values}")]
    Disagree { one: String, other: String, what: &'static str, values: String },
    #[error("{one} and {other} are both share {share}")]
    Twice { one: String, other: String, share: Share },
    #[error("the run has {of} shares, and these are missing: {missing}")]
    Missing { of: u32, missing: String },
}

impl JoinError {
    /// Returns what to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Whole(_) => "add `--share 1/4`, `--share 2/4`, ... to the commands that write the reports",
            Self::Disagree { .. } => "all shares need the same options, packs and version of hubproof",
            Self::Twice { .. } => "give each run another number: --share 1/4, 2/4, 3/4, 4/4",
            Self::Missing { .. } => "name the reports of all shares, or run the missing ones",
        }
    }
}

/// Joins reports, each with its name: one of each share.
///
/// # Errors
/// The reports are not all shares of one run.
pub fn join(mut reports: Vec<(String, RunDocument)>) -> Result<RunDocument, JoinError> {
    reports.sort_by_key(|(_, report)| report.run.share);
    check_shares(&reports)?;
    let mut documents = reports.into_iter().map(|(_, report)| report);
    let Some(mut whole) = documents.next() else { return Err(JoinError::Missing { of: 0, missing: String::new() }) };
    let mut parts: Vec<Vec<Protocol>> =
        std::mem::take(&mut whole.protocols).into_iter().map(|protocol| vec![protocol]).collect();
    for mut document in documents {
        let (one, other) = (&mut whole.run, document.run);
        if other.started < one.started {
            one.started = other.started;
        }
        one.duration_ms = one.duration_ms.max(other.duration_ms);
        one.interrupted |= other.interrupted;
        let share = |margin: &super::document::check::RunMargin| margin.margin.waited_ms / margin.margin.bound_ms;
        one.slimmest =
            one.slimmest.take().into_iter().chain(other.slimmest).max_by(|a, b| share(a).total_cmp(&share(b)));
        for protocol in document.protocols.drain(..) {
            match parts.iter_mut().find(|known| known[0].name == protocol.name) {
                Some(known) => known.push(protocol),
                None => parts.push(vec![protocol]),
            }
        }
    }
    let (strict, least, selected) = (whole.run.strict, whole.run.min_judged, whole.run.selected);
    whole.protocols = parts.into_iter().filter_map(|parts| join_protocol(parts, strict, (least, selected))).collect();
    let codes: BTreeSet<u8> = whole.protocols.iter().map(|protocol| protocol.exit_code).collect();
    let undecided = whole.run.interrupted || whole.protocols.is_empty();
    whole.run.exit_code =
        [2, 1, 3].into_iter().find(|code| codes.contains(code)).unwrap_or(if undecided { 3 } else { 0 });
    whole.run.share = None;
    Ok(whole)
}

/// Checks that the reports, sorted by share, are all shares of one run.
fn check_shares(reports: &[(String, RunDocument)]) -> Result<(), JoinError> {
    let mut shares = Vec::new();
    for (name, report) in reports {
        shares.push(report.run.share.ok_or_else(|| JoinError::Whole(name.clone()))?);
    }
    let packs = |report: &RunDocument| -> Vec<(String, String)> {
        report.protocols.iter().map(|protocol| (protocol.name.clone(), protocol.pack.hash.clone())).collect()
    };
    for (index, pair) in reports.windows(2).enumerate() {
        let [(one, first), (other, second)] = pair else { continue };
        let differ = |what, a: &str, b: &str| JoinError::Disagree {
            one: one.clone(),
            other: other.clone(),
            what,
            values: format!("{a} and {b}"),
        };
        if first.tool.version != second.tool.version {
            return Err(differ("the version of hubproof", &first.tool.version, &second.tool.version));
        }
        if (&first.run.command, first.run.selected, first.run.min_judged)
            != (&second.run.command, second.run.selected, second.run.min_judged)
        {
            return Err(differ("their command", &first.run.command.join(" "), &second.run.command.join(" ")));
        }
        // A share may lack a protocol.
        let (known, others) = (packs(first), packs(second));
        if let Some(((name, hash), (_, changed))) = known
            .iter()
            .find_map(|pack| Some((pack, others.iter().find(|other| other.0 == pack.0 && other.1 != pack.1)?)))
        {
            return Err(differ("the pack", &format!("{name} {hash}"), changed));
        }
        let (a, b) = (shares[index], shares[index + 1]);
        if a.of() != b.of() {
            return Err(differ("the number of shares", &a.to_string(), &b.to_string()));
        }
        if a == b {
            return Err(JoinError::Twice { one: one.clone(), other: other.clone(), share: a });
        }
    }
    let of = shares.first().map_or(0, |share| share.of());
    let missing: Vec<String> =
        Share::all(of).filter(|share| !shares.contains(share)).map(|share| share.to_string()).collect();
    match missing.is_empty() && of > 0 {
        true => Ok(()),
        false => Err(JoinError::Missing { of, missing: terminal_page::list(&missing, MAX_NAMES) }),
    }
}

/// A scenario with its findings and, of a fuzz run, the cases with the same fingerprint.
type Played = (Scenario, Vec<Finding>, Option<FindingTally>);

/// Joins the parts of a protocol, which are of different shares.
fn join_protocol(parts: Vec<Protocol>, strict: bool, (least, selected): (Option<u8>, bool)) -> Option<Protocol> {
    // The hub may speak another protocol if no share has found it.
    let doubted = parts.iter().all(|part| part.doubt.is_some());
    let codes: BTreeSet<u8> = parts.iter().map(|part| part.exit_code).collect();
    let rules = join_rules(&parts);
    let mut played: Vec<Vec<Played>> = Vec::new();
    let mut parts = parts.into_iter();
    let mut whole = parts.next()?;
    played.push(take_scenarios(&mut whole));
    for mut part in parts {
        played.push(take_scenarios(&mut part));
        join_facts(&mut whole, part);
    }
    let played = if whole.fuzzed.is_some() { join_causes(played) } else { interleave(played) };
    for (scenario, findings, cause) in played {
        whole.scenarios.list.push(scenario);
        whole.findings.extend(findings);
        if let Some(fuzzed) = &mut whole.fuzzed {
            fuzzed.causes.extend(cause);
        }
    }
    if whole.fuzzed.is_some() {
        let list = &whole.scenarios.list;
        whole.scenarios.totals.verdicts = VerdictTally::from_verdicts(list.iter().map(|one| one.verdict));
        whole.checks.verdicts =
            VerdictTally::from_verdicts(list.iter().flat_map(|one| &one.checks).map(|check| check.verdict));
    }
    whole.scenarios.totals.total = whole.scenarios.totals.verdicts.total();
    whole.checks.total = whole.checks.verdicts.total();
    whole.reach = join_reach(&rules, (least, selected), whole.fuzzed.is_some());
    whole.rules = rules;
    whole.doubt = whole.doubt.take().filter(|_| doubted);
    let undecided = match &whole.fuzzed {
        Some(fuzzed) => !fuzzed.is_decided(),
        None => whole.scenarios.totals.verdicts.decided() == 0 || !whole.reach.enough || codes.contains(&3),
    };
    let code = [2, 1].into_iter().find(|code| codes.contains(code));
    whole.exit_code = code.unwrap_or(if undecided { 3 } else { 0 });
    whole.summary = terminal_page::verdict_line(whole.exit_code, &whole.name, &verdict_parts(&whole, strict));
    Some(whole)
}

/// Takes the scenarios of a protocol with their findings.
fn take_scenarios(part: &mut Protocol) -> Vec<Played> {
    let mut findings = std::mem::take(&mut part.findings).into_iter().peekable();
    let mut causes =
        part.fuzzed.as_mut().map(|fuzzed| std::mem::take(&mut fuzzed.causes)).unwrap_or_default().into_iter();
    let scenarios = std::mem::take(&mut part.scenarios.list).into_iter();
    scenarios
        .map(|scenario| {
            // Findings are in the order of the scenarios, one for each check that did not pass.
            let is_found = |verdict| !matches!(verdict, Verdict::Pass | Verdict::NotTestable);
            let found = scenario.checks.iter().filter(|check| is_found(check.verdict)).count();
            let own = std::iter::from_fn(|| findings.next_if(|finding| finding.scenario == scenario.id));
            let own = own.take(found).collect();
            (scenario, own, causes.next())
        })
        .collect()
}

/// Returns scenarios in the order in which they were dealt out.
fn interleave(shares: Vec<Vec<Played>>) -> Vec<Played> {
    let mut shares: Vec<_> = shares.into_iter().map(Vec::into_iter).collect();
    let longest = shares.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    (0..longest).flat_map(|_| shares.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()).collect()
}

/// Joins the findings of fuzz with the same fingerprint, and keeps the one that came first.
fn join_causes(shares: Vec<Vec<Played>>) -> Vec<Played> {
    let mut all: Vec<Played> = shares.into_iter().flatten().collect();
    let first = |one: &Played| one.2.as_ref().and_then(|cause| cause.numbers.iter().min().copied());
    all.sort_by_key(first);
    let fingerprint = |one: &Played| {
        let oracle = |finding: &Finding| finding.check.split('#').next().map(str::to_owned);
        let checks: Vec<Option<String>> = one.1.iter().map(oracle).collect();
        (one.0.id.clone(), checks, one.2.as_ref().map(|cause| cause.shape.clone()))
    };
    let mut joined: Vec<Played> = Vec::new();
    for one in all {
        let of = fingerprint(&one);
        match joined.iter_mut().find(|known| fingerprint(known) == of) {
            Some((_, _, Some(known))) => {
                if let Some(cause) = one.2 {
                    known.cases = known.cases.saturating_add(cause.cases);
                    known.numbers.extend(cause.numbers);
                    known.numbers.sort_unstable();
                    known.numbers.truncate(MAX_CASE_NUMBERS);
                    known.shrunk = known.shrunk.take().or(cause.shrunk);
                }
            }
            _ => joined.push(one),
        }
    }
    joined
}

/// Adds all of `part` but its scenarios, findings and rules.
fn join_facts(whole: &mut Protocol, part: Protocol) {
    for cause in part.root_causes {
        let alike = whole.root_causes.iter_mut().find(|known| {
            (&known.check, &known.step, &known.message, known.place.describe())
                == (&cause.check, &cause.step, &cause.message, cause.place.describe())
        });
        match alike {
            Some(known) => {
                known.scenarios.extend(cause.scenarios);
                known.rules = union(std::mem::take(&mut known.rules), cause.rules);
                known.blocks.merge(cause.blocks);
                known.expected &= cause.expected;
            }
            None => whole.root_causes.push(cause),
        }
    }
    whole.root_causes.sort_by_key(|cause| std::cmp::Reverse(cause.blocks.checks));
    for cause in part.causes {
        let alike = whole.causes.iter_mut().find(|known| {
            (&known.step, &known.message, known.place.describe())
                == (&cause.step, &cause.message, cause.place.describe())
        });
        match alike {
            Some(known) => known.scenarios.extend(cause.scenarios),
            None => whole.causes.push(cause),
        }
    }
    whole.processes.extend(part.processes);
    // An entry counts where its scenario was played.
    for entry in part.baseline {
        match whole.baseline.iter_mut().find(|known| (&known.file, known.first_line) == (&entry.file, entry.first_line))
        {
            Some(known) if known.standing == EntryStanding::NotPlayed => *known = entry,
            Some(_) => {}
            None => whole.baseline.push(entry),
        }
    }
    for waits in part.shortened_waits {
        match whole.shortened_waits.iter_mut().find(|known| known.awaited == waits.awaited) {
            Some(known) => {
                known.times = known.times.saturating_add(waits.times);
                known.saved_ms += waits.saved_ms;
            }
            None => whole.shortened_waits.push(waits),
        }
    }
    for one in part.deviations {
        match whole.deviations.iter_mut().find(|known| known.name == one.name) {
            Some(known) => {
                known.rules = union(std::mem::take(&mut known.rules), one.rules);
                known.observed = known.observed.saturating_add(one.observed);
                known.contradicted = known.contradicted.saturating_add(one.contradicted);
                if known.standing == EntryStanding::NotPlayed || one.standing == EntryStanding::Expected {
                    known.standing = one.standing;
                }
            }
            None => whole.deviations.push(one),
        }
    }
    for proposed in part.proposals {
        match whole.proposals.iter_mut().find(|known| known.entry == proposed.entry) {
            Some(known) => known.unblocks = union(std::mem::take(&mut known.unblocks), proposed.unblocks),
            None => whole.proposals.push(proposed),
        }
    }
    whole.preludes.played = whole.preludes.played.saturating_add(part.preludes.played);
    whole.preludes.possible = whole.preludes.possible.saturating_add(part.preludes.possible);
    whole.scenarios.unplayed.extend(part.scenarios.unplayed);
    whole.scenarios.totals.verdicts.add(&part.scenarios.totals.verdicts);
    whole.checks.verdicts.add(&part.checks.verdicts);
    whole.expected = whole.expected.saturating_add(part.expected);
    if let (Some(whole), Some(part)) = (&mut whole.fuzzed, part.fuzzed) {
        join_fuzzed(whole, part);
    }
}

fn union(one: Vec<String>, other: Vec<String>) -> Vec<String> {
    one.into_iter().chain(other).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Adds the figures of another share of a fuzz run, but not its causes.
fn join_fuzzed(whole: &mut FuzzReport, part: FuzzReport) {
    let decided = whole.decided.saturating_add(part.decided);
    let percent = |one: f64, other: f64| match decided {
        0 => 0.0,
        all => (one * whole.decided as f64 + other * part.decided as f64) / all as f64,
    };
    whole.after_opening_percent = percent(whole.after_opening_percent, part.after_opening_percent);
    whole.judged_percent = percent(whole.judged_percent, part.judged_percent);
    whole.decided = decided;
    whole.cases = whole.cases.saturating_add(part.cases);
    whole.answered = whole.answered.zip(part.answered).map(|(one, other)| one.saturating_add(other));
    for (oracle, tally) in part.oracles {
        let known = whole.oracles.entry(oracle).or_default();
        known.held = known.held.saturating_add(tally.held);
        known.broken = known.broken.saturating_add(tally.broken);
    }
    // Every share has all cells, in the same order.
    for (known, cell) in whole.cells.iter_mut().zip(part.cells) {
        known.cases = known.cases.saturating_add(cell.cases);
    }
    for obstacle in part.obstacles {
        let alike = whole
            .obstacles
            .iter_mut()
            .find(|known| (&known.step, &known.message) == (&obstacle.step, &obstacle.message));
        match alike {
            Some(known) => known.cases = known.cases.saturating_add(obstacle.cases),
            None => whole.obstacles.push(obstacle),
        }
    }
    whole.obstacles.sort_by_key(|obstacle| std::cmp::Reverse(obstacle.cases));
    whole.ended = whole.ended.take().or(part.ended);
    whole.stuck = whole.stuck.or(part.stuck);
    whole.slower = whole.slower.or(part.slower);
    whole.pauses = join_pauses(whole.pauses, part.pauses);
    whole.stalls = join_pauses(whole.stalls, part.stalls);
    whole.unconfirmed = whole.unconfirmed.saturating_add(part.unconfirmed);
    whole.cut = whole.cut.saturating_add(part.cut);
}

fn join_pauses(one: Option<PauseTally>, other: Option<PauseTally>) -> Option<PauseTally> {
    one.into_iter().chain(other).reduce(|one, other| PauseTally {
        count: one.count.saturating_add(other.count),
        longest: Duration::max(one.longest, other.longest),
    })
}

/// Judges every rule by what all shares say of it.
fn join_rules(parts: &[Protocol]) -> Rules {
    let ids: BTreeSet<&String> = parts.iter().flat_map(|part| part.rules.by_id.keys()).collect();
    let of = |id: &String| parts.iter().filter_map(|part| part.rules.by_id.get(id)).collect::<Vec<_>>();
    let by_id: std::collections::BTreeMap<String, Rule> =
        ids.into_iter().filter_map(|id| Some((id.clone(), join_rule(&of(id))?))).collect();
    Rules {
        total: by_id.len(),
        testable: by_id.values().filter(|rule| rule.status.is_judged()).count(),
        proven: by_id.values().filter(|rule| rule.proven).count(),
        by_id,
    }
}

fn join_rule(shares: &[&Rule]) -> Option<Rule> {
    let decided = shares.iter().any(|rule| rule.decided);
    // In the order of their weight; what one share could not judge counts only if no other could.
    let weight = |rule: &&&Rule| match rule.status {
        Status::Fail => 9,
        Status::Inconclusive if decided => 0,
        Status::Inconclusive => 8,
        Status::Warn => 7,
        Status::Info => 6,
        Status::Pass => 5,
        Status::NotTestable => 4,
        Status::NotOffered => 3,
        Status::OutOfScope | Status::NoCheck => 2,
        Status::NotAsked => 1,
    };
    let deciding = shares.iter().max_by_key(weight)?;
    let mut joined = Rule { decided, proven: false, ..(**deciding).clone() };
    let alike = || shares.iter().filter(|rule| rule.status == joined.status || joined.status.is_judged());
    joined.needs = alike().fold(Vec::new(), |all, rule| union(all, rule.needs.clone()));
    joined.scenarios = alike().fold(Vec::new(), |all, rule| union(all, rule.scenarios.clone()));
    joined.proven = decided && matches!(joined.status, Status::Pass | Status::Info);
    Some(joined)
}

/// Returns how many musts were judged. Like a whole run, a run in shares must judge a third of them.
fn join_reach(rules: &Rules, (least, selected): (Option<u8>, bool), fuzzed: bool) -> Reach {
    let mut reach = Reach { musts: 0, judged: 0, not_offered: 0, enough: true, not_judged: Vec::new() };
    let musts = rules.by_id.values().filter(|rule| rule.level == "must" && rule.basis != "silent");
    for rule in musts.filter(|rule| rule.status != Status::OutOfScope) {
        if rule.status == Status::NotOffered {
            reach.not_offered += 1;
            continue;
        }
        reach.musts += 1;
        if rule.decided {
            reach.judged += 1;
            continue;
        }
        let why = ReachGap::of_document_rule(rule).describe();
        match reach.not_judged.iter_mut().find(|gap| gap.why == why) {
            Some(gap) => gap.musts += 1,
            None => reach.not_judged.push(NotJudged { musts: 1, why: why.to_owned() }),
        }
    }
    reach.enough = fuzzed
        || match least {
            Some(least) => reach.judged * 100 >= reach.musts * usize::from(least),
            None => selected || reach.judged * 3 >= reach.musts,
        };
    reach
}

/// Returns the parts of the verdict line. What fails the run comes first.
fn verdict_parts(whole: &Protocol, strict: bool) -> Vec<String> {
    let of = |verdict: Verdict| whole.findings.iter().filter(move |one| one.verdict == verdict && !one.expected);
    let broken: BTreeSet<String> = of(Verdict::Fail)
        .flat_map(|finding| if finding.rules.is_empty() { vec![finding.check.clone()] } else { finding.rules.clone() })
        .collect();
    let broken: Vec<String> = broken.into_iter().collect();
    let warnings = of(Verdict::Warn).count();
    let warnings = (warnings > 0).then(|| format_count(warnings, "warning"));
    let mut parts = Vec::new();
    match &whole.fuzzed {
        Some(fuzzed) => {
            let causes = of(Verdict::Fail).count();
            let cases = format_count(usize::try_from(fuzzed.cases).unwrap_or(usize::MAX), "case");
            let found = if causes == 0 { "no finding".to_owned() } else { format_count(causes, "finding") };
            parts.push(format!("{found} in {cases} (seed {})", fuzzed.seed));
            let undecided = fuzzed.cases.saturating_sub(fuzzed.decided);
            parts.extend((undecided > 0).then(|| format!("{undecided} undecided")));
        }
        None if !broken.is_empty() => {
            parts.push(terminal_page::broken(&broken, whole.rules.testable, "rule", MAX_NAMES));
        }
        None if whole.rules.proven > 0 => parts.push(terminal_page::holding(whole.rules.proven, "rule")),
        None => parts.push("nothing could be checked".to_owned()),
    }
    let warnings_at = if strict { 0 } else { parts.len() };
    if let Some(warnings) = warnings {
        parts.insert(warnings_at, warnings);
    }
    if whole.fuzzed.is_none() {
        let decided = whole.rules.by_id.values().filter(|rule| rule.decided).count();
        let open = whole.rules.testable.saturating_sub(decided);
        parts.extend((open > 0).then(|| format!("{open} not judged")));
    }
    parts.extend((whole.expected > 0).then(|| format_count(whole.expected, "known failure")));
    let unplayed = whole.scenarios.unplayed.len();
    parts.extend((unplayed > 0).then(|| format!("{} not played", format_count(unplayed, "scenario"))));
    parts
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{RunFixture, options};
    use super::*;

    /// Returns a share of a fuzz run with one finding, seen in these cases.
    fn share(share: &str, shape: &str, numbers: &[u64]) -> (String, RunDocument) {
        let fixture = RunFixture::one_failure();
        let sources = fixture.sources.clone();
        let text = super::super::json::render(&fixture.report(options()), &sources);
        let mut document: RunDocument = serde_json::from_str(&text).unwrap();
        document.run.share = share.parse().ok();
        let protocol = &mut document.protocols[0];
        let (cases, numbers) = (numbers.len() as u64, numbers.to_vec());
        let cause = FindingTally { shape: shape.to_owned(), cases, numbers, shrunk: None };
        protocol.fuzzed = Some(FuzzReport { cases: 10, decided: 10, causes: vec![cause], ..FuzzReport::default() });
        protocol.scenarios.list.retain(|scenario| scenario.verdict == Verdict::Fail);
        let id = &protocol.scenarios.list[0].id;
        protocol.findings.retain(|finding| finding.scenario == *id);
        (share.to_owned(), document)
    }

    #[test]
    fn findings_with_one_fingerprint_are_one_and_keep_the_first_case() {
        let joined = join(vec![share("2/3", "a", &[5, 2]), share("3/3", "b", &[3]), share("1/3", "a", &[4])]).unwrap();
        let protocol = &joined.protocols[0];
        let fuzzed = protocol.fuzzed.as_ref().unwrap();
        let causes: Vec<(&str, u64, &[u64])> =
            fuzzed.causes.iter().map(|cause| (cause.shape.as_str(), cause.cases, &cause.numbers[..])).collect();
        assert_eq!(causes, [("a", 3, &[2, 4, 5][..]), ("b", 1, &[3])]);
        assert_eq!((fuzzed.cases, protocol.scenarios.list.len(), protocol.scenarios.totals.total), (30, 2, 2));
        assert_eq!(protocol.findings.len(), 2 * share("1/3", "a", &[]).1.protocols[0].findings.len());
    }
}
